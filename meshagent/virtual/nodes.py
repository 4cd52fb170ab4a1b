"""Whole nodes on the kernel: the robot's own `Node`, with clock, transport, journal, randomness and devices exchanged.

`Mesh` is a company of devices, `Member` one of them through all its processes. The taps that tell the watcher what
happens sit in `WatchedDriver`, between the machines and everything else, and change nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from meshagent.core.acts import AcceptProposal, Adopt, Decline, Reserve
from meshagent.core.contract_net.clearing import within_tolerance
from meshagent.core.contract_net.interface import (
    ContractConfig,
    Effect,
    GrantPointOfNoReturn,
    LeaseMoved,
    Persist,
    Send,
    StartWork,
    Submit,
    TaskSubmitted,
    WorkEnded,
)
from meshagent.core.contract_net.records import ContractRecord, Stage
from meshagent.core.members import MembershipConfig
from meshagent.core.travel import Body, SiteMap
from meshagent.errors import LocalProtocolError, MeshAgentError
from meshagent.runtime import node as node_module
from meshagent.runtime.bay import BodyState, ConfiguredBay
from meshagent.runtime.driver import Driver
from meshagent.runtime.node import Node
from meshagent.runtime.resources import Capacity, GivenBattery
from meshagent.runtime.settings import NodeSettings
from meshagent.runtime.workers import InlineWorkers
from meshagent.sdk.backend import SubmitRequest
from meshagent.sdk.call import Proposal, Refusal
from meshagent.sdk.compiling import compile_role
from meshagent.sdk.context import Context
from meshagent.sdk.kinds import Task, kind_of
from meshagent.sdk.role import Role, RoleSpec
from meshagent.sdk.schema import schema_of
from meshagent.sdk.sensing import Actuator, Sensor
from meshagent.types import Durability, Epoch, NodeId, TaskId
from meshagent.virtual.cast import Button, Looker, Presser, Rounder
from meshagent.virtual.clock import Hardware
from meshagent.virtual.identities import POOL_SIZE, identity
from meshagent.virtual.invariants import Watcher
from meshagent.virtual.kernel import Death, Process, World
from meshagent.virtual.network import Network
from meshagent.virtual.scenario import Player

V = TypeVar("V")

Told = Callable[[Any, BaseException | None], None]
"""Called with a value or with an error, inside the world and outside every loop's task."""

WALKS_MPS: Final = 10.0
"""Bodies of scenarios are quick: a place costs a second or two, not minutes."""


CAPACITY: Final = Capacity(cores=8.0, memory_mib=16 * 1024)
"""The same on every machine where a seed is replayed."""


class WatchedDriver(Driver):
    """A driver that tells the watcher what its machines decided; decides nothing itself."""

    def __init__(self, **ports: Any) -> None:
        super().__init__(**ports)
        self._follow_ups: list[TaskId] = []
        self._reserved: set[Epoch] = set()

    def _seen_by(self) -> tuple[Process, Watcher] | None:
        process = getattr(self._journal, "owner", None)
        watcher = getattr(process, "watcher", None)
        if not isinstance(process, Process) or not isinstance(watcher, Watcher):
            return None
        return process, watcher

    def feed(self, event: Any) -> None:
        seen = self._seen_by()
        if seen is not None:
            process, watcher = seen
            if isinstance(event, TaskSubmitted):
                watcher.submitted(event.record, process.name)
            elif isinstance(event, WorkEnded):
                watcher.work_ended(process, event.task)
        super().feed(event)

    def _carry_out(self, effects: Iterable[Effect], turn: Any, now_s: float) -> None:
        seen = self._seen_by()
        if seen is not None:
            effects = list(effects)
            process, watcher = seen
            for effect in effects:
                if isinstance(effect, Send):
                    act = effect.act
                    if isinstance(act, AcceptProposal | Adopt):
                        watcher.awarded(self.me, act.task, act.epoch, effect.to[0])
                    elif isinstance(act, Reserve):
                        self._priced_now(process, watcher, act)
                elif isinstance(effect, Submit):
                    watcher.submitted(effect.record, process.name)
                    self._follow_ups.append(effect.record.task)
                elif isinstance(effect, Persist) and isinstance(effect.record, ContractRecord):
                    watcher.heard(process, effect.task, effect.record.fence)
        super()._carry_out(effects, turn, now_s)

    def _priced_now(self, process: Process, watcher: Watcher, act: Reserve) -> None:
        """What was reserved must be what it costs now, whatever was bid; asked of the plan itself."""
        contract = self.participant.find(act.task)
        if contract is None or contract.award is None or act.epoch in self._reserved:
            return
        self._reserved.add(act.epoch)
        award = contract.award
        within_s = None if award.within_ms is None else award.within_ms / 1000
        answer = self._bidder.bid(award.record, within_s, purpose="call")
        tolerance = self._config.contract.award_tolerance
        if isinstance(answer, Decline):
            watcher.stale_reservation(process, act.task, answer.detail)
        elif not within_tolerance((award.added_ms, award.load_ms), (answer.added_ms, answer.load_ms), tolerance):
            watcher.stale_reservation(process, act.task, f"it costs {answer.added_ms} ms, {award.added_ms} were bid")

    def _tell(self, turn: Any) -> None:
        seen = self._seen_by()
        if seen is not None:
            process, watcher = seen
            for task in self._follow_ups:
                watcher.accepted(task)  # committed together with the result
            self._follow_ups.clear()
            for order in turn.orders:
                if isinstance(order, StartWork):
                    watcher.work_started(process, order.record, order.epoch, order.lease_until_s)
                elif isinstance(order, LeaseMoved):
                    watcher.lease_moved(process, order.task, order.epoch, order.lease_until_s)
                elif isinstance(order, GrantPointOfNoReturn):
                    watcher.granted(process, order.task)
            for change in turn.changes:
                watcher.changed(process, change.task, change.state, change.result, change.reason)
        super()._tell(turn)


@dataclass(frozen=True, slots=True)
class Plug:
    """The driver behind one actuator of a device."""

    name: str
    device: object


class VirtualBay:
    """Devices of a member: plugs first, then the simulated driver of the actuator's type. Sensors are fed by hand."""

    def __init__(self, plugs: Sequence[Plug], make: Callable[[Actuator[Any]], object | None]) -> None:
        self._plugs = {plug.name: plug.device for plug in plugs}
        self._make = make
        self._simulated: ConfiguredBay

    def connect(self, body: BodyState) -> None:
        """Where the body of these devices is; before the node starts."""
        self._simulated = ConfiguredBay(body, {}, {}, simulate=True, watch_stops=False)

    def reader(self, sensor: Sensor[Any]) -> Any | None:
        return None

    def actuator(self, actuator: Actuator[Any]) -> Any | None:
        device = self._plugs.get(actuator.name)
        if device is None:
            device = self._make(actuator)
        return self._simulated.actuator(actuator) if device is None else device

    def stop_timeout_s(self, name: str) -> float:
        return self._simulated.stop_timeout_s(name)

    async def open(self) -> None:
        await self._simulated.open()

    async def close(self) -> None:
        await self._simulated.close()


class Member:
    """One device of the mesh through all its processes."""

    def __init__(
        self,
        mesh: Mesh,
        name: str,
        number: int,
        specs: Sequence[RoleSpec],
        *,
        settings: NodeSettings,
        plugs: Sequence[Plug],
        hardware: Hardware,
    ) -> None:
        self.mesh = mesh
        self.name = name
        self.identity = identity(number)
        self.node_id: NodeId = self.identity.node_id
        self.specs = tuple(specs)
        self.settings = settings
        self.plugs = plugs
        self.battery = GivenBattery(settings.battery_soc)
        self.device = mesh.world.device(name, hardware)
        self.node: Node | None = None
        """Of the present process, once it was built."""
        self.ready = False
        """The present process is up: bound, restored, hosting."""
        self._only: tuple[NodeId, bytes | None] | None = None

    # ---- life

    @property
    def process(self) -> Process | None:
        """The live process."""
        process = self.device.process
        return process if process is not None and process.alive else None

    @property
    def alive(self) -> bool:
        return self.process is not None

    @property
    def failure(self) -> BaseException | None:
        """What ended the last process by itself."""
        return None if self.device.process is None else self.device.process.failure

    def start(self) -> None:
        """Start from the disk; ignored while it lives."""
        if self.process is None:
            self.ready = False
            self.device.start(self._main)

    async def _main(self, process: Process) -> None:
        process.watcher = self.mesh.watcher
        process.when_dead(self._died)
        process.journal.owner = process
        node = self.node = self.mesh.build(self, process)
        await node.start()
        self.ready = True
        process.note("ready")
        await asyncio.get_running_loop().create_future()

    def _died(self) -> None:
        self.ready = False
        if self.node is not None:
            # The body stays where it is, whatever its computer forgets.
            self.settings = replace(self.settings, position_m=self.node.body.position_m())
        self.node = None

    def leave(self) -> None:
        """Shut down cleanly; the process ends when the node has left."""
        process, node = self.process, self.node
        if process is None or node is None or not self.ready:
            return
        self.ready = False

        async def leaving() -> None:
            await node.close()
            process.die(Death.EXITED)
            process.exit()

        def begin() -> None:
            process.loop.create_task(leaving(), name=f"{self.name}-leaving")

        process.note("leaves")
        process.deliver(begin)

    def kill(self, death: Death) -> None:
        """End the process now."""
        if self.process is not None:
            self.process.die(death)

    def pause(self) -> None:
        if self.process is not None:
            self.process.freeze()

    def resume(self) -> None:
        if self.process is not None:
            self.process.thaw()

    # ---- looking

    def linked(self, other: Member) -> bool:
        """True where this node has a link to `other` and knows what it offers."""
        return self.node is not None and self.ready and other.node_id in self.node.driver.peers()

    def running(self, kind: type[Task[Any]]) -> bool:
        """True while a handler of `kind` runs."""
        name = kind_of(kind).name
        return self.node is not None and any(
            work.record.kind == name and work.started_s is not None for work in self.node.executor.works.values()
        )

    def role(self, cls: type[V]) -> V:
        """The instance of a role.

        Raises:
            LookupError: there is none.
        """
        if self.node is not None:
            for agent in self.node.agents.agents:
                if isinstance(agent.role, cls):
                    return agent.role
        raise LookupError(f"{self.name} enacts no {cls.__name__} now")

    def bid(self, job: Task[Any]) -> Proposal | Refusal:
        """What this node would answer to a call for `job`."""
        if self.node is None:
            raise LookupError(f"{self.name} is down")
        kind = kind_of(type(job))
        request = SubmitRequest(
            kind=kind.name,
            spec=kind.encode(job),
            delivery=kind.delivery,
            in_doubt=kind.in_doubt,
            approval=kind.approval,
        )
        answer = self.node.bidder.bid(self.node._record(request), None, purpose="call")
        if isinstance(answer, Decline):
            return Refusal(answer.reason, answer.detail)
        return Proposal(answer.added_ms / 1000, answer.because)

    # ---- doing

    def feed(self, sensor: Sensor[V], values: Sequence[V]) -> None:
        """Give readings to the role that declares `sensor`."""
        process, node = self.process, self.node
        if process is None or node is None:
            raise LookupError(f"{self.name} is down")
        for agent in node.agents.agents:
            if sensor in agent.spec.sensors.values():
                stream = sensor.of(agent.role)
                for value in values:
                    process.deliver(stream.feed, value)
                return
        raise LookupError(f"no role of {self.name} has the sensor {sensor.name}")

    def submit(
        self,
        job: Task[Any],
        *,
        label: Told,
        accepted: Told,
        outcome: Told,
        key: str = "",
        within_s: float | None = None,
        priority: int = 0,
        durability: Durability = Durability.REPLICATED,
    ) -> None:
        """Ask the mesh from this node, as soon as it is ready; the three callbacks tell how it goes."""
        process = self.process
        if process is None:
            raise LookupError(f"{self.name} is down")

        async def asking() -> None:
            assert process is not None
            while not self.ready:  # noqa: ASYNC110 - in virtual time a look costs nothing, and it is over when it is up
                await asyncio.sleep(0.01)
            node = self.node
            assert node is not None
            if self._only is not None:
                self._restrict(node, *self._only)
            submission = Context(node, "asker").submit(
                job, key=key, within_s=within_s, priority=priority, durability=durability
            )
            label(submission.id, None)
            if self._only is not None and self._only[1] is not None:
                self._hand_checkpoint(node, submission.id, self._only[1])
            await _telling(submission.accepted(), accepted)
            await _telling(submission.outcome(), outcome)

        process.deliver(lambda: process.loop.create_task(asking(), name=f"{self.name}-asks"))

    def cancel(self, task: TaskId, detail: str = "") -> None:
        """Withdraw a task of this node."""
        node, process = self.node, self.process
        if node is not None and process is not None:
            process.deliver(_attempted, lambda: node.cancel(task, detail))

    def resolve(self, task: TaskId, *, done: bool) -> None:
        """A person says what became of a task in doubt."""
        node, process = self.node, self.process
        if node is not None and process is not None:
            process.note(f"resolve {task} {done}")
            process.deliver(_attempted, lambda: node.resolve(task, done=done))

    def set_battery(self, soc: float) -> None:
        """State of charge of the body, for this and later processes."""
        self.battery.value = soc

    def move(self, at: tuple[float, float]) -> None:
        """Put the body somewhere else."""
        self.settings = replace(self.settings, position_m=at)
        self.mesh.network.moved(self.name, at)
        if self.node is not None:
            self.node.body.moved_to(at)

    # ---- one performer alone (`FakeMesh.perform`)

    def ask_only(self, performer: Member, checkpoint: object | None) -> None:
        """What this node asks from now on goes to `performer` alone, with a checkpoint to continue from."""
        state = None if checkpoint is None else schema_of(type(checkpoint)).encode(checkpoint)
        self._only = (performer.node_id, state)

    def _restrict(self, node: Node, performer: NodeId, _: bytes | None) -> None:
        candidates = node.driver.directory.candidates

        def only(kind: str) -> tuple[NodeId, ...]:
            return tuple(one for one in candidates(kind) if one == performer)

        node.driver.directory.candidates = only  # type: ignore[method-assign]

    def _hand_checkpoint(self, node: Node, task: TaskId, state: bytes) -> None:
        # As if an earlier holder had left it: the award carries it, all else is as usual.
        handle = node.driver.initiator.handle

        def with_checkpoint(event: Any, *, now_s: float) -> list[Effect]:
            effects = handle(event, now_s=now_s)
            undertaking = node.driver.initiator.find(task)
            if undertaking is not None and undertaking.checkpoint is None:
                undertaking.checkpoint, undertaking.checkpoint_version = state, 1
            return effects

        node.driver.initiator.handle = with_checkpoint  # type: ignore[method-assign]

    # ---- the end

    def unsettled(self, gone: frozenset[NodeId]) -> str:
        """What is still open here after everything should have ended; empty: nothing. `gone` never come back."""
        node = self.node
        if node is None:
            return ""
        open_tasks = [u.task[:8] for u in node.driver.initiator.undertakings() if not u.terminal]
        if open_tasks:
            return f"{self.name} still asks for {' '.join(open_tasks)}"
        for contract in node.driver.participant.contracts():
            if contract.initiator in gone:
                continue
            if contract.active:
                return f"{self.name} still holds {contract.task[:8]} ({contract.stage})"
            if contract.stage is Stage.REPORTING:
                return f"{self.name} still reports {contract.task[:8]}"
            if contract.stage is Stage.IN_DOUBT:
                return f"{self.name} is still in doubt about {contract.task[:8]}"
        held = [work.record.task for work in node.executor.works.values() if work.record.initiator not in gone]
        if held:
            return f"{self.name} still runs {held[0][:8]}"
        for stop in node.bidder.plan.stops:
            planned = node.driver.participant.find(stop.task)
            if planned is None or planned.initiator not in gone:
                return f"{self.name} still has {stop.task[:8]} in its plan"
        return ""


def _attempted(act: Callable[[], object]) -> None:
    with suppress(LocalProtocolError):  # it has ended meanwhile
        act()


async def _telling(waiting: Any, told: Told) -> None:
    try:
        value = await waiting
    except (MeshAgentError, TimeoutError) as error:
        told(None, error)
    else:
        told(value, None)


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
        self.sites: dict[str, tuple[float, float]] = {}
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
                book=member.identity.open_book(now_s=process.clock.wall_s()),
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

    def crash(self) -> str:
        """What a node raised that nobody caught; empty: nothing."""
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
