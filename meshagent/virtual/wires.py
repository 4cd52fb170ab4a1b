"""One connection in memory, and the weather that frames go through.

A link keeps the promise of `core.ports.Link`: frames arrive in order or not at all. `Weather.loss` delays a frame as
TCP's retransmission would and everything behind it; `Weather.drop`, `duplicate` and `reorder` break the promise on
purpose, as a buggy transport or an attacker inside it would, except for the first frames of a link (a handshake that
TLS would have refused). A cut link loses what is under way.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from meshagent.core.ports import Link, LinkClosed
from meshagent.types import NodeId
from meshagent.virtual.kernel import Boundary, Death, Event, Process

if TYPE_CHECKING:
    from meshagent.virtual.endpoint import VirtualTransport
    from meshagent.virtual.network import Network

KEEPALIVE_S: Final = 1.5
"""Silence after which a link is closed: gRPC keepalive 1 s and its timeout 0.5 s (DESIGN 4)."""
MIN_PROBE_S: Final = 0.01
"""TCP sends a lost tail again after two round trips, at least this (RFC 8985 7.2, tail loss probe)."""
RETRANSMIT_S: Final = 0.2
"""Linux's shortest retransmission timeout, for what is lost again; doubles (RFC 6298)."""
FAITHFUL_FRAMES: Final = 3
"""First frames of each direction of a link that are never dropped, doubled or swapped: Hello and profile."""


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
class End:
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

    def __init__(self, wire: Wire, side: int) -> None:
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


class Wire:
    """A connection between two transports. Side 0 dialled."""

    __slots__ = ("ends", "network", "number", "rng", "silent_since", "watch")

    def __init__(self, network: Network, number: int, dialler: VirtualTransport, acceptor: VirtualTransport) -> None:
        self.network = network
        self.number = number
        self.ends = (End(dialler.process, dialler), End(acceptor.process, acceptor))
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


def _as_port(link: VirtualLink) -> Link:
    """Checked by mypy: a virtual link is a link."""
    return link
