"""The seams inside the node: links below, driver in the middle, agents and operators above.

transport -> Links (links.py) -> Driver (driver.py: machines, journal, one flush a loop turn) -> Agents (agents.py)
                                                 |-> Observers (story.py for `why`, operator API, logs)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from meshagent.core.acts import Act
from meshagent.core.contract_net.interface import (
    Evidence,
    GrantPointOfNoReturn,
    LeaseMoved,
    Noted,
    StartWork,
    StopWork,
    TaskChanged,
)
from meshagent.types import NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a node says of itself on every link after the Hello, and again when it changes. Signed by its owner."""

    version: int
    """Grows with every change in one boot; the higher one wins."""
    name: str
    """For people; never trusted, escaped when printed."""
    roles: tuple[str, ...] = ()
    kinds: Mapping[str, str] = field(default_factory=dict)
    """Task kind -> how it reads, `CheckContact(site: str, suspected: str) -> Finding`."""
    capabilities: tuple[str, ...] = ()
    battery_soc: float | None = None
    position_m: tuple[float, float] | None = None
    queue: int = 0
    software: str = ""
    visitor: bool = False
    listen_port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EventMessage:
    """A role's event (`ctx.emit`): news that may be lost. `body` is msgpack that the SDK interprets."""

    name: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StoryQuery:
    """`why`: tell me what you noted about this task."""

    query: int
    task: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoryReply:
    """The answer: msgpack lines of story.py, cut at the payload limit (`truncated`)."""

    query: int
    task: str
    lines: bytes
    truncated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationNotice:
    """Signed revocation lists as identity/revocation.py serializes them; merged, then spread onwards."""

    lists: tuple[bytes, ...]


Body = Act | Profile | EventMessage | StoryQuery | StoryReply | RevocationNotice
"""Everything that travels inside an envelope after the Hello. Codec: wire/codec.py."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A linked peer as the node knows it."""

    id: NodeId
    address: str
    since_s: float
    profile: Profile | None
    rtt_s: float | None
    clock_offset_s: float | None


class LinkObserver(Protocol):
    """What Links tells the driver."""

    def message_received(self, peer: NodeId, body: Body, evidence: Evidence) -> None:
        """Passed the gate, in the order of the link."""

    def peer_ready(self, peer: NodeId) -> None:
        """Hello exchanged and the first profile received."""

    def peer_lost(self, peer: NodeId, why: str) -> None:
        """No link and no way to it right now; evidence, not proof of death."""


class WorkHost(Protocol):
    """The agents: what the driver orders them to do, after the tick's commit."""

    def start_work(self, effect: StartWork) -> None: ...

    def move_lease(self, effect: LeaseMoved) -> None: ...

    def stop_work(self, effect: StopWork) -> None: ...

    def grant_point_of_no_return(self, effect: GrantPointOfNoReturn) -> None: ...

    def event_received(self, peer: NodeId, event: EventMessage) -> None: ...


class Observer(Protocol):
    """Who wants to know: pending submissions, the story, `watch`, logs. Called after the tick's commit."""

    def task_changed(self, change: TaskChanged) -> None: ...

    def noted(self, note: Noted, at_wall_s: float) -> None: ...

    def peers_changed(self) -> None: ...
