"""Fuzz payloads of every message type: a body that travels again, or one error. The first byte is the type."""

from __future__ import annotations

from collections.abc import Sequence

from meshagent.wire import codec
from meshagent.wire.errors import DecodeError
from tests.conformance.messages import BODIES
from tests.fuzz.engine import main


def corpus() -> Sequence[bytes]:
    encoded = [codec.encode(body) for body in BODIES.values()]
    return [bytes((kind,)) + payload for kind, payload in encoded]


def check(data: bytes) -> None:
    try:
        body = codec.decode(data[0] if data else 0, data[1:])
    except DecodeError:
        return
    if codec.decode(*codec.encode(body)) != body:
        raise AssertionError("a body that was decoded does not travel")


if __name__ == "__main__":
    main("tests.fuzz.codec")
