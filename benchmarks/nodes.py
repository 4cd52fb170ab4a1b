"""Real nodes for benchmarks: a throw-away fleet in a temporary folder, each node a process of its own.

`python -m benchmarks.nodes FOLDER NAME [ROLE ...]` runs one node until its standard input closes, and says
`{"port": ..., "ready_s": ...}` when it is ready; everything a node does in earnest is on: TLS, signatures, journal.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

BORN_S = time.perf_counter()

ECHO = "benchmarks.echo:Echoer"


def bench_config(peers: Sequence[str] = (), *, sync: str = "full", **flags: object) -> Any:
    """The loopback preset on a port of its own, without mDNS: discovery has a benchmark of its own."""
    from meshagent.configfile import load_config

    values: dict[str, object] = {
        "preset": "loopback",
        "network.port": 0,
        "network.interfaces": ["lo"],
        "network.mdns": False,
        "network.peers": list(peers),
        "journal.sync": sync,
        **flags,
    }
    return load_config([], environ={}, flags={key: (key, value) for key, value in values.items()})


async def open_bench_node(stack: AsyncExitStack, folder: Path, name: str, roles: Sequence[str], config: Any) -> Any:
    """A node that is ready, closed by `stack`."""
    from meshagent.identity.files import private_folder
    from meshagent.identity.fleet import dev_identity
    from meshagent.runtime.compose import open_node
    from meshagent.sdk.loader import load_roles

    state = folder / name
    private_folder(state)
    dev_identity(folder / "authority", state, name, now_s=time.time())
    return await stack.enter_async_context(open_node(config, state, load_roles(roles) if roles else [], fleet="dev"))


async def _serve(folder: Path, name: str, roles: Sequence[str], sync: str) -> None:
    async with AsyncExitStack() as stack:
        node = await open_bench_node(stack, folder, name, roles, bench_config(sync=sync))
        ready = {"port": node.transport.listen_port, "ready_s": time.perf_counter() - BORN_S}
        print(json.dumps(ready), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


class NodeProcess:
    """A node in a process of its own, seen from the benchmark."""

    def __init__(self, folder: Path, name: str, roles: Sequence[str] = (ECHO,), *, sync: str = "full") -> None:
        environment = {**os.environ, "BENCH_SYNC": sync}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.nodes", str(folder), name, *roles],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.ready: dict[str, float] = {}

    def wait_ready(self) -> dict[str, float]:
        """Block until it is ready.

        Raises:
            RuntimeError: it ended instead; its own words are on stderr.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a node ended with status {self.process.wait()} before it was ready")
        self.ready = json.loads(line)
        return self.ready

    @property
    def address(self) -> str:
        return f"127.0.0.1:{int(self.ready['port'])}"

    def rss_mib(self) -> float:
        import psutil

        return float(psutil.Process(self.process.pid).memory_info().rss) / 2**20

    def private_mib(self) -> float:
        """Resident memory that is no page of a file, MiB."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) / 1024
        return 0.0

    def close(self) -> None:
        """Ask it to leave; kill it if it does not."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


if __name__ == "__main__":
    from meshagent.runtime.compose import run_loop

    run_loop(_serve(Path(sys.argv[1]), sys.argv[2], sys.argv[3:], os.environ.get("BENCH_SYNC", "full")))
