"""The Hello: both sides, every refusal."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshagent.identity.book import CredentialBook
from meshagent.identity.device import DeviceIdentity
from meshagent.identity.envelope import make_boot
from meshagent.identity.fleet import FleetAuthority
from meshagent.identity.hello import (
    MAX_HELLO_BYTES,
    MAX_HELLOS,
    Hello,
    HelloAccepted,
    HelloPending,
    HelloRefusal,
    HelloRefused,
    HelloResult,
    HelloSession,
    parse_hello,
    sign_hello,
)
from meshagent.identity.replay import DIRECT, ReplayTable
from meshagent.types import NodeId
from tests.support.fleets import HLC, NOW_S, WALL_MS, admit, authority


@dataclass
class Side:
    identity: DeviceIdentity
    counter: int = 1
    randomness: bytes = b"r" * 8
    replay: ReplayTable = field(default_factory=ReplayTable)

    def __post_init__(self) -> None:
        self.book: CredentialBook = self.identity.open_book(now_s=NOW_S)
        self.boot = make_boot(self.counter, self.randomness)

    def session(self, peer: NodeId, **options: object) -> HelloSession:
        return HelloSession(self.identity, self.boot, self.book, self.replay, peer, **options)  # type: ignore[arg-type]

    def restarted(self, counter: int, randomness: bytes = b"r" * 8) -> Side:
        return Side(self.identity, counter, randomness, self.replay)


def pair(fleet: FleetAuthority | None = None) -> tuple[Side, Side]:
    fleet = fleet or authority()
    return Side(admit(fleet, "ann")), Side(admit(fleet, "bob"))


def greet(ann: Side, bob: Side, *, ahead_ms: int = 0) -> tuple[HelloResult, HelloResult]:
    """What both sides conclude; `ahead_ms`: how far ann's clock runs ahead."""
    at_ann, at_bob = ann.session(bob.identity.node_id), bob.session(ann.identity.node_id)
    anns = {"hlc": HLC + (ahead_ms << 16), "wall_ms": WALL_MS + ahead_ms}
    bobs = {"hlc": HLC, "wall_ms": WALL_MS}
    result_bob = at_bob.received(at_ann.first(anns["hlc"]), **bobs)
    if not isinstance(result_bob, HelloPending):
        return result_bob, result_bob
    result_ann = at_ann.received(result_bob.answer, **anns)
    if not isinstance(result_ann, HelloAccepted):
        return result_ann, result_bob
    assert result_ann.answer is not None
    return result_ann, at_bob.received(result_ann.answer, **bobs)


def refusal(result: HelloResult) -> HelloRefusal:
    assert isinstance(result, HelloRefused)
    assert result.detail
    return result.reason


def test_two_devices_accept_each_other_and_learn_boot_version_and_clock() -> None:
    ann, bob = pair()
    at_ann, at_bob = greet(ann, bob, ahead_ms=3_600_000)
    assert isinstance(at_ann, HelloAccepted)
    assert isinstance(at_bob, HelloAccepted)
    assert at_ann.credential == bob.identity.credential
    assert (at_bob.boot, at_bob.version, at_bob.new_boot) == (ann.boot, 1, True)
    assert at_bob.clock_offset_ms == -3_600_000
    assert at_ann.clock_offset_ms == 3_600_000
    assert (at_bob.next_direct, at_bob.next_broadcast, at_bob.answer) == (1, 1, None)
    state = bob.replay.get(ann.identity.key.public)
    assert state is not None
    assert state.offset_ms == -3_600_000


def test_both_greeting_at_once_works_too() -> None:
    ann, bob = pair()
    at_ann, at_bob = ann.session(bob.identity.node_id), bob.session(ann.identity.node_id)
    clocks = {"hlc": HLC, "wall_ms": WALL_MS}
    one, two = at_ann.first(HLC), at_bob.first(HLC)
    answer_bob, answer_ann = at_bob.received(one, **clocks), at_ann.received(two, **clocks)
    assert isinstance(answer_ann, HelloPending)
    assert isinstance(answer_bob, HelloPending)
    assert isinstance(at_ann.received(answer_bob.answer, **clocks), HelloAccepted)
    assert isinstance(at_bob.received(answer_ann.answer, **clocks), HelloAccepted)
    assert at_ann.accepted is not None


def test_a_restarted_peer_and_one_reconnected_are_told_apart() -> None:
    ann, bob = pair()
    greet(ann, bob)
    state = bob.replay.get(ann.identity.key.public)
    assert state is not None
    state.mark(DIRECT, 41)
    at_ann, at_bob = greet(ann, bob)
    assert isinstance(at_bob, HelloAccepted)
    assert isinstance(at_ann, HelloAccepted)
    assert not at_bob.new_boot
    assert at_ann.next_direct == 42
    at_ann, at_bob = greet(ann.restarted(2), bob)
    assert isinstance(at_bob, HelloAccepted)
    assert isinstance(at_ann, HelloAccepted)
    assert at_bob.new_boot
    assert at_ann.next_direct == 1


def test_what_a_refused_boot_is_called() -> None:
    ann, bob = pair()
    greet(ann.restarted(5), bob)
    assert refusal(greet(ann.restarted(4), bob)[1]) is HelloRefusal.OLD_BOOT
    assert refusal(greet(ann.restarted(5, b"copied.."), bob)[1]) is HelloRefusal.DUPLICATE_IDENTITY
    assert refusal(greet(ann.restarted(5 + 10**6), bob)[1]) is HelloRefusal.BOOT_JUMP
    assert isinstance(greet(ann.restarted(6), bob)[1], HelloAccepted)


def test_the_owners_word_lets_the_boots_count_anew() -> None:
    fleet = authority()
    ann, bob = pair(fleet)
    greet(ann.restarted(500), bob)
    assert refusal(greet(ann.restarted(3), bob)[1]) is HelloRefusal.OLD_BOOT
    renewed = Side(admit(fleet, "ann"), 3)
    assert isinstance(greet(renewed, bob)[1], HelloAccepted)
    assert refusal(greet(Side(renewed.identity, 2), bob)[1]) is HelloRefusal.OLD_BOOT


def test_a_node_learns_that_its_own_disk_was_put_back_or_copied() -> None:
    ann, bob = pair()
    greet(ann, bob.restarted(9))
    assert refusal(bob_says_to(ann, bob.restarted(4))) is HelloRefusal.OWN_BOOT_OVER
    assert refusal(bob_says_to(ann, bob.restarted(9, b"copied.."))) is HelloRefusal.DUPLICATE_IDENTITY


def bob_says_to(ann: Side, bob: Side) -> HelloResult:
    """What `bob` concludes from the first Hello of `ann`."""
    hello = ann.session(bob.identity.node_id).first(HLC)
    return bob.session(ann.identity.node_id).received(hello, hlc=HLC, wall_ms=WALL_MS)


def test_versions_meet_at_the_highest_that_both_speak_or_not_at_all() -> None:
    ann, bob = pair()
    for theirs, ours, expected in (
        ((1, 3), (2, 5), 3),
        ((1, 9), (1, 4), 4),
        ((1, 1), (2, 3), None),
        ((4, 5), (1, 3), None),
    ):
        at_ann = ann.session(bob.identity.node_id, versions=theirs)
        at_bob = bob.session(ann.identity.node_id, versions=ours)
        first = at_bob.received(at_ann.first(HLC), hlc=HLC, wall_ms=WALL_MS)
        if expected is None:
            assert refusal(first) is HelloRefusal.VERSION
            continue
        assert isinstance(first, HelloPending)
        accepted = at_ann.received(first.answer, hlc=HLC, wall_ms=WALL_MS)
        assert isinstance(accepted, HelloAccepted)
        assert accepted.version == expected


def test_credentials_in_a_hello_are_judged() -> None:
    fleet = authority()
    ann, bob = pair(fleet)
    stranger = Side(admit(authority("other"), "ann"))
    assert refusal(greet(stranger, bob)[1]) is HelloRefusal.OTHER_FLEET
    other = Side(admit(fleet, "eve"))
    other.identity.credential = replace(other.identity.credential, der=ann.identity.credential.der)
    assert refusal(greet(other, bob)[1]) is HelloRefusal.NOT_THE_PEER
    bob.book.merge_revocations(fleet.revoke("ann", now_s=NOW_S).signed, now_s=NOW_S)
    result = greet(ann, bob)[1]
    assert refusal(result) is HelloRefusal.CREDENTIAL
    assert isinstance(result, HelloRefused)
    assert result.fault == "revoked"


def base(ann: Side, bob: Side) -> Hello:
    return parse_hello(ann.session(bob.identity.node_id).first(HLC))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"fleet": b"x" * 32}, HelloRefusal.OTHER_FLEET),
        ({"sender": b"x" * 32}, HelloRefusal.NOT_THE_PEER),
        ({"to": b"x" * 32}, HelloRefusal.NOT_FOR_US),
        ({"echo": b"x" * 16}, HelloRefusal.ECHO),
        ({"nonce": bytes(16)}, HelloRefusal.MALFORMED),
        ({"version_min": 0}, HelloRefusal.MALFORMED),
        ({"version_min": 3, "version_max": 2}, HelloRefusal.MALFORMED),
        ({"credential": b""}, HelloRefusal.CREDENTIAL),
        ({"credential": b"x" * 100}, HelloRefusal.CREDENTIAL),
    ],
)
def test_each_field_is_checked_although_the_signature_holds(change: dict[str, object], reason: HelloRefusal) -> None:
    ann, bob = pair()
    signed = sign_hello(ann.identity, replace(base(ann, bob), **change))  # type: ignore[arg-type]
    session = bob.session(ann.identity.node_id)
    assert refusal(session.received(signed, hlc=HLC, wall_ms=WALL_MS)) is reason


def test_downgrade_hello_with_changed_versions_or_any_other_bit_is_refused() -> None:
    ann, bob = pair()
    signed = ann.session(bob.identity.node_id).first(HLC)
    for at in range(0, len(signed), 5):
        changed = bytearray(signed)
        changed[at] ^= 0x10
        result = bob.session(ann.identity.node_id).received(bytes(changed), hlc=HLC, wall_ms=WALL_MS)
        assert isinstance(result, HelloRefused), at
        assert bob.replay.get(ann.identity.key.public) is None


def test_a_recorded_hello_proves_no_boot() -> None:
    ann, bob = pair()
    recorded = ann.session(bob.identity.node_id).first(HLC)
    at_ann, at_bob = ann.session(bob.identity.node_id), bob.session(ann.identity.node_id)
    pending = at_bob.received(at_ann.first(HLC), hlc=HLC, wall_ms=WALL_MS)
    assert isinstance(pending, HelloPending)
    accepted = at_ann.received(pending.answer, hlc=HLC, wall_ms=WALL_MS)
    assert isinstance(accepted, HelloAccepted)
    assert accepted.answer is not None
    later = bob.session(ann.identity.node_id)
    assert isinstance(later.received(recorded, hlc=HLC, wall_ms=WALL_MS), HelloPending)
    assert bob.replay.get(ann.identity.key.public) is None
    assert refusal(later.received(accepted.answer, hlc=HLC, wall_ms=WALL_MS)) is HelloRefusal.ECHO


def test_greeting_without_end_is_refused() -> None:
    ann, bob = pair()
    session, peer = bob.session(ann.identity.node_id), ann.session(bob.identity.node_id)
    results = [session.received(peer.first(HLC), hlc=HLC, wall_ms=WALL_MS) for _ in range(MAX_HELLOS + 1)]
    assert isinstance(results[0], HelloPending)
    assert [refusal(r) for r in results[1:]] == [HelloRefusal.TOO_MANY] * MAX_HELLOS
    at_ann, at_bob = ann.session(bob.identity.node_id), bob.session(ann.identity.node_id)
    pending = at_bob.received(at_ann.first(HLC), hlc=HLC, wall_ms=WALL_MS)
    assert isinstance(pending, HelloPending)
    again = [at_ann.received(pending.answer, hlc=HLC, wall_ms=WALL_MS) for _ in range(MAX_HELLOS + 2)]
    assert [isinstance(r, HelloAccepted) for r in again] == [True] * MAX_HELLOS + [False] * 2


def test_a_device_that_meets_its_own_identity_says_so() -> None:
    ann, _ = pair()
    copy = Side(ann.identity, 1, b"copied..")
    hello = copy.session(ann.identity.node_id).first(HLC)
    result = ann.session(ann.identity.node_id).received(hello, hlc=HLC, wall_ms=WALL_MS)
    assert refusal(result) is HelloRefusal.OWN_IDENTITY


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_refused_and_nothing_raises(data: bytes) -> None:
    ann, bob = pair()
    session = bob.session(ann.identity.node_id)
    for rubbish in (data, b"meshagent/hello/v1\0" + data, bytes(MAX_HELLO_BYTES + 1)):
        assert isinstance(session.received(rubbish, hlc=HLC, wall_ms=WALL_MS), HelloRefused)
