"""Ids between their spellings for people (base32) and their bytes on the wire, remembered for a while.

A task and its epochs travel in some forty messages of one round; spelling them anew each time costs more than the rest
of decoding. Each memory is bounded and forgets everything at once when full: all of it can be computed again.
"""

from __future__ import annotations

import base64
from typing import Final

from meshagent.types import (
    NODE_ID_CHARS,
    TASK_ID_CHARS,
    Epoch,
    NodeId,
    TaskId,
    base32_number,
    node_id_of,
    public_key_of,
)
from meshagent.wire.errors import DecodeError, EncodeError

TASK_BYTES: Final = 20
EPOCH_BYTES: Final = 56
"""counter 8 | owner 32 | boot 16."""
NODE_BYTES: Final = 32
BOOT_BYTES: Final = 16
MAX_COUNTER: Final = 2**63 - 1
"""Counters that a journal stores as SQLite integers and every language has."""

REMEMBERED_IDS: Final = 8192
"""Entries of each memory: more than the tasks in flight on a busy node, below 2 MiB in all."""

_node_ids: dict[bytes, NodeId] = {}
_node_bytes: dict[str, bytes] = {}
_task_ids: dict[bytes, TaskId] = {}
_task_bytes: dict[str, bytes] = {}
_epochs: dict[bytes, Epoch] = {}
_epoch_bytes: dict[Epoch, bytes] = {}


def node_id(key: bytes) -> NodeId:
    """The id whose public key is `key`.

    Raises:
        DecodeError: not 32 bytes.
    """
    known = _node_ids.get(key)
    if known is not None:
        return known
    if len(key) != NODE_BYTES:
        raise DecodeError(f"a node id has {NODE_BYTES} bytes, this one {len(key)}")
    found = node_id_of(key)
    if len(_node_ids) >= REMEMBERED_IDS:
        _node_ids.clear()
    _node_ids[key] = found
    return found


def node_bytes(node: str) -> bytes:
    """The public key behind `node`.

    Raises:
        EncodeError: not a canonical node id.
    """
    known = _node_bytes.get(node)
    if known is not None:
        return known
    if len(node) != NODE_ID_CHARS:
        raise EncodeError(f"a node id has {NODE_ID_CHARS} characters, this one {len(node)}")
    try:
        key = public_key_of(node)
    except ValueError as error:
        raise EncodeError(str(error)) from error
    if len(_node_bytes) >= REMEMBERED_IDS:
        _node_bytes.clear()
    _node_bytes[node] = key
    return key


def task_id(raw: bytes) -> TaskId:
    """The task behind 20 bytes.

    Raises:
        DecodeError: another length.
    """
    known = _task_ids.get(raw)
    if known is not None:
        return known
    if len(raw) != TASK_BYTES:
        raise DecodeError(f"a task id has {TASK_BYTES} bytes, this one {len(raw)}")
    found = TaskId(base64.b32encode(raw).decode("ascii").lower())
    _remember_task(raw, found)
    return found


def task_bytes(task: str) -> bytes:
    """The 20 bytes of `task`.

    Raises:
        EncodeError: not 32 characters of lowercase base32.
    """
    known = _task_bytes.get(task)
    if known is not None:
        return known
    if len(task) != TASK_ID_CHARS:
        raise EncodeError(f"a task id has {TASK_ID_CHARS} characters, this one {len(task)}: {task[:40]!r}")
    try:
        raw = base32_number(task).to_bytes(TASK_BYTES, "big")
    except ValueError as error:
        raise EncodeError("a task id is lowercase base32 (a-z, 2-7)") from error
    _remember_task(raw, TaskId(task))
    return raw


def _remember_task(raw: bytes, task: TaskId) -> None:
    # 32 characters are 160 bits exactly, so there is one spelling and both directions may learn from either.
    if len(_task_ids) >= REMEMBERED_IDS:
        _task_ids.clear()
        _task_bytes.clear()
    _task_ids[raw] = task
    _task_bytes[task] = raw


def epoch(raw: bytes) -> Epoch:
    """The epoch behind 56 bytes.

    Raises:
        DecodeError: another length, or a counter beyond 2^63 - 1 (counter_exhaustion).
    """
    known = _epochs.get(raw)
    if known is not None:
        return known
    if len(raw) != EPOCH_BYTES:
        raise DecodeError(f"an epoch has {EPOCH_BYTES} bytes, this one {len(raw)}")
    counter = int.from_bytes(raw[:8], "big")
    if counter > MAX_COUNTER:
        raise DecodeError("the counter of an epoch is out of range")
    found = Epoch(counter, node_id(raw[8:40]), raw[40:])
    _remember_epoch(raw, found)
    return found


def epoch_bytes(value: Epoch) -> bytes:
    """The 56 bytes of an epoch.

    Raises:
        EncodeError: counter out of range, owner or boot malformed.
    """
    known = _epoch_bytes.get(value)
    if known is not None:
        return known
    counter, owner, boot = value
    if not 0 <= counter <= MAX_COUNTER or len(boot) != BOOT_BYTES:
        raise EncodeError("the counter or boot of an epoch is out of range")
    raw = counter.to_bytes(8, "big") + node_bytes(owner) + boot
    _remember_epoch(raw, value)
    return raw


def _remember_epoch(raw: bytes, value: Epoch) -> None:
    if len(_epochs) >= REMEMBERED_IDS:
        _epochs.clear()
        _epoch_bytes.clear()
    _epochs[raw] = value
    _epoch_bytes[value] = raw
