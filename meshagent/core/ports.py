"""What the core and the node need from outside, as protocols; the shells implement them.

Robot: `runtime/clock.py`, `transport/`, `runtime/journal.py`. Virtual time: `virtual/`. Nothing else differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from meshagent.types import NodeId


class Clock(Protocol):
    """Two clocks. Leases use `boot_s` alone; `wall_s` is for people, freshness and certificates."""

    def boot_s(self) -> float:
        """Seconds of CLOCK_BOOTTIME: monotonic, counts suspension, restarts with the device."""

    def wall_s(self) -> float:
        """Seconds since 1970, as this device believes; it may lie and jump."""


class LinkClosed(StrEnum):
    """Why a link ended, as far as this side knows."""

    GOODBYE = "goodbye"
    """The peer said so (clean shutdown) or we did."""
    RESET = "reset"
    """The peer's kernel closed it, or refuses connections: its process is gone. Evidence at once."""
    SILENT = "silent"
    """Keepalive unanswered."""
    AGED = "aged"
    """Connection age reached; a new link follows."""
    REFUSED = "refused"
    """Handshake or Hello refused: other fleet, revoked, expired, version, duplicate identity."""


class Link(Protocol):
    """One authenticated pipe of frames to one peer. TLS has proved `peer`; frames arrive in order or not at all."""

    @property
    def peer(self) -> NodeId:
        """Whom TLS proved at the other end."""

    @property
    def address(self) -> str:
        """`host:port` or a note for people; never trusted."""

    def send(self, frame: bytes) -> None:
        """Hand over one frame, never blocks. The session keeps at most one unacknowledged frame in flight, so
        an implementation needs no queue beyond two. A closed link drops it silently (`link_closed` told)."""

    def close(self, why: LinkClosed) -> None:
        """End it; idempotent."""


class LinkEvents(Protocol):
    """What a transport tells the node. Called on the loop, one at a time; at most one open link a peer."""

    def link_opened(self, link: Link) -> None: ...

    def frame_received(self, link: Link, frame: bytes) -> None: ...

    def link_closed(self, link: Link, why: LinkClosed) -> None:
        """The link is gone. The transport redials by itself; no judgement about the peer yet."""

    def peer_unreachable(self, peer: NodeId, why: LinkClosed, detail: str) -> None:
        """After a loss: the immediate redial failed too (connection refused, or silence). Evidence for the node."""

    def own_identity_proved(self, address: str) -> None:
        """Another process at `address` has proved by TLS, just now, that it holds this device's key. Told again while
        it goes on. Never told on somebody's word, nor of this very process met through a forwarder."""


DatagramReceived = Callable[[str, int, bytes], None]
"""Called on the loop with the sender's address as the network says (a claim) and the bytes."""


class Datagrams(Protocol):
    """Small packets beside the links, on the port number of the links; lost, doubled, reordered and forged at will."""

    def send(self, host: str, port: int, data: bytes) -> None:
        """Send to a literal address; never blocks, never raises, tells nothing."""

    def listen(self, received: DatagramReceived) -> None:
        """Hand arriving datagrams to `received` from now on."""

    def local_addresses(self) -> Sequence[str]:
        """Literal addresses at which this node can be reached by others, without a scope, the best first."""


class HintSource(StrEnum):
    """Where an address came from. A hint is never an identity."""

    STATIC = "static"
    MDNS = "mdns"
    REMEMBERED = "remembered"
    PEER = "peer"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerHint:
    """Somewhere to knock."""

    host: str
    port: int
    source: HintSource
    peer: NodeId | None = None
    """Who is expected there; None for a static seed, then TLS tells."""


class Transport(Protocol):
    """Finds and keeps links. Real: `transport/mesh.py` (grpc, mdns). Virtual: `virtual/network.py`."""

    async def start(self, events: LinkEvents) -> None:
        """Return when the socket is bound.

        Raises:
            TransportError: port in use, no interface; says the next step.
        """

    def add_hint(self, hint: PeerHint) -> None:
        """Dial there, and again with jittered backoff while no link exists."""

    def datagrams(self) -> Datagrams | None:
        """Datagrams beside the links, once started; None where there are none and links carry everything."""

    def forget(self, peer: NodeId) -> None:
        """Close the link to `peer`, dial and accept it no more (revocation)."""

    async def close(self) -> None:
        """Goodbye on mDNS and links, bounded in time."""


@dataclass(frozen=True, slots=True)
class Put:
    """Set `value` (bytes of the journal codec) under (`table`, `key`); None deletes."""

    table: str
    key: str
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Append:
    """Append one line to the log that `why` reads: `task` groups it, `at_wall_s` dates it."""

    task: str
    at_wall_s: float
    value: bytes


class Journal(Protocol):
    """Persistence. `kill -9` at any instant leaves a prefix of the commits, each whole."""

    def commit(self, writes: Iterable[Put | Append]) -> None:
        """One transaction, durable on return (journal.sync = "full").

        Raises:
            JournalError: disk full or broken; the node stops rather than breaking a promise.
        """

    def load(self, table: str) -> Mapping[str, bytes]:
        """Everything under `table`."""

    def log(self, task: str) -> list[tuple[float, bytes]]:
        """The lines appended for `task`, in order: (wall seconds, value)."""

    def close(self) -> None: ...


Authority = Callable[[NodeId, str, str], bool]
"""`may(peer, action, kind)`: does the peer's credential, narrowed by our configuration, allow `announce`, `perform`
or `approve` of this task kind?"""
