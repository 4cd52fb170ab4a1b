"""Schemas under any type and any bytes: round trip, or a sentence; never another exception, never another type."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshagent import strictpack
from meshagent.sdk.errors import SchemaError
from meshagent.sdk.schema import schema_of


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


@dataclasses.dataclass(frozen=True)
class Leaf:
    x: float
    label: str = ""


@dataclasses.dataclass(frozen=True)
class Other:
    n: int


SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    bytes: st.binary(max_size=20),
    None: st.none(),
    Colour: st.sampled_from(Colour),
    Leaf: st.builds(Leaf, st.floats(allow_nan=False, allow_infinity=False), st.text("abc")),
    Leaf | Other: st.one_of(st.builds(Leaf, st.just(1.0)), st.builds(Other, st.integers(0, 9))),
    int | None: st.one_of(st.none(), st.integers(0, 9)),
    str | float | None: st.one_of(st.none(), st.text("ab"), st.floats(0, 1)),
}
Typed = tuple[Any, st.SearchStrategy[Any]]


def containers(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    def grown(typed: Typed) -> st.SearchStrategy[Typed]:
        kind, values = typed
        many: Any = list.__class_getitem__(kind)
        return st.sampled_from(
            [
                (many, st.lists(values, max_size=4)),
                (tuple.__class_getitem__((kind, ...)), st.lists(values, max_size=4).map(tuple)),
                (tuple.__class_getitem__((kind, int)), st.tuples(values, st.integers(0, 9))),
                (dict.__class_getitem__((str, kind)), st.dictionaries(st.text("ab", max_size=3), values, max_size=3)),
                (many | None, st.one_of(st.none(), st.lists(values, max_size=3))),
            ]
        )

    return inner.flatmap(grown)


types = st.recursive(st.sampled_from(list(SCALARS.items())), containers, max_leaves=4)
plains = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(-9, 9), st.text("ab"), st.binary()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["x", "label", "n", "Leaf", "Other"]), inner)
    ),
    max_leaves=8,
)


def same(one: object, two: object) -> bool:
    if isinstance(one, float) and isinstance(two, float):
        return one == two
    if isinstance(one, list | tuple) and isinstance(two, list | tuple):
        return type(one) is type(two) and len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    return type(one) is type(two) and one == two


@given(st.data())
@settings(max_examples=150)
def test_every_value_of_every_type_comes_back_with_its_types(data: st.DataObject) -> None:
    kind, values = data.draw(types)
    value = data.draw(values)
    schema: Any = schema_of(kind)
    assert same(schema.decode(schema.encode(value)), value)


@given(st.data(), plains)
@settings(max_examples=150)
def test_what_is_accepted_is_exactly_what_would_be_sent(data: st.DataObject, plain: object) -> None:
    kind, _ = data.draw(types)
    schema: Any = schema_of(kind)
    try:
        value = schema.decode(strictpack.packb(plain))
    except SchemaError as error:
        assert error.problems  # noqa: PT017 - the other branch is as good
        return
    assert same(schema.decode(schema.encode(value)), value)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_a_sentence(data: bytes) -> None:
    for kind in (Leaf, list[Leaf], Colour, dict[str, int]):
        try:
            schema_of(kind).decode(data)
        except SchemaError as error:
            assert str(error)  # noqa: PT017 - the other branch is as good


@given(st.data())
@settings(max_examples=60)
def test_any_flipped_byte_is_another_value_or_a_sentence(data: st.DataObject) -> None:
    raw = bytearray(schema_of(list[Leaf]).encode([Leaf(1.5, "a"), Leaf(-2.0, "b")]))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    try:
        value = schema_of(list[Leaf]).decode(bytes(raw))
    except SchemaError:
        return
    assert all(type(leaf) is Leaf and type(leaf.x) is float and type(leaf.label) is str for leaf in value)


def test_the_comparison_of_these_tests_tells_types_apart() -> None:
    assert not same([1], (1,))
    assert not same(1, True)
    with pytest.raises(SchemaError):
        schema_of(int).decode(strictpack.packb(True))
