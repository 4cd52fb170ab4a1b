"""Sessions: Hello, frames that lie, replays, floods, revocation that bites, and what is remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from meshagent.core.bodies import EventMessage, Profile, RevocationNotice
from meshagent.core.ports import HintSource, LinkClosed
from meshagent.identity.certificates import issue_credential, read_credential
from meshagent.identity.credential import CertificateFault
from meshagent.identity.device import DeviceIdentity
from meshagent.identity.envelope import Outgoing, Sealer
from meshagent.identity.gate import GateLimits, RejectReason
from meshagent.identity.hello import HelloRefusal
from meshagent.identity.keys import DeviceKey
from meshagent.identity.revocation import RevocationEntry, RevocationError, RevocationReason, sign_list
from meshagent.identity.trust import Trust, issue_root
from meshagent.runtime.driver import DriverConfig
from meshagent.runtime.links import BOOK, MAX_MALFORMED, PEERS, LinksConfig
from meshagent.runtime.outbox import OutboxConfig
from meshagent.virtual.clock import WALL_BASE_S
from meshagent.virtual.identities import identity, key_of, trust
from meshagent.wire import codec
from meshagent.wire.frame import MAX_FRAME_BYTES, frame_bytes, message_bytes, read_frame
from meshagent.wire.v1 import link_pb2 as pb
from tests.support.company import Member, MemoryLink, close, join, until

WORK = {"k": "K()"}
NEWS = EventMessage(name="news", body=b"\x80")


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await scenario()

    asyncio.run(bounded())


async def linked(*members: Member) -> tuple[MemoryLink, MemoryLink]:
    one, other = members
    for member in members:
        if not hasattr(member.driver, "links"):
            await member.start()
    links = join(one, other)
    await until(lambda: other.id in one.driver.links.peers and one.id in other.driver.links.peers)
    return links


def is_open(link: MemoryLink) -> bool:
    return link.open


def rejected(member: Member, reason: RejectReason) -> int:
    return sum(count for (why, _), count in member.driver.links.rejections.items() if why is reason)


# ---- getting to know each other


def test_both_sides_learn_profile_address_and_clock_offset() -> None:
    async def scenario() -> None:
        one, other = Member(1, kinds=WORK), Member(2, wall_error_s=90.0)
        await linked(one, other)
        assert other.driver.links.peers[one.id].profile == one.profile
        seen = one.driver.peers()[other.id]
        assert seen.clock_offset_s is not None
        assert 89.0 < seen.clock_offset_s < 91.0
        assert seen.address == "198.51.100.2:40000"
        one.driver.emit(NEWS)
        await until(lambda: bool(other.events))
        other.driver.emit(NEWS)
        await until(lambda: bool(one.events))
        await close(one, other)

    run(scenario)


def test_a_profile_of_a_lower_version_does_not_replace_a_higher_one() -> None:
    async def scenario() -> None:
        one, other = Member(1), Member(2)
        await linked(one, other)
        other.driver.set_profile(Profile(version=7, name="new", kinds=WORK))
        await until(lambda: one.driver.links.peers[other.id].profile.version == 7)  # type: ignore[union-attr]
        other.driver.links.send((one.id,), Profile(version=6, name="old"))
        other.driver.emit(NEWS)
        await until(lambda: bool(one.events))
        profile = one.driver.links.peers[other.id].profile
        assert profile is not None
        assert profile.name == "new"
        await close(one, other)

    run(scenario)


def test_nothing_is_accepted_before_the_hello() -> None:
    async def scenario() -> None:
        one = await Member(1).start()
        stranger = identity(2)
        one.book.learn(stranger.credential.der, now_s=one.clock.wall_s())
        link = MemoryLink(stranger.node_id, "198.51.100.2:1")
        link.far = MemoryLink(one.id, "198.51.100.1:1")
        link.events = one.transport.events
        one.transport.events.link_opened(link)
        one.transport.events.frame_received(link, sealed(stranger, one, b"\0" * 16, 1))
        assert rejected(one, RejectReason.UNKNOWN_SENDER) == 1
        assert one.events == []
        await close(one)

    run(scenario)


def test_a_link_without_hello_is_closed() -> None:
    async def scenario() -> None:
        config = DriverConfig(links=LinksConfig(greet_within_s=0.05))
        one = await Member(1, config=config).start()
        link = MemoryLink(identity(2).node_id, "198.51.100.2:1")
        link.far = MemoryLink(one.id, "198.51.100.1:1")
        link.events = one.transport.events
        one.transport.events.link_opened(link)
        await until(lambda: not link.open)
        await close(one)

    run(scenario)


def test_downgrade_hello_a_tampered_hello_closes_the_link() -> None:
    async def scenario() -> None:
        one, other = Member(1), Member(2)
        await one.start()
        await other.start()

        def downgrade(raw: bytes) -> tuple[bytes]:
            frame = pb.Frame.FromString(raw)
            if frame.hello:
                hello = bytearray(frame.hello)
                hello[200] ^= 1
                frame.hello = bytes(hello)
            return (frame.SerializeToString(),)

        ours, theirs = join(one, other)
        theirs.tamper = downgrade
        await until(lambda: not ours.open)
        assert one.driver.links.refusals[other.id].reason is HelloRefusal.SIGNATURE
        assert one.driver.links.peers == {}
        await close(one, other)

    run(scenario)


def test_clone_boot_a_second_device_of_one_identity_is_refused() -> None:
    async def scenario() -> None:
        one, other = Member(1), Member(2)
        await linked(one, other)
        clone = await Member(3, who=identity(2)).start()
        assert clone.driver.boot[:8] == other.driver.boot[:8]
        ours, _ = join(one, clone)
        await until(lambda: not ours.open)
        assert one.driver.links.refusals[other.id].reason is HelloRefusal.DUPLICATE_IDENTITY
        await close(one, other, clone)

    run(scenario)


def test_a_peer_that_restarted_before_anybody_missed_it_is_lost_and_found() -> None:
    async def scenario() -> None:
        one, other = Member(1, kinds=WORK), Member(2)
        await linked(one, other)
        other.driver._running = False
        again = Member(2, disk=other.disk)
        told: list[str] = []
        one.driver.links._observer.peer_lost = lambda peer, why: told.append(why)  # type: ignore[method-assign]
        await again.start()
        join(one, again)
        await until(lambda: one.id in again.driver.links.peers and bool(told))
        assert told == ["restarted"]
        await close(one, again)

    run(scenario)


# ---- frames that lie


def sealed(
    sender: DeviceIdentity, to: Member, boot: bytes, count: int, *, kind: int = 0, payload: bytes = b""
) -> bytes:
    """A well-made frame of `count` events."""
    if not kind:
        kind, payload = codec.encode(NEWS)
    hlc = int(to.clock.wall_s() * 1000) << 16
    batch = Sealer(sender.key, sender.fleet, boot).seal([Outgoing(to.id, kind, 5000, payload)] * count, hlc)
    receiver = to.identity.key.public
    return frame_bytes(1, 0, b"", [(batch.proof, [message_bytes(one, receiver) for one in batch.messages])])


def test_frames_that_cannot_be_read_are_counted_and_end_the_link_after_a_while() -> None:
    async def scenario() -> None:
        one, other = Member(1), Member(2)
        ours, theirs = await linked(one, other)
        for raw in (b"", b"\xff" * 10, bytes(MAX_FRAME_BYTES + 1)) * 5:
            theirs.send(raw)
        await until(lambda: rejected(one, RejectReason.SHAPE) >= 10)
        assert ours.open
        other.driver.emit(NEWS)
        await until(lambda: bool(one.events))
        for _ in range(MAX_MALFORMED):
            theirs.send(b"\xff" * 10)
        await until(lambda: not ours.open)
        await close(one, other)

    run(scenario)


def test_a_peer_that_acknowledges_what_was_never_sent_is_not_believed() -> None:
    async def scenario() -> None:
        one, other = Member(1), Member(2)
        _, theirs = await linked(one, other)
        before = rejected(one, RejectReason.SHAPE)
        theirs.send(frame_bytes(0, 10_000, b"", ()))
        await until(lambda: rejected(one, RejectReason.SHAPE) == before + 1)
        one.driver.emit(NEWS)
        await until(lambda: bool(other.events))
        await close(one, other)

    run(scenario)


@pytest.mark.parametrize("times", [1, 3])
def test_replay_a_frame_sent_again_has_no_second_effect(times: int) -> None:
    async def scenario() -> None:
        one, other = Member(1), Member(2)
        _, theirs = await linked(one, other)
        other.driver.emit(NEWS)
        await until(lambda: bool(one.events))
        data = [raw for raw in theirs.sent if read_frame(raw).batches]
        for raw in data * times:
            theirs.send(raw)
        other.driver.emit(EventMessage(name="last", body=b""))
        await until(lambda: one.events[-1][1].name == "last")
        assert len(one.events) == 2
        assert rejected(one, RejectReason.REPLAYED) == times * sum(
            len(batch.messages) for raw in data for batch in read_frame(raw).batches
        )
        await close(one, other)

    run(scenario)


def test_replay_after_restart_is_rejected() -> None:
    async def scenario() -> None:
        one, other = Member(1, config=DriverConfig(links=LinksConfig(write_after_s=0.0))), Member(2)
        _, theirs = await linked(one, other)
        other.driver.emit(NEWS)
        await until(lambda: bool(one.events))
        await asyncio.sleep(0)
        recorded = [raw for raw in theirs.sent if read_frame(raw).batches]
        one.driver._running = False
        again = Member(1, disk=one.disk)
        _, theirs_again = await linked(again, other)
        for raw in recorded:
            theirs_again.send(raw)
        other.driver.emit(EventMessage(name="last", body=b""))
        await until(lambda: bool(again.events) and again.events[-1][1].name == "last")
        assert len(again.events) == 1
        assert rejected(again, RejectReason.REPLAYED) >= len(recorded)
        await close(again, other)

    run(scenario)


def test_a_bit_flipped_on_the_way_drops_its_message_and_nothing_else() -> None:
    async def scenario() -> None:
        one, other = Member(1), Member(2)
        _, theirs = await linked(one, other)
        flips = 0

        def flip(raw: bytes) -> tuple[bytes]:
            nonlocal flips
            frame = pb.Frame.FromString(raw)
            if frame.batches and not flips:
                flips += 1
                payload = bytearray(frame.batches[0].messages[0].payload)
                payload[-1] ^= 1
                frame.batches[0].messages[0].payload = bytes(payload)
            return (frame.SerializeToString(),)

        theirs.tamper = flip
        other.driver.emit(NEWS)
        await until(lambda: rejected(one, RejectReason.SIGNATURE) == 1)
        other.driver.emit(NEWS)
        await until(lambda: bool(one.events))
        assert len(one.events) == 1
        await close(one, other)

    run(scenario)


def test_a_flood_is_dropped_by_the_links_budget_and_the_node_lives() -> None:
    async def scenario() -> None:
        limits = GateLimits(link_messages=10, link_messages_burst=50)
        one, other = Member(1, config=DriverConfig(links=LinksConfig(gate=limits))), Member(2)
        _, theirs = await linked(one, other)
        for _ in range(20):
            theirs.send(sealed(other.identity, one, other.driver.boot, 20))
        await until(lambda: rejected(one, RejectReason.LINK_BUDGET) >= 300)
        assert len(one.events) <= 50
        one.driver.emit(NEWS)
        await until(lambda: bool(other.events))
        await close(one, other)

    run(scenario)


def test_cross_fleet_a_device_of_another_fleet_is_refused_at_the_hello() -> None:
    async def scenario() -> None:
        root, following = DeviceKey(b"r" * 32), DeviceKey(b"n" * 32)
        data = issue_root(root, following.public, name="theirs", now_s=WALL_BASE_S)
        theirs = Trust([data])
        who = admitted(root, theirs, "intruder")
        one, other = await Member(1).start(), await Member(2, who=who).start()
        ours, _ = join(one, other)
        await until(lambda: not ours.open)
        assert one.driver.links.refusals[who.node_id].reason is HelloRefusal.OTHER_FLEET
        await close(one, other)

    run(scenario)


def admitted(root: DeviceKey, fleet: Trust, name: str, lifetime_s: float = 86_400.0) -> DeviceIdentity:
    key = key_of(name)
    der = issue_credential(
        root,
        fleet.newest,
        fleet=fleet.fleet,
        device=key.public,
        name=name,
        generation=1,
        may=("announce:*", "perform:*"),
        capabilities=(),
        now_s=WALL_BASE_S,
        lifetime_s=lifetime_s,
    )
    return DeviceIdentity(key, read_credential(der, fleet, now_s=WALL_BASE_S), fleet)


# ---- credentials that end


def expelled(member: Member) -> bytes:
    """A list by the fleet's root that puts `member` out."""
    entry = RevocationEntry(
        member.identity.key.public, 2, RevocationReason.KEY_COMPROMISE, int(WALL_BASE_S) + 10 * 86_400
    )
    return sign_list(key_of("root-0"), trust().fleet, [entry], number=1, now_s=WALL_BASE_S + 100).signed


def test_a_revocation_bites_on_live_links_and_spreads_by_itself() -> None:
    async def scenario() -> None:
        one, middle, bad = Member(1), Member(2), Member(3, kinds=WORK)
        await linked(one, middle)
        to_bad, _ = await linked(one, bad)
        middles, _ = await linked(middle, bad)
        assert one.driver.directory.candidates("k") == (bad.id,)
        assert one.driver.links.merge_revocations(expelled(bad))
        await until(lambda: not to_bad.open and not middles.open)
        for member in (one, middle):
            assert bad.id not in member.driver.links.peers
            assert member.transport.forgotten == [bad.id]
            assert member.driver.directory.candidates("k") == ()
        again, _ = join(one, bad)
        await until(lambda: not again.open)
        assert one.driver.links.refusals[bad.id].reason is HelloRefusal.CREDENTIAL
        await until(lambda: BOOK in one.disk.tables)
        await close(one, middle, bad)

    run(scenario)


def test_revoked_server_a_restarted_node_remembers_who_was_put_out() -> None:
    async def scenario() -> None:
        one, bad = Member(1), Member(3)
        await linked(one, bad)
        before = one.disk.tables.get(BOOK)
        before = dict(before) if before else None
        one.driver.links.merge_revocations(expelled(bad))
        await until(lambda: one.disk.tables.get(BOOK) != before)
        one.driver._running = False
        again = Member(1, disk=one.disk)
        await again.start()
        link, _ = join(again, bad)
        await until(lambda: not link.open)
        assert again.driver.links.refusals[bad.id].reason is HelloRefusal.CREDENTIAL
        await close(again, bad)

    run(scenario)


def test_a_peer_that_joins_later_is_told_who_was_put_out() -> None:
    async def scenario() -> None:
        one, late, bad = Member(1), Member(2), Member(3)
        await one.start()
        one.driver.links.merge_revocations(expelled(bad))
        await linked(late, bad)
        await linked(one, late)
        await until(lambda: bad.id not in late.driver.links.peers)
        await close(one, late, bad)

    run(scenario)


def test_a_forged_revocation_list_puts_nobody_out() -> None:
    async def scenario() -> None:
        one, liar, victim = Member(1), Member(2), Member(3)
        await linked(one, liar)
        to_victim, _ = await linked(one, victim)
        forged = bytearray(expelled(victim))
        forged[-1] ^= 1
        liar.driver.links.send((one.id,), RevocationNotice(lists=(bytes(forged),)))
        liar.driver.emit(NEWS)
        await until(lambda: bool(one.events))
        assert to_victim.open
        assert rejected(one, RejectReason.MALFORMED) == 1
        with pytest.raises(RevocationError):
            one.driver.links.merge_revocations(bytes(forged))
        await close(one, liar, victim)

    run(scenario)


def test_a_device_that_was_put_out_says_so_itself() -> None:
    async def scenario() -> None:
        one = await Member(1).start()
        faults = [one.driver.links.own_fault]
        one.driver.links.merge_revocations(expelled(one))
        faults.append(one.driver.links.own_fault)
        assert faults == [None, CertificateFault.REVOKED]
        await close(one)

    run(scenario)


def test_a_credential_that_expires_closes_an_idle_link() -> None:
    async def scenario() -> None:
        who = admitted(key_of("root-0"), trust(), "short", lifetime_s=3600.0)
        config = DriverConfig(links=LinksConfig(check_s=0.02))
        one, other = Member(1, config=config), Member(2, who=who)
        link, _ = await linked(one, other)
        one.clock.skip_s += 4000.0
        await until(lambda: not link.open)
        assert other.id not in one.driver.links.peers
        await close(one, other)

    run(scenario)


# ---- losing and finding again


def test_a_link_that_aged_is_replaced_without_a_loss() -> None:
    async def scenario() -> None:
        one, other = Member(1), Member(2)
        ours, theirs = await linked(one, other)
        lost: list[str] = []
        one.driver.links._observer.peer_lost = lambda peer, why: lost.append(why)  # type: ignore[method-assign]
        ours.close(LinkClosed.AGED)
        theirs.open = False
        other.transport.events.link_closed(theirs, LinkClosed.AGED)
        await until(lambda: not ours.open)
        join(one, other)
        one.driver.emit(NEWS)
        await until(lambda: other.id in one.driver.links._sessions and one.driver.links._sessions[other.id].ready)
        one.driver.emit(NEWS)
        await until(lambda: bool(other.events))
        assert lost == []
        await close(one, other)

    run(scenario)


def test_a_link_that_does_not_come_back_is_a_lost_peer() -> None:
    async def scenario() -> None:
        config = DriverConfig(links=LinksConfig(lost_after_s=0.05))
        one, other = Member(1, config=config), Member(2)
        ours, _ = await linked(one, other)
        ours.close(LinkClosed.SILENT)
        await until(lambda: other.id not in one.driver.links.peers)
        await close(one, other)

    run(scenario)


def test_a_second_link_to_one_peer_replaces_the_first() -> None:
    async def scenario() -> None:
        one, other = Member(1), Member(2)
        first, _ = await linked(one, other)
        join(one, other)
        await until(lambda: not first.open)
        await until(lambda: one.driver.links._sessions[other.id].ready)
        one.driver.emit(NEWS)
        await until(lambda: bool(other.events))
        await close(one, other)

    run(scenario)


def test_a_peer_that_takes_nothing_any_more_loses_its_link() -> None:
    async def scenario() -> None:
        outbox = OutboxConfig(max_messages=10)
        one, other = Member(1, config=DriverConfig(links=LinksConfig(outbox=outbox))), Member(2, kinds=WORK)
        ours, _ = await linked(one, other)
        ours.tamper = lambda frame: ()
        for nonce in range(1, 200):
            one.submit("k", nonce)
            await asyncio.sleep(0)
            if not ours.open:
                break
        await until(lambda: not ours.open)  # turns may share a tick, so the last submission may come before it
        await close(one, other)

    run(scenario)


def test_peers_are_remembered_where_they_listen_and_dialled_after_a_restart() -> None:
    async def scenario() -> None:
        config = DriverConfig(links=LinksConfig(write_after_s=0.0))
        one, other = Member(1, config=config), Member(2)
        await linked(one, other)
        await until(lambda: other.id in one.disk.tables.get(PEERS, {}))
        one.driver._running = False
        again = await Member(1, disk=one.disk).start()
        hint = again.transport.hints[0]
        assert (hint.host, hint.port, hint.peer) == ("198.51.100.2", 7340, other.id)
        assert hint.source is HintSource.REMEMBERED
        await close(again, other)

    run(scenario)


def test_a_visitor_is_not_remembered() -> None:
    async def scenario() -> None:
        config = DriverConfig(links=LinksConfig(write_after_s=0.0))
        one, other = Member(1, config=config), Member(2)
        other.profile = Profile(version=1, name="v", visitor=True, listen_port=7340)
        await linked(one, other)
        other.driver.emit(NEWS)
        await until(lambda: bool(one.events))
        assert PEERS not in one.disk.tables
        await close(one, other)

    run(scenario)


def test_what_goes_to_several_peers_is_sealed_once() -> None:
    async def scenario() -> None:
        one, others = Member(1), [Member(2), Member(3), Member(4)]
        for other in others:
            await linked(one, other)
        await until(lambda: one.driver.links.next_deadline_s() > one.clock.boot_s() + 1.0)
        seals = one.driver.links.seals
        one.driver.emit(NEWS)
        await until(lambda: all(other.events for other in others))
        assert one.driver.links.seals == seals + 1
        frames = [read_frame(other.far.sent[-1]) for other in (link.far for link in one.transport.links)]
        proofs = {batch.proof for frame in frames for batch in frame.batches}
        assert len(proofs) <= 1
        await close(one, *others)

    run(scenario)


def test_a_turn_with_more_messages_than_a_batch_holds_arrives_whole() -> None:
    async def scenario() -> None:
        one, others = Member(1), [Member(n) for n in (2, 3, 4, 5, 6)]
        for other in others:
            await linked(one, other)
        links = one.driver.links
        for n in range(250):
            for other in others:
                links.send((other.id,), EventMessage(name=f"e{n}", body=bytes(n % 7)))
        one.driver._wake()
        await until(lambda: all(len(other.events) == 250 for other in others))
        for other in others:
            assert [event.name for _, event in other.events] == [f"e{n}" for n in range(250)]
        await close(one, *others)

    run(scenario)


def test_a_faulty_member_loses_its_link_unless_the_link_has_shown_life_since_the_suspicion() -> None:
    async def scenario() -> None:
        one, other = Member(1, kinds=WORK), Member(2)
        link, _ = await linked(one, other)
        since_s = one.clock.boot_s()
        other.driver.emit(NEWS)
        await until(lambda: bool(one.events))
        one.driver.links.member_faulty(other.id, since_s, "faulty")
        assert is_open(link)
        assert other.id in one.driver.peers()
        one.driver.links.member_faulty(other.id, one.clock.boot_s() + 1.0, "faulty")
        assert not is_open(link)
        assert other.id not in one.driver.peers()
        assert one.driver.lost_because[other.id] == "faulty"
        await close(one, other)

    run(scenario)
