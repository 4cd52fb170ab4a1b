"""The body of a state record: what a member offers and how it is, as msgpack that every reader checks.

A profile says the same on each link and in full; this travels through others, so it is short: names of kinds without
how they read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from meshagent.core.bodies import Profile
from meshagent.identity.membership import MAX_STATE_BYTES
from meshagent.strictpack import StrictDecodeError, StrictEncodeError, packb, unpackb

MAX_WORDS: Final = 64
MAX_CHARS: Final = 128
MAX_QUEUE: Final = 1 << 31
MAX_POSITION_M: Final = 1e8
"""As in a profile: beyond is no place on earth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberFacts:
    """What a member says of itself, as it reached us."""

    name: str
    roles: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    battery_soc: float | None = None
    position_m: tuple[float, float] | None = None
    queue: int = 0
    software: str = ""


def facts_of(profile: Profile) -> MemberFacts:
    """The short form of a profile."""
    return MemberFacts(
        name=profile.name[:MAX_CHARS],
        roles=_cut(profile.roles),
        kinds=_cut(tuple(sorted(profile.kinds))),
        capabilities=_cut(profile.capabilities),
        battery_soc=None if profile.battery_soc is None else round(profile.battery_soc, 3),
        position_m=profile.position_m,
        queue=profile.queue,
        software=profile.software[:MAX_CHARS],
    )


def _cut(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(one[:MAX_CHARS] for one in words[:MAX_WORDS])


def write_facts(facts: MemberFacts) -> bytes:
    """The body of a state record; what does not fit is left out, the longest lists first."""
    fields: dict[str, object] = {
        "name": facts.name,
        "roles": list(facts.roles),
        "kinds": list(facts.kinds),
        "capabilities": list(facts.capabilities),
        "battery": facts.battery_soc,
        "position": None if facts.position_m is None else list(facts.position_m),
        "queue": facts.queue,
        "software": facts.software,
    }
    for leave_out in ("", "capabilities", "kinds", "roles"):
        if leave_out:
            fields[leave_out] = []
        body = packb(fields)
        if len(body) <= MAX_STATE_BYTES:
            return body
    raise StrictEncodeError("the facts of this node fit no state record")


def read_facts(body: bytes) -> MemberFacts | None:
    """The facts in a state record; None where they are not what they must be (a member may sign nonsense)."""
    try:
        fields = unpackb(body, max_bytes=MAX_STATE_BYTES)
    except StrictDecodeError:
        return None
    if not isinstance(fields, dict):
        return None
    name, software, queue = fields.get("name"), fields.get("software"), fields.get("queue")
    if not isinstance(name, str) or not isinstance(software, str) or len(name) + len(software) > 2 * MAX_CHARS:
        return None
    if type(queue) is not int or not 0 <= queue <= MAX_QUEUE:
        return None
    lists = [_words(fields.get(key)) for key in ("roles", "kinds", "capabilities")]
    roles, kinds, capabilities = lists
    battery, position = fields.get("battery"), fields.get("position")
    if roles is None or kinds is None or capabilities is None:
        return None
    if battery is not None and not (_is_number(battery) and 0.0 <= battery <= 1.0):
        return None
    if position is not None and not (
        isinstance(position, list)
        and len(position) == 2
        and all(_is_number(one) and abs(one) <= MAX_POSITION_M for one in position)
    ):
        return None
    return MemberFacts(
        name=name,
        roles=roles,
        kinds=kinds,
        capabilities=capabilities,
        battery_soc=None if battery is None else float(battery),
        position_m=None if position is None else (float(position[0]), float(position[1])),
        queue=queue,
        software=software,
    )


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _words(value: object) -> tuple[str, ...] | None:
    if not isinstance(value, list) or len(value) > MAX_WORDS:
        return None
    if any(not isinstance(one, str) or len(one) > MAX_CHARS for one in value):
        return None
    return tuple(value)
