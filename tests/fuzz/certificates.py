"""Fuzz the check of TLS chains and credentials, and the two files that people carry."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence

from meshagent.errors import IdentityError
from meshagent.identity.certificates import split_pem
from meshagent.identity.credential import CertificateError
from meshagent.identity.device import CredentialFile, DeviceIdentity
from meshagent.identity.join import JoinRequest
from tests.fuzz.engine import main
from tests.support.fleets import NOW_S, admit, authority, key_of


@functools.cache
def _scene() -> tuple[DeviceIdentity, list[bytes]]:
    fleet = authority()
    dog = admit(fleet, "dog")
    chain = split_pem(dog.issue_leaf(NOW_S).chain_pem)
    file = CredentialFile(credential=dog.credential.der, roots=dog.trust.roots)
    return dog, [*chain, dog.trust.roots[0], file.to_bytes(), JoinRequest.create(dog.key, name="dog").to_bytes()]


def corpus() -> Sequence[bytes]:
    return _scene()[1]


def check(data: bytes) -> None:
    dog, genuine = _scene()
    leaf, ca = genuine[:2]
    book = admit(authority(), "reader").open_book(now_s=NOW_S)
    for shown in ((data, [data, ca]), (leaf, [leaf, data]), (leaf, data), (data, data)):
        try:
            credential = book.verify_peer(*shown, now_s=NOW_S)
        except CertificateError:
            continue
        if credential.public_key != dog.key.public or data not in (leaf, ca):
            raise AssertionError("an altered chain proved something")
    with contextlib.suppress(IdentityError):
        DeviceIdentity.from_file(key_of("dog"), CredentialFile.from_bytes(data), now_s=NOW_S)
    with contextlib.suppress(IdentityError):
        JoinRequest.from_bytes(data)


if __name__ == "__main__":
    main("tests.fuzz.certificates")
