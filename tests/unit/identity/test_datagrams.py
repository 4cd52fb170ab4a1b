"""Sealed datagrams between two boots."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshagent.errors import IdentityError
from meshagent.identity.datagrams import OVERHEAD_BYTES, WINDOW, DatagramError, DatagramKeys
from tests.support.fleets import key_of

FLEET = b"f" * 32
ANN, BOB, EVE = (key_of(name).node_id for name in ("ann", "bob", "eve"))
BOOT = (1).to_bytes(8, "big") + b"12345678"
LATER = (2).to_bytes(8, "big") + b"12345678"


def pair(fleet: bytes = FLEET, boot: bytes = BOOT) -> tuple[DatagramKeys, DatagramKeys]:
    ann, bob = DatagramKeys(ANN, FLEET, BOOT, b"a" * 32), DatagramKeys(BOB, fleet, boot, b"b" * 32)
    ann.share(BOB, boot, bob.public)
    bob.share(ANN, BOOT, ann.public)
    return ann, bob


def reason(keys: DatagramKeys, data: bytes) -> str:
    with pytest.raises(DatagramError) as caught:
        keys.open(data)
    return caught.value.reason


def test_a_ping_has_52_bytes() -> None:
    ann, bob = pair()
    data = ann.seal(BOB, 1, bytes(16))
    assert len(data) == 52 == OVERHEAD_BYTES + 16
    assert bob.open(data) == (ANN, 1, bytes(16))


def test_both_directions_have_keys_of_their_own() -> None:
    ann, bob = pair()
    data = ann.seal(BOB, 1, b"hello")
    assert reason(ann, data) == "unknown_key", "a datagram is not reflected to its sender"
    assert bob.open(data).peer == ANN
    assert ann.open(bob.seal(ANN, 2, b"back")).body == b"back"


def test_nothing_is_heard_twice_and_little_is_heard_late() -> None:
    ann, bob = pair()
    sent = [ann.seal(BOB, 1, bytes([n])) for n in range(WINDOW + 10)]
    bob.open(sent[5])
    bob.open(sent[3])
    assert reason(bob, sent[5]) == reason(bob, sent[3]) == "replayed"
    bob.open(sent[-1])
    assert reason(bob, sent[9]) == "replayed", "older than the window"
    bob.open(sent[10])


@given(st.integers(0, 8 * 60 - 1))
def test_any_flipped_bit_drops_the_datagram(bit: int) -> None:
    ann, bob = pair()
    data = bytearray(ann.seal(BOB, 1, b"abcdefghijklmnopqrstuvwx"))
    data[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises(DatagramError):
        bob.open(bytes(data))
    bob.open(ann.seal(BOB, 1, b"next"))


@pytest.mark.parametrize("other", ["fleet", "boot", "stranger"])
def test_another_fleet_another_boot_and_a_stranger_share_no_key(other: str) -> None:
    ann, bob = pair()
    if other == "fleet":
        _, bob = pair(fleet=b"g" * 32)
    elif other == "boot":
        bob = DatagramKeys(BOB, FLEET, LATER, b"b" * 32)
        bob.share(ANN, BOOT, ann.public)
    else:
        bob = DatagramKeys(EVE, FLEET, BOOT, b"b" * 32)
        bob.share(ANN, BOOT, ann.public)
    assert reason(bob, ann.seal(BOB, 1, b"x")) == "unknown_key"


def test_a_new_boot_of_a_peer_replaces_the_old_key() -> None:
    ann, bob = pair()
    old = bob.seal(ANN, 1, b"old")
    again = DatagramKeys(BOB, FLEET, LATER, b"c" * 32)
    again.share(ANN, BOOT, ann.public)
    ann.share(BOB, LATER, again.public)
    assert reason(ann, old) == "unknown_key"
    assert ann.open(again.seal(ANN, 1, b"new")).body == b"new"
    assert len(ann) == 1


def test_small_order_exchange_keys_are_refused() -> None:
    ann, _ = pair()
    with pytest.raises(IdentityError):
        ann.share(EVE, BOOT, bytes(32))
    assert not ann.has(EVE)


def test_without_a_key_nothing_is_sealed() -> None:
    ann, _ = pair()
    ann.forget(BOB)
    ann.forget(BOB)
    with pytest.raises(IdentityError):
        ann.seal(BOB, 1, b"")


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_dropped(data: bytes) -> None:
    _, bob = pair()
    with pytest.raises(DatagramError):
        bob.open(data)


def test_a_datagram_longer_than_1400_bytes_is_dropped_unread() -> None:
    ann, bob = pair()
    assert reason(bob, ann.seal(BOB, 1, bytes(1400))) == "shape"
