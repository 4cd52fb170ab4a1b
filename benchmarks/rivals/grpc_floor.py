"""The floor: a plaintext grpc.aio stream a pair, a frame a message, unsigned; --sign: PyNaCl on each message."""

from __future__ import annotations

import asyncio
import multiprocessing
import struct
from collections.abc import AsyncIterator, Callable
from multiprocessing.connection import Connection
from typing import Any

import grpc
import grpc.aio
from nacl.signing import SigningKey, VerifyKey

from benchmarks.rivals.rounds import PAYLOAD, Rounds, arguments, cpu_s, report, rounds_in_all

METHOD = "/bench.Floor/Exchange"
HEAD = struct.Struct(">cI")
SEED = bytes(32)
"""One key for all: what is measured is the work of signing and verifying, not the key handling."""


def codec(sign: bool) -> tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]:
    if not sign:
        return (lambda message: message), (lambda message: message)
    key = SigningKey(SEED)
    verify: VerifyKey = key.verify_key
    return (lambda message: bytes(key.sign(message))), (lambda message: bytes(verify.verify(message)))


def use_uvloop() -> Callable[[Any], Any]:
    try:
        import uvloop
    except ImportError:
        return asyncio.run
    return uvloop.run


class Service(grpc.GenericRpcHandler):
    def __init__(self, behaviour: Any) -> None:
        self._handler: Any = grpc.stream_stream_rpc_method_handler(behaviour)

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return self._handler if details.method == METHOD else None


def participant(pipe: Connection, sign: bool) -> None:
    async def serve() -> None:
        seal, open_ = codec(sign)

        async def exchange(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            async for request in requests:
                tag, number = HEAD.unpack_from(open_(request))
                yield seal(HEAD.pack(b"P" if tag == b"C" else b"D", number) + PAYLOAD)

        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers((Service(exchange),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        pipe.send(port)
        await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
        await server.stop(None)

    use_uvloop()(serve())


async def initiate(ports: list[int], in_flight: int, total: int, sign: bool) -> dict[str, float | int]:
    seal, open_ = codec(sign)
    finished = asyncio.Event()
    outgoing: list[asyncio.Queue[bytes]] = [asyncio.Queue() for _ in ports]

    def call(number: int) -> None:
        for queue in outgoing:
            queue.put_nowait(seal(HEAD.pack(b"C", number) + PAYLOAD))

    rounds = Rounds(len(ports), in_flight, total, call)

    async def talk(index: int, port: int) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stream: Any = channel.stream_stream(METHOD)()

            async def write() -> None:
                while True:
                    await stream.write(await outgoing[index].get())

            writer = asyncio.create_task(write())
            try:
                while (message := await stream.read()) is not grpc.aio.EOF:
                    tag, number = HEAD.unpack_from(open_(message))
                    if tag == b"P":
                        if rounds.proposed(number):
                            outgoing[number % len(ports)].put_nowait(seal(HEAD.pack(b"A", number) + PAYLOAD))
                    elif rounds.done(number):
                        finished.set()
            finally:
                writer.cancel()

    talks = [asyncio.create_task(talk(index, port)) for index, port in enumerate(ports)]
    rounds.start()
    await finished.wait()
    row = rounds.row()
    for task in talks:
        task.cancel()
    await asyncio.gather(*talks, return_exceptions=True)
    return row


def main() -> None:
    options = arguments(__doc__)
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for _ in range(options.participants):
        ours, theirs = context.Pipe()
        process = context.Process(target=participant, args=(theirs, options.sign), daemon=True)
        process.start()
        pipes.append(ours)
        processes.append(process)
    ports = [pipe.recv() for pipe in pipes]
    before_s = cpu_s()
    row = use_uvloop()(initiate(ports, options.in_flight, options.rounds, options.sign))
    row["cpu_ms_a_round"] = round(1000 * (cpu_s() - before_s) / rounds_in_all(options.rounds), 2)
    report(row)
    for pipe in pipes:
        pipe.send("stop")
    for process in processes:
        process.join(5)


if __name__ == "__main__":
    main()
