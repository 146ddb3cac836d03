"""Agreement of readers against scikit-learn and closed forms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from score_making import scores_of, wilson_of
from sklearn.metrics import accuracy_score, cohen_kappa_score

from hilum.errors import DataError
from hilum.metrics.agreement import (
    BETWEEN,
    DICE,
    FIRST,
    LABEL,
    READERS,
    SECOND,
    agreement_result,
    cohen_kappa,
    gwet_ac1,
)
from hilum.metrics.bootstrap import bootstrap
from hilum.metrics.scores import Scores


def read_twice(count: int = 90, **fields: Any) -> Scores:
    """Two readers of three classes; the second judged two images of three and is right in most."""
    random = np.random.default_rng(2)
    labels = random.integers(0, 3, count)
    other = np.where(random.random(count) < 0.7, labels, random.integers(0, 3, count))
    raised = np.exp(random.normal(size=(count, 3)) + 1.5 * np.eye(3)[labels])
    cells = tuple("abc"[k] if row % 3 else "" for row, k in enumerate(other))
    return scores_of(labels, raised / raised.sum(axis=1, keepdims=True), **{"columns": {LABEL: cells}, **fields})


def test_labels_agree_as_scikit_learn_says() -> None:
    scores = read_twice()
    found = agreement_result(scores, resamples=200)
    assert found is not None
    assert not found.masks
    judged = np.array([bool(cell) for cell in scores.columns[LABEL]])
    one = scores.labels[judged]
    two = np.array(["abc".index(cell) for cell in scores.columns[LABEL] if cell])
    model = scores.predicted[judged]
    for name, (first, second) in {READERS: (one, two), FIRST: (one, model), SECOND: (two, model)}.items():
        own = found.labels[name]
        assert own.kappa.value == pytest.approx(cohen_kappa_score(first, second))
        assert own.agreement.value == pytest.approx(accuracy_score(first, second))
        assert own.kappa.n == judged.sum() == 60
        assert -1 < own.kappa.low < own.kappa.value < own.kappa.high < 1


def test_ac1_does_not_fall_where_one_class_prevails() -> None:
    """118 + 0 of 125 agree (Gwet 2008): kappa is negative, AC1 = (p − e) / (1 − e) with e = 2 π (1 − π)."""
    counts = np.array([[118.0, 5.0], [2.0, 0.0]])
    agreed, share = 118 / 125, (123 + 120) / 250
    chance = 2 * share * (1 - share)
    assert float(gwet_ac1(counts)) == pytest.approx((agreed - chance) / (1 - chance))
    assert float(gwet_ac1(counts)) > 0.9
    assert float(cohen_kappa(counts)) < 0
    assert math.isnan(float(cohen_kappa(np.array([[5.0, 0.0], [0.0, 0.0]]))))


def test_masks_are_compared_on_the_images_of_both_readers() -> None:
    random = np.random.default_rng(4)
    dice = np.where(np.arange(90) % 2, random.uniform(0.8, 1, 90), np.nan)
    second, between = random.uniform(0.7, 1, (2, 90))
    cells = {
        name: tuple(repr(float(v)) if row % 3 else "" for row, v in enumerate(values))
        for name, values in ((DICE, second), (BETWEEN, between))
    }
    found = agreement_result(read_twice(columns=cells, dice=dice), resamples=200)
    assert found is not None
    assert not found.labels
    rows = (np.arange(90) % 2 == 1) & (np.arange(90) % 3 > 0)
    means = {READERS: between[rows].mean(), FIRST: dice[rows].mean(), SECOND: second[rows].mean()}
    assert {name: interval.value for name, interval in found.masks.items()} == pytest.approx(means)
    assert found.mask_difference is not None
    assert found.mask_difference.value == pytest.approx((means[FIRST] + means[SECOND]) / 2 - means[READERS])
    assert found.mask_difference.n == rows.sum()


def test_without_a_second_reader_there_is_nothing() -> None:
    assert agreement_result(read_twice(columns={}), resamples=100) is None
    assert agreement_result(read_twice(columns={LABEL: ("",) * 90}), resamples=100) is None


def test_what_a_second_reader_cannot_say_is_refused() -> None:
    with pytest.raises(DataError):
        agreement_result(read_twice(columns={LABEL: ("z",) * 90}), resamples=100)
    for cell in ("much", "1.5"):
        with pytest.raises(DataError):
            agreement_result(read_twice(columns={DICE: (cell,) * 90, BETWEEN: ("0.5",) * 90}), resamples=100)


def test_the_share_of_equal_labels_has_wilsons_interval() -> None:
    labels = np.arange(40) % 2
    other = np.where(np.arange(40) < 36, labels, 1 - labels)  # 36 of 40 are equal
    scores = scores_of(labels, np.eye(2)[labels], columns={LABEL: tuple("ab"[k] for k in other)})
    found = agreement_result(scores, resamples=8000)
    assert found is not None
    agreement = found.labels[READERS].agreement
    assert (agreement.low, agreement.high) == pytest.approx(wilson_of(36, 40), abs=0.005)


def test_the_dice_of_few_images_allows_for_bad_masks_that_they_lack() -> None:
    """One mask in 30 is bad, so that the mean is skewed: its lower bound is farther than the logit interval's."""
    dice = np.full(30, 0.95) + np.linspace(-0.02, 0.02, 30)
    dice[7] = 0.3
    cells = tuple(map(repr, dice.tolist()))
    labels = np.arange(30) % 2
    scores = scores_of(labels, np.eye(2)[labels], dice=dice, iou=dice, columns={DICE: cells, BETWEEN: cells})
    found = agreement_result(scores, resamples=2000)
    assert found is not None
    logit = bootstrap(
        lambda weights: {"dice": weights @ dice / weights.sum(axis=1)}, {"dice": np.ones(30, np.bool_)}, np.arange(30),
        bounds={"dice": (0.0, 1.0)}, resamples=2000,
    )["dice"]  # fmt: skip
    assert found.masks[FIRST].low < logit.low - 0.01
