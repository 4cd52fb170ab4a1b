"""A copied disk, and those who only pretend that there is one.

SECURITY-DESIGN 4: a duplicate identity is an alarm and ends new contracts. A device believes it on proof alone: another
process that shows its key. Neither a lying member nor a record on the network may switch a device off.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import pytest

from meshagent.core.ports import HintSource, PeerHint
from meshagent.identity.hello import HelloRefusal, parse_hello, sign_hello
from meshagent.runtime.links import DUPLICATE_HOLDS_S
from meshagent.sdk.backend import SubmitRequest
from meshagent.sdk.declare import task
from meshagent.sdk.kinds import Task
from meshagent.sdk.role import Role
from meshagent.transport.attempts import DialOutcome
from meshagent.types import Delivery, InDoubt, Reason
from meshagent.wire.v1 import link_pb2 as pb
from tests.support.company import Member, close, join, until
from tests.support.meshes import TestFleet, open_mesh, quick
from tests.support.small_mesh import SmallMesh, run


@dataclass(frozen=True)
class Look(Task[int], kind="attack.duplicate.look"):
    """Look somewhere."""


class Looker(Role):
    """Looks."""

    @task
    async def look(self, job: Look) -> int:
        return 1


@pytest.mark.network
def test_clone_boot_a_copy_at_a_seed_is_proved_to_both_and_again_while_it_is_there() -> None:
    async def scenario() -> None:
        identity = TestFleet().device("a")
        config = quick(twin_again_s=0.05)
        async with open_mesh(identity, config) as one, open_mesh(identity, config) as copy:
            one.hint(copy)
            await one.events.until(lambda: len(one.events.twins) >= 3 and len(copy.events.twins) >= 3)
            assert one.events.twins[0].endswith(f":{copy.transport.listen_port}")
            assert one.events.opened == copy.events.opened == []

    asyncio.run(scenario())


@pytest.mark.network
def test_clone_boot_a_forwarder_that_holds_our_own_certificate_up_to_us_proves_nothing() -> None:
    async def scenario() -> None:
        async with open_mesh(TestFleet().device("a"), quick(twin_again_s=0.05)) as one:
            mirrored = asyncio.Event()

            async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                while data := await reader.read(65536):
                    writer.write(data)
                writer.close()

            async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                mirrored.set()
                back, out = await asyncio.open_connection("127.0.0.1", one.transport.listen_port)
                async with asyncio.TaskGroup() as both:
                    both.create_task(pipe(reader, out))
                    both.create_task(pipe(back, writer))

            mirror = await asyncio.start_server(forward, "127.0.0.1", 0)
            port = mirror.sockets[0].getsockname()[1]
            one.transport.add_hint(PeerHint(host="127.0.0.1", port=port, source=HintSource.STATIC))
            # the probe sees our own certificate there; the meeting that follows must see through it
            await one.events.until(
                lambda: (
                    any(a.outcome is DialOutcome.DUPLICATE_ID for a in one.transport.attempts()) and mirrored.is_set()
                )
            )
            await one.events.until(lambda: one.transport.refusals["own identity"] >= 2 and not one.transport._twins)
            assert one.events.twins == []
            mirror.close()

    asyncio.run(scenario())


def test_clone_boot_a_device_that_met_its_copy_takes_no_new_contracts_until_it_is_gone() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        dog = await mesh.join("dog", Looker)
        await mesh.join("drone")
        await mesh.linked(1)
        assert dog.driver.links.why_no_contracts() is None
        dog.driver.links.own_identity_proved("192.0.2.7:7340")
        asked = mesh.nodes["drone"]
        asked.submit(
            SubmitRequest(
                kind="attack.duplicate.look", spec=b"\x80", delivery=Delivery.AT_MOST_ONCE, in_doubt=InDoubt.MAJORITY
            )
        )
        (about,) = asked.pending

        def refusals() -> list[dict[str, object]]:
            lines = asked.stories.own(about).lines
            return [dict(note.facts) for _, note in lines if note.event == "refuse"]

        await mesh.until(lambda: bool(refusals()))
        assert refusals()[0]["reason"] == Reason.PERMISSION.value
        assert "identity" in str(refusals()[0]["detail"])
        since_s = mesh.loop.time()
        await mesh.until(lambda: dog.driver.participant.find(about) is not None, within_s=3 * DUPLICATE_HOLDS_S)
        assert mesh.loop.time() - since_s > DUPLICATE_HOLDS_S - 5

    run(scenario)


def test_clone_boot_a_member_that_lies_about_our_boot_switches_nobody_off() -> None:
    async def scenario() -> None:
        one, liar = Member(1, kinds={"k": "K()"}), Member(2)
        await one.start()
        await liar.start()

        def lie(raw: bytes) -> tuple[bytes]:
            frame = pb.Frame.FromString(raw)
            if frame.hello:
                hello = parse_hello(frame.hello)
                ahead = (9).to_bytes(8, "big") + b"invented"
                frame.hello = sign_hello(liar.identity, replace(hello, known_boot=ahead, known_generation=9))
            return (frame.SerializeToString(),)

        for _ in range(5):
            ours, theirs = join(one, liar)
            theirs.tamper = lie
            await until(lambda ours=ours: not ours.open)  # type: ignore[misc]
        assert one.driver.links.refusals[liar.id].reason is HelloRefusal.OWN_BOOT_OVER
        assert one.driver.links.why_no_contracts() is None
        honest = await Member(3).start()
        join(one, honest)
        await until(lambda: honest.id in one.driver.links.peers)
        await close(one, liar, honest)

    asyncio.run(scenario())
