"""Links that are made and fail at once: neither side may turn them into a storm of handshakes or log lines.

Real transports over TLS on loopback; the dials counted are those that became links.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial

import pytest

from meshagent.core.ports import HintSource, Link, LinkClosed, PeerHint
from meshagent.transport.attempts import DialOutcome
from meshagent.transport.dialler import DialFailedError, Dialler
from meshagent.transport.mesh import ARRIVALS_BURST
from tests.support.meshes import Mesh, Recorder, TestFleet, open_mesh, quick

pytestmark = pytest.mark.network

WATCHED_S = 1.0
"""Long enough that an unbounded loop makes hundreds of links, short enough for a test."""
FEW = 8
"""The link, two free tries, then pauses of at least 0.05, 0.1, 0.2, 0.4 and 0.8 s."""


class Spoiler(Recorder):
    """Ends each link as soon as it is there."""

    how: Callable[[Link], None]

    def link_opened(self, link: Link) -> None:
        super().link_opened(link)
        asyncio.get_running_loop().call_soon(self.how, link)


def spoiled_by(why: LinkClosed) -> Callable[[Link], None]:
    return lambda link: link.close(why)


async def watch(one: Mesh, two: Mesh) -> int:
    """How many links `one` saw in `WATCHED_S` with a peer that spoils them."""
    one.hint(two, known=True)
    await one.events.until(lambda: bool(one.events.opened))
    with pytest.raises(TimeoutError):
        await one.events.until(lambda: len(one.events.opened) > 50, within_s=WATCHED_S)
    return len(one.events.opened)


@pytest.mark.parametrize(
    ("why", "smaller_spoils"),
    [(why, False) for why in (LinkClosed.RESET, LinkClosed.AGED, LinkClosed.GOODBYE, LinkClosed.REFUSED)]
    + [(LinkClosed.RESET, True)],
)
def test_flapping_a_peer_that_ends_each_link_at_once_is_dialled_ever_more_slowly(
    why: LinkClosed, smaller_spoils: bool
) -> None:
    async def scenario() -> None:
        small, large = TestFleet().pair()
        honest, bad = (large, small) if smaller_spoils else (small, large)
        async with open_mesh(honest) as one, open_mesh(bad) as two:
            two.events.__class__ = Spoiler
            two.events.how = spoiled_by(why)  # type: ignore[attr-defined]
            assert await watch(one, two) <= FEW

    asyncio.run(scenario())


def test_flapping_a_node_that_fails_on_a_frame_does_not_dial_in_a_tight_loop(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Recorder, link: Link, frame: bytes) -> None:
        raise RuntimeError("a bug behind the transport")

    async def scenario() -> None:
        small, large = TestFleet().pair()
        monkeypatch.setattr(Spoiler, "frame_received", fail)
        async with open_mesh(small) as one, open_mesh(large) as two:
            one.events.__class__ = Spoiler
            one.events.how = lambda link: None  # type: ignore[attr-defined]
            two.events.__class__ = Spoiler
            two.events.how = lambda link: link.send(b"\x0aframe")  # type: ignore[attr-defined]
            assert await watch(one, two) <= FEW

    with caplog.at_level(logging.INFO):
        asyncio.run(scenario())
    lines = [record for record in caplog.records if record.name.startswith("meshagent")]
    assert 0 < len(lines) <= 30


def test_flapping_a_link_that_has_lived_is_dialled_at_once_again() -> None:
    async def scenario() -> None:
        small, large = TestFleet().pair()
        async with open_mesh(small, quick(steady_after_s=0.05)) as one, open_mesh(large) as two:
            one.hint(two, known=True)
            for count in range(1, 7):
                await one.events.until(partial(lambda n: len(one.events.opened) == n, count), within_s=1.0)
                await asyncio.sleep(0.06)  # the link must live for as long as counts
                one.events.links[two.id].close(LinkClosed.RESET)

    asyncio.run(scenario())


def test_flapping_a_member_that_opens_links_again_and_again_is_turned_away() -> None:
    async def scenario() -> None:
        fleet = TestFleet()
        bad, good = fleet.device("bad"), fleet.device("good")
        async with open_mesh(fleet.device("victim")) as victim, AsyncExitStack() as stack:
            refusals = victim.transport.refusals

            def answered(attacker: Mesh) -> bool:
                return victim.id in attacker.events.links or bool(refusals["too often"])

            for _ in range(ARRIVALS_BURST + 10):
                # a new process each time: another instance name, nothing remembered
                async with open_mesh(bad, quick(backoff_first_s=5.0)) as attacker:
                    attacker.hint(victim, known=True)
                    await attacker.events.until(partial(answered, attacker))
                if refusals["too often"]:
                    break
            assert refusals["too often"]
            friend = await stack.enter_async_context(open_mesh(good))
            friend.hint(victim, known=True)
            await victim.events.until(lambda: friend.id in victim.events.links, within_s=2.0)

    asyncio.run(scenario())


def test_flapping_a_server_that_says_we_are_linked_when_we_are_not_is_dialled_ever_more_slowly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A member may answer each dial with ALREADY_EXISTS: nothing that it says may count as a success."""
    dials = 0

    async def claims(*_: object) -> None:
        nonlocal dials
        dials += 1
        raise DialFailedError(DialOutcome.ALREADY_LINKED, "we are linked already, says the liar")

    async def scenario() -> None:
        fleet = TestFleet()
        async with open_mesh(fleet.device("a")) as one, open_mesh(fleet.device("b")) as two:
            monkeypatch.setattr(Dialler, "open", claims)
            hint = PeerHint(host="127.0.0.1", port=two.transport.listen_port, source=HintSource.MDNS, peer=two.id)
            one.transport.add_hint(hint)
            with pytest.raises(TimeoutError):
                await one.events.until(lambda: dials > 50, within_s=WATCHED_S)
            assert 0 < dials <= FEW

    asyncio.run(scenario())


@pytest.mark.parametrize("smaller_refuses", [False, True])
def test_flapping_two_nodes_of_which_one_refused_the_other_do_not_bar_each_other_in_turn(smaller_refuses: bool) -> None:
    """Each pauses after a refusal. Were both to refuse streams meanwhile, and to pause anew for being refused, the pair
    would never meet again."""

    async def scenario() -> None:
        config = quick(refused_pause_s=60.0)
        small, large = TestFleet().pair()
        async with open_mesh(small, config) as one, open_mesh(large, config) as two:
            one.hint(two, known=True)
            refuser, refused = (one, two) if smaller_refuses else (two, one)
            await one.events.until(lambda: bool(one.events.links and two.events.links))
            two.hint(one, known=True)  # not before: both would dial, and a second link take the place of the first
            refuser.events.links[refused.id].close(LinkClosed.REFUSED)
            await one.events.until(lambda: not one.events.links and not two.events.links)
            # the refuser's pause is over, the other's began a moment later and is not
            state = refuser.transport._peers[refused.id]
            state.refused_until_s = state.barred_until_s = 0.0
            state.touch()
            await one.events.until(lambda: bool(one.events.links and two.events.links), within_s=3.0)

    asyncio.run(scenario())
