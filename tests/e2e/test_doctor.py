"""Doctor in situations that are made real: networks that filter, clocks that lie, copied disks, ports in use."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from meshagent.operator.device import wall_s
from tests.e2e.conftest import COMMAND, WORKSHOP, Cli, Ran
from tests.support.netns import bridged_hosts

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("e2e")]

LOOPBACK = {"MESHAGENT_NETWORK__INTERFACES": "lo", "MESHAGENT_NETWORK__PORT": "0", "MESHAGENT_PRESET": "loopback"}
ROOT = Path(__file__).parents[2]


def findings(ran: Ran) -> dict[str, dict[str, Any]]:
    """Topic -> finding; the first of each topic."""
    found: dict[str, dict[str, Any]] = {}
    for finding in ran.document["findings"]:
        found.setdefault(finding["topic"], finding)
    return found


def test_a_device_without_identity_fleet_or_nodes_is_told_each_time(cli: Cli) -> None:
    told = findings(cli("doctor", "--json", **LOOPBACK))["identity"]
    assert (told["level"], told["facts"]["fault"], told["next"]) == ("fail", "no_identity", "meshagent init")
    cli("init")
    told = findings(cli("doctor", "--json", **LOOPBACK))["identity"]
    assert (told["facts"]["fault"], "join --request" in told["next"]) == ("no_fleet", True)


def test_a_credential_that_ran_out_is_told_and_no_node_starts_with_it(cli: Cli) -> None:
    state = cli.device("dog", lifetime_s=1.0)
    until_s = wall_s() + 1.0
    while wall_s() <= until_s:
        time.sleep(0.05)
    done = cli("doctor", "--state", state, "--json", **LOOPBACK)
    assert done.code == 1
    told = findings(done)["identity"]
    assert (told["facts"]["fault"], "expired" in told["sentence"], "fleet renew dog" in told["next"]) == (
        "expired", True, True,
    )  # fmt: skip
    assert cli("run", WORKSHOP, "--state", state, **LOOPBACK).code == 3


def test_an_interface_that_does_not_exist_is_told(cli: Cli) -> None:
    state = cli.device("dog")
    done = cli("doctor", "--state", state, "--json", MESHAGENT_NETWORK__INTERFACES="wlan7")
    assert done.code == 1
    assert "wlan7" in findings(done)["interface"]["sentence"]


def test_a_port_that_another_program_has_is_told_with_its_name(cli: Cli) -> None:
    state = cli.device("dog")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        environ = {**LOOPBACK, "MESHAGENT_NETWORK__PORT": str(port)}
        done = cli("doctor", "--state", state, "--json", "--timeout", "500ms", **environ)
    assert done.code == 1
    told = findings(done)["port"]
    assert told["sentence"].startswith(f"port {port} is in use by ")
    assert "(pid " in told["sentence"]


def test_another_fleet_on_the_network_is_told_with_both_roots(cli: Cli) -> None:
    south, north = cli.device("cart", fleet="south"), cli.device("dog", fleet="north")
    node = cli.start("run", WORKSHOP, "--state", south, "--json", **LOOPBACK).until("meshagent.up/1")
    port = next(part.split(":")[1].strip(" ,}") for part in node.out.split(', "') if part.startswith('listen_port"'))
    done = cli("doctor", "--state", north, "--peer", f"127.0.0.1:{port}", **LOOPBACK)
    assert done.code == 1
    told = next(line for line in done.out.splitlines() if line.startswith("FAIL  fleet"))
    # other tests' nodes may announce themselves on this loopback too
    assert re.match(
        r"FAIL  fleet      127\.0\.0\.1( and \d+ more)? shows? a certificate of another fleet \(root ", told
    )
    assert "this device belongs to north (root " in told


def test_a_copied_disk_is_told_as_two_devices_of_one_identity(cli: Cli) -> None:
    state = cli.device("dog")
    copy = cli.home / "copy"
    shutil.copytree(state, copy)
    cli.start("run", WORKSHOP, "--state", state, **LOOPBACK).until("is up in")
    done = cli("doctor", "--state", copy, "--json", **LOOPBACK)
    assert done.code == 1
    told = findings(done)["identity"]
    assert told["sentence"].startswith("two devices use identity ")
    assert "init --new-identity" in told["next"]


def test_a_disk_that_was_put_back_is_told_in_the_words_of_its_peers(cli: Cli) -> None:
    one, two = cli.device("dog"), cli.device("heron")
    cli.start("run", WORKSHOP, "--state", one, **LOOPBACK).until("is up in")
    assert findings(cli("doctor", "--state", two, "--json", **LOOPBACK))["peers"]["level"] == "ok"
    (two / "journal.db").unlink()  # as if the disk were the one of yesterday
    told = findings(cli("doctor", "--state", two, "--json", **LOOPBACK))["reach"]
    assert "our disk was copied or put back" in told["sentence"]


def test_a_wrong_clock_and_another_version_are_measured_against_a_peer(cli: Cli) -> None:
    right, wrong = cli.device("dog"), cli.device("heron")
    cli.start("run", WORKSHOP, "--state", right, **LOOPBACK).until("is up in")
    bent = (sys.executable, "-m", "tests.support.bent_node", "-14300", "meshagent/0.2.0")
    cli.start_command([*bent, "run", WORKSHOP, "--state", wrong], PYTHONPATH=str(ROOT), **LOOPBACK).until("peer joined")
    done = cli("doctor", "--state", wrong, "--json", **LOOPBACK)
    assert done.code == 1
    told = findings(done)
    assert told["clock"]["sentence"].startswith("this clock is 3 h 58 min behind 1 peer.")
    assert told["clock"]["next"] == "sudo timedatectl set-ntp true"
    seen = findings(cli("doctor", "--state", right, "--json", **LOOPBACK))
    assert "this clock is 3 h 58 min ahead of 1 peer." in seen["clock"]["sentence"]
    assert "heron meshagent/0.2.0" in seen["version"]["sentence"]


def test_a_network_that_filters_multicast_is_told_with_an_address_that_answers(cli: Cli) -> None:
    one, heron, crane, cart = (cli.device(name) for name in ("dog", "heron", "crane", "cart"))  # none remembers anybody
    with bridged_hosts(2) as (here, there):
        node = cli.start_command([*there.prefix, *COMMAND, "run", WORKSHOP, "--state", one]).until("is up in")
        doctor = [*here.prefix, *COMMAND, "doctor", "--json", "--state"]
        healthy = cli.run_command([*doctor, heron])
        assert findings(healthy)["peers"]["level"] == "ok", healthy.out
        assert "multicast heard from 1 device" in findings(healthy)["network"]["sentence"]
        # the switch stops passing multicast on, as access points do; addresses that are known still answer
        for host in (here, there):
            _bridge_port(host.hub, host.port, "mcast_flood", "off")
        filtered = cli.run_command([*doctor, crane, "--peer", f"{there.ipv4}:7340"])
        assert filtered.code == 1
        assert "multicast" in findings(filtered), filtered.out
        told = findings(filtered)["multicast"]
        assert told["sentence"].startswith("1 peer is linked, none is heard by multicast, only our own echo")
        assert f"'[\"{there.ipv4}:7340\"]'   (we tried: it answers)" in told["next"]
        alone = findings(cli.run_command([*doctor, cart]))["peers"]
        assert "no other node runs here, or the network filters it" in alone["sentence"]
        here.run("ip", "link", "set", "eth0", "down")
        here.run("ip", "link", "set", "lo", "down")
        assert "no network interface" in findings(cli.run_command([*doctor, cart]))["interface"]["sentence"]
        assert node.process.poll() is None


def _bridge_port(hub: str, port: str, option: str, value: str) -> None:
    words = ("ip", "-n", hub, "link", "set", port, "type", "bridge_slave", option, value)
    subprocess.run(words, check=True, capture_output=True, timeout=10)
