"""What every rival shares: arguments, bookkeeping of rounds, the printed row. Needs psutil alone."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable

import psutil

PAYLOAD = b"x" * 180
"""With a tag and a round number in front a message has about 200 bytes."""


def arguments(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--participants", type=int, default=16)
    parser.add_argument("--in-flight", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--sign", action="store_true", help="sign and verify every message (grpc only)")
    return parser.parse_args()


class Rounds:
    """Keeps `in_flight` rounds going until `total` are done; the system under test calls proposed() and done()."""

    def __init__(self, participants: int, in_flight: int, total: int, call: Callable[[int], None]) -> None:
        self._participants = participants
        self._in_flight = in_flight
        self._total = total
        self._call = call
        self._warm = warm_rounds(total)
        self._waiting: dict[int, int] = {}
        self._started_at: dict[int, float] = {}
        self._latencies_s: list[float] = []
        self._next = 0
        self._done = 0
        self._measured_from_s = 0.0
        self._measured_until_s = 0.0

    def start(self) -> None:
        for _ in range(self._in_flight):
            self._begin()

    def _begin(self) -> None:
        number = self._next
        self._next += 1
        self._waiting[number] = self._participants
        self._started_at[number] = time.perf_counter()
        self._call(number)

    def proposed(self, number: int) -> bool:
        """One proposal arrived; True: it was the last, award now."""
        self._waiting[number] -= 1
        return self._waiting[number] == 0

    def done(self, number: int) -> bool:
        """A round ended; True: it was the last one, stop."""
        now = time.perf_counter()
        del self._waiting[number]
        started = self._started_at.pop(number)
        self._done += 1
        if self._done == self._warm:
            self._measured_from_s = now
        elif self._done > self._warm:
            self._latencies_s.append(now - started)
        if self._done >= self._total + self._warm:
            self._measured_until_s = now
            return True
        if self._next < self._total + self._warm:
            self._begin()
        return False

    def row(self) -> dict[str, float | int]:
        ordered = sorted(self._latencies_s)
        elapsed_s = self._measured_until_s - self._measured_from_s
        return {
            "rounds": len(ordered),
            "rounds_per_s": round(len(ordered) / elapsed_s, 1),
            "p50_ms": round(1000 * ordered[len(ordered) // 2], 2),
            "p99_ms": round(1000 * ordered[int(len(ordered) * 0.99)], 2),
            "rss_mib": round(_mean_rss_mib(), 1),
        }


def cpu_s() -> float:
    """Processor time of this process and all its children so far, seconds."""
    me = psutil.Process(os.getpid())
    total = 0.0
    for process in [me, *me.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue  # it has just ended
        total += times.user + times.system
    return total


def rounds_in_all(total: int) -> int:
    """Rounds played for `total` measured ones: the first ones warm up."""
    return total + warm_rounds(total)


def warm_rounds(total: int) -> int:
    """Rounds before the clock starts; the same for every system."""
    return max(20, total // 10)


def _mean_rss_mib() -> float:
    """Mean resident memory of this process and its children that take part, MiB."""
    me = psutil.Process(os.getpid())
    sizes = [p.memory_info().rss for p in [me, *me.children(recursive=True)] if "resource_tracker" not in _line(p)]
    return sum(sizes) / len(sizes) / 2**20


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def report(row: dict[str, float | int]) -> None:
    print(json.dumps(row), flush=True)
