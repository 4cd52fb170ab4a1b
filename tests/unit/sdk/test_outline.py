"""A kind in one line: what `meshagent submit` reads, and what a stranger may have written."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshagent import Task
from meshagent.sdk.kinds import kind_of
from meshagent.sdk.outline import MAX_OUTLINE_CHARS, Outline, OutlineError


@dataclass(frozen=True)
class Spot:
    x: float


@dataclass(frozen=True)
class CheckContact(Task[dict[str, Spot]], kind="outline.check.v1", delivery="at_least_once"):
    site: str
    suspected: str


@dataclass(frozen=True)
class Wide(Task[int], kind="outline.wide"):
    rows: tuple[int, ...] = ()
    spot: Spot | None = None
    share: float = 0.25
    count: int = 3
    ok: bool = True
    raw: bytes = b""
    word: str = "a, b"
    either: str | int = "x"


CHECK = kind_of(CheckContact).outline()
WIDE = kind_of(Wide).outline()


def told(outline: Outline, *typed: str) -> tuple[str, str | None]:
    with pytest.raises(OutlineError) as caught:
        outline.plain(typed)
    return str(caught.value), caught.value.next_step


@pytest.mark.parametrize("outline", [CHECK, WIDE])
def test_the_line_is_read_back_as_it_was_written(outline: Outline) -> None:
    assert Outline.parse(outline.kind, outline.text()) == outline


def test_mistake_5_an_unknown_field_is_told_with_what_there_is() -> None:
    assert told(CHECK, "sight=pump-7") == (
        'CheckContact has no field "sight"; it has site: str, suspected: str (missing).',
        "meshagent submit outline.check.v1 site=pump-7 suspected=...",
    )


def test_missing_fields_are_asked_for_with_what_was_typed_kept() -> None:
    assert told(CHECK, "site=hall a") == (
        "CheckContact needs suspected: str.",
        "meshagent submit outline.check.v1 'site=hall a' suspected=...",
    )
    assert told(CHECK) == (
        "CheckContact needs site: str and suspected: str.",
        "meshagent submit outline.check.v1 site=... suspected=...",
    )


def test_what_is_no_field_value_is_told() -> None:
    assert told(CHECK, "pump-7")[0] == "'pump-7' is no field=value"
    assert told(CHECK, "site=a", "site=b")[0] == '"site" is given twice'


def test_values_are_read_by_their_type() -> None:
    typed = [
        "rows=[1, 2]",
        'spot={"x": 1}',
        "share=1e-3",
        "count=-7",
        "ok=no",
        "raw=AP8=",
        "word=a=b",
        "either=12",
    ]
    plain = WIDE.plain(typed)
    assert plain == {
        "rows": [1, 2],
        "spot": {"x": 1},
        "share": 1e-3,
        "count": -7,
        "ok": False,
        "raw": b"\x00\xff",
        "word": "a=b",
        "either": 12,
    }
    task = kind_of(Wide).decode(WIDE.encode(plain))
    assert task == Wide((1, 2), Spot(1.0), 1e-3, -7, False, b"\x00\xff", "a=b", 12)
    assert WIDE.plain(["spot=null"]) == {"spot": None}
    assert WIDE.plain(["either=x y"]) == {"either": "x y"}


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("count=1.5", "Wide.count is '1.5', expected int"),
        ("count=1_0", "Wide.count is '1_0', expected int"),
        ("count=" + "9" * 4000, "Wide.count is '" + "9" * 60 + "', expected int"),
        ("share=nan", "Wide.share is 'nan', expected float, a finite one"),
        ("ok=perhaps", "Wide.ok is 'perhaps', expected bool, true or false"),
        ("raw=%", "Wide.raw is '%', expected bytes in base64"),
        ("rows=1,2", "Wide.rows is '1,2', expected tuple[int, ...] as JSON"),
        ("rows=[NaN]", "Wide.rows is '[NaN]', expected tuple[int, ...] as JSON"),
        ("rows=" + "[" * 100_000, "Wide.rows is '" + "[" * 60 + "', expected tuple[int, ...] as JSON"),
    ],
)
def test_a_value_that_does_not_fit_is_told(typed: str, message: str) -> None:
    assert told(WIDE, typed)[0] == message


def test_a_specification_from_json_has_its_names_checked() -> None:
    assert CHECK.check({"site": "a", "suspected": "b"}) == {"site": "a", "suspected": "b"}
    with pytest.raises(OutlineError, match="CheckContact needs suspected"):
        CHECK.check({"site": "a"})
    with pytest.raises(OutlineError, match='has no field "sight"'):
        CHECK.check({"sight": "a"})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "CheckContact",
        "CheckContact(",
        "CheckContact()",
        "CheckContact() -> ",
        "CheckContact(site) -> int",
        "CheckContact(site: ) -> int",
        "CheckContact(a: int, a: int) -> int",
        "CheckContact(a: int =  -> int",
        "Check Contact() -> int",
        "CheckContact() -> int [always]",
        "CheckContact() -> int [in_doubt=never]",
        "CheckContact(a: " + "[" * 400 + "]" * 400 + ") -> int",
        "CheckContact() -> \x1b[31mint",
        "X(" + ", ".join(f"a{n}: int" for n in range(100)) + ") -> int",
        "X() -> " + "i" * MAX_OUTLINE_CHARS,
    ],
)
def test_a_strangers_line_that_describes_nothing_is_an_error_and_nothing_else(text: str) -> None:
    with pytest.raises(OutlineError):
        Outline.parse("x", text)


@given(st.text(max_size=200))
@example('A(b: "x, y" = "z") -> int')
@example('A(b: dict[str, "]"]) -> int')
def test_any_text_is_read_or_refused(text: str) -> None:
    for line in (text, f"A({text}) -> int", f"A(b: {text}) -> {text}"):
        try:
            outline = Outline.parse("x", line)
        except OutlineError:
            continue
        assert Outline.parse("x", outline.text()) == outline


@given(st.lists(st.text(max_size=30), max_size=5))
def test_whatever_is_typed_is_a_specification_or_a_sentence(typed: list[str]) -> None:
    for outline in (CHECK, WIDE):
        try:
            plain = outline.plain(typed)
        except OutlineError:
            continue
        assert outline.encode(plain)


def test_json_shows_the_same_fields() -> None:
    assert json.loads(json.dumps(CHECK.check({"site": "a", "suspected": "b"})))["site"] == "a"


@pytest.mark.parametrize(
    ("value", "expected"), [("no", 'Square.x is "no", expected int.'), (True, "Square.x is true, expected int.")]
)
def test_a_plain_value_of_another_type_is_told_before_anybody_is_asked(value: object, expected: str) -> None:
    outline = Outline.parse("k.Square", "Square(x: int, y: float = 1.0) -> int")
    assert outline is not None
    with pytest.raises(OutlineError) as caught:
        outline.check({"x": value})
    assert str(caught.value) == expected
    assert outline.check({"x": 3, "y": 2}) == {"x": 3, "y": 2}
