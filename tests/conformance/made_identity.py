"""Vectors of keys, ids, epochs, prices and Merkle trees."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

from meshagent.core.contract_net.clearing import Bid, rank, score, tie_break, within_tolerance
from meshagent.identity.credential import did_of
from meshagent.identity.envelope import make_boot, path_bytes, paths_of, tree_of
from meshagent.identity.keys import DeviceKey
from meshagent.types import Epoch, task_id_of
from meshagent.wire import ids

_P: Final = 2**255 - 19
SMALL_ORDER: Final = (
    (0).to_bytes(32, "little"),
    (1).to_bytes(32, "little"),
    (_P - 1).to_bytes(32, "little"),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
)
"""Points of order 4, 1, 2, 8 and 8: anybody can sign for them."""


def identity() -> dict[str, Any]:
    """Ids, epochs and the order of bids."""
    keys = [DeviceKey(hashlib.sha256(b"key %d" % n).digest()) for n in range(8)]
    boot = make_boot(7, b"\xa0\xa1\xa2\xa3\xa4\xa5\xa6\xa7")
    one = keys[0].node_id
    last = "abcdefghijklmnopqrstuvwxyz234567".index(one[-1])
    aliases = [one[:-1] + "abcdefghijklmnopqrstuvwxyz234567"[last + n] for n in range(1, 16)]
    return {
        "about": "Sections 2 and 12 of docs/protocol.md.",
        "keys": [
            {
                "seed": hashlib.sha256(b"key %d" % n).digest().hex(),
                "public": key.public.hex(),
                "id": key.node_id,
                "did": did_of(key.node_id),
            }
            for n, key in enumerate(keys)
        ],
        "not_ids": [*aliases, one.upper(), one[:-1], one + "a", one[:-1] + "1", " " + one[1:], ""],
        "ids_in_order": sorted(key.node_id for key in keys),
        "unsafe_keys": [
            *(key.hex() for key in SMALL_ORDER),
            (_P + 1).to_bytes(32, "little").hex(),
            _mixed(keys[0].public),
        ],
        "tasks": [_task(key, boot, hashlib.sha256(b"nonce %d" % n).digest()[:16]) for n, key in enumerate(keys[:3])],
        "epochs_in_order": _epochs(keys),
        "ranking": _ranking(keys),
        "tolerance": [
            {"bid": list(bid), "now": list(now), "stands": within_tolerance(bid, now, 0.05)}
            for bid, now in (
                ((1000, 0), (1050, 0)),
                ((1000, 0), (1051, 0)),
                ((1000, 1000), (1050, 1050)),
                ((1000, 1000), (1051, 1050)),
                ((1000, 0), (1051, 0)),
                ((1000, 0), (10, 0)),
                ((0, 0), (0, 0)),
                ((0, 0), (1, 0)),
                ((100, 900), (900, 100)),
            )
        ],
    }


def _mixed(public: bytes) -> str:
    """A key plus a point of order two: on the curve, not of the prime-order subgroup."""
    # (x, y) + (0, -1) = (-x, -y)
    y = int.from_bytes(public, "little") & (2**255 - 1)
    sign = public[31] >> 7 ^ 1
    return ((_P - y) | sign << 255).to_bytes(32, "little").hex()


def _task(key: DeviceKey, boot: bytes, nonce: bytes) -> dict[str, str]:
    task = task_id_of(key.node_id, boot, nonce)
    return {
        "initiator": key.public.hex(),
        "boot": boot.hex(),
        "nonce": nonce.hex(),
        "task": ids.task_bytes(task).hex(),
        "id": task,
    }


def _epochs(keys: Sequence[DeviceKey]) -> list[str]:
    epochs = [
        Epoch(counter, key.node_id, make_boot(count, randomness))
        for counter in (0, 1, 255, 256, 2**63 - 1)
        for key in keys[:3]
        for count, randomness in ((1, b"\xff" * 8), (2, bytes(8)))
    ]
    return [ids.epoch_bytes(one).hex() for one in sorted(epochs)]


def _ranking(keys: Sequence[DeviceKey]) -> dict[str, Any]:
    task = task_id_of(keys[0].node_id, bytes(16), bytes(16))
    prices = ((41_500, 0), (41_500, 0), (10_000, 60_000), (500, 10**12), (41_499, 0), (0, 0), (2**40, 2**40), (7, 3))
    bids = [
        Bid(key.node_id, added, load, holds_result=n == 6)
        for n, (key, (added, load)) in enumerate(zip(keys, prices, strict=True))
    ]
    gave_back = {keys[5].node_id}
    return {
        "task": task,
        "p": 4,
        "bids": [
            {
                "peer": bid.peer,
                "added_ms": bid.added_ms,
                "load_ms": bid.load_ms,
                "holds_result": bid.holds_result,
                "gave_back": bid.peer in gave_back,
                "score": str(score(bid.added_ms, bid.load_ms, 4)),
                "tie_break": tie_break(task, bid.peer).hex(),
            }
            for bid in bids
        ],
        "order": [bid.peer for bid in rank(task, bids, 4, gave_back)],
    }


def merkle() -> dict[str, Any]:
    """Trees of every shape up to 33 leaves, and of the largest."""
    return {
        "about": "Section 8 of docs/protocol.md, the tree alone. Leaf n is SHA-256(`leaf <n>`). `paths`: SHA-256 over "
        "the paths of all leaves in order; `some`: whole paths by index.",
        "trees": [_tree(count) for count in (*range(1, 34), 1023, 1024)],
    }


def _tree(count: int) -> dict[str, Any]:
    leaves = [hashlib.sha256(b"leaf %d" % n).digest() for n in range(count)]
    levels = tree_of(leaves)
    paths = paths_of(levels)
    assert [len(path) for path in paths] == [path_bytes(index, count) for index in range(count)]
    some = range(count) if count <= 7 else sorted({0, 1, count // 2, count - 2, count - 1})
    return {
        "leaves": count,
        "root": levels[-1][0].hex(),
        "path_lengths": None if count > 33 else [len(path) for path in paths],
        "paths": hashlib.sha256(b"".join(paths)).hexdigest(),
        "some": {str(index): paths[index].hex() for index in some},
    }
