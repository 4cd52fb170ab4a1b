"""Links between real transports on loopback."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.meshes import TestFleet, open_mesh, quick

pytestmark = pytest.mark.network


def test_two_nodes_link_by_a_static_seed_and_carry_frames_both_ways() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        async with open_mesh(fleet.device("a")) as one, open_mesh(fleet.device("b")) as two:
            two.events.echo = True
            one.hint(two)
            await one.events.until(lambda: one.linked(two) and two.linked(one))
            one.events.links[two.id].send(b"\x0aframe")
            await one.events.until(lambda: one.events.frames == [(two.id, b"\x0aframe")])
            assert two.events.frames == [(one.id, b"\x0aframe")]

    asyncio.run(scenario())


def test_two_nodes_find_each_other_by_mdns_on_loopback() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        config = quick(mdns=True)
        async with open_mesh(fleet.device("a"), config) as one, open_mesh(fleet.device("b"), config) as two:
            await one.events.until(lambda: one.linked(two) and two.linked(one))
            status = one.transport.mdns_status()
            assert status is not None
            assert status.peers_heard == {"lo": 1}

    asyncio.run(scenario())
