"""Round trip of one frame between two processes over mutual TLS: `python -m benchmarks.link --json`.

Beside our link stand the same stream by gRPC alone, with mutual TLS and without, so that the cost of the link itself
can be read off; ratios in one run count, not the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from random import Random
from typing import Any

import grpc
import grpc.aio

from benchmarks.report import Row, add_json_flag, progress, show
from meshagent.core.ports import HintSource, Link, LinkClosed, PeerHint
from meshagent.identity.certificates import issue_credential, read_credential
from meshagent.identity.device import DeviceIdentity
from meshagent.identity.keys import DeviceKey
from meshagent.identity.trust import Trust, issue_root
from meshagent.transport.config import TransportConfig
from meshagent.transport.mesh import GrpcTransport
from meshagent.transport.tls import LeafKeeper, channel_options, server_options
from meshagent.types import NodeId

PAYLOAD_BYTES = 200
WARM_UP = 500
METHOD = "/benchmark.Echo/Echo"
CONFIG = TransportConfig(port=0, interfaces=("lo",), mdns=False)

Device = tuple[bytes, bytes, bytes]
"""Seed, credential, root: what a process needs to be a device."""


def make_fleet(names: tuple[str, ...]) -> list[Device]:
    """A throw-away fleet."""
    authority = DeviceKey.generate()
    root = issue_root(authority, DeviceKey.generate().public, name="benchmark", now_s=time.time())
    trust = Trust([root])
    devices = []
    for name in names:
        seed = bytes(DeviceKey.generate()._seed)
        credential = issue_credential(
            authority,
            trust.newest,
            fleet=trust.fleet,
            device=DeviceKey(seed).public,
            name=name,
            generation=1,
            may=("announce:*", "perform:*"),
            capabilities=(),
            now_s=time.time(),
            lifetime_s=86400.0,
        )
        devices.append((seed, credential, root))
    return devices


def identity_of(device: Device) -> DeviceIdentity:
    """The device in this process."""
    seed, credential, root = device
    trust = Trust([root])
    return DeviceIdentity(DeviceKey(seed), read_credential(credential, trust, now_s=time.time()), trust)


class Echo:
    """Sends every frame back."""

    def link_opened(self, link: Link) -> None: ...

    def frame_received(self, link: Link, frame: bytes) -> None:
        link.send(frame)

    def link_closed(self, link: Link, why: LinkClosed) -> None: ...

    def peer_unreachable(self, peer: NodeId, why: LinkClosed, detail: str) -> None: ...

    def own_identity_proved(self, address: str) -> None: ...


class Asker(Echo):
    """Measures instead."""

    def __init__(self) -> None:
        self.opened: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        self.answer: asyncio.Future[None] | None = None

    def link_opened(self, link: Link) -> None:
        if not self.opened.done():
            self.opened.set_result(link)

    def frame_received(self, link: Link, frame: bytes) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(None)

    async def round_trip(self, link: Link, frame: bytes) -> None:
        """One frame there and back."""
        self.answer = asyncio.get_running_loop().create_future()
        link.send(frame)
        await self.answer


def new_transport(device: Device) -> GrpcTransport:
    """A transport on loopback without mDNS."""
    identity = identity_of(device)
    book = identity.open_book(now_s=time.time())
    return GrpcTransport(identity, book, CONFIG, Random(1), wall_s=time.time)


async def measured(once: Callable[[], Awaitable[None]], rounds: int) -> list[float]:
    """Seconds of each round after a warm-up."""
    for _ in range(WARM_UP):
        await once()
    taken = []
    for _ in range(rounds):
        begun = time.perf_counter()
        await once()
        taken.append(time.perf_counter() - begun)
    return taken


async def link_server(pipe: Connection, device: Device) -> None:
    """The other process of our link."""
    transport = new_transport(device)
    await transport.start(Echo())
    pipe.send(transport.listen_port)
    await asyncio.to_thread(pipe.recv)
    await transport.close()


async def link_client(device: Device, port: int, rounds: int) -> list[float]:
    """Dial and measure our link."""
    transport = new_transport(device)
    asker = Asker()
    await transport.start(asker)
    transport.add_hint(PeerHint(host="127.0.0.1", port=port, source=HintSource.STATIC))
    link = await asyncio.wait_for(asker.opened, 10)
    frame = b"\x0a" + bytes(PAYLOAD_BYTES - 1)
    try:
        return await measured(lambda: asker.round_trip(link, frame), rounds)
    finally:
        await transport.close()


async def floor_server(pipe: Connection, device: Device | None) -> None:
    """A bare gRPC stream that echoes."""

    async def echo(_requests: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        while isinstance(frame := await context.read(), bytes):
            await context.write(frame)

    class Handler(grpc.GenericRpcHandler):
        def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
            handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(echo)
            return handler

    server = grpc.aio.server(options=server_options(CONFIG))
    server.add_generic_rpc_handlers((Handler(),))
    if device is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", LeafKeeper(identity_of(device), time.time).server_credentials())
    await server.start()
    pipe.send(port)
    await asyncio.to_thread(pipe.recv)
    await server.stop(None)


async def floor_client(device: Device | None, port: int, rounds: int, peer: Device | None) -> list[float]:
    """Dial and measure a bare gRPC stream."""
    target = f"127.0.0.1:{port}"
    if device is None or peer is None:
        channel = grpc.aio.insecure_channel(target)
    else:
        options = channel_options(CONFIG, identity_of(peer).node_id)
        credentials = LeafKeeper(identity_of(device), time.time).channel_credentials()
        channel = grpc.aio.secure_channel(target, credentials, options=options)
    async with channel:
        call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(METHOD)()
        frame = bytes(PAYLOAD_BYTES)

        async def once() -> None:
            await call.write(frame)
            await call.read()

        taken = await measured(once, rounds)
        await call.done_writing()
        return taken


def run(work: Any, loop: str) -> Any:
    """Run a coroutine on one of the two loops."""
    if loop == "uvloop":
        import uvloop

        return uvloop.run(work)
    return asyncio.run(work)


def serve(kind: str, loop: str, pipe: Connection, device: Device | None) -> None:
    """Entry of the second process."""
    if kind == "link":
        assert device is not None
        run(link_server(pipe, device), loop)
    else:
        run(floor_server(pipe, device), loop)


def row(system: str, kind: str, loop: str, tls: bool, rounds: int) -> Row:
    """Measure one combination in two fresh processes' worth of sockets."""
    one, two = make_fleet(("one", "two"))
    shown = two if tls else None
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    other = multiprocessing.get_context("spawn").Process(target=serve, args=(kind, loop, theirs, shown))
    other.start()
    try:
        port = ours.recv()
        if kind == "link":
            taken = run(link_client(one, port, rounds), loop)
        else:
            taken = run(floor_client(one if tls else None, port, rounds, shown), loop)
        ours.send("stop")
    finally:
        other.join(10)
        other.kill()
    quantiles = statistics.quantiles(taken, n=100)
    return {
        "system": system,
        "loop": loop,
        "p50_us": quantiles[49] * 1e6,
        "p99_us": quantiles[98] * 1e6,
        "rounds": rounds,
        "bytes": PAYLOAD_BYTES,
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.link", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5000, help="round trips measured, after 500 unmeasured")
    add_json_flag(parser)
    asked = parser.parse_args()
    rows = []
    for loop in ("uvloop", "asyncio"):
        for system, kind, tls in (
            ("meshagent link", "link", True),
            ("grpc.aio stream, mutual TLS", "floor", True),
            ("grpc.aio stream, no TLS", "floor", False),
        ):
            progress(f"{system} on {loop} ...")
            rows.append(row(system, kind, loop, tls, asked.rounds))
    show("benchmarks.link", rows, "grpcio", "uvloop", "cryptography", as_json=asked.json)


if __name__ == "__main__":
    main()
