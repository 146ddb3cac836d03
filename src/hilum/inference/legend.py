"""The legend of an overlay: a panel of text and bars that is as high as its content and never runs off.

Colours are from Okabe and Ito's palette ("Color Universal Design", 2008), told apart under all common kinds of
colour blindness and in grey.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from hilum.types import Prediction

Rgb: TypeAlias = tuple[int, int, int]
Font: TypeAlias = "ImageFont.FreeTypeFont | ImageFont.ImageFont"

DISCLAIMER = "Research tool, not a medical device."
OUTLINE: Rgb = (86, 180, 233)
HEAT: Rgb = (230, 159, 0)
BACKGROUND: Rgb = (20, 22, 26)
PANEL_WIDTH = 360
"""Least width of the legend at scale 1, pixels."""

_TEXT: Rgb = (236, 238, 241)
_MUTED: Rgb = (160, 166, 176)
_TRACK: Rgb = (52, 56, 64)
_LONGEST_NAME = 200


def draw_legend(
    prediction: Prediction, evidence: NDArray[np.float32] | None, width: int, scale: float
) -> NDArray[np.uint8]:
    """The legend of a prediction: (h, width, 3) uint8 RGB, h as its content needs.

    Class names are wrapped, then cut with an ellipsis, by their measured width.

    Args:
        prediction: what is told.
        evidence: (H0, W0) float32, the map drawn over the film, or None: then no word is said of it.
        width: pixels, at least ``PANEL_WIDTH * scale``.
        scale: size of text and spaces; 1 sets class names at 15 px.
    """
    return _draw_rows(_legend_rows(prediction, evidence), width, scale)


@dataclass(frozen=True)
class _Row:
    """One entry of the legend: text on the left, a value on the right, a bar below or a swatch before it."""

    text: str
    value: str = ""
    size: int = 15
    colour: Rgb = _TEXT
    lines: int = 2
    gap: int = 6
    bar: float | None = None
    bar_colour: Rgb = _MUTED
    swatch: Rgb | None = None


def _legend_rows(prediction: Prediction, evidence: NDArray[np.float32] | None) -> list[_Row]:
    best = prediction.class_names.index(prediction.label)
    probabilities = [float(value) for value in prediction.probabilities]
    rows = [_Row(prediction.label, _percent(probabilities[best]), size=25, lines=3, gap=0)]
    if len(prediction.label_set) > 1:
        rows.append(_Row("Not ruled out: " + ", ".join(prediction.label_set), colour=_MUTED, lines=4))
    for index, (name, probability) in enumerate(zip(prediction.class_names, probabilities, strict=True)):
        chosen = index == best
        colour, bar_colour = (_TEXT, HEAT) if chosen else (_MUTED, _MUTED)
        gap = 18 if index == 0 else 8
        value = _percent(probability)
        rows.append(_Row(name, value, colour=colour, gap=gap, bar=probability, bar_colour=bar_colour))
    fraction = f"{prediction.lung_fraction:.1%} of the image"
    rows.append(_Row("Lung", fraction, gap=20, swatch=OUTLINE))
    if evidence is not None:
        found = "Evidence for {}, scaled to peak" if evidence.max() > 0 else "No evidence in favour of {}"
        rows.append(_Row(found.format(prediction.label), swatch=HEAT, lines=3))
    for finding in prediction.findings:
        rows.append(_Row(finding.message, size=13, lines=3))
    rows.append(_Row(f"Bundle {prediction.bundle_id[:12]}", size=13, colour=_MUTED, lines=1, gap=20))
    rows.append(_Row(DISCLAIMER, size=13, colour=_MUTED, gap=2))
    return rows


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
        height = top + pitch * len(lines) + (round(12 * scale) if row.bar is not None else 0)
    panel = Image.new("RGB", (width, height + padding), BACKGROUND)
    draw = ImageDraw.Draw(panel)
    for row, font, indent, lines, top, pitch in layout:
        for index, line in enumerate(lines):
            draw.text((padding + indent, top + index * pitch), line, row.colour, font)
        draw.text((width - padding, top), row.value, row.colour, font, anchor="ra")
        if row.swatch:
            side = round(row.size * scale * 0.8)
            inset = top + (pitch - side) // 2
            draw.rectangle((padding, inset, padding + side, inset + side), row.swatch)
        if row.bar is not None:
            _draw_bar(draw, row, (padding, width - padding), top + pitch * len(lines) + round(3 * scale), scale)
    return np.array(panel, np.uint8)


def _draw_bar(draw: ImageDraw.ImageDraw, row: _Row, span: tuple[int, int], top: int, scale: float) -> None:
    left, right = span
    bottom = top + round(6 * scale)
    draw.rectangle((left, top, right - 1, bottom), _TRACK)
    filled = round((right - left) * min(max(row.bar or 0.0, 0.0), 1.0))
    if filled:
        draw.rectangle((left, top, left + filled - 1, bottom), row.bar_colour)


def _percent(probability: float) -> str:
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
