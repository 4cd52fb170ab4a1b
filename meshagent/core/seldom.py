"""Says how often a line may be said: what repeats itself is counted instead, so that no peer can fill a disk with logs.

Pure: time is an argument, the caller writes the line.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

WINDOW_S: Final = 30.0
"""A line that repeats is said `BURST` times in so long; who reads the log sees that it goes on, and not more."""
BURST: Final = 3
MAX_KEYS: Final = 512
"""Lines remembered; the one unsaid for longest leaves, and may be said anew."""


class Seldom:
    """One for each place that logs what others cause."""

    __slots__ = ("_burst", "_said", "_window_s")

    def __init__(self, *, burst: int = BURST, window_s: float = WINDOW_S) -> None:
        self._burst = burst
        self._window_s = window_s
        self._said: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def may(self, key: str, now_s: float) -> str | None:
        """What to append to the line: mostly nothing, or how many like it were left out; None: leave this one out.

        Args:
            key: lines of one key count together.
            now_s: any clock that does not go back.
        """
        since_s, count = self._said.get(key, (now_s, 0))
        suffix = ""
        if now_s - since_s >= self._window_s:
            if count > self._burst:
                suffix = f" ({count - self._burst} more like it were left out)"
            since_s, count = now_s, 0
        self._said[key] = (since_s, count + 1)
        self._said.move_to_end(key)
        if len(self._said) > MAX_KEYS:
            self._said.popitem(last=False)
        return suffix if count < self._burst else None
