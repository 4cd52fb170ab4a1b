"""Where work happens: a site of the map or a pose in its frame. Distances belong to `core/travel.py`."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Site:
    """A named place of the map (`[map] sites`); every node looks it up in its own map."""

    name: str

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a site has a name")


@dataclass(frozen=True, slots=True)
class Pose:
    """A point and a direction in `frame_id`: metres east and north, radians anticlockwise from east (REP-103)."""

    x_m: float
    y_m: float
    heading_rad: float = 0.0
    frame_id: str = "map"

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in (self.x_m, self.y_m, self.heading_rad)):
            raise ValueError("a pose has finite coordinates")


Place = Site | Pose
"""What `Task.place()` answers."""
