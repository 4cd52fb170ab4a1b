"""The driver over links in memory: negotiation, the order of commit and send, restart, doubles, failures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from meshagent.core.bodies import EventMessage, Profile, StoryQuery
from meshagent.core.contract_net.interface import ActReceived, ContractConfig, LeaveRequested, PeerFound, TaskSubmitted
from meshagent.core.contract_net.records import CONTRACTED, INITIATED
from meshagent.core.ports import Append, LinkClosed, Put
from meshagent.errors import JournalError, LocalProtocolError
from meshagent.identity.envelope import boot_counter
from meshagent.runtime import driver
from meshagent.runtime.driver import BOOT_COUNTER, META, OWN, DriverConfig, PeerDirectory
from meshagent.runtime.links import REPLAY
from meshagent.runtime.notes import decode_notes
from meshagent.runtime.ports import Peer
from meshagent.types import Delivery, NodeId, TaskState
from meshagent.virtual.identities import identity
from meshagent.wire.frame import read_frame
from tests.support.company import Member, Recorder, close, join, until

WORK = {"k": "K()"}


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await scenario()

    asyncio.run(bounded())


async def pair(**worker: Any) -> tuple[Member, Member]:
    asker, other = Member(1, config=worker.get("config")), Member(2, kinds=WORK, **worker)
    await asker.start()
    await other.start()
    join(asker, other)
    await until(lambda: other.id in asker.driver.links.peers and asker.id in other.driver.links.peers)
    return asker, other


def test_two_drivers_negotiate_a_task() -> None:
    async def scenario() -> None:
        asker, worker = await pair()
        task = asker.submit("k")
        await until(lambda: asker.ended(task))
        change = asker.last(task)
        assert change is not None
        assert change.state is TaskState.DONE
        assert change.result == b"done"
        assert change.holder == worker.id
        assert len(worker.started) == 1
        await close(asker, worker)

    run(scenario)


def test_the_cheapest_of_several_wins_and_many_tasks_run_at_once() -> None:
    async def scenario() -> None:
        asker = await Member(1).start()
        workers = [await Member(n, kinds=WORK, added_ms=1000 - 100 * n).start() for n in (2, 3, 4)]
        for worker in workers:
            join(asker, worker)
        await until(lambda: len(asker.driver.links.peers) == 3)
        tasks = [asker.submit("k", nonce) for nonce in range(1, 41)]
        await until(lambda: all(asker.ended(task) for task in tasks), 10)
        for task in tasks:
            change = asker.last(task)
            assert change is not None
            assert (change.state, change.holder) == (TaskState.DONE, workers[2].id)
        assert asker.driver.links.seals < 41, "forty rounds in flight share their signatures"
        await close(asker, *workers)

    run(scenario)


def test_this_node_bids_for_its_own_task_and_wins_without_a_link() -> None:
    async def scenario() -> None:
        alone = await Member(1, kinds=WORK).start()
        task = alone.submit("k")
        await until(lambda: alone.ended(task))
        change = alone.last(task)
        assert change is not None
        assert (change.state, change.holder) == (TaskState.DONE, alone.id)
        assert alone.driver.links.frames_out == 0
        await close(alone)

    run(scenario)


def test_a_task_that_nobody_can_do_is_called_again_when_a_peer_offers_it() -> None:
    async def scenario() -> None:
        asker, worker = Member(1), Member(2)
        await asker.start()
        await worker.start()
        join(asker, worker)
        await until(lambda: worker.id in asker.driver.links.peers)
        task = asker.submit("k")
        await until(lambda: asker.last(task) is not None)
        worker.driver.set_profile(Profile(version=2, name="w", kinds=WORK))
        await until(lambda: asker.ended(task))
        await close(asker, worker)

    run(scenario)


def test_nothing_leaves_and_nothing_starts_before_the_commit_that_makes_it_true() -> None:
    async def scenario() -> None:
        asker, worker = await pair()
        seen: dict[str, list[tuple[int, int]]] = {asker.id: [], worker.id: []}
        profiles = {asker.id: asker.driver.links.messages_out, worker.id: worker.driver.links.messages_out}
        for member in (asker, worker):

            def note(member: Member = member) -> None:
                said = member.driver.links.messages_out - profiles[member.id]
                seen[member.id].append((said, len(member.started)))

            assert isinstance(member.journal, Recorder)
            member.journal.on_commit = note
        task = asker.submit("k")
        await until(lambda: asker.ended(task))
        # Messages said, handlers started, when each transaction began. Asker: submission (nothing said), award (the
        # call), result (and award, commit). Worker: reservation (the bid), result (and reserve, started).
        assert seen[asker.id] == [(0, 0), (1, 0), (3, 0)]
        assert seen[worker.id][:2] == [(1, 0), (2, 1)]
        await close(asker, worker)

    run(scenario)


def test_one_commit_a_turn_holds_record_replay_window_and_story() -> None:
    async def scenario() -> None:
        asker, worker = await pair()
        journal = worker.journal
        assert isinstance(journal, Recorder)
        before = len(journal.transactions)
        task = asker.submit("k")
        await until(lambda: asker.ended(task))
        first = next(
            writes
            for writes in journal.transactions[before:]
            if any(isinstance(one, Put) and one.table == CONTRACTED for one in writes)
        )
        tables = {one.table for one in first if isinstance(one, Put)}
        assert REPLAY in tables, "the window and the effect of a message are one transaction"
        lines = [one for one in first if isinstance(one, Append) and one.task == task]
        assert len(lines) == 1
        assert decode_notes(task, lines[0].value)
        await close(asker, worker)

    run(scenario)


def test_a_journal_that_fails_stops_the_node_before_anything_is_said() -> None:
    async def scenario() -> None:
        asker, worker = await pair()
        sent = len(worker.transport.links[0].sent)
        worker.disk.full = True
        asker.submit("k")
        await until(lambda: bool(worker.failures))
        assert isinstance(worker.failures[0], JournalError)
        assert worker.started == []
        # The bid needed no promise; the Reserve would have been one.
        after = [read_frame(raw) for raw in worker.transport.links[0].sent[sent:]]
        assert sum(len(batch.messages) for frame in after for batch in frame.batches) <= 1
        assert worker.driver.failed is worker.failures[0]
        worker.disk.full = False
        await close(asker, worker)

    run(scenario)


def test_a_node_that_failed_takes_no_more_inputs() -> None:
    async def scenario() -> None:
        asker, worker = await pair()
        worker.disk.full = True
        asker.submit("k")
        await until(lambda: bool(worker.failures))
        for nonce in range(2, 20):
            asker.submit("k", nonce)
        sent = len(worker.transport.links[0].sent)
        await until(lambda: asker.driver.links.frames_out > 3)
        assert len(worker.transport.links[0].sent) == sent
        assert not worker.driver._inputs
        await close(asker, worker)

    run(scenario)


def test_a_disk_that_is_full_when_the_node_closes_does_not_keep_it_from_saying_goodbye() -> None:
    async def scenario() -> None:
        asker, worker = await pair()
        task = asker.submit("k")
        await until(lambda: asker.ended(task))
        asker.submit("nobody does this", 2)
        asker.disk.full = True
        await asker.driver.close()
        await until(lambda: not worker.transport.links[0].open)
        await close(worker)

    run(scenario)


def test_an_idle_pair_is_quiet() -> None:
    """Nothing is said and hardly anything is looked at: wake-ups cost battery."""

    async def scenario() -> None:
        asker, worker = await pair()
        await until(lambda: asker.driver.links.next_deadline_s() > asker.clock.boot_s() + 1.0)
        before = (asker.driver.ticks, asker.driver.links.frames_out, asker.driver.commits)
        await asyncio.sleep(1.2)  # silence is a matter of time
        ticks, frames, commits = asker.driver.ticks, asker.driver.links.frames_out, asker.driver.commits
        assert ticks - before[0] <= 2
        assert (frames, commits) == before[1:]
        await close(asker, worker)

    run(scenario)


def test_a_bidder_that_raises_stops_the_node_instead_of_leaving_half_a_step() -> None:
    async def scenario() -> None:
        alone = await Member(1, kinds=WORK).start()
        told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        alone.bid = lambda *_, **__: 1 / 0  # type: ignore[method-assign,assignment]
        alone.submit("k")
        await until(lambda: bool(alone.failures))
        assert isinstance(alone.failures[0], ZeroDivisionError)
        assert isinstance(told[0]["exception"], ZeroDivisionError)
        await close(alone)

    run(scenario)


def test_a_node_restarted_from_its_journal_finishes_what_it_asked_for() -> None:
    async def scenario() -> None:
        first = await Member(1).start()
        task = first.submit("k")
        await until(lambda: first.last(task) is not None)
        first.transport.links.clear()
        # No goodbye, no close: the process is gone, its disk is not.
        first.driver._running = False
        second, worker = Member(1, disk=first.disk), Member(2, kinds=WORK)
        await second.start()
        await worker.start()
        assert boot_counter(second.driver.boot) == boot_counter(first.driver.boot) + 1
        join(second, worker)
        await until(lambda: second.ended(task))
        change = second.last(task)
        assert change is not None
        assert change.state is TaskState.DONE
        await close(second, worker)

    run(scenario)


def test_stamps_of_a_restarted_node_are_above_all_of_its_last_life() -> None:
    async def scenario() -> None:
        asker, worker = await pair()
        task = asker.submit("k")
        await until(lambda: asker.ended(task))
        latest = asker.driver._hybrid.latest
        asker.driver._running = False
        again = Member(1, disk=asker.disk, wall_error_s=-3600.0)
        await again.start()
        assert again.driver._hybrid.latest > latest
        await close(again, worker)

    run(scenario)


def test_clock_back_a_node_whose_clock_was_set_back_is_still_heard_a_minute_later() -> None:
    async def scenario() -> None:
        asker, worker = await pair()
        asker.driver._running = False
        again = Member(1, disk=asker.disk, wall_error_s=-3600.0)
        await again.start()
        join(again, worker)
        await until(lambda: worker.id in again.driver.links.peers)
        again.clock.skip_s += 60.0
        worker.clock.skip_s += 60.0
        again.driver.emit(EventMessage(name="late", body=b"\x80"))
        await until(lambda: bool(worker.events))
        assert not worker.driver.links.rejections
        await close(again, worker)

    run(scenario)


def test_a_boot_is_on_disk_before_it_is_used() -> None:
    async def scenario() -> None:
        alone = await Member(1).start()
        counters = [int.from_bytes(alone.disk.tables[META][BOOT_COUNTER], "big")]
        alone.driver._running = False
        again = await Member(1, disk=alone.disk).start()
        counters.append(int.from_bytes(again.disk.tables[META][BOOT_COUNTER], "big"))
        assert counters == [1, 2]
        assert boot_counter(again.driver.boot) == 2
        await close(again)

    run(scenario)


def test_the_story_of_a_task_is_on_disk_at_the_latest_when_the_node_closes() -> None:
    async def scenario() -> None:
        asker, worker = await pair()
        task = asker.submit("k")
        await until(lambda: asker.ended(task))
        assert task in asker.disk.tables[INITIATED]
        await close(asker, worker)
        assert asker.driver.unwritten_notes(task) == []
        events = [note.event for _, line in asker.disk.lines[task] for note in decode_notes(task, line)]
        assert events[0] == "called"
        assert [note.event for note in asker.notes if note.task == task] == events

    run(scenario)


def test_the_same_submission_twice_is_one_task() -> None:
    async def scenario() -> None:
        asker, worker = await pair()
        task = asker.submit("k")
        assert asker.submit("k") == task
        await until(lambda: asker.ended(task))
        assert len(worker.started) == 1
        await close(asker, worker)

    run(scenario)


def test_a_task_in_somebody_elses_name_is_not_submitted() -> None:
    async def scenario() -> None:
        asker, worker = await pair()
        asker.submit("k")
        await until(lambda: bool(worker.started))
        record = worker.started[0].record
        with pytest.raises(LocalProtocolError):
            worker.driver.submit(TaskSubmitted(record=record))
        await close(asker, worker)

    run(scenario)


def test_a_peer_that_is_gone_is_told_to_both_machines_and_its_at_least_once_work_goes_on_elsewhere() -> None:
    async def scenario() -> None:
        asker = await Member(1).start()
        first, second = Member(2, kinds=WORK, added_ms=10), Member(3, kinds=WORK, added_ms=500)
        first.result = None
        for worker in (first, second):
            await worker.start()
            join(asker, worker)
        await until(lambda: len(asker.driver.links.peers) == 2)
        task = asker.submit("k", delivery=Delivery.AT_LEAST_ONCE)
        await until(lambda: bool(first.started))
        first.driver._running = False
        first.transport.links[0].close(LinkClosed.RESET)
        await until(lambda: not asker.transport.links[0].open)
        asker.transport.events.peer_unreachable(first.id, LinkClosed.RESET, "refused")
        await until(lambda: asker.ended(task))
        change = asker.last(task)
        assert change is not None
        assert change.holder == second.id
        await close(asker, second)

    run(scenario)


def test_events_and_stories_reach_the_other_side() -> None:
    async def scenario() -> None:
        asker, worker = await pair()
        asker.driver.emit(EventMessage(name="pump.anomaly", body=b"\x80"))
        asker.driver.say(worker.id, StoryQuery(query=7, task="t"))
        await until(lambda: bool(worker.events) and bool(worker.stories))
        assert worker.events == [(asker.id, EventMessage(name="pump.anomaly", body=b"\x80"))]
        assert worker.stories == [(asker.id, StoryQuery(query=7, task="t"))]
        await close(asker, worker)

    run(scenario)


def test_a_suspended_device_notices_its_deadlines_within_a_second_of_waking() -> None:
    """The loop's clock does not count suspension, the lease does (suspend_past_lease)."""

    async def scenario() -> None:
        # Deadlines seconds away, so that it is not the next renewal's timer that notices.
        config = DriverConfig(contract=ContractConfig(lease_s=30.0, renew_s=10.0))
        asker, worker = await pair(config=config)
        worker.result = None
        asker.submit("k")
        await until(lambda: bool(worker.started))
        asker.transport.links[0].open = worker.transport.links[0].open = False
        # Nothing else may be about to wake the node.
        quiet = worker.driver
        await until(lambda: quiet._notes_due_s is None and quiet.links.next_deadline_s() > worker.clock.boot_s() + 2.5)
        worker.clock.skip_s += 3600.0
        await until(lambda: bool(worker.stopped), 1.9)
        await close(asker, worker)

    run(scenario)


def test_leaving_hands_running_work_back() -> None:
    async def scenario() -> None:
        asker, worker = await pair()
        worker.result = None
        task = asker.submit("k")
        await until(lambda: bool(worker.started))
        worker.driver.feed(LeaveRequested())
        await until(lambda: bool(worker.stopped))
        assert not asker.ended(task)
        await close(asker, worker)

    run(scenario)


def test_closing_twice_and_waking_afterwards_is_harmless() -> None:
    async def scenario() -> None:
        alone = await Member(1).start()
        await alone.driver.close()
        await alone.driver.close()
        alone.driver.feed(PeerFound(peer=alone.id))
        await asyncio.sleep(0)
        assert alone.failures == []

    run(scenario)


def test_a_flood_of_inputs_is_handled_in_turns_that_let_the_loop_breathe(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(driver, "MAX_ROUNDS", 10)
        asker, worker = await pair()
        before = worker.driver.ticks
        tasks = [asker.submit("k", nonce) for nonce in range(1, 51)]
        await until(lambda: all(asker.ended(task) for task in tasks))
        assert worker.driver.ticks > before + 10
        await close(asker, worker)

    run(scenario)


def peer(number: int, *kinds: str) -> Peer:
    return Peer(
        id=identity(number).node_id,
        address="",
        since_s=0.0,
        profile=Profile(version=1, name="n", kinds=dict.fromkeys(kinds, "")),
        rtt_s=None,
        clock_offset_s=None,
    )


def test_the_directory_names_who_offers_a_kind_and_may_perform_it_sorted() -> None:
    peers = {one.id: one for one in (peer(1, "a", "b"), peer(2, "a"), peer(3, "a"))}
    forbidden = identity(3).node_id
    me = identity(4).node_id
    directory = PeerDirectory(me, peers, lambda who, action, kind: who != forbidden and action == "perform")
    assert directory.candidates("a") == tuple(sorted([identity(1).node_id, identity(2).node_id]))
    directory.own(["a"])
    assert directory.candidates("a") == tuple(sorted([identity(1).node_id, identity(2).node_id, me]))
    assert directory.candidates("nothing") == ()
    del peers[identity(2).node_id]
    directory.changed()
    assert identity(2).node_id not in directory.candidates("a")


def test_what_a_node_says_to_itself_is_believed_without_a_signature() -> None:
    assert OWN.verify()
    assert ActReceived(peer=NodeId("x"), act=None, evidence=OWN).evidence is OWN  # type: ignore[arg-type]
