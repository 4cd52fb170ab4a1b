"""The identity of a device as files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meshagent.errors import IdentityError
from meshagent.identity.credential import CertificateError, CertificateFault
from meshagent.identity.device import (
    CREDENTIAL_FILE,
    KEY_FILE,
    CredentialFile,
    DeviceIdentity,
    create_key,
    install_credential,
)
from meshagent.identity.files import MissingFileError
from meshagent.identity.join import JoinRequest
from tests.support.fleets import NOW_S, admit, authority, key_of

DAY_S = 86400


def test_from_a_new_key_to_a_loaded_identity(tmp_path: Path) -> None:
    folder = tmp_path / "identity"
    with pytest.raises(MissingFileError) as caught:
        DeviceIdentity.load(folder, now_s=NOW_S)
    assert caught.value.next_step == "meshagent init"
    key = create_key(folder)
    with pytest.raises(IdentityError, match="not overwritten"):
        create_key(folder)
    with pytest.raises(MissingFileError, match="no fleet"):
        DeviceIdentity.load(folder, now_s=NOW_S)
    file = authority().admit(JoinRequest.create(key, name="dog"), now_s=NOW_S)
    installed = install_credential(folder, key, file.to_bytes(), now_s=NOW_S)
    loaded = DeviceIdentity.load(folder, now_s=NOW_S)
    assert loaded.credential == installed.credential
    assert (loaded.name, loaded.node_id, loaded.fleet) == ("dog", key.node_id, authority().fleet)
    assert (folder / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert loaded.issue_leaf(NOW_S).not_after_s == NOW_S + DAY_S


def test_what_does_not_belong_together_is_not_installed(tmp_path: Path) -> None:
    folder, fleet = tmp_path / "identity", authority()
    key = create_key(folder)
    request = JoinRequest.create(key, name="dog")
    first, second = fleet.admit(request, now_s=NOW_S), fleet.admit(request, now_s=NOW_S)
    foreign = fleet.admit(JoinRequest.create(key_of("cat"), name="cat"), now_s=NOW_S)
    other = authority("other").admit(request, now_s=NOW_S)
    with pytest.raises(IdentityError, match="is for cat"):
        install_credential(folder, key, foreign.to_bytes(), now_s=NOW_S)
    with pytest.raises(IdentityError, match="another one"):
        install_credential(folder, key, other.to_bytes(), now_s=NOW_S, expected_fleet=fleet.fleet)
    with pytest.raises(CertificateError, match="expired") as caught:
        install_credential(folder, key, first.to_bytes(), now_s=NOW_S + 400 * DAY_S)
    assert caught.value.fault is CertificateFault.EXPIRED
    with pytest.raises(CertificateError, match="not valid yet"):
        install_credential(folder, key, first.to_bytes(), now_s=0)
    assert not (folder / CREDENTIAL_FILE).exists()
    install_credential(folder, key, second.to_bytes(), now_s=NOW_S)
    with pytest.raises(CertificateError, match="older") as caught:
        install_credential(folder, key, first.to_bytes(), now_s=NOW_S)
    assert caught.value.fault is CertificateFault.SUPERSEDED
    with pytest.raises(IdentityError, match="another one"):
        install_credential(folder, key, other.to_bytes(), now_s=NOW_S)
    mixed = CredentialFile(credential=first.credential, roots=other.roots)
    with pytest.raises(CertificateError) as caught:
        install_credential(folder, key, mixed.to_bytes(), now_s=NOW_S)
    assert caught.value.fault is CertificateFault.OTHER_FLEET
    assert DeviceIdentity.load(folder, now_s=NOW_S).credential.generation == 2


def test_an_expired_identity_still_loads_so_that_doctor_can_name_it(tmp_path: Path) -> None:
    key = create_key(tmp_path / "i")
    file = authority().admit(JoinRequest.create(key, name="dog"), now_s=NOW_S, lifetime_days=1)
    install_credential(tmp_path / "i", key, file.to_bytes(), now_s=NOW_S)
    late = DeviceIdentity.load(tmp_path / "i", now_s=NOW_S + 5 * DAY_S)
    assert late.credential.fault_at(NOW_S + 5 * DAY_S) is CertificateFault.EXPIRED


def genuine() -> dict[str, object]:
    file = authority().admit(JoinRequest.create(key_of("dog"), name="dog"), now_s=NOW_S)
    return json.loads(file.to_bytes())  # type: ignore[no-any-return]


WRONG_FIELDS: list[dict[str, object]] = [
    {"format": "x"},
    {"credential": 5},
    {"credential": "!"},
    {"roots": "x"},
    {"roots": [1]},
    {"roots": [""] * 17},
    {"revocations": {}},
]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b"null",
        *(json.dumps(genuine() | change).encode() for change in WRONG_FIELDS),
    ],
)
def test_a_damaged_credential_file_is_one_clear_error(data: bytes) -> None:
    with pytest.raises(IdentityError, match="not a credential file"):
        CredentialFile.from_bytes(data)


@pytest.mark.parametrize("change", [{"roots": []}, {"roots": [""]}, {"credential": ""}])
def test_a_credential_file_with_nothing_in_it_does_not_verify(change: dict[str, object]) -> None:
    file = CredentialFile.from_bytes(json.dumps(genuine() | change).encode())
    with pytest.raises(CertificateError):
        DeviceIdentity.from_file(key_of("dog"), file, now_s=NOW_S)


def test_the_lists_in_a_credential_file_reach_the_book_and_bad_ones_do_not_stop_it() -> None:
    fleet = authority()
    admit(fleet, "cat")
    fleet.revoke("cat", now_s=NOW_S)
    dog = admit(fleet, "dog")
    assert dog.open_book(now_s=NOW_S).revoked(key_of("cat").node_id) is not None
    dog.revocations = (b"rubbish", *dog.revocations)
    book = dog.open_book(now_s=NOW_S)
    assert book.revoked(key_of("cat").node_id) is not None
    assert dog.open_book(now_s=NOW_S, memory=book.dump()).find(dog.node_id) == dog.credential


def test_a_running_node_takes_a_renewed_credential_and_the_roots_that_came_with_it() -> None:
    fleet = authority()
    dog = admit(fleet, "dog")
    first = CredentialFile(credential=dog.credential.der, roots=dog.trust.roots)
    fleet.rotate_root(now_s=NOW_S + DAY_S)
    renewed = fleet.renew("dog", now_s=NOW_S + 2 * DAY_S).to_bytes()
    assert dog.renew(renewed, now_s=NOW_S + 2 * DAY_S)
    assert dog.credential.generation == 2
    assert len(dog.trust.roots) == 2
    assert dog.issue_leaf(NOW_S + 2 * DAY_S).not_after_s == NOW_S + 3 * DAY_S
    assert not dog.renew(renewed, now_s=NOW_S + 2 * DAY_S)
    assert not dog.renew(first.to_bytes(), now_s=NOW_S + 2 * DAY_S)
    assert dog.credential.generation == 2
    foreign = fleet.admit(JoinRequest.create(key_of("cat"), name="cat"), now_s=NOW_S + 2 * DAY_S).to_bytes()
    with pytest.raises(IdentityError, match="another device"):
        dog.renew(foreign, now_s=NOW_S + 2 * DAY_S)
    with pytest.raises(CertificateError, match="expired"):
        dog.renew(renewed, now_s=NOW_S + 900 * DAY_S)
    other = authority("other").admit(JoinRequest.create(dog.key, name="dog"), now_s=NOW_S).to_bytes()
    with pytest.raises(CertificateError) as caught:
        dog.renew(other, now_s=NOW_S + 2 * DAY_S)
    assert caught.value.fault is CertificateFault.OTHER_FLEET


def test_key_and_credential_of_different_fleets_do_not_make_an_identity() -> None:
    dog, other = admit(authority(), "dog"), admit(authority("other"), "dog")
    with pytest.raises(IdentityError, match="another fleet"):
        DeviceIdentity(dog.key, dog.credential, other.trust)
