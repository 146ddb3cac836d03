"""Selective prediction: choose the abstention threshold, and measure the risk-coverage curve.

Confidence is the highest probability. The risk at a coverage is the error rate of the most confident images
(El-Yaniv & Wiener 2010, J. Mach. Learn. Res. 11:1605; Geifman & El-Yaniv 2017, NeurIPS).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hilum.bundle.prediction_sets import abstains
from hilum.errors import DataError
from hilum.metrics.bootstrap import Interval, bootstrap
from hilum.metrics.scores import FloatArray, Scores, divide

if TYPE_CHECKING:
    from hilum.bundle.calibration import Calibration

TARGET_ACCURACY = 0.95
"""Default target accuracy of choose_threshold on the images without abstention."""

_SHARES = 10
_DOUBT = 0.05
_CURVE_POINTS = 200


@dataclass(frozen=True)
class SelectiveResult:
    """Risk-coverage curve, and the effect of the abstention threshold.

    Attributes:
        coverage: Fractions of images without abstention, ascending in (0, 1], at most 200 points.
        risk: Error rate at each coverage, in [0, 1].
        thresholds: Minimum confidence at each coverage.
        aurc: Area under the risk-coverage curve: mean risk over all coverages, in [0, 1]; lower is better.
        threshold: Abstention threshold of the confidence; None: the model never abstains, or see ``class_thresholds``.
        answered: Fraction of images without abstention.
        accuracy: Accuracy of these images, with their number as n.
        class_thresholds: Predicted class to its threshold, None where every prediction of the class abstains; None:
            all classes have the same.
        target: Target accuracy that the threshold was chosen for; None without calibration.
    """

    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    thresholds: tuple[float, ...]
    aurc: Interval
    threshold: float | None
    answered: Interval
    accuracy: Interval
    class_thresholds: dict[str, float | None] | None = None
    target: float | None = None


def choose_threshold(
    probabilities: FloatArray,
    labels: NDArray[np.int64],
    clusters: NDArray[np.int64],
    *,
    target: float = TARGET_ACCURACY,
    classes: int = 1,
) -> float | None:
    """Return the lowest confidence threshold whose accuracy is at least ``target`` with 95% confidence.

    Ten thresholds are tested, with coverages of 10%, 20%, ... 100%. Each is tested by the one-sided Clopper-Pearson
    bound at 0.05 / 10, so that all ten hold jointly (Learn then Test with Bonferroni's correction: Angelopoulos et al.
    2021, arXiv:2110.01052). Groups are the trials, each with its fraction of correct predictions; this is conservative,
    since fractions vary less than binary outcomes. The guarantee concerns the accuracy on an image of a random group.

    Without errors, a target of 0.95 needs 104 groups.

    Args:
        probabilities: (N, K) float64 in [0, 1], after temperature scaling.
        labels: (N,) int64 in [-1, K); rows with -1 are ignored.
        clusters: (N,) int64, the group of each image.
        target: Target accuracy on the images without abstention, in (0, 1).
        classes: Number of classes whose thresholds are to hold jointly: each bound is tested at 0.05 / (10 classes).

    Returns:
        A confidence in [0, 1], 0 for no abstention; None if no threshold reaches the target.

    Raises:
        DataError: There is no labeled image.
    """
    confidence, right = _confidence_and_hits(probabilities, labels)
    group = clusters[labels >= 0]
    for share in np.linspace(0, 1, _SHARES, endpoint=False):  # fraction of abstentions
        threshold = float(np.quantile(confidence, share, method="higher")) if share else 0.0
        answered = confidence >= threshold
        place, size = np.unique(group[answered], return_inverse=True, return_counts=True)[1:]
        hits = float((right[answered] / size[place]).sum())
        if _lower_bound(hits, size.size, _DOUBT / (_SHARES * classes)) >= target:
            return threshold
    return None


def choose_class_thresholds(
    probabilities: FloatArray,
    labels: NDArray[np.int64],
    clusters: NDArray[np.int64],
    *,
    target: float = TARGET_ACCURACY,
) -> tuple[float | None, ...]:
    """Return a threshold for each predicted class, K values, each chosen among the images predicted as the class.

    With 95% confidence, all K accuracies are at least ``target`` together: ten thresholds for each of K classes are
    tested at 0.05 / (10 K), with four classes at 0.00125. Without errors, a target of 0.95 needs 131 groups in each
    class. See choose_threshold for the arguments.

    Returns:
        For each class, a confidence in [0, 1], or None if no threshold reaches the target.
    """
    predicted, classes = probabilities.argmax(axis=1), probabilities.shape[1]

    def choose(rows: NDArray[np.bool_]) -> float | None:
        if not (labels[rows] >= 0).any():
            return None
        return choose_threshold(probabilities[rows], labels[rows], clusters[rows], target=target, classes=classes)

    return tuple(choose(predicted == k) for k in range(classes))


def selective_result(
    scores: Scores, calibration: Calibration | None, *, resamples: int = 1000, seed: int = 0
) -> SelectiveResult:
    """Return the risk-coverage curve of the labeled images, and the effect of the calibration's threshold.

    Images of equal confidence are treated together. Intervals are at 95%, clustered by group, and hold for the classes'
    shares of these images, as that of the accuracy: groups are resampled within classes.

    Args:
        scores: Scores of a split, with probabilities at the calibration's temperature.
        calibration: Calibration fitted on other images; None: no abstention.
        resamples: Bootstrap resamples.
        seed: Random seed of the bootstrap.

    Raises:
        DataError: There is no labeled image.
    """
    by_class = None if calibration is None else calibration.class_thresholds
    confidence, right = _confidence_and_hits(scores.probabilities, scores.labels)
    known = np.flatnonzero(scores.labeled)
    order = np.argsort(-confidence, kind="stable")
    confidence, right, rows = confidence[order], right[order], known[order]
    own = np.unique(scores.clusters()[rows], return_inverse=True)[1].astype(np.int64)
    last = np.searchsorted(-confidence, -confidence, side="right") - 1  # (N,) last image of equal confidence
    answered = ~abstains(scores.probabilities[rows], None if calibration is None else calibration.applied_threshold)

    def statistics(weights: FloatArray) -> dict[str, FloatArray]:
        total = weights.sum(axis=1)
        taken = weights[:, answered].sum(axis=1)
        risk = _risk(weights, right)[:, last]
        return {
            "aurc": divide(np.einsum("rn,rn->r", weights, np.nan_to_num(risk)), total),
            "answered": divide(taken, total),
            "accuracy": divide(weights[:, answered] @ right[answered], taken),
        }

    every = np.ones(rows.size, np.bool_)
    rests_on = {"aurc": every, "answered": every, "accuracy": answered}
    found = bootstrap(
        statistics, rests_on, own, strata=scores.labels[rows], bounds=dict.fromkeys(rests_on, (0.0, 1.0)),
        shares=("answered", "accuracy"), resamples=resamples, seed=seed,
    )  # fmt: skip
    ends = np.unique(last)
    points = ends[np.unique(np.linspace(0, ends.size - 1, _CURVE_POINTS).round().astype(np.int64))]
    return SelectiveResult(
        coverage=tuple(((points + 1) / rows.size).tolist()),
        risk=tuple(_risk(np.ones((1, rows.size)), right)[0, points].tolist()),
        thresholds=tuple(confidence[points].tolist()),
        aurc=found["aurc"],
        threshold=None if calibration is None or by_class is not None else calibration.abstention_threshold,
        answered=found["answered"],
        accuracy=found["accuracy"],
        class_thresholds=None if by_class is None else dict(zip(scores.class_names, by_class, strict=True)),
        target=None if calibration is None else calibration.target_accuracy,
    )


def _risk(weights: FloatArray, right: FloatArray) -> FloatArray:
    """Return the error rate (R, N) of the first 1, 2, ... N images; NaN if they have no weight."""
    return divide(np.cumsum(weights * (1 - right), axis=1), np.cumsum(weights, axis=1))


def _confidence_and_hits(probabilities: FloatArray, labels: NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
    known = labels >= 0
    if not known.any():
        raise DataError("There are no labeled images to measure risk and coverage.", hint="Use a labeled dataset.")
    hits = probabilities[known].argmax(axis=1) == labels[known]
    return probabilities[known].max(axis=1), hits.astype(np.float64)


def _lower_bound(hits: float, trials: int, doubt: float) -> float:
    """Return the lower Clopper-Pearson bound (1934, Biometrika 26:404) of ``hits``, possibly fractional."""
    from scipy.stats import beta

    return float(beta.ppf(doubt, hits, trials - hits + 1)) if hits > 0 else 0.0
