"""What a role author writes, with the types that a checker must see. Checked by mypy, never run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_type

from meshagent import (
    Call,
    Cancelled,
    Context,
    Done,
    Event,
    Failed,
    NoAward,
    PeerJoined,
    Place,
    Proposal,
    Reason,
    Refusal,
    Requires,
    Role,
    Sample,
    Site,
    Task,
    TaskContext,
    actuator,
    every,
    on,
    sensor,
    task,
)
from meshagent.devices import Legs, Waveform


@dataclass(frozen=True)
class Finding:
    ok: bool


@dataclass(frozen=True)
class Check(Task[Finding], kind="x.check.v1", delivery="at_least_once", requires=Requires({"probe"})):
    site: str

    def place(self) -> Place:
        return Site(self.site)


@dataclass(frozen=True, slots=True)
class Count(Task[int], in_doubt="wait", approval=True):
    upto: int


@dataclass(frozen=True)
class Names(Task[list[str] | None]):
    pass


@dataclass(frozen=True)
class Rattle(Event):
    hz: float


class Dog(Role):
    requires = Requires(capabilities={"legs"}, memory_mib=4)
    legs = actuator(Legs)
    probe = sensor(Waveform, window_s=4.0)
    ready = True

    @task
    async def check(self, job: Check, ctx: TaskContext) -> Finding:
        assert_type(ctx.resumed(Finding), Finding | None)
        async with ctx.use(self.legs) as legs:
            assert_type(legs, Legs)
            async for stretch in legs.walk_to(Site(job.site)):
                ctx.progress(stretch.share)
        sample = await self.probe.next(timeout_s=1)
        assert_type(sample, Sample[Waveform])
        assert_type(sample.value.rms(), float)
        ctx.then(Count(3))
        if not self.ready:
            ctx.forfeit(Reason.BATTERY, "low", checkpoint=Finding(False))
        return Finding(True)

    @check.feasible
    def can_check(self, call: Call[Check]) -> Refusal | None:
        assert_type(call.task, Check)
        return None if self.ready else call.refuse(Reason.CALIBRATION, call.task.site)

    @check.price
    def price(self, call: Call[Check]) -> Proposal:
        return call.propose(call.insertion().added_s + 1, because="cold") if call.plan.stops else call.propose()

    @task(worker="process", timeout_s=3.0, memory_mib=64)
    def count(self, job: Count) -> int:
        return job.upto

    @task
    async def names(self, job: Names, ctx: Context) -> list[str] | None:
        first = await ctx.submit(Count(1), key="a", within_s=3, durability="local")
        assert_type(first, int)
        assert_type(await ctx.submit(Check("a")).outcome(), Done[Finding] | NoAward | Failed | Cancelled)
        assert_type(await ctx.gather(Count(1), Check("b")), tuple[int, Finding])
        assert_type(await ctx.gather(Count(1), Check("b"), Names()), tuple[int, Finding, list[str] | None])
        assert_type(await ctx.gather(*(Count(n) for n in range(9))), tuple[int, ...])
        match await ctx.submit(Count(2)).outcome():
            case Done(result):
                assert_type(result, int)
            case NoAward(reason) | Failed(reason) | Cancelled(reason):
                assert_type(reason, Reason)
        return None

    @on(probe)
    async def felt(self, sample: Sample[Waveform], ctx: Context) -> None:
        ctx.emit(Rattle(sample.value.rms()))

    @on(Rattle)
    async def heard(self, event: Rattle) -> None:
        assert_type(event.hz, float)

    @on(PeerJoined)
    def met(self, event: PeerJoined, ctx: Context) -> None:
        ctx.log.info("%s is here", event.peer.name)

    @every(5.0)
    async def beat(self, ctx: Context) -> None: ...


async def used_as_a_method(dog: Dog, ctx: TaskContext) -> None:
    assert_type(await dog.check(Check("a"), ctx), Finding)
    assert_type(dog.count(Count(1)), int)
