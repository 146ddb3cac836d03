"""Sensitivity at a fixed specificity and the reverse, and predictive values at a stated prevalence.

Every class is taken one-vs-rest: an image is called positive where the probability of the class reaches a threshold.
Thresholds come from other images where there are some. Otherwise they are chosen on the evaluated images, and the
choice is repeated in every bootstrap resample (Platt, Hanley & Yang 2000, Stat. Med. 19:313).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hilum.metrics.bootstrap import Interval, NoInterval, bootstrap
from hilum.metrics.scores import FloatArray, Scores, confusion_counts, confusion_rates, divide, specificity

Fixed: TypeAlias = Literal["specificity", "sensitivity"]
_MEASURES: tuple[Fixed, Fixed] = ("sensitivity", "specificity")
_TOLERANCE = 1e-9
"""Of a share of the weights, against rounding: 19 of 20 reach a target of 0.95."""
_BEYOND = 2


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of the probabilities, chosen on images other than the evaluated ones.

    Attributes:
        origin: The images, in words, such as ``validation split``.
        n: Number of labeled images that they were chosen on.
        at: What is fixed to its target.
        values: What is fixed to the threshold of each class.
    """

    origin: str
    n: int
    at: dict[Fixed, float]
    values: dict[Fixed, dict[str, float]]


@dataclass(frozen=True)
class OperatingPoint:
    """Sensitivity and specificity of one class against the rest.

    Attributes:
        class_name: The class.
        fixed: What the threshold was chosen for; None for the predicted class, which has no threshold.
        target: The least value of what is fixed; None for the predicted class.
        threshold: Images are positive where the probability is at least this.
        sensitivity: Share of the class that is called positive. Without bounds where it is fixed on these images, or
            where the specificity is and the class or the rest has fewer groups than ``groups_needed``.
        specificity: Share of the rest that is not called positive. Without bounds like the sensitivity.
        ppv: Positive predictive value at the stated prevalence; None where none is stated, or where the threshold was
            chosen on these images.
        npv: Negative predictive value, like ``ppv``.
    """

    class_name: str
    fixed: Fixed | None
    target: float | None
    threshold: float | None
    sensitivity: Interval
    specificity: Interval
    ppv: Interval | None = None
    npv: Interval | None = None


@dataclass(frozen=True)
class OperatingPoints:
    """Operating points of all classes.

    Attributes:
        origin: The images that the thresholds were chosen on; None for the evaluated ones.
        n_origin: Their number; None for the evaluated ones.
        prevalence: Class to its stated prevalence, in (0, 1).
        points: For each class the predicted class, then the points at a fixed specificity and a fixed sensitivity.
            Points for which the other images gave no threshold are left out.
    """

    origin: str | None
    n_origin: int | None
    prevalence: dict[str, float]
    points: tuple[OperatingPoint, ...]


class _Key(NamedTuple):
    class_name: str
    fixed: Fixed | None
    measure: Fixed


def choose_thresholds(scores: Scores, at: Mapping[Fixed, float], origin: str) -> Thresholds | None:
    """Choose the thresholds of all classes that have images and a rest; None where no class has.

    Args:
        scores: Scores of images other than the evaluated ones.
        at: What is fixed (``specificity`` or ``sensitivity``) to its target in (0, 1).
        origin: The images in words.
    """
    known = scores.labeled
    values: dict[Fixed, dict[str, float]] = {fixed: {} for fixed in at}
    for k, name in enumerate(scores.class_names):
        positive, ranking = scores.labels[known] == k, scores.probabilities[known, k]
        if not positive.any() or positive.all():
            continue
        for fixed, target in at.items():
            values[fixed][name] = _threshold(positive, ranking, fixed, target)
    if not any(values.values()):
        return None
    return Thresholds(origin, int(known.sum()), dict(at), values)


def operating_points(
    scores: Scores,
    at: Mapping[Fixed, float],
    *,
    thresholds: Thresholds | None = None,
    prevalence: Mapping[str, float] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> OperatingPoints | None:
    """Return the operating points of every class with images and a rest; None where no class has.

    Args:
        scores: The evaluated split.
        at: What is fixed to its target in (0, 1).
        thresholds: Chosen on other images. They are used where their targets are those of ``at``; otherwise the
            thresholds are chosen on the evaluated images.
        prevalence: Class to a prevalence in (0, 1), for predictive values.
        resamples: Number of bootstrap resamples.
        seed: Random seed of the bootstrap.
    """
    stated = dict(prevalence or {})
    known = scores.labeled
    labels, probabilities = scores.labels[known], scores.probabilities[known]
    names = [(k, name) for k, name in enumerate(scores.class_names) if (labels == k).any() and not (labels == k).all()]
    if not names:
        return None
    outside = thresholds if thresholds is not None and thresholds.at == dict(at) else None
    cuts = {
        (name, fixed): None if outside is None else outside.values[fixed].get(name) for _, name in names for fixed in at
    }
    rests_on = {
        _Key(name, fixed, measure): (labels == k) == (measure == "sensitivity")
        for k, name in names
        for fixed in (None, *at)
        for measure in _MEASURES
    }
    intervals = bootstrap(
        _statistics(labels, probabilities, names, at, cuts), rests_on,
        np.unique(scores.clusters()[known], return_inverse=True)[1].astype(np.int64),
        strata=labels, bounds=dict.fromkeys(rests_on, (0.0, 1.0)),
        shares=[key for key in rests_on if key.fixed is None or cuts[key.class_name, key.fixed] is not None],
        resamples=resamples, seed=seed,
    )  # fmt: skip
    clusters = scores.clusters()[known]
    points = []
    for k, name in names:
        points.append(_point(name, None, None, None, intervals, stated.get(name)))
        fewest = min(np.unique(clusters[side]).size for side in (labels == k, labels != k))
        for fixed, target in at.items():
            if outside is None:
                enough = fewest >= groups_needed(target)
                threshold = _threshold(labels == k, probabilities[:, k], fixed, target)
                points.append(_chosen_here(name, fixed, target, threshold, intervals, enough=enough))
            elif (cut := cuts[name, fixed]) is not None:
                points.append(_point(name, fixed, target, cut, intervals, stated.get(name)))
    return OperatingPoints(outside.origin if outside else None, outside.n if outside else None, stated, tuple(points))


def _statistics(
    labels: NDArray[np.int64],
    probabilities: FloatArray,
    names: Sequence[tuple[int, str]],
    at: Mapping[Fixed, float],
    cuts: Mapping[tuple[str, Fixed], float | None],
) -> Callable[[FloatArray], dict[_Key, FloatArray]]:
    """Return a function from weights (R, N) to all rates (R,); a cut of None is chosen anew for each weighting."""

    def statistics(weights: FloatArray) -> dict[_Key, FloatArray]:
        found: dict[_Key, FloatArray] = {}
        confusion = confusion_counts(labels, probabilities.argmax(axis=1), probabilities.shape[1], weights)
        recall, spared = confusion_rates(confusion).recall, specificity(confusion)
        for k, name in names:
            found[_Key(name, None, "sensitivity")] = recall[:, k]
            found[_Key(name, None, "specificity")] = spared[:, k]
            for fixed, target in at.items():
                pair = _rates(labels == k, probabilities[:, k], weights, fixed, target, cuts[name, fixed])
                found[_Key(name, fixed, "sensitivity")], found[_Key(name, fixed, "specificity")] = pair
        return found

    return statistics


def groups_needed(target: float) -> int:
    """Return the least number of groups of a class and of its rest for an interval of a threshold chosen here.

    With fewer (40 for a target of 0.95), less than two are expected beyond the target, and simulated intervals covered
    the truth too seldom or too often.
    """
    return int(np.ceil(_BEYOND / (1 - target) - _TOLERANCE))


def _point(
    name: str,
    fixed: Fixed | None,
    target: float | None,
    threshold: float | None,
    intervals: Mapping[_Key, Interval],
    prevalence: float | None,
) -> OperatingPoint:
    """Return a point whose threshold was not chosen on the evaluated images."""
    rates = [intervals[_Key(name, fixed, measure)] for measure in _MEASURES]
    values = (None, None) if prevalence is None else predictive_values(rates[0], rates[1], prevalence)
    return OperatingPoint(name, fixed, target, threshold, rates[0], rates[1], *values)


def _chosen_here(
    name: str, fixed: Fixed, target: float, threshold: float, intervals: Mapping[_Key, Interval], *, enough: bool
) -> OperatingPoint:
    """Return a point whose threshold was chosen on the evaluated images: what is fixed has no bounds."""
    rates = []
    for measure in _MEASURES:
        rate = intervals[_Key(name, fixed, measure)]
        bounded = enough and measure != fixed
        reason: NoInterval | None = None if measure == fixed else "few_groups"
        rates.append(rate if bounded else Interval(rate.value, np.nan, np.nan, rate.n, reason))
    return OperatingPoint(name, fixed, target, threshold, rates[0], rates[1])


def predictive_values(sensitivity: Interval, specificity: Interval, prevalence: float) -> tuple[Interval, Interval]:
    """Return the positive and the negative predictive value at a prevalence, by Bayes' theorem.

    The odds of a correct positive call are the prior odds times sensitivity / (1 − specificity). The interval of that
    ratio comes from those of its two terms, which rest on different images, by the method of variance estimates
    recovery (MOVER-R: Donner & Zou 2012, Stat. Methods Med. Res. 21:347), and is defined where the specificity is 1.

    Args:
        sensitivity: Sensitivity with its interval.
        specificity: Specificity with its interval.
        prevalence: Share of the class among the patients of interest, in (0, 1).
    """
    odds = prevalence / (1 - prevalence)
    n, missing = sensitivity.n + specificity.n, sensitivity.no_interval or specificity.no_interval
    at_least = sensitivity.at_least or specificity.at_least
    ppv = _ratio(_bounds(sensitivity), _bounds(specificity, complement=True))
    npv = _ratio(_bounds(specificity), _bounds(sensitivity, complement=True))
    positive, negative = (_share(ratio * odds) for ratio in ppv), (_share(ratio / odds) for ratio in npv)
    return _interval(positive, n, missing, at_least), _interval(negative, n, missing, at_least)


def _interval(parts: Iterable[float], n: int, missing: NoInterval | None, at_least: bool) -> Interval:
    value, low, high = parts
    reason: NoInterval | None = "undefined" if np.isnan(value) else missing
    return Interval(value, low, high, n, reason, at_least and not reason)


def _bounds(rate: Interval, *, complement: bool = False) -> tuple[float, float, float]:
    """Return value, low and high of a rate, or of 1 less the rate."""
    if complement:
        return 1 - rate.value, 1 - rate.high, 1 - rate.low
    return rate.value, rate.low, rate.high


def _share(odds: float) -> float:
    return 1.0 if np.isinf(odds) else odds / (1 + odds)


def _ratio(first: tuple[float, float, float], second: tuple[float, float, float]) -> tuple[float, float, float]:
    """Return value, low and high of the ratio of two independent estimates that are not negative, by MOVER-R."""
    (x, low_x, high_x), (y, low_y, high_y) = first, second
    if x == y == 0:
        return np.nan, np.nan, np.nan
    value = x / y if y else np.inf
    if np.isnan([low_x, high_x, low_y, high_y]).any():
        return value, np.nan, np.nan
    least, most = low_x * (2 * x - low_x), high_x * (2 * x - high_x)
    of_high, of_low = high_y * (2 * y - high_y), low_y * (2 * y - low_y)
    denominator = x * y + np.sqrt(max(0.0, (x * y) ** 2 - least * of_high))
    low = least / denominator if least else 0.0
    high = (x * y + np.sqrt(max(0.0, (x * y) ** 2 - most * of_low))) / of_low if of_low else np.inf
    return value, float(low), float(high)


def _rates(
    positive: NDArray[np.bool_],
    ranking: FloatArray,
    weights: FloatArray,
    fixed: Fixed,
    target: float,
    threshold: float | None,
) -> tuple[FloatArray, FloatArray]:
    """Return sensitivity and specificity (R,) at a threshold, or at one chosen in every weighting (R, N)."""
    if threshold is not None:
        called = ranking >= threshold
        own, rest = weights[:, positive], weights[:, ~positive]
        found = divide(own @ called[positive].astype(float), own.sum(axis=1))
        return found, divide(rest @ (~called[~positive]).astype(float), rest.sum(axis=1))
    if fixed == "specificity":
        spared, found = _free_rate(positive, ranking, weights, target)
        return found, spared
    return _free_rate(~positive, -ranking, weights, target)


def _free_rate(
    positive: NDArray[np.bool_], ranking: FloatArray, weights: FloatArray, target: float
) -> tuple[FloatArray, FloatArray]:
    """Return the rate that is fixed (R,), at least ``target``, and the largest value of the other one (R,)."""
    cut = _quantile(ranking[~positive], weights[:, ~positive], target)  # (R,)
    rates = []
    for rows, side in ((~positive, "below"), (positive, "above")):
        order = np.argsort(ranking[rows], kind="stable")
        summed = np.cumsum(weights[:, rows][:, order], axis=1)
        summed = np.concatenate([np.zeros((len(summed), 1)), summed], axis=1)
        place = np.searchsorted(ranking[rows][order], cut, side="right")
        below = summed[np.arange(len(summed)), place]
        rates.append(divide(below if side == "below" else summed[:, -1] - below, summed[:, -1]))
    undefined = np.isnan(rates[0]) | np.isnan(rates[1])
    return np.where(undefined, np.nan, rates[0]), np.where(undefined, np.nan, rates[1])


def _quantile(values: FloatArray, weights: FloatArray, share: float) -> FloatArray:
    """Return for each weighting (R, n) the least of the values (n,) that ``share`` of the weight does not exceed."""
    order = np.argsort(values, kind="stable")
    summed = np.cumsum(weights[:, order], axis=1)
    reached = summed >= (share - _TOLERANCE) * summed[:, -1:]
    return np.asarray(values[order][reached.argmax(axis=1)])


def _threshold(positive: NDArray[np.bool_], ranking: FloatArray, fixed: Fixed, target: float) -> float:
    """Return the threshold of unweighted images: positive are those whose score is at least this."""
    if fixed == "sensitivity":
        own = ranking[positive]
        return float(-_quantile(-own, np.ones((1, own.size)), target)[0])
    rest = ranking[~positive]
    return float(np.nextafter(_quantile(rest, np.ones((1, rest.size)), target)[0], np.inf))
