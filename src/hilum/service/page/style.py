"""Colors of the page, from the overlay's legend, so that screen and saved picture agree; and what Streamlit wears."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from hilum.inference.contour import Rgb
from hilum.inference.legend import BACKGROUND, CHOSEN, MUTED, OUTLINE, TEXT, TRACK

PAGE: Rgb = (10, 11, 13)
"""Behind everything, darker than any image's margin needs."""
UNSURE: Rgb = (240, 228, 66)
REFUSED: Rgb = (255, 138, 76)
"""Okabe and Ito's yellow, and their vermilion lightened for text: there is always a word beside the color."""

_ASSETS = Path(__file__).with_name("assets")
_COLORS: dict[str, Rgb] = {
    "page": PAGE,
    "panel": BACKGROUND,
    "text": TEXT,
    "muted": MUTED,
    "track": TRACK,
    "outline": OUTLINE,
    "chosen": CHOSEN,
    "unsure": UNSURE,
    "refused": REFUSED,
}


def theme_options() -> dict[str, str]:
    """Streamlit's theme by the names of its flags: dark, whatever the browser prefers."""
    return {
        "theme_base": "dark",
        "theme_primaryColor": _hex(OUTLINE),
        "theme_backgroundColor": _hex(PAGE),
        "theme_secondaryBackgroundColor": _hex(BACKGROUND),
        "theme_textColor": _hex(TEXT),
    }


@lru_cache(maxsize=1)
def page_css() -> str:
    """The styles of the page around the components, with the colors as variables that these inherit."""
    colors = "".join(f"--h-{name}:{_hex(color)};" for name, color in _COLORS.items())
    return f":root{{{colors}}}\n{asset('page.css')}"


def asset(name: str) -> str:
    """A file of what runs in the browser."""
    return (_ASSETS / name).read_text(encoding="utf-8")


def _hex(color: Rgb) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
