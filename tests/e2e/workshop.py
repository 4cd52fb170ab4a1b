"""Roles for the tests of the command line: quick, slow, failing and picky ones."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from meshagent import Call, Reason, Refusal, Role, Task, TaskContext, task


@dataclass(frozen=True)
class Greet(Task[str]):
    name: str


@dataclass(frozen=True)
class Slow(Task[str], delivery="at_least_once"):
    seconds: float = 1.0


@dataclass(frozen=True)
class Break(Task[str]):
    what: str


@dataclass(frozen=True)
class Picky(Task[str]):
    pass


@dataclass(frozen=True)
class Drill(Task[str]):
    pass


class Worker(Role):
    @task
    async def greet(self, job: Greet) -> str:
        return f"hello {job.name}, {self.node.name} speaking"

    @task
    async def slow(self, job: Slow, ctx: TaskContext) -> str:
        for step in range(20):
            ctx.progress(step / 20, f"step {step}")
            await asyncio.sleep(job.seconds / 20)
        return f"done by {self.node.name}"

    @task
    async def drill(self, job: Drill, ctx: TaskContext) -> str:
        await ctx.point_of_no_return()
        ctx.progress(0.5, "drilling")
        await asyncio.sleep(60)
        return "drilled"

    @task
    async def break_it(self, job: Break) -> str:
        raise ValueError(f"the {job.what} is broken")

    @task
    async def pick(self, job: Picky) -> str:
        return "never"

    @pick.feasible
    def can_pick(self, call: Call[Picky]) -> Refusal | None:
        return call.refuse(Reason.CALIBRATION, "the gripper was last calibrated 43 days ago")
