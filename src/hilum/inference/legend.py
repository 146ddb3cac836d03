"""Draw the legend of an overlay: a panel of text, probability bars and the evidence scale.

Colors are from the palette of Okabe and Ito ("Color Universal Design", 2008), which is distinguishable with color
vision deficiency and in gray.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import floor, log10
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hilum.inference.contour import BANDS, LEAST_SUM, LEVELS, EvidenceScale, Rgb, on_gray
from hilum.inference.text import Anchor, draw_text, font_of, length, wrapped
from hilum.inference.zones import in_words

if TYPE_CHECKING:  # result.py imports this module at run time
    from hilum.inference.result import Prediction

DISCLAIMER = "Research tool, not a medical device."
OUTLINE: Rgb = (86, 180, 233)
CHOSEN: Rgb = (230, 159, 0)
"""Bar of the predicted class."""
BACKGROUND: Rgb = (20, 22, 26)
NOTICE: Rgb = (120, 30, 30)
"""Band behind the notice of a secondary capture."""
PANEL_WIDTH = 360
"""Minimum width of the legend at scale 1, pixels."""

TEXT: Rgb = (236, 238, 241)
MUTED: Rgb = (160, 166, 176)
TRACK: Rgb = (52, 56, 64)
_EDGES = (0.0, *LEVELS, 1.0)
"""Limits of the bands on the evidence scale, as fractions of the peak."""
_IMAGE_GRAYS = (40, 200)
"""Range of gray levels over which the evidence scale shows its colors."""


def draw_legend(
    prediction: Prediction,
    evidence: EvidenceScale | None,
    width: int,
    scale: float,
    *,
    has_evidence: bool,
    class_name: str | None = None,
) -> NDArray[np.uint8]:
    """Draw the legend of a prediction and return (h, width, 3) uint8 RGB, as high as its content.

    Long class names are wrapped, then truncated with an ellipsis.

    Args:
        prediction: The prediction.
        evidence: Color scale of the drawn evidence, or None if none is drawn.
        width: Width in pixels, at least ``PANEL_WIDTH * scale``.
        scale: Scale of text and spacing; at 1, class names have 15 px.
        has_evidence: Whether the network has evidence; if not, the legend omits it.
        class_name: The class whose evidence is drawn; the predicted class by default.
    """
    zones = prediction.evidence_zones if class_name in (None, prediction.label) else None
    rows = [
        *_answer_rows(prediction),
        *(_evidence_rows(class_name or prediction.label, evidence, zones) if has_evidence else ()),
    ]
    return _draw_rows([*rows, *_closing_rows(prediction)], width, scale)


def draw_notice(text: str, width: int) -> NDArray[np.uint8]:
    """Draw a line of text on a band and return (h, width, 3) uint8 RGB, with letters of at least 8 px."""
    largest = max(22, width // 40)
    size = next((size for size in range(largest, 8, -1) if length(text, size) < 0.96 * width), 8)
    band = Image.new("RGB", (width, 2 * size), NOTICE)
    ImageDraw.Draw(band).text((width // 2, size), text, TEXT, font_of(size), anchor="mm")
    return np.array(band, np.uint8)


@dataclass(frozen=True)
class _Row:
    """One entry of the legend: swatch, text, value at the right, and a bar or scale below."""

    text: str
    value: str = ""
    size: int = 15
    color: Rgb = TEXT
    lines: int = 2
    gap: int = 6
    bar: float | None = None
    bar_color: Rgb = MUTED
    swatch: Rgb | None = None
    scale: EvidenceScale | None = None


def _answer_rows(prediction: Prediction) -> list[_Row]:
    best = prediction.class_names.index(prediction.label)
    probabilities = list(prediction.probabilities.values())
    rows = [_Row(prediction.label, percent(probabilities[best]), size=25, lines=3, gap=0)]
    if len(prediction.prediction_set) > 1:
        rows.append(_Row("Not ruled out: " + ", ".join(prediction.prediction_set), color=MUTED, lines=4))
    for index, (name, probability) in enumerate(zip(prediction.class_names, probabilities, strict=True)):
        chosen = index == best
        color, bar_color = (TEXT, CHOSEN) if chosen else (MUTED, MUTED)
        gap = 18 if index == 0 else 8
        value = percent(probability)
        rows.append(_Row(name, value, color=color, gap=gap, bar=probability, bar_color=bar_color))
    fraction = f"{prediction.lung_fraction:.1%} of the image"
    rows.append(_Row("Lung", fraction, gap=20, swatch=OUTLINE))
    return rows


def _evidence_rows(label: str, evidence: EvidenceScale | None, zones: Mapping[str, float] | None) -> list[_Row]:
    if evidence is None:
        return [_Row(f"No evidence for {label}: less than {LEAST_SUM} logits in favor", color=MUTED, lines=3, gap=10)]
    height, width = evidence.cells
    unit = f"Logits per cell of the network's {height} x {width} map; the scale ends at this image's peak."
    against = f"{evidence.against:.2f} against (not drawn)" if round(evidence.against, 2) else "none against"
    sums = f"Total: {evidence.in_favor:+.2f} in favor, {against}."
    return [
        _Row(f"Evidence for {label}", gap=14, lines=3, scale=evidence),
        *([_Row(in_words(zones), lines=4)] if zones else []),
        _Row(unit, size=13, color=MUTED, lines=3, gap=6),
        _Row(sums, size=13, color=MUTED, lines=3, gap=2),
    ]


def _closing_rows(prediction: Prediction) -> list[_Row]:
    return [
        *(_Row(finding.message, size=13, lines=3) for finding in prediction.findings),
        _Row(f"Bundle {prediction.bundle_id[:12]}", size=13, color=MUTED, lines=1, gap=20),
        _Row(DISCLAIMER, size=13, color=MUTED, gap=2),
    ]


def _draw_rows(rows: Sequence[_Row], width: int, scale: float) -> NDArray[np.uint8]:
    """Draw rows into (h, width, 3) uint8 RGB, as high as the rows."""
    padding = round(20 * scale)
    layout = []
    height = padding
    for row in rows:
        size = round(row.size * scale)
        indent = round(row.size * scale * 1.4) if row.swatch else 0
        taken = length(row.value, size) + padding / 2 if row.value else 0
        lines = wrapped(row.text, size, width - 2 * padding - indent - taken, row.lines)
        top = height + round(row.gap * scale)
        pitch = round(row.size * scale * 1.3)
        layout.append((row, size, indent, lines, top, pitch))
        height = top + pitch * len(lines) + round((12 if row.bar is not None else 38 if row.scale else 0) * scale)
    panel = plain_panel((height + padding, width))
    for row, size, indent, lines, top, pitch in layout:
        for index, line in enumerate(lines):
            draw_text(panel, (padding + indent, top + index * pitch), line, row.color, size, BACKGROUND)
        draw_text(panel, (width - padding, top), row.value, row.color, size, BACKGROUND, anchor="right")
        if row.swatch:
            side = round(row.size * scale * 0.8)
            inset = top + (pitch - side) // 2
            panel[inset : inset + side + 1, padding : padding + side + 1] = row.swatch
        below, span = top + pitch * len(lines), (padding, width - padding)
        if row.bar is not None:
            _draw_bar(panel, row, span, below + round(3 * scale), scale)
        if row.scale:
            _draw_scale(panel, row.scale, span, below + round(4 * scale), scale)
    return panel


def plain_panel(shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Return an image (H, W, 3) uint8 of the legend's background."""
    panel = np.empty((*shape, 3), np.uint8)
    panel[:1] = BACKGROUND
    panel[1:] = panel[:1]  # rows are copied much faster than pixels are filled
    return panel


def _draw_bar(panel: NDArray[np.uint8], row: _Row, span: tuple[int, int], top: int, scale: float) -> None:
    left, right = span
    bottom = top + round(6 * scale)
    panel[top : bottom + 1, left:right] = TRACK
    filled = round((right - left) * min(max(row.bar or 0.0, 0.0), 1.0))
    panel[top : bottom + 1, left : left + filled] = row.bar_color


def _draw_scale(
    panel: NDArray[np.uint8], evidence: EvidenceScale, span: tuple[int, int], top: int, scale: float
) -> None:
    """Draw a bar from 0 to the peak with its bands over dark to bright gray, and the logits at their limits."""
    left, right = span
    colors = _scale_bar(right - left, round(14 * scale), max(1, round(scale)))
    bottom = top + colors.shape[0]
    panel[top:bottom, left:right] = colors
    decimals = min(6, max(0, 1 - floor(log10(evidence.peak * LEVELS[0]))))
    for share in _EDGES:
        text = f"{share * evidence.peak:+.{decimals}f}" if share else "0"
        place = left + round((right - left) * share), bottom + round(4 * scale)
        anchor: Anchor = "left" if share == 0 else "right" if share == 1 else "middle"
        draw_text(panel, place, text, TEXT, round(12 * scale), BACKGROUND, anchor=anchor)


@lru_cache(maxsize=8)
def _scale_bar(width: int, height: int, line: int) -> NDArray[np.uint8]:
    """Return the evidence scale, (height, width, 3), with a line of ``line`` pixels where a band begins."""
    bar = np.empty((height, width, 3), np.uint8)
    places = [round(width * share) for share in _EDGES]
    for band, (start, end) in enumerate(pairwise(places)):
        for row in range(height):
            bar[row, start:end] = on_gray(band, round(np.interp(row, (0, height - 1), _IMAGE_GRAYS)))
    for place, color in zip(places[1:-1], BANDS, strict=True):
        bar[:, place - (line - 1) // 2 : place + line // 2 + 1] = color
    return bar


def percent(probability: float) -> str:
    """Return a percentage with one decimal; values near 0 and 1 are shown as ``< 0.1%`` and ``> 99.9%``."""
    if 0 < probability < 0.001:
        return "< 0.1%"
    if 0.999 < probability < 1:
        return "> 99.9%"
    return f"{probability:.1%}"
