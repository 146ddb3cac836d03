"""The files of an evaluation: a round trip, no NaN, and partial knowledge."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hilum.errors import DataError
from hilum.evaluation.evaluate import read_predictions, summary_lines, write_evaluation, write_predictions
from hilum.evaluation.metrics import Scores

NAMES = ("COVID", "Lung, opaque", "Normal")
COUNT = 40


def _scores(**changes: Any) -> Scores:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, COUNT)
    labels[:4] = -1
    logits = generator.normal(size=(COUNT, 3)) + 2 * np.eye(3)[labels]
    dice = np.where(np.arange(COUNT) % 3 == 0, generator.random(COUNT), np.nan)
    fields: dict[str, Any] = {
        "files": tuple(f'films, "{row}".png' for row in range(COUNT)), "labels": labels,
        "probabilities": np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), "class_names": NAMES,
        "groups": tuple(f"p{row // 2}" for row in range(COUNT)), "sources": ("kermany", None) * (COUNT // 2),
        "dice": dice, "iou": dice / (2 - dice), "split": "test",
    }  # fmt: skip
    return Scores(**(fields | changes))


def _assert_equal(left: Scores, right: Scores) -> None:
    for field in dataclasses.fields(Scores):
        np.testing.assert_array_equal(getattr(left, field.name), getattr(right, field.name), err_msg=field.name)


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def test_report_says_what_was_measured_on_what(tmp_path: Path) -> None:
    report = write_evaluation(_scores(), tmp_path / "test", resamples=100)
    names = {path.name for path in (tmp_path / "test").iterdir()}
    assert names == {"classification_report.json", "predictions.csv", "confusion_matrix.png", "roc_curves.png"}
    text = (tmp_path / "test" / "classification_report.json").read_text()
    assert json.loads(text, parse_constant=_no_constant) == report
    counts = {key: report[key] for key in ("split", "images", "groups", "labelled", "with_masks")}
    assert counts == {"split": "test", "images": 40, "groups": 20, "labelled": 36, "with_masks": 14}
    assert sum(report[name]["support"] for name in NAMES) == 36
    accuracy = report["intervals"]["accuracy"]
    assert accuracy["value"] == pytest.approx(report["accuracy"])
    assert accuracy["low"] < accuracy["value"] < accuracy["high"]
    assert accuracy["n"] == 36
    assert report["intervals"]["recall/COVID"]["value"] == pytest.approx(report["COVID"]["recall"])


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_evaluation(_scores(), tmp_path / name, resamples=50, seed=5)
    for name in ("classification_report.json", "predictions.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_predictions_come_back_equal(tmp_path: Path) -> None:
    scores = _scores()
    write_predictions(scores, tmp_path / "predictions.csv")
    header = (tmp_path / "predictions.csv").read_text().splitlines()[0]
    assert header == 'file,label,group,source,prob_COVID,"prob_Lung, opaque",prob_Normal,dice,iou'
    _assert_equal(read_predictions(tmp_path / "predictions.csv", "test"), scores)


def test_summary_gives_every_number_its_interval_and_n(tmp_path: Path) -> None:
    report = write_evaluation(_scores(), tmp_path, resamples=50)
    head, *lines = summary_lines(report)
    assert head == "test split: 40 images in 20 groups, 36 labelled, 14 with masks; 95% intervals"
    assert [line.strip()[:22].strip() for line in lines] == [
        "accuracy", "macro F1", "macro ROC-AUC", "COVID recall", "COVID precision", "Lung, opaque recall",
        "Lung, opaque precision", "Normal recall", "Normal precision", "Dice", "IoU",
    ]  # fmt: skip
    assert all("n = " in line and "–" in line for line in lines)
    assert summary_lines(json.loads((tmp_path / "classification_report.json").read_text())) == [head, *lines]


def test_absent_class_is_null_and_said_to_be_undefined(tmp_path: Path) -> None:
    labels = np.where(np.arange(COUNT) % 2, 0, 2)
    report = write_evaluation(_scores(labels=labels), tmp_path, resamples=50)
    assert report["intervals"]["recall/Lung, opaque"] == {"value": None, "low": None, "high": None, "n": 0}
    assert report["Lung, opaque"]["roc_auc"] is None
    assert any("Lung, opaque recall" in line and "undefined, n = 0" in line for line in summary_lines(report))


def test_masks_alone(tmp_path: Path) -> None:
    write_evaluation(_scores(), tmp_path, resamples=50)
    scores = _scores(labels=np.full(COUNT, -1), class_names=(), probabilities=np.zeros((COUNT, 0)))
    report = write_evaluation(scores, tmp_path, resamples=50)
    assert {path.name for path in tmp_path.iterdir()} == {"classification_report.json", "predictions.csv"}
    assert set(report["intervals"]) == {"dice", "iou"}
    assert "accuracy" not in report
    assert len(summary_lines(report)) == 3
    _assert_equal(read_predictions(tmp_path / "predictions.csv", "test"), scores)


@pytest.mark.parametrize("labels", [None, np.full(COUNT, -1)])
def test_no_masks(tmp_path: Path, labels: np.ndarray | None) -> None:
    nothing = np.full(COUNT, np.nan)
    changes = {"dice": nothing, "iou": nothing} | ({} if labels is None else {"labels": labels})
    report = write_evaluation(_scores(**changes), tmp_path, resamples=50)
    assert report["with_masks"] == 0
    assert not {"dice", "iou"} & set(report["intervals"])
    assert len(summary_lines(report)) == (10 if labels is None else 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no row"),
        ("file,label,group,source,prob_a,dice,iou\n", "no row"),
        ("file,label,prob_a\nx.png,a,1\n", "Expected columns"),
        ("file,label,group,source,prob_a,dice,iou\nx.png,b,g,,1,,\n", "row 2"),
        ("file,label,group,source,prob_a,dice,iou\nx.png,a,g,,1,\n", "Expected 7 cells"),
        ("file,label,group,source,prob_a,dice,iou\nx.png,a,g,,one,,\n", "Expected numbers"),
        ("file,label,group,source,prob_a,dice,iou\nx.png,a,g,,,,\n", "finite"),
    ],
)
def test_a_table_that_is_no_prediction_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        read_predictions(path, "test")


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.csv"):
        read_predictions(tmp_path / "nowhere.csv", "test")
