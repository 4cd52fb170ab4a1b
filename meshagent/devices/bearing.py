"""The frequencies at which a damaged rolling bearing knocks, from its geometry and the speed of its shaft.

Source: Randall, Antoni, "Rolling element bearing diagnostics - a tutorial", Mechanical Systems and Signal Processing
25 (2011), equations 1 to 4. They assume no slip; a real bearing is 1 to 2 % off, which detectors allow for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Part(StrEnum):
    """What may be damaged."""

    OUTER_RACE = "outer race"
    INNER_RACE = "inner race"
    BALL = "ball"
    CAGE = "cage"


@dataclass(frozen=True, slots=True)
class Bearing:
    """Geometry of one type of bearing."""

    name: str
    balls: int
    ball_mm: float
    """Diameter of a ball."""
    pitch_mm: float
    """Diameter of the circle through the balls' centres."""
    contact_rad: float = 0.0

    def __post_init__(self) -> None:
        if not (self.balls > 0 and 0 < self.ball_mm < self.pitch_mm and math.isfinite(self.contact_rad)):
            raise ValueError(f"{self.name}: balls are smaller than the circle they run on")

    @property
    def _ratio(self) -> float:
        return self.ball_mm / self.pitch_mm * math.cos(self.contact_rad)

    def bpfo_hz(self, shaft_hz: float) -> float:
        """Ball passing frequency, outer race: n/2 fr (1 - d/D cos phi)."""
        return self.balls / 2 * shaft_hz * (1 - self._ratio)

    def bpfi_hz(self, shaft_hz: float) -> float:
        """Ball passing frequency, inner race: n/2 fr (1 + d/D cos phi)."""
        return self.balls / 2 * shaft_hz * (1 + self._ratio)

    def bsf_hz(self, shaft_hz: float) -> float:
        """Ball spin frequency: D/2d fr (1 - (d/D cos phi)^2). A damaged ball knocks twice a spin."""
        return self.pitch_mm / (2 * self.ball_mm) * shaft_hz * (1 - self._ratio**2)

    def ftf_hz(self, shaft_hz: float) -> float:
        """Fundamental train frequency, the speed of the cage: fr/2 (1 - d/D cos phi)."""
        return shaft_hz / 2 * (1 - self._ratio)

    def fault_hz(self, part: Part, shaft_hz: float) -> float:
        """How often a damaged `part` knocks."""
        match part:
            case Part.OUTER_RACE:
                return self.bpfo_hz(shaft_hz)
            case Part.INNER_RACE:
                return self.bpfi_hz(shaft_hz)
            case Part.BALL:
                return 2 * self.bsf_hz(shaft_hz)
            case Part.CAGE:
                return self.ftf_hz(shaft_hz)


BEARINGS: Final = {
    bearing.name: bearing
    for bearing in (
        # Case Western Reserve University, bearing data centre, drive end and fan end of its test rig
        Bearing("6205-2RS", 9, 7.940, 39.04),
        Bearing("6203-2RS", 8, 6.746, 28.50),
    )
}
"""Geometries with a public source."""
PUMP_BEARING: Final = BEARINGS["6205-2RS"]
PUMP_SHAFT_HZ: Final = 29.95
"""1797 rpm, a two-pole-pair motor at no load; the speed of the same test rig."""
