"""Confidence intervals by the bootstrap, resampling whole groups.

Images of one patient are not independent, so groups are drawn, not images: the cluster bootstrap (Field & Welsh
2007, J. R. Statist. Soc. B 69:369), with the percentile interval (Efron & Tibshirani 1993, An Introduction to the
Bootstrap, chapter 13). A resample is a vector of image weights, which lets all statistics be computed in bulk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hilum.errors import ConfigError
from hilum.evaluation.metrics import (
    FloatArray,
    Scores,
    confusion_counts,
    confusion_rates,
    divide,
    nan_mean,
    one_vs_rest_auc,
)

LEVEL = 0.95
"""Confidence level of every interval."""

_CHUNK_CELLS = 1 << 19  # weights held at once, 4 MiB: the statistics need a few arrays of this size


@dataclass(frozen=True)
class Interval:
    """A statistic with its 95% interval.

    Attributes:
        value: the statistic on the split itself; NaN where it is undefined.
        low: 2.5th percentile of the resamples; NaN where fewer than two groups bear on the statistic, since
            nothing can then be said of its spread.
        high: 97.5th percentile, likewise.
        n: how many images the statistic rests on, see ``bootstrap_intervals``.
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if np.isnan(self.value):
            return f"undefined, n = {self.n}"
        if np.isnan(self.low):
            return f"{self.value:.3f} (no interval from one group), n = {self.n}"
        return f"{self.value:.3f} ({self.low:.3f}–{self.high:.3f}), n = {self.n}"


def bootstrap_intervals(scores: Scores, *, resamples: int = 1000, seed: int = 0) -> dict[str, Interval]:
    """The 95% interval of every statistic that the split allows.

    Where images are labelled: ``accuracy``, ``balanced_accuracy``, ``macro_f1``, ``macro_roc_auc`` (n: labelled
    images), and per class ``roc_auc/NAME``, ``recall/NAME``, ``f1/NAME`` (n: images of the class) and
    ``precision/NAME`` (n: images predicted as the class). Where images have masks: mean ``dice`` and ``iou``
    (n: images with a mask). Resamples in which a statistic is undefined are left out of its percentiles.

    A percentile interval never leaves the values seen: of a statistic that is 1 on the split it is 1–1, however
    small n is. Read it together with n.

    Args:
        scores: the evaluated split.
        resamples: how many times the groups are drawn.
        seed: of the draws; equal seeds give equal intervals.

    Raises:
        ConfigError: ``resamples`` is below 2.
    """
    if resamples < 2:
        raise ConfigError(f"Expected at least 2 resamples, got {resamples}.", cure="1000 is usual.")
    clusters = scores.clusters()
    values = _statistics(scores, np.ones((1, len(scores.files))))
    draws: dict[str, list[FloatArray]] = {name: [] for name in values}
    for weights in resampled_weights(clusters, resamples, seed):
        for name, statistic in _statistics(scores, weights).items():
            draws[name].append(statistic)
    return {
        name: _interval(float(values[name][0]), np.concatenate(draws[name]), clusters[rows])
        for name, rows in _rests_on(scores).items()
    }


def resampled_weights(clusters: NDArray[np.int64], resamples: int, seed: int) -> Iterator[FloatArray]:
    """How often each image is drawn, in chunks (r, N) float64 that add up to ``resamples`` rows.

    G groups are drawn with replacement from the G there are; all images of a group are drawn as often as it is.

    Args:
        clusters: (N,) int64 from 0 to G - 1, the group of each image.
        resamples: R, how many rows in all.
        seed: of the draws.
    """
    generator = np.random.default_rng(seed)
    groups = int(clusters.max()) + 1
    rows = max(1, _CHUNK_CELLS // clusters.size)
    for start in range(0, resamples, rows):
        chunk = min(rows, resamples - start)
        drawn = generator.integers(groups, size=(chunk, groups)) + np.arange(chunk)[:, None] * groups
        times = np.bincount(drawn.ravel(), minlength=chunk * groups).reshape(chunk, groups)  # (r, G)
        yield times[:, clusters].astype(np.float64)  # (r, N)


def _statistics(scores: Scores, weights: FloatArray) -> dict[str, FloatArray]:
    """Every statistic as (R,) float64 for R weightings (R, N); the keys are those of _rests_on."""
    statistics: dict[str, FloatArray] = {}
    known, masked = scores.labelled, scores.masked
    if known.any():
        own, labels, predicted = weights[:, known], scores.labels[known], scores.predicted[known]
        rates = confusion_rates(confusion_counts(labels, predicted, len(scores.class_names), own))
        areas = one_vs_rest_auc(labels, scores.probabilities[known], own)  # (R, K)
        statistics["accuracy"] = rates.accuracy
        statistics["balanced_accuracy"] = nan_mean(rates.recall)
        statistics["macro_f1"] = nan_mean(rates.f1)
        statistics["macro_roc_auc"] = nan_mean(areas)
        columns = {"roc_auc": areas, "precision": rates.precision, "recall": rates.recall, "f1": rates.f1}
        for k, name in enumerate(scores.class_names):
            statistics.update({f"{key}/{name}": column[:, k] for key, column in columns.items()})
    if masked.any():
        own = weights[:, masked]
        statistics["dice"] = divide(own @ scores.dice[masked], own.sum(axis=1))
        statistics["iou"] = divide(own @ scores.iou[masked], own.sum(axis=1))
    return statistics


def _rests_on(scores: Scores) -> dict[str, NDArray[np.bool_]]:
    """Which images (N,) each statistic rests on: its n."""
    rows: dict[str, NDArray[np.bool_]] = {}
    known, masked = scores.labelled, scores.masked
    if known.any():
        rows.update(dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1", "macro_roc_auc"), known))
        for k, name in enumerate(scores.class_names):
            rows.update(dict.fromkeys((f"roc_auc/{name}", f"recall/{name}", f"f1/{name}"), scores.labels == k))
            rows[f"precision/{name}"] = known & (scores.predicted == k)
    if masked.any():
        rows.update(dict.fromkeys(("dice", "iou"), masked))
    return rows


def _interval(value: float, draws: FloatArray, clusters: NDArray[np.int64]) -> Interval:
    defined = draws[np.isfinite(draws)]
    if np.isnan(value) or np.unique(clusters).size < 2 or not defined.size:
        return Interval(value, np.nan, np.nan, clusters.size)
    low, high = np.percentile(defined, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return Interval(value, float(low), float(high), clusters.size)
