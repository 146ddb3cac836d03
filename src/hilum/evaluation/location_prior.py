"""A map of where findings usually lie in the lungs, made without the image: a baseline of the pointing game.

Evidence that only marks where opacities are frequent scores as well as this map. Benchmarks of saliency models have a
prior of the center for the same reason (Bylinskii et al. 2019, IEEE Trans. Pattern Anal. Mach. Intell. 41:740).
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.metrics.scores import clusters_of

GRID = 32
"""Cells in each direction of the bounding box of a lung, in which targets are averaged."""


def location_priors(
    targets: NDArray[np.bool_], lungs: NDArray[np.bool_], groups: Sequence[str]
) -> list[NDArray[np.float32] | None]:
    """Return for each image the mean of the targets of all images of other groups, placed in its lungs.

    The lung mask is divided at the middle of its bounding box. In each half the targets are stretched to GRID x GRID
    cells over the bounding box of the lung there, averaged, stretched back to the image's own box, and set to 0 outside
    its lung. An image never takes part in its own map, nor does another image of its group.

    Args:
        targets: (M, S, S) bool.
        lungs: (M, S, S) bool.
        groups: M group names; an empty name is a group of its own.

    Returns:
        M maps (S, S) float32 in [0, 1]; None where the image has no lung, or no image of another group has one.
    """
    boxes = [_boxes(lung) for lung in lungs]
    cells = np.zeros((len(targets), 2, GRID, GRID))
    seen = np.zeros((len(targets), 2))
    for row, own in enumerate(boxes):
        for side, box in enumerate(own):
            if box is not None:
                cells[row, side] = _stretched(targets[row][box].astype(np.float32), (GRID, GRID))
                seen[row, side] = 1
    clusters = clusters_of(groups)
    maps: list[NDArray[np.float32] | None] = []
    for row, lung in enumerate(lungs):
        others = clusters != clusters[row]
        counts = seen[others].sum(axis=0)
        placed = np.zeros(lung.shape, np.float32)
        known = [side for side, box in enumerate(boxes[row]) if box is not None and counts[side]]
        for side in known:
            box = boxes[row][side]
            mean = cells[others, side].sum(axis=0) / counts[side]
            placed[box] = _stretched(mean.astype(np.float32), placed[box].shape)
        maps.append(placed * lung if known else None)
    return maps


_Box = tuple[slice, slice]


def _boxes(lung: NDArray[np.bool_]) -> tuple[_Box | None, _Box | None]:
    """The bounding boxes of the lung left and right of the middle of its own bounding box."""
    columns = np.flatnonzero(lung.any(axis=0))
    if not columns.size:
        return None, None
    middle = (int(columns[0]) + int(columns[-1]) + 1) // 2
    return _box(lung[:, :middle], 0), _box(lung[:, middle:], middle)


def _box(part: NDArray[np.bool_], offset: int) -> _Box | None:
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    if not rows.size:
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(offset + int(columns[0]), offset + int(columns[-1]) + 1)


def _stretched(values: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The values (h, w) resized linearly to ``shape``, by areas where it is smaller."""
    smaller = shape[0] <= values.shape[0] and shape[1] <= values.shape[1]
    way = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(values, (shape[1], shape[0]), interpolation=way), np.float32)
