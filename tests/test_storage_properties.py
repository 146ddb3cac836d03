"""What is written to a CSV is read again, whatever the text."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import odd_text
from hypothesis import given
from hypothesis import strategies as st

from hilum.storage import csv_cell, csv_line, csv_text, write_csv


@given(odd_text.text)
def test_a_cell_is_the_same_text_again_and_no_formula(text: str) -> None:
    cell = str(csv_cell(text))
    assert csv_text(cell) == text
    if cell[:1] in ("=", "@", "\t", "\r", "\n"):
        raise AssertionError(f"a spreadsheet would evaluate {cell!r}")
    if cell[:1] in ("+", "-"):
        float(cell)


@given(st.lists(st.lists(odd_text.text, min_size=2, max_size=2), max_size=5))
def test_a_table_is_the_same_again(tmp_path: Path, rows: list[list[str]]) -> None:
    path = tmp_path / "table.csv"
    write_csv(path, ["a", "b"], rows)
    with path.open(encoding="utf-8", newline="") as stream:
        assert [[csv_text(cell) for cell in row] for row in csv.reader(stream)] == [["a", "b"], *rows]
    lines = b"".join(map(csv_line, [["a", "b"], *rows]))
    assert lines == path.read_bytes()
    assert next(csv.reader(io.StringIO(lines.decode(), newline=""))) == ["a", "b"]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_the_same_again(number: float) -> None:
    assert float(csv_text(csv_line([number, "x"]).decode().partition(",")[0])) == number
