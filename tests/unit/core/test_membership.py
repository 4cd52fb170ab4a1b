"""Situations of SWIM and Lifeguard: machines in virtual time, and single steps of one machine."""

from __future__ import annotations

from random import Random

import pytest

from meshagent.core.members import (
    MAX_MEMBERS,
    MAX_REFUTATION,
    PRESETS,
    Accusation,
    Ack,
    CredentialEnded,
    DuplicateIdentity,
    Gossip,
    Incarnation,
    ItemChecked,
    LinkLost,
    LinkOpened,
    MemberChanged,
    MembershipConfig,
    MemberState,
    MessageHeard,
    Nack,
    Path,
    Ping,
    PingReq,
    Say,
    SignOfLife,
    StateLearned,
    StateSet,
    Summary,
    TimePassed,
    Wanted,
)
from meshagent.core.membership import PACKET_HEAD_BYTES, Membership
from meshagent.core.roster import prefix_of
from meshagent.core.spreading import MAX_NEWS, Spreading
from meshagent.core.suspicion import MAX_LOCAL_HEALTH, suspicion_min_s
from meshagent.errors import ConfigurationError
from tests.support.gossip_cluster import Cluster, Ledger, LedgerNotary, formed, node_of

LAN = PRESETS["lan"]


class Bench:
    """One machine, fed by hand."""

    def __init__(self, others: int = 4, config: MembershipConfig = LAN, *, observer: bool = False) -> None:
        self.now_s = 10.0
        self.ledger = Ledger()
        self.notary = LedgerNotary(self.ledger, node_of(0), self.boot(0, 1))
        self.machine = Membership(node_of(0), config, Random(1), self.notary, now_s=self.now_s, observer=observer)
        self.notaries = [self.notary]
        for number in range(1, others + 1):
            self.notaries.append(LedgerNotary(self.ledger, node_of(number), self.boot(number, 1)))
            self.record(number)

    @staticmethod
    def boot(number: int, counter: int) -> bytes:
        return counter.to_bytes(8, "big") + bytes([number]) * 8

    def feed(self, event: object) -> list[object]:
        return list(self.machine.handle(event, now_s=self.now_s))  # type: ignore[arg-type]

    def record(self, number: int, refutation: int = 0, *, left: bool = False) -> list[object]:
        return self.feed(ItemChecked(item=self.notaries[number].record(refutation, left=left), via=node_of(number)))

    def accuse(self, accuser: int, subject: int, incarnation: Incarnation | None = None) -> list[object]:
        item = self.notaries[accuser].accuse(node_of(subject), incarnation or Incarnation(1, 0))
        return self.feed(ItemChecked(item=item, via=node_of(accuser)))

    def heard(self, peer: int, message: object, room_bytes: int = 0, path: Path = Path.DATAGRAM) -> list[object]:
        return self.feed(
            MessageHeard(peer=node_of(peer), message=message, path=path, room_bytes=room_bytes)  # type: ignore[arg-type]
        )

    def until(self, at_s: float) -> list[object]:
        """Pass time, deadline by deadline."""
        effects: list[object] = []
        while (due_s := self.machine.next_deadline_s()) is not None and due_s <= at_s:
            self.now_s = max(self.now_s, due_s)
            effects += self.feed(TimePassed())
        self.now_s = at_s
        return effects

    def state(self, number: int) -> MemberState | None:
        member = self.machine.roster.get(node_of(number))
        return None if member is None else member.state


def said(effects: list[object], kind: type) -> list[Say]:
    return [one for one in effects if isinstance(one, Say) and isinstance(one.message, kind)]


# ---- whole meshes


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_one_known_member_is_enough_to_know_all(preset: str) -> None:
    cluster = Cluster(12, config=PRESETS[preset])
    for number in range(1, 12):
        cluster.link(number, 0)
    assert cluster.run_until(cluster.complete, 4 * PRESETS[preset].protocol_period_s) < 3.0
    assert cluster.suspicions() == 0


def test_a_mesh_at_rest_suspects_nobody_and_sends_two_packets_a_period() -> None:
    cluster = formed(10, seed=3)
    before, started = cluster.packets, sum(peer.sent_bytes for peer in cluster.peers)
    cluster.run(60.0)
    assert cluster.suspicions() == 0
    assert (cluster.packets - before) / 10 / 60 < 2.2
    assert (sum(peer.sent_bytes for peer in cluster.peers) - started) / 10 / 60 < 150


@pytest.mark.parametrize("seed", range(6))
def test_a_tenth_of_all_packets_lost_makes_nobody_faulty(seed: int) -> None:
    cluster = formed(10, seed=seed)
    cluster.loss = 0.1
    cluster.links = False
    cluster.run(120.0)
    faulty = [c for peer in cluster.peers for _, c in peer.changes if c.state is MemberState.FAULTY]
    assert faulty == []


def test_a_death_without_evidence_is_known_to_all_within_the_suspicion() -> None:
    cluster = formed(10, links=False)
    cluster.kill(4)
    took_s = cluster.run_until(lambda: cluster.everybody_sees(4, MemberState.FAULTY), 30.0)
    assert took_s < suspicion_min_s(4, 10, 1.0) + 5.0


def test_a_link_that_the_kernel_closed_makes_suspects_at_once() -> None:
    cluster = formed(10)
    cluster.kill(4)
    assert cluster.everybody_sees(4, MemberState.SUSPECT)
    took_s = cluster.run_until(lambda: cluster.everybody_sees(4, MemberState.FAULTY), 30.0)
    assert took_s <= suspicion_min_s(4, 10, 1.0) + 0.2


def test_a_link_lost_while_the_peer_lives_is_no_end() -> None:
    cluster = formed(6)
    cluster.unlink(1, 2, gone=True)
    cluster.run(3.0)
    assert cluster.complete()


@pytest.mark.parametrize("seed", range(4))
def test_a_node_that_comes_back_is_believed_at_once(seed: int) -> None:
    cluster = formed(8, seed=seed)
    cluster.kill(5)
    cluster.run_until(lambda: cluster.everybody_sees(5, MemberState.FAULTY), 30.0)
    cluster.restart(5)
    cluster.link(5, 0)
    assert cluster.run_until(cluster.complete, 10.0) < 2.0


def test_after_all_have_restarted_all_are_believed() -> None:
    cluster = formed(8)
    for number in range(8):
        cluster.kill(number)
    cluster.run(1.0)
    for number in range(8):
        cluster.restart(number)
    for number in range(1, 8):
        cluster.link(number, 0)
    assert cluster.run_until(cluster.complete, 10.0) < 2.0


@pytest.mark.parametrize("seed", range(4))
def test_a_split_mesh_finds_together_again(seed: int) -> None:
    cluster = formed(9, seed=seed)
    cluster.split(range(4))
    cluster.run(40.0)
    assert not cluster.complete()
    cluster.heal()
    cluster.link(0, 8)
    assert cluster.run_until(cluster.complete, 20.0) < 8.0


def test_a_split_that_heals_within_the_patience_needs_no_link() -> None:
    cluster = formed(8)
    cluster.links = False
    cluster.split(range(3))
    cluster.run(15.0)
    assert not cluster.complete()
    cluster.heal()
    cluster.run_until(cluster.complete, 20.0)


def test_a_frozen_node_is_found_and_refutes_when_it_goes_on() -> None:
    cluster = formed(6)
    cluster.links = False
    cluster.freeze(2)
    cluster.run_until(
        lambda: all(cluster.peers[one].state_of(2) is MemberState.FAULTY for one in (0, 1, 3, 4, 5)), 30.0
    )
    cluster.thaw(2)
    cluster.run_until(cluster.complete, 15.0)


def test_a_frozen_node_judges_nobody_when_it_goes_on() -> None:
    cluster = formed(6)
    cluster.links = False
    cluster.freeze(2)
    cluster.run(60.0)
    before = len(cluster.peers[2].changes)
    cluster.thaw(2)
    cluster.run(0.05)
    assert all(change.state is not MemberState.FAULTY for _, change in cluster.peers[2].changes[before:])


def test_who_leaves_is_told_as_left_and_never_as_faulty() -> None:
    cluster = formed(7)
    cluster.leave(3)
    assert cluster.run_until(lambda: cluster.everybody_sees(3, MemberState.LEFT), 5.0) < 0.5
    cluster.run(30.0)
    assert cluster.everybody_sees(3, MemberState.LEFT)


def test_no_datagram_is_longer_than_1400_bytes() -> None:
    cluster = formed(40)
    for number in range(20):
        cluster.kill(number)
    cluster.run(20.0)
    assert PACKET_HEAD_BYTES < cluster.largest <= LAN.packet_bytes


def test_the_same_seed_gives_the_same_story() -> None:
    def story(seed: int) -> list[object]:
        cluster = formed(8, seed=seed)
        cluster.loss = 0.3
        cluster.kill(1)
        cluster.run(20.0)
        return [(at_s, change) for peer in cluster.peers for at_s, change in peer.changes]

    assert story(5) == story(5)
    assert story(5) != story(6)


# ---- single steps: probing


def test_without_an_answer_others_are_asked_then_the_member_is_suspected() -> None:
    bench = Bench(others=5)
    (ping,) = said(bench.until(bench.now_s + 1.0), Ping)
    effects = bench.until(bench.now_s + LAN.probe_timeout_s)
    requests = [one for one in said(effects, PingReq) if one.message.subject == ping.to]  # type: ignore[union-attr]
    assert len(requests) == LAN.indirect_probes
    assert ping.to not in {one.to for one in requests}
    bench.until(bench.now_s + LAN.protocol_period_s)
    member = bench.machine.roster.get(ping.to)
    assert member is not None
    assert member.state is MemberState.SUSPECT
    assert list(member.accusations) == [node_of(0)]


def test_a_relayed_answer_counts_and_a_strangers_does_not() -> None:
    for stranger in (False, True):
        bench = Bench(others=6)
        (ping,) = said(bench.until(bench.now_s + 1.0), Ping)
        effects = bench.until(bench.now_s + LAN.probe_timeout_s)
        requests = [one for one in said(effects, PingReq) if one.message.subject == ping.to]  # type: ignore[union-attr]
        helpers = {one.to for one in requests}
        others = {node_of(number) for number in range(1, 7)} - helpers - {ping.to}
        answering = min(others if stranger else helpers)
        seq = ping.message.seq  # type: ignore[union-attr]
        bench.feed(MessageHeard(peer=answering, message=Ack(seq=seq, digest=0), path=Path.DATAGRAM, room_bytes=0))
        bench.until(bench.now_s + LAN.probe_timeout_s)
        member = bench.machine.roster.get(ping.to)
        assert member is not None
        assert member.state is (MemberState.SUSPECT if stranger else MemberState.ALIVE)


def test_a_linked_member_is_probed_over_its_link_too_and_a_sign_of_life_there_counts() -> None:
    bench = Bench(others=1)
    bench.feed(LinkOpened(peer=node_of(1), boot=bench.boot(1, 1)))
    bench.until(bench.now_s + 1.0)
    effects = bench.until(bench.now_s + LAN.probe_timeout_s)
    assert [one.path for one in said(effects, Ping)][-1:] == [Path.LINK]
    bench.feed(SignOfLife(peer=node_of(1)))
    bench.until(bench.now_s + 0.4)
    assert bench.state(1) is MemberState.ALIVE


def test_a_helper_pings_relays_the_answer_and_says_nack_in_time() -> None:
    bench = Bench(others=3)
    (ping,) = said(bench.heard(1, PingReq(seq=77, subject=node_of(2))), Ping)
    assert ping.to == node_of(2)
    effects = bench.until(bench.now_s + 0.45)
    assert [(one.to, one.message) for one in said(effects, Nack)] == [(node_of(1), Nack(seq=77))]
    seq = ping.message.seq  # type: ignore[union-attr]
    (ack,) = said(bench.heard(2, Ack(seq=seq, digest=0)), Ack)
    assert (ack.to, ack.message.seq) == (node_of(1), 77)  # type: ignore[union-attr]


def test_missing_nacks_make_a_node_doubt_itself_and_slow_down() -> None:
    bench = Bench(others=5)
    for _ in range(40):
        bench.until(bench.now_s + 1.0)
    assert bench.machine.local_health == MAX_LOCAL_HEALTH
    bench.record(1, refutation=1)
    bench.record(2, refutation=1)
    before_s = bench.now_s
    pings = said(bench.until(before_s + 8 * LAN.protocol_period_s), Ping)
    assert len(pings) <= 2  # one a period of nine, and the second one's turn


def test_nobody_is_asked_to_ping_without_bound() -> None:
    bench = Bench(others=3)
    effects = [one for seq in range(100) for one in bench.heard(1, PingReq(seq=seq, subject=node_of(2)))]
    assert len(said(effects, Ping)) == 16
    assert said(bench.heard(1, PingReq(seq=1, subject=node_of(99))), Ping) == []


def test_an_answer_carries_no_more_than_the_question() -> None:
    bench = Bench(others=5)
    for room_bytes in (0, 100, 400):
        (ack,) = said(bench.heard(1, Ping(seq=1, digest=0), room_bytes), Ack)
        assert isinstance(ack.message, Ack)
        assert sum(len(one) + 2 for one in ack.message.items) <= room_bytes


def test_a_suspect_is_told_first_and_has_room_to_refute() -> None:
    bench = Bench(others=3)
    bench.accuse(1, 2)
    pings = [one for one in said(bench.until(bench.now_s + 4.0), Ping) if one.to == node_of(2)]
    member = bench.machine.roster.get(node_of(2))
    assert member is not None
    assert pings
    message = pings[0].message
    assert isinstance(message, Ping)
    assert message.items[0] in member.accusations.values()
    assert message.pad_bytes + sum(len(one) + 2 for one in message.items) >= 175


# ---- single steps: suspicion


def test_each_distinct_accuser_shortens_the_suspicion_and_the_same_one_does_not() -> None:
    bench = Bench(others=8)
    bench.accuse(1, 8)
    first_s = bench.machine.suspect_until_s(node_of(8))
    bench.accuse(1, 8)
    assert bench.machine.suspect_until_s(node_of(8)) == first_s
    bench.accuse(2, 8)
    second_s = bench.machine.suspect_until_s(node_of(8))
    bench.accuse(3, 8)
    third_s = bench.machine.suspect_until_s(node_of(8))
    assert first_s is not None
    assert second_s is not None
    assert third_s is not None
    assert first_s > second_s > third_s
    assert third_s - bench.now_s == pytest.approx(suspicion_min_s(4, 9, 1.0))


@pytest.mark.parametrize("incarnation", [Incarnation(0, 9), Incarnation(1, 1), Incarnation(2, 0)])
def test_an_accusation_of_another_incarnation_is_ignored(incarnation: Incarnation) -> None:
    bench = Bench()
    bench.accuse(1, 2, incarnation)
    assert bench.state(2) is MemberState.ALIVE


def test_strangers_and_the_dead_accuse_nobody() -> None:
    bench = Bench()
    bench.notaries.append(LedgerNotary(bench.ledger, node_of(9), bench.boot(9, 1)))
    bench.accuse(5, 2)
    assert bench.state(2) is MemberState.ALIVE
    bench.record(3, left=True)
    bench.accuse(3, 2)
    assert bench.state(2) is MemberState.ALIVE


def test_a_refutation_ends_the_suspicion_and_the_old_accusation_is_void() -> None:
    bench = Bench()
    bench.accuse(1, 2)
    effects = bench.record(2, refutation=1)
    assert [one.why for one in effects if isinstance(one, MemberChanged)] == ["refuted"]
    assert bench.machine.suspect_until_s(node_of(2)) is None
    bench.accuse(3, 2)
    assert bench.state(2) is MemberState.ALIVE


def test_an_accused_node_refutes_and_doubts_itself() -> None:
    bench = Bench()
    bench.accuse(1, 0)
    assert bench.machine.own.incarnation == Incarnation(1, 1)
    assert bench.machine.local_health == 1
    gossip = said(bench.until(bench.now_s + 0.2), Gossip)
    assert bench.machine.own.signed in gossip[0].message.items  # type: ignore[union-attr]


def test_an_accusation_of_an_incarnation_we_never_had_makes_us_say_nothing() -> None:
    bench = Bench()
    bench.accuse(1, 0, Incarnation(1, MAX_REFUTATION - 1))
    assert bench.machine.own.incarnation == Incarnation(1, 0)


def test_a_suspect_that_stays_silent_is_faulty_and_its_accusers_are_named() -> None:
    bench = Bench(others=4)
    bench.accuse(1, 2)
    bench.accuse(3, 2)
    effects = bench.until(bench.now_s + 40.0)
    (faulty,) = [
        one
        for one in effects
        if isinstance(one, MemberChanged) and one.node == node_of(2) and one.state is MemberState.FAULTY
    ]
    assert {node_of(1), node_of(3)} <= set(faulty.accusers)


def test_a_liar_that_accuses_everybody_is_heard_at_a_bounded_rate() -> None:
    bench = Bench(others=30)
    for subject in range(2, 31):
        for refutation in range(5):
            bench.accuse(1, subject, Incarnation(1, refutation))
            bench.record(subject, refutation + 1)
    heard = 0
    for _ in range(200):
        before = bench.state(2)
        incarnation = bench.machine.roster.get(node_of(2)).record.incarnation  # type: ignore[union-attr]
        bench.accuse(1, 2, incarnation)
        heard += int(bench.state(2) is MemberState.SUSPECT and before is MemberState.ALIVE)
        bench.record(2, incarnation.refutation + 1)
    assert heard <= 1


# ---- single steps: records and identity


def test_a_record_of_an_older_boot_changes_nothing() -> None:
    bench = Bench()
    bench.notaries[2].boot = bench.boot(2, 5)
    bench.record(2)
    bench.notaries[2].boot = bench.boot(2, 4)
    assert bench.record(2, refutation=99, left=True) == []
    assert bench.state(2) is MemberState.ALIVE


def test_a_new_boot_outranks_every_refutation_and_revives_the_faulty() -> None:
    bench = Bench()
    bench.record(2, refutation=1000)
    bench.accuse(1, 2, Incarnation(1, 1000))
    bench.until(bench.now_s + 60.0)
    assert bench.state(2) is MemberState.FAULTY
    bench.notaries[2].boot = bench.boot(2, 2)
    (changed,) = [one for one in bench.record(2) if isinstance(one, MemberChanged)]
    assert (changed.state, changed.why, changed.restarted) == (MemberState.ALIVE, "restarted", True)


def test_two_boots_of_one_number_are_two_devices_with_one_identity() -> None:
    bench = Bench()
    bench.notaries[2].boot = bench.boot(77, 1)
    (alarm,) = bench.record(2)
    assert isinstance(alarm, DuplicateIdentity)
    assert alarm.node == node_of(2)
    member = bench.machine.roster.get(node_of(2))
    assert member is not None
    assert member.record.boot == bench.boot(2, 1)


def test_a_copy_of_this_very_device_is_noticed() -> None:
    bench = Bench()
    for boot in (bench.boot(99, 1), bench.boot(99, 7)):
        copy = LedgerNotary(bench.ledger, node_of(0), boot)
        (alarm,) = bench.feed(ItemChecked(item=copy.record(0, left=False), via=node_of(1)))
        assert isinstance(alarm, DuplicateIdentity)
        assert alarm.node == node_of(0)
    old = LedgerNotary(bench.ledger, node_of(0), bench.boot(3, 0))
    assert bench.feed(ItemChecked(item=old.record(0, left=False), via=node_of(1))) == []


def test_a_member_that_flaps_is_believed_at_a_bounded_rate() -> None:
    bench = Bench()
    learned = sum(bool(bench.record(2, refutation=one)) for one in range(1, 500))
    assert learned <= 16
    bench.now_s += 10.0
    assert bench.record(2, refutation=1000)


def test_churned_identities_cost_bounded_memory_and_push_out_nobody_who_is_present() -> None:
    bench = Bench(others=2)
    for number in range(10, 10 + MAX_MEMBERS + 50):
        notary = LedgerNotary(bench.ledger, node_of(number), bench.boot(1, 1))
        bench.feed(ItemChecked(item=notary.record(0, left=False), via=node_of(1)))
    assert len(bench.machine.roster) == MAX_MEMBERS
    assert len(bench.machine.news) <= MAX_NEWS
    assert bench.state(1) is MemberState.ALIVE
    bench.record(2, left=True)
    newest = LedgerNotary(bench.ledger, node_of(9), bench.boot(9, 1))
    assert bench.feed(ItemChecked(item=newest.record(0, left=False), via=node_of(1)))
    assert bench.state(2) is None


def test_whose_credential_ended_is_forgotten() -> None:
    bench = Bench()
    (changed,) = bench.feed(CredentialEnded(peer=node_of(2)))
    assert isinstance(changed, MemberChanged)
    assert changed.state is None
    assert bench.state(2) is None
    assert bench.machine.nodes == 4


def test_who_is_gone_for_long_is_forgotten() -> None:
    bench = Bench()
    bench.record(2, left=True)
    bench.until(bench.now_s + LAN.forget_s + 90.0)
    assert bench.state(2) is None


# ---- single steps: links and tables


def test_a_link_that_opens_is_proof_of_life_for_that_boot_alone() -> None:
    bench = Bench()
    bench.accuse(1, 2)
    bench.accuse(1, 3)
    bench.feed(LinkOpened(peer=node_of(2), boot=bench.boot(2, 1)))
    bench.feed(LinkOpened(peer=node_of(3), boot=bench.boot(3, 2)))
    assert bench.state(2) is MemberState.ALIVE
    assert bench.state(3) is MemberState.SUSPECT


def test_a_newcomer_compares_tables_with_a_few_and_tells_the_others_its_record() -> None:
    bench = Bench(others=20)
    effects = [e for n in range(1, 21) for e in bench.feed(LinkOpened(peer=node_of(n), boot=bench.boot(n, 1)))]
    assert len(said(effects, Summary)) == LAN.join_push_pulls
    assert len(said(effects, Gossip)) == 20


def test_tables_are_compared_in_both_directions() -> None:
    one, two = Bench(others=3), Bench(others=0)
    two.machine = Membership(
        node_of(7), LAN, Random(2), LedgerNotary(two.ledger, node_of(7), two.boot(7, 1)), now_s=two.now_s
    )
    (summary,) = said(two.feed(LinkOpened(peer=node_of(0), boot=one.boot(0, 1))), Summary)
    answer = one.heard(7, summary.message, path=Path.LINK)
    (gossip,) = said(answer, Gossip)
    assert len(gossip.message.items) == 4  # type: ignore[union-attr]
    (wanted,) = said(answer, Wanted)
    assert wanted.message.prefixes == (prefix_of(node_of(7)),)  # type: ignore[union-attr]
    (given,) = said(two.heard(0, wanted.message, path=Path.LINK), Gossip)
    assert given.message.items == (two.machine.own.signed,)  # type: ignore[union-attr]


def test_equal_tables_have_nothing_to_tell() -> None:
    bench = Bench(others=3)
    summary = Summary(entries=bench.machine.roster.summary(bench.machine.own, 0))
    assert bench.heard(1, summary, path=Path.LINK) == []


def test_a_suspicion_while_unlinked_is_checked_at_once_when_the_link_breaks() -> None:
    bench = Bench()
    bench.feed(LinkOpened(peer=node_of(2), boot=bench.boot(2, 1)))
    effects = bench.feed(LinkLost(peer=node_of(2), gone=False))
    assert [one.to for one in said(effects, Ping)] == [node_of(2)]
    assert bench.state(2) is MemberState.ALIVE
    bench.feed(LinkLost(peer=node_of(3), gone=True))
    assert bench.state(3) is MemberState.SUSPECT


def test_an_observer_learns_and_says_nothing_of_itself() -> None:
    bench = Bench(others=2, observer=True)
    effects = bench.feed(LinkOpened(peer=node_of(1), boot=bench.boot(1, 1)))
    assert len(said(effects, Summary)) == 1
    assert said(effects, Gossip) == []
    assert bench.machine.next_deadline_s() is None
    assert bench.heard(1, Ping(seq=1, digest=0)) == []


# ---- state records


def test_a_state_record_is_taken_when_newer_and_not_too_often() -> None:
    bench = Bench()
    notary = bench.notaries[2]
    first, second = notary.state(1, b"a"), notary.state(2, b"b")
    assert any(isinstance(e, StateLearned) for e in bench.feed(ItemChecked(item=first, via=node_of(1))))
    assert bench.feed(ItemChecked(item=second, via=node_of(1))) == []
    bench.now_s += 2.0
    assert bench.feed(ItemChecked(item=second, via=node_of(1)))
    bench.now_s += 2.0
    assert bench.feed(ItemChecked(item=first, via=node_of(1))) == []
    notary.boot = bench.boot(2, 2)
    bench.record(2)
    assert bench.feed(ItemChecked(item=notary.state(1, b"c"), via=node_of(1)))


def test_ones_own_state_goes_out_at_a_bounded_rate_and_the_last_one_wins() -> None:
    bench = Bench()
    for body in (b"1", b"2", b"3"):
        bench.feed(StateSet(body=body))
    assert bench.machine._own_state is not None
    assert bench.machine._own_state.body == b"1"
    bench.until(bench.now_s + 1.1)
    assert (bench.machine._own_state.version, bench.machine._own_state.body) == (2, b"3")


# ---- small things


def test_news_goes_least_told_first_and_is_forgotten_when_told_enough() -> None:
    news = Spreading()
    news.put("a", b"a" * 10)
    assert news.take(1000, 2) == (b"a" * 10,)
    news.put("b", b"b" * 10)
    assert news.take(12, 2) == (b"b" * 10,)
    assert set(news.take(1000, 2)) == {b"a" * 10, b"b" * 10}
    assert len(news) == 0
    assert news.take(1000, 2) == ()


def test_a_newer_item_replaces_the_older_of_its_key() -> None:
    news = Spreading()
    news.put("a", b"old")
    news.put("a", b"new")
    assert news.take(1000, 4) == (b"new",)
    news.drop("a")
    assert len(news) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"protocol_period_s": 0.0},
        {"probe_timeout_s": 1.0},
        {"suspicion_multiplier": 0.5},
        {"packet_bytes": 1500},
        {"push_pull_s": float("inf")},
    ],
)
def test_impossible_timings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        MembershipConfig(**wrong)  # type: ignore[arg-type]


def test_an_accusation_names_whom_it_accuses() -> None:
    item = LedgerNotary(Ledger(), node_of(1), bytes(16)).accuse(node_of(2), Incarnation(1, 0))
    assert isinstance(item, Accusation)
    assert item.subject == node_of(2)
