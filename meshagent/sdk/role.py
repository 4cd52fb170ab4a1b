"""`Role`, and the `RoleSpec` that the node hosts. Compiling a role: `compiling.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from meshagent.sdk.backend import NodeServices
from meshagent.sdk.call import Call, Proposal, Refusal
from meshagent.sdk.context import Context, NodeView, TaskContext
from meshagent.sdk.events import Event
from meshagent.sdk.kinds import KindSpec, Task
from meshagent.sdk.requires import Requires
from meshagent.sdk.sensing import Actuator, Sample, Sensor


class Role:
    """Base of all roles: what an agent can do. One instance a node, made by the node without arguments.

    `self.node` is there before `__init__` runs.
    """

    requires: ClassVar[Requires] = Requires()

    node: NodeView


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a role's class comes from, so that a spawned process finds it again."""

    module: str
    qualname: str
    file: str
    """Empty when it is not a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """One `@task` method."""

    kind: KindSpec[Any]
    method: str
    function: Callable[..., Any]
    takes: type[Context] | None
    """`Context`, `TaskContext`, or None: the task alone."""
    is_async: bool
    worker: str | None
    """None: on the loop; `thread`; `process`."""
    timeout_s: float | None
    memory_mib: int
    requires: Requires
    """Of role and kind together."""
    feasible: Callable[[Any, Call[Any]], Refusal | None] | None
    price: Callable[[Any, Call[Any]], Proposal] | None
    label: str
    """`Dog.check`, for logs."""
    where: str
    """`dog.py:15`, for logs."""

    def call(self, role: Role, task: Task[Any], context: TaskContext | None) -> Any:
        """Call the handler: a coroutine where `is_async`, else its result."""
        return self.function(role, task) if self.takes is None else self.function(role, task, context)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventHandler:
    """One `@on(EventClass)` method."""

    event: type[Event]
    method: str
    function: Callable[..., Any]
    takes_context: bool
    label: str

    def call(self, role: Role, event: Event, context: Context) -> Any:
        """Call the handler; await what comes back if it is awaitable."""
        return self.function(role, event, context) if self.takes_context else self.function(role, event)


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorHandler:
    """One `@on(sensor)` method."""

    sensor: Sensor[Any]
    method: str
    function: Callable[..., Any]
    takes_context: bool
    label: str

    def call(self, role: Role, sample: Sample[Any], context: Context) -> Any:
        """Call the handler; await what comes back if it is awaitable."""
        return self.function(role, sample, context) if self.takes_context else self.function(role, sample)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timer:
    """One `@every(seconds)` method."""

    period_s: float
    method: str
    function: Callable[..., Any]
    takes_context: bool
    label: str

    def call(self, role: Role, context: Context) -> Any:
        """Call the handler; await what comes back if it is awaitable."""
        return self.function(role, context) if self.takes_context else self.function(role)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RoleSpec:
    """A role as the node hosts it; every name in it has been checked."""

    name: str
    cls: type[Role]
    origin: Origin
    requires: Requires
    tasks: tuple[TaskSpec, ...]
    events: tuple[EventHandler, ...]
    samples: tuple[SensorHandler, ...]
    timers: tuple[Timer, ...]
    sensors: Mapping[str, Sensor[Any]]
    actuators: Mapping[str, Actuator[Any]]

    def performing(self, kind: str) -> TaskSpec | None:
        """The handler of the kind with that wire name."""
        return next((task for task in self.tasks if task.kind.name == kind), None)

    def create(self, services: NodeServices) -> Role:
        """A new instance with `self.node`; connect its sensors and actuators before using it."""
        role = self.cls.__new__(self.cls)
        role.node = NodeView(services)
        role.__init__()  # type: ignore[misc]  # after `node`, so that a role's own __init__ may use it
        return role
