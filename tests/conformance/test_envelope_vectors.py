"""The golden vectors: what they say is what we make, and what we accept."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import nacl.signing
import pytest

from meshagent.identity.certificates import verify_credential
from meshagent.identity.envelope import SealedMessage, check_message
from meshagent.identity.hello import parse_hello
from meshagent.identity.revocation import parse_list
from meshagent.identity.trust import Trust
from tests.conformance.envelopes import PATH, render
from tests.support.fleets import NOW_S

GOLDEN: dict[str, Any] = json.loads(PATH.read_text())
KEYS = {name: bytes.fromhex(value) for name, value in GOLDEN["keys"].items() if not name.endswith("_id")}


def test_the_vectors_are_what_this_implementation_makes() -> None:
    assert render() == PATH.read_text(), "run: python -m tests.conformance.envelopes --write (and say why in the log)"


@pytest.mark.parametrize("batch", GOLDEN["batches"], ids=lambda batch: f"{batch['leaves']} leaves")
def test_every_message_of_the_vectors_verifies_alone(batch: dict[str, Any]) -> None:
    for message in batch["messages"]:
        to = bytes(32) if message["to"] == "broadcast" else bytes.fromhex(message["to"])
        sealed = SealedMessage(
            bytes.fromhex(message["header"]),
            to,
            message["index"],
            bytes.fromhex(message["path"]),
            bytes.fromhex(message["payload"]),
        )
        check_message(KEYS["fleet"], bytes.fromhex(batch["proof"]), sealed, KEYS["receiver"])


@pytest.mark.parametrize("batch", GOLDEN["batches"], ids=lambda batch: f"{batch['leaves']} leaves")
def test_the_vectors_follow_from_the_specification_alone(batch: dict[str, Any]) -> None:
    """Written from the text of the specification with hashlib and PyNaCl, sharing no code with the project."""
    boot, fleet, sender = KEYS["boot"], KEYS["fleet"], KEYS["sender"]
    leaves = []
    for message in batch["messages"]:
        header, payload = bytes.fromhex(message["header_signed"]), bytes.fromhex(message["payload"])
        assert len(header) == 68
        assert int.from_bytes(header[-4:], "big") == len(payload)
        leaf = hashlib.sha256(b"\0meshagent/msg/v1\0" + fleet + sender + boot + header + payload).digest()
        assert leaf.hex() == message["leaf"]
        leaves.append(leaf)
    while len(leaves) > 1:
        pairs = [leaves[at : at + 2] for at in range(0, len(leaves), 2)]
        leaves = [p[0] if len(p) == 1 else hashlib.sha256(b"\1" + p[0] + p[1]).digest() for p in pairs]
    assert leaves[0].hex() == batch["root"]
    fields = batch["batch"].to_bytes(8, "big") + batch["hlc"].to_bytes(8, "big") + batch["leaves"].to_bytes(2, "big")
    signed = b"meshagent/batch/v1\0" + fleet + sender + boot + fields + leaves[0]
    assert signed.hex() == batch["signed"]
    proof = bytes.fromhex(batch["proof"])
    assert proof[:66] == sender + boot + fields
    nacl.signing.VerifyKey(sender).verify(signed, proof[66:])


def test_hello_and_revocation_of_the_vectors_read_back() -> None:
    hello = bytes.fromhex(GOLDEN["hello"]["bytes"])
    parsed = parse_hello(hello)
    assert (parsed.sender, parsed.boot, parsed.next_direct) == (KEYS["sender"], KEYS["boot"], 42)
    nacl.signing.VerifyKey(KEYS["sender"]).verify(hello[:-64], hello[-64:])
    data = bytes.fromhex(GOLDEN["revocation"]["bytes"])
    entries = parse_list(data).entries
    assert [[e.key.hex(), e.min_generation, e.reason, e.not_after_s] for e in entries] == GOLDEN["revocation"][
        "entries"
    ]
    nacl.signing.VerifyKey(KEYS["sender"]).verify(data[:-64], data[-64:])


def test_tagged_signatures_of_the_vectors_cover_tag_and_body() -> None:
    tags = {
        "BATCH": b"meshagent/batch/v1\0",
        "HELLO": b"meshagent/hello/v1\0",
        "JOIN_REQUEST": b"meshagent/join/v1\0",
        "REVOCATION": b"meshagent/revocation/v1\0",
        "SUB_KEY": b"meshagent/subkey/v1\0",
        "TASK_RECORD": b"meshagent/task-record/v1\0",
        "MEMBER": b"meshagent/member/v1\0",
        "ACCUSATION": b"meshagent/accusation/v1\0",
        "STATE": b"meshagent/state/v1\0",
    }
    assert set(tags) == set(GOLDEN["tagged_signatures"])
    for name, tag in tags.items():
        signature = bytes.fromhex(GOLDEN["tagged_signatures"][name])
        nacl.signing.VerifyKey(KEYS["sender"]).verify(tag + b"body", signature)


def test_certificates_of_the_vectors_hold() -> None:
    golden = GOLDEN["certificates"]
    trust = Trust([bytes.fromhex(golden["root"])])
    assert trust.fleet.hex() == golden["fleet"] == hashlib.sha256(bytes.fromhex(golden["root"])).hexdigest()
    assert trust.fleet_id == golden["fleet_id"]
    credential = verify_credential(bytes.fromhex(golden["device"]), trust, now_s=NOW_S)
    assert (credential.name, credential.peer) == ("dog-1", GOLDEN["keys"]["sender_id"])
