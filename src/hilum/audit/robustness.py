"""Measure how a network's predictions change under eight common changes of the image, each at five strengths.

After Hendrycks & Dietterich (2019, ICLR). Changes are made to the fitted image, inside its frame, so that padding stays
black; rotation, scale and shift move the whole square, as the augmentation in training does, and fill it with black.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.audit.erasure import Image, Mask
from hilum.audit.treatments import run_changed
from hilum.backends.base import Backend
from hilum.bundle.prediction_sets import Temperature, softmax
from hilum.config import PreprocessSpec
from hilum.errors import ConfigError, DataError
from hilum.format import format_interval
from hilum.imaging.preprocess import content_of
from hilum.metrics.bootstrap import Interval, bootstrap
from hilum.metrics.scores import FloatArray, dice_and_iou, nan_mean, one_vs_rest_auc
from hilum.progress import Progress
from hilum.types import Finding

Pass: TypeAlias = tuple[str, int]

INTACT = "intact"
LEVELS = 5
STATISTICS = ("accuracy", "auc", "kept", "drop", "mask_dice")
PASSES = 1 + LEVELS * 8
"""The intact images, and each of CHANGES at each strength."""
MILD = 2
"""Levels up to this one leave an image that a reader would accept."""
WARNING_DROP = 0.05
"""A loss of accuracy at a mild level whose lower bound is above this is a warning."""


class Scale(NamedTuple):
    """The strengths of one change, mildest first."""

    unit: str
    strengths: tuple[float, float, float, float, float]


CHANGES = {
    "noise": Scale("gray levels, standard deviation", (2, 5, 10, 20, 40)),
    "blur": Scale("pixels of a side of 256, standard deviation", (1, 1.5, 2, 3, 4)),
    "gamma": Scale("exponent, or its inverse", (1.1, 1.25, 1.5, 2, 2.5)),
    "contrast": Scale("factor about the mean, or its inverse", (1.1, 1.25, 1.5, 2, 3)),
    "jpeg": Scale("quality", (80, 50, 30, 15, 5)),
    "rotation": Scale("degrees, either way", (3, 6, 12, 20, 30)),
    "scale": Scale("factor, or its inverse", (1.05, 1.1, 1.2, 1.35, 1.5)),
    "shift": Scale("share of the side, one of four ways", (0.02, 0.05, 0.1, 0.15, 0.2)),
}
"""Where a change goes both ways, the direction is drawn per image, the same for all changes and strengths."""


@dataclass(frozen=True)
class RobustnessPoint:
    """A network's scores on images after one change at one strength.

    Attributes:
        change: One of CHANGES, or INTACT.
        level: 1 (mildest) to 5; 0 for INTACT.
        strength: In ``unit``.
        unit: See CHANGES.
        accuracy: Share of images whose predicted label is the image's label.
        auc: Macro one-vs-rest AUROC.
        kept: Share of images whose predicted label is that of the intact image.
        drop: Accuracy on the intact images less ``accuracy``, on the same resamples.
        mask_dice: Mean Dice of the predicted lungs with those of the intact image, moved likewise.
    """

    change: str
    level: int
    strength: float
    unit: str
    accuracy: Interval
    auc: Interval
    kept: Interval
    drop: Interval
    mask_dice: Interval


def robustness(
    backend: Backend,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    class_names: tuple[str, ...],
    clusters: NDArray[np.int64],
    spec: PreprocessSpec,
    *,
    limit: int = 500,
    temperature: Temperature = 1.0,
    mask_threshold: float = 0.5,
    batch_size: int = 32,
    resamples: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[RobustnessPoint, ...]:
    """Score a network on the same images intact and after each of CHANGES at each strength: 41 passes.

    Intervals are at 95%, clustered by group within classes; their n is the number of images used.

    Args:
        backend: The inference engine.
        images: (N, S, S) uint8, fitted images.
        labels: (N,) int64, -1 where unknown.
        class_names: K names, the order of the logits.
        clusters: (N,) int64, the group of each image.
        spec: The network's preprocessing.
        limit: Number of images to use, at most, drawn at random in the proportions of the classes.
        temperature: Divisor of the logits before softmax, see hilum.bundle.prediction_sets.softmax.
        mask_threshold: Pixels with a probability above it are lung.
        batch_size: Images in one forward pass.
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap, of the choice of images and of the noise.
        progress: Called with (images done, images in all), all passes together.

    Returns:
        INTACT, then CHANGES in their order, mildest first.

    Raises:
        ConfigError: ``limit`` is below 1.
        DataError: The lengths differ, no image is labeled, or the network's output is not finite.
    """
    if not len(images) == labels.size == clusters.size:
        shapes = f"{len(images)} images, {labels.size} labels and {clusters.size} groups"
        raise DataError(f"Labels and groups must match the images in number, got {shapes}.")
    rows = _chosen(labels, limit, seed)
    passes = [(INTACT, 0), *((change, level) for change in CHANGES for level in range(1, LEVELS + 1))]
    answers: dict[Pass, tuple[FloatArray, FloatArray]] = {}  # probabilities (N, K), mask Dice (N,)
    lungs = np.zeros((rows.size, spec.size, spec.size), np.bool_)  # of the intact images
    for step, key in enumerate(passes):
        logits, agreement, change = [], [], _changed(images, rows, *key, seed)
        for batch, output in run_changed(backend, rows.size, change, spec, len(class_names), batch_size):
            logits.append(output.classification)
            found = output.segmentation[:, 0] > mask_threshold
            if key[0] == INTACT:
                lungs[batch] = found
            moved = [move_mask(lungs[rank], *key, int(rows[rank]), seed) for rank in range(batch.start, batch.stop)]
            agreement.append(dice_and_iou(found, np.stack(moved))[0])
            if progress:
                progress(step * rows.size + batch.stop, len(passes) * rows.size)
        answers[key] = softmax(np.concatenate(logits), temperature), np.concatenate(agreement)
    intervals = _intervals(labels[rows], answers, clusters[rows], resamples, seed)
    return tuple(_point(key, intervals) for key in passes)


def change_image(image: Image, change: str, level: int, row: int = 0, seed: int = 0) -> Image:
    """Return an image (S, S) uint8 after one of CHANGES; the same arguments give the same image.

    Args:
        image: (S, S) uint8, a fitted image.
        change: One of CHANGES.
        level: 0 (unchanged) to 5.
        row: Row of the image, a seed of the noise and of the direction of a change that goes both ways.
        seed: A second seed.
    """
    matrix = movement(change, level, image.shape[0], row, seed)
    if matrix is not None:
        return np.asarray(cv2.warpAffine(image, matrix, image.shape[::-1], flags=cv2.INTER_LINEAR), np.uint8)
    changed = np.array(image)
    inside = content_of(image)
    content = changed[inside]
    if not level or not content.any():
        return changed
    strength = CHANGES[change].strengths[level - 1]
    power = strength ** _ways(row, seed)[0]  # of gamma and contrast
    gray = content.astype(np.float32)
    if change == "noise":
        gray += np.float32(strength) * np.random.default_rng([seed, row, level]).standard_normal(gray.shape, np.float32)
    elif change == "blur":
        gray = cv2.GaussianBlur(gray, (0, 0), strength * image.shape[0] / 256)  # type: ignore[assignment]
    elif change == "gamma":
        gray = 255 * (gray / 255) ** np.float32(power)
    elif change == "contrast":
        gray = gray.mean() + np.float32(power) * (gray - gray.mean())
    else:
        coded = cv2.imencode(".jpg", content, [cv2.IMWRITE_JPEG_QUALITY, int(strength)])[1]
        gray = np.asarray(cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE), np.float32)
    changed[inside] = np.rint(np.clip(gray, 0, 255))
    return changed


def movement(change: str, level: int, side: int, row: int = 0, seed: int = 0) -> NDArray[np.float64] | None:
    """Return the (2, 3) affine matrix from old to new pixel coordinates (x, y) of a change that moves the image.

    Rotation (anticlockwise or clockwise) and scale are about the center of the square; a shift goes right, left, down
    or up. Other changes have none and give None.
    """
    if not level or change not in ("rotation", "scale", "shift"):
        return None
    strength = CHANGES[change].strengths[level - 1]
    way, axis = _ways(row, seed)
    center = (side - 1) / 2
    if change == "rotation":
        return np.asarray(cv2.getRotationMatrix2D((center, center), way * strength, 1.0), np.float64)
    if change == "scale":
        return np.asarray(cv2.getRotationMatrix2D((center, center), 0.0, strength**way), np.float64)
    matrix = np.eye(2, 3)
    matrix[axis, 2] = way * strength * side
    return matrix


def move_mask(mask: Mask, change: str, level: int, row: int = 0, seed: int = 0) -> Mask:
    """Return a mask (S, S) bool moved as change_image moves the image (nearest); itself where nothing moves."""
    matrix = movement(change, level, mask.shape[0], row, seed)
    if matrix is None:
        return mask
    return cv2.warpAffine(mask.astype(np.uint8), matrix, mask.shape[::-1], flags=cv2.INTER_NEAREST) > 0


def robustness_findings(points: tuple[RobustnessPoint, ...]) -> tuple[Finding, ...]:
    """Return a warning for each change that costs more than WARNING_DROP (lower bound) at a mild level, else info."""
    intact = next(point for point in points if point.change == INTACT)
    findings = []
    for change in CHANGES:
        mild = [point for point in points if point.change == change and point.level <= MILD]
        lost = next((point for point in mild if point.drop.low > WARNING_DROP), None)
        if lost is None:
            continue
        first, last = (format_interval(point.accuracy, 1, percent=True) for point in (intact, lost))
        message = (
            f"A mild change ({change}, {lost.strength:g}; {lost.unit}) lowers the accuracy from {first} to {last}, by "
            f"{format_interval(lost.drop, 2)}, on {lost.accuracy.n:,} images."
        )
        findings.append(Finding("robustness", "warning", message))
    if findings:
        return tuple(findings)
    worst = max((point for point in points if 0 < point.level <= MILD), key=lambda point: point.drop.value)
    message = (
        f"No mild change was found to lower the accuracy by more than {WARNING_DROP:.0%}, on {intact.accuracy.n:,} "
        f"images; the largest loss is {format_interval(worst.drop, 2)}, by {worst.change}, {worst.strength:g} "
        f"({worst.unit})."
    )
    return (Finding("robustness", "info", message),)


def _ways(row: int, seed: int) -> tuple[int, int]:
    """The direction of the changes of an image, -1 or 1, and their axis, 0 (x) or 1 (y)."""
    # Drawn, not alternating: the classes of a table's rows may alternate too.
    way, axis = np.random.default_rng([seed, row]).integers(2, size=2).tolist()
    return 2 * way - 1, axis


def _chosen(labels: NDArray[np.int64], limit: int, seed: int) -> NDArray[np.int64]:
    """At most ``limit`` labeled rows, ascending: every n-th of a list that is sorted by label, else shuffled."""
    if limit < 1:
        raise ConfigError(f"Expected a limit of at least 1 image, got {limit}.", hint="500 is the default.")
    known = np.random.default_rng(seed).permutation(np.flatnonzero(labels >= 0))
    if not known.size:
        raise DataError("No image has a label, so robustness cannot be measured.")
    ordered = known[np.argsort(labels[known], kind="stable")]
    count = min(limit, known.size)
    places = (np.arange(count) + 0.5) * known.size / count
    return np.sort(ordered[places.astype(np.int64)])


def _changed(
    images: NDArray[np.uint8], rows: NDArray[np.int64], change: str, level: int, seed: int
) -> Callable[[int], Image]:
    return lambda rank: change_image(images[rows[rank]], change, level, int(rows[rank]), seed)


def _intervals(
    labels: NDArray[np.int64],
    answers: dict[Pass, tuple[FloatArray, FloatArray]],
    clusters: NDArray[np.int64],
    resamples: int,
    seed: int,
) -> dict[tuple[Pass, str], Interval]:
    """Every statistic of every pass, on the same resamples."""
    predicted = {key: scores.argmax(axis=1) for key, (scores, _) in answers.items()}
    origin = predicted[INTACT, 0]
    group = np.unique(clusters, return_inverse=True)[1].astype(np.int64)

    def statistics(weights: FloatArray) -> dict[tuple[Pass, str], FloatArray]:
        total = weights.sum(axis=1)
        values = {}
        for key, (scores, dice) in answers.items():
            right = (predicted[key] == labels).astype(np.float64)
            values[key, "accuracy"] = weights @ right / total
            values[key, "auc"] = nan_mean(one_vs_rest_auc(labels, scores, weights))
            values[key, "kept"] = weights @ (predicted[key] == origin) / total
            values[key, "drop"] = weights @ ((origin == labels) - right) / total
            values[key, "mask_dice"] = weights @ dice / total
        return values

    every = np.ones(labels.size, np.bool_)
    keys = [(key, name) for key in answers for name in STATISTICS]
    classes = [labels == k for k in np.unique(labels)]
    return bootstrap(
        statistics, dict.fromkeys(keys, every), group, strata=labels,
        bounds={key: (-1.0 if key[1] == "drop" else 0.0, 1.0) for key in keys},
        sides={key: classes for key in keys if key[1] == "auc"},
        shares=[key for key in keys if key[1] in ("accuracy", "kept")],
        means=[key for key in keys if key[1] == "mask_dice"], aurocs=[key for key in keys if key[1] == "auc"],
        resamples=resamples, seed=seed,
    )  # fmt: skip


def _point(key: Pass, found: dict[tuple[Pass, str], Interval]) -> RobustnessPoint:
    change, level = key
    scale = CHANGES.get(change)
    strength, unit = (scale.strengths[level - 1], scale.unit) if scale else (0.0, "")
    return RobustnessPoint(change, level, strength, unit, *(found[key, name] for name in STATISTICS))
