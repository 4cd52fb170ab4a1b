"""Where something was written: file and line of a function, class or field, for errors at load. Never raises."""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import os
import sys
from types import CodeType
from typing import Any


def shown(file: str) -> str:
    """A path as people see it: relative below the working folder, else whole."""
    try:
        relative = os.path.relpath(file)
    except (ValueError, OSError):
        return file
    return file if relative.startswith("..") else relative


def of_function(function: object) -> tuple[str, int]:
    """File and line of the `def`, below its decorators."""
    code = getattr(inspect.unwrap(function) if callable(function) else function, "__code__", None)
    if not isinstance(code, CodeType):
        return "", 0
    line = code.co_firstlineno
    for number in range(line, line + 30):  # decorators with arguments over many lines are rare
        text = linecache.getline(code.co_filename, number).lstrip()
        if text.startswith(("def ", "async def ")):
            return shown(code.co_filename), number
    return shown(code.co_filename), line


def of_class(cls: type, field: str | None = None) -> tuple[str, int]:
    """File and line of the class statement, or of one annotated name in its body."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    if not file:
        return "", 0
    node = _class_node(file, cls.__qualname__)
    if node is None:
        return shown(file), 0
    if field is not None:
        for part in node.body:
            targets: list[Any] = [part.target] if isinstance(part, ast.AnnAssign) else getattr(part, "targets", [])
            if any(isinstance(target, ast.Name) and target.id == field for target in targets):
                return shown(file), part.lineno
    return shown(file), node.lineno


@functools.lru_cache(maxsize=64)
def _parsed(file: str, text: str) -> ast.Module | None:
    try:
        return ast.parse(text, file)
    except (SyntaxError, ValueError, RecursionError, MemoryError, SystemError):  # the last: CPython gh-106905
        return None


def _class_node(file: str, qualname: str) -> ast.ClassDef | None:
    tree = _parsed(file, "".join(linecache.getlines(file)))
    scope: ast.AST | None = tree
    for name in qualname.replace(".<locals>", "").split("."):
        if scope is None:
            return None
        found = [
            node
            for node in ast.walk(scope)
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name
        ]
        scope = found[0] if found else None
    return scope if isinstance(scope, ast.ClassDef) else None
