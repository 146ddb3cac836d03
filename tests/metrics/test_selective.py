"""Risk and coverage against plain loops, and a threshold that keeps its promise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest
from score_making import scores_of

from hilum.bundle.calibration import Calibration
from hilum.errors import DataError
from hilum.metrics.scores import Scores
from hilum.metrics.selective import choose_class_thresholds, choose_threshold, selective_result

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def binary(confidence: Floats, right: NDArray[np.bool_]) -> tuple[Floats, Labels]:
    """Probabilities (N, 2) of class 0 with that confidence (above 0.5), and labels that make it right or wrong."""
    return np.stack([confidence, 1 - confidence], axis=1), np.where(right, 0, 1).astype(np.int64)


def make_scores(probabilities: Floats, labels: Labels, groups: tuple[str, ...] | None = None) -> Scores:
    return scores_of(labels, probabilities, groups=groups or ("",) * len(labels))


def at(threshold: float | None, **fields: Any) -> Calibration:
    return Calibration(1.0, {}, threshold, 0.95, 100, 100, "val", **fields)


def noisy(count: int, seed: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Confidences, and whether each is right, with a chance equal to the confidence."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.5, 1, count)
    return confidence, rng.random(count) < confidence


# The curve


@pytest.mark.parametrize("ties", [False, True])
def test_the_curve_and_its_area_match_a_plain_loop(ties: bool) -> None:
    confidence, right = noisy(150, 0)
    confidence = np.round(confidence, 1) if ties else confidence
    confidence = np.maximum(confidence, 0.6)
    result = selective_result(make_scores(*binary(confidence, right)), None, resamples=100)
    levels = sorted(set(confidence), reverse=True)
    expected = [(np.mean(confidence >= level), np.mean(~right[confidence >= level]), level) for level in levels]
    np.testing.assert_allclose(np.stack([result.coverage, result.risk, result.thresholds], axis=1), expected)
    area = np.mean([np.mean(~right[confidence >= own]) for own in confidence])
    assert result.aurc.value == pytest.approx(area)
    assert result.aurc.low < result.aurc.value < result.aurc.high
    assert result.aurc.n == 150
    assert result.threshold is None
    assert result.answered.value == 1
    assert result.accuracy.value == pytest.approx(right.mean())


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    confidence, right = noisy(5000, 1)
    result = selective_result(make_scores(*binary(confidence, right)), None, resamples=2)
    assert len(result.coverage) == len(result.risk) == len(result.thresholds) == 200
    assert result.coverage[0] == 1 / 5000
    assert result.coverage[-1] == 1
    assert result.risk[-1] == pytest.approx(1 - right.mean())
    assert np.all(np.diff(result.coverage) > 0)
    assert np.all(np.diff(result.thresholds) < 0)


def test_a_threshold_is_measured_on_what_it_answers() -> None:
    confidence, right = noisy(400, 2)
    probabilities, labels = binary(confidence, right)
    labels[:30] = -1
    result = selective_result(make_scores(probabilities, labels), at(0.8), resamples=300)
    answered = confidence[30:] >= 0.8
    assert result.answered.value == pytest.approx(answered.mean())
    assert result.answered.n == 370
    assert result.accuracy.value == pytest.approx(right[30:][answered].mean())
    assert result.accuracy.n == answered.sum()
    assert result.accuracy.low < result.accuracy.value < result.accuracy.high


def test_where_nothing_is_answered_accuracy_is_undefined() -> None:
    confidence, right = noisy(50, 3)
    result = selective_result(make_scores(*binary(confidence * 0.9, right)), at(0.95), resamples=50)
    assert result.answered.value == 0
    assert np.isnan(result.accuracy.value)
    assert result.accuracy.n == 0


def test_groups_widen_the_interval() -> None:
    confidence, right = noisy(40, 4)
    confidence, right = np.repeat(confidence, 8), np.repeat(right, 8)
    probabilities, labels = binary(confidence, right)
    alone = selective_result(make_scores(probabilities, labels), None)
    together = selective_result(make_scores(probabilities, labels, tuple(f"p{row // 8}" for row in range(320))), None)
    assert together.aurc.value == alone.aurc.value
    assert together.aurc.high - together.aurc.low > 2 * (alone.aurc.high - alone.aurc.low)


# The threshold


def test_the_threshold_answers_most_of_what_the_bound_allows() -> None:
    confidence, right = noisy(3000, 5)
    found = choose_threshold(*binary(confidence, right), np.arange(3000), target=0.9)
    ranked = np.sort(confidence)
    candidates = [0.0, *(ranked[int(np.ceil(share * 2999))] for share in np.arange(1, 10) / 10)]
    proved = [
        threshold
        for threshold in candidates
        if binomtest(int(right[confidence >= threshold].sum()), int((confidence >= threshold).sum()))
        .proportion_ci(1 - 2 * 0.005, method="exact")
        .low
        >= 0.9
    ]
    assert found == pytest.approx(min(proved))
    assert 0.7 < min(proved) < 1


def test_zero_where_all_may_be_answered_and_none_where_the_target_is_out_of_reach() -> None:
    confidence = np.linspace(0.6, 0.99, 104)
    probabilities, labels = binary(confidence, np.ones(104, np.bool_))
    assert choose_threshold(probabilities, labels, np.arange(104)) == 0
    assert choose_threshold(probabilities[1:], labels[1:], np.arange(103)) is None  # 0.005 ** (1 / 103) < 0.95
    assert choose_threshold(probabilities, 1 - labels, np.arange(104)) is None


def test_copies_of_an_image_prove_nothing_more() -> None:
    confidence = np.linspace(0.6, 0.99, 60)
    probabilities, labels = binary(confidence, np.ones(60, np.bool_))
    rows = np.repeat(np.arange(60), 10)
    assert choose_threshold(probabilities[rows], labels[rows], np.arange(600)) == 0
    assert choose_threshold(probabilities[rows], labels[rows], rows) is None


def test_the_promise_is_kept() -> None:
    """Over 200 validation sets the true accuracy above the threshold falls short in less than 5%."""
    short = found = 0
    for seed in range(200):
        confidence, right = noisy(800, 1000 + seed)
        threshold = choose_threshold(*binary(confidence, right), np.arange(800), target=0.9)
        if threshold is not None:
            found += 1
            short += (max(threshold, 0.5) + 1) / 2 < 0.9  # the mean confidence above it, which is the accuracy
    assert found > 100
    assert short <= 0.05 * 200


def test_each_class_has_the_threshold_of_its_own_predictions() -> None:
    """Of two classes, at 0.05 / 20 for each of ten thresholds; a class that misses the target abstains always."""
    confidence = np.linspace(0.6, 0.99, 400)
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    probabilities[200:] = probabilities[200:, ::-1]
    labels = np.repeat([0, 1], 200)
    labels[200::5] = 0  # four fifths of the answers "b" are right
    assert choose_class_thresholds(probabilities, labels, np.arange(400)) == (0.0, None)
    assert choose_class_thresholds(probabilities[:117], labels[:117], np.arange(117)) == (0.0, None)
    assert choose_class_thresholds(probabilities[:116], labels[:116], np.arange(116)) == (None, None)
    assert 0.0025 ** (1 / 117) > 0.95 > 0.0025 ** (1 / 116)
    unlabeled = np.where(np.arange(400) < 200, labels, -1)
    assert choose_class_thresholds(probabilities, unlabeled, np.arange(400)) == (0.0, None)


def test_the_promise_is_kept_within_each_predicted_class() -> None:
    """One class is right 0.1 less often than its confidence says: a threshold over all answers it too often.

    Over 100 validation sets, the true accuracy of some class falls short in less than 5%.
    """
    falls, short, answered = {"all": 0, "class": 0}, 0.1, 0
    for seed in range(100):
        confidence, _ = noisy(9000, 2000 + seed)
        random = np.random.default_rng(seed)
        second = np.arange(9000) % 3 == 0
        right = random.random(9000) < confidence - short * second
        probabilities = np.stack([confidence, 1 - confidence], axis=1)
        probabilities[second] = probabilities[second, ::-1]
        labels = np.where(right, probabilities.argmax(axis=1), probabilities.argmin(axis=1))
        groups = np.arange(9000)
        own = choose_class_thresholds(probabilities, labels, groups, target=0.8)
        overall = choose_threshold(probabilities, labels, groups, target=0.8)
        for name, thresholds in (("class", own), ("all", (overall, overall))):
            means = [(max(t, 0.5) + 1) / 2 - k * short for k, t in enumerate(thresholds) if t is not None]
            falls[name] += any(mean < 0.8 for mean in means)
        answered += own[1] is not None
    assert falls["all"] > 90
    assert falls["class"] <= 0.05 * 100
    assert answered > 50


def test_thresholds_of_classes_are_measured_on_what_they_answer() -> None:
    confidence, right = noisy(400, 2)
    probabilities, labels = binary(confidence, right)
    probabilities[::2] = probabilities[::2, ::-1]
    calibration = at(0.6, class_thresholds=(0.8, None), class_temperatures=(1.0, 1.0))
    result = selective_result(make_scores(probabilities, labels), calibration, resamples=50)
    answered = (probabilities.argmax(axis=1) == 0) & (confidence >= 0.8)
    assert result.answered.value == pytest.approx(answered.mean())
    assert result.accuracy.value == pytest.approx((labels[answered] == 0).mean())
    assert result.class_thresholds == {"a": 0.8, "b": None}
    assert result.threshold is None
    assert result.target == 0.95


def test_without_labels_there_is_nothing_to_choose_by() -> None:
    probabilities = np.full((5, 2), 0.5)
    with pytest.raises(DataError, match="labeled"):
        choose_threshold(probabilities, np.full(5, -1), np.arange(5))
    with pytest.raises(DataError, match="labeled"):
        selective_result(make_scores(probabilities, np.full(5, -1)), None)
