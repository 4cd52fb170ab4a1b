"""The journal of a real device: SQLite in WAL mode, one transaction a commit, durable on return.

`kill -9`, a panic or a power cut at any instant leaves a prefix of the commits, each whole (with `sync="full"`;
`"normal"` may forget the last ones at a power cut, never at a kill). The file belongs to one process at a time.

Source: https://sqlite.org/wal.html, https://sqlite.org/pragma.html#pragma_synchronous
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Literal

from meshagent.core.ports import Append, Put
from meshagent.errors import JournalError

APPLICATION_ID: Final = 0x6D657368
""" "mesh" in ASCII, where SQLite keeps whose file it is."""
SCHEMA_VERSION: Final = 1
LOCK_WAIT_S: Final = 0.5
"""How long to wait for a process that is just closing the file."""
CHECKPOINT_PAGES: Final = 1000
"""SQLite's own default: the WAL stays near 4 MiB, a checkpoint costs some milliseconds."""

_SCHEMA: Final = """
CREATE TABLE kv (tbl TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (tbl, key)) WITHOUT ROWID;
CREATE TABLE log (id INTEGER PRIMARY KEY, task TEXT NOT NULL, at_wall_s REAL NOT NULL, value BLOB NOT NULL);
CREATE INDEX log_by_task ON log (task, id);
"""

Sync = Literal["full", "normal"]


class SqliteJournal:
    """`core.ports.Journal` on one file.

    Args:
        path: created with mode 0600 where missing.
        sync: "full" survives a power cut; "normal" trades the last commits for speed.

    Raises:
        JournalError: another process holds it, it is damaged, is no journal, or a newer version wrote it.
    """

    def __init__(self, path: Path | str, sync: Sync = "full") -> None:
        self.path = Path(path)
        self.commits = 0
        """Transactions of this process, for `status` and benchmarks."""
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise JournalError(
                f"cannot open the journal {self.path}: {error.strerror}",
                next_step=f"check that {self.path.parent} exists and belongs to you",
            ) from error
        self._db = sqlite3.connect(self.path, isolation_level=None, timeout=LOCK_WAIT_S, cached_statements=16)
        try:
            self._open(sync)
        except sqlite3.Error as error:
            self._db.close()
            raise self._explain(error) from error
        except JournalError:
            self._db.close()
            raise

    def _open(self, sync: Sync) -> None:
        db = self._db
        # The lock is held until close: a second node on the same state would break promises of the first.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("BEGIN EXCLUSIVE")
        db.execute("COMMIT")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {'FULL' if sync == 'full' else 'NORMAL'}")
        db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        owner = db.execute("PRAGMA application_id").fetchone()[0]
        version = db.execute("PRAGMA user_version").fetchone()[0]
        empty = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        if empty:
            db.execute("BEGIN")
            for statement in _SCHEMA.strip().split(";\n"):
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            db.execute("COMMIT")
            return
        if owner != APPLICATION_ID:
            raise JournalError(
                f"{self.path} is a database of another program",
                next_step="choose another state_dir in the configuration",
            )
        if version > SCHEMA_VERSION:
            raise JournalError(
                f"{self.path} was written by a newer meshagent: version {version}, known here: {SCHEMA_VERSION}",
                next_step="upgrade meshagent on this device",
            )
        found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise self._damaged(str(found))

    def commit(self, writes: Iterable[Put | Append]) -> None:
        """One transaction, durable on return. Of several `Put` to one key the last one counts.

        Raises:
            JournalError: disk full or broken.
        """
        values: dict[tuple[str, str], bytes | None] = {}
        lines: list[tuple[str, float, bytes]] = []
        for write in writes:
            if type(write) is Put:
                values[write.table, write.key] = write.value
            else:
                assert isinstance(write, Append)
                lines.append((write.task, write.at_wall_s, write.value))
        if not values and not lines:
            return
        db = self._db
        try:
            db.execute("BEGIN IMMEDIATE")
            try:
                for (table, key), value in values.items():
                    if value is None:
                        db.execute("DELETE FROM kv WHERE tbl = ? AND key = ?", (table, key))
                    else:
                        db.execute("INSERT OR REPLACE INTO kv VALUES (?, ?, ?)", (table, key, value))
                if lines:
                    db.executemany("INSERT INTO log (task, at_wall_s, value) VALUES (?, ?, ?)", lines)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise self._explain(error) from error
        self.commits += 1

    def load(self, table: str) -> Mapping[str, bytes]:
        """Everything under `table`, ordered by key."""
        try:
            rows = self._db.execute("SELECT key, value FROM kv WHERE tbl = ? ORDER BY key", (table,))
            return {key: bytes(value) for key, value in rows}
        except sqlite3.Error as error:
            raise self._explain(error) from error

    def log(self, task: str) -> list[tuple[float, bytes]]:
        """The lines appended for `task`, in order."""
        try:
            rows = self._db.execute("SELECT at_wall_s, value FROM log WHERE task = ? ORDER BY id", (task,))
            return [(at_wall_s, bytes(value)) for at_wall_s, value in rows]
        except sqlite3.Error as error:
            raise self._explain(error) from error

    def logged_tasks(self, prefix: str = "", limit: int = 100) -> list[str]:
        """Tasks that have lines and begin with `prefix`, for `why check-7k2f`."""
        if not prefix.isalnum() and prefix:
            return []
        try:
            rows = self._db.execute(
                "SELECT DISTINCT task FROM log WHERE task >= ? AND task < ? ORDER BY task LIMIT ?",
                (prefix, prefix + "\U0010ffff", limit),
            )
            return [task for (task,) in rows]
        except sqlite3.Error as error:
            raise self._explain(error) from error

    def prune(self, before_wall_s: float) -> int:
        """Forget log lines older than that; returns how many. Promises (`load`) are never pruned here."""
        try:
            return self._db.execute("DELETE FROM log WHERE at_wall_s < ?", (before_wall_s,)).rowcount
        except sqlite3.Error as error:
            raise self._explain(error) from error

    def size_bytes(self) -> int:
        """What the journal takes on disk, write-ahead log included."""
        sizes = []
        for path in (self.path, self.path.with_name(self.path.name + "-wal")):
            try:
                sizes.append(path.stat().st_size)
            except FileNotFoundError:
                continue
        return sum(sizes)

    def close(self) -> None:
        """Checkpoint and release the file; idempotent."""
        self._db.close()

    def _explain(self, error: sqlite3.Error) -> JournalError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return JournalError(
                f"another process uses the journal {self.path}",
                next_step="stop the node that runs with this state_dir (meshagent status), or choose another state_dir",
            )
        if code == sqlite3.SQLITE_FULL:
            return JournalError(
                f"no space left for the journal {self.path}",
                next_step="free some space on the device, then start the node again",
            )
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return self._damaged(str(error))
        return JournalError(f"the journal {self.path} failed: {error}", next_step="check the disk of this device")

    def _damaged(self, detail: str) -> JournalError:
        return JournalError(
            f"the journal {self.path} is damaged: {detail}",
            next_step="put a copy back, or move it away: the node then starts anew and its open tasks are lost",
        )
