"""What all commands print with."""

from __future__ import annotations

from rich.console import Console

console = Console()
