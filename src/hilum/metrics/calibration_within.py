"""Calibration and abstention within each source and each predicted class, and a calibration curve for each class.

Confidence can equal accuracy on average and differ from it within a part of the images (Hébert-Johnson et al. 2018;
Van Calster et al. 2019), and one abstention threshold can answer one part less accurately than another (Jones et al.
2021). hilum.metrics.calibration and hilum.metrics.selective have the figures over all images.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hilum.bundle.calibration import Calibration
from hilum.bundle.prediction_sets import abstains, scale, softmax
from hilum.errors import DataError
from hilum.metrics.bootstrap import LEVEL, MIN_GROUPS, Interval, bootstrap, draws_of, resampled_weights
from hilum.metrics.calibration import LEAST_OUTCOMES, ece_interval, equal_mass_bins, logits_of, merged_bins
from hilum.metrics.logistic import Recalibration, log_odds
from hilum.metrics.paired import max_t
from hilum.metrics.scores import FloatArray, Scores, divide
from hilum.metrics.table import sources_of

Kind: TypeAlias = Literal["all", "source", "predicted_class"]
Rows: TypeAlias = NDArray[np.bool_]

CURVE_BINS = 10
"""Bins of equal width of a calibration curve, before those with fewer than 25 images are joined with a neighbor."""

_DIFFERENCE = (-1.0, 1.0)
_SHARE = (0.0, 1.0)
_COMPARED = ("in_the_large", "accuracy")


@dataclass(frozen=True)
class PartCalibration:
    """Calibration and abstention on all images, on those of one source, or on those predicted as one class.

    Attributes:
        kind: ``all``, ``source`` or ``predicted_class``.
        name: The source or the predicted class; empty for all images.
        in_the_large: Mean confidence (highest probability) less accuracy, in [-1, 1]; no interval with fewer than 5
            groups of right or of wrong predictions.
        slope: Calibration slope: that of the logistic regression of right predictions on the log-odds of the
            confidence; 1 if calibrated, below 1 if high confidences are too high and low ones too low. Undefined with
            fewer than 10 groups of right or of wrong predictions.
        intercept: Calibration intercept: that of the same regression with a slope of 1; 0 if calibrated, below 0 if
            overconfident. Undefined as ``slope``.
        ece: Expected calibration error over bins of equal mass with at least 25 images; its interval needs the same
            groups as that of ``in_the_large``.
        answered: Fraction of images without abstention.
        accuracy: Accuracy of these images.
        differs: Those of ``in_the_large`` and ``accuracy`` that differ from all images, all parts tested together.
    """

    kind: Kind
    name: str
    in_the_large: Interval
    slope: Interval
    intercept: Interval
    ece: Interval
    answered: Interval
    accuracy: Interval
    differs: tuple[str, ...] = ()


@dataclass(frozen=True)
class CurveBin:
    """One bin of a calibration curve.

    Attributes:
        probability: Mean probability of the class, in [0, 1].
        share: Fraction of images of the class, with the number of images in the bin as n.
        low: Minimum probability in the bin.
        high: Maximum probability in the bin.
    """

    probability: float
    share: Interval
    low: float
    high: float


@dataclass(frozen=True)
class ClassCurve:
    """Calibration of the probability of one class against all others, over all images.

    Attributes:
        class_name: The class.
        in_the_large: Mean probability less the fraction of images of the class, in [-1, 1].
        slope: Calibration slope (Cox 1958), see PartCalibration.
        intercept: Calibration intercept at a slope of 1.
        bins: Bins of equal width by ascending probability, with at least 25 images where there are as many.
    """

    class_name: str
    in_the_large: Interval
    slope: Interval
    intercept: Interval
    bins: tuple[CurveBin, ...]


@dataclass(frozen=True)
class CalibrationWithin:
    """Calibration of parts of a split and of each class.

    Attributes:
        parts: All images, then each source, where there are several, then each predicted class.
        curves: One for each class with images.
    """

    parts: tuple[PartCalibration, ...]
    curves: tuple[ClassCurve, ...]


def calibration_within(
    scores: Scores, calibration: Calibration | None, *, resamples: int = 1000, seed: int = 0
) -> CalibrationWithin:
    """Return calibration and abstention by source and by predicted class, and the calibration curve of each class.

    Intervals are at 95%, clustered by group.

    Args:
        scores: Scores of a split with logits; the probabilities are not used.
        calibration: Calibration fitted on other images; None: temperature 1, and no abstention.
        resamples: Bootstrap resamples.
        seed: Random seed of the bootstrap.

    Raises:
        DataError: There are no logits, or no labeled image.
    """
    known = scores.labeled
    if not known.any():
        raise DataError("There are no labeled images to measure calibration.", hint="Use a labeled dataset.")
    logits = scale(logits_of(scores)[known], 1.0 if calibration is None else calibration.applied_temperature)
    labels = scores.labels[known]
    clusters = np.unique(scores.clusters()[known], return_inverse=True)[1].astype(np.int64)
    drawing = _Drawing(clusters, resamples, seed)
    probabilities = softmax(logits)
    answered = ~abstains(probabilities, None if calibration is None else calibration.applied_threshold)
    parts = _parts(scores, known, logits.argmax(axis=1))
    data = _Confidence(logits, labels, answered)
    measured = tuple(_measure(kind, name, rows, data, drawing) for (kind, name), rows in parts.items())
    differs = _differing(parts, data, drawing)
    return CalibrationWithin(
        parts=tuple(replace(part, differs=differs.get((part.kind, part.name), ())) for part in measured),
        curves=tuple(
            _curve(name, probabilities[:, k], log_odds(logits, k), labels == k, drawing)
            for k, name in enumerate(scores.class_names)
            if (labels == k).any()
        ),
    )


class _Drawing:
    """The bootstrap of a split: the groups of the labeled images, and its settings.

    There are no strata: calibration concerns the class of an image given its probability, and with the classes' shares
    fixed the intervals of predicted classes were too narrow.
    """

    def __init__(self, clusters: NDArray[np.int64], resamples: int, seed: int) -> None:
        self.clusters, self.resamples, self.seed = clusters, resamples, seed

    def intervals(
        self,
        statistics: Callable[[FloatArray], dict[str, FloatArray]],
        rests_on: dict[str, Rows],
        bounds: dict[str, tuple[float, float]],
        shares: Collection[str],
    ) -> dict[str, Interval]:
        return bootstrap(
            statistics, rests_on, self.clusters, bounds=bounds, shares=shares, resamples=self.resamples, seed=self.seed
        )

    def greatest(self, statistic: Callable[[FloatArray], FloatArray]) -> float:
        """Return the upper end of the central 95% of a statistic (R,) in the resamples."""
        draws = draws_of(
            lambda weights: {"": statistic(weights)}, self.clusters, resamples=self.resamples, seed=self.seed
        )
        return float(np.nanpercentile(draws[""], 50 * (1 + LEVEL)))

    def least_outcomes(self, rows: Rows, right: FloatArray) -> int:
        """Return the smaller number of groups with a right and with a wrong prediction in ``rows``."""
        return min(np.unique(self.clusters[rows & (right == outcome)]).size for outcome in (0, 1))


class _Confidence:
    """Confidence of the labeled images, its log-odds, whether it is right, and whether the image is answered."""

    def __init__(self, logits: FloatArray, labels: NDArray[np.int64], answered: Rows) -> None:
        self.confidence = softmax(logits).max(axis=1)
        self.log_odds = log_odds(logits, logits.argmax(axis=1))
        self.right = (logits.argmax(axis=1) == labels).astype(np.float64)
        self.answered = answered


def _parts(scores: Scores, known: Rows, predicted: NDArray[np.int64]) -> dict[tuple[Kind, str], Rows]:
    """Return the labeled images of each part; no part is empty."""
    found: dict[tuple[Kind, str], Rows] = {("all", ""): np.ones(predicted.size, np.bool_)}
    found |= {("source", name): rows[known] for name, rows in sources_of(scores).items()}
    found |= {("predicted_class", name): predicted == k for k, name in enumerate(scores.class_names)}
    return {key: rows for key, rows in found.items() if rows.any()}


def _measure(kind: Kind, name: str, rows: Rows, data: _Confidence, drawing: _Drawing) -> PartCalibration:
    confidence, right, answered = data.confidence[rows], data.right[rows], data.answered[rows].astype(np.float64)
    outcomes = drawing.least_outcomes(rows, data.right)
    fit = Recalibration(data.log_odds[rows], right) if outcomes >= LEAST_OUTCOMES else None
    bin_of = merged_bins(equal_mass_bins(confidence))
    gap = np.eye(int(bin_of.max()) + 1)[bin_of] * (right - confidence)[:, None]  # (n, bins)
    sample = gap.mean(axis=0)

    def gaps(weights: FloatArray) -> FloatArray:
        return divide(weights[:, rows] @ gap, weights[:, rows].sum(axis=1)[:, None])  # (R, bins)

    def statistics(weights: FloatArray) -> dict[str, FloatArray]:
        own = weights[:, rows]
        total, taken = own.sum(axis=1), own @ answered
        undefined = np.full(total.size, np.nan)
        slope, intercept = (undefined, undefined) if fit is None else fit(own)
        return {
            "in_the_large": divide(own @ (confidence - right), total),
            "slope": slope,
            "intercept": intercept,
            "ece": np.abs(gaps(weights)).sum(axis=1),
            "answered": divide(taken, total),
            "accuracy": divide(own @ (answered * right), taken),
        }

    names = ("in_the_large", "slope", "intercept", "ece", "answered")
    rests_on = {**dict.fromkeys(names, rows), "accuracy": rows & data.answered}
    bounds = {"in_the_large": _DIFFERENCE, "ece": _SHARE, "answered": _SHARE, "accuracy": _SHARE}
    found = drawing.intervals(statistics, rests_on, bounds, ("answered", "accuracy"))
    noise = drawing.greatest(lambda weights: np.abs(gaps(weights) - sample).sum(axis=1))
    found["ece"] = ece_interval(found["ece"], noise)
    if outcomes < MIN_GROUPS:  # unseen errors could lie beyond any interval
        for figure in ("in_the_large", "ece"):
            found[figure] = replace(found[figure], low=np.nan, high=np.nan, no_interval="few_groups", at_least=False)
    return PartCalibration(
        kind=kind,
        name=name,
        in_the_large=found["in_the_large"],
        slope=found["slope"],
        intercept=found["intercept"],
        ece=found["ece"],
        answered=found["answered"],
        accuracy=found["accuracy"],
    )


def _differing(
    parts: dict[tuple[Kind, str], Rows], data: _Confidence, drawing: _Drawing
) -> dict[tuple[Kind, str], tuple[str, ...]]:
    """Return the figures of each part that differ from those of all images, at a family-wise level of 5%.

    The statistic is the difference from all images in standard errors of the resamples; its p value is adjusted for all
    parts and figures (hilum.metrics.paired.max_t). Parts with fewer than 10 groups of right or of wrong predictions are
    not tested, nor the accuracy if no image abstains.
    """
    every = parts["all", ""]
    rows_of = {"in_the_large": every, "accuracy": data.answered}
    values = {"in_the_large": data.confidence - data.right, "accuracy": data.right}
    tests = [
        (part, figure)
        for figure in _COMPARED
        for part, rows in parts.items()
        if not (figure == "accuracy" and data.answered.all())
        and (rows != every).any()
        and drawing.least_outcomes(rows & rows_of[figure], data.right) >= LEAST_OUTCOMES
    ]
    if not tests:
        return {}

    def mean(weights: FloatArray, rows: Rows, figure: str) -> FloatArray:
        return divide(weights[:, rows] @ values[figure][rows], weights[:, rows].sum(axis=1))

    def differences(weights: FloatArray) -> FloatArray:
        whole = {figure: mean(weights, rows, figure) for figure, rows in rows_of.items()}
        return np.stack([mean(weights, parts[part] & rows_of[f], f) - whole[f] for part, f in tests], axis=1)

    value = differences(np.ones((1, every.size)))[0]
    chunks = resampled_weights(drawing.clusters, drawing.resamples, drawing.seed)
    draws = np.concatenate([differences(weights) for weights in chunks])  # (R, tests)
    error = np.nanstd(draws, axis=0)
    p = max_t(np.abs(value) / error, np.nan_to_num(np.abs(draws - value) / error))
    found: dict[tuple[Kind, str], tuple[str, ...]] = {}
    for (part, figure), far in zip(tests, p < 1 - LEVEL, strict=True):
        if far:
            found[part] = (*found.get(part, ()), figure)
    return found


def _curve(name: str, probability: FloatArray, odds: FloatArray, own: Rows, drawing: _Drawing) -> ClassCurve:
    every = np.ones(own.size, np.bool_)
    outcome = own.astype(np.float64)
    fit = Recalibration(odds, outcome) if drawing.least_outcomes(every, outcome) >= LEAST_OUTCOMES else None
    width = np.minimum((probability * CURVE_BINS).astype(np.int64), CURVE_BINS - 1)
    bin_of = merged_bins(np.unique(width, return_inverse=True)[1].astype(np.int64))
    count = int(bin_of.max()) + 1
    members = np.eye(count)[bin_of]  # (N, bins)

    def statistics(weights: FloatArray) -> dict[str, FloatArray]:
        undefined = np.full(len(weights), np.nan)
        slope, intercept = (undefined, undefined) if fit is None else fit(weights)
        shares = divide((weights * outcome) @ members, weights @ members)
        return {
            "in_the_large": weights @ (probability - outcome) / weights.sum(axis=1),
            "slope": slope,
            "intercept": intercept,
            **{str(b): shares[:, b] for b in range(count)},
        }

    rests_on = dict.fromkeys(("in_the_large", "slope", "intercept"), every)
    rests_on |= {str(b): bin_of == b for b in range(count)}
    shares = [str(b) for b in range(count)]
    bounds = {"in_the_large": _DIFFERENCE, **dict.fromkeys(shares, _SHARE)}
    found = drawing.intervals(statistics, rests_on, bounds, shares)
    inside = [probability[bin_of == b] for b in range(count)]
    return ClassCurve(
        class_name=name,
        in_the_large=found["in_the_large"],
        slope=found["slope"],
        intercept=found["intercept"],
        bins=tuple(
            CurveBin(float(p.mean()), found[str(b)], float(p.min()), float(p.max())) for b, p in enumerate(inside)
        ),
    )
