"""The lease at the initiator, evidence about peers, the point of no return, and its own restart."""

from __future__ import annotations

import pytest

from meshagent.core.acts import (
    AcceptProposal,
    Acknowledge,
    Adopt,
    Cancel,
    Cancelled,
    Cfp,
    Commit,
    Forfeit,
    NotUnderstood,
    PassPointOfNoReturn,
    Performative,
    PointOfNoReturnRecorded,
    QueryStatus,
    Renewed,
    Reserve,
)
from meshagent.core.contract_net.interface import DoubtResolved, PeerFound, PeerLost, Persist, Send
from meshagent.core.contract_net.records import InitiatorRecord, Phase
from meshagent.types import Delivery, Reason, TaskState
from tests.support.contract_desk import PEER_BOOT, InitiatorDesk
from tests.support.contract_model import node_id

AMO, ALO = Delivery.AT_MOST_ONCE, Delivery.AT_LEAST_ONCE


def past_no_return(desk: InitiatorDesk) -> None:
    desk.hear(desk.peers[0], PassPointOfNoReturn(task=desk.task, epoch=desk.epoch))


def in_doubt() -> InitiatorDesk:
    desk = InitiatorDesk()
    desk.committed()
    past_no_return(desk)
    desk.after(desk.config.lease_wait_s())
    assert desk.state() is TaskState.IN_DOUBT
    return desk


# ---- granting


def test_a_renewal_is_granted_with_the_echo_of_its_boot_and_sequence() -> None:
    desk = InitiatorDesk()
    desk.committed()
    desk.renew(desk.peers[0], sequence=7)
    grant = desk.one(Renewed)
    assert (grant.boot, grant.sequence, grant.epoch) == (PEER_BOOT, 7, desk.epoch)


def test_the_commit_is_repeated_until_the_first_renewal() -> None:
    desk = InitiatorDesk()
    desk.submit()
    desk.bids(1000, 2000, 3000)
    desk.reserve(desk.peers[0])
    desk.until_due()
    assert desk.sent(Commit)
    desk.renew(desk.peers[0])
    assert desk.changes()[-1].state is TaskState.EXECUTING
    desk.after(0.5)
    assert not desk.sent(Commit)


def test_a_repeated_reservation_gets_the_commit_again_and_no_longer_lease() -> None:
    desk = InitiatorDesk()
    desk.submit()
    desk.bids(1000, 2000, 3000)
    desk.reserve(desk.peers[0])
    u = desk.machine.find(desk.task)
    assert u is not None
    until_s = u.lease_until_s
    desk.now_s += 0.05
    desk.hear(desk.peers[0], Reserve(task=desk.task, epoch=desk.epoch))
    assert desk.sent(Commit)
    assert u.lease_until_s == until_s


def test_the_lease_runs_longer_here_than_at_the_holder() -> None:
    desk = InitiatorDesk()
    desk.committed()
    wait_s = desk.config.lease_wait_s()
    assert wait_s == pytest.approx(2.0 * 1.06 + 0.1)
    desk.after(wait_s - 0.001)
    assert desk.state() is TaskState.EXECUTING
    desk.after(0.002)
    assert desk.sent(Cfp)
    assert desk.notes("lease_ended")[0]["renewals"] == 1


def test_progress_comes_with_the_renewal() -> None:
    desk = InitiatorDesk()
    desk.committed()
    desk.renew(desk.peers[0], sequence=2, progress_permille=800, note="reading 2 of 3")
    [change] = desk.changes()
    assert (change.progress_permille, change.note) == (800, "reading 2 of 3")


def test_a_grant_is_not_given_after_the_lease_is_over_although_time_was_not_told() -> None:
    desk = InitiatorDesk()
    desk.committed()
    desk.now_s += 60.0
    desk.renew(desk.peers[0], epoch=desk.epoch, sequence=2)
    assert not desk.sent(Renewed)
    assert desk.sent(Cfp), "what was due comes first"


# ---- evidence about peers


def test_a_lost_holder_does_not_shorten_the_wait_of_at_most_once() -> None:
    desk = InitiatorDesk()
    desk.committed(delivery=AMO)
    desk.feed(PeerLost(peer=desk.peers[0]))
    assert not desk.of(Send)
    assert desk.notes("lost")[0]["recalled"] is False
    desk.until_due()
    assert desk.now_s == pytest.approx(100.0 + desk.config.lease_wait_s())
    assert desk.sent(Cfp)


def test_a_lost_holder_of_at_least_once_is_called_again_at_once_under_a_new_epoch() -> None:
    desk = InitiatorDesk()
    desk.committed(delivery=ALO)
    old = desk.epoch
    desk.offers.remove(desk.peers[0])
    desk.feed(PeerLost(peer=desk.peers[0]))
    [(to, cfp)] = desk.sent(Cfp)
    assert cfp.epoch > old
    assert desk.peers[0] not in to


def test_a_healthy_old_holder_is_adopted_while_nobody_else_is_awarded() -> None:
    desk = InitiatorDesk()
    holder = desk.committed(delivery=ALO)
    old = desk.epoch
    desk.feed(PeerLost(peer=holder))
    called = desk.epoch
    desk.renew(holder, epoch=old, sequence=2)
    adopt = desk.one(Adopt)
    assert (adopt.former, adopt.epoch) == (old, called)
    assert isinstance(desk.last[0], Persist)
    desk.until_due()
    assert desk.sent(Adopt), "repeated until it renews under the new epoch"
    desk.renew(holder, epoch=old, sequence=3)
    assert desk.sent(Adopt)
    assert not desk.sent(Renewed)
    desk.renew(holder, sequence=4)
    assert desk.one(Renewed).epoch == called
    assert desk.state() is TaskState.EXECUTING


def test_an_old_holder_that_is_awarded_again_is_adopted_instead() -> None:
    desk = InitiatorDesk(peers=1)
    holder = desk.committed(delivery=ALO)
    old = desk.epoch
    desk.feed(PeerLost(peer=holder))
    desk.bid(holder, 1000)
    assert desk.sent(AcceptProposal)
    desk.renew(holder, epoch=old, sequence=2)
    assert desk.one(Adopt).epoch > old


def test_at_most_once_never_adopts_whom_it_has_given_up() -> None:
    desk = InitiatorDesk()
    holder = desk.committed(delivery=AMO)
    old = desk.epoch
    desk.after(desk.config.lease_wait_s())
    desk.renew(holder, epoch=old, sequence=2)
    assert not desk.sent(Adopt)
    assert desk.one(Cancel).epoch == old


def test_a_replaced_holder_is_fenced_and_its_name_noted_once() -> None:
    desk = InitiatorDesk()
    holder = desk.committed(delivery=ALO)
    old = desk.epoch
    desk.offers.remove(holder)
    desk.feed(PeerLost(peer=holder))
    desk.bid(desk.peers[1], 1000)
    desk.bid(desk.peers[2], 2000)
    desk.reserve(desk.peers[1])
    desk.renew(holder, epoch=old, sequence=2)
    assert desk.one(Cancel).epoch == old
    assert len(desk.notes("fenced")) == 1
    desk.renew(holder, epoch=old, sequence=3)
    assert desk.one(Cancel).epoch == old
    assert not desk.notes("fenced")


def test_a_result_of_an_older_epoch_ends_the_task_and_stops_the_newer_holder() -> None:
    desk = InitiatorDesk()
    holder = desk.committed(delivery=ALO)
    old = desk.epoch
    desk.offers.remove(holder)
    desk.feed(PeerLost(peer=holder))
    desk.bid(desk.peers[1], 1000)
    desk.bid(desk.peers[2], 2000)
    desk.reserve(desk.peers[1])
    newer = desk.epoch
    desk.inform(holder, epoch=old)
    assert desk.changes()[-1].state is TaskState.DONE
    assert desk.changes()[-1].holder == holder
    [(to, cancel)] = desk.sent(Cancel)
    assert (to, cancel.epoch) == ((desk.peers[1],), newer)
    assert desk.one(Acknowledge).epoch == old
    desk.until_due()
    assert desk.sent(Cancel), "until it has answered"
    desk.hear(desk.peers[1], Cancelled(task=desk.task, epoch=newer))
    desk.until_due()
    assert not desk.sent(Cancel)


def test_the_word_that_a_peer_may_wait_for_is_said_when_it_is_found() -> None:
    desk = InitiatorDesk()
    desk.submit()
    desk.bids(1000, 2000, 3000)
    desk.feed(PeerFound(peer=desk.peers[0]))
    assert desk.sent(AcceptProposal)
    desk.reserve(desk.peers[0])
    desk.feed(PeerFound(peer=desk.peers[0]))
    assert desk.sent(Commit)


# ---- the point of no return


def test_the_point_of_no_return_is_durable_before_it_is_answered() -> None:
    desk = InitiatorDesk()
    desk.committed()
    past_no_return(desk)
    assert isinstance(desk.last[0], Persist)
    assert isinstance(desk.last[0].record, InitiatorRecord)
    assert desk.last[0].record.point_of_no_return
    assert desk.one(PointOfNoReturnRecorded).epoch == desk.epoch
    past_no_return(desk)
    assert not desk.of(Persist)
    assert desk.sent(PointOfNoReturnRecorded), "the answer may have been lost"


def test_work_that_reaches_it_before_its_first_renewal_is_seen_executing() -> None:
    desk = InitiatorDesk()
    desk.submit()
    desk.bids(1000, 2000, 3000)
    desk.reserve(desk.peers[0])
    past_no_return(desk)
    assert desk.changes()[-1].state is TaskState.EXECUTING


def test_nobody_but_the_holder_passes_the_point_of_no_return() -> None:
    desk = InitiatorDesk()
    desk.committed()
    desk.hear(node_id(44), PassPointOfNoReturn(task=desk.task, epoch=desk.epoch))
    assert desk.sent(NotUnderstood)
    assert not desk.sent(PointOfNoReturnRecorded)


def test_the_lease_ends_past_the_point_of_no_return_in_doubt_and_not_in_a_call() -> None:
    desk = in_doubt()
    assert not desk.sent(Cfp)
    assert desk.one(QueryStatus).epoch == desk.epoch
    desk.until_due()
    assert desk.sent(QueryStatus), "asked until it is known"


def test_done_ends_the_doubt() -> None:
    desk = in_doubt()
    desk.inform(desk.peers[0])
    assert desk.changes()[-1].state is TaskState.DONE


def test_proof_of_not_done_ends_the_doubt_with_a_new_call() -> None:
    desk = in_doubt()
    desk.forfeit(desk.peers[0], reason=Reason.LEASE_LOST)
    assert desk.sent(Cfp)


def test_a_holder_that_does_not_know_leaves_it_in_doubt() -> None:
    desk = in_doubt()
    desk.hear(desk.peers[0], Cancelled(task=desk.task, epoch=desk.epoch, in_doubt=True))
    assert desk.state() is TaskState.IN_DOUBT
    due_s = desk.machine.next_deadline_s()
    assert due_s is not None
    assert due_s - desk.now_s == desk.config.resend_max_s


@pytest.mark.parametrize("done", [True, False])
def test_whoever_is_still_in_doubt_is_told_when_it_is_settled(done: bool) -> None:
    # Seed 0x129: a doubter that nobody told refused the same work (kind, key) for ever.
    desk = in_doubt()
    doubt = Cancelled(task=desk.task, epoch=desk.epoch, in_doubt=True)
    desk.feed(DoubtResolved(task=desk.task, done=done))
    desk.hear(desk.peers[0], doubt)
    assert desk.one(Acknowledge).act is Performative.CANCELLED
    assert desk.state() is (TaskState.DONE if done else TaskState.CALLING)


def test_a_holder_that_tells_of_its_doubt_is_believed_before_the_lease_ends() -> None:
    desk = InitiatorDesk()
    desk.committed()
    past_no_return(desk)
    desk.hear(desk.peers[0], Cancelled(task=desk.task, epoch=desk.epoch, in_doubt=True))
    assert desk.changes()[-1].state is TaskState.IN_DOUBT


@pytest.mark.parametrize("done", [True, False])
def test_a_person_decides_what_no_machine_can_know(done: bool) -> None:
    desk = in_doubt()
    desk.feed(DoubtResolved(task=desk.task, done=done))
    if done:
        [change] = desk.changes()
        assert (change.state, change.result, change.reason) == (TaskState.DONE, None, Reason.OPERATOR)
    else:
        assert desk.sent(Cfp)
        assert isinstance(desk.last[0], Persist)


def test_a_person_cannot_decide_what_is_not_in_doubt() -> None:
    desk = InitiatorDesk()
    desk.committed()
    desk.feed(DoubtResolved(task=desk.task, done=True))
    assert not desk.last


def test_the_time_allowed_ends_nothing_past_the_point_of_no_return() -> None:
    desk = InitiatorDesk()
    desk.committed(within_s=1.0)
    past_no_return(desk)
    desk.after(1.5)
    assert desk.state() is TaskState.EXECUTING


# ---- our own restart


@pytest.mark.parametrize("heard", [False, True])
def test_a_full_lease_is_waited_out_after_our_restart(heard: bool) -> None:
    desk = InitiatorDesk()
    if heard:
        desk.committed()
    else:
        desk.submit()
        desk.bids(1000, 2000, 3000)  # the commit may have left just before the crash
    desk.now_s += 60.0
    desk.restart()
    assert not desk.sent(Cfp)
    assert desk.sent(QueryStatus), "asking is quicker than waiting"
    desk.after(desk.config.lease_wait_s() - 0.01)
    assert not desk.sent(Cfp)
    desk.after(0.02)
    assert desk.sent(Cfp)


def test_a_holder_that_still_renews_after_our_restart_keeps_its_work() -> None:
    desk = InitiatorDesk()
    holder = desk.committed()
    epoch = desk.epoch
    desk.restart()
    desk.renew(holder, epoch=epoch, sequence=2)
    assert desk.one(Renewed).epoch == epoch
    assert desk.changes()[-1].state is TaskState.EXECUTING
    desk.inform(holder, epoch=epoch)
    assert desk.state() is TaskState.DONE


def test_a_reservation_that_comes_after_our_restart_gets_a_lease_of_its_own() -> None:
    desk = InitiatorDesk()
    desk.submit()
    desk.bids(1000, 2000, 3000)
    epoch = desk.epoch
    desk.restart()
    desk.now_s += desk.config.lease_wait_s() - 0.1  # the award was long on its way
    desk.hear(desk.peers[0], Reserve(task=desk.task, epoch=epoch))
    assert desk.sent(Commit)
    desk.after(desk.config.lease_wait_s() - 0.01)
    assert not desk.sent(Cfp), "it may be working until then"
    desk.after(0.02)
    assert desk.sent(Cfp)


def test_epochs_after_a_restart_are_new_although_the_counter_was_not_written() -> None:
    desk = InitiatorDesk(peers=1)
    desk.offers = []
    desk.submit()
    before = {desk.epoch}
    for _ in range(3):
        desk.until_due()
        before.add(desk.epoch)
    desk.restart()
    assert desk.epoch not in before


def test_doubt_outlives_a_restart() -> None:
    desk = in_doubt()
    desk.restart()
    assert desk.changes()[-1].state is TaskState.IN_DOUBT
    assert desk.sent(QueryStatus)
    assert not desk.sent(Cfp)


def test_an_adoption_under_way_goes_on_after_a_restart() -> None:
    desk = InitiatorDesk()
    holder = desk.committed(delivery=ALO)
    old = desk.epoch
    desk.feed(PeerLost(peer=holder))
    desk.renew(holder, epoch=old, sequence=2)
    desk.restart()
    desk.renew(holder, epoch=old, sequence=3)
    assert desk.one(Adopt).former == old


def test_the_checkpoint_of_a_forfeit_outlives_a_restart() -> None:
    desk = InitiatorDesk()
    desk.committed()
    epoch = desk.epoch
    desk.hear(
        desk.peers[0],
        Forfeit(task=desk.task, epoch=epoch, reason=Reason.DRAINING, checkpoint=b"half", checkpoint_version=3),
    )
    desk.restart()
    assert desk.one(Cfp).resumes
    for peer in desk.peers:
        desk.bid(peer, 1000)
    award = desk.one(AcceptProposal)
    assert (award.checkpoint, award.checkpoint_version) == (b"half", 3)


def test_a_task_that_was_being_called_is_called_again_after_a_restart() -> None:
    desk = InitiatorDesk()
    desk.submit()
    desk.restart()
    assert desk.sent(Cfp)
    u = desk.machine.find(desk.task)
    assert u is not None
    assert u.phase is Phase.CALLING
