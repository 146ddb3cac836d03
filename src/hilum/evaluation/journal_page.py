"""Sections of ``report.html`` that journals ask for: data, subgroups, operating points, decisions, readers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hilum.evaluation.flow import flow_of, flow_svg
from hilum.evaluation.limits import FEW_IMAGES
from hilum.evaluation.report import Provenance, Report
from hilum.evaluation.subgroups import DEMOGRAPHICS, FEW_GROUPS, NOT_RECORDED
from hilum.format import count, format_interval, number, percent, split_title, words
from hilum.metrics.agreement import PAIRS
from hilum.metrics.net_benefit import SHOWN
from hilum.metrics.operating_points import groups_needed


def journal_context(report: Report) -> dict[str, Any]:
    """Return the variables of the templates of these sections; None where the report has no data for one."""
    return {
        "data_section": _data(report),
        "subgroups": [_subgroup(column, report.class_names) for column in report.subgroups],
        "operating": _operating(report),
        "decisions": [_decision(curve) for curve in report.decision_curves],
        "readers": _readers(report.agreement),
        "few_groups": FEW_GROUPS,
        "few_images": FEW_IMAGES,
    }


def _data(report: Report) -> dict[str, Any] | None:
    flow = flow_of(report)
    if flow is None or report.provenance is None:
        return None
    origin = report.provenance
    return {
        "svg": flow_svg(flow),
        "splits": [split_title(name) for name in origin.data],
        "rows": list(_facts(origin)),
        "absent": [name for name in DEMOGRAPHICS if not any(name in facts.columns for facts in origin.data.values())],
    }


def _facts(origin: Provenance) -> Iterable[dict[str, Any]]:
    """The rows of the table of demographics: a name, whether it heads a part, and a cell for each split."""
    every = list(origin.data.values())
    for name, field in (("Images", "images"), ("Groups", "groups"), ("With a lung mask", "with_masks")):
        yield {"name": name, "part": False, "cells": [count(getattr(facts, field)) for facts in every]}
    for title, kind in (("Class", "classes"), ("Source", "sources")):
        own: list[dict[str, int]] = [getattr(facts, kind) for facts in every]
        yield from _shares(title, own, [facts.images for facts in every])
    for column in dict.fromkeys(name for facts in every for name in facts.columns):
        yield from _column(column, [facts.columns.get(column) for facts in every])


def _column(name: str, every: list[dict[str, Any] | None]) -> Iterable[dict[str, Any]]:
    known = [facts or {"known": 0, "missing": 0, "counts": {}, "quartiles": None} for facts in every]
    title = words(name).capitalize()
    if any(facts["quartiles"] for facts in known):
        yield {
            "name": f"{title}, median (quartiles)",
            "part": False,
            "cells": ["–" if not facts["quartiles"] else _quartiles(facts["quartiles"]) for facts in known],
        }
    else:
        yield from _shares(title, [facts["counts"] for facts in known], [f["known"] + f["missing"] for f in known])
    if any(facts["missing"] for facts in known):
        cells = [_share(facts["missing"], facts["known"] + facts["missing"]) for facts in known]
        yield {"name": f"{title} {NOT_RECORDED}", "part": False, "cells": cells}


def _quartiles(values: Iterable[float]) -> str:
    low, middle, high = values
    return f"{middle:g} ({low:g}–{high:g})"


def _shares(title: str, counts: list[dict[str, int]], totals: list[int]) -> Iterable[dict[str, Any]]:
    names = dict.fromkeys(name for own in counts for name in own)
    if not names:
        return
    yield {"name": title, "part": True, "cells": [""] * len(counts)}
    for name in names:
        cells = [_share(own.get(name, 0), total) for own, total in zip(counts, totals, strict=True)]
        yield {"name": name, "part": False, "cells": cells}


def _share(n: int, total: int) -> str:
    return f"{n:,} ({percent(n / total)})" if total else count(n)


def _subgroup(column: Mapping[str, Any], class_names: Iterable[str]) -> dict[str, Any]:
    """A table of one column, and a sentence on its lowest and highest balanced accuracy."""
    rows = [{**row, "recall_cells": [row["recalls"].get(name) for name in class_names]} for row in column["rows"]]
    metric = "balanced_accuracy"
    known = [row for row in rows if not row["thin"] and row["name"] != NOT_RECORDED]
    solid = [row for row in known if (row["metrics"].get(metric) or {}).get("value") is not None]
    solid.sort(key=lambda row: float(row["metrics"][metric]["value"]))
    return {
        "column": words(str(column["column"])),
        "rows": rows,
        "lowest": _of_row(solid[0], metric) if len(solid) > 1 else None,
        "highest": _of_row(solid[-1], metric) if len(solid) > 1 else None,
        "thin": [row["name"] for row in rows if row["thin"]],
        "few": [f"{row['name']}: {', '.join(row['few'])}" for row in rows if row["few"]],
        "masks": any("dice" in row["metrics"] for row in rows),
    }


def _of_row(row: Mapping[str, Any], metric: str) -> str:
    return f"{row['name']}: {format_interval(row['metrics'][metric], with_n=True)}"


def _operating(report: Report) -> dict[str, Any] | None:
    content = report.operating_points
    if content is None:
        return None
    classes: dict[str, dict[str, Any]] = {}  # class to predicted, specificity, sensitivity to point or None
    for point in content["points"]:
        own = classes.setdefault(point["class_name"], dict.fromkeys(("predicted", "specificity", "sensitivity")))
        own[point["fixed"] or "predicted"] = point
    targets = {point["fixed"]: point["target"] for point in content["points"] if point["fixed"]}
    unbounded = any(
        point["fixed"] and point["sensitivity"]["low"] is None and point["specificity"]["low"] is None
        for point in content["points"]
    )
    return {
        **content,
        "classes": classes,
        "targets": {name: f"{target:g}" for name, target in targets.items()},
        "needed": max(map(groups_needed, targets.values()), default=0) if unbounded else None,
    }


def _decision(curve: Mapping[str, Any]) -> dict[str, Any]:
    """The range of thresholds without a gap where the interval is above both reference strategies, and some rows."""
    thresholds, model, everyone = curve["thresholds"], curve["model"], curve["act_on_all"]
    better = [
        estimate["low"] is not None and estimate["low"] > max(0.0, treated)
        for estimate, treated in zip(model, everyone, strict=True)
    ]
    first, last = _longest(better)
    return {
        "class_name": curve["class_name"],
        "prevalence": number(curve["prevalence"]),
        "stated": curve["stated"],
        "range": None if first is None else f"{number(thresholds[first], 2)} to {number(thresholds[last], 2)}",
        "rows": [
            {"threshold": number(t, 2), "model": estimate, "all": treated}
            for t, estimate, treated in zip(thresholds, model, everyone, strict=True)
            if t in SHOWN
        ],
    }


def _longest(flags: list[bool]) -> tuple[int | None, int]:
    """Return the first and the last place of the longest run of True; the first is None where there is none."""
    best: tuple[int | None, int] = (None, -1)
    start = 0
    for place, flag in enumerate([*flags, False]):
        if flag:
            continue
        if place - start > (0 if best[0] is None else best[1] - best[0] + 1):
            best = (start, place - 1)
        start = place + 1
    return best


def _readers(content: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if content is None:
        return None
    return {
        "labels": [(name, content["labels"][name]) for name in PAIRS if name in content["labels"]],
        "masks": [(name, content["masks"][name]) for name in PAIRS if name in content["masks"]],
        "difference": content["mask_difference"],
    }
