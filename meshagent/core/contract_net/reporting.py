"""How a contract ends at its participant: reported until acknowledged, cancelled, in doubt, or answered from store."""

from __future__ import annotations

from meshagent.core.acts import Acknowledge, Cancel, Cancelled, NotUnderstood, Performative, QueryStatus, Reserve
from meshagent.core.contract_net.contract import Contract
from meshagent.core.contract_net.interface import Submit, WorkEnded
from meshagent.core.contract_net.participant_base import Fact, ParticipantBase
from meshagent.core.contract_net.records import Report, Stage
from meshagent.types import Epoch, NodeId, Reason


class Reporting(ParticipantBase):
    """STOPPING, REPORTING, IN_DOUBT and CLOSED (rules 4, 7, 9, 10, 12)."""

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
            c.answers_until_s = self._now_s + self._config.answers_key_s
            self._report(c, Report(act=Performative.INFORM, epoch=c.epoch, result=outcome.result))
            limits = (*outcome.follow_ups_within_s, *[None] * len(outcome.follow_ups))
            self._out.extend(
                Submit(record=record, within_s=within_s)
                for record, within_s in zip(outcome.follow_ups, limits, strict=False)
            )
        elif c.pnr and (stopping or outcome.reason is Reason.LEASE_LOST):
            # LEASE_LOST without having been told to stop: the fence of a device acted a little before our own timer.
            # Stopped between the point of no return and the result: nobody here knows what happened.
            self._enter_doubt(c, c.stop_reason or outcome.reason or Reason.OTHER)
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
            case Stage.RESERVED:
                self._send(c.initiator, Reserve(task=c.task, epoch=c.epoch))
            case _:
                pass  # stopping: the answer follows by itself

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
            if c.task not in self._dirty:
                # After a crash the report is said again and acknowledged again, so nothing hurries.
                self._at_leisure.add(c.task)
            self._close(c)
        elif c.stage is Stage.IN_DOUBT and act.act is Performative.CANCELLED and act.epoch >= c.epoch:
            self._doubt_settled(c)

    def _doubt_settled(self, c: Contract) -> None:
        """The task has ended or gone on without us, so nobody needs to know any more what happened here."""
        self._note(c, "doubt_settled")
        self._close(c)

    def _hear_query(self, c: Contract, act: QueryStatus) -> None:
        self._answer_stored(c)

    def _hear_not_understood(self, c: Contract, act: NotUnderstood) -> None:
        """The initiator has forgotten the task: nobody waits for it any more. All else is only noted."""
        if self._budget.spend(self._now_s):
            self._note(c, "not_understood", (("act", act.act.value), ("reason", act.reason.value)))
        if act.reason is not Reason.UNKNOWN_TASK or act.epoch != c.epoch:
            return
        if c.stage in (Stage.REPORTING, Stage.IN_DOUBT):
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
            self._bury_bare(c)
        self._send(peer, Cancelled(task=act.task, epoch=act.epoch))
