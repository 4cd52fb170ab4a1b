"""`meshagent` with a bent clock or version: `python -m tests.support.bent_node OFFSET_S VERSION ARGUMENTS...`.

The wall clock of the node and of its commands is shifted before anything reads it; monotonic time stays.
"""

from __future__ import annotations

import sys
import time

from meshagent.operator import device
from meshagent.operator.main import app
from meshagent.runtime import node
from meshagent.runtime.clock import SystemClock

if __name__ == "__main__":
    offset_s = float(sys.argv[1])
    node.SOFTWARE = sys.argv[2]  # type: ignore[misc]  # the test is about others that run another version

    def shifted(*_self: object) -> float:
        return time.time() + offset_s  # noqa: TID251  # bending it is the point

    SystemClock.wall_s = shifted  # type: ignore[method-assign,assignment]
    device.wall_s = shifted
    app(sys.argv[3:])
