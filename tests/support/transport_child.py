"""A transport in a process of its own: told what to do by one JSON line on stdin, tells what happens as JSON lines.

It echoes every frame, closes gracefully at the end of stdin, and can be killed, stopped or put into a network
namespace by whoever started it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from pathlib import Path
from random import Random
from time import time as wall_s  # noqa: TID251  # TLS compares with the real clock too
from types import TracebackType
from typing import Any, Self

from meshagent.core.ports import HintSource, Link, LinkClosed, PeerHint
from meshagent.identity.book import CredentialBook
from meshagent.identity.certificates import read_credential
from meshagent.identity.device import DeviceIdentity
from meshagent.identity.keys import DeviceKey
from meshagent.identity.trust import Trust
from meshagent.transport.config import TransportConfig
from meshagent.transport.mesh import GrpcTransport
from meshagent.types import NodeId

ROOT = Path(__file__).resolve().parents[2]


class _Teller:
    """`LinkEvents` that print and echo."""

    def __init__(self) -> None:
        self._frames = 0

    def link_opened(self, link: Link) -> None:
        tell(event="opened", peer=link.peer, address=link.address)

    def frame_received(self, link: Link, frame: bytes) -> None:
        link.send(frame)

    def link_closed(self, link: Link, why: LinkClosed) -> None:
        tell(event="closed", peer=link.peer, why=str(why))

    def peer_unreachable(self, peer: NodeId, why: LinkClosed, detail: str) -> None:
        tell(event="unreachable", peer=peer, why=str(why), detail=detail)

    def own_identity_proved(self, address: str) -> None:
        tell(event="twin", address=address)


def tell(**fields: object) -> None:
    """Print one line for the parent."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


async def main() -> None:
    """Run until stdin ends; the lines after the first are hints, or the word `status`."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    told = json.loads(await reader.readline())
    trust = Trust([base64.b64decode(told["root"])])
    credential = read_credential(base64.b64decode(told["credential"]), trust, now_s=wall_s())
    identity = DeviceIdentity(DeviceKey(base64.b64decode(told["seed"])), credential, trust)
    settings: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in told["config"].items()}
    transport = GrpcTransport(identity, CredentialBook(trust), TransportConfig(**settings), Random(7), wall_s=wall_s)
    try:
        await transport.start(_Teller())
        tell(event="ready", port=transport.listen_port)
        while line := await reader.readline():
            order = json.loads(line)
            if "host" in order:
                transport.add_hint(PeerHint(host=order["host"], port=order["port"], source=HintSource.STATIC))
            else:
                status = transport.mdns_status()
                attempts = [[a.address, str(a.outcome), a.sentence] for a in transport.attempts()]
                tell(event="status", heard=status.peers_heard if status else None, attempts=attempts)
    finally:
        await transport.close()
    tell(event="ended")


class Child:
    """The parent's side of one such process."""

    def __init__(self, process: asyncio.subprocess.Process, node_id: NodeId) -> None:
        self.process = process
        self.id = node_id
        self.port = 0
        self.events: list[dict[str, Any]] = []

    @classmethod
    async def start(cls, identity: DeviceIdentity, *, prefix: tuple[str, ...] = (), **config: Any) -> Child:
        """Spawn it (`prefix` such as `ip netns exec NAME`) and wait until it listens."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *prefix, sys.executable, "-m", "tests.support.transport_child", stdin=pipe, stdout=pipe, cwd=ROOT
        )
        child = cls(process, identity.node_id)
        child.order(
            root=base64.b64encode(identity.trust.roots[0]).decode(),
            credential=base64.b64encode(identity.credential.der).decode(),
            seed=base64.b64encode(identity.key._seed).decode(),
            config={"port": 0, "interfaces": ["lo"], "mdns": False} | config,
        )
        child.port = (await child.until("ready"))["port"]
        return child

    def order(self, **fields: object) -> None:
        """Send one line."""
        assert self.process.stdin is not None
        self.process.stdin.write((json.dumps(fields) + "\n").encode())

    async def until(self, event: str, *, within_s: float = 15.0) -> dict[str, Any]:
        """The next event of that kind."""
        assert self.process.stdout is not None
        async with asyncio.timeout(within_s):
            while True:
                line = await self.process.stdout.readline()
                if not line:
                    raise AssertionError(f"the child ended without {event}; it told {self.events}")
                told: dict[str, Any] = json.loads(line)
                self.events.append(told)
                if told["event"] == event:
                    return told

    async def leave(self) -> None:
        """Let it close gracefully."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        await self.until("ended")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


if __name__ == "__main__":
    asyncio.run(main())
