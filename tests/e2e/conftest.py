"""The installed command line in processes of its own, in a home of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import pytest

from meshagent.identity.credential import DEFAULT_MAY
from meshagent.identity.device import create_key, install_credential
from meshagent.identity.fleet import FleetAuthority
from meshagent.identity.join import JoinRequest
from meshagent.operator.device import wall_s

WORKSHOP = Path(__file__).with_name("workshop.py")
COMMAND = [str(Path(sys.executable).with_name("meshagent"))]
UP_S = 20.0
ENDED_S = 30.0


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.out)
        return parsed


class Running:
    """A command that goes on; its output lies in files."""

    def __init__(self, process: subprocess.Popen[bytes], out: Path, err: Path) -> None:
        self.process = process
        self.out_path = out
        self.err_path = err

    @property
    def out(self) -> str:
        return self.out_path.read_text()

    @property
    def err(self) -> str:
        return self.err_path.read_text()

    def until(self, text: str, *, within_s: float = UP_S) -> Running:
        """Wait until it has said `text`."""
        end_s = time.perf_counter() + within_s
        while text not in self.out and text not in self.err:
            if self.process.poll() is not None or time.perf_counter() > end_s:
                raise AssertionError(f"never said {text!r}: {self.process.poll()}\n{self.out}\n{self.err}")
            time.sleep(0.02)
        return self

    def ended(self) -> Ran:
        """Wait for its end."""
        return Ran(self.process.wait(ENDED_S), self.out, self.err)


class Cli:
    """`meshagent` with everything it keeps under one folder."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._number = 0
        self._started: list[Running] = []
        kept = ("PATH", "LANG", "VIRTUAL_ENV", "PYTHONPATH", "COVERAGE_PROCESS_START")
        self.environ = {key: os.environ[key] for key in kept if key in os.environ}
        self.environ |= {"HOME": str(home), "NO_COLOR": "1"}

    def __call__(self, *arguments: object, stdin: str = "", **environ: str) -> Ran:
        """`meshagent ARGUMENTS`, to its end."""
        return self.run_command([*COMMAND, *arguments], stdin=stdin, **environ)

    def run_command(self, words: Sequence[object], stdin: str = "", **environ: str) -> Ran:
        """Any command, to its end."""
        done = subprocess.run(
            [*map(str, words)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=ENDED_S,
            check=False,
            cwd=self.home,
            env={**self.environ, **environ},
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: object, **environ: str) -> Running:
        """`meshagent ARGUMENTS`, and go on."""
        return self.start_command([*COMMAND, *arguments], **environ)

    def start_command(self, words: Sequence[object], **environ: str) -> Running:
        """Any command, and go on."""
        self._number += 1
        out, err = self.home / f"{self._number}.out", self.home / f"{self._number}.err"
        with out.open("wb") as o, err.open("wb") as e:
            process = subprocess.Popen(
                [*map(str, words)],
                stdin=subprocess.DEVNULL,
                stdout=_handle(o),
                stderr=_handle(e),
                cwd=self.home,
                env={**self.environ, **environ},
                # a shell lets what it runs in the background ignore Ctrl-C, and children inherit that
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        self._started.append(Running(process, out, err))
        return self._started[-1]

    def node(self, name: str, *more: object) -> Running:
        """A node of the throw-away fleet with the workshop's roles, up."""
        return self.start("run", WORKSHOP, "--dev", "--name", name, *more).until(f"{name} (").until("is up in")

    def device(
        self, name: str, *, fleet: str = "plant", lifetime_s: float = 86400.0, may: Sequence[str] = DEFAULT_MAY
    ) -> Path:
        """The state folder of a device of `fleet`, which is founded where needed; as by files, without waiting."""
        folder, state, now_s = self.home / f"authority-{fleet}", self.home / name, wall_s()
        opened = FleetAuthority.open(folder) if folder.exists() else FleetAuthority.create(folder, fleet, now_s=now_s)
        with opened as authority:
            key = create_key(state)
            request = JoinRequest.create(key, name=name)
            file = authority.admit(request, now_s=now_s, may=may, lifetime_days=lifetime_s / 86400)
        install_credential(state, key, file.to_bytes(), now_s=now_s)
        return state

    def close(self) -> None:
        for running in self._started:
            if running.process.poll() is None:
                running.process.kill()
            running.process.wait(10)


def _handle(file: Any) -> TextIO:
    handle: TextIO = file
    return handle


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    made = Cli(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """ann and bob run; tests of one module share them."""
    made = Cli(tmp_path_factory.mktemp("mesh"))
    try:
        made.start("run", WORKSHOP, "--dev", "--name", "ann").until("is up in")
        made.start("run", WORKSHOP, "--dev", "--name", "bob").until("is up in")
        yield made
    finally:
        made.close()
