"""Sentences for every way a dial can end: what happened, the likely cause, and what to do next.

TLS says nothing to the side that is refused. What can be known is worked out from the peer's certificates, our own
credential and our clock; what cannot is said to be a guess.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshagent.identity.credential import CertificateFault, Credential
from meshagent.transport.attempts import DialOutcome
from meshagent.transport.probe import PeerProbe
from meshagent.types import NodeId, short


@dataclass(frozen=True, slots=True)
class Cause:
    """An outcome with its sentence."""

    outcome: DialOutcome
    sentence: str
    next_step: str | None = None


def cause_of_probe(address: str, probe: PeerProbe, expected: NodeId | None, own: Credential, wall_s: float) -> Cause:
    """What a probe of `address` means for us."""
    credential = probe.credential
    if probe.outcome is DialOutcome.REFUSED_US:
        return _refused_us(address, credential, own, wall_s)
    if probe.outcome is DialOutcome.LINKED and credential is not None:
        if expected is not None and credential.peer != expected:
            return Cause(
                DialOutcome.OTHER_PEER,
                f"{address} is {credential.name} ({short(credential.peer)}), not {short(expected)} that was expected.",
            )
        return Cause(DialOutcome.LINKED, f"{address} is {credential.name} ({short(credential.peer)}) and takes us.")
    if probe.outcome is DialOutcome.OTHER_FLEET:
        theirs = f"of fleet {probe.fleet[:8]}" if probe.fleet else "of another fleet"
        return Cause(
            DialOutcome.OTHER_FLEET,
            f"{address} shows a certificate {theirs}, this device belongs to fleet {own.spiffe_id[9:17]}.",
            "to move this device: meshagent leave, then meshagent join FILE   to ignore that fleet: nothing to do",
        )
    if probe.outcome is DialOutcome.REVOKED:
        return Cause(DialOutcome.REVOKED, f"{address}: {probe.fault_text}; this device does not link with it.")
    if probe.outcome is DialOutcome.THEIR_CREDENTIAL:
        step = "set the clock (NTP, or date -s)" if probe.fault is CertificateFault.NOT_YET_VALID else None
        return Cause(DialOutcome.THEIR_CREDENTIAL, f"{address}: {probe.fault_text or probe.detail}.", step)
    return cause_of_failure(address, probe.outcome, probe.detail)


def _refused_us(address: str, credential: Credential | None, own: Credential, wall_s: float) -> Cause:
    who = f"{credential.name} at {address}" if credential is not None else address
    fault = own.fault_at(wall_s)
    if fault is CertificateFault.EXPIRED:
        return Cause(
            DialOutcome.OUR_CREDENTIAL,
            f"{who} closed the handshake. Its side says nothing (TLS), ours: "
            f"your credential expired {_long(wall_s - own.not_after_s)} ago.",
            f"where the fleet's key is: meshagent fleet renew {own.name}",
        )
    if fault is CertificateFault.NOT_YET_VALID:
        return Cause(
            DialOutcome.OUR_CREDENTIAL,
            f"{who} closed the handshake. Its side says nothing (TLS), ours: by this device's clock your credential "
            f"becomes valid in {_long(own.not_before_s - wall_s)}, so the clock is wrong.",
            "set the clock (NTP, or date -s)",
        )
    return Cause(
        DialOutcome.REFUSED_US,
        f"{who} closed the handshake and says nothing (TLS). Our credential is valid by our clock: it was revoked "
        "or replaced over there, or the clock over there is wrong.",
        f"on that device: meshagent doctor   where the fleet's key is: meshagent fleet show {own.name}",
    )


def cause_of_failure(address: str, outcome: DialOutcome, detail: str) -> Cause:
    """What a failure before or after the handshake means."""
    match outcome:
        case DialOutcome.CONNECTION_REFUSED:
            return Cause(
                outcome,
                f"{address} refuses connections: no node runs there, or it listens on another port.",
                "on that device: meshagent status",
            )
        case DialOutcome.NO_ROUTE:
            return Cause(outcome, f"there is no way to {address} from this device ({detail}).", "ip route")
        case DialOutcome.SILENT:
            return Cause(
                outcome,
                f"{address} does not answer: switched off, out of range, frozen, or a firewall drops its port.",
            )
        case DialOutcome.UNRESOLVED:
            return Cause(outcome, f"{address}: the host name has no address.", "name it by its IP address")
        case DialOutcome.NOT_TLS:
            return Cause(outcome, f"something listens at {address} that is no meshagent node ({detail}).")
        case DialOutcome.REFUSED_US:
            return Cause(
                outcome,
                f"{address} refuses links with this device for now ({detail}).",
                "on that device: meshagent doctor",
            )
        case DialOutcome.OUR_CREDENTIAL:
            return Cause(outcome, f"{address} was not dialled: {detail}.", "meshagent doctor")
        case DialOutcome.REVOKED:
            return Cause(outcome, f"the device at {address} was revoked; this one does not link with it.")
        case DialOutcome.BUSY:
            return Cause(outcome, f"{address} has no room for another link.")
        case _:
            return Cause(outcome, f"the link to {address} failed: {detail or 'no reason given'}.")


def _long(seconds: float) -> str:
    if seconds < 2 * 3600:
        return f"{max(1, round(seconds / 60))} min"
    if seconds < 2 * 86400:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86400:.0f} days"
