"""Synthetic images to try the web app with: phantoms that are answered, and images that the input check refuses."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hilum.inference.png import png_bytes
from hilum.phantoms.chest import draw_phantom

_SIDE = 512  # pixels


class Example(NamedTuple):
    """How an example image is drawn."""

    caption: str
    label: str  # of draw_phantom
    seed: int
    change: str = ""  # rotated, inverted or noise


EXAMPLES = {
    "phantom-lung-opacity.png": Example("Lung opacity", "Lung_Opacity", 3),
    "phantom-covid.png": Example("COVID", "COVID", 1),
    "phantom-viral-pneumonia.png": Example("Viral pneumonia", "Viral Pneumonia", 6),
    "phantom-normal.png": Example("Normal", "Normal", 6),
    "phantom-faint-opacity.png": Example("Faint opacity", "Lung_Opacity", 8),
    "phantom-sideways.png": Example("Sideways", "Normal", 3, "rotated"),
    "phantom-inverted.png": Example("Inverted", "Normal", 3, "inverted"),
    "noise.png": Example("Noise", "Normal", 0, "noise"),
}
"""The examples by file name."""


@lru_cache(maxsize=len(EXAMPLES))
def example_png(name: str) -> bytes:
    """Return the PNG of an example of EXAMPLES, 512 x 512 pixels.

    Raises:
        KeyError: There is no such example.
    """
    example = EXAMPLES[name]
    if example.change == "noise":
        return png_bytes(np.random.default_rng(example.seed).integers(0, 256, (_SIDE, _SIDE), dtype=np.uint8))
    image: NDArray[np.uint8] = draw_phantom(example.seed, example.label, size=_SIDE).image
    changed = {"": image, "rotated": np.rot90(image), "inverted": 255 - image}[example.change]
    return png_bytes(np.ascontiguousarray(changed))
