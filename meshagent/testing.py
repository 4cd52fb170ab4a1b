"""Test roles with whole nodes in virtual time: no network, no sleep, no flakiness.

    @simulated(seeds=50, loss=0.1)
    async def test_second_dog_takes_over(mesh: FakeMesh) -> None:
        near, far = await mesh.join(Dog, name="near", at=(10, 0)), await mesh.join(Dog, name="far", at=(80, 0))
        finding = mesh.submit(JOB)
        await mesh.until(lambda: near.running(CheckContact))
        near.kill()
        assert (await finding).by == "far"

Every node is the robot's own, signatures and leases included; only clock, links, journal, randomness and worker
processes are exchanged. Time jumps from event to event, so an hour takes milliseconds. A failing seed prints one line
that replays it: `pytest 'test_dog.py::test_second_dog_takes_over' --seed=0x2a`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from typing import Any, Final, Generic, Literal, Protocol, TypeVar, overload

from meshagent import testing_plugin
from meshagent.sdk.call import Proposal, Refusal
from meshagent.sdk.kinds import Task
from meshagent.sdk.outcome import Done, Outcome
from meshagent.sdk.role import Role
from meshagent.sdk.sensing import Sensor
from meshagent.types import Durability, TaskId
from meshagent.virtual.kernel import Death, Process, World, run_main
from meshagent.virtual.loop import bury
from meshagent.virtual.network import Network, Weather
from meshagent.virtual.nodes import Member, Mesh, Plug

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
V = TypeVar("V")

UNTIL_S: Final = 60.0
"""`mesh.until` gives up after so much virtual time."""
LIMIT_S: Final = 3600.0
"""A test that needs more virtual time is stuck."""
GREET_S: Final = 5.0
"""The operator asks when linked to everybody, or after so long: somebody may be cut off."""
JOIN_S: Final = 30.0
"""A node that is not up after so much virtual time will not be."""

MOST_LOST: Final = 2
"""How often one frame is lost: a call and its answer then come within the 0.4 s that a call waits."""

__all__ = ["FakeMesh", "FakeNode", "Waiting", "simulated"]


class Waiting(Generic[R_co]):
    """A task on its way, asked by the test: await it for the result."""

    def __init__(
        self, accepted: asyncio.Future[None], outcome: asyncio.Future[Any], cancel: Callable[[str], None]
    ) -> None:
        self._accepted = accepted
        self._outcome = outcome
        self._cancel = cancel

    def __await__(self) -> Generator[Any, None, R_co]:
        """The result.

        Raises:
            TaskFailedError: there is none; `.outcome()` says why.
        """
        return self._result().__await__()

    async def _result(self) -> R_co:
        from meshagent.sdk.errors import TaskFailedError

        outcome: Outcome[R_co] = await asyncio.shield(self._outcome)
        if isinstance(outcome, Done):
            return outcome.result
        raise TaskFailedError(outcome.task, outcome, outcome.reason, outcome.detail)

    async def outcome(self) -> Outcome[R_co]:
        """How it ended: `Done`, `NoAward`, `Failed` or `Cancelled`."""
        outcome: Outcome[R_co] = await asyncio.shield(self._outcome)
        return outcome

    async def accepted(self) -> None:
        """Return when the asker has promised it: from here on it must end."""
        await asyncio.shield(self._accepted)

    def cancel(self, detail: str = "") -> None:
        """Withdraw it."""
        self._cancel(detail)

    @property
    def done(self) -> bool:
        """True once it has ended."""
        return self._outcome.done()


class FakeNode:
    """One device of the fake mesh, with the roles that joined."""

    def __init__(self, mesh: FakeMesh, member: Member) -> None:
        self._mesh = mesh
        self._member = member

    @property
    def name(self) -> str:
        return self._member.name

    @property
    def id(self) -> str:
        """The device's id: of its key, from a fleet made for tests."""
        return self._member.node_id

    @property
    def alive(self) -> bool:
        """True while its process runs."""
        return self._member.alive

    def role(self, cls: type[V]) -> V:
        """The role's instance on this node, to look into.

        Raises:
            LookupError: no such role here, or the node is down.
        """
        return self._member.role(cls)

    def bid(self, job: Task[Any]) -> Proposal | Refusal:
        """What this node would answer to a call for `job` now."""
        return self._member.bid(job)

    def feed(self, sensor: Sensor[V], values: Iterable[V]) -> None:
        """Let the sensor give these values next; the role that declares it reads them in order."""
        self._member.feed(sensor, list(values))

    def running(self, kind: type[Task[Any]]) -> bool:
        """True while a handler of `kind` runs here."""
        return self._member.running(kind)

    def kill(self, *, power_cut: bool = False) -> None:
        """Kill -9; with `power_cut` the device falls silent instead of closing its connections."""
        self._member.kill(Death.POWER_CUT if power_cut else Death.KILLED)

    async def restart(self) -> None:
        """Start it again from its journal; returns when it is up."""
        self._member.start()
        await self._mesh.until(lambda: self._member.ready, within_s=JOIN_S)

    async def leave(self) -> None:
        """Shut down cleanly: work is handed back, peers are told. Returns when it is down."""
        self._member.leave()
        await self._mesh.until(lambda: not self._member.alive, within_s=UNTIL_S)

    def pause(self) -> None:
        """Freeze the process while time passes (SIGSTOP)."""
        self._member.pause()

    def resume(self) -> None:
        """Let it go on."""
        self._member.resume()

    def set_battery(self, soc: float) -> None:
        """State of charge, 0 to 1."""
        self._member.set_battery(soc)

    def move(self, at: tuple[float, float]) -> None:
        """Put the body somewhere else."""
        self._member.move(at)

    def __repr__(self) -> str:
        return f"<{self.name} {self.id[:8]}{'' if self.alive else ', down'}>"


class FakeMesh:
    """Whole nodes, links in memory, virtual time; one seed decides everything."""

    def __init__(self, world: World, network: Network, process: Process) -> None:
        self._world = world
        self._network = network
        self._process = process
        self._mesh = Mesh(world, network)
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._asker: Member | None = None
        self._numbers: dict[str, int] = {}
        world.on_step(self._look)

    @property
    def seed(self) -> int:
        """What decides this run."""
        return self._world.seed

    def now_s(self) -> float:
        """Virtual seconds since the start."""
        return self._world.now_s

    async def join(
        self,
        *roles: type[Role],
        name: str | None = None,
        at: tuple[float, float] = (0.0, 0.0),
        battery_soc: float | None = 1.0,
        capabilities: Iterable[str] | None = None,
        devices: dict[str, object] | None = None,
        speed_mps: float = 1.0,
    ) -> FakeNode:
        """Start a device with these roles; returns when it is up and linked to everybody who is up.

        Args:
            roles: classes, as `meshagent run` takes them.
            name: for people; default: the first role's name with a number.
            at: metres east and north. Sites that nobody placed (`place`) lie at (0, 0).
            battery_soc: state of charge, 0 to 1; None: mains.
            capabilities: what the body has; default: all that the roles require.
            devices: drivers of actuators by attribute name; default: the simulated driver of its type.
            speed_mps: how fast the body walks.
        """
        stem = name or (roles[0].__name__.lower() if roles else "node")
        number = self._numbers[stem] = self._numbers.get(stem, 0) + 1
        if name is None:
            stem = f"{stem}-{number}"
        elif number > 1:
            raise ValueError(f"a node called {name} has joined already")
        member = self._mesh.add(
            stem,
            roles=roles,
            position_m=at,
            battery_soc=battery_soc,
            capabilities=None if capabilities is None else frozenset(capabilities),
            plugs=[Plug(attribute, device) for attribute, device in sorted((devices or {}).items())],
            speed_mps=speed_mps,
        )
        member.start()
        await self.until(lambda: self._up(member), within_s=JOIN_S)
        return FakeNode(self, member)

    def place(self, site: str, at: tuple[float, float]) -> None:
        """Put a site on the map of the nodes that join from now on."""
        self._mesh.sites[site] = at

    def submit(
        self,
        job: Task[R],
        *,
        key: str = "",
        within_s: float | None = None,
        priority: int = 0,
        durability: Durability | Literal["local", "replicated"] = Durability.REPLICATED,
        by: FakeNode | None = None,
    ) -> Waiting[R]:
        """Ask the mesh, as an operator who visits; with `by`, as that node."""
        asker = by._member if by is not None else self._operator()
        return self._waiting_for(
            asker, job, key=key, within_s=within_s, priority=priority, durability=Durability(durability)
        )

    async def perform(self, node: FakeNode, job: Task[R], *, resume: object = None) -> R:
        """Have `node` alone do `job`, continuing from the checkpoint `resume` if there is one.

        Raises:
            TaskFailedError: it refused or failed; says why.
        """
        asker = self._mesh.add(f"asker-of-{node.name}-{len(self._mesh.members)}", roles=(), visitor=True)
        asker.start()
        await self.until(lambda: self._up(asker), within_s=JOIN_S)
        asker.ask_only(node._member, resume)
        waiting = self._waiting_for(asker, job, key="", within_s=None, priority=0, durability=Durability.LOCAL)
        return await waiting

    async def until(self, reached: Callable[[], bool], *, within_s: float = UNTIL_S) -> None:
        """Let time pass until `reached()`; looked at after every event.

        Raises:
            TimeoutError: not within `within_s` of virtual time.
        """
        if reached():
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (reached, future)
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(within_s):
                await future
        except TimeoutError as error:
            raise TimeoutError(f"not reached within {within_s:g} s of virtual time") from error
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)

    async def sleep(self, duration_s: float) -> None:
        """Let virtual time pass."""
        await asyncio.sleep(duration_s)

    def partition(self, *nodes: FakeNode) -> Callable[[], None]:
        """Cut `nodes` off from everybody else; returns how to heal it."""
        names = [node.name for node in nodes]
        return self._network.partition(names, [name for name in sorted(self._mesh.members) if name not in names])

    def crash(self) -> str:
        """What a node, not a handler, raised and nobody caught; empty: nothing. Checked when the test has passed."""
        return self._mesh.crash()

    # ---- inside

    def _up(self, member: Member) -> bool:
        if member.failure is not None:
            raise member.failure
        return member.ready and all(
            member.linked(other) for other in self._mesh.members.values() if other is not member and other.ready
        )

    def _operator(self) -> Member:
        if self._asker is None:
            self._asker = self._mesh.add("operator", roles=(), visitor=True)
            self._asker.start()
        return self._asker

    def _waiting_for(
        self, asker: Member, job: Task[R], *, key: str, within_s: float | None, priority: int, durability: Durability
    ) -> Waiting[R]:
        loop = asyncio.get_running_loop()
        label: asyncio.Future[TaskId] = loop.create_future()
        accepted: asyncio.Future[None] = loop.create_future()
        outcome: asyncio.Future[Any] = loop.create_future()
        here = self._process

        def told(future: asyncio.Future[Any], value: object, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)
                future.exception()  # whoever awaits it gets it; nobody awaiting is no error

        def bridge(future: asyncio.Future[Any]) -> Callable[[object, BaseException | None], None]:
            return lambda value, error: here.deliver(told, future, value, error)

        def ask(_: object = None) -> None:
            asker.submit(
                job,
                key=key,
                within_s=within_s,
                priority=priority,
                durability=durability,
                label=bridge(label),
                accepted=bridge(accepted),
                outcome=bridge(outcome),
            )

        if self._up(asker):
            ask()
        else:  # a visitor that knows half of the mesh would call that half alone
            linked: asyncio.Future[None] = loop.create_future()
            linked.add_done_callback(ask)
            self._waiting.append((lambda: self._up(asker), linked))
            loop.call_later(GREET_S, _set, linked)

        def cancel(detail: str) -> None:
            label.add_done_callback(lambda known: asker.cancel(known.result(), detail))

        return Waiting(accepted, outcome, cancel)

    def _look(self) -> None:
        if not self._waiting:
            return
        for reached, future in list(self._waiting):
            if future.done():
                continue
            try:
                if reached():
                    self._process.deliver(_set, future)
                    self._waiting = [entry for entry in self._waiting if entry[1] is not future]
            except Exception as error:  # noqa: BLE001 - the test's own predicate: its error belongs to the test
                self._process.deliver(_fail, future, error)
                self._waiting = [entry for entry in self._waiting if entry[1] is not future]


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _fail(future: asyncio.Future[None], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


class _Test(Protocol):
    def __call__(self, mesh: FakeMesh, /, *args: Any, **kwargs: Any) -> Awaitable[None]: ...


@overload
def simulated(test: Callable[..., Awaitable[None]], /) -> Callable[..., None]: ...


@overload
def simulated(
    *,
    seeds: int | Sequence[int] = 1,
    loss: float = 0.0,
    latency_s: float = 0.003,
    limit_s: float = LIMIT_S,
) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., None]]: ...


def simulated(
    test: Callable[..., Awaitable[None]] | None = None,
    /,
    *,
    seeds: int | Sequence[int] = 1,
    loss: float = 0.0,
    latency_s: float = 0.003,
    limit_s: float = LIMIT_S,
) -> Any:
    """Run an async test with a `FakeMesh` as its first parameter, once for each seed.

    Other parameters are pytest's, as usual.

    Args:
        test: the test, when used without brackets.
        seeds: how many seeds, from 0, or which ones. `pytest --seed=0x2a` runs that one alone.
        loss: share of frames that are lost and sent again, one frame twice at most: later answers are worth a test
            of the mesh, and are in meshagent's own.
        latency_s: median of one way.
        limit_s: virtual seconds after which a test counts as stuck.
    """
    weather = Weather(latency_s=latency_s, loss=loss, in_a_row=MOST_LOST)
    chosen = range(seeds) if isinstance(seeds, int) else tuple(seeds)

    def decorate(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
        signature = inspect.signature(test)
        names = list(signature.parameters)
        if not names:
            raise TypeError(f"{test.__qualname__} takes no mesh: write async def {test.__name__}(mesh: FakeMesh)")

        @functools.wraps(test)
        def run(*args: Any, **kwargs: Any) -> None:
            for seed in testing_plugin.chosen or chosen:
                try:
                    _run_seed(test, args, kwargs, seed, weather, limit_s)
                except BaseException as error:
                    line = _replay_line(test, seed)
                    error.add_note(line)
                    setattr(error, testing_plugin.REPLAY_ATTRIBUTE, line)
                    raise

        parameters = [parameter for name, parameter in signature.parameters.items() if name != names[0]]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return run

    return decorate if test is None else decorate(test)


def _replay_line(test: Callable[..., Awaitable[None]], seed: int) -> str:
    where = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    return f"pytest '{where or test.__qualname__}' --seed={seed:#x}"


def _run_seed(
    test: Callable[..., Awaitable[None]],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    seed: int,
    weather: Weather,
    limit_s: float,
) -> None:
    world = World(seed)
    network = Network(world, weather)

    meshes: list[FakeMesh] = []

    async def main(process: Process) -> None:
        mesh = FakeMesh(world, network, process)
        meshes.append(mesh)
        try:
            await test(mesh, *args, **kwargs)
        finally:
            world.forget_steps()

    try:
        run_main(world, main, name="the-test", limit_s=limit_s)
        for mesh in meshes:
            if crash := mesh.crash():
                raise AssertionError(f"a node raised what nobody caught: {crash}")
    finally:
        process = world.device("the-test").process
        if process is not None and process.main is not None and not process.main.done():
            bury([process.main])  # its `finally` blocks run while the world still stands
        world.close()
