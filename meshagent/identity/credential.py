"""What the fleet says about one device, once its certificate has been checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from meshagent.errors import IdentityError
from meshagent.types import NodeId, node_id_of, public_key_of

MAX_PATTERNS: Final = 64
MAX_PATTERN_CHARS: Final = 160
MAX_CAPABILITIES: Final = 64
MAX_NAME_CHARS: Final = 63
"""A credential travels in every Hello and is kept for every peer: these bounds hold it under 8 KiB."""

DEFAULT_MAY: Final = ("announce:*", "perform:*")
"""What a device may do when its admission says nothing: ask and work, but approve and revoke nothing."""
REVOKER: Final = "revoke:*"
"""Permission of a device that the root lets sign revocation lists."""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_PATTERN: Final = re.compile(r"[a-z][a-z_-]{0,30}:(\*|[A-Za-z0-9_.-]{1,127}\*?)")
_CAPABILITY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:+-]{0,63}")

DID_PREFIX: Final = "did:key:z"
_ED25519_MULTICODEC: Final = b"\xed\x01"
_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


class CertificateFault(StrEnum):
    """Why a certificate or chain is refused; `doctor` has a sentence for each."""

    MALFORMED = "malformed"
    CHAIN_SHAPE = "chain_shape"
    """Not exactly a leaf and one device certificate."""
    OTHER_FLEET = "other_fleet"
    """No root of ours signed it."""
    PROFILE = "profile"
    """Ours by signature, but not of the form that we issue."""
    SELF_ISSUED = "self_issued"
    UNSAFE_KEY = "unsafe_key"
    """A point of small order: anybody could sign for it."""
    LEAF = "leaf"
    """The leaf was not issued by the device certificate beside it, or names somebody else."""
    NOT_YET_VALID = "not_yet_valid"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    """A newer credential of the same device has been seen."""
    REVOKED = "revoked"
    UNKNOWN = "unknown"
    """No credential of that device has been seen."""


class CertificateError(IdentityError):
    """A certificate or chain is refused; `fault` says why."""

    def __init__(self, fault: CertificateFault, message: str, *, next_step: str | None = None) -> None:
        super().__init__(message, next_step=next_step)
        self.fault = fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A device as its fleet knows it. Made by `certificates.py` from bytes that a root signed."""

    peer: NodeId
    public_key: bytes
    name: str
    fleet: bytes
    generation: int
    """Grows with every credential of this device; lower ones than the highest seen are refused."""
    issued_at_s: int
    """The root's clock at issue: a floor for everybody's time."""
    not_before_s: int
    not_after_s: int
    may: tuple[str, ...]
    """Patterns such as `perform:pump.check.v1`, `announce:*`, `enter:pump-room`."""
    capabilities: tuple[str, ...]
    der: bytes

    def allows(self, action: str, subject: str) -> bool:
        """Is `action` on `subject` (a task kind, a place) covered by a pattern? Denied unless said."""
        for pattern in self.may:
            verb, _, rest = pattern.partition(":")
            if verb == action and (subject.startswith(rest[:-1]) if rest.endswith("*") else subject == rest):
                return True
        return False

    @property
    def revoker(self) -> bool:
        """May this device sign revocation lists?"""
        return REVOKER in self.may

    @property
    def spiffe_id(self) -> str:
        return f"spiffe://{fleet_name_of(self.fleet)}/device/{self.name}"

    def fault_at(self, now_s: float) -> CertificateFault | None:
        """Expired or not yet valid at that time; None: current."""
        if now_s < self.not_before_s:
            return CertificateFault.NOT_YET_VALID
        if now_s >= self.not_after_s:
            return CertificateFault.EXPIRED
        return None


def fleet_name_of(fleet: bytes) -> str:
    """A fleet's 32-byte id in the spelling of node ids."""
    return node_id_of(fleet)


def fleet_of_name(text: str) -> bytes:
    """The 32 bytes behind a fleet's spelling.

    Raises:
        ValueError: not the canonical spelling.
    """
    return public_key_of(text)


def check_grants(name: str, may: tuple[str, ...], capabilities: tuple[str, ...]) -> None:
    """Return if name, patterns and capabilities are of the grammar and within bounds.

    Raises:
        IdentityError: which one is not, and what is expected.
    """
    if not _NAME.fullmatch(name):
        raise IdentityError(
            f"{name!r} is no device name: lowercase letters, digits, dot, dash, underscore, at most {MAX_NAME_CHARS}"
        )
    if len(may) > MAX_PATTERNS or len(capabilities) > MAX_CAPABILITIES:
        raise IdentityError(f"at most {MAX_PATTERNS} permissions and {MAX_CAPABILITIES} capabilities")
    for pattern in may:
        if not _PATTERN.fullmatch(pattern):
            raise IdentityError(
                f"{pattern!r} is no permission",
                next_step="write action:kind, such as perform:pump.check.v1 or perform:*",
            )
    for capability in capabilities:
        if not _CAPABILITY.fullmatch(capability):
            raise IdentityError(f"{capability!r} is no capability: letters, digits and _ . : + -")
    if len(set(may)) != len(may) or len(set(capabilities)) != len(capabilities):
        raise IdentityError("a permission or capability stands twice")


def did_of(node_id: NodeId) -> str:
    """The interoperable form `did:key:z6Mk...` of a device's id. Source: W3C did:key 2."""
    number = int.from_bytes(_ED25519_MULTICODEC + public_key_of(node_id), "big")
    text = ""
    while number:
        number, digit = divmod(number, 58)
        text = _BASE58[digit] + text
    return DID_PREFIX + text


def node_id_from(text: str) -> NodeId:
    """The id behind `text`: a node id or a `did:key` of an Ed25519 key.

    Raises:
        ValueError: neither, or not the canonical spelling.
    """
    if not text.startswith(DID_PREFIX):
        return node_id_of(public_key_of(text))
    digits = text[len(DID_PREFIX) :]
    if len(digits) > 60:
        raise ValueError("too long for a did:key of an Ed25519 key")
    number = 0
    for digit in digits:
        value = _BASE58.find(digit)
        if value < 0:
            raise ValueError("a did:key is base58: no 0, O, I, l")
        number = number * 58 + value
    data = number.to_bytes((number.bit_length() + 7) // 8, "big")
    if not data.startswith(_ED25519_MULTICODEC) or len(data) != 34:
        raise ValueError("this did:key holds no Ed25519 key")
    node = node_id_of(data[2:])
    if did_of(node) != text:
        raise ValueError("this spelling of the did:key is not the canonical one")
    return node
