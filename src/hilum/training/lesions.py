"""Draw synthetic lung opacities with exact regions. They do not model a particular disease."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_VISIBLE = 0.25  # the region contains pixels with at least this fraction of the maximum opacity


def draw_lesion(random: np.random.Generator, lung: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Draw one to three irregular opacities with soft edges inside the lungs.

    Args:
        random: Generator of number, positions, sizes, density and texture.
        lung: (S, S) bool, not empty.

    Returns:
        The opacity, (S, S) float32 in [0, 1], 0 outside the lungs; and its region, (S, S) bool.
    """
    size = lung.shape[0]
    rows, columns = np.nonzero(lung)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    field = np.zeros(lung.shape, np.float32)
    for _ in range(int(random.choice([1, 2, 3], p=[0.6, 0.25, 0.15]))):
        center = int(random.integers(rows.size))
        angle = random.uniform(0, np.pi)
        long = random.uniform(0.05, 0.17) * size
        short = long * random.uniform(0.45, 1.0)
        dx, dy = x - columns[center], y - rows[center]
        along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        r = (along / long) ** 2 + (across / short) ** 2
        field = np.maximum(field, np.exp(-(r ** float(random.uniform(0.8, 2.0)))))
    ragged = field * (1 + random.uniform(0.1, 0.5) * _texture(random, size))
    edge = cv2.GaussianBlur(lung.astype(np.float32), (0, 0), 0.008 * size)
    soft = np.clip(ragged, 0, 1) * edge * lung
    peak = float(soft.max())
    if peak <= 0:
        return np.zeros(lung.shape, np.float32), np.zeros(lung.shape, np.bool_)
    density = random.uniform(0.45, 0.95)
    return (density * soft / peak).astype(np.float32), soft >= _VISIBLE * peak


def _texture(random: np.random.Generator, size: int) -> NDArray[np.float32]:
    """Return smooth noise (S, S) of about unit variance and random coarseness."""
    cells = int(random.integers(6, 24))
    nodes = random.standard_normal((cells, cells), np.float32)
    return np.asarray(cv2.resize(nodes, (size, size), interpolation=cv2.INTER_CUBIC), np.float32)
