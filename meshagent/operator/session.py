"""What a command asks, wherever the answer comes from: a running node's socket, or a node that visits for the moment.

A `Desk` answers requests of operator.proto with plain documents: `desk.py` from the node in this process, `client.py`
from one behind a socket. `open_session` decides which.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from meshagent.operator.exits import CommandError, Exit
from meshagent.operator.places import DevPlaces, Running, running_nodes

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from meshagent.operator.grammar import Screen

Document = dict[str, Any]
"""A JSON object with `schema`."""


class Desk(Protocol):
    """Answers requests; the request's type says which method is meant."""

    async def ask(self, request: Message, *, timeout_s: float | None = None) -> Document:
        """One answer.

        Raises:
            CommandError: the node refuses, cannot, or is gone.
        """

    def stream(self, request: Message) -> AsyncGenerator[Document, None]:
        """Answers until the end, or until the caller closes it."""

    @property
    def visiting(self) -> bool:
        """True where the node lives only for this command."""


def choose(screen: Screen, nodes: list[Running]) -> Running | None:
    """The node to ask among those that run here: by any unique prefix of its name, else the first.

    Raises:
        CommandError: `--node` names none, or several.
    """
    if not screen.node:
        return nodes[0] if nodes else None
    exact = [n for n in nodes if n.name == screen.node]
    matches = exact or [n for n in nodes if n.name.startswith(screen.node)]
    if len(matches) == 1:
        return matches[0]
    running = ", ".join(n.name for n in nodes) or "none"
    raise CommandError(
        f"--node {screen.node} names {len(matches)} of the nodes that run here ({running}).",
        exit_code=Exit.UNREACHED if not matches else Exit.USAGE,
        next_step=f"meshagent run ROLE --name {screen.node}{' --dev' if screen.dev else ''}" if not matches else None,
    )


@contextlib.asynccontextmanager
async def open_session(
    screen: Screen,
    *,
    visit: bool = True,
    flags: Mapping[str, tuple[str, object]] | None = None,
    always_visit: bool = False,
) -> AsyncIterator[Desk]:
    """A desk for the length of a command.

    Args:
        screen: says which node (`--node`, `--dev`).
        visit: join as a visitor where no node runs; False: say that none runs.
        flags: configuration from the command's own options.
        always_visit: visit even where a node runs, unless `--node` names one: on the throw-away fleet, where every
            node is this machine, a submission must outlive the node that wins it.

    Raises:
        CommandError: no node runs and visiting is not wanted.
    """
    config = screen.load_config(flags)
    found = choose(screen, list(running_nodes(config, dev=screen.dev)))
    if found is not None and (screen.node or not always_visit):
        from meshagent.operator.client import SocketDesk

        async with SocketDesk.connect(found) as desk:
            yield desk
        return
    if not visit:
        dev = " --dev" if screen.dev else ""
        raise CommandError(
            "No node runs on this machine" + (" in the throw-away fleet." if screen.dev else "."),
            exit_code=Exit.UNREACHED,
            next_step=f"meshagent run ROLE{dev}"
            + ("" if screen.dev or not DevPlaces.of(config).exists else "   or add --dev"),
        )
    from meshagent.operator.visitor import visiting_desk

    async with visiting_desk(screen, config) as desk:
        yield desk
