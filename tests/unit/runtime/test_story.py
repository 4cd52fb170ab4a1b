"""Stories from strangers: merged in order, each fact once, and nothing in a reply can hurt."""

from __future__ import annotations

import math
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshagent.core.bodies import StoryReply
from meshagent.core.contract_net.interface import Noted
from meshagent.runtime.notes import encode_notes
from meshagent.runtime.story import MAX_REPLY_BYTES, Teller, decode_reply, encode_reply, merged, opened, plain
from meshagent.types import Epoch, NodeId, TaskId

TASK = TaskId("t" * 32)
ASKER, DOG, CART = NodeId("a" * 52), NodeId("d" * 52), NodeId("c" * 52)


def epoch(counter: int = 1) -> Epoch:
    return Epoch(counter, ASKER, b"\0" * 16)


def note(event: str, peer: NodeId | None = None, counter: int = 1, **facts: Any) -> Noted:
    return Noted(task=TASK, epoch=epoch(counter), event=event, peer=peer, facts=tuple(facts.items()))


def events(tellers: list[Teller], ahead_s: dict[NodeId, float] | None = None) -> list[tuple[str, NodeId]]:
    return [(line.event, told_by) for _, told_by, line in merged(tellers, ASKER, ahead_s or {})]


def test_the_asker_is_believed_first_and_each_fact_told_once() -> None:
    asker = Teller(ASKER, ((10.0, note("called")), (10.2, note("commit", DOG)), (11.0, note("inform", DOG))), {})
    dog = Teller(DOG, ((10.19, note("commit", DOG)), (10.5, note("adopted", DOG)), (10.99, note("inform", DOG))), {})
    assert events([dog, asker]) == [("called", ASKER), ("commit", ASKER), ("adopted", DOG), ("inform", ASKER)]


def test_without_the_asker_the_holder_tells() -> None:
    dog = Teller(DOG, ((10.2, note("commit", DOG)), (11.0, note("inform", DOG))), {})
    assert events([dog]) == [("commit", DOG), ("inform", DOG)]


def test_nobody_speaks_for_somebody_else() -> None:
    liar = Teller(CART, ((1.0, note("failure", DOG)), (1.1, note("lost", CART)), (1.2, note("forfeit", CART))), {})
    asker = Teller(ASKER, ((10.0, note("called")),), {})
    assert events([asker, liar]) == [("forfeit", CART), ("called", ASKER)]


def test_clocks_that_differ_are_put_in_one_order() -> None:
    asker = Teller(ASKER, ((10.0, note("called")), (12.0, note("lost", DOG))), {})
    dog = Teller(DOG, ((911.0, note("adopted", DOG)),), {})
    assert events([asker, dog], {DOG: 900.0}) == [("called", ASKER), ("adopted", DOG), ("lost", ASKER)]


def test_epochs_come_in_their_order_whatever_the_clocks_say() -> None:
    asker = Teller(ASKER, ((10.0, note("called", counter=2)), (20.0, note("called", counter=1))), {})
    assert [line.epoch.counter for _, _, line in merged([asker], ASKER, {})] == [1, 2]


def test_a_story_travels_whole() -> None:
    teller = Teller(DOG, ((1.5, note("commit", DOG, lease_s=2.0)), (2.5, note("inform", DOG))), {"kind": "k"})
    raw, truncated = encode_reply(teller)
    assert decode_reply(DOG, StoryReply(query=1, task=TASK, lines=raw, truncated=truncated)) == teller


def test_a_long_story_keeps_its_end_and_says_that_it_was_cut() -> None:
    lines = tuple((float(i), note("checkpoint", DOG, detail="x" * 400, number=i)) for i in range(500))
    raw, truncated = encode_reply(Teller(DOG, lines, {}))
    assert truncated
    assert len(raw) < MAX_REPLY_BYTES + 4096
    back = decode_reply(DOG, StoryReply(query=1, task=TASK, lines=raw, truncated=truncated))
    assert back is not None
    assert back.truncated
    assert back.lines[-1] == lines[-1]
    assert len(back.lines) > 50


@given(st.binary(max_size=300))
def test_any_bytes_are_a_story_or_none(data: bytes) -> None:
    decode_reply(DOG, StoryReply(query=1, task=TASK, lines=data))


plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(plain_values, plain_values)
def test_any_value_in_a_story_is_read_or_left_out(about: Any, lines: Any) -> None:
    good = [1.0, encode_notes([note("inform", DOG)])]
    raw = msgpack.packb({"about": about, "lines": [lines, good]})
    teller = decode_reply(DOG, StoryReply(query=1, task=TASK, lines=raw))
    assert teller is not None
    assert teller.lines[-1][1].event == "inform"
    assert set(teller.about) <= {
        *("kind", "initiator", "delivery", "in_doubt", "key", "state", "reason", "detail", "holder", "parent"),
        *("spec", "result", "priority"),
    }


def test_empties_bomb_in_a_story_is_refused() -> None:
    bomb = b"\x82\xa5about\x80\xa5lines\xdd\x00\x00\xff\xff" + b"\x80" * 0xFFFF
    assert decode_reply(DOG, StoryReply(query=1, task=TASK, lines=bomb)) is None


@pytest.mark.parametrize("when", [math.inf, -math.inf, 1e308, -1.0])
def test_a_time_that_is_none_does_not_reach_the_document(when: float) -> None:
    raw = msgpack.packb({"about": {}, "lines": [[when, encode_notes([note("inform", DOG)])]]})
    teller = decode_reply(DOG, StoryReply(query=1, task=TASK, lines=raw))
    assert teller is None or not teller.lines


def test_bytes_become_text_that_json_takes() -> None:
    assert plain({"a": b"\x00\xff", "b": [b"x", {"c": None}]}) == {"a": "AP8=", "b": ["eA==", {"c": None}]}
    assert opened(b"\xc1 not msgpack") == {"bytes": 13}
