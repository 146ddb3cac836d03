"""Bootstrap intervals against scikit-learn with weights, and against their own promise of coverage."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binomtest, t, ttest_ind
from score_making import scores_of
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    matthews_corrcoef,
    precision_score,
    recall_score,
    roc_auc_score,
)

from hilum.errors import ConfigError
from hilum.metrics import bootstrap as intervals
from hilum.metrics.bootstrap import Interval, bootstrap, resampled_weights, variance_degrees
from hilum.metrics.scores import Scores, class_metrics, weighted_auc
from hilum.metrics.table import Key, figures_of, intervals_of, rests_on, statistics_of


def _scores(
    count: int = 120, classes: int = 3, seed: int = 0, labeled: float = 1.0, masked: float = 0.3, per_group: int = 2
) -> Scores:
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, classes, count)
    logits = generator.normal(size=(count, classes)) + 1.5 * np.eye(classes)[truth]
    dice = np.where(generator.random(count) < masked, generator.random(count), np.nan)
    return scores_of(
        np.where(generator.random(count) < labeled, truth, -1),
        np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True),
        groups=tuple(f"g{row // per_group}" for row in range(count)),
        dice=dice,
    )


def bootstrap_intervals(scores: Scores, **settings: int) -> dict[str, Interval]:
    """The figures over all sources, named ``metric`` or ``metric/class``."""
    found = figures_of(scores, **settings)
    return {_name(key): interval for key, interval in found.items() if key.source is None and key.versus is None}


def _name(key: Key) -> str:
    return key.metric if key.class_name is None else f"{key.metric}/{key.class_name}"


def _one_class(right: np.ndarray, groups: np.ndarray) -> Scores:
    """Two classes, of which only the first has images: accuracy is the mean of ``right``."""
    chances = np.where(right[:, None], [0.9, 0.1], [0.1, 0.9])
    return scores_of(np.zeros(right.size, np.int64), chances, groups=tuple(map(str, groups)))


def test_resampled_statistics_agree_with_weighted_scikit_learn() -> None:
    scores = _scores(labeled=0.8)
    known = scores.labeled
    labels, predicted, probabilities = scores.labels[known], scores.predicted[known], scores.probabilities[known]
    (weights,) = resampled_weights(scores.clusters(), 4, seed=7)
    ours = {_name(key): values for key, values in statistics_of(scores)(weights).items() if key.versus is None}
    for row, all_weights in enumerate(weights):
        own = {"sample_weight": all_weights[known]}
        expected = {
            "accuracy": accuracy_score(labels, predicted, **own),
            "macro_f1": f1_score(labels, predicted, average="macro", **own),
            "macro_roc_auc": np.mean([roc_auc_score(labels == k, probabilities[:, k], **own) for k in range(3)]),
            "mcc": matthews_corrcoef(labels, predicted, **own),
            "mcc/b": matthews_corrcoef(labels == 1, predicted == 1, **own),
            "balanced_accuracy": balanced_accuracy_score(labels, predicted, **own),
            "balanced_accuracy/c": balanced_accuracy_score(labels == 2, predicted == 2, **own),
            "specificity/a": recall_score(labels != 0, predicted != 0, **own),
            "pr_auc/c": average_precision_score(labels == 2, probabilities[:, 2], **own),
            "recall/b": recall_score(labels, predicted, average=None, **own)[1],
            "precision/c": precision_score(labels, predicted, average=None, **own)[2],
            "f1/a": f1_score(labels, predicted, average=None, **own)[0],
            "roc_auc/b": roc_auc_score(labels == 1, probabilities[:, 1], **own),
            "dice": np.average(scores.dice[scores.masked], weights=all_weights[scores.masked]),
            "iou": np.average(scores.iou[scores.masked], weights=all_weights[scores.masked]),
        }
        for name, value in expected.items():
            assert ours[name][row] == pytest.approx(value, abs=1e-12), name


def test_values_are_those_of_class_metrics_and_lie_in_their_intervals() -> None:
    scores = _scores(labeled=0.9)
    report = class_metrics(scores.labels, scores.probabilities, scores.class_names)
    found = bootstrap_intervals(scores, resamples=300)
    assert found["accuracy"].value == pytest.approx(report["accuracy"])
    assert found["balanced_accuracy"].value == pytest.approx(report["balanced_accuracy"])
    assert found["macro_f1"].value == pytest.approx(report["macro avg"]["f1-score"])
    assert found["roc_auc/c"].value == pytest.approx(report["c"]["roc_auc"])
    assert found["precision/a"].value == pytest.approx(report["a"]["precision"])
    for name, interval in found.items():
        assert interval.low < interval.value < interval.high, name
    assert found["accuracy"].n == int(scores.labeled.sum())
    assert found["recall/b"].n == found["roc_auc/b"].n == report["b"]["support"]
    assert found["precision/b"].n == sum(row[1] for row in report["confusion_matrix"])
    assert found["dice"].n == int(scores.masked.sum())


def test_weights_draw_whole_groups_and_keep_their_number() -> None:
    clusters = np.array([0, 0, 1, 2, 2, 2])
    (weights,) = resampled_weights(clusters, 50, seed=0)
    assert weights.shape == (50, 6)
    assert np.all(weights[:, 0] == weights[:, 1])
    assert np.all(weights[:, 3] == weights[:, 5])
    assert np.all(weights[:, [0, 2, 3]].sum(axis=1) == 3)
    assert np.ptp(weights[:, 0]) > 0


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = _scores()
    whole = bootstrap_intervals(scores, resamples=100, seed=3)
    monkeypatch.setattr(intervals, "_CHUNK_CELLS", 7 * 120)
    chunks = [chunk.shape[0] for chunk in resampled_weights(scores.clusters(), 100, 3)]
    assert max(chunks) == 7
    assert sum(chunks) == 100
    for name, interval in bootstrap_intervals(scores, resamples=100, seed=3).items():
        assert dataclasses.astuple(interval) == pytest.approx(dataclasses.astuple(whole[name]), abs=1e-12)
    assert bootstrap_intervals(scores, resamples=100, seed=4)["dice"].low != pytest.approx(whole["dice"].low)


def test_copies_of_an_image_in_its_group_narrow_nothing() -> None:
    right = np.random.default_rng(0).random(50) < 0.8
    groups = np.arange(50)
    single = bootstrap_intervals(_one_class(right, groups))["accuracy"]
    copied = bootstrap_intervals(_one_class(np.tile(right, 4), np.tile(groups, 4)))["accuracy"]
    as_if_independent = bootstrap_intervals(_one_class(np.tile(right, 4), np.arange(200)))["accuracy"]
    assert copied.high - copied.low == pytest.approx(single.high - single.low, abs=0.03)
    assert as_if_independent.high - as_if_independent.low < 0.65 * (single.high - single.low)


def test_coverage_of_the_accuracy_of_correlated_images() -> None:
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 3)
    covered = 0
    for simulation in range(200):
        skill = generator.beta(4, 1, 60)  # mean 0.8: images of one patient are alike
        right = generator.random(180) < skill[groups]
        interval = bootstrap_intervals(_one_class(right, groups), resamples=200, seed=simulation)["accuracy"]
        covered += interval.low <= 0.8 <= interval.high
    assert 0.9 <= covered / 200 <= 0.99


def test_absent_class_is_undefined_and_stays_out_of_the_macro_averages() -> None:
    found = bootstrap_intervals(_one_class(np.array([True, True, True, False]), np.arange(4)), resamples=50)
    assert np.isnan([found["recall/b"].value, found["recall/b"].low, found["roc_auc/b"].value]).all()
    assert found["recall/b"].n == 0
    assert found["precision/b"].value == 0
    assert found["balanced_accuracy"].value == 0.75


def test_one_group_has_no_interval() -> None:
    interval = bootstrap_intervals(_one_class(np.array([True, False]), np.zeros(2)), resamples=50)["accuracy"]
    assert interval.value == 0.5
    assert np.isnan(interval.low)


def test_what_is_not_known_is_not_there() -> None:
    assert set(bootstrap_intervals(_scores(labeled=0), resamples=10)) == {"dice", "iou"}  # hd95_share was not measured
    assert not {"dice", "iou"} & set(bootstrap_intervals(_scores(masked=0), resamples=10))
    assert bootstrap_intervals(_scores(labeled=0, masked=0), resamples=10) == {}


def test_too_few_resamples_are_refused() -> None:
    with pytest.raises(ConfigError):
        bootstrap_intervals(_scores(), resamples=1)


def test_every_resample_has_every_stratum_as_often_as_the_split() -> None:
    clusters = np.arange(40)
    strata = np.repeat([0, 1], [37, 3])
    (weights,) = resampled_weights(clusters, 200, seed=0, strata=strata)
    assert weights[:, strata == 1].sum(axis=1) == pytest.approx(np.full(200, 3))
    assert weights[:, strata == 0].sum(axis=1) == pytest.approx(np.full(200, 37))
    assert np.ptp(weights[:, 39]) > 0
    (free,) = resampled_weights(clusters, 200, seed=0)
    assert np.any(free[:, strata == 1].sum(axis=1) == 0)


def test_a_group_belongs_to_the_commonest_stratum_of_its_images() -> None:
    clusters, strata = np.array([0, 0, 0, 1, 2]), np.array([0, 0, 1, 1, 1])
    (weights,) = resampled_weights(clusters, 50, seed=0, strata=strata)
    assert np.all(weights[:, 0] == 1)  # alone in its stratum
    assert np.all(weights[:, 3] + weights[:, 4] == 2)


@pytest.mark.parametrize(("value", "low", "high"), [(1.0, 0.8316, 1.0), (0.0, 0.0, 0.1684)])
def test_twenty_of_twenty_has_the_exact_binomial_bound(value: float, low: float, high: float) -> None:
    right = np.full(40, value)
    every = np.ones(40, np.bool_)
    found = bootstrap(
        lambda w: {"share": w @ right / w.sum(axis=1)}, {"share": every}, np.repeat(np.arange(20), 2),
        bounds={"share": (0.0, 1.0)},
    )  # fmt: skip
    assert found["share"].low == pytest.approx(low, abs=1e-4)  # R: binom.test(20, 20)$conf.int
    assert found["share"].high == pytest.approx(high, abs=1e-4)
    assert found["share"].n == 40


def test_the_variance_of_the_resamples_is_that_of_a_mean_of_few_groups() -> None:
    values = np.array([0.1, 0.4, 0.5, 0.9, 0.2])
    (weights,) = resampled_weights(np.arange(5), 40_000, seed=0)
    means = weights @ values / weights.sum(axis=1)
    assert means.var() == pytest.approx(values.var(ddof=1) / 5, rel=0.03)  # np.var(values) / 5 is 20% less


def test_a_difference_of_two_means_has_the_interval_of_welch() -> None:
    generator = np.random.default_rng(0)
    values = np.concatenate([generator.normal(size=40), generator.normal(2, 3, 6)])
    strata = np.repeat([0, 1], [40, 6])
    sides = [strata == 0, strata == 1]

    def statistics(weights: np.ndarray) -> dict[str, np.ndarray]:
        first, second = (weights[:, side] @ values[side] / weights[:, side].sum(axis=1) for side in sides)
        return {"apart": first - second}

    every = {"apart": np.ones(46, np.bool_)}
    found = bootstrap(statistics, every, np.arange(46), strata=strata, sides={"apart": sides}, resamples=40_000)[
        "apart"
    ]
    welch = ttest_ind(values[sides[0]], values[sides[1]], equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((welch.low, welch.high), rel=0.03)
    as_if_pooled = found.value - 2 * (found.value - found.low) / t.ppf(0.975, 5)
    assert abs(as_if_pooled - welch.low) > 0.2  # with the degrees of freedom of all groups


@pytest.mark.parametrize("degrees", [1.0, 2.7, 4.0, 30.0, 5000.0])
def test_the_quantile_of_student(degrees: float) -> None:
    assert intervals.t_quantile(degrees) == pytest.approx(t.ppf(0.975, degrees), rel=1e-5)


@pytest.mark.parametrize("blocks", [1, 4], ids=["groups", "blocks of 4"])
def test_degrees_of_freedom_are_those_of_the_variance_of_heavy_tailed_values(blocks: int) -> None:
    generator = np.random.default_rng(3)
    values = generator.exponential(size=(20_000, 200))  # excess kurtosis of 6
    variance = values.var(axis=1, ddof=1)
    expected = 2 * variance.mean() ** 2 / variance.var()  # 51, of 199
    found = [variance_degrees(own.reshape(-1, blocks).sum(axis=1), 200) for own in values[:2000]]
    assert 1 / np.mean(1 / np.array(found)) == pytest.approx(expected, rel=0.25)
    assert variance_degrees(np.linspace(-1, 1, 20), 20) == pytest.approx(19)


def test_an_auroc_that_rests_on_few_images_has_fewer_degrees_of_freedom() -> None:
    right = np.arange(120) < 60
    score = right + np.where(np.isin(np.arange(120), (3, 90)), 2.0 * ~right - 1.0, 0.0)
    every = np.ones(120, np.bool_)

    def areas(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {name: weighted_auc(right, score, weights) for name in ("auroc", "other")}

    found = bootstrap(
        areas, dict.fromkeys(("auroc", "other"), every), np.arange(120), strata=right.astype(np.int64),
        bounds=dict.fromkeys(("auroc", "other"), (0.0, 1.0)), aurocs=("auroc",),
    )  # fmt: skip
    assert found["auroc"].value == found["other"].value == pytest.approx(1 - 60 / 3600)
    assert found["auroc"].low < found["other"].low
    assert found["auroc"].high > found["other"].high


def test_a_balanced_accuracy_without_errors_is_as_uncertain_as_its_rare_class() -> None:
    labels = np.repeat([0, 1], [850, 5])
    found = bootstrap_intervals(scores_of(labels, np.eye(2)[labels]), resamples=50)
    rare = 1 - 0.025 ** (1 / 5)
    assert found["recall/b"].low == pytest.approx(1 - rare)
    assert found["accuracy"].low == pytest.approx(0.025 ** (1 / 855))
    assert found["balanced_accuracy"].low == pytest.approx(1 - np.hypot(rare, 1 - 0.025 ** (1 / 850)) / 2)
    assert found["balanced_accuracy"].high == 1


def _with_rare(rare: int, generator: np.random.Generator, recall: tuple[float, float] = (0.9, 0.85)) -> Scores:
    labels = np.repeat([0, 1], [100, rare])
    right = generator.random(labels.size) < np.array(recall)[labels]
    return scores_of(labels, np.eye(2)[np.where(right, labels, 1 - labels)])


def test_coverage_of_the_balanced_accuracy_with_five_rare_images() -> None:
    generator = np.random.default_rng(0)
    found = [bootstrap_intervals(_with_rare(5, generator), resamples=200)["balanced_accuracy"] for _ in range(200)]
    covered = np.mean([interval.low <= 0.875 <= interval.high for interval in found])
    assert covered > 0.93  # 0.62 with the degrees of freedom and the variance of all 105
    assert np.mean([interval.high - interval.low for interval in found]) < 0.5


def test_four_groups_of_a_class_have_no_interval_and_neither_has_what_averages_them() -> None:
    found = figures_of(_with_rare(4, np.random.default_rng(1)), resamples=50)
    refused = {key for key, interval in found.items() if interval.no_interval}
    assert {found[key].no_interval for key in refused} == {"few_groups"}
    assert {Key("recall", "b"), Key("roc_auc", "a"), Key("roc_auc", "a", None, "b"), Key("specificity", "a")} <= refused
    assert {Key("balanced_accuracy"), Key("macro_f1"), Key("macro_roc_auc")} <= refused
    assert not {Key("accuracy"), Key("recall", "a"), Key("mcc")} & refused
    for key, interval in found.items():
        assert np.isnan([interval.low, interval.high]).all() == (key in refused)
        assert np.isfinite(interval.value)


def test_two_equal_models_may_differ_either_way() -> None:
    scores = _with_rare(20, np.random.default_rng(2))
    rows = rests_on(scores)
    found = intervals_of(
        lambda weights: {key: np.zeros(len(weights)) for key in rows}, scores, rows, differences=True, resamples=50
    )
    room = 1 - 0.025 ** (1 / 120)
    assert (found[Key("accuracy")].low, found[Key("accuracy")].high) == pytest.approx((-room, room))
    assert (found[Key("mcc")].low, found[Key("mcc")].high) == pytest.approx((-2 * room, 2 * room))
    assert found[Key("balanced_accuracy")].low == pytest.approx(
        -np.hypot(1 - 0.025 ** (1 / 100), 1 - 0.025 ** (1 / 20)) / 2
    )


@pytest.mark.parametrize(
    ("groups", "wrong", "at_least"),
    [(11, 5, True), (12, 6, True), (40, 9, True), (40, 12, False), (40, 31, True), (200, 0, True), (2000, 11, False)],
)
def test_few_groups_or_few_errors_claim_at_least_95_percent(groups: int, wrong: int, at_least: bool) -> None:
    right = np.arange(groups) >= wrong
    every = {"share": np.ones(groups, np.bool_)}
    found = bootstrap(
        lambda w: {"share": w @ right / w.sum(axis=1)}, every, np.arange(groups),
        bounds={"share": (0.0, 1.0)}, shares=["share"], resamples=4000,
    )  # fmt: skip
    assert found["share"].at_least == at_least


def test_a_mean_of_figures_claims_what_its_parts_claim() -> None:
    generator = np.random.default_rng(3)
    few, many = (figures_of(_with_rare(rare, generator, (0.7, 0.6)), resamples=50) for rare in (8, 100))
    for found, expected in ((few, True), (many, False)):
        assert found[Key("recall", "b")].at_least == found[Key("balanced_accuracy")].at_least == expected
        assert not found[Key("recall", "a")].at_least
    refused = figures_of(_with_rare(4, generator), resamples=50)
    assert not any(interval.at_least for interval in refused.values() if interval.no_interval)


def test_without_bounds_and_spread_there_is_no_interval() -> None:
    found = bootstrap(lambda w: {"index": np.full(len(w), 0.3)}, {"index": np.ones(9, np.bool_)}, np.arange(9))["index"]
    assert (found.value, found.no_interval) == (0.3, "no_spread")
    assert np.isnan(found.high)


@pytest.mark.parametrize("per_group", [1, 4])
def test_a_share_has_wilsons_interval_for_the_independent_images(per_group: int) -> None:
    right = np.repeat(np.random.default_rng(0).random(400) < 0.9, per_group)
    every = np.ones(right.size, np.bool_)
    found = bootstrap(
        lambda w: {"share": w @ right / w.sum(axis=1)}, {"share": every}, np.repeat(np.arange(400), per_group),
        bounds={"share": (0.0, 1.0)}, shares=["share"], resamples=20_000,
    )["share"]  # fmt: skip
    wilson = binomtest(int(right.sum()) // per_group, 400).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((wilson.low, wilson.high), abs=1e-3)


def _covered(
    truth: float, values: Callable[[np.random.Generator], np.ndarray], per_group: int, **kind: list[str]
) -> tuple[float, float]:
    """Return how often the interval of the mean of ``values`` contains ``truth``, and the mean width."""
    generator, found = np.random.default_rng(0), []
    for simulation in range(500):
        own = values(generator)
        found.append(
            bootstrap(
                lambda w, own=own: {"mean": w @ own / w.sum(axis=1)}, {"mean": np.ones(own.size, np.bool_)},
                np.repeat(np.arange(own.size // per_group), per_group), bounds={"mean": (0.0, 1.0)}, resamples=200,
                seed=simulation, **kind,
            )["mean"]
        )  # fmt: skip
    inside = np.mean([interval.low <= truth <= interval.high for interval in found])
    return float(inside), float(np.mean([interval.high - interval.low for interval in found]))


def test_coverage_of_a_share_of_twelve_groups() -> None:
    def right(generator: np.random.Generator) -> np.ndarray:
        return (generator.random(36) < np.repeat(generator.beta(2.8, 1.2, 12), 3)).astype(np.float64)

    covered, width = _covered(0.7, right, 3, shares=["mean"])
    assert 0.93 <= covered <= 0.97
    assert width < 0.38  # 0.40 on the logit scale


def test_coverage_of_a_skewed_mean_of_twelve_groups() -> None:
    def values(generator: np.random.Generator) -> np.ndarray:
        return generator.beta(4.5, 0.5, 12)

    assert _covered(0.9, values, 1)[0] < 0.94
    assert 0.94 <= _covered(0.9, values, 1, means=["mean"])[0] <= 0.97
