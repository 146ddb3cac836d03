"""Read dataset CSVs: the columns of COLUMNS and SECOND_READER, and any others as text."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from hilum.data.mirror import beside
from hilum.errors import DataError
from hilum.storage import csv_text
from hilum.types import SPLIT_NAMES, Box, Record

COLUMNS = ("image", "mask", "label", "group", "source", "split", "region", "boxes")
SECOND_READER = ("label_2", "mask_2")
"""Columns with the label and the lung mask that a second reader gave."""
LAYOUT = """Arrange the files as
    DATA/<class>/images/<name>.png   (PNG, JPEG, WebP, BMP, TIFF or DICOM, with any suffix or none)
    DATA/<class>/masks/<name>.png    (optional, same name; any image suffix)
or name a CSV file with the columns image, mask, label, group, source, split (only image is required;
the columns region and boxes are used to evaluate localization)."""

_OVERHANG = 0.01  # fraction of the image; boxes drawn at another size can end a pixel outside


def read_rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Return the lower-case column names, and for each row its line number and its cells by column.

    Names and cells are stripped and unescaped by csv_text.

    Raises:
        DataError: The file cannot be read, is not a CSV in UTF-8 (a byte order mark is allowed), or has two columns of
            the same name.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = [csv_text(name.strip()).lower() for name in next(reader, [])]
            if twice := [name for name, count in Counter(filter(None, header)).items() if count > 1]:
                raise DataError(
                    f"'{path}' has several columns {twice[0]!r:.80}.", hint="Rename or remove all but one of them."
                )
            rows = []
            for cells in filter(any, reader):
                if any(cells[len(header) :]):
                    raise csv.Error(f"line {reader.line_num} has more cells than the header")
                texts = [csv_text(cell.strip()) for cell in cells]
                rows.append((reader.line_num, dict(zip(header, texts, strict=False))))
    except OSError as error:
        raise DataError(f"Cannot read the CSV '{path}': {error.strerror}.", hint="Check the path.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"'{path}' is not a CSV in UTF-8: {error}.", hint="Save it as CSV UTF-8.") from error
    except csv.Error as error:
        raise DataError(
            f"'{path}' is not a CSV, after line {reader.line_num}: {error}.",
            hint=f"Check its quotes; a cell has at most {csv.field_size_limit():,} characters.",
        ) from error
    return header, rows


def read_table(path: Path) -> list[Record]:
    """Return the records of a CSV with an ``image`` column; other columns than those named here are kept as text.

    Relative paths start at the CSV's folder; addresses are replaced by the paths of their local copies
    (hilum.data.mirror); an empty cell means unknown. The images are not opened.

    Raises:
        DataError: The CSV cannot be read, has no ``image`` column or no rows, an image is listed twice, or a split is
            not train, val or test.
    """
    header, rows = read_rows(path)
    if "image" not in header:
        raise DataError(f"'{path}' has no `image` column, only: {', '.join(header) or 'nothing':.200}.", hint=LAYOUT)
    folder = path.parent.resolve()
    lines: dict[Path, int] = {}
    records = []
    for line, row in rows:
        record = _record_of(row, folder, f"{path}, line {line}")
        if record.image_path in lines:
            raise DataError(
                f"'{path}' lists {row['image']} twice, in lines {lines[record.image_path]} and {line}.",
                hint="Remove one of the two rows.",
            )
        lines[record.image_path] = line
        records.append(record)
    if not records:
        raise DataError(f"'{path}' has no rows.", hint="Add one row per image.")
    return records


def _record_of(row: Mapping[str, str], folder: Path, where: str) -> Record:
    if not row.get("image"):
        raise DataError(f"The `image` cell is empty in {where}.", hint="Name an image, or remove the row.")
    split = row.get("split") or None
    if split is not None and split not in SPLIT_NAMES:
        raise DataError(
            f"Expected {', '.join(SPLIT_NAMES)} or an empty cell as split in {where}, got {split!r}.",
            hint="Correct the cell, or empty the whole column to let hilum draw the split.",
        )
    mask, region, second_mask = row.get("mask"), row.get("region"), row.get("mask_2")
    known = {*COLUMNS, *SECOND_READER, ""}
    return Record(
        image_path=beside(folder, row["image"]),
        mask_path=beside(folder, mask) if mask else None,
        label=row.get("label") or None,
        group=row.get("group") or None,
        source=row.get("source") or None,
        split=split,
        region_path=beside(folder, region) if region else None,
        boxes=_boxes(row.get("boxes", ""), where),
        second_label=row.get("label_2") or None,
        second_mask_path=beside(folder, second_mask) if second_mask else None,
        columns=tuple((name, cell) for name, cell in row.items() if cell and name not in known),
    )


def _boxes(cell: str, where: str) -> tuple[Box, ...]:
    """Parse ``[[x, y, width, height], ...]`` in fractions of the image; an empty cell has no boxes."""
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
            f"A box ends outside the image in {where}: {cell!r:.80}.",
            hint="A box is x, y, width and height, not two corners.",
        )
    return tuple(boxes)
