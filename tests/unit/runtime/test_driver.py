"""The driver over links in memory: negotiation, the order of commit and send, restart, revocation, hostile frames."""

from __future__ import annotations

import asyncio

from meshagent.types import TaskState
from tests.support.company import Member, close, join, until


def test_two_drivers_negotiate_a_task() -> None:
    async def scenario() -> None:
        asker, worker = Member(1), Member(2, kinds={"k": "K()"})
        await asker.start()
        await worker.start()
        join(asker, worker)
        await until(lambda: worker.id in asker.driver.links.peers)
        task = asker.submit("k")
        await until(lambda: asker.ended(task))
        change = asker.last(task)
        assert change is not None
        assert change.state is TaskState.DONE
        assert change.result == b"done"
        assert change.holder == worker.id
        assert len(worker.started) == 1
        await close(asker, worker)

    asyncio.run(scenario())
