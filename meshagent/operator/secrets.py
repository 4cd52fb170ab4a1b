"""Passphrases: from a file or variable that a service manager gives, typed by people otherwise, never from a flag.

`MESHAGENT_PASSPHRASE_FILE` names a file (systemd's LoadCredential, a tmpfs); `MESHAGENT_PASSPHRASE` holds it itself,
which every process of this user can read.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import typer

from meshagent.identity.files import read_limited
from meshagent.identity.keys import MAX_PASSPHRASE_BYTES, PassphraseError
from meshagent.operator.exits import CommandError, Exit

T = TypeVar("T")

DEVICE_VARIABLE: Final = "MESHAGENT_PASSPHRASE"
ROOT_VARIABLE: Final = "MESHAGENT_ROOT_PASSPHRASE"
MAX_TRIES: Final = 3


def _given(variable: str) -> str | None:
    named = os.environ.get(f"{variable}_FILE")
    if named:
        data = read_limited(Path(named), max_bytes=MAX_PASSPHRASE_BYTES + 2)
        return data.decode("utf-8", "replace").rstrip("\r\n")
    return os.environ.get(variable)


def new_passphrase(what: str, variable: str) -> str:
    """A passphrase for a new key, typed twice.

    Raises:
        CommandError: nobody is there to type it, or it is empty.
    """
    given = _given(variable)
    if given is None:
        if not sys.stdin.isatty():
            raise CommandError(
                f"Nobody is there to type a passphrase for {what}.",
                exit_code=Exit.USAGE,
                next_step=f"set {variable}_FILE",
            )
        given = str(typer.prompt(f"Passphrase for {what}", hide_input=True, confirmation_prompt=True, err=True))
    if not given:
        raise CommandError("An empty passphrase protects nothing.", exit_code=Exit.USAGE)
    return given


def unsealed(what: str, variable: str, load: Callable[[str | None], T]) -> T:
    """What `load(passphrase)` gives; a passphrase is asked for only where the key is sealed.

    Raises:
        PassphraseError: it is sealed, and what was given or typed does not open it.
    """
    given = _given(variable)
    try:
        return load(given)
    except PassphraseError as error:
        if given is not None:
            raise
        if not sys.stdin.isatty():
            raise PassphraseError(str(error), next_step=f"set {variable}_FILE, or type it when asked") from error
    for _ in range(MAX_TRIES - 1):
        try:
            return load(str(typer.prompt(f"Passphrase for {what}", hide_input=True, err=True)))
        except PassphraseError as error:
            print(error, file=sys.stderr)
    return load(str(typer.prompt(f"Passphrase for {what}", hide_input=True, err=True)))
