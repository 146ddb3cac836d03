"""Random views of images for the gate's training: rotated, mirrored, inverted, cropped, annotated or unchanged.

The padding of a cached image is removed, the content is changed and letterboxed again, so that a view corresponds to
a preprocessed file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.config import PreprocessSpec
from hilum.imaging.preprocess import Gray8, content_of, fit_image
from hilum.types import Radiograph

Mask = NDArray[np.bool_]

UNKNOWN = -1
"""Value of an unknown property."""
KEPT, LOST = 0.97, 0.75
"""A view is complete if it contains at least the fraction KEPT of the lungs, and cropped below LOST."""


@dataclass(frozen=True)
class View:
    """One training image of the gate and its properties, UNKNOWN if they are unknown or do not apply."""

    image: Gray8  # (S, S)
    kind: int
    turn: int = UNKNOWN  # quarter turns clockwise, 0 to 3
    inverted: int = UNKNOWN
    mirrored: int = UNKNOWN
    cropped: int = UNKNOWN
    annotated: int = UNKNOWN

    @property
    def properties(self) -> tuple[int, ...]:
        """Kind, rotation in quarter turns, and the flags in the order of hilum.gate.verdict.FLAGS."""
        return (self.kind, self.turn, self.inverted, self.mirrored, self.cropped, self.annotated)


def letterboxed(image: Gray8, size: int) -> Gray8:
    """Resize and pad an image (H, W) uint8 to (S, S) like a preprocessed file; S is a multiple of 32."""
    return fit_image(Radiograph(image), _square(size))


@cache
def _square(size: int) -> PreprocessSpec:
    return PreprocessSpec(size=size)


def image_view(random: np.random.Generator, square: Gray8, lungs: Mask | None, size: int, kind: int) -> View:
    """Return a random view of a frontal radiograph.

    Args:
        random: Random generator.
        square: (T, T) uint8, letterboxed.
        lungs: (T, T) bool, or None if unknown; the image is then not cropped.
        size: Side S of the view, pixels.
        kind: Index of the kind ``frontal``.
    """
    rows, columns = content_of(square)
    image, lung = square[rows, columns], None if lungs is None else lungs[rows, columns]
    image, lung = _tilted(random, image, lung)
    image, cropped = _cut(random, image, lung)
    if random.random() < 0.2:
        image = _wired(random, image)
    image = toned(random, image)
    annotated = int(random.random() < 0.15)
    if annotated:
        image = _annotated(random, image)
    inverted, mirrored = int(random.random() < 0.25), int(random.random() < 0.3)
    turn = int(random.integers(1, 4)) if random.random() < 0.45 else 0
    if inverted:
        image = 255 - image
    if mirrored:
        image = np.ascontiguousarray(image[:, ::-1])
    image = np.ascontiguousarray(np.rot90(image, -turn))
    if random.random() < 0.15:
        image = _bordered(random, image)
    return View(letterboxed(image, size), kind, turn, inverted, mirrored, cropped, annotated)


def other_view(random: np.random.Generator, image: Gray8, size: int, kind: int) -> View:
    """Return a random view of a negative example (H, W) uint8: cropped, rotated, mirrored, with random exposure."""
    height, width = image.shape
    share = random.uniform(0.6, 1.0, 2)
    high, wide = max(8, int(share[0] * height)), max(8, int(share[1] * width))
    top, left = int(random.integers(height - high + 1)), int(random.integers(width - wide + 1))
    part = toned(random, image[top : top + high, left : left + wide])
    if random.random() < 0.5:
        part = part[:, ::-1]
    if random.random() < 0.25:
        part = 255 - part
    part = np.rot90(part, int(random.integers(4)) if random.random() < 0.4 else 0)
    return View(letterboxed(np.ascontiguousarray(part), size), kind)


def collage_view(random: np.random.Generator, images: Sequence[Gray8], size: int, kind: int) -> View:
    """Return a view of several images in a grid, with or without gaps and text."""
    rows = 2 if len(images) > 3 or random.random() < 0.3 else 1
    columns = -(-len(images) // rows)
    cell, gap = 64, int(random.integers(0, 8))
    paper = int(random.choice([0, 255, int(random.integers(256))]))
    stretched = random.random() < 0.5
    high, wide = (cell, int(cell * random.uniform(0.75, 1.2)))
    page = np.full((rows * (high + gap) + gap, columns * (wide + gap) + gap), paper, np.uint8)
    for place, image in enumerate(images):
        top, left = gap + (place // columns) * (high + gap), gap + (place % columns) * (wide + gap)
        one = cv2.resize(image, (wide, high), interpolation=cv2.INTER_AREA) if stretched else letterboxed(image, cell)
        page[top : top + high, left : left + wide] = one[:, :wide] if stretched else cv2.resize(one, (wide, high))
    if random.random() < 0.3:
        page = _annotated(random, page)
    return View(letterboxed(toned(random, page), size), kind)


def screenshot_view(random: np.random.Generator, image: Gray8, size: int, kind: int) -> View:
    """Return a view of an image in a window with bars and text, or on a page or wall."""
    high, wide = 160, int(160 * random.uniform(1.0, 1.8))
    page = np.full((high, wide), int(random.choice([0, 30, 60, 200, 235, 255])), np.uint8)
    side = int(random.uniform(0.45, 0.8) * high)
    top, left = int(random.integers(10, high - side)), int(random.integers(2, wide - side))
    page[top : top + side, left : left + side] = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    page[: int(random.integers(6, 20))] = int(random.integers(20, 240))
    if random.random() < 0.6:
        page[:, : max(1, min(left, int(random.integers(8, 50))))] = int(random.integers(20, 240))
    for _ in range(int(random.integers(4, 20))):
        place = (int(random.integers(wide)), int(random.choice([5, *random.integers(high, size=2)])))
        if not (left - 20 < place[0] < left + side and top < place[1] < top + side):
            word = "".join(random.choice(list("abcdefgnorstuvw 0123456789:"), int(random.integers(3, 14))))
            ink = 255 if page[min(high - 1, place[1]), place[0]] < 128 else 20
            cv2.putText(page, word, place, cv2.FONT_HERSHEY_SIMPLEX, 0.25, ink, 1, cv2.LINE_AA)
    return View(letterboxed(toned(random, page), size), kind)


def toned(random: np.random.Generator, image: Gray8) -> Gray8:
    """Return the image with random exposure, blur, noise and JPEG compression."""
    gray = (image.astype(np.float32) / 255) ** float(np.exp(random.uniform(-0.6, 0.6)))
    gray = gray * random.uniform(0.7, 1.15) + random.uniform(-0.06, 0.1)
    if random.random() < 0.3:
        gray = np.asarray(cv2.GaussianBlur(gray, (0, 0), random.uniform(0.3, 1.6)), np.float32)
    if random.random() < 0.3:
        gray = gray + random.uniform(0.005, 0.06) * random.standard_normal(gray.shape, np.float32)
    toned_image = np.asarray(np.clip(255 * gray, 0, 255), np.uint8)
    if random.random() < 0.2:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(15, 90))]
        coded = cv2.imencode(".jpg", toned_image, quality)[1]
        return np.asarray(cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE), np.uint8)
    return toned_image


def _tilted(random: np.random.Generator, image: Gray8, lung: Mask | None) -> tuple[Gray8, Mask | None]:
    """Rotate an image by a few degrees and scale it slightly, with its lung mask."""
    height, width = image.shape
    drawn = cv2.getRotationMatrix2D((width / 2, height / 2), random.uniform(-9, 9), random.uniform(0.9, 1.05))
    turn = np.array(drawn, np.float64)
    turn[:, :2] *= random.uniform(0.93, 1.07, (1, 2))
    turn[:, 2] += (np.array([width, height]) / 2) - turn[:, :2] @ (np.array([width, height]) / 2) - turn[:, 2]
    edge = cv2.BORDER_REPLICATE if random.random() < 0.5 else cv2.BORDER_CONSTANT
    moved = np.asarray(cv2.warpAffine(image, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=edge), np.uint8)
    if lung is None:
        return moved, None
    turned = cv2.warpAffine(lung.astype(np.uint8), turn, (width, height), flags=cv2.INTER_NEAREST)
    return moved, np.asarray(turned) > 0


def _bordered(random: np.random.Generator, image: Gray8) -> Gray8:
    """Add uniform margins on some sides, like scanners and viewers."""
    reach = 0.13 * min(image.shape)
    top, bottom, left, right = (int(random.uniform(0, reach)) if random.random() < 0.6 else 0 for _ in range(4))
    level = int(random.choice([0, 0, 0, 255, 128]))
    return cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=level)  # type: ignore[return-value]


def _cut(random: np.random.Generator, image: Gray8, lung: Mask | None) -> tuple[Gray8, int]:
    """Return a random crop of the image, and whether it cuts off the lungs."""
    if lung is None or not lung.any():
        return image, UNKNOWN
    height, width = image.shape
    hard = random.random() < 0.4
    for _ in range(8):
        share = random.uniform(0.4, 0.85, 2) if hard else random.uniform(0.88, 1.0, 2)
        high, wide = max(8, int(share[0] * height)), max(8, int(share[1] * width))
        top, left = int(random.integers(height - high + 1)), int(random.integers(width - wide + 1))
        window = (slice(top, top + high), slice(left, left + wide))
        kept = np.count_nonzero(lung[window]) / np.count_nonzero(lung)
        if (kept < LOST) if hard else (kept >= KEPT):
            return image[window], int(hard)
    return image, 0


def _wired(random: np.random.Generator, image: Gray8) -> Gray8:
    """Draw cables, tubes and electrodes over the image."""
    height, width = image.shape
    layer = np.zeros((height, width), np.uint8)
    for _ in range(int(random.integers(1, 9))):
        ends = random.uniform(-0.1, 1.1, (4, 2)) * (width, height)
        t = np.linspace(0, 1, 40)[:, None]
        curve = (1 - t) ** 3 * ends[0] + 3 * t * (1 - t) ** 2 * ends[1] + 3 * t**2 * (1 - t) * ends[2] + t**3 * ends[3]
        cv2.polylines(layer, [curve.astype(np.int32)], False, int(random.integers(60, 220)), 1, cv2.LINE_AA)
    for _ in range(int(random.integers(0, 6))):
        place = (int(random.integers(width)), int(random.integers(height)))
        cv2.circle(layer, place, int(random.integers(1, 4)), int(random.integers(80, 255)), -1, cv2.LINE_AA)
    share = layer.astype(np.float32) / 255 * random.uniform(0.3, 1.0)
    return np.asarray(image + share * (255 - image.astype(np.float32)), np.uint8)


def _annotated(random: np.random.Generator, image: Gray8) -> Gray8:
    """Draw text, arrows or circles over the image."""
    marked: Gray8 = image.copy()
    height, width = image.shape
    ink = int(random.choice([255, 255, 230, 0]))
    for _ in range(int(random.integers(1, 4))):
        start = (int(random.integers(width)), int(random.integers(height)))
        end = (start[0] + int(random.integers(-25, 26)), start[1] + int(random.integers(-25, 26)))
        what = int(random.integers(3))
        if what == 0:
            lines = int(random.integers(1, 5))
            for line in range(lines):
                word = "".join(random.choice(list("ABCDEFGHKLMNOPRSTUXYZ 0123456789:/"), int(random.integers(4, 16))))
                place = (int(0.8 * start[0]), start[1] + 8 * line)
                cv2.putText(marked, word, place, cv2.FONT_HERSHEY_SIMPLEX, 0.28, ink, 1, cv2.LINE_AA)
        elif what == 1:
            cv2.arrowedLine(marked, start, end, ink, int(random.integers(1, 3)), cv2.LINE_AA, tipLength=0.4)
        else:
            reach = (int(random.integers(5, 22)), int(random.integers(5, 22)))
            cv2.ellipse(marked, start, reach, 0, 0, 360, ink, int(random.integers(1, 3)), cv2.LINE_AA)
    return marked
