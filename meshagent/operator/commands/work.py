"""`meshagent run | submit | cancel | resolve | stop`."""

from __future__ import annotations

from typing import Annotated

import typer

from meshagent.operator.exits import Exit
from meshagent.operator.grammar import Screen, command, parse_duration

PANEL = "Work"


def _tasks(incomplete: str) -> list[tuple[str, str]]:
    from meshagent.operator.completion import complete

    return complete("task", incomplete)


def _kinds(incomplete: str) -> list[tuple[str, str]]:
    from meshagent.operator.completion import complete

    return complete("kind", incomplete)


TaskName = Annotated[str, typer.Argument(metavar="TASK", autocompletion=_tasks, help="Any unique prefix: check-7k2f")]
Peers = Annotated[
    list[str] | None,
    typer.Option(
        "--peer", metavar="HOST:PORT", help="Always try this address too; may be repeated.", show_default=False
    ),
]
Preset = Annotated[
    str | None, typer.Option("--preset", metavar="loopback|lan|field", help="Timings.", show_default=False)
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Answer the question with yes.")]


def network_flags(
    peers: list[str] | None, preset: str | None, port: int | None = None, name: str | None = None
) -> dict[str, tuple[str, object]]:
    """What the options of a command say, as configuration."""
    flags: dict[str, tuple[str, object]] = {}
    if peers:
        flags["network.peers"] = ("--peer", list(peers))
    if preset is not None:
        flags["preset"] = ("--preset", preset)
    if port is not None:
        flags["network.port"] = ("--port", port)
    if name is not None:
        flags["node.name"] = ("--name", name)
    return flags


def add_to(app: typer.Typer) -> None:
    """Register the commands of this topic."""

    @command(app, rich_help_panel=PANEL)
    def run(
        screen: Screen,
        roles: Annotated[
            list[str] | None,
            typer.Argument(
                metavar="ROLE...", help="An entry point, module:Class or file.py[:Class]", show_default=False
            ),
        ] = None,
        name: Annotated[
            str | None, typer.Option("--name", help="What people call this node.", show_default=False)
        ] = None,
        peer: Peers = None,
        preset: Preset = None,
        port: Annotated[int | None, typer.Option("--port", help="TCP port; 0 picks one.", show_default=False)] = None,
    ) -> Exit:
        """Run a node with these roles until Ctrl-C."""
        from meshagent.operator.run import run_node

        return run_node(screen, roles or [], network_flags(peer, preset, port, name))

    @command(app, rich_help_panel=PANEL)
    async def submit(
        screen: Screen,
        kind: Annotated[
            str, typer.Argument(metavar="KIND", autocompletion=_kinds, help="Task kind, or - for JSON on stdin")
        ],
        fields: Annotated[
            list[str] | None, typer.Argument(metavar="field=value...", help="The task's fields", show_default=False)
        ] = None,
        within: Annotated[
            float | None,
            typer.Option(
                "--within",
                parser=parse_duration,
                metavar="10m",
                help="Time allowed from acceptance.",
                show_default=False,
            ),
        ] = None,
        key: Annotated[
            str, typer.Option("--key", help="Asking twice under one key asks once.", show_default=False)
        ] = "",
        priority: Annotated[int, typer.Option("--priority", help="Higher is served first.")] = 0,
        durability: Annotated[
            str,
            typer.Option(
                "--durability", metavar="local|replicated", help="Who must hold the task.", show_default=False
            ),
        ] = "",
        delivery: Annotated[
            str,
            typer.Option(
                "--delivery",
                metavar="at_most_once|at_least_once",
                help="Instead of what the kind says.",
                show_default=False,
            ),
        ] = "",
        queue: Annotated[bool, typer.Option("--queue", help="Wait for somebody who performs it.")] = False,
        no_wait: Annotated[bool, typer.Option("--no-wait", help="Leave it with the node and return.")] = False,
        check: Annotated[bool, typer.Option("--check", help="Validate and send nothing.")] = False,
        peer: Peers = None,
        preset: Preset = None,
    ) -> Exit:
        """Ask the mesh to do a task, and wait for its result."""
        from meshagent.operator.submit import Wish, submit_task

        wish = Wish(
            kind=kind,
            fields=tuple(fields or ()),
            within_s=within,
            key=key,
            priority=priority,
            durability=durability,
            delivery=delivery,
            queue=queue,
            wait=not no_wait,
            check=check,
        )
        return await submit_task(screen, wish, network_flags(peer, preset))

    @command(app, rich_help_panel=PANEL)
    async def cancel(screen: Screen, task: TaskName, yes: Yes = False) -> Exit:
        """Withdraw a task."""
        from meshagent.operator.change import cancel_task

        return await cancel_task(screen, task, yes=yes)

    @command(app, rich_help_panel=PANEL)
    async def resolve(
        screen: Screen,
        task: TaskName,
        done: Annotated[bool | None, typer.Option("--done/--not-done", help="Was it done, or call again?")] = None,
        yes: Yes = False,
    ) -> Exit:
        """Decide a task that is in doubt: its holder is out of reach and nobody knows whether it was done."""
        from meshagent.operator.change import resolve_task

        return await resolve_task(screen, task, done=done, yes=yes)

    @command(app, rich_help_panel=PANEL)
    async def stop(
        screen: Screen,
        now: Annotated[bool, typer.Option("--now", help="Without finishing or handing back.")] = False,
        yes: Yes = False,
    ) -> Exit:
        """Ask the node on this machine to finish or hand back its tasks and leave."""
        from meshagent.operator.change import stop_node

        return await stop_node(screen, now=now, yes=yes)
