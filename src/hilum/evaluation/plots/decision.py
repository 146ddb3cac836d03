"""Plot decision curves: net benefit against the threshold probability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hilum.errors import DataError
from hilum.evaluation.plots.canvas import BLACK, BLUE, SIDE, VERMILION, label_axes, literal, new_figure, title_of


def decision_curves(curves: Sequence[Mapping[str, Any]], *, subset: str = "") -> Figure:
    """Plot the net benefit of the model with its 95% CI, and of acting on every image and on none, per class.

    Args:
        curves: hilum.metrics.net_benefit.DecisionCurve as JSON, one per class.
        subset: The images in words, such as ``test split`` (Report.title), for the title.

    Raises:
        DataError: There is no curve.
    """
    if not curves:
        raise DataError("There is no decision curve to plot.")
    columns = min(2, len(curves))
    lines = -(-len(curves) // columns)
    figure = new_figure(SIDE * (1 + 0.3 * (columns - 1)), 2.3 * lines + 1.0)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, curve in zip(panels, curves, strict=False):
        thresholds, share = curve["thresholds"], curve["prevalence"]
        values, low, high = (
            np.array([np.nan if e[part] is None else e[part] for e in curve["model"]])
            for part in ("value", "low", "high")
        )
        axes.fill_between(thresholds, low, high, color=BLUE, alpha=0.2, linewidth=0)
        axes.plot(thresholds, values, color=BLUE, linewidth=1.6, label="model (95% CI)")
        axes.plot(thresholds, curve["act_on_all"], "--", color=VERMILION, linewidth=1.2, label="act on every image")
        axes.axhline(0, color=BLACK, linewidth=1, linestyle=":", label="act on none")
        label_axes(axes, f"{literal(curve['class_name'])}, prevalence {share:.3f}", "threshold probability", "")
        axes.set(xlim=(0, 1), ylim=(-0.25 * share, 1.08 * share))
    for axes in panels[len(curves) :]:
        axes.set_visible(False)
    figure.supylabel("net benefit", fontsize=9)
    figure.suptitle(title_of("Decision curves", subset, curves[0]["model"][0]["n"]), fontsize=10)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return figure
