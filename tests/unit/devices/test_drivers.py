"""Drivers: chosen by name, checked against the role's declaration, and paced by the node's clock."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from meshagent import ConfigurationError, Site, actuator, sensor
from meshagent.devices import (
    DeviceStoppedError,
    DriverSetup,
    Legs,
    SensorDriver,
    SensorEndedError,
    Waveform,
    open_driver,
    simulated_driver,
)
from meshagent.devices.legs import SimulatedLegs, UnreachableError
from meshagent.devices.vibration import SyntheticVibration, WaveformFileSensor
from tests.unit.devices.doubles import FlatWorld

PROBE = sensor(Waveform, window_s=0.5)
LEGS = actuator(Legs)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> FlatWorld:
    """Sleeping moves the world's clock and nothing else."""
    flat, real = FlatWorld(), asyncio.sleep

    async def sleep(seconds: float, *_: object) -> None:
        flat.clock_s += max(0.0, seconds)
        await real(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return flat


def run(main: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await main

    asyncio.run(bounded())


def setup(world: FlatWorld, window_s: float | None = None, **options: object) -> DriverSetup:
    return DriverSetup(name="probe", surroundings=world, options=options, window_s=window_s)


def told(declared: Any, driver: str, world: FlatWorld, **options: Any) -> tuple[str, str | None]:
    with pytest.raises(ConfigurationError) as caught:
        open_driver(declared, driver, setup(world, **options))
    return str(caught.value), caught.value.next_step


class Thermometer(SensorDriver[Any, float]):
    value_type = float


def test_a_driver_is_found_by_name_or_by_module_and_class(world: FlatWorld) -> None:
    assert isinstance(open_driver(PROBE, "synthetic_vibration", setup(world)), SyntheticVibration)
    assert isinstance(open_driver(LEGS, "meshagent.devices.legs:SimulatedLegs", setup(world)), SimulatedLegs)
    assert isinstance(open_driver(sensor(float), f"{__name__}:Thermometer", setup(world)), Thermometer)


def test_what_does_not_fit_is_told_with_the_next_step(world: FlatWorld) -> None:
    assert told(PROBE, "syntetic_vibration", world) == (
        "no driver is called syntetic_vibration",
        'driver = "synthetic_vibration"; ours are simulated_legs, synthetic_vibration, waveform_file',
    )
    assert (
        told(PROBE, "no_such_vendor:Probe", world)[0] == "driver no_such_vendor:Probe: No module named 'no_such_vendor'"
    )
    assert told(PROBE, "json:JSONDecoder", world)[0] == "driver json:JSONDecoder is no driver"
    assert told(PROBE, "simulated_legs", world)[0] == "probe: driver simulated_legs is no sensor"
    assert told(LEGS, "synthetic_vibration", world)[0] == "probe: driver synthetic_vibration is no Legs"
    assert told(PROBE, f"{__name__}:Thermometer", world)[0].endswith("gives float, the role wants Waveform")


def test_options_are_checked_by_name_and_value(world: FlatWorld) -> None:
    assert told(LEGS, "simulated_legs", world, speed=2.0) == (
        'probe: options.speed is no field of SimulatedLegsOptions; did you mean "speed_mps"?',
        "options of this driver: speed_mps, step_s",
    )
    assert told(PROBE, "waveform_file", world)[0] == "probe: options.path is missing, expected str"
    assert "was rejected" in told(LEGS, "simulated_legs", world, speed_mps=0.0)[0]
    assert "did you mean" in told(PROBE, "synthetic_vibration", world, part="outer rage")[0]


def test_stand_ins_exist_for_what_we_can_pretend() -> None:
    assert simulated_driver(PROBE) == "synthetic_vibration"
    assert simulated_driver(LEGS) == "simulated_legs"
    assert simulated_driver(sensor(float)) is None
    assert simulated_driver(actuator(dict)) is None


# ---- files


def recording(path: Path, samples: int = 12_000, rate_hz: float = 12_000.0) -> Path:
    Waveform([float(n) for n in range(samples)], rate_hz, label="synthetic: a ramp").to_file(path)
    return path


def test_a_file_is_a_stream_that_runs_on_whether_anybody_reads(tmp_path: Path, world: FlatWorld) -> None:
    async def main() -> None:
        driver = WaveformFileSensor(setup(world, 0.25, path=str(recording(tmp_path / "a.wav"))))
        await driver.open()
        first = await driver.read()
        assert world.clock_s == pytest.approx(0.25)
        assert (len(first), first.rate_hz, first.label) == (3000, 12_000.0, "synthetic: a ramp")
        assert list(first.samples[:2]) == [0.0, 1.0]
        world.clock_s += 0.25  # nobody listens
        assert (await driver.read()).samples[0] == 6000.0
        wrapped = await driver.read()
        assert wrapped.samples[0] == 9000.0
        world.clock_s += 0.125
        around = await driver.read()
        assert (around.samples[0], len(around)) == (1500.0, 3000)
        await driver.close()

    run(main())


def test_a_window_goes_around_the_end_of_the_file(tmp_path: Path, world: FlatWorld) -> None:
    async def main() -> None:
        driver = WaveformFileSensor(setup(world, 1.0, path=str(recording(tmp_path / "a.wav", 5000))))
        await driver.open()
        window = await driver.read()
        assert [window.samples[n] for n in (4999, 5000, 9999, 10_000, 11_999)] == [4999.0, 0.0, 4999.0, 0.0, 1999.0]
        await driver.close()

    run(main())


def test_a_file_that_does_not_repeat_ends(tmp_path: Path, world: FlatWorld) -> None:
    async def main() -> None:
        driver = WaveformFileSensor(setup(world, 0.75, path=str(recording(tmp_path / "a.wav")), repeat=False))
        await driver.open()
        await driver.read()
        with pytest.raises(SensorEndedError, match="has ended"):
            await driver.read()
        await driver.close()

    run(main())


def test_a_file_of_another_rate_would_shift_every_frequency(tmp_path: Path, world: FlatWorld) -> None:
    async def main() -> None:
        path = str(recording(tmp_path / "a.wav", rate_hz=48_000.0))
        driver = WaveformFileSensor(setup(world, path=path, rate_hz=12_000))
        with pytest.raises(ConfigurationError, match="has 48000 samples a second, 12000 are asked for"):
            await driver.open()
        await driver.close()
        missing = WaveformFileSensor(setup(world, path=str(tmp_path / "none.wav")))
        with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
            await missing.open()

    run(main())


def test_the_model_is_healthy_until_its_fault(world: FlatWorld) -> None:
    async def main() -> None:
        driver = SyntheticVibration(setup(world, 0.25, part="outer race", fault_after_s=0.5))
        await driver.open()
        rms = [(await driver.read()).rms() for _ in range(4)]
        assert world.clock_s == pytest.approx(1.0)
        assert max(rms[:2]) < 0.2 < 0.5 < min(rms[2:])

    run(main())


# ---- legs


def test_legs_take_as_long_as_walking_would_and_go_by_the_map(world: FlatWorld) -> None:
    async def main() -> None:
        legs = SimulatedLegs(setup(world, speed_mps=2.0, step_s=0.5))
        stretches = [stretch async for stretch in legs.walk_to(Site("pump-7"))]
        assert world.clock_s == pytest.approx(3.5)  # 4 m north, then 3 m east
        assert world.here == (3.0, 4.0)
        assert (stretches[-1].share, stretches[-1].left_m) == (1.0, 0.0)
        assert [stretch.share for stretch in stretches] == sorted({stretch.share for stretch in stretches})
        assert world.passed[0] == pytest.approx((0.0, 1.0))
        assert world.passed[-2][1] == 4.0
        again = [stretch async for stretch in legs.walk_to(Site("pump-7"))]
        assert [stretch.share for stretch in again] == [1.0]

    run(main())


def test_a_walk_ends_though_rounding_leaves_a_rest_that_takes_no_time(world: FlatWorld) -> None:
    async def main() -> None:
        world.clock_s = 1e9  # so late that 1e-8 s more is the same float
        world.sites["pump-7"] = (0.0, 1.0 + 1e-9)
        legs = SimulatedLegs(setup(world, speed_mps=1.0, step_s=0.125))
        stretches = [stretch async for stretch in legs.walk_to(Site("pump-7"))]
        assert len(stretches) < 30

    run(main())


def test_a_stopped_walk_ends_with_an_error_and_not_as_if_it_had_arrived(world: FlatWorld) -> None:
    async def main() -> None:
        legs, seen = SimulatedLegs(setup(world)), []
        with pytest.raises(DeviceStoppedError, match="before Site"):  # noqa: PT012 - the loop is what raises
            async for stretch in legs.walk_to(Site("pump-7")):
                seen.append(stretch)
                legs.stop()
                legs.stop()
        assert len(seen) == 1
        assert world.here != (3.0, 4.0)

    run(main())


def test_legs_did_not_walk_while_the_process_was_suspended(world: FlatWorld) -> None:
    async def main() -> None:
        legs = SimulatedLegs(setup(world, speed_mps=1.0, step_s=0.5))
        async for stretch in legs.walk_to(Site("pump-7")):
            if stretch.share < 0.2:
                world.clock_s += 3600
                continue
            assert stretch.left_m == pytest.approx(7.0 - 0.5 - 1.0 - (stretch.share > 0.25) * 0.5, abs=0.6)
            break

    run(main())


def test_a_place_without_a_way_is_told(world: FlatWorld) -> None:
    async def main() -> None:
        legs = SimulatedLegs(setup(world))
        with pytest.raises(UnreachableError, match="not on the map"):
            await anext(legs.walk_to(Site("nowhere")))
        world.walled = True
        with pytest.raises(UnreachableError, match="no way"):
            await anext(legs.walk_to(Site("pump-7")))

    run(main())
