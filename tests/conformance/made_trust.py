"""Vectors of certificates with their verdicts, and of revocation lists."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Final
from unittest import mock

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID

from meshagent.identity import der
from meshagent.identity.certificates import (
    OID_CAPABILITIES,
    OID_GENERATION,
    OID_MAY,
    issue_credential,
    issue_leaf,
    read_credential,
)
from meshagent.identity.credential import Credential
from meshagent.identity.device import DeviceIdentity
from meshagent.identity.keys import DeviceKey, Tag
from meshagent.identity.revocation import RevocationEntry, RevocationReason, sign_list
from meshagent.identity.trust import Trust, issue_root, utc
from tests.conformance.made_identity import SMALL_ORDER
from tests.support.certs import common_name, same_extensions, usage
from tests.support.fleets import NOW_S, admit, authority

DAY_S: Final = 86_400
NOW: Final = int(NOW_S)
Private = ec.EllipticCurvePrivateKey


def _fixed_key(number: int, curve: ec.EllipticCurve | None = None) -> Private:
    return ec.derive_private_key(10**20 + number, curve or ec.SECP256R1())


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def _leaf(device: DeviceIdentity, *, now_s: float = NOW_S, number: int = 1) -> bytes:
    """The genuine leaf, with a key that does not change from run to run."""
    with mock.patch("meshagent.identity.certificates.ec.generate_private_key", return_value=_fixed_key(number)):
        leaf = issue_leaf(device.key, device.credential, now_s=now_s)
    return _der(x509.load_pem_x509_certificates(leaf.chain_pem)[0])


def _made(
    subject: x509.Name,
    issuer: x509.Name,
    public: Any,
    signer: Any,
    extensions: Iterable[tuple[x509.ExtensionType, bool]],
    *,
    not_before_s: float = NOW_S - DAY_S,
    not_after_s: float = NOW_S + DAY_S,
    serial: int = 4711,
) -> bytes:
    builder = x509.CertificateBuilder(
        issuer, subject, public, serial, utc(not_before_s).replace(tzinfo=None), utc(not_after_s).replace(tzinfo=None)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return _der(builder.sign(signer, None if not isinstance(signer, Private) else hashes.SHA256()))


def _altered(
    fleet: _Fleet,
    device: DeviceIdentity,
    *,
    subject: x509.Name | None = None,
    key: bytes | None = None,
    without: type | None = None,
    without_oid: x509.ObjectIdentifier | None = None,
    plus: Sequence[tuple[x509.ExtensionType, bool]] = (),
    signer: Any = None,
    issuer: x509.Name | None = None,
) -> bytes:
    """The device's certificate with one thing changed, signed by the root all the same."""
    genuine = x509.load_der_x509_certificate(device.credential.der)
    kept = same_extensions(genuine, *([without] if without else []))
    if without_oid is not None:
        kept = [(value, critical) for value, critical in kept if value.oid != without_oid]
    public = Ed25519PublicKey.from_public_bytes(key) if key else genuine.public_key()
    return _made(
        subject or genuine.subject,
        issuer or genuine.issuer,
        public,
        signer or fleet.root_signer(),
        [*kept, *plus],
    )


class _Fleet:
    """What the vectors need of a fleet's owner."""

    def __init__(self, name: str) -> None:
        self.key = DeviceKey(hashlib.sha256(b"root of " + name.encode()).digest())
        self.next_key = DeviceKey(hashlib.sha256(b"next root of " + name.encode()).digest())
        self.after_key = DeviceKey(hashlib.sha256(b"third root of " + name.encode()).digest())
        self.root = issue_root(self.key, self.next_key.public, name=name, now_s=NOW_S - 100 * DAY_S)
        self.trust = Trust([self.root])
        self.next_root = issue_root(
            self.next_key,
            self.after_key.public,
            name=name,
            now_s=NOW_S - 10 * DAY_S,
            fleet=self.trust.fleet,
            sequence=1,
            overlap_s=30 * DAY_S,
        )

    def root_signer(self) -> Any:
        return self.key.certificate_signer()

    def device(
        self, name: str, *, generation: int = 1, issued_s: float = NOW_S, days: float = 365, **grants: Any
    ) -> DeviceIdentity:
        key = DeviceKey(hashlib.sha256(name.encode()).digest())
        data = issue_credential(
            self.key,
            self.trust.newest,
            fleet=self.trust.fleet,
            device=key.public,
            name=name,
            generation=generation,
            may=grants.get("may", ("announce:*", "perform:pump.*")),
            capabilities=grants.get("capabilities", ("legs",)),
            now_s=issued_s,
            lifetime_s=days * DAY_S,
        )
        return DeviceIdentity(key, read_credential(data, self.trust, now_s=NOW_S), self.trust)


def certificates() -> dict[str, Any]:
    """Chains as a peer sends them, with the verdict."""
    fleet, other = _Fleet("vectors"), _Fleet("others")
    dog = fleet.device("dog")
    chains = [_told(why, chain, now_s, roots, ok) for why, chain, now_s, roots, ok in _chains(fleet, other, dog)]
    return {
        "about": "Section 3 of docs/protocol.md. A chain is what the peer sent. `id`: whom it proves, null: refused.",
        "fleet": fleet.trust.fleet.hex(),
        "fleet_id": fleet.trust.fleet_id,
        "root": fleet.root.hex(),
        "next_root": fleet.next_root.hex(),
        "not_next_roots": {
            "of another fleet": other.next_root.hex(),
            "a key that was not named": issue_root(
                fleet.after_key,
                fleet.key.public,
                name="vectors",
                now_s=NOW_S,
                fleet=fleet.trust.fleet,
                sequence=1,
            ).hex(),
            "a gap in the sequence": issue_root(
                fleet.next_key,
                fleet.after_key.public,
                name="vectors",
                now_s=NOW_S,
                fleet=fleet.trust.fleet,
                sequence=2,
            ).hex(),
        },
        "dog": {
            "key": dog.key.public.hex(),
            "id": dog.node_id,
            "name": dog.name,
            "generation": dog.credential.generation,
            "issued_at_s": dog.credential.issued_at_s,
            "not_before_s": dog.credential.not_before_s,
            "not_after_s": dog.credential.not_after_s,
            "may": list(dog.credential.may),
            "capabilities": list(dog.credential.capabilities),
        },
        "chains": chains,
    }


Case = tuple[str, list[bytes], int, list[str], DeviceIdentity | None]


def _told(why: str, chain: list[bytes], now_s: int, roots: list[str], ok: DeviceIdentity | None) -> dict[str, Any]:
    return {
        "why": why,
        "now_s": now_s,
        "roots": roots,
        "id": ok.node_id if ok is not None else None,
        "chain": [data.hex() for data in chain],
    }


def _chains(fleet: _Fleet, other: _Fleet, dog: DeviceIdentity) -> Iterable[Case]:
    one, both = ["root"], ["root", "next_root"]
    leaf, authority_der = _leaf(dog), dog.credential.der
    good = [leaf, authority_der]
    expires = dog.credential.not_after_s
    last = _leaf(dog, now_s=expires - 100, number=2)
    yield "valid", good, NOW, one, dog
    yield "the last second of the leaf", good, NOW + DAY_S - 1, one, dog
    yield "the leaf has expired", good, NOW + DAY_S, one, None
    yield "the last second of the credential", [last, authority_der], expires - 1, one, dog
    yield "the credential has expired", [last, authority_der], expires, one, None
    yield "the first second", good, dog.credential.not_before_s, one, dog
    yield "not yet valid", good, dog.credential.not_before_s - 1, one, None
    yield "the root before, while it overlaps", good, NOW, both, dog
    later = _leaf(dog, now_s=NOW_S + 21 * DAY_S, number=3)
    yield "the root before, retired", [later, authority_der], NOW + 21 * DAY_S, both, None
    cat = other.device("cat")
    yield "another fleet", [_leaf(cat), cat.credential.der], NOW, one, None
    yield "no chain", [leaf], NOW, one, None
    yield "the wrong order", good[::-1], NOW, one, None
    yield "one certificate too many", [*good, fleet.root], NOW, one, None
    rat = fleet.device("rat")
    yield "the certificate of somebody else", [leaf, rat.credential.der], NOW, one, None
    yield from ((why, [leaf, data], NOW, one, None) for why, data in _authorities(fleet, dog, rat))
    yield from ((why, [data, authority_der], NOW, one, None) for why, data in _leaves(dog, rat))


def _authorities(fleet: _Fleet, dog: DeviceIdentity, rat: DeviceIdentity) -> Iterable[tuple[str, bytes]]:
    mine, theirs = f"{dog.node_id}.mesh", f"{rat.node_id}.mesh"
    constraints = x509.NameConstraints

    def named(*names: x509.GeneralName) -> tuple[x509.ExtensionType, bool]:
        return constraints(list(names), None), True

    dns, place = x509.DNSName(mine), x509.DirectoryName(common_name(mine))
    cases: tuple[tuple[str, Any], ...] = (
        ("no name constraints", {"without": constraints}),
        ("name constraints of DNS alone", {"without": constraints, "plus": [named(dns)]}),
        ("name constraints of the directory alone", {"without": constraints, "plus": [named(place)]}),
        (
            "name constraints of somebody else",
            {"without": constraints, "plus": [named(x509.DNSName(theirs), x509.DirectoryName(common_name(theirs)))]},
        ),
        ("name constraints that are not critical", {"without": constraints, "plus": [(named(dns, place)[0], False)]}),
        ("name constraints in the other order", {"without": constraints, "plus": [named(place, dns)]}),
        ("a longer path", {"without": x509.BasicConstraints, "plus": [(x509.BasicConstraints(True, 1), True)]}),
        ("no authority", {"without": x509.BasicConstraints, "plus": [(x509.BasicConstraints(False, None), True)]}),
        ("another key usage", {"without": x509.KeyUsage, "plus": [(usage(ca=False), True)]}),
        ("another subject", {"subject": common_name(f"device:{rat.node_id}")}),
        ("a subject equal to its issuer", {"subject": x509.load_der_x509_certificate(fleet.root).subject}),
        ("the key of somebody else", {"key": rat.key.public}),
        ("a key of small order", {"key": SMALL_ORDER[3]}),
        (
            "another fleet in the URI",
            {
                "without": x509.SubjectAlternativeName,
                "plus": [
                    (
                        x509.SubjectAlternativeName(
                            [x509.UniformResourceIdentifier(f"spiffe://{dog.node_id}/device/dog")]
                        ),
                        False,
                    )
                ],
            },
        ),
        ("one extension too many", {"plus": [(x509.OCSPNoCheck(), False)]}),
        ("no generation", {"without_oid": OID_GENERATION}),
        (
            "a generation with a leading zero",
            {"without_oid": OID_GENERATION, "plus": [_own(OID_GENERATION, b"\x02\x02\x00\x01")]},
        ),
        ("a negative generation", {"without_oid": OID_GENERATION, "plus": [_own(OID_GENERATION, b"\x02\x01\xff")]}),
        ("a permission of another grammar", {"without_oid": OID_MAY, "plus": [_own(OID_MAY, der.text("perform"))]}),
        (
            "a capability twice",
            {"without_oid": OID_CAPABILITIES, "plus": [_own(OID_CAPABILITIES, der.text("legs\nlegs"))]},
        ),
        ("the root's name, another's signature", {"signer": rat.key.certificate_signer()}),
    )
    for why, changes in cases:
        yield why, _altered(fleet, dog, **changes)


def _own(oid: x509.ObjectIdentifier, content: bytes) -> tuple[x509.ExtensionType, bool]:
    return x509.UnrecognizedExtension(oid, content), False


def _leaves(dog: DeviceIdentity, rat: DeviceIdentity) -> Iterable[tuple[str, bytes]]:
    issuer = x509.load_der_x509_certificate(dog.credential.der).subject
    mine, theirs = f"{dog.node_id}.mesh", f"{rat.node_id}.mesh"
    own = dog.key.certificate_signer()

    def leaf(
        *,
        subject: str = mine,
        names: list[x509.GeneralName] | None = None,
        key: Private | None = None,
        ca: bool = False,
        signer: Any = own,
        by: x509.Name = issuer,
        plus: Sequence[tuple[x509.ExtensionType, bool]] = (),
    ) -> bytes:
        public = (key or _fixed_key(9)).public_key()
        extensions: list[tuple[x509.ExtensionType, bool]] = [
            (x509.BasicConstraints(ca, None), True),
            (usage(ca=ca), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False),
            (x509.SubjectAlternativeName(names or [x509.DNSName(mine)]), False),
            (x509.SubjectKeyIdentifier.from_public_key(public), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(own.public_key()), False),
            *plus,
        ]
        return _made(common_name(subject), by, public, signer, extensions)

    yield "a leaf of another device", leaf(signer=rat.key.certificate_signer())
    yield "a leaf with another issuer's name", leaf(by=common_name(f"device:{rat.node_id}"))
    yield "a leaf for somebody else", leaf(subject=theirs, names=[x509.DNSName(theirs)])
    yield "a leaf with a second name", leaf(names=[x509.DNSName(mine), x509.DNSName(theirs)])
    yield "a leaf whose subject is somebody else's", leaf(subject=theirs)
    yield "a leaf that is an authority", leaf(ca=True)
    yield "a leaf on another curve", leaf(key=_fixed_key(9, ec.SECP384R1()))
    yield "a leaf with one extension too many", leaf(plus=[(x509.OCSPNoCheck(), False)])


# ---- revocation


def revocation() -> dict[str, Any]:
    """Lists as they travel."""
    fleet, other = _Fleet("vectors"), _Fleet("others")
    warden = fleet.device("warden", may=("announce:*", "revoke:*"))
    dog = fleet.device("dog")
    entries = [
        RevocationEntry(dog.key.public, 3, RevocationReason.KEY_COMPROMISE, NOW + 100 * DAY_S),
        RevocationEntry(DeviceKey(bytes(32)).public, 2**32 - 1, RevocationReason.SUPERSEDED, NOW + DAY_S),
        RevocationEntry(warden.key.public, 1, RevocationReason.UNSPECIFIED, 2**63),
    ]
    by_root = sign_list(fleet.key, fleet.trust.fleet, entries, number=6, now_s=NOW_S)
    by_warden = sign_list(
        warden.key, fleet.trust.fleet, entries[:1], number=1, now_s=NOW_S, credential=warden.credential
    )
    empty = sign_list(fleet.key, fleet.trust.fleet, [], number=7, now_s=NOW_S)
    return {
        "about": "Section 13 of docs/protocol.md, at `now_s`.",
        "now_s": NOW,
        "root": fleet.root.hex(),
        "accepted": [
            {
                "number": one.number,
                "issued_at_s": one.issued_at_s,
                "signer": one.signer.hex(),
                "entries": [[e.key.hex(), e.min_generation, int(e.reason), e.not_after_s] for e in one.entries],
                "list": one.signed.hex(),
            }
            for one in (by_root, by_warden, empty)
        ],
        "refused": [
            {"why": why, "list": data.hex()}
            for why, data in _refused_lists(fleet, other, dog, warden.credential, by_root.signed, by_warden.signed)
        ],
    }


def _refused_lists(
    fleet: _Fleet, other: _Fleet, dog: DeviceIdentity, warden: Credential, by_root: bytes, by_warden: bytes
) -> Iterable[tuple[str, bytes]]:
    tag = Tag.REVOCATION.value
    head = len(tag) + 82
    body, rows = by_root[len(tag) : head], by_root[head:-64]
    swapped = rows[45:90] + rows[:45] + rows[90:]

    def signed(key: DeviceKey, content: bytes) -> bytes:
        return tag + content + key.sign(Tag.REVOCATION, content)

    yield "cut short", by_root[:-1]
    yield "another tag", b"x" + by_root[1:]
    yield "one bit of an entry", by_root[: head + 33] + bytes([by_root[head + 33] ^ 1]) + by_root[head + 34 :]
    yield "not sorted", signed(fleet.key, body + swapped)
    yield "a device twice", signed(fleet.key, body + rows[:45] * 3)
    yield "another fleet", sign_list(fleet.key, other.trust.fleet, [], number=1, now_s=NOW_S).signed
    yield "another fleet's root", sign_list(other.key, fleet.trust.fleet, [], number=1, now_s=NOW_S).signed
    yield (
        "a device that may not",
        sign_list(dog.key, fleet.trust.fleet, [], number=1, now_s=NOW_S, credential=dog.credential).signed,
    )
    yield (
        "somebody else's certificate",
        sign_list(dog.key, fleet.trust.fleet, [], number=1, now_s=NOW_S, credential=warden).signed,
    )
    yield "a device without its certificate", by_warden[: -len(warden.der)]
    yield "2049 entries", tag + body[:-2] + (2049).to_bytes(2, "big") + by_root[head:]


__all__ = ["NOW", "admit", "authority", "certificates", "revocation"]
