"""Forest plots: one row per metric, its value a dot, its 95% interval a bar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from hilum.errors import DataError
from hilum.evaluation.plots.canvas import BLUE, SIDE, label_axes, literal, new_figure, shorten
from hilum.evaluation.report import Estimate, Report

_LONGEST_NAME = 44  # characters beside the axis


class Line(NamedTuple):
    """One row of a forest plot."""

    name: str
    estimate: Estimate


def forest(
    lines: Sequence[Line], *, title: str, abscissa: str, reference: float | None = None, floor: float = 0.0
) -> Figure:
    """Plot the rows from top to bottom.

    Args:
        lines: The rows; an undefined estimate has its name and no dot.
        title: Title of the plot.
        abscissa: The quantity and its unit.
        reference: Position of a dashed vertical line, such as chance.
        floor: Start of the axis, which ends at 1.

    Raises:
        DataError: There is no row.
    """
    if not lines:
        raise DataError("There is no row to plot.")
    figure = new_figure(SIDE + 1.2, 0.27 * len(lines) + 1.1)
    axes = figure.subplots()
    if reference is not None:
        axes.axvline(reference, color="0.5", linewidth=1, linestyle=(0, (4, 2)))
    for row, (_, estimate) in enumerate(lines):
        if estimate.value is None:
            continue
        if estimate.low is not None and estimate.high is not None:
            axes.plot([estimate.low, estimate.high], [row, row], color=BLUE, linewidth=1.4, solid_capstyle="butt")
        axes.plot([estimate.value], [row], "o", color=BLUE, markersize=4.5, clip_on=False)
    label_axes(axes, "", abscissa, "")
    figure.suptitle(literal(title), fontsize=10)
    axes.grid(visible=False, axis="y")
    axes.set(xlim=(floor, 1.0), ylim=(len(lines) - 0.5, -0.5))
    axes.set_yticks(range(len(lines)), [_label(line) for line in lines])
    axes.tick_params(axis="y", length=0)
    for spine in ("left", "right", "top"):
        axes.spines[spine].set_visible(False)
    return figure


def contrast_lines(report: Report) -> list[Line]:
    """Return the AUROC of every pair of classes, over all sources and then within each."""
    lines: list[Line] = []
    for contrast in sorted(report.contrasts, key=lambda c: (c.positive, c.negative, c.source is not None)):
        place = "all sources" if contrast.source is None else f"within {contrast.source}"
        lines.append(Line(f"{contrast.positive} / {contrast.negative}, {place}", contrast.auc))
    return lines


def source_lines(report: Report) -> list[Line]:
    """Return balanced accuracy over all images and within each source; empty where all come from one source."""
    own = [f for f in report.figures if f.metric == "balanced_accuracy" and f.class_name is None]
    within = [Line(f"within {f.source}", f) for f in own if f.source is not None]
    return [Line("all sources", f) for f in own if f.source is None] + within if within else []


def _label(line: Line) -> str:
    return f"{literal(shorten(line.name, _LONGEST_NAME))}  (n = {line.estimate.n:,})"
