"""Exit codes of the command line, and which error ends with which."""

from __future__ import annotations

from enum import IntEnum

from meshagent.errors import ConfigurationError, IdentityError, MeshAgentError, TransportError


class Exit(IntEnum):
    """What a script may rely on (SURFACE 3)."""

    DONE = 0
    FAILED = 1
    """It was tried and failed, or doctor found a fault."""
    USAGE = 2
    CONFIGURATION = 3
    """Configuration or identity; nothing was tried."""
    UNREACHED = 4
    """No node or peer in reach."""
    UNFINISHED = 5
    """Not finished within --timeout."""
    PERMISSION = 6
    INTERRUPTED = 130


class CommandError(MeshAgentError):
    """A command cannot go on; carries its exit code."""

    def __init__(self, message: str, *, exit_code: Exit, next_step: str | None = None) -> None:
        super().__init__(message, next_step=next_step)
        self.exit_code = exit_code


def exit_of(error: MeshAgentError) -> Exit:
    """The exit code that `error` ends a command with."""
    if isinstance(error, CommandError):
        return error.exit_code
    if isinstance(error, (ConfigurationError, IdentityError)):
        return Exit.CONFIGURATION
    if isinstance(error, TransportError):
        return Exit.UNREACHED
    return Exit.FAILED
