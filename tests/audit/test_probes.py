"""Probes on synthetic features of known effect, and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from hilum.audit import probes
from hilum.audit.probes import REST, ProbeResult, out_of_fold, run_probes
from hilum.errors import ConfigError, DataError

NAMES = ("COVID", "Normal")


def _data(
    count: int = 240, features: int = 6, shift: float = 0.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, list]:
    """Features (N, F) whose first is shifted by the class, labels, and groups of two images of one class."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) // 2) % 2
    table = rng.standard_normal((count, features)).astype(np.float32)
    table[:, 0] += shift * labels
    return table, labels.astype(np.int64), [f"g{row // 2}" for row in range(count)]


def _by_name(results: tuple[ProbeResult, ...]) -> dict[tuple[str, str, str], ProbeResult]:
    return {(result.probe, result.positive, result.negative): result for result in results}


def test_a_shift_of_two_deviations_gives_the_auc_of_theory() -> None:
    """Two normals two deviations apart: AUC = Phi(2 / sqrt 2) = 0.921."""
    table, labels, groups = _data(1200, shift=2.0)
    noise = np.random.default_rng(1).standard_normal((1200, 5)).astype(np.float32)
    results = _by_name(run_probes({"border": table, "file": noise}, labels, NAMES, groups, [None] * 1200))
    border, file = results["border", "COVID", "Normal"], results["file", "COVID", "Normal"]
    assert border.auc.value == pytest.approx(0.921, abs=0.02)
    assert border.auc.low < 0.921 < border.auc.high
    assert border.p_value == 1 / 200
    assert file.p_value > 0.05
    assert border.chance_low < 0.5 < border.chance_high < 0.6
    assert border.counts == (600, 600)
    assert border.groups == (300, 300)


def test_the_family_wise_false_alarm_rate_is_the_nominal_one() -> None:
    """Over 60 datasets of noise, three probes each; beyond 8 the chance at 5% is 0.3%."""
    alarms = 0
    for seed in range(60):
        table, labels, groups = _data(80, seed=seed)
        table = np.repeat(table[::2], 2, axis=0)  # images of a patient are alike: images are not independent
        features = {"border": table[:, :2], "file": table[:, 2:4], "outside_lung": table[:, 4:]}
        results = run_probes(features, labels, NAMES, groups, [None] * 80, permutations=39, seed=seed)
        alarms += min(result.p_value for result in results) <= 0.05
    assert alarms <= 8


def test_one_strong_feature_among_many_is_found() -> None:
    table, labels, groups = _data(400, features=200, shift=0.9)
    (result,) = run_probes({"border": table}, labels, NAMES, groups, [None] * 400)
    assert result.auc.value == pytest.approx(0.738, abs=0.05)  # Phi(0.9 / sqrt 2)


def test_a_tone_between_two_others_is_found() -> None:
    table, labels, groups = _data(400)
    table[:, 0] = np.where(labels == 1, 0.3 * table[:, 0], np.sign(table[:, 0]) * (1 + np.abs(table[:, 0])))
    (result,) = run_probes({"border": table}, labels, NAMES, groups, [None] * 400)
    assert result.auc.value > 0.9


def test_the_source_column_is_a_probe_of_its_own() -> None:
    table, labels, groups = _data(200)
    sources = ["A" if (label == 0) != (row // 2 % 10 == 0) else "B" for row, label in enumerate(labels.tolist())]
    results = _by_name(run_probes({"border": table}, labels, NAMES, groups, sources))
    expected = roc_auc_score(labels == 0, np.array(sources) == "A")
    assert results["source", "COVID", "Normal"].auc.value == pytest.approx(expected, abs=0.01)
    assert {name for name, *_ in _by_name(run_probes({"border": table}, labels, NAMES, groups, ["A"] * 200))} == {
        "border"
    }


def test_scores_come_from_models_that_have_not_seen_the_fold() -> None:
    """Labels of one fold are changed: its own scores stay, others move."""
    table, labels, _ = _data(100, shift=1.0)
    folds = np.arange(100) // 2 % 5
    columns = labels[:, None].astype(float)
    changed = np.where(folds[:, None] == 3, 1 - columns, columns)
    one, two = (out_of_fold(table.astype(float), truth, folds) for truth in (columns, changed))
    np.testing.assert_array_equal(one[folds == 3], two[folds == 3])
    assert np.abs(one[folds != 3] - two[folds != 3]).max() > 0.01


def test_the_dense_kind_is_ridge_regression() -> None:
    rng = np.random.default_rng(2)
    inputs, columns = rng.standard_normal((90, 4)), (rng.random((90, 3)) < 0.5).astype(float)
    train = np.arange(90) < 60
    scores = probes._fit_and_score(inputs, columns, train, ~train)[1]  # (30, 3)
    spread = inputs[train].std(axis=0)
    own, new = ((inputs[rows] - inputs[train].mean(axis=0)) / spread for rows in (train, ~train))
    penalty = probes._RIDGE[1] * 4 * 10  # alpha M / n * 10 on the covariance is n times that on the sums
    expected = Ridge(penalty).fit(own, columns[train])
    fitted = expected.predict(own)
    np.testing.assert_allclose(scores, (expected.predict(new) - fitted.mean(axis=0)) / fitted.std(axis=0), rtol=1e-6)


def test_areas_are_those_of_scikit_learn_within_folds() -> None:
    rng = np.random.default_rng(3)
    scores, columns = rng.integers(0, 8, (60, 5)).astype(float), (rng.random((60, 5)) < 0.4).astype(float)
    folds = np.arange(60) % 2
    whole = [roc_auc_score(columns[:, k], scores[:, k]) for k in range(5)]
    np.testing.assert_allclose(probes._areas(scores, columns, np.zeros(60, np.int64)), whole)
    for k in range(5):
        pairs = [columns[folds == fold, k].sum() * (1 - columns[folds == fold, k]).sum() for fold in (0, 1)]
        apart = [roc_auc_score(columns[folds == fold, k], scores[folds == fold, k]) for fold in (0, 1)]
        expected = np.average(apart, weights=pairs)
        assert probes._areas(scores, columns, folds)[k] == pytest.approx(expected)
        weights = np.stack([np.ones(60), rng.integers(0, 3, 60)])
        ones, drawn = probes.area_within_folds(scores[:, k], columns[:, k] == 1, folds, weights)
        assert ones == pytest.approx(expected)
        won, counted = 0.0, 0.0
        for fold in (0, 1):
            own = folds == fold
            share = np.outer(*(weights[1, own & (columns[:, k] == side)] for side in (1, 0))).sum()
            won += share * roc_auc_score(columns[own, k], scores[own, k], sample_weight=weights[1, own])
            counted += share
        assert drawn == pytest.approx(won / counted)


def test_permuted_labels_keep_groups_whole() -> None:
    target, clusters = np.arange(40) % 4 < 2, np.arange(40) // 2
    permuted = probes._permuted(target, clusters, 50, np.random.default_rng(0))
    assert permuted.shape == (40, 50)
    assert (permuted[::2] == permuted[1::2]).all()
    assert (permuted.sum(axis=0) == 20).all()
    assert np.unique(permuted, axis=1).shape[1] > 40


def test_three_classes_give_pairs_and_each_against_the_rest() -> None:
    table, _, _ = _data(180)
    labels = np.arange(180) % 3
    table[:, 0] += 3 * (labels == 2)
    results = _by_name(
        run_probes({"border": table}, labels, ("a", "b", "Normal"), [""] * 180, [None] * 180, permutations=39)
    )
    pairs = [("a", "b"), ("a", "Normal"), ("b", "Normal"), ("a", REST), ("b", REST), ("Normal", REST)]
    assert [names[1:] for names in results] == pairs
    assert results["border", "a", "Normal"].auc.value > 0.9 > 0.7 > results["border", "a", "b"].auc.value


def test_a_class_of_three_images_is_not_measurable() -> None:
    table, labels, groups = _data(100, shift=2.0)
    labels[:] = 1
    labels[:3] = 0
    (result,) = run_probes({"border": table}, labels, NAMES, groups, [None] * 100)
    assert not result.measurable
    assert np.isnan([result.auc.value, result.p_value]).all()
    assert result.counts == (3, 97)


def test_classes_that_share_every_group_are_not_measurable() -> None:
    """Whole groups change labels when these are permuted; without a group of mostly one class nothing can change."""
    table, _, groups = _data(100)
    (result,) = run_probes({"border": table}, np.arange(100) % 2, NAMES, groups, [None] * 100)
    assert not result.measurable
    assert result.groups == (50, 50)


def test_constant_features_and_missing_rows() -> None:
    table, labels, groups = _data(200, shift=3.0)
    partial = table.copy()
    partial[40:] = np.nan
    features = {
        "file": np.ones_like(table),
        "border": table,
        "outside_lung": partial,
        "gone": np.full_like(table, np.nan),
    }
    results = _by_name(run_probes(features, labels, NAMES, groups, [None] * 200))
    assert results["file", "COVID", "Normal"].auc.value == 0.5
    assert results["file", "COVID", "Normal"].p_value > 0.5
    assert results["outside_lung", "COVID", "Normal"].counts == (20, 20)
    assert not results["gone", "COVID", "Normal"].measurable
    assert results["border", "COVID", "Normal"].p_value == 1 / 200


def test_large_contrasts_are_drawn_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "MAX_IMAGES", 100)
    table, labels, groups = _data(400, shift=2.0)
    labels[:30] = 0
    labels[30:] = 1
    (result,) = run_probes({"border": table}, labels, NAMES, groups, [None] * 400)
    assert result.counts == (30, 70)
    assert result.auc.n == 100


def test_equal_seeds_give_equal_results_and_progress_is_told() -> None:
    table, labels, groups = _data(100, shift=1.0)
    told: list[tuple[int, int]] = []
    calls = [
        run_probes(
            {"border": table, "file": table[:, 1:]}, labels, NAMES, groups, [None] * 100, permutations=39, seed=seed,
            progress=lambda done, total: told.append((done, total)),
        )
        for seed in (1, 1, 2)
    ]  # fmt: skip
    assert calls[0] == calls[1] != calls[2]
    assert told[:2] == [(1, 2), (2, 2)]


def test_wrong_lengths_and_too_few_permutations_are_refused() -> None:
    table, labels, groups = _data(100)
    with pytest.raises(DataError):
        run_probes({"border": table[:50]}, labels, NAMES, groups, [None] * 100)
    with pytest.raises(ConfigError):
        run_probes({"border": table}, labels, NAMES, groups, [None] * 100, permutations=5)


def test_folds_keep_groups_whole_and_classes_even() -> None:
    rng = np.random.default_rng(5)
    clusters = np.sort(rng.integers(0, 200, 500))
    clusters = np.unique(clusters, return_inverse=True)[1].astype(np.int64)
    target = clusters % 4 == 0
    folds = probes._folds(target, clusters, rng)
    assert all(np.unique(folds[clusters == group]).size == 1 for group in np.unique(clusters))
    for side in (target, ~target):
        counts = np.bincount(folds[side], minlength=probes.FOLDS)
        assert counts.min() > 0.8 * counts.max()
    assert (folds != probes._folds(target, clusters, rng)).any()


def test_the_strongest_feature_is_weighed_by_its_spread_over_groups() -> None:
    rng = np.random.default_rng(6)
    clusters = np.arange(120) // 3
    inputs = np.column_stack([rng.standard_normal(120), rng.standard_normal(40)[clusters], np.ones(120)])
    columns = np.column_stack([probes._permuted(clusters % 2 == 0, clusters, 4000, rng)]).astype(float)
    for feature in (0, 1):
        values = probes._strongest(inputs[:, [feature]], columns, clusters)
        assert np.sqrt((values**2).mean()) == pytest.approx(0.5, rel=0.05)  # a label's own deviation is a half
    both = probes._strongest(inputs, columns, clusters)
    apart = [probes._strongest(inputs[:, [feature]], columns, clusters) for feature in (0, 1)]
    np.testing.assert_allclose(both, np.maximum(*apart))
    assert (probes._strongest(inputs[:, 2:], columns, clusters) == 0).all()
