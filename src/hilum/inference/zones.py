"""Say in which zones of the lungs the evidence is: right and left lung, each in upper, middle and lower third.

Right and left are the patient's. Zones are thirds of a lung's height, as in the ILO classification of radiographs
(Guidelines for the use of the ILO International Classification of Radiographs of Pneumoconioses, 2011), not lobes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hilum.imaging.components import Components, connected_components
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
    found = connected_components(mask)
    return _split(mask, found, _parts(found), patient_left)


def _split(mask: Mask, found: Components, parts: list[_Part], patient_left: Literal["left", "right"]) -> Lungs:
    at_right: Mask = (found.centers > _cut(parts, mask.shape[1])).take(found.numbers)  # (H, W)
    for part in parts:
        if part.is_merged:
            own = found.numbers == part.number
            at_right = np.where(own, np.arange(mask.shape[1]) >= _valley(own, part), at_right)
    halves = mask & ~at_right, mask & at_right
    return Lungs(*(halves if patient_left == "right" else halves[::-1]))


def zone_numbers(mask: Mask, *, patient_left: Literal["left", "right"] = "right") -> NDArray[np.uint8]:
    """Return the zone of each pixel of an upright lung mask, (H, W) uint8: its place in ZONES from 1, or 0 for none.

    The thirds are those of each lung's height, from its first to its last row. Specks are in no zone.

    Args:
        mask: (H, W) bool.
        patient_left: Side of the image on which the patient's left is.
    """
    found = connected_components(mask)
    parts, large = _parts(found), mask
    if len(parts) < len(found.areas) - 1:  # some are specks
        is_large = np.zeros(len(found.areas), np.bool_)
        is_large[[part.number for part in parts]] = True
        large = is_large.take(found.numbers)
        found = connected_components(large)
        parts = _parts(found)
    zones = np.zeros(mask.shape, np.uint8)
    for number, lung in enumerate(_split(large, found, parts, patient_left)):
        rows = np.flatnonzero(lung.any(axis=1))
        top, height = (int(rows[0]), int(rows[-1]) + 1 - int(rows[0])) if rows.size else (0, 1)
        third = (np.arange(mask.shape[0]) - top) * len(LEVELS) // height  # (H,), of the rows of the lung
        zones += lung * (1 + number * len(LEVELS) + third).astype(np.uint8)[:, None]
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
    numbers = 1 + len(ZONES)
    places = cells_of(mask.shape, evidence.shape) * numbers + zone_numbers(mask, patient_left=patient_left)  # (H, W)
    areas = np.bincount(places.ravel(), minlength=favor.size * numbers).reshape(-1, numbers)[:, 1:]  # (h * w, zones)
    lung = np.maximum(areas.sum(axis=1), 1)
    shares = dict(zip(ZONES, (favor / lung @ areas / favor.sum()).tolist(), strict=True))
    return {**shares, OUTSIDE: max(0.0, 1 - sum(shares.values()))}


@lru_cache(maxsize=8)
def cells_of(shape: tuple[int, int], cells: tuple[int, int]) -> NDArray[np.intp]:
    """Return the number of the cell of each pixel (H, W) of a square that cells (h, w) tile."""
    rows, columns = (np.arange(side) * count // side for side, count in zip(shape, cells, strict=True))
    return np.asarray(rows[:, None] * cells[1] + columns, np.intp)


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


def _parts(found: Components) -> list[_Part]:
    """Return the components of a mask that are not specks."""
    is_large = found.areas >= _SPECK * found.areas[1:].sum()
    parts = []
    for number in (np.flatnonzero(is_large[1:]) + 1).tolist():
        left, right, area = int(found.lefts[number]), int(found.rights[number]), int(found.areas[number])
        is_wide = bool(right - left >= _MERGED_WIDTH * (found.rights[1:].max() - found.lefts[1:].min()))
        is_merged = is_wide and _MERGED_SHARE <= _right_area(found, number) / area <= 1 - _MERGED_SHARE
        parts.append(_Part(number, left, right, area, float(found.centers[number]), is_merged))
    return parts


def _right_area(found: Components, number: int) -> int:
    """Return the number of pixels of a component right of the image's middle."""
    return int(np.count_nonzero(found.numbers[:, found.numbers.shape[1] // 2 :] == number))


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
