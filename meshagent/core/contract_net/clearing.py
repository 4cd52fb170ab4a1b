"""Who wins a call: pure functions of the set of bids, in exact integers, so that every observer agrees.

An infeasible bid is a refusal and never comes here. The potential (L + d)^p - L^p is argued in DESIGN 6.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Set
from typing import Final, NamedTuple

from meshagent.types import NodeId, TaskId

MAX_COST_MS: Final = 1 << 47
"""Some 4,400 years. A bid outside 0..MAX_COST_MS is nonsense; the bound keeps (L + d)^8 below 400 bits."""


class Bid(NamedTuple):
    """What one peer asks for one task."""

    peer: NodeId
    added_ms: int
    load_ms: int
    holds_result: bool = False


def plausible(added_ms: int, load_ms: int) -> bool:
    """True where both are whole milliseconds that a plan can have."""
    return type(added_ms) is type(load_ms) is int and 0 <= added_ms <= MAX_COST_MS and 0 <= load_ms <= MAX_COST_MS


def score(added_ms: int, load_ms: int, potential_p: int) -> int:
    """What accepting adds to the potential of the bidder's plan: (load + added)^p - load^p. Lower wins."""
    return int((load_ms + added_ms) ** potential_p - load_ms**potential_p)


def tie_break(task: TaskId, peer: NodeId) -> bytes:
    """Orders equal scores: fair over many tasks, the same for everyone, and nobody's choice."""
    return hashlib.sha256(f"{task}|{peer}".encode()).digest()[:8]


def rank(task: TaskId, bids: Iterable[Bid], potential_p: int, gave_back: Set[NodeId] = frozenset()) -> list[Bid]:
    """The bids, best first.

    A bidder that already holds the result comes before all others: nothing is left to do. Who has given this very
    task back comes after all others, else the cheapest wins, gives back, and wins again. At most one bid a peer.
    """

    def key(bid: Bid) -> tuple[bool, bool, int, bytes, NodeId]:
        return (
            not bid.holds_result,
            bid.peer in gave_back,
            score(bid.added_ms, bid.load_ms, potential_p),
            tie_break(task, bid.peer),
            bid.peer,
        )

    return sorted(bids, key=key)


def within_tolerance(bid: tuple[int, int], now: tuple[int, int], tolerance: float) -> bool:
    """Whether a price still stands at the award; both are (added_ms, load_ms).

    What the addition and the load have grown by, together, may be at most `tolerance` of the plan's end in the bid.
    Compared in time and not in the potential, because a participant does not know the caller's p. Cheaper is fine.
    """
    grown_ms = max(0, now[0] - bid[0]) + max(0, now[1] - bid[1])
    return grown_ms * 1000 <= round(tolerance * 1000) * (bid[0] + bid[1])
