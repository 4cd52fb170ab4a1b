"""What nodes say to each other beside the acts of the contract net, as plain values.

They stand here so that the codec of `wire` and the node of `runtime` share them; `runtime/ports.py` hands them on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from meshagent.core.acts import Act, RejectProposal


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejections:
    """Rejections that waited for a frame to ride with, in one message: under load most of what an initiator says."""

    acts: tuple[RejectProposal, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipMessage:
    """A message of membership on a link: kind and body as `wire/gossip.py` lays them out."""

    kind: int
    body: bytes


Body = Act | Rejections | Profile | EventMessage | StoryQuery | StoryReply | RevocationNotice | MembershipMessage
"""Everything that travels inside an envelope after the Hello. Codec: wire/codec.py."""
