"""What all concerns of the initiator share: its tables, its effects, and the one place where a phase changes."""

from __future__ import annotations

from collections import OrderedDict
from random import Random

from meshagent.core.acts import PERFORMATIVE_OF, Acknowledge, Act, Cancel, NotUnderstood, Performative, QueryStatus
from meshagent.core.contract_net.authority import NoteBudget
from meshagent.core.contract_net.interface import ContractConfig, Directory, Effect, Noted, Persist, Send, TaskChanged
from meshagent.core.contract_net.records import INITIATED, Phase
from meshagent.core.contract_net.timers import Timers
from meshagent.core.contract_net.undertaking import Undertaking
from meshagent.types import Epoch, NodeId, Reason, TaskId

Fact = tuple[str, str | int | float | bool | None]
"""One fact of a note."""


class InitiatorBase:
    """State and effects; no decisions."""

    def __init__(self, me: NodeId, boot: bytes, config: ContractConfig, rng: Random, directory: Directory) -> None:
        self._me = me
        self._boot = boot
        self._config = config
        self._rng = rng
        self._directory = directory
        self._open: dict[TaskId, Undertaking] = {}
        self._ended: OrderedDict[TaskId, Undertaking] = OrderedDict()
        self._children: dict[TaskId, dict[TaskId, None]] = {}
        self._negotiated: set[TaskId] = set()
        self._timers = Timers()
        self._budget = NoteBudget()
        self._now_s = 0.0
        self._dirty: dict[TaskId, Undertaking | None] = {}
        self._out: list[Effect] = []

    def _enter(self, u: Undertaking, phase: Phase, *, persist: bool = True) -> None:
        """The one place where a task changes its phase."""
        if phase is Phase.CALLING or phase is Phase.AWARDING or (phase is Phase.COMMITTED and not u.heard):
            self._negotiated.add(u.task)
        else:
            self._negotiated.discard(u.task)
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

    @property
    def negotiated(self) -> int:
        """Tasks on their way to a lease, or just there: a driver paces its turns by how many."""
        return len(self._negotiated)

    def _arm(self, u: Undertaking) -> None:
        self._timers.arm(u.task, u.deadline_s())

    def _again_at(self, u: Undertaking) -> None:
        u.resend_delay_s = min(self._config.resend_max_s, u.resend_delay_s * 2 or self._config.resend_s)
        u.resend_at_s = self._now_s + u.resend_delay_s

    def _within_ms(self, u: Undertaking) -> int | None:
        left_s = u.within_left_s(self._now_s)
        return None if left_s is None else int(left_s * 1000)

    # ---- notes and acts

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

    def _acknowledge(self, u: Undertaking, peer: NodeId, epoch: Epoch, act: Performative, version: int = 0) -> None:
        self._send((peer,), Acknowledge(task=u.task, epoch=epoch, act=act, version=version))

    def _fence(self, u: Undertaking, peer: NodeId, epoch: Epoch) -> None:
        """Stop that epoch at `peer`. Names the peer's own epoch, so that a later award to it stays possible."""
        if peer not in u.noted_fenced:
            u.noted_fenced.add(peer)
            self._note(u, "fenced", peer, (("fenced_epoch", epoch.counter), ("state", u.state.value)))
        reason = u.reason if u.terminal and u.reason is not None else Reason.STALE_EPOCH
        self._send((peer,), Cancel(task=u.task, epoch=epoch, reason=reason, detail=f"the task is {u.state.value}"))

    def _query(self, u: Undertaking) -> None:
        self._again_at(u)
        if u.holder is not None:
            self._send((u.holder,), QueryStatus(task=u.task, epoch=u.awards.get(u.holder, u.epoch)))

    def _illegal(self, u: Undertaking, peer: NodeId, act: Act, why: str) -> None:
        performative = PERFORMATIVE_OF[type(act)]
        if self._budget.spend(self._now_s):
            self._note(u, "not_understood", peer, (("act", performative.value), ("why", why)))
        self._reply_not_understood(peer, act, performative, Reason.ILLEGAL_NOW, why)

    def _reply_not_understood(
        self, peer: NodeId, act: Act, performative: Performative, reason: Reason, detail: str
    ) -> None:
        self._send(
            (peer,),
            NotUnderstood(task=act.task, epoch=act.epoch, act=performative, reason=reason, detail=detail),
            urgent=False,
        )

    # ---- effects

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
