"""Prints what multicast hears on one interface: for hosts in a namespace of their own."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys

from meshagent.transport.interfaces import chosen_interfaces
from meshagent.transport.multicast import hear_multicast

if __name__ == "__main__":
    [found] = asyncio.run(hear_multicast(chosen_interfaces(sys.argv[1:2]), within_s=0.6))
    sys.stdout.write(json.dumps(dataclasses.asdict(found)))
