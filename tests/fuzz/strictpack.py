"""Fuzz strict msgpack: it decodes to what encodes back, or raises its one error, and never grows without bound."""

from __future__ import annotations

from collections.abc import Sequence

from meshagent.strictpack import StrictDecodeError, packb, unpackb
from tests.fuzz.engine import MAX_INPUT_BYTES, main


def corpus() -> Sequence[bytes]:
    return [
        packb(value)
        for value in (
            {"site": "pump-3", "at": [1.5, -2.0], "n": 70_000, "raw": b"\0" * 300, "text": "x" * 40, "none": None},
            [[[[{"a": {"b": [True, False]}}]]]],
            list(range(-40, 300, 7)),
            {1: 2, "1": 3, 2**40: -(2**40)},
        )
    ] + [b"\x91" * 40, b"\xdd\x00\x00\xff\xff" * 10, b"\xc7\x01\x01\x01", b"\xcb\x7f\xf8" + bytes(6)]


def check(data: bytes) -> None:
    try:
        value = unpackb(data, max_bytes=MAX_INPUT_BYTES)
    except StrictDecodeError:
        return
    if unpackb(packb(value), max_bytes=2 * MAX_INPUT_BYTES) != value:
        raise AssertionError("what was decoded does not encode back")


if __name__ == "__main__":
    main("tests.fuzz.strictpack")
