"""A perceptual hash of 32 bytes an image, by which a bundle knows the images that it was trained on.

Chest radiographs look alike, so that the 64 bits of a common difference hash are too few. These are the signs of the
256 lowest frequencies (DCT-II) of the local contrast of the trimmed, equalized image (hilum.data.fingerprint).
`benchmarks/training_hashes.py` measures what is found and what is taken for another image.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.cpus import available_cpus
from hilum.data.fingerprint import MINIATURE, SIGNATURE, local_contrast, miniature_of, trim_box
from hilum.errors import DataError
from hilum.imaging.preprocess import content_of
from hilum.progress import Progress

METHOD = "dct-256"
"""The name of this hash in a manifest; another algorithm is another name."""
HASH_BYTES = 32
MATCH_BITS = 38
"""Hashes of one image differ in at most so many of 256 bits; chosen on the validation split of real images."""

Images = Sequence[NDArray[np.uint8]] | NDArray[np.uint8]

Hashes = NDArray[np.uint8]
"""(N, 32) uint8, one hash a row."""

_TRIMS = (0.05, 0.02, 0.1, 0.2, 0.0)  # shares of trim_box; a hash is of the first, a query of all
_WORKING_SIDE = 256  # pixels
_TRIM_ROUNDS = 3  # a border may lie inside another
_SAME_BOX = 2  # pixels: boxes no further apart than this give one query
_NEIGHBORHOOD = MINIATURE * 6 / 64  # pixels, of the local contrast
_CHUNK = 256
_BLOCK = (1024, 8192)  # queries x hashes compared at once, 32 MiB


def image_hashes(images: Images, progress: Progress | None = None) -> Hashes:
    """Hash images as they are kept in a bundle.

    Args:
        images: N fitted images (S, S) uint8, as in a cache; padding is cut off.
        progress: Called with (images hashed, N).

    Returns:
        (N, 32) uint8.
    """
    return np.concatenate([np.empty((0, HASH_BYTES), np.uint8), *_each(images, _stored, progress)])


def find_known(images: Images, known: Hashes, progress: Progress | None = None) -> NDArray[np.bool_]:
    """Which of ``images`` a bundle was trained on, by its hashes.

    Each image is hashed with its plain borders cut off in up to five ways, since a codec or a new border moves the
    edge at which the trimming stops; the nearest hash counts.

    Args:
        images: N fitted images (S, S) uint8, as in a cache.
        known: (M, 32) uint8.
        progress: Called with (images hashed, N).

    Returns:
        (N,) bool: the nearest of ``known`` differs in at most MATCH_BITS bits.
    """
    if not len(images) or not len(known):
        return np.zeros(len(images), np.bool_)
    queries = _each(images, _queries, progress)
    rows = np.repeat(np.arange(len(queries)), [len(own) for own in queries])
    found = np.zeros(len(queries), np.bool_)
    found[rows[nearest_bits(np.concatenate(queries), known) <= MATCH_BITS]] = True
    return found


def nearest_bits(queries: Hashes, known: Hashes) -> NDArray[np.int64]:
    """The number of bits (N,) in which each query differs from the nearest of ``known`` (M, 32), M at least 1.

    Blocked matrix products of signs: the product of two hashes is 256 less twice the bits that differ.
    """
    bits = 8 * HASH_BYTES
    nearest = np.full(len(queries), bits, np.int64)
    for start in range(0, len(known), _BLOCK[1]):
        signs = _signs(known[start : start + _BLOCK[1]]).T
        for first in range(0, len(queries), _BLOCK[0]):
            block = slice(first, first + _BLOCK[0])
            product = (_signs(queries[block]) @ signs).max(axis=1)
            nearest[block] = np.minimum(nearest[block], ((bits - product) / 2).astype(np.int64))
    return nearest


def to_bytes(hashes: Hashes) -> bytes:
    """The hashes as a ``.npy`` file: each once, sorted, so that their order says nothing of the images."""
    stream = io.BytesIO()
    np.save(stream, np.unique(hashes, axis=0), allow_pickle=False)
    return stream.getvalue()


def from_bytes(content: bytes) -> Hashes:
    """The hashes (N, 32) in a ``.npy`` file.

    Raises:
        DataError: It holds something else.
    """
    try:
        hashes = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"The training hashes cannot be read: {error}.") from error
    if not isinstance(hashes, np.ndarray) or hashes.dtype != np.uint8 or hashes.shape[1:] != (HASH_BYTES,):
        raise DataError(
            f"Training hashes of {HASH_BYTES} bytes expected, got {getattr(hashes, 'dtype', 'an archive')}."
        )
    return hashes


def _each(images: Images, one: Callable[[NDArray[np.uint8]], Hashes], progress: Progress | None) -> list[Hashes]:
    """``one`` of every image, in threads: OpenCV lets go of the interpreter's lock."""
    done: list[Hashes] = []
    with ThreadPoolExecutor(available_cpus()) as pool:
        for start in range(0, len(images), _CHUNK):
            done += pool.map(one, images[start : start + _CHUNK])
            if progress is not None:
                progress(len(done), len(images))
    return done


def _stored(image: NDArray[np.uint8]) -> Hashes:
    """The hash (1, 32) that is kept of an image."""
    content = _content(image)
    return _hash(content[_box(content, _TRIMS[0])])[None]


def _queries(image: NDArray[np.uint8]) -> Hashes:
    """The hashes (1 to 5, 32) by which an image is looked for: one of each box that differs from those before."""
    content = _content(image)
    boxes: list[tuple[slice, slice]] = []
    for plain in _TRIMS:
        box = _box(content, plain)
        if all(_apart(box, other) > _SAME_BOX for other in boxes):
            boxes.append(box)
    return np.stack([_hash(content[box]) for box in boxes])


def _content(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A fitted image (S, S) without its padding, shrunk where it is large: (H, W) uint8."""
    content = image[content_of(image)]
    scale = _WORKING_SIDE / max(content.shape)
    if scale < 1:
        size = (max(1, round(content.shape[1] * scale)), max(1, round(content.shape[0] * scale)))
        content = np.asarray(cv2.resize(content, size, interpolation=cv2.INTER_AREA), np.uint8)
    return content


def _box(content: NDArray[np.uint8], plain: float) -> tuple[slice, slice]:
    """Rows and columns of an image without its plain borders, also where one lies inside another."""
    rows, columns = slice(0, content.shape[0]), slice(0, content.shape[1])
    for _ in range(_TRIM_ROUNDS):
        inner = trim_box(content[rows, columns], plain)
        rows, columns = (
            slice(outer.start + cut.start, outer.start + cut.stop)
            for outer, cut in zip((rows, columns), inner, strict=True)
        )
    return rows, columns


def _apart(one: tuple[slice, slice], other: tuple[slice, slice]) -> int:
    """The largest distance of an edge of one box from that of the other, in pixels."""
    return max(int(max(abs(a.start - b.start), abs(a.stop - b.stop))) for a, b in zip(one, other, strict=True))


def _hash(content: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The packed signs (32,) of the lowest frequencies of a trimmed image (H, W)."""
    contrast = local_contrast(miniature_of(content), _NEIGHBORHOOD)
    small = cv2.resize(contrast, (SIGNATURE, SIGNATURE), interpolation=cv2.INTER_AREA)
    return np.packbits(cv2.dct(small)[_FREQUENCIES] > 0)


def _signs(hashes: Hashes) -> NDArray[np.float32]:
    """(N, 32) packed bits as (N, 256) float32, -1 or 1."""
    return np.unpackbits(hashes, axis=1).astype(np.float32) * 2 - 1


def _lowest(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the ``count`` lowest frequencies of the DCT but the mean, by their distance from it."""
    row, column = np.indices((SIGNATURE, SIGNATURE)).reshape(2, -1)
    order = np.argsort(row * row + column * column, kind="stable")[1 : count + 1]
    return row[order], column[order]


_FREQUENCIES = _lowest(8 * HASH_BYTES)
