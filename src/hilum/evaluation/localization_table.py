"""Write and read ``localization.csv``, one row per image and method."""

from __future__ import annotations

import csv
import math
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hilum.errors import DataError
from hilum.metrics.scores import FloatArray, none_if_nan
from hilum.storage import csv_text, write_csv

MEASURES = ("hit", "energy", "iou_area", "dice", "iou", "inside_lung")


@dataclass(frozen=True)
class LocalizationRow:
    """The measures (localization.measures_of) of one map on one image."""

    file: str
    group: str
    label: str
    kind: str
    method: str
    hit: float
    dice: float
    iou: float
    energy: float
    inside_lung: float
    iou_area: float = math.nan  # absent from the files of earlier versions


@dataclass(frozen=True)
class LocalizationTable:
    """The rows of all images; every image has every method."""

    rows: tuple[LocalizationRow, ...]

    def arrays(self) -> tuple[dict[str, FloatArray], NDArray[np.str_], NDArray[np.str_]]:
        """Return method to measures (F, M) in the order of MEASURES, and the group (F,) and kind (F,) of each image."""
        methods = list(dict.fromkeys(row.method for row in self.rows))
        images = [row for row in self.rows if row.method == methods[0]]
        values = {
            method: np.array([[getattr(row, name) for name in MEASURES] for row in self.rows if row.method == method])
            for method in methods
        }
        return values, np.array([row.group for row in images]), np.array([row.kind for row in images])

    def write(self, path: Path) -> None:
        """Write the table; an undefined measure is an empty cell.

        Raises:
            OutputError: The file cannot be written.
        """
        header = [field.name for field in fields(LocalizationRow)]
        write_csv(
            path,
            header,
            ([none_if_nan(cell) if isinstance(cell, float) else cell for cell in astuple(row)] for row in self.rows),
        )

    @classmethod
    def read(cls, path: Path) -> LocalizationTable:
        """Read the table, equal bit for bit to what ``write`` wrote.

        Raises:
            DataError: The file does not hold such a table.
        """
        try:
            with path.open(newline="", encoding="utf-8") as stream:
                return cls(tuple(_row(cells) for cells in csv.DictReader(stream, strict=True)))
        except (OSError, UnicodeDecodeError, csv.Error, KeyError, ValueError, TypeError) as error:
            raise DataError(f"'{path}' is not a localization table of hilum: {error!r}.") from error


def _row(cells: dict[str, str]) -> LocalizationRow:
    file, group, label, kind, method = (csv_text(cells[name]) for name in ("file", "group", "label", "kind", "method"))
    own = {name: cells.get(name, "") if name == "iou_area" else cells[name] for name in MEASURES}
    return LocalizationRow(
        file, group, label, kind, method, **{name: float(own[name] or math.nan) for name in MEASURES}
    )
