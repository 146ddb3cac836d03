"""Find the images in folders, by suffix or by content, and account for everything that is passed over.

How an image is decoded is the matter of ``hilum.imaging.read``; what class it is of, that of ``hilum.data.index``.
"""

from __future__ import annotations

import glob
import os
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple, TypeAlias, overload

from hilum.data.integrity import gather, name_of
from hilum.errors import DataError
from hilum.imaging.read import IMAGE_SUFFIXES, SNIFFED_BYTES, sniff
from hilum.types import Finding, Severity

TABLE = "predictions.csv"
PARTIAL = "predictions.partial.csv"
PARQUET_TABLE = "predictions.parquet"
_TABLES = (TABLE, PARTIAL, PARQUET_TABLE)
IMAGE_FOLDERS = ("overlays", "masks", "evidence")
DICOM_FOLDER = "dicom"
DICOM_SUFFIXES = {"seg": ".seg.dcm", "sr": ".sr.dcm"}
"""What a folder prediction writes, which the next one must not take for its inputs."""

_REASONS: Mapping[str, tuple[Severity, str]] = {
    "not_image": ("info", "files are not images"),
    "dicomdir": ("info", "files are DICOM directories (DICOMDIR), which hold no pixels"),
    "masks": ("info", "files are masks beside images/"),
    "outputs": ("info", "files are from an earlier prediction"),
    "hidden": ("info", "files or folders are hidden"),
    "nested_folder": ("warning", "folders inside class folders are not searched"),
    "linked_folder": ("warning", "links to folders are not followed"),
    "not_file": ("warning", "entries are broken links or not regular files"),
    "unreadable": ("warning", "files or folders cannot be opened"),
}
_MASK_FOLDERS = frozenset({"masks", "regions"})
_SUFFIXES = tuple(IMAGE_SUFFIXES)

Skipped: TypeAlias = "defaultdict[str, list[str]]"
"""The paths passed over, by a reason of _REASONS."""


@dataclass(frozen=True)
class FoundImages(Sequence[Path]):
    """The images found, as a sequence of paths, and what was passed over.

    Attributes:
        paths: each image once, in the order of the inputs, those of a folder sorted.
        skipped: one Finding per reason; its ``records`` name everything that was passed over for it. The reasons are
            ``not_image``, ``dicomdir``, ``masks`` (beside ``images/``), ``outputs`` (of an earlier prediction),
            ``hidden``, ``linked_folder``, ``not_file`` and ``unreadable``. A hidden, linked or unreadable folder
            counts as one.
    """

    paths: tuple[Path, ...]
    skipped: tuple[Finding, ...] = ()

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Path, ...]: ...
    def __getitem__(self, index: int | slice) -> Path | tuple[Path, ...]:
        return self.paths[index]

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[Path]:
        return iter(self.paths)


def find_images(inputs: str | Path | Iterable[str | Path]) -> FoundImages:
    """Find the images that files, folders and patterns name.

    A folder is searched at every depth. A file in it is an image if its suffix is one of IMAGE_SUFFIXES or, with any
    other suffix or none, if its first bytes are those of DICOM, PNG, JPEG, WebP, BMP or TIFF. A file that is named,
    or that a pattern matches, is taken whatever it is, so that predicting on it says what is wrong with it. A pattern
    may use ``*``, ``?``, ``[..]`` and ``**``.

    Raises:
        DataError: an input is empty, names nothing, cannot be opened, or is a folder without images.
    """
    skipped: Skipped = defaultdict(list)
    found: dict[Path, Path] = {}
    for item in [inputs] if isinstance(inputs, (str, Path)) else inputs:
        if not str(item):
            raise DataError("The name of an input is empty.", hint="Name a file, a folder or a pattern.")
        here: Skipped = defaultdict(list)
        files = _expand(item, here)
        if not files:
            reasons = " ".join(finding.message for finding in findings_of(here, Path(item)))
            raise DataError(
                f"No images found in '{item}'. {reasons}".strip(),
                hint=f"Name a file, a folder or a pattern. Supported: DICOM, {', '.join(sorted(_SUFFIXES))}.",
            )
        for reason, paths in here.items():
            skipped[reason] += paths
        for file in files:
            found.setdefault(absolute_path(file), file)
    return FoundImages(tuple(found.values()), tuple(findings_of(skipped)))


def sample_files(files: Sequence[Path], count: int, seed: int = 0) -> list[Path]:
    """Draw ``count`` of the files at random, a function of the seed, in the order they had; all if there are fewer."""
    if count >= len(files):
        return list(files)
    chosen = sorted(random.Random(seed).sample(range(len(files)), count))
    return [files[position] for position in chosen]


def images_in(folder: Path, skipped: Skipped, known: Iterable[str] = ()) -> list[Path]:
    """Return the images that lie directly in a folder, sorted; what is passed over is added to ``skipped``.

    Args:
        folder: the folder.
        skipped: grows.
        known: the names, in lower case, of folders inside it that the caller searches.

    Raises:
        OSError: the folder cannot be read.
    """
    images = []
    for entry in _entries(folder):
        if entry.name.startswith("."):
            reason: str | None = "hidden"
        elif _is_folder(entry):
            if entry.name.lower() in known:
                continue
            reason = "nested_folder"
        else:
            reason = _why_not(entry)
        if reason is None:
            images.append(Path(entry.path))
        else:
            skipped[reason].append(entry.path)
    return images


def walk_images(root: Path, skipped: Skipped) -> Iterator[Path]:
    """Yield the images below a folder, in the order of their paths; what is passed over is added to ``skipped``.

    Raises:
        OSError: the folder itself cannot be read.
    """
    stack = [_open(root, None, False)]  # not a recursion: a path may be deeper than Python's stack
    while stack:
        here = stack[-1]
        entry = next(here.entries, None)
        if entry is None:
            stack.pop()
            continue
        if entry.name.startswith("."):
            reason: str | None = "hidden"
        elif not _is_folder(entry):
            reason = here.reason or ("outputs" if _is_output(here, entry.name) else _why_not(entry))
        elif entry.is_symlink():
            reason = "linked_folder"
        else:
            try:
                stack.append(_open_below(here, entry))
                continue
            except OSError:
                reason = "unreadable"
        if reason is None:
            yield Path(entry.path)
        else:
            skipped[reason].append(entry.path)


def findings_of(skipped: Mapping[str, Sequence[str]], root: Path | None = None) -> list[Finding]:
    """Return a Finding for each reason for which files were passed over; names are relative to ``root``."""
    return [
        gather(reason, severity, [(name_of(Path(path), root), "") for path in skipped[reason]], text)
        for reason, (severity, text) in _REASONS.items()
        if skipped.get(reason)
    ]


def absolute_path(file: Path) -> Path:
    """Return the absolute path without ``..``; links keep their names, unlike those of Path.resolve."""
    return Path(os.path.normpath(file.absolute()))


class _Folder(NamedTuple):
    entries: Iterator[os.DirEntry[str]]
    reason: str | None  # why all files in it and below are passed over
    has_images: bool
    has_table: bool
    holds_objects: bool  # the DICOM objects of an earlier prediction


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=attrgetter("name"))


def _open(folder: Path | str, reason: str | None, holds_objects: bool) -> _Folder:
    entries = _entries(folder)
    has_images = any(entry.name.lower() == "images" and _is_folder(entry) for entry in entries)
    has_table = any(entry.name in _TABLES and not _is_folder(entry) for entry in entries)
    return _Folder(iter(entries), reason, has_images, has_table, holds_objects)


def _open_below(parent: _Folder, entry: os.DirEntry[str]) -> _Folder:
    reason = parent.reason
    if parent.has_table and entry.name in IMAGE_FOLDERS:
        reason = reason or "outputs"
    elif parent.has_images and entry.name.lower() in _MASK_FOLDERS:
        reason = reason or "masks"
    holds_objects = parent.holds_objects or (parent.has_table and entry.name == DICOM_FOLDER)
    return _open(entry.path, reason, holds_objects)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle, or where nobody may look; opening it as a file says so
        return False


def _is_output(folder: _Folder, name: str) -> bool:
    """A table, or one of the DICOM objects; by name too, for radiographs may well lie in a folder ``dicom``."""
    return name in _TABLES or (folder.holds_objects and name.endswith(tuple(DICOM_SUFFIXES.values())))


def _why_not(entry: os.DirEntry[str]) -> str | None:
    """Return why a file is not an image; None where it is one."""
    try:
        if not entry.is_file():  # a pipe would block, a device never end
            return "not_file"
        if entry.name.lower().endswith(_SUFFIXES):
            return None
        with open(entry.path, "rb", buffering=0) as stream:  # noqa: PTH123  # Path takes half the time of a large folder
            head = stream.read(SNIFFED_BYTES)
    except OSError:
        return "unreadable"
    if sniff(head) is None:
        return "not_image"
    return "dicomdir" if entry.name.upper().startswith("DICOMDIR") else None


def _expand(item: str | Path, skipped: Skipped) -> list[Path]:
    path = Path(item)
    try:
        if path.is_dir():
            return list(walk_images(path, skipped))
        if path.exists():
            return [path]
    except OSError as error:
        raise DataError(
            f"Could not open '{item}': {error.strerror or error}.", hint="Check its name and permissions."
        ) from error
    matches = sorted(glob.glob(str(item), recursive=True))  # noqa: PTH207  # Path.glob takes no absolute pattern
    found: dict[Path, None] = {}
    for path in map(Path, matches):
        if path.is_dir():
            found |= dict.fromkeys(walk_images(path, skipped))
        elif path.is_file():
            found[path] = None
        else:
            skipped["not_file"].append(str(path))
    return list(found)
