"""Processes of the world: crash, stall, pause, suspension, drift, traces."""

from __future__ import annotations

import asyncio

import pytest

from meshagent.core.ports import Put
from meshagent.virtual.clock import Hardware
from meshagent.virtual.kernel import Death, Process, World, run_main
from meshagent.virtual.loop import VirtualDeadlockError, VirtualLivelockError


async def tick(process: Process, seen: list[tuple[float, float]], times: int = 1_000) -> None:
    for _ in range(times):
        await asyncio.sleep(1.0)
        seen.append((round(process.world.now_s, 6), round(process.clock.boot_s(), 6)))


def test_a_drifting_device_sleeps_by_its_own_clock() -> None:
    world, seen = World(0), list[tuple[float, float]]()
    world.device("fast", Hardware(rate=1.25, booted_at_s=0.0)).start(lambda process: tick(process, seen))
    world.run_for(2.0)
    assert seen == [(0.8, 1.0), (1.6, 2.0)]


def test_a_paused_process_finds_its_timers_overdue() -> None:
    world, seen = World(0), list[tuple[float, float]]()
    process = world.device("n", Hardware(booted_at_s=0.0)).start(lambda process: tick(process, seen))
    world.at(0.5, process.freeze)
    world.at(10.0, process.thaw)
    world.run_for(11.5)
    assert seen == [(10.0, 10.0), (11.0, 11.0)]


def test_a_suspended_device_sleeps_on_but_its_boot_time_has_passed() -> None:
    world, seen = World(0), list[tuple[float, float]]()
    process = world.device("n", Hardware(booted_at_s=0.0)).start(lambda process: tick(process, seen))
    world.at(0.25, lambda: process.freeze(suspend=True))
    world.at(10.0, process.thaw)
    world.run_for(11.0)
    assert seen == [(10.75, 10.75)]


def test_a_stall_lets_time_pass_inside_a_callback() -> None:
    world, seen = World(0), list[float]()

    async def main(process: Process) -> None:
        process.stall_at(1, 5.0)
        before_s = process.clock.boot_s()
        process.journal.commit([Put("t", "k", b"v")])
        seen.append(process.clock.boot_s() - before_s)
        await asyncio.sleep(0)
        seen.append(world.now_s)

    world.device("n").start(main)
    world.run_for(10.0)
    assert seen == [5.0, 5.0]


def test_the_boundaries_of_a_run_can_be_enumerated() -> None:
    async def main(process: Process) -> None:
        for _ in range(3):
            process.journal.commit([Put("t", "k", b"v")])

    def boundaries(crash_at: int | None) -> tuple[int, int]:
        world = World(0)
        process = world.device("n").start(main)
        if crash_at is not None:
            process.crash_at(crash_at)
        world.run_for(1.0)
        return process.boundaries, world.device("n").disk.commits

    assert boundaries(None) == (6, 3)
    assert [boundaries(k) for k in range(1, 7)] == [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (6, 3)]


def test_a_process_comes_back_with_its_disk_and_nothing_else() -> None:
    world = World(0)
    device = world.device("n")

    async def main(process: Process) -> None:
        count = len(process.journal.load("t"))
        process.journal.commit([Put("t", str(count), b"v")])
        await asyncio.sleep(1000)

    first = device.start(main)
    world.run_for(1.0)
    with pytest.raises(RuntimeError, match="runs already"):
        device.start(main)
    first.die(Death.KILLED)
    second = device.start(main)
    world.run_for(1.0)
    assert (second.number, sorted(device.disk.tables["t"])) == (2, ["0", "1"])


def test_child_streams_do_not_shift_each_other() -> None:
    one, two = World(7), World(7)
    one.rng("other").random()
    assert one.rng("loss").random() == two.rng("loss").random()
    assert World(8).rng("loss").random() != two.rng("loss").random()


def test_equal_runs_have_equal_traces_and_other_seeds_others() -> None:
    def run(seed: int) -> str:
        world, seen = World(seed), list[tuple[float, float]]()
        rate = 1 + world.rng("drift").uniform(-0.03, 0.03)

        async def main(process: Process) -> None:
            await tick(process, seen, 3)
            process.note("done")

        world.device("n", Hardware(rate=rate)).start(main)
        world.run_for(10.0)
        return world.trace.digest()

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_time_that_stands_still_is_an_error_not_a_hang() -> None:
    world = World(0)

    async def spin(process: Process) -> None:
        while True:
            await asyncio.sleep(0)

    world.device("n").start(spin)
    with pytest.raises(VirtualLivelockError):
        world.run_for(1.0)
    world.close()


def test_a_main_that_can_never_end_is_a_deadlock() -> None:
    async def main(process: Process) -> None:
        await asyncio.get_running_loop().create_future()

    world = World(0)
    with pytest.raises(VirtualDeadlockError):
        run_main(world, main)
    world.close()


def test_what_main_raises_is_kept() -> None:
    async def main(process: Process) -> None:
        raise LookupError("no battery")

    world = World(0)
    process = world.device("n").start(main)
    world.run_for(1.0)
    assert isinstance(process.failure, LookupError)
