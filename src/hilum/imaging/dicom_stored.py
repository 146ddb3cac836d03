"""Decode DICOM to the values that a file stores, before its window, for viewers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pydicom.dataset import Dataset

from hilum.imaging.decoding import decoding, rgb_to_gray
from hilum.imaging.dicom import (
    MONOCHROME,
    complete,
    display_table,
    parse,
    pixel_aspect,
    rescale,
    stored_pixels,
    text_of,
    to_rgb,
)
from hilum.imaging.dicom_file import PYDICOM_ERRORS
from hilum.imaging.stored import Preset, StoredImage
from hilum.types import Radiograph


def decode_stored(content: bytes, origin: str, max_pixels: int) -> StoredImage:
    """Decode the content of a single-frame DICOM file to its stored values, before any window; see decode_dicom.

    Color images are converted to gray, so that they have no window.

    Raises:
        ReadError: As for ``decode_dicom``.
    """
    with decoding(origin, *PYDICOM_ERRORS):
        dataset = parse(content, origin, max_pixels)
        photometric = complete(dataset, origin, max_pixels)
        stored = stored_pixels(dataset, origin)
        if photometric not in MONOCHROME:
            rgb, bits = to_rgb(stored, dataset, photometric)
            gray, _ = rgb_to_gray(rgb, bits)
            return StoredImage.plain(Radiograph(gray, bits, origin=origin, pixel_aspect=pixel_aspect(dataset)))
        lowest, table = display_table(dataset, photometric, origin)
        values = np.clip(stored.astype(np.int32) - lowest, 0, table.size - 1)
        has_lut = bool(dataset.get("ModalityLUTSequence"))
        slope, intercept = (1.0, 0.0) if has_lut else rescale(dataset)
        return StoredImage(
            values.astype(np.uint8 if table.size <= 256 else np.uint16),
            table,
            lowest=lowest,
            slope=slope,
            intercept=intercept,
            inverted=photometric == "MONOCHROME1",
            presets=() if has_lut else _presets(dataset),
            pixel_aspect=pixel_aspect(dataset),
        )


def _presets(dataset: Dataset) -> tuple[Preset, ...]:
    """Return the windows of a file (PS3.3 C.11.2.1.2), in the units of its rescaled values."""
    parts = ("Center", "Width", "CenterWidthExplanation")
    centers, widths, names = (_texts(dataset, f"Window{part}") for part in parts)
    function = (text_of(dataset, "VOILUTFunction") or "LINEAR").upper()
    names += [f"Window {number}" for number in range(len(names) + 1, len(centers) + 1)]
    windows = zip(names, centers, widths, strict=False)
    found = (Preset(name, float(center), float(width), function) for name, center, width in windows)
    return tuple(preset for preset in found if math.isfinite(preset.center) and preset.width >= 1)


def _texts(dataset: Dataset, keyword: str) -> list[str]:
    """Return the values of an element of one or more values as text; none if it is missing or empty."""
    value = dataset.get(keyword)
    if value is None or value == "":
        return []
    several = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    return [str(one).strip() for one in (value if several else [value])]
