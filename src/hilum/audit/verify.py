"""Decide by their pixels whether two images are copies: register them, then compare them part by part.

All chests look alike, and two radiographs of one person even more so. In a copy, fine detail agrees everywhere after an
affine registration (Evangelidis & Psarakis 2008, IEEE TPAMI 30:1858); in two radiographs ribs, heart, diaphragm and
bowel gas do not agree at once. There are three stages, each more expensive and stricter than the one before.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.audit.candidates import Candidates
from hilum.cpus import available_cpus
from hilum.data.fingerprint import MINIATURE, SIGNATURE, ZOOM, Prints, local_contrast

THRESHOLD = 0.90
"""Lowest similarity of a copy, set on real images; `benchmarks/duplicates.py` measures what it finds and misses."""

_MIDDLE = 64  # side of the second stage
_LEAST = {SIGNATURE: 0.85, _MIDDLE: 0.78}  # correlations that pass the first two stages
_ITERATIONS = {SIGNATURE: (15, 1e-3), _MIDDLE: (15, 1e-3), MINIATURE: (30, 1e-4)}
_FINE = 2.5  # pixels: the neighborhood within which details are compared
_SMOOTHING = 0.7  # pixels: hides that only one of the two was resampled
_PARTS = 4  # per side
_LEAST_PARTS = 6  # with an overlap, of 16
_CHUNK = 256

Warp = NDArray[np.float32]
"""(2, 3): where a pixel (x, y) of the first image lies in the second."""


def similarities(
    prints: Prints,
    candidates: Candidates,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float64]:
    """Return the similarity of each pair, (M,) in [-1, 1]; 0 for pairs that an early stage rejects.

    Args:
        prints: Fingerprints of the images.
        candidates: M pairs of rows.
        workers: threads; the number of processors by default.
        progress: Called with (done, M).
    """
    count = candidates.first.size
    result = np.zeros(count)

    def compare(start: int) -> int:
        stop = min(start + _CHUNK, count)
        for row in range(start, stop):
            first, second = int(candidates.first[row]), int(candidates.second[row])
            result[row] = similarity(prints, first, second, zoomed=bool(candidates.zoomed[row]))
        return stop - start

    done = 0
    with ThreadPoolExecutor(workers or available_cpus()) as pool:  # OpenCV lets go of the interpreter's lock
        for compared in pool.map(compare, range(0, count, _CHUNK)):
            done += compared
            if progress is not None:
                progress(done, count)
    return result


def similarity(prints: Prints, first: int, second: int, *, zoomed: bool = False) -> float:
    """Return the agreement of two images in [-1, 1]: the lower quartile of the correlation of their parts.

    The lower quartile, since a copy agrees in all parts except those with a new label or border. 0 where the images do
    not overlap enough, or an early stage rejects them.

    Args:
        prints: Fingerprints of the images.
        first: Row of one image.
        second: Row of the other.
        zoomed: Start from the first enlarged by ZOOM rather than as it is.
    """
    scale = ZOOM if zoomed else 1.0
    warp = np.array([[scale, 0, 0], [0, scale, 0]], np.float32)
    warp[:, 2] = (1 - scale) * (SIGNATURE - 1) / 2
    one, two = (prints.signatures[row, 0].astype(np.float32) for row in (first, second))
    warp = _registered(one, two, warp)
    if _correlation(one, two, warp) < _LEAST[SIGNATURE]:
        return 0.0
    small = [
        cv2.resize(prints.miniatures[row], (_MIDDLE, _MIDDLE), interpolation=cv2.INTER_AREA).astype(np.float32)
        for row in (first, second)
    ]
    coarse = [local_contrast(image, _MIDDLE * 6 / 64) for image in small]
    warp = _registered(coarse[0], coarse[1], _enlarged(warp, _MIDDLE / SIGNATURE))
    fine = [local_contrast(image, _FINE) for image in small]
    if _correlation(fine[0], fine[1], warp) < _LEAST[_MIDDLE]:
        return 0.0
    images = [prints.miniatures[row].astype(np.float32) for row in (first, second)]
    warp = _enlarged(warp, MINIATURE / _MIDDLE)
    for sigma in (MINIATURE * 6 / 64, _FINE):
        details = [local_contrast(image, sigma) for image in images]
        warp = _registered(details[0], details[1], warp)
    return _agreement(images[0], images[1], warp)


def _registered(one: NDArray[np.float32], two: NDArray[np.float32], start: Warp) -> Warp:
    """The affine warp that correlates two images best, from ``start``; ``start`` itself where none is found."""
    steps, least = _ITERATIONS[one.shape[0]]
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, steps, least)
    mask = np.full(two.shape, 255, np.uint8)
    try:
        warp = cv2.findTransformECC(one, two, start.copy(), cv2.MOTION_AFFINE, criteria, mask, 3)[1]
    except cv2.error:  # flat images, or no overlap: they are no copies of each other
        return start
    return np.asarray(warp, np.float32)


def _enlarged(warp: Warp, times: float) -> Warp:
    """The same warp between images whose side is ``times`` as long; pixel centers lie at x + 1/2."""
    larger: Warp = warp.copy()
    larger[:, 2] = times * warp[:, 2] + (times - 1) / 2 * (1 - warp[:, :2].sum(axis=1))
    return larger


def _warped(image: NDArray[np.float32], warp: Warp, flags: int = cv2.INTER_LINEAR) -> NDArray[np.float32]:
    side = image.shape[0]
    return np.asarray(
        cv2.warpAffine(image, warp, (side, side), flags=flags | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE),
        np.float32,
    )


def _overlap(side: int, warp: Warp) -> NDArray[np.bool_]:
    """(S, S) bool: the pixels of the first image that lie inside the second."""
    ones = np.ones((side, side), np.float32)
    return np.asarray(cv2.warpAffine(ones, warp, (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP) > 0.99)


@lru_cache(maxsize=2)
def _window(side: int) -> NDArray[np.bool_]:
    """(S, S) bool: a rounded square that leaves out the edges and corners."""
    offset = np.abs((np.arange(side) - (side - 1) / 2) / (0.45 * side)) ** 4
    return np.asarray(offset[:, None] + offset[None] < 1)


def _correlation(one: NDArray[np.float32], two: NDArray[np.float32], warp: Warp) -> float:
    """Pearson's correlation inside the window, -1 where less than 40% of the square is left."""
    inside = _window(one.shape[0]) & _overlap(one.shape[0], warp)
    return _pearson(one[inside], _warped(two, warp)[inside]) if inside.mean() >= 0.4 else -1.0


def _agreement(one: NDArray[np.float32], two: NDArray[np.float32], warp: Warp) -> float:
    """The lower quartile of the correlation over the parts of the square, 0 with too few."""
    pair = (one, _warped(two, warp, cv2.INTER_CUBIC))
    details = [
        local_contrast(np.asarray(cv2.GaussianBlur(image, (0, 0), _SMOOTHING), np.float32), _FINE) for image in pair
    ]
    overlap = _overlap(MINIATURE, warp)
    edges = np.linspace(round(0.06 * MINIATURE), MINIATURE - round(0.06 * MINIATURE), _PARTS + 1).astype(int)
    found = []
    for top, bottom in pairwise(edges):
        for left, right in pairwise(edges):
            part = (slice(top, bottom), slice(left, right))
            if overlap[part].mean() >= 0.6:
                found.append(_pearson(details[0][part][overlap[part]], details[1][part][overlap[part]]))
    return float(np.percentile(found, 25)) if len(found) >= _LEAST_PARTS else 0.0


def _pearson(one: NDArray[np.float32], two: NDArray[np.float32]) -> float:
    one, two = one - one.mean(), two - two.mean()
    return float(one @ two / np.sqrt((one @ one) * (two @ two) + 1e-6))
