"""Who may say what when: the two tables that stand before both machines (SECURITY-DESIGN 7).

What a table does not list is answered with `NotUnderstood(ILLEGAL_NOW)` and noted, and nothing else happens. The
tables know roles and states; whether the epoch fits is the machine's question. `NoteBudget` keeps a peer that
talks nonsense from filling the journal with notes about itself.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from meshagent.core.acts import Performative as P
from meshagent.core.contract_net.records import TERMINAL, Phase, Stage


class Standing(StrEnum):
    """What a peer is to a task at its initiator."""

    HOLDER = "holder"
    """Awarded last, or adopted."""
    AWARDED = "awarded"
    """Awarded at some time before."""
    ASKED = "asked"
    """Got the present call."""
    STRANGER = "stranger"


class Ruling(StrEnum):
    """What becomes of an act."""

    HEAR = "hear"
    LATE = "late"
    """Legal once, overtaken by events: no answer, no change."""
    ILLEGAL = "illegal"


_ALL: Final = frozenset(Phase)
_OPEN: Final = _ALL - TERMINAL
_ANYONE: Final = frozenset(Standing)
_TAKERS: Final = frozenset({Standing.HOLDER, Standing.AWARDED})
_CALLED: Final = _TAKERS | {Standing.ASKED}


def _rule(
    table: dict[tuple[P, Phase, Standing], Ruling],
    act: P,
    phases: frozenset[Phase],
    standings: frozenset[Standing],
    ruling: Ruling = Ruling.HEAR,
) -> None:
    for phase in phases:
        for standing in standings:
            table[act, phase, standing] = ruling


def _initiator_table() -> dict[tuple[P, Phase, Standing], Ruling]:
    table: dict[tuple[P, Phase, Standing], Ruling] = {}
    # Bids and refusals count while the call is open, from those who were called; later they are merely late.
    # Being asked is checked by the machine, because a holder of an earlier epoch may be asked again.
    _rule(table, P.PROPOSE, _OPEN, _CALLED, Ruling.LATE)
    _rule(table, P.PROPOSE, TERMINAL, _ANYONE, Ruling.LATE)
    _rule(table, P.PROPOSE, frozenset({Phase.CALLING}), _CALLED)
    _rule(table, P.REFUSE, _OPEN, _CALLED, Ruling.LATE)
    _rule(table, P.REFUSE, TERMINAL, _ANYONE, Ruling.LATE)
    _rule(table, P.REFUSE, frozenset({Phase.CALLING}), _CALLED)
    _rule(table, P.REFUSE, frozenset({Phase.AWARDING}), frozenset({Standing.HOLDER}))
    # Whoever was awarded may say how it stands, at any time: a late answer is evidence.
    for act in (P.RESERVE, P.RENEW, P.CHECKPOINT, P.INFORM, P.FAILURE, P.FORFEIT, P.CANCELLED):
        _rule(table, act, _ALL, _TAKERS)
    _rule(table, P.PASS_POINT_OF_NO_RETURN, _ALL, _TAKERS)
    # Answered by nobody, so that two confused nodes fall silent.
    _rule(table, P.NOT_UNDERSTOOD, _ALL, _ANYONE, Ruling.LATE)
    return table


INITIATOR: Final = _initiator_table()
"""(act, phase, standing of the sender) -> ruling; absent: illegal."""

_STAGES: Final[tuple[Stage | None, ...]] = (None, *Stage)
_STOPPED: Final = (Stage.STOPPING, Stage.REPORTING, Stage.IN_DOUBT, Stage.CLOSED)


def _participant_table() -> dict[tuple[P, Stage | None], Ruling]:
    table: dict[tuple[P, Stage | None], Ruling] = {}
    # Complete in themselves, or answered from what is stored: at any time.
    for act in (P.CFP, P.ACCEPT_PROPOSAL, P.CANCEL, P.QUERY_STATUS):
        for stage in _STAGES:
            table[act, stage] = Ruling.HEAR
    for act in (P.REJECT_PROPOSAL, P.ACKNOWLEDGE, P.NOT_UNDERSTOOD):
        table[act, None] = Ruling.LATE
        for stage in Stage:
            table[act, stage] = Ruling.HEAR
    for stage in Stage:
        table[P.COMMIT, stage] = Ruling.HEAR
    # Grants and records for work that has stopped are late, not illegal: they crossed the stop on their way.
    for act in (P.RENEWED, P.POINT_OF_NO_RETURN_RECORDED):
        table[act, Stage.EXECUTING] = Ruling.HEAR
        for stage in _STOPPED:
            table[act, stage] = Ruling.LATE
    table[P.ADOPT, Stage.EXECUTING] = Ruling.HEAR
    table[P.ADOPT, Stage.STOPPING] = Ruling.LATE
    for stage in (Stage.REPORTING, Stage.IN_DOUBT, Stage.CLOSED):
        table[P.ADOPT, stage] = Ruling.HEAR
    return table


PARTICIPANT: Final = _participant_table()
"""(act, stage of the contract or None) -> ruling for the task's initiator; absent: illegal. Others than the task's
initiator are always illegal."""


class NoteBudget:
    """How many illegal acts may still be noted: bursts of `CAPACITY`, then one a second."""

    CAPACITY: Final = 64
    """Enough to see what a peer is doing; some 10 KiB of journal."""

    __slots__ = ("_left", "_since_s")

    def __init__(self) -> None:
        self._left = float(self.CAPACITY)
        self._since_s: float | None = None

    def spend(self, now_s: float) -> bool:
        """True: note it."""
        if self._since_s is not None:
            self._left = min(float(self.CAPACITY), self._left + max(0.0, now_s - self._since_s))
        self._since_s = now_s
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
