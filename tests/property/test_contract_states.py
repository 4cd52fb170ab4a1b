"""Every act in every state, from everyone: no exception, nothing invented, what has ended stays ended.

The states are reached by short scripts; the acts are drawn with right and wrong epochs, from the holder, a former
holder, a bidder and a stranger.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshagent.core.acts import (
    AMONG_CUSTODIANS,
    FROM_INITIATOR,
    PERFORMATIVE_OF,
    AcceptProposal,
    Acknowledge,
    Act,
    Adopt,
    Cancel,
    Cancelled,
    Cfp,
    Checkpoint,
    Commit,
    Failure,
    Forfeit,
    Inform,
    NotUnderstood,
    PassPointOfNoReturn,
    Performative,
    PointOfNoReturnRecorded,
    Propose,
    QueryStatus,
    Refuse,
    RejectProposal,
    Renew,
    Renewed,
    Reserve,
    WorkOutcome,
)
from meshagent.core.contract_net.authority import INITIATOR, PARTICIPANT, Ruling, Standing
from meshagent.core.contract_net.interface import (
    CancelRequested,
    CheckpointTaken,
    DoubtResolved,
    Effect,
    GrantPointOfNoReturn,
    LeaseMoved,
    LeaveRequested,
    Noted,
    PeerFound,
    PeerLost,
    PointOfNoReturnReached,
    ProgressMade,
    Send,
    StartWork,
    TaskChanged,
    TimePassed,
    WorkEnded,
)
from meshagent.core.contract_net.records import TERMINAL, Phase, Stage
from meshagent.types import Delivery, Epoch, NodeId, Reason, TaskId
from tests.support.contract_desk import BOOT, PEER_BOOT, Desk, InitiatorDesk, ParticipantDesk
from tests.support.contract_model import node_id, record_of

AMO, ALO = Delivery.AT_MOST_ONCE, Delivery.AT_LEAST_ONCE


def acts_of(task: TaskId, epoch: Epoch, former: Epoch, owner: NodeId) -> list[Act]:
    """One of each act."""
    record = record_of(owner)
    award = AcceptProposal(
        task=task,
        epoch=epoch,
        record=record,
        call_epoch=epoch,
        added_ms=1000,
        load_ms=0,
        plan_version=1,
        lease_ms=2000,
    )
    return [
        Cfp(task=task, epoch=epoch, record=record, reply_within_ms=400),
        Propose(task=task, epoch=epoch, added_ms=10, load_ms=0, plan_version=1),
        Refuse(task=task, epoch=epoch, reason=Reason.BUSY),
        award,
        RejectProposal(task=task, epoch=epoch),
        Inform(task=task, epoch=epoch, result=b"r"),
        Failure(task=task, epoch=epoch, reason=Reason.ERROR),
        Cancel(task=task, epoch=epoch),
        NotUnderstood(task=task, epoch=epoch, act=Performative.COMMIT, reason=Reason.ILLEGAL_NOW),
        Reserve(task=task, epoch=epoch),
        Commit(task=task, epoch=epoch),
        Renew(task=task, epoch=epoch, boot=PEER_BOOT, sequence=1),
        Renewed(task=task, epoch=epoch, boot=PEER_BOOT, sequence=1),
        Checkpoint(task=task, epoch=epoch, version=1, state=b"c"),
        Forfeit(task=task, epoch=epoch, reason=Reason.GIVEN_BACK),
        Cancelled(task=task, epoch=epoch),
        Cancelled(task=task, epoch=epoch, in_doubt=True),
        Adopt(task=task, epoch=epoch, former=former),
        PassPointOfNoReturn(task=task, epoch=epoch),
        PointOfNoReturnRecorded(task=task, epoch=epoch),
        QueryStatus(task=task, epoch=epoch),
        Acknowledge(task=task, epoch=epoch, act=Performative.INFORM),
        NotUnderstood(task=task, epoch=epoch, act=Performative.INFORM, reason=Reason.UNKNOWN_TASK),
    ]


ACTS = len(acts_of(record_of(node_id(0)).task, Epoch(1, node_id(0), BOOT), Epoch(1, node_id(0), BOOT), node_id(0)))


def initiator_in(phase: Phase, delivery: Delivery) -> InitiatorDesk:
    """An initiator in `phase`; peer 0 is or was the holder, peer 1 was awarded before it where there is one."""
    desk = InitiatorDesk()
    if phase is Phase.CALLING:
        desk.submit(delivery=delivery)
        return desk
    if phase is Phase.BACKOFF:
        desk.submit(delivery=delivery)
        for peer in desk.peers:
            desk.hear(peer, Refuse(task=desk.task, epoch=desk.epoch, reason=Reason.BUSY))
        return desk
    desk.submit(delivery=delivery)
    desk.bid(desk.peers[1], 1)
    desk.bid(desk.peers[0], 2)
    desk.bid(desk.peers[2], 3)
    desk.after(0.4)  # peer 1 is silent, peer 0 is awarded
    if phase is Phase.AWARDING:
        return desk
    holder = desk.peers[0]
    desk.reserve(holder)
    desk.renew(holder)
    if phase is Phase.IN_DOUBT:
        desk.hear(holder, PassPointOfNoReturn(task=desk.task, epoch=desk.epoch))
        desk.after(desk.config.lease_wait_s())
    elif phase is Phase.CANCELLING:
        desk.feed(CancelRequested(task=desk.task))
    elif phase is Phase.DONE:
        desk.inform(holder)
    elif phase is Phase.FAILED:
        desk.hear(holder, Failure(task=desk.task, epoch=desk.epoch, reason=Reason.ERROR))
    elif phase is Phase.CANCELLED:
        desk.feed(CancelRequested(task=desk.task))
        desk.hear(holder, Cancelled(task=desk.task, epoch=desk.epoch))
    u = desk.machine.find(desk.task)
    assert u is not None
    assert u.phase is phase
    return desk


def participant_in(stage: Stage | None, delivery: Delivery) -> ParticipantDesk:
    desk = ParticipantDesk()
    desk.record = record_of(desk.asker, delivery=delivery)
    if stage is None:
        return desk
    act = desk.award(5, desk.record)
    if stage is Stage.RESERVED:
        return desk
    desk.hear(Commit(task=desk.task, epoch=act.epoch))
    if stage is Stage.EXECUTING:
        return desk
    if stage is Stage.IN_DOUBT:
        desk.feed(PointOfNoReturnReached(task=desk.task, epoch=act.epoch))
        desk.hear(PointOfNoReturnRecorded(task=desk.task, epoch=act.epoch))
    if stage in (Stage.STOPPING, Stage.IN_DOUBT):
        desk.hear(Cancel(task=desk.task, epoch=act.epoch))
    if stage is Stage.IN_DOUBT:
        desk.feed(WorkEnded(task=desk.task, epoch=act.epoch, outcome=WorkOutcome(reason=Reason.CANCELLED)))
    if stage in (Stage.REPORTING, Stage.CLOSED):
        desk.feed(WorkEnded(task=desk.task, epoch=act.epoch, outcome=WorkOutcome(result=b"r")))
    if stage is Stage.CLOSED:
        desk.hear(Acknowledge(task=desk.task, epoch=act.epoch, act=Performative.INFORM))
    contract = desk.machine.find(desk.task)
    assert contract is not None
    assert contract.stage is stage
    return desk


def settled(desk: Desk, effects: list[Effect]) -> None:
    """What holds after any input."""
    kinds = [type(effect).__name__ for effect in effects]
    if "Persist" in kinds:
        assert kinds[: kinds.count("Persist")] == ["Persist"] * kinds.count("Persist"), "snapshots come first"
    for effect in effects:
        if isinstance(effect, Noted):
            assert all(isinstance(value, str | int | float | bool | None) for _, value in effect.facts)
        if isinstance(effect, Send):
            assert effect.to
            assert len(set(effect.to)) == len(effect.to)


CUSTODY = frozenset({Phase.SUBMITTING, Phase.PREPARING, Phase.WAITING, Phase.ACCEPTING, Phase.ENTRUSTED})
"""Where custodians are asked: tests/unit/core/contract_net/test_custody.py."""
PHASES = [one for one in itertools.product(Phase, Delivery) if one[0] not in CUSTODY]
STAGES: list[tuple[Stage | None, Delivery]] = [
    (stage, delivery) for stage in (None, *Stage) for delivery in Delivery if (stage, delivery) != (Stage.IN_DOUBT, ALO)
]


@pytest.mark.parametrize(("phase", "delivery"), PHASES)
def test_every_act_from_everyone_in_every_phase_of_the_initiator(phase: Phase, delivery: Delivery) -> None:
    for index in range(ACTS):
        for who, when in itertools.product(
            ("holder", "awarded", "asked", "stranger"), ("now", "past", "future", "foreign")
        ):
            desk = initiator_in(phase, delivery)
            peers = {"holder": desk.peers[0], "awarded": desk.peers[1], "asked": desk.peers[2], "stranger": node_id(50)}
            peer = peers[who]
            epoch = {
                "now": desk.epoch,
                "past": desk.epoch._replace(counter=desk.epoch.counter - 1),
                "future": desk.epoch._replace(counter=desk.epoch.counter + 5),
                "foreign": Epoch(desk.epoch.counter, node_id(50), BOOT),
            }[when]
            act = acts_of(desk.task, epoch, epoch, desk.me)[index]
            u = desk.machine.find(desk.task)
            assert u is not None
            before = (u.phase, u.holder, u.result, u.lease_until_s, u.pnr)
            standing = desk.machine._standing(u, peer)
            ruling = INITIATOR.get((PERFORMATIVE_OF[type(act)], u.phase, standing), Ruling.ILLEGAL)
            effects = desk.hear(peer, act)
            settled(desk, effects)
            what = f"{type(act).__name__} from {who}, epoch {when}, in {phase}"
            if ruling is Ruling.ILLEGAL:
                assert [type(s.act) for s in desk.of(Send)] == [NotUnderstood], what
                assert len(desk.of(Noted)) == 1, what
            if ruling is not Ruling.HEAR or who == "stranger":
                assert (u.phase, u.holder, u.result, u.lease_until_s, u.pnr) == before, what
            if isinstance(act, NotUnderstood):
                assert not effects, what
            if phase in TERMINAL:
                assert u.phase is phase, what
                assert not desk.of(TaskChanged), what
            if when in ("future", "foreign"):
                assert (u.phase, u.result) == (before[0], before[2]), what
            if before[0] is Phase.IN_DOUBT and delivery is AMO:
                proof = isinstance(act, Inform | Failure | Forfeit) or (isinstance(act, Cancelled) and not act.in_doubt)
                assert u.phase is Phase.IN_DOUBT or (proof and who == "holder") or isinstance(act, Inform), what


@pytest.mark.parametrize(("stage", "delivery"), STAGES)
def test_every_act_from_everyone_in_every_stage_of_the_participant(stage: Stage | None, delivery: Delivery) -> None:
    for index in range(ACTS):
        for who, when in itertools.product(("initiator", "stranger"), ("now", "past", "future", "foreign")):
            desk = participant_in(stage, delivery)
            peer = desk.asker if who == "initiator" else desk.stranger
            counter = {"now": 5, "past": 4, "future": 9, "foreign": 9}[when]
            epoch = desk.epoch(counter, node_id(50) if when == "foreign" else peer)
            act = acts_of(desk.task, epoch, desk.epoch(5), desk.asker)[index]
            if isinstance(act, Cfp | AcceptProposal):
                act = type(act)(**{name: getattr(act, name) for name in act.__slots__} | {"record": desk.record})
            c = desk.machine.find(desk.task)
            before = None if c is None else (c.stage, c.epoch, c.lease_until_s, c.pnr, c.report)
            ruling = PARTICIPANT.get((PERFORMATIVE_OF[type(act)], stage), Ruling.ILLEGAL)
            effects = desk.hear(act, peer)
            settled(desk, effects)
            what = f"{type(act).__name__} from {who}, epoch {when}, in {stage}"
            outsider = who == "stranger" or when == "foreign"
            if isinstance(act, NotUnderstood):
                assert not desk.of(Send), what
            elif (outsider and stage is not None) or ruling is Ruling.ILLEGAL:
                assert [type(s.act) for s in desk.of(Send)] == [NotUnderstood], what
            if outsider or ruling is not Ruling.HEAR:
                after = None if c is None else (c.stage, c.epoch, c.lease_until_s, c.pnr, c.report)
                assert after == before, what
                assert not desk.of(StartWork) + desk.of(LeaseMoved) + desk.of(GrantPointOfNoReturn), what
            if desk.of(StartWork):
                assert isinstance(act, Commit), what
                assert (stage, when) == (Stage.RESERVED, "now"), what
            assert not desk.of(GrantPointOfNoReturn), what


def test_every_act_has_a_ruling_or_is_illegal_on_purpose() -> None:
    to_initiator = set(Performative) - FROM_INITIATOR - AMONG_CUSTODIANS
    assert {act for act, _, _ in INITIATOR} == to_initiator
    assert {act for act, _ in PARTICIPANT} == FROM_INITIATOR | {Performative.NOT_UNDERSTOOD}
    strangers = {act for (act, phase, who) in INITIATOR if who is Standing.STRANGER and phase not in TERMINAL}
    assert strangers == {Performative.NOT_UNDERSTOOD}, "a stranger is heard on nothing"


# ---- long conversations of nonsense

Feeds = list[tuple[Any, ...]]
steps = st.lists(
    st.one_of(
        st.tuples(st.just("act"), st.integers(0, ACTS - 1), st.integers(0, 3), st.integers(0, 8)),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 0.1, 0.5, 2.5])),
        st.tuples(st.just("lost"), st.integers(0, 3)),
        st.tuples(st.just("found"), st.integers(0, 3)),
        st.tuples(st.just("local"), st.integers(0, 5)),
        st.tuples(st.just("restart")),
    ),
    max_size=25,
)
SETTINGS = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SETTINGS
@given(steps, st.sampled_from(PHASES))
def test_an_initiator_survives_any_conversation(script: Feeds, start: tuple[Phase, Delivery]) -> None:
    desk = initiator_in(*start)
    peers = [*desk.peers, node_id(50)]
    ended: Phase | None = None
    holders: dict[Epoch, tuple[NodeId, ...]] = {}
    for step in script:
        local: list[Callable[[], list[Effect]]] = [
            lambda: desk.feed(CancelRequested(task=desk.task)),
            lambda: desk.feed(DoubtResolved(task=desk.task, done=True)),
            lambda: desk.feed(DoubtResolved(task=desk.task, done=False)),
            desk.until_due,
            lambda: desk.feed(TimePassed()),
            lambda: desk.feed(CancelRequested(task=record_of(desk.me, 99).task)),
        ]
        match step:
            case ("act", index, who, epoch):
                e = Epoch(epoch, desk.me, desk.epoch.boot) if epoch else desk.epoch
                desk.hear(peers[who], acts_of(desk.task, e, desk.epoch, desk.me)[index])
            case ("wait", seconds):
                desk.after(seconds)
            case ("lost", who):
                desk.feed(PeerLost(peer=peers[who]))
            case ("found", who):
                desk.feed(PeerFound(peer=peers[who]))
            case ("local", index):
                local[index]()
            case _:
                desk.restart()
        settled(desk, desk.last)
        u = desk.machine.find(desk.task)
        if u is None:
            break  # forgotten after keep_s
        assert ended is None or u.phase is ended, "what has ended stays ended"
        ended = u.phase if u.phase in TERMINAL else None
        for send in desk.of(Send):
            if isinstance(send.act, AcceptProposal | Adopt):
                assert holders.setdefault(send.act.epoch, send.to) == send.to, "an epoch has one holder"
                assert send.act.epoch == max(holders), "who is awarded now stands above all awarded before"
        due_s = desk.machine.next_deadline_s()
        assert due_s is not None, "every task is waited for"


@SETTINGS
@given(steps, st.sampled_from(STAGES))
def test_a_participant_survives_any_conversation(script: Feeds, start: tuple[Stage | None, Delivery]) -> None:
    desk = participant_in(*start)
    owners = [desk.asker, desk.asker, desk.asker, desk.stranger]
    begun = desk.epoch(5)
    started: list[Epoch] = [begun] if start[0] not in (None, Stage.RESERVED) else []
    running: Epoch | None = begun if start[0] in (Stage.EXECUTING, Stage.STOPPING) else None
    for step in script:
        at = desk.epoch(3)
        outcomes = [WorkOutcome(result=b"r"), WorkOutcome(given_back=True), WorkOutcome(reason=Reason.CRASHED)]
        match step:
            case ("act", index, who, epoch):
                owner = owners[who]
                act = acts_of(desk.task, desk.epoch(epoch, owner), desk.epoch(max(0, epoch - 1)), desk.asker)[index]
                if isinstance(act, Cfp | AcceptProposal):
                    act = type(act)(**{name: getattr(act, name) for name in act.__slots__} | {"record": desk.record})
                desk.hear(act, owner)
            case ("wait", seconds):
                desk.after(seconds)
            case ("lost", _):
                desk.feed(PeerLost(peer=desk.asker))
            case ("found", _):
                desk.feed(PeerFound(peer=desk.asker))
            case ("local", index) if index < 3 and running is not None:
                desk.feed(WorkEnded(task=desk.task, epoch=running, outcome=outcomes[index]))
                running = None
            case ("local", 3):
                desk.feed(PointOfNoReturnReached(task=desk.task, epoch=running or at))
            case ("local", 4):
                desk.feed(CheckpointTaken(task=desk.task, epoch=running or at, state=b"c"))
                desk.feed(ProgressMade(task=desk.task, epoch=running or at, progress_permille=5000))
            case ("local", 5):
                desk.feed(LeaveRequested())
            case ("restart",):
                desk.restart()
                running = None
            case _:
                continue
        settled(desk, desk.last)
        for work in desk.of(StartWork):
            assert running is None, "one handler a task"
            assert work.epoch not in started, "an epoch is started once"
            assert work.lease_until_s > desk.now_s
            started.append(work.epoch)
            running = work.epoch
        for grant in desk.of(GrantPointOfNoReturn):
            assert running is not None
            c = desk.machine.find(desk.task)
            assert c is not None
            assert c.repeatable or desk.now_s < c.lease_until_s, "nothing is granted without a lease"
            assert grant.epoch == c.epoch
        c = desk.machine.find(desk.task)
        if c is not None:
            assert c.fence >= c.epoch
            held = c.task in desk.bidder.held
            assert held == c.active, "resources are held exactly while they may be used"
