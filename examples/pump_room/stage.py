"""The pump room as files: what each device is, where it stands, what its sensors hear. All of it synthetic.

    heron-1  a drone that listens at pump-7            dog-3   a quadruped with an almost empty battery
    dog-1    a quadruped near the pump                 cart-1  a quadruped behind a wall without a door
    dog-2    a quadruped further away

The vibration is written to a waveform file with the standard kinematic formulas of a rolling bearing (12 kHz, a
fault of the outer race after some healthy seconds) and labelled synthetic inside the file; the drone reads it as a
sensor stream.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from pathlib import Path

from meshagent.devices import Waveform

FAULTY_PART = "outer race"
HEALTHY_S = 3.0
RECORDING_S = 9.0
"""Played in a loop."""

MAP = """
[map]
size_m = [40, 30]
sites = { pump-7 = [20, 10] }
walls = [
  { from = [30, 0], to = [30, 6] }, { from = [30, 6], to = [40, 6] },
  { from = [40, 6], to = [40, 0] }, { from = [40, 0], to = [30, 0] },
]
chargers = [{ at = [2, 2], power_w = 300 }]
"""


LEGS = """
[actuators.legs]
driver = "simulated_legs"
options = { speed_mps = 1.4 }
"""


@dataclass(frozen=True)
class Device:
    """One device of the pump room."""

    name: str
    role: str
    position_m: tuple[float, float]
    battery_soc: float
    capabilities: tuple[str, ...]
    sensor: tuple[str, str]
    """Attribute of the role, and the recording behind it."""

    def config(self, folder: Path) -> str:
        """The device's meshagent.toml."""
        words = ", ".join(f'"{word}"' for word in self.capabilities)
        attribute, recording = self.sensor
        legs = (
            '\n[actuators.legs]\ndriver = "simulated_legs"\noptions = { speed_mps = 1.4 }\n' if "legs" in words else ""
        )
        return (
            f'preset = "loopback"\n[node]\nname = "{self.name}"\ncapabilities = [{words}]\nmap = "map.toml"\n'
            f"[body]\nposition_m = [{self.position_m[0]}, {self.position_m[1]}]\nspeed_mps = 1.4\n"
            f"battery_soc = {self.battery_soc}\nbattery_wh = 20.0\nmove_w = 220.0\nidle_w = 45.0\n"
            f'[sensors.{attribute}]\ndriver = "waveform_file"\n'
            f'options = {{ path = "{folder / recording}", rate_hz = 12000 }}\n{legs}'
        )


WALKS = ("legs", "contact-probe")
DRONE = Device("heron-1", "listener", (18.0, 9.0), 0.7, ("flight", "microphone"), ("mic", "mic.wav"))
DOGS = (
    Device("dog-1", "dog", (13.0, 10.0), 0.85, WALKS, ("probe", "probe.wav")),
    Device("dog-2", "dog", (20.0, 20.0), 0.64, WALKS, ("probe", "probe.wav")),
    Device("dog-3", "dog", (18.0, 14.0), 0.21, WALKS, ("probe", "probe.wav")),
    Device("cart-1", "dog", (35.0, 3.0), 0.77, WALKS, ("probe", "probe.wav")),
)


def build(folder: Path, seed: int) -> None:
    """Write map, recordings and one configuration a device into `folder`."""
    (folder / "map.toml").write_text(MAP)
    healthy = Waveform.synthetic(None, duration_s=HEALTHY_S, seed=seed)
    faulty = Waveform.synthetic(FAULTY_PART, duration_s=RECORDING_S - HEALTHY_S, seed=seed + 1)
    heard = array("f", healthy.samples)
    heard.extend(faulty.samples)
    Waveform(heard, faulty.rate_hz, label=faulty.label).to_file(folder / "mic.wav")
    Waveform.synthetic(FAULTY_PART, duration_s=RECORDING_S - HEALTHY_S, impact_g=6.0, seed=seed + 2).to_file(
        folder / "probe.wav"
    )
    for device in (DRONE, *DOGS):
        (folder / f"{device.name}.toml").write_text(device.config(folder))
