"""Who waits: a submission for its outcome, `watch` for news."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

from meshagent.core.contract_net.interface import TaskChanged
from meshagent.sdk.backend import RawOutcome
from meshagent.types import Reason, TaskId, TaskState

MAX_WATCHED: Final = 4096
"""Events that wait for one watcher; the oldest give way, and the next one says how many were missed."""


class PendingTask:
    """`Pending` of the SDK. Both futures may be awaited by many, and survive a waiter that is cancelled."""

    def __init__(self, task: TaskId, withdraw: Callable[[TaskId, str], None]) -> None:
        loop = asyncio.get_running_loop()
        self._task = task
        self._withdraw = withdraw
        self._accepted: asyncio.Future[None] = loop.create_future()
        self._outcome: asyncio.Future[RawOutcome] = loop.create_future()

    @property
    def task(self) -> TaskId:
        return self._task

    def accepted(self) -> Awaitable[None]:
        return asyncio.shield(self._accepted)

    def outcome(self) -> Awaitable[RawOutcome]:
        return asyncio.shield(self._outcome)

    def cancel(self, detail: str = "") -> None:
        if not self._outcome.done():
            self._withdraw(self._task, detail)

    # ---- for the node

    def changed(self, change: TaskChanged) -> None:
        """After the commit that made it true."""
        if not self._accepted.done():
            self._accepted.set_result(None)
        if change.state.terminal and not self._outcome.done():
            self._outcome.set_result(
                RawOutcome(
                    state=change.state,
                    result=change.result,
                    reason=change.reason,
                    detail=change.detail,
                    holder=change.holder,
                )
            )

    def abandoned(self) -> None:
        """The node leaves: the journal keeps the task, this process will not see its end."""
        if not self._accepted.done():
            self._accepted.cancel()
        if not self._outcome.done():
            self._outcome.set_result(
                RawOutcome(
                    state=TaskState.FAILED,
                    reason=Reason.DRAINING,
                    detail="this node has left; the task is in its journal and goes on at the next start",
                )
            )


class Watcher:
    """An async iterator of events; slow readers miss the oldest, never hold the node up."""

    def __init__(self, on_close: Callable[[Watcher], None]) -> None:
        self._on_close = on_close
        self._waiting: deque[dict[str, Any]] = deque()
        self._missed = 0
        self._arrived = asyncio.Event()
        self._closed = False

    def put(self, document: dict[str, Any]) -> None:
        """Never blocks."""
        if len(self._waiting) >= MAX_WATCHED:
            self._waiting.popleft()
            self._missed += 1
        self._waiting.append(document)
        self._arrived.set()

    def close(self) -> None:
        """What was put is still read, then it ends."""
        if not self._closed:
            self._closed = True
            self._on_close(self)
            self._arrived.set()

    def __aiter__(self) -> Watcher:
        return self

    async def __anext__(self) -> dict[str, Any]:
        while not self._waiting:
            if self._closed:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        document = self._waiting.popleft()
        if self._missed:
            document = {**document, "missed": self._missed}
            self._missed = 0
        return document

    async def aclose(self) -> None:
        """Stop watching."""
        self.close()
