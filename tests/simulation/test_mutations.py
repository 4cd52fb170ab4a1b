"""A net that has caught nothing proves nothing: each planted bug is found within a stated number of seeds.

Bugs that show only when somebody sleeps or falls silent at the wrong moment are looked for where that happens often.
Of PROTOCOL-DESIGN's list this slice can meet these; the others need custodians. A tombstone dropped early harms
nobody here: its only initiator answers whatever comes late, and without its commit nothing starts.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from meshagent.virtual.identities import POOL_SIZE
from meshagent.virtual.mutations import MUTATIONS
from meshagent.virtual.play import play
from meshagent.virtual.scenario import Options, Scenario, draw_scenario
from tests.support.scenes import cut_off_scene, mute_scene, nap_scene, sleep_scene


def drawn(seed: int) -> Scenario:
    """What the thousand seeds draw."""
    return draw_scenario(seed, Options(), identities=POOL_SIZE)


FOUND_WITHIN: dict[str, tuple[Callable[[int], Scenario], int]] = {
    "runner_up_in_the_same_epoch": (drawn, 60),
    "equal_epochs": (drawn, 200),
    "renewal_counted_from_receipt": (mute_scene, 20),
    "renewal_without_echo": (mute_scene, 40),
    "no_wait_at_boot": (drawn, 200),
    "skipped_persist": (drawn, 100),
    "fence_not_checked_at_the_actuator": (nap_scene, 120),
    "late_done_ignored": (drawn, 60),
    "cancelled_early": (drawn, 60),
    "stale_bid_accepted": (drawn, 200),
    "no_point_of_no_return": (drawn, 200),
    "forfeit_before_stop": (drawn, 60),
    "forfeit_past_the_point_of_no_return": (sleep_scene, 80),
    "monotonic_instead_of_boot_time": (sleep_scene, 60),
    "loss_shortens_the_wait": (cut_off_scene, 20),
    "result_told_once": (drawn, 60),
}


def test_every_mutation_has_a_stated_number() -> None:
    assert sorted(FOUND_WITHIN) == sorted(MUTATIONS)


@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_a_planted_bug_is_found(name: str) -> None:
    scene, within = FOUND_WITHIN[name]
    options = Options(mutation=name)
    for seed in range(within):
        if play(seed, options, scene(seed)).code:
            # The same seed without the bug breaks nothing: it is the bug that was found.
            healthy = play(seed, Options(), scene(seed))
            assert healthy.code == 0, f"seed {seed:#x} without the bug: {healthy.broken}: {healthy.how}"
            return
    pytest.fail(f"{name} broke no promise in {within} seeds")
