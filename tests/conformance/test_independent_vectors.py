"""The vectors are what this implementation makes, and what a reader made from docs/protocol.md alone agrees to."""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meshagent.errors import MeshAgentError
from meshagent.identity.certificates import verify_chain
from meshagent.identity.keys import is_valid_point
from meshagent.identity.revocation import verify_list
from meshagent.identity.trust import Trust
from meshagent.strictpack import unpackb
from meshagent.types import public_key_of
from meshagent.wire import codec, frame
from tests.conformance import independent as wire
from tests.conformance import independent_msgpack
from tests.conformance import independent_trust as trust
from tests.conformance.independent import Refused
from tests.conformance.made_msgpack import told
from tests.conformance.regenerate import FILES, FOLDER, render


def load(name: str) -> Any:
    return json.loads((FOLDER / name).read_text())


MESSAGES, MSGPACK = load("messages.json"), load("msgpack.json")
ACTS, FRAMES, HELLO = load("acts.json"), load("frames.json"), load("hello.json")
IDS, MERKLE, ENVELOPE = load("identity.json"), load("merkle.json"), load("envelope.json")
REVOCATION, CERTIFICATES = load("revocation.json"), load("certificates.json")
ROOTS: Final = {name: bytes.fromhex(CERTIFICATES[name]) for name in ("root", "next_root")}


def expanded(data: str | list[tuple[str, int]]) -> bytes:
    """Hex, or pieces of hex with how often."""
    if isinstance(data, str):
        return bytes.fromhex(data)
    return b"".join(bytes.fromhex(piece) * times for piece, times in data)


def named(case: dict[str, Any]) -> str:
    return str(case.get("why") or case.get("name") or case.get("leaves") or case.get("seq"))


def hexed(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: hexed(one) for name, one in value.items()}
    return [hexed(one) for one in value] if isinstance(value, list) else value


def refuses(what: Callable[[], object]) -> bool:
    try:
        what()
    except (Refused, MeshAgentError):
        return True
    return False


@pytest.mark.parametrize("name", FILES)
def test_the_vectors_are_what_this_implementation_makes(name: str) -> None:
    assert render(name) == (FOLDER / name).read_text(), "run: python -m tests.conformance.regenerate (and say why)"


OWN: Final = {"tests.conformance.independent", "tests.conformance.independent_trust"}


@pytest.mark.parametrize(
    "name", ["independent.py", "independent_trust.py", "independent_msgpack.py", "independent_peer.py"]
)
def test_the_independent_reader_uses_nothing_of_this_project(name: str) -> None:
    allowed = sys.stdlib_module_names | {"cryptography"} | ({"grpc"} if name == "independent_peer.py" else set())
    for node in ast.walk(ast.parse((FOLDER / name).read_text())):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            inside = node.module == "tests.conformance"
            modules = [f"{node.module}.{one.name}" for one in node.names] if inside else [node.module]
        for module in modules:
            assert module in OWN or module.partition(".")[0] in allowed, module


# ---- acts and bodies


@pytest.mark.parametrize("case", [*ACTS["accepted"], *ACTS["loose"]], ids=named)
def test_every_payload_is_read_as_its_fields_by_both(case: dict[str, Any]) -> None:
    payload = bytes.fromhex(case["payload"])
    name, fields = wire.decode(case["type"], payload)
    assert hexed(fields) == case["fields"]
    if "record" in case:
        assert hexed(wire.read_message("TaskRecord", fields["record"])) == case["record"]
    body = codec.decode(case["type"], payload)
    assert codec.encode(body)[0] == case["type"]
    assert wire.decode(*codec.encode(body)) == (name, fields), "our writer says the same"


@pytest.mark.parametrize("case", ACTS["accepted"], ids=named)
def test_the_independent_writer_makes_the_same_bytes(case: dict[str, Any]) -> None:
    payload = bytes.fromhex(case["payload"])
    name, fields = wire.decode(case["type"], payload)
    assert wire.write_message(name, **fields) == payload


@pytest.mark.parametrize("case", ACTS["refused"], ids=named)
def test_every_refused_payload_is_refused_by_both(case: dict[str, Any]) -> None:
    payload = expanded(case["payload"])
    assert refuses(lambda: codec.decode(case["type"], payload))
    assert refuses(lambda: wire.decode(case["type"], payload))


def test_there_is_a_vector_of_every_type() -> None:
    assert {case["type"] for case in ACTS["accepted"]} == set(codec.TYPE_OF.values()) == set(wire.TYPES)


@pytest.mark.parametrize("case", MESSAGES["payloads"], ids=named)
def test_every_payload_with_every_field_is_read_and_written_alike(case: dict[str, Any]) -> None:
    payload = bytes.fromhex(case["payload"])
    name, fields = wire.decode(case["type"], payload)
    assert all(value is not None for value in fields.values())
    assert wire.write_message(name, **fields) == payload


@pytest.mark.parametrize("case", MESSAGES["frames"], ids=lambda case: str(case["what"]))
def test_every_further_frame_is_read_and_written_alike(case: dict[str, Any]) -> None:
    raw = bytes.fromhex(case["frame"])
    assert wire.write_frame(wire.read_frame(raw)) == raw


@pytest.mark.parametrize("case", MSGPACK["accepted"], ids=lambda case: case["data"][:24])
def test_every_value_is_read_alike(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["data"])
    assert told(independent_msgpack.read_value(data)) == case["value"]
    assert told(unpackb(data, max_bytes=10**6)) == case["value"]


@pytest.mark.parametrize("case", MSGPACK["refused"], ids=named)
def test_every_refused_value_is_refused_by_both(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["data"])
    assert refuses(partial(independent_msgpack.read_value, data))
    assert refuses(partial(unpackb, data, max_bytes=10**6))


# ---- frames, envelopes, trees


@pytest.mark.parametrize("case", FRAMES["accepted"], ids=named)
def test_every_frame_is_read_and_written_alike(case: dict[str, Any]) -> None:
    raw = bytes.fromhex(case["frame"])
    found = wire.read_frame(raw)
    assert (found.seq, found.ack, found.hello.hex(), found.ack_soon) == (
        case["seq"],
        case["ack"],
        case["hello"],
        case["ack_soon"],
    )
    assert [len(leaves) for _, leaves in found.batches] == [len(one["messages"]) for one in case["batches"]]
    for (proof, leaves), batch in zip(found.batches, case["batches"], strict=True):
        assert proof.hex() == batch["proof"]
        for leaf, one in zip(leaves, batch["messages"], strict=True):
            to = bytes(32).hex() if one["to"] == "broadcast" else one["to"]
            assert (leaf.header.hex(), leaf.to.hex(), leaf.index, leaf.path.hex(), leaf.payload.hex()) == (
                one["header"],
                to,
                one["index"],
                one["path"],
                one["payload"],
            )
            wire.check_message(bytes.fromhex(FRAMES["fleet"]), bytes.fromhex(FRAMES["receiver"]), proof, leaf)
    assert wire.write_frame(found) == raw
    assert frame.read_frame(raw).seq == case["seq"]


@pytest.mark.parametrize("case", FRAMES["refused"], ids=named)
def test_every_refused_frame_is_refused_by_both(case: dict[str, Any]) -> None:
    raw = expanded(case["frame"])
    assert refuses(lambda: frame.read_frame(raw))
    assert refuses(lambda: wire.read_frame(raw))


@pytest.mark.parametrize("case", ENVELOPE["batches"], ids=named)
def test_every_envelope_is_sealed_and_verified_alike(case: dict[str, Any]) -> None:
    keys = {name: bytes.fromhex(value) for name, value in ENVELOPE["keys"].items() if not name.endswith("_id")}
    leaves, sent = [], []
    for one in case["messages"]:
        to = bytes(32) if one["to"] == "broadcast" else bytes.fromhex(one["to"])
        header = bytes.fromhex(one["header"])
        leaf = wire.Leaf(header, one["index"], bytes.fromhex(one["path"]), bytes.fromhex(one["payload"]), to)
        seq, kind, ttl_ms, hlc = wire.check_message(keys["fleet"], keys["receiver"], bytes.fromhex(case["proof"]), leaf)
        assert hlc == case["hlc"]
        leaves.append(leaf)
        sent.append((to, seq, kind, ttl_ms, leaf.payload))
    if any(leaf.header[27] for leaf in leaves):
        return  # flags are signed and ignored; our writer sets none
    key = Ed25519PrivateKey.from_private_bytes(keys["sender_seed"])
    salts = [leaf.header[:16] for leaf in leaves]
    proof, sealed = wire.seal(key, keys["fleet"], keys["boot"], case["batch"], case["hlc"], sent, salts)
    assert (proof.hex(), sealed) == (case["proof"], leaves)


def test_one_bit_of_an_envelope_is_noticed() -> None:
    case = FRAMES["accepted"][2]
    fleet, receiver = bytes.fromhex(FRAMES["fleet"]), bytes.fromhex(FRAMES["receiver"])
    found = wire.read_frame(bytes.fromhex(case["frame"]))
    proof, (leaf, *_) = found.batches[0]
    wire.check_message(fleet, receiver, proof, leaf)
    leaf.payload = leaf.payload[:-1] + bytes([leaf.payload[-1] ^ 1])
    with pytest.raises(Refused, match="signature"):
        wire.check_message(fleet, receiver, proof, leaf)


@pytest.mark.parametrize("case", MERKLE["trees"], ids=named)
def test_every_tree_has_these_roots_and_paths(case: dict[str, Any]) -> None:
    leaves = [hashlib.sha256(b"leaf %d" % n).digest() for n in range(case["leaves"])]
    root, paths = wire.tree(leaves)
    assert root.hex() == case["root"]
    assert hashlib.sha256(b"".join(paths)).hexdigest() == case["paths"]
    for index, path in case["some"].items():
        assert paths[int(index)].hex() == path
        assert wire.climb(leaves[int(index)], int(index), len(leaves), bytes.fromhex(path)) == root
        longer = bytes.fromhex(path) + bytes(32)
        assert refuses(partial(wire.climb, leaves[int(index)], int(index), len(leaves), longer))


# ---- identities


@pytest.mark.parametrize("case", IDS["keys"], ids=lambda case: case["id"][:8])
def test_every_key_has_its_id(case: dict[str, Any]) -> None:
    public = bytes.fromhex(case["public"])
    derived = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(case["seed"])).public_key().public_bytes_raw()
    assert derived == public
    assert (wire.base32(public), wire.key_of(case["id"]), wire.did(public)) == (case["id"], public, case["did"])
    assert wire.safe_key(public)


@pytest.mark.parametrize("text", IDS["not_ids"], ids=lambda text: repr(text)[-8:])
def test_no_alias_is_an_id(text: str) -> None:
    assert refuses(lambda: wire.key_of(text))
    with pytest.raises(ValueError, match="id"):
        public_key_of(text)


@pytest.mark.parametrize("key", IDS["unsafe_keys"])
def test_no_unsafe_key_is_accepted(key: str) -> None:
    assert not wire.safe_key(bytes.fromhex(key))
    assert not is_valid_point(bytes.fromhex(key))


def test_ids_and_epochs_are_ordered_alike() -> None:
    assert sorted(IDS["ids_in_order"]) == IDS["ids_in_order"]
    by_bytes = sorted(IDS["ids_in_order"], key=wire.key_of)
    assert by_bytes != IDS["ids_in_order"], "the vectors show that the order of bytes is another one"
    epochs = [bytes.fromhex(one) for one in IDS["epochs_in_order"]]
    assert sorted(epochs, key=wire.epoch_order) == epochs
    assert sorted(epochs) != epochs


@pytest.mark.parametrize("case", IDS["tasks"], ids=lambda case: case["id"][:8])
def test_every_task_has_its_id(case: dict[str, Any]) -> None:
    task = wire.task_of(*(bytes.fromhex(case[name]) for name in ("initiator", "boot", "nonce")))
    assert (task.hex(), wire.base32(task)) == (case["task"], case["id"])


def test_bids_are_ranked_alike() -> None:
    ranking = IDS["ranking"]
    assert wire.rank(ranking["task"], ranking["bids"], ranking["p"]) == ranking["order"]
    for case in IDS["tolerance"]:
        assert wire.still_stands(case["bid"], case["now"]) == case["stands"], case


# ---- certificates, Hello, revocation


@pytest.mark.parametrize("case", CERTIFICATES["chains"], ids=named)
def test_every_chain_has_its_verdict(case: dict[str, Any]) -> None:
    chain = [bytes.fromhex(one) for one in case["chain"]]
    ders = [ROOTS[name] for name in case["roots"]]

    def theirs() -> str:
        return wire.base32(trust.verify_chain(chain, trust.Roots(ders), case["now_s"]).key)

    def ours() -> str:
        return verify_chain(chain[0], chain, Trust(ders), now_s=case["now_s"]).credential.peer

    for verify in (theirs, ours):
        if case["id"] is None:
            assert refuses(verify)
        else:
            assert verify() == case["id"]


def test_the_device_of_the_vectors_has_these_grants() -> None:
    told = CERTIFICATES["dog"]
    device = trust.verify_chain(
        [bytes.fromhex(one) for one in CERTIFICATES["chains"][0]["chain"]],
        trust.Roots([ROOTS["root"]]),
        CERTIFICATES["chains"][0]["now_s"],
    )
    assert (device.key.hex(), device.name, device.generation) == (told["key"], told["name"], told["generation"])
    assert (device.not_before, device.not_after) == (told["not_before_s"], told["not_after_s"])
    assert (device.issued_at, list(device.may), list(device.capabilities)) == (
        told["issued_at_s"],
        told["may"],
        told["capabilities"],
    )


def test_roots_are_followed_and_nothing_else() -> None:
    roots = trust.Roots([ROOTS["root"]])
    assert (roots.fleet.hex(), wire.base32(roots.fleet)) == (CERTIFICATES["fleet"], CERTIFICATES["fleet_id"])
    ours = Trust([ROOTS["root"]])
    for data in CERTIFICATES["not_next_roots"].values():
        assert refuses(partial(roots.follow, bytes.fromhex(data)))
        assert refuses(partial(ours.extend, bytes.fromhex(data)))
    roots.follow(ROOTS["next_root"])
    ours.extend(ROOTS["next_root"])


def greeting() -> trust.Greeting:
    at, peer = HELLO["receiver"], bytes.fromhex(HELLO["receiver"]["peer"])
    return trust.Greeting(
        own=bytes.fromhex(HELLO["ann"]["key"]),
        peer=peer,
        fleet=bytes.fromhex(HELLO["fleet"]),
        roots=trust.Roots([bytes.fromhex(one) for one in HELLO["roots"]]),
        now_s=HELLO["now_s"],
        own_boot=bytes.fromhex(at["own_boot"]),
        own_nonce=bytes.fromhex(at["own_nonce"]),
        own_generation=at["own_generation"],
        last_boot_of_peer=bytes.fromhex(at["last_boot_of_peer"]),
        its_generation=at["its_generation"],
    )


@pytest.mark.parametrize("name", HELLO["hellos"])
def test_every_hello_is_read_and_written_alike(name: str) -> None:
    told = HELLO["hellos"][name]
    raw = bytes.fromhex(told["hello"])
    found = trust.read_hello(raw)
    assert hexed(found) == told["fields"]
    who = HELLO["ann" if name.startswith("ann") else "bob"]
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(who["seed"]))
    credential = found.pop("credential")
    assert trust.write_hello(key, credential, **found) == raw


def test_the_hellos_of_the_peer_are_accepted_and_the_second_echoes_our_nonce() -> None:
    at_ann = greeting()
    first, answer = (
        at_ann.judge(bytes.fromhex(HELLO["hellos"][name]["hello"])) for name in ("bob_first", "bob_answers")
    )
    assert first["echo"] == bytes(16)
    assert answer["echo"] == at_ann.own_nonce
    assert first["nonce"] == answer["nonce"]
    ann = HELLO["hellos"]["ann_answers"]["fields"]
    assert (ann["echo"], ann["nonce"]) == (first["nonce"].hex(), at_ann.own_nonce.hex())
    offset = HELLO["now_s"] * 1000 + 4 - (answer["hlc"] >> 16)
    assert offset == HELLO["clock_offset_ms"]["ann_of_bob"]


@pytest.mark.parametrize("case", HELLO["refused"], ids=named)
def test_every_refused_hello_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        greeting().judge(bytes.fromhex(case["hello"]))


@pytest.mark.parametrize("case", REVOCATION["accepted"], ids=lambda case: str(case["number"]))
def test_every_revocation_list_is_read_alike(case: dict[str, Any]) -> None:
    data, root = bytes.fromhex(case["list"]), bytes.fromhex(REVOCATION["root"])
    found = trust.read_revocations(data, trust.Roots([root]), REVOCATION["now_s"])
    told = {name: case[name] for name in ("number", "issued_at_s", "signer", "entries")}
    assert hexed(found | {"entries": [list(row) for row in found["entries"]]}) == told
    verify_list(data, Trust([root]), now_s=REVOCATION["now_s"])


@pytest.mark.parametrize("case", REVOCATION["refused"], ids=named)
def test_every_refused_revocation_list_is_refused_by_both(case: dict[str, Any]) -> None:
    data, root = bytes.fromhex(case["list"]), bytes.fromhex(REVOCATION["root"])
    assert refuses(lambda: trust.read_revocations(data, trust.Roots([root]), REVOCATION["now_s"]))
    assert refuses(lambda: verify_list(data, Trust([root]), now_s=REVOCATION["now_s"]))


def test_the_document_names_every_file() -> None:
    text = (Path(FOLDER).parents[1] / "docs" / "protocol.md").read_text()
    for name in FILES:
        assert f"`{name}`" in text
