"""One link's outgoing side, without I/O: what waits, when it may leave, and what happens when there is too much.

Frames are clocked by acknowledgement (Nagle's idea): so many unacknowledged frames are in flight, what is said
meanwhile waits and leaves as one frame. Nothing is delayed while the link is idle; under load frames grow by
themselves, and with them what one signature covers.

    put -> queue -> (clock free, something urgent or old enough) -> take -> frame seq -> ack -> clock free

When the queue is full, telemetry gives way, oldest first; when nothing is left to give way, the link has to be
closed: its peer takes nothing any more, and the machines say again what mattered once it is back.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from meshagent.wire.acts import MAX_REJECTIONS, REJECTION_BYTES, join_rejections
from meshagent.wire.codec import TYPE_REJECT_PROPOSAL
from meshagent.wire.frame import (
    FRAME_OVERHEAD_BYTES,
    MAX_FRAME_BYTES,
    MAX_FRAME_MESSAGES,
    MESSAGE_OVERHEAD_BYTES,
)

FRAME_BUDGET_BYTES: Final = MAX_FRAME_BYTES - FRAME_OVERHEAD_BYTES
"""For messages, overhead included, so that a frame never exceeds its bound whatever the batch looks like."""
RIDERS_BYTES: Final = MAX_REJECTIONS * REJECTION_BYTES + MESSAGE_OVERHEAD_BYTES
"""The message in which rejections ride, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxConfig:
    """Timing and bounds of one link's outgoing side; seconds of CLOCK_BOOTTIME."""

    window: int = 2
    """Unacknowledged frames in flight. With one, whoever spoke last waits for an acknowledgement that waits for data;
    with many, frames stay small under load."""
    ack_delay_s: float = 0.1
    """An acknowledgement that nobody waits for rides on data, or goes alone after so long: well below `release_s`."""
    ack_soon_s: float = 0.005
    """The same where the peer has used up its window and says so. Longer: fewer frames; shorter: a peer that talks
    alone is held up less."""
    release_s: float = 0.25
    """An acknowledgement is overdue after so long: the next frame may leave all the same. Doubles each time."""
    release_max_s: float = 2.0
    linger_s: float = 0.2
    """What is not urgent (rejections, DESIGN 6 rule 9) waits so long for a frame to ride with; nobody waits for it."""
    max_messages: int = 4096
    """Queued for one peer: some seconds of a busy initiator."""
    max_bytes: int = 4 * 1024 * 1024


class Item:
    """One body as it waits: encoded once, shared by the links that it goes over."""

    __slots__ = ("broadcast", "payload", "size", "sticky", "telemetry", "ttl_ms", "type")

    def __init__(
        self,
        kind: int,
        payload: bytes,
        *,
        ttl_ms: int,
        broadcast: bool = False,
        telemetry: bool = False,
        sticky: bool = False,
    ) -> None:
        self.type = kind
        self.payload = payload
        self.ttl_ms = ttl_ms
        self.broadcast = broadcast
        """Sealed once for several peers."""
        self.telemetry = telemetry
        """May be dropped when the queue is full."""
        self.sticky = sticky
        """Nobody says it again by himself: waits for its acknowledgement, leaves again with an overdue one."""
        self.size = len(payload) + MESSAGE_OVERHEAD_BYTES


class Put(Enum):
    """What became of an item."""

    QUEUED = auto()
    DROPPED = auto()
    """It was telemetry and the queue is full of what is not."""
    OVERFLOW = auto()
    """It was no telemetry and nothing gives way: close the link."""


class Outbox:
    """What waits for one peer, and the clock of its link."""

    __slots__ = (
        "_ack_due_s",
        "_blocked",
        "_bytes",
        "_config",
        "_linger_until_s",
        "_queue",
        "_release_at_s",
        "_release_s",
        "_riders",
        "_sent_at_s",
        "_sticky",
        "_urgent",
        "acked",
        "dropped",
        "received",
        "rtt_s",
        "seq",
    )

    def __init__(self, config: OutboxConfig) -> None:
        self._config = config
        self._queue: deque[Item] = deque()
        self._bytes = 0
        self._urgent = False
        self._linger_until_s = math.inf
        self._ack_due_s = math.inf
        self._blocked = False
        self._sent_at_s = 0.0
        self._release_at_s = math.inf
        self._release_s = config.release_s
        self._sticky: list[Item] = []
        self._riders: list[bytes] = []
        self.seq = 0
        """Of the last frame sent."""
        self.acked = 0
        """The highest of ours that the peer has seen."""
        self.received = 0
        """The highest of the peer's that we have seen: what our frames acknowledge."""
        self.dropped = 0
        """Telemetry that gave way."""
        self.rtt_s: float | None = None

    def __len__(self) -> int:
        return len(self._queue) + bool(self._riders)

    # ---- what we want to say

    def put(self, item: Item, now_s: float, *, urgent: bool = True) -> Put:
        """Queue `item`; it may push out older telemetry."""
        config = self._config
        while len(self._queue) >= config.max_messages or self._bytes + item.size > config.max_bytes:
            if not self._drop_telemetry():
                if not item.telemetry:
                    return Put.OVERFLOW
                self.dropped += 1
                return Put.DROPPED
        self._queue.append(item)
        self._bytes += item.size
        if urgent:
            self._urgent = True
        elif self._linger_until_s == math.inf:
            self._linger_until_s = now_s + config.linger_s
        return Put.QUEUED

    def ride(self, rejection: bytes, ttl_ms: int, now_s: float) -> Put:
        """Let a rejection wait for a frame; all that wait leave as one message."""
        self._riders.append(rejection)
        if self._linger_until_s == math.inf:
            self._linger_until_s = now_s + self._config.linger_s
        if len(self._riders) < MAX_REJECTIONS:
            return Put.QUEUED
        return self.put(self._riders_item(ttl_ms), now_s, urgent=False)

    def _riders_item(self, ttl_ms: int) -> Item:
        item = Item(TYPE_REJECT_PROPOSAL, join_rejections(self._riders), ttl_ms=ttl_ms)
        self._riders.clear()
        return item

    def _drop_telemetry(self) -> bool:
        for index, waiting in enumerate(self._queue):
            if waiting.telemetry:
                del self._queue[index]
                self._bytes -= waiting.size
                self.dropped += 1
                return True
        return False

    # ---- what the peer's frame says about ours

    def heard(self, seq: int, ack: int, now_s: float, *, ack_soon: bool = False) -> bool:
        """Take note of a frame's `seq` (0: none) and `ack`. False: it acknowledges what was never sent."""
        if ack > self.seq:
            return False
        if seq:
            if seq > self.received:
                self.received = seq
            due_s = now_s + (self._config.ack_soon_s if ack_soon else self._config.ack_delay_s)
            if due_s < self._ack_due_s:
                self._ack_due_s = due_s
        if ack > self.acked:
            self.acked = ack
            self._blocked = bool(self._sticky) or self.seq - ack >= self._config.window
            if ack == self.seq:
                self._blocked = False
                self._release_at_s = math.inf
                self._release_s = self._config.release_s
                self._sticky.clear()
                sample_s = now_s - self._sent_at_s
                if self.rtt_s is None or sample_s < self.rtt_s:
                    self.rtt_s = sample_s
                else:
                    # The peer's acknowledgement may have waited for data, so that long samples say little.
                    self.rtt_s += (sample_s - self.rtt_s) / 64
        return True

    # ---- when a frame may leave

    def may_send(self, now_s: float) -> bool:
        """True where a frame should leave now: data that may and must go, or an acknowledgement that waited enough."""
        if self._ack_due_s <= now_s:
            return True
        if self._blocked and now_s < self._release_at_s:
            return False
        if self._urgent or self._linger_until_s <= now_s:
            return bool(self._queue or self._riders)
        return self._blocked and bool(self._sticky)

    def next_deadline_s(self) -> float:
        """When `may_send` may become true without further input; infinity: never."""
        deadline_s = self._ack_due_s
        if self._blocked:
            if self._sticky or (self._queue and self._urgent):
                deadline_s = min(deadline_s, self._release_at_s)
            elif self._queue or self._riders:
                # Both must be over: naming the earlier one would wake the loop again and again in between.
                deadline_s = min(deadline_s, max(self._release_at_s, self._linger_until_s))
        elif self._queue or self._riders:
            deadline_s = min(deadline_s, -math.inf if self._urgent else self._linger_until_s)
        return deadline_s

    def take(self, now_s: float, ttl_ms: int = 1000) -> list[Item]:
        """What the next frame carries, in order; empty: an acknowledgement alone. Call where `may_send`.

        `ttl_ms` is that of the message in which rejections ride.
        """
        taken: list[Item] = []
        if self._blocked:
            if now_s < self._release_at_s:
                return taken
            if self._sticky:
                # Overdue: the frame may be lost (no TCP below in the simulator), and nobody says these again.
                self._queue.extendleft(reversed(self._sticky))
                self._bytes += sum(item.size for item in self._sticky)
                self._sticky.clear()
        queue = self._queue
        room = FRAME_BUDGET_BYTES
        while queue and len(taken) < MAX_FRAME_MESSAGES and queue[0].size <= room:
            item = queue.popleft()
            room -= item.size
            self._bytes -= item.size
            taken.append(item)
        if not queue:
            if self._riders and len(taken) < MAX_FRAME_MESSAGES and room > RIDERS_BYTES:
                taken.append(self._riders_item(ttl_ms))
            self._urgent = False
            if not self._riders:
                self._linger_until_s = math.inf
        return taken

    def sent(self, items: list[Item], now_s: float) -> tuple[int, int, bool]:
        """The (seq, ack, ack_soon) for a frame with `items` that leaves now."""
        self._ack_due_s = math.inf
        if not items:
            return 0, self.received, False
        if self._blocked:
            self._release_s = min(self._release_s * 2, self._config.release_max_s)
        self._sent_at_s = now_s
        self._release_at_s = now_s + self._release_s
        for item in items:
            if item.sticky:
                self._sticky.append(item)
        self.seq += 1
        # What nobody says again travels as the last of the window, so that its own acknowledgement tells its fate.
        self._blocked = bool(self._sticky) or self.seq - self.acked >= self._config.window
        return self.seq, self.received, self._blocked
