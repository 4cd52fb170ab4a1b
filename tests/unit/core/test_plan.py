"""The cheapest insertion equals what trying every order of insertion by hand gives."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshagent.core.plan import MAX_MS, Plan, Planner, Stop, to_ms
from meshagent.core.travel import Body, Charger, NoGo, Point, SiteMap, Travel, Wall
from meshagent.types import Epoch, NodeId, TaskId

EPOCH = Epoch(1, NodeId("a" * 52), b"\0" * 16)
point = st.tuples(st.integers(-50, 50).map(float), st.integers(-50, 50).map(float))


def stop(name: str, place: Point | None, duration_s: float = 5.0) -> Stop:
    return Stop(TaskId(name), EPOCH, duration_s, place)


def planner(site_map: SiteMap | None = None, parallel: int = 1) -> Planner:
    body = Body(speed_mps=2.0, move_w=200, idle_w=50, battery_wh=100)
    return Planner(Travel(site_map or SiteMap()), body, parallel)


def by_hand_s(stops: list[tuple[Point, float]], here: Point) -> float:
    total, spot = 0.0, here
    for place, duration_s in stops:
        total += math.dist(spot, place) / 2.0 + duration_s
        spot = place
    return total


@given(
    st.lists(st.tuples(point, st.integers(0, 60).map(float)), max_size=6),
    point,
    point,
    st.integers(0, 60).map(float),
    st.integers(0, 2),
)
def test_insertion_equals_brute_force(
    stops: list[tuple[Point, float]], here: Point, place: Point, duration_s: float, locked: int
) -> None:
    locked = min(locked, len(stops))
    plan = Plan(tuple(stop(str(i), p, d) for i, (p, d) in enumerate(stops)), locked=locked)
    before_s = by_hand_s(stops, here)
    options = [
        by_hand_s([*stops[:i], (place, duration_s), *stops[i:]], here) - before_s for i in range(locked, len(stops) + 1)
    ]
    found = planner().insertion(plan, here, place, duration_s)
    assert found.added_s == pytest.approx(min(options), abs=1e-6)
    assert options[found.index - locked] == pytest.approx(min(options), abs=1e-6)
    assert found.load_s == pytest.approx(before_s, abs=1e-6)
    ahead = by_hand_s([*stops[: found.index], (place, duration_s)], here)
    assert found.finish_s == pytest.approx(ahead, abs=1e-6)


@given(st.lists(st.tuples(point, st.integers(0, 9).map(float)), max_size=5), point, point)
def test_the_plan_grows_by_exactly_what_was_bid(stops: list[tuple[Point, float]], here: Point, place: Point) -> None:
    prices = planner()
    plan = Plan(tuple(stop(str(i), p, d) for i, (p, d) in enumerate(stops)))
    found = prices.insertion(plan, here, place, 7.0)
    grown = plan.with_stop(stop("new", place, 7.0), found.index)
    assert prices.outlook(grown, here).load_s == pytest.approx(found.load_s + found.added_s, abs=1e-6)
    assert grown.without(TaskId("new")).stops == plan.stops


def test_an_unreachable_place_costs_infinity() -> None:
    ring = NoGo("ring", ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)))
    plan = Plan((stop("a", (9.0, 9.0)),))
    assert math.isinf(planner(SiteMap(no_go=(ring,))).insertion(plan, (5.0, 5.0), (0.0, 0.0), 1.0).added_s)


def test_a_plan_whose_next_stop_was_walled_in_prices_without_nan() -> None:
    ring = NoGo("ring", ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)))
    plan = Plan((stop("a", (0.0, 0.0)),))  # promised before the area was closed
    found = planner(SiteMap(no_go=(ring,))).insertion(plan, (5.0, 5.0), (6.0, 6.0), 1.0)
    assert not math.isnan(found.added_s)
    assert to_ms(found.added_s) == MAX_MS


def test_work_without_a_place_runs_beside_the_rest() -> None:
    plan = Plan((stop("walk", (100.0, 0.0), 30.0),))
    found = planner(parallel=2).insertion(plan, (0.0, 0.0), None, 4.0)
    assert (found.added_s, found.start_s, found.finish_s) == (2.0, 0.0, 4.0)


def test_work_without_a_place_waits_when_all_lanes_are_taken() -> None:
    plan = Plan((stop("a", None, 10.0), stop("b", None, 10.0)))
    assert planner(parallel=2).insertion(plan, (0.0, 0.0), None, 4.0).finish_s == 14.0


def test_elapsed_work_is_not_counted_again() -> None:
    plan = Plan((stop("a", (0.0, 0.0), 20.0),), locked=1)
    assert planner().outlook(plan, (0.0, 0.0), lambda _s: 15.0).load_s == pytest.approx(5.0)


def test_nothing_is_put_before_what_is_being_worked_on() -> None:
    plan = Plan((stop("a", (10.0, 0.0)), stop("b", (20.0, 0.0)))).started(TaskId("b"))
    assert [s.task for s in plan.stops] == ["b", "a"]
    assert plan.locked == 1
    assert planner().insertion(plan, (0.0, 0.0), (1.0, 0.0), 1.0).index >= 1


def test_every_change_is_a_new_version_and_no_change_is_none() -> None:
    plan = Plan().with_stop(stop("a", None), 0)
    assert plan.version == 1
    assert plan.without(TaskId("b")) is plan
    assert plan.without(TaskId("a"), Epoch(2, EPOCH.owner, EPOCH.boot)) is plan
    assert plan.without(TaskId("a"), EPOCH).version == 2


def test_removing_a_locked_stop_unlocks_it() -> None:
    plan = Plan((stop("a", None), stop("b", None)), locked=1)
    assert plan.without(TaskId("a")).locked == 0
    assert plan.without(TaskId("b")).locked == 1


def test_the_battery_pays_for_plan_and_way_home() -> None:
    site_map = SiteMap(chargers=(Charger((0.0, 40.0)),))
    plan = Plan((stop("a", (30.0, 0.0), 36.0),))
    left = planner(site_map).soc_at_home(plan, (0.0, 0.0), 0.5)
    move_s, stand_s = (30 + 50) / 2.0, 36.0  # out 30 m, home over the hypotenuse of 30 and 40
    assert left == pytest.approx(0.5 - (move_s * 200 + stand_s * 50) / 3600 / 100)


def test_without_a_charger_the_way_home_is_the_way_back() -> None:
    plan = Plan((stop("a", (30.0, 0.0), 0.0),))
    assert planner().soc_at_home(plan, (0.0, 0.0), 0.5) == pytest.approx(0.5 - 30.0 * 200 / 3600 / 100)


def test_a_way_home_around_a_wall_costs_its_whole_length() -> None:
    charger = (Charger((0.0, 0.0)),)
    wall = SiteMap(walls=(Wall((15.0, -20.0), (15.0, 20.0)),), chargers=charger)
    plan = Plan((stop("a", (30.0, 0.0), 0.0),))
    straight = planner(SiteMap(chargers=charger)).soc_at_home(plan, (30.0, 0.0), 0.5)
    around = planner(wall).soc_at_home(plan, (30.0, 0.0), 0.5)
    assert straight == pytest.approx(0.5 - 30 / 2.0 * 200 / 3600 / 100)
    assert around == pytest.approx(0.5 - 50 / 2.0 * 200 / 3600 / 100, abs=1e-3)


@pytest.mark.parametrize(
    ("seconds", "ms"),
    [(0.0, 0), (-3.0, 0), (0.0004, 0), (1.2345, 1234), (math.inf, MAX_MS), (math.nan, MAX_MS), (1e30, MAX_MS)],
)
def test_milliseconds_are_whole_bounded_and_never_negative(seconds: float, ms: int) -> None:
    assert to_ms(seconds) == ms


def test_cheapest_insertion_of_many_random_tasks_beats_appending_them() -> None:
    rng = random.Random(3)
    places = [(rng.uniform(0, 100), rng.uniform(0, 100)) for _ in range(12)]
    prices, clever, plain = planner(), Plan(), Plan()
    for number, place in enumerate(places):
        found = prices.insertion(clever, (0.0, 0.0), place, 0.0)
        clever = clever.with_stop(stop(str(number), place, 0.0), found.index)
        plain = plain.with_stop(stop(str(number), place, 0.0), number)
    assert prices.outlook(clever, (0.0, 0.0)).load_s < 0.7 * prices.outlook(plain, (0.0, 0.0)).load_s
