"""The node hears of everything in order, and never from within its own call."""

from __future__ import annotations

import asyncio

from meshagent.core.ports import Link, LinkClosed
from meshagent.transport.notices import Notices
from meshagent.types import NodeId

PEER = NodeId("a" * 52)


class FakeLink:
    """A link that does nothing."""

    peer = PEER
    address = "nowhere"

    def send(self, frame: bytes) -> None: ...

    def close(self, why: LinkClosed) -> None: ...


class Log:
    """`LinkEvents` that notes what it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.fails_on = ""

    def _hear(self, what: str) -> None:
        self.heard.append(what)
        if what == self.fails_on:
            raise RuntimeError("the node failed")

    def link_opened(self, link: Link) -> None:
        self._hear("opened")

    def frame_received(self, link: Link, frame: bytes) -> None:
        self._hear(frame.decode())

    def link_closed(self, link: Link, why: LinkClosed) -> None:
        self._hear(f"closed {why}")

    def peer_unreachable(self, peer: NodeId, why: LinkClosed, detail: str) -> None:
        self._hear(f"unreachable {why}")

    def own_identity_proved(self, address: str) -> None:
        self._hear("twin")


def test_notices_wait_for_the_next_turn_and_a_frame_brings_them_before_itself() -> None:
    async def scenario() -> None:
        log = Log()
        notices, link = Notices(log), FakeLink()
        notices.opened(link)
        assert log.heard == []
        notices.frame(link, b"first")
        assert log.heard == ["opened", "first"]
        notices.closed(link, LinkClosed.AGED)
        notices.opened(link)
        notices.unreachable(PEER, LinkClosed.SILENT, "")
        assert log.heard == ["opened", "first"]
        await asyncio.sleep(0)
        assert log.heard[2:] == ["closed aged", "opened", "unreachable silent"]

    asyncio.run(scenario())


def test_notice_over_which_the_node_fails_does_not_swallow_those_behind_it() -> None:
    async def scenario() -> None:
        failures: list[BaseException | None] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, context: failures.append(context.get("exception"))
        )
        log = Log()
        log.fails_on = "opened"
        notices, link = Notices(log), FakeLink()
        notices.opened(link)
        notices.closed(link, LinkClosed.RESET)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert log.heard == ["opened", "closed reset"]
        assert [str(failure) for failure in failures] == ["the node failed"]

    asyncio.run(scenario())
