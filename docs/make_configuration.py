"""Writes docs/configuration.md from the code: `python docs/make_configuration.py`. A test compares."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from meshagent.config import PRESETS, SECTIONS, TABLES, default_of, info_of, known_keys, shown, type_name

TARGET: Final = Path(__file__).with_name("configuration.md")
HEAD: Final = """\
# Configuration

<!-- Written by docs/make_configuration.py from meshagent/config.py. Change it there. -->

A node needs none. What is given comes from, later wins: defaults, the preset's timings, a TOML file, the environment,
flags. The file is the one that `--config` or `MESHAGENT_CONFIG` names, else the first of `./meshagent.toml`,
`~/.config/meshagent/meshagent.toml` and `/etc/meshagent/meshagent.toml`. `MESHAGENT_CONTRACT__LEASE_S=4` sets
`contract.lease_s`. Unknown keys and impossible values are errors; all of them are named at once, with file and line.

```console
$ meshagent config show                        # effective values, each with where it came from
$ meshagent config check                       # reads everything, runs nothing
$ meshagent config explain contract.lease_s    # meaning, trade-off, default in each preset, value here
$ meshagent config set contract.lease_s 4      # keeps comments and order of the file
```

No secret stands in a configuration. A passphrase comes from the file that `MESHAGENT_PASSPHRASE_FILE` (device key) or
`MESHAGENT_ROOT_PASSPHRASE_FILE` (authority) names, from the variable without `_FILE`, or from whoever types it.

```toml
preset = "field"
[node]
name = "dog-2"
roles = ["dog"]
capabilities = ["legs", "contact-probe"]
[network]
peers = ["10.0.4.20:7340"]                     # where multicast is filtered
[body]
speed_mps = 1.4
battery_wh = 600
move_w = 220
[sensors.probe]
driver = "waveform_file"                       # a registered name, or your_package.module:Class
options = { path = "pump7.wav", rate_hz = 12000 }
[actuators.legs]
driver = "simulated_legs"
[map]                                          # metres in node.frame_id; or a file of its own, node.map
sites = { pump-7 = [20, 10] }
walls = [{ from = [30, 0], to = [30, 6] }]
no_go = [{ name = "press", polygon = [[8, 1], [9, 1], [9, 2]], unless = ["flight"] }]
chargers = [{ at = [2, 2], power_w = 300 }]
```
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD, "\n## preset\n", _table(["preset"])]
    described = {**SECTIONS, **{f"{name}.NAME": kind for name, kind in TABLES.items()}}
    for name, kind in described.items():
        keys = [key for key in known_keys() if key.rpartition(".")[0] == name]
        parts.append(f"\n## [{name}]\n\n{(kind.__doc__ or '').strip()}\n\n{_table(keys)}")
    return "".join(parts)


def _table(keys: list[str]) -> str:
    rows = "".join(f"| `{key}` | {_type(key)} | {_default(key)} | {_meaning(key)} |\n" for key in keys)
    return f"| key | type | default | meaning |\n|---|---|---|---|\n{rows}"


def _type(key: str) -> str:
    info = info_of(key)
    assert info is not None
    if info.choices:
        return ", ".join(info.choices)
    section, _, name = key.rpartition(".")
    kind = SECTIONS.get(section) or TABLES[section.partition(".")[0]]
    bounds = f", {info.low:g} to {info.high:g}" if info.low is not None and info.high is not None else ""
    return f"{type_name(kind, name)}{f', {info.unit}' if info.unit else ''}{bounds}"


def _default(key: str) -> str:
    usual = shown(default_of(key))
    others = [
        f"{preset}: `{shown(values[key])}`" for preset, values in PRESETS.items() if key in values and key != "preset"
    ]
    return "; ".join([f"`{usual}`", *others])


def _meaning(key: str) -> str:
    info = info_of(key)
    assert info is not None
    return f"{info.doc} {info.trade}".strip().replace("|", "\\|")


if __name__ == "__main__":
    TARGET.write_text(page())
