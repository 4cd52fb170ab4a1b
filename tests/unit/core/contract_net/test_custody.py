"""A custodian's register and an owner before its majority: the synod of one task, step by step."""

from __future__ import annotations

import dataclasses
from random import Random
from typing import Any, TypeVar

import pytest

from meshagent.core.acts import (
    Accept,
    Accepted,
    AcceptProposal,
    Acknowledge,
    Act,
    Cancelled,
    Cfp,
    Commit,
    Inform,
    Inquire,
    Nack,
    Outcome,
    PassPointOfNoReturn,
    PointOfNoReturnRecorded,
    Prepare,
    Promise,
    Propose,
    Renew,
    Renewed,
    Reserve,
    Standing,
    TaskRecord,
)
from meshagent.core.contract_net.initiator import Initiator
from meshagent.core.contract_net.interface import (
    ActReceived,
    CancelRequested,
    ContractConfig,
    Effect,
    Noted,
    PeerFound,
    PeerLost,
    Persist,
    Send,
    TaskChanged,
    TaskSubmitted,
    TimePassed,
)
from meshagent.core.contract_net.keeping import QUARANTINE_S
from meshagent.core.contract_net.records import CUSTODY, INITIATED, MARKS, Phase
from meshagent.core.custody import choose_custodians, record_digest
from meshagent.types import Delivery, Epoch, NodeId, Reason, TaskId, TaskState
from tests.support.contract_model import Signed, node_id, record_of

ASKER, ONE, TWO, THREE, WORKER = (node_id(number) for number in range(5))
Q = (ONE, TWO, THREE)
A = TypeVar("A", bound=Act)
CONFIG = ContractConfig(lease_s=2.0)


def record(**changes: Any) -> TaskRecord:
    terms: dict[str, Any] = {"custodians": Q, "delivery": Delivery.AT_MOST_ONCE} | changes
    return dataclasses.replace(record_of(ASKER, 1), **terms)


class Bench:
    """One node's machine, its journal and its clock."""

    def __init__(self, me: NodeId, *, believes: bool = True, boot: bytes = b"boot-of-bench-01") -> None:
        self.me, self.boot, self.believes = me, boot, believes
        self.tables: dict[tuple[str, str], Any] = {}
        self.now_s = 100.0
        self.start()

    def start(self) -> None:
        self.machine = Initiator(self.me, self.boot, CONFIG, Random(1), self, lambda record: self.believes)
        self.last: list[Effect] = []

    def candidates(self, kind: str) -> tuple[NodeId, ...]:
        return (WORKER,)

    def restart(self) -> None:
        """The same disk, a new life."""
        self.boot = self.boot[:-1] + bytes([self.boot[-1] + 1])
        self.start()
        rows = {
            name: [row for (table, _), row in self.tables.items() if table == name] for name in (CUSTODY, INITIATED)
        }
        marks = {key: row for (table, key), row in self.tables.items() if table == MARKS}
        self.keep(self.machine.restore_custody(rows[CUSTODY], marks, self.now_s))
        self.keep(self.machine.restore(rows[INITIATED], self.now_s))

    def keep(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Persist):
                self.tables[effect.table, effect.task] = effect.record
        self.last = effects

    def feed(self, event: Any) -> None:
        self.keep(self.machine.handle(event, now_s=self.now_s))

    def hear(self, peer: NodeId, act: Act) -> None:
        self.feed(ActReceived(peer=peer, act=act, evidence=Signed(True)))

    def after(self, seconds: float) -> None:
        self.now_s += seconds
        self.feed(TimePassed())

    def sent(self, act: type[A]) -> list[A]:
        return [one.act for one in self.last if isinstance(one, Send) and isinstance(one.act, act)]

    def one(self, act: type[A]) -> A:
        found = self.sent(act)
        assert len(found) == 1, self.last
        return found[0]

    def link(self, *peers: NodeId) -> None:
        for peer in peers:
            self.feed(PeerFound(peer=peer))


def epoch(counter: int, owner: NodeId = ASKER) -> Epoch:
    return Epoch(counter, owner, b"boot-of-bench-01")


def accept(e: Epoch, version: int, holder: NodeId | None = None, **changes: Any) -> Accept:
    task = record()
    terms: dict[str, Any] = {
        "task": task.task,
        "epoch": e,
        "ballot": epoch(0),
        "version": version,
        "record": task,
        "first": holder is None,
        "holder": holder,
        "point_of_no_return": False,
        "cancelled": False,
        "lease_ms": 2000,
    } | changes
    return Accept(**terms)


def keeper() -> Bench:
    """A custodian that has written down that the worker holds the task under epoch 1."""
    bench = Bench(ONE)
    bench.link(ASKER, TWO, THREE, WORKER)
    bench.hear(ASKER, accept(epoch(0), 1))
    bench.hear(ASKER, accept(epoch(1), 2, WORKER))
    assert bench.one(Accepted).version == 2
    return bench


def renew(e: Epoch | None = None, sequence: int = 1) -> Renew:
    return Renew(task=record().task, epoch=e or epoch(1), boot=b"boot-of-worker-1", sequence=sequence)


def phase(bench: Bench) -> Phase:
    u = bench.machine.find(record().task)
    assert u is not None
    return u.phase


def quarantined(bench: Bench) -> bool:
    return bench.machine.quarantined


# ---- who keeps a task


def test_custodians_are_the_same_for_everyone_and_the_asker_only_fills_up() -> None:
    task = record().task
    everyone = [ASKER, ONE, TWO, THREE, WORKER]
    chosen = choose_custodians(task, ASKER, everyone)
    assert chosen == choose_custodians(task, ASKER, reversed(everyone))
    assert len(chosen) == 3
    assert ASKER not in chosen
    assert choose_custodians(task, ASKER, [ASKER, ONE, TWO])[-1] == ASKER
    assert choose_custodians(task, ASKER, [ASKER]) == ()


def test_a_custodian_that_leaves_changes_the_choice_of_few_tasks_alone() -> None:
    tasks = [record_of(ASKER, number).task for number in range(60)]
    nodes = [node_id(number + 10) for number in range(12)]
    before = {task: set(choose_custodians(task, ASKER, nodes)) for task in tasks}
    after = {task: set(choose_custodians(task, ASKER, nodes[1:])) for task in tasks}
    for task in tasks:
        assert before[task] - {nodes[0]} <= after[task]


@pytest.mark.parametrize("change", [{"spec": b"other"}, {"custodians": (ONE, TWO)}, {"key": "k"}, {"approval": True}])
def test_what_the_asker_signs_covers_every_term(change: dict[str, Any]) -> None:
    assert record_digest(record()) != record_digest(record(**change))


# ---- the register


def test_a_lower_ballot_is_refused_after_a_promise() -> None:
    bench = keeper()
    bench.hear(TWO, Prepare(task=record().task, epoch=epoch(5, TWO)))
    promise = bench.one(Promise)
    assert (promise.accepted, promise.version, promise.holder) == (epoch(1), 2, WORKER)
    bench.hear(ASKER, accept(epoch(9), 3, THREE))
    assert bench.one(Nack).promised == epoch(5, TWO)
    bench.hear(THREE, Prepare(task=record().task, epoch=epoch(4, THREE)))
    assert bench.one(Nack).reason is Reason.STALE_EPOCH


def test_a_promise_is_on_disk_before_it_is_said_and_outlives_a_crash() -> None:
    bench = keeper()
    bench.hear(TWO, Prepare(task=record().task, epoch=epoch(5, TWO)))
    assert any(isinstance(one, Persist) and one.table == CUSTODY for one in bench.last)
    bench.restart()
    bench.after(QUARANTINE_S)
    bench.hear(ASKER, accept(epoch(1), 3, THREE))
    assert bench.one(Nack).promised == epoch(5, TWO)


def test_grants_only_to_the_holder_under_the_ballot_that_was_promised() -> None:
    bench = keeper()
    bench.hear(WORKER, renew())
    assert bench.one(Renewed).sequence == 1
    bench.hear(TWO, renew())
    assert not bench.sent(Renewed), "not the holder"
    bench.hear(WORKER, renew(epoch(2)))
    assert not bench.sent(Renewed), "not the epoch"
    bench.hear(TWO, Prepare(task=record().task, epoch=epoch(5, TWO)))
    bench.hear(WORKER, renew(sequence=2))
    assert not bench.sent(Renewed), "promised to somebody else, who counts on what is left"


def test_a_promise_tells_what_was_granted_and_an_adoption_grants_nothing() -> None:
    bench = keeper()
    bench.after(0.5)
    bench.hear(WORKER, renew())
    bench.after(1.0)
    bench.hear(TWO, Prepare(task=record().task, epoch=epoch(5, TWO)))
    left_ms = bench.one(Promise).grant_ms
    assert 1000 < left_ms <= 1300
    bench.hear(TWO, accept(epoch(6, TWO), 1, WORKER, ballot=epoch(5, TWO), adopts=True))
    bench.hear(TWO, Prepare(task=record().task, epoch=epoch(7, TWO)))
    assert bench.one(Promise).grant_ms == left_ms


def test_a_custodian_that_restarts_waits_a_full_lease() -> None:
    bench = keeper()
    bench.after(60.0)
    bench.restart()
    bench.machine._end_quarantine()
    bench.hear(TWO, Prepare(task=record().task, epoch=epoch(5, TWO)))
    assert bench.one(Promise).grant_ms >= 2000


def test_the_point_of_no_return_is_recorded_for_the_holder_alone_and_promised_on() -> None:
    bench = keeper()
    bench.hear(TWO, PassPointOfNoReturn(task=record().task, epoch=epoch(1)))
    assert not bench.sent(PointOfNoReturnRecorded)
    bench.hear(WORKER, PassPointOfNoReturn(task=record().task, epoch=epoch(1)))
    assert bench.sent(PointOfNoReturnRecorded)
    bench.hear(TWO, Prepare(task=record().task, epoch=epoch(5, TWO)))
    assert bench.one(Promise).point_of_no_return


def test_what_is_withdrawn_is_granted_no_more() -> None:
    bench = keeper()
    bench.hear(ASKER, accept(epoch(1), 3, WORKER, cancelled=True))
    bench.hear(WORKER, renew())
    assert not bench.sent(Renewed)


def test_prepare_for_an_unknown_task_is_refused() -> None:
    bench = Bench(ONE)
    bench.hear(TWO, Prepare(task=record().task, epoch=epoch(5, TWO)))
    assert bench.one(Nack).reason is Reason.UNKNOWN_TASK


def test_a_result_is_taken_from_a_known_holder_and_told_to_everyone() -> None:
    bench = keeper()
    bench.hear(TWO, Inform(task=record().task, epoch=epoch(1), result=b"forged"))
    assert not bench.last, "two never held it"
    bench.hear(WORKER, Inform(task=record().task, epoch=epoch(1), result=b"done"))
    told = [one for one in bench.last if isinstance(one, Send) and isinstance(one.act, Outcome)]
    assert {peer for one in told for peer in one.to} >= {ASKER, TWO, THREE}
    bench.hear(TWO, Prepare(task=record().task, epoch=epoch(5, TWO)))
    assert bench.one(Outcome).result == b"done", "nobody goes on with what has ended"


# ---- attacks


def test_attack_custodian_of_its_own_making_a_record_without_the_askers_seal_opens_nothing() -> None:
    bench = Bench(ONE, believes=False)
    bench.hear(TWO, accept(epoch(1, TWO), 1, TWO, ballot=epoch(1, TWO)))
    assert not bench.sent(Accepted)
    assert bench.machine.kept(record().task) is None


def test_attack_register_grab_nobody_outside_the_record_prepares_or_writes() -> None:
    bench = keeper()
    bench.hear(WORKER, Prepare(task=record().task, epoch=epoch(5, WORKER)))
    assert not bench.sent(Promise)
    bench.hear(WORKER, accept(epoch(5, WORKER), 9, WORKER, ballot=epoch(5, WORKER)))
    assert not bench.sent(Accepted)
    bench.hear(TWO, Prepare(task=record().task, epoch=epoch(5, THREE)))
    assert not bench.sent(Promise), "a ballot is its sender's own"


def test_attack_false_vote_a_stranger_makes_no_majority_and_hears_nothing() -> None:
    bench, task = asker()
    bench.hear(WORKER, Accepted(task=task.task, epoch=epoch(0), version=1, mark=1))
    bench.hear(WORKER, Nack(task=task.task, epoch=epoch(0), reason=Reason.STALE_EPOCH, promised=epoch(5, WORKER)))
    u = bench.machine.find(task.task)
    assert u is not None
    assert (u.phase, u.kept_by) == (Phase.SUBMITTING, set())


def test_attack_false_outcome_a_stranger_ends_nothing() -> None:
    bench = keeper()
    outcome = Outcome(task=record().task, epoch=epoch(1), state=TaskState.DONE, result=b"forged")
    bench.hear(WORKER, outcome)
    kept = bench.machine.kept(record().task)
    assert kept is not None
    assert kept.ended is None


# ---- restart and old disks


def test_after_a_restart_nothing_is_voted_on_until_the_others_have_answered() -> None:
    bench = keeper()
    bench.restart()
    assert quarantined(bench)
    bench.hear(TWO, Prepare(task=record().task, epoch=epoch(5, TWO)))
    assert bench.one(Nack).reason is Reason.QUARANTINED
    bench.hear(WORKER, renew())
    assert not bench.sent(Renewed)
    for peer in (ASKER, TWO, THREE):
        bench.link(peer)
        asked = bench.one(Inquire)
        bench.hear(peer, Standing(task=asked.task, epoch=asked.epoch, known=True, remembered=2))
    assert not quarantined(bench)
    bench.hear(TWO, Prepare(task=record().task, epoch=epoch(5, TWO)))
    assert bench.sent(Promise)


def test_a_quarantine_ends_although_somebody_is_gone_for_good() -> None:
    bench = keeper()
    bench.restart()
    bench.after(QUARANTINE_S)
    assert not bench.machine.quarantined


def test_an_old_copy_of_the_disk_votes_on_nothing_and_the_operator_is_told() -> None:
    bench = keeper()
    bench.restart()
    bench.hear(TWO, Standing(task=record().task, epoch=epoch(9, TWO), known=True, remembered=40))
    assert bench.machine.rolled_back
    assert [one.event for one in bench.last if isinstance(one, Noted)] == ["old_journal"]
    bench.after(QUARANTINE_S)
    bench.hear(TWO, Prepare(task=record().task, epoch=epoch(5, TWO)))
    assert bench.one(Nack).reason is Reason.QUARANTINED


def test_peers_remember_how_far_a_journal_was() -> None:
    bench = Bench(TWO)
    bench.link(ONE)
    bench.hear(ASKER, accept(epoch(0), 1))
    bench.hear(ONE, Accepted(task=record().task, epoch=epoch(0), version=1, mark=7))
    bench.hear(ONE, Inquire(task=record().task, epoch=epoch(0)))
    assert bench.one(Standing).remembered == 7


# ---- the owner


def asker(**changes: Any) -> tuple[Bench, TaskRecord]:
    bench = Bench(ASKER)
    task = record(**changes)
    bench.feed(TaskSubmitted(record=task))
    return bench, task


def kept_by(bench: Bench, *custodians: NodeId) -> None:
    u = bench.machine.find(record().task)
    assert u is not None
    for custodian in custodians:
        bench.hear(custodian, Accepted(task=u.task, epoch=u.epoch, version=u.version, mark=1))


def reserved(bench: Bench, task: TaskId) -> None:
    bench.hear(WORKER, Propose(task=task, epoch=epoch(1), added_ms=1, load_ms=0, plan_version=1))
    assert bench.one(AcceptProposal).epoch == epoch(1)
    bench.hear(WORKER, Reserve(task=task, epoch=epoch(1)))


def test_a_task_is_accepted_when_a_majority_has_it_and_not_before() -> None:
    bench, _ = asker()
    assert {one.first for one in bench.sent(Accept)} == {True}
    kept_by(bench, ONE)
    assert not [one for one in bench.last if isinstance(one, TaskChanged)]
    kept_by(bench, ONE)
    assert not bench.sent(Cfp), "the same custodian twice is no majority"
    kept_by(bench, TWO)
    assert bench.sent(Cfp)


def test_accepted_by_one_a_holder_that_one_custodian_knows_is_not_told_to_start() -> None:
    bench, task = asker()
    kept_by(bench, ONE, TWO)
    reserved(bench, task.task)
    assert not bench.sent(Commit)
    kept_by(bench, THREE)
    assert not bench.sent(Commit)
    kept_by(bench, ONE)
    assert bench.sent(Commit)


def test_an_owner_that_hears_of_a_higher_ballot_resigns_and_waits_for_the_outcome() -> None:
    bench, task = asker()
    kept_by(bench, ONE, TWO)
    bench.hear(ONE, Nack(task=task.task, epoch=epoch(1), reason=Reason.STALE_EPOCH, promised=epoch(5, TWO)))
    u = bench.machine.find(task.task)
    assert u is not None
    assert u.phase is Phase.ENTRUSTED
    assert bench.sent(Inquire)
    bench.hear(TWO, Outcome(task=task.task, epoch=epoch(6, TWO), state=TaskState.DONE, holder=WORKER, result=b"done"))
    assert (u.phase, u.result) == (Phase.DONE, b"done")


def test_cancelled_is_told_when_a_majority_has_written_it_down() -> None:
    bench, task = asker()
    kept_by(bench, ONE, TWO)
    bench.feed(CancelRequested(task=task.task))
    u = bench.machine.find(task.task)
    assert u is not None
    assert not u.terminal, "a custodian that does not know would go on with it"
    kept_by(bench, ONE)
    assert not u.terminal
    kept_by(bench, TWO)
    assert u.phase is Phase.CANCELLED


def test_an_owner_that_restarts_asks_a_majority_who_holds_it_and_adopts_the_holder() -> None:
    bench, task = asker()
    kept_by(bench, ONE, TWO)
    reserved(bench, task.task)
    kept_by(bench, ONE, TWO)
    bench.restart()
    u = bench.machine.find(task.task)
    assert u is not None
    assert u.phase is Phase.PREPARING
    for custodian in (ONE, TWO):
        bench.hear(custodian, promise(u.epoch, epoch(1), WORKER, 1500))
    assert phase(bench) is Phase.ACCEPTING
    written = bench.sent(Accept)[0]
    assert (written.holder, written.adopts) == (WORKER, True)


def promise(ballot: Epoch, accepted: Epoch, holder: NodeId | None, grant_ms: int, *, pnr: bool = False) -> Promise:
    return Promise(
        task=record().task,
        epoch=ballot,
        ballot=epoch(0),
        accepted=accepted,
        version=2,
        holder=holder,
        point_of_no_return=pnr,
        cancelled=False,
        grant_ms=grant_ms,
        mark=1,
    )


# ---- takeover


def test_the_first_custodian_goes_on_when_the_owners_link_is_lost_and_asks_a_majority() -> None:
    bench = keeper()
    bench.feed(PeerLost(peer=ASKER))
    bench.after(3.0)
    assert bench.sent(Prepare), "it is first in the record or second, and both are due"
    u = bench.machine.find(record().task)
    assert u is not None
    for custodian in (ONE, TWO):
        bench.hear(custodian, promise(u.epoch, epoch(1), WORKER, 0, pnr=True))
    assert u.phase is Phase.IN_DOUBT, "past the point of no return a person decides"


def test_no_quorum_one_promise_makes_no_owner() -> None:
    bench = keeper()
    bench.feed(PeerLost(peer=ASKER))
    bench.after(3.0)
    u = bench.machine.find(record().task)
    assert u is not None
    bench.hear(ONE, promise(u.epoch, epoch(1), WORKER, 0))
    bench.hear(ONE, promise(u.epoch, epoch(1), WORKER, 0))
    assert u.phase is Phase.PREPARING


def test_a_silent_holder_is_waited_for_as_long_as_any_custodian_has_granted() -> None:
    bench = keeper()
    bench.feed(PeerLost(peer=ASKER))
    bench.after(3.0)
    u = bench.machine.find(record().task)
    assert u is not None
    bench.hear(ONE, promise(u.epoch, epoch(1), None, 0))
    bench.hear(TWO, promise(u.epoch, epoch(0), None, 1500))
    assert u.phase is Phase.WAITING
    bench.after(1.4)
    assert u.phase is Phase.WAITING
    bench.after(0.3)
    assert bench.sent(Cfp)


@pytest.mark.parametrize("delivery", list(Delivery))
def test_an_owner_that_is_linked_and_speaks_is_left_alone(delivery: Delivery) -> None:
    bench = Bench(ONE)
    bench.link(ASKER, TWO, THREE)
    bench.hear(ASKER, accept(epoch(0), 1, record=record(delivery=delivery)))
    bench.feed(PeerLost(peer=TWO))
    bench.after(10.0)
    assert bench.machine.find(record().task) is None


def test_an_at_least_once_task_goes_on_at_once_and_its_healthy_holder_is_adopted() -> None:
    bench = Bench(ONE)
    bench.link(ASKER, WORKER)
    looked = record(delivery=Delivery.AT_LEAST_ONCE)
    bench.hear(ASKER, accept(epoch(0), 1, record=looked))
    bench.hear(ASKER, accept(epoch(1), 2, WORKER, record=looked))
    bench.feed(PeerLost(peer=ASKER))
    bench.after(0.0)
    u = bench.machine.find(looked.task)
    assert u is not None
    assert (u.phase, u.holder, u.former) == (Phase.COMMITTED, WORKER, epoch(1))


def test_a_task_that_waits_for_its_asker_is_kept_and_taken_over_by_nobody() -> None:
    bench = Bench(ONE)
    bench.link(ASKER, TWO)
    bench.hear(ASKER, accept(epoch(0), 1, record=record(custodians=(ONE, ASKER))))
    bench.feed(PeerLost(peer=ASKER))
    bench.after(30.0)
    assert bench.machine.find(record().task) is None
    assert bench.machine.kept(record().task) is not None


# ---- what the simulator found


def test_an_asker_that_restarts_while_submitting_prepares_before_it_writes_again() -> None:
    bench, task = asker()
    bench.restart()
    assert not bench.sent(Accept), "somebody may own it by now, and a ballot that nobody promised outbids nobody"
    ballot = bench.sent(Prepare)[0].epoch
    bench.hear(ONE, Nack(task=task.task, epoch=ballot, reason=Reason.UNKNOWN_TASK))
    bench.hear(TWO, Nack(task=task.task, epoch=ballot, reason=Reason.UNKNOWN_TASK))
    assert {one.ballot for one in bench.sent(Accept)} == {ballot}


def test_a_doubt_that_is_told_while_the_owner_prepares_is_not_settled_by_an_acknowledgement() -> None:
    bench, task = asker()
    kept_by(bench, ONE, TWO)
    reserved(bench, task.task)
    kept_by(bench, ONE, TWO)
    bench.restart()
    bench.hear(WORKER, Cancelled(task=task.task, epoch=epoch(1), in_doubt=True))
    assert not bench.sent(Acknowledge)
    assert phase(bench) is Phase.PREPARING


def test_a_doubt_under_the_epoch_of_an_owner_before_the_last_is_a_doubt_still() -> None:
    bench, task = asker()
    kept_by(bench, ONE, TWO)
    reserved(bench, task.task)
    kept_by(bench, ONE, TWO)
    bench.restart()
    u = bench.machine.find(task.task)
    assert u is not None
    for custodian in (ONE, TWO):
        bench.hear(custodian, promise(u.epoch, epoch(4, TWO), WORKER, 0, pnr=True))
    assert phase(bench) is Phase.IN_DOUBT
    bench.hear(WORKER, Cancelled(task=task.task, epoch=epoch(1), in_doubt=True))
    assert not bench.sent(Acknowledge)
    assert phase(bench) is Phase.IN_DOUBT
