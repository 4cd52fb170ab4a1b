"""An asyncio event loop whose time is told, not read.

One loop stands for one process. Whoever owns the loop asks `next_due_s()` and calls `turn()`; nothing here waits,
opens a socket or starts a thread. Alone (`run_until_complete`) the loop tells itself the time and jumps to the next
timer. Order is data: timers of one instant run in the order of their creation, and tasks and futures hash by their
number, so that a set of them iterates alike in every process.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import sys
import traceback
import warnings
import weakref
from asyncio import events
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextvars import Context
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack, cast

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

CLOCK_RESOLUTION_S: Final = 1e-9
"""Timers this close are due: a sum of floats may miss its instant by an ulp."""
SHORTEST_TIMER_S: Final = 1e-8
"""A timer always lets some time pass, as real ones do: who waits for the last ulp before a deadline would wait for
ever at one instant."""
MAX_TURNS_AN_INSTANT: Final = 100_000
"""Turns of one loop without time passing; more is a callback that schedules itself for ever."""
MAX_ERRORS_KEPT: Final = 20
"""Unhandled exceptions remembered for the report; the first one is what matters."""


class VirtualDeadlockError(RuntimeError):
    """Somebody waits, and nothing is scheduled that could ever wake them."""


class VirtualLivelockError(RuntimeError):
    """Callbacks schedule each other and no virtual time passes."""


class _NumberedFuture(asyncio.Future[T]):
    """A future that hashes by its number in the loop, not by its address."""

    def __init__(self, *, loop: VirtualLoop) -> None:
        super().__init__(loop=loop)
        self._number = loop.next_number()

    def __hash__(self) -> int:
        return self._number


class _NumberedTask(asyncio.Task[T]):
    """A task that hashes by its number in the loop: `asyncio.wait` and `TaskGroup` keep sets of tasks."""

    def __init__(self, coro: Any, *, loop: VirtualLoop, **options: Any) -> None:
        self._number = loop.next_number()  # before super: it registers the task in a set
        super().__init__(coro, loop=loop, **options)

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.AbstractEventLoop):
    """The loop of one simulated process.

    Args:
        read_s: the process's CLOCK_MONOTONIC; None: the loop keeps a time of its own and jumps.
        name: for messages.
    """

    def __init__(self, read_s: Callable[[], float] | None = None, *, name: str = "loop") -> None:
        self.name = name
        self.errors: list[str] = []
        """What callbacks and tasks raised and nobody caught, as text, the first `MAX_ERRORS_KEPT`."""
        self._read_s = read_s
        self._own_s = 0.0
        self._floor_s = 0.0
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._cancelled_timers = 0
        self._numbers = itertools.count(1)
        self._tasks: weakref.WeakValueDictionary[int, asyncio.Task[Any]] = weakref.WeakValueDictionary()
        self._asyncgens: weakref.WeakValueDictionary[int, AsyncGenerator[Any, Any]] = weakref.WeakValueDictionary()
        self._closed = False
        self._running = False
        self._stopping = False
        self._debug = False
        self._exception_handler: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None = None
        self._task_factory: Any = None

    # ---- what the owner calls

    def next_number(self) -> int:
        """The next number of a task, future or timer."""
        return next(self._numbers)

    def next_due_s(self) -> float | None:
        """When `turn()` has something to do: `-inf` at once, else an instant of `time()`; None: never."""
        if self._ready:
            return float("-inf")
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
            self._cancelled_timers -= 1
        return timers[0][0] if timers else None

    def turn(self) -> None:
        """Run what is ready now and what is due, once; what it schedules belongs to the next turn."""
        ready, timers = self._ready, self._timers
        horizon_s = self.time() + CLOCK_RESOLUTION_S
        while timers and timers[0][0] <= horizon_s:
            when_s, _, timer = heapq.heappop(timers)
            if timer.cancelled():
                self._cancelled_timers -= 1
                continue
            self._floor_s = max(self._floor_s, when_s)  # a timer never runs before its instant, float or not
            ready.append(timer)
        old_hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=self._asyncgen_started, finalizer=self._asyncgen_dropped)
        previous = events._get_running_loop()
        events._set_running_loop(self)
        self._running = True
        try:
            for _ in range(len(ready)):
                handle = ready.popleft()
                if not handle.cancelled():
                    handle._run()
        finally:
            self._running = False
            events._set_running_loop(previous)
            sys.set_asyncgen_hooks(*old_hooks)

    def abandon(self) -> list[asyncio.Task[Any]]:
        """`kill -9`: nothing of this loop runs any more, not even `finally` blocks.

        Returns:
            The tasks that were left; keep them until the run is judged, then `bury` them.
        """
        self._closed = True
        self._ready.clear()
        self._timers.clear()
        left = [task for _, task in sorted(self._tasks.items()) if not task.done()]
        for task in left:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        return left

    # ---- standing alone

    def run_until_complete(self, future: Generator[Any, None, T] | Awaitable[T]) -> T:
        """Run to the end of `future`, jumping from timer to timer.

        Raises:
            VirtualDeadlockError: it can never end.
            VirtualLivelockError: time stands still.
        """
        task: asyncio.Future[T] = asyncio.ensure_future(cast("Awaitable[T]", future), loop=self)
        turns = 0
        while not task.done():
            due_s = self.next_due_s()
            if due_s is None:
                waiting = ", ".join(repr(one.get_name()) for _, one in sorted(self._tasks.items()) if not one.done())
                task.cancel()
                raise VirtualDeadlockError(f"{self.name}: {waiting} wait and nothing is scheduled that could wake them")
            if due_s > self._own_s and self._read_s is None:
                self._own_s = due_s
                turns = 0
            turns += 1
            if turns > MAX_TURNS_AN_INSTANT:
                raise VirtualLivelockError(f"{self.name}: {turns} turns at {self.time():.6f} s and no time passes")
            self.turn()
        return task.result()

    def run_forever(self) -> None:
        """Run until `stop()` or until nothing is scheduled."""
        self._stopping = False
        while not self._stopping and (due_s := self.next_due_s()) is not None:
            self._own_s = max(self._own_s, due_s)
            self.turn()

    def stop(self) -> None:
        """End `run_forever` after this turn."""
        self._stopping = True

    def close(self) -> None:
        """Forget everything; idempotent."""
        if not self._closed:
            self.abandon()

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return self._closed

    # ---- time and callbacks

    def time(self) -> float:
        """Seconds of this process's CLOCK_MONOTONIC."""
        return max(self._floor_s, self._own_s if self._read_s is None else self._read_s())

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if not self._closed:
            self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """As `call_soon`: there are no threads here."""
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        when = max(when, self.time() + SHORTEST_TIMER_S)
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        if not self._closed:
            timer._scheduled = True  # type: ignore[attr-defined]
            heapq.heappush(self._timers, (when, self.next_number(), timer))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        # Called by TimerHandle.cancel. Timers are pushed out and re-armed all the time, so sweep when half are dead.
        self._cancelled_timers += 1
        if self._cancelled_timers > 64 and self._cancelled_timers * 2 > len(self._timers):
            self._timers = [entry for entry in self._timers if not entry[2].cancelled()]
            heapq.heapify(self._timers)
            self._cancelled_timers = 0

    # ---- tasks and futures

    def create_future(self) -> asyncio.Future[Any]:
        return _NumberedFuture(loop=self)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        if self._closed:
            coro.close()
            raise RuntimeError(f"{self.name} is closed")
        if self._task_factory is not None:
            return cast("asyncio.Task[Any]", self._task_factory(self, coro, **options))
        number = self.next_number()
        options["name"] = options.get("name") or f"{self.name}-task-{number}"
        task: _NumberedTask[Any] = _NumberedTask(coro, loop=self, **options)
        self._tasks[number] = task
        return task

    def set_task_factory(self, factory: Any) -> None:
        self._task_factory = factory

    def get_task_factory(self) -> Any:
        return self._task_factory

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """Run `func` now, inline: the same seed gives the same order."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - an executor hands every exception to whoever awaits it
            future.set_exception(error)
        return future

    def set_default_executor(self, executor: Any) -> None:
        """Ignored: executors run inline."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Nothing to shut down."""

    # ---- asynchronous generators, as in asyncio.BaseEventLoop

    def _asyncgen_started(self, generator: AsyncGenerator[Any, Any]) -> None:
        self._asyncgens[self.next_number()] = generator

    def _asyncgen_dropped(self, generator: AsyncGenerator[Any, Any]) -> None:
        if not self._closed:
            self.create_task(generator.aclose())

    async def shutdown_asyncgens(self) -> None:
        for _, generator in sorted(self._asyncgens.items()):
            await generator.aclose()

    # ---- errors

    def set_exception_handler(self, handler: Any) -> None:
        self._exception_handler = handler

    def get_exception_handler(self) -> Any:
        return self._exception_handler

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep the error for the report."""
        error = context.get("exception")
        text = str(context.get("message", "unhandled"))
        if isinstance(error, BaseException):
            text += "\n" + "".join(traceback.format_exception(error))
        if len(self.errors) < MAX_ERRORS_KEPT:
            self.errors.append(text)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self._closed:
            return
        if self._exception_handler is not None:
            self._exception_handler(self, context)
        else:
            self.default_exception_handler(context)

    def get_debug(self) -> bool:
        return self._debug

    def set_debug(self, enabled: bool) -> None:
        self._debug = enabled


def make_loop(read_s: Callable[[], float] | None = None, *, name: str = "loop") -> VirtualLoop:
    """A `VirtualLoop`. Methods that do I/O are left out: they raise `NotImplementedError`."""
    return VirtualLoop(read_s, name=name)  # type: ignore[abstract]


def bury(tasks: list[asyncio.Task[Any]]) -> None:
    """Close the coroutines of abandoned tasks in a fixed order, so that the collector does not do it in any order.

    Their `finally` blocks run now; the ports that they could reach are dead.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a task that had not begun holds coroutines never awaited
        for task in tasks:
            _close(task.get_coro())


def _close(coroutine: Any) -> None:
    if hasattr(coroutine, "close"):
        try:
            coroutine.close()
        except (Exception, SystemExit, KeyboardInterrupt):  # noqa: BLE001 - what a dead process's cleanup raises is nobody's
            return
