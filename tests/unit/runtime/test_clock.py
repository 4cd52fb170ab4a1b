"""The clocks of a real device."""

from __future__ import annotations

import time

from meshagent.runtime.clock import SystemClock


def test_boot_time_counts_suspension_and_never_falls() -> None:
    clock = SystemClock()
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    first, second = clock.boot_s(), clock.boot_s()
    assert before <= first <= second <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_wall_time_is_that_of_the_device() -> None:
    before = time.clock_gettime(time.CLOCK_REALTIME)
    assert before <= SystemClock().wall_s() <= time.clock_gettime(time.CLOCK_REALTIME)
