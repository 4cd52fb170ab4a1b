"""How a task ends at its initiator: result, failure, forfeit, cancel, expiry, and the tombstone that remains."""

from __future__ import annotations

from typing import Final

from meshagent.core.acts import Cancel, Cancelled, Checkpoint, Failure, Forfeit, Inform, Performative
from meshagent.core.contract_net.calling import Calling
from meshagent.core.contract_net.initiator_base import Fact
from meshagent.core.contract_net.interface import DoubtResolved, Evidence
from meshagent.core.contract_net.records import MAX_CHECKPOINT_VERSION, Phase
from meshagent.core.contract_net.undertaking import Undertaking
from meshagent.core.custody import may_own
from meshagent.types import Epoch, NodeId, Reason, TaskState

MAX_FAILURES: Final = 3
"""at_least_once: so many crashes, timeouts or restarts while doing it are put down to bad luck; then it has FAILED."""
PATIENT_FORFEITS: Final = 2
"""So many times a task that was given back is called again at once; then with backoff, as if nobody had bid."""
REPEATED_AFTER: Final = frozenset({Reason.CRASHED, Reason.TIMEOUT, Reason.RESTARTED})


class Ending(Calling):
    """What the holder reports, withdrawals, doubt and the end (rules 4, 7, 9, 10)."""

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
        if act.version > MAX_CHECKPOINT_VERSION:
            self._illegal(u, peer, act, "a checkpoint version that nobody counts up to")
            return
        if self._keep_checkpoint(u, act.version, act.state):
            self._note(u, "checkpoint", peer, (("version", act.version), ("bytes", len(act.state))))
        self._acknowledge(u, peer, act.epoch, Performative.CHECKPOINT, act.version)

    def _keep_checkpoint(self, u: Undertaking, version: int, state: bytes | None) -> bool:
        if state is None or not u.checkpoint_version < version <= MAX_CHECKPOINT_VERSION:
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
        if u.record.custodians:
            u.stopped_under[peer] = max(epoch, u.stopped_under.get(peer, epoch))
        if (epoch >= u.awards[peer] or epoch == u.former) and peer in u.owing:
            del u.owing[peer]
            self._dirty[u.task] = u
        hangs_on = u.phase in (
            Phase.AWARDING,
            Phase.ACCEPTING,
            Phase.WAITING,
            Phase.COMMITTED,
            Phase.IN_DOUBT,
            Phase.CANCELLING,
        )
        return hangs_on and peer == u.holder and epoch in (u.epoch, u.former)

    def _was_awarded(self, u: Undertaking, peer: NodeId, epoch: Epoch) -> bool:
        mine = epoch.owner == self._me or (bool(u.record.custodians) and may_own(u.record, epoch.owner))
        return mine and epoch <= u.awards[peer]

    # ---- doubt

    def _doubt(self, u: Undertaking, detail: str) -> None:
        if u.ending is None:
            u.detail = detail
        u.resend_delay_s = 0.0
        self._enter(u, Phase.IN_DOUBT)
        self._query(u)

    def _not_done(self, u: Undertaking) -> None:
        """Proof, or a person's word, that nothing happened."""
        u.pnr = False
        if u.ending is not None:
            self._finish_as_asked(u)
        else:
            self._dirty[u.task] = u
            self._call(u)

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

    # ---- withdrawing

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
            # After a takeover it may still name the epoch of an owner before the last.
            present = act.epoch in (u.epoch, u.former) or bool(u.record.custodians)
            if not u.terminal and peer == u.holder and present:
                self._holder_in_doubt(u, peer)
            else:
                # Settled meanwhile: without this word the doubter would refuse the same work (kind, key) for ever.
                self._release(u, peer, act.epoch)
                self._acknowledge(u, peer, act.epoch, Performative.CANCELLED)
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

    def _holder_in_doubt(self, u: Undertaking, peer: NodeId) -> None:
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

    # ---- the end

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
