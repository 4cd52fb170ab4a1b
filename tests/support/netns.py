"""Network namespaces on a bridge, made with `ip` and always cleaned up: several hosts on one machine.

The bridge lives in a namespace of its own, so that nothing changes on the host. Needs CAP_NET_ADMIN and iproute2; the
tests are skipped, with the reason, where either is missing.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

_TIMEOUT_S = 10


@dataclass(frozen=True)
class Host:
    """One namespace with one interface, `eth0`."""

    name: str
    hub: str
    port: str
    """Its end of the cable at the bridge."""
    ipv4: str
    """Empty where the host has none."""
    ipv6: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """Words that run a command inside."""
        return ("ip", "netns", "exec", self.name)

    def run(self, *words: str) -> str:
        """Run a command inside and return its output."""
        return _run(*self.prefix, *words)

    def cut(self) -> None:
        """Pull the cable: nobody is told, packets vanish."""
        _run("ip", "-n", self.hub, "link", "set", self.port, "nomaster")

    def mend(self) -> None:
        """Plug it in again."""
        _run("ip", "-n", self.hub, "link", "set", self.port, "master", "br0")


@contextlib.contextmanager
def bridged_hosts(count: int, *, ipv4: bool = True, ipv6: bool = True) -> Iterator[list[Host]]:
    """`count` hosts on one Ethernet: 10.77.0.1, 10.77.0.2, ..., fd77::1, ... and their link-local addresses.

    Skips the test where the machine forbids namespaces.
    """
    reason = _why_not()
    if reason:
        pytest.skip(reason)
    tag = secrets.token_hex(3)
    hub = f"mesh-{tag}-hub"
    hosts: list[Host] = []
    made = []
    try:
        _run("ip", "netns", "add", hub)
        made.append(hub)
        # no spanning tree: a fresh port would swallow packets for its forward delay; no snooping: there is no querier
        _run("ip", "-n", hub, "link", "add", "br0", "type", "bridge", "stp_state", "0", "mcast_snooping", "0")
        _run("ip", "-n", hub, "link", "set", "br0", "up")
        for number in range(1, count + 1):
            host = Host(
                name=f"mesh-{tag}-{number}",
                hub=hub,
                port=f"port{number}",
                ipv4=f"10.77.0.{number}" if ipv4 else "",
                ipv6=f"fd77::{number}" if ipv6 else "",
            )
            _run("ip", "netns", "add", host.name)
            made.append(host.name)
            _plug(host)
            hosts.append(host)
        yield hosts
    finally:
        for name in reversed(made):
            subprocess.run(("ip", "netns", "del", name), check=False, capture_output=True, timeout=_TIMEOUT_S)


def _plug(host: Host) -> None:
    inside = ("ip", "-n", host.name)
    # addresses are usable at once instead of after a second of duplicate detection
    for scope in ("all", "default"):
        host.run("sh", "-c", f"echo 0 > /proc/sys/net/ipv6/conf/{scope}/accept_dad")
    _run("ip", "-n", host.hub, "link", "add", host.port, "type", "veth", "peer", "name", "eth0", "netns", host.name)
    _run("ip", "-n", host.hub, "link", "set", host.port, "master", "br0", "up")
    _run(*inside, "link", "set", "lo", "up")
    if host.ipv4:
        _run(*inside, "addr", "add", f"{host.ipv4}/24", "broadcast", "+", "dev", "eth0")
    if host.ipv6:
        _run(*inside, "addr", "add", f"{host.ipv6}/64", "dev", "eth0", "nodad")
    _run(*inside, "link", "set", "eth0", "up")


def _why_not() -> str:
    if shutil.which("ip") is None:
        return "no network namespaces: the command `ip` (iproute2) is missing"
    if os.geteuid() != 0:
        return "no network namespaces: needs root"
    name = f"mesh-{secrets.token_hex(3)}-try"
    try:
        _run("ip", "netns", "add", name)
        try:
            _run("ip", "-n", name, "link", "add", "br0", "type", "bridge")
        finally:
            _run("ip", "netns", "del", name)
    except (subprocess.SubprocessError, OSError) as error:
        said = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
        return f"no network namespaces: {said.strip()[:120]}"
    return ""


def _run(*words: str) -> str:
    done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=_TIMEOUT_S)
    return done.stdout
