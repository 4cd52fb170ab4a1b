"""Lifeguard's timing as pure functions: how long a suspicion lasts, how far news travels, how slow an ill node must be.

Source: SWIM (Das et al. 2002) 4.2 and 5; Lifeguard (Dadgar et al. 2018) 3 and 4. Numbers of nodes count this one too.
"""

from __future__ import annotations

import math
from typing import Final

MAX_LOCAL_HEALTH: Final = 8
"""S of Lifeguard 4.1: a node that doubts itself probes at most nine times slower."""


def suspicion_min_s(multiplier: float, nodes: int, protocol_period_s: float) -> float:
    """The shortest suspicion: `multiplier * max(1, log10 nodes) * period`.

    News needs about `log nodes` periods to reach everybody, and the way back for the refutation as long again.
    """
    return multiplier * max(1.0, math.log10(max(1, nodes))) * protocol_period_s


def confirmations_wanted(multiplier: float, nodes: int) -> int:
    """K: how many further accusers bring a suspicion down to its minimum; 0 where there are not that many nodes.

    Two nodes do not count: the suspect and the first accuser.
    """
    wanted = max(0, int(multiplier) - 2)
    return wanted if nodes - 2 >= wanted else 0


def suspicion_timeout_s(minimum_s: float, maximum_s: float, confirmations: int, wanted: int) -> float:
    """How long after its start a suspicion ends, with so many confirmations by others (Lifeguard 4.2).

    `max(min, max - (max - min) * log(c + 1) / log(K + 1))`; with K = 0 nobody can confirm, and the minimum holds.
    """
    if wanted < 1:
        return minimum_s
    share = math.log(confirmations + 1) / math.log(wanted + 1)
    return max(minimum_s, maximum_s - (maximum_s - minimum_s) * share)


def retransmit_limit(multiplier: int, nodes: int) -> int:
    """How often one node repeats one piece of news: `multiplier * ceil(log10(nodes + 1))` (SWIM 5.1)."""
    return multiplier * max(1, math.ceil(math.log10(max(1, nodes) + 1)))


def scaled_s(base_s: float, local_health: int) -> float:
    """A duration of a node that doubts itself: `base * (health + 1)`, 0 is healthy (Lifeguard 4.1)."""
    return base_s * (local_health + 1)


def moved_health(local_health: int, change: int) -> int:
    """The local health after `change`, kept between 0 and `MAX_LOCAL_HEALTH`."""
    return min(MAX_LOCAL_HEALTH, max(0, local_health + change))


def push_pull_s(base_s: float, nodes: int) -> float:
    """How often one node compares tables: `base` up to 32 nodes, then longer with `log2(nodes / 32)`.

    The whole mesh would otherwise exchange quadratically many entries a minute.
    """
    return base_s if nodes <= 32 else base_s * (math.ceil(math.log2(nodes) - 5) + 1)
