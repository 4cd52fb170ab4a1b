"""Files that hold secrets or trust: created exclusively, owned by one user, read with a bound, replaced whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from meshagent.errors import IdentityError

PRIVATE_FILE: Final = 0o600
PRIVATE_FOLDER: Final = 0o700
MAX_FILE_BYTES: Final = 1 << 20
"""A credential with its revocation lists stays far below; what is larger is not one of our files."""


class UnsafeFileError(IdentityError):
    """A file or folder is open to others, of another kind, or of another owner."""


class MissingFileError(IdentityError):
    """A file that should be there is not."""


def private_folder(folder: Path) -> Path:
    """Make `folder` (mode 0700) or check that nobody else may enter it.

    Raises:
        UnsafeFileError: it is a link, not a folder, another user's, or open to others.
        IdentityError: it cannot be made.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise IdentityError(f"the folder {folder} cannot be made: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise UnsafeFileError(f"{folder} is not a folder", next_step=f"move it away: mv {folder} {folder}.old")
    _check_owner(folder, found)
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise UnsafeFileError(
            f"the folder {folder} is open to other users (mode {stat.S_IMODE(found.st_mode):04o})",
            next_step=f"chmod 700 {folder}",
        )
    return folder


def write_new(path: Path, data: bytes) -> None:
    """Create `path` (mode 0600) with `data`, durable on return; never through a link, never over a file.

    Raises:
        IdentityError: it exists already or cannot be written.
    """
    try:
        _create(path, data)
        _sync_folder(path.parent)
    except FileExistsError as error:
        raise IdentityError(
            f"{path} exists already and is not overwritten", next_step=f"keep it, or move it away: mv {path} {path}.old"
        ) from error
    except OSError as error:
        raise IdentityError(f"{path} cannot be written: {error.strerror}") from error


def write_replace(path: Path, data: bytes) -> None:
    """Put `data` under `path` (mode 0600) whole or not at all, whatever stood there.

    Raises:
        IdentityError: it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        _create(draft, data)
        draft.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise IdentityError(f"{path} cannot be written: {error.strerror}") from error


def read_limited(path: Path, *, secret: bool = False, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """The bytes of a regular file, at most `max_bytes`; a `secret` one must be the user's own and closed to others.

    Raises:
        MissingFileError: there is none.
        UnsafeFileError: not a regular file, too long, or a secret that others can read.
        IdentityError: it cannot be read.
    """
    try:
        # O_NONBLOCK: a pipe somebody put there must not hang the node; O_NOFOLLOW for secrets alone, since people
        # keep links to credentials.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_NOFOLLOW if secret else 0))
    except FileNotFoundError as error:
        raise MissingFileError(f"there is no file {path}") from error
    except OSError as error:
        raise IdentityError(f"{path} cannot be read: {error.strerror}") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise UnsafeFileError(f"{path} is not a regular file")
        if secret:
            _check_owner(path, found)
            if stat.S_IMODE(found.st_mode) & 0o077:
                raise UnsafeFileError(
                    f"other users may read {path} (mode {stat.S_IMODE(found.st_mode):04o}); treat the key as known",
                    next_step=f"chmod 600 {path}",
                )
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise IdentityError(f"{path} cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)
    if len(data) > max_bytes:
        raise UnsafeFileError(f"{path} is longer than {max_bytes} bytes: not one of our files")
    return data


def _create(path: Path, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, PRIVATE_FILE), "wb") as file:
        os.fchmod(file.fileno(), PRIVATE_FILE)  # the umask may have taken the owner's own bits
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_owner(path: Path, found: os.stat_result) -> None:
    if found.st_uid not in (os.geteuid(), 0):
        raise UnsafeFileError(f"{path} belongs to another user (uid {found.st_uid})")
