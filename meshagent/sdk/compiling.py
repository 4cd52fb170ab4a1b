"""From a `Role` class to a `RoleSpec`: every mistake is found here, all at once, with file, line and the next step."""

from __future__ import annotations

import inspect
import math
import os
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any, Final

from meshagent.errors import ConfigurationError
from meshagent.sdk import source
from meshagent.sdk.context import Context, TaskContext
from meshagent.sdk.declare import MARKS, EveryMark, OnMark, TaskHandler, TaskOptions
from meshagent.sdk.errors import Mistake, RoleLoadError
from meshagent.sdk.events import Event, event_schema
from meshagent.sdk.kinds import KindSpec, Task, kind_of
from meshagent.sdk.requires import Requires
from meshagent.sdk.role import EventHandler, Origin, Role, RoleSpec, SensorHandler, TaskSpec, Timer
from meshagent.sdk.schema import UnsupportedTypeError, type_text
from meshagent.sdk.sensing import Actuator, Sample, Sensor

_WORKERS: Final = ("thread", "process")


def compile_role(cls: type[Role]) -> RoleSpec:
    """The role as the node hosts it.

    Raises:
        RoleLoadError: one or more mistakes, all of them.
    """
    compiler = _RoleCompiler(cls)
    spec = compiler.compile()
    if compiler.mistakes:
        raise RoleLoadError(compiler.mistakes)
    return spec


class _RoleCompiler:
    def __init__(self, cls: type[Role]) -> None:
        self._cls = cls
        self.mistakes: list[Mistake] = []
        self._performed: dict[str, str] = {}

    def compile(self) -> RoleSpec:
        cls = self._cls
        self._check_class()
        requires = cls.requires if isinstance(cls.requires, Requires) else Requires()
        tasks: list[TaskSpec] = []
        events: list[EventHandler] = []
        samples: list[SensorHandler] = []
        timers: list[Timer] = []
        sensors: dict[str, Sensor[Any]] = {}
        actuators: dict[str, Actuator[Any]] = {}
        for name, member in self._members():
            if isinstance(member, TaskHandler):
                if (task := self._task(name, member, requires)) is not None:
                    tasks.append(task)
            elif isinstance(member, Sensor):
                sensors[name] = member
            elif isinstance(member, Actuator):
                actuators[name] = member
            marks = getattr(member, MARKS, ())
            for mark in marks if isinstance(marks, tuple) else ():  # a mock answers to every name
                handler = self._on(name, member, mark.source) if isinstance(mark, OnMark) else None
                if isinstance(handler, EventHandler):
                    events.append(handler)
                elif isinstance(handler, SensorHandler):
                    samples.append(handler)
                if isinstance(mark, EveryMark) and (timer := self._every(name, member, mark)) is not None:
                    timers.append(timer)
        if not (tasks or events or samples or timers or self.mistakes):
            self._wrong(
                source.of_class(cls), f"{cls.__name__} performs no task and handles nothing", "put @task above a method"
            )
        file = getattr(inspect.getmodule(cls), "__file__", None)
        return RoleSpec(
            name=cls.__name__,
            cls=cls,
            origin=Origin(
                module=cls.__module__, qualname=cls.__qualname__, file=os.path.realpath(file) if file else ""
            ),
            requires=requires,
            tasks=tuple(tasks),
            events=tuple(events),
            samples=tuple(samples),
            timers=tuple(timers),
            sensors=sensors,
            actuators=actuators,
        )

    def _members(self) -> Iterable[tuple[str, Any]]:
        """The role's own names and those of plain mixins, the role's first; in order of writing."""
        seen: set[str] = set()
        for cls in self._cls.__mro__:
            if cls is Role or cls is object:
                continue
            for name, member in list(cls.__dict__.items()):
                if name not in seen:
                    seen.add(name)
                    yield name, member

    def _check_class(self) -> None:
        cls, name = self._cls, self._cls.__name__
        here = source.of_class(cls)
        requires: object = cls.requires
        for base in cls.__mro__[1:]:
            if base is not Role and issubclass(base, Role):
                self._wrong(
                    here,
                    f"{name} inherits from the role {base.__name__}; roles do not inherit tasks",
                    f"move what both need into a plain class, or run both: meshagent run {base.__name__} {name}",
                )
        if not isinstance(requires, Requires):
            self._wrong(
                source.of_class(cls, "requires"),
                f"{name}.requires is no Requires",
                "requires = Requires(capabilities={...})",
            )
        if "__init__" in cls.__dict__:
            needed = [
                parameter.name
                for parameter in list(inspect.signature(cls.__init__).parameters.values())[1:]
                if parameter.default is parameter.empty
                and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            ]
            if needed:
                self._wrong(
                    source.of_function(cls.__init__),
                    f"{name}.__init__ needs {', '.join(needed)}, but the node makes it without arguments",
                    f"give {needed[0]} a default, or read it from the environment",
                )

    # ---- tasks

    def _task(self, name: str, handler: TaskHandler[Any, Any, Any, Any], requires: Requires) -> TaskSpec | None:
        function, label = handler.function, f"{self._cls.__name__}.{name}"
        if not inspect.isfunction(function):
            self._wrong(source.of_class(self._cls), f"{label}: @task stands above no function", "put it above a def")
            return None
        here = source.of_function(function)
        before = len(self.mistakes)
        parameters = self._parameters(function, label, here, "@task", "job: KindOfTask")
        is_async = inspect.iscoroutinefunction(function)
        kind: KindSpec[Any] | None = None
        takes: type[Context] | None = None
        if parameters is not None:
            hints, names = parameters
            kind = self._kind(label, names, hints, here)
            takes = self._context(label, names, hints, here, TaskContext)
            if kind is not None:
                self._result(label, kind, hints, here)
                if (former := self._performed.setdefault(kind.name, label)) != label:
                    self._wrong(
                        here,
                        f"{former} and {label} both perform {kind.name}",
                        "keep one, or give them kinds of their own",
                    )
        self._options(label, handler.options, is_async, takes, here)
        feasible = self._hook(label, "feasible", handler.feasible_hooks, here)
        price = self._hook(label, "price", handler.price_hooks, here)
        if kind is None or len(self.mistakes) > before:
            return None
        options = handler.options
        both = requires | kind.requires
        return TaskSpec(
            kind=kind,
            method=name,
            function=function,
            takes=takes,
            is_async=is_async,
            worker=None if is_async else options.worker or "thread",
            timeout_s=options.timeout_s,
            memory_mib=options.memory_mib if options.memory_mib is not None else both.memory_mib,
            requires=both,
            feasible=feasible,
            price=price,
            label=label,
            where=f"{here[0]}:{here[1]}",
        )

    def _kind(self, label: str, names: list[str], hints: dict[str, Any], here: tuple[str, int]) -> KindSpec[Any] | None:
        if not names:
            self._wrong(
                here,
                f"{label} takes no task, so nobody can know which tasks it performs",
                f"def {label.partition('.')[2]}(self, job: KindOfTask)",
            )
            return None
        first = names[0]
        if first not in hints:
            suggestion = self._suggested()
            self._wrong(
                here,
                f'{label}: parameter "{first}" has no type, so nobody can know which tasks it performs.',
                f"{first}: {suggestion}",
            )
            return None
        kind = hints[first]
        if not (isinstance(kind, type) and issubclass(kind, Task)) or kind is Task:
            self._wrong(
                here,
                f'{label}: parameter "{first}" has type {type_text(kind)}, which is no kind of task.',
                f"class {getattr(kind, '__name__', 'X')}(Task[Result])"
                if kind is not Task
                else f"{first}: {self._suggested()}",
            )
            return None
        try:
            return kind_of(kind)
        except UnsupportedTypeError as error:
            self._wrong_type(error, kind)
        except ConfigurationError as error:
            self._wrong(source.of_class(kind), f"{error}.", error.next_step or "")
        return None

    def _suggested(self) -> str:
        """A kind that the role's module knows, to make the next step something to paste."""
        module = inspect.getmodule(self._cls)
        for value in vars(module).values() if module is not None else ():
            if isinstance(value, type) and issubclass(value, Task) and value is not Task:
                return value.__name__
        return "KindOfTask"

    def _result(self, label: str, kind: KindSpec[Any], hints: dict[str, Any], here: tuple[str, int]) -> None:
        name, result = kind.cls.__name__, type_text(kind.result_type)
        if "return" not in hints:
            self._wrong(here, f"{label} does not say what it returns, but {name} is a Task[{result}].", f"-> {result}")
            return
        returned = hints["return"]
        if not _fits(returned, kind.result_type):
            self._wrong(
                here,
                f"{label} returns {type_text(returned)}, but {name} is a Task[{result}].",
                f"return {_article(result)}, or declare class {name}(Task[{type_text(returned)}])",
            )

    def _options(
        self, label: str, options: TaskOptions, is_async: bool, takes: type[Context] | None, here: tuple[str, int]
    ) -> None:
        if options.worker is not None and options.worker not in _WORKERS:
            self._wrong(here, f"{label}: worker={options.worker!r} is unknown.", 'worker="thread" or worker="process"')
        elif options.worker is not None and is_async:
            self._wrong(
                here,
                f'{label} is async, but worker="{options.worker}" is for computing.',
                "make it a plain def that takes only the task, or leave worker= away",
            )
        elif not is_async and takes is not None:
            self._wrong(
                here,
                f"{label} is a plain def and runs beside the loop, so it cannot have a {takes.__name__}.",
                f"async def {label.partition('.')[2]}, and submit the computing as a task of its own",
            )
        if options.timeout_s is not None and not (math.isfinite(options.timeout_s) and options.timeout_s > 0):
            self._wrong(here, f"{label}: timeout_s={options.timeout_s!r}.", "give seconds, more than 0")
        if options.memory_mib is not None and options.memory_mib <= 0:
            self._wrong(here, f"{label}: memory_mib={options.memory_mib!r}.", "give MiB, more than 0")

    def _hook(self, label: str, word: str, hooks: list[Any], here: tuple[str, int]) -> Callable[..., Any] | None:
        if len(hooks) > 1:
            self._wrong(here, f"{label} has {len(hooks)} {word} hooks.", "keep one")
        for hook in hooks:
            where = source.of_function(hook)
            if inspect.iscoroutinefunction(hook):
                self._wrong(
                    where,
                    f"{label}: the {word} hook {hook.__name__} is async, but a bid must be pure and quick.",
                    f"def {hook.__name__}(self, call)",
                )
            elif not inspect.isfunction(hook) or len(inspect.signature(hook).parameters) != 2:
                self._wrong(
                    where, f"{label}: the {word} hook takes self and the call.", "def hook(self, call: Call[...])"
                )
        return hooks[0] if hooks else None

    # ---- events, sensors, timers

    def _on(self, name: str, member: Any, on: object) -> EventHandler | SensorHandler | None:
        label = f"{self._cls.__name__}.{name}"
        if not inspect.isfunction(member):
            self._wrong(source.of_class(self._cls), f"{label}: @on stands above no function.", "put it above a def")
            return None
        here = source.of_function(member)
        if isinstance(on, Sensor):
            expected: Any = Sample[on.value_type]  # type: ignore[name-defined]
            if on.name not in {name for name, value in self._members() if value is on}:
                self._wrong(here, f"{label} listens to a sensor of another role.", "declare it here: mic = sensor(...)")
        elif isinstance(on, type) and issubclass(on, Event) and on is not Event:
            expected = on
            try:
                if on.travels:
                    event_schema(on)
            except UnsupportedTypeError as error:
                self._wrong_type(error, on)
            except ConfigurationError as error:
                self._wrong(source.of_class(on), f"{error}.", error.next_step or "")
        else:
            self._wrong(
                here, f"{label}: @on({type_text(on)}) is neither an event class nor a sensor.", "class X(Event)"
            )
            return None
        before = len(self.mistakes)
        parameters = self._parameters(member, label, here, "@on", f"value: {type_text(expected)}", known=on)
        if parameters is None:
            return None
        hints, names = parameters
        wanted = _sample_text(expected)
        if not names:
            self._wrong(here, f"{label} takes nothing, but @on gives it a {wanted}.", f"def {name}(self, it: {wanted})")
        elif names[0] in hints and not _accepts(hints[names[0]], expected):
            self._wrong(
                here,
                f'{label}: parameter "{names[0]}" has type {_sample_text(hints[names[0]])}, '
                f"but @on gives it a {wanted}.",
                f"{names[0]}: {wanted}",
            )
        takes = self._context(label, names, hints, here, Context)
        if len(self.mistakes) > before:
            return None
        shared: dict[str, Any] = {
            "method": name,
            "function": member,
            "takes_context": takes is not None,
            "label": label,
        }
        return SensorHandler(sensor=on, **shared) if isinstance(on, Sensor) else EventHandler(event=on, **shared)

    def _every(self, name: str, member: Any, mark: EveryMark) -> Timer | None:
        label = f"{self._cls.__name__}.{name}"
        if not inspect.isfunction(member):
            self._wrong(source.of_class(self._cls), f"{label}: @every stands above no function.", "put it above a def")
            return None
        here = source.of_function(member)
        if not (isinstance(mark.period_s, int | float) and math.isfinite(mark.period_s) and mark.period_s > 0):
            self._wrong(here, f"{label}: @every({mark.period_s!r}).", "give seconds, more than 0")
            return None
        before = len(self.mistakes)
        parameters = self._parameters(member, label, here, "@every", "ctx: Context")
        if parameters is None:
            return None
        hints, names = parameters
        takes = self._context(label, ["", *names], hints, here, Context)
        if len(self.mistakes) > before:
            return None
        return Timer(
            period_s=float(mark.period_s), method=name, function=member, takes_context=takes is not None, label=label
        )

    # ---- shared

    def _parameters(
        self, function: Any, label: str, here: tuple[str, int], decorator: str, wanted: str, known: object = None
    ) -> tuple[dict[str, Any], list[str]] | None:
        """Resolved annotations and the names of the parameters after self; None when they cannot be known."""
        names = {self._cls.__name__: self._cls}
        if isinstance(known, type):
            names[known.__name__] = known  # the decorator has it, wherever it was defined
        try:
            hints = typing.get_type_hints(function, localns=names)
        except (NameError, TypeError, AttributeError, SyntaxError) as error:
            name = getattr(error, "name", None)
            self._wrong(
                here,
                f"{label}: {f'the name {name} in its annotations is not known' if name else error}.",
                f"import {name} at the top level (not under TYPE_CHECKING)" if name else "correct the annotation",
            )
            return None
        parameters = list(inspect.signature(function).parameters.values())[1:]
        odd = [p.name for p in parameters if p.kind not in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        if odd or len(parameters) > 2:
            self._wrong(here, f"{label}: {decorator} methods take self, what they handle, and ctx.", wanted)
            return None
        return hints, [parameter.name for parameter in parameters]

    def _context(
        self, label: str, names: list[str], hints: dict[str, Any], here: tuple[str, int], most: type[Context]
    ) -> type[Context] | None:
        """Which context the second parameter names; a mistake when it is another type or none."""
        if len(names) < 2:
            return None
        name = names[1]
        kind: Any = hints.get(name)
        if kind is Context or (kind is TaskContext and most is TaskContext):
            return kind
        if kind is TaskContext:
            self._wrong(
                here,
                f"{label} handles news, which have no contract: it cannot have a TaskContext.",
                f"{name}: Context, and submit a task for what needs one",
            )
        elif name not in hints:
            self._wrong(here, f'{label}: parameter "{name}" has no type.', f"{name}: {most.__name__}")
        else:
            self._wrong(
                here,
                f'{label}: parameter "{name}" has type {type_text(kind)}.',
                f"{name}: {most.__name__}, or leave it away",
            )
        return None

    def _wrong_type(self, error: UnsupportedTypeError, fallback: type) -> None:
        owner = error.owner or fallback
        self._wrong(source.of_class(owner, error.field), f"{error}.", error.next_step or "")

    def _wrong(self, here: tuple[str, int], message: str, next_step: str) -> None:
        mistake = Mistake(here[0], here[1], message if message.endswith(".") else f"{message}.", next_step)
        if mistake not in self.mistakes:
            self.mistakes.append(mistake)


def _fits(returned: Any, promised: Any) -> bool:
    if returned is None:
        returned = type(None)
    if promised is None:
        promised = type(None)
    if returned == promised:
        return True
    if isinstance(returned, types.UnionType) or typing.get_origin(returned) is typing.Union:
        return all(_fits(part, promised) for part in typing.get_args(returned))
    parts = typing.get_args(promised) if typing.get_origin(promised) in (typing.Union, types.UnionType) else ()
    return returned is typing.NoReturn or any(_fits(returned, part) for part in parts)


def _accepts(declared: Any, given: Any) -> bool:
    """Whether a parameter of the declared type takes what `@on` gives."""
    if declared == given or (declared is Sample and typing.get_origin(given) is Sample):
        return True
    return isinstance(declared, type) and isinstance(given, type) and issubclass(given, declared)


def _sample_text(kind: Any) -> str:
    if typing.get_origin(kind) is Sample:
        return f"Sample[{typing.get_args(kind)[0].__name__}]"
    return kind.__name__ if isinstance(kind, type) else type_text(kind)


def _article(word: str) -> str:
    return word if not word[:1].isupper() or word == "None" else f"{'an' if word[0] in 'AEIO' else 'a'} {word}"
