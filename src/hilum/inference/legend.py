"""Draw the legend of an overlay: a panel of text, probability bars and the evidence scale.

Colors are from the palette of Okabe and Ito ("Color Universal Design", 2008), which is distinguishable with color
vision deficiency and in gray.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import floor, log10
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from hilum.inference.contour import BANDS, LEAST_SUM, LEVELS, EvidenceScale, Rgb, on_gray
from hilum.inference.zones import in_words

if TYPE_CHECKING:  # result.py imports this module at run time
    from hilum.inference.result import Prediction

Font: TypeAlias = "ImageFont.FreeTypeFont | ImageFont.ImageFont"

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
_LONGEST_NAME = 200
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
    size = next((size for size in range(largest, 8, -1) if _length(text, _font(size)) < 0.96 * width), 8)
    band = Image.new("RGB", (width, 2 * size), NOTICE)
    ImageDraw.Draw(band).text((width // 2, size), text, TEXT, _font(size), anchor="mm")
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
        font = _font(round(row.size * scale))
        indent = round(row.size * scale * 1.4) if row.swatch else 0
        taken = _length(row.value, font) + padding / 2 if row.value else 0
        lines = _wrap(row.text, font, width - 2 * padding - indent - taken, row.lines)
        top = height + round(row.gap * scale)
        pitch = round(row.size * scale * 1.3)
        layout.append((row, font, indent, lines, top, pitch))
        height = top + pitch * len(lines) + round((12 if row.bar is not None else 38 if row.scale else 0) * scale)
    panel = Image.new("RGB", (width, height + padding), BACKGROUND)
    draw = ImageDraw.Draw(panel)
    for row, font, indent, lines, top, pitch in layout:
        for index, line in enumerate(lines):
            draw.text((padding + indent, top + index * pitch), line, row.color, font)
        draw.text((width - padding, top), row.value, row.color, font, anchor="ra")
        if row.swatch:
            side = round(row.size * scale * 0.8)
            inset = top + (pitch - side) // 2
            draw.rectangle((padding, inset, padding + side, inset + side), row.swatch)
        if row.bar is not None:
            _draw_bar(draw, row, (padding, width - padding), top + pitch * len(lines) + round(3 * scale), scale)
        if row.scale:
            _draw_scale(
                panel, row.scale, (padding, width - padding), top + pitch * len(lines) + round(4 * scale), scale
            )
    return np.array(panel, np.uint8)


def _draw_bar(draw: ImageDraw.ImageDraw, row: _Row, span: tuple[int, int], top: int, scale: float) -> None:
    left, right = span
    bottom = top + round(6 * scale)
    draw.rectangle((left, top, right - 1, bottom), TRACK)
    filled = round((right - left) * min(max(row.bar or 0.0, 0.0), 1.0))
    if filled:
        draw.rectangle((left, top, left + filled - 1, bottom), row.bar_color)


def _draw_scale(panel: Image.Image, evidence: EvidenceScale, span: tuple[int, int], top: int, scale: float) -> None:
    """Draw a bar from 0 to the peak with its bands over dark to bright gray, and the logits at their limits."""
    draw = ImageDraw.Draw(panel)
    left, right = span
    bottom = top + round(14 * scale)
    edges = (0.0, *LEVELS, 1.0)
    places = [left + round((right - left) * share) for share in edges]
    for band, (start, end) in enumerate(pairwise(places)):
        for row in range(top, bottom):
            gray = round(np.interp(row, (top, bottom - 1), _IMAGE_GRAYS))
            draw.line((start, row, end - 1, row), on_gray(band, gray))
        if band:
            draw.line((start, top, start, bottom - 1), BANDS[band - 1], max(1, round(scale)))
    font = _font(round(12 * scale))
    decimals = min(6, max(0, 1 - floor(log10(evidence.peak * LEVELS[0]))))
    for share, place in zip(edges, places, strict=True):
        text = f"{share * evidence.peak:+.{decimals}f}" if share else "0"
        anchor = "la" if share == 0 else "ra" if share == 1 else "ma"
        draw.text((place, bottom + round(4 * scale)), text, TEXT, font, anchor=anchor)


def percent(probability: float) -> str:
    """Return a percentage with one decimal; values near 0 and 1 are shown as ``< 0.1%`` and ``> 99.9%``."""
    if 0 < probability < 0.001:
        return "< 0.1%"
    if 0.999 < probability < 1:
        return "> 99.9%"
    return f"{probability:.1%}"


@lru_cache(maxsize=32)
def _font(size: int) -> Font:
    return ImageFont.load_default(size=size)


def _length(text: str, font: Font) -> float:
    return float(font.getlength(text))


def _printable(text: str) -> str:
    """Return the text on one line, with characters that the font lacks replaced; see _settable."""
    single = "".join(char if char.isprintable() else " " for char in text[: _LONGEST_NAME + 1])
    return "".join(_settable(char) for char in " ".join(single.split()))


@lru_cache(maxsize=4096)
def _settable(char: str) -> str:
    r"""Return the character if the font has it, else without accents, else its escape (``\u80ba``)."""
    plain = "".join(part for part in unicodedata.normalize("NFKD", char) if not unicodedata.combining(part))
    for candidate in (char, plain):
        if candidate and not any(_is_missing(part) for part in candidate):
            return candidate
    return char.encode("unicode_escape").decode()


def _is_missing(char: str) -> bool:
    """Return whether the font lacks a glyph."""
    font = _font(20)
    return char != " " and bytes(font.getmask(char)) == bytes(font.getmask("\uffff"))


def _wrap(text: str, font: Font, width: float, lines: int) -> list[str]:
    """Break text into at most ``lines`` lines of at most ``width`` pixels; the rest is replaced by an ellipsis."""
    rest = _printable(text)
    wrapped: list[str] = []
    while rest and len(wrapped) < lines:
        fits = _fitting(rest, font, width)
        if fits < len(rest) and len(wrapped) == lines - 1:
            cut = rest[: _fitting(rest, font, width - _length("…", font))].rstrip()
            return [*wrapped, cut + "…"]
        if fits < len(rest):
            space = max(rest.rfind(" ", 0, fits + 1), rest.rfind("_", 0, fits) + 1)
            fits = space if space > fits // 2 else fits
        wrapped.append(rest[:fits].rstrip())
        rest = rest[fits:].lstrip()
    return wrapped or [""]


def _fitting(text: str, font: Font, width: float) -> int:
    """Return the number of leading characters that fit into ``width`` pixels, at least 1."""
    return max(1, bisect_right(range(1, len(text) + 1), width, key=lambda count: _length(text[:count], font)))
