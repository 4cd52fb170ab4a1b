"""A peer made from docs/protocol.md alone holds whole conversations with a real node, over mutual TLS and gRPC."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from random import Random
from time import time as wall_s  # noqa: TID251  # TLS compares with the real clock too
from typing import Any

import pytest

from meshagent.core.acts import BidAnswer, Decline, Offer, TaskRecord, WorkOutcome
from meshagent.core.bodies import EventMessage, Profile, StoryQuery, StoryReply
from meshagent.core.contract_net.interface import (
    CheckpointTaken,
    ContractConfig,
    GrantPointOfNoReturn,
    LeaseMoved,
    PointOfNoReturnReached,
    StartWork,
    StopWork,
    TaskChanged,
    TaskSubmitted,
    WorkEnded,
)
from meshagent.core.ports import HintSource, PeerHint
from meshagent.identity.gate import RejectReason
from meshagent.identity.keys import DeviceKey
from meshagent.runtime.clock import SystemClock
from meshagent.runtime.driver import Driver, DriverConfig
from meshagent.transport.mesh import GrpcTransport
from meshagent.types import Delivery, Epoch, NodeId, Reason, TaskId, TaskState, task_id_of
from meshagent.virtual.journal import Disk, MemoryJournal
from tests.conformance import independent as wire
from tests.conformance.independent import Refused
from tests.conformance.independent_peer import IndependentPeer
from tests.support.meshes import TestFleet, quick

pytestmark = pytest.mark.network

SEED = hashlib.sha256(b"independent").digest()
AT_MOST_ONCE, AT_LEAST_ONCE = 1, 2
SPEC = b"\x81\xa4site\xa6pump-7"
DRAINING, STALE_EPOCH, ILLEGAL_NOW, UNKNOWN_TASK, CANCELLED, INFORM, CHECKPOINT = 12, 32, 36, 37, 99, 21, 29


class RealNode:
    """Driver, links, gate and transport of a node; bids, work and results as a test says."""

    def __init__(self, fleet: TestFleet, kinds: dict[str, str], config: ContractConfig | None = None) -> None:
        self.identity = fleet.device("node")
        self.book = self.identity.open_book(now_s=wall_s())
        rng = Random(1)
        self.transport = GrpcTransport(self.identity, self.book, quick(), rng, wall_s=wall_s)
        self.kinds = kinds
        self.answer: BidAnswer = Offer(1000, 500, 7, "because")
        self.result: bytes | None = b"\xa4done"
        self.started: list[StartWork] = []
        self.stopped: list[StopWork] = []
        self.passed: list[GrantPointOfNoReturn] = []
        self.moved: list[LeaseMoved] = []
        self.changes: dict[TaskId, list[TaskChanged]] = {}
        self.events: list[EventMessage] = []
        self.driver = Driver(
            identity=self.identity,
            book=self.book,
            transport=self.transport,
            journal=MemoryJournal(Disk()),
            clock=SystemClock(),
            rng=rng,
            bidder=self,
            host=self,
            authority=lambda peer, action, kind: True,
            config=DriverConfig(contract=config or ContractConfig()),
            on_story=self.story,
        )
        self.driver.add_observer(self)

    @property
    def id(self) -> NodeId:
        return self.identity.node_id

    def bid(self, record: TaskRecord, within_s: float | None, *, purpose: str) -> BidAnswer:
        return self.answer

    def reserve(self, record: TaskRecord, epoch: Epoch) -> None: ...

    def release(self, task: TaskId, epoch: Epoch) -> None: ...

    def start_work(self, effect: StartWork) -> None:
        self.started.append(effect)
        if self.result is not None:
            self.end(effect, WorkOutcome(result=self.result))

    def end(self, work: StartWork, outcome: WorkOutcome) -> None:
        self.driver.feed(WorkEnded(task=work.record.task, epoch=work.epoch, outcome=outcome))

    def move_lease(self, effect: LeaseMoved) -> None:
        self.moved.append(effect)

    def stop_work(self, effect: StopWork) -> None:
        self.stopped.append(effect)
        work = self.started[-1]
        self.end(work, WorkOutcome(reason=effect.reason, given_back=True))

    def grant_point_of_no_return(self, effect: GrantPointOfNoReturn) -> None:
        self.passed.append(effect)

    def event_received(self, peer: NodeId, event: EventMessage) -> None:
        self.events.append(event)

    def story(self, peer: NodeId, body: StoryQuery | StoryReply) -> None:
        if isinstance(body, StoryQuery):
            self.driver.say(peer, StoryReply(query=body.query, task=body.task, lines=b"\x80"))

    def task_changed(self, change: TaskChanged) -> None:
        self.changes.setdefault(change.task, []).append(change)

    def noted(self, note: object, at_wall_s: float) -> None: ...

    def peers_changed(self) -> None: ...

    def submit(self, kind: str, **terms: Any) -> TaskId:
        boot, nonce = self.driver.boot, os.urandom(16)
        task = task_id_of(self.id, boot, nonce)
        record = TaskRecord(task=task, initiator=self.id, boot=boot, nonce=nonce, kind=kind, spec=SPEC, **terms)
        self.driver.submit(TaskSubmitted(record=record, within_s=60.0))
        return task

    def state(self, task: TaskId) -> TaskState | None:
        changes = self.changes.get(task)
        return changes[-1].state if changes else None

    def rejected(self, reason: RejectReason) -> int:
        return sum(n for (why, _), n in self.driver.links.rejections.items() if why is reason)

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not holds():
                await asyncio.sleep(0.005)


@asynccontextmanager
async def conversation(
    kinds: dict[str, str] | None = None, *, node_dials: bool = False, config: ContractConfig | None = None
) -> AsyncIterator[tuple[RealNode, IndependentPeer]]:
    """A node and a peer that have greeted each other and know each other's profile."""
    fleet = TestFleet()
    credential = fleet.device("independent", key=DeviceKey(SEED)).credential.der
    node = RealNode(fleet, kinds or {}, config)
    peer = IndependentPeer(SEED, credential, [fleet.root])
    await node.driver.start(Profile(version=1, name="node", kinds=node.kinds))
    try:
        if node_dials:
            port = await peer.listen()
            node.transport.add_hint(
                PeerHint(host="127.0.0.1", port=port, source=HintSource.STATIC, peer=NodeId(peer.id))
            )
            await peer.accepted()
        else:
            await peer.dial(node.transport.listen_port, node.id)
        await peer.greet()
        await peer.say(
            "Profile",
            version=1,
            name="independent",
            kinds=[{"kind": "pump.check.v1", "reads": "CheckContact(site: str) -> Finding"}],
        )
        assert (await peer.hear("Profile"))["name"] == "node"
        await node.until(lambda: peer.id in node.driver.links.peers)
        yield node, peer
    finally:
        await peer.close()
        await node.driver.close()


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await scenario()

    asyncio.run(bounded())


def ids_of(fields: dict[str, Any]) -> dict[str, Any]:
    return {"task": fields["task"], "epoch": fields["epoch"]}


# ---- the peer works


@pytest.mark.parametrize("node_dials", [False, True], ids=["the peer dials", "the node dials"])
def test_the_peer_is_called_bids_works_and_is_acknowledged(node_dials: bool) -> None:
    async def scenario() -> None:
        async with conversation(node_dials=node_dials) as (node, peer):
            task = node.submit("pump.check.v1", delivery=Delivery.AT_MOST_ONCE)
            call = await peer.hear("Cfp")
            record = wire.read_message("TaskRecord", call["record"])
            assert wire.base32(call["task"]) == task
            assert wire.task_of(record["initiator"], record["boot"], record["nonce"]) == call["task"]
            assert (record["kind"], record["spec"]) == ("pump.check.v1", SPEC)
            assert 0 < call["reply_within_ms"] <= 400
            await peer.say("Propose", **ids_of(call), added_ms=41_500, load_ms=0, plan_version=3, because="near")

            award = await peer.hear("AcceptProposal")
            assert (award["record"], award["call_epoch"]) == (call["record"], call["epoch"])
            assert (award["added_ms"], award["plan_version"], award["lease_ms"]) == (41_500, 3, 2000)
            await peer.say("Reserve", **ids_of(award))
            assert ids_of(await peer.hear("Commit")) == ids_of(award)

            await peer.say("Renew", **ids_of(award), boot=peer.boot, sequence=1, progress_permille=500, note="half way")
            granted = await peer.hear("Renewed")
            assert (granted["boot"], granted["sequence"]) == (peer.boot, 1)
            assert node.state(task) is TaskState.EXECUTING

            await peer.say("Checkpoint", **ids_of(award), version=1, state=b"\x01")
            kept = await peer.hear("Acknowledge")
            assert (kept["act"], kept["version"]) == (CHECKPOINT, 1)

            await peer.say("PassPointOfNoReturn", **ids_of(award))
            assert ids_of(await peer.hear("PointOfNoReturnRecorded")) == ids_of(award)

            for _ in range(2):  # said again: acknowledged again
                await peer.say("Inform", **ids_of(award), result=b"\x01")
                done = await peer.hear("Acknowledge")
                assert (ids_of(done), done["act"]) == (ids_of(award), INFORM)
            assert node.state(task) is TaskState.DONE
            assert node.changes[task][-1].result == b"\x01"
            assert peer.waiting() == []

    run(scenario)


def test_the_peer_gives_back_and_is_awarded_again_with_its_checkpoint() -> None:
    async def scenario() -> None:
        async with conversation() as (node, peer):
            task = node.submit("pump.check.v1")
            call = await peer.hear("Cfp")
            await peer.say("Propose", **ids_of(call), added_ms=1, load_ms=1, plan_version=1)
            first = await peer.hear("AcceptProposal")
            assert first["epoch"] == call["epoch"], "the first award has the epoch of its call"
            await peer.say("Reserve", **ids_of(first))
            await peer.hear("Commit")
            await peer.say(
                "Forfeit", **ids_of(first), reason=66, detail="battery", checkpoint=b"half", checkpoint_version=1
            )
            again = await peer.hear("Cfp")
            assert wire.epoch_order(again["epoch"]) > wire.epoch_order(first["epoch"])
            assert again["resumes"]
            await peer.say("Propose", **ids_of(again), added_ms=1, load_ms=1, plan_version=1)
            second = await peer.hear("AcceptProposal")
            assert (second["checkpoint"], second["checkpoint_version"]) == (b"half", 1)
            await peer.say("Failure", **ids_of(second), reason=68, detail="no signal")
            await node.until(lambda: node.state(task) is TaskState.FAILED)

    run(scenario)


def test_the_peer_refuses_an_award_and_is_called_again_under_a_new_epoch() -> None:
    async def scenario() -> None:
        async with conversation(config=ContractConfig(backoff_s=0.05)) as (node, peer):
            node.submit("pump.check.v1")
            call = await peer.hear("Cfp")
            await peer.say("Propose", **ids_of(call), added_ms=1000, load_ms=0, plan_version=1)
            award = await peer.hear("AcceptProposal")
            await peer.say("Refuse", **ids_of(award), reason=33, added_ms=2000, load_ms=0)
            repriced = await peer.hear("AcceptProposal")
            assert repriced["epoch"] == wire.next_epoch(award["epoch"])
            assert repriced["added_ms"] == 2000
            seen = (5000).to_bytes(8, "big") + repriced["epoch"][8:]
            await peer.say("Refuse", **ids_of(repriced), reason=STALE_EPOCH, seen=seen)
            higher = await peer.hear("Cfp")
            assert higher["epoch"] == wire.next_epoch(seen)
            await peer.say("Refuse", **ids_of(higher), reason=5, detail="18 % left")
            assert (await peer.hear("Cfp"))["epoch"] == wire.next_epoch(higher["epoch"])

    run(scenario)


# ---- the node works


class Asking:
    """What the peer keeps of one task that it asks for."""

    def __init__(self, peer: IndependentPeer, nonce: int, delivery: int = AT_MOST_ONCE, **terms: Any) -> None:
        raw = nonce.to_bytes(16, "big")
        self.task = wire.task_of(peer.public, peer.boot, raw)
        self.record = wire.write_message(
            "TaskRecord",
            task=self.task,
            initiator=peer.public,
            boot=peer.boot,
            nonce=raw,
            kind="work.v1",
            spec=SPEC,
            delivery=delivery,
            in_doubt=1,
            durability=1,
            **terms,
        )
        self.epoch = (1).to_bytes(8, "big") + peer.public + peer.boot

    @property
    def ids(self) -> dict[str, Any]:
        return {"task": self.task, "epoch": self.epoch}

    def award(self, **changes: Any) -> dict[str, Any]:
        terms = {"record": self.record, "call_epoch": self.epoch, "added_ms": 1000, "load_ms": 500, "lease_ms": 2000}
        return self.ids | terms | changes


async def awarded(peer: IndependentPeer, asking: Asking) -> None:
    await peer.say("Cfp", to_all=True, **asking.ids, record=asking.record, reply_within_ms=400)
    bid = await peer.hear("Propose")
    assert (ids_of(bid), bid["added_ms"], bid["load_ms"], bid["plan_version"]) == (asking.ids, 1000, 500, 7)
    await peer.say("AcceptProposal", **asking.award(plan_version=7))
    assert ids_of(await peer.hear("Reserve")) == asking.ids


def test_the_node_is_called_bids_works_and_says_its_result_until_it_is_acknowledged() -> None:
    async def scenario() -> None:
        async with conversation({"work.v1": "Work()"}) as (node, peer):
            asking = Asking(peer, 1)
            await awarded(peer, asking)
            await peer.say("Commit", **asking.ids)
            for _ in range(3):  # nobody acknowledges: it says it again
                result = await peer.hear("Inform")
                assert (ids_of(result), result["result"]) == (asking.ids, b"\xa4done")
            await peer.say("Acknowledge", **asking.ids, act=INFORM)
            await peer.say("AcceptProposal", **asking.award(plan_version=7))
            assert (await peer.hear("Inform"))["result"] == b"\xa4done", "a duplicate award gets the stored result"
            assert len(node.started) == 1
            assert node.started[0].record.spec == SPEC

    run(scenario)


def test_the_node_renews_checkpoints_passes_its_point_of_no_return_and_obeys_cancel() -> None:
    async def scenario() -> None:
        async with conversation({"work.v1": "Work()"}) as (node, peer):
            node.result = None
            asking = Asking(peer, 2)
            await awarded(peer, asking)
            await peer.say("Commit", **asking.ids)
            renewal = await peer.hear("Renew")
            before_s = node.started[0].lease_until_s
            await peer.say("Renewed", **asking.ids, boot=renewal["boot"], sequence=renewal["sequence"])
            await node.until(lambda: node.moved)
            assert node.moved[0].lease_until_s > before_s

            named: dict[str, Any] = {"task": node.started[0].record.task, "epoch": node.started[0].epoch}
            node.driver.feed(CheckpointTaken(**named, state=b"state"))
            kept = await peer.hear("Checkpoint")
            assert (kept["version"], kept["state"]) == (1, b"state")
            await peer.say("Acknowledge", **asking.ids, act=CHECKPOINT, version=1)

            node.driver.feed(PointOfNoReturnReached(**named))
            assert ids_of(await peer.hear("PassPointOfNoReturn")) == asking.ids
            assert not node.passed
            await peer.say("PointOfNoReturnRecorded", **asking.ids)
            await node.until(lambda: node.passed)

            await peer.say("Cancel", **asking.ids, reason=CANCELLED)
            stopped = await peer.hear("Cancelled")
            assert stopped["in_doubt"], "stopped past the point of no return: nobody knows"
            assert node.stopped[0].reason is Reason.CANCELLED
            await peer.say("Acknowledge", **asking.ids, act=31)
            await peer.say("QueryStatus", **asking.ids)
            assert not (await peer.hear("Cancelled"))["in_doubt"]

    run(scenario)


def test_the_node_gives_back_what_is_not_renewed() -> None:
    async def scenario() -> None:
        async with conversation({"work.v1": "Work()"}) as (node, peer):
            node.result = None
            asking = Asking(peer, 3)
            await peer.say("AcceptProposal", **asking.award(lease_ms=300))
            await peer.hear("Reserve")
            await peer.say("Commit", **asking.ids)
            back = await peer.hear("Forfeit")
            assert back["reason"] == 64, "the lease is over"
            assert node.stopped[0].reason is Reason.LEASE_LOST

    run(scenario)


def test_the_node_adopts_and_answers_stale_and_illegal_acts() -> None:
    async def scenario() -> None:
        async with conversation({"work.v1": "Work()"}) as (node, peer):
            node.result = None
            asking = Asking(peer, 4, AT_LEAST_ONCE)
            await awarded(peer, asking)
            await peer.say("Commit", **asking.ids)
            await peer.hear("Renew")
            newer = wire.next_epoch(asking.epoch)
            await peer.say("Adopt", task=asking.task, epoch=newer, former=asking.epoch)
            while (await peer.hear("Renew"))["epoch"] != newer:
                pass
            await peer.say("AcceptProposal", **asking.award())
            stale = await peer.hear("Refuse")
            assert (stale["reason"], stale["seen"]) == (STALE_EPOCH, newer)
            foreign = (9).to_bytes(8, "big") + wire.key_of(node.id) + peer.boot
            await peer.say("Commit", task=asking.task, epoch=foreign)
            wrong = await peer.hear("NotUnderstood")
            assert (wrong["act"], wrong["reason"]) == (26, ILLEGAL_NOW)

    run(scenario)


def test_what_the_node_does_not_know_is_answered_as_the_document_says() -> None:
    async def scenario() -> None:
        async with conversation({"work.v1": "Work()"}) as (node, peer):
            asking, squat = Asking(peer, 5), Asking(peer, 6)
            await peer.say("QueryStatus", **asking.ids)
            assert (await peer.hear("Refuse"))["reason"] == UNKNOWN_TASK
            await peer.say("Commit", **asking.ids)
            assert (await peer.hear("NotUnderstood"))["reason"] == ILLEGAL_NOW
            await peer.say("Inform", **asking.ids, result=b"")
            assert (await peer.hear("NotUnderstood"))["reason"] == UNKNOWN_TASK
            await peer.say("Cancel", **asking.ids, reason=CANCELLED)
            assert ids_of(await peer.hear("Cancelled")) == asking.ids
            await peer.say("AcceptProposal", **asking.award())
            assert ids_of(await peer.hear("Cancelled")) == asking.ids, "the tombstone absorbs the late award"
            record = wire.read_message("TaskRecord", squat.record) | {"nonce": bytes(16)}
            unbound = wire.write_message("TaskRecord", **record)
            await peer.say("Cfp", **squat.ids, record=unbound, reply_within_ms=400)
            assert (await peer.hear("NotUnderstood"))["act"] == 16
            foreign = asking.epoch[:8] + wire.key_of(node.id) + peer.boot
            await peer.say("Cfp", task=squat.task, epoch=foreign, record=squat.record, reply_within_ms=400)
            assert (await peer.hear("NotUnderstood"))["epoch"] == foreign, "an epoch belongs to who asks"
            node.answer = Decline(Reason.BATTERY, "18 % left")
            await peer.say("Cfp", **squat.ids, record=squat.record, reply_within_ms=400)
            declined = await peer.hear("Refuse")
            assert (declined["reason"], declined["detail"]) == (5, "18 % left")
            assert not node.started

    run(scenario)


def test_work_of_one_key_is_done_once() -> None:
    async def scenario() -> None:
        async with conversation({"work.v1": "Work()"}) as (node, peer):
            node.result = None
            one, two = (Asking(peer, nonce, AT_LEAST_ONCE, key="pump-7") for nonce in (7, 8))
            await awarded(peer, one)
            await peer.say("Cfp", **two.ids, record=two.record, reply_within_ms=400)
            twin = await peer.hear("Refuse")
            assert (twin["reason"], twin["duplicate_of"]) == (34, one.task)
            await peer.say("Commit", **one.ids)
            await node.until(lambda: node.started)
            node.end(node.started[0], WorkOutcome(result=b"\x07"))
            await peer.hear("Inform")
            await peer.say("Acknowledge", **one.ids, act=INFORM)
            await peer.say("Cfp", **two.ids, record=two.record, reply_within_ms=400)
            offer = await peer.hear("Propose")
            assert (offer["holds_result"], offer["added_ms"], offer["load_ms"]) == (True, 0, 0)
            await peer.say("AcceptProposal", **two.award(added_ms=0, load_ms=0))
            handed = await peer.hear("Inform")
            assert (ids_of(handed), handed["result"]) == (two.ids, b"\x07")
            assert len(node.started) == 1

    run(scenario)


def test_of_two_simultaneous_calls_of_one_key_the_smaller_task_goes_on() -> None:
    async def scenario() -> None:
        async with conversation({"work.v1": "Work()"}) as (_, peer):
            asked = [Asking(peer, nonce, AT_LEAST_ONCE, key="pump-8") for nonce in (30, 31)]
            small, large = sorted(asked, key=lambda one: wire.base32(one.task))
            for one in (large, small):
                await peer.say("Cfp", **one.ids, record=one.record, reply_within_ms=400)
                assert ids_of(await peer.hear("Propose")) == one.ids
            await peer.say("Cfp", **large.ids, record=large.record, reply_within_ms=400)
            rival = await peer.hear("Refuse")
            assert (rival["reason"], rival["duplicate_of"]) == (34, small.task)

    run(scenario)


# ---- the link itself


def test_several_messages_share_one_signature_and_rejections_one_message() -> None:
    async def scenario() -> None:
        async with conversation({"work.v1": "Work()"}) as (node, peer):
            asked = [Asking(peer, nonce) for nonce in range(10, 15)]
            calls = [("Cfp", one.ids | {"record": one.record, "reply_within_ms": 400}) for one in asked]
            await peer.say_all(*calls, to_all=True)
            bids = [await peer.hear("Propose") for _ in asked]
            assert {bid["task"] for bid in bids} == {one.task for one in asked}
            more = b"".join(one.task + one.epoch for one in asked[1:])
            await peer.say("RejectProposal", **asked[0].ids, more=more)
            await peer.say("Event", name="pump.Rattle", body=b"\x80")
            await node.until(lambda: node.events)
            assert node.events[0].name == "pump.Rattle"
            await peer.say("StoryQuery", query=99, task="check-7k2f")
            assert (await peer.hear("StoryReply"))["query"] == 99
            assert not node.driver.links.rejections

    run(scenario)


def test_the_node_says_a_forged_a_repeated_and_a_foreign_message_nothing() -> None:
    async def scenario() -> None:
        async with conversation({"work.v1": "Work()"}) as (node, peer):
            asking = Asking(peer, 20)
            payload = wire.write_message("QueryStatus", **asking.ids)
            seq, kind = peer._seqs[peer.far] + 1, wire.NUMBER_OF["QueryStatus"]
            peer._seqs[peer.far] = seq + 1

            def sealed(seq: int, to: bytes = peer.far, ttl_ms: int = 1000) -> tuple[bytes, list[wire.Leaf]]:
                peer._batch += 1
                message = (to, seq, kind, ttl_ms, payload)
                return wire.seal(
                    peer.key, peer.roots.fleet, peer.boot, peer._batch, peer._stamp(), [message], [os.urandom(16)]
                )

            genuine = sealed(seq)
            await peer.send_sealed(genuine)
            assert (await peer.hear("Refuse"))["reason"] == UNKNOWN_TASK
            proof, leaves = sealed(seq + 1)
            forged = (proof[:-1] + bytes([proof[-1] ^ 1]), leaves)
            for wrong, why in (
                (genuine, RejectReason.REPLAYED),
                (forged, RejectReason.SIGNATURE),
                (sealed(seq + 1, to=wire.key_of(peer.id)), RejectReason.NOT_FOR_US),
                (sealed(seq + 1, ttl_ms=0), RejectReason.SHAPE),
            ):
                await peer.send_sealed(wrong)
                await node.until(lambda why=why: node.rejected(why) == 1)  # type: ignore[misc]
            await peer.send_sealed((proof, leaves))
            assert (await peer.hear("Refuse"))["reason"] == UNKNOWN_TASK, "what was forged before is still new"

    run(scenario)


def test_goodbye_of_the_peer_is_told_as_such_and_the_node_says_its_own() -> None:
    async def scenario() -> None:
        async with conversation() as (node, peer):
            await peer.goodbye()
            await node.until(lambda: peer.id not in node.driver.links.peers)
            assert node.driver.lost_because[NodeId(peer.id)] == "goodbye"
        async with conversation() as (node, peer):
            closing = asyncio.ensure_future(node.driver.close())
            with pytest.raises(Refused, match="bye 1"):
                await peer.hear("Cfp")
            await closing

    run(scenario)


def test_a_second_copy_of_the_peer_is_refused_with_bye_2() -> None:
    async def scenario() -> None:
        async with conversation() as (node, peer):
            copy = IndependentPeer(SEED, peer.credential, [node.identity.trust.roots[0]])  # same counter, other bytes
            await copy.dial(node.transport.listen_port, node.id)
            with pytest.raises(Refused, match="knows a later boot of ours"):
                await copy.greet()
            with pytest.raises(Refused, match="bye 2"):
                await copy.hear("Profile")
            await copy.close()

    run(scenario)
