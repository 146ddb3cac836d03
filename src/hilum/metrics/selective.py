"""Selective prediction: answer where the network is confident, leave the rest to a person.

Confidence is the highest probability. The risk at a coverage is the share of errors among the images answered, the most
confident first (El-Yaniv & Wiener 2010, J. Mach. Learn. Res. 11:1605; Geifman & El-Yaniv 2017, NeurIPS).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hilum.errors import DataError
from hilum.metrics.bootstrap import Interval, bootstrap
from hilum.metrics.scores import FloatArray, Scores, divide

if TYPE_CHECKING:
    from hilum.bundle.calibration import Calibration

TARGET_ACCURACY = 0.95
"""What choose_threshold aims at, of the images answered."""

_SHARES = 10
_DOUBT = 0.05
_CURVE_POINTS = 200


@dataclass(frozen=True)
class SelectiveResult:
    """How risk falls as fewer images are answered.

    Attributes:
        coverage: Of the curve, ascending in (0, 1]: share of images answered; at most 200 points.
        risk: The share of errors among them, in [0, 1].
        thresholds: The least confidence answered at each point.
        aurc: Area under the curve: the mean risk over all coverages, in [0, 1]; lower is better.
        threshold: Below this confidence the model abstains; None: it never does.
        answered: Share of images answered at ``threshold``.
        accuracy: Of the images answered at ``threshold``; its n counts these.
    """

    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    thresholds: tuple[float, ...]
    aurc: Interval
    threshold: float | None
    answered: Interval
    accuracy: Interval


def choose_threshold(
    probabilities: FloatArray,
    labels: NDArray[np.int64],
    clusters: NDArray[np.int64],
    *,
    target: float = TARGET_ACCURACY,
) -> float | None:
    """The threshold that answers most images with an accuracy of at least ``target``, proved with 95% confidence.

    Ten thresholds are tried, which answer 10%, 20%, ... 100% of the images. Each is tested with the one-sided
    Clopper-Pearson bound at 0.05 / 10, so that all ten hold together (Learn then Test with Bonferroni's correction:
    Angelopoulos et al. 2021, arXiv:2110.01052). Groups are the trials, each with its share of right answers; a share
    spreads less than a yes or no of the same mean, so the bound errs on the safe side. What is proved is thus the
    accuracy on an image of a group drawn at random.

    Without a single error the target of 0.95 needs 104 groups answered.

    Args:
        probabilities: (N, K) float64 in [0, 1], after temperature scaling.
        labels: (N,) int64 in [-1, K); rows of -1 are left out.
        clusters: (N,) int64, the group of each image.
        target: Accuracy of the images answered, in (0, 1).

    Returns:
        A confidence in [0, 1], 0 where all may be answered; None where no threshold reaches the target.
    """
    confidence, right = _confidence_and_hits(probabilities, labels)
    group = clusters[labels >= 0]
    for share in np.linspace(0, 1, _SHARES, endpoint=False):  # of images not answered
        threshold = float(np.quantile(confidence, share, method="higher")) if share else 0.0
        answered = confidence >= threshold
        place, size = np.unique(group[answered], return_inverse=True, return_counts=True)[1:]
        hits = float((right[answered] / size[place]).sum())
        if _lower_bound(hits, size.size, _DOUBT / _SHARES) >= target:
            return threshold
    return None


def selective_result(
    scores: Scores, calibration: Calibration | None, *, resamples: int = 1000, seed: int = 0
) -> SelectiveResult:
    """The risk-coverage curve of the labeled images, its area, and what the calibration's threshold does to them.

    Images of equal confidence are answered together. Intervals are at 95%, clustered by group.

    Args:
        scores: Of a split, with its probabilities at the calibration's temperature.
        calibration: From hilum.metrics.calibration.fit_calibration on other images; None: all are answered.
        resamples, seed: Of the bootstrap.

    Raises:
        DataError: No image is labeled.
    """
    threshold = None if calibration is None else calibration.abstention_threshold
    confidence, right = _confidence_and_hits(scores.probabilities, scores.labels)
    known = np.flatnonzero(scores.labeled)
    order = np.argsort(-confidence, kind="stable")
    confidence, right, rows = confidence[order], right[order], known[order]
    own = np.unique(scores.clusters()[rows], return_inverse=True)[1].astype(np.int64)
    last = np.searchsorted(-confidence, -confidence, side="right") - 1  # (N,) the last image of equal confidence
    answered = confidence >= (0.0 if threshold is None else threshold)

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
    found = bootstrap(statistics, rests_on, own, strata=scores.labels[rows], resamples=resamples, seed=seed)
    ends = np.unique(last)
    points = ends[np.unique(np.linspace(0, ends.size - 1, _CURVE_POINTS).round().astype(np.int64))]
    return SelectiveResult(
        coverage=tuple(((points + 1) / rows.size).tolist()),
        risk=tuple(_risk(np.ones((1, rows.size)), right)[0, points].tolist()),
        thresholds=tuple(confidence[points].tolist()),
        aurc=found["aurc"],
        threshold=threshold,
        answered=found["answered"],
        accuracy=found["accuracy"],
    )


def _risk(weights: FloatArray, right: FloatArray) -> FloatArray:
    """(R, N) share of errors among the first 1, 2, ... N images; NaN where they have no weight."""
    return divide(np.cumsum(weights * (1 - right), axis=1), np.cumsum(weights, axis=1))


def _confidence_and_hits(probabilities: FloatArray, labels: NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
    known = labels >= 0
    if not known.any():
        raise DataError("Expected labeled images to weigh risk against coverage, got none.")
    hits = probabilities[known].argmax(axis=1) == labels[known]
    return probabilities[known].max(axis=1), hits.astype(np.float64)


def _lower_bound(hits: float, trials: int, doubt: float) -> float:
    """Clopper & Pearson's lower bound (1934, Biometrika 26:404) for ``hits``, not always whole, of ``trials``."""
    from scipy.stats import beta

    return float(beta.ppf(doubt, hits, trials - hits + 1)) if hits > 0 else 0.0
