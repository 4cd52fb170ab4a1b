"""One contract at its participant: everything that is remembered of it, and its next instant. No decisions."""

from __future__ import annotations

from meshagent.core.acts import AcceptProposal, Act, Failure, Forfeit, Inform, Performative, TaskRecord
from meshagent.core.contract_net.records import ContractRecord, Report, Stage
from meshagent.core.contract_net.undertaking import Renewals
from meshagent.types import Delivery, Epoch, NodeId, Reason, TaskId

SENT_KEPT = 8
"""Renewals in flight whose first sending is remembered: over four leases' worth at the default pace."""


class Contract:
    """A task that was awarded to this node, or the tombstone of one."""

    __slots__ = (
        "acknowledged",
        "answers_until_s",
        "award",
        "cancelled_under",
        "checkpoint",
        "checkpoint_due",
        "checkpoint_version",
        "epoch",
        "fence",
        "initiator",
        "keep_until_s",
        "lease_ended",
        "lease_s",
        "lease_until_s",
        "note",
        "pnr",
        "pnr_wanted",
        "progress_permille",
        "record",
        "renew_at_s",
        "renewals",
        "report",
        "resend_at_s",
        "resend_delay_s",
        "reserved_at_s",
        "run_epoch",
        "sent",
        "stage",
        "stop_reason",
        "task",
    )

    def __init__(self, task: TaskId, initiator: NodeId, epoch: Epoch, stage: Stage) -> None:
        self.task = task
        self.initiator = initiator
        self.record: TaskRecord | None = None
        self.epoch = epoch
        self.run_epoch = epoch
        """The epoch of the award; an adoption moves `epoch` on and the run stays the same."""
        self.fence = epoch
        self.stage = stage
        self.award: AcceptProposal | None = None
        # the lease
        self.lease_s = 0.0
        self.reserved_at_s = 0.0
        self.lease_until_s = 0.0
        self.lease_ended = False
        self.renew_at_s = 0.0
        self.sent: dict[int, float] = {}
        """First sending of each renewal that may still be echoed."""
        self.renewals = Renewals()
        # the work
        self.pnr = False
        self.pnr_wanted = False
        self.progress_permille = 0
        self.note = ""
        self.checkpoint: bytes | None = None
        self.checkpoint_version = 0
        self.checkpoint_due = False
        """The latest checkpoint is not acknowledged yet."""
        self.stop_reason: Reason | None = None
        self.cancelled_under: Epoch | None = None
        """The initiator waits for `Cancelled` of this epoch."""
        # the end
        self.report: Report | None = None
        self.acknowledged = False
        self.resend_at_s = 0.0
        self.resend_delay_s = 0.0
        self.keep_until_s = 0.0
        self.answers_until_s = 0.0

    @property
    def repeatable(self) -> bool:
        """Doing it twice does no harm."""
        return self.record is not None and self.record.delivery is Delivery.AT_LEAST_ONCE

    @property
    def has_result(self) -> bool:
        return self.report is not None and self.report.act is Performative.INFORM

    @property
    def active(self) -> bool:
        """Resources are held, or the handler may be running."""
        return self.stage in (Stage.RESERVED, Stage.EXECUTING, Stage.STOPPING)

    def in_run(self, epoch: Epoch) -> bool:
        """Whether `epoch` names the present run: the awarded one, or one it was adopted under."""
        return self.run_epoch <= epoch <= self.epoch

    def deadline_s(self) -> float | None:
        """When time alone will change something."""
        match self.stage:
            case Stage.RESERVED:
                return self.lease_until_s
            case Stage.EXECUTING:
                at_s = self.renew_at_s
                if not self.lease_ended:
                    at_s = min(at_s, self.lease_until_s)
                if self.pnr_wanted or self.checkpoint_due:
                    at_s = min(at_s, self.resend_at_s)
                return at_s
            case Stage.STOPPING | Stage.IN_DOUBT:
                return None
            case Stage.REPORTING:
                return min(self.resend_at_s, self.keep_until_s)
            case Stage.CLOSED:
                return self.keep_until_s

    def report_act(self) -> Act | None:
        """The stored answer, as an act: always the same content (rule 12)."""
        report = self.report
        if report is None:
            return None
        match report.act:
            case Performative.INFORM:
                return Inform(task=self.task, epoch=report.epoch, result=report.result or b"")
            case Performative.FAILURE:
                reason = report.reason or Reason.OTHER
                return Failure(task=self.task, epoch=report.epoch, reason=reason, detail=report.detail)
            case _:
                return Forfeit(
                    task=self.task,
                    epoch=report.epoch,
                    reason=report.reason or Reason.OTHER,
                    detail=report.detail,
                    checkpoint=self.checkpoint,
                    checkpoint_version=self.checkpoint_version,
                )

    def snapshot(self) -> ContractRecord:
        """What must survive a crash."""
        return ContractRecord(
            task=self.task,
            initiator=self.initiator,
            record=self.record,
            epoch=self.epoch,
            run_epoch=self.run_epoch,
            fence=self.fence,
            stage=self.stage,
            point_of_no_return=self.pnr,
            checkpoint=self.checkpoint,
            checkpoint_version=self.checkpoint_version,
            report=self.report,
        )

    @classmethod
    def restored(cls, saved: ContractRecord) -> Contract:
        """The contract as the journal has it, without any lease: none survives a restart (rule 5)."""
        c = cls(saved.task, saved.initiator, saved.epoch, saved.stage)
        c.record = saved.record
        c.run_epoch = saved.run_epoch
        c.fence = saved.fence
        c.pnr = saved.point_of_no_return
        c.checkpoint = saved.checkpoint
        c.checkpoint_version = saved.checkpoint_version
        c.report = saved.report
        return c
