"""The gate: bytes come in, verified messages come out or nothing does.

Checks stand in order of cost, so that what is cheap to refuse is refused before anything is hashed or verified, and no
reply of any kind is made. Every refusal is counted by reason and by the peer at the other end of the link, which TLS
has proved and which is charged for what it brings, whoever it claims to relay.

`VerifiedMessage` can be made by the gate alone. `LinkMessage` is what a direct peer said of a kind that is mostly
thrown away (losing proposals): decoded, its link known, its signature not yet checked. `verify()` checks it when it is
about to matter.

Source: SECURITY-DESIGN 2.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from types import MappingProxyType
from typing import Final, final

from meshagent.core.clock import MERGE_AHEAD_MS, RESERVE_MS
from meshagent.errors import EnvelopeError, IdentityError
from meshagent.identity.book import CredentialBook
from meshagent.identity.buckets import Bucket
from meshagent.identity.credential import CertificateFault, Credential
from meshagent.identity.envelope import (
    BROADCAST,
    HEADER_BYTES,
    MAX_LEAVES,
    MAX_PAYLOAD_BYTES,
    MAX_TTL_MS,
    MIN_READER,
    PROOF_BYTES,
    STATEMENT_BYTES,
    SealedBatch,
    SealedMessage,
    leaf_prefix,
    path_bytes,
    read_header,
    read_proof_head,
    root_from,
    signature_holds,
    statement,
    statement_prefix,
)
from meshagent.identity.keys import SIGNATURE_BYTES, Tag
from meshagent.identity.replay import BROADCASTS, DIRECT, BootVerdict, ReplayTable, SenderState
from meshagent.types import BOOT_BYTES, NodeId, public_key_of

MAX_FRAME_MESSAGES: Final = 256
MAX_FRAME_BYTES: Final = 256 * 1024
"""Headers and paths not counted: what a frame may hold (SECURITY-DESIGN 1)."""
SLACK_MS: Final = 2000
"""Offsets are measured by a Hello whose way took time, and clocks drift until the next one."""
MAX_AHEAD_MS: Final = SLACK_MS + RESERVE_MS + MERGE_AHEAD_MS
"""A stamp may lie ahead of ours by so much, after the sender's measured offset: a hybrid clock runs ahead of its own
device by what it reserved before a crash and by what it merged. The window holds against replays all the while."""
MAX_VERIFIED: Final = 4096
MAX_VERIFIED_A_SENDER: Final = 64
"""Verified statements remembered: a sender's tick reaches us over one link, or two when relayed; 64 ticks are 0.3 s of
the busiest sender."""
MAX_EQUIVOCATIONS: Final = 64
"""Devices caught. One proof a device is enough to revoke it."""
MAX_REJECTION_ROWS: Final = 2048
OTHERS: Final = NodeId("others")
"""Under whom rejections are counted once there are `MAX_REJECTION_ROWS` rows."""

Decoder = Callable[[int, bytes], object]
"""(type, payload) -> body. Raises EnvelopeError or ValueError for anything that it does not read."""
Authorizer = Callable[[Credential, int, object], bool]
"""(sender's credential, type, body): may this sender say this at all? Whether now, the machines know."""


class RejectReason(StrEnum):
    """Why the gate dropped something; counted, shown by `status`, never sent to anybody."""

    LINK_BUDGET = "link_budget"
    SENDER_BUDGET = "sender_budget"
    SIGNATURE_BUDGET = "signature_budget"
    FRAME = "frame"
    """More messages or bytes than a frame may hold."""
    SHAPE = "shape"
    """A length, index or path is not what it must be."""
    VERSION = "version"
    NOT_FOR_US = "not_for_us"
    RELAYED = "relayed"
    """The sender is not the link's peer, and this gate takes no relayed messages."""
    UNKNOWN_SENDER = "unknown_sender"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    REVOKED = "revoked"
    OLD_BOOT = "old_boot"
    DUPLICATE_IDENTITY = "duplicate_identity"
    BOOT_JUMP = "boot_jump"
    REPLAYED = "replayed"
    STALE = "stale"
    FUTURE = "future"
    SIGNATURE = "signature"
    EQUIVOCATION = "equivocation"
    """A second signed statement for one batch number."""
    MALFORMED = "malformed"
    """The payload does not decode."""
    FORBIDDEN = "forbidden"
    """The sender may not say this."""
    TABLE_FULL = "table_full"


_OF_FAULT: Final = {
    CertificateFault.UNKNOWN: RejectReason.UNKNOWN_SENDER,
    CertificateFault.REVOKED: RejectReason.REVOKED,
    CertificateFault.EXPIRED: RejectReason.EXPIRED,
    CertificateFault.NOT_YET_VALID: RejectReason.NOT_YET_VALID,
}
_OF_VERDICT: Final = {
    BootVerdict.OVER: RejectReason.OLD_BOOT,
    BootVerdict.DUPLICATE: RejectReason.DUPLICATE_IDENTITY,
    BootVerdict.JUMP: RejectReason.BOOT_JUMP,
}
_path_bytes: Callable[[int, int], int] = lru_cache(maxsize=4096)(path_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateLimits:
    """Rates a second with the bursts above them. A message costs about 10 us, a signature check 55."""

    link_messages: float = 20_000
    link_messages_burst: float = 10_000
    sender_messages: float = 20_000
    sender_messages_burst: float = 10_000
    """Of one sender over all links, charged after the signature held: nobody can spend another's."""
    link_signatures: float = 2_000
    link_signatures_burst: float = 1_000
    """A tenth of a core. A well-behaved peer signs once a frame, which is some hundreds a second."""
    signatures: float = 6_000
    signatures_burst: float = 3_000
    """All links together: a third of a core, so that a crowd of forgers leaves the node working."""


@dataclass(frozen=True, slots=True)
class Equivocation:
    """Two statements of one device for one (boot, batch), each signed: proof that it says different things to
    different peers, or that its key is used twice."""

    sender: NodeId
    first: bytes
    """`STATEMENT_BYTES` signed, `SIGNATURE_BYTES` of signature."""
    second: bytes

    def holds(self, fleet: bytes) -> bool:
        """Does this prove what it says, to somebody who trusts nobody? Pure."""
        try:
            prefix = Tag.BATCH.value + fleet + public_key_of(self.sender)
        except ValueError:
            return False
        if len(self.first) != STATEMENT_BYTES + SIGNATURE_BYTES or len(self.second) != len(self.first):
            return False
        one, two = self.first[:STATEMENT_BYTES], self.second[:STATEMENT_BYTES]
        place = len(prefix) + BOOT_BYTES + 8
        return (
            one != two
            and one[:place] == two[:place]
            and one.startswith(prefix)
            and all(
                signature_holds(public_key_of(self.sender), both[:STATEMENT_BYTES], both[STATEMENT_BYTES:])
                for both in (self.first, self.second)
            )
        )


@final
class VerifiedMessage:
    """A message whose sender, integrity, freshness and permission hold. The gate alone makes these."""

    __slots__ = ("body", "boot", "hlc", "proof", "sealed", "sender", "seq", "to", "type")
    sender: NodeId
    boot: bytes
    seq: int
    type: int
    body: object
    hlc: int
    to: bytes
    """The full recipient: our own key or `BROADCAST`."""
    proof: bytes
    sealed: SealedMessage
    """With `proof` and `to`: what shows the message to a third party."""

    def __init__(self) -> None:
        raise TypeError("only the gate makes verified messages")

    def verify(self) -> bool:
        """True: it was verified already (`Evidence` of the contract net)."""
        return True

    def __repr__(self) -> str:
        return f"VerifiedMessage({self.sender[:8]} seq {self.seq} type {self.type})"


@final
class LinkMessage:
    """What the peer at the other end of a link said, its signature not yet checked: never stored, relayed, shown or
    acted on before `verify()`."""

    __slots__ = (
        "_checked",
        "_gate",
        "_verified",
        "body",
        "boot",
        "hlc",
        "proof",
        "sealed",
        "sender",
        "seq",
        "to",
        "type",
    )
    sender: NodeId
    boot: bytes
    seq: int
    type: int
    body: object
    hlc: int
    to: bytes
    proof: bytes
    sealed: SealedMessage
    _gate: Gate
    _checked: bool
    _verified: VerifiedMessage | None

    def __init__(self) -> None:
        raise TypeError("only the gate makes link messages")

    def verify(self) -> bool:
        """Check the signature now, once; a forgery is counted."""
        return self.verified() is not None

    def verified(self) -> VerifiedMessage | None:
        """The same message as a verified one; None: the signature does not hold, or the sender was revoked since."""
        if not self._checked:
            self._checked = True
            self._verified = self._gate._upgrade(self)
        return self._verified

    def __repr__(self) -> str:
        return f"LinkMessage({self.sender[:8]} seq {self.seq} type {self.type})"


class _LinkState:
    __slots__ = ("key", "messages", "peer", "signatures")

    def __init__(self, peer: NodeId, limits: GateLimits, now_s: float) -> None:
        self.peer = peer
        self.key = public_key_of(peer)
        self.messages = Bucket(limits.link_messages, limits.link_messages_burst, now_s)
        self.signatures = Bucket(limits.link_signatures, limits.link_signatures_burst, now_s)


class _Prefixes:
    """What leaves and statements of one boot of a sender start with."""

    __slots__ = ("boot", "leaf", "statement")

    def __init__(self, fleet: bytes, sender: bytes, boot: bytes) -> None:
        self.boot = boot
        self.leaf = leaf_prefix(fleet, sender, boot)
        self.statement = statement_prefix(fleet, sender, boot)


class Gate:
    """One for each node. Not safe for threads."""

    def __init__(
        self,
        node_id: NodeId,
        book: CredentialBook,
        decode: Decoder,
        *,
        now_s: float,
        replay: ReplayTable | None = None,
        deferred: frozenset[int] = frozenset(),
        authorize: Authorizer | None = None,
        accept_relayed: bool = False,
        limits: GateLimits | None = None,
    ) -> None:
        """Guard the node `node_id` of the fleet of `book`.

        Args:
            node_id: this node.
            book: who is known and current.
            decode: from type and payload to a body.
            now_s: CLOCK_BOOTTIME seconds, as in every later call.
            replay: what was seen; loaded from the journal after a restart.
            deferred: types that become `LinkMessage` when their sender is the link's peer.
            authorize: may this sender say this.
            accept_relayed: take messages whose sender is not the link's peer.
            limits: rates.
        """
        self.replay = replay if replay is not None else ReplayTable()
        self.equivocations: dict[NodeId, Equivocation] = {}
        """One proof for each device caught; at most `MAX_EQUIVOCATIONS`."""
        self.signatures_checked = 0
        """Ed25519 checks made, failed ones too: what batches save shows here."""
        self._key = public_key_of(node_id)
        self._fleet = book.trust.fleet
        self._book = book
        self._decode = decode
        self._deferred = deferred
        self._authorize = authorize
        self._accept_relayed = accept_relayed
        self._limits = limits if limits is not None else GateLimits()
        self._signatures = Bucket(self._limits.signatures, self._limits.signatures_burst, now_s)
        self._links: dict[NodeId, _LinkState] = {}
        self._senders: dict[bytes, Bucket] = {}
        self._prefixes: dict[bytes, _Prefixes] = {}
        # Sender -> (boot, batch) -> signed statement and signature: both maps in order of use.
        self._verified: OrderedDict[bytes, OrderedDict[bytes, bytes]] = OrderedDict()
        self._verified_count = 0
        self._rejections: dict[tuple[RejectReason, NodeId], int] = {}

    @property
    def rejections(self) -> Mapping[tuple[RejectReason, NodeId], int]:
        """How often what was dropped, by reason and by the peer at the other end of the link."""
        return MappingProxyType(self._rejections)

    def reject(self, reason: RejectReason, peer: NodeId, count: int = 1) -> None:
        """Count a refusal; also for the parser of frames in front of the gate."""
        key = (reason, peer)
        if key not in self._rejections and len(self._rejections) >= MAX_REJECTION_ROWS:
            key = (reason, OTHERS)
        self._rejections[key] = self._rejections.get(key, 0) + count

    def admit(
        self, link_peer: NodeId, batches: Sequence[SealedBatch], *, now_s: float, wall_ms: int
    ) -> list[VerifiedMessage | LinkMessage]:
        """What of a frame may be acted on, in order. Never raises for what a peer sent.

        Args:
            link_peer: whom TLS proved at the other end.
            batches: the frame's contents.
            now_s: CLOCK_BOOTTIME seconds, for budgets.
            wall_ms: this node's hybrid clock, its physical part.
        """
        admitted: list[VerifiedMessage | LinkMessage] = []
        link = self._links.get(link_peer)
        if link is None:
            link = self._links[link_peer] = _LinkState(link_peer, self._limits, now_s)
        count = 0
        size = 0
        for batch in batches:
            count += len(batch.messages) or 1
            for message in batch.messages:
                size += len(message.payload)
        if not link.messages.take(count, now_s):
            self.reject(RejectReason.LINK_BUDGET, link_peer, count)
        elif count > MAX_FRAME_MESSAGES or size > MAX_FRAME_BYTES:
            self.reject(RejectReason.FRAME, link_peer, count)
        else:
            for batch in batches:
                self._admit_batch(link, batch, now_s, wall_ms, admitted)
        return admitted

    def _admit_batch(
        self,
        link: _LinkState,
        batch: SealedBatch,
        now_s: float,
        wall_ms: int,
        admitted: list[VerifiedMessage | LinkMessage],
    ) -> None:
        proof, messages = batch
        peer = link.peer
        everything = len(messages) or 1
        if len(proof) != PROOF_BYTES or not messages:
            return self.reject(RejectReason.SHAPE, peer, everything)
        sender, boot, number, hlc, leaves = read_proof_head(proof)
        if not len(messages) <= leaves <= MAX_LEAVES:
            return self.reject(RejectReason.SHAPE, peer, everything)
        direct = sender == link.key
        if not direct and not self._accept_relayed:
            return self.reject(RejectReason.RELAYED, peer, everything)
        credential = self._book.speaker(sender, now_s=wall_ms / 1000)
        if isinstance(credential, CertificateFault):
            return self.reject(_OF_FAULT[credential], peer, everything)
        state = self.replay.get(sender)
        age_ms = wall_ms - (hlc >> 16)
        if state is not None and state.boot == boot:
            age_ms -= state.offset_ms
        else:
            verdict = self.replay.judge(sender, boot, credential.generation)
            if verdict is not BootVerdict.NEW:
                return self.reject(_OF_VERDICT[verdict], peer, everything)
            if state is not None and hlc <= state.hlc:
                return self.reject(RejectReason.REPLAYED, peer, everything)
            state = None
        if age_ms < -MAX_AHEAD_MS:
            return self.reject(RejectReason.FUTURE, peer, everything)
        prefixes = self._prefixes.get(sender)
        if prefixes is None or prefixes.boot != boot:
            prefixes = _Prefixes(self._fleet, sender, boot)
            if state is not None:
                self._prefixes[sender] = prefixes
        leaf_start = prefixes.leaf
        proved = b""
        for message in messages:
            header, to, index, path, payload = message
            # ---- shape
            if len(header) != HEADER_BYTES or not 0 <= index < leaves or len(path) != _path_bytes(index, leaves):
                self.reject(RejectReason.SHAPE, peer)
                continue
            seq, kind, min_reader, _flags, ttl_ms, length = read_header(header)
            if min_reader > MIN_READER:
                self.reject(RejectReason.VERSION, peer)
                continue
            if length != len(payload) or length > MAX_PAYLOAD_BYTES or not 0 < ttl_ms <= MAX_TTL_MS or not seq:
                self.reject(RejectReason.SHAPE, peer)
                continue
            # ---- for us, unseen, fresh
            if not to or to == self._key:
                to, window = self._key, DIRECT
            elif to == BROADCAST:
                window = BROADCASTS
            else:
                self.reject(RejectReason.NOT_FOR_US, peer)
                continue
            if state is not None and not state.fresh(window, seq):
                self.reject(RejectReason.REPLAYED, peer)
                continue
            if age_ms > ttl_ms + SLACK_MS:
                self.reject(RejectReason.STALE, peer)
                continue
            # ---- signed
            now_proved = state is None or not direct or kind not in self._deferred
            if now_proved:
                root = sha256(leaf_start + header[:16] + to + header[16:] + payload).digest()
                if leaves > 1:
                    root = root_from(root, index, leaves, path)
                if root != proved:
                    signed = statement(prefixes.statement, number, hlc, leaves, root)
                    reason = self._prove(link, credential, sender, proof, signed, now_s)
                    if reason is not None:
                        self.reject(reason, peer)
                        continue
                    proved = root
                if state is None:
                    state = self._enter(sender, boot, credential, prefixes)
                    if state is None:
                        self.reject(RejectReason.TABLE_FULL, peer)
                        continue
                if hlc > state.hlc:
                    state.hlc = hlc
            # ---- within its budget; from here on it counts as seen
            assert state is not None
            bucket = self._senders.get(sender)
            if bucket is None:
                limits = self._limits
                bucket = Bucket(limits.sender_messages, limits.sender_messages_burst, now_s)
                self._senders[sender] = bucket
            if not bucket.take(1, now_s):
                self.reject(RejectReason.SENDER_BUDGET, peer)
                continue
            state.mark(window, seq)
            # ---- readable, and the sender's to say
            try:
                body = self._decode(kind, payload)
            except (EnvelopeError, ValueError):
                self.reject(RejectReason.MALFORMED, peer)
                continue
            if self._authorize is not None and not self._authorize(credential, kind, body):
                self.reject(RejectReason.FORBIDDEN, peer)
                continue
            if now_proved:
                verified = _new_verified(VerifiedMessage)
                verified.sender = credential.peer
                verified.boot = boot
                verified.seq = seq
                verified.type = kind
                verified.body = body
                verified.hlc = hlc
                verified.to = to
                verified.proof = proof
                verified.sealed = message
                admitted.append(verified)
            else:
                said = _new_link(LinkMessage)
                said.sender = peer
                said.boot = boot
                said.seq = seq
                said.type = kind
                said.body = body
                said.hlc = hlc
                said.to = to
                said.proof = proof
                said.sealed = message
                said._gate = self
                said._checked = False
                said._verified = None
                admitted.append(said)
        if state is not None:
            self.replay.changed.add(sender)
        return None

    def _enter(self, sender: bytes, boot: bytes, credential: Credential, prefixes: _Prefixes) -> SenderState | None:
        try:
            state = self.replay.enter(sender, boot, credential.generation)
        except IdentityError:
            return None
        self._prefixes[sender] = prefixes
        return state

    def _prove(
        self, link: _LinkState | None, credential: Credential, sender: bytes, proof: bytes, signed: bytes, now_s: float
    ) -> RejectReason | None:
        """Does the sender's signature in `proof` cover `signed`? None: yes."""
        place = proof[32:56]
        both = signed + proof[66:]
        known = self._verified.get(sender)
        earlier = known.get(place) if known is not None else None
        if earlier == both:
            return None
        if link is not None and not (link.signatures.take(1, now_s) and self._signatures.take(1, now_s)):
            return RejectReason.SIGNATURE_BUDGET
        self.signatures_checked += 1
        if not signature_holds(sender, signed, proof[66:]):
            return RejectReason.SIGNATURE
        if earlier is not None and earlier[:-64] != signed:
            if credential.peer not in self.equivocations and len(self.equivocations) < MAX_EQUIVOCATIONS:
                self.equivocations[credential.peer] = Equivocation(credential.peer, earlier, both)
            return RejectReason.EQUIVOCATION
        self._remember(sender, place, both)
        return None

    def _remember(self, sender: bytes, place: bytes, both: bytes) -> None:
        known = self._verified.get(sender)
        if known is None:
            known = self._verified[sender] = OrderedDict()
        else:
            self._verified.move_to_end(sender)
        if place not in known:
            self._verified_count += 1
        known[place] = both
        if len(known) > MAX_VERIFIED_A_SENDER:
            known.popitem(last=False)
            self._verified_count -= 1
        elif self._verified_count > MAX_VERIFIED:
            idle = next(iter(self._verified))
            self._verified[idle].popitem(last=False)
            self._verified_count -= 1
            if not self._verified[idle]:
                del self._verified[idle]

    def _upgrade(self, said: LinkMessage) -> VerifiedMessage | None:
        sender = public_key_of(said.sender)
        credential = self._book.find(said.sender)
        if credential is None or credential.generation < self._book.revocations.min_generation(sender):
            self.reject(RejectReason.REVOKED, said.sender)
            return None
        proof, message = said.proof, said.sealed
        header = message.header
        _, boot, number, hlc, leaves = read_proof_head(proof)
        prefixes = self._prefixes.get(sender)
        if prefixes is None or prefixes.boot != boot:
            prefixes = _Prefixes(self._fleet, sender, boot)
        leaf = sha256(prefixes.leaf + header[:16] + said.to + header[16:] + message.payload).digest()
        root = root_from(leaf, message.leaf_index, leaves, message.path)
        signed = statement(prefixes.statement, number, hlc, leaves, root)
        # No budget: it is us who want to know, once for each award.
        reason = self._prove(None, credential, sender, proof, signed, 0.0)
        if reason is not None:
            self.reject(reason, said.sender)
            return None
        verified = _new_verified(VerifiedMessage)
        for name in VerifiedMessage.__slots__:
            setattr(verified, name, getattr(said, name))
        return verified


_new_verified: Callable[[type[VerifiedMessage]], VerifiedMessage] = object.__new__
_new_link: Callable[[type[LinkMessage]], LinkMessage] = object.__new__
