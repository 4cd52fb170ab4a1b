"""What members sign about themselves and about each other, as bytes: records, accusations, state records.

Each is signed by its owner over its tag and the fleet, so that whoever passes it on cannot alter it, and another
fleet's is worth nothing. Big endian, fixed layouts, the signature last; the fleet is signed but not sent::

    record     = 1 | flags1 | node32 | boot16 | refutation4 | exchange32 | port2 | count1 | (family1 | ip 4 or 16)*
                 | signature64                                   173 B with four IPv4 addresses
    accusation = 2 | flags1 | accuser32 | subject16 | boot counter8 | refutation4 | signature64        126 B
    state      = 3 | flags1 | node32 | boot16 | version4 | len2 | msgpack | signature64

`parse` reads and believes nothing; `verify` gives the value that the machine takes. An accusation needs no freshness
of its own: it names an incarnation, which its subject leaves behind by refuting.

Source: SECURITY-DESIGN 6.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from meshagent.core.members import (
    KEY_PREFIX_BYTES,
    MAX_ADDRESSES,
    Accusation,
    Incarnation,
    MemberRecord,
    StateRecord,
)
from meshagent.errors import EnvelopeError
from meshagent.identity.keys import SIGNATURE_BYTES, DeviceKey, Tag, verify
from meshagent.types import NodeId, node_id_of, public_key_of

RECORD: Final = 1
ACCUSATION: Final = 2
STATE: Final = 3
MAX_STATE_BYTES: Final = 4096
"""What a state record may hold; a datagram carries a sixth of that, tables the rest."""
MAX_ITEM_BYTES: Final = 60 + MAX_STATE_BYTES + SIGNATURE_BYTES

_LEFT: Final = 1
_RECORD: Final = struct.Struct(">BB32s16sI32sHB")
_ACCUSATION: Final = struct.Struct(">BB32s16sQI")
_STATE: Final = struct.Struct(">BB32s16sIH")
_FAMILIES: Final = {4: 4, 6: 16}


class MembershipShapeError(EnvelopeError):
    """Not an item of this layout."""


class ClaimedRecord(NamedTuple):
    """A member's record as read; nobody has checked the signature."""

    node: NodeId
    boot: bytes
    refutation: int
    left: bool
    exchange: bytes
    port: int
    addresses: tuple[str, ...]
    signed: bytes

    @property
    def order(self) -> tuple[int, int, bool]:
        return (int.from_bytes(self.boot[:8], "big"), self.refutation, self.left)


class ClaimedAccusation(NamedTuple):
    """An accusation as read; whom it names is known by a part of the key alone."""

    accuser: NodeId
    prefix: bytes
    incarnation: Incarnation
    signed: bytes


class ClaimedState(NamedTuple):
    """A state record as read."""

    node: NodeId
    boot: bytes
    version: int
    body: bytes
    signed: bytes

    @property
    def order(self) -> tuple[int, int]:
        return (int.from_bytes(self.boot[:8], "big"), self.version)


Claim = ClaimedRecord | ClaimedAccusation | ClaimedState


def parse(data: bytes) -> Claim:
    """The fields of one item, nothing verified.

    Raises:
        MembershipShapeError: not exactly one item of a known kind.
    """
    if not SIGNATURE_BYTES < len(data) <= MAX_ITEM_BYTES:
        raise MembershipShapeError(f"an item of {len(data)} bytes")
    kind, body = data[0], data[:-SIGNATURE_BYTES]
    try:
        if kind == RECORD:
            return _parse_record(data, body)
        if kind == ACCUSATION:
            _, flags, accuser, prefix, boot, refutation = _ACCUSATION.unpack(body)
            _only(flags, 0)
            return ClaimedAccusation(node_id_of(accuser), prefix, Incarnation(boot, refutation), data)
        if kind == STATE:
            _, flags, node, boot_bytes, version, length = _STATE.unpack_from(body)
            _only(flags, 0)
            content = body[_STATE.size :]
            if length != len(content):
                raise MembershipShapeError("the length of a state record")
            return ClaimedState(node_id_of(node), boot_bytes, version, content, data)
    except struct.error as error:
        raise MembershipShapeError(str(error)) from error
    raise MembershipShapeError(f"items of kind {kind} are unknown")


def _only(flags: int, allowed: int) -> None:
    if flags & ~allowed:
        raise MembershipShapeError(f"flags {flags:#x} are unknown")


def _parse_record(data: bytes, body: bytes) -> ClaimedRecord:
    _, flags, node, boot, refutation, exchange, port, count = _RECORD.unpack_from(body)
    _only(flags, _LEFT)
    if count > MAX_ADDRESSES or not port:
        raise MembershipShapeError("port or number of addresses")
    at, addresses = _RECORD.size, []
    for _ in range(count):
        size = _FAMILIES.get(body[at]) if at < len(body) else None
        if size is None or at + 1 + size > len(body):
            raise MembershipShapeError("an address")
        addresses.append(str(ipaddress.ip_address(body[at + 1 : at + 1 + size])))
        at += 1 + size
    if at != len(body):
        raise MembershipShapeError("bytes after the addresses")
    return ClaimedRecord(
        node_id_of(node), boot, refutation, bool(flags & _LEFT), exchange, port, tuple(addresses), data
    )


def verify_record(claim: ClaimedRecord, fleet: bytes) -> MemberRecord:
    """The record, if its member signed it.

    Raises:
        BadSignatureError: it did not.
    """
    _verify(claim.node, Tag.MEMBER, fleet, claim.signed)
    return MemberRecord(
        node=claim.node,
        boot=claim.boot,
        refutation=claim.refutation,
        left=claim.left,
        exchange=claim.exchange,
        port=claim.port,
        addresses=claim.addresses,
        signed=claim.signed,
    )


def verify_accusation(claim: ClaimedAccusation, subject: NodeId, fleet: bytes) -> Accusation:
    """The accusation of `subject`, whose key the claim names, if its accuser signed it.

    Raises:
        BadSignatureError: it did not.
        MembershipShapeError: it names somebody else.
    """
    if public_key_of(subject)[:KEY_PREFIX_BYTES] != claim.prefix:
        raise MembershipShapeError("the accusation names somebody else")
    _verify(claim.accuser, Tag.ACCUSATION, fleet, claim.signed)
    return Accusation(accuser=claim.accuser, subject=subject, incarnation=claim.incarnation, signed=claim.signed)


def verify_state(claim: ClaimedState, fleet: bytes) -> StateRecord:
    """The state record, if its member signed it.

    Raises:
        BadSignatureError: it did not.
    """
    _verify(claim.node, Tag.STATE, fleet, claim.signed)
    return StateRecord(node=claim.node, boot=claim.boot, version=claim.version, body=claim.body, signed=claim.signed)


def _verify(node: NodeId, tag: Tag, fleet: bytes, signed: bytes) -> None:
    verify(public_key_of(node), tag, fleet + signed[:-SIGNATURE_BYTES], signed[-SIGNATURE_BYTES:])


class DeviceNotary:
    """`core.members.Notary` of this device in this boot."""

    def __init__(
        self,
        key: DeviceKey,
        fleet: bytes,
        boot: bytes,
        *,
        exchange: bytes,
        where: Callable[[], tuple[int, tuple[str, ...]]],
    ) -> None:
        """Take the parts of every record.

        Args:
            key: this device.
            fleet: the 32 bytes of its fleet.
            boot: the 16 bytes of this boot.
            exchange: the X25519 public key of this boot.
            where: port and addresses at which this device listens now; literal addresses without a scope.
        """
        self._key = key
        self._fleet = fleet
        self._boot = boot
        self._exchange = exchange
        self._where = where

    def record(self, refutation: int, *, left: bool) -> MemberRecord:
        port, addresses = self._where()
        addresses = addresses[:MAX_ADDRESSES]
        body = _RECORD.pack(
            RECORD,
            _LEFT if left else 0,
            self._key.public,
            self._boot,
            refutation,
            self._exchange,
            port,
            len(addresses),
        )
        for text in addresses:
            ip = ipaddress.ip_address(text)
            body += bytes((ip.version,)) + ip.packed
        return MemberRecord(
            node=self._key.node_id,
            boot=self._boot,
            refutation=refutation,
            left=left,
            exchange=self._exchange,
            port=port,
            addresses=addresses,
            signed=self._signed(Tag.MEMBER, body),
        )

    def accuse(self, subject: NodeId, incarnation: Incarnation) -> Accusation:
        prefix = public_key_of(subject)[:KEY_PREFIX_BYTES]
        body = _ACCUSATION.pack(ACCUSATION, 0, self._key.public, prefix, incarnation.boot, incarnation.refutation)
        return Accusation(
            accuser=self._key.node_id,
            subject=subject,
            incarnation=incarnation,
            signed=self._signed(Tag.ACCUSATION, body),
        )

    def state(self, version: int, body: bytes) -> StateRecord:
        head = _STATE.pack(STATE, 0, self._key.public, self._boot, version, len(body))
        return StateRecord(
            node=self._key.node_id,
            boot=self._boot,
            version=version,
            body=body,
            signed=self._signed(Tag.STATE, head + body),
        )

    def _signed(self, tag: Tag, body: bytes) -> bytes:
        return body + self._key.sign(tag, self._fleet + body)
