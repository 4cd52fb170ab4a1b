"""Taps inside a whole node: what its machines decided, told to the watcher.

They sit between the machines and everything else and change nothing: without a watcher a `WatchedDriver` is a driver.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from meshagent.core.acts import AcceptProposal, Adopt, Decline, Offer, Reserve
from meshagent.core.contract_net.clearing import within_tolerance
from meshagent.core.contract_net.interface import (
    Effect,
    GrantPointOfNoReturn,
    LeaseMoved,
    Persist,
    Send,
    StartWork,
    Submit,
    TaskSubmitted,
    WorkEnded,
)
from meshagent.core.contract_net.records import ContractRecord
from meshagent.runtime.driver import Driver
from meshagent.types import Epoch, TaskId
from meshagent.virtual.invariants import Watcher
from meshagent.virtual.kernel import Process


class WatchedDriver(Driver):
    """A driver that tells the watcher what its machines decided; decides nothing itself."""

    def __init__(self, **ports: Any) -> None:
        super().__init__(**ports)
        self._follow_ups: list[TaskId] = []
        self._reserved: set[Epoch] = set()

    def _seen_by(self) -> tuple[Process, Watcher] | None:
        process = getattr(self._journal, "owner", None)
        watcher = getattr(process, "watcher", None)
        if not isinstance(process, Process) or not isinstance(watcher, Watcher):
            return None
        return process, watcher

    def feed(self, event: Any) -> None:
        seen = self._seen_by()
        if seen is not None:
            process, watcher = seen
            if isinstance(event, TaskSubmitted):
                watcher.submitted(event.record, process.name)
            elif isinstance(event, WorkEnded):
                watcher.work_ended(process, event.task)
        super().feed(event)

    def _carry_out(self, effects: Iterable[Effect], turn: Any, now_s: float) -> None:
        seen = self._seen_by()
        if seen is not None:
            effects = list(effects)
            process, watcher = seen
            for effect in effects:
                if isinstance(effect, Send):
                    act = effect.act
                    if isinstance(act, AcceptProposal | Adopt):
                        watcher.awarded(self.me, act.task, act.epoch, effect.to[0])
                    elif isinstance(act, Reserve):
                        self._priced_now(process, watcher, act)
                elif isinstance(effect, Submit):
                    watcher.submitted(effect.record, process.name)
                    self._follow_ups.append(effect.record.task)
                elif isinstance(effect, Persist) and isinstance(effect.record, ContractRecord):
                    watcher.heard(process, effect.task, effect.record.fence)
        super()._carry_out(effects, turn, now_s)

    def _priced_now(self, process: Process, watcher: Watcher, act: Reserve) -> None:
        """What was reserved must be what it costs now, whatever was bid; asked of the plan itself."""
        contract = self.participant.find(act.task)
        if contract is None or contract.award is None or act.epoch in self._reserved:
            return
        self._reserved.add(act.epoch)
        award = contract.award
        within_s = None if award.within_ms is None else award.within_ms / 1000
        answer = self._bidder.bid(award.record, within_s, purpose="call")
        tolerance = self._config.contract.award_tolerance
        if isinstance(answer, Decline):
            watcher.stale_reservation(process, act.task, answer.detail)
        elif not within_tolerance((award.added_ms, award.load_ms), (answer.added_ms, answer.load_ms), tolerance):
            watcher.stale_reservation(process, act.task, _differs(award, answer))

    def _tell(self, turn: Any) -> None:
        seen = self._seen_by()
        if seen is not None:
            process, watcher = seen
            for task in self._follow_ups:
                watcher.accepted(task)  # committed together with the result
            self._follow_ups.clear()
            for order in turn.orders:
                if isinstance(order, StartWork):
                    watcher.work_started(process, order.record, order.epoch, order.lease_until_s)
                elif isinstance(order, LeaseMoved):
                    watcher.lease_moved(process, order.task, order.epoch, order.lease_until_s)
                elif isinstance(order, GrantPointOfNoReturn):
                    watcher.granted(process, order.task)
            for change in turn.changes:
                watcher.changed(process, change.task, change.state, change.result, change.reason)
        super()._tell(turn)


def _differs(award: AcceptProposal, answer: Offer) -> str:
    bid = f"{award.added_ms} ms onto {award.load_ms} ms"
    return f"{bid} were bid, now it is {answer.added_ms} ms onto {answer.load_ms} ms"
