"""Names of kinds and events on the wire, and the near match that errors suggest."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable
from pathlib import PurePath
from typing import Final

NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:[.-][A-Za-z0-9_]+){0,8}\Z", re.ASCII)
"""A word, or dotted words; ASCII so that no two spellings look alike."""
MAX_NAME_CHARS: Final = 100
"""Shown in tables and sent with every call."""


def default_name(cls: type) -> str:
    """Module stem and class, `night.Survey`; a script's `__main__` counts under its file's name."""
    module = cls.__module__
    if module == "__main__":
        file = getattr(sys.modules.get(module), "__file__", None)
        stem = PurePath(file).stem if file else "main"
    else:
        stem = module.rpartition(".")[2]
    return f"{stem}.{cls.__name__}"


def is_name(text: str) -> bool:
    """Whether `text` may be the name of a kind or event."""
    return len(text) <= MAX_NAME_CHARS and NAME.match(text) is not None


def near(word: str, known: Iterable[str]) -> str | None:
    """The one of `known` that `word` was probably meant to be."""
    lowered = {name.lower(): name for name in sorted(known)}
    # 0.5: `sight` is taken for `site` (0.67), `lease` for `lease_s`, but `colour` not for `site`
    found = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.5)
    return lowered[found[0]] if found else None
