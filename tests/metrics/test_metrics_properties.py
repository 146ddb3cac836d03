"""Metrics are within their bounds, do not depend on the order of images, and are those of scikit-learn."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from sklearn import metrics as sklearn

from hilum.metrics.scores import (
    average_precision,
    class_metrics,
    confusion_counts,
    dice_and_iou,
    matthews,
    one_vs_rest_auc,
    specificity,
)

Data = tuple[NDArray[np.int64], NDArray[np.float64]]
_NAMES = ("a", "b", "c", "d")


@st.composite
def predictions(draw: st.DrawFn) -> Data:
    """Labels and probabilities of 2 to 60 images and 2 to 4 classes; many probabilities are tied."""
    images, classes = draw(st.integers(2, 60)), draw(st.integers(2, 4))
    labels = draw(hnp.arrays(np.int64, images, elements=st.integers(0, classes - 1)))
    levels = draw(hnp.arrays(np.int64, (images, classes), elements=st.integers(0, draw(st.sampled_from([2, 1000])))))
    values = levels + 1e-3
    return labels, values / values.sum(axis=1, keepdims=True)


@given(predictions())
def test_classes_agree_with_scikit_learn(data: Data) -> None:
    labels, probabilities = data
    names, predicted = _NAMES[: probabilities.shape[1]], probabilities.argmax(axis=1)
    found = class_metrics(labels, probabilities, names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scikit-learn, for classes that do not occur
        expected = sklearn.classification_report(
            labels, predicted, labels=range(len(names)), target_names=names, output_dict=True, zero_division=np.nan
        )
    assert found["accuracy"] == pytest.approx(sklearn.accuracy_score(labels, predicted))
    assert found["confusion_matrix"] == sklearn.confusion_matrix(labels, predicted, labels=range(len(names))).tolist()
    for name in names:
        for key in ("precision", "recall", "f1-score", "support"):
            value = np.nan if found[name][key] is None else found[name][key]
            assert value == pytest.approx(expected[name][key], nan_ok=True), (name, key)
            assert np.isnan(value) or value >= 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert found["balanced_accuracy"] == pytest.approx(sklearn.balanced_accuracy_score(labels, predicted))
        assert float(matthews(confusion_counts(labels, predicted, len(names))[0])) == pytest.approx(
            sklearn.matthews_corrcoef(labels, predicted)
        )


@given(predictions())
def test_rankings_agree_with_scikit_learn(data: Data) -> None:
    labels, probabilities = data
    areas = one_vs_rest_auc(labels, probabilities)[0]
    for k, area in enumerate(areas):
        positive, scores = labels == k, probabilities[:, k]
        if positive.all() or not positive.any():
            assert np.isnan(area)
            continue
        assert area == pytest.approx(sklearn.roc_auc_score(positive, scores))
        precision = average_precision(positive, scores, np.ones((1, labels.size)))[0]
        assert precision == pytest.approx(sklearn.average_precision_score(positive, scores))
        assert 0 <= area <= 1
        assert 0 < precision <= 1 + 1e-12
        assert one_vs_rest_auc(labels, -probabilities)[0][k] == pytest.approx(1 - area)


@given(predictions(), st.randoms(use_true_random=False))
def test_the_order_of_images_does_not_matter(data: Data, random: object) -> None:
    labels, probabilities = data
    order = [*range(labels.size)]
    random.shuffle(order)  # type: ignore[attr-defined]
    names = _NAMES[: probabilities.shape[1]]
    found = class_metrics(labels[order], probabilities[order], names)
    assert _flat(found) == pytest.approx(_flat(class_metrics(labels, probabilities, names)), nan_ok=True)


@given(predictions())
def test_whole_weights_are_repetitions(data: Data) -> None:
    labels, probabilities = data
    weights = np.arange(labels.size) % 3
    repeated = np.repeat(np.arange(labels.size), weights)
    weighted = one_vs_rest_auc(labels, probabilities, weights[None].astype(float))[0]
    assert weighted == pytest.approx(one_vs_rest_auc(labels[repeated], probabilities[repeated])[0], nan_ok=True)
    classes = probabilities.shape[1]
    counted = confusion_counts(labels, probabilities.argmax(axis=1), classes, weights[None].astype(float))
    again = confusion_counts(labels[repeated], probabilities[repeated].argmax(axis=1), classes)
    assert np.array_equal(counted, again)
    rates = specificity(counted)[~np.isnan(specificity(counted))]
    assert np.all((rates >= 0) & (rates <= 1))


@given(hnp.arrays(np.bool_, (2, 3, 5, 7)))
def test_overlap(masks: NDArray[np.bool_]) -> None:
    dice, iou = dice_and_iou(masks[0], masks[1])
    assert np.all((iou >= 0) & (iou <= dice) & (dice <= 1))
    assert iou == pytest.approx(dice / (2 - dice))
    assert np.array_equal(dice_and_iou(masks[1], masks[0])[0], dice)
    assert np.array_equal(dice_and_iou(masks[0], masks[0])[0], np.ones(3))
    assert np.array_equal(dice_and_iou(masks[0][..., ::-1], masks[1][..., ::-1])[0], dice)


def _flat(report: object) -> list[float]:
    if isinstance(report, dict):
        return [number for value in report.values() for number in _flat(value)]
    if isinstance(report, list):
        return [number for value in report for number in _flat(value)]
    return [np.nan] if report is None else [float(report)] if isinstance(report, (int, float)) else []
