"""Plot radiographs with the outlines of their lung masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from hilum.errors import DataError
from hilum.evaluation.plots.canvas import ORANGE, SKY, literal, new_figure, save_png, shorten, title_of

_LONGEST_LINE = 36  # characters of a title that fit over one image

Masks = NDArray[np.bool_] | Sequence[NDArray[np.bool_] | None]


def sample_overlays(
    images: NDArray[np.uint8],
    predicted: NDArray[np.bool_],
    targets: Masks | None,
    titles: Sequence[str],
    path: Path,
    *,
    subset: str = "",
) -> None:
    """Plot a grid of radiographs with the outlines of the predicted and, where known, the reference mask.

    Args:
        images: (N, S, S) uint8, gray, as the network sees them.
        predicted: (N, S, S) bool, lung.
        targets: (N, S, S) bool, or N masks (S, S) of which some are None; None where there is none at all.
        titles: N titles, one over each image.
        path: The PNG to write.
        subset: The images in words, such as ``test split`` (Report.title), for the title.

    Raises:
        DataError: There is no image, or the shapes differ.
        OutputError: The file cannot be written.
    """
    count = len(images)
    targets = [None] * count if targets is None else targets
    masks = [*predicted, *(mask for mask in targets if mask is not None)]
    wrong = next((mask.shape for mask in masks if mask.shape != images.shape[1:]), None)
    if not count or images.ndim != 3 or wrong or {len(predicted), len(targets), len(titles)} != {count}:
        raise DataError(
            f"Images, masks and titles do not match: images {images.shape}, "
            f"{len(predicted)} predicted masks, {len(targets)} references, {len(titles)} titles"
            + (f", a mask {wrong}." if wrong else ".")
        )
    columns = min(count, 4)
    rows = math.ceil(count / columns)
    figure = new_figure(max(3.0 * columns, 6.0), 3.2 * rows + 1.0)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, image, mask, target, title in zip(grid, images, predicted, targets, titles, strict=False):
        axes.imshow(image, cmap="gray", vmin=0, vmax=255)
        if target is not None:
            _outline(axes, target, SKY, 2.6)  # wide and below, so that it shows where the two agree
        _outline(axes, mask, ORANGE, 1.3)
        axes.set_title(literal("\n".join(shorten(line, _LONGEST_LINE) for line in title.splitlines())), fontsize=9)
    handles = [Line2D([], [], color=ORANGE, linewidth=1.3, label="predicted mask")]
    if any(target is not None for target in targets):
        handles.append(Line2D([], [], color=SKY, linewidth=2.6, label="reference mask"))
    figure.legend(handles=handles, loc="outside lower center", ncols=2, facecolor="0.25", labelcolor="white")
    figure.suptitle(title_of("Lung masks", subset, count))
    save_png(figure, path)


def _outline(axes: Axes, mask: NDArray[np.bool_], color: str, width: float) -> None:
    """Trace a mask; a border of background closes the outlines that leave the image."""
    if not mask.any():
        return
    framed = np.pad(mask, 1).astype(np.float32)
    across, down = np.arange(-1, mask.shape[1] + 1), np.arange(-1, mask.shape[0] + 1)
    axes.contour(across, down, framed, levels=[0.5], colors=color, linewidths=width)
