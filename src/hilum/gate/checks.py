"""The nine input checks of the original project, one function each.

They measure brightness, contrast and texture with fixed thresholds and do not consider anatomy. Measurements and
thresholds are those of the original, so a file gets the same verdict. All use 8-bit gray levels
(``hilum.imaging.preprocess.to_uint8``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from hilum.imaging.preprocess import to_uint8
from hilum.types import Finding, Radiograph

_WINDOW = (8, 8)
_CANNY = (30, 100)
_HORIZONTAL_RUN = np.ones((1, 5), np.uint8)


class Thresholds(BaseModel):
    """Thresholds of the nine checks; a value equal to its threshold passes. Gray levels are 8-bit, 0 to 255."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    minimum_side: int = Field(default=256, ge=1, description="Minimum length of the shorter side, pixels.")
    color_difference: float = Field(
        default=8.0, ge=0, description="Maximum mean absolute difference between two color channels, gray levels."
    )
    brightness_low: float = Field(default=20.0, ge=0, le=255, description="Minimum mean, gray levels.")
    brightness_high: float = Field(default=240.0, ge=0, le=255, description="Maximum mean, gray levels.")
    contrast: float = Field(default=8.0, ge=0, description="Minimum standard deviation of the image, gray levels.")
    local_detail: float = Field(
        default=20.0, ge=0, description="Minimum mean variance in 8 x 8 windows, squared gray levels."
    )
    entropy: float = Field(
        default=3.0, ge=0, le=8, description="Minimum Shannon entropy of the histogram, bits (at most 8)."
    )
    rib_edges: float = Field(
        default=0.0005,
        ge=0,
        le=1,
        description="Minimum fraction of pixels on horizontal edge runs of 5 pixels, in [0, 1].",
    )
    tail_share: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Minimum fraction of pixels below the 25th and above the 75th percentile, in [0, 1].",
    )
    gray_levels: int = Field(default=50, ge=1, le=256, description="Minimum number of different gray levels.")


Check: TypeAlias = Callable[[Radiograph, Thresholds], "Finding | None"]


def check_minimum_side(radiograph: Radiograph, thresholds: Thresholds) -> Finding | None:
    """Check the length of the shorter side; return a finding if it is too short."""
    height, width = radiograph.shape
    if min(height, width) >= thresholds.minimum_side:
        return None
    measured = f"shorter side {min(height, width)} px ({width} x {height})"
    return _error(radiograph, "minimum_side", measured, f"at least {thresholds.minimum_side} px")


def check_grayness(radiograph: Radiograph, thresholds: Thresholds) -> Finding | None:
    """Check the difference between the color channels; return a finding if it is too large."""
    difference = radiograph.color_difference
    if difference <= thresholds.color_difference:
        return None
    measured = f"mean difference between color channels {difference:.4g}"
    return _error(radiograph, "grayness", measured, f"at most {thresholds.color_difference:g}")


def check_brightness(radiograph: Radiograph, thresholds: Thresholds) -> Finding | None:
    """Check the mean gray level; return a finding if it is too dark or too bright."""
    low, high = thresholds.brightness_low, thresholds.brightness_high
    mean = float(np.mean(to_uint8(radiograph)))
    if low <= mean <= high:
        return None
    return _error(radiograph, "brightness", f"mean {mean:.4g}", f"{low:g} to {high:g}")


def check_contrast(radiograph: Radiograph, thresholds: Thresholds) -> Finding | None:
    """Check the standard deviation of the gray levels; return a finding if it is too small."""
    spread = float(np.std(to_uint8(radiograph)))
    if spread >= thresholds.contrast:
        return None
    return _error(radiograph, "contrast", f"standard deviation {spread:.4g}", f"at least {thresholds.contrast:g}")


def check_local_detail(radiograph: Radiograph, thresholds: Thresholds) -> Finding | None:
    """Check the mean variance within 8 x 8 windows; return a finding if it is too small."""
    gray = to_uint8(radiograph).astype(np.float32)
    detail = float(np.mean(cv2.blur((gray - cv2.blur(gray, _WINDOW)) ** 2, _WINDOW)))
    if detail >= thresholds.local_detail:
        return None
    bound = f"at least {thresholds.local_detail:g}"
    return _error(radiograph, "local_detail", f"mean variance in 8 x 8 windows {detail:.4g}", bound)


def check_entropy(radiograph: Radiograph, thresholds: Thresholds) -> Finding | None:
    """Check the Shannon entropy of the histogram; return a finding if it is too small."""
    counts = _histogram(radiograph)
    shares = counts[counts > 0] / counts.sum()
    entropy = abs(float(np.sum(shares * np.log2(shares))))
    if entropy >= thresholds.entropy:
        return None
    return _error(radiograph, "entropy", f"histogram {entropy:.4g} bits", f"at least {thresholds.entropy:g}")


def check_rib_edges(radiograph: Radiograph, thresholds: Thresholds) -> Finding | None:
    """Check for horizontal edges such as ribs: Canny edges after an opening with a run of 5 pixels."""
    edges = cv2.Canny(to_uint8(radiograph), *_CANNY)
    runs = cv2.morphologyEx(edges, cv2.MORPH_OPEN, _HORIZONTAL_RUN)
    share = float(np.count_nonzero(runs)) / runs.size
    if share >= thresholds.rib_edges:
        return None
    bound = f"at least {thresholds.rib_edges:.4g}"
    return _error(radiograph, "rib_edges", f"share of pixels on horizontal edges {share:.4g}", bound)


def check_dark_bright_balance(radiograph: Radiograph, thresholds: Thresholds) -> Finding | None:
    """Check the fractions of pixels below the first and above the third quartile, which a flat border reduces."""
    gray = to_uint8(radiograph)
    first, third = np.percentile(gray, (25, 75))
    dark, bright = float(np.mean(gray < first)), float(np.mean(gray > third))
    if min(dark, bright) >= thresholds.tail_share:
        return None
    measured = f"share of pixels below the first quartile {dark:.4g}, above the third {bright:.4g}"
    return _error(radiograph, "dark_bright_balance", measured, f"both at least {thresholds.tail_share:g}")


def check_gray_levels(radiograph: Radiograph, thresholds: Thresholds) -> Finding | None:
    """Check the number of different gray levels; return a finding if there are too few."""
    levels = int(np.count_nonzero(_histogram(radiograph)))
    if levels >= thresholds.gray_levels:
        return None
    return _error(radiograph, "gray_levels", f"{levels} different", f"at least {thresholds.gray_levels}")


CHECKS: tuple[Check, ...] = (
    check_minimum_side,
    check_grayness,
    check_brightness,
    check_contrast,
    check_local_detail,
    check_entropy,
    check_rib_edges,
    check_dark_bright_balance,
    check_gray_levels,
)
"""All nine checks in the order of the original, which stopped at the first failure."""


def _histogram(radiograph: Radiograph) -> NDArray[np.intp]:
    """Return the number of pixels at each 8-bit gray level, (256,)."""
    return np.bincount(to_uint8(radiograph).ravel(), minlength=256)


def _error(radiograph: Radiograph, check: str, measured: str, expected: str) -> Finding:
    message = f"{check.replace('_', ' ')}: {measured}, expected {expected}"
    return Finding(check, "error", message, (radiograph.origin,) if radiograph.origin else ())
