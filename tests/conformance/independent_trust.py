"""Certificates, Hello and revocation lists from docs/protocol.md alone: part two of `independent.py`."""

from __future__ import annotations

import datetime
import itertools
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from tests.conformance.independent import HELLO, REVOCATION, Refused, base32, need, safe_key, sha256, signed_by

ARC: Final = "2.25.166661804704122676513541749248498749604."
_STANDARD: Final = {
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.SUBJECT_KEY_IDENTIFIER,
}
ROOT_EXTENSIONS: Final = {*_STANDARD, x509.ObjectIdentifier(ARC + "1")}
DEVICE_EXTENSIONS: Final = {
    *_STANDARD,
    ExtensionOID.NAME_CONSTRAINTS,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    *(x509.ObjectIdentifier(ARC + str(n)) for n in (2, 3, 4, 5)),
}
LEAF_EXTENSIONS: Final = {
    *_STANDARD,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
}
CRITICAL: Final = {ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, ExtensionOID.NAME_CONSTRAINTS}
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_MAY: Final = re.compile(r"[a-z][a-z_-]{0,30}:(\*|[A-Za-z0-9_.-]{1,127}\*?)")
_CAPABILITY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:+-]{0,63}")
ERRORS: Final = (ValueError, TypeError, LookupError, InvalidSignature, UnsupportedAlgorithm)


@dataclass
class Root:
    certificate: x509.Certificate
    key: bytes
    next_hash: bytes
    fleet: bytes
    sequence: int
    retire_previous_at: int


@dataclass
class Device:
    key: bytes
    name: str
    generation: int
    issued_at: int
    not_before: int
    not_after: int
    may: tuple[str, ...]
    capabilities: tuple[str, ...]
    certificate: x509.Certificate


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(not ca, False, False, False, False, ca, False, False, False)


def _named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _der_value(kind: int, data: bytes) -> bytes:
    """3: the one DER value in an extension, lengths in their shortest form."""
    need(len(data) >= 2 and data[0] == kind, "another DER type")
    size, at = data[1], 2
    if size & 0x80:
        at += size & 0x7F
        size = int.from_bytes(data[2:at], "big")
        need(size >= 0x80 and data[2] and len(data) > at, "a longer length than needed")
    need(len(data) == at + size, "another length")
    return data[at:]


def _integer(data: bytes) -> int:
    content = _der_value(2, data)
    need(content and content[0] < 0x80, "an integer that is not positive")
    need(len(content) == 1 or content[0] or content[1] >= 0x80, "a longer integer than needed")
    return int.from_bytes(content, "big")


def _parse(der: bytes) -> x509.Certificate:
    need(len(der) <= 8192, "too long")
    try:
        certificate = x509.load_der_x509_certificate(der)
        need(certificate.version is x509.Version.v3 and certificate.serial_number > 0, "version or serial")
        need(certificate.public_bytes(serialization.Encoding.DER) == der, "another encoding")
    except ERRORS as error:
        raise Refused(f"no certificate: {error}") from error
    return certificate


def _own(certificate: x509.Certificate, number: int) -> bytes:
    value = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier(ARC + str(number))).value
    assert isinstance(value, x509.UnrecognizedExtension)
    return value.value


def _extensions(certificate: x509.Certificate, wanted: set[Any]) -> set[Any]:
    """All of them, once each; returns the critical ones."""
    found = [one.oid for one in certificate.extensions]
    need(set(found) == wanted and len(found) == len(wanted), "other extensions")
    return {one.oid for one in certificate.extensions if one.critical}


def _ed25519(certificate: x509.Certificate) -> bytes:
    key = certificate.public_key()
    need(isinstance(key, Ed25519PublicKey), "no Ed25519 key")
    assert isinstance(key, Ed25519PublicKey)
    need(safe_key(key.public_bytes_raw()), "an unsafe key")
    return key.public_bytes_raw()


def _issued(certificate: x509.Certificate, issuer: x509.Certificate, key: bytes) -> bool:
    return certificate.issuer == issuer.subject and signed_by(
        key, certificate.tbs_certificate_bytes, certificate.signature
    )


def read_root(der: bytes) -> Root:
    certificate = _parse(der)
    try:
        key = _ed25519(certificate)
        critical = _extensions(certificate, ROOT_EXTENSIONS)
        need(critical == {ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE}, "critical extensions")
        need(_issued(certificate, certificate, key), "not signed by itself")
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        need(basic == x509.BasicConstraints(True, 1) and usage == _usage(ca=True), "not a root")
        link = _der_value(4, _own(certificate, 1))
    except ERRORS as error:
        raise Refused(f"no root: {error}") from error
    need(len(link) == 84, "84 bytes")
    next_hash, fleet, sequence, _issued_at, retire = struct.unpack(">32s32sIQQ", link)
    return Root(certificate, key, next_hash, fleet, sequence, retire)


class Roots:
    """3: the chain from the first root on."""

    def __init__(self, ders: Sequence[bytes]) -> None:
        first = read_root(ders[0])
        need(first.fleet == bytes(32) and first.sequence == 0, "not a first root")
        self.fleet = sha256(ders[0])
        self.chain = [first]
        for der in ders[1:]:
            self.follow(der)

    def follow(self, der: bytes) -> None:
        root, last = read_root(der), self.chain[-1]
        need(root.fleet == self.fleet and root.sequence == last.sequence + 1, "not the next root")
        need(sha256(root.key) == last.next_hash and len(self.chain) < 16, "a key that was not named")
        self.chain.append(root)

    def anchors(self, now_s: float) -> list[Root]:
        overlap = len(self.chain) > 1 and now_s < self.chain[-1].retire_previous_at
        return self.chain[-2:] if overlap else self.chain[-1:]


def read_device(der: bytes, roots: Roots, now_s: float) -> Device:
    """3, steps 2 to 5."""
    certificate = _parse(der)
    issuers = [root for root in roots.anchors(now_s) if _issued(certificate, root.certificate, root.key)]
    need(issuers and certificate.subject != certificate.issuer, "no root of this fleet issued it")
    try:
        device = _device(certificate, roots)
    except ERRORS as error:
        raise Refused(f"no device certificate: {error}") from error
    need(device.not_before <= now_s < device.not_after, "not valid now")
    return device


def _device(certificate: x509.Certificate, roots: Roots) -> Device:
    key = _ed25519(certificate)
    node = base32(key)
    need(_extensions(certificate, DEVICE_EXTENSIONS) == CRITICAL, "critical extensions")
    value = certificate.extensions.get_extension_for_class
    need(value(x509.BasicConstraints).value == x509.BasicConstraints(True, 0), "path length")
    need(value(x509.KeyUsage).value == _usage(ca=True), "key usage")
    permitted = [x509.DNSName(f"{node}.mesh"), x509.DirectoryName(_named(f"{node}.mesh"))]
    need(value(x509.NameConstraints).value == x509.NameConstraints(permitted, None), "name constraints")
    need(certificate.subject == _named(f"device:{node}"), "subject")
    names = list(value(x509.SubjectAlternativeName).value)
    prefix = f"spiffe://{base32(roots.fleet)}/device/"
    need(len(names) == 1 and isinstance(names[0], x509.UniformResourceIdentifier), "one URI")
    need(names[0].value.startswith(prefix), "another fleet")
    name = names[0].value[len(prefix) :]
    lists = [_der_value(12, _own(certificate, n)).decode() for n in (4, 5)]
    may, capabilities = (tuple(text.split("\n")) if text else () for text in lists)
    need(_NAME.fullmatch(name), "name")
    for pattern, found in ((_MAY, may), (_CAPABILITY, capabilities)):
        need(len(found) <= 64 and len(set(found)) == len(found), "too many, or one twice")
        need(all(pattern.fullmatch(one) for one in found), "grammar")
    generation = _integer(_own(certificate, 2))
    need(generation < 2**32, "generation")
    return Device(
        key,
        name,
        generation,
        _integer(_own(certificate, 3)),
        _seconds(certificate.not_valid_before_utc),
        _seconds(certificate.not_valid_after_utc),
        may,
        capabilities,
        certificate,
    )


def _seconds(moment: datetime.datetime) -> int:
    return int(moment.timestamp())


def verify_chain(chain: Sequence[bytes], roots: Roots, now_s: float) -> Device:
    """3, steps 1 to 6."""
    need(len(chain) == 2, "a leaf and a device certificate")
    device = read_device(chain[1], roots, now_s)
    leaf, node = _parse(chain[0]), base32(device.key)
    try:
        need(_issued(leaf, device.certificate, device.key), "not issued by its device")
        key = leaf.public_key()
        need(isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1), "P-256")
        _extensions(leaf, LEAF_EXTENSIONS)
        value = leaf.extensions.get_extension_for_class
        need(value(x509.BasicConstraints).value == x509.BasicConstraints(False, None), "an authority")
        need(value(x509.KeyUsage).value == _usage(ca=False), "key usage")
        need(leaf.subject == _named(f"{node}.mesh"), "subject")
        need(list(value(x509.SubjectAlternativeName).value) == [x509.DNSName(f"{node}.mesh")], "alternative name")
    except ERRORS as error:
        raise Refused(f"no leaf: {error}") from error
    need(_seconds(leaf.not_valid_before_utc) <= now_s < _seconds(leaf.not_valid_after_utc), "not valid now")
    return device


def issue_leaf(key: Ed25519PrivateKey, device_der: bytes, lifetime_s: int = 3600) -> tuple[bytes, bytes]:
    """3: a leaf of one's own, as (chain PEM, key PEM)."""
    device = x509.load_der_x509_certificate(device_der)
    name = f"{base32(key.public_key().public_bytes_raw())}.mesh"
    own = ec.generate_private_key(ec.SECP256R1())
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=lifetime_s)
    leaf = (
        x509.CertificateBuilder(device.subject, _named(name), own.public_key(), x509.random_serial_number())
        .not_valid_before(device.not_valid_before_utc)
        .not_valid_after(min(until, device.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(False, None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, None)
    )
    pem = serialization.Encoding.PEM
    private = own.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return leaf.public_bytes(pem) + device.public_bytes(pem), private


def pem_to_ders(pem: bytes) -> list[bytes]:
    return [one.public_bytes(serialization.Encoding.DER) for one in x509.load_pem_x509_certificates(pem)]


def der_to_pem(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM)


# ---- 6: Hello

_HELLO: Final = struct.Struct(">32s32s32s16s16s16sQHH16sIQQH")
HELLO_FIELDS: Final = (
    *("fleet", "sender", "to", "boot", "nonce", "echo", "hlc", "version_min", "version_max"),
    *("known_boot", "known_generation", "next_direct", "next_broadcast"),
)


def write_hello(key: Ed25519PrivateKey, credential: bytes, **fields: Any) -> bytes:
    body = HELLO + _HELLO.pack(*(fields[name] for name in HELLO_FIELDS), len(credential)) + credential
    return body + key.sign(body)


def read_hello(data: bytes) -> dict[str, Any]:
    """6, step 2."""
    end = len(HELLO) + _HELLO.size
    need(data.startswith(HELLO) and len(data) >= end + 64, "no Hello")
    *values, length = _HELLO.unpack_from(data, len(HELLO))
    fields = dict(zip(HELLO_FIELDS, values, strict=True))
    need(len(data) == end + length + 64 and length <= 8192, "length")
    need(1 <= fields["version_min"] <= fields["version_max"] and fields["nonce"] != bytes(16), "versions, nonce")
    return fields | {"credential": data[end : end + length]}


@dataclass
class Greeting:
    """What one side knows when it judges a Hello."""

    own: bytes
    peer: bytes
    fleet: bytes
    roots: Roots
    now_s: float
    own_boot: bytes
    own_nonce: bytes
    own_generation: int = 1
    last_boot_of_peer: bytes | None = None
    its_generation: int = 0
    versions: tuple[int, int] = (1, 1)

    def judge(self, data: bytes) -> dict[str, Any]:
        """6, steps 2 to 8."""
        hello = read_hello(data)
        need(self.peer != self.own, "our own identity")
        need(hello["fleet"] == self.fleet, "another fleet")
        need(hello["sender"] == self.peer, "speaks for another device")
        need(hello["to"] == self.own, "greets another device")
        need(hello["echo"] in (bytes(16), self.own_nonce), "answers another nonce")
        need(signed_by(self.peer, data[:-64], data[-64:]), "signature")
        device = read_device(hello["credential"], self.roots, self.now_s)
        need(device.key == self.peer, "the credential of another device")
        low, high = self.versions
        need(min(high, hello["version_max"]) >= max(low, hello["version_min"]), "no version in common")
        self._judge_boot(hello["boot"], device.generation)
        known, counter = hello["known_boot"], int.from_bytes(hello["known_boot"][:8], "big")
        if known not in (bytes(16), self.own_boot) and counter >= int.from_bytes(self.own_boot[:8], "big"):
            need(hello["known_generation"] < self.own_generation, "knows a later boot of ours")
        return hello

    def _judge_boot(self, boot: bytes, generation: int) -> None:
        last = self.last_boot_of_peer
        if last is None or boot == last or generation > self.its_generation:
            return
        ahead = int.from_bytes(boot[:8], "big") - int.from_bytes(last[:8], "big")
        need(0 < ahead <= 10_000, "an old boot, a double, or a jump")


# ---- 13: revocation


def read_revocations(data: bytes, roots: Roots, now_s: float) -> dict[str, Any]:
    start = len(REVOCATION)
    need(data.startswith(REVOCATION) and len(data) >= start + 82 + 64, "no revocation list")
    fleet, signer, number, issued_at, entries = struct.unpack_from(">32s32sQQH", data, start)
    end = start + 82 + 45 * entries
    need(entries <= 2048 and len(data) >= end + 64, "length")
    rows = [struct.unpack_from(">32sIBQ", data, start + 82 + 45 * n) for n in range(entries)]
    need(all(one[0] < two[0] for one, two in itertools.pairwise(rows)), "not ascending")
    need(fleet == roots.fleet, "another fleet")
    certificate = data[end + 64 :]
    if certificate:
        device = read_device(certificate, roots, now_s)
        need(device.key == signer and "revoke:*" in device.may, "may not revoke")
    else:
        need(signer in [root.key for root in roots.anchors(now_s)], "no root")
    need(signed_by(signer, data[:end], data[end : end + 64]), "signature")
    return {"number": number, "issued_at_s": issued_at, "signer": signer, "entries": rows}
