"""Many deadlines, one timer: a lazy heap of (instant, key).

Arming a key again leaves its old entry in the heap, where it is skipped when it comes up; so re-arming costs
O(log n) and nothing is searched. The heap is rebuilt when dead entries outnumber the living four to one.
"""

from __future__ import annotations

import heapq
from typing import Final

REBUILD_ABOVE: Final = 256
"""Below so many entries dead ones are not worth a rebuild."""


class Timers:
    """The next instant for each key, in seconds of the caller's clock."""

    __slots__ = ("_armed", "_heap", "_order")

    def __init__(self) -> None:
        self._armed: dict[str, float] = {}
        self._heap: list[tuple[float, int, str]] = []
        self._order = 0

    def __len__(self) -> int:
        return len(self._armed)

    def arm(self, key: str, at_s: float | None) -> None:
        """Let `key` come up at `at_s` and at no other instant; None: never."""
        if at_s is None:
            self._armed.pop(key, None)
            return
        if self._armed.get(key) == at_s:
            return
        self._armed[key] = at_s
        self._order += 1
        heapq.heappush(self._heap, (at_s, self._order, key))
        if len(self._heap) > REBUILD_ABOVE + 4 * len(self._armed):
            self._heap = [entry for entry in self._heap if self._armed.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)

    def next_s(self) -> float | None:
        """The earliest instant that is armed."""
        heap = self._heap
        while heap:
            at_s, _, key = heap[0]
            if self._armed.get(key) == at_s:
                return at_s
            heapq.heappop(heap)
        return None

    def pop_due(self, now_s: float) -> str | None:
        """Take out one key whose instant has come, the earliest first; equal instants in the order of arming."""
        at_s = self.next_s()
        if at_s is None or at_s > now_s:
            return None
        _, _, key = heapq.heappop(self._heap)
        del self._armed[key]
        return key
