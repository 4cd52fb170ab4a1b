"""A few whole nodes in one virtual loop: real driver, gate, signatures and codec; links in memory that lose nothing.

For the situations of one or two nodes. Faults, partitions and many seeds are `meshagent.virtual`'s.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from meshagent.core.contract_net.interface import ContractConfig
from meshagent.core.ports import Append, Link, LinkClosed, LinkEvents, PeerHint, Put
from meshagent.runtime.node import Node
from meshagent.runtime.resources import Capacity
from meshagent.runtime.settings import NodeSettings
from meshagent.runtime.workers import InlineWorkers, Workers
from meshagent.sdk.compiling import compile_role
from meshagent.sdk.role import Role
from meshagent.types import NodeId, Reason
from meshagent.virtual.loop import VirtualLoop
from tests.support.fleets import NOW_S, admit, authority

DELAY_S = 0.001


@dataclass
class LoopClock:
    loop: asyncio.AbstractEventLoop

    def boot_s(self) -> float:
        return 100.0 + self.loop.time()

    def wall_s(self) -> float:
        return NOW_S + self.loop.time()


@dataclass
class DictJournal:
    tables: dict[str, dict[str, bytes]] = field(default_factory=dict)
    lines: dict[str, list[tuple[float, bytes]]] = field(default_factory=dict)
    commits: int = 0
    broken: Exception | None = None

    def commit(self, writes: Iterable[Put | Append]) -> None:
        if self.broken is not None:
            raise self.broken
        self.commits += 1
        for write in writes:
            if isinstance(write, Put):
                table = self.tables.setdefault(write.table, {})
                if write.value is None:
                    table.pop(write.key, None)
                else:
                    table[write.key] = write.value
            else:
                self.lines.setdefault(write.task, []).append((write.at_wall_s, write.value))

    def load(self, table: str) -> dict[str, bytes]:
        return dict(self.tables.get(table, {}))

    def log(self, task: str) -> list[tuple[float, bytes]]:
        return list(self.lines.get(task, []))

    def close(self) -> None: ...


class MemoryLink:
    def __init__(self, hub: Hub, owner: NodeId, peer: NodeId) -> None:
        self._hub = hub
        self._owner = owner
        self.peer = peer
        self.address = f"memory:{peer[:8]}"
        self.other: MemoryLink | None = None
        self.open = True

    def send(self, frame: bytes) -> None:
        other = self.other
        if not self.open or other is None:
            return

        def deliver() -> None:
            events = self._hub.events.get(other._owner)
            if other.open and events is not None:
                events.frame_received(other, frame)

        asyncio.get_running_loop().call_later(DELAY_S, deliver)

    def close(self, why: LinkClosed) -> None:
        self._hub.cut(self, why)


@dataclass
class Hub:
    """Links every two nodes that have started."""

    events: dict[NodeId, LinkEvents] = field(default_factory=dict)
    links: list[MemoryLink] = field(default_factory=list)

    def join(self, me: NodeId, events: LinkEvents) -> None:
        for peer in list(self.events):
            one, two = MemoryLink(self, me, peer), MemoryLink(self, peer, me)
            one.other, two.other = two, one
            self.links += [one, two]
            asyncio.get_running_loop().call_soon(events.link_opened, one)
            asyncio.get_running_loop().call_soon(self.events[peer].link_opened, two)
        self.events[me] = events

    def cut(self, link: MemoryLink, why: LinkClosed) -> None:
        for end in (link, link.other):
            if end is not None and end.open:
                end.open = False
                events = self.events.get(end._owner)
                if events is not None:
                    asyncio.get_running_loop().call_soon(events.link_closed, end, why)
                    if why is not LinkClosed.GOODBYE:
                        gone = (end.peer, why, "gone")
                        asyncio.get_running_loop().call_soon(events.peer_unreachable, *gone)

    def kill(self, node: NodeId) -> None:
        """As if its process died: nothing of it is heard again."""
        self.events.pop(node, None)
        for link in list(self.links):
            if link._owner == node:
                self.cut(link, LinkClosed.RESET)


class MemoryTransport:
    listen_port = 0

    def __init__(self, hub: Hub, me: NodeId) -> None:
        self._hub = hub
        self._me = me

    async def start(self, events: LinkEvents) -> None:
        self._hub.join(self._me, events)

    def add_hint(self, hint: PeerHint) -> None: ...

    def datagrams(self) -> None:
        return None

    def forget(self, peer: NodeId) -> None: ...

    async def close(self) -> None:
        for link in list(self._hub.links):
            if link._owner == self._me:
                link.close(LinkClosed.GOODBYE)
        self._hub.events.pop(self._me, None)


class SmallMesh:
    """Nodes by name."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.clock = LoopClock(loop)
        self.hub = Hub()
        self.fleet = authority()
        self._seeds = itertools.count(1)
        self.journals: dict[str, DictJournal] = {}
        self.nodes: dict[str, Node] = {}
        self.killed: list[Node] = []

    async def join(
        self,
        name: str,
        *roles: type[Role],
        workers: Workers | None = None,
        may: Sequence[str] = ("announce:*", "perform:*"),
        lease_s: float = 2.0,
        **settings: Any,
    ) -> Node:
        identity = admit(self.fleet, name, may=may)
        seed = next(self._seeds)
        rng = Random(seed)
        journal = self.journals.setdefault(name, DictJournal())
        node = Node(
            NodeSettings(name=name, contract=ContractConfig(lease_s=lease_s), **settings),
            identity=identity,
            book=identity.open_book(now_s=NOW_S),
            transport=MemoryTransport(self.hub, identity.node_id),
            journal=journal,
            clock=self.clock,
            rng=rng,
            roles=[compile_role(role) for role in roles],
            workers=workers or InlineWorkers(),
            capacity=Capacity(cores=4, memory_mib=1024),
            watch_loop=False,
            random_bytes=rng.randbytes,
        )
        self.nodes[name] = node
        await node.start()
        return node

    async def linked(self, count: int) -> None:
        """Every node sees `count` others."""
        await self.until(lambda: all(len(n.peers()) == count for n in self.nodes.values() if not n.leaving))

    async def until(self, holds: Callable[[], bool], within_s: float = 60.0) -> None:
        """Wait for a condition, in virtual time."""
        end_s = self.loop.time() + within_s
        while not holds():
            if self.loop.time() > end_s:
                raise AssertionError(f"not within {within_s} s")
            await asyncio.sleep(0.005)

    def kill(self, node: Node) -> None:
        """As `kill -9`: nothing of it is heard again, not even its goodbye. Its journal stays."""
        self.hub.kill(node.id)
        node.driver._running = False
        node.executor.fence_all(Reason.CRASHED)
        self.nodes = {name: one for name, one in self.nodes.items() if one is not node}
        self.killed.append(node)

    async def close(self) -> None:
        for node in [*self.nodes.values(), *self.killed]:
            await node.close(now=True)


def run(scenario: Callable[[SmallMesh], Awaitable[None]]) -> None:
    """Play a scenario in virtual time; what nobody caught is an error."""
    loop = VirtualLoop()  # type: ignore[abstract] # what it leaves out is I/O

    async def whole() -> None:
        mesh = SmallMesh(loop)
        try:
            async with asyncio.timeout(10_000):
                await scenario(mesh)
        finally:
            await mesh.close()

    loop.run_until_complete(whole())
    assert not loop.errors, loop.errors


__all__ = ["DictJournal", "Hub", "Link", "MemoryTransport", "SmallMesh", "run"]
