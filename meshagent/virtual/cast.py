"""Who plays in the scenarios: kinds of task and roles that do what can break a promise, by the public SDK alone.

`Press` acts once and for all, behind a point of no return; `Look` may be repeated and keeps its readings; `Round`
asks others. What a handler does besides (give back, raise, hand on) is written in the task, so that the seed draws it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from meshagent.sdk.context import TaskContext
from meshagent.sdk.declare import task
from meshagent.sdk.kinds import Task
from meshagent.sdk.place import Place, Site
from meshagent.sdk.role import Role
from meshagent.sdk.sensing import actuator
from meshagent.types import Reason, TaskId


@dataclass(frozen=True)
class Press(Task[str], kind="virtual.press.v1", delivery="at_most_once"):
    """Press a button once: pressing twice does harm."""

    button: str
    walk_s: float
    site: str = ""
    reach_s: float = 0.0
    """Between the point of no return and the effect."""
    linger_s: float = 0.0
    """The device is still in use after the effect."""
    give_back: int = 0
    """Attempts that give the task back halfway."""
    raises: bool = False
    """Fails before anything has happened."""
    then: bool = False
    """Asks for a look at the button, together with the result."""

    def place(self) -> Place | None:
        return Site(self.site) if self.site else None

    def duration_s(self) -> float:
        return self.walk_s + self.reach_s + self.linger_s


@dataclass(frozen=True)
class Look(Task[int], kind="virtual.look.v1", delivery="at_least_once"):
    """Look at something a few times: looking again does no harm."""

    what: str
    looks: int
    look_s: float
    give_back: int = 0

    def duration_s(self) -> float:
        return self.looks * self.look_s


@dataclass(frozen=True)
class Round(Task[str], kind="virtual.round.v1", delivery="at_least_once"):
    """Ask others: a look and a press at once, then another look."""

    tag: str
    walk_s: float

    def duration_s(self) -> float:
        return 3 * self.walk_s


@dataclass
class Seen:
    """What the next holder of a `Look` continues from."""

    values: list[int] = field(default_factory=list)


class Button:
    """A device whose `press` cannot be undone."""

    def __init__(self, pressed: Callable[[TaskId], None], stopped: Callable[[], None] = lambda: None) -> None:
        self._pressed = pressed
        self._stopped = stopped

    def press(self, for_task: TaskId) -> None:
        """The effect."""
        self._pressed(for_task)

    def stop(self) -> None:
        """Nothing moves any more."""
        self._stopped()


class Presser(Role):
    """Presses buttons."""

    button = actuator(Button)

    @task
    async def press(self, job: Press, ctx: TaskContext) -> str:
        for step in range(4):
            await asyncio.sleep(job.walk_s / 4)
            ctx.progress(0.2 * (step + 1), f"leg {step + 1} of 4")
            if step == 1 and ctx.attempt <= job.give_back:
                ctx.forfeit(Reason.BATTERY, detail="not enough for the way back")
            if step == 2 and job.raises:
                raise ValueError(f"button {job.button} is missing")
        async with ctx.use(self.button) as button:
            await ctx.point_of_no_return()
            await asyncio.sleep(job.reach_s)
            button.press(ctx.task_id)
            await asyncio.sleep(job.linger_s)
        if job.then:
            ctx.then(Look(job.button, 1, job.walk_s / 4))
        return f"{job.button} pressed by {self.node.name}"


class Looker(Role):
    """Looks at things."""

    eye = actuator(Button)

    @task
    async def look(self, job: Look, ctx: TaskContext) -> int:
        seen = ctx.resumed(Seen) or Seen()
        while len(seen.values) < job.looks:
            await asyncio.sleep(job.look_s)
            async with ctx.use(self.eye) as eye:
                eye.press(ctx.task_id)
            seen.values.append(len(seen.values) + 1)
            await ctx.checkpoint(seen)
            ctx.progress(len(seen.values) / job.looks, "")
            if ctx.attempt <= job.give_back:
                ctx.forfeit(Reason.BATTERY, checkpoint=seen)
        return sum(seen.values)


class Rounder(Role):
    """Asks others to look and press."""

    @task
    async def go_round(self, job: Round, ctx: TaskContext) -> str:
        looked, pressed = await ctx.gather(Look(job.tag, 2, job.walk_s / 2), Press(job.tag, job.walk_s))
        again = await ctx.submit(Look(job.tag, 1, job.walk_s / 2))
        return f"{looked}/{pressed}/{again}"
