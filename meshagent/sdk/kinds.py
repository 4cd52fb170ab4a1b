"""Kinds of task: `class X(Task[Result])`, a frozen dataclass whose fields are the specification.

The class keywords are the contract's terms and no fields. A `KindSpec` is what the node works with: name, terms,
schemas of specification and result. Roles meet at kinds, never at each other's classes.
"""

from __future__ import annotations

import dataclasses
import threading
import weakref
from typing import Any, ClassVar, Final, Generic, Literal, TypeVar, get_args, get_origin

from meshagent.core.acts import MAX_RESULT_BYTES, MAX_SPEC_BYTES, TaskRecord
from meshagent.errors import ConfigurationError
from meshagent.sdk.codecs import Record
from meshagent.sdk.errors import DeclarationError
from meshagent.sdk.names import default_name, is_name
from meshagent.sdk.outline import MAX_OUTLINE_CHARS, Outline, OutlineError, OutlineField
from meshagent.sdk.place import Place
from meshagent.sdk.requires import Requires
from meshagent.sdk.schema import Schema, schema_of, type_text
from meshagent.types import Delivery, InDoubt

R_co = TypeVar("R_co", covariant=True)

DeliveryWord = Literal["at_most_once", "at_least_once"]
InDoubtWord = Literal["wait", "majority"]

_TERMS: Final = "__meshagent_terms__"


@dataclasses.dataclass(frozen=True, slots=True)
class Terms:
    """The keywords of a kind's class statement, as written."""

    kind: str | None = None
    delivery: str | None = None
    in_doubt: str | None = None
    requires: Requires | None = None
    approval: bool = False


class Task(Generic[R_co]):
    """Base of all kinds of task; `R_co` is the type of the result.

    Keywords of the class statement:
        kind: name on the wire; default module stem and class, `night.Survey`. Roles of two programs that should
            meet give it, with a version: `pump.check.v1`.
        delivery: `at_most_once` (default: what nobody thought about must not be done twice) or `at_least_once`.
        in_doubt: what an at_most_once task does while its asker is out of reach: `majority` (default) or `wait`.
        requires: needed from any device that performs it, beside what the role requires.
        approval: a person must say yes before it is awarded.
    """

    __meshagent_terms__: ClassVar[Terms] = Terms()

    def __init_subclass__(
        cls,
        *,
        kind: str | None = None,
        delivery: Delivery | DeliveryWord | None = None,
        in_doubt: InDoubt | InDoubtWord | None = None,
        requires: Requires | None = None,
        approval: bool = False,
    ) -> None:
        super().__init_subclass__()
        given = Terms(kind, delivery, in_doubt, requires, approval)
        # @dataclass(slots=True) builds the class again and calls this without keywords; what the first class was
        # given stands in the new one's own __dict__ and must win, else at_least_once silently becomes the default.
        if given != Terms() or _TERMS not in cls.__dict__:
            cls.__meshagent_terms__ = given

    def place(self) -> Place | None:
        """Where it is done; None: anywhere. The default bid adds the way there to `duration_s()`."""
        return None

    def duration_s(self) -> float:
        """Seconds of work on the spot, as far as the specification tells."""
        return 0.0


K = TypeVar("K", bound="Task[Any]")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class KindSpec(Generic[K]):
    """A compiled kind."""

    name: str
    cls: type[K]
    spec: Schema[K]
    result: Schema[Any]
    result_type: Any
    delivery: Delivery
    in_doubt: InDoubt
    requires: Requires
    approval: bool

    def encode(self, task: K) -> bytes:
        """The specification as it travels.

        Raises:
            SchemaError: a field holds what its type forbids, or it is too large.
        """
        return self.spec.encode(task, max_bytes=MAX_SPEC_BYTES)

    def decode(self, data: bytes) -> K:
        """The task behind `data`.

        Raises:
            SchemaError: it is none; names every field that is wrong.
        """
        return self.spec.decode(data, max_bytes=MAX_SPEC_BYTES)

    def encode_result(self, result: object) -> bytes:
        """What the handler returned, as it travels.

        Raises:
            SchemaError: it is not what the kind promises.
        """
        return self.result.encode(result, max_bytes=MAX_RESULT_BYTES)

    def decode_result(self, data: bytes) -> Any:
        """The result behind `data`.

        Raises:
            SchemaError: it is not what the kind promises.
        """
        return self.result.decode(data, max_bytes=MAX_RESULT_BYTES)

    def terms_differ(self, record: TaskRecord) -> str | None:
        """How a record's terms differ from this kind's; None: they agree. Asked by whoever is to perform it.

        The asker writes the terms into the record. A performer that takes them on trust would repeat an
        at_most_once task because a stranger said that this is harmless.
        """
        for name, mine, theirs in (
            ("delivery", self.delivery, record.delivery),
            ("in_doubt", self.in_doubt, record.in_doubt),
            ("approval", self.approval, record.approval),
        ):
            if mine != theirs:
                return f"asked with {name}={_plain(theirs)}, {self.cls.__name__} has {name}={_plain(mine)} here"
        return None

    def outline(self) -> Outline:
        """What strangers need to ask for it: fields, result and terms, without the class."""
        record = self.spec.converter
        assert isinstance(record, Record)  # kind_of has checked that it is a dataclass
        defaults = {field.name: field.default for field in dataclasses.fields(record.type)}
        return Outline(
            kind=self.name,
            name=self.cls.__name__,
            fields=tuple(
                OutlineField(name, converter.text, name in record.optional, _default_text(defaults[name]))
                for name, converter in record.fields.items()
            ),
            result=self.result.text,
            delivery=self.delivery,
            in_doubt=self.in_doubt,
            approval=self.approval,
        )

    def describe(self) -> str:
        """`CheckContact(site: str, suspected: str) -> Finding [at_least_once]`; read back by `Outline.parse`."""
        return self.outline().text()


def _plain(term: object) -> str:
    return str(term).lower() if isinstance(term, bool) else str(term)


def _default_text(default: object) -> str:
    if default is None:
        return "null"
    if isinstance(default, bool):  # before numbers: 1.0 == True
        return "true" if default else "false"
    if type(default) in (int, float):
        return repr(default)
    if isinstance(default, str) and default.isprintable() and len(default) <= 40 and not set(default) & set('"\\'):
        return f'"{default}"'
    return "..."


_compiling = threading.RLock()
_by_name: weakref.WeakValueDictionary[str, type] = weakref.WeakValueDictionary()
_SPEC: Final = "__meshagent_kind__"


def kind_of(cls: type[K]) -> KindSpec[K]:
    """The compiled kind of a task class; compiled and registered the first time.

    Raises:
        DeclarationError: not a concrete kind, a bad keyword, or a name that another class has.
        UnsupportedTypeError: a field or the result cannot travel.
    """
    known: KindSpec[K] | None = cls.__dict__.get(_SPEC) if isinstance(cls, type) else None
    if known is not None:
        return known
    with _compiling:  # a role may be compiled in a thread while the loop submits
        spec = _compile(cls)
        _register(spec)
        setattr(cls, _SPEC, spec)  # on the class, so that both are collected together
        return spec


def kind_named(name: str) -> KindSpec[Any] | None:
    """The kind of this process that is called `name` on the wire, or whose class is; None: no class was loaded."""
    cls = _by_name.get(name)
    if cls is None:
        found = [cls for cls in list(_by_name.values()) if cls.__name__ == name]
        cls = found[0] if len(found) == 1 else None
    return kind_of(cls) if cls is not None else None


def _register(spec: KindSpec[Any]) -> None:
    former = _by_name.get(spec.name)
    if former is not None and not _same_place(former, spec.cls):
        raise DeclarationError(
            f"{_where(spec.cls)} and {_where(former)} are both the kind {spec.name}",
            next_step=f'give one of them a name of its own: class {spec.cls.__name__}(Task[...], kind="...")',
        )
    _by_name[spec.name] = spec.cls


def _same_place(one: type, two: type) -> bool:
    """A reloaded module takes the place of its former self, and a class made inside a function that of any other."""
    if "<locals>" in one.__qualname__:
        return one.__module__ == two.__module__
    return one is two or (one.__module__ == two.__module__ and one.__qualname__ == two.__qualname__)


def _where(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _compile(cls: type[K]) -> KindSpec[K]:
    if not (isinstance(cls, type) and issubclass(cls, Task)) or cls is Task:
        raise DeclarationError(f"{type_text(cls)} is no kind of task", next_step="class X(Task[Result])")
    name = cls.__name__
    result = result_type_of(cls)
    if "__dataclass_fields__" not in cls.__dict__:
        raise DeclarationError(f"{name} is no dataclass", next_step=f"put @dataclass(frozen=True) above class {name}")
    if not cls.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise DeclarationError(
            f"{name} is not frozen, but a task is a promise that nobody may change",
            next_step=f"put @dataclass(frozen=True) above class {name}",
        )
    for base in cls.__mro__[1:]:
        if issubclass(base, Task) and "__dataclass_fields__" in base.__dict__:
            raise DeclarationError(
                f"{name} inherits from the kind {base.__name__}; kinds are not inherited",
                next_step=f"share the fields in a plain dataclass and write class {name}(Fields, Task[...])",
            )
    terms: Terms = cls.__meshagent_terms__ if _TERMS in cls.__dict__ else Terms()
    kind = terms.kind if terms.kind is not None else default_name(cls)
    if not is_name(kind):
        raise DeclarationError(
            f"{name} is called {kind!r} on the wire, which is no name",
            next_step=f'words of a-z, 0-9 and _, joined by dots: class {name}(Task[...], kind="pump.check.v1")',
        )
    try:
        result_schema: Schema[Any] = schema_of(result)
    except ConfigurationError as error:
        if getattr(error, "owner", None) is not None:
            raise
        raise DeclarationError(f"the result of {name} {error}", next_step=error.next_step) from None
    spec = KindSpec(
        name=kind,
        cls=cls,
        spec=schema_of(cls),
        result=result_schema,
        result_type=result,
        delivery=_word(name, "delivery", terms.delivery or Delivery.AT_MOST_ONCE, Delivery),
        in_doubt=_word(name, "in_doubt", terms.in_doubt or InDoubt.MAJORITY, InDoubt),
        requires=terms.requires or Requires(),
        approval=terms.approval,
    )
    try:
        readable = Outline.parse(kind, spec.describe()) == spec.outline()
    except OutlineError:
        readable = False
    if not readable:
        raise DeclarationError(
            f"{name} cannot be described in one line that others read back (at most {MAX_OUTLINE_CHARS} characters)",
            next_step="group its fields into a dataclass, and use plain words as choices",
        )
    return spec


W = TypeVar("W", Delivery, InDoubt)


def _word(name: str, keyword: str, word: str, words: type[W]) -> W:
    try:
        return words(word)
    except ValueError:
        raise DeclarationError(
            f"{name} has {keyword}={word!r}", next_step=f"{keyword}=" + " or ".join(f'"{known}"' for known in words)
        ) from None


def result_type_of(cls: type) -> Any:
    """The `Result` of `class cls(Task[Result])`, found through generic bases between.

    Raises:
        DeclarationError: none is named.
    """
    found = _argument_of_task(cls)
    if found is None or isinstance(found, TypeVar):
        raise DeclarationError(
            f"{cls.__name__} does not say what it results in", next_step=f"class {cls.__name__}(Task[Result])"
        )
    if isinstance(found, str) or getattr(found, "__forward_arg__", None):
        text = found if isinstance(found, str) else found.__forward_arg__
        raise DeclarationError(
            f'{cls.__name__} is a Task["{text}"], and quoted results cannot be looked up',
            next_step=f"define {text} above {cls.__name__} and write Task[{text}]",
        )
    return found


def _argument_of_task(cls: type) -> Any:
    for base in cls.__dict__.get("__orig_bases__", ()):
        origin = get_origin(base)
        if origin is Task:
            return get_args(base)[0]
        if isinstance(origin, type) and issubclass(origin, Task):
            inner = _argument_of_task(origin)
            given = dict(zip(getattr(origin, "__parameters__", ()), get_args(base), strict=False))
            if isinstance(inner, TypeVar):
                return given.get(inner, inner)
            names = getattr(inner, "__parameters__", ())
            return inner[tuple(given.get(name, name) for name in names)] if names else inner
    for parent in cls.__bases__:
        if issubclass(parent, Task) and parent is not Task:
            return _argument_of_task(parent)
    return None
