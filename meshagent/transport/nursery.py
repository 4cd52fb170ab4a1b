"""The tasks of a transport: started by name, ended together, a failure never lost.

The node's task group cannot own them: gRPC and the dialler start work at any time, one failure must not end its
siblings, and a transport lives alone in tests and in `meshagent doctor`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)


class Nursery:
    """Tasks that end with their owner."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run `work` until it ends or the nursery does; an error is logged with its traceback."""
        if self._closed:
            work.close()
            raise RuntimeError(f"{name}: its transport is closed")
        task = asyncio.get_running_loop().create_task(work, name=f"transport: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=error)

    async def close(self, timeout_s: float) -> None:
        """Cancel everything and wait for it, at most `timeout_s`."""
        self._closed = True
        pending = list(self._tasks)
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending, timeout=timeout_s)
