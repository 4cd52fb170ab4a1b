"""What became of every address that was tried: kept for `meshagent doctor`, one entry an address, in sentences.

A handshake that the peer refuses reaches us as "Socket closed" and nothing else; the likely causes are worked out in
probe.py and end up here.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from meshagent.core.ports import HintSource
from meshagent.types import NodeId

MAX_ATTEMPTS: Final = 256
"""Addresses remembered; the one untried for longest leaves first."""


class DialOutcome(StrEnum):
    """How the last dial of an address ended."""

    LINKED = "linked"
    ALREADY_LINKED = "already_linked"
    """Another stream to the same peer was there first."""
    SELF = "self"
    """It is this node."""
    DUPLICATE_ID = "duplicate_id"
    """Another device shows our own identity."""
    UNRESOLVED = "unresolved"
    """The host name has no address."""
    CONNECTION_REFUSED = "connection_refused"
    NO_ROUTE = "no_route"
    SILENT = "silent"
    """Nothing answered within the time."""
    NOT_TLS = "not_tls"
    """Something listens there that does not speak our protocol."""
    OTHER_FLEET = "other_fleet"
    OTHER_PEER = "other_peer"
    """A member of our fleet, not the one that was expected."""
    THEIR_CREDENTIAL = "their_credential"
    """Expired, not yet valid, or malformed, by our clock and trust."""
    OUR_CREDENTIAL = "our_credential"
    """They refused ours, and it is expired or not yet valid by our own clock."""
    REFUSED_US = "refused_us"
    """They refused us and do not say why: revoked there, or their clock differs."""
    REVOKED = "revoked"
    """We know it as revoked."""
    BUSY = "busy"
    """It has no room for another link."""
    FAILED = "failed"
    """Anything else; `detail` has gRPC's words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DialAttempt:
    """The last thing that happened at one address."""

    address: str
    """`host:port`."""
    source: HintSource
    outcome: DialOutcome
    sentence: str
    """What happened and the likely cause, for people; printable."""
    next_step: str | None = None
    peer: NodeId | None = None
    fleet: str | None = None
    """The fleet id that was seen, where it is another one."""
    at_wall_s: float
    tries: int = 1
    """How often in a row it ended like this."""
    detail: str = ""
    """Words of gRPC or OpenSSL, for logs."""


def plain(text: str, limit: int = 300) -> str:
    """`text` without anything that a terminal would obey; peers choose some of it."""
    return "".join(c if c.isprintable() else "?" for c in text[:limit])


class Attempts:
    """The last attempt at each address, bounded."""

    def __init__(self) -> None:
        self._by_address: OrderedDict[str, DialAttempt] = OrderedDict()

    def add(self, attempt: DialAttempt) -> DialAttempt:
        """Remember `attempt`; equal outcomes in a row are counted."""
        before = self._by_address.pop(attempt.address, None)
        if before is not None and before.outcome is attempt.outcome and before.peer == attempt.peer:
            attempt = replace(attempt, tries=before.tries + 1)
        self._by_address[attempt.address] = attempt
        while len(self._by_address) > MAX_ATTEMPTS:
            self._by_address.popitem(last=False)
        return attempt

    def all(self) -> list[DialAttempt]:
        """Every remembered attempt, the oldest first."""
        return list(self._by_address.values())
