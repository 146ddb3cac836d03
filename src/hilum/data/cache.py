"""Decode once: images and masks, fitted into the square, in memory-mapped uint8 arrays.

    FOLDER/<key>/images.u8    (N, S, S) uint8, C order, no header
    FOLDER/<key>/masks.u8     (M, S, S) uint8, 0 or 1, of the M records that have a mask
    FOLDER/<key>/cache.json   what it was built from
    FOLDER/<key>.partial/     a build under way or interrupted; done.u8 marks the rows that are on the disk
    FOLDER/<key>.lock         held by the process that builds, empty
    FOLDER/hashes.json        see hilum.data.hashes

The key is a hash over the PreprocessSpec and the content of every file, so a changed file or spec is another
cache and a cache is never stale. Folders of old keys may be deleted at any time. Two processes cannot build the
same key at once: the lock is the operating system's (flock), which dies with its holder, so none can be stale.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.config import PreprocessSpec
from hilum.data.cache_build import FORMAT_VERSION, Job, build
from hilum.data.hashes import hash_files
from hilum.errors import DataError, OutputError
from hilum.storage import sha256_text
from hilum.types import Record

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True)
class Cache:
    """Decoded records, row by row in the order of the records. Pickled by its path, for loader processes.

    Attributes:
        images: (N, S, S) uint8, read-only: the outputs of fit_image.
        masks: (M, S, S) uint8, 0 or 1, read-only: the outputs of fit_mask.
        mask_row: (N,) int64, the record's row in ``masks``, -1 where it has no mask.
        path: the cache's folder.
    """

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    mask_row: NDArray[np.int64]
    path: Path

    def __reduce__(self) -> tuple[Any, ...]:
        # A memory map pickles as a copy of all its bytes; its path is enough.
        return _open, (self.path, self.mask_row, self.images.shape[-1])


def cache_folder() -> Path:
    """Where decoded images are kept: ``$HILUM_CACHE``, else ``hilum`` in the user's cache folder."""
    if own := os.environ.get("HILUM_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hilum"


def cache_bytes(n_images: int, n_masks: int, spec: PreprocessSpec) -> int:
    """What a cache takes on the disk, in bytes."""
    return (n_images + n_masks) * spec.size**2


def open_cache(
    records: Sequence[Record],
    spec: PreprocessSpec,
    folder: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> Cache:
    """Open the cache of these records, building it, or going on with an interrupted build, where it is absent.

    A row is marked as done only after its pixels are on the disk (fsync), and the cache becomes visible by a
    rename at the end: a build killed at any instant goes on where it stopped, and no unfinished row is trusted.

    Args:
        records: one row each; their order matters.
        spec: how they are fitted into the square.
        folder: holds any number of caches.
        progress: called with (rows done, rows in all) while building.
        workers: decoding threads; the number of processors by default.

    Raises:
        DataError: there are no records, or a file changed while the cache was built.
        ReadError: a file cannot be read; it is named.
        OutputError: the folder cannot be written or the disk is too small; the bytes needed are named.
    """
    if not records:
        raise DataError("Expected records to cache, got none.")
    jobs = _jobs(records, folder, workers)
    mask_row = _mask_rows(records)
    path = folder / _key(jobs, spec)
    n_masks = int(mask_row.max()) + 1
    if not _is_complete(path, len(jobs), n_masks, spec):
        with _writing(folder, cache_bytes(len(jobs), n_masks, spec)), _locked(path.with_suffix(".lock")):
            if not _is_complete(path, len(jobs), n_masks, spec):  # another process may have built it meanwhile
                build(path, jobs, mask_row, spec, progress, workers)
    return _open(path, mask_row, spec.size)


def _open(path: Path, mask_row: NDArray[np.int64], size: int) -> Cache:
    n_masks = int(mask_row.max()) + 1
    images = np.memmap(path / "images.u8", np.uint8, "r", shape=(len(mask_row), size, size))
    if not n_masks:  # an empty file cannot be mapped
        return Cache(images, np.zeros((0, size, size), np.uint8), mask_row, path)
    return Cache(images, np.memmap(path / "masks.u8", np.uint8, "r", shape=(n_masks, size, size)), mask_row, path)


def _mask_rows(records: Sequence[Record]) -> NDArray[np.int64]:
    has_mask = np.array([record.mask_path is not None for record in records])
    return np.where(has_mask, np.cumsum(has_mask) - 1, -1).astype(np.int64)


def _jobs(records: Sequence[Record], folder: Path, workers: int | None) -> list[Job]:
    paths = [path for record in records for path in (record.image_path, record.mask_path) if path is not None]
    sha256 = hash_files(paths, folder, workers=workers)
    return [Job(r, sha256[r.image_path], sha256[r.mask_path] if r.mask_path else None) for r in records]


def _key(jobs: Sequence[Job], spec: PreprocessSpec) -> str:
    # The number of channels is left out: gray is repeated after the cache, in to_input.
    settings = spec.model_dump(mode="json", exclude={"channels"})
    contents = [[job.image_sha256, job.mask_sha256] for job in jobs]
    return sha256_text(json.dumps([FORMAT_VERSION, settings, contents], sort_keys=True))[:16]


def _is_complete(path: Path, n_images: int, n_masks: int, spec: PreprocessSpec) -> bool:
    expected = {"images.u8": n_images * spec.size**2, "masks.u8": n_masks * spec.size**2}
    try:
        return all((path / name).stat().st_size == size for name, size in expected.items())
    except (FileNotFoundError, NotADirectoryError):
        return False


@contextmanager
def _writing(folder: Path, needed: int) -> Iterator[None]:
    """Turn what the operating system says into an OutputError that names the bytes needed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        full = error.errno in _FULL
        raise OutputError(
            f"Expected room for a cache of {needed:,} bytes in {folder}, got: {error.strerror or error}.",
            hint="Free space, or choose another cache folder." if full else "Choose another cache folder.",
        ) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the file's lock; wait while another process holds it."""
    with path.open("a+b") as stream:
        if sys.platform == "win32":
            msvcrt.locking(stream.fileno(), msvcrt.LK_LOCK, 1)
        else:
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
