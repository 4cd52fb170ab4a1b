"""State records' bodies: what a member may sign is read strictly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshagent.core.bodies import Profile
from meshagent.runtime.facts import MemberFacts, facts_of, read_facts, write_facts
from meshagent.strictpack import packb

GOOD: dict[str, object] = {
    "name": "ann",
    "roles": ["Dog"],
    "kinds": ["pump.check.v1"],
    "capabilities": ["legs"],
    "battery": 0.5,
    "position": [1.0, 2],
    "queue": 3,
    "software": "meshagent/0.1.0",
}


def test_a_profile_arrives_in_short() -> None:
    profile = Profile(
        version=4,
        name="ann",
        roles=("Dog",),
        kinds={"b": "B(x)", "a": "A()"},
        battery_soc=0.51234,
        position_m=(1.0, 2.0),
    )
    facts = facts_of(profile)
    assert facts == MemberFacts(name="ann", roles=("Dog",), kinds=("a", "b"), battery_soc=0.512, position_m=(1.0, 2.0))
    assert read_facts(write_facts(facts)) == facts


def test_what_does_not_fit_is_left_out() -> None:
    many = tuple(f"{n:03}".ljust(128, "x") for n in range(64))
    facts = read_facts(write_facts(MemberFacts(name="ann", roles=("Dog",), kinds=many, capabilities=many)))
    assert facts is not None
    assert (facts.roles, facts.kinds, facts.capabilities) == (("Dog",), (), ())


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": 1},
        {"name": "x" * 300},
        {"roles": "Dog"},
        {"kinds": ["x" * 129]},
        {"capabilities": ["x"] * 65},
        {"battery": 1.5},
        {"battery": True},
        {"position": [1.0]},
        {"position": [1.0, 1e9]},
        {"queue": -1},
        {"queue": True},
        {"software": None},
    ],
)
def test_facts_of_another_form_are_none(wrong: dict[str, object]) -> None:
    assert read_facts(packb(GOOD)) is not None
    assert read_facts(packb({**GOOD, **wrong})) is None


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_facts_or_none(body: bytes) -> None:
    read_facts(body)
