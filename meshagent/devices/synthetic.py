"""A pump's vibration, made up: what a damaged bearing does to an accelerometer. Everything made here says so.

Each time a damaged part meets another it knocks; a knock excites a resonance of the housing, which rings and fades.
Knocks come at the part's kinematic frequency with a little slip, are louder where the load presses (an inner race
turns through the load zone once a revolution, a ball once a turn of the cage), and lie in noise beside the hum of the
shaft.

Source of the model: McFadden, Smith, "Model for the vibration produced by a single point defect in a rolling element
bearing", Journal of Sound and Vibration 96 (1984); slip as in Randall, Antoni (2011), section 2.
"""

from __future__ import annotations

import math
from array import array
from random import Random
from typing import Final

from meshagent.devices.bearing import Bearing, Part
from meshagent.devices.waveform import MAX_SAMPLES, Waveform

RESONANCE_HZ: Final = 3200.0
"""Of the housing; the envelope of the band around it carries the knocks."""
DAMPING: Final = 0.04
SLIP: Final = 0.01
"""Standard deviation of the time between knocks, as a share of it."""
HUM_G: Final = 0.05
"""Of the unbalanced shaft, at its speed; the second and third harmonic are weaker."""


def vibration(
    part: Part | None,
    *,
    bearing: Bearing,
    shaft_hz: float,
    rate_hz: float,
    duration_s: float,
    impact_g: float,
    noise_g: float,
    seed: int,
) -> Waveform:
    """`duration_s` of a pump; the same arguments give the same samples on every machine.

    Args:
        part: what is damaged; None: nothing.
        bearing: its geometry.
        shaft_hz: speed of the shaft.
        rate_hz: samples a second.
        duration_s: length.
        impact_g: height of a knock under full load, at the sensor.
        noise_g: standard deviation of the noise.
        seed: of noise, slip and phases.
    """
    count = round(duration_s * rate_hz)
    if not 0 < count <= MAX_SAMPLES:
        raise ValueError(f"{count} samples, from 1 to {MAX_SAMPLES} can be made")
    rng = Random(f"vibration/{seed}")
    phase = rng.uniform(0, 2 * math.pi)
    hum = [(HUM_G / order, 2 * math.pi * shaft_hz * order / rate_hz, phase * order) for order in (1, 2, 3)]
    samples = array(
        "f",
        (
            rng.gauss(0.0, noise_g) + sum(high * math.sin(step * index + start) for high, step, start in hum)
            for index in range(count)
        ),
    )
    if part is not None:
        _knock(samples, part, bearing, shaft_hz, rate_hz, impact_g, rng)
    label = f"synthetic: {part or 'healthy'}, {bearing.name} at {shaft_hz:g} Hz, seed {seed}"
    return Waveform(samples, rate_hz, label=label)


def _knock(
    samples: array[float], part: Part, bearing: Bearing, shaft_hz: float, rate_hz: float, impact_g: float, rng: Random
) -> None:
    ring = _ring(rate_hz)
    period = 1.0 / bearing.fault_hz(part, shaft_hz)
    start = rng.uniform(0, 2 * math.pi)
    at_s = rng.uniform(0, period)
    end_s = len(samples) / rate_hz
    while at_s < end_s:
        high = impact_g * _load(part, bearing, shaft_hz, at_s, start)
        first = math.ceil(at_s * rate_hz)
        for index in range(first, min(first + len(ring), len(samples))):
            samples[index] += high * ring[index - first]
        at_s += period * max(0.5, rng.gauss(1.0, SLIP))


def _load(part: Part, bearing: Bearing, shaft_hz: float, at_s: float, start: float) -> float:
    """How loud a knock is at that moment, 0 to 1."""
    match part:
        case Part.OUTER_RACE:  # stands still in the load zone
            return 1.0
        case Part.INNER_RACE:
            turn_hz, depth = shaft_hz, 0.8
        case Part.BALL:
            turn_hz, depth = bearing.ftf_hz(shaft_hz), 0.6
        case Part.CAGE:
            return 1.0
    return 1.0 - depth * (0.5 - 0.5 * math.cos(2 * math.pi * turn_hz * at_s + start))


def _ring(rate_hz: float) -> list[float]:
    """What one knock of height 1 leaves: a damped resonance, cut where it has faded to 1/1000."""
    resonance_hz = min(RESONANCE_HZ, 0.3 * rate_hz)
    decay = 2 * math.pi * DAMPING * resonance_hz
    damped = 2 * math.pi * resonance_hz * math.sqrt(1 - DAMPING**2)
    return [
        math.exp(-decay * index / rate_hz) * math.sin(damped * index / rate_hz)
        for index in range(math.ceil(math.log(1000) / decay * rate_hz))
    ]
