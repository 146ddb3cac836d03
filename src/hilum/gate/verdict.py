"""The verdict of an input check on one image, the measurements behind it, and the fix of a wrong orientation."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hilum.types import Finding, Gray, Radiograph, Severity

KINDS = ("frontal", "lateral", "other radiograph", "slice", "collage", "picture")
"""Frontal chest radiograph; lateral view; another body part; CT and the like; several or framed images; all else."""


FRONTAL, LATERAL, OTHER, SLICE, COLLAGE, PICTURE = range(len(KINDS))


KIND_REASONS = {
    "lateral": "lateral view",
    "other radiograph": "not a chest",
    "slice": "CT slice or other modality",
    "collage": "collage or screenshot",
    "picture": "not a radiograph",
}
"""Why an image of each other kind is refused."""


TURNS = (0, 90, 180, 270)
"""Degrees clockwise that an image may have been turned by."""


FLAGS = ("inverted", "mirrored", "cropped", "annotated")
"""What else may be true of a frontal image."""


ACCEPTED = "accepted"

_Array = TypeVar("_Array", bound=np.generic)


@dataclass(frozen=True)
class Reading:
    """One measurement against its bound.

    Attributes:
        check: The name of the check, in snake case.
        measured: The value, with what it is.
        expected: The bound.
        passed: Whether it is kept.
        severity: What it means where it is not: ``error`` refuses.
        reason: What is then said of the image, in a few words; the check's name by default.
        value: The measured number alone.
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
        """Of a value that has to reach its bound."""
        passed = value >= bound
        return cls(check, f"{what} {value:.4g}", f"at least {bound:.4g}", passed, severity, reason, value)

    @classmethod
    def at_most(
        cls, check: str, what: str, value: float, bound: float, severity: Severity = "error", reason: str = ""
    ) -> Reading:
        """Of a value that must not pass its bound."""
        passed = value <= bound
        return cls(check, f"{what} {value:.4g}", f"at most {bound:.4g}", passed, severity, reason, value)

    @property
    def words(self) -> str:
        """The reason, in words."""
        return self.reason or self.check.replace("_", " ")

    def finding(self, origin: str) -> Finding:
        """What is said of a reading that did not pass."""
        message = f"{self.words}: {self.measured}, expected {self.expected}"
        return Finding(self.check, self.severity, message, (origin,) if origin else ())


@dataclass(frozen=True)
class OrientationFix:
    """A rotation or inversion found by the input check, and its inverse. The two commute.

    Attributes:
        turn: Quarter turns clockwise that it has been turned by, 0 to 3.
        inverted: Whether its gray scale is inverted.
    """

    turn: int = 0
    inverted: bool = False

    def apply(self, radiograph: Radiograph) -> Radiograph:
        """Undo the rotation and the inversion."""
        pixels = radiograph.pixels
        if self.inverted:
            pixels = np.subtract((1 << radiograph.bits_stored) - 1, pixels, dtype=pixels.dtype)
        upright: Gray = np.ascontiguousarray(np.rot90(pixels, self.turn))  # type: ignore[assignment]  # rot90 keeps the dtype
        return replace(radiograph, pixels=upright)

    def back(self, upright: NDArray[_Array]) -> NDArray[_Array]:
        """Map an array (..., H, W) on the fixed image back to the image as the file has it."""
        return np.ascontiguousarray(np.rot90(upright, -self.turn, axes=(-2, -1)))

    def describe(self) -> str:
        """What was done, in words."""
        done = ([f"turned by {90 * (4 - self.turn)} degrees clockwise"] if self.turn else []) + (
            ["gray scale inverted"] if self.inverted else []
        )
        return " and ".join(done)


@dataclass(frozen=True)
class Verdict:
    """What a gate says of one image.

    Attributes:
        reason: ``accepted``, or in a few words why not.
        findings: All that speaks against it; an ``error`` among them refuses it.
        readings: Every measurement, in the order in which they were taken.
        orientation_fix: The fix of a wrong orientation, where that would suffice; else None.
    """

    reason: str
    findings: tuple[Finding, ...] = ()
    readings: tuple[Reading, ...] = ()
    orientation_fix: OrientationFix | None = None

    @classmethod
    def of(cls, readings: tuple[Reading, ...], origin: str, orientation_fix: OrientationFix | None = None) -> Verdict:
        """The verdict that follows from readings; its reason names those that refuse, in their order."""
        failed = [reading for reading in readings if not reading.passed]
        reason = ", ".join(reading.words for reading in failed if reading.severity == "error")
        return cls(reason or ACCEPTED, tuple(reading.finding(origin) for reading in failed), readings, orientation_fix)

    def followed_by(self, readings: tuple[Reading, ...], origin: str) -> Verdict:
        """This verdict with those of a later stage."""
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
