"""Small scenarios written by hand, for tests that strike at one point after another."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from meshagent.sdk.kinds import Task
from meshagent.virtual.cast import Look, Press
from meshagent.virtual.faults import Aim, Fault, Kind
from meshagent.virtual.kernel import Death
from meshagent.virtual.network import Weather
from meshagent.virtual.scenario import Ask, Player, Scenario

ASKED_AT_S = 0.6
HEAL_AT_S = 6.0
HOLDER = "two"
"""Who wins the tie in `pair_of_workers`, where nothing goes wrong before."""
PRESS = Press(button="b", walk_s=0.4, reach_s=0.05, linger_s=0.05)
LOOK = Look(what="w", looks=2, look_s=0.15)


def player(name: str, identity: int, *, presses: bool, looks: bool) -> Player:
    """A device at the origin with a right clock, up from the start."""
    return Player(
        name=name,
        identity=identity,
        presses=presses,
        looks=looks,
        rounds=False,
        rate=1.0,
        wall_offset_s=0.0,
        position_m=(0.0, 0.0),
        joins_at_s=0.0,
    )


def pair_of_workers(task: Task[Any], *faults: Fault, weather: Weather | None = None, lease_s: float = 1.0) -> Scenario:
    """`asker` asks, `one` and `two` can do it."""
    return Scenario(
        seed=1,
        players=(
            player("asker", 0, presses=False, looks=False),
            player("one", 1, presses=True, looks=True),
            player("two", 2, presses=True, looks=True),
        ),
        asks=(Ask(at_s=ASKED_AT_S, origin="asker", task=task),),
        plan=faults,
        lease_s=lease_s,
        weather=weather or Weather(spread=0.1),
        heal_at_s=HEAL_AT_S,
    )


def crash(name: str, boundary: int, *, down_s: float, death: Death = Death.KILLED) -> Fault:
    """`name` crashes at its `boundary`-th boundary after the task was asked for."""
    return Fault(
        kind=Kind.CRASH,
        at_s=ASKED_AT_S,
        nodes=(name,),
        duration_s=down_s,
        boundary=boundary,
        death=death,
        reboot=death is Death.POWER_CUT,
    )


def stall(name: str, boundary: int, *, duration_s: float) -> Fault:
    """`name` stands still in the middle of a callback, at its `boundary`-th boundary after the task was asked for."""
    return Fault(kind=Kind.STALL, at_s=ASKED_AT_S, nodes=(name,), duration_s=duration_s, boundary=boundary)


LONG_PRESS = Press(button="b", walk_s=6.0)
REACHING_PRESS = Press(button="b", walk_s=0.4, reach_s=2.5, linger_s=2.5)


def mute_scene(seed: int) -> Scenario:
    """The holder of long work hears late of its grants, and then nothing of it reaches the asker."""
    rng = Random(f"mute/{seed}")
    fault = Fault(
        kind=Kind.MUTE,
        aim=Aim.HOLDER,
        at_s=ASKED_AT_S,
        nodes=("one", "asker"),
        duration_s=5.0,
        lag_s=rng.uniform(0.5, 1.8),
        wait_s=rng.uniform(0.0, 1.0),
    )
    return pair_of_workers(LONG_PRESS, fault, lease_s=2.0)


def sleep_scene(seed: int) -> Scenario:
    """The holder is suspended or paused for longer than its lease, near its effect; a sleeper wakes without network."""
    rng = Random(f"sleep/{seed}")
    fault = Fault(
        kind=rng.choice((Kind.SUSPEND, Kind.PAUSE)),
        aim=Aim.HOLDER,
        at_s=ASKED_AT_S,
        nodes=("one", "asker"),
        duration_s=rng.uniform(2.5, 4.0),
        lag_s=rng.uniform(0.5, 2.0),
        wait_s=rng.uniform(0.0, 3.0),
    )
    return pair_of_workers(REACHING_PRESS, fault, lease_s=2.0)


def nap(name: str, turn: int, *, duration_s: float) -> Fault:
    """`name` stands still between two turns of its loop, after the `turn`-th since the task was asked for."""
    return Fault(kind=Kind.NAP, at_s=ASKED_AT_S, nodes=(name,), duration_s=duration_s, boundary=turn)


NAP_TURNS = 25
"""Turns of the holder's loop from the start of its work to the effect."""


def nap_scene(seed: int) -> Scenario:
    """The worker stands still for longer than its lease between two turns: others with each seed.

    Between the turn in which its timer fires and the one in which the handler goes on nothing has told it of the lease.
    """
    reaching = Press(button="b", walk_s=0.2, reach_s=0.05)
    fault = replace(nap(HOLDER, 1 + seed % NAP_TURNS, duration_s=1.3), aim=Aim.HOLDER)
    return pair_of_workers(reaching, fault)


def cut_off_scene(seed: int) -> Scenario:
    """The holder is cut off and healthy; its link is given up long before its lease of 5 s is over."""
    rng = Random(f"cut off/{seed}")
    fault = Fault(
        kind=Kind.PARTITION,
        aim=Aim.HOLDER,
        at_s=ASKED_AT_S,
        nodes=("one", "asker"),
        duration_s=6.0,
        wait_s=rng.uniform(0.0, 2.0),
    )
    return pair_of_workers(LONG_PRESS, fault, lease_s=5.0)
