"""A node: one meshagent process on one device, put together from ports.

Everything that differs between a robot and the simulator is handed in: transport, journal, clock, randomness, workers,
devices. The node wires the driver (protocols) to the agents (roles) and keeps what people ask about; the documents
themselves are made in `look.py`, stories in `story.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from meshagent.core.acts import TaskRecord, WorkOutcome
from meshagent.core.bodies import EventMessage, Profile
from meshagent.core.contract_net.interface import (
    CancelRequested,
    DoubtResolved,
    LeaveRequested,
    Noted,
    TaskChanged,
    TaskSubmitted,
)
from meshagent.core.members import MemberChanged
from meshagent.core.plan import Planner
from meshagent.core.ports import Clock, Journal, Transport
from meshagent.core.travel import Travel
from meshagent.errors import LocalProtocolError
from meshagent.identity.device import CredentialFile
from meshagent.identity.revocation import RevocationError
from meshagent.runtime.agents import Agent, Agents
from meshagent.runtime.bay import BodyState, ConfiguredBay, DeviceBay
from meshagent.runtime.bidder import PlanBidder
from meshagent.runtime.blocked import Watch
from meshagent.runtime.driver import Driver, DriverConfig
from meshagent.runtime.executor import Executor, Report, Work
from meshagent.runtime.links import LinksConfig
from meshagent.runtime.look import Look, PeerView
from meshagent.runtime.pending import PendingTask, Watcher
from meshagent.runtime.resources import (
    Battery,
    Capacity,
    GivenBattery,
    Ledger,
    RememberedBattery,
    SystemBattery,
    detect,
)
from meshagent.runtime.settings import NodeSettings
from meshagent.runtime.story import DEFAULT_WAIT_S, Storyteller
from meshagent.runtime.supervise import supervise
from meshagent.runtime.workers import SystemWorkers, Workers
from meshagent.sdk.backend import PeerInfo, Pending, SubmitRequest
from meshagent.sdk.events import BatteryLow, PeerJoined, PeerLost
from meshagent.sdk.role import RoleSpec
from meshagent.types import NONCE_BYTES, NodeId, Reason, TaskId, TaskState, task_id_of

if TYPE_CHECKING:
    from meshagent.identity.book import CredentialBook
    from meshagent.identity.device import DeviceIdentity

PROFILE_PERIOD_S: Final = 5.0
"""Battery, queue and place are told again this often when they have changed."""
HAND_BACK_S: Final = 2.0
"""Leaving: how long forfeits and results may take to be acknowledged. What is not is journaled and said again at the
next start."""
BATTERY_SLACK_SOC: Final = 0.02
"""A plan is cut when it ends this far below the reserve: estimates waver, promises should not."""
FRESH_S: Final = 2.0
"""So long after its start a node, often a visitor that came to ask `why`, waits for links to those it must ask."""
MAX_ANCESTORS: Final = 32
"""Tasks of tasks that are followed upwards; nobody nests deeper on purpose."""
MAX_WATCHERS: Final = 64
MAY_HOLDS_S: Final = 1.0
MAX_MAY: Final = 4096
"""Remembered permissions; a fleet of 200 devices with ten kinds asks for that many."""
SOFTWARE: Final = "meshagent/0.1.0"

log = logging.getLogger(__name__)


class NotPermittedError(LocalProtocolError):
    """The device's credential or configuration does not allow it."""


class UnknownTaskError(LocalProtocolError):
    """No task here is meant by that, or several are."""


class Node:
    """One device's share of the mesh; an async context manager. `roles` are compiled (`sdk.loader`).

    Args:
        settings: everything but the ports.
        identity: key, credential and trust of this device.
        book: what is known of others' credentials.
        transport: finds and keeps links.
        journal: persistence; the caller closes it after the node.
        clock: the device's clocks.
        rng: the node's randomness; child streams are drawn from it once, in a fixed order.
        roles: what to host.
        workers: threads and processes; default: those of this machine.
        bay: devices; default: drivers by `settings`.
        battery: state of charge; default: `settings.battery_soc`, else the system's.
        capacity: what contracts may reserve; default: detected.
        watch_loop: look from a thread for handlers that hold the loop.
        links: timing of sessions.
        random_bytes: salts, nonces, ids.
        on_failure: told when the journal failed and the node must stop.
    """

    def __init__(
        self,
        settings: NodeSettings,
        *,
        identity: DeviceIdentity,
        book: CredentialBook,
        transport: Transport,
        journal: Journal,
        clock: Clock,
        rng: Random,
        roles: Sequence[RoleSpec] = (),
        workers: Workers | None = None,
        bay: DeviceBay | None = None,
        battery: Battery | None = None,
        capacity: Capacity | None = None,
        watch_loop: bool = True,
        links: LinksConfig | None = None,
        random_bytes: Callable[[int], bytes] = os.urandom,
        on_failure: Callable[[Exception], None] | None = None,
    ) -> None:
        self.settings = settings
        self.id: NodeId = identity.node_id
        self.identity = identity
        self.book = book
        self.transport = transport
        self.journal = journal
        self.clock = clock
        self._roles = tuple(roles)
        self._random_bytes = random_bytes
        self._on_failure = on_failure
        driver_rng, device_rng = Random(rng.getrandbits(64)), Random(rng.getrandbits(64))
        travel = Travel(settings.site_map, settings.capabilities)
        self.body = BodyState(travel, settings.position_m, clock.boot_s, device_rng)
        self.battery = battery or _battery_of(settings, clock)
        if capacity is None:
            found = detect(memory_mib=settings.memory_mib)
            capacity = found if not settings.cores else Capacity(cores=settings.cores, memory_mib=found.memory_mib)
        self.ledger = Ledger(capacity)
        self.planner = Planner(travel, settings.body, settings.parallel)
        self.bidder = PlanBidder(
            me=identity.node_id,
            settings=settings,
            planner=self.planner,
            ledger=self.ledger,
            battery=self.battery,
            whereabouts=self.body,
            authority=self.may,
            now_s=clock.boot_s,
        )
        self.watch = Watch(settings.blocked_loop_s, clock.boot_s, settings.contract.lease_s) if watch_loop else None
        self._workers = workers
        self._bay = bay or ConfiguredBay(
            self.body, settings.sensors, settings.actuators, simulate=settings.simulate_devices, watch_stops=watch_loop
        )
        self.driver = Driver(
            identity=identity,
            book=book,
            transport=transport,
            journal=journal,
            clock=clock,
            rng=driver_rng,
            bidder=self.bidder,
            host=_LateHost(self),
            authority=self.may,
            config=DriverConfig(
                contract=settings.contract,
                links=links or LinksConfig(),
                membership=settings.membership,
                observer=settings.visitor,
            ),
            on_failure=self._journal_failed,
            on_story=lambda peer, body: self.stories.heard(peer, body),
            on_member=self._member_changed,
            random_bytes=random_bytes,
        )
        self.look = Look(self)
        self.stories = Storyteller(
            me=self.id,
            read_log=journal.log,
            recent=self.driver.unwritten_notes,
            about=self.look.about,
            resolve=self.look.find_task,
            say=self.driver.say,
            linked=lambda: {peer.id: peer.clock_offset_s or 0.0 for peer in self.driver.peers().values()},
            name_of=self.look.name_of,
            now_s=clock.boot_s,
            may_hear=lambda peer, kind: any(self.may(peer, act, kind) for act in ("announce", "perform", "approve")),
            fresh_until_s=lambda: self.started_s + FRESH_S,
        )
        self.executor: Executor
        self.agents: Agents
        self._pending: dict[TaskId, PendingTask] = {}
        self.progress: dict[TaskId, tuple[int, str]] = {}
        self._watchers: list[Watcher] = []
        self.views: dict[NodeId, PeerView] = {}
        self.started_s = 0.0
        self.leaving = False
        self._profile_version = 0
        self._may: dict[tuple[NodeId, str, str], tuple[float, bool]] = {}
        self._told_low = False
        self._housekeeping: asyncio.Task[None] | None = None
        self._at_once = asyncio.Event()
        self._closed = asyncio.Event()
        self.failed: Exception | None = None

    # ---- life

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close(now=error is not None)

    async def start(self) -> None:
        """Host the roles, restore what was promised, bind the socket. Returns when the node is ready.

        Raises:
            ConfigurationError: a driver does not exist or does not fit.
            TransportError: the port cannot be had.
            JournalError: the journal cannot be read or written.
        """
        workers = self._workers or SystemWorkers(self.settings.worker_processes)
        self.executor = Executor(
            sink=self,
            workers=workers,
            now_s=self.clock.boot_s,
            watch=self.watch,
            parallel=self.settings.parallel,
            rank=self.bidder.rank,
            on_started=lambda work: self.agents.work_started(work),
            on_ended=lambda work, outcome: self.agents.work_ended(work, outcome),
        )
        self.agents = Agents(
            services=self,
            bidder=self.bidder,
            planner=self.planner,
            executor=self.executor,
            sink=self,
            bay=self._bay,
            watch=self.watch,
            told=self,
            now_s=self.clock.boot_s,
        )
        self.agents.make_record = self._record
        self.bidder.waits_for_it = self._body_waits_for
        self.started_s = self.clock.boot_s()
        try:
            for spec in self._roles:
                self.agents.host(spec)
            await self._bay.open()
            self.driver.add_observer(self)
            await self.driver.start(self._profile())
            self.bidder.why_barred = self.driver.links.why_no_contracts
            self.driver.set_profile(self._profile())  # the port is known only now
        except BaseException:
            await self._bay.close()
            await self.executor.close()
            raise
        self._withdraw_orphans()
        if self.watch is not None:
            self.watch.start()
        self.agents.start()
        self._housekeeping = asyncio.get_running_loop().create_task(
            supervise("housekeeping", self._keep_house, self.clock.boot_s), name="housekeeping"
        )

    async def close(self, *, drain_s: float | None = None, now: bool = False) -> None:
        """Finish within `drain_s`, hand the rest back, say goodbye. A second call with `now` cuts the first short.

        Idempotent; returns when the node has left.
        """
        if now or drain_s == 0:
            self._at_once.set()
        if self.leaving:
            await self._closed.wait()
            return
        self.leaving = True
        try:
            await self._leave(self.settings.drain_s if drain_s is None else drain_s)
        finally:
            self._closed.set()

    async def _leave(self, drain_s: float) -> None:
        self.bidder.draining = True
        if self._housekeeping is not None:
            self._housekeeping.cancel()
        try:
            if self.driver.failed is None and hasattr(self, "agents"):
                self.driver.set_profile(self._profile())  # offers nothing any more: nobody needs to ask
                self.executor.give_back_waiting(Reason.DRAINING)
                await self._until(self.executor.idle(), drain_s)
                self.feed(LeaveRequested())
                await self._until(self._handed_back(), HAND_BACK_S)
        finally:  # also when whoever waits for the drain is cancelled: devices stop, the socket closes
            await self._shut()

    async def _shut(self) -> None:
        async with contextlib.AsyncExitStack() as stack:  # one that fails does not keep the next from closing
            stack.push_async_callback(self._bay.close)
            stack.push_async_callback(self.driver.close)
            stack.push_async_callback(self.executor.close)
            stack.push_async_callback(self.agents.stop)
            if self.watch is not None:
                stack.callback(self.watch.close)
        for pending in self._pending.values():
            pending.abandoned()
        for watcher in list(self._watchers):
            watcher.close()

    async def _until(self, done: Awaitable[None], at_most_s: float) -> None:
        """Wait for `done`, at most so long, or until somebody is in a hurry."""
        work = asyncio.ensure_future(done)
        hurry = asyncio.ensure_future(self._at_once.wait())
        try:
            await asyncio.wait((work, hurry), timeout=at_most_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            work.cancel()
            hurry.cancel()

    async def _handed_back(self) -> None:
        await self.executor.idle()
        while self.driver.participant.unsettled_count:  # noqa: ASYNC110 - once in a node's life, bounded by the caller
            await asyncio.sleep(0.02)

    def _journal_failed(self, error: Exception) -> None:
        # What is promised in memory is not on disk: devices stop now, nothing more is said.
        self.failed = error
        if hasattr(self, "executor"):
            self.executor.fence_all(Reason.CRASHED)
        if self._on_failure is not None:
            self._on_failure(error)

    # ---- Sink of the executor

    def feed(self, event: Report | LeaveRequested) -> None:
        """Into the machines, within this turn of the loop."""
        self.driver.feed(event)

    def committed(self) -> asyncio.Future[None]:
        """Completes when what was fed before is journaled."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def told() -> None:
            if future.done():
                return
            if self.driver.failed is not None:
                future.set_exception(self.driver.failed)
            else:
                future.set_result(None)

        loop.call_soon(told)  # `feed` has scheduled the tick before: the loop runs it first
        return future

    # ---- NodeServices of the SDK

    @property
    def name(self) -> str:
        return self.settings.name

    def now_s(self) -> float:
        return self.clock.boot_s()

    def peers(self) -> Sequence[PeerInfo]:
        return [_info(view) for _, view in sorted(self.views.items()) if view.lost_s is None]

    def submit(self, request: SubmitRequest) -> Pending:
        """Ask the mesh. A task submitted by a handler is a subtask of its contract.

        Raises:
            NotPermittedError: this device may not announce that kind.
        """
        record = self._record(request)
        pending = PendingTask(record.task, self._withdraw)
        parent = self.executor.works.get(request.parent) if request.parent is not None else None
        if parent is not None:
            parent.adopt_child(pending)
        self._pending[record.task] = pending
        self.driver.submit(TaskSubmitted(record=record, within_s=request.within_s))
        return pending

    def emit(self, name: str, body: bytes) -> None:
        self.driver.emit(EventMessage(name=name, body=body))
        if self.agents.listens(name):
            self.agents.tell_raw(name, body)

    def may(self, peer: NodeId, action: str, kind: str) -> bool:
        """What a credential allows; our own is narrowed by the configuration.

        Asked some five times a round, so an answer holds for `MAY_HOLDS_S`. Messages of a revoked or expired device
        do not get this far: the gate looks at its credential for each of them.
        """
        now_s = self.clock.boot_s()
        known = self._may.get((peer, action, kind))
        if known is not None and known[0] > now_s:
            return known[1]
        if len(self._may) >= MAX_MAY:
            self._may.clear()
        allowed = self._allowed(peer, action, kind)
        self._may[peer, action, kind] = (now_s + MAY_HOLDS_S, allowed)
        return allowed

    def _allowed(self, peer: NodeId, action: str, kind: str) -> bool:
        if peer != self.id:
            credential = self.book.current(peer, now_s=self.clock.wall_s())
            return credential is not None and credential.allows(action, kind)
        if not self.identity.credential.allows(action, kind):
            return False
        narrowed = {"announce": self.settings.announce, "perform": self.settings.perform}.get(action)
        return narrowed is None or _matches(kind, narrowed)

    # ---- what people do

    def renew_credential(self, data: bytes) -> bool:
        """Exchange this device's credential for the one in a credential file, in memory. True: it was newer.

        Peers see it on links that are opened anew. Areas that a capability opens on the map are opened at the next
        start.

        Raises:
            IdentityError: it does not hold, has expired, or is another device's.
        """
        file = CredentialFile.from_bytes(data)
        if not self.identity.renew(data, now_s=self.clock.wall_s()):
            return False
        certified = frozenset(self.identity.credential.capabilities)
        own = self.settings.capabilities - self.settings.certified
        self.settings = replace(self.settings, capabilities=own | certified, certified=certified - own)
        self.bidder.settings = self.settings
        self._may.clear()
        for notice in (*file.roots[1:], *file.revocations):
            try:
                self.driver.links.merge_revocations(notice)
            except RevocationError as error:
                log.warning("a list in the credential file does not hold: %s", error)
        self.driver.links.credential_renewed()
        self.driver.set_profile(self._profile())
        return True

    def cancel(self, task: TaskId, detail: str = "") -> bool:
        """Withdraw a task of this node and its subtasks; False: it has ended.

        Raises:
            UnknownTaskError: it is not a task of this node.
        """
        undertaking = self.driver.initiator.find(task)
        if undertaking is None:
            contract = self.driver.participant.find(task)
            if contract is None:
                raise UnknownTaskError(f"no task {task} is known here")
            asker = self.look.name_of(contract.initiator)
            raise UnknownTaskError(
                f"this task was asked for by {asker}, who alone can withdraw it",
                next_step=f"on {asker}: meshagent cancel {task}",
            )
        if undertaking.terminal:
            return False
        self._withdraw(task, detail or "withdrawn by the operator")
        return True

    def resolve(self, task: TaskId, *, done: bool) -> None:
        """A person decides a task that is in doubt.

        Raises:
            UnknownTaskError: it is not in doubt here.
        """
        undertaking = self.driver.initiator.find(task)
        if undertaking is None or undertaking.state is not TaskState.IN_DOUBT:
            raise UnknownTaskError(f"task {task} is not in doubt here", next_step=f"meshagent why {task}")
        self.driver.feed(DoubtResolved(task=task, done=done))

    async def why(self, asked: str, *, wait_s: float = DEFAULT_WAIT_S) -> dict[str, Any]:
        """The `meshagent.why/1` document.

        Raises:
            UnknownTaskError: nobody in reach knows that task.
        """
        story = await self.stories.gather(asked, wait_s=wait_s)
        if story is None:
            raise UnknownTaskError(f"nobody in reach knows the task {asked}", next_step="meshagent tasks --all")
        return story

    def watching(self) -> AsyncIterator[dict[str, Any]]:
        """Everything that happens from now on, as `meshagent.event/1` documents; ends with the node.

        Raises:
            LocalProtocolError: too many watch already.
        """
        if len(self._watchers) >= MAX_WATCHERS:
            raise LocalProtocolError(f"{MAX_WATCHERS} are watching already")
        watcher = Watcher(self._watchers.remove)
        self._watchers.append(watcher)
        return watcher

    # ---- Told: what agents do

    def work_started(self, work: Work) -> None:
        self._tell_watchers("started", task=work.record.task, kind=work.record.kind, epoch=work.epoch.counter)

    def work_ended(self, work: Work, outcome: WorkOutcome) -> None:
        if outcome.result is not None:
            stop = self.bidder.stop_of(work.record.task)
            if stop is not None and stop.place is not None:
                self.body.arrived(stop.place)
        self._tell_watchers(
            "ended",
            task=work.record.task,
            kind=work.record.kind,
            epoch=work.epoch.counter,
            ok=outcome.result is not None,
            reason=outcome.reason.value if outcome.reason else None,
            detail=outcome.detail,
        )

    # ---- Observer of the driver

    def task_changed(self, change: TaskChanged) -> None:
        if change.progress_permille is not None:
            self.progress[change.task] = (change.progress_permille, change.note)
        pending = self._pending.get(change.task)
        if pending is not None:
            pending.changed(change)
        if change.state.terminal:
            self._pending.pop(change.task, None)
            self.progress.pop(change.task, None)
            for child in self.driver.initiator.children_of(change.task):
                if change.state is TaskState.CANCELLED:
                    self._withdraw(child, f"its parent {change.task} was withdrawn")
        if self._watchers:
            self._tell_watchers("state", **self.look.change(change))

    def noted(self, note: Noted, at_wall_s: float) -> None:
        if self._watchers:
            facts = {name: value for name, value in note.facts if name not in ("event", "task", "at_wall_s")}
            self._tell_watchers(note.event, task=note.task, epoch=note.epoch.counter, peer=note.peer, **facts)

    def _member_changed(self, change: MemberChanged) -> None:
        if self._watchers:
            self._tell_watchers(
                "member",
                peer=change.node,
                state=None if change.state is None else change.state.value,
                why=change.why,
                accusers=list(change.accusers),
            )

    def peers_changed(self) -> None:
        now_s = self.clock.boot_s()
        linked = self.driver.peers()
        for peer_id, peer in sorted(linked.items()):
            view = self.views.get(peer_id)
            if view is None or view.lost_s is not None:
                self.views[peer_id] = PeerView(peer, None)
                joined = _info(self.views[peer_id])
                self._tell_watchers("peer_joined", peer=peer_id, address=peer.address)
                self.agents.tell(PeerJoined(joined))
            else:
                view.peer = peer
        for peer_id, view in sorted(self.views.items()):
            if peer_id not in linked and view.lost_s is None:
                view.lost_s = now_s
                view.why = self.driver.lost_because.get(peer_id, "")
                self._tell_watchers("peer_lost", peer=peer_id, why=view.why)
                self.agents.tell(PeerLost(_info(view), view.why))
        self.look.forget_old_peers()
        self.stories.links_changed()

    # ---- inside

    def _record(self, request: SubmitRequest) -> TaskRecord:
        if self.leaving:
            raise LocalProtocolError("this node is leaving and takes no more tasks")
        if not self.may(self.id, "announce", request.kind):
            raise NotPermittedError(
                f"{self.name} may not ask for {request.kind}",
                next_step="the credential, or [permissions] announce, must name it: meshagent fleet show",
            )
        nonce = self._random_bytes(NONCE_BYTES)
        record = TaskRecord(
            task=task_id_of(self.id, self.driver.boot, nonce),
            initiator=self.id,
            boot=self.driver.boot,
            nonce=nonce,
            kind=request.kind,
            spec=request.spec,
            delivery=request.delivery,
            in_doubt=request.in_doubt,
            durability=request.durability,
            priority=request.priority,
            key=request.key,
            parent=request.parent,
            approval=request.approval,
        )
        return self.driver.entrusted(record, self.settings.custodians)

    def _body_waits_for(self, record: TaskRecord) -> bool:
        """Is an ancestor of the task being done here, in its place?"""
        parent = record.parent
        for _ in range(MAX_ANCESTORS):
            if parent is None:
                return False
            work = self.executor.works.get(parent)
            if work is not None and work.placed and work.started_s is not None:
                return True
            asked = work.record if work is not None else None
            if asked is None:
                undertaking = self.driver.initiator.find(parent)
                asked = undertaking.record if undertaking is not None else None
            parent = asked.parent if asked is not None else None
        return False

    def _withdraw(self, task: TaskId, detail: str) -> None:
        if self.driver.failed is None:
            self.driver.feed(CancelRequested(task=task, detail=detail))
            for child in self.driver.initiator.children_of(task):
                self.driver.feed(CancelRequested(task=child, detail=f"its parent was withdrawn: {detail}"[:500]))

    def _withdraw_orphans(self) -> None:
        """Subtasks of a handler that died with the former process: its contract's next holder asks anew."""
        for undertaking in list(self.driver.initiator.undertakings()):
            parent = undertaking.record.parent
            if undertaking.terminal or parent is None:
                continue
            contract = self.driver.participant.find(parent)
            if contract is not None and (contract.report is None or contract.report.result is None):
                self._withdraw(undertaking.task, "the handler that asked for it ended with its process")

    def _tell_watchers(self, event: str, **facts: Any) -> None:
        if not self._watchers:
            return
        document = self.look.event(event, facts)
        for watcher in self._watchers:
            watcher.put(document)

    def _profile(self) -> Profile:
        self._profile_version += 1
        offers = not (self.settings.visitor or self.leaving)
        return Profile(
            version=self._profile_version,
            name=self.name,
            roles=tuple(agent.name for agent in self.agents.agents),
            kinds=self.agents.kinds() if offers else {},
            capabilities=tuple(sorted(self.settings.capabilities)),
            battery_soc=self.battery.soc(),
            position_m=self.body.position_m(),
            queue=len(self.bidder.plan.stops),
            software=SOFTWARE,
            visitor=self.settings.visitor,
            listen_port=int(getattr(self.transport, "listen_port", 0) or 0),
        )

    async def _keep_house(self) -> None:
        told = None
        while True:
            await asyncio.sleep(PROFILE_PERIOD_S)
            soc = self.battery.soc()
            self._judge_battery(soc)
            place = self.body.position_m()
            rounded = (
                None if soc is None else round(soc, 2),
                (round(place[0]), round(place[1])),
                len(self.bidder.plan.stops),
            )
            if told is not None and rounded != told:
                self.driver.set_profile(self._profile())
            told = rounded

    def _judge_battery(self, soc: float | None) -> None:
        low = soc is not None and soc < self.settings.battery_reserve_soc
        if low and not self._told_low:
            assert soc is not None
            log.warning("battery is at %.0f %%, below its reserve: no new contracts", soc * 100)
            self.agents.tell(BatteryLow(soc))
            self._tell_watchers("battery_low", soc=soc)
        self._told_low = low
        end = self.bidder.soc_at_end()
        if end is not None and end < self.settings.battery_reserve_soc - BATTERY_SLACK_SOC:
            # the plan was feasible when it was promised; what comes last goes to somebody who is fresher
            detail = f"would come home with {max(0.0, end) * 100:.0f} %"
            if self.executor.give_back_last(Reason.BATTERY, detail):
                log.warning("the battery does not last for the plan (%s): its last stop is given back", detail)

    @property
    def hosted(self) -> Iterable[Agent]:
        """The agents of this node."""
        return self.agents.agents

    @property
    def pending(self) -> Mapping[TaskId, PendingTask]:
        """Submissions of this process that have not ended."""
        return self._pending


class _LateHost:
    """The driver is built before the agents: this stands between."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def start_work(self, effect: Any) -> None:
        self._node.agents.start_work(effect)

    def move_lease(self, effect: Any) -> None:
        self._node.agents.move_lease(effect)

    def stop_work(self, effect: Any) -> None:
        self._node.agents.stop_work(effect)

    def grant_point_of_no_return(self, effect: Any) -> None:
        self._node.agents.grant_point_of_no_return(effect)

    def event_received(self, peer: NodeId, event: EventMessage) -> None:
        self._node.agents.event_received(peer, event)


def _battery_of(settings: NodeSettings, clock: Clock) -> Battery:
    if settings.battery_soc is not None:
        return GivenBattery(settings.battery_soc)
    return RememberedBattery(SystemBattery(), clock.boot_s)


def _info(view: PeerView) -> PeerInfo:
    profile = view.peer.profile
    return PeerInfo(
        id=view.peer.id,
        name=profile.name if profile else view.peer.id[:8],
        roles=profile.roles if profile else (),
        kinds=tuple(sorted(profile.kinds)) if profile else (),
        battery_soc=profile.battery_soc if profile else None,
        position_m=profile.position_m if profile else None,
    )


def _matches(kind: str, patterns: Sequence[str]) -> bool:
    return any(kind.startswith(p[:-1]) if p.endswith("*") else kind == p for p in patterns)
