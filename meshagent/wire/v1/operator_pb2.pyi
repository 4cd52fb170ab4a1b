from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Document(_message.Message):
    __slots__ = ("schema", "json")
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    schema: str
    json: bytes
    def __init__(self, schema: _Optional[str] = ..., json: _Optional[bytes] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PeersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TasksRequest(_message.Message):
    __slots__ = ("all",)
    ALL_FIELD_NUMBER: _ClassVar[int]
    all: bool
    def __init__(self, all: _Optional[bool] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("task",)
    TASK_FIELD_NUMBER: _ClassVar[int]
    task: str
    def __init__(self, task: _Optional[str] = ...) -> None: ...

class WhyRequest(_message.Message):
    __slots__ = ("task", "within_s")
    TASK_FIELD_NUMBER: _ClassVar[int]
    WITHIN_S_FIELD_NUMBER: _ClassVar[int]
    task: str
    within_s: float
    def __init__(self, task: _Optional[str] = ..., within_s: _Optional[float] = ...) -> None: ...

class CancelRequest(_message.Message):
    __slots__ = ("task", "detail", "wait")
    TASK_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    task: str
    detail: str
    wait: bool
    def __init__(self, task: _Optional[str] = ..., detail: _Optional[str] = ..., wait: _Optional[bool] = ...) -> None: ...

class ResolveRequest(_message.Message):
    __slots__ = ("task", "done")
    TASK_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    task: str
    done: bool
    def __init__(self, task: _Optional[str] = ..., done: _Optional[bool] = ...) -> None: ...

class SubmitRequest(_message.Message):
    __slots__ = ("kind", "spec", "delivery", "key", "within_s", "priority", "durability", "in_doubt", "approval")
    KIND_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    WITHIN_S_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    IN_DOUBT_FIELD_NUMBER: _ClassVar[int]
    APPROVAL_FIELD_NUMBER: _ClassVar[int]
    kind: str
    spec: bytes
    delivery: str
    key: str
    within_s: float
    priority: int
    durability: str
    in_doubt: str
    approval: bool
    def __init__(self, kind: _Optional[str] = ..., spec: _Optional[bytes] = ..., delivery: _Optional[str] = ..., key: _Optional[str] = ..., within_s: _Optional[float] = ..., priority: _Optional[int] = ..., durability: _Optional[str] = ..., in_doubt: _Optional[str] = ..., approval: _Optional[bool] = ...) -> None: ...

class CompleteRequest(_message.Message):
    __slots__ = ("what", "prefix")
    WHAT_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    what: str
    prefix: str
    def __init__(self, what: _Optional[str] = ..., prefix: _Optional[str] = ...) -> None: ...

class FactsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SpreadRequest(_message.Message):
    __slots__ = ("revocations",)
    REVOCATIONS_FIELD_NUMBER: _ClassVar[int]
    revocations: bytes
    def __init__(self, revocations: _Optional[bytes] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("credential_file",)
    CREDENTIAL_FILE_FIELD_NUMBER: _ClassVar[int]
    credential_file: bytes
    def __init__(self, credential_file: _Optional[bytes] = ...) -> None: ...

class ShutdownRequest(_message.Message):
    __slots__ = ("now",)
    NOW_FIELD_NUMBER: _ClassVar[int]
    now: bool
    def __init__(self, now: _Optional[bool] = ...) -> None: ...
