"""Knocks, dials and tries again: one pursuit a peer, in parallel over its addresses, at most eight at once.

What an established stream becomes is decided by mesh.py; addresses whose owner is unknown are asked by seeds.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Protocol

import grpc
import grpc.aio

from meshagent.core.ports import HintSource, LinkClosed
from meshagent.errors import IdentityError
from meshagent.transport.attempts import DialAttempt, DialOutcome
from meshagent.transport.config import PARALLEL_DIALS, TransportConfig
from meshagent.transport.interfaces import grpc_target
from meshagent.transport.knock import Knock, knock, resolve
from meshagent.transport.links import StreamBroken, StreamLink
from meshagent.transport.nursery import Nursery
from meshagent.transport.peers import Address, PeerState
from meshagent.transport.tls import LeafKeeper, channel_options
from meshagent.types import NodeId

log = logging.getLogger(__name__)

METHOD: Final = "/meshagent.wire.v1.Link/Exchange"
DYING_S: Final = 0.03
"""How long the kernel takes to close what a killed process held: milliseconds, more under load."""
META_INSTANCE: Final = "meshagent-instance"
"""Random name of a process: tells a restarted peer from the one that a link belongs to."""
META_PORT: Final = "meshagent-port"
"""Where the dialler listens itself, so that it can be dialled back."""

Stream = grpc.aio.StreamStreamCall[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Dialled:
    """A stream that the peer accepted."""

    address: Address
    ip: str
    instance: str
    channel: grpc.aio.Channel
    call: Stream


class DialFailedError(Exception):
    """One dial came to nothing; caught in this package."""

    def __init__(self, outcome: DialOutcome, detail: str, instance: str = "") -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.detail = detail
        self.instance = instance
        """Which process refused, where it said so."""


class DiallerOwner(Protocol):
    """What the dialler needs of `mesh.GrpcTransport`."""

    @property
    def node_id(self) -> NodeId: ...

    def dialled(self, state: PeerState, stream: Dialled) -> bool:
        """Make it the link; False where another stays."""

    def unreachable(self, state: PeerState, why: LinkClosed, detail: str) -> None:
        """A lost peer does not come back, as far as dialling can tell."""

    async def barred(self, peer: NodeId, address: Address, ip: str) -> bool:
        """Is `peer` revoked, and does the device at `address` not show a newer credential?"""

    async def explain(self, address: Address, ip: str, peer: NodeId, failed: DialFailedError) -> DialAttempt:
        """Find the likely cause and remember it."""


class Dialler:
    """The pursuits of all known peers."""

    def __init__(
        self,
        owner: DiallerOwner,
        config: TransportConfig,
        leaves: LeafKeeper,
        nursery: Nursery,
        metadata: Callable[[], tuple[tuple[str, str], ...]],
    ) -> None:
        self._owner = owner
        self._config = config
        self._leaves = leaves
        self._nursery = nursery
        self._metadata = metadata
        self.slots = asyncio.Semaphore(PARALLEL_DIALS)
        """For addresses that people typed, that were links before, or that the journal remembers; seeds share it."""
        self._hearsay = asyncio.Semaphore(PARALLEL_DIALS)
        """For all others: a flood of forged mDNS records queues here and delays nobody who is known."""

    def pursue(self, state: PeerState) -> None:
        """See to it that a pursuit of this peer runs."""
        state.wake.set()
        if state.task is None or state.task.done():
            state.task = self._nursery.start(self._pursue(state), f"pursue {state.peer[:8]}")

    async def _pursue(self, state: PeerState) -> None:
        loop = asyncio.get_running_loop()
        while not state.forgotten:
            state.wake.clear()
            due_s = self._due_s(state)
            wait_s = due_s - loop.time()
            if wait_s > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if due_s == float("inf") else wait_s):
                        await state.wake.wait()
                continue
            before_s = state.not_before_s
            made = await self._dial(state)
            # a link that is there is no success yet (it must live), and a peer that says "we are linked" may lie
            if made and state.link is not None and not self._renewing(state):
                continue
            if state.not_before_s == before_s:  # else the dial itself said when to go on
                state.adjust_backoff(self._config)
                state.not_before_s = loop.time() + state.backoff.next_s()

    def _due_s(self, state: PeerState) -> float:
        """When this peer is to be dialled, by the loop's clock."""
        if not state.addresses:
            return float("inf")
        if state.link is not None:
            return max(state.renew_at_s, state.not_before_s)
        return max(state.not_before_s, state.refused_until_s)

    async def _dial(self, state: PeerState) -> bool:
        """Knock at all addresses at once and dial those that answer until one is a link; True where one exists."""
        async with self._slot(state):
            state.dialling = True
            try:
                return await self._race(state)
            finally:
                state.dialling = False
                state.touch()

    def _slot(self, state: PeerState) -> AbstractAsyncContextManager[None]:
        if state.loss is not None:
            return contextlib.nullcontext()  # an examination must not queue behind dead addresses
        known = any(a.proven or a.source in (HintSource.STATIC, HintSource.REMEMBERED) for a in state.addresses)
        return self.slots if known else self._hearsay

    async def _race(self, state: PeerState) -> bool:
        loop = asyncio.get_running_loop()
        pending: dict[asyncio.Task[list[tuple[str, Knock]]], Address] = {}
        for address in state.candidates():
            pending[loop.create_task(self._knock(address))] = address
        failures: list[DialAttempt] = []
        try:
            while pending:
                done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in sorted(done, key=lambda task: not pending[task].proven):
                    address = pending.pop(task)
                    for ip, answer in task.result():
                        if state.link is not None and not self._renewing(state):
                            return True
                        if answer.outcome is None and self._yields_after_loss(state):
                            return False
                        failure = await self._try(state, address, ip, answer)
                        if failure is None:
                            return True
                        failures.append(failure)
                        self._judge_loss(state, address, failure)
        finally:
            for task in pending:
                task.cancel()
        self._judge_all(state, failures)
        return False

    def _renewing(self, state: PeerState) -> bool:
        return asyncio.get_running_loop().time() >= state.renew_at_s

    async def _knock(self, address: Address) -> list[tuple[str, Knock]]:
        ips = await resolve(address.host, timeout_s=self._config.knock_timeout_s)
        if not ips:
            return [(address.host, Knock(DialOutcome.UNRESOLVED, "the name has no address"))]
        knocks = [knock(ip, address.port, timeout_s=self._config.knock_timeout_s) for ip in ips]
        return list(zip(ips, await asyncio.gather(*knocks), strict=True))

    def _yields_after_loss(self, state: PeerState) -> bool:
        """After a loss with the peer's kernel still answering, the smaller id dials first.

        A process that was killed loses its sockets one by one: the listening one may answer for a moment after the
        link broke. So the larger id knocks once more soon before it leaves the smaller one its turn.
        """
        loss = state.loss
        if loss is None or loss.answered > 1 or self._owner.node_id < state.peer:
            return False
        pause_s = self._config.yield_s if loss.answered else min(DYING_S, self._config.yield_s)
        loss.answered += 1
        state.not_before_s = asyncio.get_running_loop().time() + pause_s
        return True

    async def _try(self, state: PeerState, address: Address, ip: str, answer: Knock) -> DialAttempt | None:
        """Dial one address that was knocked at; None: it is the link now, or another one is."""
        try:
            if answer.outcome is not None:
                raise DialFailedError(answer.outcome, answer.detail)
            if await self._owner.barred(state.peer, address, ip):
                raise DialFailedError(DialOutcome.REVOKED, "revoked")
            stream = await self.open(state.peer, address, ip)
        except DialFailedError as failed:
            if failed.outcome is DialOutcome.ALREADY_LINKED:
                return None
            if failed.outcome in (DialOutcome.REFUSED_US, DialOutcome.REVOKED):
                pause_s = self._config.refused_pause_s
                state.refused_until_s = asyncio.get_running_loop().time() + pause_s
            return await self._owner.explain(address, ip, state.peer, failed)
        if not self._owner.dialled(state, stream):
            await stream.channel.close()
        return None

    async def open(self, peer: NodeId, address: Address, ip: str) -> Dialled:
        """One dial: TCP, TLS with proof of `peer`, and the peer's yes.

        Raises:
            DialFailedError: otherwise.
        """
        try:
            credentials = self._leaves.channel_credentials()
        except IdentityError as error:
            raise DialFailedError(DialOutcome.OUR_CREDENTIAL, str(error)) from None
        channel = grpc.aio.secure_channel(
            grpc_target(ip, address.port),
            credentials,
            options=channel_options(self._config, peer),
        )
        try:
            call: Stream = channel.stream_stream(METHOD)(metadata=self._metadata())
            async with asyncio.timeout(self._config.dial_timeout_s):
                answer = await call.initial_metadata()
                instance = answer.get(META_INSTANCE) if answer is not None else None
                if isinstance(instance, str):
                    return Dialled(address, ip, instance[:64], channel, call)
                code, detail = await call.code(), await call.details() or ""
                refuser = dict(await call.trailing_metadata() or ()).get(META_INSTANCE, "")
        except TimeoutError:
            await channel.close()
            raise DialFailedError(
                DialOutcome.SILENT,
                f"it accepts connections and then says nothing for {self._config.dial_timeout_s:g} s",
            ) from None
        except BaseException:
            await channel.close()
            raise
        await channel.close()
        raise DialFailedError(
            _OUTCOME_OF_STATUS.get(code, DialOutcome.FAILED), f"{code.name}: {detail}", str(refuser)[:64]
        )

    def _judge_loss(self, state: PeerState, address: Address, failure: DialAttempt) -> None:
        loss = state.loss
        if loss is None or loss.told or failure.outcome is DialOutcome.SILENT:
            return
        if (address.host, address.port) == loss.address:
            # the very place where it listened: no other address can be better evidence
            self._tell(state, failure)

    def _judge_all(self, state: PeerState, failures: list[DialAttempt]) -> None:
        loss = state.loss
        if loss is None or loss.told or not failures:
            return
        if all(failure.outcome is not DialOutcome.SILENT for failure in failures):
            self._tell(state, failures[-1])

    def _tell(self, state: PeerState, failure: DialAttempt) -> None:
        if state.loss is not None:
            state.loss.told = True
            state.loss.timer.cancel()
        self._owner.unreachable(state, LinkClosed.RESET, failure.sentence)


_OUTCOME_OF_STATUS: Final = {
    grpc.StatusCode.PERMISSION_DENIED: DialOutcome.REFUSED_US,
    grpc.StatusCode.UNAUTHENTICATED: DialOutcome.REFUSED_US,
    grpc.StatusCode.ALREADY_EXISTS: DialOutcome.ALREADY_LINKED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: DialOutcome.BUSY,
}


STREAM_ERRORS: Final = (grpc.RpcError, grpc.aio.BaseError, asyncio.InvalidStateError)
"""What gRPC raises from a stream that is gone, depending on who noticed first."""


async def run_dialled(link: StreamLink, stream: Dialled, close_timeout_s: float) -> None:
    """Carry the frames of a link that we dialled, until it ends; then tear its connection down."""
    call = stream.call

    async def read() -> bytes | None:
        try:
            frame = await call.read()
        except STREAM_ERRORS as error:
            raise _broken(error) from None
        return frame if isinstance(frame, bytes) else None

    async def write(frame: bytes) -> None:
        try:
            await call.write(frame)
        except STREAM_ERRORS as error:
            raise _broken(error) from None

    try:
        await link.run(read, write, close_timeout_s=close_timeout_s)
    finally:
        await stream.channel.close()


def _broken(error: Exception) -> StreamBroken:
    detail = str(error)
    if isinstance(error, grpc.aio.AioRpcError):
        detail = error.details() or error.code().name
    silent = "ping timeout" in detail or "keepalive" in detail.lower()
    return StreamBroken(LinkClosed.SILENT if silent else LinkClosed.RESET, detail[:200])
