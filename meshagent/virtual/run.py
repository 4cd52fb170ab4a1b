"""`python -m meshagent.virtual.run --seeds 0:1000 --jobs 2`: look for a seed that breaks a promise.

Exit codes: 0 every promise held · 10 something crashed · 11 safety · 12 liveness · 13 one seed, two traces · 2 usage.
A failing seed prints one line that replays it. `--json` prints one object with a row for every failing seed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from meshagent.virtual.play import Verdict, play
from meshagent.virtual.scenario import Options, draw_scenario

OK: Final = 0
CRASH: Final = 10
SAFETY: Final = 11
LIVENESS: Final = 12
NOT_DETERMINISTIC: Final = 13

TWICE_EVERY: Final = 100
"""Every so many seeds one is run twice and the traces are compared: costs 1 %."""
CHUNK: Final = 5
"""Seeds a worker takes at once: small, so that one slow seed does not idle the other workers at the end."""


@dataclass(frozen=True, slots=True)
class Job:
    """One seed for a worker."""

    seed: int
    options: Options
    twice: bool


def judge(job: Job) -> Verdict:
    """Run one seed, or the same one twice."""
    verdict = play(job.seed, job.options)
    if job.twice and verdict.code == OK:
        again = play(job.seed, job.options)
        if again.trace_hash != verdict.trace_hash:
            return Verdict(
                seed=job.seed,
                code=NOT_DETERMINISTIC,
                broken="not_deterministic",
                at_s=0.0,
                how=f"two runs, two traces: {verdict.trace_hash[:8]} and {again.trace_hash[:8]}",
                trace_hash=verdict.trace_hash,
                events=verdict.events,
                virtual_s=verdict.virtual_s,
                tail=(),
            )
    return verdict


def judged(jobs: Sequence[Job], processes: int) -> Iterator[Verdict]:
    """The verdicts as they come, over `processes` workers (spawned: nothing inherited)."""
    if processes <= 1:
        yield from map(judge, jobs)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes) as pool:
        yield from pool.imap_unordered(judge, jobs, chunksize=CHUNK)


def commit() -> str:
    """The commit of this checkout, or the version where there is none."""
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return answer.stdout.strip()


def replay_line(verdict: Verdict, options: Options) -> str:
    """The one line of a failing seed: what broke, where, and what to paste."""
    words = f" {options.words()}" if options.words() else ""
    return (
        f"FAIL seed {verdict.seed:#x} at {verdict.at_s:.3f} s: {verdict.broken}: {verdict.how}"
        f" · trace {verdict.trace_hash[:8]} · commit {commit()}"
        f" · replay: python -m meshagent.virtual.run --seed {verdict.seed:#x}{words} --show"
    )


def seeds_of(text: str) -> range:
    """`0:1000`, or one number.

    Raises:
        argparse.ArgumentTypeError: neither.
    """
    first, colon, last = text.partition(":")
    try:
        start = int(first, 0)
        return range(start, int(last, 0)) if colon else range(start, start + 1)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no range of seeds; write 0:1000") from error


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(","))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m meshagent.virtual.run", description=__doc__.split("\n", 1)[0])
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--seeds", type=seeds_of, default=range(100), metavar="FROM:TO")
    which.add_argument("--seed", type=seeds_of, dest="seeds", metavar="SEED")
    parser.add_argument("--jobs", type=int, default=2, help="worker processes (default 2)")
    parser.add_argument("--show", action="store_true", help="print scenario and the end of the trace")
    parser.add_argument("--json", action="store_true", help="print one object")
    parser.add_argument("--no-faults", action="store_true", help="nothing goes wrong")
    parser.add_argument("--membership", action="store_true", help="nodes judge each other by gossip too")
    parser.add_argument("--no-weather", action="store_true", help="a perfect network")
    parser.add_argument("--without", type=_numbers, default=(), metavar="N,N", help="leave out these faults")
    parser.add_argument("--mutation", default="", help="plant a bug of meshagent/virtual/mutations.py")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first failing seed")
    given = parser.parse_args(arguments)
    options = Options(
        faults=not given.no_faults,
        weather=not given.no_weather,
        without=given.without,
        membership=given.membership,
        mutation=given.mutation,
    )
    jobs = [Job(seed, options, number % TWICE_EVERY == 0) for number, seed in enumerate(given.seeds)]
    if not jobs:
        parser.error("no seeds")
    processes = 1 if len(jobs) < 4 else given.jobs
    started_s = time.perf_counter()
    failures: list[Verdict] = []
    done = events = 0
    virtual_s = 0.0
    traces: list[tuple[int, str]] = []
    for verdict in judged(jobs, processes):
        done += 1
        events += verdict.events
        virtual_s += verdict.virtual_s
        traces.append((verdict.seed, verdict.trace_hash))
        if given.show:
            _show(verdict, options)
        if verdict.code != OK:
            failures.append(verdict)
            print(replay_line(verdict, options), file=sys.stderr, flush=True)
            if not given.keep_going:
                break
        if sys.stderr.isatty():
            print(f"\r{done} of {len(jobs)} seeds", end="", file=sys.stderr, flush=True)
    wall_s = time.perf_counter() - started_s
    failures.sort(key=lambda verdict: verdict.seed)
    code = max((verdict.code for verdict in failures), default=OK, key=_severity)
    if given.json:
        print(_document(given.seeds, traces, failures, events, virtual_s, wall_s, options))
    else:
        print(
            f"{done - len(failures)} ok · {len(failures)} failed · {events} events · {virtual_s:.0f} s virtual in"
            f" {wall_s:.1f} s ({virtual_s / wall_s:.0f}x, {1000 * wall_s / done:.0f} ms a seed)"
        )
    return code


def _severity(code: int) -> int:
    return (OK, LIVENESS, NOT_DETERMINISTIC, SAFETY, CRASH).index(code)


def _show(verdict: Verdict, options: Options) -> None:
    from meshagent.virtual.identities import POOL_SIZE

    print(f"seed {verdict.seed:#x}")
    for line in draw_scenario(verdict.seed, options, identities=POOL_SIZE).lines():
        print("  " + line)
    for line in verdict.tail:
        print("  | " + line)
    if verdict.code == OK:
        print(f"ok · {verdict.events} events · {verdict.virtual_s:.3f} s virtual · trace {verdict.trace_hash}")


def _document(
    seeds: range,
    traces: Sequence[tuple[int, str]],
    failures: Sequence[Verdict],
    events: int,
    virtual_s: float,
    wall_s: float,
    options: Options,
) -> str:
    return json.dumps(
        {
            "schema": "meshagent.virtual/1",
            "seeds": [seeds.start, seeds.stop],
            "run": len(traces),
            "ok": len(traces) - len(failures),
            "traces": hashlib.blake2b(repr(sorted(traces)).encode(), digest_size=16).hexdigest(),
            "failures": [
                {key: value for key, value in asdict(verdict).items() if key != "tail"}
                | {"replay": replay_line(verdict, options)}
                for verdict in failures
            ],
            "events": events,
            "virtual_s": round(virtual_s, 3),
            "wall_s": round(wall_s, 3),
            "commit": commit(),
            "python": platform.python_version(),
        }
    )


if __name__ == "__main__":
    sys.exit(main())
