"""One task at one of its custodians: a single-value synod register and the grants it has given. No decisions."""

from __future__ import annotations

from meshagent.core.acts import TaskRecord
from meshagent.core.contract_net.records import Ended, Held, RegisterRecord
from meshagent.types import Epoch, NodeId, TaskId

HELD_KEPT = 64
"""Holders remembered a task: who was one may report a late result. More awards than that and somebody is playing."""


class Register:
    """What a custodian remembers of a task: Paxos's promised ballot, and the ballot and value accepted last."""

    __slots__ = (
        "accepted",
        "ballot",
        "cancelled",
        "checkpoint",
        "checkpoint_version",
        "ended",
        "expires_s",
        "grant_until_s",
        "heard_s",
        "held",
        "holder",
        "keep_until_s",
        "lease_ms",
        "old",
        "pnr",
        "promised",
        "record",
        "resend_at_s",
        "resend_delay_s",
        "take_at_s",
        "task",
        "untold",
        "version",
    )

    def __init__(self, record: TaskRecord, epoch: Epoch, now_s: float) -> None:
        self.task: TaskId = record.task
        self.record = record
        self.promised = epoch
        """No ballot below it is listened to."""
        self.ballot = epoch
        """Under which the rest was accepted."""
        self.accepted = epoch
        self.version = 0
        self.holder: NodeId | None = None
        self.held: dict[NodeId, Epoch] = {}
        """Everyone whom an owner has named as holder."""
        self.pnr = False
        self.cancelled = False
        self.lease_ms = 0
        self.checkpoint: bytes | None = None
        self.checkpoint_version = 0
        self.expires_s: float | None = None
        self.grant_until_s = 0.0
        """Until then the holder may act, for all that this custodian has granted. Never persisted: a custodian that
        restarts waits a full lease instead (rule 5)."""
        self.old = False
        self.ended: Ended | None = None
        self.untold: dict[NodeId, None] = {}
        self.resend_at_s = 0.0
        self.resend_delay_s = 0.0
        self.keep_until_s = 0.0
        self.heard_s = now_s
        """When an owner last said something."""
        self.take_at_s: float | None = None
        """Its owner is lost: from then on this node goes on with it."""

    def hold(self, peer: NodeId, epoch: Epoch) -> None:
        """Name `peer` as holder."""
        self.holder = peer
        self.held.pop(peer, None)
        self.held[peer] = epoch
        if len(self.held) > HELD_KEPT:
            del self.held[next(iter(self.held))]

    def deadline_s(self, silence_s: float) -> float:
        """When time alone will change something."""
        if self.ended is not None:
            return min(self.keep_until_s, self.resend_at_s) if self.untold else self.keep_until_s
        silent_at_s = self.heard_s + silence_s
        return silent_at_s if self.take_at_s is None else min(self.take_at_s, silent_at_s)

    def snapshot(self, now_s: float) -> RegisterRecord:
        """What must survive a crash."""
        return RegisterRecord(
            record=self.record,
            promised=self.promised,
            ballot=self.ballot,
            accepted=self.accepted,
            version=self.version,
            holder=self.holder,
            held=tuple([Held(peer=peer, epoch=epoch) for peer, epoch in self.held.items()]),
            point_of_no_return=self.pnr,
            cancelled=self.cancelled,
            lease_ms=self.lease_ms,
            within_left_s=None if self.expires_s is None else max(0.0, self.expires_s - now_s),
            old=self.old,
            ended=self.ended,
            checkpoint=self.checkpoint,
            checkpoint_version=self.checkpoint_version,
        )

    @classmethod
    def restored(cls, saved: RegisterRecord, now_s: float) -> Register:
        """The register as the journal has it, without grants."""
        r = cls(saved.record, saved.promised, now_s)
        r.ballot = saved.ballot
        r.accepted = saved.accepted
        r.version = saved.version
        r.holder = saved.holder
        r.held = {one.peer: one.epoch for one in saved.held}
        r.pnr = saved.point_of_no_return
        r.cancelled = saved.cancelled
        r.lease_ms = saved.lease_ms
        r.expires_s = None if saved.within_left_s is None else now_s + saved.within_left_s
        r.old = saved.old
        r.checkpoint = saved.checkpoint
        r.checkpoint_version = saved.checkpoint_version
        r.ended = saved.ended
        return r
