"""DeLong's standard error against loops over all pairs and resamples, and its false alarms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import roc_auc_score

from hilum.errors import DataError
from hilum.metrics.bootstrap import resampled_weights
from hilum.metrics.delong import Ranked, delong_spread, structural_components
from hilum.metrics.paired import Paired
from hilum.metrics.scores import weighted_auc


def _rankings(count: int = 60, models: int = 2, seed: int = 0, tied: bool = True) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    positive = generator.random(count) < 0.4
    scores = generator.normal(size=(models, count)) + positive + 0.5 * generator.normal(size=count)
    return positive, np.round(scores, 1) if tied else scores


def _error(positive: np.ndarray, a: np.ndarray, b: np.ndarray, clusters: np.ndarray | None = None) -> float:
    """The standard error of one AUROC's difference; each image is a group by default."""
    groups = np.arange(positive.size) if clusters is None else clusters
    everywhere = np.ones(positive.size, np.bool_)
    return delong_spread([Ranked(everywhere, positive, a, b)], positive.astype(np.int64), groups)[0]


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


def test_components_average_to_the_auroc() -> None:
    positive, scores = _rankings(models=3, seed=1)
    found = structural_components(positive, scores)
    for row, ranking in enumerate(scores):
        expected = roc_auc_score(positive, ranking)
        assert (found.positive[row].mean(), found.negative[row].mean()) == pytest.approx((expected, expected))


def test_covariance_without_groups_is_delongs() -> None:
    positive, scores = _rankings(models=3, seed=2)
    parts = [_components_by_loops(positive, row) for row in scores]
    expected = np.cov([own for own, _ in parts]) / positive.sum() + np.cov([rest for _, rest in parts]) / np.sum(
        ~positive
    )
    assert _error(positive, scores[0], scores[1]) == pytest.approx(
        math.sqrt(expected[0, 0] + expected[1, 1] - 2 * expected[0, 1])
    )


def test_covariance_with_groups_is_obuchowskis() -> None:
    positive, scores = _rankings(models=2, seed=3)
    clusters = np.random.default_rng(0).integers(0, 25, positive.size)  # of both kinds
    expected = _obuchowski_by_loops(positive, scores, clusters)
    error = _error(positive, scores[0], scores[1], clusters)
    assert error == pytest.approx(math.sqrt(expected[0, 0] + expected[1, 1] - 2 * expected[0, 1]))


def test_the_error_of_a_mean_is_that_of_resampled_groups() -> None:
    """Three AUROCs that share images, in groups with images of several classes."""
    generator = np.random.default_rng(5)
    labels, clusters = generator.integers(0, 3, 400), generator.integers(0, 150, 400)
    shared = np.eye(3)[labels] + generator.normal(size=(400, 3))
    scores = [shared + 0.7 * generator.normal(size=(400, 3)) for _ in range(2)]
    aurocs = []
    for k, other in ((0, 1), (0, 2), (1, 2)):
        rows = (labels == k) | (labels == other)
        aurocs.append(Ranked(rows, labels[rows] == k, *(own[rows, k] - own[rows, other] for own in scores)))
    error, skew, _ = delong_spread(aurocs, labels, clusters)
    means = []
    for weights in resampled_weights(clusters, 2000, 0):
        parts = [
            weighted_auc(own.positive, own.b, weights[:, own.rows])
            - weighted_auc(own.positive, own.a, weights[:, own.rows])
            for own in aurocs
        ]
        means += np.mean(parts, axis=0).tolist()
    assert error == pytest.approx(np.std(means), rel=0.06)
    assert skew == pytest.approx(scipy.stats.skew(means), abs=0.2)
    alone = [delong_spread([own], labels, clusters)[0] for own in aurocs]
    assert error < np.mean(alone)


def test_copies_of_an_image_in_its_group_narrow_nothing() -> None:
    positive, scores = _rankings(tied=False)
    single = _error(positive, *scores)
    copies = np.tile(positive, 3), *np.tile(scores, 3)
    assert _error(*copies, np.tile(np.arange(positive.size), 3)) == pytest.approx(single)
    assert _error(*copies) < 0.6 * single


def test_equal_rankings_have_no_error() -> None:
    positive, scores = _rankings()
    assert _error(positive, scores[0], np.exp(scores[0])) == 0


@pytest.mark.parametrize("clusters", [None, np.array([0, 0, 1, 2])])
def test_nothing_is_said_where_nothing_varies(clusters: np.ndarray | None) -> None:
    """Perfect against inverted has no spread; positives of a single group have none that can be known."""
    positive = np.array([True, True, False, False])
    assert math.isnan(_error(positive, np.array([3.0, 4.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0, 4.0]), clusters))


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
        difference = roc_auc_score(positive, scores[1]) - roc_auc_score(positive, scores[0])
        for way, own in enumerate((groups, np.arange(groups.size))):
            fewest = min(np.unique(own[side]).size for side in (positive, ~positive))
            alarms[way] += Paired(difference, _error(positive, *scores, own), fewest).p() < 0.05
    clustered, alone = alarms / 600
    assert 0.03 <= clustered <= 0.075
    assert alone > 0.2 if per_group > 1 else alone == clustered


def test_what_cannot_be_ranked_is_refused() -> None:
    positive, scores = _rankings()
    with pytest.raises(DataError):
        _error(np.zeros(60, np.bool_), *scores)
    with pytest.raises(DataError, match="NaN"):
        _error(positive, scores[0], np.full(60, np.nan))
    with pytest.raises(DataError, match="59"):
        _error(positive, *scores[:, :59])
