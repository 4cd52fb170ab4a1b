"""Drivers: what stands behind a role's sensor or actuator on one device, chosen by its configuration.

`[sensors.probe] driver = "waveform_file"` names one of ours, `driver = "vendor_probe:Probe"` a class of a module that
is installed there. A driver is made, opened, used and closed by the node; it learns time, place and map from
`Surroundings` and never from the system, so that the same driver runs in virtual time.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

from meshagent.errors import ConfigurationError, MeshAgentError
from meshagent.sdk.errors import SchemaError
from meshagent.sdk.names import near
from meshagent.sdk.place import Place
from meshagent.sdk.schema import schema_of
from meshagent.sdk.sensing import Actuator, Sensor
from meshagent.sdk.sensing import SensorEndedError as SensorEndedError

T_co = TypeVar("T_co", covariant=True)
O = TypeVar("O")  # noqa: E741 - options

Point = tuple[float, float]

BUILT_IN: Final[Mapping[str, str]] = {
    "simulated_legs": "meshagent.devices.legs:SimulatedLegs",
    "synthetic_vibration": "meshagent.devices.vibration:SyntheticVibration",
    "waveform_file": "meshagent.devices.vibration:WaveformFileSensor",
}


class DeviceStoppedError(MeshAgentError):
    """The device was stopped in the middle of what it did."""


class Surroundings(Protocol):
    """What the node tells its drivers."""

    @property
    def rng(self) -> Random:
        """Seeded by the node; a driver of its own in each node."""

    def now_s(self) -> float:
        """The node's monotonic clock. Wait with `asyncio.sleep`."""

    def position_m(self) -> Point:
        """Where this device is, in the map frame."""

    def moved_to(self, position_m: Point) -> None:
        """Tell the node where this device is now."""

    def locate(self, place: Place) -> Point | None:
        """Where a site or pose is; None: not on this device's map."""

    def way(self, start_m: Point, goal_m: Point) -> Sequence[Point]:
        """Corners from start to goal, both included; empty: there is no way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverSetup:
    """What a driver is made with."""

    name: str
    """Of the attribute in the role, `probe`."""
    surroundings: Surroundings
    options: Mapping[str, object] = field(default_factory=dict)
    """The table `options` of the configuration, checked against the driver's own dataclass."""
    window_s: float | None = None
    """What the role asked for with `sensor(..., window_s=)`."""


@dataclass(frozen=True)
class NoOptions:
    """Of a driver that takes none."""


class Driver(Generic[O]):
    """Base of drivers. `options_type` is a dataclass; unknown keys and wrong values are errors at start."""

    options_type: ClassVar[type] = NoOptions

    def __init__(self, setup: DriverSetup) -> None:
        self.setup = setup
        try:
            self.options: O = schema_of(self.options_type).from_plain(dict(setup.options))
        except SchemaError as error:
            problems = "; ".join(
                f"options{str(problem).removeprefix(self.options_type.__name__)}" for problem in error.problems
            )
            has = schema_of(self.options_type).converter
            names = ", ".join(getattr(has, "fields", {})) or "none"
            raise ConfigurationError(
                f"{setup.name}: {problems}", next_step=f"options of this driver: {names}"
            ) from error

    async def open(self) -> None:
        """Acquire the hardware. Called once, before the role is used."""

    async def close(self) -> None:
        """Release it. Called once, also after a failed `open`."""


class SensorDriver(Driver[O], Generic[O, T_co]):
    """Gives readings of `value_type`."""

    value_type: ClassVar[type] = object

    async def read(self) -> T_co:
        """One reading that begins now.

        Raises:
            SensorEndedError: there will be no more.
        """
        raise NotImplementedError


class ActuatorDriver(Driver[O]):
    """Moves something. Public methods are called under a lease, `stop` at any time.

    `stop` is called on the node's loop: when the lease is about to end, when a newer epoch is heard, and after every
    use. It returns at once, may be called twice, and leaves the device safe. A driver may have `pull_stop_line()`
    besides: called from a thread when `stop` has not returned in time, it cuts the power and touches nothing of the
    loop. A node may also be killed without a word: the device's own controller must stop when it hears nothing for the
    lease's length.
    """

    def stop(self) -> None:
        """Be safe now."""
        raise NotImplementedError


def open_driver(declared: Sensor[Any] | Actuator[Any], driver: str, setup: DriverSetup) -> Driver[Any]:
    """The driver named `driver` for a declared sensor or actuator, made but not opened.

    Raises:
        ConfigurationError: no such driver, it gives another type, or its options are wrong.
    """
    cls = find_driver(driver)
    if isinstance(declared, Sensor):
        if not issubclass(cls, SensorDriver):
            raise _unfit(setup.name, driver, "is no sensor")
        if not issubclass(cls.value_type, declared.value_type):
            raise _unfit(
                setup.name, driver, f"gives {cls.value_type.__name__}, the role wants {declared.value_type.__name__}"
            )
    elif not (issubclass(cls, ActuatorDriver) and issubclass(cls, declared.device_type)):
        raise _unfit(setup.name, driver, f"is no {declared.device_type.__name__}")
    return cls(setup)


def find_driver(name: str) -> type[Driver[Any]]:
    """The class behind a driver's name or `module:Class`.

    Raises:
        ConfigurationError: there is none.
    """
    module, colon, attribute = BUILT_IN.get(name, name).partition(":")
    if not colon:
        meant = near(name, BUILT_IN)
        raise ConfigurationError(
            f"no driver is called {name}",
            next_step=f'driver = "{meant or "module:Class"}"; ours are {", ".join(BUILT_IN)}',
        )
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError as error:
        raise ConfigurationError(
            f"driver {name}: {error}", next_step=f"install what holds {module} in this environment"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Driver)):
        raise ConfigurationError(
            f"driver {name} is no driver", next_step=f"in {module}: class {attribute}(SensorDriver) or (ActuatorDriver)"
        )
    return found


def simulated_driver(declared: Sensor[Any] | Actuator[Any]) -> str | None:
    """The driver that stands in where a device has no hardware (`--dev`, simulation); None: we have none."""
    wanted = declared.value_type if isinstance(declared, Sensor) else declared.device_type
    for name in ("synthetic_vibration", "simulated_legs"):
        cls = find_driver(name)
        gives = cls.value_type if issubclass(cls, SensorDriver) else cls
        if issubclass(cls, SensorDriver) == isinstance(declared, Sensor) and issubclass(gives, wanted):
            return name
    return None


def _unfit(attribute: str, driver: str, why: str) -> ConfigurationError:
    return ConfigurationError(f"{attribute}: driver {driver} {why}", next_step=f"name another driver for {attribute}")
