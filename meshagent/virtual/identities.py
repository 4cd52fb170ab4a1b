"""Devices of one fleet, made once a process and the same in every process: a seed must not pay for X.509.

Keys come from fixed seeds, so ids, ties and who dials are the same wherever a seed is replayed. They guard nothing:
whoever reads this module knows them, and no node outside virtual time trusts this fleet.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Final

from meshagent.identity.book import CredentialBook
from meshagent.identity.certificates import issue_credential, read_credential
from meshagent.identity.credential import Credential
from meshagent.identity.device import DeviceIdentity
from meshagent.identity.keys import DeviceKey
from meshagent.identity.trust import Trust, issue_root
from meshagent.virtual.clock import WALL_BASE_S

POOL_SIZE: Final = 32
"""Devices ready for use; a scenario draws among them, so that the order of ids differs from seed to seed."""
LIFETIME_S: Final = 10 * 365 * 24 * 3600
MAY: Final = ("announce:*", "perform:*", "approve:*", "enter:*", "use:*")
"""Everything that a role may require; who denies something does so in the node's configuration."""
CAPABILITIES: Final = ()


def key_of(name: str) -> DeviceKey:
    """The key of `name` in this fleet."""
    return DeviceKey(hashlib.sha256(b"meshagent/virtual/key/" + name.encode()).digest())


@functools.cache
def _root() -> tuple[DeviceKey, Trust]:
    key, following = key_of("root-0"), key_of("root-1")
    root = issue_root(key, following.public, name="virtual", now_s=WALL_BASE_S - 86_400)
    return key, Trust([root])


def trust() -> Trust:
    """The fleet, as its devices trust it."""
    return _root()[1]


@functools.cache
def _credential(number: int) -> bytes:
    root_key, fleet = _root()
    return issue_credential(
        root_key,
        fleet.newest,
        fleet=fleet.fleet,
        device=key_of(f"device-{number}").public,
        name=f"device-{number}",
        generation=1,
        may=MAY,
        capabilities=CAPABILITIES,
        now_s=WALL_BASE_S - 3600,
        lifetime_s=LIFETIME_S,
    )


class PooledBook(CredentialBook):
    """A book that has read the pool's credentials before: what X.509 says of the same bytes is the same each time."""

    def learn(self, credential_der: bytes, *, now_s: float) -> Credential:
        known = _read.get(credential_der)
        if known is None or known.fault_at(self.time_s(now_s)) is not None:
            return super().learn(credential_der, now_s=now_s)
        return self._take(known)


def open_book(device: DeviceIdentity) -> PooledBook:
    """As `DeviceIdentity.open_book`, for a device of the pool."""
    book = PooledBook(device.trust)
    book.note_own(device.credential)
    return book


_read: Final[dict[bytes, Credential]] = {}


@functools.cache
def identity(number: int) -> DeviceIdentity:
    """The device `number` of the fleet; any number, the first `POOL_SIZE` are what scenarios draw from."""
    data = _credential(number)
    credential = _read[data] = read_credential(data, trust(), now_s=WALL_BASE_S)
    return DeviceIdentity(key_of(f"device-{number}"), credential, trust())
