"""What all concerns of the participant share: its tables and bounds, its effects, and the renewal."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Final

from meshagent.core.acts import PERFORMATIVE_OF, Act, NotUnderstood, Performative, Refuse, Renew
from meshagent.core.contract_net.authority import NoteBudget
from meshagent.core.contract_net.contract import SENT_KEPT, Contract
from meshagent.core.contract_net.interface import Bidder, ContractConfig, Effect, Noted, Persist, Send, StopWork
from meshagent.core.contract_net.records import CONTRACTED, Stage
from meshagent.core.contract_net.timers import Timers
from meshagent.core.ports import Authority
from meshagent.types import Epoch, NodeId, Reason, TaskId

Fact = tuple[str, str | int | float | bool | None]
"""One fact of a note."""
MAX_LAPSES: Final = 16
LAPSES_HOLD_S: Final = 30.0
"""An initiator that crashed leaves some reservations uncommitted; one that leaves so many within so long is refused for
the rest of it, else it could hold every place of the queue by awarding alone."""
HOARDS_HOLD_S: Final = 1.0
"""Counting 10,000 contracts takes a millisecond; more often would be an attack of its own."""
RENEWALS_A_LEASE: Final = 3.2
"""A lease shorter than ours is renewed so often, whatever `renew_s` says: two may be lost."""


class ParticipantBase:
    """State, bounds and effects; no decisions."""

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
        self._called: OrderedDict[tuple[str, str], tuple[TaskId, float]] = OrderedDict()
        """Key -> the task that goes on, and when it was last called."""
        self._refused: OrderedDict[tuple[TaskId, Epoch], Refuse] = OrderedDict()
        self._sequence = 0
        self._draining = False
        self._timers = Timers()
        self._budget = NoteBudget()
        self._refusal_budget = NoteBudget()
        self._bare: OrderedDict[TaskId, None] = OrderedDict()
        """Tombstones of cancels that overtook their award, oldest first: all that is known of such a task is that
        somebody named it."""
        self._hoards: Counter[NodeId] = Counter()
        self._lapsed: Counter[NodeId] = Counter()
        self._lapsed_until_s = 0.0
        """Who let how many reservations lapse without a commit, of late."""
        self._hoards_until_s = 0.0
        """Whose open contracts are how many, as counted a moment ago."""
        self._now_s = 0.0
        self._dirty: dict[TaskId, Contract | None] = {}
        self._at_leisure: set[TaskId] = set()
        self._out: list[Effect] = []

    def _enter(self, c: Contract, stage: Stage, *, persist: bool = True) -> None:
        """The one place where a contract changes its stage."""
        c.stage = stage
        if persist:
            self._dirty[c.task] = c

    def _stop(self, c: Contract, reason: Reason) -> None:
        c.stop_reason = reason
        self._enter(c, Stage.STOPPING, persist=False)
        self._out.append(StopWork(task=c.task, epoch=c.epoch, reason=reason))

    def _release(self, c: Contract) -> None:
        self._bidder.release(c.task, c.run_epoch)

    def _arm(self, c: Contract) -> None:
        self._timers.arm(c.task, c.deadline_s())

    def _again_at(self, c: Contract) -> None:
        c.resend_delay_s = min(self._config.resend_max_s, c.resend_delay_s * 2 or self._config.resend_s)
        c.resend_at_s = self._now_s + c.resend_delay_s

    # ---- renewing

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

    def _renew_s(self, c: Contract) -> float:
        return min(self._config.renew_s, c.lease_s / RENEWALS_A_LEASE)

    def _running(self, task: TaskId, epoch: Epoch) -> Contract | None:
        c = self._contracts.get(task)
        return c if c is not None and c.stage is Stage.EXECUTING and c.in_run(epoch) else None

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

    def _hoards_too_many(self, initiator: NodeId) -> bool:
        """Has it so many contracts open, most of them reports that it never acknowledges, that others would find no
        room? Nobody's while there is plenty."""
        if len(self._contracts) - len(self._closed) < max(2, self._config.max_contracts // 4):
            return False
        if self._now_s >= self._hoards_until_s:
            self._hoards = Counter(c.initiator for c in self._contracts.values() if c.stage is not Stage.CLOSED)
            self._hoards_until_s = self._now_s + HOARDS_HOLD_S
        return self._hoards[initiator] >= max(1, self._config.max_contracts // 8)

    def _has_lapsed(self, initiator: NodeId) -> None:
        if self._now_s >= self._lapsed_until_s:
            self._lapsed.clear()
            self._lapsed_until_s = self._now_s + LAPSES_HOLD_S
        self._lapsed[initiator] += 1

    def _lets_lapse(self, initiator: NodeId) -> bool:
        return self._now_s < self._lapsed_until_s and self._lapsed[initiator] >= MAX_LAPSES

    def _bury_bare(self, c: Contract) -> None:
        """Keep few of them: anybody may cancel what never was, and must push out nobody's tombstone by that."""
        self._bare[c.task] = None
        if len(self._bare) > self._config.max_contracts // 8:
            oldest, _ = self._bare.popitem(last=False)
            stale = self._contracts.get(oldest)
            if stale is not None and stale.record is None:
                self._forget(stale)

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

    # ---- notes and acts

    def _note(self, c: Contract, event: str, facts: tuple[Fact, ...] = ()) -> None:
        self._out.append(Noted(task=c.task, epoch=c.epoch, event=event, peer=self._me, facts=facts))

    def _send(self, to: NodeId, act: Act, *, urgent: bool = True) -> None:
        self._out.append(Send(to=(to,), act=act, urgent=urgent))

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

    # ---- effects

    def _effects(self) -> list[Effect]:
        """Snapshots first: one a contract, as it stands after the whole event."""
        out, self._out = self._out, []
        if self._dirty:
            persists: list[Effect] = [
                Persist(
                    table=CONTRACTED,
                    task=task,
                    record=None if c is None else c.snapshot(),
                    urgent=task not in self._at_leisure,
                )
                for task, c in self._dirty.items()
            ]
            self._dirty = {}
            self._at_leisure.clear()
            return persists + out
        return out
