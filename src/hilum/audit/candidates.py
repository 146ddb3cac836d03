"""Which pairs of images may be copies: near neighbors under a projection learned from the images themselves.

The projection is Fisher's linear discriminant (Fisher 1936, Annals of Eugenics 7:179): it keeps the directions in
which different images differ most, relative to how much one image differs from itself when it is turned, enlarged or
shifted a little. Neighbors then come from blocked matrix products.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.cpus import available_cpus
from hilum.data.fingerprint import MINIATURE, Prints, signature

NEIGHBORS = 5
"""Nearest images compared by pixels with each image, and as many again with its enlarged center."""

COMPARE_ALL = 40
"""Up to this number of images, every pair is compared by pixels."""

_DIMENSIONS = 128
_SAMPLE, _MOVES = 1000, 6  # images from which the projection is learned, and how often each is moved
_RIDGE = 0.1  # of the mean variance, added to the within-image scatter
_BLOCK_CELLS = 1 << 24  # similarities held at once, 64 MiB
_TURN, _STRETCH, _SQUEEZE, _SHIFT = 4.0, 0.12, 0.03, 0.05  # degrees, log scale, log aspect, share of the side


class Candidates(NamedTuple):
    """M pairs of rows to compare; a pair may occur twice, with different starts."""

    first: NDArray[np.int64]  # (M,)
    second: NDArray[np.int64]  # (M,)
    zoomed: NDArray[np.bool_]  # (M,) the second looks like the first enlarged by ZOOM


def find_candidates(prints: Prints, rows: NDArray[np.int64] | None = None, *, seed: int = 0) -> Candidates:
    """Return the pairs worth comparing by pixels, at most ``2 * NEIGHBORS`` per image; every pair of a small set.

    Work grows with the square of N (two products of N x 128 by 128 x N), memory with N.

    Args:
        prints: The images' fingerprints.
        rows: (N,) int64, the images to search; all by default.
        seed: Seed of the sample and the moves that the projection is learned from.
    """
    rows = np.arange(len(prints)) if rows is None else rows
    count = rows.size
    if count <= COMPARE_ALL:
        one, two = np.triu_indices(count, 1)
        first, second = np.concatenate([one, one, two]), np.concatenate([two, two, one])
        return Candidates(rows[first], rows[second], np.arange(first.size) >= one.size)
    mean, projection = _learn(prints, rows, np.random.default_rng(seed))
    whole, enlarged = (_embed(prints.signatures[:, which], rows, mean, projection) for which in (0, 1))
    plain, plain_similarity = _neighbors(whole, whole)
    zoom, zoom_similarity = _neighbors(enlarged, whole)
    query = np.repeat(np.arange(count), NEIGHBORS)
    first, second = np.concatenate([query, query]), np.concatenate([plain.ravel(), zoom.ravel()])
    zoomed = np.arange(first.size) >= query.size
    # Of a pair found twice, the more similar way is the better start.
    order = np.argsort(-np.concatenate([plain_similarity.ravel(), zoom_similarity.ravel()]), kind="stable")
    key = np.minimum(first, second) * count + np.maximum(first, second)
    kept = np.sort(order[np.unique(key[order], return_index=True)[1]])
    return Candidates(rows[first[kept]], rows[second[kept]], zoomed[kept])


def _learn(
    prints: Prints, rows: NDArray[np.int64], random: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The mean signature (1024,) and the projection (1024, D)."""
    rows = random.permutation(rows)[:_SAMPLE]
    images = _flat(prints.signatures[rows, 0])
    mean = images.mean(axis=0)
    within = np.zeros((images.shape[1], images.shape[1]))
    times = learning_moves(len(rows)) // len(rows)
    warps = [[_move(random) for _ in range(times)] for _ in rows]

    def moved(place: int) -> NDArray[np.uint8]:
        return np.stack([signature(_moved(prints.miniatures[rows[place]], warp)) for warp in warps[place]])

    with ThreadPoolExecutor(available_cpus()) as pool:  # OpenCV releases the interpreter's lock
        for image, signatures in zip(images, pool.map(moved, range(len(rows))), strict=True):
            change = _flat(signatures) - image
            within += change.T @ change
    within /= len(rows) * times
    within[np.diag_indices_from(within)] += _RIDGE * np.trace(within) / len(within) + 1e-6
    between = (images - mean).T @ (images - mean) / len(rows)
    inverse = np.linalg.inv(np.linalg.cholesky(within))
    values, vectors = np.linalg.eigh(inverse @ between @ inverse.T)
    best = np.argsort(-values)[:_DIMENSIONS]
    return mean, (inverse.T @ vectors[:, best]).astype(np.float32)


def learning_moves(count: int) -> int:
    """Return how many moved miniatures the projection is learned from, of ``count`` images."""
    used = min(count, _SAMPLE)
    return used * max(_MOVES, min(24, 2000 // used))


def _move(random: np.random.Generator) -> NDArray[np.float64]:
    """A small turn, enlargement, squeeze and shift, (2, 3)."""
    turn = np.deg2rad(random.uniform(-_TURN, _TURN))
    scale = np.exp(random.uniform(-_STRETCH, _STRETCH))
    aspect = np.exp(random.uniform(-_SQUEEZE, _SQUEEZE))
    matrix = scale * np.array([[np.cos(turn) * aspect, -np.sin(turn)], [np.sin(turn), np.cos(turn) / aspect]])
    center = np.full(2, (MINIATURE - 1) / 2)
    shift = center - matrix @ center + random.uniform(-_SHIFT, _SHIFT, 2) * MINIATURE
    return np.column_stack([matrix, shift])


def _moved(miniature: NDArray[np.uint8], warp: NDArray[np.float64]) -> NDArray[np.uint8]:
    """A miniature after a move, its edge repeated outward."""
    return np.asarray(
        cv2.warpAffine(miniature, warp, (MINIATURE, MINIATURE), borderMode=cv2.BORDER_REPLICATE), np.uint8
    )


def _flat(signatures: NDArray[np.uint8]) -> NDArray[np.float32]:
    return signatures.reshape(len(signatures), -1).astype(np.float32) - 128  # (N, 32, 32) -> (N, 1024)


def _embed(
    signatures: NDArray[np.uint8],
    rows: NDArray[np.int64],
    mean: NDArray[np.float32],
    projection: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Unit vectors (N, D), in chunks, since the flat signatures of all images would be large."""
    chunks = (rows[start : start + 4096] for start in range(0, rows.size, 4096))
    vectors = np.concatenate([(_flat(signatures[chunk]) - mean) @ projection for chunk in chunks])
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-12), np.float32)


def _neighbors(
    queries: NDArray[np.float32], images: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The NEIGHBORS images (N, 5) nearest to each query but itself, and their cosines (N, 5)."""
    count = len(images)
    nearest = np.empty((count, NEIGHBORS), np.int64)
    cosines = np.empty((count, NEIGHBORS), np.float32)
    rows = max(1, _BLOCK_CELLS // count)
    for start in range(0, count, rows):
        block = -(queries[start : start + rows] @ images.T)  # (rows, N)
        own = np.arange(len(block))
        block[own, start + own] = np.inf
        found = np.argpartition(block, NEIGHBORS, axis=1)[:, :NEIGHBORS]
        nearest[start : start + rows] = found
        cosines[start : start + rows] = -np.take_along_axis(block, found, axis=1)
    return nearest, cosines
