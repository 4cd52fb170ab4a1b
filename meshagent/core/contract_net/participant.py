"""The participant: bids, reserves, works under a lease, stops before it ends, and reports until it is heard.

Absent on purpose: pricing (the `Bidder`), running handlers (the executor), transport, persistence and clocks. The
rules named in comments are those of PROTOCOL-DESIGN.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Final

from meshagent.core.acts import (
    PERFORMATIVE_OF,
    AcceptProposal,
    Acknowledge,
    Act,
    Adopt,
    Cancel,
    Cancelled,
    Cfp,
    Checkpoint,
    Commit,
    Decline,
    NotUnderstood,
    PassPointOfNoReturn,
    Performative,
    PointOfNoReturnRecorded,
    Propose,
    QueryStatus,
    Refuse,
    RejectProposal,
    Renew,
    Renewed,
    Reserve,
    TaskRecord,
)
from meshagent.core.contract_net.authority import PARTICIPANT, NoteBudget, Ruling
from meshagent.core.contract_net.clearing import within_tolerance
from meshagent.core.contract_net.contract import SENT_KEPT, Contract
from meshagent.core.contract_net.interface import (
    ActReceived,
    Bidder,
    CheckpointTaken,
    ContractConfig,
    Effect,
    GrantPointOfNoReturn,
    LeaseMoved,
    LeaveRequested,
    Noted,
    ParticipantInput,
    PeerFound,
    PeerLost,
    Persist,
    PointOfNoReturnReached,
    ProgressMade,
    Send,
    StartWork,
    StopWork,
    Submit,
    TimePassed,
    WorkEnded,
)
from meshagent.core.contract_net.records import CONTRACTED, ContractRecord, Report, Stage
from meshagent.core.contract_net.timers import Timers
from meshagent.core.contract_net.undertaking import Renewals
from meshagent.core.ports import Authority
from meshagent.types import Epoch, NodeId, Reason, TaskId, task_id_of

REFUSALS_KEPT: Final = 1024
"""Refused awards that are answered alike when the award comes again; older ones were settled long ago."""
RENEWALS_A_LEASE: Final = 3.2
"""A lease shorter than ours is renewed so often, whatever `renew_s` says: two may be lost."""

Fact = tuple[str, str | int | float | bool | None]


class Participant:
    """One node's side of all tasks that others (and this node itself) award to it.

    Args:
        me: this node.
        boot: this boot, 16 bytes, echoed by grants.
        config: timing and bounds.
        bidder: prices tasks and holds their resources.
        authority: who may announce what, and what this node may perform.
    """

    def __init__(self, me: NodeId, boot: bytes, config: ContractConfig, bidder: Bidder, authority: Authority) -> None:
        self._me = me
        self._boot = boot
        self._config = config
        self._bidder = bidder
        self._authority = authority
        self._contracts: dict[TaskId, Contract] = {}
        self._closed: OrderedDict[TaskId, None] = OrderedDict()
        """Tombstones, oldest first."""
        self._by_key: dict[tuple[str, str], TaskId] = {}
        self._refused: OrderedDict[tuple[TaskId, Epoch], Refuse] = OrderedDict()
        self._sequence = 0
        self._draining = False
        self._timers = Timers()
        self._budget = NoteBudget()
        self._now_s = 0.0
        self._dirty: dict[TaskId, Contract | None] = {}
        self._out: list[Effect] = []
        self._hearers: dict[Performative, Callable[[Contract, Any], None]] = {
            Performative.REJECT_PROPOSAL: self._hear_rejection,
            Performative.COMMIT: self._hear_commit,
            Performative.RENEWED: self._hear_renewed,
            Performative.CANCEL: self._hear_cancel,
            Performative.ADOPT: self._hear_adopt,
            Performative.POINT_OF_NO_RETURN_RECORDED: self._hear_recorded,
            Performative.QUERY_STATUS: self._hear_query,
            Performative.ACKNOWLEDGE: self._hear_acknowledge,
            Performative.NOT_UNDERSTOOD: self._hear_not_understood,
        }

    # ---- the machine

    def handle(self, event: ParticipantInput, *, now_s: float) -> list[Effect]:
        """What follows from `event`. What was due before it is done first, so no grant revives a lease that is over."""
        self._now_s = now_s
        self._pass_time()
        match event:
            case ActReceived():
                self._receive(event.peer, event.act)
            case WorkEnded():
                self._work_ended(event)
            case ProgressMade():
                c = self._running(event.task, event.epoch)
                if c is not None:
                    c.progress_permille = max(0, min(1000, event.progress_permille))
                    c.note = event.note
            case CheckpointTaken():
                self._checkpoint_taken(event)
            case PointOfNoReturnReached():
                self._point_of_no_return_reached(event)
            case PeerFound():
                self._peer_found(event.peer)
            case LeaveRequested():
                self._leave()
            case PeerLost() | TimePassed():
                pass  # the lease says how long to go on without the initiator
        return self._effects()

    def next_deadline_s(self) -> float | None:
        """When `TimePassed` is due; None: nothing to wait for."""
        return self._timers.next_s()

    def restore(self, records: Iterable[ContractRecord], now_s: float) -> list[Effect]:
        """Take up what the journal holds. Call once, before anything else.

        Nothing runs after a restart: contracts are given back, or in doubt past their point of no return (rule 5).
        """
        self._now_s = now_s
        for saved in records:
            c = Contract.restored(saved)
            self._contracts[c.task] = c
            if c.active:
                if c.pnr:
                    self._enter_doubt(c, Reason.RESTARTED)
                else:
                    self._report(c, Report(act=Performative.FORFEIT, epoch=c.epoch, reason=Reason.RESTARTED))
                self._note(c, "restarted", (("in_doubt", c.pnr),))
            elif c.stage is Stage.REPORTING:
                self._report(c, c.report)
            elif c.stage is Stage.CLOSED:
                self._bury(c)
            if c.active or c.has_result or c.stage is Stage.IN_DOUBT:
                self._index(c)
            self._arm(c)
        return self._effects()

    # ---- questions

    def find(self, task: TaskId) -> Contract | None:
        """For looking at (`tasks`, `status`), never for changing."""
        return self._contracts.get(task)

    def contracts(self) -> Iterable[Contract]:
        """All contracts and tombstones."""
        return self._contracts.values()

    @property
    def unsettled_count(self) -> int:
        """Contracts that hold resources, may run, or whose report nobody has acknowledged yet."""
        return sum(c.active or c.stage is Stage.REPORTING for c in self._contracts.values())

    # ---- time

    def _pass_time(self) -> None:
        while (key := self._timers.pop_due(self._now_s)) is not None:
            c = self._contracts.get(TaskId(key))
            if c is not None:
                self._fire(c)
                if c.task in self._contracts:
                    self._arm(c)

    def _fire(self, c: Contract) -> None:
        now_s = self._now_s
        match c.stage:
            case Stage.RESERVED:
                if now_s >= c.lease_until_s:
                    self._note(c, "lease_ended", (("why", "no commit within the lease"),))
                    self._release(c)
                    self._report(c, Report(act=Performative.FORFEIT, epoch=c.epoch, reason=Reason.LEASE_LOST))
            case Stage.EXECUTING:
                if not c.lease_ended and now_s >= c.lease_until_s:
                    self._lease_over(c)
                if c.stage is Stage.EXECUTING:
                    if now_s >= c.renew_at_s:
                        self._renew(c)
                    if (c.pnr_wanted or c.checkpoint_due) and now_s >= c.resend_at_s:
                        self._say_again(c)
            case Stage.REPORTING:
                if now_s >= c.keep_until_s:
                    self._forget(c)
                elif now_s >= c.resend_at_s:
                    self._send_report(c)
            case Stage.CLOSED:
                if now_s >= c.keep_until_s:
                    self._forget(c)
            case _:
                pass

    def _arm(self, c: Contract) -> None:
        self._timers.arm(c.task, c.deadline_s())

    def _again_at(self, c: Contract) -> None:
        c.resend_delay_s = min(self._config.resend_max_s, c.resend_delay_s * 2 or self._config.resend_s)
        c.resend_at_s = self._now_s + c.resend_delay_s

    # ---- acts

    def _receive(self, peer: NodeId, act: Act) -> None:
        performative = PERFORMATIVE_OF[type(act)]
        c = self._contracts.get(act.task)
        if c is not None and c.initiator != peer:
            if not (isinstance(act, AcceptProposal | Cfp) and self._is_squat(peer, c, act)):
                self._illegal(peer, act, "the task belongs to somebody else")
                return
            # A tombstone that somebody else has put on this id stands in nobody's way.
            self._forget(c)
            c = None
        if act.epoch.owner != peer and performative is not Performative.NOT_UNDERSTOOD:
            self._illegal(peer, act, "the epoch belongs to somebody else")
            return
        ruling = PARTICIPANT.get((performative, None if c is None else c.stage), Ruling.ILLEGAL)
        if ruling is Ruling.ILLEGAL:
            self._illegal(peer, act, "not in this state")
        elif ruling is Ruling.HEAR:
            if isinstance(act, Cfp):
                self._hear_cfp(peer, c, act)
            elif isinstance(act, AcceptProposal):
                self._hear_award(peer, c, act)
            elif c is not None:
                self._hearers[performative](c, act)
            elif isinstance(act, Cancel):
                self._cancel_unknown(peer, act)
            else:
                self._send(peer, Refuse(task=act.task, epoch=act.epoch, reason=Reason.UNKNOWN_TASK))
            known = self._contracts.get(act.task)
            if known is not None:
                self._arm(known)

    def _is_squat(self, peer: NodeId, c: Contract, act: AcceptProposal | Cfp) -> bool:
        """Whether the tombstone `c` was put by somebody whom the task's id does not name."""
        return c.record is None and self._is_bound(peer, act)

    def _is_bound(self, peer: NodeId, act: AcceptProposal | Cfp) -> bool:
        record = act.record
        if record.initiator != peer or record.task != act.task:
            return False
        try:
            return record.task == task_id_of(record.initiator, record.boot, record.nonce)
        except ValueError:
            return False

    # ---- the call

    def _hear_cfp(self, peer: NodeId, c: Contract | None, act: Cfp) -> None:
        if (c is None or c.record is None) and not self._is_bound(peer, act):
            self._illegal(peer, act, "the task's id does not belong to this initiator")
            return
        if c is not None and c.record is not None and c.record != act.record:
            self._illegal(peer, act, "the task's record has changed")
            return
        if c is not None and self._answered_from_store(c, act):
            return
        refusal = self._may_not(peer, c, act)
        if refusal is None:
            twin = self._twin(act.record)
            if twin is not None and not twin.has_result:
                refusal = self._duplicate(act, twin)
            elif twin is not None:
                self._send(peer, self._stored_offer(act))
                return
        if refusal is not None:
            self._send(peer, refusal)
            return
        within_s = None if act.within_ms is None else act.within_ms / 1000
        answer = self._bidder.bid(act.record, within_s, purpose="call")
        if isinstance(answer, Decline):
            self._send(peer, Refuse(task=act.task, epoch=act.epoch, reason=answer.reason, detail=answer.detail))
            return
        self._send(
            peer,
            Propose(
                task=act.task,
                epoch=act.epoch,
                added_ms=answer.added_ms,
                load_ms=answer.load_ms,
                plan_version=answer.plan_version,
                because=answer.because,
            ),
        )

    def _answered_from_store(self, c: Contract, act: Cfp) -> bool:
        """A call for a task that we know already."""
        if act.epoch < c.fence:
            refusal = Refuse(task=c.task, epoch=act.epoch, reason=Reason.STALE_EPOCH, seen=c.fence)
            self._send(c.initiator, refusal)
            return True
        if c.has_result:
            self._send_report(c)
            return True
        if c.stage is Stage.EXECUTING:
            # We are at it. at_least_once: the renewal lets the initiator adopt us instead of calling further.
            self._renew(c)
            return c.repeatable or self._refuse_call(c, act, Reason.BUSY, "this very task is being done here")
        if c.stage is Stage.STOPPING:
            return self._refuse_call(c, act, Reason.BUSY, "an earlier run of this task is still stopping")
        if c.stage is Stage.CLOSED and act.epoch == c.fence and c.cancelled_under is not None:
            return self._refuse_call(c, act, Reason.CLOSED, "cancelled")
        return False

    def _refuse_call(self, c: Contract, act: Cfp, reason: Reason, detail: str) -> bool:
        self._send(c.initiator, Refuse(task=act.task, epoch=act.epoch, reason=reason, detail=detail))
        return True

    def _may_not(self, peer: NodeId, c: Contract | None, act: Cfp | AcceptProposal) -> Refuse | None:
        kind = act.record.kind
        reason: Reason | None = None
        detail = ""
        if self._draining:
            reason, detail = Reason.DRAINING, "this node is leaving"
        elif not self._authority(peer, "announce", kind):
            reason, detail = Reason.PERMISSION, "its credential does not let the initiator announce this kind"
        elif not self._authority(self._me, "perform", kind):
            reason, detail = Reason.PERMISSION, "this device may not perform this kind"
        elif c is None and not self._has_room():
            reason, detail = Reason.BUSY, f"{len(self._contracts)} contracts are kept, which is the most"
        if reason is None:
            return None
        return Refuse(task=act.task, epoch=act.epoch, reason=reason, detail=detail)

    def _twin(self, record: TaskRecord) -> Contract | None:
        """Another task that is the same piece of work."""
        if not record.key:
            return None
        task = self._by_key.get((record.kind, record.key))
        return None if task is None or task == record.task else self._contracts.get(task)

    def _duplicate(self, act: Cfp | AcceptProposal, twin: Contract) -> Refuse:
        return Refuse(
            task=act.task,
            epoch=act.epoch,
            reason=Reason.DUPLICATE,
            detail="the same work is under way here for another asker",
            duplicate_of=twin.task,
        )

    def _stored_offer(self, act: Cfp) -> Propose:
        return Propose(
            task=act.task,
            epoch=act.epoch,
            added_ms=0,
            load_ms=0,
            plan_version=0,
            because="done already",
            holds_result=True,
        )

    # ---- the award

    def _hear_award(self, peer: NodeId, c: Contract | None, act: AcceptProposal) -> None:
        if (c is None or c.record is None) and not self._is_bound(peer, act):
            self._illegal(peer, act, "the task's id does not belong to this initiator")
            return
        if c is not None and c.record is not None and c.record != act.record:
            self._illegal(peer, act, "the task's record has changed")
            return
        refused = self._refused.get((act.task, act.epoch))
        if refused is not None:
            self._send(peer, refused)
            return
        if act.lease_ms <= 0:
            self._illegal(peer, act, "a lease without length")
            return
        if c is not None and self._award_settled(c, act):
            return
        refusal = self._may_not(peer, c, act)
        if refusal is None:
            twin = self._twin(act.record)
            if twin is not None and not twin.has_result:
                refusal = self._duplicate(act, twin)
            elif twin is not None:
                assert twin.report is not None
                self._hand_over(peer, c, act, twin.report.result or b"")
                return
        if refusal is None:
            refusal = self._priced_again(act)
        if refusal is not None:
            self._refuse_award(peer, act, refusal)
            return
        self._reserve(peer, c, act)

    def _award_settled(self, c: Contract, act: AcceptProposal) -> bool:
        """An award of a task that we know already; False: it is a new one, to be decided on."""
        if act.epoch < c.fence:
            self._note(c, "fenced", (("fenced_epoch", act.epoch.counter), ("act", "accept_proposal")))
            self._send(c.initiator, Refuse(task=c.task, epoch=act.epoch, reason=Reason.STALE_EPOCH, seen=c.fence))
            return True
        if act.epoch == c.epoch and c.cancelled_under is None:
            if c.award is not None and c.award != act and not self._same_terms(c.award, act):
                self._illegal(c.initiator, act, "equal epoch, different content")
            elif c.stage is Stage.RESERVED:
                self._send(c.initiator, Reserve(task=c.task, epoch=c.epoch))
            elif c.stage is Stage.EXECUTING:
                self._renew(c)
            else:
                self._answer_stored(c)
            return True
        if act.epoch == c.fence:
            # Cancelled under that epoch before the award came: the tombstone absorbs it (rule 7).
            self._answer_stored(c)
            return True
        if c.has_result:
            self._answer_stored(c)
            return True
        return self._superseded(c, act)

    def _superseded(self, c: Contract, act: AcceptProposal) -> bool:
        """A higher epoch for a task that is in hand here. True: answered."""
        if c.stage is Stage.EXECUTING and c.repeatable:
            self._renew(c)  # healthy: to be adopted, not started twice
            return True
        if c.stage is Stage.EXECUTING:
            c.fence = act.epoch
            self._dirty[c.task] = c
            self._stop(c, Reason.STALE_EPOCH)
        if c.stage is Stage.STOPPING:
            self._refuse_award(
                c.initiator,
                act,
                Refuse(
                    task=c.task,
                    epoch=act.epoch,
                    reason=Reason.BUSY,
                    detail="an earlier run of this task is still stopping",
                ),
            )
            return True
        if c.stage is Stage.RESERVED:
            self._release(c)
        return False

    def _same_terms(self, one: AcceptProposal, other: AcceptProposal) -> bool:
        """Resent awards may differ in the time left, and in nothing else."""
        return (one.record, one.call_epoch, one.added_ms, one.load_ms, one.lease_ms, one.checkpoint_version) == (
            other.record,
            other.call_epoch,
            other.added_ms,
            other.load_ms,
            other.lease_ms,
            other.checkpoint_version,
        )

    def _priced_again(self, act: AcceptProposal) -> Refuse | None:
        within_s = None if act.within_ms is None else act.within_ms / 1000
        answer = self._bidder.bid(act.record, within_s, purpose="award")
        if isinstance(answer, Decline):
            return Refuse(task=act.task, epoch=act.epoch, reason=answer.reason, detail=answer.detail)
        bid, now = (act.added_ms, act.load_ms), (answer.added_ms, answer.load_ms)
        if not within_tolerance(bid, now, self._config.award_tolerance):
            return Refuse(
                task=act.task,
                epoch=act.epoch,
                reason=Reason.STALE_BID,
                detail=answer.because,
                added_ms=answer.added_ms,
                load_ms=answer.load_ms,
            )
        self._out.append(
            Noted(
                task=act.task,
                epoch=act.epoch,
                event="reserve",
                peer=self._me,
                facts=(
                    ("added_ms", answer.added_ms),
                    ("load_ms", answer.load_ms),
                    ("changed", bid != now),
                    ("plan_version", answer.plan_version),
                    ("bid_plan_version", act.plan_version),
                ),
            )
        )
        return None

    def _refuse_award(self, peer: NodeId, act: AcceptProposal, refusal: Refuse) -> None:
        """Refused once, refused for good: the same award gets the same answer (rule 12)."""
        self._refused[act.task, act.epoch] = refusal
        if len(self._refused) > REFUSALS_KEPT:
            self._refused.popitem(last=False)
        facts: tuple[Fact, ...] = (("reason", refusal.reason.value), ("detail", refusal.detail), ("to", "award"))
        self._out.append(Noted(task=act.task, epoch=act.epoch, event="refuse", peer=self._me, facts=facts))
        self._send(peer, refusal)

    def _new_run(self, peer: NodeId, c: Contract | None, act: AcceptProposal, stage: Stage) -> Contract:
        if c is not None:
            self._timers.arm(c.task, None)
            self._closed.pop(c.task, None)
        fresh = Contract(act.task, peer, act.epoch, stage)
        fresh.record = act.record
        fresh.award = act
        fresh.checkpoint = act.checkpoint
        fresh.checkpoint_version = act.checkpoint_version
        self._contracts[act.task] = fresh
        self._index(fresh)
        return fresh

    def _reserve(self, peer: NodeId, c: Contract | None, act: AcceptProposal) -> None:
        fresh = self._new_run(peer, c, act, Stage.RESERVED)
        fresh.lease_s = act.lease_ms / 1000
        fresh.reserved_at_s = self._now_s
        fresh.lease_until_s = self._now_s + fresh.lease_s  # counted from the first sending of Reserve (rule 5)
        self._bidder.reserve(act.record, act.epoch)
        self._enter(fresh, Stage.RESERVED)
        self._send(peer, Reserve(task=act.task, epoch=act.epoch))

    def _hand_over(self, peer: NodeId, c: Contract | None, act: AcceptProposal, result: bytes) -> None:
        """The same work was done for somebody else: its result is the answer, nothing is done again."""
        fresh = self._new_run(peer, c, act, Stage.REPORTING)
        self._report(fresh, Report(act=Performative.INFORM, epoch=act.epoch, result=result))

    def _hear_rejection(self, c: Contract, act: RejectProposal) -> None:
        """An offer of ours was not taken; offers hold nothing, so nothing is freed."""

    # ---- executing under the lease

    def _hear_commit(self, c: Contract, act: Commit) -> None:
        if act.epoch < c.epoch:
            self._note(c, "fenced", (("fenced_epoch", act.epoch.counter), ("act", "commit")))
            self._send(c.initiator, Cancelled(task=c.task, epoch=act.epoch))
        elif act.epoch > c.epoch:
            if act.epoch <= c.fence:
                self._answer_stored(c)
            else:
                self._illegal(c.initiator, act, "that epoch was not awarded here")
        elif c.stage is Stage.RESERVED:
            self._start(c)
        elif c.stage is Stage.EXECUTING:
            self._renew(c)
        else:
            self._answer_stored(c)

    def _start(self, c: Contract) -> None:
        # Not persisted: after a crash a reservation and a running task end alike.
        assert c.award is not None
        assert c.record is not None
        self._enter(c, Stage.EXECUTING, persist=False)
        c.renewals = Renewals(last_s=self._now_s)
        # The first renewal tells that it runs. Short work is done before, and saves it.
        c.renew_at_s = self._now_s + min(self._renew_s(c), self._config.resend_s / 2)
        self._note(c, "commit", (("lease_s", c.lease_s),))
        within_ms = c.award.within_ms
        self._out.append(
            StartWork(
                record=c.record,
                epoch=c.epoch,
                lease_until_s=c.lease_until_s,
                within_s=None if within_ms is None else max(0.0, c.reserved_at_s + within_ms / 1000 - self._now_s),
                checkpoint=c.checkpoint,
                attempt=c.epoch.counter,
            )
        )

    def _renew_s(self, c: Contract) -> float:
        return min(self._config.renew_s, c.lease_s / RENEWALS_A_LEASE)

    def _renew(self, c: Contract) -> None:
        self._sequence += 1
        c.sent[self._sequence] = self._now_s
        if len(c.sent) > SENT_KEPT:
            del c.sent[next(iter(c.sent))]
        c.renew_at_s = self._now_s + self._renew_s(c)
        self._send(
            c.initiator,
            Renew(
                task=c.task,
                epoch=c.epoch,
                boot=self._boot,
                sequence=self._sequence,
                progress_permille=c.progress_permille,
                note=c.note,
            ),
        )

    def _hear_renewed(self, c: Contract, act: Renewed) -> None:
        first_sent_s = c.sent.get(act.sequence) if act.boot == self._boot else None
        if act.epoch != c.epoch or first_sent_s is None:
            return
        until_s = first_sent_s + c.lease_s
        if until_s <= c.lease_until_s or until_s <= self._now_s:
            return
        c.renewals.heard(self._now_s)
        c.lease_until_s = until_s
        c.lease_ended = False  # only at_least_once gets here after the end: its loss is not final
        self._out.append(LeaseMoved(task=c.task, epoch=c.epoch, lease_until_s=until_s))

    def _lease_over(self, c: Contract) -> None:
        c.lease_ended = True
        facts: tuple[Fact, ...] = (*c.renewals.facts(), ("works_on", c.repeatable))
        self._note(c, "lease_ended", facts)
        if not c.repeatable:
            self._stop(c, Reason.LEASE_LOST)

    def _stop(self, c: Contract, reason: Reason) -> None:
        c.stop_reason = reason
        self._enter(c, Stage.STOPPING, persist=False)
        self._out.append(StopWork(task=c.task, epoch=c.epoch, reason=reason))

    def _running(self, task: TaskId, epoch: Epoch) -> Contract | None:
        c = self._contracts.get(task)
        return c if c is not None and c.stage is Stage.EXECUTING and c.in_run(epoch) else None

    def _hear_adopt(self, c: Contract, act: Adopt) -> None:
        if act.epoch == c.epoch and c.stage is Stage.EXECUTING:
            self._renew(c)
        elif act.epoch <= c.fence or c.stage is not Stage.EXECUTING:
            self._answer_stored(c)
        elif not c.in_run(act.former):
            self._illegal(c.initiator, act, "that epoch is not held here")
        else:
            c.epoch = c.fence = act.epoch
            c.sent = {}
            self._dirty[c.task] = c
            self._note(c, "adopted", (("former", act.former.counter),))
            self._out.append(LeaseMoved(task=c.task, epoch=c.epoch, lease_until_s=c.lease_until_s))
            self._renew(c)

    # ---- checkpoints and the point of no return

    def _checkpoint_taken(self, event: CheckpointTaken) -> None:
        c = self._contracts.get(event.task)
        if c is None or c.stage not in (Stage.EXECUTING, Stage.STOPPING) or not c.in_run(event.epoch):
            return
        c.checkpoint = event.state
        c.checkpoint_version += 1
        self._dirty[c.task] = c
        if c.stage is Stage.EXECUTING:
            c.checkpoint_due = True
            c.resend_delay_s = 0.0
            self._say_again(c)
            self._arm(c)

    def _point_of_no_return_reached(self, event: PointOfNoReturnReached) -> None:
        c = self._running(event.task, event.epoch)
        if c is None:
            return
        if c.pnr or c.repeatable:
            # What may be done twice has no such point.
            self._out.append(GrantPointOfNoReturn(task=c.task, epoch=c.epoch))
            return
        c.pnr_wanted = True
        c.resend_delay_s = 0.0
        self._say_again(c)
        self._arm(c)

    def _hear_recorded(self, c: Contract, act: PointOfNoReturnRecorded) -> None:
        if act.epoch != c.epoch or not c.pnr_wanted:
            return
        c.pnr_wanted = False
        c.pnr = True
        self._dirty[c.task] = c  # durable here too, before the effect: a restart must know that it is in doubt
        self._note(c, "point_of_no_return_recorded")
        self._out.append(GrantPointOfNoReturn(task=c.task, epoch=c.epoch))

    def _say_again(self, c: Contract) -> None:
        self._again_at(c)
        if c.pnr_wanted:
            self._send(c.initiator, PassPointOfNoReturn(task=c.task, epoch=c.epoch))
        if c.checkpoint_due and c.checkpoint is not None:
            version = c.checkpoint_version
            self._send(c.initiator, Checkpoint(task=c.task, epoch=c.epoch, version=version, state=c.checkpoint))

    # ---- the end of the work

    def _work_ended(self, event: WorkEnded) -> None:
        c = self._contracts.get(event.task)
        if c is None or c.stage not in (Stage.EXECUTING, Stage.STOPPING) or not c.in_run(event.epoch):
            return
        outcome = event.outcome
        stopping = c.stage is Stage.STOPPING
        self._release(c)
        if outcome.result is not None:
            # Done, even if it was told to stop meanwhile: DONE wins (rule 7).
            self._report(c, Report(act=Performative.INFORM, epoch=c.epoch, result=outcome.result))
            self._out.extend(Submit(record=record) for record in outcome.follow_ups)
        elif stopping and c.pnr:
            # Stopped between the point of no return and the result: nobody here knows what happened.
            self._enter_doubt(c, c.stop_reason or Reason.OTHER)
        elif stopping and c.cancelled_under is not None:
            self._close_cancelled(c, c.cancelled_under)
        elif stopping:
            reason = c.stop_reason or Reason.GIVEN_BACK
            self._report(c, Report(act=Performative.FORFEIT, epoch=c.epoch, reason=reason, detail=outcome.detail))
        elif outcome.given_back:
            reason = outcome.reason or Reason.GIVEN_BACK
            self._report(c, Report(act=Performative.FORFEIT, epoch=c.epoch, reason=reason, detail=outcome.detail))
        else:
            reason = outcome.reason or Reason.ERROR
            self._report(c, Report(act=Performative.FAILURE, epoch=c.epoch, reason=reason, detail=outcome.detail))
        self._arm(c)

    def _report(self, c: Contract, report: Report | None) -> None:
        """Persisted first; then said until somebody has it, or `keep_s` is over."""
        c.report = report
        c.acknowledged = False
        c.pnr_wanted = c.checkpoint_due = False
        c.keep_until_s = self._now_s + self._config.keep_s
        c.resend_delay_s = 0.0
        if c.stage is not Stage.REPORTING:
            self._enter(c, Stage.REPORTING)
        else:
            self._dirty[c.task] = c
        if report is not None and report.act is not Performative.INFORM:
            self._unindex(c)
        if report is not None:
            facts: tuple[Fact, ...] = (("reason", None if report.reason is None else report.reason.value),)
            self._note(c, report.act.value, (*facts, *c.renewals.facts()))
        self._send_report(c)

    def _send_report(self, c: Contract) -> None:
        act = c.report_act()
        if act is not None:
            self._again_at(c)
            self._send(c.initiator, act)

    def _enter_doubt(self, c: Contract, reason: Reason) -> None:
        self._enter(c, Stage.IN_DOUBT)
        self._note(c, "in_doubt", (("reason", reason.value),))
        self._send(c.initiator, Cancelled(task=c.task, epoch=c.cancelled_under or c.epoch, in_doubt=True))

    def _answer_stored(self, c: Contract) -> None:
        """The stored answer in a new envelope, never a fresh decision (rule 12)."""
        match c.stage:
            case Stage.REPORTING | Stage.CLOSED if c.report is not None and (c.has_result or c.cancelled_under is None):
                act = c.report_act()
                assert act is not None
                self._send(c.initiator, act)
            case Stage.CLOSED:
                self._send(c.initiator, Cancelled(task=c.task, epoch=c.fence))
            case Stage.IN_DOUBT:
                self._send(c.initiator, Cancelled(task=c.task, epoch=c.epoch, in_doubt=True))
            case Stage.EXECUTING:
                self._renew(c)
            case _:
                pass  # stopping or reserved: the answer follows by itself

    def _hear_acknowledge(self, c: Contract, act: Acknowledge) -> None:
        if act.act is Performative.CHECKPOINT:
            if act.version >= c.checkpoint_version:
                c.checkpoint_due = False
        elif (
            c.stage is Stage.REPORTING
            and c.report is not None
            and act.act is c.report.act
            and act.epoch == c.report.epoch
        ):
            c.acknowledged = True
            self._close(c)

    def _hear_query(self, c: Contract, act: QueryStatus) -> None:
        self._answer_stored(c)

    def _hear_not_understood(self, c: Contract, act: NotUnderstood) -> None:
        """The initiator has forgotten the task: nobody waits for it any more. All else is only noted."""
        if self._budget.spend(self._now_s):
            self._note(c, "not_understood", (("act", act.act.value), ("reason", act.reason.value)))
        if act.reason is not Reason.UNKNOWN_TASK or act.epoch != c.epoch:
            return
        if c.stage is Stage.REPORTING:
            self._close(c)
        elif c.stage is Stage.EXECUTING and act.act is Performative.RENEW:
            self._stop(c, Reason.UNKNOWN_TASK)

    # ---- cancel

    def _hear_cancel(self, c: Contract, act: Cancel) -> None:
        if act.epoch < c.epoch:
            self._send(c.initiator, Cancelled(task=c.task, epoch=act.epoch))
            return
        c.fence = max(c.fence, act.epoch)
        match c.stage:
            case Stage.RESERVED:
                self._release(c)
                self._close_cancelled(c, act.epoch)
            case Stage.EXECUTING:
                c.cancelled_under = act.epoch
                self._note(c, "cancel", (("reason", act.reason.value),))
                self._stop(c, act.reason)
            case Stage.STOPPING:
                c.cancelled_under = act.epoch
            case Stage.REPORTING if not c.has_result:
                self._close_cancelled(c, act.epoch)
            case Stage.IN_DOUBT:
                self._send(c.initiator, Cancelled(task=c.task, epoch=act.epoch, in_doubt=True))
            case Stage.CLOSED if not c.has_result:
                if c.cancelled_under != act.epoch:
                    c.cancelled_under = act.epoch
                    self._dirty[c.task] = c
                self._answer_stored(c)
            case _:
                self._answer_stored(c)  # done: DONE wins over a cancel

    def _close_cancelled(self, c: Contract, epoch: Epoch) -> None:
        c.cancelled_under = epoch
        c.fence = max(c.fence, epoch)
        c.report = None
        self._unindex(c)
        self._close(c)
        self._note(c, "cancelled")
        self._send(c.initiator, Cancelled(task=c.task, epoch=epoch))

    def _cancel_unknown(self, peer: NodeId, act: Cancel) -> None:
        """A cancel that overtook its award leaves a tombstone that absorbs the award (rule 7)."""
        if self._has_room():
            c = Contract(act.task, peer, act.epoch, Stage.CLOSED)
            c.cancelled_under = act.epoch
            self._contracts[act.task] = c
            self._close(c)
        self._send(peer, Cancelled(task=act.task, epoch=act.epoch))

    # ---- tombstones and bounds

    def _close(self, c: Contract) -> None:
        c.keep_until_s = self._now_s + self._config.keep_s
        c.award = None
        c.sent = {}
        if c.has_result:
            c.checkpoint = None
        else:
            self._unindex(c)
        self._enter(c, Stage.CLOSED)
        self._bury(c)

    def _bury(self, c: Contract) -> None:
        if not c.keep_until_s:
            c.keep_until_s = self._now_s + self._config.keep_s
        self._closed[c.task] = None
        self._closed.move_to_end(c.task)

    def _has_room(self) -> bool:
        """Make room by dropping the oldest tombstone: its initiator has its answer, and what could still be under way
        from there is stopped by the replay window of the gate."""
        if len(self._contracts) < self._config.max_contracts:
            return True
        if not self._closed:
            return False
        self._forget(self._contracts[next(iter(self._closed))])
        return True

    def _forget(self, c: Contract) -> None:
        self._unindex(c)
        self._closed.pop(c.task, None)
        del self._contracts[c.task]
        self._timers.arm(c.task, None)
        self._dirty[c.task] = None

    def _index(self, c: Contract) -> None:
        if c.record is not None and c.record.key:
            self._by_key[c.record.kind, c.record.key] = c.task

    def _unindex(self, c: Contract) -> None:
        if c.record is not None and c.record.key:
            key = (c.record.kind, c.record.key)
            if self._by_key.get(key) == c.task:
                del self._by_key[key]

    # ---- peers

    def _peer_found(self, peer: NodeId) -> None:
        for c in self._contracts.values():
            if c.initiator != peer:
                continue
            if c.stage is Stage.EXECUTING:
                self._renew(c)
                if c.pnr_wanted or c.checkpoint_due:
                    c.resend_delay_s = 0.0
                    self._say_again(c)
            elif c.stage is Stage.REPORTING:
                c.resend_delay_s = 0.0
                self._send_report(c)
            else:
                continue
            self._arm(c)

    def _leave(self) -> None:
        """Hand everything back. Bids are refused from now on."""
        self._draining = True
        for c in list(self._contracts.values()):
            if c.stage is Stage.RESERVED:
                self._release(c)
                self._report(c, Report(act=Performative.FORFEIT, epoch=c.epoch, reason=Reason.DRAINING))
            elif c.stage is Stage.EXECUTING:
                self._stop(c, Reason.DRAINING)
            else:
                continue
            self._arm(c)

    # ---- effects

    def _illegal(self, peer: NodeId, act: Act, why: str) -> None:
        performative = PERFORMATIVE_OF[type(act)]
        if performative is Performative.NOT_UNDERSTOOD:
            return  # never answered, so that two confused nodes fall silent
        if self._budget.spend(self._now_s):
            facts: tuple[Fact, ...] = (("act", performative.value), ("why", why))
            self._out.append(Noted(task=act.task, epoch=act.epoch, event="not_understood", peer=peer, facts=facts))
        self._send(
            peer,
            NotUnderstood(task=act.task, epoch=act.epoch, act=performative, reason=Reason.ILLEGAL_NOW, detail=why),
            urgent=False,
        )

    def _release(self, c: Contract) -> None:
        self._bidder.release(c.task, c.run_epoch)

    def _enter(self, c: Contract, stage: Stage, *, persist: bool = True) -> None:
        """The one place where a contract changes its stage."""
        c.stage = stage
        if persist:
            self._dirty[c.task] = c

    def _note(self, c: Contract, event: str, facts: tuple[Fact, ...] = ()) -> None:
        self._out.append(Noted(task=c.task, epoch=c.epoch, event=event, peer=self._me, facts=facts))

    def _send(self, to: NodeId, act: Act, *, urgent: bool = True) -> None:
        self._out.append(Send(to=(to,), act=act, urgent=urgent))

    def _effects(self) -> list[Effect]:
        """Snapshots first: one a contract, as it stands after the whole event."""
        out, self._out = self._out, []
        if self._dirty:
            persists: list[Effect] = [
                Persist(table=CONTRACTED, task=task, record=None if c is None else c.snapshot())
                for task, c in self._dirty.items()
            ]
            self._dirty = {}
            return persists + out
        return out
