"""Image fingerprints for finding copies: a miniature, and two signatures for the search.

They are invariant to what copies usually change: size and aspect ratio (the miniature is square), plain borders, and
the gray scale (contrast-limited histogram equalization, then local contrast). The search is in hilum.audit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.errors import DataError

MINIATURE = 96
"""Side of the miniature, pixels. At 64, two radiographs of one patient are hard to tell from copies."""

SIGNATURE = 32
"""Side of a signature, pixels."""

ZOOM = 1.1
"""Magnification of the center for the second signature, which corresponds to cropping 4.5% at each edge."""

_WORKING_SIDE = 256  # pixels; larger images are shrunk to it first
_MOST_TRIMMED = 0.4  # fraction of a side, at each edge
_PLAIN = 0.05  # a line is border if its standard deviation is below this fraction of the image's
_CLIP = 3.0  # clip limit of the histogram equalization, as a multiple of the uniform share
_FLAT = 12.0  # gray levels; local contrast below it is treated as noise
_COARSE = MINIATURE * 6 / 64  # pixels; neighborhood of a signature's local contrast


@dataclass(frozen=True)
class Fingerprint:
    """Fingerprint of one image, 11 KiB.

    Attributes:
        miniature: (96, 96) uint8, the trimmed and equalized image, stretched to a square.
        signatures: (2, 32, 32) uint8, local contrast of the miniature and of its center enlarged by ZOOM; 128 is the
            local mean, and 40 levels are one local standard deviation.
    """

    miniature: NDArray[np.uint8]
    signatures: NDArray[np.uint8]


@dataclass(frozen=True)
class Prints:
    """N fingerprints; 1.1 GiB for 100,000.

    Attributes:
        miniatures: (N, 96, 96) uint8.
        signatures: (N, 2, 32, 32) uint8.
    """

    miniatures: NDArray[np.uint8]
    signatures: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.miniatures)


def fingerprint(gray: NDArray[np.uint8]) -> Fingerprint:
    """Compute the fingerprint of an image.

    Args:
        gray: (H, W) uint8, the image at its original size, at least 1 x 1.

    Raises:
        DataError: ``gray`` has another shape or dtype.
    """
    if gray.ndim != 2 or gray.dtype != np.uint8 or not gray.size:
        raise DataError(
            f"Expected an image (H, W) of uint8, got {gray.shape} of {gray.dtype}.", hint="Use preprocess.to_uint8."
        )
    height, width = gray.shape
    scale = _WORKING_SIDE / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        gray = np.asarray(cv2.resize(gray, size, interpolation=cv2.INTER_AREA), np.uint8)
    miniature = miniature_of(trimmed(gray))
    return Fingerprint(miniature, _signatures(miniature))


def miniature_of(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Equalize a trimmed image (H, W) uint8 and stretch it to a square; return (96, 96) uint8."""
    shrinks = min(gray.shape) >= MINIATURE
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(equalized(gray), (MINIATURE, MINIATURE), interpolation=interpolation).astype(np.uint8)


def stack(prints: Iterable[Fingerprint]) -> Prints:
    """Stack fingerprints into arrays, of length 0 if there are none."""
    prints = list(prints)
    if not prints:
        return Prints(np.empty((0, MINIATURE, MINIATURE), np.uint8), np.empty((0, 2, SIGNATURE, SIGNATURE), np.uint8))
    return Prints(np.stack([one.miniature for one in prints]), np.stack([one.signatures for one in prints]))


def trimmed(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the image without plain borders, (H', W') uint8; at least a fifth of each side remains."""
    return np.ascontiguousarray(gray[trim_box(gray)])


def trim_box(gray: NDArray[np.uint8], plain: float = _PLAIN) -> tuple[slice, slice]:
    """Return the rows and columns that remain without plain borders, of at most 40% of a side at each edge.

    Args:
        gray: (H, W) uint8.
        plain: A line is plain if its standard deviation is below this fraction of the image's.
    """
    box = []
    for _ in range(2):  # rows, then columns of the remaining image
        flat = gray.std(axis=1) < plain * float(gray.std())
        most = int(_MOST_TRIMMED * len(flat))
        start, stop = _leading(flat[:most]), len(flat) - _leading(flat[::-1][:most])
        box.append(slice(start, stop))
        gray = gray[start:stop].T
    return box[0], box[1]


def equalized(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the histogram-equalized image, (H, W) uint8; the clip limit keeps compression artifacts weak."""
    share = np.bincount(gray.ravel(), minlength=256) / gray.size
    share = np.minimum(share, _CLIP / 256)
    share += (1 - share.sum()) / 256
    levels = np.rint(255 * (np.cumsum(share) - share / 2)).astype(np.uint8)
    return levels[gray]


def local_contrast(gray: NDArray[np.uint8] | NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Return each pixel minus the local mean, divided by the local standard deviation, (H, W) float32.

    Args:
        gray: (H, W), gray levels 0 to 255.
        sigma: Standard deviation of the Gaussian neighborhood, pixels.
    """
    difference = gray - _blurred(gray.astype(np.float32), sigma)
    return np.asarray(difference / (np.sqrt(_blurred(difference * difference, sigma)) + _FLAT), np.float32)


def signature(miniature: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the local contrast of a miniature (96, 96) uint8 as (32, 32) uint8; see Fingerprint."""
    contrast = cv2.resize(local_contrast(miniature, _COARSE), (SIGNATURE, SIGNATURE), interpolation=cv2.INTER_AREA)
    return np.clip(np.rint(contrast * 40 + 128), 0, 255).astype(np.uint8)


def _signatures(miniature: NDArray[np.uint8]) -> NDArray[np.uint8]:
    shift = (1 - ZOOM) * (MINIATURE - 1) / 2
    zoom = np.array([[ZOOM, 0, shift], [0, ZOOM, shift]])
    enlarged = cv2.warpAffine(miniature, zoom, (MINIATURE, MINIATURE), borderMode=cv2.BORDER_REPLICATE)
    return np.stack([signature(miniature), signature(enlarged.astype(np.uint8))])


def _blurred(image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT), np.float32)


def _leading(plain: NDArray[np.bool_]) -> int:
    """Return the number of plain lines at the start."""
    return int(plain.size if plain.all() else np.argmin(plain))
