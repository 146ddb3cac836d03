"""Phantoms with a planted confound: something beside the lung that goes with the class as strongly as asked.

Each image has the confound or not. With strength s, P(present | class 1) = 0.5 + s / 2 and P(present | class 0) =
0.5 - s / 2, so that its presence alone tells the classes with AUC 0.5 + s / 2; with s = 0 it is there at random.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.errors import ConfigError
from hilum.phantoms.chest import METADATA_COLUMNS, check_empty, draw_phantom
from hilum.storage import write_bytes, write_csv

Confound: TypeAlias = Literal["marker", "border", "resolution", "noise", "scale"]
CONFOUNDS: tuple[Confound, ...] = get_args(Confound)
CONFOUNDED_CLASSES = ("Normal", "COVID")
"""Class 0 and class 1."""

MOST_IMAGES = 3
"""Images of one patient, at most, as in hilum.phantoms.chest.write_phantoms."""

_PATIENTS, _PRESENCE, _PLANT = range(20, 23)  # independent streams of random numbers

Image: TypeAlias = "NDArray[np.uint8]"
Mask: TypeAlias = "NDArray[np.bool_]"


@dataclass(frozen=True, eq=False)
class ConfoundedPhantoms:
    """N images of two classes.

    Attributes:
        images: (N, S, S) uint8.
        lungs: (N, S, S) bool, the lung masks; they move with the chest where the confound is ``scale``.
        regions: (N, S, S) bool, the opacities, likewise.
        labels: (N,) int64, 0 or 1, see CONFOUNDED_CLASSES; the classes take turns by patient.
        groups: N names, one per patient, who has one to three images of one class.
        present: (N,) bool, which images have the confound.
    """

    images: NDArray[np.uint8]
    lungs: NDArray[np.bool_]
    regions: NDArray[np.bool_]
    labels: NDArray[np.int64]
    groups: tuple[str, ...]
    present: NDArray[np.bool_]


def confounded_phantoms(n: int, kind: Confound, strength: float, seed: int, size: int = 64) -> ConfoundedPhantoms:
    """Draw ``n`` images of two classes with one confound, the same for the same arguments.

    Raises:
        ConfigError: an unknown kind, a strength outside [0, 1], n below 2, a negative seed or a size below 32.
    """
    _check(n, kind, strength, seed)
    labels, patients = plan_patients(n, np.random.default_rng((_PATIENTS, seed)))
    present = draw_presence(labels, strength, np.random.default_rng((_PRESENCE, seed)))
    first = seed * 1_000_000
    images = []
    for row in range(n):
        label = CONFOUNDED_CLASSES[labels[row]]
        phantom = draw_phantom(first + row, label, size=size, patient=first + int(patients[row]))
        rng = np.random.default_rng((_PLANT, seed, row))
        masks = (phantom.lung_mask, phantom.region_mask)
        images.append(plant(phantom.image, masks, kind, bool(present[row]), rng))
    return ConfoundedPhantoms(
        images=np.stack([image for image, _ in images]),
        lungs=np.stack([masks[0] for _, masks in images]),
        regions=np.stack([masks[1] for _, masks in images]),
        labels=labels,
        groups=tuple(f"phantom-{first + patient}" for patient in patients.tolist()),
        present=present,
    )


def plan_patients(n: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Labels (N,) and patients (N,), both int64: patients of one to three images, the two classes in turn."""
    images = rng.integers(1, MOST_IMAGES + 1, n)
    patients = np.repeat(np.arange(n), images)[:n]
    return patients % 2, patients


def draw_presence(labels: NDArray[np.int64], strength: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(N,) bool, for each image on its own: P(present | label 1) = 0.5 + strength / 2, the rest for label 0."""
    chance = 0.5 + strength / 2 * np.where(labels == 1, 1, -1)
    present: NDArray[np.bool_] = rng.random(labels.size) < chance
    return present


def plant(
    image: Image, masks: Sequence[Mask], kind: Confound, present: bool, rng: np.random.Generator
) -> tuple[Image, tuple[Mask, ...]]:
    """The image with the confound, or the image as it is where it is not ``present``.

    Only ``scale`` touches an image without it: both kinds are resampled, so that the resampling does not tell them.

    Args:
        image: (S, S) uint8.
        masks: any number of (S, S) bool that move with the chest; the first is the lungs.

    Returns:
        The image (S, S) uint8 and the masks (S, S) bool.

    Raises:
        ConfigError: an unknown kind.
    """
    if kind == "scale":
        return _scale(image, masks, rng.uniform(0.78, 0.85) if present else rng.uniform(0.95, 1.0))
    if kind not in _PLANTED:
        raise ConfigError(f"Expected a confound out of {', '.join(CONFOUNDS)}, got {kind}.")
    return (_PLANTED[kind](image, masks[0], rng) if present else image), tuple(masks)


def write_confounded(
    out: Path,
    n: int,
    kind: Confound,
    strength: float,
    *,
    seed: int = 0,
    size: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write confounded_phantoms in the layout of hilum.phantoms.chest.write_phantoms, with ``confound`` as a column.

    ``OUT/<class>/{images,masks,regions}/<stem>.png`` and ``OUT/metadata.csv``, written last. Every image has its
    lung mask.

    Returns:
        The path of the table.

    Raises:
        ConfigError: see confounded_phantoms.
        OutputError: ``out`` has something in it, or cannot be written.
    """
    check_empty(out)
    images = confounded_phantoms(n, kind, strength, seed, size)
    rows = []
    for row in range(n):
        label = CONFOUNDED_CLASSES[images.labels[row]]
        arrays: dict[str, NDArray[Any]] = {
            "images": images.images[row],
            "masks": images.lungs[row] * np.uint8(255),
            "regions": images.regions[row] * np.uint8(255),
        }
        paths = {folder: f"{label}/{folder}/{label}-{row + 1:05d}.png" for folder in arrays}
        for folder, pixels in arrays.items():
            write_bytes(out / paths[folder], cv2.imencode(".png", pixels)[1].tobytes())
        cells = (paths["images"], paths["masks"], label, images.groups[row], "phantom", paths["regions"])
        rows.append((*cells, kind if images.present[row] else ""))
        if progress is not None:
            progress(row + 1, n)
    table = out / "metadata.csv"
    write_csv(table, (*METADATA_COLUMNS, "confound"), rows)
    return table


def _check(n: int, kind: str, strength: float, seed: int) -> None:
    if kind not in CONFOUNDS:
        raise ConfigError(f"Expected a confound out of {', '.join(CONFOUNDS)}, got {kind}.")
    if not 0 <= strength <= 1:
        raise ConfigError(f"Expected a strength in [0, 1], got {strength}.", hint="0 is none, 1 tells every image.")
    if n < len(CONFOUNDED_CLASSES) or seed < 0:
        raise ConfigError(f"Expected at least 2 images and a seed of at least 0, got n={n} and seed={seed}.")


def _marker(image: Image, lungs: Mask, rng: np.random.Generator) -> Image:
    """A bright block in the upper left corner, a sixteenth of the side, never over the lungs."""
    size = image.shape[0]
    side = max(2, round(size / 16))
    top, left = rng.integers(1, max(2, round(size / 20)) + 1, 2)
    block = np.zeros_like(lungs)
    block[top : top + side, left : left + side] = True
    return np.where(block & ~lungs, np.uint8(rng.integers(225, 256)), image)


def _border(image: Image, lungs: Mask, rng: np.random.Generator) -> Image:
    """A frame of a twentieth of the side, drawn half-way towards one gray."""
    width = max(2, round(image.shape[0] / 20))
    frame = np.ones_like(lungs)
    frame[width:-width, width:-width] = False
    toned = np.rint(0.5 * image + 0.5 * rng.uniform(90, 130)).astype(np.uint8)
    return np.where(frame & ~lungs, toned, image)


def _resolution(image: Image, lungs: Mask, rng: np.random.Generator) -> Image:
    """Down to about 0.6 of the side and up again: an image that was once stored smaller."""
    size = image.shape[0]
    small = round(size * rng.uniform(0.55, 0.65))
    shrunk = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(shrunk, (size, size), interpolation=cv2.INTER_LINEAR), np.uint8)


def _noise(image: Image, lungs: Mask, rng: np.random.Generator) -> Image:
    """Additive white noise of a standard deviation of 7 to 9 gray levels."""
    noisy = image + rng.uniform(7, 9) * rng.standard_normal(image.shape)
    return np.rint(np.clip(noisy, 0, 255)).astype(np.uint8)


def _scale(image: Image, masks: Sequence[Mask], zoom: float) -> tuple[Image, tuple[Mask, ...]]:
    """The chest smaller within its frame, as a child's on an adult's cassette; the edge goes on beyond it."""
    size = image.shape[0]
    center = (size - 1) / 2
    move = np.array([[zoom, 0, center * (1 - zoom)], [0, zoom, center * (1 - zoom)]])
    moved = cv2.warpAffine(image, move, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    shapes = [cv2.warpAffine(mask.astype(np.uint8), move, (size, size), flags=cv2.INTER_NEAREST) for mask in masks]
    return np.asarray(moved, np.uint8), tuple(shape > 0 for shape in shapes)


_PLANTED: dict[str, Callable[[Image, Mask, np.random.Generator], Image]] = {
    "marker": _marker,
    "border": _border,
    "resolution": _resolution,
    "noise": _noise,
}
