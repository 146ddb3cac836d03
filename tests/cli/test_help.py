"""Help at 80 columns, examples, suggestions, and hints that can be typed."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hilum.cli import app
from hilum.cli.app import COMMANDS, load_command
from hilum.config import list_settings

Hilum = Callable[..., str]

SOURCE = Path(__file__).resolve().parents[2] / "src" / "hilum"
WIDTH = 80
GROUPS = ("Data", "Training", "Evaluation", "Inference", "Serving")


@pytest.fixture(scope="module")
def commands() -> dict[str, Any]:
    return {name: load_command(name) for name in COMMANDS}


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """Each command's help on a terminal of 80 columns, and the whole program's under an empty name."""
    shown = {}
    for name in ("", *COMMANDS):
        result = CliRunner().invoke(
            app, [*filter(None, [name]), "--help"], env={"COLUMNS": str(WIDTH)}, terminal_width=WIDTH
        )
        assert result.exit_code == 0, result.output
        shown[name] = result.output
    return shown


def options_of(command: Any) -> set[str]:
    names = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return {name for name in names if name.startswith("--")} | {"--help"}


def test_no_name_is_cut_off_at_80_columns(commands: dict[str, Any], helps: dict[str, str]) -> None:
    for name, command in commands.items():
        words = set(re.findall(r"--[a-z0-9-]+", helps[name]))
        assert options_of(command) <= words, f"{name}: {options_of(command) - words}"
    for name, text in helps.items():
        assert [line for line in text.splitlines() if len(line) > WIDTH] == [], name
        assert "…" not in text
        assert "\\" not in text, name  # no escape of a markup that is not rendered


def test_every_command_is_in_a_group_with_its_whole_line(helps: dict[str, str]) -> None:
    parts = re.split(r"^(\w+):$", helps[""], flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert tuple(name for name in sections if name in GROUPS) == GROUPS
    for name, (_, group, line) in COMMANDS.items():
        words = " ".join(sections[group].split())
        assert f"{name} {line}" in words, name


@pytest.mark.parametrize("name", COMMANDS)
def test_a_commands_line_is_its_docstrings_first(name: str) -> None:
    functions = vars(import_module(f"hilum.cli.{COMMANDS[name].module}"))
    called = {"app": "web_app"}.get(name, name.replace("-", "_"))  # a module's `app` is its Typer
    assert (inspect.getdoc(functions[called]) or "").splitlines()[0] == COMMANDS[name].line


def test_every_help_ends_with_two_examples_that_parse(commands: dict[str, Any], helps: dict[str, str]) -> None:
    for name, text in helps.items():
        lines = [line.strip() for line in text.partition("Examples:\n")[2].splitlines() if line.strip()]
        assert len(lines) == 2, name
        for line in lines:
            words = [word for word in shlex.split(line) if not re.match(r"[A-Z_]+=", word)]
            assert words[0] == "hilum"
            assert name in ("", words[1])
            commands[words[1]].make_context(words[1], words[2:])  # raises where an option or argument does not exist


def test_completion_is_installed_at_the_top_alone(helps: dict[str, str]) -> None:
    assert [name for name, text in helps.items() if "--install-completion" in text] == [""]


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["prdict", "image.png"], "predict"),
        (["evalute"], "evaluate"),
        (["predict", "image.png", "--save-overlay"], "--save-overlays"),
        (["audit", "data", "--limt", "3"], "--limit"),
    ],
)
def test_a_mistyped_name_is_answered_with_the_one_that_is_meant(hilum: Hilum, words: list[str], meant: str) -> None:
    assert meant in hilum(*words, code=2).replace(words[0], "")


# One name for one thing


SHARED = {
    "--bundle": {"audit", "predict", "gate", "serve", "app", "dicomweb"},
    "--output": {
        "index", "split", "audit", "train", "train-gate", "export", "import-checkpoint", "evaluate", "compare",
        "recalibrate", "quantize", "predict", "gate", "info",
    },
    "--gate": {"predict", "gate", "serve", "app", "dicomweb"},
    "--verify-key": {"predict", "info", "serve", "app", "dicomweb"},
    "--limit": {"index", "audit", "predict", "dicomweb"},
}  # fmt: skip


def test_the_same_option_has_the_same_name_everywhere(commands: dict[str, Any]) -> None:
    for option, users in SHARED.items():
        assert {name for name, command in commands.items() if option in options_of(command)} == users, option
    gone = {"--out", "--n", "--films", "--num-samples", "--providers", "--no-gate", "--model", "--split-seed"}
    assert not gone & set().union(*map(options_of, commands.values()))
    for name in SHARED["--output"]:
        (option,) = [parameter for parameter in commands[name].params if "--output" in parameter.opts]
        assert "-o" in option.opts, name


# Hints


OPTION = r"(?<![\w-])--[a-z][a-z0-9]*(?:-[a-z0-9]+)*(?![\w-])"


def texts_of(path: Path) -> Iterator[tuple[int, str]]:
    """The strings of a module, but its docstrings; what an f-string fills in is `X`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docs = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)} - {
        id(node) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "X" for part in node.values]
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not {id(node)} & (docs | inside):
            yield node.lineno, node.value


def mentions() -> list[Any]:
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        place = path.relative_to(SOURCE)
        for line, text in texts_of(path):
            if re.search(r"(?<![\w-])--[a-z]|\bhilum [a-z]", text):
                found.append(pytest.param(text, id=f"{place}:{line}"))
    return found


@pytest.mark.parametrize("text", mentions())
def test_what_a_text_tells_to_type_exists(commands: dict[str, Any], text: str) -> None:
    every = set().union(*map(options_of, commands.values())) | {"--version", "--install-completion"}
    for option in re.findall(OPTION, text):
        assert option in every, text
    for setting in re.findall(r"--set ([a-z_]+\.[a-z_]+)=", text):
        assert setting in {"section.key", *list_settings()}, text
    for name, rest in re.findall(r"hilum ([a-z][a-z-]*)([^`.;:)]*)", text):
        if name in commands:
            for option in re.findall(OPTION, rest.partition(", or ")[0]):
                assert option in options_of(commands[name]), text
    for name in re.findall(r"`hilum ([a-z][a-z-]*)|(?:^|: )hilum ([a-z][a-z-]*) (?:[A-Z]|--)", text):
        assert set(filter(None, name)) <= set(commands), text


def test_extras_are_named_as_a_checkout_installs_them() -> None:
    """hilum is on no package index."""
    for path in SOURCE.rglob("*.py"):
        for line, text in texts_of(path):
            assert not re.search(r"pip install \"?hilum", text), f"{path}:{line}"
