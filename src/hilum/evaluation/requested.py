"""Compute the parts of a report that ReportOptions and a second reader add, and change the options of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hilum.evaluation.limits import FEW_IMAGES
from hilum.evaluation.options import ReportOptions
from hilum.evaluation.subgroups import DEMOGRAPHICS, FEW_GROUPS, SOURCE, require_columns, subgroup_results
from hilum.evaluation.thresholds import require_other_images, thresholds_from
from hilum.format import words
from hilum.metrics.agreement import READER_COLUMNS, agreement_result
from hilum.metrics.net_benefit import decision_curves
from hilum.metrics.operating_points import Thresholds, operating_points
from hilum.metrics.scores import Scores
from hilum.storage import as_json

if TYPE_CHECKING:
    from hilum.evaluation.results import Evaluated


def requested_parts(
    scores: Scores, options: ReportOptions, thresholds: Thresholds | None, *, resamples: int, seed: int
) -> dict[str, Any]:
    """Return ``subgroups``, ``operating_points``, ``decision_curves`` and ``agreement`` of a report.

    Args:
        scores: The evaluated split.
        options: Parts of the report that are chosen by the user.
        thresholds: Of the operating points, chosen on other images; None where there are none.
        resamples: Number of bootstrap resamples.
        seed: Random seed of the bootstrap.

    Raises:
        ConfigError: A prevalence is of an unknown class.
        DataError: A column is missing or has values that cannot be used.
    """
    options.require_classes(scores.class_names)
    again = {"resamples": resamples, "seed": seed}
    stated = options.prevalence
    points = operating_points(scores, options.at, thresholds=thresholds, prevalence=stated, **again)
    return {
        "subgroups": tuple(as_json(subgroup_results(scores, options.subgroups, **again))),
        "operating_points": as_json(points),
        "decision_curves": tuple(as_json(decision_curves(scores, prevalence=stated, **again))),
        "agreement": as_json(agreement_result(scores, **again)),
    }


def thin_subgroups(parts: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a limitation that names the subgroups with few images or groups; empty where there are none."""
    thin = [
        f"{words(column['column'])} {row['name']} ({row['images']})"
        for column in parts["subgroups"]
        for row in column["rows"]
        if row["thin"]
    ]
    if not thin:
        return ()
    few = f"Fewer than {FEW_IMAGES} images or {FEW_GROUPS} groups in the subgroups"
    return (f"{few} {', '.join(thin)}: their metrics are imprecise.",)


def with_options(evaluated: Evaluated, options: ReportOptions, thresholds: Path | None = None) -> Evaluated:
    """Return an evaluation that was read, with other options, and with only the columns that they need.

    Args:
        evaluated: As hilum.evaluation.results.read_evaluation returns it.
        options: Parts of the report that are chosen by the user.
        thresholds: Predictions of other images on which the thresholds are chosen; None keeps those of the evaluation.

    Raises:
        DataError: A subgroup has no column, or the thresholds cannot be chosen.
    """
    scores = evaluated.scores
    wanted = [spec.column for spec in options.subgroups]
    require_columns(wanted, [*scores.columns, *([SOURCE] if any(scores.sources) else [])])
    needed = {*DEMOGRAPHICS, *READER_COLUMNS, *wanted}
    kept = {name: cells for name, cells in scores.columns.items() if name in needed}
    chosen = evaluated.thresholds
    if thresholds is not None:
        chosen, others = thresholds_from(thresholds, scores.class_names, options.at)
        require_other_images(scores, others)
    return replace(evaluated, scores=replace(scores, columns=kept), options=options, thresholds=chosen)
