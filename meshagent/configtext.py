"""Where keys stand in a TOML text: the lines that errors name, and the places that `config set` writes to.

`tomllib` tells values without places. This scanner tells places and no values; it reads only texts that tomllib has
accepted, so it need not know what is wrong with one.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Span:
    """A value in a file: its line (from 1) and where its text starts and ends."""

    line: int
    start: int
    end: int


@dataclass(slots=True)
class Outline:
    """Which key stands where, in a text that `tomllib` has accepted."""

    values: dict[tuple[str, ...], Span] = field(default_factory=dict)
    tables: dict[tuple[str, ...], Span] = field(default_factory=dict)
    """Header -> its line, and the end of the last line that belongs to the table (where a new key goes)."""

    def line_of(self, path: tuple[str, ...]) -> int | None:
        """The line of the key, or of the innermost known table around it."""
        for length in range(len(path), 0, -1):
            span = self.values.get(path[:length]) or self.tables.get(path[:length])
            if span:
                return span.line
        return None


def outline(text: str) -> Outline:
    """Scan `text`, which must be valid TOML."""
    found = Outline()
    table: tuple[str, ...] = ()
    found.tables[()] = Span(1, 0, 0)
    at = 0
    while at < len(text):
        if text[at] in " \t\r\n":
            at += 1
        elif text[at] == "#":
            at = _line_end(text, at)
        elif text[at] == "[":
            double = text.startswith("[[", at)
            line = text.count("\n", 0, at) + 1
            table, after = _dotted(text, at + (2 if double else 1))
            at = _line_end(text, after)
            found.tables[table] = Span(line, after, min(at + 1, len(text)))
        else:
            line = text.count("\n", 0, at) + 1
            key, at = _dotted(text, at)
            start = at + 1 + (len(text[at + 1 :]) - len(text[at + 1 :].lstrip(" \t")))
            end = _value_end(text, start)
            found.values[(*table, *key)] = Span(line, start, end)
            at = _line_end(text, end)
            found.tables[table] = replace(found.tables[table], end=min(at + 1, len(text)))
    return found


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _dotted(text: str, at: int) -> tuple[tuple[str, ...], int]:
    """A dotted key from `at`; returns it and the place of the `=` or `]` behind it."""
    parts: list[str] = []
    part = ""
    while text[at] not in "=]":
        if text[at] in "\"'":
            end = _string_end(text, at)
            part = str(tomllib.loads(f"k = {text[at:end]}")["k"])
            at = end
            continue
        if text[at] == ".":
            parts.append(part)
            part = ""
        elif text[at] not in " \t":
            part += text[at]
        at += 1
    return (*parts, part), at


def _string_end(text: str, at: int) -> int:
    quote = text[at]
    mark = quote * 3 if text.startswith(quote * 3, at) else quote
    at += len(mark)
    while not text.startswith(mark, at):
        at += 2 if quote == '"' and text[at] == "\\" else 1
    at += len(mark)
    while len(mark) == 3 and at < len(text) and text[at] == quote:  # """a quote at the end""""
        at += 1
    return at


def _value_end(text: str, at: int) -> int:
    depth = 0
    end = at
    while at < len(text):
        char = text[at]
        if char in "\"'":
            at = end = _string_end(text, at)
            continue
        if char == "#" or (char == "\n" and depth == 0):
            if depth == 0:
                return end
            at = _line_end(text, at)
            continue
        if char in "[{":
            depth += 1
        elif char in "]}":
            depth -= 1
        at += 1
        if char not in " \t\r\n":
            end = at
    return end
