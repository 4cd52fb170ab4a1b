"""Attacks on keys, certificates and revocation, named as in SECURITY-DESIGN 9."""

from __future__ import annotations

import base64
import ipaddress
import json
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from meshagent.identity.certificates import issue_credential, split_pem, tls_name, verify_chain
from meshagent.identity.credential import CertificateError, CertificateFault
from meshagent.identity.device import DeviceIdentity
from meshagent.identity.join import REQUEST_FORMAT, JoinRequest
from meshagent.identity.keys import BadSignatureError, Tag, verify
from meshagent.identity.revocation import RevocationEntry, RevocationReason, sign_list
from meshagent.types import node_id_of, public_key_of
from tests.support import certs
from tests.support.fleets import NOW_S, admit, authority, device, key_of, receiver

DAY_S = 86400

SMALL_ORDER = [
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"),
]


def fault_of(leaf: bytes, chain: list[bytes], trust: DeviceIdentity) -> CertificateFault:
    with pytest.raises(CertificateError) as caught:
        verify_chain(leaf, chain, trust.trust, now_s=NOW_S)
    return caught.value.fault


@pytest.mark.parametrize("public", SMALL_ORDER, ids=lambda key: key.hex()[:8])
def test_small_order_admission_is_refused_at_every_door(public: bytes) -> None:
    """For such a key OpenSSL accepts signatures that anybody can write down: R = the key's multiple, S = 0."""
    fleet = authority()
    forged = public + bytes(32)
    fields = {
        "format": REQUEST_FORMAT,
        "id": node_id_of(public),
        "name": "dog",
        "nonce": base64.b64encode(bytes(16)).decode(),
        "proof": base64.b64encode(forged).decode(),
    }
    with pytest.raises(CertificateError, match="small order") as caught:
        JoinRequest.from_bytes(json.dumps(fields).encode())
    assert caught.value.fault is CertificateFault.UNSAFE_KEY
    with pytest.raises(CertificateError):
        fleet.admit(JoinRequest(public, "dog", bytes(16), forged), now_s=NOW_S)
    with pytest.raises(BadSignatureError):
        verify(public, Tag.BATCH, b"", forged)


def test_small_order_admission_by_a_careless_root_is_refused_by_every_device() -> None:
    fleet = authority()
    dog = admit(fleet, "dog")
    genuine = certs.load(dog.credential.der)
    try:
        weak = ed25519.Ed25519PublicKey.from_public_bytes(SMALL_ORDER[1])
    except ValueError:
        pytest.skip("this OpenSSL refuses the point by itself")
    node = node_id_of(SMALL_ORDER[1])
    name = tls_name(node)
    extensions = [
        (x509.NameConstraints([x509.DNSName(name), x509.DirectoryName(certs.common_name(name))], None), True)
        if isinstance(e, x509.NameConstraints)
        else (e, c)
        for e, c in certs.same_extensions(genuine)
    ]
    root_key = fleet._root_key.certificate_signer()
    careless = certs.forge(certs.common_name(f"device:{node}"), genuine.issuer, weak, root_key, extensions)
    with pytest.raises(CertificateError) as caught:
        dog.open_book(now_s=NOW_S).learn(certs.der(careless), now_s=NOW_S)
    assert caught.value.fault is CertificateFault.UNSAFE_KEY


def test_old_ca_beside_new_does_not_give_old_rights_back() -> None:
    """Mallory was an administrator; its credential was replaced by a lesser one over the same key. It shows both, or
    the old one alone to whoever has seen the new one."""
    fleet = authority()
    key = key_of("mallory")
    old = admit(fleet, "mallory", may=("approve:*", "revoke:*"))
    new = admit(fleet, "mallory", may=("perform:*",))
    bob = admit(fleet, "bob").open_book(now_s=NOW_S)
    leaf, new_ca = split_pem(new.issue_leaf(NOW_S).chain_pem)
    old_ca = old.credential.der
    for chain in ([leaf, old_ca, new_ca], [leaf, new_ca, old_ca], [old_ca, new_ca]):
        assert fault_of(leaf, chain, new) is CertificateFault.CHAIN_SHAPE
    assert not bob.verify_peer(leaf, [leaf, new_ca], now_s=NOW_S).allows("approve", "x")
    for chain in ([leaf, old_ca], [old_ca]):
        with pytest.raises(CertificateError) as caught:
            bob.verify_peer(leaf, chain, now_s=NOW_S)
        assert caught.value.fault is CertificateFault.SUPERSEDED
    with pytest.raises(CertificateError):
        bob.learn(old_ca, now_s=NOW_S)
    assert key.public == new.key.public


def test_self_issued_subca_is_refused() -> None:
    """`pathlen:0` does not count self-issued certificates: below its CA a device could issue itself another one with
    other constraints. The chain's shape and the root's own signature stand against it."""
    fleet = authority()
    mallory, victim = admit(fleet, "mallory"), admit(fleet, "victim")
    authority_certificate = certs.load(mallory.credential.der)
    sub_key = ed25519.Ed25519PrivateKey.generate()
    sub = certs.der(
        certs.forge(
            authority_certificate.subject,
            authority_certificate.subject,
            sub_key.public_key(),
            mallory.key.certificate_signer(),
            [(x509.BasicConstraints(ca=True, path_length=None), True), (certs.usage(ca=True), True)],
        )
    )
    name = tls_name(victim.node_id)
    leaf = certs.leaf_of(mallory, subject=name, names=[x509.DNSName(name)], signer=sub_key)
    assert fault_of(leaf, [leaf, sub, mallory.credential.der], mallory) is CertificateFault.CHAIN_SHAPE
    assert fault_of(leaf, [sub], mallory) is CertificateFault.OTHER_FLEET
    assert fault_of(leaf, [mallory.credential.der], mallory) is CertificateFault.LEAF


def test_self_issued_device_certificate_signed_by_the_root_is_refused() -> None:
    fleet = authority()
    dog = admit(fleet, "dog")
    genuine = certs.load(dog.credential.der)
    odd = certs.der(
        certs.forge(
            genuine.issuer,
            genuine.issuer,
            dog.key.certificate_signer().public_key(),
            fleet._root_key.certificate_signer(),
            certs.same_extensions(genuine),
        )
    )
    leaf = certs.leaf_of(dog)
    assert fault_of(leaf, [odd], dog) is CertificateFault.SELF_ISSUED


SHAPES: dict[str, tuple[str | None, list[str]]] = {
    # name of the shape: (SAN kind, common names); m is the attacker, b whom it wants to be (probes/tls)
    "SAN b": ("dns:b", ["m"]),
    "SAN b, CN b": ("dns:b", ["b"]),
    "no SAN, CN b": (None, ["b"]),
    "SAN m, CN b": ("dns:m", ["b"]),
    "SAN URI, CN b": ("uri:x://y", ["b"]),
    "SAN IP, CN b": ("ip:127.0.0.1", ["b"]),
    "SAN mail, CN b": ("mail:a@b", ["b"]),
    "SAN RID, CN b": ("rid:", ["b"]),
    "SAN otherName, CN b": ("other:", ["b"]),
    "URI, CN m, CN b": ("uri:x://y", ["m", "b"]),
    "URI, CN b, CN m": ("uri:x://y", ["b", "m"]),
    "URI is b, CN m": ("uri:b", ["m"]),
    "mail is b, CN m": ("mail:b@b", ["m"]),
    "SAN m and URI, CN b": ("dns:m+uri", ["b"]),
    "SAN b.m": ("dns:b.m", ["m"]),
    "SAN *.mesh": ("dns:*", ["m"]),
    "empty subject, URI": ("uri:x://y", []),
    "empty subject, SAN b": ("dns:b", []),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_impersonation_shape_proves_neither_victim_nor_attacker(shape: str) -> None:
    """The 18 shapes of probes/tls, here against our own check; against a real gRPC server in tests/integration."""
    fleet = authority()
    mallory, victim = admit(fleet, "mallory"), admit(fleet, "victim")
    m, b = tls_name(mallory.node_id), tls_name(victim.node_id)
    kind, commons = SHAPES[shape]
    oid = x509.ObjectIdentifier("1.3.6.1.4.1.55555.1.1")
    names: dict[str | None, list[x509.GeneralName]] = {
        None: [],
        "dns:b": [x509.DNSName(b)],
        "dns:m": [x509.DNSName(m)],
        "uri:x://y": [x509.UniformResourceIdentifier("x://y")],
        "ip:127.0.0.1": [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))],
        "mail:a@b": [x509.RFC822Name(f"a@{b}")],
        "rid:": [x509.RegisteredID(oid)],
        "other:": [x509.OtherName(oid, b"\x04\x01x")],
        "uri:b": [x509.UniformResourceIdentifier(b)],
        "mail:b@b": [x509.RFC822Name(f"{b}@{b}")],
        "dns:m+uri": [x509.DNSName(m), x509.UniformResourceIdentifier("x://y")],
        "dns:b.m": [x509.DNSName(f"{victim.node_id}.{m}")],
        "dns:*": [x509.DNSName("*.mesh")],
    }
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, {"m": m, "b": b}[c]) for c in commons])
    genuine = certs.load(certs.leaf_of(mallory))
    extensions = certs.same_extensions(genuine, x509.SubjectAlternativeName)
    if names[kind]:
        extensions.append((x509.SubjectAlternativeName(names[kind]), not commons))
    issuer = certs.load(mallory.credential.der).subject
    leaf = certs.der(certs.forge(subject, issuer, key.public_key(), mallory.key.certificate_signer(), extensions))
    for ca in (mallory.credential.der, victim.credential.der):
        assert fault_of(leaf, [leaf, ca], mallory) is CertificateFault.LEAF


def test_victims_ca_in_the_attackers_chain_changes_nothing() -> None:
    fleet = authority()
    mallory, victim = admit(fleet, "mallory"), admit(fleet, "victim")
    leaf, ca = split_pem(mallory.issue_leaf(NOW_S).chain_pem)
    for chain in ([victim.credential.der, leaf, ca], [leaf, victim.credential.der, ca]):
        assert fault_of(leaf, chain, mallory) is CertificateFault.CHAIN_SHAPE
    assert fault_of(leaf, [leaf, victim.credential.der], mallory) is CertificateFault.LEAF


def test_id_alias_spellings_are_refused() -> None:
    """52 base32 characters hold 260 bits, a key 256: without a canonical form every id has 16 spellings."""
    node = key_of("dog").node_id
    alphabet = "abcdefghijklmnopqrstuvwxyz234567"
    last = alphabet.index(node[-1])
    aliases = [node[:-1] + alphabet[last & 16 | low] for low in range(16)]
    assert node in aliases
    refused = 0
    for alias in [*aliases, node.upper(), node + "=", f" {node[1:]}", node[:-1] + "1"]:
        if alias == node:
            assert public_key_of(alias) == key_of("dog").public
            continue
        with pytest.raises(ValueError, match=r"node id|canonical"):
            public_key_of(alias)
        refused += 1
    assert refused == 19


def test_id_alias_in_a_certificate_is_refused() -> None:
    fleet = authority()
    dog = admit(fleet, "dog")
    genuine = certs.load(dog.credential.der)
    upper = certs.common_name(f"device:{dog.node_id.upper()}")
    alias = certs.forge(
        upper,
        genuine.issuer,
        dog.key.certificate_signer().public_key(),
        fleet._root_key.certificate_signer(),
        certs.same_extensions(genuine),
    )
    with pytest.raises(CertificateError) as caught:
        dog.open_book(now_s=NOW_S).learn(certs.der(alias), now_s=NOW_S)
    assert caught.value.fault is CertificateFault.PROFILE


def test_old_list_brought_back_takes_nothing_away() -> None:
    fleet = authority()
    mallory, eve = device(fleet, "mallory"), device(fleet, "eve")
    bob = receiver(fleet, "bob", mallory, eve)
    first = fleet.revoke("mallory", now_s=NOW_S).signed
    second = fleet.revoke("eve", now_s=NOW_S).signed
    empty = sign_list(fleet._root_key, fleet.fleet, [], number=9, now_s=NOW_S).signed
    for signed in (second, first, empty, first):
        bob.book.merge(signed, now_s=NOW_S)
        assert bob.book.revoked(mallory.id)
        assert bob.book.revoked(eve.id)
    assert bob.take(mallory.id, mallory.say(bob.id)) == bob.take(eve.id, eve.say(bob.id)) == []


def test_revoked_member_cannot_revoke_its_revoker() -> None:
    fleet = authority()
    mallory = admit(fleet, "mallory", may=("revoke:*",))
    book = admit(fleet, "bob").open_book(now_s=NOW_S)
    guard = key_of("bob").public
    strike = RevocationEntry(guard, 2**32 - 1, RevocationReason.KEY_COMPROMISE, int(NOW_S) + DAY_S)
    by_mallory = sign_list(mallory.key, fleet.fleet, [strike], number=2**63, now_s=NOW_S, credential=mallory.credential)
    book.merge(by_mallory.signed, now_s=NOW_S)
    assert book.revoked(key_of("bob").node_id)
    book.merge(fleet.revoke("mallory", now_s=NOW_S).signed, now_s=NOW_S)
    assert not book.revoked(key_of("bob").node_id)


def test_a_stolen_device_key_issues_nothing_for_others() -> None:
    fleet = authority()
    mallory = admit(fleet, "mallory")
    fake = issue_credential(
        mallory.key,
        replace(fleet.trust.newest, public_key=mallory.key.public),
        fleet=fleet.fleet,
        device=key_of("new").public,
        name="new",
        generation=1,
        may=("revoke:*",),
        capabilities=(),
        now_s=NOW_S,
        lifetime_s=DAY_S,
    )
    with pytest.raises(CertificateError) as caught:
        mallory.open_book(now_s=NOW_S).learn(fake, now_s=NOW_S)
    assert caught.value.fault is CertificateFault.OTHER_FLEET
