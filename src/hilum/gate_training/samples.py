"""Training samples of the gate: views of frontal radiographs, synthetic images, and negative examples of a CSV."""

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
"""Longer side of stored negative examples, pixels."""
_DRAWN = 128
"""Side of a synthetic image, pixels."""
_SHARES = {FRONTAL: 0.5, LATERAL: 0.12, OTHER: 0.07, SLICE: 0.1, COLLAGE: 0.06, PICTURE: 0.15}
"""Sampling probability of each kind. Kinds without negative examples use synthetic images only."""
_DRAWN_SHARE = {LATERAL: 0.15, OTHER: 0.75, SLICE: 0.25, PICTURE: 0.35}
"""Fraction of synthetic images for kinds with negative examples."""
_PHANTOM_SHARE = 0.04
_MASKED_SHARE = 0.5
"""Fraction of images with a lung mask, which is needed to decide whether a view is cropped."""


@dataclass(frozen=True)
class Other:
    """One negative example of the CSV.

    Attributes:
        path: Path of the image.
        kind: Index of its kind in KINDS.
        collection: Name of the collection that it comes from.
        split: Its split.
    """

    path: Path
    kind: int
    collection: str
    split: SplitName


@dataclass(frozen=True)
class Samples:
    """Samples that views are drawn from.

    Attributes:
        images: Decoded frontal radiographs, some with lung masks.
        others: Kind to negative examples (H, W) uint8.
        phantoms: Synthetic frontal radiographs with lung masks.
        size: Side S of the views, pixels.
    """

    images: Cache
    others: Mapping[int, Sequence[Gray8]]
    phantoms: Sequence[tuple[Gray8, NDArray[np.bool_]]]
    size: int

    def batch(self, seed: int, step: int, count: int) -> tuple[Gray8, NDArray[np.int64]]:
        """Return a batch of views as a function of (seed, step).

        Args:
            seed: Random seed.
            step: Training step.
            count: Number of views N.

        Returns:
            Views (N, S, S) uint8, and properties (N, 2 + flags) int64: kind, rotation, flags.
        """
        random = np.random.default_rng((seed, step))
        views = [self.view(random) for _ in range(count)]
        return np.stack([view.image for view in views]), np.array([view.properties for view in views], np.int64)

    def view(self, random: np.random.Generator) -> View:
        """Return a random view of a random kind."""
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
    """Draw a synthetic image of ``kind``, (S, S) uint8."""
    if kind == LATERAL:
        return lateral_chest(random, _DRAWN)
    choices = list({OTHER: BODY_PARTS, SLICE: SLICES, PICTURE: NEGATIVES}[kind].values())
    return choices[int(random.integers(len(choices)))](random, _DRAWN)


def draw_phantoms(seed: int, count: int, size: int) -> list[tuple[Gray8, NDArray[np.bool_]]]:
    """Draw ``count`` synthetic frontal radiographs (S, S) uint8 with lung masks (S, S) bool."""
    labels = [PHANTOM_CLASSES[number % len(PHANTOM_CLASSES)] for number in range(count)]
    drawn = [draw_phantom(seed + number, label, size=size) for number, label in enumerate(labels)]
    return [(phantom.image, phantom.lung_mask) for phantom in drawn]


def read_others(table: Path, folder: Path | None = None) -> list[Other]:
    """Read negative examples from a CSV with columns ``image``, ``kind`` (one of KINDS), ``collection`` and ``split``.

    Args:
        table: The CSV; ``collection`` and ``split`` are optional.
        folder: Folder that paths are relative to; the CSV's folder by default.

    Raises:
        DataError: The CSV cannot be read, lacks a column, names an unknown kind, or has no rows.
    """
    header, rows = read_rows(table)
    if missing := {"image", "kind"} - set(header):
        raise DataError(
            f"'{table}' has no column {' and '.join(sorted(missing))}.", hint="The columns image and kind are required."
        )
    others = []
    for line, row in rows:
        if row["kind"] not in KINDS[1:]:
            raise DataError(
                f"Expected the kind {', '.join(KINDS[1:])} in '{table}', line {line}, got {row['kind']!r}.",
                hint="Correct the cell.",
            )
        split = row.get("split") or "train"
        if split not in ("train", "val", "test"):
            raise DataError(
                f"Expected the split train, val or test in '{table}', line {line}, got {split!r}.",
                hint="Correct the cell.",
            )
        path = (folder or table.parent) / row["image"]
        others.append(Other(path, KINDS.index(row["kind"]), row.get("collection") or row["kind"], split))  # type: ignore[arg-type]
    if not others:
        raise DataError(f"'{table}' has no rows.", hint="Add one row per negative example.")
    return others


def load_others(others: Sequence[Other]) -> dict[int, list[Gray8]]:
    """Read negative examples and return them by kind, (H, W) uint8, with a longer side of at most 256 pixels.

    Raises:
        ReadError: An image cannot be read.
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
    """Return the number of images of each kind."""
    return dict(Counter(KINDS[other.kind] for other in others))
