"""Nodes in processes of their own, over real links: stopped, killed, computing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from meshagent.identity.files import private_folder
from meshagent.identity.fleet import dev_identity
from meshagent.runtime.clock import SystemClock
from meshagent.runtime.compose import open_node
from meshagent.runtime.node import Node
from meshagent.runtime.worker import boot_s
from meshagent.sdk.context import Context
from meshagent.sdk.outcome import Failed
from tests.support.node_child import config
from tests.support.stamping import STAMPS, Blocking, Crunching, Stamping

pytestmark = pytest.mark.network

LEASE_S = 2.0
"""Of the preset loopback."""


class Child:
    """A node that can be stopped and killed."""

    def __init__(self, process: subprocess.Popen[str], up: dict[str, Any]) -> None:
        self.process = process
        self.id: str = up["id"]
        self.port: int = up["port"]

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


@contextmanager
def child(folder: Path, name: str, *roles: str) -> Iterator[Child]:
    state = identity(folder, name)
    log = (folder / f"{name}.log").open("w", encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.node_child", str(state), name, "", *roles],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env={**os.environ, STAMPS: str(folder / f"{name}.stamps")},
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield Child(process, json.loads(process.stdout.readline()))
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
        log.close()


def identity(folder: Path, name: str) -> Path:
    state = private_folder(folder / name)
    dev_identity(folder / "fleet", state, name, now_s=SystemClock().wall_s())
    return state


@asynccontextmanager
async def asker(folder: Path, *children: Child) -> AsyncIterator[Node]:
    made = config([f"127.0.0.1:{one.port}" for one in children], node__name="eve")
    async with open_node(made, identity(folder, "eve"), fleet="test") as node:
        await until(lambda: len(node.peers()) == len(children))
        yield node


async def until(holds: Callable[[], bool], within_s: float = 15.0) -> None:
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.01)


def play(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(bounded())


def stamps(folder: Path, word: str) -> list[tuple[int, float]]:
    """(epoch, when) of each `down` or `stop`; a line that is just being written is left out."""
    file = folder / "dog.stamps"
    found = []
    for line in file.read_text("ascii").splitlines(keepends=True) if file.exists() else []:
        said, _, at_s = line.partition(" ")
        name, _, epoch = said.partition("-")
        if name == word and line.endswith("\n"):
            found.append((int(epoch or 0), float(at_s)))
    return found


def test_suspend_past_lease_a_process_that_wakes_stamps_no_more(tmp_path: Path) -> None:
    with child(tmp_path, "dog", "tests.support.stamping:Stamper") as dog:

        async def scenario() -> None:
            async with asker(tmp_path, dog) as eve:
                submission = Context(eve, "test").submit(Stamping(), within_s=600)
                await until(lambda: len(stamps(tmp_path, "down")) > 10)
                dog.send(signal.SIGSTOP)
                stopped_s = boot_s()
                # the asker may give the task to somebody else once it has waited this long
                await asyncio.sleep(LEASE_S * 1.06 + 0.1 + 0.3)
                dog.send(signal.SIGCONT)
                await until(lambda: bool(stamps(tmp_path, "stop")))
                first = stamps(tmp_path, "down")[0][0]
                # awarded anew, to whom else: under an epoch of its own
                await until(lambda: stamps(tmp_path, "down")[-1][0] > first)
                downs = stamps(tmp_path, "down")
                late = [at_s for epoch, at_s in downs if epoch == first and at_s > stopped_s + 0.2]
                assert not late, "stamped after its lease was over"
                submission.cancel()

        play(scenario)


def test_cut_off_from_its_asker_a_device_stops_before_the_lease_ends(tmp_path: Path) -> None:
    with child(tmp_path, "dog", "tests.support.stamping:Stamper") as dog:

        async def scenario() -> None:
            async with asker(tmp_path, dog) as eve:
                Context(eve, "test").submit(Stamping(), within_s=600)
                await until(lambda: len(stamps(tmp_path, "down")) > 10)
                eve.driver._running = False  # as if the asker had died without its kernel telling
                silent_s = boot_s()
                await until(lambda: bool(stamps(tmp_path, "stop")))
                last_s = stamps(tmp_path, "down")[-1][1]
                assert last_s < silent_s + LEASE_S, "acted beyond the lease"
                assert last_s > silent_s + 0.5, "stopped long before it had to"
                eve.driver._running = True

        play(scenario)


def test_computing_in_a_process_of_a_process_leaves_nothing_behind(tmp_path: Path) -> None:
    with child(tmp_path, "dog", "tests.support.stamping:Cruncher") as dog:

        async def scenario() -> None:
            async with asker(tmp_path, dog) as eve:
                context = Context(eve, "test")
                answer = await context.submit(Crunching(1000))
                worker = int(answer.split()[0])
                assert worker not in (dog.process.pid, os.getpid())
                endless = context.submit(Crunching(10**12))
                await until(lambda: eve.look.tasks()["tasks"] != [])
                await until(lambda: eve.look.tasks()["tasks"][0]["state"] == "executing")
                dog.send(signal.SIGKILL)
                await until(lambda: not _alive(worker))
                endless.cancel()
                assert not isinstance(await endless.outcome(), Failed)

        play(scenario)


def test_a_handler_that_holds_the_loop_is_named_and_its_node_lives_on(tmp_path: Path) -> None:
    with child(tmp_path, "dog", "tests.support.stamping:Blocker") as dog:

        async def scenario() -> None:
            async with asker(tmp_path, dog) as eve:
                context = Context(eve, "test")
                # longer than the lease and than the keepalive: everybody takes the device for lost meanwhile
                assert await context.submit(Blocking(LEASE_S + 0.5)) == "done"
                assert await context.submit(Blocking(0.0)) == "done"

        play(scenario)
        told = (tmp_path / "dog.log").read_text("utf-8")
        assert "stamping.py" in told
        assert 'Blocker.blocking held the loop for 2.5 s in "computing"; renewals were late (lease 2.0 s)' in told


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
