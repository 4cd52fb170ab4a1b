"""What people may see of a node: the documents behind `status`, `peers`, `tasks` and `watch`.

Each is a plain value with `schema` first; times are seconds, ids are whole, names stand beside them. They are made on
demand from the machines' own state; nothing is kept here but names.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from meshagent.core.acts import TaskRecord
from meshagent.core.contract_net.interface import TaskChanged
from meshagent.core.contract_net.records import Phase, Stage
from meshagent.core.contract_net.undertaking import Undertaking
from meshagent.runtime.membership_look import member_document, members_by_id, membership_document, unlinked_row
from meshagent.runtime.ports import Peer
from meshagent.runtime.story import about_record, opened
from meshagent.types import TASK_ID_CHARS, NodeId, TaskId, TaskState, task_label

if TYPE_CHECKING:
    from meshagent.runtime.node import Node

MAX_LOST_PEERS: Final = 256
"""Lost peers that `peers` still shows, the latest first."""
MAX_REJECTIONS: Final = 32

_STAGE_STATE: Final = {
    Stage.RESERVED: TaskState.HELD,
    Stage.EXECUTING: TaskState.EXECUTING,
    Stage.STOPPING: TaskState.EXECUTING,
    Stage.REPORTING: TaskState.HELD,
    Stage.IN_DOUBT: TaskState.IN_DOUBT,
}


@dataclass(slots=True)
class PeerView:
    """A peer as it was last seen."""

    peer: Peer
    lost_s: float | None
    why: str = ""


class Look:
    """Reads a node; changes nothing."""

    def __init__(self, node: Node) -> None:
        self._node = node

    # ---- names

    def name_of(self, node_id: NodeId) -> str:
        """For people: what it calls itself, else what its credential says, else the start of its id."""
        node = self._node
        if node_id == node.id:
            return node.name
        view = node.views.get(node_id)
        if view is not None and view.peer.profile is not None:
            return view.peer.profile.name
        try:
            credential = node.book.find(node_id)
        except ValueError:
            return str(node_id)[:8]  # a story may name whom it likes
        if credential is not None:
            return credential.name
        return node.driver.links.remembered_name(node_id) or str(node_id)[:8]

    def find_task(self, asked: str) -> TaskId | None:
        """The one task that `asked` means: whole id, or a unique prefix, with or without the word in front."""
        word, dash, rest = asked.strip().lower().rpartition("-")
        prefix = rest if dash else asked.strip().lower()
        if not prefix:
            return None
        if len(prefix) == TASK_ID_CHARS and self._record_of(TaskId(prefix)) is not None:
            return TaskId(prefix)
        found = {
            record.task
            for record in self._records()
            if (record.task.startswith(prefix) and (not word or task_label(record.kind, record.task).startswith(word)))
            or task_label(record.kind, record.task).startswith(asked.strip().lower())
        }
        if len(found) == 1:
            return found.pop()
        if not found and len(prefix) == TASK_ID_CHARS and self._node.journal.log(prefix):
            return TaskId(prefix)  # long ended, still told by the journal
        return None

    def labels(self, prefix: str = "") -> list[tuple[str, str]]:
        """Whole labels of known tasks that begin so, with their state: what completion shows."""
        return [
            (document["id"], document["state"])
            for document in self.tasks(everything=True)["tasks"]
            if document["id"].startswith(prefix) or document["id"].rpartition("-")[2].startswith(prefix)
        ]

    # ---- documents

    def status(self) -> dict[str, Any]:
        """`meshagent.status/1`."""
        node = self._node
        now_s = node.clock.boot_s()
        alive = [view for view in node.views.values() if view.lost_s is None]
        linked = node.driver.peers()
        offsets = sorted(peer.clock_offset_s for peer in linked.values() if peer.clock_offset_s is not None)
        soc = node.battery.soc()
        capacity = node.ledger.capacity
        credential = node.identity.credential
        made, checked = node.driver.links.signatures
        return {
            "schema": "meshagent.status/1",
            "id": node.id,
            "name": node.name,
            "fleet": node.settings.fleet,
            "credential": {"not_after": credential.not_after_s, "may": list(credential.may)},
            "up_s": round(now_s - node.started_s, 3),
            "visitor": node.settings.visitor,
            "leaving": node.leaving,
            "failed": str(node.failed) if node.failed is not None else None,
            "listen_port": getattr(node.transport, "listen_port", None),
            "peers": {"alive": len(alive), "lost": len(node.views) - len(alive)},
            "membership": membership_document(node.driver.keeper, self.name_of),
            "links": {"signatures_made": made, "signatures_checked": checked},
            "clock_offset_s": round(offsets[len(offsets) // 2], 4) if offsets else None,
            "agents": [self._agent(agent) for agent in node.hosted],
            "contracts": [task for task in self.tasks()["tasks"] if task["holder"] == node.id],
            "plan": [
                {
                    "task": self._label_of(stop.task),
                    "place": stop.label if stop.place is not None else None,
                    "position_m": list(stop.place) if stop.place is not None else None,
                    "duration_s": stop.duration_s,
                }
                for stop in node.bidder.plan.stops
            ],
            "plan_version": node.bidder.plan.version,
            "load_s": _finite(node.bidder.load_s()),
            "position_m": list(node.body.position_m()),
            "battery": None if soc is None else {"soc": soc, "plan_end_soc": node.bidder.soc_at_end()},
            "resources": {
                "memory_mib": {"promised": capacity.memory_mib, "reserved": node.ledger.memory_mib},
                "cores": {"promised": capacity.cores, "reserved": node.ledger.cores},
                "disk_free_mib": capacity.disk_free_mib,
            },
            "custody": self._custody(),
            "queue": {"held": len(node.bidder.plan.stops), "most": node.settings.queue},
            "journal": {
                "sync": node.settings.journal_sync,
                "commits": node.driver.commits,
                "bytes": _size_of(node.journal),
            },
            "process": _process(),
            "blocked": [
                {"where": report.where, "in": report.within, "held_s": round(report.held_s, 3)}
                for report in (node.watch.reports if node.watch is not None else [])[-10:]
            ],
            "rejections": self._rejections(),
        }

    def peers(self) -> dict[str, Any]:
        """`meshagent.peers/1`."""
        node = self._node
        now_s = node.clock.boot_s()
        rows = []
        views = sorted(node.views.values(), key=lambda v: (v.lost_s is not None, self.name_of(v.peer.id), v.peer.id))
        linked = node.driver.peers()
        members = members_by_id(node.driver.keeper)
        for view in views:
            peer = linked.get(view.peer.id, view.peer)  # round trip and clock change without an event
            profile = peer.profile
            rows.append(
                {
                    "id": peer.id,
                    "name": self.name_of(peer.id),
                    "state": "alive" if view.lost_s is None else "lost",
                    "roles": list(profile.roles) if profile else [],
                    "kinds": dict(profile.kinds) if profile else {},
                    "capabilities": list(profile.capabilities) if profile else [],
                    "battery_soc": profile.battery_soc if profile else None,
                    "position_m": list(profile.position_m) if profile and profile.position_m else None,
                    "queue": profile.queue if profile else None,
                    "visitor": bool(profile and profile.visitor),
                    "software": profile.software if profile else "",
                    "address": peer.address,
                    "linked_s": round(now_s - peer.since_s, 3) if view.lost_s is None else None,
                    "lost_s": round(now_s - view.lost_s, 3) if view.lost_s is not None else None,
                    "why": view.why or None,
                    "rtt_s": peer.rtt_s,
                    "clock_offset_s": peer.clock_offset_s,
                    "member": member_document(members.get(peer.id), self.name_of, now_s),
                }
            )
        rows += [unlinked_row(m, self.name_of, now_s) for peer_id, m in members.items() if peer_id not in node.views]
        return {"schema": "meshagent.peers/1", "up_s": round(now_s - node.started_s, 3), "peers": rows}

    def tasks(self, *, everything: bool = False) -> dict[str, Any]:
        """`meshagent.tasks/1`: what this node asked for and what it holds; `everything`: ended tasks too."""
        node = self._node
        rows: dict[TaskId, dict[str, Any]] = {}
        for undertaking in node.driver.initiator.undertakings():
            if everything or not undertaking.terminal:
                rows[undertaking.task] = self._asked(undertaking)
        for contract in node.driver.participant.contracts():
            record = contract.record
            if record is None or contract.task in rows or (not everything and contract.stage not in _STAGE_STATE):
                continue
            work = node.executor.works.get(contract.task)
            state = _STAGE_STATE.get(contract.stage)
            if state is TaskState.EXECUTING and (work is None or work.started_s is None):
                state = TaskState.HELD
            report = contract.report
            rows[contract.task] = {
                **self._terms(record),
                "state": (state or (TaskState.DONE if report and report.result is not None else TaskState.HELD)).value,
                "holder": node.id,
                "holder_name": node.name,
                "epoch": contract.epoch.counter,
                "progress": work.permille / 1000 if work is not None else None,
                "note": work.note if work is not None else "",
                "waiting_for": "its turn" if work is not None and work.started_s is None else None,
                "lease_left_s": _finite(max(0.0, contract.lease_until_s - node.clock.boot_s())) if work else None,
                "reason": report.reason.value if report and report.reason else None,
                "detail": report.detail if report else "",
                "asked_here": False,
            }
        return {"schema": "meshagent.tasks/1", "tasks": list(rows.values())}

    def event(self, event: str, facts: Mapping[str, Any]) -> dict[str, Any]:
        """`meshagent.event/1`."""
        node = self._node
        document: dict[str, Any] = {
            "schema": "meshagent.event/1",
            "at": node.clock.wall_s(),
            "t_s": round(node.clock.boot_s() - node.started_s, 4),
            "event": event,
        }
        for name, value in facts.items():
            if name == "task":
                record = self._record_of(value)
                document["task"] = task_label(record.kind, value) if record is not None else value
                document["kind"] = record.kind if record is not None else facts.get("kind")
            elif name in ("peer", "holder", "runner_up") and value is not None:
                document[name] = value
                document[f"{name}_name"] = self.name_of(value)
            elif name not in document:
                document[name] = value
        return document

    def change(self, change: TaskChanged) -> dict[str, Any]:
        """The facts of a state event."""
        facts: dict[str, Any] = {
            "task": change.task,
            "state": change.state.value,
            "epoch": change.epoch.counter if change.epoch is not None else None,
            "holder": change.holder,
            "reason": change.reason.value if change.reason is not None else None,
            "detail": change.detail,
        }
        if change.progress_permille is not None:
            facts |= {"progress": change.progress_permille / 1000, "note": change.note}
        if change.result is not None:
            facts["result"] = opened(change.result)
        return facts

    def about(self, task: TaskId) -> dict[str, Any]:
        """What this node knows of a task, as `story.py` sends it."""
        node = self._node
        undertaking = node.driver.initiator.find(task)
        if undertaking is not None:
            about = about_record(undertaking.record)
            about["state"] = undertaking.state.value
            about |= {
                name: value
                for name, value in (
                    ("holder", undertaking.holder),
                    ("result", undertaking.result),
                    ("reason", undertaking.reason.value if undertaking.reason is not None else None),
                    ("detail", undertaking.detail or None),
                )
                if value is not None
            }
            return about
        contract = node.driver.participant.find(task)
        if contract is not None and contract.record is not None:
            return about_record(contract.record)
        register = node.driver.initiator.kept(task)
        if register is None:
            return {}
        about = about_record(register.record)
        if register.ended is not None:
            about["state"] = register.ended.state.value
            about |= {
                name: value
                for name, value in (
                    ("holder", register.ended.holder),
                    ("result", register.ended.result),
                    ("reason", register.ended.reason.value if register.ended.reason is not None else None),
                    ("detail", register.ended.detail or None),
                )
                if value is not None
            }
        return about

    def forget_old_peers(self) -> None:
        """Keep the list of the lost short."""
        views = self._node.views
        lost = sorted((v.lost_s, peer) for peer, v in views.items() if v.lost_s is not None)
        for _, peer in lost[: max(0, len(lost) - MAX_LOST_PEERS)]:
            del views[peer]

    # ---- inside

    def _custody(self) -> dict[str, Any]:
        """What this node keeps for others, and whether it votes on it."""
        machine = self._node.driver.initiator
        registers = list(machine.registers())
        return {
            "keeps": sum(r.ended is None for r in registers),
            "outcomes": sum(r.ended is not None for r in registers),
            "taken_over": sum(u.record.initiator != self._node.id for u in machine.undertakings() if not u.terminal),
            "quarantined": machine.quarantined,
            "old_journal": machine.rolled_back,
        }

    def _waiting_for(self, undertaking: Undertaking) -> str | None:
        most = f"a majority of its custodians ({', '.join(map(self.name_of, undertaking.record.custodians))})"
        match undertaking.phase:
            case Phase.BACKOFF:
                return f"calls again in {max(0.0, undertaking.call_at_s - self._node.clock.boot_s()):.1f} s"
            case Phase.IN_DOUBT:
                return "a person: meshagent resolve"
            case Phase.SUBMITTING:
                return f"{most} to write it down"
            case Phase.PREPARING:
                return f"{most} to say who holds it"
            case Phase.WAITING:
                left_s = max(0.0, undertaking.lease_until_s - self._node.clock.boot_s())
                return f"the lease of an earlier holder, {left_s:.1f} s"
            case Phase.ENTRUSTED:
                return "a custodian, who goes on with it"
            case _:
                return None

    def _agent(self, agent: Any) -> dict[str, Any]:
        node = self._node
        kinds = sorted(agent.handlers)
        running = [
            {
                "task": task_label(work.record.kind, work.record.task),
                "kind": work.record.kind,
                "epoch": work.epoch.counter,
                "attempt": work.attempt,
                "progress": work.permille / 1000,
                "note": work.note,
                "started": work.started_s is not None,
                "for_s": round(node.clock.boot_s() - work.started_s, 3) if work.started_s is not None else None,
                "lease_left_s": _finite(work.lease_until_s() - node.clock.boot_s()),
            }
            for work in node.executor.works.values()
            if work.record.kind in agent.handlers
        ]
        return {
            "role": agent.name,
            "performs": {kind: agent.handlers[kind][0].kind.describe() for kind in kinds},
            "missing": list(agent.missing),
            "running": running,
        }

    def _asked(self, undertaking: Undertaking) -> dict[str, Any]:
        node = self._node
        permille, note = node.progress.get(undertaking.task, (0, ""))
        state = undertaking.state
        left_s = undertaking.within_left_s(node.clock.boot_s())
        return {
            **self._terms(undertaking.record),
            "state": state.value,
            "holder": undertaking.holder,
            "holder_name": self.name_of(undertaking.holder) if undertaking.holder is not None else None,
            "epoch": undertaking.epoch.counter,
            "progress": permille / 1000 if state is TaskState.EXECUTING else None,
            "note": note,
            "waiting_for": self._waiting_for(undertaking),
            "within_left_s": None if left_s is None else round(left_s, 3),
            "reason": undertaking.reason.value if undertaking.reason is not None else None,
            "detail": undertaking.detail,
            "result": opened(undertaking.result) if undertaking.result is not None else None,
            "asked_here": undertaking.record.initiator == node.id,
        }

    def _terms(self, record: TaskRecord) -> dict[str, Any]:
        return {
            "id": task_label(record.kind, record.task),
            "kind": record.kind,
            "spec": opened(record.spec),
            "initiator": record.initiator,
            "initiator_name": self.name_of(record.initiator),
            "delivery": record.delivery.value,
            "key": record.key,
            "priority": record.priority,
            "parent": record.parent,
            "durability": record.durability.value,
            "custodians": [self.name_of(one) for one in record.custodians],
        }

    def _records(self) -> Iterator[TaskRecord]:
        driver = self._node.driver
        for undertaking in driver.initiator.undertakings():
            yield undertaking.record
        for contract in driver.participant.contracts():
            if contract.record is not None:
                yield contract.record
        for register in driver.initiator.registers():
            yield register.record

    def _record_of(self, task: TaskId) -> TaskRecord | None:
        driver = self._node.driver
        undertaking = driver.initiator.find(task)
        if undertaking is not None:
            return undertaking.record
        contract = driver.participant.find(task)
        if contract is not None:
            return contract.record
        register = driver.initiator.kept(task)
        return register.record if register is not None else None

    def _label_of(self, task: TaskId) -> str:
        record = self._record_of(task)
        return task_label(record.kind, task) if record is not None else str(task)

    def _rejections(self) -> list[dict[str, Any]]:
        counted: Mapping[Any, int] = getattr(self._node.driver.links, "rejections", {})
        rows = []
        for (reason, peer), count in sorted(counted.items(), key=lambda item: -item[1])[:MAX_REJECTIONS]:
            rows.append({"reason": str(reason), "peer": peer, "count": count})
        return rows


def _size_of(journal: object) -> int | None:
    size = getattr(journal, "size_bytes", None)
    return int(size()) if callable(size) else None


def _process() -> dict[str, Any]:
    """Memory held and processor time used by this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
        rss_mib = round(pages * resource.getpagesize() / 2**20, 1)
    except (OSError, ValueError, IndexError):
        rss_mib = round(used.ru_maxrss / 1024, 1)
    return {"rss_mib": rss_mib, "cpu_s": round(used.ru_utime + used.ru_stime, 3)}


def _finite(value: float) -> float | None:
    return round(value, 3) if abs(value) < 1e12 else None
