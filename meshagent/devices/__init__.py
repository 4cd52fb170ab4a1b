"""Devices that roles name and drivers that a device's file chooses.

Roles use `Waveform` and `Legs`. A driver author subclasses `SensorDriver` or a device class such as `Legs`. Drivers
that need nothing but this package: `waveform_file`, `synthetic_vibration`, `simulated_legs`.
"""

from __future__ import annotations

from meshagent.devices.bearing import BEARINGS, Bearing, Part
from meshagent.devices.drivers import (
    ActuatorDriver,
    DeviceStoppedError,
    DriverSetup,
    SensorDriver,
    SensorEndedError,
    Surroundings,
    open_driver,
    simulated_driver,
)
from meshagent.devices.legs import Legs, Stretch
from meshagent.devices.waveform import Waveform

__all__ = [
    "BEARINGS",
    "ActuatorDriver",
    "Bearing",
    "DeviceStoppedError",
    "DriverSetup",
    "Legs",
    "Part",
    "SensorDriver",
    "SensorEndedError",
    "Stretch",
    "Surroundings",
    "Waveform",
    "open_driver",
    "simulated_driver",
]
