"""`meshagent`: the command line.

Only the grammar is imported here, so that help, completion and mistakes answer at once; grpc, zeroconf and the
cryptography come in when a command needs them.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from meshagent.operator.commands import config, device, fleet, look, work

app = typer.Typer(
    name="meshagent",
    help="A mesh of devices that find each other, negotiate a job and get it done, although one of them dies.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
work.add_to(app)
look.add_to(app)
device.add_to(app)
app.add_typer(config.app, name="config", rich_help_panel="Device")
app.add_typer(fleet.app, name="fleet", rich_help_panel="Fleet")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"meshagent {version('meshagent')}")
        raise typer.Exit


@app.callback()
def root(
    _version_: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A mesh of devices that find each other, negotiate a job and get it done, although one of them dies."""


def main() -> None:
    """Entry point of the `meshagent` script."""
    # grpc's own log lines ("Unable to determine ...") are no sentence for people; -v leaves them in
    if not {"-v", "-vv", "--verbose"} & set(sys.argv):
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    app()


if __name__ == "__main__":
    main()
