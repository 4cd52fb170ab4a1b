"""The log: text for a person at a terminal, JSON Lines for whatever collects it. Always stderr."""

from __future__ import annotations

import datetime
import json
import logging
import sys
from typing import Final

from meshagent.config import LogSection
from meshagent.operator.render import Paint, clean

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_QUIET_LIBRARIES: Final = ("zeroconf", "grpc", "asyncio")
"""Their INFO is our DEBUG."""
_OWN: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """One object a line: `t`, `level`, `logger`, `message`, and what the adapter added (node, conversation_id)."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line: dict[str, object] = {
            "t": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in record.__dict__.items() if key not in _OWN and key not in line}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class Lines(logging.Formatter):
    """`14:02:11 WARNING meshagent.runtime.links: sentence`; control characters escaped, further lines indented."""

    def __init__(self, paint: Paint) -> None:
        super().__init__()
        self._paint = paint

    def format(self, record: logging.LogRecord) -> str:
        """The line, and a traceback below it where there is one."""
        when = datetime.datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        colour = "bad" if record.levelno >= logging.ERROR else "warn" if record.levelno >= logging.WARNING else "dim"
        level = self._paint(record.levelname, colour)
        first, *more = record.getMessage().splitlines() or [""]
        if record.exc_info:
            more += self.formatException(record.exc_info).splitlines()
        # what follows is indented, so that no message can pass for another line of the log
        below = "".join(f"\n  {clean(line)}" for line in more)
        return f"{self._paint(when, 'dim')} {level} {record.name}: {clean(first)}{below}"


def set_up(section: LogSection, *, level: str | None = None) -> None:
    """Send the log to stderr as the configuration says; `level` overrides it."""
    as_text = section.format == "text" or (section.format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines(Paint(enabled=sys.stderr.isatty())) if as_text else JsonLines())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    chosen = _LEVELS[level or section.level]
    root.setLevel(chosen)
    for library in _QUIET_LIBRARIES:
        logging.getLogger(library).setLevel(max(chosen, logging.WARNING) if chosen > logging.DEBUG else logging.INFO)
