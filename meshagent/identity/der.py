"""The four DER forms inside our certificate extensions: text, bytes, and small integers."""

from __future__ import annotations

from typing import Final

_INTEGER: Final = 0x02
_OCTETS: Final = 0x04
_UTF8: Final = 0x0C
_MAX: Final = 0xFFFF


def octets(value: bytes) -> bytes:
    """An OCTET STRING."""
    return _wrap(_OCTETS, value)


def text(value: str) -> bytes:
    """A UTF8String."""
    return _wrap(_UTF8, value.encode())


def integer(value: int) -> bytes:
    """A non-negative INTEGER."""
    return _wrap(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def read_octets(data: bytes) -> bytes:
    """Raises ValueError: not one whole OCTET STRING."""
    return _unwrap(_OCTETS, data)


def read_text(data: bytes) -> str:
    """Raises ValueError: not one whole UTF8String."""
    return _unwrap(_UTF8, data).decode("utf-8", "strict")


def read_integer(data: bytes, *, limit: int) -> int:
    """Raises ValueError: not one whole INTEGER from 0 to below `limit`, in its shortest form."""
    content = _unwrap(_INTEGER, data)
    value = int.from_bytes(content, "big", signed=True)
    if not 0 <= value < limit or integer(value) != data:
        raise ValueError("integer out of range or not in its shortest form")
    return value


def _wrap(kind: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        length = bytes([size])
    elif size <= 0xFF:
        length = bytes([0x81, size])
    elif size <= _MAX:
        length = bytes([0x82]) + size.to_bytes(2, "big")
    else:
        raise ValueError("too long for a certificate extension")
    return bytes([kind]) + length + content


def _unwrap(kind: int, data: bytes) -> bytes:
    if len(data) < 2 or data[0] != kind:
        raise ValueError("another DER type")
    start = 2
    size = data[1]
    if size >= 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[2:start], "big")
    content = data[start:]
    if len(content) != size or _wrap(kind, content) != data:
        raise ValueError("DER length is wrong or not in its shortest form")
    return content
