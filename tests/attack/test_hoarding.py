"""A member that takes more than its share of a participant: reservations, unheard reports, tombstones, notes.

It may announce the kind, so no permission stops it; what it takes from others is bounded.
"""

from __future__ import annotations

from meshagent.core.acts import Acknowledge, Cancel, Commit, Forfeit, Performative, Refuse, Reserve, WorkOutcome
from meshagent.core.contract_net.authority import NoteBudget
from meshagent.core.contract_net.interface import StartWork, WorkEnded
from meshagent.core.contract_net.participant_base import LAPSES_HOLD_S, MAX_LAPSES
from meshagent.core.contract_net.records import Stage
from meshagent.types import Reason
from tests.support.contract_desk import BOOT, ParticipantDesk
from tests.support.contract_model import record_of


def test_hoarding_a_reservation_that_is_never_committed_ends_with_our_own_lease_whatever_was_asked() -> None:
    desk = ParticipantDesk(lease_s=2.0)
    desk.award(lease_ms=600_000)
    assert desk.one(Reserve)
    desk.after(2.01)
    assert desk.one(Forfeit).reason is Reason.LEASE_LOST
    assert not desk.bidder.held


def test_hoarding_does_not_shorten_the_long_lease_of_work_that_was_committed() -> None:
    desk = ParticipantDesk(lease_s=2.0)
    act = desk.award(lease_ms=10_000)
    reserved_s = desk.now_s
    desk.after(1.0)
    desk.hear(Commit(task=desk.task, epoch=act.epoch))
    assert desk.of(StartWork)[0].lease_until_s == reserved_s + 10.0


def test_hoarding_an_initiator_that_awards_and_never_commits_is_refused_for_a_while_and_others_are_not() -> None:
    desk = ParticipantDesk(lease_s=1.0)
    for number in range(MAX_LAPSES):
        desk.award(record=record_of(desk.asker, number + 1))
        assert desk.one(Reserve)
    desk.after(1.1)
    desk.award(record=record_of(desk.asker, 99))
    assert desk.one(Refuse).reason is Reason.BUSY
    desk.award(record=record_of(desk.stranger, 1))
    assert desk.one(Reserve)
    desk.after(LAPSES_HOLD_S)
    desk.award(record=record_of(desk.asker, 100))
    assert desk.one(Reserve)


def fill(desk: ParticipantDesk, count: int) -> list[Reason]:
    """So many awards of the asker, each done and none acknowledged; the refusals."""
    refused = []
    for number in range(1, count + 1):
        act = desk.award(record=record_of(desk.asker, number))
        refused += [act.reason for _, act in desk.sent(Refuse)]
        if desk.sent(Reserve):
            desk.hear(Commit(task=act.task, epoch=act.epoch))
            desk.feed(WorkEnded(task=act.task, epoch=act.epoch, outcome=WorkOutcome(result=b"done")))
    return refused


def test_hoarding_reports_that_are_never_acknowledged_leave_room_for_others() -> None:
    desk = ParticipantDesk(max_contracts=80, lease_s=1.0, keep_s=1e6)
    refused = fill(desk, 100)
    assert set(refused) == {Reason.BUSY}
    mine = [c for c in desk.machine.contracts() if c.initiator == desk.asker and c.stage is Stage.REPORTING]
    assert len(mine) <= 80 // 4 + 1
    desk.award(record=record_of(desk.stranger, 1))
    assert desk.one(Reserve)


def test_hoarding_ends_for_an_initiator_that_acknowledges() -> None:
    desk = ParticipantDesk(max_contracts=80, lease_s=1.0, keep_s=1e6)
    assert fill(desk, 100)
    for c in list(desk.machine.contracts()):
        assert c.report is not None
        desk.hear(Acknowledge(task=c.task, epoch=c.report.epoch, act=Performative.INFORM))
    desk.after(1.1)
    desk.award(record=record_of(desk.asker, 999))
    assert desk.one(Reserve)


def cancel(desk: ParticipantDesk, number: int) -> None:
    record = record_of(desk.stranger, number)
    desk.hear(Cancel(task=record.task, epoch=desk.epoch(1, desk.stranger)), desk.stranger)


def test_hoarding_cancels_of_tasks_that_never_were_push_out_nobodys_tombstone() -> None:
    desk = ParticipantDesk(max_contracts=80)
    epoch = desk.working()
    desk.hear(Cancel(task=desk.task, epoch=epoch))
    assert desk.machine.find(desk.task) is not None
    for number in range(1, 400):
        cancel(desk, number)
    assert desk.machine.find(desk.task) is not None
    assert len(list(desk.machine.contracts())) <= 80 // 8 + 1
    assert len(desk.journal) <= 80 // 8 + 1
    desk.restart()
    for number in range(400, 500):
        cancel(desk, number)
    assert len(desk.journal) <= 80 // 8 + 1


def test_hoarding_a_cancel_still_absorbs_the_award_that_it_overtook() -> None:
    desk = ParticipantDesk(max_contracts=80)
    for number in range(1, 8):
        cancel(desk, number)
    late = desk.award(record=record_of(desk.stranger, 1))
    assert late.epoch.boot == BOOT
    assert not desk.sent(Reserve)


def test_hoarding_refused_awards_fill_no_journal_with_notes() -> None:
    desk = ParticipantDesk()
    desk.bidder.decline(Reason.BUSY)
    noted = 0
    for number in range(1, 1000):
        desk.award(record=record_of(desk.stranger, number))
        assert desk.one(Refuse).reason is Reason.BUSY
        noted += len(desk.notes("refuse"))
    assert 0 < noted <= NoteBudget.CAPACITY
