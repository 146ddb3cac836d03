"""Callbacks by which long work reports its progress; the command line draws bars from them. Silent by default."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hilum.types import Finding

Progress = Callable[[int, int], None]
"""Called with (done, in all)."""


@dataclass(frozen=True)
class Step:
    """Callbacks for the steps of a long command.

    Attributes:
        begin: Called with the title of a long step that begins; returns the Progress to call, or None.
        found: Called with what is wrong with the data's files, so that no file is left out in silence.
        expected: Called before the work with the estimated time in seconds and what it is spent on. None skips the
            estimate, which takes a second or two.
    """

    begin: Callable[[str], Progress | None] = lambda title: None
    found: Callable[[Sequence[Finding]], None] = lambda findings: None
    expected: Callable[[float, str], None] | None = None
