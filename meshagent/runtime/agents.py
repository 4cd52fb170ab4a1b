"""The agents of a node: role instances with their devices, news, timers and contracts.

An agent is a role enacted here. This module makes its instance, puts drivers behind its sensors and actuators, runs
its `@on` and `@every` handlers, and hands its contracts to the executor. A handler that raises is told in the log and
called again with the next sample; it never takes the node down.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from meshagent.core.acts import TaskRecord, WorkOutcome
from meshagent.core.bodies import EventMessage
from meshagent.core.contract_net.interface import (
    GrantPointOfNoReturn,
    LeaseMoved,
    StartWork,
    StopWork,
    WorkEnded,
)
from meshagent.core.plan import Planner
from meshagent.devices.drivers import SensorEndedError
from meshagent.errors import ConfigurationError
from meshagent.runtime.bay import DeviceBay
from meshagent.runtime.bidder import PlanBidder, Pricing
from meshagent.runtime.blocked import Watch
from meshagent.runtime.executor import Executor, Handler, Sink, Work
from meshagent.runtime.handlers import handler_of
from meshagent.runtime.supervise import Raised, attempt, attempt_async, supervise
from meshagent.sdk.backend import NodeServices, SubmitRequest
from meshagent.sdk.context import Context
from meshagent.sdk.errors import SchemaError
from meshagent.sdk.events import Event, event_schema
from meshagent.sdk.requires import Requires
from meshagent.sdk.role import EventHandler, Role, RoleSpec, SensorHandler, TaskSpec, Timer
from meshagent.sdk.sensing import SensorStream
from meshagent.types import NodeId, Reason

MAX_NEWS: Final = 64
"""Events and samples that wait for one handler; telemetry drops the oldest."""
COMPLAIN_AGAIN_S: Final = 30.0
"""A handler that fails on every sample is told once in this time."""

log = logging.getLogger(__name__)


class Told(Protocol):
    """Who wants to know what agents do."""

    def work_started(self, work: Work) -> None: ...

    def work_ended(self, work: Work, outcome: WorkOutcome) -> None: ...


@dataclass(slots=True, eq=False)
class Agent:
    """One role enacted on this node."""

    spec: RoleSpec
    role: Role
    handlers: dict[str, tuple[TaskSpec, Handler]] = field(default_factory=dict)
    stop_margin_s: float = 0.0
    missing: tuple[str, ...] = ()
    """Actuators without a driver on this device."""
    inboxes: list[_Inbox] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.spec.name


class Agents:
    """`WorkHost` of the driver."""

    def __init__(
        self,
        *,
        services: NodeServices,
        bidder: PlanBidder,
        planner: Planner,
        executor: Executor,
        sink: Sink,
        bay: DeviceBay,
        watch: Watch | None,
        told: Told,
        now_s: Callable[[], float],
    ) -> None:
        self._services = services
        self._bidder = bidder
        self._planner = planner
        self._executor = executor
        self._sink = sink
        self._bay = bay
        self._watch = watch
        self._told = told
        self._now_s = now_s
        self._by_kind: dict[str, Agent] = {}
        self._listeners: dict[str, list[_Inbox]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.agents: list[Agent] = []
        self._complained: dict[str, float] = {}
        self.make_record: Callable[[SubmitRequest], TaskRecord] | None = None
        self.undecodable = 0
        """Events of peers that no role here could read."""

    # ---- hosting

    def host(self, spec: RoleSpec) -> Agent:
        """Enact a role: from now on its kinds are offered and its news are heard once `start` was called.

        Raises:
            ConfigurationError: the role's own `__init__` raised, its driver does not fit, or another role of this node
                performs the same kind. A mistake to see at start, not later.
        """
        made = attempt(lambda: spec.create(self._services))
        if isinstance(made, Raised):
            log.error("%s.__init__ raised\n%s", spec.name, made.traceback())
            raise ConfigurationError(
                f"the role {spec.name} cannot be made: its __init__ raised {made.sentence}",
                next_step=f"correct {spec.name}.__init__ in {spec.origin.file or spec.origin.module}",
            ) from made.error
        role = made
        for task in spec.tasks:
            other = self._by_kind.get(task.kind.name)
            if other is not None:
                raise ConfigurationError(
                    f"{other.name} and {spec.name} both perform {task.kind.name} on one node",
                    next_step="run one of the two roles on another node",
                )
        agent = Agent(spec, role)
        for sensor in spec.sensors.values():
            sensor.of(role).connect(self._bay.reader(sensor), self._now_s)
        missing = []
        for name, actuator in spec.actuators.items():
            device = self._bay.actuator(actuator)
            if device is None:
                missing.append(name)
            else:
                actuator.of(role).connect(device)
                agent.stop_margin_s = max(agent.stop_margin_s, self._bay.stop_timeout_s(name))
        agent.missing = tuple(missing)
        for task in spec.tasks:
            self._offer(agent, task)
        for handler in spec.events:
            inbox = self._inbox(agent, handler)
            self._listeners.setdefault(handler.event.event_name, []).append(inbox)
        self.agents.append(agent)
        return agent

    def start(self) -> None:
        """Begin to listen, to read sensors and to keep time."""
        for agent in self.agents:
            for inbox in agent.inboxes:
                self._spawn(inbox.label, inbox.run)
            for sampled in agent.spec.samples:
                inbox = self._inbox(agent, sampled)
                self._spawn(inbox.label, inbox.run)
                stream = sampled.sensor.of(agent.role)
                self._spawn(f"sensor {stream.name} of {agent.name}", lambda s=stream, i=inbox: _pump(s, i))  # type: ignore[misc]
            for timer in agent.spec.timers:
                self._spawn(timer.label, lambda a=agent, t=timer: self._tick(a, t))  # type: ignore[misc]

    async def stop(self) -> None:
        """No more news and timers; contracts are the executor's."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)

    def kinds(self) -> dict[str, str]:
        """What is offered here, as the profile says it."""
        return {name: agent.handlers[name][0].kind.describe() for name, agent in sorted(self._by_kind.items())}

    def performs(self, kind: str) -> TaskSpec | None:
        """The handler of that kind on this node."""
        agent = self._by_kind.get(kind)
        return agent.handlers[kind][0] if agent is not None else None

    def listens(self, event: str) -> bool:
        """Does any role here handle that event?"""
        return event in self._listeners

    # ---- news

    def event_received(self, peer: NodeId, event: EventMessage) -> None:
        """A peer's news, as bytes."""
        inboxes = self._listeners.get(event.name)
        if not inboxes:
            return
        for inbox in inboxes:
            cls = inbox.event_class
            if cls is None or not cls.travels:
                continue  # mesh facts are told by this node alone; a peer that sends one lies
            try:
                value = event_schema(cls).decode(event.body)
            except SchemaError as error:
                self.undecodable += 1
                log.debug("%s from %s cannot be read: %s", event.name, peer[:8], error)
                continue
            inbox.put(value, peer)

    def tell(self, event: Event) -> None:
        """Mesh facts, and what roles of this node emit."""
        for inbox in self._listeners.get(event.event_name, ()):
            inbox.put(event, None)

    def tell_raw(self, name: str, body: bytes) -> None:
        """What a role of this node emitted; the other roles here hear it too."""
        for inbox in self._listeners.get(name, ()):
            if inbox.event_class is None:
                continue
            try:
                inbox.put(event_schema(inbox.event_class).decode(body), None)
            except SchemaError as error:  # two classes of one name on this node
                log.warning("%s cannot hear %s of this node: %s", inbox.label, name, error)

    # ---- WorkHost

    def start_work(self, effect: StartWork) -> None:
        """A contract was committed to us."""
        agent = self._by_kind.get(effect.record.kind)
        if agent is None:
            outcome = WorkOutcome(reason=Reason.NOT_OFFERED, detail="the role has left this node", given_back=True)
            self._sink.feed(WorkEnded(task=effect.record.task, epoch=effect.epoch, outcome=outcome))
            return
        stop = self._bidder.stop_of(effect.record.task)
        placed = stop is not None and stop.place is not None
        handler = agent.handlers[effect.record.kind][1]
        work = self._executor.start(effect, handler, placed=placed, stop_margin_s=agent.stop_margin_s)
        work.make_record = self.make_record

    def move_lease(self, effect: LeaseMoved) -> None:
        self._executor.move_lease(effect)

    def stop_work(self, effect: StopWork) -> None:
        self._executor.stop(effect)

    def grant_point_of_no_return(self, effect: GrantPointOfNoReturn) -> None:
        self._executor.grant(effect)

    # ---- from the executor

    def work_started(self, work: Work) -> None:
        """Its turn has come: the plan is locked at its front, the clock of its stop runs."""
        task = work.record.task
        stop = self._bidder.stop_of(task)
        here = self._bidder.here()
        way_s = 0.0
        if stop is not None and stop.place is not None:
            way_s = self._planner.leg_s(here, stop.place)
        since_s = self._now_s()

        def worked_s() -> float:
            # a body that reports where it is on the way pays the rest of the way by its pose, not by the clock
            return max(0.0, self._now_s() - since_s - way_s)

        self._bidder.started(task, worked_s)
        self._told.work_started(work)

    def work_ended(self, work: Work, outcome: WorkOutcome) -> None:
        self._told.work_ended(work, outcome)

    # ---- inside

    def _offer(self, agent: Agent, task: TaskSpec) -> None:
        name = task.kind.name
        self._by_kind[name] = agent
        agent.handlers[name] = (task, handler_of(agent.role, agent.spec, task, self._services))
        role, feasible, price = agent.role, task.feasible, task.price
        needs = Requires(memory_mib=task.memory_mib, cores=1.0 if task.worker == "process" else 0.0)
        self._bidder.offer(
            Pricing(
                kind=task.kind,
                requires=task.requires | needs,
                feasible=None if feasible is None else lambda call: feasible(role, call),
                price=None if price is None else lambda call: price(role, call),
                label=task.label,
                missing=agent.missing,
            )
        )

    def _inbox(self, agent: Agent, handler: EventHandler | SensorHandler) -> _Inbox:
        inbox = _Inbox(self, agent, handler)
        if isinstance(handler, EventHandler):
            agent.inboxes.append(inbox)
        return inbox

    def _spawn(self, label: str, body: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = asyncio.get_running_loop().create_task(supervise(label, body, self._now_s), name=label)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tick(self, agent: Agent, timer: Timer) -> None:
        due_s = self._now_s() + timer.period_s
        while True:
            await asyncio.sleep(max(0.0, due_s - self._now_s()))
            context = Context(self._services, agent.name)
            await self.called(timer.label, timer.function, lambda c=context: timer.call(agent.role, c))  # type: ignore[misc]
            due_s = max(due_s + timer.period_s, self._now_s())  # what was missed is not made up for

    async def called(self, label: str, function: Callable[..., Any], call: Callable[[], Any]) -> Any | Raised:
        """Run role code that is no contract, under the watch."""

        async def run() -> Any:
            answer = call()
            return await answer if inspect.isawaitable(answer) else answer

        work = run()
        code = getattr(function, "__code__", None)
        ended = await attempt_async(self._watch.coroutine(work, label, code) if self._watch else work)
        if isinstance(ended, Raised):
            self._complain(label, ended)
        return ended

    def _complain(self, label: str, raised: Raised) -> None:
        now_s = self._now_s()
        if now_s - self._complained.get(label, -COMPLAIN_AGAIN_S) >= COMPLAIN_AGAIN_S:
            self._complained[label] = now_s  # labels are those of the roles' handlers: bounded
            log.error("%s raised\n%s", label, raised.traceback())


class _Inbox:
    """What waits for one `@on` handler: one at a time, the oldest dropped when there are too many."""

    def __init__(self, agents: Agents, agent: Agent, handler: EventHandler | SensorHandler) -> None:
        self._agents = agents
        self._agent = agent
        self._handler = handler
        self._waiting: deque[tuple[Any, NodeId | None]] = deque(maxlen=MAX_NEWS)
        self._arrived = asyncio.Event()
        self.dropped = 0
        self.label = handler.label
        self.event_class: type[Event] | None = handler.event if isinstance(handler, EventHandler) else None

    def put(self, value: Any, sender: NodeId | None) -> None:
        """Never blocks."""
        if len(self._waiting) == MAX_NEWS:
            self.dropped += 1
        self._waiting.append((value, sender))
        self._arrived.set()

    def put_local(self, value: Any) -> None:
        """A sample of this device."""
        self.put(value, None)

    async def run(self) -> None:
        """Handle one after another, for ever."""
        services, handler, role = self._agents._services, self._handler, self._agent.role
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            value, sender = self._waiting.popleft()
            context = Context(services, self._agent.name, sender=sender)
            await self._agents.called(
                self.label,
                handler.function,
                lambda v=value, c=context: handler.call(role, v, c),  # type: ignore[misc]
            )


async def _pump(stream: SensorStream[Any], inbox: _Inbox) -> None:
    try:
        await stream.pump(inbox.put_local)
    except SensorEndedError as error:
        log.info("sensor %s has ended: %s", stream.name, error)
