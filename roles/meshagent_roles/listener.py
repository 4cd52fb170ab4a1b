"""Hears a pump rattle and asks whoever is best placed to touch it."""

from __future__ import annotations

import asyncio

from meshagent import Context, Done, Requires, Role, Sample, on, sensor
from meshagent.devices import Waveform
from meshagent_roles.pump import CheckContact, PumpReported
from meshagent_roles.vibration import diagnose


class Listener(Role):
    """A drone, or any device with a microphone beside a machine."""

    requires = Requires(capabilities={"microphone"}, memory_mib=64)
    mic = sensor(Waveform, window_s=2.0)

    site = "pump-7"
    within_s = 600.0
    quiet_s = 600.0
    """After a check has ended: a pump does not heal by itself, and everybody has been told."""

    def __init__(self) -> None:
        self.quiet_until_s = 0.0

    @on(mic)
    async def listen(self, sample: Sample[Waveform], ctx: Context) -> None:
        if ctx.now_s() < self.quiet_until_s:
            return
        fault = await asyncio.to_thread(diagnose, sample.value)
        if fault is None:
            return
        ctx.log.info("%s rattles at %.1f Hz: %s suspected", self.site, fault.frequency_hz, fault.part)
        # the key: other devices that hear the same rattle ask for the same piece of work
        ask = ctx.submit(
            CheckContact(self.site, fault.part),
            key=f"{self.site}/bearing",
            within_s=self.within_s,
            durability="replicated",
        )
        await ask.accepted()
        outcome = await ask.outcome()
        self.quiet_until_s = ctx.now_s() + self.quiet_s
        if isinstance(outcome, Done):
            found = outcome.result
            ctx.emit(PumpReported(self.site, fault.part, found))
            ctx.log.info(
                "%s: %s, %.2f g, felt by %s",
                self.site,
                "confirmed" if found.confirmed else "not confirmed",
                found.rms_g,
                found.by,
            )
        else:
            ctx.emit(PumpReported(self.site, fault.part, None, f"{outcome.reason}: {outcome.detail}"[:400]))
            ctx.log.warning("nobody checked %s: %s %s", self.site, outcome.reason, outcome.detail)
