"""The facts that doctor judges, gathered inside the node that has them; `diagnosis.py` concludes, this only looks."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from meshagent.core.ports import Put
from meshagent.errors import JournalError, TransportError
from meshagent.identity.credential import CertificateFault, Credential, fleet_name_of
from meshagent.identity.gate import RejectReason
from meshagent.identity.hello import HelloRefusal
from meshagent.operator.diagnosis import (
    Facts,
    IdentityFacts,
    InterfaceFacts,
    JournalFacts,
    Knock,
    LostPeer,
    NetworkFacts,
    OtherFleet,
    PeerFacts,
)
from meshagent.operator.session import Document
from meshagent.runtime.node import SOFTWARE
from meshagent.transport.attempts import DialAttempt, DialOutcome
from meshagent.transport.interfaces import chosen_interfaces
from meshagent.transport.multicast import InterfaceHearing, hear_multicast

if TYPE_CHECKING:
    from meshagent.config import Config
    from meshagent.runtime.node import Node

_COPIED: Final = (
    "if a copy of this disk runs: there meshagent init --new-identity   if this disk was put back: "
    "where the authority is meshagent fleet renew NAME, then here meshagent join FILE"
)
_AFTER_REFUSAL: Final = {
    HelloRefusal.VERSION: "update the older of the two",
    HelloRefusal.OWN_BOOT_OVER: _COPIED,
    HelloRefusal.DUPLICATE_IDENTITY: _COPIED,
    HelloRefusal.OWN_IDENTITY: _COPIED,
}
"""What to do where a Hello was refused for a reason that somebody can do something about."""
HEAR_S: Final = 0.6
"""Two questions and the answers: responders wait up to 0.12 s (RFC 6762 6)."""
PROBES: Final = 3
"""Commits that are timed; the middle one counts."""
_TOLD_ELSEWHERE: Final = frozenset(
    {
        DialOutcome.LINKED,
        DialOutcome.ALREADY_LINKED,
        DialOutcome.SELF,
        DialOutcome.OTHER_FLEET,
        DialOutcome.DUPLICATE_ID,
        DialOutcome.OUR_CREDENTIAL,  # what is wrong with it now, the finding on the identity says
    }
)
"""Outcomes that are no trouble, or have findings of their own."""


class FactsMaker:
    """Gathers the facts of one node."""

    def __init__(self, node: Node, config: Config, state: Path) -> None:
        """Nothing is measured before it is asked for."""
        self._node = node
        self._config = config
        self._state = state

    async def gather(self) -> Document:
        """A `meshagent.facts/1` document."""
        hearings: list[InterfaceHearing] = []
        if self._config.network.mdns:
            with contextlib.suppress(TransportError):  # without an interface there is nothing to hear
                hearings = await hear_multicast(chosen_interfaces(self._config.network.interfaces), within_s=HEAR_S)
        facts = self.facts({hearing.interface: hearing for hearing in hearings})
        return {"schema": "meshagent.facts/1", "node": self._node.name, **dataclasses.asdict(facts)}

    def facts(self, hearings: Mapping[str, InterfaceHearing]) -> Facts:
        """What the node knows now, with what multicast did a moment ago."""
        node = self._node
        transport: Any = node.transport
        now_s = node.clock.wall_s()
        attempts: list[DialAttempt] = transport.attempts()
        mdns = transport.mdns_status()
        rows = node.look.peers()["peers"]
        peers = [p for p in rows if p["state"] == "alive"]
        linked = {p["id"] for p in peers}
        dropped = dict.fromkeys(RejectReason, 0)
        for (reason, _), count in node.driver.links.rejections.items():
            dropped[reason] += count
        duplicates = [a.address for a in attempts if a.outcome is DialOutcome.DUPLICATE_ID]
        duplicates += [a for a in (mdns.own_id_elsewhere if mdns else ()) if a not in duplicates]
        own = node.book.speaker(node.identity.key.public, now_s=now_s)
        return Facts(
            now_s=now_s,
            identity=identity_facts(
                node.identity.credential,
                node.identity.trust.fleet_name,
                fault=str(own) if isinstance(own, CertificateFault) else "",
            ),
            network=self._network(attempts, mdns, hearings),
            peers=tuple(
                PeerFacts(name=p["name"], id=p["id"], clock_offset_s=p["clock_offset_s"], version=p["software"])
                for p in peers
            ),
            measured=True,
            known=sum(p["state"] != "unlinked" for p in rows),
            lost=tuple(LostPeer(name=p["name"], id=p["id"], why=p["why"] or "") for p in rows if p["state"] == "lost"),
            knocks=tuple(
                Knock(
                    address=f"{node.look.name_of(peer)} ({peer[:8]})",
                    outcome=f"hello_{refused.reason}",
                    sentence=f"the greeting failed: it {refused.detail}.",
                    next_step=_AFTER_REFUSAL.get(refused.reason),
                )
                for peer, refused in sorted(node.driver.links.refusals.items())
            )
            + tuple(
                Knock(address=a.address, outcome=str(a.outcome), sentence=a.sentence, next_step=a.next_step)
                for a in attempts
                if a.outcome not in _TOLD_ELSEWHERE and a.peer not in linked
            ),
            other_fleets=_other_fleets(attempts, mdns),
            duplicates=tuple(duplicates),
            dropped_future=dropped[RejectReason.FUTURE],
            dropped_stale=dropped[RejectReason.STALE],
            version=SOFTWARE,
            journal=self._journal(),
        )

    def _network(
        self, attempts: list[DialAttempt], mdns: Any, hearings: Mapping[str, InterfaceHearing]
    ) -> NetworkFacts:
        transport: Any = self._node.transport
        answered = tuple(a.address for a in attempts if a.outcome in (DialOutcome.LINKED, DialOutcome.ALREADY_LINKED))
        return NetworkFacts(
            **interface_facts(self._config, mdns, hearings),
            port=transport.listen_port,
            port_open=transport.listen_port > 0,
            mdns=mdns is not None,
            answered=answered,
            udp_problem=transport.udp_error or "",
            udp_silent=self._node.driver.keeper.linked_without_datagrams if self._node.driver.keeper else 0,
        )

    def _journal(self) -> JournalFacts:
        path = getattr(self._node.journal, "path", None)
        taken_s: list[float] = []
        problem = ""
        try:
            for _ in range(PROBES):
                began_s = time.perf_counter()
                self._node.journal.commit([Put("doctor", "probe", b"\0" * 64)])
                taken_s.append(time.perf_counter() - began_s)
            self._node.journal.commit([Put("doctor", "probe", None)])
        except JournalError as error:
            problem = str(error)
        return JournalFacts(
            size_bytes=sum(p.stat().st_size for p in self._state.glob(f"{path.name}*")) if path is not None else 0,
            commit_ms=statistics.median(taken_s) * 1000 if taken_s else None,
            free_bytes=shutil.disk_usage(self._state).free,
            sync=self._node.settings.journal_sync,
            problem=problem,
            next_step=f"look at the disk of {self._state}" if problem else None,
        )


def identity_facts(credential: Credential, fleet: str, *, fault: str = "") -> IdentityFacts:
    """What a credential says."""
    return IdentityFacts(
        name=credential.name,
        id=credential.peer,
        fleet=fleet,
        fleet_id=fleet_name_of(credential.fleet),
        not_before_s=float(credential.not_before_s),
        not_after_s=float(credential.not_after_s),
        fault=fault,
    )


def interface_facts(config: Config, mdns: Any, hearings: Mapping[str, InterfaceHearing]) -> dict[str, Any]:
    """The interfaces that are used, with what multicast did on them; or why there is none."""
    try:
        interfaces = chosen_interfaces(config.network.interfaces)
    except TransportError as error:
        return {"interfaces": (), "interface_error": str(error)}
    found = []
    for interface in interfaces:
        hearing = hearings.get(interface.name)
        announced = mdns.peers_heard.get(interface.name, 0) if mdns is not None else 0
        found.append(
            InterfaceFacts(
                name=interface.name,
                addresses=tuple(str(address.ip) for address in interface.addresses),
                queries=hearing.sent if hearing else 0,
                own_echo=bool(hearing and hearing.own_echo),
                heard_from=max(announced, _devices(hearing.others) if hearing else 0),
                problem=hearing.problem if hearing and not hearing.sent else "",
            )
        )
    return {"interfaces": tuple(found)}


def _devices(addresses: Sequence[str]) -> int:
    """How many devices at least have these addresses: one answers by IPv4 and IPv6."""
    six = sum(":" in address for address in addresses)
    return max(six, len(addresses) - six)


def _other_fleets(attempts: list[DialAttempt], mdns: Any) -> tuple[OtherFleet, ...]:
    met = [
        OtherFleet(address=a.address.rpartition(":")[0], fleet_id=a.fleet or "")
        for a in attempts
        if a.outcome is DialOutcome.OTHER_FLEET
    ]
    announced = mdns.other_fleets if mdns is not None else {}
    seen = {o.fleet_id[:8] for o in met}
    met += [
        OtherFleet(address=f"{count} device{'' if count == 1 else 's'} on this network", fleet_id=start, devices=count)
        for start, count in sorted(announced.items())
        if start[:8] not in seen
    ]
    return tuple(met)


def from_document(document: Mapping[str, Any]) -> Facts:
    """The facts behind a `meshagent.facts/1` document."""
    network, journal = document.get("network"), document.get("journal")
    return Facts(
        now_s=document["now_s"],
        identity=IdentityFacts(**document["identity"]),
        network=NetworkFacts(
            **{
                **network,
                "interfaces": tuple(
                    InterfaceFacts(**{**i, "addresses": tuple(i["addresses"])}) for i in network["interfaces"]
                ),
                "answered": tuple(network["answered"]),
            }
        )
        if network
        else None,
        peers=tuple(PeerFacts(**p) for p in document["peers"]),
        measured=document["measured"],
        known=document["known"],
        lost=tuple(LostPeer(**p) for p in document["lost"]),
        knocks=tuple(Knock(**k) for k in document["knocks"]),
        other_fleets=tuple(OtherFleet(**o) for o in document["other_fleets"]),
        duplicates=tuple(document["duplicates"]),
        dropped_future=document["dropped_future"],
        dropped_stale=document["dropped_stale"],
        version=document["version"],
        journal=JournalFacts(**journal) if journal else None,
    )
