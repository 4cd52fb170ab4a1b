"""What people may see of membership: parts of the documents behind `status` and `peers`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from meshagent.core.members import MemberState
from meshagent.runtime.keeper import Keeper, MemberView
from meshagent.types import NodeId

NameOf = Callable[[NodeId], str]


def membership_document(keeper: Keeper | None, name_of: NameOf) -> dict[str, Any] | None:
    """How this node takes part; None where membership is off."""
    if keeper is None:
        return None
    states = Counter(view.state for view in keeper.members())
    machine = keeper.machine
    return {
        "members": {state.value: states[state] for state in MemberState},
        "incarnation": list(machine.own.incarnation),
        "local_health": machine.local_health,
        "digest": f"{machine.digest():08x}",
        "datagrams": {
            "sent": keeper.sent,
            "sent_bytes": keeper.sent_bytes,
            "links_without": keeper.linked_without_datagrams,
        },
        "dropped": dict(sorted(keeper.dropped.items())),
        "duplicates": [{"id": node, "name": name_of(node)} for node in sorted(keeper.duplicates)],
    }


def members_by_id(keeper: Keeper | None) -> Mapping[NodeId, MemberView]:
    """All members; empty where membership is off."""
    return {} if keeper is None else {view.node: view for view in keeper.members()}


def member_document(view: MemberView | None, name_of: NameOf, now_s: float) -> dict[str, Any] | None:
    """What membership says of one peer, with those who accuse it."""
    if view is None:
        return None
    return {
        "state": view.state.value,
        "since_s": round(now_s - view.since_s, 3),
        "incarnation": list(view.incarnation),
        "accused_by": [{"id": node, "name": name_of(node)} for node in view.accusers],
        "faulty_in_s": None if view.faulty_in_s is None else round(view.faulty_in_s, 3),
        "by_datagram": view.by_datagram,
    }


def unlinked_row(view: MemberView, name_of: NameOf, now_s: float) -> dict[str, Any]:
    """A row of `peers` for a member to which this node never had a link."""
    facts = view.facts
    return {
        "id": view.node,
        "name": facts.name if facts is not None else name_of(view.node),
        "state": "unlinked",
        "roles": list(facts.roles) if facts is not None else [],
        "kinds": dict.fromkeys(facts.kinds, "") if facts is not None else {},
        "capabilities": list(facts.capabilities) if facts is not None else [],
        "battery_soc": facts.battery_soc if facts is not None else None,
        "position_m": list(facts.position_m) if facts is not None and facts.position_m is not None else None,
        "queue": facts.queue if facts is not None else None,
        "visitor": False,
        "software": facts.software if facts is not None else "",
        "address": f"{view.addresses[0]} port {view.port}" if view.addresses else "",
        "linked_s": None,
        "lost_s": None,
        "why": "no link yet" if view.state is MemberState.ALIVE else view.state.value,
        "rtt_s": None,
        "clock_offset_s": None,
        "member": member_document(view, name_of, now_s),
    }
