"""Token buckets: so many a second, with bursts."""

from __future__ import annotations


class Bucket:
    """Holds at most `burst` tokens and gains `rate` a second. Starts full."""

    __slots__ = ("_at_s", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now_s: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at_s = now_s

    def take(self, count: float, now_s: float) -> bool:
        """Take `count` tokens, all or none. A clock that goes back gains nothing."""
        if now_s > self._at_s:
            self._tokens = min(self._burst, self._tokens + (now_s - self._at_s) * self._rate)
            self._at_s = now_s
        if count > self._tokens:
            return False
        self._tokens -= count
        return True
