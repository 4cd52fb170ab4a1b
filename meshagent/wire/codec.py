"""`Body` to payload bytes and back: what the gate calls once it has verified, and Links before it seals.

Every bound of contract.proto is checked on the way in. Absent here: acts (acts.py), frames and proofs (frame.py), the
Hello, which is no body (identity/hello.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from google.protobuf import message

from meshagent.core.acts import MAX_TEXT_CHARS
from meshagent.core.bodies import (
    Body,
    EventMessage,
    MembershipMessage,
    Profile,
    Rejections,
    RevocationNotice,
    StoryQuery,
    StoryReply,
)
from meshagent.wire import acts, ids
from meshagent.wire.errors import DecodeError, EncodeError
from meshagent.wire.v1 import contract_pb2 as pb

MAX_PAYLOAD_BYTES: Final = 64 * 1024
"""SECURITY-DESIGN 1."""
MAX_NAME_CHARS: Final = 64
MAX_WORD_CHARS: Final = 128
MAX_ROLES: Final = 64
MAX_KINDS: Final = 256
MAX_CAPABILITIES: Final = 64
MAX_EVENT_BYTES: Final = 48 * 1024
MAX_STORY_TASK_CHARS: Final = 64
MAX_STORY_BYTES: Final = 60 * 1024
MAX_LISTS: Final = 64
MAX_LISTS_BYTES: Final = 65_000
"""A notice fits one payload; whoever has more lists sends several notices."""
MAX_MEMBERSHIP_BYTES: Final = 64_000
MAX_MEMBERSHIP_KIND: Final = 255
MAX_POSITION_M: Final = 1e8
"""Metres from the site's origin: anything beyond is no place on earth."""
MAX_PORT: Final = 65535

TYPE_PROFILE: Final = int(pb.MESSAGE_TYPE_PROFILE)
TYPE_EVENT: Final = int(pb.MESSAGE_TYPE_EVENT)
TYPE_STORY_QUERY: Final = int(pb.MESSAGE_TYPE_STORY_QUERY)
TYPE_STORY_REPLY: Final = int(pb.MESSAGE_TYPE_STORY_REPLY)
TYPE_REVOCATION_NOTICE: Final = int(pb.MESSAGE_TYPE_REVOCATION_NOTICE)
TYPE_MEMBERSHIP: Final = int(pb.MESSAGE_TYPE_MEMBERSHIP)
TYPE_PROPOSE: Final = int(pb.MESSAGE_TYPE_PROPOSE)
TYPE_REJECT_PROPOSAL: Final = int(pb.MESSAGE_TYPE_REJECT_PROPOSAL)
TYPE_REFUSE: Final = int(pb.MESSAGE_TYPE_REFUSE)

TYPE_OF: Final[dict[type, int]] = {
    **acts.TYPE_OF_ACT,
    Rejections: TYPE_REJECT_PROPOSAL,
    Profile: TYPE_PROFILE,
    EventMessage: TYPE_EVENT,
    StoryQuery: TYPE_STORY_QUERY,
    StoryReply: TYPE_STORY_REPLY,
    RevocationNotice: TYPE_REVOCATION_NOTICE,
    MembershipMessage: TYPE_MEMBERSHIP,
}
"""Class of a body -> number in the header."""


def encode(body: Body) -> tuple[int, bytes]:
    """The number for the header and the payload bytes of `body`.

    Raises:
        EncodeError: a value breaks a bound of the wire, or `body` is no body.
    """
    cls = type(body)
    encoder = _ENCODERS.get(cls)
    if encoder is None:
        raise EncodeError(f"{cls.__name__} does not travel")
    try:
        payload = encoder(body)
    except (ValueError, TypeError, KeyError, UnicodeError) as error:
        # protobuf refuses negative, too large and mistyped values with these.
        raise EncodeError(f"{cls.__name__}: {error}") from error
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise EncodeError(f"{cls.__name__} has {len(payload)} bytes, at most {MAX_PAYLOAD_BYTES} travel")
    return TYPE_OF[cls], payload


def decode(message_type: int, payload: bytes) -> Body:
    """The body behind a payload of that type.

    Raises:
        DecodeError: unknown type, not such a message, or a bound is broken.
    """
    found = _DECODERS.get(message_type)
    if found is None:
        raise DecodeError(f"unknown message type {message_type}")
    parse, convert = found
    try:
        return convert(parse(payload))
    except message.DecodeError as error:
        raise DecodeError(f"not a message of type {message_type}") from error


# ---- bodies that are no acts


def _rejections(r: Rejections) -> bytes:
    if not 1 <= len(r.acts) <= acts.MAX_REJECTIONS:
        raise EncodeError(f"1 to {acts.MAX_REJECTIONS} rejections travel together")
    return acts.join_rejections([acts.rejection_bytes(one) for one in r.acts])


def _words(values: tuple[str, ...], limit: int, what: str) -> list[str]:
    if len(values) > limit or any(len(one) > MAX_WORD_CHARS for one in values):
        raise EncodeError(f"{what}: at most {limit} of {MAX_WORD_CHARS} characters")
    return list(values)


def _profile(p: Profile) -> bytes:
    if len(p.kinds) > MAX_KINDS or any(not acts.is_word(kind, acts.MAX_KIND_CHARS) for kind in p.kinds):
        raise EncodeError(f"a profile offers at most {MAX_KINDS} kinds of {acts.MAX_KIND_CHARS} printable characters")
    x_m, y_m = p.position_m if p.position_m is not None else (None, None)
    return pb.Profile(
        version=p.version,
        name=p.name[:MAX_NAME_CHARS],
        roles=_words(p.roles, MAX_ROLES, "roles"),
        kinds=[pb.KindOffered(kind=kind, reads=p.kinds[kind][:MAX_TEXT_CHARS]) for kind in sorted(p.kinds)],
        capabilities=_words(p.capabilities, MAX_CAPABILITIES, "capabilities"),
        battery_soc=p.battery_soc,
        x_m=x_m,
        y_m=y_m,
        queue=p.queue,
        software=p.software[:MAX_WORD_CHARS],
        visitor=p.visitor,
        listen_port=p.listen_port,
    ).SerializeToString()


def _event(e: EventMessage) -> bytes:
    if not acts.is_word(e.name, MAX_WORD_CHARS) or len(e.body) > MAX_EVENT_BYTES:
        raise EncodeError(f"event {e.name[:40]!r}: at most {MAX_WORD_CHARS} characters and {MAX_EVENT_BYTES} bytes")
    return pb.Event(name=e.name, body=e.body).SerializeToString()


def _story_query(q: StoryQuery) -> bytes:
    return pb.StoryQuery(query=q.query, task=q.task[:MAX_STORY_TASK_CHARS]).SerializeToString()


def _story_reply(r: StoryReply) -> bytes:
    if len(r.lines) > MAX_STORY_BYTES:
        raise EncodeError(f"a story has at most {MAX_STORY_BYTES} bytes")
    return pb.StoryReply(
        query=r.query, task=r.task[:MAX_STORY_TASK_CHARS], lines=r.lines, truncated=r.truncated
    ).SerializeToString()


def _revocation_notice(n: RevocationNotice) -> bytes:
    if len(n.lists) > MAX_LISTS or sum(map(len, n.lists)) > MAX_LISTS_BYTES:
        raise EncodeError(f"a notice has at most {MAX_LISTS} lists and {MAX_LISTS_BYTES} bytes")
    return pb.RevocationNotice(lists=n.lists).SerializeToString()


def _membership(m: MembershipMessage) -> bytes:
    if len(m.body) > MAX_MEMBERSHIP_BYTES:
        raise EncodeError(f"a message of membership has at most {MAX_MEMBERSHIP_BYTES} bytes")
    return pb.Membership(kind=m.kind, body=m.body).SerializeToString()


def _bounded(text: str, limit: int, what: str) -> str:
    if len(text) > limit:
        raise DecodeError(f"{what} has at most {limit} characters")
    return text


def _finite(value: float, low: float, high: float, what: str) -> float:
    if not (math.isfinite(value) and low <= value <= high):
        raise DecodeError(f"{what} is out of range")
    return value


def _many(values: Any, limit: int, what: str) -> tuple[str, ...]:
    if len(values) > limit:
        raise DecodeError(f"at most {limit} {what}")
    return tuple(_bounded(one, MAX_WORD_CHARS, what) for one in values)


def _to_profile(m: pb.Profile) -> Profile:
    if len(m.kinds) > MAX_KINDS:
        raise DecodeError(f"at most {MAX_KINDS} kinds")
    kinds: dict[str, str] = {}
    before = ""
    for one in m.kinds:
        kind = one.kind
        if kind <= before or not acts.is_word(kind, acts.MAX_KIND_CHARS):
            raise DecodeError("kinds are printable, sorted, and none twice")
        kinds[kind] = _bounded(one.reads, MAX_TEXT_CHARS, "how a kind reads")
        before = kind
    has_x, has_y = m.HasField("x_m"), m.HasField("y_m")
    if has_x != has_y:
        raise DecodeError("a position has two coordinates")
    if m.listen_port > MAX_PORT:
        raise DecodeError("a port is at most 65535")
    if m.version > ids.MAX_COUNTER or m.queue > ids.MAX_COUNTER:
        raise DecodeError("version or queue is out of range")
    position = None
    if has_x:
        position = (
            _finite(m.x_m, -MAX_POSITION_M, MAX_POSITION_M, "x_m"),
            _finite(m.y_m, -MAX_POSITION_M, MAX_POSITION_M, "y_m"),
        )
    return Profile(
        version=m.version,
        name=_bounded(m.name, MAX_NAME_CHARS, "a name"),
        roles=_many(m.roles, MAX_ROLES, "roles"),
        kinds=kinds,
        capabilities=_many(m.capabilities, MAX_CAPABILITIES, "capabilities"),
        battery_soc=_finite(m.battery_soc, 0.0, 1.0, "battery_soc") if m.HasField("battery_soc") else None,
        position_m=position,
        queue=m.queue,
        software=_bounded(m.software, MAX_WORD_CHARS, "software"),
        visitor=m.visitor,
        listen_port=m.listen_port,
    )


def _to_event(m: pb.Event) -> EventMessage:
    name, body = m.name, m.body
    if not acts.is_word(name, MAX_WORD_CHARS):
        raise DecodeError("the name of an event is 1 to 128 printable characters without space")
    if len(body) > MAX_EVENT_BYTES:
        raise DecodeError(f"an event has at most {MAX_EVENT_BYTES} bytes")
    return EventMessage(name=name, body=body)


def _to_story_query(m: pb.StoryQuery) -> StoryQuery:
    return StoryQuery(query=m.query, task=_bounded(m.task, MAX_STORY_TASK_CHARS, "a task"))


def _to_story_reply(m: pb.StoryReply) -> StoryReply:
    lines = m.lines
    if len(lines) > MAX_STORY_BYTES:
        raise DecodeError(f"a story has at most {MAX_STORY_BYTES} bytes")
    return StoryReply(
        query=m.query, task=_bounded(m.task, MAX_STORY_TASK_CHARS, "a task"), lines=lines, truncated=m.truncated
    )


def _to_revocation_notice(m: pb.RevocationNotice) -> RevocationNotice:
    lists = tuple(m.lists)
    if len(lists) > MAX_LISTS or sum(map(len, lists)) > MAX_LISTS_BYTES:
        raise DecodeError(f"a notice has at most {MAX_LISTS} lists and {MAX_LISTS_BYTES} bytes")
    return RevocationNotice(lists=lists)


def _to_membership(m: pb.Membership) -> MembershipMessage:
    body = m.body
    if len(body) > MAX_MEMBERSHIP_BYTES or m.kind > MAX_MEMBERSHIP_KIND:
        raise DecodeError(f"a message of membership has at most {MAX_MEMBERSHIP_BYTES} bytes")
    return MembershipMessage(kind=m.kind, body=body)


_ENCODERS: Final[dict[type, Callable[[Any], bytes]]] = {
    **acts.ENCODERS,
    Rejections: _rejections,
    Profile: _profile,
    EventMessage: _event,
    StoryQuery: _story_query,
    StoryReply: _story_reply,
    RevocationNotice: _revocation_notice,
    MembershipMessage: _membership,
}

_DECODERS: Final[dict[int, tuple[Callable[[bytes], Any], Callable[[Any], Body]]]] = {
    **acts.DECODERS,
    TYPE_PROFILE: (pb.Profile.FromString, _to_profile),
    TYPE_EVENT: (pb.Event.FromString, _to_event),
    TYPE_STORY_QUERY: (pb.StoryQuery.FromString, _to_story_query),
    TYPE_STORY_REPLY: (pb.StoryReply.FromString, _to_story_reply),
    TYPE_REVOCATION_NOTICE: (pb.RevocationNotice.FromString, _to_revocation_notice),
    TYPE_MEMBERSHIP: (pb.Membership.FromString, _to_membership),
}
