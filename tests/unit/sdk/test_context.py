# ruff: noqa: PT012 - the statements inside `async with ctx.use(...)` are what raises
"""What a handler can do: ask, wait, tell, give back, and move a device only while it may."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest

from meshagent import (
    Cancelled,
    ConfigurationError,
    Context,
    Done,
    Event,
    Failed,
    LeaseLostError,
    NoAward,
    PeerJoined,
    Reason,
    SchemaError,
    Task,
    TaskContext,
    TaskFailedError,
)
from meshagent.errors import LocalProtocolError
from meshagent.sdk.backend import RawOutcome
from meshagent.sdk.errors import ForfeitSignal
from meshagent.sdk.schema import schema_of
from meshagent.sdk.sensing import ActuatorHandle
from meshagent.types import Durability, TaskId, TaskState
from tests.unit.sdk.doubles import ScriptedNode, ScriptedWork


@dataclass(frozen=True)
class Double(Task[int], kind="context.double", delivery="at_least_once"):
    x: int


@dataclass(frozen=True)
class Rattle(Event, name="context.rattle"):
    hz: float


@dataclass
class Readings:
    rms_g: list[float] = field(default_factory=list)


class Arm:
    """A device that notes what reached it."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.speed = 1.0

    def stop(self) -> None:
        self.log.append("stop")

    def grip(self) -> str:
        self.log.append("grip")
        return "gripped"

    async def lift(self) -> None:
        self.log.append("lift")

    async def sweep(self) -> AsyncIterator[int]:
        for step in range(10):
            self.log.append(f"step {step}")
            yield step


def run(test: Callable[[ScriptedNode, ScriptedWork, TaskContext], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        node, work = ScriptedNode(), ScriptedWork()
        async with asyncio.timeout(5):
            await test(node, work, TaskContext(node, work, "Tester"))

    asyncio.run(main())


def done(value: object) -> RawOutcome:
    return RawOutcome(state=TaskState.DONE, result=schema_of(type(value)).encode(value))


def handle_of(arm: Arm) -> ActuatorHandle[Arm]:
    handle = ActuatorHandle[Arm]("arm")
    handle.connect(arm)
    return handle


# ---- asking


def test_awaiting_a_submission_gives_the_result() -> None:
    async def test(node: ScriptedNode, work: ScriptedWork, ctx: TaskContext) -> None:
        ask = ctx.submit(Double(2), key="k", within_s=3.0, priority=-1, durability="local")
        [request] = node.requests
        assert (request.kind, request.key, request.within_s, request.priority) == ("context.double", "k", 3.0, -1)
        assert request.durability is Durability.LOCAL
        assert request.parent == work.record.task
        node.pendings[0].ended.set_result(done(4))
        await ask.accepted()
        assert await ask == 4
        assert await ask.outcome() == Done(4, ask.id)
        assert ask.label == f"double-{ask.id}"

    run(test)


def test_news_have_no_parent_task() -> None:
    async def main() -> None:
        node = ScriptedNode()
        Context(node, "Tester").submit(Double(1))
        assert node.requests[0].parent is None

    asyncio.run(main())


@pytest.mark.parametrize(
    ("raw", "outcome"),
    [
        (RawOutcome(state=TaskState.FAILED, reason=Reason.NO_BIDS, detail="3 refusals"), NoAward),
        (RawOutcome(state=TaskState.FAILED, reason=Reason.EXPIRED), NoAward),
        (RawOutcome(state=TaskState.FAILED, reason=Reason.EXPIRED, holder=ScriptedNode().id), Failed),
        (RawOutcome(state=TaskState.FAILED, reason=Reason.ERROR, detail="ZeroDivisionError"), Failed),
        (RawOutcome(state=TaskState.CANCELLED), Cancelled),
        (RawOutcome(state=TaskState.DONE), Failed),
        (RawOutcome(state=TaskState.DONE, result=b"\xa1x"), Failed),
        (RawOutcome(state=TaskState.DONE, result=b"\xc1"), Failed),
    ],
)
def test_everything_but_a_result_is_a_value_or_raises(raw: RawOutcome, outcome: type) -> None:
    async def test(node: ScriptedNode, work: ScriptedWork, ctx: TaskContext) -> None:
        ask = ctx.submit(Double(2))
        node.pendings[0].ended.set_result(raw)
        told = await ask.outcome()
        assert type(told) is outcome
        with pytest.raises(TaskFailedError) as caught:
            await ask
        assert caught.value.outcome == told
        assert caught.value.reason is told.reason  # type: ignore[union-attr]
        assert caught.value.next_step == f"meshagent why {ask.label}"

    run(test)


def test_gather_gives_all_results_in_order() -> None:
    async def test(node: ScriptedNode, work: ScriptedWork, ctx: TaskContext) -> None:
        both = asyncio.ensure_future(ctx.gather(Double(1), Double(2)))
        while len(node.pendings) < 2:
            await asyncio.sleep(0)
        node.pendings[1].ended.set_result(done(4))
        node.pendings[0].ended.set_result(done(2))
        assert await both == (2, 4)

    run(test)


def test_gather_withdraws_the_others_when_one_fails() -> None:
    async def test(node: ScriptedNode, work: ScriptedWork, ctx: TaskContext) -> None:
        three = asyncio.ensure_future(ctx.gather(Double(1), Double(2), Double(3)))
        while len(node.pendings) < 3:
            await asyncio.sleep(0)
        node.pendings[1].ended.set_result(RawOutcome(state=TaskState.FAILED, reason=Reason.ERROR))
        with pytest.raises(TaskFailedError):
            await three
        assert all(pending.cancelled_with for pending in node.pendings)

    run(test)


def test_a_cancelled_gather_withdraws_all_of_its_parts() -> None:
    async def test(node: ScriptedNode, work: ScriptedWork, ctx: TaskContext) -> None:
        both = asyncio.ensure_future(ctx.gather(Double(1), Double(2)))
        while len(node.pendings) < 2:
            await asyncio.sleep(0)
        both.cancel()
        with pytest.raises(asyncio.CancelledError):
            await both
        assert all(pending.cancelled_with for pending in node.pendings)

    run(test)


@pytest.mark.parametrize(
    "options",
    [
        {"within_s": 0.0},
        {"within_s": math.nan},
        {"within_s": math.inf},
        {"within_s": -1.0},
        {"priority": 10_000},
        {"priority": True},
        {"priority": 1.5},
        {"key": "k" * 201},
    ],
)
def test_terms_that_make_no_sense_are_refused_before_anything_is_sent(options: dict[str, Any]) -> None:
    async def test(node: ScriptedNode, work: ScriptedWork, ctx: TaskContext) -> None:
        with pytest.raises(LocalProtocolError):
            ctx.submit(Double(1), **options)
        assert not node.requests

    run(test)


# ---- telling


def test_events_travel_by_name_and_schema_and_the_meshs_own_cannot_be_emitted() -> None:
    async def test(node: ScriptedNode, work: ScriptedWork, ctx: TaskContext) -> None:
        ctx.emit(Rattle(3.5))
        [(name, body)] = node.emitted
        assert (name, schema_of(Rattle).decode(body)) == ("context.rattle", Rattle(3.5))
        with pytest.raises(LocalProtocolError, match="PeerJoined is told by the mesh itself"):
            ctx.emit(PeerJoined(None))  # type: ignore[arg-type]

    run(test)


def test_progress_is_bounded_and_never_nan() -> None:
    async def test(node: ScriptedNode, work: ScriptedWork, ctx: TaskContext) -> None:
        for share in (0.1234, -1, 7):
            ctx.progress(share, "x" * 900)
        assert [permille for permille, _ in work.reports] == [123, 0, 1000]
        assert {len(note) for _, note in work.reports} == {500}
        with pytest.raises(LocalProtocolError):
            ctx.progress(math.nan)

    run(test)


def test_a_checkpoint_comes_back_to_the_next_holder() -> None:
    async def test(node: ScriptedNode, work: ScriptedWork, ctx: TaskContext) -> None:
        assert ctx.resumed(Readings) is None
        await ctx.checkpoint(Readings([0.5]))
        work.checkpoint_received = work.checkpoints[0]
        assert ctx.resumed(Readings) == Readings([0.5])
        with pytest.raises(SchemaError, match="takes 45"):
            await ctx.checkpoint(Readings([0.1] * 5000))

    run(test)


def test_a_checkpoint_of_another_version_is_logged_and_counts_as_none(caplog: pytest.LogCaptureFixture) -> None:
    async def test(node: ScriptedNode, work: ScriptedWork, ctx: TaskContext) -> None:
        for nonsense in (b"\xa1x", b"", b"\xc1", b"\x81\xa5other\x01"):
            work.checkpoint_received = nonsense
            assert ctx.resumed(Readings) is None

    with caplog.at_level(logging.WARNING, "meshagent.roles"):
        run(test)
    assert len(caplog.records) == 4
    assert caplog.records[0].node == "ann"  # type: ignore[attr-defined]
    assert caplog.records[0].conversation_id == "p" * 32  # type: ignore[attr-defined]


def test_follow_ups_carry_their_parent_and_forfeit_carries_the_checkpoint() -> None:
    async def test(node: ScriptedNode, work: ScriptedWork, ctx: TaskContext) -> None:
        ctx.then(Double(3), key="next")
        assert [(request.kind, request.key, request.parent) for request in work.follow_ups] == [
            ("context.double", "next", TaskId("p" * 32))
        ]
        with pytest.raises(ForfeitSignal) as caught:
            try:
                ctx.forfeit(Reason.BATTERY, "9 %", checkpoint=Readings([1.0]))
            except Exception:  # noqa: BLE001 - what a role author may write
                pytest.fail("a broad except of the role kept the task")
        assert caught.value.reason is Reason.BATTERY
        assert caught.value.checkpoint is not None
        await ctx.point_of_no_return()
        assert work.points == 1

    run(test)


# ---- moving


def test_a_device_in_use_does_what_it_is_told_and_is_stopped_afterwards() -> None:
    async def test(node: ScriptedNode, work: ScriptedWork, ctx: TaskContext) -> None:
        bare = Arm()
        async with ctx.use(handle_of(bare)) as arm:
            assert isinstance(arm, Arm)
            assert arm.grip() == "gripped"
            await arm.lift()
            arm.speed = 2.0
            assert [step async for step in arm.sweep()][-1] == 9
        assert bare.log == ["grip", "lift", *(f"step {n}" for n in range(10)), "stop"]
        assert bare.speed == 2.0
        assert not work.fences

    run(test)


def test_suspend_past_lease_nothing_moves_though_no_timer_fired() -> None:
    async def test(node: ScriptedNode, work: ScriptedWork, ctx: TaskContext) -> None:
        bare = Arm()
        with pytest.raises(LeaseLostError, match="arm may not move: the lease has ended"):
            async with ctx.use(handle_of(bare)) as arm:
                node.clock_s = work.until_s  # the process was suspended and wakes here
                arm.grip()
        assert bare.log == ["stop"]

    run(test)


def test_a_walk_ends_at_the_step_at_which_the_lease_ends() -> None:
    async def test(node: ScriptedNode, work: ScriptedWork, ctx: TaskContext) -> None:
        bare = Arm()
        with pytest.raises(LeaseLostError):
            async with ctx.use(handle_of(bare)) as arm:
                async for step in arm.sweep():
                    if step == 3:
                        node.clock_s = work.until_s + 1
        assert bare.log == ["step 0", "step 1", "step 2", "step 3", "stop"]

    run(test)


def test_a_call_made_before_and_awaited_after_the_lease_does_nothing() -> None:
    async def test(node: ScriptedNode, work: ScriptedWork, ctx: TaskContext) -> None:
        bare = Arm()
        with pytest.raises(LeaseLostError):
            async with ctx.use(handle_of(bare)) as arm:
                later = arm.lift()
                node.clock_s = work.until_s + 1
                await later
        assert bare.log == ["stop"]

    run(test)


def test_the_fence_stops_the_device_first_and_nothing_moves_it_again() -> None:
    async def test(node: ScriptedNode, work: ScriptedWork, ctx: TaskContext) -> None:
        bare = Arm()
        with pytest.raises(LeaseLostError, match="a newer epoch was heard"):
            async with ctx.use(handle_of(bare)) as arm:
                [fence] = work.fences
                fence()
                assert bare.log == ["stop"]
                arm.speed = 9.0
        assert bare.speed == 1.0

    run(test)


def test_a_device_kept_after_its_block_does_not_move() -> None:
    async def test(node: ScriptedNode, work: ScriptedWork, ctx: TaskContext) -> None:
        async with ctx.use(handle_of(Arm())) as arm:
            pass
        with pytest.raises(LeaseLostError, match="has ended"):
            arm.grip()
        arm.stop()  # stopping is always allowed

    run(test)


def test_a_lease_that_is_over_gets_no_device_at_all() -> None:
    async def test(node: ScriptedNode, work: ScriptedWork, ctx: TaskContext) -> None:
        node.clock_s = work.until_s
        with pytest.raises(LeaseLostError):
            async with ctx.use(handle_of(Arm())):
                pytest.fail("the block was entered")

    run(test)


def test_an_actuator_without_a_driver_says_what_to_write() -> None:
    async def test(node: ScriptedNode, work: ScriptedWork, ctx: TaskContext) -> None:
        with pytest.raises(ConfigurationError) as caught:
            async with ctx.use(ActuatorHandle[Arm]("arm")):
                pytest.fail("the block was entered")
        assert caught.value.next_step == 'add to meshagent.toml: [actuators.arm] driver = "..."'

    run(test)


def test_two_contracts_do_not_move_one_device_at_once() -> None:
    async def test(node: ScriptedNode, work: ScriptedWork, ctx: TaskContext) -> None:
        handle, inside, most = handle_of(Arm()), 0, 0

        async def use() -> None:
            nonlocal inside, most
            async with ctx.use(handle):
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0)
                inside -= 1

        await asyncio.gather(use(), use(), use())
        assert most == 1

    run(test)
