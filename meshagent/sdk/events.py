"""Events are news: they may be lost, nobody answers. What must happen is a task.

A role declares its own as frozen dataclasses, `class Rattle(Event)`; the mesh tells `PeerJoined`, `PeerLost` and
`BatteryLow` in the same way, and those never travel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeVar

from meshagent.sdk.errors import DeclarationError
from meshagent.sdk.names import default_name, is_name
from meshagent.sdk.schema import Schema, schema_of

if TYPE_CHECKING:
    from meshagent.sdk.backend import PeerInfo

E = TypeVar("E", bound="Event")


class Event:
    """Base of all news. The name on the wire is module stem and class, `pump.Rattle`, or the keyword `name`."""

    event_name: ClassVar[str] = ""
    travels: ClassVar[bool] = True

    def __init_subclass__(cls, *, name: str | None = None, travels: bool | None = None) -> None:
        super().__init_subclass__()
        # @dataclass(slots=True) builds the class a second time without the keywords: keep what the first one said
        if name is not None or "event_name" not in cls.__dict__:
            cls.event_name = name or default_name(cls)
        if travels is not None:
            cls.travels = travels


def event_schema(event: type[E]) -> Schema[E]:
    """How `event` travels.

    Raises:
        DeclarationError: no dataclass, or a name that is none.
        UnsupportedTypeError: a field cannot travel.
    """
    name = event.__name__
    if "__dataclass_fields__" not in event.__dict__:
        raise DeclarationError(f"{name} is no dataclass", next_step=f"put @dataclass(frozen=True) above class {name}")
    if not is_name(event.event_name):
        raise DeclarationError(
            f"{name} is called {event.event_name!r} on the wire, which is no name",
            next_step=f'words of a-z, 0-9 and _, joined by dots: class {name}(Event, name="pump.rattle.v1")',
        )
    return schema_of(event)


@dataclass(frozen=True)
class PeerJoined(Event, name="mesh.PeerJoined", travels=False):
    """A peer is linked and has said what it offers."""

    peer: PeerInfo


@dataclass(frozen=True)
class PeerLost(Event, name="mesh.PeerLost", travels=False):
    """No way to a peer any more; it may come back, and then is fenced from what it did before."""

    peer: PeerInfo
    why: str = ""


@dataclass(frozen=True)
class BatteryLow(Event, name="mesh.BatteryLow", travels=False):
    """This device's battery fell below its reserve: it takes no new contracts."""

    soc: float
    """State of charge, 0 to 1."""
