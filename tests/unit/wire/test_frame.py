"""Frames: written by hand as protobuf would, read within bounds."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshagent.identity.envelope import BROADCAST, SealedBatch, SealedMessage
from meshagent.wire.errors import DecodeError
from meshagent.wire.frame import (
    MAX_FRAME_BATCHES,
    MAX_FRAME_BYTES,
    MAX_FRAME_MESSAGES,
    MAX_HELLO_BYTES,
    Frame,
    frame_bytes,
    message_bytes,
    read_frame,
)
from meshagent.wire.v1 import link_pb2 as pb

RECEIVER = bytes(range(32))
RELAYED = b"r" * 32

messages = st.builds(
    SealedMessage,
    header=st.binary(min_size=36, max_size=36),
    to=st.sampled_from([RECEIVER, BROADCAST, RELAYED]),
    leaf_index=st.integers(0, 1023),
    path=st.integers(0, 10).flatmap(lambda n: st.binary(min_size=32 * n, max_size=32 * n)),
    payload=st.binary(max_size=300),
)
batches = st.builds(
    SealedBatch,
    proof=st.binary(min_size=130, max_size=130),
    messages=st.lists(messages, min_size=1, max_size=5),
)
numbers = st.integers(0, 2**63 - 1)
hellos = st.binary(max_size=200)


def written(seq: int, ack: int, hello: bytes, inside: list[SealedBatch], soon: bool = False) -> bytes:
    return frame_bytes(
        seq, ack, hello, [(one.proof, [message_bytes(m, RECEIVER) for m in one.messages]) for one in inside], soon
    )


@settings(max_examples=150, deadline=None)
@given(
    seq=numbers, ack=numbers, hello=st.binary(max_size=200), inside=st.lists(batches, max_size=3), soon=st.booleans()
)
def test_a_frame_is_read_as_it_was_written(
    seq: int, ack: int, hello: bytes, inside: list[SealedBatch], soon: bool
) -> None:
    read = read_frame(written(seq, ack, hello, inside, soon))
    expected = tuple(
        SealedBatch(b.proof, [m._replace(to=b"" if m.to == RECEIVER else m.to) for m in b.messages]) for b in inside
    )
    assert read == Frame(seq, ack, hello, expected, soon)


@settings(max_examples=150, deadline=None)
@given(
    seq=numbers, ack=numbers, hello=st.binary(max_size=200), inside=st.lists(batches, max_size=3), soon=st.booleans()
)
def test_a_frame_written_by_hand_equals_protobufs(
    seq: int, ack: int, hello: bytes, inside: list[SealedBatch], soon: bool
) -> None:
    protobufs = pb.Frame(
        seq=seq,
        ack=ack,
        hello=hello,
        ack_soon=soon,
        batches=[
            pb.Batch(
                proof=b.proof,
                messages=[
                    pb.Message(
                        header=m.header,
                        index=m.leaf_index,
                        path=m.path,
                        payload=m.payload,
                        to=b"" if m.to == RECEIVER else m.to,
                    )
                    for m in b.messages
                ],
            )
            for b in inside
        ],
    )
    assert protobufs.SerializeToString(deterministic=True) == written(seq, ack, hello, inside, soon)


@settings(max_examples=500, deadline=None)
@given(raw=st.binary(max_size=400))
def test_arbitrary_bytes_are_a_frame_or_a_decode_error(raw: bytes) -> None:
    with contextlib.suppress(DecodeError):
        read_frame(raw)


@settings(max_examples=300, deadline=None)
@given(inside=st.lists(batches, min_size=1, max_size=2), data=st.data())
def test_a_mutated_frame_is_a_frame_or_a_decode_error(inside: list[SealedBatch], data: st.DataObject) -> None:
    raw = bytearray(written(5, 4, b"", inside))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(DecodeError):
        read_frame(bytes(raw))


def frame(**message: object) -> bytes:
    fields: dict[str, object] = {"header": bytes(36), "payload": b"p"}
    return pb.Frame(
        seq=1,
        batches=[pb.Batch(proof=bytes(130), messages=[pb.Message(**(fields | message))])],  # type: ignore[arg-type]
    ).SerializeToString()


def test_the_frame_that_the_bad_ones_are_made_from_is_good() -> None:
    assert len(read_frame(frame()).batches) == 1


@pytest.mark.parametrize(
    ("what", "raw"),
    [
        ("header_short", frame(header=bytes(35))),
        ("header_long", frame(header=bytes(37))),
        ("long_path", frame(path=bytes(321))),
        ("payload_oversized", frame(payload=bytes(64 * 1024 + 1))),
        ("index", frame(index=1024)),
        ("to", frame(to=bytes(31))),
        (
            "proof",
            pb.Frame(batches=[pb.Batch(proof=bytes(129), messages=[pb.Message(header=bytes(36))])]).SerializeToString(),
        ),
        ("empty_batch", pb.Frame(batches=[pb.Batch(proof=bytes(130))]).SerializeToString()),
        (
            "too_many_messages",
            pb.Frame(
                batches=[pb.Batch(proof=bytes(130), messages=[pb.Message(header=bytes(36))] * (MAX_FRAME_MESSAGES + 1))]
            ).SerializeToString(),
        ),
        (
            "too_many_batches",
            pb.Frame(
                batches=[pb.Batch(proof=bytes(130), messages=[pb.Message(header=bytes(36))])] * (MAX_FRAME_BATCHES + 1)
            ).SerializeToString(),
        ),
        ("hello", pb.Frame(hello=bytes(MAX_HELLO_BYTES + 1)).SerializeToString()),
        ("seq", pb.Frame(seq=2**63).SerializeToString()),
        ("ack", pb.Frame(ack=2**64 - 1).SerializeToString()),
        ("oversized", frame(payload=bytes(1000)) + b"\x7a" + b"\x80\x80\x10" + bytes(MAX_FRAME_BYTES)),
    ],
)
def test_a_frame_out_of_bounds_is_refused(what: str, raw: bytes) -> None:
    with pytest.raises(DecodeError):
        read_frame(raw)
