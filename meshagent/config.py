"""What a node is told: frozen sections, checked when built, each key with its meaning and trade-off beside it.

Only values live here. Where they come from (files, environment, flags) is `configfile.py`; turning them into the
machines' own configuration is `runtime/compose.py`. No secret ever stands in a configuration: keys and passphrases
live in the state folder or are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, get_type_hints

from meshagent.errors import ConfigurationError

DEFAULT_PORT: Final = 7340
MAX_NAME_CHARS: Final = 63
"""A name is one DNS label long, so that it can stand in a service record."""


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What `config explain` says about one key, and what a value must satisfy."""

    doc: str
    """One sentence with the unit."""
    trade: str = ""
    """Formula or trade-off: what gets better and worse when it grows."""
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()


def _key(default: Any, doc: str, trade: str = "", **limits: Any) -> Any:
    return field(default=default, metadata={"info": KeyInfo(doc, trade, **limits)})


def _empty(doc: str) -> Any:
    return field(default_factory=lambda: MappingProxyType({}), metadata={"info": KeyInfo(doc)})


class Section:
    """A table of the file. Building it checks every value; a wrong one raises ConfigurationError."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for item in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            problem = problem_with(type(self), item.name, getattr(self, item.name))
            if problem:
                raise ConfigurationError(f"{item.name} {problem}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSection(Section):
    """Who this node is and where it keeps its state."""

    name: str = _key("", "What people call this node; shown beside its key, never trusted. Empty: the host's name.")
    roles: tuple[str, ...] = _key(
        (),
        "Roles to host, as `meshagent run` takes them: an entry point, module:Class or file.py[:Class].",
        "Empty: a node that only keeps its own tasks and relays.",
    )
    state_dir: str = _key(
        "", "Folder of identity (0600), journal and local socket. Empty: the user's state folder, $XDG_STATE_HOME."
    )
    capabilities: tuple[str, ...] = _key(
        (),
        "What this body has (legs, contact-probe), beside what its credential certifies.",
        "A capability claimed and not there costs a failed task; one left out costs a refusal CAPABILITY.",
    )
    frame_id: str = _key("map", "Frame of all poses: ENU, metres, radians.")
    map: str = _key("", "File with a [map] table: sites, no-go areas, walls, chargers. Empty: [map] of this file.")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSection(Section):
    """How peers are found and links kept."""

    port: int = _key(
        DEFAULT_PORT,
        "TCP port of the links.",
        "0 picks a free one, told by mDNS; a port in use is an error, never a silent other port.",
        low=0,
        high=65535,
    )
    interfaces: tuple[str, ...] = _key(
        (), 'Network interfaces to listen and search on, such as ["wlan0"]. Empty: all that are up.'
    )
    mdns: bool = _key(
        True,
        "Search by multicast DNS for the first peer.",
        "Off: only network.peers and remembered peers are dialled; nothing is sent unasked.",
    )
    peers: tuple[str, ...] = _key(
        (), 'Addresses that are always tried too, ["host:port"]; needed where multicast is filtered.'
    )
    keepalive_s: float = _key(
        1.0,
        "A silent link is probed after so many seconds.",
        "silence is told after keepalive_s + keepalive_timeout_s; smaller: quicker takeover, more traffic when idle.",
        unit="seconds",
        low=0.1,
        high=60.0,
    )
    keepalive_timeout_s: float = _key(
        0.5,
        "A probe unanswered for so many seconds closes the link as silent.",
        "Below the radio's worst round trip, links flap.",
        unit="seconds",
        low=0.1,
        high=60.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipSection(Section):
    """Who is alive: SWIM with Lifeguard over UDP, on the port number of the links."""

    enabled: bool = _key(
        True,
        "Tell and hear by gossip who is there.",
        "Off: links alone say so, and every peer must be found by mDNS or network.peers.",
    )
    protocol_period_s: float = _key(
        1.0,
        "One member is probed every so many seconds; that is two packets a period and node, however large the mesh.",
        "A silent death is seen after some 2 periods and given up after suspicion_multiplier * max(1, log10 N) more.",
        unit="seconds",
        low=0.05,
        high=60.0,
    )
    probe_timeout_s: float = _key(
        0.5,
        "Without an answer for so many seconds three others are asked to probe too; less than protocol_period_s.",
        "Above the 99th percentile of the round trip; shorter: more indirect probes.",
        unit="seconds",
        low=0.01,
        high=30.0,
    )
    suspicion_multiplier: float = _key(
        4.0,
        "A suspect that answers nobody is faulty after multiplier * max(1, log10 N) * protocol_period_s.",
        "Up to six times later while nobody else accuses it. Longer: slow peers live, dead ones linger.",
        low=1.0,
        high=100.0,
    )
    gossip_interval_s: float = _key(
        0.2,
        "News leaves every so many seconds, to three members, while there is any.",
        "Each piece goes out 4 * ceil(log10(N + 1)) times a node. Shorter: known sooner, in more packets.",
        unit="seconds",
        low=0.01,
        high=10.0,
    )
    push_pull_s: float = _key(
        30.0,
        "Tables are compared with one member every so many seconds (longer above 32 members): what gossip missed.",
        "Shorter: agreement after a split is sooner, at 33 bytes a member each time.",
        unit="seconds",
        low=1.0,
        high=3600.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractSection(Section):
    """Timing and taste of the contract net."""

    reply_within_s: float = _key(
        0.4,
        "A call for proposals stays open so many seconds; it closes earlier when all live candidates have answered.",
        "Longer: slow peers still count; shorter: one silent peer delays the award less.",
        unit="seconds",
        low=0.01,
        high=60.0,
    )
    lease_s: float = _key(
        5.0,
        "L: the holder may act so many seconds after its last acknowledged renewal.",
        "A lost at_most_once holder is replaced after L (1 + 2 * 0.03) + 0.1 s; renewals go every L / 3.2, so two may "
        "be lost. Longer: calmer on bad radio; shorter: quicker takeover.",
        unit="seconds",
        low=0.5,
        high=600.0,
    )
    potential_p: int = _key(
        4,
        "p of the score (load + added)^p - load^p that decides an award; 1 energy, 4 balanced, 8 makespan.",
        "Grows: work spreads over more robots and ends sooner, together they travel further.",
        low=1,
        high=16,
    )
    award_tolerance: float = _key(
        0.05,
        "A price may drift by this share between bid and award; beyond it the runner-up is asked.",
        "0: every change of a plan repeats an award; large: awards on stale prices.",
        low=0.0,
        high=10.0,
    )
    custodians: int = _key(
        0,
        "How many peers keep an accepted task beside its asker, so that it outlives the asker. 0: its asker alone.",
        "3 is what the design wants and the simulator plays: a round more before a task counts as accepted, and one "
        "before its holder starts. A preview until changes of the set and restored disks are handled whole.",
        low=0,
        high=7,
    )
    backoff_max_s: float = _key(
        8.0,
        "After a call without a usable bid the pause doubles with jitter up to so many seconds.",
        "Longer: quieter while nobody can; shorter: a robot that comes back is asked sooner.",
        unit="seconds",
        low=0.1,
        high=3600.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TasksSection(Section):
    """Executing what was won."""

    queue: int = _key(64, "Contracts held at once; more: refusal BUSY, with the length in it.", low=1, high=10_000)
    worker_processes: int = _key(
        2, 'Handlers declared worker="process" that run at once.', "Each costs about 30 MiB.", low=0, high=256
    )
    blocked_loop_ms: int = _key(
        100,
        "A handler that holds the event loop longer is named in the log and in status.",
        "Renewals of leases ride on the same loop.",
        unit="milliseconds",
        low=1,
        high=60_000,
    )
    drain_s: float = _key(
        10.0,
        "Ctrl-C: finish or checkpoint within so many seconds, hand back, leave; a second Ctrl-C: at once.",
        unit="seconds",
        low=0.0,
        high=3600.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourcesSection(Section):
    """Detected; a key given here promises less."""

    memory_mib: int = _key(0, "Memory promised to tasks. 0: detected, minus 25 %.", unit="MiB", low=0, high=1 << 24)
    cores: int = _key(0, "Processor cores promised to tasks. 0: detected.", low=0, high=4096)
    battery_reserve_soc: float = _key(
        0.2,
        "No contract that would end below this share of the battery, the way to a charger included.",
        "Higher: robots come home more surely and refuse earlier.",
        low=0.0,
        high=1.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BodySection(Section):
    """What bids and battery checks assume of the body where no driver tells better."""

    position_m: tuple[float, ...] = _key((), "Where it stands at start, [x, y] in node.frame_id. Empty: (0, 0).")
    speed_mps: float = _key(
        1.0, "Travel speed that plans are computed with.", unit="metres per second", low=0.001, high=1000.0
    )
    battery_soc: float = _key(
        -1.0,
        "State of charge at start, 0 to 1. -1: read from the device, or mains where there is none.",
        low=-1.0,
        high=1.0,
    )
    battery_wh: float = _key(
        0.0,
        "Usable energy of a full battery. 0: mains or unknown, then no battery check.",
        unit="Wh",
        low=0.0,
        high=1e6,
    )
    move_w: float = _key(0.0, "Power while travelling.", unit="watts", low=0.0, high=1e6)
    idle_w: float = _key(0.0, "Power while standing or working.", unit="watts", low=0.0, high=1e6)


@dataclass(frozen=True, slots=True, kw_only=True)
class PermissionsSection(Section):
    """Beside the credential, which can only be narrowed here. Patterns: a kind, or a prefix with `*`."""

    announce: tuple[str, ...] = _key(("*",), "Task kinds that this node may ask for.")
    perform: tuple[str, ...] = _key(("*",), "Task kinds that this node may perform.")
    approve: tuple[str, ...] = _key((), "Task kinds that this device's user may approve.")


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalSection(Section):
    """What survives a power cut, and for how long it can be told."""

    sync: str = _key(
        "full",
        "full: promises are on the disk before they are sent. normal: a power cut may forget the last tick.",
        "full costs one fsync a tick (0.5 ms on an SSD, 5 to 20 ms on an SD card); status says when it is normal.",
        choices=("full", "normal"),
    )
    keep_days: int = _key(30, "What `why` can still tell.", "About 1 KiB a task.", unit="days", low=1, high=3650)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSection(Section):
    """The log on stderr."""

    level: str = _key(
        "info",
        "Least level that is written: DEBUG per message, INFO per change of a member or task.",
        choices=("debug", "info", "warning", "error"),
    )
    format: str = _key("auto", "auto: text on a terminal, JSON Lines elsewhere.", choices=("auto", "text", "json"))


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorSection(Section):
    """`[sensors.NAME]`: the driver behind the attribute NAME of a role."""

    driver: str = _key("", "Driver by its registered name or module:Class.")
    options: Mapping[str, object] = _empty("Passed to the driver as keyword arguments.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ActuatorSection(Section):
    """`[actuators.NAME]`: a device that moves."""

    driver: str = _key("", "Driver by its registered name or module:Class.")
    options: Mapping[str, object] = _empty("Passed to the driver as keyword arguments.")
    stop_timeout_s: float = _key(
        0.2,
        "stop() at the loss of a lease must return within so many seconds; else the driver's own stop line is pulled.",
        "It is called this long before the lease ends: longer brakes leave less of each lease to act in.",
        unit="seconds",
        low=0.0,
        high=60.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NoGo:
    """An area nobody drives through."""

    name: str
    polygon: tuple[tuple[float, float], ...]
    unless: tuple[str, ...] = ()
    """Capabilities that may cross it all the same, such as `flight`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Charger:
    """Where a robot can charge."""

    at: tuple[float, float]
    power_w: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MapSection:
    """`[map]`, as in a scenario file: metres in the map frame. Sites that nobody placed lie at (0, 0)."""

    size_m: tuple[float, float] | None = None
    sites: Mapping[str, tuple[float, float]] = field(default_factory=lambda: MappingProxyType({}))
    walls: tuple[tuple[tuple[float, float], tuple[float, float]], ...] = ()
    no_go: tuple[NoGo, ...] = ()
    chargers: tuple[Charger, ...] = ()


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an effective value came from; `str()` of it stands in `config show`."""

    source: str
    """default, preset, file, environment or flag."""
    where: str = ""

    def __str__(self) -> str:
        return self.where or self.source


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All of it. `Config()` is a working default (preset lan)."""

    preset: str = "lan"
    node: NodeSection = field(default_factory=NodeSection)
    network: NetworkSection = field(default_factory=NetworkSection)
    membership: MembershipSection = field(default_factory=MembershipSection)
    contract: ContractSection = field(default_factory=ContractSection)
    tasks: TasksSection = field(default_factory=TasksSection)
    resources: ResourcesSection = field(default_factory=ResourcesSection)
    body: BodySection = field(default_factory=BodySection)
    permissions: PermissionsSection = field(default_factory=PermissionsSection)
    journal: JournalSection = field(default_factory=JournalSection)
    log: LogSection = field(default_factory=LogSection)
    sensors: Mapping[str, SensorSection] = field(default_factory=lambda: MappingProxyType({}))
    actuators: Mapping[str, ActuatorSection] = field(default_factory=lambda: MappingProxyType({}))
    map: MapSection = field(default_factory=MapSection)
    origins: Mapping[str, Origin] = field(default_factory=lambda: MappingProxyType({}), compare=False)
    """Dotted key -> where its value came from; keys that nobody gave are defaults."""
    folder: Path = field(default_factory=Path.cwd, compare=False)
    """Relative paths in the values start here: the folder of the file that was read."""

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ConfigurationError(f"preset is {self.preset!r}; it is one of {', '.join(PRESETS)}")

    def origin(self, dotted: str) -> Origin:
        """Where the value of `dotted` came from."""
        return self.origins.get(dotted, Origin("default"))

    def walk(self) -> Iterator[tuple[str, object]]:
        """Every key with its effective value, in the order of the file; [map] is left out."""
        yield "preset", self.preset
        for name, kind in SECTIONS.items():
            for item in fields(kind):
                yield f"{name}.{item.name}", getattr(getattr(self, name), item.name)
        for name in TABLES:
            for device, section in sorted(getattr(self, name).items()):
                for item in fields(section):
                    yield f"{name}.{device}.{item.name}", getattr(section, item.name)


SECTIONS: Final[Mapping[str, type[Any]]] = MappingProxyType(
    {
        "node": NodeSection,
        "network": NetworkSection,
        "membership": MembershipSection,
        "contract": ContractSection,
        "tasks": TasksSection,
        "resources": ResourcesSection,
        "body": BodySection,
        "permissions": PermissionsSection,
        "journal": JournalSection,
        "log": LogSection,
    }
)
TABLES: Final[Mapping[str, type[Any]]] = MappingProxyType({"sensors": SensorSection, "actuators": ActuatorSection})
"""Tables of tables: the second part of the key is the attribute's name in the role."""

PRESETS: Final[Mapping[str, Mapping[str, object]]] = MappingProxyType(
    {
        # one machine: the kernel tells of a death at once, round trips are 0.1 ms
        "loopback": {
            "contract.lease_s": 2.0,
            "contract.backoff_max_s": 4.0,
            "membership.protocol_period_s": 0.25,
            "membership.probe_timeout_s": 0.12,
            "membership.gossip_interval_s": 0.05,
            "membership.push_pull_s": 10.0,
        },
        # switched or good radio: retries of the access point take up to some 100 ms
        "lan": {},
        # moving robots: seconds of shadow are normal and no reason to give work away
        "field": {
            "contract.lease_s": 12.0,
            "contract.reply_within_s": 1.5,
            "contract.backoff_max_s": 20.0,
            "membership.protocol_period_s": 3.0,
            "membership.probe_timeout_s": 1.5,
            "membership.suspicion_multiplier": 5.0,
            "membership.gossip_interval_s": 0.5,
            "membership.push_pull_s": 60.0,
            "network.keepalive_s": 3.0,
            "network.keepalive_timeout_s": 2.0,
        },
    }
)
"""Timings that a preset sets where nothing else does; the fields' own defaults are those of `lan`."""

PRESET_INFO: Final = KeyInfo(
    "Sets every timing that is not given: loopback (one machine), lan, field (moving robots, bad radio).",
    choices=tuple(PRESETS),
)


def info_of(dotted: str) -> KeyInfo | None:
    """What is known about a key; None where there is no such key."""
    if dotted == "preset":
        return PRESET_INFO
    found = _field_of(dotted)
    return None if found is None else found[0].metadata["info"]


def default_of(dotted: str, preset: str = "lan") -> object:
    """The value of a key that nobody gave."""
    if dotted == "preset":
        return "lan"
    found = _field_of(dotted)
    if found is None:
        raise ConfigurationError(f"{dotted} is unknown")
    item = found[0]
    fallback = item.default if item.default is not MISSING else item.default_factory()
    return PRESETS[preset].get(dotted, fallback)


def known_keys() -> list[str]:
    """Every key as it is written, with NAME for what the user names."""
    keys = ["preset"]
    for name, kind in SECTIONS.items():
        keys += [f"{name}.{item.name}" for item in fields(kind)]
    for name, kind in TABLES.items():
        keys += [f"{name}.NAME.{item.name}" for item in fields(kind)]
    return keys


def _field_of(dotted: str) -> tuple[Any, type[Any]] | None:
    parts = dotted.split(".")
    kind: type[Any] | None = None
    if len(parts) == 2:
        kind = SECTIONS.get(parts[0])
    elif len(parts) == 3:
        kind = TABLES.get(parts[0])
    if kind is None:
        return None
    for item in fields(kind):
        if item.name == parts[-1]:
            return item, kind
    return None


def type_name(kind: type[Any], name: str) -> str:
    """How the type of a key is called towards people."""
    hint = _hints(kind)[name]
    return {
        str: "text",
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        tuple[str, ...]: "a list of texts",
        tuple[float, ...]: "a list of numbers",
    }.get(hint, "a table")


def convert(kind: type[Any], name: str, value: object) -> object:
    """TOML's lists become tuples and whole numbers become floats where a number is meant; checks nothing."""
    hint = _hints(kind)[name]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, list):
        if hint == tuple[float, ...]:
            return tuple(float(x) if isinstance(x, int) and not isinstance(x, bool) else x for x in value)
        return tuple(value)
    if isinstance(value, dict):
        return MappingProxyType(dict(value))
    return value


def problem_with(kind: type[Any], name: str, value: object) -> str:
    """Why `value` cannot stand there; empty: it can."""
    hint = _hints(kind)[name]
    info: KeyInfo = next(item.metadata["info"] for item in fields(kind) if item.name == name)
    expected = type_name(kind, name)
    if hint in (str, bool) or hint is int:
        right = isinstance(value, hint) and not (hint is int and isinstance(value, bool))
    elif hint is float:
        right = isinstance(value, float) and math.isfinite(value)
    elif hint == tuple[str, ...]:
        right = isinstance(value, tuple) and all(isinstance(x, str) for x in value)
    elif hint == tuple[float, ...]:
        right = isinstance(value, tuple) and all(isinstance(x, float) and math.isfinite(x) for x in value)
    else:
        right = isinstance(value, Mapping)
    if not right:
        return f"is {shown(value)}, expected {expected}"
    if info.choices and value not in info.choices:
        return f"is {shown(value)}, expected one of {', '.join(info.choices)}"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if info.low is not None and value < info.low:
            return f"is {value}, the least is {info.low:g}{' ' + info.unit if info.unit else ''}"
        if info.high is not None and value > info.high:
            return f"is {value}, the most is {info.high:g}{' ' + info.unit if info.unit else ''}"
    return _special(kind, name, value)


def _special(kind: type[Any], name: str, value: Any) -> str:
    """What bounds and choices cannot say."""
    if kind is NodeSection and name == "name" and (len(value) > MAX_NAME_CHARS or not value.isprintable()):
        return f"is {shown(value)}, expected at most {MAX_NAME_CHARS} printable characters"
    if kind is NetworkSection and name == "peers":
        for address in value:
            host, colon, port = address.rpartition(":")
            if not (host and colon and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
                return f'has {address!r}, expected "host:port", such as "10.0.4.20:{DEFAULT_PORT}"'
    if kind is BodySection and name == "position_m" and len(value) not in (0, 2):
        return f"has {len(value)} numbers, expected [x, y]"
    if kind is BodySection and name == "battery_soc" and -1 < value < 0:
        return f"is {value}, expected -1 or 0 to 1"
    return ""


def shown(value: object) -> str:
    """A value as TOML would write it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = "".join(
            {'"': '\\"', "\\": "\\\\"}.get(
                c, c if c.isprintable() else f"\\u{ord(c):04x}" if ord(c) < 65536 else f"\\U{ord(c):08x}"
            )
            for c in value
        )
        return f'"{escaped}"'
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(shown(x) for x in value) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{shown_key(k)} = {shown(v)}" for k, v in value.items()) + " }" if value else "{}"
    return str(value)


def shown_key(name: object) -> str:
    """A key part, quoted where TOML needs it."""
    text = str(name)
    plain = text != "" and all((c.isascii() and c.isalnum()) or c in "-_" for c in text)
    return text if plain else shown(text)


_HINTS: dict[type[Any], dict[str, Any]] = {}


def _hints(kind: type[Any]) -> dict[str, Any]:
    found = _HINTS.get(kind)
    if found is None:
        found = _HINTS[kind] = get_type_hints(kind)
    return found
