"""Keys: tags, files, passphrases, sub-keys."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import pytest

from meshagent.errors import IdentityError
from meshagent.identity import keys
from meshagent.identity.files import MissingFileError, UnsafeFileError
from meshagent.identity.keys import (
    BadSignatureError,
    DeviceKey,
    DeviceKeyError,
    PassphraseError,
    SubKeyPurpose,
    Tag,
    is_valid_point,
    verify,
    verify_sub_key,
)


@pytest.fixture(autouse=True)
def _cheap_argon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "ARGON2_MEMORY_BYTES", 8 * 1024 * 1024)
    monkeypatch.setattr(keys, "ARGON2_PASSES", 1)


def test_a_signature_for_one_purpose_does_not_serve_another() -> None:
    key = DeviceKey.generate()
    for tag in Tag:
        signature = key.sign(tag, b"body")
        verify(key.public, tag, b"body", signature)
        for other in Tag:
            if other is not tag:
                with pytest.raises(BadSignatureError):
                    verify(key.public, other, b"body", signature)


def test_no_tag_starts_another_and_none_starts_like_a_certificate() -> None:
    values = [tag.value for tag in Tag]
    for one in values:
        assert one.startswith(b"meshagent/")
        assert one.endswith(b"\0")
        assert not any(other.startswith(one) for other in values if other != one)


def test_verify_refuses_other_lengths_and_flipped_bits() -> None:
    key = DeviceKey.generate()
    signature = key.sign(Tag.BATCH, b"body")
    for bad_key, bad_signature in ((key.public[:-1], signature), (key.public, signature[:-1]), (b"", b"")):
        with pytest.raises(BadSignatureError):
            verify(bad_key, Tag.BATCH, b"body", bad_signature)
    for bit in range(0, 512, 7):
        flipped = bytearray(signature)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadSignatureError):
            verify(key.public, Tag.BATCH, b"body", bytes(flipped))


def test_points_of_small_order_and_twin_encodings_are_not_valid() -> None:
    assert is_valid_point(DeviceKey.generate().public)
    for small in (bytes(32), b"\x01" + bytes(31), bytes.fromhex("ecff" + "ff" * 29 + "7f"), b"\xff" * 32, b"short"):
        assert not is_valid_point(small)


def test_a_key_file_comes_back_and_is_closed_to_others(tmp_path: Path) -> None:
    key = DeviceKey.generate()
    path = tmp_path / "device.key"
    old = os.umask(0)
    try:
        key.save(path)
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o600
    assert DeviceKey.load(path).public == key.public
    with pytest.raises(IdentityError, match="not overwritten"):
        DeviceKey.generate().save(path)
    assert DeviceKey.load(path).public == key.public


def test_a_key_file_is_never_written_through_a_link(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    (tmp_path / "device.key").symlink_to(target)
    with pytest.raises(IdentityError):
        DeviceKey.generate().save(tmp_path / "device.key")
    assert not target.exists()


def test_a_key_that_others_may_read_is_refused_with_the_next_step(tmp_path: Path) -> None:
    path = tmp_path / "device.key"
    DeviceKey.generate().save(path)
    path.chmod(0o640)
    with pytest.raises(UnsafeFileError, match="0640") as caught:
        DeviceKey.load(path)
    assert caught.value.next_step == f"chmod 600 {path}"


def test_a_sealed_key_opens_with_its_passphrase_alone(tmp_path: Path) -> None:
    key = DeviceKey.generate()
    path = tmp_path / "device.key"
    key.save(path, passphrase="correct horse")
    assert DeviceKey.load(path, passphrase="correct horse").public == key.public
    with pytest.raises(PassphraseError, match="wrong passphrase"):
        DeviceKey.load(path, passphrase="battery staple")
    with pytest.raises(PassphraseError, match="no passphrase was given"):
        DeviceKey.load(path)
    key.reseal(path, passphrase=None)
    assert DeviceKey.load(path).public == key.public


def test_the_default_sealing_costs_64_mib_a_guess(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    path = tmp_path / "device.key"
    DeviceKey.generate().save(path, passphrase="x")
    fields = json.loads(path.read_text())
    assert (fields["kdf"], fields["memory_bytes"]) == ("argon2id", 64 * 1024 * 1024)
    assert "seed" not in fields


@pytest.mark.parametrize(
    "change",
    [
        {"memory_bytes": 2**40},
        {"memory_bytes": 1024},
        {"passes": 10**9},
        {"passes": True},
        {"kdf": "none"},
        {"salt": "AAAA"},
        {"sealed": "!"},
        {"format": "other"},
        {"id": "a" * 52},
        {"memory_bytes": None},
    ],
)
def test_a_planted_key_file_neither_eats_memory_nor_loads(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "device.key"
    DeviceKey.generate().save(path, passphrase="x")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DeviceKeyError):
        DeviceKey.load(path, passphrase="x")


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[1]", b"\xff", b'{"format":"meshagent-key/1","seed":"AAAA"}', b"[" * 4000]
)
def test_a_damaged_key_file_is_an_error_with_a_next_step(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "device.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(DeviceKeyError, match="damaged") as caught:
        DeviceKey.load(path)
    assert caught.value.next_step


def test_a_missing_key_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        DeviceKey.load(tmp_path / "none")


def test_sub_keys_differ_by_purpose_stay_the_same_and_are_endorsed() -> None:
    key = DeviceKey.generate()
    publics = {key.sub_key(purpose).public for purpose in SubKeyPurpose}
    assert len(publics) == len(SubKeyPurpose)
    assert key.public not in publics
    endorsement = key.endorse(SubKeyPurpose.LEDGER)
    sub_key = key.sub_key(SubKeyPurpose.LEDGER).public
    verify_sub_key(key.public, SubKeyPurpose.LEDGER, sub_key, endorsement)
    with pytest.raises(BadSignatureError):
        verify_sub_key(key.public, SubKeyPurpose.TOKENS, sub_key, endorsement)
    with pytest.raises(BadSignatureError):
        verify_sub_key(DeviceKey.generate().public, SubKeyPurpose.LEDGER, sub_key, endorsement)


def test_a_key_is_not_printed_copied_or_pickled() -> None:
    key = DeviceKey.generate()
    assert repr(key) == f"DeviceKey({key.node_id[:8]})"
    with pytest.raises(TypeError):
        copy.deepcopy(key)
