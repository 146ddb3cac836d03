"""Compare two models on the same images: one primary figure alone, all others adjusted for their number.

Every difference is B minus A. The same resamples of groups are used for both models, so that variation they share
cancels. The tests are those of hilum.metrics.paired; hilum.evaluation.decision puts the result in words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from hilum.errors import ConfigError, DataError
from hilum.evaluation.alignment import aligned
from hilum.evaluation.predictions import PREDICTIONS_FILE
from hilum.evaluation.results import read_evaluation
from hilum.metrics.bootstrap import FEW_GROUPS, LEVEL, Interval
from hilum.metrics.paired import Paired, adjusted_p, paired_draws, paired_figures
from hilum.metrics.scores import Scores
from hilum.metrics.table import (
    OVERALL,
    OVERLAP,
    RANKED,
    WITHIN_SOURCES,
    Key,
    Rows,
    classes_as_zero,
    classes_left_out,
    rests_on,
    statistics_of,
)  # fmt: skip
from hilum.run_folder import RunFolder

ALPHA = 1 - LEVEL
"""Probability of naming a better model, in any figure, where two models are equally good."""
Outcome = Literal["A", "B", "equivalent", "inconclusive"]

_DEFAULTS = (WITHIN_SOURCES, "macro_roc_auc", "dice")  # the first that the images have is primary
_LOWER_IS_BETTER = frozenset({"hd95_share"})


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
        groups: Number of groups that it rests on, of the class with the fewest.
        method: Of the standard error: ``delong`` for AUROCs and means of AUROCs, else ``bootstrap``.
        p: Two-sided p value of this figure alone; NaN where the interval is unknown.
        p_adjusted: ``p`` adjusted for all figures but the primary one, by max-T; None for the primary figure.
        primary: Whether this is the primary figure.
        better: The better model, ``A`` or ``B``; None where that is not shown (see compare).
        n_positive: For an AUROC of one class, the number of images of the class; else None.
        n_negative: Likewise, the number of images of the other classes, or of ``versus``.
        left_out: Of a macro average: the classes without images, over which it is not averaged.
        as_zero: Of the macro precision: for A and for B, the classes that the model never predicts, whose precision
            counts as 0.
        at_least: See Interval.
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
    groups: int
    method: str
    p: float
    p_adjusted: float | None = None
    primary: bool = False
    better: str | None = None
    n_positive: int | None = None
    n_negative: int | None = None
    left_out: tuple[str, ...] = ()
    as_zero: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    at_least: bool = False

    @property
    def key(self) -> Key:
        """The metric's key."""
        return Key(self.metric, self.class_name, self.source, self.versus)

    @property
    def interval(self) -> Interval:
        """The difference as an Interval."""
        return Interval(self.difference, self.low, self.high, self.n, at_least=self.at_least)

    @property
    def ahead(self) -> str:
        """The model with the better value."""
        return "B" if (self.difference > 0) != (self.metric in _LOWER_IS_BETTER) else "A"


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests of the primary figure (Schuirmann 1987), in the direction in which more is better.

    Attributes:
        margin: The greatest difference that does not matter.
        low: Lower bound of the 90% interval of B minus A.
        high: Upper bound.
        p: The p value of equivalence, the larger of the two below.
        p_a_not_worse: One-sided p value of A being worse than B by the margin or more.
        p_b_not_worse: One-sided p value of B being worse than A by the margin or more.
    """

    margin: float
    low: float
    high: float
    p: float
    p_a_not_worse: float
    p_b_not_worse: float


@dataclass(frozen=True)
class Comparison:
    """Two models, A and B, on one set of images.

    Attributes:
        split: Name of the split.
        images: Number of images, those without a label included.
        groups: Number of groups.
        resamples: Number of bootstrap resamples.
        seed: Random seed of the bootstrap.
        outcome: The better model by the primary figure, ``equivalent`` within the margin, or ``inconclusive``; that of
            ``unseen`` where there is one.
        differences: One per metric, the primary one among them.
        equivalence: Tests of equivalence; None without a margin, or where the spread is unknown.
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
    outcome: Outcome
    differences: tuple[Difference, ...]
    equivalence: Equivalence | None = None
    seen: tuple[int | None, int | None] = (None, None)
    unseen: Comparison | None = None
    labeled: int = 0
    with_masks: int = 0

    @property
    def primary(self) -> Difference:
        """The primary figure."""
        return next(difference for difference in self.differences if difference.primary)

    @property
    def headline(self) -> tuple[Difference, ...]:
        """The differences to show first: the primary one, metrics over all images, AUROCs of a class or in a source."""
        plain = {Key(metric) for metric in (*OVERALL, WITHIN_SOURCES, *OVERLAP)}
        shown = [d for d in self.differences if not d.primary and (d.key in plain or _is_tested_auroc(d.key))]
        return (self.primary, *shown)


def compare(
    a: Scores,
    b: Scores,
    *,
    primary: str | None = None,
    margin: float | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Compare two models on the same images, matched by file name; order, and the order of classes, may differ.

    One primary figure decides, at a p value of at most 0.05: by default hilum.metrics.table.WITHIN_SOURCES, or the
    macro AUROC where no source has two classes with enough groups, or the Dice without labels. All other figures get p
    values adjusted for their number (hilum.metrics.paired.adjusted_p), and a model is called better in them only where
    the primary figure shows a difference, too (tests in a fixed order: Maurer, Hothorn & Lehmacher 1995). So the
    probability of calling one of two equally good models better in any figure is at most 0.05.

    Dice, IoU and the Hausdorff distance are compared over the images where both models have them. Groups and sources
    are those of either table, where only one gives them.

    Args:
        a: Scores of model A.
        b: Scores of model B.
        primary: The figure that decides: a metric, such as ``accuracy`` or ``recall:COVID``; see figure_id.
        margin: The greatest difference of the primary figure that does not matter, above 0; None tests no equivalence.
        resamples: Number of bootstrap resamples.
        seed: Random seed of the bootstrap.

    Raises:
        DataError: Files, labels, classes, groups or sources of the two differ, a file is listed twice, or there is
            neither a label nor a mask.
        ConfigError: ``resamples`` is below 2, ``margin`` is not above 0, or the images do not have the primary figure.
    """
    import scipy.special  # noqa: F401  hilum.metrics.paired imports it late; without it, fail before anything is computed

    if margin is not None and not margin > 0:
        raise ConfigError(f"Expected a margin above 0, got {margin}.")
    if resamples < 2:
        raise ConfigError(f"Expected at least 2 resamples, got {resamples}.", hint="The default is 1000.")
    a, b = aligned(a, b)
    seen = tuple(None if own.seen is None else int(np.count_nonzero(own.seen)) for own in (a, b))
    whole = replace(_compared(a, b, primary, margin, resamples, seed), seen=(seen[0], seen[1]))
    rows = a.unseen & b.unseen
    if rows.all():
        return whole
    # A model that was trained on some of the images is not judged by them.
    whole = replace(
        whole, outcome="inconclusive", differences=tuple(replace(d, better=None) for d in whole.differences)
    )
    if not (rows & a.labeled).any():
        return whole
    unseen = _compared(a.subset(rows), b.subset(rows), primary, margin, resamples, seed)
    return replace(whole, unseen=unseen, outcome=unseen.outcome)


def _compared(a: Scores, b: Scores, primary: str | None, margin: float | None, resamples: int, seed: int) -> Comparison:
    """The comparison over all images of two aligned tables."""
    rows_a, rows_b = rests_on(a), rests_on(b)
    rows = {key: rows_a[key] | rows_b[key] for key in rows_a if key in rows_b}
    chosen = _primary(rows, primary)
    alone = np.ones((1, len(a.files)))
    values = [statistics(alone) for statistics in (statistics_of(a), statistics_of(b))]
    draws = paired_draws(a, b, resamples, seed)
    paired = paired_figures(a, b, {key: float(values[1][key][0] - values[0][key][0]) for key in rows}, draws)
    adjusted = adjusted_p({key: own for key, own in paired.items() if key != chosen}, draws, seed)
    shown = paired[chosen].p() <= ALPHA
    differences = []
    for key, own in paired.items():
        p, (low, high), sides = own.p(), own.interval(), _sides(a, key, rows[key])
        found = Difference(
            *key, a=float(values[0][key][0]), b=float(values[1][key][0]), difference=own.difference, low=low, high=high,
            n=int(rows[key].sum()), groups=own.groups, method="delong" if key.metric in RANKED else "bootstrap", p=p,
            p_adjusted=adjusted.get(key), primary=key == chosen, n_positive=sides[0], n_negative=sides[1],
            left_out=classes_left_out(a, key), as_zero=(classes_as_zero(a, key), classes_as_zero(b, key)),
            at_least=own.groups < FEW_GROUPS and not np.isnan(low),
        )  # fmt: skip
        judged = adjusted.get(key, p)
        differences.append(replace(found, better=found.ahead if shown and judged <= ALPHA else None))
    equivalence = None if margin is None else _equivalence(paired[chosen], chosen, margin)
    return Comparison(
        split=a.split,
        images=len(a.files),
        groups=int(a.clusters().max()) + 1,
        resamples=resamples,
        seed=seed,
        outcome=_outcome(next(d for d in differences if d.primary), equivalence),
        differences=tuple(differences),
        equivalence=equivalence,
        labeled=int(a.labeled.sum()),
        with_masks=int((a.masked & b.masked).sum()),
    )


def figure_id(key: Key) -> str:
    """Return the name of a figure for ``--primary``: ``recall:COVID``, ``roc_auc:COVID:Normal@hospital-1``."""
    words = ":".join(filter(None, (key.metric, key.class_name, key.versus)))
    return words if key.source is None else f"{words}@{key.source}"


def _primary(rows: Mapping[Key, Rows], name: str | None) -> Key:
    if not rows:
        raise DataError("There is nothing to compare: no image has a label, or lung mask metrics of both models.")
    names = {figure_id(key): key for key in rows}
    if name is None:
        return next(names[default] for default in _DEFAULTS if default in names)
    if name not in names:
        raise ConfigError(
            f"These images do not have the primary figure '{name}'.",
            hint=f"Over all images: {', '.join(n for n in names if ':' not in n and '@' not in n)}. Of one class: "
            "recall:CLASS; in one source: accuracy@SOURCE.",
        )
    return names[name]


def _equivalence(paired: Paired, key: Key, margin: float) -> Equivalence | None:
    if not paired.known or (paired.constant and math.isinf(paired.span)):
        return None
    low, high = paired.interval(1 - 2 * ALPHA)
    above, below = paired.p_above(-margin), paired.p_below(margin)
    not_worse = (above, below) if key.metric in _LOWER_IS_BETTER else (below, above)
    return Equivalence(margin, low, high, max(not_worse), *not_worse)


def _outcome(primary: Difference, equivalence: Equivalence | None) -> Outcome:
    if primary.better is not None:
        return "B" if primary.better == "B" else "A"
    return "equivalent" if equivalence is not None and equivalence.p <= ALPHA else "inconclusive"


def _sides(scores: Scores, key: Key, rows: Rows) -> tuple[int | None, int | None]:
    """The images of the class and of the rest, for an AUROC of one class."""
    if key.metric != "roc_auc":
        return None, None
    among = scores.labels[scores.labeled if key.versus is None else rows]
    own = int(np.count_nonzero(among == scores.class_names.index(str(key.class_name))))
    return own, among.size - own


def _is_tested_auroc(key: Key) -> bool:
    return key.metric == "roc_auc" and (key.versus is None or key.source is not None)


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
