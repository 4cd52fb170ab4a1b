"""Does multicast work on an interface: our own question heard back, and who else answers. For doctor, without a node.

The kernel loops what we send back to us, so an echo proves this device alone (a firewall here, an interface without
multicast); an access point that filters shows itself by silence of everybody else.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from meshagent.transport.interfaces import Interface

log = logging.getLogger(__name__)

PORT: Final = 5353
GROUP_V4: Final = "224.0.0.251"
GROUP_V6: Final = "ff02::fb"
MAX_SENDERS: Final = 64
_NAME: Final = b"\x0a_meshagent\x04_tcp\x05local\x00"
_TYPE_PTR: Final = 12
_CLASS_IN: Final = 1
_RESPONSE: Final = 0x80
_IP_MULTICAST_ALL: Final = 49
_IPV6_MULTICAST_ALL: Final = 29
"""Linux: hear only the groups joined on this socket, hence only this interface. Python does not name them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceHearing:
    """What one interface heard."""

    interface: str
    sent: int
    """Questions that the kernel took."""
    own_echo: bool
    others: tuple[str, ...]
    """Addresses that announced or answered for meshagent, ours excluded."""
    problem: str = ""
    """Why nothing could be sent."""


async def hear_multicast(interfaces: Sequence[Interface], *, within_s: float) -> list[InterfaceHearing]:
    """Ask for nodes on each interface and listen for `within_s`; never raises, changes nothing."""
    ears = [_Ear(interface) for interface in interfaces]
    for ear in ears:
        await ear.open()
    try:
        for share in (0.0, 0.4):
            await asyncio.sleep(within_s * share)
            for ear in ears:
                ear.ask()
        await asyncio.sleep(within_s * 0.6)
    finally:
        for ear in ears:
            ear.close()
    return [ear.hearing() for ear in ears]


class _Ear(asyncio.DatagramProtocol):
    """The sockets of one interface, one a family."""

    def __init__(self, interface: Interface) -> None:
        self._interface = interface
        self._own = {str(address.ip) for address in interface.addresses}
        self._question = struct.pack("!HHHHHH", secrets.randbits(16), 0, 1, 0, 0, 0) + _NAME
        self._question += struct.pack("!HH", _TYPE_PTR, _CLASS_IN)
        self._transports: list[tuple[asyncio.DatagramTransport, tuple[object, ...]]] = []
        self._sent = 0
        self._echo = False
        self._others: dict[str, None] = {}
        self._problem = ""

    async def open(self) -> None:
        """Join the group; a family without an address or without multicast is left out."""
        loop = asyncio.get_running_loop()
        v4 = next((str(a.ip) for a in self._interface.addresses if a.ip.version == 4), None)
        v6 = not self._interface.loopback and any(a.ip.version == 6 for a in self._interface.addresses)
        for family, wanted in ((socket.AF_INET, v4 is not None), (socket.AF_INET6, v6)):
            if not wanted:
                continue
            try:
                joined = _joined(family, v4 or "", self._interface.index)
            except OSError as error:
                self._problem = self._problem or (error.strerror or str(error))
                continue
            target = (GROUP_V4, PORT) if family == socket.AF_INET else (GROUP_V6, PORT, 0, self._interface.index)
            transport, _ = await loop.create_datagram_endpoint(lambda: self, sock=joined)
            self._transports.append((transport, target))

    def ask(self) -> None:
        """Send the question once on each family."""
        for transport, target in self._transports:
            transport.sendto(self._question, target)
            self._sent += 1

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
        """Somebody, perhaps we, said something."""
        sender = str(addr[0]).partition("%")[0]
        if data == self._question:
            self._echo = True
        elif len(data) > 12 and data[2] & _RESPONSE and _NAME[:11] in data and self._room_for(sender):
            self._others[sender] = None

    def _room_for(self, sender: str) -> bool:
        return sender not in self._own and len(self._others) < MAX_SENDERS

    def error_received(self, exc: Exception) -> None:
        """The kernel refused to send: no route, a firewall."""
        self._sent = max(0, self._sent - 1)
        self._problem = self._problem or str(exc)

    def close(self) -> None:
        """Leave the groups."""
        for transport, _ in self._transports:
            transport.abort()

    def hearing(self) -> InterfaceHearing:
        """The result."""
        return InterfaceHearing(
            interface=self._interface.name,
            sent=self._sent,
            own_echo=self._echo,
            others=tuple(self._others),
            problem=self._problem,
        )


def _joined(family: socket.AddressFamily, ip: str, index: int) -> socket.socket:
    joined = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            joined.setsockopt(socket.SOL_SOCKET, option, 1)
        if family == socket.AF_INET:
            member = socket.inet_aton(GROUP_V4) + socket.inet_aton(ip)
            joined.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
            joined.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
            joined.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(ip))
            joined.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
            joined.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
            joined.bind(("", PORT))
        else:
            member = socket.inet_pton(socket.AF_INET6, GROUP_V6) + struct.pack("@I", index)
            joined.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            joined.setsockopt(socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL, 0)
            joined.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, member)
            joined.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
            joined.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            joined.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 1)
            joined.bind(("", PORT))
    except OSError:
        joined.close()
        raise
    return joined
