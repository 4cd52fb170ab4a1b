"""Whatever a handler does ends as one WorkEnded, and nothing acts past its lease. In virtual time."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from meshagent.core.acts import MAX_CHECKPOINT_BYTES, MAX_RESULT_BYTES, TaskRecord, WorkOutcome
from meshagent.core.contract_net.interface import (
    CheckpointTaken,
    GrantPointOfNoReturn,
    LeaseMoved,
    PointOfNoReturnReached,
    ProgressMade,
    StartWork,
    StopWork,
    WorkEnded,
)
from meshagent.errors import LocalProtocolError
from meshagent.runtime.executor import Executor, Handler, Report, Work
from meshagent.runtime.workers import InlineWorkers, WorkerCrashedError, WorkerRaisedError
from meshagent.sdk.backend import SubmitRequest
from meshagent.sdk.errors import ForfeitSignal, LeaseLostError
from meshagent.types import Delivery, Epoch, InDoubt, NodeId, Reason, TaskId
from meshagent.virtual.loop import VirtualLoop

ME = NodeId("a" * 52)
LEASE_S = 2.0


def epoch(counter: int) -> Epoch:
    return Epoch(counter, ME, b"\0" * 16)


def record(name: str, delivery: Delivery = Delivery.AT_MOST_ONCE) -> TaskRecord:
    return TaskRecord(
        task=TaskId(name.ljust(32, "x")),
        initiator=ME,
        boot=b"\0" * 16,
        nonce=b"\1" * 16,
        kind="unit.Probe",
        spec=b"spec",
        delivery=delivery,
    )


@dataclass
class Told:
    """The driver's end: keeps what was reported; a commit takes one loop turn."""

    reports: list[Report] = field(default_factory=list)

    def feed(self, event: Report) -> None:
        self.reports.append(event)

    def committed(self) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_result, None)
        return future

    def ended(self, name: str = "t") -> WorkOutcome | None:
        found = [e for e in self.reports if isinstance(e, WorkEnded) and e.task == record(name).task]
        assert len(found) <= 1, "told twice"
        return found[0].outcome if found else None


@dataclass
class Bench:
    loop: VirtualLoop = field(default_factory=VirtualLoop)
    told: Told = field(default_factory=Told)
    parallel: int = 2
    order: list[str] = field(default_factory=list)
    executor: Executor = field(init=False)

    def __post_init__(self) -> None:
        async def build() -> Executor:
            return Executor(
                sink=self.told,
                workers=InlineWorkers(),
                now_s=self.loop.time,
                watch=None,
                parallel=self.parallel,
                rank=lambda task: self.order.index(task.rstrip("x")) if self.order else 0,
                on_started=lambda work: None,
                on_ended=lambda work, outcome: None,
            )

        self.executor = self.loop.run_until_complete(build())

    def start(
        self,
        body: Callable[[Work], Coroutine[Any, Any, bytes]],
        name: str = "t",
        *,
        delivery: Delivery = Delivery.AT_MOST_ONCE,
        timeout_s: float | None = None,
        placed: bool = False,
        lease_until_s: float | None = None,
        priority: int = 0,
    ) -> Work:
        handler = Handler(label=f"unit.py:1 {name}", timeout_s=timeout_s, start=body, call=lambda spec: spec)
        effect = StartWork(
            record=replace(record(name, delivery), priority=priority),
            epoch=epoch(1),
            lease_until_s=self.loop.time() + LEASE_S if lease_until_s is None else lease_until_s,
            within_s=None,
            checkpoint=None,
            attempt=1,
        )
        return self.executor.start(effect, handler, placed=placed)

    def run(self, scenario: Callable[[], Awaitable[None]]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(1000):
                await scenario()

        self.loop.run_until_complete(bounded())


async def result(work: Work) -> bytes:
    return b"done"


def test_a_result_ends_the_work_once() -> None:
    bench = Bench()

    async def scenario() -> None:
        bench.start(result)
        await bench.executor.idle()

    bench.run(scenario)
    assert bench.told.ended() == WorkOutcome(result=b"done")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ValueError("no such  row\nat all"), "ValueError: no such row at all"),
        (SystemExit(3), "SystemExit: 3"),
        (ExceptionGroup("two", [OSError("a"), OSError("b")]), "ExceptionGroup: two (2 sub-exceptions)"),
        (RuntimeError("x" * 2000), "RuntimeError: " + "x" * (500 - len("RuntimeError: ") - 1) + "…"),
    ],
)
def test_a_handler_that_raises_fails_its_task_and_nothing_else(error: BaseException, sentence: str) -> None:
    bench = Bench()

    async def body(work: Work) -> bytes:
        raise error

    async def scenario() -> None:
        bench.start(body, "bad")
        bench.start(result, "good")
        await bench.executor.idle()

    bench.run(scenario)
    assert bench.told.ended("bad") == WorkOutcome(reason=Reason.ERROR, detail=sentence)
    assert bench.told.ended("good") == WorkOutcome(result=b"done")
    assert not bench.loop.errors


def test_sys_exit_in_a_handler_leaves_the_node_running() -> None:
    bench = Bench()

    async def body(work: Work) -> bytes:
        sys.exit("enough")

    async def scenario() -> None:
        bench.start(body)
        await bench.executor.idle()

    bench.run(scenario)
    outcome = bench.told.ended()
    assert outcome is not None
    assert outcome.detail == "SystemExit: enough"


def test_a_handler_that_hangs_is_ended_by_its_timeout() -> None:
    bench = Bench()

    async def body(work: Work) -> bytes:
        await asyncio.get_running_loop().create_future()
        return b""

    async def scenario() -> None:
        bench.start(body, timeout_s=5.0, delivery=Delivery.AT_LEAST_ONCE)
        await bench.executor.idle()

    bench.run(scenario)
    assert bench.told.ended() == WorkOutcome(reason=Reason.TIMEOUT, detail="took longer than 5 s")
    assert bench.loop.time() == pytest.approx(5.0)


def test_stop_cancels_the_handler_and_gives_the_task_back() -> None:
    bench, cleaned = Bench(), []

    async def body(work: Work) -> bytes:
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.append(bench.loop.time())
        return b""

    async def scenario() -> None:
        work = bench.start(body, delivery=Delivery.AT_LEAST_ONCE)
        await asyncio.sleep(1)
        bench.executor.stop(StopWork(task=work.record.task, epoch=epoch(1), reason=Reason.CANCELLED))
        await bench.executor.idle()

    bench.run(scenario)
    assert bench.told.ended() == WorkOutcome(reason=Reason.CANCELLED, given_back=True)
    assert cleaned == [1.0]


def test_the_end_is_told_only_when_nothing_runs_any_more() -> None:
    bench = Bench()

    async def body(work: Work) -> bytes:
        for _ in range(3):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue  # swallowed: wrong, and met in the field
        raise asyncio.CancelledError

    async def scenario() -> None:
        work = bench.start(body, delivery=Delivery.AT_LEAST_ONCE)
        await asyncio.sleep(1)
        bench.executor.stop(StopWork(task=work.record.task, epoch=epoch(1), reason=Reason.CANCELLED))
        await asyncio.sleep(0.5)
        assert bench.told.ended() is None
        await bench.executor.idle()

    bench.run(scenario)
    assert bench.told.ended() == WorkOutcome(reason=Reason.CANCELLED, given_back=True)
    assert bench.loop.time() == pytest.approx(3.0)  # asked at 1, 2 and 3 s


def test_what_a_handler_raises_while_it_is_stopped_is_no_failure() -> None:
    bench = Bench()

    async def body(work: Work) -> bytes:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise OSError("gripper did not answer") from None
        return b""

    async def scenario() -> None:
        work = bench.start(body)
        await asyncio.sleep(0.1)
        bench.executor.stop(StopWork(task=work.record.task, epoch=epoch(1), reason=Reason.LEASE_LOST))
        await bench.executor.idle()

    bench.run(scenario)
    assert bench.told.ended() == WorkOutcome(reason=Reason.LEASE_LOST, given_back=True)


def test_a_handler_that_cancels_itself_has_failed() -> None:
    bench = Bench()

    async def body(work: Work) -> bytes:
        raise asyncio.CancelledError

    async def scenario() -> None:
        bench.start(body)
        await bench.executor.idle()

    bench.run(scenario)
    assert bench.told.ended() == WorkOutcome(reason=Reason.ERROR, detail="the handler cancelled itself")


def test_forfeit_gives_back_with_its_checkpoint_first() -> None:
    bench = Bench()

    async def body(work: Work) -> bytes:
        raise ForfeitSignal(Reason.BATTERY, "going home", b"half")

    async def scenario() -> None:
        bench.start(body)
        await bench.executor.idle()

    bench.run(scenario)
    checkpoint, ended = bench.told.reports
    assert isinstance(checkpoint, CheckpointTaken)
    assert checkpoint.state == b"half"
    assert isinstance(ended, WorkEnded)
    assert ended.outcome == WorkOutcome(reason=Reason.BATTERY, detail="going home", given_back=True)


def test_a_result_too_large_to_travel_is_a_failure() -> None:
    bench = Bench()

    async def body(work: Work) -> bytes:
        return b"x" * (MAX_RESULT_BYTES + 1)

    async def scenario() -> None:
        bench.start(body)
        await bench.executor.idle()

    bench.run(scenario)
    outcome = bench.told.ended()
    assert outcome is not None
    assert outcome.reason is Reason.ERROR
    assert str(MAX_RESULT_BYTES) in outcome.detail


def test_a_checkpoint_is_awaited_until_it_is_journaled_and_bounded() -> None:
    bench, seen = Bench(), []

    async def body(work: Work) -> bytes:
        with pytest.raises(LocalProtocolError, match="at most"):
            await work.checkpoint(b"x" * (MAX_CHECKPOINT_BYTES + 1))
        await work.checkpoint(b"one")
        seen.extend(bench.told.reports)
        return b""

    async def scenario() -> None:
        bench.start(body)
        await bench.executor.idle()

    bench.run(scenario)
    assert [e.state for e in seen if isinstance(e, CheckpointTaken)] == [b"one"]


def test_progress_is_clamped_and_told_once() -> None:
    bench = Bench()

    async def body(work: Work) -> bytes:
        work.progress(-5, "begun")
        work.progress(500, "half")
        work.progress(500, "half")
        work.progress(7000, "n" * 1000)
        return b""

    async def scenario() -> None:
        bench.start(body)
        await bench.executor.idle()

    bench.run(scenario)
    told = [(e.progress_permille, len(e.note)) for e in bench.told.reports if isinstance(e, ProgressMade)]
    assert told == [(0, 5), (500, 4), (1000, 500)]


# ---- the fence


def test_suspend_past_lease_device_is_stopped_before_the_lease_ends() -> None:
    bench, stopped = Bench(), []

    async def body(work: Work) -> bytes:
        work.on_fence(lambda: stopped.append(bench.loop.time()), 0.2)
        await asyncio.sleep(60)
        return b""

    async def scenario() -> None:
        bench.start(body)
        await bench.executor.idle()

    bench.run(scenario)
    assert stopped == [pytest.approx(LEASE_S - 0.2)]
    outcome = bench.told.ended()
    assert outcome is not None
    assert (outcome.reason, outcome.given_back) == (Reason.LEASE_LOST, True)


def test_a_renewal_moves_the_fence() -> None:
    bench, stopped = Bench(), []

    async def body(work: Work) -> bytes:
        work.on_fence(lambda: stopped.append(bench.loop.time()), 0.2)
        await asyncio.sleep(60)
        return b""

    async def scenario() -> None:
        work = bench.start(body)
        await asyncio.sleep(1.5)
        bench.executor.move_lease(LeaseMoved(task=work.record.task, epoch=epoch(1), lease_until_s=3.5))
        await bench.executor.idle()

    bench.run(scenario)
    assert stopped == [pytest.approx(3.3)]


def test_a_newer_epoch_stops_the_device_at_once() -> None:
    bench, stopped = Bench(), []

    async def body(work: Work) -> bytes:
        work.on_fence(lambda: stopped.append(bench.loop.time()), 0.2)
        await asyncio.sleep(60)
        return b""

    async def scenario() -> None:
        work = bench.start(body, delivery=Delivery.AT_LEAST_ONCE)
        await asyncio.sleep(10)  # no lease fences what may be done twice
        assert not stopped
        bench.executor.stop(StopWork(task=work.record.task, epoch=epoch(1), reason=Reason.STALE_EPOCH))
        assert stopped == [10.0]
        assert work.lease_until_s() == float("-inf")
        await bench.executor.idle()

    bench.run(scenario)


def test_suspend_past_lease_a_device_taken_after_waking_stays_stopped() -> None:
    bench, stopped = Bench(), []

    async def body(work: Work) -> bytes:
        work.on_fence(lambda: stopped.append("now"), 0.2)
        return b"never"

    async def scenario() -> None:
        bench.start(body, lease_until_s=bench.loop.time() - 1.0)  # the device slept while the commit was on its way
        await bench.executor.idle()

    bench.run(scenario)
    assert stopped == ["now"]
    outcome = bench.told.ended()
    assert outcome is not None
    assert (outcome.reason, outcome.given_back) == (Reason.LEASE_LOST, True)


def test_a_stop_that_raises_does_not_keep_the_others_moving() -> None:
    bench, stopped = Bench(), []

    async def body(work: Work) -> bytes:
        def broken() -> None:
            raise OSError("no bus")

        work.on_fence(broken, 0.0)
        work.on_fence(lambda: stopped.append(True), 0.0)
        await asyncio.sleep(60)
        return b""

    async def scenario() -> None:
        bench.start(body)
        await bench.executor.idle()

    bench.run(scenario)
    assert stopped == [True]


def test_an_adopted_work_goes_on_under_its_new_epoch() -> None:
    bench = Bench()

    async def body(work: Work) -> bytes:
        await asyncio.sleep(3)
        return str(work.epoch.counter).encode()

    async def scenario() -> None:
        work = bench.start(body)
        await asyncio.sleep(1)
        bench.executor.move_lease(LeaseMoved(task=work.record.task, epoch=epoch(2), lease_until_s=10.0))
        await bench.executor.idle()

    bench.run(scenario)
    ended = bench.told.reports[-1]
    assert isinstance(ended, WorkEnded)
    assert (ended.epoch.counter, ended.outcome.result) == (2, b"2")


def test_the_point_of_no_return_waits_for_its_grant() -> None:
    bench, passed = Bench(), []

    async def body(work: Work) -> bytes:
        await work.pass_point_of_no_return()
        passed.append(bench.loop.time())
        return b""

    async def scenario() -> None:
        work = bench.start(body)
        await asyncio.sleep(0.7)
        assert any(isinstance(e, PointOfNoReturnReached) for e in bench.told.reports)
        assert not passed
        bench.executor.grant(GrantPointOfNoReturn(task=work.record.task, epoch=epoch(1)))
        await bench.executor.idle()

    bench.run(scenario)
    assert passed == [0.7]


def test_a_stopped_work_never_passes_its_point_of_no_return() -> None:
    bench, passed = Bench(), []

    async def body(work: Work) -> bytes:
        try:
            await work.pass_point_of_no_return()
        except LeaseLostError:
            raise
        passed.append(True)
        return b""

    async def scenario() -> None:
        work = bench.start(body)
        await asyncio.sleep(0.1)
        bench.executor.stop(StopWork(task=work.record.task, epoch=epoch(1), reason=Reason.LEASE_LOST))
        bench.executor.grant(GrantPointOfNoReturn(task=work.record.task, epoch=epoch(1)))
        await bench.executor.idle()

    bench.run(scenario)
    assert not passed


# ---- turns


def test_work_with_a_place_runs_one_after_another_in_plan_order() -> None:
    bench = Bench(order=["a", "c", "b"])
    log: list[tuple[str, float]] = []

    def body(name: str) -> Callable[[Work], Coroutine[Any, Any, bytes]]:
        async def run(work: Work) -> bytes:
            log.append((name, bench.loop.time()))
            await asyncio.sleep(10)
            return b""

        return run

    async def scenario() -> None:
        for name in "abc":
            bench.start(body(name), name, placed=True, delivery=Delivery.AT_LEAST_ONCE)
        await bench.executor.idle()

    bench.run(scenario)
    assert log == [("a", 0.0), ("c", 10.0), ("b", 20.0)]


def test_work_without_a_place_runs_side_by_side_up_to_the_bound() -> None:
    bench = Bench(parallel=2)
    log: list[tuple[str, float]] = []

    def body(name: str) -> Callable[[Work], Coroutine[Any, Any, bytes]]:
        async def run(work: Work) -> bytes:
            log.append((name, bench.loop.time()))
            await asyncio.sleep(10)
            return b""

        return run

    async def scenario() -> None:
        bench.start(body("walk"), "walk", placed=True, delivery=Delivery.AT_LEAST_ONCE)
        for name in "abc":
            bench.start(body(name), name, delivery=Delivery.AT_LEAST_ONCE)
        await bench.executor.idle()

    bench.run(scenario)
    assert log == [("walk", 0.0), ("a", 0.0), ("b", 0.0), ("c", 10.0)]


def test_of_work_without_a_place_the_more_urgent_goes_first() -> None:
    bench = Bench(parallel=1)
    log: list[str] = []

    def body(name: str) -> Callable[[Work], Coroutine[Any, Any, bytes]]:
        async def run(work: Work) -> bytes:
            log.append(name)
            await asyncio.sleep(1)
            return b""

        return run

    async def scenario() -> None:
        for name, priority in (("first", 0), ("later", 0), ("urgent", 5)):
            bench.start(body(name), name, delivery=Delivery.AT_LEAST_ONCE, priority=priority)
        await bench.executor.idle()

    bench.run(scenario)
    assert log == ["first", "urgent", "later"]


def test_work_stopped_while_it_waits_never_starts() -> None:
    bench, ran = Bench(), []

    async def first(work: Work) -> bytes:
        await asyncio.sleep(10)
        return b""

    async def second(work: Work) -> bytes:
        ran.append(True)
        return b""

    async def scenario() -> None:
        bench.start(first, "a", placed=True, delivery=Delivery.AT_LEAST_ONCE)
        work = bench.start(second, "b", placed=True, delivery=Delivery.AT_LEAST_ONCE)
        bench.executor.stop(StopWork(task=work.record.task, epoch=epoch(1), reason=Reason.CANCELLED))
        assert bench.told.ended("b") == WorkOutcome(reason=Reason.CANCELLED, given_back=True)
        await bench.executor.idle()

    bench.run(scenario)
    assert not ran


# ---- subtasks and follow-ups


@dataclass
class Child:
    task: TaskId = field(default_factory=lambda: TaskId("c" * 32))
    withdrawn: list[str] = field(default_factory=list)

    async def _none(self) -> None: ...

    def accepted(self) -> Awaitable[None]:
        return self._none()

    def outcome(self) -> Any:
        return self._none()

    def cancel(self, detail: str = "") -> None:
        self.withdrawn.append(detail)


@pytest.mark.parametrize("how", ["raises", "is stopped", "succeeds"])
def test_subtasks_are_withdrawn_unless_their_parent_has_a_result(how: str) -> None:
    bench, child = Bench(), Child()

    async def body(work: Work) -> bytes:
        work.adopt_child(child)
        if how == "raises":
            raise ValueError("no")
        if how == "is stopped":
            await asyncio.sleep(60)
        return b""

    async def scenario() -> None:
        work = bench.start(body)
        await asyncio.sleep(0.1)
        if how == "is stopped":
            bench.executor.stop(StopWork(task=work.record.task, epoch=epoch(1), reason=Reason.CANCELLED))
        await bench.executor.idle()

    bench.run(scenario)
    assert len(child.withdrawn) == (0 if how == "succeeds" else 1)


def test_follow_ups_travel_with_the_result_and_with_nothing_else() -> None:
    bench = Bench()
    request = SubmitRequest(kind="k", spec=b"", delivery=Delivery.AT_MOST_ONCE, in_doubt=InDoubt.WAIT)

    def body(fails: bool) -> Callable[[Work], Coroutine[Any, Any, bytes]]:
        async def run(work: Work) -> bytes:
            work.make_record = lambda asked: record("next")
            work.then(request)
            if fails:
                raise ValueError("no")
            return b"ok"

        return run

    async def scenario() -> None:
        bench.start(body(False), "a")
        bench.start(body(True), "b")
        await bench.executor.idle()

    bench.run(scenario)
    good, bad = bench.told.ended("a"), bench.told.ended("b")
    assert good is not None
    assert good.follow_ups == (record("next"),)
    assert bad is not None
    assert bad.follow_ups == ()


# ---- processes, inline here


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (WorkerRaisedError("ValueError: no", "traceback"), Reason.ERROR),
        (WorkerCrashedError("the worker process was killed by signal 9"), Reason.CRASHED),
    ],
)
def test_a_dead_worker_is_a_crash_and_a_raising_one_an_error(error: Exception, reason: Reason) -> None:
    bench = Bench()

    async def body(work: Work) -> bytes:
        raise error

    async def scenario() -> None:
        bench.start(body)
        await bench.executor.idle()

    bench.run(scenario)
    outcome = bench.told.ended()
    assert outcome is not None
    assert (outcome.reason, outcome.detail) == (reason, str(error))


def test_closing_stops_every_device_and_ends_bounded() -> None:
    bench, stopped = Bench(), []

    async def stubborn(work: Work) -> bytes:
        work.on_fence(lambda: stopped.append(True), 0.2)
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if bench.loop.time() > 100:
                    raise

    async def scenario() -> None:
        bench.start(stubborn)
        await asyncio.sleep(0.1)
        await bench.executor.close()
        assert stopped == [True]
        assert bench.loop.time() < 3.0

    bench.run(scenario)
