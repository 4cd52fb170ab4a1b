"""Whole nodes that know each other by membership: virtual time, sealed datagrams, real signatures, seeds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshagent.core.members import PRESETS, MemberChanged, MemberState
from meshagent.core.ports import HintSource, PeerHint
from meshagent.virtual.kernel import Death, World
from meshagent.virtual.members import Member
from meshagent.virtual.network import PORT, Network, Weather
from meshagent.virtual.nodes import Mesh
from meshagent.virtual.play import play
from meshagent.virtual.run import replay_line
from meshagent.virtual.scenario import Options

LOOPBACK = PRESETS["loopback"]


class Company:
    """Nodes without roles; the first one's address is all that the others are told."""

    def __init__(self, size: int, *, seed: int = 1, mdns: bool = False, loss: float = 0.0) -> None:
        self.world = World(seed)
        self.network = Network(self.world, Weather(loss=loss), mdns=mdns)
        self.mesh = Mesh(self.world, self.network, membership=LOOPBACK)
        self.members = [self.mesh.add(f"node-{number}", roles=[]) for number in range(size)]

    def start(self, *, seeds: bool = True) -> None:
        for member in self.members:
            member.start()
        self.run(0.05)
        if seeds:
            for member in self.members[1:]:
                self.point(member, self.members[0])

    def point(self, member: Member, at: Member) -> None:
        """`--peer`: one static address, whose owner is not known."""
        assert member.node is not None
        hint = PeerHint(host=at.name, port=PORT, source=HintSource.STATIC)
        assert member.process is not None
        member.process.deliver(member.node.transport.add_hint, hint)

    def run(self, seconds: float) -> None:
        self.world.run_for(seconds)
        assert self.mesh.crash() == ""

    def until(self, holds: object, within_s: float) -> float:
        start_s = self.world.now_s
        while not holds():  # type: ignore[operator]
            assert self.world.now_s - start_s < within_s, self.states()
            self.run(0.02)
        return self.world.now_s - start_s

    def sees(self, one: Member, other: Member) -> MemberState | None:
        node = one.node
        if node is None or not one.ready or node.driver.keeper is None:
            return None
        return node.driver.keeper.state_of(other.node_id)

    def all_see(self, other: Member, state: MemberState) -> bool:
        return all(self.sees(one, other) is state for one in self.members if one is not other and one.alive)

    def complete(self) -> bool:
        live = [one for one in self.members if one.alive]
        return all(
            self.sees(one, other) is MemberState.ALIVE and one.linked(other)
            for one in live
            for other in live
            if one is not other
        )

    def states(self) -> dict[str, dict[str, str]]:
        return {
            one.name: {other.name: str(self.sees(one, other)) for other in self.members if other is not one}
            for one in self.members
            if one.alive
        }


def formed(size: int, **options: object) -> Company:
    company = Company(size, **options)  # type: ignore[arg-type]
    company.start()
    company.until(company.complete, 10.0)
    company.run(1.0)
    return company


@pytest.mark.parametrize("seed", range(3))
def test_one_static_seed_is_enough_without_multicast(seed: int) -> None:
    company = Company(7, seed=seed)
    company.start()
    assert company.until(company.complete, 10.0) < 2.0


def test_without_udp_the_links_carry_membership() -> None:
    company = Company(5)
    company.network.no_udp = True
    company.start()
    company.until(company.complete, 10.0)
    company.run(20.0)
    assert company.complete()
    keeper = company.members[1].node.driver.keeper  # type: ignore[union-attr]
    assert keeper is not None
    assert keeper.linked_without_datagrams == 4
    company.members[3].kill(Death.KILLED)
    company.until(lambda: company.all_see(company.members[3], MemberState.FAULTY), 5.0)


def test_idle_members_exchange_sealed_datagrams_alone() -> None:
    company = formed(6)
    frames, before = company.network.frames_sent, company.network.datagrams_sent
    company.run(5.0)
    sent = company.network.datagrams_sent - before
    assert 0.9 < sent / 6 / (5.0 / LOOPBACK.protocol_period_s) / 2 < 1.2
    assert company.network.frames_sent - frames < 12


@pytest.mark.parametrize("death", [Death.KILLED, Death.POWER_CUT])
def test_a_death_is_known_to_all_and_the_restarted_node_is_believed_at_once(death: Death) -> None:
    company = formed(5)
    victim = company.members[2]
    victim.kill(death)
    assert company.until(lambda: company.all_see(victim, MemberState.FAULTY), 10.0) < 5.0
    victim.start()
    company.run(0.1)
    company.point(victim, company.members[4])
    assert company.until(company.complete, 10.0) < 3.0


def test_after_a_power_cut_of_all_everybody_is_believed() -> None:
    company = formed(5)
    for member in company.members:
        member.kill(Death.POWER_CUT)
    company.run(5.0)
    company.start()
    assert company.until(company.complete, 10.0) < 3.0


def test_a_frozen_node_is_faulty_while_frozen_and_alive_after() -> None:
    company = formed(4)
    victim = company.members[1]
    victim.pause()
    company.until(lambda: all(company.sees(company.members[n], victim) is MemberState.FAULTY for n in (0, 2, 3)), 10.0)
    victim.resume()
    company.until(company.complete, 15.0)


def test_a_split_heals_and_both_sides_agree() -> None:
    company = formed(6)
    sides = [one.name for one in company.members[:3]], [one.name for one in company.members[3:]]
    heal = company.network.partition(*sides)
    company.until(lambda: company.sees(company.members[0], company.members[5]) is MemberState.FAULTY, 10.0)
    assert company.sees(company.members[0], company.members[1]) is MemberState.ALIVE
    heal()
    company.until(company.complete, 20.0)


def test_who_leaves_is_left() -> None:
    company = formed(4)
    company.members[2].leave()
    company.until(lambda: company.all_see(company.members[2], MemberState.LEFT), 5.0)
    company.run(10.0)
    assert company.all_see(company.members[2], MemberState.LEFT)


@pytest.mark.parametrize("seed", range(4))
def test_in_bad_weather_nobody_is_given_up(seed: int) -> None:
    company = formed(5, seed=seed)
    company.network.weather = replace(company.network.weather, loss=0.15)
    told: list[MemberChanged] = []
    for member in company.members:
        assert member.node is not None
        member.node.driver._on_member = told.append
    company.run(60.0)
    assert [change for change in told if change.state is MemberState.FAULTY] == []


def test_state_records_reach_everybody_and_say_what_their_owner_said() -> None:
    company = formed(4)
    subject, other = company.members[1], company.members[3]

    def position() -> object:
        keeper = other.node.driver.keeper  # type: ignore[union-attr]
        assert keeper is not None
        (view,) = [one for one in keeper.members() if one.node == subject.node_id]
        return None if view.facts is None else (view.facts.name, view.facts.position_m)

    company.until(lambda: position() == ("node-1", (0.0, 0.0)), 5.0)
    company.run(6.0)  # what moves is told every five seconds
    subject.move((12.0, 3.0))
    company.until(lambda: position() == ("node-1", (12.0, 3.0)), 15.0)


def test_a_seed_replays_to_the_same_packets() -> None:
    def story(seed: int) -> tuple[int, int, int]:
        company = formed(5, seed=seed)
        company.members[2].kill(Death.KILLED)
        company.run(10.0)
        return company.network.datagrams_sent, company.network.datagram_bytes, company.network.frames_sent

    assert story(3) == story(3)


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_no_seed_breaks_a_promise_where_members_judge_each_other(first: int) -> None:
    options = Options(membership=True)
    verdicts = [play(seed, options) for seed in range(first, first + 20)]
    failures = [replay_line(verdict, options) for verdict in verdicts if verdict.code]
    assert not failures, "\n".join(failures)
