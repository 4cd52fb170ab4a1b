"""Sealed datagrams: who holds the key that a member's signed record names may speak for it, and nobody else.

Signatures are too dear here: 20,000 forged ones a second fill a core. So every boot publishes an X25519 key inside its
signed record; each pair of boots derives one key for each direction, and a datagram costs its receiver one look into a
table, then one pass of ChaCha20-Poly1305::

    datagram = magic2 | kind1 | flags1 | keyid8 | counter8 | ciphertext | tag16             36 B and the body
    key, keyid = HKDF-SHA256(X25519(ours, theirs), salt = fleet, info = tag | from32 | boot16 | to32 | boot16)

Everything before the ciphertext is authenticated. The counter is the nonce: a key belongs to one direction of one pair
of boots, and each counts from 1. A window of 64 lets datagrams overtake each other and none be heard twice.

Source: RFC 7748, RFC 5869, RFC 8439; RFC 4303 3.4.3 (the window); SECURITY-DESIGN 6.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from meshagent.core.members import MAX_MEMBERS
from meshagent.errors import EnvelopeError, IdentityError
from meshagent.types import NodeId, public_key_of

MAGIC: Final = b"MA"
MAX_DATAGRAM_BYTES: Final = 1400
OVERHEAD_BYTES: Final = 36
WINDOW: Final = 64
"""Datagrams that may overtake each other; a pair exchanges a few a second."""
MAX_COUNTER: Final = (1 << 63) - 1

_TAG: Final = b"meshagent/datagram/v1\0"
_HEAD: Final = struct.Struct(">2sBB8sQ")
_KEY_BYTES: Final = 32
_KEYID_BYTES: Final = 8


class DatagramError(EnvelopeError):
    """Bytes that no member sealed for us, or that were heard before. `reason` counts them."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class OpenedDatagram(NamedTuple):
    """What a member sealed for this boot of ours."""

    peer: NodeId
    kind: int
    body: bytes


class _Channel:
    """Both directions with one boot of one peer."""

    __slots__ = ("boot", "highest", "keyid_in", "keyid_out", "open", "peer", "seal", "seen", "sent")

    def __init__(
        self, peer: NodeId, boot: bytes, seal: tuple[bytes, ChaCha20Poly1305], open_: tuple[bytes, ChaCha20Poly1305]
    ) -> None:
        self.peer = peer
        self.boot = boot
        self.keyid_out, self.seal = seal
        self.keyid_in, self.open = open_
        self.sent = 0
        self.highest = 0
        self.seen = 0

    def fresh(self, counter: int) -> bool:
        ahead = counter - self.highest
        return ahead > 0 or (-ahead < WINDOW and not (self.seen >> -ahead) & 1)

    def mark(self, counter: int) -> None:
        ahead = counter - self.highest
        if ahead > 0:
            self.seen = ((self.seen << ahead | 1) if ahead < WINDOW else 1) & ((1 << WINDOW) - 1)
            self.highest = counter
        else:
            self.seen |= 1 << -ahead


class DatagramKeys:
    """The keys of this boot with every member.

    Args:
        me: this device.
        fleet: the 32 bytes of its fleet.
        boot: the 16 bytes of this boot.
        seed: 32 random bytes: the X25519 key of this boot. Never written anywhere.
    """

    def __init__(self, me: NodeId, fleet: bytes, boot: bytes, seed: bytes) -> None:
        self._me = public_key_of(me)
        self._fleet = fleet
        self._boot = boot
        self._secret = X25519PrivateKey.from_private_bytes(seed)
        self.public = self._secret.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        """To be published in the signed record of this boot."""
        self._by_peer: dict[NodeId, _Channel] = {}
        self._by_keyid: dict[bytes, _Channel] = {}

    def __len__(self) -> int:
        return len(self._by_peer)

    def has(self, peer: NodeId) -> bool:
        """Is there a key shared with `peer`?"""
        return peer in self._by_peer

    def share(self, peer: NodeId, boot: bytes, exchange: bytes) -> None:
        """Derive the keys with `boot` of `peer`, whose verified record names `exchange`. Known boots are left alone.

        Raises:
            IdentityError: the point has a small order, or there are over `MAX_MEMBERS`.
        """
        known = self._by_peer.get(peer)
        if known is not None and known.boot == boot:
            return
        if known is None and len(self._by_peer) >= MAX_MEMBERS:
            raise IdentityError(f"over {MAX_MEMBERS} members")
        try:
            shared = self._secret.exchange(X25519PublicKey.from_public_bytes(exchange))
        except ValueError as error:
            # a small-order point would give a key that everybody knows
            raise IdentityError(f"the exchange key of {peer[:8]} is none: {error}") from error
        self.forget(peer)
        theirs = public_key_of(peer)
        channel = _Channel(
            peer,
            boot,
            self._derive(shared, self._me + self._boot + theirs + boot),
            self._derive(shared, theirs + boot + self._me + self._boot),
        )
        self._by_peer[peer] = channel
        self._by_keyid[channel.keyid_in] = channel

    def _derive(self, shared: bytes, direction: bytes) -> tuple[bytes, ChaCha20Poly1305]:
        size = _KEY_BYTES + _KEYID_BYTES
        material = HKDF(algorithm=SHA256(), length=size, salt=self._fleet, info=_TAG + direction).derive(shared)
        return material[_KEY_BYTES:], ChaCha20Poly1305(material[:_KEY_BYTES])

    def forget(self, peer: NodeId) -> None:
        """Speak with `peer` no more."""
        channel = self._by_peer.pop(peer, None)
        if channel is not None:
            del self._by_keyid[channel.keyid_in]

    def seal(self, peer: NodeId, kind: int, body: bytes) -> bytes:
        """A datagram for `peer`, with whom a key is shared.

        Raises:
            IdentityError: no key, or its counter is used up.
        """
        channel = self._by_peer.get(peer)
        if channel is None or channel.sent >= MAX_COUNTER:
            raise IdentityError(f"no key is shared with {peer[:8]}")
        channel.sent += 1
        head = _HEAD.pack(MAGIC, kind, 0, channel.keyid_out, channel.sent)
        return head + channel.seal.encrypt(_nonce(channel.sent), body, head)

    def open(self, data: bytes) -> OpenedDatagram:
        """What a member sealed, once.

        Raises:
            DatagramError: anything else, told apart by `reason`: shape, unknown_key, replayed, forged.
        """
        if not OVERHEAD_BYTES <= len(data) <= MAX_DATAGRAM_BYTES:
            raise DatagramError("shape")
        magic, kind, flags, keyid, counter = _HEAD.unpack_from(data)
        if magic != MAGIC or flags or not 0 < counter <= MAX_COUNTER:
            raise DatagramError("shape")
        channel = self._by_keyid.get(keyid)
        if channel is None:
            raise DatagramError("unknown_key")
        if not channel.fresh(counter):
            raise DatagramError("replayed")
        try:
            body = channel.open.decrypt(_nonce(counter), data[_HEAD.size :], data[: _HEAD.size])
        except InvalidTag:
            raise DatagramError("forged") from None
        channel.mark(counter)
        return OpenedDatagram(channel.peer, kind, body)


def _nonce(counter: int) -> bytes:
    return counter.to_bytes(12, "big")
