"""A thousand drawn scenarios on whole nodes, and the seeds that once found something."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest

from meshagent.virtual.play import play
from meshagent.virtual.run import replay_line
from meshagent.virtual.scenario import Options

SEEDS = 1000
BLOCK = 25
FIRST = int(os.environ.get("MESHAGENT_FIRST_SEED", "0"), 0)
"""CI may look at fresh seeds; seed 0 and those of seeds.toml are always run."""

COMMITTED = tomllib.loads((Path(__file__).parent / "seeds.toml").read_text("utf-8"))["seed"]


@pytest.mark.parametrize("first", range(FIRST, FIRST + SEEDS, BLOCK))
def test_no_seed_breaks_a_promise(first: int) -> None:
    options = Options()
    verdicts = [play(seed, options) for seed in range(first, first + BLOCK)]
    failures = [replay_line(verdict, options) for verdict in verdicts if verdict.code]
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("seed", COMMITTED, ids=lambda seed: f"{seed['seed']:#x}")
def test_a_seed_that_found_a_bug_finds_none_any_more(seed: dict[str, object]) -> None:
    number = seed["seed"]
    assert isinstance(number, int)
    assert seed["found"], "say which bug it found"
    verdict = play(number, Options())
    assert verdict.code == 0, replay_line(verdict, Options())
