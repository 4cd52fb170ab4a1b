"""What travels and what does not: every misfit names its field, what was seen and what was expected."""

from __future__ import annotations

import enum
import math
from dataclasses import InitVar, dataclass, field
from typing import Any, ClassVar, Literal, NewType

import pytest

from meshagent import strictpack
from meshagent.sdk.codecs import MAX_PROBLEMS
from meshagent.sdk.errors import SchemaError
from meshagent.sdk.schema import UnsupportedTypeError, schema_of

Metres = NewType("Metres", float)


class Colour(enum.StrEnum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclass(frozen=True)
class Reading:
    rms_g: float
    label: str = ""


@dataclass(frozen=True)
class Note:
    text: str


@dataclass
class Tree:
    name: str
    children: list[Tree] = field(default_factory=list)


@dataclass(frozen=True)
class Everything:
    word: str
    count: int
    share: float
    ok: bool
    raw: bytes
    colour: Colour
    level: Level
    mode: Literal["fast", "slow", 3]
    readings: list[Reading]
    rows: tuple[int, ...]
    pair: tuple[str, float]
    by_name: dict[str, Reading]
    maybe: int | None
    mixed: str | float | list[int]
    either: Reading | Note
    length: Metres
    nothing: None = None
    unit: ClassVar[str] = "g"


WHOLE = Everything(
    word="pump",
    count=-3,
    share=0.5,
    ok=True,
    raw=b"\x00\xff",
    colour=Colour.GREEN,
    level=Level.HIGH,
    mode="slow",
    readings=[Reading(0.1), Reading(0.2, "b")],
    rows=(1, 2),
    pair=("a", 1.5),
    by_name={"x": Reading(1.0)},
    maybe=None,
    mixed=[1],
    either=Note("hi"),
    length=Metres(3.0),
)


def problems(kind: Any, plain: object) -> list[str]:
    with pytest.raises(SchemaError) as caught:
        schema_of(kind).decode(strictpack.packb(plain))
    return [str(problem) for problem in caught.value.problems]


def test_every_supported_type_comes_back_as_it_was() -> None:
    schema = schema_of(Everything)
    back = schema.decode(schema.encode(WHOLE))
    assert back == WHOLE
    assert type(back.colour) is Colour
    assert type(back.level) is Level
    assert type(back.rows) is tuple
    assert type(back.either) is Note


def test_a_dataclass_may_hold_itself() -> None:
    tree = Tree("a", [Tree("b"), Tree("c", [Tree("d")])])
    assert schema_of(Tree).decode(schema_of(Tree).encode(tree)) == tree


def test_a_value_that_holds_itself_is_refused_and_not_followed_for_ever() -> None:
    tree = Tree("a")
    tree.children.append(tree)
    with pytest.raises(SchemaError, match="holds itself"):
        schema_of(Tree).encode(tree)


def test_missing_fields_take_their_default_and_others_are_named() -> None:
    assert schema_of(Reading).from_plain({"rms_g": 1.0}) == Reading(1.0)
    assert problems(Reading, {"label": "x"}) == ["Reading.rms_g is missing, expected float"]


def test_an_unknown_field_is_an_error_with_the_near_match() -> None:
    assert problems(Reading, {"rms_g": 1.0, "lable": "x"}) == [
        'Reading.lable is no field of Reading; did you mean "label"?'
    ]
    assert problems(Reading, {"rms_g": 1.0, "zzzz": "x"}) == ["Reading.zzzz is no field of Reading"]


def test_every_wrong_field_is_told_at_once_with_its_path() -> None:
    plain = {
        "rms_g": "loud",
        "label": 7,
    }
    assert problems(list[Reading], [{"rms_g": 1.0}, plain]) == [
        "list[Reading][1].rms_g is 'loud' (str), expected float",
        "list[Reading][1].label is 7 (int), expected str",
    ]


@pytest.mark.parametrize(
    ("kind", "plain", "expected"),
    [
        (int, True, "int is True (bool), expected int"),
        (int, 1.0, "int is 1.0 (float), expected int"),
        (int, 2**63, "int is 9223372036854775808 (int), which does not fit 64 bits"),
        (bool, 1, "bool is 1 (int), expected bool"),
        (float, True, "float is True (bool), expected float"),
        (float, "1", "float is '1' (str), expected float"),
        (float, 2**53 + 1, "float is 9007199254740993 (int), expected float"),
        (str, b"x", "str is b'x' (bytes), expected str"),
        (bytes, "x", "bytes is 'x' (str), expected bytes"),
        (int | None, "x", "int | None is 'x' (str), expected int | None"),
        (list[int], {"a": 1}, "list[int] is a dict of 1, expected list[int]"),
        (tuple[int, str], [1], "tuple[int, str] has 1 items, expected 2: tuple[int, str]"),
        (dict[str, int], {1: 2}, "dict[str, int] has the key 1 (int), expected str"),
        (dict[str, int], {"a": "b"}, "dict[str, int]['a'] is 'b' (str), expected int"),
        (Colour, "gren", 'Colour is \'gren\' (str), expected "red" | "green"; did you mean "green"?'),
        (Colour, 1, 'Colour is 1 (int), expected "red" | "green"'),
        (Level, True, "Level is True (bool), expected 1 | 2"),
        (Literal["a", 1], 2, '"a" | 1 is 2 (int), expected "a" | 1'),
        (
            Reading | Note,
            {"Other": {}},
            "Reading | Note is a dict of 1, expected one of Reading | Note as {name: fields}",
        ),
        (Reading | Note, {"Note": {}}, "Reading | Note.text is missing, expected str"),
        (Reading, None, "Reading is nothing, expected Reading"),
    ],
)
def test_what_does_not_fit_is_told_in_one_sentence(kind: Any, plain: object, expected: str) -> None:
    assert problems(kind, plain) == [expected]


class Share(float):
    """Like numpy.float64: a float to every type checker."""


def test_what_a_type_checker_takes_for_a_str_or_number_travels_as_one() -> None:
    assert schema_of(Note).decode(schema_of(Note).encode(Note(Colour.RED))) == Note("red")
    assert type(schema_of(Note).decode(schema_of(Note).encode(Note(Colour.RED))).text) is str
    assert schema_of(int).to_plain(Level.HIGH) == 2
    assert type(schema_of(float).to_plain(Share(0.5))) is float
    either: Any = str | float | None
    assert [schema_of(either).to_plain(value) for value in (Colour.RED, Share(0.5), 3, None)] == ["red", 0.5, 3.0, None]
    with pytest.raises(SchemaError, match="expected int"):
        schema_of(int).to_plain(True)


def test_a_whole_number_stands_for_a_float_and_nothing_else_is_coerced() -> None:
    value = schema_of(float).from_plain(3)
    assert value == 3.0
    assert type(value) is float
    either: Any = str | float
    assert type(schema_of(either).from_plain(3)) is float


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_bid_never_travels(value: float) -> None:
    with pytest.raises(SchemaError, match="expected a finite float"):
        schema_of(Reading).encode(Reading(value))
    raw = b"\x81\xa5rms_g\xcb" + b"\x7f\xf8" + bytes(6)
    with pytest.raises(SchemaError, match="is not readable"):
        schema_of(Reading).decode(raw)


def test_the_authors_own_mistake_is_told_before_anything_is_sent() -> None:
    with pytest.raises(SchemaError, match=r"^Reading.rms_g is 'loud' \(str\), expected float$"):
        schema_of(Reading).encode(Reading("loud"))  # type: ignore[arg-type]


def test_ten_thousand_misfits_cost_a_few_sentences() -> None:
    assert len(problems(list[int], ["x"] * 9000)) == MAX_PROBLEMS
    assert len(problems(Reading, {"rms_g": 1.0, **{f"f{n}": 0 for n in range(4000)}})) == MAX_PROBLEMS


def test_a_long_wrong_value_is_shown_by_its_start() -> None:
    [told] = problems(Reading, {"rms_g": "x" * 10_000})
    assert len(told) < 140


def test_too_many_bytes_are_refused_on_both_sides() -> None:
    with pytest.raises(SchemaError, match="at most 100 travel"):
        schema_of(Note).encode(Note("x" * 200), max_bytes=100)
    with pytest.raises(SchemaError, match="at most 100 are read"):
        schema_of(Note).decode(schema_of(Note).encode(Note("x" * 200)), max_bytes=100)


def test_text_that_is_no_unicode_is_refused_and_not_a_crash() -> None:
    with pytest.raises(SchemaError):
        schema_of(Note).encode(Note("\ud800"))


@dataclass(frozen=True)
class Picky:
    share: float

    def __post_init__(self) -> None:
        if self.share > 1:
            raise ZeroDivisionError("a share is at most 1")


def test_what_a_dataclass_itself_rejects_is_a_problem_of_the_value() -> None:
    assert problems(Picky, {"share": 2.0}) == ["Picky was rejected by Picky: a share is at most 1"]


class NotADataclass:
    pass


@dataclass
class WithInitVar:
    x: int
    y: InitVar[int]


@dataclass
class Computed:
    x: int = field(init=False, default=0)


@dataclass
class Deep:
    image: list[NotADataclass]


class Odd(enum.Enum):
    A = (1, 2)


@pytest.mark.parametrize(
    ("kind", "message", "next_step"),
    [
        (
            NotADataclass,
            f"has type {__name__}.NotADataclass, which cannot travel",
            "use bytes, a dataclass, or emit a sensor reference",
        ),
        (Any, "has type typing.Any, which cannot travel", "name the type"),
        (set[str], "has type set[str], which cannot travel", "use list or tuple"),
        (dict[int, str], "has type dict[int, str], which cannot travel", "use dict[str, T]"),
        (list, "has type list, which cannot travel", "use list[T] with a type"),
        (
            list[int] | tuple[int, ...],
            "has type list[int] | tuple[int, ...], whose members cannot be told apart on arrival",
            "use a dataclass for each case",
        ),
        (
            str | Colour,
            "has type str | Colour, whose members cannot be told apart on arrival",
            "use a dataclass for each case",
        ),
        (Odd, "has type Odd, which cannot travel", "use values that are str, int or bool"),
        (
            Deep,
            f"Deep.image has type {__name__}.NotADataclass, which cannot travel",
            "use bytes, a dataclass, or emit a sensor reference",
        ),
        (WithInitVar, "WithInitVar.y is an InitVar, which is not kept and cannot travel", "make it a field"),
        (
            Computed,
            "Computed.x is not set by the constructor, so it cannot arrive",
            "leave field(init=False) away, or compute it in a property",
        ),
    ],
)
def test_a_type_that_cannot_travel_is_found_when_it_is_compiled(kind: Any, message: str, next_step: str) -> None:
    with pytest.raises(UnsupportedTypeError) as caught:
        schema_of(kind)
    assert (str(caught.value), caught.value.next_step) == (message, next_step)


def test_an_annotation_that_cannot_be_looked_up_says_what_to_define() -> None:
    class Hidden:
        pass

    @dataclass
    class Local:
        x: Hidden

    with pytest.raises(UnsupportedTypeError, match="Local names a type that its module does not know: Hidden"):
        schema_of(Local)
