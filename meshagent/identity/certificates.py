"""Certificates: a device CA over the device's own key, short-lived P-256 leaves below it, and the check of both.

The root issues each device a CA certificate over the device's own Ed25519 key; that is its credential. The device
issues itself leaves for TLS (an Ed25519 leaf is the one variant that BoringSSL refuses). The CA carries critical
NameConstraints of two kinds, DNS and directory name: with none, 11 of 18 impersonation shapes pass stock gRPC, with DNS
alone 6, with both 0. Its subject differs from the leaf's, because a verifier exempts self-issued certificates from the
constraints.

`verify_credential` and `verify_chain` accept exactly the form issued here, whatever else X.509 allows. Absent: who was
revoked or superseded, which needs memory (`book.py`).

Source: RFC 5280 4.2, 6.1; SPIFFE X.509-SVID; SECURITY-DESIGN 3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from meshagent.errors import IdentityError
from meshagent.identity import der
from meshagent.identity.credential import (
    CertificateError,
    CertificateFault,
    Credential,
    check_grants,
    fleet_name_of,
)
from meshagent.identity.keys import DeviceKey, is_valid_point
from meshagent.identity.trust import (
    LONG_AGO_S,
    MAX_CERTIFICATE_BYTES,
    OID_ARC,
    PARSE_ERRORS,
    Root,
    Trust,
    certificate_authority_usage,
    extension_bytes,
    parse_certificate,
    raw_key,
    serial_of,
    utc,
)
from meshagent.types import NodeId, node_id_of

OID_GENERATION: Final = x509.ObjectIdentifier(OID_ARC + ".2")
OID_ISSUED_AT: Final = x509.ObjectIdentifier(OID_ARC + ".3")
OID_MAY: Final = x509.ObjectIdentifier(OID_ARC + ".4")
OID_CAPABILITIES: Final = x509.ObjectIdentifier(OID_ARC + ".5")

MAX_GENERATION: Final = 2**32
MAX_LEAF_LIFETIME_S: Final = 3 * 24 * 3600
"""A leaf key leaves memory only by theft of the process; three days bound what such a theft is worth."""
LEAF_LIFETIME_S: Final = 24 * 3600
MAX_CHAIN_CERTIFICATES: Final = 2
MAX_CHAIN_PEM_BYTES: Final = 4 * MAX_CERTIFICATE_BYTES

_CREDENTIAL_EXTENSIONS: Final = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.NAME_CONSTRAINTS,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        OID_GENERATION,
        OID_ISSUED_AT,
        OID_MAY,
        OID_CAPABILITIES,
    }
)
_LEAF_EXTENSIONS: Final = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    }
)
_LEAF_USAGE: Final = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
_NO_CA: Final = x509.BasicConstraints(ca=False, path_length=None)
_DEVICE_CA: Final = x509.BasicConstraints(ca=True, path_length=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A leaf with its key, for TLS; in memory only."""

    chain_pem: bytes
    """Leaf, then the device CA."""
    key_pem: bytes
    not_after_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedChain:
    """Whom a chain proves, and until when its leaf may be shown."""

    credential: Credential
    leaf_not_after_s: int


def tls_name(peer: NodeId) -> str:
    """The name in a device's leaf; clients set it as `grpc.ssl_target_name_override`."""
    return f"{peer}.mesh"


def _directory_name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _device_subject(peer: NodeId) -> x509.Name:
    return _directory_name(f"device:{peer}")


def _constraints(peer: NodeId) -> x509.NameConstraints:
    name = tls_name(peer)
    return x509.NameConstraints([x509.DNSName(name), x509.DirectoryName(_directory_name(name))], None)


def issue_credential(
    root_key: DeviceKey,
    root: Root,
    *,
    fleet: bytes,
    device: bytes,
    name: str,
    generation: int,
    may: Sequence[str],
    capabilities: Sequence[str],
    now_s: float,
    lifetime_s: float,
) -> bytes:
    """The device CA certificate (DER) over the public key `device`, signed by the root.

    Raises:
        IdentityError: a name or permission out of bounds, an unsafe key, or a root key that is not `root`'s.
    """
    check_grants(name, tuple(may), tuple(capabilities))
    if not is_valid_point(device):
        raise CertificateError(CertificateFault.UNSAFE_KEY, "the device's key is no point of full order")
    if root_key.public != root.public_key:
        raise IdentityError("the key does not belong to the newest root")
    if not 1 <= generation < MAX_GENERATION:
        raise IdentityError(f"generation {generation} is out of range")
    peer = node_id_of(device)
    issued_at_s = int(now_s)
    signer = root_key.certificate_signer()
    public = Ed25519PublicKey.from_public_bytes(device)
    uri = f"spiffe://{fleet_name_of(fleet)}/device/{name}"
    builder = (
        x509.CertificateBuilder()
        .subject_name(_device_subject(peer))
        .issuer_name(root.certificate.subject)
        .public_key(public)
        .serial_number(serial_of(b"device", device, generation.to_bytes(4, "big"), issued_at_s.to_bytes(8, "big")))
        .not_valid_before(utc(issued_at_s - LONG_AGO_S))
        .not_valid_after(utc(issued_at_s + lifetime_s))
        .add_extension(_DEVICE_CA, critical=True)
        .add_extension(certificate_authority_usage(), critical=True)
        .add_extension(_constraints(peer), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    for oid, content in (
        (OID_GENERATION, der.integer(generation)),
        (OID_ISSUED_AT, der.integer(issued_at_s)),
        (OID_MAY, der.text("\n".join(may))),
        (OID_CAPABILITIES, der.text("\n".join(capabilities))),
    ):
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, content), critical=False)
    data = builder.sign(signer, None).public_bytes(serialization.Encoding.DER)
    if len(data) > MAX_CERTIFICATE_BYTES:
        raise IdentityError("permissions and capabilities do not fit into one certificate", next_step="use patterns")
    return data


def issue_leaf(key: DeviceKey, credential: Credential, *, now_s: float, lifetime_s: float = LEAF_LIFETIME_S) -> Leaf:
    """A fresh P-256 key and its certificate, valid until `now_s + lifetime_s` or the credential's end.

    Raises:
        IdentityError: the key is not the credential's, or the lifetime is over `MAX_LEAF_LIFETIME_S`.
    """
    if key.public != credential.public_key:
        raise IdentityError("the key is not the one that the credential names")
    if not 0 < lifetime_s <= MAX_LEAF_LIFETIME_S:
        raise IdentityError(f"a leaf lives at most {MAX_LEAF_LIFETIME_S / 3600:.0f} h")
    not_after_s = min(int(now_s + lifetime_s), credential.not_after_s)
    if not_after_s <= now_s:
        raise CertificateError(
            CertificateFault.EXPIRED,
            "this device's credential has expired",
            next_step=f"where the fleet's key is: meshagent fleet renew {credential.name}",
        )
    leaf_key = ec.generate_private_key(ec.SECP256R1())
    public = leaf_key.public_key()
    signer = key.certificate_signer()
    name = tls_name(credential.peer)
    spki = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_directory_name(name))
        .issuer_name(_device_subject(credential.peer))
        .public_key(public)
        .serial_number(serial_of(b"leaf", spki))
        # As long ago as the credential's: peers' clocks lie, and the key is new anyway.
        .not_valid_before(utc(credential.not_before_s))
        .not_valid_after(utc(not_after_s))
        .add_extension(_NO_CA, critical=True)
        .add_extension(_LEAF_USAGE, critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, None)
    )
    return Leaf(
        chain_pem=certificate.public_bytes(serialization.Encoding.PEM) + pem_of(credential.der),
        key_pem=leaf_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        not_after_s=not_after_s,
    )


def verify_credential(data: bytes, trust: Trust, *, now_s: float) -> Credential:
    """The credential in a device CA certificate, if an anchor of the fleet issued it in exactly our form.

    `now_s` is wall time raised to the newest time that the root ever signed.

    Raises:
        CertificateError: with the fault.
    """
    credential = read_credential(data, trust, now_s=now_s)
    fault = credential.fault_at(now_s)
    if fault is CertificateFault.EXPIRED:
        raise CertificateError(
            fault,
            f"the credential of {credential.name} expired {_ago(now_s - credential.not_after_s)} ago",
            next_step=f"where the fleet's key is: meshagent fleet renew {credential.name}",
        )
    if fault is not None:
        raise CertificateError(
            fault,
            f"the credential of {credential.name} becomes valid in {_ago(credential.not_before_s - now_s)}: "
            "this device's clock is wrong",
            next_step="set the clock (NTP, or date -s)",
        )
    return credential


def read_credential(data: bytes, trust: Trust, *, now_s: float) -> Credential:
    """As `verify_credential`, expired ones too: for `doctor`, `fleet show` and memory. `now_s` picks the anchors."""
    certificate = parse_certificate(data)
    for root in trust.anchors(now_s):
        try:
            certificate.verify_directly_issued_by(root.certificate)
        except PARSE_ERRORS:
            continue
        break
    else:
        if trust.issued_by_retired(certificate):
            raise CertificateError(
                CertificateFault.OTHER_FLEET,
                "issued by a root of this fleet that has been replaced since",
                next_step="where the fleet's key is: meshagent fleet renew, then install the new credential",
            )
        raise CertificateError(CertificateFault.OTHER_FLEET, f"no root of fleet {trust.fleet_id[:8]} issued this")
    try:
        if certificate.subject == certificate.issuer:
            raise CertificateError(CertificateFault.SELF_ISSUED, "subject and issuer are one")
        return _read_fields(certificate, data, trust)
    except CertificateError:
        raise
    except (*PARSE_ERRORS, IdentityError) as error:
        raise CertificateError(CertificateFault.PROFILE, f"not a device certificate of our form: {error}") from error


def _read_fields(certificate: x509.Certificate, data: bytes, trust: Trust) -> Credential:
    public = raw_key(certificate)
    if not is_valid_point(public):
        raise CertificateError(CertificateFault.UNSAFE_KEY, "the device's key is a point of small order")
    peer = node_id_of(public)
    extensions = certificate.extensions
    if {extension.oid for extension in extensions} != _CREDENTIAL_EXTENSIONS:
        raise ValueError("other extensions than ours")
    critical = {extension.oid for extension in extensions if extension.critical}
    if critical != {ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, ExtensionOID.NAME_CONSTRAINTS}:
        raise ValueError("other critical extensions than ours")
    if extensions.get_extension_for_class(x509.BasicConstraints).value != _DEVICE_CA:
        raise ValueError("not a CA of path length 0")
    if extensions.get_extension_for_class(x509.KeyUsage).value != certificate_authority_usage():
        raise ValueError("other key usage than ours")
    if extensions.get_extension_for_class(x509.NameConstraints).value != _constraints(peer):
        raise ValueError("the name constraints are not those of the key")
    if certificate.subject != _device_subject(peer):
        raise ValueError("the subject is not that of the key")
    names = list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    prefix = f"spiffe://{trust.fleet_id}/device/"
    if len(names) != 1 or not isinstance(names[0], x509.UniformResourceIdentifier):
        raise ValueError("not one URI as alternative name")
    uri = names[0].value
    if not uri.startswith(prefix):
        raise ValueError("the URI names another fleet")
    may = _lines(der.read_text(extension_bytes(certificate, OID_MAY)))
    capabilities = _lines(der.read_text(extension_bytes(certificate, OID_CAPABILITIES)))
    check_grants(uri[len(prefix) :], may, capabilities)
    generation = der.read_integer(extension_bytes(certificate, OID_GENERATION), limit=MAX_GENERATION)
    return Credential(
        peer=peer,
        public_key=public,
        name=uri[len(prefix) :],
        fleet=trust.fleet,
        generation=generation,
        issued_at_s=der.read_integer(extension_bytes(certificate, OID_ISSUED_AT), limit=2**62),
        not_before_s=int(certificate.not_valid_before_utc.timestamp()),
        not_after_s=int(certificate.not_valid_after_utc.timestamp()),
        may=may,
        capabilities=capabilities,
        der=data,
    )


def verify_chain(leaf_der: bytes, chain_ders: Sequence[bytes], trust: Trust, *, now_s: float) -> VerifiedChain:
    """Whom a TLS peer is: its leaf and what it sent as chain (with or without the leaf, in the peer's own order).

    Nothing but leaf and one device CA may stand there. More would let an expired CA hide beside a new one, a sub-CA
    slip in as self-issued, or somebody else's CA be taken for the sender's.

    Raises:
        CertificateError: with the fault.
    """
    others = [data for data in chain_ders if data != leaf_der]
    if len(others) != 1 or len(chain_ders) > MAX_CHAIN_CERTIFICATES:
        raise CertificateError(
            CertificateFault.CHAIN_SHAPE, f"a chain is one leaf and one device certificate, here {len(chain_ders)}"
        )
    credential = verify_credential(others[0], trust, now_s=now_s)
    leaf = parse_certificate(leaf_der)
    try:
        _check_leaf(leaf, parse_certificate(others[0]), credential)
    except (*PARSE_ERRORS, IdentityError) as error:
        raise CertificateError(
            CertificateFault.LEAF, f"the leaf is not one that {credential.name} issues itself: {error}"
        ) from error
    not_before_s = int(leaf.not_valid_before_utc.timestamp())
    not_after_s = int(leaf.not_valid_after_utc.timestamp())
    if not not_before_s <= now_s < not_after_s:
        late = now_s >= not_after_s
        raise CertificateError(
            CertificateFault.EXPIRED if late else CertificateFault.NOT_YET_VALID,
            f"the TLS leaf of {credential.name} {'has expired' if late else 'is not valid yet'}: "
            "a clock is wrong, there or here",
        )
    return VerifiedChain(credential=credential, leaf_not_after_s=not_after_s)


def _check_leaf(leaf: x509.Certificate, authority: x509.Certificate, credential: Credential) -> None:
    leaf.verify_directly_issued_by(authority)
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("not a P-256 key")
    extensions = leaf.extensions
    if {extension.oid for extension in extensions} != _LEAF_EXTENSIONS:
        raise ValueError("other extensions than ours")
    if extensions.get_extension_for_class(x509.BasicConstraints).value != _NO_CA:
        raise ValueError("a CA")
    if extensions.get_extension_for_class(x509.KeyUsage).value != _LEAF_USAGE:
        raise ValueError("other key usage than ours")
    name = tls_name(credential.peer)
    if leaf.subject != _directory_name(name):
        raise ValueError("the subject names somebody else")
    names = list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    if names != [x509.DNSName(name)]:
        raise ValueError("the alternative name is somebody else's")


def split_pem(pem: bytes) -> list[bytes]:
    """The certificates (DER) of a PEM text, as gRPC hands over a peer's chain.

    Raises:
        CertificateError: too long, or not PEM certificates.
    """
    if len(pem) > MAX_CHAIN_PEM_BYTES:
        raise CertificateError(CertificateFault.MALFORMED, "a chain too long to be one of ours")
    try:
        return [c.public_bytes(serialization.Encoding.DER) for c in x509.load_pem_x509_certificates(pem)]
    except PARSE_ERRORS as error:
        raise CertificateError(CertificateFault.MALFORMED, f"not certificates: {error}") from error


def pem_of(data: bytes) -> bytes:
    """PEM of a DER certificate."""
    return parse_certificate(data).public_bytes(serialization.Encoding.PEM)


def chain_fingerprint(leaf_der: bytes, issuer_der: bytes) -> bytes:
    """Under what a verified chain is remembered: leaf and issuer both, so that neither can be exchanged."""
    return hashlib.sha256(len(leaf_der).to_bytes(4, "big") + leaf_der + issuer_der).digest()


def _lines(text: str) -> tuple[str, ...]:
    return tuple(text.split("\n")) if text else ()


def _ago(seconds: float) -> str:
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 2 * 24 * 3600:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86400:.0f} days"
