"""Drivers are found, shared, bounded when they stop, and closed; supervision keeps loops alive with growing pauses."""

from __future__ import annotations

import asyncio
import itertools
import threading
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar

import pytest

from meshagent.core.travel import SiteMap, Travel
from meshagent.devices import ActuatorDriver, Legs, SensorDriver, Waveform
from meshagent.errors import ConfigurationError
from meshagent.runtime.bay import BodyState, BoundedStop, ConfiguredBay, DeviceChoice
from meshagent.runtime.supervise import FIRST_PAUSE_S, LONGEST_PAUSE_S, Raised, attempt, cut, sentence_of, supervise
from meshagent.sdk.place import Pose, Site
from meshagent.sdk.role import Role
from meshagent.sdk.sensing import actuator, sensor
from meshagent.virtual.loop import VirtualLoop

HERE = "tests.unit.runtime.test_bay"
CLOSED: list[str] = []


class Dog(Role):
    legs = actuator(Legs)
    probe = sensor(Waveform, window_s=0.5)


class BadLegs(Legs):
    async def open(self) -> None:
        raise OSError("no bus")

    async def close(self) -> None:
        CLOSED.append(self.setup.name)


class Thermometer(SensorDriver[Any, float]):
    value_type: ClassVar[type] = float


def state() -> BodyState:
    travel = Travel(SiteMap(sites={"pump-7": (3.0, 4.0)}))
    return BodyState(travel, (0.0, 0.0), lambda: 0.0, Random(1))


def bay(**choices: Any) -> ConfiguredBay:
    return ConfiguredBay(state(), choices.get("sensors", {}), choices.get("actuators", {}), **choices.get("more", {}))


def test_two_roles_that_name_one_device_share_its_driver() -> None:
    found = bay(actuators={"legs": DeviceChoice(driver="simulated_legs")}, more={"watch_stops": False})
    assert found.actuator(Dog.legs) is found.actuator(Dog.legs)


def test_a_device_that_nobody_configured_is_none_or_simulated() -> None:
    assert bay().actuator(Dog.legs) is None
    assert bay().reader(Dog.probe) is None
    simulated = bay(more={"simulate": True})
    assert isinstance(simulated.actuator(Dog.legs), Legs)
    assert simulated.reader(Dog.probe) is not None


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"actuators": {"legs": DeviceChoice(driver="simulated_lags")}}, "no driver is called simulated_lags"),
        ({"actuators": {"legs": DeviceChoice(driver="no_such_module:Legs")}}, "no_such_module"),
        ({"actuators": {"legs": DeviceChoice(driver=f"{HERE}:Thermometer")}}, "is no Legs"),
        ({"actuators": {"legs": DeviceChoice(driver="simulated_legs", options={"sped": 1.0})}}, "sped"),
    ],
)
def test_a_driver_that_does_not_fit_is_said_at_start(choices: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        bay(**choices).actuator(Dog.legs)


def test_a_driver_that_fails_to_open_is_still_closed() -> None:
    async def scenario() -> None:
        CLOSED.clear()
        found = bay(actuators={"legs": DeviceChoice(driver=f"{HERE}:BadLegs")})
        found.actuator(Dog.legs)
        with pytest.raises(OSError, match="no bus"):
            await found.open()
        await found.close()
        assert CLOSED == ["legs"]

    asyncio.run(scenario())


def test_the_body_knows_where_places_are_and_how_to_get_there() -> None:
    body = state()
    assert body.locate(Site("pump-7")) == (3.0, 4.0)
    assert body.locate(Pose(1.0, 2.0)) == (1.0, 2.0)
    assert list(body.way((0.0, 0.0), (3.0, 4.0))) == [(0.0, 0.0), (3.0, 4.0)]
    body.moved_to((1.0, 1.0))
    assert (body.position_m(), body.moves) == ((1.0, 1.0), 1)


# ---- a stop that hangs


@dataclass
class Motor:
    hang: threading.Event | None = None
    error: Exception | None = None
    stopped: bool = False
    cut: threading.Event | None = None
    speed: float = 1.0

    def stop(self) -> None:
        if self.error is not None:
            raise self.error
        if self.hang is not None:
            assert self.hang.wait(10)
        self.stopped = True

    def pull_stop_line(self) -> None:
        assert self.cut is not None
        self.cut.set()
        if self.hang is not None:
            self.hang.set()


def bounded(motor: Motor, timeout_s: float = 0.05) -> Any:
    return BoundedStop(motor, "arm", timeout_s)


def test_a_stop_that_hangs_has_its_line_pulled(caplog: pytest.LogCaptureFixture) -> None:
    motor = Motor(hang=threading.Event(), cut=threading.Event())
    bounded(motor).stop()
    assert motor.cut is not None
    assert motor.cut.is_set()
    assert "stop() of arm did not return within 0.05 s; its stop line is pulled" in caplog.text


def test_a_stop_that_raises_has_its_line_pulled() -> None:
    motor = Motor(error=OSError("bus off"), cut=threading.Event())
    bounded(motor).stop()
    assert motor.cut is not None
    assert motor.cut.is_set()


def test_a_stop_that_works_is_left_alone() -> None:
    motor = Motor(cut=threading.Event())
    bounded(motor, timeout_s=0.02).stop()
    assert motor.stopped
    assert motor.cut is not None
    assert not motor.cut.wait(0.06)


def test_a_driver_without_a_stop_line_is_told_to_the_operator(caplog: pytest.LogCaptureFixture) -> None:
    class Plain:
        def stop(self) -> None:
            raise OSError("bus off")

    BoundedStop(Plain(), "arm", 0.05).stop()
    assert "has no stop line; check the device" in caplog.text


def test_everything_else_of_a_bounded_driver_is_the_driver() -> None:
    motor = Motor()
    arm = bounded(motor)
    arm.speed = 2.0
    assert (motor.speed, arm.speed) == (2.0, 2.0)
    assert isinstance(arm, Motor)


# ---- supervision


def test_a_loop_that_fails_is_started_again_with_growing_pauses() -> None:
    loop = VirtualLoop()  # type: ignore[abstract] # what it leaves out is I/O
    starts: list[float] = []

    async def body() -> None:
        starts.append(loop.time())
        if len(starts) < 14:
            raise OSError("cable")

    loop.run_until_complete(supervise("sensor mic", body, loop.time))
    pauses = [round(b - a, 3) for a, b in itertools.pairwise(starts)]
    assert pauses[:3] == [2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S, 8 * FIRST_PAUSE_S]
    assert pauses[-1] == LONGEST_PAUSE_S


def test_a_loop_that_ran_well_for_long_is_started_again_soon() -> None:
    loop = VirtualLoop()  # type: ignore[abstract] # what it leaves out is I/O
    starts: list[float] = []

    async def body() -> None:
        starts.append(loop.time())
        if len(starts) < 6:
            raise OSError("cable")
        if len(starts) < 8:
            await asyncio.sleep(100)
            raise OSError("cable")

    loop.run_until_complete(supervise("sensor mic", body, loop.time))
    assert starts[-1] - starts[-2] == pytest.approx(100 + FIRST_PAUSE_S)


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(2), ExceptionGroup("g", [OSError()])])
def test_whatever_a_call_raises_comes_back_as_a_value(error: BaseException) -> None:
    def failing() -> None:
        raise error

    ended = attempt(failing)
    assert isinstance(ended, Raised)
    assert ended.error is error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), asyncio.CancelledError()])
def test_what_is_meant_for_the_node_passes_through(error: BaseException) -> None:
    def failing() -> None:
        raise error

    with pytest.raises(type(error)):
        attempt(failing)


def test_sentences_are_one_bounded_line_without_half_characters() -> None:
    assert sentence_of(ValueError("a\n  b\tc")) == "ValueError: a b c"
    assert sentence_of(KeyError()) == "KeyError"
    assert cut("\ud800x") == "?x"
    assert len(cut("y" * 999)) == 500


class Unstoppable(ActuatorDriver[Any]):
    def stop(self) -> None:
        raise RuntimeError


def test_an_actuator_of_another_class_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="is no Legs"):
        bay(actuators={"legs": DeviceChoice(driver=f"{HERE}:Unstoppable")}).actuator(Dog.legs)
