"""Filling a cache, row by row, so that it can be killed at any instant. Called by hilum.data.cache alone."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hilum.config import PreprocessSpec
from hilum.errors import DataError, ReadError
from hilum.imaging.preprocess import fit_image, fit_mask
from hilum.imaging.read import read_mask, read_radiograph
from hilum.storage import write_json
from hilum.types import Record

FORMAT_VERSION = 1
"""Raise it when fit_image, fit_mask or the layout changes: old caches are then not found."""

_CHUNK = 256

Row: TypeAlias = "tuple[int, NDArray[np.uint8], NDArray[np.uint8] | None]"


class Job(NamedTuple):
    """One row to be: the record and the content it was keyed by."""

    record: Record
    image_sha256: str
    mask_sha256: str | None


def build(
    path: Path,
    jobs: Sequence[Job],
    mask_row: NDArray[np.int64],
    spec: PreprocessSpec,
    progress: Callable[[int, int], None] | None,
    workers: int | None,
) -> None:
    """Build the cache at ``path``, going on from ``path``.partial where there is one. The caller holds the lock.

    Args:
        path: becomes visible at the end, by a rename.
        jobs: N of them, one row each.
        mask_row: (N,) int64, the row of each mask, -1 where there is none.
        spec: how they are fitted into the square.
        progress: called with (rows done, N).
        workers: decoding threads; the number of processors by default.

    Raises:
        ReadError: a file cannot be read; it is named.
        DataError: a file is no longer what was hashed.
        OSError: the disk is full (found before the start where possible), or cannot be written.
    """
    partial = path.with_suffix(".partial")
    partial.mkdir(exist_ok=True)
    with (
        _open_for_update(partial / "images.u8") as images,
        _open_for_update(partial / "masks.u8") as masks,
        _open_for_update(partial / "done.u8") as marks,
    ):
        done = np.zeros(len(jobs), np.bool_)
        marked = np.frombuffer(marks.read(len(jobs)), np.bool_)
        done[: len(marked)] = marked
        left = np.flatnonzero(~done).tolist()
        _require_space(partial, (len(left) + int((mask_row[left] >= 0).sum())) * spec.size**2)
        finished = len(jobs) - len(left)
        for chunk in _decoded_chunks(left, jobs, spec, workers):
            for row, image, mask in chunk:
                _write_row(images, row, image)
                if mask is not None:
                    _write_row(masks, int(mask_row[row]), mask)
                done[row] = True
                finished += 1
                if progress:
                    progress(finished, len(jobs))
            _flush(images)
            _flush(masks)
            _write_row(marks, 0, done)  # only now: a mark must never be on the disk before its pixels
            _flush(marks)
    contents = {"format": FORMAT_VERSION, "images": len(jobs), "masks": int(mask_row.max()) + 1}
    write_json(partial / "cache.json", {**contents, "preprocess": spec.model_dump(mode="json")})
    shutil.rmtree(path, ignore_errors=True)  # one of the wrong size, or nothing
    partial.rename(path)
    _flush_folder(path.parent)


def _decoded_chunks(
    rows: Sequence[int], jobs: Sequence[Job], spec: PreprocessSpec, workers: int | None
) -> Iterator[Iterator[Row]]:
    """Decode in threads, a chunk ahead of the writing, so that memory stays bounded and no thread waits."""

    def decode(row: int) -> Row:
        return (row, *_decode(jobs[row], spec))

    chunks = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        ahead = [pool.map(decode, chunk) for chunk in chunks[:1]]
        for following in [*chunks[1:], []]:
            current, ahead = ahead, [pool.map(decode, following)]
            yield from current


def _decode(job: Job, spec: PreprocessSpec) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    image_path, mask_path = job.record.image_path, job.record.mask_path
    radiograph = read_radiograph(_read_unchanged(image_path, job.image_sha256), origin=str(image_path))
    if mask_path is None or job.mask_sha256 is None:
        return fit_image(radiograph, spec), None
    try:
        mask = read_mask(_read_unchanged(mask_path, job.mask_sha256))
    except ReadError as error:
        raise ReadError(f"{mask_path}: {error.message}", hint=error.hint) from error
    return fit_image(radiograph, spec), fit_mask(mask, spec).astype(np.uint8)


def _read_unchanged(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ReadError(f"Expected a readable file at {path}, got: {error.strerror}.", hint="Index again.") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(f"Expected {path} to stay as it was while the cache is built, got new content.", hint="Again.")
    return content


def _open_for_update(path: Path) -> BinaryIO:
    path.touch()
    return path.open("r+b")


def _write_row(stream: BinaryIO, row: int, content: NDArray[np.uint8] | NDArray[np.bool_]) -> None:
    # Not through a memory map: on a full disk that ends the process by a signal instead of an error.
    stream.seek(row * content.size)
    stream.write(content.tobytes())


def _flush(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _flush_folder(folder: Path) -> None:
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"{free:,} bytes are free")
