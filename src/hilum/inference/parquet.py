"""Write the table of a folder prediction as Parquet with typed columns. Needs pyarrow."""

from __future__ import annotations

from pathlib import Path

from hilum.errors import MissingExtraError, extra_hint
from hilum.storage import atomic_path, csv_text


def require_pyarrow() -> None:
    """Check that pyarrow is installed.

    Raises:
        MissingExtraError: Pyarrow is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("Parquet needs pyarrow, which is not installed.", hint=extra_hint("parquet")) from error


def to_parquet(table: Path, path: Path) -> None:
    """Convert a CSV table of predictions to Parquet.

    Probabilities, ``lung_fraction`` and the columns ``evidence_...`` are double, ``abstained`` is boolean, other
    columns are text; empty cells are null.

    Args:
        table: CSV written by hilum.inference.folder.predict_folder.
        path: Parquet file to write.

    Raises:
        OutputError: The file cannot be written.
    """
    import csv

    import pyarrow
    from pyarrow import parquet

    with table.open(encoding="utf-8", newline="") as stream:
        header, *rows = ([csv_text(cell) for cell in row] for row in csv.reader(stream))

    def column(name: str, cells: tuple[str, ...]) -> pyarrow.Array:
        if name.startswith(("prob_", "evidence_")) or name == "lung_fraction":
            return pyarrow.array([float(cell) if cell else None for cell in cells], pyarrow.float64())
        if name == "abstained":
            return pyarrow.array([cell == "1" if cell else None for cell in cells], pyarrow.bool_())
        return pyarrow.array([cell or None for cell in cells], pyarrow.string())

    columns = list(zip(*rows, strict=True)) or [()] * len(header)
    content = pyarrow.table({name: column(name, cells) for name, cells in zip(header, columns, strict=True)})
    with atomic_path(path) as temporary:
        parquet.write_table(content, temporary)
