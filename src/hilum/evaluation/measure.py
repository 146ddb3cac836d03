"""Measure a network on records: through its engine over every film, then the report and its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.backends.onnxruntime import Backend
from hilum.config import PreprocessSpec
from hilum.data.cache import Cache, cache_folder, open_cache
from hilum.data.index import Index
from hilum.evaluation.evaluate import Evaluated, failures_of, write_evaluation
from hilum.evaluation.localisation import localise
from hilum.evaluation.plots import sample_overlays
from hilum.evaluation.report import ModelRef, Report
from hilum.evaluation.scoring import score_records
from hilum.imaging.preprocess import to_input
from hilum.metrics.calibration import Calibration
from hilum.metrics.scores import Scores
from hilum.progress import Step
from hilum.types import Record

if TYPE_CHECKING:
    from torch import nn

OVERLAYS_FILE = "sample_overlays.png"
_SAMPLES = 8


@dataclass(frozen=True)
class Subject:
    """A network to be measured, and what it carries.

    Attributes:
        model: how it is called in the report.
        backend: its engine.
        class_names: K names, the order of its logits.
        spec: its preprocessing.
        network: the same network in PyTorch, for Grad-CAM; None leaves Grad-CAM out.
        mask_threshold: lung where the probability is above it.
        calibration: fitted on other films than those measured; None where there is none.
        sources: the sources that it was trained on; None where that is unknown.
    """

    model: ModelRef
    backend: Backend
    class_names: tuple[str, ...]
    spec: PreprocessSpec
    network: nn.Module | None = None
    mask_threshold: float = 0.5
    calibration: Calibration | None = None
    sources: frozenset[str] | None = None

    @property
    def temperature(self) -> float:
        """Logits are divided by it before softmax."""
        return 1.0 if self.calibration is None else self.calibration.temperature


def score(
    subject: Subject, index: Index, records: Sequence[Record], split: str, step: Step, *, keep_lungs: bool = False
) -> tuple[Scores, NDArray[np.bool_] | None, Cache]:
    """Decode the records, or find them decoded, and run the subject over them; see score_records."""
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
    held_out: Sequence[dict[str, Any]] = (),
    resamples: int = 1000,
    seed: int = 0,
    step: Step | None = None,
) -> Report:
    """Measure ``subject`` on ``records`` and write the files of hilum.evaluation.evaluate into ``folder``.

    Raises:
        DataError: a label is none of the subject's classes, or there is no record.
        OutputError: the folder cannot be written.
    """
    step = step or Step()
    has_targets = any(record.region_path or record.boxes for record in records)
    scores, lungs, cache = score(subject, index, records, split, step, keep_lungs=has_targets)
    localisation = None
    if has_targets and lungs is not None:
        step.begin("Localising")
        localisation = localise(
            records, cache.images, lungs, scores, subject.spec, backend=subject.backend, network=subject.network
        )
    own = {record.source for record in records if record.source is not None}
    evaluated = Evaluated(
        scores=scores,
        model=subject.model,
        digest=digest,
        calibration=subject.calibration,
        localisation=localisation,
        same_sources=bool(own) and subject.sources is not None and own <= subject.sources,
        held_out=tuple(held_out),
    )
    step.begin("Computing intervals")
    report = write_evaluation(
        evaluated, folder, resamples=resamples, seed=seed, pictures=_pictures(scores, cache.images)
    )
    _draw_samples(subject, scores, cache, folder / OVERLAYS_FILE)
    return report


def _pictures(scores: Scores, images: NDArray[np.uint8]) -> dict[str, bytes]:
    """The failures as the network saw them, PNG by file name."""
    row = {name: place for place, name in enumerate(scores.files)}
    return {
        failure.file: cv2.imencode(".png", images[row[failure.file]])[1].tobytes() for failure in failures_of(scores)
    }


def _draw_samples(subject: Subject, scores: Scores, cache: Cache, path: Path) -> None:
    """Overlays of a few images, chosen by a fixed seed; half of them with a reference mask where there are any."""
    random = np.random.default_rng(0)
    masked = np.flatnonzero(scores.masked)
    first = random.choice(masked, min(_SAMPLES // 2, len(masked)), replace=False)
    rest = np.setdiff1d(np.arange(len(scores.files)), first)
    rows = [*first.tolist(), *random.choice(rest, min(_SAMPLES - len(first), len(rest)), replace=False).tolist()]
    images = cache.images[rows]
    predicted = subject.backend.run(to_input(images, subject.spec)).segmentation[:, 0] > subject.mask_threshold
    of_mask = [int(cache.mask_row[row]) for row in rows]
    targets = [cache.masks[place] > 0 if place >= 0 else None for place in of_mask]
    sample_overlays(images, predicted, targets, [_title(scores, row) for row in rows], path, split=scores.split)


def _title(scores: Scores, row: int) -> str:
    predicted = int(scores.predicted[row])
    truth = scores.class_names[scores.labels[row]] if scores.labels[row] >= 0 else "unknown"
    return f"{scores.class_names[predicted]} {scores.probabilities[row, predicted]:.0%}\nlabel: {truth}"
