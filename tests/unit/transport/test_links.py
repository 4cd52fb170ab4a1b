"""One link without a network: two callables stand for the stream."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from meshagent.core.ports import LinkClosed
from meshagent.transport.config import MAX_QUEUED_FRAMES
from meshagent.transport.links import StreamBroken, StreamLink
from meshagent.types import NodeId

GOODBYE, REFUSED, AGED = b"\x78\x01", b"\x78\x02", b"\x78\x03"


@dataclass
class Owner:
    """Notes what a link tells."""

    frames: list[bytes] = field(default_factory=list)
    ends: list[LinkClosed] = field(default_factory=list)
    fails: bool = False
    faults: list[str] = field(default_factory=list)

    def frame(self, link: StreamLink, frame: bytes) -> None:
        if self.fails:
            raise ValueError("a bug behind the link")
        self.frames.append(frame)

    def failed(self, link: StreamLink, error: BaseException) -> None:
        self.faults.append(str(error))

    def ended(self, link: StreamLink, why: LinkClosed, detail: str) -> None:
        self.ends.append(why)


@dataclass
class Stream:
    """What the peer sends (None: the end, an exception: raised) and what it was sent."""

    incoming: asyncio.Queue[bytes | StreamBroken | None] = field(default_factory=asyncio.Queue)
    sent: list[bytes] = field(default_factory=list)
    stuck: bool = False

    async def read(self) -> bytes | None:
        frame = await self.incoming.get()
        if isinstance(frame, StreamBroken):
            raise frame
        return frame

    async def write(self, frame: bytes) -> None:
        if self.stuck:
            await asyncio.Event().wait()
        self.sent.append(frame)


def new_link(owner: Owner) -> StreamLink:
    return StreamLink(
        peer=NodeId("a" * 52), address="x", instance="i", listens_at=None, dialled_by_us=True, owner=owner
    )


async def run(link: StreamLink, stream: Stream) -> None:
    async with asyncio.timeout(5):
        await link.run(stream.read, stream.write, close_timeout_s=0.05)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (GOODBYE, LinkClosed.GOODBYE),
        (REFUSED, LinkClosed.REFUSED),
        (AGED, LinkClosed.AGED),
        (None, LinkClosed.RESET),
        (StreamBroken(LinkClosed.SILENT, "ping timeout"), LinkClosed.SILENT),
    ],
)
def test_end_of_a_stream_is_a_goodbye_only_where_the_peer_said_so(
    said: bytes | StreamBroken | None, why: LinkClosed
) -> None:
    async def scenario() -> None:
        owner, stream = Owner(), Stream()
        link = new_link(owner)
        stream.incoming.put_nowait(b"\x0aframe")
        stream.incoming.put_nowait(said)
        stream.incoming.put_nowait(b"\x0aafter the end")
        await run(link, stream)
        assert owner.frames == [b"\x0aframe"]
        assert owner.ends == [why]
        assert stream.sent == []  # a goodbye is not answered

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("why", "said"),
    [
        (LinkClosed.GOODBYE, [b"\x0a1", b"\x0a2", GOODBYE]),
        (LinkClosed.REFUSED, [b"\x0a1", b"\x0a2", REFUSED]),
        (LinkClosed.AGED, [b"\x0a1", b"\x0a2", AGED]),
        (LinkClosed.SILENT, []),
        (LinkClosed.RESET, []),
    ],
)
def test_reason_that_can_be_told_is_told_behind_the_last_frame(why: LinkClosed, said: list[bytes]) -> None:
    async def scenario() -> None:
        owner, stream = Owner(), Stream()
        link = new_link(owner)
        link.send(b"\x0a1")
        link.send(b"\x0a2")
        link.close(why)
        link.close(LinkClosed.RESET)
        link.send(b"\x0atoo late")
        await run(link, stream)
        assert stream.sent == said
        assert owner.ends == [why]

    asyncio.run(scenario())


def test_close_is_bounded_although_the_peer_takes_nothing() -> None:
    async def scenario() -> None:
        owner, stream = Owner(), Stream(stuck=True)
        link = new_link(owner)
        link.send(b"\x0a1")
        link.close(LinkClosed.GOODBYE)
        await run(link, stream)
        assert owner.ends == [LinkClosed.GOODBYE]

    asyncio.run(scenario())


def test_queue_is_bounded_while_a_write_is_stuck() -> None:
    async def scenario() -> None:
        owner, stream = Owner(), Stream(stuck=True)
        link = new_link(owner)
        running = asyncio.create_task(run(link, stream))
        for _ in range(MAX_QUEUED_FRAMES + 2):
            link.send(b"\x0a")
            await asyncio.sleep(0)
        await running
        assert owner.ends == [LinkClosed.SILENT]

    asyncio.run(scenario())


def test_bug_behind_the_link_closes_it_instead_of_leaving_it_deaf() -> None:
    async def scenario() -> None:
        owner, stream = Owner(fails=True), Stream()
        link = new_link(owner)
        stream.incoming.put_nowait(b"\x0aframe")
        await run(link, stream)
        assert owner.ends == [LinkClosed.RESET]
        assert owner.faults == ["a bug behind the link"]

    asyncio.run(scenario())


def test_handler_cancelled_by_grpc_is_a_reset() -> None:
    async def scenario() -> None:
        owner, stream = Owner(), Stream()
        link = new_link(owner)
        running = asyncio.create_task(run(link, stream))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert owner.ends == [LinkClosed.RESET]

    asyncio.run(scenario())


@pytest.mark.parametrize("frame", [b"", b"\x78", b"\x78\x00", b"\x78\x04", b"\x78\x01\x00", b"\x0a\x78\x01"])
def test_frame_that_is_no_goodbye_in_exactly_two_bytes_is_handed_on(frame: bytes) -> None:
    async def scenario() -> None:
        owner, stream = Owner(), Stream()
        link = new_link(owner)
        stream.incoming.put_nowait(frame)
        stream.incoming.put_nowait(None)
        await run(link, stream)
        assert owner.frames == [frame]

    asyncio.run(scenario())
