"""Mean images of the classes and their differences, which show where a shortcut lies. For the page, not for tests."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hilum.audit.probes import REST

SIDE = 128
"""Side of the square that images are stretched to, in pixels."""

LEAST_SCALE = 8.0
"""Gray levels at the ends of the color scale, at least: smaller differences stay pale."""

_COLORS = ((0, 68, 136), (247, 247, 247), (166, 77, 0))
"""Blue, white, orange: ends and middle of the color scale, told apart with every color vision deficiency."""

_BLUR = 1.5  # pixels: a place is more than one pixel of noise
_ROWS, _COLUMNS = ("top", "middle", "bottom"), ("left", "center", "right")
_EDGE = 1 / 6  # what of a side counts as its end


@dataclass
class MeanImages:
    """Running sums of the images of each class.

    Attributes:
        sums: Class to (SIDE, SIDE) float64, gray levels.
        counts: Class to the number of images.
    """

    sums: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, label: str, image: NDArray[np.uint8]) -> None:
        """Add an image (SIDE, SIDE) uint8 of a class."""
        self.sums[label] = self.sums.get(label, np.zeros((SIDE, SIDE))) + image
        self.counts[label] = self.counts.get(label, 0) + 1

    def mean(self, labels: Sequence[str]) -> NDArray[np.float64]:
        """Return the mean image (SIDE, SIDE) float64 over all images of these classes."""
        total: NDArray[np.float64] = np.sum([self.sums[label] for label in labels], axis=0)
        return total / sum(self.counts[label] for label in labels)


@dataclass(frozen=True)
class Difference:
    """Two classes that a probe tells apart, as they look on average.

    Attributes:
        positive, negative: The classes; ``negative`` may be hilum.audit.probes.REST.
        counts: Number of images of each.
        means: (2, SIDE, SIDE) float64, gray levels.
    """

    positive: str
    negative: str
    counts: tuple[int, int]
    means: NDArray[np.float64]

    @property
    def gray_levels(self) -> NDArray[np.float64]:
        """The mean of ``positive`` less that of ``negative``, (SIDE, SIDE) float64."""
        difference: NDArray[np.float64] = self.means[0] - self.means[1]
        return difference

    @property
    def peak(self) -> tuple[int, int]:
        """Row and column of the greatest difference, smoothed over a few pixels."""
        smooth = np.abs(cv2.GaussianBlur(self.gray_levels, (0, 0), _BLUR, borderType=cv2.BORDER_REFLECT))
        row, column = np.unravel_index(int(smooth.argmax()), smooth.shape)
        return int(row), int(column)

    @property
    def place(self) -> str:
        """The greatest difference in words: ``top left corner``, ``left edge``, ``middle``."""
        row, column = (_third(position) for position in self.peak)
        if row == column == 1:
            return "middle"
        if row != 1 and column != 1:
            return f"{_ROWS[row]} {_COLUMNS[column]} corner"
        return f"{_ROWS[row] if row != 1 else _COLUMNS[column]} edge"


def view(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image (H, W) uint8 stretched to (SIDE, SIDE)."""
    way = cv2.INTER_AREA if min(gray.shape) >= SIDE else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(gray, (SIDE, SIDE), interpolation=way), np.uint8)


def difference_of(means: MeanImages, positive: str, negative: str) -> Difference:
    """Return the difference of two classes, or of one class and all others."""
    others = [label for label in means.counts if label != positive] if negative == REST else [negative]
    counts = (means.counts[positive], sum(means.counts[label] for label in others))
    return Difference(positive, negative, counts, np.stack([means.mean([positive]), means.mean(others)]))


def common_scale(differences: Sequence[Difference]) -> float:
    """Return the gray levels at the ends of the color scale, the same for all: a multiple of 4."""
    largest = max((float(np.abs(each.gray_levels).max()) for each in differences), default=0.0)
    return float(max(LEAST_SCALE, 4 * np.ceil(largest / 4)))


def mean_png(mean: NDArray[np.float64]) -> bytes:
    """Return a mean image as a gray PNG."""
    return _png(Image.fromarray(np.rint(np.clip(mean, 0, 255)).astype(np.uint8)))


def difference_png(difference: NDArray[np.float64], scale: float) -> bytes:
    """Return a signed difference as a PNG: orange where it is positive, blue where it is negative.

    Args:
        difference: (H, W) float64, gray levels.
        scale: Gray levels at the ends of the color scale.
    """
    levels = np.rint(np.clip(difference / scale, -1, 1) * 127 + 127).astype(np.uint8)  # 0 to 254, 127 is none
    image = Image.fromarray(levels)
    image.putpalette(_palette().ravel().tobytes())
    return _png(image)


def _palette() -> NDArray[np.uint8]:
    """(256, 3) uint8, of which 255 are used."""
    low, middle, high = np.array(_COLORS, np.float64)
    steps = np.linspace(-1, 1, 255)[:, None]
    colors = np.where(steps < 0, middle + (low - middle) * -steps, middle + (high - middle) * steps)
    return np.vstack([np.rint(colors), [[0, 0, 0]]]).astype(np.uint8)


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _third(position: int) -> int:
    """0 near the start of a side, 2 near its end, 1 between."""
    return 0 if position < SIDE * _EDGE else 2 if position >= SIDE * (1 - _EDGE) else 1
