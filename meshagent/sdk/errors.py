"""What the SDK raises, and the signal by which a handler gives its task back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from meshagent.errors import ConfigurationError, LocalProtocolError, MeshAgentError
from meshagent.types import Reason, TaskId


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a value: which field, what was seen, what was expected."""

    path: str
    """Dotted from the dataclass, `CheckContact.readings[2].rms_g`."""
    message: str

    def __str__(self) -> str:
        return f"{self.path} {self.message}"


class SchemaError(MeshAgentError):
    """A value does not fit its type: bytes that arrived, or a value that was to be sent."""

    def __init__(self, problems: Sequence[Problem], *, next_step: str | None = None) -> None:
        super().__init__("; ".join(str(problem) for problem in problems), next_step=next_step)
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake in a role or kind, as SURFACE section 7 shows them."""

    file: str
    line: int
    message: str
    next_step: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line} " if self.line else f"{self.file} " if self.file else ""
        return f"{where}{self.message}   next: {self.next_step}"


class RoleLoadError(ConfigurationError):
    """Everything that is wrong with the roles that were to be loaded, at once."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__("\n".join(str(mistake) for mistake in mistakes), next_step=mistakes[0].next_step)
        self.mistakes = tuple(mistakes)


class DeclarationError(ConfigurationError):
    """A class statement or decorator of the SDK was given something that cannot be."""


class LeaseLostError(LocalProtocolError):
    """The work may not act any more: its lease ended or a newer epoch was heard. The device has been stopped."""

    def __init__(self, message: str, *, task: TaskId | None = None) -> None:
        super().__init__(message)
        self.task = task


class TaskFailedError(MeshAgentError):
    """What awaiting a submission raises when there is no result.

    `outcome` is the `NoAward`, `Failed` or `Cancelled` that `.outcome()` would have given.
    """

    def __init__(self, label: str, outcome: object, reason: Reason, detail: str) -> None:
        super().__init__(f"{label}: {reason}{f', {detail}' if detail else ''}", next_step=f"meshagent why {label}")
        self.label = label
        self.outcome = outcome
        self.reason = reason
        self.detail = detail


class ForfeitSignal(BaseException):
    """Raised by `ctx.forfeit`, caught by the node: the task goes back with its last checkpoint.

    A `BaseException`, like `CancelledError`, so that a handler's own `except Exception` does not keep the task.
    """

    def __init__(self, reason: Reason, detail: str, checkpoint: bytes | None) -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail
        self.checkpoint = checkpoint
