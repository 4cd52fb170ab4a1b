"""Doctor's judgement: one table of situations, each with the sentence that a person reads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshagent.operator.diagnosis import (
    Facts,
    Finding,
    IdentityFacts,
    InterfaceFacts,
    JournalFacts,
    Knock,
    Level,
    LostPeer,
    NetworkFacts,
    OtherFleet,
    PeerFacts,
    diagnose,
    document,
    healthy,
)

NOW = 1_800_000_000.0
DAY = 86400.0
WLAN = InterfaceFacts(name="wlan0", addresses=("10.0.4.12",), queries=3, own_echo=True, heard_from=4)
GOOD = Facts(
    now_s=NOW,
    identity=IdentityFacts(
        name="dog-2",
        id="m7pz4c1k" + "a" * 44,
        fleet="plant-north",
        fleet_id="e07a" + "b" * 48,
        not_before_s=NOW - DAY,
        not_after_s=NOW + 212 * DAY,
    ),
    network=NetworkFacts(interfaces=(WLAN,), port=7340, port_open=True),
    peers=tuple(PeerFacts(name=f"p{i}", id=f"{i}" * 52, clock_offset_s=0.01 * i, version="0.1.0") for i in range(5)),
    measured=True,
    known=5,
    version="0.1.3",
    journal=JournalFacts(size_bytes=2_200_000, commit_ms=0.6, free_bytes=14 << 30),
)


def only(facts: Facts, topic: str) -> Finding:
    found = [f for f in diagnose(facts) if f.topic == topic]
    assert len(found) == 1, found
    return found[0]


def test_a_healthy_device_is_told_in_four_lines() -> None:
    findings = diagnose(GOOD)
    assert [(f.level, f.topic, f.sentence) for f in findings] == [
        (Level.OK, "identity", "dog-2 (m7pz4c1k), fleet plant-north, credential valid for 212 days"),
        (Level.OK, "network", "wlan0 10.0.4.12, port 7340 tcp open, multicast heard from 4 devices"),
        (Level.OK, "peers", "5 known, 5 linked, clocks within 0.04 s"),
        (Level.OK, "journal", "2.1 MiB, 0.6 ms a commit, 14.0 GiB free"),
    ]
    assert healthy(findings)
    assert not any(f.next_step for f in findings)


@pytest.mark.parametrize(
    ("identity", "sentence", "next_step"),
    [
        ({"fault": "no_identity", "id": ""}, "no identity yet", "meshagent init"),
        ({"fault": "no_fleet"}, "belongs to no fleet", "meshagent join --request"),
        ({"fault": "expired", "not_after_s": NOW - 2 * DAY}, "expired 2 days ago", "fleet renew dog-2"),
        ({"fault": "not_yet_valid", "not_before_s": NOW + 3 * 3600}, "valid only in 3 h 0 min", "set-ntp"),
        ({"fault": "revoked"}, "was revoked", "fleet renew dog-2"),
        ({"fault": "superseded"}, "newer one has replaced", "meshagent join FILE"),
        ({"fault": "unreadable", "detail": "other users may read device.key"}, "other users may read", None),
    ],
)
def test_a_broken_identity_is_a_fault_with_the_way_out(
    identity: dict[str, object], sentence: str, next_step: str | None
) -> None:
    facts = replace(GOOD, identity=replace(GOOD.identity, **identity))  # type: ignore[arg-type]
    found = only(facts, "identity")
    assert found.level is Level.FAIL
    assert sentence in found.sentence
    assert (next_step in (found.next_step or "")) if next_step else found.next_step is None
    assert not healthy(diagnose(facts))


def test_a_credential_that_ends_soon_is_a_warning() -> None:
    facts = replace(GOOD, identity=replace(GOOD.identity, not_after_s=NOW + 5 * DAY))
    assert only(facts, "identity").level is Level.WARN


def test_a_copied_disk_is_told_first() -> None:
    first = diagnose(replace(GOOD, duplicates=("10.0.4.31 (boot 80)",)))[0]
    assert first.sentence.startswith("two devices use identity m7pz4c1k: this one and 10.0.4.31 (boot 80)")
    assert "--new-identity" in (first.next_step or "")


def test_no_interface_is_a_fault() -> None:
    assert only(replace(GOOD, network=NetworkFacts()), "interface").level is Level.FAIL


def test_a_port_in_use_names_who_has_it() -> None:
    network = NetworkFacts(interfaces=(WLAN,), port=7340, port_holder="another meshagent node (dog-2, pid 812)")
    found = only(replace(GOOD, network=network), "port")
    assert found.sentence == "port 7340 is in use by another meshagent node (dog-2, pid 812)."
    assert "--port 0" in (found.next_step or "")


def test_filtered_multicast_names_an_address_that_answers() -> None:
    deaf = replace(WLAN, own_echo=False, heard_from=0)
    network = NetworkFacts(interfaces=(deaf,), port=7340, port_open=True, answered=("10.0.4.20:7340",))
    found = only(replace(GOOD, network=network), "multicast")
    assert found.level is Level.WARN
    assert found.sentence == (
        "sent 3 queries on wlan0, heard none, not even our own echo: "
        "a firewall on this device, or the network, filters multicast."
    )
    assert found.next_step == (
        "name one device that you can reach:  meshagent config set network.peers '[\"10.0.4.20:7340\"]'"
        "   (we tried: it answers)"
    )


def test_peers_that_multicast_does_not_hear_show_a_network_that_filters() -> None:
    network = NetworkFacts(
        interfaces=(replace(WLAN, heard_from=0),), port=7340, port_open=True, answered=("10.0.4.20:7340",)
    )
    found = only(replace(GOOD, network=network), "multicast")
    assert found.sentence.startswith("5 peers are linked, none is heard by multicast, only our own echo")
    assert "10.0.4.20:7340" in (found.next_step or "")
    lonely = only(replace(GOOD, network=network, peers=()), "peers")
    assert "no other node runs here, or the network filters it" in lonely.sentence


def test_an_interface_that_cannot_send_multicast_says_why() -> None:
    broken = InterfaceFacts(name="tun0", addresses=("10.8.0.2",), problem="Network is unreachable")
    found = only(replace(GOOD, network=NetworkFacts(interfaces=(broken,), port=1, port_open=True)), "multicast")
    assert "not even our own echo: Network is unreachable." in found.sentence


def test_peers_that_refuse_this_device_are_named() -> None:
    lost = (LostPeer(name="heron-1", id="h" * 52, why="refused"), LostPeer(name="cart", id="c" * 52, why="goodbye"))
    found = only(replace(GOOD, lost=lost, peers=()), "refused")
    assert found.level is Level.FAIL
    assert found.sentence.startswith("heron-1 (hhhhhhhh) closed the link and takes this device no more")


def test_multicast_that_was_not_tried_or_is_off_is_no_fault() -> None:
    silent = replace(WLAN, queries=0, own_echo=False, heard_from=0)
    for mdns in (True, False):
        network = NetworkFacts(interfaces=(silent,), port=7340, port_open=True, mdns=mdns)
        assert healthy(diagnose(replace(GOOD, network=network)))


def test_another_fleet_explains_loneliness_and_is_ignored_in_company() -> None:
    other = OtherFleet(address="10.0.4.20", fleet_id="9c41" + "c" * 48, name="plant-south")
    alone = only(replace(GOOD, other_fleets=(other,), peers=()), "fleet")
    assert alone.level is Level.FAIL
    assert alone.sentence == (
        "10.0.4.20 shows a certificate of fleet plant-south (root 9c41..), "
        "this device belongs to plant-north (root e07a..)."
    )
    assert only(replace(GOOD, other_fleets=(other,)), "fleet").level is Level.OK
    several = OtherFleet(address="2 devices on this network", fleet_id="9c41" + "c" * 48, devices=2)
    assert "network show a certificate" in only(replace(GOOD, other_fleets=(several,)), "fleet").sentence


def test_an_address_is_said_once() -> None:
    knock = Knock(address="10.0.4.20:7340", outcome="refused", sentence="10.0.4.20:7340 refuses connections.")
    assert only(replace(GOOD, knocks=(knock,)), "reach").sentence == "10.0.4.20:7340 refuses connections."


@pytest.mark.parametrize(
    ("offset", "level", "words"),
    [
        (4 * 3600 - 120, Level.FAIL, "this clock is 3 h 58 min behind 4 peers that agree within 0.1 s."),
        (-90, Level.FAIL, "this clock is 90 s ahead of 4 peers that agree within 0.1 s."),
        (1.5, Level.WARN, "this clock is 1.5 s behind 4 peers"),
    ],
)
def test_a_wrong_clock_is_measured_against_peers_that_agree(offset: float, level: Level, words: str) -> None:
    peers = tuple(PeerFacts(name=f"p{i}", id=f"{i}" * 52, clock_offset_s=offset + 0.01 * i) for i in range(4))
    found = only(replace(GOOD, peers=peers, dropped_future=212), "clock")
    assert found.level is level
    assert words in found.sentence
    assert "212 so far" in found.sentence


def test_one_peer_with_a_wrong_clock_does_not_accuse_this_device() -> None:
    peers = (*GOOD.peers, PeerFacts(name="heron-1", id="h" * 52, clock_offset_s=-30.0))
    found = only(replace(GOOD, peers=peers), "clock")
    assert found.sentence == "the clock of heron-1 (hhhhhhhh) is 30 s behind."


def test_peers_that_disagree_among_themselves_prove_nothing_about_this_clock() -> None:
    peers = tuple(PeerFacts(name=f"p{i}", id=f"{i}" * 52, clock_offset_s=100.0 * i) for i in (-2, -1, 1, 2))
    assert not [f for f in diagnose(replace(GOOD, peers=peers)) if "this clock" in f.sentence]


def test_dropped_messages_without_links_still_point_at_the_clock() -> None:
    found = only(replace(GOOD, peers=(), dropped_future=7), "clock")
    assert "look like the future and are dropped (7 so far): this clock is likely behind" in found.sentence


def test_another_series_of_versions_is_a_warning_and_a_patch_is_not() -> None:
    newer = PeerFacts(name="crane", id="c" * 52, version="0.2.0")
    found = only(replace(GOOD, peers=(*GOOD.peers, newer)), "version")
    assert "crane 0.2.0" in found.sentence
    assert found.next_step == "update this device"


def test_nobody_in_reach_says_what_was_not_measured() -> None:
    found = only(replace(GOOD, peers=(), known=0), "peers")
    assert found.level is Level.FAIL
    assert found.sentence == "0 known, none linked. Not measured: clocks, versions (nobody to compare with)."


def test_an_address_that_failed_is_told_in_the_transports_words() -> None:
    knock = Knock(address="10.0.4.20:7340", outcome="silent", sentence="nothing answers.", next_step="ping 10.0.4.20")
    found = only(replace(GOOD, knocks=(knock,)), "reach")
    assert (found.sentence, found.next_step) == ("10.0.4.20:7340: nothing answers.", "ping 10.0.4.20")


@pytest.mark.parametrize(
    ("journal", "level"),
    [
        (JournalFacts(free_bytes=1 << 20), Level.FAIL),
        (JournalFacts(free_bytes=200 << 20), Level.WARN),
        (JournalFacts(free_bytes=1 << 40, commit_ms=80), Level.WARN),
        (JournalFacts(free_bytes=1 << 40, sync="normal"), Level.WARN),
        (JournalFacts(free_bytes=1 << 40, problem="the journal is damaged"), Level.FAIL),
    ],
)
def test_a_journal_that_may_break_promises_is_told(journal: JournalFacts, level: Level) -> None:
    found = only(replace(GOOD, journal=journal), "journal")
    assert found.level is level
    assert found.next_step or journal.problem


def test_the_document_carries_every_finding() -> None:
    findings = diagnose(GOOD)
    plain = document(findings, asked="dog-2")
    assert plain["schema"] == "meshagent.doctor/1"
    assert plain["healthy"] is True
    assert [f["topic"] for f in plain["findings"]] == ["identity", "network", "peers", "journal"]  # type: ignore[attr-defined]


def test_filtered_udp_is_told_although_everything_works() -> None:
    assert [f for f in diagnose(GOOD) if f.topic == "udp"] == []
    network = NetworkFacts(interfaces=(WLAN,), port=7340, port_open=True, udp_silent=3)
    found = only(replace(GOOD, network=network), "udp")
    assert found.level is Level.WARN
    assert found.sentence.startswith("3 of 5 linked peers answer no datagram on UDP port 7340.")
    assert found.next_step == "allow UDP 7340 in the firewalls between these devices, as TCP 7340 is"


def test_a_port_that_is_taken_for_udp_is_told() -> None:
    network = NetworkFacts(interfaces=(WLAN,), port=7340, port_open=True, udp_problem="Address already in use")
    assert (
        "UDP port 7340 cannot be had: Address already in use." in only(replace(GOOD, network=network), "udp").sentence
    )
