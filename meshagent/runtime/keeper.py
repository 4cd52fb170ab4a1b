"""Carries the membership machine: datagrams and links below, verdicts for the driver above.

In: a datagram or a message on a link -> opened, read -> each item that is news is checked (credential, signature) and
handed to the machine -> the message itself. Out: what the machine says goes as a datagram to the address where the
peer was proven, or over its link where there is no key, no address, or no answer to datagrams.

Addresses come from two sources alone: the link, which TLS has proved, and the record that the member itself signed. A
datagram never moves them, so no forged or reflected packet makes this node write anywhere else. An address that nobody
has proved yet is written to once a second at most.

Absent here: who is alive (`core/membership.py`), bytes (`wire/gossip.py`), keys (`identity/datagrams.py`).

Source: SECURITY-DESIGN 5, 6.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Protocol

from meshagent.core.bodies import MembershipMessage, Profile
from meshagent.core.members import (
    Ack,
    CredentialEnded,
    DuplicateIdentity,
    Effect,
    Gossip,
    Incarnation,
    Input,
    ItemChecked,
    LeaveRequested,
    LinkLost,
    LinkOpened,
    MemberChanged,
    MemberRecord,
    MembershipConfig,
    MemberState,
    MessageHeard,
    Path,
    Ping,
    RecordLearned,
    Say,
    SignOfLife,
    StateLearned,
    StateSet,
    TimePassed,
)
from meshagent.core.membership import Membership
from meshagent.core.ports import Clock, Datagrams, HintSource, LinkClosed, PeerHint
from meshagent.errors import EnvelopeError, IdentityError
from meshagent.identity.book import CredentialBook
from meshagent.identity.buckets import Bucket
from meshagent.identity.credential import CertificateFault
from meshagent.identity.datagrams import DatagramError, DatagramKeys
from meshagent.identity.device import DeviceIdentity
from meshagent.identity.keys import BadSignatureError
from meshagent.identity.membership import (
    ClaimedAccusation,
    ClaimedRecord,
    DeviceNotary,
    parse,
    verify_accusation,
    verify_record,
    verify_state,
)
from meshagent.identity.replay import BootVerdict
from meshagent.runtime.facts import MemberFacts, facts_of, read_facts, write_facts
from meshagent.types import NodeId, public_key_of
from meshagent.wire import gossip as wire

log = logging.getLogger(__name__)

UNPROVEN_PAUSE_S: Final = 1.0
"""An address that nobody has proved is written to so often (SECURITY-DESIGN 6)."""
SILENT_AFTER: Final = 3
"""Pings in a row without any datagram back: the link carries them from now on."""
TRY_AGAIN_EVERY: Final = 10
"""And every so many a datagram is tried again: the filter may be gone."""
CHECKS_PER_S: Final = 400.0
CHECKS_BURST: Final = 2.0 * wire.MAX_ITEMS
"""Signatures that one peer may make us check: two full messages of news at once, 2.5 % of a core for long."""
HINTS_PER_S: Final = 2.0
HINTS_BURST: Final = 64.0
"""Strangers that one peer may make us dial: a fleet at once, then few."""
OFFER_PAUSE_S: Final = 5.0
"""Revocation lists are offered to one peer so often while its digest differs."""
DIGEST_FRESH_S: Final = 1.0
MAX_DUPLICATES: Final = 64
_NO_LISTS: Final = bytes(wire.REVOCATIONS_BYTES)


class KeeperHost(Protocol):
    """What the keeper needs of the driver."""

    def say_membership(self, to: NodeId, message: MembershipMessage) -> None:
        """Over the link, if there is one."""

    def offer_revocations(self, to: NodeId) -> None:
        """Tell `to` what lists we hold."""

    def judge_boot(self, peer: NodeId, boot: bytes, generation: int) -> BootVerdict:
        """What the replay table thinks of that boot."""

    def member_changed(self, change: MemberChanged) -> None:
        """A member's state changed."""

    def duplicate_found(self, node: NodeId) -> None:
        """Two devices use one identity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberView:
    """A member as people may see it."""

    node: NodeId
    state: MemberState
    since_s: float
    incarnation: Incarnation
    accusers: tuple[NodeId, ...]
    faulty_in_s: float | None
    """Until a suspect counts as faulty."""
    addresses: tuple[str, ...]
    port: int
    facts: MemberFacts | None
    by_datagram: bool
    """It answers datagrams."""


class _Route:
    """Where one member is written to."""

    __slots__ = ("addresses", "link_host", "next", "port", "proven", "unanswered", "unproven_s")

    def __init__(self) -> None:
        self.link_host = ""
        """Where its link comes from or goes to: TLS proved who is there."""
        self.addresses: tuple[str, ...] = ()
        self.port = 0
        self.proven: str | None = None
        """The address from which a datagram that it sealed has come."""
        self.next = 0
        self.unproven_s = -math.inf
        self.unanswered = 0

    def claims(self, host: str) -> bool:
        return host == self.link_host or host in self.addresses


class _Peer:
    """Budgets of whoever brings us news."""

    __slots__ = ("checks", "hints", "offered_s")

    def __init__(self, now_s: float) -> None:
        self.checks = Bucket(CHECKS_PER_S, CHECKS_BURST, now_s)
        self.hints = Bucket(HINTS_PER_S, HINTS_BURST, now_s)
        self.offered_s = -math.inf


class Keeper:
    """One node's membership, on its ports.

    Args:
        identity: key and fleet of this device.
        book: whose credentials are known and current.
        boot: the 16 bytes of this boot.
        config: timing.
        clock: the device's clocks.
        wall_s: wall time as the links reckon it, from boot time.
        rng: a child stream of the node's seed.
        random_bytes: the secret of this boot.
        datagrams: packets beside the links; None: links alone.
        port: where this node listens.
        hint: where to knock.
        host: the driver.
        observer: learn only (a node for the length of one command).
    """

    def __init__(
        self,
        *,
        identity: DeviceIdentity,
        book: CredentialBook,
        boot: bytes,
        config: MembershipConfig,
        clock: Clock,
        wall_s: Callable[[float], float],
        rng: Random,
        random_bytes: Callable[[int], bytes],
        datagrams: Datagrams | None,
        port: int,
        hint: Callable[[PeerHint], None],
        host: KeeperHost,
        observer: bool = False,
    ) -> None:
        self.me = identity.node_id
        self._fleet = identity.fleet
        self._book = book
        self._clock = clock
        self._wall_s = wall_s
        self._datagrams = datagrams
        self._port = port
        self._hint = hint
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._keys = DatagramKeys(self.me, identity.fleet, boot, random_bytes(32))
        self._where = self._look_around()
        notary = DeviceNotary(
            identity.key, identity.fleet, boot, exchange=self._keys.public, where=lambda: (port, self._where)
        )
        self.machine = Membership(self.me, config, rng, notary, now_s=clock.boot_s(), observer=observer)
        self._routes: dict[NodeId, _Route] = {}
        self._peers: dict[NodeId, _Peer] = {}
        self._linked: set[NodeId] = set()
        self._facts: dict[NodeId, MemberFacts] = {}
        self._told_facts: MemberFacts | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = math.inf
        self._digest = (_NO_LISTS, -math.inf)
        self._closed = False
        self.duplicates: dict[NodeId, float] = {}
        """Identities that two devices use -> when that was last seen."""
        self.dropped: Counter[str] = Counter()
        """Datagrams and items that were dropped, by reason; the reasons are ours."""
        self.sent = 0
        self.sent_bytes = 0
        """Datagrams; what links carry they count themselves."""
        if datagrams is not None:
            datagrams.listen(self._datagram)
        self._arm()

    # ---- what the links tell

    def link_up(self, peer: NodeId, boot: bytes, host: str) -> None:
        """A link is open and its Hello accepted."""
        self._linked.add(peer)
        route = self._routes.setdefault(peer, _Route())
        route.link_host = host
        route.unanswered = 0
        self._feed(LinkOpened(peer=peer, boot=boot))

    def link_down(self, peer: NodeId, why: LinkClosed) -> None:
        """The link is gone."""
        if peer not in self._linked:
            return
        self._linked.discard(peer)
        if why is not LinkClosed.AGED:
            self._feed(LinkLost(peer=peer, gone=why is LinkClosed.RESET))
        if self.machine.roster.get(peer) is None:
            self._forget(peer)

    def heard(self, peer: NodeId) -> None:
        """Something that it signed has arrived over the link."""
        if self.machine.awaits(peer):  # asked for every frame, and nearly always no
            self._feed(SignOfLife(peer=peer))

    def message(self, peer: NodeId, message: MembershipMessage) -> None:
        """A message of membership over the link."""
        self._message(peer, message.kind, message.body, Path.LINK)

    def credential_ended(self, peer: NodeId) -> None:
        """It may speak no more."""
        self._forget(peer)
        self._feed(CredentialEnded(peer=peer))

    # ---- what the node does

    def set_profile(self, profile: Profile) -> None:
        """Spread what this node offers and how it is, where that changed."""
        facts = facts_of(profile)
        if facts != self._told_facts:
            self._told_facts = facts
            self._feed(StateSet(body=write_facts(facts)))

    def leave(self) -> None:
        """Say goodbye to everybody."""
        self._feed(LeaveRequested())
        self.close()

    def close(self) -> None:
        """Do nothing more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # ---- looking

    def members(self) -> list[MemberView]:
        """All that is known, by id."""
        now_s = self._clock.boot_s()
        views = []
        for member in sorted(self.machine.roster, key=lambda one: one.node):
            route = self._routes.get(member.node)
            until_s = self.machine.suspect_until_s(member.node)
            views.append(
                MemberView(
                    node=member.node,
                    state=member.state,
                    since_s=member.since_s,
                    incarnation=member.record.incarnation,
                    accusers=tuple(member.accusations),
                    faulty_in_s=None if until_s is None else max(0.0, until_s - now_s),
                    addresses=member.record.addresses,
                    port=member.record.port,
                    facts=self._facts.get(member.node),
                    by_datagram=route is not None and route.proven is not None and route.unanswered < SILENT_AFTER,
                )
            )
        return views

    def state_of(self, node: NodeId) -> MemberState | None:
        """The state of one member; None: not known."""
        member = self.machine.roster.get(node)
        return None if member is None else member.state

    def suspected_since_s(self, node: NodeId) -> float:
        """When the last suspicion of `node` began."""
        member = self.machine.roster.get(node)
        return -math.inf if member is None else member.suspect_from_s

    @property
    def linked_without_datagrams(self) -> int:
        """Linked members that never answered a datagram although some were sent: UDP is filtered, for `doctor`."""
        return sum(
            1
            for peer in self._linked
            if (route := self._routes.get(peer)) is not None
            and route.proven is None
            and route.unanswered >= SILENT_AFTER
        )

    # ---- in

    def _datagram(self, host: str, port: int, data: bytes) -> None:
        if self._closed:
            return
        try:
            opened = self._keys.open(data)
        except DatagramError as error:
            self.dropped[error.reason] += 1
            return
        peer = opened.peer
        if isinstance(self._book.speaker(public_key_of(peer), now_s=self._now_wall_s()), CertificateFault):
            self.dropped["credential"] += 1
            return
        if opened.kind in wire.LINK_ONLY:
            self.dropped["shape"] += 1
            return
        route = self._routes.get(peer)
        if route is not None:
            route.unanswered = 0
            if port == route.port and route.claims(host):
                route.proven = host
        self._message(peer, opened.kind, opened.body, Path.DATAGRAM)

    def _message(self, peer: NodeId, kind: int, body: bytes, path: Path) -> None:
        if self._closed:
            return
        try:
            message, revocations, room_bytes = wire.decode(kind, body)
        except EnvelopeError:
            self.dropped["shape"] += 1
            return
        if isinstance(message, Ping | Ack | Gossip):
            for item in message.items:
                self._item(peer, item)
        if revocations and revocations != self._revocations():
            self._offer(peer)
        self._feed(MessageHeard(peer=peer, message=message, path=path, room_bytes=room_bytes))

    def _budget(self, peer: NodeId, now_s: float) -> _Peer:
        found = self._peers.get(peer)
        if found is None:
            found = self._peers[peer] = _Peer(now_s)
        return found

    def _item(self, via: NodeId, data: bytes) -> None:
        """Check one item that is news, and hand it to the machine."""
        now_s = self._clock.boot_s()
        machine = self.machine
        try:
            claim = parse(data)
            if isinstance(claim, ClaimedRecord):
                if machine.is_news_record(claim.node, claim.boot, claim.order):
                    self._record(via, claim, now_s)
                return
            if isinstance(claim, ClaimedAccusation):
                subject = machine.is_news_accusation(claim.accuser, claim.prefix, claim.incarnation)
                if subject is not None and self._may_speak(claim.accuser) and self._may_check(via, now_s):
                    accusation = verify_accusation(claim, subject, self._fleet)
                    self._feed(ItemChecked(item=accusation, via=via))
                return
            if not machine.is_news_state(claim.node, claim.order, now_s):
                return
            if self._may_speak(claim.node) and self._may_check(via, now_s):
                self._feed(ItemChecked(item=verify_state(claim, self._fleet), via=via))
        except (EnvelopeError, BadSignatureError, ValueError) as error:
            # the one who brought it checked it before passing it on, or lies
            self.dropped["forged" if isinstance(error, BadSignatureError) else "shape"] += 1

    def _may_check(self, via: NodeId, now_s: float) -> bool:
        if self._budget(via, now_s).checks.take(1.0, now_s):
            return True
        self.dropped["too_many"] += 1
        return False

    def _may_speak(self, node: NodeId) -> bool:
        return not isinstance(self._book.speaker(public_key_of(node), now_s=self._now_wall_s()), CertificateFault)

    def _record(self, via: NodeId, claim: ClaimedRecord, now_s: float) -> None:
        speaker = self._book.speaker(public_key_of(claim.node), now_s=self._now_wall_s())
        if isinstance(speaker, CertificateFault) and speaker is not CertificateFault.UNKNOWN:
            self.dropped["credential"] += 1
            return
        if not self._may_check(via, now_s):
            return
        record = verify_record(claim, self._fleet)
        if isinstance(speaker, CertificateFault):
            # Never met: its credential comes with its Hello. Until then it is somewhere to knock, and no member.
            if not record.left and self._budget(via, now_s).hints.take(1.0, now_s):
                self._hint_at(record)
            return
        if record.node != self.me:
            verdict = self._host.judge_boot(record.node, record.boot, speaker.generation)
            if verdict is BootVerdict.DUPLICATE:
                self._duplicate(record.node)
            if verdict not in (BootVerdict.PRESENT, BootVerdict.NEW):
                self.dropped["boot"] += 1
                return
        self._feed(ItemChecked(item=record, via=via))

    # ---- the machine

    def _feed(self, event: Input) -> None:
        if self._closed:
            return
        self._carry_out(self.machine.handle(event, now_s=self._clock.boot_s()))
        self._arm()

    def _carry_out(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Say):
                self._say(effect)
            elif isinstance(effect, MemberChanged):
                self._changed(effect)
            elif isinstance(effect, RecordLearned):
                self._learned(effect.record)
            elif isinstance(effect, StateLearned):
                facts = read_facts(effect.record.body)
                if facts is not None:
                    self._facts[effect.record.node] = facts
            else:
                assert isinstance(effect, DuplicateIdentity)
                self._duplicate(effect.node)

    def _changed(self, change: MemberChanged) -> None:
        if change.state is None:
            self._forget(change.node)
        elif change.state is MemberState.ALIVE and change.node not in self._linked:
            member = self.machine.roster.get(change.node)
            if member is not None:
                self._hint_at(member.record)
        log.info(
            "member %s is %s (%s)%s",
            change.node[:8],
            "forgotten" if change.state is None else change.state.value,
            change.why,
            f", accused by {', '.join(one[:8] for one in change.accusers)}" if change.accusers else "",
        )
        self._host.member_changed(change)

    def _learned(self, record: MemberRecord) -> None:
        route = self._routes.setdefault(record.node, _Route())
        if (route.addresses, route.port) != (record.addresses, record.port):
            route.addresses, route.port = record.addresses, record.port
            route.proven = None
            route.next = 0
        if record.left:
            self._keys.forget(record.node)
            return
        try:
            self._keys.share(record.node, record.boot, record.exchange)
        except IdentityError as error:
            log.warning("no datagrams with %s: %s", record.node[:8], error)
            self.dropped["exchange_key"] += 1
        if record.node not in self._linked:
            self._hint_at(record)

    def _forget(self, node: NodeId) -> None:
        self._keys.forget(node)
        self._facts.pop(node, None)
        if node not in self._linked:
            self._routes.pop(node, None)
            self._peers.pop(node, None)

    def _duplicate(self, node: NodeId) -> None:
        known = node in self.duplicates
        if len(self.duplicates) >= MAX_DUPLICATES and not known:
            self.duplicates.clear()
        self.duplicates[node] = self._clock.boot_s()
        if not known:
            log.error("two devices use the identity %s: usually a copied disk", node[:8])
            self._host.duplicate_found(node)

    def _hint_at(self, record: MemberRecord) -> None:
        if record.node == self.me:
            return
        for address in record.addresses:
            if is_usable(address, self._where):
                self._hint(PeerHint(host=address, port=record.port, source=HintSource.PEER, peer=record.node))

    # ---- out

    def _say(self, say: Say) -> None:
        kind, body = wire.encode(say.message, self._revocations())
        if say.path is Path.DATAGRAM and self._by_datagram(say.to, kind, body):
            return
        if say.to in self._linked:
            self._host.say_membership(say.to, MembershipMessage(kind=kind, body=body))

    def _by_datagram(self, to: NodeId, kind: int, body: bytes) -> bool:
        """Send a datagram if there is a key and an address, and somebody who answers."""
        route = self._routes.get(to)
        if self._datagrams is None or route is None or not self._keys.has(to):
            return False
        if kind == wire.PING:
            route.unanswered += 1
        if to in self._linked and route.unanswered > SILENT_AFTER and route.unanswered % TRY_AGAIN_EVERY:
            return False
        host = self._address(route)
        if host is None:
            return False
        data = self._keys.seal(to, kind, body)
        self.sent += 1
        self.sent_bytes += len(data)
        self._datagrams.send(host, route.port, data)
        return True

    def _address(self, route: _Route) -> str | None:
        if not route.port:
            return None
        if route.proven is not None:
            return route.proven
        if route.link_host:
            return route.link_host
        now_s = self._clock.boot_s()
        usable = [one for one in route.addresses if is_usable(one, self._where)]
        if not usable or now_s < route.unproven_s + UNPROVEN_PAUSE_S:
            return None
        route.unproven_s = now_s
        route.next += 1
        return usable[route.next % len(usable)]

    def _offer(self, peer: NodeId) -> None:
        now_s = self._clock.boot_s()
        budget = self._budget(peer, now_s)
        if peer in self._linked and now_s >= budget.offered_s + OFFER_PAUSE_S:
            budget.offered_s = now_s
            self._host.offer_revocations(peer)

    def _revocations(self) -> bytes:
        digest, at_s = self._digest
        now_s = self._clock.boot_s()
        if now_s >= at_s + DIGEST_FRESH_S:
            notices = sorted(self._book.notices())
            digest = _NO_LISTS
            if notices:
                digest = hashlib.blake2b(b"".join(notices), digest_size=wire.REVOCATIONS_BYTES).digest()
            self._digest = (digest, now_s)
        return digest

    # ---- time

    def _now_wall_s(self) -> float:
        return self._wall_s(self._clock.boot_s())

    def _look_around(self) -> tuple[str, ...]:
        return tuple(self._datagrams.local_addresses()) if self._datagrams is not None else ()

    def _arm(self) -> None:
        due_s = self.machine.next_deadline_s()
        if due_s is None or self._closed:
            return
        if self._timer is not None:
            if self._timer_at_s == due_s:
                return
            self._timer.cancel()
        self._timer_at_s = due_s
        wait_s = max(0.0, due_s - self._clock.boot_s())
        self._timer = self._loop.call_later(wait_s, self._due)

    def _due(self) -> None:
        self._timer = None
        self._feed(TimePassed())

    def watched(self) -> Mapping[NodeId, Sequence[str]]:
        """Where each member is written to, for people and tests."""
        return {
            node: tuple(filter(None, (route.proven, route.link_host, *route.addresses)))
            for node, route in self._routes.items()
        }


def is_usable(host: str, own: Sequence[str]) -> bool:
    """May an address of a record be written to? Never multicast or none; loopback only from loopback."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    if ip.is_multicast or ip.is_unspecified or host == "255.255.255.255":
        return False
    return not ip.is_loopback or any(ipaddress.ip_address(one).is_loopback for one in own)
