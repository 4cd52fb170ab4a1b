"""Ed25519 keys: the device's identity, the fleet's root, and what may be signed with them.

Nothing here signs raw bytes. Every signature covers a `Tag` first, so that a signature given for one purpose never
serves another: without tags a peer could have the body of a certificate signed as if it were a payload. The one
signature without a tag is X.509's own, made by `certificates.py` over structures that it builds itself and that start
with 0x30, which no tag does.

Source: RFC 8032; SECURITY-DESIGN 3.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from enum import Enum
from pathlib import Path
from typing import Final, final

import nacl.bindings
import nacl.exceptions
import nacl.pwhash.argon2id
import nacl.secret
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meshagent.errors import IdentityError
from meshagent.identity.files import read_limited, write_new, write_replace
from meshagent.types import NodeId, node_id_of

SEED_BYTES: Final = 32
PUBLIC_KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64

KEY_FORMAT: Final = "meshagent-key/1"
MAX_KEY_FILE_BYTES: Final = 4096
ARGON2_MEMORY_BYTES: Final = 64 * 1024 * 1024
"""Per guess of a passphrase; a Raspberry Pi still has it to spare."""
ARGON2_PASSES: Final = 3
ARGON2_MEMORY_LIMITS: Final = (8 * 1024 * 1024, 256 * 1024 * 1024)
ARGON2_PASSES_LIMITS: Final = (1, 10)
"""What a key file may ask for: below is no protection, above a planted file could eat the memory of a robot."""
MAX_PASSPHRASE_BYTES: Final = 1024


class DeviceKeyError(IdentityError):
    """A key or key file cannot be used."""


class PassphraseError(DeviceKeyError):
    """The passphrase is missing or wrong."""


class BadSignatureError(IdentityError):
    """A signature does not belong to key, tag and body."""


class Tag(Enum):
    """What a signature is for; its bytes stand before everything signed."""

    BATCH = b"meshagent/batch/v1\0"
    HELLO = b"meshagent/hello/v1\0"
    JOIN_REQUEST = b"meshagent/join/v1\0"
    REVOCATION = b"meshagent/revocation/v1\0"
    SUB_KEY = b"meshagent/subkey/v1\0"
    TASK_RECORD = b"meshagent/task-record/v1\0"
    MEMBER = b"meshagent/member/v1\0"
    ACCUSATION = b"meshagent/accusation/v1\0"
    STATE = b"meshagent/state/v1\0"


class SubKeyPurpose(Enum):
    """What a sub-key is for; each purpose has a key of its own, so that leaking one harms one."""

    TOKENS = "tokens"
    LEDGER = "ledger"
    UPDATES = "updates"


def is_valid_point(public_key: bytes) -> bool:
    """True for a canonical point of the main subgroup: no small order, no twin encodings.

    With a small-order key gRPC and OpenSSL accept certificates forged without any secret.
    """
    return len(public_key) == PUBLIC_KEY_BYTES and bool(nacl.bindings.crypto_core_ed25519_is_valid_point(public_key))


def verify(public_key: bytes, tag: Tag, body: bytes, signature: bytes) -> None:
    """Return if `signature` was made by the owner of `public_key` over `tag` and `body`, with libsodium's strict rules.

    Raises:
        BadSignatureError: otherwise, also for keys and signatures of another length.
    """
    if len(public_key) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        raise BadSignatureError("key or signature has another length")
    try:
        nacl.bindings.crypto_sign_open(signature + tag.value + body, public_key)
    except nacl.exceptions.BadSignatureError as error:
        raise BadSignatureError("the signature does not belong to these bytes and this key") from error


@final
class DeviceKey:
    """An Ed25519 key pair that signs tagged bodies only. Never printed, pickled or sent."""

    __slots__ = ("_seed", "_signing", "node_id", "public")

    def __init__(self, seed: bytes) -> None:
        """Take the key with this 32-byte seed; `generate` makes one."""
        if len(seed) != SEED_BYTES:
            raise DeviceKeyError(f"a key seed has {SEED_BYTES} bytes, this one {len(seed)}")
        public, signing = nacl.bindings.crypto_sign_seed_keypair(seed)
        self._seed = seed
        self._signing: bytes = signing
        self.public: bytes = public
        """32 bytes."""
        self.node_id: NodeId = node_id_of(public)

    @classmethod
    def generate(cls) -> DeviceKey:
        """A new key from the operating system's randomness."""
        return cls(os.urandom(SEED_BYTES))

    def __repr__(self) -> str:
        return f"DeviceKey({self.node_id[:8]})"

    def __reduce__(self) -> str:
        raise TypeError("a key is not pickled")

    def sign(self, tag: Tag, body: bytes) -> bytes:
        """The 64-byte signature over `tag` and `body`."""
        return nacl.bindings.crypto_sign(tag.value + body, self._signing)[:SIGNATURE_BYTES]

    def sub_key(self, purpose: SubKeyPurpose) -> DeviceKey:
        """The device's key for `purpose`: always the same one, of which nothing leads back to this key."""
        seed = hashlib.blake2b(
            b"meshagent/subkey-seed/v1\0" + purpose.value.encode(), key=self._seed, digest_size=SEED_BYTES
        ).digest()
        return DeviceKey(seed)

    def endorse(self, purpose: SubKeyPurpose) -> bytes:
        """The signature by which this device says which key is its sub-key; checked by `verify_sub_key`."""
        return self.sign(Tag.SUB_KEY, _endorsed(purpose, self.public, self.sub_key(purpose).public))

    def certificate_signer(self) -> Ed25519PrivateKey:
        """The same key in the form that issues X.509 certificates; for `certificates.py` alone."""
        return Ed25519PrivateKey.from_private_bytes(self._seed)

    def save(self, path: Path, *, passphrase: str | None = None) -> None:
        """Write the key to a new file (mode 0600), sealed under `passphrase` if one is given.

        Raises:
            IdentityError: the file exists or cannot be written.
        """
        write_new(path, self._document(passphrase))

    def reseal(self, path: Path, *, passphrase: str | None) -> None:
        """Replace the key file, to set, change or remove the passphrase."""
        write_replace(path, self._document(passphrase))

    @classmethod
    def load(cls, path: Path, *, passphrase: str | None = None) -> DeviceKey:
        """Read a key file.

        Raises:
            MissingFileError: there is none.
            UnsafeFileError: others may read it.
            PassphraseError: it is sealed and the passphrase is missing or wrong.
            DeviceKeyError: it is damaged.
        """
        data = read_limited(path, secret=True, max_bytes=MAX_KEY_FILE_BYTES)
        try:
            return cls._parse(data, passphrase)
        except PassphraseError as error:
            raise PassphraseError(f"{path}: {error}", next_step=error.next_step) from error
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise DeviceKeyError(
                f"{path} is damaged: {error}", next_step="restore it from a backup, or make a new identity"
            ) from error

    def _document(self, passphrase: str | None) -> bytes:
        fields: dict[str, object] = {"format": KEY_FORMAT, "id": self.node_id}
        if passphrase is None:
            fields["seed"] = base64.b64encode(self._seed).decode()
        else:
            salt = os.urandom(nacl.pwhash.argon2id.SALTBYTES)
            box = nacl.secret.SecretBox(_stretch(passphrase, salt, ARGON2_PASSES, ARGON2_MEMORY_BYTES))
            fields |= {
                "kdf": "argon2id",
                "passes": ARGON2_PASSES,
                "memory_bytes": ARGON2_MEMORY_BYTES,
                "salt": base64.b64encode(salt).decode(),
                "sealed": base64.b64encode(bytes(box.encrypt(self._seed))).decode(),
            }
        return (json.dumps(fields, indent=1) + "\n").encode()

    @classmethod
    def _parse(cls, data: bytes, passphrase: str | None) -> DeviceKey:
        fields = json.loads(data)
        if not isinstance(fields, dict) or fields.get("format") != KEY_FORMAT:
            raise ValueError(f"not of the format {KEY_FORMAT}")
        if "seed" in fields:
            key = cls._from_seed(base64.b64decode(fields["seed"], validate=True))
        else:
            if passphrase is None:
                raise PassphraseError(
                    "the key is sealed and no passphrase was given",
                    next_step="set MESHAGENT_PASSPHRASE_FILE, or type it when asked",
                )
            passes, memory = fields["passes"], fields["memory_bytes"]
            if fields["kdf"] != "argon2id" or type(passes) is not int or type(memory) is not int:
                raise ValueError("unknown sealing")
            if not (
                ARGON2_PASSES_LIMITS[0] <= passes <= ARGON2_PASSES_LIMITS[1]
                and ARGON2_MEMORY_LIMITS[0] <= memory <= ARGON2_MEMORY_LIMITS[1]
            ):
                raise ValueError(f"the sealing asks for {memory} bytes and {passes} passes, out of bounds")
            salt = base64.b64decode(fields["salt"], validate=True)
            if len(salt) != nacl.pwhash.argon2id.SALTBYTES:
                raise ValueError("the salt has another length")
            box = nacl.secret.SecretBox(_stretch(passphrase, salt, passes, memory))
            try:
                key = cls._from_seed(box.decrypt(base64.b64decode(fields["sealed"], validate=True)))
            except nacl.exceptions.CryptoError as error:
                raise PassphraseError("wrong passphrase", next_step="try again; nobody can recover it") from error
        if fields.get("id") != key.node_id:
            raise ValueError("the id in the file is not that of the key")
        return key

    @classmethod
    def _from_seed(cls, seed: bytes) -> DeviceKey:
        if len(seed) != SEED_BYTES:
            raise ValueError("the seed has another length")
        return cls(seed)


def verify_sub_key(device: bytes, purpose: SubKeyPurpose, sub_key: bytes, endorsement: bytes) -> None:
    """Return if `device` (public key) says that `sub_key` is its key for `purpose`.

    Raises:
        BadSignatureError: otherwise.
    """
    verify(device, Tag.SUB_KEY, _endorsed(purpose, device, sub_key), endorsement)


def _endorsed(purpose: SubKeyPurpose, device: bytes, sub_key: bytes) -> bytes:
    return purpose.value.encode().ljust(16, b"\0") + device + sub_key


def _stretch(passphrase: str, salt: bytes, passes: int, memory_bytes: int) -> bytes:
    secret = passphrase.encode()
    if not 1 <= len(secret) <= MAX_PASSPHRASE_BYTES:
        raise PassphraseError(f"a passphrase has 1 to {MAX_PASSPHRASE_BYTES} bytes")
    return nacl.pwhash.argon2id.kdf(SEED_BYTES, secret, salt, opslimit=passes, memlimit=memory_bytes)
