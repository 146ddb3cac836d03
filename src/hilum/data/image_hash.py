"""Perceptual image hash of 32 bytes, by which a bundle recognizes its training images.

Chest radiographs look alike, so the 64 bits of a common difference hash are too few. The hash consists of the signs
of the 256 lowest frequencies (DCT-II) of the local contrast of the trimmed, equalized image
(hilum.data.fingerprint). `benchmarks/training_hashes.py` measures its sensitivity and false matches.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.arrays import read_array
from hilum.cpus import available_cpus
from hilum.data.fingerprint import MINIATURE, SIGNATURE, local_contrast, miniature_of, trim_box
from hilum.errors import DataError
from hilum.imaging.preprocess import content_of
from hilum.progress import Progress

METHOD = "dct-256"
"""Name of this hash in a manifest. A changed algorithm needs a new name."""
HASH_BYTES = 32
MATCH_BITS = 38
"""Maximum Hamming distance of a match, of 256 bits; chosen on the validation split of real images."""
FALSE_MATCHES = 0.001
"""Share of unseen images that match a known hash, at most; measured by benchmarks/training_hashes.py."""

Images = Sequence[NDArray[np.uint8]] | NDArray[np.uint8]

Hashes = NDArray[np.uint8]
"""(N, 32) uint8, one hash per row."""

_TRIMS = (0.05, 0.02, 0.1, 0.2, 0.0)  # thresholds of trim_box; stored hashes use the first, queries use all
_WORKING_SIDE = 256  # pixels
_TRIM_ROUNDS = 3  # borders may be nested
_SAME_BOX = 2  # pixels; boxes at most this far apart give one query
_NEIGHBORHOOD = MINIATURE * 6 / 64  # pixels; neighborhood of the local contrast
_CHUNK = 256
_BLOCK = (1024, 8192)  # queries x hashes compared at once, 32 MiB


def matches_by_chance(images: int) -> int:
    """Return the number of matches that so many unseen images exceed with a probability of at most 1%.

    The number of matches is binomial, with FALSE_MATCHES per image.
    """
    count, term = 0, (1 - FALSE_MATCHES) ** images
    total = term
    while total < 0.99:
        term *= (images - count) / (count + 1) * FALSE_MATCHES / (1 - FALSE_MATCHES)
        count, total = count + 1, total + term
    return count


def image_hashes(images: Images, progress: Progress | None = None) -> Hashes:
    """Compute the hashes of images that a bundle stores.

    Args:
        images: N fitted images (S, S) uint8, as in a cache; padding is removed.
        progress: Called with (images hashed, N).

    Returns:
        (N, 32) uint8.
    """
    return np.concatenate([np.empty((0, HASH_BYTES), np.uint8), *_each(images, _stored, progress)])


def find_known(images: Images, known: Hashes, progress: Progress | None = None) -> NDArray[np.bool_]:
    """Return which images match one of the known hashes.

    Each image is hashed with its plain borders trimmed in up to five ways, since compression or an added border shifts
    the edge at which trimming stops; the nearest hash counts.

    Args:
        images: N fitted images (S, S) uint8, as in a cache.
        known: (M, 32) uint8, such as the training hashes of a bundle.
        progress: Called with (images hashed, N).

    Returns:
        (N,) bool, True if the nearest known hash differs in at most MATCH_BITS bits.
    """
    if not len(images) or not len(known):
        return np.zeros(len(images), np.bool_)
    queries = _each(images, _queries, progress)
    rows = np.repeat(np.arange(len(queries)), [len(own) for own in queries])
    found = np.zeros(len(queries), np.bool_)
    found[rows[nearest_bits(np.concatenate(queries), known) <= MATCH_BITS]] = True
    return found


def nearest_bits(queries: Hashes, known: Hashes) -> NDArray[np.int64]:
    """Return the Hamming distance (N,) of each query (N, 32) to the nearest of ``known`` (M, 32), for M >= 1.

    Computed by blocked matrix products of signs: the product of two hashes is 256 minus twice their distance.
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
    """Return the content of a ``.npy`` file with each hash once, sorted so that the order reveals nothing."""
    stream = io.BytesIO()
    np.save(stream, np.unique(hashes, axis=0), allow_pickle=False)
    return stream.getvalue()


def from_bytes(content: bytes) -> Hashes:
    """Return the hashes (N, 32) in the content of a ``.npy`` file.

    Raises:
        DataError: The content is something else.
    """
    try:
        hashes = read_array(content)
    except ValueError as error:
        raise DataError(f"The training hashes cannot be read: {error}.") from error
    if hashes.dtype != np.uint8 or hashes.shape[1:] != (HASH_BYTES,):
        raise DataError(f"Expected training hashes of {HASH_BYTES} bytes, got {hashes.dtype}.")
    return hashes


def _each(images: Images, one: Callable[[NDArray[np.uint8]], Hashes], progress: Progress | None) -> list[Hashes]:
    """Apply ``one`` to every image, in threads, since OpenCV releases the GIL."""
    done: list[Hashes] = []
    with ThreadPoolExecutor(available_cpus()) as pool:
        for start in range(0, len(images), _CHUNK):
            done += pool.map(one, images[start : start + _CHUNK])
            if progress is not None:
                progress(len(done), len(images))
    return done


def _stored(image: NDArray[np.uint8]) -> Hashes:
    """Return the stored hash (1, 32) of an image."""
    content = _content(image)
    return _hash(content[_box(content, _TRIMS[0])])[None]


def _queries(image: NDArray[np.uint8]) -> Hashes:
    """Return the query hashes (1 to 5, 32) of an image, one for each distinct trim box."""
    content = _content(image)
    boxes: list[tuple[slice, slice]] = []
    for plain in _TRIMS:
        box = _box(content, plain)
        if all(_apart(box, other) > _SAME_BOX for other in boxes):
            boxes.append(box)
    return np.stack([_hash(content[box]) for box in boxes])


def _content(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a fitted image (S, S) without its padding, shrunk to at most 256 pixels: (H, W) uint8."""
    content = image[content_of(image)]
    scale = _WORKING_SIDE / max(content.shape)
    if scale < 1:
        size = (max(1, round(content.shape[1] * scale)), max(1, round(content.shape[0] * scale)))
        content = np.asarray(cv2.resize(content, size, interpolation=cv2.INTER_AREA), np.uint8)
    return content


def _box(content: NDArray[np.uint8], plain: float) -> tuple[slice, slice]:
    """Return the rows and columns of an image without its plain borders, including nested ones."""
    rows, columns = slice(0, content.shape[0]), slice(0, content.shape[1])
    for _ in range(_TRIM_ROUNDS):
        inner = trim_box(content[rows, columns], plain)
        rows, columns = (
            slice(outer.start + cut.start, outer.start + cut.stop)
            for outer, cut in zip((rows, columns), inner, strict=True)
        )
    return rows, columns


def _apart(one: tuple[slice, slice], other: tuple[slice, slice]) -> int:
    """Return the largest distance between corresponding edges of two boxes, pixels."""
    return max(int(max(abs(a.start - b.start), abs(a.stop - b.stop))) for a, b in zip(one, other, strict=True))


def _hash(content: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the packed signs (32,) of the lowest frequencies of a trimmed image (H, W)."""
    contrast = local_contrast(miniature_of(content), _NEIGHBORHOOD)
    small = cv2.resize(contrast, (SIGNATURE, SIGNATURE), interpolation=cv2.INTER_AREA)
    return np.packbits(cv2.dct(small)[_FREQUENCIES] > 0)


def _signs(hashes: Hashes) -> NDArray[np.float32]:
    """Unpack bits (N, 32) to signs (N, 256) float32, -1 or 1."""
    return np.unpackbits(hashes, axis=1).astype(np.float32) * 2 - 1


def _lowest(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows and columns of the ``count`` lowest DCT frequencies, without the mean, by distance from it."""
    row, column = np.indices((SIGNATURE, SIGNATURE)).reshape(2, -1)
    order = np.argsort(row * row + column * column, kind="stable")[1 : count + 1]
    return row[order], column[order]


_FREQUENCIES = _lowest(8 * HASH_BYTES)
