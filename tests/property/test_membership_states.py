"""Membership under arbitrary inputs: whatever is heard in whatever order, the table stays what members signed."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from meshagent.core.members import (
    PRESETS,
    Ack,
    CredentialEnded,
    Effect,
    Gossip,
    Incarnation,
    Input,
    ItemChecked,
    LinkLost,
    LinkOpened,
    MemberState,
    MessageHeard,
    Nack,
    Path,
    Ping,
    PingReq,
    Say,
    SignOfLife,
    StateSet,
    Summary,
    SummaryEntry,
    TimePassed,
    Wanted,
)
from meshagent.core.membership import PACKET_HEAD_BYTES, Membership
from meshagent.core.roster import fingerprint, prefix_of
from meshagent.types import NodeId
from tests.support.gossip_cluster import Ledger, LedgerNotary, node_of

NODES = 5
LEDGER = Ledger()


def boot(number: int, counter: int, twin: int = 0) -> bytes:
    return counter.to_bytes(8, "big") + bytes([number, twin]) * 4


numbers = st.integers(0, NODES)
small = st.integers(0, 3)
seqs = st.integers(0, 70_000)


@st.composite
def inputs(draw: st.DrawFn) -> Input | float:
    kind = draw(st.integers(0, 10))
    number = draw(numbers)
    peer = node_of(draw(st.integers(1, NODES)))
    if kind == 0:
        notary = LedgerNotary(LEDGER, node_of(number), boot(number, draw(small), draw(st.integers(0, 1))))
        return ItemChecked(item=notary.record(draw(small), left=draw(st.booleans())), via=peer)
    if kind == 1:
        notary = LedgerNotary(LEDGER, node_of(number), boot(number, 1))
        accusation = notary.accuse(node_of(draw(numbers)), Incarnation(draw(small), draw(small)))
        return ItemChecked(item=accusation, via=peer)
    if kind == 2:
        notary = LedgerNotary(LEDGER, node_of(number), boot(number, draw(small)))
        return ItemChecked(item=notary.state(draw(small), b"x"), via=peer)
    if kind == 3:
        message = draw(
            st.one_of(
                st.builds(Ping, seq=seqs, digest=seqs),
                st.builds(Ack, seq=seqs, digest=seqs),
                st.builds(Nack, seq=seqs),
                st.builds(PingReq, seq=seqs, subject=st.just(node_of(number))),
                st.builds(Wanted, prefixes=st.just((prefix_of(node_of(number)), bytes(16)))),
                st.builds(
                    Summary,
                    entries=st.tuples(
                        st.builds(
                            SummaryEntry,
                            st.just(prefix_of(node_of(number))),
                            small,
                            small,
                            st.booleans(),
                            small,
                        )
                    ),
                ),
            )
        )
        path = draw(st.sampled_from(Path))
        return MessageHeard(peer=peer, message=message, path=path, room_bytes=draw(st.integers(0, 1348)))
    if kind == 4:
        return LinkOpened(peer=peer, boot=boot(number, draw(small)))
    if kind == 5:
        return LinkLost(peer=peer, gone=draw(st.booleans()))
    if kind == 6:
        return SignOfLife(peer=peer)
    if kind == 7:
        return StateSet(body=b"mine")
    if kind == 8 and draw(st.integers(0, 3)) == 0:
        return CredentialEnded(peer=peer)
    return draw(st.floats(0.001, 30.0))


def check(machine: Membership, effects: list[Effect], before: dict[NodeId, tuple[int, int, bool]]) -> None:
    present = [one for one in machine.roster if one.present]
    assert machine.roster.present == len(present)
    digest = fingerprint(machine.own)
    for one in present:
        digest ^= fingerprint(one.record)
    assert machine.digest() == digest
    for one in machine.roster:
        assert one.node != machine.me
        assert (machine.suspect_until_s(one.node) is not None) == (one.state is MemberState.SUSPECT)
        assert bool(one.accusations) or one.state not in (MemberState.SUSPECT, MemberState.FAULTY)
        assert one.record.left == (one.state is MemberState.LEFT)
        assert one.record.order >= before.get(one.node, one.record.order), "a record went back"
        assert one.record.signed in LEDGER.items
    for effect in effects:
        if isinstance(effect, Say):
            assert effect.to != machine.me
            message = effect.message
            if effect.path is Path.DATAGRAM and isinstance(message, Ping | Ack | Gossip):
                size = PACKET_HEAD_BYTES + sum(len(one) + 2 for one in message.items)
                assert size + getattr(message, "pad_bytes", 0) <= 1400


@settings(max_examples=150, deadline=None)
@given(st.lists(inputs(), max_size=60), st.integers(0, 3))
def test_whatever_is_heard_the_table_holds_only_what_members_signed(events: list[Input | float], seed: int) -> None:
    now_s = 5.0
    notary = LedgerNotary(LEDGER, node_of(0), boot(0, 1))
    machine = Membership(node_of(0), PRESETS["lan"], Random(seed), notary, now_s=now_s)
    for event in events:
        before = {one.node: one.record.order for one in machine.roster}
        if isinstance(event, float):
            now_s += event
            for _ in range(200):
                due_s = machine.next_deadline_s()
                if due_s is None or due_s > now_s:
                    break
                check(machine, machine.handle(TimePassed(), now_s=now_s), before)
            else:
                raise AssertionError("time passes and the machine never comes to rest")
        else:
            if isinstance(event, CredentialEnded):
                before.pop(event.peer, None)
            check(machine, machine.handle(event, now_s=now_s), before)
    assert machine.own.order[0] == 1, "nobody but the journal raises the boot"


@settings(max_examples=60, deadline=None)
@given(st.permutations(list(range(6))))
def test_the_order_in_which_records_arrive_changes_nothing(order: list[int]) -> None:
    notary = LedgerNotary(LEDGER, node_of(0), boot(0, 1))
    machine = Membership(node_of(0), PRESETS["lan"], Random(1), notary, now_s=0.0)
    records = [
        LedgerNotary(LEDGER, node_of(1), boot(1, counter)).record(refutation, left=left)
        for counter, refutation, left in ((1, 0, False), (1, 1, False), (1, 1, True), (2, 0, False), (2, 1, False))
    ]
    for at in order:
        if at < len(records):
            machine.handle(ItemChecked(item=records[at], via=node_of(2)), now_s=1.0)
    member = machine.roster.get(node_of(1))
    assert member is not None
    assert (member.record.incarnation, member.state) == (Incarnation(2, 1), MemberState.ALIVE)
