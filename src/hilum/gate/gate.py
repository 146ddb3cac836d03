"""Gates: each takes a decoded radiograph and returns its findings; one ``error`` among them refuses the file."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

from hilum.gate.checks import CHECKS, Thresholds, check_minimum_side
from hilum.preprocess import to_uint8
from hilum.types import Finding, Radiograph

_MEASURABLE_SIDE = 16
"""Below this shorter side, in pixels, texture and edges mean nothing and only the size is reported."""


class Gate(Protocol):
    """What every gate offers; the predictor, the folder walk and the service ask for no more."""

    @property
    def name(self) -> str:
        """How the gate is called in reports and in the bundle."""

    def __call__(self, radiograph: Radiograph) -> tuple[Finding, ...]:
        """All that speaks against the image; empty when nothing does."""


@dataclass(frozen=True)
class ClassicGate:
    """The nine checks of the original project. All failures are reported, not only the first."""

    thresholds: Thresholds = field(default_factory=Thresholds)
    name: str = "classic"

    def __call__(self, radiograph: Radiograph) -> tuple[Finding, ...]:
        """Findings of severity ``error`` in the order of ``checks.CHECKS``; empty for an accepted image.

        A radiograph whose shorter side is under 16 px gets the finding on its size alone.
        """
        too_small = check_minimum_side(radiograph, self.thresholds)
        if too_small and min(radiograph.shape) < _MEASURABLE_SIDE:
            return (too_small,)
        # Quantised once: to_uint8 hands 8-bit pixels back as they are, so that the checks share this array.
        grey = replace(radiograph, pixels=to_uint8(radiograph), bits_stored=8)
        findings = (check(grey, self.thresholds) for check in CHECKS)
        return tuple(finding for finding in findings if finding is not None)


@dataclass(frozen=True)
class OpenGate:
    """Accepts everything: the gate of ``--no-gate``."""

    name: str = "open"

    def __call__(self, radiograph: Radiograph) -> tuple[Finding, ...]:
        """Always empty."""
        return ()
