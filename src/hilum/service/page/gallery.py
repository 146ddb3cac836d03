"""Phantoms to try the page with: drawn chests that are answered, and drawn pictures that the gate refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.phantoms.chest import draw_phantom

SIDE = 512
"""Pixels."""


@dataclass(frozen=True)
class Specimen:
    """One picture of the gallery.

    Attributes:
        name: its file name.
        caption: what was drawn.
        content: a PNG.
    """

    name: str
    caption: str
    content: bytes


_AS_DRAWN: tuple[tuple[str, str, int], ...] = (
    ("Lung opacity", "Lung_Opacity", 3),
    ("COVID", "COVID", 1),
    ("Viral pneumonia", "Viral Pneumonia", 6),
    ("Normal", "Normal", 6),
    ("Faint opacity", "Lung_Opacity", 8),
)
"""What was drawn: in words, as a class, by which seed."""


@lru_cache(maxsize=1)
def specimens() -> tuple[Specimen, ...]:
    """The gallery, drawn once."""
    drawn = [
        Specimen(f"phantom-{caption.lower().replace(' ', '-')}.png", caption, _png(label, seed))
        for caption, label, seed in _AS_DRAWN
    ]
    return (
        *drawn,
        Specimen("phantom-sideways.png", "Sideways", _png("Normal", 3, lambda film: np.rot90(film))),
        Specimen("phantom-inverted.png", "Inverted", _png("Normal", 3, lambda film: 255 - film)),
        Specimen("noise.png", "Noise, not an image", _encoded(_noise())),
    )


def _png(
    label: str,
    seed: int,
    treat: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] = lambda film: film,
) -> bytes:
    return _encoded(treat(draw_phantom(seed, label, size=SIDE).image))


def _noise() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)


def _encoded(film: NDArray[np.uint8]) -> bytes:
    return bytes(cv2.imencode(".png", np.ascontiguousarray(film))[1].tobytes())
