"""Work under its lease at the participant, and how it ends: renewals, adoption, stop, report, cancel, restart."""

from __future__ import annotations

import itertools

import pytest

from meshagent.core.acts import (
    Acknowledge,
    Act,
    Adopt,
    Cancel,
    Cancelled,
    Cfp,
    Checkpoint,
    Commit,
    Failure,
    Forfeit,
    Inform,
    NotUnderstood,
    PassPointOfNoReturn,
    Performative,
    PointOfNoReturnRecorded,
    QueryStatus,
    Refuse,
    Renew,
    Renewed,
    Reserve,
    WorkOutcome,
)
from meshagent.core.contract_net.interface import (
    CheckpointTaken,
    GrantPointOfNoReturn,
    LeaseMoved,
    LeaveRequested,
    PeerFound,
    PeerLost,
    Persist,
    PointOfNoReturnReached,
    ProgressMade,
    Send,
    StartWork,
    StopWork,
    Submit,
    WorkEnded,
)
from meshagent.core.contract_net.records import Stage
from meshagent.types import Delivery, Epoch, Reason
from tests.support.contract_desk import ParticipantDesk
from tests.support.contract_model import record_of

ALO = Delivery.AT_LEAST_ONCE


def end(desk: ParticipantDesk, epoch: Epoch, **outcome: object) -> None:
    desk.feed(WorkEnded(task=desk.task, epoch=epoch, outcome=WorkOutcome(**outcome)))  # type: ignore[arg-type]


def grant(desk: ParticipantDesk, renew: Renew, *, boot: bytes | None = None) -> None:
    desk.hear(Renewed(task=desk.task, epoch=renew.epoch, boot=boot or renew.boot, sequence=renew.sequence))


def next_renewal(desk: ParticipantDesk) -> Renew:
    while True:
        desk.until_due()
        if desk.sent(Renew):
            return desk.one(Renew)


def past_no_return(desk: ParticipantDesk, epoch: Epoch) -> None:
    desk.feed(PointOfNoReturnReached(task=desk.task, epoch=epoch))
    desk.hear(PointOfNoReturnRecorded(task=desk.task, epoch=epoch))
    assert desk.of(GrantPointOfNoReturn)


# ---- the lease


def test_the_commit_starts_the_work_with_the_lease_of_the_reservation() -> None:
    desk = ParticipantDesk()
    act = desk.award(within_ms=10_000, checkpoint=b"half", checkpoint_version=4)
    desk.now_s += 0.5
    desk.hear(Commit(task=desk.task, epoch=act.epoch))
    [start] = desk.of(StartWork)
    assert start.lease_until_s == pytest.approx(102.0), "counted from the first sending of Reserve"
    assert start.within_s == pytest.approx(9.5)
    assert (start.checkpoint, start.epoch) == (b"half", act.epoch)
    assert not desk.of(Persist), "a reservation and a running task end alike in a crash"


def test_a_report_is_written_before_it_is_said_and_its_tombstone_at_leisure() -> None:
    desk = ParticipantDesk()
    epoch = desk.working()
    desk.feed(WorkEnded(task=desk.task, epoch=epoch, outcome=WorkOutcome(result=b"done")))
    assert [one.urgent for one in desk.of(Persist)] == [True]
    desk.hear(Acknowledge(task=desk.task, epoch=epoch, act=Performative.INFORM))
    assert [one.urgent for one in desk.of(Persist)] == [False], "after a crash it is reported and acknowledged again"


def test_only_the_first_commit_does_anything() -> None:
    desk = ParticipantDesk()
    epoch = desk.working()
    desk.hear(Commit(task=desk.task, epoch=epoch))
    assert not desk.of(StartWork)
    assert desk.sent(Renew), "the initiator has not heard of us yet"


def test_a_commit_for_an_epoch_that_was_not_awarded_is_not_understood() -> None:
    desk = ParticipantDesk()
    desk.award(1)
    desk.hear(Commit(task=desk.task, epoch=desk.epoch(7)))
    assert desk.one(NotUnderstood).reason is Reason.ILLEGAL_NOW
    assert not desk.of(StartWork)


def test_the_first_renewal_comes_soon_and_the_next_ones_in_time_for_two_to_be_lost() -> None:
    desk = ParticipantDesk()
    desk.working()
    first = next_renewal(desk)
    assert desk.now_s - 100.0 == pytest.approx(0.06)
    times = [desk.now_s]
    for _ in range(3):
        grant(desk, first)
        first = next_renewal(desk)
        times.append(desk.now_s)
    assert all(b - a <= 2.0 / 3 for a, b in itertools.pairwise(times))


def test_short_work_is_done_before_it_would_renew() -> None:
    desk = ParticipantDesk()
    epoch = desk.working()
    assert not desk.sent(Renew)
    end(desk, epoch, result=b"quick")
    assert desk.one(Inform).result == b"quick"


def test_the_lease_counts_from_the_first_sending_of_the_renewal_that_is_echoed() -> None:
    desk = ParticipantDesk()
    desk.working()
    first = next_renewal(desk)
    sent_s = desk.now_s
    next_renewal(desk)
    desk.now_s += 0.1
    grant(desk, first)
    [moved] = desk.of(LeaseMoved)
    assert moved.lease_until_s == pytest.approx(sent_s + 2.0)


def test_an_older_echo_never_shortens_the_lease() -> None:
    desk = ParticipantDesk()
    desk.working()
    first = next_renewal(desk)
    second = next_renewal(desk)
    grant(desk, second)
    assert desk.of(LeaseMoved)
    grant(desk, first)
    assert not desk.of(LeaseMoved)


@pytest.mark.parametrize("wrong", ["boot", "sequence", "epoch"])
def test_a_grant_that_echoes_no_renewal_of_this_boot_extends_nothing(wrong: str) -> None:
    desk = ParticipantDesk()
    desk.working()
    renew = next_renewal(desk)
    desk.hear(
        Renewed(
            task=desk.task,
            epoch=desk.epoch(5) if wrong == "epoch" else renew.epoch,
            boot=b"another-boot-001" if wrong == "boot" else renew.boot,
            sequence=renew.sequence + 1 if wrong == "sequence" else renew.sequence,
        )
    )
    assert not desk.of(LeaseMoved)


def test_at_most_once_work_is_stopped_when_its_lease_is_over_and_then_forfeited() -> None:
    desk = ParticipantDesk()
    epoch = desk.working()
    while not desk.of(StopWork):
        desk.until_due()
    assert desk.now_s == pytest.approx(102.0)
    assert desk.of(StopWork)[0].reason is Reason.LEASE_LOST
    assert not desk.sent(Forfeit), "not before it has stopped"
    assert desk.notes("lease_ended")[0]["renewals"] == 0
    desk.now_s += 0.2
    end(desk, epoch, reason=Reason.LEASE_LOST)
    kinds = [type(effect) for effect in desk.last]
    assert kinds.index(Persist) < kinds.index(Send), "stop, persist, then forfeit"
    assert desk.one(Forfeit).reason is Reason.LEASE_LOST
    assert not desk.bidder.held


def test_a_grant_that_arrives_when_the_lease_is_over_revives_nothing() -> None:
    desk = ParticipantDesk()
    desk.working()
    renew = next_renewal(desk)
    desk.now_s = 102.1
    grant(desk, renew)
    assert not desk.of(LeaseMoved)
    assert desk.of(StopWork)


def test_suspend_past_lease_is_noticed_before_anything_else_is_heard() -> None:
    desk = ParticipantDesk()
    epoch = desk.working()
    desk.now_s += 3600.0
    desk.hear(PointOfNoReturnRecorded(task=desk.task, epoch=epoch))
    assert desk.of(StopWork)
    assert not desk.of(GrantPointOfNoReturn)


def test_repeatable_work_goes_on_without_its_lease_and_gets_it_back() -> None:
    desk = ParticipantDesk()
    desk.working(record=record_of(desk.asker, delivery=ALO))
    desk.after(3.0)
    assert desk.notes("lease_ended")[0]["works_on"] is True
    assert not desk.of(StopWork)
    renew = next_renewal(desk)
    grant(desk, renew)
    assert desk.of(LeaseMoved)


def test_a_lost_initiator_changes_nothing_for_the_lease_says_how_long() -> None:
    desk = ParticipantDesk()
    desk.working()
    desk.feed(PeerLost(peer=desk.asker))
    assert not desk.last


def test_a_found_initiator_hears_at_once() -> None:
    desk = ParticipantDesk()
    epoch = desk.working()
    desk.feed(PeerFound(peer=desk.asker))
    assert desk.sent(Renew)
    end(desk, epoch, result=b"x")
    desk.after(30.0)
    desk.feed(PeerFound(peer=desk.asker))
    assert desk.sent(Inform)
    desk.feed(PeerFound(peer=desk.stranger))
    assert not desk.last


def test_progress_travels_with_the_renewal() -> None:
    desk = ParticipantDesk()
    epoch = desk.working()
    desk.feed(ProgressMade(task=desk.task, epoch=epoch, progress_permille=800, note="reading 2 of 3"))
    renew = next_renewal(desk)
    assert (renew.progress_permille, renew.note) == (800, "reading 2 of 3")


# ---- adoption


def test_adopted_work_goes_on_under_the_new_epoch() -> None:
    desk = ParticipantDesk()
    epoch = desk.working(record=record_of(desk.asker, delivery=ALO))
    desk.hear(Adopt(task=desk.task, epoch=desk.epoch(4), former=epoch))
    assert isinstance(desk.last[0], Persist)
    assert desk.of(LeaseMoved)[0].epoch == desk.epoch(4)
    assert desk.one(Renew).epoch == desk.epoch(4)
    assert not desk.of(StartWork)
    end(desk, epoch, result=b"x")  # the handler still knows the epoch it started under
    assert desk.one(Inform).epoch == desk.epoch(4)


def test_an_adoption_of_what_is_not_held_here_is_not_understood() -> None:
    desk = ParticipantDesk()
    desk.working(counter=3, record=record_of(desk.asker, delivery=ALO))
    desk.hear(Adopt(task=desk.task, epoch=desk.epoch(4), former=desk.epoch(2)))
    assert desk.sent(NotUnderstood)


def test_an_adoption_that_comes_again_brings_a_renewal() -> None:
    desk = ParticipantDesk()
    epoch = desk.working(record=record_of(desk.asker, delivery=ALO))
    act = Adopt(task=desk.task, epoch=desk.epoch(4), former=epoch)
    desk.hear(act)
    desk.hear(act)
    assert desk.one(Renew).epoch == desk.epoch(4)
    assert not desk.of(Persist)


def test_an_adoption_of_finished_work_is_answered_with_its_result() -> None:
    desk = ParticipantDesk()
    epoch = desk.working(record=record_of(desk.asker, delivery=ALO))
    end(desk, epoch, result=b"x")
    desk.hear(Adopt(task=desk.task, epoch=desk.epoch(4), former=epoch))
    assert desk.one(Inform).epoch == epoch


# ---- checkpoints


def test_a_checkpoint_is_durable_here_and_resent_until_acknowledged() -> None:
    desk = ParticipantDesk()
    epoch = desk.working(checkpoint=b"old", checkpoint_version=6)
    desk.feed(CheckpointTaken(task=desk.task, epoch=epoch, state=b"new"))
    assert isinstance(desk.last[0], Persist)
    assert (desk.one(Checkpoint).version, desk.one(Checkpoint).state) == (7, b"new")
    desk.after(0.12)
    assert desk.sent(Checkpoint)
    desk.hear(Acknowledge(task=desk.task, epoch=epoch, act=Performative.CHECKPOINT, version=6))
    desk.after(0.24)
    assert desk.sent(Checkpoint), "an older one was acknowledged"
    desk.hear(Acknowledge(task=desk.task, epoch=epoch, act=Performative.CHECKPOINT, version=7))
    desk.after(0.5)
    assert not desk.sent(Checkpoint)


def test_a_forfeit_carries_the_last_checkpoint() -> None:
    desk = ParticipantDesk()
    epoch = desk.working()
    desk.feed(CheckpointTaken(task=desk.task, epoch=epoch, state=b"half"))
    end(desk, epoch, given_back=True, reason=Reason.GIVEN_BACK, detail="stairs")
    act = desk.one(Forfeit)
    assert (act.checkpoint, act.checkpoint_version, act.detail) == (b"half", 1, "stairs")


# ---- the point of no return


def test_the_point_of_no_return_waits_for_the_record_and_is_durable_here_too() -> None:
    desk = ParticipantDesk()
    epoch = desk.working()
    desk.feed(PointOfNoReturnReached(task=desk.task, epoch=epoch))
    assert desk.one(PassPointOfNoReturn).epoch == epoch
    assert not desk.of(GrantPointOfNoReturn)
    desk.after(0.12)
    assert desk.sent(PassPointOfNoReturn), "asked again until it is recorded"
    desk.hear(PointOfNoReturnRecorded(task=desk.task, epoch=epoch))
    kinds = [type(effect) for effect in desk.last]
    assert kinds.index(Persist) < kinds.index(GrantPointOfNoReturn)
    desk.feed(PointOfNoReturnReached(task=desk.task, epoch=epoch))
    assert desk.of(GrantPointOfNoReturn), "once passed, always passed"


def test_repeatable_work_has_no_such_point() -> None:
    desk = ParticipantDesk()
    epoch = desk.working(record=record_of(desk.asker, delivery=ALO))
    desk.feed(PointOfNoReturnReached(task=desk.task, epoch=epoch))
    assert desk.of(GrantPointOfNoReturn)
    assert not desk.of(Send)


def test_a_record_that_nobody_asked_for_grants_nothing() -> None:
    desk = ParticipantDesk()
    epoch = desk.working()
    desk.hear(PointOfNoReturnRecorded(task=desk.task, epoch=epoch))
    assert not desk.last


def test_work_stopped_past_the_point_of_no_return_is_in_doubt_and_never_forfeited() -> None:
    desk = ParticipantDesk()
    epoch = desk.working()
    past_no_return(desk, epoch)
    desk.after(2.0)
    end(desk, epoch, reason=Reason.LEASE_LOST)
    assert desk.one(Cancelled).in_doubt
    assert not desk.sent(Forfeit)
    desk.hear(QueryStatus(task=desk.task, epoch=epoch))
    assert desk.one(Cancelled).in_doubt


def test_work_that_is_done_while_it_is_being_stopped_is_done() -> None:
    desk = ParticipantDesk()
    epoch = desk.working()
    past_no_return(desk, epoch)
    desk.after(2.0)
    assert desk.of(StopWork)
    end(desk, epoch, result=b"just in time")
    assert desk.one(Inform).result == b"just in time"


def test_a_handler_that_gives_back_by_itself_knows_that_nothing_happened() -> None:
    desk = ParticipantDesk()
    epoch = desk.working()
    past_no_return(desk, epoch)
    end(desk, epoch, given_back=True, reason=Reason.GIVEN_BACK)
    assert desk.sent(Forfeit)


def test_a_doubt_that_was_settled_blocks_the_same_work_no_more() -> None:
    desk = ParticipantDesk()
    epoch = desk.working()
    past_no_return(desk, epoch)
    desk.restart()

    def stage() -> Stage:
        contract = desk.machine.find(desk.task)
        assert contract is not None
        return contract.stage

    assert stage() is Stage.IN_DOUBT
    desk.hear(Acknowledge(task=desk.task, epoch=epoch, act=Performative.INFORM))
    assert stage() is Stage.IN_DOUBT, "an acknowledgement of something else settles nothing"
    desk.hear(Acknowledge(task=desk.task, epoch=epoch, act=Performative.CANCELLED))
    assert stage() is Stage.CLOSED


def test_a_person_may_have_work_in_doubt_done_again_here() -> None:
    desk = ParticipantDesk()
    epoch = desk.working()
    past_no_return(desk, epoch)
    desk.restart()
    assert desk.one(Cancelled).in_doubt
    desk.award(2)
    assert desk.sent(Reserve)


@pytest.mark.parametrize("how", ["a call", "an award", "an acknowledgement"])
def test_a_doubt_is_over_when_the_initiator_goes_on(how: str) -> None:
    desk = ParticipantDesk()
    epoch = desk.working()
    past_no_return(desk, epoch)
    desk.restart()
    desk.bidder.decline(Reason.BATTERY)
    if how == "a call":
        desk.hear(Cfp(task=desk.task, epoch=desk.epoch(2), record=desk.record, reply_within_ms=400))
    elif how == "an award":
        desk.award(2)
    else:
        desk.hear(Acknowledge(task=desk.task, epoch=epoch, act=Performative.CANCELLED))
    contract = desk.machine.find(desk.task)
    assert contract is not None
    assert contract.stage is Stage.CLOSED


# ---- reporting


@pytest.mark.parametrize("kind", ["inform", "failure", "forfeit"])
def test_how_it_ended_is_said_until_acknowledged(kind: str) -> None:
    desk = ParticipantDesk()
    epoch = desk.working()
    act: type[Act]
    if kind == "inform":
        act, performative = Inform, Performative.INFORM
        end(desk, epoch, result=b"x")
    elif kind == "failure":
        act, performative = Failure, Performative.FAILURE
        end(desk, epoch, reason=Reason.ERROR, detail="it broke")
    else:
        act, performative = Forfeit, Performative.FORFEIT
        end(desk, epoch, given_back=True)
    first = desk.one(act)
    gaps = []
    for _ in range(7):
        before_s = desk.now_s
        desk.until_due()
        gaps.append(round(desk.now_s - before_s, 2))
        assert desk.one(act) == first, "the stored answer, always the same"
    assert gaps == [0.12, 0.24, 0.48, 0.96, 1.92, 2.0, 2.0]
    desk.hear(Acknowledge(task=desk.task, epoch=epoch, act=Performative.CHECKPOINT, version=99))
    desk.hear(Acknowledge(task=desk.task, epoch=desk.epoch(9), act=performative))
    assert desk.machine.unsettled_count == 1
    desk.hear(Acknowledge(task=desk.task, epoch=epoch, act=performative))
    assert desk.machine.unsettled_count == 0
    desk.after(10.0)
    assert not desk.last


def test_follow_ups_are_submitted_with_the_result_and_not_without() -> None:
    desk = ParticipantDesk()
    epoch = desk.working()
    follow_up = record_of(desk.me, 9)
    end(desk, epoch, result=b"x", follow_ups=(follow_up,))
    assert [effect.record for effect in desk.of(Submit)] == [follow_up]
    other = desk.working(record=record_of(desk.asker, 2))
    end(desk, other, reason=Reason.ERROR, follow_ups=(follow_up,))
    assert not desk.of(Submit)


def test_a_healthy_contract_writes_three_times() -> None:
    desk = ParticipantDesk()
    act = desk.award()
    writes = len(desk.of(Persist))
    desk.hear(Commit(task=desk.task, epoch=act.epoch))
    writes += len(desk.of(Persist))
    end(desk, act.epoch, result=b"x")
    writes += len(desk.of(Persist))
    desk.hear(Acknowledge(task=desk.task, epoch=act.epoch, act=Performative.INFORM))
    writes += len(desk.of(Persist))
    assert writes == 3


def test_work_that_ended_is_not_ended_twice() -> None:
    desk = ParticipantDesk()
    epoch = desk.working()
    end(desk, epoch, result=b"x")
    end(desk, epoch, reason=Reason.ERROR)
    assert not desk.last


def test_a_result_that_nobody_acknowledges_is_kept_for_keep_s() -> None:
    desk = ParticipantDesk(keep_s=60.0)
    epoch = desk.working()
    end(desk, epoch, result=b"x")
    ended_s = desk.now_s
    while desk.machine.find(desk.task) is not None:
        desk.until_due()
    assert desk.now_s - ended_s == pytest.approx(60.0)
    assert desk.journal == {}


@pytest.mark.parametrize("act", [Performative.INFORM, Performative.FORFEIT])
def test_an_initiator_that_has_forgotten_the_task_is_told_no_more(act: Performative) -> None:
    desk = ParticipantDesk()
    epoch = desk.working()
    end(desk, epoch, **({"result": b"x"} if act is Performative.INFORM else {"given_back": True}))
    desk.hear(NotUnderstood(task=desk.task, epoch=epoch, act=act, reason=Reason.UNKNOWN_TASK))
    assert desk.machine.unsettled_count == 0


def test_work_that_its_initiator_has_forgotten_is_stopped() -> None:
    desk = ParticipantDesk()
    epoch = desk.working(record=record_of(desk.asker, delivery=ALO))
    desk.hear(NotUnderstood(task=desk.task, epoch=epoch, act=Performative.RENEW, reason=Reason.UNKNOWN_TASK))
    assert desk.of(StopWork)


# ---- cancel


def test_a_cancelled_reservation_is_freed_and_its_late_commit_absorbed() -> None:
    desk = ParticipantDesk()
    act = desk.award()
    desk.hear(Cancel(task=desk.task, epoch=act.epoch))
    assert desk.one(Cancelled).epoch == act.epoch
    assert not desk.bidder.held
    desk.hear(Commit(task=desk.task, epoch=act.epoch))
    assert not desk.of(StartWork)
    assert desk.sent(Cancelled)


def test_cancelled_is_said_after_the_work_has_stopped() -> None:
    desk = ParticipantDesk()
    epoch = desk.working()
    desk.hear(Cancel(task=desk.task, epoch=epoch, reason=Reason.OPERATOR))
    assert desk.of(StopWork)[0].reason is Reason.OPERATOR
    assert not desk.sent(Cancelled)
    desk.hear(Cancel(task=desk.task, epoch=epoch))
    assert not desk.of(Send)
    end(desk, epoch, reason=Reason.CANCELLED)
    assert desk.one(Cancelled).epoch == epoch
    desk.hear(Cancel(task=desk.task, epoch=epoch))
    assert desk.one(Cancelled).epoch == epoch, "the stored answer"


def test_done_wins_over_a_cancel() -> None:
    desk = ParticipantDesk()
    epoch = desk.working()
    end(desk, epoch, result=b"x")
    desk.hear(Cancel(task=desk.task, epoch=epoch))
    assert desk.one(Inform).result == b"x"
    desk.hear(Acknowledge(task=desk.task, epoch=epoch, act=Performative.INFORM))
    desk.hear(Cancel(task=desk.task, epoch=epoch))
    assert desk.one(Inform).result == b"x"


def test_a_cancel_past_the_point_of_no_return_says_that_it_does_not_know() -> None:
    desk = ParticipantDesk()
    epoch = desk.working()
    past_no_return(desk, epoch)
    desk.hear(Cancel(task=desk.task, epoch=epoch))
    assert desk.of(StopWork)
    end(desk, epoch, reason=Reason.CANCELLED)
    assert desk.one(Cancelled).in_doubt
    desk.hear(Cancel(task=desk.task, epoch=epoch))
    assert desk.one(Cancelled).in_doubt


def test_a_cancel_that_crosses_a_forfeit_settles_it() -> None:
    desk = ParticipantDesk()
    epoch = desk.working()
    end(desk, epoch, given_back=True)
    desk.hear(Cancel(task=desk.task, epoch=epoch))
    assert desk.one(Cancelled).epoch == epoch
    assert desk.machine.unsettled_count == 0


def test_a_late_cancel_of_an_earlier_epoch_leaves_the_new_work_alone() -> None:
    desk = ParticipantDesk()
    desk.working(counter=5)
    desk.hear(Cancel(task=desk.task, epoch=desk.epoch(3)))
    assert desk.one(Cancelled).epoch == desk.epoch(3)
    assert not desk.of(StopWork)


def test_foreign_cancel_is_refused() -> None:
    desk = ParticipantDesk()
    desk.working()
    for owner in (desk.asker, desk.stranger):
        desk.hear(Cancel(task=desk.task, epoch=desk.epoch(9, owner)), desk.stranger)
        assert desk.one(NotUnderstood).reason is Reason.ILLEGAL_NOW
        assert not desk.of(StopWork)


@pytest.mark.parametrize("kind", ["commit", "renewed", "recorded", "adopt", "query", "acknowledge"])
def test_nobody_but_the_initiator_moves_a_contract(kind: str) -> None:
    desk = ParticipantDesk()
    epoch = desk.working()
    before = desk.machine.find(desk.task)
    assert before is not None
    stage, until_s = before.stage, before.lease_until_s
    acts: dict[str, Act] = {
        "commit": Commit(task=desk.task, epoch=epoch),
        "renewed": Renewed(task=desk.task, epoch=epoch, boot=desk.boot, sequence=1),
        "recorded": PointOfNoReturnRecorded(task=desk.task, epoch=epoch),
        "adopt": Adopt(task=desk.task, epoch=desk.epoch(9), former=epoch),
        "query": QueryStatus(task=desk.task, epoch=epoch),
        "acknowledge": Acknowledge(task=desk.task, epoch=epoch, act=Performative.INFORM),
    }
    desk.hear(acts[kind], desk.stranger)
    assert [type(send.act) for send in desk.of(Send)] == [NotUnderstood]
    assert (before.stage, before.lease_until_s) == (stage, until_s)


def test_a_status_query_for_an_unknown_task_is_answered_so() -> None:
    desk = ParticipantDesk()
    desk.hear(QueryStatus(task=desk.task, epoch=desk.epoch()))
    assert desk.one(Refuse).reason is Reason.UNKNOWN_TASK


def test_an_initiator_that_asks_about_a_reservation_may_still_commit_it() -> None:
    desk = ParticipantDesk()
    act = desk.award()
    desk.now_s += 1.0
    desk.hear(QueryStatus(task=desk.task, epoch=act.epoch))
    assert desk.one(Reserve).epoch == act.epoch
    desk.hear(Commit(task=desk.task, epoch=act.epoch))
    assert desk.of(StartWork)[0].lease_until_s == pytest.approx(102.0)


def test_a_commit_for_an_unknown_task_is_illegal_and_an_acknowledgement_merely_late() -> None:
    desk = ParticipantDesk()
    desk.hear(Commit(task=desk.task, epoch=desk.epoch()))
    assert desk.sent(NotUnderstood)
    desk.hear(Acknowledge(task=desk.task, epoch=desk.epoch(), act=Performative.INFORM))
    assert not desk.last


# ---- leaving and restarting


def test_a_leaving_node_gives_reservations_back_and_stops_work_before_forfeiting_it() -> None:
    desk = ParticipantDesk()
    epoch = desk.working(record=record_of(desk.asker, 1))
    desk.feed(CheckpointTaken(task=desk.task, epoch=epoch, state=b"half"))
    running = desk.task
    desk.award(record=record_of(desk.asker, 2))
    desk.feed(LeaveRequested())
    assert desk.one(Forfeit).task == desk.task
    assert desk.of(StopWork)[0].task == running
    assert set(desk.bidder.held) == {running}
    desk.feed(WorkEnded(task=running, epoch=epoch, outcome=WorkOutcome(reason=Reason.DRAINING)))
    act = desk.one(Forfeit)
    assert (act.reason, act.checkpoint) == (Reason.DRAINING, b"half")


@pytest.mark.parametrize("started", [False, True])
def test_a_lease_never_survives_a_restart(started: bool) -> None:
    desk = ParticipantDesk()
    epoch = desk.working() if started else desk.award().epoch
    desk.restart()
    act = desk.one(Forfeit)
    assert (act.reason, act.epoch) == (Reason.RESTARTED, epoch)
    assert not desk.of(StartWork)
    desk.hear(Commit(task=desk.task, epoch=epoch))
    assert not desk.of(StartWork)


def test_a_restart_past_the_point_of_no_return_is_in_doubt() -> None:
    desk = ParticipantDesk()
    epoch = desk.working()
    past_no_return(desk, epoch)
    desk.restart()
    assert desk.one(Cancelled).in_doubt
    assert not desk.sent(Forfeit)
    desk.restart()
    contract = desk.machine.find(desk.task)
    assert contract is not None
    assert contract.stage is Stage.IN_DOUBT


def test_a_result_that_was_not_acknowledged_is_said_again_after_a_restart() -> None:
    desk = ParticipantDesk()
    epoch = desk.working()
    end(desk, epoch, result=b"x")
    desk.restart()
    assert desk.one(Inform).result == b"x"


def test_a_checkpoint_outlives_a_restart_in_the_forfeit() -> None:
    desk = ParticipantDesk()
    epoch = desk.working()
    desk.feed(CheckpointTaken(task=desk.task, epoch=epoch, state=b"half"))
    desk.restart()
    assert desk.one(Forfeit).checkpoint == b"half"


def test_a_grant_for_an_earlier_life_extends_nothing() -> None:
    desk = ParticipantDesk()
    desk.working()
    old = next_renewal(desk)
    desk.restart()
    desk.working(counter=2)
    fresh = next_renewal(desk)
    assert fresh.sequence == old.sequence
    grant(desk, fresh, boot=old.boot)
    assert not desk.of(LeaseMoved)
    grant(desk, fresh)
    assert desk.of(LeaseMoved)
