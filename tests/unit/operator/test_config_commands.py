"""`meshagent config`: what is effective, why, and how it is changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


def test_show_tells_every_value_and_where_it_came_from(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "meshagent.toml").write_text('preset = "field"\n[network]\nport = 7000\n')
    monkeypatch.setenv("MESHAGENT_TASKS__QUEUE", "3")
    values = run("config", "show", "--json").document["values"]
    assert values["network.port"] == {"value": 7000, "from": "meshagent.toml:3"}
    assert values["tasks.queue"] == {"value": 3, "from": "MESHAGENT_TASKS__QUEUE"}
    assert values["contract.lease_s"] == {"value": 12.0, "from": "preset field"}
    assert values["network.mdns"] == {"value": True, "from": "default"}
    assert "network.port 7000 meshagent.toml:3" in " ".join(run("config", "show").out.split())


def test_explain_gives_formula_defaults_and_how_to_set(run: Run) -> None:
    told = run("config", "explain", "contract.lease_s").out
    assert "L (1 + 2 * 0.03) + 0.1 s" in told
    assert "default 2.0 (loopback), 5.0 (lan), 12.0 (field)" in told
    assert "MESHAGENT_CONTRACT__LEASE_S=VALUE" in told


def test_mistake_8_is_told_by_every_command_with_the_next_step(run: Run, home: Path) -> None:
    (home / "meshagent.toml").write_text("[contract]\nlease = 2.0\n")
    for command in (("config", "check"), ("status",), ("config", "show")):
        done = run(*command)
        assert done.code == 3
        assert done.err == (
            "meshagent.toml:2 contract.lease is unknown; did you mean contract.lease_s (seconds, default 5.0)?\n"
            "  next: meshagent config explain contract.lease_s\n"
        )
    assert run("config", "explain", "contract.lease").code == 3


def test_set_changes_one_key_and_says_when_something_wins_over_it(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = home / "meshagent.toml"
    file.write_text("# ours\n[network]\nport = 7000\n")
    done = run("config", "set", "network.peers", '["10.0.4.20:7340"]', "--json")
    assert done.document["value"] == ["10.0.4.20:7340"]
    assert file.read_text() == '# ours\n[network]\nport = 7000\npeers = ["10.0.4.20:7340"]\n'
    monkeypatch.setenv("MESHAGENT_NETWORK__PORT", "1")
    assert "MESHAGENT_NETWORK__PORT is set and wins over the file" in run("config", "set", "network.port", "2").out
    wrong = run("config", "set", "network.port", "high")
    assert (wrong.code, 'network.port is "high", expected a whole number' in wrong.err) == (3, True)


def test_set_makes_the_users_file_where_there_is_none(run: Run, home: Path) -> None:
    assert run("config", "set", "node.name", "dog-2").code == 0
    assert (home / ".config/meshagent/meshagent.toml").read_text() == '[node]\nname = "dog-2"\n'
    assert run("config", "check", "--json").document["given"] == {"node.name": ".config/meshagent/meshagent.toml:2"}


def test_a_file_can_be_checked_before_it_is_put_in_its_place(run: Run, home: Path) -> None:
    (home / "new.toml").write_text("[node]\nname = 3\n")
    wrong = run("config", "check", "new.toml")
    assert (wrong.code, "new.toml:2 node.name is 3, expected text" in wrong.err) == (3, True)
    (home / "new.toml").write_text('[node]\nname = "dog-2"\n')
    assert run("config", "check", "new.toml").out == "ok: 1 key is given, the rest are defaults of preset lan\n"
