"""What all commands print with."""

from __future__ import annotations

from rich.console import Console

console = Console()


def say(text: str) -> None:
    """Print one line of rich markup. It is never wrapped, so that a path in it can be copied."""
    console.print(text, highlight=False, soft_wrap=True)
