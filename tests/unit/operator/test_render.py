"""Text for terminals: harmless names, aligned tables, readable durations."""

from __future__ import annotations

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshagent.operator.logs import JsonLines, Lines
from meshagent.operator.render import Paint, byte_size, clean, duration, literal, named, padded, table, width


@pytest.mark.parametrize(
    "evil",
    [
        "\x1b[2J",
        "\x1b]0;owned\x07",
        "a\nb",
        "a\rb",
        "\x9b31m",
        "safe\u202egnp.exe",
        "\u2066x\u2069",
        "\x00",
        "zero\u200bwidth",
    ],
)
def test_ansi_name_reaches_no_terminal(evil: str) -> None:
    shown = clean(evil)
    assert shown.isprintable()
    assert not set(shown) & set("\x1b\x9b\u202e\u2066\u200b\n\r\x00")
    assert shown != evil


@given(st.text())
def test_cleaned_text_is_one_printable_line_and_stays_so(text: str) -> None:
    shown = clean(text)
    assert shown.isprintable()
    assert clean(shown) == shown


def test_names_in_other_scripts_stay_readable() -> None:
    assert clean("Ännchen 犬-2 Δ") == "Ännchen 犬-2 Δ"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0004, "0 ms"), (0.09, "90 ms"), (0.31, "0.3 s"), (22, "22 s"), (240, "4 min"), (11520, "3 h 12 min"),
     (86400, "1 day"), (212 * 86400, "212 days"), (-22, "22 s")],
)  # fmt: skip
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_sizes_read_as_people_say_them() -> None:
    assert [byte_size(n) for n in (640, 2_202_009, 15_032_385_536)] == ["640 B", "2.1 MiB", "14.0 GiB"]


def test_tables_align_by_what_is_seen() -> None:
    red = Paint(enabled=True)("red", "bad")
    lines = table(("NAME", "N"), [("犬", "1"), (red, "22")], right=[1]).splitlines()
    assert [width(line) for line in lines] == [8, 8, 8]
    assert padded("犬", 4) == "犬  "


def test_without_colours_text_is_untouched() -> None:
    assert Paint(enabled=False)("x", "bad") == "x"


def test_values_read_as_an_author_writes_them() -> None:
    assert named("Finding", {"confirmed": True, "rms_g": 0.83, "by": "dog\x1b"}) == (
        'Finding(confirmed=True, rms_g=0.83, by="dog\\x1b")'
    )
    assert literal([1, None, b"ab"]) == "[1, None, 2 bytes]"


def record(message: str) -> logging.LogRecord:
    made = logging.LogRecord("meshagent.x", logging.WARNING, "f", 1, message, (), None)
    made.node = "dog-2"
    return made


def test_log_lines_escape_what_came_from_the_network() -> None:
    assert "\x1b" not in Lines(Paint(enabled=False)).format(record("peer \x1b[2J joined"))
    line = json.loads(JsonLines().format(record("peer \x1b joined")))
    assert (line["message"], line["node"], line["level"]) == ("peer \x1b joined", "dog-2", "warning")


def test_a_traceback_is_shown_over_lines_and_no_message_can_pass_for_a_line_of_the_log() -> None:
    shown = Lines(Paint(enabled=False)).format(record("dog.py:3 Dog.check raised\n  File x\r14:02:11 ERROR forged\x1b"))
    first, *more = shown.split("\n")
    assert first.endswith("WARNING meshagent.x: dog.py:3 Dog.check raised")
    assert more == ["    File x", "  14:02:11 ERROR forged\\x1b"]
    assert "\r" not in shown
