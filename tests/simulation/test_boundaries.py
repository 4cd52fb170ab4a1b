"""One task, and somebody crashes or stands still at the k-th commit or frame, for every k.

The seeds strike at random; here nothing between asking and the end is left out.
"""

from __future__ import annotations

import pytest

from meshagent.sdk.kinds import Task
from meshagent.virtual.kernel import Death
from meshagent.virtual.play import play, stage
from meshagent.virtual.scenario import Options
from tests.support.scenes import ASKED_AT_S, HEAL_AT_S, HOLDER, LOOK, PRESS, crash, nap, pair_of_workers, stall

TASKS: dict[str, Task[object]] = {"press": PRESS, "look": LOOK}


def boundaries_of(task: Task[object], name: str) -> int:
    """How many commits and frames `name` passes from the asking on, when nothing goes wrong."""
    company = stage(1, pair_of_workers(task))
    world = company.world
    world.run_until(lambda: False, limit_s=ASKED_AT_S)
    process = company.process(name)
    assert process is not None
    before = process.boundaries
    world.run_until(lambda: False, limit_s=HEAL_AT_S)
    passed = process.boundaries - before
    world.close()
    return passed


def test_every_promise_holds_between_whichever_turns_the_holder_sleeps() -> None:
    company = stage(1, pair_of_workers(PRESS))
    world = company.world
    world.run_until(lambda: False, limit_s=ASKED_AT_S)
    process = company.process(HOLDER)
    assert process is not None
    before = process.turns
    world.run_until(lambda: any(facts.ended for facts in company.watcher.tasks.values()), limit_s=HEAL_AT_S)
    turns = process.turns - before
    world.close()
    assert turns > 20
    failures = []
    for turn in range(1, turns + 2):
        fault = nap(HOLDER, turn, duration_s=1.3)
        verdict = play(1, Options(), pair_of_workers(PRESS, fault))
        if verdict.code:
            failures.append(f"{fault}: {verdict.broken} at {verdict.at_s:.3f} s: {verdict.how}")
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("what", ["crash", "power_cut", "long_crash", "stall"])
@pytest.mark.parametrize("name", ["asker", "one", "two"])
@pytest.mark.parametrize("task", list(TASKS))
def test_every_promise_holds_wherever_it_strikes(task: str, name: str, what: str) -> None:
    count = boundaries_of(TASKS[task], name)
    assert count >= 4, "this node takes no part, so the test would show nothing"
    failures = []
    for boundary in range(1, count + 2):
        fault = {
            "crash": crash(name, boundary, down_s=0.2),
            "power_cut": crash(name, boundary, down_s=0.2, death=Death.POWER_CUT),
            "long_crash": crash(name, boundary, down_s=1.5),
            "stall": stall(name, boundary, duration_s=1.3),
        }[what]
        verdict = play(1, Options(), pair_of_workers(TASKS[task], fault))
        if verdict.code:
            failures.append(f"{fault}: {verdict.broken} at {verdict.at_s:.3f} s: {verdict.how}")
    assert not failures, "\n".join(failures)
