"""What a split cannot tell is read off the split."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hilum.evaluation.limits import limits_of
from hilum.metrics.scores import Scores


def _scores(labels: list[int], sources: list[str | None], **changes: Any) -> Scores:
    count = len(labels)
    dice = np.full(count, 0.9)
    fields: dict[str, Any] = {
        "files": tuple(map(str, range(count))), "labels": np.array(labels), "class_names": ("covid", "normal"),
        "probabilities": np.full((count, 2), 0.5), "groups": tuple(map(str, range(count))),
        "sources": tuple(sources), "dice": dice, "iou": dice, "split": "test",
    }  # fmt: skip
    return Scores(**(fields | changes))


def _apart() -> Scores:
    return _scores([0] * 50 + [1] * 50, ["a"] * 50 + ["b"] * 50)


def _mixed() -> Scores:
    return _scores([0, 1] * 80, ["a", "a", "b", "b"] * 40)


def test_classes_of_different_sources_come_first() -> None:
    first, *rest = limits_of(_apart())
    assert "No source has both covid and normal" in first
    assert rest == []


def test_balanced_sources_leave_nothing_to_say() -> None:
    assert limits_of(_mixed()) == ()


def test_few_images_of_a_pair_in_its_shared_source_are_counted() -> None:
    labels, sources = [0] * 60 + [1] * 60, ["a"] * 55 + ["b"] * 5 + ["b"] * 60
    (sentence,) = limits_of(_scores(labels, sources))
    assert "at most 5" in sentence


def test_a_class_mostly_from_elsewhere_is_named_with_its_share() -> None:
    labels, sources = [0] * 400 + [1] * 60, ["a"] * 360 + ["b"] * 40 + ["b"] * 60
    (sentence,) = limits_of(_scores(labels, sources))
    assert sentence.startswith("90% of the covid films come from sources without normal")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sources": (None,) * 160}, "No source is given"),
        ({"groups": ("",) * 160}, "No groups"),
        ({"labels": np.full(160, -1)}, "No image has a label"),
        ({"labels": np.array([0] * 12 + [1] * 148)}, "covid has 12 images"),
    ],
)
def test_what_is_missing_is_said(changes: dict[str, Any], expected: str) -> None:
    sentences = limits_of(Scores(**{**vars(_mixed()), **changes}))
    assert any(expected in sentence for sentence in sentences)


def test_masks_of_some_and_of_one_class_only() -> None:
    scores = _mixed()
    dice = np.where(scores.labels == 1, 0.9, np.nan)
    (sentence,) = limits_of(Scores(**{**vars(scores), "dice": dice, "iou": dice}))
    assert sentence == "Lung masks exist for 80 of 160 images, none of them of covid."


def test_what_the_caller_knows_is_added() -> None:
    sentences = limits_of(_mixed(), same_sources=True, calibrated=False)
    assert "the sources that the model was trained on" in sentences[0]
    assert "not calibrated" in sentences[1]


def test_training_images_that_are_not_known_come_first_and_once() -> None:
    plain = limits_of(_apart(), training_images="all")
    assert limits_of(_apart(), training_images=None) == plain
    for extent in ("none", "part"):
        first, *rest = limits_of(_apart(), training_images=extent)
        assert "is not known" in first
        assert tuple(rest) == plain
