"""How tasks end at their initiator: results, failures, forfeits, cancels, expiry, and what remains."""

from __future__ import annotations

import pytest

from meshagent.core.acts import (
    AcceptProposal,
    Acknowledge,
    Act,
    Cancel,
    Cancelled,
    Cfp,
    Checkpoint,
    Failure,
    Forfeit,
    Inform,
    NotUnderstood,
    PassPointOfNoReturn,
    Performative,
    Propose,
    Renew,
    Reserve,
)
from meshagent.core.contract_net.ending import MAX_FAILURES, PATIENT_FORFEITS
from meshagent.core.contract_net.interface import CancelRequested, Persist, Send
from meshagent.types import Delivery, Epoch, NodeId, Reason, TaskState
from tests.support.contract_desk import BOOT, PEER_BOOT, InitiatorDesk
from tests.support.contract_model import node_id

AMO, ALO = Delivery.AT_MOST_ONCE, Delivery.AT_LEAST_ONCE


def cancel(desk: InitiatorDesk) -> None:
    desk.feed(CancelRequested(task=desk.task, detail="not needed"))


def fail(desk: InitiatorDesk, peer: NodeId, reason: Reason) -> None:
    desk.hear(peer, Failure(task=desk.task, epoch=desk.epoch, reason=reason, detail="it broke"))


# ---- results


def test_a_result_is_durable_before_it_is_acknowledged() -> None:
    desk = InitiatorDesk()
    desk.committed()
    desk.inform(desk.peers[0])
    kinds = [type(effect) for effect in desk.last]
    assert kinds.index(Persist) < kinds.index(Send)
    ack = desk.one(Acknowledge)
    assert (ack.act, ack.epoch) == (Performative.INFORM, desk.epoch)
    assert desk.changes()[-1].result == b"result"


def test_a_result_that_comes_again_is_acknowledged_again_and_changes_nothing() -> None:
    desk = InitiatorDesk()
    desk.committed()
    desk.inform(desk.peers[0])
    desk.inform(desk.peers[0], result=b"another story")
    assert desk.sent(Acknowledge)
    assert not desk.changes()
    u = desk.machine.find(desk.task)
    assert u is not None
    assert u.result == b"result"


def test_a_result_from_somebody_who_was_never_awarded_is_refused() -> None:
    desk = InitiatorDesk()
    desk.committed()
    for liar in (node_id(66), desk.peers[1]):
        desk.inform(liar)
        assert desk.one(NotUnderstood).reason is Reason.ILLEGAL_NOW
    assert desk.state() is TaskState.EXECUTING


def test_a_result_under_an_epoch_that_was_never_given_out_is_refused() -> None:
    desk = InitiatorDesk()
    desk.committed()
    desk.inform(desk.peers[0], epoch=Epoch(99, desk.me, BOOT))
    assert desk.sent(NotUnderstood)
    assert desk.state() is TaskState.EXECUTING


# ---- failures and forfeits


def test_a_failure_is_final() -> None:
    desk = InitiatorDesk()
    desk.committed(delivery=AMO)
    fail(desk, desk.peers[0], Reason.CRASHED)
    [change] = desk.changes()
    assert (change.state, change.reason, change.detail) == (TaskState.FAILED, Reason.CRASHED, "it broke")
    assert desk.one(Acknowledge).act is Performative.FAILURE


def test_an_error_in_the_handler_is_final_for_at_least_once_too() -> None:
    desk = InitiatorDesk()
    desk.committed(delivery=ALO)
    fail(desk, desk.peers[0], Reason.ERROR)
    assert desk.state() is TaskState.FAILED


@pytest.mark.parametrize("reason", [Reason.CRASHED, Reason.TIMEOUT, Reason.RESTARTED])
def test_a_repeatable_task_is_called_again_after_a_crash_up_to_a_bound(reason: Reason) -> None:
    desk = InitiatorDesk(peers=1)
    desk.committed(delivery=ALO)
    for _ in range(MAX_FAILURES):
        fail(desk, desk.peers[0], reason)
        assert desk.sent(Cfp)
        desk.bid(desk.peers[0], 1000)
        desk.reserve(desk.peers[0])
    fail(desk, desk.peers[0], reason)
    assert desk.state() is TaskState.FAILED


def test_a_forfeit_is_called_again_at_once_and_its_checkpoint_goes_to_the_next() -> None:
    desk = InitiatorDesk()
    desk.committed()
    desk.forfeit(desk.peers[0], checkpoint=b"two readings", checkpoint_version=2)
    assert isinstance(desk.last[0], Persist)
    assert desk.one(Acknowledge).act is Performative.FORFEIT
    assert desk.one(Cfp).resumes
    for peer, price in zip(desk.peers, (1, 2000, 3000), strict=True):
        desk.bid(peer, price)
    [(to, award)] = desk.sent(AcceptProposal)
    assert to == (desk.peers[1],), "who has given it back comes last"
    assert (award.checkpoint, award.checkpoint_version) == (b"two readings", 2)


def test_who_only_restarted_is_not_put_last() -> None:
    desk = InitiatorDesk()
    desk.committed()
    desk.forfeit(desk.peers[0], reason=Reason.RESTARTED)
    desk.bids(1, 2000, 3000)
    assert desk.sent(AcceptProposal)[0][0] == (desk.peers[0],)


def test_a_task_that_everybody_gives_back_is_called_ever_more_slowly() -> None:
    desk = InitiatorDesk(peers=1)
    desk.committed()
    for _ in range(PATIENT_FORFEITS):
        desk.forfeit(desk.peers[0])
        assert desk.sent(Cfp)
        desk.bid(desk.peers[0], 1000)
        desk.reserve(desk.peers[0])
    desk.forfeit(desk.peers[0])
    assert not desk.sent(Cfp)
    assert desk.state() is TaskState.BACKOFF
    assert desk.changes()[-1].reason is Reason.GIVEN_BACK


def test_a_forfeit_of_an_earlier_epoch_is_acknowledged_and_changes_nothing() -> None:
    desk = InitiatorDesk()
    desk.submit()
    desk.bids(1000, 2000, 3000)
    silent, old = desk.peers[0], desk.epoch
    desk.after(0.4)
    desk.reserve(desk.peers[1])
    desk.forfeit(silent, epoch=old, reason=Reason.LEASE_LOST)
    assert desk.one(Acknowledge).epoch == old
    assert desk.state() is TaskState.HELD


def test_a_reservation_that_is_forfeited_goes_to_the_runner_up() -> None:
    desk = InitiatorDesk()
    desk.submit()
    desk.bids(1000, 2000, 3000)
    desk.forfeit(desk.peers[0], reason=Reason.DRAINING)
    assert desk.sent(AcceptProposal)[0][0] == (desk.peers[1],)


def test_a_forfeit_that_comes_again_does_not_call_again() -> None:
    desk = InitiatorDesk()
    desk.committed()
    epoch = desk.epoch
    desk.forfeit(desk.peers[0], epoch=epoch)
    called = desk.epoch
    desk.forfeit(desk.peers[0], epoch=epoch)
    assert desk.epoch == called
    assert desk.sent(Acknowledge)


# ---- checkpoints


def test_the_highest_checkpoint_wins_and_each_is_acknowledged() -> None:
    desk = InitiatorDesk()
    desk.committed()

    def checkpoint(version: int, state: bytes) -> None:
        act = Checkpoint(task=desk.task, epoch=desk.epoch, version=version, state=state)
        desk.hear(desk.peers[0], act)

    checkpoint(2, b"second")
    assert isinstance(desk.last[0], Persist)
    assert desk.one(Acknowledge).version == 2
    checkpoint(1, b"first")
    assert desk.one(Acknowledge).version == 1
    assert not desk.of(Persist)
    u = desk.machine.find(desk.task)
    assert u is not None
    assert (u.checkpoint, u.checkpoint_version) == (b"second", 2)


def test_counter_exhaustion_by_a_checkpoint_version_is_refused() -> None:
    desk = InitiatorDesk()
    desk.committed()
    desk.hear(desk.peers[0], Checkpoint(task=desk.task, epoch=desk.epoch, version=1 << 62, state=b"x"))
    assert desk.sent(NotUnderstood)
    desk.forfeit(desk.peers[0], checkpoint=b"x", checkpoint_version=1 << 62)
    u = desk.machine.find(desk.task)
    assert u is not None
    assert u.checkpoint is None


def test_a_checkpoint_from_a_replaced_holder_is_fenced() -> None:
    desk = InitiatorDesk()
    holder = desk.committed()
    old = desk.epoch
    desk.after(desk.config.lease_wait_s())
    desk.hear(holder, Checkpoint(task=desk.task, epoch=old, version=9, state=b"old"))
    assert desk.one(Cancel).epoch == old
    assert not desk.sent(Acknowledge)


# ---- cancel


def test_a_call_is_cancelled_at_once() -> None:
    desk = InitiatorDesk()
    desk.submit()
    cancel(desk)
    [change] = desk.changes()
    assert (change.state, change.reason, change.detail) == (TaskState.CANCELLED, Reason.CANCELLED, "not needed")


def test_an_award_is_cancelled_at_once_for_it_got_no_commit_and_the_peer_is_told_until_it_answers() -> None:
    desk = InitiatorDesk()
    desk.submit()
    desk.bids(1000, 2000, 3000)
    cancel(desk)
    assert desk.changes()[-1].state is TaskState.CANCELLED
    assert desk.sent(Cancel)
    desk.until_due()
    assert desk.sent(Cancel)
    desk.hear(desk.peers[0], Cancelled(task=desk.task, epoch=desk.epoch))
    desk.until_due()
    assert not desk.sent(Cancel)


def test_a_restored_award_may_have_been_committed_so_its_cancel_waits() -> None:
    desk = InitiatorDesk()
    desk.submit()
    desk.bids(1000, 2000, 3000)
    desk.restart()
    cancel(desk)
    assert desk.state() is TaskState.HELD
    desk.after(desk.config.lease_wait_s())
    assert desk.state() is TaskState.CANCELLED


def test_cancelled_is_declared_after_the_answer_of_the_holder() -> None:
    desk = InitiatorDesk()
    desk.committed()
    cancel(desk)
    assert desk.state() is TaskState.EXECUTING
    assert desk.one(Cancel).epoch == desk.epoch
    desk.hear(desk.peers[0], Cancelled(task=desk.task, epoch=desk.epoch))
    assert desk.changes()[-1].state is TaskState.CANCELLED


def test_cancelled_is_declared_after_the_lease_wait_when_the_holder_is_silent() -> None:
    desk = InitiatorDesk()
    desk.committed()
    cancel(desk)
    desk.after(desk.config.lease_wait_s() - 0.01)
    assert desk.state() is TaskState.EXECUTING
    desk.renew(desk.peers[0], sequence=2)
    assert desk.sent(Cancel), "no lease is granted any more"
    desk.after(0.02)
    assert desk.state() is TaskState.CANCELLED


def test_done_wins_over_a_cancel_under_way() -> None:
    desk = InitiatorDesk()
    desk.committed()
    cancel(desk)
    desk.inform(desk.peers[0])
    assert desk.changes()[-1].state is TaskState.DONE


def test_a_result_after_cancelled_was_declared_is_acknowledged_and_noted() -> None:
    desk = InitiatorDesk()
    desk.committed()
    cancel(desk)
    desk.after(desk.config.lease_wait_s())
    desk.inform(desk.peers[0])
    assert desk.sent(Acknowledge)
    assert desk.notes("late")
    assert desk.state() is TaskState.CANCELLED


def test_a_cancel_past_the_point_of_no_return_ends_in_doubt_when_nobody_answers() -> None:
    desk = InitiatorDesk()
    desk.committed()
    desk.hear(desk.peers[0], PassPointOfNoReturn(task=desk.task, epoch=desk.epoch))
    cancel(desk)
    desk.after(desk.config.lease_wait_s())
    assert desk.state() is TaskState.IN_DOUBT
    desk.hear(desk.peers[0], Cancelled(task=desk.task, epoch=desk.epoch))
    assert desk.state() is TaskState.CANCELLED, "the answer proves that nothing happened"


def test_a_cancel_of_a_task_in_doubt_waits_for_the_truth_and_does_not_call() -> None:
    desk = InitiatorDesk()
    desk.committed()
    desk.hear(desk.peers[0], PassPointOfNoReturn(task=desk.task, epoch=desk.epoch))
    desk.after(desk.config.lease_wait_s())
    cancel(desk)
    assert desk.state() is TaskState.IN_DOUBT
    desk.forfeit(desk.peers[0], reason=Reason.LEASE_LOST)
    assert desk.state() is TaskState.CANCELLED


def test_everyone_ever_awarded_is_cancelled_under_its_own_last_epoch() -> None:
    desk = InitiatorDesk()
    desk.submit()
    desk.bids(1000, 2000, 3000)
    first = desk.epoch
    desk.after(0.4)
    second = desk.epoch
    desk.after(0.4)
    desk.reserve(desk.peers[2])
    third = desk.epoch
    cancel(desk)
    told = {to[0]: act.epoch for to, act in desk.sent(Cancel)}
    assert told == dict(zip(desk.peers, (first, second, third), strict=True))


def test_a_second_cancel_says_nothing_new() -> None:
    desk = InitiatorDesk()
    desk.committed()
    cancel(desk)
    cancel(desk)
    assert not desk.last


def test_a_cancel_under_way_goes_on_after_a_restart_with_a_full_wait() -> None:
    desk = InitiatorDesk()
    desk.committed()
    cancel(desk)
    desk.now_s += 1.0
    desk.restart()
    assert desk.sent(Cancel)
    desk.after(desk.config.lease_wait_s() - 0.01)
    assert desk.machine.open_count == 1
    desk.after(0.02)
    assert desk.state() is TaskState.CANCELLED


def test_nobody_else_can_say_that_the_holder_has_stopped() -> None:
    desk = InitiatorDesk()
    desk.committed()
    cancel(desk)
    desk.hear(desk.peers[1], Cancelled(task=desk.task, epoch=desk.epoch))
    assert desk.one(NotUnderstood)
    assert desk.machine.open_count == 1


# ---- time is over


def test_a_task_that_nobody_does_expires() -> None:
    desk = InitiatorDesk()
    desk.offers = []
    desk.submit(within_s=1.0)
    while desk.machine.open_count:
        desk.until_due()
    assert desk.now_s == pytest.approx(101.0)
    [change] = desk.changes()
    assert (change.state, change.reason) == (TaskState.FAILED, Reason.EXPIRED)


def test_a_holder_is_cancelled_before_an_expired_task_has_failed() -> None:
    desk = InitiatorDesk()
    desk.committed(within_s=1.0)
    desk.after(1.0)
    assert desk.sent(Cancel)
    assert desk.state() is TaskState.EXECUTING
    desk.hear(desk.peers[0], Cancelled(task=desk.task, epoch=desk.epoch))
    [change] = desk.changes()
    assert (change.state, change.reason) == (TaskState.FAILED, Reason.EXPIRED)


def test_the_time_left_is_carried_over_a_restart() -> None:
    desk = InitiatorDesk()
    desk.committed(within_s=10.0)
    desk.inform(node_id(70))  # whatever else happens
    desk.after(1.0)
    desk.renew(desk.peers[0], sequence=5)
    desk.hear(desk.peers[0], Checkpoint(task=desk.task, epoch=desk.epoch, version=1, state=b"x"))
    desk.now_s += 1000.0
    desk.restart()
    u = desk.machine.find(desk.task)
    assert u is not None
    assert u.within_left_s(desk.now_s) == pytest.approx(9.0)


# ---- what remains


def test_a_tombstone_is_forgotten_after_keep_s() -> None:
    desk = InitiatorDesk(keep_s=60.0)
    desk.committed()
    desk.inform(desk.peers[0])
    desk.after(59.0)
    assert desk.machine.find(desk.task) is not None
    desk.after(1.1)
    assert desk.machine.find(desk.task) is None
    assert desk.journal == {}
    assert desk.machine.next_deadline_s() is None


def test_tombstones_are_bounded_and_the_oldest_goes_first() -> None:
    desk = InitiatorDesk(max_tasks=3)
    for number in range(1, 6):
        desk.submit(number)
        cancel(desk)
    assert len(list(desk.machine.undertakings())) == 3
    assert len(desk.journal) == 3


@pytest.mark.parametrize("kind", ["reserve", "renew", "inform", "failure", "forfeit", "checkpoint"])
def test_a_forgotten_task_is_not_revived_and_its_holder_is_told(kind: str) -> None:
    desk = InitiatorDesk()
    task, epoch = desk.record.task, Epoch(1, desk.me, BOOT)
    acts: dict[str, Act] = {
        "reserve": Reserve(task=task, epoch=epoch),
        "renew": Renew(task=task, epoch=epoch, boot=PEER_BOOT, sequence=1),
        "inform": Inform(task=task, epoch=epoch, result=b""),
        "failure": Failure(task=task, epoch=epoch, reason=Reason.ERROR),
        "forfeit": Forfeit(task=task, epoch=epoch, reason=Reason.GIVEN_BACK),
        "checkpoint": Checkpoint(task=task, epoch=epoch, version=1, state=b""),
    }
    desk.hear(desk.peers[0], acts[kind])
    assert desk.one(NotUnderstood).reason is Reason.UNKNOWN_TASK
    assert not desk.of(Persist)


def test_a_bid_for_an_unknown_task_is_dropped_in_silence() -> None:
    desk = InitiatorDesk()
    act = Propose(task=desk.record.task, epoch=Epoch(1, desk.me, BOOT), added_ms=1, load_ms=0, plan_version=1)
    desk.hear(desk.peers[0], act)
    assert not desk.last


def test_two_confused_nodes_fall_silent() -> None:
    desk = InitiatorDesk()
    desk.committed()
    act = NotUnderstood(task=desk.task, epoch=desk.epoch, act=Performative.COMMIT, reason=Reason.ILLEGAL_NOW)
    desk.hear(desk.peers[0], act)
    assert not desk.of(Send)
    desk.hear(node_id(70), act)
    assert not desk.of(Send)


def test_a_flood_of_nonsense_fills_no_journal() -> None:
    desk = InitiatorDesk()
    desk.committed()
    noted = 0
    for _ in range(1000):
        desk.inform(node_id(70))
        noted += len(desk.notes("not_understood"))
    assert 0 < noted <= 64
    desk.now_s += 10.0
    desk.inform(node_id(70))
    assert desk.notes("not_understood"), "and later ones are noted again"
