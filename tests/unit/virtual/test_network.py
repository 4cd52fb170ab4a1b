"""Links in memory behave as the transport's: open once, in order, and their ends are noticed as real ones are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from meshagent.core.ports import HintSource, Link, LinkClosed, PeerHint
from meshagent.errors import TransportError
from meshagent.types import NodeId
from meshagent.virtual.kernel import Death, Process, World
from meshagent.virtual.network import PORT, Network, VirtualTransport, Weather
from meshagent.virtual.wires import FAITHFUL_FRAMES

IDS = {name: NodeId(name * 52) for name in "abc"}


@dataclass
class Recorder:
    """A node's ears: what its transport told it."""

    world: World
    transport: VirtualTransport
    open: dict[str, Link] = field(default_factory=dict)
    frames: list[bytes] = field(default_factory=list)
    told: list[tuple[float, str, str]] = field(default_factory=list)

    def link_opened(self, link: Link) -> None:
        assert link.peer[0] not in self.open, "a second open link to one peer"
        self.open[link.peer[0]] = link
        self._tell("opened", link.peer)

    def frame_received(self, link: Link, frame: bytes) -> None:
        assert self.open.get(link.peer[0]) is link, "a frame of a link that is not open"
        self.frames.append(frame)

    def link_closed(self, link: Link, why: LinkClosed) -> None:
        assert self.open.pop(link.peer[0]) is link
        self._tell(f"closed {why.value}", link.peer)

    def peer_unreachable(self, peer: NodeId, why: LinkClosed, detail: str) -> None:
        self._tell(f"unreachable {why.value}", peer)

    def own_identity_proved(self, address: str) -> None:
        raise AssertionError("no copies here")

    def _tell(self, what: str, peer: NodeId) -> None:
        self.told.append((round(self.world.now_s, 2), what, peer[0]))

    def what(self) -> list[tuple[str, str]]:
        return [(what, peer) for _, what, peer in self.told]


class Cast:
    """A world with a few processes that only listen."""

    def __init__(self, names: str, weather: Weather | None = None, *, seed: int = 0, mdns: bool = True) -> None:
        self.world = World(seed)
        self.network = Network(self.world, weather or Weather(), mdns=mdns)
        self.nodes: dict[str, Recorder] = {}
        for name in names:
            self.start(name)

    def start(self, name: str) -> Process:
        async def main(process: Process) -> None:
            transport = self.network.transport(process, IDS[name])
            self.nodes[name] = Recorder(self.world, transport)
            await transport.start(self.nodes[name])
            await asyncio.get_running_loop().create_future()

        return self.world.device(name).start(main)

    def process(self, name: str) -> Process:
        process = self.world.device(name).process
        assert process is not None
        return process

    def on(self, name: str, act: Callable[[], object]) -> None:
        self.process(name).deliver(act)

    def send(self, name: str, to: str, frames: range) -> None:
        for number in frames:
            self.process(name).deliver(lambda frame: self.nodes[name].open[to].send(frame), b"%d" % number)


def test_nodes_that_hear_of_each_other_open_one_link_a_pair() -> None:
    cast = Cast("abc")
    cast.world.run_for(2.0)
    assert {name: sorted(node.open) for name, node in cast.nodes.items()} == {
        "a": ["b", "c"],
        "b": ["a", "c"],
        "c": ["a", "b"],
    }
    assert all(len(node.told) == 2 for node in cast.nodes.values())


@pytest.mark.parametrize("seed", range(20))
def test_both_dialling_at_once_settles_on_one_link(seed: int) -> None:
    cast = Cast("ab", mdns=False, seed=seed)
    cast.world.run_for(0.01)
    for name, other in (("a", "b"), ("b", "a")):
        hint = PeerHint(host=other, port=PORT, source=HintSource.STATIC)
        cast.process(name).deliver(cast.nodes[name].transport.add_hint, hint)
    cast.world.run_for(3.0)
    cast.send("a", "b", range(1))
    cast.send("b", "a", range(1))
    cast.world.run_for(1.0)
    assert cast.nodes["a"].frames == cast.nodes["b"].frames == [b"0"]


def test_frames_arrive_in_order_although_they_are_lost_and_sent_again() -> None:
    cast = Cast("ab", Weather(loss=0.3, spread=1.0))
    cast.world.run_for(5.0)
    cast.send("a", "b", range(200))
    cast.world.run_for(60.0)
    assert cast.nodes["b"].frames == [b"%d" % number for number in range(200)]


def test_a_bad_network_drops_doubles_and_swaps_but_never_the_handshake() -> None:
    cast = Cast("ab", Weather(drop=0.2, duplicate=0.2, reorder=0.2, spread=1.0))
    cast.world.run_for(2.0)
    cast.send("a", "b", range(200))
    cast.world.run_for(10.0)
    frames = [int(frame) for frame in cast.nodes["b"].frames]
    assert [frame for frame in dict.fromkeys(frames) if frame < FAITHFUL_FRAMES] == list(range(FAITHFUL_FRAMES))
    assert len(set(frames)) < 190
    assert len(frames) > len(set(frames))
    assert sorted(frames) != frames


def test_a_killed_process_is_evidence_at_once() -> None:
    cast = Cast("ab")
    cast.world.run_for(2.0)
    cast.process("b").die(Death.KILLED)
    cast.world.run_for(0.1)
    assert cast.nodes["a"].what() == [("opened", "b"), ("closed reset", "b"), ("unreachable reset", "b")]


def test_a_power_cut_is_silence_until_keepalive() -> None:
    cast = Cast("ab")
    cast.world.run_for(2.0)
    cast.process("b").die(Death.POWER_CUT)
    cast.world.run_for(1.4)
    assert cast.nodes["a"].what() == [("opened", "b")]
    cast.world.run_for(2.0)
    assert cast.nodes["a"].what() == [("opened", "b"), ("closed silent", "b"), ("unreachable silent", "b")]


@pytest.mark.parametrize("both_ways", [True, False])
def test_a_partition_is_noticed_by_both_and_heals(both_ways: bool) -> None:
    cast = Cast("ab")
    cast.world.run_for(2.0)
    heal = cast.network.partition("a", "b") if both_ways else cast.network.block([("a", "b")])
    cast.world.run_for(4.0)
    assert not cast.nodes["a"].open
    assert not cast.nodes["b"].open
    heal()
    cast.world.run_for(3.0)
    assert sorted(cast.nodes["a"].open) == ["b"]
    cast.send("b", "a", range(1))
    cast.world.run_for(1.0)
    assert cast.nodes["a"].frames == [b"0"]


def test_short_silence_closes_nothing() -> None:
    cast = Cast("ab")
    cast.world.run_for(2.0)
    for _ in range(3):
        heal = cast.network.partition("a", "b")
        cast.world.run_for(1.0)
        heal()
        cast.world.run_for(0.3)
    cast.world.run_for(5.0)
    assert cast.nodes["a"].what() == [("opened", "b")]


def test_a_frozen_process_falls_silent_and_learns_of_it_when_it_goes_on() -> None:
    cast = Cast("ab")
    cast.world.run_for(2.0)
    cast.process("b").freeze()
    cast.world.run_for(5.0)
    assert cast.nodes["a"].what()[1] == ("closed silent", "b")
    assert cast.nodes["b"].what() == [("opened", "a")]
    cast.process("b").thaw()
    cast.world.run_for(3.0)
    assert cast.nodes["b"].what()[:2] == [("opened", "a"), ("closed silent", "a")]
    assert sorted(cast.nodes["b"].open) == ["a"]


def test_what_arrived_before_the_end_is_heard_before_the_end() -> None:
    cast = Cast("ab")
    cast.world.run_for(2.0)
    cast.process("b").freeze()
    cast.send("a", "b", range(3))
    cast.world.run_for(1.0)
    cast.process("a").die(Death.KILLED)
    cast.world.run_for(1.0)
    cast.process("b").thaw()
    cast.world.run_for(0.2)
    assert cast.nodes["b"].frames == [b"0", b"1", b"2"]
    assert ("closed reset", "a") in cast.nodes["b"].what()


def test_a_cut_link_loses_what_is_under_way_and_opens_again() -> None:
    cast = Cast("ab", Weather(latency_s=0.2, spread=0.0))
    cast.world.run_for(5.0)
    cast.send("a", "b", range(1))
    cast.world.run_for(0.1)
    cast.network.cut("a", "b")
    cast.world.run_for(5.0)
    assert cast.nodes["b"].frames == []
    assert cast.nodes["a"].what() == [("opened", "b"), ("closed reset", "b"), ("opened", "b")]


def test_a_forgotten_peer_gets_no_link_any_more() -> None:
    cast = Cast("ab")
    cast.world.run_for(2.0)
    cast.on("a", lambda: cast.nodes["a"].transport.forget(IDS["b"]))
    cast.world.run_for(10.0)
    assert cast.nodes["a"].what() == [("opened", "b"), ("closed refused", "b")]
    assert not cast.nodes["b"].open


def test_a_goodbye_is_told_as_one() -> None:
    cast = Cast("ab")
    cast.world.run_for(2.0)
    cast.on("a", lambda: cast.process("a").loop.create_task(cast.nodes["a"].transport.close()))
    cast.world.run_for(0.5)
    assert cast.nodes["b"].what() == [("opened", "a"), ("closed goodbye", "a")]


def test_a_crash_before_a_send_keeps_the_frame() -> None:
    cast = Cast("ab")
    cast.world.run_for(2.0)
    cast.process("a").crash_at(cast.process("a").boundaries + 2)
    cast.send("a", "b", range(3))
    cast.world.run_for(1.0)
    assert cast.nodes["b"].frames == [b"0"]


def test_radio_reaches_only_so_far() -> None:
    cast = Cast("", Weather(range_m=50.0))
    cast.network.moved("a", (0.0, 0.0))
    cast.network.moved("b", (40.0, 0.0))
    cast.network.moved("c", (80.0, 0.0))
    for name in "abc":
        cast.start(name)
    cast.world.run_for(5.0)
    assert {name: sorted(node.open) for name, node in cast.nodes.items()} == {"a": ["b"], "b": ["a", "c"], "c": ["b"]}
    cast.network.moved("c", (0.0, 0.0))
    cast.world.run_for(5.0)
    assert sorted(cast.nodes["a"].open) == ["b", "c"]


def test_two_nodes_on_one_address_are_an_error_with_a_next_step() -> None:
    cast = Cast("a")
    cast.world.run_for(0.1)
    failures: list[TransportError] = []

    async def again() -> None:
        other = cast.network.transport(cast.process("a"), IDS["b"])
        try:
            await other.start(cast.nodes["a"])
        except TransportError as error:
            failures.append(error)

    cast.on("a", lambda: cast.process("a").loop.create_task(again()))
    cast.world.run_for(0.1)
    assert failures[0].next_step


def test_a_stalled_sender_sends_late() -> None:
    cast = Cast("ab", Weather(spread=0.0))
    cast.world.run_for(2.0)
    process = cast.process("a")
    process.stall_at(process.boundaries + 2, 1.0)
    cast.send("a", "b", range(2))
    cast.world.run_for(0.5)
    assert cast.nodes["b"].frames == [b"0"]
    cast.world.run_for(0.6)
    assert cast.nodes["b"].frames == [b"0", b"1"]
