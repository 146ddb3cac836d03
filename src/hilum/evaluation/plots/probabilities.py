"""Plot calibration: reliability diagram, calibration curves, risk and coverage, coverage of the prediction sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

from matplotlib.figure import Figure

from hilum.errors import DataError
from hilum.evaluation.plots.canvas import (
    BLUE,
    PALETTE,
    SIDE,
    VERMILION,
    label_axes,
    literal,
    new_figure,
    title_of,
)
from hilum.format import number

_MARKERS = "osD^vPX*"


def reliability(calibration: Mapping[str, Any], *, subset: str = "") -> Figure:
    """Plot the reliability diagram (Murphy & Winkler 1977) before and after temperature scaling.

    Its bins are those of ``diagram_bins``. The ECE in the legend is that of the report, over its own 15 bins.

    Args:
        calibration: A hilum.metrics.calibration.CalibrationResult as JSON.
        subset: The images in words, such as ``test split`` (Report.title), for the title.

    Raises:
        DataError: There is no bin.
    """
    states = [("before", calibration["before"], VERMILION), ("after", calibration["after"], BLUE)]
    if calibration["temperature"] == 1:
        states = [("not calibrated", calibration["before"], BLUE)]
    if not all(diagram_bins(state) for _, state, _ in states):
        raise DataError("There is no bin to plot.")
    figure = new_figure()
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=(0, (1, 3)), label="perfect")
    for (name, state, color), marker in zip(states, "so", strict=False):
        bins = diagram_bins(state)
        accuracies = [(b["confidence"], b["accuracy"]) for b in bins if b["accuracy"]["value"] is not None]
        label = f"{name}: ECE {_decimals(state['ece']['value'])}"
        axes.plot(
            [confidence for confidence, _ in accuracies],
            [accuracy["value"] for _, accuracy in accuracies],
            color=color,
            marker=marker,
            markersize=4,
            linewidth=1.2,
            linestyle="--" if name == "before" else "-",
            label=label,
        )
        for confidence, accuracy in accuracies:
            if accuracy["low"] is not None:
                axes.plot([confidence] * 2, [accuracy["low"], accuracy["high"]], color=color, linewidth=0.8)
    counts = [b["accuracy"]["n"] for b in diagram_bins(calibration["after"])]
    spread = f"{min(counts):,}" if min(counts) == max(counts) else f"{min(counts):,} to {max(counts):,}"
    title = title_of("Reliability", subset, sum(counts)) + f"\n{spread} images per dot, with 95% CI"
    label_axes(axes, title, "confidence (highest probability)", "accuracy (share of correct predictions)")
    axes.set(xlim=(0, 1.01), ylim=(-0.01, 1.01))
    axes.legend(fontsize=8, loc="upper left")
    return figure


def calibration_curves(curves: Sequence[Mapping[str, Any]], *, subset: str = "") -> Figure:
    """Plot the calibration curve of each class against all others, one panel per class.

    Args:
        curves: hilum.metrics.calibration_within.ClassCurve as JSON, one per class.
        subset: The images in words, such as ``test split`` (Report.title), for the title.

    Raises:
        DataError: There is no curve.
    """
    if not curves:
        raise DataError("There is no calibration curve to plot.")
    rows = -(-len(curves) // 2)
    figure = new_figure(SIDE, 0.55 * SIDE * rows + 0.3)
    panels = figure.subplots(rows, 2, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, curve, color in zip(panels, curves, cycle(PALETTE), strict=False):
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=(0, (1, 3)))
        bins = curve["bins"]
        axes.plot([b["probability"] for b in bins], [b["share"]["value"] for b in bins], color=color, linewidth=1.2)
        for b in bins:
            axes.plot([b["probability"]], [b["share"]["value"]], "o", color=color, markersize=3.5)
            if b["share"]["low"] is not None:
                axes.plot([b["probability"]] * 2, [b["share"]["low"], b["share"]["high"]], color=color, linewidth=0.8)
        slope, intercept = (number(curve[name]["value"], 2) for name in ("slope", "intercept"))
        label_axes(axes, f"{literal(curve['class_name'])}\nslope {slope}, intercept {intercept}", "", "")
        axes.title.set_fontsize(8)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    for axes in panels[len(curves) :]:
        axes.set_axis_off()
    figure.suptitle(title_of("Calibration of each class", subset, curves[0]["slope"]["n"]), fontsize=10)
    figure.supxlabel("probability of the class", fontsize=9)
    figure.supylabel("share of images of the class (95% CI)", fontsize=9)
    return figure


def diagram_bins(figures: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the bins of the reliability diagram, of at least 25 images; a report of earlier versions has the ECE's.

    Args:
        figures: A hilum.metrics.calibration.CalibrationFigures as JSON.
    """
    bins: Sequence[Mapping[str, Any]] = figures.get("diagram", figures["bins"])
    return bins


def risk_coverage(selective: Mapping[str, Any], *, subset: str = "") -> Figure:
    """Plot the share of errors against the share of images that the model answers; the threshold is marked.

    Args:
        selective: A hilum.metrics.selective.SelectiveResult as JSON.
        subset: The images in words, such as ``test split`` (Report.title), for the title.

    Raises:
        DataError: The curve has no point.
    """
    coverage, risk, area = selective["coverage"], selective["risk"], selective["aurc"]
    if not coverage:
        raise DataError("The risk-coverage curve has no point.")
    figure = new_figure(SIDE, 0.8 * SIDE)
    axes = figure.subplots()
    axes.plot(coverage, risk, color=BLUE, linewidth=1.6, label=f"area {_decimals(area['value'])}")
    answered, accuracy = selective["answered"]["value"], selective["accuracy"]["value"]
    threshold, by_class = selective["threshold"], selective.get("class_thresholds")
    if (threshold is not None or by_class) and answered is not None and accuracy is not None:
        rule = "threshold by class" if by_class else f"confidence ≥ {threshold:.2f}"
        label = f"{rule}:\n{answered:.0%} answered, {1 - accuracy:.1%} wrong"
        axes.plot([answered], [1 - accuracy], "D", color=VERMILION, markersize=6, clip_on=False, label=label)
    label_axes(
        axes,
        title_of("Risk and coverage", subset, area["n"]),
        "coverage (share of images answered)",
        "risk (share of errors among them)",
    )
    axes.set(xlim=(0, 1.01), ylim=(0, None))
    axes.set_ylim(top=max(0.02, 1.08 * axes.get_ylim()[1]))
    axes.legend(fontsize=8, loc="upper left")
    return figure


def conformal_coverage(conformal: Sequence[Mapping[str, Any]], *, subset: str = "") -> Figure:
    """Plot measured against requested coverage of the prediction sets, over all images and per class.

    Args:
        conformal: hilum.metrics.conformal.ConformalResult as JSON, one per level.
        subset: The images in words, such as ``test split`` (Report.title), for the title.

    Raises:
        DataError: There is no level.
    """
    if not conformal:
        raise DataError("There is no level of prediction sets to plot.")
    figure = new_figure(SIDE, SIDE)
    axes = figure.subplots()
    names = ["all classes", *conformal[0]["coverage_by_class"]]
    spread = 0.7 / len(names)
    least = 1.0
    for place, result in enumerate(conformal):
        axes.plot([place - 0.42, place + 0.42], [float(result["level"])] * 2, color="0.35", linestyle=(0, (4, 2)))
        for k, name in enumerate(names):
            estimate = result["coverage"] if k == 0 else result["coverage_by_class"][name]
            if estimate["value"] is None:
                continue
            x = place + (k - (len(names) - 1) / 2) * spread
            color = "black" if k == 0 else PALETTE[(k - 1) % len(PALETTE)]
            label = None if place else f"{literal(name)}, n = {estimate['n']:,}"
            axes.plot([x], [estimate["value"]], _MARKERS[k % len(_MARKERS)], color=color, markersize=5, label=label)
            if estimate["low"] is not None:
                axes.plot([x] * 2, [estimate["low"], estimate["high"]], color=color, linewidth=1)
            least = min(least, estimate["value"] if estimate["low"] is None else estimate["low"])
    label_axes(
        axes,
        title_of("Coverage of the prediction sets", subset, conformal[0]["coverage"]["n"]),
        "requested coverage (dashed line)",
        "measured coverage (95% CI)",
    )
    axes.set_xticks(range(len(conformal)), [f"{float(result['level']):.0%}" for result in conformal])
    axes.set_ylim(max(-0.01, least - 0.03), 1.005)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    return figure


def _decimals(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
