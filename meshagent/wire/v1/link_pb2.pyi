from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Frame(_message.Message):
    __slots__ = ("seq", "ack", "batches", "hello", "ack_soon", "bye")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    HELLO_FIELD_NUMBER: _ClassVar[int]
    ACK_SOON_FIELD_NUMBER: _ClassVar[int]
    BYE_FIELD_NUMBER: _ClassVar[int]
    seq: int
    ack: int
    batches: _containers.RepeatedCompositeFieldContainer[Batch]
    hello: bytes
    ack_soon: bool
    bye: int
    def __init__(self, seq: _Optional[int] = ..., ack: _Optional[int] = ..., batches: _Optional[_Iterable[_Union[Batch, _Mapping]]] = ..., hello: _Optional[bytes] = ..., ack_soon: _Optional[bool] = ..., bye: _Optional[int] = ...) -> None: ...

class Batch(_message.Message):
    __slots__ = ("proof", "messages")
    PROOF_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    proof: bytes
    messages: _containers.RepeatedCompositeFieldContainer[Message]
    def __init__(self, proof: _Optional[bytes] = ..., messages: _Optional[_Iterable[_Union[Message, _Mapping]]] = ...) -> None: ...

class Message(_message.Message):
    __slots__ = ("header", "index", "path", "payload", "to")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    header: bytes
    index: int
    path: bytes
    payload: bytes
    to: bytes
    def __init__(self, header: _Optional[bytes] = ..., index: _Optional[int] = ..., path: _Optional[bytes] = ..., payload: _Optional[bytes] = ..., to: _Optional[bytes] = ...) -> None: ...
