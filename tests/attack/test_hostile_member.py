"""Attacks on running nodes: outsiders at the port, and a member that floods, while others ask for work.

ann works and bob asks, each a process with real TLS; the rogue is admitted like them and runs here.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from meshagent.core.acts import AcceptProposal, Propose, Refuse
from meshagent.core.bodies import EventMessage, Profile
from meshagent.core.ports import HintSource, PeerHint
from meshagent.transport.config import MAX_FRAME_BYTES
from meshagent.types import NodeId
from meshagent.virtual.journal import Disk
from tests.e2e.conftest import WORKSHOP, Cli
from tests.support.rogue import Rogue, rogue

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("e2e")]

LOOPBACK = {"MESHAGENT_NETWORK__INTERFACES": "lo", "MESHAGENT_NETWORK__PORT": "0", "MESHAGENT_PRESET": "loopback"}
KIND = "workshop.Greet"
SPEC = b"\x81\xa4name\xa1z"
BOGUS = 10_000
BATCH = 250


class Scene:
    """Two honest nodes and the rogue's state folder."""

    def __init__(self, home: Path) -> None:
        self.cli = Cli(home)
        self.disk = Disk()
        for name in ("ann", "bob", "rogue"):
            self.cli.device(name)
        self.cli.start("run", WORKSHOP, "--state", home / "ann", "--name", "ann", **LOOPBACK).until("is up in")
        self.cli.start("run", "--state", home / "bob", "--name", "bob", **LOOPBACK).until("is up in")
        status = self.status()
        self.ann, self.port = NodeId(status["id"]), int(status["listen_port"])

    def status(self) -> dict[str, Any]:
        return self.cli("status", "--json", "--state", self.cli.home / "ann", **LOOPBACK).document

    def greet(self) -> None:
        """bob asks, and somebody does it."""
        words = ("submit", "greet", "name=bob", "--state", self.cli.home / "bob", "--timeout", "15s", "--json")
        done = self.cli(*words, **LOOPBACK)
        assert done.code == 0, done.err
        assert done.document["result"] == "hello bob, ann speaking"

    def attack(self, plot: Callable[[Rogue], Coroutine[Any, Any, None]]) -> None:
        async def whole() -> None:
            async with rogue(self.cli.home / "rogue", self.ann, self.port, disk=self.disk) as member:
                await plot(member)

        asyncio.run(whole())


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    made: Scene | None = None
    try:
        made = Scene(tmp_path_factory.mktemp("hostile"))
        yield made
    finally:
        if made is not None:
            made.cli.close()


async def beside(scene: Scene, flood: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """bob's task gets done while the flood goes on."""
    flooding = asyncio.create_task(flood())
    await asyncio.to_thread(scene.greet)
    await flooding


def test_flood_of_ten_thousand_bogus_tasks_does_not_stop_the_work_of_others(scene: Scene) -> None:
    async def plot(member: Rogue) -> None:
        async def flood() -> None:
            for _ in range(BOGUS // BATCH):
                member.say(scene.ann, *[member.call(KIND, SPEC) for _ in range(BATCH)])
                await asyncio.sleep(0.01)

        await beside(scene, flood)
        await member.until(lambda: len(member.answers(Propose)) + len(member.answers(Refuse)) >= BOGUS // 2)

    before = scene.status()["journal"]["bytes"]
    scene.attack(plot)
    after = scene.status()
    assert after["process"]["rss_mib"] < 200
    assert after["journal"]["bytes"] - before < 1 << 20  # calls leave nothing behind


def test_flood_of_awards_without_commit_leaves_the_queue_to_others(scene: Scene) -> None:
    async def plot(member: Rogue) -> None:
        def award() -> AcceptProposal:
            call = member.call(KIND, SPEC)
            return AcceptProposal(
                task=call.task,
                epoch=call.epoch,
                record=call.record,
                call_epoch=call.epoch,
                added_ms=0,
                load_ms=0,
                plan_version=1,
                lease_ms=600_000,
            )

        async def flood() -> None:
            for _ in range(20):
                member.say(scene.ann, *[award() for _ in range(100)])
                await asyncio.sleep(0.02)

        await beside(scene, flood)

    scene.attack(plot)


def test_flood_of_frames_without_content_does_not_stop_the_work_of_others(scene: Scene) -> None:
    async def plot(member: Rogue) -> None:
        async def flood() -> None:
            link = member.raw(scene.ann)
            for _ in range(1500):
                while len(link._queue) < 7 and link.why is None:
                    link.send(b"\x08\x00")
                await asyncio.sleep(0)

        await beside(scene, flood)
        assert member.linked(scene.ann)

    scene.attack(plot)


def test_empties_bomb_in_specifications_and_events_is_refused_by_the_running_node(scene: Scene) -> None:
    async def plot(member: Rogue) -> None:
        for bomb in (b"\x91" * 30_000, b"\x81\xa4name\xdd\x00\x00\x70\x00" + b"\x80" * 0x7000, b"\xdf\xff\xff\xff\xff"):
            member.say(scene.ann, member.call(KIND, bomb), EventMessage(name="bomb", body=bomb))
        await member.until(lambda: len(member.answers(Refuse)) == 3)
        await asyncio.to_thread(scene.greet)

    scene.attack(plot)
    assert scene.status()["process"]["rss_mib"] < 200


def test_oversized_frame_ends_its_link_and_nothing_else(scene: Scene) -> None:
    async def plot(member: Rogue) -> None:
        link = member.raw(scene.ann)
        link._queue.append(bytes(MAX_FRAME_BYTES + 4096))  # `send` would refuse
        link._stir()
        await member.until(lambda: link.why is not None)
        await asyncio.to_thread(scene.greet)

    scene.attack(plot)


def test_outsiders_with_garbage_no_certificate_or_silence_stop_nobody(scene: Scene) -> None:
    held = [socket.create_connection(("127.0.0.1", scene.port)) for _ in range(200)]  # silent_tcp, many of them
    try:
        for _ in range(10):
            with socket.create_connection(("127.0.0.1", scene.port)) as noise:
                noise.sendall(os.urandom(4000))
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        with socket.create_connection(("127.0.0.1", scene.port)) as plain, context.wrap_socket(plain) as nobody:
            nobody.settimeout(5)
            try:
                nobody.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 9)
                assert nobody.recv(100) == b""  # no settings, no error: nothing without a certificate
            except (ConnectionError, ssl.SSLError):
                pass  # hung up on even sooner
        scene.greet()
    finally:
        for one in held:
            one.close()


def test_ansi_name_of_a_member_its_kinds_and_its_refusals_reach_no_terminal_through_any_command(scene: Scene) -> None:
    evil = "\x1b[31mred\x1b]0;title\x07\r\n\u202e"

    async def plot(member: Rogue) -> None:
        async with asyncio.timeout(20):
            await member.until(lambda: len(member.driver.links.peers) >= 1)
        bob = scene.cli("status", "--json", "--state", scene.cli.home / "bob", **LOOPBACK).document
        hint = PeerHint(host="127.0.0.1", port=bob["listen_port"], source=HintSource.STATIC)
        member.transport.add_hint(hint)
        await member.until(lambda: member.linked(bob["id"]))
        member.refusal = evil
        member.driver.set_profile(
            Profile(version=2, name=evil, kinds={KIND: evil, "evil.Kind": evil}, roles=(evil,), capabilities=(evil,))
        )
        member.driver.emit(EventMessage(name=evil, body=b"\x80"))
        member.say(scene.ann, EventMessage(name=evil, body=b"\x80"))

        def look() -> list[str]:
            at = ("--state", scene.cli.home / "bob")
            shown = []
            done = scene.cli("submit", "greet", "name=bob", *at, "--timeout", "15s", **LOOPBACK)
            shown += [done.out, done.err]
            tasks = scene.cli("tasks", "--all", "--json", *at, **LOOPBACK).document["tasks"]
            commands = [("peers",), ("status",), ("tasks", "--all"), ("doctor",)]
            commands += [("why", task["id"]) for task in tasks[:3]]
            for words in commands:
                told = scene.cli(*words, *at, **LOOPBACK)
                shown += [told.out, told.err]
            return shown

        shown = await asyncio.to_thread(look)
        assert any("red" in text for text in shown)  # it was shown, escaped
        for text in shown:
            assert not set(text) & {"\x1b", "\x07", "\r", "\u202e"}

    scene.attack(plot)
