"""The guide's own test of a role, on whole nodes in virtual time."""

from __future__ import annotations

from meshagent import Reason, Refusal
from meshagent.devices import Waveform
from meshagent.testing import FakeMesh, simulated
from meshagent_roles.dog import Dog
from meshagent_roles.listener import Listener
from meshagent_roles.pump import CheckContact, Readings

JOB, RATTLE = CheckContact("pump-7", "outer race"), Waveform.synthetic("outer race")


@simulated
async def test_flat_battery_is_refused_with_a_reason(mesh: FakeMesh) -> None:
    answer = (await mesh.join(Dog, battery_soc=0.1)).bid(JOB)
    assert isinstance(answer, Refusal)
    assert answer.reason is Reason.BATTERY


@simulated
async def test_readings_taken_before_a_takeover_are_kept(mesh: FakeMesh) -> None:
    dog = await mesh.join(Dog)
    dog.feed(Dog.probe, [RATTLE])  # one more is enough
    assert (await mesh.perform(dog, JOB, resume=Readings([0.9, 0.8], ["", ""]))).confirmed


@simulated(seeds=3)
async def test_second_dog_takes_over(mesh: FakeMesh) -> None:
    near, far = await mesh.join(Dog, name="near", at=(10, 0)), await mesh.join(Dog, name="far", at=(80, 0))
    far.feed(Dog.probe, [RATTLE] * 3)
    finding = mesh.submit(JOB)
    await mesh.until(lambda: near.running(CheckContact))
    near.kill()
    found = await finding
    assert found.by == "far"
    assert found.confirmed
    assert found.part == "outer race"


@simulated(seeds=8, loss=0.1)
async def test_whoever_got_it_the_other_takes_over(mesh: FakeMesh) -> None:
    # a lost frame may make the better bid come too late, so either may win
    dogs = [await mesh.join(Dog, name="near", at=(10, 0)), await mesh.join(Dog, name="far", at=(80, 0))]
    for dog in dogs:
        dog.feed(Dog.probe, [RATTLE] * 3)
    finding = mesh.submit(JOB)
    await mesh.until(lambda: any(dog.running(CheckContact) for dog in dogs))
    [other] = [dog for dog in dogs if not dog.running(CheckContact)]
    [winner] = [dog for dog in dogs if dog is not other]
    winner.kill()
    assert (await finding).by == other.name


@simulated
async def test_what_the_listener_hears_is_checked_by_a_dog_once(mesh: FakeMesh) -> None:
    dog = await mesh.join(Dog, name="dog", at=(5, 0))
    drone = await mesh.join(Listener, name="drone")
    dog.feed(Dog.probe, [RATTLE] * 3)
    drone.feed(Listener.mic, [RATTLE] * 4)
    await mesh.until(lambda: dog.running(CheckContact))
    await mesh.until(lambda: drone.role(Listener).quiet_until_s > 0)
    assert not dog.running(CheckContact)
