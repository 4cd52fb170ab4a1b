"""What role authors test with: whole nodes in virtual time, in a project of their own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from meshagent import (
    Cancelled,
    Done,
    NoAward,
    Reason,
    Refusal,
    Requires,
    Role,
    Task,
    TaskContext,
    TaskFailedError,
    task,
)
from meshagent.testing import FakeMesh, simulated
from meshagent.virtual.loop import VirtualDeadlockError


@dataclass(frozen=True)
class Greet(Task[str], kind="test.greet.v1", delivery="at_least_once"):
    name: str
    takes_s: float = 0.0


@dataclass(frozen=True)
class Fix(Task[str], kind="test.fix.v1"):
    what: str


class Greeter(Role):
    requires = Requires(capabilities={"voice"})

    @task
    async def greet(self, job: Greet, ctx: TaskContext) -> str:
        import asyncio

        await asyncio.sleep(job.takes_s)
        if job.name == "nobody":
            raise ValueError("there is nobody")
        return f"hello {job.name}, {self.node.name} speaking"


@simulated
async def test_a_task_is_done_and_its_result_typed(mesh: FakeMesh) -> None:
    await mesh.join(Greeter, name="ann")
    greeting: str = await mesh.submit(Greet("world"))
    assert greeting == "hello world, ann speaking"
    assert mesh.now_s() < 1.0


@simulated
async def test_a_handler_that_raises_is_a_failure_with_its_sentence(mesh: FakeMesh) -> None:
    await mesh.join(Greeter)
    with pytest.raises(TaskFailedError, match="there is nobody"):
        await mesh.submit(Greet("nobody"))


@simulated
async def test_what_nobody_offers_is_no_award(mesh: FakeMesh) -> None:
    await mesh.join(Greeter)
    outcome = await mesh.submit(Fix("pump"), within_s=3.0).outcome()
    assert isinstance(outcome, NoAward)


@simulated
async def test_a_submission_can_be_withdrawn(mesh: FakeMesh) -> None:
    node = await mesh.join(Greeter)
    asked = mesh.submit(Greet("world", takes_s=60))
    await mesh.until(lambda: node.running(Greet))
    asked.cancel("changed my mind")
    assert isinstance(await asked.outcome(), Cancelled)
    assert not node.running(Greet)


@simulated
async def test_a_device_without_the_capability_refuses(mesh: FakeMesh) -> None:
    node = await mesh.join(Greeter, capabilities=())
    answer = node.bid(Greet("world"))
    assert isinstance(answer, Refusal)
    assert answer.reason is Reason.CAPABILITY


@simulated(seeds=5, loss=0.1)
async def test_the_killed_one_is_replaced_and_comes_back(mesh: FakeMesh) -> None:
    one, two = await mesh.join(Greeter, name="one"), await mesh.join(Greeter, name="two")
    asked = mesh.submit(Greet("world", takes_s=5))
    await mesh.until(lambda: one.running(Greet) or two.running(Greet))
    holder, other = (one, two) if one.running(Greet) else (two, one)
    holder.kill(power_cut=True)
    outcome = await asked.outcome()
    assert isinstance(outcome, Done)
    assert outcome.result == f"hello world, {other.name} speaking"
    await holder.restart()
    assert holder.alive


@simulated
async def test_a_partition_hides_a_node_until_it_heals(mesh: FakeMesh) -> None:
    node = await mesh.join(Greeter)
    mesh.submit(Greet("first"))
    heal = mesh.partition(node)
    await mesh.sleep(5)
    asked = mesh.submit(Greet("second"))
    await mesh.sleep(5)
    assert not asked.done
    heal()
    assert "second" in await asked


@simulated
async def test_a_leaving_node_hands_its_work_over(mesh: FakeMesh) -> None:
    one = await mesh.join(Greeter, name="one")
    asked = mesh.submit(Greet("world", takes_s=30))
    await mesh.until(lambda: one.running(Greet))
    await mesh.join(Greeter, name="two")
    await one.leave()
    assert "two" in await asked


@simulated
async def test_role_instances_can_be_looked_into(mesh: FakeMesh) -> None:
    node = await mesh.join(Greeter)
    assert isinstance(node.role(Greeter), Greeter)
    node.kill()
    with pytest.raises(LookupError):
        node.role(Greeter)


def test_a_wait_that_can_never_end_is_told_and_does_not_hang() -> None:
    @simulated
    async def waits(mesh: FakeMesh) -> None:
        import asyncio

        await asyncio.get_running_loop().create_future()

    with pytest.raises(VirtualDeadlockError):
        waits()


def test_every_seed_is_run_and_the_failing_one_is_named() -> None:
    seen: list[int] = []

    @simulated(seeds=[3, 4, 5])
    async def fails_at_four(mesh: FakeMesh) -> None:
        seen.append(mesh.seed)
        assert mesh.seed != 4

    with pytest.raises(AssertionError) as failure:
        fails_at_four()
    assert seen == [3, 4]
    assert any("--seed=0x4" in note for note in failure.value.__notes__)


def test_a_test_without_a_mesh_is_told_what_to_write() -> None:
    async def forgets() -> None:
        return None

    with pytest.raises(TypeError, match=r"async def forgets\(mesh: FakeMesh\)"):
        simulated(forgets)


# ---- in a project of its own (SURFACE 2)

PUMP_TASKS = """
    from dataclasses import dataclass, field
    from meshagent import Place, Site, Task

    @dataclass(frozen=True)
    class Finding:
        site: str
        rms_g: float
        confirmed: bool
        by: str

    @dataclass(frozen=True)
    class CheckContact(Task[Finding], kind="pump.check.v1", delivery="at_least_once"):
        site: str
        suspected: str
        def place(self) -> Place:
            return Site(self.site)
        def duration_s(self) -> float:
            return 20.0

    @dataclass
    class Readings:
        rms_g: list[float] = field(default_factory=list)
"""
DOG = """
    from meshagent import Call, Proposal, Reason, Refusal, Requires, Role, Site, TaskContext, actuator, sensor, task
    from meshagent.devices import Legs, Waveform
    from pump_tasks import CheckContact, Finding, Readings

    class Dog(Role):
        requires = Requires(capabilities={"legs", "contact-probe"}, permissions={"enter:pump-room"})
        legs = actuator(Legs)
        probe = sensor(Waveform, window_s=4.0)
        probe_ok = True

        @task
        async def check(self, job: CheckContact, ctx: TaskContext) -> Finding:
            readings = ctx.resumed(Readings) or Readings()
            async with ctx.use(self.legs) as legs:
                async for stretch in legs.walk_to(Site(job.site)):
                    ctx.progress(0.8 * stretch.share, f"{stretch.left_m:.0f} m to go")
            while len(readings.rms_g) < 3:
                sample = await self.probe.next(timeout_s=10)
                readings.rms_g.append(sample.value.rms())
                await ctx.checkpoint(readings)
            mean = sum(readings.rms_g) / 3
            return Finding(job.site, confirmed=mean > 0.5, rms_g=mean, by=self.node.name)

        @check.feasible
        def can_check(self, call: Call[CheckContact]) -> Refusal | None:
            return None if self.probe_ok else call.refuse(Reason.CALIBRATION, "probe was last calibrated 43 days ago")

        @check.price
        def price(self, call: Call[CheckContact]) -> Proposal:
            if call.plan.stops:
                return call.propose()
            return call.propose(call.insertion().added_s + 7.2, because="probe is cold: +7.2 s")
"""
TEST_DOG = """
    from dog import Dog
    from meshagent import Reason, Refusal
    from meshagent.devices import Waveform
    from meshagent.testing import FakeMesh, simulated
    from pump_tasks import CheckContact, Readings

    JOB, RATTLE = CheckContact("pump-7", "outer race"), Waveform.synthetic("outer race")

    @simulated
    async def test_flat_battery_is_refused_with_a_reason(mesh: FakeMesh) -> None:
        answer = (await mesh.join(Dog, battery_soc=0.1)).bid(JOB)
        assert isinstance(answer, Refusal) and answer.reason is Reason.BATTERY
    @simulated
    async def test_readings_taken_before_a_takeover_are_kept(mesh: FakeMesh) -> None:
        dog = await mesh.join(Dog)
        dog.feed(Dog.probe, [RATTLE])  # one more is enough
        assert (await mesh.perform(dog, JOB, resume=Readings([0.9, 0.8]))).confirmed
    @simulated(seeds=15, loss=0.1)
    async def test_second_dog_takes_over(mesh: FakeMesh) -> None:
        near, far = await mesh.join(Dog, name="near", at=(10, 0)), await mesh.join(Dog, name="far", at=(80, 0))
        far.feed(Dog.probe, [RATTLE] * 3)
        finding = mesh.submit(JOB)
        await mesh.until(lambda: near.running(CheckContact))
        near.kill()
        assert (await finding).by == "far"
    @simulated(seeds=50)
    async def test_that_fails_for_one_seed(mesh: FakeMesh) -> None:
        assert mesh.seed != 0x2a
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the files of SURFACE 2."""
    for name, text in (("pump_tasks.py", PUMP_TASKS), ("dog.py", DOG), ("test_dog.py", TEST_DOG)):
        (tmp_path / name).write_text(textwrap.dedent(text))
    return tmp_path


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    installed = any(entry.value == "meshagent.testing_plugin" for entry in entry_points(group="pytest11"))
    plugin = () if installed else ("-p", "meshagent.testing_plugin")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugin, "-p", "no:cacheprovider", "--rootdir", ".", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def test_the_tests_of_the_surface_pass_and_a_failing_seed_gives_one_line_to_paste(project: Path) -> None:
    done = run_pytest(project)
    assert "3 passed" in done.stdout, done.stdout + done.stderr
    assert "1 failed" in done.stdout
    assert "pytest 'test_dog.py::test_that_fails_for_one_seed' --seed=0x2a" in done.stdout.splitlines()


def test_the_line_replays_that_seed_alone(project: Path) -> None:
    done = run_pytest(project, "test_dog.py::test_that_fails_for_one_seed", "--seed=0x2a")
    assert "1 failed" in done.stdout, done.stdout + done.stderr
    other = run_pytest(project, "test_dog.py::test_that_fails_for_one_seed", "--seed=0x2b")
    assert "1 passed" in other.stdout, other.stdout + other.stderr
