"""What a transport remembers of each peer: addresses, the link, the loss that is being examined, when to dial next.

Plain state and arithmetic; who acts on it is dialler.py.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random
from typing import Final

from meshagent.core.ports import HintSource, LinkClosed
from meshagent.identity.buckets import Bucket
from meshagent.transport.config import MAX_ADDRESSES_PER_PEER, TransportConfig
from meshagent.transport.interfaces import host_port
from meshagent.transport.links import StreamLink
from meshagent.types import NodeId

FREE_TRIES: Final = 2
"""Links that may fail at once before pauses begin; more would let two confused nodes make links in a tight loop."""
_TRUST: Final = {HintSource.REMEMBERED: 0, HintSource.PEER: 1, HintSource.MDNS: 2, HintSource.STATIC: 3}
"""A hint never lowers the rank of an address: what a person typed stays a seed although mDNS tells of it too."""


@dataclass(slots=True)
class Address:
    """Somewhere a peer may be reached."""

    host: str
    port: int
    source: HintSource
    proven: bool = False
    """A link was made there once."""

    def __str__(self) -> str:
        return host_port(self.host, self.port)


@dataclass(slots=True)
class Loss:
    """A link was lost without a goodbye, and the node waits to hear whether its peer is gone."""

    why: LinkClosed
    address: tuple[str, int] | None
    """Where the peer listens, as far as this link knew."""
    timer: asyncio.TimerHandle
    told: bool = False
    answered: int = 0
    """How often the peer's kernel accepted a connection since."""


class Backoff:
    """Pauses that double from `first_s` to `cap_s`, each shortened by up to half at random."""

    def __init__(self, first_s: float, cap_s: float, rng: Random) -> None:
        self._first_s = first_s
        self.cap_s = cap_s
        self._rng = rng
        self._failures = 0

    def next_s(self) -> float:
        """The pause after one more failure."""
        pause = min(self.cap_s, self._first_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return pause * (0.5 + self._rng.random() / 2)

    def reset(self) -> None:
        """Start again from the shortest pause."""
        self._failures = 0


class PeerState:
    """Everything about one peer, known by its id."""

    __slots__ = (
        "_changed",
        "addresses",
        "arrivals",
        "backoff",
        "barred_until_s",
        "dialling",
        "forgotten",
        "hearsay_until_s",
        "link",
        "linked_s",
        "loss",
        "not_before_s",
        "peer",
        "refused_until_s",
        "renew_at_s",
        "short_lives",
        "task",
        "wake",
    )

    def __init__(self, peer: NodeId, backoff: Backoff) -> None:
        self.peer = peer
        self.backoff = backoff
        self.addresses: list[Address] = []
        self.link: StreamLink | None = None
        self.linked_s = 0.0
        """When the present or the last link was made."""
        self.short_lives = 0
        """Links in a row that ended before they counted as working."""
        self.arrivals: Bucket | None = None
        """Streams it may still open with us; None: it has opened none."""
        self.renew_at_s = float("inf")
        """When the present link, dialled by us, is to be replaced by a fresh one."""
        self.dialling = False
        self.loss: Loss | None = None
        self.not_before_s = 0.0
        self.refused_until_s = 0.0
        """Until then it is not dialled: one of the two has refused the other."""
        self.barred_until_s = 0.0
        """Until then its streams are refused, because we have refused it. Where it has refused us it may come back
        sooner: two that bar each other in turn would never meet again."""
        self.hearsay_until_s = 0.0
        """Until then, further hearsay does not bring the next dial forward."""
        self.forgotten = False
        self.task: asyncio.Task[None] | None = None
        self.wake = asyncio.Event()
        self._changed = asyncio.Event()

    def touch(self) -> None:
        """Link or dialling changed: wake whoever waits for that."""
        self.wake.set()
        self._changed.set()
        self._changed = asyncio.Event()

    async def change(self, within_s: float | None) -> None:
        """Return at the next `touch`, or after `within_s` (None: however long it takes)."""
        try:
            async with asyncio.timeout(within_s):
                await self._changed.wait()
        except TimeoutError:
            return

    def pause_after_loss_s(self, lived_s: float, steady_after_s: float) -> float:
        """How long to wait before dialling again, now that the link has ended; a link that worked costs nothing.

        The first tries are free: a process that is killed may answer for a moment, and peers do restart.
        """
        if lived_s >= steady_after_s:
            self.short_lives = 0
            self.backoff.reset()
            return 0.0
        self.short_lives += 1
        return 0.0 if self.short_lives <= FREE_TRIES else self.backoff.next_s()

    def add_address(self, host: str, port: int, source: HintSource, *, proven: bool = False) -> bool:
        """Remember an address; True where it is new. The oldest unproven one makes room."""
        for known in self.addresses:
            if (known.host, known.port) == (host, port):
                if _TRUST[source] > _TRUST[known.source]:
                    known.source = source
                known.proven = known.proven or proven
                return False
        if len(self.addresses) >= MAX_ADDRESSES_PER_PEER:
            order = sorted(self.addresses, key=lambda a: (a.source is HintSource.STATIC, a.proven))
            self.addresses.remove(order[0])
        self.addresses.append(Address(host, port, source, proven))
        return True

    def candidates(self) -> list[Address]:
        """Addresses in the order of trying: where a link was before, then the newest."""
        newest = self.addresses[::-1]
        return [address for address in newest if address.proven] + [a for a in newest if not a.proven]

    def drop_hints(self, source: HintSource) -> None:
        """Forget the unproven addresses of one source; proven ones fall back to REMEMBERED."""
        for address in self.addresses:
            if address.source is source and address.proven:
                address.source = HintSource.REMEMBERED
        self.addresses = [address for address in self.addresses if address.source is not source]

    def forget_addresses(self, *sources: HintSource) -> None:
        """Forget every address of these sources, proven or not."""
        self.addresses = [address for address in self.addresses if address.source not in sources]

    def settle_loss(self) -> None:
        """The examination is over: a link exists again, or nobody needs to know."""
        if self.loss is not None:
            self.loss.timer.cancel()
            self.loss = None

    def adjust_backoff(self, config: TransportConfig) -> None:
        """Let the most trusted address decide how long the pauses may grow."""
        if self.addresses:
            self.backoff.cap_s = min(config.backoff_max_s[address.source] for address in self.addresses)
