"""`--dev`: a fleet of this machine's own, to try things with.

Its authority lies beside its nodes, which is the only thing that is weaker than in any other fleet: every node has a
key and credential of its own, links are mutual TLS over the loopback interface, messages are signed, leases run.
Nodes and visitors have state folders that are used again, so that `why` can tell about yesterday.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from meshagent.identity.files import private_folder
from meshagent.identity.fleet import FleetAuthority, dev_identity
from meshagent.operator.device import wall_s
from meshagent.operator.exits import CommandError, Exit
from meshagent.operator.places import DEV_NAMES, MAX_VISITORS, DevPlaces, NodeLock, running_in
from meshagent.operator.render import table

if TYPE_CHECKING:
    from meshagent.config import Config
    from meshagent.operator.grammar import Screen


def settle_in(config: Config, name: str, lock: NodeLock) -> Config:
    """The configuration of the dev node whose state folder `lock` holds; founds fleet and identity where needed."""
    places = DevPlaces.of(config)
    private_folder(places.root)
    dev_identity(places.authority, lock.state, name, now_s=wall_s())
    node = replace(config.node, name=config.node.name or name, state_dir=str(lock.state.absolute()))
    return replace(config, node=node)


def take_node(config: Config, name: str) -> tuple[str, NodeLock]:
    """The lock of a free state folder: that of `name`, or of the first name that nobody uses.

    Raises:
        CommandError: a node of that name runs, or all names are taken.
    """
    places = DevPlaces.of(config)
    for candidate in [name] if name else DEV_NAMES:
        lock = NodeLock(places.node(candidate))
        private_folder(places.root)
        if lock.take():
            return candidate, lock
        if name:
            found = running_in(lock.state)
            raise CommandError(
                f"{name} runs already in the throw-away fleet{f' (pid {found.pid})' if found else ''}.",
                exit_code=Exit.CONFIGURATION,
                next_step=f"meshagent status --dev --node {name}   or another name: --name {name}-2",
            )
    raise CommandError("Every name is taken.", exit_code=Exit.CONFIGURATION, next_step="give one: --name NAME")


def take_visitor(config: Config) -> tuple[str, NodeLock]:
    """A state folder for a visitor; several commands may visit at once."""
    places = DevPlaces.of(config)
    private_folder(places.root)
    for number in range(1, MAX_VISITORS + 1):
        lock = NodeLock(places.visitor(number))
        if lock.take():
            return f"visitor-{number}", lock
    raise CommandError(
        f"{MAX_VISITORS} commands visit the throw-away fleet already.",
        exit_code=Exit.FAILED,
        next_step="end some of them",
    )


def show_dev(screen: Screen) -> None:
    """`meshagent fleet dev`."""
    places = DevPlaces.of(screen.load_config())
    private_folder(places.root)
    now_s = wall_s()
    if not places.exists:
        FleetAuthority.create(places.authority, "dev", now_s=now_s).close()
    with FleetAuthority.open(places.authority) as fleet:
        fleet_id = fleet.trust.fleet_id
    nodes: list[dict[str, Any]] = []
    for state in places.states():
        found = running_in(state)
        nodes.append(
            {
                "name": state.name,
                "state_dir": str(state),
                "pid": found.pid if found else None,
                "port": found.port if found else None,
            }
        )
    document = {"schema": "meshagent.dev/1", "folder": str(places.root), "fleet_id": fleet_id, "nodes": nodes}
    text = f"throw-away fleet dev (root {fleet_id[:4]}..) in {places.root}"
    if nodes:
        rows = [(n["name"], str(n["pid"] or "-"), str(n["port"] or "-")) for n in nodes]
        text += "\n" + table(("NAME", "PID", "PORT"), rows)
    screen.answer(document, text)
    if not any(n["pid"] for n in nodes):
        screen.say("  next: meshagent run hello.py --dev")


def clean_dev(screen: Screen, *, yes: bool) -> None:
    """`meshagent fleet dev --clean`."""
    places = DevPlaces.of(screen.load_config())
    running = [r for s in [*places.states(), *places.visitor_states()] if (r := running_in(s)) is not None]
    if running:
        raise CommandError(
            f"{', '.join(r.name or r.state.name for r in running)} still runs.",
            exit_code=Exit.FAILED,
            next_step=f"end it: kill {' '.join(str(r.pid) for r in running)}",
        )
    existed = places.root.exists()
    if existed:
        screen.confirm(f"Delete {places.root}: keys, journals, everything?", yes=yes)
        shutil.rmtree(places.root)
    screen.answer(
        {"schema": "meshagent.dev_cleaned/1", "folder": str(places.root), "existed": existed},
        f"deleted {places.root}" if existed else "there was none",
    )
