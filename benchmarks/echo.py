"""The smallest task: 200 bytes of specification, 200 bytes of result, no place, no time."""

from __future__ import annotations

from dataclasses import dataclass

from meshagent import Role, Task, task


@dataclass(frozen=True)
class Echo(Task[bytes], kind="bench.echo.v1"):
    payload: bytes


@dataclass(frozen=True)
class EchoAgain(Task[bytes], kind="bench.echo_again.v1", delivery="at_least_once"):
    payload: bytes


class Echoer(Role):
    @task
    async def echo(self, job: Echo) -> bytes:
        return job.payload

    @task
    async def echo_again(self, job: EchoAgain) -> bytes:
        return job.payload
