"""The two seams below the SDK, scripted by hand: time, lease and answers are what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from meshagent.core.acts import TaskRecord
from meshagent.sdk.backend import PeerInfo, RawOutcome, SubmitRequest
from meshagent.types import Epoch, NodeId, TaskId

ME = NodeId("a" * 52)


class ScriptedPending:
    """A submission whose end the test decides."""

    def __init__(self, task: TaskId) -> None:
        self.task = task
        self.ended: asyncio.Future[RawOutcome] = asyncio.get_running_loop().create_future()
        self.cancelled_with: list[str] = []

    async def accepted(self) -> None: ...

    def outcome(self) -> Awaitable[RawOutcome]:
        return asyncio.shield(self.ended)

    def cancel(self, detail: str = "") -> None:
        self.cancelled_with.append(detail)


@dataclass
class ScriptedNode:
    """`NodeServices`."""

    id: NodeId = ME
    name: str = "ann"
    clock_s: float = 100.0
    requests: list[SubmitRequest] = field(default_factory=list)
    pendings: list[ScriptedPending] = field(default_factory=list)
    emitted: list[tuple[str, bytes]] = field(default_factory=list)

    def now_s(self) -> float:
        return self.clock_s

    def peers(self) -> Sequence[PeerInfo]:
        return ()

    def submit(self, request: SubmitRequest) -> ScriptedPending:
        self.requests.append(request)
        self.pendings.append(ScriptedPending(TaskId(f"{len(self.requests):0>32}")))
        return self.pendings[-1]

    def emit(self, name: str, body: bytes) -> None:
        self.emitted.append((name, body))


@dataclass
class ScriptedWork:
    """`WorkServices`."""

    until_s: float = 110.0
    attempt: int = 1
    checkpoint_received: bytes | None = None
    reports: list[tuple[int, str]] = field(default_factory=list)
    checkpoints: list[bytes] = field(default_factory=list)
    follow_ups: list[SubmitRequest] = field(default_factory=list)
    fences: list[Callable[[], None]] = field(default_factory=list)
    points: int = 0
    epoch: Epoch = field(default_factory=lambda: Epoch(1, ME, bytes(16)))
    record: TaskRecord = field(
        default_factory=lambda: TaskRecord(
            task=TaskId("p" * 32), initiator=ME, boot=bytes(16), nonce=bytes(16), kind="x.y", spec=b""
        )
    )

    def lease_until_s(self) -> float:
        return self.until_s

    def progress(self, permille: int, note: str) -> None:
        self.reports.append((permille, note))

    async def checkpoint(self, state: bytes) -> None:
        self.checkpoints.append(state)

    async def pass_point_of_no_return(self) -> None:
        self.points += 1

    def then(self, request: SubmitRequest) -> None:
        self.follow_ups.append(request)

    def on_fence(self, stop: Callable[[], None]) -> Callable[[], None]:
        self.fences.append(stop)
        return lambda: self.fences.remove(stop)
