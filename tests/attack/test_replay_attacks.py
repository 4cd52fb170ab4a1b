"""Replays, boots, clocks: named as in SECURITY-DESIGN 9."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from meshagent.core.acts import Commit, Inform, WorkOutcome
from meshagent.core.clock import HybridClock
from meshagent.core.contract_net.interface import StartWork, WorkEnded
from meshagent.identity.credential import CertificateError, CertificateFault
from meshagent.identity.envelope import CounterExhaustedError, Outgoing, Sealer, make_boot
from meshagent.identity.gate import RejectReason
from meshagent.identity.hello import HelloRefusal, HelloRefused, HelloSession
from meshagent.identity.replay import MAX_BOOT_JUMP, ReplayTable
from tests.support.contract_desk import ParticipantDesk
from tests.support.fleets import HLC, WALL_MS, Device, Receiver, admit, authority, device, receiver

R = RejectReason


def hello_of(sender: Device, to: Receiver) -> bytes:
    book = sender.identity.open_book(now_s=WALL_MS / 1000)
    return HelloSession(sender.identity, sender.boot, book, ReplayTable(), to.id).first(HLC)


def test_replay_of_a_whole_frame_is_rejected() -> None:
    fleet = authority()
    ann = device(fleet, "ann")
    bob = receiver(fleet, "bob", ann)
    frame = [ann.say(bob.id), ann.say(None)]
    assert len(bob.take(ann.id, *frame)) == 2
    assert bob.take(ann.id, *frame) == []
    assert bob.rejected() == {R.REPLAYED: 2}


def test_replay_after_restart_is_rejected() -> None:
    fleet = authority()
    ann = device(fleet, "ann")
    bob = receiver(fleet, "bob", ann)
    batch = ann.say(bob.id)
    bob.take(ann.id, batch)
    restarted = receiver(fleet, "bob", ann)
    for _, row in bob.gate.replay.take_changed():
        restarted.gate.replay.load(row)
    assert restarted.take(ann.id, batch) == []
    assert restarted.rejected() == {R.REPLAYED: 1}


def test_replay_to_restored_receiver_is_bounded_by_the_clock() -> None:
    """A disk put back forgets the window; what is older than its ttl stays out all the same."""
    fleet = authority()
    ann = device(fleet, "ann")
    old = ann.say(None)
    restored = receiver(fleet, "bob", ann)
    restored.wall_ms = WALL_MS + 60_000
    assert restored.take(ann.id, old) == []
    assert restored.rejected() == {R.STALE: 1}


def test_replay_of_an_earlier_boot_after_the_owners_word_is_rejected() -> None:
    """A renewed credential lets boots count anew; recordings of a higher old boot must not profit."""
    fleet = authority()
    old = device(fleet, "ann", counter=80)
    bob = receiver(fleet, "bob", old)
    recorded = old.say(bob.id)
    bob.take(old.id, old.say(bob.id))
    renewed = device(fleet, "ann", counter=3)
    bob.book.learn(renewed.identity.credential.der, now_s=WALL_MS / 1000)
    fresh = renewed.seal(Outgoing(bob.id, 1, 1000, b"new"), hlc=HLC + 5)
    assert bob.take(renewed.id, fresh)
    assert bob.take(old.id, recorded) == []
    assert bob.rejected() == {R.REPLAYED: 1}


def test_clone_boot_is_told_from_a_restart() -> None:
    """Two devices from one disk image: equal counters, other random bytes."""
    fleet = authority()
    ann = device(fleet, "ann", counter=7)
    clone = device(authority(), "ann", counter=7, randomness=b"clone...")
    bob = receiver(fleet, "bob", ann)
    bob.take(ann.id, ann.say(bob.id))
    assert bob.take(ann.id, clone.say(bob.id)) == []
    assert bob.rejected() == {R.DUPLICATE_IDENTITY: 1}
    session = HelloSession(bob.identity, make_boot(1, b"r" * 8), bob.book, bob.gate.replay, ann.id)
    result = session.received(hello_of(clone, bob), hlc=HLC, wall_ms=WALL_MS)
    assert isinstance(result, HelloRefused)
    assert result.reason is HelloRefusal.DUPLICATE_IDENTITY
    assert bob.take(ann.id, ann.say(bob.id)), "the first one goes on"


def test_counter_exhaustion_by_a_huge_boot_does_not_lock_the_device_out() -> None:
    fleet = authority()
    ann = device(fleet, "ann", counter=7)
    bob = receiver(fleet, "bob", ann)
    bob.take(ann.id, ann.say(bob.id))
    for counter in (7 + MAX_BOOT_JUMP + 1, 2**63, 2**64 - 2):
        thief = device(authority(), "ann", counter=counter)
        assert bob.take(ann.id, thief.say(bob.id)) == []
    assert bob.rejected() == {R.BOOT_JUMP: 3}
    assert bob.take(ann.id, ann.say(bob.id))
    restarted = device(authority(), "ann", counter=8)
    assert bob.take(ann.id, restarted.seal(Outgoing(bob.id, 1, 1000, b""), hlc=HLC + 1))


def test_counter_exhaustion_by_a_huge_sequence_number_harms_its_sender_alone() -> None:
    fleet = authority()
    ann, mallory = device(fleet, "ann"), device(fleet, "mallory")
    bob = receiver(fleet, "bob", ann, mallory)
    mallory.say(bob.id)
    mallory.sealer._recipients[bob.id].seq = 2**64 - 2
    assert bob.take(mallory.id, mallory.say(bob.id))
    with pytest.raises(CounterExhaustedError):
        mallory.say(bob.id)
    assert bob.take(ann.id, ann.say(bob.id))


def test_future_hlc_is_dropped_and_drags_nobody() -> None:
    fleet = authority()
    mallory = device(fleet, "mallory")
    bob = receiver(fleet, "bob", mallory)
    for stamp in ((WALL_MS + 3_600_000) << 16, 2**63, 2**64 - 1):
        assert bob.take(mallory.id, mallory.seal(Outgoing(bob.id, 1, 1000, b""), hlc=stamp)) == []
    assert bob.rejected() == {R.FUTURE: 3}
    clock = HybridClock(wall_at_zero_s=WALL_MS / 1000)
    assert not clock.merge(2**63 - 1, 0.0)
    assert clock.stamp(0.0) >> 16 <= WALL_MS + 1


def test_future_hlc_behind_a_measured_offset_is_fresh_but_still_drags_nobody() -> None:
    """A robot whose clock is a year ahead says so in its Hello; it may take part, its stamps move nobody."""
    fleet = authority()
    ann = device(fleet, "ann")
    bob = receiver(fleet, "bob", ann)
    year_ms = 365 * 24 * 3600 * 1000
    state = bob.gate.replay.enter(ann.identity.key.public, ann.boot, 1)
    state.offset_ms = -year_ms
    stamp = (WALL_MS + year_ms) << 16
    [message] = bob.take(ann.id, ann.seal(Outgoing(bob.id, 1, 1000, b""), hlc=stamp))
    clock = HybridClock(wall_at_zero_s=WALL_MS / 1000)
    assert not clock.merge(message.hlc, 0.0)
    assert clock.latest < stamp


def test_clock_back_at_the_sender_does_not_silence_it_nor_revive_old_messages() -> None:
    """The hybrid clock resumes above what was persisted, so a sender set back to 1970 goes on where it was."""
    fleet = authority()
    ann = device(fleet, "ann")
    bob = receiver(fleet, "bob", ann)
    before = HybridClock(wall_at_zero_s=WALL_MS / 1000)
    old = ann.seal(Outgoing(bob.id, 1, 1000, b"old"), hlc=before.stamp(0.0))
    assert bob.take(ann.id, ann.seal(Outgoing(bob.id, 1, 1000, b"seen"), hlc=before.stamp(0.0)))
    bound = before.bound_to_persist(0.0)
    assert bound is not None
    after = HybridClock(wall_at_zero_s=0.0, resume_above=bound)
    restarted = Sealer(ann.identity.key, ann.identity.fleet, make_boot(2, b"s" * 8))
    bob.wall_ms += 10_000
    assert bob.take(ann.id, restarted.seal([Outgoing(bob.id, 1, 60_000, b"new")], after.stamp(0.0)))
    assert bob.take(ann.id, old) == []
    assert bob.rejected() == {R.OLD_BOOT: 1}


def test_clock_back_at_the_receiver_does_not_revive_an_expired_credential() -> None:
    """The newest time that the root signed is a floor under this device's own clock."""
    fleet = authority()
    ann = device(fleet, "ann")
    bob = receiver(fleet, "bob", ann)
    later_s = ann.identity.credential.not_after_s + 60
    carol = admit(fleet, "carol", now_s=later_s)
    bob.book.learn(carol.credential.der, now_s=WALL_MS / 1000)
    assert bob.book.time_floor_s == later_s
    assert bob.take(ann.id, ann.say(bob.id)) == []
    assert bob.rejected() == {R.EXPIRED: 1}
    leaf = ann.identity.issue_leaf(WALL_MS / 1000)
    proofs: list[Callable[[], object]] = [
        lambda: bob.book.learn(ann.identity.credential.der, now_s=WALL_MS / 1000),
        lambda: bob.book.verify_peer(leaf.chain_pem, leaf.chain_pem, now_s=WALL_MS / 1000),
    ]
    for prove in proofs:
        with pytest.raises(CertificateError) as caught:
            prove()
        assert caught.value.fault is CertificateFault.EXPIRED


def test_reply_after_crash_is_the_stored_answer_and_never_a_second_run() -> None:
    """The asker says its award and commit again, as it must: it does not know that the answer was lost in the crash."""
    desk = ParticipantDesk()
    act = desk.award()
    commit = Commit(task=desk.task, epoch=act.epoch)
    desk.hear(commit)
    desk.feed(WorkEnded(task=desk.task, epoch=act.epoch, outcome=WorkOutcome(result=b"done once")))
    told = desk.one(Inform)
    desk.restart()
    desk.bidder.price(999_999)  # asked afresh it would decide otherwise
    for again in (act, commit, act):
        desk.hear(again)
        assert desk.one(Inform) == told
        assert not desk.of(StartWork)
    assert not desk.bidder.held
