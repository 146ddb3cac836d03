"""Which figures an evaluated split gives, and all of them with their intervals from one bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hilum.metrics.bootstrap import Interval, bootstrap
from hilum.metrics.scores import (
    FloatArray,
    Scores,
    average_precision,
    confusion_counts,
    confusion_rates,
    divide,
    matthews,
    matthews_by_class,
    nan_mean,
    one_vs_rest_auc,
    specificity,
    weighted_auc,
)

OVERALL = (
    "accuracy", "balanced_accuracy", "macro_f1", "macro_roc_auc", "macro_pr_auc", "macro_precision",
    "macro_specificity", "mcc",
)  # fmt: skip
"""Figures over all labeled images; balanced accuracy is the macro recall, mcc the multiclass R_K."""
BY_CLASS = ("recall", "precision", "specificity", "f1", "roc_auc", "pr_auc", "balanced_accuracy", "mcc")
"""Figures of one class, one-vs-rest; balanced accuracy is the mean of recall and specificity."""
OVERLAP = ("dice", "iou", "hd95")
"""Means over the images with a reference mask."""

_BOUNDS = {"mcc": (-1.0, 1.0), "hd95": (0.0, np.inf)}

Rows = NDArray[np.bool_]


class Key(NamedTuple):
    """The name of a figure.

    Attributes:
        metric: Of OVERALL, BY_CLASS or OVERLAP.
        class_name: The class it is of; None for all.
        source: The source it is restricted to; None for all.
        versus: For a contrast, the other class: the AUROC of ``class_name`` against ``versus`` alone.
    """

    metric: str
    class_name: str | None = None
    source: str | None = None
    versus: str | None = None


def figures_of(scores: Scores, *, resamples: int = 1000, seed: int = 0) -> dict[Key, Interval]:
    """Compute every figure of the split with its 95% confidence interval.

    The n of an interval counts the images that it rests on: for recall, F1, AUROC, AUPRC, MCC and balanced
    accuracy of a class its own images, for specificity those of the other classes, for precision those predicted as
    the class. A contrast counts the images of both classes. Groups are drawn within classes.
    """
    rows, clusters = rests_on(scores), scores.clusters()
    found = bootstrap(
        statistics_of(scores),
        rows,
        clusters,
        strata=scores.labels,
        bounds=bounds_of(rows),
        resamples=resamples,
        seed=seed,
    )
    return {
        key: replace(interval, low=np.nan, high=np.nan) if _is_lopsided(scores, key, rows[key], clusters) else interval
        for key, interval in found.items()
    }


def _is_lopsided(scores: Scores, key: Key, rows: Rows, clusters: NDArray[np.int64]) -> bool:
    """Whether one class of a contrast is a single group, whose spread nothing shows."""
    if key.versus is None:
        return False
    return any(np.unique(clusters[rows & (scores.labels == k)]).size < 2 for k in np.unique(scores.labels[rows]))


def bounds_of(keys: Iterable[Key]) -> dict[Key, tuple[float, float]]:
    """Return the least and the greatest value that each figure can have."""
    return {key: _BOUNDS.get(key.metric, (0.0, 1.0)) for key in keys}


def statistics_of(scores: Scores) -> Callable[[FloatArray], dict[Key, FloatArray]]:
    """Return the function that gives every figure as (R,) float64 for R weightings (R, N); its keys are rests_on's."""
    pairs = list(_contrasts(scores))
    sources = _sources(scores)

    def statistics(weights: FloatArray) -> dict[Key, FloatArray]:
        found: dict[Key, FloatArray] = {}
        if scores.labeled.any():
            found.update(_classification(scores, weights))
            for source, rows in sources.items():
                found.update(_within(scores, weights, source, rows & scores.labeled))
            for key, rows in pairs:
                found[key] = _contrast(scores, weights, key, rows)
        for key, rows in _overlap_rows(scores, sources):
            values = getattr(scores, key.metric)[rows]
            found[key] = divide(weights[:, rows] @ values, weights[:, rows].sum(axis=1))
        return found

    return statistics


def rests_on(scores: Scores) -> dict[Key, Rows]:
    """Return which images (N,) each figure rests on: its n."""
    rows: dict[Key, Rows] = {}
    known, sources = scores.labeled, _sources(scores)
    if known.any():
        rows.update({Key(metric): known for metric in OVERALL})
        for k, name in enumerate(scores.class_names):
            own = scores.labels == k
            rows.update({Key(metric, name): own for metric in BY_CLASS})
            rows[Key("precision", name)] = known & (scores.predicted == k)
            rows[Key("specificity", name)] = known & ~own
        for source, inside in sources.items():
            if (inside & known).any():
                rows[Key("accuracy", None, source)] = inside & known
                rows[Key("balanced_accuracy", None, source)] = inside & known
            for k, name in enumerate(scores.class_names):
                if (inside & (scores.labels == k)).any():
                    rows[Key("recall", name, source)] = inside & (scores.labels == k)
        rows.update(_contrasts(scores))
    rows.update(_overlap_rows(scores, sources))
    return rows


def _classification(scores: Scores, weights: FloatArray) -> Iterator[tuple[Key, FloatArray]]:
    known, names = scores.labeled, scores.class_names
    own, labels, probabilities = weights[:, known], scores.labels[known], scores.probabilities[known]
    confusion = confusion_counts(labels, scores.predicted[known], len(names), own)  # (R, K, K)
    rates, spared = confusion_rates(confusion), specificity(confusion)
    areas = one_vs_rest_auc(labels, probabilities, own)  # (R, K)
    ranked = np.stack([average_precision(labels == k, probabilities[:, k], own) for k in range(len(names))], axis=1)
    yield Key("accuracy"), rates.accuracy
    yield Key("balanced_accuracy"), nan_mean(rates.recall)
    yield Key("mcc"), matthews(confusion)
    columns = {
        "precision": rates.precision, "specificity": spared, "f1": rates.f1, "roc_auc": areas, "pr_auc": ranked,
    }  # fmt: skip
    for metric, column in columns.items():
        yield Key(f"macro_{metric}"), nan_mean(column)
    columns |= {
        "recall": rates.recall,
        "balanced_accuracy": (rates.recall + spared) / 2,
        "mcc": matthews_by_class(confusion),
    }
    for metric, column in columns.items():
        for k, name in enumerate(names):
            yield Key(metric, name), column[:, k]


def _within(scores: Scores, weights: FloatArray, source: str, rows: Rows) -> Iterator[tuple[Key, FloatArray]]:
    """Accuracy, balanced accuracy and recalls inside one source; AUCs inside a source are its contrasts."""
    if not rows.any():
        return
    confusion = confusion_counts(scores.labels[rows], scores.predicted[rows], len(scores.class_names), weights[:, rows])
    rates = confusion_rates(confusion)
    yield Key("accuracy", None, source), rates.accuracy
    yield Key("balanced_accuracy", None, source), nan_mean(rates.recall)
    for k, name in enumerate(scores.class_names):
        if (scores.labels[rows] == k).any():
            yield Key("recall", name, source), rates.recall[:, k]


def _contrasts(scores: Scores) -> Iterator[tuple[Key, Rows]]:
    """Every pair of classes, over all sources and inside each source that has both, with the images of the two."""
    for (a, first), (b, second) in combinations(enumerate(scores.class_names), 2):
        both = [scores.labels == a, scores.labels == b]
        everywhere = np.ones(len(scores.files), np.bool_)
        for source, inside in [(None, everywhere), *_sources(scores).items()]:
            if all((inside & own).any() for own in both):
                yield Key("roc_auc", first, source, second), inside & (both[0] | both[1])


def ranking(scores: Scores, key: Key, rows: Rows) -> FloatArray:
    """Return what the AUROC named ``key`` ranks ``rows`` (n,) by.

    It is the class's probability, or for a contrast that given one of the two classes.
    """
    own = scores.class_names.index(str(key.class_name))
    if key.versus is None:
        return np.asarray(scores.probabilities[rows, own])
    other = scores.class_names.index(key.versus)
    if scores.logits is not None:  # finer than the probabilities, which saturate
        return np.asarray(scores.logits[rows, own] - scores.logits[rows, other])
    first, second = scores.probabilities[rows, own], scores.probabilities[rows, other]
    return np.where(first + second > 0, first / np.maximum(first + second, 1e-300), 0.5)


def _contrast(scores: Scores, weights: FloatArray, key: Key, rows: Rows) -> FloatArray:
    """The AUROC of one class against one other."""
    positive = scores.labels[rows] == scores.class_names.index(str(key.class_name))
    return weighted_auc(positive, ranking(scores, key, rows), weights[:, rows])


def _overlap_rows(scores: Scores, sources: Mapping[str, Rows]) -> Iterator[tuple[Key, Rows]]:
    masked = scores.masked
    for metric in OVERLAP:
        if not masked.any() or getattr(scores, metric) is None:
            continue
        yield Key(metric), masked
        for k, name in enumerate(scores.class_names):
            if (rows := masked & (scores.labels == k)).any():
                yield Key(metric, name), rows
        for source, inside in sources.items():
            if (rows := masked & inside).any():
                yield Key(metric, None, source), rows


def _sources(scores: Scores) -> dict[str, Rows]:
    """The images (N,) of each source; none where all images come from one, since nothing is then within it alone."""
    if len({*scores.sources}) < 2:
        return {}
    names = sorted({source for source in scores.sources if source is not None})
    column = np.array([source or "" for source in scores.sources])
    return {name: column == name for name in names}
