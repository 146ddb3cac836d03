"""Phantoms with a confounder outside the lungs that is associated with the class by a given strength.

With strength s, P(present | class 1) = 0.5 + s / 2 and P(present | class 0) = 0.5 - s / 2, so that the presence of the
confounder alone classifies with an AUROC of 0.5 + s / 2.
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
"""Maximum number of images per patient, as in hilum.phantoms.chest.write_phantoms."""

_PATIENTS, _PRESENCE, _PLANT = range(20, 23)  # independent streams of random numbers

Image: TypeAlias = "NDArray[np.uint8]"
Mask: TypeAlias = "NDArray[np.bool_]"


@dataclass(frozen=True, eq=False)
class ConfoundedPhantoms:
    """N phantoms of two classes with a confounder.

    Attributes:
        images: (N, S, S) uint8.
        lungs: (N, S, S) bool, lung masks, scaled with the chest for the confounder ``scale``.
        regions: (N, S, S) bool, regions of the opacities, scaled like the lungs.
        labels: (N,) int64, index into CONFOUNDED_CLASSES, alternating between patients.
        groups: N group names, one per patient with one to three images of one class.
        present: (N,) bool, True if the image has the confounder.
    """

    images: NDArray[np.uint8]
    lungs: NDArray[np.bool_]
    regions: NDArray[np.bool_]
    labels: NDArray[np.int64]
    groups: tuple[str, ...]
    present: NDArray[np.bool_]


def confounded_phantoms(n: int, kind: Confound, strength: float, seed: int, size: int = 64) -> ConfoundedPhantoms:
    """Draw phantoms of two classes with a confounder, reproducibly.

    Args:
        n: Number of images, at least 2.
        kind: The confounder, one of CONFOUNDS.
        strength: Strength of the association, in [0, 1].
        seed: Random seed, at least 0.
        size: Side in pixels, at least 32.

    Raises:
        ConfigError: An argument is out of range.
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
    """Return labels (N,) and patients (N,), both int64, with one to three images per patient."""
    images = rng.integers(1, MOST_IMAGES + 1, n)
    patients = np.repeat(np.arange(n), images)[:n]
    return patients % 2, patients


def draw_presence(labels: NDArray[np.int64], strength: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw the presence of the confounder for each image, (N,) bool, by its label and the strength."""
    chance = 0.5 + strength / 2 * np.where(labels == 1, 1, -1)
    present: NDArray[np.bool_] = rng.random(labels.size) < chance
    return present


def plant(
    image: Image, masks: Sequence[Mask], kind: Confound, present: bool, rng: np.random.Generator
) -> tuple[Image, tuple[Mask, ...]]:
    """Return an image and its masks with the confounder, or unchanged if it is not ``present``.

    The confounder ``scale`` resamples all images, so that resampling does not indicate its presence.

    Args:
        image: (S, S) uint8.
        masks: Masks (S, S) bool of the image; the first is the lung mask.
        kind: The confounder, one of CONFOUNDS.
        present: Whether the image has the confounder.
        rng: Random generator.

    Returns:
        The image (S, S) uint8 and the masks (S, S) bool.

    Raises:
        ConfigError: The confounder is unknown.
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
    """Write phantoms with a confounder as a dataset, and return the path of its CSV.

    The layout is that of hilum.phantoms.chest.write_phantoms, with a column ``confound``. Every image has a lung mask.

    Args:
        out: New or empty folder.
        n: As for confounded_phantoms.
        kind: As for confounded_phantoms.
        strength: As for confounded_phantoms.
        seed: As for confounded_phantoms.
        size: As for confounded_phantoms.
        progress: Called with (done, n) after each image.

    Raises:
        ConfigError: As for confounded_phantoms.
        OutputError: ``out`` is a file or a folder that is not empty, or cannot be written.
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
        raise ConfigError(f"Expected a strength in [0, 1], got {strength}.", hint="0 is no association.")
    if n < len(CONFOUNDED_CLASSES) or seed < 0:
        raise ConfigError(f"Expected at least 2 images and a seed of at least 0, got n={n} and seed={seed}.")


def _marker(image: Image, lungs: Mask, rng: np.random.Generator) -> Image:
    """Draw a bright block of a sixteenth of the side in the upper left corner, not over the lungs."""
    size = image.shape[0]
    side = max(2, round(size / 16))
    top, left = rng.integers(1, max(2, round(size / 20)) + 1, 2)
    block = np.zeros_like(lungs)
    block[top : top + side, left : left + side] = True
    return np.where(block & ~lungs, np.uint8(rng.integers(225, 256)), image)


def _border(image: Image, lungs: Mask, rng: np.random.Generator) -> Image:
    """Blend a frame of a twentieth of the side with a uniform gray."""
    width = max(2, round(image.shape[0] / 20))
    frame = np.ones_like(lungs)
    frame[width:-width, width:-width] = False
    toned = np.rint(0.5 * image + 0.5 * rng.uniform(90, 130)).astype(np.uint8)
    return np.where(frame & ~lungs, toned, image)


def _resolution(image: Image, lungs: Mask, rng: np.random.Generator) -> Image:
    """Downsample the image to about 0.6 of its side and upsample it again."""
    size = image.shape[0]
    small = round(size * rng.uniform(0.55, 0.65))
    shrunk = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(shrunk, (size, size), interpolation=cv2.INTER_LINEAR), np.uint8)


def _noise(image: Image, lungs: Mask, rng: np.random.Generator) -> Image:
    """Add white noise with a standard deviation of 7 to 9 gray levels."""
    noisy = image + rng.uniform(7, 9) * rng.standard_normal(image.shape)
    return np.rint(np.clip(noisy, 0, 255)).astype(np.uint8)


def _scale(image: Image, masks: Sequence[Mask], zoom: float) -> tuple[Image, tuple[Mask, ...]]:
    """Shrink the chest within the image and extend its edges, with its masks."""
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
