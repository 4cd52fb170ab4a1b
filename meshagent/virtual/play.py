"""Plays one seed: the scenario on whole nodes, faults, healing, and the judgement."""

from __future__ import annotations

import gc
import logging
from dataclasses import dataclass, field
from typing import Any, Final

from meshagent.core.acts import TaskRecord
from meshagent.core.contract_net.interface import ContractConfig
from meshagent.core.custody import majority, passes_on, votes
from meshagent.core.members import PRESETS
from meshagent.sdk.outcome import Cancelled, Done, Failed, NoAward, Outcome
from meshagent.types import Reason, TaskId, TaskState
from meshagent.virtual.faults import arm, heal_all
from meshagent.virtual.identities import POOL_SIZE
from meshagent.virtual.invariants import BrokenInvariantError, TaskFacts, Watcher
from meshagent.virtual.kernel import Process, World
from meshagent.virtual.loop import VirtualLivelockError
from meshagent.virtual.mutations import planted
from meshagent.virtual.network import Network
from meshagent.virtual.nodes import Member, Mesh
from meshagent.virtual.scenario import Ask, Options, Scenario, draw_scenario

OK: Final = 0
CRASH: Final = 10
SAFETY: Final = 11
LIVENESS: Final = 12

PATIENCE_S: Final = 90.0
"""After healing everything must have ended within so long: backoff grows to 8 s, resends to 2 s, a lease is 2 s."""
DOUBT_S: Final = 8.0
"""After healing a person looks at what is in doubt."""
ASK_AGAIN_S: Final = 0.5
"""An asker that is down asks when it is up."""
QUIET_S: Final = 6.0
"""After the last task has ended the books are closed: reports acknowledged, plans empty."""
SETTLE_S: Final = 0.5
"""Then everyone who waits for an outcome has had a turn."""
TAIL_LINES: Final = 60

AGREE_S: Final = 30.0
"""After all is healed and all work has ended, every member must believe every live one alive within so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one seed."""

    seed: int
    code: int
    broken: str
    at_s: float
    how: str
    trace_hash: str
    events: int
    virtual_s: float
    tail: tuple[str, ...]
    """The last lines of the trace, where something broke."""


@dataclass(slots=True)
class Company:
    """The stage of one run: `faults.Stage` over whole nodes."""

    scenario: Scenario
    world: World
    network: Network
    watcher: Watcher
    mesh: Mesh
    outcomes: dict[TaskId, tuple[Process, Any]] = field(default_factory=dict)
    """What submissions told whoever awaited them, in the process that asked."""
    healed: bool = False

    def pair(self) -> tuple[str, str] | None:
        found: tuple[str, str] | None = None
        longest_s = 0.0
        for facts in self.watcher.tasks.values():
            if not facts.once or facts.ended is not None:
                continue
            duration_s = facts.duration_s()
            for execution in facts.executions:
                remote = execution.process.name != facts.origin and facts.origin in self.mesh.members
                if remote and duration_s > longest_s and execution.acting(self.world.now_s):
                    found, longest_s = (execution.process.name, facts.origin), duration_s
        return found

    def process(self, name: str) -> Process | None:
        process = self.world.devices[name].process if name in self.world.devices else None
        return process if process is not None and process.alive else None

    def start(self, name: str) -> None:
        self.mesh.members[name].start()

    def leave(self, name: str) -> None:
        self.mesh.members[name].leave()


def play(seed: int, options: Options, scenario: Scenario | None = None) -> Verdict:
    """Run `seed` and judge it; `scenario` instead of the drawn one."""
    logging.disable(logging.CRITICAL)  # a thousand seeds of warnings about planned deaths help nobody
    collecting = gc.isenabled()
    gc.disable()  # a collection in the middle of a run costs more than the run leaves behind
    try:
        with planted(options.mutation):
            return _play(seed, scenario or draw_scenario(seed, options, identities=POOL_SIZE))
    finally:
        if collecting:
            gc.enable()
        logging.disable(logging.NOTSET)


def stage(seed: int, scenario: Scenario) -> Company:
    """Everything set up and nothing run yet."""
    world = World(seed)
    network = Network(world, scenario.weather)
    watcher = Watcher(world)
    contract = ContractConfig(lease_s=scenario.lease_s, renew_s=0.3 * scenario.lease_s)
    membership = PRESETS["loopback"] if scenario.membership else None
    mesh = Mesh(world, network, watcher=watcher, contract=contract, membership=membership)
    mesh.sites.update(scenario.sites)
    mesh.custodians = scenario.custodians
    company = Company(scenario, world, network, watcher, mesh)
    for player in scenario.players:
        member = mesh.add_player(player)
        world.at(player.joins_at_s, member.start)
    for ask in scenario.asks:
        world.at(ask.at_s, _ask, company, ask)
    arm(company, scenario.plan, scenario.heal_at_s - 1.0)
    world.on_step(watcher.check)
    return company


def _play(seed: int, scenario: Scenario) -> Verdict:
    company = stage(seed, scenario)
    world, watcher = company.world, company.watcher
    code, broken, at_s, how = OK, "", 0.0, ""
    try:
        _run(company)
    except BrokenInvariantError as error:
        code = SAFETY if error.safety else LIVENESS
        broken, at_s, how = error.name, error.at_s, error.how
    except VirtualLivelockError as error:
        code, broken, at_s, how = LIVENESS, "time_passes", world.now_s, str(error)
    if code != SAFETY and (crash := company.mesh.crash()):
        code, broken, at_s, how = CRASH, "node_runs", world.now_s, crash
    watcher.frozen = True
    tail = tuple(world.trace.lines)[-TAIL_LINES:] if code else ()
    verdict = Verdict(
        seed=seed,
        code=code,
        broken=broken,
        at_s=at_s,
        how=how,
        trace_hash=world.trace.digest(),
        events=world.events_run,
        virtual_s=world.now_s,
        tail=tail,
    )
    world.close()
    return verdict


def _run(company: Company) -> None:
    scenario, world, watcher = company.scenario, company.world, company.watcher
    world.run_until(lambda: False, limit_s=scenario.heal_at_s)
    company.healed = True
    heal_all(company, scenario.plan)
    immortal = {name for name, member in company.mesh.members.items() if member.ready or company.process(name)}
    limit_s = world.now_s + PATIENCE_S
    world.after(DOUBT_S, _settle_doubts, company)

    def over() -> bool:
        if watcher.unfinished(immortal) or company.mesh.unsettled(immortal):
            return False
        return not any(company.mesh.outcomes(facts.record.task) == [] for facts in _orphans(company, immortal))

    while not world.run_until(over, limit_s=min(limit_s, world.now_s + QUIET_S)):
        if world.now_s >= limit_s:
            break
    watcher.judge_endings(immortal)
    _judge_orphans(company, immortal)
    # Judged now and not later: work for askers that are gone for ever goes on, and may ask for more.
    leftover = company.mesh.unsettled(immortal)
    if leftover:
        watcher.broken("records_drained", leftover)
    watcher.check()
    world.run_for(SETTLE_S)
    for task, (process, told) in sorted(company.outcomes.items()):
        facts = watcher.tasks[task]
        if process.alive and facts.ended is not None and not _agrees(told, facts.ended):
            watcher.broken("outcome_reaches_origin", f"{task[:8]} is {facts.ended} and {process.name} was told {told}")
    watcher.check()
    if scenario.membership:
        world.run_until(lambda: not company.mesh.disagreement(), limit_s=world.now_s + AGREE_S)
        if disagreement := company.mesh.disagreement():
            watcher.broken("members_agree", disagreement)
        watcher.check()


def _orphans(company: Company, living: set[str]) -> list[TaskFacts]:
    """Accepted tasks whose asker never comes back, and which enough custodians outlived to go on with."""
    return [
        facts
        for facts in company.watcher.tasks.values()
        if facts.accepted
        and facts.ended is None
        and facts.origin not in living
        and passes_on(facts.record)
        and company.mesh.offered(facts.record.kind)
        and company.mesh.keepers(facts.record.task) >= _needed(facts.record)
    ]


def _needed(record: TaskRecord) -> int:
    return majority(len(record.custodians)) if votes(record) else 1


def _judge_orphans(company: Company, living: set[str]) -> None:
    """A task outlives its asker: its custodians have ended it, all alike, and as the devices know it."""
    watcher = company.watcher
    for facts in _orphans(company, living):
        task = facts.record.task
        told = company.mesh.outcomes(task)
        if not told:
            watcher.broken(
                "orphan_ends", f"{facts.record.kind} {task[:8]} of {facts.origin}, who is gone, has not ended"
            )
        elif facts.once and len({ended.state for ended in told}) > 1:
            watcher.broken("custodians_agree", f"{task[:8]}: {', '.join(ended.state for ended in told)}")
        elif (
            facts.once and facts.effects and told[0].state is not TaskState.DONE and told[0].reason is not Reason.ERROR
        ):
            watcher.broken("done_means_done", f"{task[:8]} is {told[0].state} at its custodians but took effect")


def _agrees(told: Outcome[Any] | None, ended: TaskState) -> bool:
    if told is None:
        return False
    if ended is TaskState.DONE:
        return isinstance(told, Done) or told.reason is Reason.OPERATOR
    return isinstance(told, Cancelled) if ended is TaskState.CANCELLED else isinstance(told, Failed | NoAward)


def _ask(company: Company, ask: Ask) -> None:
    member = company.mesh.members[ask.origin]
    if not member.ready:
        if company.world.now_s < company.scenario.heal_at_s:
            company.world.after(ASK_AGAIN_S, _ask, company, ask)
        return
    process = member.process
    assert process is not None
    asked: list[TaskId] = []

    def accepted(_: object, error: BaseException | None) -> None:
        if error is None:
            company.watcher.accepted(asked[0])

    def ended(outcome: Any, error: BaseException | None) -> None:
        if error is None:
            company.outcomes[asked[0]] = (process, outcome)

    def label(task: Any, error: BaseException | None) -> None:
        asked.append(task)
        company.outcomes[task] = (process, None)
        if ask.cancel_after_s is not None:
            company.world.after(ask.cancel_after_s, _cancel, company, member, process, task)

    member.submit(ask.task, key=ask.key, within_s=ask.within_s, label=label, accepted=accepted, outcome=ended)


def _cancel(company: Company, member: Member, process: Process, task: TaskId) -> None:
    if process.alive:
        company.watcher.cancel_asked(task)
        member.cancel(task)


def _settle_doubts(company: Company) -> None:
    """A person walks to the device and looks: what took effect is done, what did not is not."""
    world, watcher = company.world, company.watcher
    if world.now_s > company.scenario.heal_at_s + PATIENCE_S:
        return
    for task, facts in watcher.tasks.items():
        for member in company.mesh.members.values():
            # Whoever owns it now: its asker, or the custodian that has gone on with it.
            if facts.ended is None and member.ready and member.in_doubt(task):
                member.resolve(task, done=bool(facts.effects))
    world.after(DOUBT_S, _settle_doubts, company)
