"""What every benchmark prints: rows, and where they come from. One JSON object, or a table for people."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

Row = Mapping[str, object]


def machine() -> dict[str, object]:
    """The machine as far as figures depend on it: no name, no address."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load_1min": round(os.getloadavg()[0], 2),
    }


def versions(*distributions: str) -> dict[str, str]:
    """Python's version and those of `distributions`; "absent" where one is not installed."""
    found = {"python": platform.python_version()}
    for name in distributions:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def command(module: str) -> str:
    """The line that repeats this run from the root of a checkout."""
    return " ".join(["python", "-m", module, *sys.argv[1:]])


def document(module: str, rows: Sequence[Row], *distributions: str) -> dict[str, object]:
    """The object that `--json` prints."""
    return {
        "rows": [dict(row) for row in rows],
        "machine": machine(),
        "versions": versions("meshagent", *distributions),
        "command": command(module),
    }


def add_json_flag(parser: argparse.ArgumentParser) -> None:
    """The flag that every benchmark has."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def show(module: str, rows: Sequence[Row], *distributions: str, as_json: bool) -> None:
    """Print the result; progress belongs on stderr (`progress`)."""
    result = document(module, rows, *distributions)
    if as_json:
        print(json.dumps(result, indent=1))
        return
    print(table(rows))
    facts = result["machine"]
    assert isinstance(facts, dict)
    print(f"\n{facts['cpu']}, {facts['usable_cores']} of {facts['cores']} cores, load {facts['load_1min']}")
    print(result["command"])


def table(rows: Sequence[Row]) -> str:
    """Rows as aligned columns, in the order in which fields first appear."""
    names: list[str] = []
    for row in rows:
        names += [name for name in row if name not in names]
    cells = [names] + [[_cell(row.get(name)) for name in names] for row in rows]
    widths = [max(len(line[at]) for line in cells) for at in range(len(names))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )


def progress(text: str) -> None:
    """Tell whoever waits; never on stdout."""
    print(text, file=sys.stderr, flush=True)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 1 else f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
