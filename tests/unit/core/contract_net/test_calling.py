"""The initiator's call: who is asked, who wins, what becomes of late, stale, forged and foreign answers."""

from __future__ import annotations

import itertools

import pytest

from meshagent.core.acts import (
    AcceptProposal,
    Cancel,
    Cfp,
    Commit,
    NotUnderstood,
    Propose,
    Refuse,
    RejectProposal,
    Reserve,
)
from meshagent.core.contract_net.interface import PeerFound, PeerLost, Persist, Send, TaskSubmitted
from meshagent.types import Epoch, NodeId, Reason, TaskState, task_id_of
from tests.support.contract_desk import BOOT, InitiatorDesk
from tests.support.contract_model import node_id, record_of


def refuse(desk: InitiatorDesk, peer: NodeId, reason: Reason, *, good: bool = True, **more: object) -> None:
    desk.hear(peer, Refuse(task=desk.task, epoch=desk.epoch, reason=reason, **more), good=good)  # type: ignore[arg-type]


def awarded(desk: InitiatorDesk) -> NodeId:
    [(to, _)] = desk.sent(AcceptProposal)
    return to[0]


# ---- asking and closing


def test_everyone_who_offers_the_kind_is_asked_at_once_and_the_same() -> None:
    desk = InitiatorDesk()
    record = desk.submit(within_s=60)
    [(to, cfp)] = desk.sent(Cfp)
    assert to == tuple(sorted(desk.peers))
    assert (cfp.record, cfp.within_ms, cfp.reply_within_ms, cfp.resumes) == (record, 60_000, 400, False)
    assert isinstance(desk.last[0], Persist), "accepted means persisted before anything is said"


def test_the_call_ends_when_all_have_answered_and_the_cheapest_is_awarded() -> None:
    desk = InitiatorDesk()
    desk.submit()
    desk.bid(desk.peers[0], 3000)
    desk.bid(desk.peers[1], 1000)
    assert not desk.sent(AcceptProposal)
    desk.bid(desk.peers[2], 2000)
    assert awarded(desk) == desk.peers[1]
    assert desk.notes("closed")[0]["early_s"] == 0.4
    assert desk.notes("accept_proposal")[0]["runner_up"] == desk.peers[2]
    assert isinstance(desk.last[0], Persist), "an award is durable before it leaves"


def test_load_counts_by_its_power_and_not_by_its_size() -> None:
    desk = InitiatorDesk(peers=2, potential_p=4)
    desk.submit()
    desk.bid(desk.peers[0], 1000, load_ms=10_000)
    desk.bid(desk.peers[1], 3000, load_ms=0)
    assert awarded(desk) == desk.peers[1]


def test_a_refusal_is_an_answer_and_its_reason_is_kept() -> None:
    desk = InitiatorDesk()
    desk.submit()
    refuse(desk, desk.peers[0], Reason.BATTERY, detail="would come home with 11 %")
    assert desk.notes("refuse") == [{"reason": "BATTERY", "detail": "would come home with 11 %"}]
    refuse(desk, desk.peers[1], Reason.UNREACHABLE)
    refuse(desk, desk.peers[2], Reason.BATTERY)
    [change] = desk.changes()[-1:]
    assert change.state is TaskState.BACKOFF
    assert change.reason is Reason.NO_BIDS
    assert change.detail == "0 bids, 3 refusals: BATTERY 2, UNREACHABLE 1"


def test_a_lost_peer_is_not_waited_for() -> None:
    desk = InitiatorDesk()
    desk.submit()
    desk.bid(desk.peers[0], 1000)
    desk.bid(desk.peers[1], 2000)
    desk.feed(PeerLost(peer=desk.peers[2]))
    assert awarded(desk) == desk.peers[0]


def test_a_bidder_that_is_lost_before_the_close_does_not_win() -> None:
    desk = InitiatorDesk()
    desk.submit()
    desk.bid(desk.peers[0], 1000)
    desk.feed(PeerLost(peer=desk.peers[0]))
    desk.bid(desk.peers[1], 2000)
    desk.bid(desk.peers[2], 3000)
    assert awarded(desk) == desk.peers[1]


def test_silence_ends_at_reply_by_and_the_silent_are_named() -> None:
    desk = InitiatorDesk()
    desk.submit()
    desk.bid(desk.peers[1], 2000)
    desk.after(0.39)
    assert not desk.sent(AcceptProposal)
    desk.after(0.01)
    assert awarded(desk) == desk.peers[1]
    assert desk.notes("closed")[0]["silent"] == " ".join(sorted([desk.peers[0], desk.peers[2]]))


def test_a_late_proposal_is_noted_and_never_wins() -> None:
    desk = InitiatorDesk()
    desk.submit()
    desk.bid(desk.peers[1], 2000)
    desk.until_due()
    desk.now_s += 0.05
    desk.bid(desk.peers[0], 1)
    assert desk.notes("late") == [{"act": "propose", "late_s": 0.05}]
    assert not desk.of(Send)
    desk.bid(desk.peers[0], 1)
    assert not desk.last, "once is enough"


def test_a_proposal_of_an_earlier_call_is_stale_and_ignored() -> None:
    desk = InitiatorDesk(peers=1)
    desk.submit()
    old = desk.epoch
    refuse(desk, desk.peers[0], Reason.BUSY)
    desk.until_due()
    assert desk.epoch > old
    desk.hear(desk.peers[0], Propose(task=desk.task, epoch=old, added_ms=1, load_ms=0, plan_version=1))
    assert not desk.last


def test_only_the_first_of_two_proposals_of_one_peer_counts() -> None:
    desk = InitiatorDesk()
    desk.submit()
    desk.bid(desk.peers[0], 9000)
    desk.bid(desk.peers[0], 1)
    desk.bid(desk.peers[1], 2000)
    desk.bid(desk.peers[2], 3000)
    assert awarded(desk) == desk.peers[1]


def test_a_proposal_from_a_peer_that_was_not_asked_is_not_understood() -> None:
    desk = InitiatorDesk()
    desk.submit()
    desk.bid(node_id(77), 1)
    assert desk.one(NotUnderstood).reason is Reason.ILLEGAL_NOW
    assert desk.notes("not_understood")[0]["act"] == "propose"


@pytest.mark.parametrize("price", [-1, 1 << 60, 1.5, float("nan"), True])
def test_nan_bid_and_other_nonsense_prices_are_no_bids(price: int) -> None:
    desk = InitiatorDesk(peers=1)
    desk.submit()
    desk.bid(desk.peers[0], price)
    assert desk.one(NotUnderstood).reason is Reason.ILLEGAL_NOW
    desk.until_due()
    assert desk.state() is TaskState.BACKOFF


def test_the_winner_does_not_depend_on_the_order_of_the_bids() -> None:
    winners = set()
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        desk = InitiatorDesk()
        desk.submit()
        for i in order:
            desk.bid(desk.peers[i], 5000)
        winners.add(awarded(desk))
    assert len(winners) == 1


def test_two_calls_run_at_once_and_neither_waits() -> None:
    desk = InitiatorDesk(peers=2)
    first = desk.submit(1)
    second = desk.submit(2)
    desk.bids(1000, 2000)
    assert awarded(desk) == desk.peers[0]
    desk.record = first
    desk.bids(2000, 1000)
    assert awarded(desk) == desk.peers[1]
    assert desk.machine.open_count == 2
    assert second.task != first.task


# ---- nobody


def test_nobody_offers_it_and_a_found_peer_is_called_at_once() -> None:
    desk = InitiatorDesk()
    desk.offers = []
    desk.submit()
    assert desk.changes()[-1].detail == "nobody offers it"
    desk.now_s += 0.2
    desk.offers = desk.peers[:1]
    desk.feed(PeerFound(peer=desk.peers[0]))
    assert desk.sent(Cfp)[0][0] == (desk.peers[0],)


def test_a_flickering_offer_does_not_make_a_call_each_time() -> None:
    desk = InitiatorDesk(peers=1)
    desk.submit()
    refuse(desk, desk.peers[0], Reason.BUSY)
    calls = 0
    for _ in range(100):
        desk.now_s += 0.01
        desk.feed(PeerFound(peer=desk.peers[0]))
        if desk.sent(Cfp):
            calls += 1
            refuse(desk, desk.peers[0], Reason.BUSY)
    assert 1 <= calls <= 1.0 / desk.config.resend_s


def test_a_peer_found_during_the_call_is_asked_too() -> None:
    desk = InitiatorDesk(peers=2)
    desk.offers = desk.peers[:1]
    desk.submit()
    desk.offers = desk.peers
    desk.feed(PeerFound(peer=desk.peers[1]))
    assert desk.sent(Cfp)[0][0] == (desk.peers[1],)
    desk.bid(desk.peers[0], 2000)
    assert not desk.sent(AcceptProposal)
    desk.bid(desk.peers[1], 1000)
    assert awarded(desk) == desk.peers[1]


def test_backoff_doubles_with_jitter_up_to_its_bound() -> None:
    desk = InitiatorDesk()
    desk.offers = []
    desk.submit()
    waits = []
    for _ in range(8):
        waits.append(desk.notes("backoff")[0]["again_s"])
        desk.until_due()
    for i, wait_s in enumerate(waits):
        most_s = min(8.0, 0.5 * 2**i)
        assert most_s / 2 <= wait_s <= most_s
    assert len(set(waits)) == len(waits)


# ---- proofs are checked late


def test_a_forged_winner_is_dropped_and_the_next_is_awarded() -> None:
    desk = InitiatorDesk()
    desk.submit()
    desk.bid(desk.peers[0], 1, good=False)
    desk.bid(desk.peers[1], 1000)
    desk.bid(desk.peers[2], 2000)
    assert awarded(desk) == desk.peers[1]
    assert desk.notes("forged") == [{"act": "propose"}]


def test_a_forged_claim_to_hold_the_result_wins_nothing() -> None:
    desk = InitiatorDesk(peers=2)
    desk.submit(key="pump-7")
    desk.bid(desk.peers[0], 0, holds_result=True, good=False)
    desk.bid(desk.peers[1], 1000)
    assert awarded(desk) == desk.peers[1]


def test_who_holds_the_result_is_awarded_before_a_cheaper_bid_and_answers_at_once() -> None:
    desk = InitiatorDesk(peers=2)
    desk.submit(key="pump-7")
    desk.bid(desk.peers[0], 5000, load_ms=5000, holds_result=True)
    desk.bid(desk.peers[1], 1)
    assert awarded(desk) == desk.peers[0]
    desk.inform(desk.peers[0], result=b"done before")
    assert desk.changes()[-1].state is TaskState.DONE
    assert desk.changes()[-1].result == b"done before"


def test_a_duplicate_under_way_elsewhere_is_awarded_to_nobody() -> None:
    desk = InitiatorDesk(peers=2)
    other = record_of(node_id(4)).task
    desk.submit(key="pump-7")
    desk.bid(desk.peers[0], 1000)
    refuse(desk, desk.peers[1], Reason.DUPLICATE, duplicate_of=other)
    assert not desk.sent(AcceptProposal)
    assert desk.changes()[-1].state is TaskState.BACKOFF
    assert desk.changes()[-1].reason is Reason.DUPLICATE


def test_a_forged_duplicate_is_not_believed() -> None:
    desk = InitiatorDesk(peers=2)
    desk.submit(key="pump-7")
    desk.bid(desk.peers[0], 1000)
    refuse(desk, desk.peers[1], Reason.DUPLICATE, duplicate_of=record_of(node_id(4)).task, good=False)
    assert awarded(desk) == desk.peers[0]


# ---- awarding


def test_an_award_is_repeated_in_ever_longer_steps() -> None:
    desk = InitiatorDesk(award_timeout_s=5.0)
    desk.submit()
    desk.bids(1000, 2000, 3000)
    times = [desk.now_s]
    for _ in range(3):
        desk.until_due()
        assert awarded(desk) == desk.peers[0]
        times.append(desk.now_s)
    gaps = [round(b - a, 3) for a, b in itertools.pairwise(times)]
    assert gaps == [0.12, 0.24, 0.48]


def test_silence_after_the_award_goes_to_the_runner_up_under_a_new_epoch() -> None:
    desk = InitiatorDesk()
    desk.submit()
    desk.bids(1000, 2000, 3000)
    first = desk.epoch
    desk.after(0.4)
    assert awarded(desk) == desk.peers[1]
    assert desk.epoch > first
    [(to, cancel)] = desk.sent(Cancel)
    assert (to, cancel.epoch) == ((desk.peers[0],), first), "the silent one is told, under its own epoch"


def test_a_late_reservation_of_the_silent_one_is_fenced_and_gets_no_commit() -> None:
    desk = InitiatorDesk()
    desk.submit()
    desk.bids(1000, 2000, 3000)
    first = desk.epoch
    desk.after(0.4)
    desk.hear(desk.peers[0], Reserve(task=desk.task, epoch=first))
    assert not desk.sent(Commit)
    assert desk.one(Cancel).epoch == first


def test_a_lost_awardee_is_not_waited_for() -> None:
    desk = InitiatorDesk()
    desk.submit()
    desk.bids(1000, 2000, 3000)
    desk.feed(PeerLost(peer=desk.peers[0]))
    assert awarded(desk) == desk.peers[1]


def test_a_lost_runner_up_is_not_awarded() -> None:
    desk = InitiatorDesk()
    desk.submit()
    desk.bids(1000, 2000, 3000)
    desk.feed(PeerLost(peer=desk.peers[1]))
    desk.after(0.4)
    assert awarded(desk) == desk.peers[2]


def test_a_stale_bid_stands_in_line_again_at_its_new_price() -> None:
    desk = InitiatorDesk()
    desk.submit()
    desk.bids(1000, 2000, 3000)
    first = desk.epoch
    refuse(desk, desk.peers[0], Reason.STALE_BID, added_ms=2500, load_ms=0)
    assert awarded(desk) == desk.peers[1]
    assert desk.epoch > first
    refuse(desk, desk.peers[1], Reason.BUSY)
    assert awarded(desk) == desk.peers[0]
    assert desk.one(AcceptProposal).added_ms == 2500


def test_a_bid_that_goes_stale_twice_is_not_tried_a_third_time() -> None:
    desk = InitiatorDesk(peers=1)
    desk.submit()
    desk.bids(1000)
    refuse(desk, desk.peers[0], Reason.STALE_BID, added_ms=1500, load_ms=0)
    assert awarded(desk) == desk.peers[0]
    refuse(desk, desk.peers[0], Reason.STALE_BID, added_ms=2500, load_ms=0)
    assert desk.state() is TaskState.BACKOFF


def test_a_duplicate_met_at_the_award_ends_the_call_too() -> None:
    desk = InitiatorDesk(peers=2)
    desk.submit(key="pump-7")
    desk.bids(1000, 2000)
    refuse(desk, desk.peers[0], Reason.DUPLICATE, duplicate_of=record_of(node_id(4)).task)
    assert not desk.sent(AcceptProposal)
    assert desk.state() is TaskState.BACKOFF


def test_a_forged_refusal_of_the_award_changes_nothing() -> None:
    desk = InitiatorDesk()
    desk.submit()
    desk.bids(1000, 2000, 3000)
    refuse(desk, desk.peers[0], Reason.BUSY, good=False)
    assert not desk.sent(AcceptProposal)
    assert desk.notes("forged") == [{"act": "refuse"}]


def test_a_peer_that_has_seen_a_later_epoch_moves_us_above_it() -> None:
    desk = InitiatorDesk()
    desk.submit()
    desk.bids(1000, 2000, 3000)
    refuse(desk, desk.peers[0], Reason.STALE_EPOCH, seen=Epoch(41, desk.me, BOOT))
    assert desk.epoch.counter == 42


def test_a_call_that_a_peer_calls_stale_is_awarded_above_what_it_has_seen() -> None:
    desk = InitiatorDesk()
    desk.submit()
    call, seen = desk.epoch, Epoch(41, desk.me, BOOT)
    desk.hear(desk.peers[0], Refuse(task=desk.task, epoch=call, reason=Reason.STALE_EPOCH, seen=seen))
    for peer in desk.peers[1:]:
        desk.hear(peer, Propose(task=desk.task, epoch=call, added_ms=1000, load_ms=0, plan_version=1))
    assert desk.one(AcceptProposal).epoch.counter == 42


@pytest.mark.parametrize("seen", [Epoch(1 << 62, node_id(0), BOOT), Epoch(41, node_id(3), BOOT)])
def test_counter_exhaustion_by_a_liar_is_bounded(seen: Epoch) -> None:
    desk = InitiatorDesk()
    desk.submit()
    desk.bids(1000, 2000, 3000)
    refuse(desk, desk.peers[0], Reason.STALE_EPOCH, seen=seen)
    assert desk.epoch.counter == 2


def test_the_reservation_brings_the_commit_and_quiet_rejections() -> None:
    desk = InitiatorDesk()
    desk.submit()
    desk.bids(1000, 2000, 3000)
    desk.reserve(desk.peers[0])
    assert desk.one(Commit).epoch == desk.epoch
    [rejection] = [send for send in desk.of(Send) if isinstance(send.act, RejectProposal)]
    assert set(rejection.to) == set(desk.peers[1:])
    assert not rejection.urgent
    assert desk.changes()[-1].state is TaskState.HELD
    assert not desk.of(Persist), "the award already counts as possibly committed"


def test_a_healthy_round_writes_three_times() -> None:
    desk = InitiatorDesk()
    writes = 0
    desk.submit()
    writes += len(desk.of(Persist))
    for peer, price in zip(desk.peers, (1000, 2000, 3000), strict=True):
        desk.bid(peer, price)
        writes += len(desk.of(Persist))
    desk.reserve(desk.peers[0])
    writes += len(desk.of(Persist))
    desk.renew(desk.peers[0])
    writes += len(desk.of(Persist))
    desk.inform(desk.peers[0])
    writes += len(desk.of(Persist))
    assert writes == 3


# ---- submission


def test_a_task_of_another_node_is_not_submitted_here() -> None:
    desk = InitiatorDesk()
    foreign = record_of(node_id(8))
    desk.feed(TaskSubmitted(record=foreign))
    [change] = desk.changes()
    assert (change.state, change.reason) == (TaskState.FAILED, Reason.INVALID_TASK)
    assert not desk.of(Persist)


def test_more_open_tasks_than_the_bound_are_refused() -> None:
    desk = InitiatorDesk(max_tasks=2)
    desk.submit(1)
    desk.submit(2)
    desk.submit(3)
    [change] = desk.changes()
    assert (change.state, change.reason) == (TaskState.FAILED, Reason.BUSY)


def test_the_same_submission_twice_is_one_task() -> None:
    desk = InitiatorDesk()
    desk.submit()
    desk.submit()
    assert not desk.last


def test_children_are_listed_under_their_parent() -> None:
    desk = InitiatorDesk()
    parent = desk.submit(1).task
    children = [desk.submit(n, parent=parent).task for n in (2, 3)]
    assert desk.machine.children_of(parent) == tuple(children)
    assert desk.machine.children_of(children[0]) == ()


def test_task_ids_are_bound_to_initiator_boot_and_nonce() -> None:
    record = record_of(node_id(0))
    assert record.task == task_id_of(record.initiator, record.boot, record.nonce)
    assert record.task != task_id_of(node_id(1), record.boot, record.nonce)
