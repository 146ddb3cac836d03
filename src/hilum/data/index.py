"""Build the index of a dataset from class folders or a CSV: its records, and findings about unused files.

File search, file checks and CSV parsing are in ``find``, ``integrity`` and ``table``.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hilum.data.find import TABLE_NAME, Skipped, findings_of, images_in, walk_images
from hilum.data.integrity import check_records, drop_absent, gather, name_of
from hilum.data.mirror import address_of, fetch_records, local_dataset
from hilum.data.table import COLUMNS, LAYOUT, SECOND_READER, read_rows, read_table
from hilum.errors import DataError
from hilum.imaging.read import IMAGE_SUFFIXES
from hilum.storage import sha256_text, write_csv
from hilum.types import Finding, Record, class_names_of

_SPLIT_FOLDERS = frozenset({"train", "training", "val", "valid", "validation", "test"})


@dataclass(frozen=True)
class Index:
    """The records of a dataset, in a fixed order.

    Attributes:
        records: The usable records, with absolute paths.
        class_names: The sorted labels of the records.
        findings: Problems with the dataset; records with an error are already left out.
        root: Common parent folder of all images. Keys are relative to it, so they do not depend on whether the index
            was built from folders or from a CSV.
        left_out: Number of records per label that were left out by ``classes``.
    """

    records: tuple[Record, ...]
    class_names: tuple[str, ...]
    findings: tuple[Finding, ...]
    root: Path
    left_out: Mapping[str, int]

    def key(self, record: Record) -> str:
        """Return the record's name in splits and reports: its image path relative to ``root``, with forward slashes."""
        return name_of(record.image_path, self.root)

    @property
    def digest(self) -> str:
        """SHA-256 of the rows with paths relative to ``root``; unchanged if the dataset is moved."""
        rows = [[self.key(record), *_cells(record, self.root)] for record in self.records]
        return sha256_text(json.dumps(rows))


def build_index(
    data: str | os.PathLike[str],
    *,
    classes: Sequence[str] | None = None,
    check: bool = True,
    limit: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Index:
    """Index a folder of class folders, or a CSV file, and return its records and findings.

    Images and masks in class folders are recognized by suffix or content, as in ``hilum.data.find``. Findings name
    unused files: other types, hidden files, folders inside class folders, and images that the CSV does not list.

    A CSV is used if ``data`` is one, or if the folder contains a ``metadata.csv`` with an ``image`` column (reported by
    an ``info`` finding). Relative paths in it start at its folder; an empty cell means unknown.

    A dataset may be at an address (``s3://``, ``gs://``, ``abfs://``; of a CSV also ``https://``), and a CSV may name
    addresses. The files are then fetched to the cache folder, where they are new or changed (hilum.data.mirror).

    Args:
        data: Folder or CSV file, or its address.
        classes: Keep only these labels, and records without a label; all labels by default.
        check: Decode every file (hilum.data.integrity); False only checks that the files exist.
        limit: Use at most this many images, whole groups drawn at random; all images by default.
        seed: Random seed of the draw.
        progress: Called with (files fetched, total files), then with (records checked, total records).

    Raises:
        DataError: There is nothing to index, an image is listed twice, a row is malformed, a requested class does not
            exist, or no usable record is left.
    """
    place = local_dataset(data, progress)
    table = table_of(place)
    try:
        if table is None:
            records, findings = _scan_folders(place.resolve(), classes or ())
        else:
            records = read_table(table)
            findings = [] if table == place else _of_table_in_folder(table, records)
    except OSError as error:
        raise DataError(f"Cannot read '{data}': {error}.", hint="Check the permissions of its folders.") from error
    chosen, left_out = _select(records, classes)
    if limit is not None:
        chosen = _draw(chosen, limit, seed)
    if table is not None:
        fetch_records(chosen, progress)
    root = _common_root(chosen)
    kept, absent = drop_absent(chosen, root=root)
    findings += absent
    if check:
        kept, odd = check_records(kept, root=root, progress=progress)
        findings += odd
    _require_usable(kept, classes, findings, str(data), limit)
    return Index(kept, class_names_of(kept), tuple(findings), _common_root(kept), left_out)


def _require_usable(
    kept: Sequence[Record], classes: Sequence[str] | None, findings: Sequence[Finding], data: str, limit: int | None
) -> None:
    lost = sorted(set(classes or ()) - set(class_names_of(kept)))
    if not kept or lost:
        errors = " ".join(finding.message for finding in findings if finding.severity == "error")
        what = f"of class {', '.join(lost)}" if lost else f"in '{data}'"
        hint = "Replace these files." if errors or limit is None else "Use a higher --limit."
        raise DataError(f"No usable images {what}. {errors}".strip(), hint=hint)


def save_index(index: Index, path: Path) -> None:
    """Write the records as CSV (``image, mask, label, group, source, split, region, boxes``), atomically.

    Columns of a second reader and other columns follow where a record has them. Paths inside the CSV's folder are
    written relative to it, others as absolute paths, and local copies as their addresses. Findings are not written.

    Raises:
        OutputError: The file cannot be written.
    """
    folder = path.parent.resolve()
    others = _other_columns(index.records)
    rows = []
    for record in index.records:
        further = dict(record.columns)
        if record.second_label is not None:
            further["label_2"] = record.second_label
        if record.second_mask_path is not None:
            further["mask_2"] = _name_in(record.second_mask_path, folder)
        cells = [_name_in(record.image_path, folder), *_cells(record, folder, inside=True), *_targets(record, folder)]
        rows.append([*cells, *(further.get(name) for name in others)])
    write_csv(path, [*COLUMNS, *others], rows)


def load_index(path: Path) -> Index:
    """Read an index written by save_index; its digest equals that of the saved one, wherever the CSV is.

    Raises:
        DataError: As for build_index.
    """
    return build_index(path, check=False)


def _cells(record: Record, folder: Path, *, inside: bool = False) -> list[str | None]:
    """Return the cells after ``image``. With ``inside``, only mask paths below ``folder`` are relative."""
    mask = None
    if record.mask_path is not None:
        mask = _name_in(record.mask_path, folder) if inside else name_of(record.mask_path, folder)
        if not inside and record.mask_path.anchor == folder.anchor:
            mask = Path(os.path.relpath(record.mask_path, folder)).as_posix()
    return [mask, record.label, record.group, record.source, record.split]


def _name_in(path: Path, folder: Path) -> str:
    """Return a path as a table in ``folder`` names it, also where the name has white space around it."""
    if address := address_of(path):
        return address
    name = name_of(path, folder)
    name = f"./{name}" if name != name.lstrip() else name
    return f"{name}/." if name != name.rstrip() else name


def _targets(record: Record, folder: Path) -> list[str | None]:
    """Return the cells ``region`` and ``boxes``, which are not part of the digest since training does not use them."""
    region = _name_in(record.region_path, folder) if record.region_path is not None else None
    return [region, json.dumps(record.boxes) if record.boxes else None]


def _other_columns(records: Sequence[Record]) -> list[str]:
    """Return the names of the columns after COLUMNS, in the order of their first use."""
    second = [any(r.second_label for r in records), any(r.second_mask_path for r in records)]
    named = {name: None for record in records for name, _ in record.columns}
    return [*(name for name, used in zip(SECOND_READER, second, strict=True) if used), *named]


def table_of(data: Path) -> Path | None:
    """Return the CSV of a dataset, or None for a folder of class folders without one.

    Raises:
        DataError: ``data`` is neither a CSV file nor a folder.
    """
    if data.is_file():
        if data.suffix.lower() == ".csv":
            return data
        raise DataError(f"'{data}' is not a folder or a CSV file.", hint=LAYOUT)
    if not data.is_dir():
        raise DataError(f"Dataset '{data}' does not exist.", hint="Name a folder of class folders, or a CSV.")
    table = data / TABLE_NAME
    return table if table.is_file() and "image" in read_rows(table)[0] else None


def _of_table_in_folder(table: Path, records: Sequence[Record]) -> list[Finding]:
    """Report that the folder's CSV is used, and which images it does not list."""
    findings = [Finding("index_source", "info", f"The index is read from {table.name}, not from the folders.")]
    folder = table.parent.resolve()
    listed = {path for each in records for path in _files_of(each)}
    others = [path for path in walk_images(folder, defaultdict(list)) if path not in listed]
    if others:
        hits = [(name_of(path, folder), "") for path in others]
        findings.append(gather("unlisted_image", "info", hits, f"images are not in {table.name} and are not used"))
    return findings


def _files_of(record: Record) -> tuple[Path | None, ...]:
    return record.image_path, record.mask_path, record.region_path, record.second_mask_path


def _scan_folders(data: Path, asked: Sequence[str]) -> tuple[list[Record], list[Finding]]:
    folders = sorted(child for child in data.iterdir() if child.is_dir() and not child.name.startswith("."))
    skipped: Skipped = defaultdict(list)
    names = {folder.name.lower() for folder in folders}
    loose = images_in(data, skipped, names)
    if names and names <= _SPLIT_FOLDERS:
        raise DataError(
            f"The folders of '{data}' are splits ({', '.join(folder.name for folder in folders)}), not classes.",
            hint="List the images in a CSV with the columns `image`, `label` and `split`.",
        )
    if not folders or names <= {"images", "masks"}:
        got = f", only {len(loose)} images" if loose else ""
        raise DataError(f"No class folders found in '{data}'{got}.", hint=LAYOUT)
    records: list[Record] = []
    findings: list[Finding] = []
    empty: list[str] = []
    for folder in folders:
        found, odd, beside = _scan_class(folder, data, skipped)
        records += found
        findings += odd
        loose += beside
        if not found:
            empty.append(folder.name)
    passed_over = findings_of(skipped, data)
    if not records:
        reasons = " ".join(finding.message for finding in passed_over)
        raise DataError(f"No images found in the class folders of '{data}'. {reasons}".strip(), hint=LAYOUT)
    if lost := [name for name in empty if name in asked]:
        raise DataError(f"No images found in the class folder {lost[0]} of '{data}'.", hint=LAYOUT)
    if empty:
        findings.append(gather("empty_class", "warning", [(name, "") for name in empty], "folders contain no images"))
    if loose:
        hits = [(name_of(path, data), "") for path in loose]
        findings.append(gather("loose_image", "warning", hits, "images are outside the class folders and are not used"))
    named = [record for record in records if _is_utf8(name_of(record.image_path, data))]
    if len(named) < len(records):  # result tables are UTF-8
        hits = [(name, "") for record in records if not _is_utf8(name := name_of(record.image_path, data))]
        text = "images have names that are not UTF-8 and are left out; rename them"
        findings.append(gather("undecodable_name", "error", hits, text))
    return named, findings + passed_over


def _scan_class(folder: Path, data: Path, skipped: Skipped) -> tuple[list[Record], list[Finding], list[Path]]:
    """Return the records of a class folder, findings about its masks, and images next to its ``images/``."""
    inner = {child.name.lower(): child for child in sorted(folder.iterdir()) if child.is_dir()}
    images = images_in(folder, skipped, ("images", "masks", "regions"))
    beside: list[Path] = []
    if "images" in inner:
        beside, images = images, images_in(inner["images"], skipped)
    mask_files = images_in(inner["masks"], skipped) if "masks" in inner else []
    masks: dict[str, Path] = {}
    twice = [(name_of(path, data), "") for path in mask_files if masks.setdefault(_stem(path), path) != path]
    stems = {_stem(path) for path in images}
    orphans = [(name_of(path, data), "") for path in mask_files if _stem(path) not in stems]
    findings = []
    if twice:
        findings.append(gather("ambiguous_mask", "warning", twice, "masks have the same name as another; not used"))
    if orphans:
        findings.append(gather("mask_without_image", "warning", orphans, "masks have no image of the same name"))
    label = folder.name.strip() or folder.name  # as the cells of a table are read
    return [Record(path, masks.get(_stem(path)), label) for path in images], findings, beside


def _stem(path: Path) -> str:
    """Return the file name without an image suffix; the last component of a UID is not a suffix."""
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _select(records: Sequence[Record], classes: Sequence[str] | None) -> tuple[list[Record], dict[str, int]]:
    if classes is None:
        return list(records), {}
    known = class_names_of(records)
    if unknown := [name for name in classes if name not in known]:
        raise DataError(f"Unknown class {', '.join(unknown)}.", hint=f"The dataset has the classes {', '.join(known)}.")
    chosen = [record for record in records if record.label is None or record.label in classes]
    others = Counter(record.label for record in records if record.label is not None and record.label not in classes)
    return chosen, dict(sorted(others.items()))


def _draw(records: Sequence[Record], limit: int, seed: int) -> list[Record]:
    """Return at most ``limit`` records, whole groups in random order, in the order that they had."""
    groups: dict[str | Path, list[int]] = defaultdict(list)
    for position, record in enumerate(records):
        groups[record.group or record.image_path].append(position)
    names = list(groups)
    random.Random(seed).shuffle(names)
    drawn: list[int] = []
    for name in names:
        if len(drawn) + len(groups[name]) <= limit:
            drawn += groups[name]
    return [records[position] for position in sorted(drawn)]


def _common_root(records: Sequence[Record]) -> Path:
    if not records:
        return Path()
    try:
        return Path(os.path.commonpath([record.image_path.parent for record in records]))
    except ValueError:  # different drives have no common path; keys are then absolute
        return Path()
