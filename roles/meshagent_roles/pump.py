"""What those who hear pumps and those who touch them agree on; neither imports the other."""

from __future__ import annotations

from dataclasses import dataclass, field

from meshagent import Event, Place, Site, Task

CONTACT_S = 20.0
"""Three readings of four seconds, and getting the probe on and off."""


@dataclass(frozen=True)
class Finding:
    """What a contact probe felt."""

    site: str
    rms_g: float
    confirmed: bool
    by: str
    """Name of the device that was there."""
    part: str = ""
    """The damaged part, where the probe's own diagnosis names one."""
    frequency_hz: float = 0.0
    """At which it knocks."""


@dataclass(frozen=True)
class CheckContact(Task[Finding], kind="pump.check.v1", delivery="at_least_once"):
    """Put a probe on the machine at `site` and say what it feels. Looking twice harms nobody."""

    site: str
    suspected: str

    def place(self) -> Place:
        return Site(self.site)

    def duration_s(self) -> float:
        return CONTACT_S


@dataclass(frozen=True)
class PumpReported(Event, name="pump.reported.v1"):
    """News for whoever watches: a check that was asked for has ended."""

    site: str
    suspected: str
    finding: Finding | None
    """None: nobody could check; `why` says the reason."""
    why: str = ""


@dataclass
class Readings:
    """What the next holder of a check continues from."""

    rms_g: list[float] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    """Diagnosed in each reading; empty where none was."""
    frequency_hz: float = 0.0
