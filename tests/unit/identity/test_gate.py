"""The gate: what passes, in which form, and what each refusal is called."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshagent.errors import EnvelopeError
from meshagent.identity import gate as gate_module
from meshagent.identity.envelope import (
    BROADCAST,
    MAX_LEAVES,
    MIN_READER,
    Outgoing,
    SealedBatch,
    Sealer,
    check_message,
    make_boot,
)
from meshagent.identity.gate import (
    MAX_AHEAD_MS,
    MAX_FRAME_MESSAGES,
    OTHERS,
    SLACK_MS,
    Gate,
    GateLimits,
    LinkMessage,
    RejectReason,
    VerifiedMessage,
)
from meshagent.identity.replay import ReplayTable
from meshagent.types import NodeId
from tests.support.fleets import (
    DEFERRED_TYPE,
    GENEROUS,
    HLC,
    NOW_S,
    WALL_MS,
    admit,
    altered,
    authority,
    decode,
    device,
    key_of,
    only,
    receiver,
)

R = RejectReason


def test_a_message_passes_with_all_that_is_known_of_it() -> None:
    fleet = authority()
    ann = device(fleet, "ann")
    bob = receiver(fleet, "bob", ann)
    batch = ann.seal(Outgoing(bob.id, 3, 1000, b"hello"), Outgoing(None, 4, 1000, b"all"))
    direct, to_all = bob.take(ann.id, batch)
    assert isinstance(direct, VerifiedMessage)
    assert (direct.sender, direct.boot, direct.seq, direct.type) == (ann.id, ann.boot, 1, 3)
    assert (direct.body, direct.hlc, direct.to) == ((3, b"hello"), HLC, bob.identity.key.public)
    assert (to_all.to, to_all.body) == (BROADCAST, (4, b"all"))
    assert direct.verify()
    assert check_message(fleet.fleet, direct.proof, direct.sealed, direct.to).sender == ann.identity.key.public
    assert not bob.gate.rejections
    assert ann.id[:8] in repr(direct)


def test_nobody_else_makes_verified_messages() -> None:
    for kind in (VerifiedMessage, LinkMessage):
        with pytest.raises(TypeError, match="only the gate"):
            kind()


def test_link_messages_are_checked_when_it_matters() -> None:
    fleet = authority()
    ann = device(fleet, "ann")
    bob = receiver(fleet, "bob", ann)
    assert isinstance(bob.take(ann.id, ann.say(bob.id, kind=DEFERRED_TYPE))[0], VerifiedMessage), "first of a boot"
    batch = ann.seal(*(Outgoing(bob.id, DEFERRED_TYPE, 1000, bytes([n])) for n in range(5)))
    said = bob.take(ann.id, batch)
    assert [type(m) for m in said] == [LinkMessage] * 5
    assert [m.body for m in said] == [(DEFERRED_TYPE, bytes([n])) for n in range(5)]
    one = said[3]
    assert isinstance(one, LinkMessage)
    assert one.verify()
    upgraded = one.verified()
    assert isinstance(upgraded, VerifiedMessage)
    assert one.verified() is upgraded
    for name in VerifiedMessage.__slots__:
        assert getattr(upgraded, name) == getattr(one, name), name
    assert "LinkMessage" in repr(one)


def test_a_forged_link_message_does_not_verify_and_is_counted() -> None:
    fleet = authority()
    ann = device(fleet, "ann")
    bob = receiver(fleet, "bob", ann)
    bob.take(ann.id, ann.say(bob.id))
    batch = altered(ann.say(bob.id, b"cheap", kind=DEFERRED_TYPE), payload=b"cheep")
    said = bob.take(ann.id, batch)[0]
    assert isinstance(said, LinkMessage)
    assert not said.verify()
    assert not said.verify()
    assert said.verified() is None
    assert bob.rejected() == {R.SIGNATURE: 1}


def test_a_link_message_of_a_sender_revoked_since_does_not_verify() -> None:
    fleet = authority()
    ann = device(fleet, "ann")
    bob = receiver(fleet, "bob", ann)
    bob.take(ann.id, ann.say(bob.id))
    said = bob.take(ann.id, ann.say(bob.id, kind=DEFERRED_TYPE))[0]
    bob.book.merge_revocations(fleet.revoke("ann", now_s=NOW_S).signed, now_s=NOW_S)
    assert not said.verify()
    assert bob.rejected() == {R.REVOKED: 1}


SHAPES: dict[str, dict[str, object]] = {
    "short header": {"header": bytes(35)},
    "long header": {"header": bytes(37)},
    "empty header": {"header": b""},
    "index beyond": {"leaf_index": 5},
    "index below": {"leaf_index": -1},
    "short path": {"path": bytes(32)},
    "long path": {"path": bytes(320)},
    "longer payload": {"payload": b"xxxx"},
    "huge payload": {"payload": bytes(64 * 1024 + 1)},
}


@pytest.mark.parametrize("name", SHAPES)
def test_wrong_shapes_are_dropped_and_their_neighbours_pass(name: str) -> None:
    fleet = authority()
    ann = device(fleet, "ann")
    bob = receiver(fleet, "bob", ann)
    batch = ann.seal(*(Outgoing(bob.id, 1, 1000, b"x%d" % n) for n in range(5)))
    passed = bob.take(ann.id, altered(batch, 2, **SHAPES[name]))
    assert [m.body for m in passed] == [(1, b"x0"), (1, b"x1"), (1, b"x3"), (1, b"x4")]
    assert bob.rejected() == {R.SHAPE: 1}


@pytest.mark.parametrize("cut", [0, 1, 66, 129, 131])
def test_proofs_of_another_length_are_dropped(cut: int) -> None:
    fleet = authority()
    ann = device(fleet, "ann")
    bob = receiver(fleet, "bob", ann)
    batch = ann.say(bob.id)
    assert bob.take(ann.id, SealedBatch((batch.proof + b"x")[:cut], batch.messages)) == []
    assert bob.take(ann.id, SealedBatch(batch.proof, [])) == []
    for leaves in (0, MAX_LEAVES + 1, 65535):
        proof = batch.proof[:64] + leaves.to_bytes(2, "big") + batch.proof[66:]
        assert bob.take(ann.id, SealedBatch(proof, batch.messages)) == []
    assert bob.rejected() == {R.SHAPE: 5}


def test_header_fields_out_of_bounds_are_dropped_although_signed() -> None:
    fleet = authority()
    ann = device(fleet, "ann")
    bob = receiver(fleet, "bob", ann)
    good = ann.say(bob.id)

    def with_header(at: int, data: bytes) -> SealedBatch:
        header = good.messages[0].header
        return altered(good, header=header[:at] + data + header[at + len(data) :])

    bob.take(ann.id, with_header(16, bytes(8)))
    bob.take(ann.id, with_header(28, bytes(4)))
    bob.take(ann.id, with_header(28, b"\xff" * 4))
    assert bob.rejected() == {R.SHAPE: 3}
    bob.take(ann.id, with_header(26, bytes([MIN_READER + 1])))
    assert bob.rejected()[R.VERSION] == 1
    assert bob.take(ann.id, good)


def test_who_it_is_for_decides() -> None:
    fleet = authority()
    ann = device(fleet, "ann")
    bob = receiver(fleet, "bob", ann)
    carol = admit(fleet, "carol")
    assert bob.take(ann.id, ann.say(carol.node_id)) == []
    assert bob.rejected() == {R.NOT_FOR_US: 1}
    assert bob.take(ann.id, altered(ann.say(carol.node_id), to=b"")) == []
    assert bob.rejected() == {R.NOT_FOR_US: 1, R.SIGNATURE: 1}
    assert bob.take(ann.id, altered(ann.say(bob.id), to=b""))
    ann.say(None)
    ann.say(None)  # so that the number below is one that bob has not seen yet
    assert bob.take(ann.id, altered(ann.say(None), to=b"")) == []
    assert bob.take(ann.id, altered(ann.say(bob.id), to=BROADCAST)) == []
    assert bob.take(ann.id, altered(ann.say(bob.id), to=b"short")) == []
    assert bob.rejected() == {R.NOT_FOR_US: 2, R.SIGNATURE: 3}


def test_standing_is_judged_for_each_batch_also_when_its_signature_is_remembered() -> None:
    fleet = authority()
    ann = device(fleet, "ann")
    bob = receiver(fleet, "bob", ann)
    batch = ann.seal(Outgoing(bob.id, 1, 1000, b"1"), Outgoing(bob.id, 1, 1000, b"2"))
    assert bob.take(ann.id, only(batch, 0))
    bob.book.merge_revocations(fleet.revoke("ann", now_s=NOW_S).signed, now_s=NOW_S)
    assert bob.take(ann.id, only(batch, 1)) == []
    assert bob.rejected() == {R.REVOKED: 1}


def test_expired_not_yet_valid_and_unknown_senders() -> None:
    fleet = authority()
    ann, dan = device(fleet, "ann"), device(fleet, "dan")
    bob = receiver(fleet, "bob", ann)
    assert bob.take(dan.id, dan.say(bob.id)) == []
    bob.wall_ms = ann.identity.credential.not_after_s * 1000
    assert bob.take(ann.id, ann.say(bob.id)) == []
    assert bob.rejected() == {R.UNKNOWN_SENDER: 1, R.EXPIRED: 1}
    early = receiver(fleet, "bob", ann)
    early.book._known[ann.identity.key.public] = replace(ann.identity.credential, not_before_s=int(NOW_S) + 5)
    assert early.take(ann.id, ann.say(bob.id)) == []
    assert early.rejected() == {R.NOT_YET_VALID: 1}


def test_freshness_follows_the_offset_of_the_boot() -> None:
    fleet = authority()
    ann = device(fleet, "ann")
    bob = receiver(fleet, "bob", ann)
    for ahead_ms, passes in ((MAX_AHEAD_MS, True), (MAX_AHEAD_MS + 1, False), (10**9, False)):
        batch = ann.seal(Outgoing(bob.id, 1, 1000, b""), hlc=(WALL_MS + ahead_ms) << 16)
        assert bool(bob.take(ann.id, batch)) is passes
    for age_ms, passes in ((1000 + SLACK_MS, True), (1001 + SLACK_MS, False)):
        batch = ann.seal(Outgoing(bob.id, 1, 1000, b""), hlc=(WALL_MS - age_ms) << 16)
        assert bool(bob.take(ann.id, batch)) is passes
    assert bob.rejected() == {R.FUTURE: 2, R.STALE: 1}
    state = bob.gate.replay.get(ann.identity.key.public)
    assert state is not None
    state.offset_ms = 3_600_000
    late = ann.seal(Outgoing(bob.id, 1, 1000, b""), hlc=(WALL_MS - 3_600_000) << 16)
    assert bob.take(ann.id, late)


def test_relayed_messages_need_a_gate_that_takes_them() -> None:
    fleet = authority()
    ann, eve = device(fleet, "ann"), device(fleet, "eve")
    bob = receiver(fleet, "bob", ann, eve)
    assert bob.take(eve.id, ann.say(bob.id)) == []
    assert bob.rejected() == {R.RELAYED: 1}
    relay = receiver(fleet, "bob", ann, eve, accept_relayed=True)
    for _ in range(2):
        [message] = relay.take(eve.id, ann.say(bob.id, kind=DEFERRED_TYPE))
        assert isinstance(message, VerifiedMessage), "relayed ones are never deferred"
        assert message.sender == ann.id
    assert relay.take(eve.id, altered(ann.say(bob.id, kind=DEFERRED_TYPE), payload=b"ho")) == []


def test_what_does_not_decode_or_is_not_allowed_counts_as_seen() -> None:
    fleet = authority()
    ann = device(fleet, "ann")
    bob = receiver(fleet, "bob", ann)
    gate = Gate(
        bob.id,
        bob.book,
        decode,
        now_s=0.0,
        authorize=lambda credential, kind, body: credential.name == "ann" and kind != 66,
    )
    bob.gate = gate
    unreadable, forbidden = ann.say(bob.id, b"!"), ann.say(bob.id, kind=66)
    for batch in (unreadable, unreadable, forbidden, forbidden, ann.say(bob.id)):
        bob.take(ann.id, batch)
    assert bob.rejected() == {R.MALFORMED: 1, R.FORBIDDEN: 1, R.REPLAYED: 2}
    assert len(bob.admitted) == 1


def test_a_decoder_may_raise_envelope_errors_too() -> None:
    def decoder(_kind: int, _payload: bytes) -> object:
        raise EnvelopeError("no")

    fleet = authority()
    ann = device(fleet, "ann")
    bob = receiver(fleet, "bob", ann)
    bob.gate = Gate(bob.id, bob.book, decoder, now_s=0.0)
    assert bob.take(ann.id, ann.say(bob.id)) == []
    assert bob.rejected() == {R.MALFORMED: 1}


def test_a_frame_has_bounds() -> None:
    fleet = authority()
    ann = device(fleet, "ann")
    bob = receiver(fleet, "bob", ann)
    many = ann.seal(*[Outgoing(bob.id, 1, 1000, b"")] * (MAX_FRAME_MESSAGES + 1))
    assert bob.take(ann.id, many) == []
    large = ann.seal(*[Outgoing(bob.id, 1, 1000, bytes(60_000))] * 5)
    assert bob.take(ann.id, large) == []
    assert bob.take(ann.id, *[SealedBatch(b"", [])] * (MAX_FRAME_MESSAGES + 1)) == []
    assert bob.rejected() == {R.FRAME: 2 * (MAX_FRAME_MESSAGES + 1) + 5}
    assert len(bob.take(ann.id, only(many, *range(MAX_FRAME_MESSAGES)))) == MAX_FRAME_MESSAGES


def test_each_budget_has_its_name() -> None:
    fleet = authority()
    ann = device(fleet, "ann")
    for field, reason, passes in (
        ("link_messages_burst", R.LINK_BUDGET, 3),
        ("sender_messages_burst", R.SENDER_BUDGET, 3),
        ("link_signatures_burst", R.SIGNATURE_BUDGET, 3),
        ("signatures_burst", R.SIGNATURE_BUDGET, 3),
    ):
        bob = receiver(fleet, "bob", ann, limits=replace(GENEROUS, **{field: 3}))
        for _ in range(5):
            bob.take(ann.id, ann.say(bob.id))
        assert len(bob.admitted) == passes, field
        assert bob.rejected() == {reason: 2}
        bob.now_s = 10.0
        assert bob.take(ann.id, ann.say(bob.id)), field


def test_restart_keeps_the_window_and_nothing_is_admitted_twice() -> None:
    fleet = authority()
    ann = device(fleet, "ann")
    bob = receiver(fleet, "bob", ann)
    batches = [ann.say(bob.id), ann.say(None), ann.say(bob.id)]
    bob.take(ann.id, *batches)
    rows = bob.gate.replay.take_changed()
    again = receiver(fleet, "bob", ann)
    for _, row in rows:
        again.gate.replay.load(row)
    assert again.take(ann.id, *batches) == []
    assert again.rejected() == {R.REPLAYED: 3}
    assert again.take(ann.id, ann.say(bob.id))


def test_rejections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "MAX_REJECTION_ROWS", 3)
    fleet = authority()
    bob = receiver(fleet, "bob")
    peers = [key_of(f"p{n}").node_id for n in range(6)]
    for peer in peers:
        bob.gate.reject(R.SHAPE, peer)
        bob.gate.reject(R.SHAPE, peer)
    assert len(bob.gate.rejections) == 4
    assert bob.gate.rejections[R.SHAPE, OTHERS] == 6
    assert bob.gate.rejections[R.SHAPE, peers[0]] == 2
    with pytest.raises(TypeError):
        bob.gate.rejections[R.SHAPE, NodeId("x")] = 1  # type: ignore[index]


def test_the_memory_of_signatures_is_bounded_by_sender_and_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "MAX_VERIFIED", 10)
    monkeypatch.setattr(gate_module, "MAX_VERIFIED_A_SENDER", 4)
    fleet = authority()
    senders = [device(fleet, f"s{n}") for n in range(5)]
    bob = receiver(fleet, "bob", *senders)
    for _ in range(7):
        for sender in senders:
            bob.take(sender.id, sender.say(bob.id))
            kept = bob.gate._verified
            assert sum(len(own) for own in kept.values()) == bob.gate._verified_count <= 10
            assert max(len(own) for own in kept.values()) <= 4
    assert len(bob.admitted) == 35


def test_one_signature_is_made_and_checked_for_a_whole_batch() -> None:
    fleet = authority()
    ann = device(fleet, "ann")
    bob = receiver(fleet, "bob", ann)
    batch = ann.seal(*[Outgoing(bob.id, 1, 1000, b"")] * 50)
    bob.take(ann.id, only(batch, *range(25)))
    bob.take(ann.id, only(batch, *range(25, 50)))
    assert len(bob.admitted) == 50
    assert (ann.sealer.signatures_made, bob.gate.signatures_checked) == (1, 1)


def test_a_full_table_of_senders_refuses_new_ones_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshagent.identity.replay.MAX_SENDERS", 1)
    fleet = authority()
    ann, dan = device(fleet, "ann"), device(fleet, "dan")
    bob = receiver(fleet, "bob", ann, dan)
    assert bob.take(ann.id, ann.say(bob.id))
    assert bob.take(dan.id, dan.say(bob.id)) == []
    assert bob.rejected() == {R.TABLE_FULL: 1}
    assert bob.take(ann.id, ann.say(bob.id))


def test_a_new_boot_is_taken_over_when_a_signature_proves_it() -> None:
    fleet = authority()
    ann = device(fleet, "ann")
    bob = receiver(fleet, "bob", ann)
    bob.take(ann.id, ann.say(bob.id))
    boot = make_boot(2, b"r" * 8)
    second = Sealer(ann.identity.key, ann.identity.fleet, boot)
    claim = second.seal([Outgoing(bob.id, 1, 1000, b"x")], HLC + 1)
    assert bob.take(ann.id, altered(claim, payload=b"y")) == []
    assert bob.take(ann.id, ann.say(bob.id)), "a forged claim ends nothing"
    assert bob.take(ann.id, claim)
    assert bob.take(ann.id, ann.say(bob.id)) == []
    assert bob.rejected() == {R.SIGNATURE: 1, R.OLD_BOOT: 1}


def test_default_limits_let_a_busy_peer_work() -> None:
    fleet = authority()
    ann = device(fleet, "ann")
    bob = receiver(fleet, "bob", ann, limits=GateLimits())
    for n in range(100):
        bob.now_s = n / 400
        bob.take(ann.id, ann.seal(*[Outgoing(bob.id, 1, 1000, b"")] * 20))
    assert len(bob.admitted) == 2000
    assert isinstance(bob.gate.replay, ReplayTable)
