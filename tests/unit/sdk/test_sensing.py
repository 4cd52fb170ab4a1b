"""Streams: what is fed comes first, reads begin when asked, listeners hear the same sample."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from meshagent import Sample, actuator, sensor
from meshagent.sdk.sensing import MAX_WAITING_SAMPLES, Sensor, SensorEndedError, SensorStream


class Holder:
    mic = sensor(float, window_s=2.0)
    arm = actuator(dict)


class Counting:
    def __init__(self) -> None:
        self.reads = 0

    async def read(self) -> float:
        self.reads += 1
        await asyncio.sleep(0)
        return float(self.reads)


def run(main: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(5):
            await main

    asyncio.run(bounded())


def test_a_declaration_on_the_class_is_a_stream_on_the_instance() -> None:
    one, two = Holder(), Holder()
    assert isinstance(Holder.mic, Sensor)
    assert (Holder.mic.name, Holder.mic.window_s) == ("mic", 2.0)
    assert one.mic is one.mic
    assert one.mic is not two.mic
    assert Holder.mic.of(one) is one.mic
    with pytest.raises(AttributeError, match=r"\[sensors\.mic\]"):
        one.mic = 3  # type: ignore[assignment]
    with pytest.raises(AttributeError, match=r"\[actuators\.arm\]"):
        one.arm = 3  # type: ignore[assignment]


def test_what_was_fed_is_read_in_order_before_the_driver_is_asked() -> None:
    async def main() -> None:
        stream, driver = SensorStream[float]("mic"), Counting()
        stream.connect(driver, lambda: 7.0)
        stream.feed(0.1)
        stream.feed(0.2)
        assert [(await stream.next()).value for _ in range(3)] == [0.1, 0.2, 1.0]
        assert driver.reads == 1
        assert await stream.next() == Sample(2.0, 7.0, 4)

    run(main())


def test_a_sensor_that_gives_nothing_is_a_timeout_with_its_name() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError, match=r"mic gave no sample within 0\.01 s"):
            await SensorStream[float]("mic").next(timeout_s=0.01)

    run(main())


def test_a_reader_without_driver_waits_for_what_is_fed() -> None:
    async def main() -> None:
        stream = SensorStream[float]("mic")
        waiting = asyncio.ensure_future(stream.next())
        await asyncio.sleep(0)
        stream.feed(0.5)
        assert (await waiting).value == 0.5

    run(main())


def test_too_many_unread_samples_drop_the_oldest_and_leave_a_gap() -> None:
    async def main() -> None:
        stream = SensorStream[float]("mic")
        for value in range(MAX_WAITING_SAMPLES + 5):
            stream.feed(float(value))
        first = await stream.next()
        assert (first.value, first.sequence) == (5.0, 6)

    run(main())


def test_a_handler_and_a_waiting_reader_hear_the_same_sample() -> None:
    async def main() -> None:
        stream, heard = SensorStream[float]("mic"), list[Sample[float]]()
        pump = asyncio.ensure_future(stream.pump(heard.append))
        await asyncio.sleep(0)
        waiting = asyncio.ensure_future(stream.next())
        await asyncio.sleep(0)
        stream.feed(0.5)
        assert await waiting == Sample(0.5, 0.0, 1)
        stream.feed(0.6)
        while len(heard) < 2:
            await asyncio.sleep(0)
        assert [sample.value for sample in heard] == [0.5, 0.6]
        pump.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pump

    run(main())


def test_readers_do_not_hang_when_the_pump_dies() -> None:
    class Broken:
        async def read(self) -> float:
            await asyncio.sleep(0)
            raise OSError("cable pulled")

    async def main() -> None:
        stream = SensorStream[float]("mic")
        stream.connect(Broken(), lambda: 0.0)
        pump = asyncio.ensure_future(stream.pump(lambda _: None))
        await asyncio.sleep(0)
        with pytest.raises(OSError, match="cable pulled"):
            await stream.next(timeout_s=1)
        with pytest.raises(OSError, match="cable pulled"):
            await pump

    run(main())


def test_a_reader_is_told_and_not_cancelled_when_the_node_stops_reading() -> None:
    async def main() -> None:
        stream = SensorStream[float]("mic")
        pump = asyncio.ensure_future(stream.pump(lambda _: None))
        await asyncio.sleep(0)
        waiting = asyncio.ensure_future(stream.next(timeout_s=1))
        await asyncio.sleep(0)
        pump.cancel()
        with pytest.raises(SensorEndedError, match="mic is not read any more"):
            await waiting
        with pytest.raises(asyncio.CancelledError):
            await pump
        stream.feed(0.5)  # without the pump every reader reads for itself again
        assert (await stream.next(timeout_s=1)).value == 0.5

    run(main())


def test_a_cancelled_reader_leaves_nothing_behind() -> None:
    async def main() -> None:
        stream = SensorStream[float]("mic")
        waiting = asyncio.ensure_future(stream.next())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        stream.feed(1.0)
        assert (await stream.next(timeout_s=1)).value == 1.0

    run(main())
