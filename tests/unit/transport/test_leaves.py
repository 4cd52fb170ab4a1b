"""When a TLS leaf is exchanged, by a clock that the test holds."""

from __future__ import annotations

import pytest

from meshagent.errors import IdentityError
from meshagent.identity.book import CredentialBook
from meshagent.identity.certificates import LEAF_LIFETIME_S
from meshagent.identity.device import DeviceIdentity
from meshagent.identity.keys import DeviceKey
from meshagent.transport.tls import CLOCK_STEP_S, RENEW_AT, LeafKeeper, PeerIdentifier, SessionResumedError
from tests.support.meshes import TestFleet


class Clock:
    """Wall time that the test sets."""

    def __init__(self, identity: DeviceIdentity) -> None:
        self.now_s = identity.credential.issued_at_s + 3600.0

    def __call__(self) -> float:
        return self.now_s


def test_leaf_is_kept_for_most_of_its_life_and_then_exchanged() -> None:
    identity = TestFleet().device("a")
    clock = Clock(identity)
    keeper = LeafKeeper(identity, clock)
    first = keeper.current()
    clock.now_s += RENEW_AT * LEAF_LIFETIME_S - 60
    assert keeper.current() is first
    clock.now_s += 120
    second = keeper.current()
    assert second is not first
    assert second.not_after_s > first.not_after_s


def test_clock_that_falls_back_makes_another_leaf() -> None:
    identity = TestFleet().device("a")
    clock = Clock(identity)
    keeper = LeafKeeper(identity, clock)
    first = keeper.current()
    clock.now_s -= CLOCK_STEP_S / 2
    assert keeper.current() is first
    clock.now_s -= CLOCK_STEP_S
    assert keeper.current() is not first


def test_renewed_credential_makes_another_leaf_at_once() -> None:
    fleet, key = TestFleet(), DeviceKey.generate()
    identity = fleet.device("a", key=key)
    keeper = LeafKeeper(identity, Clock(identity))
    first = keeper.current()
    identity.credential = fleet.device("a", key=key, generation=2).credential
    assert keeper.current().chain_pem != first.chain_pem


def test_server_keeps_its_old_leaf_when_the_credential_has_run_out() -> None:
    identity = TestFleet().device("a", lifetime_s=7200.0)
    clock = Clock(identity)
    keeper = LeafKeeper(identity, clock)
    served = [keeper.current()]
    clock.now_s = identity.credential.not_after_s + 60.0
    assert keeper._fetch(served) is None
    with pytest.raises(IdentityError, match="expired"):
        keeper.channel_credentials()


def test_each_port_is_told_of_a_new_leaf_exactly_once() -> None:
    identity = TestFleet().device("a")
    keeper = LeafKeeper(identity, Clock(identity))
    ports = [[keeper.current()], [keeper.current()]]
    keeper.rotate()
    assert [keeper._fetch(port) is not None for port in ports] == [True, True]
    assert [keeper._fetch(port) is not None for port in ports] == [False, False]


def test_dials_share_their_credentials_until_the_leaf_changes() -> None:
    identity = TestFleet().device("a")
    keeper = LeafKeeper(identity, Clock(identity))
    first = keeper.channel_credentials()
    assert keeper.channel_credentials() is first
    keeper.rotate()
    assert keeper.channel_credentials() is not first


def test_peer_without_certificate_or_with_a_resumed_session_is_nobody() -> None:
    fleet = TestFleet()
    peer = fleet.device("b")
    clock = Clock(peer)
    identifier = PeerIdentifier(CredentialBook(fleet.trust), clock)
    leaf = peer.issue_leaf(clock())
    seen = {"x509_pem_cert": [leaf.chain_pem], "x509_pem_cert_chain": [leaf.chain_pem]}
    assert identifier.identify(seen).peer == peer.node_id
    assert identifier.identify(seen | {"ssl_session_reused": [b"false"]}).peer == peer.node_id
    with pytest.raises(SessionResumedError):
        identifier.identify(seen | {"ssl_session_reused": [b"true"]})
    with pytest.raises(IdentityError, match="no certificate"):
        identifier.identify({})
    with pytest.raises(IdentityError):
        identifier.identify({"x509_pem_cert": [b"garbage"], "x509_pem_cert_chain": [b"more"]})
