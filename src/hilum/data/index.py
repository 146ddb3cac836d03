"""From class folders or a CSV to a table of records, with a report of what is wrong with the files."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hilum.data.integrity import check_records, drop_absent, gather, name_of
from hilum.data.table import COLUMNS, LAYOUT, read_rows, read_table
from hilum.errors import DataError
from hilum.imaging.read import IMAGE_SUFFIXES
from hilum.storage import sha256_text, write_csv
from hilum.types import Finding, Record, class_names_of

TABLE_NAME = "metadata.csv"


@dataclass(frozen=True)
class Index:
    """The records of a data set, in a fixed order.

    Attributes:
        records: those fit for use; their paths are absolute.
        class_names: the sorted labels of the records.
        findings: what is wrong with the data; records with an error are already left out.
        root: the folder that all images have in common. Keys are relative to it, so that they are the same
            whether the index came from folders, from a CSV, or from a CSV saved elsewhere.
        left_out: per label, how many records were left out since the label was not among those asked for.
    """

    records: tuple[Record, ...]
    class_names: tuple[str, ...]
    findings: tuple[Finding, ...]
    root: Path
    left_out: Mapping[str, int]

    def key(self, record: Record) -> str:
        """The record's name in splits and reports: its image relative to ``root``, with forward slashes."""
        return name_of(record.image_path, self.root)

    @property
    def digest(self) -> str:
        """The SHA-256 over the rows with paths relative to ``root``; moving the data does not change it."""
        rows = [[self.key(record), *_cells(record, self.root)] for record in self.records]
        return sha256_text(json.dumps(rows))


def build_index(
    data: Path,
    *,
    classes: Sequence[str] | None = None,
    check: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Index:
    """Index a folder of class folders, or a CSV file.

    A CSV is used when one is given, or when the folder holds a ``metadata.csv`` with an ``image`` column (an
    ``info`` finding then says so). Its relative paths start at the CSV's folder; an empty cell means unknown.

    Args:
        data: a folder or a CSV file.
        classes: keep only these labels, and records without a label; all labels by default.
        check: decode every file (hilum.data.integrity); False only tests that the files exist.
        progress: called with (records checked, records in all).

    Raises:
        DataError: there is nothing to index, an image is listed twice, a row is malformed, a class asked for does
            not exist, or no usable record is left.
    """
    table = _table_of(data)
    try:
        records, findings = (read_table(table), []) if table else _scan_folders(data.resolve(), classes or ())
    except OSError as error:
        raise DataError(f"Expected readable folders in {data}, got: {error}.", hint="Check its permissions.") from error
    if table and table != data:
        findings.insert(0, Finding("index_source", "info", f"The index comes from {table.name}, not from the folders."))
    chosen, left_out = _select(records, classes)
    root = _common_root(chosen)
    kept, absent = drop_absent(chosen, root=root)
    findings += absent
    if check:
        kept, odd = check_records(kept, root=root, progress=progress)
        findings += odd
    class_names = class_names_of(kept)
    lost = sorted(set(classes or ()) - set(class_names))
    if not kept or lost:
        errors = " ".join(finding.message for finding in findings if finding.severity == "error")
        what = f"of class {', '.join(lost)}" if lost else f"in {data}"
        raise DataError(f"Expected usable images {what}, got none. {errors}", hint="Replace the files named.")
    return Index(kept, class_names, tuple(findings), _common_root(kept), left_out)


def save_index(index: Index, path: Path) -> None:
    """Write the records as CSV (``image, mask, label, group, source, split, region, boxes``), atomically.

    Paths inside the CSV's folder are written relative to it, others absolute. Findings are not written.

    Raises:
        OutputError: the file cannot be written.
    """
    folder = path.parent.resolve()
    rows = [
        [name_of(record.image_path, folder), *_cells(record, folder, inside=True), *_targets(record, folder)]
        for record in index.records
    ]
    write_csv(path, COLUMNS, rows)


def load_index(path: Path) -> Index:
    """Read an index written by save_index; the digest is that of the index saved, wherever the CSV lies.

    Raises:
        DataError: see build_index.
    """
    return build_index(path, check=False)


def _cells(record: Record, folder: Path, *, inside: bool = False) -> list[str | None]:
    """The cells after ``image``. ``inside``: relative mask paths only below ``folder``, never through ``..``."""
    mask = None
    if record.mask_path is not None:
        mask = name_of(record.mask_path, folder)
        if not inside and record.mask_path.anchor == folder.anchor:
            mask = Path(os.path.relpath(record.mask_path, folder)).as_posix()
    return [mask, record.label, record.group, record.source, record.split]


def _targets(record: Record, folder: Path) -> list[str | None]:
    """The cells ``region`` and ``boxes``. They are no part of the digest: nothing is trained on them."""
    region = name_of(record.region_path, folder) if record.region_path is not None else None
    return [region, json.dumps(record.boxes) if record.boxes else None]


def _table_of(data: Path) -> Path | None:
    if data.is_file():
        if data.suffix.lower() == ".csv":
            return data
        raise DataError(f"Expected a folder or a CSV file, got the file {data}.", hint=LAYOUT)
    if not data.is_dir():
        raise DataError(f"Expected a folder or a CSV file, got {data}, which does not exist.")
    table = data / TABLE_NAME
    return table if table.is_file() and "image" in read_rows(table)[0] else None


def _scan_folders(data: Path, asked: Sequence[str]) -> tuple[list[Record], list[Finding]]:
    folders = sorted(child for child in data.iterdir() if child.is_dir() and not child.name.startswith("."))
    loose = _image_files(data)
    if not folders or {folder.name.lower() for folder in folders} <= {"images", "masks"}:
        got = f"{len(loose)} images and no class folder" if loose else "no class folder"
        raise DataError(f"Expected class folders in {data}, got {got}.", hint=LAYOUT)
    records: list[Record] = []
    findings: list[Finding] = []
    empty: list[str] = []
    for folder in folders:
        found, odd = _scan_class(folder, data)
        records += found
        findings += odd
        if not found:
            empty.append(folder.name)
    if not records:
        raise DataError(f"Expected images in the class folders of {data}, got none.", hint=LAYOUT)
    if lost := [name for name in empty if name in asked]:
        raise DataError(f"Expected images in the class folder {lost[0]} of {data}, got none.", hint=LAYOUT)
    if empty:
        findings.append(gather("empty_class", "warning", [(name, "") for name in empty], "folders hold no images"))
    if loose:
        hits = [(path.name, "") for path in loose]
        findings.append(gather("loose_image", "warning", hits, "images lie outside the class folders and are not used"))
    return records, findings


def _scan_class(folder: Path, data: Path) -> tuple[list[Record], list[Finding]]:
    inner = {child.name.lower(): child for child in sorted(folder.iterdir()) if child.is_dir()}
    images = _image_files(inner.get("images", folder))
    mask_files = _image_files(inner["masks"]) if "masks" in inner else []
    masks: dict[str, Path] = {}
    twice = [(name_of(path, data), "") for path in mask_files if masks.setdefault(path.stem, path) != path]
    stems = {path.stem for path in images}
    orphans = [(name_of(path, data), "") for path in mask_files if path.stem not in stems]
    findings = []
    if twice:
        findings.append(gather("ambiguous_mask", "warning", twice, "masks share their name with another; not used"))
    if orphans:
        findings.append(gather("mask_without_image", "warning", orphans, "masks have no image of the same name"))
    return [Record(path, masks.get(path.stem), folder.name) for path in images], findings


def _image_files(folder: Path) -> list[Path]:
    files = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in files if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def _select(records: Sequence[Record], classes: Sequence[str] | None) -> tuple[list[Record], dict[str, int]]:
    if classes is None:
        return list(records), {}
    known = class_names_of(records)
    if unknown := [name for name in classes if name not in known]:
        raise DataError(f"Expected classes of {', '.join(known)}, got {', '.join(unknown)}.")
    chosen = [record for record in records if record.label is None or record.label in classes]
    others = Counter(record.label for record in records if record.label is not None and record.label not in classes)
    return chosen, dict(sorted(others.items()))


def _common_root(records: Sequence[Record]) -> Path:
    if not records:
        return Path()
    try:
        return Path(os.path.commonpath([record.image_path.parent for record in records]))
    except ValueError:  # two drives have nothing in common; keys are then absolute
        return Path()
