"""The initiator: calls, clears, awards, grants leases, and answers for the task until it has ended.

Absent on purpose: custody (another node going on without this one), transport, persistence and clocks. The rules
named in comments are those of PROTOCOL-DESIGN; the phases are drawn in DESIGN 6.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from random import Random
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
    Failure,
    Forfeit,
    Inform,
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
)
from meshagent.core.contract_net.authority import INITIATOR, NoteBudget, Ruling, Standing
from meshagent.core.contract_net.clearing import Bid, plausible, rank, score
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
    Persist,
    Send,
    TaskChanged,
    TaskSubmitted,
    TimePassed,
)
from meshagent.core.contract_net.records import INITIATED, InitiatorRecord, Phase
from meshagent.core.contract_net.timers import Timers
from meshagent.core.contract_net.undertaking import Renewals, Tender, Undertaking
from meshagent.types import Epoch, NodeId, Reason, TaskId, TaskState, task_id_of

MAX_FAILURES: Final = 3
"""at_least_once: so many crashes, timeouts or restarts while doing it are put down to bad luck; then it has FAILED."""
PATIENT_FORFEITS: Final = 2
"""So many times a task that was given back is called again at once; then with backoff, as if nobody had bid."""
MAX_EPOCH_JUMP: Final = 1 << 20
"""A peer that has seen a higher epoch of ours (our journal is older than its) moves our counter up by at most this:
a liar can waste counters but not exhaust them."""
REPEATED_AFTER: Final = frozenset({Reason.CRASHED, Reason.TIMEOUT, Reason.RESTARTED})

Fact = tuple[str, str | int | float | bool | None]


class Initiator:
    """One node's side of all tasks that it has asked for.

    Args:
        me: this node.
        boot: this boot, 16 bytes, part of every epoch given out.
        config: timing and bounds.
        rng: for the jitter of backoff alone.
        directory: who can be asked now.
    """

    def __init__(self, me: NodeId, boot: bytes, config: ContractConfig, rng: Random, directory: Directory) -> None:
        self._me = me
        self._boot = boot
        self._config = config
        self._rng = rng
        self._directory = directory
        self._open: dict[TaskId, Undertaking] = {}
        self._ended: OrderedDict[TaskId, Undertaking] = OrderedDict()
        self._children: dict[TaskId, dict[TaskId, None]] = {}
        self._timers = Timers()
        self._budget = NoteBudget()
        self._now_s = 0.0
        self._dirty: dict[TaskId, Undertaking | None] = {}
        self._out: list[Effect] = []
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

    def _arm(self, u: Undertaking) -> None:
        self._timers.arm(u.task, u.deadline_s())

    def _again_at(self, u: Undertaking) -> None:
        u.resend_delay_s = min(self._config.resend_max_s, u.resend_delay_s * 2 or self._config.resend_s)
        u.resend_at_s = self._now_s + u.resend_delay_s

    # ---- asking and clearing

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

    def _next_epoch(self, u: Undertaking) -> Epoch:
        """Unique: the counter never falls, and the boot tells two lives of this node apart (rule 1)."""
        return Epoch(u.epoch.counter + 1, self._me, self._boot)

    def _call(self, u: Undertaking) -> None:
        """Ask every candidate, under a new epoch that the first award of this call will use."""
        u.epoch = self._next_epoch(u)
        u.epoch_used = False
        u.call_epoch = u.epoch
        u.holder = None
        u.former = None
        u.heard = False
        u.restored_unheard = False
        if u.ending is None:
            u.reason, u.detail = None, ""
        u.called_s = self._now_s
        u.reply_by_s = self._now_s + self._config.reply_within_s
        candidates = tuple(self._directory.candidates(u.record.kind))
        u.asked = dict.fromkeys(candidates)
        u.waiting = set(candidates)
        u.bids = {}
        u.refusals = {}
        u.ranking = []
        u.repriced = set()
        self._note(
            u,
            "called",
            facts=(
                ("peers", len(candidates)),
                ("kind", u.record.kind),
                ("reply_by_s", self._config.reply_within_s),
                ("resumes", u.checkpoint is not None),
            ),
        )
        self._enter(u, Phase.CALLING, persist=False)
        if candidates:
            self._ask(u, candidates)
        else:
            self._close(u)

    def _ask(self, u: Undertaking, peers: tuple[NodeId, ...]) -> None:
        self._send(
            peers,
            Cfp(
                task=u.task,
                epoch=u.call_epoch,
                record=u.record,
                reply_within_ms=max(0, int((u.reply_by_s - self._now_s) * 1000)),
                within_ms=self._within_ms(u),
                resumes=u.checkpoint is not None,
            ),
        )

    def _within_ms(self, u: Undertaking) -> int | None:
        left_s = u.within_left_s(self._now_s)
        return None if left_s is None else int(left_s * 1000)

    def _hear_propose(self, u: Undertaking, peer: NodeId, act: Propose, evidence: Evidence) -> None:
        if act.epoch != u.call_epoch or peer not in u.waiting:
            return  # of an earlier call, or said twice
        if not plausible(act.added_ms, act.load_ms):
            self._illegal(u, peer, act, "a price that no plan can have")
            return
        u.waiting.discard(peer)
        u.bids[peer] = Tender(act.added_ms, act.load_ms, act.plan_version, act.holds_result, evidence)
        facts: tuple[Fact, ...] = (
            ("added_ms", act.added_ms),
            ("load_ms", act.load_ms),
            ("score", score(act.added_ms, act.load_ms, self._config.potential_p)),
        )
        if act.because:
            facts += (("because", act.because),)
        if act.holds_result:
            facts += (("holds_result", True),)
        self._note(u, "propose", peer, facts, verified=False)
        if not u.waiting:
            self._close(u)

    def _hear_refuse(self, u: Undertaking, peer: NodeId, act: Refuse, evidence: Evidence) -> None:
        if u.phase is Phase.AWARDING:
            if act.epoch == u.epoch:
                self._award_refused(u, peer, act, evidence)
            return
        if act.epoch != u.call_epoch or peer not in u.waiting:
            return
        u.waiting.discard(peer)
        u.refusals[peer] = (act, evidence)
        facts: tuple[Fact, ...] = (("reason", act.reason.value), ("detail", act.detail))
        if act.duplicate_of is not None:
            facts += (("duplicate_of", act.duplicate_of),)
        self._note(u, "refuse", peer, facts, verified=False)
        if not u.waiting:
            self._close(u)

    def _close(self, u: Undertaking) -> None:
        """The call is over: rank the bids and award the best, or find out why there is none."""
        silent = sorted(u.waiting)
        if u.asked:
            facts: tuple[Fact, ...] = (
                ("bids", len(u.bids)),
                ("refusals", len(u.refusals)),
                ("asked", len(u.asked)),
                ("early_s", round(max(0.0, u.reply_by_s - self._now_s), 3)),
                ("potential_p", self._config.potential_p),
            )
            if silent:
                facts += (("silent", " ".join(silent)),)
            self._note(u, "closed", facts=facts)
        duplicate = self._believed_duplicate(u)
        if duplicate is not None:
            # Somebody works on the same thing already: nobody is awarded, and later the result is there to fetch.
            self._back_off(u, Reason.DUPLICATE, f"the same work is under way as {duplicate}")
            return
        bids = [Bid(peer, t.added_ms, t.load_ms, t.holds_result) for peer, t in u.bids.items()]
        ranked = rank(u.task, bids, self._config.potential_p, u.gave_back)
        u.ranking = [bid.peer for bid in reversed(ranked)]
        self._award_next(u)

    def _believed_duplicate(self, u: Undertaking) -> TaskId | None:
        for peer in sorted(u.refusals):
            act, evidence = u.refusals[peer]
            if act.reason is Reason.DUPLICATE and act.duplicate_of is not None and act.duplicate_of != u.task:
                if evidence.verify():
                    return act.duplicate_of
                self._note(u, "forged", peer, (("act", "refuse"),), verified=False)
        return None

    def _back_off(self, u: Undertaking, reason: Reason, detail: str) -> None:
        u.backoffs += 1
        longest_s = min(self._config.backoff_max_s, self._config.backoff_s * 2.0 ** min(u.backoffs - 1, 30))
        delay_s = longest_s * self._rng.uniform(0.5, 1.0)
        u.call_at_s = self._now_s + delay_s
        u.holder = None
        self._drop_call(u)
        u.reason, u.detail = reason, detail
        self._note(u, "backoff", facts=(("reason", reason.value), ("detail", detail), ("again_s", round(delay_s, 3))))
        self._enter(u, Phase.BACKOFF, persist=False)

    def _why_nobody(self, u: Undertaking) -> str:
        parts = [f"{len(u.bids)} bids, {len(u.refusals)} refusals"]
        counts = Counter(act.reason.value for act, _ in u.refusals.values())
        if counts:
            parts.append(", ".join(f"{word} {n}" for word, n in sorted(counts.items(), key=lambda i: (-i[1], i[0]))))
        if u.waiting:
            parts.append(f"{len(u.waiting)} did not answer")
        return ": ".join(parts[:2]) + ("; " + parts[2] if len(parts) > 2 else "") if u.asked else "nobody offers it"

    # ---- awarding

    def _award_next(self, u: Undertaking) -> None:
        while u.ranking:
            peer = u.ranking.pop()
            tender = u.bids[peer]
            if tender.evidence.verify():
                break
            self._note(u, "forged", peer, (("act", "propose"),), verified=False)
            del u.bids[peer]
        else:
            self._back_off(u, Reason.NO_BIDS, self._why_nobody(u))
            return
        # A new epoch for every award, runner-ups too: one epoch never has two holders (rule 1).
        u.epoch = self._award_epoch(u)
        u.epoch_used = True
        u.holder = peer
        u.awards[peer] = u.epoch
        u.owing[peer] = None
        u.award_until_s = self._now_s + self._config.award_timeout_s
        u.resend_delay_s = 0.0
        runner_up = u.ranking[-1] if u.ranking else None
        self._note(
            u,
            "accept_proposal",
            peer,
            (
                ("runner_up", runner_up),
                ("added_ms", tender.added_ms),
                ("load_ms", tender.load_ms),
                ("plan_version", tender.plan_version),
            ),
        )
        self._enter(u, Phase.AWARDING)
        self._send_award(u)

    def _award_epoch(self, u: Undertaking) -> Epoch:
        return self._next_epoch(u) if u.epoch_used else u.epoch

    def _send_award(self, u: Undertaking) -> None:
        assert u.holder is not None
        tender = u.bids[u.holder]
        self._again_at(u)
        self._send(
            (u.holder,),
            AcceptProposal(
                task=u.task,
                epoch=u.epoch,
                record=u.record,
                call_epoch=u.call_epoch,
                added_ms=tender.added_ms,
                load_ms=tender.load_ms,
                plan_version=tender.plan_version,
                lease_ms=int(self._config.lease_s * 1000),
                within_ms=self._within_ms(u),
                checkpoint=u.checkpoint,
                checkpoint_version=u.checkpoint_version,
            ),
        )

    def _award_refused(self, u: Undertaking, peer: NodeId, act: Refuse, evidence: Evidence) -> None:
        if not evidence.verify():
            self._note(u, "forged", peer, (("act", "refuse"),), verified=False)
            return
        facts: tuple[Fact, ...] = (("reason", act.reason.value), ("detail", act.detail), ("to", "award"))
        priced = act.added_ms is not None and act.load_ms is not None and plausible(act.added_ms, act.load_ms)
        if priced:
            facts += (("added_ms", act.added_ms), ("load_ms", act.load_ms))
        self._note(u, "refuse", peer, facts)
        u.refusals[peer] = (act, evidence)
        u.owing.pop(peer, None)
        if act.reason is Reason.STALE_EPOCH and act.seen is not None and act.seen.owner == self._me:
            # It has seen a later epoch of ours: our journal is the older one. Go above it.
            if 0 <= act.seen.counter - u.epoch.counter <= MAX_EPOCH_JUMP:
                u.epoch = Epoch(act.seen.counter, self._me, self._boot)
        elif act.reason is Reason.STALE_BID and priced and peer not in u.repriced:
            # Its plan has changed since the bid. At the new price it stands in line with the others, once a call.
            assert act.added_ms is not None
            assert act.load_ms is not None
            u.repriced.add(peer)
            tender = u.bids[peer]
            u.bids[peer] = Tender(act.added_ms, act.load_ms, tender.plan_version, tender.holds_result, evidence)
            standing = [*u.ranking, peer]
            bids = [Bid(p, u.bids[p].added_ms, u.bids[p].load_ms, u.bids[p].holds_result) for p in standing]
            ranked = rank(u.task, bids, self._config.potential_p, u.gave_back)
            u.ranking = [bid.peer for bid in reversed(ranked)]
        elif act.reason is Reason.DUPLICATE and act.duplicate_of is not None and act.duplicate_of != u.task:
            self._back_off(u, Reason.DUPLICATE, f"the same work is under way as {act.duplicate_of}")
            return
        self._award_next(u)

    def _award_unanswered(self, u: Undertaking, why: str) -> None:
        """Silence: it never gets a commit of that epoch, so the runner-up is safe to ask at once."""
        peer = u.holder
        assert peer is not None
        self._note(u, "lost", peer, (("why", why),))
        self._fence(u, peer, u.epoch)
        self._award_next(u)

    def _hear_reserve(self, u: Undertaking, peer: NodeId, act: Reserve, evidence: Evidence) -> None:
        if peer == u.holder and act.epoch == u.epoch:
            if u.phase is Phase.AWARDING:
                self._commit(u, peer)
                return
            if u.phase is Phase.COMMITTED:
                if not u.heard:
                    self._send((peer,), Commit(task=u.task, epoch=u.epoch))
                return
        self._fence(u, peer, act.epoch)

    def _commit(self, u: Undertaking, peer: NodeId) -> None:
        # Counted from receipt here, from the first sending there: the participant always gives up first (rule 5).
        u.lease_until_s = self._now_s + self._config.lease_wait_s()
        u.heard = False
        u.renewals = Renewals(last_s=self._now_s)
        u.backoffs = 0
        u.resend_delay_s = 0.0
        self._again_at(u)
        self._note(u, "reserve", peer)
        self._note(u, "commit", peer, (("lease_s", self._config.lease_s),))
        # Not persisted: after a crash the award alone already counts as possibly committed.
        self._enter(u, Phase.COMMITTED, persist=False)
        self._send((peer,), Commit(task=u.task, epoch=u.epoch))
        self._reject_losers(u, peer)
        self._drop_call(u)

    def _reject_losers(self, u: Undertaking, winner: NodeId | None) -> None:
        losers = tuple([peer for peer in u.bids if peer != winner and peer not in u.owing])
        if losers:
            self._send(losers, RejectProposal(task=u.task, epoch=u.call_epoch), urgent=False)

    def _drop_call(self, u: Undertaking) -> None:
        u.bids = {}
        u.refusals = {}
        u.ranking = []
        u.repriced = set()

    def _remind(self, u: Undertaking) -> None:
        """The commit, the adoption or (after our restart) the question again."""
        assert u.holder is not None
        if u.former is not None:
            self._again_at(u)
            self._send((u.holder,), Adopt(task=u.task, epoch=u.epoch, former=u.former))
        elif not u.restored_unheard:
            self._again_at(u)
            self._send((u.holder,), Commit(task=u.task, epoch=u.epoch))
        else:
            self._query(u)

    # ---- the lease

    def _hear_renew(self, u: Undertaking, peer: NodeId, act: Renew, evidence: Evidence) -> None:
        if u.phase is Phase.COMMITTED and peer == u.holder:
            if act.epoch == u.epoch:
                self._grant(u, peer, act)
                return
            if act.epoch == u.former:
                self._send((peer,), Adopt(task=u.task, epoch=u.epoch, former=act.epoch))
                return
        if u.repeatable and peer in u.owing:
            # Healthy after all: its work goes on under a new epoch, unless somebody else is awarded already (rule 3).
            before_award = u.phase in (Phase.CALLING, Phase.BACKOFF) and act.epoch == u.awards[peer]
            if before_award or (u.phase is Phase.AWARDING and u.holder == peer and act.epoch < u.epoch):
                self._adopt(u, peer, act.epoch)
                return
            if u.phase is Phase.AWARDING:
                return  # that award may yet fail; this one renews again
        if u.phase is Phase.IN_DOUBT and peer == u.holder:
            return  # no grant can be true any more; the query is on its way
        self._fence(u, peer, act.epoch)

    def _grant(self, u: Undertaking, peer: NodeId, act: Renew) -> None:
        u.lease_until_s = self._now_s + self._config.lease_wait_s()
        u.renewals.heard(self._now_s)
        first = not u.heard
        u.heard = True
        u.former = None
        self._send((peer,), Renewed(task=u.task, epoch=u.epoch, boot=act.boot, sequence=act.sequence))
        if first or act.progress_permille or act.note:
            self._out.append(
                TaskChanged(
                    task=u.task,
                    state=u.state,
                    epoch=u.epoch,
                    holder=peer,
                    progress_permille=act.progress_permille,
                    note=act.note,
                )
            )

    def _adopt(self, u: Undertaking, peer: NodeId, former: Epoch) -> None:
        self._reject_losers(u, peer)
        self._drop_call(u)
        u.epoch = self._award_epoch(u)
        u.epoch_used = True
        u.holder = peer
        u.former = former
        u.awards[peer] = u.epoch
        u.owing[peer] = None
        u.heard = False
        u.renewals = Renewals(last_s=self._now_s)
        u.lease_until_s = self._now_s + self._config.lease_wait_s()
        u.resend_delay_s = 0.0
        self._again_at(u)
        self._note(u, "adopted", peer, (("former", former.counter),))
        self._enter(u, Phase.COMMITTED)
        self._send((peer,), Adopt(task=u.task, epoch=u.epoch, former=former))

    def _lease_over(self, u: Undertaking) -> None:
        self._note(u, "lease_ended", u.holder, u.renewals.facts())
        self._lose_holder(u)

    def _lose_holder(self, u: Undertaking) -> None:
        """Nobody is believed to hold it any more: in doubt after the point of no return, else called again."""
        if u.pnr:
            self._doubt(u, "the holder is silent past the point of no return")
            return
        self._call(u)

    def _peer_lost(self, peer: NodeId) -> None:
        for u in list(self._open.values()):
            if u.phase is Phase.CALLING and (peer in u.waiting or peer in u.bids):
                u.waiting.discard(peer)
                u.bids.pop(peer, None)
                self._note(u, "lost", peer)
                if not u.waiting:
                    self._close(u)
            elif u.phase is Phase.AWARDING:
                if peer in u.ranking:
                    u.ranking.remove(peer)
                if u.holder == peer:
                    self._award_unanswered(u, "the link was lost before it reserved")
            elif u.holder == peer and u.phase is Phase.COMMITTED:
                self._holder_lost(u, peer)
            else:
                continue
            self._arm(u)

    def _holder_lost(self, u: Undertaking, peer: NodeId) -> None:
        # Lost never means stopped: only what may be done twice is called again before the lease is over.
        self._note(u, "lost", peer, (("recalled", u.repeatable), *u.renewals.facts()))
        if u.repeatable:
            self._lose_holder(u)

    def _peer_found(self, peer: NodeId) -> None:
        offers: dict[str, bool] = {}

        def offered(kind: str) -> bool:
            if kind not in offers:
                offers[kind] = peer in self._directory.candidates(kind)
            return offers[kind]

        for u in list(self._open.values()):
            if u.phase is Phase.BACKOFF and offered(u.record.kind):
                # At once, yet not more often than a resend: a peer whose offer flickers makes nobody call all day.
                u.call_at_s = min(u.call_at_s, max(self._now_s, u.called_s + self._config.resend_s))
                if self._now_s >= u.call_at_s:
                    self._call(u)
            elif u.phase is Phase.CALLING and peer not in u.waiting and peer not in u.bids and offered(u.record.kind):
                u.asked[peer] = None
                u.refusals.pop(peer, None)
                u.waiting.add(peer)
                self._ask(u, (peer,))
            elif peer in u.owing and u.phase not in (Phase.CALLING, Phase.BACKOFF):
                self._speak_again(u, peer)
            else:
                continue
            self._arm(u)
        for u in self._ended.values():
            if peer in u.owing:
                self._speak_again(u, peer)
                self._arm(u)

    def _speak_again(self, u: Undertaking, peer: NodeId) -> None:
        """A peer that may wait for a word of ours is back: say it now instead of at the next resend."""
        u.resend_delay_s = 0.0
        if u.phase is Phase.AWARDING and u.holder == peer:
            self._send_award(u)
        elif u.phase is Phase.COMMITTED and u.holder == peer and not u.heard:
            self._remind(u)
        elif u.phase is Phase.IN_DOUBT:
            self._query(u)
        elif u.terminal or u.phase is Phase.CANCELLING:
            self._send_cancels(u)

    def _fence(self, u: Undertaking, peer: NodeId, epoch: Epoch) -> None:
        """Stop that epoch at `peer`. Names the peer's own epoch, so that a later award to it stays possible."""
        if peer not in u.noted_fenced:
            u.noted_fenced.add(peer)
            self._note(u, "fenced", peer, (("fenced_epoch", epoch.counter), ("state", u.state.value)))
        reason = u.reason if u.terminal and u.reason is not None else Reason.STALE_EPOCH
        self._send((peer,), Cancel(task=u.task, epoch=epoch, reason=reason, detail=f"the task is {u.state.value}"))

    # ---- point of no return and doubt

    def _hear_point_of_no_return(
        self, u: Undertaking, peer: NodeId, act: PassPointOfNoReturn, evidence: Evidence
    ) -> None:
        if u.phase is Phase.COMMITTED and peer == u.holder and act.epoch == u.epoch:
            if not u.pnr:
                u.pnr = True
                self._dirty[u.task] = u
                self._note(u, "pass_point_of_no_return", peer)
            u.heard = True
            self._send((peer,), PointOfNoReturnRecorded(task=u.task, epoch=u.epoch))
        elif not (u.phase is Phase.IN_DOUBT and peer == u.holder):
            self._fence(u, peer, act.epoch)

    def _doubt(self, u: Undertaking, detail: str) -> None:
        if u.ending is None:
            u.detail = detail
        u.resend_delay_s = 0.0
        self._enter(u, Phase.IN_DOUBT)
        self._query(u)

    def _query(self, u: Undertaking) -> None:
        self._again_at(u)
        if u.holder is not None:
            self._send((u.holder,), QueryStatus(task=u.task, epoch=u.awards.get(u.holder, u.epoch)))

    def _doubt_resolved(self, event: DoubtResolved) -> None:
        u = self._open.get(event.task)
        if u is None or u.phase is not Phase.IN_DOUBT:
            return
        self._note(u, "resolved", facts=(("done", event.done),))
        if event.done:
            self._finish(u, Phase.DONE, reason=Reason.OPERATOR, detail="a person said that it was done")
        else:
            self._not_done(u)
        self._arm(u)

    def _not_done(self, u: Undertaking) -> None:
        """Proof, or a person's word, that nothing happened."""
        u.pnr = False
        if u.ending is not None:
            self._finish_as_asked(u)
        else:
            self._dirty[u.task] = u
            self._call(u)

    # ---- what the holder reports

    def _hear_checkpoint(self, u: Undertaking, peer: NodeId, act: Checkpoint, evidence: Evidence) -> None:
        current = (
            peer == u.holder
            and act.epoch in (u.epoch, u.former)
            and u.phase
            in (
                Phase.COMMITTED,
                Phase.IN_DOUBT,
                Phase.CANCELLING,
            )
        )
        former = (
            u.repeatable
            and peer in u.owing
            and act.epoch == u.awards[peer]
            and u.phase in (Phase.CALLING, Phase.BACKOFF)
        )
        if not current and not former:
            self._fence(u, peer, act.epoch)
            return
        if self._keep_checkpoint(u, act.version, act.state):
            self._note(u, "checkpoint", peer, (("version", act.version), ("bytes", len(act.state))))
        self._acknowledge(u, peer, act.epoch, Performative.CHECKPOINT, act.version)

    def _keep_checkpoint(self, u: Undertaking, version: int, state: bytes | None) -> bool:
        if state is None or version <= u.checkpoint_version:
            return False
        u.checkpoint, u.checkpoint_version = state, version
        self._dirty[u.task] = u
        return True

    def _hear_inform(self, u: Undertaking, peer: NodeId, act: Inform, evidence: Evidence) -> None:
        if not self._was_awarded(u, peer, act.epoch):
            self._illegal(u, peer, act, "that epoch was not awarded to it")
            return
        if u.terminal:
            if peer in u.owing:
                u.owing.pop(peer)
                self._dirty[u.task] = u
                self._note(u, "late", peer, (("act", "inform"), ("bytes", len(act.result))))
        else:
            # DONE of any epoch is evidence, and wins over a cancel under way (rules 7, 9).
            self._note(u, "inform", peer, (("bytes", len(act.result)), *u.renewals.facts()))
            u.holder = peer
            u.result = act.result
            u.owing.pop(peer, None)
            self._finish(u, Phase.DONE)
        self._acknowledge(u, peer, act.epoch, Performative.INFORM)

    def _hear_failure(self, u: Undertaking, peer: NodeId, act: Failure, evidence: Evidence) -> None:
        if not self._was_awarded(u, peer, act.epoch):
            self._illegal(u, peer, act, "that epoch was not awarded to it")
            return
        released = self._release(u, peer, act.epoch)
        if released:
            facts: tuple[Fact, ...] = (("reason", act.reason.value), ("detail", act.detail))
            self._note(u, "failure", peer, (*facts, *u.renewals.facts()))
            if u.phase is Phase.CANCELLING:
                self._finish_as_asked(u)
            elif u.repeatable and act.reason in REPEATED_AFTER and u.attempts_failed < MAX_FAILURES:
                u.attempts_failed += 1
                self._dirty[u.task] = u
                self._call(u)
            else:
                self._finish(u, Phase.FAILED, reason=act.reason, detail=act.detail)
        self._acknowledge(u, peer, act.epoch, Performative.FAILURE)

    def _hear_forfeit(self, u: Undertaking, peer: NodeId, act: Forfeit, evidence: Evidence) -> None:
        if not self._was_awarded(u, peer, act.epoch):
            self._illegal(u, peer, act, "that epoch was not awarded to it")
            return
        phase = u.phase
        if self._release(u, peer, act.epoch):
            self._keep_checkpoint(u, act.checkpoint_version, act.checkpoint)
            facts: tuple[Fact, ...] = (("reason", act.reason.value), ("detail", act.detail))
            self._note(u, "forfeit", peer, (*facts, ("checkpoint", act.checkpoint is not None), *u.renewals.facts()))
            if phase is Phase.AWARDING:
                self._award_next(u)
            elif u.ending is not None:
                self._finish_as_asked(u)
            else:
                self._given_back(u, peer, act.reason)
        self._acknowledge(u, peer, act.epoch, Performative.FORFEIT)

    def _given_back(self, u: Undertaking, peer: NodeId, reason: Reason) -> None:
        # It stopped before it said so, under this very epoch: no lease is left to wait out (rule 7).
        u.pnr = False
        u.forfeits += 1
        if reason is not Reason.RESTARTED:
            u.gave_back.add(peer)
        self._dirty[u.task] = u
        if u.forfeits <= PATIENT_FORFEITS:
            self._call(u)
        else:
            self._back_off(u, reason, f"given back {u.forfeits} times")

    def _release(self, u: Undertaking, peer: NodeId, epoch: Epoch) -> bool:
        """`peer` has stopped under `epoch`. True where that was the epoch the task hangs on."""
        if (epoch >= u.awards[peer] or epoch == u.former) and peer in u.owing:
            del u.owing[peer]
            self._dirty[u.task] = u
        hangs_on = u.phase in (Phase.AWARDING, Phase.COMMITTED, Phase.IN_DOUBT, Phase.CANCELLING)
        return hangs_on and peer == u.holder and epoch in (u.epoch, u.former)

    def _was_awarded(self, u: Undertaking, peer: NodeId, epoch: Epoch) -> bool:
        return epoch.owner == self._me and epoch <= u.awards[peer]

    # ---- endings

    def _withdraw(self, u: Undertaking, ending: TaskState, reason: Reason, detail: str) -> None:
        """Cancel it, or let it expire: at once where nobody was committed, else when nobody acts any more."""
        if u.ending is not None:
            return
        u.ending, u.reason, u.detail = ending, reason, detail
        self._note(u, "cancel", facts=(("reason", reason.value), ("detail", detail)))
        if u.phase is Phase.COMMITTED:
            u.resend_delay_s = 0.0
            self._enter(u, Phase.CANCELLING)
            self._send_cancels(u)
        elif u.phase is Phase.IN_DOUBT:
            self._dirty[u.task] = u
            self._send_cancels(u)
        else:
            # Whoever was only awarded never got a commit, so nothing runs; it is told all the same.
            self._finish_as_asked(u)
        self._arm(u)

    def _send_cancels(self, u: Undertaking) -> None:
        """To everyone ever awarded that has not answered, each under its own last epoch (rule 7)."""
        self._again_at(u)
        reason = u.reason if u.reason is not None else Reason.STALE_EPOCH
        for peer in u.owing:
            self._send((peer,), Cancel(task=u.task, epoch=u.awards[peer], reason=reason, detail=u.detail))

    def _hear_cancelled(self, u: Undertaking, peer: NodeId, act: Cancelled, evidence: Evidence) -> None:
        if not self._was_awarded(u, peer, act.epoch):
            self._illegal(u, peer, act, "that epoch was not awarded to it")
            return
        if act.in_doubt:
            self._holder_in_doubt(u, peer, act)
            return
        if not self._release(u, peer, act.epoch):
            return
        self._note(u, "cancelled", peer, u.renewals.facts())
        if u.ending is not None:
            self._finish_as_asked(u)
        elif u.phase is Phase.AWARDING:
            self._award_next(u)
        else:
            self._not_done(u)

    def _holder_in_doubt(self, u: Undertaking, peer: NodeId, act: Cancelled) -> None:
        if peer != u.holder or act.epoch not in (u.epoch, u.former):
            return
        if u.phase in (Phase.COMMITTED, Phase.CANCELLING):
            self._note(u, "cancelled", peer, (("in_doubt", True), *u.renewals.facts()))
            u.pnr = True
            self._doubt(u, "the holder stopped past the point of no return and does not know")
        elif u.phase is Phase.IN_DOUBT:
            # It will never know more by itself: ask rarely, in case a person settles it over there.
            u.resend_delay_s = self._config.resend_max_s
            self._again_at(u)

    def _cancel_wait_over(self, u: Undertaking) -> None:
        self._note(u, "lease_ended", u.holder, u.renewals.facts())
        if u.pnr:
            self._doubt(u, "withdrawn past the point of no return, and the holder is silent")
        else:
            self._finish_as_asked(u)

    def _finish_as_asked(self, u: Undertaking) -> None:
        phase = Phase.CANCELLED if u.ending is TaskState.CANCELLED else Phase.FAILED
        self._finish(u, phase, reason=u.reason, detail=u.detail)

    def _finish(self, u: Undertaking, phase: Phase, *, reason: Reason | None = None, detail: str = "") -> None:
        self._reject_losers(u, u.holder)
        self._drop_call(u)
        u.asked = {}
        u.waiting = set()
        u.checkpoint = None
        u.former = None
        u.pnr = False
        u.reason, u.detail = reason, detail
        u.keep_until_s = self._now_s + self._config.keep_s
        self._enter(u, phase)
        del self._open[u.task]
        self._ended[u.task] = u
        if u.owing:
            u.resend_delay_s = 0.0
            self._send_cancels(u)
        while len(self._ended) > self._config.max_tasks:
            self._forget(next(iter(self._ended.values())))

    def _forget(self, u: Undertaking) -> None:
        del self._ended[u.task]
        self._timers.arm(u.task, None)
        self._dirty[u.task] = None
        parent = u.record.parent
        if parent is not None and parent in self._children:
            self._children[parent].pop(u.task, None)
            if not self._children[parent]:
                del self._children[parent]

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

    def _illegal(self, u: Undertaking, peer: NodeId, act: Act, why: str) -> None:
        performative = PERFORMATIVE_OF[type(act)]
        if self._budget.spend(self._now_s):
            self._note(u, "not_understood", peer, (("act", performative.value), ("why", why)))
        self._reply_not_understood(peer, act, performative, Reason.ILLEGAL_NOW, why)

    def _unknown(self, peer: NodeId, act: Act, performative: Performative) -> None:
        """A task that we never asked for, or have forgotten. Bids for it need no answer, promises do."""
        if performative in (Performative.NOT_UNDERSTOOD, Performative.PROPOSE, Performative.REFUSE):
            return
        if self._budget.spend(self._now_s):
            facts: tuple[Fact, ...] = (("act", performative.value), ("why", "unknown task"))
            self._out.append(Noted(task=act.task, epoch=act.epoch, event="not_understood", peer=peer, facts=facts))
        self._reply_not_understood(peer, act, performative, Reason.UNKNOWN_TASK, "")

    def _reply_not_understood(
        self, peer: NodeId, act: Act, performative: Performative, reason: Reason, detail: str
    ) -> None:
        self._send(
            (peer,),
            NotUnderstood(task=act.task, epoch=act.epoch, act=performative, reason=reason, detail=detail),
            urgent=False,
        )

    # ---- effects

    def _enter(self, u: Undertaking, phase: Phase, *, persist: bool = True) -> None:
        """The one place where a task changes its phase."""
        u.phase = phase
        if persist:
            self._dirty[u.task] = u
        self._out.append(
            TaskChanged(
                task=u.task,
                state=u.state,
                epoch=u.epoch,
                holder=u.holder,
                result=u.result,
                reason=u.reason,
                detail=u.detail,
            )
        )

    def _restart_wait_s(self) -> float:
        return self._config.lease_wait_s()

    def _acknowledge(self, u: Undertaking, peer: NodeId, epoch: Epoch, act: Performative, version: int = 0) -> None:
        self._send((peer,), Acknowledge(task=u.task, epoch=epoch, act=act, version=version))

    def _note(
        self,
        u: Undertaking,
        event: str,
        peer: NodeId | None = None,
        facts: tuple[Fact, ...] = (),
        *,
        verified: bool = True,
    ) -> None:
        self._out.append(Noted(task=u.task, epoch=u.epoch, event=event, peer=peer, facts=facts, verified=verified))

    def _send(self, to: tuple[NodeId, ...], act: Act, *, urgent: bool = True) -> None:
        self._out.append(Send(to=to, act=act, urgent=urgent))

    def _effects(self) -> list[Effect]:
        """Snapshots first: one a task, as it stands after the whole event."""
        out, self._out = self._out, []
        if self._dirty:
            persists: list[Effect] = [
                Persist(table=INITIATED, task=task, record=None if u is None else u.snapshot(self._now_s))
                for task, u in self._dirty.items()
            ]
            self._dirty = {}
            return persists + out
        return out


def _is_bound(task: TaskId, initiator: NodeId, boot: bytes, nonce: bytes) -> bool:
    try:
        return task == task_id_of(initiator, boot, nonce)
    except ValueError:
        return False
