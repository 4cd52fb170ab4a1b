"""Golden vectors of everything whose bytes other implementations must agree on.

`python -m tests.conformance.envelopes --write` makes the file anew; the test compares. Keys, salts and times are fixed.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path

from meshagent.identity.device import DeviceIdentity
from meshagent.identity.envelope import (
    BROADCAST,
    Outgoing,
    Sealer,
    leaf_hash,
    leaf_prefix,
    make_boot,
    parse_proof,
    root_of,
    statement_of,
)
from meshagent.identity.hello import Hello, sign_hello
from meshagent.identity.join import JoinRequest
from meshagent.identity.keys import DeviceKey, SubKeyPurpose, Tag
from meshagent.identity.revocation import RevocationEntry, RevocationReason, sign_list
from tests.support.fleets import NOW_S, authority

PATH = Path(__file__).with_name("envelope.json")
SENDER_SEED = bytes(range(32))
RECEIVER_SEED = bytes(range(32, 64))
HLC = (1_800_000_000_000 << 16) | 5


def fixed_bytes() -> Callable[[int], bytes]:
    """Salts that everybody can make: SHA-256 of a counter, cut."""
    counter = itertools.count()

    def draw(size: int) -> bytes:
        out = b""
        while len(out) < size:
            out += hashlib.sha256(b"salt %d" % next(counter)).digest()
        return out[:size]

    return draw


def vectors() -> dict[str, object]:
    """All of them, as JSON has them."""
    sender, receiver = DeviceKey(SENDER_SEED), DeviceKey(RECEIVER_SEED)
    fleet_id = hashlib.sha256(b"a fleet").digest()
    boot = make_boot(7, b"\xa0\xa1\xa2\xa3\xa4\xa5\xa6\xa7")
    return {
        "about": "Hex throughout. Layouts: docs/protocol.md. Made by python -m tests.conformance.envelopes --write.",
        "keys": {
            "sender_seed": SENDER_SEED.hex(),
            "sender": sender.public.hex(),
            "sender_id": sender.node_id,
            "receiver_seed": RECEIVER_SEED.hex(),
            "receiver": receiver.public.hex(),
            "receiver_id": receiver.node_id,
            "fleet": fleet_id.hex(),
            "boot": boot.hex(),
        },
        "batches": [_batch(sender, receiver, fleet_id, boot, count) for count in (1, 2, 3, 5, 8, 17)],
        "hello": _hello(sender, receiver, fleet_id, boot),
        "revocation": _revocation(sender, receiver, fleet_id),
        "tagged_signatures": {tag.name: sender.sign(tag, b"body").hex() for tag in Tag},
        "sub_keys": {purpose.value: sender.sub_key(purpose).public.hex() for purpose in SubKeyPurpose},
        "certificates": _certificates(),
    }


def _batch(sender: DeviceKey, receiver: DeviceKey, fleet: bytes, boot: bytes, count: int) -> dict[str, object]:
    outgoing = [
        Outgoing(None if n % 3 == 2 else receiver.node_id, 1 + n, 1000 * (n + 1), b"payload %d" % n, n % 2)
        for n in range(count)
    ]
    sealed = Sealer(sender, fleet, boot, start_batch=count, random_bytes=fixed_bytes()).seal(outgoing, HLC)
    proof = parse_proof(sealed.proof)
    prefix = leaf_prefix(fleet, sender.public, boot)
    root = root_of(fleet, proof, sealed.messages[0], sealed.messages[0].to)
    return {
        "batch": proof.batch,
        "hlc": proof.hlc,
        "leaves": proof.leaves,
        "proof": sealed.proof.hex(),
        "root": root.hex(),
        "signed": statement_of(fleet, proof, root).hex(),
        "messages": [
            {
                "to": "broadcast" if m.to == BROADCAST else m.to.hex(),
                "header": m.header.hex(),
                "header_signed": (m.header[:16] + m.to + m.header[16:]).hex(),
                "payload": m.payload.hex(),
                "leaf": leaf_hash(prefix, m.to, m.header, m.payload).hex(),
                "index": m.leaf_index,
                "path": m.path.hex(),
            }
            for m in sealed.messages
        ],
    }


def _hello(sender: DeviceKey, receiver: DeviceKey, fleet: bytes, boot: bytes) -> dict[str, object]:
    identity = DeviceIdentity.__new__(DeviceIdentity)
    identity.key = sender
    hello = Hello(
        fleet=fleet,
        sender=sender.public,
        to=receiver.public,
        boot=boot,
        nonce=b"n" * 16,
        echo=b"e" * 16,
        hlc=HLC,
        version_min=1,
        version_max=2,
        known_boot=make_boot(3, b"b" * 8),
        known_generation=4,
        next_direct=42,
        next_broadcast=17,
        credential=b"(a certificate in DER)",
    )
    return {"credential": hello.credential.hex(), "bytes": sign_hello(identity, hello).hex()}


def _revocation(sender: DeviceKey, receiver: DeviceKey, fleet: bytes) -> dict[str, object]:
    entries = [
        RevocationEntry(receiver.public, 3, RevocationReason.KEY_COMPROMISE, 1_900_000_000),
        RevocationEntry(sender.public, 1, RevocationReason.SUPERSEDED, 1_900_000_001),
    ]
    return {
        "entries": [[e.key.hex(), e.min_generation, int(e.reason), e.not_after_s] for e in sorted(entries)],
        "number": 6,
        "issued_at_s": 1_800_000_000,
        "bytes": sign_list(sender, fleet, entries, number=6, now_s=1_800_000_000).signed.hex(),
    }


def _certificates() -> dict[str, object]:
    fleet = authority("conformance")
    device = DeviceKey(SENDER_SEED)
    request = JoinRequest.create(device, name="dog-1")
    file = fleet.admit(request, now_s=NOW_S, may=("perform:pump.*", "announce:*"), capabilities=("legs",))
    return {
        "root": fleet.trust.roots[0].hex(),
        "fleet": fleet.fleet.hex(),
        "fleet_id": fleet.trust.fleet_id,
        "device": file.credential.hex(),
    }


def render() -> str:
    return json.dumps(vectors(), indent=1) + "\n"


if __name__ == "__main__":
    if "--write" in sys.argv:
        PATH.write_text(render())
    else:
        sys.stdout.write(render())
