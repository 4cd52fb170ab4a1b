"""Runs the handlers of contracts and tells the participant machine how each ended.

Coroutines run on the loop, plain functions in a thread or in a spawned process. Work with a place moves the body, so
it runs one after another in plan order; work without runs side by side up to a bound. Whatever a handler does (raise,
exit, hang, swallow its cancellation) ends as one `WorkEnded`, told when nothing of it runs any more, and not before.

The fence: for `at_most_once` work that holds an actuator a timer calls the actuator's `stop` before the lease ends,
by that device's own stop time. Comparing epoch and deadline at the moment of acting is the actuator's (sdk), which
asks `lease_until_s`; this timer is for devices that go on moving by themselves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import CodeType
from typing import Any, Final, Literal, Protocol

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
from meshagent.runtime.blocked import Watch
from meshagent.runtime.supervise import Raised, attempt, attempt_async, cut
from meshagent.runtime.worker import Job
from meshagent.runtime.workers import Lifeline, WorkerCrashedError, WorkerRaisedError, Workers
from meshagent.sdk.backend import Pending, SubmitRequest
from meshagent.sdk.errors import ForfeitSignal, LeaseLostError
from meshagent.types import Delivery, Epoch, Reason, TaskId, task_label

ASK_AGAIN_S: Final = 1.0
"""A handler that swallows its cancellation is asked again this often and named in the log."""
MAX_CHILDREN: Final = 1000
"""Subtasks one handler may have open at once."""
MAX_FOLLOW_UPS: Final = 16
"""`ctx.then` of one handler: the records are committed with the result in one write."""

Report = WorkEnded | ProgressMade | CheckpointTaken | PointOfNoReturnReached

log = logging.getLogger(__name__)


class Sink(Protocol):
    """Where the executor reports: the driver."""

    def feed(self, event: Report) -> None:
        """Hand this to the participant machine within the tick."""

    def committed(self) -> asyncio.Future[None]:
        """Completes when what was fed so far is journaled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """One handler of one agent, with the SDK's decoding and encoding around it: bytes in, bytes out."""

    label: str
    """`dog.py:22 Dog.check`, for the log."""
    where: Literal["loop", "thread", "process"] = "loop"
    timeout_s: float | None = None
    start: Callable[[Work], Coroutine[Any, Any, bytes]]
    """For the loop."""
    call: Callable[[bytes], bytes]
    """For a thread, and for a process where there are none: decode the specification, run, encode."""
    job: Callable[[TaskRecord, float], Job] | None = None
    """For a process: (record, until_s; 0 is for ever)."""
    code: CodeType | None = None
    """Of the role's own function, so that a blocked loop can be told by what it called."""


class Work:
    """One contract being executed: `WorkServices` of the SDK."""

    def __init__(self, effect: StartWork, handler: Handler, sink: Sink, now_s: Callable[[], float]) -> None:
        self._record = effect.record
        self._epoch = effect.epoch
        self._lease_until_s = effect.lease_until_s
        self._attempt = effect.attempt
        self._checkpoint = effect.checkpoint
        self._sink = sink
        self._now_s = now_s
        self.handler = handler
        self.placed = False
        self.stop_margin_s = 0.0
        self.started_s: float | None = None
        self.permille = 0
        self.note = ""
        self.reports: tuple[int, str] = (0, "")
        self.follow_ups: list[tuple[TaskRecord, float | None]] = []
        self.children: list[Pending] = []
        self.within_s = effect.within_s
        self.make_record: Callable[[SubmitRequest], TaskRecord] | None = None
        self.stopped: Reason | None = None
        self.stop_detail = ""
        self.task: asyncio.Task[bytes | Raised] | None = None
        self.fences: dict[int, tuple[Callable[[], None], float]] = {}
        self.on_fences_changed: Callable[[], None] = lambda: None
        self._fence_number = 0
        self._grant: asyncio.Future[None] | None = None
        self.lifeline: Lifeline | None = None
        self.timers: list[asyncio.TimerHandle] = []
        self.fence_timer: asyncio.TimerHandle | None = None

    # ---- WorkServices

    @property
    def record(self) -> TaskRecord:
        return self._record

    @property
    def epoch(self) -> Epoch:
        return self._epoch

    @property
    def attempt(self) -> int:
        return self._attempt

    @property
    def checkpoint_received(self) -> bytes | None:
        return self._checkpoint

    @property
    def leased(self) -> bool:
        """Must it stop when its lease ends? `at_least_once` work goes on."""
        return self._record.delivery is Delivery.AT_MOST_ONCE

    def lease_until_s(self) -> float:
        if self.stopped is not None:
            return float("-inf")
        return self._lease_until_s if self.leased else float("inf")

    def progress(self, permille: int, note: str) -> None:
        if self.stopped is not None:
            return
        permille, note = max(0, min(1000, permille)), cut(note)
        if (permille, note) != self.reports:
            self.reports = (permille, note)
            self.permille, self.note = permille, note
            self._sink.feed(
                ProgressMade(task=self._record.task, epoch=self._epoch, progress_permille=permille, note=note)
            )

    async def checkpoint(self, state: bytes) -> None:
        if len(state) > MAX_CHECKPOINT_BYTES:
            raise LocalProtocolError(
                f"a checkpoint has at most {MAX_CHECKPOINT_BYTES} bytes, this one {len(state)}",
                next_step="keep what the next holder needs, leave out what it can compute",
            )
        self._must_hold()
        self._sink.feed(CheckpointTaken(task=self._record.task, epoch=self._epoch, state=state))
        await self._sink.committed()

    async def pass_point_of_no_return(self) -> None:
        self._must_hold()
        if self._grant is None:
            self._grant = asyncio.get_running_loop().create_future()
            self._sink.feed(PointOfNoReturnReached(task=self._record.task, epoch=self._epoch))
        await asyncio.shield(self._grant)
        self._must_hold()

    def then(self, request: SubmitRequest) -> None:
        if self.make_record is None:
            raise LocalProtocolError("this work cannot submit follow-ups")
        if len(self.follow_ups) >= MAX_FOLLOW_UPS:
            raise LocalProtocolError(f"at most {MAX_FOLLOW_UPS} follow-ups are committed with one result")
        self.follow_ups.append((self.make_record(request), request.within_s))

    def on_fence(self, stop: Callable[[], None], margin_s: float | None = None) -> Callable[[], None]:
        """As `WorkServices` says; `stop` is called `margin_s` (default: the agent's) before the lease ends."""
        margin_s = self.stop_margin_s if margin_s is None else margin_s
        if self.stopped is not None or self._now_s() >= self.lease_until_s() - margin_s:
            attempt(stop)
            raise LeaseLostError("the lease is over: the device stays stopped", task=self._record.task)
        self._fence_number += 1
        number = self._fence_number
        self.fences[number] = (stop, margin_s)
        self.on_fences_changed()

        def unregister() -> None:
            if self.fences.pop(number, None) is not None:
                self.on_fences_changed()

        return unregister

    # ---- for the executor

    def adopt_child(self, child: Pending) -> None:
        """A subtask of this work: withdrawn when the work ends without a result."""
        if len(self.children) >= MAX_CHILDREN:
            raise LocalProtocolError(f"at most {MAX_CHILDREN} subtasks of one task are open at once")
        self.children.append(child)

    def moved(self, epoch: Epoch, until_s: float) -> None:
        """The lease was renewed, or the work was adopted under a new epoch."""
        self._epoch = epoch
        self._lease_until_s = until_s
        if self.lifeline is not None and self.leased:
            self.lifeline(until_s)

    def granted(self) -> None:
        """The point of no return is recorded."""
        if self._grant is not None and not self._grant.done():
            self._grant.set_result(None)

    def halt(self, reason: Reason, detail: str) -> None:
        """No acting from now on: devices stop, waiting for a grant ends."""
        if self.stopped is not None:
            return
        self.stopped, self.stop_detail = reason, detail
        fences, self.fences = list(self.fences.values()), {}
        for stop, _ in fences:
            ended = attempt(stop)
            if isinstance(ended, Raised):
                log.error("%s: stop() of its actuator raised %s", self.handler.label, ended.sentence)
        if self._grant is not None and not self._grant.done():
            self._grant.set_exception(LeaseLostError(f"stopped: {reason}", task=self._record.task))
            self._grant.exception()  # whoever waits gets it; nobody waiting is no error

    def _must_hold(self) -> None:
        if self.stopped is not None or self._now_s() >= self.lease_until_s():
            raise LeaseLostError(f"the lease is over ({self.stopped or Reason.LEASE_LOST})", task=self._record.task)


class Executor:
    """All work of one node."""

    def __init__(
        self,
        *,
        sink: Sink,
        workers: Workers,
        now_s: Callable[[], float],
        watch: Watch | None,
        parallel: int,
        rank: Callable[[TaskId], int],
        on_started: Callable[[Work], None],
        on_ended: Callable[[Work, WorkOutcome], None],
    ) -> None:
        self._sink = sink
        self._workers = workers
        self._now_s = now_s
        self._watch = watch
        self._parallel = parallel
        self._rank = rank
        self._on_started = on_started
        self._on_ended = on_ended
        self._works: dict[TaskId, Work] = {}
        self._waiting: list[Work] = []
        self._lane: Work | None = None
        self._beside = 0
        self._idle: asyncio.Event = asyncio.Event()
        self._idle.set()

    @property
    def works(self) -> dict[TaskId, Work]:
        """What is held now, running or waiting for its turn."""
        return self._works

    def start(self, effect: StartWork, handler: Handler, *, placed: bool, stop_margin_s: float = 0.0) -> Work:
        """Run it when its turn comes; its devices are stopped `stop_margin_s` before its lease ends."""
        work = Work(effect, handler, self._sink, self._now_s)
        work.placed = placed
        work.stop_margin_s = stop_margin_s
        work.on_fences_changed = lambda: self._arm_fence(work)
        self._works[work.record.task] = work
        self._idle.clear()
        self._waiting.append(work)
        self._admit()
        return work

    def move_lease(self, effect: LeaseMoved) -> None:
        """More time, or a new epoch for the same work."""
        work = self._works.get(effect.task)
        if work is not None and work.stopped is None:
            work.moved(effect.epoch, effect.lease_until_s)
            self._arm_fence(work)

    def stop(self, effect: StopWork) -> None:
        """Stop acting now; `WorkEnded` follows."""
        work = self._works.get(effect.task)
        if work is not None:
            self._cancel(work, effect.reason, "")

    def grant(self, effect: GrantPointOfNoReturn) -> None:
        """The handler may pass its point of no return."""
        work = self._works.get(effect.task)
        if work is not None:
            work.granted()

    def give_back_waiting(self, reason: Reason) -> None:
        """What has not begun goes back at once; what runs goes on."""
        for work in list(self._waiting):
            self._cancel(work, reason, "")

    def give_back_last(self, reason: Reason, detail: str) -> bool:
        """Of the stops that have not begun the last in the plan goes back; False: all have begun."""
        placed = [work for work in self._waiting if work.placed]
        if not placed:
            return False
        self._cancel(max(placed, key=lambda work: self._rank(work.record.task)), reason, detail)
        return True

    async def idle(self) -> None:
        """Completes when no work is held."""
        await self._idle.wait()

    def fence_all(self, reason: Reason) -> None:
        """The node ends now: every device stops, every handler is cancelled."""
        for work in list(self._works.values()):
            self._cancel(work, reason, "the node is shutting down")

    async def close(self) -> None:
        """Fence what is left and end the worker processes."""
        self.fence_all(Reason.DRAINING)
        await self._workers.close()
        left = [work.task for work in self._works.values() if work.task is not None]
        if left:
            await asyncio.wait(left, timeout=ASK_AGAIN_S)
        for work in list(self._works.values()):
            for timer in work.timers:
                timer.cancel()
            log.error("%s does not end; it is abandoned", work.handler.label)

    # ---- turns

    def _admit(self) -> None:
        placed = [work for work in self._waiting if work.placed]
        if self._lane is None and placed:
            first = min(placed, key=lambda work: self._rank(work.record.task))
            self._lane = first
            self._waiting.remove(first)
            self._run(first)
        beside = [work for work in self._waiting if not work.placed]
        beside.sort(key=lambda work: -work.record.priority)  # stable: first come among equals
        for work in beside:
            # a subtask of what runs here goes beyond the bound: its parent waits for it and keeps its place meanwhile
            if self._beside >= self._parallel and work.record.parent not in self._works:
                continue
            self._beside += 1
            self._waiting.remove(work)
            self._run(work)

    def _run(self, work: Work) -> None:
        loop = asyncio.get_running_loop()
        work.started_s = self._now_s()
        self._on_started(work)
        label = task_label(work.record.kind, work.record.task)
        work.task = loop.create_task(self._guarded(work), name=label)
        work.task.add_done_callback(lambda task: self._done(work, task))
        if work.handler.timeout_s is not None:
            limit_s = work.handler.timeout_s
            work.timers.append(
                loop.call_later(limit_s, self._cancel, work, Reason.TIMEOUT, f"took longer than {limit_s:g} s")
            )
        self._arm_fence(work)

    async def _guarded(self, work: Work) -> bytes | Raised:
        # The body is made here: one that is cancelled before its first step would never be awaited.
        return await attempt_async(self._body(work))

    async def _body(self, work: Work) -> bytes:
        handler = work.handler
        if handler.where == "loop":
            coroutine = handler.start(work)
            return await (self._watch.coroutine(coroutine, handler.label, handler.code) if self._watch else coroutine)
        spec = work.record.spec
        if handler.where == "thread":
            return await self._workers.thread(lambda: handler.call(spec), to_the_end=work.leased)
        assert handler.job is not None
        until_s = work.lease_until_s() if work.leased else 0.0
        hard_s = float("inf")
        if handler.timeout_s is not None:  # the process ends itself though we hang
            hard_s = self._now_s() + handler.timeout_s
            until_s = min(until_s, hard_s) if until_s else hard_s

        def on_line(lifeline: Lifeline) -> None:
            work.lifeline = lambda new_until_s: lifeline(min(new_until_s, hard_s))

        job = handler.job(work.record, until_s)
        return await self._workers.process(job, lambda: handler.call(spec), on_line)

    # ---- ends

    def _cancel(self, work: Work, reason: Reason, detail: str) -> None:
        work.halt(reason, detail)
        if work.task is None:
            if work in self._waiting:
                self._waiting.remove(work)
                self._ended(work, WorkOutcome(reason=reason, detail=detail, given_back=True))
            return
        if not work.task.done():
            self._ask(work, 0)

    def _ask(self, work: Work, times: int) -> None:
        if work.task is None or work.task.done():
            return
        if times == 1:
            log.warning(
                "%s was told to stop (%s) and goes on; its devices are stopped, its task is kept until it ends",
                work.handler.label,
                work.stopped,
            )
        work.task.cancel(str(work.stopped))
        work.timers.append(asyncio.get_running_loop().call_later(ASK_AGAIN_S, self._ask, work, times + 1))

    def _done(self, work: Work, task: asyncio.Task[bytes | Raised]) -> None:
        if self._lane is work:
            self._lane = None
        else:
            self._beside -= 1
        self._ended(work, self._outcome(work, task))

    def _ended(self, work: Work, outcome: WorkOutcome) -> None:
        for timer in work.timers:
            timer.cancel()
        if work.fence_timer is not None:
            work.fence_timer.cancel()
        work.halt(outcome.reason or Reason.CLOSED, "")  # nothing that the handler left behind acts on
        if outcome.result is None:
            for child in work.children:
                child.cancel(f"{task_label(work.record.kind, work.record.task)} ended without a result")
        if self._works.get(work.record.task) is work:
            del self._works[work.record.task]
        self._on_ended(work, outcome)
        self._sink.feed(WorkEnded(task=work.record.task, epoch=work.epoch, outcome=outcome))
        self._admit()
        if not self._works:
            self._idle.set()

    def _outcome(self, work: Work, task: asyncio.Task[bytes | Raised]) -> WorkOutcome:
        label = work.handler.label
        if task.cancelled():
            return self._stopped_outcome(work)
        error = task.exception()
        if isinstance(error, ForfeitSignal):
            if error.checkpoint is not None and work.stopped is None:
                self._sink.feed(CheckpointTaken(task=work.record.task, epoch=work.epoch, state=error.checkpoint))
            return WorkOutcome(reason=error.reason, detail=cut(error.detail), given_back=True)
        if error is not None:
            raised = Raised(error)
        else:
            answer = task.result()
            if not isinstance(answer, Raised):
                return self._success(work, answer)
            raised = answer
        if work.stopped is not None:
            return self._stopped_outcome(work)  # what it raised while being stopped is a consequence
        if isinstance(raised.error, asyncio.CancelledError):
            return WorkOutcome(reason=Reason.ERROR, detail="the handler cancelled itself")
        if isinstance(raised.error, LeaseLostError):
            return WorkOutcome(reason=Reason.LEASE_LOST, detail=raised.sentence, given_back=True)
        if isinstance(raised.error, WorkerCrashedError):
            log.error("%s: %s", label, raised.error)
            return WorkOutcome(reason=Reason.CRASHED, detail=cut(str(raised.error)))
        if isinstance(raised.error, WorkerRaisedError):
            log.error("%s raised\n%s", label, raised.error.remote_traceback)
            return WorkOutcome(reason=Reason.ERROR, detail=cut(raised.error.sentence))
        log.error("%s raised\n%s", label, raised.traceback())
        return WorkOutcome(reason=Reason.ERROR, detail=raised.sentence)

    def _success(self, work: Work, result: bytes) -> WorkOutcome:
        if len(result) > MAX_RESULT_BYTES:
            detail = f"its result has {len(result)} bytes, at most {MAX_RESULT_BYTES} travel"
            log.error("%s: %s", work.handler.label, detail)
            return WorkOutcome(reason=Reason.ERROR, detail=detail)
        return WorkOutcome(
            result=result,
            follow_ups=tuple(record for record, _ in work.follow_ups),
            follow_ups_within_s=tuple(within_s for _, within_s in work.follow_ups),
        )

    def _stopped_outcome(self, work: Work) -> WorkOutcome:
        assert work.stopped is not None  # nobody else cancels the task
        if work.stopped is Reason.TIMEOUT:
            log.error("%s %s", work.handler.label, work.stop_detail)
            return WorkOutcome(reason=Reason.TIMEOUT, detail=work.stop_detail)
        return WorkOutcome(reason=work.stopped, detail=work.stop_detail, given_back=True)

    # ---- the fence

    def _arm_fence(self, work: Work) -> None:
        if work.fence_timer is not None:
            work.fence_timer.cancel()
            work.fence_timer = None
        if not work.leased or not work.fences or work.stopped is not None:
            return
        margin_s = max(margin for _, margin in work.fences.values())
        left_s = work.lease_until_s() - margin_s - self._now_s()
        work.fence_timer = asyncio.get_running_loop().call_later(max(0.0, left_s), self._fence_due, work)

    def _fence_due(self, work: Work) -> None:
        margin_s = max((margin for _, margin in work.fences.values()), default=0.0)
        if work.stopped is None and self._now_s() >= work.lease_until_s() - margin_s - 1e-6:
            log.warning("%s: lease not renewed, its devices are stopped", work.handler.label)
            self._cancel(work, Reason.LEASE_LOST, "the lease was not renewed in time")
        else:
            self._arm_fence(work)
