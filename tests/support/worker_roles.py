"""Roles whose handlers run in worker processes; imported by name in the child."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from meshagent.sdk.declare import task
from meshagent.sdk.kinds import Task
from meshagent.sdk.role import Role

MIB = 2**20


@dataclass(frozen=True)
class Crunch(Task[str], kind="unit.crunch"):
    how: str


class Cruncher(Role):
    """What a handler in a process of its own may do wrong."""

    @task(worker="process", timeout_s=30, memory_mib=64)
    def crunch(self, job: Crunch) -> str:
        match job.how:
            case "name":
                return f"{os.getpid()} {self.node.name}"
            case "raise":
                raise ValueError("no such row")
            case "eat":
                held = [bytearray(8 * MIB) for _ in range(32)]
                return str(len(held))
            case "die":
                os._exit(3)
            case "hang":
                time.sleep(600)
            case "print":
                print("between the messages", flush=True)
                os.write(1, b"and below the library\n")
                return "printed"
            case "long":
                return "x" * 100_000
            case "environment":
                return " ".join(sorted(name for name in os.environ if name.startswith("MESHAGENT")))
            case "mesh":
                self.node._services.emit("unit.News", b"")
        return job.how
