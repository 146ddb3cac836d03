"""Rows of predictions are the same as Parquet and as CSV."""

from __future__ import annotations

import csv
import io

import odd_text
import pytest
from dicom_results import small_manifest
from hypothesis import given
from hypothesis import strategies as st

from hilum.inference.parquet import parquet_bytes, shard_rows_of, table_of_csv, typed_table
from hilum.inference.table import table_header
from hilum.storage import csv_line, csv_text

pyarrow = pytest.importorskip("pyarrow.parquet")

_HEADER = table_header(small_manifest())
_NUMBER = st.floats(0, 1).map(lambda value: f"{value:.6f}") | st.just("")


@st.composite
def rows(draw: st.DrawFn) -> list[str]:
    def cell(name: str) -> str:
        if name.startswith(("prob_", "evidence_")) or name == "lung_fraction":
            return draw(_NUMBER)
        return draw(st.sampled_from(["0", "1", ""]) if name == "abstained" else odd_text.text)

    return [cell(name) for name in _HEADER]


@given(st.lists(rows(), min_size=1, max_size=5))
def test_rows_of_predictions(found: list[list[str]]) -> None:
    content = parquet_bytes(typed_table(_HEADER, found))
    table = pyarrow.read_table(io.BytesIO(content))
    assert table.column_names == _HEADER
    for row, values in zip(found, table.to_pylist(), strict=True):
        for name, cell in zip(_HEADER, row, strict=True):
            value = values[name]
            assert {None: ""}.get(value, value) == (cell if isinstance(value, str) or not cell else _typed(name, cell))
    tallied = [*shard_rows_of(content, "part")]
    assert [(status or "", label or "", reason) for status, label, _, reason in tallied] == [
        (row[1], row[2], row[-1]) for row in found
    ]
    text = b"".join(map(csv_line, [_HEADER, *found]))
    assert table_of_csv(text) == table
    assert [[csv_text(cell) for cell in row] for row in csv.reader(io.StringIO(text.decode(), newline=""))][1:] == found


def _typed(name: str, cell: str) -> object:
    return cell == "1" if name == "abstained" else float(cell)
