"""The page of an audit: conclusion, matrix of probes, mean images, findings by kind, then the results in detail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from hilum.audit.differences import Difference, common_scale, difference_png, mean_png
from hilum.audit.findings import contrast_name
from hilum.audit.probes import REST
from hilum.audit.report import KINDS, AuditFinding, AuditReport, count_words
from hilum.document import data_uri, write_document
from hilum.format import bounds, count, metric_title, number, p_value

_TREATMENTS = {
    "intact": "Intact images",
    "erased_inpaint": "Lungs erased, in-painted",
    "erased_mean": "Lungs erased, mean of the surroundings",
    "erased_fill": "Lungs erased, one gray level",
    "erased_blur": "Lungs erased, blurred",
    "lungs_only": "Lungs only",
    "border_only": "Border only",
    "background_other_class": "Over the background of another class",
    "background_same_class": "Over another background of the same class",
}
_PROBES = {
    "file": "File facts",
    "border": "Border",
    "outside_lung": "Lungs erased",
    "source": "Source column",
    "thumbnail": "8×8 thumbnail",
    "histogram": "Histogram",
}
"""In the order of the columns."""
_WHOLE_IMAGE = frozenset({"thumbnail", "histogram"})
_MEASURES = {
    "accuracy": metric_title("accuracy", first=True),
    "auc": metric_title("roc_auc"),
    "kept": "Share of unchanged predictions",
    "mask_dice": "Dice of the lung mask with that of the intact image",
}
_SHADES = (0.55, 0.65, 0.75, 0.85, 0.95)
"""The AUROC at which each darker shade of the matrix begins."""
_SHOWN = 4  # findings of a kind before the rest are folded
_MOST_NAMED = 100  # pairs in the list of duplicates


def write_page(
    report: AuditReport, path: Path, *, images: Mapping[str, bytes], differences: Sequence[Difference] = ()
) -> Path:
    """Write the audit as one self-contained HTML file.

    Args:
        report: The audit.
        path: The HTML file to write.
        images: PNG or JPEG of two images side by side, by their names with a line break between.
        differences: Mean images of the pairs of classes that a probe tells apart.

    Returns:
        The path.

    Raises:
        OutputError: The file cannot be written.
    """
    write_document(path, "audit.html.j2", page_context(report, images, differences))
    return path


def page_context(
    report: AuditReport, images: Mapping[str, bytes], differences: Sequence[Difference] = ()
) -> dict[str, Any]:
    """Return the variables of the template; see write_page."""
    content = report.model_dump(mode="json")
    contrasts = _contrasts(content["probes"])
    return {
        "kind": "Audit" if report.model is None else "Audit of data and model",
        "title": report.data.name,
        "report": content,
        "kinds": _kinds(report),
        "matrix": _matrix(contrasts),
        "pictures": _pictures(differences, contrasts),
        "source_rows": _source_rows(report),
        "duplicates": _duplicates(report.duplicates, images),
        "contrasts": contrasts,
        "treatments": _treatments(content["model"]),
        "measures": _measures(content["robustness"]),
        "sections": _sections(report, bool(differences)),
    }


def _sections(report: AuditReport, pictures: bool) -> dict[str, str]:
    """Anchor to heading, in reading order: the parts that were run, and those that say why they were not."""
    every = {
        "result": ("Conclusion", True),
        "probes": ("Shortcuts in the data", bool(report.probes) or "probes" in report.not_run),
        "pictures": ("Where the classes differ", pictures),
        "findings": ("Findings", True),
        "data": ("Data", True),
        "duplicates": ("Duplicates", report.duplicates is not None or "duplicates" in report.not_run),
        "model": ("Shortcuts in the model", report.model is not None or "model" in report.not_run),
        "robustness": ("Robustness", bool(report.robustness) or "robustness" in report.not_run),
        "method": ("About this audit", True),
    }
    return {anchor: heading for anchor, (heading, present) in every.items() if present}


def _kinds(report: AuditReport) -> list[dict[str, Any]]:
    """Per kind of finding its heading, its counts, and its findings, of which the first few are shown."""
    tested = {"shortcut": bool(report.probes), "model": report.model is not None, "robustness": bool(report.robustness)}
    none_found = {"leak": "none found" if set(report.data.splits) - {"(none)"} else "the data have no split"}
    kinds = []
    for kind, heading in KINDS.items():
        own = [finding for finding in report.findings if finding.kind == kind]
        told = [finding for finding in own if not finding.is_probe_note]
        problems = [finding for finding in told if finding.severity != "info"]
        kinds.append(
            {
                "key": kind,
                "heading": heading,
                "problems": len(problems),
                "severity": min((f.severity for f in problems), default="info"),  # error before warning
                "words": count_words(problems)
                or (none_found.get(kind, "none found") if tested.get(kind, True) else "not tested"),
                "tested": tested.get(kind, True),
                "told": bool(own),
                "shown": [_told(finding) for finding in told[:_SHOWN]],
                "folded": [_told(finding) for finding in told[_SHOWN:]],
                "notes": [_told(finding) for finding in own if finding.is_probe_note],
            }
        )
    return kinds


def _told(finding: AuditFinding) -> dict[str, Any]:
    return {**finding.model_dump(), "word": finding.word}


def _matrix(contrasts: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Pair of classes by probe: the columns, and the rows in up to two groups; None without probes."""
    if not contrasts:
        return None
    probes = {row["probe"] for group in contrasts for row in group["rows"]}
    columns = [name for name in (*_PROBES, *sorted(probes - set(_PROBES))) if name in probes]
    groups = []
    for heading, rest in (("Pairs of classes", False), ("One class against the rest", True)):
        rows = []
        for group in contrasts:
            if group["rest"] == rest:
                own = {row["probe"]: row for row in group["rows"]}
                rows.append({"pair": group["pair"], "cells": [_cell(own.get(name)) for name in columns]})
        if rows:
            groups.append({"heading": heading, "rows": rows})
    return {
        "columns": [{"name": _PROBES.get(name, name), "whole": name in _WHOLE_IMAGE} for name in columns],
        "groups": groups,
        "headings": len(groups) > 1,
        "shades": [
            f"< {_SHADES[0]}",
            *(f"{low}–{high}" for low, high in pairwise(_SHADES)),
            f"≥ {_SHADES[-1]}",
        ],
    }


def _cell(row: Mapping[str, Any] | None) -> dict[str, Any]:
    """A cell of the matrix: its text, shade, flag and what is shown on hover."""
    if row is None:
        return {"text": "–", "shade": None, "flag": "", "title": "not measured", "whole": False}
    pair = contrast_name(row["positive"], row["negative"])
    if row["auc"]["value"] is None:
        text = "no masks" if row["probe"] == "outside_lung" and not sum(row["counts"]) else "too few"
        title = f"{row['name']}, {pair}: not measured, {row['counts'][0]} and {row['counts'][1]} images usable"
        return {"text": text, "shade": None, "flag": "", "title": title, "whole": row["whole_image"]}
    auc = row["auc"]
    interval = f"95% CI {bounds(auc, 2)}, " if bounds(auc, 2) else ""
    own, others = row["counts"]
    chance = {"low": row["chance_low"], "high": row["chance_high"]}
    return {
        "text": number(auc["value"], 2),
        "shade": sum(auc["value"] >= bound for bound in _SHADES),
        "flag": {"error": "shortcut", "warning": "weak"}.get(row["severity"], ""),
        "title": (
            f"{row['name']}, {pair}: AUROC {number(auc['value'], 2)}, {interval}n = {count(auc['n'])} "
            f"({count(own)} and {count(others)}); chance {bounds(chance, 2)}, {p_value(row['p_value'])}"
        ),
        "whole": row["whole_image"],
    }


def _pictures(differences: Sequence[Difference], contrasts: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The mean images of each flagged pair and their difference, on one scale; None without a flagged pair."""
    if not differences:
        return None
    scale = common_scale(differences)
    rows = {(row["positive"], row["negative"]): group["rows"] for group in contrasts for row in group["rows"]}
    pairs = []
    for each in differences:
        level = float(each.gray_levels[each.peak])
        flagged = [row for row in rows.get((each.positive, each.negative), ()) if row["severity"] != "info"]
        pairs.append(
            {
                "pair": contrast_name(each.positive, each.negative),
                "names": (each.positive, each.negative),
                "counts": each.counts,
                "means": [data_uri(mean_png(mean)) for mean in each.means],
                "difference": data_uri(difference_png(each.gray_levels, scale)),
                "place": each.place,
                "level": level,
                "probes": [{"name": row["name"], "auc": row["auc"]} for row in flagged],
                "seen": any(row["probe"] not in ("file", "source") for row in flagged),
            }
        )
    return {"pairs": pairs, "scale": scale}


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
    """The probes by pair of classes, the pair with the highest AUROC of a shortcut probe first."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for probe in probes:
        row = {
            **probe,
            "name": _PROBES.get(probe["probe"], probe["probe"].replace("_", " ")),
            "whole_image": probe["probe"] in _WHOLE_IMAGE,
        }
        groups.setdefault((probe["positive"], probe["negative"]), []).append(row)
    for rows in groups.values():
        rows.sort(key=lambda row: (row["whole_image"], -_or_zero(row["auc"]["value"])))
    found = [{"pair": contrast_name(*names), "rest": names[1] == REST, "rows": rows} for names, rows in groups.items()]
    return sorted(
        found,
        key=lambda group: (
            -max((_or_zero(row["auc"]["value"]) for row in group["rows"] if not row["whole_image"]), default=0)
        ),
    )


def _treatments(model: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    if model is None:
        return []
    trained = set(model["trained_on"] or ())
    return [
        {
            **score,
            "name": _TREATMENTS.get(score["treatment"], score["treatment"]),
            "trained": score["treatment"] in trained,
        }
        for score in model["scores"]
    ]


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
