"""How long until every node knows all others, what that costs, and what an idle mesh sends.

Every node is a process of its own, in a network namespace of its own on one bridge (`--netns`; without it all share
loopback). All are loaded first and let go at one moment; from there the clock runs until each believes every other
alive. `idle` then looks at a mesh that has nothing to say. Bytes are those that left through each node's interface,
headers of all layers included, so links, mDNS and membership together; `membership` counts its datagrams alone.

`python -m benchmarks.membership --nodes 5,20 --netns --json`
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.report import Row, add_json_flag, progress, show

IDLE_S = 10.0
SETTLE_S = 3.0
"""Between the moment in which all is known and the idle window: news is repeated a few times, then all is still."""
GIVE_UP_S = 90.0


# ---- one node


async def _node(state: Path, name: str, flags: dict[str, object]) -> None:
    from meshagent.configfile import load_config
    from meshagent.core.members import MemberState
    from meshagent.runtime.compose import open_node

    given = {"preset": "loopback", "node.name": name, "journal.sync": "normal", **flags}
    config = load_config([], environ={}, flags={key: ("benchmark", value) for key, value in given.items()})
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    _say(ready=True)
    others = int(await reader.readline())
    before = resource.getrusage(resource.RUSAGE_SELF)
    async with open_node(config, state, fleet="bench") as node:
        keeper = node.driver.keeper
        assert keeper is not None
        while sum(view.state is MemberState.ALIVE for view in keeper.members()) < others:
            await asyncio.sleep(0.005)
        known_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        _say(known_s=known_s, cpu_s=_cpu_s(before), packets=_packets())
        while (line := (await reader.readline()).strip()) == b"look":
            _say(
                cpu_s=_cpu_s(before),
                packets=_packets(),
                bytes=_bytes(),
                datagrams=keeper.sent,
                datagram_bytes=keeper.sent_bytes,
                suspects=sum(view.state is not MemberState.ALIVE for view in keeper.members()),
                links=len(node.driver.peers()),
            )
        assert not line
        await node.close(now=True)


def _cpu_s(before: resource.struct_rusage) -> float:
    now = resource.getrusage(resource.RUSAGE_SELF)
    return now.ru_utime + now.ru_stime - before.ru_utime - before.ru_stime


def _interface(field: str) -> int:
    for name in ("eth0", "lo"):
        with contextlib.suppress(OSError):
            return int(Path(f"/sys/class/net/{name}/statistics/{field}").read_text("ascii"))
    return 0


def _packets() -> int:
    return _interface("tx_packets")


def _bytes() -> int:
    return _interface("tx_bytes")


def _say(**fields: object) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


# ---- all of them


def _ip(*words: str) -> None:
    subprocess.run(("ip", *words), check=True, capture_output=True, timeout=20)


@contextlib.contextmanager
def _hosts(count: int) -> Iterator[list[tuple[str, ...]]]:
    """Prefixes of commands that run in a namespace each, all on one bridge in a namespace of its own."""
    tag = secrets.token_hex(3)
    hub, made = f"bench-{tag}-hub", [f"bench-{tag}-hub"]
    try:
        _ip("netns", "add", hub)
        _ip("-n", hub, "link", "add", "br0", "type", "bridge", "stp_state", "0", "mcast_snooping", "0")
        _ip("-n", hub, "link", "set", "br0", "up")
        for number in range(1, count + 1):
            name, port = f"bench-{tag}-{number}", f"port{number}"
            _ip("netns", "add", name)
            made.append(name)
            _ip("-n", hub, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("-n", hub, "link", "set", port, "master", "br0", "up")
            _ip("-n", name, "link", "set", "lo", "up")
            address = f"10.77.{number // 250}.{number % 250 + 1}/16"
            _ip("-n", name, "addr", "add", address, "broadcast", "+", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
        yield [("ip", "netns", "exec", name) for name in made[1:]]
    finally:
        for name in reversed(made):
            subprocess.run(("ip", "netns", "del", name), check=False, capture_output=True, timeout=20)


class _Child:
    def __init__(self, prefix: tuple[str, ...], state: Path, name: str, flags: dict[str, object]) -> None:
        words = [*prefix, sys.executable, "-m", "benchmarks.membership", "--node", str(state), name, json.dumps(flags)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a node ended by itself; its reason is above")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


def measure(count: int, *, netns: bool) -> list[Row]:
    """One mesh of `count` nodes: formed, then idle."""
    from meshagent.identity.files import private_folder
    from meshagent.identity.fleet import dev_identity

    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        prefixes = stack.enter_context(_hosts(count)) if netns else [()] * count
        flags: dict[str, object] = {} if netns else {"network.port": 0, "network.interfaces": ["lo"]}
        children = []
        for number, prefix in enumerate(prefixes):
            state = private_folder(folder / f"node-{number}")
            dev_identity(folder / "fleet", state, f"node-{number}", now_s=time.time())
            child = _Child(prefix, state, f"node-{number}", flags)
            stack.callback(child.close)
            children.append(child)
        for child in children:
            child.read()
        start_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        for child in children:
            child.tell(str(count - 1))
        formed = [child.read() for child in children]
        known_s = sorted(one["known_s"] - start_s for one in formed)
        time.sleep(SETTLE_S)
        first = _look(children)
        time.sleep(IDLE_S)
        last = _look(children)
    where = "namespaces" if netns else "loopback"
    changes = [{key: two[key] - one[key] for key in two} for one, two in zip(first, last, strict=True)]
    return [
        {
            "what": "formed",
            "nodes": count,
            "where": where,
            "first_s": round(known_s[0], 3),
            "median_s": round(statistics.median(known_s), 3),
            "all_s": round(known_s[-1], 3),
            "packets": sum(one["packets"] for one in formed),
            "cpu_ms_a_node": round(1000 * statistics.mean(one["cpu_s"] for one in formed), 1),
        },
        {
            "what": "idle",
            "nodes": count,
            "where": where,
            "bytes_s_a_node": round(statistics.mean(one["bytes"] for one in changes) / IDLE_S),
            "packets_s_a_node": round(statistics.mean(one["packets"] for one in changes) / IDLE_S, 1),
            "membership_bytes_s": round(statistics.mean(one["datagram_bytes"] for one in changes) / IDLE_S),
            "cpu_percent_a_node": round(100 * statistics.mean(one["cpu_s"] for one in changes) / IDLE_S, 2),
            "not_alive": sum(one["suspects"] for one in last),
            "links": sum(one["links"] for one in last),
        },
    ]


def _look(children: list[_Child]) -> list[dict[str, Any]]:
    for child in children:
        child.tell("look")
    return [child.read() for child in children]


def main() -> None:
    """Parse, run, print."""
    if sys.argv[1:2] == ["--node"]:
        from meshagent.runtime.compose import run_loop

        state, name, flags = sys.argv[2:5]
        run_loop(asyncio.wait_for(_node(Path(state), name, json.loads(flags)), GIVE_UP_S + IDLE_S + SETTLE_S))
        return
    parser = argparse.ArgumentParser(prog="python -m benchmarks.membership", description=__doc__)
    parser.add_argument("--nodes", default="5,20", help="sizes of meshes, by commas")
    parser.add_argument("--netns", action="store_true", help="a network namespace each, on a bridge (needs root)")
    add_json_flag(parser)
    given = parser.parse_args()
    rows: list[Row] = []
    for count in [int(word) for word in given.nodes.split(",")]:
        progress(f"{count} nodes")
        rows += measure(count, netns=given.netns)
    show("benchmarks.membership", rows, "grpcio", "zeroconf", "cryptography", as_json=given.json)


if __name__ == "__main__":
    main()
