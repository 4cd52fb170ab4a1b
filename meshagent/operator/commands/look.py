"""`meshagent status | peers | tasks | watch | why | doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from meshagent.operator.commands.work import Peers, TaskName, _tasks, network_flags
from meshagent.operator.exits import Exit
from meshagent.operator.grammar import Screen, command

PANEL = "Look"


def add_to(app: typer.Typer) -> None:
    """Register the commands of this topic."""

    @command(app, rich_help_panel=PANEL)
    async def status(screen: Screen) -> None:
        """Who this node is, what it does, how it is."""
        from meshagent.operator.look import show_status

        await show_status(screen)

    @command(app, rich_help_panel=PANEL)
    async def peers(screen: Screen, peer: Peers = None) -> None:
        """Who is in reach, and what they offer."""
        from meshagent.operator.look import show_peers

        await show_peers(screen, network_flags(peer, None))

    @command(app, rich_help_panel=PANEL)
    async def tasks(
        screen: Screen, all_: Annotated[bool, typer.Option("--all", "-a", help="Ended ones too.")] = False
    ) -> None:
        """What is asked for, who does it, what it waits for."""
        from meshagent.operator.look import show_tasks

        await show_tasks(screen, ended_too=all_)

    @command(app, rich_help_panel=PANEL)
    async def watch(
        screen: Screen,
        task: Annotated[
            str, typer.Argument(metavar="[TASK]", autocompletion=_tasks, help="Only this task", show_default=False)
        ] = "",
    ) -> Exit:
        """What happens, one line an event; --json gives JSON Lines. Ctrl-C ends it."""
        from meshagent.operator.look import watch_events

        return await watch_events(screen, task)

    @command(app, rich_help_panel=PANEL)
    async def why(screen: Screen, task: TaskName) -> None:
        """The story of a task: every call, bid, refusal, award, renewal and failure, in order."""
        from meshagent.operator.look import show_why

        await show_why(screen, task)

    @command(app, rich_help_panel=PANEL)
    async def doctor(screen: Screen, peer: Peers = None) -> Exit:
        """Say in sentences what keeps this device from working with its peers. Exit 1 where something is wrong."""
        from meshagent.operator.doctor import examine

        return await examine(screen, network_flags(peer, None))
