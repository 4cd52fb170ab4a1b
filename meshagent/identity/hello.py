"""The Hello: the first thing said on a link, signed, and what it proves.

TLS proves the peer by a leaf key; the Hello adds what only the device key can: which boot of the device this is, its
clock, the versions it speaks, and that all of it was said now. Each side sends a Hello with a nonce of its own and
answers the other's by one that echoes the nonce; a side is satisfied by an echo of its nonce. ::

    hello = "meshagent/hello/v1\\0" | fleet32 | from32 | to32 | boot16 | nonce16 | echo16 | hlc8
            | version_min2 | version_max2 | known_boot16 | known_generation4 | next_direct8 | next_broadcast8
            | credential_length2 | credential | signature64

`echo` is zero in a first Hello. `known_boot` is the boot of the receiver that the sender last saw (zero: none), under
which generation of its credential, with the sequence numbers it expects next: a device restored from an old disk
learns from it that its present is the past.

`HelloSession` decides and never waits or sends. Source: SECURITY-DESIGN 4.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from meshagent.errors import IdentityError
from meshagent.identity.book import CredentialBook
from meshagent.identity.credential import CertificateError, CertificateFault, Credential
from meshagent.identity.device import DeviceIdentity
from meshagent.identity.envelope import boot_counter
from meshagent.identity.keys import SIGNATURE_BYTES, BadSignatureError, Tag, verify
from meshagent.identity.replay import BROADCASTS, DIRECT, BootVerdict, ReplayTable
from meshagent.identity.trust import MAX_CERTIFICATE_BYTES
from meshagent.types import NodeId, public_key_of

PROTOCOL_VERSION: Final = 1
MAX_HELLOS: Final = 4
"""On one link, from one side: a first one, an answer, and one of each once more should they cross."""
NONCE_BYTES: Final = 16

_TAG: Final = Tag.HELLO.value
_FIELDS: Final = struct.Struct(">32s32s32s16s16s16sQHH16sIQQH")
_FIXED_END: Final = len(_TAG) + _FIELDS.size
MAX_HELLO_BYTES: Final = _FIXED_END + MAX_CERTIFICATE_BYTES + SIGNATURE_BYTES
_NOTHING: Final = bytes(16)


class HelloRefusal(StrEnum):
    """Why a Hello ends the link; `doctor` has a sentence for each."""

    MALFORMED = "malformed"
    TOO_MANY = "too_many"
    OTHER_FLEET = "other_fleet"
    NOT_THE_PEER = "not_the_peer"
    """It speaks for another device than TLS proved."""
    NOT_FOR_US = "not_for_us"
    SIGNATURE = "signature"
    ECHO = "echo"
    """It answers a nonce that was never ours: a recording."""
    VERSION = "version"
    CREDENTIAL = "credential"
    """Expired, revoked, superseded: `fault` says which."""
    OLD_BOOT = "old_boot"
    """A run of the device that has ended: a second copy, or a disk put back."""
    DUPLICATE_IDENTITY = "duplicate_identity"
    """Two devices use one identity at this moment. Alarm, no new contracts."""
    BOOT_JUMP = "boot_jump"
    OWN_BOOT_OVER = "own_boot_over"
    """The peer has seen a later run of this device: our disk was put back, or a copy of it runs."""
    OWN_IDENTITY = "own_identity"
    """The peer is ourselves: a copy of this device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The fields of one Hello."""

    fleet: bytes
    sender: bytes
    to: bytes
    boot: bytes
    nonce: bytes
    echo: bytes
    hlc: int
    version_min: int
    version_max: int
    known_boot: bytes
    known_generation: int
    next_direct: int
    next_broadcast: int
    credential: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class HelloAccepted:
    """The peer is who it says, now. Batches may be admitted from here on."""

    credential: Credential
    boot: bytes
    version: int
    """The highest that both speak."""
    hlc: int
    clock_offset_ms: int
    """Our clock minus the peer's, the way of the Hello included."""
    new_boot: bool
    """The peer has restarted since it was last seen, or is new."""
    next_direct: int
    next_broadcast: int
    """What the peer expects next from this boot of ours; 1 where it knows nothing of it."""
    answer: bytes | None
    """To be sent back, if the peer still waits for it."""


@dataclass(frozen=True, slots=True)
class HelloPending:
    """The Hello holds so far; send `answer` and wait for the echo of our nonce."""

    answer: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class HelloRefused:
    """Close the link; tell the peer nothing, the operator this."""

    reason: HelloRefusal
    detail: str
    fault: CertificateFault | None = None


HelloResult = HelloAccepted | HelloPending | HelloRefused


def parse_hello(data: bytes) -> Hello:
    """The fields of a Hello, nothing verified.

    Raises:
        ValueError: not a Hello of exactly this layout.
    """
    if len(data) > MAX_HELLO_BYTES or not data.startswith(_TAG) or len(data) < _FIXED_END + SIGNATURE_BYTES:
        raise ValueError("not a Hello")
    (
        fleet,
        sender,
        to,
        boot,
        nonce,
        echo,
        hlc,
        version_min,
        version_max,
        known_boot,
        known_generation,
        next_direct,
        next_broadcast,
        length,
    ) = _FIELDS.unpack_from(data, len(_TAG))
    if len(data) != _FIXED_END + length + SIGNATURE_BYTES or not 1 <= version_min <= version_max or nonce == _NOTHING:
        raise ValueError("not a Hello of this layout")
    return Hello(
        fleet=fleet,
        sender=sender,
        to=to,
        boot=boot,
        nonce=nonce,
        echo=echo,
        hlc=hlc,
        version_min=version_min,
        version_max=version_max,
        known_boot=known_boot,
        known_generation=known_generation,
        next_direct=next_direct,
        next_broadcast=next_broadcast,
        credential=data[_FIXED_END : _FIXED_END + length],
    )


def sign_hello(identity: DeviceIdentity, hello: Hello) -> bytes:
    """The Hello as it travels."""
    body = (
        _FIELDS.pack(
            hello.fleet,
            hello.sender,
            hello.to,
            hello.boot,
            hello.nonce,
            hello.echo,
            hello.hlc,
            hello.version_min,
            hello.version_max,
            hello.known_boot,
            hello.known_generation,
            hello.next_direct,
            hello.next_broadcast,
            len(hello.credential),
        )
        + hello.credential
    )
    return _TAG + body + identity.key.sign(Tag.HELLO, body)


class HelloSession:
    """One link's greeting, on one side."""

    def __init__(
        self,
        identity: DeviceIdentity,
        boot: bytes,
        book: CredentialBook,
        replay: ReplayTable,
        peer: NodeId,
        *,
        versions: tuple[int, int] = (PROTOCOL_VERSION, PROTOCOL_VERSION),
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Greet `peer`, whom TLS has proved. `versions`: the lowest and highest spoken here."""
        self._identity = identity
        self._boot = boot
        self._book = book
        self._replay = replay
        self._peer = peer
        self._key = public_key_of(peer)
        self._versions = versions
        self._nonce = random_bytes(NONCE_BYTES)
        self._received = 0
        self._answered = False
        self.accepted: HelloAccepted | None = None
        """Set once the peer has echoed our nonce."""

    def first(self, hlc: int) -> bytes:
        """Our first Hello, to be sent when the link opens."""
        return self._hello(_NOTHING, hlc)

    def received(self, data: bytes, *, hlc: int, wall_ms: int) -> HelloResult:
        """Judge a Hello of the peer.

        Args:
            data: as it came.
            hlc: a fresh stamp of ours, for the answer.
            wall_ms: this node's hybrid clock, its physical part.
        """
        self._received += 1
        if self._received > MAX_HELLOS:
            return HelloRefused(reason=HelloRefusal.TOO_MANY, detail="greets without end")
        try:
            hello = parse_hello(data)
        except ValueError as error:
            return HelloRefused(reason=HelloRefusal.MALFORMED, detail=str(error))
        refused = self._refuse_fields(hello, data)
        if refused is not None:
            return refused
        try:
            credential = self._book.learn(hello.credential, now_s=wall_ms / 1000)
        except CertificateError as error:
            reason = (
                HelloRefusal.OTHER_FLEET if error.fault is CertificateFault.OTHER_FLEET else HelloRefusal.CREDENTIAL
            )
            return HelloRefused(reason=reason, detail=str(error), fault=error.fault)
        if credential.public_key != self._key:
            return HelloRefused(reason=HelloRefusal.NOT_THE_PEER, detail="shows the credential of another device")
        version = min(hello.version_max, self._versions[1])
        if version < max(hello.version_min, self._versions[0]):
            return HelloRefused(
                reason=HelloRefusal.VERSION,
                detail=f"speaks versions {hello.version_min} to {hello.version_max}, "
                f"this node {self._versions[0]} to {self._versions[1]}",
            )
        refused = self._refuse_boot(hello, credential)
        if refused is not None:
            return refused
        answer = None
        if not self._answered:
            self._answered = True
            answer = self._hello(hello.nonce, hlc)
        if hello.echo == _NOTHING:
            return (
                HelloPending(answer)
                if answer is not None
                else HelloRefused(reason=HelloRefusal.TOO_MANY, detail="sends its first Hello twice")
            )
        return self._accept(hello, credential, version, wall_ms, answer)

    def _refuse_fields(self, hello: Hello, data: bytes) -> HelloRefused | None:
        if self._peer == self._identity.node_id:
            return HelloRefused(reason=HelloRefusal.OWN_IDENTITY, detail="uses the identity of this device")
        if hello.fleet != self._identity.fleet:
            return HelloRefused(reason=HelloRefusal.OTHER_FLEET, detail="is of another fleet")
        if hello.sender != self._key:
            return HelloRefused(reason=HelloRefusal.NOT_THE_PEER, detail="speaks for another device")
        if hello.to != self._identity.key.public:
            return HelloRefused(reason=HelloRefusal.NOT_FOR_US, detail="greets another device")
        if hello.echo not in (_NOTHING, self._nonce):
            return HelloRefused(reason=HelloRefusal.ECHO, detail="answers what was not asked: a recording")
        try:
            verify(hello.sender, Tag.HELLO, data[len(_TAG) : -SIGNATURE_BYTES], data[-SIGNATURE_BYTES:])
        except BadSignatureError:
            return HelloRefused(reason=HelloRefusal.SIGNATURE, detail="did not sign its Hello")
        return None

    def _refuse_boot(self, hello: Hello, credential: Credential) -> HelloRefused | None:
        verdict = self._replay.judge(hello.sender, hello.boot, credential.generation)
        counter = boot_counter(hello.boot)
        if verdict is BootVerdict.OVER:
            return HelloRefused(
                reason=HelloRefusal.OLD_BOOT, detail=f"is at boot {counter}, a later one has been seen: a copied disk?"
            )
        if verdict is BootVerdict.DUPLICATE:
            return HelloRefused(
                reason=HelloRefusal.DUPLICATE_IDENTITY, detail=f"is a second device at boot {counter} of one identity"
            )
        if verdict is BootVerdict.JUMP:
            return HelloRefused(reason=HelloRefusal.BOOT_JUMP, detail=f"claims boot {counter}, too far ahead")
        if (
            hello.known_boot not in (_NOTHING, self._boot)
            and boot_counter(hello.known_boot) >= boot_counter(self._boot)
            and hello.known_generation >= self._identity.credential.generation
        ):
            same = boot_counter(hello.known_boot) == boot_counter(self._boot)
            return HelloRefused(
                reason=HelloRefusal.DUPLICATE_IDENTITY if same else HelloRefusal.OWN_BOOT_OVER,
                detail=f"knows this device at boot {boot_counter(hello.known_boot)}, "
                f"we are at {boot_counter(self._boot)}: our disk was copied or put back",
            )
        return None

    def _accept(
        self, hello: Hello, credential: Credential, version: int, wall_ms: int, answer: bytes | None
    ) -> HelloResult:
        state = self._replay.get(hello.sender)
        new_boot = state is None or state.boot != hello.boot
        if state is None or new_boot:
            try:
                state = self._replay.enter(hello.sender, hello.boot, credential.generation)
            except IdentityError as error:
                return HelloRefused(reason=HelloRefusal.CREDENTIAL, detail=str(error))
        state.generation = max(state.generation, credential.generation)
        offset_ms = wall_ms - (hello.hlc >> 16)
        state.offset_ms = offset_ms
        self._replay.changed.add(hello.sender)
        ours = hello.known_boot == self._boot
        self.accepted = HelloAccepted(
            credential=credential,
            boot=hello.boot,
            version=version,
            hlc=hello.hlc,
            clock_offset_ms=offset_ms,
            new_boot=new_boot,
            next_direct=hello.next_direct if ours else 1,
            next_broadcast=hello.next_broadcast if ours else 1,
            answer=answer,
        )
        return self.accepted

    def _hello(self, echo: bytes, hlc: int) -> bytes:
        known = self._replay.get(self._key)
        return sign_hello(
            self._identity,
            Hello(
                fleet=self._identity.fleet,
                sender=self._identity.key.public,
                to=self._key,
                boot=self._boot,
                nonce=self._nonce,
                echo=echo,
                hlc=hlc,
                version_min=self._versions[0],
                version_max=self._versions[1],
                known_boot=known.boot if known is not None else _NOTHING,
                known_generation=known.generation if known is not None else 0,
                next_direct=known.highest[DIRECT] + 1 if known is not None else 1,
                next_broadcast=known.highest[BROADCASTS] + 1 if known is not None else 1,
                credential=self._identity.credential.der,
            ),
        )
