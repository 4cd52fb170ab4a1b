"""Fleets by files: made, joined, renewed, expelled, and what mistakes are told."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshagent.identity.book import CredentialBook
from meshagent.identity.device import DeviceIdentity
from meshagent.identity.trust import Trust
from meshagent.operator import device as device_module
from meshagent.operator import fleet as fleet_module
from meshagent.operator.device import wall_s
from meshagent.operator.places import NodeLock

Run = Callable[..., Any]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def joined(run: Run, home: Path) -> Path:
    """The state folder of dog-2, admitted to plant-north."""
    state = home / "dog"
    assert run("fleet", "create", "plant-north").code == 0
    assert run("join", "--request", "dog.req", "--name", "dog-2", "--state", state).code == 0
    assert run("fleet", "admit", "dog.req", "--yes", "--for", "30d").code == 0
    assert run("join", "dog.cred", "--state", state).code == 0
    return state


def test_a_device_joins_by_files_and_every_secret_is_private(run: Run, home: Path, joined: Path) -> None:
    identity = DeviceIdentity.load(joined, now_s=wall_s())
    assert identity.name == "dog-2"
    authority = home / ".local/state/meshagent/authority"
    for path in (*authority.iterdir(), joined / "device.key", joined / "credential.json", joined / "node.lock"):
        assert mode(path) == 0o600, path
    for folder in (authority, joined):
        assert mode(folder) == 0o700
    shown = run("fleet", "show", "--json").document
    assert shown["schema"] == "meshagent.fleet/1"
    [member] = shown["devices"]
    assert (member["id"], member["name"], member["revoked"]) == (identity.node_id, "dog-2", None)
    assert "dog-2" in run("fleet", "show").out


def test_both_sides_show_the_same_number_to_compare(run: Run) -> None:
    run("fleet", "create", "plant")
    asked = run("join", "--request", "a.req", "--state", "a", "--json")
    admitted = run("fleet", "admit", "a.req", "--yes")
    assert asked.document["compare"] in asked.err
    assert asked.document["compare"] in admitted.err


def test_what_a_credential_allows_is_what_was_said(run: Run, home: Path) -> None:
    run("fleet", "create", "plant")
    run("join", "--request", "a.req", "--state", "a", "--name", "camera")
    done = run(
        "fleet", "admit", "a.req", "--yes", "--json",
        "--may", "announce:*", "--may", "perform:pump.check.v1", "--capability", "legs",
    )  # fmt: skip
    assert done.document["may"] == ["announce:*", "perform:pump.check.v1"]
    credential = run("join", "a.cred", "--state", "a", "--json").document
    assert (credential["may"], credential["capabilities"]) == (["announce:*", "perform:pump.check.v1"], ["legs"])


def test_destructive_commands_ask_and_without_a_terminal_refuse(run: Run, joined: Path) -> None:
    for arguments in (("fleet", "revoke", "dog-2"), ("leave", "--state", joined)):
        refused = run(*arguments)
        assert refused.code == 2
        assert "next: add --yes" in refused.err
    assert run("fleet", "show", "--json").document["devices"][0]["revoked"] is None
    assert (joined / "credential.json").exists()


def test_a_revoked_member_is_on_a_list_that_its_fleet_believes(run: Run, home: Path, joined: Path) -> None:
    identity = DeviceIdentity.load(joined, now_s=wall_s())
    done = run("fleet", "revoke", "dog-2", "--reason", "compromised", "--yes", "--json", "--out", "out.revoked")
    assert done.document["revoked"] == "key_compromise"
    book = CredentialBook(Trust(identity.trust.roots))
    assert book.merge_revocations((home / "out.revoked").read_bytes(), now_s=wall_s())
    assert book.revoked(identity.node_id) is not None
    again = run("fleet", "renew", "dog-2")
    assert again.code == 3
    assert "was revoked" in again.err


def test_an_unknown_reason_or_member_is_told(run: Run, joined: Path) -> None:
    assert "It is one of lost, compromised" in run("fleet", "revoke", "dog-2", "--reason", "angry", "--yes").err
    unknown = run("fleet", "revoke", "dog-9", "--yes")
    assert unknown.code == 3
    assert "no device is called 'dog-9'" in unknown.err


def test_a_member_is_shown_valid_as_long_as_its_newest_credential(run: Run, joined: Path) -> None:
    assert "renewed for 30 days" in run("fleet", "renew", "dog-2", "--for", "30d", "--out", "new.cred").out
    [line] = [line for line in run("fleet", "show").out.splitlines() if line.startswith("dog-2")]
    assert "30 days" in line


def test_renewal_prolongs_and_replaces(run: Run, joined: Path) -> None:
    before = DeviceIdentity.load(joined, now_s=wall_s()).credential
    run("fleet", "renew", "dog-2", "--for", "300d", "--out", "new.cred")
    run("join", "new.cred", "--state", joined)
    after = DeviceIdentity.load(joined, now_s=wall_s()).credential
    assert after.generation > before.generation
    assert after.not_after_s > before.not_after_s
    older = run("join", "dog.cred", "--state", joined)
    assert older.code == 3
    assert "older than the one installed" in older.err


def test_leaving_keeps_the_key_and_forgets_the_fleet(run: Run, joined: Path) -> None:
    assert run("leave", "--state", joined, "--yes").code == 0
    assert (joined / "device.key").exists()
    again = run("leave", "--state", joined, "--yes")
    assert (again.code, again.err) == (3, "This device belongs to no fleet.\n")


def test_a_credential_of_another_device_or_fleet_is_refused(run: Run, joined: Path) -> None:
    run("join", "--request", "b.req", "--state", "b", "--name", "b")
    other = run("join", "dog.cred", "--state", "b")
    assert other.code == 3
    assert "the credential is for dog-2" in other.err
    run("fleet", "create", "plant-south", "--authority", "south")
    run("join", "--request", "dog.req", "--state", joined, "--name", "dog-2")
    run("fleet", "admit", "dog.req", "--yes", "--authority", "south", "--out", "south.cred")
    moved = run("join", "south.cred", "--state", joined)
    assert moved.code == 3
    assert "meshagent leave" in moved.err


def test_a_tampered_request_is_refused(run: Run, home: Path) -> None:
    run("fleet", "create", "plant")
    run("join", "--request", "a.req", "--state", "a", "--name", "dog")
    path = home / "a.req"
    path.write_text(path.read_text().replace('"dog"', '"administrator"'))
    done = run("fleet", "admit", "a.req", "--yes")
    assert done.code == 3
    assert "does not hold the key" in done.err
    path.write_bytes(b"\0" * 100)
    assert run("fleet", "admit", "a.req", "--yes").code == 3


def test_identity_is_not_changed_under_a_running_node(run: Run, joined: Path) -> None:
    lock = NodeLock(joined)
    assert lock.take()
    lock.describe(name="dog-2", port=7340)
    try:
        for arguments in (("leave", "--yes"), ("init", "--new-identity", "--yes")):
            done = run(*arguments, "--state", joined)
            assert done.code == 1
            assert "dog-2 (pid" in done.err
            assert "meshagent stop" in done.err
        # a credential is handed to the node, which alone may install it; this one does not answer
        handed = run("join", "dog.cred", "--state", joined)
        assert (handed.code, "cannot be asked" in handed.err) == (4, True)
    finally:
        lock.release()


def test_a_new_identity_takes_the_promises_of_the_old_one_with_it(run: Run, joined: Path) -> None:
    (joined / "journal.db").write_bytes(b"promises")
    before = run("init", "--state", joined, "--json").document["id"]
    after = run("init", "--state", joined, "--new-identity", "--yes", "--json").document["id"]
    assert before != after
    assert sorted(p.name for p in joined.iterdir()) == ["device.key", "node.lock"]


def test_a_sealed_key_needs_its_passphrase(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "secret").write_text("correct horse\n")
    monkeypatch.setenv("MESHAGENT_PASSPHRASE_FILE", str(home / "secret"))
    assert run("init", "--passphrase", "--state", "s", "--json").document["sealed"] is True
    assert run("init", "--state", "s").code == 0
    (home / "secret").write_text("wrong\n")
    wrong = run("init", "--state", "s")
    assert wrong.code == 3
    monkeypatch.delenv("MESHAGENT_PASSPHRASE_FILE")
    missing = run("init", "--state", "s")
    assert missing.code == 3
    assert "MESHAGENT_PASSPHRASE" in missing.err


def test_a_clock_that_went_back_signs_nothing(run: Run, joined: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = wall_s()
    monkeypatch.setattr(fleet_module, "wall_s", lambda: now_s - 40 * 86400)
    refused = run("fleet", "renew", "dog-2")
    assert refused.code == 3
    assert "clock is 40.0 days behind" in refused.err
    assert run("fleet", "renew", "dog-2", "--accept-clock").code == 0


def test_a_credential_that_has_expired_is_not_installed(
    run: Run, joined: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = wall_s()
    monkeypatch.setattr(device_module, "wall_s", lambda: now_s + 31 * 86400)
    done = run("join", "dog.cred", "--state", joined)
    assert done.code == 3
    assert "expired" in done.err


def test_the_throw_away_fleet_is_made_shown_and_deleted(run: Run, home: Path) -> None:
    made = run("fleet", "dev", "--json").document
    assert made["schema"] == "meshagent.dev/1"
    root = Path(made["folder"])
    assert mode(root) == 0o700
    assert run("fleet", "dev", "--json").document["fleet_id"] == made["fleet_id"]
    assert run("fleet", "dev", "--clean").code == 2
    assert root.exists()
    assert run("fleet", "dev", "--clean", "--yes").code == 0
    assert not root.exists()
    assert run("fleet", "dev", "--clean", "--yes").out == "there was none\n"


def test_a_state_folder_open_to_others_is_refused(run: Run, joined: Path) -> None:
    joined.chmod(0o755)
    done = run("join", "dog.cred", "--state", joined)
    assert done.code == 3
    assert f"next: chmod 700 {joined}" in done.err
