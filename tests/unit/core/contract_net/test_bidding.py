"""Offers and awards at the participant: re-pricing, equal epochs, squatters, duplicates, bounds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from meshagent.core.acts import (
    AcceptProposal,
    Acknowledge,
    Cancel,
    Cancelled,
    Cfp,
    Commit,
    Forfeit,
    Inform,
    NotUnderstood,
    Performative,
    Propose,
    Refuse,
    RejectProposal,
    Renew,
    Reserve,
    WorkOutcome,
)
from meshagent.core.contract_net.bidding import REFUSALS_KEPT
from meshagent.core.contract_net.interface import LeaveRequested, Persist, Send, StartWork, StopWork, WorkEnded
from meshagent.core.contract_net.records import Stage
from meshagent.types import Delivery, Epoch, Reason
from tests.support.contract_desk import BOOT, ParticipantDesk
from tests.support.contract_model import node_id, record_of


def call(desk: ParticipantDesk, counter: int = 1, **more: object) -> None:
    act = Cfp(task=desk.task, epoch=desk.epoch(counter), record=desk.record, reply_within_ms=400, **more)  # type: ignore[arg-type]
    desk.hear(act)


def finish(desk: ParticipantDesk, epoch: Epoch, result: bytes = b"result") -> None:
    desk.feed(WorkEnded(task=desk.task, epoch=epoch, outcome=WorkOutcome(result=result)))


# ---- the call


def test_a_call_is_answered_with_the_price_and_holds_nothing() -> None:
    desk = ParticipantDesk()
    desk.bidder.price(1200, 300)
    call(desk)
    offer = desk.one(Propose)
    assert (offer.added_ms, offer.load_ms, offer.holds_result) == (1200, 300, False)
    assert not desk.bidder.held
    assert not desk.of(Persist), "an offer promises nothing"
    assert desk.machine.next_deadline_s() is None


def test_what_cannot_be_done_is_refused_with_its_reason() -> None:
    desk = ParticipantDesk()
    desk.bidder.decline(Reason.BATTERY)
    call(desk)
    refusal = desk.one(Refuse)
    assert (refusal.reason, refusal.detail) == (Reason.BATTERY, "not today")


@pytest.mark.parametrize("denied", ["announce", "perform"])
def test_what_is_not_permitted_is_refused(denied: str) -> None:
    desk = ParticipantDesk()
    desk.denied.add(denied)
    call(desk)
    assert desk.one(Refuse).reason is Reason.PERMISSION
    desk.award()
    assert desk.one(Refuse).reason is Reason.PERMISSION
    assert not desk.bidder.held


def test_task_squat_is_refused_for_the_id_belongs_to_another_initiator() -> None:
    desk = ParticipantDesk()
    mine = record_of(desk.stranger)
    squatted = replace(mine, task=record_of(desk.asker).task)
    for record in (record_of(desk.asker), squatted):
        epoch = Epoch(1, desk.stranger, BOOT)
        desk.hear(Cfp(task=record.task, epoch=epoch, record=record, reply_within_ms=400), desk.stranger)
        assert desk.one(NotUnderstood).reason is Reason.ILLEGAL_NOW
        award = AcceptProposal(
            task=record.task,
            epoch=epoch,
            record=record,
            call_epoch=epoch,
            added_ms=1000,
            load_ms=0,
            plan_version=1,
            lease_ms=2000,
        )
        desk.hear(award, desk.stranger)
        assert desk.one(NotUnderstood)
    assert not desk.bidder.held


def test_an_epoch_of_somebody_else_is_refused() -> None:
    desk = ParticipantDesk()
    act = Cfp(task=desk.task, epoch=desk.epoch(1, desk.stranger), record=desk.record, reply_within_ms=400)
    desk.hear(act)
    assert desk.one(NotUnderstood)


# ---- the award


def test_an_award_is_durable_and_held_before_it_is_confirmed() -> None:
    desk = ParticipantDesk()
    act = desk.award()
    kinds = [type(effect) for effect in desk.last]
    assert kinds.index(Persist) < kinds.index(Send)
    assert desk.one(Reserve).epoch == act.epoch
    assert desk.bidder.held == {desk.task: act.epoch}
    assert desk.notes("reserve")[0]["changed"] is False


def test_an_award_needs_no_memory_of_a_call() -> None:
    desk = ParticipantDesk()
    desk.award()
    assert desk.sent(Reserve)


def test_a_bid_that_has_gone_stale_is_refused_with_the_new_price() -> None:
    desk = ParticipantDesk()
    desk.bidder.price(1500, 400)
    desk.award(added_ms=1000, load_ms=0)
    refusal = desk.one(Refuse)
    assert (refusal.reason, refusal.added_ms, refusal.load_ms) == (Reason.STALE_BID, 1500, 400)
    assert not desk.bidder.held
    assert not desk.of(Persist)


@pytest.mark.parametrize(("now", "reserved"), [(1050, True), (1051, False), (10, True)])
def test_a_price_may_drift_within_its_tolerance(now: int, reserved: bool) -> None:
    desk = ParticipantDesk()
    desk.bidder.price(now)
    desk.award(added_ms=1000)
    assert bool(desk.sent(Reserve)) is reserved


def test_a_refused_award_is_refused_again_without_a_fresh_decision() -> None:
    desk = ParticipantDesk()
    desk.bidder.price(9000)
    act = desk.award()
    first = desk.one(Refuse)
    desk.bidder.price(1000)
    desk.hear(act)
    assert desk.one(Refuse) == first


def test_remembered_refusals_are_bounded() -> None:
    desk = ParticipantDesk()
    desk.bidder.decline(Reason.BUSY)
    for counter in range(1, REFUSALS_KEPT + 100):
        desk.award(counter)
    assert len(desk.machine._refused) == REFUSALS_KEPT


def test_an_award_that_comes_again_gets_the_same_reservation_and_holds_once() -> None:
    desk = ParticipantDesk()
    act = desk.award()
    until_s = desk.machine.next_deadline_s()
    desk.now_s += 0.3
    desk.hear(replace(act, within_ms=5))
    assert desk.sent(Reserve)
    assert not desk.of(Persist)
    assert desk.machine.next_deadline_s() == until_s, "the lease counts from the first sending"


def test_equal_epoch_with_different_content_is_refused() -> None:
    desk = ParticipantDesk()
    act = desk.award()
    desk.hear(replace(act, lease_ms=60_000))
    assert desk.one(NotUnderstood).reason is Reason.ILLEGAL_NOW
    other = replace(act, record=replace(act.record, spec=b"something else"))
    desk.hear(other)
    assert desk.one(NotUnderstood)
    contract = desk.machine.find(desk.task)
    assert contract is not None
    assert contract.lease_s == 2.0


def test_a_higher_epoch_replaces_a_reservation() -> None:
    desk = ParticipantDesk()
    desk.award(1)
    newer = desk.award(2)
    assert desk.one(Reserve).epoch == newer.epoch
    assert desk.bidder.held == {desk.task: newer.epoch}
    desk.hear(Commit(task=desk.task, epoch=desk.epoch(1)))
    assert not desk.of(StartWork)
    assert desk.one(Cancelled).epoch == desk.epoch(1)


def test_a_lower_epoch_is_refused_with_the_one_that_was_seen() -> None:
    desk = ParticipantDesk()
    desk.award(5)
    desk.award(3)
    refusal = desk.one(Refuse)
    assert (refusal.reason, refusal.seen) == (Reason.STALE_EPOCH, desk.epoch(5))
    call(desk, 4)
    assert desk.one(Refuse).reason is Reason.STALE_EPOCH


def test_a_reservation_without_commit_is_given_back_when_its_lease_is_over() -> None:
    desk = ParticipantDesk()
    act = desk.award()
    desk.after(2.0)
    assert desk.one(Forfeit).reason is Reason.LEASE_LOST
    assert not desk.bidder.held
    desk.hear(Commit(task=desk.task, epoch=act.epoch))
    assert not desk.of(StartWork)
    assert desk.sent(Forfeit), "the stored answer"


def test_a_commit_that_was_not_told_the_time_is_late_all_the_same() -> None:
    desk = ParticipantDesk()
    act = desk.award()
    desk.now_s += 2.0
    desk.hear(Commit(task=desk.task, epoch=act.epoch))
    assert not desk.of(StartWork)


@pytest.mark.parametrize("terms", [{"lease_ms": 0}, {"lease_ms": 1 << 40}, {"checkpoint_version": 1 << 62}])
def test_terms_that_no_initiator_gives_are_not_understood(terms: dict[str, Any]) -> None:
    desk = ParticipantDesk()
    desk.award(**terms)
    assert desk.sent(NotUnderstood)
    assert not desk.bidder.held


def test_a_rejection_frees_nothing_for_nothing_was_held() -> None:
    desk = ParticipantDesk()
    call(desk)
    desk.hear(RejectProposal(task=desk.task, epoch=desk.epoch()))
    assert not desk.last


# ---- a task that is in hand here already


def test_a_call_for_work_in_hand_brings_a_renewal_so_that_it_can_be_adopted() -> None:
    desk = ParticipantDesk()
    desk.working(record=record_of(desk.asker, delivery=Delivery.AT_LEAST_ONCE))
    call(desk, 2)
    assert desk.one(Renew).epoch == desk.epoch(1)
    assert not desk.sent(Propose)


def test_a_call_for_at_most_once_work_in_hand_is_refused() -> None:
    desk = ParticipantDesk()
    desk.working()
    call(desk, 2)
    assert desk.one(Refuse).reason is Reason.BUSY


def test_an_award_for_repeatable_work_in_hand_starts_nothing_twice() -> None:
    desk = ParticipantDesk()
    desk.working(record=record_of(desk.asker, delivery=Delivery.AT_LEAST_ONCE))
    desk.award(2, desk.record)
    assert desk.one(Renew).epoch == desk.epoch(1)
    assert not desk.sent(Reserve)


def test_a_higher_award_stops_at_most_once_work_before_anything_new_begins() -> None:
    desk = ParticipantDesk()
    epoch = desk.working()
    desk.award(2)
    assert desk.of(StopWork)[0].reason is Reason.STALE_EPOCH
    assert desk.one(Refuse).reason is Reason.BUSY
    call(desk, 3)
    assert desk.one(Refuse).reason is Reason.BUSY
    desk.feed(WorkEnded(task=desk.task, epoch=epoch, outcome=WorkOutcome(reason=Reason.STALE_EPOCH)))
    desk.award(3)
    assert desk.sent(Reserve)


def test_a_finished_task_answers_calls_and_awards_with_its_result() -> None:
    desk = ParticipantDesk()
    epoch = desk.working()
    finish(desk, epoch)
    desk.hear(Acknowledge(task=desk.task, epoch=epoch, act=Performative.INFORM))
    call(desk, 2)
    assert desk.one(Inform).result == b"result"
    desk.award(3)
    assert desk.one(Inform).epoch == epoch


# ---- one piece of work, two askers


def test_the_same_work_for_another_asker_is_a_duplicate() -> None:
    desk = ParticipantDesk()
    mine, theirs = record_of(desk.asker, key="pump-7"), record_of(node_id(1), key="pump-7")
    desk.award(record=mine)
    epoch = Epoch(1, node_id(1), BOOT)
    desk.hear(Cfp(task=theirs.task, epoch=epoch, record=theirs, reply_within_ms=400), node_id(1))
    refusal = desk.one(Refuse)
    assert (refusal.reason, refusal.duplicate_of) == (Reason.DUPLICATE, mine.task)
    desk.award(record=theirs)
    assert desk.one(Refuse).duplicate_of == mine.task


def test_of_two_calls_at_the_same_moment_the_smaller_task_goes_on_at_every_participant() -> None:
    first, second = sorted(
        (record_of(node_id(1), 1, key="pump-7"), record_of(node_id(2), 2, key="pump-7")), key=lambda r: r.task
    )
    for order in ((first, second), (second, first)):
        desk = ParticipantDesk()
        for record in order:
            epoch = Epoch(1, record.initiator, BOOT)
            desk.hear(Cfp(task=record.task, epoch=epoch, record=record, reply_within_ms=400), record.initiator)
        desk.award(record=second)
        assert desk.one(Refuse).duplicate_of == first.task
        desk.award(record=first)
        assert desk.sent(Reserve)


def test_a_rival_whose_asker_fell_silent_holds_nobody_up() -> None:
    first, second = sorted(
        (record_of(node_id(1), 1, key="pump-7"), record_of(node_id(2), 2, key="pump-7")), key=lambda r: r.task
    )
    desk = ParticipantDesk()
    epoch = Epoch(1, first.initiator, BOOT)
    desk.hear(Cfp(task=first.task, epoch=epoch, record=first, reply_within_ms=400), first.initiator)
    desk.now_s += 1.1
    desk.award(record=second)
    assert desk.sent(Reserve)


def test_another_kind_or_another_key_is_no_duplicate() -> None:
    desk = ParticipantDesk()
    desk.award(record=record_of(desk.asker, 1, key="pump-7"))
    for other in (
        record_of(desk.asker, 2, key="pump-8"),
        record_of(desk.asker, 3, key="pump-7", kind="other.v1"),
        record_of(desk.asker, 4),
    ):
        desk.award(record=other)
        assert desk.sent(Reserve)


def test_done_already_is_offered_and_handed_over_at_once() -> None:
    desk = ParticipantDesk()
    mine, theirs = record_of(desk.asker, key="pump-7"), record_of(node_id(1), key="pump-7")
    done = desk.working(record=mine)
    finish(desk, done, b"it rattles")
    desk.hear(Acknowledge(task=mine.task, epoch=done, act=Performative.INFORM))
    epoch = Epoch(1, node_id(1), BOOT)
    desk.hear(Cfp(task=theirs.task, epoch=epoch, record=theirs, reply_within_ms=400), node_id(1))
    assert desk.one(Propose).holds_result
    desk.award(record=theirs)
    assert desk.one(Inform).result == b"it rattles"
    assert not desk.sent(Reserve)
    assert isinstance(desk.last[0], Persist)
    desk.until_due()
    assert desk.one(Inform).task == theirs.task, "resent until acknowledged, as any result"


def test_a_result_answers_its_key_for_a_while_and_then_the_work_is_done_again() -> None:
    desk = ParticipantDesk(answers_key_s=60.0)
    done = desk.working(record=record_of(desk.asker, key="pump-7"))
    finish(desk, done, b"it rattles")
    desk.hear(Acknowledge(task=desk.task, epoch=done, act=Performative.INFORM))
    desk.now_s += 59.0
    desk.award(record=record_of(node_id(1), 1, key="pump-7"))
    assert desk.one(Inform).result == b"it rattles"
    desk.now_s += 2.0
    desk.award(record=record_of(node_id(2), 2, key="pump-7"))
    assert desk.sent(Reserve), "who asks a minute later wants to know how it is now"


def test_work_that_was_given_back_is_no_duplicate_any_more() -> None:
    desk = ParticipantDesk()
    epoch = desk.working(record=record_of(desk.asker, key="pump-7"))
    outcome = WorkOutcome(given_back=True, reason=Reason.GIVEN_BACK)
    desk.feed(WorkEnded(task=desk.task, epoch=epoch, outcome=outcome))
    desk.award(record=record_of(node_id(1), key="pump-7"))
    assert desk.sent(Reserve)


# ---- bounds


def test_a_full_table_refuses_new_work_and_says_how_full() -> None:
    desk = ParticipantDesk(max_contracts=2)
    desk.award(record=record_of(desk.asker, 1))
    desk.award(record=record_of(desk.asker, 2))
    desk.award(record=record_of(desk.stranger, 3))
    refusal = desk.one(Refuse)
    assert refusal.reason is Reason.BUSY
    assert "2 contracts" in refusal.detail


def test_tombstones_give_way_to_new_work_oldest_first() -> None:
    desk = ParticipantDesk(max_contracts=2)
    for number in (1, 2):
        epoch = desk.working(record=record_of(desk.asker, number))
        finish(desk, epoch)
        desk.hear(Acknowledge(task=desk.task, epoch=epoch, act=Performative.INFORM))
    desk.award(record=record_of(desk.asker, 3))
    assert desk.sent(Reserve)
    assert len(list(desk.machine.contracts())) == 2
    assert desk.machine.find(record_of(desk.asker, 1).task) is None
    assert len(desk.journal) == 2


def test_a_leaving_node_bids_no_more() -> None:
    desk = ParticipantDesk()
    desk.feed(LeaveRequested())
    call(desk)
    assert desk.one(Refuse).reason is Reason.DRAINING
    desk.award()
    assert desk.one(Refuse).reason is Reason.DRAINING


# ---- tombstones of cancels


def test_a_cancel_that_overtakes_its_award_absorbs_it() -> None:
    desk = ParticipantDesk()
    desk.hear(Cancel(task=desk.task, epoch=desk.epoch(2)))
    assert desk.one(Cancelled).epoch == desk.epoch(2)
    assert isinstance(desk.last[0], Persist)
    for counter in (1, 2):
        desk.award(counter)
        assert not desk.sent(Reserve)
        desk.hear(Commit(task=desk.task, epoch=desk.epoch(counter)))
        assert not desk.of(StartWork)
    desk.award(3)
    assert desk.sent(Reserve)


def test_the_tombstone_of_a_cancel_outlives_a_restart() -> None:
    desk = ParticipantDesk()
    desk.hear(Cancel(task=desk.task, epoch=desk.epoch(2)))
    desk.restart()
    desk.award(2)
    assert desk.one(Cancelled).epoch == desk.epoch(2)
    assert not desk.bidder.held


def test_a_tombstone_set_by_a_stranger_stands_in_nobodys_way() -> None:
    desk = ParticipantDesk()
    desk.hear(Cancel(task=desk.task, epoch=desk.epoch(9, desk.stranger)), desk.stranger)
    call(desk)
    assert desk.sent(Propose)
    desk.award()
    assert desk.sent(Reserve)
    contract = desk.machine.find(desk.task)
    assert contract is not None
    assert contract.stage is Stage.RESERVED
