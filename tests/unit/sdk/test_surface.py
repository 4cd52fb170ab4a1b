"""What `meshagent` promises: a list of names, each where it says."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import meshagent


def test_every_promised_name_exists_and_none_is_missing_for_type_checkers() -> None:
    tree = ast.parse(inspect.getsource(meshagent))
    shown = {
        alias.asname
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("meshagent.")
        for alias in node.names
    }
    assert shown == set(meshagent.__all__) - {"__version__"}
    assert shown == set(meshagent._HOMES)
    for name in meshagent.__all__:
        assert getattr(meshagent, name) is not None
    assert set(meshagent.__all__) <= set(dir(meshagent))


def test_the_surface_stays_small() -> None:
    assert len(meshagent.__all__) <= 42


def test_a_name_that_is_not_promised_is_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nonsense'"):
        _ = meshagent.Nonsense  # type: ignore[attr-defined]


def test_the_version_is_that_of_the_project() -> None:
    project = (Path(meshagent.__file__).parent.parent / "pyproject.toml").read_text()
    assert f'version = "{meshagent.__version__}"' in project
