"""The local operator API of a running node: a gRPC server on a Unix socket that only this user can reach.

Beside `Operator` it offers the standard health service and reflection, so that `grpcurl -unix` explores it without
our files. It translates and nothing more; answers come from the `Desk`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from meshagent.errors import MeshAgentError
from meshagent.operator.exits import Exit, exit_of
from meshagent.operator.methods import EXIT_METADATA, MAX_DOCUMENT_BYTES, METHODS, NEXT_METADATA, SERVICE, Method
from meshagent.operator.places import forget_socket, prepare_socket
from meshagent.operator.session import Desk, Document
from meshagent.wire.v1 import operator_pb2 as pb

STOP_GRACE_S: Final = 0.5
"""Watching commands are told that the node leaves; a stuck reader may not hold it up longer."""
_STATUS: Final = {
    Exit.USAGE: grpc.StatusCode.INVALID_ARGUMENT,
    Exit.CONFIGURATION: grpc.StatusCode.FAILED_PRECONDITION,
    Exit.UNREACHED: grpc.StatusCode.NOT_FOUND,
    Exit.UNFINISHED: grpc.StatusCode.DEADLINE_EXCEEDED,
    Exit.PERMISSION: grpc.StatusCode.PERMISSION_DENIED,
}


class OperatorServer:
    """Serves one desk; an async context manager."""

    def __init__(self, desk: Desk, state: Path) -> None:
        """Nothing is bound yet. The caller holds the lock of `state`."""
        self._desk = desk
        self._state = state
        self._path = prepare_socket(state)
        # so_reuseport does not concern Unix sockets; the size does: `tasks` of a long-lived node is large
        self._server = grpc.aio.server(options=[("grpc.max_send_message_length", MAX_DOCUMENT_BYTES)])
        self._health = health.aio.HealthServicer()

    async def __aenter__(self) -> OperatorServer:
        handlers = {m.name: self._handler(m) for m in METHODS.values()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        self._server.add_insecure_port(f"unix:{self._path}")  # the folder's mode is the authorization
        await self._server.start()
        self._path.chmod(0o600)
        for service in ("", SERVICE):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._health.enter_graceful_shutdown()
        await self._server.stop(STOP_GRACE_S)
        forget_socket(self._path, self._state)

    def _handler(self, method: Method) -> grpc.RpcMethodHandler[Any, Any]:
        make: Any = grpc.unary_stream_rpc_method_handler if method.streams else grpc.unary_unary_rpc_method_handler
        answer = self._stream if method.streams else self._answer
        handler: grpc.RpcMethodHandler[Any, Any] = make(
            answer, request_deserializer=method.request.FromString, response_serializer=pb.Document.SerializeToString
        )
        return handler

    async def _answer(self, request: Message, context: Any) -> pb.Document:
        try:
            return _packed(await self._desk.ask(request))
        except MeshAgentError as error:
            await _refuse(context, error)
            raise AssertionError("abort raises") from None

    async def _stream(self, request: Message, context: Any) -> AsyncIterator[pb.Document]:
        answers: AsyncGenerator[Document, None] = self._desk.stream(request)
        try:
            async for document in answers:
                yield _packed(document)
        except MeshAgentError as error:
            await _refuse(context, error)
        finally:
            await answers.aclose()


def _packed(document: Document) -> pb.Document:
    return pb.Document(schema=document["schema"], json=json.dumps(document, ensure_ascii=False).encode())


async def _refuse(context: Any, error: MeshAgentError) -> None:
    code = exit_of(error)
    metadata: list[tuple[str, str | bytes]] = [(EXIT_METADATA, str(int(code)))]
    if error.next_step:
        metadata.append((NEXT_METADATA, error.next_step.encode()))
    await context.abort(_STATUS.get(code, grpc.StatusCode.ABORTED), str(error), trailing_metadata=tuple(metadata))
