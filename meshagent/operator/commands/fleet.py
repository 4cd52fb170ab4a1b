"""`meshagent fleet create | admit | renew | revoke | show | dev`: needs the authority's key, never on a robot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meshagent.operator.commands.work import Yes
from meshagent.operator.grammar import Screen, command, parse_duration

app = typer.Typer(help="The fleet's authority: who belongs to it, until when, and may do what.", no_args_is_help=True)

AuthorityOption = Annotated[
    Path | None,
    typer.Option("--authority", metavar="DIR", help="Folder of the authority's keys.", show_default=False),
]
PassphraseOption = Annotated[bool, typer.Option("--passphrase", help="Seal the authority's key files.")]
MayOption = Annotated[
    list[str] | None,
    typer.Option(
        "--may", metavar="ACTION:KIND", help="A permission, perform:pump.check.v1; may be repeated.", show_default=False
    ),
]
CapabilityOption = Annotated[
    list[str] | None,
    typer.Option("--capability", metavar="NAME", help="A certified capability; may be repeated.", show_default=False),
]
ForOption = Annotated[
    float | None,
    typer.Option("--for", parser=parse_duration, metavar="365d", help="How long it is valid.", show_default=False),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="Where the credential goes.", show_default=False),
]
ClockOption = Annotated[
    bool, typer.Option("--accept-clock", help="Sign although this machine's clock looks wrong: the date is right.")
]
Member = Annotated[str, typer.Argument(metavar="NAME|ID", help="A member, by name or any unique prefix of its id")]


@command(app)
def create(
    screen: Screen,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What people call the fleet")],
    authority: AuthorityOption = None,
    passphrase: PassphraseOption = False,
) -> None:
    """Make a fleet: the root key, and the key that follows it, in a folder to keep offline."""
    from meshagent.operator.fleet import create_fleet

    create_fleet(screen, name, authority, sealed=passphrase)


@command(app)
def admit(
    screen: Screen,
    request: Annotated[Path, typer.Argument(metavar="FILE", help="The request that the device wrote")],
    name: Annotated[str, typer.Option("--name", help="Instead of the name that it asks for.", show_default=False)] = "",
    may: MayOption = None,
    capability: CapabilityOption = None,
    for_: ForOption = None,
    out: OutOption = None,
    authority: AuthorityOption = None,
    accept_clock: ClockOption = False,
    yes: Yes = False,
) -> None:
    """Admit a device: its request in, its credential out."""
    from meshagent.operator.fleet import admit_device

    admit_device(
        screen,
        request,
        name=name,
        may=may,
        capabilities=capability,
        valid_s=for_,
        out=out,
        authority=authority,
        accept_clock=accept_clock,
        yes=yes,
    )


@command(app)
def renew(
    screen: Screen,
    member: Member,
    may: MayOption = None,
    capability: CapabilityOption = None,
    for_: ForOption = None,
    out: OutOption = None,
    authority: AuthorityOption = None,
    accept_clock: ClockOption = False,
) -> None:
    """Issue a new credential to a member, longer valid or with other permissions; the old one ends."""
    from meshagent.operator.fleet import renew_member

    renew_member(
        screen,
        member,
        may=may,
        capabilities=capability,
        valid_s=for_,
        out=out,
        authority=authority,
        accept_clock=accept_clock,
    )


@command(app)
def revoke(
    screen: Screen,
    member: Member,
    reason: Annotated[
        str, typer.Option("--reason", metavar="WORD", help="lost, compromised, moved, retired or other")
    ] = "lost",
    out: OutOption = None,
    authority: AuthorityOption = None,
    accept_clock: ClockOption = False,
    yes: Yes = False,
) -> None:
    """Expel a member: a signed list that spreads from any node it is given to."""
    from meshagent.operator.fleet import revoke_member

    revoke_member(screen, member, reason=reason, out=out, authority=authority, accept_clock=accept_clock, yes=yes)


@command(app)
async def spread(
    screen: Screen,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The list that `fleet revoke` wrote")],
) -> None:
    """Give a revocation list to the node on this machine, or to the mesh as a visitor; it spreads by itself."""
    from meshagent.operator.change import spread_list

    await spread_list(screen, file)


@command(app)
def show(screen: Screen, authority: AuthorityOption = None) -> None:
    """Who belongs to the fleet, until when, and may do what."""
    from meshagent.operator.fleet import show_fleet

    show_fleet(screen, authority)


@command(app)
def dev(
    screen: Screen,
    clean: Annotated[bool, typer.Option("--clean", help="Delete it: keys, journals, everything.")] = False,
    yes: Yes = False,
) -> None:
    """Set up and show the throw-away fleet on this machine."""
    from meshagent.operator.dev import clean_dev, show_dev

    if clean:
        clean_dev(screen, yes=yes)
    else:
        show_dev(screen)
