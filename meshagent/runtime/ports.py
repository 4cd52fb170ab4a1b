"""The seams inside the node: links below, driver in the middle, agents and operators above.

transport -> Links (links.py) -> Driver (driver.py: machines, journal, one flush a loop turn) -> Agents (agents.py)
                                                 |-> Observers (story.py for `why`, operator API, logs)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from meshagent.core.bodies import (
    Body,
    EventMessage,
    MembershipMessage,
    Profile,
    RevocationNotice,
    StoryQuery,
    StoryReply,
)
from meshagent.core.contract_net.interface import (
    Evidence,
    GrantPointOfNoReturn,
    LeaseMoved,
    Noted,
    StartWork,
    StopWork,
    TaskChanged,
)
from meshagent.core.ports import LinkClosed
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


class LinkWitness(Protocol):
    """What Links tells membership: `runtime/keeper.py`."""

    def link_up(self, peer: NodeId, boot: bytes, host: str) -> None:
        """Its Hello was accepted; `host` is the literal address at the other end, or empty."""

    def link_down(self, peer: NodeId, why: LinkClosed) -> None:
        """The link is gone, or the redial found nobody."""

    def heard(self, peer: NodeId) -> None:
        """Something that it signed has arrived."""

    def message(self, peer: NodeId, message: MembershipMessage) -> None:
        """It passed the gate."""

    def credential_ended(self, peer: NodeId) -> None:
        """It may speak no more."""


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
    "LinkWitness",
    "Observer",
    "Peer",
    "Profile",
    "RevocationNotice",
    "StoryQuery",
    "StoryReply",
    "WorkHost",
]
