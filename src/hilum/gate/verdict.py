"""Result types of the input checks: measurements, verdicts and orientation fixes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hilum.types import Finding, Gray, Radiograph, Severity

KINDS = ("frontal", "lateral", "other radiograph", "slice", "collage", "picture")
"""Frontal chest radiograph; lateral view; other body part; CT slice or similar; several or framed images; other."""


FRONTAL, LATERAL, OTHER, SLICE, COLLAGE, PICTURE = range(len(KINDS))


KIND_REASONS = {
    "lateral": "lateral view",
    "other radiograph": "not a chest",
    "slice": "CT slice or other modality",
    "collage": "collage or screenshot",
    "picture": "not a radiograph",
}
"""Reason for refusal by kind."""


TURNS = (0, 90, 180, 270)
"""Possible rotations, degrees clockwise."""


FLAGS = ("inverted", "mirrored", "cropped", "annotated")
"""Further properties of a frontal radiograph."""


ACCEPTED = "accepted"

_Array = TypeVar("_Array", bound=np.generic)


@dataclass(frozen=True)
class Reading:
    """One measurement of an input check and its threshold.

    Attributes:
        check: Name of the check in snake case.
        measured: Description and value of the measurement.
        expected: Description of the threshold.
        passed: Whether the measurement meets the threshold.
        severity: Severity if it does not; ``error`` refuses the image.
        reason: Short description of the failure; the name of the check by default.
        value: The measured number.
    """

    check: str
    measured: str
    expected: str
    passed: bool
    severity: Severity = "error"
    reason: str = ""
    value: float = math.nan

    @classmethod
    def at_least(
        cls, check: str, what: str, value: float, bound: float, severity: Severity = "error", reason: str = ""
    ) -> Reading:
        """Return the measurement of a value that must be at least ``bound``."""
        passed = value >= bound
        return cls(check, f"{what} {value:.4g}", f"at least {bound:.4g}", passed, severity, reason, value)

    @classmethod
    def at_most(
        cls, check: str, what: str, value: float, bound: float, severity: Severity = "error", reason: str = ""
    ) -> Reading:
        """Return the measurement of a value that must be at most ``bound``."""
        passed = value <= bound
        return cls(check, f"{what} {value:.4g}", f"at most {bound:.4g}", passed, severity, reason, value)

    @property
    def words(self) -> str:
        """The reason, or the name of the check with spaces."""
        return self.reason or self.check.replace("_", " ")

    def finding(self, origin: str) -> Finding:
        """Return the finding of a failed measurement."""
        message = f"{self.words}: {self.measured}, expected {self.expected}"
        return Finding(self.check, self.severity, message, (origin,) if origin else ())


@dataclass(frozen=True)
class OrientationFix:
    """A rotation or inversion found by the input check, and its inverse. The two commute.

    Attributes:
        turn: Rotation of the image, 0 to 3 quarter turns clockwise.
        inverted: Whether its gray scale is inverted.
    """

    turn: int = 0
    inverted: bool = False

    def apply(self, radiograph: Radiograph) -> Radiograph:
        """Return the radiograph with rotation and inversion undone."""
        pixels = radiograph.pixels
        if self.inverted:
            pixels = np.subtract((1 << radiograph.bits_stored) - 1, pixels, dtype=pixels.dtype)
        upright: Gray = np.ascontiguousarray(np.rot90(pixels, self.turn))  # type: ignore[assignment]  # rot90 keeps the dtype
        aspect = 1 / radiograph.pixel_aspect if self.turn % 2 else radiograph.pixel_aspect
        return replace(radiograph, pixels=upright, pixel_aspect=aspect)

    def back(self, upright: NDArray[_Array]) -> NDArray[_Array]:
        """Map an array (..., H, W) over the corrected image back to the original image."""
        return np.ascontiguousarray(np.rot90(upright, -self.turn, axes=(-2, -1)))

    def describe(self) -> str:
        """Describe the correction."""
        done = ([f"rotated by {90 * (4 - self.turn)} degrees clockwise"] if self.turn else []) + (
            ["gray scale inverted"] if self.inverted else []
        )
        return " and ".join(done)


@dataclass(frozen=True)
class Verdict:
    """Verdict of an input check on one image.

    Attributes:
        reason: ``accepted``, or a short reason for refusal.
        findings: Findings of the failed measurements; an ``error`` refuses the image.
        readings: All measurements, in order.
        orientation_fix: Correction that would make the image acceptable, or None.
    """

    reason: str
    findings: tuple[Finding, ...] = ()
    readings: tuple[Reading, ...] = ()
    orientation_fix: OrientationFix | None = None

    @classmethod
    def of(cls, readings: tuple[Reading, ...], origin: str, orientation_fix: OrientationFix | None = None) -> Verdict:
        """Return the verdict that follows from measurements; its reason names those that refuse the image, in order."""
        failed = [reading for reading in readings if not reading.passed]
        reason = ", ".join(reading.words for reading in failed if reading.severity == "error")
        return cls(reason or ACCEPTED, tuple(reading.finding(origin) for reading in failed), readings, orientation_fix)

    def followed_by(self, readings: tuple[Reading, ...], origin: str) -> Verdict:
        """Return this verdict extended by the measurements of a later check."""
        later = Verdict.of(readings, origin)
        reasons = [reason for reason in (self.reason, later.reason) if reason != ACCEPTED]
        return Verdict(
            ", ".join(reasons) or ACCEPTED,
            self.findings + later.findings,
            self.readings + readings,
            self.orientation_fix,
        )

    @property
    def accepted(self) -> bool:
        """Whether no finding is an error."""
        return not any(finding.severity == "error" for finding in self.findings)
