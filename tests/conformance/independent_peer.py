"""A peer made from docs/protocol.md: links over gRPC (for its transport alone), greets, frames, seals and verifies.

One conversation at a time, read and answered in order; what a test says with it is the contract net itself.
"""

from __future__ import annotations

import asyncio
import datetime
import os
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
import grpc.aio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.conformance import independent as wire
from tests.conformance import independent_trust as trust
from tests.conformance.independent import Refused, need

METHOD: Final = "/meshagent.wire.v1.Link/Exchange"
INSTANCE: Final = "meshagent-instance"
OPTIONS: Final = [("grpc.max_receive_message_length", 262_144), ("grpc.max_send_message_length", 262_144)]
GOODBYE: Final = b"\x78\x01"
EVERYBODY: Final = bytes(32)
TTL_MS: Final = 10_000
WINDOW: Final = 2

Heard = dict[str, Any]


def now_ms() -> int:
    return int(datetime.datetime.now(datetime.UTC).timestamp() * 1000)


class IndependentPeer:
    """One device that shares no code with meshagent."""

    def __init__(self, seed: bytes, credential: bytes, roots: list[bytes], *, boot_counter: int = 1) -> None:
        self.key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self.key.public_key().public_bytes_raw()
        self.id = wire.base32(self.public)
        self.credential = credential
        self.roots = trust.Roots(roots)
        self._roots_pem = b"".join(trust.der_to_pem(root) for root in roots[-2:])
        self.boot = boot_counter.to_bytes(8, "big") + os.urandom(8)
        self._batch = 0
        self._hlc = 0
        self._seqs: dict[bytes, int] = {}
        self.far = b""
        """The key at the other end of the link."""
        self.far_boot = b""
        self._channel: grpc.aio.Channel | None = None
        self._server: grpc.aio.Server | None = None
        self._arrived: asyncio.Future[None]
        self._ended = asyncio.Event()
        self._read: Callable[[], Awaitable[Any]]
        self._write: Callable[[bytes], Awaitable[None]]

    # ---- 5: the link

    async def dial(self, port: int, peer: str) -> None:
        """Link with `peer`, which listens on this machine."""
        chain, key = trust.issue_leaf(self.key, self.credential)
        credentials = grpc.ssl_channel_credentials(self._roots_pem, key, chain)
        options = [*OPTIONS, ("grpc.ssl_target_name_override", f"{peer}.mesh")]
        self._channel = grpc.aio.secure_channel(f"ipv4:127.0.0.1:{port}", credentials, options=options)
        call: Any = self._channel.stream_stream(METHOD)(metadata=((INSTANCE, os.urandom(8).hex()),))
        answer = await call.initial_metadata()
        need(INSTANCE in dict(answer), "the server names its instance")
        self._opened(wire.key_of(peer), call.read, call.write)

    async def listen(self) -> int:
        """Serve on a free port of this machine; `accepted` waits for whoever dials."""
        chain, key = trust.issue_leaf(self.key, self.credential)
        credentials = grpc.ssl_server_credentials([(key, chain)], self._roots_pem, require_client_auth=True)
        self._arrived = asyncio.get_running_loop().create_future()
        self._server = grpc.aio.server(options=OPTIONS)
        self._server.add_generic_rpc_handlers((_Handler(self._serve),))
        port = self._server.add_secure_port("127.0.0.1:0", credentials)
        await self._server.start()
        return port

    async def accepted(self) -> None:
        await self._arrived

    async def _serve(self, _requests: object, context: Any) -> None:
        auth = context.auth_context()
        leaf = trust.pem_to_ders(auth["x509_pem_cert"][0])[0]
        others = [der for der in trust.pem_to_ders(auth["x509_pem_cert_chain"][0]) if der != leaf]
        device = trust.verify_chain([leaf, *others], self.roots, now_ms() / 1000)
        await context.send_initial_metadata(((INSTANCE, os.urandom(8).hex()),))
        self._opened(device.key, context.read, context.write)
        self._arrived.set_result(None)
        await self._ended.wait()

    def _opened(
        self, far: bytes, read: Callable[[], Awaitable[Any]], write: Callable[[bytes], Awaitable[None]]
    ) -> None:
        self.far, self._read, self._write = far, read, write
        self.far_boot = b""
        self._nonce, self._seen = os.urandom(16), set[tuple[bytes, int]]()
        self._sent = self._acked = self._received = 0
        self._queue: list[tuple[str, Heard]] = []
        self._offset_ms = 0

    async def close(self) -> None:
        """Say goodbye and end."""
        self._ended.set()
        if self._channel is not None:
            await self._channel.close()
        if self._server is not None:
            await self._server.stop(0.2)

    async def goodbye(self) -> None:
        await self._write(GOODBYE)

    # ---- 6: the Hello

    async def greet(self) -> None:
        """Return when both sides have answered each other's nonce."""
        await self._say_hello(bytes(16))
        answered = False
        while not self.far_boot or not answered:
            frame = await self._frame()
            need(frame.hello and not frame.batches and frame.seq == 0, "a Hello comes first")
            hello = self._judge(frame.hello)
            if not answered:
                answered = True
                await self._say_hello(hello["nonce"])
            if hello["echo"] == self._nonce:
                self.far_boot = hello["boot"]
                self._offset_ms = now_ms() - (hello["hlc"] >> 16)

    def _judge(self, hello: bytes) -> dict[str, Any]:
        return trust.Greeting(
            own=self.public,
            peer=self.far,
            fleet=self.roots.fleet,
            roots=self.roots,
            now_s=now_ms() / 1000,
            own_boot=self.boot,
            own_nonce=self._nonce,
        ).judge(hello)

    async def _say_hello(self, echo: bytes) -> None:
        hello = trust.write_hello(
            self.key,
            self.credential,
            fleet=self.roots.fleet,
            sender=self.public,
            to=self.far,
            boot=self.boot,
            nonce=self._nonce,
            echo=echo,
            hlc=self._stamp(),
            version_min=1,
            version_max=1,
            known_boot=bytes(16),
            known_generation=0,
            next_direct=1,
            next_broadcast=1,
        )
        await self._write(wire.write_frame(wire.Frame(0, 0, hello, False, [])))

    def _stamp(self) -> int:
        self._hlc = max(self._hlc + 1, now_ms() << 16)
        return self._hlc

    # ---- 7, 8: frames and envelopes

    async def say(self, name: str, /, *, to_all: bool = False, **fields: Any) -> None:
        await self.say_all((name, fields), to_all=to_all)

    async def say_all(self, *messages: tuple[str, Heard], to_all: bool = False) -> None:
        """One frame, one batch, one signature."""
        to = EVERYBODY if to_all else self.far
        sealed = []
        for name, fields in messages:
            self._seqs[to] = self._seqs.get(to, 0) + 1
            payload = wire.write_message(name, **fields)
            sealed.append((to, self._seqs[to], wire.NUMBER_OF[name], TTL_MS, payload))
        self._batch += 1
        salts = [os.urandom(16) for _ in sealed]
        batch = wire.seal(self.key, self.roots.fleet, self.boot, self._batch, self._stamp(), sealed, salts)
        if not to_all:
            for leaf in batch[1]:
                leaf.to = b""
        await self.send_sealed(batch)

    async def send_sealed(self, batch: tuple[bytes, list[wire.Leaf]]) -> None:
        """A batch as it is, genuine or not, when the window allows."""
        while self._sent - self._acked >= WINDOW:
            await self._pump()
        self._sent += 1
        full = self._sent - self._acked >= WINDOW
        await self._write(wire.write_frame(wire.Frame(self._sent, self._received, b"", full, [batch])))

    async def hear(self, name: str) -> Heard:
        """The next message of that name; what comes before it stays for later."""
        while True:
            for at, (heard, fields) in enumerate(self._queue):
                if heard == name:
                    del self._queue[at]
                    return fields
            await self._pump()

    def waiting(self) -> list[str]:
        return [name for name, _ in self._queue]

    async def _frame(self) -> wire.Frame:
        data = await self._read()
        if not isinstance(data, bytes):
            raise Refused("the stream has ended")
        if data in (b"\x78\x01", b"\x78\x02", b"\x78\x03"):
            raise Refused(f"bye {data[1]}")
        return wire.read_frame(data)

    async def _pump(self) -> None:
        frame = await self._frame()
        need(frame.ack <= self._sent, "acknowledges what was never sent")
        self._acked = max(self._acked, frame.ack)
        for proof, leaves in frame.batches:
            for leaf in leaves:
                self._admit(proof, leaf)
        if frame.seq:
            self._received = max(self._received, frame.seq)
            await self._write(wire.write_frame(wire.Frame(0, self._received, b"", False, [])))

    def _admit(self, proof: bytes, leaf: wire.Leaf) -> None:
        """9, as far as a peer of one link needs it; here a failure is a failure of the test."""
        need(proof[:48] == self.far + self.far_boot, "another sender or boot")
        to = leaf.to or self.public
        need(to in (self.public, EVERYBODY), "not for us")
        seq, kind, ttl_ms, hlc = wire.check_message(self.roots.fleet, self.public, proof, leaf)
        need((to, seq) not in self._seen, "said twice")
        self._seen.add((to, seq))
        age_ms = now_ms() - (hlc >> 16) - self._offset_ms
        need(-7000 <= age_ms <= ttl_ms + 5000, "too old, or from the future")
        self._queue.append(wire.decode(kind, leaf.payload))


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, serve: Callable[[Any, Any], Awaitable[None]]) -> None:
        self._method: Any = grpc.stream_stream_rpc_method_handler(serve)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._method if handler_call_details.method == METHOD else None
