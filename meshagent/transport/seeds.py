"""Addresses whose owner is unknown (`--peer host:port`): asked who they are until somebody answers, then pursued.

A seed stays: when its peer is lost, or another device takes over its address, it asks again.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from enum import Enum
from typing import Protocol

from meshagent.core.ports import HintSource, PeerHint
from meshagent.transport.attempts import DialAttempt, DialOutcome
from meshagent.transport.config import MAX_SEEDS, TransportConfig
from meshagent.transport.dialler import Dialler
from meshagent.transport.interfaces import host_port
from meshagent.transport.knock import resolve
from meshagent.transport.nursery import Nursery
from meshagent.transport.peers import Backoff, PeerState
from meshagent.transport.probe import PeerProbe
from meshagent.types import NodeId

log = logging.getLogger(__name__)


class Unfound(Enum):
    """A question to a seed that leads to no peer."""

    YET = "yet"
    EVER = "ever"
    """It is this node."""


class SeedOwner(Protocol):
    """What seeds need of `mesh.GrpcTransport`."""

    @property
    def node_id(self) -> NodeId: ...

    async def probe(self, ip: str, port: int) -> PeerProbe: ...

    def remember(self, address: str, source: HintSource, probe: PeerProbe) -> DialAttempt:
        """Keep what came of it, in a sentence."""

    def found(self, peer: NodeId, ip: str, port: int, source: HintSource) -> PeerState | None:
        """A seed answered as `peer`: pursue it there. None: not wanted."""

    def is_own_address(self, ip: str, port: int) -> bool: ...

    def suspect_twin(self, ip: str, port: int) -> None:
        """Our own identity answers there."""

    def new_backoff(self, source: HintSource) -> Backoff: ...


class Seeds:
    """One search a seed."""

    def __init__(self, owner: SeedOwner, config: TransportConfig, dialler: Dialler, nursery: Nursery) -> None:
        self._owner = owner
        self._config = config
        self._dialler = dialler
        self._nursery = nursery
        self._known: set[tuple[str, int]] = set()

    def add(self, hint: PeerHint) -> bool:
        """Ask there from now on; False where it is known or there are too many."""
        key = (hint.host, hint.port)
        if key in self._known or len(self._known) >= MAX_SEEDS:
            return False
        self._known.add(key)
        self._nursery.start(self._search(hint), f"seed {host_port(*key)}")
        return True

    async def _search(self, hint: PeerHint) -> None:
        loop = asyncio.get_running_loop()
        backoff = self._owner.new_backoff(hint.source)
        while True:
            async with self._dialler.slots:
                state = await self._ask(hint)
            if state is Unfound.EVER:
                return
            if not isinstance(state, PeerState):
                await asyncio.sleep(backoff.next_s())
                continue
            # give the pursuit its chance, then watch the link
            deadline_s = loop.time() + self._config.dial_timeout_s
            while state.link is None and not state.forgotten and loop.time() < deadline_s:
                await state.change(deadline_s - loop.time())
            since_s = loop.time()
            while state.link is not None and not state.forgotten:
                await state.change(None)
            if loop.time() - since_s >= self._config.steady_after_s:
                backoff.reset()
            await asyncio.sleep(backoff.next_s())

    async def _ask(self, hint: PeerHint) -> PeerState | Unfound:
        """One question to each address of the seed; the state of the first peer that answers."""
        owner, typed = self._owner, host_port(hint.host, hint.port)
        ips = await resolve(hint.host, timeout_s=self._config.knock_timeout_s)
        if not ips:
            failed = PeerProbe(host=hint.host, port=hint.port, outcome=DialOutcome.UNRESOLVED)
            owner.remember(typed, hint.source, failed)
            return Unfound.YET
        probes = await asyncio.gather(*(owner.probe(ip, hint.port) for ip in ips))
        best: PeerState | None = None
        for ip, probe in zip(ips, probes, strict=True):
            if probe.credential is None or probe.outcome is not DialOutcome.LINKED:
                continue
            if probe.credential.peer == owner.node_id:
                own = owner.is_own_address(ip, hint.port)
                outcome = DialOutcome.SELF if own else DialOutcome.DUPLICATE_ID
                owner.remember(typed, hint.source, replace(probe, outcome=outcome))
                if not own:
                    owner.suspect_twin(ip, hint.port)
                return Unfound.EVER if own else Unfound.YET
            best = best or owner.found(probe.credential.peer, ip, hint.port, hint.source)
        if best is None:
            worst = next((probe for probe in probes if probe.outcome is not DialOutcome.CONNECTION_REFUSED), probes[0])
            owner.remember(typed, hint.source, worst)
        return best or Unfound.YET
