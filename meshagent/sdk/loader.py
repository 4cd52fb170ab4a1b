"""From what people type after `meshagent run` to compiled roles.

ROLE is an entry point of the group `meshagent.roles` (`scout`), `module:Class`, `file.py` (all roles in it) or
`file.py:Class`. A file's folder goes on the import path, so that the files beside it import as they would in a script;
the file itself is imported under its own stem, so that `from dog import Dog` elsewhere means the same class.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Final, TypeGuard

from meshagent.sdk.compiling import compile_role
from meshagent.sdk.errors import Mistake, RoleLoadError
from meshagent.sdk.names import near
from meshagent.sdk.role import Role, RoleSpec
from meshagent.sdk.source import of_class, shown

ENTRY_POINTS: Final = "meshagent.roles"


def load_roles(references: Sequence[str]) -> list[RoleSpec]:
    """The roles that `references` name, in that order, each once.

    Raises:
        RoleLoadError: every mistake in all of them.
    """
    specs: list[RoleSpec] = []
    mistakes: list[Mistake] = []
    for reference in references:
        try:
            for cls in find_roles(reference):
                if all(spec.cls is not cls for spec in specs):
                    specs.append(compile_role(cls))
        except RoleLoadError as error:
            mistakes.extend(mistake for mistake in error.mistakes if mistake not in mistakes)
    mistakes.extend(_clashes(specs))
    if mistakes:
        raise RoleLoadError(mistakes)
    return specs


def find_roles(reference: str) -> list[type[Role]]:
    """The classes behind one reference; imports their module.

    Raises:
        RoleLoadError: there is none, or importing it failed.
    """
    target, colon, name = reference.rpartition(":") if _has_class(reference) else (reference, "", "")
    if colon and not name.isidentifier():
        raise _wrong(f"{reference!r} names no class after the colon", f"meshagent run {target}:Class")
    if not target:
        raise _wrong("no role was named", "meshagent run hello.py")
    if target.endswith(".py") or "/" in target or os.sep in target:
        return _picked(_module_of_file(target), name, reference, target)
    if colon:
        return _picked(_module(target, reference), name, reference, target)
    return [_entry_point(reference)]


def _has_class(reference: str) -> bool:
    # `C:\roles\dog.py` has a colon that starts no class name
    return ":" in reference and not os.path.exists(reference)


def _module_of_file(path: str) -> ModuleType:
    full = os.path.realpath(path)
    if os.path.isdir(full):
        raise _wrong(f"{path} is a folder", f"name a file in it: meshagent run {os.path.join(path, 'roles.py')}")
    if not os.path.isfile(full):
        folder = os.path.dirname(full)
        beside = [name[: -len(".py")] for name in _listed(folder) if name.endswith(".py")]
        meant = near(os.path.basename(full).removesuffix(".py"), beside)
        step = os.path.join(os.path.dirname(path), f"{meant}.py") if meant else "the path of a file that exists"
        raise _wrong(f"there is no file {path}", f"meshagent run {step}" if meant else f"give {step}")
    folder, stem = os.path.split(full[: -len(".py")] if full.endswith(".py") else full)
    if not full.endswith(".py") or not stem.isidentifier():
        raise _wrong(
            f"{path} cannot be imported under its name", "name the file like a Python module: letters, digits, _, .py"
        )
    loaded = sys.modules.get(stem)
    if loaded is not None:
        if _file_of(loaded) == full:
            return loaded
        raise _wrong(
            f"{path}: a module {stem} is loaded already ({_file_of(loaded) or 'built in'})",
            f"rename the file, for example {stem}_role.py",
        )
    if stem in sys.stdlib_module_names:
        raise _wrong(
            f"{path} has the name of Python's own module {stem}", f"rename the file, for example {stem}_role.py"
        )
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(stem, full)
    if spec is None or spec.loader is None:
        raise _wrong(f"{path} is no Python file", "give a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(stem, None)
        if isinstance(error, Exception | SystemExit):
            raise _failed(full, error) from error
        raise
    return module


def _module(name: str, reference: str) -> ModuleType:
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # like `python -m`, so that a module beside us is found
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise _wrong(
                f"there is no module {error.name} (for {reference})",
                f"install it here, or name the file: meshagent run {name.replace('.', '/')}.py",
            ) from error
        raise _failed(name, error) from error
    except Exception as error:  # importing runs the author's code; whatever it raises is their mistake to read
        raise _failed(name, error) from error


def _entry_point(name: str) -> type[Role]:
    import importlib.metadata  # a megabyte, for those alone who name an installed role

    points = {point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}
    point = points.get(name)
    if point is None:
        if os.path.isfile(f"{name}.py"):
            raise _wrong(f"no installed role is called {name}", f"meshagent run {name}.py")
        meant = near(name, points)
        has = f"installed are {', '.join(sorted(points))}" if points else "none is installed"
        raise _wrong(
            f"no installed role is called {name}; {has}",
            f"meshagent run {meant}" if meant else "meshagent run path/to/file.py:Class",
        )
    module, _, attribute = point.value.partition(":")
    found = getattr(_module(module, name), attribute, None)
    if not _is_role(found):
        raise _wrong(
            f"the entry point {name} = {point.value} is no role", "correct it in that package's pyproject.toml"
        )
    return found


def _picked(module: ModuleType, name: str, reference: str, target: str) -> list[type[Role]]:
    own = [value for value in vars(module).values() if _is_role(value) and value.__module__ == module.__name__]
    own = list(dict.fromkeys(own))
    if not name:
        if not own:
            raise _wrong(f"{target} has no role in it", "class MyRole(Role) with @task above a method")
        return own
    found = getattr(module, name, None)
    if _is_role(found):
        return [found]
    if isinstance(found, type):
        raise _wrong(f"{reference}: {name} is no role", f"class {name}(Role)", *of_class(found))
    meant = near(name, [cls.__name__ for cls in own])
    has = f"it has {', '.join(cls.__name__ for cls in own)}" if own else "it has none"
    step = f"meshagent run {target}:{meant or own[0].__name__}" if own else f"class {name}(Role)"
    raise _wrong(f"{target} has no role {name}; {has}", step)


def _clashes(specs: Iterable[RoleSpec]) -> list[Mistake]:
    """One node performs a kind by one role: else nobody could say which of them was asked."""
    performed: dict[str, str] = {}
    mistakes = []
    for spec in specs:
        for task in spec.tasks:
            former = performed.setdefault(task.kind.name, task.label)
            if former != task.label:
                file, _, line = task.where.rpartition(":")
                message = f"{former} and {task.label} both perform {task.kind.name} on one node."
                mistakes.append(Mistake(file, int(line), message, "run one of the two roles on another node"))
    return mistakes


def _is_role(value: object) -> TypeGuard[type[Role]]:
    return inspect.isclass(value) and issubclass(value, Role) and value is not Role


def _file_of(module: ModuleType) -> str | None:
    file = getattr(module, "__file__", None)
    return os.path.realpath(file) if file else None


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _failed(target: str, error: BaseException) -> RoleLoadError:
    """What an import raised, with the innermost line of the author's own code."""
    if isinstance(error, RoleLoadError):
        return error
    file, line = target, 0
    if isinstance(error, SyntaxError) and error.filename:
        file, line = error.filename, error.lineno or 0
    else:
        for frame in traceback.extract_tb(error.__traceback__):
            if not frame.filename.startswith("<") and not _ours(frame.filename):
                file, line = frame.filename, frame.lineno or 0
    told = getattr(error, "next_step", None)
    if isinstance(error, ModuleNotFoundError) and error.name:
        told = f"install {error.name} in this environment: {shown(sys.executable)} -m pip install ..."
    text = str(error.msg) if isinstance(error, SyntaxError) else str(error)
    message = f"{type(error).__name__}: {text}" if told is None or isinstance(error, ImportError) else text
    return RoleLoadError(
        [Mistake(shown(file), line, f"{message[:300]}.", told or f"python {shown(file)} shows it whole")]
    )


def _ours(file: str) -> bool:
    """Frames of the loader, of `meshagent.sdk` and of importlib say nothing about the author's mistake."""
    return file.startswith(os.path.dirname(__file__)) or f"{os.sep}importlib{os.sep}" in file


def _wrong(message: str, next_step: str, file: str = "", line: int = 0) -> RoleLoadError:
    return RoleLoadError([Mistake(file, line, f"{message}.", next_step)])
