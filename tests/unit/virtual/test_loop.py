"""The loop in virtual time: order, jumps, ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap

import pytest

from meshagent.virtual.loop import VirtualDeadlockError, bury, make_loop


def test_an_hour_of_sleep_takes_no_time() -> None:
    loop = make_loop()

    async def nap() -> float:
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    assert loop.run_until_complete(nap()) == 3600.0


def test_timers_of_one_instant_run_in_the_order_they_were_set() -> None:
    loop, seen = make_loop(), list[int]()
    for number in range(50):
        loop.call_at(1.0, seen.append, number)
    loop.run_forever()
    assert seen == list(range(50))


def test_whoever_waits_for_the_last_ulp_before_a_deadline_gets_there() -> None:
    # Seed 0x70d: now + (deadline - now) was now again, and a loop that re-armed its timer stood still.
    loop = make_loop()

    async def until(deadline_s: float) -> int:
        rounds = 0
        while (left_s := deadline_s - loop.time()) > 0:
            rounds += 1
            assert rounds < 10
            loop.call_at(loop.time() + left_s / 4e6, ready.set)
            await ready.wait()
            ready.clear()
        return rounds

    ready = asyncio.Event()
    loop.call_at(1.0, lambda: None)
    loop.run_forever()
    assert loop.run_until_complete(until(1.0 + 3e-16)) >= 1


def test_waiting_for_nothing_is_told_as_a_deadlock_that_names_who_waits() -> None:
    loop = make_loop(name="q3")

    async def wait_for_ever() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(VirtualDeadlockError, match="q3-task-1"):
        loop.run_until_complete(wait_for_ever())


def test_asyncio_tools_work_on_it() -> None:
    loop = make_loop()

    async def work() -> list[str]:
        queue: asyncio.Queue[str] = asyncio.Queue(1)
        seen: list[str] = []

        async def produce() -> None:
            for word in ("a", "b"):
                await asyncio.sleep(0.5)
                await queue.put(word)

        async with asyncio.TaskGroup() as group:
            group.create_task(produce())
            for _ in range(2):
                seen.append(await queue.get())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await queue.get()
        seen.append(await asyncio.to_thread(str.upper, "inline"))
        seen.append(f"{asyncio.get_running_loop().time():g}")
        return seen

    assert loop.run_until_complete(work()) == ["a", "b", "INLINE", "6"]


def test_a_callback_from_a_thread_is_only_a_callback() -> None:
    loop, seen = make_loop(), list[str]()
    loop.call_soon_threadsafe(seen.append, "x")
    loop.run_forever()
    assert seen == ["x"]


def test_what_nobody_catches_is_kept_for_the_report() -> None:
    loop = make_loop()

    def broken() -> None:
        raise ValueError("in a callback")

    loop.call_soon(broken)
    loop.run_forever()
    assert len(loop.errors) == 1
    assert "in a callback" in loop.errors[0]


def test_an_abandoned_loop_runs_nothing_not_even_finally() -> None:
    loop, seen = make_loop(), list[str]()

    async def guarded() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            seen.append("cleaned up")

    loop.create_task(guarded())
    loop.turn()
    left = loop.abandon()
    loop.call_soon(seen.append, "later")
    assert loop.next_due_s() is None
    assert seen == []
    bury(left)
    assert seen == ["cleaned up"]  # once the run is judged


def test_cancelled_timers_are_swept() -> None:
    loop = make_loop()
    for _ in range(10_000):
        loop.call_later(100.0, print).cancel()
    assert len(loop._timers) < 200


SETS = """
    import asyncio, hashlib
    from meshagent.virtual.loop import make_loop

    async def worker(name, seen):
        try:
            await asyncio.sleep(100)
        finally:
            seen.append(name)

    async def main():
        seen = []
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(40):
                    group.create_task(worker(f"w{number}", seen))
                await asyncio.sleep(1)
                raise KeyError("stop")
        except* KeyError:
            pass
        tasks = {asyncio.ensure_future(asyncio.sleep(1, result=number)) for number in range(40)}
        done, _ = await asyncio.wait(tasks)
        return seen, [task.result() for task in done]

    print(make_loop().run_until_complete(main()))
"""


def test_sets_of_tasks_iterate_alike_under_any_hash_seed() -> None:
    # TaskGroup cancels from a set of tasks, asyncio.wait returns one.
    outputs = {
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(SETS)],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "77")
    }
    assert len(outputs) == 1
    assert "w39" in outputs.pop()
