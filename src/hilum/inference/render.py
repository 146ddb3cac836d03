"""Draw overlays: the image with lung outline and evidence contours, and a legend next to it.

Also encodes images and masks as PNG.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.config import PreprocessSpec
from hilum.errors import DataError, OutputError
from hilum.imaging.preprocess import restore_probability, to_uint8
from hilum.inference.contour import FRACTION_BITS, Rgb, evidence_scale, fill_contours, smooth
from hilum.inference.legend import BACKGROUND, OUTLINE, PANEL_WIDTH, draw_legend
from hilum.storage import write_bytes
from hilum.types import Radiograph, square_shape

if TYPE_CHECKING:  # result.py imports this module at run time
    from hilum.inference.result import Prediction

_HALO: Rgb = (0, 0, 0)
_SHORT_SIDE, _LONG_SIDE = 512, 2048


def overlay(
    radiograph: Radiograph,
    prediction: Prediction,
    *,
    evidence: NDArray[np.float32] | None = None,
    class_name: str | None = None,
) -> NDArray[np.uint8]:
    """Draw an image with the lung outlined, evidence as filled contours, and a legend with the color scale.

    Images with a shorter side under 512 px are enlarged, those with a longer side over 2048 px reduced, and pixels that
    are not square are drawn square. The legend is at the right, or below wide images.

    Args:
        radiograph: The image, (H0, W0).
        prediction: The prediction for the image, with a mask (H0, W0) bool.
        evidence: (H0, W0) float32, evidence for ``class_name`` at the image's size, from ``class_evidence``. Evidence
            in favor is drawn where it is at least a quarter of its peak (hilum.inference.contour); the sum of the
            evidence against is in the legend. None draws no evidence.
        class_name: The class whose evidence is drawn; the predicted class by default.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        DataError: The mask or the evidence has another size than the image.
    """
    image = annotate(radiograph, prediction, evidence=evidence, class_name=class_name)
    height, width = image.shape[:2]
    scale, drawn = _scale(height, width), evidence_scale(prediction, evidence, class_name)
    beside = width <= 1.5 * height
    limit = PANEL_WIDTH if beside else min(max(width / scale, PANEL_WIDTH), 2 * PANEL_WIDTH)
    legend = draw_legend(
        prediction, drawn, round(limit * scale), scale, has_evidence=evidence is not None, class_name=class_name
    )
    return _join(image, legend, axis=1 if beside else 0)


def annotate(
    radiograph: Radiograph,
    prediction: Prediction,
    *,
    evidence: NDArray[np.float32] | None = None,
    class_name: str | None = None,
) -> NDArray[np.uint8]:
    """Draw the lung outline and the evidence over an image, without a legend; see ``overlay`` for the arguments.

    Returns:
        (H, W, 3) uint8 RGB, at the size of ``display_shape``.

    Raises:
        DataError: The mask or the evidence is not of the image's size.
    """
    for name, array in (("mask", prediction.mask), ("evidence", evidence)):
        if array is not None and array.shape != radiograph.shape:
            raise DataError(
                f"Expected {name} of the image's shape {radiograph.shape}, got {array.shape}.",
                hint="Resample it to the size of the image first.",
            )
    height, width = display_shape(radiograph.square_shape)
    gray = _resize(to_uint8(radiograph), height, width)
    scale = _scale(height, width)
    drawn = evidence_scale(prediction, evidence, class_name)
    if evidence is not None and drawn is not None:
        image = fill_contours(gray, evidence, drawn.peak, round(2 * scale))
    else:
        image = np.repeat(gray[:, :, None], 3, axis=2)  # (H, W, 3)
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
    Values are contributions to the logit per cell of the map, not per pixel.

    Args:
        prediction: The prediction.
        shape: (H0, W0) of the image.
        spec: The preprocessing of the image.
        class_name: The class; the predicted class by default.
        size: (H, W) of the result, if it differs from ``shape``.
    """
    if prediction.evidence is None:
        return None
    cells = prediction.evidence[prediction.class_names.index(class_name or prediction.label)]
    square = cv2.resize(cells.astype(np.float32), (spec.size, spec.size), interpolation=cv2.INTER_LINEAR)
    placed = square_shape(shape, prediction.radiograph.pixel_aspect)
    return restore_probability(np.asarray(square, np.float32), placed, spec, size=size or shape)


def mask_png(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Convert a mask (H, W) bool to (H, W) uint8 with 255 for lung and 0 elsewhere."""
    return np.asarray(mask * np.uint8(255), np.uint8)


def save_png(image: NDArray[np.uint8], path: Path) -> None:
    """Write an image (H, W) gray or (H, W, 3) RGB, uint8, as PNG, atomically.

    Raises:
        OutputError: The folder cannot be written, or the disk is full.
    """
    write_bytes(path, png_bytes(image))


def png_bytes(image: NDArray[np.uint8]) -> bytes:
    """Return an image (H, W) gray or (H, W, 3) RGB, uint8, as the content of a PNG file.

    Raises:
        OutputError: The image cannot be encoded.
    """
    done, content = cv2.imencode(".png", image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not done:
        raise OutputError(f"Cannot encode an image of shape {image.shape} as PNG.")
    return content.tobytes()


def outline(mask: NDArray[np.bool_], shape: tuple[int, int], *, least_reach: int = 0) -> list[NDArray[np.int32]]:
    """Return the outlines of a mask on an image displayed at ``shape`` (H, W), including holes.

    Args:
        mask: (H0, W0) bool.
        shape: (H, W) of the displayed image.
        least_reach: Minimum number of neighbors for smoothing (hilum.inference.contour.smooth).

    Returns:
        Closed lines (n, 2) of x, y in pixels of ``shape``, fixed point with FRACTION_BITS fraction bits, for
        cv2.polylines.
    """
    enlargement = shape[0] / mask.shape[0]
    shown = cv2.resize(mask.astype(np.uint8), shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    contours, _ = cv2.findContours(shown, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    reach = max(least_reach, round(2 * enlargement) if enlargement > 1 else 0)
    return [smooth(contour[:, 0], reach=reach) for contour in contours]


def display_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """Return the display size (H, W) of an image: shorter side at least 512 px, longer side at most 2048 px."""
    factor = min(max(1.0, _SHORT_SIDE / min(shape)), _LONG_SIDE / max(shape))
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def _scale(height: int, width: int) -> float:
    """The factor on lines and text for an image shown at this size."""
    return min(2.0, max(1.0, max(height, width) / 1024))


def _resize(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    interpolation = cv2.INTER_AREA if height < pixels.shape[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=interpolation), np.uint8)


def _draw_outline(image: NDArray[np.uint8], mask: NDArray[np.bool_], scale: float) -> None:
    """Draw the outline of the mask into the image, with a dark halo for contrast."""
    lines = outline(mask, (image.shape[0], image.shape[1]))
    thickness = round(2 * scale)
    for color, width in ((_HALO, thickness + 4), (OUTLINE, thickness)):
        cv2.polylines(image, lines, True, color, width, cv2.LINE_AA, FRACTION_BITS)


def _join(image: NDArray[np.uint8], legend: NDArray[np.uint8], axis: int) -> NDArray[np.uint8]:
    """Join image and legend side by side (axis 1) or one above the other (axis 0)."""
    heights, widths = (image.shape[0], legend.shape[0]), (image.shape[1], legend.shape[1])
    shape = (max(heights), sum(widths)) if axis == 1 else (sum(heights), max(widths))
    canvas = np.full((*shape, 3), BACKGROUND, np.uint8)
    canvas[: heights[0], : widths[0]] = image
    canvas[shape[0] - heights[1] if axis == 0 else 0 :, widths[0] if axis == 1 else 0 :][: heights[1], : widths[1]] = (
        legend
    )
    return canvas
