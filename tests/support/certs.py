"""Certificates as attackers make them: any subject, extensions and signer."""

from __future__ import annotations

from collections.abc import Iterable

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meshagent.identity.device import DeviceIdentity
from meshagent.identity.trust import utc
from tests.support.fleets import NOW_S

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def load(data: bytes) -> x509.Certificate:
    return x509.load_der_x509_certificate(data)


def common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(not ca, False, False, False, False, ca, False, False, False)


def forge(
    subject: x509.Name,
    issuer: x509.Name,
    public: PublicKey,
    signer: PrivateKey,
    extensions: Iterable[tuple[x509.ExtensionType, bool]],
    *,
    not_before_s: float = NOW_S - 3600,
    not_after_s: float = NOW_S + 3600,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(utc(not_before_s))
        .not_valid_after(utc(not_after_s))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(signer, hashes.SHA256() if isinstance(signer, ec.EllipticCurvePrivateKey) else None)


def same_extensions(certificate: x509.Certificate, *without: type) -> list[tuple[x509.ExtensionType, bool]]:
    """The extensions of a genuine certificate, for a forgery that differs in one thing."""
    return [(e.value, e.critical) for e in certificate.extensions if not isinstance(e.value, without)]


def leaf_of(
    identity: DeviceIdentity,
    *,
    subject: str | None = None,
    names: list[x509.GeneralName] | None = None,
    key: PrivateKey | None = None,
    ca: bool = False,
    signs: bool | None = None,
    signer: PrivateKey | None = None,
    **times: float,
) -> bytes:
    """A leaf below a device, wrong in whatever way is asked for."""
    own = f"{identity.node_id}.mesh"
    key = key or ec.generate_private_key(ec.SECP256R1())
    authority = load(identity.credential.der)
    signer = signer or identity.key.certificate_signer()
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=ca, path_length=None), True),
        (usage(ca=ca if signs is None else signs), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False),
        (x509.SubjectAlternativeName(names if names is not None else [x509.DNSName(own)]), False),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(identity.key.certificate_signer().public_key()), False),
    ]
    return der(
        forge(
            common_name(subject if subject is not None else own),
            authority.subject,
            key.public_key(),
            signer,
            extensions,
            **times,
        )
    )
