"""Erase the lungs of an image, or all but the lungs: one pure function per treatment.

Each takes a fitted image (S, S) uint8 and its lung mask (S, S) bool and returns a new (S, S) uint8, after DeGrave et
al. (2021, Nat. Mach. Intell. 3:610) and Maguolo & Nanni (2021, Inf. Fusion 76:1), who showed that networks recognize
hospitals. Lengths are shares of the side S. Except in ``erase_blur``, the erased pixels affect the result by their
outline alone. The padding of an image is never painted on, except by ``lungs_only``, which hides it too. An image with
an empty mask is returned unchanged and must not be counted, see ``has_lungs``.
"""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.imaging.preprocess import content_of

Image: TypeAlias = NDArray[np.uint8]
Mask: TypeAlias = NDArray[np.bool_]

DILATION = 0.05
"""The mask grows by this before it is erased: its own edge is uncertain, and the edge of the lung is lung."""
RING = 0.05
"""Width of the surroundings whose mean fills the lungs."""
INPAINT_RADIUS = 3
"""Pixels around each in-painted one that it is computed from."""
BLUR = 0.10
"""Standard deviation of the Gaussian that blurs the lungs."""
BORDER = 0.10
"""Width of the border that is kept, of the image's own height and width."""
EDGE = 0.01
"""Standard deviation of the soft edge of transplanted lungs."""
MINIMUM_LUNG = 0.05
"""A mask that covers less of the square is not a pair of lungs; erasing it would leave most of them."""
GRAY = 128
"""What fills the erased part: mid gray, since 0 is what padding and clear lung look like. ``erase_mean`` fills with the
gray around it, which is likelier to be seen on an image, but carries what is around into what is erased."""


def has_lungs(lungs: Mask) -> NDArray[np.bool_]:
    """Return which of N masks (N, S, S) cover at least MINIMUM_LUNG of the square, (N,) bool."""
    share = np.count_nonzero(lungs, axis=(1, 2)) / max(1, lungs.shape[1] * lungs.shape[2])
    return np.asarray(share >= MINIMUM_LUNG)


def dilate(lung: Mask, share: float = DILATION) -> Mask:
    """Return the mask dilated by a disc of radius ``share`` of the side, at least one pixel."""
    radius = max(1, round(share * lung.shape[0]))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return cv2.dilate(lung.astype(np.uint8), disc) > 0


def erase_fill(image: Image, lung: Mask) -> Image:
    """Fill the dilated lungs with GRAY. No radiograph looks like this, so a network may answer at random."""
    return _filled(image, _area(image, lung), GRAY)


def erase_blur(image: Image, lung: Mask) -> Image:
    """Blur the dilated lungs (BLUR) with a soft edge, and keep the rest of the image sharp.

    Texture and outlines are removed; the mean density of the lungs remains.
    """
    if not lung.any():
        return np.array(image)
    weight = np.zeros(image.shape, np.float32)
    inside = content_of(image)
    weight[inside] = _soft(dilate(lung), DILATION / 3)[inside]  # three deviations: 1 at the edge of the lung
    return _blend(weight, _blur(image.astype(np.float32), BLUR), image)


def erase_mean(image: Image, lung: Mask) -> Image:
    """Fill the dilated lungs with the mean of the ring around them (RING wide), leaving out black pixels."""
    area = _area(image, lung)
    ring = dilate(dilate(lung), RING) & ~dilate(lung) & (image > 0)
    return _filled(image, area, _mean(image, ring))


def erase_inpaint(image: Image, lung: Mask) -> Image:
    """Fill the dilated lungs from their edge inwards, by OpenCV's fast marching (Telea 2004, J. Graph. Tools 9:23).

    Unlike with one gray level, neither an edge nor a flat area shows that something was erased. No training of hilum
    uses this treatment. Where nothing but lung is in the image's frame, the fill is GRAY.
    """
    area, inside = _area(image, lung), content_of(image)
    filled = _filled(image, area, GRAY)
    if area.any() and not area[inside].all():
        within = area[inside].astype(np.uint8)
        filled[inside] = cv2.inpaint(filled[inside], within, INPAINT_RADIUS, cv2.INPAINT_TELEA)
    return filled


def lungs_only(image: Image, lung: Mask) -> Image:
    """Fill all but the lungs with GRAY; the mask is not dilated, so that nothing else is visible."""
    if not lung.any():
        return np.array(image)
    return _filled(image, ~lung, GRAY)


def border_only(image: Image, lung: Mask) -> Image:
    """Fill all but the border of the image (BORDER wide) with GRAY, and the dilated lungs too."""
    if not lung.any():
        return np.array(image)
    rows, columns = content_of(image)
    high, wide = (round(BORDER * (side.stop - side.start)) for side in (rows, columns))
    erased = _area(image, lung)
    erased[rows.start + high : rows.stop - high, columns.start + wide : columns.stop - wide] = True
    return _filled(image, erased, GRAY)


def swap_background(image: Image, lung: Mask, other: Image, other_lung: Mask) -> Image:
    """Place the lungs of ``image``, with a soft edge (EDGE), on ``other`` with its own lungs erased.

    The lungs of ``other`` are erased by ``erase_mean``. Gray levels are kept on both sides of the seam.
    """
    if not lung.any() or not other_lung.any():
        return np.array(image)
    return _blend(_soft(lung, EDGE), image, erase_mean(other, other_lung))


def _area(image: Image, lung: Mask) -> Mask:
    """The dilated lungs inside the image's frame."""
    area = np.zeros_like(lung)
    if lung.any():
        inside = content_of(image)
        area[inside] = dilate(lung)[inside]
    return area


def _filled(image: Image, where: Mask, gray: int) -> Image:
    filled = np.array(image)
    filled[where] = gray
    return filled


def _mean(image: Image, where: Mask) -> int:
    """The rounded mean of the pixels at ``where``; GRAY if there are none."""
    return round(float(image[where].mean())) if where.any() else GRAY


def _soft(mask: Mask, sigma: float) -> NDArray[np.float32]:
    """(S, S) float32 in [0, 1]: the mask with a Gaussian edge."""
    return _blur(mask.astype(np.float32), sigma)


def _blur(pixels: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Gaussian of a standard deviation of ``sigma`` of the side."""
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma * pixels.shape[0]), np.float32)


def _blend(weight: NDArray[np.float32], front: Image | NDArray[np.float32], back: Image) -> Image:
    """``front`` where the weight is 1, ``back`` where it is 0."""
    mixed = weight * front.astype(np.float32) + (1 - weight) * back.astype(np.float32)
    return np.asarray(np.rint(np.clip(mixed, 0, 255)), np.uint8)
