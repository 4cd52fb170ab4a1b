"""What the fleet's owner does, on the machine that holds the authority's key: found, admit, renew, expel, look.

Files go in and out; nothing here needs a network. Questions are asked before anything is signed that cannot be taken
back, and a new credential is shown with what it allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from meshagent.errors import IdentityError
from meshagent.identity.credential import DEFAULT_MAY
from meshagent.identity.device import CredentialFile
from meshagent.identity.files import read_limited
from meshagent.identity.fleet import LIFETIME_DAYS, DeviceRecord, FleetAuthority
from meshagent.identity.join import MAX_REQUEST_BYTES, JoinRequest
from meshagent.identity.revocation import RevocationReason
from meshagent.operator.device import wall_s
from meshagent.operator.exits import CommandError, Exit
from meshagent.operator.places import state_root
from meshagent.operator.render import clean, duration, table
from meshagent.operator.secrets import ROOT_VARIABLE, new_passphrase, unsealed

if TYPE_CHECKING:
    from meshagent.operator.grammar import Screen

DAY_S: Final = 86400.0
REASONS: Final = {
    "lost": RevocationReason.UNSPECIFIED,
    "compromised": RevocationReason.KEY_COMPROMISE,
    "moved": RevocationReason.AFFILIATION_CHANGED,
    "retired": RevocationReason.CESSATION_OF_OPERATION,
    "other": RevocationReason.UNSPECIFIED,
}
"""What people type -> the reason that travels (RFC 5280 5.3.1)."""


def authority_folder(named: Path | None) -> Path:
    """The authority's folder: as named, or in the user's state folder."""
    return named if named is not None else state_root() / "authority"


def open_authority(named: Path | None) -> FleetAuthority:
    """The authority on this machine; asks for its passphrase where it has one."""
    folder = authority_folder(named)
    return unsealed("the fleet's root key", ROOT_VARIABLE, lambda p: FleetAuthority.open(folder, passphrase=p))


def create_fleet(screen: Screen, name: str, folder: Path | None, *, sealed: bool) -> None:
    """`meshagent fleet create`."""
    folder = authority_folder(folder)
    passphrase = new_passphrase("the fleet's root key", ROOT_VARIABLE) if sealed else None
    with FleetAuthority.create(folder, name, now_s=wall_s(), passphrase=passphrase) as authority:
        document = {
            "schema": "meshagent.fleet/1",
            "name": authority.name,
            "fleet_id": authority.trust.fleet_id,
            "authority": str(folder),
            "sealed": sealed,
            "devices": [],
        }
        screen.answer(document, f"fleet {name} (root {authority.trust.fleet_id[:4]}..) is in {folder}")
    screen.say(
        "Keep that folder offline: whoever has it decides who belongs to the fleet. Keep "
        f"{folder / 'root-1.key'}\nelsewhere: it takes over if the present root is lost.\n"
        "  next: on each device: meshagent join --request NAME.req   then here: meshagent fleet admit NAME.req"
    )


def admit_device(
    screen: Screen,
    request_file: Path,
    *,
    name: str,
    may: list[str] | None,
    capabilities: list[str] | None,
    valid_s: float | None,
    out: Path | None,
    authority: Path | None,
    accept_clock: bool,
    yes: bool,
) -> None:
    """`meshagent fleet admit`."""
    request = JoinRequest.from_bytes(read_limited(request_file, max_bytes=MAX_REQUEST_BYTES))
    out = out or request_file.with_suffix(".cred")
    granted = tuple(may) if may else DEFAULT_MAY
    with open_authority(authority) as fleet:
        screen.say(
            f"{name or request.name} wants to join {clean(fleet.name)} with the key {request.node_id[:8]}, to "
            f"{', '.join(granted)}. Compare with what it showed: {request.compare}"
        )
        screen.confirm("Admit?", yes=yes)
        file = fleet.admit(
            request,
            now_s=wall_s(),
            name=name or None,
            may=granted,
            capabilities=tuple(capabilities or ()),
            lifetime_days=LIFETIME_DAYS if valid_s is None else valid_s / DAY_S,
            accept_clock=accept_clock,
        )
        _hand_out(screen, file, out, fleet.find(request.node_id), fleet, "admitted")


def renew_member(
    screen: Screen,
    member: str,
    *,
    may: list[str] | None,
    capabilities: list[str] | None,
    valid_s: float | None,
    out: Path | None,
    authority: Path | None,
    accept_clock: bool,
) -> None:
    """`meshagent fleet renew`."""
    with open_authority(authority) as fleet:
        file = fleet.renew(
            member,
            now_s=wall_s(),
            may=may,
            capabilities=capabilities,
            lifetime_days=LIFETIME_DAYS if valid_s is None else valid_s / DAY_S,
            accept_clock=accept_clock,
        )
        record = fleet.find(member)
        _hand_out(screen, file, out or Path(f"{record.name}.cred"), record, fleet, "renewed")


def _hand_out(
    screen: Screen, file: CredentialFile, out: Path, record: DeviceRecord, fleet: FleetAuthority, done: str
) -> None:
    try:
        out.write_bytes(file.to_bytes())
    except OSError as error:
        raise CommandError(
            f"{out} cannot be written: {error.strerror}",
            exit_code=Exit.FAILED,
            next_step=f"meshagent fleet renew {record.name} --out FILE",
        ) from error
    left = duration(record.not_after_s - wall_s())
    screen.answer(
        {"schema": "meshagent.admitted/1", "file": str(out), "fleet": fleet.name, **_plain(record)},
        f"{record.name} ({record.id[:8]}) {done} for {left}: {out}",
    )
    screen.say(f"  next: carry {out} to the device, there: meshagent join {out.name}")


def _plain(record: DeviceRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "name": record.name,
        "generation": record.generation,
        "not_after_s": record.not_after_s,
        "may": list(record.may),
        "capabilities": list(record.capabilities),
        "revoked": record.revoked.name.lower() if record.revoked is not None else None,
    }


def revoke_member(
    screen: Screen, member: str, *, reason: str, out: Path | None, authority: Path | None, accept_clock: bool, yes: bool
) -> None:
    """`meshagent fleet revoke`."""
    if reason not in REASONS:
        raise CommandError(f"--reason {reason}? It is one of {', '.join(REASONS)}.", exit_code=Exit.USAGE)
    with open_authority(authority) as fleet:
        record = fleet.find(member)
        screen.confirm(
            f"Expel {record.name} ({record.id[:8]}) from {clean(fleet.name)}? Its key stays out for good.", yes=yes
        )
        signed = fleet.revoke(member, now_s=wall_s(), reason=REASONS[reason], accept_clock=accept_clock)
        out = out or Path(f"{fleet.name}-{signed.number}.revoked")
        out.write_bytes(signed.signed)
        document = {
            "schema": "meshagent.revoked/1",
            "file": str(out),
            "number": signed.number,
            "entries": len(signed.entries),
            **_plain(fleet.find(record.id)),
        }
        screen.answer(document, f"{record.name} ({record.id[:8]}) is expelled by list {signed.number}: {out}")
    screen.say(
        "The list must reach one node, from there it spreads by itself.\n"
        f"  next: on any device of the fleet: meshagent fleet spread {out.name}"
    )


def show_fleet(screen: Screen, authority: Path | None) -> None:
    """`meshagent fleet show`."""
    with open_authority(authority) as fleet:
        now_s = wall_s()
        document = {
            "schema": "meshagent.fleet/1",
            "name": fleet.name,
            "fleet_id": fleet.trust.fleet_id,
            "authority": str(authority_folder(authority)),
            "roots": len(fleet.trust.roots),
            "devices": [_plain(record) for record in fleet.devices],
        }
        head = f"fleet {clean(fleet.name)} (root {fleet.trust.fleet_id[:4]}..), {len(fleet.devices)} devices"
        rows = [_row(record, now_s) for record in fleet.devices]
    text = head if not rows else head + "\n" + table(("NAME", "ID", "VALID", "MAY", "CAPABILITIES"), rows)
    screen.answer(document, text)


def _row(record: DeviceRecord, now_s: float) -> Sequence[str]:
    left_s = record.not_after_s - now_s
    if record.revoked is not None:
        why = "" if record.revoked is RevocationReason.UNSPECIFIED else f" ({record.revoked.name.lower()})"
        valid = f"revoked{why}".replace("_", " ")
    else:
        valid = duration(left_s) if left_s > 0 else f"expired {duration(left_s)} ago"
    return record.name, record.id[:8], valid, " ".join(record.may) or "-", " ".join(record.capabilities) or "-"


def read_list(path: Path) -> bytes:
    """A revocation list from a file.

    Raises:
        IdentityError: it is none, as far as its form tells; the signature is for the node to check.
    """
    from meshagent.identity.revocation import MAX_LIST_BYTES, RevocationError, parse_list

    data = read_limited(path, max_bytes=MAX_LIST_BYTES)
    try:
        parse_list(data)
    except RevocationError as error:
        raise IdentityError(
            f"{path} is no revocation list: {error}", next_step="meshagent fleet revoke NAME"
        ) from error
    return data
