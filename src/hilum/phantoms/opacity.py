"""Draw the opacities of each class, as the fraction of air in the lungs that they replace.

The patterns are simplified: COVID-19 as bilateral, peripheral, lower-zone ground glass; lobar consolidation as one
dense focus; viral pneumonia as diffuse, perihilar interstitial thickening (terms: Hansell et al., Fleischner Society
glossary, 2008).
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from hilum.phantoms.anatomy import Chest, draw_tree
from hilum.phantoms.canvas import SIDES, Field

VISIBLE = 0.02
"""Minimum fraction of air that an opacity replaces; lower values are set to 0."""


def _no_opacity(rng: np.random.Generator, chest: Chest) -> Field:
    return np.zeros_like(chest.air)


def _ground_glass(rng: np.random.Generator, chest: Chest) -> Field:
    """Draw COVID: ground-glass patches in both lungs, peripheral and mostly in the lower zones."""
    canvas, field = chest.canvas, np.zeros_like(chest.air)
    for side in SIDES:
        for low in rng.uniform(0.0, 1.0, rng.integers(2, 5)).tolist():
            y = 0.78 - 0.42 * low**1.6
            d = side * rng.uniform(0.72, 0.86)
            wide, tall = rng.uniform(0.19, 0.32), rng.uniform(0.1, 0.18)
            r = ((canvas.d - d) / wide) ** 2 + ((canvas.y - y) / tall) ** 2
            field = np.maximum(field, np.exp(-r))
    ragged = field * (0.8 + 0.5 * _texture(rng, canvas.size, 18))
    patches = rng.uniform(0.4, 0.58) * np.clip((ragged - 0.2) / 0.6, 0, 1)
    return patches.astype(np.float32, copy=False)


def _consolidation(rng: np.random.Generator, chest: Chest) -> Field:
    """Draw Lung_Opacity: one dense focus in one lung, bounded by a fissure on one side."""
    canvas, side = chest.canvas, float(rng.choice(SIDES))
    y = rng.uniform(0.25, 0.72)
    d = side * rng.uniform(0.5, 0.68)
    wide, tall = rng.uniform(0.3, 0.42), rng.uniform(0.15, 0.23)
    r = ((canvas.d - d) / wide) ** 2 + ((canvas.y - y) / tall) ** 2
    ragged = np.exp(-r) * (0.9 + 0.25 * _texture(rng, canvas.size, 12))
    above = float(rng.choice((-1.0, 1.0)))
    beyond = above * (canvas.y - y - side * rng.normal(0, 0.15) * (canvas.d - d)) - rng.uniform(0.5, 1.0) * tall
    fissure = np.clip(0.5 - beyond * canvas.size * 0.3, 0, 1)
    own_lung = canvas.d * side > 0
    focus: Field = rng.uniform(0.75, 0.95) * np.clip((ragged - 0.2) / 0.5, 0, 1) * fissure * own_lung
    return focus


def _interstitial(rng: np.random.Generator, chest: Chest) -> Field:
    """Draw Viral Pneumonia: reticular opacities over faint haze in both lungs, densest around the hila."""
    canvas, near = chest.canvas, np.zeros_like(chest.air)
    for d, y in chest.hila.tolist():
        r = ((canvas.d - d) / rng.uniform(0.52, 0.66)) ** 2 + ((canvas.y - y) / rng.uniform(0.34, 0.46)) ** 2
        near = np.maximum(near, np.exp(-r))
    net = np.clip(1 - np.abs(_texture(rng, canvas.size, 44)) / 0.6, 0, 1)
    layer = canvas.layer()
    draw_tree(rng, canvas, layer, chest.hila, 9, 0.04, 3)
    streaks = canvas.blur(layer / np.float32(255), 0.008)
    # Limited to where the haze alone reaches VISIBLE, so that the region has no holes.
    envelope = np.where(near > 0.2, np.clip((near - 0.1) / 0.6, 0, 1), 0).astype(np.float32)
    haze, strands = rng.uniform(0.14, 0.22), rng.uniform(0.35, 0.5)
    net_over_haze = envelope * (haze + strands * np.maximum(0.75 * net, streaks))
    return net_over_haze.astype(np.float32, copy=False)


def _texture(rng: np.random.Generator, size: int, cells: int) -> Field:
    """Return smooth noise (S, S) with ``cells`` nodes of unit variance per side."""
    nodes = rng.standard_normal((cells, cells), np.float32)
    return cv2.resize(nodes, (size, size), interpolation=cv2.INTER_CUBIC)  # type: ignore[return-value]


OPACITIES: dict[str, Callable[[np.random.Generator, Chest], Field]] = {
    "COVID": _ground_glass,
    "Lung_Opacity": _consolidation,
    "Normal": _no_opacity,
    "Viral Pneumonia": _interstitial,
}
"""Per class, a function that draws the opacities, (S, S) float32 in [0, 1], possibly beyond the lungs."""
