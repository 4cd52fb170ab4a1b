"""The options that every command takes, how durations are typed, and how a command ends.

A command is a plain function whose first parameter is `Screen`; `command` adds the common options to its signature,
builds the screen from them, and turns errors into a sentence, a `next:` line and an exit code. Commands import what
they need when they run, so that `meshagent --help` stays quick.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import os
import re
import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from meshagent.configfile import InvalidConfigError
from meshagent.errors import MeshAgentError
from meshagent.operator.exits import CommandError, Exit, exit_of
from meshagent.operator.render import Paint, clean

if TYPE_CHECKING:
    from meshagent.config import Config

T = TypeVar("T")

_UNITS: Final[Mapping[str, float]] = {"ms": 0.001, "": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d|)")
MAX_DURATION_S: Final = 3660 * 86400.0
"""Ten years: longer is a typing error, and still fits every clock that is involved."""


def parse_duration(text: str) -> float:
    """`90s`, `10m`, `1h30m`, `365d`, `500ms`; a bare number is seconds."""
    at = 0
    total = 0.0
    while at < len(text):
        match = _DURATION.match(text, at)
        if match is None:
            break
        total += float(match[1]) * _UNITS[match[2]]
        at = match.end()
    if not text or at < len(text) or not math.isfinite(total) or not 0 < total <= MAX_DURATION_S:
        raise typer.BadParameter(f"{text!r} is no duration; type 90s, 10m, 2h or 365d")
    return total


def _complete_node(incomplete: str) -> list[tuple[str, str]]:
    from meshagent.operator.completion import complete

    return complete("node", incomplete)


JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object with `schema` (watch: JSON Lines).")]
NodeOption = Annotated[
    str,
    typer.Option(
        "--node",
        metavar="NAME",
        help="Which node on this machine to ask.",
        autocompletion=_complete_node,
        show_default=False,
    ),
]
DevOption = Annotated[bool, typer.Option("--dev", help="Use the throw-away fleet on this machine.")]
TimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--timeout", parser=parse_duration, metavar="90s|10m", help="Wait at most so long.", show_default=False
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Only what was asked for.")]
VerboseOption = Annotated[int, typer.Option("--verbose", "-v", count=True, help="More about the way there.")]
ConfigOption = Annotated[
    list[Path] | None,
    typer.Option("--config", "-c", metavar="FILE", help="Configuration file; may be repeated.", show_default=False),
]
StateOption = Annotated[
    str, typer.Option("--state", metavar="DIR", help="State folder (node.state_dir).", show_default=False)
]

DEV_FLAGS: Final[Mapping[str, tuple[str, object]]] = {
    "preset": ("--dev", "loopback"),
    "network.port": ("--dev", 0),
    "network.interfaces": ("--dev", ["lo"]),
}
"""The throw-away fleet: loopback only, any port, quick leases; a flag that is typed beside --dev wins."""

_COMMON: Final = [
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
    for name, default, annotation in (
        ("json_", False, JsonOption),
        ("node_", "", NodeOption),
        ("dev_", False, DevOption),
        ("timeout_", None, TimeoutOption),
        ("quiet_", False, QuietOption),
        ("verbose_", 0, VerboseOption),
        ("config_", None, ConfigOption),
        ("state_", "", StateOption),
    )
]


@dataclass(frozen=True, kw_only=True)
class Screen:
    """What the common options said, and where text goes: answers to stdout, the way there to stderr."""

    json: bool = False
    node: str = ""
    dev: bool = False
    timeout_s: float | None = None
    quiet: bool = False
    verbose: int = 0
    config_files: tuple[Path, ...] = ()
    state: str = ""

    @property
    def paint(self) -> Paint:
        """Colours of stdout."""
        return Paint(enabled=_wants_colour(sys.stdout))

    def answer(self, document: Mapping[str, Any], text: str) -> None:
        """Print what was asked for: the document as it is with --json, else the text."""
        if self.json:
            print(json.dumps(document, ensure_ascii=False), flush=True)
        elif text:
            print(text, flush=True)

    def say(self, text: str, *, level: int = 0) -> None:
        """A line about the way there."""
        if not self.quiet and self.verbose >= level:
            print(text, file=sys.stderr, flush=True)

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask before something that cannot be undone.

        Raises:
            CommandError: no, or nobody there to ask.
        """
        if yes:
            return
        if not sys.stdin.isatty():
            raise CommandError(f"{question} Nobody is there to answer.", exit_code=Exit.USAGE, next_step="add --yes")
        if not typer.confirm(question, err=True):
            raise CommandError("Nothing was changed.", exit_code=Exit.FAILED)

    def load_config(self, flags: Mapping[str, tuple[str, object]] | None = None) -> Config:
        """The configuration that the options, the environment and the files give; --dev sets what it means."""
        from meshagent.configfile import load_config

        given = {**(DEV_FLAGS if self.dev else {}), **(flags or {})}
        if self.state:
            given["node.state_dir"] = ("--state", str(Path(self.state).absolute()))
        if self.verbose:
            given["log.level"] = ("-v", "debug")
        return load_config(list(self.config_files) or None, flags=given)


def _wants_colour(stream: Any) -> bool:
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and bool(stream.isatty())


def command(
    app: typer.Typer, name: str | None = None, **options: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function `(screen, ...)`, or a coroutine function, as a command with the common options."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        taken = {item.name for item in own}
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
        parameters += [p for p in _COMMON if p.name not in taken]

        def entry(**given: Any) -> None:
            common = {key: given.pop(key) for key in [p.name for p in _COMMON] if key in given}
            screen = Screen(
                json=common["json_"],
                node=common["node_"],
                dev=common["dev_"],
                timeout_s=common["timeout_"],
                quiet=common["quiet_"],
                verbose=common["verbose_"],
                config_files=tuple(common["config_"] or ()),
                state=common["state_"],
            )
            raise typer.Exit(int(finish(screen, lambda: function(screen, **given))))

        entry.__name__ = function.__name__
        entry.__doc__ = function.__doc__
        entry.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # inspect reads it
        entry.__annotations__ = {p.name: p.annotation for p in parameters}
        app.command(name, **options)(entry)
        return function

    return register


def finish(screen: Screen, action: Callable[[], Any]) -> Exit:
    """Run a command to its exit code; errors become a sentence and the next step on stderr."""
    try:
        done = action()
        if inspect.iscoroutine(done):
            done = _run(done)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # whoever read us (head, less) has seen enough; python must not complain again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.DONE
    except MeshAgentError as error:
        return tell(screen, error)
    return Exit.DONE if done is None else Exit(done)


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def _sentences(error: MeshAgentError) -> list[tuple[str, str | None]]:
    """What there is to say; errors that collect many (configuration, roles) say all of them."""
    if isinstance(error, InvalidConfigError):
        return [(p.message, p.next_step) for p in error.problems]
    mistakes = getattr(error, "mistakes", ())  # RoleLoadError, whose module is not imported for every command
    if mistakes:
        return [
            (f"{m.file}:{m.line} {m.message}" if m.line else f"{m.file} {m.message}".strip(), m.next_step)
            for m in mistakes
        ]
    return [(str(error), error.next_step)]


def tell(screen: Screen, error: MeshAgentError) -> Exit:
    """Print what went wrong and what to type next; returns the exit code."""
    code = exit_of(error)
    paint = Paint(enabled=_wants_colour(sys.stderr))
    sentences = _sentences(error)
    for message, next_step in sentences:
        for line in message.splitlines() or [""]:
            print(clean(line), file=sys.stderr)
        if next_step:
            print(f"  {paint('next:', 'key')} {clean(next_step)}", file=sys.stderr)
    if screen.json:
        first = sentences[0]
        document = {
            "schema": "meshagent.error/1",
            "exit": int(code),
            "message": first[0],
            "next": first[1],
            "problems": [{"message": m, "next": n} for m, n in sentences],
        }
        print(json.dumps(document, ensure_ascii=False), flush=True)
    return code
