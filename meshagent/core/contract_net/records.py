"""What both machines write into the journal: frozen snapshots, one a task, whole each time.

Table `initiated` holds what this node asked for, `contracted` what it promised to others. Nothing here depends on
CLOCK_BOOTTIME, which starts again with the device: durations are what was left when the snapshot was taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from meshagent.core.acts import Performative, TaskRecord
from meshagent.types import Epoch, NodeId, Reason, TaskId, TaskState

INITIATED: Final = "initiated"
CONTRACTED: Final = "contracted"
CUSTODY: Final = "custody"
MARKS: Final = "marks"

MAX_CHECKPOINT_VERSION: Final = 1 << 40
"""A liar that names a huge version may not exhaust the counter: the next holder counts on from it."""


class Phase(StrEnum):
    """Where a task stands at its initiator (DESIGN 6)."""

    SUBMITTING = "submitting"
    """Not accepted yet: a majority of its custodians must have it on disk first."""
    PREPARING = "preparing"
    """A majority of its custodians is asked to make this node the owner, and what they know."""
    WAITING = "waiting"
    """An earlier holder may act until its grants are over; then called again."""
    ACCEPTING = "accepting"
    """Somebody has reserved, or is to be adopted; a majority of the custodians must write that down first."""
    ENTRUSTED = "entrusted"
    """Another node owns it now; this one, who asked, waits for the outcome."""
    CALLING = "calling"
    """Bids are awaited."""
    BACKOFF = "backoff"
    """Nobody could be awarded; called again later."""
    AWARDING = "awarding"
    """The best bidder was awarded and has not reserved yet."""
    COMMITTED = "committed"
    """Somebody may be doing it: until `lease_wait_s` after the last grant nobody else is asked."""
    IN_DOUBT = "in_doubt"
    """Past the point of no return and out of sight: only DONE, proof of not done, or a person ends it."""
    CANCELLING = "cancelling"
    """Withdrawn or expired while somebody may be doing it."""
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL: Final = frozenset({Phase.DONE, Phase.FAILED, Phase.CANCELLED})


class Stage(StrEnum):
    """Where a contract stands at its participant. A bidder that was not awarded has none."""

    RESERVED = "reserved"
    EXECUTING = "executing"
    STOPPING = "stopping"
    """The handler was told to stop and has not ended yet."""
    REPORTING = "reporting"
    """Result, failure or forfeit is resent until acknowledged."""
    IN_DOUBT = "in_doubt"
    """Stopped past the point of no return: whether the effect happened is not known here."""
    CLOSED = "closed"
    """A tombstone: answers duplicates, absorbs what is late."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Award:
    """Somebody who was awarded; `epoch` is the last one it got."""

    peer: NodeId
    epoch: Epoch
    owing: bool
    """It has not answered yet that it does nothing any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InitiatorRecord:
    """A task at its initiator."""

    record: TaskRecord
    phase: Phase
    epoch: Epoch
    holder: NodeId | None
    former: Epoch | None
    """The epoch that `holder` was adopted from and may still name."""
    awards: tuple[Award, ...]
    point_of_no_return: bool
    within_left_s: float | None
    failures: int
    checkpoint: bytes | None
    checkpoint_version: int
    ending: TaskState | None
    """What a withdrawal ends in, once nobody acts: CANCELLED, or FAILED when the time was over."""
    result: bytes | None
    reason: Reason | None
    detail: str
    version: int = 0
    """Of what the custodians were told last under `epoch`."""
    ballot: Epoch | None = None
    """What the custodians were asked to promise, or the submission's epoch; None: there are no custodians."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a task ended, as its custodians keep it."""

    epoch: Epoch
    state: TaskState
    holder: NodeId | None
    result: bytes | None
    reason: Reason | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Somebody whom an owner has named as holder, and the last epoch of it."""

    peer: NodeId
    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterRecord:
    """A task at one of its custodians."""

    record: TaskRecord
    promised: Epoch
    ballot: Epoch
    accepted: Epoch
    version: int
    holder: NodeId | None
    held: tuple[Held, ...]
    point_of_no_return: bool
    cancelled: bool
    lease_ms: int
    within_left_s: float | None
    old: bool
    """This journal was found to be older than what others remember of it: it votes on nothing."""
    ended: Ended | None
    checkpoint: bytes | None = None
    checkpoint_version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkRecord:
    """A journal high-water mark: our own, or what another node was seen to have reached (rule 11)."""

    mark: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How a contract ended: INFORM with `result`, FAILURE or FORFEIT with a reason."""

    act: Performative
    epoch: Epoch
    result: bytes | None = None
    reason: Reason | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractRecord:
    """A contract, or the tombstone of one, at its participant."""

    task: TaskId
    initiator: NodeId
    record: TaskRecord | None
    """None: a cancel that came before any award."""
    epoch: Epoch
    run_epoch: Epoch
    fence: Epoch
    """The highest epoch heard; lower ones are refused."""
    stage: Stage
    point_of_no_return: bool
    checkpoint: bytes | None
    checkpoint_version: int
    report: Report | None
