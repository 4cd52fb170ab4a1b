"""What goes wrong between our types and bytes."""

from __future__ import annotations

from meshagent.errors import EnvelopeError, LocalProtocolError


class EncodeError(LocalProtocolError):
    """A value that we were about to send breaks a bound of the wire."""


class DecodeError(EnvelopeError):
    """Bytes from a peer are not what their type says, or break a bound."""
