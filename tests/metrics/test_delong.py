"""DeLong's test against loops over all pairs, scikit-learn, and its own promise of false alarms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from hilum.errors import DataError
from hilum.metrics.delong import delong_test, holm, structural_components


def _rankings(count: int = 60, models: int = 2, seed: int = 0, tied: bool = True) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    positive = generator.random(count) < 0.4
    scores = generator.normal(size=(models, count)) + positive + 0.5 * generator.normal(size=count)
    return positive, np.round(scores, 1) if tied else scores


def _components_by_loops(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    own, rest = np.flatnonzero(positive), np.flatnonzero(~positive)
    kernel = np.array([[(scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]) for j in rest] for i in own])
    return kernel.mean(axis=1), kernel.mean(axis=0)


def _obuchowski_by_loops(positive: np.ndarray, scores: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Equations of Obuchowski (1997), one pair of models and one cluster at a time."""
    parts = [_components_by_loops(positive, row) for row in scores]
    m, n = positive.sum(), (~positive).sum()
    names = np.unique(clusters)
    total = np.zeros((len(scores), len(scores)))
    i10 = np.unique(clusters[positive]).size
    i01 = np.unique(clusters[~positive]).size
    for r, (v10_r, v01_r) in enumerate(parts):
        for s, (v10_s, v01_s) in enumerate(parts):
            s10 = s01 = s11 = s11_turned = 0.0
            for name in names:
                here, there = clusters[positive] == name, clusters[~positive] == name
                a_r, a_s = (v[here].sum() - here.sum() * v.mean() for v in (v10_r, v10_s))
                b_r, b_s = (v[there].sum() - there.sum() * v.mean() for v in (v01_r, v01_s))
                s10 += a_r * a_s * i10 / ((i10 - 1) * m)
                s01 += b_r * b_s * i01 / ((i01 - 1) * n)
                s11 += a_r * b_s * names.size / (names.size - 1)
                s11_turned += a_s * b_r * names.size / (names.size - 1)
            total[r, s] = s10 / m + s01 / n + (s11 + s11_turned) / (m * n)
    return total


def test_components_agree_with_loops_over_all_pairs_with_ties() -> None:
    positive, scores = _rankings()
    found = structural_components(positive, scores)
    for row, ranking in enumerate(scores):
        own, rest = _components_by_loops(positive, ranking)
        np.testing.assert_allclose(found.positive[row], own, atol=1e-12)
        np.testing.assert_allclose(found.negative[row], rest, atol=1e-12)


def test_aucs_agree_with_scikit_learn() -> None:
    positive, scores = _rankings(models=3, seed=1)
    for row in scores:
        own = delong_test(positive, row, scores[0])
        assert own.auc_a == pytest.approx(roc_auc_score(positive, row), abs=1e-12)


def test_covariance_without_groups_is_delongs() -> None:
    positive, scores = _rankings(models=3, seed=2)
    parts = [_components_by_loops(positive, row) for row in scores]
    expected = np.cov([own for own, _ in parts]) / positive.sum() + np.cov([rest for _, rest in parts]) / np.sum(
        ~positive
    )
    test = delong_test(positive, scores[0], scores[1])
    assert test.standard_error == pytest.approx(math.sqrt(expected[0, 0] + expected[1, 1] - 2 * expected[0, 1]))


def test_covariance_with_groups_is_obuchowskis() -> None:
    positive, scores = _rankings(models=2, seed=3)
    clusters = np.random.default_rng(0).integers(0, 25, positive.size)  # of both kinds
    expected = _obuchowski_by_loops(positive, scores, clusters)
    error = delong_test(positive, scores[0], scores[1], clusters).standard_error
    assert error == pytest.approx(math.sqrt(expected[0, 0] + expected[1, 1] - 2 * expected[0, 1]))


def test_copies_of_an_image_in_its_group_narrow_nothing() -> None:
    positive, scores = _rankings(tied=False)
    single = delong_test(positive, *scores)
    copied = delong_test(np.tile(positive, 3), *np.tile(scores, 3), np.tile(np.arange(positive.size), 3))
    assert copied.difference == pytest.approx(single.difference)
    assert copied.standard_error == pytest.approx(single.standard_error)
    assert delong_test(np.tile(positive, 3), *np.tile(scores, 3)).standard_error < 0.6 * single.standard_error


def test_p_and_interval_are_those_of_the_normal_distribution() -> None:
    positive, scores = _rankings(seed=4)
    found = delong_test(positive, *scores)
    back = delong_test(positive, *scores[::-1])
    assert found.z == pytest.approx(found.difference / found.standard_error)
    assert (found.low + found.high) / 2 == pytest.approx(found.difference)
    assert (found.high - found.low) / 2 == pytest.approx(1.959964 * found.standard_error, rel=1e-6)
    assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
    assert (back.difference, back.p, back.low) == pytest.approx((-found.difference, found.p, -found.high))
    assert found.p == pytest.approx(2 * norm.sf(abs(found.z)))


def test_equal_rankings_do_not_differ() -> None:
    positive, scores = _rankings()
    found = delong_test(positive, scores[0], np.exp(scores[0]))
    assert (found.difference, found.p, found.low, found.high) == (0, 1, 0, 0)


@pytest.mark.parametrize("clusters", [None, np.array([0, 0, 1, 2])])
def test_nothing_is_said_where_nothing_varies(clusters: np.ndarray | None) -> None:
    """Perfect against inverted has no spread; positives of a single group have none that can be known."""
    positive = np.array([True, True, False, False])
    found = delong_test(positive, np.array([3.0, 4.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0, 4.0]), clusters)
    assert found.difference == -1
    assert np.isnan([found.standard_error, found.p, found.low, found.high]).all()


@pytest.mark.parametrize("per_group", [1, 4])
def test_false_alarms_are_one_in_twenty(per_group: int) -> None:
    """Two models of equal worth, images of a patient alike; without the groups the test cries wolf."""
    generator = np.random.default_rng(per_group)
    groups = np.repeat(np.arange(240 // per_group), per_group)
    alarms = np.zeros(2)
    for _ in range(600):
        positive = groups % 2 == 0
        patient = generator.normal(size=(3, groups.max() + 1))[:, groups]  # what both see, and what each sees
        scores = 1.3 * positive + 0.7 * patient[0] + 0.8 * patient[1:] + 0.4 * generator.normal(size=(2, groups.size))
        alarms += [delong_test(positive, *scores, own).p < 0.05 for own in (groups, None)]
    clustered, alone = alarms / 600
    assert 0.03 <= clustered <= 0.075
    assert alone > 0.2 if per_group > 1 else alone == clustered


def test_holm_adjusts_from_the_smallest_and_leaves_out_what_is_undefined() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    adjusted = holm([0.5, math.nan, 0.02])
    assert adjusted[0] == 0.5
    assert math.isnan(adjusted[1])
    assert adjusted[2] == 0.04
    assert holm([0.7, 0.9]) == [1, 1]
    assert holm([]) == []


def test_what_cannot_be_ranked_is_refused() -> None:
    positive, scores = _rankings()
    with pytest.raises(DataError):
        delong_test(np.zeros(60, np.bool_), *scores)
    with pytest.raises(DataError, match="NaN"):
        delong_test(positive, scores[0], np.full(60, np.nan))
    with pytest.raises(DataError, match="59"):
        delong_test(positive, *scores[:, :59])
