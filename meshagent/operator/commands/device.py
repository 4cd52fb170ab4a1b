"""`meshagent init | join | leave`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meshagent.operator.commands.work import Yes
from meshagent.operator.grammar import Screen, command

PANEL = "Device"


def add_to(app: typer.Typer) -> None:
    """Register the commands of this topic."""

    @command(app, rich_help_panel=PANEL)
    def init(
        screen: Screen,
        passphrase: Annotated[
            bool, typer.Option("--passphrase", help="Seal the key file; asked for at every start.")
        ] = False,
        new_identity: Annotated[
            bool, typer.Option("--new-identity", help="Replace the identity (on a copied disk): the old key is lost.")
        ] = False,
        yes: Yes = False,
    ) -> None:
        """Make this device's identity: an Ed25519 key that never leaves it."""
        from meshagent.operator.device import make_identity

        make_identity(screen, sealed=passphrase, replace=new_identity, yes=yes)

    @command(app, rich_help_panel=PANEL)
    async def join(
        screen: Screen,
        credential: Annotated[
            Path | None,
            typer.Argument(metavar="[FILE]", help="The credential that the fleet gave", show_default=False),
        ] = None,
        request: Annotated[
            Path | None,
            typer.Option("--request", metavar="FILE", help="Write a request to be admitted.", show_default=False),
        ] = None,
        name: Annotated[
            str, typer.Option("--name", help="Name to ask for; default: node.name or the host's.", show_default=False)
        ] = "",
    ) -> None:
        """Join a fleet by files: a request out, then the credential in."""
        from meshagent.operator.device import install_credential, write_request

        if request is not None:
            write_request(screen, request, name)
        else:
            await install_credential(screen, credential)

    @command(app, rich_help_panel=PANEL)
    def leave(screen: Screen, yes: Yes = False) -> None:
        """Leave the fleet: the credential is deleted, the key stays."""
        from meshagent.operator.device import leave_fleet

        leave_fleet(screen, yes=yes)
