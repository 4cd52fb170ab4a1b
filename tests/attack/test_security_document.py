"""SECURITY.md says which test shows what; a promise whose test was renamed away is no promise."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", (ROOT / "SECURITY.md").read_text())))
ATTACKS = [
    "small_order_admission",
    "ticket_after_expiry",
    "old_ca_beside_new",
    "self_issued_subca",
    "tbs_as_payload",
    "inner_node",
    "odd_duplicate",
    "leaf_adoption",
    "cache_other_sender",
    "long_path",
    "cross_batch",
    "cross_fleet",
    "id_alias",
    "nan_bid",
    "empties_bomb",
    "silent_tcp",
    "quota_theft",
    "reply_after_crash",
    "replay_to_restored",
    "clone_boot",
    "counter_exhaustion",
    "future_hlc",
    "clock_back",
    "suspend_past_lease",
    "equal_epoch",
    "task_squat",
    "foreign_cancel",
    "old_list",
    "revoked_server",
    "downgrade_hello",
    "mdns_third_party",
    "ansi_name",
    "socket_umask",
    "pickle_worker",
]
"""Found by attacking the design; the spelling is part of the test's name."""


def defined_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_what_the_security_document_names_exists(file: str, name: str) -> None:
    path = ROOT / "tests" / file
    assert path.is_file()
    assert name.startswith("test_")
    assert name in defined_in(path)


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_attack_on_the_design_is_in_the_document_with_a_test_of_its_name(attack: str) -> None:
    assert any(attack in name for _, name in NAMED)
    assert attack in (ROOT / "SECURITY.md").read_text()


def test_the_document_names_many_tests() -> None:
    assert len(NAMED) > 60
