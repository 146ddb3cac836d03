"""Plots of a run and of an evaluated split, as PNG files.

Only matplotlib's object interface is used (a Figure on an Agg canvas), so that nothing depends on a display or
on global state. Colours are those of Okabe & Ito (2008), distinct with any common colour vision; curves differ
in their dashes too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from hilum.errors import DataError
from hilum.evaluation.intervals import Interval
from hilum.evaluation.metrics import Scores, one_vs_rest_auc
from hilum.storage import atomic_path

DPI = 150
BLUE, VERMILION, ORANGE, SKY, BLACK = "#0072B2", "#D55E00", "#E69F00", "#56B4E9", "#000000"
PALETTE = (BLUE, VERMILION, "#009E73", "#CC79A7", ORANGE, SKY, BLACK)
DASHES = ("-", "--", "-.", ":")
_STYLES = {"training": (BLUE, "--"), "validation": (VERMILION, "-")}
_LONGEST_LINE = 36  # characters of a title that fit over one image

Masks = NDArray[np.bool_] | Sequence[NDArray[np.bool_] | None]


class _Panel(NamedTuple):
    """One plot of the training curves."""

    file: str
    title: str
    ordinate: str
    columns: tuple[tuple[str, str], ...]  # (split, column of metrics_epochwise.csv)


def _pair(column: str) -> tuple[tuple[str, str], ...]:
    return (("training", f"train_{column}"), ("validation", f"val_{column}"))


_PANELS = (
    _Panel("loss.png", "Loss", "weighted sum of losses (no unit)", _pair("loss")),
    _Panel("cls_loss.png", "Classification loss", "cross-entropy (nats)", _pair("cls_loss")),
    _Panel("seg_loss.png", "Segmentation loss", "Dice loss + BCE (no unit)", _pair("seg_loss")),
    _Panel("accuracy.png", "Accuracy", "share of images (0 to 1)", _pair("accuracy")),
    _Panel("dice.png", "Dice of the lung mask", "mean Dice (0 to 1)", _pair("dice")),
    _Panel("val_auc.png", "ROC-AUC", "macro ROC-AUC (0 to 1)", (("validation", "val_auc"),)),
)


def training_curves(rows: Sequence[Mapping[str, float]], folder: Path) -> None:
    """Draw the lines of metrics_epochwise.csv: ``training_curves.png`` with all, and each panel alone.

    Args:
        rows: one mapping per epoch, with the columns of metrics_epochwise.csv; NaN and absent columns are gaps.
        folder: gets training_curves, loss, cls_loss, seg_loss, accuracy, dice and val_auc, each ``.png``.

    Raises:
        DataError: there is no row.
        OutputError: the folder cannot be written.
    """
    if not rows:
        raise DataError("Expected at least one epoch to draw, got none.", cure="Train for an epoch first.")
    epochs = "1 epoch" if len(rows) == 1 else f"{len(rows)} epochs"
    figure = _figure(13.5, 7.5)
    for axes, panel in zip(figure.subplots(2, 3).ravel(), _PANELS, strict=True):
        _draw_panel(axes, panel, rows, panel.title)
    figure.suptitle(f"Training and validation splits, {epochs}")
    _save(figure, folder / "training_curves.png")
    for panel in _PANELS:
        figure = _figure(6.4, 4.4)
        splits = " and ".join(split for split, _ in panel.columns)
        _draw_panel(figure.subplots(), panel, rows, f"{panel.title}, {splits}, {epochs}")
        _save(figure, folder / panel.file)


def confusion_matrix_plot(
    matrix: Sequence[Sequence[int]] | NDArray[np.int64],
    class_names: Sequence[str],
    path: Path,
    *,
    split: str = "",
) -> None:
    """Draw confusion counts, coloured and annotated by their share of the true class.

    Args:
        matrix: (K, K) counts of images, rows the true class, columns the predicted one.
        class_names: K names.
        path: the PNG to write.
        split: named in the title.

    Raises:
        DataError: the matrix is not (K, K).
        OutputError: the file cannot be written.
    """
    counts, classes = np.asarray(matrix), len(class_names)
    if not classes or counts.shape != (classes, classes):
        raise DataError(f"Expected a matrix {(classes, classes)} for {classes} classes, got {counts.shape}.")
    support = counts.sum(axis=1)
    shares = 100 * counts / np.maximum(support, 1)[:, None]
    side = max(5.4, 1.15 * classes + 1.8)
    figure = _figure(side + 1.2, side)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    for (row, column), count in np.ndenumerate(counts):
        share = f"{shares[row, column]:.1f}%" if support[row] else "–"
        colour = "white" if shares[row, column] > 55 else "black"
        axes.text(column, row, f"{count}\n{share}", ha="center", va="center", color=colour, fontsize=10)
    names = [_literal(name) for name in class_names]
    turned: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if classes > 2 else {}
    axes.set_xticks(range(classes), names, **turned)
    axes.set_yticks(range(classes), [f"{name}\nn = {n}" for name, n in zip(names, support, strict=True)])
    axes.set_xlabel("predicted class (images)")
    axes.set_ylabel("true class (images)")
    axes.set_title(_title("Confusion matrix", split, int(support.sum())))
    figure.colorbar(image, ax=axes, label="share of the true class (%)", shrink=0.8)
    _save(figure, path)


def roc_curves_plot(scores: Scores, path: Path, intervals: Mapping[str, Interval] | None = None) -> None:
    """Draw the ROC curve of each class against the rest, with its AUC and number of images in the legend.

    Args:
        scores: the evaluated split; images without a label are left out.
        path: the PNG to write.
        intervals: from ``bootstrap_intervals``; ``roc_auc/NAME`` is shown where it is there.

    Raises:
        DataError: no image has a label.
        OutputError: the file cannot be written.
    """
    known = scores.labelled
    if not known.any():
        raise DataError("Expected at least one labelled image for ROC curves, got none.")
    labels, probabilities = scores.labels[known], scores.probabilities[known]
    areas = one_vs_rest_auc(labels, probabilities)[0]
    figure = _figure(6.6, 6.4)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=(0, (1, 3)), label="chance: AUC 0.500")
    for k, name in enumerate(scores.class_names):
        n = int(np.count_nonzero(labels == k))
        interval = (intervals or {}).get(f"roc_auc/{name}", Interval(float(areas[k]), math.nan, math.nan, n))
        style: dict[str, Any] = {
            "color": PALETTE[k % len(PALETTE)],
            "linestyle": DASHES[k % len(DASHES)],
            "linewidth": 1.8,
        }
        if np.isnan(areas[k]):
            axes.plot([], [], **style, label=f"{_literal(name)}: no AUC, n = {n}")
            continue
        false_rate, true_rate, _ = roc_curve(labels == k, probabilities[:, k])
        bounds = "" if np.isnan(interval.low) else f" ({interval.low:.3f}–{interval.high:.3f})"
        axes.plot(false_rate, true_rate, **style, label=f"{_literal(name)}: AUC {areas[k]:.3f}{bounds}, n = {n}")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set_xlabel("false positive rate (share of the other classes, 0 to 1)")
    axes.set_ylabel("true positive rate (share of the class, 0 to 1)")
    axes.set_title(_title("ROC, each class against the rest", scores.split, labels.size))
    axes.grid(color="0.9")
    axes.legend(loc="lower right", title="AUC (95% interval), images of the class" if intervals else None)
    _save(figure, path)


def sample_overlays(
    images: NDArray[np.uint8],
    predicted: NDArray[np.bool_],
    targets: Masks | None,
    titles: Sequence[str],
    path: Path,
    *,
    split: str = "",
) -> None:
    """Draw a grid of radiographs with the outlines of the predicted and, where known, the reference mask.

    Args:
        images: (N, S, S) uint8, grey, as the network sees them.
        predicted: (N, S, S) bool, lung.
        targets: (N, S, S) bool, or N masks (S, S) of which some are None; None where there is none at all.
        titles: N lines, one over each image.
        path: the PNG to write.
        split: named in the title.

    Raises:
        DataError: there is no image, or the shapes differ.
        OutputError: the file cannot be written.
    """
    count = len(images)
    targets = [None] * count if targets is None else targets
    masks = [*predicted, *(mask for mask in targets if mask is not None)]
    wrong = next((mask.shape for mask in masks if mask.shape != images.shape[1:]), None)
    if not count or images.ndim != 3 or wrong or {len(predicted), len(targets), len(titles)} != {count}:
        raise DataError(
            f"Expected N > 0 images (N, S, S), masks of their shape and N titles, got images {images.shape}, "
            f"{len(predicted)} predicted masks, {len(targets)} references, {len(titles)} titles"
            + (f", a mask {wrong}." if wrong else ".")
        )
    columns = min(count, 4)
    rows = math.ceil(count / columns)
    figure = _figure(max(3.0 * columns, 6.0), 3.2 * rows + 1.0)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, image, mask, target, title in zip(grid, images, predicted, targets, titles, strict=False):
        axes.imshow(image, cmap="gray", vmin=0, vmax=255)
        if target is not None:
            _outline(axes, target, SKY, 2.6)  # wide and below, so that it shows where the two agree
        _outline(axes, mask, ORANGE, 1.3)
        axes.set_title(_literal("\n".join(map(_shorten, title.splitlines()))), fontsize=9)
    handles = [Line2D([], [], color=ORANGE, linewidth=1.3, label="predicted mask")]
    if any(target is not None for target in targets):
        handles.append(Line2D([], [], color=SKY, linewidth=2.6, label="reference mask"))
    figure.legend(handles=handles, loc="outside lower center", ncols=2, facecolor="0.25", labelcolor="white")
    figure.suptitle(_title("Lung masks", split, count))
    _save(figure, path)


def _draw_panel(axes: Axes, panel: _Panel, rows: Sequence[Mapping[str, float]], title: str) -> None:
    epochs = [row["epoch"] for row in rows]
    drawn = False
    for split, column in panel.columns:
        values = np.array([row.get(column, math.nan) for row in rows], dtype=np.float64)
        if np.isfinite(values).any():
            drawn = True
            colour, dashes = _STYLES[split]
            # the marker shows an epoch between two gaps
            axes.plot(epochs, values, dashes, color=colour, marker="o", markersize=3, linewidth=1.5, label=split)
    axes.set(title=title, xlabel="epoch (number)", ylabel=panel.ordinate)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(color="0.9")
    axes.ticklabel_format(axis="y", useOffset=False)
    if drawn:
        axes.legend()
    else:
        axes.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axes.transAxes, color="0.4")


def _outline(axes: Axes, mask: NDArray[np.bool_], colour: str, width: float) -> None:
    """Trace a mask; a border of background closes the outlines that leave the image."""
    if not mask.any():
        return
    framed = np.pad(mask, 1).astype(np.float32)
    across, down = np.arange(-1, mask.shape[1] + 1), np.arange(-1, mask.shape[0] + 1)
    axes.contour(across, down, framed, levels=[0.5], colors=colour, linewidths=width)


def _figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DPI, format="png")


def _title(subject: str, split: str, n: int) -> str:
    return f"{subject}, {_literal(split)} split, n = {n}" if split else f"{subject}, n = {n}"


def _literal(text: str) -> str:
    """Text as it stands: a dollar sign would otherwise begin a formula."""
    return text.replace("$", r"\$")


def _shorten(line: str) -> str:
    """A line that fits over one image: the middle of a long file name says least."""
    half = _LONGEST_LINE // 2
    return line if len(line) <= _LONGEST_LINE else f"{line[: half - 1]}…{line[-half:]}"
