"""Join requests: how a device asks for a credential by file, and proves that the key is its own."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from dataclasses import dataclass
from typing import Final

from meshagent.errors import IdentityError
from meshagent.identity.credential import CertificateError, CertificateFault, check_grants
from meshagent.identity.keys import BadSignatureError, DeviceKey, Tag, is_valid_point, verify
from meshagent.types import NodeId, node_id_of, public_key_of

REQUEST_FORMAT: Final = "meshagent-join-request/1"
MAX_REQUEST_BYTES: Final = 8 * 1024
_NONCE_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """A device asks to be admitted under a name. Made by `create` or `from_bytes`, which check it."""

    public_key: bytes
    name: str
    nonce: bytes
    proof: bytes

    @property
    def node_id(self) -> NodeId:
        return node_id_of(self.public_key)

    @property
    def compare(self) -> str:
        """Six digits that both people read to each other: `41 77 03`."""
        digest = hashlib.sha256(b"meshagent/compare/v1\0" + self.public_key + self.nonce).digest()
        digits = f"{int.from_bytes(digest[:8], 'big') % 1_000_000:06d}"
        return f"{digits[:2]} {digits[2:4]} {digits[4:]}"

    @classmethod
    def create(cls, key: DeviceKey, *, name: str) -> JoinRequest:
        """Ask for `key` to be admitted as `name`.

        Raises:
            IdentityError: the name is not of the grammar.
        """
        check_grants(name, (), ())
        nonce = os.urandom(_NONCE_BYTES)
        return cls(key.public, name, nonce, key.sign(Tag.JOIN_REQUEST, _body(key.public, nonce, name)))

    def to_bytes(self) -> bytes:
        """The request file's content."""
        fields = {
            "format": REQUEST_FORMAT,
            "id": self.node_id,
            "name": self.name,
            "nonce": base64.b64encode(self.nonce).decode(),
            "proof": base64.b64encode(self.proof).decode(),
        }
        return (json.dumps(fields, indent=1) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> JoinRequest:
        """The request in a file, its proof of possession and its key checked.

        The point is checked as well as the signature: for a key of small order anybody can sign, and such a device
        could be impersonated by everybody.

        Raises:
            IdentityError: not a request file.
            CertificateError: the key is unsafe, or the asker does not hold it.
        """
        if len(data) > MAX_REQUEST_BYTES:
            raise IdentityError("not a join request: too long")
        try:
            fields = json.loads(data)
            if not isinstance(fields, dict) or fields.get("format") != REQUEST_FORMAT:
                raise ValueError(f"not of the format {REQUEST_FORMAT}")
            public = public_key_of(fields["id"])
            name = fields["name"]
            nonce = base64.b64decode(fields["nonce"], validate=True)
            proof = base64.b64decode(fields["proof"], validate=True)
            if not isinstance(name, str) or len(nonce) != _NONCE_BYTES:
                raise ValueError("a field has another form")
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise IdentityError(
                f"not a join request: {error}", next_step="on the device: meshagent join --request FILE.req"
            ) from error
        check_grants(name, (), ())
        if not is_valid_point(public):
            raise CertificateError(
                CertificateFault.UNSAFE_KEY,
                "the request's key is a point of small order: whoever made it wants to be impersonated",
                next_step="do not admit it; on the device: meshagent init --new-identity",
            )
        try:
            verify(public, Tag.JOIN_REQUEST, _body(public, nonce, name), proof)
        except BadSignatureError as error:
            raise CertificateError(
                CertificateFault.UNSAFE_KEY, "the asker does not hold the key that it wants admitted"
            ) from error
        return cls(public, name, nonce, proof)


def _body(public: bytes, nonce: bytes, name: str) -> bytes:
    return public + nonce + name.encode()
