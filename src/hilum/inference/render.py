"""Draw overlays: the image with lung outline and evidence contours, and a legend next to it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.config import PreprocessSpec
from hilum.errors import DataError
from hilum.imaging.preprocess import fit_mask, restore_probability, to_uint8
from hilum.inference.contour import FRACTION_BITS, Rgb, evidence_scale, fill_contours, region_lines
from hilum.inference.legend import OUTLINE, PANEL_WIDTH, draw_legend, plain_panel
from hilum.inference.zones import cells_of
from hilum.types import Radiograph, square_shape

if TYPE_CHECKING:  # result.py imports this module at run time
    from hilum.inference.result import Prediction

_HALO: Rgb = (0, 0, 0)
LONGEST_SIDE = 1024
"""Largest side of a drawn image by default, pixels."""
_SHORT_SIDE = 512
_MOST = 0.95
"""Smallest fraction of the largest display size at which an image is shown to reduce it by a whole factor."""


def overlay(
    radiograph: Radiograph,
    prediction: Prediction,
    *,
    evidence: NDArray[np.float32] | None = None,
    class_name: str | None = None,
    longest_side: int = LONGEST_SIDE,
) -> NDArray[np.uint8]:
    """Draw an image with the lung outlined, evidence as filled contours, and a legend with the color scale.

    Images with a shorter side under 512 px are enlarged, those with a longer side over ``longest_side`` reduced, and
    pixels that are not square are drawn square. The legend is at the right, or below wide images.

    Args:
        radiograph: The image, (H0, W0).
        prediction: The prediction for the image, with a mask (H0, W0) bool.
        evidence: (H0, W0) float32, evidence for ``class_name`` from ``class_evidence``, at the image's size or at that
            of ``evidence_shape``, which is faster. Evidence in favor is drawn where it is at least a quarter of its
            peak (hilum.inference.contour); the sum of the evidence against is in the legend. None draws no evidence.
        class_name: The class whose evidence is drawn; the predicted class by default.
        longest_side: Largest side of the drawn image without the legend, pixels.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        DataError: The mask or the evidence has another size than the image.
    """
    image = annotate(radiograph, prediction, evidence=evidence, class_name=class_name, longest_side=longest_side)
    height, width = image.shape[:2]
    scale, drawn = _scale(height, width), evidence_scale(prediction, evidence, class_name)
    beside = width <= 1.5 * height
    limit = PANEL_WIDTH if beside else min(max(width / scale, PANEL_WIDTH), 2 * PANEL_WIDTH)
    legend = draw_legend(
        prediction, drawn, round(limit * scale), scale, has_evidence=evidence is not None, class_name=class_name
    )
    return _join(image, legend, axis=1 if beside else 0)


def draw_overlay(
    prediction: Prediction, *, class_name: str | None = None, longest_side: int = LONGEST_SIDE
) -> NDArray[np.uint8]:
    """Draw the overlay of a prediction with the evidence that its network has; see ``overlay``."""
    radiograph = prediction.radiograph
    size = evidence_shape(radiograph.square_shape, longest_side)
    evidence = class_evidence(prediction, radiograph.shape, prediction.preprocess, class_name=class_name, size=size)
    return overlay(radiograph, prediction, evidence=evidence, class_name=class_name, longest_side=longest_side)


def annotate(
    radiograph: Radiograph,
    prediction: Prediction,
    *,
    evidence: NDArray[np.float32] | None = None,
    class_name: str | None = None,
    longest_side: int = LONGEST_SIDE,
) -> NDArray[np.uint8]:
    """Draw the lung outline and the evidence over an image, without a legend; see ``overlay`` for the arguments.

    Returns:
        (H, W, 3) uint8 RGB, at the size of ``display_shape``.

    Raises:
        DataError: The mask or the evidence is not of the image's size.
    """
    height, width = display_shape(radiograph.square_shape, longest_side)
    drawn_at = evidence_shape(radiograph.square_shape, longest_side)
    for name, array, other in (("mask", prediction.mask, radiograph.shape), ("evidence", evidence, drawn_at)):
        if array is not None and array.shape not in (radiograph.shape, other):
            raise DataError(
                f"Expected {name} of the image's shape {radiograph.shape}, got {array.shape}.",
                hint="Resample it to the size of the image first.",
            )
    gray = _displayed(radiograph, height, width)
    scale = _scale(height, width)
    drawn = evidence_scale(prediction, evidence, class_name)
    if evidence is not None and drawn is not None:
        reduced = np.asarray(cv2.resize(evidence, drawn_at[::-1], interpolation=cv2.INTER_LINEAR), np.float32)
        image = fill_contours(gray, reduced, drawn.peak, round(2 * scale))
    else:
        image = np.asarray(cv2.merge([gray, gray, gray]), np.uint8)  # (H, W, 3)
    _draw_outline(image, prediction.mask, scale)
    return image


def class_evidence(
    prediction: Prediction,
    shape: tuple[int, int],
    spec: PreprocessSpec,
    *,
    class_name: str | None = None,
    size: tuple[int, int] | None = None,
) -> NDArray[np.float32] | None:
    """Return the evidence for one class at the image's size, (H0, W0) float32, or None without evidence.

    The map (h, w) over the network's square input is enlarged linearly and resampled to the image like the lung mask.
    What a cell contributes is shown on the lung in it, and in the whole cell if it has no lung, as in
    hilum.inference.zones. Values are contributions to the logit per cell of the map, not per pixel.

    Args:
        prediction: The prediction.
        shape: (H0, W0) of the image.
        spec: The preprocessing of the image.
        class_name: The class; the predicted class by default.
        size: (H, W) of the result, if it differs from ``shape``.
    """
    if prediction.evidence is None:
        return None
    size, aspect = size or shape, prediction.radiograph.pixel_aspect
    cells = prediction.evidence[prediction.class_names.index(class_name or prediction.label)].astype(np.float32)
    fitted = fit_mask(prediction.mask, spec, pixel_aspect=aspect)  # (S, S)
    has_lung = np.bincount(cells_of(fitted.shape, cells.shape)[fitted], minlength=cells.size).reshape(cells.shape) > 0
    lung = cv2.resize(prediction.mask.view(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    placed = square_shape(shape, aspect)

    def enlarged(values: NDArray[np.float32]) -> NDArray[np.float32]:
        square = cv2.resize(values, (spec.size, spec.size), interpolation=cv2.INTER_LINEAR)
        return restore_probability(np.asarray(square, np.float32), placed, spec, size=size)

    inside = np.where(has_lung, cells, np.float32(0))
    shown = enlarged(inside) * lung
    return shown if np.array_equal(inside, cells) else shown + enlarged(cells - inside)


def display_shape(shape: tuple[int, int], longest_side: int = LONGEST_SIDE) -> tuple[int, int]:
    """Return the display size (H, W): shorter side at least 512 px, longer side at most ``longest_side``.

    A large image is reduced by a whole factor if that makes it at most 5% smaller: halving takes less time.
    """
    factor = min(max(1.0, _SHORT_SIDE / min(shape)), longest_side / max(shape))
    if factor < 1 and (whole := 1 / math.ceil(1 / factor)) >= _MOST * factor:
        factor = whole
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def evidence_shape(shape: tuple[int, int], longest_side: int = LONGEST_SIDE) -> tuple[int, int]:
    """Return the size (H, W) at which evidence is drawn: half of the display's, since a map has few cells."""
    return _half(display_shape(shape, longest_side))


def _half(shape: tuple[int, int]) -> tuple[int, int]:
    return max(1, shape[0] // 2), max(1, shape[1] // 2)


def _scale(height: int, width: int) -> float:
    """The factor on lines and text for an image shown at this size."""
    return min(2.0, max(1.0, max(height, width) / 1024))


def _displayed(radiograph: Radiograph, height: int, width: int) -> NDArray[np.uint8]:
    """Return the image at its display size, (height, width) uint8, averaged where it is reduced.

    cv2.INTER_AREA takes 7 ms from 2,000 to 1,024 px, so 2 x 2 pixels are averaged while that leaves enough of them, and
    a Gaussian with the remaining variance of such a mean (a box of width f has f²/12, the linear interpolation 1/6)
    precedes the rest.
    """
    pixels = radiograph.pixels
    while pixels.shape[0] >= 2 * height and pixels.shape[1] >= 2 * width:
        pixels = cv2.resize(pixels, (pixels.shape[1] // 2, pixels.shape[0] // 2), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    factor = pixels.shape[0] / height
    if factor**2 > 2:
        pixels = cv2.GaussianBlur(pixels, (3, 3), math.sqrt(factor**2 / 12 - 1 / 6))  # type: ignore[assignment]
    interpolation = cv2.INTER_LINEAR if factor > 1 else cv2.INTER_CUBIC
    pixels = cv2.resize(pixels, (width, height), interpolation=interpolation)  # type: ignore[assignment]
    return to_uint8(replace(radiograph, pixels=pixels))


def _draw_outline(image: NDArray[np.uint8], mask: NDArray[np.bool_], scale: float) -> None:
    """Draw the outline of the mask into the image, with a dark halo for contrast."""
    shape = (image.shape[0], image.shape[1])
    reduced = cv2.resize(mask.view(np.uint8), _half(shape)[::-1], interpolation=cv2.INTER_LINEAR)  # rounds to 0 or 1
    lines = region_lines(np.asarray(reduced, np.bool_), shape)
    thickness = round(2 * scale)
    cv2.polylines(image, lines, True, _HALO, thickness + 4, cv2.LINE_8, FRACTION_BITS)  # a soft edge takes 4 x the time
    cv2.polylines(image, lines, True, OUTLINE, thickness, cv2.LINE_AA, FRACTION_BITS)


def _join(image: NDArray[np.uint8], legend: NDArray[np.uint8], axis: int) -> NDArray[np.uint8]:
    """Join image and legend side by side (axis 1) or one above the other (axis 0)."""
    heights, widths = (image.shape[0], legend.shape[0]), (image.shape[1], legend.shape[1])
    shape = (max(heights), sum(widths)) if axis == 1 else (sum(heights), max(widths))
    canvas = plain_panel(shape)
    canvas[: heights[0], : widths[0]] = image
    canvas[shape[0] - heights[1] if axis == 0 else 0 :, widths[0] if axis == 1 else 0 :][: heights[1], : widths[1]] = (
        legend
    )
    return canvas
