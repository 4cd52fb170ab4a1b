"""Token buckets."""

from __future__ import annotations

from meshagent.identity.buckets import Bucket


def test_a_bucket_gives_its_burst_then_its_rate() -> None:
    bucket = Bucket(rate=10, burst=5, now_s=100)
    assert [bucket.take(1, 100) for _ in range(6)] == [True] * 5 + [False]
    assert not bucket.take(1, 100.05)
    assert bucket.take(1, 100.15)
    assert not bucket.take(6, 1000)
    assert bucket.take(5, 1000)


def test_a_clock_that_goes_back_gains_nothing() -> None:
    bucket = Bucket(rate=10, burst=1, now_s=100)
    assert bucket.take(1, 100)
    assert not bucket.take(1, 0)
    assert not bucket.take(1, 100)
    assert bucket.take(1, 100.2)
