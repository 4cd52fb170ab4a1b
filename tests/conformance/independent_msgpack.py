"""msgpack as section 1 of docs/protocol.md wants it read: part three of `independent.py`."""

from __future__ import annotations

import math
import struct
from typing import Any, Final

from tests.conformance.independent import Refused, need

MAX_LEVELS: Final = 16
MAX_VALUES: Final = 10_000
_NUMBERS: Final = {0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
_LENGTHS: Final = {1: ">B", 2: ">H", 4: ">I"}


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._values = 0

    def take(self, size: int) -> bytes:
        need(self._at + size <= len(self._data), "cut short")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    @property
    def done(self) -> bool:
        return self._at == len(self._data)

    def value(self, level: int = 0) -> Any:
        self._values += 1
        need(self._values <= MAX_VALUES, "too many values")
        first = self.take(1)[0]
        if first < 0x80:
            return first
        if first >= 0xE0:
            return first - 256
        if first < 0x90:
            return self._map(first & 15, level)
        if first < 0xA0:
            return self._array(first & 15, level)
        if first < 0xC0:
            return self._text(first & 31)
        if first in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[first]
        if first in _NUMBERS:
            return self.number(_NUMBERS[first])
        if first in (0xCA, 0xCB):
            value = self.number(">f" if first == 0xCA else ">d")
            need(math.isfinite(value), "not finite")
            return value
        if first in (0xC4, 0xC5, 0xC6):
            return self.take(self.number(_LENGTHS[1 << first - 0xC4]))
        if first in (0xD9, 0xDA, 0xDB):
            return self._text(self.number(_LENGTHS[1 << first - 0xD9]))
        if first in (0xDC, 0xDD):
            return self._array(self.number(_LENGTHS[2 << first - 0xDC]), level)
        if first in (0xDE, 0xDF):
            return self._map(self.number(_LENGTHS[2 << first - 0xDE]), level)
        raise Refused("an extension, or no msgpack")

    def _text(self, size: int) -> str:
        try:
            return self.take(size).decode()
        except UnicodeDecodeError as error:
            raise Refused("text is UTF-8") from error

    def _array(self, size: int, level: int) -> list[Any]:
        need(level < MAX_LEVELS, "too deep")
        return [self.value(level + 1) for _ in range(size)]

    def _map(self, size: int, level: int) -> dict[Any, Any]:
        need(level < MAX_LEVELS, "too deep")
        found: dict[Any, Any] = {}
        for _ in range(size):
            key = self.value(level + 1)
            need(type(key) in (str, int, bytes) and key not in found, "a key of another type, or twice")
            found[key] = self.value(level + 1)
        return found


def read_value(data: bytes) -> Any:
    """The one value in `data`."""
    reader = _Reader(data)
    value = reader.value()
    need(reader.done, "bytes after the value")
    return value
