"""Revocation lists: what they look like, and what the union of all lists seen says.

::

    "meshagent/revocation/v1\\0" | fleet32 | signer32 | number8 | issued8 | count2
        | [id32 | min_generation4 | reason1 | not_after8]*            sorted by id, at most 2048
        | signature64

A device's credentials of a generation below `min_generation` are revoked. The signer is a root, or a device whose
credential lets it revoke; then its credential (DER) follows the signature wherever the list travels, so that whoever
receives the list can check it. Lists are never replaced, they add up: an old list brought back takes nothing away.
An entry is kept until `not_after`, when the credential that it revokes has ended by itself.

Source: SECURITY-DESIGN 5.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from meshagent.errors import EnvelopeError
from meshagent.identity.certificates import MAX_GENERATION, verify_credential
from meshagent.identity.credential import CertificateError, Credential
from meshagent.identity.keys import SIGNATURE_BYTES, BadSignatureError, DeviceKey, Tag, verify
from meshagent.identity.trust import MAX_CERTIFICATE_BYTES, Trust

MAX_ENTRIES: Final = 2048
"""What is read. More revoked devices at once than a fleet loses."""
MAX_SIGNED_BYTES: Final = 65_000
"""What is signed has to fit one message with the signer's credential: 1,440 entries of a root."""
MAX_SIGNERS: Final = 16
"""Roots and delegated revokers whose lists are kept; a fleet has a handful."""
MAX_LISTS_A_SIGNER: Final = 8
"""Lists spread onwards. Each signer's newest list normally holds all of its entries, the others are remnants."""

_TAG: Final = Tag.REVOCATION.value
_HEAD: Final = struct.Struct(">32s32sQQH")
_ENTRY: Final = struct.Struct(">32sIBQ")
_HEAD_END: Final = len(_TAG) + _HEAD.size
MAX_LIST_BYTES: Final = _HEAD_END + MAX_ENTRIES * _ENTRY.size + SIGNATURE_BYTES + MAX_CERTIFICATE_BYTES


class RevocationError(EnvelopeError):
    """A list is malformed, another fleet's, or not signed by somebody who may."""


class RevocationReason(IntEnum):
    """Why a device is out. Source: RFC 5280 5.3.1, where the numbers come from."""

    UNSPECIFIED = 0
    KEY_COMPROMISE = 1
    AFFILIATION_CHANGED = 3
    SUPERSEDED = 4
    CESSATION_OF_OPERATION = 5


@dataclass(frozen=True, slots=True, order=True)
class RevocationEntry:
    """Credentials of the device `key` below `min_generation` are void; forgotten after `not_after_s`."""

    key: bytes
    min_generation: int
    reason: RevocationReason
    not_after_s: int


@dataclass(frozen=True, slots=True)
class RevocationList:
    """A list whose signature was checked, unless it comes from `parse_list`."""

    fleet: bytes
    signer: bytes
    number: int
    issued_at_s: int
    entries: tuple[RevocationEntry, ...]
    signed: bytes
    """The bytes as they travel: list, signature, and the signer's credential if it is not a root."""

    @property
    def digest(self) -> bytes:
        """8 bytes by which two nodes notice that they know different lists."""
        return hashlib.sha256(self.signed[: _signature_end(len(self.entries))]).digest()[:8]


def sign_list(
    key: DeviceKey,
    fleet: bytes,
    entries: Iterable[RevocationEntry],
    *,
    number: int,
    now_s: float,
    credential: Credential | None = None,
) -> RevocationList:
    """A list in the form that travels. `credential`: of a revoker that is not the root.

    Raises:
        ValueError: more entries than a message holds, or two for one device.
    """
    ordered = tuple(sorted(entries))
    if len(ordered) > MAX_ENTRIES or len({entry.key for entry in ordered}) != len(ordered):
        raise ValueError(f"a list has at most {MAX_ENTRIES} entries, one a device")
    issued_at_s = int(now_s)
    body = _HEAD.pack(fleet, key.public, number, issued_at_s, len(ordered)) + b"".join(
        _ENTRY.pack(e.key, e.min_generation, e.reason, e.not_after_s) for e in ordered
    )
    signed = _TAG + body + key.sign(Tag.REVOCATION, body) + (credential.der if credential is not None else b"")
    if len(signed) > MAX_SIGNED_BYTES:
        raise ValueError(f"{len(ordered)} entries do not fit the {MAX_SIGNED_BYTES} bytes of one message")
    return RevocationList(fleet, key.public, number, issued_at_s, ordered, signed)


def parse_list(data: bytes) -> RevocationList:
    """The list in `data`, its signature not yet checked.

    Raises:
        RevocationError: not a list of this form, sorted and without doubles.
    """
    if len(data) > MAX_LIST_BYTES:
        raise RevocationError("a revocation list of impossible length")
    if not data.startswith(_TAG) or len(data) < _HEAD_END + SIGNATURE_BYTES:
        raise RevocationError("not a revocation list")
    fleet, signer, number, issued_at_s, count = _HEAD.unpack_from(data, len(_TAG))
    if count > MAX_ENTRIES or len(data) < _signature_end(count):
        raise RevocationError("the revocation list is cut short or too long")
    entries: list[RevocationEntry] = []
    last = b""
    for key, min_generation, reason, not_after_s in _ENTRY.iter_unpack(
        data[_HEAD_END : _HEAD_END + count * _ENTRY.size]
    ):
        if key <= last:
            raise RevocationError("the revocation list is not sorted")
        last = key
        try:
            why = RevocationReason(reason)
        except ValueError:
            why = RevocationReason.UNSPECIFIED  # a later version's reason revokes all the same
        entries.append(RevocationEntry(key, min_generation, why, not_after_s))
    return RevocationList(fleet, signer, number, issued_at_s, tuple(entries), data)


def verify_list(data: bytes, trust: Trust, *, now_s: float) -> tuple[RevocationList, Credential | None]:
    """A list and its signer's credential (None: a root).

    Raises:
        RevocationError: malformed, another fleet's, forged, or by somebody who may not.
    """
    parsed = parse_list(data)
    if parsed.fleet != trust.fleet:
        raise RevocationError("the revocation list of another fleet")
    end = _signature_end(len(parsed.entries))
    attached = data[end:]
    credential: Credential | None = None
    if attached:
        try:
            credential = verify_credential(attached, trust, now_s=now_s)
        except CertificateError as error:
            raise RevocationError(f"the signer's credential does not hold: {error}") from error
        if credential.public_key != parsed.signer or not credential.revoker:
            raise RevocationError("the signer may not revoke")
    elif parsed.signer not in [root.public_key for root in trust.anchors(now_s)]:
        raise RevocationError("the signer is no root of this fleet")
    try:
        verify(
            parsed.signer, Tag.REVOCATION, data[len(_TAG) : end - SIGNATURE_BYTES], data[end - SIGNATURE_BYTES : end]
        )
    except BadSignatureError as error:
        raise RevocationError("the revocation list is forged") from error
    return parsed, credential


@dataclass(slots=True)
class _Signer:
    credential: Credential | None
    lists: list[RevocationList]
    entries: dict[bytes, RevocationEntry]


class RevocationSet:
    """The union of every list seen. Lists of a revoker whose own credential was revoked by a root count no more."""

    def __init__(self) -> None:
        self._signers: dict[bytes, _Signer] = {}
        self._effective: dict[bytes, RevocationEntry] = {}

    def add(self, revocations: RevocationList, credential: Credential | None, *, now_s: float) -> bool:
        """Take in a verified list. True: something is revoked now that was not, or the list is to be spread.

        Raises:
            RevocationError: more signers than `MAX_SIGNERS`, or more entries of one than `MAX_ENTRIES`.
        """
        signer = self._signers.get(revocations.signer)
        if signer is not None and any(known.digest == revocations.digest for known in signer.lists):
            return False
        live = [entry for entry in revocations.entries if entry.not_after_s > now_s]
        entries = dict(signer.entries) if signer is not None else {}
        news = False
        for entry in live:
            known = entries.get(entry.key)
            if known is None or entry.min_generation > known.min_generation:
                entries[entry.key] = entry
                news = True
        newer = signer is None or revocations.number > max(known.number for known in signer.lists)
        if not news and not newer:
            return False
        if signer is None:
            if len(self._signers) >= MAX_SIGNERS:
                self._forget_empty(now_s)
            if len(self._signers) >= MAX_SIGNERS and credential is not None:
                raise RevocationError("too many signers of revocation lists")
            signer = _Signer(credential, [], {})
        entries = {key: entry for key, entry in entries.items() if entry.not_after_s > now_s}
        if len(entries) > MAX_ENTRIES and credential is not None:
            raise RevocationError("one revoker revokes more devices than a list holds")
        signer.credential = credential
        signer.entries = entries
        signer.lists = _worth_spreading([*signer.lists, revocations], now_s)
        self._signers[revocations.signer] = signer
        self._unite(now_s)
        return True

    def min_generation(self, key: bytes) -> int:
        """Credentials of this device below that generation are revoked; 0: none."""
        entry = self._effective.get(key)
        return entry.min_generation if entry is not None else 0

    def entry(self, key: bytes) -> RevocationEntry | None:
        """Why and until when a device is revoked."""
        return self._effective.get(key)

    def entries(self) -> tuple[RevocationEntry, ...]:
        """What is revoked, sorted by device."""
        return tuple(self._effective[key] for key in sorted(self._effective))

    def spread(self) -> tuple[bytes, ...]:
        """The lists as they travel; whoever takes all of them in knows what we know."""
        return tuple(
            known.signed
            for key in sorted(self._signers)
            for known in sorted(self._signers[key].lists, key=lambda one: one.number)
        )

    def state(self) -> tuple[int, bytes]:
        """The highest number and an 8-byte digest of all lists, for pings: equal digests, nothing to pull."""
        lists = [known for signer in self._signers.values() for known in signer.lists]
        digests = b"".join(sorted(known.digest for known in lists))
        return max((known.number for known in lists), default=0), hashlib.sha256(digests).digest()[:8]

    def expire(self, now_s: float) -> None:
        """Forget entries whose credentials have ended by themselves."""
        for signer in self._signers.values():
            signer.entries = {key: entry for key, entry in signer.entries.items() if entry.not_after_s > now_s}
            signer.lists = _worth_spreading(signer.lists, now_s)
        self._unite(now_s)

    def _forget_empty(self, now_s: float) -> None:
        for key in [key for key, signer in self._signers.items() if not signer.entries]:
            del self._signers[key]

    def _unite(self, now_s: float) -> None:
        roots = [signer for signer in self._signers.values() if signer.credential is None]
        united: dict[bytes, RevocationEntry] = {}
        for signer in roots:
            _merge(united, signer.entries, now_s)
        by_roots = dict(united)
        for signer in self._signers.values():
            if signer.credential is None:
                continue
            ended = by_roots.get(signer.credential.public_key)
            if ended is None or signer.credential.generation >= ended.min_generation:
                _merge(united, signer.entries, now_s)
        self._effective = united


def _merge(into: dict[bytes, RevocationEntry], entries: dict[bytes, RevocationEntry], now_s: float) -> None:
    for key, entry in entries.items():
        known = into.get(key)
        if entry.not_after_s > now_s and (known is None or entry.min_generation > known.min_generation):
            into[key] = entry


def _worth_spreading(lists: Sequence[RevocationList], now_s: float) -> list[RevocationList]:
    """The newest list, and older ones that still say something which no newer one says."""
    kept: list[RevocationList] = []
    said: dict[bytes, int] = {}
    for known in sorted(lists, key=lambda one: (one.number, one.issued_at_s), reverse=True):
        adds = [e for e in known.entries if e.not_after_s > now_s and e.min_generation > said.get(e.key, 0)]
        if kept and not adds:
            continue
        kept.append(known)
        for entry in adds:
            said[entry.key] = entry.min_generation
        if len(kept) == MAX_LISTS_A_SIGNER:
            break
    return kept


def _signature_end(count: int) -> int:
    return _HEAD_END + count * _ENTRY.size + SIGNATURE_BYTES


assert MAX_GENERATION == 2**32, "min_generation has four bytes"
