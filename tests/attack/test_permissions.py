"""What a member's credential does not allow it cannot have by asking differently: whole nodes, one of them lying."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from meshagent.core.acts import Propose
from meshagent.core.bodies import Profile, StoryQuery, StoryReply
from meshagent.core.contract_net.interface import Noted
from meshagent.runtime.node import Node
from meshagent.runtime.story import MAX_ANSWERS_A_PEER_S, MAX_REPLY_BYTES, Teller, decode_reply, encode_reply
from meshagent.sdk.backend import SubmitRequest
from meshagent.sdk.declare import task
from meshagent.sdk.kinds import Task
from meshagent.sdk.role import Role
from meshagent.types import Delivery, InDoubt, NodeId, Reason, TaskId
from meshagent.wire import codec
from tests.support.small_mesh import SmallMesh, run

KIND = "attack.permissions.open"
RAN: list[str] = []


@dataclass(frozen=True)
class Open(Task[str], kind=KIND):
    """Open a valve: not everybody may ask for that, nor do it."""

    valve: str = "secret-valve"


class Valves(Role):
    """Opens valves."""

    @task
    async def open(self, job: Open) -> str:
        RAN.append(self.node.name)
        return f"{job.valve} is open"


def allow_itself_everything(node: Node) -> None:
    """The node's own software no longer checks what its credential says."""
    honest = node._allowed
    node._allowed = lambda peer, action, kind: peer == node.id or honest(peer, action, kind)  # type: ignore[method-assign]


def submit(node: Node, **changes: Any) -> TaskId:
    terms: dict[str, Any] = {"delivery": Delivery.AT_MOST_ONCE, "in_doubt": InDoubt.MAJORITY, "within_s": 20.0}
    before = set(node.pending)
    node.submit(SubmitRequest(kind=KIND, spec=b"\x80", **(terms | changes)))
    (task_id,) = set(node.pending) - before
    return task_id


def noted(node: Node, task_id: TaskId, event: str) -> list[Noted]:
    return [note for _, note in node.stories.own(task_id).lines if note.event == event]


def test_announce_permission_a_member_that_may_not_ask_for_a_kind_is_refused_by_everybody_it_asks() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        RAN.clear()
        victim = await mesh.join("victim", Valves)
        rogue = await mesh.join("rogue", may=("perform:*", "announce:other.*"))
        allow_itself_everything(rogue)
        await mesh.linked(1)
        task_id = submit(rogue)
        await mesh.until(lambda: bool(noted(rogue, task_id, "refuse")))
        assert dict(noted(rogue, task_id, "refuse")[0].facts)["reason"] == Reason.PERMISSION.value
        await mesh.until(lambda: not rogue.pending)
        assert RAN == []
        assert victim.driver.participant.find(task_id) is None

    run(scenario)


def test_perform_permission_a_member_that_may_not_do_a_kind_is_not_asked_and_its_bid_is_nobodys() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        RAN.clear()
        asker = await mesh.join("asker")
        rogue = await mesh.join("rogue", Valves, may=("announce:*", "perform:other.*"))
        allow_itself_everything(rogue)
        await mesh.linked(1)
        assert KIND in dict(asker.driver.peers()[rogue.id].profile.kinds)  # type: ignore[union-attr]
        task_id = submit(asker, within_s=5.0)
        await mesh.until(lambda: bool(noted(asker, task_id, "called")))
        assert dict(noted(asker, task_id, "called")[0].facts)["peers"] == 0
        undertaking = asker.driver.initiator.find(task_id)
        assert undertaking is not None
        bid = Propose(task=task_id, epoch=undertaking.call_epoch, added_ms=0, load_ms=0, plan_version=1, because="")
        rogue.driver.links.send((asker.id,), bid)
        rogue.driver._wake()
        await mesh.until(lambda: bool(noted(asker, task_id, "not_understood")))
        await mesh.until(lambda: not asker.pending)
        assert RAN == []
        assert not noted(asker, task_id, "accept_proposal")

    run(scenario)


class Curious:
    """A member's questions, asked by hand, and what comes back."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.answers: list[StoryReply] = []
        heard = node.stories.heard

        def listen(peer: NodeId, body: StoryQuery | StoryReply) -> None:
            if isinstance(body, StoryReply):
                self.answers.append(body)
            heard(peer, body)

        node.stories.heard = listen  # type: ignore[method-assign]

    def ask(self, whom: Node, about: str, query: int = 1) -> None:
        self._node.driver.say(whom.id, StoryQuery(query=query, task=about))


def test_story_of_a_task_is_not_for_members_that_may_neither_ask_for_nor_do_such_work() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        owner = await mesh.join("owner", Valves)
        outsider = Curious(await mesh.join("outsider", may=("announce:other.*", "perform:other.*")))
        colleague = Curious(await mesh.join("colleague", may=(f"perform:{KIND}",)))
        await mesh.linked(2)
        task_id = submit(owner)
        await mesh.until(lambda: not owner.pending)
        for asker in (outsider, colleague):
            for prefix in (task_id, task_id[:1]):
                asker.ask(owner, prefix)
        await mesh.until(lambda: len(outsider.answers) == len(colleague.answers) == 2)
        for hidden in outsider.answers:
            assert hidden.task == ""
            assert b"valve" not in hidden.lines
            told = decode_reply(owner.id, hidden)
            assert told is not None
            assert not told.lines
            assert not told.about
        assert all(shown.task == task_id and b"valve" in shown.lines for shown in colleague.answers)

    run(scenario)


def test_story_flood_by_one_member_leaves_answers_for_another() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        owner = await mesh.join("owner", Valves)
        greedy = Curious(await mesh.join("greedy"))
        modest = Curious(await mesh.join("modest"))
        await mesh.linked(2)
        for number in range(300):
            greedy.ask(owner, "x" * 32, number)
        modest.ask(owner, "y" * 32)
        await mesh.until(lambda: len(modest.answers) == 1, within_s=0.9)
        assert len(greedy.answers) <= MAX_ANSWERS_A_PEER_S

    run(scenario)


def test_story_of_a_huge_result_fits_into_a_reply() -> None:
    about = {"kind": KIND, "spec": b"s" * 60_000, "result": b"r" * 60_000}
    raw, truncated = encode_reply(Teller(NodeId("a" * 52), (), about))
    assert truncated
    assert len(raw) <= MAX_REPLY_BYTES
    codec.encode(StoryReply(query=1, task="t" * 32, lines=raw, truncated=truncated))


def test_profile_that_offers_everything_gives_no_permission() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        asker = await mesh.join("asker")
        rogue = await mesh.join("rogue", may=())
        await mesh.linked(1)
        rogue.driver.links.set_profile(Profile(version=99, name="root", roles=("admin",), kinds={KIND: "Open()"}))
        await mesh.until(lambda: bool(asker.driver.peers()[rogue.id].profile.kinds))  # type: ignore[union-attr]
        assert asker.driver.directory.candidates(KIND) == ()
        assert not asker.may(rogue.id, "perform", KIND)

    run(scenario)
