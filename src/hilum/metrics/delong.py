"""DeLong's test of two AUROCs on the same images, with clustered images, and Holm's correction.

The variance of an AUROC is computed from its structural components (DeLong, DeLong & Clarke-Pearson 1988, Biometrics
44:837) in O(N log N) (Sun & Xu 2014, IEEE Signal Process. Lett. 21:1389). Components are summed within groups
(Obuchowski 1997, Biometrics 53:567), since images of one patient are not independent; with one image per group, the
result is DeLong's variance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hilum.errors import DataError
from hilum.metrics.bootstrap import LEVEL
from hilum.metrics.scores import FloatArray

_ROUNDING = 1e-24  # variances below this are rounding errors of constant components


class Components(NamedTuple):
    """Structural components of M rankings of m positive and n negative images; the mean of either is the AUROC."""

    positive: FloatArray  # (M, m) in [0, 1], fraction of negatives with a lower score; ties count 0.5
    negative: FloatArray  # (M, n) in [0, 1], fraction of positives with a higher score; ties count 0.5


@dataclass(frozen=True)
class DeLongTest:
    """Difference of two AUROCs on the same images, with its test.

    ``standard_error``, ``z``, ``p`` and the bounds are NaN if fewer than two groups have a positive or a negative
    image, or if the components do not vary although the AUROCs differ.

    Attributes:
        auc_a: AUROC of the first model, in [0, 1].
        auc_b: AUROC of the second model, in [0, 1].
        difference: ``auc_b - auc_a``.
        standard_error: Standard error of the difference.
        z: Difference divided by its standard error; 0 for equal rankings.
        p: Two-sided p-value from the normal distribution.
        low: Lower bound of the 95% interval, ``difference - 1.96 standard_error``.
        high: Upper bound of the 95% interval, ``difference + 1.96 standard_error``.
    """

    auc_a: float
    auc_b: float
    difference: float
    standard_error: float
    z: float
    p: float
    low: float
    high: float


def delong_test(
    positive: NDArray[np.bool_], scores_a: FloatArray, scores_b: FloatArray, clusters: NDArray[np.int64] | None = None
) -> DeLongTest:
    """Test whether the AUROCs of two models on the same images differ, by DeLong's test with clustered images.

    Args:
        positive: (N,) bool, with at least one True and one False.
        scores_a: (N,) float64, scores of the first model, higher for positive images; no NaN.
        scores_b: (N,) float64, scores of the second model.
        clusters: (N,) int64, the group of each image; by default each image is a group.

    Raises:
        DataError: Shapes differ, a score is NaN, or there is no positive or no negative image.
    """
    components = structural_components(positive, np.stack([scores_a, scores_b]))
    auc_a, auc_b = (float(row.mean()) for row in components.positive)
    # Components of the difference, so that equal rankings have a variance of exactly zero.
    apart = Components(*(part[1:] - part[:1] for part in components))
    variance = float(_covariance(apart, positive, clusters)[0, 0])
    difference = auc_b - auc_a
    if not any(part.any() for part in apart):
        return DeLongTest(auc_a, auc_b, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0)
    error = math.sqrt(variance) if variance > _ROUNDING else math.nan
    z = difference / error
    reach = NormalDist().inv_cdf((1 + LEVEL) / 2) * error
    return DeLongTest(
        auc_a, auc_b, difference, error, z, math.erfc(abs(z) / math.sqrt(2)), difference - reach, difference + reach
    )


def structural_components(positive: NDArray[np.bool_], scores: FloatArray) -> Components:
    """Return the structural components of scores (M, N) for M rankings of N images, with ``positive`` (N,) bool.

    Raises:
        DataError: Shapes differ, a score is NaN, or there is no positive or no negative image.
    """
    if scores.ndim != 2 or scores.shape[1:] != positive.shape:
        raise DataError(f"Expected scores (M, N) of N = {positive.size} images, got {scores.shape}.")
    if np.isnan(scores).any():
        raise DataError("The scores contain NaN.")
    if positive.all() or not positive.any():
        raise DataError(f"Expected positive and negative images, got {positive.sum()} positive of {positive.size}.")
    own, rest = np.sort(scores[:, positive]), np.sort(scores[:, ~positive])
    beats = [_below(rest[m], row[positive]) for m, row in enumerate(scores)]
    beaten = [1 - _below(own[m], row[~positive]) for m, row in enumerate(scores)]
    return Components(np.stack(beats), np.stack(beaten))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for multiple tests (Holm 1979, Scand. J. Stat. 6:65), in order; NaN is ignored."""
    adjusted = [math.nan] * len(p_values)
    order = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    largest = 0.0
    for rank, (p, place) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        adjusted[place] = largest
    return adjusted


def _below(ordered: FloatArray, values: FloatArray) -> FloatArray:
    """Return the fraction of ``ordered`` below each value; ties count 0.5."""
    left = np.searchsorted(ordered, values, side="left")
    right = np.searchsorted(ordered, values, side="right")
    return np.asarray((left + right) / (2 * ordered.size), np.float64)


def _covariance(components: Components, positive: NDArray[np.bool_], clusters: NDArray[np.int64] | None) -> FloatArray:
    """Return Obuchowski's covariance (M, M) of the AUROCs, with components summed within groups."""
    names = np.arange(positive.size) if clusters is None else clusters
    code = np.unique(names, return_inverse=True)[1]
    groups = int(code.max()) + 1
    kinds = (positive, ~positive)
    means = components.positive.mean(axis=1, keepdims=True)  # (M, 1), the same for negative components
    sums = [_group_sums(part - means, code[kind], groups) for part, kind in zip(components, kinds, strict=True)]
    having = [np.unique(code[kind]).size for kind in kinds]
    if min(having) < 2:
        return np.full((means.size, means.size), np.nan)
    first, second = (
        total @ total.T * count / (count - 1) / kind.sum() ** 2
        for total, count, kind in zip(sums, having, kinds, strict=True)
    )
    both = sums[0] @ sums[1].T * groups / (groups - 1) / (positive.sum() * (~positive).sum())
    return np.asarray(first + second + both + both.T, np.float64)


def _group_sums(centered: FloatArray, code: NDArray[np.int64], groups: int) -> FloatArray:
    """Sum centered components (M, n) over the images of each group; return (M, G)."""
    return np.stack([np.bincount(code, row, minlength=groups) for row in centered])
