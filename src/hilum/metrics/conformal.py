"""Split-conformal prediction sets: fit quantiles on the validation split, measure coverage on the test split.

Each class has its own quantile (Mondrian or class-conditional conformal prediction: Vovk 2012, ACML; Sadinle, Lei &
Wasserman 2019); with a single quantile, rare classes can have a much lower coverage than the nominal one. A class
needs 9, 19 or 99 groups for a coverage of 90, 95 or 99%; with fewer, its quantile is 1 and it is in every set.

Patients are exchangeable, images of one patient are not. Every group therefore has weight 1, shared by its images:
hierarchical conformal prediction (Lee, Barber & Willett 2023, arXiv:2306.06342), whose sets contain the label of an
image from a new group of the class with at least the nominal probability. The guarantee holds for groups
exchangeable with those of the calibration, not for images of another hospital, and only approximately if the same
images were used to select the temperature or the epoch. The coverage measured on the test split is decisive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hilum.bundle import prediction_sets
from hilum.bundle.prediction_sets import LEVELS
from hilum.errors import DataError
from hilum.metrics.bootstrap import Interval, bootstrap
from hilum.metrics.scores import FloatArray, Scores, divide

if TYPE_CHECKING:
    from hilum.bundle.calibration import Calibration

_COVERAGE, _SIZE, _SOURCE = "coverage", "mean_size", "source"


@dataclass(frozen=True)
class ConformalResult:
    """Measured coverage and size of the prediction sets at one level.

    Attributes:
        level: Nominal coverage, such as ``0.90``.
        quantiles: Class to quantile in [0, 1]; 1 includes the class in every set.
        coverage: Fraction of images whose prediction set contains the label.
        coverage_by_class: Coverage of the images of each class.
        coverage_by_source: Coverage of the images of each source; empty for a single source.
        mean_size: Mean number of classes in a set, from 1 to K.
        sizes: Number of images with a set of 1, 2, ... K classes.
    """

    level: str
    quantiles: dict[str, float]
    coverage: Interval
    coverage_by_class: dict[str, Interval]
    coverage_by_source: dict[str, Interval]
    mean_size: Interval
    sizes: tuple[int, ...]


def fit_quantiles(
    probabilities: FloatArray, labels: NDArray[np.int64], clusters: NDArray[np.int64], levels: Sequence[str] = LEVELS
) -> dict[str, tuple[float, ...]]:
    """Fit the quantile of every class at every level.

    For the G groups of a class, it is the lowest score with a weight of at least (G + 1) * level at or below it. Each
    group has weight 1, shared by its images of the class. With one image per group, this is the
    ceil((G + 1) * level)-th smallest score.

    Args:
        probabilities: (N, K) float64 in [0, 1], after temperature scaling.
        labels: (N,) int64 in [-1, K); rows with -1 are ignored.
        clusters: (N,) int64, the group of each image.
        levels: Coverages in (0, 1), as strings.

    Returns:
        Level to K quantiles in [0, 1]; 1 if the class has too few groups.
    """
    by_class = [_class_scores(probabilities[:, k], labels == k, clusters) for k in range(probabilities.shape[1])]
    return {level: tuple(_quantile(*own, float(level)) for own in by_class) for level in levels}


def conformal_results(
    scores: Scores, calibration: Calibration, *, resamples: int = 1000, seed: int = 0
) -> tuple[ConformalResult, ...]:
    """Measure the prediction sets of a calibration on images other than those it was fitted on, for each level.

    Coverage weights every image equally; its 95% interval is clustered by group.

    Args:
        scores: Scores of a split, with probabilities at the calibration's temperature.
        calibration: From hilum.metrics.calibration.fit_calibration.
        resamples: Bootstrap resamples.
        seed: Random seed of the bootstrap.

    Raises:
        DataError: There is no labeled image.
    """
    if not scores.labeled.any():
        raise DataError("There are no labeled images to measure coverage.", hint="Use a labeled dataset.")
    return tuple(_measure(scores, level, values, resamples, seed) for level, values in calibration.quantiles.items())


def _class_scores(
    probability: FloatArray, rows: NDArray[np.bool_], clusters: NDArray[np.int64]
) -> tuple[FloatArray, FloatArray, int]:
    """Return the ascending scores of a class's images, the cumulative weight of each, and the number of groups."""
    own = prediction_sets.scores(probability[rows])
    group, size = np.unique(clusters[rows], return_inverse=True, return_counts=True)[1:]
    order = np.argsort(own)
    return own[order], np.cumsum((1 / size)[group][order]), size.size


def _quantile(ascending: FloatArray, below: FloatArray, groups: int, level: float) -> float:
    needed = (groups + 1) * level - 1e-9  # tolerance for rounding in the cumulative weights
    place = int(np.searchsorted(below, needed))
    return float(ascending[place]) if place < ascending.size else 1.0


def _measure(scores: Scores, level: str, quantiles: Sequence[float], resamples: int, seed: int) -> ConformalResult:
    known, class_names = scores.labeled, scores.class_names
    labels = scores.labels[known]
    inside = prediction_sets.prediction_sets(scores.probabilities[known], quantiles)
    size, most = inside.sum(axis=1), max(1, len(class_names) - 1)
    covered = inside[np.arange(labels.size), labels]
    every = np.ones(labels.size, np.bool_)
    rows = {(_COVERAGE, ""): every, (_SIZE, ""): every}
    rows |= {(_COVERAGE, name): labels == k for k, name in enumerate(class_names)}
    origin = np.array([source or "" for source in scores.sources])[known]
    sources = [str(name) for name in np.unique(origin) if name] if np.unique(origin).size > 1 else []
    rows |= {(_SOURCE, name): origin == name for name in sources}
    # Sizes scaled to [0, 1], so that the bootstrap can use their bounds.
    values = {key: (size - 1) / most if key[0] == _SIZE else covered.astype(np.float64) for key in rows}

    def statistics(weights: FloatArray) -> dict[tuple[str, str], FloatArray]:
        return {key: divide(weights[:, r] @ values[key][r], weights[:, r].sum(axis=1)) for key, r in rows.items()}

    clusters = np.unique(scores.clusters()[known], return_inverse=True)[1].astype(np.int64)
    found = bootstrap(
        statistics, rows, clusters, strata=labels, bounds=dict.fromkeys(rows, (0.0, 1.0)),
        shares=[key for key in rows if key[0] != _SIZE], means=[(_SIZE, "")], resamples=resamples, seed=seed,
    )  # fmt: skip
    added = found[_SIZE, ""]
    return ConformalResult(
        level=level,
        quantiles=dict(zip(class_names, quantiles, strict=True)),
        coverage=found[_COVERAGE, ""],
        coverage_by_class={name: found[_COVERAGE, name] for name in class_names},
        coverage_by_source={name: found[_SOURCE, name] for name in sources},
        mean_size=replace(added, value=1 + most * added.value, low=1 + most * added.low, high=1 + most * added.high),
        sizes=tuple(np.bincount(size, minlength=len(class_names) + 1)[1:].tolist()),
    )
