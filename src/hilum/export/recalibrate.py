"""Refit the calibration of a bundle on local images, without changing its network."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.backends.onnxruntime import OnnxRuntimeBackend
from hilum.bundle.bundle import MODEL_CARD, ONNX_MODEL, Bundle, Manifest, load_bundle, write_bundle
from hilum.bundle.calibration import Calibration, temperature_text, threshold_text, with_calibration
from hilum.bundle.prediction_sets import scale
from hilum.bundle.training_hashes import KnownImages, known_images, no_hashes, united
from hilum.data.cache import Cache, open_cache
from hilum.data.image_hash import image_hashes
from hilum.data.index import Index, build_index
from hilum.errors import DataError
from hilum.evaluation.measure import score_records
from hilum.metrics.calibration import (
    CalibrationFigures,
    calibration_figures,
    fit_calibration,
    fit_class_temperatures,
    fit_temperature,
    logits_of,
)
from hilum.metrics.scores import FloatArray, Scores, labels_of
from hilum.metrics.selective import TARGET_ACCURACY
from hilum.progress import Step
from hilum.storage import cache_folder
from hilum.types import CalibratedPer, Finding, Record, SplitName

MIN_IMAGES = 100
FOLDS = 5

_FIGURES = ("ece", "brier", "nll")
_HEADING = "## Calibration"


@dataclass(frozen=True)
class Recalibration:
    """Result of a recalibration.

    Attributes:
        manifest: Manifest of the new bundle, sealed.
        calibration: The calibration, fitted on all images.
        before: Calibration errors at the temperature of the old bundle.
        after: Calibration errors by cross-validation: each image at a temperature fitted on the other folds.
        images: Number of labeled images per class.
    """

    manifest: Manifest
    calibration: Calibration
    before: CalibrationFigures
    after: CalibrationFigures
    images: Mapping[str, int]


def recalibrate(
    path: Path,
    data: Path,
    out: Path,
    *,
    classes: Sequence[str] | None = None,
    split: SplitName | None = None,
    min_images: int = MIN_IMAGES,
    target_accuracy: float = TARGET_ACCURACY,
    training_hashes: bool = True,
    per: CalibratedPer = "all",
    resamples: int = 1000,
    seed: int = 0,
    step: Step | None = None,
) -> Recalibration:
    """Refit temperature, quantiles and abstention threshold of a bundle on labeled images, and write a new bundle.

    The network's files are copied unchanged; the manifest, the model card and the hashes of training images change.
    The effect of the new temperature is measured by five-fold cross-validation over groups.

    Args:
        path: The bundle.
        data: A folder of class folders or a CSV with images that the network was not trained on.
        out: The bundle to write: a folder, or a ``.hilum`` file.
        classes: Keep only these labels; all by default.
        split: Use only the images of this split.
        min_images: Minimum number of labeled images.
        target_accuracy: Target accuracy on the images without abstention, in (0, 1).
        training_hashes: Whether to add perceptual hashes of the images to those of the bundle, so that hilum warns
            when one of them is used for evaluation.
        per: Fit temperature and threshold over all images, or for each predicted class.
        resamples: Bootstrap resamples.
        seed: Random seed of the folds and of the bootstrap.
        step: Progress callbacks, and callback for findings.

    Returns:
        The new manifest and calibration, and the calibration errors before and after.

    Raises:
        BundleError: The bundle cannot be loaded.
        DataError: A label is not a class of the bundle, there are fewer than ``min_images`` labeled images, fewer than
            5 groups or fewer than 2 classes, or the images are the training data of the bundle.
        OutputError: ``out`` cannot be written.
    """
    step = step or Step()
    bundle = load_bundle(path)
    labels_of(build_index(data, classes=classes, check=False).records, bundle.manifest.class_names)  # fails early
    index = build_index(data, classes=classes, progress=step.begin("Checking files"))
    step.found(index.findings)
    _refuse_training_data(bundle.manifest, index, split)
    records = _labeled(index, split, min_images)
    cache = open_cache(records, bundle.manifest.preprocess, cache_folder(), progress=step.begin("Decoding"))
    scores = _score(bundle, index, records, cache, split, step)
    own = image_hashes(cache.images) if training_hashes else no_hashes()
    known = united([known_images(bundle), KnownImages("all" if training_hashes else "none", own)])
    images = {name: int((scores.labels == k).sum()) for k, name in enumerate(scores.class_names)}
    step.found((*_absent_classes(images), *_seen(scores)))
    step.begin("Fitting")
    calibration = fit_calibration(scores, digest=index.digest, target_accuracy=target_accuracy, per=per)
    return _refit(bundle, scores, calibration, known, images, out, resamples, seed)


def cross_fitted(
    logits: FloatArray,
    labels: NDArray[np.int64],
    clusters: NDArray[np.int64],
    per: CalibratedPer = "all",
    seed: int = 0,
) -> FloatArray:
    """Return logits (N, K), each divided by the temperature fitted on the four folds without its group.

    Groups are assigned to folds by the class of their first image, in a random order.

    Args:
        logits: (N, K) float64.
        labels: (N,) int64.
        clusters: (N,) int64, the group of each image.
        per: Fit one temperature, or one for each predicted class.
        seed: Random seed of the order.

    Raises:
        DataError: There are fewer than 5 groups, or four folds have labels of a single class.
    """
    groups, first = np.unique(clusters, return_index=True)
    if groups.size < FOLDS:
        raise DataError(
            f"Expected at least {FOLDS} groups for cross-validation, got {groups.size}.",
            hint="Use images of more patients, or correct the `group` column.",
        )
    shuffled = np.random.default_rng(seed).permutation(groups.size)
    order = shuffled[np.argsort(labels[first][shuffled], kind="stable")]
    fold_of_group = np.empty(groups.size, np.int64)
    fold_of_group[order] = np.arange(groups.size) % FOLDS
    fold = fold_of_group[np.searchsorted(groups, clusters)]  # (N,)
    divided = np.empty_like(logits)
    for held_out in range(FOLDS):
        rows = fold == held_out
        others = logits[~rows], labels[~rows]
        fitted = fit_temperature(*others) if per == "all" else fit_class_temperatures(*others, clusters[~rows])
        divided[rows] = scale(logits[rows], fitted)
    return divided


def _refuse_training_data(manifest: Manifest, index: Index, split: SplitName | None) -> None:
    if manifest.index_digest == index.digest and split in (None, "train"):
        raise DataError(
            "The images are the training data of the bundle.",
            hint="Use other images, or --split val if the dataset has a `split` column.",
        )


def _labeled(index: Index, split: SplitName | None, min_images: int) -> tuple[Record, ...]:
    # Without masks, which calibration does not need.
    records = tuple(replace(r, mask_path=None) for r in index.records if r.label and split in (None, r.split))
    if len(records) < min_images:
        where = f" in the split {split}" if split else ""
        raise DataError(
            f"Expected at least {min_images} labeled images{where}, got {len(records)}.",
            hint="Add labeled images; with fewer, temperature and quantiles are unreliable.",
        )
    return records


def _score(
    bundle: Bundle, index: Index, records: tuple[Record, ...], cache: Cache, split: SplitName | None, step: Step
) -> Scores:
    manifest = bundle.manifest
    scores = score_records(
        OnnxRuntimeBackend(bundle.read(ONNX_MODEL)),
        cache,
        records,
        [index.key(record) for record in records],
        manifest.class_names,
        manifest.preprocess,
        split=split or "all",
        temperature=manifest.applied_temperature,
        mask_threshold=manifest.mask_threshold,
        progress=step.begin("Scoring"),
    ).scores
    return replace(scores, seen=known_images(bundle).find(cache.images))


def _seen(scores: Scores) -> tuple[Finding, ...]:
    """Return a warning if some images are in the network's training data."""
    if scores.seen is None or not scores.seen.any():
        return ()
    names = tuple(name for name, seen in zip(scores.files, scores.seen, strict=True) if seen)
    message = (
        f"{len(names):,} of {len(scores.files):,} images are in the model's training data (training or validation "
        "split), on which a network is overconfident; the calibration will be, too"
    )
    return (Finding("seen_before", "warning", message, names),)


def _absent_classes(images: Mapping[str, int]) -> tuple[Finding, ...]:
    absent = [name for name, count in images.items() if not count]
    message = f"no images of {', '.join(absent)}: these classes will be in every prediction set"
    return (Finding("class_without_images", "warning", message),) if absent else ()


def _refit(
    bundle: Bundle,
    scores: Scores,
    calibration: Calibration,
    known: KnownImages,
    images: Mapping[str, int],
    out: Path,
    resamples: int,
    seed: int,
) -> Recalibration:
    manifest, logits, labels, clusters = bundle.manifest, logits_of(scores), scores.labels, scores.clusters()
    again = {"resamples": resamples, "seed": seed}
    before = calibration_figures(scale(logits, manifest.applied_temperature), labels, clusters, **again)
    divided = cross_fitted(logits, labels, clusters, calibration.per, seed)
    after = calibration_figures(divided, labels, clusters, **again)
    facts: dict[str, Any] = {
        "classes": dict(images),
        "recalibrated_from": manifest.bundle_id,
        "before": _figures(before),
        "after_cross_fitted": _figures(after),
        "in_training_data": None if scores.seen is None else int(np.count_nonzero(scores.seen)),
    }
    hashes, hash_file = known.files("" if manifest.training_hashes is None else manifest.training_hashes.note)
    described = with_calibration(manifest, calibration, **facts).model_copy(update=hashes)
    files = {name: bundle.read(name) for name in manifest.files} | hash_file
    card = _card(files.get(MODEL_CARD, b"").decode(errors="replace"), manifest, described, calibration, (before, after))
    sealed = write_bundle(out, described, {**files, MODEL_CARD: card.encode()})
    return Recalibration(sealed, calibration, before, after, images)


def _figures(figures: CalibrationFigures) -> dict[str, Any]:
    """Return the three calibration errors with their intervals; NaN becomes None."""
    entries = {name: asdict(getattr(figures, name)) for name in _FIGURES}
    return {
        name: {key: None if isinstance(value, float) and np.isnan(value) else value for key, value in entry.items()}
        for name, entry in entries.items()
    }


def _card(
    old: str,
    manifest: Manifest,
    described: Manifest,
    calibration: Calibration,
    errors: tuple[CalibrationFigures, CalibrationFigures],
) -> str:
    """Return the old model card with its section on calibration replaced or added."""
    before, after = errors
    names = manifest.class_names
    seen = described.calibration["in_training_data"]
    among = "" if seen is None else f" {seen:,} of them were in the model's training data before."
    hashes = described.training_hashes
    kept = "carries no hashes of the images" if hashes is None else f"carries hashes of {hashes.images:,} images"
    part = "" if hashes is None or hashes.complete else ", a part of those"
    lines = [
        _HEADING,
        "",
        f"Refitted on {calibration.n:,} images of {calibration.groups:,} groups (split {calibration.split}, index "
        f"SHA-256 {calibration.digest}), from bundle {manifest.bundle_id[:12]}. Before: "
        f"{temperature_text(manifest, names)}; after: {temperature_text(calibration, names)}; it abstains "
        f"{threshold_text(calibration, names)}. Other metrics in this card use the previous temperature.{among} "
        f"The bundle now {kept}{part} that it was trained or calibrated on.",
        "",
        "| figure | before | after, five-fold cross-validation over groups |",
        "|---|---|---|",
        *[f"| {name} | {getattr(before, name)} | {getattr(after, name)} |" for name in _FIGURES],
        "",
    ]
    rest = re.sub(rf"^{_HEADING}\n.*?(?=^## |\Z)", "", old, flags=re.MULTILINE | re.DOTALL)
    return rest.rstrip("\n") + "\n\n" + "\n".join(lines)
