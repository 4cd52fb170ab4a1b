"""The listening side: binds, lets TLS and identity say who comes, and serves the one method of the Link service.

Whether a stream may become the link of its peer is its owner's decision (mesh.py).
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import unquote

import grpc
import grpc.aio

from meshagent.core.ports import LinkClosed
from meshagent.errors import IdentityError, TransportError
from meshagent.identity.credential import CertificateError, Credential
from meshagent.transport.config import MAX_LINKS, TransportConfig
from meshagent.transport.dialler import META_INSTANCE, META_PORT, METHOD, STREAM_ERRORS
from meshagent.transport.health import HealthHandler
from meshagent.transport.interfaces import Interface, host_port, scope_of
from meshagent.transport.links import StreamBroken, StreamLink
from meshagent.transport.peers import PeerState
from meshagent.transport.sockets import port_in_use
from meshagent.transport.tls import LeafKeeper, PeerIdentifier, SessionResumedError, server_options

log = logging.getLogger(__name__)

FORCED_AGE: Final = 1.1
"""The server ends a link at this multiple of the age, for diallers that do not renew."""
FREE_PORT_TRIES: Final = 5
"""The free port that the kernel chose on one address may be taken on the next."""
MAX_INSTANCE_CHARS: Final = 64
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
_PEER_URI: Final = re.compile(r"(?:ipv4:([0-9.]{7,15})|ipv6:\[([0-9a-fA-F:.]+(?:%\w{1,16})?)\]):[0-9]{1,5}")

_Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A stream whose dialler has proved who it is."""

    credential: Credential
    instance: str
    """What its process calls itself; chosen by the peer."""
    address: str
    """Where it came from, for people."""
    listens_at: tuple[str, int] | None
    """The address it came from with the port it says it listens on."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A stream that is not served."""

    counted: str
    """The key in our counter."""
    code: grpc.StatusCode
    told: str
    """What the peer hears: less than our log."""


class ServerOwner(Protocol):
    """What the server needs of `mesh.GrpcTransport`."""

    def admit(self, arrival: Arrival) -> PeerState | Refusal:
        """May this device have a link at all?"""

    async def accept(self, state: PeerState, arrival: Arrival) -> StreamLink | None:
        """Make the stream the link of its peer, perhaps after a moment; None: not any more."""

    def gone(self, link: StreamLink) -> None:
        """The stream of `link` is torn down."""


class LinkServer:
    """One gRPC server over mutual TLS."""

    def __init__(
        self,
        owner: ServerOwner,
        config: TransportConfig,
        leaves: LeafKeeper,
        identifier: PeerIdentifier,
        instance: str,
    ) -> None:
        self._owner = owner
        self._config = config
        self._leaves = leaves
        self._identifier = identifier
        self._instance = instance
        self._health = HealthHandler()
        self._server: grpc.aio.Server | None = None
        self.port = 0
        """The TCP port in use, once started."""
        self.refusals: Counter[str] = Counter()
        """Streams refused, by reason; the reasons are ours, never the network's."""

    async def start(self, interfaces: Sequence[Interface]) -> None:
        """Bind the addresses of the named interfaces, or the wildcard address, and serve.

        Raises:
            TransportError: the port is taken; says by whom and the next step.
        """
        for tries_left in reversed(range(FREE_PORT_TRIES)):
            server = grpc.aio.server(options=server_options(self._config), maximum_concurrent_rpcs=MAX_LINKS)
            server.add_generic_rpc_handlers((_LinkHandler(self._exchange), self._health))
            try:
                self.port = self._bind(server, interfaces)
            except TransportError:
                if self._config.port or not tries_left:
                    raise
                continue
            await server.start()
            self._server = server
            return

    def _bind(self, server: grpc.aio.Server, interfaces: Sequence[Interface]) -> int:
        port, credentials = self._config.port, self._leaves.server_credentials
        try:
            if not self._config.interfaces:
                return server.add_secure_port(f"[::]:{port}", credentials())
            for interface in interfaces:
                for address in interface.addresses:
                    port = server.add_secure_port(host_port(scope_of(interface, address.ip), port), credentials())
        except RuntimeError as error:
            raise port_in_use(port, str(error)) from error
        return port

    def stop_serving(self) -> None:
        """Tell whoever watches our health that this node leaves."""
        self._health.stop_serving()

    async def stop(self, grace_s: float) -> None:
        """Take no more streams, give the present ones `grace_s`, and end."""
        if self._server is not None:
            await self._server.stop(grace_s)

    async def _exchange(self, _requests: object, context: _Context) -> None:
        """Serve one stream: who is it, may it be the link, then carry frames."""
        arrival = self._arrival(context)
        if isinstance(arrival, Refusal):
            return await self._refuse(context, arrival)
        state = self._owner.admit(arrival)
        if isinstance(state, Refusal):
            return await self._refuse(context, state)
        link = await self._owner.accept(state, arrival)
        if link is None:
            return await self._refuse(context, Refusal("too late", grpc.StatusCode.UNAVAILABLE, "not now"))
        timer = asyncio.get_running_loop().call_later(
            self._config.max_link_age_s * FORCED_AGE, link.end, LinkClosed.AGED, "not renewed by its dialler"
        )

        async def read() -> bytes | None:
            try:
                frame = await context.read()
            except STREAM_ERRORS as error:
                raise StreamBroken(LinkClosed.RESET, str(error)) from None
            return frame if isinstance(frame, bytes) else None

        async def write(frame: bytes) -> None:
            try:
                await context.write(frame)
            except STREAM_ERRORS as error:
                raise StreamBroken(LinkClosed.RESET, str(error)) from None

        try:
            await context.send_initial_metadata(((META_INSTANCE, self._instance),))
            await link.run(read, write, close_timeout_s=self._config.close_timeout_s)
        finally:
            timer.cancel()
            link.end(LinkClosed.RESET, "the stream was cut")
            self._owner.gone(link)
        return None

    async def _refuse(self, context: _Context, refusal: Refusal) -> None:
        self.refusals[refusal.counted] += 1
        # Who refuses is told, so that a device that meets its own identity knows a copy from its own reflection.
        await context.abort(refusal.code, refusal.told, ((META_INSTANCE, self._instance),))

    def _arrival(self, context: _Context) -> Arrival | Refusal:
        ip = ip_of(context.peer())
        try:
            credential = self._identifier.identify(context.auth_context())
        except IdentityError as error:
            counted = f"certificate {error.fault}" if isinstance(error, CertificateError) else "certificate"
            if isinstance(error, SessionResumedError):
                counted = "resumed session"
            if not self.refusals[counted]:
                # the first of its kind; the counter has the rest, so that nobody can fill a disk with refusals
                log.warning("refused a stream from %s: %s", ip or "an unknown address", error)
            return Refusal(counted, grpc.StatusCode.UNAUTHENTICATED, "certificate refused")
        said = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        return Arrival(
            credential=credential,
            instance=said.get(META_INSTANCE, "")[:MAX_INSTANCE_CHARS],
            address=ip or "unknown address",
            listens_at=_listens_at(ip, said),
        )


def _listens_at(ip: str, said: Mapping[str, str]) -> tuple[str, int] | None:
    """Only the port is taken from what the peer says: nobody can have us dial a third party."""
    port = said.get(META_PORT, "")
    if not ip or not _PORT.fullmatch(port) or int(port) > 65535:
        return None
    return ip, int(port)


def ip_of(peer_uri: str) -> str:
    """The address in gRPC's `ipv6:%5B::1%5D:4711`; empty where there is none."""
    match = _PEER_URI.fullmatch(unquote(peer_uri))
    if match is None:
        return ""
    ip = match[1] or match[2]
    # an IPv4 peer on a dual-stack socket
    return ip.removeprefix("::ffff:") if "." in ip else ip


class _LinkHandler(grpc.GenericRpcHandler):
    """Routes the one method of the Link service to raw bytes."""

    def __init__(self, exchange: Callable[[Any, _Context], Any]) -> None:
        self._handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(exchange)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        return self._handler if handler_call_details.method == METHOD else None
