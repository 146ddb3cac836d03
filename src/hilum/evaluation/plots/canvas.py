"""Size, colors, titles and file formats that all plots share."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hilum.storage import atomic_path, write_text

DPI = 150
BLUE, VERMILION, ORANGE, SKY, BLACK = "#0072B2", "#D55E00", "#E69F00", "#56B4E9", "#000000"
PALETTE = (BLUE, VERMILION, "#009E73", "#CC79A7", ORANGE, SKY, BLACK)
DASHES = ("-", "--", "-.", ":")
SIDE = 4.8
"""Inches of the plots of a report: at 350 px, the width of a phone, their 9 point text is still about 9 px."""

# The same ids every time, and text that needs none of the reader's fonts.
_SVG: dict[Any, Any] = {"svg.hashsalt": "hilum", "svg.fonttype": "path"}


def new_figure(width: float = SIDE, height: float = SIDE) -> Figure:
    """Return an empty figure of this size in inches."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically.

    Raises:
        OutputError: The file cannot be written.
    """
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DPI, format="png")


def save_both(figure: Figure, path: Path) -> str:
    """Write a figure as PNG and SVG beside each other, and return the SVG; equal figures give equal bytes.

    Args:
        figure: The figure.
        path: Path of both files, without a suffix.

    Raises:
        OutputError: A file cannot be written.
    """
    save_png(figure, path.with_name(f"{path.name}.png"))
    text = svg_of(figure)
    write_text(path.with_name(f"{path.name}.svg"), text)
    return text


def svg_of(figure: Figure) -> str:
    """Return a figure as SVG; equal figures give equal text."""
    stream = io.StringIO()
    with rc_context(_SVG):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return re.sub(r"<!DOCTYPE.*?>\n", "", stream.getvalue(), count=1, flags=re.DOTALL)  # names a file on a server


def line_style(position: int) -> dict[str, Any]:
    """Return color and dashes of the k-th curve."""
    return {
        "color": PALETTE[position % len(PALETTE)],
        "linestyle": DASHES[position % len(DASHES)],
        "linewidth": 1.6,
    }


def label_axes(axes: Axes, title: str, abscissa: str, ordinate: str) -> None:
    """Set title, axis labels and a light grid, in the sizes of a report."""
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(abscissa, fontsize=9)
    axes.set_ylabel(ordinate, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(color="0.9", linewidth=0.7)
    axes.set_axisbelow(True)


def title_of(subject: str, subset: str, n: int) -> str:
    """Return a title such as ``Confusion matrix, test split, n = 2,777``."""
    return f"{subject}, {literal(subset)}, n = {n:,}" if subset else f"{subject}, n = {n:,}"


def literal(text: str) -> str:
    """Escape dollar signs, between which matplotlib would read a formula."""
    return text.replace("$", r"\$")


def shorten(line: str, length: int) -> str:
    """Shorten a line to at most ``length`` characters by leaving out its middle."""
    half = length // 2
    return line if len(line) <= length else f"{line[: half - 1]}…{line[-half:]}"
