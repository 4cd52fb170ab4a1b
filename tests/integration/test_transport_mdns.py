"""Finding peers by real multicast: on loopback, between processes, between hosts on a bridge, and against spoofers."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zeroconf import DNSOutgoing, InterfacesType, IPVersion, ServiceInfo  # type: ignore[attr-defined]
from zeroconf.asyncio import AsyncZeroconf

from meshagent.core.ports import HintSource
from meshagent.identity.keys import DeviceKey
from meshagent.transport.config import MAX_ADDRESSES_PER_PEER, MAX_PEERS
from meshagent.transport.interfaces import chosen_interfaces
from meshagent.transport.mdns import SERVICE, Mdns, MdnsStatus
from meshagent.transport.multicast import hear_multicast
from meshagent.types import NodeId
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
            # one of them may be linked before it has heard the other: that one heard it and dialled first
            await one.events.until(lambda: all(status_of(node).peers_heard == {"lo": 1} for node in (one, two)))

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
            # the announcement was withdrawn: nobody is dialled on hearsay that is not said any more
            await one.events.until(lambda: one.transport._peers[victim].addresses == [])

    asyncio.run(scenario())


def test_flood_of_forged_addresses_hurries_no_dial() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        victim = fleet.device("victim").node_id
        async with open_mesh(fleet.device("a")) as one:
            one.transport.found(victim, "127.0.0.1", 9, HintSource.MDNS)
            state = one.transport._peers[victim]
            far_s = asyncio.get_running_loop().time() + 1000.0
            state.not_before_s = far_s
            for port in range(10, 200):
                one.transport.found(victim, "127.0.0.1", port, HintSource.MDNS)
            assert state.not_before_s == far_s
            assert len(state.addresses) <= MAX_ADDRESSES_PER_PEER
            # what a person types is worth hurrying
            one.transport.found(victim, "127.0.0.1", 8, HintSource.STATIC)
            assert state.not_before_s < far_s

    asyncio.run(scenario())


def test_flood_of_forged_members_is_bounded_and_leaves_the_linked_ones_alone() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        async with open_mesh(fleet.device("a")) as one, open_mesh(fleet.device("b")) as two:
            one.hint(two)
            await one.events.until(lambda: one.linked(two))
            for _ in range(MAX_PEERS + 50):
                one.transport.found(DeviceKey.generate().node_id, "127.0.0.1", 9, HintSource.MDNS)
            assert len(one.transport._peers) <= MAX_PEERS
            assert one.transport._peers[two.id].link is not None
            two.events.echo = True
            one.events.links[two.id].send(b"\x0aframe")
            await one.events.until(lambda: (two.id, b"\x0aframe") in one.events.frames)

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
            assert status.other_fleets[other.trust.fleet_id[:16]] == 1
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


def test_host_that_starts_before_its_cable_is_in_is_found_when_it_is() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        with bridged_hosts(2, ipv4=False, ipv6=False) as hosts:
            hosts[1].run("ip", "link", "set", "eth0", "down")
            settings = {"mdns": True, "interfaces": [], "rescan_s": 0.2}
            async with (
                await Child.start(fleet.device("a"), prefix=hosts[0].prefix, **settings) as a,
                await Child.start(fleet.device("b"), prefix=hosts[1].prefix, **settings) as b,
            ):
                hosts[1].run("ip", "link", "set", "eth0", "up")
                hosts[1].run("ip", "addr", "add", "10.77.0.2/24", "dev", "eth0")
                hosts[0].run("ip", "addr", "add", "10.77.0.1/24", "dev", "eth0")
                assert (await a.until("opened"))["peer"] == b.id
                await b.until("opened")

    asyncio.run(scenario())


def test_hosts_without_ipv6_find_each_other() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        with bridged_hosts(2, ipv6=False) as hosts:
            for host in hosts:
                host.run("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6")
            settings = {"mdns": True, "interfaces": []}
            async with (
                await Child.start(fleet.device("a"), prefix=hosts[0].prefix, **settings) as a,
                await Child.start(fleet.device("b"), prefix=hosts[1].prefix, **settings) as b,
            ):
                assert (await a.until("opened"))["peer"] == b.id
                await b.until("opened")

    asyncio.run(scenario())


def test_two_nodes_find_each_other_on_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def scenario() -> None:
        fleet = TestFleet()
        async with open_mesh(fleet.device("a"), MDNS) as one, open_mesh(fleet.device("b"), MDNS) as two:
            await one.events.until(lambda: one.linked(two) and two.linked(one))

    uvloop.run(scenario())


def test_malformed_multicast_packets_stop_nobody_from_being_found() -> None:
    async def scenario() -> None:
        fleet, rng = TestFleet(), Random(0x5EED)
        honest = ServiceInfo(
            SERVICE,
            f"honest.{SERVICE}",
            port=9,
            addresses=[socket.inet_aton("127.0.0.1")],
            properties=txt(fleet, fleet.device("x").node_id),
            server="honest.local.",
        )
        out = DNSOutgoing(0x8400)
        for record in (honest.dns_pointer(), honest.dns_service(), honest.dns_text(), *honest.dns_addresses()):
            out.add_answer_at_time(record, 0)
        [packet] = out.packets()
        raised: list[object] = []  # what a packet raises ends in the loop's handler and nowhere else
        asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
        async with open_mesh(fleet.device("a"), MDNS) as one:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
                # a name that zeroconf parses and then refuses to speak of; first, because the flood may fill the socket
                sender.sendto(packet.replace(b"\x06honest", b"\x06ho\x01est"), ("224.0.0.251", 5353))
                for _ in range(1500):
                    sender.sendto(mutated(packet, rng), ("224.0.0.251", 5353))
                    if rng.random() < 0.02:
                        await asyncio.sleep(0)
            assert len(one.transport._peers) <= MAX_PEERS
            async with open_mesh(fleet.device("b"), MDNS) as two:
                await one.events.until(lambda: one.linked(two) and two.linked(one))
            assert not raised

    asyncio.run(scenario())


def mutated(packet: bytes, rng: Random) -> bytes:
    """`packet` with a few bytes changed, cut out, doubled or appended."""
    data = bytearray(packet)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(data))
        match rng.randrange(4):
            case 0:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                del data[at : at + rng.randint(1, 8)]
            case 2:
                data[at:at] = data[at : at + rng.randint(1, 40)]
            case _:
                data += rng.randbytes(rng.randint(1, 20))
        if not data:
            return b""
    return bytes(data)


@given(
    st.dictionaries(st.binary(max_size=20), st.one_of(st.none(), st.binary(max_size=80)), max_size=6),
    st.lists(st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16), max_size=6),
    st.integers(0, 65535),
)
def test_any_txt_record_is_understood_or_counted_and_never_raises(
    properties: dict[bytes, bytes | None], addresses: list[bytes], port: int
) -> None:
    found: list[NodeId] = []
    mdns = Mdns(
        node_id=NodeId("a" * 52),
        fleet_id="b" * 52,
        interfaces=("lo",),
        browse_s=lambda: 1.0,
        rescan_s=1.0,
        rng=Random(1),
        found=lambda peer, ip, port: found.append(peer),
        lost=found.append,
        twin=lambda ip, port: None,
    )
    for record in (properties, {b"f": b"b" * 16, b"id": properties.get(b"id")}, {b"f": b"b" * 16, b"v": b"1"}):
        info = ServiceInfo(SERVICE, f"x.{SERVICE}", port=port, addresses=addresses, properties=record)
        mdns._understand(info)
    mdns.withdrawn(f"x.{SERVICE}")
    assert found == []


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


def test_kernel_without_ipv6_leaves_mdns_on_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[IPVersion] = []

    class Zeroconf4(AsyncZeroconf):
        def __init__(self, interfaces: InterfacesType, ip_version: IPVersion) -> None:
            made.append(ip_version)
            if ip_version is IPVersion.All:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(interfaces=interfaces, ip_version=ip_version)

    monkeypatch.setattr("meshagent.transport.mdns.AsyncZeroconf", Zeroconf4)

    async def scenario() -> None:
        fleet = TestFleet()
        async with open_mesh(fleet.device("a"), MDNS) as one, open_mesh(fleet.device("b"), MDNS) as two:
            await one.events.until(lambda: one.linked(two) and two.linked(one))

    asyncio.run(scenario())
    assert made == [IPVersion.All, IPVersion.V4Only] * 2


def test_node_without_any_multicast_socket_still_links_by_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EADDRINUSE, "Address already in use")

    monkeypatch.setattr("meshagent.transport.mdns.AsyncZeroconf", refuse)

    async def scenario() -> None:
        fleet = TestFleet()
        async with open_mesh(fleet.device("a"), MDNS) as one, open_mesh(fleet.device("b"), MDNS) as two:
            assert one.transport.mdns_status() is None
            assert "in use" in (one.transport.mdns_error or "")
            one.hint(two)
            await one.events.until(lambda: one.linked(two))

    asyncio.run(scenario())
