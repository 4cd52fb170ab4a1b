"""The fleet's authority: whoever holds this folder decides who belongs to the fleet.

It stays offline, on a laptop or a stick, never on a robot. Requests come in as files, credentials go out as files::

    authority.json    who was admitted, generations, revocations, the last time signed
    root-0.key        the present root key (the highest numbered but one)
    root-1.key        the next root key, to which the present root has committed; best moved elsewhere

State is written before anything signed leaves, so that no generation or list number is ever given twice.

Source: SECURITY-DESIGN 3, 5.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from meshagent.errors import IdentityError
from meshagent.identity.certificates import issue_credential
from meshagent.identity.credential import DEFAULT_MAY, check_grants
from meshagent.identity.device import (
    KEY_FILE,
    CredentialFile,
    DeviceIdentity,
    create_key,
    install_credential,
)
from meshagent.identity.files import MissingFileError, private_folder, read_limited, write_new, write_replace
from meshagent.identity.join import JoinRequest
from meshagent.identity.keys import DeviceKey
from meshagent.identity.revocation import (
    RevocationEntry,
    RevocationList,
    RevocationReason,
    sign_list,
)
from meshagent.identity.trust import OVERLAP_S, Trust, issue_root
from meshagent.types import NodeId, public_key_of

AUTHORITY_FORMAT: Final = "meshagent-authority/1"
AUTHORITY_FILE: Final = "authority.json"
MAX_AUTHORITY_BYTES: Final = 64 * 1024 * 1024
LIFETIME_DAYS: Final = 365
MAX_LIFETIME_DAYS: Final = 5 * 365
CLOCK_BACK_S: Final = 300
"""The authority's clock may go back by so much between two signatures (NTP), not more."""
CLOCK_JUMP_S: Final = 400 * 24 * 3600
"""A jump of over a year is rather a wrong clock. What it signed would become everybody's floor of time and end
credentials early, so it has to be confirmed."""


MAX_REVOKED: Final = 1400
"""Live revocations of one fleet: what one signed list holds and one message carries."""


LOCK_ATTEMPTS: Final = 600
LOCK_PAUSE_S: Final = 0.05
"""Half a minute: sixteen nodes that start at once admit each other's devices one after the other."""


class AuthorityBusyError(IdentityError):
    """Another process works on this fleet."""


class AuthorityClockError(IdentityError):
    """The clock of the authority's machine is not plausible."""


class UnknownDeviceError(IdentityError):
    """No admitted device has that name or id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRecord:
    """An admitted device as its authority remembers it."""

    id: NodeId
    name: str
    generation: int
    not_after_s: int
    """Of the newest credential."""
    latest_s: int
    """Of the longest that was ever issued: peers who missed a shorter one believe it until then, so a revocation lasts
    as long."""
    may: tuple[str, ...]
    capabilities: tuple[str, ...]
    revoked: RevocationReason | None = None


class FleetAuthority:
    """Root keys, and the book of what was signed. Use as a context manager: a lock holds other processes off."""

    def __init__(
        self,
        trust: Trust,
        root_key: DeviceKey,
        *,
        next_key: DeviceKey | None = None,
        folder: Path | None = None,
        lock: int | None = None,
    ) -> None:
        self.trust = trust
        self._root_key = root_key
        self._next_key = next_key
        self._folder = folder
        self._lock = lock
        self._devices: dict[NodeId, DeviceRecord] = {}
        self._entries: dict[bytes, RevocationEntry] = {}
        self._list_number = 0
        self._list = b""
        self._last_signed_s = trust.newest.issued_at_s

    @classmethod
    def create(cls, folder: Path, name: str, *, now_s: float, passphrase: str | None = None) -> FleetAuthority:
        """Found a fleet in a new folder.

        Raises:
            IdentityError: the folder holds a fleet already, or the name is not of the grammar.
        """
        check_grants(name, (), ())
        private_folder(folder)
        lock = _lock(folder / "lock")
        try:
            if (folder / AUTHORITY_FILE).exists():
                raise IdentityError(
                    f"{folder} holds a fleet already", next_step=f"see it: meshagent fleet show --authority {folder}"
                )
            root_key, next_key = DeviceKey.generate(), DeviceKey.generate()
            root = issue_root(root_key, next_key.public, name=name, now_s=now_s)
            authority = cls(Trust([root]), root_key, next_key=next_key, folder=folder, lock=lock)
            root_key.save(_key_path(folder, 0), passphrase=passphrase)
            next_key.save(_key_path(folder, 1), passphrase=passphrase)
            write_new(folder / AUTHORITY_FILE, authority._document())
        except BaseException:
            os.close(lock)
            raise
        return authority

    @classmethod
    def open(cls, folder: Path, *, passphrase: str | None = None) -> FleetAuthority:
        """Take up a fleet's authority; waits half a minute for another process that has it open.

        Raises:
            MissingFileError: there is no fleet in the folder.
            IdentityError: a file is damaged or open to others, or the passphrase is wrong.
        """
        if not (folder / AUTHORITY_FILE).exists():
            raise MissingFileError(f"there is no fleet in {folder}", next_step="meshagent fleet create NAME")
        private_folder(folder)
        lock = _lock(folder / "lock")
        try:
            fields = json.loads(read_limited(folder / AUTHORITY_FILE, secret=True, max_bytes=MAX_AUTHORITY_BYTES))
            trust = Trust([base64.b64decode(root) for root in fields["roots"]])
            root_key = DeviceKey.load(_key_path(folder, trust.newest.sequence), passphrase=passphrase)
            if fields["format"] != AUTHORITY_FORMAT or root_key.public != trust.newest.public_key:
                raise ValueError("the key is not that of the newest root")
            authority = cls(trust, root_key, folder=folder, lock=lock)
            authority._read(fields)
        except (ValueError, TypeError, LookupError) as error:
            os.close(lock)
            raise IdentityError(f"{folder / AUTHORITY_FILE} is damaged: {error}") from error
        except BaseException:
            os.close(lock)
            raise
        return authority

    @classmethod
    def in_memory(cls, name: str, *, now_s: float, seed: bytes | None = None) -> FleetAuthority:
        """A fleet without files, for tests and simulations; with a 32-byte `seed` always the same one."""
        root_key = DeviceKey(seed) if seed is not None else DeviceKey.generate()
        next_key = DeviceKey(seed[::-1]) if seed is not None else DeviceKey.generate()
        root = issue_root(root_key, next_key.public, name=name, now_s=now_s)
        return cls(Trust([root]), root_key, next_key=next_key)

    def close(self) -> None:
        """Let others open it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        """What the fleet is called."""
        return self.trust.fleet_name

    @property
    def fleet(self) -> bytes:
        """The fleet's id, 32 bytes."""
        return self.trust.fleet

    @property
    def devices(self) -> tuple[DeviceRecord, ...]:
        """Everybody ever admitted, by name."""
        return tuple(sorted(self._devices.values(), key=lambda device: (device.name, device.id)))

    @property
    def revocation_list(self) -> bytes | None:
        """The newest list as it travels, if anybody was ever revoked."""
        return self._list or None

    def find(self, device: str) -> DeviceRecord:
        """An admitted device by name, id, or the beginning of its id.

        Raises:
            UnknownDeviceError: none or several.
        """
        found = [record for record in self._devices.values() if record.name == device and record.revoked is None]
        found = found or [record for record in self._devices.values() if record.id == device or record.name == device]
        found = found or [
            record for record in self._devices.values() if len(device) >= 4 and record.id.startswith(device)
        ]
        if len(found) != 1:
            raise UnknownDeviceError(
                f"{'several devices are' if found else 'no device is'} called {device!r} in fleet {self.name}",
                next_step="meshagent fleet show",
            )
        return found[0]

    def admit(
        self,
        request: JoinRequest,
        *,
        now_s: float,
        name: str | None = None,
        may: Sequence[str] = DEFAULT_MAY,
        capabilities: Sequence[str] = (),
        lifetime_days: float = LIFETIME_DAYS,
        accept_clock: bool = False,
    ) -> CredentialFile:
        """Sign a credential for the device behind a checked request.

        Raises:
            IdentityError: the name is taken, the device revoked, or something out of bounds.
            AuthorityClockError: this machine's clock is not plausible; `accept_clock` overrides.
        """
        name = name if name is not None else request.name
        known = self._devices.get(request.node_id)
        if known is not None and known.revoked is not None:
            raise IdentityError(
                f"this key was revoked as {known.name} ({known.revoked.name.lower()}) and stays out",
                next_step="on the device: meshagent init --new-identity, then ask again",
            )
        if any(r.name == name and r.id != request.node_id and r.revoked is None for r in self._devices.values()):
            raise IdentityError(
                f"another device is called {name}", next_step=f"choose a name, or: meshagent fleet revoke {name}"
            )
        return self._issue(
            DeviceRecord(
                id=request.node_id,
                name=name,
                generation=known.generation if known is not None else 0,
                not_after_s=0,
                latest_s=known.latest_s if known is not None else 0,
                may=tuple(may),
                capabilities=tuple(capabilities),
            ),
            now_s,
            lifetime_days,
            accept_clock,
        )

    def renew(
        self,
        device: str,
        *,
        now_s: float,
        may: Sequence[str] | None = None,
        capabilities: Sequence[str] | None = None,
        lifetime_days: float = LIFETIME_DAYS,
        accept_clock: bool = False,
    ) -> CredentialFile:
        """A new credential for an admitted device; what is not said stays as it was. Older ones end where it is seen.

        Raises:
            UnknownDeviceError: no such device.
            IdentityError: it was revoked, or something is out of bounds.
            AuthorityClockError: this machine's clock is not plausible.
        """
        record = self.find(device)
        if record.revoked is not None:
            raise IdentityError(
                f"{record.name} was revoked ({record.revoked.name.lower()})",
                next_step="on the device: meshagent init --new-identity, then ask again",
            )
        if may is not None:
            record = replace(record, may=tuple(may))
        if capabilities is not None:
            record = replace(record, capabilities=tuple(capabilities))
        return self._issue(record, now_s, lifetime_days, accept_clock)

    def revoke(
        self,
        device: str,
        *,
        now_s: float,
        reason: RevocationReason = RevocationReason.UNSPECIFIED,
        accept_clock: bool = False,
    ) -> RevocationList:
        """Put a device out and sign the list that says so. Hand the list to any node; it spreads by itself.

        Raises:
            UnknownDeviceError: no such device.
            IdentityError: the list is full.
            AuthorityClockError: this machine's clock is not plausible.
        """
        record = self.find(device)
        self._check_clock(now_s, accept_clock)
        key = public_key_of(record.id)
        entries = {k: entry for k, entry in self._entries.items() if entry.not_after_s > now_s}
        entries[key] = RevocationEntry(key, record.generation + 1, reason, record.latest_s)
        if len(entries) > MAX_REVOKED:
            raise IdentityError(
                f"over {MAX_REVOKED} revoked devices at once", next_step="found a new fleet and admit who is left"
            )
        revocations = sign_list(self._root_key, self.fleet, entries.values(), number=self._list_number + 1, now_s=now_s)
        self._entries = entries
        self._list_number = revocations.number
        self._list = revocations.signed
        self._devices[record.id] = replace(record, revoked=reason)
        self._signed(now_s)
        return revocations

    def rotate_root(
        self,
        *,
        now_s: float,
        next_key: DeviceKey | None = None,
        overlap_s: int = OVERLAP_S,
        passphrase: str | None = None,
        accept_clock: bool = False,
    ) -> bytes:
        """Hand over to the next root key, to which the present root committed; returns the new root (DER).

        Devices follow when they see the new root in anybody's credential file. Where the present key was stolen,
        `overlap_s=0` ends it at once, and every device needs a renewal. Revocations are signed again by the new root.

        Args:
            now_s: wall time.
            next_key: the next root key, where it is kept apart from the folder.
            overlap_s: how long the present root stays an anchor.
            passphrase: of the keys in the folder.
            accept_clock: sign although this machine's clock is not plausible.

        Raises:
            IdentityError: no next key, or not the one committed to.
        """
        self._check_clock(now_s, accept_clock)
        sequence = self.trust.newest.sequence + 1
        if next_key is None:
            next_key = self._next_key
        if next_key is None:
            if self._folder is None:
                raise IdentityError("the next root key is not here")
            next_key = DeviceKey.load(_key_path(self._folder, sequence), passphrase=passphrase)
        after = DeviceKey.generate()
        name = self.trust.newest.name
        root = issue_root(
            next_key, after.public, name=name, now_s=now_s, fleet=self.fleet, sequence=sequence, overlap_s=overlap_s
        )
        trust = Trust(self.trust.roots)
        trust.extend(root)  # refuses a key that the present root did not commit to
        if self._folder is not None:
            after.save(_key_path(self._folder, sequence + 1), passphrase=passphrase)
            if not _key_path(self._folder, sequence).exists():
                next_key.save(_key_path(self._folder, sequence), passphrase=passphrase)
        self.trust = trust
        self._root_key = next_key
        self._next_key = after
        if self._entries:
            self._list_number += 1
            self._list = sign_list(
                next_key, self.fleet, self._entries.values(), number=self._list_number, now_s=now_s
            ).signed
        self._signed(now_s)
        return root

    def _issue(self, record: DeviceRecord, now_s: float, lifetime_days: float, accept_clock: bool) -> CredentialFile:
        self._check_clock(now_s, accept_clock)
        if not 0 < lifetime_days <= MAX_LIFETIME_DAYS:
            raise IdentityError(f"a credential lives at most {MAX_LIFETIME_DAYS} days")
        lifetime_s = lifetime_days * 86400
        ends_s = int(now_s + lifetime_s)
        record = replace(
            record,
            generation=record.generation + 1,
            not_after_s=ends_s,
            latest_s=max(record.latest_s, ends_s),
        )
        credential = issue_credential(
            self._root_key,
            self.trust.newest,
            fleet=self.fleet,
            device=public_key_of(record.id),
            name=record.name,
            generation=record.generation,
            may=record.may,
            capabilities=record.capabilities,
            now_s=now_s,
            lifetime_s=lifetime_s,
        )
        self._devices[record.id] = record
        self._signed(now_s)
        return CredentialFile(
            credential=credential, roots=self.trust.roots, revocations=(self._list,) if self._list else ()
        )

    def _check_clock(self, now_s: float, accept_clock: bool) -> None:
        behind_s = self._last_signed_s - now_s
        if accept_clock or -CLOCK_JUMP_S <= behind_s <= CLOCK_BACK_S:
            return
        where = "behind" if behind_s > 0 else "ahead of"
        raise AuthorityClockError(
            f"this machine's clock is {abs(behind_s) / 86400:.1f} days {where} the last signature of this fleet",
            next_step="check the date; if it is right, add --accept-clock",
        )

    def _signed(self, now_s: float) -> None:
        self._last_signed_s = max(self._last_signed_s, int(now_s))
        if self._folder is not None:
            write_replace(self._folder / AUTHORITY_FILE, self._document())

    def _document(self) -> bytes:
        fields = {
            "format": AUTHORITY_FORMAT,
            "fleet": self.trust.fleet_id,
            "roots": [base64.b64encode(root).decode() for root in self.trust.roots],
            "last_signed_s": self._last_signed_s,
            "list_number": self._list_number,
            "list": base64.b64encode(self._list).decode(),
            "devices": [
                {
                    "id": r.id,
                    "name": r.name,
                    "generation": r.generation,
                    "not_after_s": r.not_after_s,
                    "latest_s": r.latest_s,
                    "may": r.may,
                    "capabilities": r.capabilities,
                    "revoked": r.revoked,
                }
                for r in self.devices
            ],
            "revocations": [
                [base64.b64encode(e.key).decode(), e.min_generation, e.reason, e.not_after_s]
                for e in sorted(self._entries.values())
            ],
        }
        return (json.dumps(fields, indent=1) + "\n").encode()

    def _read(self, fields: dict[str, object]) -> None:
        devices, revocations = fields["devices"], fields["revocations"]
        number, last, signed = fields["list_number"], fields["last_signed_s"], fields["list"]
        if not (isinstance(devices, list) and isinstance(revocations, list) and isinstance(signed, str)):
            raise ValueError("a field has another form")
        if not (isinstance(number, int) and isinstance(last, int)):
            raise ValueError("a field has another form")
        self._list_number, self._last_signed_s, self._list = number, last, base64.b64decode(signed)
        for device in devices:
            public_key_of(device["id"])
            record = DeviceRecord(
                id=NodeId(device["id"]),
                name=device["name"],
                generation=int(device["generation"]),
                not_after_s=int(device["not_after_s"]),
                latest_s=int(device.get("latest_s", device["not_after_s"])),
                may=tuple(device["may"]),
                capabilities=tuple(device["capabilities"]),
                revoked=None if device["revoked"] is None else RevocationReason(device["revoked"]),
            )
            self._devices[record.id] = record
        for key, min_generation, reason, not_after_s in revocations:
            entry = RevocationEntry(
                base64.b64decode(key), int(min_generation), RevocationReason(reason), int(not_after_s)
            )
            self._entries[entry.key] = entry


def dev_identity(authority_folder: Path, device_folder: Path, name: str, *, now_s: float) -> DeviceIdentity:
    """One device of the throw-away fleet on this machine: founds the fleet, makes the key and admits it as needed.

    Several processes may call this at once. Nothing is weaker than in any other fleet but that the authority's key
    lies on the machine, without a passphrase.

    Raises:
        IdentityError: a folder is open to others or damaged.
    """
    private_folder(authority_folder)
    with _held(authority_folder.with_name(authority_folder.name + ".lock")):
        try:
            authority = FleetAuthority.open(authority_folder)
        except MissingFileError:
            authority = FleetAuthority.create(authority_folder, "dev", now_s=now_s)
        with authority:
            try:
                identity = DeviceIdentity.load(device_folder, now_s=now_s)
                if identity.fleet == authority.fleet and identity.credential.fault_at(now_s + 86400) is None:
                    return identity
            except MissingFileError:
                pass
            key_file = device_folder / KEY_FILE
            key = DeviceKey.load(key_file) if key_file.exists() else create_key(device_folder)
            taken = {r.name: r.id for r in authority.devices if r.revoked is None}
            if taken.get(name, key.node_id) != key.node_id:
                name = f"{name}-{key.node_id[:4]}"
            file = authority.admit(
                JoinRequest.create(key, name=name), now_s=now_s, may=(*DEFAULT_MAY, "approve:*", "enter:*")
            )
            return install_credential(device_folder, key, file.to_bytes(), now_s=now_s, expected_fleet=authority.fleet)


class _held:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> None:
        self._descriptor = _lock(self._path)

    def __exit__(self, *_exc: object) -> None:
        os.close(self._descriptor)


def _lock(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise IdentityError(f"{path} cannot be opened: {error.strerror}") from error
    for _ in range(LOCK_ATTEMPTS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOCK_PAUSE_S)
            continue
        return descriptor
    os.close(descriptor)
    raise AuthorityBusyError(
        f"another command has had {path.parent} open for {LOCK_ATTEMPTS * LOCK_PAUSE_S:.0f} s",
        next_step="let it end, perhaps it asks for something, then try again",
    )


def _key_path(folder: Path, sequence: int) -> Path:
    return folder / f"root-{sequence}.key"
