"""Features of an image outside the lungs, one short vector per probe. Needs NumPy and OpenCV only.

``file``, ``border`` and ``outside_lung`` hold nothing of the lungs, so a class that they predict is predicted by a
shortcut. ``thumbnail`` and ``histogram`` cover the whole image and may follow the disease itself. Noise and sharpness
are measured on the file's own pixels, tones and shapes on a square of fixed size.
"""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hilum.imaging.decoding import DECODE_ERRORS
from hilum.imaging.preprocess import content_of, to_uint8
from hilum.types import Radiograph

IMAGE_PROBES = ("file", "border", "outside_lung", "thumbnail", "histogram")
"""The keys of image_features."""

Features = NDArray[np.float32]

_SIDE = 64  # the square on which tones and shapes are taken
_FRAME = 1 / 16  # the border's width, as a share of each side
_CORNER = 1 / 8
_ERASE = 1 / 24  # how far beyond the mask the lungs are erased, as a share of the longer side
_GRID = 12
_FORMATS = ("PNG", "JPEG", "WEBP", "WEBP lossless", "BMP", "TIFF", "DICOM")
_MODES = ("1", "L", "P", "RGB", "RGBA", "CMYK", "I", "I;16")
# Immerkær 1996, Computer Vision and Image Understanding 64:300: blind to planes and straight edges.
_IMMERKAER = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
_PER_SIGMA = float(np.sqrt(np.pi / 2) / 6)
_FINEST = 0.1  # gray levels: below it noise is rounding


@dataclass(frozen=True)
class FileFacts:
    """Facts in a file's header.

    The size in bytes is not among them: it depends on the content of the image, and so on the disease.

    Attributes:
        format: ``PNG``, ``JPEG``, ``WEBP``, ``WEBP lossless``, ``DICOM``, ...; empty where it is not known.
        mode: Pillow's mode (``L``, ``RGB``, ``I;16``, ...); empty for DICOM.
        quantization: The mean of a JPEG's luminance table, the coarser the higher; 0 for other formats.
        density: Dots per inch as declared; 0 where nothing is.
        extras: How many further entries the header has (EXIF, color profile, software, progressive coding).
    """

    format: str = ""
    mode: str = ""
    quantization: float = 0.0
    density: float = 0.0
    extras: int = 0


def file_facts(content: bytes) -> FileFacts:
    """Read the facts in a file's header; no pixel is decoded. A header that cannot be parsed gives empty facts."""
    if content[128:132] == b"DICM":
        return FileFacts("DICOM")
    try:
        with Image.open(io.BytesIO(content)) as image:
            name = str(image.format)
            if name == "WEBP" and content[12:16] != b"VP8 " and b"VP8L" in content[12:256]:
                name = "WEBP lossless"
            table = getattr(image, "quantization", {}).get(0, [0])
            density = image.info.get("dpi", (0,))[0]
            return FileFacts(name, image.mode, float(np.mean(table)), float(density), len(image.info))
    except DECODE_ERRORS:
        return FileFacts()


def image_features(radiograph: Radiograph, facts: FileFacts, lung: NDArray[np.bool_] | None) -> dict[str, Features]:
    """Return one vector per probe of IMAGE_PROBES.

    Args:
        radiograph: (H, W) pixels.
        facts: Facts of its file.
        lung: (h, w) bool, the lung mask of the same frame at any size; None without a mask.

    Returns:
        Vectors of float32, of the same lengths for every image. ``outside_lung`` is all NaN without a mask, or with
        one that is empty or, dilated, covers the image.
    """
    pixels = to_uint8(radiograph)
    square = np.asarray(_resize(pixels, _SIDE, _SIDE), np.float32)
    return {
        "file": _file(radiograph, facts),
        "border": _border(pixels.astype(np.float32), square),
        "outside_lung": _outside_lung(pixels.astype(np.float32), lung),
        "thumbnail": _resize(square, 8, 8).ravel().astype(np.float32),
        "histogram": _histogram(pixels, 32),
    }


def _file(radiograph: Radiograph, facts: FileFacts) -> Features:
    height, width = radiograph.shape
    numbers = [
        width, height, np.log(width * height), width / height, radiograph.bits_stored,
        np.log1p(radiograph.color_difference), facts.quantization, facts.density, facts.extras,
    ]  # fmt: skip
    codes = [facts.format == name for name in _FORMATS] + [facts.mode == name for name in _MODES]
    return np.array([*numbers, *codes, radiograph.photometric_interpretation == "MONOCHROME1"], np.float32)


def commonest_file_facts(features: Features) -> dict[str, dict[str, Any]]:
    """Return the commonest size, format, color mode and bit depth of some files, each with its share.

    Args:
        features: (N, F) float32, rows of the probe ``file``; N at least 1.

    Returns:
        Fact to ``{"value": "1024 × 1024", "share": 0.97}``.
    """
    first = 9  # the numbers stand before the codes
    formats = features[:, first : first + len(_FORMATS)]
    modes = features[:, first + len(_FORMATS) : first + len(_FORMATS) + len(_MODES)]
    columns = {
        "size": [f"{width:.0f} × {height:.0f}" for width, height in features[:, :2]],
        "format": [_FORMATS[int(row.argmax())] if row.any() else "other" for row in formats],
        "mode": [_MODES[int(row.argmax())] if row.any() else "–" for row in modes],
        "bits": [f"{bits:.0f}" for bits in features[:, 4]],
    }
    found = {}
    for name, values in columns.items():
        value, times = Counter(values).most_common(1)[0]
        found[name] = {"value": value, "share": times / len(values)}
    return found


def _border(pixels: Features, square: Features) -> Features:
    """Tones on the square: per side the mean, spread and step inwards, per corner the mean and brightest; noise."""
    width = round(_SIDE * _FRAME)
    sides, noise = [], []
    rim = max(4, round(max(pixels.shape) * _FRAME))
    for turn in range(4):
        turned = np.rot90(square, turn)
        strip, inner = turned[:width], turned[width : width + width // 2]
        sides += [strip.mean(), strip.std(), strip.mean() - inner.mean(), np.abs(np.diff(strip, axis=0)).mean()]
        noise.append(_sharpness(np.ascontiguousarray(np.rot90(pixels, turn)[:rim]), None))
    frame = np.ones((_SIDE, _SIDE), np.bool_)
    frame[width:-width, width:-width] = False
    steps = np.abs(square - np.roll(square, 1, 0))[width - 1 : width + 2].mean(axis=1)
    corners = []
    corner = round(_SIDE * _CORNER)
    for turn in range(4):
        patch = np.rot90(square, turn)[:corner, :corner]
        corners += [patch.mean(), patch.max(), np.percentile(patch, 80), patch.std()]
    extremes = [(square[frame] <= 2).mean(), (square[frame] >= 253).mean(), *np.percentile(square[frame], [5, 50, 95])]
    apart, whole = np.array(noise)[:, :2].ravel(), np.mean(noise, axis=0)
    return np.array([*sides, *apart, *corners, *extremes, *steps, *whole], np.float32)


def _outside_lung(pixels: Features, lung: NDArray[np.bool_] | None) -> Features:
    """The erased image on a grid, the histogram and noise of what is left, and the frame around the lungs."""
    length = _GRID**2 + 16 + 4 + 6
    if lung is None or not lung.any():
        return np.full(length, np.nan, np.float32)
    height, width = pixels.shape
    reach = max(3, round(max(pixels.shape) * _ERASE))
    own = cv2.resize(lung.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    distance = cv2.distanceTransform(1 - own, cv2.DIST_L2, cv2.DIST_MASK_5)
    left, quiet = distance > reach, distance > reach + 3  # the noise operators look 3 pixels around them
    if quiet.mean() < 0.02:
        return np.full(length, np.nan, np.float32)
    filled = np.where(left, pixels, pixels[left].mean())
    spans = zip(content_of(np.asarray(own, np.uint8)), pixels.shape, strict=True)
    ends = [(span.start, span.stop - 1, side) for span, side in spans]
    box = [end / side for first, last, side in ends for end in (first, last)]
    size = [(last - first) / side for first, last, side in ends]
    grid, tones = _resize(filled, _GRID, _GRID).ravel(), _histogram(pixels[left], 16)
    return np.array([*grid, *tones, *_sharpness(pixels, quiet), *box, *size], np.float32)


def _sharpness(pixels: Features, where: NDArray[np.bool_] | None) -> list[float]:
    """Log noise by Immerkær's operator at one and at two pixels, their difference, and the quiet pixels' noise."""
    residual = np.abs(cv2.filter2D(pixels, cv2.CV_32F, _IMMERKAER, borderType=cv2.BORDER_REFLECT_101)) * _PER_SIGMA
    smooth = cv2.blur(pixels, (2, 2), borderType=cv2.BORDER_REFLECT_101)
    spread = np.zeros((5, 5), np.float32)
    spread[::2, ::2] = _IMMERKAER
    coarse = np.abs(cv2.filter2D(smooth, cv2.CV_32F, spread, borderType=cv2.BORDER_REFLECT_101)) * _PER_SIGMA
    chosen = slice(None) if where is None else where
    one, two = residual[chosen], coarse[chosen]
    fine, wide = np.log(one.mean() + _FINEST), np.log(two.mean() + _FINEST)
    quiet = np.log(np.percentile(one, 40) + _FINEST)
    return [float(fine), float(fine - wide), float(wide), float(quiet)]


def _histogram(pixels: NDArray[np.uint8] | Features, bins: int) -> Features:
    """(bins,) float32, the square root of each bin's share (Hellinger), which evens out their spread."""
    counts = np.histogram(pixels, bins=bins, range=(0, 256))[0]
    return np.asarray(np.sqrt(counts / max(1, counts.sum())), np.float32)


def _resize(pixels: NDArray[np.uint8] | Features, height: int, width: int) -> Features:
    shrinks = height <= pixels.shape[0] and width <= pixels.shape[1]
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels.astype(np.float32), (width, height), interpolation=way), np.float32)
