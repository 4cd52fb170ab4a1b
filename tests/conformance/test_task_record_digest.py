"""The digest that an asker seals, computed again from the words of docs/protocol.md."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from meshagent.core.acts import TaskRecord
from meshagent.core.custody import record_digest
from meshagent.types import Delivery, Durability, InDoubt, NodeId, TaskId

RECORD = TaskRecord(
    task=TaskId("a" * 32),
    initiator=NodeId("b" * 52),
    boot=bytes(range(16)),
    nonce=bytes(range(16, 32)),
    kind="pump.check.v1",
    spec=b"\x81\xa4site\xa6pump-7",
    delivery=Delivery.AT_LEAST_ONCE,
    in_doubt=InDoubt.WAIT,
    durability=Durability.REPLICATED,
    priority=-3,
    key="pump-7/ä",
    custodians=(NodeId("c" * 52), NodeId("d" * 52)),
    custodian_generation=2,
    seal=bytes(64),
)


def test_digest_is_what_the_document_says() -> None:
    fields = [
        b"a" * 32, b"b" * 52, bytes(range(16)), bytes(range(16, 32)), b"pump.check.v1", b"\x81\xa4site\xa6pump-7",
        b"at_least_once", b"wait", b"replicated", b"-3", "pump-7/ä".encode(), b"", b"0", b"2", b"c" * 52, b"d" * 52,
    ]  # fmt: skip
    expected = hashlib.sha256(b"".join(len(field).to_bytes(4, "big") + field for field in fields)).digest()
    assert record_digest(RECORD) == expected


@pytest.mark.parametrize(
    "other",
    [{"spec": b"\x80"}, {"priority": 0}, {"custodians": ()}, {"delivery": Delivery.AT_MOST_ONCE}, {"parent": "e" * 32}],
)
def test_every_field_is_sealed_but_the_seal(other: dict[str, object]) -> None:
    assert record_digest(replace(RECORD, **other)) != record_digest(RECORD)  # type: ignore[arg-type]
    assert record_digest(replace(RECORD, seal=b"")) == record_digest(RECORD)
