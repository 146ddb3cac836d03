"""All metrics of an evaluated split with their confidence intervals, from one bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
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
    macro_average,
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
"""Metrics over all labeled images; balanced accuracy is the macro recall, mcc the multiclass R_K."""
WITHIN_SOURCES = "macro_roc_auc_within_sources"
"""Mean AUROC of two classes within one source, over all pairs and sources with GROUPS_WITHIN groups of either class."""
GROUPS_WITHIN = 10
BY_CLASS = ("recall", "precision", "specificity", "f1", "roc_auc", "pr_auc", "balanced_accuracy", "mcc")
"""Metrics of one class, one-vs-rest; balanced accuracy is the mean of recall and specificity."""
OVERLAP = ("dice", "iou", "hd95_share")
"""Metrics of lung masks, averaged over the images with a reference mask."""
RANKED = ("roc_auc", "macro_roc_auc", WITHIN_SOURCES)
"""AUROCs and means of AUROCs."""
SHARES = ("accuracy", "recall", "precision", "specificity")
"""Metrics that are the share of some images that are right."""

_BOUNDS = {"mcc": (-1.0, 1.0), "hd95_share": (0.0, np.inf)}
_AGAINST_REST = {*BY_CLASS} - {"recall", "specificity"}
_MEAN_OF = {"balanced_accuracy": "recall"} | {
    f"macro_{metric}": metric for metric in ("f1", "roc_auc", "pr_auc", "precision", "specificity")
}

Rows = NDArray[np.bool_]


class Key(NamedTuple):
    """Name of a metric.

    Attributes:
        metric: One of OVERALL, BY_CLASS or OVERLAP, or WITHIN_SOURCES.
        class_name: The class; None for all classes.
        source: The source that the images are restricted to; None for all sources.
        versus: The other class of a pairwise AUROC, of ``class_name`` against ``versus`` only.
    """

    metric: str
    class_name: str | None = None
    source: str | None = None
    versus: str | None = None


def figures_of(scores: Scores, *, resamples: int = 1000, seed: int = 0) -> dict[Key, Interval]:
    """Return every metric of a split with its 95% confidence interval.

    The n of an interval is the number of images that the metric depends on: for recall, F1, AUROC, AUPRC, MCC and
    balanced accuracy of a class, its own images; for specificity, those of other classes; for precision, those
    predicted as the class; for pairwise AUROC, those of both classes. Groups are resampled within classes.

    Args:
        scores: The evaluated split.
        resamples: Bootstrap resamples.
        seed: Random seed of the bootstrap.
    """
    return intervals_of(statistics_of(scores), scores, rests_on(scores), resamples=resamples, seed=seed)


def intervals_of(
    statistics: Callable[[FloatArray], Mapping[Key, FloatArray]],
    scores: Scores,
    rows: Mapping[Key, Rows],
    *,
    differences: bool = False,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[Key, Interval]:
    """Return the 95% confidence intervals of metrics, or of their differences between two models on the same images.

    Args:
        statistics: Function from weights (R, N) to (R,) float64 per key, as from statistics_of.
        scores: The evaluated split, of either model.
        rows: The images (N,) bool that each metric depends on, as from rests_on.
        differences: The statistics are differences of two metrics.
        resamples: Bootstrap resamples.
        seed: Random seed of the bootstrap.
    """
    return bootstrap(
        statistics, rows, scores.clusters(), strata=scores.labels, bounds=bounds_of(rows, differences=differences),
        sides=sides_of(scores, rows), parts=_parts(scores, rows),
        shares=[] if differences else [key for key in rows if key.metric in SHARES],
        means=[] if differences else [key for key in rows if key.metric in OVERLAP],
        aurocs=[key for key in rows if key.metric in RANKED],
        resamples=resamples, seed=seed,
    )  # fmt: skip


def bounds_of(keys: Iterable[Key], *, differences: bool = False) -> dict[Key, tuple[float, float]]:
    """Return the minimum and maximum possible value of each metric, or of a difference of two."""
    found = {key: _BOUNDS.get(key.metric, (0.0, 1.0)) for key in keys}
    return {key: (low - high, high - low) for key, (low, high) in found.items()} if differences else found


def sides_of(scores: Scores, rows: Mapping[Key, Rows]) -> dict[Key, list[Rows]]:
    """Return the sets of images that a metric compares or averages over: a class and its rest, or all classes."""
    by_class = [scores.labels == k for k in range(len(scores.class_names))]
    found: dict[Key, list[Rows]] = {}
    for key, own in rows.items():
        if key.class_name is not None and key.versus is None and key.metric in _AGAINST_REST:
            positive = by_class[scores.class_names.index(key.class_name)]
            found[key] = [positive, scores.labeled & ~positive]
        elif key.versus is not None or key.metric in (*_MEAN_OF, WITHIN_SOURCES):
            found[key] = [own & members for members in by_class if (own & members).any()]
    return found


def _parts(scores: Scores, rows: Mapping[Key, Rows]) -> dict[Key, list[Key]]:
    """Return the metrics whose mean a metric is, over the classes with images, where all of them are in ``rows``."""
    found: dict[Key, list[Key]] = {}
    for key, own in rows.items():
        if key.metric in _MEAN_OF and key.class_name is None:
            present = [name for k, name in enumerate(scores.class_names) if (scores.labels[own] == k).any()]
            found[key] = [Key(_MEAN_OF[key.metric], name, key.source) for name in present]
        elif key.metric == WITHIN_SOURCES:
            found[key] = within_sources(scores)
        elif key.metric == "balanced_accuracy":
            found[key] = [key._replace(metric="recall"), key._replace(metric="specificity")]
    return {key: own for key, own in found.items() if all(part in rows for part in own)}


def statistics_of(scores: Scores) -> Callable[[FloatArray], dict[Key, FloatArray]]:
    """Return a function from weights (R, N) to every metric as (R,) float64, with the keys of rests_on."""
    pairs = list(_contrasts(scores))
    sources = sources_of(scores)
    averaged = within_sources(scores)

    def statistics(weights: FloatArray) -> dict[Key, FloatArray]:
        found: dict[Key, FloatArray] = {}
        if scores.labeled.any():
            found.update(_classification(scores, weights))
            for source, rows in sources.items():
                found.update(_within(scores, weights, source, rows & scores.labeled))
            for key, rows in pairs:
                found[key] = _contrast(scores, weights, key, rows)
            if averaged:
                found[Key(WITHIN_SOURCES)] = nan_mean(np.stack([found[key] for key in averaged], axis=1))
        for key, rows in _overlap_rows(scores, sources):
            values = getattr(scores, key.metric)[rows]
            found[key] = divide(weights[:, rows] @ values, weights[:, rows].sum(axis=1))
        return found

    return statistics


def rests_on(scores: Scores) -> dict[Key, Rows]:
    """Return the images (N,) bool that each metric depends on."""
    rows: dict[Key, Rows] = {}
    known, sources = scores.labeled, sources_of(scores)
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
        if averaged := within_sources(scores):
            rows[Key(WITHIN_SOURCES)] = np.logical_or.reduce([rows[key] for key in averaged])
    rows.update(_overlap_rows(scores, sources))
    return rows


def _classification(scores: Scores, weights: FloatArray) -> Iterator[tuple[Key, FloatArray]]:
    known, names = scores.labeled, scores.class_names
    own, labels, probabilities = weights[:, known], scores.labels[known], scores.probabilities[known]
    confusion = confusion_counts(labels, scores.predicted[known], len(names), own)  # (R, K, K)
    rates, spared = confusion_rates(confusion), specificity(confusion)
    areas = one_vs_rest_auc(labels, probabilities, own)  # (R, K)
    ranked = np.stack([average_precision(labels == k, probabilities[:, k], own) for k in range(len(names))], axis=1)
    present = _present(labels, len(names))
    yield Key("accuracy"), rates.accuracy
    yield Key("balanced_accuracy"), macro_average(rates.recall, rates.recall, present)
    yield Key("mcc"), matthews(confusion)
    columns = {
        "precision": rates.precision, "specificity": spared, "f1": rates.f1, "roc_auc": areas, "pr_auc": ranked,
    }  # fmt: skip
    for metric, column in columns.items():
        counted = np.nan_to_num(column) if metric == "precision" else column  # 0 where a class is never predicted
        yield Key(f"macro_{metric}"), macro_average(counted, rates.recall, present)
    columns |= {
        "recall": rates.recall,
        "balanced_accuracy": (rates.recall + spared) / 2,
        "mcc": matthews_by_class(confusion),
    }
    for metric, column in columns.items():
        for k, name in enumerate(names):
            yield Key(metric, name), column[:, k]


def _within(scores: Scores, weights: FloatArray, source: str, rows: Rows) -> Iterator[tuple[Key, FloatArray]]:
    """Yield accuracy, balanced accuracy and recalls within one source."""
    if not rows.any():
        return
    confusion = confusion_counts(scores.labels[rows], scores.predicted[rows], len(scores.class_names), weights[:, rows])
    rates = confusion_rates(confusion)
    yield Key("accuracy", None, source), rates.accuracy
    present = _present(scores.labels[rows], len(scores.class_names))
    yield Key("balanced_accuracy", None, source), macro_average(rates.recall, rates.recall, present)
    for k, name in enumerate(scores.class_names):
        if present[k]:
            yield Key("recall", name, source), rates.recall[:, k]


def _present(labels: NDArray[np.int64], classes: int) -> Rows:
    """Return which of the K classes have an image, (K,) bool."""
    return np.bincount(labels, minlength=classes) > 0


def classes_left_out(scores: Scores, key: Key) -> tuple[str, ...]:
    """Name the classes without images, which a macro average leaves out; empty for other metrics."""
    if not _is_macro(key):
        return ()
    rows = scores.labeled if key.source is None else scores.labeled & sources_of(scores)[key.source]
    return _named(scores, ~_present(scores.labels[rows], len(scores.class_names)))


def classes_as_zero(scores: Scores, key: Key) -> tuple[str, ...]:
    """Name the classes with images that are never predicted, whose precision the macro precision counts as 0."""
    if key.metric != "macro_precision":
        return ()
    known, classes = scores.labeled, len(scores.class_names)
    return _named(scores, _present(scores.labels[known], classes) & ~_present(scores.predicted[known], classes))


def _is_macro(key: Key) -> bool:
    averaged = key.metric == "balanced_accuracy" or key.metric.startswith("macro_")
    return averaged and key.class_name is None and key.metric != WITHIN_SOURCES  # a mean over pairs of classes


def _named(scores: Scores, chosen: Rows) -> tuple[str, ...]:
    return tuple(name for name, own in zip(scores.class_names, chosen, strict=True) if own)


def _contrasts(scores: Scores) -> Iterator[tuple[Key, Rows]]:
    """Yield every pair of classes, over all sources and within each source that has both, with their images."""
    for (a, first), (b, second) in combinations(enumerate(scores.class_names), 2):
        both = [scores.labels == a, scores.labels == b]
        everywhere = np.ones(len(scores.files), np.bool_)
        for source, inside in [(None, everywhere), *sources_of(scores).items()]:
            if all((inside & own).any() for own in both):
                yield Key("roc_auc", first, source, second), inside & (both[0] | both[1])


def within_sources(scores: Scores) -> list[Key]:
    """Return the pairwise AUROCs within one source that WITHIN_SOURCES averages; they depend on the labels alone."""
    clusters = scores.clusters()

    def fewest(rows: Rows) -> int:
        return min(np.unique(clusters[rows & (scores.labels == k)]).size for k in np.unique(scores.labels[rows]))

    return [key for key, rows in _contrasts(scores) if key.source is not None and fewest(rows) >= GROUPS_WITHIN]


def ranking(scores: Scores, key: Key, rows: Rows) -> FloatArray:
    """Return the scores by which the AUROC ``key`` ranks the images ``rows``.

    This is the probability of the class, or for a pairwise AUROC its probability given one of the two classes.
    """
    own = scores.class_names.index(str(key.class_name))
    if key.versus is None:
        return np.asarray(scores.probabilities[rows, own])
    other = scores.class_names.index(key.versus)
    if scores.logits is not None:  # more precise than saturated probabilities
        return np.asarray(scores.logits[rows, own] - scores.logits[rows, other])
    first, second = scores.probabilities[rows, own], scores.probabilities[rows, other]
    return np.where(first + second > 0, first / np.maximum(first + second, 1e-300), 0.5)


def _contrast(scores: Scores, weights: FloatArray, key: Key, rows: Rows) -> FloatArray:
    """Return the pairwise AUROC (R,) of two classes."""
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


def sources_of(scores: Scores) -> dict[str, Rows]:
    """Return the images (N,) of each source; empty if all images come from one source."""
    if len({*scores.sources}) < 2:
        return {}
    names = sorted({source for source in scores.sources if source is not None})
    column = np.array([source or "" for source in scores.sources])
    return {name: column == name for name in names}
