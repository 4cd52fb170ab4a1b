"""All links of a world: who hears whom, who listens where, what a seed does to the air between them.

What `transport/` does with mDNS, TLS and gRPC happens here in memory (wires.py, endpoint.py). Identity is taken from
the pool: TLS is not simulated.

How an end is noticed: a killed process closes its connections at once (RESET); a power cut, a frozen process and a
partition are silence, found by keepalive (SILENT).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

from meshagent.core.ports import HintSource, LinkClosed, PeerHint
from meshagent.errors import TransportError
from meshagent.types import NodeId
from meshagent.virtual.endpoint import PORT, VirtualTransport
from meshagent.virtual.kernel import Death, Process, World
from meshagent.virtual.wires import KEEPALIVE_S, Weather, Wire

__all__ = ["PORT", "Network", "VirtualTransport", "Weather"]

DIAL_TIMEOUT_S: Final = 1.0
"""A dial that hears nothing fails after so long."""


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
    _wires: dict[int, Wire] = field(default_factory=dict)
    _wire_numbers: int = 0
    _blocked: dict[tuple[str, str], int] = field(default_factory=dict)
    _rng: Random = field(init=False)
    _lag_s: dict[tuple[str, str], float] = field(default_factory=dict)
    _off: set[str] = field(default_factory=set)
    datagrams_sent: int = 0
    datagram_bytes: int = 0
    no_udp: bool = False
    """A firewall that lets TCP through and no UDP."""
    _udp_rng: Random = field(init=False)
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
        """The literal address of a host."""
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
        """Carry one datagram as the weather is. Nobody is told what becomes of it."""
        if not sender.process.alive:
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
            target.process.deliver(target.datagrams().arrived, sender.ip, sender.port, data)

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
        wire = Wire(self, self._wire_numbers, dialler, target)
        self._wires[wire.number] = wire
        self.world.note("network", f"link {dialler.host}-{target.host}")
        wire.open()
        answer(None, now_s)

    # ---- ends and silence

    def wire_closed(self, wire: Wire) -> None:
        if wire.ends[0].closed and wire.ends[1].closed:
            self._wires.pop(wire.number, None)
            if wire.watch is not None:
                wire.watch.cancel()

    def watch_silence(self, wire: Wire) -> None:
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
