"""This device: its key, its credential and the fleet it trusts, as files in one private folder.

::

    device.key        the Ed25519 key (0600, sealed under a passphrase if the owner wants that)
    credential.json   what the fleet's owner returned: credential, roots, revocation lists

Leaves for TLS are issued here and live in memory alone.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from meshagent.errors import IdentityError
from meshagent.identity.book import CredentialBook
from meshagent.identity.certificates import LEAF_LIFETIME_S, Leaf, issue_leaf, read_credential, verify_credential
from meshagent.identity.credential import CertificateError, CertificateFault, Credential
from meshagent.identity.files import MissingFileError, private_folder, read_limited, write_replace
from meshagent.identity.keys import DeviceKey
from meshagent.identity.revocation import RevocationError
from meshagent.identity.trust import MAX_ROOTS, Trust
from meshagent.types import NodeId

CREDENTIAL_FORMAT: Final = "meshagent-credential/1"
KEY_FILE: Final = "device.key"
CREDENTIAL_FILE: Final = "credential.json"
MAX_LISTS: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialFile:
    """What the owner hands back: everything a device needs to be of the fleet. Holds no secret."""

    credential: bytes
    roots: tuple[bytes, ...]
    revocations: tuple[bytes, ...] = ()

    def to_bytes(self) -> bytes:
        """The file's content."""
        fields = {
            "format": CREDENTIAL_FORMAT,
            "credential": _text(self.credential),
            "roots": [_text(root) for root in self.roots],
            "revocations": [_text(signed) for signed in self.revocations],
        }
        return (json.dumps(fields, indent=1) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> CredentialFile:
        """Read the file's content; nothing in it is verified yet.

        Raises:
            IdentityError: not such a file.
        """
        try:
            fields = json.loads(data)
            if not isinstance(fields, dict) or fields.get("format") != CREDENTIAL_FORMAT:
                raise ValueError(f"not of the format {CREDENTIAL_FORMAT}")
            roots, lists = _parts(fields["roots"], MAX_ROOTS), _parts(fields["revocations"], MAX_LISTS)
            return cls(credential=_bytes(fields["credential"]), roots=roots, revocations=lists)
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise IdentityError(
                f"not a credential file: {error}", next_step="ask the fleet's owner for: meshagent fleet admit FILE.req"
            ) from error


class DeviceIdentity:
    """Key, credential and trust of this device. `renew` exchanges the credential while the node runs."""

    def __init__(self, key: DeviceKey, credential: Credential, trust: Trust, revocations: Sequence[bytes] = ()) -> None:
        """Join what belongs together.

        Raises:
            IdentityError: the credential is another device's or another fleet's.
        """
        if credential.public_key != key.public:
            raise IdentityError(
                f"the credential is for {credential.name} ({credential.peer[:8]}), this device is {key.node_id[:8]}",
                next_step="ask for one for this device: meshagent join --request FILE.req",
            )
        if credential.fleet != trust.fleet:
            raise IdentityError("the credential belongs to another fleet")
        self.key = key
        self.credential = credential
        self.trust = trust
        self.revocations = tuple(revocations)
        """Lists that came with the credential."""

    @property
    def node_id(self) -> NodeId:
        return self.key.node_id

    @property
    def name(self) -> str:
        return self.credential.name

    @property
    def fleet(self) -> bytes:
        """32 bytes."""
        return self.trust.fleet

    def renew(self, data: bytes, *, now_s: float) -> bool:
        """Exchange the credential for the one in a credential file, while the node runs. True: it was newer.

        Raises:
            CertificateError: roots or credential do not hold, or it has expired.
            IdentityError: it is another device's, or another fleet's.
        """
        file = CredentialFile.from_bytes(data)
        for root in file.roots[1:]:
            self.trust.extend(root)
        credential = verify_credential(file.credential, self.trust, now_s=now_s)
        if credential.public_key != self.key.public:
            raise IdentityError(f"the credential is for {credential.name} ({credential.peer[:8]}), another device")
        if credential.generation <= self.credential.generation:
            return False
        self.credential = credential
        self.revocations = file.revocations
        return True

    def issue_leaf(self, now_s: float, *, lifetime_s: float = LEAF_LIFETIME_S) -> Leaf:
        """A fresh leaf for TLS.

        Raises:
            CertificateError: the credential has expired.
        """
        return issue_leaf(self.key, self.credential, now_s=now_s, lifetime_s=lifetime_s)

    def open_book(self, *, now_s: float, memory: bytes | None = None) -> CredentialBook:
        """A book that knows this device, the lists of its credential file, and what `memory` (a dump) holds."""
        book = CredentialBook(self.trust)
        if memory is not None:
            book.load(memory)
        for signed in self.revocations:
            try:
                book.merge_revocations(signed, now_s=now_s)
            except RevocationError:
                continue  # its signer's credential has ended since; the root's lists hold on
        book.note_own(self.credential)
        return book

    @classmethod
    def load(cls, folder: Path, *, now_s: float, passphrase: str | None = None) -> DeviceIdentity:
        """Read the identity of this device; an expired credential loads too, so that `doctor` can name it.

        Raises:
            MissingFileError: no key, or no credential yet; says the next step.
            IdentityError: a file is damaged, open to others, or does not belong to the rest.
        """
        try:
            key = DeviceKey.load(folder / KEY_FILE, passphrase=passphrase)
        except MissingFileError as error:
            raise MissingFileError("this device has no identity yet", next_step="meshagent init") from error
        try:
            data = read_limited(folder / CREDENTIAL_FILE)
        except MissingFileError as error:
            raise MissingFileError(
                "this device belongs to no fleet",
                next_step="to try here: meshagent run --dev ...   to join: meshagent join --request FILE.req",
            ) from error
        return cls.from_file(key, CredentialFile.from_bytes(data), now_s=now_s)

    @classmethod
    def from_file(cls, key: DeviceKey, file: CredentialFile, *, now_s: float) -> DeviceIdentity:
        """Verify a credential file for `key`.

        Raises:
            CertificateError: roots or credential do not hold.
            IdentityError: it is another device's.
        """
        trust = Trust(file.roots)
        credential = read_credential(file.credential, trust, now_s=now_s)
        return cls(key, credential, trust, file.revocations)


def create_key(folder: Path, *, passphrase: str | None = None) -> DeviceKey:
    """A new identity in `folder`; never over an old one.

    Raises:
        IdentityError: there is one already, or the folder is open to others.
    """
    key = DeviceKey.generate()
    key.save(private_folder(folder) / KEY_FILE, passphrase=passphrase)
    return key


def install_credential(
    folder: Path, key: DeviceKey, data: bytes, *, now_s: float, expected_fleet: bytes | None = None
) -> DeviceIdentity:
    """Check a credential file and put it beside the key; exchanges an older one of the same fleet.

    Args:
        folder: the identity's folder.
        key: this device's key.
        data: the file's content.
        now_s: wall time.
        expected_fleet: the fleet that the user means to join. None: the one of the credential installed, else any.

    Raises:
        CertificateError: it does not hold, has expired, or is older than the one installed.
        IdentityError: it is another device's, or another fleet's than expected.
    """
    identity = DeviceIdentity.from_file(key, CredentialFile.from_bytes(data), now_s=now_s)
    fault = identity.credential.fault_at(now_s)
    if fault is not None:
        raise CertificateError(
            fault,
            f"the credential is {'not valid yet' if fault is CertificateFault.NOT_YET_VALID else 'expired'}",
            next_step="check this device's clock, then ask the fleet's owner to renew",
        )
    try:
        former = CredentialFile.from_bytes(read_limited(folder / CREDENTIAL_FILE))
        installed: DeviceIdentity | None = DeviceIdentity.from_file(key, former, now_s=now_s)
    except IdentityError:
        installed = None  # none, or one that says nothing any more
    if installed is not None and expected_fleet is None:
        expected_fleet = installed.fleet
    if expected_fleet is not None and identity.fleet != expected_fleet:
        raise IdentityError(
            f"the credential is of fleet {identity.trust.fleet_name} ({identity.trust.fleet_id[:8]}), another one",
            next_step="to move this device: meshagent leave, then join again",
        )
    if (
        installed is not None
        and installed.fleet == identity.fleet
        and installed.credential.generation > identity.credential.generation
    ):
        raise CertificateError(
            CertificateFault.SUPERSEDED,
            f"credential {identity.credential.generation} is older than the one installed "
            f"({installed.credential.generation})",
        )
    write_replace(private_folder(folder) / CREDENTIAL_FILE, data)
    return identity


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: object) -> bytes:
    if not isinstance(text, str):
        raise ValueError("a field is no text")
    return base64.b64decode(text, validate=True)


def _parts(value: object, limit: int) -> tuple[bytes, ...]:
    if not isinstance(value, list) or len(value) > limit:
        raise ValueError("a field is no list, or too long")
    return tuple(_bytes(part) for part in value)
