"""Draw the anatomy of a phantom: bones, heart, airways, vessels and lungs as attenuation."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.phantoms.canvas import SIDES, Canvas, Field, Points, rounded, smooth_curve

# Inner outline of the rib cage: lateral, below the diaphragm, medial, as (d, y).
_LUNG_OUTLINE = (
    (0.36, 0.0), (0.56, 0.05), (0.74, 0.17), (0.87, 0.34), (0.95, 0.54), (0.99, 0.76), (1.0, 0.95), (0.93, 1.1),
    (0.6, 1.15), (0.15, 1.12), (0.06, 0.8), (0.06, 0.45), (0.1, 0.2), (0.19, 0.05),
)  # fmt: skip


@dataclass(frozen=True)
class Chest:
    """Anatomy of one patient in one pose.

    Attributes:
        canvas: The coordinate system.
        tissue: (S, S) float32, attenuation without air in the lungs, nepers.
        air: (S, S) float32, reduction of the attenuation by air; tissue - air is the attenuation of a normal chest.
        body: (S, S) float32, coverage by the body, in [0, 1].
        lungs: (2, S, S) bool, visible lung fields: image left (the patient's right), image right.
        hila: (2, 2) float64, (d, y) of both hila.
    """

    canvas: Canvas
    tissue: Field
    air: Field
    body: Field
    lungs: NDArray[np.bool_]
    hila: Points


def draw_chest(rng: np.random.Generator, size: int, pose: Points) -> Chest:
    """Draw the anatomy of one patient.

    Args:
        rng: Random generator of the anatomy.
        size: Side S, pixels.
        pose: (rotation in degrees, zoom, shift right, shift down); shifts are fractions of the side.
    """
    canvas = Canvas(size, rng.uniform(0.31, 0.36), rng.uniform(0.53, 0.64), rng.uniform(0.14, 0.19), pose)
    wall = rng.uniform(1.1, 1.28)  # fat and muscle outside the ribs
    body, thickness = _draw_body(rng, canvas, wall)
    heart, mediastinum = _draw_mediastinum(rng, canvas)
    domes = _domes(rng, canvas)
    cage = [canvas.layer(), canvas.layer()]
    for layer, side in zip(cage, SIDES, strict=True):
        canvas.fill(layer, smooth_curve(np.array(_LUNG_OUTLINE) * (side, 1), closed=True))
    edge = np.clip((domes - canvas.y) * size * 0.6 + 0.5, 0, 1)  # 0.6: an edge of about one pixel
    seen = edge * (1 - mediastinum)
    lungs = np.stack([_largest(layer.astype(np.float32) / 255 * seen > 0.5) for layer in cage])
    hila = np.stack([np.array(SIDES) * rng.uniform(0.2, 0.25, 2), rng.uniform(0.43, 0.47, 2) - (0, 0.03)], 1)

    depth = rounded(canvas.depth(np.maximum(*cage)), 0.42)
    # Some lung remains behind the heart and in the sulci behind the domes.
    behind = np.clip(1 - (canvas.y - domes) / 0.14, 0, 1) * 0.16
    air = rng.uniform(2.1, 2.5) * depth * (edge + (1 - edge) * behind) * (1 - heart)
    air *= 1 - 0.18 * np.clip(1 - canvas.y / 0.35, 0, 1)
    belly = np.clip((canvas.y - domes) / 0.25, 0, 1)
    tissue = thickness + 0.5 * belly * body + _draw_bones(rng, canvas, body)
    tissue += _draw_vessels(rng, canvas, hila) * np.clip(air / 1.6, 0, 1)
    tissue -= _draw_gas(rng, canvas, belly)
    return Chest(canvas, canvas.blur(tissue, 0.006), air, body, lungs, hila)


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    return labels == (1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))) if count > 1 else mask


def _draw_body(rng: np.random.Generator, canvas: Canvas, wall: float) -> tuple[Field, Field]:
    """Return coverage and thickness of trunk, neck and arms."""
    shoulder, lift = rng.uniform(-0.04, 0.05), rng.uniform(-0.04, 0.04)
    half = np.array([
        (0.34, -0.6), (0.33, -0.3), (0.38, -0.17), (0.62, -0.09 + shoulder), (1.0, -0.05 + shoulder),
        (1.32, 0.0 + shoulder), (wall + 0.3, 0.14 + lift), (wall + 0.22, 0.3 + lift), (wall + 0.07, 0.38),
        (wall, 0.5), (wall, 0.8), (wall - 0.02, 1.0), (wall + 0.03, 1.3), (wall + 0.05, 1.8),
    ])  # fmt: skip
    trunk, arms = canvas.layer(), canvas.layer()
    canvas.fill(trunk, np.concatenate([smooth_curve(half), smooth_curve(half * (-1, 1))[::-1]]))
    spread = rng.uniform(0.22, 0.6)
    for side in SIDES:
        arm = [(wall + 0.1, 0.1), (wall + 0.25, 0.3), (wall + spread, 0.8), (wall + spread + 0.15, 1.5)]
        canvas.stroke(arms, smooth_curve(np.array(arm) * (side, 1)), [0.42])
    coverage = np.maximum(trunk, arms) / np.float32(255)
    depth = canvas.depth(trunk)
    shape = 0.2 * rounded(depth, 0.08) + 0.8 * rounded(depth, 0.75)
    thickness = rng.uniform(3.9, 4.5) * shape * (1 - 0.35 * np.clip(-canvas.y / 0.25, 0, 1))
    thickness = np.maximum(thickness, 1.9 * rounded(canvas.depth(arms), 0.25))
    breast = rng.uniform(0.15, 0.5) * (rng.random() < 0.5)
    droop = rng.uniform(0.62, 0.78)
    for side in SIDES:
        r = ((canvas.d - side * 0.62) / 0.42) ** 2 + ((canvas.y - droop) / 0.2) ** 2
        thickness += breast * np.sqrt(np.clip(1 - r, 0, 1))
    return coverage, np.asarray(canvas.blur(thickness, 0.02) * coverage, np.float32)


def _draw_mediastinum(rng: np.random.Generator, canvas: Canvas) -> tuple[Field, Field]:
    """Return the fraction of air displaced by heart and great vessels, and the coverage of their silhouette."""
    apex, waist = rng.uniform(0.5, 0.66), rng.uniform(0.2, 0.26)
    knob, atrium = rng.uniform(0.23, 0.3), rng.uniform(0.22, 0.3)
    left = ((0.12, 0.42), (0.25, 0.49), (0.5, 0.58), (0.78, 0.68), (0.95, 0.78), (1, 0.87), (0.93, 0.97))
    outline = [
        (0.13, -0.3), (0.14, 0.0), (0.17, 0.14), (knob, 0.22), (knob - 0.02, 0.3), (waist - 0.02, 0.36),
        *((waist + share * (apex - waist), y) for share, y in left), (0.3, 1.2), (-0.2, 1.2),
        (-atrium + 0.02, 0.95), (-atrium, 0.78), (-atrium + 0.04, 0.62),
        (-0.17, 0.5), (-0.16, 0.3), (-0.18, 0.15), (-0.16, 0.0), (-0.13, -0.3),
    ]  # fmt: skip
    layer = canvas.layer()
    canvas.fill(layer, smooth_curve(outline, closed=True))
    solid = 0.66 + 0.3 * rounded(canvas.depth(layer), 0.35)
    coverage = layer / np.float32(255)
    return solid * coverage, coverage


def _domes(rng: np.random.Generator, canvas: Canvas) -> Field:
    """Return the y of the diaphragm for each pixel, (S, S); the patient's right dome is higher."""
    right = rng.uniform(0.8, 0.86)
    tops = np.where(canvas.d < 0, right, right + rng.uniform(0.015, 0.05))
    away = np.abs(canvas.d) - 0.5
    fall = np.where(away > 0, 0.17 * np.abs(away / 0.5) ** 2.2, 0.09 * np.abs(away / 0.5) ** 2)
    return (tops + fall).astype(np.float32)


def _draw_bones(rng: np.random.Generator, canvas: Canvas, body: Field) -> Field:
    """Return the attenuation of the skeleton."""
    bones = np.zeros_like(body)
    density = rng.uniform(0.85, 1.15)
    for layer, weight in (
        *_draw_ribs(rng, canvas),
        (_draw_spine(rng, canvas), 0.6),
        (_draw_shoulders(rng, canvas), 0.75),
    ):
        bones += np.float32(density * weight / 255) * layer
    return bones * body - _draw_airway(rng, canvas)


def _draw_ribs(rng: np.random.Generator, canvas: Canvas) -> list[tuple[NDArray[np.uint8], float]]:
    """Draw back and front of the ribs as tilted rings, and return the layers with their weights."""
    back, front = canvas.layer(), canvas.layer()
    outline = np.array(_LUNG_OUTLINE[:8])
    drop, spacing = rng.uniform(0.28, 0.36), rng.uniform(0.094, 0.102)
    first, thick = rng.uniform(-0.05, -0.01), rng.uniform(0.062, 0.078)
    start = first + spacing * np.arange(11)
    fall = drop * np.interp(np.arange(11), (0, 4), (0.55, 1))
    reach = 1.015 * np.interp(start + fall / 2, outline[:, 1], outline[:, 0])
    for layer, low, high, flare, shown in ((back, 6, 92, 0.9, 11), (front, 86, 138, 1.2, 8)):
        angle = np.deg2rad(np.linspace(low, high, 20))
        y = start[:, None] + fall[:, None] * (1 - np.cos(angle)) / 2 - 0.03 * np.sin(2 * angle).clip(0)
        for side in SIDES:
            uneven = (y + rng.normal(0, 0.003, (11, 1)))[:shown]
            canvas.stroke(
                layer, np.stack([side * reach[:shown, None] * np.sin(angle), uneven], -1), thick * flare, bore=0.6
            )
    return [(back, rng.uniform(0.48, 0.62)), (front, rng.uniform(0.26, 0.38))]


def _draw_spine(rng: np.random.Generator, canvas: Canvas) -> NDArray[np.uint8]:
    """Draw vertebral bodies, pedicles and spinous processes on a slightly curved line."""
    layer = canvas.layer()
    lean, bow = rng.normal(0, 0.012, 2)
    y = -0.42 + 0.1 * np.arange(23)
    middle = lean * y + bow * np.sin(3 * y)
    half = 0.105 + 0.02 * y
    plate = np.array([(-1, -0.04), (-0.86, 0), (-1, 0.04), (1, 0.04), (0.86, 0), (1, -0.04)])
    for number in range(23):
        place = (middle[number], y[number])
        canvas.fill(layer, plate * (half[number], 1) + place, 255)
        canvas.fill(layer, plate * (half[number] * 0.86, 0.72) + place, 190)
    marks = ((-0.6, -0.025, 0.0), (0.6, -0.025, 0.0), (0.0, 0.01, 0.045))  # two pedicles and the spinous process
    for off, above, below in marks:
        ends = [np.stack([middle + off * half, y + end], -1) for end in (above, below)]
        canvas.stroke(layer, np.stack(ends, 1), 0.03, 250)
    return cv2.GaussianBlur(layer, (0, 0), max(0.012 * canvas.unit, 0.3))  # type: ignore[return-value]


def _draw_shoulders(rng: np.random.Generator, canvas: Canvas) -> NDArray[np.uint8]:
    """Draw clavicles, scapulae and humeral heads."""
    layer, blades = canvas.layer(), canvas.layer()
    tilt = rng.uniform(-0.07, 0.05)
    out = rng.uniform(0.0, 0.12)
    for side in SIDES:
        blade = [(0.84 + out, 0.0), (1.12 + out, 0.06), (1.2 + out, 0.16), (1.04 + out, 0.3), (0.93 + out, 0.5),
                 (0.86 + out, 0.42), (0.8 + out, 0.2)]  # fmt: skip
        canvas.fill(blades, smooth_curve(np.array(blade) * (side, 1), closed=True), 40)
        canvas.stroke(blades, smooth_curve(np.array([*blade[2:], blade[0]]) * (side, 1)), 0.022, 100)
        spine = [(0.83 + out, 0.11), (1.0 + out, 0.05), (1.28, -0.01 + tilt / 2)]
        canvas.stroke(blades, smooth_curve(np.array(spine) * (side, 1)), 0.04, 100)
        arm = [(1.36, 0.12), (1.44, 0.3), (1.56, 0.7), (1.7, 1.3)]
        canvas.stroke(layer, smooth_curve(np.array(arm) * (side, 1)), 0.13, 140, bore=0.5)
        turn = np.linspace(0, 2 * np.pi, 24)
        head = np.stack([1.34 + 0.12 * np.cos(turn), 0.1 + 0.07 * np.sin(turn)], 1)
        canvas.fill(layer, head * (side, 1), 130)
        wobble = rng.normal(0, 0.01)
        clavicle = [(0.1, 0.125 + wobble), (0.32, 0.1), (0.62, 0.045 + tilt), (0.95, 0.01 + tilt), (1.22, tilt)]
        canvas.stroke(layer, smooth_curve(np.array(clavicle) * (side, 1)), _swell(33, 0.1, 0.075), 255, bore=0.62)
    return cv2.max(layer, blades)  # type: ignore[return-value]


def _swell(n: int, end: float, middle: float) -> Points:
    return middle + (end - middle) * np.abs(np.linspace(-1, 1, n)) ** 3


def _draw_airway(rng: np.random.Generator, canvas: Canvas) -> Field:
    """Return the reduction of the attenuation by air in trachea and main bronchi."""
    layer = canvas.layer()
    shift, carina = rng.normal(-0.02, 0.012), rng.uniform(0.31, 0.36)
    canvas.stroke(layer, smooth_curve([(0, -0.5), (0, -0.1), (shift, 0.15), (shift, carina)]), 0.1)
    canvas.stroke(layer, smooth_curve([(shift, carina - 0.01), (shift - 0.12, carina + 0.08)]), 0.065)
    canvas.stroke(layer, smooth_curve([(shift, carina - 0.01), (shift + 0.18, carina + 0.085)]), 0.055)
    return canvas.blur(layer * np.float32(rng.uniform(0.5, 0.8) / 255), 0.015)


def _draw_vessels(rng: np.random.Generator, canvas: Canvas, hila: Points) -> Field:
    """Return the attenuation of hila and pulmonary vessels."""
    layer = canvas.layer()
    draw_tree(rng, canvas, layer, hila, 6, 0.048, 4)
    blobs = np.zeros(layer.shape, np.float32)
    for (d, y), side in zip(hila.tolist(), SIDES, strict=True):
        r = ((canvas.d - d - side * 0.01) / 0.1) ** 2 + ((canvas.y - y) / 0.11) ** 2
        blobs += np.exp(-r)
    return canvas.blur(np.float32(rng.uniform(0.4, 0.55) / 255) * layer + 0.45 * blobs, 0.006)


def draw_tree(
    rng: np.random.Generator, canvas: Canvas, layer: NDArray[np.uint8], hila: Points, stems: int, width: float,
    levels: int,
) -> None:  # fmt: skip
    """Draw vessels that branch ``levels`` times from both hila into ``layer``.

    Args:
        rng: Random generator.
        canvas: The coordinate system.
        layer: (S, S) uint8, drawn into.
        hila: (2, 2) float64, (d, y) of both hila.
        stems: Number of vessels per hilum.
        width: Initial width, units of d.
        levels: Number of generations.
    """
    side = np.repeat(SIDES, stems)
    root = np.repeat(hila, stems, axis=0) + rng.normal(0, 0.04, (2 * stems, 2))
    angle = np.tile(np.deg2rad(np.linspace(-72, 80, stems)), 2) + rng.normal(0, 0.12, 2 * stems)
    for level in range(levels):
        n = len(angle)
        length = rng.uniform(0.15, 0.24, n) * (1 - 0.1 * level)
        bend = rng.normal(0, 0.15, n)
        heading = angle[:, None] + bend[:, None] * np.linspace(0, 1, 4)
        # 0.55: approximate ratio of the units of d and y.
        steps = np.stack([side[:, None] * np.cos(heading), 0.55 * np.sin(heading)], -1) * length[:, None, None] / 4
        paths = np.concatenate([np.zeros((n, 1, 2)), np.cumsum(steps, 1)], 1) + root[:, None]  # (n, 5, 2)
        canvas.stroke(layer, paths, width * np.linspace(1, 0.7, 5), round(255 * 0.8**level))
        fork = rng.uniform(0.15, 0.45, (2, n)) * ((1,), (-1,))
        angle, root, side = (angle + bend + fork).ravel(), np.tile(paths[:, -1], (2, 1)), np.tile(side, 2)
        width *= 0.68


def _draw_gas(rng: np.random.Generator, canvas: Canvas, belly: Field) -> Field:
    """Return the reduction of the attenuation by gas in the stomach, which some patients have."""
    d, y = rng.uniform(0.42, 0.6), rng.uniform(1.0, 1.08)
    amount = rng.uniform(0.5, 1.2) * (rng.random() < 0.6)
    r = ((canvas.d - d) / rng.uniform(0.16, 0.26)) ** 2 + ((canvas.y - y) / rng.uniform(0.05, 0.08)) ** 2
    gas: Field = amount * np.sqrt(np.clip(1 - r, 0, 1)) * np.clip(3 * belly, 0, 1)
    return gas
