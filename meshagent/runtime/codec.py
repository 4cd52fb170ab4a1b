"""Frozen dataclasses to journal bytes and back, compiled once a class from its annotations.

What the machines persist (`core/contract_net/records.py`) and what the node writes for itself are plain values; this
turns them into msgpack maps by field name, so that a newer version may add fields with defaults. The journal is our
own disk, yet it is read strictly: a flipped bit is a `JournalError`, never a wrong promise.

Understood: str, int, float, bool, bytes, None, StrEnum, NewType, NamedTuple, tuples, lists, dicts with text keys,
dataclasses, and unions (of dataclasses by a tag).
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Final

import msgpack

from meshagent.errors import JournalError
from meshagent.strictpack import StrictDecodeError, unpackb

MAX_RECORD_BYTES: Final = 1024 * 1024
"""A record holds at most a specification, a checkpoint and a result (104 KiB) and its book-keeping."""

_To = Callable[[Any], Any]


class _MismatchError(Exception):
    """A stored value does not fit its annotation; becomes a `JournalError` with the record's name."""


class RecordCodec:
    """Writes and reads records of the given classes; the class name is the tag.

    Raises:
        TypeError: two classes share a name, or an annotation is not understood (found at construction).
    """

    def __init__(self, *classes: type) -> None:
        self._plans: dict[type, tuple[_To, _To]] = {}
        self._names: dict[str, type] = {}
        self._writers: dict[type, tuple[str, _To]] = {}
        self._readers: dict[str, _To] = {}
        for cls in classes:
            to_plain, from_plain = self._dataclass(cls)
            self._writers[cls] = (cls.__name__, to_plain)
            self._readers[cls.__name__] = from_plain

    def encode(self, record: object) -> bytes:
        """The journal bytes of `record`.

        Raises:
            TypeError: its class was not given to this codec.
        """
        found = self._writers.get(type(record))
        if found is None:
            raise TypeError(f"{type(record).__name__} is no record of this journal")
        name, to_plain = found
        raw: bytes = msgpack.packb([name, to_plain(record)], use_bin_type=True)
        return raw

    def decode(self, raw: bytes) -> Any:
        """The record behind `raw`.

        Raises:
            JournalError: damaged, or written by a version that this one does not understand.
        """
        name = "?"
        try:
            whole = unpackb(raw, max_bytes=MAX_RECORD_BYTES)
            if not isinstance(whole, list) or len(whole) != 2 or not isinstance(whole[0], str):
                raise _MismatchError("no tag")
            name = whole[0]
            reader = self._readers.get(name)
            if reader is None:
                raise _MismatchError("unknown kind of record")
            return reader(whole[1])
        except (StrictDecodeError, _MismatchError) as error:
            raise JournalError(
                f"the journal holds a {name} that cannot be read: {error}",
                next_step="start the version of meshagent that wrote it, or move the journal away (promises are lost)",
            ) from error

    # ---- compiling annotations

    def _dataclass(self, cls: type) -> tuple[_To, _To]:
        done = self._plans.get(cls)
        if done is not None:
            return done
        if self._names.setdefault(cls.__name__, cls) is not cls:
            raise TypeError(f"two classes are called {cls.__name__}")
        late: list[tuple[_To, _To]] = []
        # A class may contain itself: what refers to it meanwhile looks the plan up when it runs.
        self._plans[cls] = (lambda value: late[0][0](value), lambda value: late[0][1](value))
        hints = typing.get_type_hints(cls)
        plan = []
        for field in dataclasses.fields(cls):
            to_plain, from_plain = self._plan(hints[field.name], f"{cls.__name__}.{field.name}")
            required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            plan.append((field.name, to_plain, from_plain, required))
        names = frozenset(name for name, *_ in plan)
        plain_names = [name for name, to_plain, *_ in plan if to_plain is None]
        converted = [(name, to_plain) for name, to_plain, *_ in plan if to_plain is not None]

        def write(value: Any) -> dict[str, Any]:
            fields = {name: getattr(value, name) for name in plain_names}
            for name, convert in converted:
                fields[name] = convert(getattr(value, name))
            return fields

        def read(value: Any) -> Any:
            if not isinstance(value, dict) or not names.issuperset(value):
                raise _MismatchError(f"{cls.__name__} has other fields")
            kwargs = {}
            for name, _, convert, required in plan:
                if name in value:
                    kwargs[name] = convert(value[name])
                elif required:
                    raise _MismatchError(f"{cls.__name__}.{name} is missing")
            return cls(**kwargs)

        late.append((write, read))
        self._plans[cls] = (write, read)
        return write, read

    def _plan(self, hint: Any, where: str) -> tuple[_To | None, _To]:
        """How values of annotation `hint` are written (None: as they are) and read."""
        while isinstance(hint, typing.NewType):
            hint = hint.__supertype__
        if isinstance(hint, typing.TypeAliasType) if hasattr(typing, "TypeAliasType") else False:
            return self._plan(hint.__value__, where)
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if origin in (typing.Union, types.UnionType):
            return self._union(args, where)
        if origin is tuple or origin in (list, Sequence):
            return self._sequence(origin, args, where)
        if origin in (dict, Mapping):
            return self._mapping(args, where)
        if isinstance(hint, type):
            if dataclasses.is_dataclass(hint):
                return self._dataclass(hint)
            if issubclass(hint, Enum):
                return _enum(hint)
            if issubclass(hint, tuple) and hasattr(hint, "_fields"):
                return self._named_tuple(hint, where)
            if hint in (str, int, float, bool, bytes):
                return None, _exactly(hint)
            if hint is type(None):
                return None, _nothing
        raise TypeError(f"{where}: the journal does not understand {hint!r}")

    def _union(self, args: tuple[Any, ...], where: str) -> tuple[_To | None, _To]:
        others = [one for one in args if one is not type(None)]
        optional = len(others) != len(args)
        if len(others) == 1:
            to_plain, from_plain = self._plan(others[0], where)
        elif all(dataclasses.is_dataclass(one) for one in others):
            to_plain, from_plain = self._tagged(others)
        else:
            raise TypeError(f"{where}: a union of other than dataclasses has no tag")
        if not optional:
            return to_plain, from_plain
        some = to_plain
        write = None if some is None else lambda value: None if value is None else some(value)
        return write, lambda value: None if value is None else from_plain(value)

    def _tagged(self, classes: Sequence[Any]) -> tuple[_To, _To]:
        plans = {cls: self._dataclass(cls) for cls in classes}
        by_name = {cls.__name__: plans[cls][1] for cls in classes}

        def read(value: Any) -> Any:
            if not isinstance(value, list) or len(value) != 2 or value[0] not in by_name:
                raise _MismatchError("unknown tag")
            return by_name[value[0]](value[1])

        return lambda value: [type(value).__name__, plans[type(value)][0](value)], read

    def _sequence(self, origin: Any, args: tuple[Any, ...], where: str) -> tuple[_To | None, _To]:
        build = tuple if origin is tuple else list
        if origin is tuple and not (len(args) == 2 and args[1] is Ellipsis):
            plans = [self._plan(one, where) for one in args]
            writers = [one[0] for one in plans]
            readers = [one[1] for one in plans]

            def read_fixed(value: Any) -> Any:
                if not isinstance(value, list) or len(value) != len(readers):
                    raise _MismatchError(f"{where} has another length")
                return tuple(reader(one) for reader, one in zip(readers, value, strict=True))

            if all(one is None for one in writers):
                return None, read_fixed
            steps = [one or _same for one in writers]
            return lambda value: [step(one) for step, one in zip(steps, value, strict=True)], read_fixed
        to_plain, from_plain = self._plan(args[0], where)

        def read(value: Any) -> Any:
            if not isinstance(value, list):
                raise _MismatchError(f"{where} is no list")
            return build(from_plain(one) for one in value)

        return (None if to_plain is None else lambda value: [to_plain(one) for one in value]), read

    def _mapping(self, args: tuple[Any, ...], where: str) -> tuple[_To | None, _To]:
        _, read_key = self._plan(args[0], where)
        to_plain, from_plain = self._plan(args[1], where)

        def read(value: Any) -> Any:
            if not isinstance(value, dict):
                raise _MismatchError(f"{where} is no map")
            return {read_key(key): from_plain(one) for key, one in value.items()}

        if to_plain is None:
            return dict, read
        return lambda value: {key: to_plain(one) for key, one in value.items()}, read

    def _named_tuple(self, cls: Any, where: str) -> tuple[_To | None, _To]:
        hints = typing.get_type_hints(cls)
        write, read = self._sequence(tuple, tuple(hints[name] for name in cls._fields), where)
        return write, lambda value: cls(*read(value))


def _same(value: Any) -> Any:
    return value


def _nothing(value: Any) -> None:
    if value is not None:
        raise _MismatchError("something where nothing belongs")


def _exactly(cls: type) -> _To:
    def read(value: Any) -> Any:
        if type(value) is cls:
            return value
        if cls is float and type(value) is int:
            return float(value)
        raise _MismatchError(f"{type(value).__name__} where {cls.__name__} belongs")

    return read


def _enum(cls: Any) -> tuple[_To, _To]:
    by_value = {one.value: one for one in cls}

    def read(value: Any) -> Any:
        try:
            return by_value[value]
        except (KeyError, TypeError) as error:
            raise _MismatchError(f"no {cls.__name__}") from error

    return lambda value: value.value, read
