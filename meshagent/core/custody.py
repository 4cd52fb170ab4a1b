"""Who keeps a task beside its asker, and what the asker signs so that they can prove it.

Custodians are chosen once, by rendezvous hash over the members known at submission, and are frozen in the record
(PROTOCOL-DESIGN rule 2): every reader of the record knows the same set, whatever each believes about who is alive.
The asker signs a digest of its record, so that a custodian who goes on with the task can show whose task it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

from meshagent.core.acts import TaskRecord
from meshagent.types import Delivery, Durability, InDoubt, NodeId, TaskId

CUSTODIANS: Final = 3
"""k: two of three is the smallest majority that survives the loss of one."""


def choose_custodians(
    task: TaskId, asker: NodeId, members: Iterable[NodeId], k: int = CUSTODIANS
) -> tuple[NodeId, ...]:
    """The `k` members that the rendezvous hash ranks highest for `task`; fewer where there are fewer.

    The asker comes last, only to fill up: its own journal holds the task anyway, and a custodian that dies with the
    asker is none. Empty where nobody else is there, for then there is nobody to go on.
    """
    others = sorted((one for one in set(members) if one != asker), key=lambda one: _weight(task, one), reverse=True)
    if not others or k < 1:
        return ()
    chosen = others[:k]
    return tuple(chosen if len(chosen) >= k else [*chosen, asker])


def _weight(task: TaskId, node: NodeId) -> tuple[bytes, NodeId]:
    return hashlib.sha256(f"meshagent/custodian/v1|{task}|{node}".encode()).digest(), node


def majority(of: int) -> int:
    """How many of `of` intersect every other so many."""
    return of // 2 + 1


def votes(record: TaskRecord) -> bool:
    """True where a majority of the custodians decides who owns the task and who may act.

    Fewer than three custodians survive nobody's loss, so such a task waits for its asker instead.
    """
    return (
        record.delivery is Delivery.AT_MOST_ONCE
        and record.in_doubt is InDoubt.MAJORITY
        and len(record.custodians) >= CUSTODIANS
    )


def passes_on(record: TaskRecord) -> bool:
    """True where a custodian goes on with the task when its owner is lost."""
    return bool(record.custodians) and (record.delivery is Delivery.AT_LEAST_ONCE or votes(record))


def may_own(record: TaskRecord, node: NodeId) -> bool:
    """Whose epochs a participant listens to for this task."""
    return node == record.initiator or (passes_on(record) and node in record.custodians)


def wants_custodians(durability: Durability) -> bool:
    """Whether a task is to be kept by others too."""
    return durability is Durability.REPLICATED


def record_digest(record: TaskRecord) -> bytes:
    """SHA-256 over every field but the seal, each as its length (4 bytes, big endian) and its UTF-8 or raw bytes.

    In this order: task, initiator, boot, nonce, kind, spec, delivery, in_doubt, durability, priority (decimal), key,
    parent or nothing, approval ("1" or "0"), custodian_generation (decimal), then each custodian.
    """
    digest = hashlib.sha256()
    fields: list[str | bytes] = [
        record.task,
        record.initiator,
        record.boot,
        record.nonce,
        record.kind,
        record.spec,
        record.delivery.value,
        record.in_doubt.value,
        record.durability.value,
        str(record.priority),
        record.key,
        record.parent or "",
        "1" if record.approval else "0",
        str(record.custodian_generation),
        *record.custodians,
    ]
    for field in fields:
        raw = field.encode() if isinstance(field, str) else field
        digest.update(len(raw).to_bytes(4, "big"))
        digest.update(raw)
    return digest.digest()


def believe(record: TaskRecord) -> bool:
    """In place of the check of a seal, where nobody lies: machines by themselves, in tests."""
    return True
