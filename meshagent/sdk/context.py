"""What a handler is given: `Context` for news and timers, `TaskContext` for a contract being executed.

You get what you name in the handler's signature. Only a `TaskContext` knows progress, checkpoints, actuators and the
lease: a handler of news cannot report progress of nothing.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, NoReturn, TypeVar, cast, overload

from meshagent.core.acts import MAX_CHECKPOINT_BYTES, MAX_TEXT_CHARS
from meshagent.errors import LocalProtocolError
from meshagent.sdk.backend import NodeServices, PeerInfo, SubmitRequest, WorkServices
from meshagent.sdk.errors import ForfeitSignal, LeaseLostError, SchemaError
from meshagent.sdk.events import Event, event_schema
from meshagent.sdk.fence import FencedDevice
from meshagent.sdk.kinds import Task, kind_of
from meshagent.sdk.outcome import Submission
from meshagent.sdk.schema import schema_of
from meshagent.sdk.sensing import ActuatorHandle
from meshagent.types import Durability, Epoch, NodeId, Reason, TaskId

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")
R = TypeVar("R")

MAX_KEY_CHARS: Final = 200
"""A key names a thing in the world, `pump-7/bearing`; it travels with every call."""
MAX_PRIORITY: Final = 1000
"""Either way; beyond a few levels nobody can say what a priority means."""
MAX_WITHIN_S: Final = 366 * 86400.0
"""A year: longer than any credential lives."""

DurabilityWord = Literal["local", "replicated"]


class NodeView:
    """`self.node`: the device that this role runs on."""

    __slots__ = ("_services",)

    def __init__(self, services: NodeServices) -> None:
        self._services = services

    @property
    def id(self) -> NodeId:
        """The device's key, as text."""
        return self._services.id

    @property
    def name(self) -> str:
        """For people; two devices may have one name."""
        return self._services.name

    def now_s(self) -> float:
        """Seconds of the node's monotonic clock, suspension counted. For durations; it is no time of day."""
        return self._services.now_s()

    def peers(self) -> Sequence[PeerInfo]:
        """Who is linked now."""
        return self._services.peers()

    def __repr__(self) -> str:
        return f"<node {self.name} {self.id[:8]}>"


class Context:
    """The mesh as a role sees it: submit, gather, emit, peers, log."""

    def __init__(
        self, services: NodeServices, role: str, *, parent: TaskId | None = None, sender: NodeId | None = None
    ) -> None:
        self._services = services
        self._parent = parent
        self._sender = sender
        self.log: logging.LoggerAdapter[logging.Logger] = _RoleLog(
            logging.getLogger(f"meshagent.roles.{role}"), {"node": services.name, "conversation_id": parent or ""}
        )
        """A logger that knows node and task."""

    @property
    def node(self) -> NodeView:
        """The device that this runs on."""
        return NodeView(self._services)

    @property
    def sender(self) -> NodeId | None:
        """Who emitted the event being handled; None: this device, or no event."""
        return self._sender

    def now_s(self) -> float:
        """Seconds of the node's monotonic clock."""
        return self._services.now_s()

    def peers(self) -> Sequence[PeerInfo]:
        """Who is linked now."""
        return self._services.peers()

    def submit(
        self,
        task: Task[R],
        *,
        key: str = "",
        within_s: float | None = None,
        priority: int = 0,
        durability: Durability | DurabilityWord = Durability.REPLICATED,
    ) -> Submission[R]:
        """Ask the mesh to get `task` done. Takes effect at once, whether awaited or not.

        Args:
            task: what is asked.
            key: names the thing in the world; tasks of one kind and key are one piece of work, done once.
            within_s: seconds allowed from now; then it ends as NoAward or Failed with reason EXPIRED.
            priority: higher is called first where a node must choose.
            durability: who must have persisted it before `accepted()` returns.

        Raises:
            SchemaError: a field holds what its type forbids.
        """
        request = self._request(task, key=key, within_s=within_s, priority=priority, durability=durability)
        return Submission(self._services.submit(request), kind_of(type(task)))

    def emit(self, event: Event) -> None:
        """Tell every linked peer and the roles of this device. News may be lost; nobody answers.

        Raises:
            SchemaError: a field holds what its type forbids.
        """
        if not event.travels:
            raise LocalProtocolError(f"{type(event).__name__} is told by the mesh itself and cannot be emitted")
        self._services.emit(event.event_name, event_schema(type(event)).encode(event))

    @overload
    async def gather(self, a: Task[A], b: Task[B], /) -> tuple[A, B]: ...

    @overload
    async def gather(self, a: Task[A], b: Task[B], c: Task[C], /) -> tuple[A, B, C]: ...

    @overload
    async def gather(self, a: Task[A], b: Task[B], c: Task[C], d: Task[D], /) -> tuple[A, B, C, D]: ...

    @overload
    async def gather(self, a: Task[A], b: Task[B], c: Task[C], d: Task[D], e: Task[E], /) -> tuple[A, B, C, D, E]: ...

    @overload
    async def gather(self, *tasks: Task[R]) -> tuple[R, ...]: ...

    async def gather(self, *tasks: Task[Any]) -> tuple[Any, ...]:
        """Submit all and wait for all results, in order. One fails: the others are cancelled and it is raised.

        Raises:
            TaskFailedError: the first failure.
        """
        submissions: list[Submission[Any]] = []
        try:
            submissions.extend(self.submit(task) for task in tasks)
            async with asyncio.TaskGroup() as group:
                waiting = [group.create_task(submission.result()) for submission in submissions]
        except BaseException as error:
            # also when this handler itself is cancelled: nobody would wait for the parts any more
            for submission in submissions:
                submission.cancel("another part of the same gather ended without a result")
            if isinstance(error, BaseExceptionGroup):
                raise error.exceptions[0] from None
            raise
        return tuple(part.result() for part in waiting)

    def _request(
        self,
        task: Task[Any],
        *,
        key: str = "",
        within_s: float | None = None,
        priority: int = 0,
        durability: Durability | DurabilityWord = Durability.REPLICATED,
    ) -> SubmitRequest:
        kind = kind_of(type(task))
        if len(key) > MAX_KEY_CHARS:
            raise LocalProtocolError(
                f"the key of {kind.cls.__name__} has {len(key)} characters, at most {MAX_KEY_CHARS}"
            )
        if within_s is not None and not 0 < within_s <= MAX_WITHIN_S:  # false for NaN too
            raise LocalProtocolError(f"within_s is {within_s!r}", next_step="give seconds, more than 0, at most a year")
        if type(priority) is not int or abs(priority) > MAX_PRIORITY:
            raise LocalProtocolError(
                f"priority is {priority!r}", next_step=f"give a whole number, at most {MAX_PRIORITY}"
            )
        return SubmitRequest(
            kind=kind.name,
            spec=kind.encode(task),
            delivery=kind.delivery,
            in_doubt=kind.in_doubt,
            durability=Durability(durability),
            approval=kind.approval,
            key=key,
            within_s=within_s,
            priority=priority,
            parent=self._parent,
        )


class TaskContext(Context):
    """A contract being executed."""

    def __init__(self, services: NodeServices, work: WorkServices, role: str) -> None:
        super().__init__(services, role, parent=work.record.task)
        self._work = work

    @property
    def task_id(self) -> TaskId:
        """The task's id."""
        return self._work.record.task

    @property
    def epoch(self) -> Epoch:
        """The fencing token of this award; hand it to devices that compare tokens themselves. Grows on adoption."""
        return self._work.epoch

    @property
    def attempt(self) -> int:
        """1 for the first holder, more after takeovers."""
        return self._work.attempt

    def lease_left_s(self) -> float:
        """Seconds until this work must have stopped unless it is renewed; 0 when it is over."""
        return max(0.0, self._work.lease_until_s() - self._services.now_s())

    def progress(self, share: float, note: str = "") -> None:
        """Tell how far it is, 0 to 1, with a word for people. Rides with the next renewal."""
        if not math.isfinite(share):
            raise LocalProtocolError(f"progress is {share!r}", next_step="give a share from 0 to 1")
        self._work.progress(round(1000 * min(1.0, max(0.0, share))), note[:MAX_TEXT_CHARS])

    async def checkpoint(self, state: object) -> None:
        """Keep `state` (a dataclass) for whoever continues; returns when it is journaled here.

        Raises:
            SchemaError: a field holds what its type forbids, or it is too large.
        """
        await self._work.checkpoint(_checkpoint_bytes(state))

    def resumed(self, kind: type[R]) -> R | None:
        """What the holder before left, if it left anything of that type.

        A checkpoint that cannot be read (another version of the role wrote it) is logged and counts as none.
        """
        received = self._work.checkpoint_received
        if received is None:
            return None
        try:
            return schema_of(kind).decode(received, max_bytes=MAX_CHECKPOINT_BYTES)
        except SchemaError as error:
            self.log.warning(
                "the checkpoint of attempt %d cannot be used, starting afresh: %s", self.attempt - 1, error
            )
            return None

    @asynccontextmanager
    async def use(self, actuator: ActuatorHandle[D]) -> AsyncIterator[D]:
        """Have a device that moves, under this contract's lease: `async with ctx.use(self.legs) as legs`.

        One contract at a time; others wait. Each call on the device compares lease and epoch at that moment. It is
        stopped before the lease ends, when a newer epoch is heard, and when the block ends.

        Raises:
            LeaseLostError: the work may not act any more.
            ConfigurationError: no driver on this device.
        """
        device: Any = actuator.device
        async with actuator.turn:
            hold = _Hold(self._services, self._work, actuator.name)
            hold.check()

            def fenced() -> None:
                hold.over = "the lease ended or a newer epoch was heard"
                device.stop()

            unregister = self._work.on_fence(fenced)
            try:
                yield cast("D", FencedDevice(device, hold))
            finally:
                unregister()
                hold.over = hold.over or f"the block `async with ctx.use(self.{actuator.name})` has ended"
                device.stop()

    def then(
        self,
        task: Task[Any],
        *,
        key: str = "",
        within_s: float | None = None,
        priority: int = 0,
        durability: Durability | DurabilityWord = Durability.REPLICATED,
    ) -> None:
        """Submit follow-up work together with this result: both are committed or neither is."""
        self._work.then(self._request(task, key=key, within_s=within_s, priority=priority, durability=durability))

    def forfeit(self, reason: Reason = Reason.GIVEN_BACK, detail: str = "", *, checkpoint: object = None) -> NoReturn:
        """Give the task back; the mesh calls again and the next holder gets the checkpoint.

        Nothing that cannot be undone may have happened.
        """
        state = None if checkpoint is None else _checkpoint_bytes(checkpoint)
        raise ForfeitSignal(Reason(reason), detail[:MAX_TEXT_CHARS], state)

    async def point_of_no_return(self) -> None:
        """Record that what follows cannot be undone; call it right before. Returns when the asker has it on disk.

        After it the task is never handed to another device unless a person says so.

        Raises:
            LeaseLostError: not any more.
        """
        await self._work.pass_point_of_no_return()


class _Hold:
    """The fence of one `use` block."""

    __slots__ = ("_name", "_services", "_work", "over")

    def __init__(self, services: NodeServices, work: WorkServices, name: str) -> None:
        self._services = services
        self._work = work
        self._name = name
        self.over = ""

    def check(self) -> None:
        over = self.over
        if not over and self._services.now_s() >= self._work.lease_until_s():
            over = "the lease has ended"  # the process may have been suspended past it: no timer told us
        if over:
            raise LeaseLostError(f"{self._name} may not move: {over}", task=self._work.record.task)


class _RoleLog(logging.LoggerAdapter[logging.Logger]):
    """Adds node and task to every record without touching what the role says."""

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        own: Mapping[str, object] = self.extra or {}
        kwargs["extra"] = {**own, **(kwargs.get("extra") or {})}
        return msg, kwargs


def _checkpoint_bytes(state: object) -> bytes:
    return schema_of(type(state)).encode(state, max_bytes=MAX_CHECKPOINT_BYTES)
