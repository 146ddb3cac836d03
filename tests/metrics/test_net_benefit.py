"""Net benefit against its definition by counts."""

from __future__ import annotations

import numpy as np
import pytest
from score_making import scores_of

from hilum.metrics.net_benefit import THRESHOLDS, decision_curves
from hilum.metrics.scores import Scores


@pytest.fixture(scope="module")
def scores() -> Scores:
    random = np.random.default_rng(3)
    labels = random.integers(-1, 3, 150)
    raised = np.exp(random.normal(size=(150, 3)) + 1.5 * np.eye(4, 3)[labels])
    return scores_of(labels, raised / raised.sum(axis=1, keepdims=True))


def test_net_benefit_is_true_less_weighted_false_positives_per_image(scores: Scores) -> None:
    curves = decision_curves(scores, resamples=100)
    assert [curve.class_name for curve in curves] == ["a", "b", "c"]
    known = scores.labeled
    for k, curve in enumerate(curves):
        own = scores.labels[known] == k
        assert curve.prevalence == pytest.approx(own.mean())
        assert not curve.stated
        for place, t in enumerate(THRESHOLDS):
            called = scores.probabilities[known, k] >= t
            by_count = ((called & own).sum() - (called & ~own).sum() * t / (1 - t)) / own.size
            estimate = curve.model[place]
            assert estimate.value == pytest.approx(by_count)
            assert estimate.low <= by_count + 1e-12
            assert estimate.high >= by_count - 1e-12
            assert estimate.high <= own.mean() + 1e-12  # no strategy is better than to know
            assert curve.act_on_all[place] == pytest.approx((own.sum() - (~own).sum() * t / (1 - t)) / own.size)


def test_a_stated_prevalence_weighs_the_class(scores: Scores) -> None:
    curve = decision_curves(scores, prevalence={"b": 0.05}, resamples=100)[1]
    assert (curve.prevalence, curve.stated) == (0.05, True)
    own, called = scores.labels == 1, scores.probabilities[:, 1] >= 0.2
    rest = scores.labeled & ~own
    expected = 0.05 * called[own].mean() - 0.95 * called[rest].mean() * 0.25
    assert curve.model[THRESHOLDS.index(0.2)].value == pytest.approx(expected)


def test_a_class_without_images_or_without_a_rest_has_no_curve(scores: Scores) -> None:
    only = scores_of(np.zeros(4, np.int64), np.tile([0.7, 0.3], (4, 1)))
    assert decision_curves(only, resamples=100) == ()
    assert decision_curves(scores_of(np.full(4, -1), np.tile([0.7, 0.3], (4, 1))), resamples=100) == ()
