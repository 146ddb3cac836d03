"""Plot the training curves of a run: as PNG files of the run, and as SVG for its report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from hilum.errors import DataError
from hilum.evaluation.plots.canvas import BLUE, SIDE, VERMILION, new_figure, save_png, svg_of
from hilum.format import metric_title

_STYLES = {"training": (BLUE, "--"), "validation": (VERMILION, "-")}


class _Panel(NamedTuple):
    """One plot of the training curves.

    Attributes:
        file: Name of the PNG.
        title: Title of the plot.
        ordinate: Label of the y axis.
        columns: Pairs of a split and its column in metrics_epochwise.csv.
    """

    file: str
    title: str
    ordinate: str
    columns: tuple[tuple[str, str], ...]


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
    """Plot metrics_epochwise.csv: ``training_curves.png`` with all panels, and each panel in a file of its own.

    Args:
        rows: One mapping per epoch, with the columns of metrics_epochwise.csv; NaN and absent columns are gaps.
        folder: Folder for training_curves, loss, cls_loss, seg_loss, accuracy, dice and val_auc, each ``.png``.

    Raises:
        DataError: There is no row.
        OutputError: the folder cannot be written.
    """
    if not rows:
        raise DataError("There is no epoch to plot.", hint="Train for an epoch first.")
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


def training_plots(rows: Sequence[Mapping[str, float | None]], best: int | None = None) -> dict[str, str]:
    """Plot the training curves for a report.

    Args:
        rows: As for training_curves; None is a gap, too.
        best: The epoch whose weights were kept; a vertical line marks it.

    Returns:
        ``training_loss`` and so on to SVG; a panel without a value is left out.
    """
    plain = [{name: math.nan if value is None else value for name, value in row.items()} for row in rows]
    found = {}
    for panel in _PANELS:
        if not any(math.isfinite(row.get(column, math.nan)) for row in plain for _, column in panel.columns):
            continue
        figure = new_figure(SIDE, 0.7 * SIDE)
        axes = figure.subplots()
        if best is not None:
            axes.axvline(best, color="0.55", linewidth=1, linestyle=(0, (1, 2)), label="weights kept")
        _draw_panel(axes, panel, plain, panel.title)
        found[f"training_{Path(panel.file).stem}"] = svg_of(figure)
    return found


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
