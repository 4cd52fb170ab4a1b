"""The exception tree; leaves live beside what raises them and end in `Error`.

MeshAgentError
  ConfigurationError        a file, variable, flag or role is wrong; says where and what to type next
  IdentityError             keys, credentials, fleets
  EnvelopeError             bytes from the network that the gate drops and counts by `reason`
  LocalProtocolError        you misused us
  RemoteProtocolError       the peer did
  TransportError            no way to a peer
  JournalError              the disk
  TaskFailedError           what awaiting a submission raises (sdk)
"""

from __future__ import annotations


class MeshAgentError(Exception):
    """Root of everything raised on purpose. `next_step` is a line that the user can type or do."""

    def __init__(self, message: str, *, next_step: str | None = None) -> None:
        super().__init__(message)
        self.next_step = next_step


class ConfigurationError(MeshAgentError):
    """A configuration file, environment variable, flag or role declaration is wrong."""


class IdentityError(MeshAgentError):
    """A key, credential or fleet file cannot be used."""


class EnvelopeError(MeshAgentError):
    """Bytes from the network that are not what they must be; the gate counts and drops them."""


class LocalProtocolError(MeshAgentError):
    """The caller used the API in a way that the protocol forbids."""


class RemoteProtocolError(MeshAgentError):
    """A peer did what the protocol forbids."""


class TransportError(MeshAgentError):
    """No usable way to a peer, or no socket to be had."""


class JournalError(MeshAgentError):
    """The journal cannot be read or written."""
