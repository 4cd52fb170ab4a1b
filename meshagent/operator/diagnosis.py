"""What doctor concludes from facts: sentences, next steps, and whether this device is healthy. Pure.

Facts come from the running node (its own view, counted over its life) or from probes that `doctor.py` makes when none
runs; the judgement is the same. Order matters: a cause stands above what it causes, so that the first line to fix is
the first line to read. Times are wall seconds, offsets in seconds are theirs minus ours.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from meshagent.operator.render import byte_size, duration

CLOCK_WARN_S: Final = 1.0
CLOCK_FAIL_S: Final = 2.0
"""The gate takes messages up to 2 s from the future (SECURITY-DESIGN 4); beyond, this device's are dropped."""
CLOCKS_AGREE_S: Final = 0.5
"""Peers whose clocks differ by less count as agreeing; if they do not agree, nobody can say who is wrong."""
EXPIRES_SOON_S: Final = 14 * 86400.0
COMMIT_WARN_MS: Final = 50.0
"""Every award waits for a commit; above, SD cards are the usual cause."""
FREE_WARN_BYTES: Final = 512 * 1024 * 1024
FREE_FAIL_BYTES: Final = 64 * 1024 * 1024
"""A journal that cannot grow stops the node rather than breaking a promise."""
MAX_LISTED: Final = 4
"""Addresses and peers named in one sentence."""


class Level(StrEnum):
    """How bad."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of doctor. `topic` is stable, for scripts."""

    level: Level
    topic: str
    sentence: str
    next_step: str | None = None
    facts: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityFacts:
    """What the state folder says of this device."""

    name: str = ""
    id: str = ""
    fleet: str = ""
    fleet_id: str = ""
    not_before_s: float = 0.0
    not_after_s: float = 0.0
    fault: str = ""
    """no_identity, no_fleet, unreadable, expired, not_yet_valid, revoked, superseded; empty: current."""
    detail: str = ""
    next_step: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceFacts:
    """One network interface that is used, and what multicast did there."""

    name: str
    addresses: tuple[str, ...] = ()
    queries: int = 0
    own_echo: bool = False
    heard_from: int = 0
    """Other devices whose announcement came in here."""
    problem: str = ""
    """Why nothing could be sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkFacts:
    """Interfaces, port, multicast."""

    interfaces: tuple[InterfaceFacts, ...] = ()
    interface_error: str = ""
    port: int = 0
    port_open: bool = False
    """Listening, or free to listen on."""
    port_holder: str = ""
    """Who listens there instead, as far as known."""
    mdns: bool = True
    answered: tuple[str, ...] = ()
    """Addresses that answered when asked directly; suggested where multicast is filtered."""
    udp_problem: str = ""
    """Why the port could not be had for UDP."""
    udp_silent: int = 0
    """Linked peers from which no datagram has ever come although some were sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherFleet:
    """A member of another fleet that was met."""

    address: str
    fleet_id: str = ""
    name: str = ""
    devices: int = 1
    """How many stand behind the address, where it is a whole network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Knock:
    """An address that did not become a peer, in the transport's own sentence."""

    address: str
    outcome: str
    sentence: str
    next_step: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LostPeer:
    """A peer that was linked and is not any more."""

    name: str
    id: str
    why: str = ""
    """As the link ended: goodbye, refused, reset, silent, revoked, expired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerFacts:
    """One linked peer."""

    name: str
    id: str
    clock_offset_s: float | None = None
    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalFacts:
    """The disk below the promises."""

    size_bytes: int = 0
    commit_ms: float | None = None
    free_bytes: int = 0
    sync: str = "full"
    problem: str = ""
    next_step: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that doctor looks at."""

    now_s: float
    identity: IdentityFacts
    network: NetworkFacts | None = None
    peers: tuple[PeerFacts, ...] = ()
    measured: bool = False
    """Peers were looked for at all; False where identity or network made it pointless."""
    known: int = 0
    lost: tuple[LostPeer, ...] = ()
    knocks: tuple[Knock, ...] = ()
    other_fleets: tuple[OtherFleet, ...] = ()
    duplicates: tuple[str, ...] = ()
    """Where another device shows our identity: address, or what its boot said."""
    dropped_future: int = 0
    dropped_stale: int = 0
    version: str = ""
    journal: JournalFacts | None = None


def diagnose(facts: Facts) -> list[Finding]:
    """Every finding, causes first."""
    return [
        *_identity(facts),
        *_network(facts),
        *_datagrams(facts),
        *_fleet(facts),
        *_clock(facts),
        *_versions(facts),
        *_refused(facts),
        *_knocks(facts),
        *_peers(facts),
        *_journal(facts),
    ]


def healthy(findings: Sequence[Finding]) -> bool:
    """No warning and no fault."""
    return all(f.level is Level.OK for f in findings)


def _identity(facts: Facts) -> Iterator[Finding]:
    who = facts.identity
    label = f"{who.name or 'this device'} ({who.id[:8]})" if who.id else "this device"
    if facts.duplicates:
        yield Finding(
            level=Level.FAIL,
            topic="identity",
            sentence=f"two devices use identity {who.id[:8]}: this one and {', '.join(facts.duplicates[:MAX_LISTED])}. "
            "Usually a copied disk.",
            next_step="on the copy only:  meshagent init --new-identity   then join the fleet again",
            facts={"fault": "duplicate_id", "seen_at": list(facts.duplicates)},
        )
    if who.fault:
        sentence, next_step = {
            "no_identity": ("this device has no identity yet.", "meshagent init"),
            "no_fleet": (
                f"{label} belongs to no fleet.",
                "to try here: add --dev   to join: meshagent join --request device.req",
            ),
            "expired": (
                f"the credential of {label} in fleet {who.fleet} expired {_ago(facts.now_s - who.not_after_s)}; "
                "every peer refuses it.",
                f"where the authority is: meshagent fleet renew {who.name}   then here: meshagent join FILE",
            ),
            "not_yet_valid": (
                f"the credential of {label} is valid only in {duration(who.not_before_s - facts.now_s)}; "
                "this clock is likely behind.",
                "sudo timedatectl set-ntp true",
            ),
            "revoked": (
                f"{label} was revoked: fleet {who.fleet} has expelled it, peers close its links.",
                f"if by mistake, where the authority is: meshagent fleet renew {who.name}",
            ),
            "superseded": (
                f"{label} shows a credential that a newer one has replaced.",
                "install the newest credential file: meshagent join FILE",
            ),
        }.get(who.fault, (who.detail or f"the identity cannot be used: {who.fault}", who.next_step))
        yield Finding(
            level=Level.FAIL,
            topic="identity",
            sentence=sentence,
            next_step=who.next_step or next_step,
            facts={"fault": who.fault, "id": who.id, "fleet": who.fleet, "not_after_s": who.not_after_s},
        )
        return
    left_s = who.not_after_s - facts.now_s
    soon = left_s < EXPIRES_SOON_S
    yield Finding(
        level=Level.WARN if soon else Level.OK,
        topic="identity",
        sentence=f"{label}, fleet {who.fleet}, credential valid for {duration(left_s)}",
        next_step=f"where the authority is: meshagent fleet renew {who.name}" if soon else None,
        facts={"id": who.id, "name": who.name, "fleet": who.fleet, "fleet_id": who.fleet_id, "valid_s": round(left_s)},
    )


def _ago(seconds: float) -> str:
    return f"{duration(seconds)} ago"


def _network(facts: Facts) -> Iterator[Finding]:
    net = facts.network
    if net is None:
        return
    if not net.interfaces:
        yield Finding(
            level=Level.FAIL,
            topic="interface",
            sentence=net.interface_error or "no network interface is up.",
            next_step="ip link   then bring one up, or:  meshagent config set network.interfaces '[\"wlan0\"]'",
            facts={"interfaces": []},
        )
        return
    if not net.port_open:
        yield Finding(
            level=Level.FAIL,
            topic="port",
            sentence=f"port {net.port} is {'in use by ' + net.port_holder if net.port_holder else 'closed'}.",
            next_step="meshagent status   or a second node: meshagent run ROLE --port 0 --state DIR"
            if net.port_holder
            else f"allow TCP {net.port} in the firewall, or another:  meshagent config set network.port N",
            facts={"port": net.port, "holder": net.port_holder},
        )
    where = ", ".join(f"{i.name} {i.addresses[0] if i.addresses else ''}".strip() for i in net.interfaces)
    heard = sum(i.heard_from for i in net.interfaces)
    if net.port_open:
        yield Finding(
            level=Level.OK,
            topic="network",
            sentence=f"{where}, port {net.port} tcp {'open' if net.port else 'chosen at start'}"
            + _multicast_words(net, heard),
            facts={"interfaces": [i.name for i in net.interfaces], "port": net.port, "heard_from": heard},
        )
    if net.mdns:
        yield from _multicast(facts, net, heard)


def _multicast_words(net: NetworkFacts, heard: int) -> str:
    if not net.mdns:
        return ", mDNS is off"
    return f", multicast heard from {heard} device{'' if heard == 1 else 's'}" if heard else ""


def _multicast(facts: Facts, net: NetworkFacts, heard: int) -> Iterator[Finding]:
    """Our own echo comes back through this device's kernel alone, so its absence accuses this device; a network that
    filters lets the echo through and swallows everybody else."""
    tried = net.answered[:MAX_LISTED]
    named = "meshagent config set network.peers '[\"{}\"]'".format(tried[0] if tried else "HOST:PORT")
    next_step = f"name one device that you can reach:  {named}" + ("   (we tried: it answers)" if tried else "")
    deaf = [i for i in net.interfaces if (i.queries or i.problem) and not i.own_echo and not i.heard_from]
    sent = sum(i.queries for i in deaf)
    if deaf:
        where = ", ".join(i.name for i in deaf)
        what = f"sent {sent} quer{'y' if sent == 1 else 'ies'} on {where}, heard none, not even our own echo"
        why = next(
            (i.problem for i in deaf if i.problem), "a firewall on this device, or the network, filters multicast"
        )
        yield Finding(
            level=Level.WARN,
            topic="multicast",
            sentence=f"{what}: {why}.",
            next_step=next_step,
            facts={"interfaces": [i.name for i in deaf], "queries": sent, "own_echo": False},
        )
    elif facts.peers and not heard and any(i.queries for i in net.interfaces):
        count = len(facts.peers)
        yield Finding(
            level=Level.WARN,
            topic="multicast",
            sentence=f"{count} peer{' is' if count == 1 else 's are'} linked, none is heard by multicast, only our own "
            "echo: the network between filters it, so nobody new will be found.",
            next_step=next_step,
            facts={"interfaces": [i.name for i in net.interfaces], "own_echo": True},
        )


def _datagrams(facts: Facts) -> Iterator[Finding]:
    net = facts.network
    if net is None or not (net.udp_problem or net.udp_silent):
        return
    if net.udp_problem:
        what, step = f"UDP port {net.port} cannot be had: {net.udp_problem}", f"ss -lunp 'sport = :{net.port}'"
    else:
        what = f"{net.udp_silent} of {len(facts.peers)} linked peers answer no datagram on UDP port {net.port}"
        step = f"allow UDP {net.port} in the firewalls between these devices, as TCP {net.port} is"
    yield Finding(
        level=Level.WARN,
        topic="udp",
        sentence=f"{what}. Membership goes over the links: peers are found and lost all the same, silence later.",
        next_step=step,
        facts={"silent": net.udp_silent},
    )


def _fleet(facts: Facts) -> Iterator[Finding]:
    if not facts.other_fleets:
        return
    first = facts.other_fleets[0]
    more = len(facts.other_fleets) - 1
    theirs = (
        f"fleet {first.name} (root {first.fleet_id[:4]}..)"
        if first.name
        else f"another fleet (root {first.fleet_id[:4]}..)"
    )
    # another fleet on the same network is no fault while ours is in reach; alone it usually is the explanation
    alone = not facts.peers
    yield Finding(
        level=Level.FAIL if alone else Level.OK,
        topic="fleet",
        sentence=f"{first.address}{f' and {more} more' if more else ''} "
        f"{'show' if more or first.devices > 1 else 'shows'} a certificate of {theirs}, "
        f"this device belongs to {facts.identity.fleet} (root {facts.identity.fleet_id[:4]}..).",
        next_step="to move this device: meshagent leave, then join there   to ignore that fleet: nothing to do"
        if alone
        else None,
        facts={
            "addresses": [o.address for o in facts.other_fleets],
            "fleets": sorted({o.fleet_id for o in facts.other_fleets}),
        },
    )


def _clock(facts: Facts) -> Iterator[Finding]:
    offsets = [p.clock_offset_s for p in facts.peers if p.clock_offset_s is not None]
    if not offsets:
        if facts.dropped_future or facts.dropped_stale:
            which, where = (
                ("the future", "behind") if facts.dropped_future >= facts.dropped_stale else ("the past", "ahead")
            )
            count = max(facts.dropped_future, facts.dropped_stale)
            yield Finding(
                level=Level.FAIL,
                topic="clock",
                sentence=f"messages of peers look like {which} and are dropped ({count} so far): "
                f"this clock is likely {where}.",
                next_step="sudo timedatectl set-ntp true",
                facts={"dropped": count},
            )
        return
    middle = statistics.median(offsets)
    agreeing = [o for o in offsets if abs(o - middle) <= CLOCKS_AGREE_S]
    many = f"{len(agreeing)} peer{'' if len(agreeing) == 1 else 's'}"
    dropped = facts.dropped_future + facts.dropped_stale
    tail = f" Their messages are dropped ({dropped} so far)." if dropped else ""
    if abs(middle) >= CLOCK_WARN_S and len(agreeing) > len(offsets) / 2:
        spread = max(agreeing) - min(agreeing)
        agree = f" that agree within {duration(max(spread, 0.1))}" if len(agreeing) > 1 else ""
        yield Finding(
            level=Level.FAIL if abs(middle) >= CLOCK_FAIL_S else Level.WARN,
            topic="clock",
            sentence=f"this clock is {duration(middle)} {'behind' if middle > 0 else 'ahead of'} {many}{agree}.{tail}",
            next_step="sudo timedatectl set-ntp true",
            facts={"offset_s": round(middle, 3), "peers": len(agreeing)},
        )
    for peer in facts.peers:
        offset = peer.clock_offset_s
        if offset is not None and abs(offset - middle) >= CLOCK_FAIL_S and abs(middle) < CLOCK_WARN_S:
            yield Finding(
                level=Level.WARN,
                topic="clock",
                sentence=f"the clock of {peer.name} ({peer.id[:8]}) is {duration(offset)} "
                f"{'ahead' if offset > 0 else 'behind'}.",
                next_step=f"on {peer.name}: sudo timedatectl set-ntp true",
                facts={"peer": peer.id, "offset_s": round(offset, 3)},
            )


def _versions(facts: Facts) -> Iterator[Finding]:
    if not facts.version:
        return
    ours = _series(facts.version)
    others = [p for p in facts.peers if p.version and _series(p.version) != ours]
    if others:
        named = ", ".join(f"{p.name} {p.version}" for p in others[:MAX_LISTED])
        newer = max((_series(p.version) for p in others), default=ours) > ours
        yield Finding(
            level=Level.WARN,
            topic="version",
            sentence=f"this node runs {facts.version}, others run {named}; they talk as the older one does.",
            next_step="update this device" if newer else f"update {others[0].name}",
            facts={"version": facts.version, "others": {p.id: p.version for p in others}},
        )


def _series(version: str) -> tuple[int, ...]:
    """Major and minor; patches of one series talk alike."""
    parts = version.removeprefix("meshagent/").split(".")[:2]
    return tuple(int(part) if part.isascii() and part.isdigit() else 0 for part in parts)


def _refused(facts: Facts) -> Iterator[Finding]:
    """TLS and the Hello say no without a reason; these are the reasons that there are."""
    refusing = [p for p in facts.lost if p.why.startswith("refused")]
    if not refusing:
        return
    named = ", ".join(f"{p.name} ({p.id[:8]})" for p in refusing[:MAX_LISTED])
    many = len(refusing) > 1
    yield Finding(
        level=Level.FAIL if not facts.peers else Level.WARN,
        topic="refused",
        sentence=f"{named} closed the link and {'take' if many else 'takes'} this device no more, without saying why: "
        f"it was revoked, its credential ended by {'their clocks' if many else 'its clock'}, or a copy of it runs.",
        next_step="where the authority is: meshagent fleet show",
        facts={"peers": [p.id for p in refusing]},
    )


def _knocks(facts: Facts) -> Iterator[Finding]:
    for knock in facts.knocks[:MAX_LISTED]:
        yield Finding(
            level=Level.WARN,
            topic="version" if "version" in knock.outcome else "reach",
            sentence=knock.sentence if knock.address in knock.sentence else f"{knock.address}: {knock.sentence}",
            next_step=knock.next_step,
            facts={"address": knock.address, "outcome": knock.outcome},
        )


def _peers(facts: Facts) -> Iterator[Finding]:
    if not facts.measured:
        return
    linked = len(facts.peers)
    known = max(facts.known, linked)
    if not linked:
        net = facts.network
        alone = net is not None and net.mdns and any(i.own_echo for i in net.interfaces)
        alone = alone and net is not None and not any(i.heard_from for i in net.interfaces)
        why = " Nobody answers by multicast: no other node runs here, or the network filters it." if alone else ""
        yield Finding(
            level=Level.FAIL,
            topic="peers",
            sentence=f"{known} known, none linked.{why} Not measured: clocks, versions (nobody to compare with).",
            next_step=None
            if facts.other_fleets or facts.knocks
            else "run another node, or name one:  meshagent doctor --peer HOST:PORT",
            facts={"known": known, "linked": 0},
        )
        return
    offsets = [abs(p.clock_offset_s) for p in facts.peers if p.clock_offset_s is not None]
    clocks = f", clocks within {max(offsets):.2f} s" if offsets else ""
    yield Finding(
        level=Level.OK,
        topic="peers",
        sentence=f"{known} known, {linked} linked{clocks}",
        facts={"known": known, "linked": linked, "max_clock_offset_s": max(offsets) if offsets else None},
    )


def _journal(facts: Facts) -> Iterator[Finding]:
    journal = facts.journal
    if journal is None:
        return
    numbers: dict[str, object] = {
        "size_bytes": journal.size_bytes,
        "commit_ms": journal.commit_ms,
        "free_bytes": journal.free_bytes,
        "sync": journal.sync,
    }
    if journal.problem:
        yield Finding(
            level=Level.FAIL, topic="journal", sentence=journal.problem, next_step=journal.next_step, facts=numbers
        )
        return
    commit = f", {journal.commit_ms:.1f} ms a commit" if journal.commit_ms is not None else ""
    sentence = f"{byte_size(journal.size_bytes)}{commit}, {byte_size(journal.free_bytes)} free"
    level, next_step = Level.OK, None
    if journal.free_bytes < FREE_WARN_BYTES:
        level = Level.FAIL if journal.free_bytes < FREE_FAIL_BYTES else Level.WARN
        next_step = "free space on this disk, or keep less:  meshagent config set journal.keep_days 7"
    elif journal.commit_ms is not None and journal.commit_ms > COMMIT_WARN_MS:
        level = Level.WARN
        next_step = "this disk is slow: move node.state_dir to another, or see  meshagent config explain journal.sync"
    elif journal.sync != "full":
        level = Level.WARN
        sentence += ', sync is "normal": a power cut may forget the last promises'
        next_step = "meshagent config set journal.sync full"
    yield Finding(level=level, topic="journal", sentence=sentence, next_step=next_step, facts=numbers)


def document(findings: Sequence[Finding], *, asked: str) -> dict[str, object]:
    """`meshagent.doctor/1`; `asked` is the running node's name, or empty where doctor probed itself."""
    return {
        "schema": "meshagent.doctor/1",
        "healthy": healthy(findings),
        "node": asked or None,
        "findings": [
            {"level": str(f.level), "topic": f.topic, "sentence": f.sentence, "next": f.next_step, "facts": f.facts}
            for f in findings
        ],
    }
