"""Finding peers by real multicast: on loopback, between processes, between hosts on a bridge, and against spoofers."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import perf_counter

import pytest
from zeroconf import IPVersion, ServiceInfo
from zeroconf.asyncio import AsyncZeroconf

from meshagent.transport.interfaces import chosen_interfaces
from meshagent.transport.mdns import SERVICE, MdnsStatus
from meshagent.transport.multicast import hear_multicast
from tests.support.meshes import Mesh, TestFleet, open_mesh, quick
from tests.support.netns import bridged_hosts
from tests.support.transport_child import Child

pytestmark = pytest.mark.network

MDNS = quick(mdns=True)


def status_of(node: Mesh) -> MdnsStatus:
    """What its mDNS has seen."""
    status = node.transport.mdns_status()
    assert status is not None
    return status


def test_two_nodes_find_each_other_on_loopback_within_a_second() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        async with open_mesh(fleet.device("a"), MDNS) as one, open_mesh(fleet.device("b"), MDNS) as two:
            begun = perf_counter()
            await one.events.until(lambda: one.linked(two) and two.linked(one))
            assert perf_counter() - begun < 3.0
            await one.events.until(lambda: status_of(one).heard_own_echo and status_of(two).heard_own_echo)
            for node in (one, two):
                assert status_of(node).peers_heard == {"lo": 1}
                assert status_of(node).queries_sent >= 1

    asyncio.run(scenario())


def test_processes_find_each_other_on_loopback_and_a_goodbye_withdraws_the_hint() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        async with (
            open_mesh(fleet.device("a"), MDNS) as one,
            await Child.start(fleet.device("b"), mdns=True) as child,
        ):
            await one.events.until(lambda: child.id in one.events.links)
            assert status_of(one).peers_heard == {"lo": 1}
            await child.leave()
            await one.events.until(lambda: status_of(one).peers_heard == {"lo": 0})
            assert one.transport._peers[child.id].addresses == []
            assert one.events.unreachable == []

    asyncio.run(scenario())


@asynccontextmanager
async def announced(
    addresses: Sequence[str], properties: dict[str, str], *, label: str = "spoof", port: int = 9
) -> AsyncIterator[None]:
    """Somebody on loopback who announces whatever he likes."""
    packed = [socket.inet_pton(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip) for ip in addresses]
    zeroconf = AsyncZeroconf(interfaces=["127.0.0.1"], ip_version=IPVersion.V4Only)
    info = ServiceInfo(
        SERVICE, f"{label}.{SERVICE}", port=port, addresses=packed, properties=properties, server=f"{label}.local."
    )
    await zeroconf.async_register_service(info, cooperating_responders=True)
    try:
        yield
    finally:
        await zeroconf.async_close()


def txt(fleet: TestFleet, node_id: str, version: str = "1") -> dict[str, str]:
    """The TXT record of a member."""
    return {"v": version, "f": fleet.trust.fleet_id[:16], "id": node_id}


def test_mdns_third_party_addresses_outside_our_networks_are_never_dialled() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        victim = fleet.device("victim").node_id
        async with open_mesh(fleet.device("a"), MDNS) as one:
            # a public server, a multicast group, an address of another network, an unspecified one
            others = ["203.0.113.7", "224.0.0.251", "10.1.2.3", "2001:db8::1", "::"]
            async with announced([*others, "127.0.0.1"], txt(fleet, victim)):
                await one.events.until(lambda: victim in one.transport._peers)
                await one.events.until(lambda: bool(one.transport.attempts()))
                assert {address.host for address in one.transport._peers[victim].addresses} == {"127.0.0.1"}
                assert {attempt.address for attempt in one.transport.attempts()} == {"127.0.0.1:9"}
                assert status_of(one).foreign_addresses >= len(others)

    asyncio.run(scenario())


def test_mdns_record_that_names_a_member_leads_to_no_link_with_somebody_else() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        victim = fleet.device("victim").node_id
        async with (
            open_mesh(fleet.device("a"), MDNS) as one,
            open_mesh(fleet.device("liar")) as liar,
            announced(["127.0.0.1"], txt(fleet, victim), port=liar.transport.listen_port),
        ):
            await one.events.until(
                lambda: any(a.outcome == "other_peer" and a.peer == victim for a in one.transport.attempts())
            )
            assert one.events.opened == liar.events.opened == []

    asyncio.run(scenario())


def test_other_fleets_and_versions_and_copies_are_counted_and_not_dialled() -> None:
    async def scenario() -> None:
        fleet, other = TestFleet(), TestFleet()
        own = fleet.device("a")
        async with (
            open_mesh(own, MDNS) as one,
            announced(["127.0.0.1"], txt(other, other.device("x").node_id), label="other"),
            announced(["127.0.0.1"], txt(fleet, fleet.device("y").node_id, "99"), label="newer"),
            announced(["127.0.0.1"], txt(fleet, own.node_id), label="copy"),
            announced(["127.0.0.1"], txt(fleet, "not-an-id"), label="broken"),
        ):
            await one.events.until(
                lambda: (
                    bool(status_of(one).own_id_elsewhere)
                    and bool(status_of(one).other_versions)
                    and bool(status_of(one).other_fleets)
                    and bool(status_of(one).malformed)
                )
            )
            status = status_of(one)
            assert status.other_fleets == {other.trust.fleet_id[:16]: 1}
            assert status.own_id_elsewhere == ("127.0.0.1",)
            assert one.transport._peers == {}

    asyncio.run(scenario())


def test_multicast_check_hears_its_own_echo_and_the_nodes_on_loopback() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        [loopback] = chosen_interfaces(("lo",))
        async with open_mesh(fleet.device("a"), MDNS):
            [hearing] = await hear_multicast([loopback], within_s=1.0)
            assert hearing.own_echo
            assert hearing.sent == 2
            assert hearing.problem == ""

    asyncio.run(scenario())


def test_multicast_check_between_hosts_names_the_other_one_and_no_more_once_the_cable_is_pulled() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        with bridged_hosts(2) as hosts:
            listen = (sys.executable, "-m", "tests.support.multicast_child", "eth0")
            async with await Child.start(fleet.device("a"), prefix=hosts[0].prefix, mdns=True, interfaces=[]):
                heard = json.loads(await asyncio.to_thread(hosts[1].run, *listen))
                assert heard["own_echo"]
                assert hosts[0].ipv4 in heard["others"]
                hosts[0].cut()
                filtered = json.loads(await asyncio.to_thread(hosts[1].run, *listen))
                assert filtered["own_echo"]
                assert filtered["others"] == []

    asyncio.run(scenario())


def test_hosts_on_a_bridge_find_each_other_and_survive_a_pulled_cable() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        with bridged_hosts(2) as hosts:
            settings = {"mdns": True, "interfaces": [], "keepalive_s": 0.5, "keepalive_timeout_s": 0.3}
            async with (
                await Child.start(fleet.device("a"), prefix=hosts[0].prefix, **settings) as a,
                await Child.start(fleet.device("b"), prefix=hosts[1].prefix, **settings) as b,
            ):
                assert (await a.until("opened"))["peer"] == b.id
                assert (await b.until("opened"))["peer"] == a.id
                hosts[0].cut()
                lost = await a.until("unreachable")
                assert (lost["peer"], lost["why"]) == (b.id, "silent")
                await b.until("unreachable")
                hosts[0].mend()
                await a.until("opened")
                await b.until("opened")
                await a.leave()
                assert (await b.until("closed"))["why"] == "goodbye"

    asyncio.run(scenario())


def test_hosts_with_nothing_but_ipv6_link_local_addresses_find_each_other() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        with bridged_hosts(2, ipv4=False, ipv6=False) as hosts:
            settings = {"mdns": True, "interfaces": ["eth0"]}
            async with (
                await Child.start(fleet.device("a"), prefix=hosts[0].prefix, **settings) as a,
                await Child.start(fleet.device("b"), prefix=hosts[1].prefix, **settings) as b,
            ):
                opened = await a.until("opened")
                assert opened["peer"] == b.id
                assert "fe80::" in opened["address"]
                await b.until("opened")

    asyncio.run(scenario())
