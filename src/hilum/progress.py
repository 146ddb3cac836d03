"""How a long piece of work reports: what the command line draws bars from. Silent by default."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hilum.types import Finding

Progress = Callable[[int, int], None]
"""Called with (done, in all)."""


@dataclass(frozen=True)
class Step:
    """Whom to tell of the steps of a long command.

    Attributes:
        begin: A long step of that title begins; gives the Progress to call, or None.
        found: What is wrong with the data's files. A file that is left out is never left out in silence.
    """

    begin: Callable[[str], Progress | None] = lambda title: None
    found: Callable[[Sequence[Finding]], None] = lambda findings: None
