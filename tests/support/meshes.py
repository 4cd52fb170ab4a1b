"""Fleets, identities and transports for tests over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from time import perf_counter
from time import time as wall_s  # noqa: TID251  # TLS compares with the real clock too
from typing import Any

from meshagent.core.ports import HintSource, Link, LinkClosed, PeerHint
from meshagent.identity.book import CredentialBook
from meshagent.identity.certificates import issue_credential, read_credential
from meshagent.identity.device import DeviceIdentity
from meshagent.identity.keys import DeviceKey
from meshagent.identity.revocation import RevocationEntry, RevocationReason, sign_list
from meshagent.identity.trust import Trust, issue_root
from meshagent.transport.config import TransportConfig
from meshagent.transport.mesh import GrpcTransport
from meshagent.types import NodeId

YEAR_S = 365 * 24 * 3600.0


class TestFleet:
    """A fleet authority that admits whatever a test wants, at whatever time."""

    __test__ = False

    def __init__(self, name: str = "test-fleet", *, issued_s: float | None = None) -> None:
        self.key = DeviceKey.generate()
        self.root = issue_root(self.key, DeviceKey.generate().public, name=name, now_s=issued_s or wall_s())
        self.trust = Trust([self.root])
        self._lists = 0

    def device(
        self,
        name: str,
        *,
        key: DeviceKey | None = None,
        generation: int = 1,
        issued_s: float | None = None,
        lifetime_s: float = YEAR_S,
    ) -> DeviceIdentity:
        """Admit a device."""
        key = key or DeviceKey.generate()
        now_s = wall_s() if issued_s is None else issued_s
        data = issue_credential(
            self.key,
            self.trust.newest,
            fleet=self.trust.fleet,
            device=key.public,
            name=name,
            generation=generation,
            may=("announce:*", "perform:*"),
            capabilities=(),
            now_s=now_s,
            lifetime_s=lifetime_s,
        )
        trust = Trust([self.root])
        return DeviceIdentity(key, read_credential(data, trust, now_s=now_s), trust)

    def revoke(self, device: DeviceIdentity) -> bytes:
        """A revocation list of the root that names this credential and all before it."""
        entry = RevocationEntry(
            key=device.key.public,
            min_generation=device.credential.generation + 1,
            reason=RevocationReason.KEY_COMPROMISE,
            not_after_s=device.credential.not_after_s,
        )
        self._lists += 1
        return sign_list(self.key, self.trust.fleet, [entry], number=self._lists, now_s=wall_s()).signed

    def pair(self) -> tuple[DeviceIdentity, DeviceIdentity]:
        """Two devices, the smaller id first."""
        small, large = sorted((self.device("a"), self.device("b")), key=lambda device: device.node_id)
        return small, large


@dataclass
class Recorder:
    """`LinkEvents` that remembers everything and lets a test wait for it."""

    links: dict[NodeId, Link] = field(default_factory=dict)
    frames: list[tuple[NodeId, bytes]] = field(default_factory=list)
    opened: list[NodeId] = field(default_factory=list)
    closed: list[tuple[NodeId, LinkClosed]] = field(default_factory=list)
    unreachable: list[tuple[NodeId, LinkClosed, str]] = field(default_factory=list)
    twins: list[str] = field(default_factory=list)
    times: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    seamless: int = 0
    """Links that opened in the very turn of the loop in which their predecessor closed."""
    echo: bool = False
    _same_turn: dict[NodeId, bool] = field(default_factory=dict)
    _stir: asyncio.Event = field(default_factory=asyncio.Event)

    def _check(self, holds: bool, fault: str) -> None:
        # raised in the test by open_mesh: an exception here would only reach the loop's log
        if not holds:
            self.faults.append(fault)

    def _changed(self, what: str) -> None:
        self.times[what] = perf_counter()
        self._stir.set()

    def link_opened(self, link: Link) -> None:
        self._check(link.peer not in self.links, "two open links with one peer")
        self.links[link.peer] = link
        self.seamless += self._same_turn.get(link.peer, False)
        self.opened.append(link.peer)
        self._changed("opened")

    def frame_received(self, link: Link, frame: bytes) -> None:
        self._check(self.links.get(link.peer) is link, "a frame of a link that is not open")
        self.frames.append((link.peer, frame))
        if self.echo:
            link.send(frame)
        self._changed("frame")

    def link_closed(self, link: Link, why: LinkClosed) -> None:
        self._check(self.links.pop(link.peer, None) is link, "closed a link that was not open")
        self.closed.append((link.peer, why))
        self._same_turn[link.peer] = True
        asyncio.get_running_loop().call_soon(self._same_turn.__setitem__, link.peer, False)
        self._changed("closed")

    def peer_unreachable(self, peer: NodeId, why: LinkClosed, detail: str) -> None:
        self.unreachable.append((peer, why, detail))
        self._changed("unreachable")

    def own_identity_proved(self, address: str) -> None:
        self.twins.append(address)
        self._changed("twin")

    async def until(self, condition: Callable[[], bool], *, within_s: float = 10.0) -> None:
        """Return as soon as `condition` holds; it is looked at after every event and every 20 ms."""
        async with asyncio.timeout(within_s):
            while not condition():
                self._stir.clear()
                try:
                    async with asyncio.timeout(0.02):
                        await self._stir.wait()
                except TimeoutError:
                    continue


def quick(**changes: Any) -> TransportConfig:
    """Loopback, a free port, no mDNS."""
    settings: dict[str, Any] = {"port": 0, "interfaces": ("lo",), "mdns": False}
    return TransportConfig(**(settings | changes))


@dataclass
class Mesh:
    """One running transport."""

    identity: DeviceIdentity
    book: CredentialBook
    transport: GrpcTransport
    events: Recorder

    @property
    def id(self) -> NodeId:
        return self.identity.node_id

    def hint(self, other: Mesh, *, known: bool = False, host: str = "127.0.0.1") -> None:
        """Tell this node where `other` listens, by default without saying who it is."""
        peer = other.id if known else None
        port = other.transport.listen_port
        self.transport.add_hint(PeerHint(host=host, port=port, source=HintSource.STATIC, peer=peer))

    def linked(self, other: Mesh) -> bool:
        return other.id in self.events.links


@asynccontextmanager
async def open_mesh(
    identity: DeviceIdentity,
    config: TransportConfig | None = None,
    *,
    wall: Callable[[], float] = wall_s,
    seed: int = 1,
    hints: Sequence[PeerHint] = (),
) -> AsyncIterator[Mesh]:
    """A running transport that is closed at the end."""
    book = identity.open_book(now_s=wall())
    transport = GrpcTransport(identity, book, config or quick(), Random(seed), wall_s=wall)
    events = Recorder()
    for hint in hints:
        transport.add_hint(hint)
    try:
        await transport.start(events)
        yield Mesh(identity, book, transport, events)
    finally:
        await transport.close()
    assert events.faults == []
