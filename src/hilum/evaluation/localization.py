"""Measure how well evidence maps point at the regions or boxes that people marked.

Each image gives one row per method: the network's own ``evidence``, ``grad-cam`` on the same network, and ``random in
lung``, a map that is constant inside the lung. Only the positive part of a map counts; it is taken first, then
enlarged linearly to the network's square input, in the same way for every method. Where one linear layer follows the
pooling (``encoder-unet``), Grad-CAM is by construction the positive part of the evidence, and the two are equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.backends.base import Backend
from hilum.config import PreprocessSpec
from hilum.evaluation.localization_table import MEASURES, LocalizationRow, LocalizationTable
from hilum.imaging.preprocess import fit_mask, to_input
from hilum.imaging.read import read_mask, read_radiograph
from hilum.metrics.bootstrap import Interval, bootstrap
from hilum.metrics.scores import FloatArray, Scores, nan_mean
from hilum.types import Box, Record

if TYPE_CHECKING:
    from torch import nn

THRESHOLD = 0.5
"""The region of a map is where it reaches at least this share of its maximum."""
EVIDENCE, GRAD_CAM, RANDOM = "evidence", "grad-cam", "random in lung"

Mask = NDArray[np.bool_]
Map = NDArray[np.float32]


@dataclass(frozen=True)
class Difference:
    """A measure of one method minus that of another, on the same images and resamples."""

    measure: str
    method: str
    against: str
    difference: Interval


@dataclass(frozen=True)
class LocalizationResult:
    """Means over images, with intervals clustered by group.

    Attributes:
        images: Number of images with a target.
        kinds: Number of images with each kind of target, ``region`` or ``boxes``.
        methods: Method to measure (``measures_of``) to its mean. A measure that no image defines is left out, such as
            ``inside_lung`` of ``random in lung``, which is 1 by definition.
        by_kind: The same for each kind, where there are two.
        differences: Evidence minus each other method, over the images on which both are defined.
    """

    images: int
    kinds: dict[str, int]
    methods: dict[str, dict[str, Interval]]
    by_kind: dict[str, dict[str, dict[str, Interval]]]
    differences: tuple[Difference, ...]


def localize(
    records: Sequence[Record],
    images: NDArray[np.uint8],
    lungs: Mask,
    scores: Scores,
    spec: PreprocessSpec,
    *,
    backend: Backend,
    network: nn.Module | None = None,
    of: Literal["label", "predicted"] = "label",
) -> LocalizationTable | None:
    """Measure the maps on labeled images with a region or boxes; None where there is no such image.

    A region without a pixel in the network's square input (too small, or empty) is ignored.

    Args:
        records: N records.
        images: (N, S, S) uint8, fitted.
        lungs: (N, S, S) bool.
        scores: Scores of the same records.
        spec: The network's preprocessing.
        backend: The inference engine, which gives the evidence where the network has it.
        network: The same network in PyTorch, for Grad-CAM; None skips Grad-CAM.
        of: Class of the map: the image's ``label``, which is what people marked, or the ``predicted`` class.

    Raises:
        ReadError: A region, or an image with boxes, cannot be read.
        ConfigError: Grad-CAM does not know the network.
    """
    targets = {
        row: target
        for row, record in enumerate(records)
        if scores.labels[row] >= 0 and (target := target_of(record, spec)) is not None and target.any()
    }
    if not targets:
        return None
    rows = np.array(list(targets), np.int64)
    classes = (scores.labels if of == "label" else scores.predicted)[rows]
    maps = _maps(to_input(images[rows], spec), classes, backend, network)
    found: list[LocalizationRow] = []
    for place, row in enumerate(rows.tolist()):
        record, lung = records[row], lungs[row]
        for method, own in maps.items():
            measures = measures_of(enlarged(own[place], spec.size), targets[row], lung)
            found.append(_row(scores, row, record, method, measures))
        found.append(_row(scores, row, record, RANDOM, random_in_lung(targets[row], lung)))
    return LocalizationTable(tuple(found))


def target_of(record: Record, spec: PreprocessSpec) -> Mask | None:
    """Return what people marked, (S, S) bool: the region, else the union of the boxes, else None.

    Raises:
        ReadError: The region, or the image, cannot be read.
    """
    if record.region_path is None and not record.boxes:
        return None
    radiograph = read_radiograph(record.image_path)
    region = drawn(record.boxes, radiograph.shape) if record.region_path is None else read_mask(record.region_path)
    return fit_mask(region, spec, pixel_aspect=radiograph.pixel_aspect)


def drawn(boxes: Sequence[Box], shape: tuple[int, int]) -> Mask:
    """Return the union of boxes, given as fractions of an image, as a mask (H, W)."""
    mask = np.zeros(shape, np.bool_)
    for x, y, width, height in boxes:
        top, bottom = min(round(y * shape[0]), shape[0] - 1), round((y + height) * shape[0])
        left, right = min(round(x * shape[1]), shape[1] - 1), round((x + width) * shape[1])
        mask[top : max(bottom, top + 1), left : max(right, left + 1)] = True  # at least one pixel
    return mask


def enlarged(saliency: Map, size: int) -> Map:
    """Return the positive part of a map (h, w), enlarged linearly to (size, size) float32."""
    # In this order for evidence as for Grad-CAM, whose maps come rectified: else the two differ by the resampling.
    positive = np.maximum(saliency, 0).astype(np.float32)
    return np.asarray(cv2.resize(positive, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)


def measures_of(saliency: Map, target: Mask, lung: Mask) -> dict[str, float]:
    """Return how well one map points at one target, as measures in [0, 1].

    ``hit``: the pointing game (Zhang et al. 2018, IJCV 126:1084) without tolerance: whether the maximum lies in the
    target; of several equal maxima, the share that does. ``dice`` and ``iou``: of the map's region (THRESHOLD) with
    the target.
    ``energy``: share of the map in the target (Wang et al. 2020, CVPR Workshops). ``inside_lung``: share of it in the
    lung. A map without a positive value misses: hit, dice, iou and energy are 0, inside_lung is NaN.

    Args:
        saliency: (S, S) float32; its negative part is ignored.
        target: (S, S) bool.
        lung: (S, S) bool.
    """
    positive = np.maximum(saliency, 0).astype(np.float64)
    peak, total = positive.max(), positive.sum()
    if peak <= 0:
        return {"hit": 0.0, "dice": 0.0, "iou": 0.0, "energy": 0.0, "inside_lung": float("nan")}
    region = positive >= THRESHOLD * peak
    both = np.count_nonzero(region & target)
    either = np.count_nonzero(region | target)
    return {
        "hit": float(target[positive == peak].mean()),
        "dice": 2 * both / (both + either),
        "iou": both / either,
        "energy": float(positive[target].sum() / total),
        "inside_lung": float(positive[lung].sum() / total),
    }


def random_in_lung(target: Mask, lung: Mask) -> dict[str, float]:
    """Return ``measures_of`` a map that is constant inside the lung and 0 outside.

    ``hit`` and ``energy`` are then the share of the lung that is target, the probability that a random point of the
    lung hits it. ``dice`` and ``iou`` are those of the whole lung. ``inside_lung`` is 1 by definition and therefore
    NaN. Without a lung all are NaN.

    Args:
        target: (S, S) bool.
        lung: (S, S) bool.
    """
    undefined = dict.fromkeys(MEASURES, float("nan"))
    if not lung.any():
        return undefined
    return measures_of(lung.astype(np.float32), target, lung) | {"inside_lung": float("nan")}


def localization_result(table: LocalizationTable, *, resamples: int = 1000, seed: int = 0) -> LocalizationResult:
    """Compute the means of a table with 95% intervals; groups are resampled within labels, differences are paired.

    Raises:
        ConfigError: ``resamples`` is below 2.
    """
    values, groups, kinds = table.arrays()  # method -> (F, M)
    methods, names = list(values), sorted({*kinds.tolist()})
    parts = ["", *names] if len(names) > 1 else [""]
    others = [method for method in methods if method != EVIDENCE] if EVIDENCE in values else []
    columns: dict[_Key, FloatArray] = {}  # (F,) each
    for column, measure in enumerate(MEASURES):
        for part in parts:
            inside = kinds == part if part else np.ones(len(kinds), np.bool_)
            for method in methods:
                columns[_Key(part, method, measure)] = np.where(inside, values[method][:, column], np.nan)
        for other in others:
            # bootstrap takes a mean of 0 or 1 without spread for a share; differences of 0 are moved to 0.5.
            less = values[EVIDENCE][:, column] - values[other][:, column]
            columns[_Key("less", other, measure)] = (1 + less) / 2
    defined = {key: ~np.isnan(column) for key, column in columns.items() if not np.isnan(column).all()}

    def statistics(weights: FloatArray) -> dict[_Key, FloatArray]:
        return {key: nan_mean(columns[key], weights) for key in defined}

    clusters, strata = (
        np.unique(each, return_inverse=True)[1].astype(np.int64) for each in (groups, _labels(table, methods[0]))
    )
    found = bootstrap(statistics, defined, clusters, strata=strata, resamples=resamples, seed=seed)

    def means(part: str) -> dict[str, dict[str, Interval]]:
        keys = {method: [_Key(part, method, measure) for measure in MEASURES] for method in methods}
        return {method: {key.measure: found[key] for key in own if key in found} for method, own in keys.items()}

    return LocalizationResult(
        images=len(groups),
        kinds={name: int(np.count_nonzero(kinds == name)) for name in names},
        methods=means(""),
        by_kind={part: means(part) for part in parts[1:]},
        differences=tuple(
            Difference(measure, EVIDENCE, other, _spread(found[key]))
            for other in others
            for measure in MEASURES
            if (key := _Key("less", other, measure)) in found
        ),
    )


class _Key(NamedTuple):
    part: str  # a kind, "" for all images, or "less" for evidence less the method
    method: str
    measure: str


def _spread(halved: Interval) -> Interval:
    """From (1 + difference) / 2 back to the difference, without the rounding of float32 maps."""
    value, low, high = (round(2 * bound - 1, 6) + 0.0 for bound in (halved.value, halved.low, halved.high))
    return Interval(value, low, high, halved.n)


def _labels(table: LocalizationTable, method: str) -> list[str]:
    return [row.label for row in table.rows if row.method == method]


def _maps(
    inputs: NDArray[np.float32], classes: NDArray[np.int64], backend: Backend, network: nn.Module | None
) -> Mapping[str, NDArray[np.float32]]:
    """Method to its maps (M, h, w), each of one class (M,)."""
    maps: dict[str, NDArray[np.float32]] = {}
    parts = [backend.run(inputs[start : start + 16]).evidence for start in range(0, len(inputs), 16)]
    known = [part for part in parts if part is not None]
    if len(known) == len(parts):
        maps[EVIDENCE] = np.concatenate(known)[np.arange(len(classes)), classes]
    if network is not None:
        from hilum.evaluation.gradcam import grad_cam  # late: it imports torch

        maps[GRAD_CAM] = grad_cam(network, inputs, classes)
    return maps


def _row(scores: Scores, row: int, record: Record, method: str, measures: Mapping[str, float]) -> LocalizationRow:
    return LocalizationRow(
        file=scores.files[row],
        group=scores.groups[row] or scores.files[row],
        label=scores.class_names[scores.labels[row]],
        kind="region" if record.region_path is not None else "boxes",
        method=method,
        **measures,
    )
