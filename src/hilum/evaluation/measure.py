"""Evaluate a network on records: run its backend on every image, then write the report and its files."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hilum.backends.base import Backend, BackendOutput
from hilum.bundle.calibration import Calibration
from hilum.bundle.prediction_sets import Temperature, softmax
from hilum.bundle.training_hashes import KnownImages
from hilum.config import PreprocessSpec
from hilum.data.cache import Cache, open_cache
from hilum.data.index import Index
from hilum.evaluation.failure_images import failure_images
from hilum.evaluation.kept_pass import Pass, key_of, read_pass, write_pass
from hilum.evaluation.localization import localize
from hilum.evaluation.options import ReportOptions
from hilum.evaluation.plots import sample_overlays
from hilum.evaluation.readers import second_reader_columns
from hilum.evaluation.report import ModelRef, Provenance, Report
from hilum.evaluation.results import Evaluated, failures_of, write_evaluation
from hilum.evaluation.subgroups import columns_of
from hilum.imaging.preprocess import to_input
from hilum.metrics.operating_points import Thresholds
from hilum.metrics.scores import FloatArray, Scores, dice_and_iou, labels_of
from hilum.progress import Progress, Step
from hilum.storage import cache_folder
from hilum.types import Record

if TYPE_CHECKING:
    from torch import nn

OVERLAYS_FILE = "sample_overlays.png"
_SAMPLES = 8


@dataclass(frozen=True)
class Subject:
    """A network to evaluate, with its preprocessing and calibration.

    Attributes:
        model: Its name in the report.
        backend: Its inference engine.
        class_names: K names, in the order of its logits.
        spec: Its preprocessing.
        network: The same network in PyTorch, for Grad-CAM; None skips Grad-CAM.
        mask_threshold: A pixel is lung where its probability is above this.
        calibration: Fitted on other images than those evaluated; None where there is none.
        sources: The sources that it was trained on; None where they are unknown.
        known: The images that it was trained on and validated with.
    """

    model: ModelRef
    backend: Backend
    class_names: tuple[str, ...]
    spec: PreprocessSpec
    network: nn.Module | None = None
    mask_threshold: float = 0.5
    calibration: Calibration | None = None
    sources: frozenset[str] | None = None
    known: KnownImages = field(default_factory=KnownImages)

    @property
    def temperature(self) -> Temperature:
        """The divisor of the logits before softmax."""
        return 1.0 if self.calibration is None else self.calibration.applied_temperature


def score(
    subject: Subject,
    index: Index,
    records: Sequence[Record],
    split: str,
    step: Step,
    *,
    keep_lungs: bool = False,
    kept: Path | None = None,
) -> tuple[Scores, NDArray[np.bool_] | None, Cache]:
    """Decode the records, or read them from the cache, and run the subject on them; see score_records."""
    cache = open_cache(records, subject.spec, cache_folder(), progress=step.begin(f"Decoding {split}"))
    scored = score_records(
        subject.backend,
        cache,
        records,
        [index.key(record) for record in records],
        subject.class_names,
        subject.spec,
        split=split,
        temperature=subject.temperature,
        mask_threshold=subject.mask_threshold,
        keep_lungs=keep_lungs,
        kept=kept,
        progress=step.begin(f"Measuring {split}"),
    )
    return scored.scores, scored.lungs, cache


def measure(
    subject: Subject,
    index: Index,
    records: Sequence[Record],
    folder: Path,
    *,
    split: str,
    digest: str | None,
    trained_on: bool = False,
    held_out: Sequence[dict[str, Any]] = (),
    resamples: int = 1000,
    seed: int = 0,
    step: Step | None = None,
    provenance: Provenance | None = None,
    options: ReportOptions | None = None,
    thresholds: Callable[[Scores], Thresholds | None] | None = None,
    kept: Path | None = None,
) -> Report:
    """Evaluate ``subject`` on ``records`` and write the files of hilum.evaluation.results into ``folder``.

    Args:
        subject: The network.
        index: The index that the records are of.
        records: N records.
        folder: Folder for the files.
        split: Name of the split.
        digest: SHA-256 of the split.
        trained_on: Whether all records are of the subject's own training or validation split.
        held_out: Results of hilum.evaluation.leave_one_source_out, for the report.
        resamples: Number of bootstrap resamples.
        seed: Random seed of the bootstrap.
        step: Progress callback.
        provenance: Origin of model and data, for the report.
        options: Parts of the report that are chosen by the user.
        thresholds: Returns the thresholds of the operating points, chosen on other images than those of its argument.
        kept: See score_records; the caller removes it.

    Raises:
        DataError: A label is none of the subject's classes, there is no record, or a subgroup has no column.
        OutputError: The folder cannot be written.
    """
    step = step or Step()
    options = options or ReportOptions()
    columns = columns_of(records, options.subgroups)
    labels_of([replace(record, label=record.second_label) for record in records], subject.class_names)
    has_targets = any(record.region_path or record.boxes for record in records)
    scores, lungs, cache = score(subject, index, records, split, step, keep_lungs=has_targets, kept=kept)
    localization = None
    if has_targets and lungs is not None:
        step.begin("Localizing")
        localization = localize(
            records, cache.images, lungs, scores, subject.spec, backend=subject.backend, network=subject.network
        )
    seen = subject.known.find(cache.images, step.begin("Looking for training images"))
    columns |= second_reader_columns(records, cache, subject.backend, subject.spec, subject.mask_threshold)
    if trained_on:
        seen = np.ones(len(records), np.bool_)
    own = {record.source for record in records if record.source is not None}
    evaluated = Evaluated(
        scores=replace(scores, seen=seen, columns=columns),
        model=subject.model,
        digest=digest,
        calibration=subject.calibration,
        localization=localization,
        same_sources=bool(own) and subject.sources is not None and own <= subject.sources,
        held_out=tuple(held_out),
        training_images="all" if trained_on else subject.known.extent,
        provenance=provenance,
        options=options,
        thresholds=None if thresholds is None else thresholds(scores),
    )
    step.begin("Computing intervals")
    images = failure_images(subject, records, scores, cache.images, failures_of(scores))
    report = write_evaluation(evaluated, folder, resamples=resamples, seed=seed, images=images)
    _draw_samples(subject, scores, cache, folder / OVERLAYS_FILE, report.title)
    return report


def _draw_samples(subject: Subject, scores: Scores, cache: Cache, path: Path, subset: str) -> None:
    """Draw overlays of a few images, chosen by a fixed seed; half of them with a reference mask where possible."""
    random = np.random.default_rng(0)
    masked = np.flatnonzero(scores.masked)
    first = random.choice(masked, min(_SAMPLES // 2, len(masked)), replace=False)
    rest = np.setdiff1d(np.arange(len(scores.files)), first)
    rows = [*first.tolist(), *random.choice(rest, min(_SAMPLES - len(first), len(rest)), replace=False).tolist()]
    images = cache.images[rows]
    predicted = subject.backend.run(to_input(images, subject.spec)).segmentation[:, 0] > subject.mask_threshold
    of_mask = [int(cache.mask_row[row]) for row in rows]
    targets = [cache.masks[place] > 0 if place >= 0 else None for place in of_mask]
    sample_overlays(images, predicted, targets, [_title(scores, row) for row in rows], path, subset=subset)


def _title(scores: Scores, row: int) -> str:
    predicted = int(scores.predicted[row])
    truth = scores.class_names[scores.labels[row]] if scores.labels[row] >= 0 else "unknown"
    return f"{scores.class_names[predicted]} {scores.probabilities[row, predicted]:.0%}\nlabel: {truth}"


class Scored(NamedTuple):
    """Scores of a split, and its lung masks.

    Attributes:
        scores: Of every record, in order.
        lungs: (N, S, S) bool, the reference mask where there is one, else the predicted one; None if not kept.
    """

    scores: Scores
    lungs: NDArray[np.bool_] | None


def score_records(
    backend: Backend,
    cache: Cache,
    records: Sequence[Record],
    names: Sequence[str],
    class_names: tuple[str, ...],
    spec: PreprocessSpec,
    *,
    split: str,
    temperature: Temperature = 1.0,
    mask_threshold: float = 0.5,
    keep_lungs: bool = False,
    distances: bool = True,
    batch_size: int = 32,
    kept: Path | None = None,
    progress: Progress | None = None,
) -> Scored:
    """Run ``backend`` on every record: logits, probabilities, and the overlap with the reference masks.

    Args:
        backend: The inference engine.
        cache: N decoded images (open_cache).
        records: The N records.
        names: Their names in the tables (Index.key).
        class_names: K names, in the order of the logits.
        spec: The preprocessing.
        split: Name of the split.
        temperature: Divisor of the logits before softmax, see hilum.bundle.prediction_sets.softmax.
        mask_threshold: A pixel is lung where its probability is above this.
        keep_lungs: Whether to keep the masks, N x S x S bytes.
        distances: Whether to measure Hausdorff distances, which needs MONAI.
        batch_size: Images in one forward pass.
        kept: File that keeps the network's output; if it has that of these images and masks, the network is not run.
        progress: Progress callback, called with (records done, all records).

    Raises:
        DataError: A record has a label that the network does not know, or an output is not finite.
    """
    labels = labels_of(records, class_names)
    key = key_of(cache, {"threshold": mask_threshold, "lungs": keep_lungs, "distances": distances})
    done = None if kept is None else read_pass(kept, key)
    if done is None:
        done = _run_pass(backend, cache, spec, mask_threshold, keep_lungs, distances, batch_size, progress)
        if kept is not None:
            write_pass(kept, key, done)
    scores = Scores(
        files=tuple(names),
        labels=labels,
        probabilities=softmax(done.logits, temperature),
        class_names=class_names,
        groups=tuple(record.group or "" for record in records),
        sources=tuple(record.source for record in records),
        dice=done.overlap[0],
        iou=done.overlap[1],
        split=split,
        logits=done.logits,
        hd95_share=done.overlap[2] if distances else None,
    )
    return Scored(scores, done.lungs)


def _run_pass(
    backend: Backend,
    cache: Cache,
    spec: PreprocessSpec,
    mask_threshold: float,
    keep_lungs: bool,
    distances: bool,
    batch_size: int,
    progress: Progress | None,
) -> Pass:
    """Run the network on all images of a cache; see score_records."""
    count = len(cache.images)
    logits: list[FloatArray] = []
    overlap = np.full((3, count), np.nan)  # dice, iou, hd95_share
    lungs = np.zeros((count, spec.size, spec.size), np.bool_) if keep_lungs else None
    for rows, output in run_batches(backend, cache.images, spec, batch_size, progress):
        logits.append(output.classification.astype(np.float64))
        predicted = output.segmentation[:, 0] > mask_threshold  # (n, S, S)
        known = np.flatnonzero(cache.mask_row[rows] >= 0)
        reference = cache.masks[cache.mask_row[rows][known]] > 0  # (m, S, S)
        overlap[:, rows.start + known] = _overlap(predicted[known], reference, distances)
        if lungs is not None:
            predicted[known] = reference
            lungs[rows] = predicted
    return Pass(np.concatenate(logits), overlap, lungs)


def _overlap(predicted: NDArray[np.bool_], reference: NDArray[np.bool_], distances: bool) -> FloatArray:
    """Dice, IoU and Hausdorff distance (3, m) of m mask pairs; the last row is NaN without ``distances``."""
    dice, iou = dice_and_iou(predicted, reference)
    return np.stack([dice, iou, hausdorff_share(predicted, reference) if distances else np.full(len(dice), np.nan)])


def run_batches(
    backend: Backend,
    images: NDArray[np.uint8],
    spec: PreprocessSpec,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Iterator[tuple[slice, BackendOutput]]:
    """Yield the engine's output for (N, S, S) uint8 fitted images, one batch at a time, with its rows."""
    for start in range(0, len(images), batch_size):
        rows = slice(start, min(start + batch_size, len(images)))
        yield rows, backend.run(to_input(images[rows], spec))
        if progress:
            progress(rows.stop, len(images))


def hausdorff_share(predicted: NDArray[np.bool_], reference: NDArray[np.bool_]) -> FloatArray:
    """Return the 95% Hausdorff distance as a share of the height of the reference lungs, so that sizes do not matter.

    The 95th percentile of the symmetric surface distance (Huttenlocher et al. 1993, by MONAI), in pixels, is divided
    by the number of rows from the first to the last of the reference mask. Two empty masks have distance 0. Where one
    is empty, the distance is the diagonal of the square; an empty reference is as high as the square.

    Args:
        predicted: (N, S, S) bool.
        reference: (N, S, S) bool.

    Returns:
        (N,) float64, at least 0, without a unit.
    """
    import torch
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance

    some = [masks.any(axis=(1, 2)) for masks in (predicted, reference)]
    distances = np.where(some[0] == some[1], 0.0, float(np.hypot(*predicted.shape[1:])))
    both = np.flatnonzero(some[0] & some[1])
    if both.size:
        first, second = (torch.from_numpy(masks[both][:, None].astype(np.uint8)) for masks in (predicted, reference))
        with warnings.catch_warnings():  # MONAI 1.6 passes an argument to itself that it deprecates
            warnings.filterwarnings("ignore", message=".*always_return_as_numpy", category=FutureWarning)
            measured = compute_hausdorff_distance(first, second, include_background=True, percentile=95)
        distances[both] = measured[:, 0].numpy()
    lines = np.asarray(reference.any(axis=2))  # (N, S, S) -> (N, S), whether a row of pixels has lung
    heights = lines.shape[1] - lines.argmax(axis=1) - lines[:, ::-1].argmax(axis=1)  # S where there is none
    return np.asarray(distances / heights, np.float64)
