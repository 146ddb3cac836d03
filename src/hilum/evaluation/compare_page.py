"""Write a comparison of two models as a page."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from hilum.document import write_document
from hilum.evaluation.compare import Comparison, Difference, counts_of, figure_name, n_of, seen_sentences, verdict
from hilum.format import p_value
from hilum.storage import as_json

_SECTIONS = {"headline": "Main metrics", "classes": "By class", "sources": "By source and pair of classes"}


def write_comparison_page(comparison: Comparison, path: Path, *, names: tuple[str, str]) -> None:
    """Write all differences as one self-contained HTML page.

    Args:
        comparison: The comparison.
        path: The file.
        names: Names of A and B.

    Raises:
        OutputError: The file cannot be written.
    """
    parts = [(comparison, "All images")]
    if comparison.unseen is not None:
        parts.insert(0, (comparison.unseen, "Images unseen by both"))
    sections = {}
    tables = []
    for number, (part, which) in enumerate(parts):
        for key, title in _SECTIONS.items():
            if rows := [_row(difference) for difference in _chosen(part, key)]:
                anchor = key if number == len(parts) - 1 else f"unseen-{key}"
                sections[anchor] = title if len(parts) == 1 else f"{title}: {which.lower()}"
                table = {"anchor": anchor, "title": sections[anchor], "counts": counts_of(part), "rows": rows}
                tables.append({**table, "end": max((row["end"] for row in rows if not row["pixels"]), default=1)})
    sections["method"] = "Methods"
    context = {
        "kind": "Comparison",
        "title": "Two models on the same images",
        "names": names,
        "split": comparison.split,
        "counts": counts_of(comparison),
        "seen": seen_sentences(comparison),
        "verdict": verdict(comparison),
        "sections": sections,
        "tables": tables,
        "resamples": comparison.resamples,
        "seed": comparison.seed,
    }
    write_document(path, "comparison.html.j2", context)


def _chosen(part: Comparison, section: str) -> list[Difference]:
    headline = part.headline
    rest = [difference for difference in part.differences if difference not in headline]
    of_sources = [d for d in rest if d.source is not None or d.versus is not None]
    return {
        "headline": list(headline),
        "classes": [difference for difference in rest if difference not in of_sources],
        "sources": of_sources,
    }[section]


def _row(difference: Difference) -> dict[str, Any]:
    """A row of the table; ``end`` is where an axis around 0 must end, in pixels for distances, to show its bar."""
    name = figure_name(difference)
    estimate = {"value": difference.difference, "low": difference.low, "high": difference.high, "n": difference.n}
    known = [abs(bound) for bound in (difference.low, difference.high, difference.difference) if not math.isnan(bound)]
    pixels = difference.metric == "hd95"
    farthest = max(known, default=0.0)
    return {
        "name": name[:1].upper() + name[1:],
        "n": n_of(difference),
        "a": difference.a,
        "b": difference.b,
        "estimate": as_json(estimate),
        "pixels": pixels,
        "end": max(1, math.ceil(farthest)) if pixels else max(0.1, math.ceil(10 * farthest) / 10),
        "better": difference.better,
        "p": _p(difference.p),
        "p_holm": _p(difference.p_holm),
    }


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return "–" if math.isnan(value) else p_value(value).removeprefix("p ").removeprefix("= ")
