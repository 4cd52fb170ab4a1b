"""The window and the boots, compared with a model that remembers everything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshagent.errors import IdentityError
from meshagent.identity import replay
from meshagent.identity.envelope import make_boot
from meshagent.identity.replay import BROADCASTS, DIRECT, MAX_BOOT_JUMP, WINDOW, BootVerdict, ReplayTable, SenderState

A = b"a" * 32


def boot(counter: int, randomness: bytes = b"r" * 8) -> bytes:
    return make_boot(counter, randomness)


@given(st.lists(st.integers(0, 3 * WINDOW) | st.integers(0, 5 * WINDOW).map(lambda n: n // 7), max_size=120))
def test_the_window_agrees_with_a_set_that_never_forgets(numbers: list[int]) -> None:
    state = SenderState(boot(1), 1)
    seen: set[int] = set()
    highest = 0
    for seq in numbers:
        expected = seq > 0 and seq not in seen and seq > highest - WINDOW
        assert state.fresh(DIRECT, seq) is expected
        if expected:
            state.mark(DIRECT, seq)
            seen.add(seq)
            highest = max(highest, seq)
    assert state.highest == [highest, 0]
    assert state.seen[DIRECT].bit_length() <= WINDOW


def test_the_two_windows_are_apart() -> None:
    state = SenderState(boot(1), 1)
    state.mark(DIRECT, 5)
    assert not state.fresh(DIRECT, 5)
    assert state.fresh(BROADCASTS, 5)


@pytest.mark.parametrize("jump", [1, 2, WINDOW - 1, WINDOW, WINDOW + 1, 2**63])
def test_jumps_at_the_edges_of_the_window(jump: int) -> None:
    state = SenderState(boot(1), 1)
    state.mark(DIRECT, 1)
    state.mark(DIRECT, 1 + jump)
    assert not state.fresh(DIRECT, 1 + jump)
    assert not state.fresh(DIRECT, 1)
    assert state.fresh(DIRECT, jump) is (jump > 1)


def test_verdicts_on_boots() -> None:
    table = ReplayTable()
    assert table.judge(A, boot(5), 1) is BootVerdict.NEW
    table.enter(A, boot(5), 1)
    assert table.judge(A, boot(5), 1) is BootVerdict.PRESENT
    assert table.judge(A, boot(6), 1) is BootVerdict.NEW
    assert table.judge(A, boot(4), 1) is BootVerdict.OVER
    assert table.judge(A, boot(5, b"other..."), 1) is BootVerdict.DUPLICATE
    assert table.judge(A, boot(5 + MAX_BOOT_JUMP), 1) is BootVerdict.NEW
    assert table.judge(A, boot(6 + MAX_BOOT_JUMP), 1) is BootVerdict.JUMP


def test_a_new_credential_is_the_owners_word_for_counting_anew() -> None:
    table = ReplayTable()
    table.enter(A, boot(500), 1)
    assert table.judge(A, boot(1), 2) is BootVerdict.NEW
    assert table.judge(A, boot(2**60), 2) is BootVerdict.NEW
    first = table.get(A)
    assert first is not None
    first.hlc = 99
    assert table.enter(A, boot(1), 2).hlc == 99, "or recordings of the old boots would pass"
    assert table.judge(A, boot(500), 2) is BootVerdict.NEW
    assert table.judge(A, boot(2**60), 2) is BootVerdict.JUMP


def test_rows_carry_the_state_over_a_restart() -> None:
    table = ReplayTable()
    state = table.enter(A, boot(5), 3)
    state.hlc = 77
    for seq in (1, 3, 4, 900):
        state.mark(DIRECT, seq)
    state.mark(BROADCASTS, 12)
    table.changed.add(A)
    [(key, row)] = table.take_changed()
    assert key == A
    assert table.take_changed() == []
    again = ReplayTable()
    again.load(row)
    loaded = again.get(A)
    assert loaded is not None
    assert (loaded.boot, loaded.generation, loaded.hlc) == (boot(5), 3, 77)
    assert [seq for seq in (1, 2, 3, 4, 5, 900, 901) if loaded.fresh(DIRECT, seq)] == [2, 5, 901]
    assert not loaded.fresh(BROADCASTS, 12)
    assert again.dump() == table.dump() == [row]
    for bad in (b"", row[:-1], row + b"x", b"x" + row[1:]):
        with pytest.raises(IdentityError):
            ReplayTable().load(bad)


def test_the_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "MAX_SENDERS", 2)
    table = ReplayTable()
    for name in (b"a", b"b"):
        table.enter(name * 32, boot(1), 1)
    with pytest.raises(IdentityError, match="over 2"):
        table.enter(b"c" * 32, boot(1), 1)
    table.enter(b"a" * 32, boot(2), 1)
    table.changed.add(b"c" * 32)
    assert table.take_changed() == []
