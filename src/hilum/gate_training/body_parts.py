"""Synthetic radiographs of other body parts, as negative examples: hand, limb, skull, pelvis, abdomen, breast, lateral.

Each function takes a random generator and the side S in pixels and returns gray levels (S, S) uint8. The images are
rough sketches of the distribution of bright and dark regions.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

Gray8 = NDArray[np.uint8]
Image = NDArray[np.float32]
Part = Callable[[np.random.Generator, int], Gray8]

Point = tuple[float, float]


def hand(random: np.random.Generator, size: int) -> Gray8:
    """Draw a hand with the fingers up."""
    image = _blank(random, size)
    wrist = (0.5 + random.uniform(-0.05, 0.05), random.uniform(0.8, 0.95))
    spread, reach = random.uniform(0.6, 1.1), random.uniform(0.55, 0.75)
    for finger, share in enumerate((0.72, 0.95, 1.0, 0.93, 0.75)):
        angle = spread * (finger - 2) / 2.6 + random.uniform(-0.04, 0.04)
        direction = (float(np.sin(angle)), -float(np.cos(angle)))
        joints = [0.12, 0.46, 0.68, 0.83, 0.95] if finger else [0.15, 0.5, 0.72, 0.92]
        ends = [
            (wrist[0] + reach * share * j * direction[0], wrist[1] + reach * share * j * direction[1]) for j in joints
        ]
        _bar(image, wrist, ends[-1], 0.075, 0.28)
        for near, far in pairwise(ends):
            _bone(image, near, (near[0] + 0.9 * (far[0] - near[0]), near[1] + 0.9 * (far[1] - near[1])), 0.026)
    for _ in range(8):
        _disc(image, (wrist[0] + random.uniform(-0.07, 0.07), wrist[1] + random.uniform(-0.03, 0.05)), 0.03, 0.5)
    for side in (-0.035, 0.035):
        _bone(image, (wrist[0] + side, wrist[1] + 0.06), (wrist[0] + side, 1.1), 0.05)
    return _exposed(image, random)


def limb(random: np.random.Generator, size: int) -> Gray8:
    """Draw two long bones with a joint, such as a knee, an elbow or an ankle."""
    image = _blank(random, size)
    joint = (0.5 + random.uniform(-0.08, 0.08), random.uniform(0.4, 0.6))
    bend, wide = random.uniform(-0.9, 0.9), random.uniform(0.07, 0.13)
    top = (joint[0] + random.uniform(-0.1, 0.1), -0.1)
    foot = (joint[0] + 0.6 * float(np.sin(bend)), joint[1] + 0.6 * float(np.cos(bend)))
    flesh = wide * random.uniform(2.0, 3.4)
    _bar(image, top, joint, flesh, 0.3)
    _bar(image, joint, foot, 0.9 * flesh, 0.3)
    _bone(image, top, (joint[0], joint[1] - 0.01), wide)
    if random.random() < 0.6:
        for side in (-0.6, 0.6):
            shift = side * wide
            _bone(image, (joint[0] + shift, joint[1] + 0.03), (foot[0] + shift, foot[1]), 0.55 * wide)
    else:
        _bone(image, (joint[0], joint[1] + 0.03), foot, wide)
    if random.random() < 0.5:
        _disc(image, (joint[0] + 0.6 * wide, joint[1] - 0.05), 0.6 * wide, 0.35)
    return _exposed(image, random)


def skull(random: np.random.Generator, size: int) -> Gray8:
    """Draw a skull with jaw and neck, lateral or frontal."""
    image = _blank(random, size)
    center, wide, high = (0.5, random.uniform(0.36, 0.44)), random.uniform(0.27, 0.4), random.uniform(0.28, 0.36)
    frontal = random.random() < 0.5
    wide = 0.75 * wide if frontal else wide
    _oval(image, center, wide, high, 0.45)
    _ring(image, center, wide, high, 0.03, 0.75)
    jaw = (0.5, center[1] + 1.05 * high) if frontal else (0.5 - 0.55 * wide, center[1] + 0.95 * high)
    _oval(image, jaw, 0.55 * wide, 0.4 * high, 0.35)
    _ring(image, jaw, 0.5 * wide, 0.35 * high, 0.035, 0.5)
    for tooth in range(9):
        _disc(image, (jaw[0] + (tooth - 4) * 0.02, jaw[1]), 0.012, 0.6)
    for side in (-1, 1) if frontal else (-1,):
        eye = (0.5 + side * (0.42 if frontal else 0.6) * wide, center[1] + 0.35 * high)
        _oval(image, eye, 0.25 * wide, 0.2 * high, -0.25)
        _ring(image, eye, 0.25 * wide, 0.2 * high, 0.015, 0.4)
    neck = 0.5 if frontal else 0.5 + 0.25 * wide
    _spine(image, random, neck, center[1] + high, 1.05, 0.05)
    _bar(image, (neck, center[1] + 0.8 * high), (neck, 1.1), 0.16, 0.2)
    return _exposed(image, random)


def pelvis(random: np.random.Generator, size: int) -> Gray8:
    """Draw a pelvis with iliac wings, sacrum, hips and thighs."""
    image = _blank(random, size)
    _oval(image, (0.5, 0.5), random.uniform(0.5, 0.65), random.uniform(0.5, 0.7), 0.35)
    level = random.uniform(0.25, 0.4)
    for side in (-1, 1):
        _oval(image, (0.5 + side * 0.24, level), 0.16, 0.17, 0.3)
        _ring(image, (0.5 + side * 0.24, level), 0.16, 0.17, 0.02, 0.3)
        hip = (0.5 + side * random.uniform(0.24, 0.28), level + 0.25)
        _disc(image, hip, 0.075, 0.4)
        _bone(image, hip, (hip[0] + side * 0.08, level + 0.3), 0.08)
        _bone(image, (hip[0] + side * 0.08, level + 0.28), (hip[0] + side * 0.05, 1.1), 0.09)
        _ring(image, (0.5 + side * 0.1, level + 0.34), 0.07, 0.06, 0.03, 0.45)
    _spine(image, random, 0.5, -0.05, level, 0.075)
    _oval(image, (0.5, level + 0.08), 0.09, 0.13, 0.3)
    return _exposed(image, random)


def abdomen(random: np.random.Generator, size: int) -> Gray8:
    """Draw an abdomen with lumbar spine, bowel gas and pelvic wings."""
    image = _blank(random, size)
    _oval(image, (0.5, 0.5), random.uniform(0.45, 0.6), random.uniform(0.6, 0.9), 0.45)
    _spine(image, random, 0.5, -0.05, 0.8, random.uniform(0.06, 0.08))
    for _ in range(int(random.integers(6, 22))):
        place = (random.uniform(0.15, 0.85), random.uniform(0.2, 0.9))
        _oval(image, place, random.uniform(0.02, 0.09), random.uniform(0.02, 0.06), -random.uniform(0.1, 0.3))
    for side in (-1, 1):
        _oval(image, (0.5 + side * 0.26, 0.85), 0.17, 0.15, 0.25)
        _bone(image, (0.5 + side * 0.08, 0.02), (0.5 + side * 0.42, 0.16), 0.02)
    return _exposed(image, random)


def breast(random: np.random.Generator, size: int) -> Gray8:
    """Draw a mammogram: a half disc at the edge of a dark image, with strands towards the nipple."""
    image = np.zeros((size, size), np.float32)
    center, wide, high = (0.0, random.uniform(0.4, 0.6)), random.uniform(0.35, 0.75), random.uniform(0.28, 0.45)
    _oval(image, center, wide, high, random.uniform(0.25, 0.5))
    inside = image > 0
    strands = cv2.GaussianBlur(random.standard_normal((size, size)).astype(np.float32), (0, 0), 0.012 * size)
    image[inside] += random.uniform(0.05, 0.2) * (strands / strands.std())[inside]
    for _ in range(int(random.integers(10, 40))):
        start = (random.uniform(0, 0.5 * wide), center[1] + random.uniform(-0.8, 0.8) * high)
        _bar(image, start, (random.uniform(0.6, 0.95) * wide, center[1] + random.uniform(-0.2, 0.2) * high), 0.008, 0.1)
    image[~inside] = 0
    if random.random() < 0.6:
        label = np.zeros((size, size), np.uint8)
        place = (int(0.7 * size), int(0.15 * size))
        cv2.putText(label, "R MLO", place, cv2.FONT_HERSHEY_SIMPLEX, size / 500, 200, 1, cv2.LINE_AA)
        image = np.maximum(image, label.astype(np.float32) / 255)
    return _exposed(image, random)


def lateral_chest(random: np.random.Generator, size: int) -> Gray8:
    """Draw a lateral chest radiograph."""
    image = _blank(random, size)
    wide = random.uniform(0.28, 0.42)
    _oval(image, (0.5, 0.55), 1.15 * wide, 0.62, 0.55)
    _oval(image, (0.5, random.uniform(0.4, 0.5)), 0.78 * wide, random.uniform(0.32, 0.42), -0.35)
    _oval(image, (0.5 - 0.3 * wide, random.uniform(0.58, 0.68)), 0.42 * wide, 0.15, 0.28)
    _oval(image, (0.5, random.uniform(0.85, 1.0)), 1.0 * wide, 0.2, 0.35)
    for level in np.arange(0.12, 0.95, random.uniform(0.055, 0.08)):
        back = 0.5 + 0.78 * wide + 0.07 * float(np.sin(3.1 * level))
        _oval(image, (back, float(level)), 0.05, 0.022, 0.25)
        _bone(image, (back, float(level)), (0.5 - 0.6 * wide, float(level) + 0.17), 0.012)
    _bone(image, (0.5 - 0.82 * wide, 0.2), (0.5 - 0.95 * wide, 0.62), 0.02)
    _bar(image, (0.45, 0.0), (0.3, 0.12), 0.14, 0.3)
    return _exposed(image, random)


BODY_PARTS: dict[str, Part] = {
    "hand": hand, "limb": limb, "skull": skull, "pelvis": pelvis, "abdomen": abdomen, "breast": breast,
}  # fmt: skip
"""Drawing functions by body part, without the lateral chest, which is a kind of its own."""


def _blank(random: np.random.Generator, size: int) -> Image:
    return np.full((size, size), random.uniform(0.0, 0.12), np.float32)


def _oval(image: Image, center: Point, wide: float, high: float, level: float) -> None:
    """Add ``level`` inside an ellipse. All lengths in this module are fractions of the side."""
    size = image.shape[0]
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    inside = ((x - center[0]) / wide) ** 2 + ((y - center[1]) / high) ** 2
    image += level * np.clip((1 - inside) * 6, 0, 1)


def _ring(image: Image, center: Point, wide: float, high: float, thick: float, level: float) -> None:
    _oval(image, center, wide, high, level)
    _oval(image, center, max(0.005, wide - thick), max(0.005, high - thick), -level)


def _disc(image: Image, center: Point, radius: float, level: float) -> None:
    _oval(image, center, radius, radius, level)


def _bar(image: Image, start: Point, end: Point, wide: float, level: float) -> None:
    """Add ``level`` along a thick line."""
    size = image.shape[0]
    layer = np.zeros((size, size), np.uint8)
    near, far = ((int(x * size), int(y * size)) for x, y in (start, end))
    cv2.line(layer, near, far, 255, max(1, round(wide * size)), cv2.LINE_AA)
    image += level * layer.astype(np.float32) / 255


def _bone(image: Image, start: Point, end: Point, wide: float) -> None:
    """Draw the shaft of a bone, with edges brighter than the middle."""
    _bar(image, start, end, wide, 0.35)
    _bar(image, start, end, 0.55 * wide, -0.13)


def _spine(image: Image, random: np.random.Generator, x: float, top: float, bottom: float, wide: float) -> None:
    step = random.uniform(0.9, 1.3) * wide
    for level in np.arange(top, bottom, step):
        y = float(level)
        _bar(image, (x - 0.4 * wide, y), (x + 0.4 * wide, y), 0.72 * step, 0.3)


def _exposed(image: Image, random: np.random.Generator) -> Gray8:
    """Rotate, blur, add noise, and return the image with a random exposure."""
    size = image.shape[0]
    turn = cv2.getRotationMatrix2D((size / 2, size / 2), random.uniform(-20, 20), random.uniform(0.8, 1.25))
    turned = cv2.warpAffine(image, turn, (size, size), borderMode=cv2.BORDER_REPLICATE)
    soft = cv2.GaussianBlur(turned, (0, 0), random.uniform(0.004, 0.012) * size)
    grainy = soft + random.uniform(0.005, 0.03) * random.standard_normal(image.shape, np.float32)
    return np.asarray(np.clip(255 * random.uniform(0.7, 1.1) * grainy, 0, 255), np.uint8)
