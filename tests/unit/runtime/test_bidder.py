"""Each reason to refuse, in its order and with its sentence; and what a role's hooks may do to a bid."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from meshagent.core.acts import Decline, Offer, TaskRecord
from meshagent.core.plan import Planner
from meshagent.core.travel import Body, Charger, NoGo, Point, SiteMap, Travel
from meshagent.runtime.bidder import PlanBidder, Pricing
from meshagent.runtime.resources import Capacity, GivenBattery, Ledger
from meshagent.runtime.settings import NodeSettings
from meshagent.sdk.call import Call, Proposal, Refusal
from meshagent.sdk.kinds import Task, kind_of
from meshagent.sdk.place import Place, Pose, Site
from meshagent.sdk.requires import Requires
from meshagent.types import Delivery, Epoch, InDoubt, NodeId, Reason, TaskId

ME = NodeId("m" * 52)
EPOCH = Epoch(1, NodeId("i" * 52), b"\0" * 16)
RING = ((-2.0, -2.0), (2.0, -2.0), (2.0, 2.0), (-2.0, 2.0))


@dataclass(frozen=True)
class Check(Task[str], kind="unit.check.v1"):
    site: str = ""
    takes_s: float = 20.0

    def place(self) -> Place | None:
        if self.site == "raises":
            raise KeyError("no such drawing")
        if self.site == "pose":
            return Pose(3.0, 4.0)
        return Site(self.site) if self.site else None

    def duration_s(self) -> float:
        return self.takes_s


@dataclass
class Here:
    at: Point = (0.0, 0.0)

    def position_m(self) -> Point:
        return self.at


@dataclass
class Bench:
    settings: NodeSettings = field(default_factory=lambda: NodeSettings(name="dog"))
    site_map: SiteMap = field(default_factory=lambda: SiteMap(sites={"near": (10.0, 0.0), "far": (90.0, 0.0)}))
    body: Body = field(default_factory=lambda: Body(speed_mps=1.0))
    battery: GivenBattery = field(default_factory=GivenBattery)
    requires: Requires = field(default_factory=Requires)
    feasible: Callable[[Call[Any]], Any] | None = None
    price: Callable[[Call[Any]], Any] | None = None
    missing: tuple[str, ...] = ()
    may: Callable[[NodeId, str, str], bool] = lambda peer, action, kind: True
    now_s: float = 0.0

    def build(self) -> PlanBidder:
        bidder = PlanBidder(
            me=ME,
            settings=self.settings,
            planner=Planner(Travel(self.site_map, self.settings.capabilities), self.body, self.settings.parallel),
            ledger=Ledger(Capacity(cores=2, memory_mib=100)),
            battery=self.battery,
            whereabouts=Here(),
            authority=self.may,
            now_s=lambda: self.now_s,
        )
        bidder.offer(
            Pricing(
                kind=kind_of(Check),
                requires=self.requires,
                feasible=self.feasible,
                price=self.price,
                label="Dog.check",
                missing=self.missing,
            )
        )
        return bidder


def record(name: str = "t", task: Check | None = None, **changes: Any) -> TaskRecord:
    plain = TaskRecord(
        task=TaskId(name.ljust(32, "x")),
        initiator=NodeId("i" * 52),
        boot=b"\0" * 16,
        nonce=b"\1" * 16,
        kind="unit.check.v1",
        spec=kind_of(Check).encode(task or Check("near")),
        delivery=Delivery.AT_MOST_ONCE,
        in_doubt=InDoubt.MAJORITY,
    )
    return replace(plain, **changes)


def refused(bench: Bench, asked: TaskRecord | None = None, within_s: float | None = None) -> tuple[Reason, str]:
    answer = bench.build().bid(asked or record(), within_s, purpose="call")
    assert isinstance(answer, Decline), answer
    return answer.reason, answer.detail


def test_the_default_bid_is_the_marginal_cost_in_the_own_plan() -> None:
    assert Bench().build().bid(record(), None, purpose="call") == Offer(30_000, 0, 0)


def test_what_is_on_the_way_costs_only_its_work() -> None:
    bidder = Bench().build()
    bidder.reserve(record("far", Check("far")), EPOCH)
    answer = bidder.bid(record("near", Check("near")), None, purpose="call")
    assert answer == Offer(20_000, 110_000, 1)


def test_an_award_is_priced_by_the_same_rule_and_not_against_itself() -> None:
    bidder = Bench().build()
    asked = record()
    first = bidder.bid(asked, None, purpose="call")
    bidder.reserve(asked, EPOCH)
    again = bidder.bid(asked, None, purpose="award")
    assert isinstance(first, Offer)
    assert isinstance(again, Offer)
    assert (again.added_ms, again.load_ms) == (first.added_ms, first.load_ms)


def test_a_pose_is_a_place() -> None:
    assert Bench().build().bid(record(task=Check("pose")), None, purpose="call") == Offer(25_000, 0, 0)


# ---- refusals, in the order of the checks


def test_a_kind_that_no_role_performs_is_not_offered() -> None:
    assert refused(Bench(), record(kind="unit.other")) == (Reason.NOT_OFFERED, "no role here performs unit.other")


def test_a_leaving_node_says_so() -> None:
    bidder = Bench().build()
    bidder.draining = True
    assert bidder.bid(record(), None, purpose="call") == Decline(Reason.DRAINING, "this node is leaving")


@pytest.mark.parametrize("spec", [b"", b"\xc0", b"\x80\x80", b"\x81\xa4site\x01", b"\xc1" * 100])
def test_bytes_that_are_no_specification_are_refused_with_the_field(spec: bytes) -> None:
    reason, detail = refused(Bench(), record(spec=spec))
    assert reason is Reason.INVALID_TASK
    assert detail


def test_terms_softer_than_the_kind_are_refused() -> None:
    reason, detail = refused(Bench(), record(delivery=Delivery.AT_LEAST_ONCE))
    assert reason is Reason.INVALID_TASK
    assert "delivery=at_least_once" in detail


@pytest.mark.parametrize(("takes_s", "ok"), [(-1.0, False), (0.0, True), (1e9, True)])
def test_a_duration_that_is_none_is_refused(takes_s: float, ok: bool) -> None:
    answer = Bench().build().bid(record(task=Check("", takes_s)), None, purpose="call")
    assert isinstance(answer, Offer) == ok


def test_a_kind_whose_place_raises_is_refused_and_harms_nobody() -> None:
    reason, detail = refused(Bench(), record(task=Check("raises")))
    assert reason is Reason.INVALID_TASK
    assert "no such drawing" in detail


def test_a_credential_that_does_not_allow_it_is_named() -> None:
    bench = Bench(may=lambda peer, action, kind: action != "perform")
    assert refused(bench) == (Reason.PERMISSION, "this device may not perform unit.check.v1")


def test_a_permission_of_the_role_is_asked_of_the_credential() -> None:
    asked: list[tuple[str, str]] = []

    def may(peer: NodeId, action: str, kind: str) -> bool:
        asked.append((action, kind))
        return action == "perform"

    bench = Bench(may=may, requires=Requires(permissions={"enter:pump-room"}))
    assert refused(bench) == (Reason.PERMISSION, "this device has no permission enter:pump-room")
    assert ("enter", "pump-room") in asked


def test_a_missing_capability_is_named() -> None:
    bench = Bench(
        requires=Requires(capabilities={"legs", "contact-probe"}),
        settings=NodeSettings(name="dog", capabilities=frozenset({"legs"})),
    )
    assert refused(bench) == (Reason.CAPABILITY, "has no contact-probe")


def test_an_actuator_without_a_driver_is_a_missing_capability() -> None:
    assert refused(Bench(missing=("legs",))) == (Reason.CAPABILITY, "has no driver for legs")


def test_resources_that_others_hold_are_not_promised_twice() -> None:
    bidder = Bench(requires=Requires(memory_mib=60)).build()
    assert isinstance(bidder.bid(record("a"), None, purpose="call"), Offer)
    bidder.reserve(record("a"), EPOCH)
    assert bidder.bid(record("b"), None, purpose="call") == Decline(
        Reason.RESOURCES, "needs 60 MiB of memory, 40 of 100 are free"
    )
    bidder.release(record("a").task, EPOCH)
    assert isinstance(bidder.bid(record("b"), None, purpose="call"), Offer)


def test_cores_are_counted_like_memory() -> None:
    reason, detail = refused(Bench(requires=Requires(cores=3)))
    assert (reason, detail) == (Reason.RESOURCES, "needs 3 cores, 2 of 2 are free")


def test_a_full_queue_says_how_long_it_is() -> None:
    bidder = Bench(settings=NodeSettings(name="dog", queue=2)).build()
    for name in "ab":
        bidder.reserve(record(name), EPOCH)
    assert bidder.bid(record("c"), None, purpose="call") == Decline(
        Reason.BUSY, "2 contracts are held already, the queue takes 2"
    )


def test_a_place_that_an_area_closes_is_unreachable_and_the_area_is_named() -> None:
    site_map = SiteMap(sites={"near": (0.5, 0.0)}, no_go=(NoGo("stairs at gate-2", RING),))
    bench = Bench(site_map=site_map)
    assert refused(bench) == (Reason.UNREACHABLE, "no path to near: it lies inside stairs at gate-2")


def test_a_site_that_is_on_no_map_is_unreachable() -> None:
    bench = Bench(site_map=SiteMap(sites={"near": (1.0, 0.0)}, unplaced=None))
    assert refused(bench, record(task=Check("pump-9"))) == (
        Reason.UNREACHABLE,
        "pump-9 is not on the map of this device",
    )


def test_a_device_that_does_not_move_reaches_only_where_it_stands() -> None:
    bench = Bench(body=Body())
    assert refused(bench) == (Reason.UNREACHABLE, "this device does not move, near is elsewhere")
    assert isinstance(bench.build().bid(record(task=Check("")), None, purpose="call"), Offer)


def test_a_battery_below_its_reserve_takes_nothing() -> None:
    bench = Bench(battery=GivenBattery(0.1))
    assert refused(bench, record(task=Check(""))) == (Reason.BATTERY, "battery is at 10 %, reserve is 20 %")


def test_the_way_home_counts_against_the_reserve() -> None:
    body = Body(speed_mps=1.0, move_w=360, idle_w=0, battery_wh=10)  # 1 % for each metre
    site_map = SiteMap(sites={"near": (10.0, 0.0)}, chargers=(Charger((40.0, 0.0)),))
    bench = Bench(body=body, site_map=site_map, battery=GivenBattery(0.51))
    assert refused(bench) == (Reason.BATTERY, "would come home with 11 %, reserve is 20 %")
    bench.battery.value = 0.61
    assert isinstance(bench.build().bid(record(), None, purpose="call"), Offer)
    bench.battery.value = 0.31
    assert refused(bench) == (Reason.BATTERY, "would not come home, reserve is 20 %")


def test_too_little_time_is_told_with_both_figures() -> None:
    assert refused(Bench(), within_s=12.0) == (Reason.TIME, "would be done in 30.0 s, 12.0 s are left")
    assert isinstance(Bench().build().bid(record(), 31.0, purpose="call"), Offer)


def test_work_that_waits_for_a_person_is_refused_until_somebody_can_say_yes() -> None:
    # the kind must agree with the record about approval; both say yes here

    @dataclass(frozen=True)
    class Approved(Task[str], kind="unit.approved.v1", approval=True):
        pass

    bidder = Bench().build()
    bidder.offer(Pricing(kind=kind_of(Approved), requires=Requires()))
    asked = record(kind="unit.approved.v1", spec=kind_of(Approved).encode(Approved()), approval=True)
    answer = bidder.bid(asked, None, purpose="call")
    assert isinstance(answer, Decline)
    assert answer.reason is Reason.APPROVAL


# ---- the hooks


def test_a_feasible_hook_refuses_in_its_own_words() -> None:
    bench = Bench(feasible=lambda call: call.refuse(Reason.CALIBRATION, "probe was last calibrated 43 days ago"))
    assert refused(bench) == (Reason.CALIBRATION, "probe was last calibrated 43 days ago")


def test_a_price_hook_says_what_and_why() -> None:
    bench = Bench(price=lambda call: call.propose(call.insertion().added_s + 7.2, because="probe is cold: +7.2 s"))
    assert bench.build().bid(record(), None, purpose="call") == Offer(37_200, 0, 0, "probe is cold: +7.2 s")


def test_hooks_come_after_the_built_in_checks() -> None:
    asked: list[str] = []

    def feasible(call: Call[Any]) -> None:
        asked.append("feasible")

    bench = Bench(feasible=feasible, battery=GivenBattery(0.1))
    assert refused(bench)[0] is Reason.BATTERY
    assert not asked


def test_a_hook_sees_the_plan_and_cannot_change_it() -> None:
    seen: list[Call[Any]] = []

    def feasible(call: Call[Any]) -> None:
        seen.append(call)

    bidder = Bench(feasible=feasible, battery=GivenBattery(0.7)).build()
    bidder.reserve(record("far", Check("far")), EPOCH)
    bidder.bid(record("near"), 500.0, purpose="call")
    (call,) = seen
    assert call.task == Check("near")
    assert [stop.label for stop in call.plan.stops] == ["far"]
    assert (call.me.battery_soc, call.me.queue, call.within_s) == (0.7, 1, 500.0)
    with pytest.raises(AttributeError):
        call.plan.stops = ()  # type: ignore[misc]


@pytest.mark.parametrize("hook", ["feasible", "price"])
def test_a_hook_that_raises_is_a_refusal_with_the_sentence(hook: str, caplog: pytest.LogCaptureFixture) -> None:
    def broken(call: Call[Any]) -> Any:
        raise ZeroDivisionError("division by zero")

    bench = Bench(feasible=broken) if hook == "feasible" else Bench(price=broken)
    assert refused(bench) == (Reason.POLICY, f"{hook} hook raised ZeroDivisionError: division by zero")
    assert "Traceback" in caplog.text


def test_sys_exit_in_a_hook_is_a_refusal() -> None:
    def leaving(call: Call[Any]) -> Any:
        raise SystemExit

    assert refused(Bench(price=leaving))[0] is Reason.POLICY


def test_a_slow_price_hook_loses_its_say(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()

    def slow(call: Call[Any]) -> Proposal:
        bench.now_s += 0.05
        return call.propose(1.0)

    bench.price = slow
    bidder = bench.build()
    assert bidder.bid(record(), None, purpose="call") == Offer(30_000, 0, 0)
    assert "took 50 ms" in caplog.text
    caplog.clear()
    bidder.bid(record(), None, purpose="call")
    assert not caplog.text  # told once a minute


def test_a_slow_feasible_hook_still_refuses() -> None:
    bench = Bench()

    def slow(call: Call[Any]) -> Refusal:
        bench.now_s += 0.05
        return call.refuse(Reason.CALIBRATION, "worn")

    bench.feasible = slow
    assert refused(bench) == (Reason.CALIBRATION, "worn")


@pytest.mark.parametrize("answer", [None, 3.0, True, "cheap"])
def test_a_price_hook_that_returns_something_else_is_a_refusal(answer: object) -> None:
    reason, detail = refused(Bench(price=lambda call: answer))
    assert reason is Reason.POLICY
    assert type(answer).__name__ in detail


@pytest.mark.parametrize("price", [math.nan, math.inf, -1.0])
def test_nan_bid_of_a_hook_never_leaves_the_node(price: float) -> None:
    assert refused(Bench(price=lambda call: call.propose(price)))[0] is Reason.POLICY


# ---- the plan


def test_reserve_and_release_leave_the_plan_as_it_was() -> None:
    bidder = Bench(requires=Requires(memory_mib=10)).build()
    for name in "abc":
        bidder.reserve(record(name), EPOCH)
    assert bidder.rank(record("zzz").task) == 3
    for name in "bca":
        bidder.release(record(name).task, EPOCH)
    assert bidder.plan.stops == ()
    assert bidder.plan.version == 6


def test_a_release_under_an_old_epoch_takes_nothing_from_the_new_one() -> None:
    bidder = Bench().build()
    newer = Epoch(2, EPOCH.owner, EPOCH.boot)
    bidder.reserve(record(), EPOCH)
    bidder.reserve(record(), newer)
    bidder.release(record().task, EPOCH)
    assert [stop.epoch for stop in bidder.plan.stops] == [newer]


def test_work_that_has_begun_gets_shorter() -> None:
    bidder = Bench().build()
    bidder.reserve(record("a", Check("", 20.0)), EPOCH)
    bidder.started(record("a").task, lambda: 15.0)
    assert bidder.load_s() == pytest.approx(5.0 / 8)
