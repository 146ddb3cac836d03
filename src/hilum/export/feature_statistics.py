"""Fit thresholds and feature statistics of the post-inference check on a run's images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf

from hilum.backends.base import Backend
from hilum.config import PreprocessSpec
from hilum.data.cache import open_cache
from hilum.data.index import Index
from hilum.data.split import Split, records_of
from hilum.gate.post_check import AnswerThresholds, FeatureReference, LungShape
from hilum.imaging.preprocess import content_of, to_input
from hilum.progress import Step
from hilum.storage import cache_folder
from hilum.types import SplitName

_LEAST = 100
"""Minimum number of validation images; with fewer, extreme quantiles cannot be estimated."""
_MOST = 4000
"""Maximum number of images per split."""
_WARNED = 0.005
"""Fraction of validation images beyond each warning threshold."""
_BEYOND = 1.5
"""Ratio of the feature distance that refuses an image to the one that warns."""
_BATCH = 32

Floats = NDArray[np.float32]


def gate_statistics(
    backend: Backend, index: Index, split: Split, spec: PreprocessSpec, mask_threshold: float, step: Step
) -> tuple[AnswerThresholds, FeatureReference | None]:
    """Fit the thresholds of the post-inference check, and the feature statistics of the training images.

    One validation image in 200 lies beyond each warning threshold. With fewer than 100 validation images,
    there are neither thresholds nor statistics; without features, there are no statistics.

    Args:
        backend: The exported network.
        index: The index of the run.
        split: The split of the run.
        spec: The preprocessing.
        mask_threshold: Probability above which a pixel is lung.
        step: Progress callbacks.
    """
    step.begin("Measuring answers on val")
    lungs, features = _answers(backend, index, split, "val", spec)
    if len(lungs) < _LEAST:
        return AnswerThresholds(), None
    shapes = [LungShape.of(lung > mask_threshold) for lung in lungs]
    bounds = _shape_bounds(shapes)
    if features is None:
        return bounds, None
    step.begin("Measuring features on train")
    known = _answers(backend, index, split, "train", spec)[1]
    assert known is not None  # the same network
    reference = fit_reference(known)
    warned = float(np.quantile(reference.distance(features), 1 - _WARNED))
    update = {"distance_warned": round(warned, 4), "distance_refused": round(_BEYOND * warned, 4)}
    return bounds.model_copy(update=update), reference


def fit_reference(features: Floats) -> FeatureReference:
    """Fit mean and shrunk covariance (Ledoit & Wolf 2004) of features (N, F), standardized first."""
    mean, spread = features.mean(axis=0), features.std(axis=0) + 1e-6
    covariance, _ = ledoit_wolf((features - mean).astype(np.float64) / spread, assume_centered=True)
    values, vectors = np.linalg.eigh(covariance)
    whitening = (vectors / np.sqrt(values)) / spread[:, None]
    return FeatureReference(mean.astype(np.float32), whitening.astype(np.float32))


def _shape_bounds(shapes: list[LungShape]) -> AnswerThresholds:
    share, symmetry, border = (
        np.array([getattr(shape, name) for shape in shapes]) for name in ("share", "symmetry", "border")
    )
    least = float(np.quantile(share, _WARNED))
    return AnswerThresholds(
        lungs_found=round(least / 4, 4),
        parts=max(2, int(np.quantile([shape.parts for shape in shapes], 1 - _WARNED))),
        lung_least=round(least, 4),
        lung_most=round(float(np.quantile(share, 1 - _WARNED)), 4),
        symmetry=round(float(np.quantile(symmetry, _WARNED)), 4),
        border=round(float(np.quantile(border, 1 - _WARNED)), 4),
    )


def _answers(
    backend: Backend, index: Index, split: Split, name: SplitName, spec: PreprocessSpec
) -> tuple[list[Floats], Floats | None]:
    """Return lung probabilities without padding, and features (N, F) or None, of at most _MOST images of a split."""
    records = records_of(index, split, name)
    if not records:
        return [], None
    cache = open_cache(records, spec, cache_folder())
    rows = np.arange(len(records))[:: max(1, -(-len(records) // _MOST))]
    lungs: list[Floats] = []
    features: list[Floats] = []
    for start in range(0, len(rows), _BATCH):
        images = np.asarray(cache.images[rows[start : start + _BATCH]])
        output = backend.run(to_input(images, spec))
        # the padding is recognized as black, since the cache does not store it
        pairs = zip(output.segmentation, images, strict=True)
        lungs += [probability[0][content_of(image)] for probability, image in pairs]
        features += [output.features] if output.features is not None else []
    return lungs, np.concatenate(features) if features else None
