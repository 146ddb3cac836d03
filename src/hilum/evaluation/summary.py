"""A report in a few lines, for a terminal."""

from __future__ import annotations

import math

from hilum.evaluation.report import Estimate, Report
from hilum.metrics.bootstrap import Interval

_OVERALL = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "macro_roc_auc": "macro ROC-AUC",
    "mcc": "MCC",
}
_OVERLAP = {"dice": "Dice", "iou": "IoU", "hd95": "95% Hausdorff, pixels"}


def summary_lines(report: Report) -> list[str]:
    """A report in a few lines, each number with its 95% interval and n; what the data cannot tell comes last."""
    entries = [(words, report.figure(metric)) for metric, words in _OVERALL.items()]
    for name in report.class_names:
        entries += [(f"{name} {metric}", report.figure(metric, name)) for metric in ("recall", "precision")]
    entries += [(words, report.figure(metric)) for metric, words in _OVERLAP.items()]
    shown = [(words, text_of(figure)) for words, figure in entries if figure is not None]
    if report.calibration is not None:
        shown.append(
            ("expected calibration error", text_of(Estimate.model_validate(report.calibration["after"]["ece"])))
        )
    shown += [
        (f"{contrast.positive} against {contrast.negative} within {contrast.source}", text_of(contrast.auc))
        for contrast in report.contrasts
        if contrast.source is not None
    ]
    width = max((len(words) for words, _ in shown), default=0)
    split = report.split
    head = (
        f"{split.name} split: {split.images:,} images in {split.groups:,} groups, {split.labelled:,} labelled, "
        f"{split.with_masks:,} with masks; 95% intervals"
    )
    lines = [head, *(f"  {words:<{width}}  {text}" for words, text in shown)]
    if report.limits:
        lines += ["What these data cannot tell:", *(f"  - {sentence}" for sentence in report.limits)]
    return lines


def text_of(estimate: Estimate) -> str:
    """``0.912 (0.900–0.924), n = 2,777``."""
    value, low, high = (math.nan if bound is None else bound for bound in (estimate.value, estimate.low, estimate.high))
    return str(Interval(value, low, high, estimate.n))
