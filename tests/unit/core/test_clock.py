"""Stamps grow, whatever the clocks do."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshagent.core.clock import COUNTER_BITS, MAX_STAMP, MERGE_AHEAD_MS, RESERVE_MS, HybridClock, stamp_wall_s

NOW_S = 1_760_000_000.0


def clock(wall_at_zero_s: float = NOW_S, resume_above: int = 0) -> HybridClock:
    return HybridClock(wall_at_zero_s=wall_at_zero_s, resume_above=resume_above)


def test_a_stamp_says_the_wall_time_to_the_millisecond() -> None:
    assert stamp_wall_s(clock().stamp(12.345)) == pytest.approx(NOW_S + 12.345, abs=0.001)


@given(st.lists(st.floats(0, 1e6, allow_nan=False), min_size=2, max_size=40))
def test_stamps_grow_although_the_clock_goes_back(times: list[float]) -> None:
    c = clock()
    stamps = [c.stamp(t) for t in times]
    assert all(a < b for a, b in itertools.pairwise(stamps))


def test_many_stamps_in_one_millisecond_run_on_into_the_next() -> None:
    c = clock()
    first = c.stamp(1.0)
    for _ in range(1 << COUNTER_BITS):
        last = c.stamp(1.0)
    assert last == first + (1 << COUNTER_BITS)
    assert c.stamp(1.002) > last


def test_what_follows_a_received_stamp_is_above_it() -> None:
    c = clock()
    theirs = clock(NOW_S + 3.0).stamp(10.0)
    assert c.merge(theirs, 10.0)
    assert c.stamp(10.0) > theirs


def test_future_hlc_drags_nobody() -> None:
    c = clock()
    far = clock(NOW_S + MERGE_AHEAD_MS / 1000 + 60).stamp(10.0)
    assert not c.merge(far, 10.0)
    assert stamp_wall_s(c.stamp(10.0)) == pytest.approx(NOW_S + 10.0, abs=0.001)
    assert not c.merge(MAX_STAMP, 10.0)


def test_a_chain_of_slightly_fast_clocks_cannot_drag_further_than_the_bound() -> None:
    c = clock()
    for ahead in range(100):
        c.merge(clock(NOW_S + ahead).stamp(0.0), 0.0)
    assert stamp_wall_s(c.latest) <= NOW_S + MERGE_AHEAD_MS / 1000 + 0.001


def test_an_old_stamp_changes_nothing() -> None:
    c = clock()
    latest = c.stamp(10.0)
    assert c.merge(1, 10.0)
    assert c.latest == latest


@given(st.lists(st.floats(0, 60, allow_nan=False), min_size=1, max_size=30), st.floats(-1e6, 1e6, allow_nan=False))
def test_clock_back_after_a_restart_gives_no_stamp_twice(times: list[float], jump_s: float) -> None:
    c, durable, sent = clock(), 0, []
    for t in times:
        stamp = c.stamp(t)
        bound = c.bound_to_persist(t)
        if bound is not None:
            durable = bound  # the tick's commit, before its frames leave
        sent.append(stamp)
    again = clock(NOW_S + jump_s, resume_above=durable)
    assert again.stamp(0.0) > max(sent)


def test_the_bound_is_written_rarely() -> None:
    c = clock()
    writes = sum(c.stamp(i / 1000) is not None and c.bound_to_persist(i / 1000) is not None for i in range(60_000))
    assert writes <= 60_000 / (RESERVE_MS / 2) + 1


def test_stamps_stay_within_eight_bytes_even_with_an_absurd_clock() -> None:
    assert clock(1e15).stamp(0.0) <= MAX_STAMP
    assert clock(-1e15).stamp(0.0) > 0
