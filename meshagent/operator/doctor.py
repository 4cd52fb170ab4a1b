"""`meshagent doctor`: gathers the facts, lets `diagnosis.py` judge them, and says the result.

A running node is asked for its own view. Where none runs, doctor looks at the identity, tries the port, and then visits
the mesh for a moment with a whole node, so that what it finds is what a node would find.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from meshagent.errors import IdentityError, MeshAgentError
from meshagent.identity.credential import CertificateError, CertificateFault
from meshagent.identity.device import CREDENTIAL_FILE, KEY_FILE, DeviceIdentity
from meshagent.operator.device import wall_s
from meshagent.operator.diagnosis import (
    Facts,
    Finding,
    IdentityFacts,
    Level,
    NetworkFacts,
    diagnose,
    document,
    healthy,
)
from meshagent.operator.exits import Exit
from meshagent.operator.facts import from_document, identity_facts, interface_facts
from meshagent.operator.places import DevPlaces, Running, running_nodes, state_of, who_has_port
from meshagent.operator.render import clean, padded
from meshagent.operator.secrets import DEVICE_VARIABLE, unsealed
from meshagent.operator.session import choose
from meshagent.transport.sockets import port_holder
from meshagent.wire.v1 import operator_pb2 as pb

if TYPE_CHECKING:
    from pathlib import Path

    from meshagent.config import Config
    from meshagent.operator.grammar import Screen
    from meshagent.runtime.node import Node

LOOK_S: Final = 2.5
"""How long a visiting doctor listens: three mDNS queries and a handshake with whoever answers."""
COMPANY_S: Final = 0.8
"""With a peer linked, clocks and versions are known; others of the same network turn up in this time."""
_COLOURS: Final = {Level.OK: "good", Level.WARN: "warn", Level.FAIL: "bad"}


async def examine(screen: Screen, flags: Mapping[str, tuple[str, object]]) -> Exit:
    """Examine and tell; exit 1 where something is wrong."""
    config = screen.load_config(flags)
    running = choose(screen, list(running_nodes(config, dev=screen.dev)))
    if running is not None:
        findings, asked = await _ask(running), running.name
    else:
        findings, asked = await _probe(screen, config), ""
    screen.answer(document(findings, asked=asked), report(screen, findings))
    return Exit.DONE if healthy(findings) else Exit.FAILED


async def _ask(running: Running) -> list[Finding]:
    from meshagent.operator.client import SocketDesk

    async with SocketDesk.connect(running) as desk:
        return diagnose(from_document(await desk.ask(pb.FactsRequest())))


async def _probe(screen: Screen, config: Config) -> list[Finding]:
    """Without a node: what can be seen from outside, then a visit."""
    now_s = wall_s()
    identity = IdentityFacts(name="visitor", fault="") if screen.dev else local_identity(state_of(config), now_s)
    if screen.dev and not DevPlaces.of(config).exists:
        identity = IdentityFacts(
            fault="no_dev",
            detail="there is no throw-away fleet on this machine yet.",
            next_step="meshagent run hello.py --dev",
        )
    network = local_network(config)
    if identity.fault or not network.interfaces:
        return diagnose(Facts(now_s=now_s, identity=identity, network=network))
    from meshagent.operator.visitor import visiting_desk

    try:
        async with visiting_desk(screen, config, settle=False) as desk:
            await _listen(desk.node, min(LOOK_S, screen.timeout_s or LOOK_S))
            facts = from_document(await desk.ask(pb.FactsRequest()))
    except MeshAgentError as error:
        trouble = Finding(level=Level.FAIL, topic="visit", sentence=str(error), next_step=error.next_step)
        return [*diagnose(Facts(now_s=now_s, identity=identity, network=network)), trouble]
    findings = diagnose(facts)
    if not network.port_open:
        # the visitor took any port; whether a node could have the configured one was tried before
        findings = [
            *[f for f in findings if f.topic == "identity"],
            *[f for f in diagnose(Facts(now_s=now_s, identity=identity, network=network)) if f.topic == "port"],
            *[f for f in findings if f.topic != "identity"],
        ]
    return findings


async def _listen(node: Node, limit_s: float) -> None:
    """Until the time is over; in company for a moment only, since what is compared is known then."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    while (listened_s := loop.time() - began_s) < limit_s:
        if listened_s >= COMPANY_S and node.peers():
            return
        await asyncio.sleep(0.05)


def local_identity(state: Path, now_s: float) -> IdentityFacts:
    """What the files in the state folder say at that wall time."""
    if not (state / KEY_FILE).exists():
        return IdentityFacts(fault="no_identity")
    try:
        identity = unsealed(
            "this device's key", DEVICE_VARIABLE, lambda p: DeviceIdentity.load(state, now_s=now_s, passphrase=p)
        )
    except CertificateError as error:
        return IdentityFacts(
            fault="unreadable", detail=f"the credential does not hold: {error}", next_step=error.next_step
        )
    except IdentityError as error:
        if not (state / CREDENTIAL_FILE).exists():
            return IdentityFacts(fault="no_fleet")
        return IdentityFacts(fault="unreadable", detail=str(error), next_step=error.next_step)
    book = identity.open_book(now_s=now_s)
    fault = identity.credential.fault_at(now_s)
    if book.revoked(identity.node_id) is not None:
        fault = CertificateFault.REVOKED
    return identity_facts(identity.credential, identity.trust.fleet_name, fault=str(fault or ""))


def local_network(config: Config) -> NetworkFacts:
    """Interfaces, and whether the port could be had."""
    port = config.network.port
    holder = ""
    free = port == 0 or _bindable(port)
    if not free:
        own = who_has_port(config, port)
        found = port_holder(port)
        if own is not None and own.name:
            holder = f"another meshagent node ({own.name}, pid {own.pid})"
        elif found is not None:
            holder = f"another meshagent node (pid {found.pid})" if found.node else f"{found.command} (pid {found.pid})"
        else:
            holder = "another program"
    return NetworkFacts(
        **interface_facts(config, None, {}), port=port, port_open=free, port_holder=holder, mdns=config.network.mdns
    )


def _bindable(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC does: TIME_WAIT is no obstacle
        try:
            probe.bind(("", port))
            probe.listen(1)
        except OSError:
            return False
    return True


def report(screen: Screen, findings: Sequence[Finding]) -> str:
    """The lines that a person reads."""
    paint = screen.paint
    lines = []
    for finding in findings:
        word = padded(str(finding.level) if finding.level is Level.OK else str(finding.level).upper(), 5)
        lines.append(f"{paint(word, _COLOURS[finding.level])} {padded(finding.topic, 10)} {clean(finding.sentence)}")
        if finding.next_step:
            lines.append(f"      {padded('next', 10)} {clean(finding.next_step)}")
    if healthy(findings):
        lines.append(paint("Healthy.", "good"))
    return "\n".join(lines)
