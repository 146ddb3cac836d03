"""Calibration by source and predicted class: simulated data of known miscalibration, and scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit
from score_making import scores_of, wilson_of
from sklearn.linear_model import LogisticRegression

from hilum.bundle.calibration import Calibration
from hilum.bundle.prediction_sets import softmax
from hilum.errors import DataError
from hilum.metrics.calibration import calibration_figures, fit_calibration
from hilum.metrics.calibration_within import CalibrationWithin, PartCalibration, calibration_within
from hilum.metrics.logistic import Recalibration, log_odds
from hilum.metrics.scores import Scores
from hilum.metrics.selective import selective_result

Floats = NDArray[np.float64]


def simulated(count: int, stretch: dict[str, float], *, seed: int = 0, spread: float = 2.0) -> Scores:
    """Two classes; the log-odds in a source are ``stretch`` times the true ones, so that the slope is 1 / stretch."""
    random = np.random.default_rng(seed)
    sources = np.repeat(list(stretch), count)
    odds = random.normal(0, spread, sources.size)
    labels = (random.random(odds.size) < expit(odds)).astype(np.int64)
    reported = odds * np.array([stretch[source] for source in sources])
    logits = np.stack([-reported / 2, reported / 2], axis=1)
    return scores_of(labels, softmax(logits), logits=logits, sources=tuple(sources.tolist()))


def at(threshold: float | None, **fields: Any) -> Calibration:
    return Calibration(1.0, {}, threshold, 0.95, 100, 100, "val", **fields)


def named(result: CalibrationWithin, name: str) -> PartCalibration:
    return next(part for part in result.parts if part.name == name)


# Logistic recalibration


def test_slope_and_intercept_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    odds = random.normal(1, 2, 500)
    right = (random.random(500) < expit(0.6 * odds - 0.3)).astype(np.float64)
    weights = random.integers(0, 4, (3, 500)).astype(float)
    slopes, intercepts = Recalibration(odds, right)(weights)
    for row, own in enumerate(weights):
        fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(odds[:, None], right, sample_weight=own)
        assert slopes[row] == pytest.approx(fit.coef_[0, 0], abs=1e-4)
        assert (own * (right - expit(odds + intercepts[row]))).sum() == pytest.approx(0, abs=1e-2)


def test_separable_outcomes_have_no_slope() -> None:
    odds = np.linspace(-2, 2, 40)
    slopes, _ = Recalibration(odds, (odds > 0).astype(np.float64))(np.ones((1, 40)))
    assert np.isnan(slopes).all()


def test_log_odds_do_not_saturate() -> None:
    logits = np.array([[0.0, 60.0, 1.0], [2.0, 1.0, 0.0]])
    chances = softmax(logits)
    assert log_odds(logits, 1)[0] == pytest.approx(60 - np.log(1 + np.e))  # 1 - p is 0 in float64
    np.testing.assert_allclose(log_odds(logits, 0)[1], np.log(chances[1, 0] / (1 - chances[1, 0])))
    np.testing.assert_allclose(log_odds(logits, np.array([1, 0])), [log_odds(logits, 1)[0], log_odds(logits, 0)[1]])


# Recovery of a known miscalibration


def test_the_miscalibration_of_each_source_is_recovered() -> None:
    """On average the sources cancel; inside them slope and confidence less accuracy are those of the simulation."""
    stretch = {"shrunk": 0.6, "stretched": 2.0}
    scores = simulated(20_000, stretch)
    result = calibration_within(scores, None, resamples=100)
    for name, factor in stretch.items():
        part, rows = named(result, name), np.array(scores.sources) == name
        reported = np.abs(scores.logits[rows, 1] - scores.logits[rows, 0])  # type: ignore[index]
        expected = float((expit(reported) - expit(reported / factor)).mean())
        assert part.slope.value == pytest.approx(1 / factor, rel=0.05)
        assert part.slope.low < 1 / factor < part.slope.high
        assert part.in_the_large.value == pytest.approx(expected, abs=0.01)
        assert part.in_the_large.low < expected < part.in_the_large.high
        assert part.in_the_large.n == 20_000
        assert (part.intercept.value < 0) == (factor > 1)
        assert part.ece.value == pytest.approx(abs(expected), abs=0.02)
        assert part.differs == ("in_the_large",)  # without a threshold, nothing is answered differently
    assert abs(result.parts[0].in_the_large.value) < abs(named(result, "stretched").in_the_large.value)


def test_the_curve_of_each_class_is_recovered() -> None:
    scores = simulated(20_000, {"one": 2.0})
    result = calibration_within(scores, None, resamples=100)
    assert [curve.class_name for curve in result.curves] == ["a", "b"]
    for curve in result.curves:
        assert curve.slope.value == pytest.approx(0.5, rel=0.05)
        assert curve.slope.low < 0.5 < curve.slope.high
        assert abs(curve.intercept.value) < 0.06
        assert sum(point.share.n for point in curve.bins) == 20_000
        for point in curve.bins:
            chance = expit(np.log(point.probability / (1 - point.probability)) / 2)
            assert point.share.value == pytest.approx(chance, abs=0.05)
            assert point.low <= point.probability <= point.high


@pytest.mark.parametrize("stretch", [1.0, 2.0])
def test_intervals_cover_the_truth(stretch: float) -> None:
    covered = dict.fromkeys(("in_the_large", "slope", "intercept", "accuracy"), 0)
    large = np.random.default_rng(0).normal(0, 2, 400_000)
    reported = np.abs(large) * stretch
    chance, confidence = expit(np.abs(large)), expit(reported)
    step = 0.0
    for _ in range(30):  # the intercept at a slope of 1, by Newton's method
        p = expit(step + reported)
        step += float((chance - p).mean() / (p * (1 - p)).mean())
    answered = confidence >= 0.8
    truth = {
        "in_the_large": float((confidence - chance).mean()),
        "slope": 1 / stretch,
        "intercept": step,
        "accuracy": float(chance[answered].mean()),
    }
    for seed in range(100):
        result = calibration_within(simulated(120, {"x": stretch}, seed=seed), at(0.8), resamples=100, seed=seed)
        for figure, value in truth.items():
            interval = getattr(result.parts[0], figure)
            covered[figure] += interval.low <= value <= interval.high
    assert all(88 <= count <= 100 for count in covered.values()), covered


def test_parts_of_equal_calibration_are_rarely_said_to_differ() -> None:
    alarms = 0
    for seed in range(100):
        scores = simulated(80, dict.fromkeys(("u", "v", "w", "x"), 1.0), seed=seed)
        found = calibration_within(scores, at(0.75), resamples=100, seed=seed)
        alarms += any(part.differs for part in found.parts)
    assert alarms <= 10  # 5% are expected, and at most 10 of 100 with a probability of 0.989


# Parts


def test_parts_are_all_images_then_sources_then_predicted_classes() -> None:
    scores = simulated(200, {"north": 1.0, "south": 1.0})
    result = calibration_within(scores, at(0.9), resamples=20)
    assert [(part.kind, part.name) for part in result.parts] == [
        ("all", ""), ("source", "north"), ("source", "south"), ("predicted_class", "a"), ("predicted_class", "b"),
    ]  # fmt: skip
    single = calibration_within(simulated(200, {"north": 1.0}), at(0.9), resamples=20)
    assert [part.kind for part in single.parts] == ["all", "predicted_class", "predicted_class"]


def test_a_part_has_the_figures_of_its_images() -> None:
    scores = simulated(400, {"north": 1.0, "south": 2.0})
    result = calibration_within(scores, at(0.8), resamples=20)
    confidence, right = scores.probabilities.max(axis=1), scores.predicted == scores.labels
    rows = {"": np.ones(800, np.bool_), "south": np.array(scores.sources) == "south", "b": scores.predicted == 1}
    for name, own in rows.items():
        part, answered = named(result, name), own & (confidence >= 0.8)
        assert part.in_the_large.value == pytest.approx(confidence[own].mean() - right[own].mean())
        assert part.answered.value == pytest.approx(answered.sum() / own.sum())
        assert part.accuracy.value == pytest.approx(right[answered].mean())
        assert part.accuracy.n == answered.sum()
    together = selective_result(scores, at(0.8), resamples=20)
    assert named(result, "").accuracy.value == pytest.approx(together.accuracy.value)
    assert scores.logits is not None
    figures = calibration_figures(scores.logits, scores.labels, scores.clusters(), resamples=20)
    assert named(result, "").ece.value == pytest.approx(figures.ece.value)  # 53 images in each of the 15 bins


def test_too_few_errors_have_no_interval_and_no_slope() -> None:
    """Without an error, the resamples show no spread of the accuracy."""
    scores = simulated(60, {"north": 1.0, "south": 1.0})
    north = np.array(scores.sources) == "north"
    labels = np.where(north, scores.predicted, scores.labels)
    labels[np.flatnonzero(north)[:4]] = 1 - labels[np.flatnonzero(north)[:4]]
    assert scores.logits is not None
    changed = scores_of(labels, scores.probabilities, logits=scores.logits, sources=scores.sources)
    part = named(calibration_within(changed, None, resamples=50), "north")
    assert not np.isnan(part.in_the_large.value)
    assert np.isnan([part.in_the_large.low, part.in_the_large.high, part.slope.value, part.intercept.value]).all()
    assert part.differs == ()


def test_without_logits_or_labels_there_is_nothing_to_measure() -> None:
    with pytest.raises(DataError):
        calibration_within(scores_of([0, 1], [[0.9, 0.1], [0.2, 0.8]]), None)
    with pytest.raises(DataError):
        calibration_within(scores_of([-1, -1], np.eye(2), logits=np.eye(2)), None)


# One temperature and threshold for each predicted class


def of_two_kinds(count: int, seed: int = 0) -> Scores:
    """Three classes; predictions of the third are overconfident, the others' are not."""
    random = np.random.default_rng(seed)
    true = random.normal(0, 2.5, (count, 3))
    labels = (random.random((count, 1)) > softmax(true).cumsum(axis=1)).sum(axis=1).clip(max=2)
    logits = np.where(true.argmax(axis=1)[:, None] == 2, 2.5 * true, true)
    return scores_of(labels, softmax(logits), logits=logits, split="val")


def test_class_temperatures_calibrate_each_predicted_class() -> None:
    validation, test = of_two_kinds(6000), of_two_kinds(6000, 1)
    overall, by_class = (fit_calibration(validation, per=per) for per in ("all", "predicted-class"))  # type: ignore[arg-type]
    assert overall.class_temperatures is None
    assert overall.per == "all"
    assert by_class.per == "predicted-class"
    assert by_class.class_temperatures == pytest.approx((1, 1, 2.5), rel=0.1)
    assert by_class.temperature == overall.temperature
    assert by_class.abstention_threshold == overall.abstention_threshold
    before, after = (calibration_within(test, own, resamples=50) for own in (overall, by_class))
    assert abs(before.parts[0].in_the_large.value) < 0.04  # the predicted classes cancel in part
    assert named(before, "c").in_the_large.value > 0.05
    assert named(before, "a").in_the_large.value < -0.02
    for name in "abc":
        assert abs(named(after, name).in_the_large.value) < 0.025
        assert "in_the_large" in named(before, name).differs
        assert "in_the_large" not in named(after, name).differs


def test_a_class_with_few_errors_has_the_temperature_of_all() -> None:
    scores = of_two_kinds(300)
    labels = np.where(scores.predicted == 0, 0, scores.labels)
    assert scores.logits is not None
    fitted = fit_calibration(scores_of(labels, scores.probabilities, logits=scores.logits), per="predicted-class")
    assert fitted.class_temperatures is not None
    assert fitted.class_temperatures[0] == fitted.temperature
    assert fitted.class_temperatures[2] != fitted.temperature


def test_answered_accuracy_and_bins_are_shares_with_wilsons_interval() -> None:
    labels = np.array([0] * 54 + [1] * 6)  # all called 0, with a confidence of 0.9; each an own group
    logits = np.tile([np.log(0.9), np.log(0.1)], (60, 1))
    scores = scores_of(labels, softmax(logits), logits=logits)
    found = calibration_within(scores, at(0.5), resamples=8000)
    expected = pytest.approx(wilson_of(54, 60), abs=0.004)
    accuracy = next(part.accuracy for part in found.parts if part.kind == "predicted_class")
    (share,) = (one.share for one in found.curves[0].bins)
    for interval in (accuracy, share):
        assert (interval.low, interval.high) == expected


def test_the_ece_of_a_part_stays_within_the_noise_and_needs_wrong_predictions() -> None:
    labels = np.repeat([0, 1], [71, 9])  # all called 0, with a confidence of 0.9
    logits = np.tile([np.log(0.9), np.log(0.1)], (80, 1))
    found = calibration_within(scores_of(labels, softmax(logits), logits=logits), at(0.5), resamples=2000)
    ece = next(part.ece for part in found.parts if part.kind == "predicted_class")
    noise = 2.24 * np.sqrt(np.mean(labels) * (1 - np.mean(labels)) / 79)  # two bounds at 1.25% each
    assert ece.low == 0
    assert ece.value < ece.high == pytest.approx(ece.value + noise, abs=0.015)
    none = calibration_within(scores_of(0 * labels, softmax(logits), logits=logits), at(0.5), resamples=50)
    assert {part.ece.no_interval for part in none.parts} == {"few_groups"}
