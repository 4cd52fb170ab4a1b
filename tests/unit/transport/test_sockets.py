"""Mistake 7: a port that is taken, told with its holder."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from meshagent.transport.sockets import port_holder, port_in_use

_LISTEN = (
    "import socket,sys; s=socket.create_server(('127.0.0.1',0)); print(s.getsockname()[1],flush=True); sys.stdin.read()"
)


@contextmanager
def listener(*words: str) -> Iterator[tuple[int, int]]:
    """A process with these words in its command line that listens; yields its port and pid."""
    command = (sys.executable, "-c", _LISTEN, *words)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline()), process.pid
        finally:
            process.stdin.close()


@pytest.mark.network
@pytest.mark.parametrize(
    "words", [("meshagent", "run", "Dog", "--name", "dog-2"), ("/x/bin/meshagent", "--name=dog-2")]
)
def test_port_held_by_another_node_is_told_with_its_name_as_surface_has_it(words: tuple[str, ...]) -> None:
    with listener(*words) as (port, pid):
        error = port_in_use(port, "", name="dog-2b")
        assert str(error) == f"port {port} is in use by another meshagent node (dog-2, pid {pid})."
        assert error.next_step == ("meshagent status   or a second node: meshagent run ROLE --port 0 --name dog-2b")


@pytest.mark.network
def test_port_held_by_something_else_is_told_with_its_program() -> None:
    with listener("/home/meshagent/other.py") as (port, pid):
        error = port_in_use(port, "")
        assert str(error).startswith(f"port {port} is in use by python")
        assert str(error).endswith(f"(pid {pid}).")
        assert error.next_step is not None
        assert f"network.port {port + 1}" in error.next_step


def test_name_of_a_holder_is_never_more_than_printable_text() -> None:
    with listener("meshagent", "--name", "evil\x1b[31m\nname") as (port, _):
        holder = port_holder(port)
        assert holder is not None
        assert holder.name == "evil[31mname"


def test_port_that_nobody_holds_has_no_holder() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert port_holder(bound.getsockname()[1]) is None
