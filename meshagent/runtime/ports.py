"""The seams inside the node: links below, driver in the middle, agents and operators above.

transport -> Links (links.py) -> Driver (driver.py: machines, journal, one flush a loop turn) -> Agents (agents.py)
                                                 |-> Observers (story.py for `why`, operator API, logs)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from meshagent.core.bodies import Body, EventMessage, Profile, RevocationNotice, StoryQuery, StoryReply
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

    def peer_changed(self, peer: NodeId) -> None:
        """Battery, position or queue of a ready peer changed; what it offers did not (that is `peer_ready` again)."""

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


__all__ = [
    "Body",
    "EventMessage",
    "LinkObserver",
    "Observer",
    "Peer",
    "Profile",
    "RevocationNotice",
    "StoryQuery",
    "StoryReply",
    "WorkHost",
]
