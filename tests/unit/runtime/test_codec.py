"""Records of the machines to journal bytes and back, from their annotations alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, NewType

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshagent.core.contract_net.records import ContractRecord, InitiatorRecord
from meshagent.errors import JournalError
from meshagent.runtime.codec import RecordCodec

Name = NewType("Name", str)


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Point(NamedTuple):
    x: int
    name: Name


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    colour: Colour
    weight: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    name: Name
    leaves: tuple[Leaf, ...] = ()
    pair: tuple[int, Leaf] | None = None
    either: Leaf | Other | None = None
    at: Point | None = None
    by_name: dict[str, Leaf] = field(default_factory=dict)
    raw: bytes | None = None
    flag: bool = False
    child: Tree | None = None


CODEC = RecordCodec(Tree, Other)

leaves = st.builds(Leaf, colour=st.sampled_from(Colour), weight=st.floats(allow_nan=False, allow_infinity=False))
trees = st.recursive(
    st.none(),
    lambda children: st.builds(
        Tree,
        name=st.text(max_size=5).map(Name),
        leaves=st.lists(leaves, max_size=3).map(tuple),
        pair=st.none() | st.tuples(st.integers(-5, 5), leaves),
        either=st.none() | leaves | st.builds(Other, count=st.integers(0, 2**63 - 1)),
        at=st.none() | st.builds(Point, st.integers(0, 9), st.just(Name("n"))),
        by_name=st.dictionaries(st.text(max_size=3), leaves, max_size=3),
        raw=st.none() | st.binary(max_size=9),
        flag=st.booleans(),
        child=children,
    ),
    max_leaves=3,
).filter(lambda tree: tree is not None)


@settings(max_examples=150, deadline=None)
@given(tree=trees)
def test_a_record_comes_back_equal_and_of_the_same_types(tree: Tree) -> None:
    again = CODEC.decode(CODEC.encode(tree))
    assert again == tree
    assert repr(again) == repr(tree)


@settings(max_examples=300, deadline=None)
@given(tree=trees, data=st.data())
def test_a_flipped_byte_is_a_record_or_a_journal_error(tree: Tree, data: st.DataObject) -> None:
    raw = bytearray(CODEC.encode(tree))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        again = CODEC.decode(bytes(raw))
    except JournalError:
        return
    assert isinstance(again, Tree | Other)


def stored(tag: str, /, **fields: object) -> bytes:
    raw: bytes = msgpack.packb([tag, fields])
    return raw


def test_a_field_that_was_added_later_takes_its_default() -> None:
    assert CODEC.decode(stored("Tree", name="old")) == Tree(name=Name("old"))


@pytest.mark.parametrize(
    ("what", "raw"),
    [
        ("unknown record", stored("Bush", name="x")),
        ("field of a newer version", stored("Tree", name="x", height=3)),
        ("required field missing", stored("Tree")),
        ("wrong type", stored("Tree", name=5)),
        ("bool is no int", stored("Other", count=True)),
        ("unknown member", stored("Tree", name="x", leaves=[{"colour": "green"}])),
        ("unknown tag", stored("Tree", name="x", either=["Bush", {}])),
        ("tuple of another length", stored("Tree", name="x", pair=[1])),
        ("no list", stored("Tree", name="x", leaves=5)),
        ("nothing", b""),
        ("no tag", msgpack.packb(5)),
        ("cut short", stored("Tree", name="xxxxxxxx")[:-3]),
    ],
)
def test_what_does_not_fit_is_a_journal_error(what: str, raw: bytes) -> None:
    with pytest.raises(JournalError):
        CODEC.decode(raw)


def test_a_class_that_was_not_given_is_not_written() -> None:
    with pytest.raises(TypeError):
        CODEC.encode(Leaf(colour=Colour.RED))


def test_an_annotation_without_a_form_is_found_at_construction() -> None:
    @dataclass(frozen=True)
    class Odd:
        what: object

    with pytest.raises(TypeError, match=r"Odd\.what"):
        RecordCodec(Odd)


def test_the_records_of_both_machines_have_a_form() -> None:
    RecordCodec(InitiatorRecord, ContractRecord)
