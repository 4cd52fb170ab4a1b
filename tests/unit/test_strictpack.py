"""The strict msgpack subset: what goes in comes out, and nothing else does."""

from __future__ import annotations

import math
import struct

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshagent.strictpack import MAX_DEPTH, MAX_NODES, StrictDecodeError, StrictEncodeError, packb, unpackb

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
)
KEYS = st.text(st.characters(exclude_categories=["Cs"])) | st.integers(-(2**63), 2**64 - 1)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=30
)


@given(VALUES)
def test_what_is_packed_comes_back(value: object) -> None:
    assert unpackb(packb(value), max_bytes=1 << 20) == value


@given(st.binary(max_size=200))
def test_any_bytes_either_decode_or_raise_the_one_error(data: bytes) -> None:
    try:
        value = unpackb(data, max_bytes=200)
    except StrictDecodeError:
        return
    assert unpackb(packb(value), max_bytes=1 << 20) == value


@given(VALUES, st.integers(0, 10_000))
def test_every_strict_prefix_is_refused(value: object, cut: int) -> None:
    data = packb(value)
    with pytest.raises(StrictDecodeError):
        unpackb(data[: cut % len(data)], max_bytes=1 << 20)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_nan_bid_is_refused_in_both_widths_and_both_directions(number: float) -> None:
    for data in (b"\xca" + struct.pack(">f", number), b"\xcb" + struct.pack(">d", number)):
        with pytest.raises(StrictDecodeError, match="finite"):
            unpackb(data, max_bytes=99)
    with pytest.raises(StrictEncodeError, match="finite"):
        packb({"cost": number})


def test_empties_bomb_is_refused_before_anything_is_built() -> None:
    bomb = b"\xdd\x00\x10\x00\x00" + b"\x90" * (1 << 20)
    with pytest.raises(StrictDecodeError, match="values"):
        unpackb(bomb, max_bytes=1 << 21)
    claims = b"\xdd\x00\x00\x27\x00" * 400
    with pytest.raises(StrictDecodeError, match=r"values|levels"):
        unpackb(claims, max_bytes=1 << 21)


def test_the_bounds_themselves_are_allowed_and_one_more_is_not() -> None:
    deep: object = 1
    for _ in range(MAX_DEPTH):
        deep = [deep]
    assert unpackb(packb(deep), max_bytes=99) == deep
    with pytest.raises(StrictEncodeError, match="levels"):
        packb([deep])
    with pytest.raises(StrictDecodeError, match="levels"):
        unpackb(b"\x91" * (MAX_DEPTH + 1) + b"\x01", max_bytes=99)
    wide = [0] * (MAX_NODES - 1)
    assert unpackb(packb(wide), max_bytes=1 << 20) == wide
    with pytest.raises(StrictEncodeError, match="values"):
        packb([*wide, 0])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x82\xa1a\x01\xa1a\x02", "twice"),
        (b"\x81\xc2\x01", "key of type bool"),
        (b"\x81\xcb" + bytes(8) + b"\x01", "key of type float"),
        (b"\x81\x90\x01", "key of type list"),
        (b"\x81\xc0\x01", "key of type NoneType"),
        (b"\xd4\x01\x00", "extension"),
        (b"\xc7\x01\xff\x00", "extension"),
        (b"\xd6\xff" + bytes(4), "extension"),
        (b"\xc1", "0xc1"),
        (b"", "cut short"),
        (b"\xa2a", "cut short"),
        (b"\xdb\xff\xff\xff\xffa", "cut short"),
        (b"\x01\x01", "after the value"),
        (b"\xa1\xff", "not msgpack"),
        (b"\xcb\x00", "cut short"),
    ],
)
def test_what_the_subset_leaves_out_is_named(data: bytes, words: str) -> None:
    with pytest.raises(StrictDecodeError, match=words):
        unpackb(data, max_bytes=99)


def test_longer_than_the_caller_allows_is_not_even_looked_at() -> None:
    with pytest.raises(StrictDecodeError, match="at most 3"):
        unpackb(packb("long enough"), max_bytes=3)


@pytest.mark.parametrize("value", [object(), {1, 2}, 2**64, "\ud800", {1.5: 1}, {(1, 2): 3}, msgpack.Timestamp(1)])
def test_values_without_a_form_are_refused_by_the_sender(value: object) -> None:
    with pytest.raises(StrictEncodeError, match="cannot be written"):
        packb(value)
