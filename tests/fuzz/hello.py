"""Fuzz the Hello: nothing raises, and no altered Hello is accepted or changes what is known."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from meshagent.identity.device import DeviceIdentity
from meshagent.identity.envelope import make_boot
from meshagent.identity.hello import HelloPending, HelloRefused, HelloSession
from meshagent.identity.keys import SIGNATURE_BYTES, Tag
from meshagent.identity.replay import ReplayTable
from tests.fuzz.engine import main
from tests.support.fleets import HLC, NOW_S, WALL_MS, admit, authority


@functools.cache
def _scene() -> tuple[DeviceIdentity, DeviceIdentity, bytes, bytes]:
    fleet = authority()
    ann, bob = admit(fleet, "ann"), admit(fleet, "bob")
    session = HelloSession(
        ann,
        make_boot(1, b"r" * 8),
        ann.open_book(now_s=NOW_S),
        ReplayTable(),
        bob.node_id,
        random_bytes=lambda n: b"a" * n,
    )
    first = session.first(HLC)
    at_bob = _bob(ann, bob)
    pending = at_bob.received(first, hlc=HLC, wall_ms=WALL_MS)
    assert isinstance(pending, HelloPending)
    accepted = session.received(pending.answer, hlc=HLC, wall_ms=WALL_MS)
    assert not isinstance(accepted, HelloRefused)
    assert accepted.answer is not None
    return ann, bob, first, accepted.answer


def _bob(ann: DeviceIdentity, bob: DeviceIdentity) -> HelloSession:
    return HelloSession(
        bob,
        make_boot(1, b"s" * 8),
        bob.open_book(now_s=NOW_S),
        ReplayTable(),
        ann.node_id,
        random_bytes=lambda n: b"b" * n,
    )


def corpus() -> Sequence[bytes]:
    return list(_scene()[2:])


def check(data: bytes) -> None:
    ann, bob, first, echo = _scene()
    session = _bob(ann, bob)
    result = session.received(data, hlc=HLC, wall_ms=WALL_MS)
    if not isinstance(result, HelloRefused) and data not in (first, echo):
        raise AssertionError("an altered Hello was accepted")
    # The same with a genuine signature, so that what lies behind it is reached: a member may sign anything.
    body = data[len(Tag.HELLO.value) : -SIGNATURE_BYTES]
    signed = Tag.HELLO.value + body + ann.key.sign(Tag.HELLO, body)
    session = _bob(ann, bob)
    for _ in range(2):
        session.received(signed, hlc=HLC, wall_ms=WALL_MS)


if __name__ == "__main__":
    main("tests.fuzz.hello")
