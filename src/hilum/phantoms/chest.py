"""Synthetic chest radiographs (phantoms) with exact masks, for tests, the demo and the documentation.

A phantom is a sum of attenuations along the beam (hilum.phantoms.anatomy), converted to transmitted intensity
(Beer-Lambert), with scatter and Poisson noise, and displayed through a sigmoid characteristic curve (Hurter and
Driffield). It is a drawing, not a physical simulation: metrics on phantoms say nothing about patients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.errors import ConfigError, DataError, OutputError
from hilum.phantoms.anatomy import Chest, draw_chest
from hilum.phantoms.canvas import Field
from hilum.phantoms.opacity import OPACITIES, VISIBLE
from hilum.storage import write_bytes, write_csv

PHANTOM_CLASSES = ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
METADATA_COLUMNS = ("image", "mask", "label", "group", "source", "region")

_MIN_SIZE = 32
_ANATOMY, _VIEW, _OPACITY, _FILES = range(4)  # independent streams of random numbers

# Strokes (x, y) in [0, 1]; OpenCV's fonts change between versions.
_LETTER_L = (((0.0, 0.0), (0.0, 1.0), (0.6, 1.0)),)
_LETTER_R = (
    ((0.0, 1.0), (0.0, 0.0), (0.4, 0.0), (0.6, 0.12), (0.6, 0.38), (0.4, 0.5), (0.0, 0.5)),
    ((0.3, 0.5), (0.65, 1.0)),
)


@dataclass(frozen=True)
class Phantom:
    """One synthetic frontal chest radiograph.

    Attributes:
        image: (S, S) uint8, MONOCHROME2.
        lung_mask: (S, S) bool, visible lung fields without lung behind heart, mediastinum and diaphragm, as in the
            masks of the COVID-19 Radiography Database. Two connected components.
        region_mask: (S, S) bool, exact region of the opacities, inside lung_mask or one pixel around it; all False for
            Normal. Outside it, the image is bit-identical to the Normal phantom of the same seed.
        label: One of PHANTOM_CLASSES.
        group: The patient; images of one patient must be in the same split.
    """

    image: NDArray[np.uint8]
    lung_mask: NDArray[np.bool_]
    region_mask: NDArray[np.bool_]
    label: str
    group: str


def draw_phantom(seed: int, label: str, *, size: int = 256, patient: int | None = None) -> Phantom:
    """Draw one synthetic radiograph, reproducibly.

    The patient determines the anatomy; the seed determines pose, exposure, noise and opacities. Two seeds of one
    patient are two images of the same person; the same seed in two classes differs only by the opacities.

    Args:
        seed: Random seed, at least 0.
        label: One of PHANTOM_CLASSES.
        size: Side S in pixels, at least 32. The anatomy does not depend on it, the noise does.
        patient: Number of the patient, at least 0; the seed by default.

    Returns:
        The image with its lung mask and region mask.

    Raises:
        ConfigError: The label is unknown, the size is below 32, or the seed is negative.
    """
    patient = seed if patient is None else patient
    _check(seed, patient, size, (label,))
    view = np.random.default_rng((_VIEW, seed))
    pose = np.array([view.normal(0, 2), view.uniform(0.92, 1.06), *view.uniform(-0.025, 0.025, 2)])
    chest = draw_chest(np.random.default_rng((_ANATOMY, patient)), size, pose)
    opacity_rng = np.random.default_rng((_OPACITY, seed, PHANTOM_CLASSES.index(label)))
    shutter = _draw_shutter(view, size)
    lungs: NDArray[np.bool_] = chest.lungs.max(0) & (shutter > 0)
    # Pixels at the edge of the mask are partly lung.
    reach = (cv2.dilate(lungs.view(np.uint8), np.ones((3, 3), np.uint8)) > 0) & (shutter > 0)
    opacity = np.where(reach, OPACITIES[label](opacity_rng, chest), 0)
    region = opacity >= VISIBLE
    replaced = np.where(region, opacity, 0).astype(np.float32)
    image = np.where(shutter > 0, _develop(chest, replaced, view), 0).astype(np.uint8)
    return Phantom(image, lungs, region, label, f"phantom-{patient}")


def write_phantoms(
    out: Path,
    n: int,
    *,
    seed: int = 0,
    size: int = 256,
    classes: Sequence[str] = PHANTOM_CLASSES,
    mask_share: float = 0.8,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write ``n`` phantoms as a dataset of class folders with a CSV, and return the path of the CSV.

    The files are ``OUT/<class>/{images,masks,regions}/<stem>.png`` (masks 0 or 255) and ``OUT/metadata.csv`` with
    METADATA_COLUMNS and relative paths, written last. A patient, which is a group, has one to three images.

    Args:
        out: New or empty folder.
        n: Number of phantoms.
        seed: Random seed, at least 0; other seeds give other patients.
        size: Side in pixels, at least 32.
        classes: Classes to write, of PHANTOM_CLASSES.
        mask_share: Fraction of the images of each class with a lung mask, in [0, 1].
        progress: Called with (done, n) after each phantom.

    Raises:
        ConfigError: A class is unknown or repeated, the size is below 32, the fraction is outside [0, 1], or the seed
            is negative.
        DataError: There are fewer phantoms than classes.
        OutputError: ``out`` is a file or a folder that is not empty, or cannot be written.
    """
    _check(seed, 0, size, classes)
    if not 0 <= mask_share <= 1:
        raise ConfigError(f"Expected mask_share in [0, 1], got {mask_share}.", hint="The default is 0.8.")
    if n < len(classes):
        raise DataError(
            f"Expected at least one phantom for each of {len(classes)} classes, got {n}.", hint="Increase the count."
        )
    check_empty(out)
    rows: list[tuple[str, ...]] = []
    for label, number, patient, has_mask in _plan(n, seed, classes, mask_share):
        phantom = draw_phantom(number, label, size=size, patient=patient)
        rows.append(_write_one(out, f"{label}-{len(rows) + 1:05d}", phantom, has_mask))
        if progress is not None:
            progress(len(rows), n)
    table = out / "metadata.csv"
    write_csv(table, METADATA_COLUMNS, rows)
    return table


def _check(seed: int, patient: int, size: int, labels: Sequence[str]) -> None:
    unknown = [label for label in labels if label not in PHANTOM_CLASSES]
    if unknown or not labels or len(set(labels)) < len(labels):
        raise ConfigError(
            f"Expected different classes of {', '.join(PHANTOM_CLASSES)}, got {', '.join(labels) or 'none'}.",
            hint="Names are case-sensitive.",
        )
    if size < _MIN_SIZE:
        raise ConfigError(f"Expected a size of at least {_MIN_SIZE} pixels, got {size}.", hint="Increase the size.")
    if min(seed, patient) < 0:
        raise ConfigError(f"Expected a seed of at least 0, got {min(seed, patient)}.", hint="Use 0 or more.")


def check_empty(out: Path) -> None:
    """Check that ``out`` does not exist, or is an empty folder.

    Raises:
        OutputError: ``out`` is a file or a folder that is not empty, or cannot be read.
    """
    try:
        occupied = out.exists() and (not out.is_dir() or any(out.iterdir()))
    except OSError as error:
        raise OutputError(f"Cannot read '{out}': {error.strerror}.", hint="Choose another folder.") from error
    if occupied:
        raise OutputError(f"'{out}' exists and is not an empty folder.", hint="Choose another folder.")


def _plan(n: int, seed: int, classes: Sequence[str], mask_share: float) -> list[tuple[str, int, int, bool]]:
    """Return (label, seed, patient, has_mask) of each phantom."""
    rng = np.random.default_rng((_FILES, seed))
    number = patient = seed * 1_000_000  # different seeds share no phantom
    plan = []
    for position, label in enumerate(classes):
        count = n // len(classes) + (position < n % len(classes))
        has_mask = rng.permutation(count) < round(mask_share * count)
        images_left = 0
        for index in range(count):
            if not images_left:
                images_left, patient = int(rng.integers(1, 4)), patient + 1
            images_left, number = images_left - 1, number + 1
            plan.append((label, number, patient, bool(has_mask[index])))
    return plan


def _write_one(out: Path, stem: str, phantom: Phantom, has_mask: bool) -> tuple[str, ...]:
    """Write the files of one phantom and return its CSV row."""
    images = {"images": phantom.image, "masks": phantom.lung_mask, "regions": phantom.region_mask}
    paths = {}
    for folder, pixels in images.items():
        paths[folder] = f"{phantom.label}/{folder}/{stem}.png"
        if folder == "masks" and not has_mask:
            paths[folder] = ""
            continue
        scaled = np.asarray(pixels * (255 if pixels.dtype == np.bool_ else 1), np.uint8)
        write_bytes(out / paths[folder], cv2.imencode(".png", scaled)[1].tobytes())
    return paths["images"], paths["masks"], phantom.label, phantom.group, "phantom", paths["regions"]


def _draw_shutter(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """Return the collimated field, (S, S) uint8, 0 outside; two in three images have no visible edge."""
    inset = rng.uniform(0, 0.045, 4) * (rng.random() < 0.35)
    angle = np.deg2rad(rng.normal(0, 0.6))
    left, top, right, bottom = inset[0], inset[1], 1 - inset[2], 1 - inset[3]
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)]) - 0.5
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if not inset.any():
        return np.full((size, size), 255, np.uint8)
    shutter = np.zeros((size, size), np.uint8)
    cv2.fillPoly(shutter, [np.rint((corners @ turn.T + 0.5) * size * 64).astype(np.int32)], 255, cv2.LINE_8, 6)
    return shutter


def _develop(chest: Chest, replaced: Field, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Convert attenuation to an image; ``replaced`` (S, S) is the fraction of air replaced by opacities."""
    level, latitude = rng.uniform(1.8, 2.7), rng.uniform(0.75, 1.05)
    gamma, photons = rng.uniform(0.8, 1.25), 10 ** rng.uniform(3.2, 4.2)
    veil_share, darkest, brightest = rng.uniform(0.03, 0.1), rng.uniform(0, 10), rng.uniform(225, 255)
    clear = np.exp(chest.air - chest.tissue)
    # Scatter is computed without opacities, so that they change only pixels inside their region.
    veil = veil_share * chest.canvas.blur_wide(clear * chest.body)
    beam = np.exp(chest.air * (1 - replaced) - chest.tissue) + veil
    marker = _draw_marker(rng, beam.shape[0])
    noise = rng.standard_normal(beam.shape, np.float32)
    beam = np.maximum(beam + np.sqrt(beam / np.float32(photons)) * noise, 1e-4)
    image = 1 / (1 + np.exp((level + np.log(beam)) / latitude))
    floor, ceiling = (1 / (1 + np.exp((level - a) / latitude)) for a in (0.0, 6.0))
    shown = np.clip((image - floor) / (ceiling - floor), 0, 1) ** gamma
    gray: NDArray[np.uint8] = np.rint(darkest + (brightest - darkest) * shown).astype(np.uint8)
    return np.maximum(gray, marker)


def _draw_marker(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """Draw the letter R or L at its side of the image, (S, S) uint8, in two of five images of every class."""
    layer = np.zeros((size, size), np.uint8)
    shown, right = rng.random() < 0.4, rng.random() < 0.5
    x, y, height = rng.uniform(0.03, 0.1), rng.uniform(0.03, 0.1), rng.uniform(0.04, 0.06)
    if shown:
        corner = (x if right else 1 - x - height, y)
        strokes = [
            np.rint((np.array(stroke) * height + corner) * size * 64).astype(np.int32)
            for stroke in (_LETTER_R if right else _LETTER_L)
        ]
        cv2.polylines(layer, strokes, False, 245, max(1, round(size * height / 8)), cv2.LINE_AA, 6)
    return layer
