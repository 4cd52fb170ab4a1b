"""Roles that do not let go, in a file of their own: whoever hosts them may have to be killed."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from meshagent import Role, Task, task


@dataclass(frozen=True)
class Deaf(Task[str]):
    """Never ends, whatever it is told."""


@dataclass(frozen=True)
class Spin(Task[str]):
    """Holds the loop for ever."""


class Stubborn(Role):
    @task
    async def ignore(self, job: Deaf) -> str:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1.0)

    @task
    async def spin(self, job: Spin) -> str:
        while True:
            pass
