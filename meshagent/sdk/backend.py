"""What the SDK asks of the node that hosts it; implemented by `runtime/`, faked by nobody (tests use whole nodes).

The SDK encodes and decodes (sdk/schema.py); below this seam specifications, results, checkpoints and events are bytes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from meshagent.core.acts import TaskRecord
from meshagent.types import Delivery, Durability, Epoch, InDoubt, NodeId, Reason, TaskId, TaskState


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitRequest:
    """A task before it has an id."""

    kind: str
    spec: bytes
    delivery: Delivery
    in_doubt: InDoubt
    durability: Durability = Durability.REPLICATED
    approval: bool = False
    key: str = ""
    within_s: float | None = None
    priority: int = 0
    parent: TaskId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RawOutcome:
    """How a submitted task ended; `state` is terminal."""

    state: TaskState
    result: bytes | None = None
    reason: Reason | None = None
    detail: str = ""
    holder: NodeId | None = None


class Pending(Protocol):
    """A submission in flight. Both awaitables may be awaited by many and survive a cancelled waiter."""

    @property
    def task(self) -> TaskId: ...

    def accepted(self) -> Awaitable[None]:
        """Completes when the task is durable as its record asks."""

    def outcome(self) -> Awaitable[RawOutcome]: ...

    def cancel(self, detail: str = "") -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerInfo:
    """A peer as roles see it."""

    id: NodeId
    name: str
    roles: tuple[str, ...]
    kinds: tuple[str, ...]
    battery_soc: float | None
    position_m: tuple[float, float] | None


class NodeServices(Protocol):
    """Behind `Context` and `self.node`."""

    @property
    def id(self) -> NodeId: ...

    @property
    def name(self) -> str: ...

    def now_s(self) -> float:
        """CLOCK_BOOTTIME seconds (virtual in tests)."""

    def peers(self) -> Sequence[PeerInfo]: ...

    def submit(self, request: SubmitRequest) -> Pending: ...

    def emit(self, name: str, body: bytes) -> None:
        """To every linked peer and to the agents of this node."""


class WorkServices(Protocol):
    """Behind `TaskContext`: one contract being executed."""

    @property
    def record(self) -> TaskRecord: ...

    @property
    def epoch(self) -> Epoch:
        """Changes when the work is adopted."""

    @property
    def attempt(self) -> int: ...

    @property
    def checkpoint_received(self) -> bytes | None: ...

    def lease_until_s(self) -> float:
        """May act until then; moves with every renewal. Compare with `NodeServices.now_s()` at the effect."""

    def progress(self, permille: int, note: str) -> None: ...

    def checkpoint(self, state: bytes) -> Awaitable[None]:
        """Completes when it is journaled here and on its way to whoever keeps the task."""

    def pass_point_of_no_return(self) -> Awaitable[None]:
        """Completes when it is recorded where it must be.

        Raises:
            LeaseLostError: not any more.
        """

    def then(self, request: SubmitRequest) -> None:
        """Submit with the result, in its transaction, or not at all."""

    def on_fence(self, stop: Callable[[], None]) -> Callable[[], None]:
        """Call `stop` before the lease ends or when a newer epoch is heard; returns how to unregister."""
