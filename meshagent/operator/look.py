"""`status`, `peers`, `tasks`, `watch` and `why`: documents of a node, as text.

What came from other devices is cleaned before it is shown; `--json` prints the document as it came.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from meshagent.operator.exits import CommandError, Exit
from meshagent.operator.places import JOURNAL_FILE, DevPlaces, running_in, running_nodes, state_of
from meshagent.operator.render import clean, duration, table
from meshagent.operator.session import Document, open_session
from meshagent.operator.story import Timeline, tell
from meshagent.types import short
from meshagent.wire.v1 import operator_pb2 as pb

if TYPE_CHECKING:
    from meshagent.operator.grammar import Screen

SETTLE_S: Final = 1.5
"""How long a visitor listens before it says who is there: mDNS, one handshake, one profile take 0.3 s on a LAN."""
WHY_S: Final = 2.0
"""How long bidders and asker may take to tell, unless --timeout says otherwise."""
ANSWER_SLACK_S: Final = 5.0
SLOW_HEALTH: Final = 4
"""From here on a node doubts itself so much that an operator should look at its load."""
MAX_ACCUSERS_SHOWN: Final = 3


async def show_status(screen: Screen) -> None:
    """`meshagent status`."""
    async with open_session(screen, visit=False) as desk:
        document = await desk.ask(pb.StatusRequest())
    screen.answer(document, status_text(document, screen))


def status_text(document: Document, screen: Screen) -> str:
    """The lines of `status`."""
    paint = screen.paint
    head = [
        f"{paint(clean(document['name']), 'bold')} ({document['id'][:8]})",
        f"fleet {clean(document['fleet'] or '?')}",
        f"up {duration(document['up_s'])}",
        f"peers: {_peer_counts(document)}",
    ]
    if document.get("listen_port"):
        head.append(f"port {document['listen_port']}")
    if document.get("clock_offset_s") is not None:
        head.append(f"clock {round(document['clock_offset_s'], 2) + 0.0:+.2f} s")  # never -0.00
    lines = [" · ".join(head)]
    lines += [paint(f"  {line}", "warn") for line in _membership_lines(document.get("membership"))]
    for agent in document["agents"]:
        lines += _agent_lines(agent)
    if not document["agents"]:
        lines.append("  no role: keeps its own tasks")
    lines.append("  " + "   ".join(_body_parts(document)))
    for stop in document.get("plan", ()):
        at = f" at {clean(stop['place'])}" if stop.get("place") else ""
        lines.append(f"  next: {short(clean(stop['task']))}{at}")
    if document.get("failed"):
        lines.append(paint(f"  FAILED: {clean(document['failed'])}", "bad"))
    custody = document.get("custody", {})
    if custody.get("old_journal"):
        lines.append(paint("  its journal is older than what others remember of it: it votes on nothing old", "bad"))
        lines.append("  what it was doing may be done already: look, then meshagent resolve what is in doubt")
    elif custody.get("quarantined"):
        lines.append(paint("  asks the others what it has missed, and votes on nothing meanwhile", "warn"))
    if document.get("leaving"):
        lines.append(paint("  is leaving", "warn"))
    for blocked in document.get("blocked", ()):
        lines.append(paint(f"  {clean(blocked['where'])} held the loop for {duration(blocked['held_s'])}", "warn"))
    dropped = sum(row["count"] for row in document.get("rejections", ()))
    if dropped:
        reasons = ", ".join(f"{clean(row['reason'])} {row['count']}" for row in document["rejections"][:4])
        lines.append(paint(f"  {dropped} messages dropped: {reasons}", "warn"))
    return "\n".join(lines)


def _peer_counts(document: Document) -> str:
    peers, membership = document["peers"], document.get("membership")
    suspects = membership["members"]["suspect"] if membership else 0
    parts = [f"{peers['alive']} alive"]
    if suspects:
        parts.append(f"{suspects} suspect")
    if peers["lost"]:
        parts.append(f"{peers['lost']} lost")
    return ", ".join(parts)


def _membership_lines(membership: Mapping[str, Any] | None) -> list[str]:
    """What an operator should know of membership; empty where all is well."""
    if not membership:
        return []
    lines = [
        f"two devices use the identity of {clean(one['name'])} ({one['id'][:8]}), usually a copied disk: on the copy "
        "meshagent init --new-identity"
        for one in membership["duplicates"]
    ]
    if membership["datagrams"]["links_without"]:
        lines.append(
            f"{membership['datagrams']['links_without']} linked peers answer no datagram: UDP is filtered on the "
            "port of the links; membership goes over the links, and silence is told later"
        )
    if membership["local_health"] >= SLOW_HEALTH:
        lines.append(f"this node is slow to hear answers (local health {membership['local_health']} of 8)")
    return lines


def _agent_lines(agent: Mapping[str, Any]) -> list[str]:
    performs = ", ".join(clean(text) for text in agent["performs"].values()) or "no task"
    lines = [f"  {clean(agent['role']):<10} performs {performs}"]
    if agent["missing"]:
        lines.append(f"  {'':<10} without a driver: {', '.join(clean(name) for name in agent['missing'])}")
    for run in agent["running"]:
        note = f' "{clean(run["note"])}"' if run["note"] else ""
        lease = f", lease {run['lease_left_s']:.1f} s" if run.get("lease_left_s") is not None else ""
        share = f"{run['progress']:.0%}".replace("%", " %") if run["started"] else "waits for its turn"
        lines.append(f"  {'':<10} {short(clean(run['task']))} {share}{note}{lease}, epoch {run['epoch']}")
    return lines


def _body_parts(document: Mapping[str, Any]) -> list[str]:
    parts = []
    battery = document.get("battery")
    if battery:
        end = battery.get("plan_end_soc")
        plan = f" (plan ends at {end * 100:.0f} %)" if end is not None else ""
        parts.append(f"battery {battery['soc'] * 100:.0f} %{plan}")
    queue = document["queue"]
    parts.append(f"queue {queue['held']} of {queue['most']}")
    journal = document["journal"]
    parts.append(f"journal {journal['sync']}, {journal['commits']} commits")
    custody = document.get("custody")
    if custody and (custody["keeps"] or custody["taken_over"]):
        mine = f", goes on with {custody['taken_over']}" if custody["taken_over"] else ""
        parts.append(f"keeps {custody['keeps']} for others{mine}")
    return parts


async def show_peers(screen: Screen, flags: Mapping[str, tuple[str, object]]) -> None:
    """`meshagent peers`; where no node runs a visitor looks around for a moment."""
    async with open_session(screen, flags=flags) as desk:
        if desk.visiting:
            await asyncio.sleep(min(SETTLE_S, screen.timeout_s or SETTLE_S))
        document = await desk.ask(pb.PeersRequest())
        visiting = desk.visiting
    rows = [_peer_row(peer) for peer in document["peers"]]
    header = ("NAME", "ID", "STATE", "ROLES", "BATTERY", "QUEUE", "LINK", "SEEN", "")
    text = table(header, rows, right=[4, 5, 7]) if rows else "nobody is in reach"
    screen.answer(document, text)
    if not rows:
        dev = " --dev" if screen.dev else ""
        screen.say(f"  next: meshagent doctor{dev}")
        if visiting:
            raise CommandError("No peer was found.", exit_code=Exit.UNREACHED, next_step=f"meshagent doctor{dev}")


def _state_word(peer: Mapping[str, Any]) -> str:
    """The link's word, or membership's where that says more."""
    member = peer.get("member")
    told = member["state"] if member else ""
    return told if told in ("suspect", "faulty", "left") else str(peer["state"])


def _suspicion(member: Mapping[str, Any]) -> str:
    by = ", ".join(clean(one["name"]) for one in member["accused_by"][:MAX_ACCUSERS_SHOWN])
    left_s = member.get("faulty_in_s")
    until = f", faulty in {left_s:.1f} s unless it answers" if left_s is not None else ""
    return f"silent to {by or 'us'}{until}"


def _peer_row(peer: Mapping[str, Any]) -> tuple[str, ...]:
    alive = peer["state"] == "alive"
    soc = peer.get("battery_soc")
    rtt = peer.get("rtt_s")
    why, _, sentence = clean(peer.get("why") or "-").partition(": ")
    link = f"direct {rtt * 1000:.1f} ms" if alive and rtt is not None else "direct" if alive else why
    member = peer.get("member")
    if member and member["state"] == "suspect":
        link = _suspicion(member)
    since = peer.get("linked_s") if alive else peer.get("lost_s")
    roles = " ".join(clean(role) for role in peer["roles"]) or ("visitor" if peer.get("visitor") else "-")
    return (
        clean(peer["name"]),
        peer["id"][:8],
        _state_word(peer).upper(),
        roles,
        f"{soc * 100:.0f} %" if soc is not None else "-",
        str(peer["queue"]) if peer.get("queue") is not None else "-",
        link,
        duration(since) if since is not None else "-",
        "" if alive else sentence,
    )


async def show_tasks(screen: Screen, *, ended_too: bool) -> None:
    """`meshagent tasks`; on the throw-away fleet those of every node that runs."""
    document: Document = {"schema": "meshagent.tasks/1", "tasks": []}
    seen: dict[str, Any] = {}
    for one in _each(screen):
        async with open_session(one, visit=False) as desk:
            for task in (await desk.ask(pb.TasksRequest(all=ended_too)))["tasks"]:
                if task["id"] not in seen or task["asked_here"]:
                    seen[task["id"]] = task
    document["tasks"] = list(seen.values())
    rows = [_task_row(task) for task in document["tasks"]]
    text = (
        table(("TASK", "KIND", "STATE", "HOLDER", "NOTE"), rows)
        if rows
        else "no task" + ("" if ended_too else " is open")
    )
    screen.answer(document, text)


def _each(screen: Screen) -> list[Screen]:
    """One screen for each node to ask: the one named, else with --dev all that run."""
    if screen.node or not screen.dev:
        return [screen]
    names = [n.name for n in running_nodes(screen.load_config(), dev=True) if n.name]
    return [replace(screen, node=name) for name in names] or [screen]


def _task_row(task: Mapping[str, Any]) -> tuple[str, ...]:
    notes = []
    if task.get("progress"):
        notes.append(f"{task['progress']:.0%}".replace("%", " %"))
    notes += [clean(task[key]) for key in ("note", "reason", "detail", "waiting_for") if task.get(key)]
    holder = clean(task.get("holder_name") or "-")
    if task.get("holder") and task.get("epoch") is not None:
        holder += f" ep. {task['epoch']}"
    return short(clean(task["id"])), clean(task["kind"]), clean(task["state"]).upper(), holder, ", ".join(notes)


async def watch_events(screen: Screen, task: str) -> Exit:
    """`meshagent watch`: until the node leaves, Ctrl-C, or --timeout."""
    async with open_session(screen) as desk:
        timeline = Timeline()
        screen.say("watching, Ctrl-C ends it", level=1)
        with contextlib.suppress(TimeoutError):
            async with (
                asyncio.timeout(screen.timeout_s),
                contextlib.aclosing(desk.stream(pb.WatchRequest(task=task))) as s,
            ):
                async for document in s:
                    if screen.json:
                        print(json.dumps(document, ensure_ascii=False), flush=True)
                    elif line := timeline.line(document):
                        print(line, flush=True)
                screen.say("the node has left")
    return Exit.DONE


async def show_why(screen: Screen, task: str) -> None:
    """`meshagent why`: asks the node named, else each that runs here until one knows the task.

    A task that a visitor asked for is told best by that visitor: its journal has every bid. So where a visitor's
    state folder knows the task, `why` visits with it.
    """
    within_s = screen.timeout_s or WHY_S
    config = screen.load_config()
    missed: CommandError | None = None
    asker = None if screen.node else asker_of(screen, task)
    if asker is not None:
        from meshagent.operator.visitor import visiting_desk

        state, known = asker
        async with visiting_desk(screen, config, state=state) as desk:
            document = await desk.ask(pb.WhyRequest(task=known, within_s=within_s))
        screen.answer(document, tell(document, screen.paint))
        return
    for one in _each(screen):
        async with open_session(one) as desk:
            if desk.visiting:
                await asyncio.sleep(min(SETTLE_S, within_s))
            try:
                document = await desk.ask(
                    pb.WhyRequest(task=task, within_s=within_s), timeout_s=within_s + ANSWER_SLACK_S
                )
            except CommandError as error:
                if error.exit_code is Exit.USAGE:
                    raise  # it knows several that begin so
                missed = error
                continue
        screen.answer(document, tell(document, screen.paint))
        return
    assert missed is not None
    raise missed


def asker_of(screen: Screen, task: str) -> tuple[Path, str] | None:
    """The state folder of the visitor that asked for the one task meant, and the task's whole id."""
    config = screen.load_config()
    states = DevPlaces.of(config).visitor_states() if screen.dev else [state_of(config)]
    found = [(state, known) for state in states if running_in(state) is None for known in journaled(state, task)]
    return found[0] if len(found) == 1 else None


def journaled(state: Path, task: str) -> list[str]:
    """Whole ids of tasks that the journal in `state`, which no node has open, tells about."""
    prefix = task.strip().lower().rpartition("-")[2]
    path = state / JOURNAL_FILE
    if len(prefix) < 2 or not prefix.isalnum() or not path.exists():
        return []
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)) as journal:
        try:
            rows = journal.execute("SELECT DISTINCT task FROM log WHERE task GLOB ?", (f"{prefix}*",))
            return [str(row[0]) for row in rows.fetchmany(8)]
        except sqlite3.Error:
            return []  # damaged, or of another version: the node that opens it says so
