"""How a submitted task ended, as values for who handles failure, and the submission that is awaited for them."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from meshagent.sdk.backend import Pending, RawOutcome
from meshagent.sdk.errors import SchemaError, TaskFailedError
from meshagent.sdk.kinds import KindSpec
from meshagent.types import NodeId, Reason, TaskId, TaskState, short, task_label

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Done(Generic[R_co]):
    """It was done, and this is the result."""

    result: R_co
    task: TaskId
    holder: NodeId | None = None


@dataclass(frozen=True, slots=True)
class NoAward:
    """Nobody took it: no bid, or the time ran out before one was accepted. It never started."""

    reason: Reason
    task: TaskId
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """It was tried and did not work."""

    reason: Reason
    task: TaskId
    detail: str = ""
    holder: NodeId | None = None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """It was withdrawn."""

    reason: Reason
    task: TaskId
    detail: str = ""


Outcome = Done[R] | NoAward | Failed | Cancelled

_NEVER_STARTED = frozenset({Reason.NO_BIDS, Reason.EXPIRED})


class Submission(Generic[R]):
    """A task on its way. Await it for the result, `.outcome()` for a value, `.accepted()` for the promise.

    It need not be awaited: the task lives in the mesh, not in this object.
    """

    __slots__ = ("_kind", "_pending")

    def __init__(self, pending: Pending, kind: KindSpec[Any]) -> None:
        self._pending = pending
        self._kind = kind

    @property
    def id(self) -> TaskId:
        """The task's id."""
        return self._pending.task

    @property
    def label(self) -> str:
        """What people type, `meshagent why check-7k2f...`."""
        return task_label(self._kind.name, self._pending.task)

    def __await__(self) -> Generator[Any, None, R]:
        """The result.

        Raises:
            TaskFailedError: there is none; `.outcome` says why.
        """
        return self.result().__await__()

    async def result(self) -> R:
        """The same as awaiting the submission, as a coroutine.

        Raises:
            TaskFailedError: there is none.
        """
        outcome = await self.outcome()
        if isinstance(outcome, Done):
            return outcome.result
        raise TaskFailedError(self.label, outcome, outcome.reason, outcome.detail)

    async def outcome(self) -> Outcome[R]:
        """How it ended: `Done`, `NoAward`, `Failed` or `Cancelled`."""
        return self._told(await self._pending.outcome())

    async def accepted(self) -> None:
        """Return when the task is as durable as was asked: from here on this node may go."""
        await self._pending.accepted()

    def cancel(self, detail: str = "") -> None:
        """Withdraw it. Work that has passed its point of no return is not undone; the outcome tells."""
        self._pending.cancel(detail)

    def _told(self, raw: RawOutcome) -> Outcome[R]:
        task = self._pending.task
        reason = raw.reason or Reason.OTHER
        if raw.state is TaskState.CANCELLED:
            return Cancelled(raw.reason or Reason.CANCELLED, task, raw.detail)
        if raw.state is not TaskState.DONE:
            if raw.holder is None and reason in _NEVER_STARTED:
                return NoAward(reason, task, raw.detail)
            return Failed(reason, task, raw.detail, raw.holder)
        if raw.result is None:  # a person said that it was done; nobody has the result
            return Failed(
                Reason.OPERATOR, task, raw.detail or "done, as an operator says; no result is known", raw.holder
            )
        try:
            return Done(self._kind.decode_result(raw.result), task, raw.holder)
        except SchemaError as error:
            return Failed(Reason.ERROR, task, f"the result of {short(self.label)} cannot be read: {error}", raw.holder)

    def __repr__(self) -> str:
        return f"<Submission {short(self.label)}>"
