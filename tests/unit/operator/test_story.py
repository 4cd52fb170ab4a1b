"""`why` as text: each event in the words that people use, and nothing that the records do not say."""

from __future__ import annotations

from typing import Any

import pytest

from meshagent.operator.render import Paint
from meshagent.operator.story import Names, Timeline, describe, event_line, scored, tell, told_once

PLAIN = Paint(enabled=False)
HERON, DOG1, DOG2, DOG3 = (name * 13 for name in ("hern", "dogo", "dogt", "dogh"))
NAMES = {HERON: "heron-1", DOG1: "dog-1", DOG2: "dog-2", DOG3: "dog-3"}


def act(t_s: float, event: str, who: str | None = None, **facts: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "t_s": t_s,
        "act": event,
        **facts,
        "verified": facts.pop("verified", True),
        "told_by": HERON,
    }
    if who is not None:
        made |= {"from": who, "name": NAMES[who]}
    return made


def story(*epochs: list[dict[str, Any]], **head: Any) -> dict[str, Any]:
    return {
        "schema": "meshagent.why/1",
        "task": "check-7k2faaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "kind": "pump.check.v1",
        "spec": {"site": "pump-7", "suspected": "outer race"},
        "asked_by": HERON,
        "asked_by_name": "heron-1",
        "delivery": "at_least_once",
        "key": "pump-7/bearing",
        "outcome": "done",
        "ended": True,
        "after_s": 81.9,
        "holder": DOG2,
        "holder_name": "dog-2",
        "result": {"confirmed": True, "rms_g": 0.83},
        "epochs": [
            {"epoch": number, "initiator": HERON, "initiator_name": "heron-1", "acts": acts}
            for number, acts in enumerate(epochs, 1)
        ],
        "told_by": [{"id": HERON, "name": "heron-1", "truncated": False}],
        "not_asked": [],
        **head,
    }


TAKEOVER = story(
    [
        act(0.0, "called", peers=3, kind="pump.check.v1", reply_by_s=0.4, resumes=False),
        act(
            0.004, "refuse", DOG3, reason="BATTERY", detail="would come home with 11 %, reserve is 20 %", verified=False
        ),
        act(0.006, "propose", DOG1, added_ms=38200, load_ms=10000, score=5390000, because="probe is cold: +7.2 s"),
        act(0.007, "propose", DOG2, added_ms=52900, load_ms=20000, score=28080000),
        act(0.007, "closed", bids=2, refusals=1, asked=3, early_s=0.393, potential_p=4),
        act(0.009, "accept_proposal", DOG1, runner_up=DOG2, added_ms=38200, load_ms=10000, plan_version=41),
        act(0.012, "reserve", DOG1, changed=False, plan_version=41),
        act(0.014, "commit", DOG1, lease_s=2.0),
        act(19.402, "lost", DOG1, recalled=True, renewals=9, longest_gap_s=1.12),
    ],
    [
        act(19.551, "called", peers=2, kind="pump.check.v1", reply_by_s=0.4),
        act(19.713, "commit", DOG2, lease_s=2.0),
        act(81.87, "inform", DOG2, renewals=40, longest_gap_s=0.7, reason=None),
    ],
)


def test_a_takeover_is_told_as_it_happened() -> None:
    assert tell(TAKEOVER, PLAIN).splitlines() == [
        'check-7k2f  pump.check.v1(site="pump-7", suspected="outer race")',
        "DONE by dog-2 after 82 s. dog-1 was lost, dog-2 took over 0.31 s later.",
        "result {confirmed: True, rms_g: 0.83}",
        "asked by heron-1 (hernhern) · at_least_once · key pump-7/bearing",
        "",
        "EPOCH 1   initiator heron-1",
        "   +0.000  call       3 peers offer pump.check.v1, reply by +0.400",
        "   +0.004  refused    dog-3      BATTERY      would come home with 11 %, reserve is 20 %",
        "   +0.006  bid        dog-1      adds 38.2 s to a plan of 10.0 s   score 5.39 M   probe is cold: +7.2 s",
        "   +0.007  bid        dog-2      adds 52.9 s to a plan of 20.0 s   score 28.08 M",
        "   +0.007  closed     all 3 answered, 0.393 s early; lowest score wins (balanced, p = 4)",
        "   +0.009  award      dog-1      runner-up dog-2",
        "   +0.012  reserved   dog-1      priced again: unchanged (plan v41)",
        "   +0.014  committed  dog-1      lease 2.0 s",
        "  +19.402  lost       dog-1      at_least_once: called again at once   "
        "after 9 renewals, the longest gap 1.12 s",
        "EPOCH 2   initiator heron-1",
        "  +19.551  call       2 peers offer pump.check.v1, reply by +19.951",
        "  +19.713  committed  dog-2      lease 2.0 s",
        "  +81.870  result     dog-2      after 40 renewals, the longest gap 0.70 s",
        "12 lines by 1 device, 1 of losing bidders known by their link alone · not asked: none",
    ]


def test_a_bid_that_was_awarded_counts_as_verified_and_one_that_lost_does_not() -> None:
    bids = [act(0.0, "propose", dog, added_ms=1, load_ms=0, score=1, verified=False) for dog in (DOG1, DOG2)]
    last = tell(story([*bids, act(0.1, "accept_proposal", DOG1)]), PLAIN).splitlines()[-1]
    assert last.startswith("3 lines by 1 device, 1 of losing bidders known by their link alone")


def test_a_runner_up_is_called_by_name_while_it_happens() -> None:
    event = {"event": "accept_proposal", "task": "check-7k2f", "peer": DOG1, "peer_name": "dog-1", "t_s": 1.0}
    assert event_line({**event, "runner_up": DOG2, "runner_up_name": "dog-2"}).endswith("dog-1      runner-up dog-2")


def test_whoever_could_not_be_asked_is_named_with_the_reason() -> None:
    told = tell(story([], not_asked=[{"id": DOG1, "name": "dog-1", "why": "not linked"}]), PLAIN)
    assert told.splitlines()[-1].endswith("not asked: dog-1 (not linked)")


def test_without_the_asker_the_outcome_is_not_made_up() -> None:
    told = tell(story([], outcome=None, ended=False, holder=None, result=None), PLAIN)
    assert "OUTCOME UNKNOWN: whoever asked for it could not be asked." in told


def test_a_failure_says_why() -> None:
    told = tell(story([], outcome="failed", reason="ERROR", detail="ValueError: x", holder=DOG2), PLAIN)
    assert "FAILED after 82 s: ERROR, ValueError: x." in told


def test_ansi_name_in_a_story_is_escaped_everywhere() -> None:
    evil = "\x1b[2J\u202edog"
    document = story(
        [{**act(0.0, "refuse", DOG1, reason=evil, detail=evil), "name": evil}, act(0.1, evil, DOG2, **{evil: evil})],
        key=evil,
        result=evil,
        spec={evil: evil},
        kind=evil,
        asked_by_name=evil,
        not_asked=[{"id": evil, "name": evil, "why": evil}],
        told_by=[{"id": evil, "name": evil, "truncated": True}],
        outcome=evil,
        reason=evil,
        detail=evil,
    )
    told = tell(document, PLAIN)
    assert not set(told) & set("\x1b\u202e")
    line = event_line({"event": evil, "task": f"{evil}-{evil}", "peer": evil, "peer_name": evil, evil: evil, "t_s": 0})
    assert not set(line) & set("\x1b\u202e")
    line = event_line(
        {"event": "state", "state": evil, "task": evil, "holder": evil, "holder_name": evil, "detail": evil}
    )
    assert not set(line) & set("\x1b\u202e")


def test_asker_and_holder_on_one_device_tell_a_fact_once() -> None:
    twice = [act(0.003, "commit", DOG1, lease_s=2.0), act(0.004, "commit", DOG1, lease_s=2.0, extra=1)]
    assert len(told_once(twice)) == 1
    assert told_once(twice)[0]["extra"] == 1
    later = [act(0.003, "lost", DOG1), act(0.004, "lost", DOG1)]
    assert len(told_once(later)) == 2, "only facts that both machines note are merged"


@pytest.mark.parametrize(
    ("event", "facts", "text"),
    [
        ("called", {"peers": 0, "kind": "x"}, "nobody in reach offers x"),
        ("called", {"peers": 1, "kind": "x", "resumes": True}, "1 peer offers x; a checkpoint goes with the award"),
        (
            "closed",
            {"asked": 3, "bids": 1, "refusals": 0, "silent": f"{DOG2} {DOG3}"},
            "1 of 3 answered in time; silent: ",
        ),
        ("backoff", {"detail": "0 bids, 3 refusals", "again_s": 8.0}, "0 bids, 3 refusals; calls again in 8.0 s"),
        ("checkpoint", {"version": 2, "bytes": 40}, "dog-1      version 2, 40 bytes"),
        ("propose", {"holds_result": True}, "dog-1      has done it already"),
        ("refuse", {"reason": "STALE_BID", "to": "award", "added_ms": 50}, "dog-1      the award   STALE_BID     "),
        ("ended", {"ok": True}, "the handler returned"),
        ("ended", {"ok": False, "reason": "ERROR", "detail": "x"}, "ERROR   x"),
        ("fenced", {"fenced_epoch": 2, "state": "done"}, "dog-1   fenced epoch 2, state done"),
        ("lease_ended", {"why": "no commit within the lease"}, "dog-1      ended   no commit within the lease"),
    ],
)
def test_each_event_reads_as_a_sentence(event: str, facts: dict[str, Any], text: str) -> None:
    one = act(0.0, event, DOG1 if event not in ("called", "closed", "backoff") else None, **facts)
    assert describe(one, Names({"epochs": [{"acts": [one]}]})).startswith(text)


@pytest.mark.parametrize(
    "facts",
    [
        {"added_ms": None},
        {"added_ms": "x", "load_ms": [], "score": "y", "because": 3},
        {"score": 10**400},
        {"score": True},
    ],
)
def test_facts_of_another_type_never_break_the_telling(facts: dict[str, Any]) -> None:
    assert describe(act(0.0, "propose", DOG1, **facts), Names({}))


def test_scores_read_at_a_glance() -> None:
    assert [scored(n) for n in (0, 999, 5_390_000, 10**19, -1500)] == ["0", "999", "5.39 M", "10.00 E", "-1.50 k"]


@pytest.mark.parametrize(
    ("document", "line"),
    [
        ({"event": "peer_joined", "peer": DOG1, "peer_name": "dog-1", "t_s": 3.1}, "   +3.100 s  peer joined  dog-1"),
        (
            {"event": "peer_lost", "peer": DOG1, "peer_name": "dog-1", "t_s": 3.1, "why": "reset: \x1b"},
            "   +3.100 s  peer lost  dog-1  (reset: \\x1b)",
        ),
        (
            {"event": "state", "task": "check-7k2fx", "state": "executing", "progress": 0.8, "note": "reading 2 of 3",
             "holder": DOG2, "holder_name": "dog-2", "t_s": 38.0},
            "  +38.000 s  check-7k2f  dog-2  progress 80 %  reading 2 of 3",
        ),
        ({"event": "state", "task": "check-7k2fx", "state": "held", "t_s": 1.0}, ""),
        (
            {"event": "state", "task": "check-7k2fx", "state": "failed", "reason": "ERROR", "detail": "x", "t_s": 1.0},
            "   +1.000 s  check-7k2f  FAILED  ERROR  x",
        ),
        (
            {"event": "battery_low", "soc": 0.1, "t_s": 1.0, "missed": 3},
            "   +1.000 s  battery low    soc 0.1   (3 events missed)",
        ),
    ],
)  # fmt: skip
def test_events_read_as_lines(document: dict[str, Any], line: str) -> None:
    assert event_line(document) == line


def test_progress_that_does_not_move_is_told_once() -> None:
    timeline = Timeline()
    step = {"event": "state", "task": "slow-aaaa", "state": "executing", "progress": 0.5, "note": "x", "t_s": 1.0}
    assert timeline.line(step)
    assert timeline.line({**step, "t_s": 2.0}) == ""
    assert timeline.line({**step, "task": "slow-bbbb"})
    assert timeline.line({**step, "progress": 0.6})
    assert timeline.line({**step, "progress": 0.6, "note": "y"})
    assert timeline.line({"event": "state", "task": "slow-aaaa", "state": "done", "t_s": 3.0})
    assert timeline.line({**step, "progress": 0.6, "note": "y"}), "a second life of a task is told anew"


def test_an_act_that_a_node_notes_as_asker_and_as_holder_is_told_once() -> None:
    timeline = Timeline()
    commit = {"event": "commit", "task": "slow-aaaa", "peer": DOG1, "peer_name": "dog-1", "epoch": 1, "t_s": 1.0}
    assert timeline.line({**commit, "lease_s": 2.0})
    assert timeline.line({**commit, "t_s": 1.001}) == ""
    assert timeline.line({**commit, "epoch": 2, "t_s": 1.002}), "another epoch is another act"
    assert timeline.line({**commit, "t_s": 9.0}), "so is one much later"


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({"phase": "committed"}, "dog-1 its journal says: committed"),
        ({"in_doubt": True}, "dog-1 past its point of no return"),
        ({"in_doubt": False}, "dog-1"),
    ],
)
def test_a_restart_says_what_was_found(facts: dict[str, Any], text: str) -> None:
    told = describe(act(0.0, "restarted", DOG1, **facts), Names({"told_by": [{"id": DOG1, "name": "dog-1"}]}))
    assert " ".join(told.split()) == text
