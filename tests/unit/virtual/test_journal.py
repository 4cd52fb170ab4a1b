"""The disk in memory keeps the promises of the real one."""

from __future__ import annotations

import pytest

from meshagent.core.ports import Append, Put
from meshagent.errors import JournalError
from meshagent.virtual.journal import Disk, MemoryJournal, digest_of
from meshagent.virtual.kernel import Death, Process, World, run_main


def test_a_commit_is_read_back_by_the_next_process() -> None:
    disk = Disk()
    MemoryJournal(disk).commit([Put("a", "y", b"2"), Put("a", "x", b"1"), Append("t", 5.0, b"line")])
    again = MemoryJournal(disk)
    assert list(again.load("a").items()) == [("x", b"1"), ("y", b"2")]
    assert again.log("t") == [(5.0, b"line")]
    again.commit([Put("a", "x", None)])
    assert dict(again.load("a")) == {"y": b"2"}


@pytest.mark.parametrize(("boundary", "kept"), [(1, 0), (2, 1), (3, 1), (4, 2)])
def test_a_crash_loses_what_was_not_committed(boundary: int, kept: int) -> None:
    world = World(0)
    device = world.device("n")

    async def main(process: Process) -> None:
        process.crash_at(boundary)
        for number in range(3):
            process.journal.commit([Put("t", str(number), b"v")])

    process = device.start(main)
    world.run_for(1.0)
    assert not process.alive
    assert len(device.disk.tables.get("t", {})) == kept


def test_a_dead_process_writes_nothing_from_its_cleanup() -> None:
    world = World(0)
    device = world.device("n")

    async def main(process: Process) -> None:
        process.crash_at(1)
        try:
            process.journal.commit([Put("t", "k", b"v")])
        finally:
            process.journal.commit([Put("t", "cleanup", b"v")])

    device.start(main)
    world.run_for(1.0)
    assert device.disk.tables == {}


def test_an_old_image_forgets_what_was_written_since() -> None:
    disk = Disk()
    journal = MemoryJournal(disk)
    journal.commit([Put("t", "k", b"old"), Append("t", 1.0, b"a")])
    image = disk.copy()
    journal.commit([Put("t", "k", b"new"), Append("t", 2.0, b"b")])
    disk.restore(image)
    assert journal.load("t") == {"k": b"old"}
    assert journal.log("t") == [(1.0, b"a")]


def test_a_full_disk_and_a_closed_journal_say_so() -> None:
    disk = Disk()
    journal = MemoryJournal(disk)
    disk.full = True
    with pytest.raises(JournalError, match="disk full"):
        journal.commit([Put("t", "k", b"v")])
    assert disk.tables == {}
    journal.close()
    with pytest.raises(JournalError, match="closed"):
        journal.commit([])


def test_the_digest_tells_transactions_apart() -> None:
    assert digest_of([Put("a", "b", b"")]) != digest_of([Put("a", "b", None)])
    assert digest_of([Put("a", "bc", b"")]) != digest_of([Put("ab", "c", b"")])


def test_a_process_that_died_is_told_to_whoever_waits_for_it() -> None:
    world = World(0)

    async def main(process: Process) -> None:
        process.die(Death.KILLED)
        process.journal.commit([])

    with pytest.raises(RuntimeError, match="died"):
        run_main(world, main)
