"""A role that stamps again and again, and a stamp that writes down when it came down: an effect one can date."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import Any

from meshagent.devices import ActuatorDriver
from meshagent.runtime.worker import boot_s
from meshagent.sdk.context import TaskContext
from meshagent.sdk.declare import task
from meshagent.sdk.kinds import Task
from meshagent.sdk.role import Role
from meshagent.sdk.sensing import actuator

STAMPS = "MESHAGENT_TEST_STAMPS"
"""Names the file in the environment of the child."""


@dataclass(frozen=True)
class Stamping(Task[int], kind="test.stamping.v1"):
    """`at_most_once`, the default."""

    every_s: float = 0.02


@dataclass(frozen=True)
class Crunching(Task[str], kind="test.crunching.v1", delivery="at_least_once"):
    rounds: int


class Stamp(ActuatorDriver[Any]):
    def down(self, epoch: int) -> None:
        raise NotImplementedError


class FileStamp(Stamp):
    def down(self, epoch: int) -> None:
        with open(os.environ[STAMPS], "a", encoding="ascii") as file:
            file.write(f"down-{epoch} {boot_s():.6f}\n")

    def stop(self) -> None:
        with open(os.environ[STAMPS], "a", encoding="ascii") as file:
            file.write(f"stop {boot_s():.6f}\n")


class Stamper(Role):
    stamp = actuator(Stamp)

    @task
    async def stamping(self, job: Stamping, ctx: TaskContext) -> int:
        async with ctx.use(self.stamp) as stamp:
            for _ in range(100_000):
                stamp.down(ctx.epoch.counter)
                await asyncio.sleep(job.every_s)
        return 0


class Cruncher(Role):
    @task(worker="process", memory_mib=64)
    def crunching(self, job: Crunching) -> str:
        total = 0
        for number in range(job.rounds):
            total += number * number
        return f"{os.getpid()} {total}"


@dataclass(frozen=True)
class Blocking(Task[str], kind="test.blocking.v1", delivery="at_least_once"):
    for_s: float


def computing(for_s: float) -> None:
    """Holds whoever calls it."""
    end_s = boot_s() + for_s
    while boot_s() < end_s:
        pass


class Blocker(Role):
    @task
    async def blocking(self, job: Blocking) -> str:
        computing(job.for_s)
        return "done"
