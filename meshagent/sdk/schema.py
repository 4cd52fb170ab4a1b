"""What may travel and how: a compiled `Schema` for a type, msgpack on the wire, every arrival validated.

Supported: str, int (64 bit), float (finite), bool, bytes, None, dataclasses of these, list, tuple, dict[str, T],
Enum, Literal and unions whose members msgpack tells apart. What cannot travel is found when the class is compiled,
not when the first value is sent. No schema ever runs code of the sender: dataclasses are built by their own
constructor from checked fields.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Hashable
from typing import Any, Final, Generic, Literal, TypeVar, Union, cast, get_args, get_origin

from meshagent import strictpack
from meshagent.core.acts import MAX_SPEC_BYTES
from meshagent.errors import ConfigurationError
from meshagent.sdk.codecs import (
    Choice,
    Converter,
    DictOf,
    Exact,
    Floating,
    Integer,
    ListOf,
    Misfits,
    OneOf,
    Record,
    TaggedRecords,
    TupleOf,
)
from meshagent.sdk.errors import Problem, SchemaError

T = TypeVar("T")

MAX_TYPE_DEPTH: Final = 12
"""Nested types; with the levels of the message around it this stays below the decoder's depth of 16."""

_SCALARS: Final[dict[object, Converter]] = {
    str: Exact(str, "str"),
    bool: Exact(bool, "bool"),
    bytes: Exact(bytes, "bytes"),
    type(None): Exact(type(None), "None"),
    int: Integer(),
    float: Floating(),
}

_INSTEAD: Final[dict[str, str]] = {
    "set": "use list or tuple",
    "frozenset": "use list or tuple",
    "datetime.datetime": "use seconds as float",
    "datetime.timedelta": "use seconds as float",
    "pathlib.Path": "use str",
    "uuid.UUID": "use str",
    "decimal.Decimal": "use str or int",
    "complex": "use two floats",
    "typing.Any": "name the type",
    "object": "name the type",
    "dict": "use dict[str, T] with a type, or a dataclass",
    "list": "use list[T] with a type",
    "tuple": "use tuple[T, ...] with a type",
}


class UnsupportedTypeError(ConfigurationError):
    """A type that cannot travel; `owner` and `field` say where, when it stands in a dataclass."""

    def __init__(self, message: str, *, next_step: str, owner: type | None = None, field: str | None = None) -> None:
        super().__init__(message, next_step=next_step)
        self.owner = owner
        self.field = field


class Schema(Generic[T]):
    """How values of one type travel. Made by `schema_of`."""

    __slots__ = ("_converter", "name")

    def __init__(self, name: str, converter: Converter) -> None:
        self.name = name
        self._converter = converter

    @property
    def converter(self) -> Converter:
        """The compiled converter; `outline.py` reads field names and types from it."""
        return self._converter

    @property
    def text(self) -> str:
        """The type as people read it."""
        return self._converter.text

    def encode(self, value: T, *, max_bytes: int = MAX_SPEC_BYTES) -> bytes:
        """Bytes of `value`.

        Raises:
            SchemaError: a field holds what its type forbids, or all together are too large.
        """
        try:
            data = strictpack.packb(self.to_plain(value))
        except strictpack.StrictEncodeError as error:
            raise SchemaError([Problem(self.name, str(error))]) from error
        if len(data) > max_bytes:
            raise SchemaError(
                [Problem(self.name, f"takes {len(data)} bytes, at most {max_bytes} travel")],
                next_step="keep bulk data on the device and send where to find it",
            )
        return data

    def decode(self, data: bytes, *, max_bytes: int = MAX_SPEC_BYTES) -> T:
        """The value behind `data`, whoever sent it.

        Raises:
            SchemaError: it is none; names each field, what was seen and what was expected.
        """
        try:
            plain = strictpack.unpackb(data, max_bytes=max_bytes)
        except strictpack.StrictDecodeError as error:
            raise SchemaError([Problem(self.name, f"is not readable: {error}")]) from error
        return self.from_plain(plain)

    def to_plain(self, value: T) -> object:
        """`value` as dicts, lists and scalars.

        Raises:
            SchemaError: a field holds what its type forbids.
        """
        misfits = Misfits()
        try:
            plain: object = self._converter.dump(value, misfits)
        except RecursionError as error:
            raise SchemaError([Problem(self.name, "holds itself, or is nested too deep to travel")]) from error
        if misfits.found:
            raise SchemaError(misfits.problems(self.name))
        return plain

    def from_plain(self, plain: object) -> T:
        """The value behind dicts, lists and scalars (JSON, TOML, msgpack).

        Raises:
            SchemaError: it is none.
        """
        misfits = Misfits()
        value: T = self._converter.load(plain, misfits)
        if misfits.found:
            raise SchemaError(misfits.problems(self.name))
        return value


def schema_of(kind: type[T]) -> Schema[T]:
    """The schema of `kind`, compiled once a type.

    Raises:
        UnsupportedTypeError: something in it cannot travel.
    """
    return _cached(cast("Hashable", kind)) if _hashes(kind) else _compiled(kind)


def _hashes(kind: object) -> bool:
    try:
        hash(kind)
    except TypeError:  # `Literal[[]]`: let the compiler say what it is
        return False
    return True


def _compiled(kind: Any) -> Schema[Any]:
    return Schema(type_text(kind), _Compiler().convert(kind, MAX_TYPE_DEPTH))


@functools.lru_cache(maxsize=1024)  # a fleet has tens of kinds; classes made in a loop by a test must not pile up
def _cached(kind: Hashable) -> Schema[Any]:
    return _compiled(kind)


def type_text(kind: object) -> str:
    """A type as people write it: `Finding`, `list[str] | None`, `numpy.ndarray`."""
    if kind is None or kind is type(None):
        return "None"
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return " | ".join(type_text(part) for part in get_args(kind))
    if origin is Literal:
        return " | ".join(f'"{part}"' if isinstance(part, str) else repr(part) for part in get_args(kind))
    if origin is not None:
        parts = ", ".join("..." if part is ... else type_text(part) for part in get_args(kind))
        return f"{type_text(origin)}[{parts}]"
    if isinstance(kind, type):
        if kind.__module__ == "builtins" or dataclasses.is_dataclass(kind) or issubclass(kind, enum.Enum):
            return kind.__name__
        return f"{kind.__module__}.{kind.__qualname__}"
    return str(kind)


class _Compiler:
    """Builds the converters of one type; remembers dataclasses so that they may hold themselves."""

    def __init__(self) -> None:
        self._records: dict[type, Record] = {}

    def convert(self, kind: Any, depth: int) -> Converter:
        if kind is None:
            kind = type(None)
        if isinstance(kind, type) and kind in _SCALARS:
            return _SCALARS[kind]
        if depth == 0:
            raise _refused(kind, "which is nested too deep to travel", "flatten it")
        origin, arguments = get_origin(kind), get_args(kind)
        if origin is typing.Annotated:
            return self.convert(arguments[0], depth)
        if isinstance(kind, typing.NewType):
            return self.convert(kind.__supertype__, depth)
        if origin in (Union, types.UnionType):
            return self._union(kind, arguments, depth)
        if origin is Literal:
            return self._choice(kind, [(value, value) for value in arguments])
        if origin is list:
            return ListOf(list, self.convert(arguments[0], depth - 1))
        if origin is tuple:
            if len(arguments) == 2 and arguments[1] is ...:
                return ListOf(tuple, self.convert(arguments[0], depth - 1))
            return TupleOf([self.convert(part, depth - 1) for part in arguments])
        if origin is dict:
            if arguments[0] is not str:
                raise _refused(kind, "which cannot travel", "use dict[str, T]")
            return DictOf(self.convert(arguments[1], depth - 1))
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return self._choice(kind, [(member, member.value) for member in kind])
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            return self._record(kind, depth)
        raise _refused(kind)

    def _choice(self, kind: object, choices: list[tuple[Any, Any]]) -> Converter:
        if not choices or not all(type(plain) in (str, int, bool) for _, plain in choices):
            raise _refused(kind, "which cannot travel", "use values that are str, int or bool")
        return Choice(choices)

    def _union(self, kind: object, arguments: tuple[Any, ...], depth: int) -> Converter:
        members = [self.convert(part, depth) for part in arguments]
        records = [member for member in members if isinstance(member, Record)]
        if len(records) > 1:
            if len({record.text for record in records}) < len(records):
                raise _refused(kind, "which holds two dataclasses of one name", "rename one")
            rest = [member for member in members if not isinstance(member, Record)]
            if not rest:
                return TaggedRecords(records)
            members = [TaggedRecords(records), *rest]
        wires = [wire for member in members for wire in member.wire]
        if len(wires) > len(set(wires)):
            raise _refused(kind, "whose members cannot be told apart on arrival", "use a dataclass for each case")
        return OneOf(members)

    def _record(self, kind: type, depth: int) -> Record:
        if kind in self._records:
            return self._records[kind]
        record = self._records[kind] = Record(kind)
        hints = _hints_of(kind)
        fields: dict[str, Converter] = {}
        optional = set()
        for field in dataclasses.fields(kind):
            if not field.init:
                raise UnsupportedTypeError(
                    f"{kind.__name__}.{field.name} is not set by the constructor, so it cannot arrive",
                    next_step="leave field(init=False) away, or compute it in a property",
                    owner=kind,
                    field=field.name,
                )
            try:
                fields[field.name] = self.convert(hints[field.name], depth - 1)
            except UnsupportedTypeError as error:
                if error.owner is not None:
                    raise
                raise UnsupportedTypeError(
                    f"{kind.__name__}.{field.name} {error}",
                    next_step=error.next_step or "",
                    owner=kind,
                    field=field.name,
                ) from None
            if field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING:
                optional.add(field.name)
        if extra := [name for name, hint in hints.items() if isinstance(hint, dataclasses.InitVar)]:
            raise UnsupportedTypeError(
                f"{kind.__name__}.{extra[0]} is an InitVar, which is not kept and cannot travel",
                next_step="make it a field",
                owner=kind,
                field=extra[0],
            )
        record.complete(fields, frozenset(optional))
        return record


def _hints_of(kind: type) -> dict[str, Any]:
    """Resolved annotations.

    Raises:
        UnsupportedTypeError: a name in them is not known in the class's module.
    """
    try:
        return typing.get_type_hints(kind, localns={kind.__name__: kind}, include_extras=True)
    except NameError as error:
        raise UnsupportedTypeError(
            f"{kind.__name__} names a type that its module does not know: {error.name}",
            next_step=f"define or import {error.name} at the top level of module {kind.__module__}",
            owner=kind,
        ) from error


def _refused(kind: object, why: str = "which cannot travel", next_step: str | None = None) -> UnsupportedTypeError:
    text = type_text(kind)
    instead = (
        next_step
        or _INSTEAD.get(text)
        or _INSTEAD.get(text.partition("[")[0])
        or "use bytes, a dataclass, or emit a sensor reference"
    )
    return UnsupportedTypeError(f"has type {text}, {why}", next_step=instead)
