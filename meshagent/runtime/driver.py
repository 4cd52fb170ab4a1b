"""Carries the contract-net machines: inputs in, one commit a loop turn, then everything that leaves.

All that arrives in one turn of the loop is handled in one tick::

    inputs -> machines, until both are quiet -> ONE journal commit -> acts to links -> one seal, frames
           -> work started and stopped -> observers

Nothing is told to anybody before the commit that makes it true, so a crash at any point leaves a node that has
promised only what it remembers. What the node says to itself never leaves the tick.

Absent here: what acts mean (`core/contract_net`), links and signatures (links.py), roles (agents.py).
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from meshagent.core.acts import FROM_INITIATOR, PERFORMATIVE_OF, NotUnderstood, TaskRecord
from meshagent.core.bodies import Body, EventMessage, MembershipMessage, Profile, StoryQuery, StoryReply
from meshagent.core.clock import RESERVE_MS, HybridClock, stamp_wall_s
from meshagent.core.contract_net.initiator import Initiator
from meshagent.core.contract_net.interface import (
    ActReceived,
    Bidder,
    CancelRequested,
    CheckpointTaken,
    ContractConfig,
    DoubtResolved,
    Effect,
    Evidence,
    GrantPointOfNoReturn,
    InitiatorInput,
    LeaseMoved,
    LeaveRequested,
    Noted,
    ParticipantInput,
    PeerFound,
    PeerLost,
    Persist,
    PointOfNoReturnReached,
    ProgressMade,
    Send,
    StartWork,
    StopWork,
    Submit,
    TaskChanged,
    TaskSubmitted,
    TimePassed,
    WorkEnded,
)
from meshagent.core.contract_net.participant import Participant
from meshagent.core.contract_net.records import (
    CONTRACTED,
    CUSTODY,
    INITIATED,
    MARKS,
    ContractRecord,
    InitiatorRecord,
    MarkRecord,
    RegisterRecord,
)
from meshagent.core.custody import choose_custodians, record_digest, wants_custodians
from meshagent.core.members import MemberChanged, MembershipConfig, MemberState
from meshagent.core.ports import Append, Authority, Clock, Journal, Put, Transport
from meshagent.core.seldom import Seldom
from meshagent.errors import JournalError, LocalProtocolError
from meshagent.identity.book import CredentialBook
from meshagent.identity.device import DeviceIdentity
from meshagent.identity.envelope import make_boot
from meshagent.identity.keys import BadSignatureError, Tag, verify
from meshagent.identity.replay import BootVerdict
from meshagent.runtime.codec import RecordCodec
from meshagent.runtime.keeper import Keeper
from meshagent.runtime.links import Links, LinksConfig
from meshagent.runtime.notes import encode_notes
from meshagent.runtime.ports import Observer, Peer, WorkHost
from meshagent.runtime.supervise import Raised, attempt
from meshagent.types import NodeId, TaskId, public_key_of

log = logging.getLogger(__name__)

META: Final = "meta"
BOOT_COUNTER: Final = "boot_counter"
CLOCK_BOUND: Final = "clock_bound"

MAX_TIMER_S: Final = 30.0
NEAR_S: Final = 60.0
NEAR_TIMER_S: Final = 1.0
"""The loop's timers do not count suspension, our deadlines do: with a deadline near, look again at least each second,
so that a robot that was asleep notices within a second that its lease is over."""
MAX_ROUNDS: Final = 10_000
"""Inputs that one tick handles before it commits; the rest waits for the next turn, so that the loop breathes."""
NOTES_WAIT_S: Final = 1.0
"""Notes for `why`, and records that are not urgent, ride with the next commit; without one they are written after so
long. A crash may lose them."""
PACE_S: Final = 0.002
PACE_MAX_S: Final = 0.04
"""While several tasks are negotiated and peers owe answers, turns come this far apart, times the tasks beyond one: what
many tasks say then shares frames, signatures and commits. A single task never waits, and nothing waits once all have
answered; the bound is for peers that do not."""
SET_BACK_S: Final = 1.0
"""Less is no clock that was set back: restarts in quick succession leave the bound some milliseconds further ahead."""
MAX_NOTES: Final = 2000
"""Notes held back at most."""
MAX_NEWS: Final = 1024
"""Events and stories of one turn; they may be lost, so the rest is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverConfig:
    """Settings of the machines and the links."""

    contract: ContractConfig = field(default_factory=ContractConfig)
    links: LinksConfig = field(default_factory=LinksConfig)
    membership: MembershipConfig | None = None
    """None: links alone say who is there (few nodes, all linked)."""
    observer: bool = False
    """Learn who is there and take no part: a node for the length of one command."""


@functools.cache
def _record_codec() -> RecordCodec:
    """Compiled once a process, not at import: it costs milliseconds, and the simulator makes thousands of drivers."""
    return RecordCodec(InitiatorRecord, ContractRecord, RegisterRecord, MarkRecord)


class _Own:
    """The evidence behind what this node says to itself."""

    __slots__ = ()

    def verify(self) -> bool:
        return True


OWN: Final = _Own()

_TO_PARTICIPANT: Final = frozenset(cls for cls, word in PERFORMATIVE_OF.items() if word in FROM_INITIATOR)
_INITIATOR_EVENTS: Final = (TaskSubmitted, CancelRequested, DoubtResolved)
_PARTICIPANT_EVENTS: Final = (WorkEnded, ProgressMade, CheckpointTaken, PointOfNoReturnReached, LeaveRequested)


class Driver:
    """The middle of a node: owns both machines, the links and the order of things.

    Args:
        identity: key, credential and trust of this device.
        book: what is known of others' credentials.
        transport: finds and keeps links.
        clock: the device's clocks.
        rng: for jitter and ties; a child stream of the node's seed.
        bidder: prices tasks for the roles hosted here.
        host: runs what was awarded; called after the commit.
        authority: what a peer's credential, narrowed by the configuration, allows.
        on_failure: told once when the journal or a turn fails: stop the node, promises can no longer be kept.
        on_story: told of story queries and replies.
        on_member: told when a member's state changed, in the turn in which that was found out.
        random_bytes: salts, nonces and the boot's random half.
    """

    def __init__(
        self,
        *,
        identity: DeviceIdentity,
        book: CredentialBook,
        transport: Transport,
        journal: Journal,
        clock: Clock,
        rng: Random,
        bidder: Bidder,
        host: WorkHost,
        authority: Authority,
        config: DriverConfig | None = None,
        on_failure: Callable[[Exception], None] | None = None,
        on_story: Callable[[NodeId, StoryQuery | StoryReply], None] | None = None,
        on_member: Callable[[MemberChanged], None] | None = None,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.me: NodeId = identity.node_id
        self._identity = identity
        self._book = book
        self._transport = transport
        self._journal = journal
        self._clock = clock
        self._rng = rng
        self._bidder = bidder
        self._host = host
        self._authority = authority
        self._config = config or DriverConfig()
        self._on_failure = on_failure
        self._on_story = on_story
        self._on_member = on_member
        self.keeper: Keeper | None = None
        """Membership, once started and where it is on."""
        self._random_bytes = random_bytes
        self._observers: list[Observer] = []
        self._inputs: deque[Any] = deque()
        self._news: list[tuple[NodeId, EventMessage | StoryQuery | StoryReply]] = []
        self._records = _record_codec()
        self._notes: dict[TaskId, tuple[float, list[Noted]]] = {}
        self._leisurely: dict[tuple[str, TaskId], object | None] = {}
        self._notes_count = 0
        self._notes_due_s: float | None = None
        self._seldom = Seldom()
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = 0.0
        self._ticked_at_s = 0.0
        self._paced: asyncio.TimerHandle | None = None
        """A tick that waits for more to come (`PACE_S`)."""
        self._running = False
        self._peers_changed = False
        self.lost_because: dict[NodeId, str] = {}
        """Why the last link to a peer ended, for people."""
        self.failed: Exception | None = None
        """Set when the journal or a turn failed; nothing moves any more."""
        self.ticks = 0
        self.commits = 0
        """For benchmarks and `status`: turns with input, transactions."""

    # ---- life

    async def start(self, profile: Profile) -> None:
        """Restore what was promised, bind the socket, link up. Returns when the socket is bound.

        Raises:
            JournalError: the journal cannot be read or written.
            TransportError: the socket cannot be had.
        """
        self._loop = asyncio.get_running_loop()
        meta = self._journal.load(META)
        counter = int.from_bytes(meta.get(BOOT_COUNTER, b""), "big") + 1
        self.boot = make_boot(counter, self._random_bytes(8))
        clock = self._clock
        now_s = clock.boot_s()
        self._wall_at_zero_s = clock.wall_s() - now_s
        bound = int.from_bytes(meta.get(CLOCK_BOUND, b""), "big")
        self._hybrid = HybridClock(wall_at_zero_s=self._wall_at_zero_s + _set_back_s(bound, clock), resume_above=bound)
        self._hybrid.stamp(now_s)
        first: list[Put | Append] = [Put(META, BOOT_COUNTER, counter.to_bytes(8, "big"))]
        first += self._clock_bound(now_s)
        self._journal.commit(first)
        self.links = Links(
            identity=self._identity,
            book=self._book,
            boot=self.boot,
            transport=self._transport,
            clock=clock,
            hybrid=self._hybrid,
            wall_at_zero_s=self._wall_at_zero_s,
            observer=self,
            wake=self._wake,
            profile=profile,
            config=self._config.links,
            random_bytes=self._random_bytes,
        )
        self.links.restore(self._journal)
        self.directory = PeerDirectory(self.me, self.links.peers, self._authority)
        self.directory.own(profile.kinds)
        self._visitor = profile.visitor
        contract = self._config.contract
        self.initiator = Initiator(self.me, self.boot, contract, self._rng, self.directory, bears_its_seal)
        self.participant = Participant(self.me, self.boot, contract, self._bidder, self._authority, bears_its_seal)
        self._running = True
        self._restored = self._restore(now_s)
        await self._transport.start(self.links)
        self._start_membership(profile)
        self.links.dial_remembered()
        self._wake()

    def _start_membership(self, profile: Profile) -> None:
        port = int(getattr(self._transport, "listen_port", 0) or 0)
        if self._config.membership is None or not port:
            return
        self.keeper = Keeper(
            identity=self._identity,
            book=self._book,
            boot=self.boot,
            config=self._config.membership,
            clock=self._clock,
            wall_s=lambda now_s: self._wall_at_zero_s + now_s,
            rng=Random(self._rng.getrandbits(64)),
            random_bytes=self._random_bytes,
            datagrams=self._transport.datagrams(),
            port=port,
            hint=self._transport.add_hint,
            host=self,
            observer=self._config.observer,
        )
        self.keeper.set_profile(profile)
        self.links.attach(self.keeper)

    def _restore(self, now_s: float) -> list[Effect]:
        effects: list[Effect] = []
        decode = self._records.decode
        effects += self.initiator.restore_custody(
            [decode(raw) for raw in self._journal.load(CUSTODY).values()],
            {node: decode(raw) for node, raw in self._journal.load(MARKS).items()},
            now_s,
        )
        effects += self.initiator.restore([decode(raw) for raw in self._journal.load(INITIATED).values()], now_s=now_s)
        effects += self.participant.restore(
            [decode(raw) for raw in self._journal.load(CONTRACTED).values()], now_s=now_s
        )
        return effects

    async def close(self) -> None:
        """Say goodbye and stop. What was to be handed back is handed back before (`LeaveRequested`)."""
        if not self._running:
            return
        if self.keeper is not None:
            if self.failed is None:
                self.keeper.leave()
            self.keeper.close()
        if self.failed is None:
            self._tick()
        if self.failed is None:
            try:
                self._flush_notes_now()
            except JournalError as error:
                self._fail(error)  # notes and windows are lost, promises are not: they were committed before
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self._transport.close()

    # ---- what others hand in

    def add_observer(self, observer: Observer) -> None:
        """Tell it of every change, after the commit of its tick."""
        self._observers.append(observer)

    def feed(self, event: InitiatorInput | ParticipantInput) -> None:
        """Hand in one input; it is handled in this turn of the loop, together with what else arrives."""
        if self.failed is not None:
            return
        self._inputs.append(event)
        if not self._scheduled:
            self._wake()

    def submit(self, event: TaskSubmitted) -> None:
        """Hand in a task of this node. `TaskChanged` tells when it is durable and how it goes on.

        Raises:
            LocalProtocolError: the record names another initiator.
        """
        if event.record.initiator != self.me:
            raise LocalProtocolError("a node submits its own tasks alone")
        self.feed(event)

    def entrusted(self, record: TaskRecord, k: int) -> TaskRecord:
        """`record` with its `k` custodians, chosen from the members of now, and this node's seal over the whole.

        Visitors keep nothing: they are gone when their command has ended. Nobody else here: the record as it is.
        """
        if not k or not wants_custodians(record.durability):
            return record
        members = [
            peer.id for peer in self.links.peers.values() if peer.profile is not None and not peer.profile.visitor
        ]
        chosen = choose_custodians(record.task, self.me, members, k)
        if self._visitor:
            chosen = tuple([one for one in chosen if one != self.me])
        if not chosen:
            return record
        named = dataclasses.replace(record, custodians=chosen)
        return dataclasses.replace(named, seal=self._identity.key.sign(Tag.TASK_RECORD, record_digest(named)))

    def set_profile(self, profile: Profile) -> None:
        """Say to everybody what this node offers now."""
        offered_before = self.directory.mine
        self.directory.own(profile.kinds)
        self.links.set_profile(profile)
        if self.keeper is not None:
            self.keeper.set_profile(profile)
        if self.directory.mine != offered_before:
            # Calls that found nobody may go out again: this node itself is a candidate now.
            self.feed(PeerFound(peer=self.me))

    def emit(self, event: EventMessage) -> None:
        """News to every linked peer; may be lost."""
        self.links.send(tuple(self.links.peers), event)
        self._wake()

    def say(self, to: NodeId, body: StoryQuery | StoryReply) -> None:
        """One message to one peer; dropped where there is no link."""
        self.links.send((to,), body)
        self._wake()

    def peers(self) -> Mapping[NodeId, Peer]:
        """Who is linked and has said what it offers, with round trip and clock offset as of now."""
        return self.links.details()

    # ---- LinkObserver

    def message_received(self, peer: NodeId, body: Body, evidence: Evidence) -> None:
        """A peer's message passed the gate."""
        if self.failed is not None:
            return
        if type(body) in PERFORMATIVE_OF:
            self._inputs.append(ActReceived(peer=peer, act=body, evidence=evidence))  # type: ignore[arg-type]
            if not self._scheduled:
                self._wake()
        elif isinstance(body, EventMessage | StoryQuery | StoryReply) and len(self._news) < MAX_NEWS:
            self._news.append((peer, body))
            self._wake()

    def peer_ready(self, peer: NodeId) -> None:
        self.directory.changed()
        self._peers_changed = True
        self.feed(PeerFound(peer=peer))

    def peer_changed(self, peer: NodeId) -> None:
        self._peers_changed = True
        self._wake()

    def peer_lost(self, peer: NodeId, why: str) -> None:
        more = self._seldom.may(peer, self._clock.boot_s())
        if more is not None:
            log.info("lost %s: %s%s", peer[:8], why, more)
        if len(self.lost_because) >= MAX_LOST:
            self.lost_because.clear()
        self.lost_because[peer] = why
        self.directory.changed()
        self._peers_changed = True
        self.feed(PeerLost(peer=peer))

    # ---- KeeperHost

    def say_membership(self, to: NodeId, message: MembershipMessage) -> None:
        """Over the link, with the next turn's frame."""
        self.links.send((to,), message)
        self._wake()

    def offer_revocations(self, to: NodeId) -> None:
        self.links.offer_revocations(to)

    def judge_boot(self, peer: NodeId, boot: bytes, generation: int) -> BootVerdict:
        return self.links.judge_boot(peer, boot, generation)

    def member_changed(self, change: MemberChanged) -> None:
        """A faulty member is a lost peer, whatever its link pretends; one that lives again is found by its link."""
        if change.state is MemberState.FAULTY and self.keeper is not None:
            since_s = self.keeper.suspected_since_s(change.node)
            self.links.member_faulty(change.node, since_s, f"faulty: {change.why}")
        self._peers_changed = True
        if self._on_member is not None:
            self._on_member(change)
        self._wake()

    def duplicate_found(self, node: NodeId) -> None:
        """Shown to people and no more: a recording proves no living copy, so it must not switch this device off."""
        self._peers_changed = True
        self._wake()

    # ---- the tick

    def _wake(self) -> None:
        if self._scheduled:
            if self._paced is not None and not self.links.unanswered:
                self._unpace()
                self._loop.call_soon(self._tick)
            return
        if not self._running:
            return
        self._scheduled = True
        crowd = self.initiator.negotiated - 1
        if crowd > 0 and self.links.unanswered:
            at_s = self._ticked_at_s + min(PACE_MAX_S, PACE_S * crowd)
            if at_s > self._loop.time():
                self._paced = self._loop.call_at(at_s, self._tick)
                return
        self._loop.call_soon(self._tick)

    def _unpace(self) -> None:
        if self._paced is not None:
            self._paced.cancel()
            self._paced = None

    def _on_timer(self) -> None:
        self._timer = None
        self._tick()

    def _tick(self) -> None:
        self._scheduled = False
        self._unpace()
        if not self._running or self.failed is not None:
            return
        outcome = attempt(self._run_turn)
        if isinstance(outcome, Raised):
            self._fail(outcome.error)

    def _run_turn(self) -> None:
        self.ticks += 1
        self._ticked_at_s = self._loop.time()
        now_s = self._clock.boot_s()
        turn = _Turn()
        self._decide(turn, now_s)
        stamp = 0
        if turn.sends or self.links.wants_seal(now_s):
            stamp = self._hybrid.stamp(now_s)
        self._commit(turn, now_s)
        send = self.links.send
        for effect in turn.sends:
            send(effect.to, effect.act, urgent=effect.urgent)
        self.links.flush(now_s, stamp)
        self._tell(turn)
        self._arm()

    def _decide(self, turn: _Turn, now_s: float) -> None:
        """Run both machines until they are quiet."""
        inputs = self._inputs
        initiator, participant = self.initiator, self.participant
        if self._restored:
            self._carry_out(self._restored, turn, now_s)
            self._restored = []
        budget = MAX_ROUNDS
        while True:
            while inputs and budget:
                budget -= 1
                event = inputs.popleft()
                cls = type(event)
                if cls is ActReceived:
                    act = type(event.act)
                    if act is NotUnderstood:
                        self._carry_out(initiator.handle(event, now_s=now_s), turn, now_s)
                        self._carry_out(participant.handle(event, now_s=now_s), turn, now_s)
                    elif act in _TO_PARTICIPANT:
                        self._carry_out(participant.handle(event, now_s=now_s), turn, now_s)
                    else:
                        self._carry_out(initiator.handle(event, now_s=now_s), turn, now_s)
                elif cls in _INITIATOR_EVENTS:
                    self._carry_out(initiator.handle(event, now_s=now_s), turn, now_s)
                elif cls in _PARTICIPANT_EVENTS:
                    self._carry_out(participant.handle(event, now_s=now_s), turn, now_s)
                else:
                    assert cls is PeerFound or cls is PeerLost or cls is TimePassed, cls
                    self._carry_out(initiator.handle(event, now_s=now_s), turn, now_s)
                    self._carry_out(participant.handle(event, now_s=now_s), turn, now_s)
            if not budget:
                self._wake()
                return
            due = False
            for machine in (initiator, participant):
                deadline_s = machine.next_deadline_s()
                if deadline_s is not None and deadline_s <= now_s:
                    due = True
                    budget -= 1
                    self._carry_out(machine.handle(TimePassed(), now_s=now_s), turn, now_s)
            if not due and not inputs:
                return
            if budget <= 0:
                self._wake()
                return

    def _carry_out(self, effects: Iterable[Effect], turn: _Turn, now_s: float) -> None:
        for effect in effects:
            cls = type(effect)
            if cls is Send:
                assert isinstance(effect, Send)
                to = effect.to
                if self.me in to:
                    self._inputs.append(ActReceived(peer=self.me, act=effect.act, evidence=OWN))
                    if len(to) == 1:
                        continue
                    effect = Send(to=tuple(one for one in to if one != self.me), act=effect.act, urgent=effect.urgent)
                turn.sends.append(effect)
            elif cls is Noted:
                turn.notes.append(effect)  # type: ignore[arg-type]
            elif cls is Persist:
                assert isinstance(effect, Persist)
                self._keep_record(effect, turn, now_s)
            elif cls is TaskChanged:
                turn.changes.append(effect)  # type: ignore[arg-type]
            elif cls is Submit:
                assert isinstance(effect, Submit)
                self._inputs.append(TaskSubmitted(record=effect.record, within_s=effect.within_s))
            else:
                turn.orders.append(effect)  # type: ignore[arg-type]

    # ---- the commit

    def _keep_record(self, effect: Persist, turn: _Turn, now_s: float) -> None:
        key = effect.table, effect.task
        if effect.urgent or key in turn.records:
            self._leisurely.pop(key, None)
            turn.records[key] = effect.record
            return
        self._leisurely[key] = effect.record
        if self._notes_due_s is None:
            self._notes_due_s = now_s + NOTES_WAIT_S

    def _commit(self, turn: _Turn, now_s: float) -> None:
        if turn.notes:
            self._keep_notes(turn.notes, now_s)
        writes: list[Put | Append] = []
        encode = self._records.encode
        for (table, task), record in turn.records.items():
            writes.append(Put(table, task, None if record is None else encode(record)))
        writes += self._clock_bound(now_s)
        waiting = self._notes_count + len(self._leisurely)
        notes_due = self._notes_due_s is not None and (self._notes_due_s <= now_s or waiting > MAX_NOTES)
        if not writes and not notes_due and not self.links.must_write(now_s):
            return
        writes += self.links.take_writes()
        writes += self._take_leisurely()
        if writes:
            self._journal.commit(writes)
            self.commits += 1

    def _clock_bound(self, now_s: float) -> list[Put | Append]:
        bound = self._hybrid.bound_to_persist(now_s)
        return [] if bound is None else [Put(META, CLOCK_BOUND, bound.to_bytes(8, "big"))]

    def _keep_notes(self, notes: list[Noted], now_s: float) -> None:
        wall_s = self._clock.wall_s()
        kept = self._notes
        for note in notes:
            line = kept.get(note.task)
            if line is None:
                kept[note.task] = (wall_s, [note])
            else:
                line[1].append(note)
        self._notes_count += len(notes)
        if self._notes_due_s is None:
            self._notes_due_s = now_s + NOTES_WAIT_S

    def _take_leisurely(self) -> list[Put | Append]:
        """Records and notes that waited for a transaction to ride with."""
        encode = self._records.encode
        lines: list[Put | Append] = [
            Put(table, task, None if record is None else encode(record))
            for (table, task), record in self._leisurely.items()
        ]
        lines += [Append(task, wall_s, encode_notes(notes)) for task, (wall_s, notes) in self._notes.items()]
        self._leisurely.clear()
        self._notes.clear()
        self._notes_count = 0
        self._notes_due_s = None
        return lines

    def unwritten_notes(self, task: TaskId) -> list[tuple[float, Noted]]:
        """Notes of a task that are not in the journal yet, with their wall time; `why` wants them too."""
        held = self._notes.get(task)
        return [] if held is None else [(held[0], note) for note in held[1]]

    def _flush_notes_now(self) -> None:
        lines = self._take_leisurely()
        lines += self.links.take_writes()
        if lines:
            self._journal.commit(lines)

    def _fail(self, error: BaseException) -> None:
        # In memory more is promised than on disk, or a machine stopped in the middle of a step: from here on nothing
        # may be said or started. A restart finds the journal as it was before this turn.
        self.failed = error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")
        if isinstance(error, JournalError):
            log.error("the journal failed, this node stops: %s", error)
        else:
            message = "a turn of the driver failed, this node stops"
            self._loop.call_exception_handler({"message": message, "exception": error})
        if self._on_failure is not None:
            self._on_failure(self.failed)

    # ---- after the commit

    def _tell(self, turn: _Turn) -> None:
        host = self._host
        news = self._news
        if news:
            self._news = []
            for peer, body in news:
                if isinstance(body, EventMessage):
                    host.event_received(peer, body)
                elif self._on_story is not None:
                    self._on_story(peer, body)
        for order in turn.orders:
            if isinstance(order, StartWork):
                host.start_work(order)
            elif isinstance(order, LeaseMoved):
                host.move_lease(order)
            elif isinstance(order, StopWork):
                host.stop_work(order)
            else:
                host.grant_point_of_no_return(order)
        observers = self._observers
        if not observers:
            self._peers_changed = False
            return
        if turn.notes:
            wall_s = self._clock.wall_s()
            for observer in observers:
                for note in turn.notes:
                    observer.noted(note, wall_s)
        if turn.changes:
            for observer in observers:
                for change in turn.changes:
                    observer.task_changed(change)
        if self._peers_changed:
            self._peers_changed = False
            for observer in observers:
                observer.peers_changed()

    def _arm(self) -> None:
        """One timer for machines, links and notes; re-armed only to an earlier instant."""
        if self._scheduled or not self._running:
            return
        deadlines = (
            self.initiator.next_deadline_s(),
            self.participant.next_deadline_s(),
            self.links.next_deadline_s(),
            self._notes_due_s,
        )
        now_s = self._clock.boot_s()
        wait_s = MAX_TIMER_S
        for deadline_s in deadlines:
            if deadline_s is not None:
                left_s = deadline_s - now_s
                wait_s = min(wait_s, left_s if left_s <= NEAR_TIMER_S or left_s > NEAR_S else NEAR_TIMER_S)
        if wait_s <= 0.0:
            self._wake()
            return
        at_s = self._loop.time() + wait_s
        if self._timer is not None:
            if self._timer_at_s <= at_s:
                return
            self._timer.cancel()
        self._timer_at_s = at_s
        self._timer = self._loop.call_at(at_s, self._on_timer)


def bears_its_seal(record: TaskRecord) -> bool:
    """Whether the asker that `record` names has signed it as it is."""
    try:
        verify(public_key_of(record.initiator), Tag.TASK_RECORD, record_digest(record), record.seal)
    except (BadSignatureError, ValueError):
        return False
    return True


def _set_back_s(bound: int, clock: Clock) -> float:
    """By how much this device's clock was set back since its last life, as far as stamps tell (clock_back).

    Stamps must go on above `bound` and must go on growing with time: a stamp that stands still for an hour looks an
    hour old to others. Up to `RESERVE_MS` the bound is ahead by itself, and time catches up while messages are fresh.
    """
    ahead_s = stamp_wall_s(bound) - clock.wall_s() - RESERVE_MS / 1000
    if bound == 0 or ahead_s <= SET_BACK_S:
        return 0.0
    log.warning("this device's clock is %.0f s behind what it was: set back, or started without one", ahead_s)
    return ahead_s


class _Turn:
    """What one tick has decided."""

    __slots__ = ("changes", "notes", "orders", "records", "sends")

    def __init__(self) -> None:
        self.sends: list[Send] = []
        self.records: dict[tuple[str, TaskId], object | None] = {}
        self.orders: list[StartWork | LeaseMoved | StopWork | GrantPointOfNoReturn] = []
        self.changes: list[TaskChanged] = []
        self.notes: list[Noted] = []


class PeerDirectory:
    """Who could be asked now: `core.contract_net.interface.Directory` over the linked peers and this node."""

    def __init__(self, me: NodeId, peers: Mapping[NodeId, Peer], may: Authority) -> None:
        self._me = me
        self._peers = peers
        self._may = may
        self._known: dict[str, tuple[NodeId, ...]] = {}
        self.mine: frozenset[str] = frozenset()

    def own(self, kinds: Iterable[str]) -> None:
        """What this node offers itself."""
        self.mine = frozenset(kinds)
        self._known.clear()

    def changed(self) -> None:
        """Peers, their offers or their permissions are no longer what they were."""
        self._known.clear()

    def candidates(self, kind: str) -> tuple[NodeId, ...]:
        """Live peers (this node too) that offer `kind` and may perform it, sorted."""
        known = self._known.get(kind)
        if known is None:
            found = [
                peer.id
                for peer in self._peers.values()
                if peer.profile is not None and kind in peer.profile.kinds and self._may(peer.id, "perform", kind)
            ]
            if kind in self.mine and self._may(self._me, "perform", kind):
                found.append(self._me)
            known = tuple(sorted(found))
            if len(self._known) >= MAX_KNOWN_KINDS:
                self._known.clear()
            self._known[kind] = known
        return known


MAX_LOST: Final = 256
MAX_KNOWN_KINDS: Final = 1024
"""Answers remembered; kinds come from our own roles, and from clients of the local API."""
