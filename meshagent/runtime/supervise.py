"""Where code that is not ours may fail: the only place that catches broadly.

Role code raises, exits and hangs; none of it takes the node down. `attempt` turns whatever a call raises into a value
that the caller must look at; `supervise` keeps a loop alive with growing pauses. `SystemExit` counts as raising: a
role that calls `sys.exit()` ends its own work, not the node. `KeyboardInterrupt` and cancellation pass through.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from meshagent.core.acts import MAX_TEXT_CHARS

T = TypeVar("T")

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 30.0
"""A loop that fails at once is tried again after 0.1 s, doubling to 30 s: a broken sensor must not fill the log."""
CALM_S: Final = 60.0
"""A loop that ran this long before it failed starts again with the shortest pause."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Raised:
    """Something failed: the error itself for the local log, one sentence for peers."""

    error: BaseException

    @property
    def sentence(self) -> str:
        """Type and message, cut to what an act may carry; no traceback and no path of this machine."""
        return sentence_of(self.error)

    def traceback(self) -> str:
        """The whole story, for the local log alone; how our own code came to call it is no part of it."""
        trail = self.error.__traceback__
        while trail is not None and str(trail.tb_frame.f_globals.get("__name__", "")).startswith("meshagent."):
            trail = trail.tb_next
        return "".join(traceback.format_exception(type(self.error), self.error, trail or self.error.__traceback__))


def sentence_of(error: BaseException) -> str:
    """`ValueError: no such row`, one line, bounded."""
    name = type(error).__name__
    text = " ".join(str(error).split())
    return cut(f"{name}: {text}" if text else name)


def cut(text: str, most: int = MAX_TEXT_CHARS) -> str:
    """`text` as an act may carry it: lone surrogates replaced, at most `most` characters."""
    clean = text.encode("utf-8", "replace").decode("utf-8")
    return clean if len(clean) <= most else clean[: most - 1] + "…"


def attempt(function: Callable[[], T]) -> T | Raised:
    """Call it; what it raises comes back as a value."""
    try:
        return function()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the boundary to role code
        return Raised(error)


async def attempt_async(work: Awaitable[T]) -> T | Raised:
    """Await it; what it raises comes back as a value. Cancellation of the caller passes through.

    A `CancelledError` that nobody asked for (the code awaited something that was cancelled) counts as raised: else one
    handler could end the loop that calls it.
    """
    try:
        return await work
    except asyncio.CancelledError as error:
        caller = asyncio.current_task()
        if caller is None or caller.cancelling():
            raise
        return Raised(error)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the boundary to role code
        return Raised(error)


async def supervise(name: str, body: Callable[[], Awaitable[None]], now_s: Callable[[], float]) -> None:
    """Run `body` until it returns; when it raises say so and run it again after a pause.

    Args:
        name: how the log calls it.
        body: started anew each time.
        now_s: the node's clock.
    """
    pause_s = FIRST_PAUSE_S
    while True:
        since_s = now_s()
        ended = await attempt_async(body())
        if not isinstance(ended, Raised):
            return
        pause_s = FIRST_PAUSE_S if now_s() - since_s >= CALM_S else min(pause_s * 2, LONGEST_PAUSE_S)
        log.warning("%s failed (%s); started again in %.1f s\n%s", name, ended.sentence, pause_s, ended.traceback())
        await asyncio.sleep(pause_s)
