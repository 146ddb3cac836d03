"""Operating points against scikit-learn's ROC curve, and predictive values against their closed forms."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from score_making import scores_of
from sklearn.metrics import roc_curve

from hilum.metrics.bootstrap import Interval
from hilum.metrics.operating_points import (
    Fixed,
    OperatingPoint,
    Thresholds,
    _rates,
    choose_thresholds,
    groups_needed,
    operating_points,
    predictive_values,
)
from hilum.metrics.scores import Scores

AT: dict[Fixed, float] = {"specificity": 0.9, "sensitivity": 0.9}


def drawn(positives: int, negatives: int, seed: int = 0, *, digits: int = 2, **fields: Any) -> Scores:
    """Scores of two classes with ties; class a is the first ``positives`` images."""
    random = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [positives, negatives])
    chance = np.round(1 / (1 + np.exp(-random.normal(size=labels.size) - np.where(labels, -0.8, 0.8))), digits)
    return scores_of(labels, np.column_stack([chance, 1 - chance]), **fields)


def points_of(scores: Scores, **given: Any) -> dict[Fixed | None, OperatingPoint]:
    found = operating_points(scores, AT, **{"resamples": 100, **given})
    assert found is not None
    return {point.fixed: point for point in found.points if point.class_name == "a"}


@pytest.mark.parametrize("seed", range(5))
def test_a_rate_at_a_fixed_one_is_that_of_the_roc_curve(seed: int) -> None:
    scores = drawn(53, 91, seed)
    points = points_of(scores)
    alarms, found, _ = roc_curve(scores.labels == 0, scores.probabilities[:, 0], drop_intermediate=False)
    assert points["specificity"].sensitivity.value == pytest.approx(found[1 - alarms >= 0.9 - 1e-12].max())
    assert points["sensitivity"].specificity.value == pytest.approx((1 - alarms[found >= 0.9 - 1e-12]).max())
    assert math.isnan(points["specificity"].specificity.low)  # by construction
    assert points["specificity"].sensitivity.low < points["specificity"].sensitivity.value
    for fixed in AT:  # the threshold gives the rates that are reported
        called = scores.probabilities[:, 0] >= points[fixed].threshold
        assert called[:53].mean() == pytest.approx(points[fixed].sensitivity.value)
        assert (~called[53:]).mean() == pytest.approx(points[fixed].specificity.value)


@pytest.mark.parametrize("fixed", ["specificity", "sensitivity"])
def test_weights_are_repetitions(fixed: Fixed) -> None:
    """Every resample chooses its threshold anew."""
    scores, random = drawn(30, 40), np.random.default_rng(1)
    weights = random.integers(0, 4, (6, 70)).astype(float)
    positive, ranking = scores.labels == 0, scores.probabilities[:, 0]
    together = _rates(positive, ranking, weights, fixed, 0.9, None)
    for row, own in enumerate(weights):
        again = np.repeat(np.arange(70), own.astype(int))
        alone = _rates(positive[again], ranking[again], np.ones((1, again.size)), fixed, 0.9, None)
        assert [rates[row] for rates in together] == pytest.approx([rates[0] for rates in alone])


def test_thresholds_of_other_images_are_measured_as_they_are() -> None:
    others, scores = drawn(60, 60, seed=7), drawn(50, 80, seed=8)
    chosen = choose_thresholds(others, AT, "other images")
    assert chosen is not None
    found = operating_points(scores, AT, thresholds=chosen, resamples=100)
    assert found is not None
    assert (found.origin, found.n_origin) == ("other images", 120)
    point = next(p for p in found.points if (p.class_name, p.fixed) == ("a", "specificity"))
    assert point.threshold == chosen.values["specificity"]["a"]
    called = scores.probabilities[:, 0] >= point.threshold
    assert point.sensitivity.value == pytest.approx(called[:50].mean())
    assert point.specificity.value == pytest.approx((~called[50:]).mean())
    assert point.specificity.low < point.specificity.value < point.specificity.high
    other_targets: dict[Fixed, float] = {"specificity": 0.8, "sensitivity": 0.9}
    again = operating_points(scores, other_targets, thresholds=chosen, resamples=100)
    assert again is not None
    assert again.origin is None  # they were chosen for something else
    none_of_a = Thresholds("other images", 9, AT, {fixed: {"b": 0.5} for fixed in AT})
    rest = operating_points(scores, AT, thresholds=none_of_a, resamples=100)
    assert rest is not None
    assert {(p.class_name, p.fixed) for p in rest.points if p.class_name == "a"} == {("a", None)}


def test_too_few_groups_have_a_value_and_no_interval() -> None:
    assert (groups_needed(0.95), groups_needed(0.9), groups_needed(0.8)) == (40, 20, 10)
    points = points_of(drawn(19, 60))
    assert 0 < points["sensitivity"].specificity.value < 1
    assert math.isnan(points["sensitivity"].specificity.low)
    assert math.isnan(points["specificity"].sensitivity.low)
    assert points["specificity"].sensitivity.no_interval == "few_groups"
    assert points_of(drawn(20, 60))["sensitivity"].specificity.low > 0
    pairs = tuple(f"p{row // 2}" for row in range(98))
    assert math.isnan(points_of(drawn(38, 60, groups=pairs))["sensitivity"].specificity.low)


def test_predictive_values_follow_bayes() -> None:
    points = points_of(drawn(60, 90), prevalence={"a": 0.07})
    assert points["specificity"].ppv is None  # its threshold was chosen here
    point = points[None]
    found, spared = point.sensitivity.value, point.specificity.value
    assert point.ppv is not None
    assert point.npv is not None
    assert point.ppv.value == pytest.approx(found * 0.07 / (found * 0.07 + (1 - spared) * 0.93))
    assert point.npv.value == pytest.approx(spared * 0.93 / (spared * 0.93 + (1 - found) * 0.07))
    assert point.ppv.low < point.ppv.value < point.ppv.high


def test_the_bounds_of_a_predictive_value_are_those_of_the_likelihood_ratio() -> None:
    """For many images, MOVER-R agrees with the delta method on the logarithm (Simel et al. 1991)."""
    n, found, spared, share = 4000, 0.8, 0.9, 0.1
    errors = [math.sqrt(rate * (1 - rate) / n) for rate in (found, spared)]
    rates = [Interval(r, r - 1.96 * e, r + 1.96 * e, n) for r, e in zip((found, spared), errors, strict=True)]
    ppv, npv = predictive_values(rates[0], rates[1], share)
    for value, center, error in (
        (ppv, math.log(found / (1 - spared)), math.hypot(errors[0] / found, errors[1] / (1 - spared))),
        (npv, math.log(spared / (1 - found)), math.hypot(errors[1] / spared, errors[0] / (1 - found))),
    ):
        odds = share / (1 - share) if value is ppv else (1 - share) / share
        for bound, step in ((value.low, -1.96), (value.high, 1.96)):
            expected = odds * math.exp(center + step * error)
            assert bound == pytest.approx(expected / (1 + expected), rel=0.005)


def test_a_specificity_of_one_bounds_the_predictive_value_by_its_own_bound() -> None:
    """20 of 20 others are spared: at a prevalence of 1%, that leaves a PPV of about 5%."""
    ppv, npv = predictive_values(Interval(0.9, 0.8, 0.95, 50), Interval(1.0, 0.832, 1.0, 20), 0.01)
    assert (ppv.value, ppv.high) == (1.0, 1.0)
    assert 0.01 * 0.8 / (0.01 * 0.8 + 0.99 * 0.168) < ppv.low < 0.9 * 0.01 / (0.9 * 0.01 + 0.99 * 0.168)
    assert npv.low < npv.value < npv.high <= 1
    never, _ = predictive_values(Interval(0.0, 0.0, 0.1, 50), Interval(1.0, 0.9, 1.0, 20), 0.01)
    assert math.isnan(never.value)


def test_a_predictive_value_without_an_interval_says_why() -> None:
    known, few = Interval(0.9, 0.8, 0.95, 50), Interval(0.5, np.nan, np.nan, 4, "few_groups")
    for pair in (predictive_values(few, known, 0.1), predictive_values(known, few, 0.1)):
        assert [own.no_interval for own in pair] == ["few_groups"] * 2
        assert all(np.isfinite(own.value) and np.isnan(own.low) for own in pair)
    never, _ = predictive_values(Interval(0.0, 0.0, 0.1, 50), Interval(1.0, 0.9, 1.0, 20), 0.01)
    assert never.no_interval == "undefined"


def test_a_split_without_a_rest_has_no_operating_point() -> None:
    assert operating_points(replace(drawn(5, 5), labels=np.zeros(10, np.int64)), AT, resamples=100) is None
    assert operating_points(replace(drawn(5, 5), labels=np.full(10, -1)), AT, resamples=100) is None
    assert choose_thresholds(replace(drawn(5, 5), labels=np.zeros(10, np.int64)), AT, "") is None


def test_the_intervals_cover() -> None:
    """200 datasets of 50 and 150 images with normal scores; the true rates are known."""
    from scipy.stats import norm

    random, truth = np.random.default_rng(5), float(norm.cdf(2 - norm.ppf(0.95)))
    at: dict[Fixed, float] = {"specificity": 0.95, "sensitivity": 0.95}
    ppv = norm.cdf(1.0) * 0.1 / (norm.cdf(1.0) * 0.1 + norm.cdf(-1.0) * 0.9)
    covered = np.zeros(3)
    for seed in range(200):
        labels = np.repeat([0, 1], [50, 150])
        chance = 1 / (1 + np.exp(-2 * (random.normal(size=200) + np.where(labels, -1, 1))))
        found = operating_points(
            scores_of(labels, np.column_stack([chance, 1 - chance])),
            at,
            prevalence={"a": 0.1},
            resamples=200,
            seed=seed,
        )
        assert found is not None
        own = {point.fixed: point for point in found.points if point.class_name == "a"}
        assert own[None].ppv is not None
        intervals = [own["specificity"].sensitivity, own["sensitivity"].specificity, own[None].ppv]
        covered += [i.low <= t <= i.high for i, t in zip(intervals, (truth, truth, ppv), strict=True)]
    assert np.all(covered / 200 >= 0.92)
