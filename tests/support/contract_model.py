"""One initiator and three participants in virtual time, with every nuisance that a seed can draw.

A run is (delivery, seed, machines). Clocks drift, messages are lost, doubled and reordered, nodes pause longer than
a lease, crash between any two effects and come back with their journal, links are cut one-sidedly, evidence about
peers lies, a person cancels, handlers fail and give back. After each step the invariants of PROTOCOL-DESIGN are
checked; after the faults the task must end. `tests/simulation` does the same with whole nodes; this one is small
enough to show that each protocol rule is needed (see `test_contract_mutations.py`).
"""

from __future__ import annotations

import heapq
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from meshagent.core.acts import (
    FROM_INITIATOR,
    PERFORMATIVE_OF,
    AcceptProposal,
    Act,
    BidAnswer,
    Decline,
    NotUnderstood,
    Offer,
    TaskRecord,
    WorkOutcome,
)
from meshagent.core.contract_net.clearing import within_tolerance
from meshagent.core.contract_net.initiator import Initiator
from meshagent.core.contract_net.interface import (
    ActReceived,
    CancelRequested,
    CheckpointTaken,
    ContractConfig,
    DoubtResolved,
    Effect,
    GrantPointOfNoReturn,
    InitiatorInput,
    LeaseMoved,
    ParticipantInput,
    PeerFound,
    PeerLost,
    Persist,
    PointOfNoReturnReached,
    Send,
    StartWork,
    StopWork,
    TaskChanged,
    TaskSubmitted,
    TimePassed,
    WorkEnded,
)
from meshagent.core.contract_net.participant import Participant
from meshagent.core.contract_net.records import ContractRecord, InitiatorRecord, Stage
from meshagent.runtime.codec import RecordCodec
from meshagent.types import Delivery, Epoch, NodeId, Reason, TaskId, TaskState, node_id_of, task_id_of

PARTICIPANTS: Final = 3
FAULTS_END_S: Final = 8.0
LIVENESS_S: Final = 40.0
"""After the faults a task may take this long: the longest backoff, two lease waits and the work, some times over."""
DRIFT: Final = 0.03

CODEC: Final = RecordCodec(InitiatorRecord, ContractRecord)


class ViolationError(AssertionError):
    """An invariant does not hold."""


def node_id(number: int) -> NodeId:
    """A node id that looks like one."""
    return node_id_of(bytes([number + 1]) * 32)


class Signed:
    """Evidence that holds, or not."""

    def __init__(self, good: bool = True) -> None:
        self.good = good

    def verify(self) -> bool:
        return self.good


GOOD: Final = Signed()


def record_of(initiator: NodeId, number: int = 1, **terms: Any) -> TaskRecord:
    """A task bound to `initiator`."""
    boot, nonce = bytes(16), number.to_bytes(16, "big")
    return TaskRecord(
        task=task_id_of(initiator, boot, nonce),
        initiator=initiator,
        boot=boot,
        nonce=nonce,
        kind=terms.pop("kind", "pump.check.v1"),
        spec=terms.pop("spec", b"spec"),
        **terms,
    )


@dataclass
class Run:
    """A handler at work, as the executor sees it."""

    epoch: Epoch
    lease_until_s: float
    repeatable: bool
    started_s: float
    granted: bool = False
    effect: bool = False
    ended: bool = False


@dataclass
class Node:
    number: int
    id: NodeId
    rate: float
    base_local_s: float
    base_s: float = 0.0
    boots: int = 0
    up: bool = True
    paused: bool = False
    journal: dict[tuple[str, TaskId], bytes] = field(default_factory=dict)
    machine: Initiator | Participant | None = None
    waiting: list[Callable[[], None]] = field(default_factory=list)
    run: Run | None = None
    crash_next: float | None = None
    wake: int = 0

    def now(self, t: float) -> float:
        return self.base_local_s + self.rate * (t - self.base_s)

    @property
    def boot(self) -> bytes:
        return bytes([self.number]) * 8 + self.boots.to_bytes(8, "big")


class DriftingBidder:
    """A price that wanders between call and award, and a check that no stale one is reserved."""

    def __init__(self, world: World, node: Node) -> None:
        self.world, self.node = world, node
        self.price_ms = world.rnd.randrange(1_000, 60_000)
        self.last: Offer | None = None

    def bid(self, record: TaskRecord, within_s: float | None, *, purpose: str) -> BidAnswer:
        if self.world.rnd.random() < 0.05:
            return Decline(Reason.BATTERY, "flat")
        if self.world.rnd.random() < 0.15:
            self.price_ms = self.world.rnd.randrange(1_000, 60_000)
        self.last = Offer(added_ms=self.price_ms, load_ms=self.price_ms // 3, plan_version=1)
        return self.last

    def reserve(self, record: TaskRecord, epoch: Epoch) -> None:
        award = self.world.awards[epoch][1]
        assert self.last is not None
        now = (self.last.added_ms, self.last.load_ms)
        if not within_tolerance((award.added_ms, award.load_ms), now, 0.05):
            self.world.violated("a stale bid was reserved")

    def release(self, task: TaskId, epoch: Epoch) -> None:
        pass


Factories = tuple[type[Initiator], type[Participant]]


class World:
    """One run. `rough`: a network where leases are at stake, late and lossy, and long work."""

    def __init__(
        self, delivery: Delivery, seed: int, machines: Factories = (Initiator, Participant), *, rough: bool = False
    ) -> None:
        self.delivery, self.seed, self.machines, self.rough = delivery, seed, machines, rough
        self.rnd = random.Random(seed)
        draw = random.Random(seed * 7919 + 1)
        self.config = ContractConfig(clock_drift=DRIFT, keep_s=3600.0)
        self.loss = draw.choice([0.1, 0.3] if rough else [0, 0.05, 0.2])
        self.dup = draw.choice([0, 0.1, 0.3])
        self.tail = draw.choice([0.2, 0.5] if rough else [0, 0.05, 0.2])
        self.t = 0.0
        self.heap: list[tuple[float, int, Callable[[], None]]] = []
        self.order = 0
        self.nodes = [
            Node(i, node_id(i), 1 + draw.uniform(-DRIFT, DRIFT), draw.uniform(0, 1000)) for i in range(PARTICIPANTS + 1)
        ]
        self.by_id = {node.id: node for node in self.nodes}
        self.cut: dict[int, Callable[[int, int], bool]] = {}
        self.doubted: set[NodeId] = set()
        self.awards: dict[Epoch, tuple[NodeId, AcceptProposal]] = {}
        self.effects: list[tuple[float, int, Epoch]] = []
        self.told: TaskState | None = None
        self.state: TaskState | None = None
        self.accepted = False
        self.works_s = 5.0 if rough else draw.choice([0.5, 1.5, 4.0])
        self.moves_s = draw.choice([0.3, 3.0])
        """The longest time between the point of no return and the effect."""
        self.trace: list[str] = []
        self.steps = 0
        within = draw.choice([None, None, None, 4.0])
        self.record = record_of(self.nodes[0].id, delivery=delivery)
        for node in self.nodes:
            self.boot(node)
        self.at(0.0, lambda: self.step(self.nodes[0], TaskSubmitted(record=self.record, within_s=within)))
        self.draw_faults(draw)

    # ---- plumbing

    def at(self, t: float, what: Callable[[], None]) -> None:
        self.order += 1
        heapq.heappush(self.heap, (t, self.order, what))

    def say(self, line: str) -> None:
        self.trace.append(f"{self.t:8.3f} {line}")

    def violated(self, what: str) -> None:
        raise ViolationError(f"{what} at {self.t:.3f}; replay: {self.replay}")

    @property
    def replay(self) -> str:
        """One line to paste."""
        rough = " rough" if self.rough else ""
        return f"python -m tests.support.contract_model {self.delivery} {self.seed}{rough}"

    def run(self) -> World:
        end = FAULTS_END_S + LIVENESS_S
        settled_s: float | None = None
        while self.heap and self.heap[0][0] <= end:
            self.t, _, what = heapq.heappop(self.heap)
            what()
            self.check_acting()
            if self.t > FAULTS_END_S and self.settled():
                settled_s = settled_s or self.t
                if self.t > settled_s + 3.0:
                    break
            else:
                settled_s = None
        self.check_end()
        return self

    def boot(self, node: Node) -> None:
        node.boots += 1
        node.run = None
        rng = random.Random(self.seed + node.boots)
        if node.number == 0:
            node.machine = self.machines[0](node.id, node.boot, self.config, rng, self)
        else:
            bidder = DriftingBidder(self, node)
            node.machine = self.machines[1](node.id, node.boot, self.config, bidder, lambda peer, action, kind: True)
        saved = [CODEC.decode(raw) for raw in node.journal.values()]
        self.carry_out(node, node.machine.restore(saved, node.now(self.t)))

    def candidates(self, kind: str) -> Sequence[NodeId]:
        return sorted(n.id for n in self.nodes[1:] if n.id not in self.doubted)

    def step(self, node: Node, event: InitiatorInput | ParticipantInput) -> None:
        if not node.up:
            return
        if node.paused:
            node.waiting.append(lambda: self.step(node, event))
            return
        assert node.machine is not None
        self.steps += 1
        effects = node.machine.handle(event, now_s=node.now(self.t))  # type: ignore[arg-type]
        self.carry_out(node, effects)

    def carry_out(self, node: Node, effects: list[Effect]) -> None:
        persists = [e for e in effects if isinstance(e, Persist)]
        others = [e for e in effects if not isinstance(e, Persist)]
        steps: list[Callable[[], None]] = []
        if persists:
            steps.append(lambda: self.commit(node, persists))
        steps.extend([lambda e=e: self.effect(node, e) for e in others])  # type: ignore[misc]
        if node.crash_next is not None and effects:
            back_s, node.crash_next = node.crash_next, None
            for act in steps[: self.rnd.randrange(len(steps) + 1)]:
                act()
            self.crash(node, back_s)
            return
        for act in steps:
            act()
        self.rearm(node)

    def rearm(self, node: Node) -> None:
        assert node.machine is not None
        node.wake += 1
        wake, deadline = node.wake, node.machine.next_deadline_s()
        if deadline is None:
            return
        t = node.base_s + (deadline - node.base_local_s) / node.rate + self.rnd.uniform(0, 0.005)

        def ring() -> None:
            if node.wake == wake:
                self.step(node, TimePassed())

        self.at(max(self.t + 1e-6, t), ring)

    def commit(self, node: Node, persists: list[Persist]) -> None:
        for p in persists:
            if p.record is None:
                node.journal.pop((p.table, p.task), None)
            else:
                node.journal[p.table, p.task] = CODEC.encode(p.record)
        if node.number == 0:
            self.accepted = True

    def effect(self, node: Node, effect: Effect) -> None:
        match effect:
            case Send():
                for peer in effect.to:
                    self.send(node, peer, effect.act)
            case StartWork():
                self.start(node, effect)
            case StopWork():
                self.stop(node, effect)
            case LeaseMoved():
                if node.run is not None:
                    node.run.epoch, node.run.lease_until_s = effect.epoch, effect.lease_until_s
            case GrantPointOfNoReturn():
                self.granted(node)
            case TaskChanged() if node.number == 0:
                self.changed(effect)
            case _:
                pass

    # ---- the network

    def send(self, node: Node, peer: NodeId, act: Act) -> None:
        if isinstance(act, AcceptProposal):
            holder, _ = self.awards.setdefault(act.epoch, (peer, act))
            if holder != peer:
                self.violated("an epoch has two holders")
        for _ in range(2 if self.rnd.random() < self.dup else 1):
            lost = self.rnd.random() < self.loss and self.t < FAULTS_END_S
            slow = self.rnd.random() < self.tail
            delay_s = self.rnd.uniform(0.025, 2.5) if slow else self.rnd.uniform(0.001, 0.025)
            if not lost:
                self.at(self.t + delay_s, lambda: self.deliver(node.number, self.by_id[peer], act))

    def deliver(self, sender: int, node: Node, act: Act) -> None:
        if any(cut(sender, node.number) for cut in self.cut.values()):
            return
        to_participant = PERFORMATIVE_OF[type(act)] in FROM_INITIATOR or (
            isinstance(act, NotUnderstood) and node.number != 0
        )
        if to_participant == (node.number != 0):
            self.step(node, ActReceived(peer=self.nodes[sender].id, act=act, evidence=GOOD))

    # ---- the executor

    def start(self, node: Node, effect: StartWork) -> None:
        if node.run is not None and not node.run.ended:
            self.violated("a second handler of the same task was started on one node")
        repeatable = effect.record.delivery is Delivery.AT_LEAST_ONCE
        run = node.run = Run(effect.epoch, effect.lease_until_s, repeatable, self.t)
        self.say(f"n{node.number} starts {effect.epoch.counter}")
        if self.told is TaskState.CANCELLED and not repeatable:
            self.violated("work was started after CANCELLED")
        fate = self.rnd.random()
        boots = node.boots
        if self.rnd.random() < 0.3:
            self.later(node, boots, self.works_s / 2, lambda: self.checkpoint(node, run))
        if fate < 0.08:
            outcome = WorkOutcome(given_back=True, reason=Reason.GIVEN_BACK)
            self.later(node, boots, self.works_s / 2, lambda: self.end(node, run, outcome))
        elif fate < 0.12:
            outcome = WorkOutcome(reason=Reason.CRASHED)
            self.later(node, boots, self.works_s / 2, lambda: self.end(node, run, outcome))
        else:
            self.later(node, boots, self.works_s, lambda: self.wants_to_act(node, run))

    def later(self, node: Node, boots: int, delay_s: float, what: Callable[[], None]) -> None:
        def fire() -> None:
            if node.boots != boots or not node.up:
                return
            if node.paused:
                node.waiting.append(fire)
            else:
                what()

        self.at(self.t + delay_s, fire)

    def checkpoint(self, node: Node, run: Run) -> None:
        if not run.ended:
            self.step(node, CheckpointTaken(task=self.record.task, epoch=run.epoch, state=b"half"))

    def wants_to_act(self, node: Node, run: Run) -> None:
        if not run.ended and not run.granted:
            self.step(node, PointOfNoReturnReached(task=self.record.task, epoch=run.epoch))

    def granted(self, node: Node) -> None:
        run = node.run
        if run is None or run.ended or run.granted:
            return
        run.granted = True
        self.later(node, node.boots, self.rnd.uniform(0.0, self.moves_s), lambda: self.act(node, run))

    def act(self, node: Node, run: Run) -> None:
        """The effect itself. The actuator looks at the deadline (rule 6)."""
        if run.ended or run.effect or (not run.repeatable and node.now(self.t) >= run.lease_until_s):
            return
        run.effect = True
        self.effects.append((self.t, node.number, run.epoch))
        self.say(f"n{node.number} EFFECT {run.epoch.counter}")
        if not run.repeatable:
            if len(self.effects) > 1:
                self.violated("the effect happened twice")
            if self.told in (TaskState.CANCELLED, TaskState.FAILED):
                self.violated(f"the effect happened after {self.told}")
        outcome = WorkOutcome(result=b"done")
        self.later(node, node.boots, self.rnd.uniform(0.0, 0.2), lambda: self.end(node, run, outcome))

    def stop(self, node: Node, effect: StopWork) -> None:
        run = node.run
        if run is None or run.ended:
            return
        self.say(f"n{node.number} stops {run.epoch.counter} {effect.reason}")

        def stopped() -> None:
            outcome = WorkOutcome(result=b"done") if run.effect else WorkOutcome(reason=effect.reason)
            self.end(node, run, outcome)

        self.later(node, node.boots, self.rnd.uniform(0.0, 0.3), stopped)

    def end(self, node: Node, run: Run, outcome: WorkOutcome) -> None:
        if not run.ended:
            run.ended = True
            self.step(node, WorkEnded(task=self.record.task, epoch=run.epoch, outcome=outcome))

    # ---- what must hold

    def acting(self) -> list[Node]:
        """Nodes that may act on an at_most_once task now, or would if they were not paused."""
        return [
            n
            for n in self.nodes[1:]
            if n.up
            and n.run is not None
            and not n.run.ended
            and not n.run.repeatable
            and n.now(self.t) < n.run.lease_until_s
        ]

    def check_acting(self) -> None:
        acting = self.acting()
        if len(acting) > 1:
            self.violated(f"nodes {[n.number for n in acting]} may act at once")

    def changed(self, change: TaskChanged) -> None:
        self.say(f"n0 says {change.state} {change.epoch.counter if change.epoch else ''} {change.reason or ''}")
        if self.told is not None and change.state is not self.told:
            self.violated(f"told {self.told}, then {change.state}")
        again = change.state in (TaskState.CALLING, TaskState.BACKOFF) and change.holder is None
        if again or change.state in (TaskState.CANCELLED, TaskState.FAILED):
            for n in self.acting():
                self.violated(f"{change.state} while node {n.number} may act")
        self.state = change.state
        if change.state.terminal:
            self.told = change.state
            if self.delivery is Delivery.AT_MOST_ONCE and self.effects and change.state is not TaskState.DONE:
                self.violated(f"{change.state} although the effect happened")

    def settled(self) -> bool:
        return self.told is not None and not any(self.unsettled(n) for n in self.nodes[1:])

    def unsettled(self, node: Node) -> list[str]:
        """Stages of contracts that `node` still has to get rid of. A doubt that is settled must be over there too."""
        if not node.up or not isinstance(node.machine, Participant):
            return []
        return [c.stage.value for c in node.machine.contracts() if c.stage is not Stage.CLOSED]

    def check_end(self) -> None:
        if self.accepted and self.told is None:
            initiator = self.nodes[0].machine
            assert isinstance(initiator, Initiator)
            u = initiator.find(self.record.task)
            self.violated(f"an accepted task has not ended: {None if u is None else u.phase}")
        for n in self.nodes[1:]:
            if self.unsettled(n):
                self.violated(f"node {n.number} never got rid of its contract: {self.unsettled(n)}")

    # ---- faults

    def draw_faults(self, draw: random.Random) -> None:
        kinds = ["crash", "crash", "crash", "pause", "pause", "part", "part", "oneway", "doubt", "doubt", "cancel"]
        for number in range(draw.choice([1, 2, 2, 3, 4])):
            at_s, kind = draw.uniform(0, 6), draw.choice(kinds)
            node = self.nodes[draw.randrange(len(self.nodes))]
            other = self.nodes[draw.randrange(len(self.nodes))]
            length_s = min(draw.choice([0.05, 0.3, 0.9, 1.5, 3.0, 6.0]), FAULTS_END_S - at_s - 0.1)
            self.at(at_s, self.fault(number, kind, node, other, length_s))
        self.at(FAULTS_END_S, self.heal)
        for second in range(int(LIVENESS_S)):
            self.at(FAULTS_END_S + 6 + second, self.person_decides)

    def fault(self, number: int, kind: str, node: Node, other: Node, length_s: float) -> Callable[[], None]:
        def crash() -> None:
            if node.up and not node.paused:
                node.crash_next = length_s

        def pause() -> None:
            if node.up and not node.paused:
                self.say(f"n{node.number} pauses for {length_s:.2f}")
                node.paused = True
                self.at(self.t + length_s, lambda: self.resume(node))

        def part() -> None:
            self.say(f"n{node.number} is cut off for {length_s:.2f}")
            self.cut[number] = lambda a, b: (a == node.number) != (b == node.number)
            self.at(self.t + length_s, lambda: self.mend(number, node))
            self.doubt_links(node)

        def oneway() -> None:
            self.cut[number] = lambda a, b: (a, b) == (node.number, other.number)
            self.at(self.t + length_s, lambda: self.mend(number, node))

        def doubt() -> None:
            self.doubt_links(node)
            self.at(self.t + length_s, lambda: self.believe(node))

        def cancel() -> None:
            self.say("a person cancels")
            self.step(self.nodes[0], CancelRequested(task=self.record.task))

        faults = {"crash": crash, "pause": pause, "part": part, "oneway": oneway, "doubt": doubt, "cancel": cancel}
        return faults[kind]

    def doubt_links(self, node: Node) -> None:
        """Evidence, true or not, that `node` is out of reach."""
        if node.number == 0:
            return
        self.say(f"n{node.number} is believed lost")
        self.doubted.add(node.id)
        self.step(self.nodes[0], PeerLost(peer=node.id))
        self.step(node, PeerLost(peer=self.nodes[0].id))

    def believe(self, node: Node) -> None:
        if node.number != 0 and node.id in self.doubted:
            self.doubted.discard(node.id)
            self.step(self.nodes[0], PeerFound(peer=node.id))
            self.step(node, PeerFound(peer=self.nodes[0].id))

    def mend(self, number: int, node: Node) -> None:
        self.cut.pop(number, None)
        self.believe(node)

    def resume(self, node: Node) -> None:
        if node.paused:
            node.paused = False
            self.say(f"n{node.number} resumes")
            waiting, node.waiting = node.waiting, []
            self.rnd.shuffle(waiting)
            for what in waiting:
                self.at(self.t + self.rnd.uniform(0, 0.02), what)

    def crash(self, node: Node, back_s: float) -> None:
        self.say(f"n{node.number} crashes")
        node.up, node.paused, node.waiting = False, False, []
        node.run = None
        node.wake += 1
        self.doubt_links(node)
        self.at(self.t + back_s, lambda: self.restart(node))

    def restart(self, node: Node) -> None:
        if node.up:
            return
        self.say(f"n{node.number} restarts")
        node.up = True
        if self.rnd.random() < 0.5:  # the device, not only the process
            node.base_local_s, node.base_s = 0.0, self.t
        self.boot(node)
        self.believe(node)

    def heal(self) -> None:
        self.cut.clear()
        self.loss = self.tail = 0.0
        for node in self.nodes:
            node.crash_next = None
            self.resume(node)
            if not node.up:
                self.restart(node)
            self.believe(node)

    def person_decides(self) -> None:
        """Somebody looks at what the device did and settles an IN_DOUBT task."""
        if self.state is TaskState.IN_DOUBT and not self.acting():
            self.say("a person decides")
            self.step(self.nodes[0], DoubtResolved(task=self.record.task, done=bool(self.effects)))


def first_failure(
    delivery: Delivery, machines: Factories, seeds: Sequence[int], *, rough: bool = False
) -> tuple[int, ViolationError, list[str]] | None:
    """The first of `seeds` that breaks an invariant, with its trace."""
    for seed in seeds:
        world = World(delivery, seed, machines, rough=rough)
        try:
            world.run()
        except ViolationError as error:
            return seed, error, world.trace
    return None


def main(arguments: Sequence[str]) -> int:
    """Replay one seed with its trace: DELIVERY SEED [rough]; or search: DELIVERY FROM-TO [rough]."""
    delivery, rough = Delivery(arguments[0]), "rough" in arguments
    first, dash, last = arguments[1].partition("-")
    if dash:
        failure = first_failure(delivery, (Initiator, Participant), range(int(first), int(last)), rough=rough)
        print("nothing found" if failure is None else "\n".join([*failure[2], str(failure[1])]))
        return 0 if failure is None else 1
    world = World(delivery, int(first), rough=rough)
    try:
        world.run()
    except ViolationError as error:
        print("\n".join([*world.trace, str(error)]))
        return 1
    print("\n".join(world.trace))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
