"""A short run of every fuzz target, and proof that the engine finds what is there to find."""

from __future__ import annotations

import importlib

import pytest

from tests.fuzz.engine import FuzzFailure, fuzz

TARGETS = {
    "gate": 1500,
    "hello": 1200,
    "revocation": 400,
    "certificates": 250,
    "strictpack": 8000,
    "frame": 4000,
    "codec": 6000,
}


@pytest.mark.parametrize("name", TARGETS)
def test_fuzz_target_survives_a_short_run(name: str) -> None:
    target = importlib.import_module(f"tests.fuzz.{name}")
    runs = TARGETS[name]
    assert fuzz(target.check, target.corpus(), seed=1, runs=runs, name=name) > runs


def test_the_engine_finds_a_planted_fault_and_says_how_to_repeat_it() -> None:
    def check(data: bytes) -> None:
        if data[:1] == b"A" and len(data) < 6:
            raise ValueError("planted")

    with pytest.raises(FuzzFailure, match=r"--seed 3 --runs \d+") as caught:
        fuzz(check, [b"Acorn and more"], seed=3, runs=5000, name="planted")
    assert caught.value.data[:1] == b"A"
