"""osBrain: one agent process a participant, ZeroMQ push/pull with its raw serializer (its fastest), unsigned."""

from __future__ import annotations

import os
import struct
import time
from typing import Any

import psutil
from osbrain import Agent, run_agent, run_nameserver
from rounds import PAYLOAD, Rounds, arguments, cpu_s, report, rounds_in_all

HEAD = ">cI"  # a format, not a Struct: osBrain pickles the globals of an agent


class Participant(Agent):  # type: ignore[misc]
    def answer(self, message: bytes) -> None:
        tag, number = struct.unpack_from(HEAD, message)
        self.send("replies", struct.pack(HEAD, b"P" if tag == b"C" else b"D", number) + PAYLOAD)


class Initiator(Agent):  # type: ignore[misc]
    def prepare(self, participants: int, in_flight: int, total: int) -> None:
        self.result = None
        self.participants = participants
        self.rounds = Rounds(participants, in_flight, total, self.call)

    def call(self, number: int) -> None:
        message = struct.pack(HEAD, b"C", number) + PAYLOAD
        for index in range(self.participants):
            self.send(f"to{index}", message)

    def begin(self) -> None:
        self.rounds.start()

    def hear(self, message: bytes) -> None:
        tag, number = struct.unpack_from(HEAD, message)
        if tag == b"P":
            if self.rounds.proposed(number):
                self.send(f"to{number % self.participants}", struct.pack(HEAD, b"A", number) + PAYLOAD)
        elif self.rounds.done(number):
            self.result = self.rounds.row()

    def outcome(self) -> Any:
        return self.result


def main() -> None:
    options = arguments(__doc__ or "")
    nameserver = run_nameserver()
    try:
        initiator = run_agent("initiator", base=Initiator, serializer="raw", transport="tcp")
        initiator.prepare(options.participants, options.in_flight, options.rounds)
        replies = initiator.bind("PULL", alias="replies", handler="hear", serializer="raw", transport="tcp")
        agents = []
        for index in range(options.participants):
            agent = run_agent(f"participant{index}", base=Participant, serializer="raw", transport="tcp")
            calls = agent.bind("PULL", alias="calls", handler="answer", serializer="raw", transport="tcp")
            agent.connect(replies, alias="replies")
            initiator.connect(calls, alias=f"to{index}")
            agents.append(agent)
        before_s = cpu_s()
        initiator.after(0, "begin")
        until_s = time.monotonic() + 120
        while (row := initiator.outcome()) is None:
            if time.monotonic() > until_s:
                raise SystemExit("osBrain did not finish within 120 s")
            time.sleep(0.5)
        row["cpu_ms_a_round"] = round(1000 * (cpu_s() - before_s) / rounds_in_all(options.rounds), 2)
        sizes = [p.memory_info().rss / 2**20 for p in psutil.Process(os.getpid()).children(recursive=True)]
        row["rss_mib"] = round(sum(sizes) / len(sizes), 1)
        report(row)
    finally:
        nameserver.shutdown()


if __name__ == "__main__":
    main()
