"""Fuzz frames: bytes are a frame within its bounds that can be written again, or one error."""

from __future__ import annotations

from collections.abc import Sequence

from meshagent.identity.envelope import BROADCAST, MAX_PAYLOAD_BYTES, SealedMessage
from meshagent.wire.errors import DecodeError
from meshagent.wire.frame import MAX_FRAME_MESSAGES, frame_bytes, message_bytes, read_frame
from tests.fuzz.engine import main

RECEIVER = bytes(range(32))


def corpus() -> Sequence[bytes]:
    def some(count: int, to: bytes) -> tuple[bytes, list[bytes]]:
        messages = [SealedMessage(bytes(36), to, index, bytes(64), b"payload" * index) for index in range(count)]
        return b"p" * 130, [message_bytes(one, RECEIVER) for one in messages]

    return [
        frame_bytes(0, 7, b"", ()),
        frame_bytes(0, 0, b"a hello" * 40, ()),
        frame_bytes(1, 0, b"", [some(1, RECEIVER)]),
        frame_bytes(2**40, 2**35, b"", [some(3, BROADCAST), some(2, b"r" * 32)], True),
    ]


def check(data: bytes) -> None:
    try:
        frame = read_frame(data)
    except DecodeError:
        return
    if sum(len(batch.messages) for batch in frame.batches) > MAX_FRAME_MESSAGES:
        raise AssertionError("more messages than a frame holds")
    if any(len(one.payload) > MAX_PAYLOAD_BYTES for batch in frame.batches for one in batch.messages):
        raise AssertionError("a payload beyond its bound")
    batches = [(batch.proof, [message_bytes(one, RECEIVER) for one in batch.messages]) for batch in frame.batches]
    again = read_frame(frame_bytes(frame.seq, frame.ack, frame.hello, batches, frame.ack_soon))
    same = [[one._replace(to=b"" if one.to == RECEIVER else one.to) for one in b.messages] for b in frame.batches]
    if [list(batch.messages) for batch in again.batches] != same or again[:3] != frame[:3]:
        raise AssertionError("a frame that was read is not written back alike")


if __name__ == "__main__":
    main("tests.fuzz.frame")
