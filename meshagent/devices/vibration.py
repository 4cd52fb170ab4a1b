"""Drivers of vibration sensors that need no hardware: a recorded file, and the kinematic model."""

from __future__ import annotations

import asyncio
from array import array
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from meshagent.devices.bearing import BEARINGS, PUMP_BEARING, PUMP_SHAFT_HZ, Part
from meshagent.devices.drivers import DriverSetup, SensorDriver, SensorEndedError
from meshagent.devices.synthetic import vibration
from meshagent.devices.waveform import MAX_SAMPLES, RATE_HZ, Waveform, WaveformFile, WaveformFileError

DEFAULT_WINDOW_S: Final = 2.0
"""Where the role names none: enough for half a hertz between spectral lines."""


@dataclass(frozen=True)
class WaveformFileOptions:
    """`[sensors.mic] options`."""

    path: str
    rate_hz: float | None = None
    """Given: the file must have it. A file of another rate would shift every frequency."""
    repeat: bool = True
    """Start again at the end; false: the sensor ends with its file."""


class WaveformFileSensor(SensorDriver[WaveformFileOptions, Waveform]):
    """A recorded file as a sensor stream in real time: what is read now is what would sound now.

    The recording starts when the driver is opened and runs on whether anybody reads or not.
    """

    options_type: ClassVar[type] = WaveformFileOptions
    value_type: ClassVar[type] = Waveform

    def __init__(self, setup: DriverSetup) -> None:
        super().__init__(setup)
        self._file: WaveformFile | None = None
        self._opened_s = 0.0

    async def open(self) -> None:
        """Open the file and start its clock."""
        self._file = WaveformFile(self.options.path)  # a local file, opened once before the role runs
        wanted = self.options.rate_hz
        if wanted is not None and wanted != self._file.rate_hz:
            raise WaveformFileError(
                f"{self.options.path} has {self._file.rate_hz:g} samples a second, {wanted:g} are asked for",
                next_step="record it again, or correct rate_hz",
            )
        self._opened_s = self.setup.surroundings.now_s()

    async def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    async def read(self) -> Waveform:
        """The window that begins now; returns when it is over."""
        file = self._file
        if file is None:
            raise SensorEndedError(f"{self.setup.name} is not open")
        window_s = self.setup.window_s or DEFAULT_WINDOW_S
        now_s = self.setup.surroundings.now_s
        begin_s = now_s() - self._opened_s
        first, count = round(begin_s * file.rate_hz), round(window_s * file.rate_hz)
        if count > MAX_SAMPLES:
            raise SensorEndedError(f"{self.setup.name}: a window of {count} samples, at most {MAX_SAMPLES}")
        if not self.options.repeat and first + count > len(file):
            raise SensorEndedError(f"{self.options.path} has ended")
        await asyncio.sleep(max(0.0, begin_s + window_s - (now_s() - self._opened_s)))
        samples: array[float] = array("f")
        at = first % len(file)
        while len(samples) < count:  # around the end of the file
            samples.extend(file.read(at, count - len(samples)).samples)
            at = 0
        return Waveform(samples, file.rate_hz, label=file.label)


@dataclass(frozen=True)
class SyntheticVibrationOptions:
    """`[sensors.probe] options`."""

    part: Part | None = None
    """What is damaged; left out: nothing."""
    bearing: str = PUMP_BEARING.name
    shaft_hz: float = PUMP_SHAFT_HZ
    rate_hz: float = RATE_HZ
    impact_g: float = 4.5
    noise_g: float = 0.1
    fault_after_s: float = 0.0
    """Seconds from the start during which the pump is still healthy."""

    def __post_init__(self) -> None:
        if self.bearing not in BEARINGS:
            raise ValueError(f"bearing {self.bearing!r} is unknown; known are {', '.join(BEARINGS)}")
        if min(self.shaft_hz, self.rate_hz) <= 0 or min(self.impact_g, self.noise_g, self.fault_after_s) < 0:
            raise ValueError("rates are more than 0, heights at least 0")


class SyntheticVibration(SensorDriver[SyntheticVibrationOptions, Waveform]):
    """The kinematic model as a sensor; what it gives is labelled synthetic."""

    options_type: ClassVar[type] = SyntheticVibrationOptions
    value_type: ClassVar[type] = Waveform

    def __init__(self, setup: DriverSetup) -> None:
        super().__init__(setup)
        self._opened_s = setup.surroundings.now_s()

    async def open(self) -> None:
        """Start the clock of `fault_after_s`."""
        self._opened_s = self.setup.surroundings.now_s()

    async def read(self) -> Waveform:
        """A window that begins now; returns when it would be over."""
        options: Any = self.options
        around = self.setup.surroundings
        window_s = self.setup.window_s or DEFAULT_WINDOW_S
        broken = around.now_s() - self._opened_s >= options.fault_after_s
        seed = around.rng.getrandbits(32)
        await asyncio.sleep(window_s)
        return await asyncio.to_thread(  # a tenth of a second of computing, which the loop has not got
            vibration,
            options.part if broken else None,
            bearing=BEARINGS[options.bearing],
            shaft_hz=options.shaft_hz,
            rate_hz=options.rate_hz,
            duration_s=window_s,
            impact_g=options.impact_g,
            noise_g=options.noise_g,
            seed=seed,
        )
