"""A kind as one line of text: what a peer needs to ask for it without having its class.

`CheckContact(site: str, suspected: str = "routine") -> Finding [at_least_once, in_doubt=wait, approval]`

Profiles carry these lines, `meshagent submit KIND field=value` reads them. A line from a peer is a stranger's text:
`Outline.parse` is bounded and raises nothing but `OutlineError`; whatever it makes a user send is validated by the
performer again.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from meshagent import strictpack
from meshagent.core.acts import MAX_SPEC_BYTES
from meshagent.errors import ConfigurationError
from meshagent.sdk.errors import Problem, SchemaError
from meshagent.sdk.names import NAME, near
from meshagent.types import Delivery, InDoubt

MAX_OUTLINE_CHARS: Final = 1500
"""Twenty kinds fit one profile (64 KiB) with room; nobody reads a longer line."""
MAX_FIELDS: Final = 64
"""Of one outline; a stranger's line with more is not parsed."""


class OutlineError(ConfigurationError):
    """The text is no outline, or the fields typed do not fit it."""


_PLAIN: Final[Mapping[str, tuple[type, ...]]] = {"str": (str,), "int": (int,), "float": (float, int), "bool": (bool,)}
"""What JSON and TOML give for a field of such a type."""


@dataclass(frozen=True, slots=True)
class OutlineField:
    """One field of a specification."""

    name: str
    type: str
    optional: bool = False
    default: str = "..."

    def text(self) -> str:
        """`site: str`, `power: float = 0.5`."""
        return f"{self.name}: {self.type}" + (f" = {self.default}" if self.optional else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """A kind of task as strangers see it."""

    kind: str
    name: str
    fields: tuple[OutlineField, ...]
    result: str
    delivery: Delivery = Delivery.AT_MOST_ONCE
    in_doubt: InDoubt = InDoubt.MAJORITY
    approval: bool = False

    def signature(self) -> str:
        """Without the terms: `Greet(name: str) -> str`."""
        return f"{self.name}({', '.join(field.text() for field in self.fields)}) -> {self.result}"

    def text(self) -> str:
        """The whole line; terms are left out where they are the default."""
        terms = []
        if self.delivery is not Delivery.AT_MOST_ONCE:
            terms.append(str(self.delivery))
        if self.in_doubt is not InDoubt.MAJORITY:
            terms.append(f"in_doubt={self.in_doubt}")
        if self.approval:
            terms.append("approval")
        return self.signature() + (f" [{', '.join(terms)}]" if terms else "")

    @classmethod
    def parse(cls, kind: str, text: str) -> Outline:
        """The outline that `text` spells.

        Raises:
            OutlineError: it spells none.
        """
        if len(text) > MAX_OUTLINE_CHARS:
            raise OutlineError(f"the description of {kind!r} has {len(text)} characters")
        found = _LINE.match(text)
        if found is None or not text.isprintable():
            raise OutlineError(f"{text[:80]!r} describes no kind of task")
        name, rest = found.group(1), text[found.end() :]
        inside, rest = _until_closed(rest)
        arrow = rest.removeprefix(" -> ")
        if arrow == rest or not arrow:
            raise OutlineError(f"{text[:80]!r} names no result")
        result, terms = _terms(arrow)
        fields = tuple(_field(part) for part in _split(inside) if part)
        if len(fields) > MAX_FIELDS or len({field.name for field in fields}) < len(fields):
            raise OutlineError(f"{text[:80]!r} has too many fields, or one twice")
        return cls(kind=kind, name=name, fields=fields, result=result, **terms)

    def plain(self, typed: Iterable[str]) -> dict[str, object]:
        """The specification that `field=value` arguments spell, as plain values.

        Text is taken as it is, numbers and true/false by their type, everything else as JSON, `null` for None;
        bytes as base64.

        Raises:
            OutlineError: an unknown field, a missing one, a value that does not fit; names what to type instead.
        """
        given: dict[str, str] = {}
        for argument in typed:
            name, equals, value = argument.partition("=")
            if not equals:
                raise OutlineError(
                    f"{argument!r} is no field=value", next_step=self._command({**given, **self._wanted(given)})
                )
            if name in given:
                raise OutlineError(f'"{name}" is given twice', next_step=self._command({**given, name: value}))
            given[name] = value
        known = {field.name: field for field in self.fields}
        unknown = [name for name in given if name not in known]
        missing = [field.name for field in self.fields if not field.optional and field.name not in given]
        if unknown:
            raise self._unknown(unknown[0], given, missing)
        if missing:
            raise OutlineError(
                f"{self.name} needs {_and(f'{name}: {known[name].type}' for name in missing)}.",
                next_step=self._command({**given, **self._wanted(given)}),
            )
        return {name: self._value(known[name], value) for name, value in given.items()}

    def check(self, plain: Mapping[str, object]) -> dict[str, object]:
        """A specification given as JSON or TOML: names and plain values are checked, the rest by the performer.

        Raises:
            OutlineError: an unknown or missing field, or a value that its plain type does not take.
        """
        names = [field.name for field in self.fields]
        missing = [field.name for field in self.fields if not field.optional and field.name not in plain]
        for name in plain:
            if name not in names:
                raise self._unknown(name, {key: json.dumps(value) for key, value in plain.items()}, missing)
        if missing:
            raise OutlineError(f"{self.name} needs {_and(missing)}.", next_step=f"it reads {self.signature()}")
        for field in self.fields:
            takes = _PLAIN.get(field.type)
            # a performer would refuse it for ever; type() because True is an int to isinstance, and to nobody else
            if takes is not None and field.name in plain and type(plain[field.name]) not in takes:
                raise OutlineError(
                    f"{self.name}.{field.name} is {json.dumps(plain[field.name])}, expected {field.type}.",
                    next_step=f"it reads {self.signature()}",
                )
        return dict(plain)

    def encode(self, plain: Mapping[str, object]) -> bytes:
        """The specification as it travels.

        Raises:
            SchemaError: it is too large, or holds what msgpack does not carry.
        """
        try:
            data = strictpack.packb(dict(plain))
        except strictpack.StrictEncodeError as error:
            raise SchemaError([Problem(self.name, str(error))]) from error
        if len(data) > MAX_SPEC_BYTES:
            raise SchemaError([Problem(self.name, f"takes {len(data)} bytes, at most {MAX_SPEC_BYTES} travel")])
        return data

    def _wanted(self, given: Mapping[str, str]) -> dict[str, str]:
        return {field.name: "..." for field in self.fields if not field.optional and field.name not in given}

    def _unknown(self, name: str, given: Mapping[str, str], missing: Sequence[str]) -> OutlineError:
        meant = near(name, [field.name for field in self.fields if field.name not in given])
        has = [
            field.text() + (" (missing)" if field.name in missing and field.name != meant else "")
            for field in self.fields
        ]
        fields = f"it has {', '.join(has)}" if has else "it has none"
        # what was typed under the wrong name is suggested under the right one
        repaired = {(meant or key) if key == name else key: value for key, value in given.items()}
        known = {key: value for key, value in repaired.items() if any(f.name == key for f in self.fields)}
        return OutlineError(
            f'{self.name} has no field "{name}"; {fields}.', next_step=self._command({**known, **self._wanted(known)})
        )

    def _command(self, values: Mapping[str, str]) -> str:
        words = [f"{name}={value}" for name, value in values.items()]
        quoted = [word if re.fullmatch(r"[\w@%+=:,./-]*", word, re.ASCII) else _quoted(word) for word in words]
        return " ".join(["meshagent submit", self.kind, *quoted])

    def _value(self, field: OutlineField, text: str) -> object:
        try:
            return _value(field.type, text)
        except ValueError as error:
            raise OutlineError(
                f"{self.name}.{field.name} is {text[:60]!r}, expected {field.type}{error}",
                next_step=self._command({field.name: "..."}) if not str(error) else f"{field.name}=... as JSON",
            ) from None


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"


def _and(words: Iterable[str]) -> str:
    *some, last = list(words)
    return f"{', '.join(some)} and {last}" if some else last


_LINE: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]{0,99})\(", re.ASCII)
_OPENING: Final = {"(": ")", "[": "]", "{": "}"}
_MAX_BRACKETS: Final = 16


def _until_closed(text: str) -> tuple[str, str]:
    """What stands before the bracket that closes, and what follows it."""
    for index, depth, _ in _walk(text):
        if depth < 0:
            return text[:index], text[index + 1 :]
    raise OutlineError(f"{text[:80]!r} closes no bracket")


def _split(text: str) -> list[str]:
    """Parts between commas of the outermost level."""
    parts, start = [], 0
    for index, depth, letter in _walk(text):
        if depth == 0 and letter == ",":
            parts.append(text[start:index].strip())
            start = index + 1
    return [*parts, text[start:].strip()]


def _walk(text: str) -> Iterable[tuple[int, int, str]]:
    """Each letter outside quotes with the depth of brackets around it (-1: one more is closed than opened)."""
    depth, quoted = 0, False
    for index, letter in enumerate(text):
        if letter == '"':
            quoted = not quoted
        if quoted:
            continue
        if letter in _OPENING:
            depth += 1
            if depth > _MAX_BRACKETS:
                raise OutlineError("too many brackets")
        elif letter in ")]}":
            depth -= 1
        yield index, depth, letter


def _field(text: str) -> OutlineField:
    name, colon, rest = text.partition(": ")
    kind, equals, default = rest.partition(" = ")
    if not colon or NAME.match(name) is None or "." in name or "-" in name or not kind or (equals and not default):
        raise OutlineError(f"{text[:80]!r} is no field")
    return OutlineField(name, kind, bool(equals), default or "...")


def _terms(text: str) -> tuple[str, dict[str, Any]]:
    result, bracket, words = text.partition(" [")
    if not bracket:
        return text, {}
    terms: dict[str, Any] = {}
    for word in words.removesuffix("]").split(", "):
        try:
            if word == "approval":
                terms["approval"] = True
            elif word.startswith("in_doubt="):
                terms["in_doubt"] = InDoubt(word.removeprefix("in_doubt="))
            else:
                terms["delivery"] = Delivery(word)
        except ValueError:
            raise OutlineError(f"{word[:40]!r} is no term of a contract") from None
    return result, terms


def _value(kind: str, text: str) -> object:
    """`text` as a value of `kind`; ValueError("") or with a hint when it is none."""
    members = [part.strip() for part in _split_union(kind)]
    if "None" in members and text in ("null", "none", "None"):
        return None
    problem = ""
    for member in sorted(members, key=lambda part: part == "str"):  # text fits everything: it is asked last
        if member == "None":
            continue
        try:
            return _single(member, text)
        except ValueError as error:
            problem = str(error) if len(members) == 1 else ""
    raise ValueError(problem)


def _split_union(kind: str) -> list[str]:
    parts, start = [], 0
    for index, depth, letter in _walk(kind):
        if depth == 0 and letter == "|":
            parts.append(kind[start:index])
            start = index + 1
    return [*parts, kind[start:]]


def _single(kind: str, text: str) -> object:
    if kind == "str":
        return text
    if kind.startswith('"'):
        if text != kind.strip('"'):
            raise ValueError
        return text
    if kind in ("int", "float"):
        try:
            value = int(_number(text)) if kind == "int" else float(_number(text))
        except ValueError:
            raise ValueError from None
        if not math.isfinite(value):
            raise ValueError(", a finite one")
        return value
    if kind == "bool":
        try:
            return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()]
        except KeyError:
            raise ValueError(", true or false") from None
    if kind == "bytes":
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(" in base64") from None
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise ValueError(" as JSON") from None


def _number(text: str) -> str:
    # int() and float() also take "1_000", digits of other scripts and, for int, thousands of them at quadratic cost
    if len(text) > 40 or not text.isascii() or "_" in text:
        raise ValueError
    return text


def _no_constant(word: str) -> object:
    raise ValueError(word)


def parse_fields(kind: Outline, typed: Iterable[str]) -> dict[str, object]:
    """`meshagent submit KIND field=value ...` as plain values; see `Outline.plain`."""
    return kind.plain(typed)
