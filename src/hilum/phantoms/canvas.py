"""Drawing primitives of the phantoms: antialiased polygons and ribbons in chest units, at any resolution.

In chest units, ``d`` is the distance from the midline (1 at the widest point of the rib cage, negative at the image's
left, the patient's right), and ``y`` runs from the apex of the lungs (0) to the costophrenic angles (1).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Field = NDArray[np.float32]
Points = NDArray[np.float64]

SIDES = (-1.0, 1.0)
"""Signs of d: image left (the patient's right), image right."""

_SHIFT = 6  # fractional bits of OpenCV's drawing coordinates


class Canvas:
    """Coordinate system: a square image and the pose that maps chest units onto it.

    Args:
        size: Side S, pixels.
        half_width: Length of a unit of d, as a fraction of the side.
        height: Length of a unit of y, as a fraction of the side.
        top: Position of the lung apex, as a fraction of the side.
        pose: (rotation in degrees, zoom, shift right, shift down); shifts are fractions of the side.

    Attributes:
        d: (S, S) float32, d of each pixel's center.
        y: (S, S) float32, y of each pixel's center.
        unit: Pixels per unit of d.
    """

    def __init__(self, size: int, half_width: float, height: float, top: float, pose: Points) -> None:
        degrees, zoom, right, down = pose
        angle = np.deg2rad(degrees)
        turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        self.size = size
        self.unit = size * half_width * zoom
        self._matrix = size * turn @ np.diag([half_width, height])
        center = np.array([0.5 + right, 0.5 + down])
        self._offset = size * (center + turn @ np.array([0.0, top - 0.5])) - 0.5
        inverse = np.linalg.inv(self._matrix).astype(np.float32)
        columns = np.arange(size, dtype=np.float32)[None, :] - np.float32(self._offset[0])
        rows = np.arange(size, dtype=np.float32)[:, None] - np.float32(self._offset[1])
        self.d: Field = inverse[0, 0] * columns + inverse[0, 1] * rows
        self.y: Field = inverse[1, 0] * columns + inverse[1, 1] * rows

    def layer(self) -> NDArray[np.uint8]:
        """Return a blank layer, (S, S) uint8."""
        return np.zeros((self.size, self.size), np.uint8)

    def fill(self, layer: NDArray[np.uint8], outline: ArrayLike, value: int = 255) -> None:
        """Fill a polygon (n, 2) in chest units, antialiased."""
        self._fill_pixels(layer, self._to_pixels(outline), value)

    def stroke(
        self, layer: NDArray[np.uint8], paths: ArrayLike, width: ArrayLike, value: int = 255, bore: float = 0.0
    ) -> None:
        """Draw ribbons along paths, antialiased.

        Args:
            layer: (S, S) uint8, drawn into.
            paths: (k, 2) or (n, k, 2), chest units.
            width: One or k widths, units of d. Ribbons thinner than a pixel are drawn one pixel wide and fainter.
            value: Gray level.
            bore: Relative width of a fainter core, as in a bone with its cortex; 0 for none.
        """
        center = self._to_pixels(paths)
        center = center.reshape(-1, *center.shape[-2:])  # (n, k, 2)
        along = np.diff(center, axis=1)
        along = np.concatenate([along[:, :1], along[:, 1:] + along[:, :-1], along[:, -1:]], axis=1)
        normal = along[..., ::-1] * (-0.5, 0.5) / (np.sqrt((along**2).sum(-1, keepdims=True)) + 1e-9)
        pixels = np.atleast_1d(np.asarray(width, np.float64)) * self.unit
        thickest = float(pixels.max())
        half = np.maximum(pixels, 1.0)[:, None] * normal
        ribbons = [(1.0, value * min(1.0, thickest))]
        if bore and thickest > 3:
            ribbons.append((bore, value * 0.62))
        for share, brightness in ribbons:
            outlines = np.concatenate([center + share * half, (center - share * half)[:, ::-1]], axis=1)
            for outline in outlines:
                self._fill_pixels(layer, outline, round(brightness))

    def blur(self, field: Field, sigma: float) -> Field:
        """Return a field after Gaussian blur; ``sigma`` in units of d."""
        return cv2.GaussianBlur(field, (0, 0), max(sigma * self.unit, 0.3))  # type: ignore[return-value]

    def blur_wide(self, field: Field) -> Field:
        """Return a field blurred over a fifth of the side, for scatter, computed on a coarse grid."""
        coarse = cv2.resize(field, (32, 32), interpolation=cv2.INTER_AREA)
        wide = cv2.GaussianBlur(coarse, (0, 0), 3.2)
        return cv2.resize(wide, (self.size, self.size), interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]

    def depth(self, layer: NDArray[np.uint8]) -> Field:
        """Return the distance of each pixel of a silhouette to its edge, (S, S) float32, units of d."""
        inside = (layer > 127).astype(np.uint8)
        return cv2.distanceTransform(inside, cv2.DIST_L2, 3) / np.float32(self.unit)  # type: ignore[no-any-return]

    def _to_pixels(self, points: ArrayLike) -> Points:
        placed: Points = np.asarray(points, np.float64) @ self._matrix.T + self._offset
        return placed

    def _fill_pixels(self, layer: NDArray[np.uint8], outline: Points, value: int) -> None:
        fixed = np.rint(outline * (1 << _SHIFT)).astype(np.int32)
        cv2.fillPoly(layer, [fixed], value, cv2.LINE_AA, _SHIFT)


def rounded(depth: Field, radius: float) -> Field:
    """Return the thickness profile of a solid with rounded edges: 0 at depth 0, 1 from ``radius`` inwards."""
    share = np.clip(depth / np.float32(radius), 0, 1)
    return np.sqrt(share * (2 - share))  # type: ignore[no-any-return]


def smooth_curve(points: ArrayLike, *, closed: bool = False, steps: int = 8) -> Points:
    """Return a Catmull-Rom curve through points (n, 2), with ``steps`` points per segment."""
    knots = np.asarray(points, np.float64)
    ends = (knots[-1:], knots[:2]) if closed else (2 * knots[:1] - knots[1:2], 2 * knots[-1:] - knots[-2:-1])
    p = np.concatenate([ends[0], knots, ends[1]])
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    a, b, c, e = (p[i : len(p) - 3 + i, None, :] for i in range(4))
    curve = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - e + t * (3 * (b - c) + e - a)))
    flat: Points = curve.reshape(-1, 2)
    return flat if closed else np.concatenate([flat, knots[-1:]])
