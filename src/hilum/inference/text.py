"""Measure, wrap and draw text on images. Words are rasterized once, since drawings repeat most of theirs."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFont

from hilum.inference.contour import Rgb

Font: TypeAlias = "ImageFont.FreeTypeFont | ImageFont.ImageFont"
Anchor: TypeAlias = Literal["left", "middle", "right"]

LONGEST_TEXT = 200
"""Characters of a text that are drawn at most."""


class _Word(NamedTuple):
    """A rasterized word: its pixels, their place relative to the start and top of the line, and its width."""

    pixels: NDArray[np.uint8]  # (h, w, 3)
    top: int
    left: int
    advance: int


@lru_cache(maxsize=32)
def font_of(size: int) -> Font:
    """Return the font at a size in pixels."""
    return ImageFont.load_default(size=size)


def length(text: str, size: int) -> int:
    """Return the width of a text in pixels. The font has no kerning, so that widths of characters add up."""
    return sum(_advance(char, size) for char in text)


def draw_text(
    image: NDArray[np.uint8],
    place: tuple[int, int],
    text: str,
    color: Rgb,
    size: int,
    background: Rgb,
    *,
    anchor: Anchor = "left",
) -> None:
    """Draw one line of text, lighter than its background, into an image (H, W, 3) uint8; what is beyond is cut off.

    Args:
        image: The image, changed in place.
        place: (x, y) in pixels: the start, middle or end of the text as ``anchor`` says, and the top of the line.
        text: The text.
        color: RGB, no channel darker than in ``background``.
        size: Size of the font, pixels.
        background: RGB of the image around the text.
        anchor: What of the text is at x.
    """
    x, y = place
    words = [_word(word, size, color, background) for word in text.split(" ")]
    space = _advance(" ", size)
    width = sum(word.advance for word in words) + space * (len(words) - 1)
    x -= {"left": 0, "middle": round(width / 2), "right": width}[anchor]
    for word in words:
        height, columns = word.pixels.shape[:2]
        top, left = y + word.top, x + word.left
        under = image[max(0, top) : top + height, max(0, left) : left + columns]
        drawn = word.pixels[max(0, -top) :, max(0, -left) :][: under.shape[0], : under.shape[1]]
        np.maximum(under, drawn, out=under)
        x += word.advance + space


@lru_cache(maxsize=1024)
def wrapped(text: str, size: int, width: float, lines: int) -> tuple[str, ...]:
    """Break text into at most ``lines`` lines of at most ``width`` pixels; the rest is replaced by an ellipsis."""
    rest = printable(text)
    done: list[str] = []
    while rest and len(done) < lines:
        fits = _fitting(rest, size, width)
        if fits < len(rest) and len(done) == lines - 1:
            cut = rest[: _fitting(rest, size, width - length("…", size))].rstrip()
            return (*done, cut + "…")
        if fits < len(rest):
            space = max(rest.rfind(" ", 0, fits + 1), rest.rfind("_", 0, fits) + 1)
            fits = space if space > fits // 2 else fits
        done.append(rest[:fits].rstrip())
        rest = rest[fits:].lstrip()
    return tuple(done) or ("",)


def printable(text: str) -> str:
    """Return the text on one line, with characters that the font lacks replaced; see _settable."""
    single = "".join(char if char.isprintable() else " " for char in text[: LONGEST_TEXT + 1])
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
    font = font_of(20)
    return char != " " and bytes(font.getmask(char)) == bytes(font.getmask("\uffff"))


@lru_cache(maxsize=4096)
def _advance(char: str, size: int) -> int:
    return round(font_of(size).getlength(char))


@lru_cache(maxsize=4096)
def _word(word: str, size: int, color: Rgb, background: Rgb) -> _Word:
    font = font_of(size)
    mask, (left, top) = font.getmask2(word, mode="L", anchor="la")  # type: ignore[union-attr]  # Pillow with FreeType
    opacity = np.asarray(mask, np.float32).reshape(mask.size[1], mask.size[0], 1) / np.float32(255)
    under = np.asarray(background, np.float32)
    pixels = np.rint(under + (np.asarray(color, np.float32) - under) * opacity)
    return _Word(pixels.astype(np.uint8), top, left, length(word, size))


def _fitting(text: str, size: int, width: float) -> int:
    """Return the number of leading characters that fit into ``width`` pixels, at least 1."""
    return max(1, bisect_right([*accumulate(_advance(char, size) for char in text)], width))
