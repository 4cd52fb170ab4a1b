"""No valid epoch, no legs: a device in use under a lease.

Every call, every step of an iterator and every attribute set goes through `Fence.check` at the moment of acting. When
the lease is about to end or a newer epoch is heard, the device is stopped first and the handler is told afterwards.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Final, Protocol, cast

from meshagent.sdk.errors import LeaseLostError

_OWN: Final = frozenset({"_device", "_fence", "_stopped_by"})


class Fence(Protocol):
    """Whether the work may act right now."""

    def check(self) -> None:
        """Return if it may.

        Raises:
            LeaseLostError: the lease has ended, a newer epoch is known, or the block that used the device has ended.
        """


class FencedDevice:
    """Stands for a device inside `async with ctx.use(...)`; passes everything on while the fence allows it."""

    __slots__ = ("_device", "_fence")

    def __init__(self, device: object, fence: Fence) -> None:
        object.__setattr__(self, "_device", device)
        object.__setattr__(self, "_fence", fence)

    @property
    def __class__(self) -> type:
        """The driver's own class, so that `isinstance` means what it says."""
        device: object = object.__getattribute__(self, "_device")
        return device.__class__  # not type(): what watches a driver may stand for it in the same way

    @__class__.setter
    def __class__(self, value: type) -> None:
        raise AttributeError("a device in use keeps its class")

    def __getattr__(self, name: str) -> Any:
        device, fence = object.__getattribute__(self, "_device"), object.__getattribute__(self, "_fence")
        value = getattr(device, name)
        if name == "stop":
            return value  # stopping is always allowed
        return _fenced_call(value, fence) if callable(value) and not isinstance(value, type) else value

    def __setattr__(self, name: str, value: object) -> None:
        object.__getattribute__(self, "_fence").check()
        setattr(object.__getattribute__(self, "_device"), name, value)

    def __repr__(self) -> str:
        return f"<{object.__getattribute__(self, '_device')!r} in use>"


def _fenced_call(function: Callable[..., Any], fence: Fence) -> Callable[..., Any]:
    @functools.wraps(function, updated=())
    def call(*args: Any, **kwargs: Any) -> Any:
        fence.check()
        return _fenced_value(function(*args, **kwargs), fence)

    return call


def _fenced_value(value: Any, fence: Fence) -> Any:
    if inspect.isawaitable(value):
        return _fenced_wait(value, fence)
    if hasattr(value, "__anext__"):
        return _FencedSteps(cast("AsyncIterator[Any]", value), fence)
    if inspect.isgenerator(value):
        return _fenced_steps(value, fence)
    return value


async def _fenced_wait(value: Awaitable[Any], fence: Fence) -> Any:
    try:
        fence.check()  # a call made earlier may be awaited later
    except LeaseLostError:
        if inspect.iscoroutine(value):
            value.close()
        raise
    return await value


def _fenced_steps(steps: Iterator[Any], fence: Fence) -> Iterator[Any]:
    for step in steps:
        fence.check()
        yield step


class _FencedSteps:
    """An async iterator of the device: checked before each step is asked for and before it is handed on."""

    def __init__(self, steps: AsyncIterator[Any], fence: Fence) -> None:
        self._steps = steps
        self._fence = fence

    def __aiter__(self) -> _FencedSteps:
        return self

    async def __anext__(self) -> Any:
        try:
            self._fence.check()
            step = await anext(self._steps)
            self._fence.check()
        except LeaseLostError:
            await self.aclose()
            raise
        return step

    async def aclose(self) -> None:
        close = getattr(self._steps, "aclose", None)
        if close is not None:
            await close()
