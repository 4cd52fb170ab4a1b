"""One seed, drawn: who is there, what is asked, what goes wrong, how the network is.

Everything comes from child streams of the seed, so that `Options` that switch something off leave the rest as it was:
a smaller failing run is the same run with less weather or fewer faults.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from meshagent.sdk.kinds import Task
from meshagent.virtual.cast import Look, Press, Round
from meshagent.virtual.faults import MOST_BOUNDARIES, Fault, Kind, draw
from meshagent.virtual.network import Weather

STRIKES_UNTIL_S: Final = 9.0
"""Faults begin within so long; tasks take 0.2 to 3 s each."""
ASKED_UNTIL_S: Final = 5.0
ASKER_DIES: Final = 0.4
"""Share of larger meshes in which an asker never comes back."""
MAX_DRIFT: Final = 0.029
"""Just inside what the contract promises to survive (rho 0.03)."""
WALL_OFFSETS_S: Final = (1.5, 1.5, 3600.0)
"""Wall clocks disagree at most so much: within what a message's age tolerates, or by a time zone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a run may be restricted to; part of the line that replays it."""

    faults: bool = True
    weather: bool = True
    without: tuple[int, ...] = ()
    """Faults of the plan to leave out, by number: for shrinking."""
    membership: bool = False
    """Nodes judge each other by gossip too, over datagrams that the same weather loses."""
    mutation: str = ""
    """A planted bug (mutations.py): the net must find it."""

    def words(self) -> str:
        """As options of the command line."""
        words = []
        if not self.faults:
            words.append("--no-faults")
        if not self.weather:
            words.append("--no-weather")
        if self.without:
            words.append("--without " + ",".join(str(number) for number in self.without))
        if self.membership:
            words.append("--membership")
        if self.mutation:
            words.append(f"--mutation {self.mutation}")
        return " ".join(words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Player:
    """One device and what it can do."""

    name: str
    identity: int
    """Which of the pooled identities: decides ids, and with them who dials and who wins ties."""
    presses: bool
    looks: bool
    rounds: bool
    rate: float
    wall_offset_s: float
    position_m: tuple[float, float]
    joins_at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One task somebody submits."""

    at_s: float
    origin: str
    task: Task[Any]
    key: str = ""
    within_s: float | None = None
    cancel_after_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """All of it."""

    seed: int
    players: tuple[Player, ...]
    asks: tuple[Ask, ...]
    plan: tuple[Fault, ...]
    lease_s: float
    weather: Weather
    heal_at_s: float
    custodians: int = 3
    """How many keep a task beside its asker; 0: nobody, as with `durability=local`."""
    sites: dict[str, tuple[float, float]] = field(default_factory=dict)
    membership: bool = False

    def lines(self) -> list[str]:
        """For people: the whole scenario."""
        lines = [f"weather {self.weather}", f"lease {self.lease_s:g} s"]
        for player in self.players:
            can = [
                word
                for word, yes in (("press", player.presses), ("look", player.looks), ("round", player.rounds))
                if yes
            ]
            lines.append(
                f"{player.name} identity {player.identity} does {'+'.join(can) or 'nothing'},"
                f" clock {player.rate - 1:+.4f}, joins at {player.joins_at_s:.3f} s"
            )
        lines += [
            f"+{ask.at_s:.3f} s {ask.origin} asks {ask.task}"
            + (f" key {ask.key}" if ask.key else "")
            + (f" within {ask.within_s:g} s" if ask.within_s else "")
            + (f" and cancels after {ask.cancel_after_s:.3f} s" if ask.cancel_after_s is not None else "")
            for ask in self.asks
        ]
        lines += [f"fault {number}: {fault}" for number, fault in enumerate(self.plan)]
        lines.append(f"healed at {self.heal_at_s:.3f} s")
        return lines


def draw_scenario(seed: int, options: Options, *, identities: int) -> Scenario:
    """The scenario of `seed`.

    Args:
        seed: draws everything.
        options: what to leave out.
        identities: size of the pool.
    """

    def stream(name: str) -> Random:
        return Random(f"{seed}/scenario/{name}")

    rng = stream("players")
    count = rng.randint(3, 6)
    chosen = rng.sample(range(identities), count)
    tie = rng.random() < 0.3
    """All at one place: equal prices, the tie decides."""
    players = []
    for number in range(count):
        players.append(
            Player(
                name=f"n{number}",
                identity=chosen[number],
                presses=number < 2 or rng.random() < 0.7,
                looks=number < 2 or rng.random() < 0.7,
                rounds=number == 2 or rng.random() < 0.3,
                rate=1.0 + rng.uniform(-MAX_DRIFT, MAX_DRIFT) * (rng.random() < 0.5),
                wall_offset_s=rng.uniform(-1.0, 1.0) * rng.choice(WALL_OFFSETS_S) * (rng.random() < 0.3),
                position_m=(0.0, 0.0) if tie else (rng.uniform(0, 20), rng.uniform(0, 20)),
                joins_at_s=rng.uniform(0.0, 0.2) if number < 3 or rng.random() < 0.8 else rng.uniform(0.5, 4.0),
            )
        )
    names = [player.name for player in players]
    rng = stream("asks")
    sites = {f"s{number}": (rng.uniform(0, 20), rng.uniform(0, 20)) for number in range(2)}
    origins = rng.sample(names, rng.randint(1, 2))
    asks = [_ask(rng, number, origins) for number in range(rng.randint(1, 6))]
    if len(asks) > 1 and rng.random() < 0.25:
        # Two devices hear one rattle.
        first = asks[0]
        asks[0] = _with(first, key="rattle")
        asks[1] = _with(first, key="rattle", origin=rng.choice(origins), at_s=first.at_s + rng.uniform(0, 0.3))
    rng = stream("weather")
    weather = Weather(
        latency_s=rng.choice((0.0005, 0.003, 0.003, 0.02)),
        spread=rng.choice((0.2, 0.5, 1.0)),
        loss=rng.choice((0.0, 0.0, 0.05, 0.2)),
        drop=rng.choice((0.0, 0.0, 0.05, 0.15)),
        duplicate=rng.choice((0.0, 0.0, 0.1)),
        reorder=rng.choice((0.0, 0.0, 0.1)),
    )
    if not options.weather:
        weather = Weather()
    plan: tuple[Fault, ...] = ()
    if options.faults:
        # Whoever asks comes back, and of every kind somebody who does it: else nothing could end.
        drawn = draw(stream("faults"), names, keep=[*origins, *names[:3]], until_s=STRIKES_UNTIL_S)
        drawn += _asker_dies(stream("custody"), players, origins, drawn)
        plan = tuple(fault for number, fault in enumerate(drawn) if number not in options.without)
    heal_at_s = max([STRIKES_UNTIL_S] + [fault.at_s + fault.duration_s for fault in plan]) + 0.5
    return Scenario(
        seed=seed,
        players=tuple(players),
        asks=tuple(sorted(asks, key=lambda ask: ask.at_s)),
        plan=plan,
        lease_s=stream("lease").choice((2.0, 2.0, 5.0)),
        weather=weather,
        heal_at_s=heal_at_s,
        sites=sites,
        membership=options.membership,
    )


def _asker_dies(
    rng: Random, players: Sequence[Player], origins: Sequence[str], drawn: Sequence[Fault]
) -> tuple[Fault, ...]:
    """In some meshes of four or more one asker dies for ever: what others keep for it must end all the same."""
    mortal = [
        name for name in origins if any(player.rounds for player in players if player.name != name)
    ]  # presses and looks have two who do them
    if len(players) < 4 or not mortal or rng.random() >= ASKER_DIES or any(fault.for_ever for fault in drawn):
        return ()
    fault = Fault(
        kind=Kind.CRASH,
        at_s=rng.uniform(0.5, STRIKES_UNTIL_S),
        nodes=(rng.choice(mortal),),
        duration_s=0.0,
        boundary=rng.randint(1, MOST_BOUNDARIES),
        for_ever=True,
    )
    return (fault,)


def _ask(rng: Random, number: int, origins: list[str]) -> Ask:
    walk_s = rng.choice((0.05, 0.3, 1.0, 2.5, 6.0)) * rng.uniform(0.8, 1.2)
    draw_kind = rng.random()
    task: Task[Any]
    if draw_kind < 0.5:
        task = Press(
            button=f"b{number}",
            walk_s=walk_s,
            site=rng.choice(("", "s0", "s1")),
            reach_s=rng.choice((0.0, 0.0, 0.2, 1.0)),
            linger_s=rng.choice((0.0, 0.0, 0.5, 2.5)),
            give_back=rng.choice((0, 0, 0, 1, 2)),
            raises=rng.random() < 0.08,
            then=rng.random() < 0.15,
        )
    elif draw_kind < 0.85:
        task = Look(what=f"w{number}", looks=rng.randint(1, 3), look_s=walk_s / 2, give_back=rng.choice((0, 0, 1)))
    else:
        task = Round(tag=f"r{number}", walk_s=min(walk_s, 1.0))
    return Ask(
        at_s=rng.uniform(0.3, ASKED_UNTIL_S),
        origin=rng.choice(origins),
        task=task,
        within_s=rng.uniform(1.0, 12.0) if rng.random() < 0.15 else None,
        cancel_after_s=rng.uniform(0.0, 3.0) if rng.random() < 0.15 else None,
    )


def _with(ask: Ask, *, key: str, origin: str | None = None, at_s: float | None = None) -> Ask:
    return Ask(
        at_s=ask.at_s if at_s is None else at_s,
        origin=origin or ask.origin,
        task=ask.task,
        key=key,
        within_s=ask.within_s,
        cancel_after_s=ask.cancel_after_s if at_s is None else None,
    )
