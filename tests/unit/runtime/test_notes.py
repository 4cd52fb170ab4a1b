"""Notes of the story: a line survives the journal and a link, and a peer's line is bounded."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshagent.core.contract_net.interface import Noted
from meshagent.runtime.notes import MAX_FACT_CHARS, MAX_FACTS, NoteDecodeError, decode_notes, encode_notes
from meshagent.types import Epoch, NodeId, TaskId

TASK = TaskId("a" * 32)
plain = (
    st.none()
    | st.text(max_size=20)
    | st.integers(-(2**60), 2**60)
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
)
notes = st.builds(
    Noted,
    task=st.just(TASK),
    epoch=st.builds(Epoch, st.integers(0, 2**60), st.just(NodeId("b" * 52)), st.binary(min_size=16, max_size=16)),
    event=st.text(min_size=1, max_size=20),
    peer=st.none() | st.just(NodeId("c" * 52)),
    facts=st.lists(st.tuples(st.text(min_size=1, max_size=9), plain), max_size=5).map(tuple),
    verified=st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(line=st.lists(notes, max_size=4))
def test_a_line_comes_back_equal(line: list[Noted]) -> None:
    assert decode_notes(TASK, encode_notes(line)) == line


@settings(max_examples=300, deadline=None)
@given(raw=st.binary(max_size=200))
def test_arbitrary_bytes_are_notes_or_a_note_decode_error(raw: bytes) -> None:
    try:
        found = decode_notes(TASK, raw)
    except NoteDecodeError:
        return
    assert all(isinstance(one, Noted) for one in found)


def line(**changes: object) -> bytes:
    fields = {
        "event": "bid",
        "counter": 1,
        "owner": "o",
        "boot": bytes(16),
        "peer": None,
        "verified": True,
        "facts": [],
    }
    raw: bytes = msgpack.packb([list((fields | changes).values())])
    return raw


def test_the_line_that_the_bad_ones_are_made_from_is_good() -> None:
    assert decode_notes(TASK, line())[0].event == "bid"


@pytest.mark.parametrize(
    "raw",
    [
        line(event=""),
        line(event="e" * 65),
        line(counter=-1),
        line(counter="1"),
        line(owner="o" * 53),
        line(boot=bytes(15)),
        line(peer=5),
        line(verified=1),
        line(facts=[["name", "v" * (MAX_FACT_CHARS + 1)]]),
        line(facts=[["name", ["list"]]]),
        line(facts=[["name"]]),
        line(facts=[["n", 1]] * (MAX_FACTS + 1)),
        msgpack.packb({}),
        msgpack.packb([[1, 2, 3]]),
        msgpack.packb([5]),
        msgpack.packb([float("nan")]),
        bytes(70_000),
    ],
)
def test_a_line_out_of_bounds_is_refused(raw: bytes) -> None:
    with pytest.raises(NoteDecodeError):
        decode_notes(TASK, raw)
