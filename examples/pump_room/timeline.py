"""The events of a watch as lines for people, and the report at the end."""

from __future__ import annotations

import time
from typing import Any, TextIO


class Timeline:
    """Prints one line an event, seconds since the start in front."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._started_at = time.time()
        self._told_share = -1

    def say(self, text: str, *, at: float | None = None) -> None:
        """A line, dated now or `at` (wall seconds)."""
        seconds = (time.time() if at is None else at) - self._started_at
        print(f"{seconds:+7.2f} s  {text}", file=self._out, flush=True)

    def show(self, event: dict[str, Any]) -> None:
        """The line of an event, if people want to see it."""
        text = self._words(event)
        if text:
            self.say(text, at=event["at"])

    def _words(self, event: dict[str, Any]) -> str:
        who = f"{event.get('peer_name') or '':8}"
        match event["event"]:
            case "peer_joined":
                return f"heron-1  found {who.strip()} by mDNS, link up after {event['t_s']:.2f} s"
            case "peer_lost":
                return f"{who} lost: {event.get('why') or event.get('detail') or 'its kernel closed the link'}"
            case "called":
                resumes = ", a checkpoint exists" if event.get("resumes") else ""
                return f"heron-1  calls: {event['peers']} peers offer {event['kind']} (round {event['epoch']}{resumes})"
            case "propose":
                because = f" ({event['because']})" if event.get("because") else ""
                added_s, load_s = event["added_ms"] / 1000, event["load_ms"] / 1000
                return f"{who} bids: adds {added_s:.1f} s to a plan of {load_s:.1f} s{because}"
            case "refuse":
                return f"{who} refuses: {event['reason']}, {event['detail']}"
            case "accept_proposal":
                return f"{who} wins: lowest marginal cost of {event.get('bids', 'the')} bids"
            case "commit":
                return f"{who} committed, lease {event['lease_s']:.1f} s: it goes"
            case "lost":
                return f"heron-1  knows that {who.strip()} is lost: called again at once (at_least_once)"
            case "checkpoint":
                return f"{who} checkpoint {event['version']}: reading {event['version']} of 3 is safe"
            case "inform":
                return f"{who} reports the result, {event.get('renewals', 0)} renewals of its lease"
            case "state" if event.get("progress"):
                share = int(event["progress"] * 10)
                if share != self._told_share:
                    self._told_share = share
                    return f"{event.get('holder_name') or '':8} {event['progress']:4.0%}  {event.get('note') or ''}"
        return ""

    def report(self, summary: dict[str, Any]) -> None:
        """What the operator wants to know."""
        finding = summary["finding"]
        print(file=self._out)
        if summary["done"]:
            print(
                f"DONE   {finding['site']}: {finding['part']} damaged, knocks at {finding['frequency_hz']:.1f} Hz, "
                f"{finding['rms_g']:.2f} g, felt by {finding['by']}",
                file=self._out,
            )
        else:
            print(f"NOT DONE   {summary['task'] or 'nothing was asked'}: {finding or 'no finding'}", file=self._out)
        rows = (
            ("discovery", summary["discovery_s"], "s until the drone had links to all others, from its own start"),
            ("rounds", summary["rounds"], f"{summary['bids']} bids, {summary['refusals']} refusals with reasons"),
            ("noticed", summary["lost_noticed_s"], "s from kill -9 until the mesh knew"),
            ("recovery", summary["recovery_s"], f"s from kill -9 of {summary['killed']} to the next holder's start"),
            ("signatures", summary["signatures_checked"], "checked by the drone, one a sender and turn"),
            ("rejected", summary["messages_rejected"], "messages dropped by its gate"),
        )
        for name, value, meaning in rows:
            print(f"{name:11} {value if value is not None else '-':>8} {meaning}", file=self._out)
        print(f"synthetic: {summary['synthetic']}", file=self._out)
