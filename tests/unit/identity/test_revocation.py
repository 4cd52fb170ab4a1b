"""Revocation lists and their union."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshagent.identity import revocation
from meshagent.identity.fleet import MAX_REVOKED
from meshagent.identity.keys import DeviceKey
from meshagent.identity.revocation import (
    MAX_ENTRIES,
    MAX_LISTS_A_SIGNER,
    MAX_SIGNED_BYTES,
    RevocationEntry,
    RevocationError,
    RevocationList,
    RevocationReason,
    RevocationSet,
    parse_list,
    sign_list,
    verify_list,
)
from tests.support.fleets import NOW_S, admit, authority, key_of

FAR_S = int(NOW_S) + 10_000
ROOT = authority()._root_key
FLEET = authority().fleet


def entry(name: str, generation: int = 2, not_after_s: int = FAR_S) -> RevocationEntry:
    return RevocationEntry(key_of(name).public, generation, RevocationReason.KEY_COMPROMISE, not_after_s)


def listed(number: int, *entries: RevocationEntry, key: DeviceKey = ROOT) -> RevocationList:
    return sign_list(key, FLEET, entries, number=number, now_s=NOW_S)


def test_the_layout_is_that_of_the_specification() -> None:
    one = listed(7, entry("b"), entry("a"))
    assert one.signed.startswith(b"meshagent/revocation/v1\0" + FLEET + ROOT.public + (7).to_bytes(8, "big"))
    assert len(one.signed) == 24 + 32 + 32 + 8 + 8 + 2 + 2 * 45 + 64
    assert [e.key for e in one.entries] == sorted(key_of(n).public for n in "ab")
    parsed, credential = verify_list(one.signed, authority().trust, now_s=NOW_S)
    assert parsed == one
    assert credential is None


def test_an_unknown_reason_revokes_all_the_same() -> None:
    data = bytearray(listed(1, entry("a")).signed)
    data[24 + 82 + 36] = 200
    assert parse_list(bytes(data)).entries[0].reason is RevocationReason.UNSPECIFIED


@pytest.mark.parametrize("cut", [0, 5, 24, 100, 105, 150, -64, -1])
def test_a_list_cut_short_is_refused(cut: int) -> None:
    with pytest.raises(RevocationError):
        verify_list(listed(1, entry("a")).signed[:cut], authority().trust, now_s=NOW_S)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, (24 + 82 + 45 + 64) * 8 - 1))
def test_any_flipped_bit_is_refused(bit: int) -> None:
    data = bytearray(listed(1, entry("a")).signed)
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(RevocationError):
        verify_list(bytes(data), authority().trust, now_s=NOW_S)


def test_unsorted_doubled_and_endless_lists_are_refused() -> None:
    good = listed(1, entry("a"), entry("b")).signed
    head, one, two = good[:106], good[106:151], good[151:196]
    for body in (two + one, one + one):
        with pytest.raises(RevocationError, match="sorted"):
            parse_list(head + body + good[196:])
    with pytest.raises(RevocationError, match="impossible length"):
        parse_list(good + bytes(revocation.MAX_LIST_BYTES))
    with pytest.raises(ValueError, match="at most"):
        listed(1, *(entry(str(n)) for n in range(MAX_ENTRIES + 1)))
    with pytest.raises(ValueError, match="do not fit"):
        listed(1, *(entry(str(n)) for n in range(MAX_ENTRIES)))
    assert len(listed(1, *(entry(str(n)) for n in range(MAX_REVOKED))).signed) <= MAX_SIGNED_BYTES
    with pytest.raises(ValueError, match="one a device"):
        listed(1, entry("a"), entry("a", 3))


def test_only_a_root_or_a_delegated_revoker_may_sign() -> None:
    fleet = authority()
    guard = admit(fleet, "guard", may=("revoke:*",))
    dog = admit(fleet, "dog")
    stranger = admit(authority("other"), "guard", may=("revoke:*",))
    good = sign_list(guard.key, FLEET, [entry("x")], number=1, now_s=NOW_S, credential=guard.credential)
    assert verify_list(good.signed, fleet.trust, now_s=NOW_S)[1] == guard.credential
    for key, credential, words in (
        (guard.key, None, "no root"),
        (dog.key, dog.credential, "may not"),
        (dog.key, guard.credential, "may not"),
        (stranger.key, stranger.credential, "does not hold"),
    ):
        bad = sign_list(key, FLEET, [entry("x")], number=1, now_s=NOW_S, credential=credential)
        with pytest.raises(RevocationError, match=words):
            verify_list(bad.signed, fleet.trust, now_s=NOW_S)
    with pytest.raises(RevocationError, match="does not hold"):
        verify_list(good.signed, fleet.trust, now_s=guard.credential.not_after_s)
    with pytest.raises(RevocationError, match="another fleet"):
        verify_list(good.signed, authority("other").trust, now_s=NOW_S)


def test_lists_add_up_and_an_old_list_takes_nothing_away() -> None:
    known = RevocationSet()
    first, second = listed(1, entry("a")), listed(2, entry("b"))
    assert known.add(second, None, now_s=NOW_S)
    assert known.add(first, None, now_s=NOW_S)
    assert not known.add(first, None, now_s=NOW_S)
    assert {e.key for e in known.entries()} == {key_of("a").public, key_of("b").public}
    assert known.add(listed(3, entry("a", 5)), None, now_s=NOW_S)
    assert not known.add(listed(0, entry("a", 2)), None, now_s=NOW_S)
    assert known.min_generation(key_of("a").public) == 5
    assert known.min_generation(key_of("nobody").public) == 0


def test_whoever_takes_in_what_is_spread_knows_the_same() -> None:
    one, two = RevocationSet(), RevocationSet()
    for number in range(1, 30):
        one.add(listed(number, entry(str(number % 11), number)), None, now_s=NOW_S)
    assert len(one.spread()) <= MAX_LISTS_A_SIGNER
    newest = listed(99, *one.entries())
    one.add(newest, None, now_s=NOW_S)
    assert one.spread() == (newest.signed,)
    for signed in one.spread():
        two.add(*verify_list(signed, authority().trust, now_s=NOW_S), now_s=NOW_S)
    assert two.entries() == one.entries()
    assert two.state() == one.state()
    assert RevocationSet().state() != one.state()


def test_entries_end_with_the_credential_they_revoke() -> None:
    known = RevocationSet()
    known.add(listed(1, entry("a", not_after_s=int(NOW_S) + 10), entry("b")), None, now_s=NOW_S)
    known.expire(NOW_S + 11)
    assert [e.key for e in known.entries()] == [key_of("b").public]
    known.expire(FAR_S + 1)
    assert known.entries() == ()


def test_a_revoked_revokers_lists_count_no_more() -> None:
    fleet = authority()
    guard = admit(fleet, "guard", may=("revoke:*",))
    by_guard = sign_list(guard.key, FLEET, [entry("x")], number=1, now_s=NOW_S, credential=guard.credential)
    known = RevocationSet()
    known.add(by_guard, guard.credential, now_s=NOW_S)
    assert known.min_generation(key_of("x").public) == 2
    known.add(listed(1, entry("guard", 2)), None, now_s=NOW_S)
    assert known.min_generation(key_of("x").public) == 0
    assert known.min_generation(guard.key.public) == 2


def test_revokers_are_bounded_and_roots_are_not_locked_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation, "MAX_SIGNERS", 2)
    monkeypatch.setattr(revocation, "MAX_ENTRIES", 3)
    fleet = authority()
    known = RevocationSet()
    guards = [admit(fleet, f"guard-{n}", may=("revoke:*",)) for n in range(3)]
    lists = [
        sign_list(g.key, FLEET, [entry(f"x{n}{i}") for i in range(2)], number=1, now_s=NOW_S, credential=g.credential)
        for n, g in enumerate(guards)
    ]
    for one, guard in zip(lists[:2], guards[:2], strict=True):
        known.add(one, guard.credential, now_s=NOW_S)
    with pytest.raises(RevocationError, match="too many signers"):
        known.add(lists[2], guards[2].credential, now_s=NOW_S)
    more = sign_list(
        guards[0].key, FLEET, [entry("y"), entry("z")], number=2, now_s=NOW_S, credential=guards[0].credential
    )
    with pytest.raises(RevocationError, match="one revoker"):
        known.add(more, guards[0].credential, now_s=NOW_S)
    assert known.add(listed(1, entry("a")), None, now_s=NOW_S)
    assert known.min_generation(key_of("a").public) == 2
