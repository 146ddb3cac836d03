"""Macro averages where a class has no image or is never predicted: against scikit-learn, and without jumps."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from score_making import scores_of
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    precision_score,
    roc_auc_score,
)

from hilum.metrics.scores import Scores
from hilum.metrics.table import Key, classes_as_zero, classes_left_out, figures_of, statistics_of

Labels = NDArray[np.int64]
ABSENT, SILENT = 0, 2


def drawn(*, absent: int | None = None, silent: int | None = None, count: int = 300, seed: int = 0) -> Scores:
    """Four classes in two sources, without images of ``absent``, and without predictions of ``silent``."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 4, count)
    labels[labels == absent] = 1
    logits = random.normal(size=(count, 4)) + 1.5 * np.eye(4)[labels]
    if silent is not None:
        logits[:, silent] -= 20
    raised = np.exp(logits)
    return scores_of(
        labels,
        raised / raised.sum(axis=1, keepdims=True),
        groups=tuple(f"g{row // 2}" for row in range(count)),
        sources=tuple("north" if row % 3 else "south" for row in range(count)),
    )


def macro_of_scikit_learn(scores: Scores, weights: NDArray[np.float64]) -> dict[str, float]:
    present = np.unique(scores.labels)
    own = {"labels": present, "average": "macro", "zero_division": 0, "sample_weight": weights}
    one_vs_rest = [(scores.labels == k, scores.probabilities[:, k]) for k in present]
    negatives = [scores.labels != k for k in present]
    spared = [
        weights[no & (scores.predicted != k)].sum() / weights[no].sum()
        for k, no in zip(present, negatives, strict=True)
    ]
    return {
        "macro_f1": f1_score(scores.labels, scores.predicted, **own),
        "macro_precision": precision_score(scores.labels, scores.predicted, **own),
        "macro_specificity": float(np.mean(spared)),
        "macro_roc_auc": np.mean([roc_auc_score(*pair, sample_weight=weights) for pair in one_vs_rest]),
        "macro_pr_auc": np.mean([average_precision_score(*pair, sample_weight=weights) for pair in one_vs_rest]),
        "balanced_accuracy": balanced_accuracy_score(scores.labels, scores.predicted, sample_weight=weights),
    }


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("absent", [None, ABSENT])
@pytest.mark.parametrize("silent", [None, SILENT])
def test_every_weighting_agrees_with_scikit_learn_over_the_classes_present(
    absent: int | None, silent: int | None
) -> None:
    scores = drawn(absent=absent, silent=silent)
    weights = np.random.default_rng(1).integers(0, 3, (4, 300)).astype(float)
    found = statistics_of(scores)(weights)
    for row, own in enumerate(weights):
        expected = macro_of_scikit_learn(scores, own)
        assert {metric: found[Key(metric)][row] for metric in expected} == pytest.approx(expected)


def test_one_image_called_an_absent_class_moves_macro_f1_by_one_image() -> None:
    """The figure was 0.877 without, and 0.658 with, one of 1,000 images that is called COVID."""
    scores = drawn(absent=ABSENT, count=1000)
    probabilities = scores.probabilities.copy()
    probabilities[:, ABSENT] = 0
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    none = scores_of(scores.labels, probabilities, groups=scores.groups)
    wrong = int(np.flatnonzero(none.predicted != none.labels)[0])  # was wrong before, so that no class loses a hit
    probabilities[wrong] = np.eye(4)[ABSENT]
    one = scores_of(scores.labels, probabilities, groups=scores.groups)
    before, after = (figures_of(own, resamples=100) for own in (none, one))
    for metric in ("macro_f1", "macro_precision", "macro_specificity", "balanced_accuracy"):
        assert after[Key(metric)].value == pytest.approx(before[Key(metric)].value, abs=0.002)
        assert after[Key(metric)].low == pytest.approx(before[Key(metric)].low, abs=0.005)
    assert before[Key("macro_f1")].low > 0.6


def test_a_class_that_is_never_predicted_lowers_macro_precision() -> None:
    """Left out, a class without predictions raised the average of the others."""
    scores = drawn()
    probabilities = scores.probabilities.copy()
    probabilities[:, SILENT] = 0
    silent = scores_of(scores.labels, probabilities / probabilities.sum(axis=1, keepdims=True), groups=scores.groups)
    before, after = (figures_of(own, resamples=100)[Key("macro_precision")] for own in (scores, silent))
    assert after.high < before.low
    counts = confusion_matrix(silent.labels, silent.predicted)
    others = [counts[k, k] / counts[:, k].sum() for k in range(4) if k != SILENT]
    assert after.value == pytest.approx(sum(others) / 4)


def test_a_resample_without_a_class_is_left_out() -> None:
    """The class in whose group another class is more frequent is not in every resample."""
    labels = np.array([0] * 20 + [1] * 20 + [2])
    groups = (*(f"g{row}" for row in range(40)), "g0")
    scores = scores_of(labels, np.eye(3)[labels], groups=groups)
    weights = np.ones((2, 41))
    weights[1, 40] = 0
    found = statistics_of(scores)(weights)
    for metric in ("macro_f1", "macro_precision", "macro_roc_auc", "balanced_accuracy"):
        assert found[Key(metric)][0] == 1
        assert np.isnan(found[Key(metric)][1]), metric


def test_what_is_left_out_or_counted_as_0_is_named() -> None:
    scores = drawn(absent=ABSENT, silent=SILENT)
    for metric in ("macro_f1", "macro_precision", "macro_roc_auc", "balanced_accuracy"):
        assert classes_left_out(scores, Key(metric)) == ("a",)
        assert classes_as_zero(scores, Key(metric)) == (("c",) if metric == "macro_precision" else ())
    for key in (Key("accuracy"), Key("f1", "a"), Key("balanced_accuracy", "a"), Key("mcc")):
        assert classes_left_out(scores, key) == classes_as_zero(scores, key) == ()
    assert classes_left_out(drawn(), Key("macro_f1")) == ()


def test_a_source_names_the_classes_it_lacks() -> None:
    scores = drawn()
    labels = scores.labels.copy()
    labels[np.array(scores.sources) == "south"] = 1
    one_sided = scores_of(labels, scores.probabilities, sources=scores.sources)
    assert classes_left_out(one_sided, Key("balanced_accuracy", None, "south")) == ("a", "c", "d")
    assert classes_left_out(one_sided, Key("balanced_accuracy", None, "north")) == ()
