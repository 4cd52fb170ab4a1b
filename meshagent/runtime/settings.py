"""What a node is told when it is built: frozen values, whatever file or scenario they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from meshagent.core.contract_net.interface import ContractConfig
from meshagent.core.members import MembershipConfig
from meshagent.core.travel import Body, Point, SiteMap
from meshagent.runtime.bay import DeviceChoice


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """Everything but the ports. `runtime/compose.py` makes it from a `Config`, the simulator from a scenario."""

    name: str
    contract: ContractConfig = field(default_factory=ContractConfig)
    membership: MembershipConfig | None = None
    """Who is alive, by gossip; None: links alone say so."""
    capabilities: frozenset[str] = frozenset()
    """What this body has, and what its credential certifies."""
    certified: frozenset[str] = frozenset()
    """Those of `capabilities` that the credential alone vouches for; a renewed credential exchanges them."""
    site_map: SiteMap = field(default_factory=SiteMap)
    body: Body = field(default_factory=lambda: Body(speed_mps=1.0))
    position_m: Point = (0.0, 0.0)
    battery_reserve_soc: float = 0.2
    """No contract that ends below it, the way to a charger included."""
    queue: int = 64
    """Contracts held at once; more: refusal BUSY with the length in it."""
    parallel: int = 8
    """Handlers without a place that run at once."""
    blocked_loop_s: float = 0.1
    drain_s: float = 10.0
    """Leaving: finish or checkpoint within so long, hand back the rest."""
    feasible_hook_s: float = 0.010
    """Bidding hooks run on the loop; a slower one is told and its bid replaced by the default."""
    memory_mib: int = 0
    """Promised to contracts; 0: detected, minus a quarter."""
    cores: int = 0
    """Promised to contracts; 0: detected."""
    worker_processes: int = 2
    sensors: Mapping[str, DeviceChoice] = field(default_factory=dict)
    actuators: Mapping[str, DeviceChoice] = field(default_factory=dict)
    simulate_devices: bool = False
    """Stand-ins for devices that nobody configured (`--dev`)."""
    announce: tuple[str, ...] = ("*",)
    perform: tuple[str, ...] = ("*",)
    """Patterns that narrow this device's own credential: a kind, or a prefix with `*`."""
    battery_soc: float | None = None
    """State of charge where no battery can be read; None: what the system shows."""
    visitor: bool = False
    """A node for the length of one command: offers nothing."""
    custodians: int = 3
    """How many others keep a replicated task; 0: its asker alone does."""
    journal_sync: str = "full"
    fleet: str = ""
    """Name of the fleet, for people."""
