"""The fleet's roots: which ones anchor trust now, and how one hands over to the next.

The fleet's id is the hash of its first root certificate, which commits to the hash of the next root key; so does each
that follows. A stolen root key therefore cannot name its successor, and a device that holds the first root can follow
the chain by itself. While a new root says so, the one before it stays an anchor, so that devices renew at leisure.

Source: TUF 6.1 (root rotation), SECURITY-DESIGN 5.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import ExtensionOID, NameOID

from meshagent.identity import der
from meshagent.identity.credential import CertificateError, CertificateFault, fleet_name_of
from meshagent.identity.keys import DeviceKey, is_valid_point

OID_ARC: Final = "2.25.166661804704122676513541749248498749604"
"""An arc of our own by UUID (ITU-T X.667), so that no registry is needed."""
OID_ROOT: Final = x509.ObjectIdentifier(OID_ARC + ".1")

MAX_CERTIFICATE_BYTES: Final = 8 * 1024
MAX_ROOTS: Final = 16
"""Rotations that a device follows; one a year outlives the robot."""
LONG_AGO_S: Final = 400 * 24 * 3600
"""How far in the past validity starts: robots' clocks restart at the date of their image; generations order."""
ROOT_LIFETIME_S: Final = 20 * 365 * 24 * 3600
OVERLAP_S: Final = 90 * 24 * 3600

PARSE_ERRORS: Final = (
    ValueError,
    TypeError,
    LookupError,
    InvalidSignature,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
    Warning,
)
"""What `cryptography` raises over bytes that somebody else chose; its warnings too, where they are made errors."""

_GENESIS: Final = bytes(32)
_LINK_BYTES: Final = 32 + 32 + 4 + 8 + 8


@dataclass(frozen=True, slots=True)
class Root:
    """One root certificate, parsed and checked for its own signature and form."""

    certificate: x509.Certificate
    der: bytes
    public_key: bytes
    name: str
    fleet: bytes
    """All zero in the first root, whose hash is the id."""
    sequence: int
    next_key_hash: bytes
    issued_at_s: int
    retire_previous_at_s: int
    """When the root before this one stops being an anchor."""


def issue_root(
    key: DeviceKey,
    next_public_key: bytes,
    *,
    name: str,
    now_s: float,
    fleet: bytes = _GENESIS,
    sequence: int = 0,
    overlap_s: int = OVERLAP_S,
) -> bytes:
    """A root certificate over `key` that commits to `next_public_key`; with `fleet` and `sequence`, a rotation."""
    issued_at_s = int(now_s)
    link = (
        hashlib.sha256(next_public_key).digest()
        + fleet
        + sequence.to_bytes(4, "big")
        + issued_at_s.to_bytes(8, "big")
        + (issued_at_s + overlap_s).to_bytes(8, "big")
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"meshagent root {sequence}: {name}"[:64])])
    signer = key.certificate_signer()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(signer.public_key())
        .serial_number(serial_of(b"root", key.public, link))
        .not_valid_before(utc(issued_at_s - LONG_AGO_S))
        .not_valid_after(utc(issued_at_s + ROOT_LIFETIME_S))
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(certificate_authority_usage(), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(signer.public_key()), critical=False)
        .add_extension(x509.UnrecognizedExtension(OID_ROOT, der.octets(link)), critical=False)
        .sign(signer, None)
    )
    return certificate.public_bytes(serialization.Encoding.DER)


def parse_root(data: bytes) -> Root:
    """A root certificate, checked for itself alone; `Trust` says whether it belongs to the fleet.

    Raises:
        CertificateError: not a root of our form, or not signed by its own key.
    """
    certificate = parse_certificate(data)
    try:
        certificate.verify_directly_issued_by(certificate)
        public = raw_key(certificate)
        extensions = certificate.extensions
        oids = [extension.oid for extension in extensions]
        constraints = extensions.get_extension_for_class(x509.BasicConstraints)
        usage = extensions.get_extension_for_class(x509.KeyUsage)
        link = der.read_octets(extension_bytes(certificate, OID_ROOT))
        common_name = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    except PARSE_ERRORS as error:
        raise CertificateError(CertificateFault.PROFILE, f"not a root certificate of a fleet: {error}") from error
    if (
        sorted(oids, key=str) != sorted(_ROOT_EXTENSIONS, key=str)
        or constraints.value != x509.BasicConstraints(ca=True, path_length=1)
        or not constraints.critical
        or not usage.value.key_cert_sign
        or len(link) != _LINK_BYTES
    ):
        raise CertificateError(CertificateFault.PROFILE, "a root certificate of another form than ours")
    if not is_valid_point(public):
        raise CertificateError(CertificateFault.UNSAFE_KEY, "the root's key is a point of small order")
    return Root(
        certificate=certificate,
        der=data,
        public_key=public,
        name=str(common_name).partition(": ")[2],
        fleet=link[32:64],
        sequence=int.from_bytes(link[64:68], "big"),
        next_key_hash=link[:32],
        issued_at_s=int.from_bytes(link[68:76], "big"),
        retire_previous_at_s=int.from_bytes(link[76:84], "big"),
    )


class Trust:
    """The chain of a fleet's roots, first to newest."""

    def __init__(self, roots: Sequence[bytes]) -> None:
        """Follow the chain from the genesis root.

        Raises:
            CertificateError: a link of the chain does not hold.
        """
        if not 1 <= len(roots) <= MAX_ROOTS:
            raise CertificateError(CertificateFault.MALFORMED, f"a fleet has 1 to {MAX_ROOTS} roots")
        genesis = parse_root(roots[0])
        if genesis.fleet != _GENESIS or genesis.sequence != 0:
            raise CertificateError(CertificateFault.PROFILE, "the first root certificate is a later root")
        self.fleet: bytes = hashlib.sha256(genesis.der).digest()
        """32 bytes."""
        self._roots = [genesis]
        for data in roots[1:]:
            self.extend(data)

    @property
    def fleet_id(self) -> str:
        """The fleet's id as text, 52 characters; the SPIFFE trust domain."""
        return fleet_name_of(self.fleet)

    @property
    def fleet_name(self) -> str:
        """What its owner called it."""
        return self._roots[-1].name

    @property
    def roots(self) -> tuple[bytes, ...]:
        """The certificates (DER), first to newest: what another device needs to follow."""
        return tuple(root.der for root in self._roots)

    @property
    def newest(self) -> Root:
        return self._roots[-1]

    @property
    def root_pem(self) -> bytes:
        """PEM of the newest root and the one before: what TLS is given. Retirement of the latter is checked by us."""
        return b"".join(root.certificate.public_bytes(serialization.Encoding.PEM) for root in self._roots[:-3:-1])

    def anchors(self, now_s: float) -> tuple[Root, ...]:
        """The roots that may have issued a credential, newest first."""
        newest = self._roots[-1]
        if len(self._roots) > 1 and now_s < newest.retire_previous_at_s:
            return (newest, self._roots[-2])
        return (newest,)

    def issued_by_retired(self, certificate: x509.Certificate) -> bool:
        """Did any root of the chain issue this, anchor or not? For the sentence that an operator reads."""
        for root in self._roots:
            try:
                certificate.verify_directly_issued_by(root.certificate)
            except PARSE_ERRORS:
                continue
            return True
        return False

    def extend(self, data: bytes) -> bool:
        """Follow a rotation: True where `data` is the next root, False where it is known already.

        Raises:
            CertificateError: the newest root did not commit to it.
        """
        if any(root.der == data for root in self._roots):
            return False
        root, newest = parse_root(data), self._roots[-1]
        if root.fleet != self.fleet:
            raise CertificateError(CertificateFault.OTHER_FLEET, "the root belongs to another fleet")
        if root.sequence != newest.sequence + 1 or hashlib.sha256(root.public_key).digest() != newest.next_key_hash:
            raise CertificateError(CertificateFault.PROFILE, "the newest root did not name this key as its successor")
        if len(self._roots) >= MAX_ROOTS:
            raise CertificateError(CertificateFault.MALFORMED, f"over {MAX_ROOTS} roots")
        self._roots.append(root)
        return True


_ROOT_EXTENSIONS: Final = (
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.SUBJECT_KEY_IDENTIFIER,
    OID_ROOT,
)


def utc(seconds: float) -> datetime.datetime:
    """X.509's form of wall seconds."""
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)


def serial_of(*parts: bytes) -> int:
    """A serial number bound to what it numbers: unique, and the same when a seed replays it."""
    return int.from_bytes(hashlib.sha256(b"meshagent/serial/v1\0" + b"".join(parts)).digest()[:19], "big") + 1


def certificate_authority_usage() -> x509.KeyUsage:
    """Signs certificates and nothing else."""
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def parse_certificate(data: bytes) -> x509.Certificate:
    """A certificate of bounded size.

    Raises:
        CertificateError: too long, or not a certificate.
    """
    if len(data) > MAX_CERTIFICATE_BYTES:
        raise CertificateError(CertificateFault.MALFORMED, f"a certificate of over {MAX_CERTIFICATE_BYTES} bytes")
    try:
        certificate = x509.load_der_x509_certificate(data)
        if certificate.version is not x509.Version.v3 or certificate.public_bytes(serialization.Encoding.DER) != data:
            raise ValueError("not one version 3 certificate")
        if certificate.serial_number <= 0:
            raise ValueError("a serial number that is not positive")
    except PARSE_ERRORS as error:
        raise CertificateError(CertificateFault.MALFORMED, f"not a certificate: {error}") from error
    return certificate


def raw_key(certificate: x509.Certificate) -> bytes:
    """The 32 bytes of an Ed25519 certificate. Raises ValueError for any other kind of key."""
    key = certificate.public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("not an Ed25519 key")
    return key.public_bytes_raw()


def extension_bytes(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> bytes:
    """The content of one of our own extensions. Raises x509.ExtensionNotFound."""
    value = certificate.extensions.get_extension_for_oid(oid).value
    if not isinstance(value, x509.UnrecognizedExtension):
        raise ValueError("an extension under our own number that is not ours")
    return value.value
