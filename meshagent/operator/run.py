"""`meshagent run`: a node with its roles, its local API, and a timeline for whoever watches the terminal.

The first Ctrl-C (or SIGTERM) lets it finish or hand back what it does; the second ends it at once; a third, or five
seconds after the second, also where a role holds the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from meshagent.config import Config
from meshagent.errors import MeshAgentError
from meshagent.operator import logs
from meshagent.operator.desk import NodeDesk
from meshagent.operator.dev import settle_in, take_node
from meshagent.operator.device import identity_of
from meshagent.operator.exits import CommandError, Exit
from meshagent.operator.facts import FactsMaker
from meshagent.operator.places import DevPlaces, NodeLock, running_in, state_of, who_has_port
from meshagent.operator.render import clean, duration
from meshagent.operator.server import OperatorServer
from meshagent.operator.story import Timeline
from meshagent.runtime.compose import open_node, run_loop
from meshagent.sdk.loader import load_roles
from meshagent.sdk.role import RoleSpec

if TYPE_CHECKING:
    from meshagent.operator.grammar import Screen
    from meshagent.runtime.node import Node

TIMELINE: Final = frozenset(
    {
        "peer_joined", "peer_lost", "battery_low", "called", "propose", "refuse", "accept_proposal", "commit",
        "ended", "backoff", "lost", "lease_ended", "fenced", "adopted", "restarted", "in_doubt", "forged", "expired",
        "cancelled", "inform", "failure", "forfeit",
    }
)  # fmt: skip
"""What the terminal of `run` shows; `watch` shows everything."""

FORCE_AFTER_S: Final = 5.0
"""Leaving at once takes up to two seconds of closing devices, processes and links; nothing of ours takes longer."""

log = logging.getLogger(__name__)


def run_node(screen: Screen, references: Sequence[str], flags: Mapping[str, tuple[str, object]]) -> Exit:
    """Run until somebody ends it."""
    config = screen.load_config(flags)
    specs = load_roles([*_written(config), *references])
    if screen.dev:
        name, lock = take_node(config, config.node.name)
    else:
        name, lock = "", _take(config, screen)
    own = config
    try:
        if screen.dev:
            own = embodied(settle_in(config, name, lock), specs)
        passphrase, fleet = identity_of(lock.state)
        node_logs(screen, config)
        return run_loop(_Running(screen, own, config, lock, specs, passphrase, fleet).run())
    finally:
        lock.release()


def node_logs(screen: Screen, config: Config) -> None:
    """The log of a node: on a terminal the timeline tells the news, so that the log keeps to warnings unless asked."""
    asked = config.origin("log.level").source != "default"
    terminal = config.log.format == "text" or (config.log.format == "auto" and sys.stderr.isatty())
    logs.set_up(config.log, level="warning" if terminal and not asked else None)


def _written(config: Config) -> list[str]:
    """Roles that the configuration names; files lie beside the configuration file."""
    roles = list(config.node.roles)
    if config.origin("node.roles").source == "file":
        return [str(config.folder / role) if role.partition(":")[0].endswith(".py") else role for role in roles]
    return roles


def _take(config: Config, screen: Screen) -> NodeLock:
    state = state_of(config)
    lock = NodeLock(state)
    if not lock.take():
        found = running_in(state)
        who = f"{found.name or 'another node'} (pid {found.pid})" if found else "another node"
        raise CommandError(
            f"{who} runs with the identity in {state} already.",
            exit_code=Exit.CONFIGURATION,
            next_step="meshagent status   or a second node, with an identity of its own: "
            "meshagent init --state DIR, then meshagent run ROLE --state DIR --port 0",
        )
    return lock


def embodied(config: Config, specs: Sequence[RoleSpec]) -> Config:
    """On the throw-away fleet a body has what its roles need: nobody certifies legs to try a role."""
    needed = {str(word) for spec in specs for word in spec.requires.capabilities}
    needed |= {str(word) for spec in specs for task in spec.tasks for word in task.kind.requires.capabilities}
    node = replace(config.node, capabilities=tuple(sorted({*config.node.capabilities, *needed})))
    return replace(config, node=node)


def since_start_s() -> float:
    """How long this process has run: what a person waited for, the interpreter and its imports included."""
    # proc(5): field 22 is the start in clock ticks since boot; the name in field 2 may hold blanks and brackets
    fields = Path("/proc/self/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


class _Running:
    """One node from start to end."""

    def __init__(
        self,
        screen: Screen,
        config: Config,
        outer: Config,
        lock: NodeLock,
        specs: Sequence[RoleSpec],
        passphrase: str | None,
        fleet: str,
    ) -> None:
        self._screen = screen
        self._config = config
        self._outer = outer
        """As loaded, before the throw-away fleet gave the node a state folder of its own; others are found by it."""
        self._lock = lock
        self._specs = specs
        self._passphrase = passphrase
        self._fleet = fleet
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._failure: Exception | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._signals = 0
        self._force: threading.Timer | None = None

    async def run(self) -> Exit:
        self._loop = asyncio.get_running_loop()
        # Not the loop's own way: a role may hold the loop, and who presses Ctrl-C then means it all the more.
        before = {number: signal.signal(number, self._signalled) for number in (signal.SIGINT, signal.SIGTERM)}
        state = self._lock.state
        try:
            async with self._open(state) as node:
                port = int(getattr(node.transport, "listen_port", 0))
                self._lock.describe(name=node.name, port=port)
                desk = NodeDesk(
                    node,
                    facts=FactsMaker(node, self._config, state),
                    shut_down=lambda now: self._end(now=now),
                    state=state,
                )
                async with OperatorServer(desk, state), asyncio.TaskGroup() as group:
                    self._announce(node, port)
                    group.create_task(self._tell(node))
                    await self._stop.wait()
                    await self._leave(node, group)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            if self._force is not None:
                self._force.cancel()
        if self._failure is not None:
            if isinstance(self._failure, MeshAgentError):
                raise self._failure
            raise CommandError(f"The node had to stop: {self._failure}", exit_code=Exit.FAILED)
        return Exit.DONE

    @contextlib.asynccontextmanager
    async def _open(self, state: Path) -> AsyncIterator[Node]:
        try:
            async with open_node(
                self._config,
                state,
                self._specs,
                fleet=self._fleet,
                passphrase=self._passphrase,
                simulate=self._screen.dev,
                on_failure=self._fail,
            ) as node:
                yield node
        except MeshAgentError as error:
            raise self._with_holder(error) from error

    def _with_holder(self, error: MeshAgentError) -> MeshAgentError:
        """A port that is taken is a matter of configuration; say which of our own nodes has it."""
        port = self._config.network.port
        if not port or f"port {port} " not in str(error):
            return error
        found = who_has_port(self._outer, port)
        if found is None or not found.name:
            return CommandError(str(error), exit_code=Exit.CONFIGURATION, next_step=error.next_step)
        dev = " --dev" if found.state.parent.parent == DevPlaces.of(self._outer).root else ""
        return CommandError(
            f"port {port} is in use by another meshagent node ({found.name}, pid {found.pid}).",
            exit_code=Exit.CONFIGURATION,
            next_step=f"meshagent status{dev}   or a second node: meshagent run ROLE --port 0 --name {found.name}b",
        )

    def _signalled(self, number: int, frame: object) -> None:
        self._signals += 1
        if self._signals > 2:
            self._end_by_force()
        if self._signals == 2:
            self._force = threading.Timer(FORCE_AFTER_S, self._end_by_force)
            self._force.daemon = True
            self._force.start()
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._end)

    def _end_by_force(self) -> None:
        """Asked three times, or twice and a while ago. In a thread or amid a role's code: no loop, no cleaning up."""
        sys.stderr.write("a role holds this process and does not let go: ended by force, as kill -9 would\n")
        sys.stderr.flush()
        os._exit(Exit.FAILED)

    def _end(self, *, now: bool = False) -> None:
        """The first time: leave in order. The second time, or `now`: at once."""
        if self._stop.is_set() or now:
            self._hurry.set()
        self._stop.set()

    def _fail(self, error: Exception) -> None:
        self._failure = error
        self._hurry.set()
        self._stop.set()

    async def _leave(self, node: Node, group: asyncio.TaskGroup) -> None:
        if not self._hurry.is_set():
            held = len(node.executor.works)
            if held:
                drain = duration(self._config.tasks.drain_s)
                tasks = f"{held} task{'' if held == 1 else 's'}"
                self._screen.say(f"leaving: {tasks} to finish or hand back within {drain}; again: at once")
        closing = group.create_task(node.close(now=self._hurry.is_set()))
        hurry = group.create_task(self._hurry.wait())
        await asyncio.wait((closing, hurry), return_when=asyncio.FIRST_COMPLETED)
        if not closing.done():
            await node.close(now=True)
        hurry.cancel()
        self._screen.say(f"{node.name} has left", level=1)

    def _print(self, line: str) -> None:
        """A line on stdout; whoever read it may be gone (`| head`), which is no reason for a robot to stop."""
        try:
            print(line, flush=True)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)

    def _announce(self, node: Node, port: int) -> None:
        up_s = since_start_s()
        if self._screen.json:
            document = {**node.look.status(), "schema": "meshagent.up/1", "ready_s": round(up_s, 3)}
            self._print(json.dumps(document, ensure_ascii=False))
            return
        alive = len(node.peers())
        peers = f"{alive} peer{'' if alive == 1 else 's'}" if alive else "no peers yet"
        who = f"{clean(node.name)} ({node.id[:8]})"
        self._print(f"{who} is up in {up_s:.1f} s on port {port}, fleet {clean(self._fleet)}, {peers}")
        for agent in node.look.status()["agents"]:
            performs = ", ".join(clean(text) for text in agent["performs"].values()) or "no task"
            self._print(f"  role {clean(agent['role'])}: performs {performs}")
            if agent["missing"]:
                missing = ", ".join(clean(name) for name in agent["missing"])
                self._print(f"  role {clean(agent['role'])}: no driver for {missing}: its tasks are refused")
                self._print("    next: meshagent config explain actuators.NAME.driver")

    async def _tell(self, node: Node) -> None:
        """The timeline; ends with the node."""
        timeline = Timeline()
        async for document in node.watching():
            if self._screen.json:
                self._print(json.dumps(document, ensure_ascii=False))
            elif not self._screen.quiet and (document["event"] in TIMELINE or self._screen.verbose):
                line = timeline.line(document)
                if line:
                    self._print(line)
