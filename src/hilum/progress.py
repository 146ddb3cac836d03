"""Progress callbacks of long operations. The display is in hilum.cli.progress; the default is silent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hilum.types import Finding

Progress = Callable[[int, int], None]
"""Progress callback, called with (done, total)."""


@dataclass(frozen=True)
class Step:
    """Callbacks for the steps of a long command.

    Attributes:
        begin: Called with the title of a step when it begins; returns its progress callback, or None.
        found: Called with the findings of a step, such as files that are left out.
        expected: Called before the work with the estimated time in seconds and what it is spent on. None skips the
            estimate, which takes a second or two.
    """

    begin: Callable[[str], Progress | None] = lambda title: None
    found: Callable[[Sequence[Finding]], None] = lambda findings: None
    expected: Callable[[float, str], None] | None = None
