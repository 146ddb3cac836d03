"""Write a comparison of two models as a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hilum.document import write_document
from hilum.evaluation.compare import ALPHA, Comparison, Difference
from hilum.evaluation.decision import (
    counts_of,
    figure_name,
    macro_notes,
    n_of,
    others,
    p_of,
    seen_sentences,
    verdict,
)  # fmt: skip
from hilum.storage import as_json

_ENDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)  # of an axis around 0
_SHOWN = 0.75  # share of the rows whose intervals an axis holds; the others are cut off, with an arrow
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
                chosen = _chosen(part, key)
                tables.append({**table, "end": _axis_end(chosen), "notes": macro_notes(chosen)})
    sections["method"] = "Methods"
    context = {
        "kind": "Comparison",
        "title": "Two models on the same images",
        "names": names,
        "split": comparison.split,
        "counts": counts_of(comparison),
        "seen": seen_sentences(comparison),
        "verdict": verdict(comparison),
        "others": others(comparison),
        "sections": sections,
        "tables": tables,
        "resamples": comparison.resamples,
        "seed": comparison.seed,
        "alpha": f"{ALPHA:.2f}",
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


def _axis_end(differences: Sequence[Difference]) -> float:
    """The end of an axis around 0 that holds most intervals, so that a few wide ones do not squash the others."""
    reaches = sorted(max(abs(d.low), abs(d.high)) for d in differences if not math.isnan(d.low))
    if not reaches:
        return _ENDS[-1]
    reach = reaches[math.ceil(_SHOWN * len(reaches)) - 1]
    return next((end for end in _ENDS if reach <= end), _ENDS[-1])


def _row(difference: Difference) -> dict[str, Any]:
    """A row of the table."""
    name = figure_name(difference)
    return {
        "name": name[:1].upper() + name[1:],
        "n": n_of(difference),
        "a": difference.a,
        "b": difference.b,
        "estimate": as_json(difference.interval),
        "better": difference.better,
        "primary": difference.primary,
        "p": p_of(difference),
    }
