"""Which of two streams between one pair of nodes stays: pure rules, the same on both sides.

Both may dial at once. Each side then knows two streams and must keep the same one without asking: the one that the
smaller id dialled. A stream that replaces an older one of the same dialler always stays, because only the dialler
knows that it lost or outlived the older one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from meshagent.types import NodeId


class Verdict(Enum):
    """What to do with a stream that could become the link."""

    OPEN = "open"
    """No other is there: it becomes the link."""
    REPLACE = "replace"
    """It becomes the link, the present one ends as AGED."""
    HOLD = "hold"
    """The dialler will see our stream and hang up; if it does not, ours is dead and this one stays."""
    DROP = "drop"
    """The present link stays."""


@dataclass(frozen=True, slots=True)
class Present:
    """The link that exists already: who dialled it, and which process is at its other end."""

    dialled_by_us: bool
    instance: str


def settle_incoming(own: NodeId, peer: NodeId, instance: str, present: Present | None, dialling: bool) -> Verdict:
    """Judge a stream that `peer` dialled; `dialling` says that we are dialling it too."""
    if present is None:
        return Verdict.HOLD if dialling and own < peer else Verdict.OPEN
    if not present.dialled_by_us or peer < own or present.instance != instance:
        return Verdict.REPLACE
    return Verdict.HOLD


def settle_dialled(own: NodeId, peer: NodeId, present: Present | None) -> Verdict:
    """Judge a stream that we dialled and `peer` accepted."""
    if present is None:
        return Verdict.OPEN
    if present.dialled_by_us or own < peer:
        return Verdict.REPLACE
    return Verdict.DROP
