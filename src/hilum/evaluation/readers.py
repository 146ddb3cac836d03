"""Compare lung masks of a second reader with those of the first and of the network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hilum.backends.base import Backend
from hilum.config import PreprocessSpec
from hilum.data.cache import Cache
from hilum.imaging.preprocess import fit_mask, to_input
from hilum.imaging.read import read_mask, read_radiograph
from hilum.metrics.agreement import BETWEEN, DICE, LABEL
from hilum.metrics.scores import dice_and_iou
from hilum.types import Record

_BATCH = 32


def second_reader_columns(
    records: Sequence[Record], cache: Cache, backend: Backend, spec: PreprocessSpec, mask_threshold: float = 0.5
) -> dict[str, tuple[str, ...]]:
    """Return the columns of hilum.metrics.agreement that the records have, as text; empty where they are unknown.

    The network runs again on the images with a second mask. The Dice of the two readers needs both masks.

    Args:
        records: N records.
        cache: Their N decoded images and masks.
        backend: The inference engine.
        spec: The network's preprocessing.
        mask_threshold: A pixel is lung where its probability is above this.

    Raises:
        ReadError: A mask cannot be read.
    """
    columns: dict[str, tuple[str, ...]] = {}
    if any(record.second_label for record in records):
        columns[LABEL] = tuple(record.second_label or "" for record in records)
    rows = np.array([row for row, record in enumerate(records) if record.second_mask_path is not None], np.int64)
    if not rows.size:
        return columns
    cells: dict[str, list[str]] = {DICE: [""] * len(records), BETWEEN: [""] * len(records)}
    for start in range(0, rows.size, _BATCH):
        own = rows[start : start + _BATCH]
        second = np.stack([_second_mask(records[row], spec) for row in own])
        predicted = backend.run(to_input(cache.images[own], spec)).segmentation[:, 0] > mask_threshold
        _note(cells[DICE], own, predicted, second)
        both = cache.mask_row[own] >= 0
        _note(cells[BETWEEN], own[both], cache.masks[cache.mask_row[own[both]]] > 0, second[both])
    return columns | {name: tuple(texts) for name, texts in cells.items()}


def _second_mask(record: Record, spec: PreprocessSpec) -> NDArray[np.bool_]:
    assert record.second_mask_path is not None
    aspect = read_radiograph(record.image_path).pixel_aspect
    return np.asarray(fit_mask(read_mask(record.second_mask_path), spec, pixel_aspect=aspect) > 0)


def _note(cells: list[str], rows: NDArray[np.int64], one: NDArray[np.bool_], other: NDArray[np.bool_]) -> None:
    """Write the Dice of each pair of masks into its cell, so that it reads back bit for bit."""
    for row, dice in zip(rows.tolist(), dice_and_iou(one, other)[0].tolist(), strict=True):
        cells[row] = repr(dice)
