"""Which addresses are near, and how gRPC is told of one."""

from __future__ import annotations

import ipaddress

import pytest

from meshagent.transport.interfaces import (
    Interface,
    InterfaceAddress,
    chosen_interfaces,
    grpc_target,
    host_port,
    on_same_network,
)


def interface(name: str, index: int, *networks: str) -> Interface:
    faces = [ipaddress.ip_interface(network) for network in networks]
    return Interface(name, index, name == "lo", tuple(InterfaceAddress(face.ip, face.network) for face in faces))


WLAN = interface("wlan0", 3, "10.0.4.12/24", "fd00::2/64", "fe80::1/64")
LO = interface("lo", 1, "127.0.0.1/8", "::1/128")


@pytest.mark.parametrize(
    ("ip", "near"),
    [
        ("10.0.4.20", True),
        ("10.0.5.20", False),
        ("10.0.4.255", False),
        ("8.8.8.8", False),
        ("127.0.0.1", False),
        ("224.0.0.251", False),
        ("0.0.0.0", False),
        ("255.255.255.255", False),
        ("fd00::77", True),
        ("fd01::77", False),
        ("fe80::9%3", True),
        ("fe80::9%wlan0", True),
        ("fe80::9%4", False),
        ("fe80::9", False),
        ("ff02::1", False),
        ("::", False),
        ("::1", False),
        ("not an address", False),
        ("10.0.4.20%3", True),
    ],
)
def test_address_is_near_only_on_a_network_of_our_own(ip: str, near: bool) -> None:
    assert on_same_network(ip, [WLAN]) is near


def test_loopback_is_near_only_where_loopback_was_chosen() -> None:
    assert on_same_network("127.0.0.1", [LO])
    assert on_same_network("::1", [LO])
    assert not on_same_network("10.0.4.12", [LO])


def test_targets_pass_every_resolver() -> None:
    assert grpc_target("10.0.4.20", 7340) == "ipv4:10.0.4.20:7340"
    assert grpc_target("fe80::9%3", 7340) == "ipv6:%5Bfe80::9%253%5D:7340"
    assert host_port("::1", 1) == "[::1]:1"
    assert host_port("10.0.4.20", 1) == "10.0.4.20:1"


def test_loopback_is_named_and_up_on_this_machine() -> None:
    [loopback] = chosen_interfaces(("lo",))
    assert loopback.loopback
    assert any(str(address.ip) == "127.0.0.1" for address in loopback.addresses)
