"""UDP beside the links, on the port number of the TCP listener: bytes in, bytes out, nothing understood.

What datagrams hold is sealed and opened in `identity/datagrams.py`; whom to answer is decided in
`runtime/keeper.py`. Where the port cannot be had for UDP the node goes on: links carry membership too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Sequence
from typing import Any, Final

from meshagent.core.ports import DatagramReceived
from meshagent.transport.interfaces import Interface, chosen_interfaces, on_same_network, scope_of

log = logging.getLogger(__name__)

MAX_DATAGRAM_BYTES: Final = 1400
MAX_LOCAL_ADDRESSES: Final = 4
_MAPPED: Final = "::ffff:"


class _Endpoint(asyncio.DatagramProtocol):
    """One bound socket."""

    def __init__(self, owner: UdpDatagrams) -> None:
        self._owner = owner

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._owner.arrived(data, addr)

    def error_received(self, exc: Exception) -> None:
        # ICMP says that nobody listens there, or that the network is gone: the missing answer says the same
        log.debug("a datagram came back: %s", exc)


class UdpDatagrams:
    """`core.ports.Datagrams` over real sockets."""

    def __init__(self, interfaces: Sequence[str]) -> None:
        """Prepare; `interfaces` as in the configuration, empty for all."""
        self._names = tuple(interfaces)
        self._endpoints: list[tuple[socket.AddressFamily, Interface | None, asyncio.DatagramTransport]] = []
        self._received: DatagramReceived | None = None
        self.sent = 0
        self.sent_bytes = 0
        self.received = 0

    async def start(self, port: int) -> None:
        """Bind UDP `port` on the addresses that the links use.

        Raises:
            OSError: the port cannot be had.
        """
        loop = asyncio.get_running_loop()
        try:
            for bound, interface in self._sockets(port):
                transport, _ = await loop.create_datagram_endpoint(lambda: _Endpoint(self), sock=bound)
                self._endpoints.append((bound.family, interface, transport))
        except OSError:
            self.close()
            raise

    def _sockets(self, port: int) -> list[tuple[socket.socket, Interface | None]]:
        if not self._names:
            try:
                return [(_bound(socket.AF_INET6, "::", port), None)]
            except OSError:
                return [(_bound(socket.AF_INET, "0.0.0.0", port), None)]
        made: list[tuple[socket.socket, Interface | None]] = []
        try:
            for interface in chosen_interfaces(self._names):
                for address in interface.addresses:
                    family = socket.AF_INET6 if address.ip.version == 6 else socket.AF_INET
                    made.append((_bound(family, scope_of(interface, address.ip), port), interface))
        except OSError:
            for one, _ in made:
                one.close()
            raise
        return made

    def listen(self, received: DatagramReceived) -> None:
        self._received = received

    def arrived(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """Hand a datagram on, its sender's address spelled as records spell it."""
        if self._received is None or len(data) > MAX_DATAGRAM_BYTES:
            return
        self.received += 1
        host = str(addr[0]).removeprefix(_MAPPED)
        self._received(host, int(addr[1]), data)

    def send(self, host: str, port: int, data: bytes) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        endpoint = self._endpoint_for(family, host)
        if endpoint is None:
            return
        bound_family, transport = endpoint
        bare, _, scope = host.partition("%")
        target: tuple[Any, ...] = (bare, port)
        if bound_family is socket.AF_INET6:
            scope_id = 0
            if scope:
                with contextlib.suppress(OSError):
                    scope_id = int(scope) if scope.isdigit() else socket.if_nametoindex(scope)
            target = (_MAPPED + bare if family is socket.AF_INET else bare, port, 0, scope_id)
        self.sent += 1
        self.sent_bytes += len(data)
        with contextlib.suppress(OSError, ValueError):  # no route now; silence says so
            transport.sendto(data, target)

    def _endpoint_for(
        self, family: socket.AddressFamily, host: str
    ) -> tuple[socket.AddressFamily, asyncio.DatagramTransport] | None:
        fallback = None
        for bound_family, interface, transport in self._endpoints:
            if interface is None:
                return (bound_family, transport) if bound_family in (socket.AF_INET6, family) else None
            if bound_family is not family:
                continue
            if on_same_network(host, (interface,)):
                return bound_family, transport
            fallback = fallback or (bound_family, transport)
        return fallback

    def local_addresses(self) -> Sequence[str]:
        """IPv4 first, then IPv6 that means something without its interface; loopback where there is nothing else."""
        found = []
        for interface in chosen_interfaces(self._names):
            for address in interface.addresses:
                if not address.link_local_v6:
                    found.append(address.ip)
        found.sort(key=lambda ip: (ip.is_loopback, ip.version, ip.is_link_local))
        return tuple(str(ip) for ip in found[:MAX_LOCAL_ADDRESSES])

    def close(self) -> None:
        """Release the port."""
        for _, _, transport in self._endpoints:
            transport.close()
        self._endpoints.clear()
        self._received = None


def _bound(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        if family is socket.AF_INET6:
            # the wildcard serves both families, as the links' listener does; an address of its own serves one
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
        bare, _, scope = host.partition("%")
        if family is socket.AF_INET6:
            made.bind((bare, port, 0, socket.if_nametoindex(scope) if scope else 0))
        else:
            made.bind((bare, port))
    except OSError:
        made.close()
        raise
    return made
