"""Planted bugs: each breaks one rule of PROTOCOL-DESIGN, and some seed must find it.

A net that has never caught anything proves nothing. `planted(name)` exchanges a few methods for the length of a run;
`tests/simulation/test_mutations.py` states within how many seeds each is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from meshagent.core.acts import Performative
from meshagent.core.contract_net.initiator import Initiator
from meshagent.core.contract_net.interface import GrantPointOfNoReturn, Persist, StopWork
from meshagent.core.contract_net.participant import Participant
from meshagent.core.contract_net.records import INITIATED, Phase, Report
from meshagent.runtime.driver import Driver
from meshagent.runtime.executor import Executor, Work
from meshagent.sdk.context import _Hold
from meshagent.types import Epoch, Reason, TaskState
from meshagent.virtual.clock import VirtualClock

Patch = tuple[type, str, Callable[..., Any]]


def _runner_up_in_the_same_epoch() -> list[Patch]:
    """Rule 1: a new epoch for every award, runner-ups too."""
    return [(Initiator, "_award_epoch", lambda self, u: u.epoch)]


def _equal_epochs() -> list[Patch]:
    """Rule 1: an epoch is unique; here the counter starts again with the process and the boot is left out."""
    next_epoch = Initiator._next_epoch

    def forgetful(self: Any, u: Any) -> Epoch:
        counters = self.__dict__.setdefault("_counters", {})
        counters[u.task] = counters.get(u.task, 0) + 1
        return next_epoch(self, u)._replace(counter=counters[u.task], boot=bytes(16))

    return [(Initiator, "_next_epoch", forgetful)]


def _renewal_counted_from_receipt() -> list[Patch]:
    """Rule 5: the participant counts from the first sending of what is acknowledged."""
    hear = Participant._hear_renewed

    def late(self: Any, c: Any, act: Any) -> None:
        if act.sequence in c.sent:
            c.sent[act.sequence] = self._now_s
        hear(self, c, act)

    return [(Participant, "_hear_renewed", late)]


def _renewal_without_echo() -> list[Patch]:
    """Rule 5: an acknowledgement counts for the renewal it names, not for the latest one."""
    hear = Participant._hear_renewed

    def anyhow(self: Any, c: Any, act: Any) -> None:
        if c.sent and act.sequence in c.sent:
            c.sent[act.sequence] = max(c.sent.values())
        hear(self, c, act)

    return [(Participant, "_hear_renewed", anyhow)]


def _no_wait_at_boot() -> list[Patch]:
    """Rule 5: after its own restart the initiator waits a full lease."""
    return [(Initiator, "_restart_wait_s", lambda self: 0.0)]


def _skipped_persist() -> list[Patch]:
    """Rule 12: persist before send; here awards are sent and not written."""
    carry_out = Driver._carry_out

    def forgetful(self: Any, effects: Any, turn: Any, now_s: float) -> None:
        kept = [
            effect
            for effect in effects
            if not (
                isinstance(effect, Persist)
                and effect.table == INITIATED
                and getattr(effect.record, "phase", None) is Phase.AWARDING
            )
        ]
        carry_out(self, kept, turn, now_s)

    return [(Driver, "_carry_out", forgetful)]


def _fence_not_checked_at_the_actuator() -> list[Patch]:
    """Rule 6: the check stands at the effect."""
    return [
        (_Hold, "check", lambda self: None),
        (Work, "_must_hold", lambda self: None),
        (Executor, "_arm_fence", lambda self, work: None),
    ]


def _late_done_ignored() -> list[Patch]:
    """Rule 9: DONE of any epoch is evidence."""
    hear = Initiator._hear_inform

    def deaf(self: Any, u: Any, peer: Any, act: Any, evidence: Any) -> None:
        if act.epoch == u.epoch and u.phase is Phase.COMMITTED:
            hear(self, u, peer, act, evidence)

    return [(Initiator, "_hear_inform", deaf)]


def _cancelled_early() -> list[Patch]:
    """Rule 7: CANCELLED is declared after the holder's answer or the lease wait."""
    withdraw = Initiator._withdraw

    def hasty(self: Any, u: Any, ending: TaskState, reason: Reason, detail: str) -> None:
        withdraw(self, u, ending, reason, detail)
        if u.phase is Phase.CANCELLING:
            self._finish_as_asked(u)

    return [(Initiator, "_withdraw", hasty)]


def _stale_bid_accepted() -> list[Patch]:
    """DESIGN 6, rule 1: at the award the participant prices again."""
    return [(Participant, "_priced_again", lambda self, act: None)]


def _no_point_of_no_return() -> list[Patch]:
    """Rule 4: before what cannot be undone the initiator has it on disk."""

    def at_once(self: Any, event: Any) -> None:
        self._out.append(GrantPointOfNoReturn(task=event.task, epoch=event.epoch))

    return [(Participant, "_point_of_no_return_reached", at_once)]


def _forfeit_before_stop() -> list[Patch]:
    """Rule 7: stop, persist, then FORFEIT; here it is said when the stop is ordered."""

    def hasty(self: Any, c: Any, reason: Reason) -> None:
        c.stop_reason = reason
        self._out.append(StopWork(task=c.task, epoch=c.epoch, reason=reason))
        self._release(c)
        self._report(c, Report(act=Performative.FORFEIT, epoch=c.epoch, reason=reason))

    return [(Participant, "_stop", hasty)]


def _forfeit_past_the_point_of_no_return() -> list[Patch]:
    """Rule 4: after the point of no return a stop is a doubt, not a forfeit."""

    def forgets(self: Any, c: Any, reason: Reason) -> None:
        c.pnr = False
        self._report(c, Report(act=Performative.FORFEIT, epoch=c.epoch, reason=reason))

    return [(Participant, "_enter_doubt", forgets)]


def _monotonic_instead_of_boot_time() -> list[Patch]:
    """Rule 5: leases count suspension."""
    return [(VirtualClock, "boot_s", lambda self: self._hardware.monotonic_s(self._now_s()))]


def _loss_shortens_the_wait() -> list[Patch]:
    """A lost link never means stopped."""
    return [(Initiator, "_holder_lost", lambda self, u, peer: self._lose_holder(u))]


def _result_told_once() -> list[Patch]:
    """A result is resent until it is acknowledged."""

    def once(self: Any, c: Any) -> None:
        act = c.report_act()
        if act is not None:
            self._send(c.initiator, act)
            c.resend_at_s = c.keep_until_s

    return [(Participant, "_send_report", once), (Participant, "_peer_found", lambda self, peer: None)]


MUTATIONS: Final[dict[str, Callable[[], list[Patch]]]] = {
    "runner_up_in_the_same_epoch": _runner_up_in_the_same_epoch,
    "equal_epochs": _equal_epochs,
    "renewal_counted_from_receipt": _renewal_counted_from_receipt,
    "renewal_without_echo": _renewal_without_echo,
    "no_wait_at_boot": _no_wait_at_boot,
    "skipped_persist": _skipped_persist,
    "fence_not_checked_at_the_actuator": _fence_not_checked_at_the_actuator,
    "late_done_ignored": _late_done_ignored,
    "cancelled_early": _cancelled_early,
    "stale_bid_accepted": _stale_bid_accepted,
    "no_point_of_no_return": _no_point_of_no_return,
    "forfeit_before_stop": _forfeit_before_stop,
    "forfeit_past_the_point_of_no_return": _forfeit_past_the_point_of_no_return,
    "monotonic_instead_of_boot_time": _monotonic_instead_of_boot_time,
    "loss_shortens_the_wait": _loss_shortens_the_wait,
    "result_told_once": _result_told_once,
}


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Run with the bug `name`; an empty name plants nothing.

    Raises:
        LookupError: no such mutation.
    """
    if not name:
        yield
        return
    if name not in MUTATIONS:
        raise LookupError(f"no mutation is called {name}; there are {', '.join(MUTATIONS)}")
    patches = MUTATIONS[name]()
    homes = [(_home(cls, attribute), attribute, function) for cls, attribute, function in patches]
    before = [(home, attribute, home.__dict__[attribute]) for home, attribute, _ in homes]
    try:
        for home, attribute, function in homes:
            setattr(home, attribute, function)
        yield
    finally:
        for home, attribute, value in before:
            setattr(home, attribute, value)


def _home(cls: type, attribute: str) -> type:
    """The class that defines `attribute`. An AttributeError says that the code has moved and the mutation with it."""
    for home in cls.__mro__:
        if attribute in home.__dict__:
            return home
    raise AttributeError(f"{cls.__name__} has no {attribute} any more: write the mutation anew")
