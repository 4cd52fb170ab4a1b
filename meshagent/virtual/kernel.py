"""The world: one heap of events, devices with disks and clocks, processes that start, crash, stall and come back.

A device (`Device`) survives its processes: disk, clocks, address. A process (`Process`) has an event loop of its own;
the world runs one turn of one loop at a time, at the instant when it is due. Everything random comes from child
streams named by concern, so that a new draw here does not shift the draws there. Every event that another process
could notice goes into the trace, whose hash names the run.

What is absent: the network (network.py), whole nodes (nodes.py), what must hold (invariants.py).
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from enum import StrEnum
from random import Random
from typing import Any, Final, NoReturn

from meshagent.virtual.clock import Hardware, VirtualClock
from meshagent.virtual.journal import Disk, MemoryJournal
from meshagent.virtual.loop import MAX_TURNS_AN_INSTANT, VirtualDeadlockError, VirtualLivelockError, bury, make_loop

TRACE_LINES_KEPT: Final = 400
"""The end of the trace that a report shows; the hash covers all of it."""
MAX_EVENTS: Final = 5_000_000
"""Events of one run; a run that needs more is stuck in a loop that lets time pass."""


class ProcessKilledError(KeyboardInterrupt):
    """Unwinds a process that crashed in the middle of a callback.

    A `KeyboardInterrupt`: asyncio and `runtime.supervise` let it through, so the process stops at this very statement.
    """


class Boundary(StrEnum):
    """Where a process may crash or stall: around a commit, and before a frame leaves."""

    BEFORE_COMMIT = "before_commit"
    AFTER_COMMIT = "after_commit"
    BEFORE_SEND = "before_send"


class Death(StrEnum):
    """How a process ended; peers notice it differently."""

    KILLED = "killed"
    """kill -9: the device's kernel closes the connections at once."""
    POWER_CUT = "power_cut"
    """The device is gone too: silence."""
    EXITED = "exited"
    """It ended by itself."""


class Event:
    """Something that will happen; `cancel()` takes it back."""

    __slots__ = ("args", "call")

    def __init__(self, call: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.call: Callable[..., object] | None = call
        self.args = args

    def cancel(self) -> None:
        self.call = None
        self.args = ()


class Trace:
    """What happened, in order: a running hash of all of it and the last lines."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=TRACE_LINES_KEPT)
        self.count = 0
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, at_s: float, who: str, what: str) -> None:
        line = f"{at_s:.9f} {who} {what}"
        self.lines.append(line)
        self.count += 1
        self._hash.update(line.encode())

    def digest(self) -> str:
        """32 hexadecimal digits; equal for equal runs."""
        return self._hash.hexdigest()


class World:
    """Everything that one seed decides.

    Args:
        seed: draws everything.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now_s = 0.0
        self.trace = Trace()
        self.devices: dict[str, Device] = {}
        self.events_run = 0
        self._heap: list[tuple[float, int, Event]] = []
        self._sequence = 0
        self._instant_events = 0
        self._after_step: list[Callable[[], None]] = []
        self._graveyard: list[asyncio.Task[Any]] = []
        self._deaths: list[Callable[[Process, Death], None]] = []
        self._freezes: list[Callable[[Process], None]] = []

    # ---- randomness

    def rng(self, name: str) -> Random:
        """The child stream of `name`; the same for the same seed, whatever else is drawn."""
        return Random(f"{self.seed}/{name}")

    # ---- time

    def at(self, when_s: float, call: Callable[..., object], *args: Any) -> Event:
        """Have `call(*args)` happen at `when_s` (not before now); events of one instant keep their order."""
        event = Event(call, args)
        self._sequence += 1
        heapq.heappush(self._heap, (max(when_s, self.now_s), self._sequence, event))
        return event

    def after(self, delay_s: float, call: Callable[..., object], *args: Any) -> Event:
        """`at` with a duration."""
        return self.at(self.now_s + delay_s, call, *args)

    def step(self) -> bool:
        """Run the next event and what watches every step; False: nothing is scheduled."""
        heap = self._heap
        while heap:
            when_s, _, event = heapq.heappop(heap)
            call = event.call
            if call is None:
                continue
            if when_s > self.now_s:
                self.now_s = when_s
                self._instant_events = 0
            self._instant_events += 1
            if self._instant_events > MAX_TURNS_AN_INSTANT:
                raise VirtualLivelockError(f"more than {MAX_TURNS_AN_INSTANT} events at {self.now_s:.6f} s")
            self.events_run += 1
            if self.events_run > MAX_EVENTS:
                raise VirtualLivelockError(f"more than {MAX_EVENTS} events until {self.now_s:.3f} s")
            call(*event.args)
            for watch in self._after_step:
                watch()
            return True
        return False

    def next_event_s(self) -> float | None:
        """When something will happen next."""
        heap = self._heap
        while heap and heap[0][2].call is None:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def run_until(self, reached: Callable[[], bool], *, limit_s: float) -> bool:
        """Step until `reached()`; False: `limit_s` (an instant) came first, or nothing can happen any more."""
        while not reached():
            due_s = self.next_event_s()
            if due_s is None:
                return False
            if due_s > limit_s:
                self.now_s = limit_s
                return False
            self.step()
        return True

    def run_for(self, duration_s: float) -> None:
        """Let `duration_s` pass."""
        until_s = self.now_s + duration_s
        self.run_until(lambda: False, limit_s=until_s)
        self.now_s = max(self.now_s, until_s)

    def on_step(self, watch: Callable[[], None]) -> None:
        """Call `watch` after every event: invariants."""
        self._after_step.append(watch)

    def forget_steps(self) -> None:
        """Nobody watches the steps any more."""
        self._after_step.clear()

    def on_death(self, told: Callable[[Process, Death], None]) -> None:
        """Call `told` when a process ends: the network."""
        self._deaths.append(told)

    def on_freeze(self, told: Callable[[Process], None]) -> None:
        """Call `told` when a process is frozen or goes on: the network notices its silence."""
        self._freezes.append(told)

    # ---- devices

    def device(self, name: str, hardware: Hardware | None = None) -> Device:
        """The device `name`, made on first use."""
        device = self.devices.get(name)
        if device is None:
            device = self.devices[name] = Device(self, name, hardware or Hardware())
        return device

    def note(self, who: str, what: str, at_s: float | None = None) -> None:
        """A line of the trace."""
        self.trace.add(self.now_s if at_s is None else at_s, who, what)

    def close(self) -> None:
        """Take everything down, once the run is judged."""
        for _, device in sorted(self.devices.items()):
            if device.process is not None and device.process.alive:
                self._graveyard.extend(device.process.loop.abandon())
                device.process.alive = False
        self._heap.clear()
        bury(self._graveyard)
        self._graveyard.clear()

    def told_death(self, process: Process, death: Death, left: list[asyncio.Task[Any]]) -> None:
        """For `Process`: it ended."""
        self._graveyard.extend(left)
        for told in self._deaths:
            told(process, death)

    def told_freeze(self, process: Process) -> None:
        """For `Process`: it is frozen, or not any more."""
        for told in self._freezes:
            told(process)


class Device:
    """What survives a process: disk, clocks, a name on the network."""

    def __init__(self, world: World, name: str, hardware: Hardware) -> None:
        self.world = world
        self.name = name
        self.hardware = hardware
        self.disk = Disk()
        self.process: Process | None = None
        self.starts = 0
        self._errors: list[str] = []

    def errors(self) -> list[str]:
        """What callbacks and tasks of its processes raised and nobody caught."""
        return self._errors + (self.process.loop.errors if self.process is not None else [])

    def start(self, main: Callable[[Process], Coroutine[Any, Any, object]]) -> Process:
        """A new process; `main` is its main coroutine. The one before must have ended."""
        if self.process is not None and self.process.alive:
            raise RuntimeError(f"{self.name} runs already")
        if self.process is not None:
            self._errors += self.process.loop.errors
        self.starts += 1
        process = self.process = Process(self, self.starts)
        self.world.note(self.name, f"start {self.starts}")
        process.run(main)
        return process


class Process:
    """One incarnation of a node: a loop, ports that die with it, boundaries where it may crash or stall."""

    def __init__(self, device: Device, number: int) -> None:
        self.device = device
        self.world = device.world
        self.name = device.name
        self.number = number
        self.alive = True
        self.frozen = False
        self.suspended_at_s: float | None = None
        self.loop = make_loop(self._monotonic_s, name=device.name)
        self.clock = VirtualClock(device.hardware, self.time_s)
        self.journal = MemoryJournal(device.disk, before=self._before_commit, after=self._after_commit)
        self.main: asyncio.Task[Any] | None = None
        self.failure: BaseException | None = None
        """What the main coroutine raised."""
        self.boundaries = 0
        """Crash points passed so far in this incarnation."""
        self._crash_at: tuple[int, Death] | None = None
        self.turns = 0
        """Turns of the loop that have run."""
        self._stalls: dict[int, float] = {}
        self._naps: dict[int, float] = {}
        self._when_dead: list[Callable[[], None]] = []
        self._ahead_s = 0.0
        self._busy_until_s = 0.0
        self._turning = False
        self._wake: Event | None = None
        self._wake_s = float("inf")
        self._digest = ""
        self.watcher: object | None = None
        """Who watches what the node on this process does."""

    # ---- time

    def time_s(self) -> float:
        """The world's time as this process is entitled to know it: later than `now_s` in the middle of a stall."""
        return self.world.now_s + self._ahead_s

    def _monotonic_s(self) -> float:
        return self.device.hardware.monotonic_s(self.time_s())

    def rng(self, concern: str) -> Random:
        """A child stream of this incarnation."""
        return self.world.rng(f"{self.name}/{self.number}/{concern}")

    # ---- running

    def run(self, main: Callable[[Process], Coroutine[Any, Any, object]]) -> None:
        """Schedule the main coroutine; it starts at this instant."""
        self.main = self.loop.create_task(main(self), name=f"{self.name}-main")
        self.main.add_done_callback(self._main_ended)
        self.arm()

    def _main_ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self.failure = task.exception()
            self.note(f"main raised {type(self.failure).__name__}: {self.failure}")

    def deliver(self, callback: Callable[..., object], *args: Any) -> None:
        """Have `callback` run on this process's loop as soon as it gets a turn: what its kernel would wake it for."""
        if self.alive:
            self.loop.call_soon(callback, *args)
            self.arm()

    def arm(self) -> None:
        """Schedule the next turn; call it after giving the loop something to do from outside."""
        if not self.alive or self.frozen or self._turning:
            return
        due_s = self.loop.next_due_s()
        if due_s is None:
            return
        when_s = self.world.now_s if due_s == float("-inf") else self.device.hardware.world_of_monotonic(due_s)
        when_s = max(when_s, self._busy_until_s, self.world.now_s)
        if self._wake is not None:
            if self._wake_s <= when_s:
                return
            self._wake.cancel()
        self._wake = self.world.at(when_s, self._turn)
        self._wake_s = when_s

    def _turn(self) -> None:
        self._wake = None
        self._wake_s = float("inf")
        if not self.alive or self.frozen:
            return
        if self.world.now_s < self._busy_until_s:
            self.arm()
            return
        self._turning = True
        try:
            self.loop.turn()
        except ProcessKilledError:
            pass  # `die` has done everything
        finally:
            self._turning = False
            self.turns += 1
            if self._ahead_s > 0.0:
                self._busy_until_s = self.world.now_s + self._ahead_s
                self._ahead_s = 0.0
            if self._naps:
                self._nap()
        self.arm()

    # ---- boundaries

    def boundary(self, kind: Boundary, detail: str = "") -> None:
        """Told by the ports before a commit, after it, and before a frame leaves.

        Raises:
            ProcessKilledError: the plan says that the process crashes here, or it is dead already.
        """
        if not self.alive:
            raise ProcessKilledError
        self.boundaries += 1
        if kind is not Boundary.BEFORE_COMMIT:
            self.note(f"{kind.value} {detail}")
        stall_s = self._stalls.pop(self.boundaries, 0.0)
        if stall_s:
            self.stall(stall_s)
        if self._crash_at is not None and self._crash_at[0] <= self.boundaries:
            self.die(self._crash_at[1])
            raise ProcessKilledError

    def crash_at(self, boundary: int, death: Death = Death.KILLED) -> None:
        """Crash at the `boundary`-th boundary of this incarnation (at the next one if it has passed)."""
        self._crash_at = (boundary, death)

    def stall_at(self, boundary: int, duration_s: float) -> None:
        """Be frozen for `duration_s` in the middle of a callback, at the `boundary`-th boundary."""
        self._stalls[boundary] = duration_s

    def exit(self) -> NoReturn:
        """From within a callback, after `die`: nothing more runs.

        Raises:
            ProcessKilledError: always.
        """
        raise ProcessKilledError

    def call_off(self) -> None:
        """No crash and no stall is planned any more."""
        self._crash_at = None
        self._stalls.clear()
        self._naps.clear()

    def when_dead(self, told: Callable[[], None]) -> None:
        """Call `told` once this process has ended, however."""
        self._when_dead.append(told)

    def nap_at(self, turn: int, duration_s: float) -> None:
        """Be frozen for `duration_s` between two turns, after the `turn`-th: what was ready before comes first then."""
        self._naps[turn] = duration_s

    def _nap(self) -> None:
        duration_s = self._naps.pop(self.turns, 0.0)
        if duration_s and self.alive:
            self.note(f"nap {duration_s:.6f}")
            self._busy_until_s = max(self._busy_until_s, self.world.now_s) + duration_s

    def stall(self, duration_s: float) -> None:
        """Time passes in the middle of a callback: between a check and what was checked, say.

        The world cannot move while a callback runs, so the process moves ahead of it: all that it reads, sends and does
        from here on carries the later time, and it gets no turn before the world has caught up.
        """
        self.note(f"stall {duration_s:.6f}")
        self._ahead_s += duration_s

    def _before_commit(self, digest: str) -> None:
        self._digest = digest
        self.boundary(Boundary.BEFORE_COMMIT)

    def _after_commit(self) -> None:
        self.boundary(Boundary.AFTER_COMMIT, self._digest)

    # ---- ends and pauses

    def die(self, death: Death) -> None:
        """End now: nothing of it runs any more. From within a callback raise `ProcessKilledError` after it."""
        if not self.alive:
            return
        self.alive = False
        self.note(f"dies {death.value} at boundary {self.boundaries}")
        self._count_suspension()
        if self._wake is not None:
            self._wake.cancel()
        self.world.told_death(self, death, self.loop.abandon())
        for told in self._when_dead:
            told()

    def freeze(self, *, suspend: bool = False) -> None:
        """SIGSTOP, or the lid closed (`suspend`: CLOCK_MONOTONIC stops too). What arrives waits."""
        if not self.alive or self.frozen:
            return
        self.frozen = True
        self.suspended_at_s = self.world.now_s if suspend else None
        if self._wake is not None:
            self._wake.cancel()
            self._wake, self._wake_s = None, float("inf")
        self.note("suspends" if suspend else "pauses")
        self.world.told_freeze(self)

    def thaw(self) -> None:
        """Go on: what waited comes first, then the timers that are due."""
        if not self.alive or not self.frozen:
            return
        self.frozen = False
        self._count_suspension()
        self.note("goes on")
        self.world.told_freeze(self)
        self.arm()

    def _count_suspension(self) -> None:
        if self.suspended_at_s is not None:
            self.device.hardware.suspended_s += self.world.now_s - self.suspended_at_s
            self.suspended_at_s = None

    def note(self, what: str) -> None:
        """A line of the trace, at this process's time."""
        self.world.trace.add(self.time_s(), self.name, what)


def run_main(
    world: World, main: Callable[[Process], Coroutine[Any, Any, object]], *, name: str = "main", limit_s: float = 3600.0
) -> Any:
    """Run `main` as a process of its own with perfect clocks, to its end, and return its result.

    Raises:
        VirtualDeadlockError: it waits for what can never happen.
        TimeoutError: `limit_s` of virtual time was not enough.
    """
    process = world.device(name).start(main)
    task = process.main
    assert task is not None
    if not world.run_until(task.done, limit_s=limit_s):
        if world.next_event_s() is None:
            raise VirtualDeadlockError(f"{name} waits and nothing is scheduled that could wake it")
        raise TimeoutError(f"{name} is not finished after {limit_s:g} s of virtual time")
    if not process.alive:
        raise RuntimeError(f"{name} died")
    return task.result()
