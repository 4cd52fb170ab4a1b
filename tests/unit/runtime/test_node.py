"""Whole nodes in virtual time: hosting, executing, subtasks, devices, news, leaving. Links lose nothing here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from meshagent.core.acts import Decline
from meshagent.core.contract_net.records import Stage
from meshagent.core.travel import Body, SiteMap
from meshagent.devices import Legs
from meshagent.errors import ConfigurationError, JournalError
from meshagent.runtime.bay import DeviceChoice
from meshagent.runtime.node import Node, NotPermittedError, UnknownTaskError
from meshagent.sdk.context import Context, TaskContext
from meshagent.sdk.declare import every, on, task
from meshagent.sdk.errors import LeaseLostError, TaskFailedError
from meshagent.sdk.events import BatteryLow, Event, PeerJoined, PeerLost, event_schema
from meshagent.sdk.kinds import Task
from meshagent.sdk.outcome import Cancelled, Failed, NoAward
from meshagent.sdk.place import Place, Site
from meshagent.sdk.requires import Requires
from meshagent.sdk.role import Role
from meshagent.sdk.sensing import Sample, actuator, sensor
from meshagent.types import Reason, TaskState
from tests.support.small_mesh import DELAY_S, SmallMesh, run

RAN: list[str] = []
"""What handlers did, in order; emptied before each test."""


@pytest.fixture(autouse=True)
def _empty() -> None:
    RAN.clear()


@dataclass(frozen=True)
class Greet(Task[str], kind="unit.node.greet"):
    name: str


class Greeter(Role):
    @task
    async def greet(self, job: Greet) -> str:
        RAN.append(f"{self.node.name} greets {job.name}")
        return f"hello {job.name}, {self.node.name} speaking"


@dataclass(frozen=True)
class Long(Task[str], kind="unit.node.long", delivery="at_least_once"):
    steps: int = 10


@dataclass
class Steps:
    done: int = 0


class Worker(Role):
    @task
    async def long(self, job: Long, ctx: TaskContext) -> str:
        steps = ctx.resumed(Steps) or Steps()
        RAN.append(f"{self.node.name} from {steps.done}")
        while steps.done < job.steps:
            await asyncio.sleep(1.0)
            steps.done += 1
            ctx.progress(steps.done / job.steps, f"step {steps.done}")
            await ctx.checkpoint(steps)
        return f"by {self.node.name}"


@dataclass(frozen=True)
class Bad(Task[str], kind="unit.node.bad"):
    how: str


class Villain(Role):
    @task(timeout_s=5)
    async def bad(self, job: Bad) -> str:
        if job.how == "raise":
            raise ValueError("no such row")
        if job.how == "exit":
            raise SystemExit(1)
        if job.how == "hang":
            await asyncio.get_running_loop().create_future()
        return 3 if job.how == "type" else "fine"  # type: ignore[return-value]


@dataclass(frozen=True)
class Add(Task[int], kind="unit.node.add"):
    a: int
    b: int


class Adder(Role):
    requires = Requires(memory_mib=10)

    @task(worker="thread")
    def add(self, job: Add) -> int:
        return job.a + job.b


@dataclass(frozen=True)
class Both(Task[int], kind="unit.node.both"):
    fail: bool = False


class Parent(Role):
    @task
    async def both(self, job: Both, ctx: TaskContext) -> int:
        if job.fail:
            _, text = await ctx.gather(Long(1000), Bad("raise"))
            return len(text)
        one, two = await ctx.gather(Add(1, 2), Add(3, 4))
        ctx.then(Greet("afterwards"), within_s=5.0)
        return one + two


@dataclass(frozen=True)
class Wait(Task[str], kind="unit.node.wait"):
    pass


class Waiter(Role):
    @task
    async def wait(self, job: Wait, ctx: TaskContext) -> str:
        return await ctx.submit(Long(1000))


@dataclass(frozen=True)
class Visit(Task[str], kind="unit.node.visit"):
    site: str

    def place(self) -> Place:
        return Site(self.site)


class Dog(Role):
    legs = actuator(Legs)

    @task
    async def visit(self, job: Visit, ctx: TaskContext) -> str:
        async with ctx.use(self.legs) as legs:
            async for stretch in legs.walk_to(Site(job.site)):
                RAN.append(f"{stretch.position_m[0]:.1f}")
        return self.node.name


class Stubborn(Role):
    legs = actuator(Legs)

    @task
    async def visit(self, job: Visit, ctx: TaskContext) -> str:
        async with ctx.use(self.legs) as legs:
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                try:
                    legs.walk_to(Site(job.site))
                except LeaseLostError:
                    RAN.append("refused")
                raise
        return ""


@dataclass(frozen=True)
class Escorted(Task[str], kind="unit.node.escorted"):
    site: str

    def place(self) -> Place:
        return Site(self.site)


class Escort(Role):
    @task
    async def escorted(self, job: Escorted, ctx: TaskContext) -> str:
        return f"{self.node.name} with {await ctx.submit(Visit(job.site))}"


@dataclass(frozen=True)
class Nest(Task[int], kind="unit.node.nest"):
    depth: int


class Nester(Role):
    @task
    async def nest(self, job: Nest, ctx: TaskContext) -> int:
        return 0 if job.depth == 0 else 1 + await ctx.submit(Nest(job.depth - 1))


class Presser(Role):
    legs = actuator(Legs)

    @task
    async def visit(self, job: Visit, ctx: TaskContext) -> str:
        async with ctx.use(self.legs):
            await ctx.point_of_no_return()
            RAN.append("passed")
            await asyncio.sleep(100)
        return ""


@dataclass(frozen=True)
class Rattle(Event, name="unit.node.Rattle"):
    hz: float


class Ear(Role):
    mic = sensor(float)

    @on(mic)
    async def hear(self, sample: Sample[float], ctx: Context) -> None:
        if sample.value < 0:
            raise ValueError("broken microphone")
        ctx.emit(Rattle(sample.value))


class Log(Role):
    def __init__(self) -> None:
        self.ticks = 0

    @on(Rattle)
    async def rattled(self, event: Rattle, ctx: Context) -> None:
        RAN.append(f"{self.node.name} heard {event.hz:g} Hz from {'afar' if ctx.sender else 'here'}")

    @on(PeerJoined)
    async def joined(self, event: PeerJoined) -> None:
        RAN.append(f"{self.node.name} sees {event.peer.name}")

    @on(PeerLost)
    async def lost(self, event: PeerLost) -> None:
        RAN.append(f"{self.node.name} lost {event.peer.name}")

    @on(BatteryLow)
    async def low(self, event: BatteryLow) -> None:
        RAN.append(f"low {event.soc:g}")

    @every(10.0)
    async def tick(self) -> None:
        self.ticks += 1
        if self.ticks == 2:
            raise RuntimeError("tick 2")


def ask(node: Node) -> Context:
    return Context(node, "test")


def role_of(node: Node, cls: type[Any]) -> Any:
    return next(agent.role for agent in node.hosted if isinstance(agent.role, cls))


class Quitter(Role):
    @on(Rattle)
    async def rattled(self, event: Rattle) -> None:
        RAN.append(f"{event.hz:g}")
        raise asyncio.CancelledError


class Unmade(Role):
    def __init__(self) -> None:
        raise OSError("no camera")

    @every(1.0)
    async def tick(self) -> None: ...


# ---- asking and executing


def test_a_task_is_done_by_whoever_offers_it() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        await mesh.join("ann", Greeter)
        eve = await mesh.join("eve")
        await mesh.linked(1)
        submission = ask(eve).submit(Greet("world"))
        await submission.accepted()
        assert await submission == "hello world, ann speaking"

    run(scenario)


def test_many_tasks_share_turns_and_a_single_one_never_waits() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        await mesh.join("ann", Greeter)
        eve = await mesh.join("eve")
        await mesh.linked(1)
        await asyncio.sleep(1.0)  # what is said once a link is acknowledged
        started_s = mesh.loop.time()
        await ask(eve).submit(Greet("one"))
        assert mesh.loop.time() - started_s == pytest.approx(6 * DELAY_S), "six messages one after the other, no pause"

        async def one(number: int) -> str:
            await asyncio.sleep(number * DELAY_S / 4)
            return await ask(eve).submit(Greet(str(number)))

        commits = eve.driver.commits
        await asyncio.gather(*(one(number) for number in range(40)))
        assert eve.driver.commits - commits < 40, "forty tasks promise three times each, and share transactions"

    run(scenario)


def test_a_node_does_its_own_tasks_alone() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        ann = await mesh.join("ann", Greeter)
        assert await ask(ann).submit(Greet("me")) == "hello me, ann speaking"

    run(scenario)


@pytest.mark.parametrize(
    ("how", "reason", "detail"),
    [
        ("raise", Reason.ERROR, "ValueError: no such row"),
        ("exit", Reason.ERROR, "SystemExit: 1"),
        ("hang", Reason.TIMEOUT, "took longer than 5 s"),
        ("type", Reason.ERROR, "str is 3"),
    ],
)
def test_a_role_that_fails_fails_its_task_and_not_its_node(how: str, reason: Reason, detail: str) -> None:
    async def scenario(mesh: SmallMesh) -> None:
        villain = await mesh.join("villain", Villain, Greeter)
        eve = await mesh.join("eve")
        await mesh.linked(1)
        outcome = await ask(eve).submit(Bad(how)).outcome()
        assert isinstance(outcome, Failed)
        assert (outcome.reason, outcome.holder) == (reason, villain.id)
        assert detail in outcome.detail
        assert await ask(eve).submit(Greet("still")) == "hello still, villain speaking"
        with pytest.raises(TaskFailedError, match=r"bad-\w+: (ERROR|TIMEOUT)"):
            await ask(eve).submit(Bad(how))

    run(scenario)


def test_nobody_offers_it_within_the_time() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        eve = await mesh.join("eve")
        outcome = await ask(eve).submit(Greet("x"), within_s=3.0).outcome()
        assert isinstance(outcome, NoAward)
        assert outcome.reason is Reason.EXPIRED

    run(scenario)


def test_a_node_that_may_not_ask_is_told_before_anything_is_sent() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        eve = await mesh.join("eve", may=("announce:other.*", "perform:*"))
        with pytest.raises(NotPermittedError, match=r"may not ask for unit\.node\.greet"):
            ask(eve).submit(Greet("x"))
        bob = await mesh.join("bob", announce=("unit.node.add",))
        with pytest.raises(NotPermittedError):
            ask(bob).submit(Greet("x"))
        ask(bob).submit(Add(1, 2))

    run(scenario)


def test_plain_functions_run_beside_the_loop_and_reserve_what_they_need() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        node = await mesh.join("node", Adder)
        assert await ask(node).submit(Add(2, 3)) == 5
        assert node.ledger.memory_mib == 0

    run(scenario)


# ---- subtasks


def test_results_of_subtasks_come_back_in_order_and_then_follows_the_result() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        await mesh.join("parent", Parent)
        await mesh.join("ann", Adder, Greeter)
        eve = await mesh.join("eve")
        await mesh.linked(2)
        assert await ask(eve).submit(Both()) == 10
        await mesh.until(lambda: RAN == ["ann greets afterwards"])

    run(scenario)


def test_one_part_of_a_gather_fails_and_the_others_are_withdrawn() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        parent = await mesh.join("parent", Parent)
        await mesh.join("ann", Worker, Villain)
        eve = await mesh.join("eve")
        await mesh.linked(2)
        outcome = await ask(eve).submit(Both(fail=True)).outcome()
        assert isinstance(outcome, Failed)
        await mesh.until(lambda: not parent.look.tasks()["tasks"])
        states = {row["kind"]: row["state"] for row in parent.look.tasks(everything=True)["tasks"]}
        assert states["unit.node.long"] == "cancelled"

    run(scenario)


def test_cancelling_a_parent_cancels_what_its_handler_asked_for() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        await mesh.join("parent", Waiter)
        ann = await mesh.join("ann", Worker)
        eve = await mesh.join("eve")
        await mesh.linked(2)
        submission = ask(eve).submit(Wait())
        await mesh.until(lambda: bool(ann.executor.works))
        submission.cancel("changed my mind")
        outcome = await submission.outcome()
        assert isinstance(outcome, Cancelled)
        await mesh.until(lambda: not ann.executor.works)
        with pytest.raises(UnknownTaskError, match="asked for by parent"):
            ann.cancel(next(iter(ann.driver.participant.contracts())).task)

    run(scenario)


def test_subtasks_of_a_handler_that_died_with_its_process_are_withdrawn() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        parent = await mesh.join("parent", Waiter)
        ann = await mesh.join("ann", Worker)
        eve = await mesh.join("eve")
        await mesh.linked(2)
        ask(eve).submit(Wait())
        await mesh.until(lambda: bool(ann.executor.works))
        mesh.kill(parent)
        parent = await mesh.join("parent")  # without the role: nobody takes the parent task up again
        await mesh.until(lambda: not ann.executor.works)
        assert parent.look.tasks(everything=True)["tasks"][0]["state"] in ("cancelled", "held", "calling")

    run(scenario)


def test_subtasks_of_subtasks_on_one_node_do_not_wait_for_each_other() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        node = await mesh.join("node", Nester, parallel=2)
        assert await ask(node).submit(Nest(12)) == 12

    run(scenario)


def test_a_body_does_not_bid_for_what_its_own_work_waits_for() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        dog = await mesh.join("dog", Escort, Dog, **LEGGED)
        submission = ask(dog).submit(Escorted("pump-7"))
        await mesh.until(lambda: bool(dog.executor.works))
        await asyncio.sleep(5)
        (refused,) = [
            dict(note.facts)["detail"]
            for row in dog.look.tasks()["tasks"]
            if row["kind"] == "unit.node.visit"
            for _, note in dog.stories.own(dog.look.find_task(row["id"]) or submission.id).lines
            if note.event == "refuse"
        ][:1]
        assert refused == "the work that asked for it holds this body until it is done"
        await mesh.join("other", Dog, **LEGGED)
        assert await submission == "dog with other"

    run(scenario)


# ---- devices

MAP = SiteMap(sites={"pump-7": (30.0, 0.0), "gate": (2.0, 0.0)})
LEGGED: dict[str, Any] = {
    "site_map": MAP,
    "body": Body(speed_mps=1.0),
    "actuators": {"legs": DeviceChoice(driver="simulated_legs", options={"speed_mps": 1.0})},
}


def test_the_nearest_walks_and_knows_where_it_stands_afterwards() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        near = await mesh.join("near", Dog, position_m=(20.0, 0.0), **LEGGED)
        await mesh.join("far", Dog, position_m=(-20.0, 0.0), **LEGGED)
        await mesh.linked(1)
        assert await ask(near).submit(Visit("pump-7")) == "near"
        assert near.body.position_m() == (30.0, 0.0)

    run(scenario)


def test_work_with_places_is_done_one_after_another_in_plan_order() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        dog = await mesh.join("dog", Dog, **LEGGED)
        far = ask(dog).submit(Visit("pump-7"))
        await mesh.until(lambda: bool(dog.executor.works))
        gate = ask(dog).submit(Visit("gate"))
        again = ask(dog).submit(Visit("pump-7"))
        await asyncio.gather(far.result(), gate.result(), again.result())
        # begun work is not interrupted; then what is at hand (pump-7 again) before the way back to the gate
        turns = [float(x) for x in RAN]
        assert turns[-1] == 2.0
        assert max(turns) == 30.0

    run(scenario)


def test_suspend_past_lease_legs_stop_when_the_asker_is_out_of_reach() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        dog = await mesh.join("dog", Dog, **LEGGED)
        eve = await mesh.join("eve")
        await mesh.linked(1)
        ask(eve).submit(Visit("pump-7"))
        await mesh.until(lambda: len(RAN) > 8)
        mesh.kill(eve)
        cut_s = mesh.loop.time()
        await mesh.until(lambda: not dog.executor.works)
        assert mesh.loop.time() - cut_s < 2.0, "before the lease has ended, by the stop time"
        stood = dog.body.position_m()
        await asyncio.sleep(10)
        assert dog.body.position_m() == stood

    run(scenario)


def test_an_actuator_refuses_a_handler_whose_lease_is_over() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        dog = await mesh.join("dog", Stubborn, **LEGGED)
        eve = await mesh.join("eve")
        await mesh.linked(1)
        ask(eve).submit(Visit("pump-7"))
        await mesh.until(lambda: bool(dog.executor.works))
        mesh.kill(eve)
        await mesh.until(lambda: RAN == ["refused"])

    run(scenario)


def test_a_device_fenced_after_the_point_of_no_return_is_in_doubt_and_not_given_back() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        dog = await mesh.join("dog", Presser, **LEGGED)
        eve = await mesh.join("eve")
        await mesh.linked(1)
        submission = ask(eve).submit(Visit("pump-7"))
        await mesh.until(lambda: RAN == ["passed"])
        mesh.kill(eve)
        await mesh.until(lambda: not dog.executor.works)
        contract = dog.driver.participant.find(submission.id)
        assert contract is not None
        assert contract.stage is Stage.IN_DOUBT

    run(scenario)


def test_a_role_without_its_driver_refuses_with_the_word() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        dog = await mesh.join("dog", Dog, site_map=MAP, body=Body(speed_mps=1.0))
        eve = await mesh.join("eve")
        await mesh.linked(1)
        submission = ask(eve).submit(Visit("gate"))
        undertaking = eve.driver.initiator.find(submission.id)
        await mesh.until(lambda: eve.driver.initiator.find(submission.id) is not None)
        undertaking = eve.driver.initiator.find(submission.id)
        assert undertaking is not None
        answer = dog.bidder.bid(undertaking.record, None, purpose="call")
        assert answer == Decline(Reason.CAPABILITY, "has no driver for legs")

    run(scenario)


# ---- news


def test_news_reach_roles_here_and_afar_and_a_failing_handler_goes_on() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        ear = await mesh.join("ear", Ear, Log)
        await mesh.join("far", Log)
        await mesh.linked(1)
        await mesh.until(lambda: len(RAN) == 2)
        assert sorted(RAN) == ["ear sees far", "far sees ear"]
        RAN.clear()
        stream = Ear.mic.of(role_of(ear, Ear))
        stream.feed(-1.0)
        stream.feed(162.0)
        await mesh.until(lambda: len(RAN) == 2)
        assert sorted(RAN) == ["ear heard 162 Hz from here", "far heard 162 Hz from afar"]

    run(scenario)


def test_timers_keep_their_pace_and_survive_a_failure() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        node = await mesh.join("node", Log)
        role = role_of(node, Log)
        await asyncio.sleep(55)
        assert role.ticks == 5

    run(scenario)


def test_a_peer_that_says_it_is_the_mesh_is_not_believed() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        node = await mesh.join("node", Log)
        liar = await mesh.join("liar")
        await mesh.linked(1)
        await mesh.until(lambda: bool(RAN))
        RAN.clear()
        liar.emit("mesh.BatteryLow", b"\x81\xa3soc\xcb?\xb9\x99\x99\x99\x99\x99\x9a")
        liar.emit("unit.node.Rattle", b"\x80")
        await asyncio.sleep(1)
        assert RAN == []
        assert node.agents.undecodable == 1

    run(scenario)


def test_a_low_battery_is_told_once_and_refuses_work() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        node = await mesh.join("node", Log, Greeter, battery_soc=0.5)
        await asyncio.sleep(20)
        assert RAN == []
        node.battery.value = 0.1  # type: ignore[attr-defined]
        await asyncio.sleep(20)
        assert RAN == ["low 0.1"]

    run(scenario)


def test_a_battery_that_will_not_last_gives_back_the_last_stop() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        thirsty = {**LEGGED, "body": Body(speed_mps=1.0, move_w=36.0, battery_wh=1.0)}  # 1 % a metre
        tired = await mesh.join("tired", Dog, battery_soc=1.0, **thirsty)
        eve = await mesh.join("eve")
        await mesh.linked(1)
        first, last = ask(eve).submit(Visit("pump-7")), ask(eve).submit(Visit("gate"))
        await mesh.until(lambda: len(tired.executor.works) == 2)
        await mesh.join("fresh", Dog, position_m=(500.0, 0.0), **LEGGED)
        await mesh.until(lambda: len(eve.peers()) == 2)
        tired.battery.value = 0.55  # type: ignore[attr-defined]
        assert await first == "tired", "what has begun is finished"
        assert await last == "fresh"

    run(scenario)


def test_a_handler_of_news_that_cancels_itself_is_called_again() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        node = await mesh.join("node", Quitter)
        node.emit("unit.node.Rattle", event_schema(Rattle).encode(Rattle(1.0)))
        node.emit("unit.node.Rattle", event_schema(Rattle).encode(Rattle(2.0)))
        await mesh.until(lambda: RAN == ["1", "2"])

    run(scenario)


def test_a_role_that_cannot_be_made_is_a_mistake_to_see_at_start() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        with pytest.raises(ConfigurationError, match="Unmade cannot be made: its __init__ raised OSError: no camera"):
            await mesh.join("node", Unmade)
        mesh.nodes.clear()
        with pytest.raises(ConfigurationError, match="both perform"):
            await mesh.join("other", Dog, Stubborn)
        mesh.nodes.clear()

    run(scenario)


# ---- leaving


def test_a_leaving_node_hands_its_work_back_with_the_checkpoint() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        first = await mesh.join("first", Worker)
        eve = await mesh.join("eve")
        await mesh.linked(1)
        submission = ask(eve).submit(Long(10))
        await mesh.until(lambda: len(RAN) == 1)
        second = await mesh.join("second", Worker)
        await mesh.until(lambda: len(eve.peers()) == 2)
        await asyncio.sleep(4.5)
        began_s = mesh.loop.time()
        await first.close(drain_s=1.0)
        assert mesh.loop.time() - began_s < 4.0
        assert await submission == "by second"
        assert RAN == ["first from 0", "second from 5"]
        assert second.look.status()["leaving"] is False

    run(scenario)


def test_a_leaving_node_finishes_what_it_can() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        first = await mesh.join("first", Worker)
        eve = await mesh.join("eve")
        await mesh.linked(1)
        submission = ask(eve).submit(Long(3))
        await mesh.until(lambda: len(RAN) == 1)
        closing = asyncio.ensure_future(first.close(drain_s=10.0))
        assert await submission == "by first"
        await closing
        assert mesh.loop.time() < 6.0, "nothing was left to wait for"

    run(scenario)


def test_what_waits_for_its_turn_is_handed_back_before_what_runs_has_ended() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        first = await mesh.join("first", Dog, **LEGGED)
        eve = await mesh.join("eve")
        await mesh.linked(1)
        walking, waiting = ask(eve).submit(Visit("pump-7")), ask(eve).submit(Visit("pump-7"))
        await mesh.until(lambda: len(first.executor.works) == 2)
        await mesh.join("second", Dog, **{**LEGGED, "position_m": (29.0, 0.0)})
        await mesh.until(lambda: len(eve.peers()) == 2)
        closing = asyncio.ensure_future(first.close(drain_s=600.0))
        assert sorted([await walking, await waiting]) == ["first", "second"]
        await closing

    run(scenario)


def test_asked_twice_a_node_leaves_at_once() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        first = await mesh.join("first", Worker)
        eve = await mesh.join("eve")
        await mesh.linked(1)
        ask(eve).submit(Long(1000))
        await mesh.until(lambda: len(RAN) == 1)
        slow = asyncio.ensure_future(first.close(drain_s=600.0))
        await asyncio.sleep(1)
        began_s = mesh.loop.time()
        await first.close(now=True)
        await slow
        assert mesh.loop.time() - began_s < 2.0

    run(scenario)


def test_a_drain_that_is_cancelled_still_stops_devices_and_says_goodbye() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        dog = await mesh.join("dog", Dog, **LEGGED)
        eve = await mesh.join("eve")
        await mesh.linked(1)
        ask(eve).submit(Visit("pump-7"))
        await mesh.until(lambda: len(RAN) > 4)
        draining = asyncio.ensure_future(dog.close(drain_s=600.0))
        await asyncio.sleep(1)
        draining.cancel()
        with pytest.raises(asyncio.CancelledError):
            await draining
        stood = dog.body.position_m()
        await mesh.until(lambda: not eve.peers())
        await asyncio.sleep(3)
        assert dog.body.position_m() == stood

    run(scenario)


def test_a_leaving_node_takes_no_more_tasks() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        node = await mesh.join("node", Greeter)
        waiting = ask(node).submit(Long(5))
        await mesh.until(lambda: bool(node.look.tasks()["tasks"]))
        await node.close(drain_s=0)
        outcome = await waiting.outcome()
        assert isinstance(outcome, Failed)
        assert outcome.reason is Reason.DRAINING
        with pytest.raises(Exception, match="leaving"):
            ask(node).submit(Greet("late"))

    run(scenario)


def test_a_node_whose_journal_fails_stops_its_devices_and_says_so() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        dog = await mesh.join("dog", Dog, **LEGGED)
        eve = await mesh.join("eve")
        await mesh.linked(1)
        ask(eve).submit(Visit("pump-7"))
        await mesh.until(lambda: len(RAN) > 4)
        mesh.journals["dog"].broken = JournalError("disk full")
        ask(dog).submit(Greet("x"))  # needs a commit
        await mesh.until(lambda: dog.failed is not None)
        stood = dog.body.position_m()
        await asyncio.sleep(3)
        assert dog.body.position_m() == stood
        assert dog.look.status()["failed"] == "disk full"

    run(scenario)


# ---- what people see


def test_documents_are_plain_json_and_name_their_shape() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        ann = await mesh.join("ann", Greeter, Worker, Dog, battery_soc=0.6, **LEGGED)
        eve = await mesh.join("eve")
        await mesh.linked(1)
        running, queued = ask(eve).submit(Long(30)), ask(eve).submit(Visit("pump-7"))
        await mesh.until(lambda: len(ann.executor.works) == 2)
        await asyncio.sleep(3)
        shapes = []
        for node in (ann, eve):
            for document in (node.look.status(), node.look.peers(), node.look.tasks(everything=True)):
                shapes.append(document["schema"])
                assert json.loads(json.dumps(document)) == document
        assert set(shapes) == {"meshagent.status/1", "meshagent.peers/1", "meshagent.tasks/1"}
        (row,) = [row for row in eve.look.tasks()["tasks"] if row["id"] == running.label]
        assert (row["state"], row["holder_name"], row["epoch"]) == ("executing", "ann", 1)
        assert row["progress"] > 0
        assert row["note"].startswith("step")
        mine = {row["id"]: row for row in ann.look.tasks()["tasks"]}
        assert mine[running.label]["asked_here"] is False
        assert mine[queued.label]["initiator_name"] == "eve"
        (agent,) = [a for a in ann.look.status()["agents"] if a["role"] == "Worker"]
        assert agent["running"][0]["task"] == running.label
        assert ann.look.status()["battery"]["soc"] == 0.6
        assert eve.look.peers()["peers"][0]["name"] == "ann"

    run(scenario)


def test_any_unique_prefix_means_the_task() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        eve = await mesh.join("eve")
        one, two = ask(eve).submit(Greet("a")), ask(eve).submit(Greet("b"))
        await mesh.until(lambda: len(eve.look.tasks()["tasks"]) == 2)
        for asked in (one.label, one.id, one.label[:12], one.id[:6], one.label.upper()):
            assert eve.look.find_task(asked) == one.id, asked
        assert eve.look.find_task("greet-") is None
        assert eve.look.find_task("") is None
        assert eve.look.find_task("other-" + one.id[:6]) is None
        assert {label for label, _ in eve.look.labels("greet")} == {one.label, two.label}
        assert eve.cancel(one.id)
        await mesh.until(lambda: not eve.cancel(one.id) if eve.driver.initiator.find(one.id) else False)
        with pytest.raises(UnknownTaskError):
            eve.resolve(two.id, done=True)

    run(scenario)


def test_watching_tells_what_happens_in_order() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        eve = await mesh.join("eve")
        watcher: AsyncIterator[dict[str, Any]] = eve.watching()
        ann = await mesh.join("ann", Greeter)
        await mesh.linked(1)
        await ask(eve).submit(Greet("world"))
        mesh.kill(ann)
        await mesh.until(lambda: not eve.peers())
        await eve.close()
        seen = [document async for document in watcher]
        events = [document["event"] for document in seen]
        wanted = ["peer_joined", "called", "propose", "accept_proposal", "commit", "inform", "peer_lost"]
        assert [event for event in events if event in wanted] == wanted
        assert json.loads(json.dumps(seen)) == seen
        states = [document["state"] for document in seen if document["event"] == "state"]
        assert states[0] == TaskState.CALLING.value
        assert states[-1] == TaskState.DONE.value
        assert all(document["schema"] == "meshagent.event/1" for document in seen)

    run(scenario)


def test_a_slow_watcher_misses_the_oldest_and_is_told_how_many() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        eve = await mesh.join("eve")
        watcher: Any = eve.watching()
        for number in range(5000):
            watcher.put({"number": number})
        first = await anext(watcher)
        assert first == {"number": 5000 - 4096, "missed": 5000 - 4096}
        assert await anext(watcher) == {"number": 5001 - 4096}

    run(scenario)


# ---- the story


def test_the_story_is_gathered_from_everybody_and_names_who_is_gone() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        first = await mesh.join("first", Worker)
        eve = await mesh.join("eve")
        await mesh.linked(1)
        submission = ask(eve).submit(Long(4), key="pump-7")
        await mesh.until(lambda: len(RAN) == 1)
        second = await mesh.join("second", Worker)
        await mesh.until(lambda: len(eve.peers()) == 2)
        await asyncio.sleep(2.5)
        mesh.kill(first)
        assert await submission == "by second"
        story = await second.why(submission.label)
        assert json.loads(json.dumps(story)) == story
        assert (story["schema"], story["outcome"], story["holder_name"]) == ("meshagent.why/1", "done", "second")
        assert (story["asked_by_name"], story["key"], story["spec"]) == ("eve", "pump-7", {"steps": 4})
        assert story["result"] == "by second"
        acts = [(epoch["epoch"], act["act"], act.get("name")) for epoch in story["epochs"] for act in epoch["acts"]]
        assert (1, "commit", "first") in acts
        assert (1, "lost", "first") in acts
        assert (2, "commit", "second") in acts
        assert (2, "inform", "second") in acts
        once = [act for act in acts if act[1] != "checkpoint"]  # there were several
        assert len(once) == len(set(once)), "each fact once, though two tell of it"
        times = [act["t_s"] for epoch in story["epochs"] for act in epoch["acts"]]
        assert times == sorted(times)
        assert [gone["name"] for gone in story["not_asked"]] == ["first"]
        assert {teller["name"] for teller in story["told_by"]} == {"eve", "second"}

    run(scenario)


def test_the_holder_tells_when_the_asker_is_gone() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        ann = await mesh.join("ann", Greeter)
        eve = await mesh.join("eve")
        await mesh.linked(1)
        submission = ask(eve).submit(Greet("world"))
        await submission
        await asyncio.sleep(2)
        mesh.kill(eve)
        await mesh.until(lambda: not ann.peers())
        story = await ann.why(submission.label)
        assert [gone["why"] for gone in story["not_asked"]] == ["not linked"]
        acts = [act["act"] for epoch in story["epochs"] for act in epoch["acts"]]
        assert "commit" in acts
        assert "inform" in acts

    run(scenario)


def test_a_stranger_finds_the_story_by_asking_around() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        await mesh.join("ann", Greeter)
        eve = await mesh.join("eve")
        visitor = await mesh.join("visitor", visitor=True)
        await mesh.linked(2)
        submission = ask(eve).submit(Greet("world"))
        await submission
        story = await visitor.why(submission.id[:8])
        assert (story["task"], story["outcome"]) == (submission.label, "done")
        with pytest.raises(UnknownTaskError, match="nobody in reach"):
            await visitor.why("greet-zzzz")

    run(scenario)


def test_a_node_that_has_just_come_waits_for_links_to_those_it_must_ask() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        await mesh.join("ann", Greeter)
        eve = await mesh.join("eve")
        await mesh.linked(1)
        submission = ask(eve).submit(Greet("world"))
        await submission
        visitor = await mesh.join("visitor", visitor=True)  # not linked yet
        story = await visitor.why(submission.id)
        assert {teller["name"] for teller in story["told_by"]} == {"ann", "eve"}
        assert story["not_asked"] == []

    run(scenario)


def test_a_visitor_offers_nothing() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        visitor = await mesh.join("visitor", Greeter, visitor=True)
        eve = await mesh.join("eve")
        await mesh.linked(1)
        assert eve.peers()[0].kinds == ()
        outcome = await ask(eve).submit(Greet("x"), within_s=2.0).outcome()
        assert isinstance(outcome, NoAward)
        assert visitor.look.status()["visitor"] is True

    run(scenario)
