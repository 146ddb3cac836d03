"""Cache of decoded images and masks, resized to the network's input size, in memory-mapped uint8 arrays.

    FOLDER/<key>/images.npy   (N, S, S) uint8
    FOLDER/<key>/masks.npy    (M, S, S) uint8, 0 or 1, of the M records that have a mask
    FOLDER/<key>.partial/    a build in progress, or an interrupted one, which the next build deletes
    FOLDER/<key>.lock        empty, held by the process that builds
    FOLDER/hashes.json        see hilum.data.hashes

The key is a hash of the PreprocessSpec and the content of every file, so a changed file or spec gives another cache
and a cache is never stale. Folders of old keys may be deleted at any time. The lock prevents two processes from
building the same key at once and is released when its process ends.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from hilum.config import PreprocessSpec
from hilum.data.cache_build import FORMAT_VERSION, IMAGES, MASKS, Job, build
from hilum.data.hashes import hash_files
from hilum.errors import DataError, OutputError
from hilum.storage import sha256_text
from hilum.types import Record

_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True)
class Cache:
    """Decoded images and masks in the order of the records. Pickled as its path, for loader processes.

    Attributes:
        images: (N, S, S) uint8, read-only: the outputs of fit_image.
        masks: (M, S, S) uint8, 0 or 1, read-only: the outputs of fit_mask for the M records with a mask.
        mask_row: (N,) int64, row of each record in ``masks``; -1 without a mask.
        path: The cache's folder.
    """

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    mask_row: NDArray[np.int64]
    path: Path

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickling a memory map would copy all its bytes.
        return _opened, (self.path, self.mask_row, self.images.shape[-1])


def cache_bytes(n_images: int, n_masks: int, spec: PreprocessSpec) -> int:
    """Return the disk space of a cache in bytes."""
    return (n_images + n_masks) * spec.size**2


def open_cache(
    records: Sequence[Record],
    spec: PreprocessSpec,
    folder: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> Cache:
    """Open the cache of the records, or build it if it does not exist, and return it.

    A new cache is renamed into place after all pixels are on the disk (fsync), so an interrupted build is never
    mistaken for a complete one.

    Args:
        records: The N records; their order is part of the key.
        spec: Size and fit of the decoded images.
        folder: Folder of all caches.
        progress: Called with (rows done, total rows) during the build.
        workers: Number of decoding threads; the number of available processors by default.

    Raises:
        DataError: There are no records, or a file changed during the build.
        ReadError: A file cannot be read.
        OutputError: The folder cannot be written, or the disk has too little space.
    """
    if not records:
        raise DataError("There are no records to cache.")
    jobs = _jobs(records, folder, workers)
    mask_row = _mask_rows(records)
    path = folder / _key(jobs, spec)
    cache = _open(path, mask_row, spec.size)
    if cache is None:
        needed = cache_bytes(len(jobs), int(mask_row.max()) + 1, spec)
        with _writing(folder, needed), FileLock(path.with_suffix(".lock")):
            if _open(path, mask_row, spec.size) is None:  # another process may have built it in the meantime
                build(path, jobs, spec, progress, workers)
        cache = _opened(path, mask_row, spec.size)
    return cache


def _open(path: Path, mask_row: NDArray[np.int64], size: int) -> Cache | None:
    """Return the cache, or None if it does not exist or is damaged."""
    try:
        return _opened(path, mask_row, size)
    except (OSError, ValueError):
        return None


def _opened(path: Path, mask_row: NDArray[np.int64], size: int) -> Cache:
    images, masks = (open_memmap(path / name, mode="r") for name in (IMAGES, MASKS))
    for array, rows in ((images, len(mask_row)), (masks, int(mask_row.max()) + 1)):
        if array.shape != (rows, size, size) or array.dtype != np.uint8:
            raise ValueError(f"expected {rows} rows of {size} x {size} uint8, got {array.dtype} {array.shape}")
    return Cache(images, masks, mask_row, path)


def _mask_rows(records: Sequence[Record]) -> NDArray[np.int64]:
    has_mask = np.array([record.mask_path is not None for record in records])
    return np.where(has_mask, np.cumsum(has_mask) - 1, -1).astype(np.int64)


def _jobs(records: Sequence[Record], folder: Path, workers: int | None) -> list[Job]:
    paths = [path for record in records for path in (record.image_path, record.mask_path) if path is not None]
    sha256 = hash_files(paths, folder, workers=workers)
    return [Job(r, sha256[r.image_path], sha256[r.mask_path] if r.mask_path else None) for r in records]


def _key(jobs: Sequence[Job], spec: PreprocessSpec) -> str:
    # Without the number of channels: to_input repeats gray after the cache.
    settings = spec.model_dump(mode="json", exclude={"channels"})
    contents = [[job.image_sha256, job.mask_sha256] for job in jobs]
    return sha256_text(json.dumps([FORMAT_VERSION, settings, contents], sort_keys=True))[:16]


@contextmanager
def _writing(folder: Path, needed: int) -> Iterator[None]:
    """Convert an OSError into an OutputError that names the bytes needed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        full = error.errno in _FULL
        raise OutputError(
            f"Cannot write a cache of {needed:,} bytes to '{folder}': {error.strerror or error}.",
            hint="Free space, or choose another cache folder with HILUM_CACHE."
            if full
            else "Choose another cache folder with HILUM_CACHE.",
        ) from error
