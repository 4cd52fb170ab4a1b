"""Ways around walls and areas, as a table of situations."""

from __future__ import annotations

import math
import random

import pytest

from meshagent.core.travel import Body, Charger, NoGo, NoWay, Point, SiteMap, Travel, Wall, Way
from meshagent.errors import ConfigurationError

SQUARE = ((4.0, 4.0), (6.0, 4.0), (6.0, 6.0), (4.0, 6.0))
ROOM = (
    Wall((0.0, 0.0), (10.0, 0.0)),
    Wall((10.0, 0.0), (10.0, 10.0)),
    Wall((10.0, 10.0), (0.0, 10.0)),
    Wall((0.0, 10.0), (0.0, 0.0)),
)


def length(travel: Travel, start: Point, goal: Point) -> float:
    way = travel.way(start, goal)
    assert isinstance(way, Way), way
    return way.length_m


@pytest.mark.parametrize(
    ("site_map", "start", "goal", "shortest_m"),
    [
        (SiteMap(), (0, 0), (3, 4), 5.0),
        (SiteMap(), (2, 2), (2, 2), 0.0),
        (SiteMap(walls=(Wall((5, -1), (5, 3)),)), (0, 0), (10, 0), 2 * math.hypot(5, 1)),  # round the near end
        (SiteMap(walls=(Wall((5, 1), (5, 3)),)), (0, 0), (10, 0), 10.0),  # passes below it
        (SiteMap(no_go=(NoGo("press", SQUARE),)), (5, 0), (5, 10), math.hypot(1, 4) * 2 + 2),
    ],
)
def test_way_is_as_long_as_the_corners_say(site_map: SiteMap, start: Point, goal: Point, shortest_m: float) -> None:
    found = length(Travel(site_map), start, goal)
    assert shortest_m - 1e-9 <= found <= shortest_m + 1.0  # the clearance costs at most some decimetres


def test_a_closed_room_is_unreachable_and_says_so() -> None:
    way = Travel(SiteMap(walls=ROOM)).way((20, 5), (5, 5))
    assert way == NoWay("walls close every way")


def test_walls_that_meet_leave_no_gap() -> None:
    travel = Travel(SiteMap(walls=ROOM))
    assert math.isinf(travel.distance_m((-1.0, -1.0), (1.0, 1.0)))  # straight through the corner


def test_an_area_that_closes_the_only_door_is_named() -> None:
    door = (Wall((0.0, 10.0), (0.0, 6.0)), Wall((0.0, 4.0), (0.0, 0.0)))
    stairs = NoGo("stairs at gate-2", ((-1.0, 3.0), (1.0, 3.0), (1.0, 7.0), (-1.0, 7.0)), unless=frozenset({"legs"}))
    site_map = SiteMap(walls=ROOM[:3] + door, no_go=(stairs,))
    assert Travel(site_map).way((-5, 5), (5, 5)) == NoWay("stairs at gate-2")
    assert length(Travel(site_map, {"legs"}), (-5, 5), (5, 5)) == pytest.approx(10.0)


def test_a_site_inside_an_area_is_unreachable() -> None:
    assert Travel(SiteMap(no_go=(NoGo("press", SQUARE),))).way((0, 0), (5, 5)) == NoWay("it lies inside press")


def test_a_body_inside_an_area_is_told_so() -> None:
    travel = Travel(SiteMap(no_go=(NoGo("press", SQUARE),)))
    assert travel.way((5, 5), (0, 0)) == NoWay("this body stands inside press")


def test_the_nearest_charger_is_the_one_with_the_shortest_way() -> None:
    site_map = SiteMap(walls=(Wall((1, -50), (1, 50)),), chargers=(Charger((2, 0)), Charger((-20, 0))))
    found = Travel(site_map).nearest_charger((0, 0))
    assert found is not None
    assert found[0].at == (-20, 0)


def test_a_map_of_too_many_corners_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="corners"):
        SiteMap(walls=tuple(Wall((float(i), 0), (float(i), 1)) for i in range(200)))


def test_a_coordinate_that_is_no_number_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="finite"):
        SiteMap(sites={"pump-7": (math.nan, 0.0)})


def test_a_way_never_crosses_an_obstacle_and_is_never_shorter_than_the_crow() -> None:
    rng = random.Random(7)
    for _ in range(60):
        walls = tuple(
            Wall((rng.uniform(0, 20), rng.uniform(0, 20)), (rng.uniform(0, 20), rng.uniform(0, 20))) for _ in range(4)
        )
        travel = Travel(SiteMap(walls=walls))
        start, goal = (rng.uniform(0, 20), rng.uniform(0, 20)), (rng.uniform(0, 20), rng.uniform(0, 20))
        way = travel.way(start, goal)
        if isinstance(way, NoWay):
            continue
        assert way.length_m >= math.dist(start, goal) - 1e-9
        legs = list(zip(way.corners, way.corners[1:], strict=False))
        assert sum(math.dist(a, b) for a, b in legs) == pytest.approx(way.length_m)
        for a, b in legs:
            for step in range(101):  # sampled, independently of the segment test that found the way
                east = a[0] + (b[0] - a[0]) * step / 100
                north = a[1] + (b[1] - a[1]) * step / 100
                before = a[0] + (b[0] - a[0]) * (step - 1) / 100, a[1] + (b[1] - a[1]) * (step - 1) / 100
                for wall in walls:
                    assert step == 0 or not _between(before, (east, north), wall)


def _between(one: Point, two: Point, wall: Wall) -> bool:
    """Do the points lie strictly on both sides of the wall's line, with the crossing inside the wall?"""
    (ax, ay), (bx, by) = wall.start, wall.end
    d1 = (bx - ax) * (one[1] - ay) - (by - ay) * (one[0] - ax)
    d2 = (bx - ax) * (two[1] - ay) - (by - ay) * (two[0] - ax)
    if d1 * d2 >= -1e-9:
        return False
    share = d1 / (d1 - d2)
    x, y = one[0] + share * (two[0] - one[0]), one[1] + share * (two[1] - one[1])
    along = ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / ((bx - ax) ** 2 + (by - ay) ** 2)
    return 0 < along < 1


@pytest.mark.parametrize(("distance_m", "seconds"), [(0.0, 0.0), (14.0, 10.0)])
def test_travel_takes_distance_over_speed(distance_m: float, seconds: float) -> None:
    assert Body(speed_mps=1.4).travel_s(distance_m) == pytest.approx(seconds)


def test_a_body_that_does_not_move_arrives_nowhere_else() -> None:
    assert Body().travel_s(0.0) == 0.0
    assert math.isinf(Body().travel_s(0.1))


def test_energy_is_power_times_time_over_a_full_battery() -> None:
    body = Body(speed_mps=1.4, move_w=220, idle_w=45, battery_wh=600)
    assert body.soc_spent(3600, 1800) == pytest.approx((220 + 22.5) / 600)
    assert Body().soc_spent(3600, 3600) == 0.0


@pytest.mark.parametrize("speed", [-1.0, math.nan, math.inf])
def test_a_speed_that_is_no_speed_is_refused(speed: float) -> None:
    with pytest.raises(ConfigurationError, match="speed_mps"):
        Body(speed_mps=speed)
