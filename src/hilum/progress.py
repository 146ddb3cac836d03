"""Progress callbacks of long operations. The display is in hilum.cli.progress; the default is silent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hilum.types import Finding

Progress = Callable[[int, int], None]
"""Progress callback, called with (done, total)."""


@dataclass(frozen=True)
class Step:
    """Callbacks for the steps of a long operation.

    Attributes:
        begin: Called with the title of a step when it begins; returns the step's progress callback, or None.
        found: Called with the findings of a step, such as files that are left out.
    """

    begin: Callable[[str], Progress | None] = lambda title: None
    found: Callable[[Sequence[Finding]], None] = lambda findings: None
