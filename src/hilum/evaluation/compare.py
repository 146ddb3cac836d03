"""Two models on the same images: DeLong's test for the AUCs, the paired bootstrap for the rest.

Every difference is B less A. Groups are drawn once and count alike for both models, so that what the two have in
common cancels out of the interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.errors import DataError
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
    """One figure of both models, and the difference with its 95% interval.

    Attributes:
        metric, class_name, source, versus: see hilum.metrics.table.Key.
        a, b: the figure of either model; NaN where it is undefined.
        difference: ``b - a``.
        low, high: its 95% interval; NaN where fewer than two groups bear on it.
        n: how many images it rests on.
        method: ``delong`` or ``bootstrap``.
        p: two-sided, of DeLong's test; None for the bootstrap.
        p_holm: ``p`` adjusted for the number of tests of its kind: one-vs-rest AUROCs, or contrasts within sources.
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

    @property
    def better(self) -> str | None:
        """``A`` or ``B`` where the data tell: the adjusted p is below 0.05, or the interval leaves out 0."""
        by_interval = self.low > 0 or self.high < 0
        if not (by_interval if self.p_holm is None else self.p_holm < 1 - LEVEL):
            return None
        return "B" if (self.difference > 0) != (self.metric in _LOWER_IS_BETTER) else "A"


@dataclass(frozen=True)
class Comparison:
    """Two models, A and B, on one set of images.

    Attributes:
        split: the name of the split.
        images, groups: their numbers.
        resamples, seed: of the bootstrap.
        differences: one per figure.
        seen: how many of the images are in the training data of A and of B; None where that is not known.
        unseen: the same over the images of groups of which neither model has seen one; None where that is all of
            them, or no labeled image.
    """

    split: str
    images: int
    groups: int
    resamples: int
    seed: int
    differences: tuple[Difference, ...]
    seen: tuple[int | None, int | None] = (None, None)
    unseen: Comparison | None = None

    @property
    def headline(self) -> tuple[Difference, ...]:
        """The differences to show first: figures over all images, and every AUROC that was tested."""
        plain = {Key(metric) for metric in (*OVERALL, *OVERLAP)}
        return tuple(d for d in self.differences if d.p is not None or _key(d) in plain)


def compare(a: Scores, b: Scores, *, resamples: int = 1000, seed: int = 0) -> Comparison:
    """Compare two models on the same images, matched by file name; order, and the order of classes, may differ.

    The one-vs-rest AUROC of each class, and of each pair of classes inside a source that has both, get DeLong's test
    (hilum.metrics.delong), with p values adjusted by Holm's method. Every other figure of
    hilum.metrics.table gets the paired bootstrap. Dice, IoU and the Hausdorff distance are compared over the
    images where both have them. Groups and sources are those of either table, where just one gives them.

    Raises:
        DataError: files, labels, classes, groups or sources of the two differ, or a file is there twice.
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
    return Comparison(a.split, len(a.files), int(a.clusters().max()) + 1, resamples, seed, differences, seen)


def _seen(scores: Scores) -> int | None:
    return None if scores.seen is None else int(np.count_nonzero(scores.seen))


def open_scores(path: Path, split: str = "test") -> Scores:
    """Return the scores in a predictions.csv, in a folder that holds one, or in a run's folder, there of ``split``.

    The name of their split is that of the evaluation.json beside the table, where there is one.

    Raises:
        DataError: there is no such file, or it is not what hilum.evaluation.results reads.
    """
    places = (path, path / PREDICTIONS_FILE, RunFolder(path).results(split) / PREDICTIONS_FILE)
    for place in places:
        if place.is_file():
            return read_evaluation(place, split)[0].scores
    raise DataError(
        f"Expected a {PREDICTIONS_FILE}, its folder or a run's folder with {split}/{PREDICTIONS_FILE}, got {path}.",
        hint=f"Write it with: hilum evaluate {path} --split {split}",
    )


def write_comparison(comparison: Comparison, path: Path, *, names: tuple[str, str]) -> None:
    """Write all differences as JSON; what is undefined is null.

    Args:
        comparison: from compare.
        path: the file.
        names: of A and B, for the reader.

    Raises:
        OutputError: the file cannot be written.
    """
    write_json(path, as_json({"a": names[0], "b": names[1], "verdict": verdict(comparison), **asdict(comparison)}))


def verdict(comparison: Comparison) -> str:
    """The comparison in one sentence: which model is better in what, or that the data cannot tell.

    Where a model was trained on some of the images, it is of those that neither has seen.
    """
    if any(comparison.seen):
        if comparison.unseen is None:
            return "No verdict: a model was trained on these images, and no labeled image is unseen by both."
        return f"Unseen by both: {verdict(comparison.unseen)}"
    told: dict[str, list[str]] = {"A": [], "B": []}
    for difference in comparison.headline:
        if difference.better is not None:
            told[difference.better].append(figure_name(difference))
    on = f"on these {comparison.images:,} images in {comparison.groups:,} groups"
    if not told["A"] and not told["B"]:
        return f"The data cannot tell A and B apart {on}: no difference is clear of 0."
    parts = [f"{model} is better in {_listed(names)}" for model, names in told.items() if names]
    rest = len(comparison.headline) - len(told["A"]) - len(told["B"])
    tail = f"; in the other {rest} figures the data cannot tell them apart" if rest else ""
    return f"{', and '.join(parts)}, {on}{tail}."


def seen_sentences(comparison: Comparison) -> tuple[str, ...]:
    """How many of the images are in the training data of A and of B, for each of which that is known."""
    total = comparison.images
    return tuple(
        f"{seen:,} of {total:,} images are in {name}'s training data."
        for name, seen in zip("AB", comparison.seen, strict=True)
        if seen is not None
    )


def figure_name(difference: Difference) -> str:
    """A figure in words: ``AUROC of COVID against Normal within hospital-1``."""
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
    """DeLong's test of each AUROC, adjusted for their number; NaN where there are images of one kind only."""
    rows_of, clusters = rests_on(a), a.clusters()
    results: list[DeLongTest] = []
    for key in keys:
        rows = a.labeled if key.versus is None else rows_of[key]
        positive = a.labels[rows] == a.class_names.index(str(key.class_name))
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
            ),
        )
        for key, test, p_holm in zip(keys, results, adjusted, strict=True)
    ]  # fmt: skip


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _key(difference: Difference) -> Key:
    return Key(difference.metric, difference.class_name, difference.source, difference.versus)


_NAMED = 3  # how many differing files an error names


def aligned(a: Scores, b: Scores) -> tuple[Scores, Scores]:
    """Both in A's order of files and classes, with the same groups and sources.

    Groups and sources are those of either, where just one gives them. What was measured on a mask (``dice``, ``iou``,
    ``hd95``) stays where both have it, and becomes NaN elsewhere.

    Raises:
        DataError: files, labels, classes, groups or sources of the two differ, or a file is there twice.
    """
    if set(a.class_names) != set(b.class_names):
        raise DataError(
            f"Expected two models of the same classes, got {', '.join(a.class_names)} and {', '.join(b.class_names)}."
        )
    _check_files(a.files, b.files)
    place = {file: row for row, file in enumerate(b.files)}
    order = np.array([place[file] for file in a.files])
    columns = [b.class_names.index(name) for name in a.class_names]
    renumbered = np.array([*(a.class_names.index(name) for name in b.class_names), -1])  # label -1 stays
    labels = renumbered[b.labels[order]]
    names = (*a.class_names, "no label")
    _check_equal("labels", [names[k] for k in a.labels], [names[k] for k in labels], a.files)
    groups = _merged("groups", a.groups, tuple(b.groups[row] for row in order), a.files)
    sources = _merged("sources", a.sources, tuple(b.sources[row] for row in order), a.files)
    both = a.masked & b.masked[order]
    b = replace(
        b, files=a.files, labels=labels, class_names=a.class_names, probabilities=b.probabilities[order][:, columns],
        logits=None if b.logits is None else b.logits[order][:, columns], dice=b.dice[order], iou=b.iou[order],
        hd95=None if b.hd95 is None else b.hd95[order], groups=groups, sources=sources,
        seen=None if b.seen is None else b.seen[order],
    )  # fmt: skip
    return _restricted(replace(a, groups=groups, sources=sources), both), _restricted(b, both)


def _restricted(scores: Scores, masked: NDArray[np.bool_]) -> Scores:
    """Without what was measured on other masks than those of ``masked`` (N,)."""
    distance = None if scores.hd95 is None else np.where(masked, scores.hd95, np.nan)
    dice, iou = (np.where(masked, values, np.nan) for values in (scores.dice, scores.iou))
    return replace(scores, dice=dice, iou=iou, hd95=distance)


def _check_files(a: Sequence[str], b: Sequence[str]) -> None:
    for model, files in (("A", a), ("B", b)):
        if len(set(files)) < len(files):
            twice = next(file for row, file in enumerate(files) if file in files[:row])
            raise DataError(f"Expected every file once in {model}, got {twice} twice.")
    only_a, only_b = sorted({*a} - {*b}), sorted({*b} - {*a})
    if only_a or only_b:
        parts = [
            f"{len(files):,} of {model} alone ({_some(files)})"
            for model, files in (("A", only_a), ("B", only_b))
            if files
        ]
        raise DataError(
            f"Expected two models on the same files, got {' and '.join(parts)}; {len({*a} & {*b}):,} are shared.",
            hint="Evaluate both on one data set and split.",
        )


def _check_equal(what: str, a: Sequence[Any], b: Sequence[Any], files: Sequence[str]) -> None:
    differing = [f"{file}: {x} and {y}" for file, x, y in zip(files, a, b, strict=True) if x != y]
    if differing:
        raise DataError(
            f"Expected the same {what} for the same files, got {len(differing):,} that differ ({_some(differing)}).",
            hint="Evaluate both on one data set and split.",
        )


def _merged(what: str, a: tuple[Any, ...], b: tuple[Any, ...], files: Sequence[str]) -> tuple[Any, ...]:
    """A's, or B's where A's table has none at all."""
    if not any(a) or not any(b):
        return a if any(a) else b
    _check_equal(what, a, b, files)
    return a


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
