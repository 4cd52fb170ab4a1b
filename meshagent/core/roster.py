"""The table of members: who is known in which state, in which order they are probed, and what the table amounts to.

Plain state and lookups; who decides is membership.py.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from random import Random
from typing import Final

from meshagent.core.members import (
    KEY_PREFIX_BYTES,
    MAX_MEMBERS,
    MemberRecord,
    MemberState,
    StateRecord,
    SummaryEntry,
)
from meshagent.types import NodeId, public_key_of

PRESENT: Final = frozenset({MemberState.ALIVE, MemberState.SUSPECT})
"""States of members that take part: probed, told, counted."""


def prefix_of(node: NodeId) -> bytes:
    """The bytes by which accusations and summaries name a member."""
    return public_key_of(node)[:KEY_PREFIX_BYTES]


class Allowance:
    """How much of something one member may still do: full at first, refilled at a rate."""

    __slots__ = ("_at_s", "_left")

    def __init__(self) -> None:
        self._left = math.inf
        self._at_s = 0.0

    def take(self, now_s: float, per_s: float, burst: float) -> bool:
        """Take one, if there is one."""
        self._left = min(burst, self._left + max(0.0, now_s - self._at_s) * per_s)
        self._at_s = now_s
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Member:
    """One member as this node sees it."""

    __slots__ = (
        "accusations",
        "accuses",
        "compared_s",
        "node",
        "record",
        "renews",
        "since_s",
        "state",
        "state_record",
        "state_taken_s",
        "suspect_from_s",
        "suspect_span_s",
        "suspect_wanted",
        "warned_s",
    )

    def __init__(self, record: MemberRecord, state: MemberState, now_s: float) -> None:
        self.node = record.node
        self.record = record
        self.state = state
        self.since_s = now_s
        self.accusations: dict[NodeId, bytes] = {}
        """Accuser -> its signed accusation of the present incarnation, in the order of hearing."""
        self.suspect_from_s = 0.0
        self.suspect_span_s = (0.0, 0.0)
        """Shortest and longest suspicion, fixed when it began."""
        self.suspect_wanted = 0
        self.state_record: StateRecord | None = None
        self.state_taken_s = -math.inf
        self.compared_s = -math.inf
        """When tables were last compared because digests differed."""
        self.warned_s = -math.inf
        """When it was last told what it is accused of."""
        self.accuses = Allowance()
        self.renews = Allowance()

    @property
    def present(self) -> bool:
        return self.state in PRESENT


class Roster:
    """All members but this node."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._members: dict[NodeId, Member] = {}
        self._by_prefix: dict[bytes, NodeId] = {}
        self._ring: list[NodeId] = []
        self._next = 0
        self._digest = 0
        self._present = 0

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members.values())

    def get(self, node: NodeId) -> Member | None:
        return self._members.get(node)

    def named(self, prefix: bytes) -> NodeId | None:
        """The member whose key begins so."""
        return self._by_prefix.get(prefix)

    @property
    def present(self) -> int:
        """Members that are alive or suspect."""
        return self._present

    def digest(self, own: MemberRecord) -> int:
        """32 bits that two nodes share when they believe the same of everybody who is present, themselves included."""
        return self._digest ^ fingerprint(own)

    def crowded_by(self) -> Member | None:
        """Whom a newcomer may push out of a full table: the one that is gone for longest; None: nobody."""
        gone = [one for one in self._members.values() if not one.present]
        return min(gone, key=lambda one: (one.since_s, one.node)) if gone else None

    @property
    def full(self) -> bool:
        return len(self._members) >= MAX_MEMBERS

    def add(self, record: MemberRecord, state: MemberState, now_s: float) -> Member:
        """A new member; the caller has made room."""
        assert not self.full
        member = self._members[record.node] = Member(record, state, now_s)
        self._by_prefix[prefix_of(record.node)] = record.node
        # at a random place, so that newcomers do not wait in step for the end of the round (SWIM 4.3)
        at = self._rng.randint(0, len(self._ring))
        self._ring.insert(at, record.node)
        if at < self._next:
            self._next += 1
        self._count(member, 1)
        return member

    def remove(self, node: NodeId) -> None:
        member = self._members.pop(node)
        self._count(member, -1)
        del self._by_prefix[prefix_of(node)]
        at = self._ring.index(node)
        del self._ring[at]
        if at < self._next:
            self._next -= 1

    def put(self, member: Member, record: MemberRecord, state: MemberState) -> None:
        """Exchange record and state of a member, and keep digest and count."""
        self._count(member, -1)
        member.record = record
        member.state = state
        self._count(member, 1)

    def _count(self, member: Member, sign: int) -> None:
        if member.present:
            self._present += sign
            self._digest ^= fingerprint(member.record)

    def next_target(self) -> Member | None:

        for _ in range(len(self._ring)):
            if self._next >= len(self._ring):
                self._rng.shuffle(self._ring)
                self._next = 0
            member = self._members[self._ring[self._next]]
            self._next += 1
            if member.present:
                return member
        return None

    def sample(self, count: int, *, without: NodeId | None = None, dead_since_s: float | None = None) -> list[Member]:
        """Up to `count` present members by lot; with `dead_since_s` also those faulty for no longer than since then."""
        choice = [
            one
            for one in self._members.values()
            if one.node != without
            and (
                one.present
                or (dead_since_s is not None and one.state is MemberState.FAULTY and one.since_s >= dead_since_s)
            )
        ]
        return choice if len(choice) <= count else self._rng.sample(choice, count)

    def summary(self, own: MemberRecord, own_state_version: int) -> tuple[SummaryEntry, ...]:
        """All records that are known, as orders; faulty members too, so that whoever knows better can say so."""
        entries = [_entry(own, own_state_version)]
        for member in self._members.values():
            version = member.state_record.version if member.state_record is not None else 0
            entries.append(_entry(member.record, version))
        return tuple(entries)


def _entry(record: MemberRecord, state_version: int) -> SummaryEntry:
    boot, refutation = record.incarnation
    return SummaryEntry(prefix_of(record.node), boot, refutation, record.left, state_version)


def fingerprint(record: MemberRecord) -> int:
    """32 bits of what a record claims."""
    claims = public_key_of(record.node) + record.boot + record.refutation.to_bytes(4, "big")
    return int.from_bytes(hashlib.blake2b(claims, digest_size=4).digest(), "big")
