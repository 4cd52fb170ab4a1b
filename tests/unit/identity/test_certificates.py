"""The X.509 profile: what we issue is accepted, whatever differs from it in one thing is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from meshagent.errors import IdentityError
from meshagent.identity import der
from meshagent.identity.certificates import (
    MAX_LEAF_LIFETIME_S,
    OID_GENERATION,
    OID_MAY,
    issue_credential,
    issue_leaf,
    pem_of,
    read_credential,
    split_pem,
    tls_name,
    verify_chain,
    verify_credential,
)
from meshagent.identity.credential import CertificateError, CertificateFault
from meshagent.identity.fleet import FleetAuthority
from meshagent.identity.trust import MAX_CERTIFICATE_BYTES, OID_ROOT
from tests.support import certs
from tests.support.fleets import NOW_S, admit, authority, key_of

DAY_S = 86400


def fault_of(call: Callable[[], object]) -> CertificateFault:
    with pytest.raises(CertificateError) as caught:
        call()
    return caught.value.fault


def test_a_leaf_and_its_chain_prove_the_device_in_any_order_and_with_or_without_the_leaf() -> None:
    dog = admit(authority(), "dog", may=("perform:pump.*",))
    leaf, ca = split_pem(dog.issue_leaf(NOW_S).chain_pem)
    for chain in ([leaf, ca], [ca, leaf], [ca]):
        proved = verify_chain(leaf, chain, dog.trust, now_s=NOW_S)
        assert proved.credential == dog.credential
        assert proved.credential.name == "dog"
        assert proved.credential.allows("perform", "pump.check.v1")
        assert proved.leaf_not_after_s == NOW_S + DAY_S
    assert dog.credential.spiffe_id == f"spiffe://{dog.trust.fleet_id}/device/dog"


def test_validity_starts_long_ago_and_ends_with_the_credential() -> None:
    dog = admit(authority(), "dog", lifetime_days=0.5)
    leaf = dog.issue_leaf(NOW_S)
    assert leaf.not_after_s == dog.credential.not_after_s == NOW_S + DAY_S // 2
    certificate = certs.load(split_pem(leaf.chain_pem)[0])
    assert certificate.not_valid_before_utc.timestamp() == dog.credential.not_before_s < NOW_S - 300 * DAY_S
    with pytest.raises(CertificateError, match="expired") as caught:
        dog.issue_leaf(dog.credential.not_after_s)
    assert "fleet renew dog" in (caught.value.next_step or "")
    with pytest.raises(IdentityError, match="at most"):
        dog.issue_leaf(NOW_S, lifetime_s=MAX_LEAF_LIFETIME_S + 1)
    with pytest.raises(IdentityError, match="not the one"):
        issue_leaf(key_of("cat"), dog.credential, now_s=NOW_S)


def test_expired_and_not_yet_valid_are_told_apart_with_a_next_step() -> None:
    dog = admit(authority(), "dog")
    credential = dog.credential
    with pytest.raises(CertificateError, match="expired 3 days ago") as caught:
        verify_credential(credential.der, dog.trust, now_s=credential.not_after_s + 3 * DAY_S)
    assert caught.value.fault is CertificateFault.EXPIRED
    with pytest.raises(CertificateError, match="becomes valid in") as caught:
        verify_credential(credential.der, dog.trust, now_s=credential.not_before_s - 5 * DAY_S)
    assert caught.value.fault is CertificateFault.NOT_YET_VALID
    assert read_credential(credential.der, dog.trust, now_s=credential.not_after_s + 3 * DAY_S) == credential


def test_an_expired_leaf_is_refused_though_its_credential_is_current() -> None:
    dog = admit(authority(), "dog")
    leaf, ca = split_pem(dog.issue_leaf(NOW_S).chain_pem)
    assert fault_of(lambda: verify_chain(leaf, [ca], dog.trust, now_s=NOW_S + 2 * DAY_S)) is CertificateFault.EXPIRED
    late = certs.leaf_of(dog, not_before_s=NOW_S + 60, not_after_s=NOW_S + 120)
    assert fault_of(lambda: verify_chain(late, [ca], dog.trust, now_s=NOW_S)) is CertificateFault.NOT_YET_VALID


def test_another_fleets_device_is_refused() -> None:
    dog, stranger = admit(authority(), "dog"), admit(authority("other"), "dog")
    leaf, ca = split_pem(stranger.issue_leaf(NOW_S).chain_pem)
    assert fault_of(lambda: verify_chain(leaf, [ca], dog.trust, now_s=NOW_S)) is CertificateFault.OTHER_FLEET


def test_a_chain_is_one_leaf_and_one_device_certificate() -> None:
    fleet = authority()
    dog, cat = admit(fleet, "dog"), admit(fleet, "cat")
    leaf, ca = split_pem(dog.issue_leaf(NOW_S).chain_pem)
    root = dog.trust.roots[0]
    for chain in ([], [leaf], [leaf, ca, root], [leaf, cat.credential.der, ca], [ca, cat.credential.der], [leaf] * 9):
        assert fault_of(lambda chain=chain: verify_chain(leaf, chain, dog.trust, now_s=NOW_S)) is (  # type: ignore[misc]
            CertificateFault.CHAIN_SHAPE
        )
    assert fault_of(lambda: verify_chain(leaf, [cat.credential.der], dog.trust, now_s=NOW_S)) is CertificateFault.LEAF


LEAF_FORGERIES: dict[str, Callable[..., bytes]] = {
    "another subject": lambda dog, cat: certs.leaf_of(dog, subject=tls_name(cat.node_id)),
    "another name": lambda dog, cat: certs.leaf_of(dog, names=[x509.DNSName(tls_name(cat.node_id))]),
    "two names": lambda dog, cat: certs.leaf_of(
        dog, names=[x509.DNSName(tls_name(dog.node_id)), x509.DNSName(tls_name(cat.node_id))]
    ),
    "a name below": lambda dog, cat: certs.leaf_of(dog, names=[x509.DNSName("x." + tls_name(dog.node_id))]),
    "a URI": lambda dog, cat: certs.leaf_of(dog, names=[x509.UniformResourceIdentifier("spiffe://x/device/cat")]),
    "signed by another": lambda dog, cat: certs.leaf_of(dog, signer=cat.key.certificate_signer()),
    "a CA": lambda dog, cat: certs.leaf_of(dog, ca=True),
    "a CA by its constraints alone": lambda dog, cat: certs.leaf_of(dog, ca=True, signs=False),
    "a CA by its usage alone": lambda dog, cat: certs.leaf_of(dog, signs=True),
    "P-384": lambda dog, cat: certs.leaf_of(dog, key=ec.generate_private_key(ec.SECP384R1())),
    "Ed25519": lambda dog, cat: certs.leaf_of(dog, key=ed25519.Ed25519PrivateKey.generate()),
}


@pytest.mark.parametrize("name", LEAF_FORGERIES)
def test_a_leaf_of_another_form_is_refused(name: str) -> None:
    fleet = authority()
    dog, cat = admit(fleet, "dog"), admit(fleet, "cat")
    verify_chain(certs.leaf_of(dog), [dog.credential.der], dog.trust, now_s=NOW_S)
    leaf = LEAF_FORGERIES[name](dog, cat)
    assert fault_of(lambda: verify_chain(leaf, [dog.credential.der], dog.trust, now_s=NOW_S)) is CertificateFault.LEAF


def replaced(old: type, new: x509.ExtensionType, critical: bool) -> Callable[[list], list]:  # type: ignore[type-arg]
    return lambda extensions: [(e, c) if not isinstance(e, old) else (new, critical) for e, c in extensions]


def own(oid: x509.ObjectIdentifier, content: bytes) -> Callable[[list], list]:  # type: ignore[type-arg]
    return lambda extensions: [
        (x509.UnrecognizedExtension(oid, content), c)
        if isinstance(e, x509.UnrecognizedExtension) and e.oid == oid
        else (e, c)
        for e, c in extensions
    ]


OTHER_URI = f"spiffe://{authority('other').trust.fleet_id}/device/dog"
CA_CHANGES: dict[str, Callable[[list], list]] = {  # type: ignore[type-arg]
    "no name constraints": lambda es: [(e, c) for e, c in es if not isinstance(e, x509.NameConstraints)],
    "constraints not critical": lambda es: [(e, c and not isinstance(e, x509.NameConstraints)) for e, c in es],
    "DNS constraint alone": replaced(x509.NameConstraints, x509.NameConstraints([x509.DNSName("a.mesh")], None), True),
    "longer path": replaced(x509.BasicConstraints, x509.BasicConstraints(ca=True, path_length=1), True),
    "no path length": replaced(x509.BasicConstraints, x509.BasicConstraints(ca=True, path_length=None), True),
    "no CA": replaced(x509.BasicConstraints, x509.BasicConstraints(ca=False, path_length=None), True),
    "other usage": replaced(x509.KeyUsage, certs.usage(ca=False), True),
    "two URIs": replaced(
        x509.SubjectAlternativeName,
        x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://x/device/dog")] * 2),
        False,
    ),
    "another fleet's URI": replaced(
        x509.SubjectAlternativeName,
        x509.SubjectAlternativeName([x509.UniformResourceIdentifier(OTHER_URI)]),
        False,
    ),
    "generation of five bytes": own(OID_GENERATION, der.integer(2**32)),
    "negative generation": own(OID_GENERATION, b"\x02\x01\xff"),
    "padded generation": own(OID_GENERATION, b"\x02\x02\x00\x01"),
    "generation as text": own(OID_GENERATION, der.text("1")),
    "permission with a space": own(OID_MAY, der.text("perform: x")),
    "permissions not UTF-8": own(OID_MAY, b"\x0c\x01\xff"),
    "an extension more": lambda es: [*es, (x509.UnrecognizedExtension(OID_ROOT, b"\x04\x00"), False)],
}


@pytest.mark.parametrize("name", CA_CHANGES)
def test_a_device_certificate_of_another_form_is_refused_though_the_root_signed_it(name: str) -> None:
    fleet = authority()
    dog = admit(fleet, "dog")
    genuine = certs.load(dog.credential.der)
    root_key = fleet._root_key.certificate_signer()

    def signed(extensions: list[tuple[x509.ExtensionType, bool]]) -> bytes:
        key = dog.key.certificate_signer().public_key()
        return certs.der(certs.forge(genuine.subject, genuine.issuer, key, root_key, extensions))

    verify_credential(signed(certs.same_extensions(genuine)), dog.trust, now_s=NOW_S)
    changed = signed(CA_CHANGES[name](certs.same_extensions(genuine)))
    assert fault_of(lambda: verify_credential(changed, dog.trust, now_s=NOW_S)) is CertificateFault.PROFILE


def test_subject_and_key_of_a_device_certificate_belong_together() -> None:
    fleet = authority()
    dog, cat = admit(fleet, "dog"), admit(fleet, "cat")
    genuine = certs.load(dog.credential.der)
    root_key = fleet._root_key.certificate_signer()
    cats_key = cat.key.certificate_signer().public_key()
    swapped = certs.der(
        certs.forge(genuine.subject, genuine.issuer, cats_key, root_key, certs.same_extensions(genuine))
    )
    assert fault_of(lambda: verify_credential(swapped, dog.trust, now_s=NOW_S)) is CertificateFault.PROFILE


@pytest.mark.parametrize("data", [b"", b"\x30\x00", b"x" * 100, bytes(MAX_CERTIFICATE_BYTES + 1)])
def test_what_is_no_certificate_is_malformed(data: bytes) -> None:
    trust = authority().trust
    assert fault_of(lambda: verify_credential(data, trust, now_s=NOW_S)) is CertificateFault.MALFORMED
    assert fault_of(lambda: split_pem(data + b"-----BEGIN CERTIFICATE-----")) is CertificateFault.MALFORMED


def test_bytes_after_a_certificate_are_malformed() -> None:
    dog = admit(authority(), "dog")
    assert fault_of(lambda: verify_credential(dog.credential.der + b"x", dog.trust, now_s=NOW_S)) is (
        CertificateFault.MALFORMED
    )
    assert split_pem(pem_of(dog.credential.der)) == [dog.credential.der]
    assert fault_of(lambda: split_pem(pem_of(dog.credential.der) * 60)) is CertificateFault.MALFORMED


def test_the_authority_signs_neither_unsafe_keys_nor_wild_grants() -> None:
    fleet = authority()

    def issue(device: bytes = key_of("dog").public, generation: int = 1, **changes: object) -> bytes:
        return issue_credential(
            fleet._root_key,
            fleet.trust.newest,
            fleet=fleet.fleet,
            device=device,
            name="dog",
            generation=generation,
            may=changes.get("may", ()),  # type: ignore[arg-type]
            capabilities=changes.get("capabilities", ()),  # type: ignore[arg-type]
            now_s=NOW_S,
            lifetime_s=DAY_S,
        )

    issue()
    assert fault_of(lambda: issue(bytes(32))) is CertificateFault.UNSAFE_KEY
    for generation in (0, 2**32):
        with pytest.raises(IdentityError, match="generation"):
            issue(generation=generation)
    with pytest.raises(IdentityError, match="do not fit"):
        issue(may=tuple(f"perform:{'k' * 120}{n}" for n in range(64)))
    other = FleetAuthority.in_memory("other", now_s=NOW_S)
    with pytest.raises(IdentityError, match="newest root"):
        issue_credential(
            other._root_key, fleet.trust.newest, fleet=fleet.fleet, device=key_of("dog").public, name="dog",
            generation=1, may=(), capabilities=(), now_s=NOW_S, lifetime_s=DAY_S,
        )  # fmt: skip


@pytest.mark.parametrize("value", [0, 1, 127, 128, 255, 256, 2**31, 2**32 - 1])
def test_der_integers_come_back_in_their_shortest_form_alone(value: int) -> None:
    assert der.read_integer(der.integer(value), limit=2**32) == value
    with pytest.raises(ValueError, match=r"DER|integer"):
        der.read_integer(der.integer(value)[:1] + b"\x81" + der.integer(value)[1:], limit=2**32)


@pytest.mark.parametrize("size", [0, 127, 128, 255, 256, 5000])
def test_der_strings_come_back_and_nothing_shorter_or_longer(size: int) -> None:
    for write, read in ((der.octets, der.read_octets),):
        data = write(bytes(size))
        assert read(data) == bytes(size)
        for bad in (data[:-1] if size else data + b"\x01", data + b"\0", b"\x05" + data[1:], b""):
            with pytest.raises(ValueError, match="DER"):
                read(bad)
    assert der.read_text(der.text("x" * size)) == "x" * size
    with pytest.raises(ValueError, match="too long"):
        der.octets(bytes(70000))
