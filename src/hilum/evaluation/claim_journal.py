"""Entries of the CLAIM checklist on subgroups, operating points, decision curves, readers and demographics."""

from __future__ import annotations

from collections.abc import Callable

from hilum.evaluation.report import Report
from hilum.evaluation.subgroups import NOT_RECORDED
from hilum.format import format_interval, metric_title, number, split_title, words


def add_journal(report: Report, add: Callable[[int, str], None]) -> None:
    """Add what a report knows of these items."""
    _add_demographics(report, add)
    _add_agreement(report, add)
    _add_subgroups(report, add)
    _add_operating_points(report, add)
    if report.decision_curves:
        add(28, "Net benefit (decision curves), per class.")


def _add_demographics(report: Report, add: Callable[[int, str], None]) -> None:
    if report.provenance is None or not report.provenance.data:
        return
    add(35, "report.html has a flow diagram of the images.")
    for split, facts in report.provenance.data.items():
        for name, own in facts.columns.items():
            if own["quartiles"] is not None:
                low, middle, high = own["quartiles"]
                text = f"median {middle:g} (quartiles {low:g} and {high:g})"
            else:
                text = ", ".join(f"{value} {n:,}" for value, n in own["counts"].items())
            missing = f"; {NOT_RECORDED} in {own['missing']:,}" if own["missing"] else ""
            add(36, f"{split_title(split).capitalize()}, {words(name)}: {text}{missing}.")


def _add_agreement(report: Report, add: Callable[[int, str], None]) -> None:
    if report.agreement is None:
        return
    for pair, own in report.agreement["labels"].items():
        same, kappa = format_interval(own["agreement"]), format_interval(own["kappa"], with_n=True)
        add(18, f"Labels of {pair}: same label {same}, kappa {kappa}.")
    for pair, dice in report.agreement["masks"].items():
        add(18, f"Lung masks of {pair}: {metric_title('dice')} {format_interval(dice, with_n=True)}.")


def _add_subgroups(report: Report, add: Callable[[int, str], None]) -> None:
    for column in report.subgroups:
        for row in column["rows"]:
            figure = row["metrics"].get("balanced_accuracy")
            if figure is not None and figure["value"] is not None:
                thin = " (imprecise)" if row["thin"] else ""
                text = format_interval(figure, with_n=True)
                add(37, f"Balanced accuracy, {words(column['column'])} {row['name']}{thin}: {text}.")


def _add_operating_points(report: Report, add: Callable[[int, str], None]) -> None:
    content = report.operating_points
    if content is None:
        return
    for point in content["points"]:
        name, fixed = point["class_name"], point["fixed"]
        if fixed is not None:
            other = "sensitivity" if fixed == "specificity" else "specificity"
            measured = format_interval(point[other], with_n=True)
            add(
                38,
                f"{name}, {other} at {fixed} {point['target']:g}: {measured}; threshold {number(point['threshold'])}.",
            )
        elif point["ppv"] is not None:
            share = f"prevalence {content['prevalence'][name]:g}"
            values = "; ".join(f"{key.upper()} {format_interval(point[key], with_n=True)}" for key in ("ppv", "npv"))
            add(38, f"{name} at {share}: {values}.")
    where = "the evaluated images" if content["origin"] is None else f"other images ({content['origin']})"
    add(38, f"Thresholds of these operating points were chosen on {where}.")
