"""Where things lie on this machine: state folders, the throw-away fleet, local sockets, and which nodes run.

A state folder holds one device: identity, journal, the lock of the node that runs in it, and the socket of its local
API. Its names are known to `identity` and `runtime/compose.py`; here are those that only the command line needs.
The throw-away fleet (`--dev`) is a folder beside it with an authority and one state folder for each named node.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from meshagent.config import Config
from meshagent.identity.files import PRIVATE_FILE, private_folder
from meshagent.operator.exits import CommandError, Exit

SOCKET_NAME: Final = "api.sock"
JOURNAL_FILE: Final = "journal.db"
"""As runtime/compose.py calls it, which is too heavy to import for a look."""
LOCK_NAME: Final = "node.lock"
MAX_SOCKET_CHARS: Final = 100
"""The kernel takes 107 bytes (unix(7)); gRPC writes a prefix into its own buffers, so some are left free."""
MAX_LOCK_BYTES: Final = 4096
LOCK_TRIES: Final = 10
LOCK_AGAIN_S: Final = 0.01
"""A command that looks holds the lock for microseconds; a node that just starts has not yet written its pid."""
DEV_NAMES: Final = (
    "ann", "bob", "cleo", "dan", "eve", "finn", "gus", "hana", "ida", "jon", "kim", "leo", "mia", "ned", "ola", "pia"
)  # fmt: skip
"""Names for nodes of the throw-away fleet that were given none, in the order they are taken."""
MAX_VISITORS: Final = 64
"""Commands that visit the throw-away fleet at once, each with an identity of its own."""


def state_root(environ: Mapping[str, str] | None = None) -> Path:
    """The user's state folder (XDG base directories): `~/.local/state/meshagent`."""
    environ = os.environ if environ is None else environ
    base = environ.get("XDG_STATE_HOME") or str(Path(environ.get("HOME") or "~").expanduser() / ".local" / "state")
    return Path(base) / "meshagent"


def state_of(config: Config) -> Path:
    """The state folder that the configuration names, or the user's."""
    named = config.node.state_dir
    return (config.folder / Path(named).expanduser()) if named else state_root()


@dataclass(frozen=True, slots=True)
class DevPlaces:
    """The throw-away fleet inside a state folder."""

    root: Path

    @classmethod
    def of(cls, config: Config) -> DevPlaces:
        """The one that belongs to the configured state folder."""
        return cls(state_of(config) / "dev")

    @property
    def authority(self) -> Path:
        """Folder with the authority's key."""
        return self.root / "fleet"

    @property
    def exists(self) -> bool:
        """True once it was set up."""
        return self.authority.is_dir()

    def node(self, name: str) -> Path:
        """State folder of the node `name`."""
        if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii() or len(name) > 40:
            raise CommandError(
                f"{name!r} cannot name a node of the throw-away fleet",
                exit_code=Exit.USAGE,
                next_step="use letters, digits and -",
            )
        return self.root / "nodes" / name

    def visitor(self, number: int) -> Path:
        """State folder of the `number`th visitor; reused, so that what it asked can still be told."""
        return self.root / "visitors" / f"v{number}"

    def states(self) -> list[Path]:
        """State folders of all nodes that ever ran here, by name."""
        folder = self.root / "nodes"
        return sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []

    def visitor_states(self) -> list[Path]:
        """State folders of all visitors."""
        folder = self.root / "visitors"
        return sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []


# ---- which node runs in a state folder


@dataclass(frozen=True, slots=True)
class Running:
    """A node that holds the lock of its state folder."""

    state: Path
    pid: int
    name: str
    port: int

    @property
    def socket(self) -> Path:
        """Its local API."""
        return socket_of(self.state)


class NodeLock:
    """One node in one state folder: two with one identity would be clones (SECURITY-DESIGN 4).

    The kernel drops the lock with the process, so a kill -9 leaves none behind.
    """

    def __init__(self, state: Path) -> None:
        """Not taken yet."""
        self.state = state
        self._descriptor: int | None = None

    def take(self) -> bool:
        """Take it; False where another process has it."""
        private_folder(self.state)
        descriptor = os.open(
            self.state / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE_FILE
        )
        for _ in range(LOCK_TRIES):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if _alive(int(_lock_text(os.pread(descriptor, MAX_LOCK_BYTES, 0)).get("pid", 0))):
                    os.close(descriptor)
                    return False
                time.sleep(LOCK_AGAIN_S)  # somebody only looks who runs here, and is gone in a moment
        else:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        self.describe(name="", port=0)
        return True

    def describe(self, *, name: str, port: int) -> None:
        """Say who holds it, for those who find it taken."""
        assert self._descriptor is not None
        text = json.dumps({"pid": os.getpid(), "name": name, "port": port}).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, text, 0)

    def release(self) -> None:
        """Give it up; idempotent. The file stays: unlinking a lock file lets two processes hold it."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return pid > 0


def running_in(state: Path) -> Running | None:
    """The node that runs in `state`, if one does."""
    try:
        descriptor = os.open(state / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            return None  # nobody holds it; closing the file gives our own lock back
        said = _lock_text(os.pread(descriptor, MAX_LOCK_BYTES, 0))
        return Running(state, int(said.get("pid", 0)), str(said.get("name", "")), int(said.get("port", 0)))
    finally:
        os.close(descriptor)


def _lock_text(data: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        said = json.loads(data)
        if isinstance(said, dict):
            return said
    return {}  # between truncation and writing: it runs, and will say in a moment who it is


def running_nodes(config: Config, *, dev: bool) -> Iterator[Running]:
    """The nodes of this user that run now: of the throw-away fleet with `dev`, else the one in the state folder."""
    for state in DevPlaces.of(config).states() if dev else [state_of(config)]:
        found = running_in(state)
        if found is not None:
            yield found


def who_has_port(config: Config, port: int) -> Running | None:
    """Which of this user's nodes listens on `port`, as far as they said."""
    for dev in (False, True):
        for found in running_nodes(config, dev=dev):
            if found.port == port:
                return found
    return None


# ---- sockets


def socket_of(state: Path) -> Path:
    """The local API's socket: in the state folder, or in a short private folder where that path is too long."""
    inside = state.absolute() / SOCKET_NAME
    if len(os.fsencode(inside)) <= MAX_SOCKET_CHARS:
        return inside
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    base = (
        Path(runtime) / "meshagent" if runtime and len(runtime) < 60 else Path(f"/tmp/meshagent-{os.getuid()}")
    )  # owner and mode are checked before use
    return base / hashlib.sha256(os.fsencode(inside)).hexdigest()[:20] / SOCKET_NAME


def prepare_socket(state: Path) -> Path:
    """A path where a socket may be bound: every folder that we made is 0700 and ours, a stale socket is gone.

    The caller holds the lock of `state`, so no living node can own the stale one. gRPC's sockets follow the umask and
    name no user (attack socket_umask): the folder is what keeps others out.
    """
    path = socket_of(state)
    if path.parent != state.absolute():
        private_folder(path.parent.parent)
    private_folder(path.parent)
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise CommandError(f"{path} is no socket", exit_code=Exit.CONFIGURATION, next_step=f"mv {path} {path}.old")
        path.unlink()
    return path


def forget_socket(path: Path, state: Path) -> None:
    """Take the socket away, and the folder that was made for it alone."""
    path.unlink(missing_ok=True)
    if path.parent != state.absolute():
        with contextlib.suppress(OSError):
            path.parent.rmdir()


def check_socket(path: Path) -> None:
    """Refuse to talk to a socket that another user could have put there.

    Raises:
        CommandError: its folder is not ours alone.
    """
    found = path.parent.stat()
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise CommandError(
            f"the folder of {path} is not yours alone: whoever can enter it can act as your node",
            exit_code=Exit.PERMISSION,
            next_step=f"chmod 700 {path.parent}",
        )
