"""Agreement of a reduced precision with float32 on labeled images, and the bounds within which it is accepted."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hilum.backends.base import Backend, FloatPrecision
from hilum.bundle.bundle import Agreement, Manifest
from hilum.data.cache import Cache
from hilum.evaluation.measure import run_batches
from hilum.metrics.scores import FloatArray, confusion_counts, confusion_rates, dice_and_iou, macro_average, nan_mean
from hilum.progress import Progress

LABELS_AGREE = 0.995
"""Minimum fraction of images with the same predicted class."""
MACRO_F1_FALL = 0.005
"""Maximum fall of the macro F1."""
DICE_FALL = 0.002
"""Maximum fall of the mean Dice coefficient."""
EVIDENCE_SUM_ERROR = 1e-3
"""Maximum difference between a logit and the sum of its evidence and bias."""
EVIDENCE_SAME_CELL = 0.95
"""Minimum fraction of images whose largest evidence is in the same cell."""


class Answers(NamedTuple):
    """What a network answers to N images.

    Attributes:
        logits: (N, K) float32.
        evidence: (N, K, h, w) float32, or None.
        dice: (N,) float64, overlap with the reference mask; NaN without one.
    """

    logits: NDArray[np.float32]
    evidence: NDArray[np.float32] | None
    dice: FloatArray

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Predicted classes (N,)."""
        return np.asarray(self.logits.argmax(axis=1), np.int64)

    def cells(self, classes: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Return the cell (N,) with the largest evidence for a class of each image, or None without evidence."""
        if self.evidence is None:
            return None
        own: NDArray[np.float32] = self.evidence[np.arange(len(classes)), classes]
        return np.asarray(own.reshape(len(classes), -1).argmax(axis=1), np.int64)


def answers_of(backend: Backend, cache: Cache, manifest: Manifest, progress: Progress | None = None) -> Answers:
    """Run an engine on all images of a cache.

    Args:
        backend: The engine.
        cache: N decoded images.
        manifest: Manifest of the network.
        progress: Called with (images done, all images).
    """
    logits, evidence = [], []
    dice = np.full(len(cache.images), np.nan)
    for rows, output in run_batches(backend, cache.images, manifest.preprocess, progress=progress):
        logits.append(output.classification)
        evidence.append(output.evidence)
        known = np.flatnonzero(cache.mask_row[rows] >= 0)
        reference = cache.masks[cache.mask_row[rows][known]] > 0
        dice[rows.start + known] = dice_and_iou(output.segmentation[known, 0] > manifest.mask_threshold, reference)[0]
    maps = [own for own in evidence if own is not None]
    return Answers(np.concatenate(logits), np.concatenate(maps) if maps else None, dice)


def agreement_of(
    reference: Answers,
    candidate: Answers,
    labels: NDArray[np.int64],
    *,
    backend: str,
    split: str,
    float_layers: FloatPrecision = "fp32",
) -> Agreement:
    """Compare a reduced precision with float32 on the same N images.

    The bias of a class, which evidence leaves out of its logit, is the median of their difference in float32.

    Args:
        reference: Answers in float32.
        candidate: Answers in reduced precision.
        labels: (N,) int64, -1 if unknown.
        backend: Engine of the reduced precision, with its version.
        split: Name of the split.
        float_layers: Precision of the layers that are not quantized.
    """
    expected, found = reference.predicted, candidate.predicted
    cells, own_cells = reference.cells(expected), candidate.cells(expected)
    error = None
    if reference.evidence is not None and candidate.evidence is not None:
        bias = np.median(_beyond_evidence(reference.logits, reference.evidence), axis=0)
        error = float(np.abs(_beyond_evidence(candidate.logits, candidate.evidence) - bias).max())
    figures = {
        "labels_agree": float((expected == found).mean()),
        "macro_f1_change": _macro_f1(labels, found, candidate) - _macro_f1(labels, expected, reference),
        "dice_change": _change(nan_mean(reference.dice), nan_mean(candidate.dice)),
        "evidence_sum_error": error,
        "evidence_same_cell": None if cells is None or own_cells is None else float((cells == own_cells).mean()),
    }
    measured = Agreement(
        n=len(labels), backend=backend, split=split, accepted=False, float_layers=float_layers, **figures
    )
    return measured.model_copy(update={"accepted": not failures_of(measured)})


def failures_of(agreement: Agreement) -> tuple[str, ...]:
    """Return the figures that are outside their bounds, as text; empty if a precision can be accepted."""
    own = agreement
    checks = (
        (own.labels_agree >= LABELS_AGREE, f"labels agree on {own.labels_agree:.2%}, minimum {LABELS_AGREE:.2%}"),
        (
            own.macro_f1_change >= -MACRO_F1_FALL,
            f"macro F1 changes by {own.macro_f1_change:+.4f}, minimum {-MACRO_F1_FALL:+.4f}",
        ),
        (
            own.dice_change is None or own.dice_change >= -DICE_FALL,
            f"Dice changes by {own.dice_change or 0:+.4f}, minimum {-DICE_FALL:+.4f}",
        ),
        (
            own.evidence_sum_error is None or own.evidence_sum_error <= EVIDENCE_SUM_ERROR,
            f"evidence misses its logit by {own.evidence_sum_error or 0:.1e}, maximum {EVIDENCE_SUM_ERROR:.0e}",
        ),
        (
            own.evidence_same_cell is None or own.evidence_same_cell >= EVIDENCE_SAME_CELL,
            f"the strongest evidence is in the same cell on {own.evidence_same_cell or 0:.2%}, minimum "
            f"{EVIDENCE_SAME_CELL:.2%}",
        ),
    )
    return tuple(text for passed, text in checks if not passed)


def _beyond_evidence(logits: NDArray[np.float32], evidence: NDArray[np.float32]) -> FloatArray:
    return np.asarray(logits.astype(np.float64) - evidence.sum(axis=(2, 3), dtype=np.float64))


def _macro_f1(labels: NDArray[np.int64], predicted: NDArray[np.int64], answers: Answers) -> float:
    known = labels >= 0
    confusion = confusion_counts(labels[known], predicted[known], answers.logits.shape[1])[0]
    rates = confusion_rates(confusion)
    return float(macro_average(rates.f1, rates.recall, confusion.sum(axis=1) > 0))


def _change(before: FloatArray, after: FloatArray) -> float | None:
    change = float(after - before)
    return None if np.isnan(change) else change
