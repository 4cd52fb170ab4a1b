"""Where configuration comes from: TOML files, `MESHAGENT_SECTION__KEY`, flags; and how a file is changed in place.

Order, later wins: defaults, the preset's timings, files, environment, flags. Every problem of a load is collected
and said at once, with file and line, the value seen and the nearest known key.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from meshagent.config import (
    PRESETS,
    SECTIONS,
    TABLES,
    Charger,
    Config,
    MapSection,
    NoGo,
    Origin,
    convert,
    default_of,
    info_of,
    known_keys,
    problem_with,
    shown,
    shown_key,
    type_name,
)
from meshagent.configtext import Outline, outline
from meshagent.errors import ConfigurationError

FILE_NAME: Final = "meshagent.toml"
ENV_PREFIX: Final = "MESHAGENT_"
OTHER_VARIABLES: Final = frozenset(
    {
        "MESHAGENT_CONFIG",
        "MESHAGENT_PASSPHRASE",
        "MESHAGENT_PASSPHRASE_FILE",
        "MESHAGENT_ROOT_PASSPHRASE",
        "MESHAGENT_ROOT_PASSPHRASE_FILE",
    }
)
"""Variables that are no keys: a file to read, and secrets, which must not stand in files."""
MAX_FILE_BYTES: Final = 1 << 20
"""A configuration is some kilobytes; more is the wrong file, and a map of a plant stays below."""
_MAP_KEYS: Final = ("size_m", "sites", "walls", "no_go", "chargers")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and what to type next."""

    message: str
    next_step: str | None = None


class InvalidConfigError(ConfigurationError):
    """All problems of one load."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(p.message for p in problems), next_step=problems[0].next_step)
        self.problems = tuple(problems)


# ---- reading


def user_config_dir(environ: Mapping[str, str]) -> Path:
    """The user's folder for configuration (XDG base directories)."""
    return (
        Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME") or "~").expanduser() / ".config") / "meshagent"
    )


def find_file(environ: Mapping[str, str], cwd: Path) -> Path | None:
    """The file that counts when none is named: ./, then the user's, then the system's folder."""
    for folder in (cwd, user_config_dir(environ), Path("/etc/meshagent")):
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
    return None


@dataclass(slots=True)
class _Draft:
    """Values on their way in, and what was wrong so far."""

    values: dict[str, object] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    map: MapSection | None = None

    def put(self, dotted: str, value: object, origin: Origin) -> None:
        said = f"{origin.where} " if origin.where else ""
        info = info_of(dotted)
        if info is None:
            self.problems.append(unknown_key(dotted, origin.where))
            return
        if dotted == "preset":
            if value not in PRESETS:
                message = f"{said}preset is {shown(value)}, expected one of {', '.join(PRESETS)}"
                self.problems.append(Problem(message, "meshagent config explain preset"))
                return
        else:
            kind = _kind_of(dotted)
            name = dotted.rpartition(".")[2]
            value = convert(kind, name, value)
            problem = problem_with(kind, name, value)
            if problem:
                self.problems.append(Problem(f"{said}{dotted} {problem}", f"meshagent config explain {dotted}"))
                return
        self.values[dotted] = value
        self.origins[dotted] = origin


def load_config(
    files: Sequence[Path] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, tuple[str, object]] | None = None,
    cwd: Path | None = None,
) -> Config:
    """The effective configuration.

    Args:
        files: read in order, later ones win; None: the one that `find_file` finds, if any.
        environ: `MESHAGENT_SECTION__KEY` is taken from it; None: this process's environment.
        flags: dotted key -> (how the flag is spelled, value).
        cwd: where the search for a file starts.

    Raises:
        InvalidConfigError: with every problem found.
    """
    environ = os.environ if environ is None else environ
    cwd = cwd or Path.cwd()
    if files is None:
        named = environ.get("MESHAGENT_CONFIG")
        found = Path(named) if named else find_file(environ, cwd)
        files = [] if found is None else [found]
    draft = _Draft()
    for path in files:
        _read_file(draft, path, cwd)
    _read_environment(draft, environ)
    for dotted, (spelling, value) in (flags or {}).items():
        draft.put(dotted, value, Origin("flag", spelling))
    folder = files[-1].absolute().parent if files else cwd
    map_file = draft.values.get("node.map")
    if map_file:
        _read_map_file(draft, folder / str(map_file))
    if draft.problems:
        raise InvalidConfigError(draft.problems)
    return _build(draft, folder)


def _build(draft: _Draft, folder: Path) -> Config:
    preset = str(draft.values.get("preset", "lan"))
    values = dict(draft.values)
    origins = dict(draft.origins)
    for dotted, value in PRESETS[preset].items():
        if dotted not in values:
            values[dotted] = value
            origins[dotted] = Origin("preset", f"preset {preset}")
    sections: dict[str, Any] = {}
    for name, kind in SECTIONS.items():
        given = {item.name: values[f"{name}.{item.name}"] for item in fields(kind) if f"{name}.{item.name}" in values}
        sections[name] = kind(**given)
    for name, kind in TABLES.items():
        devices: dict[str, dict[str, object]] = {}
        for dotted, value in values.items():
            parts = dotted.split(".")
            if parts[0] == name:
                devices.setdefault(parts[1], {})[parts[2]] = value
        sections[name] = MappingProxyType({device: kind(**given) for device, given in sorted(devices.items())})
    return Config(
        preset=preset, **sections, map=draft.map or MapSection(), origins=MappingProxyType(origins), folder=folder
    )


def _kind_of(dotted: str) -> type[Any]:
    head = dotted.split(".", 1)[0]
    return SECTIONS.get(head) or TABLES[head]


def _read_toml(path: Path, problems: list[Problem]) -> tuple[dict[str, Any], Outline] | None:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            problems.append(Problem(f"{path} has more than {MAX_FILE_BYTES >> 20} MiB: is it the right file?"))
            return None
        text = path.read_bytes().decode("utf-8").replace("\r\n", "\n")
        return tomllib.loads(text), outline(text)
    except UnicodeDecodeError as error:
        problems.append(Problem(f"{path} is not UTF-8 text (byte {error.start})"))
    except tomllib.TOMLDecodeError as error:
        problems.append(Problem(f"{path}: {error}", "TOML wants texts in quotes, lists in [], one key a line"))
    except OSError as error:
        problems.append(Problem(f"{path} cannot be read: {error.strerror}"))
    return None


def _near(path: Path, cwd: Path) -> str:
    """The path as people type it."""
    with contextlib.suppress(ValueError):
        return str(path.absolute().relative_to(cwd.absolute()))
    return str(path)


def _read_file(draft: _Draft, path: Path, cwd: Path) -> None:
    read = _read_toml(path, draft.problems)
    if read is None:
        return
    tree, lines = read
    shown_path = _near(path, cwd)
    for parts, value in _leaves(tree):
        origin = Origin("file", f"{shown_path}:{lines.line_of(parts) or 1}")
        draft.put(".".join(parts), value, origin)
    if "map" in tree:
        _read_map(draft, tree["map"], lambda key: f"{shown_path}:{lines.line_of(('map', key)) or 1}")


def _leaves(tree: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], object]]:
    """Every given key with its value; a section that is no table is given under its own name."""
    for head, body in tree.items():
        if head == "map" and isinstance(body, dict):
            continue
        if not isinstance(body, dict):
            yield (head,), body
            continue
        if head not in SECTIONS and head not in TABLES:
            yield (head,), body  # one sentence for the section, not one for each of its keys
            continue
        for name, value in body.items():
            if head in TABLES and isinstance(value, dict):
                for inner, leaf in value.items():
                    yield (head, name, inner), leaf
            else:
                yield (head, name), value


def _read_environment(draft: _Draft, environ: Mapping[str, str]) -> None:
    for variable in sorted(environ):
        if not variable.startswith(ENV_PREFIX) or variable in OTHER_VARIABLES:
            continue
        dotted = variable.removeprefix(ENV_PREFIX).lower().replace("__", ".")
        origin = Origin("environment", variable)
        if info_of(dotted) is None:
            draft.problems.append(unknown_key(dotted, variable, variable=True))
            continue
        draft.put(dotted, parse_text(dotted, environ[variable]), origin)


def parse_text(dotted: str, text: str) -> object:
    """A value typed in a shell: as TOML where it parses to the right type, else a bare text or a,b,c list."""
    expected = "text" if dotted == "preset" else type_name(_kind_of(dotted), dotted.rpartition(".")[2])
    if expected == "text" and not text.startswith(('"', "'")):
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        if expected == "a list of texts":
            return [part.strip() for part in text.split(",") if part.strip()]
        return text


def unknown_key(dotted: str, where: str = "", *, variable: bool = False) -> Problem:
    """What is said of a key that does not exist, with the nearest one that does."""
    # one-part keys and unknown sections are compared with everything, the rest with their own section first
    names = known_keys()
    wanted = dotted.lower()
    parts = wanted.split(".")
    pattern = ".".join([parts[0], "NAME", *parts[2:]]) if parts[0] in TABLES and len(parts) > 2 else wanted
    same_section = [n for n in names if n.split(".")[0] == parts[0]]
    match = difflib.get_close_matches(pattern, same_section, n=1, cutoff=0.6) if len(parts) > 1 else []
    if not match:
        leaf = parts[-1]
        by_leaf = {n.rpartition(".")[2]: n for n in reversed(names)}
        close = difflib.get_close_matches(leaf, list(by_leaf), n=1, cutoff=0.75)
        sections = difflib.get_close_matches(parts[0], ["preset", "map", *SECTIONS, *TABLES], n=1, cutoff=0.7)
        if sections and sections[0] != parts[0]:
            rest = [sections[0], *parts[1:]]
            match = [".".join(rest)] if info_of(".".join(rest)) else [sections[0]]
        elif close:
            match = [by_leaf[close[0]]]
    said = " ".join(part for part in (where, "" if variable else dotted, "is unknown") if part)
    if not match:
        return Problem(said, "meshagent config show")
    suggestion = match[0]
    if suggestion.split(".")[0] in TABLES and len(parts) > 2:
        suggestion = suggestion.replace("NAME", dotted.split(".")[1])
    info = info_of(suggestion)
    if info is None:
        return Problem(
            f"{said}; did you mean {'[' + suggestion + ']' if '.' not in suggestion else suggestion}?",
            "meshagent config show",
        )
    about = ", ".join(x for x in (info.unit, f"default {shown(default_of(suggestion))}") if x)
    spelled = ENV_PREFIX + suggestion.replace(".", "__").upper() if variable else suggestion
    return Problem(f"{said}; did you mean {spelled} ({about})?", f"meshagent config explain {suggestion}")


# ---- the map


def _read_map_file(draft: _Draft, path: Path) -> None:
    read = _read_toml(path, draft.problems)
    if read is None:
        return
    tree, lines = read
    if not isinstance(tree.get("map"), dict):
        draft.problems.append(Problem(f"{path} has no [map] table", "meshagent config explain node.map"))
        return
    if draft.map is not None:
        draft.problems.append(Problem(f"both node.map ({path}) and a [map] table are given: keep one"))
        return
    _read_map(draft, tree["map"], lambda key: f"{path}:{lines.line_of(('map', key)) or 1}")


def _read_map(draft: _Draft, tree: object, where: Any) -> None:
    if not isinstance(tree, dict):
        draft.problems.append(Problem(f"{where('')} map is {shown(tree)}, expected a table"))
        return
    given: dict[str, Any] = {}
    for key, value in tree.items():
        if key not in _MAP_KEYS:
            close = difflib.get_close_matches(key, _MAP_KEYS, n=1)
            hint = f"; did you mean map.{close[0]}?" if close else f"; [map] has {', '.join(_MAP_KEYS)}"
            draft.problems.append(Problem(f"{where(key)} map.{key} is unknown{hint}"))
            continue
        try:
            given[key] = _MAP_READERS[key](value)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            said = f"misses {error}" if isinstance(error, KeyError) else str(error)
            draft.problems.append(Problem(f"{where(key)} map.{key}: {said}"))
    if not draft.problems:
        draft.map = MapSection(**given)


def _point(value: object) -> tuple[float, float]:
    if (
        not isinstance(value, list)
        or len(value) != 2
        or not all(isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x) for x in value)
    ):
        raise ValueError(f"{shown(value)} is no point, expected [x, y] in metres")
    return float(value[0]), float(value[1])


def _polygon(value: object) -> tuple[tuple[float, float], ...]:
    if not isinstance(value, list) or len(value) < 3:
        raise ValueError("a polygon has at least three points")
    return tuple(_point(p) for p in value)


def _no_go(area: Any) -> NoGo:
    unless = area.get("unless", [])
    if not isinstance(unless, list) or not all(isinstance(capability, str) for capability in unless):
        raise ValueError(f"unless is {shown(unless)}, expected a list of capabilities")
    return NoGo(name=str(area["name"]), polygon=_polygon(area["polygon"]), unless=tuple(unless))


def _charger(charger: Any) -> Charger:
    power_w = charger.get("power_w", 0.0)
    if not isinstance(power_w, (int, float)) or isinstance(power_w, bool) or not 0 <= power_w <= 1e6:
        raise ValueError(f"power_w is {shown(power_w)}, expected watts")
    return Charger(at=_point(charger["at"]), power_w=float(power_w))


_MAP_READERS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "size_m": _point,
        "sites": lambda v: MappingProxyType({str(name): _point(at) for name, at in sorted(v.items())}),
        "walls": lambda v: tuple((_point(wall["from"]), _point(wall["to"])) for wall in v),
        "no_go": lambda v: tuple(_no_go(area) for area in v),
        "chargers": lambda v: tuple(_charger(charger) for charger in v),
    }
)


# ---- changing a file


def set_key(text: str, dotted: str, value: object) -> str:
    """`text` with `dotted` set, comments and order kept; sections are added where they miss.

    Raises:
        ConfigurationError: unknown key, wrong value, or a text that would not parse afterwards.
    """
    draft = _Draft()
    draft.put(dotted, value, Origin("flag", ""))
    if draft.problems:
        raise InvalidConfigError(draft.problems)
    path = tuple(dotted.split("."))
    if text and not text.endswith("\n"):
        text += "\n"
    try:
        before = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"the file cannot be changed: {error}", next_step="meshagent config check") from error
    found = outline(text)
    written = shown(draft.values[dotted])
    if path in found.values:
        span = found.values[path]
        changed = text[: span.start] + written + text[span.end :]
    elif path[:-1] in found.tables:
        at = found.tables[path[:-1]].end
        changed = text[:at] + f"{shown_key(path[-1])} = {written}\n" + text[at:]
    else:
        header = ".".join(shown_key(p) for p in path[:-1])
        changed = text + ("\n" if text else "") + f"[{header}]\n{shown_key(path[-1])} = {written}\n"
    _must_hold(changed, before, path, written)
    return changed


def _must_hold(changed: str, before: dict[str, Any], path: tuple[str, ...], written: str) -> None:
    """The new text says what was asked and nothing else changed; an inline table, say, defeats a change in place."""
    node = before
    for part in path[:-1]:
        node = node.setdefault(part, {})
    node[path[-1]] = tomllib.loads(f"v = {written}")["v"]
    try:
        same = tomllib.loads(changed) == before
    except tomllib.TOMLDecodeError:
        same = False
    if not same:
        raise ConfigurationError(
            f"{'.'.join(path)} stands in a form that cannot be changed in place: edit the file by hand"
        )
