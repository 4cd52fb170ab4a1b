"""Attacks on membership, each under its name (SECURITY-DESIGN 6 and 9)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from meshagent.core.bodies import MembershipMessage
from meshagent.core.members import (
    PRESETS,
    Ack,
    Gossip,
    Incarnation,
    MemberChanged,
    MemberState,
    Message,
    Ping,
    PingReq,
)
from meshagent.core.ports import DatagramReceived, PeerHint
from meshagent.identity.book import CredentialBook
from meshagent.identity.datagrams import DatagramKeys
from meshagent.identity.device import DeviceIdentity
from meshagent.identity.membership import DeviceNotary
from meshagent.identity.replay import BootVerdict
from meshagent.runtime.keeper import HINTS_BURST, Keeper
from meshagent.types import NodeId
from meshagent.virtual.loop import VirtualLoop
from meshagent.wire import gossip as wire
from tests.support.fleets import NOW_S, admit, authority, key_of

PORT = 7340
LISTS = bytes(8)


@dataclass
class Wire:
    """Datagrams that leave the keeper under test."""

    sent: list[tuple[str, int, bytes]] = field(default_factory=list)
    received: DatagramReceived | None = None

    def listen(self, received: DatagramReceived) -> None:
        self.received = received

    def send(self, host: str, port: int, data: bytes) -> None:
        self.sent.append((host, port, data))

    def local_addresses(self) -> Sequence[str]:
        return ("10.0.0.1",)


@dataclass
class Host:
    said: list[tuple[NodeId, MembershipMessage]] = field(default_factory=list)
    changes: list[MemberChanged] = field(default_factory=list)
    duplicates: list[NodeId] = field(default_factory=list)
    verdicts: dict[NodeId, BootVerdict] = field(default_factory=dict)

    def say_membership(self, to: NodeId, message: MembershipMessage) -> None:
        self.said.append((to, message))

    def offer_revocations(self, to: NodeId) -> None: ...

    def judge_boot(self, peer: NodeId, boot: bytes, generation: int) -> BootVerdict:
        return self.verdicts.get(peer, BootVerdict.NEW)

    def member_changed(self, change: MemberChanged) -> None:
        self.changes.append(change)

    def duplicate_found(self, node: NodeId) -> None:
        self.duplicates.append(node)


class Clock:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def boot_s(self) -> float:
        return 100.0 + self._loop.time()

    def wall_s(self) -> float:
        return NOW_S + self._loop.time()


class Member:
    """Another device of the fleet, as honest as the test lets it be."""

    def __init__(self, scene: Scene, name: str, number: int, *, known: bool = True) -> None:
        self.scene = scene
        self.identity: DeviceIdentity = admit(scene.fleet, name)
        self.node = self.identity.node_id
        self.boot = (1).to_bytes(8, "big") + name.encode().ljust(8)[:8]
        self.ip = f"10.0.0.{number}"
        self.keys = DatagramKeys(self.node, self.identity.fleet, self.boot, name.encode().ljust(32)[:32])
        self.keys.share(scene.me.node_id, scene.boot, scene.keeper._keys.public)
        self.notary = DeviceNotary(
            self.identity.key,
            self.identity.fleet,
            self.boot,
            exchange=self.keys.public,
            where=lambda: (PORT, (self.ip,)),
        )
        if known:
            scene.book.note_own(self.identity.credential)

    def seal(self, message: Message) -> bytes:
        return self.keys.seal(self.scene.me.node_id, *wire.encode(message, LISTS))

    def says(self, message: Message, *, host: str = "", port: int = PORT) -> None:
        assert self.scene.wire.received is not None
        self.scene.wire.received(host or self.ip, port, self.seal(message))

    def over_link(self, message: Message) -> None:
        kind, body = wire.encode(message, LISTS)
        self.scene.keeper.message(self.node, MembershipMessage(kind=kind, body=body))

    def opened(self, since: int = 0) -> list[Message]:
        """What the keeper under test has sent to this member."""
        found: list[Message] = []
        for _, _, data in self.scene.wire.sent[since:]:
            try:
                datagram = self.keys.open(data)
            except Exception:  # noqa: BLE001 - sealed for somebody else
                continue
            found.append(wire.decode(datagram.kind, datagram.body).message)
        return found


class Scene:
    """One keeper on a wire that the test holds, linked members around it."""

    def __init__(self, names: Sequence[str] = ("ann", "bob", "cat", "dan")) -> None:
        loop = asyncio.get_running_loop()
        self.fleet = authority()
        self.me = admit(self.fleet, "victim")
        self.boot = (1).to_bytes(8, "big") + b"victims!"
        self.book: CredentialBook = self.me.open_book(now_s=NOW_S)
        self.wire, self.host, self.hints = Wire(), Host(), list[PeerHint]()
        clock = Clock(loop)
        self.keeper = Keeper(
            identity=self.me,
            book=self.book,
            boot=self.boot,
            config=PRESETS["lan"],
            clock=clock,
            wall_s=lambda now_s: NOW_S + now_s - 100.0,
            rng=Random(1),
            random_bytes=lambda count: bytes(range(count)),
            datagrams=self.wire,
            port=PORT,
            hint=self.hints.append,
            host=self.host,
        )
        self.members = {name: Member(self, name, 10 + number) for number, name in enumerate(names)}
        for member in self.members.values():
            self.keeper.link_up(member.node, member.boot, member.ip)
            member.over_link(Gossip(items=(member.notary.record(0, left=False).signed,)))

    def __getitem__(self, name: str) -> Member:
        return self.members[name]

    def state(self, name: str) -> MemberState | None:
        return self.keeper.state_of(self[name].node)


def play(scenario: Callable[[], Any]) -> None:
    async def bounded() -> None:
        await scenario()

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(name="attack")) as runner:  # type: ignore[abstract]
        runner.run(bounded())


def test_a_member_that_pings_is_answered_where_its_record_says() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene["ann"].says(Ping(seq=7, digest=0))
        assert scene.wire.sent[-1][:2] == ("10.0.0.10", PORT)
        assert any(isinstance(one, Ack) and one.seq == 7 for one in scene["ann"].opened())
        scene.keeper.close()

    play(scenario)


def test_spoofed_udp_is_dropped_without_an_answer_and_moves_nothing() -> None:
    async def scenario() -> None:
        scene = Scene()
        ann = scene["ann"]
        real = ann.seal(Ping(seq=1, digest=0))
        assert scene.wire.received is not None
        before = len(scene.wire.sent)
        scene.wire.received("203.0.113.9", 53, bytes(52))
        scene.wire.received("203.0.113.9", 53, b"MA\1\0" + real[4:20] + bytes(32))
        scene.wire.received("203.0.113.9", 53, real[:-1] + bytes([real[-1] ^ 1]))
        assert len(scene.wire.sent) == before
        assert scene.keeper.dropped["unknown_key"] + scene.keeper.dropped["forged"] + scene.keeper.dropped["shape"] == 3
        # a recording that reaches us from elsewhere first is answered where ann lives, not whence it came
        scene.wire.received("203.0.113.9", 53, real)
        assert scene.wire.sent[-1][:2] == (ann.ip, PORT)
        answered = len(scene.wire.sent)
        scene.wire.received(ann.ip, PORT, real)
        assert len(scene.wire.sent) == answered
        assert scene.keeper.dropped["replayed"] == 1
        scene.keeper.close()

    play(scenario)


def test_no_answer_is_longer_than_its_question() -> None:
    async def scenario() -> None:
        scene = Scene()
        for pad in (0, 60, 200, 400):
            before = len(scene.wire.sent)
            question = scene["ann"].seal(Ping(seq=pad, digest=0, pad_bytes=pad))
            assert scene.wire.received is not None
            scene.wire.received(scene["ann"].ip, PORT, question)
            answers = scene.wire.sent[before:]
            assert answers
            assert sum(len(data) for host, _, data in answers if host == scene["ann"].ip) <= len(question)
        scene.keeper.close()

    play(scenario)


def test_pingreq_reflection_reaches_members_alone_one_packet_for_one() -> None:
    async def scenario() -> None:
        scene = Scene()
        ann, bob = scene["ann"], scene["bob"]
        before = len(scene.wire.sent)
        ann.says(PingReq(seq=1, subject=key_of("nobody").node_id))
        assert len(scene.wire.sent) == before
        question = ann.seal(PingReq(seq=2, subject=bob.node))
        assert scene.wire.received is not None
        scene.wire.received(ann.ip, PORT, question)
        (reflected,) = scene.wire.sent[before:]
        assert reflected[0] == bob.ip
        assert len(reflected[2]) <= len(question)
        for seq in range(200):
            ann.says(PingReq(seq=10 + seq, subject=bob.node))
        assert len(scene.wire.sent) - before <= 16
        scene.keeper.close()

    play(scenario)


def test_a_record_that_names_a_strangers_address_costs_him_a_packet_a_second() -> None:
    async def scenario() -> None:
        scene = Scene()
        liar = Member(scene, "liar", 66)
        liar.notary = DeviceNotary(
            liar.identity.key,
            liar.identity.fleet,
            liar.boot,
            exchange=liar.keys.public,
            where=lambda: (PORT, ("198.51.100.1", "198.51.100.2", "224.0.0.1", "127.0.0.1")),
        )
        scene["ann"].over_link(Gossip(items=(liar.notary.record(0, left=False).signed,)))
        before = len(scene.wire.sent)
        for seq in range(100):
            scene["ann"].says(PingReq(seq=seq, subject=liar.node))
            scene["bob"].says(PingReq(seq=seq, subject=liar.node))
        written = [host for host, _, _ in scene.wire.sent[before:] if host.startswith("198.51.100")]
        assert len(written) == 1
        assert not {"224.0.0.1", "127.0.0.1"} & {host for host, _, _ in scene.wire.sent}
        assert not {"224.0.0.1", "127.0.0.1"} & {hint.host for hint in scene.hints}
        scene.keeper.close()

    play(scenario)


def test_invented_confirmation_shortens_no_suspicion() -> None:
    async def scenario() -> None:
        scene = Scene(("ann", "bob", "cat", "dan", "eli", "fay"))
        victim, liar = scene["bob"], scene["ann"]
        scene["ann"].says(Gossip(items=(liar.notary.accuse(victim.node, Incarnation(1, 0)).signed,)))
        assert scene.state("bob") is MemberState.SUSPECT
        until_s = scene.keeper.machine.suspect_until_s(victim.node)
        honest = scene["cat"].notary.accuse(victim.node, Incarnation(1, 0)).signed
        forged = [
            honest[:-1] + bytes([honest[-1] ^ 1]),
            # the liar's own accusation again, and in the name of others
            liar.notary.accuse(victim.node, Incarnation(1, 0)).signed,
            honest[:2] + scene["dan"].identity.key.public + honest[34:],
            Member(scene, "stranger", 99, known=False).notary.accuse(victim.node, Incarnation(1, 0)).signed,
        ]
        scene["ann"].says(Gossip(items=tuple(forged)))
        assert scene.keeper.machine.suspect_until_s(victim.node) == until_s
        member = scene.keeper.machine.roster.get(victim.node)
        assert member is not None
        assert list(member.accusations) == [liar.node]
        assert scene.keeper.dropped["forged"] >= 2
        # the victim itself puts an end to it
        victim.says(Gossip(items=(victim.notary.record(1, left=False).signed,)))
        assert scene.state("bob") is MemberState.ALIVE
        scene.keeper.close()

    play(scenario)


def test_nobody_but_the_member_itself_says_that_it_left() -> None:
    async def scenario() -> None:
        scene = Scene()
        left = bytearray(scene["bob"].notary.record(0, left=False).signed)
        left[1] |= 1
        mine = bytearray(scene["ann"].notary.record(0, left=True).signed)
        mine[2:34] = scene["bob"].identity.key.public
        scene["ann"].says(Gossip(items=(bytes(left), bytes(mine))))
        assert scene.state("bob") is MemberState.ALIVE
        assert scene.keeper.dropped["forged"] == 2
        scene.keeper.close()

    play(scenario)


def test_churned_identities_of_strangers_are_hints_at_a_bounded_rate_and_no_members() -> None:
    async def scenario() -> None:
        scene = Scene()
        before = len(scene.keeper.machine.roster)
        for number in range(300):
            key = key_of(f"made up {number}")
            notary = DeviceNotary(key, scene.me.fleet, bytes(16), exchange=b"x" * 32, where=lambda: (9, ("192.0.2.7",)))
            scene["ann"].over_link(Gossip(items=(notary.record(0, left=False).signed,)))
        assert len(scene.keeper.machine.roster) == before
        assert len(scene.hints) <= HINTS_BURST
        assert len(scene.keeper._keys) == 4
        scene.keeper.close()

    play(scenario)


def test_a_flood_of_forged_news_is_checked_at_a_bounded_rate() -> None:
    async def scenario() -> None:
        scene = Scene()
        record = scene["bob"].notary.record(1, left=False).signed
        forged = record[:-1] + bytes([record[-1] ^ 1])
        for _ in range(20):
            scene["ann"].over_link(Gossip(items=(forged,) * 150))
        assert scene.keeper.dropped["forged"] <= 1100
        assert scene.keeper.dropped["too_many"] >= 1900
        # others are heard all the same
        scene["cat"].over_link(Gossip(items=(record,)))
        assert scene.keeper.machine.roster.get(scene["bob"].node).record.refutation == 1  # type: ignore[union-attr]
        scene.keeper.close()

    play(scenario)


def test_clone_boot_is_told_as_two_devices_with_one_identity() -> None:
    async def scenario() -> None:
        scene = Scene()
        bob = scene["bob"]
        copy = DeviceNotary(
            bob.identity.key,
            bob.identity.fleet,
            (1).to_bytes(8, "big") + b"copycopy",
            exchange=bob.keys.public,
            where=lambda: (PORT, ("10.0.0.77",)),
        )
        scene["ann"].over_link(Gossip(items=(copy.record(0, left=False).signed,)))
        assert scene.host.duplicates == [bob.node]
        assert bob.node in scene.keeper.duplicates
        mine = DeviceNotary(
            scene.me.key,
            scene.me.fleet,
            (1).to_bytes(8, "big") + b"copycopy",
            exchange=bytes(32),
            where=lambda: (9, ()),
        )
        scene["ann"].over_link(Gossip(items=(mine.record(0, left=False).signed,)))
        assert scene.host.duplicates == [bob.node, scene.me.node_id]
        scene.keeper.close()

    play(scenario)


@pytest.mark.parametrize("verdict", [BootVerdict.OVER, BootVerdict.JUMP, BootVerdict.DUPLICATE])
def test_a_boot_that_the_links_have_seen_the_end_of_is_no_member(verdict: BootVerdict) -> None:
    async def scenario() -> None:
        scene = Scene()
        bob = scene["bob"]
        scene.host.verdicts[bob.node] = verdict
        replayed = DeviceNotary(
            bob.identity.key,
            bob.identity.fleet,
            (900_000).to_bytes(8, "big") + b"12345678",
            exchange=bob.keys.public,
            where=lambda: (PORT, ("10.0.0.77",)),
        )
        scene["ann"].over_link(Gossip(items=(replayed.record(0, left=False).signed,)))
        member = scene.keeper.machine.roster.get(bob.node)
        assert member is not None
        assert member.record.boot == bob.boot
        scene.keeper.close()

    play(scenario)


def test_messages_that_are_too_large_for_datagrams_are_not_taken_from_them() -> None:
    async def scenario() -> None:
        scene = Scene()
        before = len(scene.wire.sent), len(scene.host.said)
        assert scene.wire.received is not None
        scene.wire.received(scene["ann"].ip, PORT, scene["ann"].keys.seal(scene.me.node_id, wire.SUMMARY, b""))
        assert (len(scene.wire.sent), len(scene.host.said)) == before
        scene.keeper.close()

    play(scenario)


def test_small_order_exchange_key_in_a_record_gives_no_channel() -> None:
    async def scenario() -> None:
        scene = Scene()
        gil = Member(scene, "gil", 40)
        notary = DeviceNotary(
            gil.identity.key, gil.identity.fleet, gil.boot, exchange=bytes(32), where=lambda: (PORT, ("10.0.0.40",))
        )
        scene["ann"].over_link(Gossip(items=(notary.record(0, left=False).signed,)))
        assert not scene.keeper._keys.has(gil.node)
        assert scene.keeper.dropped["exchange_key"] == 1
        scene.keeper.close()

    play(scenario)
