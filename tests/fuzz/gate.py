"""Fuzz the gate with batches: nothing raises, and nothing passes as verified that its sender did not seal."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from meshagent.identity.envelope import Outgoing, SealedBatch, SealedMessage
from meshagent.identity.gate import VerifiedMessage
from meshagent.identity.replay import ReplayTable
from tests.fuzz.engine import main
from tests.support.fleets import DEFERRED_TYPE, Device, Receiver, authority, device, receiver

_FIELDS = 4


def pack(batch: SealedBatch) -> bytes:
    """A batch as flat bytes, so that mutations reach every field."""
    out = bytes([len(batch.proof) % 256]) + batch.proof
    for message in batch.messages:
        out += bytes([message.leaf_index % 256])
        for part in (message.header, message.to, message.path, message.payload):
            out += len(part).to_bytes(2, "big") + part
    return out


def unpack(data: bytes) -> SealedBatch:
    """The batch in any bytes; what is missing is empty."""
    size = data[0] if data else 0
    proof, rest = data[1 : 1 + size], data[1 + size :]
    messages: list[SealedMessage] = []
    while rest and len(messages) < 300:
        index, rest = rest[0], rest[1:]
        parts = []
        for _ in range(_FIELDS):
            length = int.from_bytes(rest[:2], "big")
            parts.append(rest[2 : 2 + length])
            rest = rest[2 + length :]
        messages.append(SealedMessage(parts[0], parts[1], index, parts[2], parts[3]))
    return SealedBatch(proof, messages)


@functools.cache
def _scene() -> tuple[Device, Receiver, list[SealedBatch], set[tuple[int, int, bytes]]]:
    fleet = authority()
    ann = device(fleet, "ann")
    bob = receiver(fleet, "bob", ann)
    batches = [
        ann.seal(*(Outgoing(bob.id if n % 2 else None, kind, 1000, b"payload %d" % n) for n in range(count)))
        for count in (1, 2, 3, 7, 16)
        for kind in (1, DEFERRED_TYPE)
    ]
    genuine = {
        (int.from_bytes(m.header[16:24], "big"), int.from_bytes(m.header[24:26], "big"), m.payload)
        for batch in batches
        for m in batch.messages
    }
    return ann, bob, batches, genuine


def corpus() -> Sequence[bytes]:
    return [pack(batch) for batch in _scene()[2]]


def check(data: bytes) -> None:
    ann, bob, batches, genuine = _scene()
    bob.gate.replay = ReplayTable()
    bob.now_s += 1.0
    if len(data) % 2:
        # Half of the inputs meet a gate that knows the boot, so that the path of link messages is walked too.
        bob.take(ann.id, batches[0])
    for message in bob.take(ann.id, unpack(data)):
        verified = message if isinstance(message, VerifiedMessage) else message.verified()
        if verified is not None and (verified.seq, verified.type, verified.sealed.payload) not in genuine:
            raise AssertionError("a message passed that nobody sealed")
    bob.admitted.clear()


if __name__ == "__main__":
    main("tests.fuzz.gate")
