"""What the log keeps of code that raised."""

from __future__ import annotations

import asyncio

from meshagent.runtime.supervise import Raised, attempt, attempt_async


def broken() -> None:
    raise ValueError("no such row")


async def broken_later() -> None:
    broken()


def test_a_traceback_begins_in_the_code_that_is_not_ours() -> None:
    for raised in (attempt(broken), asyncio.run(attempt_async(broken_later()))):
        assert isinstance(raised, Raised)
        told = raised.traceback()
        assert "in attempt" not in told
        assert 'raise ValueError("no such row")' in told
        assert told.endswith("ValueError: no such row\n")


def test_an_error_of_our_own_is_told_from_its_beginning() -> None:
    raised = attempt(lambda: Raised(ValueError("x")).nonsense)  # type: ignore[attr-defined]
    assert isinstance(raised, Raised)
    assert "nonsense" in raised.traceback()
