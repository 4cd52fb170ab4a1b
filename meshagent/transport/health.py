"""The standard gRPC health service, for members of the fleet: `grpc_health_probe` and orchestrators know it.

The reference servicer keeps a watcher for every service name that a client makes up, for ever; this one knows its
names and answers NOT_FOUND to others.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

SERVICES: Final = ("", "meshagent.wire.v1.Link")
_CHECK: Final = "/grpc.health.v1.Health/Check"
_WATCH: Final = "/grpc.health.v1.Health/Watch"

_Response = health_pb2.HealthCheckResponse
_Context = grpc.aio.ServicerContext[Any, Any]


class HealthHandler(grpc.GenericRpcHandler):
    """Check and Watch of grpc.health.v1 for this node."""

    def __init__(self) -> None:
        self._serving = True
        self._changed = asyncio.Event()
        self._methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            _CHECK: grpc.unary_unary_rpc_method_handler(
                self._check,
                request_deserializer=health_pb2.HealthCheckRequest.FromString,
                response_serializer=_Response.SerializeToString,
            ),
            _WATCH: grpc.unary_stream_rpc_method_handler(
                self._watch,
                request_deserializer=health_pb2.HealthCheckRequest.FromString,
                response_serializer=_Response.SerializeToString,
            ),
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler of a method; asked for every call."""
        return self._methods.get(str(handler_call_details.method))

    def stop_serving(self) -> None:
        """Tell watchers that this node leaves."""
        self._serving = False
        self._changed.set()
        self._changed = asyncio.Event()

    def _answer(self) -> health_pb2.HealthCheckResponse:
        return _Response(status=_Response.SERVING if self._serving else _Response.NOT_SERVING)

    async def _check(self, request: health_pb2.HealthCheckRequest, context: _Context) -> health_pb2.HealthCheckResponse:
        if request.service not in SERVICES:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service here")
        return self._answer()

    async def _watch(self, request: health_pb2.HealthCheckRequest, context: _Context) -> None:
        if request.service not in SERVICES:
            await context.write(_Response(status=_Response.SERVICE_UNKNOWN))
            return
        while True:
            changed = self._changed
            await context.write(self._answer())
            if not self._serving:
                return
            await changed.wait()
