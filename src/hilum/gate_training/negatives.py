"""Synthetic non-radiographs and CT slices, as negative examples in addition to those of the user.

Each function takes a random generator and the side S in pixels and returns gray levels (S, S) uint8.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Gray8 = NDArray[np.uint8]
Draw = Callable[[np.random.Generator, int], Gray8]

_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_SCRIPT_SIMPLEX)
_LETTERS = "abcdefghiklmnoprstuvwxyzABDEGHKLMNPRST0123456789,.-"


def noise(random: np.random.Generator, size: int) -> Gray8:
    """Draw noise, from white to very smooth, with random mean and contrast."""
    exponent = random.uniform(0, 2.5)
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
    radius = np.hypot(fy, fx)
    radius[0, 0] = 1 / size
    spectrum = np.fft.rfft2(random.standard_normal((size, size))) / radius**exponent
    return _levels(np.fft.irfft2(spectrum, (size, size)), random)


def gradient(random: np.random.Generator, size: int) -> Gray8:
    """Draw a linear, radial or conical gradient with noise."""
    y, x = np.mgrid[:size, :size] / size - random.uniform(0.2, 0.8, (2, 1, 1))
    angle = random.uniform(0, 2 * np.pi)
    kinds = (x * np.cos(angle) + y * np.sin(angle), np.hypot(x, y), np.arctan2(y, x))
    shade = kinds[int(random.integers(3))] + random.uniform(0, 0.05) * random.standard_normal((size, size))
    return _levels(shade, random)


def texture(random: np.random.Generator, size: int) -> Gray8:
    """Draw cells, stripes, a checkerboard or a weave."""
    y, x = np.mgrid[:size, :size].astype(np.float64)
    kind = int(random.integers(4))
    if kind == 0:
        seeds = random.uniform(0, size, (int(random.integers(8, 80)), 2))
        distance = np.min((y[..., None] - seeds[:, 0]) ** 2 + (x[..., None] - seeds[:, 1]) ** 2, axis=2)
        return _levels(np.sqrt(distance), random)
    period, angle = random.uniform(0.02, 0.3) * size, random.uniform(0, np.pi)
    one = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period)
    two = np.sin(2 * np.pi * (y * np.cos(angle) - x * np.sin(angle)) / period)
    pattern = (one, np.sign(one * two), np.maximum(one, two))[kind - 1]
    return _levels(pattern + random.uniform(0, 0.4) * random.standard_normal((size, size)), random)


def text_page(random: np.random.Generator, size: int) -> Gray8:
    """Draw a page of text in one or two columns."""
    page = np.full((size, size), 235, np.uint8)
    step, scale = random.uniform(0.03, 0.12) * size, random.uniform(0.25, 1.2)
    columns = int(random.integers(1, 3))
    font = _FONTS[int(random.integers(len(_FONTS)))]
    for column in range(columns):
        left, top = int((0.05 + column / columns) * size), step
        while top < 0.97 * size:
            line = "".join(random.choice(list(_LETTERS + "      "), int(random.integers(4, 90 // columns))))
            cv2.putText(
                page, line, (left, int(top)), font, scale * step / 25, 20, max(1, round(step / 22)), cv2.LINE_AA
            )
            top += step * random.uniform(0.9, 1.3)
        if column + 1 < columns:
            page[:, int((column + 1) / columns * size) :] = 235
    return 255 - page if random.random() < 0.3 else page


def code(random: np.random.Generator, size: int) -> Gray8:
    """Draw a random QR code or bar code."""
    page = np.full((size, size), 255, np.uint8)
    side = int(random.uniform(0.4, 0.95) * size)
    if random.random() < 0.7:
        modules = int(random.integers(21, 45))
        cells = (random.random((modules, modules)) < 0.5).astype(np.uint8)
        for row, column in ((0, 0), (0, modules - 7), (modules - 7, 0)):
            cells[row : row + 7, column : column + 7] = 1
            cells[row + 1 : row + 6, column + 1 : column + 6] = 0
            cells[row + 2 : row + 5, column + 2 : column + 5] = 1
    else:
        cells = np.repeat((random.random((1, int(random.integers(40, 110)))) < 0.5).astype(np.uint8), 20, axis=0)
    image = cv2.resize(255 * (1 - cells), (side, side), interpolation=cv2.INTER_NEAREST_EXACT)
    top = (size - side) // 2
    page[top : top + side, top : top + side] = image
    return page


def plot(random: np.random.Generator, size: int) -> Gray8:
    """Draw axes with curves, bars, points or a matrix."""
    page = np.full((size, size), 255, np.uint8)
    low, high = int(0.12 * size), int(0.93 * size)
    cv2.rectangle(page, (low, size - high), (high, size - low), 60, max(1, size // 150))
    kind, wide = int(random.integers(4)), max(1, size // 110)
    for _ in range(int(random.integers(1, 5))):
        gray = int(random.integers(0, 190))
        walk = np.cumsum(random.standard_normal(60))
        walk = (walk - walk.min()) / (np.ptp(walk) + 1e-9)
        x = np.linspace(low, high, walk.size).astype(int)
        y = (size - low - walk * (high - low)).astype(int)
        if kind == 0:
            cv2.polylines(page, [np.stack([x, y], 1).astype(np.int32)], False, gray, wide, cv2.LINE_AA)
        elif kind == 1:
            for left, top in zip(x[::6], y[::6], strict=True):
                cv2.rectangle(page, (int(left), int(top)), (int(left + 0.05 * size), size - low), gray, -1)
        elif kind == 2:
            for left, top in zip(x, random.permutation(y), strict=True):
                cv2.circle(page, (int(left), int(top)), 2 * wide, gray, -1, cv2.LINE_AA)
        else:
            cells = random.integers(0, 255, (int(random.integers(2, 12)),) * 2).astype(np.uint8)
            side = high - low
            page[size - high : size - low, low:high] = cv2.resize(
                cells, (side, side), interpolation=cv2.INTER_NEAREST_EXACT
            )
    for tick in np.linspace(low, high, 6).astype(int).tolist():
        cv2.putText(page, f"{random.random():.1f}", (tick, size - low // 3), _FONTS[0], size / 800, 30, 1, cv2.LINE_AA)
    return page


def scene(random: np.random.Generator, size: int) -> Gray8:
    """Draw shaded shapes in front of a horizon, similar to a photograph."""
    page = gradient(random, size).astype(np.float32)
    horizon = int(random.uniform(0.3, 0.8) * size)
    page[horizon:] = 0.5 * page[horizon:] + 0.5 * texture(random, size)[horizon:]
    for _ in range(int(random.integers(3, 25))):
        layer, gray = np.zeros((size, size), np.uint8), float(random.integers(0, 255))
        center, reach = random.uniform(0, size, 2), random.uniform(0.03, 0.3) * size
        corners = center + reach * random.uniform(-1, 1, (int(random.integers(3, 7)), 2))
        if random.random() < 0.4:
            cv2.circle(layer, (int(center[0]), int(center[1])), int(reach), 255, -1, cv2.LINE_AA)
        else:
            cv2.fillConvexPoly(layer, cv2.convexHull(corners.astype(np.int32)), 255, cv2.LINE_AA)
        share = layer.astype(np.float32) / 255
        shade = np.linspace(0.7, 1.2, size, dtype=np.float32)[:, None]
        page = np.asarray(page * (1 - share) + share * gray * shade, np.float32)
    return np.asarray(np.clip(page, 0, 255), np.uint8)


def axial_slice(random: np.random.Generator, size: int) -> Gray8:
    """Draw an axial CT slice of the chest with lungs, spine, ribs and table."""
    y, x = np.mgrid[:size, :size] / size - 0.5
    air, soft = random.uniform(0, 0.1), random.uniform(0.4, 0.7)
    wide, high = random.uniform(0.33, 0.47), random.uniform(0.22, 0.36)
    body = (x / wide) ** 2 + (y / high) ** 2
    image = np.where(body < 1, soft, air)
    image[(body > 0.88) & (body < 1)] = soft * random.uniform(0.5, 0.8)
    for side in (-1, 1):
        angle = side * random.uniform(0, 0.35)
        dx, dy = x - side * random.uniform(0.42, 0.5) * wide, y + random.uniform(-0.05, 0.08) * high
        along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        lung = (along / (random.uniform(0.3, 0.4) * wide)) ** 2 + (across / (random.uniform(0.55, 0.75) * high)) ** 2
        image[lung < 1] = random.uniform(0.02, 0.2)
        vessels = cv2.GaussianBlur(random.standard_normal((size, size)), (0, 0), size / 90)
        image[(lung < 1) & (vessels > 2.2 * vessels.std())] = soft
    bone = random.uniform(0.85, 1.0)
    image[(x / 0.05) ** 2 + ((y - 0.62 * high) / 0.055) ** 2 < 1] = bone
    for turn in random.uniform(0, 2 * np.pi, int(random.integers(6, 14))):
        rib = ((x - 0.9 * wide * np.cos(turn)) / 0.03) ** 2 + ((y - 0.9 * high * np.sin(turn)) / 0.015) ** 2
        image[rib < 1] = bone
    if random.random() < 0.6:
        image[np.abs(y - 1.1 * high - 0.3 * x**2) < 0.008] = 0.5
    image = cv2.GaussianBlur(image, (0, 0), size / 250) + random.uniform(0.005, 0.05) * random.standard_normal(
        image.shape
    )
    return np.asarray(np.clip(255 * image, 0, 255), np.uint8)


def coronal_slice(random: np.random.Generator, size: int) -> Gray8:
    """Draw a coronal CT slice of the chest, in which ribs are dots."""
    y, x = np.mgrid[:size, :size] / size - 0.5
    soft, bone, air = random.uniform(0.35, 0.8), random.uniform(0.85, 1.0), random.uniform(0.0, 0.1)
    wide = random.uniform(0.3, 0.46)
    half = wide * np.clip(1.0 - 0.5 * np.clip(-y - random.uniform(0.2, 0.35), 0, 1) / 0.2, 0.25, 1)
    image = np.where(np.abs(x) < half, soft, air)
    dark = random.uniform(0.02, 0.45)
    top, floor = random.uniform(-0.4, -0.3), random.uniform(0.1, 0.35)
    vessels = cv2.GaussianBlur(random.standard_normal((size, size)), (0, 0), size / random.uniform(50, 120))
    for side in (-1, 1):
        middle, reach = side * 0.53 * wide, 0.37 * wide
        dome = floor + 0.12 * ((x - middle) / reach) ** 2
        tip = top + 0.22 * ((x - middle) / reach) ** 2
        lung = (np.abs(x - middle) < reach) & (y > tip) & (y < dome)
        image[lung] = dark
        image[lung & (vessels > random.uniform(0.6, 2.0) * vessels.std())] = soft * random.uniform(0.6, 1.0)
        for level in np.arange(top, floor + 0.1, random.uniform(0.045, 0.08)):
            edge = side * (0.93 * wide - 0.25 * max(0.0, top + 0.1 - float(level)))
            image[((x - edge) / 0.014) ** 2 + ((y - level) / 0.02) ** 2 < 1] = bone
    if random.random() < 0.7:
        spine = np.abs(x) < random.uniform(0.03, 0.06)
        image[spine & (np.sin(y * random.uniform(70, 120)) > -0.7)] = bone
    image = cv2.GaussianBlur(image, (0, 0), size / 250) + random.uniform(0.005, 0.05) * random.standard_normal(
        image.shape
    )
    return np.asarray(np.clip(255 * image, 0, 255), np.uint8)


NEGATIVES: dict[str, Draw] = {
    "noise": noise, "gradient": gradient, "texture": texture, "text page": text_page, "code": code, "plot": plot,
    "scene": scene,
}  # fmt: skip
"""Drawing functions of non-radiographs by content."""

SLICES: dict[str, Draw] = {"axial slice": axial_slice, "coronal slice": coronal_slice}
"""Drawing functions of CT slices by plane."""


def _levels(values: NDArray[np.floating], random: np.random.Generator) -> Gray8:
    """Convert values to gray levels with random mean and contrast."""
    flat = (values - values.mean()) / (values.std() + 1e-9)
    return np.asarray(np.clip(random.uniform(40, 215) + random.uniform(10, 70) * flat, 0, 255), np.uint8)
