"""Attacks on envelopes and batch proofs, each named as in SECURITY-DESIGN 9.

The attacker `mallory` is a member: it has a current credential, a link, and everything that was ever said to it.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from meshagent.identity.envelope import (
    MAX_LEAVES,
    Outgoing,
    SealedBatch,
    SealedMessage,
    Sealer,
    leaf_hash,
    leaf_prefix,
    make_boot,
    parse_proof,
    statement,
    statement_prefix,
    tree_of,
)
from meshagent.identity.gate import Equivocation, RejectReason
from meshagent.identity.keys import Tag
from tests.support import certs
from tests.support.fleets import GENEROUS, HLC, NOW_S, Device, altered, authority, device, only, receiver

R = RejectReason


def sign_root(sender: Device, root: bytes, *, batch: int, leaves: int, hlc: int = HLC) -> bytes:
    """A proof over any root that the sender likes."""
    body = statement(
        statement_prefix(sender.identity.fleet, sender.identity.key.public, sender.boot), batch, hlc, leaves, root
    )[len(Tag.BATCH.value) :]
    fields = struct.pack(">QQH", batch, hlc, leaves)
    return sender.identity.key.public + sender.boot + fields + sender.identity.key.sign(Tag.BATCH, body)


def test_inner_node_offered_as_a_message_is_rejected() -> None:
    fleet = authority()
    ann = device(fleet, "ann")
    bob = receiver(fleet, "bob", ann)
    batch = ann.seal(*(Outgoing(bob.id, 1, 1000, bytes([n])) for n in range(4)))
    first, second = batch.messages[:2]
    prefix = leaf_prefix(fleet.fleet, ann.identity.key.public, ann.boot)
    leaves = [leaf_hash(prefix, m.to, m.header, m.payload) for m in (first, second)]
    # The preimage of the inner node, its two leaves, as payload of a message one level up. Its claimed place has
    # the right path for a tree of two, but leaves count and leaf prefix (0x00, not 0x01) are in the way.
    inner = SealedMessage(first.header[:32] + struct.pack(">I", 64), b"", 0, first.path[32:], b"".join(leaves))
    for leaves_claimed in (2, 4):
        proof = batch.proof[:64] + struct.pack(">H", leaves_claimed) + batch.proof[66:]
        assert bob.take(ann.id, SealedBatch(proof, [inner])) == []
    assert bob.rejected() == {R.SIGNATURE: 1, R.SHAPE: 1}
    assert len(bob.take(ann.id, batch)) == 4


def test_odd_duplicate_leaf_is_rejected() -> None:
    """Bitcoin's CVE-2012-2459: where an odd node is paired with itself, a tree of three has the root of a tree of
    four whose last leaf stands twice. Here it is promoted."""
    fleet = authority()
    ann = device(fleet, "ann")
    bob = receiver(fleet, "bob", ann)
    batch = ann.seal(*(Outgoing(bob.id, 1, 1000, bytes([n])) for n in range(3)))
    last = batch.messages[2]
    prefix = leaf_prefix(fleet.fleet, ann.identity.key.public, ann.boot)
    leaf = leaf_hash(prefix, last.to, last.header, last.payload)
    four = batch.proof[:64] + struct.pack(">H", 4) + batch.proof[66:]
    for index in (2, 3):
        twin = last._replace(leaf_index=index, path=leaf + last.path)
        assert bob.take(ann.id, SealedBatch(four, [twin])) == []
    assert bob.rejected() == {R.SIGNATURE: 2}
    leaves = [hashlib.sha256(bytes([n])).digest() for n in range(3)]
    assert tree_of(leaves)[-1] != tree_of([*leaves, leaves[-1]])[-1]


def test_leaf_adoption_into_anothers_batch_is_rejected() -> None:
    """Mallory signs a batch of its own that holds the hash of Ann's leaf, and offers Ann's message under it."""
    fleet = authority()
    ann, mallory = device(fleet, "ann"), device(fleet, "mallory")
    bob = receiver(fleet, "bob", ann, mallory, accept_relayed=True)
    message = ann.say(bob.id, b"mine").messages[0]
    prefix = leaf_prefix(fleet.fleet, ann.identity.key.public, ann.boot)
    anns_leaf = leaf_hash(prefix, bob.identity.key.public, message.header, message.payload)
    proof = sign_root(mallory, anns_leaf, batch=1, leaves=1)
    assert bob.take(mallory.id, SealedBatch(proof, [message])) == []
    as_ann = ann.identity.key.public + ann.boot + proof[48:]
    assert bob.take(mallory.id, SealedBatch(as_ann, [message])) == []
    assert bob.rejected() == {R.SIGNATURE: 2}


def test_cache_other_sender_gets_nothing_from_a_verified_root() -> None:
    """A cache keyed by the root alone would give one sender's message to another."""
    fleet = authority()
    ann, mallory = device(fleet, "ann"), device(fleet, "mallory")
    bob = receiver(fleet, "bob", ann, mallory, accept_relayed=True)
    batch = ann.seal(Outgoing(bob.id, 1, 1000, b"1"), Outgoing(bob.id, 1, 1000, b"2"))
    assert bob.take(ann.id, only(batch, 0))
    stolen = mallory.identity.key.public + batch.proof[32:]
    assert bob.take(mallory.id, SealedBatch(stolen, [batch.messages[1]])) == []
    boot = mallory.identity.key.public + mallory.boot + batch.proof[48:]
    assert bob.take(mallory.id, SealedBatch(boot, [batch.messages[1]])) == []
    flipped = batch.proof[:-1] + bytes([batch.proof[-1] ^ 1])
    assert bob.take(ann.id, SealedBatch(flipped, [batch.messages[1]])) == [], "same statement, another signature"
    assert bob.rejected() == {R.SIGNATURE: 3}
    assert bob.take(ann.id, only(batch, 1))


def test_long_path_is_rejected_before_anything_is_hashed() -> None:
    fleet = authority()
    ann = device(fleet, "ann")
    bob = receiver(fleet, "bob", ann)
    batch = ann.seal(*(Outgoing(bob.id, 1, 1000, bytes([n])) for n in range(5)))
    good = batch.messages[4]
    for path in (good.path + bytes(32), good.path + bytes(32) * 9, bytes(10**6), good.path + b"x", good.path[:-32]):
        assert bob.take(ann.id, SealedBatch(batch.proof, [good._replace(path=path)])) == []
    assert bob.rejected() == {R.SHAPE: 5}


def test_batch_of_more_leaves_than_allowed_is_rejected_although_signed() -> None:
    fleet = authority()
    mallory = device(fleet, "mallory")
    bob = receiver(fleet, "bob", mallory)
    message = mallory.say(bob.id).messages[0]
    prefix = leaf_prefix(fleet.fleet, mallory.identity.key.public, mallory.boot)
    first = leaf_hash(prefix, bob.identity.key.public, message.header, message.payload)
    for count, passes in ((MAX_LEAVES, True), (MAX_LEAVES + 1, False), (65535, False)):
        levels = tree_of([first] + [bytes(32)] * (count - 1))
        proof = sign_root(mallory, levels[-1][0], batch=count, leaves=count)
        sealed = message._replace(path=b"".join(level[1] for level in levels[:-1]))
        assert bool(bob.take(mallory.id, SealedBatch(proof, [sealed]))) is passes
    assert bob.rejected() == {R.SHAPE: 2}
    assert bob.take(mallory.id, SealedBatch(mallory.say(bob.id).proof, [message, message])) == []
    assert bob.rejected() == {R.SHAPE: 4}, "more messages than leaves"


def test_cross_batch_message_is_rejected() -> None:
    fleet = authority()
    ann = device(fleet, "ann")
    bob = receiver(fleet, "bob", ann)
    one = ann.seal(Outgoing(bob.id, 1, 1000, b"a"), Outgoing(bob.id, 1, 1000, b"b"))
    two = ann.seal(Outgoing(bob.id, 1, 1000, b"a"), Outgoing(bob.id, 1, 1000, b"b"))
    assert bob.take(ann.id, SealedBatch(two.proof, [one.messages[0]])) == []
    mixed = one.messages[0]._replace(path=two.messages[0].path)
    assert bob.take(ann.id, SealedBatch(two.proof, [mixed])) == []
    assert bob.rejected() == {R.SIGNATURE: 2}


def test_cross_fleet_message_is_rejected() -> None:
    """A device of two fleets says something in one; it does not count in the other."""
    here, there = authority(), authority("other")
    ann_there = device(there, "ann")
    ann_here = device(here, "ann")
    bob = receiver(here, "bob", ann_here)
    assert ann_there.identity.key.public == ann_here.identity.key.public
    assert bob.take(ann_here.id, ann_there.say(bob.id)) == []
    assert bob.rejected() == {R.SIGNATURE: 1}
    assert bob.take(ann_here.id, ann_here.say(bob.id))


def test_cross_boot_message_is_rejected() -> None:
    fleet = authority()
    ann = device(fleet, "ann")
    bob = receiver(fleet, "bob", ann)
    batch = ann.say(bob.id)
    later = make_boot(2, b"r" * 8)
    assert bob.take(ann.id, SealedBatch(batch.proof[:32] + later + batch.proof[48:], batch.messages)) == []
    assert bob.rejected() == {R.SIGNATURE: 1}


def test_every_single_bit_flip_is_rejected_with_a_warm_cache() -> None:
    fleet = authority()
    ann = device(fleet, "ann")
    bob = receiver(fleet, "bob", ann)
    # Type 6: no flip of one bit makes it the type whose check is put off, which test_gate.py has a test for.
    batch = ann.seal(*(Outgoing(bob.id, 6, 1000, b"content %d" % n) for n in range(5)))
    assert bob.take(ann.id, only(batch, 0))
    message = batch.messages[3]
    for name in ("header", "path", "payload"):
        value = getattr(message, name)
        for bit in range(len(value) * 8):
            changed = bytearray(value)
            changed[bit // 8] ^= 1 << bit % 8
            bob.take(ann.id, altered(only(batch, 3), 0, **{name: bytes(changed)}))
    for bit in range(0, 130 * 8, 3):
        changed = bytearray(batch.proof)
        changed[bit // 8] ^= 1 << bit % 8
        bob.take(ann.id, SealedBatch(bytes(changed), [message]))
    assert len(bob.admitted) == 1
    assert bob.take(ann.id, only(batch, 3)), "and the genuine one still passes"


def test_equivocation_is_kept_as_proof_and_what_comes_second_is_dropped() -> None:
    """One batch number, two contents: each receiver alone would believe its half."""
    fleet = authority()
    mallory = device(fleet, "mallory")
    bob = receiver(fleet, "bob", mallory)
    twin = Sealer(mallory.identity.key, mallory.identity.fleet, mallory.boot)
    mallory.say(bob.id)
    first = mallory.say(bob.id, b"I bid 5")
    twin.seal([Outgoing(bob.id, 1, 1000, b"")] * 2, HLC)
    second = twin.seal([Outgoing(bob.id, 1, 1000, b"I bid 7")], HLC)
    assert parse_proof(first.proof).batch == parse_proof(second.proof).batch
    assert bob.take(mallory.id, first)
    assert bob.take(mallory.id, second) == []
    assert bob.rejected() == {R.EQUIVOCATION: 1}
    evidence = bob.gate.equivocations[mallory.id]
    assert isinstance(evidence, Equivocation)
    assert evidence.first != evidence.second
    assert evidence.holds(fleet.fleet)
    assert not Equivocation(mallory.id, evidence.first, evidence.first).holds(fleet.fleet)
    assert not Equivocation(bob.id, evidence.first, evidence.second).holds(fleet.fleet)
    assert not Equivocation(mallory.id, evidence.first, evidence.second[:-1] + b"x").holds(fleet.fleet)
    assert not Equivocation(mallory.id, evidence.first, b"").holds(fleet.fleet)


def test_tbs_as_payload_never_becomes_a_certificate_signature() -> None:
    """Mallory has the body of a certificate signed as if it were a payload. Every signature covers a tag first, so what
    comes out verifies over tagged bytes alone, and payloads are hashed anyway."""
    fleet = authority()
    ann = device(fleet, "ann")
    bob = receiver(fleet, "bob", ann)
    body = certs.load(ann.identity.credential.der).tbs_certificate_bytes
    public = Ed25519PublicKey.from_public_bytes(ann.identity.key.public)
    signatures = [ann.say(bob.id, body).proof[66:], *(ann.identity.key.sign(tag, body) for tag in Tag)]
    accepted = 0
    for signature in signatures:
        try:
            public.verify(signature, body)
            accepted += 1
        except InvalidSignature:
            continue
    assert accepted == 0
    assert not [name for name in dir(ann.identity.key) if name in ("sign_raw", "sign_bytes", "sign_message")]


def test_quota_theft_charges_the_relay_and_not_whom_it_claims_to_relay() -> None:
    fleet = authority()
    ann, mallory = device(fleet, "ann"), device(fleet, "mallory")
    limits = replace(GENEROUS, link_messages_burst=20, link_signatures_burst=10, sender_messages_burst=30)
    bob = receiver(fleet, "bob", ann, mallory, limits=limits, accept_relayed=True)
    genuine = ann.say(bob.id)
    for n in range(50):
        bob.take(mallory.id, altered(genuine, payload=bytes([n, n])))
    assert bob.admitted == []
    assert bob.gate.rejections[R.SIGNATURE, mallory.id] == 10
    assert bob.gate.rejections[R.SIGNATURE_BUDGET, mallory.id] == 10
    assert bob.gate.rejections[R.LINK_BUDGET, mallory.id] == 30
    assert not [peer for _, peer in bob.gate.rejections if peer == ann.id]
    for _ in range(10):
        assert bob.take(ann.id, ann.say(bob.id)), "ann's own link and budget are untouched"


def test_revoked_sender_is_silenced_on_its_open_link() -> None:
    fleet = authority()
    mallory = device(fleet, "mallory")
    bob = receiver(fleet, "bob", mallory)
    assert bob.take(mallory.id, mallory.say(bob.id))
    bob.book.merge(fleet.revoke("mallory", now_s=NOW_S).signed, now_s=NOW_S)
    assert bob.take(mallory.id, mallory.say(bob.id)) == []
    assert bob.rejected() == {R.REVOKED: 1}
