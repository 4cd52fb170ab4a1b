"""What must hold: safety at every step, liveness after healing (PROTOCOL-DESIGN, invariants).

The watcher is told facts by taps around whole nodes (nodes.py): what the participant's machine ordered its host, what a
device did, what an award named, what an initiator declared. It believes none of the nodes' own judgement: leases are
turned into world time by the true clock, and an effect is what the device did, not what a handler says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from meshagent.core.acts import TaskRecord
from meshagent.sdk.kinds import kind_named
from meshagent.types import Delivery, Epoch, NodeId, Reason, TaskId, TaskState
from meshagent.virtual.kernel import Process, World

CLOCK_SLACK_S: Final = 1e-6
"""Two leases may touch: float arithmetic of two clocks."""

SAFETY: Final = (
    "one_acting_executor",
    "one_effect",
    "valid_lease",
    "unfenced_epoch",
    "one_holder_an_epoch",
    "epoch_of_its_owner",
    "nothing_after_cancelled",
    "no_lease_after_restart",
    "terminal_stays",
    "done_means_done",
    "in_doubt_after_point_of_no_return",
    "stale_bid_wins_nothing",
    "custodians_agree",
)
LIVENESS: Final = (
    "task_ends",
    "orphan_ends",
    "outcome_reaches_origin",
    "records_drained",
    "reservations_drained",
    "members_agree",
    "node_runs",
)


class BrokenInvariantError(AssertionError):
    """A promise is broken: `name` says which, `at_s` when, the message how."""

    def __init__(self, name: str, at_s: float, how: str) -> None:
        super().__init__(f"{name} at {at_s:.6f} s: {how}")
        self.name = name
        self.at_s = at_s
        self.how = how

    @property
    def safety(self) -> bool:
        """True for what may never happen, False for what must happen in the end."""
        return self.name in SAFETY


@dataclass(slots=True)
class Execution:
    """One run of a handler under one contract."""

    process: Process
    task: TaskId
    epoch: Epoch
    until_world_s: float
    passed_point_of_no_return: bool = False
    ended: bool = False

    def acting(self, at_s: float) -> bool:
        """True where it may act: it runs, its process lives, its lease holds."""
        return not self.ended and self.process.alive and at_s < self.until_world_s - CLOCK_SLACK_S


@dataclass(slots=True)
class TaskFacts:
    """All that is known of one task."""

    record: TaskRecord
    origin: str
    submitted_at_s: float
    accepted: bool = False
    executions: list[Execution] = field(default_factory=list)
    holders: dict[Epoch, NodeId] = field(default_factory=dict)
    effects: list[tuple[float, str, Epoch]] = field(default_factory=list)
    state: TaskState | None = None
    """The last one that the initiator declared."""
    ended: TaskState | None = None
    ended_at_s: float = 0.0
    result: bytes | None = None
    told_doubt: bool = False
    point_of_no_return: bool = False
    cancel_asked: bool = False
    _duration_s: float | None = None

    @property
    def once(self) -> bool:
        return self.record.delivery is Delivery.AT_MOST_ONCE

    def duration_s(self) -> float:
        """How long the work takes, as the task itself says."""
        if self._duration_s is None:
            kind = kind_named(self.record.kind)
            self._duration_s = float(kind.decode(self.record.spec).duration_s()) if kind is not None else 0.0
        return self._duration_s


class Watcher:
    """Collects facts; `check` raises `BrokenInvariantError` for the first promise that is broken."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.tasks: dict[TaskId, TaskFacts] = {}
        self.first: BrokenInvariantError | None = None
        self.frozen = False
        """True once the run is judged: what burial of the dead does is no fact."""
        self._started: dict[tuple[TaskId, Epoch, str], int] = {}
        self._highest: dict[tuple[str, int, TaskId], Epoch] = {}

    def broken(self, name: str, how: str, at_s: float | None = None) -> None:
        """Keep the first broken promise for `check`: taps sit inside nodes, whose loops swallow what is raised."""
        when_s = self.world.now_s if at_s is None else at_s
        self.world.note("invariant", f"{name}: {how}", when_s)
        if self.first is None:
            self.first = BrokenInvariantError(name, when_s, how)

    def check(self) -> None:
        """Raise what was found: called after every step.

        Raises:
            BrokenInvariantError: the first one.
        """
        if self.first is not None:
            raise self.first

    # ---- facts

    def submitted(self, record: TaskRecord, origin: str) -> None:
        """A task became known to its initiator's machine; again after each restart."""
        if record.task not in self.tasks:
            self.tasks[record.task] = TaskFacts(record, origin, self.world.now_s)

    def accepted(self, task: TaskId) -> None:
        """The submitter was told that it is durable: from here on it must end."""
        facts = self.tasks.get(task)
        if facts is not None:
            facts.accepted = True

    def cancel_asked(self, task: TaskId) -> None:
        facts = self.tasks.get(task)
        if facts is not None:
            facts.cancel_asked = True

    def awarded(self, by: NodeId, task: TaskId, epoch: Epoch, holder: NodeId) -> None:
        """An award left its initiator (or was adopted under a new epoch)."""
        facts = self.tasks.get(task)
        if facts is None or self.frozen:
            return
        if epoch.owner != by:
            self.broken("epoch_of_its_owner", f"{by[:8]} awards {task[:8]} under an epoch of {epoch.owner[:8]}")
        before = facts.holders.setdefault(epoch, holder)
        if before != holder:
            self.broken(
                "one_holder_an_epoch",
                f"{task[:8]} epoch {epoch.counter} went to {before[:8]} and to {holder[:8]}",
            )

    def work_started(self, process: Process, record: TaskRecord, epoch: Epoch, until_boot_s: float) -> None:
        """The participant's machine ordered its host to run the handler."""
        if self.frozen:
            return
        facts = self.tasks.setdefault(record.task, TaskFacts(record, "?", self.world.now_s))
        at_s = process.time_s()
        number = self._started.setdefault((record.task, epoch, process.name), process.number)
        if number != process.number:
            self.broken(
                "no_lease_after_restart",
                f"{process.name} starts {record.task[:8]} again under epoch {epoch.counter} of its process {number}",
                at_s,
            )
        if facts.ended is TaskState.CANCELLED and facts.once:
            self.broken("nothing_after_cancelled", f"{process.name} starts {record.task[:8]} after it", at_s)
        execution = Execution(process, record.task, epoch, self._world_s(process, until_boot_s))
        facts.executions.append(execution)
        if facts.once:
            self._one_acting(facts, execution, at_s)

    def lease_moved(self, process: Process, task: TaskId, epoch: Epoch, until_boot_s: float) -> None:
        """The work may act longer, or under a new epoch."""
        facts = self.tasks.get(task)
        if facts is None or self.frozen:
            return
        for execution in facts.executions:
            if execution.process is process and not execution.ended:
                execution.until_world_s = self._world_s(process, until_boot_s)
                execution.epoch = epoch
                if facts.once:
                    self._one_acting(facts, execution, process.time_s())

    def _one_acting(self, facts: TaskFacts, new: Execution, at_s: float) -> None:
        for other in facts.executions:
            if other is not new and other.acting(at_s) and new.acting(at_s):
                self.broken(
                    "one_acting_executor",
                    f"{facts.record.task[:8]} is held by {other.process.name} under epoch {other.epoch.counter} until"
                    f" {other.until_world_s:.6f} s and by {new.process.name} under epoch {new.epoch.counter}",
                    at_s,
                )

    def work_ended(self, process: Process, task: TaskId) -> None:
        """The executor reported that nothing of it runs any more."""
        facts = self.tasks.get(task)
        if facts is not None and not self.frozen:
            for execution in facts.executions:
                if execution.process is process:
                    execution.ended = True

    def stale_reservation(self, process: Process, task: TaskId, how: str) -> None:
        """A participant reserved at a price that its plan does not bear."""
        self.broken("stale_bid_wins_nothing", f"{process.name} reserves {task[:8]}: {how}", process.time_s())

    def granted(self, process: Process, task: TaskId) -> None:
        """The point of no return is passed."""
        facts = self.tasks.get(task)
        if facts is not None:
            facts.point_of_no_return = True

    def heard(self, process: Process, task: TaskId, epoch: Epoch) -> None:
        """A node's participant has seen an award, commit, cancel or adoption of that epoch and written it down."""
        key = (process.name, process.number, task)
        known = self._highest.get(key)
        if known is None or epoch > known:
            self._highest[key] = epoch

    def effect(self, process: Process, task: TaskId) -> None:
        """A device did what cannot be undone, for `task`."""
        if self.frozen:
            return
        at_s = process.time_s()
        facts = self.tasks.get(task)
        if facts is None:
            self.broken("valid_lease", f"{process.name} acts for {task[:8]}, which nobody asked for", at_s)
            return
        own = [one for one in facts.executions if one.process is process and not one.ended]
        if not own:
            self.broken("valid_lease", f"{process.name} acts for {task[:8]} without a contract", at_s)
            return
        execution = own[-1]
        process.note(f"effect {task} epoch {execution.epoch.counter}")
        facts.effects.append((at_s, process.name, execution.epoch))
        highest = self._highest.get((process.name, process.number, task))
        if highest is not None and highest > execution.epoch:
            self.broken(
                "unfenced_epoch",
                f"{process.name} acts for {task[:8]} under epoch {execution.epoch.counter} and knows {highest.counter}",
                at_s,
            )
        if not facts.once:
            return
        if not execution.acting(at_s):
            self.broken(
                "valid_lease",
                f"{process.name} acts for {task[:8]} {at_s - execution.until_world_s:.6f} s after its lease",
                at_s,
            )
        if facts.ended is TaskState.CANCELLED:
            self.broken("nothing_after_cancelled", f"{process.name} acts for {task[:8]}", at_s)
        if len(facts.effects) > 1:
            self.broken("one_effect", f"{task[:8]} took effect by {_who(facts)}", at_s)

    def changed(
        self, process: Process, task: TaskId, state: TaskState, result: bytes | None, reason: Reason | None
    ) -> None:
        """The initiator declared a state of its task."""
        facts = self.tasks.get(task)
        if facts is None or self.frozen or facts.origin != process.name:
            return
        at_s = process.time_s()
        facts.state = state
        if state is TaskState.IN_DOUBT:
            facts.told_doubt = True
            if facts.once and not facts.point_of_no_return and not facts.executions:
                self.broken("in_doubt_after_point_of_no_return", f"{task[:8]} is in doubt and never started")
        if facts.ended is not None:
            if state is not facts.ended and facts.once:
                self.broken("terminal_stays", f"{task[:8]} was {facts.ended} and is {state} ({reason})")
            return
        if not state.terminal:
            return
        facts.ended, facts.ended_at_s, facts.result = state, at_s, result
        process.note(f"ends {task} {state} {reason}")
        if not facts.once:
            return
        if state is not TaskState.DONE and facts.effects and reason is not Reason.ERROR:
            self.broken("done_means_done", f"{task[:8]} is {state} ({reason}) but took effect by {_who(facts)}")
        if state is TaskState.CANCELLED:
            for execution in facts.executions:
                if execution.acting(at_s):
                    self.broken(
                        "nothing_after_cancelled",
                        f"{task[:8]} is cancelled while {execution.process.name} may act until"
                        f" {execution.until_world_s:.6f} s",
                    )

    # ---- the end

    def unfinished(self, immortal: set[str]) -> list[TaskFacts]:
        """Accepted tasks of living origins that have not ended; those in doubt wait for a person."""
        return [
            facts
            for facts in self.tasks.values()
            if facts.accepted and facts.ended is None and facts.origin in immortal
        ]

    def judge_endings(self, immortal: set[str]) -> None:
        """After healing and patience: every accepted task has ended, and `at_most_once` DONE took effect once."""
        for facts in self.unfinished(immortal):
            self.broken(
                "task_ends",
                f"{facts.record.kind} {facts.record.task[:8]} of {facts.origin} has not ended"
                f" {self.world.now_s - facts.submitted_at_s:.1f} s after it was accepted",
            )

    def _world_s(self, process: Process, boot_s: float) -> float:
        hardware = process.device.hardware
        return boot_s / hardware.rate + hardware.booted_at_s


def _who(facts: TaskFacts) -> str:
    return ", ".join(f"{name} (epoch {epoch.counter}, {at_s:.3f} s)" for at_s, name, epoch in facts.effects)
