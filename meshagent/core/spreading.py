"""News on its way: what this node still passes on, the least told first, each so often and no more.

Source: SWIM 4.1 and 5.1 (infection-style dissemination, piggyback selection).
"""

from __future__ import annotations

from typing import Final

MAX_NEWS: Final = 1024
"""Pieces of news kept; more than a packet a member of a large fleet. The most told gives way."""
ITEM_OVERHEAD_BYTES: Final = 2
"""Each item travels behind its length."""


class _News:
    __slots__ = ("number", "signed", "told")

    def __init__(self, number: int, signed: bytes) -> None:
        self.number = number
        self.signed = signed
        self.told = 0

    def rank(self) -> tuple[int, int]:
        return (self.told, -self.number)


class Spreading:
    """A bounded queue of signed items, one for each key; a newer item of a key replaces the older."""

    __slots__ = ("_items", "_numbers")

    def __init__(self) -> None:
        self._items: dict[str, _News] = {}
        self._numbers = 0

    def __len__(self) -> int:
        return len(self._items)

    def put(self, key: str, signed: bytes) -> None:
        """Pass `signed` on from now on."""
        self._numbers += 1
        self._items.pop(key, None)
        if len(self._items) >= MAX_NEWS:
            del self._items[max(self._items, key=lambda one: self._items[one].rank())]
        self._items[key] = _News(self._numbers, signed)

    def drop(self, prefix: str) -> None:
        """What stands under keys that begin so is not true any more."""
        for key in [one for one in self._items if one.startswith(prefix)]:
            del self._items[key]

    def take(self, room_bytes: int, limit: int) -> tuple[bytes, ...]:
        """Items that fit into `room_bytes`, least told first; what was told `limit` times is done."""
        taken: list[bytes] = []
        for key, news in sorted(self._items.items(), key=lambda pair: pair[1].rank()):
            size = len(news.signed) + ITEM_OVERHEAD_BYTES
            if size > room_bytes:
                continue
            room_bytes -= size
            taken.append(news.signed)
            news.told += 1
            if news.told >= limit:
                del self._items[key]
        return tuple(taken)
