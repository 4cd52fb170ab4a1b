"""Envelopes: many messages under one signature, each provable alone.

A node seals what it emits in one loop turn as one batch. Each message is a leaf of a Merkle tree, the root is signed
once, and every message carries its index and path. Layouts are fixed and big endian; payload bytes are signed exactly
as sent, so nothing is ever encoded again to be checked::

    header = salt16 | to32 | seq8 | type2 | min_reader1 | flags1 | ttl_ms4 | len4            68 B
    leaf   = SHA256(0x00 | "meshagent/msg/v1\\0" | fleet32 | sender32 | boot16 | header | payload)
    node   = SHA256(0x01 | left | right); an odd node is promoted
    signed = "meshagent/batch/v1\\0" | fleet32 | sender32 | boot16 | batch8 | hlc8 | leaves2 | root32
    proof  = sender32 | boot16 | batch8 | hlc8 | leaves2 | signature64                       130 B

The salt keeps the siblings of a batch from confirming guesses of each other's contents (prices). `to` is not
transmitted inside the header: it is the link's receiver unless the message says otherwise.

What is absent: who may send, freshness, replay. Those are `gate.py` and `replay.py`.

Source: RFC 9162 2.1 (tree hash); SECURITY-DESIGN 1.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import nacl.bindings
import nacl.exceptions

from meshagent.errors import EnvelopeError, LocalProtocolError
from meshagent.identity.keys import DeviceKey, Tag
from meshagent.types import BOOT_BYTES, NodeId, public_key_of

HEADER_BYTES: Final = 36
"""Transmitted part of the 68 bytes: all but `to`."""
PROOF_BYTES: Final = 130
STATEMENT_BYTES: Final = 149
"""What the one signature covers."""
SALT_BYTES: Final = 16
HASH_BYTES: Final = 32
MAX_LEAVES: Final = 1024
"""Messages under one signature. Ten levels: a path stays at 320 bytes."""
MAX_PATH_BYTES: Final = 320
MAX_PAYLOAD_BYTES: Final = 64 * 1024
MAX_TTL_MS: Final = 24 * 3600 * 1000
"""A message older than a day is of no use to anybody, and the bound keeps old boots from being replayed forever."""
MIN_READER: Final = 1
"""The oldest envelope version that understands what this one writes."""
BROADCAST: Final = bytes(32)
"""`to` of a message for every receiver. A small-order point, so it is nobody's key."""
TO_RECEIVER: Final = b""
"""`to` as transmitted when the link's receiver is meant."""

MESSAGE_TAG: Final = b"meshagent/msg/v1\0"
_COUNTER_LIMIT: Final = 2**64 - 1

_SEQ_ON: Final = struct.Struct(">QHBBII")
_HEADER_REST: Final = struct.Struct(">16xQHBBII")
_PROOF_HEAD: Final = struct.Struct(">32s16sQQH")
_BATCH_FIELDS: Final = struct.Struct(">QQH")

_sha256 = hashlib.sha256


class CounterExhaustedError(LocalProtocolError):
    """A sequence or batch counter is used up: only a new boot may go on."""


class EnvelopeShapeError(EnvelopeError):
    """Lengths, versions or the path are not what they must be."""


class Outgoing(NamedTuple):
    """One message to seal. `to` None: for every receiver. `type` is the wire's number of the body."""

    to: NodeId | None
    type: int
    ttl_ms: int
    payload: bytes
    flags: int = 0


class SealedMessage(NamedTuple):
    """One leaf as it travels: 36 bytes of header, whom it is for, its place in the tree, the payload."""

    header: bytes
    to: bytes
    """`TO_RECEIVER`, `BROADCAST` or a public key."""
    leaf_index: int
    path: bytes
    payload: bytes


class SealedBatch(NamedTuple):
    """The signature of a batch with all of its messages, or those that go over one link."""

    proof: bytes
    messages: Sequence[SealedMessage]


class Header(NamedTuple):
    """The fields of the 36 transmitted bytes after the salt."""

    seq: int
    type: int
    min_reader: int
    flags: int
    ttl_ms: int
    length: int


class Proof(NamedTuple):
    """The fields of the 130 bytes."""

    sender: bytes
    boot: bytes
    batch: int
    hlc: int
    leaves: int
    signature: bytes


read_header: Callable[[bytes], tuple[int, int, int, int, int, int]] = _HEADER_REST.unpack
"""(seq, type, min_reader, flags, ttl_ms, length) of 36 bytes."""


read_proof_head: Callable[[bytes], tuple[bytes, bytes, int, int, int]] = _PROOF_HEAD.unpack_from
"""(sender, boot, batch, hlc, leaves) of 130 bytes; the signature is the rest."""


def parse_header(header: bytes) -> Header:
    """The named fields of a transmitted header.

    Raises:
        EnvelopeShapeError: not 36 bytes.
    """
    if len(header) != HEADER_BYTES:
        raise EnvelopeShapeError(f"a header has {HEADER_BYTES} bytes, this one {len(header)}")
    return Header(*read_header(header))


def parse_proof(proof: bytes) -> Proof:
    """The fields of a proof.

    Raises:
        EnvelopeShapeError: not 130 bytes, or an impossible number of leaves.
    """
    if len(proof) != PROOF_BYTES:
        raise EnvelopeShapeError(f"a proof has {PROOF_BYTES} bytes, this one {len(proof)}")
    sender, boot, batch, hlc, leaves = _PROOF_HEAD.unpack_from(proof)
    if not 1 <= leaves <= MAX_LEAVES:
        raise EnvelopeShapeError(f"{leaves} leaves, 1 to {MAX_LEAVES} are read")
    return Proof(sender, boot, batch, hlc, leaves, proof[66:])


def leaf_prefix(fleet: bytes, sender: bytes, boot: bytes) -> bytes:
    """What every leaf of one sender's boot starts with."""
    return b"\0" + MESSAGE_TAG + fleet + sender + boot


def leaf_hash(prefix: bytes, to: bytes, header: bytes, payload: bytes) -> bytes:
    """The leaf of a message; `to` is the full 32 bytes."""
    return _sha256(prefix + header[:16] + to + header[16:] + payload).digest()


def statement_prefix(fleet: bytes, sender: bytes, boot: bytes) -> bytes:
    """What every signed statement of one sender's boot starts with."""
    return Tag.BATCH.value + fleet + sender + boot


def statement(prefix: bytes, batch: int, hlc: int, leaves: int, root: bytes) -> bytes:
    """The 149 bytes that the sender signs."""
    return prefix + _BATCH_FIELDS.pack(batch, hlc, leaves) + root


def path_bytes(index: int, leaves: int) -> int:
    """How long the path of leaf `index` of `leaves` is; any other length is refused."""
    size = 0
    last = leaves - 1
    while last:
        if index & 1 or index < last:
            size += HASH_BYTES
        index >>= 1
        last >>= 1
    return size


def root_from(leaf: bytes, index: int, leaves: int, path: bytes) -> bytes:
    """Climb from a leaf to the root. The caller has checked `index < leaves` and the length of `path`."""
    last = leaves - 1
    offset = 0
    while last:
        if index & 1:
            leaf = _sha256(b"\1" + path[offset : offset + 32] + leaf).digest()
            offset += 32
        elif index < last:
            leaf = _sha256(b"\1" + leaf + path[offset : offset + 32]).digest()
            offset += 32
        index >>= 1
        last >>= 1
    return leaf


def tree_of(leaves: list[bytes]) -> list[list[bytes]]:
    """The levels of the tree, leaves first, root last."""
    levels = [leaves]
    while len(leaves) > 1:
        pairs = iter(leaves)
        above = [_sha256(b"\1" + left + right).digest() for left, right in zip(pairs, pairs, strict=False)]
        if len(leaves) & 1:
            above.append(leaves[-1])
        leaves = above
        levels.append(leaves)
    return levels


def paths_of(levels: list[list[bytes]]) -> list[bytes]:
    """The path of every leaf, built from the root down so that siblings share the work."""
    paths = [b""]
    for level in reversed(levels[:-1]):
        size = len(level)
        # A child's path is its sibling followed by its parent's path; a promoted child has its parent's path alone.
        below = [b""] * size
        for parent, path in enumerate(paths):
            left = parent * 2
            right = left + 1
            if right < size:
                below[left] = level[right] + path
                below[right] = level[left] + path
            else:
                below[left] = path
        paths = below
    return paths


def make_boot(counter: int, randomness: bytes) -> bytes:
    """The 16 bytes that name one run of a node: a persisted counter and 8 random bytes.

    Raises:
        CounterExhaustedError: the counter has no next value.
    """
    if not 0 < counter < _COUNTER_LIMIT:
        raise CounterExhaustedError("the boot counter is used up", next_step="make a new identity for this device")
    if len(randomness) != 8:
        raise ValueError("8 random bytes")
    return counter.to_bytes(8, "big") + randomness


def boot_counter(boot: bytes) -> int:
    """The counter inside `boot`."""
    return int.from_bytes(boot[:8], "big")


class _Recipient:
    __slots__ = ("key", "seq")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.seq = 0


class Sealer:
    """Seals batches of one boot of one device. Counters start anew with every boot and never repeat within it."""

    __slots__ = (
        "_batch",
        "_key",
        "_leaf_prefix",
        "_proof_prefix",
        "_random",
        "_recipients",
        "_statement_prefix",
        "boot",
        "signatures_made",
    )

    def __init__(
        self,
        key: DeviceKey,
        fleet: bytes,
        boot: bytes,
        *,
        start_batch: int = 1,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Take a key, the 32-byte fleet id and the 16 bytes of this boot."""
        if len(fleet) != 32 or len(boot) != BOOT_BYTES:
            raise ValueError("a fleet id has 32 bytes, a boot 16")
        self.boot = boot
        self.signatures_made = 0
        """One a batch."""
        self._key = key
        self._batch = start_batch
        self._random = random_bytes
        self._leaf_prefix = leaf_prefix(fleet, key.public, boot)
        self._statement_prefix = statement_prefix(fleet, key.public, boot)[len(Tag.BATCH.value) :]
        self._proof_prefix = key.public + boot
        # Grows with the peers written to in one boot, which the fleet bounds.
        self._recipients: dict[NodeId | None, _Recipient] = {None: _Recipient(BROADCAST)}

    def last_seq(self, to: NodeId | None) -> int:
        """The sequence number of the last message sealed for `to`; 0: none yet."""
        entry = self._recipients.get(to)
        return entry.seq if entry is not None else 0

    def seal(self, messages: Sequence[Outgoing], hlc: int) -> SealedBatch:
        """Sign `messages` as one batch, in order.

        Raises:
            CounterExhaustedError: a counter is used up.
            LocalProtocolError: no message, too many, or one too large.
        """
        count = len(messages)
        if not 1 <= count <= MAX_LEAVES:
            raise LocalProtocolError(f"a batch has 1 to {MAX_LEAVES} messages, not {count}")
        batch = self._batch
        if batch > _COUNTER_LIMIT:
            raise CounterExhaustedError("the batch counter is used up", next_step="restart the node")
        prefix = self._leaf_prefix
        salts = self._random(SALT_BYTES * count)
        recipients = self._recipients
        pack = _SEQ_ON.pack
        headers: list[tuple[bytes, bytes]] = []
        leaves: list[bytes] = []
        at = 0
        for to, kind, ttl_ms, payload, flags in messages:
            length = len(payload)
            if length > MAX_PAYLOAD_BYTES or not 0 < ttl_ms <= MAX_TTL_MS:
                raise LocalProtocolError(f"a payload of {length} bytes, or a ttl of {ttl_ms} ms, is out of bounds")
            recipient = recipients.get(to)
            if recipient is None:
                assert to is not None
                recipient = recipients[to] = _Recipient(public_key_of(to))
            recipient.seq = seq = recipient.seq + 1
            if seq > _COUNTER_LIMIT:
                raise CounterExhaustedError("a sequence counter is used up", next_step="restart the node")
            key = recipient.key
            salt = salts[at : at + 16]
            at += 16
            rest = pack(seq, kind, MIN_READER, flags, ttl_ms, length)
            headers.append((salt + rest, key))
            leaves.append(_sha256(prefix + salt + key + rest + payload).digest())
        if count == 1:
            root, paths = leaves[0], [b""]
        else:
            levels = tree_of(leaves)
            root, paths = levels[-1][0], paths_of(levels)
        fields = _BATCH_FIELDS.pack(batch, hlc, count)
        signature = self._key.sign(Tag.BATCH, self._statement_prefix + fields + root)
        self._batch = batch + 1
        self.signatures_made += 1
        sealed = [
            SealedMessage(header, key, index, paths[index], message[3])
            for index, ((header, key), message) in enumerate(zip(headers, messages, strict=True))
        ]
        return SealedBatch(self._proof_prefix + fields + signature, sealed)


def root_of(fleet: bytes, proof: Proof, message: SealedMessage, to: bytes) -> bytes:
    """The root that `message` leads to; `to` is the full recipient.

    Raises:
        EnvelopeShapeError: header, payload, index or path have another shape.
    """
    header, _, index, path, payload = message
    if len(header) != HEADER_BYTES or len(to) != 32:
        raise EnvelopeShapeError("header or recipient has another length")
    if len(payload) > MAX_PAYLOAD_BYTES or read_header(header)[5] != len(payload):
        raise EnvelopeShapeError("the payload has another length than its header says")
    if not 0 <= index < proof.leaves or len(path) != path_bytes(index, proof.leaves):
        raise EnvelopeShapeError("the path does not fit index and leaves")
    leaf = leaf_hash(leaf_prefix(fleet, proof.sender, proof.boot), to, header, payload)
    return root_from(leaf, index, proof.leaves, path)


def statement_of(fleet: bytes, proof: Proof, root: bytes) -> bytes:
    """The bytes that `proof.signature` must cover."""
    prefix = statement_prefix(fleet, proof.sender, proof.boot)
    return statement(prefix, proof.batch, proof.hlc, proof.leaves, root)


def check_message(fleet: bytes, proof_bytes: bytes, message: SealedMessage, receiver: bytes) -> Proof:
    """Verify one message on its own, with no memory: evidence, tools and other implementations' tests.

    `receiver` is whom `TO_RECEIVER` means.

    Raises:
        EnvelopeShapeError: wrong shape.
        EnvelopeSignatureError: the sender did not sign this.
    """
    proof = parse_proof(proof_bytes)
    root = root_of(fleet, proof, message, message.to or receiver)
    if not signature_holds(proof.sender, statement_of(fleet, proof, root), proof.signature):
        raise EnvelopeSignatureError("the sender did not sign this")
    return proof


class EnvelopeSignatureError(EnvelopeError):
    """The sender did not sign this."""


def signature_holds(sender: bytes, signed: bytes, signature: bytes) -> bool:
    """Does `signature` (64 bytes) of `sender` cover `signed`? `signed` starts with the batch tag."""
    try:
        nacl.bindings.crypto_sign_open(signature + signed, sender)
    except (nacl.exceptions.CryptoError, ValueError):
        return False
    return True
