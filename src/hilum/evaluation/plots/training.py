"""The training curves of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from hilum.errors import DataError
from hilum.evaluation.plots.canvas import BLUE, VERMILION, new_figure, save_png
from hilum.format import metric_title

_STYLES = {"training": (BLUE, "--"), "validation": (VERMILION, "-")}


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
    _Panel(
        "val_auc.png",
        metric_title("roc_auc"),
        f"{metric_title('macro_roc_auc')} (0 to 1)",
        (("validation", "val_auc"),),
    ),
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
        raise DataError("Expected at least one epoch to draw, got none.", hint="Train for an epoch first.")
    epochs = "1 epoch" if len(rows) == 1 else f"{len(rows)} epochs"
    figure = new_figure(13.5, 7.5)
    for axes, panel in zip(figure.subplots(2, 3).ravel(), _PANELS, strict=True):
        _draw_panel(axes, panel, rows, panel.title)
    figure.suptitle(f"Training and validation splits, {epochs}")
    save_png(figure, folder / "training_curves.png")
    for panel in _PANELS:
        figure = new_figure(6.4, 4.4)
        splits = " and ".join(split for split, _ in panel.columns)
        _draw_panel(figure.subplots(), panel, rows, f"{panel.title}, {splits}, {epochs}")
        save_png(figure, folder / panel.file)


def _draw_panel(axes: Axes, panel: _Panel, rows: Sequence[Mapping[str, float]], title: str) -> None:
    epochs = [row["epoch"] for row in rows]
    drawn = False
    for split, column in panel.columns:
        values = np.array([row.get(column, math.nan) for row in rows], dtype=np.float64)
        if np.isfinite(values).any():
            drawn = True
            color, dashes = _STYLES[split]
            # the marker shows an epoch between two gaps
            axes.plot(epochs, values, dashes, color=color, marker="o", markersize=3, linewidth=1.5, label=split)
    axes.set(title=title, xlabel="epoch (number)", ylabel=panel.ordinate)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(color="0.9")
    axes.ticklabel_format(axis="y", useOffset=False)
    if drawn:
        axes.legend()
    else:
        axes.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axes.transAxes, color="0.4")
