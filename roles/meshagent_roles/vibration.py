"""Which part of a bearing is damaged, heard from a window of its vibration.

A damaged part knocks at its kinematic frequency (`Bearing.fault_hz`); each knock rings a resonance. So the signal is
cut to a band, its envelope taken (Hilbert transform), and the spectrum of the squared envelope asked for lines at the
frequency of each part and its harmonics. Several bands are tried, because where the resonance lies is not known.

Whether a line is a line is decided against the noise around it: under noise alone the power of a spectral bin,
divided by the local mean, is exponentially distributed, so that the largest of m bins exceeds z by chance with
probability 1 - (1 - exp(-z))^m. The harmonics of a part are joined by Fisher's method, and the limit is divided by the
number of parts and bands tried. `false_alarm` is therefore a bound on the rate of false alarms, a window on a healthy
machine; as three lines are asked for besides, the rate itself is far lower.

Source: Randall, Antoni, "Rolling element bearing diagnostics - a tutorial", MSSP 25 (2011), sections 4 and 5;
Fisher, "Statistical Methods for Research Workers" (1925), section 21.1.

Needs numpy: `pip install 'meshagent[perception]'`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from meshagent import ConfigurationError
from meshagent.devices import Bearing, Part, Waveform
from meshagent.devices.bearing import PUMP_BEARING, PUMP_SHAFT_HZ

try:
    import numpy as np
except ImportError as error:  # pragma: no cover - the development environment has it
    raise ConfigurationError(
        "diagnosing vibration needs numpy", next_step="pip install 'meshagent[perception]'"
    ) from error

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

HARMONICS: Final = 4
"""Asked of each part; slip smears the higher ones into the noise."""
SLIP_TOLERANCE: Final = 0.015
"""Real bearings slip: 1 to 2 % off the kinematic frequency (Randall, Antoni, section 2)."""
FALSE_ALARM: Final = 1e-4
"""A window on a healthy machine: at one window every two seconds, one false alarm in 5.5 hours; a role that acts on
one alone would set it lower."""
MIN_WINDOW_S: Final = 0.5
"""Shorter windows cannot tell the parts' frequencies apart."""
BANDS: Final = ((0.08, 0.20), (0.16, 0.28), (0.24, 0.36), (0.32, 0.46), (0.08, 0.46))
"""Pass bands as shares of the sampling rate: wider than 8 harmonics of any part, narrow enough to leave noise out."""


NEIGHBOURHOOD: Final = 0.45
"""A line is its part's own when it is the strongest within so much of a turn to either side: the sidebands of another
part's line are weaker than that line, and of a comb (a cage knocks slowly and leaves a line at each of some forty
multiples) some tooth always lies where another bearing's part is expected, but seldom three that are the strongest."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A damaged part and the evidence."""

    part: Part
    frequency_hz: float
    """Measured, from the highest harmonic that stands out."""
    expected_hz: float
    """Kinematic, without slip."""
    false_alarm: float
    """How probable such lines are on a healthy machine, all parts and bands tried; 0 stands for below 1e-300."""
    harmonics: int
    """How many of the first four harmonics stand out."""


def diagnose(
    waveform: Waveform,
    bearing: Bearing = PUMP_BEARING,
    shaft_hz: float = PUMP_SHAFT_HZ,
    *,
    false_alarm: float = FALSE_ALARM,
) -> Fault | None:
    """The damaged part of `bearing` on a shaft of `shaft_hz`; None: nothing stands out of the noise.

    Args:
        waveform: at least half a second; two seconds tell lines half a hertz apart.
        bearing: geometry.
        shaft_hz: speed of the shaft during the window.
        false_alarm: probability of naming a part of a healthy machine, a window.

    Raises:
        ValueError: the window is too short, or false_alarm is no probability.
    """
    if not 0 < false_alarm < 1:
        raise ValueError(f"false_alarm is {false_alarm!r}, expected a probability")
    if waveform.duration_s < MIN_WINDOW_S:
        raise ValueError(f"a window of {waveform.duration_s:.2f} s; at least {MIN_WINDOW_S} s are needed")
    samples = np.frombuffer(waveform.samples, dtype=np.float32).astype(np.float64)
    if not np.isfinite(samples).all():
        return None
    samples -= samples.mean()
    if not samples.any():
        return None
    samples /= np.abs(samples).max()
    limit = math.log(false_alarm / (len(Part) * len(BANDS)))
    best: tuple[float, Fault] | None = None
    spectrum = np.fft.rfft(samples)
    for low, high in BANDS:
        power, step_hz = _envelope_spectrum(spectrum, len(samples), waveform.rate_hz, low, high)
        for part in Part:
            found = _lines(power, step_hz, bearing.fault_hz(part, shaft_hz), shaft_hz, part)
            if found is None or found[0] > limit:
                continue
            log_chance, frequency_hz, harmonics = found
            if best is None or log_chance < best[0]:
                chance = math.exp(log_chance) * len(Part) * len(BANDS)
                expected_hz = bearing.fault_hz(part, shaft_hz)
                best = (log_chance, Fault(part, frequency_hz, expected_hz, min(1.0, chance), harmonics))
    return best[1] if best is not None else None


def _envelope_spectrum(
    spectrum: NDArray[np.complex128], count: int, rate_hz: float, low: float, high: float
) -> tuple[Floats, float]:
    """Power of the squared envelope of one band, divided by its local mean, and the width of a bin in Hz."""
    band = np.zeros(count, dtype=np.complex128)
    first, last = round(low * count), round(high * count)
    width = last - first
    edge = max(1, width // 10)  # soft edges: a hard one rings, and the ringing has an envelope
    shape = np.ones(width)
    shape[:edge] = 0.5 - 0.5 * np.cos(np.pi * (np.arange(edge) + 0.5) / edge)
    shape[-edge:] = shape[:edge][::-1]
    band[first:last] = 2 * spectrum[first:last] * shape  # positive frequencies alone: the analytic signal
    squared = np.abs(np.fft.ifft(band)) ** 2
    squared -= squared.mean()
    squared *= np.hanning(count)
    power = np.abs(np.fft.rfft(squared)) ** 2
    above: Floats = power / _floor(power)
    return above, rate_hz / count


def _floor(power: Floats) -> Floats:
    """The local mean of the noise: a running median, which lines do not lift, times 1/ln 2 for exponential bins."""
    half = max(16, len(power) // 300)
    step = max(1, half // 4)
    padded = np.concatenate([power[1 : half + 1][::-1], power, power[-half - 1 : -1][::-1]])
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)[::step]
    medians = np.median(windows, axis=1) / math.log(2)
    floor = np.interp(np.arange(len(power)), np.arange(len(medians)) * step, medians)
    above: Floats = np.maximum(floor, np.finfo(np.float64).tiny)
    return above


def _lines(
    power: Floats, step_hz: float, expected_hz: float, shaft_hz: float, part: Part
) -> tuple[float, float, int] | None:
    """Log of the chance of such lines in noise, the first line's frequency, and how many stand out; None: no fault."""
    logs: list[float] = []
    standing = 0
    frequency_hz, error_hz = expected_hz, 0.0
    for order in range(1, HARMONICS + 1):
        centre_hz = order * frequency_hz
        reach_hz = max(1.5 * step_hz, centre_hz * SLIP_TOLERANCE)  # once a line is found, around what it says
        first = max(1, math.floor((centre_hz - reach_hz) / step_hz))
        last = min(len(power) - 1, math.ceil((centre_hz + reach_hz) / step_hz))
        if first >= last:
            break
        strongest = first + int(np.argmax(power[first : last + 1]))
        logs.append(_log_chance(float(power[strongest]), last - first + 1))
        alone_hz = NEIGHBOURHOOD * min(shaft_hz, expected_hz)
        low, high = max(1, round((centre_hz - alone_hz) / step_hz)), round((centre_hz + alone_hz) / step_hz)
        if logs[-1] < math.log(0.01) and power[strongest] >= power[low : high + 1].max():
            standing += 1
            frequency_hz = strongest * step_hz / order  # higher lines measure it more finely
            error_hz = step_hz / order
    # A line alone may be a sideband of another part's, or hum: three lines at least. A cage turns so slowly that the
    # modulation of a ball looks like its first lines, so all of its lines must be there.
    needed = HARMONICS if part is Part.CAGE else 3
    if standing < needed:
        return None
    if abs(frequency_hz - expected_hz) > SLIP_TOLERANCE * expected_hz + error_hz / 2:
        return None  # lines indeed, of something else: another bearing, another part
    return _fisher(logs), frequency_hz, standing


def _log_chance(strongest: float, bins: int) -> float:
    """Log of the probability that the largest of `bins` exponential bins exceeds `strongest`."""
    # a Hann window joins neighbouring bins: they are as good as two thirds as many independent ones; counting all
    # errs on the careful side
    if strongest > 30:
        return min(0.0, math.log(bins) - strongest)
    return math.log(-math.expm1(bins * math.log1p(-math.exp(-strongest)))) if strongest > 0 else 0.0


def _fisher(logs: list[float]) -> float:
    """Log of the chance of all of them together: the upper tail of chi squared with two degrees a term."""
    half = -math.fsum(logs)
    terms = [index * math.log(half) - math.lgamma(index + 1) if half > 0 else 0.0 for index in range(len(logs))]
    most = max(terms)
    return min(0.0, -half + most + math.log(math.fsum(math.exp(term - most) for term in terms)))


__all__ = ["BANDS", "FALSE_ALARM", "Bearing", "Fault", "Part", "diagnose"]
