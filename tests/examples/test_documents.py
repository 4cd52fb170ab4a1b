"""What the documents say stays true: their Python is well typed, their commands, keys, words and links exist."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

from docs.make_configuration import TARGET, page
from meshagent.config import known_keys
from meshagent.configfile import load_config
from meshagent.operator.main import app
from meshagent.operator.story import word_of
from meshagent.types import Reason

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path for pattern in ("*.md", "docs/*.md", "examples/*/*.md", "benchmarks/*.md") for path in ROOT.glob(pattern)
)
TYPED = [path for path in PAGES if path.name != "protocol.md"]
"""Pages that somebody types from; the wire has names that begin with meshagent, too."""
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
USED = re.compile(r"(?<![/\w])meshagent ([a-z]+(?: [a-z]+)?)")
COMMANDS = frozenset(get_command(app).commands)  # type: ignore[attr-defined]  # the group that typer builds


def blocks(page_path: Path, language: str) -> list[str]:
    return [text for word, text in BLOCK.findall(page_path.read_text()) if word == language]


def code_in(text: str) -> str:
    """Only what is typed: console and ini blocks, and code in a line. Prose says `meshagent` too."""
    typed = "\n".join(body for word, body in BLOCK.findall(text) if word in ("console", "ini"))
    prose = BLOCK.sub("", text)
    return typed + "\n" + "\n".join(re.findall(r"`([^`\n]+)`", prose))


def commands_in(path: Path) -> set[tuple[str, ...]]:
    """Every `meshagent X` and `meshagent X Y` that somebody may type, without subcommands that are arguments."""
    groups = {name for name, one in get_command(app).commands.items() if hasattr(one, "commands")}  # type: ignore[attr-defined]
    found: set[tuple[str, ...]] = set()
    for line in code_in(path.read_text()).splitlines():
        for words in USED.findall(line.partition("#")[0]):
            first, _, second = words.partition(" ")
            found.add((first, second) if first in groups and second else (first,))
    return found - {("meshagent",)}  # `sudo -u meshagent meshagent status` names the user first


def test_the_documents_name_commands_at_all() -> None:
    named = {words for path in PAGES for words in commands_in(path)}
    assert {("run",), ("submit",), ("why",), ("doctor",), ("fleet", "admit"), ("config", "explain")} <= named


@pytest.mark.parametrize("path", TYPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_that_a_page_names_exists(path: Path) -> None:
    root = get_command(app)
    for first, *rest in sorted(commands_in(path)):
        assert first in COMMANDS, f"meshagent {first}"
        for second in rest:
            assert second in root.commands[first].commands, f"meshagent {first} {second}"  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_option_that_a_page_names_exists(path: Path) -> None:
    """`meshagent X ... --option`: the option is one of X."""
    root = get_command(app)
    for line in code_in(path.read_text()).splitlines():
        match = re.search(r"\bmeshagent ([a-z]+)(?: ([a-z]+))?(.*)", line.partition(" # ")[0].replace("...", ""))
        if match is None or match[1] not in COMMANDS:
            continue
        command = root.commands[match[1]]  # type: ignore[attr-defined]
        command = getattr(command, "commands", {}).get(match[2], command)
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        rest = re.split(r"   |  next:|`| then | or ", match[3])[0]
        for option in re.findall(r"(?<=\s)--[a-z-]+", rest):
            assert option in known | {"--help"}, f"{line}: {option}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", BLOCK.sub("", path.read_text())):
        if not target.startswith(("http://", "https://")):
            assert (path.parent / target).exists(), target


def test_the_table_of_keys_is_that_of_the_code() -> None:
    assert TARGET.read_text() == page(), "python docs/make_configuration.py"


def test_the_configuration_that_is_shown_can_be_loaded(tmp_path: Path) -> None:
    [shown] = blocks(TARGET, "toml")
    file = tmp_path / "meshagent.toml"
    file.write_text(shown)
    config = load_config([file])
    given = {key for key in config.origins if config.origins[key].source == "file"}
    assert {"node.name", "network.peers", "sensors.probe.driver", "actuators.legs.driver"} <= given
    assert config.map.sites["pump-7"] == (20.0, 10.0)
    assert tomllib.loads(shown)["preset"] == config.preset == "field"


def test_keys_that_pages_name_exist() -> None:
    sections = {key.partition(".")[0] for key in known_keys()} - {"preset", "sensors", "actuators"}
    pattern = re.compile(rf"`((?:{'|'.join(sorted(sections))})\.[a-z_]+)`")
    for path in PAGES:
        for key in pattern.findall(path.read_text()):
            assert key in known_keys() or key.endswith((".py", ".proto", ".db", ".toml")), f"{path}: {key}"


# ---- the words of a story


def events_in_code() -> set[str]:
    """Every event that a machine or the node notes, as literals of the source."""
    found: set[str] = set()
    for folder in ("core/contract_net", "runtime"):
        for path in sorted((ROOT / "meshagent" / folder).glob("*.py")):
            for call in ast.walk(ast.parse(path.read_text())):
                if not isinstance(call, ast.Call):
                    continue
                name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
                if name == "_note" and len(call.args) > 1:
                    found |= words_of(call.args[1])
                elif name == "Noted":
                    found |= {word for key in call.keywords if key.arg == "event" for word in words_of(key.value)}
    return found


def words_of(node: ast.expr) -> set[str]:
    return {part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)}


def documented() -> dict[str, str]:
    """Event -> word for people, as docs/why.md has them."""
    rows = re.findall(
        r"^\| `([a-z_]+)` \| ([^|]+?) \| (?:asker|bidder|holder|custodian|owner|former)",
        (ROOT / "docs" / "why.md").read_text(),
        re.MULTILINE,
    )
    return {event: word.strip() for event, word in rows}


def test_every_word_of_a_story_is_explained() -> None:
    noted = events_in_code()
    assert {"propose", "lost", "fenced"} <= noted
    assert noted <= documented().keys(), sorted(noted - documented().keys())


def test_words_for_people_are_those_that_why_prints() -> None:
    assert documented() == {event: word_of(event) for event in documented()}


def test_every_reason_is_explained() -> None:
    text = (ROOT / "docs" / "why.md").read_text().partition("## Reasons")[2]
    assert set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)*\b", text)) >= {reason.value for reason in Reason}


# ---- Python in the guides


def test_the_program_of_the_readme_is_the_one_that_runs() -> None:
    [shown] = blocks(ROOT / "README.md", "python")
    assert shown.removeprefix("# hello.py\n") == (ROOT / "examples" / "hello_mesh" / "hello.py").read_text()


def test_python_in_the_guides_compiles() -> None:
    for path in PAGES:
        for text in blocks(path, "python"):
            # a block that starts indented is the inside of a class
            ast.parse(f"class _:\n{text}" if text.startswith("    ") else text)


def test_whole_programs_of_the_guides_are_well_typed(tmp_path: Path) -> None:
    """The blocks that name their file: they import one another by that name."""
    named = 0
    for path in (ROOT / "README.md", ROOT / "docs" / "roles.md"):
        for text in blocks(path, "python"):
            match = re.match(r"# (\w+\.py)\b", text)
            if match is not None:
                (tmp_path / match[1]).write_text(text)
                named += 1
    assert named >= 2
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml"), str(tmp_path)],
        cwd=ROOT,
        text=True,
        timeout=110,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
