"""Softmax with temperature, abstention, and conformal prediction sets. All parameters are fitted in hilum.metrics.

The score of a class is 1 - p (Sadinle, Lei & Wasserman 2019, J. Am. Stat. Assoc. 114:223). A class is in the
prediction set if its score is at most the quantile of that class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Temperature: TypeAlias = "float | Sequence[float]"
"""One temperature, or K: one for each predicted class."""
Threshold: TypeAlias = "float | Sequence[float | None] | None"
"""An abstention threshold of the highest probability, None to abstain never; or K, one for each predicted class, where
None abstains from every prediction of the class."""


def softmax(logits: NDArray[np.floating[Any]], temperature: Temperature = 1.0) -> NDArray[np.float64]:
    """Convert logits (N, K) to probabilities (N, K) float64 with temperature scaling (Guo et al. 2017).

    Computed in float64, so that backends differ only by their logits. See scale for the arguments.
    """
    scaled = scale(logits, temperature)
    exponential = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(exponential / exponential.sum(axis=1, keepdims=True))


def scale(logits: NDArray[np.floating[Any]], temperature: Temperature) -> NDArray[np.float64]:
    """Return logits divided by their temperature, (N, K) float64.

    All logits of an image have one divisor, so that no temperature changes the predicted class.

    Args:
        logits: (N, K), before softmax.
        temperature: The divisor of all logits, or K: the k-th divides those of the images whose highest logit is the
            k-th.
    """
    exact = logits.astype(np.float64)
    if isinstance(temperature, float | int):
        return np.asarray(exact / temperature)
    return np.asarray(exact / np.asarray(temperature, np.float64)[exact.argmax(axis=1)][:, None])


def abstains(probabilities: NDArray[np.float64], threshold: Threshold) -> NDArray[np.bool_]:
    """Return which predictions abstain, (N,) bool: those with a highest probability below the threshold.

    Args:
        probabilities: (N, K) float64 in [0, 1], after temperature scaling.
        threshold: See Threshold.
    """
    if threshold is None or isinstance(threshold, float | int):
        least: float | NDArray[np.float64] = 0.0 if threshold is None else threshold
    else:
        every = np.array([np.inf if own is None else own for own in threshold])
        least = every[probabilities.argmax(axis=1)]
    return np.asarray(probabilities.max(axis=1) < least)


LEVELS = ("0.90", "0.95", "0.99")
"""Coverages for which a calibration has quantiles: the keys of ``Manifest.conformal_quantiles``."""


def scores(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the score of every class, 1 - p, in [0, 1], in the shape of ``probabilities``."""
    return 1 - probabilities


def prediction_sets(probabilities: NDArray[np.float64], quantiles: Sequence[float]) -> NDArray[np.bool_]:
    """Return which classes are in the prediction set of each image, (N, K) bool; the most probable class always is.

    Args:
        probabilities: (N, K) float64 in [0, 1], after temperature scaling.
        quantiles: K values in [0, 1], one per class; 1 keeps the class in every set.
    """
    inside = scores(probabilities) <= np.asarray(quantiles, np.float64)
    inside[np.arange(len(probabilities)), probabilities.argmax(axis=1)] = True
    return inside


def prediction_set(
    probabilities: NDArray[np.float64], class_names: Sequence[str], quantiles: Sequence[float] | None
) -> tuple[str, ...]:
    """Return the prediction set of one image, most probable class first; only that class without quantiles.

    Args:
        probabilities: (K,) float64 in [0, 1], after temperature scaling.
        class_names: The K class names.
        quantiles: K values in [0, 1], or None; see prediction_sets.
    """
    if quantiles is None:
        return (class_names[int(probabilities.argmax())],)
    inside = prediction_sets(probabilities[None], quantiles)[0]
    return tuple(class_names[k] for k in np.argsort(-probabilities, kind="stable") if inside[k])
