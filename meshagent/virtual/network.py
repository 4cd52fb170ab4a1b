"""Links in memory: what `transport/` does with mDNS, TLS and gRPC, under weather that a seed decides.

A link keeps the promise of `core.ports.Link`: frames arrive in order or not at all. `Weather.loss` delays a frame as
TCP's retransmission would and everything behind it; `Weather.drop`, `duplicate` and `reorder` break the promise on
purpose, as a buggy transport or an attacker inside it would, except for the first frames of a link (a handshake that
TLS would have refused). A cut link loses what is under way. Identity is taken from the pool: TLS is not simulated.

How an end is noticed: a killed process closes its connections at once (RESET); a power cut, a frozen process and a
partition are silence, found by keepalive (SILENT); then one immediate redial, and `peer_unreachable` if that fails.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

from meshagent.core.ports import DatagramReceived, HintSource, Link, LinkClosed, LinkEvents, PeerHint
from meshagent.errors import TransportError
from meshagent.types import NodeId
from meshagent.virtual.kernel import Boundary, Death, Event, Process, World

KEEPALIVE_S: Final = 1.5
"""Silence after which a link is closed: gRPC keepalive 1 s and its timeout 0.5 s (DESIGN 4)."""
REDIAL_MIN_S: Final = 0.1
REDIAL_MAX_S: Final = 1.0
"""Reconnect backoff of the real channels (DESIGN 4)."""
DIAL_TIMEOUT_S: Final = 1.0
"""A dial that hears nothing fails after so long."""
YIELD_S: Final = 0.3
"""How long the larger id leaves the dialling to the smaller one."""
MIN_PROBE_S: Final = 0.01
"""TCP sends a lost tail again after two round trips, at least this (RFC 8985 7.2, tail loss probe)."""
RETRANSMIT_S: Final = 0.2
"""Linux's shortest retransmission timeout, for what is lost again; doubles (RFC 6298)."""
FAITHFUL_FRAMES: Final = 3
"""First frames of each direction of a link that are never dropped, doubled or swapped: Hello and profile."""
PORT: Final = 7340


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """What the network does to frames. Probabilities are per frame."""

    latency_s: float = 0.003
    """Median of one way."""
    spread: float = 0.5
    """Sigma of the logarithm of the latency: p99 is `latency_s * exp(2.3 * spread)`."""
    loss: float = 0.0
    """Lost and retransmitted: late, and everything behind it too."""
    in_a_row: int = 4
    """One frame is lost so often at most; at a loss of one half 6 % of the frames then count as delivered."""
    drop: float = 0.0
    """Vanished from the stream."""
    duplicate: float = 0.0
    reorder: float = 0.0
    range_m: float | None = None
    """Radio range; None: everyone hears everyone."""


@dataclass(slots=True)
class _End:
    """One side of a wire: how far it is open, what arrives there."""

    process: Process
    transport: VirtualTransport
    link: VirtualLink | None = None
    last_arrival_s: float = 0.0
    frames: int = 0
    told_open: bool = False
    closed: bool = False
    """Nothing is sent or arrives any more."""
    deaf: bool = False
    """Nothing is handed over any more either: this side closed it, or has been told."""


class VirtualLink:
    """`core.ports.Link` of one side."""

    __slots__ = ("_side", "_wire", "peer")

    def __init__(self, wire: _Wire, side: int) -> None:
        self._wire = wire
        self._side = side
        self.peer: NodeId = wire.ends[1 - side].transport.node_id

    @property
    def address(self) -> str:
        return self._wire.ends[1 - self._side].transport.address

    def send(self, frame: bytes) -> None:
        self._wire.send(self._side, frame)

    def close(self, why: LinkClosed) -> None:
        self._wire.close_from(self._side, why)


class _Wire:
    """A connection between two transports. Side 0 dialled."""

    __slots__ = ("ends", "network", "number", "rng", "silent_since", "watch")

    def __init__(self, network: Network, number: int, dialler: VirtualTransport, acceptor: VirtualTransport) -> None:
        self.network = network
        self.number = number
        self.ends = (_End(dialler.process, dialler), _End(acceptor.process, acceptor))
        self.rng = network.world.rng(f"wire/{number}")
        self.watch: Event | None = None
        self.silent_since: float | None = None

    def send(self, side: int, frame: bytes) -> None:
        end, far = self.ends[side], self.ends[1 - side]
        if end.closed:
            if not end.process.alive:
                end.process.boundary(Boundary.BEFORE_SEND)
            return
        digest = hashlib.blake2b(frame, digest_size=8).hexdigest()
        end.process.boundary(Boundary.BEFORE_SEND, f"{far.process.name} {len(frame)} {digest}")
        network = self.network
        network.frames_sent += 1
        network.bytes_sent += len(frame)
        weather, rng = network.weather, self.rng
        end.frames += 1
        at_s = end.process.time_s()
        if not network.hears(end.transport, far.transport):
            network.frames_lost += 1
            return
        faithful = end.frames <= FAITHFUL_FRAMES
        if not faithful and weather.drop and rng.random() < weather.drop:
            network.frames_lost += 1
            return
        arrival_s = at_s + network.latency(rng) + network.lag_s(end.transport.host, far.transport.host)
        if weather.loss:
            wait_s = max(MIN_PROBE_S, 4 * weather.latency_s)
            for number in range(weather.in_a_row):
                if rng.random() >= weather.loss:
                    break
                arrival_s += wait_s
                wait_s = RETRANSMIT_S * 2**number
        swapped = not faithful and bool(weather.reorder) and rng.random() < weather.reorder
        if not swapped:
            arrival_s = max(arrival_s, far.last_arrival_s)
            far.last_arrival_s = arrival_s
        network.world.at(arrival_s, self._arrive, 1 - side, frame)
        if not faithful and weather.duplicate and rng.random() < weather.duplicate:
            network.world.at(arrival_s + network.latency(rng), self._arrive, 1 - side, frame)

    def _arrive(self, side: int, frame: bytes) -> None:
        end, far = self.ends[side], self.ends[1 - side]
        if end.closed or end.link is None:
            return
        if not self.network.hears(far.transport, end.transport):
            self.network.frames_lost += 1
            return
        end.process.deliver(self._hand_over, side, frame)

    def _hand_over(self, side: int, frame: bytes) -> None:
        end = self.ends[side]
        if not end.deaf and end.link is not None:
            end.transport.events.frame_received(end.link, frame)

    def open(self) -> None:
        """TLS is through: the acceptor knows it now, the dialler one latency later."""
        for side, delay_s in ((1, 0.0), (0, self.network.latency(self.rng))):
            end = self.ends[side]
            end.link = VirtualLink(self, side)
            self.network.world.after(delay_s, end.process.deliver, self._opened, side)
            end.last_arrival_s = self.network.world.now_s + delay_s

    def _opened(self, side: int) -> None:
        end = self.ends[side]
        if not end.closed and end.link is not None:
            end.told_open = True
            end.transport.opened(self, end.link)

    def close_from(self, side: int, why: LinkClosed) -> None:
        """One side closes: it is told at once, the other when it hears of it."""
        end, far = self.ends[side], self.ends[1 - side]
        if end.closed:
            return
        end.deaf = True
        self.close_end(side, why)
        if not far.closed and self.network.hears(end.transport, far.transport):
            far_why = LinkClosed.GOODBYE if why is LinkClosed.GOODBYE else LinkClosed.RESET
            when_s = max(end.process.time_s() + self.network.latency(self.rng), far.last_arrival_s)
            self.network.world.at(when_s, self.close_end, 1 - side, far_why)
        else:
            self.network.watch_silence(self)

    def close_end(self, side: int, why: LinkClosed) -> None:
        end = self.ends[side]
        if end.closed:
            return
        end.closed = True
        self.network.wire_closed(self)
        if end.process.alive:
            end.process.note(f"link to {self.ends[1 - side].process.name} closes {why.value}")
            end.process.deliver(self._told_closed, side, why)

    def _told_closed(self, side: int, why: LinkClosed) -> None:
        end = self.ends[side]
        end.deaf = True
        if end.link is not None and end.told_open:
            end.transport.closed(self, end.link, why)

    def died(self, side: int, death: Death) -> None:
        """The process at `side` ended without closing anything."""
        self.ends[side].closed = True
        far = self.ends[1 - side]
        if far.closed:
            self.network.wire_closed(self)
        elif death is not Death.POWER_CUT and self.network.hears(self.ends[side].transport, far.transport):
            at_s = self.ends[side].process.time_s() + self.network.latency(self.rng)
            at_s = max(at_s, far.last_arrival_s)  # what was sent before arrives before
            self.network.world.at(at_s, self.close_end, 1 - side, LinkClosed.RESET)
        else:
            self.network.watch_silence(self)

    def silent(self) -> bool:
        """True while a keepalive would go unanswered."""
        one, two = self.ends
        return (
            one.closed != two.closed
            or one.process.frozen
            or two.process.frozen
            or not self.network.hears(one.transport, two.transport)
            or not self.network.hears(two.transport, one.transport)
        )

    def keepalive_due(self) -> None:
        """Both ends give up when the silence has lasted for `KEEPALIVE_S`."""
        self.watch = None
        if not self.silent() or self.silent_since is None or self.network.world.now_s < self.silent_since + KEEPALIVE_S:
            self.network.watch_silence(self)
            return
        for side in (0, 1):
            self.close_end(side, LinkClosed.SILENT)


@dataclass(slots=True)
class _Target:
    """Somewhere to knock, again and again."""

    host: str
    port: int
    peer: NodeId | None
    attempts: int = 0
    dialling: bool = False
    just_lost: bool = False


class VirtualDatagrams:
    """`core.ports.Datagrams` of one process: what the weather lets through, once, twice, late or never."""

    def __init__(self, transport: VirtualTransport) -> None:
        self._transport = transport
        self._received: DatagramReceived | None = None

    def listen(self, received: DatagramReceived) -> None:
        self._received = received

    def send(self, host: str, port: int, data: bytes) -> None:
        self._transport.network.send_datagram(self._transport, host, port, data)

    def local_addresses(self) -> Sequence[str]:
        return (self._transport.ip,)

    def arrived(self, host: str, port: int, data: bytes) -> None:
        """On the process's own loop."""
        if self._received is not None and self._transport.listening:
            self._received(host, port, data)


class VirtualTransport:
    """`core.ports.Transport` of one process."""

    def __init__(self, network: Network, process: Process, node_id: NodeId, *, host: str, port: int = PORT) -> None:
        self.network = network
        self.process = process
        self.node_id = node_id
        self.host = host
        self.port = port
        self.address = f"{host}:{port}"
        self.ip = network.ip_of(host)
        """What records and datagrams call this host; a name resolves to it."""
        self.udp = VirtualDatagrams(self)
        self.listening = False
        self.events: LinkEvents
        self.links: dict[NodeId, _Wire] = {}
        self._forgotten: set[NodeId] = set()
        self._targets: dict[tuple[str, int], _Target] = {}
        self._rng = process.rng("transport")

    # ---- the port

    @property
    def listen_port(self) -> int:
        return self.port

    def datagrams(self) -> VirtualDatagrams:
        return self.udp

    async def start(self, events: LinkEvents) -> None:
        """Bind.

        Raises:
            TransportError: the address is in use.
        """
        self.events = events
        self.network.bind(self)
        self.listening = True

    def add_hint(self, hint: PeerHint) -> None:
        host = self.network.host_of(hint.host)
        key = (host, hint.port)
        if key == (self.host, self.port):
            return
        target = self._targets.get(key)
        if target is None:
            target = self._targets[key] = _Target(host, hint.port, hint.peer)
            if hint.peer is not None and hint.peer < self.node_id:
                # The smaller id dials; the other one only if nothing has come of that.
                self.process.loop.call_later(YIELD_S, self._dial, target)
                return
        self._dial(target)

    def forget(self, peer: NodeId) -> None:
        self._forgotten.add(peer)
        wire = self.links.get(peer)
        if wire is not None:
            self._side_of(wire).close(LinkClosed.REFUSED)

    async def close(self) -> None:
        self.listening = False
        self.network.unbind(self)
        for _, wire in sorted(self.links.items()):
            self._side_of(wire).close(LinkClosed.GOODBYE)

    # ---- what the wires tell

    def opened(self, wire: _Wire, link: VirtualLink) -> None:
        self.links[link.peer] = wire
        for target in self._targets_of(link.peer, wire):
            target.peer = link.peer
            target.attempts = 0
            target.just_lost = False
        self.events.link_opened(link)

    def closed(self, wire: _Wire, link: VirtualLink, why: LinkClosed) -> None:
        if self.links.get(link.peer) is wire:
            del self.links[link.peer]
        self.events.link_closed(link, why)
        for target in self._targets_of(link.peer, wire):
            if why in (LinkClosed.GOODBYE, LinkClosed.REFUSED):
                self.process.loop.call_later(REDIAL_MAX_S, self._dial, target)
            else:
                target.just_lost = True
                self._dial(target)

    def refuses(self, peer: NodeId) -> bool:
        return peer in self._forgotten

    def _side_of(self, wire: _Wire) -> VirtualLink:
        end = wire.ends[0] if wire.ends[0].transport is self else wire.ends[1]
        assert end.link is not None
        return end.link

    def _targets_of(self, peer: NodeId, wire: _Wire) -> list[_Target]:
        far = wire.ends[1] if wire.ends[0].transport is self else wire.ends[0]
        address = (far.transport.host, far.transport.port)
        return [t for key, t in self._targets.items() if t.peer == peer or key == address]

    # ---- dialling

    def _dial(self, target: _Target) -> None:
        if target.dialling or not self.listening or not self.process.alive:
            return
        if target.peer is not None and (target.peer in self.links or target.peer in self._forgotten):
            return
        target.dialling = True
        target.attempts += 1
        self.network.dial(self, target.host, target.port, lambda why: self._dialled(target, why))

    def _dialled(self, target: _Target, why: LinkClosed | None) -> None:
        # On this process's loop. None: a link is there (or another one is, which won).
        target.dialling = False
        if why is None or not self.listening:
            return
        if target.just_lost and target.peer is not None and target.peer not in self.links:
            target.just_lost = False
            self.events.peer_unreachable(target.peer, why, f"dialling {target.host}:{target.port} failed: {why.value}")
        # A redial belongs to the loop, so that a frozen process dials when it goes on.
        backoff_s = min(REDIAL_MAX_S, REDIAL_MIN_S * 2 ** min(target.attempts, 8)) * (0.5 + self._rng.random())
        self.process.loop.call_later(backoff_s, self._dial, target)


@dataclass(slots=True)
class Network:
    """All transports of a world and the weather between them."""

    world: World
    weather: Weather = field(default_factory=Weather)
    mdns: bool = True
    """Nodes hear of each other by themselves."""
    frames_sent: int = 0
    frames_lost: int = 0
    bytes_sent: int = 0
    position_m: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Host -> place, for `Weather.range_m`."""
    _bound: dict[tuple[str, int], VirtualTransport] = field(default_factory=dict)
    _wires: dict[int, _Wire] = field(default_factory=dict)
    _wire_numbers: int = 0
    _blocked: dict[tuple[str, str], int] = field(default_factory=dict)
    _rng: Random = field(init=False)
    _udp_rng: Random = field(init=False)
    _lag_s: dict[tuple[str, str], float] = field(default_factory=dict)
    _off: set[str] = field(default_factory=set)
    datagrams_sent: int = 0
    datagram_bytes: int = 0
    no_udp: bool = False
    """A firewall that lets TCP through and no UDP."""
    _ips: dict[str, str] = field(default_factory=dict)
    _hosts: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._rng = self.world.rng("network")
        self._udp_rng = self.world.rng("datagrams")
        self.world.on_death(self._process_died)
        self.world.on_freeze(self._process_froze)

    def transport(self, process: Process, node_id: NodeId, *, port: int = PORT) -> VirtualTransport:
        """The transport of `process`; its host is the device's name."""
        return VirtualTransport(self, process, node_id, host=process.name, port=port)

    # ---- datagrams

    def ip_of(self, host: str) -> str:
        """The literal address of a host: records hold no names."""
        ip = self._ips.get(host)
        if ip is None:
            number = len(self._ips) + 1
            ip = self._ips[host] = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
            self._hosts[ip] = host
        return ip

    def host_of(self, address: str) -> str:
        """The host that is called so or has that address."""
        return self._hosts.get(address, address)

    def send_datagram(self, sender: VirtualTransport, address: str, port: int, data: bytes) -> None:
        """Carry one datagram, as the weather is. Nobody is told what becomes of it."""
        if not sender.process.alive:
            sender.process.boundary(Boundary.BEFORE_SEND)
            return
        self.datagrams_sent += 1
        self.datagram_bytes += len(data)
        target = self._bound.get((self.host_of(address), port))
        if target is None or self.no_udp or not self.hears(sender, target):
            return
        rng, weather = self._udp_rng, self.weather
        if weather.loss and rng.random() < weather.loss:
            return
        copies = 2 if weather.duplicate and rng.random() < weather.duplicate else 1
        at_s = sender.process.time_s() + self.lag_s(sender.host, target.host)
        for _ in range(copies):
            self.world.at(at_s + self.latency(rng), self._datagram_arrives, sender, target, data)

    def _datagram_arrives(self, sender: VirtualTransport, target: VirtualTransport, data: bytes) -> None:
        if target.process.alive and self.hears(sender, target) and not self.no_udp:
            target.process.deliver(target.udp.arrived, sender.ip, sender.port, data)

    # ---- weather

    def latency(self, rng: Random) -> float:
        """One way, drawn from `rng`."""
        return self.weather.latency_s * math.exp(self.weather.spread * rng.gauss(0.0, 1.0))

    def hears(self, sender: VirtualTransport, receiver: VirtualTransport) -> bool:
        """True where a packet would get through now."""
        if self._blocked.get((sender.host, receiver.host)):
            return False
        range_m = self.weather.range_m
        if range_m is None:
            return True
        one, two = self.position_m.get(sender.host), self.position_m.get(receiver.host)
        return one is None or two is None or math.dist(one, two) <= range_m

    def block(self, pairs: Iterable[tuple[str, str]]) -> Callable[[], None]:
        """Nothing gets from the first to the second host of each pair; returns how to heal it. May overlap."""
        chosen = list(pairs)
        for pair in chosen:
            self._blocked[pair] = self._blocked.get(pair, 0) + 1
        self.world.note("network", "block " + " ".join(f"{a}>{b}" for a, b in chosen))
        self._watch_all()

        def heal() -> None:
            for pair in chosen:
                self._blocked[pair] = max(0, self._blocked.get(pair, 0) - 1)
            self.world.note("network", "heal " + " ".join(f"{a}>{b}" for a, b in chosen))
            self._watch_all()

        return heal

    def lag_s(self, sender: str, receiver: str) -> float:
        """What `lag` adds to the latency now."""
        return self._lag_s.get((sender, receiver), 0.0) if self._lag_s else 0.0

    def lag(self, sender: str, receiver: str, extra_s: float) -> Callable[[], None]:
        """Everything from one host to another takes `extra_s` longer; returns how to end it."""
        self.world.note("network", f"lag {sender}>{receiver} {extra_s:.6f}")
        self._lag_s[sender, receiver] = extra_s

        def end() -> None:
            self._lag_s.pop((sender, receiver), None)

        return end

    def heal_all(self) -> None:
        """Nothing is blocked any more."""
        self._blocked.clear()
        self._lag_s.clear()
        self.weather = replace(self.weather, loss=0.0, drop=0.0, duplicate=0.0, reorder=0.0)
        self._watch_all()

    def partition(self, side: Iterable[str], other: Iterable[str]) -> Callable[[], None]:
        """Cut both ways between two groups of hosts."""
        ours, theirs = list(side), list(other)
        return self.block([(a, b) for a in ours for b in theirs] + [(b, a) for a in ours for b in theirs])

    def cut(self, one: str, two: str) -> None:
        """Break the connection between two hosts: a reset on both sides, what is under way is lost."""
        for wire in list(self._wires.values()):
            if {end.process.name for end in wire.ends} == {one, two}:
                self.world.note("network", f"cut {one} {two}")
                for side in (0, 1):
                    wire.close_end(side, LinkClosed.RESET)

    def moved(self, host: str, position_m: tuple[float, float]) -> None:
        """A device is somewhere else now."""
        self.position_m[host] = position_m
        if self.weather.range_m is not None:
            self._watch_all()

    # ---- addresses

    def bind(self, transport: VirtualTransport) -> None:
        """Listen.

        Raises:
            TransportError: the address is taken.
        """
        key = (transport.host, transport.port)
        if key in self._bound:
            raise TransportError(
                f"port {transport.port} of {transport.host} is in use", next_step="choose another port"
            )
        self._bound[key] = transport
        self._off.discard(transport.host)
        if self.mdns:
            for _, other in sorted(self._bound.items()):
                if other is not transport:
                    self._announce(transport, other)
                    self._announce(other, transport)

    def unbind(self, transport: VirtualTransport) -> None:
        self._bound.pop((transport.host, transport.port), None)

    def _announce(self, who: VirtualTransport, to: VirtualTransport) -> None:
        # Multicast is a hint: it may get lost, and is then repeated a second later.
        delay_s = self.latency(self._rng) + (1.0 if self._rng.random() < self.weather.loss else 0.0)
        hint = PeerHint(host=who.host, port=who.port, source=HintSource.MDNS, peer=who.node_id)
        self.world.after(delay_s, to.process.deliver, to.add_hint, hint)

    # ---- dialling

    def dial(self, dialler: VirtualTransport, host: str, port: int, done: Callable[[LinkClosed | None], None]) -> None:
        """Connect and shake hands; `done` is called on the dialler's loop with None or why not."""
        start_s = dialler.process.time_s()
        self.world.at(start_s + self.latency(self._rng), self._knock, dialler, (host, port), start_s, done)

    def _knock(
        self,
        dialler: VirtualTransport,
        key: tuple[str, int],
        start_s: float,
        done: Callable[[LinkClosed | None], None],
    ) -> None:
        target = self._bound.get(key)

        def answer(why: LinkClosed | None, at_s: float) -> None:
            self.world.at(at_s, dialler.process.deliver, done, why)

        back_s = self.world.now_s + self.latency(self._rng)
        blocked = self._blocked.get((dialler.host, key[0])) or self._blocked.get((key[0], dialler.host))
        if blocked or key[0] in self._off:
            answer(LinkClosed.SILENT, start_s + DIAL_TIMEOUT_S)
        elif target is None or not target.process.alive:
            answer(LinkClosed.RESET, back_s)
        elif target.process.frozen or not self.hears(dialler, target) or not self.hears(target, dialler):
            answer(LinkClosed.SILENT, start_s + DIAL_TIMEOUT_S)
        elif not dialler.process.alive or not dialler.listening:
            return
        elif target.refuses(dialler.node_id) or dialler.refuses(target.node_id):
            answer(LinkClosed.REFUSED, back_s)
        else:
            # One round trip of TCP, one of TLS 1.3; then the acceptor decides on its own loop.
            shaken_s = self.world.now_s + 2 * self.latency(self._rng)
            self.world.at(shaken_s, target.process.deliver, self._accept, dialler, target, answer)

    def _accept(
        self,
        dialler: VirtualTransport,
        target: VirtualTransport,
        answer: Callable[[LinkClosed | None, float], None],
    ) -> None:
        now_s = self.world.now_s + self.latency(self._rng)
        if not target.listening or not dialler.process.alive or not dialler.listening:
            answer(LinkClosed.RESET, now_s)
            return
        for wire in list(self._wires.values()):
            ends = {wire.ends[0].transport, wire.ends[1].transport}
            if ends != {dialler, target}:
                continue
            if wire.ends[0].closed or wire.ends[1].closed:
                continue
            # Both dialled: the smaller id's connection stays.
            if wire.ends[0].transport.node_id < dialler.node_id or wire.ends[0].transport is dialler:
                answer(None, now_s)
                return
            for side in (0, 1):
                wire.close_end(side, LinkClosed.AGED)
        self._wire_numbers += 1
        wire = _Wire(self, self._wire_numbers, dialler, target)
        self._wires[wire.number] = wire
        self.world.note("network", f"link {dialler.host}-{target.host}")
        wire.open()
        answer(None, now_s)

    # ---- ends and silence

    def wire_closed(self, wire: _Wire) -> None:
        if wire.ends[0].closed and wire.ends[1].closed:
            self._wires.pop(wire.number, None)
            if wire.watch is not None:
                wire.watch.cancel()

    def watch_silence(self, wire: _Wire) -> None:
        """Close `wire` if it is silent from now on for `KEEPALIVE_S`."""
        if not wire.silent():
            wire.silent_since = None
            return
        if wire.silent_since is None:
            wire.silent_since = self.world.now_s
        if wire.watch is None:
            wire.watch = self.world.at(wire.silent_since + KEEPALIVE_S, wire.keepalive_due)

    def _watch_all(self) -> None:
        for wire in list(self._wires.values()):
            self.watch_silence(wire)

    def _process_froze(self, process: Process) -> None:
        for wire in list(self._wires.values()):
            if process in (wire.ends[0].process, wire.ends[1].process):
                self.watch_silence(wire)

    def _process_died(self, process: Process, death: Death) -> None:
        for key, transport in list(self._bound.items()):
            if transport.process is process:
                transport.listening = False
                del self._bound[key]
        if death is Death.POWER_CUT:
            self._off.add(process.name)
        for wire in list(self._wires.values()):
            for side in (0, 1):
                if wire.ends[side].process is process and not wire.ends[side].closed:
                    wire.died(side, death)


def _as_port(link: VirtualLink) -> Link:
    """Checked by mypy: a virtual link is a link."""
    return link
