"""What this node answers when it is called: a price in its own plan, or a reason.

The order of the checks is the order in which people would ask: is it offered here, are we leaving, may we, can we, is
there room, can we get there, does the battery bring us home, is there time; then the role's own hooks. What cannot
be done is a refusal with a sentence, never a high price (DESIGN 6, Bids). Asked again at the award, with the same
code: a plan that has changed since prices differently.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from meshagent.core.acts import BidAnswer, Decline, Offer, TaskRecord
from meshagent.core.plan import Insertion, Plan, Planner, Stop, to_ms
from meshagent.core.ports import Authority
from meshagent.core.travel import NoWay, Point
from meshagent.runtime.resources import Battery, Demand, Ledger
from meshagent.runtime.settings import NodeSettings
from meshagent.runtime.supervise import Raised, attempt, cut
from meshagent.sdk.call import Call, Me, Proposal, Refusal
from meshagent.sdk.kinds import KindSpec
from meshagent.sdk.place import Pose, Site
from meshagent.sdk.requires import Requires
from meshagent.types import Epoch, NodeId, Reason, TaskId

MAX_DECODED: Final = 256
"""Specifications kept decoded between call, award and start."""
WARN_AGAIN_S: Final = 60.0
"""A slow or broken hook is told once in this time."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pricing:
    """How one agent prices one kind."""

    kind: KindSpec[Any]
    requires: Requires
    """Of role, kind and handler together."""
    feasible: Callable[[Call[Any]], Refusal | None] | None = None
    price: Callable[[Call[Any]], Proposal | Refusal] | None = None
    label: str = ""
    missing: tuple[str, ...] = ()
    """Actuators of the role that have no driver on this device."""


class SiteUnknownError(ValueError):
    """The task names a place that this device cannot find."""


class Whereabouts(Protocol):
    """Where the body is."""

    def position_m(self) -> Point:
        """East and north in the map frame."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A task as the planner sees it."""

    task: Any
    place: Point | None
    label: str
    duration_s: float


class PlanBidder:
    """`Bidder` of the contract net: the plan, the reservations and the hooks of the agents hosted here."""

    def __init__(
        self,
        *,
        me: NodeId,
        settings: NodeSettings,
        planner: Planner,
        ledger: Ledger,
        battery: Battery,
        whereabouts: Whereabouts,
        authority: Authority,
        now_s: Callable[[], float],
    ) -> None:
        self._me = me
        self.settings = settings
        self._planner = planner
        self._ledger = ledger
        self._battery = battery
        self._whereabouts = whereabouts
        self._authority = authority
        self._now_s = now_s
        self._pricing: dict[str, Pricing] = {}
        self._decoded: OrderedDict[tuple[str, bytes], Asked | Raised] = OrderedDict()
        self._worked_s: dict[TaskId, Callable[[], float]] = {}
        self._said: dict[str, float] = {}
        self.plan = Plan()
        self.draining = False
        self.why_barred: Callable[[], str | None] = lambda: None
        """Why this device may take no contracts at all just now, whatever the task."""
        self.waits_for_it: Callable[[TaskRecord], bool] = lambda record: False
        """Does work that holds the body now wait for this task? Then doing it here would never begin."""

    # ---- what is offered

    def offer(self, pricing: Pricing) -> None:
        """An agent performs this kind from now on."""
        self._pricing[pricing.kind.name] = pricing
        self._decoded.clear()

    def withdraw(self, kind: str) -> None:
        """Nobody here performs it any more."""
        self._pricing.pop(kind, None)

    @property
    def offered(self) -> Mapping[str, Pricing]:
        """By name of the kind."""
        return self._pricing

    # ---- Bidder

    def bid(self, record: TaskRecord, within_s: float | None, *, purpose: str) -> BidAnswer:
        """As the contract net asks; never raises."""
        pricing = self._pricing.get(record.kind)
        if pricing is None:
            return Decline(Reason.NOT_OFFERED, f"no role here performs {record.kind}")
        if self.draining:
            return Decline(Reason.DRAINING, "this node is leaving")
        barred = self.why_barred()
        if barred is not None:
            return Decline(Reason.PERMISSION, barred)
        asked = self.read(record)
        if isinstance(asked, Raised):
            unknown = isinstance(asked.error, SiteUnknownError)
            return Decline(Reason.UNREACHABLE if unknown else Reason.INVALID_TASK, cut(str(asked.error)))
        return (
            self._may(record, pricing) or self._fits(record, pricing) or self._price(record, pricing, asked, within_s)
        )

    def reserve(self, record: TaskRecord, epoch: Epoch) -> None:
        """Insert into the plan where it is cheapest and hold its resources."""
        asked = self.read(record)
        pricing = self._pricing.get(record.kind)
        if isinstance(asked, Raised) or pricing is None:
            return  # the award was priced a moment ago; an agent that left in between is told by StartWork
        rest = self.plan.without(record.task)
        found = self._insertion(rest, asked)
        demand = _demand(pricing.requires)
        stop = Stop(record.task, epoch, asked.duration_s, asked.place, asked.label, demand.memory_mib, demand.cores)
        self.plan = rest.with_stop(stop, found.index)
        self._ledger.hold(record.task, demand)

    def release(self, task: TaskId, epoch: Epoch) -> None:
        """Out of the plan, resources free."""
        kept = self.plan.without(task, epoch)
        if kept is not self.plan:
            self.plan = kept
            self._ledger.free(task)
            self._worked_s.pop(task, None)

    # ---- the plan, as work goes on

    def started(self, task: TaskId, worked_s: Callable[[], float]) -> None:
        """The handler runs; `worked_s` tells how much of the stop's duration is behind it."""
        self.plan = self.plan.started(task)
        self._worked_s[task] = worked_s

    def rank(self, task: TaskId) -> int:
        """Place in the plan; tasks that are not in it come last."""
        for index, stop in enumerate(self.plan.stops):
            if stop.task == task:
                return index
        return len(self.plan.stops)

    def stop_of(self, task: TaskId) -> Stop | None:
        """The planned stop of `task`."""
        return next((stop for stop in self.plan.stops if stop.task == task), None)

    def here(self) -> Point:
        """Where the body is, as far as it knows."""
        return self._whereabouts.position_m()

    def soc_at_end(self) -> float | None:
        """Battery after the plan and the way home; None without one."""
        soc = self._battery.soc()
        if soc is None:
            return None
        return self._planner.soc_at_home(self.plan, self.here(), soc, self._elapsed_s)

    def load_s(self) -> float:
        """Length of the plan."""
        return self._planner.outlook(self.plan, self.here(), self._elapsed_s).load_s

    def read(self, record: TaskRecord) -> Asked | Raised:
        """The task behind a record, decoded once; what is wrong with it as a value."""
        pricing = self._pricing.get(record.kind)
        if pricing is None:
            return Raised(ValueError(f"no role here performs {record.kind}"))
        key = (record.kind, record.spec)
        found = self._decoded.get(key)
        if found is None:
            found = attempt(lambda: self._asked(record, pricing))
            self._decoded[key] = found
            if len(self._decoded) > MAX_DECODED:
                self._decoded.popitem(last=False)
        if not isinstance(found, Raised) and (differ := pricing.kind.terms_differ(record)) is not None:
            return Raised(ValueError(differ))
        return found

    # ---- checks, each None when passed

    def _may(self, record: TaskRecord, pricing: Pricing) -> Decline | None:
        if not self._authority(self._me, "perform", record.kind):
            return Decline(Reason.PERMISSION, f"this device may not perform {record.kind}")
        requires = pricing.requires
        for permission in sorted(requires.permissions) if requires.permissions else ():
            action, _, what = permission.partition(":")
            if not self._authority(self._me, action, what):
                return Decline(Reason.PERMISSION, f"this device has no permission {permission}")
        if requires.capabilities and (missing := sorted(set(requires.capabilities) - self.settings.capabilities)):
            return Decline(Reason.CAPABILITY, f"has no {', '.join(missing)}")
        if pricing.missing:
            return Decline(Reason.CAPABILITY, f"has no driver for {', '.join(pricing.missing)}")
        if record.approval:
            return Decline(Reason.APPROVAL, "needs a person's approval, which nobody has given")
        return None

    def _fits(self, record: TaskRecord, pricing: Pricing) -> Decline | None:
        shortage = self._ledger.shortage(_demand(pricing.requires), record.task)
        if shortage is not None:
            return Decline(Reason.RESOURCES, shortage)
        held = len(self.plan.stops)
        if held >= self.settings.queue:
            held -= self.stop_of(record.task) is not None  # an award for what is reserved already
            if held >= self.settings.queue:
                return Decline(Reason.BUSY, f"{held} contracts are held already, the queue takes {self.settings.queue}")
        return None

    def _price(self, record: TaskRecord, pricing: Pricing, asked: Asked, within_s: float | None) -> BidAnswer:
        plan = self.plan.without(record.task)
        if asked.place is not None and record.parent is not None and self.waits_for_it(record):
            return Decline(Reason.BUSY, "the work that asked for it holds this body until it is done")
        found = self._insertion(plan, asked)
        if not math.isfinite(found.added_s):
            return Decline(Reason.UNREACHABLE, self._why_unreachable(plan, asked))
        soc = self._battery.soc()
        if soc is not None:
            tired = self._tired(plan, asked, found, soc)
            if tired is not None:
                return tired
        if within_s is not None and found.finish_s > within_s:
            return Decline(Reason.TIME, f"would be done in {found.finish_s:.1f} s, {max(0.0, within_s):.1f} s are left")
        if pricing.feasible is None and pricing.price is None:
            return Offer(to_ms(found.added_s), to_ms(found.load_s), plan.version)
        me = Me(self._whereabouts.position_m(), soc, found.load_s, len(plan.stops))
        call: Call[Any] = Call(task=asked.task, me=me, plan=plan, insertion=lambda: found, within_s=within_s)
        if pricing.feasible is not None:
            verdict = self._feasible(pricing, call)
            if verdict is not None:
                return verdict
        proposal = Proposal(found.added_s)
        if pricing.price is not None:
            answer = self._hooked(pricing, call, proposal)
            if isinstance(answer, Decline):
                return answer
            proposal = answer
        return Offer(to_ms(proposal.added_s), to_ms(found.load_s), plan.version, cut(proposal.because))

    def _tired(self, plan: Plan, asked: Asked, found: Insertion, soc: float) -> Decline | None:
        reserve = self.settings.battery_reserve_soc
        if soc < reserve:
            return Decline(Reason.BATTERY, f"battery is at {_percent(soc)}, reserve is {_percent(reserve)}")
        grown = plan.with_stop(Stop(TaskId(""), _NOWHERE, asked.duration_s, asked.place), found.index)
        left = self._planner.soc_at_home(grown, self.here(), soc, self._elapsed_s)
        if left < reserve:
            if left <= 0:
                return Decline(Reason.BATTERY, f"would not come home, reserve is {_percent(reserve)}")
            return Decline(Reason.BATTERY, f"would come home with {_percent(left)}, reserve is {_percent(reserve)}")
        return None

    def _why_unreachable(self, plan: Plan, asked: Asked) -> str:
        assert asked.place is not None
        spots = [self.here(), *(stop.place for stop in plan.stops if stop.place is not None)]
        for spot in spots:
            way = self._planner.travel.way(spot, asked.place)
            if isinstance(way, NoWay):
                return f"no path to {asked.label}: {way.because}"
        return f"this device does not move, {asked.label} is elsewhere"

    # ---- hooks of the role

    def _feasible(self, pricing: Pricing, call: Call[Any]) -> Decline | None:
        assert pricing.feasible is not None
        hook = pricing.feasible
        since_s = self._now_s()
        verdict = attempt(lambda: hook(call))
        self._tell_slow(pricing, "feasible", self._now_s() - since_s, "its answer counts, but it holds the loop")
        if isinstance(verdict, Raised):
            return self._broken(pricing, "feasible", verdict)
        if verdict is None:
            return None
        return _refused(verdict, f"{pricing.label}.feasible returned {type(verdict).__name__}, not a Refusal or None")

    def _hooked(self, pricing: Pricing, call: Call[Any], default: Proposal) -> Proposal | Decline:
        assert pricing.price is not None
        hook = pricing.price
        since_s = self._now_s()
        answer = attempt(lambda: hook(call))
        slow = self._tell_slow(pricing, "price", self._now_s() - since_s, "the default bid is sent")
        if isinstance(answer, Raised):
            return self._broken(pricing, "price", answer)
        if isinstance(answer, Proposal):
            return default if slow else answer
        return _refused(answer, f"{pricing.label}.price returned {type(answer).__name__}, not a Proposal")

    def _broken(self, pricing: Pricing, hook: str, raised: Raised) -> Decline:
        if self._may_say(f"{pricing.label}.{hook} raised"):
            log.warning("%s.%s raised\n%s", pricing.label, hook, raised.traceback())
        return Decline(Reason.POLICY, cut(f"{hook} hook raised {raised.sentence}"))

    def _tell_slow(self, pricing: Pricing, hook: str, took_s: float, consequence: str) -> bool:
        if took_s <= self.settings.feasible_hook_s:
            return False
        if self._may_say(f"{pricing.label}.{hook} slow"):
            log.warning(
                "%s.%s took %.0f ms, at most %.0f are given to a bid; %s",
                pricing.label,
                hook,
                took_s * 1000,
                self.settings.feasible_hook_s * 1000,
                consequence,
            )
        return True

    def _may_say(self, what: str) -> bool:
        now_s = self._now_s()
        if now_s - self._said.get(what, -WARN_AGAIN_S) < WARN_AGAIN_S:
            return False
        self._said[what] = now_s
        return True

    # ---- helpers

    def _insertion(self, plan: Plan, asked: Asked) -> Insertion:
        return self._planner.insertion(plan, self.here(), asked.place, asked.duration_s, self._elapsed_s)

    def _elapsed_s(self, stop: Stop) -> float:
        worked = self._worked_s.get(stop.task)
        return worked() if worked is not None else 0.0

    def _asked(self, record: TaskRecord, pricing: Pricing) -> Asked:
        task = pricing.kind.decode(record.spec)
        place, duration_s = task.place(), float(task.duration_s())
        if not (math.isfinite(duration_s) and duration_s >= 0):
            raise ValueError(f"{record.kind} says that it takes {duration_s!r} s")
        if place is None:
            return Asked(task, None, record.kind, duration_s)
        if isinstance(place, Site):
            spot = self._planner.travel.site_map.locate(place.name)
            if spot is None:
                raise SiteUnknownError(f"{place.name} is not on the map of this device")
            return Asked(task, spot, place.name, duration_s)
        if isinstance(place, Pose):
            return Asked(task, (place.x_m, place.y_m), f"({place.x_m:g}, {place.y_m:g})", duration_s)
        raise ValueError(f"{record.kind} says that its place is a {type(place).__name__}")


_NOWHERE: Final = Epoch(0, NodeId(""), b"")


def _refused(answer: object, otherwise: str) -> Decline:
    """What a hook of untyped code may hand back in place of what it should."""
    if isinstance(answer, Refusal):
        return Decline(answer.reason, cut(answer.detail))
    return Decline(Reason.POLICY, otherwise)


def _demand(requires: Requires) -> Demand:
    return Demand(requires.memory_mib, requires.cores)


def _percent(share: float) -> str:
    return f"{max(0.0, share) * 100:.0f} %"
