"""Write and read the shards of a prediction table as Parquet with typed columns. Needs pyarrow."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from hilum.errors import MissingExtraError, OutputError, extra_hint
from hilum.storage import csv_text

if TYPE_CHECKING:
    import pyarrow

SHARD_ROWS = 1000
"""Rows of a shard by default."""

_TALLIED = ("status", "predicted_label", "abstained", "reason")


def require_pyarrow() -> None:
    """Check that pyarrow is installed.

    Raises:
        MissingExtraError: Pyarrow is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("Parquet needs pyarrow, which is not installed.", hint=extra_hint("parquet")) from error


def shard_name(number: int) -> str:
    """Return the file name of a shard, by its number from 0."""
    return f"part-{number:06}.parquet"


def typed_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> pyarrow.Table:
    """Return rows of predictions as an Arrow table.

    Probabilities, ``lung_fraction`` and the columns ``evidence_...`` are double, ``abstained`` is boolean, other
    columns are text; empty cells are null.

    Args:
        header: The columns, from hilum.inference.table.table_header.
        rows: The cells as text, as csv_text gives them.
    """
    import pyarrow

    def column(name: str, cells: Sequence[str]) -> pyarrow.Array:
        if name.startswith(("prob_", "evidence_")) or name == "lung_fraction":
            return pyarrow.array([float(cell) if cell else None for cell in cells], pyarrow.float64())
        if name == "abstained":
            return pyarrow.array([cell == "1" if cell else None for cell in cells], pyarrow.bool_())
        return pyarrow.array([cell or None for cell in cells], pyarrow.string())

    columns = list(zip(*rows, strict=True)) or [()] * len(header)
    return pyarrow.table({name: column(name, cells) for name, cells in zip(header, columns, strict=True)})


def table_of_csv(content: bytes) -> pyarrow.Table:
    """Return the rows of a CSV table of predictions, see typed_table."""
    stream = io.StringIO(content.decode(), newline="")
    header, *rows = ([csv_text(cell) for cell in row] for row in csv.reader(stream))
    return typed_table(header, rows)


def parquet_bytes(table: pyarrow.Table) -> bytes:
    """Return a table as the content of a Parquet file."""
    from pyarrow import parquet

    stream = io.BytesIO()
    parquet.write_table(table, stream)
    return stream.getvalue()


def shard_rows_of(content: bytes, name: str) -> Iterator[tuple[str, str | None, bool, str]]:
    """Yield status, label, abstention and reason of each row of a shard.

    Args:
        content: Content of the Parquet file.
        name: Its name, for an error.

    Raises:
        OutputError: The file is no shard of predictions.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        columns = parquet.ParquetFile(io.BytesIO(content)).read(columns=list(_TALLIED)).to_pydict()
    except (OSError, pyarrow.ArrowException) as error:
        raise OutputError(f"Cannot read '{name}': {error}.", hint="Delete it, and run the command again.") from error
    for status, label, abstained, reason in zip(*(columns[name] for name in _TALLIED), strict=True):
        yield status, label, bool(abstained), reason or ""
