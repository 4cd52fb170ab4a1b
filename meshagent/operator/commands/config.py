"""`meshagent config show | check | explain | set`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from meshagent.config import PRESETS, SECTIONS, TABLES, Config, default_of, info_of, known_keys, shown, type_name
from meshagent.configfile import (
    InvalidConfigError,
    find_file,
    load_config,
    parse_text,
    set_key,
    unknown_key,
    user_config_dir,
)
from meshagent.operator.exits import CommandError, Exit
from meshagent.operator.grammar import Screen, command
from meshagent.operator.render import table

app = typer.Typer(help="Effective values, where they come from, what they mean.", no_args_is_help=True)


def _complete_key(incomplete: str) -> list[str]:
    return [key for key in known_keys() if key.startswith(incomplete)]


Key = Annotated[str, typer.Argument(metavar="KEY", autocompletion=_complete_key, help="such as contract.lease_s")]


def _plain(value: object) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value


@command(app)
def show(screen: Screen) -> None:
    """Print the effective values, each with where it came from."""
    config = screen.load_config()
    rows = [(key, value, config.origin(key)) for key, value in config.walk()]
    document = {
        "schema": "meshagent.config/1",
        "values": {key: {"value": _plain(value), "from": str(origin)} for key, value, origin in rows},
    }
    paint = screen.paint
    text = table(
        ("KEY", "VALUE", "FROM"),
        [
            (key, shown(value), paint(str(origin), "dim") if origin.source == "default" else str(origin))
            for key, value, origin in rows
        ],
    )
    screen.answer(document, text)


@command(app)
def check(
    screen: Screen,
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Instead of the files found", show_default=False)
    ] = None,
) -> None:
    """Read files, environment and flags; name everything that is wrong."""
    if file is not None:
        screen = replace(screen, config_files=(*screen.config_files, file))
    config = screen.load_config()
    given = {key: str(origin) for key, origin in config.origins.items() if origin.source != "preset"}
    document = {"schema": "meshagent.config_check/1", "ok": True, "preset": config.preset, "given": given}
    are = "key is" if len(given) == 1 else "keys are"
    screen.answer(document, f"ok: {len(given)} {are} given, the rest are defaults of preset {config.preset}")


@command(app)
def explain(screen: Screen, key: Key) -> None:
    """Say what a key means, its formula or trade-off, its default in each preset, and its value here."""
    info = info_of(key)
    if info is None:
        raise InvalidConfigError([unknown_key(key)])
    config = screen.load_config()
    value = dict(config.walk()).get(key)
    parts = key.split(".")
    kind = SECTIONS.get(parts[0]) or TABLES.get(parts[0])
    kind_name = type_name(kind, parts[-1]) if kind else "text"
    document = {
        "schema": "meshagent.config_key/1",
        "key": key,
        "type": kind_name,
        "unit": info.unit,
        "doc": info.doc,
        "trade_off": info.trade,
        "low": info.low,
        "high": info.high,
        "choices": list(info.choices),
        "default": {preset: _plain(default_of(key, preset)) for preset in PRESETS},
        "value": _plain(value),
        "from": str(config.origin(key)),
        "environment": "MESHAGENT_" + key.upper().replace(".", "__"),
    }
    screen.answer(document, _explained(screen, key, kind_name, document, config))


def _explained(screen: Screen, key: str, kind_name: str, document: dict[str, Any], config: Config) -> str:
    limits = []
    if document["choices"]:
        limits.append("one of " + ", ".join(document["choices"]))
    if document["low"] is not None:
        limits.append(f"{document['low']:g} to {document['high']:g}")
    unit = f" of {document['unit']}" if document["unit"] else ""
    lines = [f"{screen.paint(key, 'bold')}: {kind_name}{unit}{', ' + ', '.join(limits) if limits else ''}"]
    lines.append(f"  {document['doc']}")
    if document["trade_off"]:
        lines.append(f"  {document['trade_off']}")
    defaults = {preset: shown(value) for preset, value in document["default"].items()}
    if len(set(defaults.values())) == 1:
        lines.append(f"  default {next(iter(defaults.values()))}")
    else:
        lines.append("  default " + ", ".join(f"{value} ({preset})" for preset, value in defaults.items()))
    if "NAME" not in key:
        value = document["value"]
        lines.append(f"  here    {shown(value) if value is not None else 'not given'}, from {config.origin(key)}")
    lines.append(f"  set by  meshagent config set {key} VALUE   or {document['environment']}=VALUE")
    return "\n".join(lines)


@command(app, "set")
def set_(
    screen: Screen,
    key: Key,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="as TOML, or a bare text")],
) -> None:
    """Change one key in the configuration file, keeping comments and order."""
    from meshagent.identity.files import write_replace

    if len(screen.config_files) > 1:
        raise CommandError("name one --config to change", exit_code=Exit.USAGE)
    named = os.environ.get("MESHAGENT_CONFIG")
    path = screen.config_files[0] if screen.config_files else Path(named) if named else None
    if path is None:
        path = find_file(os.environ, Path.cwd()) or user_config_dir(os.environ) / "meshagent.toml"
    text = path.read_text("utf-8") if path.exists() else ""
    if info_of(key) is None:
        raise InvalidConfigError([unknown_key(key)])
    parsed = parse_text(key, value)
    changed = set_key(text, key, parsed)
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    write_replace(path, changed.encode())
    path.chmod(mode)
    effective = load_config([path])
    document = {
        "schema": "meshagent.config_set/1",
        "file": str(path),
        "key": key,
        "value": _plain(dict(effective.walk())[key]),
    }
    note = ""
    if effective.origin(key).source == "environment":
        note = f"\n{effective.origin(key)} is set and wins over the file"
    screen.answer(
        document, f"{path}: {key} = {shown(dict(effective.walk())[key])}, from the next start of the node{note}"
    )
