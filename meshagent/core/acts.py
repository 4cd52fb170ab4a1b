"""What two nodes say to each other about a task: FIPA's acts verbatim, and the few that FIPA leaves out.

Source: FIPA SC00029H (contract net), SC00037J (acts). FIPA has no acknowledged award, no lease, no fencing, no
point of no return; those acts carry names of their own and stand in `Performative` after FIPA's.

Every act names its task and an epoch. Acts are values: frozen, compared by content, turned into protobuf by
`wire/codec.py` and into msgpack by nobody. Byte fields hold msgpack that only the SDK interprets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from meshagent.types import Delivery, Durability, Epoch, InDoubt, NodeId, Reason, TaskId, TaskState

MAX_SPEC_BYTES: Final = 32 * 1024
MAX_RESULT_BYTES: Final = 48 * 1024
MAX_CHECKPOINT_BYTES: Final = 24 * 1024
"""Record and checkpoint must fit one award together: payload <= 64 KiB (SECURITY-DESIGN 1)."""
MAX_TEXT_CHARS: Final = 500
"""Sentences shown to people (`because`, `detail`, `note`); longer: cut by the sender, refused by the decoder."""


class Performative(StrEnum):
    """The word of an act, in code, on the wire and in `--json`."""

    CFP = "cfp"
    PROPOSE = "propose"
    REFUSE = "refuse"
    ACCEPT_PROPOSAL = "accept_proposal"
    REJECT_PROPOSAL = "reject_proposal"
    INFORM = "inform"
    FAILURE = "failure"
    CANCEL = "cancel"
    NOT_UNDERSTOOD = "not_understood"
    # what FIPA leaves out
    RESERVE = "reserve"
    COMMIT = "commit"
    RENEW = "renew"
    RENEWED = "renewed"
    CHECKPOINT = "checkpoint"
    FORFEIT = "forfeit"
    CANCELLED = "cancelled"
    ADOPT = "adopt"
    PASS_POINT_OF_NO_RETURN = "pass_point_of_no_return"
    POINT_OF_NO_RETURN_RECORDED = "point_of_no_return_recorded"
    QUERY_STATUS = "query_status"
    ACKNOWLEDGE = "acknowledge"
    # between the owner of a task and its custodians, and among these (a synod a task)
    PREPARE = "prepare"
    PROMISE = "promise"
    ACCEPT = "accept"
    ACCEPTED = "accepted"
    NACK = "nack"
    OUTCOME = "outcome"
    OUTCOME_KNOWN = "outcome_known"
    INQUIRE = "inquire"
    STANDING = "standing"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """What is asked; written once by the initiator, the same bytes for every call and award.

    `task == task_id_of(initiator, boot, nonce)`; a participant checks it and that the sender is the initiator or a
    custodian named here, which proves itself by `seal`.
    """

    task: TaskId
    initiator: NodeId
    boot: bytes
    nonce: bytes
    kind: str
    spec: bytes
    delivery: Delivery = Delivery.AT_MOST_ONCE
    in_doubt: InDoubt = InDoubt.MAJORITY
    durability: Durability = Durability.REPLICATED
    priority: int = 0
    key: str = ""
    """Two devices that hear one rattle ask once: tasks of one (kind, key) are one piece of work."""
    parent: TaskId | None = None
    approval: bool = False
    custodians: tuple[NodeId, ...] = ()
    """Frozen set Q (PROTOCOL-DESIGN rule 2), chosen at submission. Empty: the initiator alone keeps the task."""
    custodian_generation: int = 0
    seal: bytes = b""
    """The initiator's signature over `core.custody.record_digest`; present where custodians are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cfp:
    """Call for proposals. `reply_within_ms` counts at the initiator from sending."""

    task: TaskId
    epoch: Epoch
    record: TaskRecord
    reply_within_ms: int
    within_ms: int | None = None
    """Time left to the task as a whole; None: no limit."""
    resumes: bool = False
    """A checkpoint of an earlier holder exists and comes with the award."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Propose:
    """An offer, not a hold. Cost is the marginal cost in the bidder's own plan; the initiator scores it exactly
    as (load + added)^p - load^p in integers, so that no float decides who wins."""

    task: TaskId
    epoch: Epoch
    added_ms: int
    load_ms: int
    plan_version: int
    because: str = ""
    holds_result: bool = False
    """The bidder has already done this (same kind and key); the award is answered with the stored result at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """To a call: will not bid. To an award: STALE_BID with the new price, STALE_EPOCH with `seen`, or any reason."""

    task: TaskId
    epoch: Epoch
    reason: Reason
    detail: str = ""
    added_ms: int | None = None
    load_ms: int | None = None
    seen: Epoch | None = None
    duplicate_of: TaskId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptProposal:
    """The award. Complete in itself: a participant needs no memory of the call or of its own offer."""

    task: TaskId
    epoch: Epoch
    record: TaskRecord
    call_epoch: Epoch
    added_ms: int
    load_ms: int
    plan_version: int
    lease_ms: int
    within_ms: int | None = None
    checkpoint: bytes | None = None
    checkpoint_version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectProposal:
    """Not you. Not urgent: rides with the next frame (DESIGN 6, rule 9)."""

    task: TaskId
    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserve:
    """Award accepted, persisted, resources held until the commit or the end of the lease, which counts from the
    first sending of this act (rule 5). No commit by then: `Forfeit(LEASE_LOST)`."""

    task: TaskId
    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """Start. Only the first one that arrives within the lease does anything."""

    task: TaskId
    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Renew:
    """Still doing it. `sequence` is unique in the sender's boot `boot`; the echo of both starts the lease at the
    *first* sending, so an echo meant for an earlier life of the sender extends nothing (rule 5)."""

    task: TaskId
    epoch: Epoch
    boot: bytes
    sequence: int
    progress_permille: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed:
    """The renewal `sequence` of the participant's boot `boot` was received and granted."""

    task: TaskId
    epoch: Epoch
    boot: bytes
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What the next holder continues from. Resent until acknowledged; a higher version replaces a lower."""

    task: TaskId
    epoch: Epoch
    version: int
    state: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Inform:
    """Done, with the result. Resent until acknowledged."""

    task: TaskId
    epoch: Epoch
    result: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """It was tried and did not work; final for the task unless the initiator's terms say otherwise."""

    task: TaskId
    epoch: Epoch
    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forfeit:
    """Given back (or the lease was lost, or the node restarted): work has stopped, was persisted as stopped, and
    took no irreversible effect. Resent until acknowledged."""

    task: TaskId
    epoch: Epoch
    reason: Reason
    detail: str = ""
    checkpoint: bytes | None = None
    checkpoint_version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Withdrawn, or fenced by a newer epoch. Sent to everyone ever awarded until each answered."""

    task: TaskId
    epoch: Epoch
    reason: Reason = Reason.CANCELLED
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """The participant does nothing for this task and never will under epochs up to `epoch`.

    `in_doubt`: a point of no return had been passed, whether the effect happened is unknown here."""

    task: TaskId
    epoch: Epoch
    in_doubt: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopt:
    """Carry on under this new epoch; healthy work is not restarted (rules 2, 3)."""

    task: TaskId
    epoch: Epoch
    former: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class PassPointOfNoReturn:
    """About to do what cannot be undone: record it first (rule 4)."""

    task: TaskId
    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class PointOfNoReturnRecorded:
    """Persisted at the initiator; from now on only DONE, proof of not done, or a person ends the task."""

    task: TaskId
    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryStatus:
    """In doubt: what do you know of it? Answered by Inform, Forfeit, Cancelled or Refuse(UNKNOWN_TASK)."""

    task: TaskId
    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledge:
    """`act` of that epoch arrived and was persisted; stop resending. For checkpoints, `version` of it."""

    task: TaskId
    epoch: Epoch
    act: Performative
    version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NotUnderstood:
    """That act is illegal now, and why. Never answered, so that two confused nodes fall silent."""

    task: TaskId
    epoch: Epoch
    act: Performative
    reason: Reason
    detail: str = ""


# ---- custody: the owner of a task and its custodians (core/contract_net/custody.py)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare:
    """I want to own this task under the ballot `epoch`: listen to no lower one, and say what you accepted last."""

    task: TaskId
    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """No lower epoch than `epoch` any more. What was accepted last, and for how long its holder may still act."""

    task: TaskId
    epoch: Epoch
    ballot: Epoch
    """Of what was accepted; among several promises the highest (ballot, accepted, version) counts."""
    accepted: Epoch
    version: int
    holder: NodeId | None
    point_of_no_return: bool
    cancelled: bool
    grant_ms: int
    """Remaining grant: nobody else may be committed before it is over."""
    mark: int
    """The custodian's journal high-water mark, for others to remember (rule 11)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accept:
    """Write this down: `epoch` is the award's, `version` counts within it, `ballot` is what the sender was promised.

    `record` is there until the custodian is known to have it; `first` says that nothing was awarded yet."""

    task: TaskId
    epoch: Epoch
    ballot: Epoch
    version: int
    record: TaskRecord | None
    first: bool
    holder: NodeId | None
    point_of_no_return: bool
    cancelled: bool
    lease_ms: int
    adopts: bool = False
    """The holder goes on from an earlier epoch: its lease is the one it has, so this grants none."""
    within_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """Persisted here."""

    task: TaskId
    epoch: Epoch
    version: int
    mark: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Nack:
    """No: STALE_EPOCH with what is promised here, UNKNOWN_TASK, QUARANTINED, or BUSY."""

    task: TaskId
    epoch: Epoch
    reason: Reason
    promised: Epoch | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The task has ended so. Resent until `OutcomeKnown`, which whoever persisted it says."""

    task: TaskId
    epoch: Epoch
    state: TaskState
    holder: NodeId | None = None
    result: bytes | None = None
    reason: Reason | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeKnown:
    """The outcome is persisted here."""

    task: TaskId
    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquire:
    """I was away: what do you know of this task, and what of my journal?"""

    task: TaskId
    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The answer where no outcome is known: `epoch` is the highest one promised here, `remembered` the highest mark
    of the asker's journal that was seen here."""

    task: TaskId
    epoch: Epoch
    known: bool
    remembered: int


Act = (
    Cfp
    | Propose
    | Refuse
    | AcceptProposal
    | RejectProposal
    | Reserve
    | Commit
    | Renew
    | Renewed
    | Checkpoint
    | Inform
    | Failure
    | Forfeit
    | Cancel
    | Cancelled
    | Adopt
    | PassPointOfNoReturn
    | PointOfNoReturnRecorded
    | QueryStatus
    | Acknowledge
    | NotUnderstood
    | Prepare
    | Promise
    | Accept
    | Accepted
    | Nack
    | Outcome
    | OutcomeKnown
    | Inquire
    | Standing
)

PERFORMATIVE_OF: Final[dict[type, Performative]] = {
    Cfp: Performative.CFP,
    Propose: Performative.PROPOSE,
    Refuse: Performative.REFUSE,
    AcceptProposal: Performative.ACCEPT_PROPOSAL,
    RejectProposal: Performative.REJECT_PROPOSAL,
    Reserve: Performative.RESERVE,
    Commit: Performative.COMMIT,
    Renew: Performative.RENEW,
    Renewed: Performative.RENEWED,
    Checkpoint: Performative.CHECKPOINT,
    Inform: Performative.INFORM,
    Failure: Performative.FAILURE,
    Forfeit: Performative.FORFEIT,
    Cancel: Performative.CANCEL,
    Cancelled: Performative.CANCELLED,
    Adopt: Performative.ADOPT,
    PassPointOfNoReturn: Performative.PASS_POINT_OF_NO_RETURN,
    PointOfNoReturnRecorded: Performative.POINT_OF_NO_RETURN_RECORDED,
    QueryStatus: Performative.QUERY_STATUS,
    Acknowledge: Performative.ACKNOWLEDGE,
    NotUnderstood: Performative.NOT_UNDERSTOOD,
    Prepare: Performative.PREPARE,
    Promise: Performative.PROMISE,
    Accept: Performative.ACCEPT,
    Accepted: Performative.ACCEPTED,
    Nack: Performative.NACK,
    Outcome: Performative.OUTCOME,
    OutcomeKnown: Performative.OUTCOME_KNOWN,
    Inquire: Performative.INQUIRE,
    Standing: Performative.STANDING,
}

FROM_INITIATOR: Final = frozenset(
    {
        Performative.CFP,
        Performative.ACCEPT_PROPOSAL,
        Performative.REJECT_PROPOSAL,
        Performative.COMMIT,
        Performative.RENEWED,
        Performative.CANCEL,
        Performative.ADOPT,
        Performative.POINT_OF_NO_RETURN_RECORDED,
        Performative.QUERY_STATUS,
        Performative.ACKNOWLEDGE,
    }
)
"""Acts that go to the participant machine; all others go to the initiator machine, NOT_UNDERSTOOD to both."""


AMONG_CUSTODIANS: Final = frozenset(
    {
        Performative.PREPARE,
        Performative.PROMISE,
        Performative.ACCEPT,
        Performative.ACCEPTED,
        Performative.NACK,
        Performative.OUTCOME,
        Performative.OUTCOME_KNOWN,
        Performative.INQUIRE,
        Performative.STANDING,
    }
)
"""Acts between those whom the record names: its asker and its custodians. Nobody else is heard on them."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a bidder answers to itself being asked: the price in its own plan."""

    added_ms: int
    load_ms: int
    plan_version: int
    because: str = ""


@dataclass(frozen=True, slots=True)
class Decline:
    """What a bidder answers when it will not: a reason and a sentence."""

    reason: Reason
    detail: str = ""


BidAnswer = Offer | Decline


@dataclass(frozen=True, slots=True)
class WorkOutcome:
    """How the work on a contract ended at its participant, as told by the executor."""

    result: bytes | None = None
    """Set: success. None: see `reason`."""
    reason: Reason | None = None
    detail: str = ""
    given_back: bool = False
    """True: forfeit (with the last checkpoint), False with a reason: failure."""
    follow_ups: tuple[TaskRecord, ...] = field(default=())
    """Submitted by this node in the same transaction as the result (`ctx.then`)."""
    follow_ups_within_s: tuple[float | None, ...] = field(default=())
    """Time allowed to each of them, in the same order; where it is shorter, there is no limit."""
