"""Offers and awards: an offer holds nothing, an award is priced again, and what was answered is answered alike."""

from __future__ import annotations

from typing import Final

from meshagent.core.acts import (
    AcceptProposal,
    Cfp,
    Decline,
    Performative,
    Propose,
    Refuse,
    RejectProposal,
    Reserve,
)
from meshagent.core.contract_net.clearing import within_tolerance
from meshagent.core.contract_net.contract import Contract
from meshagent.core.contract_net.interface import Noted
from meshagent.core.contract_net.participant_base import Fact
from meshagent.core.contract_net.records import MAX_CHECKPOINT_VERSION, Report, Stage
from meshagent.core.contract_net.working import Working
from meshagent.types import NodeId, Reason, task_id_of

MAX_LEASE_S: Final = 600.0
"""Calmer than any radio needs. Longer ones would let an initiator hold resources that it never commits to."""
RIVAL_S: Final = 1.0
"""Two calls of one key within so long are rivals: longer than a call stays open and an award takes, short enough that
an asker who died right after calling holds nobody up."""
RIVALS_KEPT: Final = 1024
"""Keys called lately that are remembered."""
REFUSALS_KEPT: Final = 1024
"""Refused awards that are answered alike when the award comes again; older ones were settled long ago."""


class Bidding(Working):
    """From the call to RESERVED (DESIGN 6, rules 1 to 3, 5)."""

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
            same = self._same_work(act)
            if isinstance(same, Contract):
                self._send(peer, self._stored_offer(act))
                return
            refusal = same
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

    def _is_bound(self, peer: NodeId, act: AcceptProposal | Cfp) -> bool:
        record = act.record
        if record.initiator != peer or record.task != act.task:
            return False
        try:
            return record.task == task_id_of(record.initiator, record.boot, record.nonce)
        except ValueError:
            return False

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
        if c.stage is Stage.IN_DOUBT and act.epoch > c.fence:
            self._doubt_settled(c)  # past the point of no return nobody is called before that
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
        elif c is None and self._lets_lapse(peer):
            reason, detail = Reason.BUSY, "this initiator awarded often of late, and never committed"
        elif c is None and self._hoards_too_many(peer):
            reason, detail = Reason.BUSY, "too many contracts of this initiator are open, or unacknowledged, here"
        elif c is None and not self._has_room():
            reason, detail = Reason.BUSY, f"{len(self._contracts)} contracts are kept, which is the most"
        if reason is None:
            return None
        return Refuse(task=act.task, epoch=act.epoch, reason=reason, detail=detail)

    def _same_work(self, act: Cfp | AcceptProposal) -> Contract | Refuse | None:
        """What another task of the same kind and key means for this one: its contract, where the result is at hand;
        a refusal, where it is under way; None, where there is none."""
        record = act.record
        if not record.key:
            return None
        task = self._by_key.get((record.kind, record.key))
        twin = None if task is None or task == record.task else self._contracts.get(task)
        if twin is not None and not twin.has_result:
            return self._duplicate(act, twin)
        if twin is not None and self._now_s < twin.answers_until_s:
            return twin
        return self._rival(act)

    def _duplicate(self, act: Cfp | AcceptProposal, twin: Contract) -> Refuse:
        return Refuse(
            task=act.task,
            epoch=act.epoch,
            reason=Reason.DUPLICATE,
            detail="the same work is under way here for another asker",
            duplicate_of=twin.task,
        )

    def _rival(self, act: Cfp | AcceptProposal) -> Refuse | None:
        """Two askers heard one rattle and call at the same moment: the task with the smaller id goes on, the other
        waits for its result. Everybody who hears both calls decides alike, so that neither asker blocks the other."""
        record = act.record
        key = (record.kind, record.key)
        first = self._called.get(key)
        if first is not None and first[0] < record.task and self._now_s < first[1] + RIVAL_S:
            return Refuse(
                task=act.task,
                epoch=act.epoch,
                reason=Reason.DUPLICATE,
                detail="another asker called for the same work at the same moment",
                duplicate_of=first[0],
            )
        self._called[key] = (record.task, self._now_s)
        self._called.move_to_end(key)
        if len(self._called) > RIVALS_KEPT:
            self._called.popitem(last=False)
        return None

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
        if not 0 < act.lease_ms <= MAX_LEASE_S * 1000 or act.checkpoint_version > MAX_CHECKPOINT_VERSION:
            self._illegal(peer, act, "terms that no initiator gives")
            return
        if c is not None and self._award_settled(c, act):
            return
        refusal = self._may_not(peer, c, act)
        if refusal is None:
            same = self._same_work(act)
            if isinstance(same, Contract):
                assert same.report is not None
                self._hand_over(peer, c, act, same.report.result or b"")
                return
            refusal = same
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
        elif c.stage is Stage.IN_DOUBT:
            self._doubt_settled(c)
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
        if self._refusal_budget.spend(self._now_s):  # the initiator notes it too; a flood of awards fills no disk here
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
        # Counted from the first sending of Reserve (rule 5). Until work is committed no longer than our own lease: who
        # awards and never commits would hold the body for ten minutes with one message.
        fresh.lease_until_s = self._now_s + min(fresh.lease_s, self._config.lease_s)
        self._bidder.reserve(act.record, act.epoch)
        self._enter(fresh, Stage.RESERVED)
        self._send(peer, Reserve(task=act.task, epoch=act.epoch))

    def _hand_over(self, peer: NodeId, c: Contract | None, act: AcceptProposal, result: bytes) -> None:
        """The same work was done for somebody else: its result is the answer, nothing is done again."""
        fresh = self._new_run(peer, c, act, Stage.REPORTING)
        self._report(fresh, Report(act=Performative.INFORM, epoch=act.epoch, result=result))

    def _hear_rejection(self, c: Contract, act: RejectProposal) -> None:
        """An offer of ours was not taken; offers hold nothing, so nothing is freed."""
