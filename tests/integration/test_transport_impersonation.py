"""The 18 ways in which a member could pose as another one, against a real gRPC server and our own client and server.

The same shapes pass where the fleet's root leaves out constraints (11 with none, 6 with DNS names alone), which shows
that the constraints decide and that these tests can fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from meshagent.core.ports import HintSource
from meshagent.transport.dialler import META_INSTANCE, METHOD, DialFailedError, Stream
from meshagent.transport.interfaces import grpc_target
from meshagent.transport.peers import Address
from meshagent.transport.tls import channel_options
from meshagent.types import NodeId
from tests.support.forgery import SHAPES, Constraints, Forged, Forger, Shape
from tests.support.meshes import Mesh, TestFleet, open_mesh, quick

pytestmark = pytest.mark.network


@asynccontextmanager
async def forged_server(fleet: TestFleet, forged: Forged) -> AsyncIterator[int]:
    """A gRPC server that shows a forged leaf and takes every stream; yields its port."""

    async def exchange(_requests: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await context.send_initial_metadata(((META_INSTANCE, "forged"),))
        await context.read()

    class Handler(grpc.GenericRpcHandler):
        def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
            handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(exchange)
            return handler

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((Handler(),))
    credentials = grpc.ssl_server_credentials(
        [(forged.key_pem, forged.chain_pem)], root_certificates=fleet.trust.root_pem, require_client_auth=True
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


async def is_taken_for(client: Mesh, fleet: TestFleet, forged: Forged, victim: NodeId) -> bool:
    """Does our client believe that this server is `victim`?"""
    async with forged_server(fleet, forged) as port:
        address = Address("127.0.0.1", port, HintSource.MDNS)
        try:
            stream = await client.transport._dialler.open(victim, address, "127.0.0.1")
        except DialFailedError:
            return False
        await stream.channel.close()
        return True


@pytest.mark.parametrize("constraints", list(Constraints), ids=lambda constraints: constraints.name.lower())
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.label)
def test_server_of_shape_is_not_taken_for_the_victim_where_both_constraints_stand(
    shape: Shape, constraints: Constraints
) -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        victim = fleet.device("victim").node_id
        forger = Forger(fleet, constraints)
        async with open_mesh(fleet.device("client")) as client:
            taken = await is_taken_for(client, fleet, forger.leaf(shape, victim), victim)
        assert taken is (constraints in shape.passes)
        if constraints is Constraints.BOTH:
            assert not taken

    asyncio.run(scenario())


def test_forger_is_taken_for_itself_so_that_its_server_works_at_all() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        forger = Forger(fleet, Constraints.BOTH)
        async with open_mesh(fleet.device("client")) as client:
            assert await is_taken_for(client, fleet, forger.honest_leaf(), forger.node_id)

    asyncio.run(scenario())


def test_shapes_pass_as_often_as_was_measured_without_the_second_constraint() -> None:
    passing = {kind: sum(kind in shape.passes for shape in SHAPES) for kind in Constraints}
    assert len(SHAPES) == 18
    assert passing == {Constraints.NONE: 11, Constraints.DNS_ONLY: 6, Constraints.BOTH: 0}


async def link_opens(server: Mesh, fleet: TestFleet, chain_pem: bytes, key_pem: bytes) -> bool:
    """Does our server open a link to a client that shows this chain?"""
    credentials = grpc.ssl_channel_credentials(fleet.trust.root_pem, key_pem, chain_pem)
    target = grpc_target("127.0.0.1", server.transport.listen_port)
    async with grpc.aio.secure_channel(target, credentials, options=channel_options(quick(), server.id)) as channel:
        call: Stream = channel.stream_stream(METHOD)(metadata=((META_INSTANCE, "forged"),))
        answer = await call.initial_metadata()
        call.cancel()
        return answer is not None and answer.get(META_INSTANCE) is not None


@pytest.mark.parametrize("constraints", list(Constraints), ids=lambda constraints: constraints.name.lower())
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.label)
def test_client_of_shape_gets_no_link_whatever_the_constraints(shape: Shape, constraints: Constraints) -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        victim = fleet.device("victim")
        forged = Forger(fleet, constraints).leaf(shape, victim.node_id)
        async with open_mesh(fleet.device("server")) as server:
            assert not await link_opens(server, fleet, forged.chain_pem, forged.key_pem)
            assert server.events.opened == []

    asyncio.run(scenario())


def test_honest_client_gets_its_link() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        client = fleet.device("client")
        async with open_mesh(fleet.device("server")) as server:
            leaf = client.issue_leaf(client.credential.issued_at_s + 1)
            assert await link_opens(server, fleet, leaf.chain_pem, leaf.key_pem)
            assert server.events.opened == [client.node_id]

    asyncio.run(scenario())


def test_leaf_of_one_member_under_the_certificate_of_another_gets_no_link() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        attacker, victim = fleet.device("attacker"), fleet.device("victim")
        now_s = attacker.credential.issued_at_s + 1
        own, other = attacker.issue_leaf(now_s), victim.issue_leaf(now_s)
        _, own_ca = _split(own.chain_pem)
        own_leaf, _ = _split(own.chain_pem)
        _, victim_ca = _split(other.chain_pem)
        async with open_mesh(fleet.device("server")) as server:
            for chain in (own_leaf + victim_ca + own_ca, own_leaf + own_ca + victim_ca, own_leaf + victim_ca):
                assert not await link_opens(server, fleet, chain, own.key_pem)
            assert server.events.opened == []

    asyncio.run(scenario())


def _split(chain_pem: bytes) -> tuple[bytes, bytes]:
    end = b"-----END CERTIFICATE-----\n"
    first, second, _ = chain_pem.split(end)
    return first + end, second + end
