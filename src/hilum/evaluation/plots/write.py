"""Write all plots of an evaluated split."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from hilum.evaluation.plots.canvas import save_both
from hilum.evaluation.plots.classes import confusion_matrix, precision_recall_curves, roc_curves
from hilum.evaluation.plots.decision import decision_curves
from hilum.evaluation.plots.forest import contrast_lines, forest, source_lines
from hilum.evaluation.plots.probabilities import calibration_curves, conformal_coverage, reliability, risk_coverage
from hilum.evaluation.report import Report
from hilum.format import metric_title
from hilum.metrics.scores import Scores

PLOTS = (
    "confusion_matrix",
    "roc_curves",
    "precision_recall_curves",
    "contrasts",
    "sources",
    "reliability",
    "calibration_curves",
    "conformal_coverage",
    "risk_coverage",
    "decision_curves",
)
"""Names of the files, without suffix."""


def write_plots(scores: Scores, report: Report, folder: Path) -> dict[str, str]:
    """Write the plots that the report has data for, as PNG and SVG, and remove others of an earlier evaluation.

    Args:
        scores: The evaluated split.
        report: The report on the same split.
        folder: Folder for the files, created if absent.

    Returns:
        Name of PLOTS to its SVG, in the order of PLOTS.

    Raises:
        OutputError: The folder cannot be written.
    """
    drawing = _drawings(scores, report)
    drawn: dict[str, str] = {}
    for name in PLOTS:
        if name in drawing:
            drawn[name] = save_both(drawing[name](), folder / name)
        else:
            for suffix in (".png", ".svg"):
                (folder / f"{name}{suffix}").unlink(missing_ok=True)
    return drawn


def _drawings(scores: Scores, report: Report) -> dict[str, Callable[[], Figure]]:
    """The functions that draw what the report has, by name of PLOTS."""
    subset = report.title
    found: dict[str, Callable[[], Figure]] = {}
    if (matrix := report.confusion_matrix) is not None:
        found["confusion_matrix"] = lambda: confusion_matrix(matrix, report.class_names, subset=subset)
        found["roc_curves"] = lambda: roc_curves(scores, report)
        found["precision_recall_curves"] = lambda: precision_recall_curves(scores, report)
    if contrasts := contrast_lines(report):
        pairs = f"One class against another, {subset}; dashed: chance"
        found["contrasts"] = lambda: forest(
            contrasts, title=pairs, abscissa=f"{metric_title('roc_auc')} (95% CI)", reference=0.5
        )
    if sources := source_lines(report):
        by_source = f"Balanced accuracy by source, {subset}"
        found["sources"] = lambda: forest(sources, title=by_source, abscissa="mean recall (95% CI)")
    if (calibration := report.calibration) is not None:
        found["reliability"] = lambda: reliability(calibration, subset=subset)
    if report.calibration_within is not None and (curves := report.calibration_within["curves"]):
        found["calibration_curves"] = lambda: calibration_curves(curves, subset=subset)
    if report.conformal:
        found["conformal_coverage"] = lambda: conformal_coverage(report.conformal, subset=subset)
    if (selective := report.selective) is not None:
        found["risk_coverage"] = lambda: risk_coverage(selective, subset=subset)
    if report.decision_curves:
        found["decision_curves"] = lambda: decision_curves(report.decision_curves, subset=subset)
    return found
