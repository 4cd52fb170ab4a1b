"""The initiator: calls, clears, awards, grants leases, and answers for the task until it has ended.

One machine in four concerns, each building on the one before: `initiator_base`, `calling`, `ending`, `holding`; here
stand its inputs and its time. Absent on purpose: custody (another node going on without this one), transport,
persistence and clocks. The rules named in comments are those of PROTOCOL-DESIGN.

    submitted -> CALLING --no bid, duplicate--> BACKOFF --time, peer found--> CALLING
                 CALLING --closed--> AWARDING --refused, silent: runner-up, new epoch--> AWARDING
                                     AWARDING --none left--> BACKOFF
                                     AWARDING --reserve--> COMMITTED --inform--> DONE, --failure--> FAILED
      CALLING, BACKOFF, AWARDING --renewed by an old at_least_once holder--> COMMITTED (adopted)
                COMMITTED --forfeit, lease over; at_least_once also: lost--> CALLING under a new epoch
                COMMITTED --lease over past the point of no return, holder does not know--> IN_DOUBT
                 IN_DOUBT --inform--> DONE, --forfeit, a person: not done--> CALLING, --a person: done--> DONE
                COMMITTED --cancel, time over--> CANCELLING --answer, lease over--> CANCELLED or FAILED(EXPIRED)
               CANCELLING --inform--> DONE, --past the point of no return and silent--> IN_DOUBT
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from meshagent.core.acts import PERFORMATIVE_OF, Act, Performative, Propose, Refuse
from meshagent.core.contract_net.authority import INITIATOR, Ruling, Standing
from meshagent.core.contract_net.holding import Holding
from meshagent.core.contract_net.initiator_base import Fact
from meshagent.core.contract_net.interface import (
    ActReceived,
    CancelRequested,
    ContractConfig,
    Directory,
    DoubtResolved,
    Effect,
    Evidence,
    InitiatorInput,
    Noted,
    PeerFound,
    PeerLost,
    TaskChanged,
    TaskSubmitted,
    TimePassed,
)
from meshagent.core.contract_net.records import InitiatorRecord, Phase
from meshagent.core.contract_net.undertaking import Renewals, Undertaking
from meshagent.types import Epoch, NodeId, Reason, TaskId, TaskState, task_id_of


class Initiator(Holding):
    """One node's side of all tasks that it has asked for.

    Args:
        me: this node.
        boot: this boot, 16 bytes, part of every epoch given out.
        config: timing and bounds.
        rng: for the jitter of backoff alone.
        directory: who can be asked now.
    """

    def __init__(self, me: NodeId, boot: bytes, config: ContractConfig, rng: Random, directory: Directory) -> None:
        super().__init__(me, boot, config, rng, directory)
        self._hearers: dict[Performative, Callable[[Undertaking, NodeId, Any, Evidence], None]] = {
            Performative.PROPOSE: self._hear_propose,
            Performative.REFUSE: self._hear_refuse,
            Performative.RESERVE: self._hear_reserve,
            Performative.RENEW: self._hear_renew,
            Performative.CHECKPOINT: self._hear_checkpoint,
            Performative.INFORM: self._hear_inform,
            Performative.FAILURE: self._hear_failure,
            Performative.FORFEIT: self._hear_forfeit,
            Performative.CANCELLED: self._hear_cancelled,
            Performative.PASS_POINT_OF_NO_RETURN: self._hear_point_of_no_return,
        }

    # ---- the machine

    def handle(self, event: InitiatorInput, *, now_s: float) -> list[Effect]:
        """What follows from `event`. What was due before it is done first."""
        self._now_s = now_s
        self._pass_time()
        match event:
            case ActReceived():
                self._receive(event.peer, event.act, event.evidence)
            case TimePassed():
                pass
            case TaskSubmitted():
                self._submitted(event)
            case PeerLost():
                self._peer_lost(event.peer)
            case PeerFound():
                self._peer_found(event.peer)
            case CancelRequested():
                u = self._open.get(event.task)
                if u is not None:
                    self._withdraw(u, TaskState.CANCELLED, event.reason, event.detail)
            case DoubtResolved():
                self._doubt_resolved(event)
        return self._effects()

    def next_deadline_s(self) -> float | None:
        """When `TimePassed` is due; None: nothing to wait for."""
        return self._timers.next_s()

    def restore(self, records: Iterable[InitiatorRecord], now_s: float) -> list[Effect]:
        """Take up what the journal holds. Call once, before anything else.

        Whoever may have been committed keeps a full lease from now (rule 5: a lease never survives a restart), and
        a holder that still renews is granted as if nothing had happened.
        """
        self._now_s = now_s
        for saved in records:
            u = Undertaking.restored(saved, now_s)
            self._file(u)
            if u.terminal:
                self._ended[u.task] = u
                u.keep_until_s = now_s + self._config.keep_s
                self._enter(u, u.phase, persist=False)
            else:
                self._open[u.task] = u
                self._note(u, "restarted", facts=(("phase", u.phase.value),))
                self._resume(u)
            self._arm(u)
        return self._effects()

    def _resume(self, u: Undertaking) -> None:
        match u.phase:
            case Phase.CALLING | Phase.BACKOFF:
                self._call(u)
            case Phase.AWARDING | Phase.COMMITTED:
                # The commit may have left before the crash although only the award was persisted.
                u.lease_until_s = self._now_s + self._restart_wait_s()
                u.renewals = Renewals(last_s=self._now_s)
                u.restored_unheard = True
                self._enter(u, Phase.COMMITTED, persist=False)
                self._query(u)
            case Phase.CANCELLING:
                u.lease_until_s = self._now_s + self._restart_wait_s()
                self._enter(u, Phase.CANCELLING, persist=False)
                self._send_cancels(u)
            case _:
                self._enter(u, u.phase, persist=False)
                self._query(u)

    def _restart_wait_s(self) -> float:
        return self._config.lease_wait_s()

    # ---- questions

    def children_of(self, task: TaskId) -> tuple[TaskId, ...]:
        """Tasks submitted here on behalf of `task`, in the order of submission, ended ones that are still kept too."""
        return tuple(self._children.get(task, ()))

    def find(self, task: TaskId) -> Undertaking | None:
        """For looking at (`tasks`, `status`), never for changing."""
        return self._open.get(task) or self._ended.get(task)

    def undertakings(self) -> Iterable[Undertaking]:
        """All tasks of this node that are open or still kept, oldest first within each kind."""
        yield from self._open.values()
        yield from self._ended.values()

    @property
    def open_count(self) -> int:
        """Tasks that have not ended."""
        return len(self._open)

    # ---- time

    def _pass_time(self) -> None:
        while (key := self._timers.pop_due(self._now_s)) is not None:
            u = self._open.get(TaskId(key)) or self._ended.get(TaskId(key))
            if u is not None:
                self._fire(u)
                if u.task in self._open or u.task in self._ended:
                    self._arm(u)

    def _fire(self, u: Undertaking) -> None:
        now_s = self._now_s
        if not u.terminal and not u.pnr and u.ending is None and u.expires_s is not None and now_s >= u.expires_s:
            self._note(u, "expired")
            self._withdraw(u, TaskState.FAILED, Reason.EXPIRED, "the time allowed is over")
            return
        match u.phase:
            case Phase.CALLING:
                if now_s >= u.reply_by_s:
                    self._close(u)
            case Phase.BACKOFF:
                if now_s >= u.call_at_s:
                    self._call(u)
            case Phase.AWARDING:
                if now_s >= u.award_until_s:
                    self._award_unanswered(u, "no answer to the award")
                elif now_s >= u.resend_at_s:
                    self._send_award(u)
            case Phase.COMMITTED:
                if now_s >= u.lease_until_s:
                    self._lease_over(u)
                elif not u.heard and now_s >= u.resend_at_s:
                    self._remind(u)
            case Phase.CANCELLING:
                if now_s >= u.lease_until_s:
                    self._cancel_wait_over(u)
                elif now_s >= u.resend_at_s:
                    self._send_cancels(u)
            case Phase.IN_DOUBT:
                if now_s >= u.resend_at_s:
                    self._query(u)
            case _:
                if now_s >= u.keep_until_s:
                    self._forget(u)
                elif u.owing and now_s >= u.resend_at_s:
                    self._send_cancels(u)

    # ---- submission

    def _submitted(self, event: TaskSubmitted) -> None:
        record = event.record
        if record.task in self._open or record.task in self._ended:
            return
        why = self._not_submittable(event)
        if why is not None:
            reason, detail = why
            self._out.append(
                TaskChanged(task=record.task, state=TaskState.FAILED, reason=reason, detail=detail, holder=None)
            )
            return
        u = Undertaking(record, Epoch(0, self._me, self._boot))
        if event.within_s is not None:
            u.expires_s = self._now_s + event.within_s
        self._open[u.task] = u
        self._file(u)
        self._dirty[u.task] = u
        self._call(u)
        self._arm(u)

    def _not_submittable(self, event: TaskSubmitted) -> tuple[Reason, str] | None:
        record = event.record
        if record.initiator != self._me or not _is_bound(record.task, self._me, record.boot, record.nonce):
            return Reason.INVALID_TASK, "the task's id is not bound to this node"
        if event.within_s is not None and not event.within_s > 0:
            return Reason.INVALID_TASK, "within_s must be above zero"
        if len(self._open) >= self._config.max_tasks:
            return Reason.BUSY, f"{len(self._open)} tasks of this node are open, which is the most it keeps"
        return None

    def _file(self, u: Undertaking) -> None:
        if u.record.parent is not None:
            self._children.setdefault(u.record.parent, {})[u.task] = None

    # ---- acts

    def _receive(self, peer: NodeId, act: Act, evidence: Evidence) -> None:
        performative = PERFORMATIVE_OF[type(act)]
        u = self._open.get(act.task) or self._ended.get(act.task)
        if u is None:
            self._unknown(peer, act, performative)
            return
        ruling = INITIATOR.get((performative, u.phase, self._standing(u, peer)), Ruling.ILLEGAL)
        if ruling is Ruling.HEAR:
            self._hearers[performative](u, peer, act, evidence)
            if u.task in self._open or u.task in self._ended:
                self._arm(u)
        elif ruling is Ruling.LATE:
            self._late(u, peer, act)
        else:
            self._illegal(u, peer, act, "not from this peer in this state")

    def _standing(self, u: Undertaking, peer: NodeId) -> Standing:
        if peer in u.awards:
            return Standing.HOLDER if peer == u.holder else Standing.AWARDED
        return Standing.ASKED if peer in u.asked else Standing.STRANGER

    def _late(self, u: Undertaking, peer: NodeId, act: Act) -> None:
        """A bid or refusal after the close is noted once, for `why`; nothing else comes of it."""
        if isinstance(act, Propose | Refuse) and act.epoch == u.call_epoch and peer in u.waiting:
            u.waiting.discard(peer)
            word = PERFORMATIVE_OF[type(act)].value
            self._note(
                u, "late", peer, (("act", word), ("late_s", round(self._now_s - u.reply_by_s, 3))), verified=False
            )

    def _unknown(self, peer: NodeId, act: Act, performative: Performative) -> None:
        """A task that we never asked for, or have forgotten. Bids for it need no answer, promises do."""
        if performative in (Performative.NOT_UNDERSTOOD, Performative.PROPOSE, Performative.REFUSE):
            return
        if self._budget.spend(self._now_s):
            facts: tuple[Fact, ...] = (("act", performative.value), ("why", "unknown task"))
            self._out.append(Noted(task=act.task, epoch=act.epoch, event="not_understood", peer=peer, facts=facts))
        self._reply_not_understood(peer, act, performative, Reason.UNKNOWN_TASK, "")


def _is_bound(task: TaskId, initiator: NodeId, boot: bytes, nonce: bytes) -> bool:
    try:
        return task == task_id_of(initiator, boot, nonce)
    except ValueError:
        return False
