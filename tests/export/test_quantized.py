"""Agreement of a reduced precision with float32: each figure by hand, and each bound on its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hilum.bundle.bundle import Agreement
from hilum.export.agreement import Answers, agreement_of, failures_of

BIAS = np.array([0.5, -0.25], np.float32)


def answers(n: int = 8) -> Answers:
    """Images of class 0 and 1 in turn, the evidence in cell 1 of four, all classes right."""
    evidence = np.zeros((n, 2, 2, 2), np.float32)
    for row in range(n):
        evidence[row, row % 2, 0, 1] = 4
        evidence[row, row % 2, 1, 1] = 1
    dice = np.where(np.arange(n) < 4, 0.9, np.nan)
    return Answers(evidence.sum((2, 3)) + BIAS, evidence, dice)


LABELS = np.arange(8) % 2


def measured(candidate: Answers) -> Agreement:
    return agreement_of(answers(), candidate, LABELS, backend="OpenVINO 1", split="val")


def test_the_same_answers_agree() -> None:
    assert measured(answers()).model_dump() == {
        "n": 8, "labels_agree": 1, "macro_f1_change": 0, "dice_change": 0, "evidence_sum_error": pytest.approx(0),
        "evidence_same_cell": 1, "accepted": True, "float_layers": "fp32", "backend": "OpenVINO 1", "split": "val",
    }  # fmt: skip


def test_each_figure_is_what_it_says() -> None:
    own = answers()
    assert own.evidence is not None
    own.logits[0] = own.logits[0][::-1]  # one of eight images gets the other class; its evidence stays
    own.evidence[1, 1, 0, 1], own.evidence[1, 1, 1, 1] = 1, 4  # another cell, the same sum
    own.dice[0] = 0.7  # one of four masks
    found = measured(own)
    assert found.labels_agree == 7 / 8
    assert found.macro_f1_change == pytest.approx((6 / 7 + 8 / 9) / 2 - 1)
    assert found.dice_change == pytest.approx(-0.05)
    moved = own.logits[0] - own.evidence[0].sum((1, 2)) - BIAS
    assert found.evidence_sum_error == pytest.approx(np.abs(moved).max())
    assert found.evidence_same_cell == 7 / 8
    assert not found.accepted
    assert len(failures_of(found)) == 5


def test_without_masks_and_evidence_there_are_no_such_figures() -> None:
    bare = Answers(answers().logits, None, np.full(8, np.nan))
    found = agreement_of(bare, bare, LABELS, backend="OpenVINO 1", split="val")
    assert (found.dice_change, found.evidence_sum_error, found.evidence_same_cell) == (None, None, None)
    assert found.accepted


FIGURES = {
    "n": 1000, "labels_agree": 0.995, "macro_f1_change": -0.005, "dice_change": -0.002, "evidence_sum_error": 1e-3,
    "evidence_same_cell": 0.95, "accepted": False, "backend": "OpenVINO 1", "split": "val",
}  # fmt: skip


@pytest.mark.parametrize(
    ("beyond", "text"),
    [
        ({}, ""),
        ({"labels_agree": 0.9949}, "99.49%"),
        ({"macro_f1_change": -0.0051}, "-0.0051"),
        ({"dice_change": -0.0021}, "-0.0021"),
        ({"evidence_sum_error": 1.1e-3}, "1.1e-03"),
        ({"evidence_same_cell": 0.9499}, "94.99%"),
    ],
)
def test_each_bound_is_kept_and_named(beyond: dict[str, Any], text: str) -> None:
    failures = failures_of(Agreement.model_validate({**FIGURES, **beyond}))
    assert len(failures) == len(beyond)
    assert all(text in failure for failure in failures)
