"""A mesh of devices that find each other, negotiate a job and get it done, although one of them dies.

What is named here is promised; everything else may move. Names are imported when first used, so that
`import meshagent` costs a command line nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshagent.errors import ConfigurationError as ConfigurationError
    from meshagent.errors import MeshAgentError as MeshAgentError
    from meshagent.sdk.backend import PeerInfo as PeerInfo
    from meshagent.sdk.call import Call as Call
    from meshagent.sdk.call import Proposal as Proposal
    from meshagent.sdk.call import Refusal as Refusal
    from meshagent.sdk.context import Context as Context
    from meshagent.sdk.context import TaskContext as TaskContext
    from meshagent.sdk.declare import every as every
    from meshagent.sdk.declare import on as on
    from meshagent.sdk.declare import task as task
    from meshagent.sdk.errors import LeaseLostError as LeaseLostError
    from meshagent.sdk.errors import SchemaError as SchemaError
    from meshagent.sdk.errors import TaskFailedError as TaskFailedError
    from meshagent.sdk.events import BatteryLow as BatteryLow
    from meshagent.sdk.events import Event as Event
    from meshagent.sdk.events import PeerJoined as PeerJoined
    from meshagent.sdk.events import PeerLost as PeerLost
    from meshagent.sdk.kinds import Task as Task
    from meshagent.sdk.outcome import Cancelled as Cancelled
    from meshagent.sdk.outcome import Done as Done
    from meshagent.sdk.outcome import Failed as Failed
    from meshagent.sdk.outcome import NoAward as NoAward
    from meshagent.sdk.outcome import Outcome as Outcome
    from meshagent.sdk.outcome import Submission as Submission
    from meshagent.sdk.place import Place as Place
    from meshagent.sdk.place import Pose as Pose
    from meshagent.sdk.place import Site as Site
    from meshagent.sdk.requires import Requires as Requires
    from meshagent.sdk.role import Role as Role
    from meshagent.sdk.sensing import Sample as Sample
    from meshagent.sdk.sensing import actuator as actuator
    from meshagent.sdk.sensing import sensor as sensor
    from meshagent.types import Delivery as Delivery
    from meshagent.types import Durability as Durability
    from meshagent.types import InDoubt as InDoubt
    from meshagent.types import Reason as Reason

__version__ = "0.1.0"

_HOMES = {
    # declaring
    "Role": "sdk.role",
    "Task": "sdk.kinds",
    "task": "sdk.declare",
    "on": "sdk.declare",
    "every": "sdk.declare",
    "Event": "sdk.events",
    "sensor": "sdk.sensing",
    "actuator": "sdk.sensing",
    "Sample": "sdk.sensing",
    "Requires": "sdk.requires",
    # bidding
    "Call": "sdk.call",
    "Proposal": "sdk.call",
    "Refusal": "sdk.call",
    "Reason": "types",
    "Place": "sdk.place",
    "Site": "sdk.place",
    "Pose": "sdk.place",
    # doing
    "Context": "sdk.context",
    "TaskContext": "sdk.context",
    "Submission": "sdk.outcome",
    "Outcome": "sdk.outcome",
    "Done": "sdk.outcome",
    "NoAward": "sdk.outcome",
    "Failed": "sdk.outcome",
    "Cancelled": "sdk.outcome",
    "Delivery": "types",
    "InDoubt": "types",
    "Durability": "types",
    # news
    "PeerInfo": "sdk.backend",
    "PeerJoined": "sdk.events",
    "PeerLost": "sdk.events",
    "BatteryLow": "sdk.events",
    # errors
    "MeshAgentError": "errors",
    "ConfigurationError": "errors",
    "SchemaError": "sdk.errors",
    "TaskFailedError": "sdk.errors",
    "LeaseLostError": "sdk.errors",
}

__all__ = [
    # declaring
    "Role",
    "Task",
    "task",
    "on",
    "every",
    "Event",
    "sensor",
    "actuator",
    "Sample",
    "Requires",
    # bidding
    "Call",
    "Proposal",
    "Refusal",
    "Reason",
    "Place",
    "Site",
    "Pose",
    # doing
    "Context",
    "TaskContext",
    "Submission",
    "Outcome",
    "Done",
    "NoAward",
    "Failed",
    "Cancelled",
    "Delivery",
    "InDoubt",
    "Durability",
    # news
    "PeerInfo",
    "PeerJoined",
    "PeerLost",
    "BatteryLow",
    # errors
    "MeshAgentError",
    "ConfigurationError",
    "SchemaError",
    "TaskFailedError",
    "LeaseLostError",
    "__version__",
]

if not TYPE_CHECKING:  # a type checker reads the imports above and would take __getattr__ as "any name exists"

    def __getattr__(name: str) -> Any:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{home}"), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *_HOMES})
