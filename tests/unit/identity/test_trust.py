"""Roots: the chain, its overlap, and what does not belong to it."""

from __future__ import annotations

import hashlib

import pytest

from meshagent.identity.certificates import split_pem
from meshagent.identity.credential import CertificateError, CertificateFault
from meshagent.identity.keys import DeviceKey
from meshagent.identity.trust import MAX_ROOTS, OVERLAP_S, Trust, issue_root, parse_root
from tests.support.fleets import NOW_S, admit, authority, key_of

DAY_S = 86400


def test_the_fleets_id_is_the_hash_of_its_first_root_and_stays_over_rotations() -> None:
    fleet = authority()
    first = fleet.trust.roots[0]
    assert fleet.fleet == hashlib.sha256(first).digest()
    assert fleet.name == "plant"
    fleet.rotate_root(now_s=NOW_S + DAY_S)
    assert fleet.fleet == hashlib.sha256(first).digest()
    assert len(fleet.trust.roots) == 2
    assert fleet.name == "plant"


def test_the_root_before_stays_an_anchor_until_the_new_one_says() -> None:
    fleet = authority()
    dog = admit(fleet, "dog")
    root = fleet.rotate_root(now_s=NOW_S + DAY_S)
    trust = Trust(dog.trust.roots)
    assert trust.extend(root)
    assert not trust.extend(root)
    during, after = NOW_S + 2 * DAY_S, NOW_S + DAY_S + OVERLAP_S
    assert [r.sequence for r in trust.anchors(during)] == [1, 0]
    assert [r.sequence for r in trust.anchors(after)] == [1]
    book = dog.open_book(now_s=NOW_S)
    book.extend_trust(root)
    cat = admit(fleet, "cat", now_s=during)
    assert book.learn(cat.credential.der, now_s=during).name == "cat"
    assert book.learn(dog.credential.der, now_s=during).name == "dog"
    with pytest.raises(CertificateError, match="has been replaced") as caught:
        book.learn(dog.credential.der, now_s=after)
    assert caught.value.fault is CertificateFault.OTHER_FLEET
    assert len(split_pem(trust.root_pem)) == 2


def test_a_stolen_root_key_is_ended_at_once_by_the_next_one() -> None:
    fleet = authority()
    dog = admit(fleet, "dog")
    root = fleet.rotate_root(now_s=NOW_S + DAY_S, overlap_s=0)
    book = dog.open_book(now_s=NOW_S)
    book.extend_trust(root)
    with pytest.raises(CertificateError):
        book.learn(dog.credential.der, now_s=NOW_S + DAY_S)


def test_only_the_key_that_was_committed_to_succeeds() -> None:
    fleet = authority()
    following = fleet._next_key
    assert following is not None
    thief, after = key_of("thief"), DeviceKey.generate()
    trust = Trust(fleet.trust.roots)
    for root, fault in (
        (issue_root(thief, after.public, name="plant", now_s=NOW_S, fleet=fleet.fleet, sequence=1), "PROFILE"),
        (
            issue_root(fleet._root_key, after.public, name="plant", now_s=NOW_S, fleet=fleet.fleet, sequence=1),
            "PROFILE",
        ),
        (
            issue_root(following, after.public, name="plant", now_s=NOW_S, fleet=fleet.fleet, sequence=2),
            "PROFILE",
        ),
        (
            issue_root(following, after.public, name="plant", now_s=NOW_S, fleet=bytes(32), sequence=1),
            "OTHER_FLEET",
        ),
        (authority("other").trust.roots[0], "OTHER_FLEET"),
    ):
        with pytest.raises(CertificateError) as caught:
            trust.extend(root)
        assert caught.value.fault is CertificateFault[fault]
    assert trust.roots == fleet.trust.roots


def test_a_later_root_is_no_beginning_and_a_chain_has_an_end() -> None:
    fleet = authority()
    root = fleet.rotate_root(now_s=NOW_S)
    with pytest.raises(CertificateError, match="later root"):
        Trust([root])
    for count in (0, MAX_ROOTS + 1):
        with pytest.raises(CertificateError, match="1 to"):
            Trust([root] * count)
    for n in range(MAX_ROOTS - 2):
        fleet.rotate_root(now_s=NOW_S + n)
    with pytest.raises(CertificateError, match="over"):
        fleet.rotate_root(now_s=NOW_S + 99)
    Trust(fleet.trust.roots)


def test_a_root_of_another_form_is_refused() -> None:
    dog = admit(authority(), "dog")
    for data in (b"", dog.credential.der, split_pem(dog.issue_leaf(NOW_S).chain_pem)[0]):
        with pytest.raises(CertificateError):
            parse_root(data)
    root = bytearray(authority().trust.roots[0])
    root[-1] ^= 1
    with pytest.raises(CertificateError):
        parse_root(bytes(root))
