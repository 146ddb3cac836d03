"""The fall of a network that was trained without a source."""

from __future__ import annotations

import numpy as np
import pytest
from score_making import scores_of

from hilum.evaluation.leave_one_source_out import _compare
from hilum.metrics.table import Key, figures_of


@pytest.mark.parametrize("worse", [0, 12])
def test_a_fall_is_a_difference_and_may_be_a_gain(worse: int) -> None:
    labels = np.repeat([0, 1], [40, 20])
    within = scores_of(labels, np.eye(2)[labels])
    without = scores_of(labels, np.eye(2)[np.where(np.arange(60) % 5 < worse / 12, 1 - labels, labels)])
    found = _compare("kermany", 100, without, within, 200, 0)
    assert found.fall.value == pytest.approx(worse / 60)
    if worse:
        assert 0 < found.fall.low < worse / 60 < found.fall.high < 1
    else:
        room = 1 - 0.025 ** (1 / 60)  # no change in 60 groups
        assert (found.fall.low, found.fall.high) == pytest.approx((-room, room))
    assert (found.accuracy_with.low, found.accuracy_with.high) == pytest.approx((0.025 ** (1 / 60), 1))


def test_the_figures_are_those_of_an_evaluation() -> None:
    labels = np.repeat([0, 1], [60, 8])  # balanced accuracy is no more certain than the recall of 8 images
    wrong = np.isin(np.arange(68), [1, 2, 3, 61])
    within, without = (scores_of(labels, np.eye(2)[np.where(rows, 1 - labels, labels)]) for rows in (wrong, ~wrong))
    found, own = _compare("kermany", 100, without, within, 200, 3), figures_of(within, resamples=200, seed=3)
    assert found.accuracy_with == own[Key("accuracy")]
    assert found.balanced_accuracy_with == own[Key("balanced_accuracy")]
