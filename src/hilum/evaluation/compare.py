"""Compare two models on the same images: DeLong's test for AUROCs, the paired bootstrap for all other metrics.

Every difference is B minus A. The same resamples of groups are used for both models, so that variation they share
cancels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np

from hilum.errors import DataError
from hilum.evaluation.alignment import aligned
from hilum.evaluation.predictions import PREDICTIONS_FILE
from hilum.evaluation.results import read_evaluation
from hilum.format import metric_title
from hilum.metrics.bootstrap import LEVEL, bootstrap
from hilum.metrics.delong import DeLongTest, delong_test, holm
from hilum.metrics.scores import FloatArray, Scores
from hilum.metrics.table import OVERALL, OVERLAP, Key, ranking, rests_on, statistics_of
from hilum.run_folder import RunFolder
from hilum.storage import as_json, write_json

_LOWER_IS_BETTER = frozenset({"hd95"})
_UNDEFINED = DeLongTest(*[math.nan] * 8)


@dataclass(frozen=True)
class Difference:
    """One metric of both models, and the difference with its 95% interval.

    Attributes:
        metric: As in hilum.metrics.table.Key, with the three fields below.
        class_name: The class; None for all.
        source: The source; None for all.
        versus: The other class of a contrast; None for one-vs-rest.
        a: The metric of model A; NaN where it is undefined.
        b: The metric of model B.
        difference: ``b - a``.
        low: Lower bound of its 95% interval; NaN where fewer than two groups bear on it.
        high: Upper bound, likewise.
        n: Number of images that the metric of either model is computed from, as in hilum.metrics.table.figures_of.
        method: ``delong`` or ``bootstrap``.
        p: Two-sided p value of DeLong's test; None for the bootstrap.
        p_holm: ``p`` adjusted for the number of tests of its kind: one-vs-rest AUROCs, or contrasts within sources.
        n_positive: For an AUROC that was tested, the number of images of the class; else None.
        n_negative: Likewise, the number of images of the other classes, or of ``versus``.
    """

    metric: str
    class_name: str | None
    source: str | None
    versus: str | None
    a: float
    b: float
    difference: float
    low: float
    high: float
    n: int
    method: str
    p: float | None = None
    p_holm: float | None = None
    n_positive: int | None = None
    n_negative: int | None = None

    @property
    def better(self) -> str | None:
        """``A`` or ``B`` where the difference is significant: adjusted p below 0.05, or an interval without 0."""
        by_interval = self.low > 0 or self.high < 0
        if not (by_interval if self.p_holm is None else self.p_holm < 1 - LEVEL):
            return None
        return "B" if (self.difference > 0) != (self.metric in _LOWER_IS_BETTER) else "A"


@dataclass(frozen=True)
class Comparison:
    """Two models, A and B, on one set of images.

    Attributes:
        split: Name of the split.
        images: Number of images, those without a label included.
        groups: Number of groups.
        resamples: Number of bootstrap resamples.
        seed: Random seed of the bootstrap.
        differences: One per metric.
        seen: Number of images in the training data of A and of B; None where that is not known.
        unseen: The same comparison over groups without an image in the training data of either model; None where that
            is all images, or no labeled image.
        labeled: Number of images with a label.
        with_masks: Number of images on which both models have lung mask metrics.
    """

    split: str
    images: int
    groups: int
    resamples: int
    seed: int
    differences: tuple[Difference, ...]
    seen: tuple[int | None, int | None] = (None, None)
    unseen: Comparison | None = None
    labeled: int = 0
    with_masks: int = 0

    @property
    def headline(self) -> tuple[Difference, ...]:
        """The differences to show first: metrics over all images, and every AUROC that was tested."""
        plain = {Key(metric) for metric in (*OVERALL, *OVERLAP)}
        return tuple(d for d in self.differences if d.p is not None or _key(d) in plain)


def compare(a: Scores, b: Scores, *, resamples: int = 1000, seed: int = 0) -> Comparison:
    """Compare two models on the same images, matched by file name; order, and the order of classes, may differ.

    The one-vs-rest AUROC of each class, and the AUROC of each pair of classes within a source that has both, get
    DeLong's test (hilum.metrics.delong), with p values adjusted by Holm's method. Every other metric of
    hilum.metrics.table gets the paired bootstrap. Dice, IoU and the Hausdorff distance are compared over the images
    where both models have them. Groups and sources are those of either table, where only one gives them.

    Args:
        a: Scores of model A.
        b: Scores of model B.
        resamples: Number of bootstrap resamples.
        seed: Random seed of the bootstrap.

    Raises:
        DataError: Files, labels, classes, groups or sources of the two differ, or a file is listed twice.
        ConfigError: ``resamples`` is below 2.
    """
    a, b = aligned(a, b)
    whole = _compared(a, b, resamples, seed)
    rows = a.unseen & b.unseen
    if rows.all() or not (rows & a.labeled).any():
        return whole
    return replace(whole, unseen=_compared(a.subset(rows), b.subset(rows), resamples, seed))


def _compared(a: Scores, b: Scores, resamples: int, seed: int) -> Comparison:
    """The comparison over all images of two aligned tables."""
    of_b = rests_on(b)
    keys = [key for key in rests_on(a) if key in of_b]
    tested = [key for key in keys if key.metric == "roc_auc" and (key.versus is None or key.source is not None)]
    found = dict(_bootstrapped(a, b, [key for key in keys if key not in tested], resamples, seed))
    found.update(_tested(a, b, [key for key in tested if key.versus is None]))
    found.update(_tested(a, b, [key for key in tested if key.versus is not None]))
    differences = tuple(found[key] for key in keys)
    seen = (_seen(a), _seen(b))
    return Comparison(
        split=a.split,
        images=len(a.files),
        groups=int(a.clusters().max()) + 1,
        resamples=resamples,
        seed=seed,
        differences=differences,
        seen=seen,
        labeled=int(a.labeled.sum()),
        with_masks=int((a.masked & b.masked).sum()),
    )


def _seen(scores: Scores) -> int | None:
    return None if scores.seen is None else int(np.count_nonzero(scores.seen))


def open_scores(path: Path, split: str = "test") -> Scores:
    """Read the scores in a predictions.csv, in a folder that holds one, or of one split in a run's folder.

    The name of the split is that in the evaluation.json beside the table, where there is one.

    Args:
        path: The table or folder.
        split: The split of a run.

    Raises:
        DataError: There is no such file, or hilum.evaluation.results cannot read it.
    """
    places = (path, path / PREDICTIONS_FILE, RunFolder(path).results(split) / PREDICTIONS_FILE)
    for place in places:
        if place.is_file():
            return read_evaluation(place, split)[0].scores
    raise DataError(
        f"No {PREDICTIONS_FILE} found for '{path}', neither there nor in its folder {split}.",
        hint=f"Write it with: hilum evaluate {path} --split {split}",
    )


def write_comparison(comparison: Comparison, path: Path, *, names: tuple[str, str]) -> None:
    """Write all differences as JSON; an undefined number is null.

    Args:
        comparison: The comparison.
        path: The file.
        names: Names of A and B.

    Raises:
        OutputError: The file cannot be written.
    """
    write_json(path, as_json({"a": names[0], "b": names[1], "verdict": verdict(comparison), **asdict(comparison)}))


def verdict(comparison: Comparison) -> str:
    """Return the comparison in one sentence: which model is better in what, each with its n, or that neither is.

    Where a model was trained on some of the images, the sentence is about those that neither has seen.
    """
    if any(comparison.seen):
        if comparison.unseen is None:
            return "No verdict: a model was trained on these images, and no labeled image is unseen by both."
        return f"Images unseen by both: {verdict(comparison.unseen)}"
    better = {model: [d for d in comparison.headline if d.better == model] for model in "AB"}
    on = f"on {counts_of(comparison)}"
    if not better["A"] and not better["B"]:
        return f"No significant difference between A and B {on}."
    parts = [f"{model} is better in {_with_n(found)}" for model, found in better.items() if found]
    rest = len(comparison.headline) - len(better["A"]) - len(better["B"])
    tail = f"; no significant difference in the other {rest} metrics" if rest else ""
    return f"{', and '.join(parts)}, {on}{tail}."


def _with_n(differences: Sequence[Difference]) -> str:
    """The metrics in words, each with its n; neighbors of equal n share it."""
    texts = []
    for n, group in groupby(differences, key=n_of):
        names = [figure_name(difference) for difference in group]
        texts.append(f"{_listed(names)} (n = {n}{' each' if len(names) > 1 else ''})")
    return "; ".join(texts)


def counts_of(comparison: Comparison) -> str:
    """Return ``150 images in 75 groups, 143 labeled, 70 with lung masks``."""
    return (
        f"{comparison.images:,} images in {comparison.groups:,} groups, {comparison.labeled:,} labeled, "
        f"{comparison.with_masks:,} with lung masks"
    )


def n_of(difference: Difference) -> str:
    """Return the images that a metric is computed from: ``143``, or ``50 / 93`` of an AUROC's two sides."""
    if difference.n_positive is None or difference.n_negative is None:
        return f"{difference.n:,}"
    return f"{difference.n_positive:,} / {difference.n_negative:,}"


def seen_sentences(comparison: Comparison) -> tuple[str, ...]:
    """Return how many of the images are in the training data of A and of B, or that it is not known."""
    total = comparison.images
    return tuple(
        f"It is not known whether images are in {name}'s training data."
        if seen is None
        else f"{seen:,} of {total:,} images are in {name}'s training data."
        for name, seen in zip("AB", comparison.seen, strict=True)
    )


def figure_name(difference: Difference) -> str:
    """Return a metric in words: ``AUROC of COVID against Normal within hospital-1``."""
    words = metric_title(difference.metric)
    if difference.class_name is not None:
        words += f" of {difference.class_name}"
    if difference.versus is not None:
        words += f" against {difference.versus}"
    return words if difference.source is None else f"{words} within {difference.source}"


def _bootstrapped(a: Scores, b: Scores, keys: Sequence[Key], resamples: int, seed: int) -> list[tuple[Key, Difference]]:
    of_a, of_b = statistics_of(a), statistics_of(b)
    rows_a, rows_b = rests_on(a), rests_on(b)
    alone = np.ones((1, len(a.files)))
    value_a, value_b = of_a(alone), of_b(alone)

    def halfway(weights: FloatArray) -> dict[Key, FloatArray]:
        # bootstrap takes a figure of 0 or 1 without spread for a share; differences of 0 are moved to 0.5.
        drawn_a, drawn_b = of_a(weights), of_b(weights)
        return {key: (1 + (drawn_b[key] - drawn_a[key])) / 2 for key in keys}

    rows = {key: rows_a[key] | rows_b[key] for key in keys}
    within = {key: (-0.5, 1.5) if key.metric == "mcc" else (0.0, 1.0) for key in keys if key.metric != "hd95"}
    intervals = bootstrap(halfway, rows, a.clusters(), strata=a.labels, bounds=within, resamples=resamples, seed=seed)
    return [
        (key, Difference(
            *key, a=float(value_a[key][0]), b=float(value_b[key][0]),
            difference=float(value_b[key][0] - value_a[key][0]),
            low=2 * intervals[key].low - 1, high=2 * intervals[key].high - 1, n=intervals[key].n, method="bootstrap",
        ))
        for key in keys
    ]  # fmt: skip


def _tested(a: Scores, b: Scores, keys: Sequence[Key]) -> list[tuple[Key, Difference]]:
    """DeLong's test of each AUROC, adjusted for their number; NaN where all images are positive or all negative."""
    rows_of, clusters = rests_on(a), a.clusters()
    results: list[DeLongTest] = []
    sides: list[tuple[int, int]] = []
    for key in keys:
        rows = a.labeled if key.versus is None else rows_of[key]
        positive = a.labels[rows] == a.class_names.index(str(key.class_name))
        sides.append((int(positive.sum()), int((~positive).sum())))
        if positive.all() or not positive.any():
            results.append(_UNDEFINED)
        else:
            results.append(delong_test(positive, ranking(a, key, rows), ranking(b, key, rows), clusters[rows]))
    adjusted = holm([test.p for test in results])
    return [
        (
            key,
            Difference(
                *key, a=test.auc_a, b=test.auc_b, difference=test.difference, low=test.low, high=test.high,
                n=int(rows_of[key].sum()), method="delong", p=test.p, p_holm=p_holm,
                n_positive=side[0], n_negative=side[1],
            ),
        )
        for key, test, p_holm, side in zip(keys, results, adjusted, sides, strict=True)
    ]  # fmt: skip


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _key(difference: Difference) -> Key:
    return Key(difference.metric, difference.class_name, difference.source, difference.versus)
