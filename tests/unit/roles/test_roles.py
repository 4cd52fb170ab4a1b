"""The reference roles: they load by name, and their kinds read as the guides say."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import meshagent
import meshagent_roles
from meshagent.sdk.loader import load_roles

SOURCES = sorted(Path(meshagent_roles.__file__).parent.glob("*.py"))


def test_the_roles_load_by_their_entry_points() -> None:
    dog, listener = load_roles(["dog", "listener"])
    [check] = dog.tasks
    assert check.kind.describe() == "CheckContact(site: str, suspected: str) -> Finding [at_least_once]"
    assert check.kind.name == "pump.check.v1"
    assert dog.requires.capabilities == {"legs", "contact-probe"}
    assert listener.requires.capabilities == {"microphone"}
    assert [handler.sensor.name for handler in listener.samples] == ["mic"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_roles_are_written_with_promised_names_alone(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "meshagent":
            assert node.module == "meshagent" or node.module.startswith("meshagent.devices"), node.module
            if node.module == "meshagent":
                assert {alias.name for alias in node.names} <= set(meshagent.__all__)
