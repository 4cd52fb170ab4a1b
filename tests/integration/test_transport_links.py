"""Links between real transports on loopback: made, settled, renewed, lost, told."""

from __future__ import annotations

import asyncio
import signal
import socket
from time import perf_counter

import pytest

from meshagent.core.ports import HintSource, LinkClosed, PeerHint
from meshagent.errors import LocalProtocolError, TransportError
from meshagent.identity.keys import DeviceKey
from meshagent.transport.attempts import DialOutcome
from meshagent.transport.config import MAX_FRAME_BYTES, MAX_QUEUED_FRAMES
from tests.support.meshes import Mesh, TestFleet, open_mesh, quick
from tests.support.transport_child import Child

pytestmark = pytest.mark.network

FRAME = b"\x0aframe"


async def linked(one: Mesh, two: Mesh) -> None:
    """Return when both have the link."""
    await one.events.until(lambda: one.linked(two) and two.linked(one))


def test_two_nodes_link_by_a_static_seed_and_carry_frames_both_ways() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        async with open_mesh(fleet.device("a")) as one, open_mesh(fleet.device("b")) as two:
            two.events.echo = True
            one.hint(two)
            await linked(one, two)
            one.events.links[two.id].send(FRAME)
            await one.events.until(lambda: one.events.frames == [(two.id, FRAME)])
            assert two.events.frames == [(one.id, FRAME)]

    asyncio.run(scenario())


def test_hint_given_before_the_start_is_dialled_after_it() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        async with open_mesh(fleet.device("b")) as two:
            hint = PeerHint(host="127.0.0.1", port=two.transport.listen_port, source=HintSource.REMEMBERED, peer=two.id)
            async with open_mesh(fleet.device("a"), hints=(hint,)) as one:
                await linked(one, two)

    asyncio.run(scenario())


def test_link_works_on_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def scenario() -> None:
        fleet = TestFleet()
        async with open_mesh(fleet.device("a")) as one, open_mesh(fleet.device("b")) as two:
            two.events.echo = True
            one.hint(two)
            await linked(one, two)
            one.events.links[two.id].send(FRAME)
            await one.events.until(lambda: one.events.frames == [(two.id, FRAME)])

    uvloop.run(scenario())


def test_link_over_ipv6_loopback() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        async with open_mesh(fleet.device("a")) as one, open_mesh(fleet.device("b")) as two:
            one.hint(two, host="::1")
            await linked(one, two)
            assert one.events.links[two.id].address == f"[::1]:{two.transport.listen_port}"
            assert two.events.links[one.id].address == "::1"

    asyncio.run(scenario())


@pytest.mark.parametrize("seed", range(12))
def test_simultaneous_dials_settle_on_the_stream_of_the_smaller_id(seed: int) -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        first, second = fleet.pair()
        async with open_mesh(first, seed=seed) as small, open_mesh(second, seed=seed + 100) as large:
            # known ids and static hints: neither side yields
            for one, two in ((small, large), (large, small))[:: 1 if seed % 2 else -1]:
                one.hint(two, known=True)
            await linked(small, large)
            await large.events.until(lambda: large.events.links[small.id].dialled_by_us is False)  # type: ignore[attr-defined]
            await small.events.until(lambda: small.events.links[large.id].dialled_by_us is True)  # type: ignore[attr-defined]
            large.events.echo = True
            small.events.links[large.id].send(FRAME)
            await small.events.until(lambda: (large.id, FRAME) in small.events.frames)
            assert small.events.unreachable == large.events.unreachable == []

    asyncio.run(scenario())


def test_many_nodes_that_all_dial_each_other_end_with_one_link_a_pair() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        async with (
            open_mesh(fleet.device("a"), seed=1) as a,
            open_mesh(fleet.device("b"), seed=2) as b,
            open_mesh(fleet.device("c"), seed=3) as c,
            open_mesh(fleet.device("d"), seed=4) as d,
        ):
            nodes = (a, b, c, d)
            for one in nodes:
                for two in nodes:
                    if one is not two:
                        one.hint(two)
            for one in nodes:
                await one.events.until(lambda one=one: len(one.events.links) == 3)  # type: ignore[misc]
            assert all(len(one.events.links) == 3 for one in nodes)

    asyncio.run(scenario())


def test_goodbye_is_told_as_goodbye_and_not_as_a_loss() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        async with open_mesh(fleet.device("a")) as one:
            async with open_mesh(fleet.device("b")) as two:
                one.hint(two)
                await linked(one, two)
                begun = perf_counter()
            assert perf_counter() - begun < 2.0
            await one.events.until(lambda: bool(one.events.closed))
            assert one.events.closed == [(two.id, LinkClosed.GOODBYE)]
            assert one.events.unreachable == []

    asyncio.run(scenario())


def test_frames_sent_before_a_goodbye_arrive() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        for dialler_leaves in (True, False):
            async with open_mesh(fleet.device("a")) as one, open_mesh(fleet.device("b")) as two:
                one.hint(two)
                await linked(one, two)
                leaver, stayer = (one, two) if dialler_leaves else (two, one)
                link = leaver.events.links[stayer.id]
                sent = [bytes((0x0A, number)) * 1000 for number in range(MAX_QUEUED_FRAMES)]
                for frame in sent:
                    link.send(frame)
                link.close(LinkClosed.GOODBYE)
                await stayer.events.until(lambda stayer=stayer: bool(stayer.events.closed))  # type: ignore[misc]
                assert [frame for _, frame in stayer.events.frames] == sent
                assert stayer.events.closed == [(leaver.id, LinkClosed.GOODBYE)]

    asyncio.run(scenario())


def test_kill_9_of_a_peer_is_told_at_once_by_whoever_dialled() -> None:
    async def scenario(child_dials: bool) -> float:
        fleet = TestFleet()
        # far off, so that a refusal is what tells it: neither a time-out nor the larger id's politeness
        config = quick(unreachable_after_s=5.0, yield_s=5.0)
        async with (
            open_mesh(fleet.device("a"), config) as one,
            await Child.start(fleet.device("b")) as child,
        ):
            if child_dials:
                child.order(host="127.0.0.1", port=one.transport.listen_port)
            else:
                one.transport.add_hint(_seed_hint(child))
            await one.events.until(lambda: child.id in one.events.links)
            child.process.kill()
            begun = perf_counter()
            await one.events.until(lambda: bool(one.events.unreachable))
            peer, why, detail = one.events.unreachable[0]
            assert (peer, why) == (child.id, LinkClosed.RESET)
            assert "refuses connections" in detail
            assert one.events.closed == [(child.id, LinkClosed.RESET)]
            return perf_counter() - begun

    for child_dials in (False, True):
        told_after_s = asyncio.run(scenario(child_dials))
        # 2 to 40 ms on an idle machine, most of it the kernel's tear-down of the process
        assert told_after_s < 2.0


def test_kill_9_is_told_at_once_although_another_address_of_the_peer_never_answers() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        config = quick(knock_timeout_s=5.0, unreachable_after_s=5.0)
        with socket.socket() as deaf:
            deaf.bind(("127.0.0.1", 0))
            deaf.listen(0)
            port = deaf.getsockname()[1]
            # its queue is full: the kernel drops every further connection in silence
            queued = [await asyncio.open_connection("127.0.0.1", port)]
            async with (
                open_mesh(fleet.device("a"), config) as one,
                await Child.start(fleet.device("b")) as child,
            ):
                one.transport.add_hint(_seed_hint(child))
                await one.events.until(lambda: child.id in one.events.links)
                silent = PeerHint(host="127.0.0.1", port=port, source=HintSource.REMEMBERED, peer=child.id)
                one.transport.add_hint(silent)
                child.process.kill()
                begun = perf_counter()
                await one.events.until(lambda: bool(one.events.unreachable))
                assert perf_counter() - begun < 2.0
                assert one.events.unreachable[0][1] is LinkClosed.RESET
            for _, writer in queued:
                writer.close()

    asyncio.run(scenario())


def test_frozen_peer_is_told_as_silent() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        config = quick(keepalive_s=0.3, keepalive_timeout_s=0.2, unreachable_after_s=0.4)
        async with (
            open_mesh(fleet.device("a"), config) as one,
            await Child.start(fleet.device("b")) as child,
        ):
            one.transport.add_hint(_seed_hint(child))
            await one.events.until(lambda: child.id in one.events.links)
            child.process.send_signal(signal.SIGSTOP)
            begun = perf_counter()
            await one.events.until(lambda: bool(one.events.unreachable))
            assert perf_counter() - begun < 4.0
            assert one.events.closed == [(child.id, LinkClosed.SILENT)]
            assert one.events.unreachable[0][:2] == (child.id, LinkClosed.SILENT)
            child.process.send_signal(signal.SIGCONT)
            await one.events.until(lambda: child.id in one.events.links)

    asyncio.run(scenario())


def test_link_is_renewed_before_its_age_without_a_gap() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        config = quick(max_link_age_s=0.6)
        async with open_mesh(fleet.device("a"), config) as one, open_mesh(fleet.device("b"), config) as two:
            one.hint(two)
            # the new stream stands before the old one goes: not a moment without a link
            await one.events.until(lambda: one.events.seamless >= 2 and two.events.seamless >= 2)
            assert {why for _, why in one.events.closed + two.events.closed} == {LinkClosed.AGED}
            assert one.events.unreachable == two.events.unreachable == []

    asyncio.run(scenario())


def test_peer_that_restarts_on_its_port_is_linked_again() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        again = fleet.device("b")
        async with open_mesh(fleet.device("a")) as one:
            async with open_mesh(again) as two:
                one.hint(two)
                await linked(one, two)
                port = two.transport.listen_port
            async with open_mesh(again, quick(port=port)) as three:
                await one.events.until(lambda: len(one.events.opened) == 2)
                assert three.linked(one)

    asyncio.run(scenario())


def test_peer_that_reads_nothing_costs_a_bounded_queue_and_the_link() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        async with open_mesh(fleet.device("a")) as one, open_mesh(fleet.device("b")) as two:
            one.hint(two)
            await linked(one, two)
            link = one.events.links[two.id]
            # one turn of the loop: nothing can be written meanwhile
            for _ in range(MAX_QUEUED_FRAMES + 1):
                link.send(b"\x0a" * 1000)
            await one.events.until(lambda: bool(one.events.closed))
            assert one.events.closed == [(two.id, LinkClosed.SILENT)]
            link.send(FRAME)  # a closed link drops it

    asyncio.run(scenario())


def test_frame_longer_than_the_wire_allows_is_refused_to_the_caller() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        async with open_mesh(fleet.device("a")) as one, open_mesh(fleet.device("b")) as two:
            one.hint(two)
            await linked(one, two)
            link = one.events.links[two.id]
            with pytest.raises(LocalProtocolError, match="262144"):
                link.send(bytes(MAX_FRAME_BYTES + 1))
            longest = b"\x0a" * MAX_FRAME_BYTES
            link.send(longest)
            await two.events.until(lambda: two.events.frames == [(one.id, longest)])

    asyncio.run(scenario())


def test_forgotten_peer_is_closed_and_neither_dialled_nor_accepted_any_more() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        async with open_mesh(fleet.device("a")) as one, open_mesh(fleet.device("b")) as two:
            one.hint(two)
            await linked(one, two)
            one.transport.forget(two.id)
            await two.events.until(lambda: bool(two.events.closed) and bool(one.events.closed))
            assert one.events.closed == [(two.id, LinkClosed.REFUSED)]
            assert two.events.closed == [(one.id, LinkClosed.REFUSED)]
            one.hint(two, known=True)
            two.transport._peers[one.id].refused_until_s = 0.0
            two.hint(one, known=True)
            await two.events.until(lambda: one.transport.refusals["forgotten"] > 0)
            assert not one.linked(two)

    asyncio.run(scenario())


def test_device_admitted_anew_after_it_was_forgotten_is_a_peer_again() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        key = DeviceKey.generate()
        async with open_mesh(fleet.device("a")) as one:
            async with open_mesh(fleet.device("b", key=key)) as two:
                two.hint(one)
                await linked(one, two)
                one.transport.forget(two.id)
            async with open_mesh(fleet.device("b", key=key, generation=2)) as again:
                again.hint(one)
                await linked(one, again)

    asyncio.run(scenario())


def test_link_refused_by_a_node_is_not_dialled_again_at_once() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        config = quick(refused_pause_s=0.5)
        async with open_mesh(fleet.device("a"), config) as one, open_mesh(fleet.device("b"), config) as two:
            one.hint(two)
            await linked(one, two)
            begun = perf_counter()
            two.events.links[one.id].close(LinkClosed.REFUSED)
            await one.events.until(lambda: len(one.events.opened) == 2)
            assert one.events.closed[0] == (two.id, LinkClosed.REFUSED)
            assert perf_counter() - begun > 0.45
            assert one.events.unreachable == []

    asyncio.run(scenario())


def test_dial_that_met_a_node_while_it_left_does_not_bar_it_when_it_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    # a command that visits leaves and is back within a second; answered "refused" it would have to wait ten
    async def scenario() -> None:
        fleet = TestFleet()
        async with open_mesh(fleet.device("a")) as one, open_mesh(fleet.device("b")) as two:
            met: list[object] = []

            async def leaving(*arrival: object) -> None:
                met.append(arrival)

            with monkeypatch.context() as patch:
                patch.setattr(two.transport, "accept", leaving)
                one.hint(two)
                await one.events.until(lambda: bool(met))
            two.hint(one)
            await linked(one, two)

    asyncio.run(scenario())


def test_seed_that_is_this_node_itself_is_said_and_not_linked() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        async with open_mesh(fleet.device("a")) as one:
            one.hint(one)
            await one.events.until(lambda: bool(one.transport.attempts()))
            assert one.transport.attempts()[0].outcome is DialOutcome.SELF
            assert one.events.opened == []

    asyncio.run(scenario())


def test_clone_boot_of_a_copied_disk_is_seen_from_both_sides() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        identity = fleet.device("a")
        async with open_mesh(identity) as one, open_mesh(identity) as copy:
            one.hint(copy)
            await one.events.until(lambda: bool(one.transport.attempts()))
            assert one.transport.attempts()[0].outcome is DialOutcome.DUPLICATE_ID
            assert one.events.opened == copy.events.opened == []

    asyncio.run(scenario())


def test_port_in_use_names_its_holder_and_the_next_step() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        async with open_mesh(fleet.device("a")) as one:
            port = one.transport.listen_port
            with pytest.raises(TransportError, match=rf"port {port} is in use by .*pid \d+") as caught:
                async with open_mesh(fleet.device("b"), quick(port=port)):
                    raise AssertionError("two nodes share a port")
            assert caught.value.next_step is not None
            assert "--port 0" in caught.value.next_step

    asyncio.run(scenario())


def test_missing_interface_names_those_that_exist() -> None:
    async def scenario() -> None:
        with pytest.raises(TransportError, match="wlan77 does not exist here; usable: lo"):
            async with open_mesh(TestFleet().device("a"), quick(interfaces=("wlan77",))):
                raise AssertionError("bound to nothing")

    asyncio.run(scenario())


def _seed_hint(child: Child) -> PeerHint:
    return PeerHint(host="127.0.0.1", port=child.port, source=HintSource.STATIC)
