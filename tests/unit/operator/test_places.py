"""State folders, locks and sockets on this machine."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from meshagent.config import Config, NodeSection
from meshagent.errors import IdentityError
from meshagent.operator.exits import CommandError, Exit
from meshagent.operator.places import (
    MAX_SOCKET_CHARS,
    DevPlaces,
    NodeLock,
    check_socket,
    prepare_socket,
    running_in,
    running_nodes,
    socket_of,
    state_of,
    state_root,
    who_has_port,
)


def config_in(folder: Path) -> Config:
    return Config(node=NodeSection(state_dir=str(folder)))


def test_the_state_folder_follows_configuration_then_xdg(tmp_path: Path) -> None:
    assert state_root({"XDG_STATE_HOME": "/s"}) == Path("/s/meshagent")
    assert state_root({"HOME": "/h"}) == Path("/h/.local/state/meshagent")
    assert state_of(config_in(tmp_path / "x")) == tmp_path / "x"


def test_one_node_runs_in_a_state_folder_and_says_who_it_is(tmp_path: Path) -> None:
    state = tmp_path / "state"
    lock, second = NodeLock(state), NodeLock(state)
    assert running_in(state) is None
    assert lock.take()
    lock.describe(name="dog-2", port=7340)
    assert not second.take()
    found = running_in(state)
    assert found is not None
    assert (found.name, found.port, found.pid) == ("dog-2", 7340, os.getpid())
    assert who_has_port(config_in(state), 7340) == found
    assert list(running_nodes(config_in(state), dev=False)) == [found]
    lock.release()
    assert running_in(state) is None
    assert second.take()
    second.release()


def test_a_look_at_the_wrong_moment_does_not_keep_a_node_from_starting(tmp_path: Path) -> None:
    state = tmp_path / "state"
    first, lock = NodeLock(state), NodeLock(state)
    assert first.take()
    first.release()
    looking = os.open(state / "node.lock", os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    ended = threading.Timer(0.03, os.close, [looking])
    ended.start()
    try:
        assert lock.take()
    finally:
        ended.join()
        lock.release()


def test_a_killed_node_leaves_no_lock(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\nfrom meshagent.operator.places import NodeLock\n"
        "lock = NodeLock(pathlib.Path(sys.argv[1])); assert lock.take(); print('held', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "s")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        assert running_in(tmp_path / "s") is not None
    finally:
        child.kill()
        child.wait(10)
        for pipe in (child.stdin, child.stdout):
            assert pipe is not None
            pipe.close()
    assert running_in(tmp_path / "s") is None


def test_socket_umask_does_not_open_the_folder(tmp_path: Path) -> None:
    state = tmp_path / "state"
    before = os.umask(0)
    try:
        path = prepare_socket(state)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    check_socket(path)


def test_a_socket_in_a_folder_open_to_others_is_not_trusted(tmp_path: Path) -> None:
    state = tmp_path / "state"
    path = prepare_socket(state)
    state.chmod(0o755)
    with pytest.raises(CommandError) as caught:
        check_socket(path)
    assert caught.value.exit_code is Exit.PERMISSION
    with pytest.raises(IdentityError, match="open to other users"):
        prepare_socket(state)


def test_a_long_state_path_gets_a_short_private_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / ("deep" * 30)
    with tempfile.TemporaryDirectory(dir="/tmp") as runtime:  # pytest's own folder is too long itself
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        path = prepare_socket(state)
        assert len(str(path)) <= MAX_SOCKET_CHARS
        assert path == socket_of(state)
        assert path != socket_of(tmp_path / ("deep" * 31))
        for folder in (path.parent, path.parent.parent):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_planted_link_in_the_way_of_the_socket_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (tmp_path / "elsewhere").mkdir()
    state.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IdentityError):
        prepare_socket(state)


@pytest.mark.parametrize("name", ["", "../x", "a/b", "x" * 41, "näh"])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CommandError):
        DevPlaces(tmp_path).node(name)
