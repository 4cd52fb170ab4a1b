"""Sensors and actuators as a role sees them: declared on the class, alive on the instance.

`mic = sensor(Waveform)` is a `Sensor[Waveform]` on the class (for `@on(mic)` and tests) and a `SensorStream[Waveform]`
on the instance. The driver behind it is chosen by the device's configuration, never by the role.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, Never, Protocol, TypeVar, overload

from meshagent.errors import ConfigurationError, MeshAgentError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
D = TypeVar("D")

MAX_WAITING_SAMPLES: Final = 64
"""Samples fed and not yet read. Telemetry drops the oldest: a reader that sleeps must not fill the memory."""

_DEVICES: Final = "_meshagent_devices"


class SensorEndedError(MeshAgentError):
    """The sensor gives nothing any more: its file ended, its cable was pulled, its node stops."""


@dataclass(frozen=True, slots=True)
class Sample(Generic[T_co]):
    """One reading."""

    value: T_co
    at_s: float
    """When it was complete, on the node's clock (`ctx.now_s()`)."""
    sequence: int
    """Counts the samples of this stream; a gap means that some were dropped."""


class Reader(Protocol[T_co]):
    """What the node puts behind a stream: a driver (`devices/drivers.py`) or nothing."""

    async def read(self) -> T_co:
        """The next reading, begun after this call."""


class SensorStream(Generic[T]):
    """A sensor of this role's instance: `await self.mic.next(timeout_s=10)` or `async for sample in self.mic`.

    A read begins when it is asked for, so that nobody is given a window recorded on the way there. Samples that were
    fed by hand (`feed`, tests) are kept and come first.
    """

    def __init__(self, name: str, window_s: float | None = None) -> None:
        self.name = name
        self.window_s = window_s
        self._reader: Reader[T] | None = None
        self._now_s: Callable[[], float] = lambda: 0.0
        self._fed: deque[T] = deque(maxlen=MAX_WAITING_SAMPLES)
        self._arrived = asyncio.Event()
        self._turn = asyncio.Lock()
        self._listeners: list[asyncio.Future[Sample[T]]] = []
        self._pumped = False
        self._sequence = 0

    def connect(self, reader: Reader[T] | None, now_s: Callable[[], float]) -> None:
        """Put a driver behind the stream; None: only what is fed. Called by the node before the role is used."""
        self._reader = reader
        self._now_s = now_s

    def feed(self, value: T) -> None:
        """Give a reading by hand; the oldest unread one is dropped when there are too many."""
        if len(self._fed) == MAX_WAITING_SAMPLES:
            self._sequence += 1
        self._fed.append(value)
        self._arrived.set()

    async def next(self, *, timeout_s: float | None = None) -> Sample[T]:
        """The next reading.

        Raises:
            TimeoutError: none within `timeout_s`.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await (self._heard() if self._pumped else self._produced())
        except TimeoutError as error:
            raise TimeoutError(f"{self.name} gave no sample within {timeout_s} s") from error

    def __aiter__(self) -> AsyncIterator[Sample[T]]:
        return self._forever()

    async def _forever(self) -> AsyncIterator[Sample[T]]:
        while True:
            yield await self.next()

    async def pump(self, handle: Callable[[Sample[T]], None]) -> None:
        """Read for ever and give each sample to `handle` and to everyone who waits in `next`.

        The node runs this for a sensor with an `@on` handler; without one every reader reads for itself.
        """
        self._pumped = True
        try:
            while True:
                sample = await self._produced()
                waiting, self._listeners = self._listeners, []
                for listener in waiting:
                    if not listener.done():
                        listener.set_result(sample)
                handle(sample)
        except BaseException as error:
            # whoever waits is told why; a cancelled listener would look like a cancelled task to its reader
            ended = error if isinstance(error, Exception) else SensorEndedError(f"{self.name} is not read any more")
            waiting, self._listeners = self._listeners, []
            for listener in waiting:
                if not listener.done():
                    listener.set_exception(ended)
            raise
        finally:
            self._pumped = False

    async def _heard(self) -> Sample[T]:
        future: asyncio.Future[Sample[T]] = asyncio.get_running_loop().create_future()
        self._listeners.append(future)
        try:
            return await future
        finally:
            if future in self._listeners:
                self._listeners.remove(future)

    async def _produced(self) -> Sample[T]:
        async with self._turn:
            value = self._fed.popleft() if self._fed else await self._read()
            self._sequence += 1
            return Sample(value, self._now_s(), self._sequence)

    async def _read(self) -> T:
        if self._reader is not None:
            return await self._reader.read()
        while not self._fed:
            self._arrived.clear()
            await self._arrived.wait()
        return self._fed.popleft()


class ActuatorHandle(Generic[D]):
    """An actuator of this role's instance. Moves only through `ctx.use(self.legs)`, one contract at a time."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.turn = asyncio.Lock()
        self._device: D | None = None

    def connect(self, device: D) -> None:
        """Put the driver behind it. Called by the node before the role is used."""
        self._device = device

    @property
    def device(self) -> D:
        """The bare driver, not fenced: for the node alone.

        Raises:
            ConfigurationError: the device's file names no driver for it.
        """
        if self._device is None:
            raise ConfigurationError(
                f"{self.name} has no driver on this device",
                next_step=f'add to meshagent.toml: [actuators.{self.name}] driver = "..."',
            )
        return self._device


class Sensor(Generic[T]):
    """The declaration `mic = sensor(Waveform)`."""

    def __init__(self, value_type: type[T], window_s: float | None) -> None:
        self.value_type = value_type
        self.window_s = window_s
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Sensor[T]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> SensorStream[T]: ...

    def __get__(self, instance: object | None, owner: type) -> Sensor[T] | SensorStream[T]:
        return self if instance is None else self.of(instance)

    def __set__(self, instance: object, value: Never) -> None:
        raise AttributeError(f"{self.name} is a sensor; its driver is named in [sensors.{self.name}]")

    def of(self, instance: object) -> SensorStream[T]:
        """The stream of one role instance."""
        devices = _devices(instance)
        stream = devices.get(self.name)
        if stream is None:
            stream = devices[self.name] = SensorStream[T](self.name, self.window_s)
        assert isinstance(stream, SensorStream)
        return stream


class Actuator(Generic[D]):
    """The declaration `legs = actuator(Legs)`."""

    def __init__(self, device_type: type[D]) -> None:
        self.device_type = device_type
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Actuator[D]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> ActuatorHandle[D]: ...

    def __get__(self, instance: object | None, owner: type) -> Actuator[D] | ActuatorHandle[D]:
        return self if instance is None else self.of(instance)

    def __set__(self, instance: object, value: Never) -> None:
        raise AttributeError(
            f"{self.name} is an actuator; its driver is named in [actuators.{self.name}] of the device"
        )

    def of(self, instance: object) -> ActuatorHandle[D]:
        """The handle of one role instance."""
        devices = _devices(instance)
        handle = devices.get(self.name)
        if handle is None:
            handle = devices[self.name] = ActuatorHandle[D](self.name)
        assert isinstance(handle, ActuatorHandle)
        return handle


def _devices(instance: object) -> dict[str, SensorStream[Any] | ActuatorHandle[Any]]:
    devices: dict[str, SensorStream[Any] | ActuatorHandle[Any]] = instance.__dict__.setdefault(_DEVICES, {})
    return devices


def sensor(value_type: type[T], *, window_s: float | None = None) -> Sensor[T]:
    """Declare a sensor that gives values of `value_type`.

    Args:
        value_type: a class of `meshagent.devices` or of your own; the driver must give the same.
        window_s: seconds that one sample covers, for streams that are cut into windows.
    """
    return Sensor(value_type, window_s)


def actuator(device_type: type[D]) -> Actuator[D]:
    """Declare an actuator. `device_type` is a class (not a `Protocol`) whose subclasses are the drivers."""
    return Actuator(device_type)
