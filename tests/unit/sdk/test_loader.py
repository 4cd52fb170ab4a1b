"""What stands after `meshagent run`: files, modules, entry points, and what a wrong one is told."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshagent.sdk.errors import RoleLoadError
from meshagent.sdk.loader import load_roles

HELLO = """
from dataclasses import dataclass
from meshagent import Role, Task, task

@dataclass(frozen=True)
class Greet(Task[str]):
    name: str

class Greeter(Role):
    @task
    async def greet(self, job: Greet) -> str:
        return f"hello {job.name}"

class Echo(Role):
    @task
    async def echo(self, job: Greet) -> str:
        return job.name
"""


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Modules loaded from files and folders put on the path do not outlive a test."""
    monkeypatch.chdir(tmp_path)
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def told(*references: str) -> list[str]:
    with pytest.raises(RoleLoadError) as caught:
        load_roles(references)
    return [str(mistake) for mistake in caught.value.mistakes]


def test_one_role_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "hello_a.py").write_text(HELLO)
    [spec] = load_roles(["hello_a.py:Greeter"])
    assert spec.name == "Greeter"
    assert spec.tasks[0].kind.name == "hello_a.Greet"
    assert spec.origin.file == str(tmp_path / "hello_a.py")


def test_all_roles_of_a_file_and_each_only_once(tmp_path: Path) -> None:
    text = HELLO.replace("def echo(self, job: Greet)", "def echo(self, job: Shout)")
    text = text.replace(
        "class Greeter", "@dataclass(frozen=True)\nclass Shout(Task[str]):\n    name: str\n\nclass Greeter"
    )
    (tmp_path / "hello_b.py").write_text(text)
    assert [spec.name for spec in load_roles(["hello_b.py", "hello_b.py:Echo"])] == ["Greeter", "Echo"]


def test_files_beside_it_import_and_mean_the_same_class(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "kinds_c.py").write_text(HELLO.partition("class Greeter")[0])
    role = HELLO.partition("class Greeter")[2].partition("class Echo")[0]
    header = "from meshagent import Role, task\nfrom kinds_c import Greet\n"
    (tmp_path / "parts" / "role_c.py").write_text(header + "class Greeter" + role)
    (tmp_path / "parts" / "other_c.py").write_text("from role_c import Greeter\n")
    [spec] = load_roles(["parts/role_c.py"])
    [again] = load_roles(["parts/other_c.py:Greeter"])
    assert again.cls is spec.cls
    assert spec.tasks[0].kind.name == "kinds_c.Greet"


def test_a_module_and_an_entry_point(tmp_path: Path) -> None:
    (tmp_path / "hello_d.py").write_text(HELLO)
    assert [spec.name for spec in load_roles(["hello_d:Greeter"])] == ["Greeter"]
    assert [spec.name for spec in load_roles(["dog", "meshagent_roles.listener:Listener"])] == ["Dog", "Listener"]


def test_two_roles_that_perform_one_kind_cannot_share_a_node(tmp_path: Path) -> None:
    (tmp_path / "hello_e.py").write_text(HELLO)
    assert told("hello_e.py") == [
        "hello_e.py:16 Greeter.greet and Echo.echo both perform hello_e.Greet on one node."
        "   next: run one of the two roles on another node"
    ]


def test_mistakes_of_all_references_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "hello_f.py").write_text(HELLO.replace("-> str", "-> int"))
    assert told("hello_f.py:Greter", "nothing.py", "hello_f.py:Greeter") == [
        "hello_f.py has no role Greter; it has Greeter, Echo.   next: meshagent run hello_f.py:Greeter",
        "there is no file nothing.py.   next: give the path of a file that exists",
        "hello_f.py:11 Greeter.greet returns int, but Greet is a Task[str]."
        "   next: return str, or declare class Greet(Task[int])",
    ]


def test_a_file_that_is_nearly_there_is_suggested(tmp_path: Path) -> None:
    (tmp_path / "hello_g.py").write_text(HELLO)
    assert told("helo_g.py") == ["there is no file helo_g.py.   next: meshagent run hello_g.py"]
    assert told("hello_g") == ["no installed role is called hello_g.   next: meshagent run hello_g.py"]


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("import json\n\nx = 1 / 0\n", ":3 ", "ZeroDivisionError: division by zero."),
        ("def f(:\n", ":1 ", "SyntaxError: invalid syntax."),
        ("import no_such_module_anywhere\n", ":1 ", "ModuleNotFoundError: No module named 'no_such_module_anywhere'."),
        ("raise SystemExit(3)\n", ":1 ", "SystemExit: 3."),
        ("from meshagent import Nonsense\n", ":1 ", "ImportError: cannot import name 'Nonsense' from 'meshagent'"),
        (
            "from meshagent import Role, Requires\nclass A(Role):\n    requires = Requires('legs')\n",
            ":3 ",
            "Requires(capabilities='legs') is one string.",
        ),
    ],
)
def test_what_the_file_itself_raises_is_told_with_its_own_line(
    tmp_path: Path, text: str, where: str, message: str
) -> None:
    (tmp_path / "broken_h.py").write_text(text)
    [line] = told("broken_h.py")
    assert line.startswith(f"broken_h.py{where}{message}")
    assert "   next: " in line
    assert "broken_h" not in sys.modules


def test_a_file_with_the_name_of_a_module_of_python_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text(HELLO)
    (tmp_path / "tty.py").write_text(HELLO)
    assert told("json.py")[0].endswith("next: rename the file, for example json_role.py")
    assert told("tty.py")[0].endswith("next: rename the file, for example tty_role.py")
    (tmp_path / "my-role.py").write_text(HELLO)
    assert "cannot be imported under its name" in told("my-role.py")[0]


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("", "no role was named.   next: meshagent run hello.py"),
        (":Greeter", "no role was named.   next: meshagent run hello.py"),
        ("x.py:", "'x.py:' names no class after the colon.   next: meshagent run x.py:Class"),
        (
            ".",
            "no installed role is called .; installed are dog, listener.   next: meshagent run path/to/file.py:Class",
        ),
        ("./", "./ is a folder.   next: name a file in it: meshagent run ./roles.py"),
        (
            "no_such_pkg.roles:Dog",
            "there is no module no_such_pkg (for no_such_pkg.roles:Dog)."
            "   next: install it here, or name the file: meshagent run no_such_pkg/roles.py",
        ),
        ("lisener", "no installed role is called lisener; installed are dog, listener.   next: meshagent run listener"),
    ],
)
def test_a_wrong_reference_is_told_what_to_type(reference: str, expected: str) -> None:
    assert told(reference) == [expected]


def test_a_file_without_a_role_says_how_one_looks(tmp_path: Path) -> None:
    (tmp_path / "empty_i.py").write_text("class Thing: pass\n")
    assert told("empty_i.py") == ["empty_i.py has no role in it.   next: class MyRole(Role) with @task above a method"]
    assert told("empty_i.py:Thing") == ["empty_i.py:1 empty_i.py:Thing: Thing is no role.   next: class Thing(Role)"]
