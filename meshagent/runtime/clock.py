"""The clocks of a real device. Everything else takes `core.ports.Clock`, so that virtual time can stand in."""

from __future__ import annotations

import time
from typing import Final

_BOOT_CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Linux counts suspension in CLOCK_BOOTTIME alone; elsewhere CLOCK_MONOTONIC is what there is."""


class SystemClock:
    """CLOCK_BOOTTIME and CLOCK_REALTIME of this device."""

    __slots__ = ()

    def boot_s(self) -> float:
        return time.clock_gettime(_BOOT_CLOCK)

    def wall_s(self) -> float:
        return time.clock_gettime(time.CLOCK_REALTIME)
