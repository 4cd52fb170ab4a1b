"""The codec: every body survives the way over the wire, and no bound can be crossed."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshagent.core import acts
from meshagent.core.acts import (
    MAX_CHECKPOINT_BYTES,
    MAX_RESULT_BYTES,
    MAX_SPEC_BYTES,
    MAX_TEXT_CHARS,
    PERFORMATIVE_OF,
    Cfp,
    Performative,
    Propose,
    TaskRecord,
)
from meshagent.core.bodies import Body, EventMessage, Profile, Rejections, RevocationNotice, StoryQuery, StoryReply
from meshagent.types import (
    Delivery,
    Durability,
    Epoch,
    InDoubt,
    NodeId,
    Reason,
    TaskId,
    TaskState,
    node_id_of,
    task_id_of,
)
from meshagent.wire import codec
from meshagent.wire.acts import MAX_MS, TYPE_OF_ACT
from meshagent.wire.errors import DecodeError, EncodeError
from meshagent.wire.v1 import contract_pb2 as pb

ME = node_id_of(bytes(range(32)))
BOOT = bytes(16)
NONCE = b"n" * 16
TASK = task_id_of(ME, BOOT, NONCE)
EPOCH = Epoch(3, ME, BOOT)
RECORD = TaskRecord(task=TASK, initiator=ME, boot=BOOT, nonce=NONCE, kind="pump.check.v1", spec=b"\x80")

keys = st.binary(min_size=32, max_size=32)
nodes = keys.map(node_id_of)
sixteen = st.binary(min_size=16, max_size=16)
tasks = st.builds(task_id_of, nodes, sixteen, sixteen)
epochs = st.builds(Epoch, st.integers(0, 2**63 - 1), nodes, sixteen)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
words = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
milliseconds = st.integers(0, MAX_MS)
counters = st.integers(0, 2**63 - 1)
blobs = st.binary(max_size=60)

records = st.builds(
    TaskRecord,
    task=tasks,
    initiator=nodes,
    boot=sixteen,
    nonce=sixteen,
    kind=words,
    spec=blobs,
    delivery=st.sampled_from(Delivery),
    in_doubt=st.sampled_from(InDoubt),
    durability=st.sampled_from(Durability),
    priority=st.integers(-1000, 1000),
    key=texts,
    parent=st.none() | tasks,
    approval=st.booleans(),
    custodians=st.lists(nodes, max_size=7, unique=True).map(tuple),
    seal=st.just(b"") | st.binary(min_size=64, max_size=64),
    custodian_generation=st.integers(0, 2**32 - 1),
)

BY_FIELD: dict[str, st.SearchStrategy[Any]] = {
    "task": tasks,
    "epoch": epochs,
    "call_epoch": epochs,
    "former": epochs,
    "seen": st.none() | epochs,
    "duplicate_of": st.none() | tasks,
    "boot": sixteen,
    "reply_within_ms": milliseconds,
    "within_ms": st.none() | milliseconds,
    "lease_ms": milliseconds,
    "plan_version": counters,
    "sequence": counters,
    "version": counters,
    "checkpoint_version": counters,
    "progress_permille": st.integers(0, 1000),
    "resumes": st.booleans(),
    "holds_result": st.booleans(),
    "in_doubt": st.booleans(),
    "reason": st.sampled_from(Reason),
    "act": st.sampled_from(Performative),
    "because": texts,
    "detail": texts,
    "note": texts,
    "result": blobs,
    "state": blobs,
    "checkpoint": st.none() | blobs,
    "ballot": epochs,
    "accepted": epochs,
    "promised": st.none() | epochs,
    "holder": st.none() | nodes,
    "point_of_no_return": st.booleans(),
    "cancelled": st.booleans(),
    "first": st.booleans(),
    "adopts": st.booleans(),
    "known": st.booleans(),
    "grant_ms": milliseconds,
    "mark": counters,
    "remembered": counters,
}


def act_strategy(cls: type) -> st.SearchStrategy[Any]:
    fields = {field.name: BY_FIELD.get(field.name) for field in dataclasses.fields(cls)}
    for name in ("added_ms", "load_ms"):
        if name in fields:
            fields[name] = st.none() | milliseconds if cls is acts.Refuse else milliseconds
    if cls is acts.Outcome:
        fields |= {
            "state": st.sampled_from([one for one in TaskState if one.terminal]),
            "result": st.none() | blobs,
            "reason": st.none() | st.sampled_from(Reason),
        }
    if "record" in fields:
        fields["record"] = st.none()
    assert None not in fields.values(), f"a field of {cls.__name__} has no strategy: {fields}"
    if "record" not in fields:
        return st.builds(cls, **{name: one for name, one in fields.items() if one is not None})

    def with_record(record: TaskRecord) -> st.SearchStrategy[Any]:
        rest = {name: one for name, one in fields.items() if one is not None and name not in ("record", "task")}
        return st.builds(cls, task=st.just(record.task), record=st.just(record), **rest)

    return records.flatmap(with_record)


@pytest.mark.parametrize("cls", list(PERFORMATIVE_OF), ids=lambda cls: cls.__name__)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_act_survives_the_wire(cls: type, data: st.DataObject) -> None:
    act = data.draw(act_strategy(cls))
    kind, payload = codec.encode(act)
    assert kind == TYPE_OF_ACT[cls]
    assert codec.decode(kind, payload) == act


profiles = st.builds(
    Profile,
    version=counters,
    name=texts,
    roles=st.lists(texts, max_size=5).map(tuple),
    kinds=st.dictionaries(words, texts, max_size=5),
    capabilities=st.lists(texts, max_size=5).map(tuple),
    battery_soc=st.none() | st.floats(0, 1),
    position_m=st.none() | st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)),
    queue=st.integers(0, 1000),
    software=texts,
    visitor=st.booleans(),
    listen_port=st.integers(0, 65535),
)
others = (
    profiles
    | st.builds(EventMessage, name=words, body=blobs)
    | st.builds(StoryQuery, query=counters, task=texts)
    | st.builds(StoryReply, query=counters, task=texts, lines=blobs, truncated=st.booleans())
    | st.builds(
        Rejections,
        acts=st.lists(st.builds(acts.RejectProposal, task=tasks, epoch=epochs), min_size=2, max_size=5).map(tuple),
    )
    | st.builds(RevocationNotice, lists=st.lists(blobs, max_size=4).map(tuple))
)


@settings(max_examples=150, deadline=None)
@given(body=others)
def test_every_other_body_survives_the_wire(body: Body) -> None:
    assert codec.decode(*codec.encode(body)) == body


@settings(max_examples=400, deadline=None)
@given(kind=st.integers(0, 60), payload=st.binary(max_size=300))
def test_arbitrary_bytes_decode_or_raise_decode_error_alone(kind: int, payload: bytes) -> None:
    try:
        body = codec.decode(kind, payload)
    except DecodeError:
        return
    codec.encode(body)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), cls=st.sampled_from(list(PERFORMATIVE_OF)))
def test_a_mutated_act_decodes_or_raises_decode_error_alone(data: st.DataObject, cls: type) -> None:
    kind, payload = codec.encode(data.draw(act_strategy(cls)))
    mutated = bytearray(payload)
    at = data.draw(st.integers(0, len(mutated) - 1))
    mutated[at] ^= data.draw(st.integers(1, 255))
    try:
        body = codec.decode(kind, bytes(mutated))
    except DecodeError:
        return
    codec.encode(body)


def proposal(**changes: Any) -> bytes:
    fields: dict[str, Any] = {"task": bytes(20), "epoch": bytes(56), "added_ms": 1, "load_ms": 1, "plan_version": 1}
    return pb.Propose(**(fields | changes)).SerializeToString()


PROPOSE = TYPE_OF_ACT[Propose]


def test_the_proposal_that_the_bad_ones_are_made_from_is_good() -> None:
    assert isinstance(codec.decode(PROPOSE, proposal()), Propose)


@pytest.mark.parametrize(
    ("what", "payload"),
    [
        ("task too short", proposal(task=bytes(19))),
        ("task too long", proposal(task=bytes(21))),
        ("no task", proposal(task=b"")),
        ("epoch too short", proposal(epoch=bytes(55))),
        ("no epoch", proposal(epoch=b"")),
        ("counter_exhaustion", proposal(epoch=b"\xff" * 8 + bytes(48))),
        ("price beyond the bound", proposal(added_ms=MAX_MS + 1)),
        ("load beyond the bound", proposal(load_ms=2**64 - 1)),
        ("plan version beyond the bound", proposal(plan_version=2**63)),
        ("sentence too long", proposal(because="x" * (MAX_TEXT_CHARS + 1))),
        ("not utf-8", proposal(because="yy").replace(b"yy", b"\xff\xff")),
        ("cut short", proposal(because="hello")[:-3]),
    ],
)
def test_a_proposal_out_of_bounds_is_refused(what: str, payload: bytes) -> None:
    with pytest.raises(DecodeError):
        codec.decode(PROPOSE, payload)


def test_nan_bid_cannot_be_written_because_prices_are_integers() -> None:
    with pytest.raises(EncodeError):
        codec.encode(Propose(task=TASK, epoch=EPOCH, added_ms=float("nan"), load_ms=0, plan_version=0))  # type: ignore[arg-type]


def record_bytes(**changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "task": bytes(20),
        "initiator": bytes(32),
        "boot": BOOT,
        "nonce": NONCE,
        "kind": "k",
        "delivery": pb.DELIVERY_AT_MOST_ONCE,
        "in_doubt": pb.IN_DOUBT_WAIT,
        "durability": pb.DURABILITY_LOCAL,
    }
    return pb.TaskRecord(**(fields | changes)).SerializeToString()


def call(record: bytes, **changes: Any) -> bytes:
    fields: dict[str, Any] = {"task": bytes(20), "epoch": bytes(56), "record": record, "reply_within_ms": 5}
    return pb.Cfp(**(fields | changes)).SerializeToString()


CFP = TYPE_OF_ACT[Cfp]


def test_the_call_that_the_bad_ones_are_made_from_is_good() -> None:
    assert isinstance(codec.decode(CFP, call(record_bytes())), Cfp)


@pytest.mark.parametrize(
    "payload",
    [
        call(b""),
        call(b"\xff\xff"),
        call(record_bytes(kind="")),
        call(record_bytes(kind="two words")),
        call(record_bytes(kind="k" * 129)),
        call(record_bytes(kind="kü")),
        call(record_bytes(kind="k\x1b[2J")),
        call(record_bytes(key="k" * 129)),
        call(record_bytes(boot=bytes(15))),
        call(record_bytes(nonce=bytes(17))),
        call(record_bytes(initiator=bytes(31))),
        call(record_bytes(spec=bytes(MAX_SPEC_BYTES + 1))),
        call(record_bytes(delivery=0)),
        call(record_bytes(delivery=9)),
        call(record_bytes(in_doubt=0)),
        call(record_bytes(durability=77)),
        call(record_bytes(priority=1001)),
        call(record_bytes(priority=-1001)),
        call(record_bytes(parent=bytes(3))),
        call(record_bytes(custodians=[bytes(32)] * 8)),
        call(record_bytes(custodians=[bytes(31)])),
        call(record_bytes(task=b"x" * 20)),
        call(record_bytes(), reply_within_ms=MAX_MS + 1),
        call(record_bytes(), within_ms=MAX_MS + 1),
    ],
)
def test_a_call_out_of_bounds_is_refused(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        codec.decode(CFP, payload)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (pb.MESSAGE_TYPE_REFUSE, pb.Refuse(task=bytes(20), epoch=bytes(56), reason=0)),  # type: ignore[arg-type]
        (pb.MESSAGE_TYPE_REFUSE, pb.Refuse(task=bytes(20), epoch=bytes(56), reason=126)),  # type: ignore[arg-type]
        (pb.MESSAGE_TYPE_REFUSE, pb.Refuse(task=bytes(20), epoch=bytes(56), reason=pb.REASON_BUSY, seen=b"x")),
        (
            pb.MESSAGE_TYPE_NOT_UNDERSTOOD,
            pb.NotUnderstood(task=bytes(20), epoch=bytes(56), reason=pb.REASON_BUSY),
        ),
        (pb.MESSAGE_TYPE_ACKNOWLEDGE, pb.Acknowledge(task=bytes(20), epoch=bytes(56), act=pb.MESSAGE_TYPE_PROFILE)),
        (pb.MESSAGE_TYPE_RENEW, pb.Renew(task=bytes(20), epoch=bytes(56), boot=BOOT, progress_permille=1001)),
        (pb.MESSAGE_TYPE_RENEW, pb.Renew(task=bytes(20), epoch=bytes(56), boot=b"short")),
        (pb.MESSAGE_TYPE_RENEWED, pb.Renewed(task=bytes(20), epoch=bytes(56), boot=b"short")),
        (pb.MESSAGE_TYPE_ADOPT, pb.Adopt(task=bytes(20), epoch=bytes(56))),
        (pb.MESSAGE_TYPE_INFORM, pb.Inform(task=bytes(20), epoch=bytes(56), result=bytes(MAX_RESULT_BYTES + 1))),
        (
            pb.MESSAGE_TYPE_CHECKPOINT,
            pb.Checkpoint(task=bytes(20), epoch=bytes(56), state=bytes(MAX_CHECKPOINT_BYTES + 1)),
        ),
        (
            pb.MESSAGE_TYPE_FORFEIT,
            pb.Forfeit(
                task=bytes(20), epoch=bytes(56), reason=pb.REASON_BUSY, checkpoint=bytes(MAX_CHECKPOINT_BYTES + 1)
            ),
        ),
        (pb.MESSAGE_TYPE_REJECT_PROPOSAL, pb.RejectProposal(task=bytes(20), epoch=bytes(56), more=bytes(75))),
        (pb.MESSAGE_TYPE_REJECT_PROPOSAL, pb.RejectProposal(task=bytes(20), epoch=bytes(56), more=bytes(76 * 64))),
        (pb.MESSAGE_TYPE_EVENT, pb.Event(name="")),
        (pb.MESSAGE_TYPE_EVENT, pb.Event(name="a b")),
        (pb.MESSAGE_TYPE_EVENT, pb.Event(name="a", body=bytes(48 * 1024 + 1))),
        (pb.MESSAGE_TYPE_STORY_QUERY, pb.StoryQuery(task="t" * 65)),
        (pb.MESSAGE_TYPE_STORY_REPLY, pb.StoryReply(task="t", lines=bytes(60 * 1024 + 1))),
        (pb.MESSAGE_TYPE_REVOCATION_NOTICE, pb.RevocationNotice(lists=[b""] * 65)),
        (pb.MESSAGE_TYPE_PROFILE, pb.Profile(name="n" * 65)),
        (pb.MESSAGE_TYPE_PROFILE, pb.Profile(battery_soc=float("nan"))),
        (pb.MESSAGE_TYPE_PROFILE, pb.Profile(battery_soc=1.5)),
        (pb.MESSAGE_TYPE_PROFILE, pb.Profile(x_m=1.0)),
        (pb.MESSAGE_TYPE_PROFILE, pb.Profile(x_m=1.0, y_m=float("inf"))),
        (pb.MESSAGE_TYPE_PROFILE, pb.Profile(listen_port=70000)),
        (pb.MESSAGE_TYPE_PROFILE, pb.Profile(roles=["r"] * 65)),
        (pb.MESSAGE_TYPE_PROFILE, pb.Profile(roles=["r" * 129])),
        (pb.MESSAGE_TYPE_PROFILE, pb.Profile(kinds=[pb.KindOffered(kind="b"), pb.KindOffered(kind="a")])),
        (pb.MESSAGE_TYPE_PROFILE, pb.Profile(kinds=[pb.KindOffered(kind="a"), pb.KindOffered(kind="a")])),
        (pb.MESSAGE_TYPE_PROFILE, pb.Profile(kinds=[pb.KindOffered(kind=f"k{n:03}") for n in range(257)])),
    ],
)
def test_a_message_out_of_bounds_is_refused(kind: int, message: Any) -> None:
    with pytest.raises(DecodeError):
        codec.decode(kind, message.SerializeToString())


@pytest.mark.parametrize("kind", [0, 1, 8, 15, 46, 65535])
def test_unknown_performative_is_refused(kind: int) -> None:
    with pytest.raises(DecodeError, match="unknown message type"):
        codec.decode(kind, b"")


def test_a_long_sentence_is_cut_by_its_sender() -> None:
    sent = Propose(task=TASK, epoch=EPOCH, added_ms=1, load_ms=1, plan_version=1, because="x" * 900)
    received = codec.decode(*codec.encode(sent))
    assert isinstance(received, Propose)
    assert received.because == "x" * MAX_TEXT_CHARS


@pytest.mark.parametrize(
    "body",
    [
        Propose(task=TASK, epoch=EPOCH, added_ms=-1, load_ms=0, plan_version=0),
        Propose(task=TASK, epoch=EPOCH, added_ms=MAX_MS + 1, load_ms=0, plan_version=0),
        Propose(task=TaskId("short"), epoch=EPOCH, added_ms=1, load_ms=0, plan_version=0),
        Propose(task=TaskId(TASK.upper()), epoch=EPOCH, added_ms=1, load_ms=0, plan_version=0),
        Propose(task=TASK, epoch=Epoch(1, NodeId("a" * 51 + "b"), BOOT), added_ms=1, load_ms=0, plan_version=0),
        Propose(task=TASK, epoch=Epoch(1, ME, b"short"), added_ms=1, load_ms=0, plan_version=0),
        Propose(task=TASK, epoch=Epoch(-1, ME, BOOT), added_ms=1, load_ms=0, plan_version=0),
        Cfp(task=TASK, epoch=EPOCH, record=dataclasses.replace(RECORD, kind="two words"), reply_within_ms=1),
        Cfp(
            task=TASK,
            epoch=EPOCH,
            record=dataclasses.replace(RECORD, spec=bytes(MAX_SPEC_BYTES + 1)),
            reply_within_ms=1,
        ),
        Rejections(acts=()),
        Rejections(acts=(acts.RejectProposal(task=TASK, epoch=EPOCH),) * 65),
        EventMessage(name="", body=b""),
        StoryReply(query=1, task="t", lines=bytes(61 * 1024)),
        RevocationNotice(lists=(bytes(66_000),)),
        Profile(version=1, name="n", battery_soc=0.5, roles=("r" * 200,)),
    ],
)
def test_what_breaks_a_bound_does_not_leave(body: Body) -> None:
    with pytest.raises(EncodeError):
        codec.encode(body)


def test_id_alias_a_task_or_node_has_one_spelling() -> None:
    """16 base32 spellings decode to one key; only the canonical one is sent, and decoding makes no other."""
    alias = NodeId(ME[:-1] + chr(ord(ME[-1]) + 1))
    with pytest.raises(EncodeError):
        codec.encode(Propose(task=TASK, epoch=Epoch(1, alias, BOOT), added_ms=1, load_ms=0, plan_version=0))


def test_an_award_and_its_call_share_one_decoded_record() -> None:
    call_bytes = codec.encode(Cfp(task=TASK, epoch=EPOCH, record=RECORD, reply_within_ms=1))
    award = acts.AcceptProposal(
        task=TASK, epoch=EPOCH, record=RECORD, call_epoch=EPOCH, added_ms=1, load_ms=1, plan_version=1, lease_ms=1
    )
    first, second = codec.decode(*call_bytes), codec.decode(*codec.encode(award))
    assert isinstance(first, Cfp)
    assert isinstance(second, acts.AcceptProposal)
    assert first.record is second.record
