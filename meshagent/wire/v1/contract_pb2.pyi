from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MessageType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MESSAGE_TYPE_UNSPECIFIED: _ClassVar[MessageType]
    MESSAGE_TYPE_PROFILE: _ClassVar[MessageType]
    MESSAGE_TYPE_EVENT: _ClassVar[MessageType]
    MESSAGE_TYPE_STORY_QUERY: _ClassVar[MessageType]
    MESSAGE_TYPE_STORY_REPLY: _ClassVar[MessageType]
    MESSAGE_TYPE_REVOCATION_NOTICE: _ClassVar[MessageType]
    MESSAGE_TYPE_MEMBERSHIP: _ClassVar[MessageType]
    MESSAGE_TYPE_CFP: _ClassVar[MessageType]
    MESSAGE_TYPE_PROPOSE: _ClassVar[MessageType]
    MESSAGE_TYPE_REFUSE: _ClassVar[MessageType]
    MESSAGE_TYPE_ACCEPT_PROPOSAL: _ClassVar[MessageType]
    MESSAGE_TYPE_REJECT_PROPOSAL: _ClassVar[MessageType]
    MESSAGE_TYPE_INFORM: _ClassVar[MessageType]
    MESSAGE_TYPE_FAILURE: _ClassVar[MessageType]
    MESSAGE_TYPE_CANCEL: _ClassVar[MessageType]
    MESSAGE_TYPE_NOT_UNDERSTOOD: _ClassVar[MessageType]
    MESSAGE_TYPE_RESERVE: _ClassVar[MessageType]
    MESSAGE_TYPE_COMMIT: _ClassVar[MessageType]
    MESSAGE_TYPE_RENEW: _ClassVar[MessageType]
    MESSAGE_TYPE_RENEWED: _ClassVar[MessageType]
    MESSAGE_TYPE_CHECKPOINT: _ClassVar[MessageType]
    MESSAGE_TYPE_FORFEIT: _ClassVar[MessageType]
    MESSAGE_TYPE_CANCELLED: _ClassVar[MessageType]
    MESSAGE_TYPE_ADOPT: _ClassVar[MessageType]
    MESSAGE_TYPE_PASS_POINT_OF_NO_RETURN: _ClassVar[MessageType]
    MESSAGE_TYPE_POINT_OF_NO_RETURN_RECORDED: _ClassVar[MessageType]
    MESSAGE_TYPE_QUERY_STATUS: _ClassVar[MessageType]
    MESSAGE_TYPE_ACKNOWLEDGE: _ClassVar[MessageType]
    MESSAGE_TYPE_PREPARE: _ClassVar[MessageType]
    MESSAGE_TYPE_PROMISE: _ClassVar[MessageType]
    MESSAGE_TYPE_ACCEPT: _ClassVar[MessageType]
    MESSAGE_TYPE_ACCEPTED: _ClassVar[MessageType]
    MESSAGE_TYPE_NACK: _ClassVar[MessageType]
    MESSAGE_TYPE_OUTCOME: _ClassVar[MessageType]
    MESSAGE_TYPE_OUTCOME_KNOWN: _ClassVar[MessageType]
    MESSAGE_TYPE_INQUIRE: _ClassVar[MessageType]
    MESSAGE_TYPE_STANDING: _ClassVar[MessageType]

class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REASON_UNSPECIFIED: _ClassVar[Reason]
    REASON_NOT_OFFERED: _ClassVar[Reason]
    REASON_CAPABILITY: _ClassVar[Reason]
    REASON_PERMISSION: _ClassVar[Reason]
    REASON_APPROVAL: _ClassVar[Reason]
    REASON_BATTERY: _ClassVar[Reason]
    REASON_UNREACHABLE: _ClassVar[Reason]
    REASON_RESOURCES: _ClassVar[Reason]
    REASON_BUSY: _ClassVar[Reason]
    REASON_TIME: _ClassVar[Reason]
    REASON_CALIBRATION: _ClassVar[Reason]
    REASON_POLICY: _ClassVar[Reason]
    REASON_DRAINING: _ClassVar[Reason]
    REASON_INVALID_TASK: _ClassVar[Reason]
    REASON_STALE_EPOCH: _ClassVar[Reason]
    REASON_STALE_BID: _ClassVar[Reason]
    REASON_DUPLICATE: _ClassVar[Reason]
    REASON_CLOSED: _ClassVar[Reason]
    REASON_ILLEGAL_NOW: _ClassVar[Reason]
    REASON_UNKNOWN_TASK: _ClassVar[Reason]
    REASON_QUARANTINED: _ClassVar[Reason]
    REASON_LEASE_LOST: _ClassVar[Reason]
    REASON_RESTARTED: _ClassVar[Reason]
    REASON_GIVEN_BACK: _ClassVar[Reason]
    REASON_TIMEOUT: _ClassVar[Reason]
    REASON_ERROR: _ClassVar[Reason]
    REASON_CRASHED: _ClassVar[Reason]
    REASON_NO_BIDS: _ClassVar[Reason]
    REASON_EXPIRED: _ClassVar[Reason]
    REASON_PEER_LOST: _ClassVar[Reason]
    REASON_CANCELLED: _ClassVar[Reason]
    REASON_OPERATOR: _ClassVar[Reason]
    REASON_OTHER: _ClassVar[Reason]

class Delivery(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DELIVERY_UNSPECIFIED: _ClassVar[Delivery]
    DELIVERY_AT_MOST_ONCE: _ClassVar[Delivery]
    DELIVERY_AT_LEAST_ONCE: _ClassVar[Delivery]

class InDoubt(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IN_DOUBT_UNSPECIFIED: _ClassVar[InDoubt]
    IN_DOUBT_WAIT: _ClassVar[InDoubt]
    IN_DOUBT_MAJORITY: _ClassVar[InDoubt]

class Durability(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DURABILITY_UNSPECIFIED: _ClassVar[Durability]
    DURABILITY_LOCAL: _ClassVar[Durability]
    DURABILITY_REPLICATED: _ClassVar[Durability]

class TaskState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TASK_STATE_UNSPECIFIED: _ClassVar[TaskState]
    TASK_STATE_DONE: _ClassVar[TaskState]
    TASK_STATE_FAILED: _ClassVar[TaskState]
    TASK_STATE_CANCELLED: _ClassVar[TaskState]
MESSAGE_TYPE_UNSPECIFIED: MessageType
MESSAGE_TYPE_PROFILE: MessageType
MESSAGE_TYPE_EVENT: MessageType
MESSAGE_TYPE_STORY_QUERY: MessageType
MESSAGE_TYPE_STORY_REPLY: MessageType
MESSAGE_TYPE_REVOCATION_NOTICE: MessageType
MESSAGE_TYPE_MEMBERSHIP: MessageType
MESSAGE_TYPE_CFP: MessageType
MESSAGE_TYPE_PROPOSE: MessageType
MESSAGE_TYPE_REFUSE: MessageType
MESSAGE_TYPE_ACCEPT_PROPOSAL: MessageType
MESSAGE_TYPE_REJECT_PROPOSAL: MessageType
MESSAGE_TYPE_INFORM: MessageType
MESSAGE_TYPE_FAILURE: MessageType
MESSAGE_TYPE_CANCEL: MessageType
MESSAGE_TYPE_NOT_UNDERSTOOD: MessageType
MESSAGE_TYPE_RESERVE: MessageType
MESSAGE_TYPE_COMMIT: MessageType
MESSAGE_TYPE_RENEW: MessageType
MESSAGE_TYPE_RENEWED: MessageType
MESSAGE_TYPE_CHECKPOINT: MessageType
MESSAGE_TYPE_FORFEIT: MessageType
MESSAGE_TYPE_CANCELLED: MessageType
MESSAGE_TYPE_ADOPT: MessageType
MESSAGE_TYPE_PASS_POINT_OF_NO_RETURN: MessageType
MESSAGE_TYPE_POINT_OF_NO_RETURN_RECORDED: MessageType
MESSAGE_TYPE_QUERY_STATUS: MessageType
MESSAGE_TYPE_ACKNOWLEDGE: MessageType
MESSAGE_TYPE_PREPARE: MessageType
MESSAGE_TYPE_PROMISE: MessageType
MESSAGE_TYPE_ACCEPT: MessageType
MESSAGE_TYPE_ACCEPTED: MessageType
MESSAGE_TYPE_NACK: MessageType
MESSAGE_TYPE_OUTCOME: MessageType
MESSAGE_TYPE_OUTCOME_KNOWN: MessageType
MESSAGE_TYPE_INQUIRE: MessageType
MESSAGE_TYPE_STANDING: MessageType
REASON_UNSPECIFIED: Reason
REASON_NOT_OFFERED: Reason
REASON_CAPABILITY: Reason
REASON_PERMISSION: Reason
REASON_APPROVAL: Reason
REASON_BATTERY: Reason
REASON_UNREACHABLE: Reason
REASON_RESOURCES: Reason
REASON_BUSY: Reason
REASON_TIME: Reason
REASON_CALIBRATION: Reason
REASON_POLICY: Reason
REASON_DRAINING: Reason
REASON_INVALID_TASK: Reason
REASON_STALE_EPOCH: Reason
REASON_STALE_BID: Reason
REASON_DUPLICATE: Reason
REASON_CLOSED: Reason
REASON_ILLEGAL_NOW: Reason
REASON_UNKNOWN_TASK: Reason
REASON_QUARANTINED: Reason
REASON_LEASE_LOST: Reason
REASON_RESTARTED: Reason
REASON_GIVEN_BACK: Reason
REASON_TIMEOUT: Reason
REASON_ERROR: Reason
REASON_CRASHED: Reason
REASON_NO_BIDS: Reason
REASON_EXPIRED: Reason
REASON_PEER_LOST: Reason
REASON_CANCELLED: Reason
REASON_OPERATOR: Reason
REASON_OTHER: Reason
DELIVERY_UNSPECIFIED: Delivery
DELIVERY_AT_MOST_ONCE: Delivery
DELIVERY_AT_LEAST_ONCE: Delivery
IN_DOUBT_UNSPECIFIED: InDoubt
IN_DOUBT_WAIT: InDoubt
IN_DOUBT_MAJORITY: InDoubt
DURABILITY_UNSPECIFIED: Durability
DURABILITY_LOCAL: Durability
DURABILITY_REPLICATED: Durability
TASK_STATE_UNSPECIFIED: TaskState
TASK_STATE_DONE: TaskState
TASK_STATE_FAILED: TaskState
TASK_STATE_CANCELLED: TaskState

class TaskRecord(_message.Message):
    __slots__ = ("task", "initiator", "boot", "nonce", "kind", "spec", "delivery", "in_doubt", "durability", "priority", "key", "parent", "approval", "custodians", "custodian_generation", "seal")
    TASK_FIELD_NUMBER: _ClassVar[int]
    INITIATOR_FIELD_NUMBER: _ClassVar[int]
    BOOT_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    IN_DOUBT_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    APPROVAL_FIELD_NUMBER: _ClassVar[int]
    CUSTODIANS_FIELD_NUMBER: _ClassVar[int]
    CUSTODIAN_GENERATION_FIELD_NUMBER: _ClassVar[int]
    SEAL_FIELD_NUMBER: _ClassVar[int]
    task: bytes
    initiator: bytes
    boot: bytes
    nonce: bytes
    kind: str
    spec: bytes
    delivery: Delivery
    in_doubt: InDoubt
    durability: Durability
    priority: int
    key: str
    parent: bytes
    approval: bool
    custodians: _containers.RepeatedScalarFieldContainer[bytes]
    custodian_generation: int
    seal: bytes
    def __init__(self, task: _Optional[bytes] = ..., initiator: _Optional[bytes] = ..., boot: _Optional[bytes] = ..., nonce: _Optional[bytes] = ..., kind: _Optional[str] = ..., spec: _Optional[bytes] = ..., delivery: _Optional[_Union[Delivery, str]] = ..., in_doubt: _Optional[_Union[InDoubt, str]] = ..., durability: _Optional[_Union[Durability, str]] = ..., priority: _Optional[int] = ..., key: _Optional[str] = ..., parent: _Optional[bytes] = ..., approval: _Optional[bool] = ..., custodians: _Optional[_Iterable[bytes]] = ..., custodian_generation: _Optional[int] = ..., seal: _Optional[bytes] = ...) -> None: ...

class Cfp(_message.Message):
    __slots__ = ("task", "epoch", "record", "reply_within_ms", "within_ms", "resumes")
    TASK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    REPLY_WITHIN_MS_FIELD_NUMBER: _ClassVar[int]
    WITHIN_MS_FIELD_NUMBER: _ClassVar[int]
    RESUMES_FIELD_NUMBER: _ClassVar[int]
    task: bytes
    epoch: bytes
    record: bytes
    reply_within_ms: int
    within_ms: int
    resumes: bool
    def __init__(self, task: _Optional[bytes] = ..., epoch: _Optional[bytes] = ..., record: _Optional[bytes] = ..., reply_within_ms: _Optional[int] = ..., within_ms: _Optional[int] = ..., resumes: _Optional[bool] = ...) -> None: ...

class Propose(_message.Message):
    __slots__ = ("task", "epoch", "added_ms", "load_ms", "plan_version", "because", "holds_result")
    TASK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ADDED_MS_FIELD_NUMBER: _ClassVar[int]
    LOAD_MS_FIELD_NUMBER: _ClassVar[int]
    PLAN_VERSION_FIELD_NUMBER: _ClassVar[int]
    BECAUSE_FIELD_NUMBER: _ClassVar[int]
    HOLDS_RESULT_FIELD_NUMBER: _ClassVar[int]
    task: bytes
    epoch: bytes
    added_ms: int
    load_ms: int
    plan_version: int
    because: str
    holds_result: bool
    def __init__(self, task: _Optional[bytes] = ..., epoch: _Optional[bytes] = ..., added_ms: _Optional[int] = ..., load_ms: _Optional[int] = ..., plan_version: _Optional[int] = ..., because: _Optional[str] = ..., holds_result: _Optional[bool] = ...) -> None: ...

class Refuse(_message.Message):
    __slots__ = ("task", "epoch", "reason", "detail", "added_ms", "load_ms", "seen", "duplicate_of")
    TASK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    ADDED_MS_FIELD_NUMBER: _ClassVar[int]
    LOAD_MS_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_OF_FIELD_NUMBER: _ClassVar[int]
    task: bytes
    epoch: bytes
    reason: Reason
    detail: str
    added_ms: int
    load_ms: int
    seen: bytes
    duplicate_of: bytes
    def __init__(self, task: _Optional[bytes] = ..., epoch: _Optional[bytes] = ..., reason: _Optional[_Union[Reason, str]] = ..., detail: _Optional[str] = ..., added_ms: _Optional[int] = ..., load_ms: _Optional[int] = ..., seen: _Optional[bytes] = ..., duplicate_of: _Optional[bytes] = ...) -> None: ...

class AcceptProposal(_message.Message):
    __slots__ = ("task", "epoch", "record", "call_epoch", "added_ms", "load_ms", "plan_version", "lease_ms", "within_ms", "checkpoint", "checkpoint_version")
    TASK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    CALL_EPOCH_FIELD_NUMBER: _ClassVar[int]
    ADDED_MS_FIELD_NUMBER: _ClassVar[int]
    LOAD_MS_FIELD_NUMBER: _ClassVar[int]
    PLAN_VERSION_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    WITHIN_MS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_VERSION_FIELD_NUMBER: _ClassVar[int]
    task: bytes
    epoch: bytes
    record: bytes
    call_epoch: bytes
    added_ms: int
    load_ms: int
    plan_version: int
    lease_ms: int
    within_ms: int
    checkpoint: bytes
    checkpoint_version: int
    def __init__(self, task: _Optional[bytes] = ..., epoch: _Optional[bytes] = ..., record: _Optional[bytes] = ..., call_epoch: _Optional[bytes] = ..., added_ms: _Optional[int] = ..., load_ms: _Optional[int] = ..., plan_version: _Optional[int] = ..., lease_ms: _Optional[int] = ..., within_ms: _Optional[int] = ..., checkpoint: _Optional[bytes] = ..., checkpoint_version: _Optional[int] = ...) -> None: ...

class RejectProposal(_message.Message):
    __slots__ = ("task", "epoch", "more")
    TASK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    task: bytes
    epoch: bytes
    more: bytes
    def __init__(self, task: _Optional[bytes] = ..., epoch: _Optional[bytes] = ..., more: _Optional[bytes] = ...) -> None: ...

class Inform(_message.Message):
    __slots__ = ("task", "epoch", "result")
    TASK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    task: bytes
    epoch: bytes
    result: bytes
    def __init__(self, task: _Optional[bytes] = ..., epoch: _Optional[bytes] = ..., result: _Optional[bytes] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("task", "epoch", "reason", "detail")
    TASK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    task: bytes
    epoch: bytes
    reason: Reason
    detail: str
    def __init__(self, task: _Optional[bytes] = ..., epoch: _Optional[bytes] = ..., reason: _Optional[_Union[Reason, str]] = ..., detail: _Optional[str] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("task", "epoch", "reason", "detail")
    TASK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    task: bytes
    epoch: bytes
    reason: Reason
    detail: str
    def __init__(self, task: _Optional[bytes] = ..., epoch: _Optional[bytes] = ..., reason: _Optional[_Union[Reason, str]] = ..., detail: _Optional[str] = ...) -> None: ...

class NotUnderstood(_message.Message):
    __slots__ = ("task", "epoch", "act", "reason", "detail")
    TASK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ACT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    task: bytes
    epoch: bytes
    act: MessageType
    reason: Reason
    detail: str
    def __init__(self, task: _Optional[bytes] = ..., epoch: _Optional[bytes] = ..., act: _Optional[_Union[MessageType, str]] = ..., reason: _Optional[_Union[Reason, str]] = ..., detail: _Optional[str] = ...) -> None: ...

class Reserve(_message.Message):
    __slots__ = ("task", "epoch")
    TASK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    task: bytes
    epoch: bytes
    def __init__(self, task: _Optional[bytes] = ..., epoch: _Optional[bytes] = ...) -> None: ...

class Commit(_message.Message):
    __slots__ = ("task", "epoch")
    TASK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    task: bytes
    epoch: bytes
    def __init__(self, task: _Optional[bytes] = ..., epoch: _Optional[bytes] = ...) -> None: ...

class Renew(_message.Message):
    __slots__ = ("task", "epoch", "sequence", "progress_permille", "note", "boot")
    TASK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_PERMILLE_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    BOOT_FIELD_NUMBER: _ClassVar[int]
    task: bytes
    epoch: bytes
    sequence: int
    progress_permille: int
    note: str
    boot: bytes
    def __init__(self, task: _Optional[bytes] = ..., epoch: _Optional[bytes] = ..., sequence: _Optional[int] = ..., progress_permille: _Optional[int] = ..., note: _Optional[str] = ..., boot: _Optional[bytes] = ...) -> None: ...

class Renewed(_message.Message):
    __slots__ = ("task", "epoch", "boot", "sequence")
    TASK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    BOOT_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    task: bytes
    epoch: bytes
    boot: bytes
    sequence: int
    def __init__(self, task: _Optional[bytes] = ..., epoch: _Optional[bytes] = ..., boot: _Optional[bytes] = ..., sequence: _Optional[int] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("task", "epoch", "version", "state")
    TASK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    task: bytes
    epoch: bytes
    version: int
    state: bytes
    def __init__(self, task: _Optional[bytes] = ..., epoch: _Optional[bytes] = ..., version: _Optional[int] = ..., state: _Optional[bytes] = ...) -> None: ...

class Forfeit(_message.Message):
    __slots__ = ("task", "epoch", "reason", "detail", "checkpoint", "checkpoint_version")
    TASK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_VERSION_FIELD_NUMBER: _ClassVar[int]
    task: bytes
    epoch: bytes
    reason: Reason
    detail: str
    checkpoint: bytes
    checkpoint_version: int
    def __init__(self, task: _Optional[bytes] = ..., epoch: _Optional[bytes] = ..., reason: _Optional[_Union[Reason, str]] = ..., detail: _Optional[str] = ..., checkpoint: _Optional[bytes] = ..., checkpoint_version: _Optional[int] = ...) -> None: ...

class Cancelled(_message.Message):
    __slots__ = ("task", "epoch", "in_doubt")
    TASK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    IN_DOUBT_FIELD_NUMBER: _ClassVar[int]
    task: bytes
    epoch: bytes
    in_doubt: bool
    def __init__(self, task: _Optional[bytes] = ..., epoch: _Optional[bytes] = ..., in_doubt: _Optional[bool] = ...) -> None: ...

class Adopt(_message.Message):
    __slots__ = ("task", "epoch", "former")
    TASK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    FORMER_FIELD_NUMBER: _ClassVar[int]
    task: bytes
    epoch: bytes
    former: bytes
    def __init__(self, task: _Optional[bytes] = ..., epoch: _Optional[bytes] = ..., former: _Optional[bytes] = ...) -> None: ...

class PassPointOfNoReturn(_message.Message):
    __slots__ = ("task", "epoch")
    TASK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    task: bytes
    epoch: bytes
    def __init__(self, task: _Optional[bytes] = ..., epoch: _Optional[bytes] = ...) -> None: ...

class PointOfNoReturnRecorded(_message.Message):
    __slots__ = ("task", "epoch")
    TASK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    task: bytes
    epoch: bytes
    def __init__(self, task: _Optional[bytes] = ..., epoch: _Optional[bytes] = ...) -> None: ...

class QueryStatus(_message.Message):
    __slots__ = ("task", "epoch")
    TASK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    task: bytes
    epoch: bytes
    def __init__(self, task: _Optional[bytes] = ..., epoch: _Optional[bytes] = ...) -> None: ...

class Acknowledge(_message.Message):
    __slots__ = ("task", "epoch", "act", "version")
    TASK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ACT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    task: bytes
    epoch: bytes
    act: MessageType
    version: int
    def __init__(self, task: _Optional[bytes] = ..., epoch: _Optional[bytes] = ..., act: _Optional[_Union[MessageType, str]] = ..., version: _Optional[int] = ...) -> None: ...

class Prepare(_message.Message):
    __slots__ = ("task", "epoch")
    TASK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    task: bytes
    epoch: bytes
    def __init__(self, task: _Optional[bytes] = ..., epoch: _Optional[bytes] = ...) -> None: ...

class Promise(_message.Message):
    __slots__ = ("task", "epoch", "accepted", "version", "holder", "point_of_no_return", "cancelled", "grant_ms", "mark", "ballot")
    TASK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    POINT_OF_NO_RETURN_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    GRANT_MS_FIELD_NUMBER: _ClassVar[int]
    MARK_FIELD_NUMBER: _ClassVar[int]
    BALLOT_FIELD_NUMBER: _ClassVar[int]
    task: bytes
    epoch: bytes
    accepted: bytes
    version: int
    holder: bytes
    point_of_no_return: bool
    cancelled: bool
    grant_ms: int
    mark: int
    ballot: bytes
    def __init__(self, task: _Optional[bytes] = ..., epoch: _Optional[bytes] = ..., accepted: _Optional[bytes] = ..., version: _Optional[int] = ..., holder: _Optional[bytes] = ..., point_of_no_return: _Optional[bool] = ..., cancelled: _Optional[bool] = ..., grant_ms: _Optional[int] = ..., mark: _Optional[int] = ..., ballot: _Optional[bytes] = ...) -> None: ...

class Accept(_message.Message):
    __slots__ = ("task", "epoch", "version", "record", "first", "holder", "point_of_no_return", "cancelled", "lease_ms", "within_ms", "adopts", "ballot")
    TASK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    POINT_OF_NO_RETURN_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    WITHIN_MS_FIELD_NUMBER: _ClassVar[int]
    ADOPTS_FIELD_NUMBER: _ClassVar[int]
    BALLOT_FIELD_NUMBER: _ClassVar[int]
    task: bytes
    epoch: bytes
    version: int
    record: bytes
    first: bool
    holder: bytes
    point_of_no_return: bool
    cancelled: bool
    lease_ms: int
    within_ms: int
    adopts: bool
    ballot: bytes
    def __init__(self, task: _Optional[bytes] = ..., epoch: _Optional[bytes] = ..., version: _Optional[int] = ..., record: _Optional[bytes] = ..., first: _Optional[bool] = ..., holder: _Optional[bytes] = ..., point_of_no_return: _Optional[bool] = ..., cancelled: _Optional[bool] = ..., lease_ms: _Optional[int] = ..., within_ms: _Optional[int] = ..., adopts: _Optional[bool] = ..., ballot: _Optional[bytes] = ...) -> None: ...

class Accepted(_message.Message):
    __slots__ = ("task", "epoch", "version", "mark")
    TASK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MARK_FIELD_NUMBER: _ClassVar[int]
    task: bytes
    epoch: bytes
    version: int
    mark: int
    def __init__(self, task: _Optional[bytes] = ..., epoch: _Optional[bytes] = ..., version: _Optional[int] = ..., mark: _Optional[int] = ...) -> None: ...

class Nack(_message.Message):
    __slots__ = ("task", "epoch", "reason", "promised")
    TASK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PROMISED_FIELD_NUMBER: _ClassVar[int]
    task: bytes
    epoch: bytes
    reason: Reason
    promised: bytes
    def __init__(self, task: _Optional[bytes] = ..., epoch: _Optional[bytes] = ..., reason: _Optional[_Union[Reason, str]] = ..., promised: _Optional[bytes] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("task", "epoch", "state", "holder", "result", "reason", "detail")
    TASK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    task: bytes
    epoch: bytes
    state: TaskState
    holder: bytes
    result: bytes
    reason: Reason
    detail: str
    def __init__(self, task: _Optional[bytes] = ..., epoch: _Optional[bytes] = ..., state: _Optional[_Union[TaskState, str]] = ..., holder: _Optional[bytes] = ..., result: _Optional[bytes] = ..., reason: _Optional[_Union[Reason, str]] = ..., detail: _Optional[str] = ...) -> None: ...

class OutcomeKnown(_message.Message):
    __slots__ = ("task", "epoch")
    TASK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    task: bytes
    epoch: bytes
    def __init__(self, task: _Optional[bytes] = ..., epoch: _Optional[bytes] = ...) -> None: ...

class Inquire(_message.Message):
    __slots__ = ("task", "epoch")
    TASK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    task: bytes
    epoch: bytes
    def __init__(self, task: _Optional[bytes] = ..., epoch: _Optional[bytes] = ...) -> None: ...

class Standing(_message.Message):
    __slots__ = ("task", "epoch", "known", "remembered")
    TASK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    REMEMBERED_FIELD_NUMBER: _ClassVar[int]
    task: bytes
    epoch: bytes
    known: bool
    remembered: int
    def __init__(self, task: _Optional[bytes] = ..., epoch: _Optional[bytes] = ..., known: _Optional[bool] = ..., remembered: _Optional[int] = ...) -> None: ...

class KindOffered(_message.Message):
    __slots__ = ("kind", "reads")
    KIND_FIELD_NUMBER: _ClassVar[int]
    READS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    reads: str
    def __init__(self, kind: _Optional[str] = ..., reads: _Optional[str] = ...) -> None: ...

class Profile(_message.Message):
    __slots__ = ("version", "name", "roles", "kinds", "capabilities", "battery_soc", "x_m", "y_m", "queue", "software", "visitor", "listen_port")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    BATTERY_SOC_FIELD_NUMBER: _ClassVar[int]
    X_M_FIELD_NUMBER: _ClassVar[int]
    Y_M_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    VISITOR_FIELD_NUMBER: _ClassVar[int]
    LISTEN_PORT_FIELD_NUMBER: _ClassVar[int]
    version: int
    name: str
    roles: _containers.RepeatedScalarFieldContainer[str]
    kinds: _containers.RepeatedCompositeFieldContainer[KindOffered]
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    battery_soc: float
    x_m: float
    y_m: float
    queue: int
    software: str
    visitor: bool
    listen_port: int
    def __init__(self, version: _Optional[int] = ..., name: _Optional[str] = ..., roles: _Optional[_Iterable[str]] = ..., kinds: _Optional[_Iterable[_Union[KindOffered, _Mapping]]] = ..., capabilities: _Optional[_Iterable[str]] = ..., battery_soc: _Optional[float] = ..., x_m: _Optional[float] = ..., y_m: _Optional[float] = ..., queue: _Optional[int] = ..., software: _Optional[str] = ..., visitor: _Optional[bool] = ..., listen_port: _Optional[int] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("name", "body")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    name: str
    body: bytes
    def __init__(self, name: _Optional[str] = ..., body: _Optional[bytes] = ...) -> None: ...

class StoryQuery(_message.Message):
    __slots__ = ("query", "task")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    query: int
    task: str
    def __init__(self, query: _Optional[int] = ..., task: _Optional[str] = ...) -> None: ...

class StoryReply(_message.Message):
    __slots__ = ("query", "task", "lines", "truncated")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    query: int
    task: str
    lines: bytes
    truncated: bool
    def __init__(self, query: _Optional[int] = ..., task: _Optional[str] = ..., lines: _Optional[bytes] = ..., truncated: _Optional[bool] = ...) -> None: ...

class RevocationNotice(_message.Message):
    __slots__ = ("lists",)
    LISTS_FIELD_NUMBER: _ClassVar[int]
    lists: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, lists: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Membership(_message.Message):
    __slots__ = ("kind", "body")
    KIND_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    kind: int
    body: bytes
    def __init__(self, kind: _Optional[int] = ..., body: _Optional[bytes] = ...) -> None: ...
