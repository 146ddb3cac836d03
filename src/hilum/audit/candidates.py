"""Which pairs of images may be copies: near neighbors under a projection learnt from the images themselves.

The projection is Fisher's linear discriminant (Fisher 1936, Annals of Eugenics 7:179): it keeps the directions in
which different images differ most, relative to how much one image differs from itself when it is turned, enlarged or
shifted a little. Neighbors then come from blocked matrix products.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.data.fingerprint import MINIATURE, Prints, signature

NEIGHBORS = 5
"""Neighbors of each image, and as many again of its enlarged center, that are compared by pixels."""

COMPARE_ALL = 40
"""Up to so many images, every pair is compared by pixels."""

_DIMENSIONS = 128
_SAMPLE, _MOVES = 1000, 6  # images from which the projection is learnt, and how often each is moved
_RIDGE = 0.1  # of the mean variance, added to the within-image scatter
_BLOCK_CELLS = 1 << 24  # similarities held at once, 64 MiB
_TURN, _STRETCH, _SQUEEZE, _SHIFT = 4.0, 0.12, 0.03, 0.05  # degrees, log scale, log aspect, share of the side


class Candidates(NamedTuple):
    """M pairs of rows to compare; one pair may stand there more than once, with another start."""

    first: NDArray[np.int64]  # (M,)
    second: NDArray[np.int64]  # (M,)
    zoomed: NDArray[np.bool_]  # (M,) the second looks like the first enlarged by ZOOM


def find_candidates(prints: Prints, rows: NDArray[np.int64] | None = None, *, seed: int = 0) -> Candidates:
    """The pairs worth comparing by pixels, at most ``2 * NEIGHBORS`` per image; every pair of a small set.

    Work grows with the square of N (two products of N x 128 by 128 x N), memory with N.

    Args:
        prints: of the images.
        rows: (N,) those among which to look; all by default.
        seed: of the sample and the moves that the projection is learnt from.
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
    times = max(_MOVES, min(24, 2000 // len(rows)))
    for row, image in zip(rows, images, strict=True):
        moved = np.stack([signature(_moved(prints.miniatures[row], random)) for _ in range(times)])
        change = _flat(moved) - image
        within += change.T @ change
    within /= len(rows) * times
    within[np.diag_indices_from(within)] += _RIDGE * np.trace(within) / len(within) + 1e-6
    between = (images - mean).T @ (images - mean) / len(rows)
    inverse = np.linalg.inv(np.linalg.cholesky(within))
    values, vectors = np.linalg.eigh(inverse @ between @ inverse.T)
    best = np.argsort(-values)[:_DIMENSIONS]
    return mean, (inverse.T @ vectors[:, best]).astype(np.float32)


def _moved(miniature: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """A miniature turned, enlarged, squeezed and shifted a little, its edge repeated outwards."""
    turn = np.deg2rad(random.uniform(-_TURN, _TURN))
    scale = np.exp(random.uniform(-_STRETCH, _STRETCH))
    aspect = np.exp(random.uniform(-_SQUEEZE, _SQUEEZE))
    matrix = scale * np.array([[np.cos(turn) * aspect, -np.sin(turn)], [np.sin(turn), np.cos(turn) / aspect]])
    center = np.full(2, (MINIATURE - 1) / 2)
    shift = center - matrix @ center + random.uniform(-_SHIFT, _SHIFT, 2) * MINIATURE
    warp = np.column_stack([matrix, shift])
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
