"""Fit the calibration of a model on the validation split, and measure calibration errors before and after.

A calibration consists of a temperature, the quantiles of the prediction sets (hilum.metrics.conformal) and the
abstention threshold (hilum.metrics.selective). It is stored in the bundle (hilum.bundle.calibration).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from hilum.bundle.calibration import Calibration
from hilum.bundle.prediction_sets import scale, softmax
from hilum.errors import DataError
from hilum.metrics.bootstrap import LEVEL, Interval, bootstrap, draws_of
from hilum.metrics.conformal import fit_quantiles
from hilum.metrics.scores import FloatArray, Scores, divide
from hilum.metrics.selective import TARGET_ACCURACY, choose_class_thresholds, choose_threshold
from hilum.types import CalibratedPer

BINS = 15
"""Bins of equal mass that the ECE is computed over."""
LEAST_IN_BIN = 25
"""Images in a bin of the reliability diagram, at least: the accuracy of fewer is mostly noise."""
LEAST_OUTCOMES = 10
"""Groups with a right and groups with a wrong prediction, at least, that a temperature or slope is fitted to."""
TEMPERATURES = (0.05, 20.0)
"""Search range of the temperature."""

_ECE, _DEVIATION, _BRIER, _NLL = "ece", "deviation", "brier", "nll"
_BIN, _MERGED = "bin", "merged"
_Key: TypeAlias = "str | tuple[str, int]"


@dataclass(frozen=True)
class ReliabilityBin:
    """One bin of a reliability diagram.

    Attributes:
        confidence: Mean of the highest probability, in [0, 1].
        accuracy: Accuracy of the images in the bin, with their number as n.
        low: Minimum confidence in the bin.
        high: Maximum confidence in the bin.
    """

    confidence: float
    accuracy: Interval
    low: float
    high: float


@dataclass(frozen=True)
class CalibrationFigures:
    """Calibration errors of a set of predictions.

    Attributes:
        ece: Expected calibration error of the most probable class, in [0, 1].
        brier: Brier score: mean squared distance to the one-hot label, in [0, 2] (Brier 1950).
        nll: Mean negative log-likelihood of the labels, nats.
        bins: Bins of the ECE, at most 15 of equal mass, by ascending confidence.
        diagram: Bins of the reliability diagram: the same, neighbors merged until each has LEAST_IN_BIN images.
    """

    ece: Interval
    brier: Interval
    nll: Interval
    bins: tuple[ReliabilityBin, ...]
    diagram: tuple[ReliabilityBin, ...]


@dataclass(frozen=True)
class CalibrationResult:
    """Calibration errors of the same images at temperature 1 and at ``temperature``.

    Attributes:
        temperature: The temperature over all images.
        before: Errors at temperature 1.
        after: Errors at the temperature that predictions use.
        class_temperatures: Predicted class to its temperature, where predictions use these.
    """

    temperature: float
    before: CalibrationFigures
    after: CalibrationFigures
    class_temperatures: dict[str, float] | None = None


def fit_calibration(
    scores: Scores,
    *,
    digest: str | None = None,
    target_accuracy: float = TARGET_ACCURACY,
    per: CalibratedPer = "all",
) -> Calibration:
    """Fit the temperature, then the quantiles and the abstention threshold at this temperature.

    With ``per="predicted-class"``, each predicted class has a temperature and a threshold of its own, and the quantiles
    are those at these temperatures; the temperature and the threshold over all images are fitted as well.

    Args:
        scores: Scores of the validation split with logits; the probabilities are not used.
        digest: See Calibration.
        target_accuracy: Target accuracy on the images without abstention, in (0, 1).
        per: Fit temperature and threshold over all images, or for each predicted class.

    Raises:
        DataError: There are no logits, or as for fit_temperature.
    """
    logits, labels, clusters = logits_of(scores), scores.labels, scores.clusters()
    temperature = fit_temperature(logits, labels)
    overall = softmax(logits, temperature)
    by_class = fit_class_temperatures(logits, labels, clusters) if per == "predicted-class" else None
    probabilities = overall if by_class is None else softmax(logits, by_class)
    return Calibration(
        temperature=temperature,
        quantiles=fit_quantiles(probabilities, labels, clusters),
        abstention_threshold=choose_threshold(overall, labels, clusters, target=target_accuracy),
        target_accuracy=target_accuracy,
        n=int(scores.labeled.sum()),
        groups=np.unique(clusters[scores.labeled]).size,
        split=scores.split,
        digest=digest,
        class_temperatures=by_class,
        class_thresholds=None
        if by_class is None
        else choose_class_thresholds(probabilities, labels, clusters, target=target_accuracy),
    )


def logits_of(scores: Scores) -> FloatArray:
    """Return the logits (N, K) float64, before temperature and softmax.

    Raises:
        DataError: Only probabilities are known.
    """
    if scores.logits is None:
        raise DataError(
            "Calibration needs logits, but only probabilities are known.",
            hint="Use a predictions.csv with logit_<class> columns, as written by `hilum evaluate`.",
        )
    return scores.logits


def fit_temperature(logits: FloatArray, labels: NDArray[np.int64]) -> float:
    """Return the temperature with the lowest negative log-likelihood (Guo et al. 2017), between 0.05 and 20.

    Args:
        logits: (N, K) float64, before softmax.
        labels: (N,) int64 in [-1, K); rows with -1 are ignored.

    Raises:
        DataError: There are labeled images of fewer than two classes.
    """
    known = labels >= 0
    if (present := np.unique(labels[known]).size) < 2:
        raise DataError(
            f"Expected labeled images of at least 2 classes to fit a temperature, got {present}.",
            hint="Use a dataset with images of more classes.",
        )
    own, wanted = logits[known], labels[known]

    def loss(log_temperature: float) -> float:
        return float(_negative_log_likelihood(own / np.exp(log_temperature), wanted).mean())

    from scipy.optimize import minimize_scalar

    found = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def fit_class_temperatures(
    logits: FloatArray, labels: NDArray[np.int64], clusters: NDArray[np.int64]
) -> tuple[float, ...]:
    """Return a temperature for each predicted class, fitted to the images predicted as the class (fit_temperature).

    The predicted class is known before the temperature is applied, and no temperature changes it (top-label
    calibration: Gupta & Ramdas 2022). A class with fewer than 10 groups of right or of wrong predictions gets the
    temperature of all images.

    Args:
        logits: (N, K) float64, before softmax.
        labels: (N,) int64 in [-1, K); rows with -1 are ignored.
        clusters: (N,) int64, the group of each image.

    Raises:
        DataError: There are labeled images of fewer than two classes.
    """
    predicted, known = logits.argmax(axis=1), labels >= 0
    overall = fit_temperature(logits, labels)

    def fit(k: int) -> float:
        rows = known & (predicted == k)
        right = rows & (labels == k)
        few = min(np.unique(clusters[own]).size for own in (right, rows & ~right)) < LEAST_OUTCOMES
        return overall if few else fit_temperature(logits[rows], labels[rows])

    return tuple(fit(k) for k in range(logits.shape[1]))


def calibration_result(
    scores: Scores, calibration: Calibration | None, *, resamples: int = 1000, seed: int = 0
) -> CalibrationResult:
    """Return the calibration errors of a split at temperature 1 and at the temperature of ``calibration``.

    Args:
        scores: Scores of a split with logits; the probabilities are not used.
        calibration: Calibration fitted on other images, from fit_calibration; None uses temperature 1 for both.
        resamples: Bootstrap resamples.
        seed: Random seed of the bootstrap.

    Raises:
        DataError: There are no logits, or no labeled image.
    """
    temperature = 1.0 if calibration is None else calibration.temperature
    by_class = None if calibration is None else calibration.class_temperatures
    logits, clusters = logits_of(scores), scores.clusters()
    before, after = (
        calibration_figures(scale(logits, divisor), scores.labels, clusters, resamples=resamples, seed=seed)
        for divisor in (1.0, temperature if by_class is None else by_class)
    )
    named = None if by_class is None else dict(zip(scores.class_names, by_class, strict=True))
    return CalibrationResult(temperature, before, after, named)


def calibration_figures(
    logits: FloatArray,
    labels: NDArray[np.int64],
    clusters: NDArray[np.int64],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> CalibrationFigures:
    """Return ECE, Brier score and negative log-likelihood with 95% intervals, and the reliability diagram.

    The ECE is the mean over bins of |accuracy - confidence|, weighted by their mass. Bins have equal mass (Nixon et al.
    2019) and are the same in every resample; equal confidences share a bin. Intervals are clustered by group and hold
    for the classes' shares of these images: groups are resampled within classes.

    For few images, the ECE is biased upwards, since noise counts as error: 600 images of a perfectly calibrated network
    with an accuracy of 60% give about 0.06. A percentile interval would add this bias twice; see ece_interval.

    Args:
        logits: (N, K) float64, already divided by the temperature.
        labels: (N,) int64 in [-1, K); rows with -1 are ignored.
        clusters: (N,) int64, the group of each image.
        resamples: Bootstrap resamples.
        seed: Random seed of the bootstrap.

    Raises:
        DataError: There is no labeled image.
    """
    known = labels >= 0
    if not known.any():
        raise DataError("There are no labeled images to measure calibration.", hint="Use a labeled dataset.")
    own, wanted = logits[known], labels[known]
    groups = np.unique(clusters[known], return_inverse=True)[1].astype(np.int64)
    probabilities = softmax(own)
    confidence = probabilities.max(axis=1)
    right = (probabilities.argmax(axis=1) == wanted).astype(np.float64)
    brier = ((probabilities - np.eye(own.shape[1])[wanted]) ** 2).sum(axis=1)
    nll = _negative_log_likelihood(own, wanted)
    bin_of = equal_mass_bins(confidence)
    parts = {_BIN: bin_of, _MERGED: merged_bins(bin_of)}
    every = np.ones(wanted.size, np.bool_)
    rests_on: dict[_Key, NDArray[np.bool_]] = dict.fromkeys((_ECE, _BRIER, _NLL), every)
    rests_on |= {(part, b): own == b for part, own in parts.items() for b in range(int(own.max()) + 1)}
    statistics = _statistics(parts, confidence, right, brier, nll)
    bounds = {**dict.fromkeys(rests_on, (0.0, 1.0)), _BRIER: (0.0, 2.0), _NLL: (0.0, np.inf)}
    found = bootstrap(
        statistics, rests_on, groups, strata=wanted, bounds=bounds, means=[_BRIER, _NLL],
        shares=[key for key in rests_on if isinstance(key, tuple)], resamples=resamples, seed=seed,
    )  # fmt: skip
    deviation = _deviation(bin_of, right - confidence)
    noise = draws_of(deviation, groups, strata=wanted, resamples=resamples, seed=seed)[_DEVIATION]

    def bins(part: str) -> tuple[ReliabilityBin, ...]:
        of = [(confidence[parts[part] == b], found[part, b]) for b in range(int(parts[part].max()) + 1)]
        return tuple(ReliabilityBin(float(c.mean()), share, float(c.min()), float(c.max())) for c, share in of)

    return CalibrationFigures(
        ece=ece_interval(found[_ECE], float(np.percentile(noise, 50 * (1 + LEVEL)))),
        brier=found[_BRIER],
        nll=found[_NLL],
        bins=bins(_BIN),
        diagram=bins(_MERGED),
    )


def ece_interval(ece: Interval, noise: float) -> Interval:
    """Return the interval of an ECE within the noise, since near 0 that of other figures reaches too far up.

    By the triangle inequality, the ECE is at most as far from the true one as the gaps of the bins are from the true
    gaps. The interval is therefore conservative.

    Args:
        ece: The ECE with the interval of any other figure.
        noise: 97.5th percentile of the weighted mean over bins of |gap of the resample - gap of the sample|.
    """
    if ece.no_interval:
        return ece
    return replace(ece, low=max(0.0, ece.value - noise), high=min(ece.high, ece.value + noise), at_least=True)


def _statistics(
    parts: Mapping[str, NDArray[np.int64]],
    confidence: FloatArray,
    right: FloatArray,
    brier: FloatArray,
    nll: FloatArray,
) -> Callable[[FloatArray], dict[_Key, FloatArray]]:
    """For the bootstrap: the figures, and the accuracy of each bin by its part and number."""
    gap = _by_bin(parts[_BIN], right - confidence)

    def statistics(weights: FloatArray) -> dict[_Key, FloatArray]:
        total = weights.sum(axis=1)
        gaps = weights @ gap / total[:, None]  # (R, B)
        found: dict[_Key, FloatArray] = {
            _ECE: np.abs(gaps).sum(axis=1),
            _BRIER: weights @ brier / total,
            _NLL: weights @ nll / total,
        }
        for part, own in parts.items():
            members = np.eye(int(own.max()) + 1)[own]  # (N, bins of the part)
            accuracies = divide((weights * right) @ members, weights @ members)  # (R, bins of the part)
            found |= {(part, b): accuracy for b, accuracy in enumerate(accuracies.T)}
        return found

    return statistics


def _by_bin(bin_of: NDArray[np.int64], gap: FloatArray) -> FloatArray:
    """Return the values (N, B), those outside of a bin 0."""
    return np.eye(int(bin_of.max()) + 1)[bin_of] * gap[:, None]


def _deviation(bin_of: NDArray[np.int64], gap: FloatArray) -> Callable[[FloatArray], dict[str, FloatArray]]:
    """For the bootstrap: the sum over bins of |gap of the resample - gap of the sample|."""
    by_bin = _by_bin(bin_of, gap)
    sample = by_bin.mean(axis=0)
    return lambda weights: {
        _DEVIATION: np.abs(weights @ by_bin / weights.sum(axis=1, keepdims=True) - sample).sum(axis=1)
    }


def equal_mass_bins(confidence: FloatArray) -> NDArray[np.int64]:
    """Return the bin of each image, (N,): at most BINS of about equal mass, not empty, equal confidences in one bin."""
    edges = np.quantile(confidence, np.arange(1, BINS) / BINS, method="higher")
    place = np.searchsorted(np.unique(edges), confidence, side="right")
    return np.unique(place, return_inverse=True)[1].astype(np.int64)


def merged_bins(bin_of: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) the bin of each image once neighbors are merged until each has LEAST_IN_BIN images, or there is one."""
    merged, number, held = [], 0, 0
    for count in np.bincount(bin_of).tolist():
        if held >= LEAST_IN_BIN:
            number, held = number + 1, 0
        merged.append(number)
        held += count
    if held < LEAST_IN_BIN:  # too few are left over for a bin of their own
        merged = [min(place, max(number - 1, 0)) for place in merged]
    return np.array(merged, np.int64)[bin_of]


def _negative_log_likelihood(logits: FloatArray, labels: NDArray[np.int64]) -> FloatArray:
    """Return -log p of each label, (N,), computed without underflow."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(labels.size), labels])
