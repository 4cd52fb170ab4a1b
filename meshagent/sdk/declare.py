"""The decorators: `@task`, `@x.feasible`, `@x.price`, `@on`, `@every`.

They only note what was written; `role.py` checks everything when the role is loaded, so that one mistake does not
hide the next.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Concatenate, Final, Generic, Literal, ParamSpec, Protocol, TypeVar, overload

from meshagent.sdk.call import Call, Proposal, Refusal
from meshagent.sdk.context import Context, TaskContext
from meshagent.sdk.events import Event
from meshagent.sdk.kinds import Task
from meshagent.sdk.sensing import Sample, Sensor

S = TypeVar("S")
S_contra = TypeVar("S_contra", contravariant=True)
K = TypeVar("K", bound=Task[Any])
E = TypeVar("E", bound=Event)
T = TypeVar("T")
V = TypeVar("V")
R = TypeVar("R")
P = ParamSpec("P")

Worker = Literal["thread", "process"]

MARKS: Final = "__meshagent_marks__"


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """What `@task(...)` was given."""

    worker: str | None = None
    timeout_s: float | None = None
    memory_mib: int | None = None


@dataclass(frozen=True, slots=True)
class OnMark:
    """`@on(source)` stands above the function."""

    source: object


@dataclass(frozen=True, slots=True)
class EveryMark:
    """`@every(seconds)` stands above the function."""

    period_s: float


class TaskHandler(Generic[S, K, P, R]):
    """A method that performs one kind of task. Called on an instance it is the method itself."""

    def __init__(self, function: Callable[Concatenate[S, K, P], R], options: TaskOptions) -> None:
        self.function = function
        self.options = options
        self.feasible_hooks: list[Callable[[S, Call[K]], Refusal | None]] = []
        self.price_hooks: list[Callable[[S, Call[K]], Proposal]] = []
        self.__doc__ = function.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> TaskHandler[S, K, P, R]: ...

    @overload
    def __get__(self, instance: S, owner: type) -> Callable[Concatenate[K, P], R]: ...

    def __get__(self, instance: S | None, owner: type) -> TaskHandler[S, K, P, R] | Callable[Concatenate[K, P], R]:
        if instance is None:
            return self
        method: Callable[Concatenate[K, P], R] = self.function.__get__(instance, owner)
        return method

    def feasible(self, hook: Callable[[S, Call[K]], Refusal | None]) -> Callable[[S, Call[K]], Refusal | None]:
        """Ask `hook` before bidding, after the built-in checks; None: feasible. Pure, at most 10 ms."""
        self.feasible_hooks.append(hook)
        return hook

    def price(self, hook: Callable[[S, Call[K]], Proposal]) -> Callable[[S, Call[K]], Proposal]:
        """Let `hook` price the task instead of `call.propose()`. Pure, at most 10 ms."""
        self.price_hooks.append(hook)
        return hook


class _TaskDecorator(Protocol):
    @overload
    def __call__(self, handler: Callable[[S, K], R], /) -> TaskHandler[S, K, [], R]: ...

    @overload
    def __call__(self, handler: Callable[[S, K, TaskContext], R], /) -> TaskHandler[S, K, [TaskContext], R]: ...


@overload
def task(handler: Callable[[S, K], R], /) -> TaskHandler[S, K, [], R]: ...


@overload
def task(handler: Callable[[S, K, TaskContext], R], /) -> TaskHandler[S, K, [TaskContext], R]: ...


@overload
def task(
    *, worker: Worker | None = None, timeout_s: float | None = None, memory_mib: int | None = None
) -> _TaskDecorator: ...


def task(
    handler: Any = None,
    /,
    *,
    worker: Worker | None = None,
    timeout_s: float | None = None,
    memory_mib: int | None = None,
) -> Any:
    """Perform a kind of task: the annotations of the method say which, and what comes out.

    `async def` runs on the node's loop and may take a `Context` or `TaskContext`. A plain `def` is computing: it
    takes the task alone and runs in a thread, or in a process of its own that can be killed.

    Args:
        handler: the method, when used without brackets.
        worker: `"thread"` or `"process"`, for a plain `def`.
        timeout_s: seconds for one attempt; longer fails with TIMEOUT.
        memory_mib: held while it runs; a process that takes more is killed.
    """
    options = TaskOptions(worker, timeout_s, memory_mib)
    if handler is not None:
        return TaskHandler(handler, options)
    return lambda function: TaskHandler(function, options)


class _OnDecorator(Protocol[V]):
    @overload
    def __call__(self, handler: Callable[[S, V], T], /) -> Callable[[S, V], T]: ...

    @overload
    def __call__(self, handler: Callable[[S, V, Context], T], /) -> Callable[[S, V, Context], T]: ...


@overload
def on(source: type[E], /) -> _OnDecorator[E]: ...


@overload
def on(source: Sensor[V], /) -> _OnDecorator[Sample[V]]: ...


def on(source: Any, /) -> Any:
    """Handle every event of a class, or every sample of a sensor of this role.

    The next one waits until the handler is done; while it waits, sensor samples are dropped oldest first.
    """
    return lambda function: _marked(function, OnMark(source))


class _EveryDecorator(Protocol):
    @overload
    def __call__(self, handler: Callable[[S], Awaitable[None]], /) -> Callable[[S], Awaitable[None]]: ...

    @overload
    def __call__(
        self, handler: Callable[[S, Context], Awaitable[None]], /
    ) -> Callable[[S, Context], Awaitable[None]]: ...


def every(period_s: float, /) -> _EveryDecorator:
    """Call the method every `period_s` seconds, the first time one period after the start; never twice at once."""
    mark: Any = lambda function: _marked(function, EveryMark(period_s))  # noqa: E731 - a named one would need a cast
    decorator: _EveryDecorator = mark
    return decorator


def _marked(function: Any, mark: OnMark | EveryMark) -> Any:
    marks = getattr(function, MARKS, ())
    try:
        setattr(function, MARKS, (*marks, mark))
    except AttributeError:  # not a function: role.py cannot find it either, so keep it findable
        return _Unusable(function, mark)
    return function


class _Unusable:
    """What `@on` or `@every` was put above when it is no function."""

    def __init__(self, function: object, mark: OnMark | EveryMark) -> None:
        self.function = function
        setattr(self, MARKS, (mark,))
