"""How a value with its interval is written in the tables."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any


def row(name: str, entry: dict[str, Any]) -> str:
    """A line of value, interval and n."""
    return f"| {name} | {entry['value']:.3f} | {bounds(entry)} | {entry['n']:,} |"


def bounds(entry: dict[str, Any], digits: int = 3) -> str:
    """An interval."""
    return "too few groups" if entry["low"] is None else f"{entry['low']:.{digits}f}–{entry['high']:.{digits}f}"


def cell(entry: dict[str, Any] | None, digits: int = 3) -> str:
    """A value with its interval; empty where there is none."""
    if entry is None or entry["value"] is None:
        return ""
    join = " to " if entry["low"] is not None and entry["low"] < 0 else "–"
    spread = "too few groups" if entry["low"] is None else f"{entry['low']:.{digits}f}{join}{entry['high']:.{digits}f}"
    return f"{entry['value']:.{digits}f} ({spread})".replace("-", "−")


def origin(result: dict[str, Any]) -> str:
    """The command and the split that the figures are of."""
    return f"`{result['command']}`, split {result['split']['digest'][:12]}."


def span(values: Sequence[float], digits: int) -> str:
    """The median and the range of some rounds."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"
