"""What the pages name exists: commands, options, links; the README is short and true; outputs are those printed."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from hilum._version import __version__
from hilum.cli.app import COMMANDS, load_command

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OTHER_TOOLS = {"--build", "--wait", "--raw", "--shm-size", "--since", "--silent", "--retry", "--help", "--version"}


@cache
def options_of(command: str) -> set[str]:
    """The options of a command of hilum, long and short."""
    parameters = load_command(command).params
    return {name for own in parameters for name in (*own.opts, *own.secondary_opts) if name.startswith("-")} | {
        "--help"
    }


def snippets(text: str) -> list[str]:
    """Inline code and the lines of code blocks, with continued lines joined."""
    blocks = re.findall(r"^```(?:sh|console|bash)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [*(line for line in lines if not line.startswith(("#", "Error"))), *re.findall(r"`([^`]+)`", prose)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_option_exists(page: Path) -> None:
    unknown = []
    for code in snippets(page.read_text(encoding="utf-8")):
        for name, rest in re.findall(
            r"(?:^|[;(|] ?(?:do )?|\b[A-Z_]+=\S* )hilum ([a-z][a-z-]+)([^;|#\n]*)", code.replace("\n", " ")
        ):
            if name not in COMMANDS:
                unknown.append(code)
            elif lost := set(re.findall(r"(?<![\w-])--?[a-z][a-z0-9-]*", rest)) - options_of(name):
                unknown.append(f"{sorted(lost)}: {code}")
    assert not unknown


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in ("migration.md", "contributing.md")], ids=lambda page: page.name
)
def test_every_option_named_alone_is_one_of_some_command(page: Path) -> None:
    known = set().union(*map(options_of, COMMANDS)) | OTHER_TOOLS
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"`(--[a-z][a-z0-9-]+)", prose)) <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_resolve(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"", text):
        path, _, anchor = next(filter(None, target)).partition("#")
        if "://" in path:
            continue
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(f"{path}#{anchor}")
    assert not broken


def anchors(file: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST name them."""
    headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_the_readme_is_short_and_its_tables_too() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 130
    assert all(block.count("\n|") <= 9 for block in text.split("\n\n"))  # head, rule and eight rows
    assert text.count("medical device") == 1


def test_badges_and_citation_are_those_of_the_package() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    python = re.search(r'requires-python = ">=([\d.]+)"', project)
    license_name = re.search(r'^license = "(.+)"$', project, re.MULTILINE)
    assert python is not None
    assert license_name is not None
    assert f"≥ {python[1]}<" in (ROOT / "docs" / "_static" / "python.svg").read_text(encoding="utf-8")
    assert f">{license_name[1]}<" in (ROOT / "docs" / "_static" / "license.svg").read_text(encoding="utf-8")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {__version__}\n" in citation
    assert f"\nlicense: {license_name[1]}\n" in citation


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_outputs_are_those_that_the_commands_print(page: str) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "transcripts.py", "--check", page],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


FOREIGN = {
    "Requires-Python >=3.10", "No matching distribution found", "DataLoader worker", "is killed by signal: Bus error",
    "A module that was compiled using NumPy 1.x cannot be run in NumPy 2", "No space left on device",
    ": Address already in use",
}  # fmt: skip
"""Messages of other programs that docs/troubleshooting.md explains."""


def test_the_messages_that_troubleshooting_explains_are_those_of_hilum() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    printed = "".join(re.findall(r"^```console\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    source = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "src").rglob("*.py"))
    titles = re.findall(r'"([^"]+)"', "\n".join(re.findall(r"^### (.+)$", page, re.MULTILINE)))
    parts = {part.strip(" ,.") for title in titles for part in re.split("…|torch|cuda", title)} - FOREIGN - {""}
    assert len(parts) > 15
    assert {part for part in parts if part not in printed and part not in source} == set()
