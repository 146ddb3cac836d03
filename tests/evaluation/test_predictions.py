"""predictions.csv: a round trip to the bit, other tools' tables, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hilum.errors import DataError
from hilum.evaluation.predictions import read_predictions, write_predictions
from hilum.metrics.scores import Scores

NAMES = ("COVID", "Lung, opaque", "Normal")
COUNT = 40


def _scores(**changes: Any) -> Scores:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, COUNT)
    labels[:4] = -1
    logits = generator.normal(size=(COUNT, 3)) + 2 * np.eye(3)[labels]
    dice = np.where(np.arange(COUNT) % 3 == 0, generator.random(COUNT), np.nan)
    fields: dict[str, Any] = {
        "files": tuple(f'images, "{row}".png' for row in range(COUNT)), "labels": labels,
        "probabilities": np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), "class_names": NAMES,
        "groups": tuple(f"p{row // 2}" for row in range(COUNT)), "sources": ("kermany", None) * (COUNT // 2),
        "dice": dice, "iou": dice / (2 - dice), "split": "test", "logits": logits, "hd95_share": 30 * dice,
    }  # fmt: skip
    return Scores(**(fields | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"logits": None},
        {"hd95_share": None},
        {"seen": np.arange(COUNT) % 3 == 0},
        {"labels": np.full(COUNT, -1)},
        {"groups": ("",) * COUNT, "sources": (None,) * COUNT},
        {"files": tuple(f"=cmd|{row}" for row in range(COUNT)), "groups": ("-p",) * COUNT, "sources": ("'@s",) * COUNT},
        {"class_names": ("=COVID", "+Lung", "-1")},
    ],
)
def test_what_is_written_reads_back_equal_to_the_bit(tmp_path: Path, changes: dict[str, Any]) -> None:
    scores = _scores(**changes)
    write_predictions(scores, tmp_path / "predictions.csv")
    again = read_predictions(tmp_path / "predictions.csv", "test")
    for field in dataclasses.fields(Scores):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(scores, field.name), err_msg=field.name)


def test_another_tools_table_needs_file_label_and_probabilities_alone(tmp_path: Path) -> None:
    path = tmp_path / "theirs.csv"
    path.write_text("prob_b,file,prob_a,label,site\n0.25,1.png,0.75,a,x\n1,2.png,0,,y\n")
    scores = read_predictions(path, "external")
    assert scores.class_names == ("b", "a")
    assert scores.labels.tolist() == [1, -1]
    assert scores.predicted.tolist() == [1, 0]
    assert scores.groups == ("", "")
    assert scores.logits is None
    assert scores.hd95_share is None
    assert not scores.masked.any()


def test_distances_in_pixels_of_earlier_versions_are_not_taken_for_shares(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text("file,label,prob_a,prob_b,dice,iou,hd95\n1.png,a,0.75,0.25,0.9,0.8,4.7\n2.png,b,0,1,0.9,0.8,2.8\n")
    scores = read_predictions(path, "test")
    assert scores.masked.all()
    assert scores.hd95_share is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "file,label,prob_a\n",
        "file,prob_a\nx,1\n",
        "file,predicted_label,prob_a\nx,a,1\n",
        "file,status,label,label_set,prob_a\nx,predicted,a,a,1\n",  # as earlier versions wrote it
        "file,label\nx,\n",
        "file,label,prob_a,prob_a\nx,a,1,1\n",
        "file,label,prob_a\nx,b,1\n",
        "file,label,prob_a\nx,a\n",
        "file,label,prob_a\nx,a,much\n",
        "file,label,prob_a,prob_b\nx,a,0.9,0.9\n",
        "file,label,prob_a,prob_b\nx,a,,1\n",
        "file,label,prob_a,in_training_data\nx,a,1,maybe\n",
    ],
)
def test_a_table_that_is_no_evaluation_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.csv"
    path.write_text(text)
    with pytest.raises(DataError):
        read_predictions(path, "test")
