"""What the node is told, in the order in which it happened, and never from within the node's own call.

Notices wait for the next turn of the loop; a frame that comes first delivers them before itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

from meshagent.core.ports import Link, LinkClosed, LinkEvents
from meshagent.types import NodeId


class Notices:
    """The way to the node's `LinkEvents`."""

    def __init__(self, events: LinkEvents) -> None:
        self._events = events
        self._pending: deque[Callable[[], None]] = deque()

    def opened(self, link: Link) -> None:
        """Tell that `link` is there."""
        self._emit(partial(self._events.link_opened, link))

    def closed(self, link: Link, why: LinkClosed) -> None:
        """Tell that `link` is gone."""
        self._emit(partial(self._events.link_closed, link, why))

    def unreachable(self, peer: NodeId, why: LinkClosed, detail: str) -> None:
        """Tell that a lost peer does not come back, as far as dialling can tell."""
        self._emit(partial(self._events.peer_unreachable, peer, why, detail))

    def own_identity(self, address: str) -> None:
        """Tell that another process holds this device's key."""
        self._emit(partial(self._events.own_identity_proved, address))

    def frame(self, link: Link, frame: bytes) -> None:
        """Hand a frame on at once, after every notice that came before it."""
        if self._pending:
            self.deliver()
        self._events.frame_received(link, frame)

    def _emit(self, notice: Callable[[], None]) -> None:
        self._pending.append(notice)
        if len(self._pending) == 1:
            asyncio.get_running_loop().call_soon(self.deliver)

    def deliver(self) -> None:
        """Tell everything that waits."""
        pending = self._pending
        try:
            while pending:
                pending.popleft()()
        finally:
            if pending:  # the node failed over one notice; the others are still owed
                asyncio.get_running_loop().call_soon(self.deliver)
