"""What membership is about: records that members sign, messages between them, inputs and effects of the machine.

Records and accusations are values whose signature somebody has checked; `signed` holds the bytes as they travel, so
that they are passed on unchanged. Messages hold items that nobody has checked: those bytes are checked one by one,
and only where they are news (`Membership.is_news`).

Absent here: the machine (membership.py), byte layouts (`wire/gossip.py`), signatures (`identity/membership.py`).

Source: SWIM (Das et al. 2002), Lifeguard (Dadgar et al. 2018); SECURITY-DESIGN 6; DESIGN 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from meshagent.errors import ConfigurationError
from meshagent.types import NodeId

MAX_MEMBERS: Final = 1536
"""Members in the table, about 1 KiB each. Only devices with a known credential get in: the owner bounds it first.
A summary of so many fits one message over a link."""
MAX_ADDRESSES: Final = 4
"""Local addresses in a record (SECURITY-DESIGN 6)."""
MAX_REFUTATION: Final = (1 << 32) - 1
KEY_PREFIX_BYTES: Final = 16
"""An accusation names its subject by so many bytes of its key: two members that share them cannot be made."""


class MemberState(StrEnum):
    """SWIM's words."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    FAULTY = "faulty"
    """No answer for the whole suspicion. It may come back and is then believed at once."""
    LEFT = "left"
    """It said so itself."""


class Incarnation(NamedTuple):
    """Orders what a member says of itself: the counter of its boot, which its journal keeps, then its refutations.

    A restart always outranks whatever was said of the former process, without asking anybody for the old number.
    """

    boot: int
    refutation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRecord:
    """What a member says of itself: I am this boot, there I listen, with this key datagrams to me are sealed."""

    node: NodeId
    boot: bytes
    refutation: int
    left: bool
    exchange: bytes
    """X25519 public key of this boot, 32 bytes."""
    port: int
    addresses: tuple[str, ...]
    signed: bytes
    """As it travels."""

    @property
    def incarnation(self) -> Incarnation:
        return Incarnation(int.from_bytes(self.boot[:8], "big"), self.refutation)

    @property
    def order(self) -> tuple[int, int, bool]:
        """Of two records of one member the higher one holds; leaving is the last word of a boot's number."""
        return (*self.incarnation, self.left)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accusation:
    """`accuser` has had no answer from `subject` in that incarnation."""

    accuser: NodeId
    subject: NodeId
    incarnation: Incarnation
    signed: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StateRecord:
    """What a member offers and how it is: last writer wins by (boot, version). `body` is msgpack for the runtime."""

    node: NodeId
    boot: bytes
    version: int
    body: bytes
    signed: bytes

    @property
    def order(self) -> tuple[int, int]:
        return (int.from_bytes(self.boot[:8], "big"), self.version)


Item = MemberRecord | Accusation | StateRecord


class Notary(Protocol):
    """Signs for this node: pure, quick, never waits."""

    def record(self, refutation: int, *, left: bool) -> MemberRecord:
        """This node's own record in this boot."""

    def accuse(self, subject: NodeId, incarnation: Incarnation) -> Accusation: ...

    def state(self, version: int, body: bytes) -> StateRecord: ...


# ---- messages: what travels, as datagram or over a link. `items` are signed bytes, unchecked.


class Path(StrEnum):
    """How a message goes."""

    DATAGRAM = "datagram"
    """Small and quick, lost at will. Where there is no shared key yet it goes over the link."""
    LINK = "link"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """Are you there? `digest` is that of the sender's table, `pad_bytes` makes room for an answer of that size."""

    seq: int
    digest: int
    items: tuple[bytes, ...] = ()
    pad_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """I am, or: the one you asked me to ping is."""

    seq: int
    digest: int
    items: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Nack:
    """I am here, but the one that you asked me to ping has not answered (Lifeguard 4.1)."""

    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PingReq:
    """Ping `subject` for me. An id, never an address (SECURITY-DESIGN 6)."""

    seq: int
    subject: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Gossip:
    """News, unasked."""

    items: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """All that the sender knows, as orders: key prefix, incarnation, left, version of the state record. Link only."""

    entries: tuple[SummaryEntry, ...]


class SummaryEntry(NamedTuple):
    """One line of a summary."""

    prefix: bytes
    boot: int
    refutation: int
    left: bool
    state_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Send me the records of these (key prefixes). Link only."""

    prefixes: tuple[bytes, ...]


Message = Ping | Ack | Nack | PingReq | Gossip | Summary | Wanted


# ---- inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageHeard:
    """A member said this; its key, or its link, proved who it is."""

    peer: NodeId
    message: Message
    path: Path
    room_bytes: int
    """How much an answer may carry: what the message itself had, so that nobody is made to answer with more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemChecked:
    """Its owner signed this and may speak; `via` brought it."""

    item: Item
    via: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkOpened:
    """A link with `peer` is open and its Hello accepted: it lives, now, in this boot."""

    peer: NodeId
    boot: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkLost:
    """The link ended without a goodbye; `gone` where its kernel says that nobody listens there any more."""

    peer: NodeId
    gone: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SignOfLife:
    """Something else that this peer signed has just arrived over the link."""

    peer: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSet:
    """This node's own state record has a new body."""

    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialEnded:
    """`peer` may speak no more (revoked, expired): it is forgotten."""

    peer: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveRequested:
    """This node shuts down: tell everybody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimePassed:
    """`next_deadline_s()` was reached."""


Input = (
    MessageHeard
    | ItemChecked
    | LinkOpened
    | LinkLost
    | SignOfLife
    | StateSet
    | CredentialEnded
    | LeaveRequested
    | TimePassed
)


# ---- effects


@dataclass(frozen=True, slots=True, kw_only=True)
class Say:
    """Send `message` to `to`; on the datagram path where that works, else over the link, else nowhere."""

    to: NodeId
    message: Message
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberChanged:
    """A member's state, boot or addresses changed. `state` None: it was forgotten."""

    node: NodeId
    before: MemberState | None
    state: MemberState | None
    why: str
    accusers: tuple[NodeId, ...] = ()
    restarted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordLearned:
    """A member's record is new: its key and addresses are these."""

    record: MemberRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class StateLearned:
    """A member's state record is new."""

    record: StateRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateIdentity:
    """Two boots of one number are signed by one key: two devices use one identity."""

    node: NodeId
    boots: tuple[bytes, bytes]


Effect = Say | MemberChanged | RecordLearned | StateLearned | DuplicateIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipConfig:
    """Every duration with its trade-off; defaults are those of `lan`. Seconds of CLOCK_BOOTTIME."""

    protocol_period_s: float = 1.0
    """One member is probed each period. Shorter: a death is seen sooner, and each node sends two packets a period."""
    probe_timeout_s: float = 0.5
    """Without an answer for so long others are asked to probe too. Above the 99th percentile of the round trip."""
    indirect_probes: int = 3
    """k: others that probe for us. The chance of a false suspicion falls with `loss ** k`."""
    suspicion_multiplier: float = 4.0
    """Shortest suspicion: `multiplier * max(1, log10 N) * period`. Longer: slow nodes live, dead ones linger."""
    suspicion_max_multiplier: float = 6.0
    """A suspicion that nobody confirms lasts so many times the shortest (Lifeguard 4.2)."""
    gossip_interval_s: float = 0.2
    """News leaves so often, while there is any. Shorter: news spreads faster, in more packets."""
    gossip_nodes: int = 3
    """Members told each interval."""
    retransmit_multiplier: int = 4
    """Each piece of news is sent `multiplier * ceil(log10(N + 1))` times by each node."""
    packet_bytes: int = 1400
    """Largest datagram: below every common MTU, so that nothing is fragmented."""
    push_pull_s: float = 30.0
    """Tables are compared with one linked member so often (longer above 32 members): what gossip missed."""
    push_pull_min_s: float = 2.0
    """And at most so often where digests differ."""
    join_push_pulls: int = 3
    """Members that a newcomer compares tables with at once; the others get its record alone."""
    gossip_to_the_dead_s: float = 30.0
    """A faulty member is told news for so long, so that it refutes when it was only cut off."""
    forget_s: float = 600.0
    """Faulty and left members stay in the table for so long, for people."""
    accusations_per_s: float = 2.0
    """New accusations that one accuser is heard with; more are dropped (a liar would accuse everybody for ever)."""
    records_per_s: float = 2.0
    """New records that one member is believed with; more wait for a comparison of tables (one that flaps, or lies)."""
    state_interval_s: float = 1.0
    """State records of one member are taken and passed on at most so often."""

    def __post_init__(self) -> None:
        for name in ("protocol_period_s", "gossip_interval_s", "push_pull_s", "push_pull_min_s", "forget_s"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigurationError(f"{name} is a positive number of seconds, not {getattr(self, name)!r}")
        if not 0 < self.probe_timeout_s < self.protocol_period_s:
            raise ConfigurationError(
                f"probe_timeout_s is {self.probe_timeout_s:g}; it lies between 0 and protocol_period_s, "
                f"{self.protocol_period_s:g}: the rest of the period is for others' probes"
            )
        if self.suspicion_multiplier < 1 or self.suspicion_max_multiplier < 1:
            raise ConfigurationError("suspicion multipliers are at least 1")
        if not 400 <= self.packet_bytes <= 1400:
            raise ConfigurationError("packet_bytes lies between 400 and 1400")


PRESETS: Final[Mapping[str, MembershipConfig]] = MappingProxyType(
    {
        # one machine: answers take 0.1 ms, but a busy processor may starve a process for 100 ms
        "loopback": MembershipConfig(
            protocol_period_s=0.25,
            probe_timeout_s=0.12,
            gossip_interval_s=0.05,
            push_pull_s=10.0,
            push_pull_min_s=0.5,
        ),
        # switched or good radio; memberlist's figures
        "lan": MembershipConfig(),
        # moving robots: seconds of shadow are normal and no reason to give anybody up
        "field": MembershipConfig(
            protocol_period_s=3.0,
            probe_timeout_s=1.5,
            suspicion_multiplier=5.0,
            gossip_interval_s=0.5,
            push_pull_s=60.0,
            gossip_to_the_dead_s=120.0,
        ),
    }
)
"""Timings by the name that the configuration gives them."""
