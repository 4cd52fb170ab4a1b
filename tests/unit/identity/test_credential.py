"""Grants, permissions and the two spellings of an id."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshagent.errors import IdentityError
from meshagent.identity.credential import CertificateFault, check_grants, did_of, node_id_from
from meshagent.types import node_id_of
from tests.support.fleets import NOW_S, admit, authority


@pytest.mark.parametrize(
    ("may", "action", "subject", "allowed"),
    [
        ("perform:*", "perform", "pump.check.v1", True),
        ("perform:pump.*", "perform", "pump.check.v1", True),
        ("perform:pump.*", "perform", "pumps", False),
        ("perform:pump.check.v1", "perform", "pump.check.v1", True),
        ("perform:pump.check.v1", "perform", "pump.check.v10", False),
        ("perform:*", "announce", "pump.check.v1", False),
        ("enter:pump-room", "enter", "pump-room", True),
        ("perform:*", "perf", "orm:pump", False),
    ],
)
def test_patterns_allow_what_they_say_and_nothing_else(may: str, action: str, subject: str, allowed: bool) -> None:
    credential = replace(admit(authority(), "dog").credential, may=(may,))
    assert credential.allows(action, subject) is allowed
    assert not replace(credential, may=()).allows(action, subject)


@pytest.mark.parametrize(
    ("name", "may", "capabilities"),
    [
        ("", (), ()),
        ("Dog", (), ()),
        ("dog/../root", (), ()),
        ("-dog", (), ()),
        ("d" * 64, (), ()),
        ("dog\n", (), ()),
        ("dog", ("perform",), ()),
        ("dog", ("perform:",), ()),
        ("dog", ("perform:a\nrevoke:*",), ()),
        ("dog", ("perform:*a",), ()),
        ("dog", ("perform:*", "perform:*"), ()),
        ("dog", (), ("legs arms",)),
        ("dog", (), ("legs\narms",)),
        ("dog", ("a:b",) * 65, ()),
        ("dog", (), tuple(f"c{n}" for n in range(65))),
    ],
)
def test_names_and_grants_outside_the_grammar_are_refused(
    name: str, may: tuple[str, ...], capabilities: tuple[str, ...]
) -> None:
    with pytest.raises(IdentityError):
        check_grants(name, may, capabilities)


def test_faults_follow_the_clock() -> None:
    credential = admit(authority(), "dog").credential
    assert credential.fault_at(NOW_S) is None
    assert credential.fault_at(credential.not_after_s - 1) is None
    assert credential.fault_at(credential.not_after_s) is CertificateFault.EXPIRED
    assert credential.fault_at(credential.not_before_s - 1) is CertificateFault.NOT_YET_VALID


def test_did_key_of_the_specification_example() -> None:
    # W3C did:key, test vector of an Ed25519 key.
    node = node_id_of(bytes.fromhex("2e6fcce36701dc791488e0d0b1745cc1e33a4c1c9fcc41c63bd343dbbe0970e6"))
    assert did_of(node) == "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"
    assert node_id_from(did_of(node)) == node_id_from(node) == node


@given(st.binary(min_size=32, max_size=32))
def test_both_spellings_lead_back_to_the_key(key: bytes) -> None:
    node = node_id_of(key)
    assert node_id_from(did_of(node)) == node


@pytest.mark.parametrize(
    "text",
    [
        "",
        "did:key:z",
        "did:key:z6Mk",
        "did:key:z0OIl",
        "did:key:z" + "z" * 61,
        "did:key:z1" + "6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK",
        "did:web:example.com",
    ],
)
def test_other_spellings_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        node_id_from(text)
