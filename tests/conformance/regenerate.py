"""Make all vectors anew: `python -m tests.conformance.regenerate`; with `--check` only say which differ.

Keys, salts, nonces and times are fixed, so that a change of a file is a change of the protocol. Say why in the log.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.conformance import envelopes, made_acts, made_identity, made_links, made_msgpack, made_trust, messages

FOLDER: Final = Path(__file__).parent
FILES: Final[dict[str, Callable[[], dict[str, Any]]]] = {
    "envelope.json": envelopes.vectors,
    "messages.json": messages.vectors,
    "acts.json": made_acts.vectors,
    "msgpack.json": made_msgpack.vectors,
    "frames.json": made_links.frames,
    "hello.json": made_links.hello,
    "merkle.json": made_identity.merkle,
    "identity.json": made_identity.identity,
    "revocation.json": made_trust.revocation,
    "certificates.json": made_trust.certificates,
}


def render(name: str) -> str:
    """The content of one file."""
    return json.dumps(FILES[name](), indent=1) + "\n"


def main() -> int:
    check, stale = "--check" in sys.argv, 0
    for name in FILES:
        path, content = FOLDER / name, render(name)
        if path.exists() and path.read_text() == content:
            continue
        stale += 1
        print(f"{'differs' if check else 'written'}: {name}")
        if not check:
            path.write_text(content)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
