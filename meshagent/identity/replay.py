"""Which messages have been seen, and which boot of each sender is the present one.

A sender numbers its messages per destination, so a receiver keeps two windows for each sender: messages to itself, and
broadcasts. A window holds the highest number seen and one bit for each of the 1024 below; older ones are refused. A
window belongs to one boot of its sender; a boot with a lower counter is over, an equal counter with other random bytes
is a copy of the device.

`dump` goes into the same transaction as the effects of the messages, so that a restart neither forgets a message whose
effect is persisted nor refuses one whose effect is not.

Source: RFC 4303 3.4.3 (the window), SECURITY-DESIGN 4.
"""

from __future__ import annotations

import struct
from enum import Enum, auto
from typing import Final

from meshagent.errors import IdentityError
from meshagent.identity.envelope import boot_counter

WINDOW: Final = 1024
"""A frame has at most 256 messages; four of them may overtake each other over a relay."""
MAX_SENDERS: Final = 8192
"""As many as a credential book knows. Each costs about 600 bytes."""
MAX_BOOT_JUMP: Final = 10_000
"""Restarts that may happen unseen. A copy of a device could otherwise lock the original out with one huge counter;
beyond, only a new credential (the owner's word) starts the counting over."""

_MASK: Final = (1 << WINDOW) - 1
_ROW: Final = struct.Struct(">32s16sIQQ128sQ128s")
_MAGIC: Final = b"meshagent/replay/v1\0"

DIRECT: Final = 0
BROADCASTS: Final = 1


class BootVerdict(Enum):
    """What the boot in a message means beside the one known."""

    PRESENT = auto()
    NEW = auto()
    """Unknown so far, or later: taken over once a signature proves it."""
    OVER = auto()
    """A lower counter: that run of the device has ended."""
    DUPLICATE = auto()
    """The same counter, other random bytes: two devices use one identity."""
    JUMP = auto()
    """A counter too far ahead without a new credential."""


class SenderState:
    """What is remembered of one sender. Two windows; `highest` 0: nothing seen."""

    __slots__ = ("boot", "generation", "highest", "hlc", "offset_ms", "seen")

    def __init__(self, boot: bytes, generation: int) -> None:
        self.boot = boot
        self.generation = generation
        self.hlc = 0
        """The latest clock of a verified message: a new boot that is older than this is a replay."""
        self.offset_ms = 0
        """Our clock minus the sender's, measured in the Hello of this boot; not persisted."""
        self.highest = [0, 0]
        self.seen = [0, 0]

    def fresh(self, window: int, seq: int) -> bool:
        """Has `seq` not been seen, and is it inside the window? Changes nothing."""
        ahead = seq - self.highest[window]
        if ahead > 0:
            return True
        return -ahead < WINDOW and seq > 0 and not (self.seen[window] >> -ahead) & 1

    def mark(self, window: int, seq: int) -> None:
        """Remember a fresh `seq`. Bit n of `seen` is `highest - n`."""
        ahead = seq - self.highest[window]
        if ahead == 1:
            self.seen[window] = (self.seen[window] << 1 | 1) & _MASK
            self.highest[window] = seq
        elif ahead > 0:
            self.seen[window] = (self.seen[window] << ahead | 1) & _MASK if ahead < WINDOW else 1
            self.highest[window] = seq
        else:
            self.seen[window] |= 1 << -ahead


class ReplayTable:
    """The state of every sender, by public key."""

    def __init__(self) -> None:
        self._senders: dict[bytes, SenderState] = {}
        self.changed: set[bytes] = set()
        """Senders whose state changed since `dump_changed`."""

    def get(self, sender: bytes) -> SenderState | None:
        """What is known of a sender, if anything."""
        return self._senders.get(sender)

    def judge(self, sender: bytes, boot: bytes, generation: int) -> BootVerdict:
        """What `boot` means, given that the sender's current credential has `generation`."""
        state = self._senders.get(sender)
        if state is None:
            return BootVerdict.NEW
        if state.boot == boot:
            return BootVerdict.PRESENT
        if generation > state.generation:
            return BootVerdict.NEW
        ahead = boot_counter(boot) - boot_counter(state.boot)
        if ahead < 0:
            return BootVerdict.OVER
        if ahead == 0:
            return BootVerdict.DUPLICATE
        return BootVerdict.NEW if ahead <= MAX_BOOT_JUMP else BootVerdict.JUMP

    def enter(self, sender: bytes, boot: bytes, generation: int) -> SenderState:
        """Start the windows of a boot that a signature has proved.

        Raises:
            IdentityError: over `MAX_SENDERS`.
        """
        former = self._senders.get(sender)
        if former is None and len(self._senders) >= MAX_SENDERS:
            raise IdentityError(f"over {MAX_SENDERS} senders")
        state = SenderState(boot, generation)
        if former is not None:
            state.hlc = former.hlc
        self._senders[sender] = state
        return state

    def row(self, sender: bytes) -> bytes:
        """The persisted form of one sender, to be stored under its key: 337 bytes."""
        state = self._senders[sender]
        return _MAGIC + _ROW.pack(
            sender,
            state.boot,
            state.generation,
            state.hlc,
            state.highest[DIRECT],
            state.seen[DIRECT].to_bytes(WINDOW // 8, "big"),
            state.highest[BROADCASTS],
            state.seen[BROADCASTS].to_bytes(WINDOW // 8, "big"),
        )

    def take_changed(self) -> list[tuple[bytes, bytes]]:
        """(sender, row) of every sender changed since the last call: what this tick's transaction writes."""
        changed = sorted(self.changed & self._senders.keys())
        self.changed.clear()
        return [(sender, self.row(sender)) for sender in changed]

    def dump(self) -> list[bytes]:
        """Every row."""
        return [self.row(sender) for sender in sorted(self._senders)]

    def load(self, row: bytes) -> None:
        """Take back one row.

        Raises:
            IdentityError: not a row of this form.
        """
        if not row.startswith(_MAGIC) or len(row) != len(_MAGIC) + _ROW.size:
            raise IdentityError("the memory of seen messages is damaged")
        sender, boot, generation, hlc, direct, direct_seen, broadcasts, broadcasts_seen = _ROW.unpack_from(
            row, len(_MAGIC)
        )
        state = self.enter(sender, boot, generation)
        state.hlc = hlc
        state.highest = [direct, broadcasts]
        state.seen = [int.from_bytes(direct_seen, "big"), int.from_bytes(broadcasts_seen, "big")]
