"""A device's clocks: CLOCK_BOOTTIME that drifts, CLOCK_MONOTONIC that stops in suspension, a wall clock that lies.

All three are functions of the world's time. A process that is stalled in the middle of a callback reads its own,
later, time (`VirtualClock.now_s`): see `Process.stall`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

WALL_BASE_S: Final = 1_800_000_000.0
"""Wall time of a device with a right clock when the world starts; inside the validity of the pooled credentials."""
BOOTED_BEFORE_S: Final = 100.0
"""A device has been up for so long when the world starts."""


@dataclass(slots=True)
class Hardware:
    """What a device's crystal and battery-backed clock do; survives the process, not always a power cut."""

    rate: float = 1.0
    """Local seconds a second of the world; rho of the contract is 0.03."""
    wall_offset_s: float = 0.0
    booted_at_s: float = -BOOTED_BEFORE_S
    """World time of the device's boot: CLOCK_BOOTTIME counts from there."""
    suspended_s: float = 0.0
    """World seconds spent suspended since that boot: CLOCK_MONOTONIC leaves them out."""

    def boot_s(self, world_s: float) -> float:
        """CLOCK_BOOTTIME at `world_s`."""
        return (world_s - self.booted_at_s) * self.rate

    def monotonic_s(self, world_s: float) -> float:
        """CLOCK_MONOTONIC at `world_s`."""
        return (world_s - self.booted_at_s - self.suspended_s) * self.rate

    def world_of_monotonic(self, monotonic_s: float) -> float:
        """When CLOCK_MONOTONIC will read `monotonic_s`, if the device is not suspended until then."""
        return monotonic_s / self.rate + self.booted_at_s + self.suspended_s

    def wall_s(self, world_s: float) -> float:
        """Seconds since 1970, as this device believes."""
        return WALL_BASE_S + world_s * self.rate + self.wall_offset_s

    def reboot(self, world_s: float) -> None:
        """Power came back: CLOCK_BOOTTIME starts again."""
        self.booted_at_s = world_s
        self.suspended_s = 0.0


class VirtualClock:
    """`core.ports.Clock` of one process."""

    def __init__(self, hardware: Hardware, now_s: Callable[[], float]) -> None:
        self._hardware = hardware
        self._now_s = now_s

    def boot_s(self) -> float:
        return self._hardware.boot_s(self._now_s())

    def wall_s(self) -> float:
        return self._hardware.wall_s(self._now_s())
