"""Vectors of msgpack as specifications, results and events use it: what is read, and what is refused."""

from __future__ import annotations

from typing import Any, Final

import msgpack

from meshagent.strictpack import MAX_DEPTH, MAX_NODES, StrictDecodeError, packb, unpackb

_READ: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, 127, 128, 255, 256, 2**16, 2**32, 2**64 - 1, -1, -32, -33, -128, -129, -(2**15) - 1),
    *(-(2**31) - 1, -(2**63), 0.0, -0.5, 1e308, "", "pump", "é" * 20, "x" * 31, "x" * 32, "x" * 256, b"", b"\0" * 255),
    *(b"\1" * 256, [], [1, [2, [3]]], [0] * 15, [0] * 16, {}, {"site": "pump-7", "rms_g": 0.25}, {1: 2, b"k": None}),
    {f"k{n}": n for n in range(16)},
)
_ALSO_READ: Final = (
    ("an integer in more bytes than it needs", b"\xcd\x00\x07"),
    ("a signed form of a positive integer", b"\xd3" + (7).to_bytes(8, "big")),
    ("a float of four bytes", b"\xca\x3f\x00\x00\x00"),
    ("a text with a longer length than it needs", b"\xda\x00\x01a"),
    ("an array of 32-bit length", b"\xdd\x00\x00\x00\x01\xc0"),
    ("16 levels", b"\x91" * (MAX_DEPTH - 1) + b"\x90"),
    ("10,000 values", b"\xdc" + (MAX_NODES - 1).to_bytes(2, "big") + b"\xc0" * (MAX_NODES - 1)),
)
_REFUSED: Final = (
    ("nothing", b""),
    ("byte c1", b"\xc1"),
    ("bytes after the value", b"\xc0\xc0"),
    ("cut short in a text", b"\xa3ab"),
    ("cut short in an array", b"\x92\xc0"),
    ("a NaN", b"\xcb\x7f\xf8" + bytes(6)),
    ("an infinity", b"\xcb\x7f\xf0" + bytes(6)),
    ("a NaN of four bytes", b"\xca\x7f\xc0\x00\x00"),
    ("an extension", b"\xd4\x01\x00"),
    ("a timestamp", b"\xd6\xff" + bytes(4)),
    ("a key twice", b"\x82\xa1a\x01\xa1a\x02"),
    ("a key that is a float", b"\x81\xcb" + bytes(8) + b"\xc0"),
    ("a key that is nil", b"\x81\xc0\xc0"),
    ("a key that is true", b"\x81\xc3\xc0"),
    ("a key that is an array", b"\x81\x90\xc0"),
    ("text that is no UTF-8", b"\xa1\xff"),
    ("17 levels", b"\x91" * MAX_DEPTH + b"\x90"),
    ("10,001 values", b"\xdc" + MAX_NODES.to_bytes(2, "big") + b"\xc0" * MAX_NODES),
    ("an array of 2^32 - 1", b"\xdd\xff\xff\xff\xff"),
)


def told(value: Any) -> Any:
    """As JSON takes it: bin and maps are named, because JSON has neither bytes nor other keys than text."""
    if isinstance(value, bytes):
        return {"bin": value.hex()}
    if isinstance(value, dict):
        return {"map": [[told(key), told(one)] for key, one in value.items()]}
    return [told(one) for one in value] if isinstance(value, list) else value


def vectors() -> dict[str, Any]:
    """All of them, as JSON has them."""
    for why, data in _REFUSED:
        try:
            unpackb(data, max_bytes=10**6)
        except StrictDecodeError:
            continue
        raise AssertionError(f"{why} is read")
    read = [("", packb(value)) for value in _READ] + list(_ALSO_READ)
    assert all(msgpack.packb(value) == data for value, (_, data) in zip(_READ, read, strict=False))
    return {
        "about": "Section 1 of docs/protocol.md. `value`: {bin: hex}, {map: [[key, value], ...]}, else as JSON has it.",
        "accepted": [
            {"why": why, "data": data.hex(), "value": told(unpackb(data, max_bytes=10**6))} for why, data in read
        ],
        "refused": [{"why": why, "data": data.hex()} for why, data in _REFUSED],
    }
