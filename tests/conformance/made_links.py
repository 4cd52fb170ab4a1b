"""Vectors of frames and of the Hello: what two sides say, and what is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from meshagent.core.acts import Commit, Propose, Reserve
from meshagent.identity.device import DeviceIdentity
from meshagent.identity.envelope import BROADCAST, Outgoing, Sealer, make_boot
from meshagent.identity.hello import Hello, HelloAccepted, HelloPending, HelloSession, parse_hello, sign_hello
from meshagent.identity.keys import DeviceKey
from meshagent.identity.replay import ReplayTable
from meshagent.wire import codec
from meshagent.wire.frame import frame_bytes, message_bytes, read_frame
from tests.conformance.envelopes import HLC, fixed_bytes
from tests.conformance.made_acts import TASK, epoch, squeezed
from tests.support.fleets import NOW_S, WALL_MS, admit, authority

ANN_BOOT: Final = make_boot(5, b"annboot!")
BOB_BOOT: Final = make_boot(9, b"bobboot!")


def _nonce(who: str) -> bytes:
    return hashlib.sha256(b"nonce of " + who.encode()).digest()[:16]


# ---- frames


def frames() -> dict[str, Any]:
    """Frames with everything that their readers and writers must agree on."""
    sender, receiver = DeviceKey(bytes(range(32))), DeviceKey(bytes(range(32, 64)))
    fleet = hashlib.sha256(b"a fleet").digest()
    sealer = Sealer(sender, fleet, make_boot(7, bytes(range(8))), random_bytes=fixed_bytes())
    bodies = (Reserve(task=TASK, epoch=epoch(2)), Commit(task=TASK, epoch=epoch(2)))
    outgoing = [Outgoing(receiver.node_id, *_typed(body)) for body in bodies]
    shared = Outgoing(None, *_typed(Propose(task=TASK, epoch=epoch(1), added_ms=1, load_ms=2, plan_version=3)))
    elsewhere = Outgoing(sender.node_id, *_typed(bodies[0]))
    first, second = sealer.seal([*outgoing, shared, elsewhere], HLC), sealer.seal([shared], HLC + 1)
    parts = [
        (first.proof, [message_bytes(one, receiver.public) for one in first.messages[:3]]),
        (second.proof, [message_bytes(one, receiver.public) for one in second.messages]),
    ]
    relayed = [(first.proof, [message_bytes(first.messages[3], receiver.public)])]
    raw = (
        frame_bytes(0, 0, b"(a Hello)", ()),
        frame_bytes(0, 300, b"", ()),
        frame_bytes(1, 0, b"", parts),
        frame_bytes(2, 1, b"(a Hello)", parts[1:], True),
        frame_bytes(2**63 - 1, 2**63 - 1, b"", relayed),
    )
    return {
        "about": "Section 7 of docs/protocol.md. `to`: empty where the receiver of the link is meant.",
        "fleet": fleet.hex(),
        "sender": sender.public.hex(),
        "receiver": receiver.public.hex(),
        "accepted": [_frame(one) for one in raw],
        "byes": {"goodbye": "7801", "refused": "7802", "aged": "7803"},
        "refused": [{"why": why, "frame": squeezed(one)} for why, one in _refused_frames(parts)],
    }


def _typed(body: Any) -> tuple[int, int, bytes]:
    kind, payload = codec.encode(body)
    return kind, 10_000, payload


def _frame(raw: bytes) -> dict[str, Any]:
    seq, ack, hello, batches, ack_soon = read_frame(raw)
    return {
        "seq": seq,
        "ack": ack,
        "hello": hello.hex(),
        "ack_soon": ack_soon,
        "batches": [
            {
                "proof": batch.proof.hex(),
                "messages": [
                    {
                        "header": one.header.hex(),
                        "to": "broadcast" if one.to == BROADCAST else one.to.hex(),
                        "index": one.leaf_index,
                        "path": one.path.hex(),
                        "payload": one.payload.hex(),
                    }
                    for one in batch.messages
                ],
            }
            for batch in batches
        ],
        "frame": raw.hex(),
    }


def _refused_frames(parts: list[tuple[bytes, list[bytes]]]) -> Iterable[tuple[str, bytes]]:
    good = frame_bytes(1, 0, b"", parts[1:])
    proof, (message,) = parts[1]
    yield "cut short", good[:-1]
    yield "a batch without messages", frame_bytes(1, 0, b"", [(proof, [])])
    yield "a batch without proof", b"\x08\x01\x1a" + bytes([len(message) & 0x7F | 0x80, len(message) >> 7]) + message
    yield "17 batches", frame_bytes(1, 0, b"", [(proof, [message])] * 17)
    yield "257 messages", frame_bytes(1, 0, b"", [(proof, [b"\x12\x26\x0a\x24" + bytes(36)] * 257)])
    yield "a header of 35 bytes", frame_bytes(1, 0, b"", [(proof, [b"\x12\x25\x0a\x23" + bytes(35)])])
    yield "an index of 1024", frame_bytes(1, 0, b"", [(proof, [b"\x12\x29\x0a\x24" + bytes(36) + b"\x10\x80\x08"])])
    yield (
        "a recipient of 31 bytes",
        frame_bytes(1, 0, b"", [(proof, [b"\x12\x47\x0a\x24" + bytes(36) + b"\x2a\x1f" + bytes(31)])]),
    )
    path = b"\x1a\xc1\x02" + bytes(321)
    yield "a path of 321 bytes", frame_bytes(1, 0, b"", [(proof, [b"\x12\xea\x02\x0a\x24" + bytes(36) + path])])
    yield "a seq of 2^63", b"\x08" + b"\x80" * 9 + b"\x01"
    yield "a Hello of 16,385 bytes", frame_bytes(0, 0, bytes(16_385), ())


# ---- the Hello


class _Side:
    def __init__(self, name: str, boot: bytes, peer: DeviceIdentity, replay: ReplayTable) -> None:
        self.identity = admit(authority("conformance"), name)
        self.boot = boot
        self.nonce = _nonce(name)
        book = self.identity.open_book(now_s=NOW_S)
        self.session = HelloSession(
            self.identity, boot, book, replay, peer.node_id, random_bytes=lambda size: self.nonce[:size]
        )


def _pair() -> tuple[_Side, _Side]:
    fleet = authority("conformance")
    ann, bob = admit(fleet, "ann"), admit(fleet, "bob")
    met = ReplayTable()  # ann has met bob in an earlier boot
    state = met.enter(bob.key.public, make_boot(8, b"earlier!"), 1)
    state.highest = [41, 16]
    return _Side("ann", ANN_BOOT, bob, met), _Side("bob", BOB_BOOT, ann, ReplayTable())


def hello() -> dict[str, Any]:
    """One whole greeting, and what each step refuses."""
    ann, bob = _pair()
    first_ann, first_bob = ann.session.first(HLC), bob.session.first(HLC + 7)
    at_bob = bob.session.received(first_ann, hlc=HLC + 8, wall_ms=WALL_MS + 3)
    at_ann = ann.session.received(first_bob, hlc=HLC + 9, wall_ms=WALL_MS + 2)
    assert isinstance(at_bob, HelloPending)
    assert isinstance(at_ann, HelloPending)
    done_ann = ann.session.received(at_bob.answer, hlc=HLC + 10, wall_ms=WALL_MS + 4)
    done_bob = bob.session.received(at_ann.answer, hlc=HLC + 11, wall_ms=WALL_MS + 5)
    assert isinstance(done_ann, HelloAccepted)
    assert isinstance(done_bob, HelloAccepted)
    root = authority("conformance").trust.roots[0]
    return {
        "about": "Section 6 of docs/protocol.md. Sent in this order: ann_first, bob_first, bob_answers, ann_answers.",
        "fleet": ann.identity.fleet.hex(),
        "roots": [root.hex()],
        "now_s": int(NOW_S),
        "ann": _side(ann),
        "bob": _side(bob),
        "hellos": {
            "ann_first": _told(first_ann),
            "bob_first": _told(first_bob),
            "bob_answers": _told(at_bob.answer),
            "ann_answers": _told(at_ann.answer),
        },
        "version": done_ann.version,
        "clock_offset_ms": {"ann_of_bob": done_ann.clock_offset_ms, "bob_of_ann": done_bob.clock_offset_ms},
        "receiver": {
            "who": "ann",
            "own_boot": ANN_BOOT.hex(),
            "own_generation": 1,
            "own_nonce": ann.nonce.hex(),
            "peer": bob.identity.key.public.hex(),
            "last_boot_of_peer": make_boot(8, b"earlier!").hex(),
            "its_generation": 1,
            "versions": [1, 1],
        },
        "refused": [{"why": why, "hello": raw.hex()} for why, raw in _refused_hellos(at_bob.answer, bob.identity)],
    }


def _side(side: _Side) -> dict[str, str]:
    return {
        "seed": hashlib.sha256(side.identity.name.encode()).hexdigest(),
        "key": side.identity.key.public.hex(),
        "boot": side.boot.hex(),
        "nonce": side.nonce.hex(),
        "credential": side.identity.credential.der.hex(),
    }


def _told(raw: bytes) -> dict[str, Any]:
    found = parse_hello(raw)
    fields = {name: getattr(found, name) for name in Hello.__dataclass_fields__}
    return {
        "fields": {name: value.hex() if isinstance(value, bytes) else value for name, value in fields.items()},
        "hello": raw.hex(),
    }


def _refused_hellos(answer: bytes, bob: DeviceIdentity) -> Iterable[tuple[str, bytes]]:
    good = parse_hello(answer)

    def changed(**fields: Any) -> bytes:
        return sign_hello(bob, replace(good, **fields))

    stranger, other = admit(authority("another fleet"), "bob"), admit(authority("conformance"), "eve")
    late = admit(authority("conformance"), "bob", now_s=NOW_S - 3 * 86_400, lifetime_days=1)
    yield "malformed: cut short", answer[:-1]
    yield "malformed: one byte more", answer + b"\0"
    yield "malformed: another tag", b"m" + answer[:-1]
    yield "malformed: no nonce", changed(nonce=bytes(16))
    yield "malformed: versions in the wrong order", changed(version_min=2, version_max=1)
    yield "another fleet", changed(fleet=bytes(32))
    yield "speaks for another device", changed(sender=other.key.public)
    yield "greets another device", changed(to=other.key.public)
    yield "answers another nonce", changed(echo=_nonce("eve"))
    yield "signature: one bit", answer[:-1] + bytes([answer[-1] ^ 1])
    yield "signature: another's", sign_hello(other, good)
    yield "the credential of another fleet", changed(credential=stranger.credential.der)
    yield "the credential of another device", changed(credential=other.credential.der)
    yield "an expired credential", changed(credential=late.credential.der)
    yield "no version in common", changed(version_min=2, version_max=3)
    yield "an old boot", changed(boot=make_boot(7, b"earlier!"))
    yield "the same counter, other random bytes", changed(boot=make_boot(8, b"a double"))
    yield "a boot counter too far ahead", changed(boot=make_boot(10_009, b"bobboot!"))
    yield "knows a later boot of ours", changed(known_boot=make_boot(6, b"annboot!"), known_generation=1)
    yield "knows a double of ours", changed(known_boot=make_boot(5, b"a double"), known_generation=1)
