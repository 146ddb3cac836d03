"""Every figure in the README stands in a committed result file, and the first output is within 40 lines."""

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


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "benchmarks/README.md", "docs/radiographs.md"])
def test_figures_are_those_of_the_result_files(tables: ModuleType, name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert re.search(r"<!-- begin:\w+ -->", text)
    assert tables.filled(text) == text, "run: python benchmarks/tables.py --write"


def test_every_result_file_is_shown_somewhere(tables: ModuleType) -> None:
    text = "".join(target.read_text(encoding="utf-8") for target in tables.TARGETS)
    shown = {tables.TABLES[name][0] for name in re.findall(r"<!-- begin:(\w+) -->", text)}
    assert {file.stem for file in (ROOT / "benchmarks" / "results").glob("*.json")} == shown


def test_real_output_comes_within_forty_lines() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert "hilum.load()" in "".join(lines[:40])
    assert next(number for number, line in enumerate(lines, start=1) if line.startswith("Wrote ")) <= 40


def test_every_command_of_the_readme_exists() -> None:
    from hilum.cli.app import COMMANDS

    named = re.findall(r"`hilum ([a-z][a-z-]*)[ `]", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert set(named) == {*COMMANDS}
