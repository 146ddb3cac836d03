"""Preprocess a decoded radiograph into the network's input, and map its output back. THE ONLY copy.

Training, PyTorch, ONNX Runtime, the service and the web app all call these functions, so that a difference
between them cannot come from here. Two steps, since training caches the first:

    Radiograph (H0, W0) --fit_image--> (S, S) uint8 --to_input--> (C, S, S) float32 in [0, 1]

The type decides the treatment: images are resampled area/linear, label masks nearest, probabilities linear.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.config import PreprocessSpec
from hilum.types import Gray, Radiograph

Gray8 = NDArray[np.uint8]

MASK_THRESHOLD = 127
"""A mask file's pixel is lung where it is greater than this (8 bits)."""


class Placement(NamedTuple):
    """Place of the resized image inside the square, pixels."""

    top: int
    left: int
    height: int
    width: int


def placement(shape: tuple[int, int], spec: PreprocessSpec) -> Placement:
    """Return the place of an image of ``shape`` (H0, W0) in the square of side ``spec.size``; centered when padded."""
    size = spec.size
    if spec.fit == "stretch":
        return Placement(0, 0, size, size)
    scale = size / max(shape)
    height = max(1, round(shape[0] * scale))
    width = max(1, round(shape[1] * scale))
    return Placement((size - height) // 2, (size - width) // 2, height, width)


def to_uint8(radiograph: Radiograph) -> NDArray[np.uint8]:
    """Return the pixels scaled from their declared range ``[0, 2**bits_stored - 1]`` to (H, W) uint8."""
    if radiograph.bits_stored == 8 and radiograph.pixels.dtype == np.uint8:
        return radiograph.pixels  # type: ignore[return-value]  # the dtype test narrows it
    return _quantize(radiograph.pixels.astype(np.float32), radiograph.bits_stored)


def fit_image(radiograph: Radiograph, spec: PreprocessSpec) -> NDArray[np.uint8]:
    """Resize a radiograph into the square: (S, S) uint8, black outside the placement.

    Shrinking averages areas, enlarging is linear (per axis, as OpenCV defines them); the resampling runs at the
    file's own depth and is rounded to 8 bits once, after it.
    """
    top, left, height, width = placement(radiograph.shape, spec)
    resized = _resample(radiograph.pixels, height, width)
    fitted = np.zeros((spec.size, spec.size), np.uint8)
    fitted[top : top + height, left : left + width] = _quantize(resized, radiograph.bits_stored)
    return fitted


def fit_mask(mask: NDArray[np.bool_], spec: PreprocessSpec) -> NDArray[np.bool_]:
    """Resize a label mask (H0, W0) into the square, nearest: (S, S) bool, False outside the placement."""
    top, left, height, width = placement((mask.shape[0], mask.shape[1]), spec)
    resized = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    fitted = np.zeros((spec.size, spec.size), np.bool_)
    fitted[top : top + height, left : left + width] = resized.astype(np.bool_)
    return fitted


def to_input(fitted: NDArray[np.uint8], spec: PreprocessSpec) -> NDArray[np.float32]:
    """Convert (..., S, S) uint8 to the network's (..., C, S, S) float32 in [0, 1]; gray is repeated C times."""
    gray = np.divide(fitted, np.float32(255), dtype=np.float32)[..., None, :, :]
    return gray if spec.channels == 1 else np.repeat(gray, spec.channels, axis=-3)


def preprocess(radiograph: Radiograph, spec: PreprocessSpec) -> NDArray[np.float32]:
    """Convert a Radiograph to the network's input, (C, S, S) float32 in [0, 1]: fit_image, then to_input."""
    return to_input(fit_image(radiograph, spec), spec)


def restore_probability(
    probability: NDArray[np.float32],
    shape: tuple[int, int],
    spec: PreprocessSpec,
    *,
    size: tuple[int, int] | None = None,
) -> NDArray[np.float32]:
    """Undo the placement: a map (S, S) in [0, 1] becomes (H0, W0) float32 at the file's own size, linear.

    Threshold the result, not the input, so that the outline is smooth at the file's resolution. ``shape`` is the
    file's (H0, W0) and gives the image's place in the square; ``size`` asks for another (H, W) of the result.
    """
    top, left, height, width = placement(shape, spec)
    inside = np.ascontiguousarray(probability[top : top + height, left : left + width])
    return _resample(inside, *(size or shape))


def _resample(pixels: Gray | NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Resize to (height, width) as float32: area where it shrinks in both axes, else linear."""
    shrinks = height <= pixels.shape[0] and width <= pixels.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(pixels.astype(np.float32), (width, height), interpolation=interpolation)  # type: ignore[return-value]


def _quantize(pixels: NDArray[np.float32], bits_stored: int) -> NDArray[np.uint8]:
    scaled = pixels * np.float32(255 / (2**bits_stored - 1))
    return np.asarray(np.rint(np.clip(scaled, 0, 255)), np.uint8)


def content_of(square: Gray8) -> tuple[slice, slice]:
    """Return the rows and columns of the smallest box around all pixels above 0; all of them where there are none.

    Of a fitted image (S, S) that is its placement less its own black edges, if any; of a mask, its bounding box.
    """
    rows, columns = np.flatnonzero(square.any(axis=1)), np.flatnonzero(square.any(axis=0))
    if not rows.size:
        return slice(0, square.shape[0]), slice(0, square.shape[1])
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
