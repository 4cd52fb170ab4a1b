"""What TAB offers: tasks, peers, kinds and nodes of the living mesh, asked of the node on this machine.

Completion may never hang, print or fail: whatever goes wrong, nothing is offered.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from typing import Any, Final

from meshagent.errors import MeshAgentError
from meshagent.operator.render import clean

COMPLETE_TIMEOUT_S: Final = 1.0
"""Longer, and the person has typed the rest."""


def words_so_far() -> list[str]:
    """The command line that is being completed, as the shells pass it."""
    try:
        return shlex.split(os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS") or "")
    except ValueError:
        return []


def complete(what: str, prefix: str) -> list[tuple[str, str]]:
    """Candidates for `prefix`, each with a word of help that zsh and fish show; `what` is node, task, peer or kind."""
    words = words_so_far()
    dev = "--dev" in words
    try:
        from meshagent.operator.grammar import Screen
        from meshagent.operator.places import running_nodes

        screen = Screen(dev=dev, quiet=True)
        nodes = list(running_nodes(screen.load_config(), dev=dev))
        if what == "node":
            return [(n.name, f"pid {n.pid}") for n in nodes if n.name.startswith(prefix)]
        if not nodes:
            return []
        return _ask(screen, what, prefix)
    except (MeshAgentError, OSError, TimeoutError, ValueError, LookupError):
        return []  # a traceback inside the person's prompt helps nobody


def _help(candidate: Mapping[str, Any]) -> str:
    """A task's or peer's state; of a kind who performs it."""
    descriptions = candidate.get("descriptions")
    if isinstance(descriptions, dict):
        return ", ".join(sorted({name for names in descriptions.values() for name in names}))
    return str(candidate.get("help") or "")


def _ask(screen: object, what: str, prefix: str) -> list[tuple[str, str]]:
    import asyncio

    from meshagent.operator.grammar import Screen
    from meshagent.operator.session import open_session
    from meshagent.wire.v1 import operator_pb2 as pb

    assert isinstance(screen, Screen)

    async def ask() -> list[tuple[str, str]]:
        async with asyncio.timeout(COMPLETE_TIMEOUT_S), open_session(screen, visit=False) as desk:
            answer = await desk.ask(pb.CompleteRequest(what=what, prefix=prefix), timeout_s=COMPLETE_TIMEOUT_S)
            return [(clean(item["value"]), clean(_help(item))) for item in answer["candidates"]]

    return asyncio.run(ask())
