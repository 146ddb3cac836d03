"""The proof that two backends are the same function. It raises; it is never skipped and never a warning."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from hilum.backends.base import Backend, BackendOutput
from hilum.bundle.prediction_sets import softmax
from hilum.config import PreprocessSpec
from hilum.errors import ParityError

TOLERANCE = 1e-4
"""Largest difference of a probability; and of a logit or an evidence value, relative to it where it is above 1."""
MASK_AGREEMENT = 0.9999
"""Smallest share of mask pixels that must be equal."""
ROUNDING_TOLERANCE = 0.05
"""Largest difference of a probability, before temperature, that rounded weights may make on real files."""
BATCH_SIZES = (1, 2, 5)


@dataclass(frozen=True)
class Parity:
    """What was compared and how far it was apart.

    A difference of logits is absolute up to 1 and relative above, |a - b| / max(1, |a|), since float32 has 24 bits
    whatever the size.

    Attributes:
        images: How many inputs, over all batches.
        segmentation: Largest absolute difference of lung probabilities.
        classification, evidence: Largest differences, as said; evidence is 0 where there is none.
        probabilities: Largest absolute difference after softmax.
        mask_agreement: Share of equal pixels after the threshold, over all images.
        labels_equal: Share of equal arg max.
    """

    images: int
    segmentation: float
    classification: float
    probabilities: float
    evidence: float
    mask_agreement: float
    labels_equal: float

    def as_dict(self) -> dict[str, float]:
        """For the manifest."""
        return asdict(self)


def random_batches(
    spec: PreprocessSpec, batch_sizes: Sequence[int] = BATCH_SIZES, seed: int = 0
) -> list[NDArray[np.float32]]:
    """Batches (N, C, S, S) of uniform noise in [0, 1], one for each size."""
    random = np.random.default_rng(seed)
    shape = (spec.channels, spec.size, spec.size)
    return [random.random((n, *shape), dtype=np.float32) for n in batch_sizes]


def compare(reference: Backend, candidate: Backend, batches: Iterable[NDArray[np.float32]], threshold: float) -> Parity:
    """Run both on the same inputs and measure.

    Args:
        reference, candidate: The engines.
        batches: (N, C, S, S) float32 each.
        threshold: Of the mask.
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
    """Raise unless everything is within its bound.

    Raises:
        ParityError: Names each measure that is outside, with its bound.
    """
    bounds = dict.fromkeys(("segmentation", "classification", "probabilities", "evidence"), tolerance)
    failures = [
        f"{name} differs by {value:.2e}, at most {bound:.0e} is allowed"
        for name, bound in bounds.items()
        if not (value := getattr(parity, name)) <= bound  # written so that NaN fails
    ]
    if not parity.mask_agreement >= MASK_AGREEMENT:
        failures.append(
            f"masks agree in {parity.mask_agreement:.4%} of pixels, at least {MASK_AGREEMENT:.2%} is needed"
        )
    if parity.labels_equal != 1:
        failures.append(f"labels agree in {parity.labels_equal:.2%} of images, all must")
    if failures:
        raise ParityError(
            f"Expected {what} to agree on {parity.images} images: {'; '.join(failures)}.",
            hint="The bundle was not written. Try another --opset, or train in 32-true precision.",
        )


def require_small_rounding(parity: Parity) -> None:
    """Raise unless rounded weights answer as those did that were measured and calibrated.

    Args:
        parity: Of the network before rounding and after it, on real files.

    Raises:
        ParityError: A probability moved by more than ROUNDING_TOLERANCE.
    """
    if not parity.probabilities <= ROUNDING_TOLERANCE:  # written so that NaN fails
        raise ParityError(
            f"Expected weights rounded to float16 to move probabilities by at most {ROUNDING_TOLERANCE} on "
            f"{parity.images} files, got {parity.probabilities:.3f}: calibration and figures would not be theirs.",
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
