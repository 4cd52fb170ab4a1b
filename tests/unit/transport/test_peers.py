"""Addresses, backoff and attempts: plain bookkeeping, bounded."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshagent.core.ports import HintSource
from meshagent.errors import ConfigurationError
from meshagent.transport.attempts import MAX_ATTEMPTS, Attempts, DialAttempt, DialOutcome
from meshagent.transport.config import MAX_ADDRESSES_PER_PEER, TransportConfig
from meshagent.transport.peers import Backoff, PeerState
from meshagent.types import NodeId

PEER = NodeId("a" * 52)


def state() -> PeerState:
    return PeerState(PEER, Backoff(0.1, 30.0, Random(1)))


@given(st.integers(0, 2**32), st.floats(0.01, 1.0), st.floats(1.0, 60.0), st.integers(1, 200))
def test_backoff_grows_to_its_cap_and_never_beyond(seed: int, first_s: float, cap_s: float, failures: int) -> None:
    backoff = Backoff(first_s, cap_s, Random(seed))
    pauses = [backoff.next_s() for _ in range(failures)]
    for number, pause in enumerate(pauses):
        whole = min(cap_s, first_s * 2.0 ** min(number, 30))
        assert whole / 2 <= pause <= whole
    backoff.reset()
    assert backoff.next_s() <= first_s


def test_two_nodes_do_not_pause_alike() -> None:
    assert Backoff(0.1, 30.0, Random(1)).next_s() != Backoff(0.1, 30.0, Random(2)).next_s()


def test_addresses_are_tried_where_a_link_was_before_and_then_the_newest_first() -> None:
    peer = state()
    for number, proven in enumerate((False, True, False)):
        peer.add_address("10.0.0.1", number, HintSource.MDNS, proven=proven)
    assert [address.port for address in peer.candidates()] == [1, 2, 0]


@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from(list(HintSource)), st.booleans()), max_size=60))
def test_addresses_of_a_peer_are_bounded_and_a_typed_one_outlives_forged_ones(
    hints: list[tuple[int, HintSource, bool]],
) -> None:
    peer = state()
    peer.add_address("10.0.0.1", 7340, HintSource.STATIC)
    for port, source, proven in hints:
        if source is not HintSource.STATIC:
            peer.add_address("10.0.0.2", port, source, proven=proven)
    assert len(peer.addresses) <= MAX_ADDRESSES_PER_PEER
    assert "10.0.0.1" in {address.host for address in peer.addresses}


def test_hint_never_lowers_the_rank_of_an_address() -> None:
    peer = state()
    assert peer.add_address("10.0.0.1", 1, HintSource.STATIC)
    assert not peer.add_address("10.0.0.1", 1, HintSource.MDNS)
    assert peer.addresses[0].source is HintSource.STATIC
    peer.drop_hints(HintSource.MDNS)
    assert len(peer.addresses) == 1


def test_address_that_mdns_withdraws_is_kept_as_remembered_only_where_a_link_was() -> None:
    peer = state()
    peer.add_address("10.0.0.1", 1, HintSource.MDNS, proven=True)
    peer.add_address("10.0.0.1", 2, HintSource.MDNS)
    peer.drop_hints(HintSource.MDNS)
    assert [(address.port, address.source) for address in peer.addresses] == [(1, HintSource.REMEMBERED)]


def test_most_trusted_address_decides_how_long_pauses_grow() -> None:
    peer, config = state(), TransportConfig()
    peer.add_address("10.0.0.1", 1, HintSource.REMEMBERED)
    peer.adjust_backoff(config)
    assert peer.backoff.cap_s == 30.0
    peer.add_address("10.0.0.1", 2, HintSource.STATIC)
    peer.adjust_backoff(config)
    assert peer.backoff.cap_s == 2.0


def attempt(address: str, outcome: DialOutcome) -> DialAttempt:
    return DialAttempt(address=address, source=HintSource.STATIC, outcome=outcome, sentence="", at_wall_s=0.0)


def test_attempts_count_equal_outcomes_in_a_row() -> None:
    attempts = Attempts()
    for outcome in (DialOutcome.SILENT, DialOutcome.SILENT, DialOutcome.LINKED, DialOutcome.SILENT):
        last = attempts.add(attempt("a:1", outcome))
    assert last.tries == 1
    attempts.add(attempt("a:1", DialOutcome.SILENT))
    assert [(a.outcome, a.tries) for a in attempts.all()] == [(DialOutcome.SILENT, 2)]


def test_attempts_are_bounded_and_the_longest_untried_leaves() -> None:
    attempts = Attempts()
    for number in range(MAX_ATTEMPTS + 10):
        attempts.add(attempt(f"a:{number}", DialOutcome.SILENT))
    kept = attempts.all()
    assert len(kept) == MAX_ATTEMPTS
    assert kept[0].address == "a:10"


@pytest.mark.parametrize(
    "wrong",
    [{"port": -1}, {"port": 65536}, {"keepalive_s": 0.0}, {"dial_timeout_s": float("inf")}, {"backoff_max_s": {}}],
)
def test_wrong_setting_is_refused_when_the_configuration_is_built(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        TransportConfig(**wrong)  # type: ignore[arg-type]
