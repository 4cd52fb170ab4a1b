"""Messages of membership, there and back, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshagent.core.members import Ack, Gossip, Message, Nack, Ping, PingReq, Summary, SummaryEntry, Wanted
from meshagent.wire import gossip
from meshagent.wire.errors import DecodeError, EncodeError
from tests.support.fleets import key_of

LISTS = b"\1" * 8
u32 = st.integers(0, 2**32 - 1)
items = st.lists(st.binary(min_size=1, max_size=300), max_size=6).map(tuple)
entries = st.builds(
    SummaryEntry, st.binary(min_size=16, max_size=16), st.integers(0, 2**64 - 1), u32, st.booleans(), u32
)
messages = st.one_of(
    st.builds(Ping, seq=u32, digest=u32, items=items, pad_bytes=st.integers(0, 300)),
    st.builds(Ack, seq=u32, digest=u32, items=items),
    st.builds(Nack, seq=u32),
    st.builds(PingReq, seq=u32, subject=st.just(key_of("bob").node_id)),
    st.builds(Gossip, items=items),
    st.builds(Summary, entries=st.lists(entries, max_size=5).map(tuple)),
    st.builds(Wanted, prefixes=st.lists(st.binary(min_size=16, max_size=16), max_size=5).map(tuple)),
)


@given(messages)
def test_what_is_written_is_read(message: Message) -> None:
    kind, body = gossip.encode(message, LISTS)
    decoded = gossip.decode(kind, body)
    assert decoded.message == message
    assert decoded.revocations == (LISTS if isinstance(message, Ping | Ack) else b"")


def test_a_ping_without_news_is_16_bytes_and_its_answer_may_carry_nothing() -> None:
    kind, body = gossip.encode(Ping(seq=1, digest=2), LISTS)
    assert len(body) == 16
    assert gossip.decode(kind, body).room_bytes == 0


def test_the_room_of_an_answer_is_what_the_question_had() -> None:
    kind, body = gossip.encode(Ping(seq=1, digest=2, items=(b"abc",), pad_bytes=100), LISTS)
    assert gossip.decode(kind, body).room_bytes == 105


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (0, b""),
        (8, b""),
        (gossip.PING, bytes(15)),
        (gossip.PING, bytes(16) + b"\0\0\1"),
        (gossip.PING, bytes(16) + b"\1"),
        (gossip.GOSSIP, b"\0\5abcd"),
        (gossip.GOSSIP, b"\xff\xff" + bytes(70)),
        (gossip.NACK, bytes(5)),
        (gossip.PING_REQ, bytes(35)),
        (gossip.SUMMARY, bytes(34)),
        (gossip.SUMMARY, bytes(28) + b"\2" + bytes(4)),
        (gossip.WANTED, bytes(17)),
        (gossip.GOSSIP, b"\0\1a" * 513),
        (gossip.GOSSIP, bytes(64_001)),
    ],
)
def test_what_no_member_writes_is_refused(kind: int, body: bytes) -> None:
    with pytest.raises(DecodeError):
        gossip.decode(kind, body)


def test_more_than_a_link_carries_at_once_is_not_written() -> None:
    with pytest.raises(EncodeError):
        gossip.encode(Gossip(items=(bytes(40_000), bytes(30_000))), LISTS)


@given(st.integers(0, 9), st.binary(max_size=300))
def test_arbitrary_bytes_are_a_message_or_refused(kind: int, body: bytes) -> None:
    try:
        decoded = gossip.decode(kind, body)
    except DecodeError:
        return
    assert gossip.decode(*gossip.encode(decoded.message, decoded.revocations or LISTS)).message == decoded.message
