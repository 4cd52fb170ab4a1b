"""Acts of the contract net and their payload bytes (protos/meshagent/wire/v1/contract.proto).

One function per act and direction, written out: this is the hot path of a node (some forty of these calls a round),
and a generic mapping costs five times as much. Decoding checks every bound; encoding cuts texts and refuses the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from google.protobuf import message

from meshagent.core.acts import (
    MAX_CHECKPOINT_BYTES,
    MAX_RESULT_BYTES,
    MAX_SPEC_BYTES,
    MAX_TEXT_CHARS,
    PERFORMATIVE_OF,
    Accept,
    Accepted,
    AcceptProposal,
    Acknowledge,
    Act,
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
from meshagent.core.bodies import Rejections
from meshagent.types import Delivery, Durability, Epoch, InDoubt, NodeId, Reason, TaskId, TaskState
from meshagent.wire import ids
from meshagent.wire.errors import DecodeError, EncodeError
from meshagent.wire.v1 import contract_pb2 as pb

MAX_MS: Final = 2**40
"""Durations and prices: 34 years. Integers, so that no float decides who wins (nan_bid)."""
MAX_KIND_CHARS: Final = 128
MAX_KEY_CHARS: Final = 128
MAX_CUSTODIANS: Final = 7
MAX_PRIORITY: Final = 1000
MAX_PERMILLE: Final = 1000
MAX_REJECTIONS: Final = 64
"""In one message, which the gate counts as one. More are several messages."""
REJECTION_BYTES: Final = ids.TASK_BYTES + ids.EPOCH_BYTES
BOOT_BYTES: Final = 16
NONCE_BYTES: Final = 16
SEAL_BYTES: Final = 64

REMEMBERED_RECORDS: Final = 512
REMEMBERED_RECORD_BYTES: Final = 4096
"""Records up to this size are remembered in both directions (at most 2 MiB each way): an award repeats its call's."""

TYPE_OF_ACT: Final[dict[type, int]] = {
    cls: pb.MessageType.Value(f"MESSAGE_TYPE_{word.name}") for cls, word in PERFORMATIVE_OF.items()
}
"""Act class -> number in the header."""

_WORD_NUMBER: Final[dict[Performative, Any]] = {word: TYPE_OF_ACT[cls] for cls, word in PERFORMATIVE_OF.items()}
_NUMBER_WORD: Final = {number: word for word, number in _WORD_NUMBER.items()}
_REASON_NUMBER: Final[dict[Reason, Any]] = {reason: pb.Reason.Value(f"REASON_{reason.name}") for reason in Reason}
_NUMBER_REASON: Final = {number: reason for reason, number in _REASON_NUMBER.items()}
_DELIVERY_NUMBER: Final[dict[Delivery, Any]] = {one: pb.Delivery.Value(f"DELIVERY_{one.name}") for one in Delivery}
_NUMBER_DELIVERY: Final = {number: one for one, number in _DELIVERY_NUMBER.items()}
_IN_DOUBT_NUMBER: Final[dict[InDoubt, Any]] = {one: pb.InDoubt.Value(f"IN_DOUBT_{one.name}") for one in InDoubt}
_NUMBER_IN_DOUBT: Final = {number: one for one, number in _IN_DOUBT_NUMBER.items()}
_DURABILITY_NUMBER: Final[dict[Durability, Any]] = {
    one: pb.Durability.Value(f"DURABILITY_{one.name}") for one in Durability
}
_NUMBER_DURABILITY: Final = {number: one for one, number in _DURABILITY_NUMBER.items()}
_STATE_NUMBER: Final[dict[TaskState, Any]] = {
    one: pb.TaskState.Value(f"TASK_STATE_{one.name}") for one in TaskState if one.terminal
}
_NUMBER_STATE: Final = {number: one for one, number in _STATE_NUMBER.items()}

_record_bytes: dict[str, tuple[TaskRecord, bytes]] = {}
_records: dict[bytes, TaskRecord] = {}


# ---- small checks, shared


def is_word(text: str, limit: int) -> bool:
    """True for 1 to `limit` printable ASCII characters without space: kinds, names of events and roles."""
    return 0 < len(text) <= limit and text.isascii() and text.isprintable() and " " not in text


def _ms(value: int, what: str) -> int:
    if value > MAX_MS:
        raise DecodeError(f"{what} is out of range")
    return value


def _count(value: int, what: str) -> int:
    if value > ids.MAX_COUNTER:
        raise DecodeError(f"{what} is out of range")
    return value


def _text(value: str) -> str:
    if len(value) > MAX_TEXT_CHARS:
        raise DecodeError(f"a text has at most {MAX_TEXT_CHARS} characters, this one {len(value)}")
    return value


def _bytes(value: bytes, limit: int, what: str) -> bytes:
    if len(value) > limit:
        raise DecodeError(f"{what} has at most {limit} bytes, this one {len(value)}")
    return value


def _reason(number: int) -> Reason:
    found = _NUMBER_REASON.get(number)
    if found is None:
        raise DecodeError(f"unknown reason {number}")
    return found


def _word(number: int) -> Performative:
    found = _NUMBER_WORD.get(number)
    if found is None:
        raise DecodeError(f"{number} is no act")
    return found


def _out_ms(value: int | None, what: str) -> int | None:
    if value is not None and not 0 <= value <= MAX_MS:
        raise EncodeError(f"{what} is out of range: {value}")
    return value


def _out_bytes(value: bytes, limit: int, what: str) -> bytes:
    if len(value) > limit:
        raise EncodeError(f"{what} has at most {limit} bytes, this one {len(value)}")
    return value


# ---- the task record


def encode_record(record: TaskRecord) -> bytes:
    """The bytes that calls and awards carry; the same for the same record.

    Raises:
        EncodeError: a field breaks its bound.
    """
    known = _record_bytes.get(record.task)
    if known is not None and known[0] is record:
        return known[1]
    if not is_word(record.kind, MAX_KIND_CHARS) or len(record.key) > MAX_KEY_CHARS:
        raise EncodeError(f"kind or key is too long or not printable: {record.kind[:40]!r}, {record.key[:40]!r}")
    if len(record.boot) != BOOT_BYTES or len(record.nonce) != NONCE_BYTES:
        raise EncodeError("boot and nonce have 16 bytes each")
    if not -MAX_PRIORITY <= record.priority <= MAX_PRIORITY:
        raise EncodeError(f"a priority lies within {-MAX_PRIORITY} and {MAX_PRIORITY}, not at {record.priority}")
    if len(record.custodians) > MAX_CUSTODIANS:
        raise EncodeError(f"a task has at most {MAX_CUSTODIANS} custodians")
    if len(record.seal) not in (0, SEAL_BYTES):
        raise EncodeError(f"a seal has {SEAL_BYTES} bytes")
    raw = pb.TaskRecord(
        task=ids.task_bytes(record.task),
        initiator=ids.node_bytes(record.initiator),
        boot=record.boot,
        nonce=record.nonce,
        kind=record.kind,
        spec=_out_bytes(record.spec, MAX_SPEC_BYTES, "a specification"),
        delivery=_DELIVERY_NUMBER[record.delivery],
        in_doubt=_IN_DOUBT_NUMBER[record.in_doubt],
        durability=_DURABILITY_NUMBER[record.durability],
        priority=record.priority,
        key=record.key,
        parent=b"" if record.parent is None else ids.task_bytes(record.parent),
        approval=record.approval,
        custodians=[ids.node_bytes(one) for one in record.custodians],
        custodian_generation=record.custodian_generation,
        seal=record.seal,
    ).SerializeToString()
    if len(raw) <= REMEMBERED_RECORD_BYTES:
        if len(_record_bytes) >= REMEMBERED_RECORDS:
            _record_bytes.clear()
        _record_bytes[record.task] = (record, raw)
    return raw


def decode_record(raw: bytes) -> TaskRecord:
    """The record behind `raw`; one object for the same bytes while it is remembered.

    Raises:
        DecodeError: not a record, or a field breaks its bound.
    """
    known = _records.get(raw)
    if known is not None:
        return known
    try:
        m = pb.TaskRecord.FromString(raw)
    except message.DecodeError as error:
        raise DecodeError("not a task record") from error
    kind, key, boot, nonce = m.kind, m.key, m.boot, m.nonce
    if not is_word(kind, MAX_KIND_CHARS):
        raise DecodeError("the kind of a task is 1 to 128 printable characters without space")
    if len(key) > MAX_KEY_CHARS:
        raise DecodeError("the key of a task is too long")
    if len(boot) != BOOT_BYTES or len(nonce) != NONCE_BYTES:
        raise DecodeError("boot and nonce have 16 bytes each")
    if not -MAX_PRIORITY <= m.priority <= MAX_PRIORITY:
        raise DecodeError("the priority is out of range")
    if len(m.custodians) > MAX_CUSTODIANS:
        raise DecodeError("too many custodians")
    if len(set(m.custodians)) != len(m.custodians):
        raise DecodeError("a custodian is named twice")
    if len(m.seal) not in (0, SEAL_BYTES):
        raise DecodeError("a seal of another length")
    delivery, in_doubt = _NUMBER_DELIVERY.get(m.delivery), _NUMBER_IN_DOUBT.get(m.in_doubt)
    durability = _NUMBER_DURABILITY.get(m.durability)
    if delivery is None or in_doubt is None or durability is None:
        raise DecodeError("unknown delivery, in_doubt or durability")
    parent = m.parent
    record = TaskRecord(
        task=ids.task_id(m.task),
        initiator=ids.node_id(m.initiator),
        boot=boot,
        nonce=nonce,
        kind=kind,
        spec=_bytes(m.spec, MAX_SPEC_BYTES, "a specification"),
        delivery=delivery,
        in_doubt=in_doubt,
        durability=durability,
        priority=m.priority,
        key=key,
        parent=ids.task_id(parent) if parent else None,
        approval=m.approval,
        custodians=tuple(ids.node_id(one) for one in m.custodians),
        custodian_generation=m.custodian_generation,
        seal=m.seal,
    )
    if len(raw) <= REMEMBERED_RECORD_BYTES:
        if len(_records) >= REMEMBERED_RECORDS:
            _records.clear()
        _records[raw] = record
    return record


# ---- our values -> bytes


def _cfp(a: Cfp) -> bytes:
    return pb.Cfp(
        task=ids.task_bytes(a.task),
        epoch=ids.epoch_bytes(a.epoch),
        record=encode_record(a.record),
        reply_within_ms=_out_ms(a.reply_within_ms, "reply_within_ms"),
        within_ms=_out_ms(a.within_ms, "within_ms"),
        resumes=a.resumes,
    ).SerializeToString()


def _propose(a: Propose) -> bytes:
    if a.added_ms > MAX_MS or a.load_ms > MAX_MS:
        raise EncodeError("a price is out of range")
    return pb.Propose(
        task=ids.task_bytes(a.task),
        epoch=ids.epoch_bytes(a.epoch),
        added_ms=a.added_ms,
        load_ms=a.load_ms,
        plan_version=a.plan_version,
        because=a.because[:MAX_TEXT_CHARS],
        holds_result=a.holds_result,
    ).SerializeToString()


def _refuse(a: Refuse) -> bytes:
    return pb.Refuse(
        task=ids.task_bytes(a.task),
        epoch=ids.epoch_bytes(a.epoch),
        reason=_REASON_NUMBER[a.reason],
        detail=a.detail[:MAX_TEXT_CHARS],
        added_ms=_out_ms(a.added_ms, "added_ms"),
        load_ms=_out_ms(a.load_ms, "load_ms"),
        seen=b"" if a.seen is None else ids.epoch_bytes(a.seen),
        duplicate_of=b"" if a.duplicate_of is None else ids.task_bytes(a.duplicate_of),
    ).SerializeToString()


def _accept_proposal(a: AcceptProposal) -> bytes:
    checkpoint = a.checkpoint
    return pb.AcceptProposal(
        task=ids.task_bytes(a.task),
        epoch=ids.epoch_bytes(a.epoch),
        record=encode_record(a.record),
        call_epoch=ids.epoch_bytes(a.call_epoch),
        added_ms=_out_ms(a.added_ms, "added_ms"),
        load_ms=_out_ms(a.load_ms, "load_ms"),
        plan_version=a.plan_version,
        lease_ms=_out_ms(a.lease_ms, "lease_ms"),
        within_ms=_out_ms(a.within_ms, "within_ms"),
        checkpoint=None if checkpoint is None else _out_bytes(checkpoint, MAX_CHECKPOINT_BYTES, "a checkpoint"),
        checkpoint_version=a.checkpoint_version,
    ).SerializeToString()


def _plain(kind: Any) -> Callable[[Any], bytes]:
    """Acts that carry a task and an epoch alone."""

    def encode(a: Any) -> bytes:
        raw: bytes = kind(task=ids.task_bytes(a.task), epoch=ids.epoch_bytes(a.epoch)).SerializeToString()
        return raw

    return encode


def _renew(a: Renew) -> bytes:
    if a.progress_permille > MAX_PERMILLE or len(a.boot) != BOOT_BYTES:
        raise EncodeError(f"progress is at most {MAX_PERMILLE} permille, a boot has {BOOT_BYTES} bytes")
    return pb.Renew(
        task=ids.task_bytes(a.task),
        epoch=ids.epoch_bytes(a.epoch),
        sequence=a.sequence,
        progress_permille=a.progress_permille,
        note=a.note[:MAX_TEXT_CHARS],
        boot=a.boot,
    ).SerializeToString()


def _renewed(a: Renewed) -> bytes:
    if len(a.boot) != BOOT_BYTES:
        raise EncodeError("a boot has 16 bytes")
    return pb.Renewed(
        task=ids.task_bytes(a.task), epoch=ids.epoch_bytes(a.epoch), boot=a.boot, sequence=a.sequence
    ).SerializeToString()


def _checkpoint(a: Checkpoint) -> bytes:
    return pb.Checkpoint(
        task=ids.task_bytes(a.task),
        epoch=ids.epoch_bytes(a.epoch),
        version=a.version,
        state=_out_bytes(a.state, MAX_CHECKPOINT_BYTES, "a checkpoint"),
    ).SerializeToString()


def _inform(a: Inform) -> bytes:
    return pb.Inform(
        task=ids.task_bytes(a.task),
        epoch=ids.epoch_bytes(a.epoch),
        result=_out_bytes(a.result, MAX_RESULT_BYTES, "a result"),
    ).SerializeToString()


def _failure(a: Failure) -> bytes:
    return pb.Failure(
        task=ids.task_bytes(a.task),
        epoch=ids.epoch_bytes(a.epoch),
        reason=_REASON_NUMBER[a.reason],
        detail=a.detail[:MAX_TEXT_CHARS],
    ).SerializeToString()


def _forfeit(a: Forfeit) -> bytes:
    checkpoint = a.checkpoint
    return pb.Forfeit(
        task=ids.task_bytes(a.task),
        epoch=ids.epoch_bytes(a.epoch),
        reason=_REASON_NUMBER[a.reason],
        detail=a.detail[:MAX_TEXT_CHARS],
        checkpoint=None if checkpoint is None else _out_bytes(checkpoint, MAX_CHECKPOINT_BYTES, "a checkpoint"),
        checkpoint_version=a.checkpoint_version,
    ).SerializeToString()


def _cancel(a: Cancel) -> bytes:
    return pb.Cancel(
        task=ids.task_bytes(a.task),
        epoch=ids.epoch_bytes(a.epoch),
        reason=_REASON_NUMBER[a.reason],
        detail=a.detail[:MAX_TEXT_CHARS],
    ).SerializeToString()


def _cancelled(a: Cancelled) -> bytes:
    return pb.Cancelled(
        task=ids.task_bytes(a.task), epoch=ids.epoch_bytes(a.epoch), in_doubt=a.in_doubt
    ).SerializeToString()


def _adopt(a: Adopt) -> bytes:
    return pb.Adopt(
        task=ids.task_bytes(a.task), epoch=ids.epoch_bytes(a.epoch), former=ids.epoch_bytes(a.former)
    ).SerializeToString()


def _acknowledge(a: Acknowledge) -> bytes:
    return pb.Acknowledge(
        task=ids.task_bytes(a.task), epoch=ids.epoch_bytes(a.epoch), act=_WORD_NUMBER[a.act], version=a.version
    ).SerializeToString()


def _not_understood(a: NotUnderstood) -> bytes:
    return pb.NotUnderstood(
        task=ids.task_bytes(a.task),
        epoch=ids.epoch_bytes(a.epoch),
        act=_WORD_NUMBER[a.act],
        reason=_REASON_NUMBER[a.reason],
        detail=a.detail[:MAX_TEXT_CHARS],
    ).SerializeToString()


def rejection_bytes(act: RejectProposal) -> bytes:
    """One rejection as it waits to be joined with others.

    Raises:
        EncodeError: its task or epoch is malformed.
    """
    return ids.task_bytes(act.task) + ids.epoch_bytes(act.epoch)


def join_rejections(parts: Sequence[bytes]) -> bytes:
    """The payload of one RejectProposal that carries 1 to `MAX_REJECTIONS` rejections."""
    first = parts[0]
    task, epoch = first[: ids.TASK_BYTES], first[ids.TASK_BYTES :]
    raw: bytes = pb.RejectProposal(task=task, epoch=epoch, more=b"".join(parts[1:])).SerializeToString()
    return raw


def _node_or_none(node: NodeId | None) -> bytes:
    return b"" if node is None else ids.node_bytes(node)


def _promise(a: Promise) -> bytes:
    return pb.Promise(
        task=ids.task_bytes(a.task),
        epoch=ids.epoch_bytes(a.epoch),
        accepted=ids.epoch_bytes(a.accepted),
        version=a.version,
        holder=_node_or_none(a.holder),
        point_of_no_return=a.point_of_no_return,
        cancelled=a.cancelled,
        grant_ms=_out_ms(a.grant_ms, "grant_ms"),
        mark=a.mark,
        ballot=ids.epoch_bytes(a.ballot),
    ).SerializeToString()


def _accept(a: Accept) -> bytes:
    return pb.Accept(
        task=ids.task_bytes(a.task),
        epoch=ids.epoch_bytes(a.epoch),
        version=a.version,
        record=b"" if a.record is None else encode_record(a.record),
        first=a.first,
        holder=_node_or_none(a.holder),
        point_of_no_return=a.point_of_no_return,
        cancelled=a.cancelled,
        lease_ms=_out_ms(a.lease_ms, "lease_ms"),
        within_ms=_out_ms(a.within_ms, "within_ms"),
        adopts=a.adopts,
        ballot=ids.epoch_bytes(a.ballot),
    ).SerializeToString()


def _accepted(a: Accepted) -> bytes:
    return pb.Accepted(
        task=ids.task_bytes(a.task), epoch=ids.epoch_bytes(a.epoch), version=a.version, mark=a.mark
    ).SerializeToString()


def _nack(a: Nack) -> bytes:
    promised: Epoch | None = a.promised
    return pb.Nack(
        task=ids.task_bytes(a.task),
        epoch=ids.epoch_bytes(a.epoch),
        reason=_REASON_NUMBER[a.reason],
        promised=b"" if promised is None else ids.epoch_bytes(promised),
    ).SerializeToString()


def _outcome(a: Outcome) -> bytes:
    if a.state not in _STATE_NUMBER:
        raise EncodeError("an outcome has a final state")
    return pb.Outcome(
        task=ids.task_bytes(a.task),
        epoch=ids.epoch_bytes(a.epoch),
        state=_STATE_NUMBER[a.state],
        holder=_node_or_none(a.holder),
        result=None if a.result is None else _out_bytes(a.result, MAX_RESULT_BYTES, "a result"),
        reason=None if a.reason is None else _REASON_NUMBER[a.reason],
        detail=a.detail[:MAX_TEXT_CHARS],
    ).SerializeToString()


def _standing(a: Standing) -> bytes:
    return pb.Standing(
        task=ids.task_bytes(a.task), epoch=ids.epoch_bytes(a.epoch), known=a.known, remembered=a.remembered
    ).SerializeToString()


ENCODERS: Final[dict[type, Callable[[Any], bytes]]] = {
    Cfp: _cfp,
    Propose: _propose,
    Refuse: _refuse,
    AcceptProposal: _accept_proposal,
    RejectProposal: _plain(pb.RejectProposal),
    Inform: _inform,
    Failure: _failure,
    Cancel: _cancel,
    NotUnderstood: _not_understood,
    Reserve: _plain(pb.Reserve),
    Commit: _plain(pb.Commit),
    Renew: _renew,
    Renewed: _renewed,
    Checkpoint: _checkpoint,
    Forfeit: _forfeit,
    Cancelled: _cancelled,
    Adopt: _adopt,
    PassPointOfNoReturn: _plain(pb.PassPointOfNoReturn),
    PointOfNoReturnRecorded: _plain(pb.PointOfNoReturnRecorded),
    QueryStatus: _plain(pb.QueryStatus),
    Acknowledge: _acknowledge,
    Prepare: _plain(pb.Prepare),
    Promise: _promise,
    Accept: _accept,
    Accepted: _accepted,
    Nack: _nack,
    Outcome: _outcome,
    OutcomeKnown: _plain(pb.OutcomeKnown),
    Inquire: _plain(pb.Inquire),
    Standing: _standing,
}


# ---- bytes -> our values (`m` is the parsed protobuf message)


def _to_cfp(m: pb.Cfp) -> Cfp:
    task, record = ids.task_id(m.task), decode_record(m.record)
    _same_task(task, record)
    return Cfp(
        task=task,
        epoch=ids.epoch(m.epoch),
        record=record,
        reply_within_ms=_ms(m.reply_within_ms, "reply_within_ms"),
        within_ms=_ms(m.within_ms, "within_ms") if m.HasField("within_ms") else None,
        resumes=m.resumes,
    )


def _same_task(task: TaskId, record: TaskRecord) -> None:
    if record.task != task:
        raise DecodeError("the act and its record name different tasks")


def _to_propose(m: pb.Propose) -> Propose:
    return Propose(
        task=ids.task_id(m.task),
        epoch=ids.epoch(m.epoch),
        added_ms=_ms(m.added_ms, "added_ms"),
        load_ms=_ms(m.load_ms, "load_ms"),
        plan_version=_count(m.plan_version, "plan_version"),
        because=_text(m.because),
        holds_result=m.holds_result,
    )


def _to_refuse(m: pb.Refuse) -> Refuse:
    seen, duplicate_of = m.seen, m.duplicate_of
    return Refuse(
        task=ids.task_id(m.task),
        epoch=ids.epoch(m.epoch),
        reason=_reason(m.reason),
        detail=_text(m.detail),
        added_ms=_ms(m.added_ms, "added_ms") if m.HasField("added_ms") else None,
        load_ms=_ms(m.load_ms, "load_ms") if m.HasField("load_ms") else None,
        seen=ids.epoch(seen) if seen else None,
        duplicate_of=ids.task_id(duplicate_of) if duplicate_of else None,
    )


def _to_accept_proposal(m: pb.AcceptProposal) -> AcceptProposal:
    task, record = ids.task_id(m.task), decode_record(m.record)
    _same_task(task, record)
    return AcceptProposal(
        task=task,
        epoch=ids.epoch(m.epoch),
        record=record,
        call_epoch=ids.epoch(m.call_epoch),
        added_ms=_ms(m.added_ms, "added_ms"),
        load_ms=_ms(m.load_ms, "load_ms"),
        plan_version=_count(m.plan_version, "plan_version"),
        lease_ms=_ms(m.lease_ms, "lease_ms"),
        within_ms=_ms(m.within_ms, "within_ms") if m.HasField("within_ms") else None,
        checkpoint=_bytes(m.checkpoint, MAX_CHECKPOINT_BYTES, "a checkpoint") if m.HasField("checkpoint") else None,
        checkpoint_version=_count(m.checkpoint_version, "checkpoint_version"),
    )


def _maybe_node(raw: bytes) -> NodeId | None:
    return ids.node_id(raw) if raw else None


def _to_promise(m: pb.Promise) -> Promise:
    return Promise(
        task=ids.task_id(m.task),
        epoch=ids.epoch(m.epoch),
        accepted=ids.epoch(m.accepted),
        version=_count(m.version, "version"),
        holder=_maybe_node(m.holder),
        point_of_no_return=m.point_of_no_return,
        cancelled=m.cancelled,
        grant_ms=_ms(m.grant_ms, "grant_ms"),
        mark=_count(m.mark, "mark"),
        ballot=ids.epoch(m.ballot),
    )


def _to_accept(m: pb.Accept) -> Accept:
    task, record = ids.task_id(m.task), decode_record(m.record) if m.record else None
    if record is not None:
        _same_task(task, record)
    return Accept(
        task=task,
        epoch=ids.epoch(m.epoch),
        version=_count(m.version, "version"),
        record=record,
        first=m.first,
        holder=_maybe_node(m.holder),
        point_of_no_return=m.point_of_no_return,
        cancelled=m.cancelled,
        lease_ms=_ms(m.lease_ms, "lease_ms"),
        within_ms=_ms(m.within_ms, "within_ms") if m.HasField("within_ms") else None,
        adopts=m.adopts,
        ballot=ids.epoch(m.ballot),
    )


def _to_accepted(m: pb.Accepted) -> Accepted:
    return Accepted(
        task=ids.task_id(m.task),
        epoch=ids.epoch(m.epoch),
        version=_count(m.version, "version"),
        mark=_count(m.mark, "mark"),
    )


def _to_nack(m: pb.Nack) -> Nack:
    return Nack(
        task=ids.task_id(m.task),
        epoch=ids.epoch(m.epoch),
        reason=_reason(m.reason),
        promised=ids.epoch(m.promised) if m.promised else None,
    )


def _to_outcome(m: pb.Outcome) -> Outcome:
    state = _NUMBER_STATE.get(m.state)
    if state is None:
        raise DecodeError("an outcome has a final state")
    return Outcome(
        task=ids.task_id(m.task),
        epoch=ids.epoch(m.epoch),
        state=state,
        holder=_maybe_node(m.holder),
        result=_bytes(m.result, MAX_RESULT_BYTES, "a result") if m.HasField("result") else None,
        reason=_reason(m.reason) if m.reason else None,
        detail=_text(m.detail),
    )


def _to_standing(m: pb.Standing) -> Standing:
    return Standing(
        task=ids.task_id(m.task),
        epoch=ids.epoch(m.epoch),
        known=m.known,
        remembered=_count(m.remembered, "remembered"),
    )


def _to_plain(act: Callable[..., Act]) -> Callable[[Any], Act]:
    def decode(m: Any) -> Act:
        return act(task=ids.task_id(m.task), epoch=ids.epoch(m.epoch))

    return decode


def _to_reject_proposal(m: pb.RejectProposal) -> RejectProposal | Rejections:
    first = RejectProposal(task=ids.task_id(m.task), epoch=ids.epoch(m.epoch))
    more = m.more
    if not more:
        return first
    if len(more) % REJECTION_BYTES or len(more) // REJECTION_BYTES >= MAX_REJECTIONS:
        raise DecodeError("rejections of another length, or too many")
    acts = [first]
    for at in range(0, len(more), REJECTION_BYTES):
        middle = at + ids.TASK_BYTES
        acts.append(
            RejectProposal(task=ids.task_id(more[at:middle]), epoch=ids.epoch(more[middle : at + REJECTION_BYTES]))
        )
    return Rejections(acts=tuple(acts))


def _to_renew(m: pb.Renew) -> Renew:
    boot = m.boot
    if m.progress_permille > MAX_PERMILLE or len(boot) != BOOT_BYTES:
        raise DecodeError("progress or boot is out of range")
    return Renew(
        task=ids.task_id(m.task),
        epoch=ids.epoch(m.epoch),
        boot=boot,
        sequence=_count(m.sequence, "sequence"),
        progress_permille=m.progress_permille,
        note=_text(m.note),
    )


def _to_renewed(m: pb.Renewed) -> Renewed:
    boot = m.boot
    if len(boot) != BOOT_BYTES:
        raise DecodeError("a boot has 16 bytes")
    return Renewed(
        task=ids.task_id(m.task), epoch=ids.epoch(m.epoch), boot=boot, sequence=_count(m.sequence, "sequence")
    )


def _to_checkpoint(m: pb.Checkpoint) -> Checkpoint:
    return Checkpoint(
        task=ids.task_id(m.task),
        epoch=ids.epoch(m.epoch),
        version=_count(m.version, "version"),
        state=_bytes(m.state, MAX_CHECKPOINT_BYTES, "a checkpoint"),
    )


def _to_inform(m: pb.Inform) -> Inform:
    return Inform(
        task=ids.task_id(m.task), epoch=ids.epoch(m.epoch), result=_bytes(m.result, MAX_RESULT_BYTES, "a result")
    )


def _to_failure(m: pb.Failure) -> Failure:
    return Failure(task=ids.task_id(m.task), epoch=ids.epoch(m.epoch), reason=_reason(m.reason), detail=_text(m.detail))


def _to_forfeit(m: pb.Forfeit) -> Forfeit:
    return Forfeit(
        task=ids.task_id(m.task),
        epoch=ids.epoch(m.epoch),
        reason=_reason(m.reason),
        detail=_text(m.detail),
        checkpoint=_bytes(m.checkpoint, MAX_CHECKPOINT_BYTES, "a checkpoint") if m.HasField("checkpoint") else None,
        checkpoint_version=_count(m.checkpoint_version, "checkpoint_version"),
    )


def _to_cancel(m: pb.Cancel) -> Cancel:
    return Cancel(task=ids.task_id(m.task), epoch=ids.epoch(m.epoch), reason=_reason(m.reason), detail=_text(m.detail))


def _to_cancelled(m: pb.Cancelled) -> Cancelled:
    return Cancelled(task=ids.task_id(m.task), epoch=ids.epoch(m.epoch), in_doubt=m.in_doubt)


def _to_adopt(m: pb.Adopt) -> Adopt:
    return Adopt(task=ids.task_id(m.task), epoch=ids.epoch(m.epoch), former=ids.epoch(m.former))


def _to_acknowledge(m: pb.Acknowledge) -> Acknowledge:
    return Acknowledge(
        task=ids.task_id(m.task), epoch=ids.epoch(m.epoch), act=_word(m.act), version=_count(m.version, "version")
    )


def _to_not_understood(m: pb.NotUnderstood) -> NotUnderstood:
    return NotUnderstood(
        task=ids.task_id(m.task),
        epoch=ids.epoch(m.epoch),
        act=_word(m.act),
        reason=_reason(m.reason),
        detail=_text(m.detail),
    )


DECODERS: Final[dict[int, tuple[Callable[[bytes], Any], Callable[[Any], Act | Rejections]]]] = {
    TYPE_OF_ACT[act]: (parse, convert)
    for act, parse, convert in (
        (Cfp, pb.Cfp.FromString, _to_cfp),
        (Propose, pb.Propose.FromString, _to_propose),
        (Refuse, pb.Refuse.FromString, _to_refuse),
        (AcceptProposal, pb.AcceptProposal.FromString, _to_accept_proposal),
        (RejectProposal, pb.RejectProposal.FromString, _to_reject_proposal),
        (Inform, pb.Inform.FromString, _to_inform),
        (Failure, pb.Failure.FromString, _to_failure),
        (Cancel, pb.Cancel.FromString, _to_cancel),
        (NotUnderstood, pb.NotUnderstood.FromString, _to_not_understood),
        (Reserve, pb.Reserve.FromString, _to_plain(Reserve)),
        (Commit, pb.Commit.FromString, _to_plain(Commit)),
        (Renew, pb.Renew.FromString, _to_renew),
        (Renewed, pb.Renewed.FromString, _to_renewed),
        (Checkpoint, pb.Checkpoint.FromString, _to_checkpoint),
        (Forfeit, pb.Forfeit.FromString, _to_forfeit),
        (Cancelled, pb.Cancelled.FromString, _to_cancelled),
        (Adopt, pb.Adopt.FromString, _to_adopt),
        (PassPointOfNoReturn, pb.PassPointOfNoReturn.FromString, _to_plain(PassPointOfNoReturn)),
        (PointOfNoReturnRecorded, pb.PointOfNoReturnRecorded.FromString, _to_plain(PointOfNoReturnRecorded)),
        (QueryStatus, pb.QueryStatus.FromString, _to_plain(QueryStatus)),
        (Acknowledge, pb.Acknowledge.FromString, _to_acknowledge),
        (Prepare, pb.Prepare.FromString, _to_plain(Prepare)),
        (Promise, pb.Promise.FromString, _to_promise),
        (Accept, pb.Accept.FromString, _to_accept),
        (Accepted, pb.Accepted.FromString, _to_accepted),
        (Nack, pb.Nack.FromString, _to_nack),
        (Outcome, pb.Outcome.FromString, _to_outcome),
        (OutcomeKnown, pb.OutcomeKnown.FromString, _to_plain(OutcomeKnown)),
        (Inquire, pb.Inquire.FromString, _to_plain(Inquire)),
        (Standing, pb.Standing.FromString, _to_standing),
    )
}
