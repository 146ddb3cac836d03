"""What a split cannot tell is read off the split."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from score_making import scores_of

from hilum.evaluation.limits import limits_of
from hilum.metrics.scores import Scores


def _scores(labels: list[int], sources: list[str | None], **changes: Any) -> Scores:
    count = len(labels)
    fields: dict[str, Any] = {
        "class_names": ("covid", "normal"), "groups": tuple(map(str, range(count))), "sources": tuple(sources),
        "dice": np.full(count, 0.9),
    }  # fmt: skip
    return scores_of(labels, np.full((count, 2), 0.5), **(fields | changes))


def _apart() -> Scores:
    return _scores([0] * 50 + [1] * 50, ["a"] * 50 + ["b"] * 50)


def _mixed() -> Scores:
    return _scores([0, 1] * 80, ["a", "a", "b", "b"] * 40)


def test_classes_of_different_sources_come_first() -> None:
    first, *rest = limits_of(_apart())
    assert "covid" in first
    assert "normal" in first
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
    assert "90%" in sentence


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sources": (None,) * 160}, "source"),
        ({"groups": ("",) * 160}, "group"),
        ({"labels": np.full(160, -1)}, "label"),
        ({"labels": np.array([0] * 12 + [1] * 148)}, "12"),
    ],
)
def test_what_is_missing_is_said(changes: dict[str, Any], named: str) -> None:
    sentences = limits_of(Scores(**{**vars(_mixed()), **changes}))
    assert any(named in sentence for sentence in sentences)


def test_masks_of_some_and_of_one_class_only() -> None:
    scores = _mixed()
    dice = np.where(scores.labels == 1, 0.9, np.nan)
    (sentence,) = limits_of(Scores(**{**vars(scores), "dice": dice, "iou": dice}))
    assert all(word in sentence for word in ("80 of 160", "covid"))


def test_what_the_caller_knows_is_added() -> None:
    assert len(limits_of(_mixed(), same_sources=True, calibrated=False)) == 2


def test_training_images_that_are_not_known_come_first_and_once() -> None:
    plain = limits_of(_apart(), training_images="all")
    assert limits_of(_apart(), training_images=None) == plain
    for extent in ("none", "part"):
        _, *rest = limits_of(_apart(), training_images=extent)
        assert tuple(rest) == plain
