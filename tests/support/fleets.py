"""Fleets in memory, and pairs of devices that talk through a gate: no socket, no file, a clock that stands still."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from meshagent.identity.book import CredentialBook
from meshagent.identity.credential import DEFAULT_MAY
from meshagent.identity.device import CredentialFile, DeviceIdentity
from meshagent.identity.envelope import Outgoing, SealedBatch, SealedMessage, Sealer, make_boot
from meshagent.identity.fleet import FleetAuthority
from meshagent.identity.gate import Gate, GateLimits, LinkMessage, RejectReason, VerifiedMessage
from meshagent.identity.join import JoinRequest
from meshagent.identity.keys import DeviceKey
from meshagent.types import NodeId

NOW_S = 1_800_000_000.0
WALL_MS = int(NOW_S * 1000)
HLC = WALL_MS << 16
DEFERRED_TYPE = 9
GENEROUS = GateLimits(
    link_messages_burst=1e9,
    sender_messages_burst=1e9,
    link_signatures_burst=1e9,
    signatures_burst=1e9,
)


def key_of(name: str) -> DeviceKey:
    """Always the same key for a name."""
    return DeviceKey(hashlib.sha256(name.encode()).digest())


def authority(name: str = "plant") -> FleetAuthority:
    """Always the same fleet for a name."""
    return FleetAuthority.in_memory(name, now_s=NOW_S, seed=hashlib.sha256(b"fleet " + name.encode()).digest())


def admit(
    fleet: FleetAuthority,
    name: str,
    *,
    may: Sequence[str] = DEFAULT_MAY,
    now_s: float = NOW_S,
    lifetime_days: float = 365,
) -> DeviceIdentity:
    """Admit the device `name`, or renew it."""
    key = key_of(name)
    file = fleet.admit(
        JoinRequest.create(key, name=name), now_s=now_s, may=may, lifetime_days=lifetime_days, accept_clock=True
    )
    return DeviceIdentity.from_file(key, CredentialFile.from_bytes(file.to_bytes()), now_s=now_s)


def decode(kind: int, payload: bytes) -> object:
    """A decoder that refuses what starts with `!`."""
    if payload.startswith(b"!"):
        raise ValueError("not readable")
    return (kind, payload)


@dataclass
class Device:
    """A device with everything it needs to seal."""

    identity: DeviceIdentity
    boot: bytes
    sealer: Sealer

    @property
    def id(self) -> NodeId:
        return self.identity.node_id

    def seal(self, *messages: Outgoing, hlc: int = HLC) -> SealedBatch:
        return self.sealer.seal(messages, hlc)

    def say(self, to: NodeId | None, payload: bytes = b"hi", *, kind: int = 1, ttl_ms: int = 1000) -> SealedBatch:
        return self.seal(Outgoing(to, kind, ttl_ms, payload))


def device(fleet: FleetAuthority, name: str, *, counter: int = 1, randomness: bytes = b"r" * 8) -> Device:
    identity = admit(fleet, name)
    boot = make_boot(counter, randomness)
    return Device(identity, boot, Sealer(identity.key, identity.fleet, boot))


@dataclass
class Receiver:
    """A gate, and what it let through."""

    identity: DeviceIdentity
    book: CredentialBook
    gate: Gate
    now_s: float = 0.0
    wall_ms: int = WALL_MS
    admitted: list[VerifiedMessage | LinkMessage] = field(default_factory=list)

    @property
    def id(self) -> NodeId:
        return self.identity.node_id

    def take(self, link_peer: NodeId, *batches: SealedBatch) -> list[VerifiedMessage | LinkMessage]:
        out = self.gate.admit(link_peer, batches, now_s=self.now_s, wall_ms=self.wall_ms)
        self.admitted += out
        return out

    def rejected(self) -> dict[RejectReason, int]:
        """Counts by reason, over all peers."""
        sums: dict[RejectReason, int] = {}
        for (reason, _), count in self.gate.rejections.items():
            sums[reason] = sums.get(reason, 0) + count
        return sums


def receiver(
    fleet: FleetAuthority, name: str, *knows: Device, limits: GateLimits = GENEROUS, accept_relayed: bool = False
) -> Receiver:
    """A device with a gate that has met `knows`."""
    identity = admit(fleet, name)
    book = identity.open_book(now_s=NOW_S)
    for known in knows:
        book.learn(known.identity.credential.der, now_s=NOW_S)
    gate = Gate(
        identity.node_id,
        book,
        decode,
        now_s=0.0,
        deferred=frozenset({DEFERRED_TYPE}),
        limits=limits,
        accept_relayed=accept_relayed,
    )
    return Receiver(identity, book, gate)


def altered(batch: SealedBatch, at: int = 0, **changes: object) -> SealedBatch:
    """The batch with fields of one message exchanged."""
    messages = list(batch.messages)
    messages[at] = messages[at]._replace(**changes)  # type: ignore[arg-type]
    return SealedBatch(batch.proof, messages)


def only(batch: SealedBatch, *which: int) -> SealedBatch:
    """Some messages of a batch, as one link carries them."""
    return SealedBatch(batch.proof, [batch.messages[at] for at in which])


def forged(batch: SealedBatch, proof: bytes, message: SealedMessage | None = None) -> SealedBatch:
    return SealedBatch(proof, [message] if message is not None else batch.messages)
