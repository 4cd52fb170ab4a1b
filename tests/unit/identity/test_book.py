"""The book of devices: generations, time floor, memory."""

from __future__ import annotations

import pytest

from meshagent.errors import IdentityError
from meshagent.identity import book as book_module
from meshagent.identity.book import CredentialBook
from meshagent.identity.certificates import split_pem
from meshagent.identity.credential import CertificateError, CertificateFault, Credential
from meshagent.identity.fleet import FleetAuthority
from meshagent.identity.revocation import RevocationEntry, RevocationError, RevocationReason, sign_list
from meshagent.strictpack import packb
from tests.support.fleets import NOW_S, admit, authority, key_of

DAY_S = 86400


def fresh(fleet: FleetAuthority, changes: list[int] | None = None) -> CredentialBook:
    trust = admit(fleet, "reader").trust
    return CredentialBook(trust, on_change=(lambda: changes.append(1)) if changes is not None else None)


def fault_of(book: CredentialBook, der: bytes, now_s: float = NOW_S) -> CertificateFault:
    with pytest.raises(CertificateError) as caught:
        book.learn(der, now_s=now_s)
    return caught.value.fault


def test_who_is_known_may_speak_and_who_is_not_may_not() -> None:
    fleet, changes = authority(), list[int]()
    book, dog = fresh(fleet, changes), admit(fleet, "dog")
    assert book.speaker(dog.key.public, now_s=NOW_S) is CertificateFault.UNKNOWN
    assert book.current(dog.node_id, now_s=NOW_S) is None
    assert book.learn(dog.credential.der, now_s=NOW_S) == dog.credential
    assert changes == [1]
    book.learn(dog.credential.der, now_s=NOW_S)
    assert changes == [1]
    assert book.current(dog.node_id, now_s=NOW_S) == book.find(dog.node_id) == dog.credential
    assert book.known() == (dog.credential,)
    assert book.speaker(dog.key.public, now_s=dog.credential.not_after_s) is CertificateFault.EXPIRED


def test_verified_chains_are_remembered_but_still_judged() -> None:
    fleet = authority()
    book, dog = fresh(fleet), admit(fleet, "dog")
    leaf = dog.issue_leaf(NOW_S)
    leaf_der, ca = split_pem(leaf.chain_pem)
    assert book.verify_peer(leaf.chain_pem, leaf.chain_pem, now_s=NOW_S) == dog.credential
    assert book.verify_peer(leaf_der, [ca], now_s=NOW_S) == dog.credential
    assert len(book._chains) == 1
    with pytest.raises(CertificateError) as caught:
        book.verify_peer(leaf_der, [ca], now_s=NOW_S + 2 * DAY_S)
    assert caught.value.fault is CertificateFault.EXPIRED
    book.verify_peer(leaf_der, [ca], now_s=NOW_S)
    book.learn(admit(fleet, "dog").credential.der, now_s=NOW_S)
    with pytest.raises(CertificateError) as caught:
        book.verify_peer(leaf_der, [ca], now_s=NOW_S)
    assert caught.value.fault is CertificateFault.SUPERSEDED
    with pytest.raises(CertificateError) as caught:
        book.verify_peer(leaf_der, [ca, admit(fleet, "cat").credential.der], now_s=NOW_S)
    assert caught.value.fault is CertificateFault.CHAIN_SHAPE
    for rubbish in (b"", b"-----", b"\x30"):
        with pytest.raises(CertificateError):
            book.verify_peer(rubbish, rubbish, now_s=NOW_S)


def test_the_cache_of_chains_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_module, "MAX_CACHED_CHAINS", 2)
    fleet = authority()
    book, dog = fresh(fleet), admit(fleet, "dog")
    for _ in range(4):
        leaf = dog.issue_leaf(NOW_S)
        book.verify_peer(leaf.chain_pem, leaf.chain_pem, now_s=NOW_S)
    assert len(book._chains) == 2


def test_revocation_bites_on_who_is_known_and_names_the_entry() -> None:
    fleet = authority()
    book, dog = fresh(fleet), admit(fleet, "dog")
    book.learn(dog.credential.der, now_s=NOW_S)
    signed = fleet.revoke("dog", now_s=NOW_S, reason=RevocationReason.KEY_COMPROMISE).signed
    assert book.merge_revocations(signed, now_s=NOW_S)
    assert not book.merge_revocations(signed, now_s=NOW_S)
    assert book.speaker(dog.key.public, now_s=NOW_S) is CertificateFault.REVOKED
    assert fault_of(book, dog.credential.der) is CertificateFault.REVOKED
    found = book.revoked(dog.node_id)
    assert found is not None
    assert found.reason is RevocationReason.KEY_COMPROMISE
    assert book.revoked(key_of("cat").node_id) is None


def test_a_newer_generation_than_the_revoked_one_may_speak() -> None:
    fleet = authority()
    book = fresh(fleet)
    admit(fleet, "dog")
    lost = RevocationEntry(key_of("dog").public, 2, RevocationReason.SUPERSEDED, int(NOW_S) + DAY_S)
    book.merge_revocations(sign_list(fleet._root_key, fleet.fleet, [lost], number=1, now_s=NOW_S).signed, now_s=NOW_S)
    again = admit(fleet, "dog")
    assert book.learn(again.credential.der, now_s=NOW_S).generation == 2
    assert book.revoked(again.node_id) is None


def test_memory_survives_a_restart() -> None:
    fleet = authority()
    book, old = fresh(fleet), admit(fleet, "dog")
    new = admit(fleet, "dog", now_s=NOW_S + DAY_S)
    cat = admit(fleet, "cat")
    book.learn(new.credential.der, now_s=NOW_S + DAY_S)
    book.learn(cat.credential.der, now_s=NOW_S + DAY_S)
    book.merge_revocations(fleet.revoke("cat", now_s=NOW_S + DAY_S).signed, now_s=NOW_S + DAY_S)
    book.extend_trust(fleet.rotate_root(now_s=NOW_S + 2 * DAY_S))
    again = fresh(authority())
    again.load(book.dump())
    assert again.time_floor_s == book.time_floor_s == NOW_S + 2 * DAY_S
    assert fault_of(again, old.credential.der) is CertificateFault.SUPERSEDED
    assert fault_of(again, cat.credential.der) is CertificateFault.REVOKED
    assert again.trust.roots == book.trust.roots
    assert again.notices() == book.notices()
    assert again.learn(new.credential.der, now_s=NOW_S).generation == 2


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc0",
        packb({}),
        packb({"version": 9}),
        packb({"version": 1, "floor_s": "x", "generations": b"", "roots": [], "lists": []}),
        packb({"version": 1, "floor_s": 1, "generations": b"x", "roots": [], "lists": []}),
        packb({"version": 1, "floor_s": 1, "generations": b"", "roots": [b"x"], "lists": []}),
        packb({"version": 1, "floor_s": 1, "generations": b"", "roots": [1], "lists": []}),
        packb({"version": 1, "floor_s": 1, "generations": b"", "roots": [], "lists": [b"x"]}),
        packb({"version": 1, "floor_s": 1, "generations": b"", "roots": 5, "lists": []}),
    ],
)
def test_damaged_memory_is_one_clear_error(data: bytes) -> None:
    with pytest.raises(IdentityError, match="damaged"):
        fresh(authority()).load(data)


def test_notices_carry_roots_and_lists_to_who_lacks_them() -> None:
    fleet = authority()
    dog = admit(fleet, "dog")
    teller, hearer = dog.open_book(now_s=NOW_S), admit(authority(), "cat").open_book(now_s=NOW_S)
    teller.merge_revocations(fleet.revoke("dog", now_s=NOW_S).signed, now_s=NOW_S)
    teller.extend_trust(fleet.rotate_root(now_s=NOW_S))
    assert [hearer.merge(n, now_s=NOW_S) for n in teller.notices()] == [True, True]
    assert [hearer.merge(n, now_s=NOW_S) for n in teller.notices()] == [False, False]
    assert hearer.notices() == teller.notices()
    assert teller.notice_groups(65_000, 64) == [teller.notices()]
    assert teller.notice_groups(10, 64) == [(notice,) for notice in teller.notices()]
    assert teller.notice_groups(65_000, 1) == [(notice,) for notice in teller.notices()]
    assert admit(authority(), "cow").open_book(now_s=NOW_S).notice_groups(10, 64) == []
    for bad in (b"", b"\x30", b"\x30\x00", authority("other").trust.roots[0], b"meshagent/revocation/v1\0"):
        with pytest.raises(RevocationError):
            hearer.merge(bad, now_s=NOW_S)


def test_a_revoker_moves_nobodys_time_and_a_revoked_one_is_refused() -> None:
    fleet = authority()
    guard = admit(fleet, "guard", may=("revoke:*",))
    book = fresh(fleet)
    victim = RevocationEntry(key_of("dog").public, 5, RevocationReason.UNSPECIFIED, int(NOW_S) + DAY_S)
    later = sign_list(
        guard.key, fleet.fleet, [victim], number=1, now_s=NOW_S + 300 * DAY_S, credential=guard.credential
    )
    assert book.merge_revocations(later.signed, now_s=NOW_S)
    assert book.time_floor_s == NOW_S
    book.merge_revocations(fleet.revoke("guard", now_s=NOW_S).signed, now_s=NOW_S)
    more = sign_list(guard.key, fleet.fleet, [victim], number=2, now_s=NOW_S, credential=guard.credential)
    with pytest.raises(RevocationError, match="revoked"):
        book.merge_revocations(more.signed, now_s=NOW_S)
    assert book.revocations.min_generation(victim.key) == 0


def test_the_number_of_devices_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_module, "MAX_DEVICES", 2)
    fleet = authority()
    book = fresh(fleet)
    for name in ("a", "b"):
        book.learn(admit(fleet, name).credential.der, now_s=NOW_S)
    with pytest.raises(CertificateError, match="over 2"):
        book.learn(admit(fleet, "c").credential.der, now_s=NOW_S)
    assert isinstance(book.speaker(key_of("a").public, now_s=NOW_S), Credential)
