"""Inputs and effects of both machines, their configuration and the callbacks they are given.

Inputs are facts in the past tense, effects are orders. A driver calls `handle(event, now_s=...)`, carries the
effects out in order, and re-arms one timer from `next_deadline_s()`. All effects of one tick are persisted in one
transaction before any `Send` of that tick leaves and before any `StartWork` of that tick starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from meshagent.core.acts import Act, BidAnswer, TaskRecord, WorkOutcome
from meshagent.types import Epoch, NodeId, Reason, TaskId, TaskState


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractConfig:
    """Timing of negotiations. All in seconds of CLOCK_BOOTTIME."""

    reply_within_s: float = 0.4
    """A call closes earlier when every live capable peer has answered."""
    award_timeout_s: float = 0.4
    """Silence after an award for so long: the next runner-up, under a new epoch."""
    resend_s: float = 0.12
    """Unanswered award, commit, cancel, result: again after so long, doubling up to `resend_max_s`."""
    resend_max_s: float = 2.0
    lease_s: float = 2.0
    """L. Longer: calmer on bad radio; shorter: quicker takeover of at_most_once tasks."""
    renew_s: float = 0.6
    """About lease / 3.2: two renewals may be lost without losing the lease."""
    clock_drift: float = 0.03
    """rho: the two ends' clocks differ in rate by at most this; the initiator waits L (1 + 2 rho) + max_delay_s."""
    max_delay_s: float = 0.1
    """Longest time between a participant's first sending and its own reading of its clock; not a network delay."""
    backoff_s: float = 0.5
    """After a call without a usable bid: doubling with jitter up to `backoff_max_s`."""
    backoff_max_s: float = 8.0
    award_tolerance: float = 0.05
    """The price may drift this much between bid and award."""
    potential_p: int = 4
    """1 energy, 4 balanced, 8 makespan."""
    keep_s: float = 3600.0
    """How long a finished task's stored answers (tombstone) are kept when nobody acknowledges."""
    answers_key_s: float = 60.0
    """How long the result of a finished task answers calls of the same kind and key. Two devices that hear one rattle,
    or two sides of a healed partition, ask within that; who asks later wants it done again."""
    max_tasks: int = 10_000
    """Open tasks a node initiates at once; more are refused at submission."""
    max_contracts: int = 10_000
    """Contracts and tombstones a node keeps as participant; more: refusal BUSY."""

    def lease_wait_s(self) -> float:
        """How long the initiator waits from the last grant until the participant has surely stopped."""
        return self.lease_s * (1 + 2 * self.clock_drift) + self.max_delay_s


class Evidence(Protocol):
    """The signed bytes behind an act. Losing proposals are never verified; the winner's is, before the award."""

    def verify(self) -> bool:
        """Check the signature now if it was not yet; pure, repeatable."""


class Directory(Protocol):
    """Who could be asked now."""

    def candidates(self, kind: str) -> Sequence[NodeId]:
        """Live peers (this node too) that offer `kind` and may perform it, sorted."""


class Bidder(Protocol):
    """Prices a task against this node's plan and resources: pure and quick, at the call and again at the award."""

    def bid(self, record: TaskRecord, within_s: float | None, *, purpose: str) -> BidAnswer:
        """`purpose` is "call" or "award"."""

    def reserve(self, record: TaskRecord, epoch: Epoch) -> None:
        """Insert into the plan and hold resources; undone by `release`."""

    def release(self, task: TaskId, epoch: Epoch) -> None:
        """Take out of the plan; unknown tasks are ignored."""


# ---- inputs of both machines


@dataclass(frozen=True, slots=True, kw_only=True)
class ActReceived:
    """A peer (or this node itself) said something. The gate has passed it; `evidence` is still to verify only for
    direct proposals and refusals to a call."""

    peer: NodeId
    act: Act
    evidence: Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerLost:
    """Evidence that the peer's process is gone or out of reach. Never means stopped (PROTOCOL-DESIGN)."""

    peer: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerFound:
    """A peer is linked and has said what it offers; also when its offer changed."""

    peer: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class TimePassed:
    """`next_deadline_s()` was reached."""


# ---- inputs of the initiator


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSubmitted:
    """A role, a command or a parent task asks. `record.initiator` is this node."""

    record: TaskRecord
    within_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequested:
    task: TaskId
    reason: Reason = Reason.CANCELLED
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DoubtResolved:
    """A person decides an IN_DOUBT task: `done` with no result known, or not done: call again."""

    task: TaskId
    done: bool


# ---- inputs of the participant


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkEnded:
    """The executor reports that the handler has returned, raised, forfeited, or was stopped; nothing runs any more."""

    task: TaskId
    epoch: Epoch
    outcome: WorkOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressMade:
    task: TaskId
    epoch: Epoch
    progress_permille: int
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointTaken:
    task: TaskId
    epoch: Epoch
    state: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PointOfNoReturnReached:
    """The handler asks to pass; it waits for `GrantPointOfNoReturn`."""

    task: TaskId
    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveRequested:
    """The node shuts down: reservations are refused back, running work is asked to stop and is forfeited."""


InitiatorInput = ActReceived | PeerLost | PeerFound | TimePassed | TaskSubmitted | CancelRequested | DoubtResolved
ParticipantInput = (
    ActReceived
    | PeerLost
    | PeerFound
    | TimePassed
    | WorkEnded
    | ProgressMade
    | CheckpointTaken
    | PointOfNoReturnReached
    | LeaveRequested
)


# ---- effects


@dataclass(frozen=True, slots=True, kw_only=True)
class Persist:
    """Write this snapshot under (table, task). `record` is a frozen dataclass of this package; the journal codec
    turns it into msgpack. None: forget it. `urgent=False` may ride with a later transaction: what is on disk until
    then leads to the same promises."""

    table: str
    task: TaskId
    record: object | None
    urgent: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """To several peers the same act is sealed once, as a broadcast. `urgent=False` waits for the next frame."""

    to: tuple[NodeId, ...]
    act: Act
    urgent: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class StartWork:
    """Run the handler. Its lease deadline is `lease_until_s`; a `LeaseMoved` extends it. `attempt` is the epoch's
    counter: it grows with every call and award of the task, though not always by one."""

    record: TaskRecord
    epoch: Epoch
    lease_until_s: float
    within_s: float | None
    checkpoint: bytes | None
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseMoved:
    """The work may act until `lease_until_s` under `epoch` (also after an adoption, with a new epoch)."""

    task: TaskId
    epoch: Epoch
    lease_until_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StopWork:
    """Stop acting now; `WorkEnded` must follow. `reason` reaches the handler as a CancelledError."""

    task: TaskId
    epoch: Epoch
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantPointOfNoReturn:
    task: TaskId
    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """A follow-up (`ctx.then`): hand this to the initiator machine of this node within the same tick."""

    record: TaskRecord
    within_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskChanged:
    """For whoever awaits the task, `tasks` and `watch`: the state as people know it."""

    task: TaskId
    state: TaskState
    epoch: Epoch | None = None
    holder: NodeId | None = None
    result: bytes | None = None
    reason: Reason | None = None
    detail: str = ""
    progress_permille: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """One line of the story that `why` tells, in order. `event` is a word of docs/why.md (an act's name or one of
    `called, closed, lost, lease_ended, fenced, adopted, restarted, backoff, late, forged, expired, in_doubt,
    resolved, doubt_settled`); `facts` holds plain values."""

    task: TaskId
    epoch: Epoch
    event: str
    peer: NodeId | None = None
    facts: tuple[tuple[str, str | int | float | bool | None], ...] = ()
    verified: bool = True


Effect = Persist | Send | StartWork | LeaseMoved | StopWork | GrantPointOfNoReturn | Submit | TaskChanged | Noted


class Machine(Protocol):
    """The shape of `Initiator` (initiator.py) and `Participant` (participant.py)."""

    def next_deadline_s(self) -> float | None:
        """When `TimePassed` is due; None: nothing to wait for. O(log n)."""
