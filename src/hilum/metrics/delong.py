"""The standard error of the difference of two models' AUROCs on the same images: DeLong's method, clustered.

It is computed from structural components (DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44:837) in O(N log N) (Sun &
Xu 2014, IEEE Signal Process. Lett. 21:1389). Components are summed within groups (Obuchowski 1997, Biometrics 53:567),
since images of one patient are not independent; with one image per group, the result is DeLong's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hilum.errors import DataError
from hilum.metrics.bootstrap import variance_degrees
from hilum.metrics.scores import FloatArray

_ROUNDING = 1e-24  # variances below this are rounding errors of constant components


class Components(NamedTuple):
    """Structural components of M rankings of m positive and n negative images; the mean of either is the AUROC."""

    positive: FloatArray  # (M, m) in [0, 1], fraction of negatives with a lower score; ties count 0.5
    negative: FloatArray  # (M, n) in [0, 1], fraction of positives with a higher score; ties count 0.5


class Spread(NamedTuple):
    """What is known of the distribution of an estimated difference; an error of NaN is unknown."""

    error: float  # its standard error
    skew: float = 0.0  # its skewness
    degrees: float = math.inf  # degrees of freedom of the standard error


class Ranked(NamedTuple):
    """One AUROC of two models, over n of N images."""

    rows: NDArray[np.bool_]  # (N,), the n images
    positive: NDArray[np.bool_]  # (n,), with at least one True and one False
    a: FloatArray  # (n,), scores of the first model, higher for positive images
    b: FloatArray  # (n,), scores of the second model


def delong_spread(aurocs: Sequence[Ranked], strata: NDArray[np.int64], clusters: NDArray[np.int64]) -> Spread:
    """Return the spread of the difference of an AUROC, or of the mean of several, between two models.

    With one AUROC, and its positive and negative images as strata, the error is that of DeLong's test with clustered
    images. The degrees of freedom are Welch's, from those of each stratum by variance_degrees.

    Args:
        aurocs: The AUROCs that are averaged.
        strata: (N,) int64, the class of each image; groups are a sample of each class.
        clusters: (N,) int64, the group of each image.

    Returns:
        The spread. Its error is 0 for equal rankings, and NaN if a class has images in fewer than two groups, or if
        the components do not vary although the AUROCs differ.

    Raises:
        DataError: Shapes differ, a score is NaN, or there is no positive or no negative image.
    """
    influence, used = np.zeros(strata.size), np.zeros(strata.size, np.bool_)
    for auroc in aurocs:
        components = structural_components(auroc.positive, np.stack([auroc.a, auroc.b]))
        # Components of the difference, so that equal rankings have a variance of exactly zero.
        apart = [part[1] - part[0] for part in components]
        rows = np.flatnonzero(auroc.rows)
        for own, part in zip((rows[auroc.positive], rows[~auroc.positive]), apart, strict=True):
            influence[own] += part / (own.size * len(aurocs))
        used |= auroc.rows
    influence, strata, clusters = influence[used], strata[used], clusters[used]
    if not influence.any():
        return Spread(0.0)
    return _clustered_spread(influence, strata, clusters)


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


def _below(ordered: FloatArray, values: FloatArray) -> FloatArray:
    """Return the fraction of ``ordered`` below each value; ties count 0.5."""
    left = np.searchsorted(ordered, values, side="left")
    right = np.searchsorted(ordered, values, side="right")
    return np.asarray((left + right) / (2 * ordered.size), np.float64)


def _clustered_spread(influence: FloatArray, strata: NDArray[np.int64], clusters: NDArray[np.int64]) -> Spread:
    """Return the spread of the sum of ``influence`` (N,), centered within strata; its variance is Obuchowski's."""
    stratum, group = (np.unique(codes, return_inverse=True)[1] for codes in (strata, clusters))
    counts, groups = np.bincount(stratum), int(group.max()) + 1
    centered = influence - (np.bincount(stratum, influence) / counts)[stratum]
    cells = np.zeros((counts.size, groups))  # (S, G), the sums within strata and groups
    np.add.at(cells, (stratum, group), centered)
    present = np.zeros_like(cells, np.bool_)
    present[stratum, group] = True
    having = present.sum(axis=1)
    if having.min() < 2:
        return Spread(math.nan)
    own, sums = np.sum(cells**2, axis=1), cells.sum(axis=0)
    shared = np.sum(sums**2) - own.sum()  # of groups with images in several strata
    parts = own * having / (having - 1)
    variance = float(parts.sum() + shared * groups / (groups - 1))
    if variance <= _ROUNDING:
        return Spread(math.nan)
    degrees = [variance_degrees(row[there], int(there.sum())) for row, there in zip(cells, present, strict=True)]
    penalty = float(np.sum(parts**2 / degrees))
    return Spread(math.sqrt(variance), float(np.sum(sums**3) / variance**1.5), float(parts.sum()) ** 2 / penalty)
