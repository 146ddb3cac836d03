"""Masks of a second reader: the Dice with the network's and with the first reader's."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from hilum.backends.base import BackendOutput
from hilum.config import PreprocessSpec
from hilum.data.cache import open_cache
from hilum.evaluation.readers import second_reader_columns
from hilum.metrics.agreement import BETWEEN, DICE, LABEL
from hilum.types import Record

SPEC = PreprocessSpec(size=64, channels=1)


class LeftHalf:
    """An engine whose lung mask is the left half of every image."""

    def run(self, images: NDArray[np.float32]) -> BackendOutput:
        masks = np.zeros((len(images), 1, 64, 64), np.float32)
        masks[..., :32] = 1
        return BackendOutput(masks, np.zeros((len(images), 2), np.float32), None)


def image(path: Path, until: int | None = None) -> Path:
    """A gray ramp of 64 pixels, or a mask of its columns below ``until``."""
    pixels = np.tile(np.arange(64, dtype=np.uint8), (64, 1))
    cv2.imwrite(str(path), pixels if until is None else 255 * (pixels < until).astype(np.uint8))
    return path


def test_dice_is_that_of_the_masks(tmp_path: Path) -> None:
    mask = {n: image(tmp_path / f"mask{n}.png", n) for n in (32, 48, 64)}
    records = [
        Record(image(tmp_path / "a.png"), mask[32], second_mask_path=mask[48], second_label="x"),
        Record(image(tmp_path / "b.png"), None, second_mask_path=mask[64]),
        Record(image(tmp_path / "c.png"), mask[64]),
    ]
    cache = open_cache(records, SPEC, tmp_path / "cache")
    columns = second_reader_columns(records, cache, LeftHalf(), SPEC)
    assert columns[LABEL] == ("x", "", "")
    assert [float(cell) if cell else None for cell in columns[DICE]] == [pytest.approx(0.8), pytest.approx(2 / 3), None]
    assert [float(cell) if cell else None for cell in columns[BETWEEN]] == [pytest.approx(0.8), None, None]
    assert second_reader_columns(records[2:], cache, LeftHalf(), SPEC) == {}
