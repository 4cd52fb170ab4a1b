"""Sealing and checking: layouts, counters, trees."""

from __future__ import annotations

import hashlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshagent.errors import LocalProtocolError
from meshagent.identity.envelope import (
    BROADCAST,
    HEADER_BYTES,
    MAX_LEAVES,
    MAX_PATH_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_TTL_MS,
    PROOF_BYTES,
    CounterExhaustedError,
    EnvelopeShapeError,
    EnvelopeSignatureError,
    Outgoing,
    Sealer,
    boot_counter,
    check_message,
    leaf_hash,
    make_boot,
    parse_header,
    parse_proof,
    path_bytes,
    paths_of,
    root_from,
    statement,
    statement_prefix,
    tree_of,
)
from meshagent.identity.keys import Tag, verify
from tests.support.fleets import key_of

FLEET = bytes(range(32))
BOOT = make_boot(7, b"abcdefgh")
SENDER, RECEIVER = key_of("sender"), key_of("receiver")


def sealer(**options: object) -> Sealer:
    return Sealer(SENDER, FLEET, BOOT, **options)  # type: ignore[arg-type]


def rfc9162_root(leaves: list[bytes]) -> bytes:
    """The recursive definition, written from the standard and not from our code."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\1" + rfc9162_root(leaves[:split]) + rfc9162_root(leaves[split:])).digest()


@pytest.mark.parametrize("count", [*range(1, 40), 63, 64, 65, 255, 256, 257, 1023, 1024])
def test_trees_paths_and_roots_agree_with_rfc_9162(count: int) -> None:
    leaves = [hashlib.sha256(bytes([n % 256, n // 256])).digest() for n in range(count)]
    levels = tree_of(leaves)
    root = rfc9162_root(leaves)
    assert levels[-1] == [root]
    for index, path in enumerate(paths_of(levels)):
        assert len(path) == path_bytes(index, count) <= MAX_PATH_BYTES
        assert root_from(leaves[index], index, count, path) == root


def test_the_layouts_are_those_of_the_specification() -> None:
    batch = sealer(start_batch=5, random_bytes=lambda n: b"s" * n).seal(
        [Outgoing(RECEIVER.node_id, 3, 1000, b"payload", flags=2), Outgoing(None, 4, 2000, b"")], hlc=99
    )
    assert len(batch.proof) == PROOF_BYTES == 130
    assert batch.proof[:66] == SENDER.public + BOOT + struct.pack(">QQH", 5, 99, 2)
    one, two = batch.messages
    assert len(one.header) == HEADER_BYTES == 36
    assert one.header == b"s" * 16 + struct.pack(">QHBBII", 1, 3, 1, 2, 1000, 7)
    assert (one.to, two.to) == (RECEIVER.public, BROADCAST)
    full = one.header[:16] + RECEIVER.public + one.header[16:]
    assert len(full) == 68
    leaf = hashlib.sha256(b"\0meshagent/msg/v1\0" + FLEET + SENDER.public + BOOT + full + b"payload").digest()
    assert leaf == two.path
    root = hashlib.sha256(b"\1" + leaf + one.path).digest()
    signed = b"meshagent/batch/v1\0" + FLEET + SENDER.public + BOOT + struct.pack(">QQH", 5, 99, 2) + root
    assert len(signed) == 149
    verify(SENDER.public, Tag.BATCH, signed[len(Tag.BATCH.value) :], batch.proof[66:])


def test_each_message_is_provable_alone() -> None:
    s = sealer()
    for count in range(1, 20):
        batch = s.seal([Outgoing(RECEIVER.node_id, 1, 1000, bytes([n])) for n in range(count)], hlc=1)
        for message in batch.messages:
            proof = check_message(FLEET, batch.proof, message, RECEIVER.public)
            assert (proof.sender, proof.boot, proof.leaves) == (SENDER.public, BOOT, count)
            assert check_message(FLEET, batch.proof, message._replace(to=b""), RECEIVER.public) == proof


def test_sequence_numbers_count_by_destination_and_batches_over_all() -> None:
    s = sealer()
    other = key_of("other").node_id
    order: list[str | None] = [RECEIVER.node_id, None, other, RECEIVER.node_id, None]
    batch = s.seal([Outgoing(to, 1, 1000, b"") for to in order], hlc=1)  # type: ignore[arg-type]
    assert [parse_header(m.header).seq for m in batch.messages] == [1, 1, 1, 2, 2]
    assert (s.last_seq(RECEIVER.node_id), s.last_seq(None), s.last_seq(other)) == (2, 2, 1)
    assert s.last_seq(key_of("nobody").node_id) == 0
    again = s.seal([Outgoing(other, 1, 1000, b"")], hlc=1)
    assert parse_header(again.messages[0].header).seq == 2
    assert parse_proof(again.proof).batch == parse_proof(batch.proof).batch + 1


def test_salts_differ_between_messages_of_one_content() -> None:
    batch = sealer().seal([Outgoing(None, 1, 1000, b"same")] * 64, hlc=1)
    assert len({m.header[:16] for m in batch.messages}) == 64


def test_counter_exhaustion_stops_the_sender_before_a_number_repeats() -> None:
    s = sealer(start_batch=2**64 - 1)
    s.seal([Outgoing(None, 1, 1000, b"")], hlc=1)
    with pytest.raises(CounterExhaustedError, match="batch"):
        s.seal([Outgoing(None, 1, 1000, b"")], hlc=1)
    s = sealer()
    s.seal([Outgoing(None, 1, 1000, b"")], hlc=1)
    s._recipients[None].seq = 2**64 - 1
    with pytest.raises(CounterExhaustedError, match="sequence"):
        s.seal([Outgoing(None, 1, 1000, b"")], hlc=1)
    for counter in (0, 2**64 - 1, 2**64):
        with pytest.raises(CounterExhaustedError, match="boot"):
            make_boot(counter, b"r" * 8)
    assert boot_counter(make_boot(2**64 - 2, b"r" * 8)) == 2**64 - 2


def test_what_is_out_of_bounds_is_not_sealed() -> None:
    s = sealer()
    ok = Outgoing(None, 1, 1000, b"")
    for messages in (
        [],
        [ok] * (MAX_LEAVES + 1),
        [ok._replace(payload=bytes(MAX_PAYLOAD_BYTES + 1))],
        [ok._replace(ttl_ms=0)],
        [ok._replace(ttl_ms=MAX_TTL_MS + 1)],
    ):
        with pytest.raises(LocalProtocolError):
            s.seal(messages, hlc=1)
    batch = s.seal([ok._replace(payload=bytes(MAX_PAYLOAD_BYTES))] + [ok] * (MAX_LEAVES - 1), hlc=1)
    check_message(FLEET, batch.proof, batch.messages[0], RECEIVER.public)
    with pytest.raises(ValueError, match="fleet id"):
        Sealer(SENDER, b"short", BOOT)
    with pytest.raises(ValueError, match="8 random"):
        make_boot(1, b"")


def test_wrong_shapes_have_their_own_error() -> None:
    batch = sealer().seal([Outgoing(RECEIVER.node_id, 1, 1000, b"x")] * 3, hlc=1)
    good = batch.messages[1]
    for bad in (
        good._replace(header=good.header[:-1]),
        good._replace(leaf_index=3),
        good._replace(leaf_index=-1),
        good._replace(path=good.path + bytes(32)),
        good._replace(path=good.path[:-1]),
        good._replace(path=b""),
        good._replace(payload=b"xx"),
        good._replace(payload=bytes(MAX_PAYLOAD_BYTES + 1)),
        good._replace(to=b"short"),
    ):
        with pytest.raises(EnvelopeShapeError):
            check_message(FLEET, batch.proof, bad, RECEIVER.public)
    for proof in (b"", batch.proof[:-1], batch.proof + b"x", batch.proof[:64] + bytes(2) + batch.proof[66:]):
        with pytest.raises(EnvelopeShapeError):
            check_message(FLEET, proof, good, RECEIVER.public)
    with pytest.raises(EnvelopeShapeError):
        parse_header(b"")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_flipped_bit_is_rejected(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    payloads = data.draw(st.lists(st.binary(max_size=40), min_size=count, max_size=count))
    batch = sealer().seal([Outgoing(RECEIVER.node_id, 1, 1000, p) for p in payloads], hlc=12345)
    message = batch.messages[data.draw(st.integers(0, count - 1))]
    fields = {"proof": batch.proof, "header": message.header, "path": message.path, "payload": message.payload}
    name = data.draw(st.sampled_from(sorted(n for n, value in fields.items() if value)))
    changed = bytearray(fields[name])
    bit = data.draw(st.integers(0, len(changed) * 8 - 1))
    changed[bit // 8] ^= 1 << bit % 8
    proof = bytes(changed) if name == "proof" else batch.proof
    if name != "proof":
        message = message._replace(**{name: bytes(changed)})  # type: ignore[arg-type]
    with pytest.raises((EnvelopeShapeError, EnvelopeSignatureError)):
        check_message(FLEET, proof, message, RECEIVER.public)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_no_index_or_number_of_leaves_but_the_signed_one_holds(count: int, claimed: int, data: st.DataObject) -> None:
    batch = sealer().seal([Outgoing(None, 1, 1000, b"x")] * count, hlc=1)
    index = data.draw(st.integers(0, count - 1))
    message = batch.messages[index]
    elsewhere = data.draw(st.integers(0, claimed - 1))
    if (claimed, elsewhere) == (count, index):
        return
    proof = batch.proof[:64] + struct.pack(">H", claimed) + batch.proof[66:]
    with pytest.raises((EnvelopeShapeError, EnvelopeSignatureError)):
        check_message(FLEET, proof, message._replace(leaf_index=elsewhere), RECEIVER.public)


def test_leaf_and_statement_cover_every_field() -> None:
    base = leaf_hash(b"p", b"t" * 32, b"h" * 36, b"x")
    assert base != leaf_hash(b"q", b"t" * 32, b"h" * 36, b"x")
    assert base != leaf_hash(b"p", b"u" * 32, b"h" * 36, b"x")
    prefix = statement_prefix(FLEET, SENDER.public, BOOT)
    seen = {
        statement(prefix, *fields)
        for fields in ((1, 1, 1, b"r"), (2, 1, 1, b"r"), (1, 2, 1, b"r"), (1, 1, 2, b"r"), (1, 1, 1, b"s"))
    }
    assert len(seen) == 5
