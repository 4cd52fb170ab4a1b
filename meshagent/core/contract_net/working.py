"""The work under its lease: started by the commit, renewed, adopted, stopped when the lease is over."""

from __future__ import annotations

from meshagent.core.acts import (
    Adopt,
    Cancelled,
    Checkpoint,
    Commit,
    PassPointOfNoReturn,
    PointOfNoReturnRecorded,
    Renewed,
)
from meshagent.core.contract_net.contract import Contract
from meshagent.core.contract_net.interface import (
    CheckpointTaken,
    GrantPointOfNoReturn,
    LeaseMoved,
    PointOfNoReturnReached,
    StartWork,
)
from meshagent.core.contract_net.participant_base import Fact
from meshagent.core.contract_net.records import Stage
from meshagent.core.contract_net.reporting import Reporting
from meshagent.core.contract_net.undertaking import Renewals
from meshagent.types import Reason


class Working(Reporting):
    """EXECUTING: the lease, checkpoints and the point of no return (rules 3 to 5)."""

    # ---- the lease

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
        c.lease_until_s = c.reserved_at_s + c.lease_s  # whole now that it is committed, counted from Reserve (rule 5)
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
