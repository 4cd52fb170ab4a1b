"""Msgpack as this project speaks it: a bounded subset that every implementation decodes alike.

Bytes are scanned before anything is built, because a decoder that builds first can be made to hold 70 MiB for 1 MiB of
empty containers, or to allocate a list of 60,000 slots at each of 500 levels. Refused: NaN and infinity (one NaN bid
makes the winner depend on order), duplicate keys, extension types, keys other than text, integers and bytes, more than
16 levels, more than 10,000 values, bytes after the value. What `packb` writes, `unpackb` reads.

Source: the msgpack specification; SECURITY-DESIGN 2.
"""

from __future__ import annotations

import struct
from math import isfinite
from typing import Final

import msgpack

from meshagent.errors import EnvelopeError, LocalProtocolError

MAX_DEPTH: Final = 16
"""Containers in containers. Specifications of tasks are flat records; 16 leaves room and keeps recursion harmless."""
MAX_NODES: Final = 10_000
"""Values in one document, keys included: about 1 MiB of Python objects at the worst."""

_TEXT_KEYS: Final = (str, int, bytes)
_F32: Final = struct.Struct(">f").unpack_from
_F64: Final = struct.Struct(">d").unpack_from

# One entry a leading byte: how many bytes the value takes, or 0 where the scan has to look closer.
_FIXED: Final = bytes(
    1
    if b <= 0x7F or b >= 0xE0 or b in (0xC0, 0xC2, 0xC3)  # small integers, nil, false, true
    else 1 + (b & 0x1F)
    if 0xA0 <= b <= 0xBF  # short text
    else {0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9}.get(b, 0)
    for b in range(256)
)
# Long text and bytes: how many bytes the length takes.
_BLOB: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}


class StrictDecodeError(EnvelopeError):
    """The bytes are not a document of this subset."""


class StrictEncodeError(LocalProtocolError):
    """The value has no form in this subset."""


def packb(obj: object) -> bytes:
    """The msgpack bytes of `obj`: None, bool, 64-bit int, finite float, str, bytes, list, tuple, dict.

    Raises:
        StrictEncodeError: anything else, or more than `MAX_DEPTH` levels or `MAX_NODES` values.
    """
    try:
        data: bytes = msgpack.packb(obj, use_bin_type=True)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise StrictEncodeError(f"cannot be written as msgpack: {error}") from error
    try:
        _scan(data)
        msgpack.unpackb(data, raw=False, strict_map_key=False, object_pairs_hook=_pairs)
    except StrictDecodeError as error:
        raise StrictEncodeError(f"cannot be written as msgpack: {error}") from error
    return data


def unpackb(data: bytes, *, max_bytes: int) -> object:
    """The value behind `data`; arrays come back as lists.

    Raises:
        StrictDecodeError: longer than `max_bytes`, not msgpack, or outside the subset.
    """
    if len(data) > max_bytes:
        raise StrictDecodeError(f"{len(data)} bytes, at most {max_bytes} are read")
    _scan(data)
    try:
        value: object = msgpack.unpackb(data, raw=False, strict_map_key=False, object_pairs_hook=_pairs)
    except StrictDecodeError:
        raise
    except (ValueError, TypeError, OverflowError) as error:
        raise StrictDecodeError(f"not msgpack: {error}") from error
    return value


def _pairs(pairs: list[tuple[object, object]]) -> dict[object, object]:
    for key, _ in pairs:
        if type(key) not in _TEXT_KEYS:
            raise StrictDecodeError(f"a key of type {type(key).__name__}; text, integers and bytes are read")
    result = dict(pairs)
    if len(result) != len(pairs):
        raise StrictDecodeError("a key stands twice")
    return result


def _scan(data: bytes) -> None:
    """Walk the bytes without building anything, and refuse what could hurt."""
    end = len(data)
    position = 0
    nodes = 1
    left = 1
    outer: list[int] = []
    while True:
        if position >= end:
            raise StrictDecodeError("cut short")
        byte = data[position]
        left -= 1
        step = _FIXED[byte]
        if step:
            position += step
        elif byte <= 0x9F or 0xDC <= byte <= 0xDF:
            if byte <= 0x8F:
                count, position = 2 * (byte & 0x0F), position + 1
            elif byte <= 0x9F:
                count, position = byte & 0x0F, position + 1
            else:
                width = 4 if byte & 1 else 2
                count = int.from_bytes(data[position + 1 : position + 1 + width], "big")
                if byte >= 0xDE:
                    count *= 2
                position += 1 + width
            nodes += count
            if nodes > MAX_NODES:
                raise StrictDecodeError(f"over {MAX_NODES} values")
            outer.append(left)
            if len(outer) > MAX_DEPTH:
                raise StrictDecodeError(f"over {MAX_DEPTH} levels")
            left = count
        elif byte in _BLOB:
            width = _BLOB[byte]
            position += 1 + width + int.from_bytes(data[position + 1 : position + 1 + width], "big")
        elif byte == 0xCA or byte == 0xCB:
            width = 4 if byte == 0xCA else 8
            if position + 1 + width > end:
                raise StrictDecodeError("cut short")
            number = (_F32 if byte == 0xCA else _F64)(data, position + 1)[0]
            if not isfinite(number):
                raise StrictDecodeError("not a finite number")
            position += 1 + width
        else:
            raise StrictDecodeError("an extension type" if byte != 0xC1 else "not msgpack: byte 0xc1")
        while not left:
            if not outer:
                if position != end:
                    raise StrictDecodeError("cut short" if position > end else "bytes after the value")
                return
            left = outer.pop()
