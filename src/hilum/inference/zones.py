"""Say in which zones of the lungs the evidence is: right and left lung, each in upper, middle and lower third.

Right and left are the patient's. Zones are thirds of a lung's height, as in the ILO classification of radiographs
(Guidelines for the use of the ILO International Classification of Radiographs of Pneumoconioses, 2011), not lobes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.inference.contour import LEAST_SUM
from hilum.types import Radiograph

Mask: TypeAlias = NDArray[np.bool_]

SIDES = ("right", "left")
LEVELS = ("upper", "middle", "lower")
ZONES = tuple(f"{side}_{level}" for side in SIDES for level in LEVELS)
"""Names of the zones; the side is the patient's."""
OUTSIDE = "outside_lungs"

_SPECK = 0.05
"""Components below this fraction of the mask's area are specks: they belong to a side, but to no zone."""
_MERGED_WIDTH, _MERGED_SHARE = 0.75, 0.2
"""A component is both lungs if it has this fraction of the mask's width, and of its area on each side of the middle."""
_OVERLAP = 0.5
"""Components whose columns overlap by this fraction of the narrower one are parts of one lung."""
NAMED = 0.1
"""Zones with at least this share of the evidence are named in ``summary``."""


class Lungs(NamedTuple):
    """Masks (H, W) bool of both lungs of the patient; either may be empty. They do not overlap."""

    right: NDArray[np.bool_]
    left: NDArray[np.bool_]


def patient_left(radiograph: Radiograph, turn: int) -> Literal["left", "right"]:
    """Return the side of the upright image on which the patient's left is.

    Args:
        radiograph: The image as in the file.
        turn: Quarter turns that were undone; if any, the header's declaration is as wrong as the orientation.
    """
    return "right" if turn else radiograph.patient_left


def split_lungs(mask: Mask, *, patient_left: Literal["left", "right"] = "right") -> Lungs:
    """Split a lung mask into the patient's right and left lung; together they are the mask.

    Connected components are assigned by their center of gravity: to the sides of a cut between two lungs, or of the
    image's middle where all components belong to one lung. Lungs that are merged into one component are split in the
    column between them that has the fewest pixels.

    Args:
        mask: (H, W) bool, of an upright frontal image.
        patient_left: Side of the image on which the patient's left is; see Radiograph.patient_left.
    """
    return _split(mask, _components(mask), patient_left)


def _split(mask: Mask, found: _Components, patient_left: Literal["left", "right"]) -> Lungs:
    at_right: Mask = (found.centers > _cut(found.parts, mask.shape[1]))[found.numbers]  # (H, W)
    for part in found.parts:
        if part.is_merged:
            own = found.numbers == part.number
            at_right = np.where(own, np.arange(mask.shape[1]) >= _valley(own, part), at_right)
    halves = mask & ~at_right, mask & at_right
    return Lungs(*(halves if patient_left == "right" else halves[::-1]))


def zone_masks(mask: Mask, *, patient_left: Literal["left", "right"] = "right") -> dict[str, Mask]:
    """Return the mask of each zone of ZONES, (H, W) bool, from an upright lung mask; specks are in none.

    The thirds are those of each lung's height, from its first to its last row.

    Args:
        mask: (H, W) bool.
        patient_left: Side of the image on which the patient's left is.
    """
    found = _components(mask)
    large = mask
    if len(found.parts) < len(found.centers) - 1:  # some are specks
        is_large = np.zeros(len(found.centers), np.bool_)
        is_large[[part.number for part in found.parts]] = True
        large = is_large[found.numbers]
        found = _components(large)
    zones = {}
    for side, lung in zip(SIDES, _split(large, found, patient_left), strict=True):
        rows = np.flatnonzero(lung.any(axis=1))
        top, height = (int(rows[0]), int(rows[-1]) + 1 - int(rows[0])) if rows.size else (0, 1)
        third = (np.arange(mask.shape[0]) - top) * len(LEVELS) // height  # (H,)
        for number, level in enumerate(LEVELS):
            zones[f"{side}_{level}"] = lung & (third == number)[:, None]
    return zones


def evidence_zones(
    mask: Mask, evidence: NDArray[np.float32], *, patient_left: Literal["left", "right"] = "right"
) -> dict[str, float] | None:
    """Return the share of the evidence in favor of a class in each zone of ZONES, and OUTSIDE the lungs.

    The map's resolution is its cell: what a cell contributes counts for the zones in it, in proportion to their area
    there, and a cell without lung is outside. The network's own lung gate counts cells in the same way.

    Args:
        mask: (H, W) bool, the upright lung mask over the network's square input.
        evidence: (h, w) float32, the contributions of the cells that tile the same square to a class's logit.
        patient_left: Side of the image on which the patient's left is.

    Returns:
        Zone to share in [0, 1], summing to 1; None if less than LEAST_SUM logits are in favor.
    """
    favor = np.maximum(evidence, 0).astype(np.float64).ravel()  # (h * w,)
    if favor.sum() < LEAST_SUM:
        return None
    (height, width), (rows, columns) = evidence.shape, mask.shape
    cells = (np.arange(rows) * height // rows)[:, None] * width + np.arange(columns) * width // columns  # (H, W)
    areas = {
        name: np.bincount(cells[zone], minlength=favor.size)
        for name, zone in zone_masks(mask, patient_left=patient_left).items()
    }
    lung = np.maximum(sum(areas.values()), 1)
    shares = {name: float((favor * area / lung).sum() / favor.sum()) for name, area in areas.items()}
    return {**shares, OUTSIDE: max(0.0, 1 - sum(shares.values()))}


def summary(class_name: str, shares: Mapping[str, float] | None) -> str:
    """Return the evidence in words: ``Evidence for COVID: 62% left lower zone, 25% right middle zone, ...``.

    Args:
        class_name: The class that the evidence is for.
        shares: The result of ``evidence_zones``.
    """
    if shares is None:
        return f"No evidence for {class_name}: less than {LEAST_SUM} logits in favor"
    return f"Evidence for {class_name}: {in_words(shares)}"


def in_words(shares: Mapping[str, float]) -> str:
    """Return the zones with at least 10% of the evidence, largest first, then the others together, then outside."""
    named = sorted((name for name in ZONES if shares[name] >= NAMED), key=lambda name: -shares[name])
    others = sum(shares[name] for name in ZONES if name not in named)
    parts = [(shares[name], f"{name.replace('_', ' ')} zone") for name in named]
    parts += [(others, "other zones"), (shares[OUTSIDE], "outside the lungs")]
    return ", ".join(f"{share:.0%} {place}" for share, place in parts if round(100 * share))


def brief(shares: Mapping[str, float]) -> str:
    """Return the two places with most evidence, of at least 10% each, for a narrow table: ``62% left lower, ...``."""
    largest = sorted(shares, key=lambda name: -shares[name])[:2]
    return ", ".join(f"{shares[name]:.0%} {name.replace('_', ' ')}" for name in largest if shares[name] >= NAMED)


class _Part(NamedTuple):
    """A connected component of a lung mask that is not a speck."""

    number: int
    left: int  # first column
    right: int  # column after the last
    area: int
    center: float  # mean column
    is_merged: bool  # both lungs in one component


class _Components(NamedTuple):
    """The connected components of a mask; number 0 is the background."""

    numbers: NDArray[np.int32]  # (H, W)
    centers: NDArray[np.float64]  # mean column of each number
    parts: list[_Part]


def _components(mask: Mask) -> _Components:
    count, numbers, facts, centers = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    beyond = np.bincount(numbers[:, mask.shape[1] // 2 :].ravel(), minlength=count)  # area right of the middle
    areas, lefts = facts[:, cv2.CC_STAT_AREA], facts[:, cv2.CC_STAT_LEFT]
    rights = lefts + facts[:, cv2.CC_STAT_WIDTH]
    is_large = areas >= _SPECK * areas[1:].sum()
    parts = []
    for number in (np.flatnonzero(is_large[1:]) + 1).tolist():
        left, right, area = int(lefts[number]), int(rights[number]), int(areas[number])
        is_wide = right - left >= _MERGED_WIDTH * (rights[1:].max() - lefts[1:].min())
        is_merged = bool(is_wide and _MERGED_SHARE <= beyond[number] / area <= 1 - _MERGED_SHARE)
        parts.append(_Part(number, left, right, area, float(centers[number][0]), is_merged))
    return _Components(np.asarray(numbers, np.int32), np.asarray(centers[:, 0], np.float64), parts)


def _cut(parts: list[_Part], width: int) -> float:
    """Return the column between the lungs: between two groups of components, else the middle of the image."""
    lungs: list[list[_Part]] = []
    for part in sorted(parts, key=lambda part: part.center):
        if lungs and any(_is_same_lung(part, other) for other in lungs[-1]):
            lungs[-1].append(part)
        else:
            lungs.append([part])
    if len(lungs) < 2 or any(part.is_merged for part in parts):
        return (width - 1) / 2
    centers = [np.average([part.center for part in lung], weights=[part.area for part in lung]) for lung in lungs]
    widest = int(np.argmax(np.diff(centers)))
    return float(centers[widest] + centers[widest + 1]) / 2


def _is_same_lung(part: _Part, other: _Part) -> bool:
    shared = min(part.right, other.right) - max(part.left, other.left)
    return shared > _OVERLAP * min(part.right - part.left, other.right - other.left)


def _valley(own: Mask, part: _Part) -> int:
    """Return the column with the fewest pixels in the middle third of a component, the most central one of several."""
    third = (part.right - part.left) // 3
    columns = np.arange(part.left + third, part.right - third)
    distance = np.abs(columns - (part.left + part.right - 1) / 2)
    return int(columns[np.lexsort((distance, own[:, columns].sum(axis=0)))[0]])
