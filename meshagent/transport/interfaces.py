"""Names of network interfaces turned into addresses, and the question whether an address lies on one of them.

Linux only knows whether an interface is up by its flags; ifaddr tells the addresses. Nothing is cached: a robot
changes networks while it runs.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import ifaddr

from meshagent.errors import TransportError

_FLAGS = "/sys/class/net/{name}/flags"
_IFF_UP: Final = 0x1
_IFF_LOOPBACK: Final = 0x8

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """One address of an interface with the network it lies in."""

    ip: IpAddress
    network: IpNetwork

    @property
    def link_local_v6(self) -> bool:
        """True where the address means nothing without its interface."""
        return self.ip.version == 6 and self.ip.is_link_local


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface that is up, with at least one address."""

    name: str
    index: int
    loopback: bool
    addresses: tuple[InterfaceAddress, ...]


def up_interfaces() -> list[Interface]:
    """All interfaces that are up and have an address, in the kernel's order."""
    found = []
    for adapter in ifaddr.get_adapters():
        flags = _flags(adapter.name)
        if adapter.index is None or not flags & _IFF_UP:
            continue
        addresses = tuple(
            _address(str(entry.ip if entry.is_IPv4 else entry.ip[0]), entry.network_prefix) for entry in adapter.ips
        )
        if addresses:
            found.append(Interface(adapter.name, adapter.index, bool(flags & _IFF_LOOPBACK), addresses))
    return sorted(found, key=lambda interface: interface.index)


def chosen_interfaces(names: Sequence[str]) -> list[Interface]:
    """The interfaces to use: those named, or without names all that are up (loopback only when nothing else is).

    Raises:
        TransportError: a named interface does not exist, is down or has no address; or there is none at all.
    """
    present = up_interfaces()
    if not names:
        outward = [interface for interface in present if not interface.loopback]
        chosen = outward or present
        if not chosen:
            raise TransportError(
                "This device has no network interface that is up, not even loopback.",
                next_step="ip link    then bring one up:  ip link set lo up",
            )
        return chosen
    by_name = {interface.name: interface for interface in present}
    missing = [name for name in names if name not in by_name]
    if missing:
        known = ", ".join(by_name) or "none"
        down = [name for name in missing if Path(_FLAGS.format(name=name)).exists()]
        what = "is down or has no address" if down == missing else "does not exist here"
        raise TransportError(
            f"Network interface {', '.join(missing)} {what}; usable: {known}.",
            next_step=f"meshagent config set network.interfaces '[\"{next(iter(by_name), 'lo')}\"]'",
        )
    return [by_name[name] for name in dict.fromkeys(names)]


def on_same_network(ip: str, interfaces: Iterable[Interface]) -> bool:
    """True where `ip` (a link-local one with `%scope`) is reachable on one of `interfaces` without a router."""
    bare, _, scope = ip.partition("%")
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return False
    if address.is_multicast or address.is_unspecified:
        return False
    for interface in interfaces:
        if address.version == 6 and address.is_link_local:
            if scope in (str(interface.index), interface.name):
                return True
            continue
        for own in interface.addresses:
            if own.ip.version == address.version and address in own.network and not _is_broadcast(address, own):
                return True
    return False


def _is_broadcast(address: IpAddress, own: InterfaceAddress) -> bool:
    network = own.network
    return network.version == 4 and network.prefixlen < 31 and address == network.broadcast_address


def host_port(host: str, port: int) -> str:
    """`host:port` as people type it; IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def grpc_target(ip: str, port: int) -> str:
    """The gRPC name of one address, past every resolver and proxy."""
    if ":" in ip:
        return f"ipv6:%5B{ip.replace('%', '%25')}%5D:{port}"
    return f"ipv4:{ip}:{port}"


def _address(text: str, prefix: int) -> InterfaceAddress:
    return InterfaceAddress(ipaddress.ip_address(text), ipaddress.ip_network(f"{text}/{prefix}", strict=False))


def _flags(name: str) -> int:
    try:
        return int(Path(_FLAGS.format(name=name)).read_text("ascii"), 16)
    except (OSError, ValueError):
        # no /sys (another kernel, a tight container): an interface with an address counts as up
        loopback = name in {"lo", "lo0"}
        return _IFF_UP | (_IFF_LOOPBACK if loopback else 0)


def scope_of(interface: Interface, ip: IpAddress) -> str:
    """`ip` as a socket of this host needs it: link-local IPv6 with its interface."""
    return f"{ip}%{interface.name}" if ip.version == 6 and ip.is_link_local else str(ip)


def family_of(ip: str) -> socket.AddressFamily:
    """AF_INET or AF_INET6 of a literal address."""
    return socket.AF_INET6 if ":" in ip else socket.AF_INET
