"""`GrpcTransport`: one TLS server, the dialler, seeds and mDNS behind the `Transport` port.

It keeps at most one link a peer and tells the node of links, frames and losses, in order and never from within the
node's own call. What frames hold, and whether a peer that proved its name may say what it says, is not its business.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Mapping
from random import Random
from typing import TYPE_CHECKING, Final

import grpc

from meshagent.core.ports import HintSource, LinkClosed, LinkEvents, PeerHint
from meshagent.core.seldom import Seldom
from meshagent.errors import IdentityError
from meshagent.identity.buckets import Bucket
from meshagent.transport.attempts import Attempts, DialAttempt, DialOutcome, plain
from meshagent.transport.causes import Cause, cause_of_failure, cause_of_probe
from meshagent.transport.config import MAX_PEERS, TransportConfig
from meshagent.transport.dialler import META_INSTANCE, META_PORT, DialFailedError, Dialled, Dialler, run_dialled
from meshagent.transport.gossip import UdpDatagrams
from meshagent.transport.interfaces import chosen_interfaces, host_port, up_interfaces
from meshagent.transport.links import StreamLink
from meshagent.transport.notices import Notices
from meshagent.transport.nursery import Nursery
from meshagent.transport.peers import Address, Backoff, Loss, PeerState
from meshagent.transport.probe import PeerProbe, probe_identity
from meshagent.transport.seeds import Seeds
from meshagent.transport.server import Arrival, LinkServer, Refusal
from meshagent.transport.settle import Present, Verdict, settle_dialled, settle_incoming
from meshagent.transport.tls import LeafIssuer, LeafKeeper, PeerIdentifier, PeerVerifier
from meshagent.types import NodeId

if TYPE_CHECKING:
    from meshagent.transport.mdns import Mdns, MdnsStatus

log = logging.getLogger(__name__)

RENEW_SHARE: Final = (0.80, 0.95)
"""Where in the life of a link its dialler replaces it; spread, so that a fleet does not do so in step."""
ARRIVALS_A_S: Final = 2.0
ARRIVALS_BURST: Final = 32
"""Links that one device may open with us: visitors of a shell loop come so often, and a storm of links stays cheap
(each costs its Hello, two signature checks, and a profile)."""
MAX_TWINS: Final = 8
TWIN_TRIES: Final = 3
"""Addresses at which our own identity may be looked for at once, and how often in vain: forged records cost a handshake
each, on our own networks."""
HINT_PAUSE_S: Final = 1.0
"""Hearsay about a peer brings its next dial forward at most so often: new addresses are cheap to forge."""


class GrpcTransport:
    """The real `Transport` of core/ports.py."""

    def __init__(
        self,
        identity: LeafIssuer,
        book: PeerVerifier,
        config: TransportConfig,
        rng: Random,
        *,
        wall_s: Callable[[], float],
    ) -> None:
        """Prepare; nothing is bound before `start`.

        Args:
            identity: this device, which issues its own leaves.
            book: whom the fleet knows; judges every chain.
            config: ports and durations.
            rng: jitter of pauses and renewals.
            wall_s: seconds since 1970, for certificates and for dates that people read.
        """
        self._identity = identity
        self._book = book
        self._config = config
        self._rng = rng
        self._wall_s = wall_s
        # a robot that wakes in 1970 still makes leaves of the time that its own credential proves
        self._leaves = LeafKeeper(identity, lambda: book.time_s(wall_s()))
        self._instance = secrets.token_hex(8)
        self._server = LinkServer(self, config, self._leaves, PeerIdentifier(book, wall_s), self._instance)
        self._nursery = Nursery()
        self._dialler = Dialler(self, config, self._leaves, self._nursery, self._metadata)
        self._seeds = Seeds(self, config, self._dialler, self._nursery)
        self._attempts = Attempts()
        self._seldom = Seldom()
        self._twins: dict[tuple[str, int], int] = {}
        """Where our own identity is said to be, and how often in a row nobody proved it there."""
        self._peers: dict[NodeId, PeerState] = {}
        self._forgotten: dict[NodeId, int] = {}
        self._links: set[StreamLink] = set()
        self._early_hints: list[PeerHint] = []
        self._notices: Notices | None = None
        """Set when started."""
        self._started = False
        self._closing = False
        self._idle: asyncio.Future[None] | None = None
        self._udp = UdpDatagrams(config.interfaces)
        self.udp_error: str | None = None
        """Why datagrams are off: links carry membership alone."""
        self._mdns: Mdns | None = None
        self.mdns_error: str | None = None
        """Why mDNS is off although it was asked for."""

    @property
    def listen_port(self) -> int:
        """The TCP port in use, once started."""
        return self._server.port

    @property
    def refusals(self) -> Mapping[str, int]:
        """Streams refused on our server, by reason; the reasons are ours, never the network's."""
        return self._server.refusals

    @property
    def node_id(self) -> NodeId:
        """This device."""
        return self._identity.node_id

    # -- what the node calls -----------------------------------------------------------------------------------------

    async def start(self, events: LinkEvents) -> None:
        """Bind, serve, announce; returns when the socket is bound.

        Raises:
            TransportError: the port is taken or an interface is missing; says the next step.
        """
        self._notices = Notices(events)
        await self._server.start(chosen_interfaces(self._config.interfaces))
        try:
            await self._udp.start(self.listen_port)
        except OSError as error:
            log.warning("UDP port %d cannot be had (%s): links carry membership alone", self.listen_port, error)
            self.udp_error = str(error)
        self._started = True
        early, self._early_hints = self._early_hints, []
        for hint in early:
            self.add_hint(hint)
        if self._config.mdns:
            await self._start_mdns()

    async def _start_mdns(self) -> None:
        from meshagent.transport.mdns import Mdns  # 4 MiB that a node without mDNS need not carry

        mdns = Mdns(
            node_id=self.node_id,
            fleet_id=self._identity.trust.fleet_id,
            interfaces=self._config.interfaces,
            browse_s=self._browse_s,
            rescan_s=self._config.rescan_s,
            rng=self._rng,
            found=self._heard,
            lost=self._unheard,
            twin=self.suspect_twin,
        )
        try:
            await mdns.start(self.listen_port)
        except OSError as error:
            # the port is bound and seeds work: a node without multicast is poorer, not useless
            log.warning("mDNS is off: %s. Peers are found by --peer and by memory only", error)
            self.mdns_error = str(error)
            return
        self._mdns = mdns
        self._nursery.start(mdns.run(), "mDNS")

    def _browse_s(self) -> float:
        linked = sum(state.link is not None for state in self._peers.values())
        # one of the linked asks for all: members tell each other whom they know, so the mesh as a whole asks once an
        # interval, however large it is
        return self._config.browse_linked_s * linked if linked else self._config.browse_lonely_s

    def _heard(self, peer: NodeId, ip: str, port: int) -> None:
        self.found(peer, ip, port, HintSource.MDNS)

    def _unheard(self, peer: NodeId) -> None:
        state = self._peers.get(peer)
        if state is not None:
            state.drop_hints(HintSource.MDNS)
            state.adjust_backoff(self._config)

    def add_hint(self, hint: PeerHint) -> None:
        """Dial there, and again with jittered backoff while no link exists; hints before `start` wait for it."""
        if self._closing:
            return
        if not 0 < hint.port < 65536 or not hint.host:
            log.warning("ignored the address %s: no port between 1 and 65535", plain(host_port(hint.host, hint.port)))
            return
        if not self._started:
            if len(self._early_hints) < MAX_PEERS:
                self._early_hints.append(hint)
        elif hint.peer is None:
            self._seeds.add(hint)
        else:
            self.found(hint.peer, hint.host, hint.port, hint.source)

    def forget(self, peer: NodeId) -> None:
        """Close the link to `peer`, dial and accept it no more."""
        known = self._book.find(peer)
        # a device that is admitted anew shows a higher generation and is a peer again
        self._forgotten[peer] = known.generation if known is not None else 0
        state = self._peers.pop(peer, None)
        if state is None:
            return
        state.forgotten = True
        state.settle_loss()
        if state.task is not None:
            state.task.cancel()
        if state.link is not None:
            state.link.end(LinkClosed.REFUSED, "forgotten by this node")
        state.touch()

    def datagrams(self) -> UdpDatagrams:
        """UDP on the port number of the links."""
        return self._udp

    def attempts(self) -> list[DialAttempt]:
        """What became of every address that was tried, for doctor."""
        return self._attempts.all()

    def mdns_status(self) -> MdnsStatus | None:
        """What multicast has shown so far; None where mDNS is off."""
        return self._mdns.status() if self._mdns is not None else None

    def rotate_leaf(self) -> None:
        """Show a new TLS leaf from now on; links stay. It happens by itself when the leaf grows old."""
        self._leaves.rotate()

    async def close(self) -> None:
        """Say goodbye on every link and end; bounded by a few `close_timeout_s`."""
        if self._closing:
            return
        self._closing = True
        timeout_s = self._config.close_timeout_s
        self._server.stop_serving()
        for state in self._peers.values():
            state.settle_loss()
            if state.task is not None:
                state.task.cancel()
        for link in list(self._links):
            link.end(LinkClosed.GOODBYE, "this node leaves")
        await self._links_gone(2 * timeout_s)
        self._udp.close()
        farewell = [self._server.stop(timeout_s)]
        if self._mdns is not None:
            farewell.append(self._mdns.close(1.0 + timeout_s))
        await asyncio.gather(*farewell)
        await self._nursery.close(timeout_s)
        if self._notices is not None:
            self._notices.deliver()

    async def _links_gone(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._links:
                    self._idle = asyncio.get_running_loop().create_future()
                    await self._idle

    # -- hints and dials ---------------------------------------------------------------------------------------------

    def found(self, peer: NodeId, ip: str, port: int, source: HintSource) -> PeerState | None:
        """Pursue `peer` at an address; None where it is not wanted or there is no room."""
        if self._closing or peer == self.node_id or peer in self._forgotten:
            return None
        state = self._state(peer)
        if state is None:
            return None
        new = state.add_address(ip, port, source)
        state.adjust_backoff(self._config)
        if new and state.link is None:
            self._bring_forward(state, source)
        self._dialler.pursue(state)
        return state

    def _bring_forward(self, state: PeerState, source: HintSource) -> None:
        now_s = asyncio.get_running_loop().time()
        if source is not HintSource.STATIC:
            if now_s < state.hearsay_until_s:
                return
            state.hearsay_until_s = now_s + HINT_PAUSE_S
        # the larger id lets the smaller one dial, unless a person said where to go
        yields = self.node_id > state.peer and source is not HintSource.STATIC
        due_s = now_s + (self._config.yield_s if yields else 0.0)
        fresh = state.task is None or state.task.done()
        state.not_before_s = due_s if fresh else min(state.not_before_s, due_s)
        state.backoff.reset()

    def _state(self, peer: NodeId) -> PeerState | None:
        state = self._peers.get(peer)
        if state is None:
            if len(self._peers) >= MAX_PEERS and not self._evict():
                return None
            state = self._peers[peer] = PeerState(peer, self.new_backoff(HintSource.REMEMBERED))
        return state

    def _evict(self) -> bool:
        """Make room by the peer that was never linked, then by any that is not linked now; the oldest first."""
        unlinked = [state for state in self._peers.values() if state.link is None and state.loss is None]
        if not unlinked:
            return False
        unlinked.sort(key=lambda state: any(a.proven or a.source is HintSource.STATIC for a in state.addresses))
        state = unlinked[0]
        del self._peers[state.peer]
        state.forgotten = True
        if state.task is not None:
            state.task.cancel()
        return True

    def new_backoff(self, source: HintSource) -> Backoff:
        """A backoff as slow as `source` deserves."""
        return Backoff(self._config.backoff_first_s, self._config.backoff_max_s[source], self._rng)

    def is_own_address(self, ip: str, port: int) -> bool:
        """Would a dial there reach this very process?"""
        if port != self.listen_port:
            return False
        own = {str(address.ip) for interface in up_interfaces() for address in interface.addresses}
        return ip.partition("%")[0] in own | {"127.0.0.1", "::1"}

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return ((META_INSTANCE, self._instance), (META_PORT, str(self.listen_port)))

    async def probe(self, ip: str, port: int) -> PeerProbe:
        """Ask who is there, with our leaf."""
        try:
            leaf = self._leaves.current()
        except IdentityError as error:
            return PeerProbe(host=ip, port=port, outcome=DialOutcome.OUR_CREDENTIAL, detail=str(error))
        return await probe_identity(
            ip, port, leaf=leaf, verifier=self._book, wall_s=self._wall_s(), timeout_s=self._config.dial_timeout_s
        )

    async def barred(self, peer: NodeId, address: Address, ip: str) -> bool:
        """Is `peer` revoked, and does the device at `address` not show a newer credential?

        gRPC's client sees the name only; the probe sees the certificate, and the book learns from it.
        """
        if self._book.revoked(peer) is None:
            return False
        probe = await self.probe(ip, address.port)
        return probe.credential is None or self._book.revoked(peer) is not None

    def remember(self, address: str, source: HintSource, probe: PeerProbe) -> DialAttempt:
        """Keep what came of asking a seed."""
        cause = cause_of_probe(address, probe, None, self._identity.credential, self._wall_s())
        peer = probe.credential.peer if probe.credential is not None else None
        fleet = probe.fleet if cause.outcome is DialOutcome.OTHER_FLEET else None
        return self._attempt(address, source, cause, peer, probe.detail, fleet)

    async def explain(self, address: Address, ip: str, peer: NodeId, failed: DialFailedError) -> DialAttempt:
        """Find the likely cause of a failed dial and remember it."""
        where, cause, fleet = str(address), cause_of_failure(str(address), failed.outcome, failed.detail), None
        if failed.outcome is DialOutcome.FAILED:
            probe = await self.probe(ip, address.port)
            if probe.outcome is not DialOutcome.LINKED or (probe.credential and probe.credential.peer != peer):
                cause = cause_of_probe(where, probe, peer, self._identity.credential, self._wall_s())
                fleet = probe.fleet if cause.outcome is DialOutcome.OTHER_FLEET else None
        return self._attempt(where, address.source, cause, peer, failed.detail, fleet)

    def _attempt(
        self, address: str, source: HintSource, cause: Cause, peer: NodeId | None, detail: str, fleet: str | None = None
    ) -> DialAttempt:
        attempt = self._attempts.add(
            DialAttempt(
                address=address,
                source=source,
                outcome=cause.outcome,
                sentence=plain(cause.sentence, 600),
                next_step=cause.next_step,
                peer=peer,
                fleet=fleet,
                at_wall_s=self._wall_s(),
                detail=plain(detail),
            )
        )
        if attempt.tries == 1:
            self._say(f"{address} {cause.outcome}", "%s", attempt.sentence)
        return attempt

    def _say(self, key: str, line: str, *facts: object) -> None:
        more = self._seldom.may(key, asyncio.get_running_loop().time())
        if more is not None:
            log.info("%s%s", line % facts, more)

    # -- streams -----------------------------------------------------------------------------------------------------

    def dialled(self, state: PeerState, stream: Dialled) -> bool:
        """A peer accepted our dial: make it the link; False where another stays."""
        if state.forgotten or self._closing:
            return False
        verdict = settle_dialled(self.node_id, state.peer, _present(state))
        if verdict is Verdict.DROP:
            return False
        address = stream.address
        address.proven = True
        link = self._new_link(state.peer, str(address), stream.instance, (address.host, address.port), dialled=True)
        low, high = RENEW_SHARE
        age_s = self._config.max_link_age_s * self._rng.uniform(low, high)
        self._adopt(state, link, asyncio.get_running_loop().time() + age_s)
        sentence = f"linked with {state.peer[:8]} at {address}."
        self._attempt(str(address), address.source, Cause(DialOutcome.LINKED, sentence), state.peer, "")
        self._nursery.start(self._run_dialled(link, stream), f"link to {state.peer[:8]}")
        return True

    async def _run_dialled(self, link: StreamLink, stream: Dialled) -> None:
        try:
            await run_dialled(link, stream, self._config.close_timeout_s)
        finally:
            self.gone(link)

    def admit(self, arrival: Arrival) -> PeerState | Refusal:
        """May this device have a link at all?"""
        peer, generation = arrival.credential.peer, arrival.credential.generation
        if peer == self.node_id:
            if arrival.instance != self._instance:
                self._duplicate_seen(arrival.address)
            return Refusal("own identity", grpc.StatusCode.FAILED_PRECONDITION, "this is your own identity")
        if self._closing:
            return Refusal("closing", grpc.StatusCode.UNAVAILABLE, "shutting down")
        if generation > self._forgotten.get(peer, generation):
            del self._forgotten[peer]
        if peer in self._forgotten:
            return Refusal("forgotten", grpc.StatusCode.PERMISSION_DENIED, "not accepted here")
        state = self._state(peer)
        if state is None:
            return Refusal("no room", grpc.StatusCode.RESOURCE_EXHAUSTED, "no room for another peer")
        now_s = asyncio.get_running_loop().time()
        if now_s < state.barred_until_s:
            return Refusal("refused before", grpc.StatusCode.PERMISSION_DENIED, "refused a moment ago")
        if state.arrivals is None:
            state.arrivals = Bucket(ARRIVALS_A_S, ARRIVALS_BURST, now_s)
        if not state.arrivals.take(1, now_s):
            return Refusal("too often", grpc.StatusCode.RESOURCE_EXHAUSTED, "too many links in a short time")
        return state

    # -- our own identity elsewhere ------------------------------------------------------------------------------------

    def suspect_twin(self, ip: str, port: int) -> None:
        """Something says that our own identity is at that address: go and see, again and again while it is.

        mDNS records are anybody's word, and a forwarder can hold up our own certificate to us. Proof is a process other
        than this one that answers, or dials, with our key: each tells its instance inside TLS.
        """
        if self._closing or not 0 < port < 65536 or self.is_own_address(ip, port):
            return
        if (ip, port) not in self._twins and len(self._twins) < MAX_TWINS:
            self._twins[ip, port] = 0
            if len(self._twins) == 1:
                self._nursery.start(self._meet_twins(), "own identity elsewhere")

    async def _meet_twins(self) -> None:
        while self._twins:
            for ip, port in list(self._twins):
                if await self._meet_twin(ip, port):
                    self._twins[ip, port] = 0
                    self._duplicate_seen(host_port(ip, port))
                    continue
                self._twins[ip, port] += 1
                if self._twins[ip, port] >= TWIN_TRIES:
                    del self._twins[ip, port]
            if self._twins:
                await asyncio.sleep(self._config.twin_again_s)

    async def _meet_twin(self, ip: str, port: int) -> bool:
        """Does another process prove our own identity there? Dialling shows it ours, so that it learns the same."""
        try:
            stream = await self._dialler.open(self.node_id, Address(ip, port, HintSource.MDNS), ip)
        except DialFailedError as failed:
            return failed.instance not in ("", self._instance)
        await stream.channel.close()
        return stream.instance != self._instance

    def _duplicate_seen(self, address: str) -> None:
        sentence = f"another device uses this device's identity: it proved that at {address}. Usually a copied disk."
        cause = Cause(DialOutcome.DUPLICATE_ID, sentence, "on the copy only: meshagent init --new-identity")
        self._attempt(address, HintSource.PEER, cause, self.node_id, "")
        if self._notices is not None:
            self._notices.own_identity(address)

    async def accept(self, state: PeerState, arrival: Arrival) -> StreamLink | None:
        """Make the stream the link of its peer, as soon as that is settled; None: not any more."""
        await self._settle(state, arrival.instance)
        if state.forgotten or self._closing:
            return None
        link = self._new_link(state.peer, arrival.address, arrival.instance, arrival.listens_at, dialled=False)
        if arrival.listens_at is not None:
            state.add_address(*arrival.listens_at, HintSource.PEER)
        self._adopt(state, link, float("inf"))
        return link

    async def _settle(self, state: PeerState, instance: str) -> None:
        """Return when the stream may become the link; a dialler that sees ours meanwhile hangs up and cancels this."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._config.hold_s
        while (left_s := deadline_s - loop.time()) > 0:
            verdict = settle_incoming(self.node_id, state.peer, instance, _present(state), state.dialling)
            if verdict is not Verdict.HOLD:
                return
            await state.change(left_s)

    def _new_link(
        self, peer: NodeId, address: str, instance: str, listens_at: tuple[str, int] | None, *, dialled: bool
    ) -> StreamLink:
        link = StreamLink(
            peer=peer, address=address, instance=instance, listens_at=listens_at, dialled_by_us=dialled, owner=self
        )
        self._links.add(link)
        return link

    def _adopt(self, state: PeerState, link: StreamLink, renew_at_s: float) -> None:
        """Make `link` the link of its peer; an older one ends as AGED, which is no loss."""
        before, state.link = state.link, link
        state.renew_at_s = renew_at_s
        state.not_before_s = state.refused_until_s = state.barred_until_s = 0.0
        state.linked_s = asyncio.get_running_loop().time()
        state.settle_loss()
        if before is not None:
            before.end(LinkClosed.AGED, "a newer stream took its place")
        if self._notices is not None:
            self._notices.opened(link)
        state.touch()
        self._dialler.pursue(state)

    def gone(self, link: StreamLink) -> None:
        """The stream of `link` is torn down."""
        self._links.discard(link)
        idle = self._idle
        if not self._links and idle is not None and not idle.done():
            idle.set_result(None)

    # -- what links tell ---------------------------------------------------------------------------------------------

    def frame(self, link: StreamLink, frame: bytes) -> None:
        """Hand a frame on to the node."""
        if self._notices is not None:
            self._notices.frame(link, frame)

    def failed(self, link: StreamLink, error: BaseException) -> None:
        """This node failed while it carried a frame of `link`, which ends now: a fault of ours, to be mended."""
        more = self._seldom.may(f"failed {link.peer} {error!r}", asyncio.get_running_loop().time())
        if more is not None:
            log.error("%r failed%s", link, more, exc_info=error)

    def ended(self, link: StreamLink, why: LinkClosed, detail: str) -> None:
        """A link is over: tell the node, and examine the loss where it is one."""
        if self._notices is not None:
            self._notices.closed(link, why)
        state = self._peers.get(link.peer)
        if state is None or state.link is not link:
            return  # replaced or forgotten
        state.link = None
        state.renew_at_s = float("inf")
        now_s = asyncio.get_running_loop().time()
        if self._closing:
            return
        pause_s = state.pause_after_loss_s(now_s - state.linked_s, self._config.steady_after_s)
        if why is LinkClosed.GOODBYE:
            # it announces itself when it comes back, perhaps on another port
            state.forget_addresses(HintSource.MDNS, HintSource.PEER)
            state.not_before_s = now_s + max(pause_s, self._config.goodbye_pause_s)
        elif why is LinkClosed.REFUSED:
            state.refused_until_s = now_s + self._config.refused_pause_s
            if not link.said_by_peer:
                state.barred_until_s = state.refused_until_s
        else:
            state.not_before_s = now_s + pause_s
            self._examine(state, link, why, detail)
        state.touch()
        self._dialler.pursue(state)
        if self._mdns is not None:
            self._mdns.nudge()

    def _examine(self, state: PeerState, link: StreamLink, why: LinkClosed, detail: str) -> None:
        """Find out at once whether the peer is gone: the pursuit knocks, the timer bounds it."""
        loop = asyncio.get_running_loop()
        self._say(f"lost {link.peer}", "lost %r (%s): %s", link, why, detail)
        if not state.addresses:
            self.unreachable(state, why, "no address is known to dial it again")
            return
        bound_s = self._config.unreachable_after_s
        timer = loop.call_later(bound_s, self._loss_unanswered, state, bound_s)
        state.loss = Loss(why, link.listens_at, timer)

    def _loss_unanswered(self, state: PeerState, after_s: float) -> None:
        loss = state.loss
        if loss is not None and not loss.told and state.link is None:
            loss.told = True
            self.unreachable(state, LinkClosed.SILENT, f"neither answers nor refuses for {after_s:g} s")

    def unreachable(self, state: PeerState, why: LinkClosed, detail: str) -> None:
        """A lost peer does not come back, as far as dialling can tell."""
        if self._notices is not None:
            self._notices.unreachable(state.peer, why, detail)


def _present(state: PeerState) -> Present | None:
    link = state.link
    return None if link is None else Present(link.dialled_by_us, link.instance)
