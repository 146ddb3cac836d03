"""Lines of the summary of a report that the user asked for: subgroups, predictive values, readers."""

from __future__ import annotations

from collections.abc import Iterator

from hilum.evaluation.report import Report
from hilum.format import format_interval, metric_title, words


def requested_lines(report: Report) -> Iterator[tuple[str, str]]:
    """Yield the names and values of the subgroups, predictive values and agreement of readers, where there are any."""
    for column in report.subgroups:
        for row in column["rows"]:
            metric = "balanced_accuracy" if "balanced_accuracy" in row["metrics"] else "dice"
            if metric in row["metrics"]:
                text = format_interval(row["metrics"][metric], with_n=True)
                name = f"{words(column['column'])} {row['name']}: {metric_title(metric)}"
                yield name, text + (" (imprecise)" if row["thin"] else "")
    for point in (report.operating_points or {"points": ()})["points"]:
        if point["fixed"] is None and point["ppv"] is not None and report.operating_points is not None:
            name = point["class_name"]
            share = report.operating_points["prevalence"][name]
            for value in ("ppv", "npv"):
                yield f"{name} {value.upper()} at prevalence {share:g}", format_interval(point[value], with_n=True)
    if report.agreement is not None:
        for pair, labels in report.agreement["labels"].items():
            yield f"{pair}: kappa", format_interval(labels["kappa"], with_n=True)
        for pair, dice in report.agreement["masks"].items():
            yield f"{pair}: Dice", format_interval(dice, with_n=True)
