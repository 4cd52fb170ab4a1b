"""Which of two streams stays, as a table and as a property over both sides."""

from __future__ import annotations

import itertools

import pytest

from meshagent.transport.settle import Present, Verdict, settle_dialled, settle_incoming
from meshagent.types import NodeId

SMALL, LARGE = NodeId("a" * 52), NodeId("b" * 52)
OURS, THEIRS = Present(dialled_by_us=True, instance="i"), Present(dialled_by_us=False, instance="i")


@pytest.mark.parametrize(
    ("own", "peer", "instance", "present", "dialling", "verdict"),
    [
        (SMALL, LARGE, "i", None, False, Verdict.OPEN),
        (SMALL, LARGE, "i", None, True, Verdict.HOLD),
        (LARGE, SMALL, "i", None, True, Verdict.OPEN),
        (SMALL, LARGE, "i", OURS, False, Verdict.HOLD),
        (SMALL, LARGE, "restarted", OURS, False, Verdict.REPLACE),
        (SMALL, LARGE, "i", THEIRS, False, Verdict.REPLACE),
        (LARGE, SMALL, "i", OURS, False, Verdict.REPLACE),
        (LARGE, SMALL, "i", THEIRS, False, Verdict.REPLACE),
    ],
)
def test_incoming_stream(
    own: NodeId, peer: NodeId, instance: str, present: Present | None, dialling: bool, verdict: Verdict
) -> None:
    assert settle_incoming(own, peer, instance, present, dialling) is verdict


@pytest.mark.parametrize(
    ("own", "peer", "present", "verdict"),
    [
        (SMALL, LARGE, None, Verdict.OPEN),
        (SMALL, LARGE, THEIRS, Verdict.REPLACE),
        (SMALL, LARGE, OURS, Verdict.REPLACE),
        (LARGE, SMALL, THEIRS, Verdict.DROP),
        (LARGE, SMALL, OURS, Verdict.REPLACE),
    ],
)
def test_dialled_stream(own: NodeId, peer: NodeId, present: Present | None, verdict: Verdict) -> None:
    assert settle_dialled(own, peer, present) is verdict


def test_in_every_order_of_two_simultaneous_dials_both_sides_keep_the_stream_of_the_smaller_id() -> None:
    for order_small, order_large in itertools.product(itertools.permutations(("dialled", "incoming")), repeat=2):
        assert _final(SMALL, LARGE, order_small) == "ours"
        assert _final(LARGE, SMALL, order_large) == "theirs"


def _final(own: NodeId, peer: NodeId, order: tuple[str, ...]) -> str | None:
    present: Present | None = None
    for fact in order:
        if fact == "dialled":
            verdict, mine = settle_dialled(own, peer, present), OURS
        else:
            verdict, mine = settle_incoming(own, peer, "i", present, dialling=present is None), THEIRS
        if verdict in (Verdict.OPEN, Verdict.REPLACE):
            present = mine
    if present is None:
        return None
    return "ours" if present.dialled_by_us else "theirs"
