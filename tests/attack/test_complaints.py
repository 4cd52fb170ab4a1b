"""What users of other systems complain about, each with the tests that show it cannot happen here.

Where a test elsewhere proves it, the table names it and this file checks that it still exists; what spans whole nodes
and stood nowhere is played here.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from meshagent.core.travel import Body, SiteMap
from meshagent.runtime.node import Node
from meshagent.sdk.backend import SubmitRequest
from meshagent.sdk.context import TaskContext
from meshagent.sdk.declare import task
from meshagent.sdk.kinds import Task
from meshagent.sdk.place import Place, Site
from meshagent.sdk.role import Role
from meshagent.types import Delivery, InDoubt, Reason, TaskId
from tests.support.small_mesh import SmallMesh, run

TESTS: Final = Path(__file__).parents[1]
CORE: Final = "unit/core/contract_net"
COMPLAINTS: Final[dict[str, tuple[str, ...]]] = {
    "a robot breaks down after the award and the task is never bid again": (
        "e2e/test_lives_and_deaths.py::test_a_task_outlives_the_kill_of_its_holder_and_why_tells_how",
        f"{CORE}/test_ending.py::test_a_forfeit_is_called_again_at_once_and_its_checkpoint_goes_to_the_next",
    ),
    "no way to give a task back, or to leave": (
        "unit/runtime/test_node.py::test_a_leaving_node_hands_its_work_back_with_the_checkpoint",
        "e2e/test_lives_and_deaths.py::test_a_node_finishes_what_it_holds_before_it_leaves",
    ),
    "an award that is not acknowledged blocks every other auction and is dropped": (
        f"{CORE}/test_calling.py::test_silence_after_the_award_goes_to_the_runner_up_under_a_new_epoch",
        f"{CORE}/test_calling.py::test_two_calls_run_at_once_and_neither_waits",
    ),
    "a restart of the adapter loses its tasks": (
        "unit/runtime/test_driver.py::test_a_node_restarted_from_its_journal_finishes_what_it_asked_for",
        "simulation/test_boundaries.py::test_every_promise_holds_wherever_it_strikes",
    ),
    "quick tasks get no bids, and no reason": (
        "attack/test_complaints.py::test_seven_quick_tasks_are_all_done_and_whoever_refused_said_why",
        f"{CORE}/test_calling.py::test_a_refusal_is_an_answer_and_its_reason_is_kept",
    ),
    "robots bid for places that they cannot reach": (
        "unit/runtime/test_bidder.py::test_a_place_that_an_area_closes_is_unreachable_and_the_area_is_named",
    ),
    "a fixed window drops late bids and wastes time": (
        f"{CORE}/test_calling.py::test_the_call_ends_when_all_have_answered_and_the_cheapest_is_awarded",
        f"{CORE}/test_calling.py::test_a_late_proposal_is_noted_and_never_wins",
    ),
    "messages silently lost, no reconnect after a restart": (
        "integration/test_transport_links.py::test_peer_that_restarts_on_its_port_is_linked_again",
        f"{CORE}/test_working.py::test_how_it_ended_is_said_until_acknowledged",
    ),
    "the dead linger": (
        "integration/test_transport_links.py::test_kill_9_of_a_peer_is_told_at_once_by_whoever_dialled",
        "integration/test_transport_links.py::test_frozen_peer_is_told_as_silent",
    ),
    "nodes of one network never see each other and no log says why; a copied configuration": (
        "e2e/test_doctor.py::test_a_network_that_filters_multicast_is_told_with_an_address_that_answers",
        "e2e/test_doctor.py::test_a_copied_disk_is_told_as_two_devices_of_one_identity",
        "attack/test_duplicate_identity.py"
        "::test_clone_boot_a_device_that_met_its_copy_takes_no_new_contracts_until_it_is_gone",
    ),
    "nothing works without the server": (
        "unit/runtime/test_node.py::test_a_node_does_its_own_tasks_alone",
        "unit/runtime/test_node.py::test_the_holder_tells_when_the_asker_is_gone",
    ),
    "after a reboot without network nothing starts": (
        f"{CORE}/test_holding.py::test_a_task_that_was_being_called_is_called_again_after_a_restart",
        "integration/test_transport_mdns.py::test_host_that_starts_before_its_cable_is_in_is_found_when_it_is",
    ),
    "healthy work is killed at reconnect": (
        f"{CORE}/test_working.py::test_adopted_work_goes_on_under_the_new_epoch",
        f"{CORE}/test_holding.py::test_a_holder_that_still_renews_after_our_restart_keeps_its_work",
    ),
    "messages carry no signature and no nonce; network bytes are unpickled": (
        "attack/test_envelope_attacks.py::test_every_single_bit_flip_is_rejected_with_a_warm_cache",
        "attack/test_replay_attacks.py::test_replay_of_a_whole_frame_is_rejected",
        "unit/runtime/test_workers.py::test_pickle_worker_takes_nothing_but_its_own_messages",
    ),
    "one lost message kills a negotiation for good": (
        f"{CORE}/test_calling.py::test_an_award_is_repeated_in_ever_longer_steps",
        "simulation/test_seeds.py::test_no_seed_breaks_a_promise",
    ),
}
"""Not here: discovery that floods the radio. Linked nodes ask every five minutes; the bound comes with membership."""


@pytest.mark.parametrize(("complaint", "test"), [(c, test) for c, tests in COMPLAINTS.items() for test in tests])
def test_a_complaint_has_a_test_that_exists(complaint: str, test: str) -> None:
    file, _, name = test.partition("::")
    tree = ast.parse((TESTS / file).read_text())
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, complaint


# ---- played here


@dataclass(frozen=True)
class Peek(Task[str], kind="attack.complaints.peek"):
    """Go somewhere and look."""

    number: int = 0

    def place(self) -> Place:
        return Site("pump")


class Walker(Role):
    """One body: one place after another."""

    @task
    async def peek(self, job: Peek, ctx: TaskContext) -> str:
        return f"{job.number} seen by {self.node.name}"


def ask(node: Node, number: int) -> TaskId:
    before = set(node.pending)
    spec = b"\x81\xa6number" + bytes([number])
    terms: dict[str, Any] = {"delivery": Delivery.AT_MOST_ONCE, "in_doubt": InDoubt.MAJORITY, "within_s": 600.0}
    node.submit(SubmitRequest(kind="attack.complaints.peek", spec=spec, **terms))
    (about,) = set(node.pending) - before
    return about


def test_seven_quick_tasks_are_all_done_and_whoever_refused_said_why() -> None:
    async def scenario(mesh: SmallMesh) -> None:
        site_map = SiteMap(sites={"pump": (3.0, 4.0)})
        body = Body(speed_mps=1.0)
        for name in ("spot", "rex"):
            await mesh.join(name, Walker, queue=1, site_map=site_map, body=body)
        asker = await mesh.join("operator")
        await mesh.linked(2)
        tasks = [ask(asker, number) for number in range(7)]
        await mesh.until(lambda: not asker.pending, within_s=600)
        refusals = 0
        for about in tasks:
            undertaking = asker.driver.initiator.find(about)
            assert undertaking is not None
            assert undertaking.result is not None
            for _, note in asker.stories.own(about).lines:
                if note.event == "refuse":
                    facts = dict(note.facts)
                    assert facts["reason"] in {Reason.BUSY.value, Reason.STALE_BID.value}
                    assert facts["detail"] or facts["reason"] == Reason.STALE_BID.value
                    refusals += 1
        assert refusals  # two places for seven tasks: somebody had to refuse, or the test shows nothing

    run(scenario)
