"""A handler that holds the loop is named, with the function that it was in."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from meshagent.runtime.blocked import Blocked, Watch
from meshagent.runtime.worker import boot_s


def computing(seconds: float) -> None:
    end_s = boot_s() + seconds
    while boot_s() < end_s:
        pass


async def check(seconds: float) -> str:
    await asyncio.sleep(0)
    if seconds:
        computing(seconds)
    await asyncio.sleep(0)
    return "done"


def watched(seconds: float, limit_s: float = 0.06) -> Watch:
    watch = Watch(limit_s, boot_s, lease_s=0.3)

    async def scenario() -> None:
        watch.start()
        assert await watch.coroutine(check(seconds), "dog.py:22 Dog.check", check.__code__) == "done"
        watch.close()

    asyncio.run(scenario())
    return watch


def test_a_handler_that_computes_on_the_loop_is_named_with_where_it_was(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        watch = watched(0.3)
    (report,) = watch.reports
    assert report.where == "dog.py:22 Dog.check"
    assert report.within == "computing"
    assert 0.29 < report.held_s < 2.0
    assert 'Dog.check held the loop for 0.3 s in "computing"; renewals were late (lease 0.3 s)' in caplog.text
    assert '@task(worker="thread")' in caplog.text


def test_a_handler_that_outlasts_a_lease_is_named_while_it_holds_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch(0.02, boot_s, lease_s=0.1)
    named_meanwhile: list[bool] = []

    async def stuck() -> None:
        end_s = boot_s() + 5.0
        while boot_s() < end_s and "and goes on" not in caplog.text:
            computing(0.01)
        named_meanwhile.append("Dog.check held the loop for" in caplog.text)

    async def scenario() -> None:
        watch.start()
        await watch.coroutine(stuck(), "dog.py:22 Dog.check", stuck.__code__)
        watch.close()

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())
    assert named_meanwhile == [True]
    assert caplog.text.count("and goes on: nothing else runs on this node") == 1


def test_a_handler_that_gives_the_loop_back_is_not_named() -> None:
    assert watched(0.0).reports == []


def test_one_handler_is_told_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch(0.01, boot_s)

    async def scenario() -> None:
        watch.start()
        for _ in range(3):
            await watch.coroutine(check(0.03), "dog.py:22 Dog.check", check.__code__)
        watch.close()

    asyncio.run(scenario())
    assert len(watch.reports) == 3
    assert caplog.text.count("held the loop") == 1


def test_errors_and_cancellation_pass_through() -> None:
    watch = Watch(1.0, boot_s)

    async def failing() -> None:
        raise KeyError("x")

    async def sleeping() -> None:
        await asyncio.sleep(60)

    async def scenario() -> None:
        with pytest.raises(KeyError):
            await watch.coroutine(failing(), "f")
        task: asyncio.Task[None] = asyncio.create_task(watch.coroutine(sleeping(), "s"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())


def test_an_idle_watch_costs_nothing() -> None:
    watch = Watch(0.001, boot_s)

    async def scenario() -> None:
        watch.start()
        await watch.coroutine(check(0.0), "c")
        await asyncio.sleep(0.05)  # the thread has seen that nothing runs
        before_s = time.process_time()
        await asyncio.sleep(0.2)
        assert time.process_time() - before_s < 0.02
        watch.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("blocked", "sentence"),
    [
        (Blocked("d.py:1 D.c", "", 2.4), "d.py:1 D.c held the loop for 2.4 s"),
        (Blocked("d.py:1 D.c", "fft", 0.2), 'd.py:1 D.c held the loop for 0.2 s in "fft"'),
    ],
)
def test_the_sentence_says_lease_only_where_it_suffered(blocked: Blocked, sentence: str) -> None:
    assert blocked.sentence(None if blocked.held_s > 1 else 2.0) == sentence
