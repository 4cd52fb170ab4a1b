"""How far a place is for this body: straight lines, shortest ways around walls and no-go areas, battery spent.

Plane geometry in metres of one map frame (ENU). The way around obstacles is the shortest path in the visibility
graph whose corners stand `CLEARANCE_M` off each obstacle, so that a path never grazes what it passes. Everything is
a pure function of the map; `Travel` only remembers distances it has computed.

Absent on purpose: motion planning (the body's own navigation does that) and time of day.

Source: Lozano-Perez, Wesley, "An algorithm for planning collision-free paths" (1979): the shortest way in the plane
goes from corner to corner.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from meshagent.errors import ConfigurationError

Point = tuple[float, float]
"""Metres east and north in the map frame."""

CLEARANCE_M: Final = 0.3
"""How far a way keeps from the corners it passes: half the width of a quadruped."""
MAX_CORNERS: Final = 400
"""A visibility graph costs corners^2 * edges; past this a map wants a real planner, so it is refused when loaded."""
MAX_REMEMBERED: Final = 4096
"""Distances kept by one `Travel`; a plan of 64 stops asks for some 200."""


@dataclass(frozen=True, slots=True)
class Wall:
    """A segment that nobody passes."""

    start: Point
    end: Point


@dataclass(frozen=True, slots=True)
class NoGo:
    """An area that only bodies with one of `unless` may enter (stairs: legs)."""

    name: str
    polygon: tuple[Point, ...]
    unless: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Charger:
    """Where a battery is filled."""

    at: Point
    power_w: float = 0.0


@dataclass(frozen=True, slots=True)
class SiteMap:
    """What a node knows of the world it moves in."""

    sites: Mapping[str, Point] = field(default_factory=dict)
    walls: tuple[Wall, ...] = ()
    no_go: tuple[NoGo, ...] = ()
    chargers: tuple[Charger, ...] = ()
    unplaced: Point | None = (0.0, 0.0)
    """Where sites lie that nobody placed; None: they are refused."""

    def __post_init__(self) -> None:
        corners = 3 * 2 * len(self.walls) + sum(len(area.polygon) for area in self.no_go)
        if corners > MAX_CORNERS:
            raise ConfigurationError(
                f"the map has {corners} corners to walk around, at most {MAX_CORNERS} are searched",
                next_step="simplify walls and no-go polygons",
            )
        for area in self.no_go:
            if len(area.polygon) < 3:
                raise ConfigurationError(
                    f"no-go area {area.name!r} has {len(area.polygon)} points", next_step="give at least 3"
                )
        points = [*self.sites.values(), *(p for w in self.walls for p in (w.start, w.end))]
        points += [p for a in self.no_go for p in a.polygon] + [c.at for c in self.chargers]
        if not all(math.isfinite(x) and math.isfinite(y) for x, y in points):
            raise ConfigurationError("the map holds a coordinate that is not a finite number", next_step="correct it")

    def locate(self, site: str) -> Point | None:
        """Where `site` is; None when it is not on the map and nothing stands in for it."""
        return self.sites.get(site, self.unplaced)


@dataclass(frozen=True, slots=True)
class Way:
    """A way that exists."""

    length_m: float
    corners: tuple[Point, ...]
    """Points walked through, the ends included."""


@dataclass(frozen=True, slots=True)
class NoWay:
    """There is none, and what closes it."""

    because: str


class Travel:
    """Distances for one body on one map."""

    def __init__(self, site_map: SiteMap, capabilities: Iterable[str] = ()) -> None:
        able = frozenset(capabilities)
        self._map = site_map
        self._areas = tuple(area for area in site_map.no_go if not (area.unless & able))
        self._edges = _edges(site_map.walls, self._areas)
        self._corners = _corners(site_map.walls, self._areas)
        self._known: OrderedDict[tuple[Point, Point], Way | NoWay] = OrderedDict()

    @property
    def site_map(self) -> SiteMap:
        """The map this was made from."""
        return self._map

    def way(self, start: Point, goal: Point) -> Way | NoWay:
        """The shortest way, or why there is none."""
        known = self._known.get((start, goal))
        if known is not None:
            self._known.move_to_end((start, goal))
            return known
        found = self._search(start, goal)
        self._known[(start, goal)] = found
        if len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)
        return found

    def distance_m(self, start: Point, goal: Point) -> float:
        """Length of the shortest way; infinite when there is none."""
        if not self._edges:
            return math.dist(start, goal)
        found = self.way(start, goal)
        return found.length_m if isinstance(found, Way) else math.inf

    def nearest_charger(self, start: Point) -> tuple[Charger, float] | None:
        """The charger with the shortest way from `start` and its distance; None: there is none to be reached."""
        best: tuple[Charger, float] | None = None
        for charger in self._map.chargers:
            length = self.distance_m(start, charger.at)
            if math.isfinite(length) and (best is None or length < best[1]):
                best = (charger, length)
        return best

    def _search(self, start: Point, goal: Point) -> Way | NoWay:
        for area in self._areas:
            if _inside(goal, area.polygon):
                return NoWay(f"it lies inside {area.name}")
            if _inside(start, area.polygon):
                return NoWay(f"this body stands inside {area.name}")
        found = _shortest(start, goal, self._corners, self._edges)
        return found if found is not None else NoWay(self._blame(start, goal))

    def _blame(self, start: Point, goal: Point) -> str:
        """Name the areas of which removing one alone would open a way; else everything that stands around."""
        guilty = []
        for area in self._areas:
            others = tuple(other for other in self._areas if other is not area)
            edges, corners = _edges(self._map.walls, others), _corners(self._map.walls, others)
            if _shortest(start, goal, corners, edges) is not None:
                guilty.append(area.name)
        if guilty:
            return " and ".join(guilty)
        return "walls and no-go areas close every way" if self._areas else "walls close every way"


@dataclass(frozen=True, slots=True)
class Body:
    """How this device moves and what it spends; a device that does not move has speed 0."""

    speed_mps: float = 0.0
    move_w: float = 0.0
    """Power while moving, everything included."""
    idle_w: float = 0.0
    """Power while standing or working on the spot."""
    battery_wh: float = 0.0
    """Usable energy of a full battery; 0: mains, or nobody told."""

    def __post_init__(self) -> None:
        for name in ("speed_mps", "move_w", "idle_w", "battery_wh"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigurationError(f"body.{name} is {value!r}", next_step="give a finite number, at least 0")

    def travel_s(self, distance_m: float) -> float:
        """Seconds for `distance_m`; a body that does not move never arrives anywhere else."""
        if distance_m <= 0:
            return 0.0
        return distance_m / self.speed_mps if self.speed_mps > 0 else math.inf

    def soc_spent(self, move_s: float, stand_s: float) -> float:
        """Share of a full battery that moving and standing so long costs; 0 without a battery."""
        if self.battery_wh <= 0:
            return 0.0
        return (move_s * self.move_w + stand_s * self.idle_w) / 3600.0 / self.battery_wh


Segment = tuple[Point, Point]


def _edges(walls: Iterable[Wall], areas: Iterable[NoGo]) -> tuple[Segment, ...]:
    edges = [(wall.start, wall.end) for wall in walls]
    for area in areas:
        edges += list(zip(area.polygon, (*area.polygon[1:], area.polygon[0]), strict=True))
    return tuple(edges)


def _corners(walls: Iterable[Wall], areas: Sequence[NoGo]) -> tuple[Point, ...]:
    """Points a little off each corner where a shortest way may turn."""
    corners: list[Point] = []
    for wall in walls:
        for tip, other in ((wall.start, wall.end), (wall.end, wall.start)):
            along = _unit(tip[0] - other[0], tip[1] - other[1])
            for turn in (0.0, math.pi / 4, -math.pi / 4):
                east, north = _turned(along, turn)
                corners.append((tip[0] + CLEARANCE_M * east, tip[1] + CLEARANCE_M * north))
    for area in areas:
        count = len(area.polygon)
        for index, corner in enumerate(area.polygon):
            before, after = area.polygon[index - 1], area.polygon[(index + 1) % count]
            one, two = (
                _unit(corner[0] - before[0], corner[1] - before[1]),
                _unit(corner[0] - after[0], corner[1] - after[1]),
            )
            out = _unit(one[0] + two[0], one[1] + two[1])
            point = (corner[0] + CLEARANCE_M * out[0], corner[1] + CLEARANCE_M * out[1])
            if not any(_inside(point, other.polygon) for other in areas):
                corners.append(point)  # at a reflex corner this lies inside; no shortest way turns there
    return tuple(corners)


def _shortest(start: Point, goal: Point, corners: Sequence[Point], edges: Sequence[Segment]) -> Way | None:
    """A* over the visibility graph, edges tested when a point is taken."""
    if start == goal:
        return Way(0.0, (start, goal))
    if _free(start, goal, edges):
        return Way(math.dist(start, goal), (start, goal))
    points = (goal, *corners)
    came: dict[int, int] = {}
    best: dict[int, float] = {-1: 0.0}
    queue: list[tuple[float, int]] = [(math.dist(start, goal), -1)]
    done: set[int] = set()
    while queue:
        _, here = heapq.heappop(queue)
        if here == 0:
            return _walked_back(start, points, came, best[0])
        if here in done:
            continue
        done.add(here)
        spot = start if here < 0 else points[here]
        for index, point in enumerate(points):
            if index in done:
                continue
            length = best[here] + math.dist(spot, point)
            if length < best.get(index, math.inf) and _free(spot, point, edges):
                best[index], came[index] = length, here
                heapq.heappush(queue, (length + math.dist(point, goal), index))
    return None


def _walked_back(start: Point, points: Sequence[Point], came: Mapping[int, int], length: float) -> Way:
    path, here = [points[0]], came[0]
    while here >= 0:
        path.append(points[here])
        here = came[here]
    return Way(length, (start, *reversed(path)))


def _free(one: Point, two: Point, edges: Sequence[Segment]) -> bool:
    return not any(_touch(one, two, start, end) for start, end in edges)


def _touch(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Do the closed segments a-b and c-d share a point? Touching counts: two walls that meet leave no gap."""
    if max(a[0], b[0]) < min(c[0], d[0]) or max(c[0], d[0]) < min(a[0], b[0]):
        return False
    if max(a[1], b[1]) < min(c[1], d[1]) or max(c[1], d[1]) < min(a[1], b[1]):
        return False
    return _side(a, b, c) * _side(a, b, d) <= 0 and _side(c, d, a) * _side(c, d, b) <= 0


def _side(a: Point, b: Point, p: Point) -> float:
    cross = (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0])
    return math.copysign(1.0, cross) if abs(cross) > 1e-12 else 0.0


def _inside(point: Point, polygon: Sequence[Point]) -> bool:
    """Even-odd rule; the border may count either way."""
    east, north = point
    inside = False
    before = polygon[-1]
    for corner in polygon:
        if (corner[1] > north) != (before[1] > north):
            crossing = (before[0] - corner[0]) * (north - corner[1]) / (before[1] - corner[1]) + corner[0]
            inside ^= east < crossing
        before = corner
    return inside


def _unit(east: float, north: float) -> Point:
    length = math.hypot(east, north)
    return (east / length, north / length) if length > 0 else (0.0, 0.0)


def _turned(direction: Point, angle_rad: float) -> Point:
    cos, sin = math.cos(angle_rad), math.sin(angle_rad)
    return (direction[0] * cos - direction[1] * sin, direction[0] * sin + direction[1] * cos)
