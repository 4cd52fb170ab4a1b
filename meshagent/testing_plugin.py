"""pytest's part of `meshagent.testing`: the option `--seed`, and the line that replays a failing seed.

Registered by the entry point `pytest11`, so it is loaded by every pytest of an environment that has meshagent: it
imports nothing but pytest itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import pytest

REPLAY_ATTRIBUTE: Final = "meshagent_replay"
"""Set by `meshagent.testing` on the exception of a failing seed: the line to paste."""

chosen: list[int] = []
"""What `--seed` said; empty: every test's own seeds."""
failed: list[str] = []
"""Lines that replay, in the order in which tests failed."""


def _seed(text: str) -> int:
    return int(text, 0)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--seed=0x2a`: run every simulated test with this seed alone."""
    group = parser.getgroup("meshagent", "simulated meshes")
    group.addoption(
        "--seed",
        type=_seed,
        default=None,
        metavar="SEED",
        help="run each @simulated test with this one seed (decimal or 0x...), as a failing seed's line says",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Tell `meshagent.testing` which seed was asked for."""
    chosen.clear()
    failed.clear()
    seed = config.getoption("--seed", default=None)
    if seed is not None:
        chosen.append(int(seed))


def pytest_exception_interact(call: pytest.CallInfo[object]) -> None:
    """Remember the line of a failing seed."""
    error = call.excinfo.value if call.excinfo is not None else None
    line = getattr(error, REPLAY_ATTRIBUTE, None)
    if isinstance(line, str) and line not in failed:
        failed.append(line)


def pytest_terminal_summary(terminalreporter: object) -> None:
    """One line a failing seed, ready to paste."""
    if not failed:
        return
    write = getattr(terminalreporter, "write_line", print)
    section = getattr(terminalreporter, "section", print)
    section("to replay the failing seed")
    for line in failed:
        write(line)
