"""A node for membership tests: `python -m tests.support.member_child STATE NAME '{"network.mdns": false}'`.

Prints its id when it is up, and whom it believes in which state for each line `look` on its standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from meshagent.configfile import load_config
from meshagent.runtime.compose import open_node, run_loop
from tests.support.node_child import say

NO_UDP = "membership.no_udp"
"""Not a key of the configuration: a firewall inside this process."""


async def serve(state: Path, name: str, given: dict[str, object]) -> None:
    no_udp = given.pop(NO_UDP, False)
    flags = {"preset": ("test", "loopback"), "node.name": ("test", name)}
    made = load_config([], environ={}, flags={**flags, **{key: ("test", value) for key, value in given.items()}})
    async with open_node(made, state, fleet="test") as node:
        keeper = node.driver.keeper
        assert keeper is not None
        if no_udp:
            keeper._datagrams = None
        say({"event": "up", "id": node.id})
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while (await reader.readline()).strip() == b"look":
            say({"members": {view.node: view.state.value for view in keeper.members()}})
        await node.close(drain_s=1.0)


def main() -> None:
    state, name, given = sys.argv[1:]
    run_loop(serve(Path(state), name, json.loads(given)))


if __name__ == "__main__":
    main()
