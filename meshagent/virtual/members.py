"""One device through all its processes: start, kill, pause, leave; ask, feed and look at the node that runs on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from meshagent.core.acts import Decline
from meshagent.core.contract_net.interface import (
    Effect,
)
from meshagent.core.contract_net.records import Stage
from meshagent.errors import LocalProtocolError, MeshAgentError
from meshagent.runtime.bay import BodyState, ConfiguredBay
from meshagent.runtime.node import Node
from meshagent.runtime.resources import GivenBattery
from meshagent.runtime.settings import NodeSettings
from meshagent.sdk.backend import SubmitRequest
from meshagent.sdk.call import Proposal, Refusal
from meshagent.sdk.context import Context
from meshagent.sdk.kinds import Task, kind_of
from meshagent.sdk.role import RoleSpec
from meshagent.sdk.schema import schema_of
from meshagent.sdk.sensing import Actuator, Sensor
from meshagent.types import Durability, NodeId, TaskId
from meshagent.virtual.clock import Hardware
from meshagent.virtual.identities import identity
from meshagent.virtual.kernel import Death, Process

if TYPE_CHECKING:
    from meshagent.virtual.nodes import Mesh

V = TypeVar("V")

Told = Callable[[Any, BaseException | None], None]
"""Called with a value or with an error, inside the world and outside every loop's task."""


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
