"""Whole nodes on the kernel: the robot's `Node`, with clock, transport, journal, randomness, devices exchanged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from meshagent.core.contract_net.interface import (
    ContractConfig,
)
from meshagent.core.contract_net.records import Ended
from meshagent.core.members import MembershipConfig, MemberState
from meshagent.core.travel import Body, SiteMap
from meshagent.runtime import node as node_module
from meshagent.runtime.node import Node
from meshagent.runtime.resources import Capacity
from meshagent.runtime.settings import NodeSettings
from meshagent.runtime.workers import InlineWorkers
from meshagent.sdk.compiling import compile_role
from meshagent.sdk.role import Role, RoleSpec
from meshagent.sdk.sensing import Actuator
from meshagent.types import TaskId
from meshagent.virtual.cast import Button, Looker, Presser, Rounder
from meshagent.virtual.clock import Hardware
from meshagent.virtual.identities import POOL_SIZE, open_book
from meshagent.virtual.invariants import Watcher
from meshagent.virtual.kernel import Process, World
from meshagent.virtual.members import Member, Plug, VirtualBay
from meshagent.virtual.network import Network
from meshagent.virtual.scenario import Player
from meshagent.virtual.watched import WatchedDriver

__all__ = ["Member", "Mesh", "Plug", "WatchedDriver", "compiled"]

WALKS_MPS: Final = 10.0
"""Bodies of scenarios are quick: a place costs a second or two, not minutes."""
CAPACITY: Final = Capacity(cores=8.0, memory_mib=16 * 1024)
"""The same on every machine where a seed is replayed."""


class Mesh:
    """Devices on one network in one world."""

    def __init__(
        self,
        world: World,
        network: Network,
        *,
        watcher: Watcher | None = None,
        contract: ContractConfig | None = None,
        membership: MembershipConfig | None = None,
    ) -> None:
        self._contract = contract or ContractConfig()
        self._membership = membership
        self.world = world
        self.network = network
        self.watcher = watcher
        self.members: dict[str, Member] = {}
        self.custodians = 3
        self.sites: dict[str, tuple[float, float]] = {}
        self._failures: list[tuple[str, Exception]] = []
        self._identities = world.rng("identities").sample(range(POOL_SIZE), POOL_SIZE)

    def add(
        self,
        name: str,
        *,
        roles: Sequence[type[Role]],
        position_m: tuple[float, float] = (0.0, 0.0),
        battery_soc: float | None = None,
        capabilities: frozenset[str] | None = None,
        plugs: Sequence[Plug] = (),
        speed_mps: float = 1.0,
        visitor: bool = False,
        hardware: Hardware | None = None,
        number: int | None = None,
    ) -> Member:
        """A new device, not started yet."""
        specs = [compiled(role) for role in roles]
        needed = frozenset(
            word for spec in specs for task in spec.tasks for word in (spec.requires | task.requires).capabilities
        )
        settings = NodeSettings(
            name=name,
            contract=self._contract,
            membership=self._membership,
            capabilities=needed if capabilities is None else capabilities,
            site_map=SiteMap(sites=dict(self.sites)),
            body=Body(speed_mps=speed_mps),
            position_m=position_m,
            battery_soc=battery_soc,
            visitor=visitor,
            custodians=self.custodians,
        )
        if number is None:
            number = self._identities.pop() if self._identities else POOL_SIZE + len(self.members)
        member = Member(self, name, number, specs, settings=settings, plugs=plugs, hardware=hardware or Hardware())
        self.members[name] = member
        self.network.moved(name, position_m)
        return member

    def add_player(self, player: Player) -> Member:
        """A device of a scenario."""
        cast = ((Presser, player.presses), (Looker, player.looks), (Rounder, player.rounds))
        return self.add(
            player.name,
            roles=[role for role, plays in cast if plays],
            position_m=player.position_m,
            speed_mps=WALKS_MPS,
            hardware=Hardware(rate=player.rate, wall_offset_s=player.wall_offset_s),
            number=player.identity,
        )

    def build(self, member: Member, process: Process) -> Node:
        """The node of one process, on virtual ports."""
        bay = VirtualBay(member.plugs, lambda actuator: self._device(process, actuator))
        with _watched_drivers():
            node = Node(
                member.settings,
                identity=member.identity,
                book=open_book(member.identity),
                transport=self.network.transport(process, member.node_id),
                journal=process.journal,
                clock=process.clock,
                rng=process.rng("node"),
                roles=member.specs,
                workers=InlineWorkers(),
                bay=bay,
                battery=member.battery,
                capacity=CAPACITY,
                watch_loop=False,
                random_bytes=process.rng("bytes").randbytes,
                on_failure=lambda error: self._failures.append((member.name, error)),
            )
        bay.connect(node.body)
        return node

    def _device(self, process: Process, actuator: Actuator[Any]) -> object | None:
        if actuator.device_type is not Button or self.watcher is None:
            return None
        watcher = self.watcher
        return Button(lambda task: watcher.effect(process, task))

    def unsettled(self, names: Iterable[str]) -> str:
        """What is still open on these members; empty: nothing."""
        gone = frozenset(member.node_id for member in self.members.values() if not member.alive)
        for name in sorted(names):
            if open_here := self.members[name].unsettled(gone):
                return open_here
        return ""

    def offered(self, kind: str) -> bool:
        """Whether anybody alive does `kind`."""
        return any(
            member.alive and any(task.kind.name == kind for spec in member.specs for task in spec.tasks)
            for member in self.members.values()
        )

    def keepers(self, task: TaskId) -> int:
        """How many living custodians have `task` on disk."""
        nodes = [member.node for member in self.members.values() if member.node is not None and member.ready]
        return sum(node.driver.initiator.kept(task) is not None for node in nodes)

    def outcomes(self, task: TaskId) -> list[Ended]:
        """How `task` has ended, as each living custodian keeps it."""
        found = []
        for _, member in sorted(self.members.items()):
            r = None if member.node is None or not member.ready else member.node.driver.initiator.kept(task)
            if r is not None and r.ended is not None:
                found.append(r.ended)
        return found

    def disagreement(self) -> str:
        """Whom a live member does not believe alive although it lives; empty: all agree."""
        live = [member for _, member in sorted(self.members.items()) if member.ready and member.node is not None]
        for one in live:
            keeper = one.node.driver.keeper if one.node is not None else None
            if keeper is None:
                return f"{one.name} has no membership"
            for other in live:
                state = keeper.state_of(other.node_id)
                if other is not one and state is not MemberState.ALIVE:
                    return f"{one.name} believes that {other.name} is {state}"
            gone = {member.node_id for _, member in self.members.items()} - {member.node_id for member in live}
            for node in sorted(gone):
                if keeper.state_of(node) in (MemberState.ALIVE, MemberState.SUSPECT):
                    return f"{one.name} believes that {node[:8]} lives"
        return ""

    def crash(self) -> str:
        """What a node raised that nobody caught, or stopped for; empty: nothing."""
        for name, failed in self._failures:
            return f"{name} stopped: {type(failed).__name__}: {failed}"
        for _, member in sorted(self.members.items()):
            for error in member.device.errors():
                return f"{member.name}: {error}"
            if member.failure is not None:
                return f"{member.name} ended: {type(member.failure).__name__}: {member.failure}"
        return ""


@contextmanager
def _watched_drivers() -> Iterator[None]:
    """Nodes made here have a `WatchedDriver`."""
    before = vars(node_module)["Driver"]
    vars(node_module)["Driver"] = WatchedDriver
    try:
        yield
    finally:
        vars(node_module)["Driver"] = before


_compiled: Final[dict[type[Role], RoleSpec]] = {}


def compiled(role: type[Role]) -> RoleSpec:
    """The checked declaration of a role, once a process."""
    spec = _compiled.get(role)
    if spec is None:
        spec = _compiled[role] = compile_role(role)
    return spec
