"""Answers the local API from the node in this process: the same documents behind the socket and for a visitor."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import Message

from meshagent.errors import LocalProtocolError, MeshAgentError
from meshagent.identity.device import install_credential
from meshagent.operator.device import joined
from meshagent.operator.exits import CommandError, Exit
from meshagent.operator.session import Document
from meshagent.runtime.node import NotPermittedError
from meshagent.runtime.story import DEFAULT_WAIT_S, opened
from meshagent.sdk.backend import Pending, SubmitRequest
from meshagent.types import Delivery, Durability, InDoubt, TaskId, TaskState, short, task_label
from meshagent.wire.v1 import operator_pb2 as pb

if TYPE_CHECKING:
    from meshagent.operator.facts import FactsMaker
    from meshagent.runtime.node import Node

MAX_CANDIDATES: Final = 200
"""More than a screen of completions helps nobody."""
MAX_SHOWN: Final = 8
"""Tasks named in one sentence."""
MAX_WHY_S: Final = 30.0
CANCEL_WAIT_S: Final = 30.0
"""A holder that is out of reach hears of its cancellation when its lease ends."""


class NodeDesk:
    """The desk of a node that runs here."""

    def __init__(
        self,
        node: Node,
        *,
        visiting: bool = False,
        facts: FactsMaker | None = None,
        shut_down: Callable[[bool], None] | None = None,
        state: Path | None = None,
    ) -> None:
        """`shut_down(now)` is called when somebody asks the node to leave; None: it is a visitor. `state` is the folder
        where a renewed credential goes."""
        self.node = node
        self._visiting = visiting
        self._facts = facts
        self._shut_down = shut_down
        self._state = state
        self._answers: dict[type[Message], Callable[[Any], Awaitable[Document]]] = {
            pb.StatusRequest: self._status,
            pb.PeersRequest: self._peers,
            pb.TasksRequest: self._tasks,
            pb.WhyRequest: self._why,
            pb.CancelRequest: self._cancel,
            pb.ResolveRequest: self._resolve,
            pb.CompleteRequest: self._complete,
            pb.FactsRequest: self._facts_of,
            pb.SpreadRequest: self._spread,
            pb.RenewRequest: self._renew,
            pb.ShutdownRequest: self._shutdown,
        }

    @property
    def visiting(self) -> bool:
        """True where the node lives only for this command."""
        return self._visiting

    async def ask(self, request: Message, *, timeout_s: float | None = None) -> Document:
        """One answer."""
        async with asyncio.timeout(timeout_s):
            return await self._answers[type(request)](request)

    def stream(self, request: Message) -> AsyncGenerator[Document, None]:
        """Answers until the end."""
        if isinstance(request, pb.SubmitRequest):
            return self._submit(request)
        assert isinstance(request, pb.WatchRequest)
        return self._watch(request)

    # ---- looking

    async def _status(self, _request: pb.StatusRequest) -> Document:
        return self.node.look.status()

    async def _peers(self, _request: pb.PeersRequest) -> Document:
        return self.node.look.peers()

    async def _tasks(self, request: pb.TasksRequest) -> Document:
        return self.node.look.tasks(everything=request.all)

    async def _why(self, request: pb.WhyRequest) -> Document:
        many = self.node.look.labels(request.task)
        if len(many) > 1 and request.task not in [label for label, _ in many]:
            raise _ambiguous(request.task, many)
        wait_s = min(request.within_s, MAX_WHY_S) if request.within_s > 0 else DEFAULT_WAIT_S
        try:
            return await self.node.why(request.task, wait_s=wait_s)
        except LocalProtocolError as error:
            raise _not_found(error) from error

    async def _watch(self, request: pb.WatchRequest) -> AsyncGenerator[Document, None]:
        label = self._label(self._task(request.task)) if request.task else None
        async with contextlib.aclosing(self._watching()) as events:
            async for document in events:
                if label is None or document.get("task") == label:
                    yield document

    async def _watching(self) -> AsyncGenerator[Document, None]:
        watcher: Any = self.node.watching()
        try:
            async for document in watcher:
                yield document
        finally:
            watcher.close()

    def _task(self, asked: str) -> TaskId:
        task = self.node.look.find_task(asked)
        if task is None:
            many = self.node.look.labels(asked)
            if len(many) > 1:
                raise _ambiguous(asked, many)
            raise CommandError(
                f"No task {asked} is known here.", exit_code=Exit.UNREACHED, next_step="meshagent tasks --all"
            )
        return task

    def _label(self, task: TaskId) -> str:
        kind = self.node.look.about(task).get("kind")
        return task_label(str(kind), task) if kind else str(task)

    # ---- changing

    async def _cancel(self, request: pb.CancelRequest) -> Document:
        task = self._task(request.task)
        try:
            events: Any = self.node.watching()  # from before it is asked for: nothing is missed
            doubted = self.node.look.about(task).get("state") == TaskState.IN_DOUBT
            async with contextlib.aclosing(events):
                asked = self.node.cancel(task, request.detail)
                if asked and request.wait and not doubted:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(CANCEL_WAIT_S):
                            await self._settled(self._label(task), events)
        except LocalProtocolError as error:
            raise _not_found(error) from error
        state = self.node.look.about(task).get("state")
        return {"schema": "meshagent.cancel/1", "task": self._label(task), "withdrawn": asked, "state": state}

    async def _settled(self, label: str, events: AsyncIterable[Document]) -> None:
        """Until a task has ended, or is in doubt: then it ends when a person says so, which nobody waits for."""
        async for event in events:
            if event["event"] == "state" and event.get("task") == label:
                state = TaskState(event["state"])
                if state.terminal or state is TaskState.IN_DOUBT:
                    return

    async def _resolve(self, request: pb.ResolveRequest) -> Document:
        task = self._task(request.task)
        try:
            self.node.resolve(task, done=request.done)
        except LocalProtocolError as error:
            raise _not_found(error) from error
        return {"schema": "meshagent.resolve/1", "task": self._label(task), "done": request.done}

    async def _spread(self, request: pb.SpreadRequest) -> Document:
        try:
            news = self.node.driver.links.merge_revocations(request.revocations)
        except MeshAgentError as error:
            raise CommandError(
                f"the list was refused: {error}", exit_code=Exit.CONFIGURATION, next_step="meshagent fleet revoke NAME"
            ) from error
        alive = [peer for peer in self.node.look.peers()["peers"] if peer["state"] == "alive"]
        return {"schema": "meshagent.spread/1", "news": news, "peers": len(alive)}

    async def _renew(self, request: pb.RenewRequest) -> Document:
        if self._state is None:
            raise CommandError("A visitor leaves by itself.", exit_code=Exit.USAGE, next_step="ask again in a moment")
        node = self.node
        # On disk first: after a crash in between, the next start reads what peers may have seen.
        identity = install_credential(
            self._state, node.identity.key, request.credential_file, now_s=node.clock.wall_s()
        )
        news = node.renew_credential(request.credential_file)
        return {**joined(identity), "news": news, "peers": len(node.peers())}

    async def _shutdown(self, request: pb.ShutdownRequest) -> Document:
        if self._shut_down is None:
            raise CommandError("A visitor leaves by itself.", exit_code=Exit.USAGE)
        self._shut_down(request.now)
        return {"schema": "meshagent.shutdown/1", "name": self.node.name, "drain_s": self.node.settings.drain_s}

    async def _facts_of(self, _request: pb.FactsRequest) -> Document:
        if self._facts is None:
            raise CommandError("This node gathers no facts.", exit_code=Exit.FAILED)
        return await self._facts.gather()

    # ---- submitting

    async def _submit(self, request: pb.SubmitRequest) -> AsyncGenerator[Document, None]:
        wanted = _wanted(request)
        watcher: Any = self.node.watching()
        began_s = self.node.now_s()
        try:
            pending = self._accepted(wanted)
            label = task_label(wanted.kind, pending.task)
            outcome = asyncio.ensure_future(pending.outcome())
            # its last news lie in the watcher by then: what was put is still read
            outcome.add_done_callback(lambda _: watcher.close())
            yield {"schema": "meshagent.submit/1", "event": "submitted", "task": label, "t_s": 0.0}
            async for document in watcher:
                if document.get("task") == label:
                    at_s = document["t_s"] + self.node.started_s - began_s
                    yield {**document, "schema": "meshagent.submit/1", "t_s": round(at_s, 4)}
            ended = await outcome
        finally:
            watcher.close()
        yield {
            "schema": "meshagent.submit/1",
            "event": "outcome",
            "task": label,
            "t_s": round(self.node.now_s() - began_s, 4),
            "state": str(ended.state),
            "result": opened(ended.result) if ended.result is not None else None,
            "reason": str(ended.reason) if ended.reason is not None else None,
            "detail": ended.detail,
            "holder": ended.holder,
            "holder_name": self.node.look.name_of(ended.holder) if ended.holder else None,
            "after_s": round(self.node.now_s() - began_s, 4),
        }

    def _accepted(self, wanted: SubmitRequest) -> Pending:
        try:
            return self.node.submit(wanted)
        except NotPermittedError as error:
            raise CommandError(str(error), exit_code=Exit.PERMISSION, next_step=error.next_step) from error

    # ---- completing

    async def _complete(self, request: pb.CompleteRequest) -> Document:
        what = request.what
        if what == "kind":
            candidates = [
                {"value": kind, "descriptions": descriptions}
                for kind, descriptions in sorted(self._kinds().items())
                if kind.startswith(request.prefix)
            ]
        elif what == "task":
            candidates = [{"value": label, "help": state} for label, state in self.node.look.labels(request.prefix)]
        elif what == "peer":
            names = {str(peer["name"]): peer["state"] for peer in self.node.look.peers()["peers"]}
            candidates = [{"value": n, "help": s} for n, s in sorted(names.items()) if n.startswith(request.prefix)]
        else:
            raise CommandError(f"nothing is known of {what}", exit_code=Exit.USAGE)
        return {"schema": "meshagent.complete/1", "what": what, "candidates": candidates[:MAX_CANDIDATES]}

    def _kinds(self) -> dict[str, dict[str, list[str]]]:
        """Kind -> description -> names of who performs it so."""
        found: dict[str, dict[str, list[str]]] = {}
        offers = [(p["name"], p["kinds"]) for p in self.node.look.peers()["peers"] if p["state"] == "alive"]
        if not (self.node.settings.visitor or self.node.leaving):
            offers.append((self.node.name, self.node.agents.kinds()))
        for name, kinds in offers:
            for kind, text in kinds.items():
                found.setdefault(kind, {}).setdefault(text, []).append(name)
        return found


def _wanted(request: pb.SubmitRequest) -> SubmitRequest:
    try:
        return SubmitRequest(
            kind=request.kind,
            spec=request.spec,
            delivery=Delivery(request.delivery or Delivery.AT_MOST_ONCE),
            in_doubt=InDoubt(request.in_doubt or InDoubt.MAJORITY),
            durability=Durability(request.durability or Durability.REPLICATED),
            approval=request.approval,
            key=request.key,
            within_s=request.within_s or None,
            priority=request.priority,
        )
    except ValueError as error:
        raise CommandError(str(error), exit_code=Exit.USAGE) from error


def _ambiguous(asked: str, many: Sequence[tuple[str, str]]) -> CommandError:
    shown = ", ".join(f"{short(label)} {state}" for label, state in many[-MAX_SHOWN:])
    more = f" and {len(many) - MAX_SHOWN} more" if len(many) > MAX_SHOWN else ""
    return CommandError(f"{len(many)} tasks begin with {asked}: {shown}{more}. Type more of it.", exit_code=Exit.USAGE)


def _not_found(error: LocalProtocolError) -> CommandError:
    return CommandError(str(error), exit_code=Exit.UNREACHED, next_step=error.next_step)
