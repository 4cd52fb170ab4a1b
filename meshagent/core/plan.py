"""What a robot has committed to, in order, and what one more task would add to it.

A plan is a value: stops in the order they will be done, seen from where the body stands now. `insertion` tries every
place in the order and takes the cheapest (cheapest insertion, the bid of DESIGN 6); it never reorders what is
promised. Work without a place does not move the body and runs beside the rest, at most `parallel` at once.

Seconds and metres inside; the milliseconds of a bid are cut by `to_ms` at the edge.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from meshagent.core.travel import Body, Point, Travel
from meshagent.types import Epoch, TaskId

MAX_MS: Final = 2**40
"""34 years: prices above are infeasible, and the scores of clearing stay small integers."""


@dataclass(frozen=True, slots=True)
class Stop:
    """One contract in the plan."""

    task: TaskId
    epoch: Epoch
    duration_s: float
    place: Point | None = None
    label: str = ""
    """Site or kind, for sentences."""
    memory_mib: int = 0
    cores: float = 0.0


@dataclass(frozen=True, slots=True)
class Insertion:
    """Where a task would go and what it would cost."""

    index: int
    added_s: float
    """Growth of the plan, travel included; the marginal cost."""
    load_s: float
    """Length of the plan without the task."""
    start_s: float
    """Seconds from now until work on the spot could begin."""
    finish_s: float
    """Seconds from now until it would be done."""
    travel_s: float
    """Growth of the time spent moving."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Committed stops. `version` grows with every change, so that a bid says what it was computed on."""

    stops: tuple[Stop, ...] = ()
    version: int = 0
    locked: int = 0
    """So many stops at the front are being worked on; nothing is put before them."""

    def with_stop(self, stop: Stop, index: int) -> Plan:
        """This plan with `stop` at `index`."""
        return Plan((*self.stops[:index], stop, *self.stops[index:]), self.version + 1, self.locked)

    def without(self, task: TaskId, epoch: Epoch | None = None) -> Plan:
        """This plan without `task` (under `epoch` alone where given); itself when nothing matches."""
        if not self.stops:
            return self
        kept = tuple(s for s in self.stops if s.task != task or (epoch is not None and s.epoch != epoch))
        if len(kept) == len(self.stops):
            return self
        front = sum(1 for stop in self.stops[: self.locked] if stop in kept)
        return Plan(kept, self.version + 1, front)

    def started(self, task: TaskId) -> Plan:
        """This plan with `task` moved to the front and locked there: it is being worked on."""
        for index, stop in enumerate(self.stops):
            if stop.task == task:
                if index < self.locked:
                    return self
                rest = (*self.stops[:index], *self.stops[index + 1 :])
                stops = (*rest[: self.locked], stop, *rest[self.locked :])
                version = self.version + (stops != self.stops)
                return Plan(stops, version, self.locked + 1)
        return self


@dataclass(frozen=True, slots=True)
class Outlook:
    """How a plan plays out from here, were it carried out now."""

    load_s: float
    travel_s: float
    stand_s: float
    ends_at: Point


class Planner:
    """Prices plans for one body on one map."""

    def __init__(self, travel: Travel, body: Body, parallel: int = 1) -> None:
        self._travel = travel
        self._body = body
        self._parallel = max(1, parallel)

    @property
    def travel(self) -> Travel:
        """Distances on this map."""
        return self._travel

    @property
    def body(self) -> Body:
        """What moves."""
        return self._body

    def leg_s(self, start: Point, goal: Point) -> float:
        """Seconds from `start` to `goal`; infinite when there is no way."""
        return self._body.travel_s(self._travel.distance_m(start, goal))

    def outlook(self, plan: Plan, here: Point, elapsed_s: Callable[[Stop], float] = lambda _stop: 0.0) -> Outlook:
        """Length of `plan` from `here`; `elapsed_s` of a stop's duration has been worked off already."""
        travel_s = stand_s = beside_s = 0.0
        spot = here
        for stop in plan.stops:
            left_s = max(0.0, stop.duration_s - elapsed_s(stop))
            if stop.place is None:
                beside_s += left_s
                continue
            travel_s += self.leg_s(spot, stop.place)
            stand_s += left_s
            spot = stop.place
        load_s = max(travel_s + stand_s, 0.0) + beside_s / self._parallel
        return Outlook(load_s, travel_s, stand_s, spot)

    def insertion(
        self,
        plan: Plan,
        here: Point,
        place: Point | None,
        duration_s: float,
        elapsed_s: Callable[[Stop], float] = lambda _stop: 0.0,
    ) -> Insertion:
        """The cheapest place for one more task; `added_s` is infinite when it cannot be reached."""
        if not plan.stops:  # the idle robot, asked most often
            if place is None:
                return Insertion(0, duration_s / self._parallel, 0.0, 0.0, duration_s, 0.0)
            to_s = self.leg_s(here, place)
            return Insertion(0, to_s + duration_s, 0.0, to_s, to_s + duration_s, to_s)
        load_s = self.outlook(plan, here, elapsed_s).load_s
        if place is None:
            beside = [max(0.0, s.duration_s - elapsed_s(s)) for s in plan.stops if s.place is None]
            start_s = sum(beside) / self._parallel if len(beside) >= self._parallel else 0.0
            added_s = duration_s / self._parallel
            return Insertion(len(plan.stops), added_s, load_s, start_s, start_s + duration_s, 0.0)
        best: Insertion | None = None
        spot, clock_s = here, 0.0
        for index in range(len(plan.stops) + 1):
            if index >= plan.locked:
                following = next((s.place for s in plan.stops[index:] if s.place is not None), None)
                to_s = self.leg_s(spot, place)
                onward_s = 0.0 if following is None else self.leg_s(place, following)
                spared_s = 0.0 if following is None else self.leg_s(spot, following)
                # never negative, though a clearance corner may bend the triangle inequality by a hair
                detour_s = max(0.0, to_s + onward_s - spared_s) if math.isfinite(to_s + spared_s) else math.inf
                added_s = detour_s + duration_s
                if best is None or added_s < best.added_s:
                    start_s = clock_s + to_s
                    best = Insertion(index, added_s, load_s, start_s, start_s + duration_s, detour_s)
            if index < len(plan.stops):
                stop = plan.stops[index]
                if stop.place is not None:
                    clock_s += self.leg_s(spot, stop.place) + max(0.0, stop.duration_s - elapsed_s(stop))
                    spot = stop.place
        assert best is not None  # the end of the plan is always tried
        return best

    def soc_at_home(
        self,
        plan: Plan,
        here: Point,
        soc: float,
        elapsed_s: Callable[[Stop], float] = lambda _stop: 0.0,
    ) -> float:
        """Battery left (may be negative) after `plan` and the way from its end to the nearest charger.

        Where no charger is known the way home is the way back to where the body stands now.
        """
        outlook = self.outlook(plan, here, elapsed_s)
        charger = self._travel.nearest_charger(outlook.ends_at)
        home_m = charger[1] if charger is not None else self._travel.distance_m(outlook.ends_at, here)
        move_s = outlook.travel_s + self._body.travel_s(home_m)
        return soc - self._body.soc_spent(move_s, outlook.stand_s)


def to_ms(seconds: float) -> int:
    """Whole milliseconds of a duration, never negative, bounded; the exact integers that clearing compares."""
    if not math.isfinite(seconds) or seconds * 1000 >= MAX_MS:
        return MAX_MS
    return max(0, round(seconds * 1000))
