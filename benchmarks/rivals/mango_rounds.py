"""mango-agents: one TCP container a process, its default JSON codec, unsigned."""

from __future__ import annotations

import asyncio
import multiprocessing
from multiprocessing.connection import Connection
from typing import Any

from mango import Agent, activate, addr, create_tcp_container
from rounds import PAYLOAD, Rounds, arguments, cpu_s, report, rounds_in_all

BODY = PAYLOAD.decode()


class Participant(Agent):  # type: ignore[misc]
    def handle_message(self, content: Any, meta: dict[str, Any]) -> None:
        tag, number, _ = content
        answer = ["P" if tag == "C" else "D", number, BODY]
        self.schedule_instant_message(answer, addr(tuple(meta["sender_addr"]), meta["sender_id"]))


class Initiator(Agent):  # type: ignore[misc]
    def __init__(self, peers: list[Any], in_flight: int, total: int) -> None:
        super().__init__()
        self.peers = peers
        self.finished = asyncio.Event()
        self.rounds = Rounds(len(peers), in_flight, total, self._call)

    def _call(self, number: int) -> None:
        for peer in self.peers:
            self.schedule_instant_message(["C", number, BODY], peer)

    def handle_message(self, content: Any, meta: dict[str, Any]) -> None:
        tag, number, _ = content
        if tag == "P":
            if self.rounds.proposed(number):
                self.schedule_instant_message(["A", number, BODY], self.peers[number % len(self.peers)])
        elif self.rounds.done(number):
            self.finished.set()


def participant(pipe: Connection) -> None:
    async def serve() -> None:
        container = create_tcp_container(addr=("127.0.0.1", 0), auto_port=True)
        agent = container.register(Participant())
        async with activate(container):
            pipe.send((tuple(container.addr), agent.aid))
            await asyncio.get_running_loop().run_in_executor(None, pipe.recv)

    asyncio.run(serve())


async def initiate(peers: list[Any], in_flight: int, total: int) -> dict[str, float | int]:
    container = create_tcp_container(addr=("127.0.0.1", 0), auto_port=True)
    agent = container.register(Initiator([addr(*peer) for peer in peers], in_flight, total))
    async with activate(container):
        agent.rounds.start()
        await agent.finished.wait()
        row: dict[str, float | int] = agent.rounds.row()
        return row


def main() -> None:
    options = arguments(__doc__ or "")
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for _ in range(options.participants):
        ours, theirs = context.Pipe()
        process = context.Process(target=participant, args=(theirs,), daemon=True)
        process.start()
        pipes.append(ours)
        processes.append(process)
    peers = [pipe.recv() for pipe in pipes]
    before_s = cpu_s()
    row = asyncio.run(initiate(peers, options.in_flight, options.rounds))
    row["cpu_ms_a_round"] = round(1000 * (cpu_s() - before_s) / rounds_in_all(options.rounds), 2)
    report(row)
    for pipe in pipes:
        pipe.send("stop")
    for process in processes:
        process.join(5)


if __name__ == "__main__":
    main()
