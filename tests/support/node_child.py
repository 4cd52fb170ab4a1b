"""A node in a process of its own: `python -m tests.support.node_child STATE NAME HOST:PORT ROLE...`.

Prints one JSON line when it is up, and one for each event it watches; ends when its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from meshagent.config import Config
from meshagent.configfile import load_config
from meshagent.runtime.compose import open_node, run_loop
from meshagent.sdk.loader import load_roles


def config(peers: list[str], **more: object) -> Config:
    flags: dict[str, tuple[str, object]] = {
        "preset": ("test", "loopback"),
        "network.port": ("test", 0),
        "network.interfaces": ("test", ["lo"]),
        "network.mdns": ("test", False),
        "network.peers": ("test", peers),
    }
    flags.update({key.replace("__", "."): ("test", value) for key, value in more.items()})
    return load_config([], environ={}, flags=flags)


def say(document: dict[str, object]) -> None:
    print(json.dumps(document), flush=True)


async def serve(state: Path, name: str, peer: str, roles: list[str]) -> None:
    made = config([peer] if peer else [], node__name=name, actuators__stamp__driver="tests.support.stamping:FileStamp")
    async with open_node(made, state, load_roles(roles), fleet="test") as node:
        say({"event": "up", "id": node.id, "port": node.look.status()["listen_port"]})
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        await reader.read()
        await node.close(drain_s=2.0)


def main() -> None:
    state, name, peer, *roles = sys.argv[1:]
    run_loop(serve(Path(state), name, peer, roles))


if __name__ == "__main__":
    main()
