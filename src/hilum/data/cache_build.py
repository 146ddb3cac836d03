"""Build a cache from decoded records. Called only by hilum.data.cache, which names and locks it."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeAlias

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from hilum.config import PreprocessSpec
from hilum.cpus import available_cpus
from hilum.errors import DataError, ReadError
from hilum.imaging.preprocess import fit_image, fit_mask
from hilum.imaging.read import read_mask, read_radiograph
from hilum.types import Record

FORMAT_VERSION = 2
"""Increment this when fit_image, fit_mask or the layout changes, so that old caches are no longer found."""

IMAGES, MASKS = "images.npy", "masks.npy"

_CHUNK = 256

Row: TypeAlias = "tuple[NDArray[np.uint8], NDArray[np.uint8] | None]"


class Job(NamedTuple):
    """One row to decode: the record, and the hashes of its files that the key contains."""

    record: Record
    image_sha256: str
    mask_sha256: str | None


def build(
    path: Path,
    jobs: Sequence[Job],
    spec: PreprocessSpec,
    progress: Callable[[int, int], None] | None,
    workers: int | None,
) -> None:
    """Build the cache at ``path`` completely or not at all. The caller holds the lock.

    Args:
        path: Folder of the cache, renamed into place at the end.
        jobs: The N rows to decode.
        spec: Size and fit of the decoded images.
        progress: Called with (rows done, N).
        workers: Number of decoding threads; the number of available processors by default.

    Raises:
        ReadError: A file cannot be read.
        DataError: A file changed since it was hashed.
        OSError: The disk is full (checked before the start where possible), or cannot be written.
    """
    partial = path.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)  # an interrupted build
    partial.mkdir()
    try:
        _fill(partial, jobs, spec, progress, workers)
        shutil.rmtree(path, ignore_errors=True)  # a damaged one, or nothing
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _fill(
    folder: Path,
    jobs: Sequence[Job],
    spec: PreprocessSpec,
    progress: Callable[[int, int], None] | None,
    workers: int | None,
) -> None:
    n_masks = sum(job.mask_sha256 is not None for job in jobs)
    _require_space(folder, (len(jobs) + n_masks) * spec.size**2)
    # Not with a memory map: on a full disk it would kill the process by a signal.
    with (folder / IMAGES).open("wb") as images, (folder / MASKS).open("wb") as masks:
        _write_header(images, len(jobs), spec.size)
        _write_header(masks, n_masks, spec.size)
        for done, (image, mask) in enumerate(_decoded(jobs, spec, workers), start=1):
            images.write(image.tobytes())
            if mask is not None:
                masks.write(mask.tobytes())
            if progress:
                progress(done, len(jobs))
        for stream in (images, masks):
            stream.flush()
            os.fsync(stream.fileno())


def _write_header(stream: BinaryIO, rows: int, size: int) -> None:
    npy.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": (rows, size, size)})


def _decoded(jobs: Sequence[Job], spec: PreprocessSpec, workers: int | None) -> Iterator[Row]:
    """Decode in threads, one chunk ahead of writing, with bounded memory."""

    def decode(job: Job) -> Row:
        return _decode(job, spec)

    chunks = [jobs[start : start + _CHUNK] for start in range(0, len(jobs), _CHUNK)]
    with ThreadPoolExecutor(workers or available_cpus()) as pool:
        ahead = pool.map(decode, chunks[0])
        for following in [*chunks[1:], []]:
            current, ahead = ahead, pool.map(decode, following)
            yield from current


def _decode(job: Job, spec: PreprocessSpec) -> Row:
    image_path, mask_path = job.record.image_path, job.record.mask_path
    radiograph = read_radiograph(_read_unchanged(image_path, job.image_sha256), origin=str(image_path))
    if mask_path is None or job.mask_sha256 is None:
        return fit_image(radiograph, spec), None
    try:
        mask = read_mask(_read_unchanged(mask_path, job.mask_sha256))
    except ReadError as error:
        raise ReadError(f"{mask_path}: {error.message}", hint=error.hint) from error
    return fit_image(radiograph, spec), fit_mask(mask, spec, pixel_aspect=radiograph.pixel_aspect).astype(np.uint8)


def _read_unchanged(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ReadError(f"Cannot read '{path}': {error.strerror}.", hint="Index the dataset again.") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(f"'{path}' changed while the cache was built.", hint="Run the command again.")
    return content


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"{free:,} bytes are free")
