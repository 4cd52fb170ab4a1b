"""What a transport is told: ports, interfaces, and every duration with its trade-off beside it.

Wall time appears nowhere: all durations run on the event loop's monotonic clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from meshagent.core.ports import HintSource
from meshagent.errors import ConfigurationError

MAX_FRAME_BYTES: Final = 256 * 1024
"""SECURITY-DESIGN 1: one frame. gRPC refuses a longer message before it reaches Python."""
MAX_QUEUED_FRAMES: Final = 8
"""Frames a link may hold while one is being written. The session keeps one unacknowledged frame in flight and
sends acknowledgements and a Hello beside it, so eight is slack; more means that the peer no longer reads."""
PARALLEL_DIALS: Final = 8
"""SECURITY-DESIGN 7: spoofed mDNS must not turn a fleet into a port scanner."""
MAX_PEERS: Final = 1024
"""Peers that are remembered with their addresses; static seeds are not counted. About 1 KiB each."""
MAX_ADDRESSES_PER_PEER: Final = 8
"""Two interfaces with IPv4, IPv6 and link-local each, and a stale one; the oldest unproven one leaves first."""
MAX_SEEDS: Final = 256
"""Addresses whose owner is unknown. They come from people, who do not type more."""
MAX_LINKS: Final = 512
"""Streams served at once; above it gRPC answers RESOURCE_EXHAUSTED."""
MAX_STREAMS_PER_CONNECTION: Final = 8
"""One link, its successor, health checks."""

_BACKOFF_MAX_S: Final[Mapping[HintSource, float]] = MappingProxyType(
    {HintSource.STATIC: 2.0, HintSource.MDNS: 5.0, HintSource.PEER: 10.0, HintSource.REMEMBERED: 30.0}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportConfig:
    """Settings of one transport. The defaults are those of a local network."""

    port: int = 7340
    """TCP port of the links; 0 picks one. A port in use is an error, never a silent other port."""
    interfaces: tuple[str, ...] = ()
    """Names such as "lo", "eth0". Empty: all that are up (bound to the wildcard address)."""
    mdns: bool = True
    """Announce and search by multicast DNS. Off: nothing is sent unasked."""
    keepalive_s: float = 1.0
    """A link that is silent so long is pinged; a peer that vanished is noticed after `keepalive_s +
    keepalive_timeout_s`. Shorter is quicker and costs two small packets a period and link."""
    keepalive_timeout_s: float = 0.5
    """How long the ping may take. Below the worst round trip of the radio, links flap."""
    handshake_timeout_s: float = 5.0
    """A connection that says nothing is dropped after so long (silent TCP held a slot for over 12 s)."""
    dial_timeout_s: float = 2.0
    """TCP, TLS and the peer's yes, together, on one dial."""
    knock_timeout_s: float = 1.0
    """How long a TCP connection may take before the address counts as silent."""
    unreachable_after_s: float = 1.0
    """A peer lost by reset that neither answers nor refuses for so long is told as unreachable."""
    yield_s: float = 0.25
    """The larger id waits so long for the smaller one to dial before it dials itself; 0 makes both dial at once."""
    hold_s: float = 0.4
    """A second stream from a larger id waits so long for its dialler to see the first one and hang up."""
    max_link_age_s: float = 3600.0
    """A link is replaced by a fresh handshake within this age, so that expiry and revocation bite. The dialler
    renews at 80 to 95 % of it; the server ends an older one by force."""
    close_timeout_s: float = 0.5
    """How long queued frames and the goodbye of one link may take."""
    backoff_first_s: float = 0.1
    """The pause after the first failed dial; doubled each time, with jitter, up to `backoff_max_s`."""
    backoff_max_s: Mapping[HintSource, float] = field(default_factory=lambda: _BACKOFF_MAX_S)
    """The longest pause, by where the address came from: people expect `--peer` to answer soon, a remembered
    address may be dead for weeks."""
    steady_after_s: float = 10.0
    """A link that ends sooner did not work, and counts as a failed dial: twice what a session waits for its Hello.
    Longer makes a peer that really restarts often wait; shorter lets a broken one make links all day."""
    refused_pause_s: float = 10.0
    """After a refused handshake or Hello neither side dials nor accepts the other for so long."""
    twin_again_s: float = 20.0
    """Another device with this identity is looked for again so often, while one is there."""
    goodbye_pause_s: float = 1.0
    """After a goodbye, the first dial waits so long: the peer is shutting down."""
    browse_lonely_s: float = 20.0
    """While no link exists, an mDNS query goes out so often (after three quick ones)."""
    browse_linked_s: float = 300.0
    """While a link exists, so often only: announcements and the peers' own queries do the rest. Membership gossip
    will make this unnecessary."""
    rescan_s: float = 10.0
    """How often the interfaces are looked at again (a robot drives out of one network into another)."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigurationError(f"port {self.port} is not between 0 and 65535")
        for name in (
            "keepalive_s",
            "keepalive_timeout_s",
            "handshake_timeout_s",
            "dial_timeout_s",
            "knock_timeout_s",
            "unreachable_after_s",
            "max_link_age_s",
            "steady_after_s",
            "twin_again_s",
            "close_timeout_s",
            "backoff_first_s",
            "browse_lonely_s",
            "browse_linked_s",
            "rescan_s",
        ):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ConfigurationError(f"{name} must be a positive number of seconds, not {value!r}")
        missing = [source for source in HintSource if source not in self.backoff_max_s]
        if missing:
            raise ConfigurationError(f"backoff_max_s lacks {', '.join(missing)}")
