"""The outgoing side of a link: clocked by acknowledgement, bounded, and saying what it drops."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from meshagent.core.bodies import Rejections
from meshagent.runtime.outbox import FRAME_BUDGET_BYTES, Item, Outbox, OutboxConfig, Put
from meshagent.wire import codec
from meshagent.wire.acts import MAX_REJECTIONS
from meshagent.wire.codec import TYPE_REJECT_PROPOSAL
from meshagent.wire.frame import MAX_FRAME_MESSAGES

CONFIG = OutboxConfig(window=1, ack_delay_s=0.005, linger_s=0.05)


def item(size: int = 10, **kwargs: bool) -> Item:
    return Item(17, bytes(size), ttl_ms=1000, **kwargs)


def send(box: Outbox, now_s: float) -> list[Item]:
    items = box.take(now_s)
    box.sent(items, now_s)
    return items


def test_the_first_message_leaves_at_once() -> None:
    box = Outbox(CONFIG)
    assert not box.may_send(0.0)
    box.put(item(), 0.0)
    assert box.may_send(0.0)
    assert len(send(box, 0.0)) == 1


def test_what_is_said_while_a_frame_is_in_flight_leaves_as_one_frame_after_its_acknowledgement() -> None:
    box = Outbox(CONFIG)
    box.put(item(), 0.0)
    send(box, 0.0)
    for _ in range(5):
        box.put(item(), 0.01)
    assert not box.may_send(0.02)
    assert box.heard(0, 1, 0.03)
    assert box.may_send(0.03)
    assert len(send(box, 0.03)) == 5
    assert box.seq == 2


def test_a_window_of_two_lets_a_second_frame_leave_and_holds_the_third() -> None:
    box = Outbox(OutboxConfig(window=2))
    for _ in range(2):
        box.put(item(), 0.0)
        assert box.may_send(0.0)
        send(box, 0.0)
    box.put(item(), 0.0)
    assert not box.may_send(0.0)
    box.heard(0, 1, 0.01)
    assert box.may_send(0.01)


def test_nothing_overtakes_a_sticky_item_whatever_the_window() -> None:
    """So that the acknowledgement of its frame tells its fate."""
    box = Outbox(OutboxConfig(window=4))
    box.put(item(sticky=True), 0.0)
    send(box, 0.0)
    box.put(item(), 0.0)
    assert not box.may_send(0.0)
    box.heard(0, 1, 0.01)
    assert box.may_send(0.01)


def test_an_overdue_acknowledgement_releases_the_clock_with_growing_patience() -> None:
    box = Outbox(CONFIG)
    now_s = 0.0
    box.put(item(), now_s)
    send(box, now_s)
    for patience_s in (0.25, 0.5, 1.0, 2.0, 2.0):
        box.put(item(), now_s)
        assert not box.may_send(now_s + patience_s - 0.01)
        assert box.next_deadline_s() == now_s + patience_s
        now_s += patience_s
        assert box.may_send(now_s)
        send(box, now_s)
    box.heard(0, box.seq, now_s)
    box.put(item(), now_s)
    send(box, now_s)
    box.put(item(), now_s)
    assert box.next_deadline_s() == now_s + 0.25


def test_an_old_acknowledgement_does_not_release_the_clock() -> None:
    box = Outbox(CONFIG)
    box.put(item(), 0.0)
    send(box, 0.0)
    box.put(item(), 0.0)
    send(box, 0.3)
    box.put(item(), 0.3)
    assert box.heard(0, 1, 0.31)
    assert not box.may_send(0.32)
    assert box.heard(0, 2, 0.33)
    assert box.may_send(0.33)


def test_acknowledging_what_was_never_sent_is_a_lie() -> None:
    box = Outbox(CONFIG)
    assert not box.heard(1, 1, 0.0)
    assert box.received == 0


def test_an_acknowledgement_rides_on_data_and_goes_alone_after_some_milliseconds() -> None:
    box = Outbox(CONFIG)
    box.heard(1, 0, 0.0)
    assert not box.may_send(0.001)
    assert box.next_deadline_s() == CONFIG.ack_delay_s
    box.put(item(), 0.001)
    assert box.sent(box.take(0.001), 0.001) == (1, 1, True)
    assert box.next_deadline_s() == float("inf")
    box.heard(2, 1, 0.01)
    assert box.may_send(0.01 + CONFIG.ack_delay_s)
    assert box.sent(box.take(0.02), 0.02) == (0, 2, False)
    assert box.seq == 1


def test_whoever_used_up_the_window_says_so_and_is_answered_sooner() -> None:
    talker, listener = Outbox(OutboxConfig()), Outbox(OutboxConfig())
    for waits in (False, True):
        talker.put(item(), 0.0)
        seq, ack, ack_soon = talker.sent(talker.take(0.0), 0.0)
        assert ack_soon is waits
        listener.heard(seq, ack, 0.0, ack_soon=ack_soon)
        config = OutboxConfig()
        assert listener.next_deadline_s() == (config.ack_soon_s if waits else config.ack_delay_s)


def test_an_acknowledgement_leaves_although_our_own_frame_is_in_flight() -> None:
    box = Outbox(CONFIG)
    box.put(item(), 0.0)
    send(box, 0.0)
    box.put(item(), 0.0)
    box.heard(1, 0, 0.0)
    assert box.may_send(0.01)
    assert send(box, 0.01) == []
    assert len(box) == 1


def test_what_is_not_urgent_waits_for_a_frame_to_ride_with_but_not_forever() -> None:
    box = Outbox(CONFIG)
    box.put(item(), 0.0, urgent=False)
    assert not box.may_send(0.01)
    assert box.next_deadline_s() == CONFIG.linger_s
    assert box.may_send(CONFIG.linger_s)
    box.put(item(), 0.02)
    assert len(send(box, 0.02)) == 2


def test_rejections_ride_in_one_message_with_the_next_frame_or_after_a_while() -> None:
    box = Outbox(CONFIG)
    for n in range(3):
        assert box.ride(bytes((n,)) * 76, 1000, 0.0) is Put.QUEUED
    assert not box.may_send(0.01)
    assert box.next_deadline_s() == CONFIG.linger_s
    act = item()
    box.put(act, 0.02)
    first, riders = send(box, 0.02)
    assert first is act
    assert riders.type == TYPE_REJECT_PROPOSAL
    rejections = codec.decode(riders.type, riders.payload)
    assert isinstance(rejections, Rejections)
    assert len(rejections.acts) == 3
    box.heard(0, 1, 0.03)
    box.ride(bytes(76), 1000, 0.03)
    assert box.may_send(0.03 + CONFIG.linger_s)
    assert len(send(box, 0.03 + CONFIG.linger_s)) == 1
    assert len(box) == 0


def test_more_rejections_than_a_message_holds_become_several() -> None:
    box = Outbox(CONFIG)
    for _ in range(2 * MAX_REJECTIONS + 1):
        box.ride(bytes(76), 1000, 0.0)
    assert len(send(box, CONFIG.linger_s)) == 3


def test_telemetry_gives_way_to_acts_oldest_first() -> None:
    box = Outbox(OutboxConfig(max_messages=3))
    news = [item(telemetry=True) for _ in range(2)]
    act = item()
    for one in (news[0], act, news[1]):
        assert box.put(one, 0.0) is Put.QUEUED
    second, third = item(), item()
    assert box.put(second, 0.0) is Put.QUEUED
    assert box.put(third, 0.0) is Put.QUEUED
    assert box.dropped == 2
    assert send(box, 0.0) == [act, second, third]


def test_a_queue_full_of_acts_refuses_telemetry_and_overflows_on_an_act() -> None:
    box = Outbox(OutboxConfig(max_messages=2))
    box.put(item(), 0.0)
    box.put(item(), 0.0)
    assert box.put(item(telemetry=True), 0.0) is Put.DROPPED
    assert box.put(item(), 0.0) is Put.OVERFLOW
    assert len(box) == 2


def test_bytes_are_bounded_too() -> None:
    box = Outbox(OutboxConfig(max_bytes=100_000))
    assert box.put(item(60_000), 0.0) is Put.QUEUED
    assert box.put(item(60_000), 0.0) is Put.OVERFLOW
    assert box.put(item(60_000, telemetry=True), 0.0) is Put.DROPPED


def test_a_sticky_item_leaves_again_when_its_acknowledgement_is_overdue() -> None:
    box = Outbox(CONFIG)
    profile = item(sticky=True)
    box.put(profile, 0.0)
    send(box, 0.0)
    assert box.next_deadline_s() == 0.25
    assert box.may_send(0.25)
    assert send(box, 0.25) == [profile]
    box.heard(0, 2, 0.3)
    assert not box.may_send(10.0)
    assert box.next_deadline_s() == float("inf")


def test_round_trip_time_follows_the_quickest_answers() -> None:
    box = Outbox(CONFIG)
    now_s = 0.0
    for wait_s in (0.01, 0.002, 0.05):
        box.put(item(), now_s)
        send(box, now_s)
        box.heard(0, box.seq, now_s + wait_s)
        now_s += 1.0
    assert box.rtt_s is not None
    assert 0.002 < box.rtt_s < 0.004


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 40_000), st.booleans(), st.booleans(), st.booleans()),
        st.tuples(st.just("ride")),
        st.tuples(st.just("wait"), st.floats(0.0, 1.0)),
        st.tuples(st.just("ack")),
        st.tuples(st.just("frame")),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(script=steps, window=st.sampled_from([1, 2, 4]))
def test_everything_queued_leaves_once_in_order_within_frame_bounds_and_never_stalls(
    script: list[tuple[Any, ...]], window: int
) -> None:
    """Order and once: for what is not sticky. No stall: with something waiting there is a next instant at which a
    frame may leave, whatever happened."""
    box = Outbox(OutboxConfig(window=window, max_messages=20, max_bytes=400_000))
    now_s = 0.0
    peers_seq = 0
    accepted: list[Item] = []
    left: list[Item] = []
    rode = 0

    def leave() -> None:
        assert box.may_send(now_s)
        items = box.take(now_s)
        seq, ack, _ = box.sent(items, now_s)
        assert ack == box.received
        assert (seq == 0) == (not items)
        assert len(items) <= MAX_FRAME_MESSAGES
        assert sum(one.size for one in items) <= FRAME_BUDGET_BYTES
        left.extend(items)

    for step in script:
        match step:
            case ("put", size, telemetry, sticky, urgent):
                one = Item(17, bytes(size), ttl_ms=1, telemetry=telemetry, sticky=sticky)
                if box.put(one, now_s, urgent=urgent) is Put.QUEUED:
                    accepted.append(one)
            case ("ride",):
                assert box.ride(bytes(76), 1, now_s) is not Put.DROPPED
                rode += 1
            case ("wait", seconds):
                now_s += seconds
            case ("ack",):
                assert box.heard(0, box.seq, now_s)
            case ("frame",):
                peers_seq += 1
                assert box.heard(peers_seq, box.acked, now_s)
        if box.may_send(now_s):
            leave()
    for _ in range(200):
        if not len(box):
            break
        now_s = max(now_s, box.next_deadline_s())
        assert now_s < float("inf"), "something waits and nothing will ever move it"
        if box.may_send(now_s):
            leave()
    assert not len(box)
    firm_in = [one for one in accepted if not one.telemetry and not one.sticky]
    riders = [one for one in left if one.type == TYPE_REJECT_PROPOSAL]
    firm_out = [one for one in left if not one.telemetry and not one.sticky and one not in riders]
    assert firm_out == firm_in
    assert {id(one) for one in left if one not in riders} <= set(map(id, accepted))
    arrived = [codec.decode(one.type, one.payload) for one in riders]
    assert sum(len(one.acts) if isinstance(one, Rejections) else 1 for one in arrived) == rode
