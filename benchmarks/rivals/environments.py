"""Virtual environments for the rivals, made on first use under `.venvs/`, one each, so that none disturbs another."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
PINNED = {"mango-agents": "2.4.0", "osbrain": "0.6.5"}
"""The versions that were measured; newer ones may be tried by editing this line."""


def python_of(package: str, say: object = None) -> Path:
    """The interpreter of the environment that holds `package`, made if it is not there.

    Raises:
        RuntimeError: pip could not install it; holds pip's last lines.
    """
    home = ROOT / ".venvs" / package
    python = home / "bin" / "python"
    wanted = f"{package}=={PINNED[package]}"
    marker = home / ".installed"
    if marker.exists() and marker.read_text() == wanted:
        return python
    if callable(say):
        say(f"installing {wanted} into .venvs/{package} (once)")
    if not python.exists():
        venv.create(home, with_pip=True)
    done = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wanted, "psutil"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"pip could not install {wanted}: {done.stderr[-500:]}")
    marker.write_text(wanted)
    return python


def run_rival(package: str | None, script: str, *options: str, timeout_s: float = 180) -> dict[str, float]:
    """Run a rival's script to its end and return the row it prints; `package` None: this very environment.

    Raises:
        RuntimeError: it failed or did not end; holds its last lines.
    """
    if package is None:
        command = [sys.executable, "-m", f"benchmarks.rivals.{script}", *options]
        where = ROOT
    else:
        command = [str(python_of(package)), f"{script}.py", *options]
        where = HERE
    try:
        done = subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{script} did not end within {timeout_s:.0f} s") from error
    for line in reversed(done.stdout.splitlines()):
        if line.startswith("{"):
            row: dict[str, float] = json.loads(line)
            return row
    raise RuntimeError(f"{script} printed no figures: {(done.stderr or done.stdout)[-500:]}")
