"""Parity check: compare the outputs of two backends, and raise if they differ by more than the tolerance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from hilum.backends.base import Backend, BackendOutput
from hilum.bundle.prediction_sets import softmax
from hilum.bundle.self_test import TOLERANCE
from hilum.config import PreprocessSpec
from hilum.errors import ParityError

MASK_AGREEMENT = 0.9999
"""Minimum fraction of equal mask pixels."""
ROUNDING_TOLERANCE = 0.05
"""Maximum change of a probability, before temperature scaling, by rounding weights, on real files."""
BATCH_SIZES = (1, 2, 5)


@dataclass(frozen=True)
class Parity:
    """Differences between the outputs of two backends.

    Differences of logits and evidence are |a - b| / max(1, |a|): absolute up to 1, relative above.

    Attributes:
        images: Number of images over all batches.
        segmentation: Maximum absolute difference of lung probabilities.
        classification: Maximum difference of logits.
        probabilities: Maximum absolute difference after softmax.
        evidence: Maximum difference of evidence; 0 without evidence.
        mask_agreement: Fraction of equal mask pixels over all images.
        labels_equal: Fraction of images with the same predicted class.
    """

    images: int
    segmentation: float
    classification: float
    probabilities: float
    evidence: float
    mask_agreement: float
    labels_equal: float

    def as_dict(self) -> dict[str, float]:
        """Return the differences as a dict for the manifest."""
        return asdict(self)


def random_batches(
    spec: PreprocessSpec, batch_sizes: Sequence[int] = BATCH_SIZES, seed: int = 0
) -> list[NDArray[np.float32]]:
    """Return batches (N, C, S, S) float32 of uniform noise in [0, 1], one for each batch size."""
    random = np.random.default_rng(seed)
    shape = (spec.channels, spec.size, spec.size)
    return [random.random((n, *shape), dtype=np.float32) for n in batch_sizes]


def compare(reference: Backend, candidate: Backend, batches: Iterable[NDArray[np.float32]], threshold: float) -> Parity:
    """Run two backends on the same batches and return their differences.

    Args:
        reference: The first backend.
        candidate: The second backend.
        batches: Batches (N, C, S, S) float32.
        threshold: Probability above which a pixel is lung.
    """
    rows = [_difference(reference.run(batch), candidate.run(batch), threshold) for batch in batches]
    images, pixels = sum(row[0] for row in rows), sum(row[1] for row in rows)
    worst = np.max([row[2] for row in rows], axis=0)
    return Parity(
        images=images,
        segmentation=float(worst[0]),
        classification=float(worst[1]),
        probabilities=float(worst[2]),
        evidence=float(worst[3]),
        mask_agreement=sum(row[3] for row in rows) / pixels,
        labels_equal=sum(row[4] for row in rows) / images,
    )


def require_parity(parity: Parity, *, tolerance: float = TOLERANCE, what: str = "PyTorch and ONNX Runtime") -> None:
    """Check that all differences are within their tolerance.

    Args:
        parity: The differences.
        tolerance: Maximum difference of probabilities, logits and evidence.
        what: Names of the backends in the message.

    Raises:
        ParityError: A difference exceeds its tolerance.
    """
    bounds = dict.fromkeys(("segmentation", "classification", "probabilities", "evidence"), tolerance)
    failures = [
        f"{name} differs by {value:.2e}, tolerance {bound:.0e}"
        for name, bound in bounds.items()
        if not (value := getattr(parity, name)) <= bound  # written so that NaN fails
    ]
    if not parity.mask_agreement >= MASK_AGREEMENT:
        failures.append(f"masks agree in {parity.mask_agreement:.4%} of pixels, minimum {MASK_AGREEMENT:.2%}")
    if parity.labels_equal != 1:
        failures.append(f"labels agree in {parity.labels_equal:.2%} of images, minimum 100%")
    if failures:
        raise ParityError(
            f"{what} disagree on {parity.images} images: {'; '.join(failures)}.",
            hint="The bundle was not written. Try another --opset, or train with --precision 32-true.",
        )


def require_small_rounding(parity: Parity) -> None:
    """Check that rounding weights changes predictions only slightly.

    Args:
        parity: Differences between the network before and after rounding, on real files.

    Raises:
        ParityError: A probability changed by more than ROUNDING_TOLERANCE.
    """
    if not parity.probabilities <= ROUNDING_TOLERANCE:  # written so that NaN fails
        raise ParityError(
            f"Rounding weights to float16 changes a probability by {parity.probabilities:.3f} ({parity.images} files), "
            f"more than {ROUNDING_TOLERANCE}; metrics and calibration would no longer apply.",
            hint="The bundle was not written. Export without --half-weights.",
        )


def _difference(
    one: BackendOutput, two: BackendOutput, threshold: float
) -> tuple[int, int, tuple[float, float, float, float], int, int]:
    evidence = 0.0
    if (one.evidence is None) != (two.evidence is None):
        evidence = float("inf")
    elif one.evidence is not None and two.evidence is not None:
        evidence = _relative(one.evidence, two.evidence)
    distances = (
        _largest(one.segmentation, two.segmentation),
        _relative(one.classification, two.classification),
        _largest(softmax(one.classification), softmax(two.classification)),
        evidence,
    )
    equal_pixels = int(((one.segmentation > threshold) == (two.segmentation > threshold)).sum())
    same = one.classification.argmax(axis=1) == two.classification.argmax(axis=1)
    return len(one.segmentation), one.segmentation.size, distances, equal_pixels, int(same.sum())


def _largest(one: NDArray[np.floating], two: NDArray[np.floating]) -> float:
    return float(np.abs(one.astype(np.float64) - two).max())


def _relative(one: NDArray[np.floating], two: NDArray[np.floating]) -> float:
    return float((np.abs(one.astype(np.float64) - two) / np.maximum(1, np.abs(one))).max())
