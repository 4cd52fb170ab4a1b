"""Configuration: precedence, where values come from, and what mistakes are told."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshagent.config import (
    PRESETS,
    SECTIONS,
    TABLES,
    BodySection,
    Charger,
    Config,
    ContractSection,
    NetworkSection,
    default_of,
    info_of,
    known_keys,
    shown,
)
from meshagent.configfile import InvalidConfigError, find_file, load_config, parse_text, set_key
from meshagent.configtext import outline
from meshagent.errors import ConfigurationError


def load(tmp_path: Path, text: str, **environ: str) -> Config:
    (tmp_path / "meshagent.toml").write_text(text)
    return load_config(environ=environ, cwd=tmp_path)


def problems(tmp_path: Path, text: str, **environ: str) -> list[tuple[str, str | None]]:
    with pytest.raises(InvalidConfigError) as caught:
        load(tmp_path, text, **environ)
    return [(p.message, p.next_step) for p in caught.value.problems]


def test_an_empty_machine_has_a_working_configuration(tmp_path: Path) -> None:
    config = load_config(environ={"HOME": str(tmp_path)}, cwd=tmp_path)
    assert config == Config()
    assert str(config.origin("network.port")) == "default"


def test_later_sources_win_and_each_value_knows_where_it_came_from(tmp_path: Path) -> None:
    text = "[network]\nport = 1\nmdns = false\n[contract]\nlease_s = 3\n"
    (tmp_path / "meshagent.toml").write_text(text)
    config = load_config(
        environ={"MESHAGENT_NETWORK__PORT": "2", "MESHAGENT_NETWORK__MDNS": "true"},
        flags={"network.port": ("--port", 3)},
        cwd=tmp_path,
    )
    assert (config.network.port, str(config.origin("network.port"))) == (3, "--port")
    assert (config.network.mdns, str(config.origin("network.mdns"))) == (True, "MESHAGENT_NETWORK__MDNS")
    assert (config.contract.lease_s, str(config.origin("contract.lease_s"))) == (3.0, "meshagent.toml:5")
    assert str(config.origin("tasks.queue")) == "default"


def test_of_several_named_files_the_later_wins(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[tasks]\nqueue = 1\ndrain_s = 1\n")
    (tmp_path / "b.toml").write_text("[tasks]\nqueue = 2\n")
    config = load_config([tmp_path / "a.toml", tmp_path / "b.toml"], environ={}, cwd=tmp_path)
    assert (config.tasks.queue, config.tasks.drain_s) == (2, 1.0)


@pytest.mark.parametrize(("preset", "lease_s"), [("loopback", 2.0), ("lan", 5.0), ("field", 12.0)])
def test_a_preset_sets_the_lease_unless_it_is_given(tmp_path: Path, preset: str, lease_s: float) -> None:
    config = load(tmp_path, f'preset = "{preset}"\n')
    assert config.contract.lease_s == lease_s
    assert config.contract.lease_s == default_of("contract.lease_s", preset)
    assert load(tmp_path, f'preset = "{preset}"\n[contract]\nlease_s = 7.0\n').contract.lease_s == 7.0


def test_a_preset_from_a_flag_loses_to_a_key_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "meshagent.toml").write_text("[contract]\nlease_s = 9.0\n")
    config = load_config(environ={}, flags={"preset": ("--preset", "field")}, cwd=tmp_path)
    assert config.contract.lease_s == 9.0
    assert config.contract.reply_within_s == 1.5
    assert str(config.origin("contract.reply_within_s")) == "preset field"


def test_mistake_8_names_line_key_and_the_nearest_known_one(tmp_path: Path) -> None:
    text = "# what dog-2 is told\n" * 11 + "[contract]\npotential_p = 4\nlease = 2.0\n"
    said = "meshagent.toml:14 contract.lease is unknown; did you mean contract.lease_s (seconds, default 5.0)?"
    assert problems(tmp_path, text) == [(said, "meshagent config explain contract.lease_s")]


@pytest.mark.parametrize("dotted", [key for key in known_keys() if key != "preset"])
def test_every_key_with_a_letter_too_many_is_an_error_that_names_it(tmp_path: Path, dotted: str) -> None:
    *table, leaf = dotted.replace("NAME", "probe").split(".")
    [(message, next_step)] = problems(tmp_path, f"[{'.'.join(table)}]\n{leaf}x = 1\n")
    good = dotted.replace("NAME", "probe")
    assert f"{good}x is unknown; did you mean {good} (" in message
    assert message.startswith("meshagent.toml:2 ")
    assert next_step == f"meshagent config explain {good}"


@pytest.mark.parametrize("name", ["preset", *SECTIONS, *TABLES])
def test_a_misspelt_section_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    [(message, _)] = problems(tmp_path, f"[{name}s2]\nx = 1\n")
    assert f"{name}s2 is unknown" in message
    assert name in message.partition("did you mean")[2]


def test_an_unknown_variable_is_an_error_and_secrets_are_not(tmp_path: Path) -> None:
    [(message, _)] = problems(tmp_path, "", MESHAGENT_NETWORK__PROT="1", MESHAGENT_PASSPHRASE="x")
    assert message == "MESHAGENT_NETWORK__PROT is unknown; did you mean MESHAGENT_NETWORK__PORT (default 7340)?"


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = '[network]\nport = "x"\nprot = 1\n[nodes]\na = 1\n[tasks]\nqueue = 0\n'
    assert [m for m, _ in problems(tmp_path, text)] == [
        'meshagent.toml:2 network.port is "x", expected a whole number',
        "meshagent.toml:3 network.prot is unknown; did you mean network.port (default 7340)?",
        "meshagent.toml:4 nodes is unknown; did you mean [node]?",
        "meshagent.toml:7 tasks.queue is 0, the least is 1",
    ]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("network.port = true", "network.port is true, expected a whole number"),
        ("network.port = 65536", "network.port is 65536, the most is 65535"),
        ("network.peers = ['nowhere']", "network.peers has 'nowhere', expected \"host:port\""),
        ("contract.lease_s = nan", "contract.lease_s is nan, expected a number"),
        ("contract.lease_s = 0.1", "contract.lease_s is 0.1, the least is 0.5 seconds"),
        ('journal.sync = "off"', 'journal.sync is "off", expected one of full, normal'),
        ("body.position_m = [1]", "body.position_m has 1 numbers, expected [x, y]"),
        ("body.battery_soc = -0.5", "body.battery_soc is -0.5, expected -1 or 0 to 1"),
        ('node.name = "a\\u001b[2J"', "expected at most 63 printable characters"),
        ('preset = "wan"', 'preset is "wan", expected one of loopback, lan, field'),
        ("sensors.mic.options = 3", "sensors.mic.options is 3, expected a table"),
        ("network = 3", "network is unknown"),
    ],
)
def test_a_wrong_value_is_shown_with_what_was_expected(tmp_path: Path, line: str, told: str) -> None:
    [(message, _)] = problems(tmp_path, line + "\n")
    assert told in message


def test_sections_check_themselves_when_built_by_a_program() -> None:
    with pytest.raises(ConfigurationError, match="port is 70000, the most is 65535"):
        NetworkSection(port=70000)
    with pytest.raises(ConfigurationError, match="lease_s is nan"):
        ContractSection(lease_s=float("nan"))
    with pytest.raises(ConfigurationError, match="position_m"):
        BodySection(position_m=(1.0,))
    with pytest.raises(ConfigurationError, match="preset"):
        Config(preset="wan")


def test_devices_are_tables_named_by_the_attribute_of_the_role(tmp_path: Path) -> None:
    config = load(tmp_path, '[sensors.probe]\ndriver = "file"\noptions = { path = "a.wav", rate_hz = 12000 }\n')
    assert config.sensors["probe"].driver == "file"
    assert config.sensors["probe"].options == {"path": "a.wav", "rate_hz": 12000}


def test_a_map_is_read_from_its_own_file_or_from_this_one(tmp_path: Path) -> None:
    table = (
        "[map]\nsize_m = [120, 80]\nwalls = [{ from = [60, 0], to = [60, 50] }]\n"
        'no_go = [{ name = "press", polygon = [[80, 10], [95, 10], [95, 25]] }]\n'
        "sites = { pump-7 = [100, 60], dock-2 = [5, 5] }\nchargers = [{ at = [5, 40], power_w = 300 }]\n"
    )
    (tmp_path / "hall.toml").write_text(table)
    by_file = load(tmp_path, '[node]\nmap = "hall.toml"\n').map
    assert by_file == load(tmp_path, table).map
    assert by_file.sites["pump-7"] == (100.0, 60.0)
    assert by_file.chargers == (Charger(at=(5.0, 40.0), power_w=300.0),)
    assert by_file.no_go[0].polygon[2] == (95.0, 25.0)


def test_a_wrong_map_names_the_line(tmp_path: Path) -> None:
    [(message, _)] = problems(tmp_path, "[map]\nsites = { a = [1] }\n")
    assert message == "meshagent.toml:2 map.sites: [1] is no point, expected [x, y] in metres"
    [(message, _)] = problems(tmp_path, "[map]\nsite = {}\n")
    assert message == "meshagent.toml:2 map.site is unknown; did you mean map.sites?"


def test_a_file_that_is_no_toml_is_told_with_its_place(tmp_path: Path) -> None:
    [(message, next_step)] = problems(tmp_path, "[network\nport = 1\n")
    assert "meshagent.toml" in message
    assert "line 1" in message
    assert next_step


def test_the_nearest_file_is_found_first(tmp_path: Path) -> None:
    user = tmp_path / "conf" / "meshagent"
    user.mkdir(parents=True)
    (user / "meshagent.toml").write_text("")
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "conf"), "HOME": str(tmp_path)}
    assert find_file(environ, tmp_path) == user / "meshagent.toml"
    (tmp_path / "meshagent.toml").write_text("")
    assert find_file(environ, tmp_path) == tmp_path / "meshagent.toml"


def test_setting_a_key_keeps_comments_and_order() -> None:
    text = '# mine\n[network]  # radio\nport = 7000  # ours\npeers = [\n  "a:1", # first\n]\n\n[log]\nlevel = "info"\n'
    changed = set_key(text, "network.port", 7341)
    assert changed == text.replace("7000", "7341")
    changed = set_key(changed, "network.peers", ["b:2"])
    assert 'peers = ["b:2"]\n' in changed
    changed = set_key(changed, "network.mdns", False)
    assert changed.index("mdns = false") < changed.index("[log]")
    changed = set_key(changed, "contract.lease_s", 3)
    assert changed.endswith("[contract]\nlease_s = 3.0\n")
    assert changed.startswith("# mine\n[network]  # radio\n")
    changed = set_key(changed, "preset", "field")
    assert tomllib.loads(changed)["preset"] == "field"


def test_setting_refuses_what_it_could_not_do_cleanly() -> None:
    with pytest.raises(ConfigurationError, match="edit the file by hand"):
        set_key("network = { port = 1 }\n", "network.mdns", False)
    with pytest.raises(InvalidConfigError, match="did you mean"):
        set_key("", "network.prot", 1)
    with pytest.raises(InvalidConfigError, match="the most is"):
        set_key("", "network.port", 100_000)


def test_texts_typed_in_a_shell_take_the_type_of_their_key() -> None:
    assert parse_text("node.name", "dog-2") == "dog-2"
    assert parse_text("network.peers", "a:1,b:2") == ["a:1", "b:2"]
    assert parse_text("network.peers", '["a:1"]') == ["a:1"]
    assert parse_text("network.mdns", "false") is False
    assert parse_text("contract.lease_s", "2") == 2


def test_every_key_explains_itself_and_every_preset_names_known_keys() -> None:
    for key in known_keys():
        info = info_of(key.replace("NAME", "x"))
        assert info is not None
        assert info.doc.endswith((".", "?")), key
    for values in PRESETS.values():
        assert set(values) <= set(known_keys())


_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.lists(_texts, max_size=4))
def test_written_values_are_read_back(values: list[str]) -> None:
    assert tomllib.loads(f"v = {shown(tuple(values))}")["v"] == values


@given(_texts, st.integers(0, 65535), st.sampled_from(["'", '"', "'''", '"""']))
def test_outline_finds_values_after_any_string(text: str, port: int, quote: str) -> None:
    body = shown(text)[1:-1] if quote[0] == '"' else "".join(c for c in text if c not in "'" and c.isprintable())
    source = f"a.'b c' = [{quote}{body}{quote}, {{ x = '#' }}] # = [\n[network]\nport = {port} # p\n"
    tomllib.loads(source)
    found = outline(source)
    span = found.values["network", "port"]
    assert source[span.start : span.end] == str(port)
    assert ("a", "b c") in found.values
