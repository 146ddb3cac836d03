"""Every figure in the Markdown files is in a committed result file; the README's first output is within 40 lines."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tables(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("tables")


def test_figures_are_those_of_the_result_files(tables: ModuleType) -> None:
    found = tables.targets()
    assert ROOT / "README.md" in found
    for file in found:
        text = file.read_text(encoding="utf-8")
        assert tables.filled(text) == text, f"{file.name}: run python benchmarks/tables.py --write"


def test_every_mark_of_a_table_has_its_end(tables: ModuleType) -> None:
    for file in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")):
        text = file.read_text(encoding="utf-8")
        assert re.findall(r"<!-- begin:(\w+) -->", text) == [*tables.blocks(text)], file.name


def test_every_result_file_is_shown_somewhere(tables: ModuleType, benchmark: Callable[[str], ModuleType]) -> None:
    names = {name for file in tables.targets() for name in tables.blocks(file.read_text(encoding="utf-8"))}
    shown = {result for name in names for result in tables.TABLES[name]} | {*benchmark("model_card").NEEDED}
    assert {file.stem for file in (ROOT / "benchmarks" / "results").glob("*.json")} == shown


def test_real_output_comes_within_forty_lines() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert "hilum.load()" in "".join(lines[:40])
    assert next(number for number, line in enumerate(lines, start=1) if line.startswith("Wrote ")) <= 40


def test_every_command_of_the_readme_exists() -> None:
    from hilum.cli.app import COMMANDS

    named = re.findall(r"`hilum ([a-z][a-z-]*)[ `]", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert set(named) == {*COMMANDS}
