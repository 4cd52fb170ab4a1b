"""A process's end of the network: `core.ports.Transport` that dials, redials and settles without sockets.

The smaller id dials first; when both did, its connection stays. After a loss there is one immediate redial, and
`peer_unreachable` if that fails, then jittered backoff.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from meshagent.core.ports import DatagramReceived, LinkClosed, LinkEvents, PeerHint
from meshagent.types import NodeId
from meshagent.virtual.kernel import Process
from meshagent.virtual.wires import VirtualLink, Wire

if TYPE_CHECKING:
    from meshagent.virtual.network import Network

REDIAL_MIN_S: Final = 0.1
REDIAL_MAX_S: Final = 1.0
"""Reconnect backoff of the real channels (DESIGN 4)."""
YIELD_S: Final = 0.3
"""How long the larger id leaves the dialling to the smaller one."""
PORT: Final = 7340


@dataclass(slots=True)
class Target:
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
        """What records and datagrams call this host: they hold no names."""
        self.listen_port = port
        self._udp = VirtualDatagrams(self)
        self.listening = False
        self.events: LinkEvents
        self.links: dict[NodeId, Wire] = {}
        self._forgotten: set[NodeId] = set()
        self._targets: dict[tuple[str, int], Target] = {}
        self._rng = process.rng("transport")

    # ---- the port

    def datagrams(self) -> VirtualDatagrams:
        return self._udp

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
            target = self._targets[key] = Target(host, hint.port, hint.peer)
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

    def opened(self, wire: Wire, link: VirtualLink) -> None:
        self.links[link.peer] = wire
        for target in self._targets_of(link.peer, wire):
            target.peer = link.peer
            target.attempts = 0
            target.just_lost = False
        self.events.link_opened(link)

    def closed(self, wire: Wire, link: VirtualLink, why: LinkClosed) -> None:
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

    def _side_of(self, wire: Wire) -> VirtualLink:
        end = wire.ends[0] if wire.ends[0].transport is self else wire.ends[1]
        assert end.link is not None
        return end.link

    def _targets_of(self, peer: NodeId, wire: Wire) -> list[Target]:
        far = wire.ends[1] if wire.ends[0].transport is self else wire.ends[0]
        address = (far.transport.host, far.transport.port)
        return [t for key, t in self._targets.items() if t.peer == peer or key == address]

    # ---- dialling

    def _dial(self, target: Target) -> None:
        if target.dialling or not self.listening or not self.process.alive:
            return
        if target.peer is not None and (target.peer in self.links or target.peer in self._forgotten):
            return
        target.dialling = True
        target.attempts += 1
        self.network.dial(self, target.host, target.port, lambda why: self._dialled(target, why))

    def _dialled(self, target: Target, why: LinkClosed | None) -> None:
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
