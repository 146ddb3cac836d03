"""Consoles and printing helpers shared by all commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.table import Table

    from hilum.bundle.bundle import Manifest
    from hilum.types import Finding

console = Console()
errors = Console(stderr=True)


def say(text: str, to: Console = console) -> None:
    r"""Print one line of rich markup without wrapping, so that a path in it can be copied.

    Bytes of a file name that are not valid Unicode are printed as ``\udcNN``, as in the tables.
    """
    to.print(text.encode("utf-8", "backslashreplace").decode(), highlight=False, soft_wrap=True)


COLORS = {"error": "red", "warning": "yellow", "info": "dim"}
"""Color of each severity."""


def show_findings(findings: Iterable[Finding], to: Console = console) -> None:
    """Print findings, one per line; errors are red, warnings yellow."""
    for finding in findings:
        color = COLORS[finding.severity]
        say(f"[{color}]{finding.severity}[/] {finding.check}: {escape(finding.message)}", to)


def images_table(images: int, manifest: Manifest, statuses: Mapping[str, int], labels: Mapping[str, int]) -> Table:
    """Return a table of the number of images per status and, for predictions, per class."""
    from rich.table import Table

    table = Table("status", "images", title=f"{images:,} images, bundle {manifest.bundle_id[:12]}")
    for status, count in sorted(statuses.items()):
        table.add_row(status, f"{count:,}")
        if status == "ok":
            for label in manifest.class_names:
                table.add_row(f"  {escape(label)}", f"{labels.get(label, 0):,}")
    return table
