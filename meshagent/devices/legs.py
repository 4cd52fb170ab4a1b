"""Legs that walk to a place, and legs that only pretend to."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from meshagent.devices.drivers import ActuatorDriver, DeviceStoppedError, DriverSetup, Point
from meshagent.errors import MeshAgentError
from meshagent.sdk.place import Place

ARRIVED_M: Final = 0.001
"""A millimetre is nothing to legs; without it rounding can leave a rest so short that no clock sees it pass."""


class UnreachableError(MeshAgentError):
    """There is no way there from here."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Part of a walk that is behind us."""

    share: float
    """Of the whole walk, 0 to 1."""
    left_m: float
    position_m: Point


class Legs(ActuatorDriver[Any]):
    """A body that walks. Drivers of real ones subclass this."""

    def walk_to(self, place: Place) -> AsyncIterator[Stretch]:
        """Walk there; gives a stretch now and then, the last one with share 1.

        Raises:
            UnreachableError: no way, or the place is not on the map.
            DeviceStoppedError: stopped on the way.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class SimulatedLegsOptions:
    """`[actuators.legs] options`."""

    speed_mps: float = 1.4
    """A quadruped's brisk walk."""
    step_s: float = 0.25
    """Time between stretches."""

    def __post_init__(self) -> None:
        if self.speed_mps <= 0 or self.step_s <= 0:
            raise ValueError("speed_mps and step_s are more than 0")


class SimulatedLegs(Legs):
    """Legs without a body: they take as long as walking would, and tell the node where they are."""

    options_type: ClassVar[type] = SimulatedLegsOptions

    def __init__(self, setup: DriverSetup) -> None:
        super().__init__(setup)
        self._walk = 0

    def stop(self) -> None:
        """Stand still; a walk that is under way ends with an error."""
        self._walk += 1

    async def walk_to(self, place: Place) -> AsyncIterator[Stretch]:
        """Walk the map's shortest way at `speed_mps`."""
        around = self.setup.surroundings
        goal = around.locate(place)
        if goal is None:
            raise UnreachableError(f"{place} is not on the map of this device")
        corners = around.way(around.position_m(), goal)
        if not corners:
            raise UnreachableError(f"there is no way to {place}")
        self._walk += 1
        mine = self._walk
        whole_m = sum(math.dist(one, two) for one, two in itertools.pairwise(corners))
        speed_mps, step_s = float(self.options.speed_mps), float(self.options.step_s)
        done_m, at_s = 0.0, around.now_s()
        while whole_m - done_m > ARRIVED_M:
            await asyncio.sleep(min(step_s, (whole_m - done_m) / speed_mps))
            if self._walk != mine:
                raise DeviceStoppedError(f"stopped {whole_m - done_m:.1f} m before {place}")
            now_s = around.now_s()
            # a process that was suspended wakes with hours on its clock; nobody held these legs up meanwhile
            done_m = min(whole_m, done_m + speed_mps * min(max(now_s - at_s, 0.0), 2 * step_s))
            at_s = now_s
            spot = _along(corners, done_m)
            around.moved_to(spot)
            if whole_m - done_m > ARRIVED_M:
                yield Stretch(done_m / whole_m, whole_m - done_m, spot)
        around.moved_to(goal)
        yield Stretch(1.0, 0.0, goal)


def _along(corners: Sequence[Point], distance_m: float) -> Point:
    left_m = distance_m
    for one, two in itertools.pairwise(corners):
        length = math.dist(one, two)
        if left_m <= length and length > 0:
            share = left_m / length
            return (one[0] + share * (two[0] - one[0]), one[1] + share * (two[1] - one[1]))
        left_m -= length
    return corners[-1]
