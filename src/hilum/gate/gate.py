"""Input checks: each gives a verdict on a decoded radiograph, and may check the output of the network, too."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hilum.gate.checks import CHECKS, Thresholds, check_minimum_side
from hilum.gate.verdict import ACCEPTED, Reading, Verdict
from hilum.imaging.preprocess import to_uint8
from hilum.types import Radiograph

_MEASURABLE_SIDE = 16
"""Below this shorter side, in pixels, texture and edges mean nothing and only the size is reported."""


class Gate(Protocol):
    """What every gate offers; the predictor, the folder walk and the service ask for no more."""

    @property
    def name(self) -> str:
        """How the gate is called in reports and in the bundle."""

    def __call__(self, radiograph: Radiograph) -> Verdict:
        """The verdict on the image, before the network sees it."""

    def check_output(self, lung: NDArray[np.bool_], features: NDArray[np.float32] | None) -> tuple[Reading, ...]:
        """What the network's answer says against it.

        Args:
            lung: (h, w), the lung mask at the network's size, without padding.
            features: (F,), the network's pooled features, where it gives them.
        """


@dataclass(frozen=True)
class ClassicGate:
    """The nine checks of the original project. All failures are reported, not only the first."""

    thresholds: Thresholds = field(default_factory=Thresholds)
    name: str = "classic"

    def __call__(self, radiograph: Radiograph) -> Verdict:
        """Findings of severity ``error`` in the order of ``checks.CHECKS``; none for an accepted image.

        A radiograph whose shorter side is under 16 px gets the finding on its size alone.
        """
        too_small = check_minimum_side(radiograph, self.thresholds)
        if too_small and min(radiograph.shape) < _MEASURABLE_SIDE:
            return Verdict("minimum side", (too_small,))
        # Quantized once: to_uint8 hands 8-bit pixels back as they are, so that the checks share this array.
        gray = replace(radiograph, pixels=to_uint8(radiograph), bits_stored=8)
        findings = tuple(found for check in CHECKS if (found := check(gray, self.thresholds)) is not None)
        reason = ", ".join(finding.check.replace("_", " ") for finding in findings)
        return Verdict(reason or ACCEPTED, findings)

    def check_output(self, lung: NDArray[np.bool_], features: NDArray[np.float32] | None) -> tuple[Reading, ...]:
        """Nothing: the original had no second stage."""
        return ()


@dataclass(frozen=True)
class NoGate:
    """Accepts everything: ``--gate none``."""

    name: str = "none"

    def __call__(self, radiograph: Radiograph) -> Verdict:
        """Always accepted."""
        return Verdict(ACCEPTED)

    def check_output(self, lung: NDArray[np.bool_], features: NDArray[np.float32] | None) -> tuple[Reading, ...]:
        """Always nothing."""
        return ()
