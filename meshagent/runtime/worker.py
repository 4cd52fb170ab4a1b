"""The spawned process that computes one handler at a time: `python -m meshagent.runtime.worker PARENT_PID`.

It talks msgpack over two pipes, four bytes of length before each message, never pickle: whatever a peer managed to
put into a specification is data here too. It dies with its parent (a signal of the kernel, and the end of its pipe),
and it knows its own deadline: a node that is stopped or suspended cannot keep a worker acting past its lease.

Parent to worker: `{"op": "run", ...}` with the fields of `Job`, `{"op": "until", "until_s": float}`.
Worker to parent: `{"op": "ready"}`, `{"op": "result", "value": bytes}`, `{"op": "raised", ...}`.
"""

from __future__ import annotations

import ctypes
import logging
import os
import queue
import resource
import select
import signal
import struct
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from meshagent.runtime.supervise import Raised, attempt
from meshagent.strictpack import StrictDecodeError, packb, unpackb

MAX_PIPE_BYTES: Final = 256 * 1024
"""A specification (32 KiB) or result (48 KiB) with room for a traceback; longer messages end the conversation."""
MAX_TRACEBACK_CHARS: Final = 16_000
EXIT_PARENT_GONE: Final = 80
EXIT_LEASE_OVER: Final = 81
EXIT_NONSENSE: Final = 82
PR_SET_PDEATHSIG: Final = 1
"""prctl(2): the signal that the kernel sends when the parent dies."""
LENGTH: Final = struct.Struct(">I")

log = logging.getLogger(__name__)


class PipeError(ValueError):
    """What came through a pipe is not a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One handler to run: where its class is written, which method, the task's bytes, and the limits."""

    module: str
    file: str
    """Source of `module`, loaded when it cannot be imported by name; empty: import it."""
    role: str
    """Qualified name of the role's class."""
    handler: str
    kind: str
    spec: bytes
    until_s: float
    """CLOCK_BOOTTIME after which the worker ends itself; infinite is written as 0."""
    memory_mib: int = 0
    """Growth allowed over what the process holds once the role is loaded; 0: no limit."""
    node_id: str = ""
    node_name: str = ""


def packed(message: Mapping[str, object]) -> bytes:
    """`message` with its length before it.

    Raises:
        PipeError: it is too long.
    """
    body = packb(dict(message))
    if len(body) > MAX_PIPE_BYTES:
        raise PipeError(f"{len(body)} bytes are more than a pipe message may have ({MAX_PIPE_BYTES})")
    return LENGTH.pack(len(body)) + body


def opened(body: bytes) -> dict[str, object]:
    """The message in `body`.

    Raises:
        PipeError: not a strict msgpack map with an `op`. A pickle is none.
    """
    try:
        message = unpackb(body, max_bytes=MAX_PIPE_BYTES)
    except StrictDecodeError as error:
        raise PipeError(f"not a message: {error}") from error
    if not isinstance(message, dict) or not isinstance(message.get("op"), str):
        raise PipeError("not a message: no op")
    return message


def job_message(job: Job) -> dict[str, object]:
    """How a job is written to the pipe."""
    return {"op": "run", **asdict(job)}


def job_of(message: Mapping[str, object]) -> Job:
    """The job in a `run` message.

    Raises:
        PipeError: a field is missing, unknown or of another type.
    """
    fields = {key: value for key, value in message.items() if key != "op"}
    words = dict.fromkeys(("module", "file", "role", "handler", "kind", "node_id", "node_name"), str)
    types: dict[str, type] = {**words, "spec": bytes, "until_s": float, "memory_mib": int}
    if fields.keys() != types.keys() or any(type(fields[name]) is not kind for name, kind in types.items()):
        raise PipeError("not a job")
    return Job(**fields)  # type: ignore[arg-type] # checked field by field above


class Worker:
    """The child: a thread that listens and watches the deadline, the main thread that computes."""

    def __init__(self, source: int, sink: int) -> None:
        self._source = source
        self._sink = sink
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._until_s = 0.0
        """0: no deadline."""
        self._busy = False

    def run(self) -> None:
        """Serve until the parent goes."""
        threading.Thread(target=self._listen, name="listen", daemon=True).start()
        self._say({"op": "ready"})
        while True:
            answer = self._compute(self._jobs.get())
            self._busy = False
            self._until_s = 0.0
            self._say(answer)

    def _listen(self) -> None:
        buffer = bytearray()
        while True:
            wait_s = None if not self._until_s else max(0.0, self._until_s - boot_s())
            # woken twice a second while a deadline runs: select counts no suspension, CLOCK_BOOTTIME does
            readable, _, _ = select.select([self._source], [], [], 0.5 if wait_s is None else min(wait_s, 0.5))
            if self._until_s and boot_s() >= self._until_s:
                os._exit(EXIT_LEASE_OVER)
            if not readable:
                continue
            chunk = os.read(self._source, 65536)
            if not chunk:
                os._exit(EXIT_PARENT_GONE)
            buffer += chunk
            while len(buffer) >= LENGTH.size:
                (length,) = LENGTH.unpack_from(buffer)
                if length > MAX_PIPE_BYTES:
                    os._exit(EXIT_NONSENSE)
                if len(buffer) < LENGTH.size + length:
                    break
                body = bytes(buffer[LENGTH.size : LENGTH.size + length])
                del buffer[: LENGTH.size + length]
                self._heard(body)

    def _heard(self, body: bytes) -> None:
        try:
            message = opened(body)
            if message["op"] == "run":
                job = job_of(message)
                self._busy = True
                self._until_s = job.until_s
                self._jobs.put(job)
            elif message["op"] == "until" and isinstance(until_s := message.get("until_s"), float):
                if self._busy:  # a renewal may cross the result of a job that has just ended
                    self._until_s = until_s
            else:
                raise PipeError(f"unknown op {message['op']!r}")
        except PipeError as error:
            print(f"meshagent worker: {error}", file=sys.stderr)
            os._exit(EXIT_NONSENSE)

    def _compute(self, job: Job) -> dict[str, object]:
        from meshagent.runtime.handlers import (
            call_in_worker,
        )  # the SDK and the role load here, not in the parent's time

        soft = attempt(lambda: call_in_worker(job, limit_memory))
        unlimit_memory()
        if isinstance(soft, Raised):
            if isinstance(soft.error, MemoryError):
                sentence = f"went over its memory limit of {job.memory_mib} MiB"
            else:
                sentence = soft.sentence
            return {
                "op": "raised",
                "type": type(soft.error).__name__,
                "sentence": sentence,
                "traceback": soft.traceback()[-MAX_TRACEBACK_CHARS:],
            }
        return {"op": "result", "value": soft}

    def _say(self, message: Mapping[str, object]) -> None:
        view = memoryview(packed(message))
        while view:
            view = view[os.write(self._sink, view) :]


def boot_s() -> float:
    """CLOCK_BOOTTIME: one clock for all processes of a device, counting suspension."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def limit_memory(memory_mib: int) -> None:
    """Let this process grow by `memory_mib` over what it holds now; more raises MemoryError in the handler."""
    if memory_mib <= 0:
        return
    held = _data_bytes()
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = held + memory_mib * 2**20
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def unlimit_memory() -> None:
    """Before the next job, and before the answer is written."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def _data_bytes() -> int:
    """Private writable memory, which RLIMIT_DATA counts (Linux 4.7 and later: anonymous mappings too)."""
    try:
        for line in Path("/proc/self/status").read_text("ascii").splitlines():
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGKILL when the parent dies; it may have died before we asked."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(EXIT_PARENT_GONE)


def main() -> None:
    """Entry of the child."""
    die_with_parent(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what ends
    source, sink = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)  # what role code prints goes to the log, not between the messages
    Worker(source, sink).run()


if __name__ == "__main__":
    main()
