"""What a typed kind means among what peers announce, and the one line at the end."""

from __future__ import annotations

import io
from typing import Any

import pytest

from meshagent.operator.exits import CommandError, Exit
from meshagent.operator.submit import Offer, Wish, _from_stdin, _meant, offers_in, summary
from meshagent.sdk.outline import Outline

CHECK = Offer(Outline.parse("pump.check.v1", "CheckContact(site: str) -> Finding [at_least_once]"), ("dog-1",))
CHARGE = Offer(Outline.parse("pump.charge.v1", "Charge(site: str) -> str"), ("dog-2",))
GREET = Offer(Outline.parse("hello.Greet", "Greet(name: str) -> str"), ("ann",))


@pytest.mark.parametrize("word", ["pump.check.v1", "CheckContact", "checkcontact", "check", "Chec", "pump.chec"])
def test_a_kind_is_meant_by_its_name_its_class_or_a_beginning(word: str) -> None:
    assert _meant(word, [CHECK, CHARGE, GREET]) is CHECK


def test_a_beginning_of_several_kinds_names_them() -> None:
    with pytest.raises(CommandError, match=r"pump could be pump\.check\.v1, pump\.charge\.v1") as caught:
        _meant("pump", [CHECK, CHARGE, GREET])
    assert caught.value.exit_code is Exit.USAGE


def test_a_word_that_nobody_offers_means_nothing() -> None:
    assert _meant("Wash", [CHECK]) is None


def test_descriptions_that_cannot_be_read_are_left_out_and_most_peers_decide() -> None:
    good, other = "Greet(name: str) -> str", "Greet(name: str, loud: bool) -> str"
    answer = {
        "candidates": [
            {
                "value": "hello.Greet",
                "descriptions": {other: ["mallory"], good: ["ann", "bob"], "\x1b[2J": ["eve", "e2", "e3"]},
            },
            {"value": "broken", "descriptions": {"((((": ["eve"]}},
        ]
    }
    [offer] = offers_in(answer)
    assert (offer.outline.signature(), offer.by) == (good, ("ann", "bob"))


def test_the_summary_counts_bids_and_refusals() -> None:
    told: list[dict[str, Any]] = [
        {"event": "called", "peers": 3},
        {"event": "propose", "peer_name": "ann", "added_ms": 0},
        {"event": "refuse", "reason": "BATTERY"},
        {"event": "refuse", "reason": "BATTERY"},
    ]
    outcome = {"state": "done", "holder_name": "ann\x1b", "after_s": 0.02}
    assert summary(told, outcome) == (
        "called 3 peers · 1 bid: ann, adds 0.0 s · refused: BATTERY 2 · awarded to ann\\x1b · done in 20 ms"
    )


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", '{"kind": 3}', "{}", '{"kind": "x", "sepc": {}}', '{"kind": "x", "within_s": -1}',
     '{"kind": "x", "within_s": NaN}', '{"kind": "x", "priority": true}', '{"kind": "x", "spec": []}', "[" * 100_000],
)  # fmt: skip
def test_stdin_that_holds_no_task_is_a_usage_error(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    with pytest.raises(CommandError, match="stdin holds no task") as caught:
        _from_stdin(Wish(kind="-"))
    assert caught.value.exit_code is Exit.USAGE


def test_options_win_over_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('{"kind": "x", "within_s": 60, "key": "a", "spec": {"n": 1}}'))
    wish = _from_stdin(Wish(kind="-", within_s=5.0))
    assert (wish.kind, wish.within_s, wish.key, wish.spec) == ("x", 5.0, "a", {"n": 1})
