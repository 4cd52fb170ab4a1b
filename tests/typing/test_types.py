"""The surface under mypy --strict: what must pass passes, and each mistake is found on its own line.

One mypy process for both files, because starting one costs more than checking them.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
REPORT = re.compile(r"^(?P<file>[^:]+):(?P<line>\d+): error: (?P<text>.*?)(?:  \[[\w-]+\])?$")


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[int, list[str]]]:
    """File name -> line -> what mypy says of it."""
    folder = tmp_path_factory.mktemp("typing")
    (folder / "rejected.py").write_text((HERE / "rejected.txt").read_text())
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--show-error-codes", "--no-pretty"]
    files = [str(HERE / "accepted.py"), str(folder / "rejected.py")]
    done = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: dict[str, dict[int, list[str]]] = {}
    for line in done.stdout.splitlines():
        match = REPORT.match(line)
        if match:
            by_line = found.setdefault(Path(match["file"]).name, {})
            by_line.setdefault(int(match["line"]), []).append(match["text"])
    return found


def expected() -> Iterable[tuple[int, str]]:
    for number, line in enumerate((HERE / "rejected.txt").read_text().splitlines(), 1):
        _, mark, text = line.partition("# E: ")
        if mark:
            yield number, text


def test_what_the_guide_shows_is_well_typed(reported: dict[str, dict[int, list[str]]]) -> None:
    assert reported.get("accepted.py", {}) == {}


@pytest.mark.parametrize(("line", "text"), list(expected()))
def test_a_mistake_is_found_on_its_line(reported: dict[str, dict[int, list[str]]], line: int, text: str) -> None:
    said = reported["rejected.py"].get(line, [])
    assert any(text in words for words in said), f"line {line} is accepted, or said: {said}"


def test_nothing_else_is_reported(reported: dict[str, dict[int, list[str]]]) -> None:
    lines = {number for number, _ in expected()}
    assert {line: words for line, words in reported["rejected.py"].items() if line not in lines} == {}
