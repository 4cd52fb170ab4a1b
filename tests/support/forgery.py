"""Certificates that a dishonest member of the fleet could make: leaves of 18 shapes that claim another's name."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from meshagent.types import NodeId, node_id_of
from tests.support.meshes import TestFleet

_ANY_OID = ObjectIdentifier("1.3.6.1.4.1.55555.1.1")


class Constraints(Enum):
    """What name constraints the fleet's root would have put into the device certificates."""

    NONE = "none"
    DNS_ONLY = "DNS only"
    BOTH = "DNS and directory name"


@dataclass(frozen=True)
class Shape:
    """A leaf's subject and alternative names; `{v}` is the victim's name, `{m}` the attacker's own."""

    label: str
    common_names: tuple[str, ...]
    names: tuple[tuple[str, str], ...] | None
    passes: frozenset[Constraints]
    """Under which constraints stock gRPC takes it for the victim; measured, and what makes the test able to fail."""


_NEVER: frozenset[Constraints] = frozenset()
_WITHOUT_ANY = frozenset({Constraints.NONE})
_UNLESS_BOTH = frozenset({Constraints.NONE, Constraints.DNS_ONLY})

SHAPES = (
    Shape("san_victim", ("{m}",), (("dns", "{v}"),), _WITHOUT_ANY),
    Shape("san_victim_cn_victim", ("{v}",), (("dns", "{v}"),), _WITHOUT_ANY),
    Shape("no_san_cn_victim", ("{v}",), None, _WITHOUT_ANY),
    Shape("san_own_cn_victim", ("{v}",), (("dns", "{m}"),), _NEVER),
    Shape("uri_only_cn_victim", ("{v}",), (("uri", "x://y"),), _UNLESS_BOTH),
    Shape("ip_only_cn_victim", ("{v}",), (("ip", "127.0.0.1"),), _UNLESS_BOTH),
    Shape("email_only_cn_victim", ("{v}",), (("email", "a@example.org"),), _UNLESS_BOTH),
    Shape("rid_only_cn_victim", ("{v}",), (("rid", ""),), _UNLESS_BOTH),
    Shape("other_name_only_cn_victim", ("{v}",), (("other", ""),), _UNLESS_BOTH),
    Shape("uri_only_cn_own_then_victim", ("{m}", "{v}"), (("uri", "x://y"),), _NEVER),
    Shape("uri_only_cn_victim_then_own", ("{v}", "{m}"), (("uri", "x://y"),), _UNLESS_BOTH),
    Shape("uri_is_victim", ("{m}",), (("uri", "{v}"),), _NEVER),
    Shape("email_is_victim", ("{m}",), (("email", "a@{v}"),), _NEVER),
    Shape("san_own_and_uri_cn_victim", ("{v}",), (("dns", "{m}"), ("uri", "x://y")), _NEVER),
    Shape("san_below_own", ("{m}",), (("dns", "b.{m}"),), _NEVER),
    Shape("san_wildcard", ("{m}",), (("dns", "*.mesh"),), _WITHOUT_ANY),
    Shape("empty_subject_uri_only", (), (("uri", "x://y"),), _NEVER),
    Shape("empty_subject_san_victim", (), (("dns", "{v}"),), _WITHOUT_ANY),
)


@dataclass(frozen=True)
class Forged:
    """What a TLS server or client shows."""

    chain_pem: bytes
    key_pem: bytes


class Forger:
    """A member of the fleet with its own key, whose device certificate carries the given constraints."""

    def __init__(self, fleet: TestFleet, constraints: Constraints) -> None:
        self._key = Ed25519PrivateKey.generate()
        public = self._key.public_key().public_bytes_raw()
        self.node_id = node_id_of(public)
        self._own = f"{self.node_id}.mesh"
        self._certificate = self._admit(fleet, constraints, public)

    def _admit(self, fleet: TestFleet, constraints: Constraints, public: bytes) -> x509.Certificate:
        root = fleet.trust.newest
        name = _name(("{m}",), self._own, "")
        subtrees: list[x509.GeneralName] = []
        if constraints is not Constraints.NONE:
            subtrees.append(x509.DNSName(self._own))
        if constraints is Constraints.BOTH:
            subtrees.append(x509.DirectoryName(name))
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name((f"device:{self.node_id}",), "", ""))
            .issuer_name(root.certificate.subject)
            .public_key(Ed25519PublicKey.from_public_bytes(public))
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        )
        if subtrees:
            builder = builder.add_extension(x509.NameConstraints(subtrees, None), critical=True)
        return builder.sign(fleet.key.certificate_signer(), None)

    def leaf(self, shape: Shape, victim: NodeId) -> Forged:
        """A leaf of that shape."""
        return self._leaf(shape.common_names, shape.names, f"{victim}.mesh")

    def honest_leaf(self) -> Forged:
        """A leaf for its own name."""
        return self._leaf(("{m}",), (("dns", "{m}"),), "")

    def _leaf(self, commons: Sequence[str], names: Sequence[tuple[str, str]] | None, victim: str) -> Forged:
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(commons, self._own, victim))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        )
        if names is not None:
            alternatives = [_general(kind, text.format(v=victim, m=self._own)) for kind, text in names]
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=not commons)
        certificate = builder.sign(self._key, None)
        encoding = serialization.Encoding.PEM
        return Forged(
            certificate.public_bytes(encoding) + self._certificate.public_bytes(encoding),
            key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        )


def _name(commons: Sequence[str], own: str, victim: str) -> x509.Name:
    # X.520 allows a common name of 64 characters; node names have 57
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text.format(v=victim, m=own)) for text in commons])


def _general(kind: str, text: str) -> x509.GeneralName:
    match kind:
        case "dns":
            return x509.DNSName(text)
        case "uri":
            return x509.UniformResourceIdentifier(text)
        case "ip":
            return x509.IPAddress(ipaddress.ip_address(text))
        case "email":
            return x509.RFC822Name(text)
        case "rid":
            return x509.RegisteredID(_ANY_OID)
        case _:
            return x509.OtherName(_ANY_OID, b"\x04\x01x")
