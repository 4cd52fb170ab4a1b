"""What members sign, byte by byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshagent.core.members import Incarnation
from meshagent.core.roster import prefix_of
from meshagent.identity.keys import BadSignatureError
from meshagent.identity.membership import (
    ClaimedAccusation,
    ClaimedRecord,
    ClaimedState,
    DeviceNotary,
    MembershipShapeError,
    parse,
    verify_accusation,
    verify_record,
    verify_state,
)
from meshagent.types import NodeId
from tests.support.fleets import key_of

FLEET = b"f" * 32
BOOT = (7).to_bytes(8, "big") + b"randoms!"
IPV4 = ("10.0.0.1", "10.0.1.1", "192.168.1.5", "172.16.0.9")


def notary(name: str = "ann", fleet: bytes = FLEET, addresses: tuple[str, ...] = IPV4) -> DeviceNotary:
    return DeviceNotary(key_of(name), fleet, BOOT, exchange=b"x" * 32, where=lambda: (7340, addresses))


def check(data: bytes, subject: NodeId) -> None:
    claim = parse(data)
    if isinstance(claim, ClaimedRecord):
        verify_record(claim, FLEET)
    elif isinstance(claim, ClaimedAccusation):
        verify_accusation(claim, subject, FLEET)
    else:
        verify_state(claim, FLEET)


def test_a_record_with_four_addresses_has_173_bytes_and_an_accusation_126() -> None:
    assert len(notary().record(3, left=False).signed) == 173
    assert len(notary().accuse(key_of("bob").node_id, Incarnation(1, 0)).signed) == 126


def test_a_datagram_has_room_for_seven_records_or_ten_accusations() -> None:
    room = 1400 - 36
    assert room // (173 + 2) == 7
    assert room // (126 + 2) == 10


@pytest.mark.parametrize("addresses", [(), ("127.0.0.1",), ("::1", "fd77::2"), (*IPV4, "10.9.9.9")])
@pytest.mark.parametrize("left", [True, False])
def test_a_record_reads_as_it_was_signed(addresses: tuple[str, ...], left: bool) -> None:
    record = notary(addresses=addresses).record(3, left=left)
    claim = parse(record.signed)
    assert isinstance(claim, ClaimedRecord)
    assert verify_record(claim, FLEET) == record
    assert record.addresses == addresses[:4]
    assert record.order == (7, 3, left)


def test_an_accusation_and_a_state_record_read_as_they_were_signed() -> None:
    subject = key_of("bob").node_id
    accusation = notary().accuse(subject, Incarnation(2**40, 5))
    claim = parse(accusation.signed)
    assert isinstance(claim, ClaimedAccusation)
    assert claim.prefix == prefix_of(subject)
    assert verify_accusation(claim, subject, FLEET) == accusation
    state = notary().state(9, b"\x80")
    told = parse(state.signed)
    assert isinstance(told, ClaimedState)
    assert verify_state(told, FLEET) == state


def test_an_accusation_is_not_moved_to_another_subject() -> None:
    claim = parse(notary().accuse(key_of("bob").node_id, Incarnation(1, 0)).signed)
    assert isinstance(claim, ClaimedAccusation)
    with pytest.raises(MembershipShapeError):
        verify_accusation(claim, key_of("eve").node_id, FLEET)


def test_cross_fleet_records_are_worth_nothing() -> None:
    claim = parse(notary(fleet=b"g" * 32).record(0, left=False).signed)
    assert isinstance(claim, ClaimedRecord)
    with pytest.raises(BadSignatureError):
        verify_record(claim, FLEET)


@given(st.data())
def test_any_flipped_bit_is_refused(data: st.DataObject) -> None:
    subject = key_of("bob").node_id
    signed = data.draw(
        st.sampled_from(
            [
                notary().record(3, left=False).signed,
                notary().accuse(subject, Incarnation(1, 0)).signed,
                notary().state(1, b"abc").signed,
            ]
        )
    )
    bit = data.draw(st.integers(0, len(signed) * 8 - 1))
    changed = bytearray(signed)
    changed[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises((MembershipShapeError, BadSignatureError)):
        check(bytes(changed), subject)


@given(st.binary(max_size=400), st.integers(0, 4))
def test_arbitrary_bytes_are_an_item_or_a_shape_error(data: bytes, kind: int) -> None:
    try:
        claim = parse(bytes([kind]) + data)
    except MembershipShapeError:
        return
    assert claim.signed == bytes([kind]) + data


def test_what_one_key_signed_for_one_purpose_serves_no_other() -> None:
    signed = notary().state(0, b"").signed
    with pytest.raises((MembershipShapeError, BadSignatureError)):
        check(b"\x01" + signed[1:], key_of("bob").node_id)
