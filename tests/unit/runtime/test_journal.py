"""The journal on disk: whole commits, a prefix after `kill -9`, one owner, and errors that say what to do."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from meshagent.core.ports import Append, Put
from meshagent.errors import JournalError
from meshagent.runtime.journal import SqliteJournal


def test_what_was_committed_is_there_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = SqliteJournal(path)
    journal.commit([Put("a", "2", b"two"), Put("a", "1", b"one"), Put("b", "1", b"other"), Append("t", 5.0, b"line")])
    journal.commit([Put("a", "1", None), Append("t", 6.0, b"more"), Append("u", 7.0, b"else")])
    journal.close()
    again = SqliteJournal(path)
    assert again.load("a") == {"2": b"two"}
    assert again.load("b") == {"1": b"other"}
    assert again.load("nothing") == {}
    assert again.log("t") == [(5.0, b"line"), (6.0, b"more")]
    again.close()


def test_the_last_put_to_a_key_counts(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.db")
    journal.commit([Put("a", "k", b"old"), Put("a", "k", None), Put("a", "k", b"new")])
    assert journal.load("a") == {"k": b"new"}
    journal.commit([Put("a", "k", b"newer"), Put("a", "k", None)])
    assert journal.load("a") == {}
    journal.close()


def test_an_empty_commit_costs_no_transaction(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.db")
    journal.commit([])
    assert journal.commits == 0
    journal.close()


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        journal = SqliteJournal(tmp_path / "journal.db")
        journal.commit([Put("a", "k", b"v")])
        for path in tmp_path.iterdir():
            assert path.stat().st_mode & 0o077 == 0, path
        journal.close()
    finally:
        os.umask(old)


def test_a_commit_survives_a_failing_write_of_the_same_transaction_not_at_all(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.db")
    with pytest.raises(JournalError):
        journal.commit([Put("a", "1", b"one"), Put("a", "2", object())])  # type: ignore[arg-type]
    assert journal.load("a") == {}
    journal.commit([Put("a", "1", b"one")])
    journal.close()


def test_a_second_process_is_told_who_holds_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = SqliteJournal(path)
    with pytest.raises(JournalError, match="another process") as caught:
        SqliteJournal(path)
    assert caught.value.next_step is not None
    journal.close()
    SqliteJournal(path).close()


def test_a_damaged_journal_is_refused_at_open(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = SqliteJournal(path)
    journal.commit([Put("a", str(n), os.urandom(500)) for n in range(200)])
    journal.close()
    raw = bytearray(path.read_bytes())
    for at in range(4096, len(raw) - 64, 4096):
        raw[at : at + 64] = b"\xff" * 64
    path.write_bytes(raw)
    with pytest.raises(JournalError, match="damaged") as caught:
        SqliteJournal(path)
    assert caught.value.next_step is not None


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"these are not the bytes of a database" * 100)
    with pytest.raises(JournalError, match="damaged"):
        SqliteJournal(path)


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE theirs (x)")
    db.close()
    with pytest.raises(JournalError, match="another program"):
        SqliteJournal(path)


def test_a_newer_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    SqliteJournal(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(JournalError, match="newer meshagent"):
        SqliteJournal(path)


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="cannot open") as caught:
        SqliteJournal(tmp_path / "nowhere" / "journal.db")
    assert "nowhere" in (caught.value.next_step or "")


def test_a_full_disk_is_an_error_that_says_so(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.db")
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count = {pages + 1}")
    with pytest.raises(JournalError, match="no space left"):
        journal.commit([Put("a", str(n), bytes(4000)) for n in range(50)])
    assert journal.load("a") == {}
    journal.close()


def test_old_lines_are_pruned_and_promises_are_not(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.db")
    journal.commit([Put("a", "k", b"v"), Append("t", 10.0, b"old"), Append("t", 20.0, b"new")])
    assert journal.prune(15.0) == 1
    assert journal.log("t") == [(20.0, b"new")]
    assert journal.load("a") == {"k": b"v"}
    journal.close()


def test_tasks_are_found_by_prefix(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.db")
    journal.commit([Append(task, 1.0, b"x") for task in ("aab", "aac", "abc", "aab")])
    assert journal.logged_tasks("aa") == ["aab", "aac"]
    assert journal.logged_tasks() == ["aab", "aac", "abc"]
    assert journal.logged_tasks("' OR 1=1") == []
    journal.close()


def _commit_until_killed(path: str, pipe: Connection) -> None:
    journal = SqliteJournal(path)
    for n in range(1_000_000):
        journal.commit(
            [Put("t", "first", b"%d" % n), Put("t", "second", b"%d" % n), Append("log", float(n), b"%d" % n)]
        )
        pipe.send_bytes(b"%d" % n)


@pytest.mark.parametrize("sync", ["full", "normal"])
def test_kill_9_leaves_a_prefix_of_whole_commits(tmp_path: Path, sync: str) -> None:
    """At any instant: what was told after its commit is there, and nothing is there by half."""
    path = tmp_path / "journal.db"
    spawn = multiprocessing.get_context("spawn")
    told = -1
    for kill_after in (1, 40, 90):
        ours, theirs = spawn.Pipe(duplex=False)
        process = spawn.Process(target=_commit_until_killed, args=(str(path), theirs))
        process.start()
        theirs.close()
        for _ in range(kill_after):
            assert ours.poll(30)
            ours.recv_bytes()
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join(30)
        told = kill_after - 1
        try:
            while ours.poll(0):
                told = int(ours.recv_bytes())
        except EOFError:
            pass
        journal = SqliteJournal(path)
        values = journal.load("t")
        assert values["first"] == values["second"]
        last = int(values["first"])
        assert last >= told
        assert [int(line) for _, line in journal.log("log")] == list(range(last + 1))
        journal.close()
        path.unlink()
