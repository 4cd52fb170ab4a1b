"""What goes wrong, and when: a list drawn from the seed, explicit, so that a failing run can be made smaller.

Every fault heals by `heal_s`: what was cut is joined, what was frozen goes on, and whoever died comes back with its
disk, except those that die for ever. After that the promises about endings are judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Final, Protocol

from meshagent.virtual.kernel import Death, Process, World
from meshagent.virtual.network import Network


class Kind(StrEnum):
    """The kinds of fault."""

    CRASH = "crash"
    """At a boundary: around a commit or before a frame."""
    PAUSE = "pause"
    SUSPEND = "suspend"
    STALL = "stall"
    """Frozen in the middle of a callback, at a boundary."""
    NAP = "nap"
    """Frozen between two turns of the loop: between a decision and whoever acts on it."""
    PARTITION = "partition"
    ONE_WAY = "one_way"
    CUT = "cut"
    LEAVE = "leave"
    """A clean shutdown, and back later."""
    MUTE = "mute"
    """What the holder hears of the origin comes late; then nothing of the holder's reaches the origin. Its lease must
    end by what the origin granted, not by when the grant was heard."""


class Aim(StrEnum):
    """Whom a fault strikes: somebody by name, or by what they do at that moment."""

    NAME = "name"
    HOLDER = "holder"
    """Of a running `at_most_once` task that another node asked for."""
    ORIGIN = "origin"
    """Of such a task."""


WEIGHTS: Final = {
    Kind.CRASH: 6,
    Kind.PAUSE: 2,
    Kind.SUSPEND: 2,
    Kind.STALL: 2,
    Kind.NAP: 2,
    Kind.PARTITION: 3,
    Kind.ONE_WAY: 1,
    Kind.CUT: 1,
    Kind.LEAVE: 1,
    Kind.MUTE: 3,
}
AIMED: Final = 0.5
"""Share of faults that strike whoever holds or asked for a task: at random most of them would strike nobody at work."""
LOOK_AGAIN_S: Final = 0.02
"""An aimed fault waits for somebody to strike, looking this often."""
AIM_S: Final = 0.8
"""It strikes within so long after it found somebody."""
MIN_MUTE_S: Final = 3.0
"""Longer than the shorter lease: silence below it is no test of when a lease ends."""
MIN_LAG_S: Final = 1.0
"""Longer than what the initiator waits beyond the lease (0.22 s at 2 s), its call that the mute holder delays (0.4 s),
and the time between two renewals."""
MAX_LAG_S: Final = 1.8
"""Shorter than the shorter lease: a grant that comes after it grants nothing."""
DURATIONS_S: Final = (0.05, 0.3, 0.8, 1.6, 2.4, 4.0, 7.0)
"""Shorter than a frame's acknowledgement, about a lease (2 s), and far longer."""
MOST_BOUNDARIES: Final = 60
"""A crash strikes within so many boundaries after it is armed: a task passes some 20 at each of its nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong."""

    kind: Kind
    at_s: float
    nodes: tuple[str, ...]
    """Whom it strikes; the first group of a partition. Aimed faults strike others."""
    aim: Aim = Aim.NAME
    wait_s: float = 0.0
    """How long an aimed fault waits once it sees its victim."""
    lag_s: float = 0.0
    duration_s: float
    boundary: int = 0
    death: Death = Death.KILLED
    reboot: bool = False
    for_ever: bool = False

    def __str__(self) -> str:
        whom = "+".join(self.nodes) if self.aim is Aim.NAME else f"a {self.aim.value}"
        words = [f"{self.kind.value}({whom}) at {self.at_s:.3f} s"]
        if self.kind in (Kind.CRASH, Kind.STALL, Kind.NAP):
            words.append(f"{'turn' if self.kind is Kind.NAP else 'boundary'} +{self.boundary}")
        words.append("for ever" if self.for_ever else f"for {self.duration_s:g} s")
        if self.kind is Kind.CRASH:
            words.append(self.death.value)
        return " ".join(words)


def draw(rng: Random, nodes: Sequence[str], *, keep: Sequence[str], until_s: float) -> tuple[Fault, ...]:
    """A plan for `nodes`; those in `keep` may fall but always come back."""
    plan = []
    mortal = [name for name in nodes if name not in keep]
    dead: set[str] = set()
    for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 4))):
        kind = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        struck = [rng.choice(nodes)]
        if kind in (Kind.PARTITION, Kind.ONE_WAY, Kind.CUT):
            size = rng.randint(1, max(1, len(nodes) // 2)) if kind is Kind.PARTITION else 2
            struck = sorted(rng.sample(list(nodes), size))
            if kind is Kind.ONE_WAY and rng.random() < 0.5:
                struck.reverse()
        death = Death.POWER_CUT if rng.random() < 0.3 else Death.KILLED
        duration_s = rng.choice(DURATIONS_S) * rng.uniform(0.8, 1.2)
        if kind is Kind.MUTE:
            duration_s = max(duration_s, MIN_MUTE_S)
        for_ever = kind is Kind.CRASH and struck[0] in mortal and len(dead) + 1 < len(mortal) and rng.random() < 0.15
        aim = rng.choice((Aim.HOLDER, Aim.HOLDER, Aim.ORIGIN)) if rng.random() < AIMED else Aim.NAME
        if kind is Kind.MUTE:
            aim = Aim.HOLDER
        if for_ever:
            aim = Aim.NAME
            dead.add(struck[0])
        plan.append(
            Fault(
                kind=kind,
                aim=aim,
                wait_s=rng.uniform(0.0, AIM_S),
                lag_s=rng.uniform(MIN_LAG_S, MAX_LAG_S),
                at_s=rng.uniform(0.0, until_s),
                nodes=tuple(struck),
                duration_s=duration_s,
                boundary=rng.randint(1, MOST_BOUNDARIES),
                death=death,
                reboot=death is Death.POWER_CUT,
                for_ever=for_ever,
            )
        )
    return tuple(sorted(plan, key=lambda fault: (fault.at_s, fault.nodes)))


class Stage(Protocol):
    """What faults need of the nodes they strike."""

    @property
    def world(self) -> World: ...

    @property
    def network(self) -> Network: ...

    @property
    def healed(self) -> bool:
        """True from `heal_all` on: nothing strikes any more."""

    def process(self, name: str) -> Process | None:
        """The live process of `name`."""

    def pair(self) -> tuple[str, str] | None:
        """Holder and origin of an `at_most_once` task that runs now, on two nodes."""

    def start(self, name: str) -> None:
        """Start `name` again from its disk; ignored while it lives."""

    def leave(self, name: str) -> None:
        """Ask `name` to shut down cleanly."""


def arm(stage: Stage, plan: Sequence[Fault], until_s: float) -> None:
    """Schedule `plan`; aimed faults that found nobody by `until_s` are dropped."""
    for fault in plan:
        stage.world.at(fault.at_s, _strike, stage, fault, until_s)


def _strike(stage: Stage, fault: Fault, until_s: float) -> None:
    world = stage.world
    if fault.aim is Aim.NAME:
        _hit(stage, fault, fault.nodes)
        return
    pair = stage.pair()
    if pair is not None:
        holder, origin = pair
        aimed = (holder, origin) if fault.aim is Aim.HOLDER else (origin, holder)
        world.after(fault.wait_s, _hit, stage, fault, aimed)
    elif world.now_s < until_s:
        world.after(LOOK_AGAIN_S, _strike, stage, fault, until_s)


def _hit(stage: Stage, fault: Fault, nodes: tuple[str, ...]) -> None:
    if stage.healed:
        return
    world, network = stage.world, stage.network
    world.note("fault", f"{fault} hits {'+'.join(nodes)}")
    first = nodes[0]
    if fault.kind is Kind.MUTE:
        stop_lag = network.lag(nodes[1], first, fault.lag_s)

        def mute() -> None:
            stop_lag()
            if not stage.healed:
                world.after(fault.duration_s, network.block([(first, nodes[1])]))

        world.after(fault.lag_s, mute)
        return
    if fault.kind in (Kind.PARTITION, Kind.ONE_WAY):
        if fault.kind is Kind.PARTITION:
            group = nodes if fault.aim is Aim.NAME else (first,)
            heal = network.partition(group, [name for name in sorted(world.devices) if name not in group])
        else:
            heal = network.block([(first, nodes[1])])
        world.after(fault.duration_s, heal)
        return
    if fault.kind is Kind.CUT:
        network.cut(first, nodes[1])
        return
    process = stage.process(first)
    if process is None:
        return
    if fault.kind is Kind.CRASH:
        process.crash_at(process.boundaries + fault.boundary, fault.death)
        process.when_dead(lambda: _comes_back(stage, fault, first))
    elif fault.kind is Kind.STALL:
        process.stall_at(process.boundaries + fault.boundary, fault.duration_s)
    elif fault.kind is Kind.NAP:
        process.nap_at(process.turns + fault.boundary, fault.duration_s)
    elif fault.kind is Kind.LEAVE:
        stage.leave(first)
        process.when_dead(lambda: _comes_back(stage, fault, first))
    else:
        process.freeze(suspend=fault.kind is Kind.SUSPEND)
        if fault.kind is Kind.SUSPEND:
            # Whoever slept wakes without its network, which takes a while to come back.
            away = network.partition((first,), [name for name in sorted(world.devices) if name != first])
            world.after(fault.duration_s + fault.lag_s, away)
        world.after(fault.duration_s, process.thaw)


def _comes_back(stage: Stage, fault: Fault, name: str) -> None:
    if fault.for_ever:
        return

    def back() -> None:
        device = stage.world.devices[name]
        if fault.reboot and (device.process is None or not device.process.alive):
            device.hardware.reboot(stage.world.now_s)
        stage.start(name)

    stage.world.after(fault.duration_s, back)


def heal_all(stage: Stage, plan: Sequence[Fault]) -> None:
    """Nothing goes wrong any more: planned crashes are called off, the frozen go on, the dead come back."""
    world = stage.world
    world.note("fault", "heal all")
    gone = {fault.nodes[0] for fault in plan if fault.for_ever}
    for name in sorted(world.devices):
        process = stage.process(name)
        if process is not None:
            process.call_off()
            process.thaw()
        elif name not in gone:
            stage.start(name)
    stage.network.heal_all()
