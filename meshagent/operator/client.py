"""Asks a running node through its local socket."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.message import Message

from meshagent.errors import TransportError
from meshagent.operator.exits import CommandError, Exit
from meshagent.operator.methods import EXIT_METADATA, MAX_DOCUMENT_BYTES, METHODS, NEXT_METADATA
from meshagent.operator.places import Running, check_socket
from meshagent.operator.session import Document
from meshagent.wire.v1 import operator_pb2 as pb

ANSWER_TIMEOUT_S: Final = 10.0
"""A node that does not answer its own machine for so long hangs; `why` waits for peers and asks for more."""


class SocketDesk:
    """A node of this user, in another process."""

    visiting = False

    def __init__(self, running: Running, channel: grpc.aio.Channel) -> None:
        """Made by `connect`."""
        self.running = running
        self._channel = channel

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, running: Running) -> AsyncIterator[SocketDesk]:
        """A desk of `running`; nothing is sent before the first question.

        Raises:
            CommandError: its socket is not safe, or not there.
        """
        path = running.socket
        try:
            check_socket(path)
        except FileNotFoundError as error:
            raise _gone(running, "it has not opened its local socket yet") from error
        options = [("grpc.max_receive_message_length", MAX_DOCUMENT_BYTES), ("grpc.enable_http_proxy", 0)]
        async with grpc.aio.insecure_channel(f"unix:{path}", options=options) as channel:
            yield cls(running, channel)

    async def ask(self, request: Message, *, timeout_s: float | None = None) -> Document:
        """One answer."""
        call: Any = self._channel.unary_unary(
            METHODS[type(request)].path,
            request_serializer=type(request).SerializeToString,
            response_deserializer=pb.Document.FromString,
        )
        try:
            return _document(await call(request, timeout=timeout_s or ANSWER_TIMEOUT_S))
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from error

    async def stream(self, request: Message) -> AsyncGenerator[Document, None]:
        """Answers until the node ends them."""
        method: Any = self._channel.unary_stream(
            METHODS[type(request)].path,
            request_serializer=type(request).SerializeToString,
            response_deserializer=pb.Document.FromString,
        )
        call = method(request)
        try:
            async for document in call:
                yield _document(document)
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from error
        finally:
            call.cancel()

    def _error(self, error: grpc.aio.AioRpcError) -> Exception:
        metadata = dict(error.trailing_metadata() or ())
        if EXIT_METADATA in metadata:
            raw = metadata.get(NEXT_METADATA)
            next_step = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else None
            return CommandError(
                error.details() or "refused", exit_code=Exit(int(str(metadata[EXIT_METADATA]))), next_step=next_step
            )
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return _gone(self.running, "it does not answer; its loop may be blocked, see its log")
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            return _gone(self.running, "it has ended or is just starting")
        return TransportError(f"{self.running.name}: {error.code().name} {error.details()}")


def _document(message: pb.Document) -> Document:
    document: Document = json.loads(message.json)
    return document


def _gone(running: Running, why: str) -> CommandError:
    if not running.name and not running.socket.exists():  # a visitor holds the lock and says no name
        return CommandError(
            f"Another command visits with this device's identity (pid {running.pid}), or a node is just starting.",
            exit_code=Exit.UNREACHED,
            next_step="wait for it, or run a node: meshagent run ROLE",
        )
    return CommandError(
        f"The node {running.name or running.state.name} (pid {running.pid}) cannot be asked: {why}.",
        exit_code=Exit.UNREACHED,
        next_step=f"look at the process: ps {running.pid}",
    )
