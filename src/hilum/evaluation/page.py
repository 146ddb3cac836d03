"""Write a report as ``report.html``: headline, limitations, metrics, failures, then training and settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hilum.config import PRESETS, list_settings, show_value
from hilum.document import data_uri, write_document
from hilum.evaluation.calibration_page import calibration_groups, difference_end
from hilum.evaluation.failure_images import FailureImages
from hilum.evaluation.journal_page import journal_context
from hilum.evaluation.localization_table import MEASURES
from hilum.evaluation.plots.probabilities import diagram_bins
from hilum.evaluation.report import Figure, Report
from hilum.format import metric_title
from hilum.metrics.table import WITHIN_SOURCES

PAGE_FILE = "report.html"
CLAIM_PAGE = "claim.html"

_OVERALL = ("balanced_accuracy", "accuracy", "macro_roc_auc", WITHIN_SOURCES, "macro_f1", "mcc", "dice")
_DEFAULT_PRESET = next(iter(PRESETS))
_CURVES = {
    "training_loss": "Loss by epoch, training and validation",
    "training_cls_loss": "Classification loss by epoch, training and validation",
    "training_seg_loss": "Segmentation loss by epoch, training and validation",
    "training_accuracy": "Accuracy by epoch, training and validation",
    "training_dice": "Dice of the lung mask by epoch, training and validation",
    "training_val_auc": "Macro AUROC by epoch, validation",
}
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


def write_page(
    report: Report, folder: Path, *, plots: Mapping[str, str | bytes], images: Mapping[str, FailureImages]
) -> Path:
    """Write ``report.html``, one self-contained file that makes no network request.

    Args:
        report: The report.
        folder: Folder for the page, created if absent.
        plots: Name (hilum.evaluation.plots) to SVG or PNG.
        images: File name to the drawings of a failure.

    Returns:
        The path of the page.

    Raises:
        OutputError: The folder cannot be written.
    """
    path = folder / PAGE_FILE
    write_document(path, "evaluation.html.j2", page_context(report, plots, images))
    return path


def page_context(
    report: Report, plots: Mapping[str, str | bytes], images: Mapping[str, FailureImages]
) -> dict[str, Any]:
    """Return the variables of the template; see write_page."""
    content = report.model_dump(mode="json")
    rows = {
        "classes": _class_rows(report),
        "sources": _source_rows(report),
        "contrasts": _contrast_groups(content["contrasts"]),
        "segmentation": _overlap_rows(report),
        "seen": _seen_rows(report),
        "settings": _settings(report),
    }
    return {
        "kind": "Evaluation",
        "title": f"{report.model.name}, {report.title}",
        "report": content,
        "subset": report.title,
        "overlap": report.overlap_sentence,
        "headline": _headline(report),
        "others": _others(report),
        "macro_notes": _macro_notes(report),
        "columns_of": [(metric_title(metric, first=True), start) for metric, _, start in _COLUMNS],
        "chance": 1 / max(1, len(report.class_names)),
        "distance_end": _round_up(
            max((f.high or f.value or 0 for f in report.figures if f.metric == "hd95_share"), default=0)
        ),
        "conformal": [_prediction_sets(result) for result in content["conformal"]],
        "always": _always_in_a_set(content["conformal"]),
        "calibration_groups": calibration_groups(content["calibration_within"]),
        "difference_end": difference_end(content["calibration_within"]),
        "ece_end": _ece_end(content["calibration"]),
        "failures": [{**failure, **_drawings(images.get(failure["file"]))} for failure in content["failures"]],
        "failures_drawn": bool(images),
        "evidence_known": any(drawn.has_evidence is not None for drawn in images.values()),
        "reliability_bins": None if report.calibration is None else diagram_bins(report.calibration["after"]),
        "claim_page": CLAIM_PAGE,
        "best_epoch": None if report.provenance is None else report.provenance.best_epoch,
        "curves": {name: _CURVES.get(name, name) for name in plots if name.startswith("training_")},
        "localization": _localization(content["localization"]),
        "plots": {name: data_uri(image) for name, image in plots.items()},
        "sections": _sections(report, rows),
        **rows,
        **journal_context(report),
    }


def _sections(report: Report, rows: Mapping[str, Any]) -> dict[str, str]:
    """Anchor to heading, in reading order; only the sections that the report has data for."""
    known = report.confusion_matrix is not None
    every = {
        "training": ("Images of the training data", report.training_overlap is not None and bool(rows["seen"])),
        "result": ("Result", True),
        "limits": ("Limitations of these data", bool(report.limits)),
        "classes": ("Classes", known),
        "sources": ("Sources", bool(rows["sources"] or rows["contrasts"])),
        "subgroups": ("Subgroups", bool(report.subgroups)),
        "operating": ("Operating points", report.operating_points is not None),
        "decisions": ("Decision curves", bool(report.decision_curves)),
        "calibration": ("Calibration", report.calibration is not None),
        "sets": ("Prediction sets", bool(report.conformal)),
        "abstention": ("Abstention", report.selective is not None),
        "segmentation": ("Lung masks", bool(rows["segmentation"])),
        "readers": ("Agreement of readers", report.agreement is not None),
        "localization": ("Localization", report.localization is not None),
        "held-out": ("Sources held out", bool(report.held_out_sources)),
        "failures": ("Failures", known),
        "data": ("Data and partitions", report.provenance is not None and bool(report.provenance.data)),
        "curves": ("Training", report.provenance is not None and bool(report.provenance.epochs)),
        "settings": ("Settings", bool(rows["settings"])),
        "method": ("Methods and versions", True),
    }
    return {anchor: heading for anchor, (heading, present) in every.items() if present}


def _headline(report: Report) -> dict[str, Any] | None:
    """Balanced accuracy, which does not follow the most frequent class; the mean Dice where there is no label."""
    classes = len(report.class_names)
    if (figure := report.figure("balanced_accuracy")) is not None and figure.value is not None:
        averaged = f"{classes - len(figure.left_out)} of {classes}" if figure.left_out else f"{classes}"
        note = f"Mean recall of {averaged} classes. Chance is {1 / classes:.3f} (dashed)."
        return {
            "name": metric_title("balanced_accuracy", first=True),
            "figure": figure.model_dump(),
            "note": note,
            "chance": 1 / classes,
        }
    if (figure := report.figure("dice")) is not None and figure.value is not None:
        note = "Mean Dice of the predicted and the reference lung masks."
        return {"name": metric_title("dice", first=True), "figure": figure.model_dump(), "note": note, "chance": None}
    return None


def _others(report: Report) -> list[dict[str, Any]]:
    head = _headline(report)
    found = [(metric_title(metric, first=True), report.figure(metric)) for metric in _OVERALL]
    return [
        {"name": name, "figure": figure.model_dump(), "note": figure.note}
        for name, figure in found
        if figure is not None and head is not None and name != head["name"]
    ]


def _seen_rows(report: Report) -> list[dict[str, Any]]:
    """The main metrics over all and over the unseen images; empty where no image is in the training data."""
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


def _macro_notes(report: Report) -> list[str]:
    """Name the macro averages that leave classes out or count them as 0, by what they do."""
    notes: dict[str, list[str]] = {}
    for figure in report.figures:
        if figure.source is None and figure.note:
            notes.setdefault(figure.note, []).append(metric_title(figure.metric))
    return [f"{', '.join(names)}: {note}." for note, names in notes.items()]


def _source_rows(report: Report) -> list[dict[str, Any]]:
    """All sources, then each; empty where all images come from one source."""
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
    """The contrasts by pair of classes, over all sources first; ``apart`` marks a pair that shares no source."""
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
    """The metrics of lung masks: over all images, per class, per source."""
    places = list(dict.fromkeys((f.class_name, f.source) for f in report.figures if f.metric == "dice"))
    rows = []
    for class_name, source in sorted(places, key=lambda key: (key[1] is not None, key[0] is not None)):
        name = class_name or (f"within {source}" if source is not None else "All images")
        found = {metric: _dump(report.figure(metric, class_name, source)) for metric in ("dice", "iou", "hd95_share")}
        rows.append({"name": name, **found})
    return rows


def _prediction_sets(result: Mapping[str, Any]) -> dict[str, Any]:
    return {**result, "title": f"{float(result['level']):.0%}"}


def _always_in_a_set(results: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Class to the levels at which it is in every set: a quantile of 1 comes from too few groups."""
    found: dict[str, list[str]] = {}
    for result in results:
        for name, quantile in result["quantiles"].items():
            if quantile is not None and quantile >= 1:
                found.setdefault(name, []).append(f"{float(result['level']):.0%}")
    return found


def _ece_end(calibration: Mapping[str, Any] | None) -> float:
    """The end of the axis of the ECE: 0.25, or 1 where that is too short."""
    estimates = [] if calibration is None else [calibration[state]["ece"] for state in ("before", "after")]
    return 0.25 if all((e["high"] or e["value"] or 0) <= 0.25 for e in estimates) else 1


def _localization(content: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Tables of methods by measures, over all images and for each kind of target, and the differences."""
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
        "differences": _differences(content),
    }


def _differences(content: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The differences ``shown``, those of the headline in the measures without a threshold, and the ``folded`` rest."""
    parts: dict[str, list[dict[str, Any]]] = {"shown": [], "folded": []}
    headline = content.get("headline")  # absent from the files of earlier versions
    for row in content["differences"]:
        shown = headline is None or (row["method"] == headline and row["measure"] in ("hit", "energy", "iou_area"))
        parts["shown" if shown else "folded"].append({**row, "name": metric_title(row["measure"], first=True)})
    return {key: sorted(rows, key=lambda row: MEASURES.index(row["measure"])) for key, rows in parts.items()}


def _identical(differences: list[dict[str, Any]]) -> list[str]:
    """The methods whose map equals the evidence on every image, as Grad-CAM's does for a linear classifier."""
    pairs = dict.fromkeys((row["method"], row["against"]) for row in differences)
    values = {
        pair: [row["difference"] for row in differences if (row["method"], row["against"]) == pair] for pair in pairs
    }
    return [pair[1] for pair, own in values.items() if all(v["value"] == 0 for v in own)]


def _settings(report: Report) -> list[dict[str, Any]]:
    """The trainings that made the weights, each with its sections of settings; the last is the model's own."""
    trainings = () if report.provenance is None else report.provenance.training
    found = []
    for number, own in enumerate(trainings, start=1):
        sections = [_section(name, values) for name, values in own.items() if isinstance(values, Mapping)]
        changed = [
            f"{section['name']}.{row['name']}={row['value']}"
            for section in sections
            for row in section["rows"]
            if row["changed"]
        ]
        name = "" if len(trainings) == 1 else f"Training {number} of {len(trainings)}"
        found.append({"name": name, "sections": sections, "changed": changed})
    return found


def _section(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """A section of the settings: each with its value, its default and its description."""
    known = list_settings()
    rows: list[dict[str, Any]] = []
    for key, value in values.items():
        setting = known.get(f"{section}.{key}")
        shown = show_value(value)
        default = None if setting is None else show_value(setting.values[_DEFAULT_PRESET])
        rows.append(
            {
                "name": key,
                "value": shown,
                "default": default,
                "changed": default is not None and shown != default,
                "meaning": "" if setting is None else setting.description,
            }
        )
    return {"name": section, "rows": rows, "changed": sum(bool(row["changed"]) for row in rows)}


def _drawings(images: FailureImages | None) -> dict[str, Any]:
    if images is None:
        return {"plain": None, "overlay": None, "has_evidence": None}
    return {
        "plain": data_uri(images.plain),
        "overlay": data_uri(images.overlay),
        "has_evidence": images.has_evidence,
    }


def _dump(figure: Figure | None) -> dict[str, Any] | None:
    return None if figure is None else figure.model_dump()


def _round_up(value: float) -> float:
    """The end of an axis: the next 1, 2 or 5 times a power of ten, at least 0.1."""
    step = 0.1
    while True:
        for factor in (1, 2, 5):
            if value <= factor * step:
                return factor * step
        step *= 10
