"""The sentences for people: mistake 9 and its relatives."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshagent.identity.credential import CertificateFault, Credential
from meshagent.transport.attempts import DialOutcome
from meshagent.transport.causes import cause_of_failure, cause_of_probe
from meshagent.transport.probe import PeerProbe
from tests.support.meshes import TestFleet

DAY_S = 86400.0
FLEET = TestFleet()
OWN = FLEET.device("dog-2").credential
THEM = FLEET.device("heron-1").credential


def probe(outcome: DialOutcome, credential: Credential | None = THEM, **more: object) -> PeerProbe:
    return PeerProbe(host="10.0.4.20", port=7340, outcome=outcome, credential=credential, **more)  # type: ignore[arg-type]


def test_refusal_by_an_expired_credential_of_our_own_says_so_as_surface_has_it() -> None:
    cause = cause_of_probe(
        "10.0.4.20:7340", probe(DialOutcome.REFUSED_US), None, OWN, OWN.not_after_s + 2 * DAY_S + 3600
    )
    assert cause.outcome is DialOutcome.OUR_CREDENTIAL
    assert cause.sentence == (
        "heron-1 at 10.0.4.20:7340 closed the handshake. Its side says nothing (TLS), ours: "
        "your credential expired 2 days ago."
    )
    assert cause.next_step == "where the fleet's key is: meshagent fleet renew dog-2"


def test_refusal_with_a_clock_before_our_own_credential_says_that_the_clock_is_wrong() -> None:
    cause = cause_of_probe("x:1", probe(DialOutcome.REFUSED_US), None, OWN, OWN.not_before_s - 5 * DAY_S)
    assert cause.outcome is DialOutcome.OUR_CREDENTIAL
    assert "becomes valid in 5 days, so the clock is wrong" in cause.sentence


def test_refusal_without_a_visible_reason_names_the_likely_ones() -> None:
    cause = cause_of_probe("x:1", probe(DialOutcome.REFUSED_US), None, OWN, OWN.issued_at_s + DAY_S)
    assert cause.outcome is DialOutcome.REFUSED_US
    assert "revoked" in cause.sentence
    assert "clock" in cause.sentence


def test_other_device_at_an_address_is_named() -> None:
    expected = FLEET.device("crane").node_id
    cause = cause_of_probe("x:1", probe(DialOutcome.LINKED), expected, OWN, OWN.issued_at_s)
    assert cause.outcome is DialOutcome.OTHER_PEER
    assert "heron-1" in cause.sentence
    assert expected[:8] in cause.sentence


def test_other_fleet_is_named_where_its_certificate_names_it() -> None:
    other = TestFleet().trust.fleet_id
    named = cause_of_probe("x:1", probe(DialOutcome.OTHER_FLEET, None, fleet=other), None, OWN, 0.0)
    assert other[:8] in named.sentence
    assert FLEET.trust.fleet_id[:8] in named.sentence
    unnamed = cause_of_probe("x:1", probe(DialOutcome.OTHER_FLEET, None), None, OWN, 0.0)
    assert "another fleet" in unnamed.sentence


def test_peer_that_is_not_valid_yet_points_to_the_clock() -> None:
    told = probe(DialOutcome.THEIR_CREDENTIAL, None, fault=CertificateFault.NOT_YET_VALID, fault_text="not yet")
    cause = cause_of_probe("x:1", told, None, OWN, 0.0)
    assert cause.next_step == "set the clock (NTP, or date -s)"


@pytest.mark.parametrize("outcome", list(DialOutcome))
def test_every_outcome_has_a_sentence_that_names_the_address(outcome: DialOutcome) -> None:
    for cause in (
        cause_of_failure("10.0.4.20:7340", outcome, "words"),
        cause_of_probe("10.0.4.20:7340", replace(probe(outcome), credential=None), None, OWN, OWN.issued_at_s),
    ):
        assert "10.0.4.20:7340" in cause.sentence
        assert cause.sentence.endswith(".")
