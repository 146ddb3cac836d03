"""Which figures a split gives: by class, by source, and the contrasts of classes inside a source."""

from __future__ import annotations

import numpy as np
import pytest
from score_making import scores_of
from sklearn.metrics import average_precision_score, roc_auc_score

from hilum.metrics.scores import Scores, average_precision, matthews
from hilum.metrics.table import BY_CLASS, OVERALL, Key, figures_of, rests_on, statistics_of

NAMES = ("covid", "normal", "viral")


def _scores(sources: tuple[str | None, ...] | None = None, count: int = 240) -> Scores:
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 3, count)
    labels[:6] = -1
    logits = generator.normal(size=(count, 3)) + np.eye(3)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    dice = np.where(np.arange(count) % 4 == 0, generator.random(count), np.nan)
    # source "b" has no viral image
    given = tuple("b" if row % 3 and labels[row] != 2 else "a" for row in range(count))
    return scores_of(
        labels, probabilities, class_names=NAMES, groups=tuple(f"g{row // 2}" for row in range(count)),
        sources=given if sources is None else sources, dice=dice, logits=logits, hd95_share=20 * dice,
    )  # fmt: skip


def test_every_figure_has_rows_and_a_statistic() -> None:
    scores = _scores()
    keys = {*rests_on(scores)}
    assert keys == {*statistics_of(scores)(np.ones((2, len(scores.files))))}
    assert {Key(metric) for metric in OVERALL} < keys
    assert {Key(metric, name) for metric in BY_CLASS for name in NAMES} < keys
    assert {Key("hd95_share"), Key("dice", "viral"), Key("iou", None, "a"), Key("recall", "covid", "b")} < keys
    assert Key("recall", "viral", "b") not in keys


def test_contrasts_are_the_pairs_that_a_source_has_ranked_by_the_difference_of_logits() -> None:
    scores = _scores()
    found = figures_of(scores, resamples=50)
    contrasts = {key: interval for key, interval in found.items() if key.versus}
    pairs = [("covid", "normal"), ("covid", "viral"), ("normal", "viral")]
    assert {*contrasts} == {
        *(Key("roc_auc", first, source, second) for first, second in pairs for source in (None, "a")),
        Key("roc_auc", "covid", "b", "normal"),
    }
    inside = (np.array(scores.sources) == "b") & np.isin(scores.labels, (0, 1))
    assert scores.logits is not None
    ranking = (scores.logits[:, 0] - scores.logits[:, 1])[inside]
    own = contrasts[Key("roc_auc", "covid", "b", "normal")]
    assert own.value == pytest.approx(roc_auc_score(scores.labels[inside] == 0, ranking))
    assert own.n == inside.sum()
    assert own.low < own.value < own.high


def test_without_logits_contrasts_rank_by_the_share_of_the_two_probabilities() -> None:
    scores = _scores()
    bare = Scores(**{**vars(scores), "logits": None})
    key = Key("roc_auc", "covid", "a", "viral")
    every = np.ones((1, len(scores.files)))
    assert statistics_of(bare)(every)[key] == pytest.approx(statistics_of(scores)(every)[key])


def test_one_source_is_not_reported_twice() -> None:
    only = figures_of(_scores(sources=("a",) * 240), resamples=20)
    assert not [key for key in only if key.source]
    assert [key for key in only if key.versus]


def test_figures_inside_a_source_are_those_of_its_images_alone() -> None:
    scores = _scores()
    rows = np.array(scores.sources) == "b"
    known = rows & scores.labeled
    found = figures_of(scores, resamples=20)
    assert found[Key("accuracy", None, "b")].value == np.mean(scores.predicted[known] == scores.labels[known])
    assert found[Key("dice", None, "b")].value == pytest.approx(np.nanmean(scores.dice[rows]))
    assert found[Key("accuracy", None, "b")].n == known.sum()


def test_average_precision_takes_equal_scores_as_one_step() -> None:
    generator = np.random.default_rng(0)
    positive, scores = generator.random(80) < 0.3, generator.integers(0, 6, 80).astype(float)
    weights = generator.integers(0, 3, (3, 80)).astype(float)
    ours = average_precision(positive, scores, weights)
    for row in range(3):
        assert ours[row] == pytest.approx(average_precision_score(positive, scores, sample_weight=weights[row]))


def test_average_precision_of_no_image_is_undefined() -> None:
    assert np.isnan(average_precision(np.zeros(4, np.bool_), np.arange(4.0), np.ones((1, 4)))).all()


def test_a_network_that_predicts_one_class_has_a_correlation_of_zero() -> None:
    assert matthews(np.array([[5.0, 0.0], [3.0, 0.0]])) == 0


def test_a_contrast_with_a_single_group_on_one_side_has_no_interval() -> None:
    scores = _scores()
    sources = tuple("c" if (row < 60 and scores.labels[row] == 0) or row == 61 else "a" for row in range(240))
    labels = scores.labels.copy()
    labels[61] = 1
    found = figures_of(Scores(**{**vars(scores), "sources": sources, "labels": labels}), resamples=50)
    assert np.isnan(found[Key("roc_auc", "covid", "c", "normal")].low)
    assert not np.isnan(found[Key("roc_auc", "covid", "a", "normal")].low)
