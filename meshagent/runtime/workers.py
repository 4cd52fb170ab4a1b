"""Where computing goes: threads and spawned processes, behind one port that virtual time replaces.

A process can be killed, a thread only abandoned: `SystemWorkers.thread` therefore comes back only when the thread has
ended where that matters. Processes are kept warm and used again, at most `processes` at once; each is
started with `spawn` semantics (a fresh interpreter, nothing inherited but three pipes), never forked: gRPC's threads
do not survive a fork.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from meshagent.runtime.supervise import Raised, attempt
from meshagent.runtime.worker import (
    EXIT_LEASE_OVER,
    LENGTH,
    MAX_PIPE_BYTES,
    Job,
    PipeError,
    job_message,
    opened,
    packed,
)

T = TypeVar("T")

START_TIMEOUT_S: Final = 20.0
"""A fresh interpreter with the SDK takes 0.1 to 0.5 s; on a loaded small computer some seconds."""
REAP_TIMEOUT_S: Final = 5.0
"""SIGKILL is obeyed at once unless the process hangs in a device driver."""
MOST_THREADS: Final = 64
"""Handlers that compute in threads at once; more wait. A thread costs 8 MiB of address space."""
IDLE_S: Final = 60.0
"""A worker without a job for so long is ended: it holds some 30 MiB."""

SECRET_PREFIX: Final = "MESHAGENT_PASSPHRASE"
"""MESHAGENT_PASSPHRASE and MESHAGENT_PASSPHRASE_FILE of the command line."""

log = logging.getLogger(__name__)


class WorkerRaisedError(Exception):
    """The handler raised in its process; the sentence is fit for peers, the traceback for the local log."""

    def __init__(self, sentence: str, remote_traceback: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.remote_traceback = remote_traceback


class WorkerCrashedError(Exception):
    """The process ended, or spoke nonsense, before it answered."""


class Lifeline(Protocol):
    """How a running process learns that its lease moved."""

    def __call__(self, until_s: float, /) -> None: ...


class Workers(Protocol):
    """Port of the executor. Robot: `SystemWorkers`. Virtual time: `InlineWorkers`."""

    async def thread(self, function: Callable[[], T], *, to_the_end: bool) -> T:
        """What `function` returns or raises; it runs beside the loop and cannot be stopped.

        Args:
            function: what to run.
            to_the_end: a cancelled caller is let go only when the function has ended.
        """

    async def process(self, job: Job, here: Callable[[], bytes], on_line: Callable[[Lifeline], None]) -> bytes:
        """What the handler of `job` returned, encoded. Cancelling kills the process before this returns.

        Args:
            job: what to run.
            here: the same, for a port that has no processes.
            on_line: is given the way to tell the process a new deadline.

        Raises:
            WorkerRaisedError: the handler raised.
            WorkerCrashedError: the process died or spoke nonsense.
        """

    async def close(self) -> None:
        """End every process, bounded in time."""


class InlineWorkers:
    """Everything at once and in order, for virtual time."""

    async def thread(self, function: Callable[[], T], *, to_the_end: bool) -> T:
        return function()

    async def process(self, job: Job, here: Callable[[], bytes], on_line: Callable[[Lifeline], None]) -> bytes:
        answer = attempt(here)
        if isinstance(answer, Raised):
            raise WorkerRaisedError(answer.sentence, answer.traceback())
        return answer

    async def close(self) -> None:
        """Nothing runs between two turns."""


class SystemWorkers:
    """Daemon threads and warm processes of this machine."""

    def __init__(self, processes: int = 2) -> None:
        self._processes = processes
        self._slots = asyncio.Semaphore(max(1, processes))
        self._threads = asyncio.Semaphore(MOST_THREADS)
        self._idle: list[_Warm] = []
        self._all: set[_Warm] = set()
        self._closed = False

    async def thread(self, function: Callable[[], T], *, to_the_end: bool) -> T:
        """As the port says. Threads are daemons: one that never returns does not keep the node from leaving."""
        await self._threads.acquire()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T | Raised] = loop.create_future()

        def settled(answer: T | Raised) -> None:
            self._threads.release()
            done.set_result(answer)

        def run() -> None:
            answer = attempt(function)
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
                loop.call_soon_threadsafe(settled, answer)

        threading.Thread(target=run, name="meshagent-handler", daemon=True).start()
        cancelled = False
        while not done.done():
            try:
                await asyncio.shield(done)
            except asyncio.CancelledError:
                if not to_the_end:
                    raise
                cancelled = True
        if cancelled:
            raise asyncio.CancelledError
        answer = done.result()
        if isinstance(answer, Raised):
            raise answer.error
        return answer

    async def process(self, job: Job, here: Callable[[], bytes], on_line: Callable[[Lifeline], None]) -> bytes:
        """As the port says."""
        async with self._slots:
            if self._closed:
                raise WorkerCrashedError("the node is shutting down")
            warm = self._idle.pop() if self._idle else await self._started()
            kept = False
            try:
                answer = await warm.ask(job, on_line)
                kept = True
            finally:
                if kept and not self._closed:
                    self._idle.append(warm)
                    warm.idle_timer = asyncio.get_running_loop().call_later(IDLE_S, self._retire, warm)
                else:
                    await self._end(warm)
        if answer.get("op") == "result" and isinstance(value := answer.get("value"), bytes):
            return value
        raise WorkerRaisedError(str(answer.get("sentence", "it raised")), str(answer.get("traceback", "")))

    async def close(self) -> None:
        """Kill what runs and what waits."""
        self._closed = True
        await asyncio.gather(*(self._end(warm) for warm in list(self._all)))

    async def _started(self) -> _Warm:
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # the folder this node was started in may hold anything
            "-m",
            "meshagent.runtime.worker",
            str(os.getpid()),
            stdin=PIPE,
            stdout=PIPE,
            limit=MAX_PIPE_BYTES + LENGTH.size,
            env={**_without_secrets(), "PYTHONPATH": path},
        )
        warm = _Warm(process)
        self._all.add(warm)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                if (await warm.heard()).get("op") != "ready":
                    raise WorkerCrashedError("the worker process said something else than ready")
        except TimeoutError:
            await self._end(warm)
            raise WorkerCrashedError(f"the worker process was not ready after {START_TIMEOUT_S:.0f} s") from None
        except BaseException:
            await self._end(warm)
            raise
        return warm

    def _retire(self, warm: _Warm) -> None:
        if warm in self._idle:
            self._idle.remove(warm)
            warm.kill()
            self._all.discard(warm)

    async def _end(self, warm: _Warm) -> None:
        self._all.discard(warm)
        if warm in self._idle:
            self._idle.remove(warm)
        await warm.end()


class _Warm:
    """One process and its pipes."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.idle_timer: asyncio.TimerHandle | None = None

    async def ask(self, job: Job, on_line: Callable[[Lifeline], None]) -> dict[str, object]:
        if self.idle_timer is not None:
            self.idle_timer.cancel()
            self.idle_timer = None
        try:
            self._write(packed(job_message(job)))
        except PipeError as error:
            raise WorkerCrashedError(str(error)) from error
        on_line(self._until)
        answer = await self.heard()
        if answer["op"] not in ("result", "raised"):
            raise WorkerCrashedError(f"the worker process said {answer['op']!r}")
        return answer

    async def heard(self) -> dict[str, object]:
        stdout = self._process.stdout
        assert stdout is not None
        try:
            (length,) = LENGTH.unpack(await stdout.readexactly(LENGTH.size))
            if length > MAX_PIPE_BYTES:
                raise WorkerCrashedError("the worker process wrote a message that is too long")
            return opened(await stdout.readexactly(length))
        except asyncio.IncompleteReadError:
            raise WorkerCrashedError(await self._why_gone()) from None
        except PipeError as error:
            raise WorkerCrashedError(f"the worker process wrote {error}") from error

    def kill(self) -> None:
        if self.idle_timer is not None:
            self.idle_timer.cancel()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def end(self) -> None:
        """Dead when this returns, unless the kernel cannot."""
        self.kill()
        try:
            async with asyncio.timeout(REAP_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            log.error("worker process %d does not die; it hangs in the kernel", self._process.pid)

    def _until(self, until_s: float) -> None:
        self._write(packed({"op": "until", "until_s": until_s}))

    def _write(self, message: bytes) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        if not stdin.is_closing():
            stdin.write(message)

    async def _why_gone(self) -> str:
        try:
            async with asyncio.timeout(REAP_TIMEOUT_S):
                code = await self._process.wait()
        except TimeoutError:
            return "the worker process closed its pipe"
        if code == EXIT_LEASE_OVER:
            return "the worker process ended itself: its lease was over"
        if code < 0:
            return f"the worker process was killed by signal {-code}"
        return f"the worker process ended with status {code}"


def _without_secrets() -> dict[str, str]:
    """The environment for role code: the passphrase of the device's key is not for it."""
    return {name: value for name, value in os.environ.items() if not name.startswith(SECRET_PREFIX)}
