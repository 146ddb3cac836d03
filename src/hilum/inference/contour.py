"""Draw evidence over an image as filled contours at three levels, with a scale in logits.

Colors are from matplotlib's perceptually uniform colormap "inferno" (Smith & van der Walt 2015), which is safe for
color vision deficiency; lighter means more evidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

if TYPE_CHECKING:  # result.py imports this module at run time
    from hilum.inference.result import Prediction


Rgb: TypeAlias = tuple[int, int, int]

LEVELS = (0.25, 0.5, 0.75)
"""Lower limits of the bands, as fractions of the peak. Nothing is drawn below the first."""
BANDS: tuple[Rgb, ...] = ((187, 55, 84), (243, 120, 25), (246, 215, 70))
"""Color of each band, weakest first."""
LEAST_SUM = 0.1
"""Logits. Evidence is not drawn if all of it in favor sums to less, which changes the odds by about 10% at most."""

OPACITY = (0.26, 0.30, 0.34)
"""Opacity of each band over the image."""
FRACTION_BITS = 4
"""Fraction bits of the fixed-point coordinates passed to OpenCV."""
_REACH = 2
"""Neighbors on each side over which a line is averaged."""
_DEVIATION = 0.35
"""Largest distance in pixels from a smoothed line to the one that is drawn (Douglas & Peucker 1973)."""


@dataclass(frozen=True)
class EvidenceScale:
    """Color scale of one image. All values are logits of one class, before temperature scaling.

    Attributes:
        peak: End of the scale, above 0: the largest value of the map that is drawn, per cell of the evidence map.
        cells: (h, w) of the evidence map, whose cells tile the network's square input.
        in_favor: Sum of all positive contributions; together with ``against``, it is the logit minus its bias.
        against: Sum of all negative contributions, at most 0.
    """

    peak: float
    cells: tuple[int, int]
    in_favor: float
    against: float


def evidence_scale(
    prediction: Prediction, evidence: NDArray[np.float32] | None, class_name: str | None = None
) -> EvidenceScale | None:
    """Return the color scale of an image, or None if nothing is drawn: no evidence, or less than LEAST_SUM in favor.

    The scale ends at the peak of the image itself, since the contribution of a cell depends on the resolution of the
    map and the extent of a finding. Colors compare locations within an image; compare images by the numbers.

    Args:
        prediction: The prediction with its ``evidence``.
        evidence: (H0, W0) float32, the evidence for the class at the image's size, from class_evidence.
        class_name: The class; the predicted class by default.
    """
    if evidence is None or prediction.evidence is None:
        return None
    cells = prediction.evidence[prediction.class_names.index(class_name or prediction.label)]
    in_favor, against = float(cells[cells > 0].sum()), float(cells[cells < 0].sum())
    peak = float(evidence.max())
    if in_favor < LEAST_SUM or peak <= 0:
        return None
    return EvidenceScale(peak, (cells.shape[0], cells.shape[1]), in_favor, against)


def evidence_region(prediction: Prediction, evidence: NDArray[np.float32] | None) -> NDArray[np.bool_] | None:
    """Return the region in which evidence is drawn, (H0, W0) bool; None if none is drawn (see evidence_scale)."""
    scale = evidence_scale(prediction, evidence)
    return None if scale is None or evidence is None else evidence >= np.float32(LEVELS[0] * scale.peak)


def fill_contours(
    gray: NDArray[np.uint8], evidence: NDArray[np.float32], peak: float, thickness: int
) -> NDArray[np.uint8]:
    """Draw evidence over an image as filled contours with a line around each level.

    Args:
        gray: (H, W) uint8, the displayed image.
        evidence: (h, w) float32, for the same image at a smaller size.
        peak: End of the color scale, above 0.
        thickness: Width of the lines, pixels.

    Returns:
        (H, W, 3) uint8 RGB, unchanged gray where the evidence is below the first level.
    """
    shape = (gray.shape[0], gray.shape[1])
    image = np.asarray(cv2.merge([gray, gray, gray]), np.uint8)  # (H, W, 3)
    beyond = thickness + 2  # no line is drawn along the edge
    levels = [region_lines(evidence >= np.float32(level * peak), shape, beyond=beyond) for level in LEVELS]
    for band, lines in enumerate(levels, start=1):
        inside = np.zeros(shape, np.uint8)
        cv2.fillPoly(inside, lines, 1, cv2.LINE_8, FRACTION_BITS)
        left, top, columns, rows = cv2.boundingRect(inside)
        if not columns:  # not reached, or only by a point at the edge
            continue
        place = np.s_[top : top + rows, left : left + columns]
        level = gray[place]
        colored = cv2.LUT(cv2.merge([level, level, level]), _blends()[band : band + 1])
        cv2.copyTo(colored, inside[place], image[place])
    for lines, color in zip(levels, BANDS, strict=True):
        cv2.polylines(image, lines, True, color, thickness, cv2.LINE_AA, FRACTION_BITS)
    return image


def on_gray(band: int, gray: int) -> Rgb:
    """Return the RGB color of a band over a gray level of the image; band 0 is the image itself."""
    red, green, blue = (int(value) for value in _blends()[band, gray])
    return red, green, blue


def region_lines(inside: NDArray[np.bool_], shape: tuple[int, int], *, beyond: int = 0) -> list[NDArray[np.int32]]:
    """Return the outlines of a region on an image that is displayed at another size, including those of holes.

    Args:
        inside: (h, w) bool.
        shape: (H, W) of the displayed image.
        beyond: Number of pixels of ``inside`` by which the region is extended beyond its edge.

    Returns:
        Closed lines (n, 2) of x, y in pixels of ``shape``, fixed point with FRACTION_BITS fraction bits, for
        cv2.polylines and cv2.fillPoly.
    """
    wider = inside.view(np.uint8)
    if beyond:
        wider = cv2.copyMakeBorder(wider, beyond, beyond, beyond, beyond, cv2.BORDER_REPLICATE)  # type: ignore[assignment]
    contours, _ = cv2.findContours(wider, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(-beyond, -beyond))
    enlargement = np.array([shape[1] / inside.shape[1], shape[0] / inside.shape[0]])
    return [_smoothed(contour[:, 0], enlargement) for contour in contours]


def _smoothed(line: MatLike, enlargement: NDArray[np.float64]) -> NDArray[np.int32]:
    """Smooth a closed line (n, 2) by averaging over _REACH neighbors on each side, and enlarge it.

    Only points that deviate by _DEVIATION are kept, since the time of cv2.polylines is proportional to their number.
    """
    reach = min(_REACH, len(line) // 8)
    closed = np.pad(line.astype(np.float32), ((reach + 1, reach), (0, 0)), mode="wrap").cumsum(axis=0, dtype=np.float64)
    averaged = (closed[2 * reach + 1 :] - closed[: -2 * reach - 1]) / (2 * reach + 1)
    enlarged = enlargement * averaged + (enlargement - 1) / 2  # the middle of the first pixel is at 0
    fixed = np.asarray(np.rint(enlarged * 2**FRACTION_BITS), np.int32)
    return np.asarray(cv2.approxPolyDP(fixed, _DEVIATION * 2**FRACTION_BITS, True)[:, 0], np.int32)


@lru_cache(maxsize=1)
def _blends() -> NDArray[np.uint8]:
    """Return the color of each band over each gray level, (bands + 1, 256, 3)."""
    opacity = np.array([0.0, *OPACITY])[:, None, None]
    colors = np.array([(0, 0, 0), *BANDS], np.float64)[:, None, :]
    grays = np.arange(256.0)[None, :, None]
    return np.asarray(np.rint((1 - opacity) * grays + opacity * colors), np.uint8)
