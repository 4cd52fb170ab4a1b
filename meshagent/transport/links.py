"""One link: a gRPC stream of opaque frames, in both directions, with a bounded queue and a stated end.

Both roles are the same here; only the two callables that read and write differ (client call, server context).
An end that is meant is said in the stream, as a frame of its own that holds nothing but field 15, `bye`
(protos/meshagent/wire/v1/link.proto); a stream that ends without it was cut, because a stream that merely ends looks
the same as one whose process was killed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from meshagent.core.ports import LinkClosed
from meshagent.errors import LocalProtocolError
from meshagent.transport.config import MAX_FRAME_BYTES, MAX_QUEUED_FRAMES
from meshagent.types import NodeId

_BYE_TAG: Final = b"\x78"
"""Protobuf tag of field 15, varint."""
_BYE: Final[dict[LinkClosed, bytes]] = {
    LinkClosed.GOODBYE: _BYE_TAG + b"\x01",
    LinkClosed.REFUSED: _BYE_TAG + b"\x02",
    LinkClosed.AGED: _BYE_TAG + b"\x03",
}
_SAID: Final = {frame: why for why, frame in _BYE.items()}

Read = Callable[[], Awaitable[bytes | None]]
"""The next frame; None or an exception at the end of the stream."""
Write = Callable[[bytes], Awaitable[None]]


class LinkOwner(Protocol):
    """Whom a link tells; `mesh.GrpcTransport`."""

    def frame(self, link: StreamLink, frame: bytes) -> None: ...

    def failed(self, link: StreamLink, error: BaseException) -> None:
        """Something of ours raised; the link ends."""

    def ended(self, link: StreamLink, why: LinkClosed, detail: str) -> None:
        """Called once, by whichever end comes first."""


class StreamLink:
    """The `Link` of core/ports.py over one stream."""

    __slots__ = (
        "_ended",
        "_owner",
        "_queue",
        "_said_by_peer",
        "_wake",
        "_why",
        "address",
        "dialled_by_us",
        "instance",
        "listens_at",
        "peer",
    )

    def __init__(
        self,
        *,
        peer: NodeId,
        address: str,
        instance: str,
        listens_at: tuple[str, int] | None,
        dialled_by_us: bool,
        owner: LinkOwner,
    ) -> None:
        self.peer = peer
        self.address = address
        self.instance = instance
        """Which process is at the other end: random, chosen at its start."""
        self.dialled_by_us = dialled_by_us
        self.listens_at = listens_at
        """Where the peer may be dialled again, as far as this link tells."""
        self._owner = owner
        self._queue: deque[bytes] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._ended: asyncio.Event = asyncio.Event()
        self._why: LinkClosed | None = None
        self._said_by_peer = False

    def __repr__(self) -> str:
        return f"<link {'to' if self.dialled_by_us else 'from'} {self.peer[:8]} at {self.address}>"

    @property
    def said_by_peer(self) -> bool:
        """The peer ended it, and said so."""
        return self._said_by_peer

    @property
    def why(self) -> LinkClosed | None:
        """Why it ended; None while it is open."""
        return self._why

    def send(self, frame: bytes) -> None:
        """Queue one frame; a closed link drops it.

        Raises:
            LocalProtocolError: the frame is longer than the wire allows.
        """
        if self._why is not None:
            return
        if len(frame) > MAX_FRAME_BYTES:
            raise LocalProtocolError(f"a frame has at most {MAX_FRAME_BYTES} bytes, this one {len(frame)}")
        if len(self._queue) >= MAX_QUEUED_FRAMES:
            self.end(LinkClosed.SILENT, f"{MAX_QUEUED_FRAMES} frames wait and the peer takes none")
            return
        self._queue.append(frame)
        self._stir()

    def close(self, why: LinkClosed) -> None:
        """End it from this side; the peer is told where the reason is one that can be told."""
        self.end(why, "closed by this node")

    def end(self, why: LinkClosed, detail: str) -> None:
        """The link is over, whoever found out; later reasons are ignored."""
        if self._why is not None:
            return
        self._why = why
        if why not in _BYE:
            self._queue.clear()
        self._ended.set()
        self._stir()
        self._owner.ended(self, why, detail)

    def _stir(self) -> None:
        wake = self._wake
        if wake is not None and not wake.done():
            wake.set_result(None)

    async def run(self, read: Read, write: Write, *, close_timeout_s: float) -> None:
        """Carry frames until the link ends, then say goodbye; returns when the stream may be torn down.

        Cancelled from outside (gRPC cancels a server's handler when its client is gone), it ends as RESET.
        """
        loop = asyncio.get_running_loop()
        reader = loop.create_task(self._read_all(read), name=f"read {self!r}")
        writer = loop.create_task(self._write_all(write), name=f"write {self!r}")
        for half in (reader, writer):
            half.add_done_callback(self._half_ended)
        try:
            await self._ended.wait()
            # the writer flushes and says bye; a peer that does not take it is not waited for
            await asyncio.wait((writer,), timeout=close_timeout_s)
            if self._why in _BYE and not self._said_by_peer:
                # tearing the stream down now could overtake our bye; the peer ends the stream when it has read it
                await asyncio.wait((reader,), timeout=close_timeout_s)
        finally:
            self.end(LinkClosed.RESET, "the stream was cut")
            reader.cancel()
            writer.cancel()
            # without a wait the tasks' last step would run after the stream is gone
            await asyncio.wait((reader, writer), timeout=close_timeout_s)

    def _half_ended(self, half: asyncio.Task[None]) -> None:
        """A half that ends by an error, ours included, takes the link with it instead of leaving it deaf."""
        if half.cancelled():
            self.end(LinkClosed.RESET, "the stream was cut")
        elif (error := half.exception()) is not None:
            self._owner.failed(self, error)
            self.end(LinkClosed.RESET, "this node failed while carrying a frame")

    async def _read_all(self, read: Read) -> None:
        owner = self._owner
        try:
            while True:
                frame = await read()
                if frame is None:
                    self.end(LinkClosed.RESET, "the peer's process ended the stream")
                    return
                if self._why is not None:
                    continue  # draining until the peer has seen our goodbye
                if frame[:1] == _BYE_TAG and (said := _SAID.get(frame)) is not None:
                    self._said_by_peer = True
                    self.end(said, "said by the peer")
                    return
                owner.frame(self, frame)
        except StreamBroken as broken:
            self.end(broken.why, broken.detail)

    async def _write_all(self, write: Write) -> None:
        loop = asyncio.get_running_loop()
        queue = self._queue
        try:
            while True:
                while queue:
                    await write(queue.popleft())
                if self._why is not None:
                    if (bye := _BYE.get(self._why)) is not None and not self._said_by_peer:
                        await write(bye)
                    return
                self._wake = loop.create_future()
                await self._wake
                self._wake = None
        except StreamBroken as broken:
            self.end(broken.why, broken.detail)


class StreamBroken(Exception):
    """What `Read` and `Write` raise when the stream is gone."""

    def __init__(self, why: LinkClosed, detail: str) -> None:
        super().__init__(detail)
        self.why = why
        self.detail = detail
