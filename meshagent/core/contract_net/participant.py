"""The participant: bids, reserves, works under a lease, stops before it ends, and reports until it is heard.

One machine in four concerns, each building on the one before: `participant_base`, `reporting`, `working`, `bidding`;
here stand its inputs and its time. Absent on purpose: pricing (the `Bidder`), running handlers (the executor),
transport, persistence and clocks. The rules named in comments are those of PROTOCOL-DESIGN.

    award -> RESERVED --commit within the lease--> EXECUTING --work ended--> REPORTING --acknowledged--> CLOSED
             RESERVED --no commit, leaving, restart--> REPORTING (forfeit)      RESERVED --cancel--> CLOSED
            EXECUTING --lease over (at_most_once), cancel, leaving, higher award--> STOPPING
             STOPPING --work ended--> REPORTING (result or forfeit), CLOSED (cancelled),
                                      IN_DOUBT (past the point of no return and no result)
            EXECUTING --restart--> REPORTING (forfeit), past the point of no return IN_DOUBT
             IN_DOUBT --acknowledged, a higher call or award--> CLOSED
             award of work done for another asker (kind, key) -> REPORTING (its result)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from meshagent.core.acts import PERFORMATIVE_OF, AcceptProposal, Act, Cancel, Cfp, Performative, Refuse
from meshagent.core.contract_net.authority import PARTICIPANT, Ruling
from meshagent.core.contract_net.bidding import Bidding
from meshagent.core.contract_net.contract import Contract
from meshagent.core.contract_net.interface import (
    ActReceived,
    Bidder,
    CheckpointTaken,
    ContractConfig,
    Effect,
    LeaveRequested,
    ParticipantInput,
    PeerFound,
    PeerLost,
    PointOfNoReturnReached,
    ProgressMade,
    TimePassed,
    WorkEnded,
)
from meshagent.core.contract_net.records import ContractRecord, Report, Stage
from meshagent.core.ports import Authority
from meshagent.types import NodeId, Reason, TaskId


class Participant(Bidding):
    """One node's side of all tasks that others (and this node itself) award to it.

    Args:
        me: this node.
        boot: this boot, 16 bytes, echoed by grants.
        config: timing and bounds.
        bidder: prices tasks and holds their resources.
        authority: who may announce what, and what this node may perform.
    """

    def __init__(self, me: NodeId, boot: bytes, config: ContractConfig, bidder: Bidder, authority: Authority) -> None:
        super().__init__(me, boot, config, bidder, authority)
        self._hearers: dict[Performative, Callable[[Contract, Any], None]] = {
            Performative.REJECT_PROPOSAL: self._hear_rejection,
            Performative.COMMIT: self._hear_commit,
            Performative.RENEWED: self._hear_renewed,
            Performative.CANCEL: self._hear_cancel,
            Performative.ADOPT: self._hear_adopt,
            Performative.POINT_OF_NO_RETURN_RECORDED: self._hear_recorded,
            Performative.QUERY_STATUS: self._hear_query,
            Performative.ACKNOWLEDGE: self._hear_acknowledge,
            Performative.NOT_UNDERSTOOD: self._hear_not_understood,
        }

    # ---- the machine

    def handle(self, event: ParticipantInput, *, now_s: float) -> list[Effect]:
        """What follows from `event`. What was due before it is done first, so no grant revives a lease that is over."""
        self._now_s = now_s
        self._pass_time()
        match event:
            case ActReceived():
                self._receive(event.peer, event.act)
            case WorkEnded():
                self._work_ended(event)
            case ProgressMade():
                c = self._running(event.task, event.epoch)
                if c is not None:
                    c.progress_permille = max(0, min(1000, event.progress_permille))
                    c.note = event.note
            case CheckpointTaken():
                self._checkpoint_taken(event)
            case PointOfNoReturnReached():
                self._point_of_no_return_reached(event)
            case PeerFound():
                self._peer_found(event.peer)
            case LeaveRequested():
                self._leave()
            case PeerLost() | TimePassed():
                pass  # the lease says how long to go on without the initiator
        return self._effects()

    def next_deadline_s(self) -> float | None:
        """When `TimePassed` is due; None: nothing to wait for."""
        return self._timers.next_s()

    def restore(self, records: Iterable[ContractRecord], now_s: float) -> list[Effect]:
        """Take up what the journal holds. Call once, before anything else.

        Nothing runs after a restart: contracts are given back, or in doubt past their point of no return (rule 5).
        """
        self._now_s = now_s
        for saved in records:
            c = Contract.restored(saved)
            self._contracts[c.task] = c
            if c.active:
                if c.pnr:
                    self._enter_doubt(c, Reason.RESTARTED)
                else:
                    self._report(c, Report(act=Performative.FORFEIT, epoch=c.epoch, reason=Reason.RESTARTED))
                self._note(c, "restarted", (("in_doubt", c.pnr),))
            elif c.stage is Stage.REPORTING:
                self._report(c, c.report)
            elif c.stage is Stage.CLOSED:
                self._bury(c)
                if c.record is None:
                    self._bury_bare(c)
            if c.task not in self._contracts:
                continue
            if c.active or c.has_result or c.stage is Stage.IN_DOUBT:
                c.answers_until_s = now_s + self._config.answers_key_s
                self._index(c)
            self._arm(c)
        return self._effects()

    # ---- questions

    def find(self, task: TaskId) -> Contract | None:
        """For looking at (`tasks`, `status`), never for changing."""
        return self._contracts.get(task)

    def contracts(self) -> Iterable[Contract]:
        """All contracts and tombstones."""
        return self._contracts.values()

    @property
    def unsettled_count(self) -> int:
        """Contracts that hold resources, may run, or whose report nobody has acknowledged yet."""
        return sum(c.active or c.stage is Stage.REPORTING for c in self._contracts.values())

    # ---- time

    def _pass_time(self) -> None:
        while (key := self._timers.pop_due(self._now_s)) is not None:
            c = self._contracts.get(TaskId(key))
            if c is not None:
                self._fire(c)
                if c.task in self._contracts:
                    self._arm(c)

    def _fire(self, c: Contract) -> None:
        now_s = self._now_s
        match c.stage:
            case Stage.RESERVED:
                if now_s >= c.lease_until_s:
                    self._note(c, "lease_ended", (("why", "no commit within the lease"),))
                    self._has_lapsed(c.initiator)
                    self._release(c)
                    self._report(c, Report(act=Performative.FORFEIT, epoch=c.epoch, reason=Reason.LEASE_LOST))
            case Stage.EXECUTING:
                if not c.lease_ended and now_s >= c.lease_until_s:
                    self._lease_over(c)
                if c.stage is Stage.EXECUTING:
                    if now_s >= c.renew_at_s:
                        self._renew(c)
                    if (c.pnr_wanted or c.checkpoint_due) and now_s >= c.resend_at_s:
                        self._say_again(c)
            case Stage.REPORTING:
                if now_s >= c.keep_until_s:
                    self._forget(c)
                elif now_s >= c.resend_at_s:
                    self._send_report(c)
            case Stage.CLOSED:
                if now_s >= c.keep_until_s:
                    self._forget(c)
            case _:
                pass

    # ---- acts

    def _receive(self, peer: NodeId, act: Act) -> None:
        performative = PERFORMATIVE_OF[type(act)]
        c = self._contracts.get(act.task)
        if c is not None and c.initiator != peer:
            if not (isinstance(act, AcceptProposal | Cfp) and self._is_squat(peer, c, act)):
                self._illegal(peer, act, "the task belongs to somebody else")
                return
            # A tombstone that somebody else has put on this id stands in nobody's way.
            self._forget(c)
            c = None
        if act.epoch.owner != peer and performative is not Performative.NOT_UNDERSTOOD:
            self._illegal(peer, act, "the epoch belongs to somebody else")
            return
        ruling = PARTICIPANT.get((performative, None if c is None else c.stage), Ruling.ILLEGAL)
        if ruling is Ruling.ILLEGAL:
            self._illegal(peer, act, "not in this state")
        elif ruling is Ruling.HEAR:
            if isinstance(act, Cfp):
                self._hear_cfp(peer, c, act)
            elif isinstance(act, AcceptProposal):
                self._hear_award(peer, c, act)
            elif c is not None:
                self._hearers[performative](c, act)
            elif isinstance(act, Cancel):
                self._cancel_unknown(peer, act)
            else:
                self._send(peer, Refuse(task=act.task, epoch=act.epoch, reason=Reason.UNKNOWN_TASK))
            known = self._contracts.get(act.task)
            if known is not None:
                self._arm(known)

    def _is_squat(self, peer: NodeId, c: Contract, act: AcceptProposal | Cfp) -> bool:
        """Whether the tombstone `c` was put by somebody whom the task's id does not name."""
        return c.record is None and self._is_bound(peer, act)

    # ---- peers

    def _peer_found(self, peer: NodeId) -> None:
        for c in self._contracts.values():
            if c.initiator != peer:
                continue
            if c.stage is Stage.EXECUTING:
                self._renew(c)
                if c.pnr_wanted or c.checkpoint_due:
                    c.resend_delay_s = 0.0
                    self._say_again(c)
            elif c.stage is Stage.REPORTING:
                c.resend_delay_s = 0.0
                self._send_report(c)
            else:
                continue
            self._arm(c)

    def _leave(self) -> None:
        """Hand everything back. Bids are refused from now on."""
        self._draining = True
        for c in list(self._contracts.values()):
            if c.stage is Stage.RESERVED:
                self._release(c)
                self._report(c, Report(act=Performative.FORFEIT, epoch=c.epoch, reason=Reason.DRAINING))
            elif c.stage is Stage.EXECUTING:
                self._stop(c, Reason.DRAINING)
            else:
                continue
            self._arm(c)
