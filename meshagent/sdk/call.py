"""What a bidding hook is given, and its two possible answers.

Hooks are asked at the call and again at the award, so they must be pure and quick (10 ms). Hard feasibility (reach,
battery, resources, permission, time) is checked before them and stays outside any learned price.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from meshagent.core.acts import MAX_TEXT_CHARS
from meshagent.core.plan import Insertion, Plan
from meshagent.sdk.errors import DeclarationError
from meshagent.sdk.kinds import Task
from meshagent.types import Reason

K_co = TypeVar("K_co", bound=Task[Any], covariant=True)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A bid: how many seconds the task adds to this device's plan, and why if that needs a word."""

    added_s: float
    because: str = ""
    """Shown word for word in `meshagent why`."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.added_s) and self.added_s >= 0):
            # a bid of NaN or less than nothing would win against everybody
            raise DeclarationError(
                f"a bid of {self.added_s!r} s", next_step="propose a finite number of seconds, at least 0"
            )
        object.__setattr__(self, "because", _sentence(self.because))


@dataclass(frozen=True, slots=True)
class Refusal:
    """Will not, and why. A refusal is an answer."""

    reason: Reason
    detail: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", Reason(self.reason))
        object.__setattr__(self, "detail", _sentence(self.detail))


@dataclass(frozen=True, slots=True)
class Me:
    """This device at the moment of the call."""

    position_m: tuple[float, float] | None
    """East and north in the map frame; None: it does not know."""
    battery_soc: float | None
    """State of charge, 0 to 1; None: mains, or nobody told."""
    load_s: float
    """Length of the committed plan."""
    queue: int = 0
    """Contracts held."""


class Call(Generic[K_co]):
    """One call for proposals, seen from this device. Immutable."""

    __slots__ = ("_insertion", "_me", "_plan", "_task", "_within_s")

    def __init__(
        self, *, task: K_co, me: Me, plan: Plan, insertion: Callable[[], Insertion], within_s: float | None = None
    ) -> None:
        self._task = task
        self._me = me
        self._plan = plan
        self._insertion = insertion
        self._within_s = within_s

    @property
    def task(self) -> K_co:
        """The specification."""
        return self._task

    @property
    def me(self) -> Me:
        """Position, battery and load of this device."""
        return self._me

    @property
    def plan(self) -> Plan:
        """Committed stops in order (`.stops`) and the plan's version."""
        return self._plan

    @property
    def within_s(self) -> float | None:
        """Time left to the task; None: no limit."""
        return self._within_s

    def insertion(self) -> Insertion:
        """The cheapest place in the plan: `.index`, `.added_s`, `.start_s`, `.finish_s`."""
        return self._insertion()

    def propose(self, added_s: float | None = None, because: str = "") -> Proposal:
        """A bid of `added_s` seconds; without it the marginal cost of the cheapest insertion."""
        return Proposal(self._insertion().added_s if added_s is None else added_s, because)

    def refuse(self, reason: Reason, detail: str = "") -> Refusal:
        """No bid, with the sentence that people will read."""
        return Refusal(reason, detail)


def _sentence(text: str) -> str:
    return text if len(text) <= MAX_TEXT_CHARS else text[: MAX_TEXT_CHARS - 3] + "..."
