"""The hybrid logical clock of envelopes: milliseconds since 1970 in the high bits, a counter in the low 16.

Source: Kulkarni et al., Logical Physical Clocks (2014), with two changes. The wall clock is read once, at boot, and
carried on by CLOCK_BOOTTIME, so that a clock that is set back never sets stamps back. And a received stamp is merged
only up to local time + 5 s, so that one device with a far-future clock drags nobody (SECURITY-DESIGN 4).

No safety decision uses these stamps. Leases run on CLOCK_BOOTTIME alone.
"""

from __future__ import annotations

from typing import Final

COUNTER_BITS: Final = 16
MERGE_AHEAD_MS: Final = 5_000
"""A peer may pull this clock ahead of its own time by so much and no further."""
RESERVE_MS: Final = 10_000
"""Stamps are reserved in the journal so far ahead of time: one small write each 5 to 10 s."""
AHEAD_RESERVE_MS: Final = 10
"""While this clock runs ahead of its device's time (it resumed above a bound, or merged) stamps grow by counting
alone, and so little is reserved: a node that restarts again and again must not run away into the future."""
MAX_STAMP: Final = (1 << 63) - 1
"""Stamps travel in 8 bytes and are compared as signed numbers by careless readers."""


def stamp_wall_s(stamp: int) -> float:
    """The wall time that a stamp says, in seconds since 1970."""
    return (stamp >> COUNTER_BITS) / 1000


class HybridClock:
    """Strictly growing stamps, across restarts too.

    Args:
        wall_at_zero_s: wall time when CLOCK_BOOTTIME was zero: `wall_s() - boot_s()`, read once.
        resume_above: the bound that the journal holds from the last life; 0 in the first.
    """

    __slots__ = ("_last", "_reserved", "_wall_at_zero_ms")

    def __init__(self, *, wall_at_zero_s: float, resume_above: int = 0) -> None:
        self._wall_at_zero_ms = wall_at_zero_s * 1000
        self._last = min(max(0, resume_above), MAX_STAMP)
        self._reserved = self._last

    def physical(self, boot_s: float) -> int:
        """The device's time as a stamp, without what was reserved or merged ahead of it."""
        return min(max(0, int(self._wall_at_zero_ms + boot_s * 1000)) << COUNTER_BITS, MAX_STAMP)

    @property
    def latest(self) -> int:
        """The highest stamp given out or merged."""
        return self._last

    def stamp(self, boot_s: float) -> int:
        """A stamp above all earlier ones. An overfull counter runs on into the milliseconds."""
        self._last = min(max(self._last + 1, self.physical(boot_s)), MAX_STAMP)
        return self._last

    def merge(self, stamp: int, boot_s: float) -> bool:
        """Take note of a received stamp; what follows is above it. False: too far ahead, ignored."""
        if stamp > self.physical(boot_s) + (MERGE_AHEAD_MS << COUNTER_BITS):
            return False
        self._last = max(self._last, stamp)
        return True

    def bound_to_persist(self, boot_s: float) -> int | None:
        """A bound that must be durable before the next stamp leaves, or None where the durable one still does.

        Pass it to `resume_above` after a restart. Call it once a tick, after the tick's stamps were drawn.
        """
        physical = self.physical(boot_s)
        room = (RESERVE_MS if physical >= self._last else AHEAD_RESERVE_MS) << COUNTER_BITS
        if self._last + room // 2 <= self._reserved:
            return None
        self._reserved = min(max(self._last, physical) + room, MAX_STAMP)
        return self._reserved
