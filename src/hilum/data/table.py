"""Read the CSV form of the index: ``image, mask, label, group, source, split, region, boxes``."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from pathlib import Path

from hilum.errors import DataError
from hilum.storage import csv_text
from hilum.types import SPLIT_NAMES, Box, Record

COLUMNS = ("image", "mask", "label", "group", "source", "split", "region", "boxes")
LAYOUT = """Lay the files out as
    DATA/<class>/images/<name>.png   (PNG, JPEG, WebP, BMP, TIFF or DICOM, under any suffix or none)
    DATA/<class>/masks/<name>.png    (optional, same name; any image suffix)
or give a CSV file with the columns image, mask, label, group, source, split (only image is compulsory;
region and boxes may be there, for measuring localization)."""

_OVERHANG = 0.01  # of the image: a box drawn at another size can end a pixel outside


def read_rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Return the column names in lower case, and per row its line in the file and its cells (stripped, csv_text).

    Raises:
        DataError: The file cannot be read or is no CSV in UTF-8 (a byte order mark is fine).
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = [name.strip().lower() for name in next(reader, [])]
            rows = []
            for cells in filter(any, reader):
                if any(cells[len(header) :]):
                    raise csv.Error(f"line {reader.line_num} has more cells than the header")
                texts = [csv_text(cell.strip()) for cell in cells]
                rows.append((reader.line_num, dict(zip(header, texts, strict=False))))
    except OSError as error:
        raise DataError(f"Expected a readable CSV at {path}, got: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"Expected a CSV in UTF-8 at {path}, got: {error}.", hint="Save it as CSV UTF-8.") from error
    return header, rows


def read_table(path: Path) -> list[Record]:
    """Return the records of a CSV with an ``image`` column; other columns than COLUMNS are ignored.

    Relative paths start at the CSV's folder; an empty cell means unknown. Nothing is opened but the CSV.

    Raises:
        DataError: The CSV cannot be read, has no ``image`` column or no rows, an image is listed twice, or a
            split is not train, val or test; the line is named.
    """
    header, rows = read_rows(path)
    if "image" not in header:
        raise DataError(f"Expected an `image` column in {path}, got: {', '.join(header) or 'nothing'}.", hint=LAYOUT)
    folder = path.parent.resolve()
    lines: dict[Path, int] = {}
    records = []
    for line, row in rows:
        record = _record_of(row, folder, f"{path}, line {line}")
        if record.image_path in lines:
            raise DataError(
                f"Expected each image once in {path}, got {row['image']} in lines "
                f"{lines[record.image_path]} and {line}.",
                hint="Remove one of the two rows.",
            )
        lines[record.image_path] = line
        records.append(record)
    if not records:
        raise DataError(f"Expected rows in {path}, got only the header.")
    return records


def _record_of(row: Mapping[str, str], folder: Path, where: str) -> Record:
    if not row.get("image"):
        raise DataError(f"Expected an image path in {where}, got an empty cell.")
    split = row.get("split") or None
    if split is not None and split not in SPLIT_NAMES:
        raise DataError(
            f"Expected a split of {', '.join(SPLIT_NAMES)} or an empty cell in {where}, got {split!r}.",
            hint="Correct the cell; empty cells in the whole column let hilum draw the split.",
        )
    mask, region = row.get("mask"), row.get("region")
    return Record(
        image_path=_absolute(folder, row["image"]),
        mask_path=_absolute(folder, mask) if mask else None,
        label=row.get("label") or None,
        group=row.get("group") or None,
        source=row.get("source") or None,
        split=split,
        region_path=_absolute(folder, region) if region else None,
        boxes=_boxes(row.get("boxes", ""), where),
    )


def _boxes(cell: str, where: str) -> tuple[Box, ...]:
    """``[[x, y, width, height], ...]``, fractions of the image; empty for none."""
    if not cell:
        return ()
    try:
        boxes: list[Box] = [(float(x), float(y), float(w), float(h)) for x, y, w, h in json.loads(cell)]
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(
            f"Expected boxes as [[x, y, width, height], ...] in {where}, got {cell!r:.80}.", hint="Correct the cell."
        ) from error
    if not all(0 <= x < 1 and 0 <= y < 1 and 0 < w <= 1 and 0 < h <= 1 for x, y, w, h in boxes):
        raise DataError(
            f"Expected boxes as fractions of the image, in [0, 1], in {where}, got {cell!r:.80}.",
            hint="Divide pixels by the image's width and height.",
        )
    if not all(x + w <= 1 + _OVERHANG and y + h <= 1 + _OVERHANG for x, y, w, h in boxes):
        raise DataError(
            f"Expected boxes that end inside the image in {where}, got {cell!r:.80}.",
            hint="Give x, y, width and height, not two corners.",
        )
    return tuple(boxes)


def _absolute(folder: Path, cell: str) -> Path:
    # Not resolve(): data sets kept as symbolic links (git-annex, DVC) must keep their names.
    return Path(os.path.normpath(folder / cell))
