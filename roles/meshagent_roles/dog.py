"""Walks to a machine, puts its probe on and says what it feels."""

from __future__ import annotations

import asyncio

from meshagent import (
    Call,
    Proposal,
    Reason,
    Refusal,
    Requires,
    Role,
    Site,
    TaskContext,
    actuator,
    sensor,
    task,
)
from meshagent.devices import Legs, Waveform
from meshagent_roles.pump import CheckContact, Finding, Readings
from meshagent_roles.vibration import diagnose

READINGS = 3
"""One reading may catch the probe sliding; three agree or not."""
CONFIRMED_G = 0.5
"""Above this a pump of this size is outside of what its maker calls healthy."""
COLD_PROBE_S = 7.2
"""A probe that is cold drifts; so long it warms up."""


class Dog(Role):
    """A quadruped with a contact probe."""

    requires = Requires(capabilities={"legs", "contact-probe"})
    legs = actuator(Legs)
    probe = sensor(Waveform, window_s=4.0)
    probe_ok = True

    @task
    async def check(self, job: CheckContact, ctx: TaskContext) -> Finding:
        readings = ctx.resumed(Readings) or Readings()
        async with ctx.use(self.legs) as legs:
            async for stretch in legs.walk_to(Site(job.site)):
                ctx.progress(0.8 * stretch.share, f"{stretch.left_m:.0f} m to go")
        while len(readings.rms_g) < READINGS:
            sample = await self.probe.next(timeout_s=10)
            fault = await asyncio.to_thread(diagnose, sample.value)
            readings.rms_g.append(sample.value.rms())
            readings.parts.append(fault.part.value if fault else "")
            readings.frequency_hz = fault.frequency_hz if fault else readings.frequency_hz
            ctx.progress(0.8 + 0.2 * len(readings.rms_g) / READINGS, f"reading {len(readings.rms_g)} of {READINGS}")
            await ctx.checkpoint(readings)
        mean = sum(readings.rms_g) / len(readings.rms_g)
        named = [part for part in readings.parts if part]
        part = max(named, key=named.count) if named else ""
        return Finding(
            job.site,
            rms_g=mean,
            confirmed=mean > CONFIRMED_G,
            by=self.node.name,
            part=part,
            frequency_hz=readings.frequency_hz,
        )

    @check.feasible
    def can_check(self, call: Call[CheckContact]) -> Refusal | None:
        return None if self.probe_ok else call.refuse(Reason.CALIBRATION, "the probe must be calibrated first")

    @check.price
    def price(self, call: Call[CheckContact]) -> Proposal:
        if call.plan.stops:
            return call.propose()
        return call.propose(call.insertion().added_s + COLD_PROBE_S, because=f"probe is cold: +{COLD_PROBE_S} s")
