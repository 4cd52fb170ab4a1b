"""Frames: what one side says on a link at one moment, as bytes (protos/meshagent/wire/v1/link.proto).

Frames are written by hand: a message for sixteen links is encoded once and copied sixteen times, and building
protobuf objects for it would cost three times as much. Reading is protobuf's, with every bound checked. What comes
out is unverified: `identity/gate.py` decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from google.protobuf import message

from meshagent.identity.envelope import (
    BROADCAST,
    HEADER_BYTES,
    MAX_LEAVES,
    MAX_PATH_BYTES,
    MAX_PAYLOAD_BYTES,
    PROOF_BYTES,
    TO_RECEIVER,
    SealedBatch,
    SealedMessage,
)
from meshagent.wire.errors import DecodeError
from meshagent.wire.v1 import link_pb2 as pb

MAX_FRAME_BYTES: Final = 256 * 1024
MAX_FRAME_MESSAGES: Final = 256
MAX_FRAME_BATCHES: Final = 16
"""A sender needs one, two when a turn emitted over 1,024 messages; relays will need a few."""
MAX_HELLO_BYTES: Final = 16 * 1024
"""A Hello carries the sender's credential, which has at most 8 KiB."""
MAX_SEQ: Final = 2**63 - 1

FRAME_OVERHEAD_BYTES: Final = 64 + MAX_FRAME_BATCHES * (PROOF_BYTES + 16)
"""All of a frame that is neither message nor hello, at most."""
MESSAGE_OVERHEAD_BYTES: Final = HEADER_BYTES + MAX_PATH_BYTES + 32 + 24
"""All of a message that is not payload, at most."""


class Frame(NamedTuple):
    """One frame as received. `seq` 0: an acknowledgement alone."""

    seq: int
    ack: int
    hello: bytes
    batches: tuple[SealedBatch, ...]
    ack_soon: bool


def _varint(value: int) -> bytes:
    if value < 0x80:
        return _ONE[value]
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_ONE: Final = tuple(bytes((value,)) for value in range(0x80))
_HEADER_FIELD: Final = b"\x0a" + bytes((HEADER_BYTES,))
_PROOF_FIELD: Final = b"\x0a" + bytes((PROOF_BYTES & 0x7F | 0x80, PROOF_BYTES >> 7))
_TO_FIELD: Final = b"\x2a\x20"


def message_bytes(sealed: SealedMessage, receiver: bytes) -> bytes:
    """One message as a frame to `receiver` (32 bytes) carries it; the same for every receiver of a broadcast."""
    header, to, index, path, payload = sealed
    parts = [_HEADER_FIELD, header]
    if index:
        parts += (b"\x10", _varint(index))
    if path:
        parts += (b"\x1a", _varint(len(path)), path)
    if payload:
        parts += (b"\x22", _varint(len(payload)), payload)
    if to != receiver and to != TO_RECEIVER:
        parts += (_TO_FIELD, to)
    body = b"".join(parts)
    return b"\x12" + _varint(len(body)) + body


def frame_bytes(
    seq: int, ack: int, hello: bytes, batches: Iterable[tuple[bytes, Sequence[bytes]]], ack_soon: bool = False
) -> bytes:
    """A whole frame. `batches` are pairs of a proof and the `message_bytes` that go over this link."""
    parts: list[bytes] = []
    if seq:
        parts += (b"\x08", _varint(seq))
    if ack:
        parts += (b"\x10", _varint(ack))
    for proof, messages in batches:
        size = len(_PROOF_FIELD) + PROOF_BYTES + sum(map(len, messages))
        parts += (b"\x1a", _varint(size), _PROOF_FIELD, proof)
        parts += messages
    if hello:
        parts += (b"\x22", _varint(len(hello)), hello)
    if ack_soon:
        parts.append(b"\x28\x01")
    return b"".join(parts)


def read_frame(raw: bytes) -> Frame:
    """The frame behind `raw`, every length within its bound, nothing verified.

    Raises:
        DecodeError: not a frame, or a bound is broken.
    """
    if len(raw) > MAX_FRAME_BYTES:
        raise DecodeError(f"a frame has at most {MAX_FRAME_BYTES} bytes, this one {len(raw)}")
    try:
        frame = pb.Frame.FromString(raw)
    except message.DecodeError as error:
        raise DecodeError("not a frame") from error
    seq, ack, hello = frame.seq, frame.ack, frame.hello
    if seq > MAX_SEQ or ack > MAX_SEQ or len(hello) > MAX_HELLO_BYTES:
        raise DecodeError("seq, ack or hello of a frame is out of range")
    found = frame.batches
    if not found:
        return Frame(seq, ack, hello, (), frame.ack_soon)
    if len(found) > MAX_FRAME_BATCHES:
        raise DecodeError(f"a frame has at most {MAX_FRAME_BATCHES} batches")
    batches = []
    left = MAX_FRAME_MESSAGES
    for batch in found:
        proof, inside = batch.proof, batch.messages
        left -= len(inside)
        if len(proof) != PROOF_BYTES or not inside:
            raise DecodeError("a batch has a proof of 130 bytes and at least one message")
        if left < 0:
            raise DecodeError(f"a frame has at most {MAX_FRAME_MESSAGES} messages")
        messages = []
        for one in inside:
            header, to, index, path, payload = one.header, one.to, one.index, one.path, one.payload
            if (
                len(header) != HEADER_BYTES
                or len(payload) > MAX_PAYLOAD_BYTES
                or len(path) > MAX_PATH_BYTES
                or index >= MAX_LEAVES
                or (to and len(to) != len(BROADCAST))
            ):
                raise DecodeError("header, payload, path, index or recipient of a message is out of range")
            messages.append(SealedMessage(header, to, index, path, payload))
        batches.append(SealedBatch(proof, messages))
    return Frame(seq, ack, hello, tuple(batches), frame.ack_soon)
