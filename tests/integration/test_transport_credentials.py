"""Who is let in and who is not, with real certificates over real TLS; and what the refused side is told."""

from __future__ import annotations

import asyncio
import socket
import ssl
from time import perf_counter
from time import time as wall_s  # noqa: TID251  # TLS compares with the real clock too
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # the only place that has it
from grpc_health.v1 import health_pb2

from meshagent.core.ports import HintSource, LinkClosed, PeerHint
from meshagent.identity.keys import DeviceKey
from meshagent.transport.attempts import DialAttempt, DialOutcome
from meshagent.transport.dialler import META_INSTANCE, META_PORT, METHOD, Stream
from meshagent.transport.interfaces import grpc_target
from meshagent.transport.probe import _chain_of, _context
from meshagent.transport.tls import LeafKeeper, channel_options
from tests.support.meshes import YEAR_S, Mesh, TestFleet, open_mesh, quick
from tests.support.transport_child import Child

pytestmark = pytest.mark.network

DAY_S = 24 * 3600.0


async def attempt_at(node: Mesh, other: Mesh, outcome: DialOutcome) -> DialAttempt:
    """What `node` remembers of dialling `other`, as soon as it is that outcome."""
    address = f"127.0.0.1:{other.transport.listen_port}"

    def found() -> list[DialAttempt]:
        return [a for a in node.transport.attempts() if a.address == address and a.outcome is outcome]

    try:
        await node.events.until(lambda: bool(found()))
    except TimeoutError:
        raise AssertionError(f"no {outcome} among {node.transport.attempts()}") from None
    return found()[0]


def test_member_of_another_fleet_gets_no_link_and_both_fleets_are_named() -> None:
    async def scenario() -> None:
        north, south = TestFleet("north"), TestFleet("south")
        async with open_mesh(north.device("a")) as one, open_mesh(south.device("b")) as two:
            one.hint(two)
            attempt = await attempt_at(one, two, DialOutcome.OTHER_FLEET)
            assert attempt.fleet == south.trust.fleet_id
            assert south.trust.fleet_id[:8] in attempt.sentence
            assert north.trust.fleet_id[:8] in attempt.sentence
            # and where the id is known, so that gRPC dials without asking first
            one.transport.forget(two.id)
            one.transport._forgotten.clear()
            one.hint(two, known=True)
            await attempt_at(one, two, DialOutcome.OTHER_FLEET)
            assert one.events.opened == two.events.opened == []

    asyncio.run(scenario())


def test_expired_member_is_refused_and_told_by_its_own_clock_why() -> None:
    async def scenario() -> None:
        fleet = TestFleet(issued_s=wall_s() - 20 * DAY_S)
        # issued in a past that this device still believes in when it makes its leaf
        expired = fleet.device("b", issued_s=wall_s() - 10 * DAY_S, lifetime_s=8 * DAY_S)
        past = {"now": wall_s() - 3 * DAY_S}
        async with (
            open_mesh(fleet.device("a")) as one,
            open_mesh(expired, wall=lambda: past["now"]) as two,
        ):
            two.transport._leaves.current()
            past["now"] = wall_s()
            two.transport._leaves._wall_s = lambda: wall_s() - 3 * DAY_S  # its leaf stays
            two.hint(one)
            attempt = await attempt_at(two, one, DialOutcome.OUR_CREDENTIAL)
            assert "your credential expired 2 days ago" in attempt.sentence
            assert attempt.next_step == "where the fleet's key is: meshagent fleet renew b"
            one.hint(two)
            theirs = await attempt_at(one, two, DialOutcome.THEIR_CREDENTIAL)
            assert "the credential of b expired" in theirs.sentence
            assert one.events.opened == two.events.opened == []

    asyncio.run(scenario())


def test_clock_back_to_the_date_of_its_image_a_device_still_links_by_the_time_its_root_signed() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        async with (
            open_mesh(fleet.device("a")) as one,
            open_mesh(fleet.device("b"), wall=lambda: wall_s() - 3 * YEAR_S) as two,
        ):
            two.hint(one)
            await one.events.until(lambda: one.linked(two))

    asyncio.run(scenario())


def test_revoked_server_is_not_dialled_although_its_certificate_still_holds() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        async with open_mesh(fleet.device("a")) as one, open_mesh(fleet.device("b")) as two:
            one.book.merge_revocations(fleet.revoke(two.identity), now_s=wall_s())
            one.hint(two, known=True)
            attempt = await attempt_at(one, two, DialOutcome.REVOKED)
            assert "revoked" in attempt.sentence
            assert one.events.opened == two.events.opened == []

    asyncio.run(scenario())


def test_revoked_server_behind_a_seed_is_not_dialled() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        async with open_mesh(fleet.device("a")) as one, open_mesh(fleet.device("b")) as two:
            one.book.merge_revocations(fleet.revoke(two.identity), now_s=wall_s())
            one.hint(two)
            await attempt_at(one, two, DialOutcome.REVOKED)
            assert one.events.opened == two.events.opened == []

    asyncio.run(scenario())


def test_revoked_client_gets_no_link() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        async with open_mesh(fleet.device("a")) as one, open_mesh(fleet.device("b")) as two:
            one.book.merge_revocations(fleet.revoke(two.identity), now_s=wall_s())
            two.hint(one, known=True)
            await two.events.until(lambda: one.transport.refusals["certificate revoked"] > 0)
            await attempt_at(two, one, DialOutcome.REFUSED_US)
            assert one.events.opened == two.events.opened == []

    asyncio.run(scenario())


def test_server_admitted_anew_after_its_revocation_is_dialled() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        key = DeviceKey.generate()
        async with (
            open_mesh(fleet.device("a")) as one,
            open_mesh(fleet.device("b", key=key, generation=2)) as two,
        ):
            one.book.merge_revocations(fleet.revoke(fleet.device("b", key=key)), now_s=wall_s())
            one.hint(two, known=True)
            await one.events.until(lambda: one.linked(two))

    asyncio.run(scenario())


def test_old_ca_beside_new_is_refused_once_the_new_one_was_seen() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        key = DeviceKey.generate()
        async with open_mesh(fleet.device("a")) as one:
            async with open_mesh(fleet.device("b", key=key, generation=2)) as new:
                new.hint(one)
                await one.events.until(lambda: one.linked(new))
            async with open_mesh(fleet.device("b", key=key, generation=1)) as old:
                old.hint(one, known=True)
                await old.events.until(lambda: one.transport.refusals["certificate superseded"] > 0)
                assert old.events.opened == []

    asyncio.run(scenario())


def test_ticket_after_expiry_or_before_resumes_no_session() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        client = fleet.device("client")
        leaf = client.issue_leaf(wall_s())
        cache = cygrpc.SSLSessionCacheLRU(4)
        async with open_mesh(fleet.device("server")) as server:
            target = grpc_target("127.0.0.1", server.transport.listen_port)
            # the dialler's options but for a cache of tickets, which our own client does not have
            options = [*channel_options(quick(), server.id), ("grpc.ssl_session_cache", cache)]
            accepted = []
            for _ in range(3):
                credentials = grpc.ssl_channel_credentials(fleet.trust.root_pem, leaf.key_pem, leaf.chain_pem)
                async with grpc.aio.secure_channel(target, credentials, options=options) as channel:
                    call: Stream = channel.stream_stream(METHOD)(metadata=((META_INSTANCE, "client"),))
                    answer = await call.initial_metadata()
                    accepted.append(answer is not None and answer.get(META_INSTANCE) is not None)
                    call.cancel()
            assert accepted[0]
            assert server.transport.refusals["resumed session"] == accepted.count(False) > 0

    asyncio.run(scenario())


def test_downgrade_to_an_older_tls_is_refused() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        leaf = LeafKeeper(fleet.device("client"), wall_s).current()
        # a process of its own: gRPC reads its list of ciphers once, and here it may have been loaded by another test
        async with await Child.start(fleet.device("server")) as server:

            async def greeted(version: ssl.TLSVersion) -> str | None:
                context = _context(leaf)
                context.minimum_version = context.maximum_version = version
                _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
                spoken: str | None = writer.get_extra_info("ssl_object").version()
                writer.transport.abort()
                return spoken

            assert await greeted(ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await greeted(ssl.TLSVersion.TLSv1_2)

    asyncio.run(scenario())


def test_leaf_rotates_while_a_link_lives() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        async with (
            open_mesh(fleet.device("a")) as one,
            open_mesh(fleet.device("b")) as two,
            open_mesh(fleet.device("c")) as three,
        ):
            two.events.echo = True
            one.hint(two)
            await one.events.until(lambda: one.linked(two))
            before = two.transport._leaves.current()
            probe_before = await one.transport.probe("127.0.0.1", two.transport.listen_port)
            assert probe_before.outcome is DialOutcome.LINKED
            two.transport.rotate_leaf()
            assert two.transport._leaves.current().chain_pem != before.chain_pem
            three.hint(two)
            await three.events.until(lambda: three.linked(two))
            link = one.events.links[two.id]
            link.send(b"\x0aold link")
            await one.events.until(lambda: one.events.frames == [(two.id, b"\x0aold link")])
            assert one.events.closed == []

    asyncio.run(scenario())


def test_server_shows_the_new_leaf_on_every_address_it_listens_on() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        async with open_mesh(fleet.device("a")) as one, open_mesh(fleet.device("b")) as two:
            shown = {}
            for round_ in range(2):
                for ip in ("127.0.0.1", "::1"):
                    shown[round_, ip] = await _leaf_shown(ip, two.transport.listen_port, one.transport._leaves)
                two.transport.rotate_leaf()
            assert shown[0, "127.0.0.1"] == shown[0, "::1"]
            assert shown[1, "127.0.0.1"] == shown[1, "::1"] != shown[0, "::1"]

    asyncio.run(scenario())


async def _leaf_shown(ip: str, port: int, leaves: LeafKeeper) -> bytes:
    _, writer = await asyncio.open_connection(ip, port, ssl=_context(leaves.current()))
    leaf = _chain_of(writer)[0]
    writer.transport.abort()
    return leaf


def test_silent_tcp_is_dropped_after_the_handshake_timeout() -> None:
    async def scenario() -> None:
        async with open_mesh(TestFleet().device("a"), quick(handshake_timeout_s=0.5)) as one:
            begun = perf_counter()
            reader, writer = await asyncio.open_connection("127.0.0.1", one.transport.listen_port)
            async with asyncio.timeout(5):
                while await reader.read(100):
                    continue  # HTTP/2 has nothing to say before TLS; whatever comes is not an answer
            assert perf_counter() - begun < 3.0
            writer.close()

    asyncio.run(scenario())


def test_seed_that_is_no_node_is_said_to_be_something_else() -> None:
    async def scenario() -> None:
        async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 mail.example.org ESMTP\r\n" * 4)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(babble, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with open_mesh(TestFleet().device("a")) as one:
            one.transport.add_hint(PeerHint(host="127.0.0.1", port=port, source=HintSource.STATIC))
            await one.events.until(lambda: bool(one.transport.attempts()))
            attempt = one.transport.attempts()[0]
            assert attempt.outcome is DialOutcome.NOT_TLS
            assert "no meshagent node" in attempt.sentence
        server.close()

    asyncio.run(scenario())


def test_seed_where_nobody_listens_refuses_connections_and_a_name_without_address_is_said() -> None:
    async def scenario() -> None:
        with socket.socket() as held:  # bound and not listening: the kernel refuses
            held.bind(("127.0.0.1", 0))
            port = held.getsockname()[1]
            async with open_mesh(TestFleet().device("a")) as one:
                for host in ("127.0.0.1", "no-such-host.invalid"):
                    one.transport.add_hint(PeerHint(host=host, port=port, source=HintSource.STATIC))
                await one.events.until(lambda: len(one.transport.attempts()) == 2)
                outcomes = {a.address.rpartition(":")[0]: a.outcome for a in one.transport.attempts()}
                assert outcomes == {
                    "127.0.0.1": DialOutcome.CONNECTION_REFUSED,
                    "no-such-host.invalid": DialOutcome.UNRESOLVED,
                }

    asyncio.run(scenario())


def test_health_service_answers_members_and_nobody_else() -> None:
    async def scenario() -> None:
        fleet, other = TestFleet(), TestFleet()
        async with open_mesh(fleet.device("a")) as one:
            for asker, root, expected in (
                (fleet.device("member"), fleet, "SERVING"),
                (other.device("stranger"), fleet, "UNAVAILABLE"),
            ):
                leaf = asker.issue_leaf(wall_s())
                credentials = grpc.ssl_channel_credentials(root.trust.root_pem, leaf.key_pem, leaf.chain_pem)
                target = grpc_target("127.0.0.1", one.transport.listen_port)
                options = channel_options(quick(), one.id)
                async with grpc.aio.secure_channel(target, credentials, options=options) as channel:
                    check = channel.unary_unary(
                        "/grpc.health.v1.Health/Check",
                        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                        response_deserializer=health_pb2.HealthCheckResponse.FromString,
                    )
                    try:
                        answer = await check(health_pb2.HealthCheckRequest(), timeout=5)
                        got = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
                    except grpc.aio.AioRpcError as error:
                        got = error.code().name
                    assert got == expected

    asyncio.run(scenario())


async def statuses(call: Any) -> list[str]:
    """The next status that a health watch tells, by name; nothing at its end."""
    answer = await call.read()
    if answer is grpc.aio.EOF:
        return []
    return [health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)]


def test_health_watch_tells_that_the_node_leaves_and_knows_no_made_up_service() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        leaf = fleet.device("member").issue_leaf(wall_s())
        told: list[str] = []
        async with open_mesh(fleet.device("a")) as one:
            credentials = grpc.ssl_channel_credentials(fleet.trust.root_pem, leaf.key_pem, leaf.chain_pem)
            target, options = grpc_target("127.0.0.1", one.transport.listen_port), channel_options(quick(), one.id)
            channel = grpc.aio.secure_channel(target, credentials, options=options)
            watch = channel.unary_stream(
                "/grpc.health.v1.Health/Watch",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            made_up = watch(health_pb2.HealthCheckRequest(service="made.up"), timeout=5)
            assert await statuses(made_up) == ["SERVICE_UNKNOWN"]
            call = watch(health_pb2.HealthCheckRequest(service="meshagent.wire.v1.Link"), timeout=10)
            told += await statuses(call)
            # asked before the end: what lies unread when the server cuts a stream is lost
            last = asyncio.ensure_future(statuses(call))
            await asyncio.sleep(0)
        told += await last
        await channel.close()
        assert told == ["SERVING", "NOT_SERVING"]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        ((META_INSTANCE, ""),),
        ((META_INSTANCE, "x" * 3000),),
        ((META_PORT, "9" * 3000),),
        ((META_PORT, "-1"), (META_INSTANCE, "i")),
        ((META_PORT, "65536"),),
        ((META_PORT, " 80"),),
        (("meshagent-port-bin", b"\xff\x00"),),
        ((META_PORT, "1"), (META_PORT, "2"), (META_INSTANCE, "a"), (META_INSTANCE, "b")),
    ],
)
def test_member_may_say_anything_in_metadata_and_harms_nobody(metadata: tuple[tuple[str, str | bytes], ...]) -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        member = fleet.device("member")
        leaf = member.issue_leaf(wall_s())
        async with open_mesh(fleet.device("a")) as one, open_mesh(fleet.device("b")) as two:
            credentials = grpc.ssl_channel_credentials(fleet.trust.root_pem, leaf.key_pem, leaf.chain_pem)
            target = grpc_target("127.0.0.1", one.transport.listen_port)
            async with grpc.aio.secure_channel(
                target, credentials, options=channel_options(quick(), one.id)
            ) as channel:
                call: Stream = channel.stream_stream(METHOD)(metadata=metadata)
                await call.initial_metadata()
                await one.events.until(lambda: member.node_id in one.events.opened)
                for address in one.transport._peers[member.node_id].addresses:
                    assert 0 < address.port < 65536
                call.cancel()
                await one.events.until(lambda: (member.node_id, LinkClosed.RESET) in one.events.closed)
            one.hint(two)
            await one.events.until(lambda: one.linked(two))

    asyncio.run(scenario())


def test_oversized_message_ends_its_stream_and_harms_nobody_else() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        member = fleet.device("member")
        leaf = member.issue_leaf(wall_s())
        async with open_mesh(fleet.device("a")) as one, open_mesh(fleet.device("b")) as two:
            one.hint(two)
            await one.events.until(lambda: one.linked(two))
            credentials = grpc.ssl_channel_credentials(fleet.trust.root_pem, leaf.key_pem, leaf.chain_pem)
            target = grpc_target("127.0.0.1", one.transport.listen_port)
            limits = ("grpc.max_send_message_length", "grpc.max_receive_message_length")
            options = [option for option in channel_options(quick(), one.id) if option[0] not in limits]
            options.append(("grpc.max_send_message_length", 1 << 24))
            async with grpc.aio.secure_channel(target, credentials, options=options) as channel:
                call: Stream = channel.stream_stream(METHOD)(metadata=((META_INSTANCE, "big"),))
                await call.initial_metadata()
                await one.events.until(lambda: member.node_id in one.events.links)
                await call.write(b"\x0a" * 1_000_000)
                await one.events.until(lambda: (member.node_id, LinkClosed.RESET) in one.events.closed)
                call.cancel()
            assert all(len(frame) <= 262144 for _, frame in one.events.frames)
            assert one.linked(two)

    asyncio.run(scenario())
