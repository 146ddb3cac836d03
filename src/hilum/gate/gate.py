"""The interface of input checks, and the two without a network: ClassicGate and NoGate.

The learned gate is in hilum.gate.learned.
"""

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
"""Pixels. If the shorter side is below this, only the size is checked."""


class Gate(Protocol):
    """Interface of an input check."""

    @property
    def name(self) -> str:
        """Name of the gate in reports and bundles."""

    def __call__(self, radiograph: Radiograph) -> Verdict:
        """Return the verdict on an image before inference."""

    def check_output(self, lung: NDArray[np.bool_], features: NDArray[np.float32] | None) -> tuple[Reading, ...]:
        """Return the measurements of the post-inference check.

        Args:
            lung: (h, w) bool, lung mask at the network's resolution, without padding.
            features: (F,) float32, pooled features of the network, or None.
        """


@dataclass(frozen=True)
class ClassicGate:
    """Input check with the nine rules of the original project. Reports all failures, not only the first."""

    thresholds: Thresholds = field(default_factory=Thresholds)
    name: str = "classic"

    def __call__(self, radiograph: Radiograph) -> Verdict:
        """Return a verdict with an ``error`` finding for each failed check, in the order of ``checks.CHECKS``.

        If the shorter side is under 16 px, only the size is checked.
        """
        too_small = check_minimum_side(radiograph, self.thresholds)
        if too_small and min(radiograph.shape) < _MEASURABLE_SIDE:
            return Verdict("minimum side", (too_small,))
        # Quantized once; to_uint8 returns 8-bit pixels unchanged, so all checks share this array.
        gray = replace(radiograph, pixels=to_uint8(radiograph), bits_stored=8)
        findings = tuple(found for check in CHECKS if (found := check(gray, self.thresholds)) is not None)
        reason = ", ".join(finding.check.replace("_", " ") for finding in findings)
        return Verdict(reason or ACCEPTED, findings)

    def check_output(self, lung: NDArray[np.bool_], features: NDArray[np.float32] | None) -> tuple[Reading, ...]:
        """Return no measurements: the original project has no post-inference check."""
        return ()


@dataclass(frozen=True)
class NoGate:
    """Input check that accepts every image (``--gate none``)."""

    name: str = "none"

    def __call__(self, radiograph: Radiograph) -> Verdict:
        """Return an accepting verdict."""
        return Verdict(ACCEPTED)

    def check_output(self, lung: NDArray[np.bool_], features: NDArray[np.float32] | None) -> tuple[Reading, ...]:
        """Return no measurements."""
        return ()
