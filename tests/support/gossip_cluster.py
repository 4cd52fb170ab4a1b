"""Membership machines in virtual time: a network that loses, delays and splits, links that tell of deaths. No sockets.

Signatures are a ledger: bytes that a notary has not written belong to nobody. So a test may forge as an attacker would.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random

from meshagent.core.members import (
    Accusation,
    Ack,
    Effect,
    Gossip,
    Incarnation,
    Input,
    Item,
    ItemChecked,
    LeaveRequested,
    LinkLost,
    LinkOpened,
    MemberChanged,
    MemberRecord,
    MembershipConfig,
    MemberState,
    Message,
    MessageHeard,
    Path,
    Ping,
    RecordLearned,
    Say,
    StateRecord,
    TimePassed,
)
from meshagent.core.membership import PACKET_HEAD_BYTES, Membership
from meshagent.core.roster import prefix_of
from meshagent.core.spreading import ITEM_OVERHEAD_BYTES
from meshagent.types import NodeId, node_id_of

DIAL_S = 0.03
RECORD_BYTES = 173
ACCUSATION_BYTES = 126


def node_of(number: int) -> NodeId:
    return node_id_of(hashlib.sha256(b"member %d" % number).digest())


@dataclass
class Ledger:
    """Who signed which bytes."""

    items: dict[bytes, Item] = field(default_factory=dict)
    count: int = 0

    def enter(self, make: Callable[[bytes], Item], size: int) -> Item:
        self.count += 1
        signed = self.count.to_bytes(8, "big").ljust(size, b".")
        item = self.items[signed] = make(signed)
        return item


@dataclass
class LedgerNotary:
    ledger: Ledger
    node: NodeId
    boot: bytes

    def record(self, refutation: int, *, left: bool) -> MemberRecord:
        item = self.ledger.enter(
            lambda signed: MemberRecord(
                node=self.node,
                boot=self.boot,
                refutation=refutation,
                left=left,
                exchange=bytes(32),
                port=7340,
                addresses=("10.0.0.1",),
                signed=signed,
            ),
            RECORD_BYTES,
        )
        assert isinstance(item, MemberRecord)
        return item

    def accuse(self, subject: NodeId, incarnation: Incarnation) -> Accusation:
        item = self.ledger.enter(
            lambda signed: Accusation(accuser=self.node, subject=subject, incarnation=incarnation, signed=signed),
            ACCUSATION_BYTES,
        )
        assert isinstance(item, Accusation)
        return item

    def state(self, version: int, body: bytes) -> StateRecord:
        item = self.ledger.enter(
            lambda signed: StateRecord(node=self.node, boot=self.boot, version=version, body=body, signed=signed),
            150 + len(body),
        )
        assert isinstance(item, StateRecord)
        return item


@dataclass
class Peer:
    """One process of one device."""

    cluster: Cluster
    number: int
    counter: int
    alive: bool = True
    frozen: bool = False
    linked: set[int] = field(default_factory=set)
    changes: list[tuple[float, MemberChanged]] = field(default_factory=list)
    others: list[Effect] = field(default_factory=list)
    inbox: list[Callable[[], None]] = field(default_factory=list)
    sent: int = 0
    sent_bytes: int = 0

    def __post_init__(self) -> None:
        self.node = node_of(self.number)
        self.boot = self.counter.to_bytes(8, "big") + self.cluster.rng.randbytes(8)
        self.notary = LedgerNotary(self.cluster.ledger, self.node, self.boot)
        self.machine = Membership(
            self.node,
            self.cluster.config,
            Random(self.cluster.rng.getrandbits(64)),
            self.notary,
            now_s=self.cluster.now_s,
        )
        self.armed_s = -1.0
        self.arm()

    def feed(self, event: Input) -> None:
        if self.alive:
            self.carry_out(self.machine.handle(event, now_s=self.cluster.now_s))

    def carry_out(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Say):
                self.cluster.send(self, effect)
            elif isinstance(effect, MemberChanged):
                self.changes.append((self.cluster.now_s, effect))
            else:
                self.others.append(effect)
                if isinstance(effect, RecordLearned):
                    self.cluster.dial(self.number, effect.record.node)
        self.arm()

    def arm(self) -> None:
        due_s = self.machine.next_deadline_s()
        if due_s is None or due_s == self.armed_s:
            return
        self.armed_s = due_s

        def due() -> None:
            if not self.alive or self.armed_s != due_s:
                return
            if self.frozen:
                self.inbox.append(due)
                return
            self.armed_s = -1.0
            self.feed(TimePassed())

        self.cluster.at(due_s, due)

    def hear(self, sender: NodeId, message: Message, path: Path) -> None:
        """What a shell does: check items that are news, then hand the message in."""
        if not self.alive:
            return
        if self.frozen:
            self.inbox.append(lambda: self.hear(sender, message, path))
            return
        items = getattr(message, "items", ())
        for signed in items:
            item = self.cluster.ledger.items.get(signed)
            if item is not None and self.wants(item):
                self.feed(ItemChecked(item=item, via=sender))
        room = sum(len(one) + ITEM_OVERHEAD_BYTES for one in items) + getattr(message, "pad_bytes", 0)
        self.feed(MessageHeard(peer=sender, message=message, path=path, room_bytes=room))

    def wants(self, item: Item) -> bool:
        if isinstance(item, MemberRecord):
            return self.machine.is_news_record(item.node, item.boot, item.order)
        if isinstance(item, Accusation):
            subject = prefix_of(item.subject)
            return self.machine.is_news_accusation(item.accuser, subject, item.incarnation) is not None
        return self.machine.is_news_state(item.node, item.order, self.cluster.now_s)

    def state_of(self, number: int) -> MemberState | None:
        member = self.machine.roster.get(node_of(number))
        return None if member is None else member.state


@dataclass
class Cluster:
    """Peers 0 to n-1 on one network."""

    size: int
    seed: int = 0
    config: MembershipConfig = field(default_factory=MembershipConfig)
    latency_s: float = 0.002
    loss: float = 0.0
    links: bool = True
    """Links tell of deaths and carry what is larger; without, a datagram stands for them (a test of SWIM alone)."""

    def __post_init__(self) -> None:
        self.rng = Random(self.seed)
        self.now_s = 100.0
        self.ledger = Ledger()
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self.cut: set[tuple[int, int]] = set()
        self.counters = [0] * self.size
        self.peers: list[Peer] = []
        self.packets = 0
        self.largest = 0
        self.heard_by: list[tuple[NodeId, Say]] = []
        for number in range(self.size):
            self.peers.append(self.boot(number))

    def boot(self, number: int) -> Peer:
        self.counters[number] += 1
        return Peer(self, number, self.counters[number])

    def at(self, when_s: float, call: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._queue, (when_s, self._order, call))

    def number_of(self, node: NodeId) -> int | None:
        return next((peer.number for peer in self.peers if peer.node == node), None)

    def reaches(self, one: int, two: int) -> bool:
        return (one, two) not in self.cut

    def send(self, sender: Peer, say: Say) -> None:
        number = self.number_of(say.to)
        if number is None:
            return
        message = say.message
        items = getattr(message, "items", ())
        size = PACKET_HEAD_BYTES + sum(len(one) + ITEM_OVERHEAD_BYTES for one in items)
        size += getattr(message, "pad_bytes", 0)
        sender.sent += 1
        sender.sent_bytes += size
        self.packets += 1
        path = say.path
        if path is Path.LINK:
            if number not in sender.linked:
                return
        else:
            if isinstance(message, Ping | Ack | Gossip):
                self.largest = max(self.largest, size)
            if self.rng.random() < self.loss:
                return
        delay_s = self.latency_s * (0.5 + self.rng.random())
        source = sender.node

        def arrive() -> None:
            if self.reaches(sender.number, number):
                self.peers[number].hear(source, message, path)

        self.at(self.now_s + delay_s, arrive)

    # ---- what happens

    def link(self, one: int, two: int) -> None:
        a, b = self.peers[one], self.peers[two]
        if one == two or two in a.linked or not (self.reaches(one, two) and self.reaches(two, one)):
            return
        if not a.alive or not b.alive:
            return
        a.linked.add(two)
        b.linked.add(one)
        a.feed(LinkOpened(peer=b.node, boot=b.boot))
        b.feed(LinkOpened(peer=a.node, boot=a.boot))

    def dial(self, number: int, node: NodeId) -> None:
        """A record is a hint where to knock."""
        other = self.number_of(node)
        if self.links and other is not None:
            self.at(self.now_s + DIAL_S, lambda: self.link(number, other))

    def link_all(self) -> None:
        for one in range(self.size):
            for two in range(one):
                self.link(one, two)

    def unlink(self, one: int, two: int, *, gone: bool) -> None:
        a, b = self.peers[one], self.peers[two]
        if two not in a.linked:
            return
        a.linked.discard(two)
        b.linked.discard(one)
        a.feed(LinkLost(peer=b.node, gone=gone))
        b.feed(LinkLost(peer=a.node, gone=gone))

    def kill(self, number: int) -> None:
        peer = self.peers[number]
        peer.alive = False
        for other in sorted(peer.linked):
            self.peers[other].linked.discard(number)
            if self.links:
                self.peers[other].feed(LinkLost(peer=peer.node, gone=True))
        peer.linked.clear()

    def restart(self, number: int) -> None:
        if self.peers[number].alive:
            self.kill(number)
        self.peers[number] = self.boot(number)

    def leave(self, number: int) -> None:
        self.peers[number].feed(LeaveRequested())
        peer = self.peers[number]
        peer.alive = False
        for other in sorted(peer.linked):
            self.peers[other].linked.discard(number)
        peer.linked.clear()

    def freeze(self, number: int) -> None:
        self.peers[number].frozen = True

    def thaw(self, number: int) -> None:
        peer = self.peers[number]
        peer.frozen = False
        waiting, peer.inbox = peer.inbox, []
        for call in waiting:
            call()

    def split(self, side: Iterable[int]) -> None:
        inside = set(side)
        for one in range(self.size):
            for two in range(self.size):
                if (one in inside) != (two in inside):
                    self.cut.add((one, two))
                    if self.links:
                        self.unlink(one, two, gone=False)

    def heal(self) -> None:
        self.cut.clear()

    # ---- time

    def run(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while self._queue and self._queue[0][0] <= end_s:
            when_s, _, call = heapq.heappop(self._queue)
            self.now_s = max(self.now_s, when_s)
            call()
        self.now_s = end_s

    def run_until(self, holds: Callable[[], bool], within_s: float) -> float:
        """Run until `holds`, and say how long it took; fails after `within_s`."""
        start_s = self.now_s
        while not holds():
            assert self.now_s - start_s < within_s, f"not within {within_s} s: {self.states()}"
            self.run(0.01)
        return self.now_s - start_s

    # ---- looking

    def live(self) -> list[Peer]:
        return [peer for peer in self.peers if peer.alive]

    def everybody_sees(self, number: int, state: MemberState) -> bool:
        return all(peer.state_of(number) is state for peer in self.live() if peer.number != number)

    def complete(self) -> bool:
        """Every live peer believes every live peer alive, and nobody else."""
        present = {peer.node for peer in self.live()}
        for peer in self.live():
            believed = {one.node for one in peer.machine.roster if one.state is MemberState.ALIVE}
            if believed != present - {peer.node}:
                return False
        return True

    def states(self) -> dict[int, dict[int, str]]:
        return {
            peer.number: {
                number: member.state.value
                for number in range(self.size)
                if (member := peer.machine.roster.get(node_of(number))) is not None
            }
            for peer in self.live()
        }

    def suspicions(self) -> int:
        """How often anybody suspected somebody."""
        return sum(change.state is MemberState.SUSPECT for peer in self.peers for _, change in peer.changes)


def formed(size: int, **options: object) -> Cluster:
    """A cluster in which everybody knows everybody: a chain of links, and gossip does the rest."""
    cluster = Cluster(size, **options)  # type: ignore[arg-type]
    for number in range(1, size):
        cluster.link(number, number - 1)
    cluster.run_until(cluster.complete, 60.0)
    cluster.run(2.0)
    return cluster
