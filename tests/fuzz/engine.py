"""Mutations by seed, and a command around them; coverage-guided by atheris where that is installed.

Each target module defines `corpus()` (genuine documents to start from) and `check(data)`, which raises only if the
code under test is wrong. A failing input is printed in hex with the line that repeats it.
"""

from __future__ import annotations

import argparse
import importlib
import random
import sys
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

INTERESTING = (0, 1, 0x20, 0x30, 0x7F, 0x80, 0x81, 0x82, 0x90, 0xC1, 0xDD, 0xDF, 0xFF)
MAX_INPUT_BYTES = 64 * 1024

Check = Callable[[bytes], None]


class FuzzFailure(AssertionError):
    """The code under test did what it must never do, on `data`."""

    def __init__(self, data: bytes, repeat: str) -> None:
        super().__init__(f"input {data.hex()}\nrepeat: {repeat}")
        self.data = data


def mutate(data: bytes, corpus: Sequence[bytes], rng: random.Random) -> bytes:
    """A neighbour of `data`: a few flips, cuts, copies, insertions, crossings and edge lengths."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(9):
            case 0 if out:
                out[at % len(out)] ^= 1 << rng.randrange(8)
            case 1 if out:
                out[at % len(out)] = rng.choice(INTERESTING)
            case 2:
                out[at:at] = bytes(rng.choice(INTERESTING) for _ in range(rng.randrange(1, 9)))
            case 3:
                del out[at : at + rng.randrange(1, 33)]
            case 4:
                part = out[at : at + rng.randrange(1, 65)]
                out[at:at] = part
            case 5:
                other = rng.choice(corpus)
                start = rng.randrange(len(other) + 1)
                out[at:] = other[start:]
            case 6:
                out[at : at + 4] = rng.choice((0, 1, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)).to_bytes(4, "big")
            case 7:
                out[at : at + 2] = rng.randrange(1 << 16).to_bytes(2, "big")
            case _:
                other = rng.choice(corpus)
                size = rng.randrange(1, 65)
                start = rng.randrange(len(other) + 1)
                out[at : at + size] = other[start : start + size]
    return bytes(out[:MAX_INPUT_BYTES])


def fuzz(
    check: Check, corpus: Sequence[bytes], *, seed: int, runs: int, seconds: float = 1e9, name: str = "target"
) -> int:
    """Check the corpus and `runs` mutations of it, or as many as fit into `seconds`; how many were checked.

    Raises:
        FuzzFailure: the first input that broke something.
    """
    rng = random.Random(seed)
    end = perf_counter() + seconds
    done = 0
    for number in range(len(corpus) + runs):
        if perf_counter() > end:
            break
        data = corpus[number] if number < len(corpus) else mutate(rng.choice(corpus), corpus, rng)
        try:
            check(data)
        except Exception as error:
            repeat = f"python -m tests.fuzz.{name} --seed {seed} --runs {number + 1}"
            raise FuzzFailure(data, repeat) from error
        done += 1
    return done


def main(module: str) -> None:
    """The command line of a target module."""
    name = module.rpartition(".")[2]
    parser = argparse.ArgumentParser(prog=f"python -m tests.fuzz.{name}")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plain", action="store_true", help="no atheris, even where it is installed")
    options, rest = parser.parse_known_args()
    target = importlib.import_module(f"tests.fuzz.{name}")
    check: Check = target.check
    corpus: Sequence[bytes] = target.corpus()
    if not options.plain:
        try:
            atheris: Any = importlib.import_module("atheris")  # optional, absent on most machines
        except ImportError:
            atheris = None
        if atheris is not None:
            atheris.instrument_all()
            atheris.Setup([name, f"-max_total_time={int(options.seconds)}", *rest], check)
            atheris.Fuzz()
            return
    done = fuzz(check, corpus, seed=options.seed, runs=options.runs, seconds=options.seconds, name=name)
    sys.stdout.write(f"{name}: {done} inputs, seed {options.seed}, nothing broke\n")
