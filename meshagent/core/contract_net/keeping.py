"""The custodian's half: registers that promise, accept and grant; and going on with a task whose owner is lost.

An acceptor of the task's synod, with a lease on top: in tasks that vote the executor renews with its custodians, and
each grants only under the ballot it has promised. What `at_least_once` tasks have here is a copy that nobody waits for.

After a restart a custodian votes on nothing until the others have told what they remember of its journal (rule 11).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Final

from meshagent.core.acts import (
    Accept,
    Accepted,
    Acknowledge,
    Act,
    Checkpoint,
    Inform,
    Inquire,
    Nack,
    Outcome,
    OutcomeKnown,
    PassPointOfNoReturn,
    Performative,
    PointOfNoReturnRecorded,
    Prepare,
    Promise,
    Renew,
    Renewed,
    Standing,
    TaskRecord,
)
from meshagent.core.contract_net.initiator_base import Fact
from meshagent.core.contract_net.interface import ContractConfig, Directory, Effect, Noted, Persist
from meshagent.core.contract_net.owning import KEEPALIVE_S, Owning
from meshagent.core.contract_net.records import (
    CUSTODY,
    MARKS,
    MAX_CHECKPOINT_VERSION,
    Ended,
    MarkRecord,
    Phase,
    RegisterRecord,
)
from meshagent.core.contract_net.register import Register
from meshagent.core.contract_net.undertaking import Undertaking
from meshagent.core.custody import believe, may_own, passes_on, votes
from meshagent.types import Epoch, NodeId, Reason, TaskId, TaskState, task_id_of

SILENCE_S: Final = 3 * KEEPALIVE_S
"""An owner that has said nothing for so long is lost, whatever its link says."""
TAKEOVER_S: Final = 0.5
"""A lost link may be back at once. Who votes can wait: the executor renews with the custodians meanwhile."""
STAGGER_S: Final = 1.0
"""The next custodian in line waits so much longer: two that take over at once cost each other a ballot."""
QUARANTINE_S: Final = 5.0
"""Longest wait after a restart for what others remember of us: who does not answer by then may be gone for good."""
OWN_MARK: Final = TaskId("own")
MAX_REGISTERS: Final = 10_000
"""As max_contracts: some 5 MiB of small tasks; above it a custodian answers BUSY."""
MAX_LEASE_MS: Final = 600_000


class Keeping(Owning):
    """Registers, quarantine, takeover (rules 2, 3, 8 to 11)."""

    def __init__(
        self,
        me: NodeId,
        boot: bytes,
        config: ContractConfig,
        rng: Random,
        directory: Directory,
        authentic: Callable[[TaskRecord], bool] = believe,
    ) -> None:
        super().__init__(me, boot, config, rng, directory)
        self._authentic = authentic
        self._registers: dict[TaskId, Register] = {}
        self._registers_dirty: dict[TaskId, Register | None] = {}
        self._linked: set[NodeId] = set()
        self._mark = 0
        self._remembered: dict[NodeId, int] = {}
        """Peer -> the highest mark of its journal that was seen."""
        self._remembered_dirty: set[NodeId] = set()
        self._unanswered: set[NodeId] = set()
        """Who has not yet said what it remembers of us."""
        self._quarantined_until_s: float | None = None
        self._forgotten_boots: dict[NodeId, bytes] = {}
        """Submitter -> the latest boot of its tasks that were forgotten here: none of them comes back (rule 10)."""
        self.rolled_back = False
        """Others remember more of this journal than it holds: the disk was restored from an old copy."""

    # ---- restart

    def restore_custody(
        self, registers: Iterable[RegisterRecord], marks: Mapping[str, MarkRecord], now_s: float
    ) -> list[Effect]:
        """Take up what this node keeps for others. Call once, before `restore`."""
        self._now_s = now_s
        for node, saved in marks.items():
            if node == OWN_MARK:
                self._mark = saved.mark
            else:
                self._remembered[NodeId(node)] = saved.mark
        for one in registers:
            r = Register.restored(one, now_s)
            self._registers[r.task] = r
            if r.ended is not None:
                r.keep_until_s = now_s + self._config.keep_s
            else:
                if r.holder is not None:
                    # What was granted before is not known any more: it may be a full lease (rule 5).
                    r.grant_until_s = now_s + self._boot_wait_s(r)
                self._unanswered.update(self._fellows(r))
            self._arm_register(r)
        if self._unanswered:
            self._quarantined_until_s = now_s + QUARANTINE_S
            self._timers.arm(_QUARANTINE, self._quarantined_until_s)
        return []

    def _boot_wait_s(self, r: Register) -> float:
        return self._grant_s(r)

    def _fellows(self, r: Register) -> tuple[NodeId, ...]:
        return tuple([one for one in (*r.record.custodians, r.record.initiator) if one != self._me])

    def _ask_around(self, peer: NodeId) -> None:
        for r in self._registers.values():
            if r.ended is None and peer in self._fellows(r):
                self._send((peer,), Inquire(task=r.task, epoch=r.promised))

    def _heard_of_us(self, peer: NodeId, remembered: int) -> None:
        if remembered > self._mark and not self.rolled_back:
            self.rolled_back = True
            for r in self._registers.values():
                r.old = True
                self._registers_dirty[r.task] = r
                self._note_register(r, "old_journal", peer, (("remembered", remembered), ("here", self._mark)))
            for u in list(self._open.values()):
                if u.record.custodians and u.awards and not u.repeatable and not votes(u.record):
                    self._doubt(u, "this journal is older than what others remember of it")
                    self._arm(u)
            self._mark = remembered
        self._unanswered.discard(peer)
        if not self._unanswered and self._quarantined_until_s is not None:
            self._end_quarantine()

    def _end_quarantine(self) -> None:
        self._quarantined_until_s = None
        self._unanswered.clear()
        self._timers.arm(_QUARANTINE, None)
        for r in self._registers.values():
            self._consider(r)

    @property
    def quarantined(self) -> bool:
        """True while this node votes on nothing, because it does not know yet what it has missed."""
        return self._quarantined_until_s is not None

    # ---- questions

    def registers(self) -> Iterable[Register]:
        """What this node keeps for others; for looking at, never for changing."""
        return self._registers.values()

    def kept(self, task: TaskId) -> Register | None:
        """The register of `task`, if this node is one of its custodians."""
        return self._registers.get(task)

    # ---- acts

    def _hear_custody(self, peer: NodeId, act: Act) -> bool:
        """What concerns the register of a task. True: nobody else needs to hear it."""
        r = self._registers.get(act.task)
        match act:
            case Prepare():
                self._hear_prepare(r, peer, act)
            case Accept():
                self._hear_accept(r, peer, act)
            case Inquire():
                self._hear_inquire(r, peer, act)
            case Outcome():
                self._hear_told(r, peer, act)
            case OutcomeKnown():
                if r is not None:
                    r.untold.pop(peer, None)
                    self._arm_register(r)
                return self.find(act.task) is None
            case Promise() | Accepted():
                self._remember(peer, act.mark)
                return self.find(act.task) is None
            case Standing():
                self._heard_of_us(peer, act.remembered)
                return self.find(act.task) is None
            case Nack():
                return self.find(act.task) is None
            case Checkpoint():
                if r is not None and r.ended is None and r.held.get(peer) == act.epoch:
                    self._keep_for_next(r, act)
                return r is not None and self.find(act.task) is None
            case Renew() | PassPointOfNoReturn() | Inform():
                return r is not None and self._hear_executor(r, peer, act)
            case _:
                return False
        return True

    def _remember(self, peer: NodeId, mark: int) -> None:
        if mark > self._remembered.get(peer, 0):
            self._remembered[peer] = mark
            self._remembered_dirty.add(peer)

    def _nack(self, peer: NodeId, act: Prepare | Accept, reason: Reason, promised: Epoch | None = None) -> None:
        self._send((peer,), Nack(task=act.task, epoch=act.epoch, reason=reason, promised=promised))

    def _may_write(self, r: Register, peer: NodeId, act: Prepare | Accept) -> bool:
        if act.epoch.owner != peer or not may_own(r.record, peer):
            self._illegal_custody(peer, act, "it does not own this task and is no custodian of it")
            return False
        if r.ended is not None:
            self._send((peer,), self._told(r, r.ended))
            return False
        if r.old or self.quarantined:
            self._nack(peer, act, Reason.QUARANTINED, r.promised)
            return False
        return True

    def _illegal_custody(self, peer: NodeId, act: Act, why: str) -> None:
        if self._budget.spend(self._now_s):
            facts: tuple[Fact, ...] = (("why", why),)
            self._out.append(Noted(task=act.task, epoch=act.epoch, event="not_understood", peer=peer, facts=facts))

    def _hear_prepare(self, r: Register | None, peer: NodeId, act: Prepare) -> None:
        if r is None:
            self._nack(peer, act, Reason.UNKNOWN_TASK)
            return
        if not self._may_write(r, peer, act):
            return
        if act.epoch < r.promised:
            self._nack(peer, act, Reason.STALE_EPOCH, r.promised)
            return
        if act.epoch > r.promised:
            self._promise(r, act.epoch)
        r.heard_s = self._now_s
        self._consider(r)
        self._send((peer,), self._promise_act(r, act))
        self._outbid_own(r)

    def _promise(self, r: Register, ballot: Epoch) -> None:
        r.promised = ballot
        self._write_register(r)

    def _promise_act(self, r: Register, act: Prepare) -> Promise:
        return Promise(
            task=r.task,
            epoch=act.epoch,
            ballot=r.ballot,
            accepted=r.accepted,
            version=r.version,
            holder=r.holder,
            point_of_no_return=r.pnr,
            cancelled=r.cancelled,
            grant_ms=int(max(0.0, r.grant_until_s - self._now_s) * 1000) + 1 if r.grant_until_s > self._now_s else 0,
            mark=self._mark,
        )

    def _outbid_own(self, r: Register) -> None:
        """Our own register has promised to somebody else: whatever we own of that task we own no more."""
        u = self._open.get(r.task)
        if u is None or u.ballot is None or u.phase is Phase.ENTRUSTED:
            return
        if r.promised > u.ballot and r.promised.owner != self._me:
            self._resign(u, r.promised)
            if u.task in self._open:
                self._arm(u)

    def _hear_accept(self, r: Register | None, peer: NodeId, act: Accept) -> None:
        if r is None:
            r = self._open_register(peer, act)
            if r is None:
                return
        elif not self._may_write(r, peer, act):
            return
        elif act.ballot.owner != peer or act.ballot < r.promised:
            self._nack(peer, act, Reason.STALE_EPOCH, r.promised)
            return
        elif (act.ballot, act.epoch, act.version) > (r.ballot, r.accepted, r.version):
            same = act.epoch == r.accepted
            r.pnr = act.point_of_no_return or (r.pnr and (same or act.adopts) and r.holder == act.holder)
            r.cancelled = act.cancelled or (r.cancelled and act.ballot == r.ballot)
            new_holder = act.holder != r.holder or not (same or act.adopts)
            r.promised = r.ballot = act.ballot
            r.accepted, r.version = act.epoch, act.version
            if act.holder is None:
                r.holder = None
            else:
                r.hold(act.holder, act.epoch)
            self._take_terms(r, act)
            if r.holder is not None and new_holder and not act.adopts:
                r.grant_until_s = max(r.grant_until_s, self._now_s + self._grant_s(r))
            self._write_register(r)
        r.heard_s = self._now_s
        self._consider(r)
        self._send((peer,), Accepted(task=act.task, epoch=act.epoch, version=act.version, mark=self._mark))
        self._outbid_own(r)

    def _take_terms(self, r: Register, act: Accept) -> None:
        r.lease_ms = act.lease_ms
        r.expires_s = None if act.within_ms is None else self._now_s + act.within_ms / 1000

    def _grant_s(self, r: Register) -> float:
        return r.lease_ms / 1000 * (1 + 2 * self._config.clock_drift) + self._config.max_delay_s

    def _open_register(self, peer: NodeId, act: Accept) -> Register | None:
        """A task that is not known here: an owner brings it late. Who never had it has promised nothing to anybody.

        A custodian that has forgotten it, or whose journal is old, has: the watermark and the quarantine keep it out.
        """
        record = act.record
        if record is None or self.quarantined or self.rolled_back:
            self._nack(peer, act, Reason.QUARANTINED if self.quarantined else Reason.UNKNOWN_TASK)
            return None
        if (
            record.task != act.task
            or not may_own(record, peer)
            or act.epoch.owner != peer
            or act.ballot.owner != peer
            or self._me not in record.custodians
            or not 0 < act.lease_ms <= MAX_LEASE_MS
            or not _bound(record)
            or (record.initiator != self._me and not self._authentic(record))
        ):
            self._illegal_custody(peer, act, "not the asker's own record, or not for this custodian")
            return None
        forgotten = self._forgotten_boots.get(record.initiator)
        if forgotten is not None and record.boot <= forgotten and act.epoch.boot != record.boot:
            self._nack(peer, act, Reason.UNKNOWN_TASK)
            return None
        if len(self._registers) >= MAX_REGISTERS and not self._make_room():
            self._nack(peer, act, Reason.BUSY)
            return None
        r = Register(record, act.ballot, self._now_s)
        r.accepted, r.version = act.epoch, act.version
        if act.holder is not None:
            r.hold(act.holder, act.epoch)
        r.pnr = act.point_of_no_return
        r.cancelled = act.cancelled
        self._take_terms(r, act)
        if r.holder is not None:
            # For all we know it was committed just now.
            r.grant_until_s = self._now_s + self._grant_s(r)
        self._registers[r.task] = r
        self._write_register(r)
        return r

    def _make_room(self) -> bool:
        for r in self._registers.values():
            if r.ended is not None and not r.untold:
                self._forget_register(r)
                return True
        return False

    def _forget_register(self, r: Register) -> None:
        boot = r.record.boot
        who = r.record.initiator
        self._forgotten_boots[who] = max(boot, self._forgotten_boots.get(who, b""))
        del self._registers[r.task]
        self._registers_dirty[r.task] = None
        self._timers.arm(_key(r.task), None)

    # ---- the executor

    def _hear_executor(self, r: Register, peer: NodeId, act: Renew | PassPointOfNoReturn | Inform) -> bool:
        owns = r.task in self._open
        if isinstance(act, Inform):
            if owns:
                return False
            self._hear_done(r, peer, act)
            return True
        if votes(r.record):
            may = (
                r.ended is None
                and not r.old
                and not self.quarantined
                and not r.cancelled
                and r.promised == r.ballot
                and r.accepted == act.epoch
                and r.holder == peer
            )
            if may and isinstance(act, Renew):
                r.grant_until_s = max(r.grant_until_s, self._now_s + self._grant_s(r))
                self._send((peer,), Renewed(task=r.task, epoch=act.epoch, boot=act.boot, sequence=act.sequence))
            elif may:
                if not r.pnr:
                    r.pnr = True
                    self._write_register(r)
                self._send((peer,), PointOfNoReturnRecorded(task=r.task, epoch=act.epoch))
        return not owns

    def _keep_for_next(self, r: Register, act: Checkpoint) -> None:
        if r.checkpoint_version < act.version <= MAX_CHECKPOINT_VERSION:
            r.checkpoint, r.checkpoint_version = act.state, act.version
            self._write_register(r)

    def _hear_done(self, r: Register, peer: NodeId, act: Inform) -> None:
        known = r.held.get(peer)
        if r.ended is None:
            if known is None or act.epoch > known:
                return  # its owner has not told us of this holder yet; it says it again
            self._end_register(
                r, Ended(epoch=act.epoch, state=TaskState.DONE, holder=peer, result=act.result, reason=None, detail="")
            )
            r.untold = dict.fromkeys([*self._fellows(r), *([r.promised.owner] if r.promised.owner != self._me else [])])
            self._tell_register(r, tuple(r.untold))
            self._arm_register(r)
        self._send((peer,), Acknowledge(task=r.task, epoch=act.epoch, act=Performative.INFORM))

    def _end_register(self, r: Register, ended: Ended) -> None:
        r.ended = ended
        r.checkpoint = None
        r.take_at_s = None
        r.keep_until_s = self._now_s + self._config.keep_s
        self._note_register(r, "closed_by", ended.holder, (("state", ended.state.value),))
        self._write_register(r)
        self._arm_register(r)

    # ---- outcomes

    def _told(self, r: Register, ended: Ended) -> Outcome:
        return Outcome(
            task=r.task,
            epoch=ended.epoch,
            state=ended.state,
            holder=ended.holder,
            result=ended.result,
            reason=ended.reason,
            detail=ended.detail,
        )

    def _tell_register(self, r: Register, to: tuple[NodeId, ...]) -> None:
        assert r.ended is not None
        r.resend_delay_s = min(self._config.resend_max_s, r.resend_delay_s * 2 or self._config.resend_s)
        r.resend_at_s = self._now_s + r.resend_delay_s
        if to:
            self._send(to, self._told(r, r.ended))

    def _hear_told(self, r: Register | None, peer: NodeId, act: Outcome) -> None:
        u = self.find(act.task)
        record = r.record if r is not None else u.record if u is not None else None
        if record is not None and peer != record.initiator and peer not in record.custodians:
            self._illegal_custody(peer, act, "it neither asked for this task nor keeps it")
            return
        if r is not None and r.ended is None:
            self._end_register(
                r,
                Ended(
                    epoch=act.epoch,
                    state=act.state,
                    holder=act.holder,
                    result=act.result,
                    reason=act.reason,
                    detail=act.detail,
                ),
            )
        if u is not None:
            self._hear_outcome(u, peer, act)
            if u.task in self._ended:
                self._arm(u)
        if r is not None:
            r.untold.pop(peer, None)
        self._send((peer,), OutcomeKnown(task=act.task, epoch=act.epoch))

    def _hear_inquire(self, r: Register | None, peer: NodeId, act: Inquire) -> None:
        u = self.find(act.task)
        record = r.record if r is not None else u.record if u is not None else None
        fellow = record is not None and (peer == record.initiator or peer in record.custodians)
        if fellow and r is not None and r.ended is not None:
            self._send((peer,), self._told(r, r.ended))
        elif fellow and u is not None and u.terminal:
            self._send((peer,), self._outcome(u))
        promised = act.epoch
        if fellow and r is not None:
            promised = r.promised
        elif fellow and u is not None and u.ballot is not None:
            promised = u.ballot
        remembered = self._remembered.get(peer, 0)
        self._send((peer,), Standing(task=act.task, epoch=promised, known=fellow, remembered=remembered))

    # ---- going on without the owner

    def _consider(self, r: Register) -> None:
        """Whether its owner is lost, and whether it is our turn to go on with it."""
        take_at_s: float | None = None
        owner = r.promised.owner
        idle = r.ended is None and not r.old and not self.quarantined and r.task not in self._open
        if idle and passes_on(r.record):
            silent = self._now_s >= r.heard_s + SILENCE_S
            if silent or (owner != self._me and owner not in self._linked):
                line = [one for one in r.record.custodians if one == self._me or one in self._linked]
                wait_s = TAKEOVER_S if votes(r.record) else 0.0
                due_s = self._now_s + wait_s + STAGGER_S * line.index(self._me)
                take_at_s = due_s if r.take_at_s is None else min(due_s, r.take_at_s)
        r.take_at_s = take_at_s
        self._arm_register(r)

    def _take_over(self, r: Register) -> None:
        r.take_at_s = None
        r.heard_s = self._now_s
        if r.task in self._ended:
            return
        u = Undertaking(r.record, Epoch(max(r.promised.counter, r.accepted.counter), self._me, self._boot))
        u.expires_s = r.expires_s
        u.had_by = {self._me}
        u.checkpoint, u.checkpoint_version = r.checkpoint, r.checkpoint_version
        self._open[u.task] = u
        u.epoch_used = True
        for peer in r.held:
            u.awards[peer] = r.held[peer]
        self._note(u, "taken_over", r.promised.owner, (("holder", r.holder), ("epoch", r.accepted.counter)))
        if votes(r.record):
            self._prepare(u)
        else:
            u.ballot = u.epoch = self._next_epoch(u)
            u.epoch_used = False
            u.owing = dict.fromkeys(r.held)
            if r.cancelled:
                u.ending, u.reason = TaskState.CANCELLED, Reason.CANCELLED
                u.holder = r.holder
                self._finish_as_asked(u)
            elif r.holder is not None and (r.holder == self._me or r.holder in self._linked):
                # Who holds it is asked first, and healthy work goes on (rule 3).
                self._adopt(u, r.holder, r.accepted)
            else:
                self._call(u)
        if u.task in self._open:
            self._arm(u)

    # ---- peers and time

    def _custody_peer_lost(self, peer: NodeId) -> None:
        self._linked.discard(peer)
        for r in self._registers.values():
            if r.ended is None and (peer == r.promised.owner or peer in r.record.custodians):
                self._consider(r)
        for u in list(self._open.values()):
            # The asker is the last in line, when no custodian is left to go on.
            if (
                u.phase is Phase.ENTRUSTED
                and u.repeatable
                and not any(one in self._linked or one == self._me for one in u.record.custodians)
            ):
                u.ballot = u.epoch = self._next_epoch(u)
                self._call(u)
                self._arm(u)

    def _custody_peer_found(self, peer: NodeId) -> None:
        self._linked.add(peer)
        if peer in self._unanswered:
            self._ask_around(peer)
        for r in self._registers.values():
            if r.ended is not None:
                if peer in r.untold:
                    self._send((peer,), self._told(r, r.ended))
            elif r.take_at_s is not None:
                self._consider(r)
        for u in (*self._open.values(), *self._ended.values()):
            if u.record.custodians:
                self._custodian_found(u, peer)
                self._arm(u)

    def _fire_register(self, key: str) -> bool:
        """A timer of ours came up. False: it was not ours."""
        if key == _QUARANTINE:
            self._end_quarantine()
            return True
        if not key.startswith(_PREFIX):
            return False
        r = self._registers.get(TaskId(key[len(_PREFIX) :]))
        if r is None:
            return True
        now_s = self._now_s
        if r.ended is not None:
            if now_s >= r.keep_until_s:
                self._forget_register(r)
                return True
            if r.untold and now_s >= r.resend_at_s:
                self._tell_register(r, tuple(r.untold))
        elif r.take_at_s is not None and now_s >= r.take_at_s:
            self._take_over(r)
        elif now_s >= r.heard_s + SILENCE_S:
            self._consider(r)
            if r.take_at_s is None:
                r.heard_s = now_s  # owned here, or not ours to take: look again after another silence
        self._arm_register(r)
        return True

    def _arm_register(self, r: Register) -> None:
        if r.task in self._registers:
            at_s = r.deadline_s(SILENCE_S)
            if r.take_at_s is not None and r.ended is None:
                at_s = r.take_at_s
            self._timers.arm(_key(r.task), at_s)

    # ---- effects

    def _write_register(self, r: Register) -> None:
        if r.task not in self._registers_dirty:
            self._mark += 1
        self._registers_dirty[r.task] = r

    def _note_register(self, r: Register, event: str, peer: NodeId | None = None, facts: tuple[Fact, ...] = ()) -> None:
        self._out.append(Noted(task=r.task, epoch=r.accepted, event=event, peer=peer, facts=facts))

    def _effects(self) -> list[Effect]:
        effects = super()._effects()
        if not self._registers_dirty:
            return effects
        persists: list[Effect] = [
            Persist(table=CUSTODY, task=task, record=None if r is None else r.snapshot(self._now_s))
            for task, r in self._registers_dirty.items()
        ]
        persists.append(Persist(table=MARKS, task=OWN_MARK, record=MarkRecord(mark=self._mark)))
        persists += [
            Persist(table=MARKS, task=TaskId(peer), record=MarkRecord(mark=self._remembered[peer]))
            for peer in sorted(self._remembered_dirty)
        ]
        self._registers_dirty = {}
        self._remembered_dirty = set()
        return persists + effects


_PREFIX: Final = "custody:"
_QUARANTINE: Final = "quarantine"


def _key(task: TaskId) -> str:
    return _PREFIX + task


def _bound(record: TaskRecord) -> bool:
    try:
        return record.task == task_id_of(record.initiator, record.boot, record.nonce)
    except ValueError:
        return False
