"""Plot the classes: confusion matrix, ROC and precision-recall curves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from hilum.errors import DataError
from hilum.evaluation.plots.canvas import SIDE, label_axes, line_style, literal, new_figure, title_of
from hilum.evaluation.report import Report
from hilum.format import format_interval, metric_title
from hilum.metrics.scores import Scores


def confusion_matrix(matrix: Sequence[Sequence[int]], class_names: Sequence[str], *, subset: str = "") -> Figure:
    """Plot confusion counts, colored and annotated by their share of the true class.

    Args:
        matrix: (K, K) counts of images, rows the true class, columns the predicted one.
        class_names: K names.
        subset: The images in words, such as ``test split`` (Report.title), for the title.

    Raises:
        DataError: The matrix is not (K, K).
    """
    counts, classes = np.asarray(matrix), len(class_names)
    if not classes or counts.shape != (classes, classes):
        raise DataError(f"The matrix must be {(classes, classes)} for {classes} classes, got {counts.shape}.")
    support = counts.sum(axis=1)
    shares = 100 * counts / np.maximum(support, 1)[:, None]
    figure = new_figure(max(SIDE, 0.85 * classes + 1.6), max(SIDE, 0.85 * classes + 1.4))
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    for (row, column), count in np.ndenumerate(counts):
        share = f"{shares[row, column]:.1f}%" if support[row] else "–"
        color = "white" if shares[row, column] > 55 else "black"
        axes.text(column, row, f"{count:,}\n{share}", ha="center", va="center", color=color, fontsize=9)
    names = [literal(name) for name in class_names]
    turned: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if classes > 2 else {}
    label_axes(
        axes,
        title_of("Confusion matrix", subset, int(support.sum())) + "\nshares are of the true class",
        "predicted class (images)",
        "true class (images)",
    )
    axes.grid(visible=False)
    axes.set_xticks(range(classes), names, **turned)
    axes.set_yticks(range(classes), [f"{name}\nn = {n:,}" for name, n in zip(names, support, strict=True)])
    return figure


def roc_curves(scores: Scores, report: Report) -> Figure:
    """Plot the one-vs-rest ROC curve of each class, with its AUROC, interval and number of images in the legend.

    Args:
        scores: The evaluated split; images without a label are left out.
        report: The report on the same split.

    Raises:
        DataError: No image has a label.
    """
    figure = new_figure(SIDE, SIDE + 0.6)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=(0, (1, 3)), label="chance: 0.500")
    for k, name, own, ranking in _one_against_rest(scores):
        label = f"{literal(name)}: {_area(report, 'roc_auc', name)}, n = {int(own.sum()):,}"
        rates = roc_curve(own, ranking)[:2] if 0 < own.sum() < own.size else ([], [])
        axes.plot(*rates, **line_style(k), label=label)
    label_axes(
        axes,
        title_of("ROC, one-vs-rest", report.title, int(scores.labeled.sum())),
        "false positive rate (share of the other classes)",
        "true positive rate (share of the class)",
    )
    _square(figure, axes, f"{metric_title('roc_auc')} (95% CI), images of the class")
    return figure


def precision_recall_curves(scores: Scores, report: Report) -> Figure:
    """Plot precision against recall of each class, with its AUPRC; a dot marks the class's share (chance).

    Args:
        scores: The evaluated split; images without a label are left out.
        report: The report on the same split.

    Raises:
        DataError: No image has a label.
    """
    figure = new_figure(SIDE, SIDE + 0.6)
    axes = figure.subplots()
    for k, name, own, ranking in _one_against_rest(scores):
        label = f"{literal(name)}: {_area(report, 'pr_auc', name)}, chance {own.mean():.3f}"
        style = line_style(k)
        if not own.any():
            axes.plot([], [], **style, label=label)
            continue
        precision, recall, _ = precision_recall_curve(own, ranking)
        axes.plot(recall, precision, **style, drawstyle="steps-post", label=label)
        axes.plot([1], [own.mean()], marker="o", markersize=4, color=style["color"], clip_on=False)
    label_axes(
        axes,
        title_of("Precision and recall", report.title, int(scores.labeled.sum())),
        "recall (share of the class that is found)",
        "precision (share of correct predictions of the class)",
    )
    _square(figure, axes, f"{metric_title('pr_auc')} (95% CI), share of the class")
    return figure


def _one_against_rest(scores: Scores) -> Iterator[tuple[int, str, NDArray[np.bool_], NDArray[np.float64]]]:
    known = scores.labeled
    if not known.any():
        raise DataError("No image has a label, so there is no curve to plot.")
    for k, name in enumerate(scores.class_names):
        yield k, name, scores.labels[known] == k, scores.probabilities[known, k]


def _area(report: Report, metric: str, class_name: str) -> str:
    figure = report.figure(metric, class_name)
    return "undefined" if figure is None else format_interval(figure)


def _square(figure: Figure, axes: Axes, legend: str) -> None:
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    figure.legend(loc="outside lower center", title=legend, fontsize=8, title_fontsize=8)
