"""A disk in memory with the promises of the real journal: a commit is whole or was never there.

`Disk` survives its process; `MemoryJournal` is the port of one process to it and tells every commit to the process,
which may crash there. `Disk.copy` and `Disk.restore` make the owner who puts yesterday's image back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping

from meshagent.core.ports import Append, Put
from meshagent.errors import JournalError


class Disk:
    """What a device has written: the last commit's state. `commits` counts them."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, bytes]] = {}
        self.lines: dict[str, list[tuple[float, bytes]]] = {}
        self.commits = 0
        self.full = False
        """Fault: the next commit raises `JournalError`."""

    def apply(self, writes: Iterable[Put | Append]) -> None:
        """Make one transaction durable."""
        for write in writes:
            if isinstance(write, Append):
                self.lines.setdefault(write.task, []).append((write.at_wall_s, write.value))
            elif write.value is None:
                self.tables.get(write.table, {}).pop(write.key, None)
            else:
                self.tables.setdefault(write.table, {})[write.key] = write.value
        self.commits += 1

    def copy(self) -> Disk:
        """An image of the disk as it is now."""
        image = Disk()
        image.tables = {name: dict(table) for name, table in self.tables.items()}
        image.lines = {task: list(lines) for task, lines in self.lines.items()}
        image.commits = self.commits
        return image

    def restore(self, image: Disk) -> None:
        """Put an old image back: everything written since is forgotten."""
        old = image.copy()
        self.tables, self.lines, self.commits = old.tables, old.lines, old.commits


class MemoryJournal:
    """`core.ports.Journal` of one process.

    Args:
        disk: what survives.
        before: called before a commit takes effect, with its digest; raises to crash there.
        after: called when it is durable; raises to crash there.
    """

    def __init__(
        self, disk: Disk, *, before: Callable[[str], None] | None = None, after: Callable[[], None] | None = None
    ) -> None:
        self._disk = disk
        self._before = before
        self._after = after
        self._closed = False
        self.owner: object | None = None
        """The process that writes it, for taps."""

    def commit(self, writes: Iterable[Put | Append]) -> None:
        """One transaction, durable on return.

        Raises:
            JournalError: closed, or the disk is full.
        """
        whole = list(writes)
        if self._closed:
            raise JournalError("the journal is closed")
        if self._before is not None:
            self._before(digest_of(whole))
        if self._disk.full:
            raise JournalError("disk full", next_step="free some space on the device, then start the node again")
        self._disk.apply(whole)
        if self._after is not None:
            self._after()

    def load(self, table: str) -> Mapping[str, bytes]:
        """Everything under `table`, ordered by key as SQLite's index would."""
        return dict(sorted(self._disk.tables.get(table, {}).items()))

    def log(self, task: str) -> list[tuple[float, bytes]]:
        return list(self._disk.lines.get(task, ()))

    def close(self) -> None:
        self._closed = True


def digest_of(writes: Iterable[Put | Append]) -> str:
    """Names a transaction in the trace: 16 hexadecimal digits over its content."""
    state = hashlib.blake2b(digest_size=8)
    for write in writes:
        if isinstance(write, Append):
            state.update(b"\0a" + write.task.encode() + b"\0" + write.value)
        else:
            value = b"\0d" if write.value is None else b"\0v" + write.value
            state.update(b"\0p" + write.table.encode() + b"\0" + write.key.encode() + value)
    return state.hexdigest()
