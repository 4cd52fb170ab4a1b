"""The devices behind the attributes of roles: which driver, where the body is, and how long it may take to stop.

The bay is a port. A robot opens drivers by its configuration; the simulator and tests may put their own behind it. One
driver serves all roles of a node that name the same attribute: a body has one pair of legs.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, Protocol

from meshagent.core.travel import Point, Travel, Way
from meshagent.devices.drivers import Driver, DriverSetup, open_driver, simulated_driver
from meshagent.runtime.supervise import Raised, attempt, attempt_async
from meshagent.sdk.place import Place, Site
from meshagent.sdk.sensing import Actuator, Sensor

DEFAULT_STOP_TIMEOUT_S: Final = 0.2
"""SURFACE 6: stop() at the loss of a lease must have returned by then."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceChoice:
    """`[sensors.NAME]` or `[actuators.NAME]` of the configuration."""

    driver: str
    options: Mapping[str, object] = field(default_factory=dict)
    stop_timeout_s: float = DEFAULT_STOP_TIMEOUT_S


class DeviceBay(Protocol):
    """What a node asks of whoever keeps its devices."""

    def reader(self, sensor: Sensor[Any]) -> Any | None:
        """The driver of a declared sensor, with `async read()`; None: samples are only fed by hand.

        Raises:
            ConfigurationError: the driver does not exist or does not fit.
        """

    def actuator(self, actuator: Actuator[Any]) -> Any | None:
        """The driver of a declared actuator, with `stop()`; None: this device has none.

        Raises:
            ConfigurationError: the driver does not exist or does not fit.
        """

    def stop_timeout_s(self, name: str) -> float:
        """How long `stop()` of that actuator may take."""

    async def open(self) -> None:
        """Acquire what was asked for."""

    async def close(self) -> None:
        """Release everything."""


class BodyState:
    """Where the body is: `Surroundings` of its drivers, `Whereabouts` of the bidder."""

    def __init__(self, travel: Travel, position_m: Point, now_s: Callable[[], float], rng: Random) -> None:
        self._travel = travel
        self._position_m = position_m
        self._now_s = now_s
        self.rng = rng
        self.moves = 0
        """How often a driver said where it is: zero means that nobody measures."""

    def now_s(self) -> float:
        return self._now_s()

    def position_m(self) -> Point:
        return self._position_m

    def moved_to(self, position_m: Point) -> None:
        self.moves += 1
        self._position_m = position_m

    def arrived(self, position_m: Point) -> None:
        """Work was done there, so the body is there, as far as anybody knows."""
        self._position_m = position_m

    def locate(self, place: Place) -> Point | None:
        if isinstance(place, Site):
            return self._travel.site_map.locate(place.name)
        return (place.x_m, place.y_m)

    def way(self, start_m: Point, goal_m: Point) -> Sequence[Point]:
        found = self._travel.way(start_m, goal_m)
        return found.corners if isinstance(found, Way) else ()


class ConfiguredBay:
    """Drivers by the device's file; with `simulate`, stand-ins for what the file does not name."""

    def __init__(
        self,
        state: BodyState,
        sensors: Mapping[str, DeviceChoice],
        actuators: Mapping[str, DeviceChoice],
        *,
        simulate: bool = False,
        watch_stops: bool = True,
    ) -> None:
        self._state = state
        self._sensors = sensors
        self._actuators = actuators
        self._simulate = simulate
        self._watch_stops = watch_stops
        self._drivers: dict[tuple[str, str], Driver[Any]] = {}
        self._opened: list[Driver[Any]] = []

    def reader(self, sensor: Sensor[Any]) -> Any | None:
        return self._driver("sensor", sensor, self._sensors.get(sensor.name), sensor.window_s)

    def actuator(self, actuator: Actuator[Any]) -> Any | None:
        driver = self._driver("actuator", actuator, self._actuators.get(actuator.name), None)
        if driver is None or not self._watch_stops:
            return driver
        return BoundedStop(driver, actuator.name, self.stop_timeout_s(actuator.name))

    def stop_timeout_s(self, name: str) -> float:
        choice = self._actuators.get(name)
        return choice.stop_timeout_s if choice is not None else DEFAULT_STOP_TIMEOUT_S

    async def open(self) -> None:
        for driver in self._drivers.values():
            self._opened.append(driver)  # also when open fails half-way: close releases what it got
            await driver.open()

    async def close(self) -> None:
        opened, self._opened = self._opened, []
        for driver in reversed(opened):
            ended = await attempt_async(driver.close())
            if isinstance(ended, Raised):
                log.warning("closing the driver of %s failed: %s", driver.setup.name, ended.sentence)

    def _driver(
        self, word: str, declared: Sensor[Any] | Actuator[Any], choice: DeviceChoice | None, window_s: float | None
    ) -> Driver[Any] | None:
        known = self._drivers.get((word, declared.name))
        if known is not None:
            return known
        if choice is None:
            name = simulated_driver(declared) if self._simulate else None
            if name is None:
                return None
            choice = DeviceChoice(driver=name)
        setup = DriverSetup(name=declared.name, surroundings=self._state, options=choice.options, window_s=window_s)
        driver = self._drivers[word, declared.name] = open_driver(declared, choice.driver, setup)
        return driver


class BoundedStop:
    """A driver whose `stop()` is watched from beside the loop.

    `stop()` runs where the driver's other methods run, on the loop. When it has not returned after its time, or
    raised, `pull_stop_line()` of the driver is called from a thread (the line that cuts the power of a motor
    controller; it must touch nothing of the loop), and the log says so.
    """

    def __init__(self, device: Any, name: str, timeout_s: float) -> None:
        object.__setattr__(self, "_device", device)
        object.__setattr__(self, "_name", name)
        object.__setattr__(self, "_timeout_s", timeout_s)

    def stop(self) -> None:
        """Stopped, or cut, when this returns."""
        late = threading.Timer(self._timeout_s, self._pull, (f"did not return within {self._timeout_s:g} s",))
        late.daemon = True
        late.start()
        ended = attempt(self._device.stop)
        late.cancel()
        if isinstance(ended, Raised):
            self._pull(f"raised {ended.sentence}")

    def _pull(self, why: str) -> None:
        line: Callable[[], None] | None = getattr(self._device, "pull_stop_line", None)
        if line is None:
            log.error("stop() of %s %s, and its driver has no stop line; check the device", self._name, why)
            return
        log.error("stop() of %s %s; its stop line is pulled", self._name, why)
        pulled = attempt(line)
        if isinstance(pulled, Raised):
            log.error("the stop line of %s failed (%s); check the device", self._name, pulled.sentence)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._device, name, value)

    @property
    def __class__(self) -> type:
        """The driver's own class, so that `isinstance` means what it says."""
        device: object = object.__getattribute__(self, "_device")
        return type(device)

    @__class__.setter
    def __class__(self, value: type) -> None:
        raise AttributeError("a device keeps its class")
