"""Commands that change something: withdraw, resolve, stop a node, spread a revocation."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Final

from meshagent.operator.exits import CommandError, Exit
from meshagent.operator.places import running_in
from meshagent.operator.render import clean
from meshagent.operator.session import open_session
from meshagent.types import short
from meshagent.wire.v1 import operator_pb2 as pb

if TYPE_CHECKING:
    from meshagent.operator.grammar import Screen

CANCEL_WAIT_S: Final = 35.0
"""The desk waits 30 s for a holder that is out of reach."""
STOP_SLACK_S: Final = 10.0
"""Beyond the node's own drain time: handing back, closing links, the interpreter's end."""
LOOK_AGAIN_S: Final = 0.05
SPREAD_WAIT_S: Final = 3.0
"""How long a visitor looks for somebody to give the list to."""


async def cancel_task(screen: Screen, task: str, *, yes: bool) -> Exit:
    """`meshagent cancel`."""
    async with open_session(screen, visit=False) as desk:
        screen.confirm(f"Withdraw {short(task)}? What was done of it is lost.", yes=yes)
        document = await desk.ask(pb.CancelRequest(task=task, wait=True), timeout_s=screen.timeout_s or CANCEL_WAIT_S)
    label = short(clean(document["task"]))
    state = clean(document["state"] or "?").upper()
    if not document["withdrawn"]:
        screen.answer(document, f"{label} had ended already: {state}")
        return Exit.DONE
    screen.answer(document, f"{label} {state}")
    if document["state"] == "in_doubt":
        screen.say(
            "Its holder is past the point of no return: a person must look whether it was done.\n"
            f"  next: meshagent resolve {label} --done   or: meshagent resolve {label} --not-done"
        )
        return Exit.FAILED
    return Exit.DONE


async def resolve_task(screen: Screen, task: str, *, done: bool | None, yes: bool) -> Exit:
    """`meshagent resolve`."""
    if done is None:
        raise CommandError(
            "Was it done?",
            exit_code=Exit.USAGE,
            next_step=f"meshagent resolve {task} --done   or, to call again: meshagent resolve {task} --not-done",
        )
    async with open_session(screen, visit=False) as desk:
        what = "count as done, result unknown" if done else "be called again, though its holder may still do it"
        screen.confirm(f"Shall {short(task)} {what}?", yes=yes)
        document = await desk.ask(pb.ResolveRequest(task=task, done=done))
    screen.answer(document, f"{short(clean(document['task']))} is {'done' if done else 'called again'}")
    return Exit.DONE


async def stop_node(screen: Screen, *, now: bool, yes: bool) -> Exit:
    """`meshagent stop`."""
    async with open_session(screen, visit=False) as desk:
        running = desk.running  # type: ignore[attr-defined]  # visit=False gives a socket's desk
        screen.confirm(f"Stop {running.name or 'the node'} (pid {running.pid})?", yes=yes)
        document = await desk.ask(pb.ShutdownRequest(now=now))
    limit_s = screen.timeout_s or float(document["drain_s"]) + STOP_SLACK_S
    try:
        async with asyncio.timeout(limit_s):
            while (still := running_in(running.state)) is not None and still.pid == running.pid:  # noqa: ASYNC110  # another process
                await asyncio.sleep(LOOK_AGAIN_S)
    except TimeoutError:
        raise CommandError(
            f"{running.name} (pid {running.pid}) has not left after {limit_s:.0f} s.",
            exit_code=Exit.UNFINISHED,
            next_step=f"meshagent stop --now{' --dev' if screen.dev else ''}   or kill {running.pid}",
        ) from None
    screen.answer(document, f"{clean(document['name'])} has left")
    return Exit.DONE


async def spread_list(screen: Screen, path: Path) -> None:
    """`meshagent fleet spread`."""
    from meshagent.operator.fleet import read_list

    data = read_list(path)
    async with open_session(screen) as desk:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + (screen.timeout_s or SPREAD_WAIT_S)
        while desk.visiting and loop.time() < until_s:
            if (await desk.ask(pb.PeersRequest()))["peers"]:
                break
            await asyncio.sleep(LOOK_AGAIN_S)
        document = await desk.ask(pb.SpreadRequest(revocations=data))
        if desk.visiting and not document["peers"]:
            raise CommandError(
                "Nobody of the fleet is in reach who could pass the list on.",
                exit_code=Exit.UNREACHED,
                next_step="meshagent doctor",
            )
    news = "new, passed on" if document["news"] else "known already"
    screen.answer(document, f"{path.name}: {news} to {document['peers']} peer{'' if document['peers'] == 1 else 's'}")
