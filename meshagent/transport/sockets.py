"""Who holds a TCP port on this machine, so that "port in use" can say by whom."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from meshagent.errors import TransportError

_LISTEN: Final = "0A"
_SOCKET: Final = re.compile(r"socket:\[(\d+)\]")
_MAX_PROCESSES: Final = 4096
"""How many are looked at: the answer serves a sentence, not a safety decision."""


@dataclass(frozen=True, slots=True)
class PortHolder:
    """A process that listens on a port."""

    pid: int
    command: str
    """Its file name, such as `python3.11`."""
    node: bool
    """It looks like another meshagent node."""
    name: str = ""
    """The name it was given by `--name`, if any."""


def port_holder(port: int) -> PortHolder | None:
    """The process that listens on TCP `port`; None where nobody does or it belongs to somebody else."""
    inodes = {inode for table in ("/proc/net/tcp", "/proc/net/tcp6") for inode in _listening(table, port)}
    if not inodes:
        return None
    try:
        pids = sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    except OSError:
        return None
    for pid in pids[:_MAX_PROCESSES]:
        if _holds(pid, inodes):
            return _describe(pid)
    return None


def _listening(table: str, port: int) -> list[str]:
    try:
        lines = Path(table).read_text("ascii").splitlines()[1:]
    except OSError:
        return []
    found = []
    for line in lines:
        fields = line.split()
        if len(fields) > 9 and fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
            found.append(fields[9])
    return found


def _holds(pid: int, inodes: set[str]) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        for entry in os.listdir(folder):
            try:
                match = _SOCKET.match(os.readlink(f"{folder}/{entry}"))
            except OSError:
                continue  # closed between the two calls
            if match and match[1] in inodes:
                return True
    except OSError:
        return False  # another user's, or gone
    return False


def _describe(pid: int) -> PortHolder:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        words = []
    # `python .../bin/meshagent run` or `python -m meshagent.operator.main`; a folder of that name proves nothing
    node = any(Path(word).name.split(".")[0] == "meshagent" for word in words[:4])
    name = ""
    for at, word in enumerate(words):
        if word == "--name" and at + 1 < len(words):
            name = words[at + 1]
        elif word.startswith("--name="):
            name = word.partition("=")[2]
    plain = "".join(c for c in name if c.isprintable())[:63]
    return PortHolder(pid, Path(words[0]).name if words and words[0] else "a process", node, plain)


def port_in_use(port: int, detail: str, *, name: str = "") -> TransportError:
    """The error to raise when `port` cannot be bound, with the holder where it can be found out."""
    again = f"meshagent run ROLE --port 0 --name {name or 'NAME'}"
    holder = port_holder(port) if port else None
    if holder is None:
        return TransportError(
            f"port {port} cannot be bound: {'it is in use' if 'in use' in detail.lower() else detail[:200]}.",
            next_step=f"ss -ltnp 'sport = :{port}'   or take a free port: {again}",
        )
    if holder.node:
        who = (
            f"another meshagent node ({holder.name}, pid {holder.pid})"
            if holder.name
            else f"another meshagent node (pid {holder.pid})"
        )
        step = f"meshagent status   or a second node: {again}"
    else:
        who = f"{holder.command} (pid {holder.pid})"
        step = f"another port for this node: meshagent config set network.port {port + 1}   or any free one: {again}"
    return TransportError(f"port {port} is in use by {who}.", next_step=step)
