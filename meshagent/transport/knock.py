"""A TCP connection and nothing more: does anybody listen there, and if not, in which way not.

gRPC reports a refused, a filtered and an unroutable address alike; the kernel's errno tells them apart, within a
round trip. After a lost link this is what decides whether the peer's process is gone.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from dataclasses import dataclass
from typing import Final

from meshagent.transport.attempts import DialOutcome
from meshagent.transport.interfaces import family_of

OUTCOME_OF_ERRNO: Final = {
    errno.ECONNREFUSED: DialOutcome.CONNECTION_REFUSED,
    errno.ECONNRESET: DialOutcome.CONNECTION_REFUSED,
    errno.EHOSTUNREACH: DialOutcome.NO_ROUTE,
    errno.ENETUNREACH: DialOutcome.NO_ROUTE,
    errno.EADDRNOTAVAIL: DialOutcome.NO_ROUTE,
    errno.EACCES: DialOutcome.NO_ROUTE,
    errno.EPERM: DialOutcome.NO_ROUTE,
    errno.ETIMEDOUT: DialOutcome.SILENT,
}
MAX_RESOLVED: Final = 4
"""Addresses of one host name that are tried."""


@dataclass(frozen=True, slots=True)
class Knock:
    """What the kernel said. `outcome` None: somebody listens."""

    outcome: DialOutcome | None
    detail: str = ""


async def knock(ip: str, port: int, *, timeout_s: float) -> Knock:
    """Open and close a TCP connection to a literal address."""
    loop = asyncio.get_running_loop()
    try:
        target = socket.getaddrinfo(ip, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0][4]
    except OSError as error:
        return Knock(DialOutcome.UNRESOLVED, str(error))
    try:
        with socket.socket(family_of(ip), socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
            connection.setblocking(False)
            async with asyncio.timeout(timeout_s):
                await loop.sock_connect(connection, target)
            if connection.getsockname() == connection.getpeername():
                # the kernel may pick the dialled port as the source and connect a socket to itself
                return Knock(DialOutcome.CONNECTION_REFUSED, "only this socket itself answered")
    except TimeoutError:
        return Knock(DialOutcome.SILENT, f"no answer within {timeout_s:g} s")
    except OSError as error:
        code = error.errno or 0
        return Knock(OUTCOME_OF_ERRNO.get(code, DialOutcome.FAILED), os.strerror(code) if code else str(error))
    return Knock(None)


async def resolve(host: str, *, timeout_s: float) -> list[str]:
    """The literal addresses of `host`, itself if it is one; empty where the name is unknown."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, ValueError):  # ValueError: a label too long, a null character
        return []
    return list(dict.fromkeys(_spelled(entry[4]) for entry in found))[:MAX_RESOLVED]


def _spelled(sockaddr: tuple[object, ...]) -> str:
    ip = str(sockaddr[0])
    if len(sockaddr) == 4 and sockaddr[3] and "%" not in ip:
        return f"{ip}%{sockaddr[3]}"
    return ip
