"""Find images in folders by suffix or content, and report every file that is skipped.

Decoding is in ``hilum.imaging.read``; classes and masks are assigned in ``hilum.data.index``.
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
from typing import NamedTuple, TypeAlias, TypeVar, overload

from hilum.data.integrity import gather, name_of
from hilum.errors import DataError
from hilum.imaging.read import IMAGE_SUFFIXES, SNIFFED_BYTES, sniff
from hilum.types import Finding, Severity

TABLE = "predictions.csv"
PARTIAL = "predictions.partial.csv"
TABLE_NAME = "metadata.csv"
"""Table that a dataset's folder may contain."""
PARQUET_TABLE = "predictions.parquet"
RUN_MANIFEST = "predictions.json"
_TABLES = (TABLE, PARTIAL, PARQUET_TABLE)
IMAGE_FOLDERS = ("overlays", "masks", "evidence")
DICOM_FOLDER = "dicom"
DICOM_SUFFIXES = {"seg": ".seg.dcm", "sr": ".sr.dcm", "sc": ".sc.dcm", "pr": ".pr.dcm"}
"""Output of a folder prediction, which must not be used as input of the next one."""

_REASONS: Mapping[str, tuple[Severity, str]] = {
    "not_image": ("info", "files are not images"),
    "dicomdir": ("info", "files are DICOM directories (DICOMDIR), which hold no pixels"),
    "masks": ("info", "files are masks next to images/"),
    "outputs": ("info", "files are from an earlier prediction"),
    "hidden": ("info", "files or folders are hidden"),
    "nested_folder": ("warning", "folders inside class folders are not searched"),
    "linked_folder": ("warning", "links to folders are not followed"),
    "not_file": ("warning", "entries are broken links or not regular files"),
    "unreadable": ("warning", "files or folders cannot be opened"),
}
_MASK_FOLDERS = frozenset({"masks", "regions"})
_SUFFIXES = tuple(IMAGE_SUFFIXES)

File = TypeVar("File")
Skipped: TypeAlias = "defaultdict[str, list[str]]"
"""Skipped paths by reason, a key of _REASONS."""


@dataclass(frozen=True)
class FoundImages(Sequence[Path]):
    """The images found, as a sequence of paths, and the files skipped.

    Attributes:
        paths: Each image once, in the order of the inputs; images of a folder are sorted.
        skipped: One Finding per reason, whose ``records`` name all files skipped for it. The reasons are
            ``not_image``, ``dicomdir``, ``masks`` (next to ``images/``), ``outputs`` (of an earlier prediction),
            ``hidden``, ``linked_folder``, ``not_file`` and ``unreadable``. A hidden, linked or unreadable folder
            counts as one file.
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
    """Find the images named by files, folders and glob patterns.

    Folders are searched recursively. A file in a folder is an image if its suffix is one of IMAGE_SUFFIXES or if its
    first bytes are those of DICOM, PNG, JPEG, WebP, BMP or TIFF. Files that are named, or matched by a pattern, are
    always included, so that a prediction reports what is wrong with them.

    Args:
        inputs: One or several files, folders or patterns with ``*``, ``?``, ``[..]`` and ``**``.

    Returns:
        The paths, each once, and the files skipped.

    Raises:
        DataError: An input is empty, does not exist, cannot be opened, or is a folder without images.
    """
    skipped: Skipped = defaultdict(list)
    found: dict[Path, Path] = {}
    for item in [inputs] if isinstance(inputs, (str, Path)) else inputs:
        if not str(item):
            raise DataError("An input path is empty.", hint="Name a file, a folder or a glob pattern.")
        here: Skipped = defaultdict(list)
        files = _expand(item, here)
        if not files:
            if not glob.has_magic(str(item)) and not Path(item).exists():
                raise DataError(f"'{item}' does not exist.", hint="Check the path.")
            reasons = " ".join(finding.message for finding in findings_of(here, Path(item)))
            raise DataError(
                f"No images found in '{item}'. {reasons}".strip(),
                hint=f"Supported types: DICOM, {', '.join(sorted(_SUFFIXES))}.",
            )
        for reason, paths in here.items():
            skipped[reason] += paths
        for file in files:
            found.setdefault(absolute_path(file), file)
    return FoundImages(tuple(found.values()), tuple(findings_of(skipped)))


def sample_files(files: Sequence[File], count: int, seed: int = 0) -> list[File]:
    """Return a random sample of ``count`` files in their original order, or all files if there are fewer.

    Args:
        files: The files to draw from.
        count: Size of the sample.
        seed: Random seed; the same files and seed give the same sample.
    """
    if count >= len(files):
        return list(files)
    chosen = sorted(random.Random(seed).sample(range(len(files)), count))
    return [files[position] for position in chosen]


def images_in(folder: Path, skipped: Skipped, known: Iterable[str] = ()) -> list[Path]:
    """Return the images directly in a folder, sorted by path.

    Args:
        folder: The folder.
        skipped: Receives the skipped paths.
        known: Lower-case names of subfolders that the caller searches.

    Raises:
        OSError: The folder cannot be read.
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
    """Iterate over the images in a folder and its subfolders, sorted by path.

    Args:
        root: The folder.
        skipped: Receives the skipped paths.

    Raises:
        OSError: The folder itself cannot be read.
    """
    return _walk(_open(root, None, False), skipped)


def _walk(root: _Folder, skipped: Skipped) -> Iterator[Path]:
    stack = [root]  # no recursion: paths may be deeper than Python's stack
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
    """Return one Finding per reason for which files were skipped, with paths relative to ``root``."""
    return [
        gather(reason, severity, [(name_of(Path(path), root), "") for path in skipped[reason]], text)
        for reason, (severity, text) in _REASONS.items()
        if skipped.get(reason)
    ]


def absolute_path(file: Path) -> Path:
    """Return the absolute path without ``..``. Unlike Path.resolve, it does not resolve symbolic links."""
    return Path(os.path.normpath(file.absolute()))


class _Folder(NamedTuple):
    entries: Iterator[os.DirEntry[str]]
    reason: str | None  # why all files in it and below are skipped
    has_images: bool
    has_table: bool
    holds_objects: bool  # the DICOM objects of an earlier prediction


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=attrgetter("name"))


def _open(folder: Path | str, reason: str | None, holds_objects: bool) -> _Folder:
    entries = _entries(folder)
    has_images = any(entry.name.lower() == "images" and _is_folder(entry) for entry in entries)
    has_table = any(
        entry.name in _TABLES and (entry.name == PARQUET_TABLE or not _is_folder(entry)) for entry in entries
    )
    return _Folder(iter(entries), reason, has_images, has_table, holds_objects)


def _open_below(parent: _Folder, entry: os.DirEntry[str] | Path) -> _Folder:
    reason = parent.reason
    if parent.has_table and entry.name in (*IMAGE_FOLDERS, PARQUET_TABLE):
        reason = reason or "outputs"
    elif parent.has_images and entry.name.lower() in _MASK_FOLDERS:
        reason = reason or "masks"
    holds_objects = parent.holds_objects or (parent.has_table and entry.name == DICOM_FOLDER)
    return _open(os.fspath(entry), reason, holds_objects)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circular link or missing permissions; reported when it is opened as a file
        return False


def _is_output(folder: _Folder, name: str) -> bool:
    """Return whether a file is a prediction table or DICOM object; ``dicom`` folders may hold radiographs as well."""
    return name in (*_TABLES, RUN_MANIFEST) or (folder.holds_objects and name.endswith(tuple(DICOM_SUFFIXES.values())))


def _why_not(entry: os.DirEntry[str]) -> str | None:
    """Return the reason why a file is not an image; None if it is one."""
    try:
        if not entry.is_file():  # reading a pipe or a device could block
            return "not_file"
        if entry.name.lower().endswith(_SUFFIXES):
            return None
        with open(entry.path, "rb", buffering=0) as stream:  # noqa: PTH123  # Path is slow in large folders
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
            f"Cannot open '{item}': {error.strerror or error}.", hint="Check the path and its permissions."
        ) from error
    matches = sorted(glob.glob(str(item), recursive=True))  # noqa: PTH207  # Path.glob rejects absolute patterns
    found: dict[Path, None] = {}
    for path in map(Path, matches):
        if path.is_dir():
            try:
                folder = _open_below(_open(path.parent, None, False), path)
            except OSError:
                skipped["unreadable"].append(str(path))
            else:
                found |= dict.fromkeys(_walk(folder, skipped))
        elif path.is_file():
            found[path] = None
        else:
            skipped["not_file"].append(str(path))
    return list(found)
