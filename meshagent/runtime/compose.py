"""A real node from a configuration: identity and journal of its state folder, gRPC links, the system's clocks.

The only place that knows all the real implementations of the ports; the simulator has its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random, SystemRandom
from typing import Any, Final, Literal, TypeVar

from meshagent.config import Config
from meshagent.core.contract_net.interface import ContractConfig
from meshagent.core.members import PRESETS, MembershipConfig
from meshagent.core.ports import HintSource, PeerHint
from meshagent.core.travel import Body, Charger, NoGo, SiteMap, Wall
from meshagent.identity.device import DeviceIdentity
from meshagent.runtime.bay import DeviceChoice
from meshagent.runtime.clock import SystemClock
from meshagent.runtime.journal import SqliteJournal
from meshagent.runtime.node import Node
from meshagent.runtime.resources import Capacity, detect
from meshagent.runtime.settings import NodeSettings
from meshagent.sdk.role import RoleSpec
from meshagent.transport.config import TransportConfig
from meshagent.transport.mesh import GrpcTransport

T = TypeVar("T")

JOURNAL_FILE: Final = "journal.db"
RENEWALS_A_LEASE: Final = 3.2
"""renew_s = lease_s / 3.2: two renewals may be lost without losing the lease."""
STRAGGLERS_S: Final = 0.5
"""The node has waited for its own work and has left; what still runs then is a role's, and was told to end before."""
DAY_S: Final = 86_400.0

log = logging.getLogger(__name__)


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` on uvloop where it is installed, else on asyncio's own loop; returns although a role does not end."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        try:
            return runner.run(main)
        finally:
            _abandon_stragglers(runner.get_loop())


def _abandon_stragglers(loop: asyncio.AbstractEventLoop) -> None:
    # A role's coroutine that swallows its cancellation would be waited for without end when the loop is closed.
    left = asyncio.all_tasks(loop)
    if not left:
        return
    for task in left:
        task.cancel()
    _, left = loop.run_until_complete(asyncio.wait(left, timeout=STRAGGLERS_S))
    for task in left:
        asyncio.tasks._unregister_task(task)
        task._log_destroy_pending = False  # type: ignore[attr-defined]


def contract_config(config: Config) -> ContractConfig:
    """Timing of negotiations; what the file does not name follows from the lease."""
    section = config.contract
    return ContractConfig(
        reply_within_s=section.reply_within_s,
        award_timeout_s=section.reply_within_s,
        lease_s=section.lease_s,
        renew_s=section.lease_s / RENEWALS_A_LEASE,
        backoff_s=min(0.5, section.backoff_max_s),
        backoff_max_s=section.backoff_max_s,
        award_tolerance=section.award_tolerance,
        potential_p=section.potential_p,
    )


def membership_config(config: Config) -> MembershipConfig | None:
    """Timing of membership: the preset's, with what the file names; None where it is off.

    Raises:
        ConfigurationError: the durations do not fit each other.
    """
    section = config.membership
    if not section.enabled:
        return None
    return replace(
        PRESETS[config.preset],
        protocol_period_s=section.protocol_period_s,
        probe_timeout_s=section.probe_timeout_s,
        suspicion_multiplier=section.suspicion_multiplier,
        gossip_interval_s=section.gossip_interval_s,
        push_pull_s=section.push_pull_s,
    )


def site_map(config: Config) -> SiteMap:
    """The map as travel wants it. Without any site on it, sites lie at the origin."""
    section = config.map
    return SiteMap(
        sites=section.sites,
        walls=tuple(Wall(start, end) for start, end in section.walls),
        no_go=tuple(NoGo(area.name, area.polygon, frozenset(area.unless)) for area in section.no_go),
        chargers=tuple(Charger(charger.at, charger.power_w) for charger in section.chargers),
        unplaced=None if section.sites else (0.0, 0.0),
    )


def node_settings(
    config: Config, *, name: str, certified: Sequence[str], fleet: str, visitor: bool = False, simulate: bool = False
) -> NodeSettings:
    """Everything but the ports.

    Args:
        config: the effective configuration.
        name: where the configuration names none.
        certified: capabilities that the credential certifies.
        fleet: the fleet's name, for people.
        visitor: a node for the length of one command.
        simulate: stand-ins for devices that the configuration does not name.
    """
    body = config.body
    place = body.position_m
    return NodeSettings(
        name=config.node.name or name,
        contract=contract_config(config),
        membership=membership_config(config),
        capabilities=frozenset(config.node.capabilities) | frozenset(certified),
        certified=frozenset(certified) - frozenset(config.node.capabilities),
        site_map=site_map(config),
        body=Body(speed_mps=body.speed_mps, move_w=body.move_w, idle_w=body.idle_w, battery_wh=body.battery_wh),
        position_m=(place[0], place[1]) if place else (0.0, 0.0),
        battery_reserve_soc=config.resources.battery_reserve_soc,
        battery_soc=body.battery_soc if body.battery_soc >= 0 else None,
        memory_mib=config.resources.memory_mib,
        cores=config.resources.cores,
        queue=config.tasks.queue,
        custodians=config.contract.custodians,
        worker_processes=config.tasks.worker_processes,
        blocked_loop_s=config.tasks.blocked_loop_ms / 1000,
        drain_s=config.tasks.drain_s,
        sensors={
            name: DeviceChoice(driver=section.driver, options=section.options)
            for name, section in config.sensors.items()
            if section.driver
        },
        actuators={
            name: DeviceChoice(driver=section.driver, options=section.options, stop_timeout_s=section.stop_timeout_s)
            for name, section in config.actuators.items()
            if section.driver
        },
        simulate_devices=simulate,
        announce=config.permissions.announce,
        perform=config.permissions.perform,
        visitor=visitor,
        journal_sync=config.journal.sync,
        fleet=fleet,
    )


def transport_config(config: Config) -> TransportConfig:
    """Ports and durations of the links."""
    network = config.network
    return TransportConfig(
        port=network.port,
        interfaces=network.interfaces,
        mdns=network.mdns,
        keepalive_s=network.keepalive_s,
        keepalive_timeout_s=network.keepalive_timeout_s,
    )


def _capacity(config: Config, state: Path) -> Capacity:
    found = detect(state, memory_mib=config.resources.memory_mib)
    return replace(found, cores=float(config.resources.cores)) if config.resources.cores else found


@contextlib.asynccontextmanager
async def open_node(
    config: Config,
    state: Path,
    roles: Sequence[RoleSpec] = (),
    *,
    fleet: str = "",
    passphrase: str | None = None,
    visitor: bool = False,
    simulate: bool = False,
    on_failure: Callable[[Exception], None] | None = None,
) -> AsyncIterator[Node]:
    """A node that is ready, from the identity in `state`; it leaves, bounded in time, when the block ends.

    Args:
        config: the effective configuration.
        state: the device's folder: identity, journal. The caller holds its lock.
        roles: what to host.
        fleet: the fleet's name, for people.
        passphrase: of the device's key, where it has one.
        visitor: a node for the length of one command.
        simulate: stand-ins for devices that the configuration does not name (`--dev`).
        on_failure: told when the journal failed and the node must stop.

    Raises:
        IdentityError: no identity or no credential in `state`.
        JournalError: the journal is damaged, or another process holds it.
        TransportError: the port cannot be had.
        ConfigurationError: a driver does not exist or does not fit.
    """
    clock = SystemClock()
    identity = DeviceIdentity.load(state, now_s=clock.wall_s(), passphrase=passphrase)
    sync: Literal["full", "normal"] = "normal" if config.journal.sync == "normal" else "full"
    journal = SqliteJournal(state / JOURNAL_FILE, sync)
    try:
        journal.prune(clock.wall_s() - config.journal.keep_days * DAY_S)
        rng = Random(SystemRandom().getrandbits(128))
        book = identity.open_book(now_s=clock.wall_s())
        transport = GrpcTransport(
            identity, book, transport_config(config), Random(rng.getrandbits(64)), wall_s=clock.wall_s
        )
        for address in config.network.peers:
            host, _, port = address.rpartition(":")
            transport.add_hint(PeerHint(host=host.strip("[]"), port=int(port), source=HintSource.STATIC))
        node = Node(
            node_settings(
                config,
                name=identity.name,
                certified=identity.credential.capabilities,
                fleet=fleet,
                visitor=visitor,
                simulate=simulate,
            ),
            identity=identity,
            book=book,
            transport=transport,
            journal=journal,
            clock=clock,
            rng=rng,
            roles=roles,
            capacity=_capacity(config, state),
            on_failure=on_failure,
        )
        async with node:
            log.info(
                "%s (%s) is up on port %s, fleet %s", node.name, node.id[:8], transport.listen_port, fleet or "unnamed"
            )
            yield node
    finally:
        journal.close()
