"""Messages of membership as bytes: the same body goes sealed in a datagram or inside an envelope over a link.

Big endian, fixed layouts, read strictly. `revocations` is 8 bytes of digest of the revocation lists that the sender
holds; whoever holds others offers them over the link (SECURITY-DESIGN 5)::

    ping, ack  = seq4 | digest4 | revocations8 | (len2 | item)* | zero bytes              16 B without items: 52 sealed
    nack       = seq4
    ping_req   = seq4 | subject32
    gossip     = (len2 | item)*
    summary    = (prefix16 | boot8 | refutation4 | left1 | state version4)*               over a link only
    wanted     = prefix16*                                                                over a link only

Items are signed bytes of `identity/membership.py`; they are cut apart here and read there.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from meshagent.core.members import (
    KEY_PREFIX_BYTES,
    MAX_MEMBERS,
    Ack,
    Gossip,
    Message,
    Nack,
    Ping,
    PingReq,
    Summary,
    SummaryEntry,
    Wanted,
)
from meshagent.identity.membership import MAX_ITEM_BYTES
from meshagent.types import public_key_of
from meshagent.wire import ids
from meshagent.wire.errors import DecodeError, EncodeError

PING: Final = 1
ACK: Final = 2
NACK: Final = 3
PING_REQ: Final = 4
GOSSIP: Final = 5
SUMMARY: Final = 6
WANTED: Final = 7
LINK_ONLY: Final = frozenset({SUMMARY, WANTED})
MAX_ITEMS: Final = 512
"""Items of one message: a chunk of 32 KiB over a link holds fewer records, a datagram eleven accusations."""
MAX_LINK_BODY_BYTES: Final = 64_000
"""Below the payload of one envelope."""
REVOCATIONS_BYTES: Final = 8

_PING: Final = struct.Struct(">II8s")
_SEQ: Final = struct.Struct(">I")
_PING_REQ: Final = struct.Struct(">I32s")
_LEN: Final = struct.Struct(">H")
_ENTRY: Final = struct.Struct(f">{KEY_PREFIX_BYTES}sQIBI")


class Decoded(NamedTuple):
    """A message as heard."""

    message: Message
    revocations: bytes
    """Empty where the kind carries none."""
    room_bytes: int
    """Bytes beside the fixed part: what an answer may carry."""


def encode(message: Message, revocations: bytes) -> tuple[int, bytes]:
    """Kind and body of `message`.

    Raises:
        EncodeError: more than a link carries at once.
    """
    if isinstance(message, Ping):
        head = _PING.pack(message.seq, message.digest, revocations)
        return PING, head + _items(message.items) + bytes(message.pad_bytes)
    if isinstance(message, Ack):
        return ACK, _PING.pack(message.seq, message.digest, revocations) + _items(message.items)
    if isinstance(message, Nack):
        return NACK, _SEQ.pack(message.seq)
    if isinstance(message, PingReq):
        return PING_REQ, _PING_REQ.pack(message.seq, public_key_of(message.subject))
    if isinstance(message, Gossip):
        return GOSSIP, _items(message.items)
    if isinstance(message, Summary):
        return SUMMARY, _bounded(b"".join(_ENTRY.pack(*entry) for entry in message.entries[:MAX_MEMBERS]))
    return WANTED, _bounded(b"".join(message.prefixes[:MAX_MEMBERS]))


def _items(items: tuple[bytes, ...]) -> bytes:
    return _bounded(b"".join(_LEN.pack(len(one)) + one for one in items))


def _bounded(body: bytes) -> bytes:
    if len(body) > MAX_LINK_BODY_BYTES:
        raise EncodeError(f"{len(body)} bytes of membership in one message")
    return body


def decode(kind: int, body: bytes) -> Decoded:
    """The message behind a body, its items not read yet.

    Raises:
        DecodeError: not such a message.
    """
    if len(body) > MAX_LINK_BODY_BYTES:
        raise DecodeError("a message of membership is too long")
    try:
        if kind in (PING, ACK):
            seq, digest, revocations = _PING.unpack_from(body)
            items, room_bytes = _cut(body, _PING.size), len(body) - _PING.size
            if kind == ACK:
                return Decoded(Ack(seq=seq, digest=digest, items=items), revocations, room_bytes)
            used = sum(_LEN.size + len(one) for one in items)
            ping = Ping(seq=seq, digest=digest, items=items, pad_bytes=room_bytes - used)
            return Decoded(ping, revocations, room_bytes)
        if kind == NACK:
            return Decoded(Nack(seq=_SEQ.unpack(body)[0]), b"", 0)
        if kind == PING_REQ:
            seq, key = _PING_REQ.unpack(body)
            return Decoded(PingReq(seq=seq, subject=ids.node_id(key)), b"", 0)
        if kind == GOSSIP:
            return Decoded(Gossip(items=_cut(body, 0)), b"", len(body))
        if kind == SUMMARY:
            return Decoded(Summary(entries=_entries(body)), b"", 0)
        if kind == WANTED:
            return Decoded(Wanted(prefixes=_prefixes(body)), b"", 0)
    except struct.error as error:
        raise DecodeError(f"a message of membership: {error}") from error
    raise DecodeError(f"membership has no messages of kind {kind}")


def _cut(body: bytes, at: int) -> tuple[bytes, ...]:
    """Items up to the end, or to a length of zero behind which everything is zero."""
    items: list[bytes] = []
    while at < len(body):
        if at + _LEN.size > len(body):
            if body[at]:
                raise DecodeError("padding is zero")
            break
        (size,) = _LEN.unpack_from(body, at)
        at += _LEN.size
        if not size:
            if any(body[at:]):
                raise DecodeError("padding is zero")
            break
        if size > MAX_ITEM_BYTES or at + size > len(body) or len(items) >= MAX_ITEMS:
            raise DecodeError("an item is longer than its message, or there are too many")
        items.append(body[at : at + size])
        at += size
    return tuple(items)


def _entries(body: bytes) -> tuple[SummaryEntry, ...]:
    if len(body) % _ENTRY.size or len(body) > _ENTRY.size * (MAX_MEMBERS + 1):
        raise DecodeError("a summary is no whole number of entries")
    entries = []
    for prefix, boot, refutation, left, version in _ENTRY.iter_unpack(body):
        if left > 1:
            raise DecodeError("left is 0 or 1")
        entries.append(SummaryEntry(prefix, boot, refutation, bool(left), version))
    return tuple(entries)


def _prefixes(body: bytes) -> tuple[bytes, ...]:
    if len(body) % KEY_PREFIX_BYTES:
        raise DecodeError("what is wanted is no whole number of keys")
    return tuple(body[at : at + KEY_PREFIX_BYTES] for at in range(0, len(body), KEY_PREFIX_BYTES))
