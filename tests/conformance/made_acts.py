"""Vectors of every act and body: fields and payload, and payloads that a reader refuses, with the reason."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any, Final

from meshagent.core.acts import (
    MAX_TEXT_CHARS,
    Accept,
    Accepted,
    AcceptProposal,
    Acknowledge,
    Adopt,
    Cancel,
    Cancelled,
    Cfp,
    Checkpoint,
    Commit,
    Failure,
    Forfeit,
    Inform,
    Inquire,
    Nack,
    NotUnderstood,
    Outcome,
    OutcomeKnown,
    PassPointOfNoReturn,
    Performative,
    PointOfNoReturnRecorded,
    Prepare,
    Promise,
    Propose,
    QueryStatus,
    Refuse,
    RejectProposal,
    Renew,
    Renewed,
    Reserve,
    Standing,
    TaskRecord,
)
from meshagent.core.bodies import (
    Body,
    EventMessage,
    MembershipMessage,
    Profile,
    Rejections,
    RevocationNotice,
    StoryQuery,
    StoryReply,
)
from meshagent.identity.envelope import make_boot
from meshagent.types import Delivery, Durability, Epoch, InDoubt, NodeId, Reason, TaskState, node_id_of, task_id_of
from meshagent.wire import codec
from meshagent.wire.v1 import contract_pb2 as pb

ASKER: Final = node_id_of(hashlib.sha256(b"asker").digest())
WORKER: Final = node_id_of(hashlib.sha256(b"worker").digest())
BOOT: Final = make_boot(7, b"\xa0\xa1\xa2\xa3\xa4\xa5\xa6\xa7")
WORKER_BOOT: Final = make_boot(3, b"wwwwwwww")
NONCE: Final = bytes(range(16))
TASK: Final = task_id_of(ASKER, BOOT, NONCE)
OTHER_TASK: Final = task_id_of(ASKER, BOOT, NONCE[::-1])


def epoch(counter: int, owner: NodeId = ASKER) -> Epoch:
    return Epoch(counter, owner, BOOT)


RECORD: Final = TaskRecord(
    task=TASK,
    initiator=ASKER,
    boot=BOOT,
    nonce=NONCE,
    kind="pump.check.v1",
    spec=bytes.fromhex("82a473697465a670756d702d37a9737573706563746564aa6f757465722072616365"),
    delivery=Delivery.AT_LEAST_ONCE,
    in_doubt=InDoubt.WAIT,
    durability=Durability.LOCAL,
    priority=-3,
    key="pump-7/bearing",
    parent=OTHER_TASK,
    approval=True,
    custodians=(ASKER, WORKER),
    custodian_generation=2,
    seal=bytes(range(64)),
)
PLAIN_RECORD: Final = TaskRecord(task=TASK, initiator=ASKER, boot=BOOT, nonce=NONCE, kind="k", spec=b"\x80")

_REJECTIONS: Final = tuple(
    RejectProposal(task=task_id_of(ASKER, BOOT, bytes(15) + bytes([n])), epoch=epoch(n)) for n in (1, 2, 3)
)

BODIES: Final[tuple[Body, ...]] = (
    Cfp(task=TASK, epoch=epoch(1), record=RECORD, reply_within_ms=400, within_ms=0, resumes=True),
    Cfp(task=TASK, epoch=epoch(1), record=PLAIN_RECORD, reply_within_ms=0),
    Propose(
        task=TASK,
        epoch=epoch(1),
        added_ms=41_500,
        load_ms=2**40,
        plan_version=9,
        because="née à 12 m",
        holds_result=True,
    ),
    Propose(task=TASK, epoch=epoch(2**63 - 1), added_ms=0, load_ms=0, plan_version=0),
    Refuse(task=TASK, epoch=epoch(1), reason=Reason.BATTERY, detail="18 % left, 31 % needed"),
    Refuse(task=TASK, epoch=epoch(2), reason=Reason.STALE_BID, added_ms=0, load_ms=500),
    Refuse(task=TASK, epoch=epoch(2), reason=Reason.STALE_EPOCH, seen=epoch(5)),
    Refuse(task=TASK, epoch=epoch(2), reason=Reason.DUPLICATE, duplicate_of=OTHER_TASK),
    AcceptProposal(
        task=TASK,
        epoch=epoch(2),
        record=RECORD,
        call_epoch=epoch(1),
        added_ms=41_500,
        load_ms=300,
        plan_version=9,
        lease_ms=2000,
        within_ms=60_000,
        checkpoint=b"",
        checkpoint_version=4,
    ),
    AcceptProposal(
        task=TASK,
        epoch=epoch(2),
        record=PLAIN_RECORD,
        call_epoch=epoch(2),
        added_ms=0,
        load_ms=0,
        plan_version=0,
        lease_ms=1,
    ),
    RejectProposal(task=TASK, epoch=epoch(1)),
    Rejections(acts=_REJECTIONS),
    Inform(task=TASK, epoch=epoch(2), result=b"\xc0"),
    Failure(task=TASK, epoch=epoch(2), reason=Reason.ERROR, detail="ValueError: no signal"),
    Cancel(task=TASK, epoch=epoch(2), reason=Reason.CANCELLED, detail=""),
    NotUnderstood(
        task=TASK, epoch=epoch(2), act=Performative.RENEW, reason=Reason.ILLEGAL_NOW, detail="not in this state"
    ),
    Reserve(task=TASK, epoch=epoch(2)),
    Commit(task=TASK, epoch=epoch(2)),
    Renew(task=TASK, epoch=epoch(2), boot=WORKER_BOOT, sequence=1, progress_permille=1000, note="4 m to go"),
    Renewed(task=TASK, epoch=epoch(2), boot=WORKER_BOOT, sequence=1),
    Checkpoint(task=TASK, epoch=epoch(2), version=1, state=b"\x01\x02"),
    Forfeit(task=TASK, epoch=epoch(2), reason=Reason.GIVEN_BACK, checkpoint=b"\x01\x02", checkpoint_version=1),
    Forfeit(task=TASK, epoch=epoch(2), reason=Reason.RESTARTED),
    Cancelled(task=TASK, epoch=epoch(2), in_doubt=True),
    Adopt(task=TASK, epoch=epoch(3), former=epoch(2)),
    PassPointOfNoReturn(task=TASK, epoch=epoch(2)),
    PointOfNoReturnRecorded(task=TASK, epoch=epoch(2)),
    QueryStatus(task=TASK, epoch=epoch(2)),
    Acknowledge(task=TASK, epoch=epoch(2), act=Performative.CHECKPOINT, version=1),
    Prepare(task=TASK, epoch=epoch(3, WORKER)),
    Promise(
        task=TASK,
        epoch=epoch(3, WORKER),
        ballot=epoch(0),
        accepted=epoch(2),
        version=2,
        holder=WORKER,
        point_of_no_return=True,
        cancelled=True,
        grant_ms=1_500,
        mark=17,
    ),
    Accept(
        task=TASK,
        epoch=epoch(0),
        ballot=epoch(0),
        version=1,
        record=RECORD,
        first=True,
        holder=None,
        point_of_no_return=False,
        cancelled=False,
        lease_ms=2_000,
        within_ms=60_000,
    ),
    Accept(
        task=TASK,
        epoch=epoch(4, WORKER),
        ballot=epoch(3, WORKER),
        version=2,
        record=PLAIN_RECORD,
        first=False,
        holder=WORKER,
        point_of_no_return=True,
        cancelled=True,
        lease_ms=2_000,
        adopts=True,
    ),
    Accepted(task=TASK, epoch=epoch(2), version=2, mark=18),
    Nack(task=TASK, epoch=epoch(2), reason=Reason.STALE_EPOCH, promised=epoch(3, WORKER)),
    Nack(task=TASK, epoch=epoch(2), reason=Reason.UNKNOWN_TASK),
    Outcome(task=TASK, epoch=epoch(2), state=TaskState.DONE, holder=WORKER, result=b"\xc0"),
    Outcome(
        task=TASK, epoch=epoch(2), state=TaskState.FAILED, reason=Reason.EXPIRED, detail="the time allowed is over"
    ),
    OutcomeKnown(task=TASK, epoch=epoch(2)),
    Inquire(task=TASK, epoch=epoch(2)),
    Standing(task=TASK, epoch=epoch(3, WORKER), known=True, remembered=17),
    Profile(
        version=3,
        name="dog-1",
        roles=("Dog",),
        kinds={"pump.check.v1": "CheckContact(site: str) -> Finding", "pump.look.v1": ""},
        capabilities=("legs", "contact-probe"),
        battery_soc=0.5,
        position_m=(-1.5, 1e8),
        queue=2,
        software="meshagent/0.1.0",
        visitor=True,
        listen_port=7340,
    ),
    Profile(version=1, name="", battery_soc=0.0, position_m=(0.0, 0.0)),
    EventMessage(name="pump.Rattle", body=b"\x80"),
    StoryQuery(query=2**64 - 1, task="check-7k2f"),
    StoryReply(query=5, task=TASK, lines=b"\x82\xa5about\x80\xa5lines\x90", truncated=True),
    RevocationNotice(lists=(b"0 a root", b"a list")),
    MembershipMessage(kind=1, body=bytes(range(16))),
)


def _fields(message: Any) -> dict[str, Any]:
    """What a reader finds, by the names of contract.proto; absent optional fields are null."""
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            found[field.name] = [_plain(field, one) for one in value]
        elif field.has_presence and not message.HasField(field.name):
            found[field.name] = None
        else:
            found[field.name] = _plain(field, value)
    return found


def _plain(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return _fields(value)
    return value.hex() if field.type == field.TYPE_BYTES else value


def _message_of(kind: int) -> Any:
    name = pb.MessageType.Name(kind).removeprefix("MESSAGE_TYPE_")
    return getattr(pb, "".join(part.capitalize() for part in name.split("_")))


def _accepted(name: str, kind: int, payload: bytes) -> dict[str, Any]:
    codec.decode(kind, payload)
    found: dict[str, Any] = {"name": name, "type": kind, "fields": _fields(_message_of(kind).FromString(payload))}
    if found["fields"].get("record"):
        found["record"] = _fields(pb.TaskRecord.FromString(bytes.fromhex(found["fields"]["record"])))
    found["payload"] = payload.hex()
    return found


def _loose() -> Iterable[tuple[str, int, bytes]]:
    """Payloads that another writer may produce, and that mean the same."""
    kind, plain = codec.encode(Reserve(task=TASK, epoch=epoch(2)))
    task, named = plain[:22], plain[22:]
    yield "fields in another order", kind, named + task
    yield "an unknown varint field 19", kind, plain + b"\x98\x01\x07"
    yield "an unknown field 100 of bytes", kind, plain + b"\xa2\x06\x03abc"
    yield "unknown fixed fields", kind, plain + b"\x99\x01" + bytes(8) + b"\x9d\x01" + bytes(4)
    yield "a field twice, the last one counts", kind, b"\x0a\x14" + bytes(20) + plain
    yield "a varint longer than it needs to be", codec.TYPE_OF[Cancelled], plain + b"\x18\x81\x00"
    yield "an absent field written as zero", codec.TYPE_OF[Cancelled], plain + b"\x18\x00"


def _refused() -> Iterable[tuple[str, int, bytes]]:
    task, named = pb.Reserve(task=_task()).SerializeToString(), pb.Reserve(epoch=_epoch(2)).SerializeToString()
    reserve, refuse, renew = (codec.TYPE_OF[cls] for cls in (Reserve, Refuse, Renew))
    both = task + named
    long = "x" * (MAX_TEXT_CHARS + 1)
    yield "type 0", 0, both
    yield "type 1, never used", 1, both
    yield "type 15, unknown", 15, both
    yield "type 46, unknown", 46, both
    yield "no task", reserve, named
    yield "no epoch", reserve, task
    yield "a task of 19 bytes", reserve, pb.Reserve(task=_task()[:19], epoch=_epoch(2)).SerializeToString()
    yield "an epoch of 57 bytes", reserve, pb.Reserve(task=_task(), epoch=_epoch(2) + b"0").SerializeToString()
    huge = b"\x80" + _epoch(2)[1:]
    yield "an epoch counter of 2^63 and more", reserve, pb.Reserve(task=_task(), epoch=huge).SerializeToString()
    yield "cut short", reserve, both[:-1]
    yield "a length beyond the end", reserve, both + b"\xa2\x06\x7f"
    yield "a field number of zero", reserve, both + b"\x00\x00"
    yield "a varint of eleven bytes", reserve, both + b"\x98\x01" + b"\xff" * 10 + b"\x01"
    yield "no reason", refuse, both
    yield "reason 14, unknown", refuse, both + b"\x18\x0e"
    yield (
        "a text of 501 characters",
        refuse,
        pb.Refuse(task=_task(), epoch=_epoch(2), reason=pb.REASON_BUSY, detail=long).SerializeToString(),
    )
    yield "a text that is no UTF-8", refuse, both + b"\x18\x08\x22\x02\xff\xfe"
    yield (
        "a price above 2^40",
        refuse,
        pb.Refuse(task=_task(), epoch=_epoch(2), reason=pb.REASON_STALE_BID, added_ms=2**40 + 1).SerializeToString(),
    )
    yield (
        "a boot of 15 bytes",
        renew,
        pb.Renew(task=_task(), epoch=_epoch(2), sequence=1, boot=bytes(15)).SerializeToString(),
    )
    yield (
        "progress of 1001 permille",
        renew,
        pb.Renew(
            task=_task(), epoch=_epoch(2), sequence=1, boot=WORKER_BOOT, progress_permille=1001
        ).SerializeToString(),
    )
    yield (
        "a sequence of 2^63",
        renew,
        pb.Renew(task=_task(), epoch=_epoch(2), sequence=2**63, boot=WORKER_BOOT).SerializeToString(),
    )
    yield from _refused_large()
    yield from _refused_records()
    yield from _refused_profiles()


def squeezed(data: bytes) -> str | list[list[Any]]:
    """Hex; long runs of zero told by their length, so that the file stays readable."""
    runs = list(re.finditer(rb"\0{1024,}", data))
    if not runs:
        return data.hex()
    run = runs[0]
    return [[data[: run.start()].hex(), 1], ["00", run.end() - run.start()], [data[run.end() :].hex(), 1]]


def _task() -> bytes:
    _, payload = codec.encode(Reserve(task=TASK, epoch=epoch(2)))
    return payload[2:22]


def _epoch(counter: int) -> bytes:
    _, payload = codec.encode(Reserve(task=TASK, epoch=epoch(counter)))
    return payload[24:]


def _refused_large() -> Iterable[tuple[str, int, bytes]]:
    head: dict[str, Any] = {"task": _task(), "epoch": _epoch(2)}
    one = _task() + _epoch(1)
    reject, inform, checkpoint = (codec.TYPE_OF[cls] for cls in (RejectProposal, Inform, Checkpoint))
    yield "rejections of another length", reject, pb.RejectProposal(**head, more=one[:-1]).SerializeToString()
    yield "65 rejections", reject, pb.RejectProposal(**head, more=one * 64).SerializeToString()
    yield "a result of 49,153 bytes", inform, pb.Inform(**head, result=bytes(49_153)).SerializeToString()
    yield (
        "a checkpoint of 24,577 bytes",
        checkpoint,
        pb.Checkpoint(**head, version=1, state=bytes(24_577)).SerializeToString(),
    )
    yield "an act that is none", codec.TYPE_OF[Acknowledge], pb.Acknowledge(**head, act=3).SerializeToString()  # type: ignore[arg-type]
    yield "a word of 129 characters", codec.TYPE_EVENT, pb.Event(name="e" * 129).SerializeToString()
    yield "a name with a space", codec.TYPE_EVENT, pb.Event(name="a b").SerializeToString()
    yield "65 lists", codec.TYPE_REVOCATION_NOTICE, pb.RevocationNotice(lists=[b"x"] * 65).SerializeToString()
    yield (
        "65,001 bytes of lists",
        codec.TYPE_REVOCATION_NOTICE,
        pb.RevocationNotice(lists=[bytes(65_001)]).SerializeToString(),
    )
    yield (
        "64,001 bytes of membership",
        codec.TYPE_MEMBERSHIP,
        pb.Membership(kind=5, body=bytes(64_001)).SerializeToString(),
    )
    yield "membership of kind 256", codec.TYPE_MEMBERSHIP, pb.Membership(kind=256).SerializeToString()
    yield "a task of 65 characters", codec.TYPE_STORY_QUERY, pb.StoryQuery(query=1, task="a" * 65).SerializeToString()


def _refused_records() -> Iterable[tuple[str, int, bytes]]:
    _, payload = codec.encode(BODIES[0])
    call = pb.Cfp.FromString(payload)
    changes: tuple[tuple[str, dict[str, Any]], ...] = (
        ("a record about another task", {"task": bytes(20)}),
        ("an initiator of 31 bytes", {"initiator": bytes(31)}),
        ("a nonce of 17 bytes", {"nonce": bytes(17)}),
        ("an empty kind", {"kind": ""}),
        ("a kind with a space", {"kind": "pump check"}),
        ("a kind beyond ASCII", {"kind": "pümp"}),
        ("no delivery", {"delivery": 0}),
        ("an unknown delivery", {"delivery": 3}),
        ("no durability", {"durability": 0}),
        ("a priority of 1001", {"priority": 1001}),
        ("a key of 129 characters", {"key": "k" * 129}),
        ("eight custodians", {"custodians": [bytes(32)] * 8}),
        ("a seal of 63 bytes", {"seal": bytes(63)}),
        ("a parent of 19 bytes", {"parent": bytes(19)}),
        ("a specification of 32,769 bytes", {"spec": bytes(32_769)}),
    )
    for why, change in changes:
        record = pb.TaskRecord.FromString(call.record)
        for name, value in change.items():
            if name == "custodians":
                record.custodians[:] = value
            else:
                setattr(record, name, value)
        wrong = pb.Cfp.FromString(payload)
        wrong.record = record.SerializeToString()
        yield why, codec.TYPE_OF[Cfp], wrong.SerializeToString()


def _refused_profiles() -> Iterable[tuple[str, int, bytes]]:
    offered = pb.KindOffered
    cases: tuple[tuple[str, dict[str, Any]], ...] = (
        ("kinds out of order", {"kinds": [offered(kind="b"), offered(kind="a")]}),
        ("a kind twice", {"kinds": [offered(kind="a"), offered(kind="a")]}),
        ("257 kinds", {"kinds": [offered(kind=f"{n:03}") for n in range(257)]}),
        ("one coordinate", {"x_m": 1.0}),
        ("a place that is no number", {"x_m": float("nan"), "y_m": 0.0}),
        ("a place beyond the earth", {"x_m": 0.0, "y_m": 1e9}),
        ("a battery above full", {"battery_soc": 1.5}),
        ("a port of 65536", {"listen_port": 65_536}),
        ("a name of 65 characters", {"name": "n" * 65}),
        ("65 roles", {"roles": ["r"] * 65}),
    )
    for why, fields in cases:
        yield why, codec.TYPE_PROFILE, pb.Profile(version=1, **fields).SerializeToString()


def vectors() -> dict[str, Any]:
    """All of them, as JSON has them."""
    accepted = [_accepted(type(body).__name__, *codec.encode(body)) for body in BODIES]
    return {
        "about": "Sections 11 and 12 of docs/protocol.md. `payload` is what our writers produce; another order "
        "of fields means the same. A payload is hex, or a list of [hex, how often].",
        "accepted": accepted,
        "loose": [_accepted(why, kind, payload) for why, kind, payload in _loose()],
        "refused": [{"why": why, "type": kind, "payload": squeezed(payload)} for why, kind, payload in _refused()],
    }
