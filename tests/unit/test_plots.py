"""Plots: which files appear, that bad input is refused, and that what should be drawn is drawn."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hilum.errors import DataError, OutputError
from hilum.evaluation.intervals import Interval
from hilum.evaluation.metrics import Scores
from hilum.evaluation.plots import confusion_matrix_plot, roc_curves_plot, sample_overlays, training_curves

CURVES = {"training_curves", "loss", "cls_loss", "seg_loss", "accuracy", "dice", "val_auc"}
BLUE, VERMILION, ORANGE, SKY = (0, 114, 178), (213, 94, 0), (230, 159, 0), (86, 180, 233)


def _rows(count: int, dice: float = 0.9) -> list[dict[str, float]]:
    columns = ("loss", "cls_loss", "seg_loss", "accuracy")
    return [
        {"epoch": epoch, "val_auc": 0.9, "train_dice": dice, "val_dice": dice, "learning_rate": 1e-3, "seconds": 1.0}
        | {f"{part}_{column}": 1 / epoch + (part == "val") for column in columns for part in ("train", "val")}
        for epoch in range(1, count + 1)
    ]


def _scores(labels: list[int]) -> Scores:
    count = len(labels)
    nothing = np.full(count, np.nan)
    weights = np.random.default_rng(0).random((count, 3)) + 0.1
    return Scores(
        files=tuple(map(str, range(count))), labels=np.array(labels),
        probabilities=weights / weights.sum(axis=1, keepdims=True), class_names=("a", "b $x$", "c"),
        groups=tuple(map(str, range(count))), sources=(None,) * count, dice=nothing, iou=nothing, split="test",
    )  # fmt: skip


def _pixels_of(path: Path, colour: tuple[int, int, int], tolerance: int = 12) -> int:
    """How many pixels of the picture have this colour."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    return int((np.abs(pixels - colour).max(axis=2) <= tolerance).sum())


@pytest.mark.parametrize("epochs", [1, 12])
def test_training_curves_writes_all_and_each(tmp_path: Path, epochs: int) -> None:
    training_curves(_rows(epochs), tmp_path / "plots")
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {f"{name}.png" for name in CURVES}
    for colour in (BLUE, VERMILION):
        assert _pixels_of(tmp_path / "plots" / "loss.png", colour) > 20
    assert _pixels_of(tmp_path / "plots" / "val_auc.png", BLUE) == 0


def test_training_curves_without_masks_leave_dice_empty(tmp_path: Path) -> None:
    training_curves(_rows(5, dice=math.nan), tmp_path)
    assert _pixels_of(tmp_path / "dice.png", BLUE) == _pixels_of(tmp_path / "dice.png", VERMILION) == 0


def test_a_gap_is_not_bridged(tmp_path: Path) -> None:
    rows = _rows(9)
    training_curves(rows, tmp_path / "whole")
    for row in rows[3:6]:
        row["val_auc"] = math.nan
    training_curves(rows, tmp_path / "gap")
    whole, gap = (_pixels_of(tmp_path / name / "val_auc.png", VERMILION) for name in ("whole", "gap"))
    assert 0 < gap < 0.8 * whole


def test_training_curves_refuse_no_epoch(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least one epoch"):
        training_curves([], tmp_path)


def test_confusion_matrix_is_drawn_with_a_class_without_images(tmp_path: Path) -> None:
    path = tmp_path / "confusion.png"
    confusion_matrix_plot([[5, 1, 0], [0, 0, 0], [2, 0, 9]], ("a", "b_{$", "c"), path, split="test")
    assert _pixels_of(path, (8, 48, 107), 60) > 1000  # the dark end of the colour map


@pytest.mark.parametrize(("matrix", "names"), [([[1, 0], [0, 1]], ("a", "b", "c")), ([[1, 2]], ("a",)), ([], ())])
def test_confusion_matrix_refuses(tmp_path: Path, matrix: list[list[int]], names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="Expected a matrix"):
        confusion_matrix_plot(matrix, names, tmp_path / "confusion.png")


def test_roc_curves_leave_out_an_absent_class(tmp_path: Path) -> None:
    intervals = {"roc_auc/a": Interval(0.5, 0.4, 0.6, 3)}
    roc_curves_plot(_scores([0, 0, 1, 1, 0, -1]), tmp_path / "two.png", intervals)
    roc_curves_plot(_scores([0, 0, 2, 2, 1, -1]), tmp_path / "three.png")
    green = (0, 158, 115)
    assert _pixels_of(tmp_path / "two.png", BLUE) > 100
    assert _pixels_of(tmp_path / "two.png", green) < _pixels_of(tmp_path / "three.png", green) / 2


def test_roc_curves_refuse_unlabelled_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least one labelled"):
        roc_curves_plot(_scores([-1, -1]), tmp_path / "roc.png")


def test_sample_overlays_outline_what_is_known(tmp_path: Path) -> None:
    images = np.full((5, 64, 64), 90, np.uint8)
    masks = np.zeros((5, 64, 64), bool)
    masks[:, 10:50, :20] = True  # reaches the edge
    masks[3] = True
    masks[4] = False
    titles = ["a_$very_long_" * 8 + "\nNormal 0.98"] * 5
    sample_overlays(images, masks, None, titles, tmp_path / "none.png")
    sample_overlays(images, masks, [~masks[0], None, None, None, None], titles, tmp_path / "one.png", split="test")
    sample_overlays(images, masks & False, ~masks, titles, tmp_path / "empty.png")
    assert _pixels_of(tmp_path / "none.png", SKY) == 0
    assert _pixels_of(tmp_path / "none.png", ORANGE) > 500
    assert _pixels_of(tmp_path / "one.png", SKY) > 200
    assert _pixels_of(tmp_path / "empty.png", ORANGE) < 200  # the legend alone


def test_sample_overlays_refuse_other_shapes(tmp_path: Path) -> None:
    images, masks = np.zeros((2, 8, 8), np.uint8), np.zeros((2, 8, 8), bool)
    for arguments in (
        (images, masks[:1], None, ["a", "b"]),
        (images, masks, np.zeros((2, 9, 8), bool), ["a", "b"]),
        (images, masks, None, ["a"]),
        (images[:0], masks[:0], None, []),
    ):
        with pytest.raises(DataError, match="Expected N > 0 images"):
            sample_overlays(*arguments, tmp_path / "overlays.png")  # type: ignore[arg-type]


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="writable folder"):
        training_curves(_rows(1), tmp_path / "file" / "plots")


def test_pyplot_and_torch_stay_out() -> None:
    code = "import sys, hilum.evaluation.evaluate; print({'matplotlib.pyplot', 'torch'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"
