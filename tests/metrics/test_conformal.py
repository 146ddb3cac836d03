"""Quantiles against a plain loop, and coverage that is what it says, per class and for groups of several images."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from score_making import scores_of

from hilum.bundle.calibration import Calibration
from hilum.bundle.prediction_sets import LEVELS, prediction_set, prediction_sets, softmax
from hilum.errors import DataError
from hilum.metrics.conformal import conformal_results, fit_quantiles
from hilum.metrics.scores import Scores

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]
NAMES = ("a", "b", "c")


def make_scores(probabilities: Floats, labels: Labels, groups: tuple[str, ...] | None = None) -> Scores:
    return scores_of(labels, probabilities, groups=groups or ("",) * len(labels))


def with_quantiles(quantiles: dict[str, tuple[float, ...]]) -> Calibration:
    return Calibration(1.0, quantiles, None, 0.95, 100, 100, "val")


def draw(rng: np.random.Generator, labels: Labels, shift: Floats | None = None) -> Floats:
    """(N, 3) probabilities of a network that is better at class a than at the others; ``shift`` is the groups'."""
    logits = rng.normal(0, 1, (labels.size, 3))
    logits[np.arange(labels.size), labels] += np.array([3.0, 1.5, 1.0])[labels]
    if shift is not None:
        logits[np.arange(labels.size), labels] += shift
    return softmax(logits)


# Quantiles


@pytest.mark.parametrize("count", [8, 9, 18, 19, 98, 99, 100, 137])
@pytest.mark.parametrize("level", LEVELS)
def test_the_quantile_of_single_images_is_the_finite_sample_rank(count: int, level: str) -> None:
    """Split conformal: the ceil((n + 1)(1 - alpha))-th smallest score, or none where that is beyond n."""
    rng = np.random.default_rng(count)
    probabilities = rng.dirichlet(np.ones(3), 3 * count)
    labels = np.tile(np.arange(3), count)
    found = fit_quantiles(probabilities, labels, np.arange(labels.size), [level])[level]
    hundredths = round(100 * float(level))
    rank = -(-(count + 1) * hundredths // 100)
    for k in range(3):
        ranked = sorted(1 - probabilities[labels == k, k])
        assert found[k] == (ranked[rank - 1] if rank <= count else 1.0)


def test_a_group_counts_once_however_many_images_it_has() -> None:
    rng = np.random.default_rng(0)
    probabilities, labels = rng.dirichlet(np.ones(2), 60), np.zeros(60, np.int64)
    once = fit_quantiles(probabilities, labels, np.arange(60))
    again = np.repeat(np.arange(60), rng.integers(1, 9, 60))
    repeated = fit_quantiles(probabilities[again], labels[again], again)
    assert repeated == once


def test_quantiles_of_groups_match_a_plain_loop() -> None:
    rng = np.random.default_rng(1)
    probabilities, labels = rng.dirichlet(np.ones(3), 400), rng.integers(-1, 3, 400)
    clusters = rng.integers(0, 90, 400)
    found = fit_quantiles(probabilities, labels, clusters, ["0.80", "0.90"])
    for level, quantiles in found.items():
        for k in range(3):
            own = [(1 - probabilities[i, k], clusters[i]) for i in range(400) if labels[i] == k]
            sizes = {group: sum(g == group for _, g in own) for _, group in own}
            candidates = sorted(score for score, _ in own)
            enough = [
                q
                for q in candidates
                if sum(1 / sizes[g] for score, g in own if score <= q) >= float(level) * (len(sizes) + 1) - 1e-12
            ]
            assert quantiles[k] == (enough[0] if enough else 1.0)


def test_a_class_with_too_few_groups_is_in_every_set() -> None:
    rng = np.random.default_rng(2)
    labels = np.array([0] * 150 + [1] * 30 + [2] * 5)
    probabilities = draw(rng, labels)
    quantiles = fit_quantiles(probabilities, labels, np.arange(labels.size))
    assert [[q == 1 for q in quantiles[level]] for level in LEVELS] == [
        [False, False, True],
        [False, False, True],
        [False, True, True],
    ]
    none = fit_quantiles(probabilities, np.zeros_like(labels), np.arange(labels.size))
    assert none["0.90"][1:] == (1.0, 1.0)  # no image of the class at all
    assert prediction_sets(probabilities, quantiles["0.99"])[:, 1:].all()


# Sets


def test_sets_are_never_empty_and_grow_with_the_level() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 600)
    probabilities = draw(rng, labels)
    quantiles = fit_quantiles(probabilities, labels, np.arange(600))
    sets = [prediction_sets(probabilities, quantiles[level]) for level in LEVELS]
    assert (sets[0] <= sets[1]).all()
    assert (sets[1] <= sets[2]).all()
    assert sets[0].sum() < sets[2].sum()
    nothing = prediction_sets(probabilities, [0.0] * 3)
    np.testing.assert_array_equal(nothing, np.eye(3, dtype=bool)[probabilities.argmax(axis=1)])


def test_the_set_of_one_image_has_the_most_probable_class_first() -> None:
    probabilities = np.array([0.3, 0.1, 0.6])
    assert prediction_set(probabilities, NAMES, (0.75, 0.75, 0.75)) == ("c", "a")
    assert prediction_set(probabilities, NAMES, (1.0, 1.0, 1.0)) == ("c", "a", "b")
    assert prediction_set(probabilities, NAMES, (0.0, 0.9, 0.0)) == ("c", "b")
    assert prediction_set(probabilities, NAMES, None) == ("c",)


# Coverage


@pytest.mark.parametrize("grouped", [False, True])
def test_coverage_is_what_it_says_in_every_class(grouped: bool) -> None:
    """Over 300 draws of 40 groups per class; one quantile for all would cover the weakest class less."""
    rng = np.random.default_rng(4)
    covered, marginal = np.zeros(3), np.zeros(3)
    for _ in range(300):
        labels = np.repeat(np.arange(3), 40)
        sizes = rng.choice([1, 1, 2, 12], labels.size) if grouped else np.ones(labels.size, np.int64)
        shift = rng.normal(0, 1, labels.size)  # what the images of a patient share
        clusters = np.repeat(np.arange(labels.size), sizes)
        probabilities = draw(rng, labels[clusters], shift[clusters])
        quantiles = fit_quantiles(probabilities, labels[clusters], clusters, ["0.90"])["0.90"]
        new = np.repeat(np.arange(3), 30)
        drawn = draw(rng, new, rng.normal(0, 1, new.size))
        own = 1 - probabilities[np.arange(clusters.size), labels[clusters]]
        for sums, used in ((covered, quantiles), (marginal, [float(np.quantile(own, 0.9, method="higher"))] * 3)):
            sums += prediction_sets(drawn, used)[np.arange(new.size), new].reshape(3, 30).mean(axis=1)
    assert (covered / 300 > 0.89).all()
    assert (covered[1:] / 300 < 0.93).all()  # class a is mostly the most probable, and so always in the set
    assert marginal[2] / 300 < 0.88


def test_measured_coverage_and_size_match_a_count() -> None:
    rng = np.random.default_rng(5)
    labels = np.concatenate([rng.integers(0, 3, 200), [-1] * 20])
    probabilities = draw(rng, np.maximum(labels, 0))
    quantiles = {"0.90": (0.4, 0.7, 0.8), "0.99": (0.95, 0.99, 1.0)}
    results = conformal_results(make_scores(probabilities, labels), with_quantiles(quantiles), resamples=200)
    assert [result.level for result in results] == ["0.90", "0.99"]
    for result in results:
        sets = [
            {k for k in range(3) if 1 - row[k] <= quantiles[result.level][k]} | {int(row.argmax())}
            for row in probabilities[:200]
        ]
        hits = [label in found for label, found in zip(labels, sets, strict=False)]
        assert result.quantiles == dict(zip(NAMES, quantiles[result.level], strict=True))
        assert result.coverage.value == pytest.approx(np.mean(hits))
        assert result.coverage.n == 200
        assert result.mean_size.value == pytest.approx(np.mean([len(found) for found in sets]))
        assert result.sizes == tuple(sum(len(found) == size for found in sets) for size in (1, 2, 3))
        for k, name in enumerate(NAMES):
            own = [hit for hit, label in zip(hits, labels, strict=False) if label == k]
            assert result.coverage_by_class[name].value == pytest.approx(np.mean(own))
            assert result.coverage_by_class[name].n == len(own)
        for interval in (result.coverage, result.mean_size, *result.coverage_by_class.values()):
            assert interval.low <= interval.value <= interval.high


def test_coverage_of_each_source() -> None:
    labels = np.arange(90) % 3
    probabilities = np.where(np.arange(90)[:, None] < 60, np.eye(3)[labels], np.eye(3)[(labels + 1) % 3])
    sources = ("near",) * 30 + (None,) * 30 + ("far",) * 30
    calibration = with_quantiles({"0.90": (0.5, 0.5, 0.5)})
    scores = make_scores(probabilities, labels)
    (result,) = conformal_results(replace(scores, sources=sources), calibration, resamples=50)
    found = {name: (interval.value, interval.n) for name, interval in result.coverage_by_source.items()}
    assert found == {"far": (0.0, 30), "near": (1.0, 30)}
    (alone,) = conformal_results(scores, calibration, resamples=50)
    assert alone.coverage_by_source == {}


def test_full_coverage_and_sets_of_one_class_keep_an_honest_interval() -> None:
    labels = np.arange(60) % 3
    probabilities = np.full((60, 3), 0.01) + 0.97 * np.eye(3)[labels]
    (result,) = conformal_results(make_scores(probabilities, labels), with_quantiles({"0.90": (0.1,) * 3}))
    assert result.coverage.value == result.coverage.high == 1
    assert result.coverage.low == pytest.approx(0.025 ** (1 / 60))
    assert result.mean_size.value == result.mean_size.low == 1
    assert 1 < result.mean_size.high < 1.2
    assert result.sizes == (60, 0, 0)


def test_an_interval_of_groups_is_wider() -> None:
    rng = np.random.default_rng(6)
    labels = np.repeat(rng.integers(0, 3, 40), 10)
    shift = np.repeat(rng.normal(0, 2, 40), 10)
    probabilities = draw(rng, labels, shift)
    groups = tuple(f"p{row // 10}" for row in range(400))
    calibration = with_quantiles({"0.90": (0.5, 0.5, 0.5)})
    (alone,) = conformal_results(make_scores(probabilities, labels), calibration)
    (together,) = conformal_results(make_scores(probabilities, labels, groups), calibration)
    assert together.coverage.value == alone.coverage.value
    assert together.coverage.high - together.coverage.low > 1.5 * (alone.coverage.high - alone.coverage.low)


def test_a_class_without_images_has_no_coverage() -> None:
    labels = np.arange(40) % 2
    (result,) = conformal_results(
        make_scores(draw(np.random.default_rng(7), labels), labels), with_quantiles({"0.90": (0.5, 0.5, 1.0)})
    )
    assert math.isnan(result.coverage_by_class["c"].value)
    assert result.coverage_by_class["c"].n == 0


def test_without_labels_there_is_nothing_to_measure() -> None:
    scores = make_scores(np.full((4, 3), 1 / 3), np.full(4, -1))
    with pytest.raises(DataError):
        conformal_results(scores, with_quantiles({"0.90": (0.5, 0.5, 0.5)}))
