"""Sessions over links: Hello, gate, profiles, revocations, and one seal a turn over everything that may leave.

Out: `send` encodes once and queues for each link; `flush` asks every outbox what may leave now, seals all of it as one
batch (what goes to several peers is sealed once, as a broadcast) and hands each link its frame.
In: a frame -> acknowledgement, Hello, gate -> profiles and revocations are handled here, all else goes to the observer.

Absent here: sockets (`transport/`), what acts mean, the journal (the driver writes what `take_writes` gives it, in the
transaction of the effects).

Source: SECURITY-DESIGN 2, 4, 5; DESIGN 4.
"""

from __future__ import annotations

import ipaddress
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, cast

from meshagent.core.acts import RejectProposal
from meshagent.core.bodies import (
    Body,
    EventMessage,
    MembershipMessage,
    Profile,
    Rejections,
    RevocationNotice,
    StoryQuery,
    StoryReply,
)
from meshagent.core.clock import HybridClock
from meshagent.core.ports import Append, Clock, HintSource, Journal, Link, LinkClosed, PeerHint, Put, Transport
from meshagent.core.seldom import Seldom
from meshagent.identity.book import CredentialBook
from meshagent.identity.credential import CertificateFault
from meshagent.identity.device import DeviceIdentity
from meshagent.identity.envelope import MAX_LEAVES, Outgoing, SealedBatch, Sealer
from meshagent.identity.gate import Gate, GateLimits, RejectReason, VerifiedMessage
from meshagent.identity.hello import HelloAccepted, HelloRefused, HelloSession
from meshagent.identity.replay import BootVerdict, ReplayTable
from meshagent.identity.revocation import RevocationError
from meshagent.runtime.outbox import Item, Outbox, OutboxConfig
from meshagent.runtime.outbox import Put as Queued
from meshagent.runtime.ports import LinkObserver, LinkWitness, Peer
from meshagent.types import NodeId, public_key_of
from meshagent.wire import codec
from meshagent.wire.acts import rejection_bytes
from meshagent.wire.errors import DecodeError, EncodeError
from meshagent.wire.frame import frame_bytes, message_bytes, read_frame

log = logging.getLogger(__name__)

ACT_TTL_MS: Final = 10_000
"""An act that is older was overtaken: machines resend within 2 s, and leases are shorter."""
STICKY_TTL_MS: Final = 600_000
"""What is said once a link must outlast a receiver that was paused for a while."""
TELEMETRY: Final = frozenset({EventMessage, StoryQuery, StoryReply})
"""May be lost: gives way when a queue is full."""
STICKY: Final = frozenset({Profile, RevocationNotice})
DEFERRED: Final = frozenset({codec.TYPE_PROPOSE, codec.TYPE_REFUSE})
"""Losing proposals and refusals need no check beyond their link (DESIGN 4)."""
MAX_MALFORMED: Final = 16
"""Frames that cannot be read before the link is closed: somebody speaks another language, or fuzzes."""
DUPLICATE_HOLDS_S: Final = 60.0
"""After the last proof of a copy: the transport looks again three times in so long, and a copy that was switched off
need not be remembered."""
MAX_REFUSALS: Final = 256
"""Refused Hellos kept for `doctor`, the newest of each peer."""
MAX_REMEMBERED: Final = 256
"""Peers kept for the next start; the least recently seen are forgotten."""

PEERS: Final = "peers"
REPLAY: Final = "replay"
BOOK: Final = "book"
BOOK_KEY: Final = "dump"


@dataclass(frozen=True, slots=True, kw_only=True)
class LinksConfig:
    """Timing of sessions; seconds of CLOCK_BOOTTIME."""

    outbox: OutboxConfig = field(default_factory=OutboxConfig)
    gate: GateLimits = field(default_factory=GateLimits)
    greet_within_s: float = 5.0
    """A link on which no Hello was accepted after so long is closed; the transport dials anew."""
    lost_after_s: float = 2.0
    """A link that broke and did not come back counts as a lost peer after so long, where the transport could not
    tell sooner (it does not know where to dial)."""
    write_after_s: float = 1.0
    """Replay windows ride with commits; without one they are written after so long."""
    check_s: float = 5.0
    """Credentials of linked peers are looked at so often, so that expiry closes idle links too."""


class _Session:
    """One open link."""

    __slots__ = ("greet_by_s", "greeting", "heard_s", "hellos", "key", "link", "malformed", "outbox", "peer", "ready")

    def __init__(self, link: Link, outbox: Outbox, greeting: HelloSession, greet_by_s: float) -> None:
        self.link = link
        self.peer = link.peer
        self.key = public_key_of(link.peer)
        self.outbox = outbox
        self.greeting = greeting
        self.hellos: list[bytes] = []
        """To leave at the next flush, each in a frame of its own."""
        self.greet_by_s = greet_by_s
        """Closed when no Hello was accepted by then."""
        self.ready = False
        """Its Hello was accepted: it may speak, and we may."""
        self.heard_s = -math.inf
        """When its last frame arrived."""
        self.malformed = 0


class _Known:
    """A peer over several links, until it is lost."""

    __slots__ = ("announced", "boot", "lost_due_s", "profile")

    def __init__(self, boot: bytes) -> None:
        self.boot = boot
        self.profile: Profile | None = None
        self.announced = False
        self.lost_due_s = math.inf


class Links:
    """All sessions of a node. Implements `core.ports.LinkEvents`; sans timers: the driver asks `next_deadline_s`.

    Args:
        wake: asks the driver for a tick in this turn of the loop.
        observer: gets what is not handled here.
        hybrid: the clock of envelopes; received stamps are merged into it.
    """

    def __init__(
        self,
        *,
        identity: DeviceIdentity,
        book: CredentialBook,
        boot: bytes,
        transport: Transport,
        clock: Clock,
        hybrid: HybridClock,
        wall_at_zero_s: float,
        observer: LinkObserver,
        wake: Callable[[], None],
        profile: Profile,
        config: LinksConfig,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self.me: NodeId = identity.node_id
        self._identity = identity
        self._book = book
        self._boot = boot
        self._transport = transport
        self._clock = clock
        self._hybrid = hybrid
        self._wall_at_zero_s = wall_at_zero_s
        self._observer = observer
        self._wake = wake
        self._profile = profile
        self._config = config
        now_s = clock.boot_s()
        self._sealer = Sealer(identity.key, identity.fleet, boot, random_bytes=random_bytes)
        self._gate = Gate(
            self.me, book, codec.decode, now_s=now_s, replay=ReplayTable(), deferred=DEFERRED, limits=config.gate
        )
        self._random_bytes = random_bytes
        self._witness: LinkWitness | None = None
        self._seldom = Seldom()
        self._refusals: dict[NodeId, HelloRefused] = {}
        self._sessions: dict[NodeId, _Session] = {}
        self._known: dict[NodeId, _Known] = {}
        self._peers: dict[NodeId, Peer] = {}
        self.peers: Mapping[NodeId, Peer] = MappingProxyType(self._peers)
        """Linked peers that have said what they offer, or were until a moment ago."""
        self._touched: dict[NodeId, _Session] = {}
        self.unanswered: set[NodeId] = set()
        """Peers that have not acknowledged all that they were sent."""
        self._next_s = math.inf
        self._check_due_s = now_s + config.check_s
        self._write_due_s = math.inf
        self._writes: list[Put | Append] = []
        self._remembered: dict[NodeId, bytes] = {}
        self._book_dump = b""
        self.own_fault: CertificateFault | None = None
        """Why peers refuse this device: revoked, expired. Looked at as often as theirs."""
        self.duplicated_until_s = -math.inf
        """Until then a proof holds that another process uses this device's key."""
        self.frames_out = 0
        self.frames_in = 0
        self.messages_out = 0
        self.messages_in = 0
        self.seals = 0
        """For benchmarks and `status`."""

    def attach(self, witness: LinkWitness) -> None:
        """Tell membership of links from now on, and of those that are open already."""
        self._witness = witness
        for peer, session in list(self._sessions.items()):
            known = self._known.get(peer)
            if session.ready and known is not None:
                witness.link_up(peer, known.boot, _host_of(session.link.address))

    # ---- the journal's share

    def restore(self, journal: Journal) -> None:
        """Take back what was seen, who was known and where they lived.

        Raises:
            IdentityError: a row is damaged.
        """
        for row in journal.load(REPLAY).values():
            self._gate.replay.load(row)
        memory = journal.load(BOOK).get(BOOK_KEY)
        if memory is not None:
            self._book.load(memory)
            self._book_dump = memory
        self._remembered = {NodeId(peer): raw for peer, raw in journal.load(PEERS).items()}

    def dial_remembered(self) -> None:
        """Knock where peers were met before."""
        for peer, raw in self._remembered.items():
            address = _read_address(raw)
            if address is not None:
                host, port = address
                self._transport.add_hint(PeerHint(host=host, port=port, source=HintSource.REMEMBERED, peer=peer))

    def remembered_name(self, peer: NodeId) -> str:
        """What a peer called itself when it was last met, also before this start; empty: not known."""
        raw = self._remembered.get(peer, b"")
        return raw.decode("utf-8", "replace").split(" ", 2)[2] if raw.count(b" ") >= 2 else ""

    def must_write(self, now_s: float) -> bool:
        """True where windows or memories have waited long enough for a commit of their own."""
        return self._write_due_s <= now_s

    def take_writes(self) -> list[Put | Append]:
        """What belongs into the next transaction: windows of all that was admitted so far, and what was learned."""
        writes = self._writes
        self._writes = []
        self._write_due_s = math.inf
        for sender, row in self._gate.replay.take_changed():
            writes.append(Put(REPLAY, sender.hex(), row))
        return writes

    def _write_soon(self, now_s: float) -> None:
        if self._write_due_s == math.inf:
            self._write_due_s = now_s + self._config.write_after_s

    # ---- out

    def send(self, to: tuple[NodeId, ...], body: Body, urgent: bool = True) -> None:
        """Queue `body` for whoever of `to` is linked; it leaves with the next `flush`. Others never hear of it: what
        matters is said again by the machines."""
        sessions = self._sessions
        ready = [one for one in map(sessions.get, to) if one is not None and one.ready]
        if not ready:
            return
        if type(body) is RejectProposal and not urgent:
            self._send_rejection(ready, body)
            return
        try:
            kind, payload = codec.encode(body)
        except EncodeError as error:
            # Our own value broke a bound that its maker should have kept; a peer could not read it anyway.
            log.error("not sent: %s", error)
            return
        cls = type(body)
        sticky = cls in STICKY
        item = Item(
            kind,
            payload,
            ttl_ms=STICKY_TTL_MS if sticky else ACT_TTL_MS,
            broadcast=len(ready) > 1,
            telemetry=cls in TELEMETRY,
            sticky=sticky,
        )
        now_s = 0.0 if urgent else self._clock.boot_s()
        touched = self._touched
        for session in ready:
            if session.outbox.put(item, now_s, urgent=urgent) is Queued.OVERFLOW:
                self._overflow(session)
                continue
            touched[session.peer] = session

    def _send_rejection(self, ready: list[_Session], act: RejectProposal) -> None:
        try:
            raw = rejection_bytes(act)
        except EncodeError as error:
            log.error("not sent: %s", error)
            return
        now_s = self._clock.boot_s()
        for session in ready:
            if session.outbox.ride(raw, ACT_TTL_MS, now_s) is Queued.OVERFLOW:
                self._overflow(session)
            else:
                self._touched[session.peer] = session

    def _overflow(self, session: _Session) -> None:
        self._warn("full", session.peer, "takes nothing any more, its queue is full: link closed")
        session.link.close(LinkClosed.SILENT)

    def set_profile(self, profile: Profile) -> None:
        """What this node says of itself from now on; told to everybody linked."""
        self._profile = profile
        self.send(tuple(self._sessions), profile)
        self._wake()

    def wants_seal(self, now_s: float) -> bool:
        """True where a flush now would sign something."""
        candidates = self._sessions if self._next_s <= now_s else self._touched
        return any(len(one.outbox) and one.outbox.may_send(now_s) for one in candidates.values())

    def flush(self, now_s: float, stamp: int) -> None:
        """Seal everything that may leave now under one signature and hand each link its frame."""
        if self._next_s <= now_s:
            self._touched.update(self._sessions)
            self._next_s = math.inf
            self._keep_house(now_s)
        if self._check_due_s <= now_s:
            self._check_due_s = now_s + self._config.check_s
            self._bite(now_s)
        if not self._touched:
            return
        touched = [one for one in self._touched.values() if self._sessions.get(one.peer) is one]
        self._touched.clear()
        outgoing: list[Outgoing] = []
        shared: dict[int, int] = {}
        leaving: list[tuple[_Session, list[Item], list[int]]] = []
        for session in touched:
            outbox = session.outbox
            for hello in session.hellos:
                self.frames_out += 1
                session.link.send(frame_bytes(0, outbox.received, hello, ()))
            session.hellos.clear()
            if not outbox.may_send(now_s):
                continue
            items = outbox.take(now_s, ACT_TTL_MS)
            indexes = []
            for item in items:
                if item.broadcast:
                    index = shared.get(id(item))
                    if index is None:
                        index = shared[id(item)] = len(outgoing)
                        outgoing.append(Outgoing(None, item.type, item.ttl_ms, item.payload))
                else:
                    index = len(outgoing)
                    outgoing.append(Outgoing(session.peer, item.type, item.ttl_ms, item.payload))
                indexes.append(index)
            leaving.append((session, items, indexes))
        self._hand_over(leaving, outgoing, shared, now_s, stamp)
        for session in touched:
            deadline_s = min(session.outbox.next_deadline_s(), session.greet_by_s)
            if deadline_s < self._next_s:
                self._next_s = deadline_s

    def _hand_over(
        self,
        leaving: list[tuple[_Session, list[Item], list[int]]],
        outgoing: list[Outgoing],
        shared: dict[int, int],
        now_s: float,
        stamp: int,
    ) -> None:
        batches = [
            self._sealer.seal(outgoing[at : at + MAX_LEAVES], stamp) for at in range(0, len(outgoing), MAX_LEAVES)
        ]
        self.seals += len(batches)
        everyones = frozenset(shared.values())
        cut: dict[int, bytes] = {}
        for session, items, indexes in leaving:
            parts: list[tuple[bytes, list[bytes]]] = []
            number = -1
            for index in indexes:
                if index // MAX_LEAVES != number:
                    number = index // MAX_LEAVES
                    parts.append((batches[number].proof, []))
                raw = cut.get(index)
                if raw is None:
                    raw = message_bytes(batches[number].messages[index % MAX_LEAVES], session.key)
                    if index in everyones:
                        cut[index] = raw
                parts[-1][1].append(raw)
            seq, ack, ack_soon = session.outbox.sent(items, now_s)
            if seq:
                self.unanswered.add(session.peer)
            self.frames_out += 1
            self.messages_out += len(items)
            session.link.send(frame_bytes(seq, ack, b"", parts, ack_soon))

    def next_deadline_s(self) -> float:
        """When `flush` has something to do without further input."""
        return min(self._next_s, self._write_due_s, self._check_due_s if self._sessions else math.inf)

    # ---- LinkEvents

    def link_opened(self, link: Link) -> None:
        """TLS has proved who is there; now say Hello."""
        former = self._sessions.pop(link.peer, None)
        if former is not None:
            # The transport settled on another link to the same peer; what waited there is said again.
            former.link.close(LinkClosed.AGED)
            self.unanswered.discard(link.peer)
        now_s = self._clock.boot_s()
        greeting = HelloSession(
            self._identity, self._boot, self._book, self._gate.replay, link.peer, random_bytes=self._random_bytes
        )
        session = _Session(link, Outbox(self._config.outbox), greeting, now_s + self._config.greet_within_s)
        # A Hello says the device's time, not the hybrid stamp: offsets are measured with it, and the hybrid clock may
        # run ahead of its own device by what it reserved and merged.
        session.hellos.append(greeting.first(self._hybrid.physical(now_s)))
        self._sessions[link.peer] = session
        self._touched[link.peer] = session
        known = self._known.get(link.peer)
        if known is not None:
            known.lost_due_s = math.inf
        self._wake()

    def frame_received(self, link: Link, frame: bytes) -> None:
        session = self._sessions.get(link.peer)
        if session is None or session.link is not link:
            return
        self.frames_in += 1
        session.heard_s = self._clock.boot_s()
        try:
            seq, ack, hello, batches, ack_soon = read_frame(frame)
        except DecodeError as error:
            self._malformed(session, str(error))
            return
        now_s = self._clock.boot_s()
        if not session.outbox.heard(seq, ack, now_s, ack_soon=ack_soon):
            self._malformed(session, "it acknowledges what was never sent")
            return
        if session.outbox.acked == session.outbox.seq:
            self.unanswered.discard(session.peer)
        self._touched[session.peer] = session
        if hello:
            self._hear_hello(session, hello, now_s)
        if batches:
            self._hear_batches(session, batches, now_s)
        self._wake()

    def link_closed(self, link: Link, why: LinkClosed) -> None:
        session = self._sessions.get(link.peer)
        if session is None or session.link is not link:
            return
        del self._sessions[link.peer]
        self._touched.pop(link.peer, None)
        if self._witness is not None:
            self._witness.link_down(link.peer, why)
        self.unanswered.discard(link.peer)
        known = self._known.get(link.peer)
        if known is None:
            return
        if why in (LinkClosed.GOODBYE, LinkClosed.REFUSED):
            self._lose(link.peer, why.value)
        else:
            known.lost_due_s = self._clock.boot_s() + self._config.lost_after_s
            self._next_s = min(self._next_s, known.lost_due_s)
            self._wake()

    def peer_unreachable(self, peer: NodeId, why: LinkClosed, detail: str) -> None:
        if peer not in self._sessions:
            self._lose(peer, f"{why.value}: {detail}" if detail else why.value)

    def member_faulty(self, peer: NodeId, since_s: float, why: str) -> None:
        """Membership has given `peer` up: end its link too, unless the link has shown life since the suspicion."""
        session = self._sessions.get(peer)
        if session is not None:
            if session.heard_s >= since_s:
                return
            log.warning("%s is faulty (%s): link closed", peer[:8], why)
            session.link.close(LinkClosed.SILENT)
        self._lose(peer, why)

    def judge_boot(self, peer: NodeId, boot: bytes, generation: int) -> BootVerdict:
        """What a boot of `peer` means beside the one that its messages have proved."""
        return self._gate.replay.judge(public_key_of(peer), boot, generation)

    def offer_revocations(self, peer: NodeId) -> None:
        """Tell `peer` which lists and roots this node holds."""
        for lists in self._book.notice_groups(codec.MAX_LISTS_BYTES, codec.MAX_LISTS):
            self.send((peer,), RevocationNotice(lists=lists))
        self._wake()

    def own_identity_proved(self, address: str) -> None:
        """A copy of this device is at work: no new contracts until it is gone (SECURITY-DESIGN 4).

        Only this proof counts. A peer that says in its Hello that it knows us at another boot may lie, and one lying
        member must not switch devices off; where it tells the truth it has closed its link with us, so nothing that it
        could award is taken here anyway. It is logged and shown by doctor, and that is all.
        """
        now_s = self._clock.boot_s()
        if self.duplicated_until_s <= now_s:
            log.error(
                "another device uses this device's identity (at %s), usually a copied disk: no new contracts here. "
                "On the copy only: meshagent init --new-identity",
                address,
            )
        self.duplicated_until_s = now_s + DUPLICATE_HOLDS_S

    def why_no_contracts(self) -> str | None:
        """Why this device must take no new contracts now; None: it may."""
        if self.duplicated_until_s > self._clock.boot_s():
            return "another device uses this device's identity"
        # Signed by the fleet's root or by who it named, so no single member can bring it about.
        return "this device was revoked" if self.own_fault is CertificateFault.REVOKED else None

    def _lose(self, peer: NodeId, why: str) -> None:
        known = self._known.pop(peer, None)
        self._peers.pop(peer, None)
        if known is not None and known.announced:
            self._observer.peer_lost(peer, why)

    def _malformed(self, session: _Session, detail: str) -> None:
        self._gate.reject(RejectReason.SHAPE, session.peer)
        session.malformed += 1
        if session.malformed == MAX_MALFORMED:
            self._warn("malformed", session.peer, f"sends what cannot be read ({detail}): link closed")
            session.link.close(LinkClosed.REFUSED)

    # ---- in

    def _hear_batches(self, session: _Session, batches: tuple[SealedBatch, ...], now_s: float) -> None:
        if not session.ready:
            self._gate.reject(RejectReason.UNKNOWN_SENDER, session.peer, sum(len(one.messages) for one in batches))
            return
        wall_ms = int((self._wall_at_zero_s + now_s) * 1000)
        admitted = self._gate.admit(session.peer, batches, now_s=now_s, wall_ms=wall_ms)
        if not admitted:
            return
        self.messages_in += len(admitted)
        self._write_soon(now_s)
        observer = self._observer
        peer = session.peer
        witness = self._witness
        if witness is not None:
            witness.heard(peer)
        latest = 0
        for message in admitted:
            if type(message) is VerifiedMessage and message.hlc > latest:
                latest = message.hlc
            # The gate decodes with our codec, so it is a body.
            body = cast("Body", message.body)
            if isinstance(body, Profile):
                self._hear_profile(session, body, now_s)
            elif isinstance(body, RevocationNotice):
                self._hear_notice(peer, body, now_s)
            elif isinstance(body, MembershipMessage):
                if witness is not None:
                    witness.message(peer, body)
            elif isinstance(body, Rejections):
                for act in body.acts:
                    observer.message_received(peer, act, message)
            else:
                observer.message_received(peer, body, message)
        if latest:
            self._hybrid.merge(latest, now_s)

    def _hear_profile(self, session: _Session, profile: Profile, now_s: float) -> None:
        peer = session.peer
        known = self._known.get(peer)
        if known is None:
            return
        former = known.profile
        if former is not None and profile.version < former.version:
            return
        known.profile = profile
        entry = self._peers.get(peer)
        if entry is None:
            entry = Peer(
                id=peer,
                address=session.link.address,
                since_s=now_s,
                profile=profile,
                rtt_s=None,
                clock_offset_s=None,
            )
        self._peers[peer] = replace(entry, profile=profile, address=session.link.address)
        self._remember(session, profile)
        if not known.announced:
            known.announced = True
            self._observer.peer_ready(peer)
        elif former is None or former.kinds.keys() != profile.kinds.keys():
            self._observer.peer_ready(peer)
        else:
            self._observer.peer_changed(peer)

    # ---- Hello

    def _hear_hello(self, session: _Session, raw: bytes, now_s: float) -> None:
        peer = session.peer
        wall_ms = int(self._wall_s(now_s) * 1000)
        result = session.greeting.received(raw, hlc=self._hybrid.physical(now_s), wall_ms=wall_ms)
        if isinstance(result, HelloRefused):
            self._warn(f"hello {result.reason}", peer, f"is refused at its Hello: it {result.detail}")
            self._refusals[peer] = result
            while len(self._refusals) > MAX_REFUSALS:
                del self._refusals[next(iter(self._refusals))]
            session.link.close(LinkClosed.REFUSED)
            return
        if result.answer is not None:
            session.hellos.append(result.answer)
        if isinstance(result, HelloAccepted) and not session.ready:
            self._accept(session, result, now_s)

    def _accept(self, session: _Session, hello: HelloAccepted, now_s: float) -> None:
        peer = session.peer
        self._refusals.pop(peer, None)
        self._note_book(now_s)
        self._write_soon(now_s)
        self._hybrid.merge(hello.hlc, now_s)
        known = self._known.get(peer)
        if known is not None and known.boot != hello.boot:
            # It came back as another process before anybody missed it: what the old one promised is over.
            self._lose(peer, "restarted")
            known = None
        if known is None:
            self._known[peer] = _Known(hello.boot)
        session.ready = True
        session.greet_by_s = math.inf
        self.send((peer,), self._profile)
        for lists in self._book.notice_groups(codec.MAX_LISTS_BYTES, codec.MAX_LISTS):
            self.send((peer,), RevocationNotice(lists=lists))
        if self._witness is not None:
            self._witness.link_up(peer, hello.boot, _host_of(session.link.address))

    # ---- revocation

    def merge_revocations(self, data: bytes) -> bool:
        """Take in a list from a file or a peer: bite on live links at once, spread what is new. True: it was new.

        Raises:
            RevocationError: malformed, forged, or signed by somebody who may not.
        """
        now_s = self._clock.boot_s()
        if not self._book.merge(data, now_s=self._wall_s(now_s)):
            return False
        self._note_book(now_s)
        self._bite(now_s)
        self.send(tuple(self._sessions), RevocationNotice(lists=(data,)))
        self._wake()
        return True

    def credential_renewed(self) -> None:
        """This device's credential was exchanged: links age, and the new ones are opened with it."""
        now_s = self._clock.boot_s()
        self._book.note_own(self._identity.credential)
        self._note_book(now_s)
        self._bite(now_s)
        for session in list(self._sessions.values()):
            session.link.close(LinkClosed.AGED)

    def _hear_notice(self, peer: NodeId, notice: RevocationNotice, now_s: float) -> None:
        for data in notice.lists:
            try:
                self.merge_revocations(data)
            except RevocationError as error:
                self._gate.reject(RejectReason.MALFORMED, peer)
                self._warn("list", peer, f"spreads a revocation list that does not hold: {error}")

    def _bite(self, now_s: float) -> None:
        """End what the credentials no longer allow: revoked peers are closed, forgotten, and dialled no more."""
        wall_s = self._wall_s(now_s)
        own = self._book.speaker(self._identity.key.public, now_s=wall_s)
        own_fault = own if isinstance(own, CertificateFault) else None
        if own_fault is not None and own_fault is not self.own_fault:
            log.error("this device may speak no more (%s): peers refuse it; ask the fleet's owner", own_fault.value)
        self.own_fault = own_fault
        for peer in [*self._sessions, *(one for one in self._known if one not in self._sessions)]:
            fault = self._book.speaker(public_key_of(peer), now_s=wall_s)
            if not isinstance(fault, CertificateFault) or fault is CertificateFault.UNKNOWN:
                continue  # unknown: its Hello is still on the way, and until then the gate lets nothing through
            self._warn(f"fault {fault}", peer, f"may speak no more ({fault.value}): link closed")
            session = self._sessions.pop(peer, None)
            if session is not None:
                session.link.close(LinkClosed.REFUSED)
            self._touched.pop(peer, None)
            if self._witness is not None:
                self._witness.credential_ended(peer)
            self.unanswered.discard(peer)
            if fault is CertificateFault.REVOKED:
                self._transport.forget(peer)
                if self._remembered.pop(peer, None) is not None:
                    self._writes.append(Put(PEERS, peer, None))
                    self._write_soon(now_s)
            self._lose(peer, fault.value)

    def _note_book(self, now_s: float) -> None:
        dump = self._book.dump()
        if dump != self._book_dump:
            self._book_dump = dump
            self._writes.append(Put(BOOK, BOOK_KEY, dump))
            # At once: a revocation that was heard must survive the next instant.
            self._write_due_s = min(self._write_due_s, now_s)

    # ---- small things

    def _warn(self, about: str, peer: NodeId, sentence: str) -> None:
        """Peers cause these lines, so they are said seldom."""
        more = self._seldom.may(f"{about} {peer}", self._clock.boot_s())
        if more is not None:
            log.warning("%s %s%s", peer[:8], sentence, more)

    def _keep_house(self, now_s: float) -> None:
        for session in list(self._sessions.values()):
            if session.greet_by_s <= now_s:
                self._warn("greet", session.peer, f"said no Hello for {self._config.greet_within_s:.1f} s: link closed")
                session.greet_by_s = math.inf
                session.link.close(LinkClosed.SILENT)
        for peer in [one for one, known in self._known.items() if known.lost_due_s <= now_s]:
            if peer not in self._sessions:
                self._lose(peer, "silent: no link came back")
        for peer, known in self._known.items():
            if known.lost_due_s < math.inf and peer not in self._sessions:
                self._next_s = min(self._next_s, known.lost_due_s)

    def _remember(self, session: _Session, profile: Profile) -> None:
        if profile.visitor or not profile.listen_port:
            return
        host = _host_of(session.link.address)
        if not host:
            return
        raw = f"{host} {profile.listen_port} {profile.name}".encode()
        if self._remembered.pop(session.peer, None) != raw:
            self._writes.append(Put(PEERS, session.peer, raw))
            self._write_soon(self._clock.boot_s())
        self._remembered[session.peer] = raw
        if len(self._remembered) > MAX_REMEMBERED:
            oldest = next(iter(self._remembered))
            del self._remembered[oldest]
            self._writes.append(Put(PEERS, oldest, None))

    def _wall_s(self, now_s: float) -> float:
        return self._wall_at_zero_s + now_s

    def details(self) -> Mapping[NodeId, Peer]:
        """`peers` with round trip and clock offset as of now."""
        found = {}
        for peer, entry in self._peers.items():
            session = self._sessions.get(peer)
            state = self._gate.replay.get(public_key_of(peer))
            found[peer] = replace(
                entry,
                rtt_s=None if session is None else session.outbox.rtt_s,
                clock_offset_s=None if state is None else -state.offset_ms / 1000,
            )
        return found

    @property
    def refusals(self) -> Mapping[NodeId, HelloRefused]:
        """Whose Hello was refused last, and why; cleared when it is accepted."""
        return MappingProxyType(self._refusals)

    @property
    def rejections(self) -> Mapping[tuple[RejectReason, NodeId], int]:
        """What was dropped, by reason and link."""
        return self._gate.rejections

    @property
    def signatures(self) -> tuple[int, int]:
        """How many were made, and how many checked: one a turn and peer, not one a message."""
        return self._sealer.signatures_made, self._gate.signatures_checked


def _host_of(address: str) -> str:
    """The literal address in `host:port`, `[v6]:port`, `v6` or `host`; empty where it is a note for people."""
    bracketed = address.startswith("[")
    host = address[1:].partition("]")[0] if bracketed else address
    if not bracketed and address.count(":") == 1:
        host = address.partition(":")[0]
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return ""
    return host


def _read_address(raw: bytes) -> tuple[str, int] | None:
    host, port, _name = (*raw.decode("utf-8", "replace").split(" ", 2), "", "")[:3]
    return (host, int(port)) if host and port.isdigit() and 0 < int(port) <= codec.MAX_PORT else None
