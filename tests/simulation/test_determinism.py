"""The same seed gives the same trace, in any process, under any hash seed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from meshagent.virtual.play import play
from meshagent.virtual.scenario import Options

SEEDS = "0:12"


def traces(hash_seed: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "meshagent.virtual.run", "--seeds", SEEDS, "--jobs", "1", "--json"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["run"] == 12
    digest = document["traces"]
    assert isinstance(digest, str)
    return digest


def test_traces_are_equal_under_other_hash_seeds_and_processes() -> None:
    assert traces("1") == traces("4242")


def test_another_seed_is_another_run() -> None:
    assert play(1, Options()).trace_hash != play(2, Options()).trace_hash


def test_the_trace_does_not_depend_on_what_ran_before_in_the_process() -> None:
    first = play(3, Options()).trace_hash
    play(4, Options())
    assert play(3, Options()).trace_hash == first
