"""Drivers joined by links in memory on a real event loop: everything of a node below roles, without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from random import Random
from typing import Any

from meshagent.core.acts import BidAnswer, Offer, TaskRecord, WorkOutcome
from meshagent.core.bodies import EventMessage, Profile, StoryQuery, StoryReply
from meshagent.core.contract_net.interface import (
    GrantPointOfNoReturn,
    LeaseMoved,
    Noted,
    StartWork,
    StopWork,
    TaskChanged,
    TaskSubmitted,
    WorkEnded,
)
from meshagent.core.ports import Append, Journal, LinkClosed, LinkEvents, PeerHint, Put
from meshagent.identity.book import CredentialBook
from meshagent.identity.device import DeviceIdentity
from meshagent.runtime.driver import Driver, DriverConfig
from meshagent.types import Delivery, Epoch, NodeId, TaskId, TaskState, task_id_of
from meshagent.virtual.clock import WALL_BASE_S
from meshagent.virtual.identities import identity
from meshagent.virtual.journal import Disk, MemoryJournal


class LoopClock:
    """The loop's time as boot time; `skip_s` is a suspension that the loop does not notice."""

    def __init__(self, wall_error_s: float = 0.0) -> None:
        self._loop = asyncio.get_running_loop()
        self._zero_s = self._loop.time()
        self.skip_s = 0.0
        self.wall_error_s = wall_error_s

    def boot_s(self) -> float:
        return self._loop.time() - self._zero_s + self.skip_s + 100.0

    def wall_s(self) -> float:
        return WALL_BASE_S + self.boot_s() + self.wall_error_s


class MemoryLink:
    """One end of a wire; frames arrive with the next turn of the loop."""

    def __init__(self, peer: NodeId, address: str) -> None:
        self.peer = peer
        self.address = address
        self.far: MemoryLink
        self.events: LinkEvents
        self.open = True
        self.sent: list[bytes] = []
        self.tamper: Callable[[bytes], Iterable[bytes]] = lambda frame: (frame,)
        self._loop = asyncio.get_running_loop()

    def send(self, frame: bytes) -> None:
        self.sent.append(frame)
        if self.open:
            for one in self.tamper(frame):
                self._loop.call_soon(self.far._arrive, one)

    def _arrive(self, frame: bytes) -> None:
        if self.open:
            self.events.frame_received(self, frame)

    def close(self, why: LinkClosed) -> None:
        if self.open:
            self.open = False
            self._loop.call_soon(
                self.far._closed, LinkClosed.GOODBYE if why is LinkClosed.GOODBYE else LinkClosed.RESET
            )
            self._loop.call_soon(self.events.link_closed, self, why)

    def _closed(self, why: LinkClosed) -> None:
        if self.open:
            self.open = False
            self.events.link_closed(self, why)


class MemoryTransport:
    def __init__(self) -> None:
        self.events: LinkEvents
        self.hints: list[PeerHint] = []
        self.forgotten: list[NodeId] = []
        self.links: list[MemoryLink] = []

    async def start(self, events: LinkEvents) -> None:
        self.events = events

    def datagrams(self) -> None:
        return None

    def add_hint(self, hint: PeerHint) -> None:
        self.hints.append(hint)

    def forget(self, peer: NodeId) -> None:
        self.forgotten.append(peer)

    async def close(self) -> None:
        for link in self.links:
            link.close(LinkClosed.GOODBYE)


class Recorder(MemoryJournal):
    """Keeps every transaction, to be looked at."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self.transactions: list[list[Put | Append]] = []
        self.on_commit: Callable[[], None] = lambda: None

    def commit(self, writes: Iterable[Put | Append]) -> None:
        whole = list(writes)
        self.on_commit()
        super().commit(whole)
        self.transactions.append(whole)


class Member:
    """A device with a bidder of fixed prices and a host that does all work at once."""

    def __init__(
        self,
        number: int,
        *,
        kinds: Mapping[str, str] | None = None,
        added_ms: int = 1000,
        disk: Disk | None = None,
        journal: Journal | None = None,
        who: DeviceIdentity | None = None,
        book: CredentialBook | None = None,
        config: DriverConfig | None = None,
        wall_error_s: float = 0.0,
    ) -> None:
        self.identity = who or identity(number)
        self.clock = LoopClock(wall_error_s)
        self.book = book or self.identity.open_book(now_s=self.clock.wall_s())
        self.transport = MemoryTransport()
        self.disk = disk or Disk()
        self.journal = journal or Recorder(self.disk)
        self.profile = Profile(version=1, name=f"device-{number}", kinds=kinds or {}, listen_port=7340)
        self.added_ms = added_ms
        self.result: bytes | None = b"done"
        self.started: list[StartWork] = []
        self.stopped: list[StopWork] = []
        self.events: list[tuple[NodeId, EventMessage]] = []
        self.stories: list[tuple[NodeId, StoryQuery | StoryReply]] = []
        self.changes: list[TaskChanged] = []
        self.notes: list[Noted] = []
        self.failures: list[Exception] = []
        rng = Random(number)
        self.driver = Driver(
            identity=self.identity,
            book=self.book,
            transport=self.transport,
            journal=self.journal,
            clock=self.clock,
            rng=rng,
            bidder=self,
            host=self,
            authority=lambda peer, action, kind: True,
            config=config,
            on_failure=self.failures.append,
            on_story=lambda peer, body: self.stories.append((peer, body)),
            random_bytes=rng.randbytes,
        )
        self.driver.add_observer(self)

    @property
    def id(self) -> NodeId:
        return self.identity.node_id

    async def start(self) -> Member:
        await self.driver.start(self.profile)
        return self

    # Bidder

    def bid(self, record: TaskRecord, within_s: float | None, *, purpose: str) -> BidAnswer:
        return Offer(self.added_ms, 0, 1, "because")

    def reserve(self, record: TaskRecord, epoch: Epoch) -> None: ...

    def release(self, task: TaskId, epoch: Epoch) -> None: ...

    # WorkHost

    def start_work(self, effect: StartWork) -> None:
        self.started.append(effect)
        if self.result is not None:
            outcome = WorkOutcome(result=self.result)
            self.driver.feed(WorkEnded(task=effect.record.task, epoch=effect.epoch, outcome=outcome))

    def move_lease(self, effect: LeaseMoved) -> None: ...

    def stop_work(self, effect: StopWork) -> None:
        self.stopped.append(effect)

    def grant_point_of_no_return(self, effect: GrantPointOfNoReturn) -> None: ...

    def event_received(self, peer: NodeId, event: EventMessage) -> None:
        self.events.append((peer, event))

    # Observer

    def task_changed(self, change: TaskChanged) -> None:
        self.changes.append(change)

    def noted(self, note: Noted, at_wall_s: float) -> None:
        self.notes.append(note)

    def peers_changed(self) -> None: ...

    # what tests say

    def submit(self, kind: str, nonce: int = 1, **terms: Any) -> TaskId:
        boot, raw = self.driver.boot, nonce.to_bytes(16, "big")
        task = task_id_of(self.id, boot, raw)
        record = TaskRecord(
            task=task,
            initiator=self.id,
            boot=boot,
            nonce=raw,
            kind=kind,
            spec=b"\x80",
            delivery=terms.pop("delivery", Delivery.AT_MOST_ONCE),
            **terms,
        )
        self.driver.submit(TaskSubmitted(record=record))
        return task

    def last(self, task: TaskId) -> TaskChanged | None:
        found = [change for change in self.changes if change.task == task]
        return found[-1] if found else None

    def ended(self, task: TaskId) -> bool:
        change = self.last(task)
        return change is not None and change.state in (TaskState.DONE, TaskState.FAILED, TaskState.CANCELLED)


def join(one: Member, other: Member) -> tuple[MemoryLink, MemoryLink]:
    """Open a link between two members."""
    a, b = MemoryLink(other.id, "198.51.100.2:40000"), MemoryLink(one.id, "198.51.100.1:40000")
    a.far, b.far = b, a
    a.events, b.events = one.transport.events, other.transport.events
    one.transport.links.append(a)
    other.transport.links.append(b)
    a.events.link_opened(a)
    b.events.link_opened(b)
    return a, b


async def until(condition: Callable[[], bool], within_s: float = 5.0) -> None:
    """Wait for a condition, never for time."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.001)


async def close(*members: Member) -> None:
    for member in members:
        with suppress(Exception):
            await member.driver.close()
