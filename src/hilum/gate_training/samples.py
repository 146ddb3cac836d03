"""What the gate learns from: views of frontal radiographs, drawn images, and images that a table names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.data.cache import Cache
from hilum.data.table import read_rows
from hilum.errors import DataError
from hilum.gate.verdict import COLLAGE, FRONTAL, KINDS, LATERAL, OTHER, PICTURE, SLICE
from hilum.gate_training.body_parts import BODY_PARTS, lateral_chest
from hilum.gate_training.negatives import NEGATIVES, SLICES
from hilum.gate_training.views import View, collage_view, image_view, other_view, screenshot_view
from hilum.imaging.preprocess import to_uint8
from hilum.imaging.read import read_radiograph
from hilum.phantoms.chest import PHANTOM_CLASSES, draw_phantom
from hilum.types import SplitName

Gray8 = NDArray[np.uint8]

_STORED = 256
"""Images of the table are kept at this longer side, in pixels."""
_DRAWN = 128
"""Side of a drawn image, in pixels."""
_SHARES = {FRONTAL: 0.5, LATERAL: 0.12, OTHER: 0.07, SLICE: 0.1, COLLAGE: 0.06, PICTURE: 0.15}
"""How often each kind is drawn; those of the table that have no image are drawn by the project alone."""
_DRAWN_SHARE = {LATERAL: 0.15, OTHER: 0.75, SLICE: 0.25, PICTURE: 0.35}
"""Of each kind, how often a drawn one is taken where the table has some."""
_PHANTOM_SHARE = 0.04
_MASKED_SHARE = 0.5
"""How often an image is taken from those whose lungs are known, of which alone it can be said whether it is cut off."""


@dataclass(frozen=True)
class Other:
    """One image of the table."""

    path: Path
    kind: int
    collection: str
    split: SplitName


@dataclass(frozen=True)
class Samples:
    """All that views are drawn from.

    Attributes:
        images: Decoded training images, with the lungs of some.
        others: Kind to gray images (H, W) uint8.
        phantoms: Drawn frontal radiographs and their lungs.
        size: S of the views.
    """

    images: Cache
    others: Mapping[int, Sequence[Gray8]]
    phantoms: Sequence[tuple[Gray8, NDArray[np.bool_]]]
    size: int

    def batch(self, seed: int, step: int, count: int) -> tuple[Gray8, NDArray[np.int64]]:
        """``count`` views, a function of (seed, step): (N, S, S), and (N, 2 + flags): kind, turn, flags."""
        random = np.random.default_rng((seed, step))
        views = [self.view(random) for _ in range(count)]
        return np.stack([view.image for view in views]), np.array([view.properties for view in views], np.int64)

    def view(self, random: np.random.Generator) -> View:
        """One drawn view of one kind."""
        kind = int(random.choice(list(_SHARES), p=list(_SHARES.values())))
        if kind == FRONTAL:
            return image_view(random, *self._image(random), self.size, FRONTAL)
        if kind == COLLAGE:
            return self._collage(random)
        return other_view(random, self._other(random, kind), self.size, kind)

    def _image(self, random: np.random.Generator) -> tuple[Gray8, NDArray[np.bool_] | None]:
        if self.phantoms and random.random() < _PHANTOM_SHARE:
            return self.phantoms[int(random.integers(len(self.phantoms)))]
        masked = np.flatnonzero(self.images.mask_row >= 0)
        if masked.size and random.random() < _MASKED_SHARE:
            row = int(random.choice(masked))
        else:
            row = int(random.integers(len(self.images.images)))
        at = int(self.images.mask_row[row])
        return self.images.images[row], self.images.masks[at] > 0 if at >= 0 else None

    def _other(self, random: np.random.Generator, kind: int) -> Gray8:
        mine = self.others.get(kind, ())
        if mine and random.random() >= _DRAWN_SHARE[kind]:
            return mine[int(random.integers(len(mine)))]
        return draw_negative(random, kind)

    def _collage(self, random: np.random.Generator) -> View:
        if random.random() < 0.5:
            return screenshot_view(random, self._image(random)[0], self.size, COLLAGE)
        samples = [self._image(random)[0]]
        for _ in range(int(random.integers(1, 6))):
            kind = int(random.choice((FRONTAL, LATERAL, SLICE), p=(0.6, 0.2, 0.2)))
            samples.append(self._image(random)[0] if kind == FRONTAL else self._other(random, kind))
        return collage_view(random, samples, self.size, COLLAGE)


def draw_negative(random: np.random.Generator, kind: int) -> Gray8:
    """An image of ``kind`` that the project draws: (S, S) uint8."""
    if kind == LATERAL:
        return lateral_chest(random, _DRAWN)
    choices = list({OTHER: BODY_PARTS, SLICE: SLICES, PICTURE: NEGATIVES}[kind].values())
    return choices[int(random.integers(len(choices)))](random, _DRAWN)


def draw_phantoms(seed: int, count: int, size: int) -> list[tuple[Gray8, NDArray[np.bool_]]]:
    """Synthetic frontal radiographs with their lungs, (S, S)."""
    labels = [PHANTOM_CLASSES[number % len(PHANTOM_CLASSES)] for number in range(count)]
    drawn = [draw_phantom(seed + number, label, size=size) for number, label in enumerate(labels)]
    return [(phantom.image, phantom.lung_mask) for phantom in drawn]


def read_others(table: Path, folder: Path | None = None) -> list[Other]:
    """The images that a CSV names: columns ``image``, ``kind`` (of KINDS), and, if there, ``collection``, ``split``.

    Args:
        table: The CSV.
        folder: Where its relative paths start; the CSV's own folder by default.

    Raises:
        DataError: The CSV cannot be read, lacks a column, names another kind, or lists nothing.
    """
    header, rows = read_rows(table)
    if missing := {"image", "kind"} - set(header):
        raise DataError(f"Expected the columns image and kind in {table}, it lacks {', '.join(sorted(missing))}.")
    others = []
    for line, row in rows:
        if row["kind"] not in KINDS[1:]:
            raise DataError(
                f"Expected a kind among {', '.join(KINDS[1:])} in {table}, line {line}, got {row['kind']!r}."
            )
        split = row.get("split") or "train"
        if split not in ("train", "val", "test"):
            raise DataError(f"Expected a split of train, val or test in {table}, line {line}, got {split!r}.")
        path = (folder or table.parent) / row["image"]
        others.append(Other(path, KINDS.index(row["kind"]), row.get("collection") or row["kind"], split))  # type: ignore[arg-type]
    if not others:
        raise DataError(f"Expected samples in {table}, it lists none.")
    return others


def load_others(others: Sequence[Other]) -> dict[int, list[Gray8]]:
    """The images by kind, shrunk to 256 px on the longer side.

    Raises:
        ReadError: One of them cannot be read.
    """
    loaded: dict[int, list[Gray8]] = {}
    for other in others:
        gray = to_uint8(read_radiograph(other.path))
        scale = min(1.0, _STORED / max(gray.shape))
        shape = (max(1, round(gray.shape[1] * scale)), max(1, round(gray.shape[0] * scale)))
        loaded.setdefault(other.kind, []).append(
            np.asarray(cv2.resize(gray, shape, interpolation=cv2.INTER_AREA), np.uint8)
        )
    return loaded


def counts(others: Sequence[Other]) -> dict[str, int]:
    """How many images of each kind."""
    return dict(Counter(KINDS[other.kind] for other in others))
