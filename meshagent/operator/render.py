"""Text for people: colours that a terminal asked for, tables, durations, and names made harmless.

Everything that came from the network passes `clean` before it is printed: a device named `\\x1b[2J` must not own the
operator's terminal (attack ansi_name). Nothing here knows what the words mean; `story.py` and `look.py` do.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

COLOURS: Final[Mapping[str, str]] = {"good": "32", "warn": "33", "bad": "31", "dim": "2", "bold": "1", "key": "36"}
_BIDI: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks that make text read in another order than it was sent."""


def clean(text: object) -> str:
    """`text` in one line, with everything escaped that a terminal would obey or that hides or reorders letters."""
    return "".join(
        c
        if c == " " or (c.isprintable() and c not in _BIDI and unicodedata.category(c) not in ("Cf", "Co", "Cn"))
        else c.encode("unicode_escape").decode("ascii")
        for c in str(text)
    )


class Paint:
    """Colours, or none."""

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled

    def __call__(self, text: str, colour: str) -> str:
        """`text` in the colour named; unchanged without a terminal."""
        return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if self.enabled and text else text


def width(text: str) -> int:
    """Columns that `text` takes; colours take none, wide letters two."""
    columns = 0
    escape = False
    for c in text:
        if c == "\x1b":
            escape = True
        elif escape:
            escape = c != "m"
        elif not unicodedata.combining(c):
            columns += 2 if unicodedata.east_asian_width(c) in "WF" else 1
    return columns


def padded(text: str, columns: int, *, right: bool = False) -> str:
    """`text` filled up with blanks."""
    blanks = " " * max(0, columns - width(text))
    return blanks + text if right else text + blanks


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = (), gap: int = 2) -> str:
    """Columns as wide as their widest cell; the last is not filled up. Cells are cleaned by the caller."""
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(width(line[i]) for line in lines) for i in range(len(header))]
    to_right = frozenset(right)
    return "\n".join(
        (" " * gap).join(padded(cell, widths[i], right=i in to_right) for i, cell in enumerate(line)).rstrip()
        for line in lines
    )


def duration(seconds: float) -> str:
    """`0.3 s`, `22 s`, `4 min`, `3 h 12 min`, `212 days`."""
    s = abs(seconds)
    if s < 0.0995:
        return f"{s * 1000:.0f} ms"
    if s < 9.95:
        return f"{s:.1f} s"
    if s < 100:
        return f"{s:.0f} s"
    if s < 3600:
        return f"{s / 60:.0f} min"
    if s < 86400:
        return f"{int(s // 3600)} h {int(s % 3600 // 60)} min"
    return f"{s / 86400:.0f} days" if s >= 2 * 86400 else "1 day"


def byte_size(count: float) -> str:
    """`640 B`, `2.1 MiB`, `14 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def literal(value: object) -> str:
    """A plain value as a role's author would write it: `"pump-7"`, `0.83`, `True`, `{...}`."""
    if isinstance(value, str):
        return '"' + clean(value).replace('"', '\\"') + '"'
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e15 else repr(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{clean(k)}: {literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(literal(v) for v in value) + "]"
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return clean(value)


def named(kind: str, fields: object) -> str:
    """`CheckContact(site="pump-7", suspected="outer race")`."""
    if isinstance(fields, Mapping):
        return f"{clean(kind)}({', '.join(f'{clean(k)}={literal(v)}' for k, v in fields.items())})"
    return f"{clean(kind)}({literal(fields)})"
