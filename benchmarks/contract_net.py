"""Contract-net rounds: meshagent, every message signed and every link mutual TLS, beside others that sign nothing.

A round asks N participants, each a process of its own, takes their proposals, awards one and has its result. For the
others that is 2N + 2 messages. A round of meshagent says more, and what it says holds: the award is reserved and
committed under a lease, what was promised is on disk (one SQLite commit with full sync a turn, on both sides), and the
result is acknowledged. Rows: meshagent; `no fsync`, its journal without the sync; the floors, a plaintext grpc.aio
stream a pair without and with a signature a message; mango-agents and osBrain in environments of their own.

`cpu_ms_a_round` is the processor time of all processes together: where other work shares the machine it says more than
the rate. What a machine with few cores can do at most is cores / cpu_ms_a_round.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

from benchmarks.nodes import ECHO, NodeProcess, bench_config, open_bench_node
from benchmarks.report import Row, add_json_flag, progress, show
from benchmarks.rivals.environments import run_rival
from benchmarks.rivals.rounds import cpu_s, warm_rounds
from meshagent.types import Delivery, InDoubt, TaskState

KIND = "bench.echo.v1"
PEERS_WITHIN_S = 30.0


async def _rounds(
    folder: Path, addresses: list[str], in_flight: int, total: int, sync: str
) -> dict[str, float | int | None]:
    from benchmarks.echo import Echo
    from meshagent.sdk.backend import SubmitRequest
    from meshagent.sdk.kinds import kind_of

    spec = kind_of(Echo).encode(Echo(os.urandom(190)))
    request = SubmitRequest(kind=KIND, spec=spec, delivery=Delivery.AT_MOST_ONCE, in_doubt=InDoubt.MAJORITY)
    async with AsyncExitStack() as stack:
        node = await open_bench_node(stack, folder, "initiator", (), bench_config(addresses, sync=sync))
        async with asyncio.timeout(PEERS_WITHIN_S):
            while len(node.driver.directory.candidates(KIND)) < len(addresses):
                await asyncio.sleep(0.05)
        latencies_s: list[float] = []
        winners: Counter[str] = Counter()
        failed = 0
        left = 0

        async def one() -> None:
            nonlocal failed
            started = time.perf_counter()
            outcome = await node.submit(request).outcome()
            latencies_s.append(time.perf_counter() - started)
            winners[str(outcome.holder)] += 1
            failed += outcome.state is not TaskState.DONE

        async def lane() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await one()

        async def play(rounds: int) -> None:
            nonlocal left
            left = rounds
            await asyncio.gather(*(lane() for _ in range(in_flight)))

        await play(warm_rounds(total))
        latencies_s.clear()
        winners.clear()
        driver, links = node.driver, node.driver.links
        before = (links.messages_out, links.messages_in, links.frames_out, links.frames_in, links.seals, driver.commits)
        cpu_before_s = cpu_s()
        started = time.perf_counter()
        await play(total)
        elapsed_s = time.perf_counter() - started
        used_s = cpu_s() - cpu_before_s
        after = (links.messages_out, links.messages_in, links.frames_out, links.frames_in, links.seals, driver.commits)
        rounds = len(latencies_s)
        if failed:
            raise RuntimeError(f"{failed} of {rounds} rounds did not end in DONE")
        each = [round((late - early) / rounds, 2) for early, late in zip(before, after, strict=True)]
        ordered = sorted(latencies_s)
        return {
            "rounds": rounds,
            "rounds_per_s": round(rounds / elapsed_s, 1),
            "p50_ms": round(1000 * ordered[rounds // 2], 2),
            "p99_ms": round(1000 * ordered[int(rounds * 0.99)], 2),
            "cpu_ms_a_round": round(1000 * used_s / rounds, 2),
            "winners": len(winners),
            "messages_a_round": round(each[0] + each[1], 1),
            "frames_a_round": round(each[2] + each[3], 2),
            "signatures_a_round": each[4],
            "commits_a_round": each[5],
        }


def ours(participants: int, in_flight: int, total: int, sync: str) -> Row:
    """One row of meshagent; frames, messages, signatures and commits are those of the initiator."""
    from meshagent.runtime.compose import run_loop

    with tempfile.TemporaryDirectory(prefix="meshagent-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        processes = [
            stack.enter_context(NodeProcess(folder, f"participant-{index}", (ECHO,), sync=sync))
            for index in range(participants)
        ]
        for process in processes:
            process.wait_ready()
        row = run_loop(_rounds(folder, [process.address for process in processes], in_flight, total, sync))
        row["rss_mib"] = round(sum(process.rss_mib() for process in processes) / len(processes), 1)
        return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--participants", type=int, default=16)
    parser.add_argument("--in-flight", type=int, default=1, help="rounds under way at once")
    parser.add_argument("--rounds", type=int, default=0, help="rounds to measure; default 500, or 2000 with several")
    parser.add_argument(
        "--only", default="", help="comma-separated systems: meshagent,no-fsync,grpc,signed,mango,osbrain"
    )
    add_json_flag(parser)
    options = parser.parse_args()
    total = options.rounds or (500 if options.in_flight == 1 else 2000)
    same = (
        f"--participants={options.participants}",
        f"--in-flight={options.in_flight}",
        f"--rounds={total}",
    )
    systems: dict[str, tuple[str, Callable[[], Row]]] = {
        "meshagent": ("meshagent", lambda: ours(options.participants, options.in_flight, total, "full")),
        "no-fsync": ("meshagent, no fsync", lambda: ours(options.participants, options.in_flight, total, "normal")),
        "grpc": ("grpc.aio floor, unsigned", lambda: run_rival(None, "grpc_floor", *same)),
        "signed": ("grpc.aio floor, a signature a message", lambda: run_rival(None, "grpc_floor", *same, "--sign")),
        "mango": ("mango-agents, unsigned", lambda: run_rival("mango-agents", "mango_rounds", *same)),
        "osbrain": ("osBrain push/pull, unsigned", lambda: run_rival("osbrain", "osbrain_rounds", *same)),
    }
    wanted = [name for name in options.only.split(",") if name] or list(systems)
    unknown = [name for name in wanted if name not in systems]
    if unknown:
        parser.error(f"unknown system {', '.join(unknown)}; known: {', '.join(systems)}")
    rows: list[dict[str, object]] = []
    for number, name in enumerate(wanted, 1):
        title, run = systems[name]
        progress(f"[{number}/{len(wanted)}] {title}: {total} rounds, {options.in_flight} in flight ...")
        try:
            rows.append({"system": title, **run()})
            progress(f"  {rows[-1]['rounds_per_s']} rounds/s, p50 {rows[-1]['p50_ms']} ms")
        except RuntimeError as error:
            progress(f"  did not run: {error}")
            rows.append({"system": title, "error": str(error)})
    rates = {str(row["system"]): float(str(row.get("rounds_per_s", 0))) for row in rows}
    if mine := rates.get("meshagent"):
        # the ratio within this run is what can be compared between machines
        for row in rows:
            if rate := rates[str(row["system"])]:
                row["meshagent_is_times"] = round(mine / rate, 2)
    show("benchmarks.contract_net", rows, "grpcio", "pynacl", "uvloop", "protobuf", as_json=options.json)


if __name__ == "__main__":
    main()
