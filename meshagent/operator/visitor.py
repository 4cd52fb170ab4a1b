"""A node for the length of one command: it joins, asks, and leaves.

It is a full member with the device's own identity and journal; it offers nothing and takes any port. On the throw-away
fleet each visiting command has an identity of its own, kept for the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from meshagent.config import LogSection
from meshagent.operator import logs
from meshagent.operator.desk import NodeDesk
from meshagent.operator.dev import settle_in, take_visitor
from meshagent.operator.device import identity_of
from meshagent.operator.exits import CommandError, Exit
from meshagent.operator.facts import FactsMaker
from meshagent.operator.places import NodeLock, running_nodes, state_of
from meshagent.runtime.compose import open_node

if TYPE_CHECKING:
    from meshagent.config import Config
    from meshagent.operator.grammar import Screen
    from meshagent.runtime.node import Node

QUIET_S: Final = 0.2
"""Nobody new for so long: whoever is here has been found."""
LOOK_S: Final = 2.0
"""How long others are waited for at most, before the command goes on with whom it has found or waits itself."""

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def visiting_desk(
    screen: Screen, config: Config, *, settle: bool = True, state: Path | None = None
) -> AsyncIterator[NodeDesk]:
    """A desk of a visitor that has looked around.

    Args:
        screen: `--dev` visits the throw-away fleet.
        config: of this device.
        settle: wait until nobody new turns up; False: go on at once.
        state: visit with the identity in this folder; None: this device's, or on the throw-away fleet a free one.

    Raises:
        CommandError: another command visits with this device's identity.
        IdentityError: this device belongs to no fleet.
    """
    expected = 0
    if screen.dev:
        name, lock = take_visitor(config) if state is None else _take_again(state)
        expected = sum(1 for _ in running_nodes(config, dev=True))
        config = settle_in(config, name, lock)
    else:
        lock = NodeLock(state or state_of(config))
        if not lock.take():
            raise CommandError(
                "Another command visits with this device's identity right now.",
                exit_code=Exit.FAILED,
                next_step="wait for it, or run a node: meshagent run ROLE",
            )
        config = replace(config, network=replace(config.network, port=0))
    try:
        passphrase, fleet = identity_of(lock.state)
        logs.set_up(LogSection(format=config.log.format), level="debug" if screen.verbose else "warning")
        began_s = time.perf_counter()
        async with open_node(config, lock.state, fleet=fleet, passphrase=passphrase, visitor=True) as node:
            lock.describe(name="", port=0)
            if settle:
                await _look_around(screen, node, expected, began_s)
            desk = NodeDesk(node, visiting=True, facts=FactsMaker(node, config, lock.state))
            yield desk
    finally:
        lock.release()


def _take_again(state: Path) -> tuple[str, NodeLock]:
    lock = NodeLock(state)
    if not lock.take():
        raise CommandError("That visitor is on its way right now.", exit_code=Exit.FAILED, next_step="ask again")
    return f"visitor-{state.name.removeprefix('v')}", lock


async def _look_around(screen: Screen, node: Node, expected: int, began_s: float) -> None:
    """Until everybody who is known to run is linked, or nobody new has turned up for a moment."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + LOOK_S
    last_s = loop.time()
    found = 0
    while loop.time() < until_s:
        peers = node.peers()
        if len(peers) != found:
            if not found:
                first = peers[0]
                after_s = time.perf_counter() - began_s
                screen.say(f"joined as a visitor, found {first.name} ({first.id[:8]}) in {after_s:.2f} s")
            found, last_s = len(peers), loop.time()
        if found and (found >= expected if expected else loop.time() - last_s >= QUIET_S):
            return
        await asyncio.sleep(0.01)
