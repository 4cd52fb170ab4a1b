"""hello_mesh as its README tells it: the same commands, the same answers, up to times, ids and ports."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshagent.operator.places import LOCK_NAME, running_in

FOLDER = Path(__file__).parents[2] / "examples" / "hello_mesh"
COMMAND = str(Path(sys.executable).with_name("meshagent"))
UP_S = 30.0
CONSOLE = re.compile(r"```console\n(.*?)```", re.DOTALL)
VARIES = (
    (re.compile(r"\((?:[a-z2-7]{8})\)"), "(ID)"),
    (re.compile(r"greet-[a-z2-7]{4}"), "greet-ID"),
    (re.compile(r"port \d+"), "port N"),
    (re.compile(r"[+-]\d+\.\d{3}"), "T"),
    (re.compile(r"\d+\.\d+ s early"), "T early"),
    (re.compile(r"\b(?:in|after) \d+(?:\.\d+)? m?s\b"), "in T"),
    (re.compile(r" +"), " "),
)
"""What another run says otherwise; everything else must be the same."""

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("multicast")]


def masked(text: str) -> list[str]:
    for pattern, word in VARIES:
        text = pattern.sub(word, text)
    return [line.strip() for line in text.strip().splitlines()]


def told() -> dict[str, list[str]]:
    """Command of the README -> its masked answer."""
    found: dict[str, list[str]] = {}
    for block in CONSOLE.findall((FOLDER / "README.md").read_text()):
        command, _, answer = block.removeprefix("$ ").partition("\n")
        found[masked(command)[0]] = masked(answer)
    return found


class Mesh:
    """The throw-away fleet in a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {**os.environ, "XDG_STATE_HOME": str(home), "NO_COLOR": "1", "COLUMNS": "200"}
        self.nodes: dict[str, subprocess.Popen[str]] = {}

    def start(self, name: str) -> list[str]:
        """Start a greeter; what it says when it is up."""
        node = self.nodes[name] = subprocess.Popen(
            [COMMAND, "run", "hello.py", "--dev", "--name", name],
            cwd=FOLDER,
            env=self.environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert node.stdout is not None
        return [node.stdout.readline(), node.stdout.readline()]

    def wait_for_line(self, name: str, text: str) -> None:
        """Until the node's timeline says `text`."""
        out = self.nodes[name].stdout
        assert out is not None
        for line in out:
            if text in line:
                return
        pytest.fail(f"{name} ended and never said {text!r}")

    def ask(self, *words: str) -> str:
        done = subprocess.run(
            [COMMAND, *words, "--dev"],
            cwd=FOLDER,
            env=self.environment,
            text=True,
            timeout=UP_S,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return str(done.stdout)

    def kill(self, name: str) -> None:
        """kill -9 of the process id that the fleet shows."""
        lock = next(self.home.rglob(f"{name}/{LOCK_NAME}"))
        found = running_in(lock.parent)
        assert found is not None
        assert found.pid == self.nodes[name].pid
        self.nodes[name].kill()
        self.nodes[name].wait(10)


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    mesh = Mesh(tmp_path)
    yield mesh
    for node in mesh.nodes.values():
        node.kill()
        node.wait(10)
        if node.stdout is not None:
            node.stdout.close()


def test_hello_mesh_says_what_its_readme_shows(mesh: Mesh) -> None:
    readme = told()
    assert masked("".join(mesh.start("ann"))) == readme["meshagent run hello.py --dev --name ann"]
    submitted = mesh.ask("submit", "Greet", "name=world")
    # the result goes to stdout and the way there to stderr: their order is that of a terminal only on a terminal
    assert sorted(masked(submitted)) == sorted(readme["meshagent submit Greet name=world --dev"])
    label = re.findall(r"greet-[a-z2-7]{4}", submitted)[-1]
    assert sorted(masked(mesh.ask("why", label))) == sorted(readme["meshagent why greet-ID --dev"])


def test_the_other_greets_after_the_winner_was_killed(mesh: Mesh) -> None:
    mesh.start("ann")
    mesh.start("bob")
    mesh.wait_for_line("bob", "peer joined  ann")
    answer = mesh.ask("submit", "Greet", "name=world")
    assert "called 2 peers · 2 bids: " in answer
    winner = re.findall(r"hello world, (ann|bob) speaking", answer)[0]
    mesh.kill(winner)
    other = {"ann": "bob", "bob": "ann"}[winner]
    assert f"hello world, {other} speaking" in mesh.ask("submit", "Greet", "name=world")
