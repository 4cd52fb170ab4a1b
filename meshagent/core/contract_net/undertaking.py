"""One task at its initiator: everything that is remembered of it, its next instant and its snapshot. No decisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from meshagent.core.acts import Promise, Refuse, TaskRecord
from meshagent.core.contract_net.interface import Evidence
from meshagent.core.contract_net.records import TERMINAL, Award, InitiatorRecord, Phase
from meshagent.types import Delivery, Epoch, NodeId, Reason, TaskId, TaskState

STATE_OF: Final[dict[Phase, TaskState]] = {
    Phase.SUBMITTING: TaskState.CALLING,
    Phase.PREPARING: TaskState.HELD,
    Phase.WAITING: TaskState.HELD,
    Phase.ACCEPTING: TaskState.CALLING,
    Phase.ENTRUSTED: TaskState.HELD,
    Phase.CALLING: TaskState.CALLING,
    Phase.BACKOFF: TaskState.BACKOFF,
    Phase.AWARDING: TaskState.CALLING,
    Phase.COMMITTED: TaskState.HELD,
    Phase.IN_DOUBT: TaskState.IN_DOUBT,
    Phase.CANCELLING: TaskState.HELD,
    Phase.DONE: TaskState.DONE,
    Phase.FAILED: TaskState.FAILED,
    Phase.CANCELLED: TaskState.CANCELLED,
}


@dataclass(slots=True)
class Tender:
    """A bid as it came, with the bytes that prove it."""

    added_ms: int
    load_ms: int
    plan_version: int
    holds_result: bool
    evidence: Evidence


@dataclass(slots=True)
class Renewals:
    """Renewals are told as a count and the longest gap, not one by one."""

    count: int = 0
    longest_gap_s: float = 0.0
    last_s: float = 0.0

    def heard(self, now_s: float) -> None:
        """One more."""
        self.count += 1
        self.longest_gap_s = max(self.longest_gap_s, now_s - self.last_s)
        self.last_s = now_s

    def facts(self) -> tuple[tuple[str, int | float], ...]:
        """For the note at the end of the epoch."""
        return (("renewals", self.count), ("longest_gap_s", round(self.longest_gap_s, 3)))


class Undertaking:
    """A task that this node has asked for."""

    __slots__ = (
        "adopting",
        "asked",
        "attempts_failed",
        "award_until_s",
        "awards",
        "backoffs",
        "ballot",
        "bids",
        "call_at_s",
        "call_epoch",
        "called_s",
        "cancel_kept",
        "checkpoint",
        "checkpoint_version",
        "detail",
        "ending",
        "epoch",
        "epoch_used",
        "expires_s",
        "forfeits",
        "former",
        "gave_back",
        "had_by",
        "heard",
        "holder",
        "keep_at_s",
        "keep_until_s",
        "kept_by",
        "lease_until_s",
        "noted_fenced",
        "owing",
        "phase",
        "pnr",
        "prepare_at_s",
        "promises",
        "ranking",
        "reason",
        "record",
        "refusals",
        "renewals",
        "reply_by_s",
        "repriced",
        "resend_at_s",
        "resend_delay_s",
        "restored_unheard",
        "result",
        "stopped",
        "stopped_under",
        "task",
        "unknown_to",
        "untold",
        "version",
        "waiting",
    )

    def __init__(self, record: TaskRecord, epoch: Epoch) -> None:
        self.task: TaskId = record.task
        self.record = record
        self.phase = Phase.CALLING
        self.epoch = epoch
        """The highest epoch given out; `epoch_used` says whether it was awarded to somebody."""
        self.epoch_used = False
        self.call_epoch = epoch
        self.expires_s: float | None = None
        # the present call
        self.called_s = 0.0
        self.reply_by_s = 0.0
        self.asked: dict[NodeId, None] = {}
        self.waiting: set[NodeId] = set()
        self.bids: dict[NodeId, Tender] = {}
        self.refusals: dict[NodeId, tuple[Refuse, Evidence]] = {}
        self.ranking: list[NodeId] = []
        """Runners-up, best last, so that `pop` takes the best."""
        self.repriced: set[NodeId] = set()
        self.call_at_s = 0.0
        self.backoffs = 0
        # the present award
        self.holder: NodeId | None = None
        self.former: Epoch | None = None
        """The holder was adopted from this epoch and has not answered under the new one yet."""
        self.heard = False
        self.restored_unheard = False
        """Taken up from the journal, and the holder has said nothing yet: ask it, for the commit may be long past."""
        self.award_until_s = 0.0
        self.lease_until_s = 0.0
        self.resend_at_s = 0.0
        self.resend_delay_s = 0.0
        self.renewals = Renewals()
        self.pnr = False
        # everyone ever awarded
        self.awards: dict[NodeId, Epoch] = {}
        self.owing: dict[NodeId, None] = {}
        self.gave_back: set[NodeId] = set()
        self.noted_fenced: set[NodeId] = set()
        self.forfeits = 0
        self.attempts_failed = 0
        self.checkpoint: bytes | None = None
        self.checkpoint_version = 0
        # the end
        self.ending: TaskState | None = None
        self.result: bytes | None = None
        self.reason: Reason | None = None
        self.detail = ""
        self.keep_until_s = 0.0
        # custody
        self.ballot: Epoch | None = epoch if record.custodians else None
        """What the custodians have promised to this node, or were asked to; the submission's epoch at first."""
        self.version = 0
        self.kept_by: set[NodeId] = set()
        """Custodians that have the present (epoch, version) on disk."""
        self.had_by: set[NodeId] = set()
        """Custodians that have the record."""
        self.keep_at_s = 0.0
        self.prepare_at_s = 0.0
        self.promises: dict[NodeId, tuple[Promise, float]] = {}
        """With the instant until which the promiser's grant holds, on our clock."""
        self.unknown_to: set[NodeId] = set()
        self.adopting = False
        self.cancel_kept = False
        """A majority has the withdrawal on disk: nobody grants any more, no other owner goes on."""
        self.stopped = False
        """Nobody acts any more; only the majority's word is awaited."""
        self.stopped_under: dict[NodeId, Epoch] = {}
        """Who has said itself that it does nothing any more under epochs up to that one."""
        self.untold: dict[NodeId, None] = {}
        """Custodians, and the asker, that do not know the outcome yet."""

    @property
    def repeatable(self) -> bool:
        """Doing it twice does no harm."""
        return self.record.delivery is Delivery.AT_LEAST_ONCE

    @property
    def terminal(self) -> bool:
        return self.phase in TERMINAL

    @property
    def state(self) -> TaskState:
        """The state as people know it."""
        if self.phase in (Phase.COMMITTED, Phase.CANCELLING) and self.heard:
            return TaskState.EXECUTING
        return STATE_OF[self.phase]

    def within_left_s(self, now_s: float) -> float | None:
        """Seconds left to the task, never below zero; None: no limit."""
        return None if self.expires_s is None else max(0.0, self.expires_s - now_s)

    def deadline_s(self) -> float | None:
        """When time alone will change something."""
        at_s: float | None
        match self.phase:
            case Phase.SUBMITTING:
                at_s = self.keep_at_s
            case Phase.PREPARING:
                at_s = self.prepare_at_s
                return at_s if self.expires_s is None or self.pnr or self.ending else min(at_s, self.expires_s)
            case Phase.WAITING:
                at_s = min(self.lease_until_s, self.keep_at_s)
            case Phase.ACCEPTING:
                at_s = min(self.award_until_s, self.keep_at_s)
            case Phase.ENTRUSTED:
                return self.resend_at_s
            case Phase.CALLING:
                at_s = self.reply_by_s
            case Phase.BACKOFF:
                at_s = self.call_at_s
            case Phase.AWARDING:
                at_s = min(self.award_until_s, self.resend_at_s)
            case Phase.COMMITTED:
                at_s = self.lease_until_s if self.heard else min(self.lease_until_s, self.resend_at_s)
            case Phase.CANCELLING:
                return self._or_keep(min(self.lease_until_s, self.resend_at_s))
            case Phase.IN_DOUBT:
                return self._or_keep(self.resend_at_s)
            case _:
                return min(self.keep_until_s, self.resend_at_s) if self.owing or self.untold else self.keep_until_s
        at_s = self._or_keep(at_s)
        # After the point of no return the time allowed ends nothing any more (rule 4).
        return at_s if self.expires_s is None or self.pnr else min(at_s, self.expires_s)

    def _or_keep(self, at_s: float) -> float:
        """Or earlier, where custodians are to be reminded."""
        return min(at_s, self.keep_at_s) if self.record.custodians else at_s

    def snapshot(self, now_s: float) -> InitiatorRecord:
        """What must survive a crash."""
        return InitiatorRecord(
            record=self.record,
            phase=self.phase,
            epoch=self.epoch,
            holder=self.holder,
            former=self.former,
            awards=tuple(
                [Award(peer=peer, epoch=epoch, owing=peer in self.owing) for peer, epoch in self.awards.items()]
            ),
            point_of_no_return=self.pnr,
            within_left_s=self.within_left_s(now_s),
            failures=self.attempts_failed,
            checkpoint=self.checkpoint,
            checkpoint_version=self.checkpoint_version,
            ending=self.ending,
            result=self.result,
            reason=self.reason,
            detail=self.detail,
            version=self.version,
            ballot=self.ballot,
        )

    @classmethod
    def restored(cls, saved: InitiatorRecord, now_s: float) -> Undertaking:
        """The task as the journal has it; instants are counted anew from `now_s`, leases are the machine's to set."""
        u = cls(saved.record, saved.epoch)
        u.phase = saved.phase
        u.epoch_used = True
        u.holder = saved.holder
        u.former = saved.former
        u.awards = {award.peer: award.epoch for award in saved.awards}
        u.owing = {award.peer: None for award in saved.awards if award.owing}
        u.pnr = saved.point_of_no_return
        u.expires_s = None if saved.within_left_s is None else now_s + saved.within_left_s
        u.attempts_failed = saved.failures
        u.checkpoint = saved.checkpoint
        u.checkpoint_version = saved.checkpoint_version
        u.ending = saved.ending
        u.result = saved.result
        u.reason = saved.reason
        u.detail = saved.detail
        u.version = saved.version
        u.ballot = saved.ballot
        return u
