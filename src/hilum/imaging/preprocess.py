"""Preprocess decoded radiographs into network inputs, and map outputs back to the image.

Training, both backends, the service and the web app use these functions; there is no other preprocessing code. It
has two steps, since training caches the result of the first:

    Radiograph (H0, W0) --fit_image--> (S, S) uint8 --to_input--> (C, S, S) float32 in [0, 1]

Images are resampled by area averaging or linearly, label masks by nearest neighbor, probabilities linearly.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.config import PreprocessSpec
from hilum.types import Gray, Radiograph, square_shape

Gray8 = NDArray[np.uint8]

MASK_THRESHOLD = 127
"""A pixel of a mask file is lung if its 8-bit value is greater than this."""


class Placement(NamedTuple):
    """Position and size of the resized image inside the square network input, pixels."""

    top: int
    left: int
    height: int
    width: int


def placement(shape: tuple[int, int], spec: PreprocessSpec) -> Placement:
    """Return the placement of an image of ``shape`` (H0, W0) in the square network input, centered if padded."""
    size = spec.size
    if spec.fit == "stretch":
        return Placement(0, 0, size, size)
    scale = size / max(shape)
    height = max(1, round(shape[0] * scale))
    width = max(1, round(shape[1] * scale))
    return Placement((size - height) // 2, (size - width) // 2, height, width)


def to_uint8(radiograph: Radiograph) -> NDArray[np.uint8]:
    """Return the pixels as (H, W) uint8, scaled from their declared range ``[0, 2**bits_stored - 1]``."""
    if radiograph.bits_stored == 8 and radiograph.pixels.dtype == np.uint8:
        return radiograph.pixels  # type: ignore[return-value]  # the dtype test narrows it
    return _quantize(radiograph.pixels.astype(np.float32), radiograph.bits_stored)


def fit_image(radiograph: Radiograph, spec: PreprocessSpec) -> NDArray[np.uint8]:
    """Resize a radiograph into the square and return (S, S) uint8, black outside the placement.

    Downsampling averages areas; upsampling is linear, as defined by OpenCV. Resampling uses the original bit depth and
    rounds to 8 bits afterwards. Pixels that are not square become square in the same step (Radiograph.pixel_aspect).
    """
    top, left, height, width = placement(radiograph.square_shape, spec)
    resized = _resample(radiograph.pixels, height, width)
    fitted = np.zeros((spec.size, spec.size), np.uint8)
    fitted[top : top + height, left : left + width] = _quantize(resized, radiograph.bits_stored)
    return fitted


def fit_mask(mask: NDArray[np.bool_], spec: PreprocessSpec, *, pixel_aspect: float = 1.0) -> NDArray[np.bool_]:
    """Resize a label mask (H0, W0) into the square by nearest neighbor and return (S, S) bool, False outside.

    Args:
        mask: (H0, W0) bool, on the grid of the image.
        spec: The preprocessing of the image.
        pixel_aspect: The image's Radiograph.pixel_aspect.
    """
    top, left, height, width = placement(square_shape((mask.shape[0], mask.shape[1]), pixel_aspect), spec)
    resized = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    fitted = np.zeros((spec.size, spec.size), np.bool_)
    fitted[top : top + height, left : left + width] = resized.astype(np.bool_)
    return fitted


def to_input(fitted: NDArray[np.uint8], spec: PreprocessSpec) -> NDArray[np.float32]:
    """Convert (..., S, S) uint8 to (..., C, S, S) float32 in [0, 1], with gray repeated C times."""
    gray = np.divide(fitted, np.float32(255), dtype=np.float32)[..., None, :, :]
    return gray if spec.channels == 1 else np.repeat(gray, spec.channels, axis=-3)


def preprocess(radiograph: Radiograph, spec: PreprocessSpec) -> NDArray[np.float32]:
    """Convert a Radiograph to the network's input, (C, S, S) float32 in [0, 1], by fit_image and to_input."""
    return to_input(fit_image(radiograph, spec), spec)


def restore_probability(
    probability: NDArray[np.float32],
    shape: tuple[int, int],
    spec: PreprocessSpec,
    *,
    size: tuple[int, int] | None = None,
) -> NDArray[np.float32]:
    """Resample a map over the square back to the original image, linearly, and return (H0, W0) float32.

    For a mask, threshold the result rather than the input, so that its outline has the resolution of the image.

    Args:
        probability: (S, S) float32, such as probabilities in [0, 1].
        shape: (H0, W0) of the original image, which determines the placement; Radiograph.square_shape.
        spec: The preprocessing of the image.
        size: (H, W) of the result, if it differs from ``shape``.
    """
    top, left, height, width = placement(shape, spec)
    inside = np.ascontiguousarray(probability[top : top + height, left : left + width])
    return _resample(inside, *(size or shape))


def _resample(pixels: Gray | NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Resize to (height, width) as float32, by area averaging if both axes shrink, else linearly."""
    shrinks = height <= pixels.shape[0] and width <= pixels.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(pixels.astype(np.float32), (width, height), interpolation=interpolation)  # type: ignore[return-value]


def _quantize(pixels: NDArray[np.float32], bits_stored: int) -> NDArray[np.uint8]:
    scaled = pixels * np.float32(255 / (2**bits_stored - 1))
    return np.asarray(np.rint(np.clip(scaled, 0, 255)), np.uint8)


def content_of(square: Gray8) -> tuple[slice, slice]:
    """Return rows and columns of the bounding box of all pixels above 0, or of the whole image if there are none.

    For a fitted image (S, S), this is its placement without black edges of the image itself; for a mask, its bounding
    box.
    """
    rows, columns = np.flatnonzero(square.any(axis=1)), np.flatnonzero(square.any(axis=0))
    if not rows.size:
        return slice(0, square.shape[0]), slice(0, square.shape[1])
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
