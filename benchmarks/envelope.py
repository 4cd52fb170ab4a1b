"""What sealing and admitting one message costs, against the size of the batch that shares its signature.

`seal` is `Sealer.seal`; `admit` the whole gate, from sealed bytes to a verified message; `admit_deferred` the gate for
losing proposals, whose signature is checked only if they win. The floor is one Ed25519 signature a message.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

from benchmarks.report import Row, add_json_flag, progress, show
from meshagent.identity.device import DeviceIdentity
from meshagent.identity.envelope import PROOF_BYTES, Outgoing, Sealer, make_boot
from meshagent.identity.fleet import FleetAuthority
from meshagent.identity.gate import Gate, GateLimits
from meshagent.identity.join import JoinRequest
from meshagent.identity.keys import DeviceKey, Tag, verify

PLAIN, DEFERRED = 1, 2
WALL_MS = 1_800_000_000_000
UNLIMITED = GateLimits(**dict.fromkeys(GateLimits.__dataclass_fields__, 1000000000000.0))


def _device(authority: FleetAuthority, name: str) -> DeviceIdentity:
    key = DeviceKey.generate()
    file = authority.admit(JoinRequest.create(key, name=name), now_s=WALL_MS / 1000)
    return DeviceIdentity.from_file(key, file, now_s=WALL_MS / 1000)


def _median_us(samples: list[float], messages: int) -> float:
    return round(statistics.median(samples) / messages * 1e6, 2)


def measure(batch: int, payload_bytes: int, messages: int) -> Row:
    """Medians over `messages` in batches of `batch`."""
    authority = FleetAuthority.in_memory("bench", now_s=WALL_MS / 1000)
    sender, receiver = _device(authority, "sender"), _device(authority, "receiver")
    book = receiver.open_book(now_s=WALL_MS / 1000)
    book.learn(sender.credential.der, now_s=WALL_MS / 1000)
    sealer = Sealer(sender.key, sender.fleet, make_boot(1, os.urandom(8)))
    gate = Gate(
        receiver.node_id,
        book,
        lambda _kind, payload: payload,
        now_s=0.0,
        deferred=frozenset({DEFERRED}),
        limits=UNLIMITED,
    )
    sealing: list[float] = []
    admitting: dict[int, list[float]] = {PLAIN: [], DEFERRED: []}
    wire_bytes = 0
    for _ in range(max(5, messages // batch)):
        for kind in (PLAIN, DEFERRED):
            outgoing = [Outgoing(receiver.node_id, kind, 1000, os.urandom(payload_bytes)) for _ in range(batch)]
            start = time.perf_counter()
            sealed = sealer.seal(outgoing, WALL_MS << 16)
            sealing.append(time.perf_counter() - start)
            frames = [sealed._replace(messages=sealed.messages[at : at + 256]) for at in range(0, batch, 256)]
            start = time.perf_counter()
            admitted = sum(len(gate.admit(sender.node_id, [one], now_s=0.0, wall_ms=WALL_MS)) for one in frames)
            admitting[kind].append(time.perf_counter() - start)
            if admitted != batch:
                raise RuntimeError(f"the gate admitted {admitted} of {batch}: {dict(gate.rejections)}")
            wire_bytes = PROOF_BYTES + sum(len(m.header) + len(m.path) + 2 for m in sealed.messages)
    return {
        "system": "merkle batch",
        "batch": batch,
        "seal_us": _median_us(sealing, batch),
        "admit_us": _median_us(admitting[PLAIN], batch),
        "admit_deferred_us": _median_us(admitting[DEFERRED], batch),
        "overhead_bytes": round(wire_bytes / batch, 1),
    }


def floor(payload_bytes: int, messages: int) -> Row:
    """One signature a message, nothing else."""
    key = DeviceKey.generate()
    signing: list[float] = []
    checking: list[float] = []
    for _ in range(max(50, messages // 8)):
        body = os.urandom(payload_bytes)
        start = time.perf_counter()
        signature = key.sign(Tag.BATCH, body)
        signing.append(time.perf_counter() - start)
        start = time.perf_counter()
        verify(key.public, Tag.BATCH, body, signature)
        checking.append(time.perf_counter() - start)
    return {
        "system": "a signature a message",
        "batch": 1,
        "seal_us": _median_us(signing, 1),
        "admit_us": _median_us(checking, 1),
        "admit_deferred_us": None,
        "overhead_bytes": 64.0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.envelope", description=__doc__)
    parser.add_argument("--payload", type=int, default=150, metavar="BYTES", help="payload of each message")
    parser.add_argument("--messages", type=int, default=4000, help="messages a row, about")
    add_json_flag(parser)
    options = parser.parse_args()
    rows = [floor(options.payload, options.messages)]
    for batch in (1, 2, 4, 8, 16, 32, 64, 256, 1024):
        progress(f"batches of {batch}")
        rows.append(measure(batch, options.payload, options.messages))
    show("benchmarks.envelope", rows, "pynacl", "cryptography", as_json=options.json)


if __name__ == "__main__":
    main()
