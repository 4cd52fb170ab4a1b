"""A world for drivers: time that the test moves, a flat map."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from meshagent import Place, Site
from meshagent.devices.drivers import Point


class FlatWorld:
    """`Surroundings` on the loop's own time."""

    def __init__(self) -> None:
        self.rng = Random(7)
        self.clock_s = 0.0
        self.here: Point = (0.0, 0.0)
        self.sites: dict[str, Point] = {"pump-7": (3.0, 4.0)}
        self.walled = False
        self.passed: list[Point] = []

    def now_s(self) -> float:
        return self.clock_s

    def position_m(self) -> Point:
        return self.here

    def moved_to(self, position_m: Point) -> None:
        self.here = position_m
        self.passed.append(position_m)

    def locate(self, place: Place) -> Point | None:
        return self.sites.get(place.name) if isinstance(place, Site) else (place.x_m, place.y_m)

    def way(self, start_m: Point, goal_m: Point) -> Sequence[Point]:
        return () if self.walled else (start_m, (start_m[0], goal_m[1]), goal_m)
