"""What is kept of an image to find its copies: a miniature, and two signatures for the search.

Whatever a copy usually changes is taken out first: size and aspect (the miniature is square), plain borders, and
the gray scale (contrast-limited histogram equalization, then local contrast, so that a gamma makes no difference).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.errors import DataError

MINIATURE = 96
"""Side of the miniature, in pixels. At 64, images of one person taken on two days are hard to tell from copies."""

SIGNATURE = 32
"""Side of a signature, in pixels."""

ZOOM = 1.1
"""The second signature is of the image enlarged about its center, as if 4.5% had been cut off every edge."""

_WORKING_SIDE = 256  # a larger image is shrunk to it before anything is measured
_MOST_TRIMMED = 0.4  # of a side, from either edge
_PLAIN = 0.05  # a line whose spread is below this share of the image's is border
_CLIP = 3.0  # no gray level may take more than this many times its even share of the equalized scale
_FLAT = 12.0  # gray levels: local contrast below it is noise and is not stretched
_COARSE = MINIATURE * 6 / 64  # pixels: the neighborhood of a signature's local contrast


@dataclass(frozen=True)
class Fingerprint:
    """One image: 11 KiB.

    Attributes:
        miniature: (96, 96) uint8, trimmed, equalized, stretched to the square.
        signatures: (2, 32, 32) uint8, local contrast of the miniature, and of its center enlarged by ZOOM;
            128 is the local mean, 40 one local standard deviation.
    """

    miniature: NDArray[np.uint8]
    signatures: NDArray[np.uint8]


@dataclass(frozen=True)
class Prints:
    """N fingerprints: 1.1 GiB for 100,000.

    Attributes:
        miniatures: (N, 96, 96) uint8.
        signatures: (N, 2, 32, 32) uint8.
    """

    miniatures: NDArray[np.uint8]
    signatures: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.miniatures)


def fingerprint(gray: NDArray[np.uint8]) -> Fingerprint:
    """The fingerprint of an image.

    Args:
        gray: (H, W) uint8, the image's own pixels, of any size from 1 x 1.

    Raises:
        DataError: Another shape or type.
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
    """A trimmed image (H, W) uint8, equalized and stretched to the square: (96, 96) uint8."""
    shrinks = min(gray.shape) >= MINIATURE
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(equalized(gray), (MINIATURE, MINIATURE), interpolation=interpolation).astype(np.uint8)


def stack(prints: Iterable[Fingerprint]) -> Prints:
    """Many fingerprints as arrays; none give arrays of length 0."""
    prints = list(prints)
    if not prints:
        return Prints(np.empty((0, MINIATURE, MINIATURE), np.uint8), np.empty((0, 2, SIGNATURE, SIGNATURE), np.uint8))
    return Prints(np.stack([one.miniature for one in prints]), np.stack([one.signatures for one in prints]))


def trimmed(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image without plain lines along its edges, (H', W') uint8; at least a fifth of each side is left."""
    return np.ascontiguousarray(gray[trim_box(gray)])


def trim_box(gray: NDArray[np.uint8], plain: float = _PLAIN) -> tuple[slice, slice]:
    """Rows and columns that remain when plain lines along the edges are cut off, at most 40% of a side at either edge.

    Args:
        gray: (H, W) uint8.
        plain: A line whose spread is below this share of the image's is plain.
    """
    box = []
    for _ in range(2):  # rows, then columns of what is left
        flat = gray.std(axis=1) < plain * float(gray.std())
        most = int(_MOST_TRIMMED * len(flat))
        start, stop = _leading(flat[:most]), len(flat) - _leading(flat[::-1][:most])
        box.append(slice(start, stop))
        gray = gray[start:stop].T
    return box[0], box[1]


def equalized(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Gray levels spread by rank, (H, W) uint8; plain areas are not stretched, which would show a codec's blocks."""
    share = np.bincount(gray.ravel(), minlength=256) / gray.size
    share = np.minimum(share, _CLIP / 256)
    share += (1 - share.sum()) / 256
    levels = np.rint(255 * (np.cumsum(share) - share / 2)).astype(np.uint8)
    return levels[gray]


def local_contrast(gray: NDArray[np.uint8] | NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Each pixel less its neighborhood's mean, over its standard deviation: (H, W) float32.

    Args:
        gray: (H, W), gray levels 0 to 255.
        sigma: Of the Gaussian neighborhood, in pixels.
    """
    difference = gray - _blurred(gray.astype(np.float32), sigma)
    return np.asarray(difference / (np.sqrt(_blurred(difference * difference, sigma)) + _FLAT), np.float32)


def signature(miniature: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Local contrast (32, 32) uint8 of a miniature (96, 96) uint8, see Fingerprint."""
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
    """How many of the first lines are plain."""
    return int(plain.size if plain.all() else np.argmin(plain))
