"""One machine on a desk: feed it a fact, look at the effects, move its clock."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, TypeVar

from meshagent.core.acts import (
    AcceptProposal,
    Act,
    BidAnswer,
    Commit,
    Decline,
    Forfeit,
    Inform,
    Offer,
    Propose,
    Renew,
    Reserve,
    TaskRecord,
)
from meshagent.core.contract_net.initiator import Initiator
from meshagent.core.contract_net.interface import (
    ActReceived,
    ContractConfig,
    Effect,
    InitiatorInput,
    Noted,
    ParticipantInput,
    Persist,
    Send,
    TaskChanged,
    TaskSubmitted,
    TimePassed,
)
from meshagent.core.contract_net.participant import Participant
from meshagent.core.contract_net.records import ContractRecord, InitiatorRecord
from meshagent.runtime.codec import RecordCodec
from meshagent.types import Epoch, NodeId, Reason, TaskId, TaskState
from tests.support.contract_model import GOOD, Signed, node_id, record_of

E = TypeVar("E")
A = TypeVar("A")
CODEC = RecordCodec(InitiatorRecord, ContractRecord)
BOOT = b"boot-of-desk-001"
PEER_BOOT = b"boot-of-peer-001"


class Desk:
    """What both desks share."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.last: list[Effect] = []
        self.journal: dict[TaskId, bytes] = {}

    def keep(self, effects: list[Effect]) -> list[Effect]:
        for effect in effects:
            if isinstance(effect, Persist):
                if effect.record is None:
                    self.journal.pop(effect.task, None)
                else:
                    self.journal[effect.task] = CODEC.encode(effect.record)
        self.last = effects
        return effects

    def of(self, kind: type[E]) -> list[E]:
        """The effects of the last step of one kind."""
        return [effect for effect in self.last if isinstance(effect, kind)]

    def sent(self, act: type[A]) -> list[tuple[tuple[NodeId, ...], A]]:
        """(to, act) of the last step."""
        return [(send.to, send.act) for send in self.of(Send) if isinstance(send.act, act)]

    def one(self, act: type[A]) -> A:
        """The only act of that kind in the last step."""
        found = self.sent(act)
        assert len(found) == 1, [type(send.act).__name__ for send in self.of(Send)]
        return found[0][1]

    def notes(self, event: str) -> list[dict[str, Any]]:
        """The facts noted under `event` in the last step."""
        return [dict(note.facts) for note in self.of(Noted) if note.event == event]

    def saved(self) -> list[Any]:
        """The journal after a restart."""
        return [CODEC.decode(raw) for raw in self.journal.values()]


class InitiatorDesk(Desk):
    """An initiator; peers 1..n offer everything unless taken out of `offers`."""

    def __init__(self, peers: int = 3, machine: type[Initiator] = Initiator, **config: Any) -> None:
        super().__init__()
        self.me = node_id(0)
        self.peers = [node_id(i + 1) for i in range(peers)]
        self.offers = list(self.peers)
        self.config = ContractConfig(**config)
        self.machine_type = machine
        self.boots = 0
        self.start()
        self.record = record_of(self.me)

    def start(self) -> None:
        self.boots += 1
        boot = BOOT[:-1] + bytes([self.boots])
        self.machine = self.machine_type(self.me, boot, self.config, random.Random(1), self)

    def candidates(self, kind: str) -> Sequence[NodeId]:
        return sorted(self.offers)

    def feed(self, event: InitiatorInput) -> list[Effect]:
        return self.keep(self.machine.handle(event, now_s=self.now_s))

    def after(self, seconds: float) -> list[Effect]:
        self.now_s += seconds
        return self.feed(TimePassed())

    def until_due(self) -> list[Effect]:
        due_s = self.machine.next_deadline_s()
        assert due_s is not None
        return self.after(max(0.0, due_s - self.now_s))

    def restart(self) -> list[Effect]:
        self.start()
        return self.keep(self.machine.restore(self.saved(), self.now_s))

    def hear(self, peer: NodeId, act: Act, *, good: bool = True) -> list[Effect]:
        return self.feed(ActReceived(peer=peer, act=act, evidence=GOOD if good else Signed(False)))

    def submit(self, number: int = 1, within_s: float | None = None, **terms: Any) -> TaskRecord:
        self.record = record_of(self.me, number, **terms)
        self.feed(TaskSubmitted(record=self.record, within_s=within_s))
        return self.record

    @property
    def task(self) -> TaskId:
        return self.record.task

    @property
    def epoch(self) -> Epoch:
        u = self.machine.find(self.task)
        assert u is not None
        return u.epoch

    def state(self) -> TaskState:
        u = self.machine.find(self.task)
        assert u is not None
        return u.state

    def changes(self) -> list[TaskChanged]:
        return self.of(TaskChanged)

    def bid(self, peer: NodeId, added_ms: int, load_ms: int = 0, *, good: bool = True, **more: Any) -> None:
        act = Propose(task=self.task, epoch=self.epoch, added_ms=added_ms, load_ms=load_ms, plan_version=1, **more)
        self.hear(peer, act, good=good)

    def bids(self, *added_ms: int) -> None:
        """One bid a peer, in order; the first is the cheapest in most tests."""
        for peer, price in zip(self.peers, added_ms, strict=True):
            self.bid(peer, price)

    def reserve(self, peer: NodeId) -> Epoch:
        self.hear(peer, Reserve(task=self.task, epoch=self.epoch))
        return self.epoch

    def renew(self, peer: NodeId, epoch: Epoch | None = None, sequence: int = 1, **more: Any) -> None:
        act = Renew(task=self.task, epoch=epoch or self.epoch, boot=PEER_BOOT, sequence=sequence, **more)
        self.hear(peer, act)

    def committed(self, *, within_s: float | None = None, **terms: Any) -> NodeId:
        """Up to COMMITTED with the first peer, which has renewed once."""
        self.submit(within_s=within_s, **terms)
        self.bids(*[1000 * (i + 1) for i in range(len(self.peers))])
        self.reserve(self.peers[0])
        self.renew(self.peers[0])
        return self.peers[0]

    def inform(self, peer: NodeId, epoch: Epoch | None = None, result: bytes = b"result") -> None:
        self.hear(peer, Inform(task=self.task, epoch=epoch or self.epoch, result=result))

    def forfeit(self, peer: NodeId, epoch: Epoch | None = None, **more: Any) -> None:
        more.setdefault("reason", Reason.GIVEN_BACK)
        self.hear(peer, Forfeit(task=self.task, epoch=epoch or self.epoch, **more))


class PlainBidder:
    """A price that tests set; remembers what is held."""

    def __init__(self) -> None:
        self.answer: BidAnswer = Offer(added_ms=1000, load_ms=0, plan_version=1)
        self.held: dict[TaskId, Epoch] = {}

    def bid(self, record: TaskRecord, within_s: float | None, *, purpose: str) -> BidAnswer:
        return self.answer

    def reserve(self, record: TaskRecord, epoch: Epoch) -> None:
        assert record.task not in self.held
        self.held[record.task] = epoch

    def release(self, task: TaskId, epoch: Epoch) -> None:
        self.held.pop(task, None)

    def price(self, added_ms: int, load_ms: int = 0) -> None:
        self.answer = Offer(added_ms=added_ms, load_ms=load_ms, plan_version=2)

    def decline(self, reason: Reason) -> None:
        self.answer = Decline(reason, "not today")


class ParticipantDesk(Desk):
    """A participant; `asker` is the initiator of its tasks."""

    def __init__(self, machine: type[Participant] = Participant, **config: Any) -> None:
        super().__init__()
        self.me, self.asker, self.stranger = node_id(9), node_id(0), node_id(5)
        self.config = ContractConfig(**config)
        self.bidder = PlainBidder()
        self.denied: set[str] = set()
        self.machine_type = machine
        self.boots = 0
        self.start()
        self.record = record_of(self.asker)

    def start(self) -> None:
        self.boots += 1
        self.boot = PEER_BOOT[:-1] + bytes([self.boots])
        self.machine = self.machine_type(self.me, self.boot, self.config, self.bidder, self.may)

    def may(self, peer: NodeId, action: str, kind: str) -> bool:
        return action not in self.denied

    def feed(self, event: ParticipantInput) -> list[Effect]:
        return self.keep(self.machine.handle(event, now_s=self.now_s))

    def after(self, seconds: float) -> list[Effect]:
        self.now_s += seconds
        return self.feed(TimePassed())

    def until_due(self) -> list[Effect]:
        due_s = self.machine.next_deadline_s()
        assert due_s is not None
        return self.after(max(0.0, due_s - self.now_s))

    def restart(self) -> list[Effect]:
        self.start()
        self.bidder.held.clear()
        return self.keep(self.machine.restore(self.saved(), self.now_s))

    def hear(self, act: Act, peer: NodeId | None = None) -> list[Effect]:
        return self.feed(ActReceived(peer=peer or self.asker, act=act, evidence=GOOD))

    def epoch(self, counter: int = 1, owner: NodeId | None = None) -> Epoch:
        return Epoch(counter, owner or self.asker, BOOT)

    @property
    def task(self) -> TaskId:
        return self.record.task

    def award(self, counter: int = 1, record: TaskRecord | None = None, **more: Any) -> AcceptProposal:
        record = record or self.record
        self.record = record
        values: dict[str, Any] = {"added_ms": 1000, "load_ms": 0, "plan_version": 1, "lease_ms": 2000} | more
        epoch = self.epoch(counter, record.initiator)
        act = AcceptProposal(task=record.task, epoch=epoch, record=record, call_epoch=epoch, **values)
        self.hear(act, record.initiator)
        return act

    def working(self, counter: int = 1, record: TaskRecord | None = None, **more: Any) -> Epoch:
        """Up to EXECUTING."""
        act = self.award(counter, record, **more)
        self.hear(Commit(task=self.task, epoch=act.epoch))
        return act.epoch
