"""A reader and writer made from docs/protocol.md alone: the standard library and `cryptography`, nothing of meshagent,
no protobuf.

It exists to show that the document is exact. Where it had to guess, the document was wrong and was corrected; so do not
"fix" it by looking at the Python, fix the document first. Comments name sections of docs/protocol.md.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"
BATCH, HELLO = b"meshagent/batch/v1\0", b"meshagent/hello/v1\0"
REVOCATION, TASK = b"meshagent/revocation/v1\0", b"meshagent/task/v1\0"
MESSAGE = b"meshagent/msg/v1\0"


class Refused(Exception):
    """Not of the form that the document asks for."""


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def need(holds: object, why: str) -> None:
    if not holds:
        raise Refused(why)


# ---- 1, 2: base32, keys, ids


def base32(data: bytes) -> str:
    bits = len(data) * 8
    padded = -bits % 5
    number = int.from_bytes(data, "big") << padded
    return "".join(ALPHABET[number >> shift & 31] for shift in range(bits + padded - 5, -1, -5))


def key_of(node: str) -> bytes:
    need(len(node) == 52 and set(node) <= set(ALPHABET), "52 characters of a-z2-7")
    number = 0
    for character in node:
        number = number << 5 | ALPHABET.index(character)
    need(number & 15 == 0, "the four bits left over are zero")
    return (number >> 4).to_bytes(32, "big")


def did(key: bytes) -> str:
    digits, number = "", int.from_bytes(b"\xed\x01" + key, "big")
    while number:
        number, digit = divmod(number, 58)
        digits = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"[digit] + digits
    return "did:key:z" + digits


_P: Final = 2**255 - 19
_D: Final = -121665 * pow(121666, -1, _P) % _P
_L: Final = 2**252 + 27742317777372353535851937790883648493
Point = tuple[int, int]


def _add(one: Point, two: Point) -> Point:
    (x1, y1), (x2, y2) = one, two
    k = _D * x1 * x2 * y1 * y2 % _P
    return (
        (x1 * y2 + x2 * y1) * pow(1 + k, -1, _P) % _P,
        (y1 * y2 + x1 * x2) * pow(1 - k, -1, _P) % _P,
    )


def safe_key(key: bytes) -> bool:
    """2: a canonical encoding of a point of the prime-order subgroup, which is not the neutral one."""
    y, sign = int.from_bytes(key, "little") & 2**255 - 1, key[31] >> 7
    if y >= _P:
        return False
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if x * x % _P != square:
        x = x * pow(2, (_P - 1) // 4, _P) % _P
    if x * x % _P != square or (x == 0 and sign):
        return False
    point: Point = (_P - x if x & 1 != sign else x, y)
    total, left = (0, 1), _L
    doubled = point
    while left:
        if left & 1:
            total = _add(total, doubled)
        doubled, left = _add(doubled, doubled), left >> 1
    return total == (0, 1) and point != (0, 1)


def signed_by(key: bytes, data: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def task_of(initiator: bytes, boot: bytes, nonce: bytes) -> bytes:
    return sha256(TASK, initiator, boot, nonce)[:20]


def epoch_order(epoch: bytes) -> tuple[int, str, bytes]:
    need(len(epoch) == 56, "an epoch has 56 bytes")
    return int.from_bytes(epoch[:8], "big"), base32(epoch[8:40]), epoch[40:]


def next_epoch(epoch: bytes) -> bytes:
    return (int.from_bytes(epoch[:8], "big") + 1).to_bytes(8, "big") + epoch[8:]


# ---- 1: protobuf


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for n in range(10):
        need(at < len(data), "cut short")
        value |= (data[at] & 127) << 7 * n
        at += 1
        if data[at - 1] < 128:
            return value & 2**64 - 1, at
    raise Refused("a varint has at most ten bytes")


def raw_fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """(number, wire type, value): numbers for varints, bytes for all else."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, kind = tag >> 3, tag & 7
        need(0 < number < 2**29, "no such field number")
        if kind == 0:
            value, at = _read_varint(data, at)
            yield number, kind, value
            continue
        if kind == 2:
            size, at = _read_varint(data, at)
        else:
            need(kind in (1, 5), "groups are not used")
            size = 8 if kind == 1 else 4
        need(at + size <= len(data), "cut short")
        yield number, kind, data[at : at + size]
        at += size


def blob(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def count(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


# ---- 11, 12 and contract.proto: what the fields are

_ACTS: Final = (
    "Cfp",
    "Propose",
    "Refuse",
    "AcceptProposal",
    "RejectProposal",
    "Inform",
    "Failure",
    "Cancel",
    "NotUnderstood",
    "Reserve",
    "Commit",
    "Renew",
    "Renewed",
    "Checkpoint",
    "Forfeit",
    "Cancelled",
    "Adopt",
    "PassPointOfNoReturn",
    "PointOfNoReturnRecorded",
    "QueryStatus",
    "Acknowledge",
    "Prepare",
    "Promise",
    "Accept",
    "Accepted",
    "Nack",
    "Outcome",
    "OutcomeKnown",
    "Inquire",
    "Standing",
)
TYPES: Final = {
    2: "Profile",
    3: "Event",
    4: "StoryQuery",
    5: "StoryReply",
    6: "RevocationNotice",
    7: "Membership",
    **dict(enumerate(_ACTS, 16)),
}
NUMBER_OF: Final = {name: number for number, name in TYPES.items()}
REASONS: Final = {
    *range(1, 14),
    *range(32, 39),
    *range(64, 70),
    *range(96, 101),
    127,
}
MS, COUNTER, U64 = 2**40, 2**63 - 1, 2**64 - 1
WORD: Final = (1, 128)


class Field(NamedTuple):
    """`kind`: bytes, text, word, uint, sint, bool, enum, double; `s` at the end: repeated."""

    number: int
    name: str
    kind: str
    limit: Any = None
    """Lengths, numbers or values allowed."""
    optional: bool = False
    """Tells absent from zero."""
    items: int = 0


def _fixed(*lengths: int) -> set[int]:
    return set(lengths)


def _f(*rows: tuple[Any, ...]) -> list[Field]:
    return [Field(*row) for row in rows]


_HEAD = ((1, "task", "bytes", _fixed(20)), (2, "epoch", "bytes", _fixed(56)))
_REASON = ((3, "reason", "enum", REASONS), (4, "detail", "text", 500))
_ACT = set(range(16, 46))

SCHEMA: Final[dict[str, list[Field]]] = {
    "TaskRecord": _f(
        (1, "task", "bytes", _fixed(20)),
        (2, "initiator", "bytes", _fixed(32)),
        (3, "boot", "bytes", _fixed(16)),
        (4, "nonce", "bytes", _fixed(16)),
        (5, "kind", "word", 128),
        (6, "spec", "bytes", 32_768),
        (7, "delivery", "enum", {1, 2}),
        (8, "in_doubt", "enum", {1, 2}),
        (9, "durability", "enum", {1, 2}),
        (10, "priority", "sint", 1000),
        (11, "key", "text", 128),
        (12, "parent", "bytes", _fixed(0, 20)),
        (13, "approval", "bool"),
        (14, "custodians", "bytess", _fixed(32), False, 7),
        (15, "custodian_generation", "uint", 2**32 - 1),
        (16, "seal", "bytes", _fixed(0, 64)),
    ),
    "Cfp": _f(
        *_HEAD,
        (3, "record", "bytes", 65_536),
        (4, "reply_within_ms", "uint", MS),
        (5, "within_ms", "uint", MS, True),
        (6, "resumes", "bool"),
    ),
    "Propose": _f(
        *_HEAD,
        (3, "added_ms", "uint", MS),
        (4, "load_ms", "uint", MS),
        (5, "plan_version", "uint", COUNTER),
        (6, "because", "text", 500),
        (7, "holds_result", "bool"),
    ),
    "Refuse": _f(
        *_HEAD,
        *_REASON,
        (5, "added_ms", "uint", MS, True),
        (6, "load_ms", "uint", MS, True),
        (7, "seen", "bytes", _fixed(0, 56)),
        (8, "duplicate_of", "bytes", _fixed(0, 20)),
    ),
    "AcceptProposal": _f(
        *_HEAD,
        (3, "record", "bytes", 65_536),
        (4, "call_epoch", "bytes", _fixed(56)),
        (5, "added_ms", "uint", MS),
        (6, "load_ms", "uint", MS),
        (7, "plan_version", "uint", COUNTER),
        (8, "lease_ms", "uint", MS),
        (9, "within_ms", "uint", MS, True),
        (10, "checkpoint", "bytes", 24_576, True),
        (11, "checkpoint_version", "uint", COUNTER),
    ),
    "RejectProposal": _f(*_HEAD, (3, "more", "bytes", {76 * n for n in range(64)})),
    "Inform": _f(*_HEAD, (3, "result", "bytes", 49_152)),
    "Failure": _f(*_HEAD, *_REASON),
    "Cancel": _f(*_HEAD, *_REASON),
    "NotUnderstood": _f(*_HEAD, (3, "act", "enum", _ACT), (4, "reason", "enum", REASONS), (5, "detail", "text", 500)),
    "Reserve": _f(*_HEAD),
    "Commit": _f(*_HEAD),
    "Renew": _f(
        *_HEAD,
        (3, "sequence", "uint", COUNTER),
        (4, "progress_permille", "uint", 1000),
        (5, "note", "text", 500),
        (6, "boot", "bytes", _fixed(16)),
    ),
    "Renewed": _f(*_HEAD, (3, "boot", "bytes", _fixed(16)), (4, "sequence", "uint", COUNTER)),
    "Checkpoint": _f(*_HEAD, (3, "version", "uint", COUNTER), (4, "state", "bytes", 24_576)),
    "Forfeit": _f(
        *_HEAD, *_REASON, (5, "checkpoint", "bytes", 24_576, True), (6, "checkpoint_version", "uint", COUNTER)
    ),
    "Cancelled": _f(*_HEAD, (3, "in_doubt", "bool")),
    "Adopt": _f(*_HEAD, (3, "former", "bytes", _fixed(56))),
    "PassPointOfNoReturn": _f(*_HEAD),
    "PointOfNoReturnRecorded": _f(*_HEAD),
    "QueryStatus": _f(*_HEAD),
    "Acknowledge": _f(*_HEAD, (3, "act", "enum", _ACT), (4, "version", "uint", COUNTER)),
    "Prepare": _f(*_HEAD),
    "Promise": _f(
        *_HEAD,
        (3, "accepted", "bytes", _fixed(56)),
        (4, "version", "uint", COUNTER),
        (5, "holder", "bytes", _fixed(0, 32)),
        (6, "point_of_no_return", "bool"),
        (7, "cancelled", "bool"),
        (8, "grant_ms", "uint", MS),
        (9, "mark", "uint", COUNTER),
        (10, "ballot", "bytes", _fixed(56)),
    ),
    "Accept": _f(
        *_HEAD,
        (3, "version", "uint", COUNTER),
        (4, "record", "bytes", 65_536),
        (5, "first", "bool"),
        (6, "holder", "bytes", _fixed(0, 32)),
        (7, "point_of_no_return", "bool"),
        (8, "cancelled", "bool"),
        (9, "lease_ms", "uint", MS),
        (10, "within_ms", "uint", MS, True),
        (11, "adopts", "bool"),
        (12, "ballot", "bytes", _fixed(56)),
    ),
    "Accepted": _f(*_HEAD, (3, "version", "uint", COUNTER), (4, "mark", "uint", COUNTER)),
    "Nack": _f(*_HEAD, (3, "reason", "enum", REASONS), (4, "promised", "bytes", _fixed(0, 56))),
    "Outcome": _f(
        *_HEAD,
        (3, "state", "enum", {1, 2, 3}),
        (4, "holder", "bytes", _fixed(0, 32)),
        (5, "result", "bytes", 49_152, True),
        (6, "reason", "enum", {0, *REASONS}),
        (7, "detail", "text", 500),
    ),
    "OutcomeKnown": _f(*_HEAD),
    "Inquire": _f(*_HEAD),
    "Standing": _f(*_HEAD, (3, "known", "bool"), (4, "remembered", "uint", COUNTER)),
    "KindOffered": _f((1, "kind", "word", 128), (2, "reads", "text", 500)),
    "Profile": _f(
        (1, "version", "uint", COUNTER),
        (2, "name", "text", 64),
        (3, "roles", "texts", 128, False, 64),
        (4, "kinds", "KindOffereds", None, False, 256),
        (5, "capabilities", "texts", 128, False, 64),
        (6, "battery_soc", "double", (0.0, 1.0), True),
        (7, "x_m", "double", (-1e8, 1e8), True),
        (8, "y_m", "double", (-1e8, 1e8), True),
        (9, "queue", "uint", COUNTER),
        (10, "software", "text", 128),
        (11, "visitor", "bool"),
        (12, "listen_port", "uint", 65_535),
    ),
    "Event": _f((1, "name", "word", 128), (2, "body", "bytes", 49_152)),
    "StoryQuery": _f((1, "query", "uint", U64), (2, "task", "text", 64)),
    "StoryReply": _f(
        (1, "query", "uint", U64), (2, "task", "text", 64), (3, "lines", "bytes", 61_440), (4, "truncated", "bool")
    ),
    "RevocationNotice": _f((1, "lists", "bytess", 65_000, False, 64)),
    "Membership": _f((1, "kind", "uint", 255), (2, "body", "bytes", 64_000)),
}
_WIRE: Final = {"uint": 0, "sint": 0, "bool": 0, "enum": 0, "double": 1}
_EMPTY: Final[dict[str, Any]] = {"uint": 0, "sint": 0, "bool": False, "enum": 0, "double": 0.0, "bytes": b""}


def read_message(name: str, data: bytes) -> dict[str, Any]:
    """The fields of a message, every bound checked."""
    schema = {field.number: field for field in SCHEMA[name]}
    found: dict[str, Any] = {}
    for field in SCHEMA[name]:
        if field.items:
            found[field.name] = []
        else:
            found[field.name] = None if field.optional else _EMPTY.get(field.kind, "")
    for number, wire, value in raw_fields(data):
        if number not in schema or wire != _WIRE.get(schema[number].kind, 2):
            continue
        field = schema[number]
        plain = _value(field, value)
        if field.items:
            found[field.name].append(plain)
            need(len(found[field.name]) <= field.items, f"{field.name}: too many")
        else:
            found[field.name] = plain
    for field in SCHEMA[name]:
        for value in found[field.name] if field.items else [found[field.name]]:
            _check(field, value)
    _check_whole(name, found)
    return found


def _value(field: Field, value: Any) -> Any:
    match field.kind.removesuffix("s") if field.items else field.kind:
        case "uint":
            # uint32 fields keep 32 bits, as protobuf does
            return value & 2**32 - 1 if field.limit in (1000, 65_535, 2**32 - 1) else value
        case "enum":
            return value & 2**32 - 1
        case "sint":
            value &= 2**32 - 1
            return value >> 1 ^ -(value & 1)
        case "bool":
            return value != 0
        case "double":
            return struct.unpack("<d", value)[0]
        case "bytes":
            return value
        case "KindOffered":
            return read_message("KindOffered", value)
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise Refused("text is UTF-8") from error


def _check(field: Field, value: Any) -> None:
    if value is None or field.kind in ("bool", "KindOffereds"):
        return
    limit, name = field.limit, field.name
    match field.kind.removesuffix("s") if field.items else field.kind:
        case "bytes":
            need(len(value) in limit if isinstance(limit, set) else len(value) <= limit, f"{name}: length")
        case "text":
            need(len(value) <= limit, f"{name}: too long")
        case "word":
            need(0 < len(value) <= limit and all("!" <= one <= "~" for one in value), f"{name}: no word")
        case "uint":
            need(value <= limit, f"{name}: too large")
        case "sint":
            need(abs(value) <= limit, f"{name}: out of range")
        case "enum":
            need(value in limit, f"{name}: unknown")
        case "double":
            need(math.isfinite(value) and limit[0] <= value <= limit[1], f"{name}: out of range")


def _check_whole(name: str, found: dict[str, Any]) -> None:
    for epoch in (found[one] for one in ("epoch", "former", "call_epoch", "seen") if found.get(one)):
        need(epoch[0] < 128, "an epoch's counter is below 2^63")
    if name == "RejectProposal":
        more = found["more"]
        need(all(more[at] < 128 for at in range(20, len(more), 76)), "an epoch's counter is below 2^63")
    if "record" in found:
        need(read_message("TaskRecord", found["record"])["task"] == found["task"], "the record's task")
    if name == "Profile":
        kinds = [one["kind"] for one in found["kinds"]]
        need(all(a < b for a, b in itertools.pairwise(kinds)), "kinds ascend")
        need((found["x_m"] is None) == (found["y_m"] is None), "both coordinates or neither")
    if name == "RevocationNotice":
        need(sum(map(len, found["lists"])) <= 65_000, "too long")


def write_message(name: str, /, **values: Any) -> bytes:
    """Fields in the order of their numbers; zero and empty ones left out."""
    parts: list[bytes] = []
    for field in SCHEMA[name]:
        value = values.pop(field.name, None)
        for one in value or () if field.items else (value,):
            if one is not None and (one or field.optional or field.items):
                parts.append(_written(field, one))
    need(not values, f"{name} has no {', '.join(values)}")
    data = b"".join(parts)
    read_message(name, data)
    return data


def _written(field: Field, value: Any) -> bytes:
    match field.kind.removesuffix("s") if field.items else field.kind:
        case "uint" | "enum" | "bool":
            return count(field.number, int(value))
        case "sint":
            return count(field.number, (value << 1 ^ value >> 31) & 2**32 - 1)
        case "double":
            return varint(field.number << 3 | 1) + struct.pack("<d", value)
        case "bytes":
            return blob(field.number, value)
        case "KindOffered":
            return blob(field.number, write_message("KindOffered", **value))
    return blob(field.number, value.encode())


def decode(kind: int, payload: bytes) -> tuple[str, dict[str, Any]]:
    need(kind in TYPES, "an unknown type")
    return TYPES[kind], read_message(TYPES[kind], payload)


# ---- 7: frames


@dataclass
class Leaf:
    """One `Message` of a frame."""

    header: bytes = b""
    index: int = 0
    path: bytes = b""
    payload: bytes = b""
    to: bytes = b""


@dataclass
class Frame:
    seq: int
    ack: int
    hello: bytes
    ack_soon: bool
    batches: list[tuple[bytes, list[Leaf]]]


def read_frame(data: bytes) -> Frame:
    need(len(data) <= 262_144, "a frame is too long")
    frame = Frame(0, 0, b"", False, [])
    for number, wire, value in raw_fields(data):
        match number, wire:
            case 1, 0:
                frame.seq = value
            case 2, 0:
                frame.ack = value
            case 3, 2:
                frame.batches.append(_read_batch(value))
            case 4, 2:
                frame.hello = value
            case 5, 0:
                frame.ack_soon = value != 0
    need(frame.seq < 2**63 and frame.ack < 2**63, "seq or ack")
    need(len(frame.hello) <= 16_384, "the Hello is too long")
    need(len(frame.batches) <= 16, "too many batches")
    need(sum(len(leaves) for _, leaves in frame.batches) <= 256, "too many messages")
    return frame


def _read_batch(data: bytes) -> tuple[bytes, list[Leaf]]:
    proof, leaves = b"", []
    for number, wire, value in raw_fields(data):
        if (number, wire) == (1, 2):
            proof = value
        elif (number, wire) == (2, 2):
            leaves.append(_read_leaf(value))
    need(len(proof) == 130 and leaves, "a batch has a proof and messages")
    return proof, leaves


def _read_leaf(data: bytes) -> Leaf:
    leaf = Leaf()
    for number, wire, value in raw_fields(data):
        match number, wire:
            case 1, 2:
                leaf.header = value
            case 2, 0:
                leaf.index = value & 2**32 - 1
            case 3, 2:
                leaf.path = value
            case 4, 2:
                leaf.payload = value
            case 5, 2:
                leaf.to = value
    need(len(leaf.header) == 36 and len(leaf.path) <= 320 and len(leaf.payload) <= 65_536, "lengths of a message")
    need(leaf.index < 1024 and len(leaf.to) in (0, 32), "index or recipient")
    return leaf


def write_frame(frame: Frame) -> bytes:
    parts = [count(1, frame.seq) if frame.seq else b"", count(2, frame.ack) if frame.ack else b""]
    for proof, leaves in frame.batches:
        inside = blob(1, proof)
        for leaf in leaves:
            fields = ((1, leaf.header), (3, leaf.path), (4, leaf.payload), (5, leaf.to))
            head, *rest = (blob(number, value) if value else b"" for number, value in fields)
            inside += blob(2, head + (count(2, leaf.index) if leaf.index else b"") + b"".join(rest))
        parts.append(blob(3, inside))
    parts += [blob(4, frame.hello) if frame.hello else b"", count(5, 1) if frame.ack_soon else b""]
    return b"".join(parts)


# ---- 8: envelopes


def tree(leaves: Sequence[bytes]) -> tuple[bytes, list[bytes]]:
    """The root, and the path of every leaf."""
    paths, level = [b""] * len(leaves), list(leaves)
    groups = [[index] for index in range(len(leaves))]
    while len(level) > 1:
        above, above_groups = [], []
        for at in range(0, len(level), 2):
            if at + 1 == len(level):
                above.append(level[at])
                above_groups.append(groups[at])
                continue
            for index in groups[at]:
                paths[index] += level[at + 1]
            for index in groups[at + 1]:
                paths[index] += level[at]
            above.append(sha256(b"\1", level[at], level[at + 1]))
            above_groups.append(groups[at] + groups[at + 1])
        level, groups = above, above_groups
    return level[0], paths


def climb(leaf: bytes, index: int, leaves: int, path: bytes) -> bytes:
    last = leaves - 1
    need(0 <= index <= last, "no such leaf")
    while last:
        if index & 1 or index < last:
            need(len(path) >= 32, "the path is too short")
            sibling, path = path[:32], path[32:]
            leaf = sha256(b"\1", sibling, leaf) if index & 1 else sha256(b"\1", leaf, sibling)
        index, last = index >> 1, last >> 1
    need(not path, "the path is too long")
    return leaf


def check_message(fleet: bytes, receiver: bytes, proof: bytes, leaf: Leaf) -> tuple[int, int, int, int]:
    """Shape and signature of one message: (seq, type, ttl_ms, hlc)."""
    sender, boot, rest = proof[:32], proof[32:48], proof[48:66]
    leaves = int.from_bytes(rest[16:], "big")
    need(1 <= leaves <= 1024, "leaves")
    seq, kind, min_reader, _flags, ttl_ms, length = struct.unpack(">16xQHBBII", leaf.header)
    need(min_reader <= 1, "a later envelope")
    need(length == len(leaf.payload) and 0 < ttl_ms <= 86_400_000 and seq, "header")
    whole = leaf.header[:16] + (leaf.to or receiver) + leaf.header[16:]
    root = climb(sha256(b"\0", MESSAGE, fleet, sender, boot, whole, leaf.payload), leaf.index, leaves, leaf.path)
    need(signed_by(sender, BATCH + fleet + sender + boot + rest + root, proof[66:]), "signature")
    return seq, kind, ttl_ms, int.from_bytes(rest[8:16], "big")


def seal(
    key: Ed25519PrivateKey,
    fleet: bytes,
    boot: bytes,
    batch: int,
    hlc: int,
    messages: Sequence[tuple[bytes, int, int, int, bytes]],
    salts: Sequence[bytes],
) -> tuple[bytes, list[Leaf]]:
    """A batch of (recipient's 32 bytes, seq, type, ttl_ms, payload)."""
    sender = key.public_key().public_bytes_raw()
    headers, hashes = [], []
    for (to, seq, kind, ttl_ms, payload), salt in zip(messages, salts, strict=True):
        rest = struct.pack(">QHBBII", seq, kind, 1, 0, ttl_ms, len(payload))
        headers.append(salt + rest)
        hashes.append(sha256(b"\0", MESSAGE, fleet, sender, boot, salt, to, rest, payload))
    root, paths = tree(hashes)
    rest = struct.pack(">QQH", batch, hlc, len(messages))
    proof = sender + boot + rest + key.sign(BATCH + fleet + sender + boot + rest + root)
    return proof, [
        Leaf(header, index, paths[index], payload, to)
        for index, (header, (to, _, _, _, payload)) in enumerate(zip(headers, messages, strict=True))
    ]


# ---- 12: who wins


def rank(task: str, bids: Sequence[dict[str, Any]], power: int = 4) -> list[str]:
    def order(bid: dict[str, Any]) -> tuple[Any, ...]:
        load, added, peer = bid["load_ms"], bid["added_ms"], bid["peer"]
        score = (load + added) ** power - load**power
        return not bid["holds_result"], bid["gave_back"], score, sha256(f"{task}|{peer}".encode())[:8], peer

    return [bid["peer"] for bid in sorted(bids, key=order)]


def still_stands(bid: Sequence[int], now: Sequence[int], tolerance: float = 0.05) -> bool:
    grown = max(0, now[0] - bid[0]) + max(0, now[1] - bid[1])
    return 1000 * grown <= round(1000 * tolerance) * (bid[0] + bid[1])
