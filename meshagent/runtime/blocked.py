"""Names the handler that holds the loop (SURFACE 7, number 10).

Each step of role code on the loop is bracketed by `Watch`; a thread beside the loop looks whether one step lasts
longer than `blocked_loop_ms` and, while it does, at the stack, so that the log can say where. The thread sleeps
while no role code runs. Nothing is stopped: Python cannot interrupt a coroutine between two awaits; the lease and the
fence at the actuator keep the device safe meanwhile.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any, Final, TypeVar

T = TypeVar("T")

REPEAT_S: Final = 10.0
"""One line a handler in this time: a loop that blocks again and again must not fill the log."""
LEASE_S: Final = 2.0
"""Where no lease is named: that of the preset `lan`."""
MOST_REPORTS: Final = 100
"""Reports kept for `status`."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Blocked:
    """One step that took too long."""

    where: str
    """`dog.py:22 Dog.check`."""
    within: str
    """The function that the handler was in; empty: the handler itself."""
    held_s: float

    def sentence(self, lease_s: float | None = None) -> str:
        """What the log and `status` say."""
        within = f' in "{self.within}"' if self.within else ""
        late = f"; renewals were late (lease {lease_s:.1f} s)" if lease_s and self.held_s > lease_s / 3.2 else ""
        return f"{self.where} held the loop for {self.held_s:.1f} s{within}{late}"


class Watch:
    """Brackets role code on the loop; one a node."""

    def __init__(self, limit_s: float, now_s: Callable[[], float], lease_s: float | None = None) -> None:
        self._limit_s = limit_s
        self._now_s = now_s
        self._lease_s = lease_s
        self._loop_thread = threading.get_ident()
        self._label = ""
        self._code: CodeType | None = None
        self._since_s = 0.0
        self._step = 0
        self._inside = False
        self._sampled = (0, "")
        self._told_step = 0
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._said: dict[str, float] = {}
        self.reports: list[Blocked] = []
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Call on the loop's thread."""
        self._loop_thread = threading.get_ident()
        self._thread = threading.Thread(target=self._look, name="meshagent-blocked", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread; does not wait for it."""
        self._closing.set()
        self._wake.set()

    def enter(self, label: str, code: CodeType | None) -> None:
        """Role code begins to run on the loop."""
        self._label, self._code = label, code
        self._since_s = self._now_s()
        self._step += 1
        self._inside = True
        if not self._wake.is_set():
            self._wake.set()

    def leave(self) -> None:
        """Role code has given the loop back."""
        self._inside = False
        held_s = self._now_s() - self._since_s
        if held_s >= self._limit_s:
            within = self._sampled[1] if self._sampled[0] == self._step else ""
            self._report(Blocked(self._label, within, held_s))

    def coroutine(self, work: Coroutine[Any, Any, T], label: str, code: CodeType | None = None) -> Watched[T]:
        """`work` with each of its steps bracketed; `code` is the role's function in it."""
        return Watched(work, self, label, code)

    def _report(self, blocked: Blocked) -> None:
        if len(self.reports) >= MOST_REPORTS:
            del self.reports[0]
        self.reports.append(blocked)
        now_s = self._now_s()
        if now_s - self._said.get(blocked.where, -REPEAT_S) >= REPEAT_S:
            if len(self._said) >= MOST_REPORTS:
                self._said.clear()
            self._said[blocked.where] = now_s
            log.warning(
                '%s.   next: @task(worker="thread") on a plain def for the computing', blocked.sentence(self._lease_s)
            )

    def _say_meanwhile(self, step: int) -> None:
        """On the thread: a step that has outlasted a lease may never end, so nobody would ever be told why."""
        held_s = self._now_s() - self._since_s
        if held_s < (self._lease_s or LEASE_S) or self._told_step == step:
            return
        self._told_step = step
        blocked = Blocked(self._label, self._sampled[1], held_s)
        log.error("%s and goes on: nothing else runs on this node, its contracts are lost", blocked.sentence())

    def _look(self) -> None:
        seen = -1
        while not self._closing.is_set():
            self._wake.wait()
            while not self._closing.wait(self._limit_s / 2):
                step = self._step
                if step == seen:
                    if not self._inside:
                        break  # calm: sleep until role code runs again
                    self._sampled = (step, _callee(sys._current_frames().get(self._loop_thread), self._code))
                    self._say_meanwhile(step)
                seen = step
            self._wake.clear()
            if self._inside:
                self._wake.set()


def _callee(frame: FrameType | None, code: CodeType | None) -> str:
    """The function that the frame of `code` has called; empty when it is computing itself."""
    below = ""
    while frame is not None:
        if frame.f_code is code:
            return below
        below = frame.f_code.co_name
        frame = frame.f_back
    return ""


class Watched(Coroutine[Any, Any, T]):
    """A coroutine whose every step tells the watch."""

    __slots__ = ("_code", "_label", "_watch", "_work")

    def __init__(self, work: Coroutine[Any, Any, T], watch: Watch, label: str, code: CodeType | None) -> None:
        self._work = work
        self._watch = watch
        self._label = label
        self._code: CodeType | None = code or getattr(work, "cr_code", None)

    def send(self, value: Any) -> Any:
        self._watch.enter(self._label, self._code)
        try:
            return self._work.send(value)
        finally:
            self._watch.leave()

    def throw(self, *error: Any) -> Any:
        self._watch.enter(self._label, self._code)
        try:
            return self._work.throw(*error)
        finally:
            self._watch.leave()

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Generator[Any, Any, T]:
        return self  # send and throw are all that a task asks of it

    def __iter__(self) -> Watched[T]:
        return self

    def __next__(self) -> Any:
        return self.send(None)
