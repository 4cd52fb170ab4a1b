"""What this device has, and what contracts have reserved of it.

Detected once at start: cores, memory, battery, free disk. A capacity given in the configuration promises less. What a
contract reserves counts until it ends, and a bid that would overcommit is refused (DESIGN 7).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from meshagent.types import TaskId

SHARE_FOR_OTHERS: Final = 0.25
"""Of detected memory a quarter stays with the system and this node (SURFACE 6, resources.memory_mib)."""
POWER_SUPPLY: Final = Path("/sys/class/power_supply")


class Battery(Protocol):
    """Where the state of charge comes from."""

    def soc(self) -> float | None:
        """0 to 1; None: mains or unknown."""


@dataclass(slots=True)
class GivenBattery:
    """A state of charge that somebody sets: a driver, a test, the simulator."""

    value: float | None = None

    def soc(self) -> float | None:
        return self.value


@dataclass(frozen=True, slots=True)
class SystemBattery:
    """The battery that Linux shows under /sys/class/power_supply."""

    folder: Path = POWER_SUPPLY

    def soc(self) -> float | None:
        try:
            supplies = sorted(self.folder.iterdir())
        except OSError:
            return None
        for supply in supplies:
            try:
                if (supply / "type").read_text("ascii").strip() != "Battery":
                    continue
                percent = float((supply / "capacity").read_text("ascii"))
            except (OSError, ValueError):
                continue
            if 0.0 <= percent <= 100.0:
                return percent / 100.0
        return None


class RememberedBattery:
    """Reads another one at most every `every_s`: a file of the kernel costs more than a bid."""

    def __init__(self, battery: Battery, now_s: Callable[[], float], every_s: float = 2.0) -> None:
        self._battery = battery
        self._now_s = now_s
        self._every_s = every_s
        self._read_s = -every_s
        self._soc: float | None = None

    def soc(self) -> float | None:
        now_s = self._now_s()
        if now_s - self._read_s >= self._every_s:
            self._read_s = now_s
            self._soc = self._battery.soc()
        return self._soc


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What contracts may reserve altogether."""

    cores: float
    memory_mib: int
    disk_free_mib: int | None = None


def detect(folder: Path | None = None, *, memory_mib: int = 0) -> Capacity:
    """Cores this process may run on, memory (three quarters of it, or `memory_mib`), free disk under `folder`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if memory_mib <= 0:
        memory_mib = int(_memory_bytes() * (1 - SHARE_FOR_OTHERS)) // 2**20
    disk = None
    if folder is not None:
        try:
            disk = shutil.disk_usage(folder).free // 2**20
        except OSError:
            disk = None
    return Capacity(cores=float(cores), memory_mib=memory_mib, disk_free_mib=disk)


def _memory_bytes() -> int:
    """Physical memory, or the limit of our control group where that is lower."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        total = 2**30
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text("ascii").strip()
        if limit.isdigit():
            total = min(total, int(limit))
    except OSError:
        pass
    return total


@dataclass(frozen=True, slots=True)
class Demand:
    """What one contract reserves."""

    memory_mib: int = 0
    cores: float = 0.0


@dataclass(slots=True)
class Ledger:
    """Who has reserved what. Sums never exceed the capacity; `shortage` says why another one would not fit."""

    capacity: Capacity
    _held: dict[TaskId, Demand] = field(default_factory=dict)

    @property
    def memory_mib(self) -> int:
        """Reserved now."""
        return sum(demand.memory_mib for demand in self._held.values())

    @property
    def cores(self) -> float:
        """Reserved now."""
        return sum(demand.cores for demand in self._held.values())

    def shortage(self, demand: Demand, task: TaskId | None = None) -> str | None:
        """A sentence when `demand` does not fit beside what others hold; None: it does."""
        if not demand.memory_mib and not demand.cores:
            return None
        mine = self._held.get(task, Demand()) if task is not None else Demand()
        memory_mib, cores = self.memory_mib - mine.memory_mib, self.cores - mine.cores
        if demand.memory_mib > self.capacity.memory_mib - memory_mib:
            return (
                f"needs {demand.memory_mib} MiB of memory, "
                f"{max(0, self.capacity.memory_mib - memory_mib)} of {self.capacity.memory_mib} are free"
            )
        if demand.cores > self.capacity.cores - cores + 1e-9:
            free = max(0.0, self.capacity.cores - cores)
            return f"needs {demand.cores:g} cores, {free:g} of {self.capacity.cores:g} are free"
        return None

    def hold(self, task: TaskId, demand: Demand) -> None:
        """Reserve; a second time for one task replaces the first."""
        self._held[task] = demand

    def free(self, task: TaskId) -> None:
        """Give back; unknown tasks are ignored."""
        self._held.pop(task, None)
