"""Real processes and threads: killed, bounded, and never trusted with more than bytes."""

from __future__ import annotations

import asyncio
import os
import pickle  # noqa: TID251 - the attack needs one
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import psutil
import pytest

from meshagent.runtime.worker import (
    EXIT_LEASE_OVER,
    EXIT_NONSENSE,
    EXIT_PARENT_GONE,
    LENGTH,
    MAX_PIPE_BYTES,
    Job,
    PipeError,
    boot_s,
    job_message,
    job_of,
    opened,
    packed,
)
from meshagent.runtime.workers import InlineWorkers, Lifeline, SystemWorkers, WorkerCrashedError, WorkerRaisedError
from meshagent.sdk.kinds import kind_of
from tests.support import worker_roles
from tests.support.worker_roles import Crunch


def job(how: str, *, until_s: float = 0.0, memory_mib: int = 64) -> Job:
    return Job(
        module=worker_roles.__name__,
        file=worker_roles.__file__,
        role="Cruncher",
        handler="crunch",
        kind="unit.crunch",
        spec=kind_of(Crunch).encode(Crunch(how)),
        until_s=until_s,
        memory_mib=memory_mib,
        node_id="n" * 52,
        node_name="dog-1",
    )


def never() -> bytes:
    raise AssertionError("a process was asked for")


def ignored(lifeline: Lifeline) -> None: ...


def play(scenario: Callable[[SystemWorkers], Coroutine[Any, Any, None]], processes: int = 1) -> None:
    async def whole() -> None:
        workers = SystemWorkers(processes)
        try:
            async with asyncio.timeout(60):
                await scenario(workers)
        finally:
            await workers.close()

    asyncio.run(whole())


async def ask(workers: SystemWorkers, how: str, **changes: Any) -> str:
    result = await workers.process(job(how, **changes), never, ignored)
    return str(kind_of(Crunch).decode_result(result))


def test_what_a_process_may_do_wrong_stays_in_it() -> None:
    async def scenario(workers: SystemWorkers) -> None:
        pid, _, name = (await ask(workers, "name")).partition(" ")
        assert (int(pid) != os.getpid(), name) == (True, "dog-1")
        assert (await ask(workers, "name")).startswith(pid), "a warm process is used again"
        with pytest.raises(WorkerRaisedError, match=r"^ValueError: no such row$") as raised:
            await ask(workers, "raise")
        assert "worker_roles.py" in raised.value.remote_traceback
        assert await ask(workers, "print") == "printed"
        with pytest.raises(WorkerRaisedError, match="at most 49152 travel"):
            await ask(workers, "long")
        with pytest.raises(WorkerRaisedError, match="cannot talk to the mesh"):
            await ask(workers, "mesh")
        with pytest.raises(WorkerRaisedError, match="went over its memory limit of 64 MiB"):
            await ask(workers, "eat")
        assert (await ask(workers, "name")).startswith(pid), "the limit is lifted for the next job"
        assert await ask(workers, "eat", memory_mib=0) == "32"
        with pytest.raises(WorkerCrashedError, match="ended with status 3"):
            await ask(workers, "die")
        assert not (await ask(workers, "name")).startswith(pid), "a dead process is replaced"

    play(scenario)


def test_role_code_in_a_process_does_not_inherit_the_passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHAGENT_PASSPHRASE", "correct horse")
    monkeypatch.setenv("MESHAGENT_LOG__LEVEL", "info")

    async def scenario(workers: SystemWorkers) -> None:
        assert await ask(workers, "environment") == "MESHAGENT_LOG__LEVEL"

    play(scenario)


def test_a_process_is_killed_when_its_work_is_cancelled() -> None:
    async def scenario(workers: SystemWorkers) -> None:
        pid = int((await ask(workers, "name")).split()[0])
        begun = asyncio.Event()
        hanging = asyncio.create_task(workers.process(job("hang"), never, lambda lifeline: begun.set()))
        await begun.wait()
        assert psutil.pid_exists(pid)
        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging
        assert not psutil.pid_exists(pid), "dead before the caller goes on"

    play(scenario)


def test_suspend_past_lease_a_worker_ends_itself_though_its_node_is_stopped() -> None:
    async def scenario(workers: SystemWorkers) -> None:
        await ask(workers, "name")
        since_s = boot_s()
        with pytest.raises(WorkerCrashedError, match="its lease was over"):
            await workers.process(job("hang", until_s=boot_s() + 0.3), never, ignored)
        assert 0.2 < boot_s() - since_s < 5.0

    play(scenario)


def test_a_renewal_reaches_the_worker() -> None:
    async def scenario(workers: SystemWorkers) -> None:
        await ask(workers, "name")
        lines: list[Lifeline] = []
        since_s = boot_s()
        hanging = asyncio.create_task(workers.process(job("hang", until_s=boot_s() + 0.5), never, lines.append))
        while not lines:
            await asyncio.sleep(0.001)
        lines[0](boot_s() + 1.2)
        with pytest.raises(WorkerCrashedError, match="its lease was over"):
            await hanging
        assert boot_s() - since_s > 1.0

    play(scenario)


def test_a_worker_dies_with_its_parent() -> None:
    code = (
        "import asyncio, os, sys\n"
        "from meshagent.runtime.workers import SystemWorkers\n"
        "from tests.unit.runtime.test_workers import ask, job, never\n"
        "async def main():\n"
        "    workers = SystemWorkers(1)\n"
        "    print((await ask(workers, 'name')).split()[0], flush=True)\n"
        "    await workers.process(job('hang'), never, lambda lifeline: print('hangs', flush=True))\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    try:
        worker = psutil.Process(int(parent.stdout.readline()))
        assert parent.stdout.readline() == "hangs\n"
        parent.send_signal(signal.SIGKILL)
        worker.wait(timeout=5)
    except psutil.NoSuchProcess:
        pass  # dead already
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()


def run_worker(said: bytes, parent: int | None = None) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "meshagent.runtime.worker", str(os.getpid() if parent is None else parent)]
    return subprocess.run(command, input=said, capture_output=True, timeout=30, check=False)


BURGLED = os.path.join(tempfile.gettempdir(), f"meshagent-burgled-{os.getuid()}")


class Burglar:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {BURGLED}",)


@pytest.mark.parametrize(
    "body",
    [
        pickle.dumps({"op": "run"}),
        pickle.dumps(Burglar()),
        b"\xff" * 10,
        packed({"op": "format the disk"})[LENGTH.size :],
        packed({"op": "run", "module": "os"})[LENGTH.size :],
        packed({**job_message(job("name")), "extra": 1})[LENGTH.size :],
        packed({"op": "until", "until_s": "soon"})[LENGTH.size :],
    ],
)
def test_pickle_worker_takes_nothing_but_its_own_messages(body: bytes) -> None:
    ended = run_worker(LENGTH.pack(len(body)) + body)
    assert ended.returncode == EXIT_NONSENSE
    assert not os.path.exists(BURGLED)


def test_pickle_worker_refuses_a_length_beyond_its_bound_unread() -> None:
    assert run_worker(LENGTH.pack(MAX_PIPE_BYTES + 1)).returncode == EXIT_NONSENSE


def test_a_worker_whose_pipe_ends_goes() -> None:
    assert run_worker(b"").returncode == EXIT_PARENT_GONE


def test_a_worker_of_somebody_else_does_not_start() -> None:
    assert run_worker(b"", parent=1).returncode == EXIT_PARENT_GONE


def test_pickle_worker_answers_of_a_bad_worker_are_refused() -> None:
    for body in (pickle.dumps({"op": "result"}), pickle.dumps(Burglar()), b"", b"\x80", packed({"no": "op"})[4:]):
        with pytest.raises(PipeError):
            opened(body)


def test_a_message_too_long_is_never_written() -> None:
    with pytest.raises(PipeError, match="more than"):
        packed({"op": "result", "value": b"x" * MAX_PIPE_BYTES})


def test_a_job_survives_its_pipe() -> None:
    assert job_of(opened(packed(job_message(job("name", until_s=3.5)))[LENGTH.size :])) == job("name", until_s=3.5)


def test_the_exit_codes_are_told_apart() -> None:
    assert len({EXIT_LEASE_OVER, EXIT_NONSENSE, EXIT_PARENT_GONE, 0, 1}) == 5


# ---- threads


def test_a_thread_gives_back_what_it_returns_or_raises() -> None:
    async def scenario(workers: SystemWorkers) -> None:
        assert await workers.thread(threading.get_ident, to_the_end=False) != threading.get_ident()
        with pytest.raises(ZeroDivisionError):
            await workers.thread(lambda: 1 // 0, to_the_end=False)
        with pytest.raises(SystemExit):
            await workers.thread(sys.exit, to_the_end=False)

    play(scenario)


@pytest.mark.parametrize("to_the_end", [True, False])
def test_a_cancelled_thread_is_waited_for_only_where_it_matters(to_the_end: bool) -> None:
    async def scenario(workers: SystemWorkers) -> None:
        begun, go = threading.Event(), threading.Event()

        def compute() -> None:
            begun.set()
            go.wait(10)

        task = asyncio.create_task(workers.thread(compute, to_the_end=to_the_end))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        assert task.done() is not to_the_end
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    play(scenario)


def test_inline_workers_do_the_same_at_once() -> None:
    async def scenario() -> None:
        workers = InlineWorkers()
        assert await workers.thread(lambda: 3, to_the_end=True) == 3
        assert await workers.process(job("name"), lambda: b"here", ignored) == b"here"
        with pytest.raises(WorkerRaisedError, match="ZeroDivisionError"):
            await workers.process(job("name"), lambda: bytes(1 // 0), ignored)
        await workers.close()

    asyncio.run(scenario())
