"""An audit as a page that a person reads: the gravest finding first, all findings ranked, then what they stand on."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from hilum.audit.report import AuditReport
from hilum.document import data_uri, write_document
from hilum.format import metric_title

_TREATMENTS = {
    "intact": "Intact images",
    "erased_mean": "Lungs erased, mean of the surroundings",
    "erased_fill": "Lungs erased, one gray level",
    "erased_blur": "Lungs erased, blurred",
    "lungs_only": "Lungs only",
    "border_only": "Border only",
    "background_other_class": "Over the background of another class",
    "background_same_class": "Over another background of the same class",
}
_PROBES = {
    "file": "File facts (size, format, depth)",
    "border": "Border alone",
    "outside_lung": "Lungs erased",
    "source": "Source column",
    "thumbnail": "8×8 thumbnail",
    "histogram": "Histogram",
}
_WHOLE_IMAGE = frozenset({"thumbnail", "histogram"})
_MEASURES = {
    "accuracy": metric_title("accuracy", first=True),
    "auc": metric_title("roc_auc"),
    "kept": "Share of unchanged predictions",
    "mask_dice": "Dice of the lung mask with that of the intact image",
}
_SEVERITIES = {"error": "Error", "warning": "Warning", "info": "Note"}
_MOST_NAMED = 100  # pairs in the list of duplicates


def write_page(report: AuditReport, path: Path, *, images: Mapping[str, bytes]) -> Path:
    """Write the audit as one HTML file that needs no other, and asks for nothing over the network.

    Args:
        report: what is told.
        path: the HTML to write.
        images: PNG or JPEG of two images side by side, by their names with a line break between.

    Returns:
        The path.

    Raises:
        OutputError: it cannot be written.
    """
    write_document(path, "audit.html.j2", page_context(report, images))
    return path


def page_context(report: AuditReport, images: Mapping[str, bytes]) -> dict[str, Any]:
    """Return what the template names; see write_page."""
    content = report.model_dump(mode="json")
    return {
        "kind": "Audit" if report.model is None else "Audit of data and model",
        "title": report.data.name,
        "report": content,
        "verdict": _verdict(report),
        "severities": _SEVERITIES,
        "told": [finding for finding in report.findings if not finding.is_probe_note],
        "notes": [finding for finding in report.findings if finding.is_probe_note],
        "source_rows": _source_rows(report),
        "duplicates": _duplicates(report.duplicates, images),
        "contrasts": _contrasts(content["probes"]),
        "treatments": _treatments(content["model"]),
        "measures": _measures(content["robustness"]),
        "sections": _sections(report),
    }


def _sections(report: AuditReport) -> dict[str, str]:
    """Anchor to heading, in reading order: only what the audit has something to say of, or says why not."""
    every = {
        "result": ("Result", True),
        "findings": ("Findings", True),
        "data": ("Data", True),
        "duplicates": ("Duplicates", report.duplicates is not None or "duplicates" in report.not_run),
        "probes": ("Shortcuts in the data", bool(report.probes) or "probes" in report.not_run),
        "model": ("Shortcuts in the model", report.model is not None or "model" in report.not_run),
        "robustness": ("Robustness", bool(report.robustness) or "robustness" in report.not_run),
        "method": ("How this was made", True),
    }
    return {anchor: heading for anchor, (heading, present) in every.items() if present}


def _verdict(report: AuditReport) -> dict[str, Any]:
    """How many findings of each kind, and the first of them where it is more than a note."""
    counts = {name: sum(f.severity == name for f in report.findings) for name in _SEVERITIES}
    first = next((f.message for f in report.findings if f.severity != "info"), None)
    return {"counts": counts, "first": first}


def _source_rows(report: AuditReport) -> list[dict[str, Any]]:
    """Images of each class in each source; empty where no source is known."""
    classes = report.data.classes
    rows: list[dict[str, Any]] = [
        {"name": name, "counts": [own.get(label, 0) for label in classes], "total": sum(own.values())}
        for name, own in report.data.sources.items()
    ]
    if not rows:
        return []
    unknown = [n - sum(row["counts"][k] for row in rows) for k, n in enumerate(classes.values())]
    if any(unknown):
        rows.append({"name": "no source given", "counts": unknown, "total": sum(unknown)})
    return rows


def _duplicates(content: Mapping[str, Any] | None, images: Mapping[str, bytes]) -> dict[str, Any] | None:
    """The summary, its two tables of pairs, the pairs by name and the pairs with an image."""
    if content is None:
        return None
    pairs = [{**pair, "image": images.get(f"{pair['first']}\n{pair['second']}")} for pair in content["pairs"]]
    order = {name: place for place, name in enumerate(images)}  # the most telling first
    shown = sorted(
        ({**pair, "image": data_uri(pair["image"])} for pair in pairs if pair["image"]),
        key=lambda pair: order[f"{pair['first']}\n{pair['second']}"],
    )
    return {
        **content,
        "pairs": pairs[:_MOST_NAMED],
        "all_pairs": content["exact_pairs"] + content["near_pairs"],
        "shown": shown,
        "tables": [
            {"title": title, "names": content[f"{key}_names"], "rows": content[f"by_{key}"]}
            for key, title in (("class", "Pairs by class"), ("split", "Pairs by split"))
            if len(content[f"{key}_names"]) > 1 and content["pairs"]
        ],
    }


def _contrasts(probes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The probes by pair of classes, the pair that is told apart best from beside the lung first."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for probe in probes:
        row = {
            **probe,
            "name": _PROBES.get(probe["probe"], probe["probe"].replace("_", " ")),
            "whole_image": probe["probe"] in _WHOLE_IMAGE,
        }
        groups.setdefault(f"{probe['positive']} against {probe['negative']}", []).append(row)
    for rows in groups.values():
        rows.sort(key=lambda row: (row["whole_image"], -_or_zero(row["auc"]["value"])))
    return sorted(
        ({"pair": pair, "rows": rows} for pair, rows in groups.items()),
        key=lambda group: (
            -max((_or_zero(row["auc"]["value"]) for row in group["rows"] if not row["whole_image"]), default=0)
        ),
    )


def _treatments(model: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    if model is None:
        return []
    return [{**score, "name": _TREATMENTS.get(score["treatment"], score["treatment"])} for score in model["scores"]]


def _measures(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per measure a table: a row per change, a column per strength, the intact images first."""
    intact = next((point for point in points if point["level"] == 0), None)
    changed = [point for point in points if point["level"] > 0]
    return [
        {
            "key": measure,
            "name": name,
            "intact": None if intact is None or measure in ("kept", "mask_dice") else intact[measure],
            "rows": [
                {
                    "name": "JPEG" if change == "jpeg" else change.capitalize(),
                    "points": [{**point, "figure": point[measure]} for point in own],
                }
                for change, own in ((c, list(g)) for c, g in groupby(changed, key=lambda point: point["change"]))
            ],
        }
        for measure, name in _MEASURES.items()
        if changed and any(point[measure]["value"] is not None for point in changed)
    ]


def _or_zero(value: float | None) -> float:
    return 0.0 if value is None else value
