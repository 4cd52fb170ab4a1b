"""Who is alive: SWIM with Lifeguard as a machine. Facts and the time in, orders out; it never waits and never sends.

Each protocol period one member is pinged. Without an answer within `probe_timeout_s`, k others are asked to ping it and
a ping goes over the link too; without any answer by the end of the period it is suspected. A suspicion is an accusation
that its accuser signs. Nobody ever says "faulty" to others: each node judges for itself when the suspicion that it has
heard of is over. So a liar can raise a suspicion, which its subject refutes, and nothing more.

    any -> ALIVE    a higher incarnation signed by the member itself, or its Hello on a link now
    ALIVE -> SUSPECT    an accusation of the present incarnation, ours or another member's
    SUSPECT -> FAULTY   the suspicion ran out; it shrinks with every distinct accuser
    any -> LEFT     the member said so

Where this differs from SWIM: the incarnation begins with the boot counter that the journal keeps, so that a node that
comes back outranks all that was said of its former process, also after everybody restarted at once.

An answer that a helper relays is taken on its word. A lying helper can so keep a dead member alive for those periods in
which it is chosen, and no longer.

Source: SWIM 3 and 4; Lifeguard 3 (local health), 4 (suspicion), 5 (buddy); SECURITY-DESIGN 6.
"""

from __future__ import annotations

import math
from random import Random
from typing import Final, assert_never

from meshagent.core.members import (
    MAX_REFUTATION,
    Accusation,
    Ack,
    CredentialEnded,
    DuplicateIdentity,
    Effect,
    Gossip,
    Incarnation,
    Input,
    ItemChecked,
    LeaveRequested,
    LinkLost,
    LinkOpened,
    MemberChanged,
    MemberRecord,
    MembershipConfig,
    MemberState,
    MessageHeard,
    Nack,
    Notary,
    Path,
    Ping,
    PingReq,
    RecordLearned,
    Say,
    SignOfLife,
    StateLearned,
    StateRecord,
    StateSet,
    Summary,
    TimePassed,
    Wanted,
)
from meshagent.core.roster import Member, Roster, prefix_of
from meshagent.core.spreading import ITEM_OVERHEAD_BYTES, Spreading
from meshagent.core.suspicion import (
    confirmations_wanted,
    moved_health,
    push_pull_s,
    retransmit_limit,
    scaled_s,
    suspicion_min_s,
    suspicion_timeout_s,
)
from meshagent.types import NodeId

MAX_PROBES: Final = 64
"""Probes under way; one a period and those that lost links ask for."""
MAX_RELAYED: Final = 256
"""Pings for others under way."""
MAX_RELAYED_EACH: Final = 16
"""Of which for one asker: one period's worth for a node that probes what many links have lost."""
NACK_SHARE: Final = 0.8
"""A helper says `nack` after so much of the probe timeout, in time to be counted (Lifeguard 4.1)."""
PACKET_HEAD_BYTES: Final = 52
"""A datagram without items (SECURITY-DESIGN 6)."""
RECORD_ROOM_BYTES: Final = 240
"""Room for the longest record, so that the answer to a ping can carry a refutation (Lifeguard 5, buddy)."""
LINK_CHUNK_BYTES: Final = 32 * 1024
"""Records in one message over a link."""
MAX_SPREAD_STATE_BYTES: Final = 700
"""Larger state records do not ride in datagrams; they come by comparing tables."""
RECORDS_BURST: Final = 16
"""Refutations after a bad minute come in a row."""


class _Probe:
    __slots__ = ("ends_s", "helpers", "nacks", "target", "timeout_s")

    def __init__(self, target: NodeId, timeout_s: float, ends_s: float) -> None:
        self.target = target
        self.timeout_s = timeout_s
        """When others are asked; infinite once they were."""
        self.ends_s = ends_s
        self.helpers: tuple[NodeId, ...] = ()
        self.nacks: set[NodeId] = set()


class _Relayed:
    __slots__ = ("asker", "ends_s", "nack_s", "seq", "subject")

    def __init__(self, asker: NodeId, seq: int, subject: NodeId, nack_s: float, ends_s: float) -> None:
        self.asker = asker
        self.seq = seq
        self.subject = subject
        self.nack_s = nack_s
        self.ends_s = ends_s


class Membership:
    """One node's share of the membership protocol.

    Args:
        me: this node.
        config: timing.
        rng: order of probes, choice of helpers; a child stream of the node's seed.
        notary: signs our records and accusations.
        observer: take no part, only learn who is there (a node for the length of one command).
    """

    def __init__(
        self,
        me: NodeId,
        config: MembershipConfig,
        rng: Random,
        notary: Notary,
        *,
        now_s: float,
        observer: bool = False,
    ) -> None:
        self.me = me
        self._config = config
        self._rng = rng
        self._notary = notary
        self._observer = observer
        self._own = notary.record(0, left=False)
        self._my_prefix = prefix_of(me)
        self._own_state: StateRecord | None = None
        self._state_body: bytes | None = None
        """Waits for `state_interval_s` to pass."""
        self._state_due_s = now_s
        self.roster = Roster(rng)
        self.news = Spreading()
        self._seq = rng.getrandbits(16)
        self._probes: dict[int, _Probe] = {}
        self._relayed: dict[int, _Relayed] = {}
        self._links: dict[NodeId, bytes] = {}
        self._suspects: dict[NodeId, float] = {}
        """Suspect -> when its suspicion ends."""
        self._push_tokens = float(config.join_push_pulls)
        self._push_filled_s = now_s
        self._leaving = False
        self.local_health = 0
        """0: healthy; each step slows our own probes by one time (Lifeguard 4.1)."""
        self._next_probe_s = now_s + config.protocol_period_s * rng.random()
        self._next_gossip_s = now_s
        self._next_push_pull_s = now_s + config.push_pull_s * (0.5 + rng.random())
        self._effects: list[Effect] = []

    # ---- looking

    @property
    def own(self) -> MemberRecord:
        """This node's present record."""
        return self._own

    @property
    def nodes(self) -> int:
        """Nodes that take part, this one included."""
        return self.roster.present + 1

    def digest(self) -> int:
        """32 bits of what this node believes."""
        return self.roster.digest(self._own)

    def awaits(self, node: NodeId) -> bool:
        """Is a probe of `node` under way, so that a sign of life would matter?"""
        return any(probe.target == node for probe in self._probes.values())

    def suspect_until_s(self, node: NodeId) -> float | None:
        """When a suspect will be faulty unless it answers."""
        return self._suspects.get(node)

    def is_news_record(self, node: NodeId, boot: bytes, order: tuple[int, int, bool]) -> bool:
        """Would a record of that order change anything? Asked before its signature is checked."""
        if node == self.me:
            return boot != self._own.boot or order > self._own.order
        member = self.roster.get(node)
        if member is None:
            return True
        known = member.record
        return order > known.order or (order[0] == known.incarnation.boot and boot != known.boot)

    def is_news_accusation(self, accuser: NodeId, prefix: bytes, incarnation: Incarnation) -> NodeId | None:
        """The subject of an accusation that would change something; None: it would not."""
        by = self.roster.get(accuser)
        if by is None:
            return None  # strangers accuse nobody
        if prefix == self._my_prefix:
            return self.me if incarnation == self._own.incarnation and not self._leaving else None
        if not by.present:
            return None  # nor do the dead; but who believes us dead is perhaps dead to us, hence the order
        subject = self.roster.named(prefix)
        member = self.roster.get(subject) if subject is not None else None
        if member is None or not member.present or incarnation != member.record.incarnation:
            return None
        if accuser in member.accusations:
            return None
        if member.state is MemberState.SUSPECT and len(member.accusations) > member.suspect_wanted:
            return None  # enough have said so
        return subject

    def is_news_state(self, node: NodeId, order: tuple[int, int], now_s: float) -> bool:
        """Would a state record of that order change anything, and is it time for another one?"""
        member = self.roster.get(node)
        if member is None or now_s < member.state_taken_s + self._config.state_interval_s / 2:
            return False
        return member.state_record is None or order > member.state_record.order

    def next_deadline_s(self) -> float | None:
        """When `TimePassed` is due."""
        if self._leaving or self._observer:
            return None
        due_s = self._next_push_pull_s
        if self.roster.present or self._faulty_lately(self._next_probe_s):
            due_s = min(due_s, self._next_probe_s)
            if len(self.news):
                due_s = min(due_s, self._next_gossip_s)
        for probe in self._probes.values():
            due_s = min(due_s, probe.timeout_s, probe.ends_s)
        for relayed in self._relayed.values():
            due_s = min(due_s, relayed.nack_s, relayed.ends_s)
        for until_s in self._suspects.values():
            due_s = min(due_s, until_s)
        if self._state_body is not None:
            due_s = min(due_s, self._state_due_s)
        return due_s

    # ---- the machine

    def handle(self, event: Input, *, now_s: float) -> list[Effect]:
        """What follows from `event`."""
        match event:
            case MessageHeard():
                self._heard(event, now_s)
            case ItemChecked():
                self._learned(event, now_s)
            case LinkOpened():
                self._link_opened(event, now_s)
            case LinkLost():
                self._link_lost(event, now_s)
            case SignOfLife():
                self._answered(event.peer)
            case StateSet():
                self._state_body = event.body
                self._publish_state(now_s)
            case CredentialEnded():
                self._credential_ended(event.peer)
            case LeaveRequested():
                self._leave()
            case TimePassed():
                self._time_passed(now_s)
            case _:
                assert_never(event)
        effects, self._effects = self._effects, []
        return effects

    def _say(self, to: NodeId, message: Ping | Ack | Nack | PingReq | Gossip | Summary | Wanted, path: Path) -> None:
        self._effects.append(Say(to=to, message=message, path=path))

    def _change(
        self, member: Member, state: MemberState, why: str, now_s: float, *, record: MemberRecord | None = None
    ) -> None:
        """Every change of a member passes here."""
        before, restarted = member.state, record is not None and record.boot != member.record.boot
        accusers = tuple(member.accusations)
        self.roster.put(member, record or member.record, state)
        if state is not MemberState.SUSPECT and state is not MemberState.FAULTY:
            member.accusations.clear()
            self.news.drop(f"accusation/{member.node}/")
        if state is not MemberState.SUSPECT:
            self._suspects.pop(member.node, None)
        if restarted:
            member.state_record = None
        if before is state and not restarted:
            return
        member.since_s = now_s
        self._effects.append(
            MemberChanged(
                node=member.node,
                before=before,
                state=state,
                why=why,
                accusers=tuple(member.accusations) or accusers,
                restarted=restarted,
            )
        )

    # ---- messages

    def _heard(self, event: MessageHeard, now_s: float) -> None:
        message, peer = event.message, event.peer
        match message:
            case Ping():
                if self._leaving or self._observer:
                    return
                ack = Ack(seq=message.seq, digest=self.digest(), items=self._take(event.room_bytes))
                self._say(peer, ack, event.path)
                self._tell_the_accused(peer, now_s)
                self._compare(peer, message.digest, now_s)
            case Ack():
                self._acked(peer, message.seq)
                self._compare(peer, message.digest, now_s)
            case Nack():
                probe = self._probes.get(message.seq)
                if probe is not None and peer in probe.helpers:
                    probe.nacks.add(peer)
            case PingReq():
                self._ping_for(peer, message, now_s)
            case Summary():
                self._answer_summary(peer, message, now_s)
            case Wanted():
                self._send_wanted(peer, message)
            case Gossip():
                pass  # its items were handed in one by one, each checked
            case _:
                assert_never(message)

    def _tell_the_accused(self, peer: NodeId, now_s: float) -> None:
        """Who asks whether we live although others believe it dead must hear of that, to refute it."""
        member = self.roster.get(peer)
        if member is None or not member.accusations or now_s < member.warned_s + self._config.protocol_period_s:
            return
        member.warned_s = now_s
        self._say(peer, Gossip(items=tuple(member.accusations.values())), Path.DATAGRAM)

    def _take(self, room_bytes: int) -> tuple[bytes, ...]:
        return self.news.take(room_bytes, retransmit_limit(self._config.retransmit_multiplier, self.nodes))

    def _room(self) -> int:
        return self._config.packet_bytes - PACKET_HEAD_BYTES

    def _acked(self, peer: NodeId, seq: int) -> None:
        relayed = self._relayed.get(seq)
        if relayed is not None:
            if peer == relayed.subject:
                del self._relayed[seq]
                self._say(relayed.asker, Ack(seq=relayed.seq, digest=self.digest()), Path.DATAGRAM)
            return
        probe = self._probes.get(seq)
        if probe is not None and (peer == probe.target or peer in probe.helpers):
            del self._probes[seq]
            self.local_health = moved_health(self.local_health, -1)

    def _answered(self, peer: NodeId) -> None:
        for seq in [one for one, probe in self._probes.items() if probe.target == peer]:
            del self._probes[seq]

    def _ping_for(self, asker: NodeId, request: PingReq, now_s: float) -> None:
        subject = self.roster.get(request.subject)
        by = self.roster.get(asker)
        if subject is None or not subject.present or by is None or self._leaving or self._observer:
            return
        mine = sum(1 for one in self._relayed.values() if one.asker == asker)
        if len(self._relayed) >= MAX_RELAYED or mine >= MAX_RELAYED_EACH:
            return
        seq = self._next_seq()
        timeout_s = self._config.probe_timeout_s
        self._relayed[seq] = _Relayed(
            asker, request.seq, request.subject, now_s + NACK_SHARE * timeout_s, now_s + self._config.protocol_period_s
        )
        self._say(request.subject, Ping(seq=seq, digest=self.digest()), Path.DATAGRAM)

    def _next_seq(self) -> int:
        self._seq = (self._seq + 1) & 0xFFFFFFFF
        return self._seq

    # ---- records

    def _learned(self, event: ItemChecked, now_s: float) -> None:
        item = event.item
        if isinstance(item, MemberRecord):
            self._hear_record(item, event.via, now_s)
        elif isinstance(item, Accusation):
            self._hear_accusation(item, now_s)
        else:
            self._hear_state(item, now_s)

    def _hear_record(self, record: MemberRecord, via: NodeId, now_s: float) -> None:
        if record.node == self.me:
            self._hear_of_myself(record)
            return
        member = self.roster.get(record.node)
        state = MemberState.LEFT if record.left else MemberState.ALIVE
        if member is None:
            if self.roster.full:
                oldest = self.roster.crowded_by()
                if oldest is None:
                    return
                self._drop(oldest, "made room")
            self.roster.add(record, state, now_s)
            self._effects.append(RecordLearned(record=record))
            self._effects.append(MemberChanged(node=record.node, before=None, state=state, why="joined"))
        else:
            known = member.record
            if record.incarnation.boot == known.incarnation.boot and record.boot != known.boot:
                self._effects.append(DuplicateIdentity(node=record.node, boots=(known.boot, record.boot)))
                return
            if record.order <= known.order:
                return
            if not member.renews.take(now_s, self._config.records_per_s, RECORDS_BURST):
                return  # it is told again when tables are compared
            if record.left:
                why = "left"
            elif record.boot != known.boot:
                why = "restarted"
            else:
                why = "refuted" if member.state in (MemberState.SUSPECT, MemberState.FAULTY) else "renewed"
            self._effects.append(RecordLearned(record=record))
            self._change(member, state, why, now_s, record=record)
        if not self._observer:
            self.news.put(f"record/{record.node}", record.signed)

    def _hear_of_myself(self, record: MemberRecord) -> None:
        own = self._own
        if record.boot == own.boot:
            if record.order > own.order and not self._leaving:
                # our own hand, though we do not remember: two processes share boot and key
                self._effects.append(DuplicateIdentity(node=self.me, boots=(own.boot, record.boot)))
                self._refute(record.refutation)
            return
        if record.incarnation.boot >= own.incarnation.boot:
            self._effects.append(DuplicateIdentity(node=self.me, boots=(own.boot, record.boot)))

    def _refute(self, above: int) -> None:
        if above >= MAX_REFUTATION:
            return  # only the next boot can say more
        self._own = self._notary.record(above + 1, left=False)
        self.news.put(f"record/{self.me}", self._own.signed)

    def _hear_accusation(self, accusation: Accusation, now_s: float) -> None:
        subject = self.is_news_accusation(accusation.accuser, prefix_of(accusation.subject), accusation.incarnation)
        if subject is None or not self._within_rate(accusation.accuser, now_s):
            return
        if subject == self.me:
            # we live; but whoever did not hear from us has a reason, so look at ourselves (Lifeguard 4.1)
            self.local_health = moved_health(self.local_health, 1)
            self._refute(self._own.refutation)
            return
        member = self.roster.get(subject)
        assert member is not None
        self._accuse(member, accusation, now_s)

    def _within_rate(self, accuser: NodeId, now_s: float) -> bool:
        by = self.roster.get(accuser)
        # one cut cable makes one side accuse the whole other side at once
        burst = max(8.0, 2.0 * self.nodes)
        return by is not None and by.accuses.take(now_s, self._config.accusations_per_s, burst)

    def _accuse(self, member: Member, accusation: Accusation, now_s: float) -> None:
        """One more accuser of a present member."""
        first = member.state is MemberState.ALIVE
        if first:
            config = self._config
            shortest_s = suspicion_min_s(config.suspicion_multiplier, self.nodes, config.protocol_period_s)
            member.suspect_from_s = now_s
            member.suspect_span_s = (shortest_s, shortest_s * config.suspicion_max_multiplier)
            member.suspect_wanted = confirmations_wanted(config.suspicion_multiplier, self.nodes)
        member.accusations[accusation.accuser] = accusation.signed
        low_s, high_s = member.suspect_span_s
        confirmations = len(member.accusations) - 1
        self._suspects[member.node] = member.suspect_from_s + suspicion_timeout_s(
            low_s, high_s, confirmations, member.suspect_wanted
        )
        self.news.put(f"accusation/{member.node}/{accusation.accuser}", accusation.signed)
        if first:
            by = "no answer" if accusation.accuser == self.me else f"accused by {accusation.accuser[:8]}"
            self._change(member, MemberState.SUSPECT, by, now_s)

    def _suspect(self, member: Member, now_s: float) -> None:
        """This node itself has had no answer."""
        if not member.present or self.me in member.accusations:
            return
        if member.state is MemberState.SUSPECT and len(member.accusations) > member.suspect_wanted:
            return
        self._accuse(member, self._notary.accuse(member.node, member.record.incarnation), now_s)

    # ---- state records

    def _hear_state(self, record: StateRecord, now_s: float) -> None:
        member = self.roster.get(record.node)
        if member is None or not self.is_news_state(record.node, record.order, now_s):
            return
        member.state_record = record
        member.state_taken_s = now_s
        self._effects.append(StateLearned(record=record))
        if len(record.signed) <= MAX_SPREAD_STATE_BYTES and not self._observer:
            self.news.put(f"state/{record.node}", record.signed)

    def _publish_state(self, now_s: float) -> None:
        if self._state_body is None or now_s < self._state_due_s or self._leaving or self._observer:
            return
        version = self._own_state.version + 1 if self._own_state is not None else 1
        self._own_state = self._notary.state(version, self._state_body)
        self._state_body = None
        self._state_due_s = now_s + self._config.state_interval_s
        if len(self._own_state.signed) <= MAX_SPREAD_STATE_BYTES:
            self.news.put(f"state/{self.me}", self._own_state.signed)

    # ---- links

    def _link_opened(self, event: LinkOpened, now_s: float) -> None:
        peer = event.peer
        self._links[peer] = event.boot
        member = self.roster.get(peer)
        items: list[bytes] = [] if self._observer else [self._own.signed]
        if member is not None:
            # what others may still believe of it, so that it can say the opposite
            items += member.accusations.values()
            if member.record.boot == event.boot and member.state in (MemberState.SUSPECT, MemberState.FAULTY):
                self._change(member, MemberState.ALIVE, "linked", now_s)
        if items:
            self._say(peer, Gossip(items=tuple(items)), Path.LINK)
        if self._observer or self._may_compare(peer, now_s):
            self._say(peer, self._summary(), Path.LINK)

    def _link_lost(self, event: LinkLost, now_s: float) -> None:
        self._links.pop(event.peer, None)
        member = self.roster.get(event.peer)
        if member is None or not member.present or self._leaving or self._observer:
            return
        if event.gone:
            self._suspect(member, now_s)
        self._probe(member, now_s)

    def _credential_ended(self, peer: NodeId) -> None:
        self._links.pop(peer, None)
        member = self.roster.get(peer)
        if member is not None:
            self._drop(member, "credential ended")

    def _leave(self) -> None:
        if self._leaving:
            return
        self._leaving = True
        if self._observer:
            return
        self._own = self._notary.record(self._own.refutation, left=True)
        farewell = Gossip(items=(self._own.signed,))
        for member in self.roster:
            if member.present:
                self._say(member.node, farewell, Path.DATAGRAM)

    # ---- comparing tables

    def _summary(self) -> Summary:
        return Summary(entries=self.roster.summary(self._own, self._own_state.version if self._own_state else 0))

    def _may_compare(self, peer: NodeId, now_s: float) -> bool:
        """Take one of the tokens that bound how often we start to compare tables."""
        config = self._config
        self._push_tokens = min(
            float(config.join_push_pulls),
            self._push_tokens + (now_s - self._push_filled_s) / config.push_pull_min_s,
        )
        self._push_filled_s = now_s
        if self._push_tokens < 1.0 or peer not in self._links:
            return False
        self._push_tokens -= 1.0
        return True

    def _compare(self, peer: NodeId, digest: int, now_s: float) -> None:
        """Digests differ and nothing is on its way: compare with that peer, unless we just did."""
        if digest == self.digest() or len(self.news) or self._observer or self._leaving:
            return
        member = self.roster.get(peer)
        if member is None or now_s < member.compared_s + self._config.push_pull_min_s:
            return
        if self._may_compare(peer, now_s):
            member.compared_s = now_s
            self._say(peer, self._summary(), Path.LINK)

    def _answer_summary(self, peer: NodeId, summary: Summary, now_s: float) -> None:
        """Send what the peer lacks, ask for what we lack; nothing that both know."""
        theirs = {entry.prefix: entry for entry in summary.entries}
        items: list[bytes] = []
        for prefix, record, state in self._all():
            entry = theirs.pop(prefix, None)
            if entry is None or (entry.boot, entry.refutation, entry.left) < record.order:
                items.append(record.signed)
            if state is not None and (entry is None or (entry.boot, entry.state_version) < state.order):
                items.append(state.signed)
            member = self.roster.get(record.node)
            if member is not None and entry is not None and (entry.boot, entry.refutation) == record.incarnation:
                items += member.accusations.values()  # the peer may be the one who can refute
        wanted = list(theirs)
        for entry in summary.entries:
            node = self.me if entry.prefix == self._my_prefix else self.roster.named(entry.prefix)
            member = self.roster.get(node) if node is not None else None
            if member is None:
                continue
            version = member.state_record.version if member.state_record is not None else 0
            if (entry.boot, entry.refutation, entry.left) > member.record.order or (
                entry.boot == member.record.incarnation.boot and entry.state_version > version
            ):
                wanted.append(entry.prefix)
        self._send_items(peer, items)
        if wanted:
            self._say(peer, Wanted(prefixes=tuple(wanted)), Path.LINK)

    def _all(self) -> list[tuple[bytes, MemberRecord, StateRecord | None]]:
        mine = [] if self._observer else [(self._my_prefix, self._own, self._own_state)]
        return mine + [(prefix_of(one.node), one.record, one.state_record) for one in self.roster]

    def _send_wanted(self, peer: NodeId, wanted: Wanted) -> None:
        prefixes = set(wanted.prefixes)
        items: list[bytes] = []
        for prefix, record, state in self._all():
            if prefix in prefixes:
                items.append(record.signed)
                if state is not None:
                    items.append(state.signed)
        self._send_items(peer, items)

    def _send_items(self, peer: NodeId, items: list[bytes]) -> None:
        chunk: list[bytes] = []
        size = 0
        for signed in items:
            if chunk and size + len(signed) > LINK_CHUNK_BYTES:
                self._say(peer, Gossip(items=tuple(chunk)), Path.LINK)
                chunk, size = [], 0
            chunk.append(signed)
            size += len(signed) + ITEM_OVERHEAD_BYTES
        if chunk:
            self._say(peer, Gossip(items=tuple(chunk)), Path.LINK)

    # ---- time

    def _time_passed(self, now_s: float) -> None:
        due_s = self.next_deadline_s()
        if due_s is None:
            return
        late_s = now_s - due_s
        if late_s > self._config.protocol_period_s:
            self._overslept(late_s)
        self._probes_due(now_s)
        self._relays_due(now_s)
        for node in sorted(one for one, until_s in self._suspects.items() if until_s <= now_s):
            member = self.roster.get(node)
            assert member is not None
            others = len(member.accusations)
            self._change(member, MemberState.FAULTY, f"silent, {others} accuse it", now_s)
        if self._next_probe_s <= now_s:
            self._period(now_s)
        if self._next_gossip_s <= now_s:
            self._next_gossip_s = now_s + self._config.gossip_interval_s
            self._gossip(now_s)
        if self._next_push_pull_s <= now_s:
            self._next_push_pull_s = now_s + push_pull_s(self._config.push_pull_s, self.nodes)
            linked = [one.node for one in self.roster if one.present and one.node in self._links]
            if linked:
                self._say(self._rng.choice(linked), self._summary(), Path.LINK)
            self._forget(now_s)
        self._publish_state(now_s)

    def _overslept(self, late_s: float) -> None:
        """This process did not run for a while: answers were not read meanwhile, so nobody is judged by the silence."""
        self.local_health = moved_health(self.local_health, 1)
        for probe in self._probes.values():
            probe.timeout_s += late_s
            probe.ends_s += late_s
        for node in self._suspects:
            self._suspects[node] += late_s
            member = self.roster.get(node)
            assert member is not None
            member.suspect_from_s += late_s

    def _period(self, now_s: float) -> None:
        """Probe the next member; tell one that is faulty what is said of it."""
        self._next_probe_s = now_s + scaled_s(self._config.protocol_period_s, self.local_health)
        target = self.roster.next_target()
        if target is not None:
            self._probe(target, now_s)
        dead = self._faulty_lately(now_s)
        if dead:
            lost = self._rng.choice(dead)
            self._say(lost.node, Gossip(items=(self._own.signed, *lost.accusations.values())), Path.DATAGRAM)

    def _faulty_lately(self, now_s: float) -> list[Member]:
        since_s = now_s - self._config.gossip_to_the_dead_s
        return [one for one in self.roster if one.state is MemberState.FAULTY and one.since_s >= since_s]

    def _probe(self, target: Member, now_s: float) -> None:
        if len(self._probes) >= MAX_PROBES or self.awaits(target.node):
            return
        seq = self._next_seq()
        timeout_s = scaled_s(self._config.probe_timeout_s, self.local_health)
        period_s = scaled_s(self._config.protocol_period_s, self.local_health)
        self._probes[seq] = _Probe(target.node, now_s + timeout_s, now_s + period_s)
        self._say(target.node, self._ping(seq, target), Path.DATAGRAM)

    def _ping(self, seq: int, target: Member) -> Ping:
        """A ping with what the target should know: first that it is suspected (buddy), then other news."""
        buddy = tuple(target.accusations.values())
        room_bytes = self._room() - sum(len(one) + ITEM_OVERHEAD_BYTES for one in buddy)
        items = buddy + self._take(room_bytes)
        size = sum(len(one) + ITEM_OVERHEAD_BYTES for one in items)
        pad_bytes = max(0, min(RECORD_ROOM_BYTES, self._room()) - size) if buddy else 0
        return Ping(seq=seq, digest=self.digest(), items=items, pad_bytes=pad_bytes)

    def _probes_due(self, now_s: float) -> None:
        for seq, probe in list(self._probes.items()):
            member = self.roster.get(probe.target)
            if member is None or not member.present:
                del self._probes[seq]
            elif probe.ends_s <= now_s:
                del self._probes[seq]
                missing = len(probe.helpers) - len(probe.nacks)
                self.local_health = moved_health(self.local_health, missing if probe.helpers else 1)
                self._suspect(member, now_s)
            elif probe.timeout_s <= now_s:
                probe.timeout_s = math.inf
                helpers = self.roster.sample(self._config.indirect_probes, without=probe.target)
                probe.helpers = tuple(one.node for one in helpers if one.state is MemberState.ALIVE)
                for helper in probe.helpers:
                    self._say(helper, PingReq(seq=seq, subject=probe.target), Path.DATAGRAM)
                if probe.target in self._links:
                    self._say(probe.target, self._ping(seq, member), Path.LINK)

    def _relays_due(self, now_s: float) -> None:
        for seq, relayed in list(self._relayed.items()):
            if relayed.ends_s <= now_s:
                del self._relayed[seq]
            elif relayed.nack_s <= now_s:
                relayed.nack_s = math.inf
                self._say(relayed.asker, Nack(seq=relayed.seq), Path.DATAGRAM)

    def _gossip(self, now_s: float) -> None:
        if not len(self.news):
            return
        dead_since_s = now_s - self._config.gossip_to_the_dead_s
        for member in self.roster.sample(self._config.gossip_nodes, dead_since_s=dead_since_s):
            items = self._take(self._room())
            if not items:
                return
            self._say(member.node, Gossip(items=items), Path.DATAGRAM)

    def _forget(self, now_s: float) -> None:
        old = [one for one in self.roster if not one.present and one.since_s + self._config.forget_s <= now_s]
        for member in old:
            self._drop(member, "forgotten")

    def _drop(self, member: Member, why: str) -> None:
        """Know a member no more."""
        node = member.node
        self.roster.remove(node)
        self._suspects.pop(node, None)
        for kind in ("record", "state"):
            self.news.drop(f"{kind}/{node}")
        self.news.drop(f"accusation/{node}/")
        self._answered(node)
        self._effects.append(MemberChanged(node=node, before=member.state, state=None, why=why))
