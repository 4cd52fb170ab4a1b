"""The local API over its real socket: who may reach it, what it offers, how errors arrive."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from meshagent.errors import TransportError
from meshagent.operator.client import SocketDesk
from meshagent.operator.exits import CommandError, Exit
from meshagent.operator.places import NodeLock, Running, running_in, socket_of
from meshagent.operator.server import OperatorServer
from meshagent.operator.session import Document
from meshagent.wire.v1 import operator_pb2 as pb

BOUND_S = 20.0


class FakeDesk:
    """Answers without a node."""

    visiting = False

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def ask(self, request: Message, *, timeout_s: float | None = None) -> Document:
        if isinstance(request, pb.CancelRequest):
            raise CommandError("No täsk.", exit_code=Exit.PERMISSION, next_step="meshagent täsks")
        if isinstance(request, pb.ResolveRequest):
            raise TransportError("gone")
        if isinstance(request, pb.TasksRequest):
            return {"schema": "meshagent.tasks/1", "tasks": [{"id": "x" * 1000} for _ in range(6000)]}
        return {"schema": "meshagent.status/1", "name": "dög"}

    async def stream(self, request: Message) -> AsyncGenerator[Document, None]:
        try:
            for number in range(3):
                yield {"schema": "meshagent.event/1", "number": number}
            if isinstance(request, pb.SubmitRequest):
                raise CommandError("Not permitted.", exit_code=Exit.PERMISSION)
            await asyncio.Event().wait()
        finally:
            self.closed.set()


@pytest.fixture
def state() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folder is too long for a socket
        yield Path(folder) / "state"


def served(state: Path, test: Callable[[FakeDesk, Running], Any]) -> None:
    async def main() -> None:
        lock = NodeLock(state)
        assert lock.take()
        lock.describe(name="dog-2", port=7340)
        try:
            desk = FakeDesk()
            async with asyncio.timeout(BOUND_S), OperatorServer(desk, state):
                running = running_in(state)
                assert running is not None
                await test(desk, running)
        finally:
            lock.release()

    asyncio.run(main())


def test_documents_arrive_as_they_were_given(state: Path) -> None:
    async def test(desk: FakeDesk, running: Running) -> None:
        async with SocketDesk.connect(running) as client:
            assert await client.ask(pb.StatusRequest()) == {"schema": "meshagent.status/1", "name": "dög"}
            large = await client.ask(pb.TasksRequest())
            assert len(large["tasks"]) == 6000, "over gRPC's default of 4 MiB"

    served(state, test)


def test_errors_keep_sentence_next_step_and_exit_code(state: Path) -> None:
    async def test(desk: FakeDesk, running: Running) -> None:
        async with SocketDesk.connect(running) as client:
            with pytest.raises(CommandError, match=r"No täsk\.") as caught:
                await client.ask(pb.CancelRequest(task="x"))
            assert (caught.value.exit_code, caught.value.next_step) == (Exit.PERMISSION, "meshagent täsks")
            with pytest.raises(CommandError, match="gone") as caught:
                await client.ask(pb.ResolveRequest())
            assert caught.value.exit_code is Exit.UNREACHED
            with pytest.raises(CommandError, match="Not permitted") as caught:
                async for _ in client.stream(pb.SubmitRequest()):
                    pass

    served(state, test)


def test_a_watcher_that_hangs_up_is_forgotten(state: Path) -> None:
    async def test(desk: FakeDesk, running: Running) -> None:
        async with SocketDesk.connect(running) as client:
            numbers = []
            stream = client.stream(pb.WatchRequest())
            async for document in stream:
                numbers.append(document["number"])
                if len(numbers) == 3:
                    break
            await stream.aclose()
            await desk.closed.wait()
            assert numbers == [0, 1, 2]

    served(state, test)


def test_socket_umask_leaves_others_outside(state: Path) -> None:
    before = os.umask(0)
    try:

        async def test(desk: FakeDesk, running: Running) -> None:
            assert stat.S_IMODE(state.stat().st_mode) == 0o700
            assert stat.S_IMODE(running.socket.stat().st_mode) == 0o600

        served(state, test)
    finally:
        os.umask(before)
    assert not socket_of(state).exists()


def test_a_stale_socket_of_a_killed_node_is_replaced(state: Path) -> None:
    import socket

    state.mkdir(mode=0o700)
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(socket_of(state)))
    left.close()

    async def test(desk: FakeDesk, running: Running) -> None:
        async with SocketDesk.connect(running) as client:
            assert (await client.ask(pb.StatusRequest()))["name"] == "dög"

    served(state, test)


def test_a_node_that_is_gone_is_told_as_such(state: Path) -> None:
    async def main() -> None:
        lock = NodeLock(state)
        assert lock.take()
        lock.describe(name="dog-2", port=1)
        running = running_in(state)
        assert running is not None
        async with asyncio.timeout(BOUND_S), SocketDesk.connect(running) as client:
            with pytest.raises(CommandError, match="cannot be asked: it has ended or is just starting") as caught:
                await client.ask(pb.StatusRequest())
        assert caught.value.exit_code is Exit.UNREACHED
        lock.release()

    asyncio.run(main())


def test_standard_health_and_reflection_are_offered(state: Path) -> None:
    async def test(desk: FakeDesk, running: Running) -> None:
        async with grpc.aio.insecure_channel(f"unix:{running.socket}") as channel:
            health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            assert health.status == health_pb2.HealthCheckResponse.SERVING
            asked = reflection_pb2.ServerReflectionRequest(list_services="")
            call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([asked]))
            async for answer in call:
                names = [service.name for service in answer.list_services_response.service]
                break
            assert "meshagent.wire.v1.Operator" in names
            call.cancel()

    served(state, test)


def test_another_language_needs_the_path_and_a_json_parser(state: Path) -> None:
    async def test(desk: FakeDesk, running: Running) -> None:
        async with grpc.aio.insecure_channel(f"unix:{running.socket}") as channel:
            raw: Any = channel.unary_unary("/meshagent.wire.v1.Operator/Status")
            answer = pb.Document.FromString(await raw(b""))
            assert (answer.schema, json.loads(answer.json)["name"]) == ("meshagent.status/1", "dög")

    served(state, test)
