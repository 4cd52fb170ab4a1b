"""A member that misbehaves: admitted, proved by TLS, its Hello accepted, and from then on it says what a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

from meshagent.core.acts import Act, BidAnswer, Cfp, Decline, TaskRecord
from meshagent.core.bodies import Body, EventMessage, Profile, StoryQuery, StoryReply
from meshagent.core.contract_net.interface import (
    Evidence,
    GrantPointOfNoReturn,
    LeaseMoved,
    StartWork,
    StopWork,
)
from meshagent.core.ports import HintSource, PeerHint
from meshagent.identity.device import DeviceIdentity
from meshagent.runtime.clock import SystemClock
from meshagent.runtime.driver import Driver
from meshagent.transport.links import StreamLink
from meshagent.transport.mesh import GrpcTransport
from meshagent.types import Delivery, Epoch, InDoubt, NodeId, Reason, TaskId, task_id_of
from meshagent.virtual.journal import Disk, MemoryJournal
from tests.support.meshes import quick


class Rogue:
    """One hostile node over real sockets."""

    def __init__(self, identity: DeviceIdentity, disk: Disk) -> None:
        clock = SystemClock()
        book = identity.open_book(now_s=clock.wall_s())
        self.identity = identity
        self.transport = GrpcTransport(identity, book, quick(), Random(1), wall_s=clock.wall_s)
        self.heard: list[tuple[NodeId, Body]] = []
        """Every act and every answer that came, in order."""
        self.refusal = "does no work"
        self._nonce = 0
        self.driver = Driver(
            identity=identity,
            book=book,
            transport=self.transport,
            journal=MemoryJournal(disk),
            clock=clock,
            rng=Random(2),
            bidder=self,
            host=self,
            authority=lambda peer, action, kind: True,
            on_story=lambda peer, body: self.heard.append((peer, body)),
        )
        received = self.driver.message_received

        def listen(peer: NodeId, body: Body, evidence: Evidence) -> None:
            self.heard.append((peer, body))
            received(peer, body, evidence)

        self.driver.message_received = listen  # type: ignore[method-assign]

    # what the driver wants of a device

    def bid(self, record: TaskRecord, within_s: float | None, *, purpose: str) -> BidAnswer:
        return Decline(Reason.POLICY, self.refusal)

    def reserve(self, record: TaskRecord, epoch: Epoch) -> None: ...

    def release(self, task: TaskId, epoch: Epoch) -> None: ...

    def start_work(self, effect: StartWork) -> None: ...

    def move_lease(self, effect: LeaseMoved) -> None: ...

    def stop_work(self, effect: StopWork) -> None: ...

    def grant_point_of_no_return(self, effect: GrantPointOfNoReturn) -> None: ...

    def event_received(self, peer: NodeId, event: EventMessage) -> None: ...

    # what the test wants of it

    def linked(self, peer: NodeId) -> bool:
        return peer in self.driver.links.peers

    def say(self, to: NodeId, *bodies: Body) -> None:
        """Signed, framed and sent like an honest node's."""
        for body in bodies:
            self.driver.links.send((to,), body)
        self.driver._wake()

    def raw(self, to: NodeId) -> StreamLink:
        """The link itself, for bytes that no codec would write."""
        link = self.transport._peers[to].link
        assert link is not None
        return link

    def call(self, kind: str, spec: bytes = b"\x80", *, bound: bool = True, reply_within_ms: int = 400) -> Cfp:
        """A call for a task nobody will award. `bound`: its id is what it must be."""
        self._nonce += 1
        nonce = self._nonce.to_bytes(16, "big")
        me, boot = self.identity.node_id, self.driver.boot
        task = task_id_of(me, boot, nonce if bound else bytes(16))
        record = TaskRecord(
            task=task,
            initiator=me,
            boot=boot,
            nonce=nonce,
            kind=kind,
            spec=spec,
            delivery=Delivery.AT_MOST_ONCE,
            in_doubt=InDoubt.MAJORITY,
        )
        return Cfp(task=task, epoch=Epoch(1, me, boot), record=record, reply_within_ms=reply_within_ms)

    def answers(self, kind: type[Act] | type[StoryReply] | type[StoryQuery]) -> list[Body]:
        return [body for _, body in self.heard if isinstance(body, kind)]

    async def until(self, condition: object, within_s: float = 10.0) -> None:
        """Wait for a condition, never for time."""
        assert callable(condition)
        async with asyncio.timeout(within_s):
            while not condition():
                await asyncio.sleep(0.01)


@asynccontextmanager
async def rogue(state: Path, peer: NodeId, port: int, *, disk: Disk, name: str = "rogue") -> AsyncIterator[Rogue]:
    """A member of the fleet of `state`, linked with `peer` on this machine; `disk` counts its boots."""
    identity = DeviceIdentity.load(state, now_s=SystemClock().wall_s())
    member = Rogue(identity, disk)
    await member.driver.start(Profile(version=1, name=name))
    try:
        member.transport.add_hint(PeerHint(host="127.0.0.1", port=port, source=HintSource.STATIC))
        await member.until(lambda: member.linked(peer))
        yield member
    finally:
        await member.driver.close()
