"""One converter a type: from a Python value to what msgpack carries, and back with a problem for every misfit.

On the way in nothing is trusted and nothing is coerced, with one exception: a whole number stands for a float. All
problems of a value are collected (up to `MAX_PROBLEMS`); each carries its path, which is built only when something is
wrong. `schema.py` chooses the converter of a type.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from meshagent.sdk.errors import Problem
from meshagent.sdk.names import near

MAX_PROBLEMS: Final = 8
"""Enough to repair a call by hand; a hostile value with ten thousand misfits costs no more."""
MAX_SEEN_CHARS: Final = 60
"""How much of a wrong value an error repeats."""
MIN_INT: Final = -(2**63)
MAX_INT: Final = 2**63 - 1
"""Signed 64 bit: what every language that may speak to us has."""


class Misfits:
    """Problems found so far; containers put their own step before the paths of their parts."""

    __slots__ = ("found",)

    def __init__(self) -> None:
        self.found: list[tuple[list[str], str]] = []

    def add(self, message: str, *path: str) -> None:
        """One more, unless there are plenty."""
        if len(self.found) < MAX_PROBLEMS:
            self.found.append((list(path), message))

    def under(self, mark: int, step: str) -> None:
        """All problems since `mark` happened under `step`."""
        for path, _ in self.found[mark:]:
            path.insert(0, step)

    def problems(self, root: str) -> list[Problem]:
        """What to tell, with paths from `root`."""
        return [Problem(root + "".join(path), message) for path, message in self.found]


def seen(value: object) -> str:
    """A wrong value as an error shows it: type and start, escaped by `repr`.

    A container is named by its size alone: walking into a hostile one for the sake of a message costs too much.
    """
    if value is None:
        return "nothing"
    if isinstance(value, str | bytes):
        text = repr(value[:MAX_SEEN_CHARS]) + ("..." if len(value) > MAX_SEEN_CHARS else "")
    elif isinstance(value, list | tuple | dict | set | frozenset):
        return f"a {type(value).__name__} of {len(value)}"
    elif isinstance(value, int | float):
        text = repr(value) if not isinstance(value, int) or value.bit_length() <= 128 else "a huge number"
    else:
        return f"a {type(value).__name__}"
    return f"{text} ({type(value).__name__})"


class Converter(Protocol):
    """How one type travels."""

    @property
    def text(self) -> str:
        """The type as people read it, `list[str] | None`."""

    @property
    def wire(self) -> frozenset[type]:
        """The Python types that msgpack gives for it; unions are told apart by them."""

    def dump(self, value: Any, misfits: Misfits) -> Any:
        """What msgpack carries."""

    def load(self, plain: Any, misfits: Misfits) -> Any:
        """The value; anything when a misfit was added."""


class Exact:
    """str, bool, bytes and None: taken as they are."""

    __slots__ = ("_type", "text", "wire")

    def __init__(self, exact: type, text: str) -> None:
        self._type = exact
        self.text = text
        self.wire = frozenset({exact})

    def dump(self, value: Any, misfits: Misfits) -> Any:
        if type(value) is not self._type:
            if self._type is str and isinstance(value, str):
                return str.__str__(value)  # a StrEnum is a str to the type checker, so it must be one here
            misfits.add(f"is {seen(value)}, expected {self.text}")
        return value

    def load(self, plain: Any, misfits: Misfits) -> Any:
        if type(plain) is not self._type:
            misfits.add(f"is {seen(plain)}, expected {self.text}")
        return plain


class Integer:
    """Whole numbers of signed 64 bit; a bool is none."""

    __slots__ = ()
    text = "int"
    wire = frozenset({int})

    def dump(self, value: Any, misfits: Misfits) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            value = int(value)  # an IntEnum
        return self.load(value, misfits)

    def load(self, plain: Any, misfits: Misfits) -> Any:
        if type(plain) is not int:
            misfits.add(f"is {seen(plain)}, expected int")
        elif not MIN_INT <= plain <= MAX_INT:
            misfits.add(f"is {seen(plain)}, which does not fit 64 bits")
        return plain


class Floating:
    """Finite numbers. NaN would win or lose every comparison it meets, so it never travels."""

    __slots__ = ()
    text = "float"
    wire = frozenset({float})

    def dump(self, value: Any, misfits: Misfits) -> Any:
        if isinstance(value, float):
            value = float(value)  # numpy.float64 is a float to the type checker too
        return self.load(value, misfits)

    def load(self, plain: Any, misfits: Misfits) -> Any:
        if type(plain) is float:
            if not math.isfinite(plain):
                misfits.add(f"is {plain!r}, expected a finite float")
            return plain
        if type(plain) is int and -(2**53) <= plain <= 2**53:
            return float(plain)
        misfits.add(f"is {seen(plain)}, expected float")
        return plain


class Choice:
    """Literals and enums: one of a few values, shown as those values."""

    __slots__ = ("_by_plain", "_members", "_to_plain", "text", "wire")

    def __init__(self, choices: Sequence[tuple[Any, str | int | bool]]) -> None:
        self._members = choices
        self._by_plain = {(type(plain), plain): member for member, plain in choices}
        self._to_plain = {(type(member), member): plain for member, plain in choices}
        self.wire = frozenset(type(plain) for _, plain in choices)
        self.text = " | ".join(f'"{plain}"' if isinstance(plain, str) else repr(plain) for _, plain in choices)

    def dump(self, value: Any, misfits: Misfits) -> Any:
        try:
            return self._to_plain[(type(value), value)]
        except (KeyError, TypeError):
            misfits.add(f"is {seen(value)}, expected {self.text}")
            return None

    def load(self, plain: Any, misfits: Misfits) -> Any:
        if type(plain) in self.wire:
            found = self._by_plain.get((type(plain), plain), self)
            if found is not self:
                return found
            if isinstance(plain, str) and (meant := near(plain, [p for _, p in self._members if isinstance(p, str)])):
                misfits.add(f'is {seen(plain)}, expected {self.text}; did you mean "{meant}"?')
                return None
        misfits.add(f"is {seen(plain)}, expected {self.text}")
        return None


class ListOf:
    """`list[T]` and `tuple[T, ...]`."""

    __slots__ = ("_item", "_type", "text")
    wire = frozenset({list})

    def __init__(self, kind: type, item: Converter) -> None:
        self._type = kind
        self._item = item
        self.text = f"list[{item.text}]" if kind is list else f"tuple[{item.text}, ...]"

    def dump(self, value: Any, misfits: Misfits) -> Any:
        if not isinstance(value, list | tuple) or type(value) is not self._type:
            misfits.add(f"is {seen(value)}, expected {self.text}")
            return None
        return _each(value, self._item.dump, misfits)

    def load(self, plain: Any, misfits: Misfits) -> Any:
        if type(plain) is not list:
            misfits.add(f"is {seen(plain)}, expected {self.text}")
            return None
        items = _each(plain, self._item.load, misfits)
        return items if self._type is list else tuple(items)


def _each(values: Sequence[Any], convert: Any, misfits: Misfits) -> list[Any]:
    done = []
    for index, value in enumerate(values):
        mark = len(misfits.found)
        done.append(convert(value, misfits))
        if len(misfits.found) > mark:
            misfits.under(mark, f"[{index}]")
            if len(misfits.found) >= MAX_PROBLEMS:
                break
    return done


class TupleOf:
    """`tuple[A, B]`: as many as declared."""

    __slots__ = ("_items", "text")
    wire = frozenset({list})

    def __init__(self, items: Sequence[Converter]) -> None:
        self._items = items
        self.text = f"tuple[{', '.join(item.text for item in items)}]"

    def dump(self, value: Any, misfits: Misfits) -> Any:
        return self._convert(value, tuple, misfits, "dump")

    def load(self, plain: Any, misfits: Misfits) -> Any:
        return tuple(self._convert(plain, list, misfits, "load") or ())

    def _convert(self, value: Any, kind: type, misfits: Misfits, way: str) -> list[Any] | None:
        if not isinstance(value, list | tuple) or type(value) is not kind:
            misfits.add(f"is {seen(value)}, expected {self.text}")
            return None
        if len(value) != len(self._items):
            misfits.add(f"has {len(value)} items, expected {len(self._items)}: {self.text}")
            return None
        done = []
        for index, (item, part) in enumerate(zip(self._items, value, strict=True)):
            mark = len(misfits.found)
            done.append(getattr(item, way)(part, misfits))
            misfits.under(mark, f"[{index}]")
        return done


class DictOf:
    """`dict[str, T]`."""

    __slots__ = ("_item", "text")
    wire = frozenset({dict})

    def __init__(self, item: Converter) -> None:
        self._item = item
        self.text = f"dict[str, {item.text}]"

    def dump(self, value: Any, misfits: Misfits) -> Any:
        return self._convert(value, misfits, self._item.dump)

    def load(self, plain: Any, misfits: Misfits) -> Any:
        return self._convert(plain, misfits, self._item.load)

    def _convert(self, value: Any, misfits: Misfits, convert: Any) -> dict[str, Any]:
        done: dict[str, Any] = {}
        if type(value) is not dict:
            misfits.add(f"is {seen(value)}, expected {self.text}")
            return done
        for key, part in value.items():
            mark = len(misfits.found)
            if type(key) is not str:
                misfits.add(f"has the key {seen(key)}, expected str")
            else:
                done[key] = convert(part, misfits)
                if len(misfits.found) > mark:
                    misfits.under(mark, f"[{key[:MAX_SEEN_CHARS]!r}]")
            if len(misfits.found) >= MAX_PROBLEMS:
                break
        return done


class Record:
    """A dataclass, as a map by field name."""

    __slots__ = ("_fields", "_optional", "_type", "text")
    wire = frozenset({dict})

    def __init__(self, kind: type) -> None:
        self._type = kind
        self._fields: Mapping[str, Converter] = {}
        self._optional: frozenset[str] = frozenset()
        self.text = kind.__name__

    def complete(self, fields: Mapping[str, Converter], optional: frozenset[str]) -> None:
        """Second step of building, so that a dataclass may hold its own kind."""
        self._fields = fields
        self._optional = optional

    @property
    def type(self) -> type:
        """The dataclass."""
        return self._type

    @property
    def fields(self) -> Mapping[str, Converter]:
        """In the order of declaration."""
        return self._fields

    @property
    def optional(self) -> frozenset[str]:
        """Fields with a default."""
        return self._optional

    def dump(self, value: Any, misfits: Misfits) -> Any:
        if type(value) is not self._type:
            misfits.add(f"is {seen(value)}, expected {self.text}")
            return None
        plain = {}
        for name, converter in self._fields.items():
            mark = len(misfits.found)
            plain[name] = converter.dump(getattr(value, name), misfits)
            if len(misfits.found) > mark:
                misfits.under(mark, f".{name}")
        return plain

    def load(self, plain: Any, misfits: Misfits) -> Any:
        if type(plain) is not dict:
            misfits.add(f"is {seen(plain)}, expected {self.text}")
            return None
        before = len(misfits.found)
        values = {}
        for name, converter in self._fields.items():
            if name in plain:
                mark = len(misfits.found)
                values[name] = converter.load(plain[name], misfits)
                if len(misfits.found) > mark:
                    misfits.under(mark, f".{name}")
            elif name not in self._optional:
                misfits.add(f"is missing, expected {converter.text}", f".{name}")
        if len(plain) > len(values):
            self._unknown(plain, misfits)
        if len(misfits.found) > before:
            return None
        try:
            return self._type(**values)
        except Exception as error:  # noqa: BLE001 - __post_init__ is the author's code, run on a stranger's values
            misfits.add(f"was rejected by {self.text}: {str(error)[:200] or type(error).__name__}")
            return None

    def _unknown(self, plain: Mapping[Any, Any], misfits: Misfits) -> None:
        for name in plain:
            if name not in self._fields:
                shown = f".{name[:MAX_SEEN_CHARS]}" if isinstance(name, str) else f"[{seen(name)}]"
                meant = near(name, self._fields) if isinstance(name, str) else None
                hint = f'; did you mean "{meant}"?' if meant else ""
                misfits.add(f"is no field of {self.text}{hint}", shown)
                if len(misfits.found) >= MAX_PROBLEMS:
                    return


class OneOf:
    """A union whose members are told apart by what msgpack gives."""

    __slots__ = ("_by_wire", "_members", "text", "wire")

    def __init__(self, members: Sequence[Converter]) -> None:
        self._members = members
        self._by_wire = {wire: member for member in members for wire in member.wire}
        self.wire = frozenset(self._by_wire)
        self.text = " | ".join(member.text for member in members)

    def dump(self, value: Any, misfits: Misfits) -> Any:
        member = self._by_wire.get(self._wire_of(value))
        if member is None:
            misfits.add(f"is {seen(value)}, expected {self.text}")
            return None
        return member.dump(value, misfits)

    def _wire_of(self, value: Any) -> type:
        """What `value` would be on the wire, as far as this union has it."""
        kind = type(value)
        if isinstance(value, enum.Enum):
            return type(value.value)
        if hasattr(kind, "__dataclass_fields__"):
            return dict
        for wire in (bool, int, float, str):
            if isinstance(value, wire):
                return float if wire is int and int not in self._by_wire else wire
        return list if kind is tuple else kind

    def load(self, plain: Any, misfits: Misfits) -> Any:
        member = self._by_wire.get(type(plain))
        if member is None and type(plain) is int:
            member = self._by_wire.get(float)
        if member is None:
            misfits.add(f"is {seen(plain)}, expected {self.text}")
            return None
        return member.load(plain, misfits)


class TaggedRecords:
    """Several dataclasses in one union: a map of one entry, class name to fields."""

    __slots__ = ("_by_name", "text")
    wire = frozenset({dict})

    def __init__(self, members: Sequence[Record]) -> None:
        self._by_name = {member.text: member for member in members}
        self.text = " | ".join(self._by_name)

    def dump(self, value: Any, misfits: Misfits) -> Any:
        member = self._by_name.get(type(value).__name__)
        if member is None:
            misfits.add(f"is {seen(value)}, expected {self.text}")
            return None
        return {member.text: member.dump(value, misfits)}

    def load(self, plain: Any, misfits: Misfits) -> Any:
        if type(plain) is dict and len(plain) == 1:
            [(name, fields)] = plain.items()
            member = self._by_name.get(name) if isinstance(name, str) else None
            if member is not None:
                return member.load(fields, misfits)
        misfits.add(f"is {seen(plain)}, expected one of {self.text} as {{name: fields}}")
        return None
