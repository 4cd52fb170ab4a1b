"""What `Noted` looks like in the journal's log and in a `StoryReply`: one line holds the notes of one task and tick.

A round writes some twenty notes; a line each would cost more than everything else that the journal does.
`story.py` reads them; text for people is made by the command line.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgpack

from meshagent.core.contract_net.interface import Noted
from meshagent.errors import RemoteProtocolError
from meshagent.strictpack import StrictDecodeError, unpackb
from meshagent.types import BOOT_BYTES, NODE_ID_CHARS, Epoch, NodeId, TaskId

MAX_LINE_BYTES: Final = 60 * 1024
"""A line fits the reply that carries it over a link."""
MAX_EVENT_CHARS: Final = 64
MAX_FACTS: Final = 64
MAX_FACT_CHARS: Final = 600
"""Sentences have at most 500 characters; a fact has a name beside it."""


class NoteDecodeError(RemoteProtocolError):
    """Bytes that claim to be notes are not: a peer's story is shown without them."""


def encode_notes(notes: Iterable[Noted]) -> bytes:
    """One line of the log: notes of one task in order."""
    plain = [
        [
            note.event,
            note.epoch.counter,
            note.epoch.owner,
            note.epoch.boot,
            note.peer,
            note.verified,
            [[name, value] for name, value in note.facts],
        ]
        for note in notes
    ]
    raw: bytes = msgpack.packb(plain, use_bin_type=True)
    return raw


def decode_notes(task: TaskId, raw: bytes) -> list[Noted]:
    """The notes behind a line, our own or a peer's; every bound checked.

    Raises:
        NoteDecodeError: not such a line.
    """
    try:
        plain = unpackb(raw, max_bytes=MAX_LINE_BYTES)
    except StrictDecodeError as error:
        raise NoteDecodeError(str(error)) from error
    if not isinstance(plain, list):
        raise NoteDecodeError("no list of notes")
    return [_note(task, one) for one in plain]


def _note(task: TaskId, plain: Any) -> Noted:
    if not isinstance(plain, list) or len(plain) != 7:
        raise NoteDecodeError("a note has seven parts")
    event, counter, owner, boot, peer, verified, facts = plain
    if not (
        _text(event, MAX_EVENT_CHARS)
        and type(counter) is int
        and counter >= 0
        and _text(owner, NODE_ID_CHARS)
        and isinstance(boot, bytes)
        and len(boot) == BOOT_BYTES
        and (peer is None or _text(peer, NODE_ID_CHARS))
        and isinstance(verified, bool)
        and isinstance(facts, list)
        and len(facts) <= MAX_FACTS
    ):
        raise NoteDecodeError("a part of a note has another form")
    return Noted(
        task=task,
        epoch=Epoch(counter, NodeId(owner), boot),
        event=event,
        peer=None if peer is None else NodeId(peer),
        facts=tuple(_fact(one) for one in facts),
        verified=verified,
    )


def _fact(plain: Any) -> tuple[str, str | int | float | bool | None]:
    if not isinstance(plain, list) or len(plain) != 2 or not _text(plain[0], MAX_EVENT_CHARS):
        raise NoteDecodeError("a fact has a name and a value")
    value = plain[1]
    if isinstance(value, str) and len(value) > MAX_FACT_CHARS:
        raise NoteDecodeError("a fact is too long")
    if value is not None and not isinstance(value, str | int | float | bool):
        raise NoteDecodeError("a fact is a plain value")
    return plain[0], value


def _text(value: Any, limit: int) -> bool:
    return isinstance(value, str) and 0 < len(value) <= limit
