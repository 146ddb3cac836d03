"""Evidence over an image: filled contours at three levels, and the scale that gives them their meaning in logits.

Colors are steps of "inferno" (Smith & van der Walt 2015, matplotlib), whose lightness grows evenly and which reads
the same under all common kinds of color blindness: the lighter, the more evidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

if TYPE_CHECKING:  # a result draws itself: at run time it imports this module
    from hilum.inference.result import Prediction


Rgb: TypeAlias = tuple[int, int, int]

LEVELS = (0.25, 0.5, 0.75)
"""Lower ends of the bands, as shares of the scale's end. Nothing is drawn below the first."""
BANDS: tuple[Rgb, ...] = ((187, 55, 84), (243, 120, 25), (246, 215, 70))
"""Color of each band, the weakest first."""
LEAST_SUM = 0.1
"""Logits. Where all evidence in favor adds up to less, which changes no odds by more than a tenth, none is drawn."""

OPACITY = (0.26, 0.30, 0.34)
"""Of each band over the image."""
FRACTION_BITS = 4
"""Of the fixed point in which lines are given to OpenCV."""


@dataclass(frozen=True)
class EvidenceScale:
    """What the colors of one image mean. All values are logits of one class, before temperature.

    Attributes:
        peak: The end of the scale, above 0: what the image's strongest place adds, as one cell of the map.
        cells: (h, w) of the network's map, whose cells tile its square input.
        in_favor: Sum over the cells that add to the logit; they and ``against`` make the logit less its bias.
        against: Sum over the cells that take from it, at most 0.
    """

    peak: float
    cells: tuple[int, int]
    in_favor: float
    against: float


def evidence_scale(
    prediction: Prediction, evidence: NDArray[np.float32] | None, class_name: str | None = None
) -> EvidenceScale | None:
    """The scale of an image, or None where nothing is drawn: no evidence, or less of it than LEAST_SUM in favor.

    The scale ends at the image's own peak, since what a single cell adds depends on how fine the map is and how far a
    finding spreads; so colors compare places of one image, and numbers compare images.

    Args:
        prediction: Its ``evidence`` gives the sums.
        evidence: (H0, W0) float32, that of the class on the image, from class_evidence.
        class_name: The class; the predicted one by default.
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
    """Where the evidence is drawn: (H0, W0) bool, from the first level on; None where none is (evidence_scale)."""
    scale = evidence_scale(prediction, evidence)
    return None if scale is None or evidence is None else evidence >= np.float32(LEVELS[0] * scale.peak)


def fill_contours(
    gray: NDArray[np.uint8], evidence: NDArray[np.float32], peak: float, thickness: int
) -> NDArray[np.uint8]:
    """An image as RGB with its evidence filled in, and a line around each level.

    Args:
        gray: (H, W) uint8, the image as it is shown.
        evidence: (H0, W0) float32, of the same image at any size.
        peak: The end of the scale, above 0.
        thickness: Of the lines, pixels.

    Returns:
        (H, W, 3) uint8; where the evidence is below the first level, the gray of the image.
    """
    height, width = gray.shape
    interpolation = cv2.INTER_AREA if height < evidence.shape[0] else cv2.INTER_LINEAR
    shown = np.asarray(cv2.resize(evidence, (width, height), interpolation=interpolation), np.float32)
    reached = [(shown >= np.float32(level * peak)).astype(np.uint8) for level in LEVELS]
    image: NDArray[np.uint8] = _blends()[sum(reached), gray]  # (H, W, 3)
    beyond = 2 * thickness + 2
    for inside, color in zip(reached, BANDS, strict=True):
        # beyond the image's edge, so that no line is drawn along it
        wider = cv2.copyMakeBorder(inside, beyond, beyond, beyond, beyond, cv2.BORDER_REPLICATE)
        contours, _ = cv2.findContours(wider, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(-beyond, -beyond))
        lines = [smooth(contour[:, 0], reach=2) for contour in contours]
        cv2.polylines(image, lines, True, color, thickness, cv2.LINE_AA, FRACTION_BITS)
    return image


def on_gray(band: int, gray: int) -> Rgb:
    """What a band looks like over a gray level of the image; band 0 is the bare image."""
    red, green, blue = (int(value) for value in _blends()[band, gray])
    return red, green, blue


def smooth(line: MatLike, reach: int) -> NDArray[np.int32]:
    """A closed line (n, 2) averaged over ``reach`` neighbors on each side, in fixed point for cv2.polylines.

    It takes the steps of single pixels off an enlarged outline; the fixed point has 4 fraction bits.
    """
    reach = min(reach, len(line) // 8)
    averaged = np.mean([np.roll(line, shift, axis=0) for shift in range(-reach, reach + 1)], axis=0)
    return np.asarray(np.rint(averaged * 2**FRACTION_BITS), np.int32)


def _blends() -> NDArray[np.uint8]:
    """(bands + 1, 256, 3): the color of each band over each gray."""
    opacity = np.array([0.0, *OPACITY])[:, None, None]
    colors = np.array([(0, 0, 0), *BANDS], np.float64)[:, None, :]
    grays = np.arange(256.0)[None, :, None]
    return np.asarray(np.rint((1 - opacity) * grays + opacity * colors), np.uint8)
