"""Options that every command takes, durations, and how commands end."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import typer

from meshagent.configfile import InvalidConfigError, Problem
from meshagent.errors import IdentityError, JournalError, MeshAgentError, TransportError
from meshagent.operator.exits import CommandError, Exit
from meshagent.operator.grammar import Screen, finish, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1h30m", 5400), ("365d", 365 * 86400), ("500ms", 0.5), ("2", 2)]
)
def test_durations_are_typed_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "-1s", "0", "10 parsecs", "1e9d", "nan", "9" * 400])
def test_a_wrong_duration_is_a_usage_error(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="90s, 10m"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CommandError("x", exit_code=Exit.UNFINISHED), 5),
        (InvalidConfigError([Problem("a"), Problem("b", "c")]), 3),
        (IdentityError("x"), 3),
        (TransportError("x"), 4),
        (JournalError("x"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_error_has_its_exit_code(error: BaseException, code: int) -> None:
    def fail() -> None:
        raise error

    assert finish(Screen(), fail) == code


def test_an_error_is_a_sentence_and_a_next_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise MeshAgentError("It broke\x1b[2J.", next_step="meshagent doctor")

    assert finish(Screen(json=True), fail) == 1
    out, err = capsys.readouterr()
    assert err == "It broke\\x1b[2J.\n  next: meshagent doctor\n"
    assert json.loads(out)["schema"] == "meshagent.error/1"
    assert json.loads(out)["next"] == "meshagent doctor"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom meshagent.operator.main import app\n"
        "import contextlib, io\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        "    try: app(['--help'])\n"
        "    except SystemExit: pass\n"
        "print(','.join(sorted({m.split('.')[0] for m in sys.modules} & "
        "{'grpc', 'zeroconf', 'cryptography', 'nacl', 'google', 'numpy', 'uvloop', 'msgpack', 'rich'})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == ""
