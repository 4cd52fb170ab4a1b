"""Private files and folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from meshagent.errors import IdentityError
from meshagent.identity.files import (
    MissingFileError,
    UnsafeFileError,
    private_folder,
    read_limited,
    write_new,
    write_replace,
)


def test_a_new_folder_is_closed_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        folder = private_folder(tmp_path / "a" / "b")
    finally:
        os.umask(old)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert private_folder(folder) == folder


def test_an_open_folder_a_file_and_a_link_are_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(UnsafeFileError, match="open to other users"):
        private_folder(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(IdentityError):
        private_folder(tmp_path / "file")
    inner = tmp_path / "inner"
    inner.mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(inner)
    with pytest.raises(UnsafeFileError, match="not a folder"):
        private_folder(tmp_path / "link")


def test_replacing_leaves_old_or_new_and_no_drafts(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_new(path, b"one")
    write_replace(path, b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    with pytest.raises(IdentityError):
        write_replace(tmp_path / "none" / "x", b"")
    with pytest.raises(IdentityError, match="exists already"):
        write_new(path, b"three")
    with pytest.raises(IdentityError, match="cannot be written"):
        write_new(tmp_path / "none" / "x", b"")


def test_reading_is_bounded_and_does_not_hang_on_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(bytes(11))
    with pytest.raises(UnsafeFileError, match="longer than 10"):
        read_limited(tmp_path / "long", max_bytes=10)
    assert read_limited(tmp_path / "long", max_bytes=11) == bytes(11)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnsafeFileError, match="regular"):
        read_limited(tmp_path / "pipe")
    with pytest.raises(MissingFileError):
        read_limited(tmp_path / "none")
    with pytest.raises(IdentityError):
        read_limited(tmp_path)


def test_a_secret_is_not_read_through_a_link(tmp_path: Path) -> None:
    write_new(tmp_path / "real", b"secret")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert read_limited(tmp_path / "real", secret=True) == b"secret"
    with pytest.raises(IdentityError):
        read_limited(tmp_path / "link", secret=True)
    assert read_limited(tmp_path / "link") == b"secret"
