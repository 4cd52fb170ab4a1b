"""Mistakes in a role: all at once, with file, line and what to type next."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import pytest

from meshagent import (
    BatteryLow,
    Call,
    Context,
    Event,
    Proposal,
    Refusal,
    Requires,
    Role,
    Sample,
    Task,
    TaskContext,
    actuator,
    every,
    on,
    sensor,
    task,
)
from meshagent.sdk.compiling import compile_role
from meshagent.sdk.errors import RoleLoadError


class Camera:
    pass


@dataclass(frozen=True)
class Finding:
    ok: bool


@dataclass(frozen=True)
class Check(Task[Finding], kind="compiling.check", requires=Requires({"probe"}, memory_mib=8)):
    site: str


@dataclass(frozen=True)
class Count(Task[int], kind="compiling.count"):
    upto: int


@dataclass(frozen=True)
class Picture(Task[int]):
    site: str
    image: Camera


@dataclass(frozen=True)
class Rattle(Event):
    hz: float


@dataclass(frozen=True)
class Unsendable(Event):
    image: Camera


class Good(Role):
    requires = Requires({"legs"}, {"enter:room"}, memory_mib=4)
    mic = sensor(float, window_s=2.0)
    legs = actuator(Camera)

    @task
    async def check(self, job: Check, ctx: TaskContext) -> Finding:
        return Finding(True)

    @check.feasible
    def can(self, call: Call[Check]) -> Refusal | None:
        return None

    @check.price
    def price(self, call: Call[Check]) -> Proposal:
        return call.propose(1.0)

    @task(worker="process", timeout_s=3.0, memory_mib=64)
    def count(self, job: Count) -> int:
        return job.upto

    @on(mic)
    async def heard(self, sample: Sample[float], ctx: Context) -> None: ...

    @on(Rattle)
    async def rattled(self, event: Rattle) -> None: ...

    @on(BatteryLow)
    async def news(self, event: Event) -> None: ...

    @every(5)
    async def beat(self, ctx: Context) -> None: ...


def line_of(cls: type, text: str) -> int:
    lines, start = inspect.getsourcelines(cls)
    return start + next(number for number, line in enumerate(lines) if text in line)


def mistakes(cls: type[Role]) -> list[tuple[int, str, str]]:
    with pytest.raises(RoleLoadError) as caught:
        compile_role(cls)
    assert all(mistake.file.endswith("test_compiling.py") for mistake in caught.value.mistakes)
    return [(mistake.line, mistake.message, mistake.next_step) for mistake in caught.value.mistakes]


def test_a_role_is_compiled_whole() -> None:
    spec = compile_role(Good)
    check, count = spec.tasks
    assert (check.method, check.takes, check.worker, check.is_async) == ("check", TaskContext, None, True)
    assert check.requires == Requires({"legs", "probe"}, {"enter:room"}, memory_mib=8)
    assert check.feasible is Good.can
    assert check.price is Good.price
    assert (count.worker, count.timeout_s, count.memory_mib, count.takes) == ("process", 3.0, 64, None)
    assert [(h.sensor, h.takes_context) for h in spec.samples] == [(Good.mic, True)]
    assert [(h.event, h.takes_context) for h in spec.events] == [
        (Rattle, False),
        (BatteryLow, False),
    ]
    assert [(t.period_s, t.takes_context) for t in spec.timers] == [(5.0, True)]
    assert list(spec.sensors) == ["mic"]
    assert list(spec.actuators) == ["legs"]
    assert spec.performing("compiling.check") is check
    assert spec.performing("nothing") is None
    assert spec.origin.module == __name__
    assert spec.origin.file == __file__


def test_a_plain_def_runs_in_a_thread_when_nothing_is_said() -> None:
    class Counter(Role):
        @task
        def count(self, job: Count) -> int:
            return 0

    assert compile_role(Counter).tasks[0].worker == "thread"


def test_a_handler_is_still_the_method_it_was_written_as() -> None:
    assert Good().count(Count(4)) == 4


def test_mistake_2_another_result_than_the_kind_promises() -> None:
    class Dog(Role):
        @task
        async def check(self, job: Check) -> str:
            return ""

    assert mistakes(Dog) == [
        (
            line_of(Dog, "async def check"),
            "Dog.check returns str, but Check is a Task[Finding].",
            "return a Finding, or declare class Check(Task[str])",
        )
    ]


def test_mistake_3_a_task_without_a_type() -> None:
    class Dog(Role):
        @task
        async def check(self, job) -> Finding:  # type: ignore[no-untyped-def]
            return Finding(True)

    assert mistakes(Dog) == [
        (
            line_of(Dog, "async def check"),
            'Dog.check: parameter "job" has no type, so nobody can know which tasks it performs.',
            "job: Check",
        )
    ]


def test_mistake_4_a_field_that_cannot_travel_is_shown_where_it_is_written() -> None:
    class Painter(Role):
        @task
        async def paint(self, job: Picture) -> int:
            return 0

    assert mistakes(Painter) == [
        (
            line_of(Picture, "image: Camera"),
            f"Picture.image has type {__name__}.Camera, which cannot travel.",
            "use bytes, a dataclass, or emit a sensor reference",
        )
    ]


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    class Dog(Role):
        requires = {"legs"}  # type: ignore[assignment]  # noqa: RUF012

        def __init__(self, speed: float) -> None:
            pass

        mic = sensor(float)

        @task(worker="thread", timeout_s=0)
        async def check(self, job: Check) -> Finding:
            return Finding(True)

        @task  # type: ignore[arg-type]
        async def count(self, job: Count, ctx: str) -> int:
            return 0

        @task
        def other(self, job: Count, ctx: TaskContext) -> int:
            return 0

        @other.price  # type: ignore[arg-type]
        async def price(self, call: Call[Count]) -> Proposal:
            return call.propose()

        @on(mic)  # type: ignore[arg-type]
        async def heard(self, sample: Sample[str]) -> None: ...

        @on(int)  # type: ignore[type-var]
        async def odd(self, value: int) -> None: ...

        @on(Rattle)  # type: ignore[arg-type]
        async def rattled(self, event: Rattle, ctx: TaskContext) -> None: ...

        @on(Unsendable)
        async def seen(self, event: Unsendable) -> None: ...

        @every(-1)
        async def beat(self) -> None: ...

    assert mistakes(Dog) == [
        (line_of(Dog, "requires = "), "Dog.requires is no Requires.", "requires = Requires(capabilities={...})"),
        (
            line_of(Dog, "def __init__"),
            "Dog.__init__ needs speed, but the node makes it without arguments.",
            "give speed a default, or read it from the environment",
        ),
        (
            line_of(Dog, "async def check"),
            'Dog.check is async, but worker="thread" is for computing.',
            "make it a plain def that takes only the task, or leave worker= away",
        ),
        (line_of(Dog, "async def check"), "Dog.check: timeout_s=0.", "give seconds, more than 0"),
        (
            line_of(Dog, "async def count"),
            'Dog.count: parameter "ctx" has type str.',
            "ctx: TaskContext, or leave it away",
        ),
        (
            line_of(Dog, "def other"),
            "Dog.count and Dog.other both perform compiling.count.",
            "keep one, or give them kinds of their own",
        ),
        (
            line_of(Dog, "def other"),
            "Dog.other is a plain def and runs beside the loop, so it cannot have a TaskContext.",
            "async def other, and submit the computing as a task of its own",
        ),
        (
            line_of(Dog, "async def price"),
            "Dog.other: the price hook price is async, but a bid must be pure and quick.",
            "def price(self, call)",
        ),
        (
            line_of(Dog, "async def heard"),
            'Dog.heard: parameter "sample" has type Sample[str], but @on gives it a Sample[float].',
            "sample: Sample[float]",
        ),
        (line_of(Dog, "async def odd"), "Dog.odd: @on(int) is neither an event class nor a sensor.", "class X(Event)"),
        (
            line_of(Dog, "async def rattled"),
            "Dog.rattled handles news, which have no contract: it cannot have a TaskContext.",
            "ctx: Context, and submit a task for what needs one",
        ),
        (
            line_of(Unsendable, "image: Camera"),
            f"Unsendable.image has type {__name__}.Camera, which cannot travel.",
            "use bytes, a dataclass, or emit a sensor reference",
        ),
        (line_of(Dog, "async def beat"), "Dog.beat: @every(-1).", "give seconds, more than 0"),
    ]


def test_an_event_that_is_no_dataclass_is_told_at_its_own_class() -> None:
    class Bare(Event):
        pass

    class Hearing(Role):
        @on(Bare)
        async def heard(self, event: Bare) -> None: ...

    assert mistakes(Hearing) == [
        (line_of(Bare, "class Bare"), "Bare is no dataclass.", "put @dataclass(frozen=True) above class Bare")
    ]


def test_a_name_that_is_not_imported_at_run_time_is_told() -> None:
    class Dog(Role):
        @task
        async def check(self, job: Missing) -> Finding:  # type: ignore[name-defined]  # noqa: F821
            return Finding(True)

    assert mistakes(Dog) == [
        (
            line_of(Dog, "async def check"),
            "Dog.check: the name Missing in its annotations is not known.",
            "import Missing at the top level (not under TYPE_CHECKING)",
        )
    ]


def test_a_handler_that_says_nothing_of_its_result_is_told_which() -> None:
    class Dog(Role):
        @task
        async def check(self, job: Check):  # type: ignore[no-untyped-def]
            return Finding(True)

    [(_, message, next_step)] = mistakes(Dog)
    assert message == "Dog.check does not say what it returns, but Check is a Task[Finding]."
    assert next_step == "-> Finding"


def test_roles_do_not_inherit_tasks() -> None:
    class Better(Good):
        pass

    [(_, message, next_step)] = mistakes(Better)
    assert message == "Better inherits from the role Good; roles do not inherit tasks."
    assert next_step == "move what both need into a plain class, or run both: meshagent run Good Better"


def test_a_plain_mixin_may_bring_sensors_and_handlers() -> None:
    class Ears:
        mic = sensor(float)

        @on(mic)
        async def heard(self, sample: Sample[float]) -> None: ...

    class Bat(Ears, Role):
        pass

    spec = compile_role(Bat)
    assert list(spec.sensors) == ["mic"]
    assert [handler.label for handler in spec.samples] == ["Bat.heard"]


def test_a_role_that_does_nothing_is_a_mistake() -> None:
    class Idle(Role):
        pass

    [(line, message, next_step)] = mistakes(Idle)
    assert line == line_of(Idle, "class Idle")
    assert message == "Idle performs no task and handles nothing."
    assert next_step == "put @task above a method"


@pytest.mark.parametrize("decorator", [task, every(1.0), on(Rattle)])
def test_a_decorator_above_something_that_is_no_function_is_a_mistake(decorator: Any) -> None:
    cls = type("Odd", (Role,), {"x": decorator(3), "__module__": __name__})
    with pytest.raises(RoleLoadError, match="stands above no function"):
        compile_role(cls)


def test_listening_to_the_sensor_of_another_role_is_a_mistake() -> None:
    class Thief(Role):
        @on(Good.mic)
        async def heard(self, sample: Sample[float]) -> None: ...

    [(_, message, _)] = mistakes(Thief)
    assert message == "Thief.heard listens to a sensor of another role."


def test_an_instance_knows_its_node_before_init_runs() -> None:
    class Namer(Role):
        def __init__(self) -> None:
            self.greeting = f"I am {self.node.name}"

        @every(1)
        async def beat(self) -> None: ...

    class Services:
        id = "n" * 52
        name = "ann"

    role = compile_role(Namer).create(Services())  # type: ignore[arg-type]
    assert isinstance(role, Namer)
    assert role.greeting == "I am ann"
