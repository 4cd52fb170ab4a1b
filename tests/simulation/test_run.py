"""The command: what it prints, and its exit codes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from meshagent.core.contract_net.initiator import Initiator
from meshagent.virtual import run
from meshagent.virtual.play import Verdict, play
from meshagent.virtual.scenario import Options, draw_scenario


def test_good_seeds_end_with_zero_and_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--seeds", "0:3", "--jobs", "1"]) == run.OK
    assert "3 ok · 0 failed" in capsys.readouterr().out


def test_a_broken_promise_is_one_line_to_paste_and_its_own_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    code = run.main(["--seeds", "0:8", "--jobs", "1", "--mutation", "cancelled_early"])
    assert code == run.SAFETY
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    verdict = play(4, Options(mutation="cancelled_early"))
    for part in (
        "FAIL seed 0x4 at",
        "nothing_after_cancelled",
        f"trace {verdict.trace_hash[:8]}",
        "commit ",
        "replay: python -m meshagent.virtual.run --seed 0x4 --mutation cancelled_early --show",
    ):
        assert part in lines[0]


def test_the_replay_breaks_the_same_promise_and_shows_how(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--seed", "0x4", "--mutation", "cancelled_early", "--show"]) == run.SAFETY
    out = capsys.readouterr().out
    assert "fault 0" in out or "asks" in out
    assert "nothing_after_cancelled" in out, "the end of the trace"


def test_what_never_ends_is_another_exit_code() -> None:
    assert run.main(["--seeds", "0:8", "--jobs", "1", "--mutation", "result_told_once"]) == run.LIVENESS


def test_json_is_one_object_with_the_failing_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    run.main(["--seeds", "0:6", "--jobs", "1", "--mutation", "cancelled_early", "--json", "--keep-going"])
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "meshagent.virtual/1"
    assert document["run"] == 6
    assert [failure["seed"] for failure in document["failures"]] == [4]
    assert document["failures"][0]["broken"] == "nothing_after_cancelled"


def test_two_traces_of_one_seed_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = iter(["aa" * 16, "bb" * 16])

    def other_each_time(seed: int, options: Options) -> Verdict:
        return replace(play(seed, options), trace_hash=next(verdicts))

    monkeypatch.setattr(run, "play", other_each_time)
    assert run.main(["--seed", "0"]) == run.NOT_DETERMINISTIC


def test_a_node_that_fails_in_its_own_code_is_a_crash(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(Initiator, "_hear_reserve", broken)
    assert run.main(["--seeds", "0:5", "--jobs", "1"]) == run.CRASH
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_crash_counts_more_than_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = {0: run.LIVENESS, 1: run.CRASH, 2: run.SAFETY}

    def failing(seed: int, options: Options) -> Verdict:
        return replace(play(seed, options), code=codes[seed], broken="x", how="y")

    monkeypatch.setattr(run, "play", failing)
    assert run.main(["--seeds", "0:3", "--jobs", "1", "--keep-going"]) == run.CRASH


@pytest.mark.parametrize("arguments", [["--seeds", "x"], ["--seeds", "5:5"], ["--seed", "1", "--seeds", "0:2"]])
def test_a_wrong_range_is_a_usage_error(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run.main(arguments)
    assert ended.value.code == 2


def test_faults_can_be_left_out_one_by_one() -> None:
    whole = draw_scenario(2, Options(), identities=32)
    less = draw_scenario(2, Options(without=(0,)), identities=32)
    assert whole.plan[1:] == less.plan
    assert whole.asks == less.asks
    assert whole.players == less.players
