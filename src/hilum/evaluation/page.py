"""A report as a page that a person reads: the headline first, then what the data cannot tell, then the rest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hilum.document import data_uri, write_document
from hilum.evaluation.report import Figure, Report
from hilum.format import metric_title

PAGE_FILE = "report.html"

_OVERALL = ("balanced_accuracy", "accuracy", "macro_roc_auc", "macro_f1", "mcc", "dice")
# metric of a class, the same over all classes, where its axis begins
_COLUMNS = (
    ("recall", "balanced_accuracy", 0),
    ("specificity", "macro_specificity", 0),
    ("precision", "macro_precision", 0),
    ("f1", "macro_f1", 0),
    ("roc_auc", "macro_roc_auc", 0),
    ("pr_auc", "macro_pr_auc", 0),
    ("balanced_accuracy", None, 0),
    ("mcc", "mcc", -1),
)


def write_page(report: Report, folder: Path, *, plots: Mapping[str, str | bytes], images: Mapping[str, bytes]) -> Path:
    """Write ``report.html``: one file that needs no other, and asks for nothing over the network.

    Args:
        report: what is told.
        folder: made if absent.
        plots: name (hilum.evaluation.plots) to SVG or PNG.
        images: PNG by file name, shown beside the failures of these files.

    Returns:
        The path of the page.

    Raises:
        OutputError: the folder cannot be written.
    """
    path = folder / PAGE_FILE
    write_document(path, "evaluation.html.j2", page_context(report, plots, images))
    return path


def page_context(report: Report, plots: Mapping[str, str | bytes], images: Mapping[str, bytes]) -> dict[str, Any]:
    """Return what the template names; see write_page."""
    content = report.model_dump(mode="json")
    rows = {
        "classes": _class_rows(report),
        "sources": _source_rows(report),
        "contrasts": _contrast_groups(content["contrasts"]),
        "segmentation": _overlap_rows(report),
        "seen": _seen_rows(report),
    }
    return {
        "kind": "Evaluation",
        "title": f"{report.model.name}, {report.split.name} split",
        "report": content,
        "overlap": report.overlap_sentence,
        "headline": _headline(report),
        "others": _others(report),
        "columns_of": [(metric_title(metric, first=True), start) for metric, _, start in _COLUMNS],
        "chance": 1 / max(1, len(report.class_names)),
        "hd95_end": _round_up(max((f.high or f.value or 0 for f in report.figures if f.metric == "hd95"), default=0)),
        "conformal": [_prediction_sets(result) for result in content["conformal"]],
        "failures": [
            {**failure, "image": data_uri(images[failure["file"]]) if failure["file"] in images else None}
            for failure in content["failures"]
        ],
        "localization": _localization(content["localization"]),
        "plots": {name: data_uri(image) for name, image in plots.items()},
        "sections": _sections(report, rows),
        **rows,
    }


def _sections(report: Report, rows: Mapping[str, Any]) -> dict[str, str]:
    """Anchor to heading, in reading order: only what the report has something to say of."""
    known = report.confusion_matrix is not None
    every = {
        "training": ("Images of the training data", report.training_overlap is not None and bool(rows["seen"])),
        "result": ("Result", True),
        "limits": ("What these data cannot tell", bool(report.limits)),
        "classes": ("Classes", known),
        "sources": ("Sources", bool(rows["sources"] or rows["contrasts"])),
        "calibration": ("Calibration", report.calibration is not None),
        "sets": ("Prediction sets", bool(report.conformal)),
        "abstention": ("Abstention", report.selective is not None),
        "segmentation": ("Lung masks", bool(rows["segmentation"])),
        "localization": ("Localization", report.localization is not None),
        "held-out": ("Sources left out", bool(report.held_out_sources)),
        "failures": ("Failures", known),
        "method": ("How this was made", True),
    }
    return {anchor: heading for anchor, (heading, present) in every.items() if present}


def _headline(report: Report) -> dict[str, Any] | None:
    """Balanced accuracy, since accuracy follows the commonest class; the mean Dice where there is no label."""
    classes = len(report.class_names)
    if (figure := report.figure("balanced_accuracy")) is not None and figure.value is not None:
        note = f"Mean of the recalls of {classes} classes. A guess would reach {1 / classes:.3f} (dashed)."
        return {
            "name": metric_title("balanced_accuracy", first=True),
            "figure": figure.model_dump(),
            "note": note,
            "chance": 1 / classes,
        }
    if (figure := report.figure("dice")) is not None and figure.value is not None:
        note = "Mean Dice of the predicted with the reference lung masks."
        return {"name": metric_title("dice", first=True), "figure": figure.model_dump(), "note": note, "chance": None}
    return None


def _others(report: Report) -> list[dict[str, Any]]:
    head = _headline(report)
    found = [(metric_title(metric, first=True), report.figure(metric)) for metric in _OVERALL]
    return [
        {"name": name, "figure": figure.model_dump()}
        for name, figure in found
        if figure is not None and head is not None and name != head["name"]
    ]


def _seen_rows(report: Report) -> list[dict[str, Any]]:
    """The headline figures over all images and over the unseen; empty where no image is in the training data."""
    overlap = report.training_overlap
    if overlap is None or not overlap.seen:
        return []
    figures = [(metric_title(metric, first=True), report.figure(metric)) for metric in _OVERALL]
    figures += [(f"Recall, {name}", report.figure("recall", name)) for name in report.class_names]
    return [
        {"name": name, "all": figure.model_dump(), "unseen": _dump(overlap.figure(figure))}
        for name, figure in figures
        if figure is not None
    ]


def _class_rows(report: Report) -> list[dict[str, Any]]:
    rows = [
        {"name": name, "total": False, "cells": [_dump(report.figure(metric, name)) for metric, _, _ in _COLUMNS]}
        for name in report.class_names
    ]
    overall = [None if metric is None else _dump(report.figure(metric)) for _, metric, _ in _COLUMNS]
    for row, name in zip(rows, report.class_names, strict=True):
        figure = report.figure("recall", name)
        row["n"] = None if figure is None else figure.n
    return [*rows, {"name": "All classes", "total": True, "cells": overall, "n": report.split.labeled}]


def _source_rows(report: Report) -> list[dict[str, Any]]:
    """All sources, then each; empty where nothing is known within a source."""
    names = list(dict.fromkeys(f.source for f in report.figures if f.source is not None and f.metric == "accuracy"))
    if not names:
        return []
    return [
        {
            "name": "All sources" if source is None else source,
            "total": source is None,
            "accuracy": _dump(report.figure("accuracy", None, source)),
            "balanced_accuracy": _dump(report.figure("balanced_accuracy", None, source)),
            "recalls": [_dump(report.figure("recall", name, source)) for name in report.class_names],
        }
        for source in [*names, None]
    ]


def _contrast_groups(contrasts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The contrasts by pair of classes, over all sources first; a pair that shares no source is said to."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for contrast in contrasts:
        groups.setdefault((contrast["positive"], contrast["negative"]), []).append(contrast)
    within_any = any(contrast["source"] is not None for contrast in contrasts)
    return [
        {
            "pair": f"{positive} against {negative}",
            "rows": sorted(rows, key=lambda contrast: contrast["source"] is not None),
            "apart": within_any and all(contrast["source"] is None for contrast in rows),
        }
        for (positive, negative), rows in groups.items()
    ]


def _overlap_rows(report: Report) -> list[dict[str, Any]]:
    """Overall, per class, per source, of all that is measured on masks."""
    places = list(dict.fromkeys((f.class_name, f.source) for f in report.figures if f.metric == "dice"))
    rows = []
    for class_name, source in sorted(places, key=lambda key: (key[1] is not None, key[0] is not None)):
        name = class_name or (f"within {source}" if source is not None else "All images")
        found = {metric: _dump(report.figure(metric, class_name, source)) for metric in ("dice", "iou", "hd95")}
        rows.append({"name": name, **found})
    return rows


def _prediction_sets(result: Mapping[str, Any]) -> dict[str, Any]:
    """A level, its title, and the classes that it never rules out: a quantile of 1 comes from too few groups."""
    always = [name for name, quantile in result["quantiles"].items() if quantile is not None and quantile >= 1]
    return {**result, "title": f"{float(result['level']):.0%}", "always": always}


def _localization(content: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A table of methods by measures over all images, one for each kind of target, and the differences."""
    if content is None:
        return None
    kinds = {"": content["methods"], **content["by_kind"]}
    measures = list(dict.fromkeys(name for methods in kinds.values() for own in methods.values() for name in own))
    return {
        "images": content["images"],
        "kinds": content["kinds"],
        "measures": [metric_title(name, first=True) for name in measures],
        "tables": [
            {
                "kind": kind,
                "rows": [
                    {"name": m, "cells": [own.get(key) for key in measures], "n": next(iter(own.values()))["n"]}
                    for m, own in rows.items()
                    if own  # without a lung on any image, random in lung has no measure
                ],
            }
            for kind, rows in kinds.items()
        ],
        "identical": _identical(content["differences"]),
        "differences": [{**row, "name": metric_title(row["measure"], first=True)} for row in content["differences"]],
    }


def _identical(differences: list[dict[str, Any]]) -> list[str]:
    """Return the methods whose map equals the evidence on every image, as Grad-CAM must for a linear classifier."""
    others = dict.fromkeys(row["against"] for row in differences)
    values = {name: [row["difference"] for row in differences if row["against"] == name] for name in others}
    return [name for name, own in values.items() if all(v["value"] == v["low"] == 0 for v in own)]


def _dump(figure: Figure | None) -> dict[str, Any] | None:
    return None if figure is None else figure.model_dump()


def _round_up(value: float) -> int:
    """The end of an axis: the next 1, 2 or 5 times a power of ten."""
    step = 1
    while True:
        for factor in (1, 2, 5):
            if value <= factor * step:
                return factor * step
        step *= 10
