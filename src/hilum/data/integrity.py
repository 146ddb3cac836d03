"""Check the files of a dataset in one pass. A bad file yields a finding, not an exception."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from hilum.cpus import available_cpus
from hilum.errors import ReadError
from hilum.imaging.preprocess import MASK_THRESHOLD
from hilum.imaging.read import mask_levels, read_radiograph
from hilum.storage import sha256_file
from hilum.types import Finding, Record, Severity

ASPECT_TOLERANCE = 0.01
"""Maximum relative difference between the aspect ratios (W / H) of a mask and its image."""

_NAMES_SHOWN = 3
_LONGEST_NAME = 400  # characters of a name in a message


class _Rule(NamedTuple):
    severity: Severity
    drops: Literal["record", "mask", "region", "second_mask", "nothing"]
    text: str


RULES = {
    "empty_file": _Rule("error", "record", "images are empty files and are left out"),
    "unreadable_image": _Rule("error", "record", "images cannot be read and are left out"),
    "constant_image": _Rule("error", "record", "images have a single gray level and are left out"),
    "unreadable_mask": _Rule("warning", "mask", "masks cannot be read and are not used"),
    "mask_aspect": _Rule(
        "warning", "mask", f"masks differ from their image's aspect ratio by over {ASPECT_TOLERANCE:.0%}; not used"
    ),
    "empty_mask": _Rule("warning", "mask", f"masks have no pixel above {MASK_THRESHOLD} and are not used"),
    "non_binary_mask": _Rule(
        "warning", "nothing", f"masks have values other than 0 and 255; values above {MASK_THRESHOLD} count as lung"
    ),
    "unreadable_region": _Rule("warning", "region", "regions cannot be read and are not used"),
    "region_aspect": _Rule(
        "warning", "region", f"regions differ from their image's aspect ratio by over {ASPECT_TOLERANCE:.0%}; not used"
    ),
    "unreadable_second_mask": _Rule("warning", "second_mask", "second masks cannot be read and are not used"),
    "second_mask_aspect": _Rule(
        "warning",
        "second_mask",
        f"second masks differ from their image's aspect ratio by over {ASPECT_TOLERANCE:.0%}; not used",
    ),
    "empty_second_mask": _Rule(
        "warning", "second_mask", f"second masks have no pixel above {MASK_THRESHOLD} and are not used"
    ),
    "mask_size": _Rule("info", "nothing", "masks have another size than their image, with the same aspect ratio"),
}


_SECOND = {
    "unreadable_mask": "unreadable_second_mask",
    "mask_aspect": "second_mask_aspect",
    "empty_mask": "empty_second_mask",
}
"""Check of a mask to that of a second mask; the others say nothing about a second one."""

_OPTIONAL = ("mask", "region", "second_mask")
"""Files of a record other than its image, as they are named in Record without ``_path``."""


class Checked(NamedTuple):
    """The usable records in their original order, and the findings."""

    records: tuple[Record, ...]
    findings: tuple[Finding, ...]


class _Inspection(NamedTuple):
    sha256: str
    problems: tuple[tuple[str, str], ...]  # (check, detail)


def check_records(
    records: Sequence[Record],
    *,
    root: Path | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Checked:
    """Decode every image and mask once, and return the usable records and one Finding per failed check.

    Records whose image is empty, unreadable or constant are left out (severity ``error``). Masks that are unreadable,
    empty or of another aspect ratio are replaced by None (``warning``), and so are regions that are unreadable or of
    another aspect ratio; an empty region is valid. Masks of another size but the same aspect ratio are kept (``info``):
    the COVID-19 Radiography Database has masks of 256 px for images of 299 px.

    Args:
        records: The records to check.
        root: Paths in the findings are relative to this folder.
        workers: Number of decoding threads; the number of available processors by default.
        progress: Called with (records done, total records).
    """
    names = [name_of(record.image_path, root) for record in records]
    hits: dict[str, list[tuple[str, str]]] = defaultdict(list)
    duplicates: dict[str, list[int]] = defaultdict(list)
    kept: list[Record] = []
    with ThreadPoolExecutor(workers or available_cpus()) as pool:
        for row, inspection in enumerate(pool.map(_inspect, records)):
            drops = set()
            for check, detail in inspection.problems:
                hits[check].append((names[row], detail))
                drops.add(RULES[check].drops)
            if "record" not in drops:
                lost: dict[str, None] = {f"{what}_path": None for what in _OPTIONAL if what in drops}
                kept.append(replace(records[row], **lost))  # type: ignore[arg-type]  # all may be None
                duplicates[inspection.sha256].append(row)
            if progress:
                progress(row + 1, len(records))
    findings = [gather(check, rule.severity, hits[check], rule.text) for check, rule in RULES.items() if check in hits]
    same = [[(names[row], records[row]) for row in rows] for rows in duplicates.values() if len(rows) > 1]
    return Checked(tuple(kept), (*findings, *_judge_duplicates(same)))


def drop_absent(records: Sequence[Record], *, root: Path | None = None) -> Checked:
    """Drop records whose image does not exist (``error``), and missing masks and regions (``warning``)."""
    kept: list[Record] = []
    images: list[tuple[str, str]] = []
    absent: dict[str, list[tuple[str, str]]] = {what: [] for what in _OPTIONAL}
    for record in records:
        if not _is_file(record.image_path):
            images.append((name_of(record.image_path, root), ""))
            continue
        lost: dict[str, None] = {}
        for what, hits in absent.items():
            path: Path | None = getattr(record, f"{what}_path")
            if path is not None and not _is_file(path):
                hits.append((name_of(path, root), ""))
                lost[f"{what}_path"] = None
        kept.append(replace(record, **lost) if lost else record)  # type: ignore[arg-type]  # all may be None
    findings = []
    if images:
        findings.append(gather("missing_file", "error", images, "images do not exist and are left out"))
    for what, hits in absent.items():
        if hits:
            text = f"{what.replace('_', ' ')}s do not exist and are not used"
            findings.append(gather(f"missing_{what}", "warning", hits, text))
    return Checked(tuple(kept), tuple(findings))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 80]}...{name[-77:]}"


def gather(check: str, severity: Severity, hits: Iterable[tuple[str, str]], text: str) -> Finding:
    r"""Return one Finding for several files: what is wrong, how many, and the first few names with details.

    Bytes of names that are not valid UTF-8 are written as ``\udcNN``, so that every finding can be printed and stored.

    Args:
        check: Name of the check.
        severity: Severity of the finding.
        hits: Pairs (name, detail) of the files; the detail may be empty.
        text: What is wrong, as a predicate of the files in the plural: ``masks cannot be read``.
    """
    hits = [(name.encode("utf-8", "backslashreplace").decode(), detail) for name, detail in hits]
    shown = [f"{_short(name)} ({detail})" if detail else _short(name) for name, detail in hits[:_NAMES_SHOWN]]
    more = f" and {len(hits) - _NAMES_SHOWN:,} more" if len(hits) > _NAMES_SHOWN else ""
    message = f"{text[0].upper()}{text[1:]} ({len(hits):,}): {', '.join(shown)}{more}."
    return Finding(check, severity, message, tuple(name for name, _ in hits))


def name_of(path: Path, root: Path | None) -> str:
    """Return ``path`` with forward slashes, relative to ``root`` if it is inside it."""
    # String operations, since Path.relative_to takes seconds for tens of thousands of files.
    text = path.as_posix()
    prefix = f"{root.as_posix().rstrip('/')}/" if root is not None else "\0"
    return text[len(prefix) :] if text.startswith(prefix) else text


def _inspect(record: Record) -> _Inspection:
    path = record.image_path
    try:
        if not path.stat().st_size:
            return _Inspection("", (("empty_file", "0 bytes"),))
        pixels = read_radiograph(path).pixels
        digest = sha256_file(path)
    except (OSError, ReadError) as error:
        return _Inspection("", (("unreadable_image", _reason(error, path)),))
    lowest, highest = int(pixels.min()), int(pixels.max())
    if lowest == highest:
        return _Inspection("", (("constant_image", f"every pixel is {lowest}"),))
    height, width = pixels.shape
    problems = _inspect_mask(record.mask_path, (height, width)) if record.mask_path else ()
    if record.region_path is not None:
        problems += _inspect_region(record.region_path, (height, width))
    if record.second_mask_path is not None:
        found = _inspect_mask(record.second_mask_path, (height, width))
        problems += tuple((_SECOND[check], detail) for check, detail in found if check in _SECOND)
    return _Inspection(digest, problems)


def _reason(error: OSError | ReadError, path: Path) -> str:
    text = error.message if isinstance(error, ReadError) else error.strerror or str(error)
    return text.replace(str(path), path.name).rstrip(".")


def _inspect_mask(path: Path, shape: tuple[int, int]) -> tuple[tuple[str, str], ...]:
    try:
        levels = mask_levels(path)
    except ReadError as error:
        return (("unreadable_mask", _reason(error, path)),)
    height, width = levels.shape
    sizes = f"mask {width} x {height}, image {shape[1]} x {shape[0]}"
    if abs(width * shape[0] / (height * shape[1]) - 1) > ASPECT_TOLERANCE:
        return (("mask_aspect", sizes),)
    highest = int(levels.max())
    if highest <= MASK_THRESHOLD:
        return (("empty_mask", f"highest value {highest}"),)
    problems = [("mask_size", sizes)] if (height, width) != shape else []
    between = float(np.mean((levels != 0) & (levels != 255)))
    if between > 0:
        problems.append(("non_binary_mask", f"{between:.2%} of the pixels"))
    return tuple(problems)


def _inspect_region(path: Path, shape: tuple[int, int]) -> tuple[tuple[str, str], ...]:
    try:
        height, width = mask_levels(path).shape
    except ReadError as error:
        return (("unreadable_region", _reason(error, path)),)
    if abs(width * shape[0] / (height * shape[1]) - 1) > ASPECT_TOLERANCE:
        return (("region_aspect", f"region {width} x {height}, image {shape[1]} x {shape[0]}"),)
    return ()


def _judge_duplicates(same: Sequence[Sequence[tuple[str, Record]]]) -> list[Finding]:
    """Report sets of byte-identical images: different labels are conflicts; without a common group they can leak."""
    conflicts: list[tuple[str, str]] = []
    loose: list[tuple[str, str]] = []
    for twins in same:
        labels = {record.label for _, record in twins if record.label is not None}
        groups = {record.group for _, record in twins}
        if len(labels) > 1:
            conflicts.extend((name, str(record.label)) for name, record in twins)
        elif len(groups) > 1 or None in groups:
            loose.extend((name, "") for name, _ in twins)
    findings = []
    if conflicts:
        text = "images are byte-identical but have different labels"
        findings.append(gather("label_conflict", "warning", conflicts, text))
    if loose:
        text = "images are byte-identical copies without a common group and can leak across splits"
        findings.append(gather("duplicate_image", "warning", loose, text))
    return findings
