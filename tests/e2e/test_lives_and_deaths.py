"""Nodes that are killed, stopped, expelled, or never had a fleet."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import COMMAND, WORKSHOP, Cli, Running

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("e2e")]

HELLO = """\
from dataclasses import dataclass

from meshagent import Role, Task, task


@dataclass(frozen=True)
class Greet(Task[str]):
    name: str


class Greeter(Role):
    @task
    async def greet(self, job: Greet) -> str:
        return f"hello {job.name}, {self.node.name} speaking"
"""
STUBBORN = WORKSHOP.with_name("stubborn.py")
LOOPBACK = {"MESHAGENT_NETWORK__INTERFACES": "lo", "MESHAGENT_NETWORK__PORT": "0", "MESHAGENT_PRESET": "loopback"}


def running_pids(cli: Cli) -> dict[str, int]:
    nodes: list[dict[str, Any]] = cli("fleet", "dev", "--json").document["nodes"]
    return {node["name"]: node["pid"] for node in nodes if node["pid"]}


def test_the_first_five_minutes_with_the_winner_killed(cli: Cli) -> None:
    (cli.home / "hello.py").write_text(HELLO)
    ann = cli.start("run", "hello.py", "--dev").until("role Greeter: performs Greet(name: str) -> str")
    assert ann.out.startswith("ann (")
    assert "fleet dev, no peers yet" in ann.out
    first = cli("submit", "Greet", "name=world", "--dev")
    assert (first.code, first.out) == (0, "hello world, ann speaking\n"), first.err
    cli.start("run", "hello.py", "--dev", "--name", "bob").until("peer joined  ann")
    ann.process.kill()
    second = cli("submit", "Greet", "name=world", "--dev")
    assert (second.code, second.out) == (0, "hello world, bob speaking\n"), second.err
    again = cli.start("run", "hello.py", "--dev").until("is up in")
    assert again.out.startswith("ann ("), "a killed node leaves its name and identity to its next start"


def test_a_task_outlives_the_kill_of_its_holder_and_why_tells_how(cli: Cli) -> None:
    nodes = {"ann": cli.node("ann"), "bob": cli.node("bob")}
    asked = cli.start("submit", "Slow", "seconds=2.5", "--dev", "--json").until("progress")
    holder = next(name for name in nodes if f"{name}  progress" in asked.err)
    nodes[holder].process.send_signal(signal.SIGKILL)
    done = asked.ended()
    other = "bob" if holder == "ann" else "ann"
    assert (done.code, done.document["result"]) == (0, f"done by {other}"), done.err
    told = cli("why", done.document["task"], "--dev")
    assert f"DONE by {other} after " in told.out
    assert f"{holder} was lost, {other} took over " in told.out
    assert told.out.count("EPOCH") == 2
    assert f"not asked: {holder} (not linked)" in told.out


def test_a_node_finishes_what_it_holds_before_it_leaves(cli: Cli) -> None:
    ann = cli.node("ann")
    asked = cli.start("submit", "Slow", "seconds=1.5", "--dev")
    ann.until("committed")
    ann.process.send_signal(signal.SIGTERM)
    assert ann.ended().code == 0
    assert "leaving: 1 task to finish or hand back within 10 s" in ann.err
    assert (asked.ended().code, asked.out) == (0, "done by ann\n"), asked.err
    assert running_pids(cli) == {}


def test_a_second_ctrl_c_ends_a_node_at_once(cli: Cli) -> None:
    ann = cli.node("ann")
    cli.start("submit", "Slow", "seconds=60", "--dev")
    ann.until("committed")
    ann.process.send_signal(signal.SIGINT)
    ann.until("leaving")
    began_s = time.perf_counter()
    ann.process.send_signal(signal.SIGINT)
    assert ann.ended().code == 0
    assert time.perf_counter() - began_s < 8.0


def test_a_role_that_ignores_its_cancellation_does_not_keep_the_node_from_leaving(cli: Cli) -> None:
    ann = cli.node("ann", STUBBORN)
    cli.start("submit", "Deaf", "--dev")
    ann.until("committed")
    ann.process.send_signal(signal.SIGINT)
    ann.until("leaving")
    ann.process.send_signal(signal.SIGINT)
    assert ann.ended().code == 0
    assert "Stubborn.ignore does not end; it is abandoned" in ann.err
    assert "Traceback" not in ann.err


def test_a_role_that_holds_the_loop_does_not_keep_ctrl_c_from_ending_the_node(cli: Cli) -> None:
    ann = cli.node("ann", STUBBORN)
    cli.start("submit", "Spin", "--dev", "--no-wait")
    ann.until("held the loop for")
    for _ in range(100):  # signals that come at once count once
        ann.process.send_signal(signal.SIGINT)
        if ann.process.poll() is not None:
            break
        time.sleep(0.02)
    assert ann.ended().code == 1
    assert "a role holds this process and does not let go" in ann.err


def test_a_node_goes_on_when_nobody_reads_its_timeline_any_more(cli: Cli) -> None:
    words = [*COMMAND, "run", str(WORKSHOP), "--dev"]
    node = subprocess.Popen(words, cwd=cli.home, env=cli.environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert node.stdout is not None
        assert b"is up in" in node.stdout.readline()
        node.stdout.close()
        for _ in range(2):
            done = cli("submit", "Greet", "name=x", "--dev")
            assert (done.code, done.out) == (0, "hello x, ann speaking\n"), done.err
        assert node.poll() is None
    finally:
        node.kill()
        node.wait(10)


def test_stop_asks_the_node_to_leave_and_waits_for_it(cli: Cli) -> None:
    ann = cli.node("ann")
    assert cli("stop", "--dev").code == 2
    done = cli("stop", "--dev", "--yes")
    assert (done.code, done.out) == (0, "ann has left\n"), done.err
    assert ann.process.wait(1) == 0
    gone = cli("status", "--dev")
    assert (gone.code, "No node runs on this machine in the throw-away fleet." in gone.err) == (4, True)


def test_mistake_1_a_device_without_a_fleet_is_told_both_ways(cli: Cli) -> None:
    done = cli("run", WORKSHOP)
    assert done.code == 3
    assert done.err.splitlines()[-2:] == [
        "This device belongs to no fleet.",
        "  next: to try here: add --dev   to join: meshagent join --request device.req",
    ]
    assert cli("init").code == 0
    assert cli("submit", "Greet").err.splitlines()[-2:] == done.err.splitlines()[-2:]


def test_role_mistakes_are_told_with_file_and_line_and_nothing_starts(cli: Cli) -> None:
    (cli.home / "bad.py").write_text(HELLO.replace("-> str:", "-> int:"))
    done = cli("run", "bad.py", "--dev", "--json")
    assert done.code == 3
    assert "bad.py:13 Greeter.greet returns int, but Greet is a Task[str]." in done.err
    assert done.document["problems"][0]["next"].startswith("return str")
    assert running_pids(cli) == {}


# ---- a real fleet, by files


def peers(cli: Cli, state: Path) -> dict[str, str]:
    rows = cli("peers", "--state", state, "--json", **LOOPBACK).document["peers"]
    return {row["name"]: row["state"] for row in rows}


def started(cli: Cli, state: Path) -> Running:
    return cli.start("run", WORKSHOP, "--state", state, **LOOPBACK).until("is up in")


def test_a_revoked_device_loses_its_links_when_the_list_is_spread_by_a_visitor(cli: Cli) -> None:
    one, two, laptop = cli.device("dog-1"), cli.device("dog-2"), cli.device("laptop")
    first = started(cli, one)
    second = started(cli, two).until("peer joined  dog-1")
    first.until("peer joined  dog-2")
    done = cli("submit", "Greet", "name=x", "--state", laptop, **LOOPBACK)
    assert done.code == 0, done.err
    assert cli("fleet", "revoke", "dog-2", "--yes", "--out", "list.revoked", "--authority", "authority-plant").code == 0
    spread = cli("fleet", "spread", "list.revoked", "--state", laptop, "--json", **LOOPBACK)
    assert (spread.code, spread.document["news"]) == (0, True), spread.err
    first.until("peer lost  dog-2")
    second.until("peer lost  dog-1")
    assert peers(cli, one)["dog-2"] == "lost"
    examined = cli("doctor", "--state", two, "--json", **LOOPBACK)
    assert examined.code == 1
    told = " ".join(f["sentence"] for f in examined.document["findings"] if f["level"] != "ok")
    assert "revoked" in told, examined.out + cli("peers", "--state", two, **LOOPBACK).out


def test_a_device_that_may_not_ask_is_refused_with_its_own_exit_code(cli: Cli) -> None:
    started(cli, cli.device("dog-1"))
    done = cli("submit", "Greet", "name=x", "--state", cli.device("camera", may=["perform:*"]), **LOOPBACK)
    assert done.code == 6
    assert "camera may not ask for workshop.Greet" in done.err


def test_run_tells_json_lines_where_they_are_asked_for(cli: Cli) -> None:
    ann = cli.start("run", WORKSHOP, "--dev", "--json").until("meshagent.up/1")
    cli("submit", "Greet", "name=x", "--dev")
    ann.until('"event": "ended"')
    documents = [json.loads(line) for line in ann.out.splitlines()]
    assert {d["schema"] for d in documents} == {"meshagent.up/1", "meshagent.event/1"}
    assert documents[0]["name"] == "ann"


def test_a_running_node_takes_up_a_renewed_credential_and_its_peers_honour_it(cli: Cli) -> None:
    ann_state, bob_state = cli.device("ann", may=["perform:*"]), cli.device("bob")
    bob = cli.start("run", WORKSHOP, "--state", bob_state, "--name", "bob", **LOOPBACK).until("is up in")
    cli.start("run", "--state", ann_state, "--name", "ann", **LOOPBACK).until("peer joined  bob")
    ask = ("submit", "Greet", "name=you", "--state", ann_state)
    refused = cli(*ask)
    assert refused.code == 6, refused.err
    authority = cli.home / "authority-plant"
    renewed = cli("fleet", "renew", "ann", "--may", "announce:*", "--for", "40d", "--authority", authority)
    assert renewed.code == 0, renewed.err
    taken = cli("join", "ann.cred", "--state", ann_state)
    assert (taken.code, taken.err) == (0, "")
    assert taken.out.startswith("ann uses it from now on: fleet plant")
    assert cli("join", "ann.cred", "--state", ann_state, "--json").document["news"] is False
    done = cli(*ask, "--queue", "--within", "10s")
    assert (done.code, done.out) == (0, "hello you, bob speaking\n"), done.err
    assert "peer lost" not in bob.out
    assert cli("status", "--state", ann_state, "--json").document["credential"]["may"] == ["announce:*"]
    stranger = cli("join", "ann.cred", "--state", bob_state)
    assert (stranger.code, "is for ann" in stranger.err) == (3, True), stranger.err


def test_an_asker_that_is_killed_finishes_its_task_when_it_is_back(cli: Cli) -> None:
    ann = cli.node("ann")
    cli.node("bob")
    ann.until("peer joined  bob")
    asked = cli.start("submit", "Slow", "seconds=4", "--dev", "--node", "ann").until("progress")
    ann.process.kill()
    left = asked.ended()
    assert left.code == 4
    assert "it goes on when the node is back" in left.err
    label = next(word for word in left.err.split() if word.startswith("slow-"))
    assert f"then: meshagent why {label} --dev" in left.err
    again = cli.node("ann")
    again.until(f"{label}  result")
    told = cli("why", label, "--dev")
    assert told.out.startswith(f"{label}  workshop.Slow(seconds=4)\nDONE by "), told.out
    assert "restarted" in told.out
