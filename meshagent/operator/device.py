"""This device's own identity: made, joined to a fleet by files, and taken out again."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from meshagent.errors import IdentityError
from meshagent.identity.credential import did_of
from meshagent.identity.device import CREDENTIAL_FILE, KEY_FILE, CredentialFile, DeviceIdentity, create_key
from meshagent.identity.device import install_credential as install
from meshagent.identity.files import MissingFileError, private_folder, read_limited
from meshagent.identity.keys import DeviceKey
from meshagent.operator.exits import CommandError, Exit
from meshagent.operator.places import NodeLock, Running, running_in, state_of
from meshagent.operator.render import clean, duration
from meshagent.operator.secrets import DEVICE_VARIABLE, new_passphrase, unsealed

if TYPE_CHECKING:
    from meshagent.config import Config
    from meshagent.operator.grammar import Screen

JOURNAL_PREFIX = "journal."
"""The journal and what SQLite keeps beside it."""
HAND_OVER_S: Final = 10.0
"""A node checks and writes a credential in milliseconds, also a busy one within this."""


def wall_s() -> float:
    """Seconds since 1970: commands run on no injected clock, files are dated by the device's own."""
    return time.time()  # noqa: TID251  # a command has no node and no clock of its own


def device_name(config: Config) -> str:
    """The name that a credential may carry: node.name or the host's, in the grammar of device names."""
    raw = (config.node.name or socket.gethostname().partition(".")[0] or "device").lower()
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in raw).strip("._-")[:63]
    return name or "device"


def load_key(folder: Path) -> DeviceKey:
    """The device's key; asks for its passphrase where it has one."""
    try:
        return unsealed("this device's key", DEVICE_VARIABLE, lambda p: DeviceKey.load(folder / KEY_FILE, passphrase=p))
    except MissingFileError as error:
        raise MissingFileError("This device has no identity yet.", next_step="meshagent init") from error


def identity_of(state: Path) -> tuple[str | None, str]:
    """The passphrase of the device's key, where it has one, and the name of its fleet.

    Raises:
        IdentityError: there is no identity, no credential, or they cannot be used; says the next step.
    """

    def load(passphrase: str | None) -> tuple[str | None, str]:
        identity = DeviceIdentity.load(state, now_s=wall_s(), passphrase=passphrase)
        return passphrase, identity.trust.fleet_name

    try:
        return unsealed("this device's key", DEVICE_VARIABLE, load)
    except MissingFileError as error:
        raise MissingFileError(
            "This device belongs to no fleet.",
            next_step="to try here: add --dev   to join: meshagent join --request device.req",
        ) from error


@contextlib.contextmanager
def no_node_running(state: Path) -> Iterator[None]:
    """Hold the state folder's lock, so that no node runs or starts while its identity changes."""
    lock = NodeLock(state)
    if not lock.take():
        found = running_in(state)
        who = f"{found.name or 'A node'} (pid {found.pid})" if found else "A node"
        raise CommandError(f"{who} runs with this identity.", exit_code=Exit.FAILED, next_step="meshagent stop")
    try:
        yield
    finally:
        lock.release()


def make_identity(screen: Screen, *, sealed: bool, replace: bool, yes: bool) -> None:
    """`meshagent init`."""
    folder = state_of(screen.load_config())
    old = folder / KEY_FILE
    with no_node_running(folder):
        if old.exists() and not replace:
            key = load_key(folder)
            if sealed:
                key.reseal(old, passphrase=new_passphrase("this device's key", DEVICE_VARIABLE))
        else:
            if old.exists():
                screen.confirm(
                    f"Delete the identity in {folder}, its credential and its journal? Tasks kept there are lost.",
                    yes=yes,
                )
            passphrase = new_passphrase("this device's key", DEVICE_VARIABLE) if sealed else None
            if old.exists():
                _forget(folder, key_too=True)
            key = create_key(folder, passphrase=passphrase)
    document = {
        "schema": "meshagent.identity/1",
        "id": key.node_id,
        "did": did_of(key.node_id),
        "state_dir": str(folder),
        "sealed": sealed,
    }
    text = f"{key.node_id[:8]} is this device ({key.node_id}), key in {old}"
    screen.answer(document, text)
    if not (folder / CREDENTIAL_FILE).exists():
        screen.say(
            "It belongs to no fleet yet.\n  next: meshagent join --request device.req   or to try here: add --dev"
        )


def _forget(folder: Path, *, key_too: bool) -> None:
    """Delete the credential, and with the key also the promises made under it."""
    (folder / CREDENTIAL_FILE).unlink(missing_ok=True)
    if key_too:
        (folder / KEY_FILE).unlink(missing_ok=True)
        for path in folder.glob(JOURNAL_PREFIX + "*"):
            path.unlink(missing_ok=True)


def write_request(screen: Screen, path: Path, name: str) -> None:
    """`meshagent join --request FILE`."""
    from meshagent.identity.join import JoinRequest

    config = screen.load_config()
    folder = private_folder(state_of(config))
    try:
        key = load_key(folder)
    except MissingFileError:
        key = create_key(folder)
        screen.say(f"made this device's identity: {key.node_id[:8]}")
    request = JoinRequest.create(key, name=name or device_name(config))
    try:
        path.write_bytes(request.to_bytes())
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}", exit_code=Exit.FAILED) from error
    document = {
        "schema": "meshagent.join_request/1",
        "file": str(path),
        "id": key.node_id,
        "name": request.name,
        "compare": request.compare,
    }
    screen.answer(document, f"{path}: {request.name} ({key.node_id[:8]}) asks to be admitted")
    screen.say(
        f"Carry it to the authority and bring the credential back. Compare there: {request.compare}\n"
        f"  next: there: meshagent fleet admit {path.name}   then here: meshagent join {path.stem}.cred"
    )


async def install_credential(screen: Screen, path: Path | None) -> None:
    """`meshagent join FILE`; a node that runs takes the credential up at once."""
    if path is None:
        raise CommandError(
            "Joining takes the credential that the fleet gave.",
            exit_code=Exit.USAGE,
            next_step="meshagent join --request device.req   then, with what came back: meshagent join device.cred",
        )
    folder = private_folder(state_of(screen.load_config()))
    data = read_limited(path)
    running = running_in(folder)
    if running is not None:
        document = await _hand_over(running, data)
    else:
        with no_node_running(folder):
            document = joined(install(folder, load_key(folder), data, now_s=wall_s()))
    valid = duration(document["not_after_s"] - wall_s())
    fleet = f"fleet {clean(document['fleet'])} (root {document['fleet_id'][:4]}..)"
    if running is None:
        screen.answer(document, f"admitted to {fleet} as {clean(document['name'])} for {valid}")
        screen.say("  next: meshagent run ROLE")
    elif document["news"]:
        screen.answer(document, f"{clean(document['name'])} uses it from now on: {fleet}, valid for {valid}")
    else:
        screen.answer(document, f"{clean(document['name'])} uses it already: {fleet}, valid for {valid}")


async def _hand_over(running: Running, data: bytes) -> dict[str, Any]:
    """Give a credential to the node that runs with this identity: it has the key open, and goes on working."""
    from meshagent.operator.client import SocketDesk
    from meshagent.wire.v1 import operator_pb2 as pb

    async with SocketDesk.connect(running) as desk:
        return await desk.ask(pb.RenewRequest(credential_file=data), timeout_s=HAND_OVER_S)


def joined(identity: DeviceIdentity) -> dict[str, Any]:
    """`meshagent.joined/1`: what the credential of `identity` says."""
    credential = identity.credential
    return {
        "schema": "meshagent.joined/1",
        "id": identity.node_id,
        "name": credential.name,
        "fleet": identity.trust.fleet_name,
        "fleet_id": identity.trust.fleet_id,
        "not_after_s": credential.not_after_s,
        "may": list(credential.may),
        "capabilities": list(credential.capabilities),
    }


def leave_fleet(screen: Screen, *, yes: bool) -> None:
    """`meshagent leave`."""
    folder = state_of(screen.load_config())
    try:
        file = CredentialFile.from_bytes(read_limited(folder / CREDENTIAL_FILE))
        fleet = DeviceIdentity.from_file(load_key(folder), file, now_s=wall_s()).trust.fleet_name
    except MissingFileError as error:
        raise CommandError("This device belongs to no fleet.", exit_code=Exit.CONFIGURATION) from error
    except IdentityError:
        fleet = "a fleet that can no longer be read"
    screen.confirm(f"Leave {clean(fleet)}? Peers will refuse this device until it is admitted again.", yes=yes)
    with no_node_running(folder):
        _forget(folder, key_too=False)
    screen.answer({"schema": "meshagent.left/1", "fleet": fleet}, f"left {clean(fleet)}; the key stays")
