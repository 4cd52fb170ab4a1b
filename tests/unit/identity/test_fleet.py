"""The authority: admission, renewal, revocation, rotation; files, locks, clocks."""

from __future__ import annotations

import base64
import json
import os
import threading
from pathlib import Path

import pytest

from meshagent.errors import IdentityError
from meshagent.identity.book import CredentialBook
from meshagent.identity.credential import CertificateError, CertificateFault
from meshagent.identity.device import DeviceIdentity
from meshagent.identity.files import MissingFileError
from meshagent.identity.fleet import (
    AUTHORITY_FILE,
    AuthorityBusyError,
    AuthorityClockError,
    FleetAuthority,
    UnknownDeviceError,
    dev_identity,
)
from meshagent.identity.join import JoinRequest
from meshagent.identity.keys import DeviceKey, PassphraseError, Tag
from meshagent.identity.revocation import RevocationReason, verify_list
from tests.support.fleets import NOW_S, admit, authority, key_of

DAY_S = 86400


def request(name: str) -> JoinRequest:
    return JoinRequest.create(key_of(name), name=name)


def test_a_fleet_comes_back_from_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "fleet"
    with FleetAuthority.create(folder, "plant", now_s=NOW_S) as fleet:
        fleet.admit(request("dog"), now_s=NOW_S, may=("perform:a.*",), capabilities=("legs",))
        fleet.admit(request("cat"), now_s=NOW_S)
        signed = fleet.revoke("cat", now_s=NOW_S, reason=RevocationReason.KEY_COMPROMISE).signed
        devices, fleet_id = fleet.devices, fleet.fleet
    with FleetAuthority.open(folder) as again:
        assert (again.devices, again.fleet, again.name) == (devices, fleet_id, "plant")
        assert again.revocation_list == signed
        assert again.renew("dog", now_s=NOW_S).revocations == (signed,)
        assert again.find("dog").generation == 2
        assert again.revoke("dog", now_s=NOW_S).number == 2
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_folder_holds_one_fleet_and_a_missing_one_says_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no fleet") as caught:
        FleetAuthority.open(tmp_path / "none")
    assert caught.value.next_step == "meshagent fleet create NAME"
    FleetAuthority.create(tmp_path / "f", "plant", now_s=NOW_S).close()
    with pytest.raises(IdentityError, match="already"):
        FleetAuthority.create(tmp_path / "f", "plant", now_s=NOW_S)
    with pytest.raises(IdentityError, match="no device name"):
        FleetAuthority.create(tmp_path / "g", "Plant North", now_s=NOW_S)


def test_a_sealed_authority_needs_its_passphrase(tmp_path: Path) -> None:
    FleetAuthority.create(tmp_path / "f", "plant", now_s=NOW_S, passphrase="x").close()
    with pytest.raises(PassphraseError):
        FleetAuthority.open(tmp_path / "f")
    with FleetAuthority.open(tmp_path / "f", passphrase="x") as fleet:
        fleet.rotate_root(now_s=NOW_S, passphrase="x")
    with FleetAuthority.open(tmp_path / "f", passphrase="x") as fleet:
        assert len(fleet.trust.roots) == 2


@pytest.mark.parametrize("change", [{"roots": []}, {"devices": 5}, {"list": 1}, {"format": "x"}, {"list_number": "1"}])
def test_a_damaged_authority_file_is_one_clear_error(tmp_path: Path, change: dict[str, object]) -> None:
    FleetAuthority.create(tmp_path / "f", "plant", now_s=NOW_S).close()
    path = tmp_path / "f" / AUTHORITY_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(IdentityError):
        FleetAuthority.open(tmp_path / "f")
    path.write_text(json.dumps(json.loads(path.read_text()) | change)[:-5])
    with pytest.raises(IdentityError, match="damaged"):
        FleetAuthority.open(tmp_path / "f")


def test_admission_checks_name_grants_and_lifetime() -> None:
    fleet = authority()
    fleet.admit(request("dog"), now_s=NOW_S)
    with pytest.raises(IdentityError, match="another device is called dog"):
        fleet.admit(request("cat"), now_s=NOW_S, name="dog")
    for bad in ({"may": ("nothing",)}, {"capabilities": ("a b",)}, {"lifetime_days": 0}, {"lifetime_days": 9999}):
        with pytest.raises(IdentityError):
            fleet.admit(request("cat"), now_s=NOW_S, **bad)
    assert [d.name for d in fleet.devices] == ["dog"]
    fleet.revoke("dog", now_s=NOW_S)
    fleet.admit(request("cat"), now_s=NOW_S, name="dog")
    assert fleet.find("dog").id == key_of("cat").node_id


def test_a_revoked_key_stays_out() -> None:
    fleet = authority()
    fleet.admit(request("dog"), now_s=NOW_S)
    fleet.revoke("dog", now_s=NOW_S)
    with pytest.raises(IdentityError, match="stays out"):
        fleet.admit(request("dog"), now_s=NOW_S)
    with pytest.raises(IdentityError, match="was revoked"):
        fleet.renew("dog", now_s=NOW_S)


def test_devices_are_found_by_name_id_and_beginning() -> None:
    fleet = authority()
    for name in ("dog", "cat"):
        fleet.admit(request(name), now_s=NOW_S)
    node = key_of("dog").node_id
    assert fleet.find("dog") == fleet.find(node) == fleet.find(node[:6])
    for wrong in ("", "cow", node[:3], "z" * 52):
        with pytest.raises(UnknownDeviceError):
            fleet.find(wrong)


def test_renewal_keeps_what_is_not_said_and_raises_the_generation() -> None:
    fleet = authority()
    fleet.admit(request("dog"), now_s=NOW_S, may=("perform:a",), capabilities=("legs",))
    for changes, may in (({}, ("perform:a",)), ({"may": ("perform:b",)}, ("perform:b",))):
        file = fleet.renew("dog", now_s=NOW_S + DAY_S, **changes)  # type: ignore[arg-type]
        identity = DeviceIdentity.from_file(key_of("dog"), file, now_s=NOW_S + DAY_S)
        assert (identity.credential.may, identity.credential.capabilities) == (may, ("legs",))
    assert identity.credential.generation == 3


def test_revoking_names_every_credential_given_out_until_the_last_has_ended() -> None:
    fleet = authority()
    fleet.admit(request("dog"), now_s=NOW_S, lifetime_days=100)
    fleet.renew("dog", now_s=NOW_S, lifetime_days=1)
    entry = fleet.revoke("dog", now_s=NOW_S).entries[0]
    assert (entry.min_generation, entry.not_after_s) == (3, NOW_S + 100 * DAY_S)
    later = NOW_S + 101 * DAY_S
    fleet.admit(request("cat"), now_s=later)
    assert len(fleet.revoke("cat", now_s=later).entries) == 1


def test_clock_back_or_far_ahead_at_the_authority_is_not_signed_with() -> None:
    fleet = authority()
    fleet.admit(request("dog"), now_s=NOW_S)
    for now_s, words in ((NOW_S - DAY_S, "1.0 days behind"), (NOW_S + 500 * DAY_S, "500.0 days ahead of")):
        for act in (
            lambda now_s=now_s: fleet.renew("dog", now_s=now_s),
            lambda now_s=now_s: fleet.revoke("dog", now_s=now_s),
            lambda now_s=now_s: fleet.rotate_root(now_s=now_s),
            lambda now_s=now_s: fleet.admit(request("cat"), now_s=now_s),
        ):
            with pytest.raises(AuthorityClockError, match=words):
                act()
    fleet.renew("dog", now_s=NOW_S - 60)
    fleet.renew("dog", now_s=NOW_S + 500 * DAY_S, accept_clock=True)
    with pytest.raises(AuthorityClockError):
        fleet.renew("dog", now_s=NOW_S)


def test_rotation_signs_revocations_again_and_works_from_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    with FleetAuthority.create(folder, "plant", now_s=NOW_S) as fleet:
        dog = DeviceIdentity.from_file(key_of("dog"), fleet.admit(request("dog"), now_s=NOW_S), now_s=NOW_S)
        fleet.admit(request("cat"), now_s=NOW_S)
        fleet.revoke("cat", now_s=NOW_S)
    with FleetAuthority.open(folder) as fleet:
        root = fleet.rotate_root(now_s=NOW_S + DAY_S, overlap_s=0)
    with FleetAuthority.open(folder) as fleet:
        signed = fleet.revocation_list
        assert signed is not None
        assert verify_list(signed, fleet.trust, now_s=NOW_S + 2 * DAY_S)[0].number == 2
        renewed = fleet.renew("dog", now_s=NOW_S + DAY_S)
        assert fleet.rotate_root(now_s=NOW_S + DAY_S) != root
    book = CredentialBook(dog.trust)
    book.extend_trust(root)
    assert book.learn(renewed.credential, now_s=NOW_S + DAY_S).generation == 2


def test_rotation_takes_the_next_key_from_elsewhere_and_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    FleetAuthority.create(folder, "plant", now_s=NOW_S).close()
    kept = DeviceKey.load(folder / "root-1.key")
    os.unlink(folder / "root-1.key")
    with FleetAuthority.open(folder) as fleet:
        with pytest.raises(MissingFileError):
            fleet.rotate_root(now_s=NOW_S)
        with pytest.raises(CertificateError) as caught:
            fleet.rotate_root(now_s=NOW_S, next_key=DeviceKey.generate())
        assert caught.value.fault is CertificateFault.PROFILE
        fleet.rotate_root(now_s=NOW_S, next_key=kept)
    FleetAuthority.open(folder).close()


def test_a_request_proves_possession_and_reads_back() -> None:
    asked = request("dog")
    assert JoinRequest.from_bytes(asked.to_bytes()) == asked
    assert len(asked.compare) == 8
    assert asked.compare != request("dog").compare
    fields = json.loads(asked.to_bytes())
    for change in ({"name": "cat"}, {"id": key_of("cat").node_id}, {"nonce": fields["proof"][:22] + "=="}):
        with pytest.raises(CertificateError) as caught:
            JoinRequest.from_bytes(json.dumps(fields | change).encode())
        assert caught.value.fault is CertificateFault.UNSAFE_KEY
    replayed = key_of("dog").sign(Tag.HELLO, asked.public_key + asked.nonce + b"dog")
    with pytest.raises(CertificateError):
        JoinRequest.from_bytes(json.dumps(fields | {"proof": base64.b64encode(replayed).decode()}).encode())


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b"x" * 9000, b"[" * 5000])
def test_what_is_no_request_is_one_clear_error(data: bytes) -> None:
    with pytest.raises(IdentityError, match="not a join request"):
        JoinRequest.from_bytes(data)


def test_dev_identities_share_a_fleet_renew_themselves_and_tell_names_apart(tmp_path: Path) -> None:
    def one(folder: str, name: str, now_s: float = NOW_S) -> DeviceIdentity:
        return dev_identity(tmp_path / "authority", tmp_path / folder, name, now_s=now_s)

    ann, bob = one("a", "ann"), one("b", "bob")
    assert ann.fleet == bob.fleet
    assert one("a", "ann").credential == ann.credential
    twin = one("c", "ann")
    assert twin.name == f"ann-{twin.node_id[:4]}"
    late = one("a", "ann", NOW_S + 364.5 * DAY_S)
    assert (late.node_id, late.credential.generation) == (ann.node_id, 2)


def test_dev_identities_made_at_once_by_several_processes_agree(tmp_path: Path) -> None:
    made: list[DeviceIdentity] = []
    threads = [
        threading.Thread(
            target=lambda n=n: made.append(dev_identity(tmp_path / "au", tmp_path / f"d{n}", f"d{n}", now_s=NOW_S))
        )
        for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len({identity.fleet for identity in made}) == 1
    assert {identity.name for identity in made} == {f"d{n}" for n in range(6)}


def test_an_open_authority_holds_others_off(tmp_path: Path) -> None:
    fleet = FleetAuthority.create(tmp_path / "f", "plant", now_s=NOW_S)
    opened = threading.Event()

    def open_it() -> None:
        with FleetAuthority.open(tmp_path / "f") as second:
            assert second.find("dog").generation == 1
            opened.set()

    thread = threading.Thread(target=open_it)
    thread.start()
    fleet.admit(request("dog"), now_s=NOW_S)
    assert not opened.is_set()
    fleet.close()
    thread.join(timeout=30)
    assert opened.is_set()


def test_an_in_memory_fleet_is_the_same_for_one_seed() -> None:
    assert authority().fleet == authority().fleet
    assert admit(authority(), "dog").credential == admit(authority(), "dog").credential
    assert FleetAuthority.in_memory("x", now_s=NOW_S).fleet != FleetAuthority.in_memory("x", now_s=NOW_S).fleet


def test_revoking_more_devices_than_a_list_carries_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshagent.identity.fleet.MAX_REVOKED", 2)
    fleet = authority()
    for name in ("a", "b", "c"):
        fleet.admit(request(name), now_s=NOW_S)
    fleet.revoke("a", now_s=NOW_S)
    fleet.revoke("b", now_s=NOW_S)
    with pytest.raises(IdentityError, match="over 2"):
        fleet.revoke("c", now_s=NOW_S)
    assert fleet.find("c").revoked is None


def test_waiting_for_a_held_authority_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshagent.identity.fleet.LOCK_ATTEMPTS", 2)
    with FleetAuthority.create(tmp_path / "f", "plant", now_s=NOW_S), pytest.raises(AuthorityBusyError) as caught:
        FleetAuthority.open(tmp_path / "f")
    assert caught.value.next_step
    FleetAuthority.open(tmp_path / "f").close()
