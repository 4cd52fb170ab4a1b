"""The few value types that every layer shares: ids, epochs, delivery promises, task states, reasons.

Nothing here knows a clock, a socket or a third-party package. Wire spellings are these enums' values.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from enum import StrEnum
from typing import Final, NamedTuple, NewType

NodeId = NewType("NodeId", str)
"""A device: lowercase base32 of its Ed25519 public key without padding, 52 characters, one canonical spelling."""

TaskId = NewType("TaskId", str)
"""A task: lowercase base32 of SHA-256("meshagent/task/v1\\0" | initiator32 | boot16 | nonce16)[:20], 32 characters.

Bound to its initiator so that nobody can squat on another's ids (SECURITY-DESIGN 7)."""

NODE_ID_CHARS: Final = 52
TASK_ID_CHARS: Final = 32
BOOT_BYTES: Final = 16
NONCE_BYTES: Final = 16


REMEMBERED_IDS: Final = 8192
"""Ids whose bytes are remembered: as many as a fleet has devices, below 2 MiB."""

# `int` reads base 32 in the digits 0-9a-v, in C, where `base64` loops in Python. Everything else becomes "!", which it
# refuses: signs, underscores, spaces and capitals would pass otherwise.
_AS_DIGITS: Final = str.maketrans({chr(c): "!" for c in range(128)}) | str.maketrans(
    "abcdefghijklmnopqrstuvwxyz234567", "0123456789abcdefghijklmnopqrstuv"
)


def base32_number(text: str) -> int:
    """The number that lowercase base32 `text` spells, most significant character first.

    Raises:
        ValueError: empty, or another character than a-z, 2-7.
    """
    if not text.isascii():
        raise ValueError("base32 is a-z, 2-7")
    return int(text.translate(_AS_DIGITS), 32)


@functools.lru_cache(maxsize=REMEMBERED_IDS)
def node_id_of(public_key: bytes) -> NodeId:
    """The id of the device that owns `public_key` (32 bytes).

    Raises:
        ValueError: the key has another length.
    """
    if len(public_key) != 32:
        raise ValueError(f"an Ed25519 public key has 32 bytes, this one {len(public_key)}")
    return NodeId(base64.b32encode(public_key).decode("ascii").rstrip("=").lower())


@functools.lru_cache(maxsize=REMEMBERED_IDS)
def public_key_of(node_id: str) -> bytes:
    """The 32 bytes behind `node_id`; only the canonical spelling is accepted (16 spellings decode alike).

    Raises:
        ValueError: not 52 lowercase base32 characters, or not the canonical spelling.
    """
    if len(node_id) != NODE_ID_CHARS:
        raise ValueError(f"a node id has {NODE_ID_CHARS} characters, this one {len(node_id)}")
    try:
        number = base32_number(node_id)
    except ValueError as error:
        raise ValueError("a node id is lowercase base32 (a-z, 2-7)") from error
    # 52 characters are 260 bits; the last four carry nothing and are zero in the canonical spelling.
    if number & 0xF:
        raise ValueError("this spelling of the node id is not the canonical one")
    return (number >> 4).to_bytes(32, "big")


def task_id_of(initiator: NodeId, boot: bytes, nonce: bytes) -> TaskId:
    """The id of the task that `initiator` named by `nonce` in its boot `boot` (16 bytes each)."""
    if len(boot) != BOOT_BYTES or len(nonce) != NONCE_BYTES:
        raise ValueError("boot and nonce have 16 bytes each")
    digest = hashlib.sha256(b"meshagent/task/v1\0" + public_key_of(initiator) + boot + nonce).digest()
    return TaskId(base64.b32encode(digest[:20]).decode("ascii").lower())


def kind_stem(kind: str) -> str:
    """The word of a kind that people see: `pump.check.v1` -> `check`, `night.Survey` -> `survey`."""
    parts = kind.split(".")
    if len(parts) > 1 and parts[-1][:1] == "v" and parts[-1][1:].isdigit():
        parts.pop()
    return "".join(c for c in parts[-1].lower() if c.isalnum())[:16] or "task"


def task_label(kind: str, task_id: TaskId) -> str:
    """The whole spelling of a task that users see and type, `check-7k2f...`; any unique prefix of it is accepted."""
    return f"{kind_stem(kind)}-{task_id}"


def short(label: str) -> str:
    """An id or label as shown in a line: `check-7k2f`, `q3ae7x2m`."""
    stem, dash, rest = label.rpartition("-")
    return f"{stem}-{rest[:4]}" if dash else label[:8]


class Epoch(NamedTuple):
    """The fencing token of one award (PROTOCOL-DESIGN rule 1): compared lexicographically, new for every award."""

    counter: int
    owner: NodeId
    boot: bytes


class Delivery(StrEnum):
    """What a task promises about how often it takes effect."""

    AT_MOST_ONCE = "at_most_once"
    AT_LEAST_ONCE = "at_least_once"


class InDoubt(StrEnum):
    """What an `at_most_once` task does while its initiator is out of reach."""

    WAIT = "wait"
    MAJORITY = "majority"


class Durability(StrEnum):
    """Who must have persisted a task before it counts as accepted."""

    LOCAL = "local"
    REPLICATED = "replicated"


class TaskState(StrEnum):
    """Task states shown everywhere (SURFACE 8)."""

    CALLING = "calling"
    BACKOFF = "backoff"
    HELD = "held"
    EXECUTING = "executing"
    IN_DOUBT = "in_doubt"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """True where nothing will happen any more."""
        return self in (TaskState.DONE, TaskState.FAILED, TaskState.CANCELLED)


class Reason(StrEnum):
    """Why somebody refused, forfeited or failed. A refusal is an answer."""

    # the participant cannot or may not
    NOT_OFFERED = "NOT_OFFERED"
    CAPABILITY = "CAPABILITY"
    PERMISSION = "PERMISSION"
    APPROVAL = "APPROVAL"
    BATTERY = "BATTERY"
    UNREACHABLE = "UNREACHABLE"
    RESOURCES = "RESOURCES"
    BUSY = "BUSY"
    TIME = "TIME"
    CALIBRATION = "CALIBRATION"
    POLICY = "POLICY"
    DRAINING = "DRAINING"
    INVALID_TASK = "INVALID_TASK"
    # protocol facts
    STALE_EPOCH = "STALE_EPOCH"
    STALE_BID = "STALE_BID"
    DUPLICATE = "DUPLICATE"
    CLOSED = "CLOSED"
    ILLEGAL_NOW = "ILLEGAL_NOW"
    UNKNOWN_TASK = "UNKNOWN_TASK"
    QUARANTINED = "QUARANTINED"
    # what went wrong while doing it
    LEASE_LOST = "LEASE_LOST"
    RESTARTED = "RESTARTED"
    GIVEN_BACK = "GIVEN_BACK"
    TIMEOUT = "TIMEOUT"
    ERROR = "ERROR"
    CRASHED = "CRASHED"
    # outcomes at the initiator
    NO_BIDS = "NO_BIDS"
    EXPIRED = "EXPIRED"
    PEER_LOST = "PEER_LOST"
    CANCELLED = "CANCELLED"
    OPERATOR = "OPERATOR"
    OTHER = "OTHER"
