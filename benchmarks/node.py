"""What a node costs: import, start to ready, resident memory, and an idle link.

`start` runs from the first line of the process to a bound socket and restored journal. `idle` looks at two linked nodes
that have nothing to say: processor time, frames and bytes a second. `private_mib` is what a node has for itself; the
rest of its resident memory are pages of program files, which all nodes of a machine share.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import psutil

from benchmarks.nodes import NodeProcess, bench_config, open_bench_node
from benchmarks.report import Row, add_json_flag, progress, show

IMPORTS = {
    "import meshagent": "import meshagent",
    "import the SDK": "from meshagent import Role, Task, task, TaskContext, sensor",
    "import a whole node": "import meshagent.runtime.compose",
    "import the command line": "import meshagent.operator.main",
}


def _import_ms(statement: str, times: int) -> float:
    code = f"import time; t = time.perf_counter(); exec({statement!r}); print((time.perf_counter() - t) * 1000)"
    found = []
    for _ in range(times):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        found.append(float(done.stdout))
    return statistics.median(found)


def imports(times: int) -> list[Row]:
    return [{"system": name, "ms": round(_import_ms(statement, times), 1)} for name, statement in IMPORTS.items()]


def starts(folder: Path, times: int) -> list[Row]:
    """The first start makes an identity; the others find it."""
    ready_s, whole_s, sizes, private = [], [], [], []
    for _ in range(times + 1):
        started = time.perf_counter()
        with NodeProcess(folder, "starter") as process:
            ready_s.append(process.wait_ready()["ready_s"])
            whole_s.append(time.perf_counter() - started)
            sizes.append(process.rss_mib())
            private.append(process.private_mib())
    python_mib = float(
        subprocess.run(
            [sys.executable, "-c", "import psutil; print(psutil.Process().memory_info().rss / 2**20)"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
    )
    return [
        {
            "system": "start to ready",
            "ms": round(1000 * statistics.median(ready_s[1:]), 1),
            "with_interpreter_ms": round(1000 * statistics.median(whole_s[1:]), 1),
        },
        {
            "system": "idle node, memory",
            "rss_mib": round(statistics.median(sizes), 1),
            "private_mib": round(statistics.median(private), 1),
        },
        {"system": "bare Python, memory", "rss_mib": round(python_mib, 1)},
    ]


async def _idle(folder: Path, address: str, seconds: float, other: psutil.Process) -> Row:
    import asyncio

    async with AsyncExitStack() as stack:
        node = await open_bench_node(stack, folder, "watcher", (), bench_config([address]))
        async with asyncio.timeout(30):
            while not node.driver.peers():
                await asyncio.sleep(0.05)
        await asyncio.sleep(1.0)  # profiles and the first acknowledgements are through
        links = node.driver.links
        frames, cpu_s, ours_s = links.frames_out + links.frames_in, sum(other.cpu_times()[:2]), time.process_time()
        sent = _sent_bytes()
        await asyncio.sleep(seconds)
        return {
            "system": "idle link, each second",
            "cpu_ms": round(1000 * (sum(other.cpu_times()[:2]) - cpu_s) / seconds, 2),
            "cpu_ms_dialler": round(1000 * (time.process_time() - ours_s) / seconds, 2),
            "frames": round((links.frames_out + links.frames_in - frames) / seconds, 2),
            "loopback_bytes": None if sent is None else round((_sent_bytes() - sent) / seconds),
        }


def _sent_bytes() -> int:
    """Everything on the loopback interface: this machine's other traffic is in it, both ends' acknowledgements too."""
    counters = psutil.net_io_counters(pernic=True).get("lo")
    return counters.bytes_sent if counters else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5, help="repetitions, of which the median is shown")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to look at the idle link")
    add_json_flag(parser)
    options = parser.parse_args()
    from meshagent.runtime.compose import run_loop

    progress("imports ...")
    rows = imports(options.times)
    with tempfile.TemporaryDirectory(prefix="meshagent-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        progress("starts ...")
        rows += starts(folder, options.times)
        progress(f"an idle link for {options.seconds:.0f} s ...")
        other = stack.enter_context(NodeProcess(folder, "other"))
        other.wait_ready()
        rows.append(run_loop(_idle(folder, other.address, options.seconds, psutil.Process(other.process.pid))))
    show("benchmarks.node", rows, "grpcio", "cryptography", "pynacl", "zeroconf", "uvloop", as_json=options.json)


if __name__ == "__main__":
    main()
