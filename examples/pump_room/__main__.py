"""The main job on real processes: `python -m examples.pump_room`, or `make demo`.

A drone hears a pump rattle and asks the mesh; quadrupeds bid; the winner is killed with SIGKILL on its way; the next
one goes there, measures and reports. mDNS, mutual TLS, signatures, leases and journals are those of a robot; vibration
and walking are synthetic. Exit status: 0 when the job was done in spite of the killing, 1 when it was not.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from examples.pump_room import stage
from examples.pump_room.timeline import Timeline

MESHAGENT: Final = str(Path(sys.executable).with_name("meshagent"))
"""The installed command of this environment."""
DISCOVERY_WITHIN_S: Final = 10.0
KILL_AT_PROGRESS: Final = 0.15
"""The winner dies when it is so far: on its way, no reading taken yet."""


class Robot:
    """`meshagent run ROLE` as a process of its own."""

    def __init__(self, device: stage.Device, folder: Path, environment: dict[str, str]) -> None:
        self.device = device
        self.log = (folder / f"{device.name}.log").open("w")
        self.started_at = time.time()
        self.process = subprocess.Popen(
            [
                *(MESHAGENT, "run", device.role, "--dev", "--json"),
                *("--name", device.name, "--config", str(folder / f"{device.name}.toml")),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=environment,
        )

    def wait_up(self) -> dict[str, Any]:
        """The document that the node prints when it is ready."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            last = Path(self.log.name).read_text()[-2000:]
            raise RuntimeError(f"{self.device.name} ended with status {status} before it was ready:\n{last}")
        document: dict[str, Any] = json.loads(line)
        return document

    def end(self) -> None:
        """Ctrl-C, then the hard way."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.log.close()


def ask(environment: dict[str, str], *words: str) -> dict[str, Any]:
    """A `meshagent ... --json` command on the drone's node."""
    command = [MESHAGENT, *words, "--dev", "--node", stage.DRONE.name, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=30, check=False)
    document: dict[str, Any] = json.loads(done.stdout) if done.stdout.strip() else {}
    return document


def follow(environment: dict[str, str]) -> subprocess.Popen[str]:
    """`meshagent watch` on the drone, as JSON Lines."""
    command = [MESHAGENT, "watch", "--dev", "--node", stage.DRONE.name, "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)


def discover(environment: dict[str, str], timeline: Timeline) -> float | None:
    """Seconds from the start of the drone's node until it had a link to every other device; None: not in time."""
    give_up_s = time.monotonic() + DISCOVERY_WITHIN_S
    while time.monotonic() < give_up_s:
        document = ask(environment, "peers")
        peers = [row for row in document.get("peers", ()) if row["linked_s"] is not None]
        if len(peers) == len(stage.DOGS):
            for row in sorted(peers, key=lambda row: -float(row["linked_s"])):
                timeline.say(f"heron-1  found {row['name']} by mDNS ({row['address']})")
            return float(document["up_s"]) - min(float(row["linked_s"]) for row in peers)
    return None


def play(folder: Path, environment: dict[str, str], timeline: Timeline, timeout_s: float) -> dict[str, Any]:
    """Run the whole story; returns the summary."""
    robots: dict[str, Robot] = {}
    watching: subprocess.Popen[str] | None = None
    deadline_s = time.monotonic() + timeout_s
    try:
        for device in (*stage.DOGS, stage.DRONE):
            robots[device.name] = Robot(device, folder, environment)
            timeline.say(f"{device.name:8} starts: role {device.role}, battery {device.battery_soc:.0%}")
        ids: dict[str, str] = {}
        for name, robot in robots.items():
            up = robot.wait_up()
            ids[up["id"]] = name
            timeline.say(f"{name:8} is up in {up['ready_s']:.2f} s, port {up['listen_port']}, id {up['id'][:8]}")
        watching = follow(environment)
        assert watching.stdout is not None
        story = Story(timeline, robots)
        story.discovery_s = discover(environment, timeline)
        for line in watching.stdout:
            story.hear(json.loads(line))
            if story.ended or time.monotonic() > deadline_s:
                break
        why = ask(environment, "why", story.task) if story.task else {}
        status = ask(environment, "status")
        return story.summary(why, status)
    finally:
        if watching is not None:
            watching.kill()
            watching.wait()
            if watching.stdout is not None:
                watching.stdout.close()
        for robot in robots.values():
            if robot.process.poll() is None:
                robot.process.send_signal(signal.SIGINT)
        for robot in robots.values():
            robot.end()


class Story:
    """What the drone's node tells, and the killing."""

    def __init__(self, timeline: Timeline, robots: dict[str, Robot]) -> None:
        self._timeline = timeline
        self._robots = robots
        self.task = ""
        self.ended = False
        self.discovery_s: float | None = None
        self._killed: tuple[str, float] | None = None
        self._lost_at: float | None = None
        self._took_over_at: float | None = None
        self._holder = ""
        self._outcome: dict[str, Any] = {}

    def hear(self, event: dict[str, Any]) -> None:
        """One event of the watch."""
        what = event["event"]
        self._timeline.show(event)
        if what == "called":
            self.task = event["task"]
        elif what == "commit":
            self._holder = event["peer_name"]
            if self._killed is not None and self._took_over_at is None:
                self._took_over_at = event["at"]
                self._timeline.say(
                    f"{self._holder:8} takes over, {event['at'] - self._killed[1]:.2f} s after the kill", at=event["at"]
                )
        elif what == "lost" and self._killed is not None:
            self._lost_at = self._lost_at or event["at"]
        elif what == "state" and event["task"] == self.task:
            if event["state"] in ("done", "failed", "cancelled"):
                self._outcome = event
                self.ended = True
            elif (event.get("progress") or 0.0) >= KILL_AT_PROGRESS and self._killed is None:
                self._kill()

    def _kill(self) -> None:
        robot = self._robots[self._holder]
        robot.process.kill()  # SIGKILL: no goodbye, no cleanup
        self._killed = (self._holder, time.time())
        self._timeline.say(f"{self._holder:8} *** killed with SIGKILL on its way (pid {robot.process.pid})")

    def summary(self, why: dict[str, Any], status: dict[str, Any]) -> dict[str, Any]:
        """The figures, all of this run."""
        result = self._outcome.get("result") or {}
        killed, killed_at = self._killed or ("", None)
        acts = [act for epoch in why.get("epochs", ()) for act in epoch.get("acts", ())]
        links = status.get("links", {})
        done = (
            self._outcome.get("state") == "done"
            and bool(result.get("confirmed"))
            and bool(killed)
            and result.get("by") not in ("", killed)
        )
        return {
            "schema": "meshagent.demo/1",
            "done": done,
            "task": self.task,
            "finding": result,
            "killed": killed,
            "taken_over_by": self._outcome.get("holder_name"),
            "discovery_s": None if self.discovery_s is None else round(self.discovery_s, 2),
            "rounds": len(why.get("epochs", ())),
            "bids": sum(act["act"] == "propose" for act in acts),
            "refusals": sum(act["act"] == "refuse" for act in acts),
            "lost_noticed_s": round(self._lost_at - killed_at, 3) if self._lost_at and killed_at else None,
            "recovery_s": round(self._took_over_at - killed_at, 3) if self._took_over_at and killed_at else None,
            "signatures_made": links.get("signatures_made"),
            "signatures_checked": links.get("signatures_checked"),
            "messages_rejected": sum(row.get("count", 0) for row in status.get("rejections", ())),
            "synthetic": "vibration by the kinematic formulas of a rolling bearing, and the walking; "
            "processes, network, keys, journals are real",
        }


def main() -> int:
    """Exit status of the demonstration."""
    parser = argparse.ArgumentParser(prog="python -m examples.pump_room", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object; the timeline on stderr")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds until the demonstration counts as failed")
    parser.add_argument("--seed", type=int, default=7, help="of the synthetic vibration")
    parser.add_argument("--keep", metavar="FOLDER", help="write logs, journals and recordings there and keep them")
    options = parser.parse_args()
    timeline = Timeline(sys.stderr if options.json else sys.stdout)
    with tempfile.TemporaryDirectory(prefix="meshagent-demo-") as temporary:
        folder = Path(options.keep).absolute() if options.keep else Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        timeline.say("the pump room: recordings and configurations are written")
        stage.build(folder, options.seed)
        environment = {**os.environ, "XDG_STATE_HOME": str(folder / "state"), "NO_COLOR": "1"}
        try:
            summary = play(folder, environment, timeline, options.timeout)
        except KeyboardInterrupt:
            return 130
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 1
    if options.json:
        print(json.dumps(summary, indent=1))
    else:
        timeline.report(summary)
    return 0 if summary["done"] else 1


if __name__ == "__main__":
    sys.exit(main())
