"""Point metrics against hand counts, scikit-learn and MONAI."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.metrics.meandice import compute_dice
from monai.metrics.meaniou import compute_iou
from sklearn.metrics import classification_report, roc_auc_score

from hilum.errors import DataError
from hilum.metrics.scores import (
    Scores,
    class_metrics,
    confusion_counts,
    confusion_rates,
    dice_and_iou,
    one_vs_rest_auc,
    validation_auc,
)

NAMES = ("COVID", "Normal", "Viral Pneumonia")


def _softmax(generator: np.random.Generator, labels: np.ndarray, classes: int) -> np.ndarray:
    logits = generator.normal(size=(labels.size, classes)) + np.eye(classes)[labels]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def _scores(**changes: Any) -> Scores:
    nan = np.array([0.5, np.nan])
    fields: dict[str, Any] = {
        "files": ("a.png", "b.png"), "labels": np.array([0, -1]), "class_names": ("x", "y"),
        "probabilities": np.array([[0.9, 0.1], [0.2, 0.8]]), "groups": ("p", "p"), "sources": (None, "s"),
        "dice": nan, "iou": nan, "split": "test",
    }  # fmt: skip
    return Scores(**(fields | changes))


def test_dice_and_iou_by_hand() -> None:
    predicted = np.zeros((4, 2, 3), bool)
    target = np.zeros((4, 2, 3), bool)
    predicted[0, 0, :2] = target[0, 0, 1:] = True  # 2 and 2 pixels, 1 shared
    predicted[1], target[1] = True, True
    predicted[2, 0, 0] = True  # against an empty target; the fourth pair is empty
    dice, iou = dice_and_iou(predicted, target)
    np.testing.assert_allclose(dice, [0.5, 1, 0, 1])
    np.testing.assert_allclose(iou, [1 / 3, 1, 0, 1])
    assert dice.dtype == iou.dtype == np.float64


@pytest.mark.parametrize(
    ("predicted", "target"),
    [
        (np.zeros((2, 4, 4), bool), np.zeros((2, 4, 5), bool)),
        (np.zeros((4, 4), bool), np.zeros((4, 4), bool)),
        (np.zeros((2, 4, 4), np.float32), np.zeros((2, 4, 4), bool)),
    ],
)
def test_dice_and_iou_refuse(predicted: np.ndarray, target: np.ndarray) -> None:
    with pytest.raises(DataError):
        dice_and_iou(predicted, target)


def test_class_metrics_by_hand() -> None:
    labels = np.array([0, 0, 0, 1, -1])
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6], [0.5, 0.5]])
    report = class_metrics(labels, probabilities, ("a", "b"))
    assert report["confusion_matrix"] == [[2, 1], [0, 1]]
    assert report["accuracy"] == 0.75
    assert report["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert report["a"] == pytest.approx(
        {"precision": 1, "recall": 2 / 3, "f1-score": 0.8, "roc_auc": 2 / 3, "support": 3}
    )
    assert report["macro avg"]["roc_auc"] == pytest.approx(2 / 3)
    assert report["macro avg"]["support"] == 4


@pytest.mark.parametrize("absent", [None, 2])
@pytest.mark.parametrize("silent", [None, 1, 2])
def test_class_metrics_have_the_shape_and_values_of_scikit_learn(absent: int | None, silent: int | None) -> None:
    """Also where one class has no image, and where one is never predicted."""
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 3, 60)
    labels[labels == absent] = 0
    probabilities = _softmax(generator, labels, 3)
    if silent is not None:
        probabilities[:, silent] = 0
    predicted = probabilities.argmax(1)
    ours = class_metrics(labels, probabilities, NAMES)
    present = [k for k in range(3) if k != absent]
    shared = {"output_dict": True, "target_names": [NAMES[k] for k in present], "labels": present}
    theirs = classification_report(labels, predicted, zero_division=0, **shared)
    for name in ("macro avg", "weighted avg"):
        assert {key: ours[name][key] for key in theirs[name]} == pytest.approx(theirs[name])
    undefined = classification_report(
        labels, predicted, zero_division=np.nan, labels=range(3), target_names=NAMES, output_dict=True
    )
    for name in NAMES:
        for key, value in undefined[name].items():
            assert ours[name][key] == (None if np.isnan(value) else pytest.approx(value)), (name, key)
    assert ours["accuracy"] == pytest.approx((labels == predicted).mean())
    if absent is not None:
        assert ours["Viral Pneumonia"]["roc_auc"] is None
        assert ours["Viral Pneumonia"]["recall"] is None


def test_a_class_that_is_never_predicted_counts_as_0_and_an_absent_one_not_at_all() -> None:
    report = class_metrics(np.array([0, 1]), np.array([[1, 0, 0], [0, 0, 1.0]]), NAMES)
    assert report["Viral Pneumonia"]["f1-score"] == 0
    assert report["Viral Pneumonia"]["precision"] == 0
    assert report["Normal"]["precision"] is None
    assert report["macro avg"]["precision"] == 0.5
    assert report["macro avg"]["f1-score"] == 0.5
    assert report["balanced_accuracy"] == 0.5


def test_one_vs_rest_auc_with_ties_and_weights_agrees_with_scikit_learn() -> None:
    generator = np.random.default_rng(2)
    labels = generator.integers(0, 3, 80)
    probabilities = np.round(_softmax(generator, labels, 3), 1)  # many ties
    weights = generator.integers(0, 4, (5, 80)).astype(float)
    areas = one_vs_rest_auc(labels, probabilities, weights)
    expected = [
        [roc_auc_score(labels == k, probabilities[:, k], sample_weight=row) for k in range(3)] for row in weights
    ]
    np.testing.assert_allclose(areas, expected, atol=1e-12)


def test_weighted_confusion_agrees_with_repetition() -> None:
    generator = np.random.default_rng(3)
    labels, predicted = generator.integers(0, 3, (2, 40))
    weights = generator.integers(0, 3, (4, 40))
    counts = confusion_counts(labels, predicted, 3, weights.astype(float))
    for row, times in enumerate(weights):
        repeated = confusion_counts(np.repeat(labels, times), np.repeat(predicted, times), 3)
        np.testing.assert_array_equal(counts[row], repeated[0])
    assert confusion_rates(counts).recall.shape == (4, 3)


def test_validation_auc_leaves_out_absent_classes_and_unknown_labels() -> None:
    labels = np.array([0, 0, 1, 1, -1])
    probabilities = np.array([[0.8, 0.1, 0.1], [0.3, 0.4, 0.3], [0.4, 0.5, 0.1], [0.1, 0.3, 0.6], [1, 0, 0]])
    assert validation_auc(labels, probabilities) == pytest.approx((3 / 4 + 3 / 4) / 2)
    assert np.isnan(validation_auc(np.zeros(3, int), np.full((3, 2), 0.5)))
    assert np.isnan(validation_auc(np.full(3, -1), np.full((3, 2), 0.5)))
    assert np.isnan(validation_auc(np.zeros(0, int), np.zeros((0, 2))))


def test_a_diverged_network_is_named() -> None:
    with pytest.raises(DataError):
        validation_auc(np.array([0, 1]), np.array([[np.nan, 0.5], [0.5, 0.5]]))


@pytest.mark.parametrize(
    ("labels", "probabilities", "names"),
    [
        (np.array([0]), np.zeros((1, 2)), NAMES),
        (np.array([3]), np.zeros((1, 3)), NAMES),
        (np.array([0.0]), np.zeros((1, 3)), NAMES),
        (np.array([-1]), np.zeros((1, 3)), NAMES),
        (np.array([0]), np.array([[4.0, -2.0, 0.0]]), NAMES),
        (np.array([0]), np.array([[1.0, 0.0]]), ("accuracy", "b")),
    ],
)
def test_class_metrics_refuse(labels: np.ndarray, probabilities: np.ndarray, names: tuple[str, ...]) -> None:
    with pytest.raises(DataError):
        class_metrics(labels, probabilities, names)


def test_scores_know_what_is_known() -> None:
    scores = _scores()
    assert scores.labeled.tolist() == [True, False]
    assert scores.masked.tolist() == [True, False]
    assert scores.predicted.tolist() == [0, 1]
    assert scores.clusters().tolist() == [0, 0]
    assert len(set(_scores(groups=("", "")).clusters().tolist())) == 2  # no group: each stands alone


@pytest.mark.parametrize(
    "changes",
    [
        {"groups": ("p",)},
        {"sources": ()},
        {"labels": np.array([0])},
        {"dice": np.array([0.5])},
        {"dice": np.array([np.nan, 0.5])},
        {"dice": np.array([1.5, np.nan])},
        {"probabilities": np.array([[0.9, 0.9], [0.2, 0.8]])},
        {"files": ()},
    ],
)
def test_scores_refuse(changes: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        _scores(**changes)


def test_overlap_is_that_of_monai() -> None:
    generator = np.random.default_rng(0)
    predicted, target = generator.random((2, 5, 24, 24)) < 0.4
    pair = [torch.from_numpy(masks[:, None].astype(np.uint8)) for masks in (predicted, target)]
    dice, iou = dice_and_iou(predicted, target)
    np.testing.assert_allclose(dice, compute_dice(*pair)[:, 0], rtol=1e-6)
    np.testing.assert_allclose(iou, compute_iou(*pair)[:, 0], rtol=1e-6)
