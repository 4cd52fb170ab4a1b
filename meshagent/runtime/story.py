"""What happened to a task, put together from everybody who noted something: the answer to `why`.

Each node journals its own notes (driver.py) and answers a `StoryQuery` with them. `Storyteller.gather` merges its own
with those of initiator, holder and bidders and names whoever could not be asked. Where two tell of one fact the
initiator is believed first: it alone has seen all bids. Times are the tellers' wall clocks, corrected by the clock
offset that links measure, so that they order what happened on one device exactly and across devices nearly.

The document is `meshagent.why/1`; turning it into text is the command line's.
"""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgpack

from meshagent.core.acts import FROM_INITIATOR, Performative, TaskRecord
from meshagent.core.bodies import StoryQuery, StoryReply
from meshagent.core.contract_net.interface import Noted
from meshagent.runtime.notes import NoteDecodeError, decode_notes, encode_notes
from meshagent.strictpack import StrictDecodeError, unpackb
from meshagent.types import (
    NODE_ID_CHARS,
    TASK_ID_CHARS,
    Epoch,
    NodeId,
    TaskId,
    TaskState,
    task_label,
)

MAX_REPLY_BYTES: Final = 56 * 1024
"""A payload has 64 KiB at most; the lines of one task must leave room for the rest of the reply."""
MAX_BLOB_BYTES: Final = 40 * 1024
"""Specification and result together; the larger one is left out where there is more, so that the lines have room."""
MAX_LINES: Final = 2000
"""Lines of one teller that are read; longer stories are cut at the front, where calls repeat."""
LATEST_WALL_S: Final = 1e10
"""The year 2286: a peer's clock that says more is not a clock."""
MAX_ASKED: Final = 64
"""Peers that are asked for one story."""
MAX_ANSWERS_A_S: Final = 50
MAX_ANSWERS_A_PEER_S: Final = 10
"""Each reads the journal (0.2 ms): curiosity of peers must not hold up the work, nor one's that of another."""
MAX_STORIES: Final = 32
"""Stories gathered at once; more wait in line at the local API."""
DEFAULT_WAIT_S: Final = 1.0
"""A linked peer answers within milliseconds; one that is busy gets a second."""
_BY_THE_INITIATOR: Final = frozenset(
    {"called", "closed", "accept_proposal", "lost", "backoff", "fenced", "expired", "resolved", "late", "forged"}
)
"""Events that the initiator's machine notes; everything else may come from the participant too."""
_SAID_BY_PARTICIPANTS: Final = frozenset(word.value for word in Performative if word not in FROM_INITIATOR)
_OWN_KEYS: Final = frozenset({"t_s", "act", "from", "peer", "name", "verified", "told_by"})
"""Keys of a line that its facts may not take: a peer's facts are a stranger's words."""


@dataclass(frozen=True, slots=True)
class Teller:
    """What one node told."""

    node: NodeId
    lines: tuple[tuple[float, Noted], ...]
    about: Mapping[str, Any]
    """What it knows of the task itself: kind, spec, terms, how it ended. Empty: nothing."""
    truncated: bool = False


def plain(value: Any) -> Any:
    """A decoded msgpack value as JSON takes it: bytes become base64."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def opened(data: bytes, max_bytes: int = 64 * 1024) -> Any:
    """Specification or result bytes as JSON takes them; what cannot be read is told as its length."""
    try:
        return plain(unpackb(data, max_bytes=max_bytes))
    except StrictDecodeError:
        return {"bytes": len(data)}


def about_record(record: TaskRecord) -> dict[str, Any]:
    """The terms of a task, in plain values."""
    return {
        "kind": record.kind,
        "spec": record.spec,
        "initiator": str(record.initiator),
        "delivery": record.delivery.value,
        "in_doubt": record.in_doubt.value,
        "key": record.key,
        "priority": record.priority,
        "parent": record.parent,
    }


def encode_reply(teller: Teller) -> tuple[bytes, bool]:
    """The body of a `StoryReply`, and whether something had to be left out."""
    kept: list[list[Any]] = []
    about = dict(teller.about)
    truncated = teller.truncated
    blobs = [name for name in ("spec", "result") if about.get(name)]
    while blobs and sum(len(about[name]) for name in blobs) > MAX_BLOB_BYTES:
        largest = max(blobs, key=lambda name: len(about[name]))
        blobs.remove(largest)
        del about[largest]
        truncated = True
    size = len(msgpack.packb(about))
    for at_wall_s, note in reversed(teller.lines):  # how it ended matters most
        line = encode_notes([note])
        size += len(line) + 16
        if size > MAX_REPLY_BYTES:
            truncated = True
            break
        kept.append([at_wall_s, line])
    kept.reverse()
    raw: bytes = msgpack.packb({"about": about, "lines": kept}, use_bin_type=True)
    return raw, truncated


def decode_reply(node: NodeId, reply: StoryReply) -> Teller | None:
    """What a peer told; None: not a story. Every bound is checked, lines that cannot be read are left out."""
    try:
        whole = unpackb(reply.lines, max_bytes=64 * 1024)
    except StrictDecodeError:
        return None
    if not isinstance(whole, dict) or not isinstance(whole.get("lines"), list):
        return None
    about = whole.get("about")
    lines: list[tuple[float, Noted]] = []
    truncated = reply.truncated
    for entry in whole["lines"][:MAX_LINES]:
        if not (
            isinstance(entry, list)
            and len(entry) == 2
            and type(entry[0]) in (int, float)
            and 0 <= entry[0] <= LATEST_WALL_S
        ):
            truncated = True
            continue
        raw = entry[1]
        try:
            notes = decode_notes(TaskId(reply.task), raw) if isinstance(raw, bytes) else []
        except NoteDecodeError:
            truncated = True
            continue
        lines += [(float(entry[0]), note) for note in notes]
    return Teller(node, tuple(lines), _checked(about), truncated)


def _checked(about: object) -> dict[str, Any]:
    """Only the fields that `about_record` and `ending` write, of their types; a peer may send anything."""
    if not isinstance(about, dict):
        return {}
    texts = ("kind", "initiator", "delivery", "in_doubt", "key", "state", "reason", "detail", "holder", "parent")
    kept: dict[str, Any] = {
        name: about[name] for name in texts if isinstance(about.get(name), str) and len(about[name]) <= 1000
    }
    kept |= {name: about[name] for name in ("spec", "result") if isinstance(about.get(name), bytes)}
    if type(about.get("priority")) is int:
        kept["priority"] = about["priority"]
    return kept


@dataclass(slots=True)
class _Gathering:
    query: int
    task: TaskId
    waiting: set[NodeId]
    asked: set[NodeId] = field(default_factory=set)
    """Who has answered, also with nothing: a bidder that lost has noted nothing."""
    answers: dict[NodeId, Teller] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Storyteller:
    """Answers peers, and gathers what they know."""

    def __init__(
        self,
        *,
        me: NodeId,
        read_log: Callable[[str], Sequence[tuple[float, bytes]]],
        recent: Callable[[TaskId], Sequence[tuple[float, Noted]]],
        about: Callable[[TaskId], Mapping[str, Any]],
        resolve: Callable[[str], TaskId | None],
        say: Callable[[NodeId, StoryQuery | StoryReply], None],
        linked: Callable[[], Mapping[NodeId, float]],
        name_of: Callable[[NodeId], str],
        now_s: Callable[[], float],
        may_hear: Callable[[NodeId, str], bool],
        fresh_until_s: Callable[[], float] = lambda: float("-inf"),
    ) -> None:
        """Nothing is read or sent yet.

        Args:
            me: this node.
            read_log: the journal's lines of a task.
            recent: notes that are not journaled yet.
            about: what is known here of a task (`about_record`, how it ended).
            resolve: a prefix to the one task known here that it means.
            say: sends to one peer.
            linked: linked peers and how far their clock is ahead of ours, seconds.
            name_of: for people.
            now_s: the node's clock.
            may_hear: may this peer hear about tasks of this kind (`*`: of kinds that nobody remembers)?
            fresh_until_s: until then links are still being made, and who is not linked may be in a moment.
        """
        self._me = me
        self._read_log = read_log
        self._recent = recent
        self._about = about
        self._resolve = resolve
        self._say = say
        self._linked = linked
        self._name_of = name_of
        self._now_s = now_s
        self._may_hear = may_hear
        self._fresh_until_s = fresh_until_s
        self._answers: Counter[NodeId] = Counter()
        self._second_s = 0.0
        self._query = 0
        self._gatherings: dict[int, _Gathering] = {}

    def own(self, task: TaskId) -> Teller:
        """What this node has noted."""
        lines: list[tuple[float, Noted]] = []
        stored = self._read_log(task)
        for at_wall_s, raw in stored[-MAX_LINES:]:
            try:
                lines += [(at_wall_s, note) for note in decode_notes(task, raw)]
            except NoteDecodeError:
                continue  # a line of a version that we do not know
        lines += self._recent(task)
        return Teller(self._me, tuple(lines), self._about(task), len(stored) > MAX_LINES)

    def heard(self, peer: NodeId, body: StoryQuery | StoryReply) -> None:
        """A peer asks, or answers."""
        if isinstance(body, StoryQuery):
            if not self._has_time_for(peer):
                return  # whoever asks hears nothing, and names us as not asked
            task = self._resolve(body.task)
            teller = self.own(task) if task is not None else Teller(self._me, (), {})
            if task is not None and not self._is_for(peer, teller):
                task, teller = None, Teller(self._me, (), {})  # as if it did not exist
            lines, truncated = encode_reply(teller)
            meant = str(task) if task is not None else ""
            self._say(peer, StoryReply(query=body.query, task=meant, lines=lines, truncated=truncated))
            return
        gathering = self._gatherings.get(body.query)
        if gathering is None or peer not in gathering.waiting:
            return  # late, or nobody asked
        gathering.waiting.discard(peer)
        gathering.asked.add(peer)
        if body.task:
            if not gathering.task and len(body.task) == TASK_ID_CHARS:
                gathering.task = TaskId(body.task)
            told = decode_reply(peer, body)
            if told is not None and body.task == gathering.task:
                gathering.answers[peer] = told
        gathering.changed.set()

    def _is_for(self, peer: NodeId, teller: Teller) -> bool:
        """A story holds the specification and the result: it is for whoever may ask for such work, do it or approve
        it, and for those who had a part in this one."""
        return self._may_hear(peer, str(teller.about.get("kind") or "*")) or peer in _named([teller])

    def _has_time_for(self, peer: NodeId) -> bool:
        now_s = self._now_s()
        if now_s - self._second_s >= 1.0:
            self._second_s = now_s
            self._answers.clear()
        if self._answers[peer] >= MAX_ANSWERS_A_PEER_S or self._answers.total() >= MAX_ANSWERS_A_S:
            return False
        self._answers[peer] += 1
        return True

    async def gather(self, asked: str, *, wait_s: float = DEFAULT_WAIT_S) -> dict[str, Any] | None:
        """The story of a task as a `meshagent.why/1` document; None: nobody asked knows it.

        Args:
            asked: a task's id or any unique prefix, with or without its word in front.
            wait_s: how long peers may take, all together.
        """
        if len(self._gatherings) >= MAX_STORIES:
            raise RuntimeError("too many stories are gathered at once")
        task = self._resolve(asked)
        tellers: dict[NodeId, Teller] = {}
        if task is not None:
            tellers[self._me] = self.own(task)
        self._query += 1
        gathering = _Gathering(self._query, task or TaskId(""), set())
        self._gatherings[self._query] = gathering
        missing: dict[NodeId, str] = {}
        try:
            async with asyncio.timeout(wait_s) as limit:
                while self._ask_on(gathering, tellers, asked):
                    await self._news(gathering)
        except TimeoutError:
            assert limit.expired()
        finally:
            del self._gatherings[gathering.query]
        tellers |= gathering.answers
        if not any(teller.lines or teller.about for teller in tellers.values()):
            return None
        linked = self._linked()
        for peer in sorted(_named(tellers.values()) - tellers.keys() - gathering.asked - {self._me})[:MAX_ASKED]:
            missing[peer] = "did not answer" if peer in linked else "not linked"
        return self._document(gathering.task, list(tellers.values()), missing, linked)

    def _ask_on(self, gathering: _Gathering, own: Mapping[NodeId, Teller], asked: str) -> bool:
        """Ask whom we know and whom they name; False: there is nobody left to wait for."""
        known = {**own, **gathering.answers}
        named = _named(known.values()) - {self._me} - known.keys() - gathering.asked
        linked = self._linked()
        # while nobody knows the task everybody is asked
        to_ask = sorted(named & linked.keys()) if known else sorted(linked.keys() - gathering.asked)
        for peer in [peer for peer in to_ask if peer not in gathering.waiting][:MAX_ASKED]:
            gathering.waiting.add(peer)
            self._say(peer, StoryQuery(query=gathering.query, task=gathering.task or asked))
        links_come = self._now_s() < self._fresh_until_s() and (bool(named - linked.keys()) or not known)
        return bool(gathering.waiting) or links_come

    async def _news(self, gathering: _Gathering) -> None:
        """Until somebody answers or a link comes; while this node is fresh at most until it is not."""
        gathering.changed.clear()
        fresh_s = self._fresh_until_s() - self._now_s()
        try:
            async with asyncio.timeout(fresh_s if fresh_s > 0 else None):
                await gathering.changed.wait()
        except TimeoutError:
            return

    def links_changed(self) -> None:
        """A peer came or went: a story that waits for it goes on."""
        for gathering in self._gatherings.values():
            gathering.changed.set()

    def _document(
        self, task: TaskId, tellers: list[Teller], missing: Mapping[NodeId, str], linked: Mapping[NodeId, float]
    ) -> dict[str, Any]:
        about: dict[str, Any] = {}
        initiator = next((t.about["initiator"] for t in tellers if "initiator" in t.about), "")
        # how it ended is believed from its initiator, what it is from anybody
        for teller in sorted(tellers, key=lambda t: t.node == initiator):
            about |= {name: value for name, value in teller.about.items() if value not in (None, "")}
        lines = merged(tellers, initiator, linked)
        # the asker's first line is the beginning: a liar's clock must not shift everybody else's
        start_s = next((at_s for at_s, node, _ in lines if node == initiator), lines[0][0] if lines else 0.0)
        kind = str(about.get("kind", ""))
        epochs: dict[Epoch, list[dict[str, Any]]] = {}
        for at_wall_s, teller_id, note in lines:
            epochs.setdefault(note.epoch, []).append(self._act(note, teller_id, round(at_wall_s - start_s, 3)))
        state = about.get("state")
        return {
            "schema": "meshagent.why/1",
            "task": task_label(kind, task) if kind else str(task),
            "kind": kind or None,
            "spec": opened(about["spec"]) if "spec" in about else None,
            "asked_by": initiator or None,
            "asked_by_name": self._name_of(NodeId(initiator)) if initiator else None,
            "delivery": about.get("delivery"),
            "in_doubt": about.get("in_doubt"),
            "key": about.get("key"),
            "priority": about.get("priority"),
            "parent": about.get("parent"),
            "started_at": start_s,
            "outcome": state,
            "ended": state in {TaskState.DONE.value, TaskState.FAILED.value, TaskState.CANCELLED.value},
            "after_s": round(lines[-1][0] - start_s, 3) if lines else None,
            "holder": about.get("holder"),
            "holder_name": self._name_of(NodeId(about["holder"])) if about.get("holder") else None,
            "reason": about.get("reason"),
            "detail": about.get("detail"),
            "result": opened(about["result"]) if "result" in about else None,
            "epochs": [
                {
                    "epoch": epoch.counter,
                    "initiator": epoch.owner,
                    "initiator_name": self._name_of(epoch.owner),
                    "boot": epoch.boot.hex(),
                    "acts": acts,
                }
                for epoch, acts in sorted(epochs.items(), key=lambda item: item[0])
            ],
            "told_by": [{"id": t.node, "name": self._name_of(t.node), "truncated": t.truncated} for t in tellers],
            "not_asked": [
                {"id": peer, "name": self._name_of(peer), "why": why} for peer, why in sorted(missing.items())
            ],
        }

    def _act(self, note: Noted, teller: NodeId, t_s: float) -> dict[str, Any]:
        """One line. `from`: who said this act; `peer`: whom an act of the initiator, or an event, is about."""
        act: dict[str, Any] = {"t_s": t_s, "act": note.event}
        if note.peer is not None:
            act["from" if note.event in _SAID_BY_PARTICIPANTS else "peer"] = note.peer
            act["name"] = self._name_of(note.peer)
        for name, value in note.facts:
            if name not in _OWN_KEYS:
                act[name] = value
        act["verified"] = note.verified
        act["told_by"] = teller
        return act


def _named(tellers: Iterable[Teller]) -> set[NodeId]:
    """Everybody that a story speaks of: initiator, holder, bidders."""
    names: set[NodeId] = set()
    for teller in tellers:
        for who in (teller.about.get("initiator"), teller.about.get("holder")):
            if isinstance(who, str) and len(who) == NODE_ID_CHARS:
                names.add(NodeId(who))
        for _, note in teller.lines:
            names.add(note.epoch.owner)
            if note.peer is not None:
                names.add(note.peer)
    return names


def merged(
    tellers: Iterable[Teller], initiator: str, ahead_s: Mapping[NodeId, float]
) -> list[tuple[float, NodeId, Noted]]:
    """All lines in one order, each fact once.

    A participant's own note of an act that the initiator has noted too (same epoch, event and peer) is left out; where
    the initiator could not be asked the participants' notes are all there is. A bidder may tell of itself alone.
    """
    out: list[tuple[float, int, NodeId, Noted]] = []
    told: set[tuple[Epoch, str, NodeId | None]] = set()
    for teller in sorted(tellers, key=lambda t: (t.node != initiator, t.node)):
        mine: set[tuple[Epoch, str, NodeId | None]] = set()
        for number, (at_wall_s, note) in enumerate(teller.lines):
            key = (note.epoch, note.event, note.peer)
            if teller.node != initiator:
                if key in told:
                    continue
                if note.event in _BY_THE_INITIATOR or note.peer not in (None, teller.node):
                    continue  # nobody speaks for somebody else
            mine.add(key)
            out.append((at_wall_s - ahead_s.get(teller.node, 0.0), number, teller.node, note))
        told |= mine
    out.sort(key=lambda line: (line[3].epoch, line[0], line[1]))
    return [(at_wall_s, node, note) for at_wall_s, _, node, note in out]
