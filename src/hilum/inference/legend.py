"""The legend of an overlay: a panel of text and bars that is as high as its content and never runs off.

Colors are from Okabe and Ito's palette ("Color Universal Design", 2008), told apart under all common kinds of
color blindness and in gray.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import floor, log10
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from hilum.inference.contour import BANDS, LEAST_SUM, LEVELS, EvidenceScale, Rgb, on_gray

if TYPE_CHECKING:  # a result draws itself: at run time it imports this module
    from hilum.inference.result import Prediction

Font: TypeAlias = "ImageFont.FreeTypeFont | ImageFont.ImageFont"

DISCLAIMER = "Research tool, not a medical device."
OUTLINE: Rgb = (86, 180, 233)
CHOSEN: Rgb = (230, 159, 0)
"""The bar of the predicted class."""
BACKGROUND: Rgb = (20, 22, 26)
PANEL_WIDTH = 360
"""Least width of the legend at scale 1, pixels."""

TEXT: Rgb = (236, 238, 241)
MUTED: Rgb = (160, 166, 176)
TRACK: Rgb = (52, 56, 64)
_LONGEST_NAME = 200
_IMAGE_GRAYS = (40, 200)
"""Grays of an image, over which the bar of the evidence shows its colors."""


def draw_legend(
    prediction: Prediction,
    evidence: EvidenceScale | None,
    width: int,
    scale: float,
    *,
    has_evidence: bool,
    class_name: str | None = None,
) -> NDArray[np.uint8]:
    """The legend of a prediction: (h, width, 3) uint8 RGB, h as its content needs.

    Class names are wrapped, then cut with an ellipsis, by their measured width.

    Args:
        prediction: What is told.
        evidence: The scale of what is drawn over the image, or None where nothing is.
        width: Pixels, at least ``PANEL_WIDTH * scale``.
        scale: Size of text and spaces; 1 sets class names at 15 px.
        has_evidence: Whether the network gives evidence; if not, no word is said of it.
        class_name: The class whose evidence it is; the predicted one by default.
    """
    rows = [
        *_answer_rows(prediction),
        *(_evidence_rows(class_name or prediction.label, evidence) if has_evidence else ()),
    ]
    return _draw_rows([*rows, *_closing_rows(prediction)], width, scale)


@dataclass(frozen=True)
class _Row:
    """One entry of the legend: text on the left, a value on the right, a bar or a scale below, a swatch before it."""

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


def _evidence_rows(label: str, evidence: EvidenceScale | None) -> list[_Row]:
    if evidence is None:
        return [_Row(f"No evidence for {label}: under {LEAST_SUM} logit in favor", color=MUTED, lines=3, gap=10)]
    height, width = evidence.cells
    told = f"Logit added per cell of the network's {height} x {width} map; the scale ends at this image's peak."
    against = f"{evidence.against:.2f} against (not drawn)" if round(evidence.against, 2) else "nothing against"
    sums = f"In all {evidence.in_favor:+.2f} in favor, {against}."
    return [
        _Row(f"Evidence for {label}", gap=14, lines=3, scale=evidence),
        _Row(told, size=13, color=MUTED, lines=3, gap=6),
        _Row(sums, size=13, color=MUTED, lines=3, gap=2),
    ]


def _closing_rows(prediction: Prediction) -> list[_Row]:
    return [
        *(_Row(finding.message, size=13, lines=3) for finding in prediction.findings),
        _Row(f"Bundle {prediction.bundle_id[:12]}", size=13, color=MUTED, lines=1, gap=20),
        _Row(DISCLAIMER, size=13, color=MUTED, gap=2),
    ]


def _draw_rows(rows: Sequence[_Row], width: int, scale: float) -> NDArray[np.uint8]:
    """The legend (h, width, 3) uint8 RGB, as high as its rows need; all text is measured before it is drawn."""
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
    """A bar from 0 to the peak: its bands over an image's grays, dark to bright, and the logits where they begin."""
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
    """One decimal, and never a certainty that is not there."""
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
    """The text on one line, with what the font cannot set without its accent or by its code point."""
    single = "".join(char if char.isprintable() else " " for char in text[: _LONGEST_NAME + 1])
    return "".join(_settable(char) for char in " ".join(single.split()))


@lru_cache(maxsize=4096)
def _settable(char: str) -> str:
    """The character, else the same without accents, else its escape (``\\u80ba``): names must stay distinct."""
    plain = "".join(part for part in unicodedata.normalize("NFKD", char) if not unicodedata.combining(part))
    for candidate in (char, plain):
        if candidate and not any(_is_missing(part) for part in candidate):
            return candidate
    return char.encode("unicode_escape").decode()


def _is_missing(char: str) -> bool:
    """Whether the font draws its box for a missing glyph."""
    font = _font(20)
    return char != " " and bytes(font.getmask(char)) == bytes(font.getmask("\uffff"))


def _wrap(text: str, font: Font, width: float, lines: int) -> list[str]:
    """Break the text into at most ``lines`` lines of at most ``width`` pixels; what is left over becomes "…"."""
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
    """How many of the first characters fit into ``width`` pixels, at least 1."""
    return max(1, bisect_right(range(1, len(text) + 1), width, key=lambda count: _length(text[:count], font)))
