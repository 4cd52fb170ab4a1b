"""The owner's half of custody: nothing is accepted, committed or withdrawn before a majority has it on disk.

An owner is a proposer of the task's synod. Who knows Paxos: `Prepare` and `Promise` are phase 1, `Accept` and
`Accepted` phase 2, and an owner that has a majority's promises for its ballot leads: all its awards are written under
that ballot without another phase 1, until somebody else prepares a higher one (Multi-Paxos). The asker leads from the
start, since nobody else knows of the task before.

    submitted -> SUBMITTING --majority accepted--> CALLING
                 AWARDING --reserve--> ACCEPTING --majority accepted--> COMMITTED
                 COMMITTED --lease over, restart; taken over--> PREPARING
                 PREPARING --majority promised: holder with a grant--> ACCEPTING --> COMMITTED (adopted)
                 PREPARING --no grant left--> WAITING --> CALLING,   --past the point of no return--> IN_DOUBT
                 any --somebody else owns it--> ENTRUSTED (the asker), forgotten (a custodian)

`at_least_once` tasks write the same things without waiting for them: a copy too few costs a repetition.
"""

from __future__ import annotations

from typing import Final

from meshagent.core.acts import (
    Accept,
    Accepted,
    Cancelled,
    Failure,
    Forfeit,
    Inquire,
    Nack,
    Outcome,
    OutcomeKnown,
    Prepare,
    Promise,
    Renew,
    Standing,
)
from meshagent.core.contract_net.holding import Holding
from meshagent.core.contract_net.interface import Evidence
from meshagent.core.contract_net.records import TERMINAL, Phase
from meshagent.core.contract_net.undertaking import Undertaking
from meshagent.core.custody import majority, votes
from meshagent.types import Epoch, NodeId, Reason, TaskState

KEEPALIVE_S: Final = 5.0
"""An owner repeats itself to its custodians so often; three times in vain and it is not believed to own any more."""
MAX_BALLOT_JUMP: Final = 1 << 20
"""As MAX_EPOCH_JUMP: a liar can waste counters, not exhaust them."""
_PHASE_OF: Final = {
    TaskState.DONE: Phase.DONE,
    TaskState.FAILED: Phase.FAILED,
    TaskState.CANCELLED: Phase.CANCELLED,
}
_NONE: Final = Epoch(-1, NodeId(""), b"")
_UNSETTLED: Final = frozenset({Phase.SUBMITTING, Phase.PREPARING, Phase.WAITING, Phase.ACCEPTING, Phase.ENTRUSTED})
NOT_OWNING: Final = frozenset({Phase.SUBMITTING, Phase.PREPARING, Phase.ENTRUSTED})
"""What a holder reports now is for whoever owns the task next: it says it again."""


class Owning(Holding):
    """SUBMITTING, PREPARING, WAITING, ACCEPTING and ENTRUSTED (rules 2, 3, 7 to 9)."""

    # ---- writing to the custodians

    def _write(self, u: Undertaking) -> None:
        """Have the present state written down: a new version, pushed until all have it."""
        u.version += 1
        u.kept_by = set()
        u.resend_delay_s = 0.0
        self._dirty[u.task] = u
        self._push(u, u.record.custodians)

    def _push(self, u: Undertaking, to: tuple[NodeId, ...]) -> None:
        delay_s = u.resend_delay_s = min(self._config.resend_max_s, u.resend_delay_s * 2 or self._config.resend_s)
        u.keep_at_s = self._now_s + delay_s
        for custodian in to:
            self._send((custodian,), self._accept(u, custodian))

    def _accept(self, u: Undertaking, custodian: NodeId) -> Accept:
        return Accept(
            task=u.task,
            epoch=u.epoch,
            ballot=u.ballot or u.epoch,
            version=u.version,
            record=None if custodian in u.had_by else u.record,
            first=not u.awards,
            holder=u.holder,
            point_of_no_return=u.pnr,
            cancelled=u.ending is not None,
            lease_ms=int(self._config.lease_s * 1000),
            within_ms=self._within_ms(u),
            adopts=u.adopting or u.ending is not None,
        )

    def _push_again(self, u: Undertaking) -> None:
        """Who has not got it gets it again; who has, hears now and then that its owner lives."""
        missing = tuple([one for one in u.record.custodians if one not in u.kept_by])
        if missing:
            self._push(u, missing)
        else:
            self._push(u, u.record.custodians)
            u.keep_at_s = self._now_s + KEEPALIVE_S

    def _kept(self, u: Undertaking) -> bool:
        return len(u.kept_by) >= majority(len(u.record.custodians))

    def _hear_accepted(self, u: Undertaking, peer: NodeId, act: Accepted, evidence: Evidence) -> None:
        u.had_by.add(peer)
        if act.epoch != u.epoch or act.version != u.version or peer not in u.record.custodians:
            return
        before = self._kept(u)
        u.kept_by.add(peer)
        if len(u.kept_by) == len(u.record.custodians):
            u.keep_at_s = self._now_s + KEEPALIVE_S
        if self._kept(u) and not before:
            self._majority_accepted(u)

    def _majority_accepted(self, u: Undertaking) -> None:
        if u.ending is not None and votes(u.record) and not u.cancel_kept:
            u.cancel_kept = True
            if u.stopped:
                self._finish_as_asked(u)
            else:
                # What was granted before it was withdrawn may be acted on for a lease from now, and no longer.
                u.lease_until_s = max(u.lease_until_s, self._now_s + self._config.lease_wait_s())
        elif u.phase is Phase.SUBMITTING:
            self._note(u, "kept", facts=(("custodians", len(u.kept_by)), ("of", len(u.record.custodians))))
            self._call(u)
        elif u.phase is Phase.ACCEPTING:
            assert u.holder is not None
            if u.adopting:
                assert u.former is not None
                former, u.epoch_used, pnr = u.former, False, u.pnr
                self._adopt(u, u.holder, former)
                u.pnr = pnr
            else:
                self._committed(u, u.holder)

    # ---- becoming the owner

    def _prepare(self, u: Undertaking) -> None:
        u.epoch = self._next_epoch(u)
        u.ballot = u.epoch
        u.epoch_used = False
        u.promises = {}
        u.unknown_to = set()
        u.kept_by = set()
        u.adopting = False
        u.heard = False
        u.resend_delay_s = 0.0
        self._enter(u, Phase.PREPARING)
        self._send_prepare(u)

    def _send_prepare(self, u: Undertaking) -> None:
        u.resend_delay_s = min(self._config.resend_max_s, u.resend_delay_s * 2 or self._config.resend_s)
        u.prepare_at_s = self._now_s + u.resend_delay_s * self._rng.uniform(1.0, 1.5)
        for custodian in u.record.custodians:
            if custodian not in u.promises:
                self._send((custodian,), Prepare(task=u.task, epoch=u.epoch))

    def _hear_promise(self, u: Undertaking, peer: NodeId, act: Promise, evidence: Evidence) -> None:
        u.had_by.add(peer)
        if u.phase is not Phase.PREPARING or act.epoch != u.epoch or peer not in u.record.custodians:
            return
        grant_s = act.grant_ms / 1000 * (1 + 2 * self._config.clock_drift)
        u.promises[peer] = (act, self._now_s + grant_s)
        u.unknown_to.discard(peer)
        self._promised_by_most(u)

    def _promised_by_most(self, u: Undertaking) -> None:
        needed = majority(len(u.record.custodians))
        fresh = u.record.initiator == self._me and not u.awards
        if len(u.promises) >= needed:
            if fresh and not any(act.holder for act, _ in u.promises.values()):
                self._submit_again(u)
            else:
                self._promised(u)
        elif fresh and len(u.promises) + len(u.unknown_to) >= needed:
            # Restarted in the middle of submitting. Who does not know the task has accepted nothing from anybody.
            if u.promises and any(act.holder for act, _ in u.promises.values()):
                self._promised(u)
            else:
                self._submit_again(u)

    def _submit_again(self, u: Undertaking) -> None:
        if u.ending is not None:
            self._withdraw_owned(u, stopped=True)
            return
        u.holder = None
        self._enter(u, Phase.SUBMITTING)
        self._write(u)

    def _promised(self, u: Undertaking) -> None:
        """A majority listens to nobody lower: go on from the latest thing that any of them has accepted."""
        acts = [act for act, _ in u.promises.values()]
        until_s = max(until_s for _, until_s in u.promises.values())
        best = max(acts, key=lambda act: (act.ballot, act.accepted, act.version))
        pnr = any(act.point_of_no_return for act in acts if act.accepted == best.accepted)
        u.epoch_used = True
        if best.accepted >= u.epoch:
            # Its former owner has counted on under a lower ballot; participants know that epoch.
            u.epoch = Epoch(best.accepted.counter + 1, self._me, self._boot)
        self._note(
            u,
            "owned",
            facts=(("promises", len(acts)), ("holder", best.holder), ("grant_s", round(until_s - self._now_s, 3))),
        )
        if best.holder is None or best.accepted <= u.stopped_under.get(best.holder, _NONE):
            u.holder, u.former, u.pnr = None, None, False
            if best.cancelled or u.ending is not None:
                self._withdraw_owned(u, stopped=True)
            else:
                self._wait_then_call(u, until_s)
            return
        u.holder, u.former, u.pnr = best.holder, best.accepted, pnr
        u.awards[best.holder] = u.epoch
        u.owing[best.holder] = None
        if best.cancelled or u.ending is not None:
            u.lease_until_s = until_s
            self._withdraw_owned(u, stopped=False)
        elif until_s > self._now_s:
            u.adopting = True
            u.award_until_s = self._now_s + self._config.lease_wait_s()
            self._enter(u, Phase.ACCEPTING)
            self._write(u)
        elif pnr:
            self._doubt(u, "the holder is silent past the point of no return")
            self._write(u)
        else:
            self._wait_then_call(u, until_s)

    def _wait_then_call(self, u: Undertaking, until_s: float) -> None:
        if until_s <= self._now_s:
            self._call(u)
            return
        u.lease_until_s = until_s
        u.keep_at_s = self._now_s + KEEPALIVE_S
        self._enter(u, Phase.WAITING)

    def _withdraw_owned(self, u: Undertaking, *, stopped: bool) -> None:
        if u.ending is None:
            u.ending, u.reason, u.detail = TaskState.CANCELLED, Reason.CANCELLED, "withdrawn under its former owner"
        u.stopped = stopped
        u.cancel_kept = False
        u.resend_delay_s = 0.0
        u.lease_until_s = max(u.lease_until_s, self._now_s + self._config.lease_wait_s())
        self._enter(u, Phase.CANCELLING)
        self._send_cancels(u)
        self._write(u)

    def _hear_nack(self, u: Undertaking, peer: NodeId, act: Nack, evidence: Evidence) -> None:
        if u.terminal or u.phase is Phase.ENTRUSTED or peer not in u.record.custodians:
            return
        if act.reason is Reason.STALE_EPOCH and act.promised is not None:
            self._outbid(u, peer, act.promised)
        elif act.epoch == u.epoch and act.reason is Reason.UNKNOWN_TASK and u.phase is Phase.PREPARING:
            u.unknown_to.add(peer)
            if u.record.initiator == self._me and not u.awards:
                self._promised_by_most(u)
            elif len(u.unknown_to) >= majority(len(u.record.custodians)):
                self._note(u, "expired", peer, (("why", "its custodians know nothing of it"),))
                u.stopped = u.cancel_kept = True
                self._finish(u, Phase.FAILED, reason=Reason.UNKNOWN_TASK, detail="its custodians know nothing of it")

    def _outbid(self, u: Undertaking, peer: NodeId, promised: Epoch) -> None:
        assert u.ballot is not None
        if promised <= u.ballot or promised.counter - u.epoch.counter > MAX_BALLOT_JUMP:
            return
        if promised.owner != self._me:
            self._resign(u, promised)
            return
        # Promised to an earlier life of this node, whose journal ours is older than: go above it.
        u.epoch = max(u.epoch, Epoch(promised.counter, self._me, self._boot))
        if votes(u.record):
            self._prepare(u)
        else:
            u.ballot = Epoch(promised.counter + 1, self._me, self._boot)
            self._write(u)

    def _resign(self, u: Undertaking, promised: Epoch) -> None:
        """Who sees somebody else's higher epoch resigns; it does not outbid (rule 1)."""
        self._note(u, "resigned", promised.owner, (("to_epoch", promised.counter),))
        self._drop_call(u)
        u.asked, u.waiting = {}, set()
        u.epoch = max(u.epoch, Epoch(min(promised.counter, u.epoch.counter + MAX_BALLOT_JUMP), self._me, self._boot))
        if u.record.initiator == self._me:
            u.holder, u.heard, u.adopting = None, False, False
            if u.ending is None:
                self._entrust(u)
            elif votes(u.record):
                self._prepare(u)  # it is to be withdrawn: what its asker says about that is above its new owner
            else:
                self._finish_as_asked(u)
        else:
            self._drop(u)

    def _drop(self, u: Undertaking) -> None:
        self._open.pop(u.task, None)
        self._negotiated.discard(u.task)
        self._timers.arm(u.task, None)
        self._dirty[u.task] = None

    def _entrust(self, u: Undertaking) -> None:
        u.promises = {}
        u.resend_delay_s = 0.0
        u.unknown_to = set()
        self._enter(u, Phase.ENTRUSTED)
        self._inquire(u, u.record.custodians)

    def _inquire(self, u: Undertaking, to: tuple[NodeId, ...]) -> None:
        u.unknown_to = set()
        self._again_at(u)
        for custodian in to:
            self._send((custodian,), Inquire(task=u.task, epoch=u.epoch))

    def _hear_standing(self, u: Undertaking, peer: NodeId, act: Standing, evidence: Evidence) -> None:
        if u.phase is not Phase.ENTRUSTED or peer not in u.record.custodians:
            return
        if act.known and act.epoch.owner != self._me:
            return  # somebody does own it
        # Nobody there knows of another owner: when most say so, the task is ours still.
        u.unknown_to.add(peer)
        if len(u.unknown_to) >= majority(len(u.record.custodians)):
            self._own_again(u)

    def _own_again(self, u: Undertaking) -> None:
        if votes(u.record):
            self._prepare(u)
        else:
            self._call(u)

    # ---- where a majority changes what the owner does

    def _withdraw(self, u: Undertaking, ending: TaskState, reason: Reason, detail: str) -> None:
        unsettled = u.phase in (Phase.PREPARING, Phase.ENTRUSTED, Phase.WAITING) or (
            u.phase is Phase.ACCEPTING and u.adopting
        )
        if u.ending is not None or not unsettled:
            before = u.ending
            super()._withdraw(u, ending, reason, detail)
            if (
                before is None
                and u.record.custodians
                and u.phase in (Phase.COMMITTED, Phase.CANCELLING, Phase.IN_DOUBT)
            ):
                self._write(u)
            return
        u.ending, u.reason, u.detail = ending, reason, detail
        self._dirty[u.task] = u
        self._note(u, "cancel", facts=(("reason", reason.value), ("detail", detail)))
        if u.phase is Phase.ENTRUSTED:
            # Its owner is somebody else: take it back, and withdraw it then.
            if votes(u.record):
                self._prepare(u)
            else:
                self._finish_as_asked(u)
        elif u.phase is not Phase.PREPARING:
            self._withdraw_owned(u, stopped=False)
        self._arm(u)

    def _commit(self, u: Undertaking, peer: NodeId) -> None:
        if not votes(u.record):
            super()._commit(u, peer)
            if u.record.custodians:
                self._write(u)
            return
        u.adopting = False
        u.award_until_s = self._now_s + self._config.lease_wait_s()
        self._enter(u, Phase.ACCEPTING)
        self._write(u)

    def _committed(self, u: Undertaking, peer: NodeId) -> None:
        super()._commit(u, peer)

    def _adopt(self, u: Undertaking, peer: NodeId, former: Epoch) -> None:
        super()._adopt(u, peer, former)
        if u.record.custodians and not votes(u.record):
            self._write(u)

    def _hear_renew(self, u: Undertaking, peer: NodeId, act: Renew, evidence: Evidence) -> None:
        if u.phase not in _UNSETTLED:
            super()._hear_renew(u, peer, act, evidence)

    def _hear_failure(self, u: Undertaking, peer: NodeId, act: Failure, evidence: Evidence) -> None:
        if u.phase not in NOT_OWNING:
            super()._hear_failure(u, peer, act, evidence)

    def _hear_forfeit(self, u: Undertaking, peer: NodeId, act: Forfeit, evidence: Evidence) -> None:
        if u.phase not in NOT_OWNING:
            super()._hear_forfeit(u, peer, act, evidence)

    def _hear_cancelled(self, u: Undertaking, peer: NodeId, act: Cancelled, evidence: Evidence) -> None:
        if u.phase not in NOT_OWNING:
            super()._hear_cancelled(u, peer, act, evidence)

    def _lose_holder(self, u: Undertaking) -> None:
        if votes(u.record):
            # The custodians may have granted what we did not hear of: they say when it is over.
            self._prepare(u)
        else:
            super()._lose_holder(u)

    def _lease_over(self, u: Undertaking) -> None:
        if votes(u.record):
            self._note(u, "lease_ended", u.holder, u.renewals.facts())
            self._prepare(u)
        else:
            super()._lease_over(u)

    def _cancel_wait_over(self, u: Undertaking) -> None:
        if votes(u.record) and not u.cancel_kept:
            u.lease_until_s = self._now_s + self._config.resend_max_s
        else:
            super()._cancel_wait_over(u)

    def _finish_as_asked(self, u: Undertaking) -> None:
        if votes(u.record) and not u.cancel_kept:
            u.stopped = True
            u.resend_delay_s = 0.0
            u.lease_until_s = self._now_s + self._config.resend_max_s
            self._enter(u, Phase.CANCELLING)
            self._write(u)
        else:
            super()._finish_as_asked(u)

    def _finish(self, u: Undertaking, phase: Phase, *, reason: Reason | None = None, detail: str = "") -> None:
        super()._finish(u, phase, reason=reason, detail=detail)
        if u.record.custodians:
            u.untold = dict.fromkeys([*u.record.custodians, u.record.initiator])
            if self._me not in u.record.custodians:
                u.untold.pop(self._me, None)
            self._tell_outcome(u, tuple(u.untold))

    # ---- the outcome

    def _outcome(self, u: Undertaking) -> Outcome:
        return Outcome(
            task=u.task,
            epoch=u.epoch,
            state=u.state,
            holder=u.holder,
            result=u.result,
            reason=u.reason,
            detail=u.detail,
        )

    def _tell_outcome(self, u: Undertaking, to: tuple[NodeId, ...]) -> None:
        if to:
            self._again_at(u)
            self._send(to, self._outcome(u))

    def _hear_outcome(self, u: Undertaking, peer: NodeId, act: Outcome) -> None:
        if u.terminal:
            u.untold.pop(peer, None)
            return
        u.result = act.result
        u.holder = act.holder
        u.ending = None
        if act.holder is not None:
            u.owing.pop(act.holder, None)
        self._note(u, "outcome", peer, (("state", act.state.value),))
        self._finish(u, _PHASE_OF[act.state], reason=act.reason, detail=act.detail)
        u.untold = {}

    def _hear_outcome_known(self, u: Undertaking, peer: NodeId, act: OutcomeKnown, evidence: Evidence) -> None:
        u.untold.pop(peer, None)

    # ---- time

    def _fire_custody(self, u: Undertaking) -> bool:
        """What is due for the custodians' sake. True: nothing else is."""
        now_s = self._now_s
        match u.phase:
            case Phase.PREPARING:
                if now_s >= u.prepare_at_s:
                    self._send_prepare(u)
                return True
            case Phase.WAITING:
                if now_s >= u.lease_until_s:
                    self._call(u)
                    return True
            case Phase.ACCEPTING:
                if now_s >= u.award_until_s:
                    self._not_accepted(u)
                    return True
            case Phase.ENTRUSTED:
                if now_s >= u.resend_at_s:
                    self._inquire(u, u.record.custodians)
                return True
            case _:
                pass
        if u.record.custodians and u.phase not in TERMINAL and now_s >= u.keep_at_s:
            self._push_again(u)
        return u.phase in _UNSETTLED

    def _not_accepted(self, u: Undertaking) -> None:
        assert u.holder is not None
        self._note(u, "lost", u.holder, (("why", "no majority of its custodians answered in time"),))
        if not u.adopting:
            self._fence(u, u.holder, u.epoch)
        self._prepare(u)

    def _custodian_found(self, u: Undertaking, peer: NodeId) -> None:
        """Say at once what a custodian, or the asker, has missed."""
        if u.terminal:
            if peer in u.untold:
                u.resend_delay_s = 0.0
                self._tell_outcome(u, (peer,))
        elif peer in u.record.custodians:
            if u.phase is Phase.PREPARING:
                if peer not in u.promises:
                    self._send((peer,), Prepare(task=u.task, epoch=u.epoch))
            elif u.phase is Phase.ENTRUSTED:
                self._send((peer,), Inquire(task=u.task, epoch=u.epoch))
            elif peer not in u.kept_by:
                self._send((peer,), self._accept(u, peer))
