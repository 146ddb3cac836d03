"""Measure how well evidence maps point at the regions or boxes that people marked.

Each image gives one row per method. The network's maps are its ``evidence`` and ``grad-cam``, each of the predicted
class, which is the map that a user sees and the headline, and of the true class, which is what people marked. Three
baselines bound what a map can score without this image: a ``location prior`` (hilum.evaluation.location_prior),
``another image's evidence`` of the same class (the permutation control of Bylinskii et al. 2019, IEEE Trans. Pattern
Anal. Mach. Intell. 41:740), and ``random in lung``, a map that is constant inside the lung. Only the positive part of a
map counts; it is taken first, then enlarged linearly to the network's square input, in the same way for every method.
Where one linear layer follows the pooling (``encoder-unet``), Grad-CAM is by construction the positive part of the
evidence, and the two are equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.backends.base import Backend
from hilum.config import PreprocessSpec
from hilum.evaluation.localization_table import MEASURES, LocalizationRow, LocalizationTable
from hilum.evaluation.location_prior import location_priors
from hilum.imaging.preprocess import fit_mask, to_input
from hilum.imaging.read import read_mask, read_radiograph
from hilum.metrics.bootstrap import Interval, bootstrap
from hilum.metrics.scores import FloatArray, Scores, clusters_of, nan_mean
from hilum.types import Box, Record

if TYPE_CHECKING:
    from torch import nn

THRESHOLD = 0.5
"""The region of a map is where it reaches at least this share of its maximum."""
EVIDENCE, GRAD_CAM = "evidence", "grad-cam"
"""Maps of the true class."""
PREDICTED, PREDICTED_CAM = "evidence, predicted class", "grad-cam, predicted class"
PRIOR, OTHER, RANDOM = "location prior", "another image's evidence", "random in lung"
DONORS = 16
"""Most images whose maps stand for ``another image's evidence`` of one image."""
_SAME_NETWORK = {PREDICTED: (EVIDENCE, GRAD_CAM), EVIDENCE: (PREDICTED, PREDICTED_CAM)}
"""The maps of the other class, from which a map is not subtracted."""

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
        headline: The method to quote, which a user of the network can see: a map of the predicted class where there is
            one; None without any map of the network.
        kinds: Number of images with each kind of target, ``region`` or ``boxes``.
        methods: Method to measure (``measures_of``) to its mean. A measure that no image defines is left out, such as
            ``inside_lung`` of ``random in lung`` and of the ``location prior``, which is 1 by definition.
        by_kind: The same for each kind, where there are two.
        differences: Evidence of the predicted and of the true class, each minus Grad-CAM of that class and minus each
            baseline, over the images on which both are defined.
    """

    images: int
    headline: str | None
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
    marked = np.stack(list(targets.values()))
    groups = [scores.groups[row] or scores.files[row] for row in rows]
    maps = _maps(to_input(images[rows], spec), scores.labels[rows], scores.predicted[rows], backend, network)
    others = _donors(scores.labels[rows], groups) if EVIDENCE in maps else []
    priors = location_priors(marked, lungs[rows], groups)
    found: list[LocalizationRow] = []
    for place, row in enumerate(rows.tolist()):
        target, lung, prior = marked[place], lungs[row], priors[place]
        measured = {name: measures_of(enlarged(own[place], spec.size), target, lung) for name, own in maps.items()}
        measured[PRIOR] = dict.fromkeys(MEASURES, np.nan) if prior is None else measures_of(prior, target, lung)
        measured[PRIOR]["inside_lung"] = np.nan  # 1 by definition
        if others:
            donated = [measures_of(enlarged(own, spec.size), target, lung) for own in maps[EVIDENCE][others[place]]]
            measured[OTHER] = _mean(donated)
        measured[RANDOM] = random_in_lung(target, lung)
        found += [_row(scores, row, records[row], method, own) for method, own in measured.items()]
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
    target; of several equal maxima, the share that does. ``energy``: share of the map in the target (Wang et al. 2020,
    CVPR Workshops). ``iou_area``: IoU of the target with as many of the map's highest pixels as the target has, so that
    no threshold matters (relevance rank accuracy as an IoU: Arras, Osman & Samek 2022, Inf. Fusion 81:14); of equal
    pixels at the limit each counts in part, and pixels of 0 never. ``dice`` and ``iou``: of the map's region
    (THRESHOLD) with the target. ``inside_lung``: share of the map in the lung. A map without a positive value misses:
    all are 0, inside_lung is NaN.

    Args:
        saliency: (S, S) float32; its negative part is ignored.
        target: (S, S) bool.
        lung: (S, S) bool.
    """
    positive = np.maximum(saliency, 0).astype(np.float64)
    peak, total = positive.max(), positive.sum()
    if peak <= 0:
        return {**dict.fromkeys(MEASURES, 0.0), "inside_lung": float("nan")}
    region = positive >= THRESHOLD * peak
    both = np.count_nonzero(region & target)
    either = np.count_nonzero(region | target)
    return {
        "hit": float(target[positive == peak].mean()),
        "iou_area": _iou_at_area(positive, target),
        "dice": 2 * both / (both + either),
        "iou": both / either,
        "energy": float(positive[target].sum() / total),
        "inside_lung": float(positive[lung].sum() / total),
    }


def _iou_at_area(positive: FloatArray, target: Mask) -> float:
    area = min(np.count_nonzero(target), np.count_nonzero(positive))
    limit = np.partition(positive, -area, axis=None)[-area] if area else np.inf
    above, at = positive > limit, positive == limit
    share = (area - np.count_nonzero(above)) / max(1, np.count_nonzero(at))
    both = np.count_nonzero(above & target) + share * np.count_nonzero(at & target)
    return float(both / (area + np.count_nonzero(target) - both)) if target.any() else 0.0


def random_in_lung(target: Mask, lung: Mask) -> dict[str, float]:
    """Return ``measures_of`` a map that is constant inside the lung and 0 outside.

    ``hit`` and ``energy`` are then the share of the lung that is target, the probability that a random point of the
    lung hits it, and ``iou_area`` the same for a random part of the lung. ``dice`` and ``iou`` are those of the whole
    lung. ``inside_lung`` is 1 by definition and therefore NaN. Without a lung all are NaN.

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
    pairs = [
        (own, other)
        for own in _SAME_NETWORK
        if own in values
        for other in methods
        if other != own and other not in _SAME_NETWORK[own]
    ]
    columns: dict[_Key, FloatArray] = {}  # (F,) each
    for column, measure in enumerate(MEASURES):
        for part in parts:
            inside = kinds == part if part else np.ones(len(kinds), np.bool_)
            for method in methods:
                columns[_Key(part, method, measure)] = np.where(inside, values[method][:, column], np.nan)
        for own, other in pairs:
            columns[_Key("", own, measure, other)] = values[own][:, column] - values[other][:, column]
    defined = {key: ~np.isnan(column) for key, column in columns.items() if not np.isnan(column).all()}

    def statistics(weights: FloatArray) -> dict[_Key, FloatArray]:
        return {key: nan_mean(columns[key], weights) for key in defined}

    clusters, strata = (
        np.unique(each, return_inverse=True)[1].astype(np.int64) for each in (groups, _labels(table, methods[0]))
    )
    bounds = {key: (-1.0 if key.less else 0.0, 1.0) for key in defined}
    single = [key for key in defined if not key.less]
    # The hits of the two others are chances between 0 and 1.
    shares = [key for key in single if key.measure == "hit" and key.method not in (OTHER, RANDOM)]
    found = bootstrap(
        statistics, defined, clusters, strata=strata, bounds=bounds,
        shares=shares, means=[key for key in single if key not in shares],
        resamples=resamples, seed=seed,
    )  # fmt: skip

    def means(part: str) -> dict[str, dict[str, Interval]]:
        keys = {method: [_Key(part, method, measure) for measure in MEASURES] for method in methods}
        return {method: {key.measure: found[key] for key in own if key in found} for method, own in keys.items()}

    return LocalizationResult(
        images=len(groups),
        headline=next((name for name in (PREDICTED, PREDICTED_CAM, EVIDENCE, GRAD_CAM) if name in values), None),
        kinds={name: int(np.count_nonzero(kinds == name)) for name in names},
        methods=means(""),
        by_kind={part: means(part) for part in parts[1:]},
        differences=tuple(
            Difference(measure, own, other, _rounded(found[key]))
            for own, other in pairs
            for measure in MEASURES
            if (key := _Key("", own, measure, other)) in found
        ),
    )


class _Key(NamedTuple):
    part: str  # a kind, or "" for all images
    method: str
    measure: str
    less: str = ""  # the method that is subtracted, if any


def _rounded(difference: Interval) -> Interval:
    """Return the difference without the rounding of float32 maps."""
    value, low, high = (round(each, 6) + 0.0 for each in (difference.value, difference.low, difference.high))
    return replace(difference, value=value, low=low, high=high)


def _labels(table: LocalizationTable, method: str) -> list[str]:
    return [row.label for row in table.rows if row.method == method]


def _maps(
    inputs: NDArray[np.float32],
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    backend: Backend,
    network: nn.Module | None,
) -> Mapping[str, NDArray[np.float32]]:
    """Method to its maps (M, h, w), each of one class (M,)."""
    maps: dict[str, NDArray[np.float32]] = {}
    parts = [backend.run(inputs[start : start + 16]).evidence for start in range(0, len(inputs), 16)]
    known = [part for part in parts if part is not None]
    if len(known) == len(parts):
        evidence, rows = np.concatenate(known), np.arange(len(labels))
        maps |= {PREDICTED: evidence[rows, predicted], EVIDENCE: evidence[rows, labels]}
    if network is not None:
        from hilum.evaluation.gradcam import grad_cam  # late: it imports torch

        maps |= {PREDICTED_CAM: grad_cam(network, inputs, predicted), GRAD_CAM: grad_cam(network, inputs, labels)}
    return maps


def _donors(labels: NDArray[np.int64], groups: Sequence[str]) -> list[NDArray[np.int64]]:
    """For each image, at most DONORS images of its label and of other groups, drawn with a fixed seed."""
    clusters, random = clusters_of(groups), np.random.default_rng(0)
    found = []
    for own, cluster in zip(labels, clusters, strict=True):
        others = np.flatnonzero((labels == own) & (clusters != cluster))
        found.append(np.sort(random.permutation(others)[:DONORS]))
    return found


def _mean(measured: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each measure over the maps that define it; NaN where none does."""
    return {name: float(nan_mean(np.array([own[name] for own in measured]))) for name in MEASURES}


def _row(scores: Scores, row: int, record: Record, method: str, measures: Mapping[str, float]) -> LocalizationRow:
    return LocalizationRow(
        file=scores.files[row],
        group=scores.groups[row] or scores.files[row],
        label=scores.class_names[scores.labels[row]],
        kind="region" if record.region_path is not None else "boxes",
        method=method,
        **measures,
    )
