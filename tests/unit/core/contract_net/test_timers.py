"""The lazy heap behaves as a plain table of deadlines would."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshagent.core.contract_net.timers import REBUILD_ABOVE, Timers

steps = st.lists(st.tuples(st.sampled_from("abcdef"), st.none() | st.integers(0, 20)), max_size=60)


@given(steps, st.integers(0, 20))
def test_it_rings_what_a_table_would_ring_in_the_same_order(arms: list[tuple[str, int | None]], now: int) -> None:
    timers = Timers()
    table: dict[str, tuple[int, int]] = {}
    for order, (key, at) in enumerate(arms):
        timers.arm(key, at)
        if at is None:
            table.pop(key, None)
        elif table.get(key, (-1, 0))[0] != at:
            table[key] = (at, order)
    assert timers.next_s() == (min(at for at, _ in table.values()) if table else None)
    rung = []
    while (due_key := timers.pop_due(now)) is not None:
        rung.append(due_key)
    due = sorted((at, order, key) for key, (at, order) in table.items() if at <= now)
    assert sorted(rung) == sorted(key for _, _, key in due)
    assert [table[key][0] for key in rung] == [at for at, _, _ in due], "the earliest first"
    assert len(timers) == len(table) - len(due)


def test_what_is_armed_again_leaves_no_pile_behind() -> None:
    timers = Timers()
    for at in range(100_000):
        timers.arm("lease", 1_000_000.0 - at)
    assert len(timers._heap) <= REBUILD_ABOVE + 8
    assert timers.next_s() == 900_001.0


def test_nothing_rings_before_its_time_nor_twice() -> None:
    timers = Timers()
    timers.arm("a", 5.0)
    assert timers.pop_due(4.999) is None
    assert timers.pop_due(5.0) == "a"
    assert timers.pop_due(5.0) is None
    assert timers.next_s() is None
