"""Kinds of task: terms on the class, schemas behind it, and the traps of class statements."""

from __future__ import annotations

import dataclasses
import gc
from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeVar

import pytest

from meshagent import Delivery, InDoubt, Place, Requires, Site, Task
from meshagent.core.acts import TaskRecord
from meshagent.sdk.errors import DeclarationError, SchemaError
from meshagent.sdk.kinds import kind_named, kind_of
from meshagent.types import NodeId, TaskId

T = TypeVar("T")


@dataclass(frozen=True)
class Finding:
    site: str
    ok: bool


@dataclass(frozen=True)
class Check(Task[Finding], kind="kinds.check.v1", delivery="at_least_once", requires=Requires({"probe"})):
    site: str
    depth_m: float = 0.5

    def place(self) -> Place:
        return Site(self.site)


@dataclass(frozen=True, slots=True)
class Slotted(Task[int], delivery="at_least_once", in_doubt="wait", approval=True):
    part: str


@dataclass(frozen=True)
class Plain(Task[None]):
    pass


class Listing(Task[list[T]], Generic[T]):
    """A base between kinds and Task."""


@dataclass(frozen=True)
class Names(Listing[str]):
    pass


def record_of(task: Task[object], **changes: object) -> TaskRecord:
    kind = kind_of(type(task))
    record = TaskRecord(
        task=TaskId("t" * 32),
        initiator=NodeId("n" * 52),
        boot=bytes(16),
        nonce=bytes(16),
        kind=kind.name,
        spec=kind.encode(task),
        delivery=kind.delivery,
        in_doubt=kind.in_doubt,
        approval=kind.approval,
    )
    return replace(record, **changes)  # type: ignore[arg-type]


def test_slots_keep_the_terms_although_the_class_is_built_twice() -> None:
    kind = kind_of(Slotted)
    assert (kind.delivery, kind.in_doubt, kind.approval) == (Delivery.AT_LEAST_ONCE, InDoubt.WAIT, True)


def test_what_nobody_thought_about_is_not_done_twice() -> None:
    kind = kind_of(Plain)
    assert (kind.delivery, kind.in_doubt, kind.approval) == (Delivery.AT_MOST_ONCE, InDoubt.MAJORITY, False)
    assert kind.name == "test_kinds.Plain"


def test_specification_and_result_travel_by_their_schemas() -> None:
    kind = kind_of(Check)
    assert kind.decode(kind.encode(Check("pump-7"))) == Check("pump-7")
    assert kind.decode_result(kind.encode_result(Finding("pump-7", True))) == Finding("pump-7", True)
    with pytest.raises(SchemaError, match="Finding is 'ok' "):
        kind.encode_result("ok")
    assert kind.requires.capabilities == {"probe"}


def test_the_result_is_found_through_a_generic_base() -> None:
    assert kind_of(Names).result.text == "list[str]"


def test_a_kind_reads_as_people_write_it() -> None:
    assert kind_of(Check).describe() == "Check(site: str, depth_m: float = 0.5) -> Finding [at_least_once]"
    assert kind_of(Slotted).describe() == "Slotted(part: str) -> int [at_least_once, in_doubt=wait, approval]"
    assert kind_of(Plain).describe() == "Plain() -> None"


def test_a_stranger_cannot_have_an_at_most_once_task_done_twice_by_saying_so() -> None:
    kind = kind_of(Plain)
    assert kind.terms_differ(record_of(Plain())) is None
    forged = record_of(Plain(), delivery=Delivery.AT_LEAST_ONCE)
    assert kind.terms_differ(forged) == ("asked with delivery=at_least_once, Plain has delivery=at_most_once here")
    assert kind_of(Slotted).terms_differ(record_of(Slotted("x"), approval=False)) is not None


def test_kinds_are_found_by_wire_name_and_by_class_name() -> None:
    kind_of(Check)
    assert kind_named("kinds.check.v1") is kind_of(Check)
    assert kind_named("Slotted") is kind_of(Slotted)
    assert kind_named("nobody.has.this") is None


@dataclass
class Mutable(Task[int]):
    x: int


class Bare(Task[int]):
    pass


@dataclass(frozen=True)
class Child(Check):
    more: int = 0


@dataclass(frozen=True)
class NoResult(Task):  # type: ignore[type-arg]
    pass


@dataclass(frozen=True)
class Quoted(Task["Later"]):
    pass


class Later:
    pass


@dataclass(frozen=True)
class Unreadable(Task[Later]):
    pass


@dataclass(frozen=True)
class OddName(Task[int], kind="pump check"):
    pass


@dataclass(frozen=True)
class OddDelivery(Task[int], delivery="exactly_once"):  # type: ignore[arg-type]
    pass


@dataclass(frozen=True)
class OddChoice(Task[int]):
    mode: Literal['a"b', "c"]


Huge = dataclasses.make_dataclass(
    "Huge",
    [(f"field_{n}", int) for n in range(100)],
    bases=(Task[int],),
    frozen=True,
    namespace={"__module__": __name__},
)
UNREADABLE = "cannot be described in one line that others read back (at most 1500 characters)"
GROUP = "group its fields into a dataclass, and use plain words as choices"


@pytest.mark.parametrize(
    ("cls", "message", "next_step"),
    [
        (OddChoice, f"OddChoice {UNREADABLE}", GROUP),
        (Huge, f"Huge {UNREADABLE}", GROUP),
        (
            Mutable,
            "Mutable is not frozen, but a task is a promise that nobody may change",
            "put @dataclass(frozen=True) above class Mutable",
        ),
        (Bare, "Bare is no dataclass", "put @dataclass(frozen=True) above class Bare"),
        (
            Child,
            "Child inherits from the kind Check; kinds are not inherited",
            "share the fields in a plain dataclass and write class Child(Fields, Task[...])",
        ),
        (NoResult, "NoResult does not say what it results in", "class NoResult(Task[Result])"),
        (
            Quoted,
            'Quoted is a Task["Later"], and quoted results cannot be looked up',
            "define Later above Quoted and write Task[Later]",
        ),
        (
            Unreadable,
            f"the result of Unreadable has type {__name__}.Later, which cannot travel",
            "use bytes, a dataclass, or emit a sensor reference",
        ),
        (
            OddName,
            "OddName is called 'pump check' on the wire, which is no name",
            'words of a-z, 0-9 and _, joined by dots: class OddName(Task[...], kind="pump.check.v1")',
        ),
        (OddDelivery, "OddDelivery has delivery='exactly_once'", 'delivery="at_most_once" or "at_least_once"'),
        (int, "int is no kind of task", "class X(Task[Result])"),
    ],
)
def test_a_wrong_declaration_says_what_to_write(cls: type[Task[object]], message: str, next_step: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        kind_of(cls)
    assert (str(caught.value), caught.value.next_step) == (message, next_step)


@dataclass(frozen=True)
class One(Task[int], kind="kinds.clash"):
    pass


@dataclass(frozen=True)
class Two(Task[int], kind="kinds.clash"):
    pass


def test_two_classes_cannot_be_one_kind() -> None:
    kind_of(One)
    with pytest.raises(DeclarationError, match=r"Two and .*One are both the kind kinds\.clash"):
        kind_of(Two)


def test_a_class_made_again_inside_a_function_takes_the_place_of_the_former() -> None:
    def made() -> type[Task[int]]:
        @dataclass(frozen=True)
        class Again(Task[int], kind="kinds.again"):
            pass

        return Again

    kind_of(made())
    second = made()
    kind_of(second)
    gc.collect()
    found = kind_named("kinds.again")
    assert found is not None
    assert found.cls is second


def test_requires_takes_words_and_not_the_letters_of_one() -> None:
    with pytest.raises(DeclarationError, match="is one string"):
        Requires(capabilities="legs")
    both = Requires({"legs"}, memory_mib=3) | Requires({"probe"}, {"enter:room"}, memory_mib=2)
    assert both == Requires({"legs", "probe"}, {"enter:room"}, 3)


def test_default_values_are_described_as_they_are_written() -> None:
    @dataclass(frozen=True)
    class Defaults(Task[None]):
        a: float = 1.0
        b: int = 0
        c: int = 1
        d: bool = True
        e: float = 0.0

    assert kind_of(Defaults).describe() == (
        "Defaults(a: float = 1.0, b: int = 0, c: int = 1, d: bool = true, e: float = 0.0) -> None"
    )
